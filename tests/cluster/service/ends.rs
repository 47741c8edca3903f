//! Ends of clients, of feeds, of queues and of requests that were refused.

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, AgentError, AgentEvent, CancelReason, EphemeralSessionService, InteractionContent, SessionId,
    SessionService, SessionSpec, StartTurnRequest, Subscription, TurnContext, TurnId, Usage, WhenBusy,
};

use super::*;
use crate::support::*;

#[test]
fn c84_an_interrupt_just_before_the_end_of_the_client_is_sent() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let (other, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let first = client(&server);
        let turns: Vec<_> = (1..=3).map(|_| first.begin_session(create("wait")).unwrap()).collect();
        gate.wait_arrived(3);
        // The first interrupt is under way for as long as the server is stopped, and the others wait for it.
        server.signal("STOP");
        turns.iter().for_each(|turn| turn.interrupt());
        drop(first);
        let ids: Vec<SessionId> = turns.iter().map(|turn| turn.session_id()).collect();
        for turn in turns {
            assert_eq!(turn.wait().unwrap_err().code(), "OUTCOME_UNKNOWN");
        }
        server.signal("CONT");
        // The gate stays closed.
        ids.into_iter().for_each(|id| other.wait_idle(id, LONG).unwrap());
    });
}

#[test]
fn c84_a_queued_turn_without_a_receiver_shows_that_it_runs() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let first = client.begin_session(create("wait")).unwrap();
        gate.wait_arrived(1);
        let queued = client.begin_turn(first.session_id(), turn("wait").when_busy(WhenBusy::Queue)).unwrap();
        assert!(queued.is_queued() && !first.is_queued());
        first.interrupt();
        assert_eq!(first.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        gate.wait_arrived(2);
        eventually("the end of the queue", || (!queued.is_queued()).then_some(()));
        assert!(!queued.is_finished());
        gate.open();
        queued.wait().unwrap();
    });
}

#[test]
fn c84_a_session_does_not_wait_for_itself_through_the_cluster() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let client = client(&server);
        let inner = client.clone();
        let agent = agent_fn(move |_: String, turn: &TurnContext| {
            let id = turn.session_id();
            let queued = || StartTurnRequest::new("again").when_busy(WhenBusy::Queue);
            let direct = code(inner.start_turn(id, queued()));
            let handle = inner.begin_turn(id, queued()).map_err(AgentError::other)?;
            handle.interrupt();
            let by_handle = code(handle.wait());
            let idle = code(inner.wait_idle(id, LONG));
            Ok(turn.finish(format!("{direct} {by_handle} {idle}")))
        });
        let _worker = work(&server, EphemeralSessionService::configure(agent));
        let text = client.create_session(create("")).unwrap().text;
        assert_eq!(text, "SESSION_REENTRANT SESSION_REENTRANT SESSION_REENTRANT");
    });
}

#[test]
fn c84_a_begin_that_a_full_server_refuses_leaves_nothing_there() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let requests = || server.command(&["KEYS", "turnwise:req:*"]);
        let before = requests();
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        assert_eq!(code(client.start_turn(id, turn("x"))), "STORE_FAILED");
        assert_eq!(requests(), before);
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        client.start_turn(id, turn("x")).unwrap();
        assert_ne!(requests(), before);
    });
}

#[test]
fn c85_the_end_of_another_turn_among_the_events_does_not_end_them() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let client = client(&server);
        let agent = agent_fn(|prompt: String, turn: &TurnContext| {
            for (session_id, turn_id) in [(SessionId::new(), turn.turn_id()), (turn.session_id(), TurnId::new(99))] {
                let (result, usage) = ("of a sub-agent".to_owned(), Usage::default());
                turn.emit(AgentEvent::RunCompleted { session_id, turn_id, result, usage })?;
            }
            for number in 0..1000 {
                turn.emit(delta(number))?;
            }
            Ok(turn.finish(prompt))
        });
        let _worker = work(&server, EphemeralSessionService::configure(agent));
        let events: Vec<AgentEvent> = client.stream_session(create("x")).unwrap().collect();
        assert_eq!(numbers(&events), (0..1000).collect::<Vec<_>>());
        assert_eq!(kinds(&events[..3]), ["started", "completed", "completed"]);
        assert_eq!(kind(&events[1003]), "completed");
    });
}

#[test]
fn c85_feeds_that_end_early_leave_no_credit_behind() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let credits = || server.command(&["KEYS", "turnwise:c:*:f"]);
        let (event_tx, events) = bounded(1);
        let turn_without = client.begin_session(create("emit 2000").event_tx(event_tx)).unwrap();
        let id = turn_without.session_id();
        drop(events);
        turn_without.wait().unwrap();
        let mut stream = client.subscribe(id, Subscription::new()).unwrap();
        let turn_with = client.stream_turn(id, turn("emit 2000")).unwrap();
        assert!(stream.next().is_some());
        drop(stream);
        assert_eq!(turn_with.count(), 2002);
        eventually("the end of the credits", || credits().starts_with("*0").then_some(()));
        // The last turn works as the first one.
        assert_eq!(client.stream_turn(id, turn("emit 2000")).unwrap().count(), 2002);
    });
}

#[test]
fn c87_a_message_for_a_faulted_session_is_refused_as_such() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        assert_eq!(code(client.steer(id, None, InteractionContent::message("x"))), "SESSION_NOT_RUNNING");
        client.start_turn(id, turn("panic")).unwrap_err();
        assert_eq!(code(client.steer(id, None, InteractionContent::message("x"))), "SESSION_FAULTED");
    });
}
