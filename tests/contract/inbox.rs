//! C39: what reaches a session through its injector.

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

/// Everything that an interaction's stream has, to its end.
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

/// Asserts that there is exactly one terminal event, at the end, and returns whether it is a success, with its text.
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
        other => panic!("{other:?} is the end of an interaction"),
    }
}

#[test]
fn c39_the_agent_is_told_where_a_message_comes_from() {
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
        // A turn that looks into the inbox makes room, and settles what it has taken with its own outcome.
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
fn c39_a_closed_inbox_gives_the_message_back_and_fails_what_is_in_it() {
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
fn c39_what_a_turn_has_drained_ends_with_the_turn_whichever_way() {
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
            // Only what was emitted after the interaction had been taken on belongs to it.
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
fn c39_every_follower_has_its_end_although_the_report_of_the_first_waits_for_room() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        let follow = |body: &str| injector.inject_with_subscription(body.into(), EventSource::Tcp).unwrap();
        let followed = [follow("one"), follow("two"), follow("three")];
        // Room for RunStarted and what the agent emits; the interactions are reported after that.
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
fn c39_a_stream_that_is_not_read_is_truncated_once_and_ends_all_the_same() {
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
                    // Closed or full: another way out, then.
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
fn c39_the_context_gives_the_agents_own_threads_an_injector() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec, context| {
            let injector = context.injector();
            // A timer of the agent's own.
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

/// An injector that only counts.
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

/// An agent with an injector of its own, which panics where it is told to.
struct Own {
    history: Session,
    injector: Arc<Counting>,
    panics: bool,
    dropped: Sender<usize>,
}

impl SessionAgent for Own {
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

impl Drop for Own {
    fn drop(&mut self) {
        // The session has let go of the injector by now: test, builder and agent are left.
        let holders = Arc::strong_count(&self.injector);
        self.dropped.send(holders).unwrap();
    }
}

fn own(panics: bool) -> (EphemeralSessionService<impl SessionAgentBuilder>, Arc<Counting>, Receiver<usize>) {
    let injector = Arc::new(Counting::default());
    let kept = Arc::clone(&injector);
    let (dropped, drops) = unbounded();
    let builder = builder_fn(move |_, context| {
        let history = Session::with_id(context.session_id());
        Ok(Own { history, injector: Arc::clone(&kept), panics, dropped: dropped.clone() })
    });
    (EphemeralSessionService::new(builder, 1), injector, drops)
}

#[test]
fn c39_an_agent_may_bring_its_own_injector() {
    run(|| {
        let (service, counting, drops) = own(false);
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
        let (service, _counting, drops) = own(true);
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

/// An injector and a line to peers, both of no use, that panic when they are dropped.
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

/// Gives out a new injector whenever it is asked, and a new line, or a panic instead of one.
struct Careless {
    history: Session,
    has_comms: bool,
}

impl SessionAgent for Careless {
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
fn c32_an_injector_and_a_line_that_panic_one_after_the_other_harm_nobody() {
    run(|| {
        for has_comms in [true, false] {
            let builder = builder_fn(move |_: &SessionSpec, context: &SessionContext| {
                Ok(Careless { history: Session::with_id(context.session_id()), has_comms })
            });
            let service = EphemeralSessionService::new(builder, 1);
            let id = service.open_session(SessionSpec::new()).unwrap();
            // Where comms panics, the injector is the agent's own all the same.
            let refused = service.event_injector(id).unwrap().inject("x".into(), EventSource::Tcp);
            assert_eq!(refused, Err(InjectError::Full("x".into())));
            assert_eq!(service.comms_runtime(id).is_some(), has_comms);
            // Asked again, then let go.
            let hosting = service.begin_turn(id, turn("x").host_mode(true)).unwrap();
            service.archive_wait(id, LONG).unwrap();
            assert_eq!(hosting.wait().unwrap().text, "x");
        }
    });
}

/// An agent that takes its time to go, and to show what it has come to.
struct Slow {
    history: Session,
    at_gate: Sender<&'static str>,
    gate: Receiver<()>,
}

impl Slow {
    fn pass(&self, what: &'static str) {
        self.at_gate.send(what).unwrap();
        self.gate.recv().unwrap();
    }
}

impl SessionAgent for Slow {
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

impl Drop for Slow {
    fn drop(&mut self) {
        self.pass("drop");
    }
}

#[test]
fn c39_what_is_reported_as_complete_is_shown_and_a_taken_session_takes_nothing_in() {
    run(|| {
        let (at_gate, arrivals) = unbounded();
        let (open, gate) = bounded(0);
        let builder = builder_fn(move |_, context: &SessionContext| {
            let history = Session::with_id(context.session_id());
            Ok(Slow { history, at_gate: at_gate.clone(), gate: gate.clone() })
        });
        let service = EphemeralSessionService::new(builder, 1);
        let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        let followed = injector.inject_with_subscription("y".into(), EventSource::Tcp).unwrap();
        // Its agent is done with the interaction, but nobody can read that yet.
        assert_eq!(arrivals.recv_timeout(LONG), Ok("snapshot"));
        assert!(followed.events.is_empty());
        assert_eq!(service.read(id).unwrap().state.message_count, 1);
        open.send(()).unwrap();
        assert_eq!(outcome(&followed).unwrap(), "y");
        assert_eq!(service.read(id).unwrap().state.message_count, 2);

        // Taken, the session takes nothing in, however long its agent takes to go.
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
