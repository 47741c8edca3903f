//! The lives of kept sessions: resume, unload, archive, take, delete, list.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::store::{PersistentSessionService, SessionStore, StoreError};
use turnwise::testkit::{scripted, Gate, Recorder, Script};
use turnwise::{
    builder_fn, AgentError, ArchiveMode, EphemeralSessionService, InteractionContent, RunResult, ServiceControl,
    Session, SessionAgent, SessionError, SessionId, SessionQuery, SessionService, SessionSpec, SessionState,
    Subscription, TurnContext,
};

use crate::support::*;

#[test]
fn a_session_continues_in_the_next_service() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let spec = SessionSpec::new().model("large").system_prompt("be kind").max_tokens(7).label("user", "ada");
        let id = service.create_session(create("one").session(spec)).unwrap().session_id;
        let before = service.read(id).unwrap();
        assert!(service.shutdown(LONG).stuck.is_empty());
        drop(service);

        let seen = Arc::new(Mutex::new(None));
        let builder = {
            let seen = Arc::clone(&seen);
            builder_fn(move |spec, context| {
                *seen.lock().unwrap() = Some(spec.clone());
                turnwise::SessionAgentBuilder::build_agent(&echo(), spec, context)
            })
        };
        let service = PersistentSessionService::new(builder, 4, folder.store());
        assert!(!service.is_live(id));
        let cold = service.read(id).unwrap();
        assert_eq!(cold.billing, before.billing);
        assert_eq!(cold.state.message_count, 3);
        assert_eq!(cold.state.last_assistant_text.as_deref(), Some("one"));
        assert_eq!(cold.state.state, SessionState::Idle);

        assert_eq!(service.start_turn(id, turn("two")).unwrap().text, "two");
        assert!(service.is_live(id));
        let spec = seen.lock().unwrap().take().unwrap();
        assert_eq!((spec.model.as_str(), spec.system_prompt.as_deref()), ("large", Some("be kind")));
        assert_eq!((spec.max_tokens, spec.labels["user"].as_str()), (Some(7), "ada"));
        assert_eq!(spec.resume.unwrap().messages().len(), 3);
        let listed = service.list(SessionQuery::new().label("user", "ada")).unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].created_at, before.state.created_at);
        assert_eq!(said(&service.export_session(id).unwrap()), ["be kind", "one", "= one", "two", "= two"]);
    });
}

#[test]
fn a_seeded_id_that_is_kept_already_is_refused() {
    run(|| {
        let store = Arc::new(Watched::default());
        let seeded = || {
            let config = EphemeralSessionService::configure(echo()).ids(turnwise::testkit::SeededIds::new(1));
            PersistentSessionService::with_config(config, Arc::clone(&store)).unwrap()
        };
        let id = seeded().create_session(create("one")).unwrap().session_id;
        let error = seeded().create_session(create("other")).unwrap_err();
        assert_eq!((error.code(), error.session_id()), ("SESSION_ALREADY_EXISTS", Some(id)));
        assert_eq!(said(&store.load(id).unwrap().unwrap().history), ["one", "= one"]);
    });
}

#[test]
fn after_a_shutdown_no_session_is_created_with_any_id() {
    run(|| {
        let (service, _store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        service.shutdown(LONG);
        let again = create("again").session(SessionSpec::new().session_id(id));
        assert_eq!(service.create_session(again).unwrap_err().code(), "SHUTTING_DOWN");
        assert_eq!(service.open_session(SessionSpec::new()).unwrap_err().code(), "SHUTTING_DOWN");
    });
}

#[test]
fn a_session_archived_during_its_open_stays_readable() {
    run(|| {
        let (store, gate) = (Arc::new(Watched::default()), Gate::new());
        let service = PersistentSessionService::new(held_builds(&gate), 1, Arc::clone(&store));
        let id = SessionId::new();
        std::thread::scope(|scope| {
            let opening = scope.spawn(|| service.open_session(SessionSpec::new().session_id(id)));
            gate.wait_arrived(1);
            service.archive(id).unwrap();
            gate.open();
            assert_eq!(opening.join().unwrap().unwrap_err().code(), "SESSION_NOT_FOUND");
        });
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Archived);
    });
}

#[test]
fn an_archived_session_stays_readable_and_runs_no_turn() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let id = service.create_session(create("one")).unwrap().session_id;
        let other = service.create_session(create("other")).unwrap().session_id;
        service.archive(id).unwrap();
        let mut first = Some(service);
        for _ in 0..2 {
            // In the second service the session has never been live.
            let service = first.take().unwrap_or_else(|| keeping(&folder));
            let view = service.read(id).unwrap();
            assert_eq!((view.state.state, view.state.is_active), (SessionState::Archived, false));
            assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one"]);
            assert_eq!(said(&service.export_session_timeout(id, LONG).unwrap()), ["one", "= one"]);
            for error in [
                service.archive(id).unwrap_err(),
                service.take_session(id, LONG).unwrap_err(),
                service.resume(id).unwrap_err(),
                service.interrupt(id).unwrap_err(),
            ] {
                assert_eq!(error.code(), "SESSION_ARCHIVED");
            }
            assert_eq!(service.subscribe(id, Subscription::new()).unwrap_err().code(), "SESSION_ARCHIVED");
            service.archive_wait(id, LONG).unwrap();
            let ids = |list: Vec<turnwise::SessionSummary>| list.iter().map(|line| line.session_id).collect::<Vec<_>>();
            assert_eq!(ids(service.list(SessionQuery::new()).unwrap()), [other]);
            assert_eq!(ids(service.list_archived(SessionQuery::new()).unwrap()), [id]);
            let again = create("again").session(SessionSpec::new().session_id(id));
            assert_eq!(service.create_session(again).unwrap_err().code(), "SESSION_ALREADY_EXISTS");
            assert_eq!(service.start_turn(id, turn("more")).unwrap_err().code(), "SESSION_ARCHIVED");
            service.shutdown(LONG);
        }
    });
}

#[test]
fn a_session_that_is_not_live_can_be_archived_and_taken() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let [one, two] = ["one", "two"].map(|prompt| service.create_session(create(prompt)).unwrap().session_id);
        service.shutdown(LONG);
        drop(service);
        let service = keeping(&folder);
        service.archive(one).unwrap();
        assert_eq!(said(&service.take_session(two, LONG).unwrap()), ["two", "= two"]);
        assert!(service.list(SessionQuery::new()).unwrap().is_empty());
        assert_eq!(service.list_archived(SessionQuery::new()).unwrap().len(), 2);
        assert_eq!(service.stats().sessions_created, 0, "no agent was built");
        let unknown = SessionId::new();
        for error in [
            service.archive(unknown).unwrap_err(),
            service.archive_wait(unknown, LONG).unwrap_err(),
            service.take_session(unknown, LONG).unwrap_err(),
            service.delete(unknown).unwrap_err(),
            service.unload(unknown, LONG).unwrap_err(),
            service.resume(unknown).unwrap_err(),
            service.read(unknown).unwrap_err(),
            service.export_session(unknown).unwrap_err(),
            service.interrupt(unknown).unwrap_err(),
            service.start_turn(unknown, turn("x")).unwrap_err(),
            service.list(SessionQuery::new().after(unknown)).unwrap_err(),
        ] {
            assert_eq!(error.code(), "SESSION_NOT_FOUND");
        }
    });
}

#[test]
fn an_unloaded_session_frees_its_capacity_and_can_be_resumed() {
    run(|| {
        let folder = Folder::new();
        let service = PersistentSessionService::new(echo(), 1, folder.store());
        let one = service.create_session(create("one")).unwrap().session_id;
        assert_eq!(service.create_session(create("two")).unwrap_err().code(), "CAPACITY_EXCEEDED");
        service.unload(one, LONG).unwrap();
        service.unload(one, LONG).unwrap();
        assert!(!service.is_live(one));
        assert_eq!(service.interrupt(one).unwrap_err().code(), "SESSION_NOT_RUNNING");
        assert_eq!(service.interrupt(SessionId::new()).unwrap_err().code(), "SESSION_NOT_FOUND");
        assert_eq!(service.stats().sessions, 0);
        let two = service.create_session(create("two")).unwrap().session_id;
        assert_eq!(service.start_turn(one, turn("more")).unwrap_err().code(), "CAPACITY_EXCEEDED");
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 2);
        service.unload(two, LONG).unwrap();
        assert_eq!(service.start_turn(one, turn("more")).unwrap().text, "more");
        assert_eq!(said(&service.export_session(one).unwrap()), ["one", "= one", "more", "= more"]);
    });
}

#[test]
fn a_session_that_is_being_resumed_is_busy_for_a_second_resume() {
    run(|| {
        let (first, store) = watched();
        let id = first.create_session(create("one")).unwrap().session_id;
        first.shutdown(LONG);
        let gate = Gate::new();
        let service = PersistentSessionService::new(held_builds(&gate), 1, store);
        std::thread::scope(|scope| {
            let resuming = scope.spawn(|| service.resume(id));
            gate.wait_arrived(1);
            assert_eq!(service.resume(id).unwrap_err().code(), "SESSION_BUSY");
            gate.open();
            resuming.join().unwrap().unwrap();
        });
        service.resume(id).unwrap();
    });
}

#[test]
fn a_faulted_session_resumes_from_the_turn_before() {
    run(|| {
        let (service, _store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        service.start_turn(id, turn("panic")).unwrap_err();
        assert_eq!(service.start_turn(id, turn("two")).unwrap_err().code(), "SESSION_FAULTED");
        service.unload(id, LONG).unwrap();
        service.start_turn(id, turn("two")).unwrap();
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one", "two", "= two"]);
    });
}

#[test]
fn a_resumed_session_has_subscriptions_receivers_and_streams() {
    run(|| {
        let (service, _store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        service.unload(id, LONG).unwrap();
        assert_eq!(service.subscribe(id, Subscription::new()).unwrap_err().code(), "SESSION_NOT_FOUND");
        assert!(service.event_injector(id).is_none());
        service.resume(id).unwrap();
        service.resume(id).unwrap();
        let _stream = service.subscribe(id, Subscription::new()).unwrap();
        service.unload(id, LONG).unwrap();

        let (event_tx, mut events) = Recorder::of_turn();
        service.start_turn(id, turn("two").event_tx(event_tx)).unwrap();
        // The receiver is disconnected, so no copy of the request is left after the call.
        events.assert_events(&["RunStarted(two)", "RunCompleted(two)"]);
        service.unload(id, LONG).unwrap();
        let mut stream = service.stream_turn(id, turn("three")).unwrap();
        assert_eq!(stream.by_ref().count(), 2);
        assert_eq!(stream.wait().unwrap().text, "three");
        service.unload(id, LONG).unwrap();
        let mut heard = 0;
        service.start_turn_with(id, turn("four"), &mut |_| heard += 1).unwrap();
        assert_eq!(heard, 2);
    });
}

#[test]
fn the_id_of_a_kept_session_is_taken() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        let history = service.export_session(id).unwrap();
        let same = || create("again").session(SessionSpec::new().resume(history.clone()));
        assert_eq!(service.create_session(same()).unwrap_err().code(), "SESSION_ALREADY_EXISTS");
        service.unload(id, LONG).unwrap();
        assert_eq!(service.create_session(same()).unwrap_err().code(), "SESSION_ALREADY_EXISTS");
        assert_eq!(said(&store.load(id).unwrap().unwrap().history), ["one", "= one"]);
        // A fork of the history has an id of its own.
        let fork = create("again").session(SessionSpec::new().resume(history.fork()));
        assert_ne!(service.create_session(fork).unwrap().session_id, id);
        service.delete(id).unwrap();
        assert_eq!(service.create_session(same()).unwrap().session_id, id);
    });
}

#[test]
fn a_session_deleted_during_a_turn_stays_deleted() {
    run(|| {
        let (service, store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        service.delete(id).unwrap();
        assert_eq!(service.delete(id).unwrap_err().code(), "SESSION_NOT_FOUND");
        gate.open();
        assert_eq!(running.wait().unwrap().text, "one");
        assert!(service.shutdown(LONG).stuck.is_empty());
        assert!(store.list().unwrap().is_empty());
        assert_eq!(service.read(id).unwrap_err().code(), "SESSION_NOT_FOUND");
    });
}

#[test]
fn the_extension_reaches_the_builder_of_a_new_session() {
    run(|| {
        let builder = builder_fn(|spec, context| {
            let word = *spec.extension_as::<&'static str>().unwrap_or(&"none");
            let mut history = Session::with_id(context.session_id());
            history.set_metadata("extension", word);
            Ok(Kept(history))
        });
        struct Kept(Session);
        impl SessionAgent for Kept {
            fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                Ok(turn.finish(self.0.metadata()["extension"].as_str()))
            }
            fn session_clone(&self) -> Session {
                self.0.clone()
            }
        }
        let service = PersistentSessionService::new(builder, 1, Arc::new(Watched::default()));
        let spec = SessionSpec::new().extension(Arc::new("here"));
        assert_eq!(service.create_session(create("").session(spec)).unwrap().text, "here");
    });
}

#[test]
fn agents_find_the_persistent_service() {
    run(|| {
        let store = Arc::new(Watched::default());
        let builder = builder_fn(|spec, context| {
            let (service, history) = (context.service(), spec.resume.clone());
            Ok(Parent(history.unwrap_or_else(|| Session::with_id(context.session_id())), service))
        });
        struct Parent(Session, turnwise::WeakService);
        impl SessionAgent for Parent {
            fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                let service = self.1.upgrade().ok_or_else(|| AgentError::Internal("gone".into()))?;
                match prompt.split_once(' ') {
                    Some(("ask", id)) => {
                        let id = id.parse().map_err(AgentError::other)?;
                        Ok(turn.finish(service.start_turn(id, crate::support::turn("hello"))?.text))
                    }
                    Some(("archive", "self")) => {
                        service.archive(turn.session_id())?;
                        Ok(turn.finish("archived"))
                    }
                    Some(("wait", "self")) => match service.archive_wait(turn.session_id(), LONG) {
                        Err(SessionError::Reentrant { .. }) => Ok(turn.finish("reentrant")),
                        other => Err(AgentError::Internal(format!("{other:?}"))),
                    },
                    Some(("start", "self")) => match service.start_turn(turn.session_id(), crate::support::turn("x")) {
                        Err(SessionError::Reentrant { .. }) => Ok(turn.finish("reentrant")),
                        other => Err(AgentError::Internal(format!("{other:?}"))),
                    },
                    _ => Ok(turn.finish(prompt)),
                }
            }
            fn session_clone(&self) -> Session {
                self.0.clone()
            }
        }
        let service = PersistentSessionService::new(builder, 4, Arc::clone(&store));
        let cold = service.create_session(create("sub-agent")).unwrap().session_id;
        service.unload(cold, LONG).unwrap();
        let parent = service.create_session(create(&format!("ask {cold}"))).unwrap();
        assert_eq!(parent.text, "hello");
        let id = parent.session_id;
        let saves = store.saves.load(Ordering::SeqCst);
        assert_eq!(service.start_turn(id, turn("wait self")).unwrap().text, "reentrant");
        assert_eq!(store.saves.load(Ordering::SeqCst), saves, "the refused wait did not archive the session");
        assert!(!store.load(id).unwrap().unwrap().archived);
        assert_eq!(service.start_turn(id, turn("start self")).unwrap().text, "reentrant");
        assert_eq!(service.start_turn(id, turn("archive self")).unwrap().text, "archived");
        assert!(store.load(id).unwrap().unwrap().archived);
        let weak = service.downgrade();
        drop(service);
        assert!(weak.upgrade().is_none());
    });
}

#[test]
fn a_list_has_all_sessions_in_the_order_of_their_conversations() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let ids: Vec<SessionId> =
            (0..4).map(|n| service.create_session(create(&n.to_string())).unwrap().session_id).collect();
        service.unload(ids[0], LONG).unwrap();
        service.unload(ids[2], LONG).unwrap();
        let list =
            |query| -> Vec<SessionId> { service.list(query).unwrap().iter().map(|line| line.session_id).collect() };
        assert_eq!(list(SessionQuery::new()), ids);
        assert_eq!(list(SessionQuery::new().limit(2)), ids[..2]);
        assert_eq!(list(SessionQuery::new().after(ids[1])), ids[2..]);
        assert_eq!(list(SessionQuery::new().after(ids[0]).offset(1).limit(1)), ids[2..3]);
        service.resume(ids[0]).unwrap();
        assert_eq!(list(SessionQuery::new()), ids);
        assert!(service.list(SessionQuery::new().label("user", "ada")).unwrap().is_empty());
    });
}

#[test]
fn both_services_behave_alike_behind_service_control() {
    run(|| {
        let store = Arc::new(Watched::default());
        let config = EphemeralSessionService::configure(echo()).max_sessions(1).max_running_turns(1);
        let kept = PersistentSessionService::with_config(config, store).unwrap();
        let config = EphemeralSessionService::configure(echo()).stack_size(1);
        assert!(PersistentSessionService::with_config(config, Arc::new(Watched::default())).is_err());
        let services: [Box<dyn ServiceControl>; 2] =
            [Box::new(EphemeralSessionService::new(echo(), 1)), Box::new(kept.clone())];
        for service in services {
            let id = service.open_session(SessionSpec::new()).unwrap();
            assert_eq!(service.start_turn(id, turn("x")).unwrap().text, "x");
            assert_eq!(service.read(id).unwrap().state.turns, 1);
            assert!(service.shutdown(LONG).stuck.is_empty());
            assert_eq!(service.start_turn(id, turn("y")).unwrap_err().code(), "SHUTTING_DOWN");
        }
        assert_eq!(kept.list(SessionQuery::new()).unwrap().len(), 1, "a kept session can be listed after the shutdown");
    });
}

#[test]
fn an_interrupted_opening_leaves_no_session() {
    run(|| {
        let store = Arc::new(Watched::default());
        let gate = Gate::new();
        // The parent opens the child. The child's build waits at the gate and ignores its cancel token.
        let builder = {
            let gate = gate.clone();
            builder_fn(move |spec, context| {
                if spec.model == "child" {
                    gate.pass_regardless();
                }
                Ok(Opens(Session::with_id(context.session_id()), context.service()))
            })
        };
        struct Opens(Session, turnwise::WeakService);
        impl SessionAgent for Opens {
            fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                let service = self.1.upgrade().ok_or_else(|| AgentError::Internal("gone".into()))?;
                service.open_session(SessionSpec::new().model("child"))?;
                Ok(turn.finish("opened"))
            }
            fn session_clone(&self) -> Session {
                self.0.clone()
            }
        }
        let service = PersistentSessionService::new(builder, 4, Arc::clone(&store));
        let parent = service.begin_session(create("open")).unwrap();
        gate.wait_arrived(1);
        parent.interrupt();
        let id = parent.session_id();
        assert!(parent.wait().unwrap_err().cancel_reason().is_some());
        gate.open();
        assert!(service.shutdown(LONG).stuck.is_empty());
        assert_eq!(store.list().unwrap(), [id]);
    });
}

#[test]
fn c53_a_kept_session_that_is_not_live_is_idle() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let id = service.create_session(create("one")).unwrap().session_id;
        service.wait_idle(id, LONG).unwrap();
        service.unload(id, LONG).unwrap();
        service.wait_idle(id, LONG).unwrap();
        // It was not resumed for that.
        assert!(!service.is_live(id));
        service.archive(id).unwrap();
        assert!(matches!(service.wait_idle(id, LONG), Err(SessionError::Archived { id: is }) if is == id));
        service.delete(id).unwrap();
        assert!(matches!(service.wait_idle(id, LONG), Err(SessionError::NotFound { .. })));
    });
}

#[test]
fn c62_a_sub_session_of_a_kept_session_stays_archived() {
    run(|| {
        let folder = Folder::new();
        let agent = turnwise::agent_fn(|prompt, turn| {
            match prompt.as_str() {
                "parent" => {
                    let child = turn.sub_session(create("child"))?;
                    let id = child.session_id();
                    assert_eq!(child.wait()?.text, "child");
                    turn.sub_session(create("sleep"))?.close(LONG)?;
                    std::mem::forget(turn.sub_session(create("sleep"))?);
                    return Ok(turn.finish(id.to_string()));
                }
                "sleep" => turn.sleep(LONG)?,
                _ => {}
            }
            Ok(turn.finish(prompt))
        });
        let config = EphemeralSessionService::configure(agent).max_running_turns(1);
        let service = PersistentSessionService::with_config(config, folder.store()).unwrap();
        let parent = service.create_session(create("parent")).unwrap();
        let child: SessionId = parent.text.parse().unwrap();
        // Its parent's service is the one that keeps sessions.
        let listed: Vec<_> = service.list(SessionQuery::new()).unwrap().iter().map(|one| one.session_id).collect();
        assert_eq!(listed, [parent.session_id]);
        assert_eq!(service.read(child).unwrap().state.state, SessionState::Archived);
        assert!(matches!(service.start_turn(child, turn("more")), Err(SessionError::Archived { .. })));
        assert_eq!(service.list_archived(SessionQuery::new()).unwrap().len(), 3);
    });
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn c25_labels_of_stored_sessions_can_be_replaced() {
    run(|| {
        let (service, store) = watched();
        let live =
            service.create_session(create("hello").session(SessionSpec::new().model("small"))).unwrap().session_id;
        let cold = service.create_session(create("hello")).unwrap().session_id;
        service.unload(cold, LONG).unwrap();
        for id in [live, cold] {
            service.set_labels(id, labels(&[("topic", "maps")])).unwrap();
            assert_eq!(service.read(id).unwrap().labels["topic"], "maps");
            assert_eq!(store.load(id).unwrap().unwrap().labels, labels(&[("topic", "maps")]));
        }
        assert_eq!(&*service.read(live).unwrap().model, "small");
        assert_eq!(service.list(SessionQuery::new().label("topic", "maps")).unwrap().len(), 2);
        // A turn keeps them, also that of the next life.
        for id in [live, cold] {
            service.start_turn(id, turn("again")).unwrap();
            assert_eq!(store.load(id).unwrap().unwrap().labels, labels(&[("topic", "maps")]));
            assert_eq!(service.read(id).unwrap().labels["topic"], "maps");
        }
        // A save that fails leaves them as they were, and so does one that reports a failure.
        for fault in [&store.fails, &store.lies] {
            fault.store(true, Ordering::SeqCst);
            let error = service.set_labels(live, labels(&[("topic", "other")])).unwrap_err();
            assert!(StoreError::of(&error).is_some(), "{error:?}");
            fault.store(false, Ordering::SeqCst);
            assert_eq!(service.read(live).unwrap().labels["topic"], "maps");
        }
        service.unload(live, LONG).unwrap();
        assert_eq!(service.read(live).unwrap().labels["topic"], "maps");
        service.archive(cold).unwrap();
        assert!(matches!(service.set_labels(cold, labels(&[])), Err(SessionError::Archived { .. })));
        let unknown = SessionId::new();
        assert!(matches!(service.set_labels(unknown, labels(&[])), Err(SessionError::NotFound { .. })));
    });
}

#[test]
fn c25_labels_that_are_set_while_a_session_comes_and_goes_are_not_lost() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("hello")).unwrap().session_id;
        let coming_and_going = {
            let service = service.clone();
            std::thread::spawn(move || {
                for _ in 0..200 {
                    service.unload(id, LONG).unwrap();
                    service.start_turn(id, turn("x")).unwrap();
                }
            })
        };
        let mut round = 0;
        while !coming_and_going.is_finished() {
            round += 1;
            service.set_labels(id, labels(&[("round", &round.to_string())])).unwrap();
            assert_eq!(service.read(id).unwrap().labels["round"], round.to_string());
        }
        coming_and_going.join().unwrap();
        assert_eq!(service.read(id).unwrap().labels["round"], round.to_string());
        assert_eq!(store.load(id).unwrap().unwrap().labels["round"], round.to_string());
    });
}

#[test]
fn c53_a_session_that_a_shutdown_has_closed_in_a_turn_is_not_idle() {
    run(|| {
        let gate = Gate::new();
        let agents = scripted().on("hold", Script::new().wait_at_ignoring_cancel(&gate));
        let service = PersistentSessionService::new(agents, 4, Arc::new(Watched::default()));
        let held = service.begin_session(create("hold")).unwrap();
        let id = held.session_id();
        gate.wait_arrived(1);
        let (waiting, (told, is_told)) = (service.clone(), bounded(1));
        let waiter = std::thread::spawn(move || {
            told.send(()).unwrap();
            waiting.wait_idle(id, LONG)
        });
        is_told.recv().unwrap();
        service.shutdown_with(ArchiveMode::Drain, Duration::ZERO);
        let calls = [
            waiter.join().unwrap(),
            service.wait_idle(id, LONG),
            service.interrupt(id),
            service.steer(id, None, InteractionContent::message("x")).map(drop),
        ];
        for call in calls {
            assert!(matches!(call, Err(SessionError::NotFound { .. })), "{call:?}");
        }
        let info = service.read(id).unwrap().state;
        assert_eq!((info.state, info.is_active), (SessionState::Running, true));
        let listed = service.list(SessionQuery::new()).unwrap();
        assert_eq!((listed[0].state, listed[0].is_active), (SessionState::Running, true));
        gate.open();
        held.wait().unwrap();
        service.shutdown(LONG);
        service.wait_idle(id, LONG).unwrap();
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
    });
}
