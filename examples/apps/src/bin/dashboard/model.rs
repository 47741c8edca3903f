//! The data of the dashboard: it takes events, ended turns and lists, and returns the figures of a frame. It uses
//! neither a terminal nor a clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use turnwise::{PendingInput, ServiceStats, SessionEvent, SessionId, SessionState, SessionSummary};

use crate::figures::{Latencies, Meter};

/// A turn that has ended, as the host has seen it.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) session: SessionId,
    /// The time from the call that began the turn until its result.
    pub(crate) took: Duration,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Completed,
    Cancelled,
    Failed(String),
    Panicked(String),
}

/// All data of a frame, so that a frame can be kept.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    pub(crate) up: Duration,
    pub(crate) stats: ServiceStats,
    /// The number of turns in the queues of all sessions.
    pub(crate) queued: usize,
    pub(crate) turns_per_second: f64,
    pub(crate) events_per_second: f64,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) rows: Vec<Row>,
    /// Events per second, one figure for each half second, the newest last.
    pub(crate) history: Vec<u64>,
    /// The histogram of turn times: one count below each of [`BOUNDS`], and one for all times from the last bound on.
    pub(crate) histogram: [u64; BOUNDS.len() + 1],
}

/// The row of a session.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) id: SessionId,
    pub(crate) name: String,
    pub(crate) state: SessionState,
    pub(crate) turns: u64,
    /// The number of turns in the session's queue.
    pub(crate) queued: usize,
    /// The input requests of the session that have no answer, oldest first.
    pub(crate) asks: Vec<PendingInput>,
    pub(crate) events_per_second: f64,
    pub(crate) activity: [u64; Meter::SLOTS],
    pub(crate) last: Option<Duration>,
    pub(crate) p50: Option<Duration>,
    pub(crate) p99: Option<Duration>,
    pub(crate) tokens: u64,
    pub(crate) outcome: Option<Outcome>,
}

/// Upper bounds of the histogram's bars, in milliseconds.
pub(crate) const BOUNDS: [u64; 6] = [10, 30, 100, 300, 1_000, 3_000];

#[derive(Debug)]
pub(crate) struct Model {
    tracks: HashMap<SessionId, Track>,
    events: Meter,
    turns: Meter,
    /// The number of ended turns of the service at the last picture.
    ended: u64,
    latencies: Latencies,
    histogram: [u64; BOUNDS.len() + 1],
    history: VecDeque<u64>,
    next_sample: Duration,
}

/// The data of one session in addition to that of a list.
#[derive(Debug)]
struct Track {
    events: Meter,
    latencies: Latencies,
    outcome: Option<Outcome>,
}

impl Model {
    const SAMPLE: Duration = Duration::from_millis(500);
    const SAMPLES: usize = 400;

    /// A model without data, at time zero.
    pub(crate) fn new() -> Self {
        Self {
            tracks: HashMap::new(),
            events: Meter::new(Duration::ZERO),
            turns: Meter::new(Duration::ZERO),
            ended: 0,
            latencies: Latencies::default(),
            histogram: [0; BOUNDS.len() + 1],
            history: VecDeque::new(),
            next_sample: Self::SAMPLE,
        }
    }

    pub(crate) fn on_event(&mut self, event: &SessionEvent, now: Duration) {
        self.events.add(now, 1);
        let track = self.track(event.session_id, now);
        track.events.add(now, 1);
    }

    pub(crate) fn on_ended(&mut self, ended: Ended, now: Duration) {
        self.latencies.add(ended.took);
        let millis = ended.took.as_millis();
        let bar = BOUNDS.iter().position(|bound| millis < u128::from(*bound)).unwrap_or(BOUNDS.len());
        self.histogram[bar] += 1;
        let track = self.track(ended.session, now);
        track.latencies.add(ended.took);
        track.outcome = Some(ended.outcome);
    }

    /// The current picture. The list `sessions` has to be younger than all events and ended turns so far. A session
    /// that is not in it has ended, and its data is dropped. `asks` has the input requests of the sessions that wait for
    /// an answer.
    pub(crate) fn picture(
        &mut self,
        sessions: &[SessionSummary],
        mut asks: HashMap<SessionId, Vec<PendingInput>>,
        stats: ServiceStats,
        now: Duration,
    ) -> Picture {
        let listed: HashSet<SessionId> = sessions.iter().map(|session| session.session_id).collect();
        self.tracks.retain(|id, _| listed.contains(id));
        self.turns.add(now, stats.turns_ended().saturating_sub(self.ended));
        self.ended = stats.turns_ended();
        let events_per_second = self.events.per_second(now);
        if now >= self.next_sample {
            self.next_sample = now + Self::SAMPLE;
            self.history.push_back(events_per_second.round() as u64);
            if self.history.len() > Self::SAMPLES {
                self.history.pop_front();
            }
        }
        Picture {
            up: now,
            stats,
            queued: sessions.iter().map(|session| session.queued_turns).sum(),
            turns_per_second: self.turns.per_second(now),
            events_per_second,
            p50: self.latencies.p50,
            p99: self.latencies.p99,
            rows: sessions.iter().map(|session| self.row(session, &mut asks, now)).collect(),
            history: self.history.iter().copied().collect(),
            histogram: self.histogram,
        }
    }

    fn row(
        &mut self,
        session: &SessionSummary,
        asks: &mut HashMap<SessionId, Vec<PendingInput>>,
        now: Duration,
    ) -> Row {
        let track = self.track(session.session_id, now);
        Row {
            id: session.session_id,
            name: session.labels.get("name").cloned().unwrap_or_default(),
            state: session.state,
            turns: session.turns,
            queued: session.queued_turns,
            asks: asks.remove(&session.session_id).unwrap_or_default(),
            events_per_second: track.events.per_second(now),
            activity: track.events.slots(),
            last: track.latencies.last(),
            p50: track.latencies.p50,
            p99: track.latencies.p99,
            tokens: session.total_tokens,
            outcome: track.outcome.clone(),
        }
    }

    fn track(&mut self, id: SessionId, now: Duration) -> &mut Track {
        self.tracks.entry(id).or_insert_with(|| Track {
            events: Meter::new(now),
            latencies: Latencies::default(),
            outcome: None,
        })
    }
}

impl Picture {
    /// The row of a session.
    pub(crate) fn row_of(&self, id: SessionId) -> Option<usize> {
        self.rows.iter().position(|row| row.id == id)
    }
}

#[cfg(test)]
mod tests {
    use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, InputRequest};
    use turnwise::{SessionQuery, SessionService, SessionSpec, TurnId};

    use super::*;

    const fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Only a service can make lists, so this starts a real one, with sessions that run no turn.
    fn sessions(names: &[&str]) -> Vec<SessionSummary> {
        let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), names.len());
        for name in names {
            service.open_session(SessionSpec::new().label("name", *name)).expect("there is capacity");
        }
        service.list(SessionQuery::new()).expect("a list without a cursor does not fail")
    }

    fn event(session_id: SessionId, turn: u64, seq: u64) -> SessionEvent {
        let event = AgentEvent::TextDelta { delta: "word".into() };
        SessionEvent { session_id, turn_id: Some(TurnId::new(turn)), seq, event }
    }

    fn ended(session: SessionId, millis: u64, outcome: Outcome) -> Ended {
        Ended { session, took: at(millis), outcome }
    }

    #[test]
    fn events_and_ended_turns_become_the_figures_of_their_session() {
        let mut listed = sessions(&["a", "b"]);
        listed[0].turns = 2;
        let mut model = Model::new();
        for step in 0..20 {
            model.on_event(&event(listed[0].session_id, 1 + step / 10, step), at(step * 100));
        }
        model.on_ended(ended(listed[0].session_id, 40, Outcome::Completed), at(1_900));
        model.on_ended(ended(listed[0].session_id, 2_000, Outcome::Cancelled), at(1_950));
        let picture = model.picture(&listed, HashMap::new(), ServiceStats::default(), at(1_999));
        let [a, b] = &picture.rows[..] else { panic!("two rows: {picture:?}") };
        assert_eq!((a.name.as_str(), a.turns, a.state), ("a", 2, SessionState::Idle));
        assert!((a.events_per_second - 10.0).abs() < 0.1, "{}", a.events_per_second);
        assert_eq!((a.last, a.p50, a.p99), (Some(at(2_000)), Some(at(40)), Some(at(2_000))));
        assert_eq!(a.outcome, Some(Outcome::Cancelled));
        assert_eq!((b.turns, b.events_per_second, b.last, &b.outcome), (0, 0.0, None, &None));
        assert_eq!((picture.p50, picture.p99), (Some(at(40)), Some(at(2_000))));
        assert_eq!(picture.histogram, [0, 0, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn queued_turns_add_up_and_requests_are_in_the_row_of_their_session() {
        let agent = agent_fn(|_, turn| Ok(turn.finish(turn.request_input(InputRequest::new("question", "Which?"))?)));
        let service = EphemeralSessionService::new(agent, 1);
        let mut stream = service.stream_session(CreateSessionRequest::new("ask")).expect("there is capacity");
        stream.find(|event| matches!(event, AgentEvent::InputRequested { .. })).expect("the turn asks");
        let asks = service.pending_inputs(stream.handle().session_id()).expect("the session is there");
        assert_eq!(asks.len(), 1);

        let mut listed = sessions(&["a", "b", "c"]);
        (listed[0].queued_turns, listed[2].queued_turns) = (2, 3);
        let of_b = HashMap::from([(listed[1].session_id, asks.clone())]);
        let picture = Model::new().picture(&listed, of_b, ServiceStats::default(), at(0));
        let rows: Vec<_> = picture.rows.into_iter().map(|row| (row.queued, row.asks)).collect();
        assert_eq!((picture.queued, rows), (5, vec![(2, vec![]), (0, asks), (3, vec![])]));
    }

    #[test]
    fn a_session_that_has_left_the_list_is_dropped_and_its_counts_stay() {
        let listed = sessions(&["a", "b"]);
        let mut model = Model::new();
        model.on_event(&event(listed[1].session_id, 7, 0), at(100));
        model.on_ended(ended(listed[1].session_id, 5_000, Outcome::Failed("x".into())), at(100));
        let picture = model.picture(&listed[..1], HashMap::new(), ServiceStats::default(), at(1_000));
        assert_eq!((picture.rows.len(), picture.row_of(listed[1].session_id)), (1, None));
        assert_eq!(picture.row_of(listed[0].session_id), Some(0));
        assert_eq!((picture.events_per_second, picture.histogram[BOUNDS.len()]), (1.0, 1));
        assert_eq!(model.tracks.len(), 1);
    }

    #[test]
    fn the_turn_rate_is_the_services_and_the_history_has_two_figures_a_second() {
        let mut model = Model::new();
        let mut stats = ServiceStats::default();
        for step in 1..=40 {
            stats.turns_completed += 2;
            stats.faults += u64::from(step % 10 == 0);
            model.picture(&[], HashMap::new(), stats, at(step * 100));
        }
        let picture = model.picture(&[], HashMap::new(), stats, at(3_999));
        assert!((picture.turns_per_second - 21.0).abs() < 1.5, "{}", picture.turns_per_second);
        assert_eq!(picture.history, [0; 8]);
    }

    #[test]
    fn a_turn_time_equal_to_a_bound_counts_above_it() {
        let mut model = Model::new();
        let session = SessionId::new();
        for bound in BOUNDS {
            model.on_ended(ended(session, bound, Outcome::Completed), at(0));
        }
        assert_eq!(model.histogram, [0, 1, 1, 1, 1, 1, 1]);
    }
}
