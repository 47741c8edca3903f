//! What operators do to a cluster: workers that leave and come, a server that is full, away, empty or replaced.

use std::time::{Duration, Instant};

use turnwise::cluster::{ClusterService, Engine, EngineConfig, EngineError, Worker};
use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, RunResult, SessionError, SessionId,
    SessionService, SessionSpec, TurnContext, TurnHandle,
};

use crate::proxy::{Network, Proxy};
use crate::server::Server;
use crate::support::*;

const LEASE: Duration = Duration::from_secs(2);

fn engine(url: &str) -> Engine {
    Engine::open(url, EngineConfig::new().lease(LEASE)).expect("the engine opens")
}

fn worker(url: &str) -> Worker {
    Worker::start(EphemeralSessionService::configure(echo()), engine(url)).expect("the worker starts")
}

fn client(url: &str) -> ClusterService {
    ClusterService::new(engine(url)).expect("the client starts")
}

/// A worker whose turn "wait" runs until it is cancelled or the gate is open.
fn waiting_worker(url: &str, gate: &Gate) -> Worker {
    waiting_worker_of(engine(url), gate)
}

fn waiting_worker_of(engine: Engine, gate: &Gate) -> Worker {
    let gate = gate.clone();
    let agent = agent_fn(move |prompt: String, turn: &TurnContext| {
        if prompt == "wait" {
            gate.pass(turn.cancel_token())?;
        }
        Ok(turn.finish(prompt))
    });
    Worker::start(EphemeralSessionService::configure(agent), engine).expect("the worker starts")
}

/// A session whose second turn runs, on a worker of its own.
struct Running {
    client: ClusterService,
    worker: Worker,
    gate: Gate,
    id: SessionId,
    turn: TurnHandle,
}

/// The worker reaches the server by `worker_url`, the client by itself.
fn running(server: &Server, worker_url: &str) -> Running {
    let (client, gate) = (client(&server.url()), Gate::new());
    let worker = waiting_worker(worker_url, &gate);
    let id = client.create_session(create("one")).unwrap().session_id;
    let turn = client.begin_turn(id, turn("wait")).unwrap();
    gate.wait_arrived(1);
    Running { client, worker, gate, id, turn }
}

fn engine_error(error: &SessionError) -> Option<&EngineError> {
    match error {
        SessionError::Store { source, .. } => source.downcast_ref(),
        _ => None,
    }
}

fn ask(client: &ClusterService, id: SessionId, prompt: &str) -> Result<RunResult, SessionError> {
    client.start_turn(id, turn(prompt))
}

#[test]
fn c89_a_drained_worker_gives_its_sessions_up_and_another_goes_on() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let client = client(&server.url());
        let gate = Gate::new();
        let first = waiting_worker(&server.url(), &gate);
        let ids: Vec<SessionId> =
            (0..4).map(|n| client.create_session(create(&format!("{n}"))).unwrap().session_id).collect();
        let busy = client.begin_turn(ids[0], turn("wait")).unwrap();
        gate.wait_arrived(1);
        let second = worker(&server.url());
        let report = std::thread::scope(|scope| {
            let draining = scope.spawn(|| first.drain(LONG));
            // The others are given away at once, while one turn still runs.
            for id in &ids[1..] {
                assert_eq!(ask(&client, *id, "again").unwrap().text, "again");
            }
            assert!(!busy.is_finished());
            gate.open();
            draining.join().unwrap()
        });
        assert_eq!(report.busy, 0);
        assert_eq!(busy.wait().unwrap().text, "wait");
        drop(first);
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(ask(&client, *id, "last").unwrap().text, "last");
            assert_eq!(said(&client.history(*id).unwrap()).len(), 6, "session {n}");
        }
        assert_eq!(second.stats().sessions, 4);
        drop(second);
    });
}

#[test]
fn c89_a_dropped_worker_loses_what_it_runs_and_nothing_else() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let lease = Duration::from_secs(60);
        let engine = || Engine::open(&server.url(), EngineConfig::new().lease(lease)).unwrap();
        let client = ClusterService::new(engine()).unwrap();
        let gate = Gate::new();
        let first = waiting_worker_of(engine(), &gate);
        let id = client.create_session(create("one")).unwrap().session_id;
        let busy = client.begin_turn(id, turn("wait")).unwrap();
        let number = busy.turn_id();
        gate.wait_arrived(1);
        let _second = Worker::start(EphemeralSessionService::configure(echo()), engine()).unwrap();
        let dropped = Instant::now();
        drop(first);
        let ended = busy.wait();
        assert!(dropped.elapsed() < lease / 2, "not after the lease, but at once: {:?}", dropped.elapsed());
        match ended {
            Err(SessionError::WorkerLost { id: lost, turn }) => assert_eq!((lost, turn), (id, number)),
            other => panic!("{other:?}"),
        }
        assert_eq!(ask(&client, id, "two").unwrap().text, "two");
        assert_eq!(said(&client.history(id).unwrap()), ["one", "= one", "two", "= two"]);
    });
}

#[test]
fn c88_a_worker_that_is_cut_off_takes_a_new_name_and_goes_on() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let network = Proxy::start(server.port());
        let Running { client, worker: cut_off, gate, id, turn: lost } = running(&server, &network.url());
        let _second = worker(&server.url());
        network.set(Network::Cut);
        let asked = Instant::now();
        assert_eq!(lost.wait().unwrap_err().code(), "WORKER_LOST");
        assert!(asked.elapsed() < LEASE * 3, "{:?}", asked.elapsed());
        assert_eq!(ask(&client, id, "two").unwrap().text, "two");
        // What the first worker still runs cannot be saved any more.
        gate.open();
        network.set(Network::Whole);
        let deadline = Instant::now() + LONG;
        while cut_off.stats().incarnations < 2 {
            assert!(Instant::now() < deadline, "{:?}", cut_off.stats());
            std::thread::yield_now();
        }
        assert_eq!(ask(&client, id, "three").unwrap().text, "three");
        assert_eq!(said(&client.history(id).unwrap()), ["one", "= one", "two", "= two", "three", "= three"]);
        let more: Vec<_> = (0..8).map(|_| client.create_session(create("more")).unwrap().session_id).collect();
        assert_eq!(more.len(), 8);
        assert!(cut_off.stats().sessions > 0, "it hosts sessions again: {:?}", cut_off.stats());
    });
}

#[test]
fn c88_the_fence_rises_when_a_session_moves() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let client = client(&server.url());
        let fenced = || -> Echo {
            agent_fn(|_, turn| {
                let fence = turn.fence().expect("a worker's turn has one");
                assert_eq!((fence.session, fence.turn), (turn.session_id(), turn.turn_id()));
                Ok(turn.finish(fence.epoch.to_string()))
            })
        };
        let start = || Worker::start(EphemeralSessionService::configure(fenced()), engine(&server.url())).unwrap();
        let epoch = |result: RunResult| result.text.parse::<u64>().unwrap();
        let first = start();
        let created = client.create_session(create("")).unwrap();
        let id = created.session_id;
        let one = epoch(created);
        assert_eq!(epoch(ask(&client, id, "").unwrap()), one);
        let _second = start();
        first.drain(LONG);
        assert!(epoch(ask(&client, id, "").unwrap()) > one);
    });
}

#[test]
fn c83_a_full_server_begins_no_turn_and_keeps_those_that_run() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let Running { client, worker: _worker, gate, id, turn: running } = running(&server, &server.url());
        let other = client.create_session(create("one")).unwrap().session_id;
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        let refused = ask(&client, other, "two").unwrap_err();
        assert_eq!(engine_error(&refused), Some(&EngineError::OutOfMemory), "{refused}");
        gate.open();
        assert_eq!(running.wait().unwrap().text, "wait");
        assert_eq!(said(&client.history(id).unwrap()).len(), 4);
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        assert_eq!(ask(&client, other, "two").unwrap().text, "two");
    });
}

#[test]
fn c83_an_outage_beyond_the_lease_ends_turns_and_nothing_else() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let Running { client, worker, id, turn: running, .. } = running(&server, &server.url());
        server.signal("STOP");
        let refused = ask(&client, id, "during").unwrap_err();
        assert!(["STORE_FAILED", "OUTCOME_UNKNOWN"].contains(&refused.code()), "{refused}");
        std::thread::sleep(LEASE);
        server.signal("CONT");
        assert_eq!(running.wait().unwrap_err().code(), "WORKER_LOST");
        let deadline = Instant::now() + LONG;
        let answered = loop {
            match ask(&client, id, "after") {
                Ok(result) => break result.text,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert_eq!(answered, "after");
        assert_eq!(said(&client.history(id).unwrap()), ["one", "= one", "after", "= after"]);
        assert!(worker.stats().incarnations >= 2);
    });
}

#[test]
fn c83_a_server_that_comes_back_empty_is_an_error_for_everybody() {
    run(|| {
        let Some(mut server) = Server::start(&[]) else { return };
        let Running { client, worker, id, turn: running, .. } = running(&server, &server.url());
        server.kill();
        server.remove_data();
        server.start_again();
        let ended = running.wait().unwrap_err();
        assert_eq!(engine_error(&ended), Some(&EngineError::Replaced), "{ended}");
        let refused = ask(&client, id, "two").unwrap_err();
        assert_eq!(engine_error(&refused), Some(&EngineError::Replaced), "{refused}");
        let deadline = Instant::now() + LONG;
        while worker.stats().lease_age.is_some() {
            assert!(Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(server.command(&["DBSIZE"]), ":0\r\n", "nothing is written into the new data");
    });
}

/// Looks again until it is true. A server tells of no change by itself.
fn wait_until(is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_true() {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How much of the primary's data a server has.
fn offset(server: &Server) -> u64 {
    let replication = server.command(&["INFO", "replication"]);
    let line = replication.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
    line.expect("an offset").trim().parse().expect("a number")
}

#[test]
fn c83_a_promoted_replica_that_lagged_is_noticed() {
    run(|| {
        let (Some(mut primary), Some(replica)) = (Server::start(&[]), Server::start(&[])) else { return };
        let replication = Proxy::start(primary.port());
        replica.command(&["REPLICAOF", "127.0.0.1", &replication.port().to_string()]);
        wait_until(|| replica.command(&["INFO", "replication"]).contains("master_link_status:up"));
        let network = Proxy::start(primary.port());
        let client = client(&network.url());
        let _worker = worker(&network.url());
        let id = client.create_session(create("one")).unwrap().session_id;
        let kept = offset(&primary);
        wait_until(|| offset(&replica) >= kept);
        replication.set(Network::Cut);
        assert_eq!(ask(&client, id, "lost").unwrap().text, "lost");
        replica.command(&["REPLICAOF", "NO", "ONE"]);
        network.lead_to(replica.port());
        primary.kill();
        let deadline = Instant::now() + LONG;
        let noticed = loop {
            match ask(&client, id, "two") {
                Err(error @ SessionError::HistoryLost { .. }) => break error,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
                Ok(result) => panic!("a lost turn was not noticed: {result:?}"),
            }
        };
        assert!(matches!(noticed, SessionError::HistoryLost { seen: 2, found: 1, .. }), "{noticed}");
        let answered = loop {
            match ask(&client, id, "three") {
                Ok(result) => break result.text,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        };
        assert_eq!(answered, "three");
        assert_eq!(said(&client.history(id).unwrap()), ["one", "= one", "three", "= three"]);
    });
}

#[test]
fn c88_a_caller_that_dies_leaves_its_turn_to_the_history() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let (gate, other) = (Gate::new(), client(&server.url()));
        let _worker = waiting_worker(&server.url(), &gate);
        let id = other.open_session(SessionSpec::new()).unwrap();
        let first = client(&server.url());
        let turn = first.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(1);
        drop((turn, first));
        gate.open();
        other.wait_idle(id, LONG).unwrap();
        assert_eq!(said(&other.history(id).unwrap()), ["wait", "= wait"]);
    });
}

#[test]
fn c88_an_interrupt_reaches_a_turn_on_another_machine() {
    run(|| {
        let Some(server) = Server::start(&[]) else { return };
        let (gate, client) = (Gate::new(), client(&server.url()));
        let _worker = waiting_worker(&server.url(), &gate);
        let first = client.begin_session(CreateSessionRequest::new("wait")).unwrap();
        gate.wait_arrived(1);
        client.interrupt(first.session_id()).unwrap();
        assert_eq!(first.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
    });
}
