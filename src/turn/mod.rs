//! One turn: the context that the agent borrows while it runs, and the handle that the caller holds.

pub(crate) mod any;
pub(crate) mod events;
pub(crate) mod handle;
pub(crate) mod input;
pub(crate) mod interactions;
pub(crate) mod shared;
pub(crate) mod stream;
