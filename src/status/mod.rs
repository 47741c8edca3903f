//! What everybody may know of a session at any time, without waiting for it: who may run, and how far it is.

pub(crate) mod figures;
pub(crate) mod gate;
pub(crate) mod published;
pub(crate) mod shelf;
