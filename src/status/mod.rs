//! The state of a session that any thread may read at any time, without waiting for the session: whether a turn may be
//! admitted, the published snapshot, and the committed history.

pub(crate) mod gate;
pub(crate) mod history;
pub(crate) mod published;
pub(crate) mod queue_length;
pub(crate) mod slab;
