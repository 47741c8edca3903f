//! Archives, takes and waits.

use std::time::Duration;

use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, ArchiveMode, CancelReason, EphemeralSessionService, SessionId, SessionQuery, SessionService, SessionSpec,
    SessionState, TurnContext, WhenBusy,
};

use super::*;
use crate::support::*;

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn c86_an_archived_session_drains_or_is_interrupted() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.create_session(create("one")).unwrap().session_id;
        let running = client.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(1);
        let queued = client.begin_turn(id, turn("next").when_busy(WhenBusy::Queue)).unwrap();
        client.archive(id).unwrap();
        assert_eq!(code(client.archive(id)), "SESSION_ARCHIVED");
        assert_eq!(code(client.begin_turn(id, turn("x"))), "SESSION_ARCHIVED");
        assert_eq!(client.read(id).unwrap().state.state, SessionState::Archived);
        assert_eq!(code(client.archive_wait(id, SHORT)), "SESSION_TIMEOUT");
        client.archive_with(id, ArchiveMode::Interrupt).unwrap();
        assert_eq!(running.wait().unwrap_err().cancel_reason(), Some(CancelReason::Archived));
        assert_eq!(queued.wait().unwrap_err().cancel_reason(), Some(CancelReason::Archived));
        client.archive_wait(id, LONG).unwrap();
        assert_eq!(code(client.interrupt(id)), "SESSION_ARCHIVED");
        assert_eq!(code(client.wait_idle(id, LONG)), "SESSION_ARCHIVED");
        assert_eq!(client.history(id).unwrap().messages().len(), 2);
        assert!(client.list(SessionQuery::new()).unwrap().is_empty());
        assert_eq!(code(client.archive(SessionId::new())), "SESSION_NOT_FOUND");
    });
}

#[test]
fn c86_an_archive_lets_turns_finish() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let worker = worker(&server, &gate);
        let running = client.begin_session(create("wait")).unwrap();
        let id = running.session_id();
        gate.wait_arrived(1);
        let queued = client.begin_turn(id, turn("next").when_busy(WhenBusy::Queue)).unwrap();
        client.archive(id).unwrap();
        gate.open();
        assert_eq!((running.wait().unwrap().text, queued.wait().unwrap().text), ("wait".into(), "next".into()));
        client.archive_wait(id, LONG).unwrap();
        assert_eq!(worker.stats().service.sessions, 0);
        assert_eq!(said(&client.history(id).unwrap()), ["wait", "= wait", "next", "= next"]);
    });
}

#[test]
fn c86_waits_and_exports_end_with_the_turn() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let running = client.begin_session(create("wait")).unwrap();
        let id = running.session_id();
        gate.wait_arrived(1);
        assert_eq!(code(client.wait_idle(id, SHORT)), "SESSION_TIMEOUT");
        assert_eq!(code(client.export_session_timeout(id, SHORT)), "SESSION_TIMEOUT");
        assert_eq!(code(client.take_session(id, SHORT)), "SESSION_TIMEOUT");
        std::thread::scope(|scope| {
            let exported = scope.spawn(|| client.export_session(id).unwrap());
            let idle = scope.spawn(|| client.wait_idle(id, LONG).unwrap());
            gate.open();
            assert_eq!(said(&exported.join().unwrap()), ["wait", "= wait"]);
            idle.join().unwrap();
        });
        running.wait().unwrap();
        assert_eq!(code(client.wait_idle(SessionId::new(), LONG)), "SESSION_NOT_FOUND");
        assert_eq!(code(client.export_session(SessionId::new())), "SESSION_NOT_FOUND");
    });
}

#[test]
fn c86_a_taken_session_is_gone_and_its_id_is_free() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.create_session(create("one")).unwrap().session_id;
        let running = client.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(1);
        let history = std::thread::scope(|scope| {
            let taken = scope.spawn(|| client.take_session(id, LONG).unwrap());
            gate.open();
            taken.join().unwrap()
        });
        running.wait().unwrap();
        assert_eq!(said(&history), ["one", "= one", "wait", "= wait"]);
        assert_eq!(code(client.read(id)), "SESSION_NOT_FOUND");
        assert_eq!(code(client.take_session(id, LONG)), "SESSION_NOT_FOUND");
        assert_eq!(client.open_session(SessionSpec::new().resume(history)).unwrap(), id);
        assert_eq!(client.start_turn(id, turn("again")).unwrap().text, "again");
        assert_eq!(client.history(id).unwrap().messages().len(), 6);
    });
}

#[test]
fn c86_a_wait_of_a_turn_lends_its_permit_and_ends_with_it() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let target = client.begin_session(create("wait")).unwrap();
        let id = target.session_id();
        let (through, waits) = (client.clone(), Gate::new());
        let arrived = waits.clone();
        let agent = agent_fn(move |prompt: String, turn: &TurnContext| {
            if prompt == "wait for it" {
                arrived.let_through(1);
                arrived.pass_regardless();
                through.wait_idle(id, LONG)?;
            }
            Ok(turn.finish(prompt))
        });
        let local = EphemeralSessionService::configure(agent).max_running_turns(1).build().unwrap();
        let waiting = local.begin_session(create("wait for it")).unwrap();
        waits.wait_arrived(1);
        // With the only permit kept this would wait for ever.
        assert_eq!(local.create_session(create("other")).unwrap().text, "other");
        waiting.interrupt();
        assert_eq!(waiting.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        gate.open();
        target.wait().unwrap();
        let again = local.create_session(create("wait for it")).unwrap();
        assert_eq!(again.text, "wait for it");
    });
}
