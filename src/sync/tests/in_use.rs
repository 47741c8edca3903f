//! The channels of the rest of the crate: crossbeam's, or under a model checker the replacement.

#[path = "channels.rs"]
mod channels;

mod support {
    pub(super) use crate::sync::{at, bounded, never, select, unbounded, Instant, Receiver, Select, Sender};
}
