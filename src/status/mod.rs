//! The state of a session that any thread may read at any time, without waiting for the session: whether a turn may be
//! admitted, and the published snapshot.

pub(crate) mod gate;
pub(crate) mod published;
pub(crate) mod queue_length;
pub(crate) mod slab;
