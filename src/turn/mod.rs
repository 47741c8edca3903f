//! One turn: what the agent is lent while it runs, and what the caller holds meanwhile.

pub(crate) mod context;
pub(crate) mod counters;
pub(crate) mod environment;
pub(crate) mod events;
pub(crate) mod handle;
pub(crate) mod interactions;
pub(crate) mod outcome;
pub(crate) mod stream;
