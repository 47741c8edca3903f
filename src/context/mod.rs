//! What an agent borrows for the length of its turn.
//!
//! - [`turn`]: the turn's context
//! - [`service`]: the service that hosts the session, for waits that belong to the turn
//! - [`sub_session`]: child sessions that end with the turn

pub(crate) mod service;
pub(crate) mod sub_session;
pub(crate) mod turn;
