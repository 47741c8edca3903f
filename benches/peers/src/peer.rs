//! The operations that the workloads need of each crate.

use std::time::Duration;

use crate::task::Task;

/// The limit of a wait for an answer that comes at once, unless the machine is overloaded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough for a waiting thread or task to be parked before it is notified. If that takes longer on a busy machine,
/// only the figure changes, because the turn is held until it is notified.
pub(crate) const SETTLE: Duration = Duration::from_micros(500);

/// A crate whose sessions or actors each have a state and handle one request at a time. All calls are those of a
/// blocking program.
pub(crate) trait Peer {
    const NAME: &'static str;
    type Session: Sync;

    /// Creates a session that is ready for a request.
    fn open(&self) -> Self::Session;

    /// Runs one turn, or sends one message and waits for the reply.
    fn ask(&self, session: &Self::Session, task: Task);

    /// Starts the task on every session from the calling thread, then waits for all replies.
    fn ask_all(&self, sessions: &[Self::Session], task: Task);

    /// Creates a session, runs one request and tells the session to end. May return before the end.
    fn cycle(&self);

    /// Ends the sessions, which must be all that exist.
    fn close_all(&self, sessions: Vec<Self::Session>);
}

/// A service of sessions, with operations that an actor crate leaves to its users.
///
/// A call that is measured during a turn always finds a running turn, also on a busy machine. The turn reports that it
/// runs, and does not end before it is released or interrupted. That happens only after the call has begun.
pub(crate) trait Service: Peer {
    /// Runs a turn that emits this number of events, and receives all of them.
    fn stream(&self, session: &Self::Session, events: u64);

    fn read(&self, session: &Self::Session);

    /// The time of a read during a turn. The turn lasts for this number of milliseconds after its release.
    fn read_during_a_turn(&self, session: &Self::Session, milliseconds: u64) -> Duration;

    /// Lists sessions, and returns their number.
    fn list(&self, limit: Option<usize>) -> usize;

    /// The time from the interrupt of a turn until its agent is notified. Without the interrupt the turn would last for
    /// this number of milliseconds after its release.
    fn interrupt(&self, session: &Self::Session, milliseconds: u64) -> Duration;
}
