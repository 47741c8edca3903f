//! What the workloads ask of everybody.

use std::time::Duration;

use crate::task::Task;

/// For an answer that comes at once, on a machine that is not overloaded.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Long enough for a thread or task that waits to be asleep when it is told. How long it takes on a busy machine changes the
/// figure and nothing else: the turn is held until it is told.
pub(crate) const SETTLE: Duration = Duration::from_micros(500);

/// Something that keeps states apart, each of which is asked one thing at a time: sessions, or actors. All of it as a program
/// calls it that blocks.
pub(crate) trait Peer {
    const NAME: &'static str;
    type Session: Sync;

    /// A new session, ready to be asked.
    fn open(&self) -> Self::Session;

    /// One turn, or one message and its answer.
    fn ask(&self, session: &Self::Session, task: Task);

    /// The same on every session at once, all from the calling thread; returns when all have answered.
    fn ask_all(&self, sessions: &[Self::Session], task: Task);

    /// A session from its beginning to its end, asked once; nobody waits for the end.
    fn cycle(&self);

    /// Ends the sessions, all that there are.
    fn close_all(&self, sessions: Vec<Self::Session>);
}

/// A service of sessions: what actors leave to their users.
///
/// A call that is to meet a running turn finds one, however busy the machine is: the turn says that it runs, and does not end before it
/// is released, which it is once the call has begun.
pub(crate) trait Service: Peer {
    /// One turn that emits so many events, all of which are received.
    fn stream(&self, session: &Self::Session, events: u64);

    fn read(&self, session: &Self::Session);

    /// A read during a turn, which lasts for so many milliseconds more.
    fn read_during_a_turn(&self, session: &Self::Session, milliseconds: u64) -> Duration;

    /// How many are in the list.
    fn list(&self, limit: Option<usize>) -> usize;

    /// From the interrupt of a turn, which would last for so many milliseconds more, until its agent is told.
    fn interrupt(&self, session: &Self::Session, milliseconds: u64) -> Duration;
}
