//! C31, C32: panics of agents, and of all other code of the host.

use std::sync::Arc;
use std::thread;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::{
    agent_fn, builder_fn, AgentError, EphemeralSessionService, Message, RunResult, Session, SessionAgent, SessionError,
    SessionId, SessionQuery, SessionService, SessionSnapshot, SessionSpec, SessionState, SkillId, TurnContext,
};

use crate::support::*;

#[test]
fn c31_a_panic_faults_its_session_and_no_other() {
    run(|| {
        let (service, stage) = scripted(3);
        let id = service.create_session(create("before")).unwrap().session_id;
        let other = service.begin_session(create("hold")).unwrap();
        stage.wait_entered();
        let fault = service.start_turn(id, turn("panic")).unwrap_err();
        assert_matches!(&fault, SessionError::Faulted { message, .. } if &**message == "scripted");
        assert_eq!(fault.code(), "SESSION_FAULTED");
        let listed = service.list(SessionQuery::new()).unwrap();
        assert_eq!(listed[0].state, SessionState::Faulted);
        assert_eq!(listed[1].state, SessionState::Running);
        let view = service.read(id).unwrap();
        assert_eq!(view.state.last_assistant_text.as_deref(), Some("before"));
        assert_eq!(service.export_session(id).unwrap().messages().len(), 2);
        let again = service.start_turn(id, turn("x"));
        assert_matches!(again, Err(SessionError::Faulted { message, .. }) if &*message == "scripted");
        assert_matches!(service.interrupt(id), Err(SessionError::NotRunning { .. }));
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(service.stats().sessions, 1);
        stage.release();
        assert_eq!(other.wait().unwrap().text, "released");
        assert_eq!(service.stats().faults, 1);
    });
}

/// An agent that panics in the method that its last prompt names.
struct Panicking {
    session: Session,
    breaks_in: String,
}

impl Panicking {
    fn at(&self, place: &str) {
        assert!(self.breaks_in != place, "broken in {place}");
    }
}

impl SessionAgent for Panicking {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.session.push(Message::assistant(prompt.as_str()));
        self.breaks_in = prompt.clone();
        if prompt == "cancel" {
            let _ = turn.cancel_token().cancelled().recv();
            turn.check()?;
        }
        if prompt == "hook" {
            let (start, started) = bounded(1);
            let _hook = turn.cancel_token().on_cancel(move || {
                start.send(()).unwrap();
                panic!("broken in hook")
            });
            started.recv().unwrap();
        }
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.at("session_clone");
        self.session.clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        self.at("snapshot");
        SessionSnapshot::from(&self.session)
    }

    fn set_skill_references(&mut self, _: Option<Vec<SkillId>>) {
        self.at("set_skill_references");
    }

    fn cancel(&mut self) {
        self.at("cancel");
    }
}

impl Drop for Panicking {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.at("drop");
        }
    }
}

fn panicking() -> (EphemeralSessionService<impl turnwise::SessionAgentBuilder>, SessionId) {
    let builder = builder_fn(|_, context| {
        Ok(Panicking { session: Session::with_id(context.session_id()), breaks_in: String::new() })
    });
    let service = EphemeralSessionService::new(builder, 1);
    let id = service.open_session(SessionSpec::new()).unwrap();
    (service, id)
}

#[test]
fn c32_panics_in_set_skill_references_and_cancel_fault_the_session() {
    run(|| {
        let (service, id) = panicking();
        service.start_turn(id, turn("set_skill_references")).unwrap();
        let fault = service.start_turn(id, turn("x"));
        assert_matches!(fault, Err(SessionError::Faulted { message, .. }) if message.contains("set_skill"));
        service.archive_wait(id, LONG).unwrap();

        let (service, id) = panicking();
        let running = service.begin_turn(id, turn("cancel")).unwrap();
        // The turn has to run first. A turn that is cancelled before its run is not rolled back.
        while service.stats().running_turns == 0 {
            std::thread::yield_now();
        }
        running.interrupt();
        assert_matches!(running.wait(), Err(SessionError::Faulted { message, .. }) if message.contains("cancel"));
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Faulted);
    });
}

#[test]
fn c32_panics_in_snapshot_and_session_clone_keep_result_and_session() {
    run(|| {
        let (service, id) = panicking();
        assert_eq!(service.start_turn(id, turn("fine")).unwrap().text, "fine");
        assert_eq!(service.start_turn(id, turn("snapshot")).unwrap().text, "snapshot");
        // The snapshot of the previous turn stays.
        assert_eq!(service.read(id).unwrap().state.last_assistant_text.as_deref(), Some("fine"));
        assert_eq!(service.start_turn(id, turn("session_clone")).unwrap().text, "session_clone");
        let export = service.export_session(id);
        assert_matches!(export, Err(SessionError::Agent { source: AgentError::Internal(_), .. }));
        assert_matches!(service.take_session(id, LONG), Err(SessionError::Agent { .. }));
        assert_eq!(service.start_turn(id, turn("fine again")).unwrap().text, "fine again");
        assert_eq!(service.read(id).unwrap().state.message_count, 4);
        assert_eq!(service.take_session(id, LONG).unwrap().messages().len(), 4);
    });
}

#[test]
fn c32_panics_in_hooks_and_drops_are_contained_and_logged() {
    run(|| {
        record_log();
        let (service, id) = panicking();
        let running = service.begin_turn(id, turn("hook")).unwrap();
        while service.stats().running_turns == 0 {
            std::thread::yield_now();
        }
        // The hook panics on this thread, or on the session thread if the interrupt comes before the hook is armed.
        running.interrupt();
        assert_eq!(running.wait().unwrap().text, "hook");
        service.start_turn(id, turn("drop")).unwrap();
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(service.stats().sessions, 0);
        assert!(!logged(log::Level::Error, "a cancel hook panicked").is_empty());
        assert!(!logged(log::Level::Error, "the drop of an agent panicked").is_empty());
    });
}

#[test]
fn c32_a_panic_that_carries_a_value_which_panics_when_dropped_is_contained() {
    run(|| {
        struct PanicsOnDrop;
        impl Drop for PanicsOnDrop {
            fn drop(&mut self) {
                panic!("boom");
            }
        }
        let service = EphemeralSessionService::new(agent_fn(|_, _| std::panic::panic_any(PanicsOnDrop)), 1);
        let fault = service.create_session(create("x")).unwrap_err();
        assert_matches!(&fault, SessionError::Faulted { .. });
        service.archive_wait(fault.session_id().unwrap(), LONG).unwrap();
    });
}

/// An error whose `Display` or drop panics, as its fields say.
#[derive(Debug)]
struct PanickingError {
    shown: bool,
    dropped: bool,
}

impl std::fmt::Display for PanickingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(!self.shown, "broken in display");
        f.write_str("nasty")
    }
}

impl std::error::Error for PanickingError {}

impl Drop for PanickingError {
    fn drop(&mut self) {
        assert!(!self.dropped || thread::panicking(), "broken in drop");
    }
}

#[test]
fn c32_an_error_that_panics_when_shown_is_still_delivered() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let panicking_error = || AgentError::other(PanickingError { shown: true, dropped: false });
        jobs.prepare("x", move |_, _| Err(panicking_error()));
        let (event_tx, events) = unbounded();
        let failed = jobs.service.start_turn(id, turn("x").event_tx(event_tx));
        assert!(matches!(failed, Err(SessionError::Agent { source: AgentError::Other(_), .. })));
        assert_eq!(events.iter().count(), 2);
        assert_eq!(jobs.service.start_turn(id, turn("fine")).unwrap().text, "fine");

        let builder = builder_fn(move |_, _| -> Result<Panicking, AgentError> { Err(panicking_error()) });
        let service = EphemeralSessionService::new(builder, 1);
        let (event_tx, _events) = unbounded();
        let failed = service.create_session(create("x").event_tx(event_tx));
        assert!(matches!(failed, Err(SessionError::Build { .. })));
    });
}

#[test]
fn c32_an_error_that_panics_when_dropped_ends_no_session() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let panicking_error = || AgentError::other(PanickingError { shown: false, dropped: true });
        let (go, gate) = bounded::<()>(0);
        let running = jobs.begin(id, "x", move |_, _| {
            let _ = gate.recv();
            Err(panicking_error())
        });
        let finished = running.finished().clone();
        // No caller takes the error, so the session thread drops it.
        drop(running);
        drop(go);
        assert!(finished.recv().is_err());
        assert_eq!(jobs.service.start_turn(id, turn("fine")).unwrap().text, "fine");

        let (go, gate) = bounded::<()>(0);
        let builder = builder_fn(move |_, _| -> Result<Panicking, AgentError> {
            let _ = gate.recv();
            Err(panicking_error())
        });
        let service = EphemeralSessionService::configure(builder).thread_name_prefix("c32-nasty").build().unwrap();
        drop(service.begin_session(create("x")).unwrap());
        drop(go);
        assert_eq!(service.shutdown(LONG).stuck, []);
        #[cfg(target_os = "linux")]
        assert_no_threads("c32-nasty");
    });
}

#[test]
fn c32_a_hook_whose_captures_panic_when_dropped_is_contained() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("x", |_, own_turn| {
            let captured = PanickingError { shown: false, dropped: true };
            drop(own_turn.cancel_token().on_cancel(move || drop(captured)));
            Ok("fine".into())
        });
        assert_eq!(jobs.service.start_turn(id, turn("x")).unwrap().text, "fine");
    });
}

#[test]
fn c32_a_builder_and_a_specification_that_panic_when_dropped_are_contained() {
    run(|| {
        let (start, started) = bounded(0);
        let (go, gate) = bounded::<()>(0);
        let captured = PanickingError { shown: false, dropped: true };
        let builder = builder_fn(move |_, _| {
            let _captured = &captured;
            start.send(()).unwrap();
            let _ = gate.recv();
            Err::<Panicking, _>(AgentError::Config("none".into()))
        });
        let service = EphemeralSessionService::new(builder, 1);
        let extension = Arc::new(PanickingError { shown: false, dropped: true });
        let spec = SessionSpec::new().extension(extension);
        let building = service.begin_session(create("x").session(spec)).unwrap();
        started.recv().unwrap();
        // From here on the session thread is the last owner of the builder and of the specification.
        drop(service);
        drop(go);
        assert_matches!(building.wait(), Err(SessionError::Build { .. }));
    });
}
