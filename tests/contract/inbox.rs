//! C39, C32: interactions that reach a session through its injector.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use turnwise::crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use turnwise::{
    agent_fn, builder_fn, AgentError, AgentEvent, ArchiveMode, CommsError, CommsRuntime, EphemeralSessionService,
    EventInjector, EventSource, InboxInteraction, InjectError, InteractionContent, InteractionId,
    InteractionSubscription, Message, RunResult, Session, SessionAgent, SessionAgentBuilder, SessionContext,
    SessionError, SessionId, SessionService, SessionSnapshot, SessionSpec, SessionState, SubscribableInjector,
    Subscription, TurnContext,
};

use crate::support::*;

/// All events of an interaction's stream, up to its end.
pub(crate) fn all(interaction: &InteractionSubscription) -> Vec<AgentEvent> {
    let mut seen = Vec::new();
    loop {
        match interaction.events.recv_timeout(LONG) {
            Ok(event) => seen.push(event),
            Err(error) => {
                assert!(error.is_disconnected(), "the stream has no end: {seen:?}");
                return seen;
            }
        }
    }
}

/// Asserts that the stream has exactly one terminal event, as its last. Returns the text of that event: `Ok` for a
/// completed interaction, `Err` for a failed one.
#[track_caller]
pub(crate) fn outcome(interaction: &InteractionSubscription) -> Result<String, String> {
    let mut seen = all(interaction);
    let last = seen.pop().expect("a terminal event");
    for event in &seen {
        let is_terminal =
            matches!(event, AgentEvent::InteractionComplete { .. } | AgentEvent::InteractionFailed { .. });
        assert!(!is_terminal, "{event:?} before {last:?}");
    }
    match last {
        AgentEvent::InteractionComplete { interaction_id, result } if interaction_id == interaction.id => Ok(result),
        AgentEvent::InteractionFailed { interaction_id, error } if interaction_id == interaction.id => Err(error),
        other => panic!("the last event of an interaction is {other:?}"),
    }
}

#[test]
fn c39_every_source_of_an_interaction_has_a_name() {
    let other = EventSource::Other("cron".into());
    let sources =
        [EventSource::Tcp, EventSource::Uds, EventSource::Stdin, EventSource::Webhook, EventSource::Rpc, other];
    assert_eq!(sources.map(|source| source.to_string()), ["tcp", "uds", "stdin", "webhook", "rpc", "cron"]);
}

#[test]
fn c39_a_full_inbox_gives_the_message_back() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.inbox_capacity(2));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        injector.inject("one".into(), EventSource::Tcp).unwrap();
        let second = injector.inject_with_subscription("two".into(), EventSource::Webhook).unwrap();
        let full = injector.inject("three".into(), EventSource::Uds).unwrap_err();
        assert_eq!(full, InjectError::Full("three".into()));
        assert!(!format!("{full:?}").contains("three"));
        assert_eq!(full.into_body(), "three");
        let full = injector.inject_with_subscription("four".into(), EventSource::Rpc).unwrap_err();
        assert_eq!(full.into_body(), "four");
        // A turn that drains the inbox makes room, and settles the drained interactions with its own result.
        let running = service.begin_turn(id, turn("drain")).unwrap();
        stage.wait_entered();
        stage.release();
        assert_eq!(running.wait().unwrap().text, "one, two");
        assert_eq!(all(&second)[0], delta(2));
        injector.inject("three".into(), EventSource::Stdin).unwrap();

        let (service, _stage) = scripted_with(|config| config.inbox_capacity(0));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        assert_eq!(injector.inject("x".into(), EventSource::Tcp), Err(InjectError::Full("x".into())));
        injector.dismiss(EventSource::Tcp).unwrap();
    });
}

#[test]
fn c39_a_closed_inbox_gives_the_message_back_and_fails_its_interactions() {
    run(|| {
        for end in ["archive", "take", "shutdown", "drop", "fault"] {
            let (service, _stage) = scripted(1);
            let id = service.open_session(SessionSpec::new()).unwrap();
            let injector = service.event_injector(id).unwrap();
            let waiting = injector.inject_with_subscription("never run".into(), EventSource::Tcp).unwrap();
            match end {
                "archive" => service.archive(id).unwrap(),
                "take" => drop(service.take_session(id, LONG).unwrap()),
                "shutdown" => drop(service.shutdown(LONG)),
                "drop" => drop(service),
                _ => drop(service.start_turn(id, turn("panic")).unwrap_err()),
            }
            outcome(&waiting).unwrap_err();
            let closed = injector.inject("late".into(), EventSource::Other("timer".into())).unwrap_err();
            assert_eq!(closed, InjectError::Closed("late".into()), "{end}");
            let closed = injector.inject_with_subscription("late".into(), EventSource::Tcp).unwrap_err();
            assert_eq!(closed, InjectError::Closed("late".into()), "{end}");
            assert_matches!(injector.dismiss(EventSource::Tcp), Err(InjectError::Closed(_)));
        }
    });
}

#[test]
fn c39_an_unknown_or_archived_session_has_no_injector() {
    run(|| {
        let (service, stage) = scripted(1);
        assert!(service.event_injector(SessionId::new()).is_none());
        assert!(service.comms_runtime(SessionId::new()).is_none());
        let held = service.begin_session(create("hold")).unwrap();
        let (id, _) = stage.wait_entered();
        assert!(service.event_injector(id).is_some());
        assert!(service.comms_runtime(id).is_none());
        service.archive(id).unwrap();
        assert!(service.event_injector(id).is_none());
        stage.release();
        held.wait().unwrap();
    });
}

#[test]
fn c39_a_drained_interaction_ends_with_its_turn_however_the_turn_ends() {
    run(|| {
        let jobs = Jobs::new(4);
        for end in ["ok", "error", "panic", "interrupt"] {
            let id = jobs.open();
            let injector = jobs.service.event_injector(id).unwrap();
            let followed = injector.inject_with_subscription("question".into(), EventSource::Uds).unwrap();
            let watching = jobs.service.subscribe(id, Subscription::new()).unwrap();
            let (enter, entered) = unbounded();
            let running = jobs.begin(id, end, move |_, turn| {
                turn.emit(delta(1))?;
                let drained = turn.drain_inbox();
                assert_eq!((drained.len(), drained[0].from.as_str()), (1, "uds"));
                assert_matches!(&drained[0].content, InteractionContent::Message { body } if body == "question");
                assert!(turn.drain_inbox().is_empty());
                turn.emit(delta(2))?;
                match end {
                    "ok" => Ok("answer".into()),
                    "error" => Err(AgentError::Internal("no answer".into())),
                    "panic" => panic!("no answer at all"),
                    _ => {
                        enter.send(()).unwrap();
                        turn.sleep(LONG)?;
                        unreachable!()
                    }
                }
            });
            if end == "interrupt" {
                entered.recv().unwrap();
                running.interrupt();
            }
            let result = running.wait();
            assert_eq!(result.is_ok(), end == "ok");
            // The stream of the interaction has only the events that the turn emits after the drain.
            assert_eq!(followed.events.recv_timeout(LONG).unwrap(), delta(2));
            match outcome(&followed) {
                Ok(text) => assert_eq!((end, text.as_str()), ("ok", "answer")),
                Err(text) => {
                    let expected = match end {
                        "error" => "no answer",
                        "panic" => "no answer at all",
                        _ => "interrupted",
                    };
                    assert!(text.contains(expected), "{end}: {text}");
                }
            }
            jobs.service.archive_wait(id, LONG).unwrap();
            let seen: Vec<_> = watching.map(|event| event.event).collect();
            assert_eq!(seen.len(), 5, "{seen:?}");
            assert_matches!(&seen[3], AgentEvent::InteractionComplete { .. } | AgentEvent::InteractionFailed { .. });
        }
    });
}

#[test]
fn c39_every_subscription_ends_although_the_first_report_waits_for_room() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        let follow = |body: &str| injector.inject_with_subscription(body.into(), EventSource::Tcp).unwrap();
        let followed = [follow("one"), follow("two"), follow("three")];
        // There is room for `RunStarted` and for the agent's event. The reports of the interactions come after them.
        let (event_tx, events) = bounded(2);
        let running = service.begin_turn(id, turn("drain").event_tx(event_tx)).unwrap();
        stage.wait_entered();
        stage.release();
        for interaction in &followed {
            assert_eq!(outcome(interaction).unwrap(), "one, two, three");
        }
        assert_eq!(events.iter().count(), 6);
        assert_eq!(running.wait().unwrap().text, "one, two, three");
    });
}

#[test]
fn c39_a_stream_that_is_not_read_is_truncated_once_and_still_ends() {
    run(|| {
        let (service, _stage) = scripted(1);
        let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
        let injector = service.event_injector(hosting.session_id()).unwrap();
        let unread = injector.inject_with_subscription("emit 5000".into(), EventSource::Tcp).unwrap();
        injector.dismiss(EventSource::Tcp).unwrap();
        hosting.wait().unwrap();
        let seen = all(&unread);
        assert_eq!(seen.len(), 1_026);
        assert_eq!(seen[..1_024], (0..1_024).map(delta).collect::<Vec<_>>());
        assert_matches!(&seen[1_024], AgentEvent::StreamTruncated { .. });
        assert_matches!(&seen[1_025], AgentEvent::InteractionComplete { .. });
    });
}

#[test]
fn c39_injecting_races_with_the_close_and_every_stream_ends_exactly_once() {
    run(|| {
        for round in 0..200 {
            let (service, _stage) = scripted(1);
            let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
            let id = hosting.session_id();
            let injector = service.event_injector(id).unwrap();
            let followed = thread::scope(|scope| {
                let injecting = scope.spawn(|| {
                    let mut followed = Vec::new();
                    for _ in 0..100 {
                        match injector.inject_with_subscription("emit 2".into(), EventSource::Tcp) {
                            Ok(subscription) => followed.push(subscription),
                            Err(InjectError::Closed(_)) => break,
                            Err(InjectError::Full(_)) => thread::yield_now(),
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    followed
                });
                match round % 3 {
                    0 => service.archive_with(id, ArchiveMode::Drain).unwrap(),
                    1 => service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
                    // The inbox may be full. Then the shutdown below ends the session.
                    _ => drop(injector.inject("panic".into(), EventSource::Tcp)),
                }
                injecting.join().unwrap()
            });
            service.shutdown(LONG);
            drop(hosting.wait());
            for subscription in followed {
                drop(outcome(&subscription));
            }
        }
    });
}

#[test]
fn c39_the_context_has_an_injector_for_threads_of_the_agent() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec, context| {
            let injector = context.injector();
            // This thread stands for a timer of the agent.
            thread::spawn(move || {
                injector.inject("tick".into(), EventSource::Other("timer".into())).unwrap();
                injector.dismiss(EventSource::Other("timer".into())).unwrap();
            });
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let result = service.create_session(create("x").host_mode(true)).unwrap();
        assert_eq!((result.text.as_str(), result.turns), ("tick", 2));
    });
}

/// An injector that counts the messages and drops them.
#[derive(Default)]
struct Counting(AtomicUsize);

impl EventInjector for Counting {
    fn inject(&self, _body: String, _source: EventSource) -> Result<(), InjectError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl SubscribableInjector for Counting {
    fn inject_with_subscription(
        &self,
        body: String,
        _source: EventSource,
    ) -> Result<InteractionSubscription, InjectError> {
        Err(InjectError::Full(body))
    }
}

/// An agent with an injector of its own. With `panics` its `event_injector` panics.
struct OwnInjector {
    history: Session,
    injector: Arc<Counting>,
    panics: bool,
    dropped: Sender<usize>,
}

impl SessionAgent for OwnInjector {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(prompt))
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(format!("{} says {}", interaction.from, interaction.text())))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        assert!(!self.panics, "asked for an injector");
        Some(Arc::clone(&self.injector) as Arc<dyn SubscribableInjector>)
    }
}

impl Drop for OwnInjector {
    fn drop(&mut self) {
        // The session has dropped the injector before its agent. The test, the builder and the agent still own it.
        let holders = Arc::strong_count(&self.injector);
        self.dropped.send(holders).unwrap();
    }
}

fn own_injector(panics: bool) -> (EphemeralSessionService<impl SessionAgentBuilder>, Arc<Counting>, Receiver<usize>) {
    let injector = Arc::new(Counting::default());
    let kept = Arc::clone(&injector);
    let (dropped, drops) = unbounded();
    let builder = builder_fn(move |_, context| {
        let history = Session::with_id(context.session_id());
        Ok(OwnInjector { history, injector: Arc::clone(&kept), panics, dropped: dropped.clone() })
    });
    (EphemeralSessionService::new(builder, 1), injector, drops)
}

#[test]
fn c39_an_agent_may_bring_its_own_injector() {
    run(|| {
        let (service, counting, drops) = own_injector(false);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        injector.inject("x".into(), EventSource::Tcp).unwrap();
        assert_eq!(counting.0.load(Ordering::SeqCst), 1);
        assert_eq!(injector.dismiss(EventSource::Tcp), Err(InjectError::Unsupported));
        drop(injector);
        service.archive(id).unwrap();
        assert_eq!(drops.recv_timeout(LONG), Ok(3));
    });
}

#[test]
fn c32_a_panic_in_event_injector_leaves_the_session_its_own_inbox() {
    run(|| {
        let (service, _counting, drops) = own_injector(true);
        let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        let followed = injector.inject_with_subscription("hello".into(), EventSource::Rpc).unwrap();
        assert_eq!(outcome(&followed).unwrap(), "rpc says hello");
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Running);
        service.archive(id).unwrap();
        assert_eq!(hosting.wait().unwrap().text, "rpc says hello");
        drops.recv_timeout(LONG).unwrap();
        assert_matches!(service.start_turn(id, turn("x")), Err(SessionError::NotFound { .. }));
    });
}

/// An injector and a comms runtime that refuse every message, and that panic when they are dropped.
struct PanicsOnDrop;

impl EventInjector for PanicsOnDrop {
    fn inject(&self, body: String, _source: EventSource) -> Result<(), InjectError> {
        Err(InjectError::Full(body))
    }
}

impl SubscribableInjector for PanicsOnDrop {
    fn inject_with_subscription(
        &self,
        body: String,
        _source: EventSource,
    ) -> Result<InteractionSubscription, InjectError> {
        Err(InjectError::Full(body))
    }
}

impl CommsRuntime for PanicsOnDrop {
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError> {
        Err(CommsError::UnknownPeer { to: to.to_owned(), content })
    }

    fn peers(&self) -> Vec<String> {
        Vec::new()
    }

    fn inbox(&self) -> Option<Receiver<InboxInteraction>> {
        None
    }
}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

/// An agent that returns a new injector and a new comms runtime at every call. Without `has_comms` its `comms_runtime`
/// panics.
struct PanickingParts {
    history: Session,
    has_comms: bool,
}

impl SessionAgent for PanickingParts {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        Some(Arc::new(PanicsOnDrop))
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        assert!(self.has_comms, "asked for comms");
        Some(Arc::new(PanicsOnDrop))
    }
}

#[test]
fn c32_an_injector_and_comms_that_panic_when_dropped_are_contained() {
    run(|| {
        for has_comms in [true, false] {
            let builder = builder_fn(move |_: &SessionSpec, context: &SessionContext| {
                Ok(PanickingParts { history: Session::with_id(context.session_id()), has_comms })
            });
            let service = EphemeralSessionService::new(builder, 1);
            let id = service.open_session(SessionSpec::new()).unwrap();
            // A panic in `comms_runtime` leaves the session the injector of its agent.
            let refused = service.event_injector(id).unwrap().inject("x".into(), EventSource::Tcp);
            assert_eq!(refused, Err(InjectError::Full("x".into())));
            assert_eq!(service.comms_runtime(id).is_some(), has_comms);
            // Host mode asks the agent again. The end of the session drops the objects.
            let hosting = service.begin_turn(id, turn("x").host_mode(true)).unwrap();
            service.archive_wait(id, LONG).unwrap();
            assert_eq!(hosting.wait().unwrap().text, "x");
        }
    });
}

/// An agent that waits at a gate in its drop, and in its snapshot after the second message.
struct GatedAgent {
    history: Session,
    at_gate: Sender<&'static str>,
    gate: Receiver<()>,
}

impl GatedAgent {
    fn pass(&self, what: &'static str) {
        self.at_gate.send(what).unwrap();
        self.gate.recv().unwrap();
    }
}

impl SessionAgent for GatedAgent {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.history.push(Message::user(prompt.as_str()));
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        if self.history.messages().len() == 2 {
            self.pass("snapshot");
        }
        SessionSnapshot::from(&self.history)
    }
}

impl Drop for GatedAgent {
    fn drop(&mut self) {
        self.pass("drop");
    }
}

#[test]
fn c39_a_completed_interaction_is_published_and_a_take_closes_the_inbox() {
    run(|| {
        let (at_gate, arrivals) = unbounded();
        let (open, gate) = bounded(0);
        let builder = builder_fn(move |_, context: &SessionContext| {
            let history = Session::with_id(context.session_id());
            Ok(GatedAgent { history, at_gate: at_gate.clone(), gate: gate.clone() })
        });
        let service = EphemeralSessionService::new(builder, 1);
        let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        let followed = injector.inject_with_subscription("y".into(), EventSource::Tcp).unwrap();
        // The agent has finished the interaction, but its snapshot is not published yet.
        assert_eq!(arrivals.recv_timeout(LONG), Ok("snapshot"));
        assert!(followed.events.is_empty());
        assert_eq!(service.read(id).unwrap().state.message_count, 1);
        open.send(()).unwrap();
        assert_eq!(outcome(&followed).unwrap(), "y");
        assert_eq!(service.read(id).unwrap().state.message_count, 2);

        // A taken session accepts no interaction, also while the drop of its agent waits.
        thread::scope(|scope| {
            let taking = scope.spawn(|| service.take_session(id, LONG).unwrap());
            assert_eq!(arrivals.recv_timeout(LONG), Ok("drop"));
            assert_matches!(injector.inject("late".into(), EventSource::Tcp), Err(InjectError::Closed(_)));
            open.send(()).unwrap();
            assert_eq!(taking.join().unwrap().messages().len(), 2);
        });
        assert_eq!(hosting.wait().unwrap().text, "y");
    });
}
