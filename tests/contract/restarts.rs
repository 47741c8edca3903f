//! C56: the restart of a faulted session, by a caller and by a policy.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    builder_fn, AgentError, AgentEvent, ArchiveMode, BuildError, CancelReason, ConfigError, CreateSessionRequest,
    EphemeralSessionService, EventSource, InjectError, InteractionContent, LocalComms, LocalPeer, Message,
    RestartPolicy, RunResult, ServiceConfig, Session, SessionAgent, SessionAgentBuilder, SessionContext, SessionError,
    SessionId, SessionQuery, SessionService, SessionSpec, SessionState, StartTurnRequest, Subscription, TurnContext,
    WhenBusy,
};

use crate::inbox::outcome;
use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

/// What a build does before it returns an agent.
enum Build {
    Fail,
    Panic,
    /// Waits at the gate, whatever happens.
    Wait(Gate),
    /// Waits at the gate, then fails.
    WaitAndFail(Gate),
    /// Waits until it is cancelled.
    Sleep,
}

/// The test's view of the builds.
#[derive(Default)]
struct Plan {
    /// The next builds. Without one an agent is built at once.
    next: Mutex<VecDeque<Build>>,
    /// The specifications of all builds.
    specs: Mutex<Vec<SessionSpec>>,
    /// How many agents there are.
    live: AtomicUsize,
    /// Whether the drop of an agent panics.
    breaks_in_drop: AtomicBool,
}

impl Plan {
    fn prepare(&self, build: Build) {
        self.next.lock().unwrap().push_back(build);
    }

    fn resumed(&self, build: usize) -> Vec<Message> {
        self.specs.lock().unwrap()[build].history().messages().to_vec()
    }
}

/// An agent that writes its history in the middle of a turn, so that a panic leaves it half-written.
struct Writer {
    history: Session,
    plan: Arc<Plan>,
}

impl SessionAgent for Writer {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.history.push(Message::user(prompt.as_str()));
        match prompt.as_str() {
            "panic" => panic!("scripted"),
            "fail" => return Err(AgentError::Internal("scripted".into())),
            "wait" => turn.sleep(Duration::MAX)?,
            "wait and panic" => {
                let _ = turn.sleep(Duration::MAX);
                panic!("scripted");
            }
            _ => {}
        }
        let text = match prompt.as_str() {
            "drain" => turn.drain_inbox()[0].text(),
            _ => prompt,
        };
        self.history.push(Message::assistant(text.as_str()));
        Ok(turn.finish(text))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.plan.live.fetch_sub(1, Ordering::SeqCst);
        assert!(!self.plan.breaks_in_drop.load(Ordering::SeqCst) || thread::panicking(), "broken in drop");
    }
}

struct Writers(Arc<Plan>);

impl SessionAgentBuilder for Writers {
    type Agent = Writer;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Writer, AgentError> {
        let plan = Arc::clone(&self.0);
        plan.specs.lock().unwrap().push(spec.clone());
        assert_eq!(plan.live.load(Ordering::SeqCst), 0, "the old agent is dropped first");
        let next = plan.next.lock().unwrap().pop_front();
        match next {
            Some(Build::Fail) => return Err(AgentError::Config("no key".into())),
            Some(Build::Panic) => panic!("broken builder"),
            Some(Build::Wait(gate)) => gate.pass_regardless(),
            Some(Build::WaitAndFail(gate)) => {
                gate.pass_regardless();
                return Err(AgentError::Config("no key".into()));
            }
            Some(Build::Sleep) => session.sleep(Duration::MAX)?,
            None => {}
        }
        plan.live.fetch_add(1, Ordering::SeqCst);
        Ok(Writer { history: spec.history(), plan })
    }
}

type Writing = EphemeralSessionService<Writers>;

fn writers_with(configure: impl FnOnce(ServiceConfig<Writers>) -> ServiceConfig<Writers>) -> (Writing, Arc<Plan>) {
    let plan = Arc::new(Plan::default());
    let config = EphemeralSessionService::configure(Writers(Arc::clone(&plan))).max_sessions(1);
    (configure(config).build().unwrap(), plan)
}

fn writers() -> (Writing, Arc<Plan>) {
    writers_with(|config| config)
}

/// A session whose first turn has succeeded and whose second has panicked.
fn faulted(service: &impl SessionService) -> SessionId {
    let id = service.create_session(create("one")).unwrap().session_id;
    assert_matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. }));
    id
}

fn queued(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Queue)
}

fn state(service: &impl SessionService, id: SessionId) -> SessionState {
    service.read(id).unwrap().state.state
}

/// Begins a restart whose build waits at the gate.
fn restarting(service: &impl SessionService, plan: &Plan, id: SessionId) -> Gate {
    let gate = Gate::new();
    plan.prepare(Build::Wait(gate.clone()));
    assert_matches!(service.restart(id, Duration::ZERO), Err(SessionError::Timeout { id: is, .. }) if is == id);
    assert_eq!(state(service, id), SessionState::Building);
    gate
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| message.text().to_string()).collect()
}

fn one_pair() -> [Message; 2] {
    [Message::user("one"), Message::assistant("one")]
}

#[test]
fn c56_a_restart_builds_the_agent_again_from_its_last_committed_history() {
    run(|| {
        let (service, plan) = writers();
        let spec = SessionSpec::new().model("small").label("user", "ada").extension(Arc::new(7_u32));
        let id = service.create_session(create("one").session(spec)).unwrap().session_id;
        // A failed turn is committed, as far as its agent's history goes.
        assert!(service.start_turn(id, turn("fail")).is_err());
        let labels = BTreeMap::from([("user".to_owned(), "grace".to_owned())]);
        service.set_labels(id, labels.clone()).unwrap();
        assert_matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. }));
        let committed = [&one_pair()[..], &[Message::user("fail")]].concat();
        // The agent has left its own history half-written.
        assert_eq!(service.export_session(id).unwrap().messages().len(), 4);

        service.restart(id, LONG).unwrap();
        assert_eq!(plan.resumed(1), committed);
        assert_eq!(state(&service, id), SessionState::Idle);
        assert_eq!(service.export_session(id).unwrap().messages(), committed);
        assert_eq!(service.read(id).unwrap().state.message_count, 3);
        {
            let specs = plan.specs.lock().unwrap();
            let again = &specs[1];
            assert_eq!((again.session_id, again.model.as_str()), (Some(id), "small"));
            assert_eq!(again.extension_as::<u32>(), Some(&7));
            assert_eq!(again.labels, labels);
        }
        // Label, number and capacity are those of before.
        let listed = service.list(SessionQuery::new().label("user", "grace")).unwrap();
        assert_eq!((listed[0].session_id, listed[0].turns), (id, 3));
        assert_eq!(service.start_turn(id, turn("four")).unwrap().turn_id.get(), 4);
        let stats = service.stats();
        assert_eq!((stats.faults, stats.restarts, stats.sessions, stats.sessions_created), (1, 1, 1, 1));
        assert_eq!(stats.turns_ended(), 4);
        // It can fault and restart again.
        assert!(service.start_turn(id, turn("panic")).is_err());
        service.restart(id, LONG).unwrap();
        assert_eq!(service.take_session(id, LONG).unwrap().messages().len(), 5);
        assert_eq!(plan.live.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn c56_a_session_that_faults_in_its_first_turn_restarts_from_where_it_began() {
    run(|| {
        let (service, plan) = writers();
        let mut history = Session::new();
        history.push_batch(one_pair());
        let spec = SessionSpec::new().resume(history.clone());
        let fault = service.create_session(create("panic").session(spec)).unwrap_err();
        let id = fault.session_id().unwrap();
        service.restart(id, LONG).unwrap();
        assert_eq!(plan.resumed(1), one_pair());
        service.archive_wait(id, LONG).unwrap();

        let id = service.create_session(create("panic")).unwrap_err().session_id().unwrap();
        service.restart(id, LONG).unwrap();
        assert_eq!(plan.specs.lock().unwrap()[3].resume.as_ref().map(Session::id), Some(id));
        assert!(service.export_session(id).unwrap().messages().is_empty());
    });
}

#[test]
fn c56_a_restart_is_refused_where_the_session_is_not_faulted() {
    run(|| {
        let (service, plan) = writers();
        let gate = Gate::new();
        plan.prepare(Build::Wait(gate.clone()));
        let first = service.begin_session(create("wait")).unwrap();
        let id = first.session_id();
        let number = first.turn_id();
        assert_matches!(service.restart(id, LONG), Err(SessionError::Busy { turn: Some(turn), .. }) if turn == number);
        gate.open();
        while state(&service, id) != SessionState::Running {
            thread::yield_now();
        }
        assert_matches!(service.restart(id, LONG), Err(SessionError::Busy { turn: Some(turn), .. }) if turn == number);
        first.interrupt();
        assert!(first.wait().is_err());
        let idle = service.restart(id, LONG).unwrap_err();
        assert_matches!(idle, SessionError::NotFaulted { id: is } if is == id);
        assert_eq!((idle.code(), idle.session_id()), ("SESSION_NOT_FAULTED", Some(id)));
        assert_eq!(idle.to_string(), format!("session {id} is not faulted"));
        let unknown = SessionId::new();
        assert_matches!(service.restart(unknown, LONG), Err(SessionError::NotFound { id }) if id == unknown);
        service.archive_wait(id, LONG).unwrap();
        assert_matches!(service.restart(id, LONG), Err(SessionError::NotFound { .. }));

        let id = faulted(&service);
        service.archive(id).unwrap();
        assert_matches!(service.restart(id, LONG), Err(SessionError::NotFound { .. }));
        service.shutdown(LONG);
        assert_matches!(service.restart(id, LONG), Err(SessionError::ShuttingDown));
        assert_eq!((plan.specs.lock().unwrap().len(), service.stats().restarts), (2, 0));
    });
}

#[test]
fn c56_a_build_that_fails_leaves_the_session_faulted_without_an_agent() {
    run(|| {
        let (service, plan) = writers();
        let id = faulted(&service);
        for panics in [false, true] {
            plan.prepare(if panics { Build::Panic } else { Build::Fail });
            match service.restart(id, LONG).unwrap_err() {
                SessionError::Build { id: is, source: BuildError::Agent(AgentError::Config(_)) } if is == id => {
                    assert!(!panics);
                }
                SessionError::Build { source: BuildError::Panicked(message), .. } => {
                    assert!(panics && &*message == "broken builder");
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(plan.live.load(Ordering::SeqCst), 0);
            assert_eq!(state(&service, id), SessionState::Faulted);
            let refused = service.start_turn(id, turn("x"));
            assert_matches!(refused, Err(SessionError::Faulted { message, .. }) if &*message == "scripted");
            assert_eq!(service.export_session(id).unwrap().messages(), one_pair());
            assert_matches!(service.wait_idle(id, LONG), Err(SessionError::Faulted { .. }));
            let injector = service.event_injector(id).unwrap();
            assert_matches!(injector.inject("x".into(), EventSource::Rpc), Err(InjectError::Closed(_)));
        }
        service.restart(id, LONG).unwrap();
        assert_eq!(service.start_turn(id, turn("two")).unwrap().text, "two");
        assert_eq!(service.stats().restarts, 1);
        // A session without an agent can be taken.
        assert!(service.start_turn(id, turn("panic")).is_err());
        plan.prepare(Build::Fail);
        assert_matches!(service.restart(id, LONG), Err(SessionError::Build { .. }));
        assert_eq!(service.take_session(id, LONG).unwrap().messages().len(), 4);
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c56_a_build_that_fails_answers_the_turns_behind_it_and_a_wait_for_idle() {
    run(|| {
        let clock = ManualClock::new();
        let (service, plan) = writers_with(|config| config.clock(clock.clone()));
        let id = faulted(&service);
        let gate = Gate::new();
        plan.prepare(Build::WaitAndFail(gate.clone()));
        thread::scope(|scope| {
            let restarting = scope.spawn(|| service.restart(id, LONG));
            gate.wait_arrived(1);
            let behind = service.begin_turn(id, queued("two")).unwrap();
            let withdrawn = service.begin_turn(id, queued("three")).unwrap();
            withdrawn.interrupt();
            assert_cancelled(withdrawn.wait(), CancelReason::Interrupted);
            let before = clock.waiters();
            let idle = scope.spawn(|| service.wait_idle(id, LONG));
            clock.wait_for_waiters(before + 1);
            gate.open();
            assert_matches!(behind.wait(), Err(SessionError::Build { id: is, .. }) if is == id);
            assert_matches!(restarting.join().unwrap(), Err(SessionError::Build { .. }));
            assert_matches!(idle.join().unwrap(), Err(SessionError::Faulted { .. }));
        });
        assert_eq!(service.read(id).unwrap().state.queued_turns, 0);
        let stats = service.stats();
        assert_eq!((stats.turns_started, stats.turns_withdrawn, stats.restarts), (2, 2, 0));
        service.restart(id, LONG).unwrap();
        assert_eq!(service.start_turn(id, turn("five")).unwrap().turn_id.get(), 5);
    });
}

#[test]
fn c56_meanwhile_the_session_is_building_and_turns_may_queue() {
    run(|| {
        let (service, plan) = writers();
        let id = faulted(&service);
        let injector = service.event_injector(id).unwrap();
        let gate = restarting(&service, &plan, id);
        gate.wait_arrived(1);
        assert_eq!(service.list(SessionQuery::new()).unwrap()[0].state, SessionState::Building);
        assert!(service.read(id).unwrap().state.is_active);
        assert_matches!(service.restart(id, LONG), Err(SessionError::Busy { turn: None, .. }));
        assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::Busy { turn: None, .. }));
        assert_matches!(service.interrupt(id), Err(SessionError::NotRunning { .. }));
        assert_matches!(service.wait_idle(id, SHORT), Err(SessionError::Timeout { .. }));
        assert_matches!(service.export_session_timeout(id, SHORT), Err(SessionError::Timeout { .. }));
        assert_matches!(service.take_session(id, SHORT), Err(SessionError::Timeout { .. }));
        let refused = injector.inject("meanwhile".into(), EventSource::Rpc);
        assert_eq!(refused, Err(InjectError::Closed("meanwhile".into())));
        let steering = service.steer(id, None, InteractionContent::message("x"));
        assert_matches!(steering, Err(SessionError::NotRunning { .. }));
        assert!(service.comms_runtime(id).is_none());

        let second = service.begin_turn(id, queued("three")).unwrap();
        let first = service.begin_turn(id, turn("four").when_busy(WhenBusy::Interrupt)).unwrap();
        assert!(second.is_queued() && first.is_queued());
        assert_eq!(service.read(id).unwrap().state.queued_turns, 2);
        let exporting = {
            let service = service.clone();
            thread::spawn(move || service.export_session(id))
        };
        gate.open();
        assert_eq!((first.wait().unwrap().turn_id.get(), second.wait().unwrap().turn_id.get()), (4, 3));
        // It was answered after the build, between two turns.
        assert!(matches!(exporting.join().unwrap().unwrap().messages().len(), 2 | 4 | 6));
        service.wait_idle(id, LONG).unwrap();
        assert_eq!(
            texts(service.export_session(id).unwrap().messages()),
            ["one", "one", "four", "four", "three", "three"]
        );
        assert_eq!(service.stats().restarts, 1);
    });
}

#[test]
fn c56_an_export_and_a_take_wait_for_the_build() {
    run(|| {
        let clock = ManualClock::new();
        let (service, plan) = writers_with(|config| config.clock(clock.clone()));
        let id = faulted(&service);
        let gate = restarting(&service, &plan, id);
        gate.wait_arrived(1);
        thread::scope(|scope| {
            let before = clock.waiters();
            let exporting = scope.spawn(|| service.export_session_timeout(id, LONG));
            let taking = scope.spawn(|| service.take_session(id, LONG));
            clock.wait_for_waiters(before + 2);
            assert!(!exporting.is_finished() && !taking.is_finished());
            gate.open();
            // The take may come first, and the export is answered all the same.
            assert_eq!(exporting.join().unwrap().unwrap().messages(), one_pair());
            assert_eq!(taking.join().unwrap().unwrap().messages(), one_pair());
        });
        assert_eq!(service.stats().restarts, 1);
    });
}

#[test]
fn c56_an_archive_or_a_shutdown_cancels_the_build() {
    run(|| {
        let ends: [fn(&Writing, SessionId); 3] = [
            |service, id| service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
            |service, id| service.archive(id).unwrap(),
            |service, _| assert_eq!(service.shutdown(LONG).stuck, []),
        ];
        for (number, end) in ends.into_iter().enumerate() {
            let clock = ManualClock::new();
            let (service, plan) = writers_with(|config| config.clock(clock.clone()));
            let id = faulted(&service);
            plan.prepare(Build::Sleep);
            thread::scope(|scope| {
                let restarting = scope.spawn(|| service.restart(id, LONG));
                // The caller and the build.
                clock.wait_for_waiters(2);
                end(&service, id);
                match restarting.join().unwrap() {
                    Err(SessionError::NotFound { id: is }) if is == id => assert!(number < 2),
                    Err(SessionError::ShuttingDown) => assert_eq!(number, 2),
                    other => panic!("{number}: {other:?}"),
                }
            });
            service.archive_wait(id, LONG).unwrap();
            assert_eq!((service.stats().sessions, service.stats().restarts), (0, 0));
        }
    });
}

#[test]
fn c56_a_draining_archive_runs_the_turns_behind_the_build() {
    run(|| {
        let (service, plan) = writers();
        let id = faulted(&service);
        let gate = restarting(&service, &plan, id);
        let waiting = service.begin_turn(id, queued("two")).unwrap();
        service.archive(id).unwrap();
        gate.open();
        assert_eq!(waiting.wait().unwrap().text, "two");
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(service.stats().restarts, 1);
    });
}

#[test]
fn c56_a_fault_in_host_mode_keeps_the_interactions_before_it() {
    run(|| {
        let (service, plan) = writers();
        let host = service.begin_session(create("one").host_mode(true)).unwrap();
        let id = host.session_id();
        let injector = service.event_injector(id).unwrap();
        let [two, fail] = ["two", "fail"].map(|text| injector.inject_with_subscription(text.into(), EventSource::Rpc));
        outcome(&two.unwrap()).unwrap();
        outcome(&fail.unwrap()).unwrap_err();
        let panics = injector.inject_with_subscription("panic".into(), EventSource::Rpc).unwrap();
        outcome(&panics).unwrap_err();
        assert_matches!(host.wait(), Err(SessionError::Faulted { .. }));
        assert_matches!(injector.inject("x".into(), EventSource::Rpc), Err(InjectError::Closed(_)));
        service.restart(id, LONG).unwrap();
        assert_eq!(texts(&plan.resumed(1)), ["one", "one", "two", "two", "fail"]);
        // The turn in host mode is over, and the next one may be in host mode.
        let host = service.begin_turn(id, turn("three").host_mode(true)).unwrap();
        outcome(&injector.inject_with_subscription("four".into(), EventSource::Rpc).unwrap()).unwrap();
        injector.dismiss(EventSource::Rpc).unwrap();
        assert_eq!(host.wait().unwrap().text, "four");
    });
}

#[test]
fn c56_subscriptions_go_on_and_injectors_work_again() {
    run(|| {
        let (service, _plan) = writers();
        let id = service.open_session(SessionSpec::new()).unwrap();
        let events = service.subscribe(id, Subscription::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        let waiting = injector.inject_with_subscription("before".into(), EventSource::Rpc).unwrap();
        assert!(service.start_turn(id, turn("panic")).is_err());
        // The fault has failed it.
        outcome(&waiting).unwrap_err();
        let closed = injector.inject_with_subscription("meanwhile".into(), EventSource::Rpc);
        assert_matches!(closed, Err(InjectError::Closed(_)));
        service.restart(id, LONG).unwrap();
        let after = injector.inject_with_subscription("after".into(), EventSource::Rpc).unwrap();
        assert_eq!(service.start_turn(id, turn("drain")).unwrap().text, "after");
        outcome(&after).unwrap();
        service.archive_wait(id, LONG).unwrap();
        assert_matches!(injector.inject("x".into(), EventSource::Rpc), Err(InjectError::Closed(_)));
        let events: Vec<_> = events.collect();
        assert!(events.iter().map(|event| event.seq).eq(1..=events.len() as u64), "{events:?}");
        let ends = events.iter().filter(|event| matches!(event.event, AgentEvent::RunFailed { .. }));
        assert_eq!(ends.count(), 1);
        assert_matches!(events.last().map(|event| &event.event), Some(AgentEvent::RunCompleted { .. }));
    });
}

#[test]
fn c56_the_drop_of_the_old_agent_may_panic_and_frees_its_name_first() {
    run(|| {
        let (service, plan) = writers();
        let id = faulted(&service);
        plan.breaks_in_drop.store(true, Ordering::SeqCst);
        service.restart(id, LONG).unwrap();
        plan.breaks_in_drop.store(false, Ordering::SeqCst);
        assert_eq!(service.start_turn(id, turn("two")).unwrap().text, "two");

        struct Member(LocalPeer, Session);
        impl SessionAgent for Member {
            fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                assert!(prompt != "panic", "scripted");
                Ok(turn.finish(prompt))
            }
            fn session_clone(&self) -> Session {
                self.1.clone()
            }
            fn comms_runtime(&self) -> Option<Arc<dyn turnwise::CommsRuntime>> {
                Some(self.0.runtime())
            }
        }
        let comms = LocalComms::new();
        let host = comms.join("host").unwrap();
        let builder = builder_fn(move |spec: &SessionSpec, _: &_| {
            Ok(Member(comms.join("member").map_err(AgentError::other)?, spec.history()))
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = faulted(&service);
        service.restart(id, LONG).unwrap();
        let line = service.comms_runtime(id).unwrap();
        line.send("host", InteractionContent::message("back")).unwrap();
        assert_eq!(host.runtime().inbox().unwrap().recv().unwrap().from, "member");
    });
}

#[test]
fn c56_a_policy_restarts_a_session_within_its_limit() {
    run(|| {
        let clock = ManualClock::new();
        let policy = RestartPolicy::new(2, 10 * SECOND);
        let (service, plan) = writers_with(|config| config.clock(clock.clone()).restart_faulted(policy));
        let id = service.create_session(create("one")).unwrap().session_id;
        let panic = || {
            let fault = service.start_turn(id, queued("panic"));
            assert_matches!(fault, Err(SessionError::Faulted { message, .. }) if &*message == "scripted");
        };
        panic();
        // From the fault on the session is building, and later idle.
        assert_eq!(service.start_turn(id, queued("two")).unwrap().text, "two");
        clock.advance(4 * SECOND);
        panic();
        service.wait_idle(id, LONG).unwrap();
        clock.advance(4 * SECOND);
        panic();
        assert_eq!((state(&service, id), service.stats().restarts), (SessionState::Faulted, 2));
        // A restart by a caller does not count.
        service.restart(id, LONG).unwrap();
        panic();
        assert_eq!(state(&service, id), SessionState::Faulted);
        // After ten seconds the first of the two restarts does not count any more.
        clock.advance(2 * SECOND);
        service.restart(id, LONG).unwrap();
        panic();
        service.wait_idle(id, LONG).unwrap();
        panic();
        assert_eq!(state(&service, id), SessionState::Faulted);
        assert_eq!((service.stats().restarts, service.stats().faults), (5, 5 + 1));
        assert_eq!(texts(&plan.resumed(5)), ["one", "one", "two", "two"]);
    });
}

#[test]
fn c56_a_policy_answers_the_queue_first_and_repeats_no_failed_build() {
    run(|| {
        let policy = RestartPolicy::new(u32::MAX, Duration::MAX);
        let (service, plan) = writers_with(|config| config.restart_faulted(policy));
        let gate = Gate::new();
        plan.prepare(Build::Wait(gate.clone()));
        let first = service.begin_session(create("panic")).unwrap();
        let id = first.session_id();
        let second = service.begin_turn(id, queued("x")).unwrap();
        plan.prepare(Build::Fail);
        gate.open();
        assert_matches!(first.wait(), Err(SessionError::Faulted { .. }));
        assert_matches!(second.wait(), Err(SessionError::Faulted { .. }));
        // The failed build is the one try of the policy.
        while state(&service, id) == SessionState::Building {
            thread::yield_now();
        }
        assert_eq!(state(&service, id), SessionState::Faulted);
        assert_eq!((plan.specs.lock().unwrap().len(), service.stats().restarts), (2, 0));
        service.restart(id, LONG).unwrap();
        assert_eq!(service.start_turn(id, turn("two")).unwrap().turn_id.get(), 3);
    });
}

#[test]
fn c56_a_policy_without_restarts_or_without_time_is_refused() {
    let config = |policy| EphemeralSessionService::configure(Writers(Arc::default())).restart_faulted(policy).build();
    let none = config(RestartPolicy::new(0, SECOND)).unwrap_err();
    assert!(matches!(none, ConfigError::OutOfRange { option: "restart_faulted", value: 0, min: 1, .. }), "{none:?}");
    let no_time = config(RestartPolicy::new(1, Duration::ZERO)).unwrap_err();
    assert_eq!(no_time, ConfigError::ZeroDuration { option: "restart_faulted" });
    assert_eq!(no_time.to_string(), "restart_faulted has a duration of zero");
    assert!(config(RestartPolicy::new(1, SECOND)).is_ok());
}

#[test]
fn c56_a_turn_may_restart_another_session_and_no_session_in_a_circle() {
    run(|| {
        let clock = ManualClock::new();
        let jobs = Jobs::with(|config| config.clock(clock.clone()).max_running_turns(1));
        let (parent, child) = (jobs.open(), jobs.open());
        let fault = || {
            jobs.prepare("panic", |_, _| panic!("scripted"));
            assert_matches!(jobs.service.start_turn(child, turn("panic")), Err(SessionError::Faulted { .. }));
        };
        fault();
        jobs.prepare("restart", move |service, turn| {
            let own = service.restart(turn.session_id(), LONG);
            assert_matches!(own, Err(SessionError::Reentrant { id }) if id == turn.session_id());
            service.restart(child, LONG)?;
            let service = turn.service().unwrap();
            let own = thread::scope(|scope| {
                let service = &service;
                scope.spawn(move || service.restart(parent, LONG)).join().unwrap()
            });
            assert_matches!(own, Err(SessionError::Reentrant { .. }));
            Ok("restarted".into())
        });
        assert_eq!(jobs.service.start_turn(parent, turn("restart")).unwrap().text, "restarted");
        assert_eq!(jobs.service.start_turn(child, turn("x")).unwrap().text, "x");
    });
}

#[test]
fn c56_the_cancellation_of_its_turn_ends_the_wait_for_a_restart() {
    run(|| {
        let gate = Gate::new();
        let (at, builds) = (gate.clone(), AtomicUsize::new(0));
        let builder = builder_fn(move |spec: &SessionSpec, session: &SessionContext| {
            if spec.model == "child" && builds.fetch_add(1, Ordering::SeqCst) == 1 {
                at.pass_regardless();
            }
            let agent = turnwise::agent_fn(|prompt, turn| {
                let Some((how, id)) = prompt.split_once(' ') else {
                    assert!(prompt != "panic", "scripted");
                    return Ok(turn.finish(prompt));
                };
                let id: SessionId = id.parse()?;
                let service = turn.service().expect("the test has a handle");
                let restarted = match how {
                    "here" => service.restart(id, Duration::MAX),
                    _ => thread::scope(|scope| {
                        let there = scope.spawn(|| service.restart(id, Duration::MAX));
                        turn.without_permit(|| there.join().unwrap())
                    }),
                };
                Ok(turn.finish(restarted.unwrap_err().code()))
            });
            agent.build_agent(spec, session)
        });
        let service = EphemeralSessionService::configure(builder).max_running_turns(1).build().unwrap();
        let child = service.open_session(SessionSpec::new().model("child")).unwrap();
        assert!(service.start_turn(child, turn("panic")).is_err());
        let parent = service.open_session(SessionSpec::new()).unwrap();
        let waiting = service.begin_turn(parent, turn(&format!("here {child}"))).unwrap();
        gate.wait_arrived(1);
        waiting.interrupt();
        assert_eq!(waiting.wait().unwrap().text, "SESSION_INTERRUPTED");
        // The build goes on.
        assert_eq!(state(&service, child), SessionState::Building);
        let busy = service.start_turn(parent, turn(&format!("there {child}"))).unwrap();
        assert_eq!(busy.text, "SESSION_BUSY");
        gate.open();
        service.wait_idle(child, LONG).unwrap();
        assert_eq!(service.start_turn(child, turn("x")).unwrap().text, "x");
    });
}

#[test]
fn c56_a_builder_that_waits_in_a_restart_closes_no_circle() {
    run(|| {
        let builder = builder_fn(|spec: &SessionSpec, session: &SessionContext| {
            if spec.resume.as_ref().is_some_and(|history| !history.messages().is_empty()) {
                let service = session.service().upgrade().expect("the test has a handle");
                let own = service.restart(session.session_id(), LONG);
                assert_matches!(own, Err(SessionError::Reentrant { .. }));
                // A sub-agent of the build.
                let helper = service.create_session(CreateSessionRequest::new("help"))?;
                service.archive(helper.session_id)?;
            }
            let agent = turnwise::agent_fn(|prompt, turn| {
                assert!(prompt != "panic", "scripted");
                Ok(turn.finish(prompt))
            });
            agent.build_agent(spec, session)
        });
        let service = EphemeralSessionService::new(builder, 2);
        let id = faulted(&service);
        service.restart(id, LONG).unwrap();
        assert_eq!(service.start_turn(id, turn("x")).unwrap().text, "x");
    });
}

#[test]
fn c56_a_caller_that_learns_of_the_fault_can_restart_at_once() {
    run(|| {
        let (service, plan) = writers();
        for _ in 0..50 {
            let gate = Gate::new();
            plan.prepare(Build::Wait(gate.clone()));
            let first = service.begin_session(create("panic")).unwrap();
            let id = first.session_id();
            let second = service.begin_turn(id, queued("x")).unwrap();
            gate.open();
            // It is answered before the turn that has faulted has ended.
            assert_matches!(second.wait(), Err(SessionError::Faulted { .. }));
            service.restart(id, LONG).unwrap();
            assert_matches!(first.wait(), Err(SessionError::Faulted { .. }));
            assert_eq!(service.start_turn(id, turn("y")).unwrap().turn_id.get(), 3);
            service.archive_wait(id, LONG).unwrap();
        }
    });
}

#[test]
fn c56_an_export_that_waits_for_the_faulted_turn_gets_the_committed_history() {
    run(|| {
        let clock = ManualClock::new();
        let policy = RestartPolicy::new(1, Duration::MAX);
        let (service, _plan) = writers_with(|config| config.clock(clock.clone()).restart_faulted(policy));
        let id = service.create_session(create("one")).unwrap().session_id;
        let running = service.begin_turn(id, turn("wait and panic")).unwrap();
        thread::scope(|scope| {
            let exporting = scope.spawn(|| service.export_session_timeout(id, LONG));
            // The turn and the export.
            clock.wait_for_waiters(2);
            running.interrupt();
            assert_matches!(running.wait(), Err(SessionError::Faulted { .. }));
            assert_eq!(exporting.join().unwrap().unwrap().messages(), one_pair());
        });
        service.wait_idle(id, LONG).unwrap();
        assert_eq!(service.export_session(id).unwrap().messages(), one_pair());
    });
}
