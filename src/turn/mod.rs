//! One turn: what the agent is lent while it runs, and what the caller holds meanwhile.

pub(crate) mod context;
pub(crate) mod events;
pub(crate) mod handle;
pub(crate) mod interactions;
pub(crate) mod shared;
pub(crate) mod stream;
