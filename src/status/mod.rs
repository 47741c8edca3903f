//! What any thread may read of a session at any time, without waiting for it: whether a turn may be admitted, and the published snapshot.

pub(crate) mod gate;
pub(crate) mod published;
pub(crate) mod slab;
