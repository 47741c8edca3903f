//! What the workloads ask of everybody.

use std::time::Duration;

use crate::task::Task;

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
pub(crate) trait Service: Peer {
    /// One turn that emits so many events, all of which are received.
    fn stream(&self, session: &Self::Session, events: u64);

    /// Begins a turn, and returns what waits for its end.
    fn begin<'a>(&'a self, session: &'a Self::Session, task: Task) -> Box<dyn FnOnce() + 'a>;

    fn read(&self, session: &Self::Session);

    /// How many are in the list.
    fn list(&self, limit: Option<usize>) -> usize;

    /// From the interrupt of a turn that waits for so many milliseconds until its agent is told.
    fn interrupt(&self, session: &Self::Session, milliseconds: u64) -> Duration;
}
