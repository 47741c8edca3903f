//! Restarts of faulted sessions in a service that keeps sessions: C56.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use turnwise::store::{PersistentSessionService, SessionStore, StoreError};
use turnwise::{
    builder_fn, AgentError, Message, RunResult, Session, SessionAgent, SessionContext, SessionError, SessionId,
    SessionService, SessionSpec, SessionState, TurnContext,
};

use crate::support::*;

#[test]
fn c56_a_kept_session_restarts_and_its_turns_are_kept_again() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        let kept = || SessionStore::load(&*store, id).unwrap().unwrap().0.history;
        let before = kept();
        assert!(service.start_turn(id, turn("panic")).is_err());
        service.restart(id, LONG).unwrap();
        assert_eq!(kept(), before, "neither the fault nor the restart has changed the history");
        assert_eq!(service.start_turn(id, turn("two")).unwrap().turn_id.get(), 3);
        assert!(kept().messages().len() > before.messages().len());
        service.unload(id, LONG).unwrap();
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one", "two", "= two"]);
        assert_eq!(service.start_turn(id, turn("three")).unwrap().turn_id.get(), 4);
        assert_eq!(service.stats().restarts, 1);
    });
}

#[test]
fn c56_a_kept_session_that_is_not_live_is_not_faulted() {
    run(|| {
        let (service, _store) = watched();
        let unknown = SessionId::new();
        assert!(matches!(service.restart(unknown, LONG), Err(SessionError::NotFound { id }) if id == unknown));
        let id = service.create_session(create("one")).unwrap().session_id;
        assert!(matches!(service.restart(id, LONG), Err(SessionError::NotFaulted { .. })));
        assert!(service.start_turn(id, turn("panic")).is_err());
        service.unload(id, LONG).unwrap();
        assert!(matches!(service.restart(id, LONG), Err(SessionError::NotFaulted { id: is }) if is == id));
        assert!(!service.is_live(id));
        service.archive_wait(id, LONG).unwrap();
        assert!(matches!(service.restart(id, LONG), Err(SessionError::Archived { id: is }) if is == id));
        service.delete(id).unwrap();
        assert!(matches!(service.restart(id, LONG), Err(SessionError::NotFound { .. })));
    });
}

#[test]
fn c56_a_save_that_failed_before_the_fault_is_repeated() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.fails.store(true, Ordering::SeqCst);
        assert!(matches!(service.start_turn(id, turn("two")), Err(SessionError::Agent { .. })));
        assert!(matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. })));
        store.fails.store(false, Ordering::SeqCst);
        // The drop of the old agent repeats the save.
        service.restart(id, LONG).unwrap();
        service.unload(id, LONG).unwrap();
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one", "two", "= two"]);
    });
}

/// An agent that writes its history in the middle of a turn. While the flag is set, a build begins with no history.
struct Writer(Session);

impl SessionAgent for Writer {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.0.push(Message::user(prompt.as_str()));
        assert!(prompt != "panic", "told to");
        self.0.push(Message::assistant(prompt.as_str()));
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.0.clone()
    }
}

fn writers(forget: &Arc<AtomicBool>) -> (PersistentSessionService<impl turnwise::SessionAgentBuilder>, Arc<Watched>) {
    let (store, forget) = (Arc::new(Watched::default()), Arc::clone(forget));
    let builder = builder_fn(move |spec: &SessionSpec, context: &SessionContext| {
        let forgets = forget.load(Ordering::SeqCst);
        Ok(Writer(if forgets { Session::with_id(context.session_id()) } else { spec.history() }))
    });
    (PersistentSessionService::new(builder, 1, Arc::clone(&store)), store)
}

#[test]
fn c56_an_agent_that_does_not_resume_is_refused_and_the_record_stays() {
    run(|| {
        let forget = Arc::default();
        let (service, store) = writers(&forget);
        let id = service.create_session(create("one")).unwrap().session_id;
        assert!(service.start_turn(id, turn("panic")).is_err());
        let before = store.saves.load(Ordering::SeqCst);
        forget.store(true, Ordering::SeqCst);
        let refused = service.restart(id, LONG).unwrap_err();
        assert!(
            matches!(StoreError::of(&refused), Some(StoreError::NotResumed { kept: 2, has: 0, .. })),
            "{refused:?}"
        );
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Faulted);
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one"]);
        assert_eq!(store.saves.load(Ordering::SeqCst), before);
        forget.store(false, Ordering::SeqCst);
        // What the panic left half-written is neither restarted from nor saved.
        service.restart(id, LONG).unwrap();
        service.start_turn(id, turn("two")).unwrap();
        service.unload(id, LONG).unwrap();
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one", "two", "= two"]);
    });
}
