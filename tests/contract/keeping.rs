//! C42, C43: export, take and resume, and the timeouts of these calls.

use std::thread;
use std::time::Duration;

use turnwise::{EphemeralSessionService, Message, SessionError, SessionService, SessionSpec, SessionState};

use crate::support::*;

#[cfg(feature = "serde")]
#[test]
fn c42_a_history_survives_json_and_resumes_in_another_service() {
    run(|| {
        let (here, _stage) = scripted(1);
        let id = here.create_session(create("one")).unwrap().session_id;
        here.start_turn(id, turn("two")).unwrap();
        let exported = here.export_session(id).unwrap();
        let json = serde_json::to_string(&exported).unwrap();
        let (there, _stage) = scripted(1);
        let read: turnwise::Session = serde_json::from_str(&json).unwrap();
        assert_eq!(read, exported);
        assert_eq!(there.open_session(SessionSpec::new().resume(read)).unwrap(), id);
        assert_eq!(there.start_turn(id, turn("three")).unwrap().text, "three");
        let history = there.export_session(id).unwrap();
        assert_eq!(history.messages()[..4], *exported.messages());
        assert_eq!(history.last_assistant_text().as_deref(), Some("three"));
        assert_eq!(history.created_at(), exported.created_at());
    });
}

#[cfg(feature = "serde")]
#[test]
fn c42_a_history_of_a_newer_format_is_a_clear_error() {
    run(|| {
        let json = serde_json::to_string(&turnwise::Session::new()).unwrap();
        let newer = json.replacen("\"format_version\":1", "\"format_version\":7", 1);
        assert_ne!(json, newer);
        let error = serde_json::from_str::<turnwise::Session>(&newer).unwrap_err().to_string();
        assert!(error.contains("format version 7"), "{error}");
    });
}

#[test]
fn c42_an_export_waits_for_the_turn_boundary_within_its_timeout() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("deaf")).unwrap();
        let (id, _) = stage.wait_entered();
        let late = service.export_session_timeout(id, SHORT);
        assert_matches!(late, Err(SessionError::Timeout { waited, .. }) if waited >= SHORT);
        thread::scope(|scope| {
            let export = scope.spawn(|| service.export_session(id));
            stage.release();
            assert_eq!(export.join().unwrap().unwrap().messages().len(), 2);
        });
        running.wait().unwrap();
        let exported = service.export_session_timeout(id, LONG).unwrap();
        assert_eq!(exported.messages(), [Message::user("deaf"), Message::assistant("released")]);
    });
}

#[test]
fn c43_a_faulted_session_can_be_exported_and_taken() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.create_session(create("kept")).unwrap().session_id;
        service.start_turn(id, turn("panic")).unwrap_err();
        assert_eq!(service.export_session(id).unwrap().last_assistant_text().as_deref(), Some("kept"));
        let taken = service.take_session(id, LONG).unwrap();
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(service.open_session(SessionSpec::new().resume(taken)).unwrap(), id);
        assert_eq!(service.start_turn(id, turn("on")).unwrap().text, "on");
    });
}

#[test]
fn c43_of_callers_that_poll_with_a_zero_timeout_one_takes_the_session() {
    run(|| {
        let service = EphemeralSessionService::new(turnwise::agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let taken = std::thread::scope(|scope| {
            let ask = || loop {
                match service.take_session(id, Duration::ZERO) {
                    Ok(_) => break true,
                    Err(SessionError::Timeout { .. }) => {}
                    Err(SessionError::NotFound { .. }) => break false,
                    Err(error) => panic!("{error:?}"),
                }
            };
            let takers = [(); 4].map(|()| scope.spawn(ask));
            takers.map(|taker| taker.join().unwrap()).iter().filter(|taken| **taken).count()
        });
        assert_eq!(taken, 1);
    });
}

#[test]
fn c43_take_session_lets_no_turn_in_between() {
    run(|| {
        let (service, _stage) = scripted(1);
        for _ in 0..300 {
            let id = service.open_session(SessionSpec::new()).unwrap();
            thread::scope(|scope| {
                let turns = scope.spawn(|| {
                    let mut finished = 0;
                    loop {
                        match service.start_turn(id, turn("x")) {
                            Ok(_) => finished += 1,
                            Err(SessionError::NotFound { .. }) => return finished,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                });
                let taken = service.take_session(id, LONG).unwrap();
                assert_matches!(service.read(id), Err(SessionError::NotFound { .. }));
                // Every turn that was answered is in the history, and no turn ran after the take.
                assert_eq!(taken.messages().len(), 2 * turns.join().unwrap());
            });
            service.archive_wait(id, LONG).unwrap();
        }
    });
}

#[test]
fn c43_of_many_concurrent_takes_one_gets_the_session() {
    run(|| {
        let (service, stage) = scripted(1);
        for _ in 0..100 {
            let running = service.begin_session(create("deaf")).unwrap();
            let (id, _) = stage.wait_entered();
            thread::scope(|scope| {
                let takers: Vec<_> = (0..3).map(|_| scope.spawn(|| service.take_session(id, LONG))).collect();
                stage.release();
                let taken: Vec<_> = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
                assert_eq!(taken.iter().filter(|result| result.is_ok()).count(), 1, "{taken:?}");
                for result in taken {
                    assert_matches!(result, Ok(_) | Err(SessionError::NotFound { .. }));
                }
            });
            running.wait().unwrap();
            service.archive_wait(id, LONG).unwrap();
        }
    });
}

#[test]
fn c43_a_take_that_times_out_leaves_the_session_as_it_is() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("deaf")).unwrap();
        let (id, _) = stage.wait_entered();
        assert_matches!(service.take_session(id, SHORT), Err(SessionError::Timeout { .. }));
        stage.release();
        running.wait().unwrap();
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
        assert_eq!(service.start_turn(id, turn("on")).unwrap().text, "on");
    });
}

#[test]
fn c43_a_taken_session_can_be_resumed_at_once() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for number in 1..=200 {
            service.start_turn(id, turn("x")).unwrap();
            let taken = service.take_session(id, LONG).unwrap();
            assert_eq!(taken.messages().len(), 2 * number);
            assert_eq!(service.open_session(SessionSpec::new().resume(taken)).unwrap(), id);
        }
    });
}

#[test]
fn c42_exports_that_have_timed_out_are_not_made() {
    run(|| {
        let clones = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        struct Counting(std::sync::Arc<std::sync::atomic::AtomicUsize>, turnwise::crossbeam_channel::Receiver<()>);
        impl turnwise::SessionAgent for Counting {
            fn run_turn(
                &mut self,
                _: String,
                turn: &turnwise::TurnContext,
            ) -> Result<turnwise::RunResult, turnwise::AgentError> {
                let _ = self.1.recv();
                Ok(turn.finish(""))
            }
            fn session_clone(&self) -> turnwise::Session {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                turnwise::Session::new()
            }
            fn snapshot(&self) -> turnwise::SessionSnapshot {
                turnwise::SessionSnapshot::from(&turnwise::Session::new())
            }
        }
        let (go, gate) = turnwise::crossbeam_channel::bounded::<()>(0);
        let counted = std::sync::Arc::clone(&clones);
        let builder = turnwise::builder_fn(move |_, _| Ok(Counting(std::sync::Arc::clone(&counted), gate.clone())));
        let service = turnwise::EphemeralSessionService::new(builder, 1);
        let running = service.begin_session(create("x")).unwrap();
        let id = running.session_id();
        for _ in 0..100 {
            let late = service.export_session_timeout(id, std::time::Duration::ZERO);
            assert_matches!(late, Err(SessionError::Timeout { .. }));
        }
        drop(go);
        running.wait().unwrap();
        service.export_session(id).unwrap();
        // After the build, after the turn, and for the one export.
        assert_eq!(clones.load(std::sync::atomic::Ordering::SeqCst), 3);
    });
}
