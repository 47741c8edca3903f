//! C52: messages for the turn that runs, and for no other.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::testkit::{self, Gate, ManualClock, Recorder, Script};
use turnwise::{
    agent_fn, builder_fn, AgentError, AgentEvent, ArchiveMode, EphemeralSessionService, EventSource,
    InteractionContent, InteractionSubscription, RunResult, SessionAgent, SessionError, SessionId, SessionService,
    SessionSpec, SubscribableInjector, TurnContext, TurnId, WhenBusy,
};

use crate::support::*;

fn message(text: &str) -> InteractionContent {
    InteractionContent::message(text)
}

/// Asserts that a message has failed once, without having been taken.
#[track_caller]
fn assert_not_taken(note: InteractionSubscription) {
    Recorder::of_events(note.events).assert_events(&["InteractionFailed(the turn ended before it took the message)"]);
}

/// The texts of the messages in the inbox, each with its sender.
fn taken(turn: &TurnContext) -> String {
    turn.drain_inbox().iter().map(|one| format!("[{}: {}]", one.from, one.text())).collect()
}

/// Steers session `id` until it is not running any more. Returns the messages that were accepted.
fn steer_until_refused(service: &dyn SessionService, id: SessionId) -> Vec<InteractionSubscription> {
    let mut accepted = Vec::new();
    loop {
        match service.steer(id, None, message("late")) {
            Ok(note) => accepted.push(note),
            Err(SessionError::NotRunning { .. }) => return accepted,
            Err(SessionError::InboxFull { .. }) => thread::yield_now(),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn c52_the_running_turn_takes_the_message_and_ends_it() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let (gate, held) = (Gate::new(), Gate::new());
        let (passing, waiting) = (gate.clone(), held.clone());
        let running = jobs.begin(id, "work", move |_, turn| {
            passing.pass(turn.cancel_token())?;
            let drained = taken(turn);
            turn.emit(delta(7))?;
            waiting.pass(turn.cancel_token())?;
            let waited = turn.wait_inbox(LONG)?.map(|one| one.text());
            Ok(format!("{drained} {waited:?}"))
        });
        let by_id = jobs.service.steer(id, Some(running.turn_id()), message("left")).unwrap();
        gate.wait_arrived(1);
        let by_session = jobs.service.steer(id, None, message("right")).unwrap();
        assert_ne!(by_id.id, by_session.id);
        gate.open();
        held.wait_arrived(1);
        let later = jobs.service.steer(id, None, message("straight on")).unwrap();
        held.open();
        let text = running.wait().unwrap().text;
        assert_eq!(text, "[steering: left][steering: right] Some(\"straight on\")");
        let end = format!("InteractionComplete({text})");
        for note in [by_id, by_session] {
            Recorder::of_events(note.events).assert_events(&["TextDelta(7)", &end]);
        }
        Recorder::of_events(later.events).assert_events(&[&end]);
    });
}

#[test]
fn c52_what_a_turn_has_not_taken_fails_and_reaches_no_later_turn() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for (prompt, is_interrupted) in [("hold", false), ("hold", true), ("fail", false)] {
            // The turn waits for room for its first event: it is admitted, and its agent is not called yet.
            let (event_tx, events) = bounded(1);
            event_tx.send(delta(0)).unwrap();
            let running = service.begin_turn(id, turn(prompt).event_tx(event_tx)).unwrap();
            let note = service.steer(id, Some(running.turn_id()), message("for this turn")).unwrap();
            service.event_injector(id).unwrap().inject("for any turn".into(), EventSource::Rpc).unwrap();
            assert_eq!(events.recv_timeout(LONG).unwrap(), delta(0));
            assert_matches!(events.recv_timeout(LONG).unwrap(), AgentEvent::RunStarted { .. });
            if prompt == "hold" {
                stage.wait_entered();
                if is_interrupted {
                    service.interrupt(id).unwrap();
                } else {
                    stage.release();
                }
            }
            assert_matches!(
                events.recv_timeout(LONG).unwrap(),
                AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. }
            );
            // It has failed before the last event of its turn.
            assert_matches!(note.events.try_recv().unwrap(), AgentEvent::InteractionFailed { interaction_id, .. } if interaction_id == note.id);
            assert!(note.events.try_recv().unwrap_err().is_disconnected());
            drop(running.wait());
            stage.release();
            let next = service.start_turn(id, turn("drain")).unwrap();
            assert_eq!(next.text, "for any turn");
            stage.wait_entered();
        }
    });
}

#[test]
fn c52_a_message_is_refused_where_its_turn_is_not_admitted() {
    run(|| {
        let jobs = Jobs::with(|config| config.inbox_capacity(1));
        let (id, service) = (jobs.open(), jobs.service.clone());
        let refused = |only: Option<TurnId>| service.steer(id, only, message("x")).unwrap_err();
        assert_matches!(refused(None), SessionError::NotRunning { id: of } if of == id);
        let gate = Gate::new();
        let held = gate.clone();
        let running = jobs.begin(id, "first", move |_, turn| {
            held.pass(turn.cancel_token())?;
            Ok(String::new())
        });
        let queued = service.begin_turn(id, turn("next").when_busy(WhenBusy::Queue)).unwrap();
        assert!(queued.is_queued());
        for other in [queued.turn_id(), TurnId::new(99)] {
            assert_matches!(refused(Some(other)), SessionError::NotRunning { id: of } if of == id);
        }
        let note = service.steer(id, Some(running.turn_id()), message("x")).unwrap();
        assert_matches!(refused(None), SessionError::InboxFull { id: of, capacity: 1 } if of == id);
        assert_eq!(refused(None).code(), "INBOX_FULL");
        gate.open();
        let first = running.turn_id();
        drop(running.wait());
        queued.wait().unwrap();
        assert_not_taken(note);
        assert_matches!(refused(Some(first)), SessionError::NotRunning { .. });
        let unknown = SessionId::new();
        assert_matches!(service.steer(unknown, None, message("x")).unwrap_err(), SessionError::NotFound { id } if id == unknown);
        // A closed session whose turn still runs.
        let gate = Gate::new();
        let held = gate.clone();
        let last = jobs.begin(id, "last", move |_, _| {
            held.pass_regardless();
            Ok(String::new())
        });
        gate.wait_arrived(1);
        let note = service.steer(id, None, message("x")).unwrap();
        service.archive_with(id, ArchiveMode::Drain).unwrap();
        assert_matches!(refused(Some(last.turn_id())), SessionError::NotFound { .. });
        assert_matches!(note.last().unwrap(), AgentEvent::InteractionFailed { .. });
        gate.open();
        last.wait().unwrap();
    });
}

#[test]
fn c52_a_faulted_session_takes_no_message() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let gate = Gate::new();
        let held = gate.clone();
        let running = jobs.begin(id, "panic", move |_, _| {
            held.pass_regardless();
            panic!("scripted");
        });
        let note = jobs.service.steer(id, None, message("x")).unwrap();
        gate.open();
        assert_matches!(running.wait().unwrap_err(), SessionError::Faulted { .. });
        let events: Vec<_> = note.collect();
        assert_matches!(&events[..], [AgentEvent::InteractionFailed { .. }]);
        let refused = jobs.service.steer(id, None, message("x")).unwrap_err();
        assert_matches!(refused, SessionError::Faulted { message, .. } if &*message == "scripted");
    });
}

#[test]
fn c52_a_first_turn_can_be_steered_while_its_agent_is_built() {
    run(|| {
        let gate = Gate::new();
        let builder = testkit::scripted().build_waits_at(&gate).otherwise(|_| Script::new().wait_inbox(LONG));
        let service = EphemeralSessionService::new(builder.clone(), 2);
        let first = service.begin_session(create("x")).unwrap();
        gate.wait_arrived(1);
        let note = service.steer(first.session_id(), Some(first.turn_id()), message("early")).unwrap();
        gate.open();
        assert_eq!(first.wait().unwrap().text, "early");
        assert_matches!(note.last().unwrap(), AgentEvent::InteractionComplete { .. });
        // A build without a turn has none to steer, and one that fails loses no message without telling its sender.
        let gate = Gate::new();
        let failing = builder.build_waits_at(&gate).build_fails(AgentError::Config("no key".into()));
        let service = EphemeralSessionService::new(failing, 2);
        let first = service.begin_session(create("x")).unwrap();
        gate.wait_arrived(1);
        let note = service.steer(first.session_id(), None, message("early")).unwrap();
        gate.open();
        assert_matches!(first.wait().unwrap_err(), SessionError::Build { .. });
        assert_not_taken(note);
    });
}

#[test]
fn c52_steering_is_over_once_the_agent_has_returned() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..20 {
            // A turn that waits for room for its last event: its agent has returned, and it is still admitted.
            let (event_tx, events) = bounded(1);
            let running = service.begin_turn(id, turn("hold").event_tx(event_tx)).unwrap();
            stage.wait_entered();
            stage.release();
            let accepted = steer_until_refused(&service, id);
            assert!(!running.is_finished() && service.read(id).unwrap().state.is_active);
            accepted.into_iter().for_each(assert_not_taken);
            assert_eq!(events.iter().count(), 2);
            running.wait().unwrap();
        }
    });
}

#[test]
fn c52_each_message_ends_once_while_turns_come_and_go() {
    run(|| {
        const TURNS: usize = 200;
        let jobs = Jobs::with(|config| config.inbox_capacity(8));
        let (id, service) = (jobs.open(), jobs.service.clone());
        let (over, is_over) = bounded::<()>(0);
        let steering = thread::spawn(move || {
            let mut notes = Vec::new();
            while is_over.try_recv().is_err_and(|error| error.is_empty()) {
                match service.steer(id, None, message("x")) {
                    Ok(note) => notes.push(note),
                    Err(SessionError::NotRunning { .. } | SessionError::InboxFull { .. }) => thread::yield_now(),
                    Err(other) => panic!("{other:?}"),
                }
            }
            notes
        });
        let (told, heard) = unbounded();
        for round in 0..TURNS {
            let told = told.clone();
            jobs.prepare("work", move |_, turn| {
                if round % 2 == 0 {
                    let ids = turn.drain_inbox().into_iter().map(|one| (turn.turn_id(), one.id));
                    ids.for_each(|id| told.send(id).expect("the test listens"));
                }
                Ok(format!("turn {}", turn.turn_id()))
            });
            jobs.service.start_turn(id, turn("work")).unwrap();
        }
        drop((over, told));
        let notes = steering.join().unwrap();
        let taken: std::collections::HashMap<_, _> = heard.iter().map(|(turn, id)| (id, turn)).collect();
        for note in notes {
            let (id, events) = (note.id, note.collect::<Vec<_>>());
            match (&events[..], taken.get(&id)) {
                ([AgentEvent::InteractionFailed { .. }], None) => {}
                ([AgentEvent::InteractionComplete { result, .. }], Some(turn)) => {
                    assert_eq!(*result, format!("turn {turn}"));
                }
                (events, taken) => panic!("{events:?}, taken by {taken:?}"),
            }
        }
    });
}

#[test]
fn c52_in_host_mode_what_is_left_is_the_next_interaction() {
    run(|| {
        let (service, stage) = scripted(1);
        let hosting = service.begin_session(create("hold").host_mode(true)).unwrap();
        let (id, number) = stage.wait_entered();
        let during_prompt = service.steer(id, Some(number), message("hold")).unwrap();
        stage.release();
        stage.wait_entered(); // the interaction
        let during_interaction = service.steer(id, None, message("echo")).unwrap();
        stage.release();
        Recorder::of_events(during_prompt.events).assert_events(&["InteractionComplete(released)"]);
        Recorder::of_events(during_interaction.events).assert_events(&["InteractionComplete(echo)"]);
        // A message that is left when host mode ends fails.
        let running = service.steer(id, None, message("deaf")).unwrap();
        stage.wait_entered();
        let left = service.steer(id, None, message("never run")).unwrap();
        service.interrupt(id).unwrap();
        stage.release();
        assert!(hosting.wait().is_err());
        Recorder::of_events(running.events).assert_events(&["InteractionComplete(released)"]);
        assert_not_taken(left);
        assert_matches!(service.steer(id, Some(number), message("x")).unwrap_err(), SessionError::NotRunning { .. });
    });
}

#[test]
fn c52_a_dismissal_that_steers_ends_host_mode_and_takes_room() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.inbox_capacity(1));
        let hosting = service.begin_session(create("hold").host_mode(true)).unwrap();
        let (id, _) = stage.wait_entered();
        let first = service.steer(id, None, InteractionContent::Dismiss).unwrap();
        let refused = service.steer(id, None, InteractionContent::Dismiss).unwrap_err();
        assert_matches!(refused, SessionError::InboxFull { capacity: 1, .. });
        stage.release();
        assert_eq!(hosting.wait().unwrap().text, "released");
        Recorder::of_events(first.events).assert_events(&["InteractionComplete()"]);
        // The room is there again, also for a message of the next turn.
        let next = service.begin_turn(id, turn("drain")).unwrap();
        stage.wait_entered();
        drop(service.steer(id, None, message("room")).unwrap());
        stage.release();
        assert_eq!(next.wait().unwrap().text, "room");
    });
}

#[test]
fn c52_one_message_can_be_withdrawn_before_it_is_taken() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("drain")).unwrap();
        let (id, _) = stage.wait_entered();
        let notes = ["a", "b"].map(|text| service.steer(id, None, message(text)).unwrap());
        service.interrupt_interaction(id, notes[0].id).unwrap();
        stage.release();
        assert_eq!(running.wait().unwrap().text, "b");
        let [a, b] = notes.map(|note| note.last().unwrap());
        assert_matches!(a, AgentEvent::InteractionFailed { error, .. } if error == "cancelled: interrupted");
        assert_matches!(b, AgentEvent::InteractionComplete { .. });
    });
}

#[test]
fn c52_a_turn_that_waits_for_a_message_holds_no_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let (waiting, other) = (jobs.open(), jobs.open());
        let (told, is_told) = bounded(1);
        let turn_1 = jobs.begin(waiting, "wait", move |_, turn| {
            told.send(()).expect("the test listens");
            Ok(turn.wait_inbox(LONG)?.expect("a message").text())
        });
        is_told.recv_timeout(LONG).unwrap();
        assert_eq!(jobs.service.start_turn(other, turn("x")).unwrap().text, "x");
        // It takes a permit again before its call returns.
        let gate = Gate::new();
        let held = gate.clone();
        let holding =
            jobs.begin(other, "hold", move |_, turn| Ok(held.pass(turn.cancel_token()).map(|()| "held".into())?));
        gate.wait_arrived(1);
        let _note = jobs.service.steer(waiting, None, message("go")).unwrap();
        assert!(!turn_1.is_finished() && jobs.service.stats().running_turns == 1);
        gate.open();
        assert_eq!((holding.wait().unwrap().text, turn_1.wait().unwrap().text), ("held".into(), "go".into()));
    });
}

#[test]
fn c52_a_wait_for_a_message_ends_in_time_on_the_services_clock() {
    run(|| {
        let clock = ManualClock::new();
        let of_service = clock.clone();
        let jobs = Jobs::with(move |config| config.clock(of_service));
        let id = jobs.open();
        let waiting = jobs.begin(id, "wait", |_, turn| {
            assert!(turn.wait_inbox(Duration::ZERO)?.is_none());
            Ok(format!("{:?}", turn.wait_inbox(Duration::from_secs(3))?.map(|one| one.text())))
        });
        clock.wait_for_waiters(1);
        clock.advance(Duration::from_secs(2));
        assert!(!waiting.is_finished());
        clock.advance(Duration::from_secs(1));
        assert_eq!(waiting.wait().unwrap().text, "None");
    });
}

#[test]
fn c52_a_cancel_ends_the_wait_for_a_message_and_takes_none() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let (told, is_told) = bounded(1);
        let waiting = jobs.begin(id, "wait", move |_, turn| {
            told.send(()).expect("the test listens");
            let first = turn.wait_inbox(LONG);
            let again = turn.wait_inbox(LONG);
            assert!(first.is_err() && again.is_err());
            Err(first.unwrap_err().into())
        });
        is_told.recv_timeout(LONG).unwrap();
        waiting.interrupt();
        jobs.service.event_injector(id).unwrap().inject("kept".into(), EventSource::Rpc).unwrap();
        assert!(waiting.wait().unwrap_err().cancel_reason().is_some());
        jobs.prepare("next", |_, turn| Ok(taken(turn)));
        assert_eq!(jobs.service.start_turn(id, turn("next")).unwrap().text, "[rpc: kept]");
    });
}

#[test]
fn c52_the_close_of_the_session_ends_the_wait_for_a_message() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let (told, is_told) = bounded(1);
        let waiting = jobs.begin(id, "wait", move |_, turn| {
            told.send(()).expect("the test listens");
            assert!(!turn.is_inbox_closed());
            let both = [turn.wait_inbox(LONG)?, turn.wait_inbox(LONG)?];
            Ok(format!("{}", both.iter().all(Option::is_none) && turn.is_inbox_closed()))
        });
        is_told.recv_timeout(LONG).unwrap();
        jobs.service.archive_with(id, ArchiveMode::Drain).unwrap();
        assert_eq!(waiting.wait().unwrap().text, "true");
    });
}

#[test]
fn c52_each_message_goes_to_one_of_several_waiting_threads() {
    run(|| {
        const THREADS: usize = 4;
        const EACH: usize = 50;
        let jobs = Jobs::with(|config| config.max_running_turns(1).inbox_capacity(THREADS * EACH));
        let id = jobs.open();
        let waiting = jobs.begin(id, "wait", |_, turn| {
            let texts = thread::scope(|scope| {
                let take = || (0..EACH).map(|_| turn.wait_inbox(LONG).map(|one| one.expect("a message").text()));
                let threads = [(); THREADS].map(|()| scope.spawn(move || take().collect::<Result<Vec<_>, _>>()));
                threads.map(|thread| thread.join().expect("no panic"))
            });
            let mut numbers = Vec::new();
            for of_thread in texts {
                numbers.extend(of_thread?.iter().map(|text| text.parse::<usize>().expect("a number")));
            }
            numbers.sort_unstable();
            assert_eq!(numbers, (0..THREADS * EACH).collect::<Vec<_>>());
            Ok("all".into())
        });
        for number in 0..THREADS * EACH {
            drop(jobs.service.steer(id, None, message(&number.to_string())).unwrap());
        }
        assert_eq!(waiting.wait().unwrap().text, "all");
    });
}

#[test]
fn c52_a_turn_steers_another_one_through_its_service() {
    run(|| {
        let jobs = Jobs::new(1);
        let (waiting, other) = (jobs.open(), jobs.open());
        let steered = jobs.begin(waiting, "wait", |_, turn| Ok(turn.wait_inbox(LONG)?.expect("a message").text()));
        jobs.prepare("steer", move |_, turn| {
            let note = turn
                .service()
                .expect("the host has it")
                .steer(waiting, None, message("from a turn"))
                .map_err(AgentError::other)?;
            Ok(format!("{}", matches!(note.last(), Some(AgentEvent::InteractionComplete { .. }))))
        });
        assert_eq!(jobs.service.start_turn(other, turn("steer")).unwrap().text, "true");
        assert_eq!(steered.wait().unwrap().text, "from a turn");
    });
}

/// An agent with an injector of its own, which nothing reads.
struct OwnInjector(Arc<dyn SubscribableInjector>);

impl SessionAgent for OwnInjector {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let message = turn.wait_inbox(LONG)?.expect("a message");
        Ok(turn.finish(message.text()))
    }

    fn session_clone(&self) -> turnwise::Session {
        turnwise::Session::new()
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        Some(Arc::clone(&self.0))
    }
}

#[test]
fn c52_steering_goes_past_the_agents_own_injector() {
    run(|| {
        // The injector of a session of another service stands for one that the agent has made.
        let elsewhere = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
        let injector = elsewhere.event_injector(elsewhere.open_session(SessionSpec::new()).unwrap()).unwrap();
        let service = EphemeralSessionService::new(builder_fn(move |_, _| Ok(OwnInjector(Arc::clone(&injector)))), 1);
        let waiting = service.begin_session(create("x")).unwrap();
        let _note = service.steer(waiting.session_id(), None, message("here")).unwrap();
        assert_eq!(waiting.wait().unwrap().text, "here");
    });
}
