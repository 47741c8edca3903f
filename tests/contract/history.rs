//! C57: the history as of the last finished turn, and its boundary in the events.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::Gate;
use turnwise::{
    AgentError, AgentEvent, EphemeralSessionService, EventSender, EventSource, EventStream, InputRequest,
    InputResponse, InteractionContent, Message, RunResult, ServiceConfig, Session, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionError, SessionEvent, SessionId, SessionService, SessionSpec, SessionState, Subscription,
    TurnContext, TurnId, WhenBusy,
};

use crate::inbox::outcome;
use crate::support::*;

/// The event of a message that the agent has added to its history.
const SAID: &str = "said";

/// The texts of a history and its boundary.
type Pair = (Vec<String>, u64);

/// What the tests share with the agents.
#[derive(Clone, Default)]
struct Stage {
    gate: Gate,
    /// Where the builds wait.
    builds: Arc<Mutex<Option<Gate>>>,
    /// The senders for events outside of turns, one for each build.
    senders: Arc<Mutex<Vec<EventSender>>>,
    /// What the agent has read of its own session.
    looked: Arc<Mutex<Vec<Pair>>>,
    breaks_in_clone: Arc<AtomicBool>,
}

/// An agent that writes its history in the middle of a turn, and emits an event for every message.
struct Diarist {
    history: Session,
    stage: Stage,
    session: SessionContext,
}

impl Diarist {
    fn say(&mut self, message: Message, turn: &TurnContext) -> Result<(), AgentError> {
        let payload = message.text().into_owned();
        self.history.push(message);
        turn.emit(AgentEvent::Custom { name: SAID.into(), payload })?;
        Ok(())
    }

    fn look(&self, service: &dyn SessionService) {
        let (history, seq) = service.history_at(self.session.session_id()).unwrap();
        self.stage.looked.lock().unwrap().push((texts(&history), seq));
    }
}

impl SessionAgent for Diarist {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.say(Message::user(prompt.as_str()), turn)?;
        match prompt.as_str() {
            "hold" => self.stage.gate.pass(turn.cancel_token())?,
            "fail" => return Err(AgentError::Internal("scripted".into())),
            "panic" => panic!("scripted"),
            "ask" => drop(turn.request_input(InputRequest::new("question", "well?"))?),
            "drain" => {
                self.stage.gate.pass(turn.cancel_token())?;
                for taken in turn.drain_inbox() {
                    self.say(Message::user(taken.text()), turn)?;
                }
            }
            "look" => {
                self.look(&turn.service().expect("the host has a handle"));
                self.look(&*self.session.service().upgrade().expect("the host has a handle"));
            }
            _ => {}
        }
        let answer = format!("= {prompt}");
        self.say(Message::assistant(answer.as_str()), turn)?;
        Ok(turn.finish(answer))
    }

    fn session_clone(&self) -> Session {
        assert!(!self.stage.breaks_in_clone.load(Ordering::SeqCst), "broken in session_clone");
        self.history.clone()
    }
}

struct Diarists(Stage);

impl SessionAgentBuilder for Diarists {
    type Agent = Diarist;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Diarist, AgentError> {
        let stage = self.0.clone();
        let held = stage.builds.lock().unwrap().clone();
        held.inspect(Gate::pass_regardless);
        stage.senders.lock().unwrap().push(session.events().clone());
        Ok(Diarist { history: spec.history(), stage, session: session.clone() })
    }
}

type Service = EphemeralSessionService<Diarists>;

fn diarists_with(configure: impl FnOnce(ServiceConfig<Diarists>) -> ServiceConfig<Diarists>) -> (Service, Stage) {
    let stage = Stage::default();
    let config = EphemeralSessionService::configure(Diarists(stage.clone())).max_sessions(4).event_history(10_000);
    (configure(config).build().unwrap(), stage)
}

fn diarists() -> (Service, Stage) {
    diarists_with(|config| config)
}

fn texts(history: &Session) -> Vec<String> {
    history.iter().map(|message| message.text().into_owned()).collect()
}

#[track_caller]
fn at(service: &impl SessionService, id: SessionId) -> Pair {
    let (history, seq) = service.history_at(id).unwrap();
    let texts = texts(&history);
    assert_eq!(history.id(), id);
    (texts, seq)
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn from(service: &impl SessionService, id: SessionId, seq: u64) -> EventStream {
    service.subscribe(id, Subscription::new().from_seq(seq).capacity(100_000)).unwrap()
}

/// The events that have arrived.
fn arrived(stream: &EventStream) -> Vec<SessionEvent> {
    std::iter::from_fn(|| stream.try_recv().ok()).collect()
}

fn said<'a>(events: impl IntoIterator<Item = &'a SessionEvent>) -> Vec<String> {
    let text = |event: &SessionEvent| match &event.event {
        AgentEvent::Custom { name, payload } if name == SAID => Some(payload.clone()),
        _ => None,
    };
    events.into_iter().filter_map(text).collect()
}

fn ends_turn(event: &SessionEvent) -> bool {
    matches!(event.event, AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. })
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(result: Result<T, SessionError>) {
    assert_matches!(result, Err(SessionError::NotFound { .. }));
}

#[test]
fn c57_the_history_is_that_of_the_last_finished_turn() {
    run(|| {
        let (service, stage) = diarists();
        let id = service.open_session(SessionSpec::new()).unwrap();
        assert_eq!(at(&service, id), (vec![], 0));
        service.start_turn(id, turn("one")).unwrap();
        let one = (owned(&["one", "= one"]), 4); // RunStarted, two messages, RunCompleted
        assert_eq!(at(&service, id), one);
        let held = service.begin_turn(id, turn("hold")).unwrap();
        let queued = service.begin_turn(id, turn("two").when_busy(WhenBusy::Queue)).unwrap();
        stage.gate.wait_arrived(1);
        // The agent's history has the prompt already, and its events are out.
        assert_eq!(service.read(id).unwrap().state.last_seq, 6);
        assert_eq!(at(&service, id), one);
        assert_eq!(texts(&service.history(id).unwrap()), one.0);
        stage.gate.open();
        held.wait().unwrap();
        queued.wait().unwrap();
        let (history, seq) = at(&service, id);
        assert_eq!(history, ["one", "= one", "hold", "= hold", "two", "= two"]);
        assert_eq!(seq, service.read(id).unwrap().state.last_seq);
        assert_eq!(history, texts(&service.export_session(id).unwrap()));
    });
}

#[test]
fn c57_a_session_that_is_being_built_has_the_history_that_it_resumes() {
    run(|| {
        let (service, stage) = diarists();
        let builds = Gate::new();
        *stage.builds.lock().unwrap() = Some(builds.clone());
        let mut history = Session::new();
        history.push(Message::user("before"));
        let resuming = create("hold").session(SessionSpec::new().resume(history));
        let handle = service.begin_session(resuming).unwrap();
        let id = handle.session_id();
        builds.wait_arrived(1);
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Building);
        assert_eq!(at(&service, id), (owned(&["before"]), 0));
        builds.open();
        stage.gate.wait_arrived(1);
        // The first turn has begun before the build, and has not ended.
        assert_eq!(at(&service, id), (owned(&["before"]), 0));
        stage.gate.open();
        handle.wait().unwrap();
        assert_eq!(at(&service, id), (owned(&["before", "hold", "= hold"]), 4));
    });
}

#[test]
fn c57_a_session_that_waits_for_input_answers() {
    run(|| {
        let (service, _stage) = diarists();
        let id = service.create_session(create("one")).unwrap().session_id;
        let before = at(&service, id);
        let stream = service.subscribe(id, Subscription::new()).unwrap();
        let asking = service.begin_turn(id, turn("ask")).unwrap();
        let is_asked = |event: SessionEvent| matches!(event.event, AgentEvent::InputRequested { .. });
        while !is_asked(stream.recv_timeout(LONG).unwrap()) {}
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Waiting);
        assert_eq!(at(&service, id), before);
        let input = service.pending_inputs(id).unwrap()[0].id;
        service.respond(id, input, InputResponse::Answer("well".into())).unwrap();
        asking.wait().unwrap();
        assert_eq!(at(&service, id).0, ["one", "= one", "ask", "= ask"]);
    });
}

#[test]
fn c57_an_agent_reads_its_own_history_as_before_its_turn() {
    run(|| {
        let (service, stage) = diarists_with(|config| config.max_running_turns(1));
        let id = service.create_session(create("one")).unwrap().session_id;
        let before = at(&service, id);
        service.start_turn(id, turn("look")).unwrap();
        assert_eq!(*stage.looked.lock().unwrap(), [before.clone(), before]);
        assert_eq!(at(&service, id).0, ["one", "= one", "look", "= look"]);
    });
}

#[test]
fn c57_failed_and_cancelled_turns_are_in_the_history() {
    run(|| {
        let (service, stage) = diarists();
        let id = service.open_session(SessionSpec::new()).unwrap();
        service.start_turn(id, turn("fail")).unwrap_err();
        assert_eq!(at(&service, id), (owned(&["fail"]), 3)); // RunStarted, the message, RunFailed
        let held = service.begin_turn(id, turn("hold")).unwrap();
        stage.gate.wait_arrived(1);
        held.interrupt();
        held.wait().unwrap_err();
        let (history, seq) = at(&service, id);
        assert_eq!((history, seq), (owned(&["fail", "hold"]), 6));
        assert_eq!(seq, service.read(id).unwrap().state.last_seq);
    });
}

#[test]
fn c57_a_turn_cancelled_before_its_run_moves_the_boundary_alone() {
    run(|| {
        let (service, stage) = diarists_with(|config| config.max_running_turns(1));
        let other = service.begin_session(create("hold")).unwrap();
        stage.gate.wait_arrived(1);
        let waiting = service.begin_session(create("one")).unwrap();
        let id = waiting.session_id();
        waiting.interrupt();
        waiting.wait().unwrap_err();
        assert_eq!(at(&service, id), (vec![], 2)); // RunStarted, RunFailed
        assert_eq!(arrived(&from(&service, id, 3)), []);
        stage.gate.open();
        other.wait().unwrap();
    });
}

#[test]
fn c57_a_turn_that_panicked_is_behind_the_boundary() {
    run(|| {
        let (service, _stage) = diarists();
        let id = service.create_session(create("one")).unwrap().session_id;
        let before = at(&service, id);
        service.start_turn(id, turn("panic")).unwrap_err();
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Faulted);
        assert_eq!(at(&service, id), before);
        let lost = arrived(&from(&service, id, before.1 + 1));
        assert_eq!(lost.iter().map(|event| event.seq).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(lost.iter().all(|event| event.turn_id == Some(TurnId::new(2))));
        // The restart begins from that history, and ends no turn.
        service.restart(id, LONG).unwrap();
        assert_eq!(at(&service, id), before);
        service.start_turn(id, turn("three")).unwrap();
        assert_eq!(at(&service, id), (owned(&["one", "= one", "three", "= three"]), 11));
    });
}

#[test]
fn c57_a_failed_export_leaves_history_and_boundary_together() {
    run(|| {
        let (service, stage) = diarists_with(|config| config.max_running_turns(1));
        let id = service.create_session(create("one")).unwrap().session_id;
        let before = at(&service, id);
        stage.breaks_in_clone.store(true, Ordering::SeqCst);
        service.start_turn(id, turn("two")).unwrap();
        assert_eq!(at(&service, id), before);
        // A turn that is not run does not hide the events of the turn before it.
        let other = service.begin_session(create("hold")).unwrap();
        stage.gate.wait_arrived(1);
        let waiting = service.begin_turn(id, turn("never")).unwrap();
        waiting.interrupt();
        waiting.wait().unwrap_err();
        assert_eq!(at(&service, id), before);
        stage.gate.open();
        other.wait().unwrap();
        stage.breaks_in_clone.store(false, Ordering::SeqCst);
        service.start_turn(id, turn("three")).unwrap();
        assert_eq!(at(&service, id).0, ["one", "= one", "two", "= two", "three", "= three"]);
        assert_eq!(at(&service, id).1, service.read(id).unwrap().state.last_seq);
    });
}

#[test]
fn c57_in_host_mode_the_prompt_and_each_interaction_count() {
    run(|| {
        let (service, stage) = diarists();
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, Subscription::new()).unwrap();
        let hosting = service.begin_turn(id, turn("prompt").host_mode(true)).unwrap();
        let injector = service.event_injector(id).unwrap();
        let ask = |text: &str| injector.inject_with_subscription(text.into(), EventSource::Rpc).unwrap();
        outcome(&ask("one")).unwrap();
        // A client that has the terminal event of an interaction finds it in the history.
        let (history, seq) = at(&service, id);
        assert_eq!(history, ["prompt", "= prompt", "one", "= one"]);
        // RunStarted, two messages of the prompt, two of the interaction, InteractionComplete
        assert_eq!(seq, 6);
        outcome(&ask("fail")).unwrap_err();
        assert_eq!(at(&service, id).0.last().unwrap(), "fail");
        let before = at(&service, id);
        // Two interactions that end together.
        let (drain, late) = (ask("drain"), ask("late"));
        stage.gate.wait_arrived(1);
        assert_eq!(at(&service, id), before);
        stage.gate.open();
        outcome(&drain).unwrap();
        assert_eq!(at(&service, id).0[5..], ["drain", "late", "= drain"]);
        outcome(&late).unwrap();
        let seq = at(&service, id).1;
        let follow = from(&service, id, seq + 1);
        injector.dismiss(EventSource::Rpc).unwrap();
        hosting.wait().unwrap();
        let last = arrived(&follow);
        assert!(said(&last).is_empty() && ends_turn(last.last().unwrap()), "{last:?}");
        assert_eq!(at(&service, id).1, service.read(id).unwrap().state.last_seq);
        // Every boundary is the number of the last event of its part.
        let events = arrived(&stream);
        assert_matches!(&events[5].event, AgentEvent::InteractionComplete { .. });
        assert_matches!(&events[seq as usize - 1].event, AgentEvent::InteractionComplete { .. });
    });
}

#[test]
fn c57_a_prompt_counts_before_the_first_interaction_of_host_mode() {
    run(|| {
        let (service, stage) = diarists();
        let id = service.open_session(SessionSpec::new()).unwrap();
        let hosting = service.begin_turn(id, turn("prompt").host_mode(true)).unwrap();
        let injector = service.event_injector(id).unwrap();
        injector.inject("hold".into(), EventSource::Rpc).unwrap();
        stage.gate.wait_arrived(1);
        assert_eq!(at(&service, id), (owned(&["prompt", "= prompt"]), 3));
        // An interaction that panics is behind the boundary, and the prompt stays.
        injector.inject("panic".into(), EventSource::Rpc).unwrap();
        stage.gate.open();
        assert_matches!(hosting.wait(), Err(SessionError::Faulted { .. }));
        let (history, seq) = at(&service, id);
        assert_eq!(history, ["prompt", "= prompt", "hold", "= hold"]);
        assert_eq!(said(&arrived(&from(&service, id, seq + 1))), ["panic"]);
    });
}

#[test]
fn c57_a_client_that_has_the_last_event_finds_the_turn_in_the_history() {
    run(|| {
        for observed in [true, false] {
            let (service, _stage) = diarists_with(|config| config.event_history(0));
            let id = service.open_session(SessionSpec::new()).unwrap();
            let stream = observed.then(|| service.subscribe(id, Subscription::new()).unwrap());
            // No room for the terminal event: it waits, and the turn with it.
            let (event_tx, events) = bounded(3);
            let handle = service.begin_turn(id, turn("one").event_tx(event_tx)).unwrap();
            let ended = || match &stream {
                Some(stream) => ends_turn(&stream.recv_timeout(LONG).unwrap()),
                None => {
                    thread::yield_now();
                    service.read(id).unwrap().state.last_seq == 4
                }
            };
            while !ended() {}
            // Without a subscriber the number is taken a moment before the commit.
            while !observed && at(&service, id).1 < 4 {
                thread::yield_now();
            }
            assert_eq!(at(&service, id), (owned(&["one", "= one"]), 4));
            assert!(!handle.is_finished());
            assert_eq!(events.iter().count(), 4);
            handle.wait().unwrap();
        }
    });
}

#[test]
fn c57_following_from_the_boundary_has_no_gap_and_no_overlap() {
    run(|| {
        let (service, stage) = diarists();
        let id = service.create_session(create("one")).unwrap().session_id;
        let (history, seq) = at(&service, id);
        service.start_turn(id, turn("two")).unwrap();
        let held = service.begin_turn(id, turn("hold")).unwrap();
        stage.gate.wait_arrived(1);
        let follow = from(&service, id, seq + 1);
        // A client that comes in the middle of a turn gets the whole turn.
        let (late, late_seq) = at(&service, id);
        let late_follow = from(&service, id, late_seq + 1);
        stage.gate.open();
        held.wait().unwrap();
        let whole = texts(&service.export_session(id).unwrap());
        service.archive_wait(id, LONG).unwrap();
        for (mut shown, seq, follow) in [(history, seq, follow), (late, late_seq, late_follow)] {
            let events = arrived(&follow);
            assert_eq!((events[0].seq, follow.dropped()), (seq + 1, 0));
            assert_matches!(&events[0].event, AgentEvent::RunStarted { .. });
            shown.extend(said(&events));
            assert_eq!(shown, whole);
        }
    });
}

#[test]
fn c57_a_client_is_told_of_events_that_the_session_has_no_more() {
    run(|| {
        let (service, _stage) = diarists_with(|config| config.event_history(4));
        let id = service.create_session(create("one")).unwrap().session_id;
        let (_, seq) = at(&service, id);
        service.start_turn(id, turn("two")).unwrap();
        assert_eq!(from(&service, id, seq + 1).dropped(), 0);
        service.start_turn(id, turn("three")).unwrap();
        let late = from(&service, id, seq + 1);
        assert_eq!((late.dropped(), arrived(&late)[0].seq), (4, seq + 5));
        // It begins again with the newer history.
        let (history, seq) = at(&service, id);
        assert_eq!((history.len(), arrived(&from(&service, id, seq + 1)).len()), (6, 0));
    });
}

#[test]
fn c57_an_event_of_no_turn_is_on_one_side_of_the_boundary() {
    run(|| {
        let (service, stage) = diarists();
        let id = service.create_session(create("one")).unwrap().session_id;
        let (_, seq) = at(&service, id);
        let sender = stage.senders.lock().unwrap()[0].clone();
        sender.emit(delta(0)).unwrap();
        assert_eq!(at(&service, id).1, seq);
        assert_eq!(arrived(&from(&service, id, seq + 1)).len(), 1);
        service.start_turn(id, turn("two")).unwrap();
        assert_eq!(at(&service, id).1, seq + 5);
    });
}

#[test]
fn c57_a_session_that_is_closed_or_unknown_is_not_found() {
    run(|| {
        let (service, stage) = diarists();
        not_found(service.history(SessionId::new()));
        not_found(service.history_at(SessionId::new()));
        let held = service.begin_session(create("hold")).unwrap();
        let id = held.session_id();
        stage.gate.wait_arrived(1);
        assert!(service.history(id).is_ok());
        service.archive(id).unwrap();
        not_found(service.history(id));
        not_found(service.history_at(id));
        stage.gate.open();
        held.wait().unwrap();
        let other = service.create_session(create("one")).unwrap().session_id;
        service.shutdown(LONG);
        not_found(service.history_at(other));
    });
}

#[test]
fn c57_every_kind_of_service_answers() {
    run(|| {
        fn ask(service: impl SessionService, id: SessionId) -> Pair {
            assert_eq!(texts(&service.history(id).unwrap()), at(&service, id).0);
            at(&service, id)
        }
        let (service, _stage) = diarists();
        let id = service.create_session(create("one")).unwrap().session_id;
        let expected = (owned(&["one", "= one"]), 4);
        assert_eq!(ask(&service, id), expected);
        assert_eq!(ask(Box::new(service.clone()) as Box<dyn SessionService>, id), expected);
        assert_eq!(ask(Arc::new(service.clone()) as Arc<dyn SessionService>, id), expected);
        assert_eq!(ask(service.downgrade().upgrade().unwrap(), id), expected);
    });
}

/// Many turns of every kind, with events of no turn in between, while readers take pairs. Every pair has to fit the log
/// of all events.
#[test]
fn c57_every_pair_fits_the_events() {
    run(|| {
        let (service, stage) = diarists();
        let id = service.open_session(SessionSpec::new()).unwrap();
        let log = from(&service, id, 1);
        let done = AtomicBool::new(false);
        let (pairs, whole) = thread::scope(|scope| {
            let reader = || {
                let mut pairs = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    let pair = at(&service, id);
                    if pairs.last() != Some(&pair) {
                        pairs.push(pair);
                    }
                }
                pairs
            };
            let readers = [scope.spawn(reader), scope.spawn(reader)];
            scope.spawn(|| {
                let sender = stage.senders.lock().unwrap()[0].clone();
                for number in 0..2_000 {
                    sender.emit(delta(number)).unwrap();
                    thread::yield_now();
                }
            });
            for round in 0..400 {
                match round % 4 {
                    0 => drop(service.start_turn(id, turn("fail")).unwrap_err()),
                    1 => drop(service.start_turn(id, turn("one")).unwrap()),
                    2 => {
                        let hosting = service.begin_turn(id, turn("prompt").host_mode(true)).unwrap();
                        let injector = service.event_injector(id).unwrap();
                        for text in ["a", "b"] {
                            let followed = injector.inject_with_subscription(text.into(), EventSource::Rpc).unwrap();
                            outcome(&followed).unwrap();
                        }
                        injector.dismiss(EventSource::Rpc).unwrap();
                        hosting.wait().unwrap();
                    }
                    _ => {
                        let held = service.begin_turn(id, turn("drain")).unwrap();
                        let note =
                            service.steer(id, Some(held.turn_id()), InteractionContent::message("more")).unwrap();
                        stage.gate.let_through(1);
                        held.wait().unwrap();
                        assert!(note.last().is_some());
                    }
                }
            }
            done.store(true, Ordering::SeqCst);
            let pairs: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
            (pairs, texts(&service.export_session(id).unwrap()))
        });
        let log = arrived(&log);
        assert!(log.iter().zip(1..).all(|(event, seq)| event.seq == seq), "the log has every event");
        assert!(pairs.len() > 10, "the readers have run");
        let changes = AtomicUsize::new(0);
        for (history, seq) in pairs {
            let (before, after) = log.split_at(seq as usize);
            assert_eq!(said(before), history, "of boundary {seq}");
            let shown: Vec<_> = history.into_iter().chain(said(after)).collect();
            assert_eq!(shown, whole);
            // The boundary is the last event of a turn or interaction, or of a prompt in host mode.
            if let Some(last) = before.iter().rev().find(|event| event.turn_id.is_some()) {
                changes.fetch_add(1, Ordering::Relaxed);
                let next = after.iter().find(|event| event.turn_id.is_some());
                let is_in_turn = next.is_some_and(|next| next.turn_id == last.turn_id);
                let ends_part = matches!(last.event, AgentEvent::InteractionComplete { .. }) || is_answer(last);
                assert!(if is_in_turn { ends_part } else { ends_turn(last) }, "{last:?} {next:?}");
            }
        }
        assert!(changes.into_inner() > 10);
    });
}

/// Whether it is the answer to a prompt in host mode, the last event of it.
fn is_answer(event: &SessionEvent) -> bool {
    said([event]) == ["= prompt"]
}
