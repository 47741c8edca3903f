//! How a worker hosts: the order of turns, host mode, feeds over the lives of a session, and what is given back.

use std::time::{Duration, Instant};

use turnwise::cluster::{ClusterService, Engine, EngineConfig, Worker};
use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, Overflow, SessionEvent, SessionId,
    SessionService, SessionSpec, StartTurnRequest, Subscription, TurnContext, WhenBusy,
};

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
    let server = Server::start(&[])?;
    let engine = Engine::open(&server.url(), EngineConfig::new().lease(LEASE)).expect("the engine opens");
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
    let config = EphemeralSessionService::configure(agent).max_sessions(room);
    let worker = Worker::start(config, engine.clone()).expect("the worker starts");
    let client = ClusterService::new(engine).expect("the client starts");
    Some(Cluster { client, worker, gate, server })
}

impl Cluster {
    fn ask(&self, id: SessionId, prompt: &str) -> String {
        self.client.start_turn(id, turn(prompt)).unwrap().text
    }

    fn open(&self) -> SessionId {
        self.client.open_session(SessionSpec::new()).unwrap()
    }
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
        assert_eq!(cluster.ask(first, &format!("tell {second}")), "AGENT_ERROR");
        // The next turn of the engine has the number of the refused one.
        assert_eq!(cluster.client.start_turn(second, turn("two")).unwrap().turn_id.get(), 2);
        assert_eq!(said(&cluster.client.history(second).unwrap()), ["one", "= one", "two", "= two"]);
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
        let texts: Vec<&str> = all
            .iter()
            .filter_map(|event| match &event.event {
                AgentEvent::TextDelta { delta } => Some(delta.as_str()),
                _ => None,
            })
            .collect();
        assert_eq!(texts, ["0", "1", "2", "3", "4", "last"], "{all:?}");
        assert!(all.windows(2).all(|pair| pair[0].seq < pair[1].seq));
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
