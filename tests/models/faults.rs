//! Builds that fail, and agents that panic: C03, C04, C07, C31, C32.

use super::support::*;
use super::{explore, join, spawn};
use crate::{
    builder_fn, AgentError, ArchiveMode, BuildError, CancelReason, EphemeralSessionService, RunResult, Session,
    SessionAgent, SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSnapshot, SessionSpec,
    SessionState, TurnContext,
};

#[test]
fn c31_a_panic_faults_its_session_and_later_turns_are_refused() {
    explore(|| {
        let (service, id) = with_session();
        let turn = service.begin_turn(id, turn("panic")).unwrap();
        let other = service.clone();
        let rival = spawn(move || other.begin_turn(id, super::support::turn("x")).map(|turn| turn.wait()));
        assert!(matches!(turn.wait(), Err(SessionError::Faulted { .. })));
        match join(rival) {
            Err(SessionError::Busy { .. }) => {}
            Err(SessionError::Faulted { message, .. }) => assert_eq!(&*message, "as asked"),
            other => panic!("{other:?}"),
        }
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Faulted);
        service.export_session(id).expect("the history is there");
        service.archive_wait(id, FAR).unwrap();
        finish(&service);
    });
}

#[test]
fn c31_a_panic_that_races_with_the_end_of_its_session_is_answered() {
    explore(|| {
        let (service, id) = with_session();
        let turn = service.begin_turn(id, turn("panic")).unwrap();
        let other = service.clone();
        let archivist = spawn(move || other.archive_with(id, ArchiveMode::Interrupt));
        match turn.wait() {
            Err(SessionError::Faulted { .. }) => {}
            // The turn was cancelled before its run.
            other => assert_eq!(reason(&other), Some(CancelReason::Archived), "{other:?}"),
        }
        join(archivist).unwrap();
        finish(&service);
    });
}

fn failing(panics: bool) -> EphemeralSessionService<impl SessionAgentBuilder> {
    let builder = builder_fn(move |_: &SessionSpec, _: &crate::SessionContext| -> Result<Actor, AgentError> {
        if panics {
            unwind("no such agent");
        }
        Err(AgentError::Config("no such agent".into()))
    });
    EphemeralSessionService::new(builder, 1)
}

#[test]
fn c03_c04_a_failed_build_frees_its_id_and_capacity_before_it_answers() {
    for panics in [false, true] {
        explore(move || {
            let service = failing(panics);
            let id = SessionId::new();
            let own_id = || SessionSpec::new().session_id(id);
            let turn = service.begin_session(create("x").session(own_id())).unwrap();
            let other = service.clone();
            // These calls come during the build or after it.
            let meddler = spawn(move || {
                let _ = other.interrupt(id);
                let _ = other.archive_with(id, ArchiveMode::Interrupt);
            });
            match turn.wait() {
                Err(SessionError::Build { source: BuildError::Panicked(_), .. }) => assert!(panics),
                Err(SessionError::Build { source: BuildError::Agent(_), .. }) => assert!(!panics),
                other => panic!("{other:?}"),
            }
            assert_eq!(service.stats().sessions, 0);
            assert!(matches!(service.open_session(own_id()), Err(SessionError::Build { .. })));
            join(meddler);
            finish(&service);
        });
    }
}

#[test]
fn c07_an_archive_ends_a_session_that_is_being_built() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let turn = service.begin_session(create("wait")).unwrap();
        let id = turn.session_id();
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        assert_eq!(reason(&turn.wait()), Some(CancelReason::Archived));
        finish(&service);
    });
}

#[test]
fn c07_an_open_that_races_with_a_shutdown_is_answered() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let other = service.clone();
        let opener = spawn(move || other.open_session(SessionSpec::new()));
        finish(&service);
        match join(opener) {
            Ok(_) | Err(SessionError::ShuttingDown | SessionError::NotFound { .. }) => {}
            Err(error) => panic!("{error}"),
        }
        assert_eq!(service.stats().sessions, 0);
    });
}

/// An agent that panics in every method except `run_turn`, and in its drop.
struct Brittle;

impl SessionAgent for Brittle {
    fn run_turn(&mut self, _prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish("ran"))
    }

    fn session_clone(&self) -> Session {
        unwind("no history")
    }

    fn snapshot(&self) -> SessionSnapshot {
        unwind("no snapshot")
    }
}

impl Drop for Brittle {
    fn drop(&mut self) {
        unwind("no end");
    }
}

#[test]
fn c32_panics_elsewhere_leave_the_session_usable_and_its_end_clean() {
    explore(|| {
        let service = EphemeralSessionService::new(builder_fn(|_, _| Ok(Brittle)), 1);
        let id = open(&service);
        let other = service.clone();
        let caller = spawn(move || other.begin_turn(id, turn("x")).map(|turn| turn.wait()));
        assert!(service.export_session(id).is_err());
        if let Ok(result) = join(caller) {
            assert_eq!(result.unwrap().text, "ran");
        }
        service.start_turn(id, turn("x")).expect("the session is usable");
        service.archive_wait(id, FAR).unwrap();
        finish(&service);
    });
}
