//! What the rest of the crate runs on: crossbeam, unless a model checker is asked for.

#[path = "channels.rs"]
mod channels;

mod support {
    pub(super) use crate::sync::{at, bounded, never, select, unbounded, Instant, Receiver, Sender};
}
