//! C40, C21: host mode, how it begins and how it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use turnwise::crossbeam_channel::{bounded, unbounded, Sender};
use turnwise::{
    agent_fn, AgentError, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventSource, InjectError,
    InteractionContent, RunResult, Session, SessionAgent, SessionError, SessionId, SessionQuery, SessionService,
    SessionSpec, SessionState, SkillId, SubscribableInjector, Subscription, TurnContext, TurnHandle, TurnId,
};

use crate::inbox::{all, outcome};
use crate::support::*;

/// A scripted session in host mode, after its prompt.
pub(crate) struct Hosted {
    pub(crate) service: Service,
    pub(crate) stage: Stage,
    pub(crate) turn: TurnHandle,
    pub(crate) injector: Arc<dyn SubscribableInjector>,
}

pub(crate) fn hosted(prompt: &str) -> Hosted {
    let (service, stage) = scripted(4);
    let (event_tx, events) = unbounded();
    let turn = service.begin_session(create(prompt).host_mode(true).event_tx(event_tx)).unwrap();
    let injector = service.event_injector(turn.session_id()).unwrap();
    let hosted = Hosted { service, stage, turn, injector };
    // An answer to the first interaction shows that host mode has begun.
    assert_eq!(hosted.ask("first"), "first");
    drop(events);
    hosted
}

impl Hosted {
    pub(crate) fn id(&self) -> SessionId {
        self.turn.session_id()
    }

    pub(crate) fn ask(&self, body: &str) -> String {
        let followed = self.injector.inject_with_subscription(body.into(), EventSource::Stdin).unwrap();
        outcome(&followed).unwrap()
    }

    pub(crate) fn dismiss(self) -> RunResult {
        self.injector.dismiss(EventSource::Stdin).unwrap();
        self.turn.wait().unwrap()
    }
}

#[test]
fn c40_the_prompt_runs_first_then_interactions_and_their_figures_add_up() {
    run(|| {
        let (service, _stage) = scripted(1);
        let turn_1 = service.begin_session(create("cost 5").host_mode(true)).unwrap();
        let id = turn_1.session_id();
        let injector = service.event_injector(id).unwrap();
        for body in ["cost 7", "cost 11"] {
            injector.inject(body.into(), EventSource::Tcp).unwrap();
        }
        let failing = injector.inject_with_subscription("fail".into(), EventSource::Tcp).unwrap();
        let last = injector.inject_with_subscription("cost 13".into(), EventSource::Tcp).unwrap();
        injector.dismiss(EventSource::Tcp).unwrap();
        // A second dismissal changes nothing.
        drop(injector.dismiss(EventSource::Tcp));
        let result = turn_1.wait().unwrap();
        assert_eq!((result.session_id, result.turn_id), (id, TurnId::new(1)));
        assert_eq!((result.usage.input_tokens, result.turns, result.tool_calls), (36, 4, 4));
        assert_eq!(result.text, "cost 13");
        assert!(outcome(&failing).unwrap_err().contains("scripted"));
        assert_eq!(outcome(&last).unwrap(), "cost 13");
        // The session is usable, and its next turn is not in host mode.
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
        assert_eq!(service.start_turn(id, turn("x")).unwrap().text, "x");
        assert_eq!(service.stats().turns_completed, 2);
    });
}

#[test]
fn c40_every_call_that_starts_a_turn_can_start_host_mode() {
    run(|| {
        let (service, _stage) = scripted(1);
        let dismiss = |id: SessionId| {
            service.event_injector(id).unwrap().dismiss(EventSource::Rpc).unwrap();
        };
        let id = service.open_session(SessionSpec::new()).unwrap();
        // A session that is dismissed before its prompt leaves host mode right after the prompt.
        dismiss(id);
        assert_eq!(service.start_turn(id, turn("one").host_mode(true)).unwrap().text, "one");
        let begun = service.begin_turn(id, turn("two").host_mode(true)).unwrap();
        dismiss(id);
        assert_eq!(begun.wait().unwrap().text, "two");
        let stream = service.stream_turn(id, turn("three").host_mode(true)).unwrap();
        dismiss(id);
        assert_eq!(stream.wait().unwrap().text, "three");
        dismiss(id);
        let mut events = 0;
        let result = service.start_turn_with(id, turn("four").host_mode(true), &mut |_| events += 1).unwrap();
        assert_eq!((result.text.as_str(), events), ("four", 3));
        service.archive_wait(id, LONG).unwrap();
        let stream = service.stream_session(create("five").host_mode(true)).unwrap();
        dismiss(stream.handle().session_id());
        assert_eq!(stream.wait().unwrap().text, "five");
    });
}

#[test]
fn c40_interrupt_timeout_archive_and_shutdown_end_host_mode() {
    run(|| {
        let is_cancelled = |turn: TurnHandle, reason| assert_cancelled(turn.wait(), reason);
        let host = hosted("x");
        host.service.interrupt(host.id()).unwrap();
        let id = host.id();
        is_cancelled(host.turn, CancelReason::Interrupted);
        assert_eq!(host.service.start_turn(id, turn("usable")).unwrap().text, "usable");

        let host = hosted("x");
        host.turn.interrupt();
        is_cancelled(host.turn, CancelReason::Interrupted);

        let host = hosted("x");
        host.service.archive_with(host.id(), ArchiveMode::Interrupt).unwrap();
        is_cancelled(host.turn, CancelReason::Archived);

        let host = hosted("x");
        assert!(host.service.shutdown(LONG).stuck.is_empty());
        is_cancelled(host.turn, CancelReason::Shutdown);

        let host = hosted("x");
        assert!(host.service.shutdown_with(ArchiveMode::Drain, LONG).stuck.is_empty());
        assert_eq!(host.turn.wait().unwrap().text, "first");

        let host = hosted("x");
        host.service.archive(host.id()).unwrap();
        assert_eq!(host.turn.wait().unwrap().text, "first");

        let host = hosted("x");
        drop(host.service);
        is_cancelled(host.turn, CancelReason::Shutdown);

        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let timed = service.start_turn(id, turn("x").host_mode(true).timeout(SHORT));
        assert_cancelled(timed, CancelReason::DeadlineExceeded);
        assert_eq!(service.start_turn(id, turn("usable")).unwrap().text, "usable");
    });
}

#[test]
fn c40_a_drain_finishes_a_running_interaction_and_an_interrupt_cancels_it() {
    run(|| {
        let host = hosted("x");
        let held = host.injector.inject_with_subscription("hold".into(), EventSource::Tcp).unwrap();
        let queued = host.injector.inject_with_subscription("never run".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        host.service.archive(host.id()).unwrap();
        outcome(&queued).unwrap_err();
        host.stage.release();
        assert_eq!(outcome(&held).unwrap(), "released");
        assert_eq!(host.turn.wait().unwrap().text, "released");

        let host = hosted("x");
        let id = host.id();
        let held = host.injector.inject_with_subscription("hold".into(), EventSource::Tcp).unwrap();
        let queued = host.injector.inject_with_subscription("never run".into(), EventSource::Tcp).unwrap();
        host.injector.inject("later".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        host.service.interrupt(id).unwrap();
        assert!(outcome(&held).unwrap_err().contains("interrupted"));
        assert_cancelled(host.turn.wait(), CancelReason::Interrupted);
        // An interaction with a subscriber fails at once. One without a subscriber waits for the next host mode.
        assert!(outcome(&queued).unwrap_err().contains("host mode ended"));
        host.injector.dismiss(EventSource::Tcp).unwrap();
        assert_eq!(host.service.start_turn(id, turn("again").host_mode(true)).unwrap().text, "later");
    });
}

#[test]
fn c40_a_timeout_and_the_drop_of_the_service_cancel_a_running_interaction() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        let held = injector.inject_with_subscription("hold".into(), EventSource::Webhook).unwrap();
        let timed = service.begin_turn(id, turn("x").host_mode(true).timeout(SHORT)).unwrap();
        assert_cancelled(timed.wait(), CancelReason::DeadlineExceeded);
        // The deadline ends the interaction only if the interaction began before it.
        if stage.entered.try_recv().is_ok() {
            assert!(outcome(&held).unwrap_err().contains("deadline"));
        }
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);

        let host = hosted("x");
        let held = host.injector.inject_with_subscription("hold".into(), EventSource::Tcp).unwrap();
        let queued = host.injector.inject_with_subscription("never run".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        drop(host.service);
        assert!(outcome(&held).unwrap_err().contains("shut"));
        outcome(&queued).unwrap_err();
        assert_cancelled(host.turn.wait(), CancelReason::Shutdown);
    });
}

#[test]
fn c40_a_panic_faults_the_session_and_fails_its_interactions() {
    run(|| {
        let host = hosted("x");
        let held = host.injector.inject_with_subscription("hold".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        let panicking = host.injector.inject_with_subscription("panic".into(), EventSource::Tcp).unwrap();
        let queued = host.injector.inject_with_subscription("never run".into(), EventSource::Tcp).unwrap();
        host.stage.release();
        assert_eq!(outcome(&held).unwrap(), "released");
        assert!(outcome(&panicking).unwrap_err().contains("scripted"));
        outcome(&queued).unwrap_err();
        let id = host.id();
        assert_matches!(host.turn.wait(), Err(SessionError::Faulted { .. }));
        assert_eq!(host.service.read(id).unwrap().state.state, SessionState::Faulted);
        assert_eq!(host.service.export_session(id).unwrap().messages().len(), 6);
        assert_matches!(host.injector.inject("x".into(), EventSource::Tcp), Err(InjectError::Closed(_)));
        assert_eq!(host.service.stats().faults, 1);
        host.service.archive_wait(id, LONG).unwrap();
    });
}

#[test]
fn c40_a_prompt_that_fails_panics_or_is_cancelled_begins_no_host_mode() {
    run(|| {
        let (service, stage) = scripted(2);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let failed = service.start_turn(id, turn("fail").host_mode(true));
        assert_matches!(failed, Err(SessionError::Agent { source: AgentError::Internal(_), .. }));
        let held = service.begin_turn(id, turn("hold").host_mode(true)).unwrap();
        stage.wait_entered();
        held.interrupt();
        assert_cancelled(held.wait(), CancelReason::Interrupted);
        // Host mode does not reach a later turn.
        assert_eq!(service.start_turn(id, turn("plain")).unwrap().text, "plain");
        let faulted = service.start_turn(id, turn("panic").host_mode(true));
        assert_matches!(faulted, Err(SessionError::Faulted { .. }));
        let held = service.begin_session(create("hold").host_mode(true)).unwrap();
        stage.wait_entered();
        service.archive(held.session_id()).unwrap();
        stage.release();
        assert_eq!(held.wait().unwrap().text, "released");
    });
}

#[test]
fn c40_between_interactions_reads_and_exports_work_and_turns_are_busy() {
    run(|| {
        let host = hosted("x");
        let id = host.id();
        assert_eq!(host.service.export_session(id).unwrap().messages().len(), 4);
        let view = host.service.read(id).unwrap().state;
        assert_eq!((view.message_count, view.state), (4, SessionState::Running));
        assert_eq!(view.last_assistant_text.as_deref(), Some("first"));
        assert!(host.service.list(SessionQuery::new()).unwrap()[0].is_active);
        assert_matches!(host.service.start_turn(id, turn("x")), Err(SessionError::Busy { .. }));
        assert_matches!(host.service.begin_turn(id, turn("x").host_mode(true)), Err(SessionError::Busy { .. }));
        // An export during an interaction is answered after that interaction, not after host mode.
        let held = host.injector.inject_with_subscription("hold".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        assert_matches!(host.service.export_session_timeout(id, SHORT), Err(SessionError::Timeout { .. }));
        thread::scope(|scope| {
            let export = scope.spawn(|| host.service.export_session(id).unwrap().messages().len());
            host.stage.release();
            assert_eq!(export.join().unwrap(), 6);
        });
        drop(all(&held));
        assert_eq!(host.dismiss().text, "released");
    });
}

#[test]
fn c40_a_session_in_host_mode_can_be_taken_between_interactions() {
    run(|| {
        let host = hosted("x");
        let id = host.id();
        let taken = host.service.take_session(id, LONG).unwrap();
        assert_eq!(taken.messages().len(), 4);
        assert_eq!(host.turn.wait().unwrap().text, "first");
        assert_matches!(host.injector.inject("x".into(), EventSource::Tcp), Err(InjectError::Closed(_)));
        assert_eq!(host.service.stats().sessions, 0);
        let resumed = host.service.create_session(create("on").session(SessionSpec::new().resume(taken))).unwrap();
        assert_eq!(resumed.session_id, id);

        // A take that times out changes nothing.
        let host = hosted("x");
        let held = host.injector.inject_with_subscription("hold".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        assert_matches!(host.service.take_session(host.id(), SHORT), Err(SessionError::Timeout { .. }));
        host.stage.release();
        assert_eq!(outcome(&held).unwrap(), "released");
        assert_eq!(host.ask("still there"), "still there");
        assert_eq!(host.dismiss().text, "still there");
    });
}

#[test]
fn c40_the_events_are_those_of_one_turn_with_each_interaction_reported() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let subscribed = service.subscribe(id, Subscription::new()).unwrap();
        let (event_tx, events) = unbounded();
        let hosting = service.begin_turn(id, turn("emit 1").host_mode(true).event_tx(event_tx)).unwrap();
        let injector = service.event_injector(id).unwrap();
        let two = injector.inject_with_subscription("emit 2".into(), EventSource::Tcp).unwrap();
        let fail = injector.inject_with_subscription("fail".into(), EventSource::Tcp).unwrap();
        injector.dismiss(EventSource::Tcp).unwrap();
        hosting.wait().unwrap();
        let seen: Vec<_> = events.iter().collect();
        assert_eq!(seen.len(), 8, "{seen:?}");
        assert_matches!(&seen[0], AgentEvent::RunStarted { prompt, .. } if prompt == "emit 1");
        assert_eq!(seen[1..4], [delta(0), delta(0), delta(1)]);
        assert_matches!(&seen[4], AgentEvent::InteractionComplete { interaction_id, .. } if *interaction_id == two.id);
        assert_matches!(&seen[5], AgentEvent::InteractionFailed { interaction_id, .. } if *interaction_id == fail.id);
        assert_matches!(&seen[6], AgentEvent::InteractionComplete { .. });
        assert_matches!(&seen[7], AgentEvent::RunCompleted { result, .. } if result == "emitted");
        // The stream of an interaction has the events of that interaction only.
        let own = all(&two);
        assert_eq!(own[..2], [delta(0), delta(1)]);
        assert_eq!(own.len(), 3);
        assert_eq!(all(&fail).len(), 1);
        service.archive_wait(id, LONG).unwrap();
        let heard: Vec<_> = subscribed.collect();
        assert!(heard.iter().all(|event| event.turn_id == Some(TurnId::new(1))));
        assert_eq!(heard.into_iter().map(|event| event.event).collect::<Vec<_>>(), seen);
    });
}

#[test]
fn c40_no_running_permit_is_held_while_a_session_waits_in_host_mode() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.max_running_turns(1));
        let hosts: Vec<_> = (0..3).map(|_| service.begin_session(create("x").host_mode(true)).unwrap()).collect();
        let ask = |host: &TurnHandle, body: &str| {
            let injector = service.event_injector(host.session_id()).unwrap();
            injector.inject_with_subscription(body.into(), EventSource::Tcp).unwrap()
        };
        for host in &hosts {
            assert_eq!(outcome(&ask(host, "hello")).unwrap(), "hello");
        }
        // All three sessions wait, so a plain turn runs. Then one interaction holds the only permit.
        assert_eq!(service.create_session(create("plain")).unwrap().text, "plain");
        let held = ask(&hosts[0], "hold");
        stage.wait_entered();
        assert_eq!(service.stats().running_turns, 1);
        let waiting = ask(&hosts[1], "second");
        assert_eq!(waiting.events.recv_timeout(SHORT), Err(turnwise::crossbeam_channel::RecvTimeoutError::Timeout));
        // An interaction that waits for its permit can be interrupted.
        hosts[1].interrupt();
        assert!(outcome(&waiting).unwrap_err().contains("interrupted"));
        stage.release();
        assert_eq!(outcome(&held).unwrap(), "released");
        assert_eq!(outcome(&ask(&hosts[2], "third")).unwrap(), "third");
        assert!(service.shutdown(LONG).stuck.is_empty());
    });
}

#[test]
fn c40_an_agent_may_await_another_sessions_interaction_under_a_limit_of_one() {
    run(|| {
        let jobs = Jobs::new(1);
        let (asking, asked) = (jobs.open(), jobs.open());
        let hosting = jobs.service.begin_turn(asked, turn("x").host_mode(true)).unwrap();
        let follow = move |service: &dyn SessionService, body: &str| {
            let injector = service.event_injector(asked).expect("the session is live");
            injector.inject_with_subscription(body.into(), EventSource::Rpc).map_err(AgentError::other)
        };
        let answered = jobs.begin(asking, "ask", move |service, _| match follow(service, "hello")?.last() {
            Some(AgentEvent::InteractionComplete { result, .. }) => Ok(result),
            other => Ok(format!("{other:?}")),
        });
        assert_eq!(answered.wait().unwrap().text, "hello");
        // A subscriber can be interrupted while it waits for an interaction that does not end.
        let (enter, entered) = unbounded();
        jobs.prepare("endless", |_, turn| turn.sleep(LONG).map(|()| String::new()).map_err(AgentError::from));
        let waiting = jobs.begin(asking, "ask in vain", move |service, turn| {
            let followed = follow(service, "endless")?;
            enter.send(()).unwrap();
            assert_eq!(followed.count(), 0);
            turn.check()?;
            Ok("not reached".into())
        });
        entered.recv().unwrap();
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        jobs.service.archive_with(asked, ArchiveMode::Interrupt).unwrap();
        assert_cancelled(hosting.wait(), CancelReason::Archived);
    });
}

#[test]
fn c40_a_dismissal_that_the_agent_drains_still_ends_host_mode() {
    run(|| {
        let host = hosted("x");
        let draining = host.injector.inject_with_subscription("drain".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        let drained = host.injector.inject_with_subscription("along with it".into(), EventSource::Tcp).unwrap();
        host.injector.dismiss(EventSource::Tcp).unwrap();
        let left = host.injector.inject_with_subscription("too".into(), EventSource::Tcp).unwrap();
        host.stage.release();
        for interaction in [&draining, &drained, &left] {
            assert_eq!(outcome(interaction).unwrap(), "along with it, , too");
        }
        assert_eq!(host.turn.wait().unwrap().text, "along with it, , too");
    });
}

#[test]
fn c21_an_interrupt_reaches_host_mode_that_waits_for_its_inbox_or_for_room() {
    run(|| {
        let host = hosted("x");
        host.service.interrupt(host.id()).unwrap();
        assert_cancelled(host.turn.wait(), CancelReason::Interrupted);

        // `RunStarted` fills the receiver, so the report of the interaction waits for room.
        let (service, _stage) = scripted(1);
        let (event_tx, events) = bounded(1);
        let hosting = service.begin_session(create("x").host_mode(true).event_tx(event_tx)).unwrap();
        let injector = service.event_injector(hosting.session_id()).unwrap();
        let followed = injector.inject_with_subscription("y".into(), EventSource::Tcp).unwrap();
        assert_eq!(outcome(&followed).unwrap(), "y");
        hosting.interrupt();
        assert_cancelled(hosting.wait(), CancelReason::Interrupted);
        assert_eq!(events.iter().count(), 1);
    });
}

/// An agent that counts its calls of `set_skill_references` and of `cancel`.
struct CountsCalls {
    history: Session,
    skills: Arc<AtomicUsize>,
    rolled_back: Arc<AtomicUsize>,
    enter: Sender<()>,
}

impl SessionAgent for CountsCalls {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if prompt == "wait" {
            self.enter.send(()).expect("the test listens");
            turn.sleep(LONG)?;
        }
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn set_skill_references(&mut self, _skills: Option<Vec<SkillId>>) {
        self.skills.fetch_add(1, Ordering::SeqCst);
    }

    fn cancel(&mut self) {
        self.rolled_back.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn c40_skills_are_set_once_and_an_interrupted_interaction_is_rolled_back() {
    run(|| {
        let (skills, rolled_back) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let kept = (Arc::clone(&skills), Arc::clone(&rolled_back));
        let (enter, entered) = unbounded();
        let builder = turnwise::builder_fn(move |_, context| {
            let (skills, rolled_back) = (Arc::clone(&kept.0), Arc::clone(&kept.1));
            let history = Session::with_id(context.session_id());
            Ok(CountsCalls { history, skills, rolled_back, enter: enter.clone() })
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for (body, expected) in [("quick", 0), ("wait", 1)] {
            let (event_tx, events) = unbounded();
            let hosting = service.begin_turn(id, turn("x").host_mode(true).event_tx(event_tx)).unwrap();
            let injector = service.event_injector(id).unwrap();
            let followed = injector.inject_with_subscription(body.into(), EventSource::Tcp).unwrap();
            if expected == 0 {
                assert_eq!(outcome(&followed).unwrap(), "quick");
            } else {
                entered.recv_timeout(LONG).unwrap();
            }
            hosting.interrupt();
            assert_cancelled(hosting.wait(), CancelReason::Interrupted);
            drop(events);
            drop(injector.dismiss(EventSource::Tcp));
            assert_eq!(service.start_turn(id, turn("clear").host_mode(true)).unwrap().text, "clear");
            assert_eq!(rolled_back.load(Ordering::SeqCst), expected);
        }
        assert_eq!(skills.load(Ordering::SeqCst), 4);
    });
}

#[test]
fn c40_host_mode_runs_every_interaction_from_many_threads() {
    run(|| {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let agent = agent_fn(move |prompt, turn| {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::configure(agent).inbox_capacity(8).build().unwrap();
        let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
        let id = hosting.session_id();
        thread::scope(|scope| {
            for source in 0..4 {
                let injector = service.event_injector(id).unwrap();
                scope.spawn(move || {
                    for number in 0..500 {
                        let body = format!("{source} {number}");
                        let followed = loop {
                            match injector.inject_with_subscription(body.clone(), EventSource::Tcp) {
                                Ok(followed) => break followed,
                                Err(error) => assert_matches!(error, InjectError::Full(_)),
                            }
                            thread::yield_now();
                        };
                        assert_eq!(outcome(&followed).unwrap(), body);
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..100 {
                    service.export_session(id).unwrap();
                    service.read(id).unwrap();
                }
            });
        });
        service.archive(id).unwrap();
        assert_eq!(hosting.wait().unwrap().turns, 2_001);
        assert_eq!(runs.load(Ordering::SeqCst), 2_001);
    });
}

/// The number of the next turns in host mode that end by a dismissal from before.
fn ended_at_once(service: &Service, id: SessionId) -> usize {
    let mut ended = 0;
    loop {
        // The next dismissal is behind all that are there.
        let injector = service.event_injector(id).unwrap();
        let marker = injector.inject_with_subscription("marker".into(), EventSource::Rpc).unwrap();
        let hosting = service.begin_turn(id, turn("x").host_mode(true)).unwrap();
        let is_run = matches!(marker.last(), Some(AgentEvent::InteractionComplete { .. }));
        service.interrupt(id).ok();
        drop(hosting.wait());
        match is_run {
            true => return ended,
            false => ended += 1,
        }
    }
}

#[test]
fn c40_dismissals_are_merged_when_the_messages_between_them_are_gone() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        for _ in 0..10 {
            injector.dismiss(EventSource::Rpc).unwrap();
            let withdrawn = injector.inject_with_subscription("x".into(), EventSource::Rpc).unwrap();
            service.interrupt_interaction(id, withdrawn.id).unwrap();
        }
        assert_eq!(ended_at_once(&service, id), 1);
        // The messages between them are those that a turn has left.
        for _ in 0..10 {
            let running = service.begin_turn(id, turn("hold")).unwrap();
            stage.wait_entered();
            injector.dismiss(EventSource::Rpc).unwrap();
            drop(service.steer(id, None, InteractionContent::message("x")).unwrap());
            stage.release();
            running.wait().unwrap();
        }
        assert_eq!(ended_at_once(&service, id), 1);
    });
}
