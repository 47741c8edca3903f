//! C31–C34: panics, and sessions that use other sessions.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, CancelReason, EphemeralSessionService, Message, RunResult, Session,
    SessionAgent, SessionAgentBuilder, SessionContext, SessionError, SessionId, SessionQuery, SessionService,
    SessionSnapshot, SessionSpec, SessionState, SkillId, TurnContext, TurnHandle,
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

/// Panics wherever its prompts have told it to.
struct Fragile {
    session: Session,
    breaks_in: String,
}

impl Fragile {
    fn at(&self, place: &str) {
        assert!(self.breaks_in != place, "broken in {place}");
    }
}

impl SessionAgent for Fragile {
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

impl Drop for Fragile {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.at("drop");
        }
    }
}

fn fragile() -> (EphemeralSessionService<impl turnwise::SessionAgentBuilder>, SessionId) {
    let builder = builder_fn(|_, context| {
        Ok(Fragile { session: Session::with_id(context.session_id()), breaks_in: String::new() })
    });
    let service = EphemeralSessionService::new(builder, 1);
    let id = service.open_session(SessionSpec::new()).unwrap();
    (service, id)
}

#[test]
fn c32_panics_in_set_skill_references_and_cancel_fault_the_session() {
    run(|| {
        let (service, id) = fragile();
        service.start_turn(id, turn("set_skill_references")).unwrap();
        let fault = service.start_turn(id, turn("x"));
        assert_matches!(fault, Err(SessionError::Faulted { message, .. }) if message.contains("set_skill"));
        service.archive_wait(id, LONG).unwrap();

        let (service, id) = fragile();
        let running = service.begin_turn(id, turn("cancel")).unwrap();
        // It has to run: a turn that is cancelled before that is not rolled back.
        while service.stats().running_turns == 0 {
            std::thread::yield_now();
        }
        running.interrupt();
        assert_matches!(running.wait(), Err(SessionError::Faulted { message, .. }) if message.contains("cancel"));
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Faulted);
    });
}

#[test]
fn c32_panics_in_snapshot_and_session_clone_leave_result_and_session_alone() {
    run(|| {
        let (service, id) = fragile();
        assert_eq!(service.start_turn(id, turn("fine")).unwrap().text, "fine");
        assert_eq!(service.start_turn(id, turn("snapshot")).unwrap().text, "snapshot");
        // The snapshot of the turn before stays.
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
        let (service, id) = fragile();
        let running = service.begin_turn(id, turn("hook")).unwrap();
        while service.stats().running_turns == 0 {
            std::thread::yield_now();
        }
        // The hook panics on this thread, or on the session's where it is registered late.
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
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("boom");
            }
        }
        let service = EphemeralSessionService::new(agent_fn(|_, _| std::panic::panic_any(Bomb)), 1);
        let fault = service.create_session(create("x")).unwrap_err();
        assert_matches!(&fault, SessionError::Faulted { .. });
        service.archive_wait(fault.session_id().unwrap(), LONG).unwrap();
    });
}

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
            // Not a wait: refused like anybody else's.
            assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::Busy { .. }));
            assert_matches!(service.export_session(id), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.export_session_timeout(id, LONG), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.take_session(id, LONG), Err(SessionError::Reentrant { .. }));
            assert_matches!(service.archive_wait(id, LONG), Err(SessionError::Reentrant { .. }));
            // None of the refused calls has had an effect.
            assert!(service.read(id).is_ok());
            // What does not wait is allowed.
            service.interrupt(id)?;
            assert!(own_turn.is_cancelled());
            Ok("done".into())
        });
        assert_eq!(own.wait().unwrap().text, "done");
        // Its own handle, waited for inside.
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
fn c33_of_sessions_that_turn_to_each_other_at_the_same_time_one_is_refused() {
    run(|| {
        for _ in 0..200 {
            let jobs = Jobs::new(4);
            let (a, b) = (jobs.open(), jobs.open());
            let (meet_a, meet_b) = bounded::<()>(0);
            // Both are running when they ask, so each asks for what the other one's turn keeps from it.
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
            Err(error @ SessionError::Interrupted { id, .. }) if id == parent => Err(error.into()),
            other => panic!("{other:?}"),
        });
        entered.recv().unwrap();
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        assert_eq!(jobs.service.read(child).unwrap().state.state, SessionState::Running);
        go.send(()).unwrap();
        // The boundary of the child's turn: it has ended well.
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
                // Itself it cannot wait for.
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

/// An error whose every part panics when told to.
#[derive(Debug)]
struct Nasty {
    shown: bool,
    dropped: bool,
}

impl std::fmt::Display for Nasty {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(!self.shown, "broken in display");
        f.write_str("nasty")
    }
}

impl std::error::Error for Nasty {}

impl Drop for Nasty {
    fn drop(&mut self) {
        assert!(!self.dropped || thread::panicking(), "broken in drop");
    }
}

#[test]
fn c32_an_error_that_panics_when_shown_is_delivered_all_the_same() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let nasty = || AgentError::other(Nasty { shown: true, dropped: false });
        jobs.prepare("x", move |_, _| Err(nasty()));
        let (event_tx, events) = unbounded();
        let failed = jobs.service.start_turn(id, turn("x").event_tx(event_tx));
        assert!(matches!(failed, Err(SessionError::Agent { source: AgentError::Other(_), .. })));
        assert_eq!(events.iter().count(), 2);
        assert_eq!(jobs.service.start_turn(id, turn("fine")).unwrap().text, "fine");

        let builder = builder_fn(move |_, _| -> Result<Fragile, AgentError> { Err(nasty()) });
        let service = EphemeralSessionService::new(builder, 1);
        let (event_tx, _events) = unbounded();
        let failed = service.create_session(create("x").event_tx(event_tx));
        assert!(matches!(failed, Err(SessionError::Build { .. })));
    });
}

#[test]
fn c32_an_error_that_panics_when_dropped_takes_no_session_with_it() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let nasty = || AgentError::other(Nasty { shown: false, dropped: true });
        let (go, gate) = bounded::<()>(0);
        let running = jobs.begin(id, "x", move |_, _| {
            let _ = gate.recv();
            Err(nasty())
        });
        let finished = running.finished().clone();
        // Nobody is left to take the error: it goes on the session's thread.
        drop(running);
        drop(go);
        assert!(finished.recv().is_err());
        assert_eq!(jobs.service.start_turn(id, turn("fine")).unwrap().text, "fine");

        let (go, gate) = bounded::<()>(0);
        let builder = builder_fn(move |_, _| -> Result<Fragile, AgentError> {
            let _ = gate.recv();
            Err(nasty())
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
fn c32_a_hook_whose_captures_panic_when_dropped_does_no_harm() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("x", |_, own_turn| {
            let captured = Nasty { shown: false, dropped: true };
            drop(own_turn.cancel_token().on_cancel(move || drop(captured)));
            Ok("fine".into())
        });
        assert_eq!(jobs.service.start_turn(id, turn("x")).unwrap().text, "fine");
    });
}

#[test]
fn c32_a_builder_and_a_specification_that_both_panic_when_dropped_do_no_harm() {
    run(|| {
        let (start, started) = bounded(0);
        let (go, gate) = bounded::<()>(0);
        let captured = Nasty { shown: false, dropped: true };
        let builder = builder_fn(move |_, _| {
            let _captured = &captured;
            start.send(()).unwrap();
            let _ = gate.recv();
            Err::<Fragile, _>(AgentError::Config("none".into()))
        });
        let service = EphemeralSessionService::new(builder, 1);
        let extension = Arc::new(Nasty { shown: false, dropped: true });
        let spec = SessionSpec::new().extension(extension);
        let building = service.begin_session(create("x").session(spec)).unwrap();
        started.recv().unwrap();
        // From here on the session's thread is the last owner of both.
        drop(service);
        drop(go);
        assert_matches!(building.wait(), Err(SessionError::Build { .. }));
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
                // For ever, as far as the time goes.
                let report = service.shutdown(Duration::MAX);
                Ok(report.stuck.len().to_string())
            }
        };
        let one = jobs.begin(a, "a", shut_down(&meet));
        let two = jobs.begin(b, "b", shut_down(&meet));
        let (one, two) = (one.wait().unwrap().text, two.wait().unwrap().text);
        // Each is stuck for itself; the later of the two may have seen the other one end.
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

#[test]
fn c34_an_opened_session_does_not_outlive_an_open_that_fails() {
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
        // The parent is interrupted.
        let parent = service.begin_turn(id, turn("x")).unwrap();
        started.recv().unwrap();
        parent.interrupt();
        assert_cancelled(parent.wait(), CancelReason::Interrupted);
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 1, "the child is archived");
        drop(go);
        while service.stats().sessions > 1 {
            thread::yield_now();
        }
        // The child is archived: that is not the parent's cancellation.
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
                // Opened before it was archived.
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
fn c33_a_start_that_is_refused_makes_no_circle() {
    run(|| {
        let jobs = Jobs::new(4);
        let (one, other) = (jobs.open(), jobs.open());
        let meet = Arc::new(Barrier::new(2));
        let ask = |whom: SessionId| {
            let meet = Arc::clone(&meet);
            move |service: &dyn SessionService, _: &TurnContext| {
                meet.wait();
                for _ in 0..20_000 {
                    // Busy, as long as the other one's turn goes on: nothing is waited for.
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
fn c33_a_created_session_that_asks_back_is_the_one_to_be_refused() {
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
