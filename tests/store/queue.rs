//! Turns that queue in a service that keeps sessions: C49 to C51.

use std::thread;

use turnwise::store::PersistentSessionService;
use turnwise::testkit::{scripted, Gate, Script, Scripted};
use turnwise::{CancelReason, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest, WhenBusy};

use crate::support::*;

fn queued(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Queue)
}

/// Agents that echo, and one prompt, `hold`, that waits at the gate.
fn agents(gate: &Gate) -> Scripted {
    let gate = gate.clone();
    scripted().otherwise(move |prompt| match prompt {
        "hold" => Script::new().wait_at(&gate).reply("released"),
        _ => Script::new(),
    })
}

fn service(gate: &Gate) -> (PersistentSessionService<Scripted>, Folder) {
    let folder = Folder::new();
    (PersistentSessionService::new(agents(gate), 4, folder.store()), folder)
}

#[test]
fn c49_queued_turns_are_kept_in_their_order_and_an_unload_waits_for_them() {
    run(|| {
        let gate = Gate::new();
        let (service, _folder) = service(&gate);
        let first = service.begin_session(create("hold")).unwrap();
        let id = first.session_id();
        gate.wait_arrived(1);
        let waiting = ["one", "two"].map(|prompt| service.begin_turn(id, queued(prompt)).unwrap());
        assert_eq!(service.read(id).unwrap().state.queued_turns, 2);
        let unloading = service.clone();
        let unloader = thread::spawn(move || unloading.unload(id, LONG));
        gate.open();
        assert_eq!(first.wait().unwrap().text, "released");
        assert_eq!(waiting.map(|turn| turn.wait().unwrap().text), ["one", "two"]);
        unloader.join().unwrap().unwrap();
        assert!(!service.is_live(id));
        let view = service.read(id).unwrap().state;
        assert_eq!((view.turns, view.queued_turns, view.message_count), (3, 0, 6));
        // A session that is not live starts the turn as the first of its next life.
        let next = service.begin_turn(id, queued("three")).unwrap();
        assert!(!next.is_queued());
        assert_eq!(next.turn_id().get(), 4);
        assert_eq!(next.wait().unwrap().text, "three");
    });
}

#[test]
fn c49_of_many_who_resume_a_session_at_once_with_a_queue_each_runs_its_turn() {
    run(|| {
        let gate = Gate::new();
        let (service, _folder) = service(&gate);
        let id = service.create_session(create("one")).unwrap().session_id;
        for round in 1..=20 {
            service.unload(id, LONG).unwrap();
            let before = service.stats().sessions_created;
            thread::scope(|scope| {
                let start = || assert_eq!(service.start_turn(id, queued("more")).unwrap().text, "more");
                let callers: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                callers.into_iter().for_each(|caller| caller.join().unwrap());
            });
            assert_eq!(service.stats().sessions_created, before + 1);
            assert_eq!(service.read(id).unwrap().state.turns, 1 + 4 * round);
        }
    });
}

#[test]
fn c50_a_turn_supersedes_another_one_of_a_kept_session() {
    run(|| {
        let gate = Gate::new();
        let (service, _folder) = service(&gate);
        let first = service.begin_session(create("hold")).unwrap();
        gate.wait_arrived(1);
        let id = first.session_id();
        assert_eq!(service.start_turn(id, turn("now").when_busy(WhenBusy::Interrupt)).unwrap().text, "now");
        assert_eq!(first.wait().unwrap_err().cancel_reason(), Some(CancelReason::Superseded));
    });
}

#[test]
fn c51_a_deleted_session_answers_its_queue() {
    run(|| {
        let gate = Gate::new();
        let (service, _folder) = service(&gate);
        let first = service.begin_session(create("hold")).unwrap();
        gate.wait_arrived(1);
        let id = first.session_id();
        let waiting = service.begin_turn(id, queued("x")).unwrap();
        service.delete(id).unwrap();
        assert_eq!(waiting.wait().unwrap_err().cancel_reason(), Some(CancelReason::Archived));
        assert_eq!(first.wait().unwrap_err().cancel_reason(), Some(CancelReason::Archived));
        let refused = service.try_begin_turn(id, queued("late")).unwrap_err();
        assert!(matches!(refused.error, SessionError::NotFound { .. } | SessionError::Busy { .. }), "{refused}");
        assert_eq!(refused.request.prompt, "late");
    });
}

#[test]
fn c49_a_refused_request_of_a_session_that_is_not_live_comes_back() {
    run(|| {
        let gate = Gate::new();
        let folder = Folder::new();
        let service = PersistentSessionService::new(agents(&gate), 1, folder.store());
        let cold = service.open_session(SessionSpec::new()).unwrap();
        service.unload(cold, LONG).unwrap();
        let other = service.open_session(SessionSpec::new()).unwrap();
        let refused = service.try_begin_turn(cold, queued("x").timeout(LONG)).unwrap_err();
        assert_eq!(refused.error.code(), "CAPACITY_EXCEEDED");
        service.unload(other, LONG).unwrap();
        let begun = service.try_begin_turn(cold, refused.request).unwrap();
        assert_eq!(begun.wait().unwrap().text, "x");
        assert_eq!(service.try_begin_turn(SessionId::new(), turn("x")).unwrap_err().error.code(), "SESSION_NOT_FOUND");
    });
}
