//! C31–C34: panics, and sessions that use other sessions.

use std::sync::{Arc, Mutex};

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::{
    agent_fn, builder_fn, AgentError, CancelReason, EphemeralSessionService, Message, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionError, SessionId, SessionQuery, SessionService, SessionSnapshot,
    SessionSpec, SessionState, SkillId, TurnContext, TurnHandle,
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

/// What a turn is to do, with the service at hand.
type Job = Box<dyn FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send>;

/// Builds agents that run the job with the name that their prompt says.
struct JobBuilder(Arc<Mutex<Vec<(String, Job)>>>);

impl SessionAgentBuilder for JobBuilder {
    type Agent = Box<dyn SessionAgent>;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Self::Agent, AgentError> {
        let (jobs, service) = (Arc::clone(&self.0), context.service());
        let agent = agent_fn(move |prompt, turn| {
            let job = {
                let mut jobs = jobs.lock().unwrap();
                let at = jobs.iter().position(|(name, _)| *name == prompt).expect("a job for the prompt");
                jobs.swap_remove(at).1
            };
            let service = service.upgrade().expect("the test has a handle");
            job(&service, turn).map(|text| turn.finish(text))
        });
        Ok(Box::new(agent.build_agent(spec, context)?))
    }
}

/// Sessions whose turns run closures that the test makes up.
struct Jobs {
    service: EphemeralSessionService<JobBuilder>,
    next: Arc<Mutex<Vec<(String, Job)>>>,
}

impl Jobs {
    fn new(max_running_turns: usize) -> Self {
        let next = Arc::default();
        let config =
            EphemeralSessionService::configure(JobBuilder(Arc::clone(&next))).max_running_turns(max_running_turns);
        Self { service: config.build().unwrap(), next }
    }

    fn open(&self) -> SessionId {
        self.service.open_session(SessionSpec::new()).unwrap()
    }

    /// Has session `id` run `job` in a turn called `name`.
    fn begin(
        &self,
        id: SessionId,
        name: &str,
        job: impl FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send + 'static,
    ) -> TurnHandle {
        self.prepare(name, job);
        self.service.begin_turn(id, turn(name)).unwrap()
    }

    /// Keeps `job` for whoever starts a turn called `name`.
    fn prepare(
        &self,
        name: &str,
        job: impl FnOnce(&dyn SessionService, &TurnContext) -> Result<String, AgentError> + Send + 'static,
    ) {
        self.next.lock().unwrap().push((name.to_owned(), Box::new(job)));
    }
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
