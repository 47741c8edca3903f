//! How a worker hosts: the order of turns, host mode, feeds over the lives of a session, and what is given back.

use std::time::{Duration, Instant};

use turnwise::cluster::{ClusterService, Engine, EngineConfig, Worker};
use turnwise::testkit::{self, Gate};
use turnwise::{
    agent_fn, builder_fn, AgentError, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventStream,
    Overflow, RunResult, Session, SessionAgent, SessionAgentBuilder, SessionEvent, SessionId, SessionService,
    SessionSpec, StartTurnRequest, Subscription, TurnContext, TurnHandle, WhenBusy,
};

use crate::proxy::{Network, Proxy};
use crate::server::Server;
use crate::support::*;

/// Long, so that nothing that waits for a sweep is mistaken for a message.
const LEASE: Duration = Duration::from_secs(60);
/// What comes by a message comes well before.
const SOON: Duration = Duration::from_secs(10);

struct Cluster {
    client: ClusterService,
    worker: Worker,
    gate: Gate,
    /// Dropped last: the others wait for it for a while.
    server: Server,
}

/// A worker with room for some sessions. Its turn "wait" waits for the gate, "emit" emits until it is told to stop, and
/// "deaf" waits for the gate whatever happens.
fn cluster(room: usize) -> Option<Cluster> {
    let gate = Gate::new();
    let own = gate.clone();
    let agent = agent_fn(move |prompt: String, turn: &TurnContext| {
        match prompt.as_str() {
            "wait" => own.pass(turn.cancel_token())?,
            "deaf" => own.pass_regardless(),
            "emit" => loop {
                turn.emit(AgentEvent::TextDelta { delta: "word".into() })?;
            },
            "boom" => panic!("a fault on purpose"),
            told if told.starts_with("tell ") => {
                let id = told["tell ".len()..].parse().expect("an id");
                let service = turn.service().expect("the worker's service");
                let ended = service.start_turn(id, StartTurnRequest::new("hello"));
                return Ok(turn.finish(ended.map_or_else(|error| error.code().to_owned(), |result| result.text)));
            }
            _ => turn.emit(AgentEvent::TextDelta { delta: prompt.clone() })?,
        }
        Ok(turn.finish(prompt))
    });
    cluster_of(agent, room, gate)
}

fn cluster_of(builder: impl SessionAgentBuilder, room: usize, gate: Gate) -> Option<Cluster> {
    let server = Server::start(&[])?;
    let engine = Engine::open(&server.url(), EngineConfig::new().lease(LEASE)).expect("the engine opens");
    let config = EphemeralSessionService::configure(builder).max_sessions(room);
    let worker = Worker::start(config, engine.clone()).expect("the worker starts");
    let client = ClusterService::new(engine).expect("the client starts");
    Some(Cluster { client, worker, gate, server })
}

/// An agent whose drop waits for the gate.
struct GatedDrop {
    agent: Box<dyn SessionAgent>,
    gate: Gate,
}

impl SessionAgent for GatedDrop {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.agent.run_turn(prompt, turn)
    }

    fn session_clone(&self) -> Session {
        self.agent.session_clone()
    }
}

impl Drop for GatedDrop {
    fn drop(&mut self) {
        self.gate.pass_regardless();
    }
}

impl Cluster {
    fn ask(&self, id: SessionId, prompt: &str) -> String {
        self.client.start_turn(id, turn(prompt)).unwrap().text
    }

    fn open(&self) -> SessionId {
        self.client.open_session(SessionSpec::new()).unwrap()
    }

    /// A turn that was told to stop, while it waited for a subscriber that does not read.
    fn unread(&self, id: SessionId) -> (TurnHandle, EventStream) {
        let options = Subscription::new().capacity(1).overflow(Overflow::Block);
        let events = self.client.subscribe(id, options).unwrap();
        let turn = self.client.begin_turn(id, turn("emit")).unwrap();
        // A turn that waits for room has no running permit.
        soon("the turn runs", || !events.events().is_empty());
        soon("the emitter waits", || self.worker.stats().service.running_turns == 0);
        turn.interrupt();
        (turn, events)
    }

    /// The same, after the end of the turn and the archive of the session.
    fn archive_unread(&self, id: SessionId) -> EventStream {
        let (turn, events) = self.unread(id);
        turn.wait().unwrap_err();
        self.client.archive(id).unwrap();
        events
    }
}

/// The texts of the events that have one. A gap is a text too.
fn texts(events: &[SessionEvent]) -> Vec<&str> {
    let has_text = |event: &&SessionEvent| {
        matches!(event.event, AgentEvent::TextDelta { .. } | AgentEvent::StreamTruncated { .. })
    };
    let events = events.iter().filter(has_text);
    events.map(|event| if let AgentEvent::TextDelta { delta } = &event.event { delta } else { "gap" }).collect()
}

/// Runs this until it is true.
fn soon(what: &str, mut is_true: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !is_true() {
        assert!(Instant::now() < deadline, "not soon: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn c84_a_turn_that_overtakes_another_one_runs_under_its_own_number() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let client = &cluster.client;
        let first = client.begin_turn(id, turn("wait")).unwrap();
        cluster.gate.wait_arrived(1);
        let queued = client.begin_turn(id, turn("second").when_busy(WhenBusy::Queue)).unwrap();
        let over = client.begin_turn(id, turn("third").when_busy(WhenBusy::Interrupt)).unwrap();
        assert_eq!((queued.turn_id().get(), over.turn_id().get()), (2, 3));
        assert_eq!(first.wait().unwrap_err().cancel_reason(), Some(CancelReason::Superseded));
        let (queued, over) = (queued.wait().unwrap(), over.wait().unwrap());
        assert_eq!((queued.text.as_str(), queued.turn_id.get()), ("second", 2));
        assert_eq!((over.text.as_str(), over.turn_id.get()), ("third", 3));
        assert_eq!(said(&client.history(id).unwrap()), ["third", "= third", "second", "= second"]);
        assert_eq!(client.start_turn(id, turn("fourth")).unwrap().turn_id.get(), 4);
    });
}

#[test]
fn c84_a_late_or_repeated_wake_up_begins_no_turn_twice() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        assert_eq!([cluster.ask(id, "one"), cluster.ask(id, "two")], ["one", "two"]);
        let worker = cluster.server.command(&["HGET", &format!("turnwise:s:{id}"), "wid"]);
        let stream = format!("turnwise:w:{}:q", worker.lines().nth(1).expect("its name").trim());
        // The entry of the turn before the last one: as it was, and as one of another worker's epoch.
        let repeat = |change: &str| {
            let script = format!(
                "local entry = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 2)[2][2] {change} \
                 redis.call('XADD', KEYS[1], '*', unpack(entry)) return entry[5]"
            );
            assert!(cluster.server.command(&["EVAL", &script, "1", &stream]).contains("turn"));
        };
        repeat("");
        assert_eq!(cluster.ask(id, "three"), "three");
        repeat("entry[4] = '1000' entry[6] = '1000'");
        assert_eq!(cluster.ask(id, "four"), "four");
        assert_eq!(cluster.worker.stats().turns_begun, 4);
        let expected = ["one", "= one", "two", "= two", "three", "= three", "four", "= four"];
        assert_eq!(said(&cluster.client.history(id).unwrap()), expected);
    });
}

#[test]
fn c84_an_agent_begins_no_turn_of_the_engine_by_the_service_of_its_worker() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let (first, second) = (cluster.open(), cluster.open());
        assert_eq!(cluster.ask(second, "one"), "one");
        let events = cluster.client.subscribe(second, Subscription::new()).unwrap();
        assert_eq!(cluster.ask(first, &format!("tell {second}")), "AGENT_ERROR");
        assert_eq!(cluster.client.start_turn(second, turn("two")).unwrap().turn_id.get(), 2);
        assert_eq!(said(&cluster.client.history(second).unwrap()), ["one", "= one", "two", "= two"]);
        cluster.client.archive(second).unwrap();
        let started = |event: &SessionEvent| matches!(event.event, AgentEvent::RunStarted { .. });
        assert_eq!(events.filter(started).count(), 1);
    });
}

#[test]
fn c86_a_session_that_is_taken_leaves_no_text_on_the_server() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let events = cluster.client.subscribe(id, Subscription::new()).unwrap();
        assert_eq!(cluster.ask(id, "a secret"), "a secret");
        assert_eq!(cluster.ask(id, "another secret"), "another secret");
        drop(events);
        cluster.client.take_session(id, SOON).unwrap();
        let keys = cluster.server.command(&["KEYS", "turnwise:[cw]:*"]);
        let streams: Vec<&str> = keys.lines().filter(|key| key.len() > 40 && !key.ends_with(":l")).collect();
        assert!(streams.len() >= 2, "{keys}");
        let text = |key: &&str| cluster.server.command(&["XRANGE", key, "-", "+"]).contains("secret");
        soon("the streams are empty", || !streams.iter().any(text));
    });
}

#[test]
fn c84_a_turn_in_host_mode_is_answered_at_its_end_and_can_be_interrupted() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let hosting = cluster.client.begin_turn(id, StartTurnRequest::new("hello").host_mode(true)).unwrap();
        soon("the prompt has run", || cluster.client.history(id).unwrap().iter().len() == 2);
        assert!(!hosting.is_finished());
        assert_eq!(cluster.client.start_turn(id, turn("busy")).unwrap_err().code(), "SESSION_BUSY");
        cluster.client.interrupt(id).unwrap();
        assert_eq!(hosting.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        assert_eq!(cluster.ask(id, "next"), "next");
    });
}

#[test]
fn c84_a_turn_that_is_begun_at_the_end_of_another_one_waits_for_no_sweep() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        // The reader of the events holds up the end of the local turn, behind the verdict.
        for n in 0..20 {
            let stream = cluster.client.stream_turn(id, turn("one")).unwrap();
            let begun = Instant::now();
            assert_eq!(cluster.client.start_turn(id, turn("two").when_busy(WhenBusy::Queue)).unwrap().text, "two");
            assert!(begun.elapsed() < SOON, "round {n}: {:?}", begun.elapsed());
            assert_eq!(stream.wait().unwrap().text, "one");
        }
    });
}

#[test]
fn c84_a_turn_that_is_queued_behind_a_panic_fails_with_it() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let client = &cluster.client;
        let waiting = client.begin_turn(id, turn("wait")).unwrap();
        cluster.gate.wait_arrived(1);
        let boom = client.begin_turn(id, turn("boom").when_busy(WhenBusy::Queue)).unwrap();
        let queued = client.begin_turn(id, turn("queued").when_busy(WhenBusy::Queue)).unwrap();
        cluster.gate.open();
        waiting.wait().unwrap();
        for ended in [boom.wait().unwrap_err(), queued.wait().unwrap_err()] {
            assert_eq!(ended.code(), "SESSION_FAULTED");
            assert!(ended.to_string().contains("a fault on purpose"), "{ended}");
        }
        assert_eq!(client.start_turn(id, turn("refused")).unwrap_err().code(), "SESSION_FAULTED");
        client.restart(id, LONG).unwrap();
        assert_eq!(cluster.ask(id, "again"), "again");
        assert_eq!(said(&client.history(id).unwrap()), ["wait", "= wait", "again", "= again"]);
    });
}

#[test]
fn c85_a_subscription_during_a_turn_gets_the_rest_of_its_events() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let turn = cluster.client.begin_turn(id, turn("emit")).unwrap();
        let mut events = cluster.client.subscribe(id, Subscription::new()).unwrap();
        let first = events.recv_timeout(SOON).expect("an event of the running turn");
        assert_eq!(first.turn_id, Some(turn.turn_id()));
        turn.interrupt();
        turn.wait().unwrap_err();
        let last = events.find(|event| matches!(event.event, AgentEvent::RunFailed { .. }));
        assert!(last.is_some());
        cluster.client.archive(id).unwrap();
        assert_eq!(events.count(), 0, "the stream ends with the session");
    });
}

#[test]
fn c85_a_dropped_subscription_holds_up_no_turn() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let mut events = cluster.client.subscribe(id, Subscription::new().overflow(Overflow::Block)).unwrap();
        let turn = cluster.client.begin_turn(id, turn("emit")).unwrap();
        assert!(events.next().is_some());
        // A turn that waits for room has no running permit.
        soon("the emitter waits", || cluster.worker.stats().service.running_turns == 0);
        drop(events);
        cluster.client.interrupt(id).unwrap();
        assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        let stream = cluster.client.stream_turn(id, StartTurnRequest::new("emit")).unwrap();
        assert_eq!(stream.take(5_000).count(), 5_000, "nobody else is waited for");
        cluster.client.interrupt(id).unwrap();
        soon("the turn has ended", || cluster.client.wait_idle(id, LONG).is_ok());
    });
}

#[test]
fn c85_a_subscription_goes_on_after_a_fault_without_a_gap_or_a_repeat() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let events = cluster.client.subscribe(id, Subscription::new().overflow(Overflow::Block)).unwrap();
        for n in 0..5 {
            assert_eq!(cluster.ask(id, &format!("{n}")), format!("{n}"));
        }
        assert_eq!(cluster.client.start_turn(id, turn("boom")).unwrap_err().code(), "SESSION_FAULTED");
        cluster.client.restart(id, LONG).unwrap();
        assert_eq!(cluster.ask(id, "last"), "last");
        cluster.client.archive(id).unwrap();
        let all: Vec<SessionEvent> = events.collect();
        assert_eq!(texts(&all), ["0", "1", "2", "3", "4", "last"], "{all:?}");
        assert!(all.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    });
}

#[test]
fn c85_a_session_that_is_archived_is_given_up_behind_its_unread_events() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let events = cluster.archive_unread(id);
        // Reads while the worker waits.
        let events: Vec<SessionEvent> = events.collect();
        assert!(matches!(events.last().unwrap().event, AgentEvent::RunFailed { .. }), "{:?}", events.last());
        assert!(events.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
    });
}

#[test]
fn c85_events_that_are_never_read_of_an_archived_session_are_reported() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let events = cluster.archive_unread(id);
        cluster.client.archive_wait(id, LONG).unwrap();
        let events: Vec<SessionEvent> = events.collect();
        assert!(matches!(events.last().unwrap().event, AgentEvent::StreamTruncated { .. }), "{:?}", events.last());
    });
}

#[test]
fn c85_events_that_a_drained_worker_had_are_reported_also_if_none_follow() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let (turn, events) = cluster.unread(id);
        turn.wait().unwrap_err();
        assert_eq!(cluster.worker.drain(LONG).given_up, 1);
        cluster.client.archive(id).unwrap();
        let events: Vec<SessionEvent> = events.collect();
        assert!(matches!(events.last().unwrap().event, AgentEvent::StreamTruncated { .. }), "{:?}", events.last());
    });
}

#[test]
fn c85_events_that_a_dropped_worker_had_are_reported_also_if_none_follow() {
    run(|| {
        let Some(Cluster { client, worker, gate, server: _server }) = cluster(4) else { return };
        let id = client.open_session(SessionSpec::new()).unwrap();
        let events = client.subscribe(id, Subscription::new()).unwrap();
        let turn = client.begin_turn(id, turn("deaf")).unwrap();
        gate.wait_arrived(1);
        drop(worker);
        assert_eq!(turn.wait().unwrap_err().code(), "WORKER_LOST");
        gate.open();
        client.archive(id).unwrap();
        let kinds: Vec<AgentEvent> = events.map(|event| event.event).collect();
        let truncated = |event: &&AgentEvent| matches!(event, AgentEvent::StreamTruncated { .. });
        assert_eq!(kinds.iter().filter(truncated).count(), 1, "{kinds:?}");
    });
}

#[test]
fn c86_a_session_that_is_archived_during_a_turn_is_given_back() {
    run(|| {
        let Some(cluster) = cluster(4) else { return };
        let id = cluster.open();
        let turn = cluster.client.begin_turn(id, turn("wait")).unwrap();
        cluster.gate.wait_arrived(1);
        cluster.client.archive_with(id, ArchiveMode::Drain).unwrap();
        cluster.gate.open();
        assert_eq!(turn.wait().unwrap().text, "wait");
        soon("its agent is gone", || cluster.worker.stats().service.sessions == 0);
    });
}

#[test]
fn c86_more_sessions_than_fit_take_turns_in_a_worker() {
    run(|| {
        let Some(cluster) = cluster(2) else { return };
        let ids: Vec<SessionId> = (0..6).map(|_| cluster.open()).collect();
        for round in 0..3 {
            for id in &ids {
                let number = cluster.client.start_turn(*id, turn("hello")).unwrap().turn_id.get();
                assert_eq!(number, round + 1);
            }
        }
        for id in ids {
            assert_eq!(cluster.client.history(id).unwrap().iter().len(), 6);
        }
    });
}

#[test]
fn c86_watched_idle_sessions_make_room_and_their_subscribers_miss_nothing() {
    run(|| {
        let Some(cluster) = cluster(1) else { return };
        let watch = |id| cluster.client.subscribe(id, Subscription::new().overflow(Overflow::Block)).unwrap();
        let first = cluster.open();
        let of_first = watch(first);
        assert_eq!(cluster.ask(first, "1"), "1");
        // A build needs room too.
        let second = cluster.open();
        let of_second = watch(second);
        for text in ["2", "4", "6"] {
            assert_eq!(cluster.ask(second, text), text);
            let text = (text.parse::<u8>().unwrap() + 1).to_string();
            assert_eq!(cluster.ask(first, &text), text);
        }
        let third = cluster.client.create_session(create("8")).unwrap().session_id;
        assert_eq!(cluster.ask(first, "9"), "9");
        for id in [first, second, third] {
            cluster.client.archive(id).unwrap();
        }
        let [of_first, of_second]: [Vec<SessionEvent>; 2] = [of_first.collect(), of_second.collect()];
        assert_eq!(texts(&of_first), ["1", "3", "5", "7", "9"], "{of_first:?}");
        assert_eq!(texts(&of_second), ["2", "4", "6"], "{of_second:?}");
    });
}

#[test]
fn c86_a_session_whose_subscriber_is_behind_makes_room_and_loses_none_of_its_events() {
    run(|| {
        let Some(cluster) = cluster(1) else { return };
        let first = cluster.open();
        let (turn, events) = cluster.unread(first);
        turn.wait().unwrap_err();
        let second = cluster.open();
        assert_eq!(cluster.ask(second, "2"), "2");
        // The events of the next life wait for those of the last one.
        let third = cluster.client.begin_turn(first, StartTurnRequest::new("3")).unwrap();
        assert_eq!(third.wait().unwrap().text, "3");
        let reader = std::thread::spawn(move || events.collect::<Vec<SessionEvent>>());
        cluster.client.archive(first).unwrap();
        let events = reader.join().unwrap();
        assert!(!texts(&events).contains(&"gap"), "{events:?}");
        assert_eq!(texts(&events).last(), Some(&"3"));
        assert!(events.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    });
}

#[test]
fn c86_a_cancel_reaches_the_build_of_a_watched_session() {
    run(|| {
        let gate = Gate::new();
        let Some(cluster) = cluster_of(testkit::scripted().build_waits_at(&gate), 1, gate) else { return };
        cluster.gate.let_through(2);
        let first = cluster.open();
        let events = cluster.client.subscribe(first, Subscription::new()).unwrap();
        let _second = cluster.open();
        let turn = cluster.client.begin_turn(first, turn("x")).unwrap();
        cluster.gate.wait_arrived(3);
        turn.interrupt();
        assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        cluster.client.archive(first).unwrap();
        // The turn's beginning and its end.
        let events: Vec<SessionEvent> = events.collect();
        assert!(matches!(events.last().unwrap().event, AgentEvent::RunFailed { .. }), "{events:?}");
    });
}

#[test]
fn c86_an_agent_that_is_not_dropped_does_not_hold_up_other_sessions_for_ever() {
    run(|| {
        let gate = Gate::new();
        let own = gate.clone();
        let inner = agent_fn(|prompt: String, turn: &TurnContext| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec, session| {
            let agent = Box::new(inner.build_agent(spec, session)?);
            Ok::<_, AgentError>(GatedDrop { agent, gate: own.clone() })
        });
        let Some(cluster) = cluster_of(builder, 1, gate) else { return };
        let first = cluster.open();
        // The worker gives up the wait after ten seconds.
        let refused = cluster.client.open_session(SessionSpec::new()).unwrap_err();
        assert_eq!(refused.code(), "CAPACITY_EXCEEDED");
        assert_eq!(cluster.gate.waiting(), 1);
        let refused = cluster.client.start_turn(first, turn("x")).unwrap_err();
        assert_eq!(refused.code(), "SESSION_ENDING");
        cluster.gate.open();
        let second = cluster.open();
        assert_eq!(cluster.ask(second, "2"), "2");
        assert_eq!(cluster.ask(first, "1"), "1");
    });
}

#[test]
fn c89_the_drop_of_a_worker_whose_engine_is_away_takes_about_one_lease() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let (proxy, lease) = (Proxy::start(server.port()), Duration::from_secs(4));
        let engine = Engine::open(&proxy.url(), EngineConfig::new().lease(lease)).expect("the engine opens");
        let agent = agent_fn(|prompt: String, turn: &TurnContext| Ok(turn.finish(prompt)));
        let worker = Worker::start(EphemeralSessionService::configure(agent), engine).expect("the worker starts");
        proxy.set(Network::Cut);
        let begun = Instant::now();
        drop(worker);
        // Two calls one after the other would take two leases.
        assert!(begun.elapsed() < 2 * lease, "{:?}", begun.elapsed());
    });
}

#[test]
fn c86_what_a_worker_could_not_look_at_is_done_when_the_engine_is_back() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        // The worker is the default user, and the client another one.
        server.command(&["ACL", "SETUSER", "other", "on", ">secret", "~*", "&*", "+@all"]);
        let lease = Duration::from_secs(8);
        let open = |url: &str| Engine::open(url, EngineConfig::new().lease(lease)).expect("the engine opens");
        let agent = agent_fn(|prompt: String, turn: &TurnContext| Ok(turn.finish(prompt)));
        let config = EphemeralSessionService::configure(agent);
        let worker = Worker::start(config, open(&server.url())).expect("the worker starts");
        let url = server.url().replace("redis://", "redis://other:secret@");
        let client = ClusterService::new(open(&url)).expect("the client starts");
        let id = client.open_session(SessionSpec::new()).unwrap();
        server.command(&["ACL", "SETUSER", "default", "-evalsha"]);
        client.archive(id).unwrap();
        // The renewer and the sweeper have called again: the wake-up is over by then.
        let refused = || {
            let calls = server.command(&["INFO", "commandstats"]);
            let calls = calls.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:").map(str::to_owned));
            let refused =
                calls.and_then(|calls| calls.split("rejected_calls=").nth(1)?.split(',').next()?.parse().ok());
            refused.unwrap_or(0)
        };
        soon("a few refused calls", || refused() >= 4);
        assert_eq!(worker.stats().sessions, 1);
        server.command(&["ACL", "SETUSER", "default", "+evalsha"]);
        soon("the session is given up", || worker.stats().sessions == 0);
        assert_eq!(worker.stats().incarnations, 1);
    });
}
