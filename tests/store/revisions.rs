//! Revisions of records: several services on one store, saves that are repeated, and what a save is told.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use turnwise::store::{
    Change, FileStore, PersistentSessionService, Save, SessionStore, StoreError, StoredSession, TurnOutcome,
};
use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, EventSource, Message, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionError, SessionId, SessionService, SessionSpec, TurnContext, WhenBusy,
};

use crate::support::*;

fn is_conflict(error: &SessionError) -> bool {
    matches!(StoreError::of(error), Some(StoreError::Conflict { .. }))
}

/// Another service on the same store.
fn beside(store: &Arc<Watched>) -> PersistentSessionService<Echo> {
    PersistentSessionService::new(echo(), 4, Arc::clone(store))
}

fn kept(store: &impl SessionStore, id: SessionId) -> Vec<String> {
    said(&store.load(id).unwrap().unwrap().0.history)
}

#[test]
fn c59_two_services_on_one_store_lose_nothing_and_learn_of_each_other() {
    run(|| {
        let folder = Folder::new();
        let store = Arc::new(folder.store());
        let services = [(); 2].map(|()| PersistentSessionService::new(echo(), 1, Arc::clone(&store)));
        let id = services[0].create_session(create("0")).unwrap().session_id;
        let mut answered = vec!["0".to_owned(), "= 0".to_owned()];
        for n in 1..12 {
            let service = &services[n % 2];
            let prompt = n.to_string();
            if service.is_live(id) {
                // The other service has kept a turn since.
                let error = service.start_turn(id, turn("lost")).unwrap_err();
                assert!(is_conflict(&error), "{error}");
                assert!(matches!(&error, SessionError::Store { id: Some(about), .. } if *about == id), "{error:?}");
                assert!(!service.is_live(id));
                assert_eq!(service.stats().sessions, 0, "its place has come back");
            }
            assert_eq!(service.start_turn(id, turn(&prompt)).unwrap().text, prompt);
            answered.extend([prompt.clone(), format!("= {prompt}")]);
            assert_eq!(kept(&store, id), answered);
        }
        services.iter().for_each(|service| drop(service.shutdown(LONG)));
        assert_eq!(kept(&store, id), answered, "nothing is saved at the end of a session that is out of date");
    });
}

#[test]
fn c59_queued_turns_fail_with_the_conflict_and_the_next_turn_loads() {
    run(|| {
        let (store, gate) = (Arc::new(Watched::default()), Gate::new());
        let agent = {
            let gate = gate.clone();
            agent_fn(move |prompt, turn| {
                if prompt == "held" {
                    gate.pass(turn.cancel_token())?;
                }
                Ok(turn.finish(prompt))
            })
        };
        let service = PersistentSessionService::new(agent, 1, Arc::clone(&store));
        let id = service.create_session(create("one")).unwrap().session_id;
        let running = service.begin_turn(id, turn("held")).unwrap();
        gate.wait_arrived(1);
        let queued = [(); 2].map(|()| service.begin_turn(id, turn("queued").when_busy(WhenBusy::Queue)).unwrap());
        beside(&store).start_turn(id, turn("two")).unwrap();
        gate.open();
        for turn in std::iter::once(running).chain(queued) {
            let error = turn.wait().unwrap_err();
            assert!(is_conflict(&error), "{error}");
            assert!(!service.is_live(id), "every turn is answered after the end of the session");
        }
        assert_eq!(service.start_turn(id, turn("three")).unwrap().text, "three");
        assert_eq!(kept(&*store, id), ["one", "= one", "two", "= two", "three", "= three"]);
    });
}

#[test]
fn c59_an_archive_of_a_changed_record_archives_what_is_kept() {
    run(|| {
        for mode in [ArchiveMode::Drain, ArchiveMode::Interrupt] {
            let (service, store) = watched();
            let id = service.create_session(create("one")).unwrap().session_id;
            let other = beside(&store);
            other.start_turn(id, turn("two")).unwrap();
            service.archive_with(id, mode).unwrap();
            service.archive_wait(id, LONG).unwrap();
            assert!(store.load(id).unwrap().unwrap().0.archived);
            assert_eq!(kept(&*store, id), ["one", "= one", "two", "= two"]);
            assert!(is_conflict(&other.start_turn(id, turn("three")).unwrap_err()));
            assert_eq!(other.start_turn(id, turn("three")).unwrap_err().code(), "SESSION_ARCHIVED");
        }
    });
}

#[test]
fn c59_labels_of_a_changed_record_are_set_on_what_is_kept() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        beside(&store).start_turn(id, turn("two")).unwrap();
        let labels = [("user".to_owned(), "ada".to_owned())].into();
        service.set_labels(id, labels).unwrap();
        let (stored, _) = store.load(id).unwrap().unwrap();
        assert_eq!((stored.labels["user"].as_str(), stored.history.iter().len()), ("ada", 4));
        // The session was out of date, and ends without a turn.
        while service.stats().sessions > 0 {
            std::thread::yield_now();
        }
        assert_eq!(service.start_turn(id, turn("three")).unwrap().text, "three");
        assert_eq!(kept(&*store, id), ["one", "= one", "two", "= two", "three", "= three"]);
    });
}

#[test]
fn c59_a_take_of_a_changed_record_returns_what_is_kept() {
    run(|| {
        for is_live in [true, false] {
            let (service, store) = watched();
            let id = service.create_session(create("one")).unwrap().session_id;
            if !is_live {
                service.unload(id, LONG).unwrap();
            }
            beside(&store).start_turn(id, turn("two")).unwrap();
            assert_eq!(said(&service.take_session(id, LONG).unwrap()), ["one", "= one", "two", "= two"]);
            assert!(store.load(id).unwrap().unwrap().0.archived);
        }
    });
}

#[test]
fn c59_a_deleted_record_is_a_conflict_and_then_not_found() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        beside(&store).delete(id).unwrap();
        assert!(is_conflict(&service.start_turn(id, turn("two")).unwrap_err()));
        assert_eq!(service.start_turn(id, turn("two")).unwrap_err().code(), "SESSION_NOT_FOUND");
        service.shutdown(LONG);
        assert!(store.list().unwrap().is_empty());
    });
}

#[test]
fn c59_an_interaction_whose_save_conflicts_ends_host_mode_with_the_error() {
    run(|| {
        let (service, store) = watched();
        let hosting = service.begin_session(create("one").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        let ping = || injector.inject_with_subscription("ping".into(), EventSource::Tcp).unwrap();
        assert_eq!(ping().events.iter().count(), 1);
        let other = beside(&store);
        other.start_turn(id, turn("two")).unwrap();
        drop(ping());
        assert!(is_conflict(&hosting.wait().unwrap_err()));
        assert!(!service.is_live(id));
        service.shutdown(LONG);
        assert_eq!(kept(&*store, id), ["one", "= one", "ping", "= ping", "two", "= two"]);
    });
}

#[test]
fn c59_a_conflict_at_the_reservation_of_numbers_ends_the_session() {
    run(|| {
        let (service, store) = watched();
        let id = service.open_session(SessionSpec::new()).unwrap();
        // Up to the end of the block: the next admission has to reserve.
        while service.read(id).unwrap().state.turns < store.load(id).unwrap().unwrap().0.numbers.turns_reserved {
            service.start_turn(id, turn("fail")).unwrap_err();
        }
        beside(&store).start_turn(id, turn("one")).unwrap();
        assert!(is_conflict(&service.start_turn(id, turn("two")).unwrap_err()));
        // The session ends by itself, without a turn.
        while service.stats().sessions > 0 {
            std::thread::yield_now();
        }
        assert_eq!(service.start_turn(id, turn("two")).unwrap().text, "two");
        assert_eq!(kept(&*store, id), ["one", "= one", "two", "= two"]);
    });
}

#[test]
fn c59_a_session_that_another_service_creates_meanwhile_stays_its_own() {
    run(|| {
        let (service, store) = watched();
        let (id, gate) = (SessionId::new(), Gate::new());
        let slow = PersistentSessionService::new(held_builds(&gate), 1, Arc::clone(&store));
        let spec = || SessionSpec::new().session_id(id);
        std::thread::scope(|scope| {
            let late = scope.spawn(|| slow.create_session(create("late").session(spec())));
            gate.wait_arrived(1);
            service.create_session(create("one").session(spec())).unwrap();
            gate.open();
            assert!(
                matches!(late.join().unwrap().unwrap_err(), SessionError::AlreadyExists { id: taken } if taken == id)
            );
        });
        assert_eq!(slow.stats().sessions, 0);
        assert_eq!(service.start_turn(id, turn("two")).unwrap().text, "two");
        assert_eq!(kept(&*store, id), ["one", "= one", "two", "= two"]);
    });
}

#[test]
fn c59_a_save_that_was_written_and_failed_does_not_conflict_with_the_next() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.lies.store(true, Ordering::SeqCst);
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert!(matches!(StoreError::of(&error), Some(StoreError::Failed(_))), "{error}");
        assert_eq!(kept(&*store, id).len(), 4);
        store.lies.store(false, Ordering::SeqCst);
        service.start_turn(id, turn("three")).unwrap();
        assert_eq!(kept(&*store, id), ["one", "= one", "two", "= two", "three", "= three"]);
        // The repeat of the save, and the save of the turn: each tells the end of its own turn.
        let told = store.told.lock().unwrap();
        let ends: Vec<_> = told.iter().rev().take(3).map(|(end, added)| (end.unwrap().turn_id.get(), *added)).collect();
        assert_eq!(ends, [(3, Some(2)), (2, Some(2)), (2, Some(2))]);
    });
}

#[test]
fn c59_a_failed_save_that_another_writer_overtook_is_a_conflict() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.fails.store(true, Ordering::SeqCst);
        service.start_turn(id, turn("two")).unwrap_err();
        store.fails.store(false, Ordering::SeqCst);
        beside(&store).start_turn(id, turn("other")).unwrap();
        assert!(is_conflict(&service.unload(id, LONG).unwrap_err()));
        while service.is_live(id) {
            std::thread::yield_now();
        }
        service.shutdown(LONG);
        assert_eq!(kept(&*store, id), ["one", "= one", "other", "= other"]);
    });
}

#[test]
fn c59_the_store_is_told_the_end_of_every_turn_that_ran() {
    run(|| {
        let (store, gate) = (Arc::new(Watched::default()), Gate::new());
        let agent = {
            let gate = gate.clone();
            agent_fn(move |prompt, turn| match prompt.as_str() {
                "fail" => Err(AgentError::Config("told to".into())),
                "call" => Err(AgentError::CallbackPending { tool_name: "clock".into(), args: "{}".into() }),
                "panic" => panic!("told to"),
                "wait" => Err(gate.pass(turn.cancel_token()).unwrap_err().into()),
                _ => Ok(turn.finish(prompt)),
            })
        };
        let service = PersistentSessionService::new(agent, 1, Arc::clone(&store));
        let id = service.open_session(SessionSpec::new()).unwrap();
        store.told.lock().unwrap().clear();
        let _ = service.start_turn(id, turn("one")).unwrap();
        service.start_turn(id, turn("fail")).unwrap_err();
        service.start_turn(id, turn("call")).unwrap_err();
        let waiting = service.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(1);
        waiting.interrupt();
        waiting.wait().unwrap_err();
        service.start_turn(id, turn("panic")).unwrap_err();
        let told: Vec<_> = store.told.lock().unwrap().iter().map(|(end, added)| (end.unwrap(), *added)).collect();
        let told: Vec<_> = told.into_iter().map(|(end, added)| (end.turn_id.get(), end.outcome, added)).collect();
        use TurnOutcome::*;
        assert_eq!(
            told,
            [
                (1, Completed, Some(2)),
                (2, Failed, Some(0)),
                (3, CallbackPending, Some(0)),
                (4, Cancelled, Some(0)),
                (5, Faulted, Some(0)),
            ]
        );
    });
}

/// An agent whose prompts change its history in several ways.
struct Editor(Session);

impl SessionAgent for Editor {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        match prompt.as_str() {
            "pop" => drop(self.0.messages_mut().pop()),
            "compact" => drop(self.0.messages_mut().drain(1..)),
            "usage" => self.0.record_usage(turnwise::Usage { input_tokens: 1, ..Default::default() }),
            _ => self.0.push(Message::user(prompt.as_str())),
        }
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.0.clone()
    }
}

fn editor() -> impl SessionAgentBuilder {
    builder_fn(|spec: &SessionSpec, _: &SessionContext| Ok(Editor(spec.history())))
}

#[test]
fn c66_a_save_is_told_what_was_added_and_what_was_rewritten() {
    run(|| {
        let store = Arc::new(Watched::default());
        let service = PersistentSessionService::new(editor(), 1, Arc::clone(&store));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let added_by = |prompt: &str| {
            service.start_turn(id, turn(prompt)).unwrap();
            store.told.lock().unwrap().last().unwrap().1
        };
        assert_eq!(added_by("one"), Some(1));
        assert_eq!(added_by("two"), Some(1));
        assert_eq!(added_by("usage"), Some(0), "a save of usage alone adds no message");
        assert_eq!(added_by("pop"), None, "a roll-back rewrites");
        assert_eq!(added_by("three"), Some(1), "the rewritten history grows again");
        assert_eq!(added_by("four"), Some(1));
        assert_eq!(added_by("compact"), None);
        // A share that a host holds makes no turn a rewrite.
        let export = service.export_session(id).unwrap();
        assert_eq!(added_by("five"), Some(1));
        service.unload(id, LONG).unwrap();
        assert_eq!(added_by("six"), Some(1), "a resumed history grows from the stored one");
        assert_eq!(said(&export), ["one"]);
        assert_eq!(kept(&*store, id), ["one", "five", "six"]);
        assert_eq!(store.load(id).unwrap().unwrap().0.history.usage().input_tokens, 1);
    });
}

/// The same changes in a file, in memory, and in a file that is opened again now and then.
#[test]
fn c66_appends_and_rewrites_in_a_file_are_those_in_memory() {
    run(|| {
        let folder = Folder::new();
        check_random_saves(folder.store(), |store| {
            drop(store);
            folder.store()
        });
    });
}

#[test]
fn c66_a_file_is_at_most_three_times_its_text() {
    run(|| {
        // Few long messages, so that the file is large beside what an empty one has.
        for (turns, len) in [(200, 20_000), (800, 5_000), (1_500, 2_700)] {
            let folder = Folder::new();
            let store = folder.store();
            let mut session = StoredSession::new(Session::new());
            let mut seen = None;
            for _ in 0..turns {
                let added = [Message::user("x".repeat(len))];
                session.history.push_batch(added.clone());
                let header = session.header();
                let save = Save::new(&header, Change::Appended(&added), seen);
                store.save(&save).unwrap();
                seen = Some(save.next);
            }
            drop(store);
            let (size, text) = (std::fs::metadata(folder.file()).unwrap().len(), (turns * len) as u64);
            assert!(size <= 3 * text, "{size} bytes for {text} bytes of text in {turns} messages");
        }
    });
}

#[test]
fn an_append_to_another_number_of_messages_is_damage() {
    let store = FileStore::in_memory().unwrap();
    let mut session = StoredSession::new(Session::new());
    session.history.push(Message::user("one"));
    let header = session.header();
    let first = Save::new(&header, Change::Rewritten(&session.history), None);
    store.save(&first).unwrap();
    // The header says that there is one message still.
    let added = [Message::user("two")];
    let wrong = Save::new(&header, Change::Appended(&added), Some(first.next));
    assert_eq!(store.save(&wrong).unwrap_err().code(), "STORE_RECORD_CORRUPT");
    assert_eq!(store.load(session.id()).unwrap(), Some((session.clone(), first.next)));
}
