//! Records events, for comparison with what a test expects.

use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write as _;
use std::time::Duration;

use crate::model::{AgentEvent, SessionEvent};
use crate::subscription::stream::EventStream;
use crate::sync::{unbounded, Receiver, Sender};
use crate::testkit::describe::{describe, matches};
use crate::testkit::PATIENCE;
use crate::time::clock::Clock;

/// Records the events of a turn, an interaction or a subscription, and compares them with what a test expects.
///
/// An expectation is the name of an event, `TextDelta`, or its name and text, `TextDelta(hello)`. The text is the
/// event's content: a prompt, an answer, an error, a tool's name and arguments. It has neither ids nor durations.
///
/// ```
/// use turnwise::testkit::{scripted, Recorder, Script};
/// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let service = EphemeralSessionService::new(scripted().on("greet", Script::new().say("hello")), 1);
/// let (event_tx, mut events) = Recorder::of_turn();
/// service.create_session(CreateSessionRequest::new("greet").event_tx(event_tx))?;
/// events.assert_events(&["RunStarted(greet)", "TextDelta", "RunCompleted(hello)"]);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
///
/// A failure shows both sequences side by side, with a mark at the first difference. It shows texts in full, since a
/// recording is for tests, not for logs.
pub struct Recorder {
    source: Source,
    recorded: Vec<Recorded>,
    /// The number of recorded events that were waited for or compared.
    cursor: usize,
    ended: bool,
    patience: Duration,
}

enum Source {
    Events(Receiver<AgentEvent>),
    Stream(EventStream),
}

enum Recorded {
    Event(AgentEvent),
    Numbered(SessionEvent),
}

impl Recorder {
    /// Makes a recorder of one turn, and the sender for the request's
    /// [`event_tx`](crate::StartTurnRequest#structfield.event_tx). It never blocks the turn.
    pub fn of_turn() -> (Sender<AgentEvent>, Self) {
        let (event_tx, events) = unbounded();
        (event_tx, Self::of_events(events))
    }

    /// Makes a recorder of this channel: [`InteractionSubscription::events`](crate::InteractionSubscription), or a
    /// receiver of the test's own.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Recorder, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, EventSource, SessionService};
    ///
    /// let service = EphemeralSessionService::new(scripted().on("ping", Script::new().say("pong")), 1);
    /// let hosting = service.begin_session(CreateSessionRequest::new("hello").host_mode(true))?;
    /// let injector = service.event_injector(hosting.session_id()).unwrap();
    /// let ping = injector.inject_with_subscription("ping".into(), EventSource::Rpc)?;
    /// Recorder::of_events(ping.events).assert_events(&["TextDelta(pong)", "InteractionComplete(pong)"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn of_events(events: Receiver<AgentEvent>) -> Self {
        Self::new(Source::Events(events))
    }

    /// Makes a recorder of a subscription.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Recorder};
    /// use turnwise::{EphemeralSessionService, SessionService, SessionSpec, StartTurnRequest, Subscription};
    ///
    /// let service = EphemeralSessionService::new(scripted(), 1);
    /// let id = service.open_session(SessionSpec::new())?;
    /// let mut events = Recorder::of_stream(service.subscribe(id, Subscription::new())?);
    /// service.start_turn(id, StartTurnRequest::new("one"))?;
    /// service.start_turn(id, StartTurnRequest::new("two"))?;
    /// events.assert_next(&["RunStarted(one)", "RunCompleted(one)", "RunStarted(two)"]);
    /// events.assert_no_gaps();
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn of_stream(stream: EventStream) -> Self {
        Self::new(Source::Stream(stream))
    }

    fn new(source: Source) -> Self {
        Self { source, recorded: Vec::new(), cursor: 0, ended: false, patience: PATIENCE }
    }

    /// Reads until an event matches, starting after the last event that was waited for or compared.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Recorder, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = scripted().on("think", Script::new().say("hm").until_cancelled());
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let (event_tx, mut events) = Recorder::of_turn();
    /// let turn = service.begin_session(CreateSessionRequest::new("think").event_tx(event_tx))?;
    /// events.wait_for("TextDelta(hm)"); // now the turn is certainly running
    /// turn.interrupt();
    /// events.assert_next(&["RunFailed"]);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Panics
    /// If the stream ends first, or no further event arrives within [`PATIENCE`].
    ///
    /// # Blocking
    /// Until the event, at most for [`PATIENCE`] for each event before it, in real time.
    #[track_caller]
    pub fn wait_for(&mut self, expected: &str) -> &AgentEvent {
        let from = self.cursor;
        loop {
            match self.next() {
                Next::Event if matches(self.recorded[self.cursor - 1].event(), expected) => break,
                Next::Event => {}
                Next::End(why) => panic!("{expected} has not come, {why}; recorded:\n{}", self.list(from)),
            }
        }
        self.recorded[self.cursor - 1].event()
    }

    /// Asserts that the next events match, starting after the last event that was waited for or compared.
    ///
    /// # Panics
    /// If they differ, the stream ends first, or no further event arrives within [`PATIENCE`].
    ///
    /// # Blocking
    /// Until the events, at most for [`PATIENCE`] for each, in real time.
    #[track_caller]
    pub fn assert_next(&mut self, expected: &[&str]) {
        let from = self.cursor;
        let mut why = "";
        for _ in expected {
            if let Next::End(end) = self.next() {
                why = end;
                break;
            }
        }
        compare(expected, &self.recorded[from..self.cursor], why);
    }

    /// Reads to the end, and asserts that all recorded events match. A turn's events end with the turn; a
    /// subscription's events end with the session or service that it follows.
    ///
    /// # Panics
    /// If they differ, or no further event and no end arrives within [`PATIENCE`].
    ///
    /// # Blocking
    /// Until the end, at most for [`PATIENCE`] for each event, in real time.
    #[track_caller]
    pub fn assert_events(&mut self, expected: &[&str]) {
        let why = self.read_to_end();
        compare(expected, &self.recorded, why);
        assert!(self.ended, "the events are as expected, but they have no end: {why}");
    }

    /// Asserts that a subscription has missed no event so far: the sequence numbers of each session rise by one, and
    /// the stream has counted no drop.
    ///
    /// # Panics
    /// If there is a gap, with the numbers on both sides; or if this does not record a subscription.
    #[track_caller]
    pub fn assert_no_gaps(&self) {
        self.assert_dropped(0);
    }

    /// Asserts that a subscription has missed this many events so far, by the stream's count and by the gaps between
    /// sequence numbers. An event dropped after the last one read is counted, but is no gap yet.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Recorder, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService, Subscription};
    ///
    /// let agent = scripted().on("count", Script::new().say("1").say("2").say("3"));
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let mut events = Recorder::of_stream(service.subscribe_all(Subscription::new().capacity(2)));
    /// service.create_session(CreateSessionRequest::new("count"))?;
    /// events.assert_next(&["TextDelta(3)", "RunCompleted(123)"]);
    /// events.assert_dropped(3); // RunStarted and two TextDeltas
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Panics
    /// If the count differs, or the gaps add up to more; or if this does not record a subscription.
    #[track_caller]
    pub fn assert_dropped(&self, events: u64) {
        let Source::Stream(stream) = &self.source else { panic!("only subscriptions have numbers") };
        let (mut gaps, mut missing) = (String::new(), 0);
        let mut last_of = BTreeMap::new();
        for event in self.recorded.iter().filter_map(Recorded::numbered) {
            let Some(last) = last_of.insert(event.session_id, event.seq) else { continue };
            assert!(event.seq > last, "number {} came after {last}:\n{}", event.seq, self.list(0));
            if event.seq > last + 1 {
                missing += event.seq - last - 1;
                let _ = write!(gaps, " {last}..{}", event.seq);
            }
        }
        let dropped = stream.dropped();
        assert!(
            dropped == events && missing <= events,
            "expected {events} missed events, found {dropped} counted and {missing} in gaps:{gaps}"
        );
    }

    /// Returns the events recorded so far. Reads nothing.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, Recorder, Script};
    /// use turnwise::{AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = scripted().on("count", Script::new().say("1").say("2"));
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let (event_tx, mut events) = Recorder::of_turn();
    /// service.create_session(CreateSessionRequest::new("count").event_tx(event_tx))?;
    /// events.wait_for("RunCompleted");
    /// let pieces = events.events().filter(|event| matches!(event, AgentEvent::TextDelta { .. }));
    /// assert_eq!(pieces.count(), 2);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn events(&self) -> impl Iterator<Item = &AgentEvent> {
        self.recorded.iter().map(Recorded::event)
    }

    /// Reads to the end, and returns all recorded events as text, one line for each event. Lines of a subscription
    /// begin with session, turn and sequence number. With [`SeededIds`](super::SeededIds) the text is the same in
    /// every run.
    ///
    /// # Panics
    /// If no further event and no end arrives within [`PATIENCE`].
    ///
    /// # Blocking
    /// Until the end, at most for [`PATIENCE`] for each event, in real time.
    #[track_caller]
    pub fn transcript(&mut self) -> String {
        let why = self.read_to_end();
        assert!(self.ended, "{why}; recorded:\n{}", self.list(0));
        self.recorded.iter().map(|one| format!("{one}\n")).collect()
    }

    /// Reads to the end. Returns why there are no more events.
    fn read_to_end(&mut self) -> &'static str {
        loop {
            if let Next::End(why) = self.next() {
                return why;
            }
        }
    }

    fn next(&mut self) -> Next {
        if self.cursor == self.recorded.len() {
            let patience = Clock::System.deadline(self.patience);
            let next = match &self.source {
                Source::Events(events) => patience.receive(events).map(Recorded::Event).map_err(|e| e.is_timeout()),
                Source::Stream(stream) => match stream.recv_until(&patience) {
                    Ok(Some(event)) => Ok(Recorded::Numbered(event)),
                    Ok(None) => Err(false),
                    Err(_) => Err(true),
                },
            };
            match next {
                Ok(event) => self.recorded.push(event),
                Err(true) => return Next::End("and nothing more came in time"),
                Err(false) => {
                    self.ended = true;
                    return Next::End("and the stream has ended");
                }
            }
        }
        self.cursor += 1;
        Next::Event
    }

    fn list(&self, from: usize) -> String {
        self.recorded[from..].iter().map(|one| format!("  {one}\n")).collect()
    }
}

enum Next {
    Event,
    /// There is no next event, for this reason.
    End(&'static str),
}

/// Panics with both sequences side by side where they differ.
#[track_caller]
fn compare(expected: &[&str], recorded: &[Recorded], why: &str) {
    let same = |at: usize| match (expected.get(at), recorded.get(at)) {
        (Some(expected), Some(recorded)) => matches(recorded.event(), expected),
        (expected, recorded) => expected.is_none() && recorded.is_none(),
    };
    let rows = expected.len().max(recorded.len());
    let Some(first) = (0..rows).find(|at| !same(*at)) else { return };
    let width = expected.iter().map(|text| text.chars().count()).max().unwrap_or(0).max("expected".len());
    let mut table = format!("    {:width$}   recorded\n", "expected");
    for at in 0..rows {
        let mark = if at == first { "-->" } else { "" };
        let left = expected.get(at).copied().unwrap_or("(nothing)");
        let right = recorded.get(at).map_or_else(|| "(nothing)".to_owned(), |one| describe(one.event()));
        let _ = writeln!(table, "{mark:3} {left:width$}   {right}");
    }
    let why = if recorded.len() < expected.len() { format!(" ({why})") } else { String::new() };
    panic!("the events differ from what was expected, first at position {first}{why}:\n{table}");
}

impl Recorded {
    fn event(&self) -> &AgentEvent {
        match self {
            Self::Event(event) => event,
            Self::Numbered(numbered) => &numbered.event,
        }
    }

    fn numbered(&self) -> Option<&SessionEvent> {
        match self {
            Self::Event(_) => None,
            Self::Numbered(event) => Some(event),
        }
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Numbered(SessionEvent { session_id, turn_id, seq, .. }) = self {
            let turn = turn_id.map_or_else(|| "-".to_owned(), |turn| turn.to_string());
            write!(f, "{session_id} {turn} {seq} ")?;
        }
        f.write_str(&describe(self.event()))
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("recorded", &self.recorded.len()).field("ended", &self.ended).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The panic message of a recorder that waits for more events than there are.
    fn failing(check: impl FnOnce(&mut Recorder) + std::panic::UnwindSafe) -> String {
        let failed = std::panic::catch_unwind(|| {
            let (event_tx, mut events) = Recorder::of_turn();
            events.patience = Duration::from_millis(5);
            event_tx.send(AgentEvent::TextDelta { delta: "a".to_owned() }).unwrap();
            check(&mut events);
            drop(event_tx);
        });
        *failed.unwrap_err().downcast().unwrap()
    }

    #[test]
    fn the_waits_of_a_recorder_time_out() {
        let message = failing(|events| drop(events.wait_for("RunCompleted").clone()));
        assert_eq!(message, "RunCompleted has not come, and nothing more came in time; recorded:\n  TextDelta(a)\n");
        let message = failing(|events| events.assert_next(&["TextDelta(a)", "TextDelta(b)"]));
        assert!(message.contains("first at position 1 (and nothing more came in time)"), "{message}");
        let message = failing(|events| events.assert_events(&["TextDelta(a)"]));
        assert!(message.contains("they have no end"), "{message}");
        let message = failing(|events| drop(events.transcript()));
        assert!(message.contains("and nothing more came in time; recorded:\n  TextDelta(a)"), "{message}");
    }
}
