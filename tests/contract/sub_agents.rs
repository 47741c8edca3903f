//! C33, C34: sessions that use other sessions.

use std::fmt;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded, Receiver, RecvTimeoutError, Sender};
use turnwise::{
    agent_fn, builder_fn, AgentError, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventSource,
    SessionAgent, SessionAgentBuilder, SessionContext, SessionError, SessionId, SessionQuery, SessionService,
    SessionSpec, SessionState, Subscription, TurnContext, TurnHandle,
};

use crate::support::*;

#[test]
fn c33_a_wait_of_a_session_for_itself_is_reentrant() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let own = jobs.begin(id, "own", move |service, own_turn| {
            assert_matches!(service.start_turn(id, turn("x")), Err(SessionError::Reentrant { id: is }) if is == id);
            let mut ignored = |_| {};
            let with = service.start_turn_with(id, turn("x"), &mut ignored);
            assert_matches!(with, Err(SessionError::Reentrant { .. }));
            // `begin_turn` does not wait. It is refused as on any other thread.
            assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::Busy { .. }));
            assert_matches!(service.export_session(id), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.export_session_timeout(id, LONG), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.take_session(id, LONG), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.archive_wait(id, LONG), Err(SessionError::Reentrant { .. }));
            // None of the refused calls has had an effect.
            assert!(service.read(id).is_ok());
            // A call that does not wait is allowed.
            service.interrupt(id)?;
            assert!(own_turn.is_cancelled());
            Ok("done".into())
        });
        assert_eq!(own.wait().unwrap().text, "done");
        // The turn waits for its own handle.
        let (give, handle) = bounded::<TurnHandle>(1);
        let own = jobs.begin(id, "handle", move |_, _| {
            let mut handle = handle.recv().unwrap();
            assert_matches!(handle.wait_timeout(LONG), Some(Err(SessionError::Reentrant { .. })));
            assert_matches!(handle.wait(), Err(SessionError::Reentrant { .. }));
            Ok("done".into())
        });
        let finished = own.finished().clone();
        give.send(own).unwrap();
        assert!(finished.recv().is_err());
        assert_eq!(jobs.service.read(id).unwrap().state.last_assistant_text.as_deref(), Some("done"));
    });
}

#[test]
fn c33_a_chain_of_waiting_sessions_that_leads_back_is_reentrant() {
    run(|| {
        let jobs = Jobs::new(1);
        let (a, b, c) = (jobs.open(), jobs.open(), jobs.open());
        jobs.prepare("b", move |service, _| Ok(service.start_turn(c, turn("c"))?.text));
        jobs.prepare("c", move |service, _| {
            assert_matches!(service.start_turn(a, turn("x")), Err(SessionError::Reentrant { id }) if id == c);
            assert_matches!(service.export_session(b), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.archive_wait(a, LONG), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.start_turn(c, turn("x")), Err(SessionError::Reentrant { .. }));
            Ok("from c".into())
        });
        let first = jobs.begin(a, "a", move |service, _| Ok(service.start_turn(b, turn("b"))?.text));
        assert_eq!(first.wait().unwrap().text, "from c");
    });
}

#[test]
fn c33_of_two_sessions_that_wait_for_each_other_one_is_refused() {
    run(|| {
        for _ in 0..200 {
            let jobs = Jobs::new(4);
            let (a, b) = (jobs.open(), jobs.open());
            let (meet_a, meet_b) = bounded::<()>(0);
            // Both turns run when they export, so each export has to wait for the other turn.
            let ask = |other: SessionId| {
                move |service: &dyn SessionService| match service.export_session(other) {
                    Ok(_) => Ok("answered".to_owned()),
                    Err(SessionError::Reentrant { .. }) => Ok("refused".to_owned()),
                    Err(error) => Err(error.into()),
                }
            };
            let (ask_b, ask_a) = (ask(b), ask(a));
            let one = jobs.begin(a, "a", move |service, _| {
                meet_a.send(()).unwrap();
                ask_b(service)
            });
            let two = jobs.begin(b, "b", move |service, _| {
                meet_b.recv().unwrap();
                ask_a(service)
            });
            let mut answers = [one.wait().unwrap().text, two.wait().unwrap().text];
            answers.sort();
            assert_eq!(answers, ["answered", "refused"]);
        }
    });
}

#[test]
fn c33_a_chain_through_two_services_is_reentrant_too() {
    run(|| {
        let (here, there) = (Jobs::new(1), Jobs::new(1));
        let (a, b) = (here.open(), there.open());
        let (to_here, to_there) = (here.service.clone(), there.service.clone());
        there.prepare("b", move |_, _| {
            assert_matches!(to_here.export_session(a), Err(SessionError::Reentrant { .. }));
            Ok("from b".into())
        });
        let first = here.begin(a, "a", move |_, _| Ok(to_there.start_turn(b, turn("b"))?.text));
        assert_eq!(first.wait().unwrap().text, "from b");
    });
}

#[test]
fn c34_an_interrupted_parent_can_poll_a_stream_to_its_end() {
    run(|| {
        let (told, tell) = unbounded();
        let (seen, see) = unbounded();
        let agent = builder_fn(move |_, context| {
            let (service, told, see) = (context.service(), told.clone(), seen.clone());
            agent_fn(move |prompt, turn| {
                if prompt == "child" {
                    turn.emit(delta(1))?;
                    return Ok(turn.finish("done"));
                }
                let service = service.upgrade().expect("the test has a handle");
                let stream = service.stream_session(create("child"))?;
                // The child has finished, and this turn is cancelled, before the first event is read.
                let _ = stream.handle().finished().recv();
                told.send(()).unwrap();
                let _ = turn.cancel_token().cancelled().recv();
                let mut events = 0;
                loop {
                    match stream.recv_timeout(LONG) {
                        Ok(_) => events += 1,
                        Err(RecvTimeoutError::Timeout) => turn.check()?,
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
                see.send(events).unwrap();
                Ok(turn.finish("seen"))
            })
            .build_agent(&SessionSpec::new(), context)
        });
        let service = EphemeralSessionService::new(agent, 2);
        let parent = service.begin_session(create("parent")).unwrap();
        tell.recv_timeout(LONG).unwrap();
        parent.interrupt();
        assert_eq!(see.recv_timeout(LONG), Ok(3));
        assert_eq!(parent.wait().unwrap().text, "seen");
    });
}

#[test]
fn c34_an_interrupt_of_the_parent_ends_its_wait_and_the_child_goes_on() {
    run(|| {
        let jobs = Jobs::new(1);
        let (parent, child) = (jobs.open(), jobs.open());
        let (enter, entered) = unbounded();
        let (go, gate) = unbounded::<()>();
        jobs.prepare("child", move |_, _| {
            enter.send(()).unwrap();
            let _ = gate.recv();
            Ok("child is done".into())
        });
        let waiting = jobs.begin(parent, "parent", move |service, _| match service.start_turn(child, turn("child")) {
            Err(ref error @ SessionError::Interrupted { id, .. }) if id == parent => Err(error.clone().into()),
            other => panic!("{other:?}"),
        });
        entered.recv().unwrap();
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        assert_eq!(jobs.service.read(child).unwrap().state.state, SessionState::Running);
        go.send(()).unwrap();
        // The export waits for the end of the child's turn, which succeeds.
        let history = jobs.service.export_session(child).unwrap();
        assert_eq!(history.last_assistant_text().as_deref(), Some("child is done"));
    });
}

#[test]
fn c34_builders_may_use_the_service_too() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec, context| {
            if spec.model != "helper" {
                let service = context.service().upgrade().expect("the test has a handle");
                let helper = create("hello").session(SessionSpec::new().model("helper"));
                let greeting = service.create_session(helper)?;
                assert_eq!(greeting.text, "hello");
                // A builder cannot wait for its own session.
                let own = service.export_session(context.session_id());
                assert_matches!(own, Err(SessionError::Reentrant { .. }));
            }
            turnwise::SessionAgentBuilder::build_agent(&echo, spec, context)
        });
        let service = EphemeralSessionService::configure(builder).max_running_turns(1).build().unwrap();
        assert_eq!(service.create_session(create("x")).unwrap().text, "x");
        assert_eq!(service.stats().sessions, 2);
    });
}

#[test]
fn c33_sessions_that_shut_down_at_the_same_time_do_not_wait_for_each_other() {
    run(|| {
        let jobs = Jobs::new(4);
        let (a, b) = (jobs.open(), jobs.open());
        let meet = Arc::new(Barrier::new(2));
        let shut_down = |meet: &Arc<Barrier>| {
            let (meet, service) = (Arc::clone(meet), jobs.service.clone());
            move |_: &dyn SessionService, _: &TurnContext| {
                meet.wait();
                // This timeout never passes.
                let report = service.shutdown(Duration::MAX);
                Ok(report.stuck.len().to_string())
            }
        };
        let one = jobs.begin(a, "a", shut_down(&meet));
        let two = jobs.begin(b, "b", shut_down(&meet));
        let (one, two) = (one.wait().unwrap().text, two.wait().unwrap().text);
        // Each call lists its own session as stuck. It also lists the other one, unless that one has ended.
        for stuck in [one, two] {
            assert!(stuck == "1" || stuck == "2", "{stuck}");
        }
        assert_eq!(jobs.service.shutdown(LONG).stuck, []);
    });
}

#[test]
fn c34_a_turn_that_waits_in_another_services_shutdown_can_be_interrupted() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let (other, stage) = scripted(1);
        let deaf = other.begin_session(create("deaf")).unwrap();
        stage.wait_entered();
        let (enter, entered) = bounded(0);
        let waiting = jobs.begin(id, "x", move |_, own_turn| {
            enter.send(()).unwrap();
            let report = other.shutdown(Duration::MAX);
            assert_eq!(report.stuck.len(), 1);
            own_turn.check()?;
            Ok("not interrupted".into())
        });
        entered.recv().unwrap();
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        stage.release();
        deaf.wait().unwrap();
    });
}

/// An error whose `Display` creates a session of another service and waits for it.
#[derive(Debug)]
struct DisplayThatWaits {
    other: Service,
    asked: Sender<Result<(), SessionError>>,
}

impl std::error::Error for DisplayThatWaits {}

impl fmt::Display for DisplayThatWaits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = self.other.create_session(create("deaf"));
        // The receiver may be dropped when the error is formatted again.
        let _ = self.asked.send(answer.map(drop));
        f.write_str("lost for words")
    }
}

#[test]
fn c34_an_interrupt_ends_a_wait_in_the_display_of_an_error() {
    run(|| {
        let (other, stage) = scripted(1);
        let (asked, answers) = unbounded();
        let asking = other.clone();
        let agent = agent_fn(move |_, _| {
            Err(AgentError::other(DisplayThatWaits { other: asking.clone(), asked: asked.clone() }))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let (event_tx, events) = unbounded();
        let turn = service.begin_session(create("x").event_tx(event_tx)).unwrap();
        stage.wait_entered();
        turn.interrupt();
        let reason = CancelReason::Interrupted;
        assert_matches!(answers.recv().unwrap(), Err(SessionError::Interrupted { reason: why, .. }) if why == reason);
        assert_matches!(turn.wait(), Err(SessionError::Agent { .. }));
        assert_matches!(events.iter().last(), Some(AgentEvent::RunFailed { error, .. }) if error.contains("lost"));
        stage.release();
        assert_eq!(other.shutdown(LONG).stuck, []);
    });
}

#[test]
fn c34_an_open_that_fails_leaves_no_session_behind() {
    run(|| {
        let (start, started) = bounded(0);
        let (go, gate) = bounded::<()>(0);
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec, context| {
            if spec.model == "child" {
                start.send(()).unwrap();
                let _ = gate.recv();
                return echo.build_agent(spec, context).map(|agent| Box::new(agent) as Box<dyn SessionAgent>);
            }
            let service = context.service();
            let opens = agent_fn(move |_, turn| {
                let service = service.upgrade().expect("the test has a handle");
                service.open_session(SessionSpec::new().model("child"))?;
                Ok(turn.finish("opened"))
            });
            opens.build_agent(spec, context).map(|agent| Box::new(agent) as Box<dyn SessionAgent>)
        });
        let service = EphemeralSessionService::new(builder, 2);
        let id = service.open_session(SessionSpec::new()).unwrap();
        // An interrupt of the parent fails the open.
        let parent = service.begin_turn(id, turn("x")).unwrap();
        started.recv().unwrap();
        parent.interrupt();
        assert_cancelled(parent.wait(), CancelReason::Interrupted);
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 1, "the child is archived");
        drop(go);
        while service.stats().sessions > 1 {
            thread::yield_now();
        }
        // An archive of the child fails the open too, and does not cancel the parent.
        for mode in [ArchiveMode::Drain, ArchiveMode::Interrupt] {
            let parent = service.begin_turn(id, turn("x")).unwrap();
            started.recv().unwrap();
            let child = service.list(SessionQuery::new()).unwrap()[1].session_id;
            service.archive_with(child, mode).unwrap();
            match parent.wait() {
                Err(SessionError::Agent { source: AgentError::Other(source), .. }) => {
                    let source = source.downcast_ref::<SessionError>().expect("the service's error");
                    assert_matches!(source, SessionError::NotFound { id } if *id == child);
                }
                // The child was open before the archive.
                Ok(result) => assert_eq!(result.text, "opened"),
                other => panic!("{other:?}"),
            }
            while service.stats().sessions > 1 {
                thread::yield_now();
            }
        }
    });
}

#[test]
fn c33_a_refused_start_adds_no_edge_to_the_wait_for_graph() {
    run(|| {
        let jobs = Jobs::new(4);
        let (one, other) = (jobs.open(), jobs.open());
        let meet = Arc::new(Barrier::new(2));
        let ask = |whom: SessionId| {
            let meet = Arc::clone(&meet);
            move |service: &dyn SessionService, _: &TurnContext| {
                meet.wait();
                for _ in 0..20_000 {
                    // The call is `Busy` as long as the other turn runs. It does not wait.
                    assert_matches!(service.start_turn(whom, turn("x")), Ok(_) | Err(SessionError::Busy { .. }));
                }
                Ok("done".into())
            }
        };
        let asking = jobs.begin(one, "asks", ask(other));
        let asked = jobs.begin(other, "is asked", ask(one));
        assert_eq!(asked.wait().unwrap().text, "done");
        assert_eq!(asking.wait().unwrap().text, "done");
    });
}

#[test]
fn c34_an_interrupt_ends_the_reading_of_a_stream_with_unread_events() {
    run(|| {
        let jobs = Jobs::new(4);
        for kind in ["turn", "callback", "session", "interaction"] {
            let (parent, child) = (jobs.open(), jobs.open());
            // The child stands for one that emits faster than its parent reads: its stream has unread events.
            jobs.prepare("many", |_, turn| {
                (0..100).try_for_each(|_| turn.emit(AgentEvent::TextDelta { delta: "x".into() }))?;
                turn.sleep(LONG)?;
                Ok("not reached".into())
            });
            let (enter, entered) = unbounded();
            let reading = jobs.begin(parent, "read", move |service, own| {
                let interrupted = || {
                    enter.send(()).expect("the test listens");
                    own.cancel_token().cancelled().recv().unwrap_err();
                };
                let read = match kind {
                    "turn" => {
                        let stream = service.stream_turn(child, turn("many"))?;
                        filled(stream.events());
                        interrupted();
                        stream.count()
                    }
                    "callback" => {
                        let mut read = 0;
                        let with = service.start_turn_with(child, turn("many"), &mut |_| {
                            read += 1;
                            interrupted();
                        });
                        assert_matches!(with, Err(SessionError::Interrupted { .. }));
                        // One event was read before the interrupt.
                        read - 1
                    }
                    "session" => {
                        let stream = service.subscribe(child, Subscription::new())?;
                        drop(service.begin_turn(child, turn("many"))?);
                        filled(stream.events());
                        interrupted();
                        stream.count()
                    }
                    _ => {
                        drop(service.begin_turn(child, turn("x").host_mode(true))?);
                        let injector = service.event_injector(child).expect("the session is live");
                        let followed = injector.inject_with_subscription("many".into(), EventSource::Rpc);
                        let followed = followed.map_err(AgentError::other)?;
                        filled(&followed.events);
                        interrupted();
                        followed.count()
                    }
                };
                assert_eq!(read, 0, "{kind}");
                own.check()?;
                Ok("not reached".into())
            });
            entered.recv_timeout(LONG).unwrap();
            reading.interrupt();
            assert_cancelled(reading.wait(), CancelReason::Interrupted);
            jobs.service.archive_with(child, ArchiveMode::Interrupt).unwrap();
        }
    });
}

/// Waits until at least 100 events are unread.
fn filled<T>(events: &Receiver<T>) {
    while events.len() < 100 {
        thread::yield_now();
    }
}

#[test]
fn c34_the_error_of_a_long_chain_of_sub_agents_needs_no_large_stack() {
    run(|| {
        const SUB_AGENTS: usize = 150;
        let builder = builder_fn(|spec: &SessionSpec, context: &SessionContext| {
            let service = context.service();
            let agent = agent_fn(move |prompt, turn| match prompt.parse().expect("the number of sub-agents below") {
                0_usize => Err(AgentError::Config("no key is set".into())),
                more => {
                    let below = create(&(more - 1).to_string());
                    Ok(turn.finish(service.upgrade().expect("the test has a handle").create_session(below)?.text))
                }
            });
            agent.build_agent(spec, context)
        });
        // An event history takes every failure event, so each error is formatted on the small stack of its session
        // thread.
        let config = EphemeralSessionService::configure(builder).max_sessions(1 + SUB_AGENTS).stack_size(64 << 10);
        let service = config.event_history(2).build().unwrap();
        let error = service.create_session(create(&SUB_AGENTS.to_string())).unwrap_err();
        assert!(error.to_string().ends_with("configuration: no key is set"), "{error}");
        assert!(error.to_string().matches("the turn of session").count() <= 10, "{error}");
        assert!(format!("{error:?}").contains("no key is set"));
    });
}

#[test]
fn c33_a_created_session_that_waits_for_its_creator_is_refused() {
    run(|| {
        let asks_back = |context: &SessionContext, parent: SessionId| {
            let service = context.service().upgrade().expect("the test has a handle");
            assert_matches!(service.export_session(parent), Err(SessionError::Reentrant { .. }));
        };
        let builder = builder_fn(move |spec, own| {
            let (context, parent) = (own.clone(), spec.labels.get("parent").map(|id| id.parse().unwrap()));
            if let Some(parent) = parent {
                asks_back(&context, parent);
            }
            let agent = agent_fn(move |prompt, turn| {
                if let Some(parent) = parent {
                    asks_back(&context, parent);
                    return Ok(turn.finish(prompt));
                }
                let service = context.service().upgrade().expect("the test has a handle");
                let child = || SessionSpec::new().label("parent", context.session_id().to_string());
                let created = service.create_session(create("x").session(child()))?;
                let with = service.create_session_with(create("x").session(child()), &mut |_| {})?;
                let opened = service.open_session(child())?;
                service.start_turn(opened, self::turn("x"))?;
                service.start_turn_with(opened, self::turn("x"), &mut |_| {})?;
                for child in [created.session_id, with.session_id, opened] {
                    service.archive_wait(child, LONG)?;
                }
                Ok(turn.finish("done"))
            });
            agent.build_agent(spec, own)
        });
        let service = EphemeralSessionService::configure(builder).max_running_turns(1).build().unwrap();
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..50 {
            assert_eq!(service.start_turn(id, turn("x")).unwrap().text, "done");
        }
    });
}
