//! When a session is saved, what is saved, and what a failing store leads to.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use turnwise::store::{PersistentSessionService, SessionStore, StoreError, TurnOutcome};
use turnwise::testkit::Gate;
use turnwise::{
    builder_fn, AgentError, ArchiveMode, EventSource, Message, RunResult, Session, SessionAgent, SessionId,
    SessionQuery, SessionService, SessionSpec, SessionState, TurnContext,
};

use crate::support::*;

#[test]
fn a_turn_is_kept_before_its_result_and_its_terminal_event() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["one", "= one"]);
        let mut heard = Vec::new();
        let result = service.start_turn_with(id, turn("two"), &mut |event| {
            heard.push((format!("{event:?}"), store.load(id).unwrap().unwrap().0.history.messages().len()));
        });
        assert_eq!(result.unwrap().text, "two");
        let (last, messages) = heard.last().unwrap();
        assert!(last.starts_with("RunCompleted"), "{last}");
        assert_eq!(*messages, 4);
    });
}

#[test]
fn a_failed_turn_that_changes_nothing_saves_its_end_alone() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        let saves = store.saves.load(Ordering::SeqCst);
        assert_eq!(saves, 2, "one save after the build, one after the turn");
        service.start_turn(id, turn("fail")).unwrap_err();
        assert_eq!(store.saves.load(Ordering::SeqCst), saves + 1);
        let (end, added) = *store.told.lock().unwrap().last().unwrap();
        assert_eq!((end.map(|end| end.outcome), added), (Some(TurnOutcome::Failed), Some(0)));
    });
}

#[test]
fn a_turn_that_cannot_be_kept_fails_and_the_next_save_keeps_it() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.fails.store(true, Ordering::SeqCst);
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert!(matches!(StoreError::of(&error), Some(StoreError::Failed(_))), "{error:?}");
        assert!(error.to_string().contains("no space left"), "{error}");
        let error = service.archive(id).unwrap_err();
        assert_eq!(error.code(), "STORE_FAILED");
        assert_eq!(error.session_id(), Some(id));
        assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["one", "= one"]);
        store.fails.store(false, Ordering::SeqCst);
        service.start_turn(id, turn("three")).unwrap();
        let kept = store.load(id).unwrap().unwrap().0;
        assert!(!kept.archived);
        assert_eq!(said(&kept.history), ["one", "= one", "two", "= two", "three", "= three"]);
    });
}

#[test]
fn a_turn_whose_save_failed_is_kept_at_the_end_of_the_session() {
    run(|| {
        for ends in ["unload", "shutdown", "take"] {
            let (service, store) = watched();
            let id = service.create_session(create("one")).unwrap().session_id;
            store.fails.store(true, Ordering::SeqCst);
            service.start_turn(id, turn("two")).unwrap_err();
            if ends != "shutdown" {
                // An unload is refused while it would lose the turn.
                assert_eq!(service.unload(id, LONG).unwrap_err().code(), "STORE_FAILED");
                assert!(service.is_live(id));
            }
            store.fails.store(false, Ordering::SeqCst);
            match ends {
                "unload" => service.unload(id, LONG).unwrap(),
                "take" => drop(service.take_session(id, LONG).unwrap()),
                _ => drop(service.shutdown(LONG)),
            }
            let kept = store.load(id).unwrap().unwrap().0;
            assert_eq!(said(&kept.history), ["one", "= one", "two", "= two"], "{ends}");
            assert_eq!(kept.archived, ends == "take");
        }
    });
}

#[test]
fn a_session_whose_running_turn_cannot_be_kept_is_not_unloaded() {
    run(|| {
        let (service, store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        std::thread::scope(|scope| {
            let unloading = scope.spawn(|| service.unload(id, LONG));
            store.fails.store(true, Ordering::SeqCst);
            gate.open();
            assert!(StoreError::of(&running.wait().unwrap_err()).is_some());
            // The unload fails, whether it has waited for the turn or came after it.
            assert_eq!(unloading.join().unwrap().unwrap_err().code(), "STORE_FAILED");
        });
        assert_eq!(service.take_session(id, LONG).unwrap_err().code(), "STORE_FAILED");
        assert!(service.is_live(id));
        store.fails.store(false, Ordering::SeqCst);
        service.unload(id, LONG).unwrap();
        assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["one", "= one"]);
    });
}

#[test]
fn after_a_panic_the_turn_before_is_kept_whatever_ends_the_session() {
    /// An agent that adds the prompt to its history before it panics.
    struct Eager(Session);
    impl SessionAgent for Eager {
        fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
            self.0.push(Message::user(prompt.as_str()));
            assert_ne!(prompt, "panic");
            Ok(turn.finish(prompt))
        }
        fn session_clone(&self) -> Session {
            self.0.clone()
        }
    }
    run(|| {
        for (ends, is_behind) in
            [("unload", false), ("unload", true), ("take", false), ("take", true), ("shutdown", true)]
        {
            let store = Arc::new(Watched::default());
            let builder = builder_fn(|_, context| Ok(Eager(Session::with_id(context.session_id()))));
            let service = PersistentSessionService::new(builder, 1, Arc::clone(&store));
            let id = service.create_session(create("one")).unwrap().session_id;
            store.fails.store(is_behind, Ordering::SeqCst);
            assert_eq!(service.start_turn(id, turn("two")).is_err(), is_behind);
            store.fails.store(false, Ordering::SeqCst);
            assert_eq!(service.start_turn(id, turn("panic")).unwrap_err().code(), "SESSION_FAULTED");
            match ends {
                "unload" => service.unload(id, LONG).unwrap(),
                "take" => drop(service.take_session(id, LONG).unwrap()),
                _ => drop(service.shutdown(LONG)),
            }
            assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["one", "two"], "{ends}, {is_behind}");
        }
    });
}

#[test]
fn an_unload_that_waits_only_for_the_drop_of_the_agent_is_ending() {
    struct Slow(Session, Gate);
    impl SessionAgent for Slow {
        fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
            Ok(turn.finish(""))
        }
        fn session_clone(&self) -> Session {
            self.0.clone()
        }
    }
    impl Drop for Slow {
        fn drop(&mut self) {
            self.1.pass_regardless();
        }
    }
    run(|| {
        let (store, gate) = (Arc::new(Watched::default()), Gate::new());
        let agents = gate.clone();
        let builder = builder_fn(move |_, context| Ok(Slow(Session::with_id(context.session_id()), agents.clone())));
        let service = PersistentSessionService::new(builder, 1, store);
        let id = service.open_session(SessionSpec::new()).unwrap();
        // On a slow machine the timeout may come before the session is closed. Then the session is live, and the error
        // is `Timeout`.
        loop {
            let code = service.unload(id, Duration::from_millis(5)).unwrap_err().code();
            match service.is_live(id) {
                true => assert_eq!(code, "SESSION_TIMEOUT"),
                false if code == "SESSION_ENDING" => break,
                false => assert_eq!(code, "SESSION_TIMEOUT", "the session was closed just after the wait"),
            }
        }
        assert_eq!(
            service.unload(id, Duration::ZERO).unwrap_err().code(),
            "SESSION_ENDING",
            "a second unload gets the same error"
        );
        assert_eq!(service.open_session(SessionSpec::new()).unwrap_err().code(), "CAPACITY_EXCEEDED");
        gate.open();
        service.unload(id, LONG).unwrap();
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn a_history_that_could_not_be_exported_is_kept_at_the_end_of_the_session() {
    /// An agent whose `session_clone` panics once, after the prompt `once`.
    struct Shy(Session, std::cell::Cell<bool>);
    impl SessionAgent for Shy {
        fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
            self.1.set(prompt == "once");
            self.0.push(Message::user(prompt.as_str()));
            Ok(turn.finish(prompt))
        }
        fn session_clone(&self) -> Session {
            assert!(!self.1.take(), "the scripted panic");
            self.0.clone()
        }
    }
    run(|| {
        for ends in ["unload", "take", "shutdown"] {
            let store = Arc::new(Watched::default());
            let builder = builder_fn(|_, context| Ok(Shy(Session::with_id(context.session_id()), Default::default())));
            let service = PersistentSessionService::new(builder, 1, Arc::clone(&store));
            let id = service.create_session(create("one")).unwrap().session_id;
            let error = service.start_turn(id, turn("once")).unwrap_err();
            assert!(error.to_string().contains("session_clone panicked"), "{error}");
            match ends {
                "unload" => service.unload(id, LONG).unwrap(),
                "take" => assert_eq!(said(&service.take_session(id, LONG).unwrap()), ["one", "once"]),
                _ => drop(service.shutdown(LONG)),
            }
            assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["one", "once"], "{ends}");
        }
    });
}

#[test]
fn a_session_whose_archive_was_written_and_failed_can_be_resumed() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.lies.store(true, Ordering::SeqCst);
        assert_eq!(service.archive(id).unwrap_err().code(), "STORE_FAILED");
        store.lies.store(false, Ordering::SeqCst);
        service.unload(id, LONG).unwrap();
        assert!(!store.load(id).unwrap().unwrap().0.archived);
        service.resume(id).unwrap();
    });
}

#[test]
fn a_session_whose_first_save_was_written_and_failed_does_not_exist() {
    run(|| {
        let (service, store) = watched();
        let id = SessionId::new();
        store.lies.store(true, Ordering::SeqCst);
        let error = service.create_session(create("one").session(SessionSpec::new().session_id(id))).unwrap_err();
        assert_eq!(error.code(), "SESSION_BUILD_FAILED");
        store.lies.store(false, Ordering::SeqCst);
        assert!(store.list().unwrap().is_empty());
        service.create_session(create("one").session(SessionSpec::new().session_id(id))).unwrap();
    });
}

#[test]
fn a_store_that_panics_is_an_error() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.panics.store(true, Ordering::SeqCst);
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert!(StoreError::of(&error).unwrap().to_string().contains("panicked"), "{error}");
        store.panics.store(false, Ordering::SeqCst);
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
        service.start_turn(id, turn("three")).unwrap();
    });
}

#[test]
fn a_session_that_cannot_be_kept_after_its_build_does_not_exist() {
    run(|| {
        let (service, store) = watched();
        store.fails.store(true, Ordering::SeqCst);
        let error = service.open_session(SessionSpec::new()).unwrap_err();
        assert_eq!(error.code(), "SESSION_BUILD_FAILED");
        assert!(StoreError::of(&error).is_some());
        assert_eq!(service.stats().sessions, 0);
        store.fails.store(false, Ordering::SeqCst);
        assert!(service.list(SessionQuery::new()).unwrap().is_empty());
        let id = service.open_session(SessionSpec::new()).unwrap();
        assert!(store.load(id).unwrap().is_some(), "the session is kept before its first turn");
    });
}

#[test]
fn a_turn_that_ends_after_the_archive_is_kept_as_archived() {
    run(|| {
        let (service, store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        service.archive(id).unwrap();
        assert!(store.load(id).unwrap().unwrap().0.archived);
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Archived);
        // A second call that interrupts cancels the draining turn, as in a service without a store.
        assert_eq!(service.archive(id).unwrap_err().code(), "SESSION_ARCHIVED");
        assert_eq!(service.interrupt(id).unwrap_err().code(), "SESSION_ARCHIVED");
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        gate.open();
        assert_eq!(running.wait().unwrap().text, "one");
        let kept = store.load(id).unwrap().unwrap().0;
        assert!(kept.archived);
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(
            service.interrupt(id).unwrap_err().code(),
            "SESSION_ARCHIVED",
            "the error is the same after the end"
        );
        assert_eq!(said(&kept.history), ["one", "= one"]);
    });
}

#[test]
fn an_interrupted_turn_is_kept_as_it_is_rolled_back() {
    /// An agent that adds the prompt to its history at once, and marks the turn as cut off when it rolls back.
    struct Careful(Session, Gate);
    impl SessionAgent for Careful {
        fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
            self.0.push(Message::user(prompt));
            self.1.pass(turn.cancel_token())?;
            self.0.push(Message::assistant("done"));
            Ok(turn.finish("done"))
        }
        fn cancel(&mut self) {
            self.0.push(Message::assistant("cut off"));
        }
        fn session_clone(&self) -> Session {
            self.0.clone()
        }
    }
    run(|| {
        let store = Arc::new(Watched::default());
        let gate = Gate::new();
        let builder = {
            let gate = gate.clone();
            builder_fn(move |_, context| Ok(Careful(Session::with_id(context.session_id()), gate.clone())))
        };
        let service = PersistentSessionService::new(builder, 1, Arc::clone(&store));
        let running = service.begin_session(create("one")).unwrap();
        gate.wait_arrived(1);
        running.interrupt();
        let id = running.session_id();
        running.wait().unwrap_err();
        assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["one", "= cut off"]);
        // A turn that succeeds and cannot be kept is not rolled back.
        store.fails.store(true, Ordering::SeqCst);
        gate.open();
        service.start_turn(id, turn("two")).unwrap_err();
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= cut off", "two", "= done"]);
    });
}

#[test]
fn every_interaction_is_kept_before_it_is_answered() {
    run(|| {
        let (service, store) = watched();
        let hosting = service.begin_session(create("hello").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        let ping = injector.inject_with_subscription("ping".into(), EventSource::Tcp).unwrap();
        assert_eq!(ping.events.iter().count(), 1);
        assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["hello", "= hello", "ping", "= ping"]);
        injector.dismiss(EventSource::Tcp).unwrap();
        assert_eq!(hosting.wait().unwrap().text, "ping");
    });
}

#[test]
fn a_failed_build_leaves_the_kept_record_as_it_is() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let id = service.create_session(create("one")).unwrap().session_id;
        service.shutdown(LONG);
        drop(service);
        let broken = builder_fn(|_, _| Err::<Box<dyn SessionAgent>, _>(AgentError::Config("no key".into())));
        let service = PersistentSessionService::new(broken, 1, folder.store());
        for _ in 0..2 {
            assert_eq!(service.start_turn(id, turn("two")).unwrap_err().code(), "SESSION_BUILD_FAILED");
            assert_eq!(service.create_session(create("new")).unwrap_err().code(), "SESSION_BUILD_FAILED");
        }
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 1);
        drop(service);
        assert_eq!(keeping(&folder).start_turn(id, turn("two")).unwrap().text, "two");
    });
}

#[test]
fn times_are_those_of_the_conversation() {
    run(|| {
        let (service, _) = watched();
        let begun = SystemTime::now();
        let id = service.create_session(create("one")).unwrap().session_id;
        service.unload(id, LONG).unwrap();
        let cold = service.read(id).unwrap().state;
        assert!(cold.created_at + Duration::from_secs(1) > begun && cold.updated_at >= cold.created_at);
        service.resume(id).unwrap();
        let warm = service.read(id).unwrap().state;
        assert_eq!((warm.created_at, warm.updated_at), (cold.created_at, cold.updated_at));
    });
}
