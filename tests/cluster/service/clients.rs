//! Several clients, clients that end, and what a client asks for later.

use std::time::Duration;

use turnwise::cluster::{EngineConfig, RequestOutcome};
use turnwise::testkit::Gate;
use turnwise::{AgentEvent, RequestId, SessionError, SessionService, SessionSpec, Subscription, WhenBusy};

use super::*;
use crate::proxy::{Network, Proxy};
use crate::support::*;

/// The names of the clients that have a lease.
fn clients(server: &Server) -> Vec<String> {
    let keys = server.command(&["KEYS", "turnwise:c:*:l"]);
    keys.lines().filter(|line| line.starts_with("turnwise:c:")).map(str::to_owned).collect()
}

#[test]
fn c84_two_clients_share_a_session() {
    let Some(server) = start() else { return };
    run(move || {
        let (one, other, gate) = (client(&server), client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let running = one.begin_session(create("wait")).unwrap();
        let id = running.session_id();
        gate.wait_arrived(1);
        assert_eq!(code(other.begin_turn(id, turn("x"))), "SESSION_BUSY");
        let queued = other.begin_turn(id, turn("queued").when_busy(WhenBusy::Queue)).unwrap();
        gate.open();
        assert_eq!(running.wait().unwrap().text, "wait");
        assert_eq!(queued.wait().unwrap().text, "queued");
        assert_eq!(one.history(id).unwrap().messages().len(), 4);
    });
}

#[test]
fn c84_the_drop_of_the_last_handle_gives_the_lease_up_and_leaves_the_turns() {
    let Some(server) = start() else { return };
    run(move || {
        // A lease that does not end by itself within the test.
        let engine = Engine::open(&server.url(), EngineConfig::new().lease(2 * LONG)).unwrap();
        let (first, gate) = (ClusterService::new(engine).unwrap(), Gate::new());
        let _worker = worker(&server, &gate);
        let clone = first.clone();
        let turn = first.begin_session(create("wait")).unwrap();
        let id = turn.session_id();
        gate.wait_arrived(1);
        let events = first.subscribe(id, Subscription::new()).unwrap();
        drop(first);
        assert_eq!(clients(&server).len(), 1);
        assert!(!turn.is_finished());
        drop(clone);
        assert!(matches!(turn.wait(), Err(SessionError::OutcomeUnknown { turn: Some(_), .. })));
        assert_eq!(events.count(), 0);
        eventually("the end of the lease", || clients(&server).is_empty().then_some(()));
        gate.open();
        let second = client(&server);
        second.wait_idle(id, LONG).unwrap();
        assert_eq!(said(&second.history(id).unwrap()), ["wait", "= wait"]);
    });
}

#[test]
fn c84_a_client_whose_lease_has_ended_takes_another_name_and_misses_no_result() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let running = client.begin_session(create("wait")).unwrap();
        let id = running.session_id();
        gate.wait_arrived(1);
        let mut followed = client.subscribe(id, Subscription::new()).unwrap();
        let first = clients(&server);
        // As if the client had been frozen for longer than its lease.
        for key in &first {
            let stream = key.strip_suffix(":l").unwrap();
            server.command(&["DEL", key, stream, &format!("{stream}:f")]);
        }
        let second = eventually("another name", || {
            let names = clients(&server);
            (!names.is_empty() && names != first).then_some(names)
        });
        assert_eq!(second.len(), 1);
        gate.open();
        assert_eq!(running.wait().unwrap().text, "wait");
        assert_eq!(client.start_turn(id, turn("emit 1")).unwrap().text, "emit 1");
        // The subscription goes on under the new name.
        assert!(followed.any(|event| matches!(event.event, AgentEvent::TextDelta { .. })));
    });
}

#[test]
fn c84_a_result_that_was_sent_to_an_ended_name_is_asked_for() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let running = client.begin_session(create("wait")).unwrap();
        let id = running.session_id();
        gate.wait_arrived(1);
        let lease = clients(&server).remove(0);
        let stream = lease.strip_suffix(":l").unwrap().to_owned();
        // The message of the result gets lost. The lease goes on.
        server.command(&["DEL", &stream]);
        gate.open();
        assert_eq!(running.wait().unwrap().text, "wait");
        assert_eq!(client.history(id).unwrap().messages().len(), 2);
    });
}

#[test]
fn c84_a_result_that_was_lost_with_the_connection_is_asked_for_at_once() {
    let Some(server) = start() else { return };
    run(move || {
        let gate = Gate::new();
        let _worker = worker(&server, &gate);
        // Without a connection that is cut, this client asks for its requests every 75 seconds.
        let config = EngineConfig::new().lease(Duration::from_secs(300));
        let engine = turnwise::cluster::Engine::open(&server.url(), config).unwrap();
        let client = turnwise::cluster::ClusterService::new(engine).unwrap();
        let lease = clients(&server).remove(0);
        let running = client.begin_session(create("wait")).unwrap();
        gate.wait_arrived(1);
        server.command(&["DEL", lease.strip_suffix(":l").unwrap()]);
        gate.open();
        client.wait_idle(running.session_id(), LONG).unwrap();
        assert!(!running.is_finished());
        let begun = Instant::now();
        server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
        assert_eq!(running.wait().unwrap().text, "wait");
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    });
}

#[test]
fn c84_a_begin_that_has_run_is_known_although_its_repeat_is_refused() {
    let Some(server) = start() else { return };
    run(move || {
        let (other, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let network = Proxy::start(server.port());
        let engine = turnwise::cluster::Engine::open(&network.url(), EngineConfig::new().lease(LEASE)).unwrap();
        let client = turnwise::cluster::ClusterService::new(engine).unwrap();
        let id = other.open_session(SessionSpec::new()).unwrap();
        // The server has the script from now on.
        other.start_turn(id, turn("one")).unwrap();
        network.set(Network::NoAnswers);
        let running = std::thread::scope(|scope| {
            let begun = scope.spawn(|| client.begin_turn(id, turn("wait")));
            gate.wait_arrived(1);
            server.command(&["CONFIG", "SET", "maxmemory", "1"]);
            network.set(Network::Whole);
            begun.join().unwrap().unwrap()
        });
        assert_eq!(running.turn_id().get(), 2);
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        gate.open();
        assert_eq!(running.wait().unwrap().text, "wait");
    });
}

#[test]
fn c84_a_request_that_was_never_seen_is_refused_from_then_on() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let request = RequestId::new();
        assert!(matches!(client.outcome(id, request), Ok(RequestOutcome::NeverSeen)));
        assert!(matches!(client.outcome(id, request), Ok(RequestOutcome::NeverSeen)));
    });
}

#[test]
fn c84_a_turn_that_began_behind_an_outage_is_found_by_its_request() {
    let Some(server) = start() else { return };
    run(move || {
        let gate = Gate::new();
        let lease = Duration::from_secs(1);
        let config = || EngineConfig::new().lease(lease);
        let open = || turnwise::cluster::Engine::open(&server.url(), config()).unwrap();
        // The worker has a longer lease than the outage takes.
        let _worker = worker(&server, &gate);
        let client = turnwise::cluster::ClusterService::new(open()).unwrap();
        let id = client.open_session(SessionSpec::new()).unwrap();
        // The server has the script from now on, so that it runs what it reads after the outage.
        client.start_turn(id, turn("one")).unwrap();
        server.signal("STOP");
        let unknown = client.start_turn(id, turn("two")).unwrap_err();
        server.signal("CONT");
        let SessionError::OutcomeUnknown { request, turn: None, .. } = unknown else { panic!("{unknown:?}") };
        let outcome = eventually("an outcome", || match client.outcome(id, request) {
            Ok(RequestOutcome::Running(_)) | Err(_) => None,
            Ok(outcome) => Some(outcome),
        });
        let texts = said(&client.history(id).unwrap());
        match outcome {
            RequestOutcome::Answered(Ok(result)) => {
                assert_eq!(result.text, "two");
                assert_eq!(texts, ["one", "= one", "two", "= two"]);
            }
            RequestOutcome::NeverSeen => assert_eq!(texts, ["one", "= one"]),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn c84_a_turn_whose_caller_knows_nothing_of_it_does_not_wait_for_a_reader() {
    let Some(server) = start() else { return };
    run(move || {
        let (other, gate) = (client(&server), Gate::new());
        let own = clients(&server);
        let _worker = worker(&server, &gate);
        let network = Proxy::start(server.port());
        let config = EngineConfig::new().lease(Duration::from_secs(3));
        let engine = turnwise::cluster::Engine::open(&network.url(), config).unwrap();
        let client = turnwise::cluster::ClusterService::new(engine).unwrap();
        let lease = clients(&server).into_iter().find(|name| !own.contains(name)).unwrap();
        let id = client.open_session(SessionSpec::new()).unwrap();
        // The server has the script from now on.
        client.start_turn(id, turn("one")).unwrap();
        // The begin does not reach the server if another call of the client is on its way to an answer that gets lost.
        eventually("a turn that runs", || {
            network.set(Network::NoAnswers);
            let unknown = std::thread::scope(|scope| {
                let begun = scope.spawn(|| client.stream_turn(id, turn("emit 20000")).unwrap_err());
                // The worker goes on sending to this client for as long as it has a lease.
                while !begun.is_finished() {
                    for key in [&*lease, lease.strip_suffix(":l").unwrap()] {
                        server.command(&["PEXPIRE", key, "60000"]);
                    }
                }
                begun.join().unwrap()
            });
            network.set(Network::Whole);
            let SessionError::OutcomeUnknown { request, .. } = unknown else { panic!("{unknown:?}") };
            let outcome = eventually("the end of the turn", || match other.outcome(id, request).unwrap() {
                RequestOutcome::Running(_) => None,
                outcome => Some(outcome),
            });
            match outcome {
                RequestOutcome::Answered(Ok(_)) => Some(()),
                RequestOutcome::NeverSeen => None,
                outcome => panic!("{outcome:?}"),
            }
        });
    });
}

#[test]
fn c84_neither_debug_output_nor_errors_show_prompts() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let turn = client.begin_session(create("wait secret")).unwrap();
        let shown = format!("{client:?} {turn:?}");
        assert!(shown.contains("ClusterService") && !shown.contains("secret"), "{shown}");
        gate.open();
        let outcome = format!("{:?}", turn.wait().unwrap());
        assert!(!outcome.contains("secret"), "{outcome}");
    });
}
