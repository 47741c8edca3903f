//! Restarts of faulted sessions, against everything that may come meanwhile: C56.

use std::time::Duration;

use super::support::*;
use super::{explore, join, spawn, yield_now};
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};
use crate::{
    builder_fn, AgentError, ArchiveMode, EphemeralSessionService, EventSource, InjectError, RestartPolicy, Session,
    SessionAgentBuilder, SessionError, SessionId, SessionService, SessionState, StartTurnRequest, TurnHandle, WhenBusy,
};

fn queued(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Queue)
}

/// A session that has run one turn and has faulted in the next.
fn with_faulted_session() -> (EphemeralSessionService<impl SessionAgentBuilder>, SessionId) {
    let (service, id) = with_session();
    service.start_turn(id, turn("x")).unwrap();
    assert!(matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. })));
    (service, id)
}

/// Builders whose builds fail while the flag is set, except the first.
fn failing_builds(fails: &Arc<AtomicBool>) -> impl SessionAgentBuilder {
    let (fails, builds) = (Arc::clone(fails), AtomicUsize::new(0));
    builder_fn(move |spec: &crate::SessionSpec, session: &crate::SessionContext| {
        if builds.fetch_add(1, Ordering::SeqCst) > 0 && fails.load(Ordering::SeqCst) {
            return Err(AgentError::Config("no such agent".into()));
        }
        actors(act).build_agent(spec, session)
    })
}

fn messages(session: &Session) -> usize {
    session.messages().len()
}

#[test]
fn c56_of_several_restarts_one_builds_the_agent() {
    explore(|| {
        let (service, id) = with_faulted_session();
        let others = [(); 2].map(|()| {
            let service = service.clone();
            spawn(move || service.restart(id, FAR))
        });
        let mut results = vec![service.restart(id, FAR)];
        results.extend(others.map(join));
        let succeeded = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!((succeeded, service.stats().restarts), (1, 1));
        for error in results.into_iter().filter_map(Result::err) {
            // During the build, or after it.
            assert!(
                matches!(error, SessionError::Busy { turn: None, .. } | SessionError::NotFaulted { .. }),
                "{error:?}"
            );
        }
        assert_eq!(service.start_turn(id, turn("y")).unwrap().turn_id.get(), 3);
        assert_eq!(messages(&service.export_session(id).unwrap()), 2);
        finish(&service);
    });
}

#[test]
fn c56_a_restart_that_races_with_a_close_is_answered() {
    let ends: [fn(&EphemeralSessionService<_>, SessionId); 3] = [
        |service, id| service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
        |service, id| service.archive_wait(id, FAR).unwrap(),
        |service, _| finish(service),
    ];
    for end in ends {
        explore(move || {
            // Builds that end only by their cancellation, after the first.
            let builds = AtomicUsize::new(0);
            let builder = builder_fn(move |spec: &crate::SessionSpec, session: &crate::SessionContext| {
                if builds.fetch_add(1, Ordering::SeqCst) > 0 {
                    assert!(session.cancel_token().cancelled().recv().is_err());
                    session.check()?;
                }
                actors(act).build_agent(spec, session)
            });
            let service = EphemeralSessionService::new(builder, 1);
            let id = open(&service);
            assert!(service.start_turn(id, turn("panic")).is_err());
            let other = service.clone();
            let restarting = spawn(move || other.restart(id, FAR));
            end(&service, id);
            let result = join(restarting);
            assert!(matches!(result, Err(SessionError::NotFound { .. } | SessionError::ShuttingDown)), "{result:?}");
            finish(&service);
            assert_eq!(service.stats().restarts, 0);
        });
    }
}

#[test]
fn c56_a_close_at_the_end_of_the_faulted_turn_ends_the_restart_behind_it() {
    for mode in [ArchiveMode::Interrupt, ArchiveMode::Drain] {
        explore(move || {
            let builds = AtomicUsize::new(0);
            let builder = builder_fn(move |spec: &crate::SessionSpec, session: &crate::SessionContext| {
                if builds.fetch_add(1, Ordering::SeqCst) > 0 {
                    assert!(session.cancel_token().cancelled().recv().is_err());
                    session.check()?;
                }
                actors(act).build_agent(spec, session)
            });
            let policy = RestartPolicy::new(1, Duration::MAX);
            let service = EphemeralSessionService::configure(builder).restart_faulted(policy).build().unwrap();
            let id = open(&service);
            let first = service.begin_turn(id, turn("panic")).unwrap();
            let other = service.clone();
            let archivist = spawn(move || other.archive_with(id, mode).unwrap());
            // Or it was cancelled before its run.
            assert!(first.wait().is_err());
            join(archivist);
            finish(&service);
        });
    }
}

#[test]
fn c56_a_turn_is_refused_or_runs_after_the_restart() {
    explore(|| {
        let (service, id) = with_faulted_session();
        let callers = [turn("refused"), queued("queued")].map(|request| {
            let service = service.clone();
            spawn(move || service.begin_turn(id, request).map(TurnHandle::wait))
        });
        service.restart(id, FAR).unwrap();
        let [refused, may_queue] = callers.map(join);
        let ran = match refused {
            Ok(result) => u64::from(result.unwrap().text == "refused"),
            Err(SessionError::Faulted { .. } | SessionError::Busy { .. }) => 0,
            Err(error) => panic!("{error}"),
        };
        let ran = ran
            + match may_queue {
                Ok(result) => u64::from(result.unwrap().text == "queued"),
                Err(SessionError::Faulted { .. }) => 0,
                Err(error) => panic!("{error}"),
            };
        let last = service.start_turn(id, queued("last")).unwrap();
        assert_eq!(last.turn_id.get(), 3 + ran);
        assert_eq!(messages(&service.export_session(id).unwrap()) as u64, 2 + ran);
        finish(&service);
    });
}

#[test]
fn c56_a_build_that_fails_answers_every_turn_behind_it() {
    explore(|| {
        let fails = Arc::new(AtomicBool::new(true));
        let service = EphemeralSessionService::new(failing_builds(&fails), 1);
        let id = open(&service);
        assert!(service.start_turn(id, turn("panic")).is_err());
        let other = service.clone();
        let caller = spawn(move || other.begin_turn(id, queued("x")).map(TurnHandle::wait));
        let other = service.clone();
        let idle = spawn(move || other.wait_idle(id, FAR));
        assert!(matches!(service.restart(id, FAR), Err(SessionError::Build { .. })));
        match join(caller) {
            Ok(Err(SessionError::Build { .. })) | Err(SessionError::Faulted { .. }) => {}
            other => panic!("{other:?}"),
        }
        assert!(matches!(join(idle), Err(SessionError::Faulted { .. })));
        let state = service.read(id).unwrap().state;
        assert_eq!((state.state, state.queued_turns, state.is_active), (SessionState::Faulted, 0, false));
        fails.store(false, Ordering::SeqCst);
        service.restart(id, FAR).unwrap();
        service.start_turn(id, turn("y")).unwrap();
        finish(&service);
    });
}

#[test]
fn c56_a_caller_of_a_queued_turn_can_restart_as_soon_as_it_knows_of_the_fault() {
    explore(|| {
        let (service, id) = with_session();
        let first = service.begin_turn(id, turn("panic")).unwrap();
        let other = service.clone();
        let restarting = spawn(move || match other.begin_turn(id, queued("x")).map(TurnHandle::wait) {
            Ok(Err(SessionError::Faulted { .. })) | Err(SessionError::Faulted { .. }) => {
                other.restart(id, FAR).expect("it is not busy with the turn that has faulted");
                other.start_turn(id, queued("y")).unwrap();
            }
            other => panic!("{other:?}"),
        });
        assert!(matches!(first.wait(), Err(SessionError::Faulted { .. })));
        join(restarting);
        assert_eq!(service.stats().restarts, 1);
        finish(&service);
    });
}

#[test]
fn c56_a_policy_restarts_beside_a_caller_that_restarts_too() {
    explore(|| {
        let policy = RestartPolicy::new(1, Duration::MAX);
        let config = EphemeralSessionService::configure(actors(act));
        let service = config.restart_faulted(policy).build().unwrap();
        let id = open(&service);
        let first = service.begin_turn(id, turn("panic")).unwrap();
        let other = service.clone();
        let restarting = spawn(move || other.restart(id, FAR));
        assert!(matches!(first.wait(), Err(SessionError::Faulted { .. })));
        // The session is building from before the answer on.
        assert_eq!(service.start_turn(id, queued("x")).unwrap().text, "x");
        match join(restarting) {
            Ok(()) | Err(SessionError::Busy { .. } | SessionError::NotFaulted { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(service.stats().restarts, 1);
        finish(&service);
    });
}

#[test]
fn c56_a_take_and_an_export_wait_for_the_build() {
    explore(|| {
        let (service, id) = with_faulted_session();
        let [taker, exporter] = [service.clone(), service.clone()];
        let taker = spawn(move || taker.take_session(id, FAR));
        let exporter = spawn(move || exporter.export_session(id));
        let restarted = service.restart(id, FAR);
        assert!(matches!(restarted, Ok(()) | Err(SessionError::NotFound { .. })), "{restarted:?}");
        assert_eq!(messages(&join(taker).expect("it is decided after the build")), 1);
        if let Ok(exported) = join(exporter) {
            assert_eq!(messages(&exported), 1);
        }
        finish(&service);
    });
}

#[test]
fn c56_an_inbox_opens_again_and_never_after_a_close() {
    explore(|| {
        let (service, id) = with_faulted_session();
        let injector = service.event_injector(id).unwrap();
        let other = service.clone();
        let archivist = spawn(move || {
            other.archive(id).unwrap();
            let late = injector.inject("late".into(), EventSource::Rpc);
            assert_eq!(late, Err(InjectError::Closed("late".into())));
        });
        let injector = service.event_injector(id);
        let restarted = service.restart(id, FAR);
        if let Some(injector) = injector.filter(|_| restarted.is_ok()) {
            // The archive may have come since.
            if injector.inject("x".into(), EventSource::Rpc).is_err() {
                assert!(service.read(id).is_err());
            }
        }
        join(archivist);
        finish(&service);
    });
}

#[test]
fn c56_reads_show_a_restart_as_building_until_it_is_idle() {
    explore(|| {
        let (service, id) = with_faulted_session();
        let injector = service.event_injector(id).unwrap();
        let other = service.clone();
        let reader = spawn(move || {
            let mut seen = Vec::new();
            for _ in 0..3 {
                let info = other.read(id).unwrap().state;
                assert_eq!(info.is_active, info.state == SessionState::Building, "{info:?}");
                assert_eq!((info.turns, info.message_count), (2, 1));
                if info.state == SessionState::Idle {
                    injector.inject("x".into(), EventSource::Rpc).expect("the inbox is open again");
                }
                seen.push(info.state);
                yield_now();
            }
            let order = [SessionState::Faulted, SessionState::Building, SessionState::Idle];
            let places: Vec<_> = seen.iter().map(|state| order.iter().position(|one| one == state)).collect();
            assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{seen:?}");
        });
        service.restart(id, FAR).unwrap();
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
        join(reader);
        finish(&service);
    });
}
