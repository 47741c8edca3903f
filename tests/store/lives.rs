//! C64, C65, C67: numbers continue from life to life, a kept history is not replaced, and an archived session has its
//! own error. Also calls that race for the lease of a record.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::store::{FileStore, PersistentSessionService, SessionStore, StoreError};
use turnwise::{
    agent_fn, builder_fn, AgentError, Message, Overflow, RunResult, Session, SessionAgent, SessionAgentBuilder,
    SessionError, SessionId, SessionQuery, SessionService, SessionSpec, Subscription, TurnContext, TurnId,
};

use crate::support::*;

/// An agent with the given history, which may ignore the history that it should resume.
struct Forgetful(Session);

impl SessionAgent for Forgetful {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.0.push_batch([Message::user(prompt.as_str()), Message::assistant(prompt.as_str())]);
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.0.clone()
    }
}

fn forgetful() -> impl SessionAgentBuilder {
    builder_fn(|_, context| Ok(Forgetful(Session::with_id(context.session_id()))))
}

#[test]
fn c65_an_agent_that_ignores_the_resumed_history_replaces_nothing() {
    run(|| {
        let store = Arc::new(Watched::default());
        let service = PersistentSessionService::new(forgetful(), 2, Arc::clone(&store));
        let id = service.create_session(create("one")).unwrap().session_id;
        for prompt in ["two", "three"] {
            service.start_turn(id, turn(prompt)).unwrap();
        }
        service.unload(id, LONG).unwrap();
        let handle = service.begin_turn(id, turn("four")).unwrap();
        let errors = [
            handle.wait().unwrap_err(),
            service.start_turn(id, turn("four")).unwrap_err(),
            service.resume(id).unwrap_err(),
            service.stream_turn(id, turn("four")).unwrap().wait().unwrap_err(),
        ];
        for error in errors {
            let SessionError::Store { id: Some(of), .. } = &error else { panic!("{error:?}") };
            assert_eq!(*of, id);
            match StoreError::of(&error) {
                Some(StoreError::NotResumed { id: of, kept: 6, has: 0 }) => assert_eq!(*of, id),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(store.load(id).unwrap().unwrap().0.history.messages().len(), 6);
        assert!(!service.is_live(id));
        assert_eq!(service.stats().sessions, 0);
        // A service whose builder resumes the history can run the next turn.
        service.shutdown(LONG);
        let service = PersistentSessionService::new(echo(), 2, Arc::clone(&store));
        assert_eq!(service.start_turn(id, turn("four")).unwrap().text, "four");
        assert_eq!(service.export_session(id).unwrap().messages().len(), 8);
    });
}

#[test]
fn c65_only_a_leading_system_message_may_change() {
    run(|| {
        let begins_with = |messages: Vec<Message>| {
            builder_fn(move |_: &SessionSpec, context: &turnwise::SessionContext| {
                let mut history = Session::with_id(context.session_id());
                history.push_batch(messages.clone());
                Ok(Forgetful(history))
            })
        };
        let [one, answer, other] = [Message::user("one"), Message::assistant("one"), Message::user("other")];
        let system = |text| Message::system(text);
        for (messages, resumes) in [
            (vec![one.clone(), answer.clone()], true),
            (vec![system("new"), one.clone(), answer.clone()], true),
            (vec![one.clone(), answer.clone(), other.clone()], true),
            (vec![one.clone()], false),
            (vec![other.clone(), answer.clone()], false),
            (vec![answer.clone(), one.clone()], false),
            (vec![one.clone(), system("late"), answer.clone()], false),
        ] {
            let store = Arc::new(Watched::default());
            let first = PersistentSessionService::new(forgetful(), 1, Arc::clone(&store));
            let id = first.create_session(create("one")).unwrap().session_id;
            first.shutdown(LONG);
            let service = PersistentSessionService::new(begins_with(messages.clone()), 1, Arc::clone(&store));
            assert_eq!(service.resume(id).is_ok(), resumes, "{messages:?}");
            service.shutdown(LONG);
            assert_eq!(store.load(id).unwrap().unwrap().0.history.messages(), [one.clone(), answer.clone()]);
        }
    });
}

#[test]
fn c65_a_create_from_a_history_that_is_refused_leaves_no_session() {
    run(|| {
        let (store, mut past) = (Arc::new(Watched::default()), Session::new());
        past.push(Message::user("long ago"));
        let service = PersistentSessionService::new(forgetful(), 1, Arc::clone(&store));
        let error = service.open_session(SessionSpec::new().resume(past.clone())).unwrap_err();
        assert!(matches!(StoreError::of(&error), Some(StoreError::NotResumed { kept: 1, has: 0, .. })), "{error}");
        assert!(store.list().unwrap().is_empty());
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c65_rewrites_history_is_kept_with_the_session() {
    run(|| {
        let folder = Folder::new();
        let service = PersistentSessionService::new(forgetful(), 1, folder.store());
        let id = service.open_session(SessionSpec::new().rewrites_history(true)).unwrap();
        for _ in 0..3 {
            service.start_turn(id, turn("x")).unwrap();
            service.unload(id, LONG).unwrap();
        }
        service.shutdown(LONG);
        drop(service);
        // The permission is in the record, so a later process need not repeat it.
        let service = PersistentSessionService::new(forgetful(), 1, folder.store());
        service.start_turn(id, turn("y")).unwrap();
        assert_eq!(said(&service.export_session(id).unwrap()), ["y", "= y"]);
    });
}

#[test]
fn c65_an_agent_whose_history_cannot_be_read_after_the_build_is_refused() {
    run(|| {
        struct Mute;
        impl SessionAgent for Mute {
            fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                Ok(turn.finish(""))
            }
            fn session_clone(&self) -> Session {
                panic!("a secret")
            }
        }
        let store = Arc::new(Watched::default());
        let first = PersistentSessionService::new(echo(), 1, Arc::clone(&store));
        let id = first.create_session(create("one")).unwrap().session_id;
        first.shutdown(LONG);
        let service = PersistentSessionService::new(builder_fn(|_, _| Ok(Mute)), 1, Arc::clone(&store));
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert!(matches!(StoreError::of(&error), Some(StoreError::Failed(_))), "{error}");
        assert!(error.to_string().contains("a secret"), "the caller gets the panic message");
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), ["one", "= one"]);
    });
}

#[test]
fn c64_turn_ids_continue_and_an_old_id_reaches_no_new_turn() {
    run(|| {
        let (service, store, gate, running) = with_deaf_turn();
        let (id, old) = (running.session_id(), running.turn_id());
        gate.let_through(1);
        running.wait().unwrap();
        service.unload(id, LONG).unwrap();
        let next = service.begin_turn(id, turn("two")).unwrap();
        gate.wait_arrived(2);
        assert_eq!(next.turn_id(), TurnId::new(old.get() + 1), "an orderly end leaves no gap");
        assert_eq!(service.interrupt_turn(id, old).unwrap_err().code(), "SESSION_NOT_RUNNING");
        assert_eq!(service.read(id).unwrap().state.turns, next.turn_id().get());
        gate.let_through(1);
        assert_eq!(next.wait().unwrap().text, "two");
        service.unload(id, LONG).unwrap();
        assert_eq!(service.read(id).unwrap().state.turns, 2, "the count is the same while the session is not live");
        assert_eq!(service.list(SessionQuery::new()).unwrap()[0].turns, 2);
        // The number also continues after a resume without a turn in another service.
        service.shutdown(LONG);
        let service = PersistentSessionService::new(echo(), 1, store);
        service.resume(id).unwrap();
        assert_eq!(service.read(id).unwrap().state.turns, 2);
        assert_eq!(service.start_turn(id, turn("three")).unwrap().turn_id, TurnId::new(3));
    });
}

#[test]
fn c64_no_event_number_is_used_twice_over_four_lives() {
    run(|| {
        let folder = Folder::new();
        let mut seen = BTreeSet::new();
        let mut last = 0;
        let mut id = None;
        for life in 0..4 {
            let service = keeping(&folder);
            let all = service.subscribe_all(Subscription::new().capacity(10_000));
            let id = *id.get_or_insert_with(|| service.open_session(SessionSpec::new()).unwrap());
            for prompt in ["one", "fail", "two"] {
                drop(service.start_turn(id, turn(prompt)));
            }
            if life % 2 == 0 {
                service.unload(id, LONG).unwrap();
            }
            service.shutdown(LONG);
            for event in all {
                assert!(seen.insert((event.session_id, event.seq)), "the number {} is used twice", event.seq);
                assert_eq!(event.seq, last + 1, "an orderly end leaves no gap");
                last = event.seq;
            }
        }
        assert_eq!(last, 4 * 6);
    });
}

#[test]
fn c64_a_subscription_from_an_earlier_life_counts_the_events_it_misses() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id; // events 1 and 2
        service.unload(id, LONG).unwrap();
        service.resume(id).unwrap();
        let behind = service.subscribe(id, Subscription::new().from_seq(2)).unwrap();
        assert_eq!(behind.dropped(), 1);
        let next = service.subscribe(id, Subscription::new().from_seq(3)).unwrap();
        assert_eq!(next.dropped(), 0);
        service.start_turn(id, turn("two")).unwrap();
        assert_eq!(next.try_recv().unwrap().seq, 3);
        // The copy of the record is that of a killed process, which has not written its exact numbers. The next life
        // skips the reserved numbers, and does not count them as missed events.
        let reserved = store.load(id).unwrap().unwrap().0.numbers;
        assert!(reserved.events_reserved > 4 && reserved.turns_reserved > 2);
        let copy = Arc::new(Watched::default());
        put(&copy, &store.load(id).unwrap().unwrap().0).unwrap();
        let other = PersistentSessionService::new(echo(), 1, copy);
        other.resume(id).unwrap();
        let after = other.subscribe(id, Subscription::new().from_seq(4)).unwrap();
        assert!(after.dropped() <= 1, "{}", after.dropped());
        let result = other.start_turn(id, turn("three")).unwrap();
        assert_eq!(result.turn_id.get(), reserved.turns_reserved + 1);
        assert_eq!(after.try_recv().unwrap().seq, reserved.events_reserved + 1);
    });
}

#[test]
fn c64_numbers_are_reserved_before_they_are_given_out() {
    run(|| {
        let (service, store) = watched();
        let id = service.open_session(SessionSpec::new()).unwrap();
        let events =
            service.subscribe(id, Subscription::new().capacity(10_000).overflow(Overflow::DropOldest)).unwrap();
        // A failed turn leaves the history as it is. There are more turns than a block has.
        for _ in 0..600 {
            let handle = service.begin_turn(id, turn("fail")).unwrap();
            let reserved = store.load(id).unwrap().unwrap().0.numbers;
            assert!(handle.turn_id().get() <= reserved.turns_reserved);
            handle.wait().unwrap_err();
            while let Ok(event) = events.try_recv() {
                assert!(event.seq <= reserved.events_reserved);
            }
        }
        // While the store fails, no number beyond the block is given out.
        store.fails.store(true, Ordering::SeqCst);
        let refused = loop {
            match service.begin_turn(id, turn("fail")) {
                Ok(turn) => drop(turn.wait()),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.code(), "STORE_FAILED");
        let turns = service.read(id).unwrap().state.turns;
        assert_eq!(turns, store.load(id).unwrap().unwrap().0.numbers.turns_reserved);
        store.fails.store(false, Ordering::SeqCst);
        let next = service.begin_turn(id, turn("x")).unwrap();
        assert_eq!(next.turn_id().get(), turns + 1);
        next.wait().unwrap();
    });
}

#[test]
fn c64_events_beyond_a_block_are_reserved_by_their_emitter() {
    run(|| {
        const MANY: u64 = (1 << 20) + 10;
        let store = Arc::new(Watched::default());
        let agent = agent_fn(|prompt, turn| {
            for _ in 0..MANY {
                turn.emit(turnwise::AgentEvent::TurnStarted { turn_number: 1 })?;
            }
            Ok(turn.finish(prompt))
        });
        let service = PersistentSessionService::new(agent, 1, Arc::clone(&store));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let events = service.subscribe(id, Subscription::new().capacity(1)).unwrap();
        let saves = store.saves.load(Ordering::SeqCst);
        service.start_turn(id, turn("x")).unwrap();
        let last = events.try_recv().unwrap().seq;
        assert_eq!(last, MANY + 2);
        assert!(last <= store.load(id).unwrap().unwrap().0.numbers.events_reserved);
        assert_eq!(store.saves.load(Ordering::SeqCst), saves + 2, "one save for the block, one for the turn");
    });
}

#[test]
fn c64_a_save_reserves_the_numbers_of_events_that_had_no_reservation() {
    run(|| {
        const MANY: usize = (1 << 20) + 10;
        let store = Arc::new(Watched::default());
        let agent = agent_fn(|prompt, turn| {
            for _ in 0..prompt.parse().unwrap_or(MANY) {
                turn.emit(turnwise::AgentEvent::TurnStarted { turn_number: 1 })?;
            }
            Ok(turn.finish(prompt))
        });
        let service = PersistentSessionService::new(agent, 1, Arc::clone(&store));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let events = service.subscribe(id, Subscription::new().capacity(1)).unwrap();
        store.fails.store(true, Ordering::SeqCst);
        service.start_turn(id, turn("all")).unwrap_err();
        store.fails.store(false, Ordering::SeqCst);
        service.start_turn(id, turn("0")).unwrap();
        let seen = events.try_recv().unwrap().seq;
        let numbers = store.load(id).unwrap().unwrap().0.numbers;
        assert!(seen > MANY as u64 && seen <= numbers.events_reserved, "{seen}: {numbers:?}");
    });
}

#[test]
fn c64_impossible_numbers_are_a_damaged_record() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        service.unload(id, LONG).unwrap();
        let sound = store.load(id).unwrap().unwrap().0;
        for figure in [u64::MAX, 1 << 57] {
            let mut damaged = sound.clone();
            damaged.numbers.turns_reserved = figure;
            put(&store, &damaged).unwrap();
            let error = service.start_turn(id, turn("two")).unwrap_err();
            assert!(matches!(StoreError::of(&error), Some(StoreError::Corrupt { .. })), "{error}");
        }
        put(&store, &sound).unwrap();
        service.start_turn(id, turn("two")).unwrap();
    });
}

#[test]
fn c67_an_archived_session_is_archived_and_a_deleted_one_is_not_found() {
    run(|| {
        let (service, _store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        let is_live = |service: &PersistentSessionService<Echo>| {
            service.list(SessionQuery::new()).unwrap().iter().map(|line| line.is_live).collect::<Vec<_>>()
        };
        assert_eq!(is_live(&service), [true]);
        service.unload(id, LONG).unwrap();
        assert_eq!(is_live(&service), [false]);
        service.archive(id).unwrap();
        assert!(!service.list_archived(SessionQuery::new()).unwrap()[0].is_live);
        let all = |id| {
            [
                service.start_turn(id, turn("x")).unwrap_err(),
                service.begin_turn(id, turn("x")).map(drop).unwrap_err(),
                service.interrupt(id).unwrap_err(),
                service.interrupt_turn(id, TurnId::new(1)).unwrap_err(),
                service.interrupt_interaction(id, turnwise::InteractionId::new()).unwrap_err(),
                service.resume(id).unwrap_err(),
                service.take_session(id, LONG).unwrap_err(),
                service.archive(id).unwrap_err(),
                service.subscribe(id, Subscription::new()).map(drop).unwrap_err(),
            ]
        };
        for error in all(id) {
            assert!(matches!(error, SessionError::Archived { id: of } if of == id), "{error:?}");
        }
        service.delete(id).unwrap();
        for gone in [id, SessionId::new()] {
            for error in all(gone) {
                assert!(matches!(error, SessionError::NotFound { id: of } if of == gone), "{error:?}");
            }
        }
    });
}

#[test]
fn c67_a_draining_session_is_already_archived_or_deleted() {
    run(|| {
        for deletes in [false, true] {
            let (service, _store, gate, running) = with_deaf_turn();
            let id = running.session_id();
            let expected = if deletes { "SESSION_NOT_FOUND" } else { "SESSION_ARCHIVED" };
            match deletes {
                true => service.delete(id).unwrap(),
                false => service.archive(id).unwrap(),
            }
            assert_eq!(service.start_turn(id, turn("x")).unwrap_err().code(), expected);
            assert_eq!(service.interrupt(id).unwrap_err().code(), expected);
            gate.open();
            drop(running.wait());
        }
    });
}

#[test]
fn c25_a_page_continues_after_a_cursor_that_was_archived_between_two_pages() {
    run(|| {
        let (service, _store) = watched();
        let ids: Vec<_> = (0..4).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        service.unload(ids[1], LONG).unwrap();
        let page = |after| service.list(SessionQuery::new().after(after)).map(|page| page.len());
        assert_eq!(page(ids[1]).unwrap(), 2);
        for id in [ids[1], ids[2]] {
            service.archive(id).unwrap();
        }
        assert_eq!(page(ids[1]).unwrap(), 1);
        assert_eq!(page(ids[2]).unwrap(), 1);
        service.archive_wait(ids[2], LONG).unwrap();
        assert_eq!(page(ids[2]).unwrap(), 1);
        service.delete(ids[2]).unwrap();
        assert_eq!(page(ids[2]).unwrap_err().code(), "SESSION_NOT_FOUND");
    });
}

/// Each call that looks for a record, with an id that has none, races with a create of that id.
#[test]
fn a_call_about_an_unknown_id_fails_no_concurrent_create_of_that_id() {
    type Call = fn(&PersistentSessionService<Echo>, SessionId);
    let calls: [Call; 6] = [
        |service, id| drop(service.archive(id)),
        |service, id| drop(service.take_session(id, LONG)),
        |service, id| drop(service.delete(id)),
        |service, id| drop(service.archive_wait(id, LONG)),
        |service, id| drop(service.start_turn(id, turn("x"))),
        |service, id| drop(service.resume(id)),
    ];
    run(move || {
        for call in calls {
            let service = PersistentSessionService::new(echo(), 2, FileStore::in_memory().unwrap());
            for round in 0..200 {
                let id = SessionId::new();
                thread::scope(|scope| {
                    let (ready, begun) = bounded::<()>(0);
                    let service = &service;
                    scope.spawn(move || {
                        drop(ready);
                        call(service, id);
                    });
                    begun.recv().unwrap_err();
                    // The other call may have archived or deleted the new session already. But it must not make the
                    // create `AlreadyExists` or `Busy`.
                    if let Err(error) = service.open_session(SessionSpec::new().session_id(id)) {
                        assert!(
                            !["SESSION_ALREADY_EXISTS", "SESSION_BUSY"].contains(&error.code()),
                            "{round}: {error}"
                        );
                    }
                });
                drop(service.delete(id));
                while service.stats().sessions > 0 {
                    thread::yield_now();
                }
            }
        }
    });
}

/// A delete of a session that is not live races with a create of its id: the create finds the session, or succeeds.
#[test]
fn a_create_that_races_with_a_delete_finds_the_session_or_succeeds() {
    run(|| {
        let service = PersistentSessionService::new(echo(), 4, FileStore::in_memory().unwrap());
        for round in 0..200 {
            let id = service.open_session(SessionSpec::new()).unwrap();
            service.unload(id, LONG).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| service.delete(id).unwrap());
                let created = service.open_session(SessionSpec::new().session_id(id));
                match created {
                    Ok(_) => {}
                    Err(SessionError::AlreadyExists { .. } | SessionError::NotFound { .. }) => {}
                    Err(error) => panic!("round {round}: {error:?}"),
                }
            });
            drop(service.delete(id));
            while service.stats().sessions > 0 {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn an_unload_without_time_separates_a_live_session_from_an_ending_one() {
    run(|| {
        let (service, _store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        let error = service.unload(id, Duration::ZERO).unwrap_err();
        assert!(matches!(error, SessionError::Timeout { .. }), "{error:?}");
        assert!(service.is_live(id));
        gate.open();
        running.wait().unwrap();
        loop {
            match service.unload(id, Duration::ZERO) {
                Ok(()) => break,
                Err(SessionError::Timeout { .. }) => {}
                Err(SessionError::Ending { .. }) => assert!(!service.is_live(id)),
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(service.start_turn(id, turn("two")).unwrap().text, "two");
    });
}

/// An agent whose drop waits at a gate.
struct SlowToGo<A>(A, Option<turnwise::testkit::Gate>);

impl<A: SessionAgent> SessionAgent for SlowToGo<A> {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.0.run_turn(prompt, turn)
    }

    fn session_clone(&self) -> Session {
        self.0.session_clone()
    }
}

impl<A> Drop for SlowToGo<A> {
    fn drop(&mut self) {
        if let Some(gate) = &self.1 {
            gate.pass_regardless();
        }
    }
}

/// A turn that takes or archives a session waits for its end, and then for the running permit. Another turn holds the
/// permit and needs the lease of that session. Neither turn may wait for the other for ever.
#[test]
fn a_turn_that_waits_for_a_lease_lends_its_permit_to_the_lease_holder() {
    run(|| {
        for takes in [false, true] {
            let gate = turnwise::testkit::Gate::new();
            let (goes, go) = bounded::<()>(1);
            let (slow, slow_id) = (gate.clone(), SessionId::new());
            let builder = builder_fn(move |spec: &SessionSpec, context: &turnwise::SessionContext| {
                let (service, go) = (context.service(), go.clone());
                let agent = agent_fn(move |prompt, turn| {
                    let service = service.upgrade().expect("the test has a handle");
                    let text = match prompt.as_str() {
                        "ends it" if takes => service.take_session(slow_id, LONG).map(|_| "taken".to_owned())?,
                        "ends it" => service.archive_wait(slow_id, LONG).map(|()| "archived".to_owned())?,
                        "wants it" => {
                            go.recv().unwrap_err();
                            service.start_turn(slow_id, self::turn("x")).unwrap_err().code().to_owned()
                        }
                        _ => prompt,
                    };
                    Ok(turn.finish(text))
                });
                let gate = (spec.session_id == Some(slow_id)).then(|| slow.clone());
                Ok(SlowToGo(agent.build_agent(spec, context)?, gate))
            });
            let config = turnwise::EphemeralSessionService::configure(builder).max_running_turns(1);
            let service = PersistentSessionService::with_config(config, FileStore::in_memory().unwrap()).unwrap();
            let [one, other] = [(); 2].map(|()| service.open_session(SessionSpec::new()).unwrap());
            service.open_session(SessionSpec::new().session_id(slow_id)).unwrap();
            let ending = service.begin_turn(one, turn("ends it")).unwrap();
            gate.wait_arrived(1); // the session ends, and the turn that ends it waits without a permit
            let wanting = service.begin_turn(other, turn("wants it")).unwrap();
            while service.stats().running_turns == 0 {
                thread::yield_now();
            }
            gate.open(); // the session has ended, and the turn that ended it requests a permit
            while service.is_live(slow_id) {
                thread::yield_now();
            }
            drop(goes);
            let code = wanting.wait().unwrap().text;
            assert!(["SESSION_ARCHIVED", "SESSION_BUSY"].contains(&code.as_str()), "{code}");
            assert!(["taken", "archived"].contains(&ending.wait().unwrap().text.as_str()));
        }
    });
}
