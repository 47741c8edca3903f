//! C49–C51: turns that wait in the queue of their session, turns that supersede another, and how a queue ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::testkit::{self, Gate, ManualClock};
use turnwise::{
    agent_fn, builder_fn, AgentError, AgentEvent, ArchiveMode, BuildError, CancelReason, EphemeralSessionService,
    EventSource, InputRequest, SessionAgentBuilder, SessionError, SessionId, SessionQuery, SessionService, SessionSpec,
    SessionState, StartTurnRequest, TurnHandle, WhenBusy,
};

use crate::support::*;

fn queued(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Queue)
}

fn interrupting(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Interrupt)
}

/// A session whose first turn, `hold`, has entered.
fn holding(stage: &Stage, service: &Service) -> (SessionId, TurnHandle) {
    let first = service.begin_session(create("hold")).unwrap();
    stage.wait_entered();
    (first.session_id(), first)
}

fn number(turn: &TurnHandle) -> u64 {
    turn.turn_id().get()
}

fn texts(turns: Vec<TurnHandle>) -> Vec<String> {
    turns.into_iter().map(|turn| turn.wait().unwrap().text).collect()
}

/// The prompts in the history of a session, whose turns have two messages each.
fn prompts(service: &dyn SessionService, id: SessionId) -> Vec<String> {
    let history = service.export_session(id).unwrap();
    history.messages().iter().step_by(2).map(|message| message.text().into()).collect()
}

#[test]
fn c49_turns_run_in_the_order_of_their_acceptance_and_their_ids_rise_by_one() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let waiting: Vec<_> =
            ["one", "two", "hold"].map(|prompt| service.begin_turn(id, queued(prompt)).unwrap()).into();
        assert_eq!(waiting.iter().map(number).collect::<Vec<_>>(), [2, 3, 4]);
        assert!(waiting.iter().all(TurnHandle::is_queued) && !first.is_queued());
        let info = service.read(id).unwrap().state;
        assert_eq!((info.turns, info.queued_turns, info.state), (4, 3, SessionState::Running));
        let listed = service.list(SessionQuery::new()).unwrap();
        assert_eq!((listed[0].turns, listed[0].queued_turns), (4, 3));
        assert_eq!(service.stats().turns_started, 1);
        stage.release();
        assert_eq!(first.wait().unwrap().text, "released");
        assert_eq!(stage.wait_entered().1.get(), 4, "the two before it have run");
        assert!(!waiting.iter().any(TurnHandle::is_queued));
        assert_eq!(service.read(id).unwrap().state.queued_turns, 0);
        stage.release();
        assert_eq!(texts(waiting), ["one", "two", "released"]);
        assert_eq!(prompts(&service, id), ["hold", "one", "two", "hold"]);
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
        let stats = service.stats();
        assert_eq!((stats.turns_started, stats.turns_withdrawn), (4, 0));
    });
}

#[test]
fn c49_an_idle_session_starts_the_turn_at_once() {
    run(|| {
        let (service, _stage) = scripted_with(|config| config.turn_queue(0));
        let id = service.open_session(SessionSpec::new()).unwrap();
        for request in [queued("x"), interrupting("x")] {
            let begun = service.begin_turn(id, request).unwrap();
            assert!(!begun.is_queued());
            assert_eq!(begun.wait().unwrap().text, "x");
        }
        assert_eq!(service.start_turn(id, queued("y")).unwrap().text, "y");
    });
}

#[test]
fn c49_the_hand_over_lets_no_other_caller_in_between() {
    run(|| {
        let (service, _stage) = scripted_with(|config| config.turn_queue(64));
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..200 {
            let admitted = AtomicUsize::new(0);
            let turns: Vec<_> = (0..8).map(|_| service.begin_turn(id, queued("x")).unwrap()).collect();
            let last = number(turns.last().unwrap());
            let waiting = AtomicUsize::new(turns.len());
            thread::scope(|scope| {
                scope.spawn(|| {
                    while waiting.load(Ordering::SeqCst) > 0 {
                        if let Ok(turn) = service.begin_turn(id, turn("rival")) {
                            assert!(number(&turn) > last, "it got the number of a queued turn");
                            // The turns before it have ended by now, though their callers may not have looked yet.
                            admitted.fetch_add(1, Ordering::SeqCst);
                            turn.wait().unwrap();
                        }
                    }
                });
                let history = turns.into_iter().map(|turn| {
                    turn.wait().unwrap();
                    waiting.fetch_sub(1, Ordering::SeqCst);
                });
                history.for_each(drop);
            });
        }
        // In the history every block of eight is whole.
        let prompts = prompts(&service, id);
        let blocks = prompts.split(|prompt| prompt == "rival").map(<[_]>::len);
        assert!(blocks.clone().all(|length| length % 8 == 0), "{:?}", blocks.collect::<Vec<_>>());
    });
}

#[test]
fn c49_a_refused_caller_is_told_the_running_turn_and_not_a_queued_one() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let _second = service.begin_turn(id, queued("x")).unwrap();
        let refused = service.begin_turn(id, turn("y")).unwrap_err();
        assert_matches!(refused, SessionError::Busy { turn: Some(turn), .. } if turn == first.turn_id());
        stage.release();
    });
}

#[test]
fn c49_a_full_queue_refuses_at_once_and_a_withdrawal_makes_room_at_once() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.turn_queue(2));
        let (id, first) = holding(&stage, &service);
        let waiting = ["one", "two"].map(|prompt| service.begin_turn(id, queued(prompt)).unwrap());
        for request in [queued("three"), interrupting("three")] {
            let error = service.begin_turn(id, request).unwrap_err();
            assert_matches!(&error, SessionError::QueueFull { id: full, capacity: 2 } if *full == id);
            assert_eq!((error.code(), error.session_id()), ("QUEUE_FULL", Some(id)));
        }
        assert!(!first.is_finished(), "nothing is cancelled");
        let [one, two] = waiting;
        one.interrupt();
        assert!(one.is_finished() && !one.is_queued());
        assert_cancelled(one.wait(), CancelReason::Interrupted);
        let third = service.begin_turn(id, queued("three")).unwrap();
        // The refused turns have used no number.
        assert_eq!(number(&third), 4);
        assert_eq!(service.read(id).unwrap().state.queued_turns, 2);
        stage.release();
        assert_eq!(texts(vec![first, two, third]), ["released", "two", "three"]);
        let stats = service.stats();
        assert_eq!((stats.turns_started, stats.turns_withdrawn, stats.turns_cancelled), (3, 1, 0));
    });
}

#[test]
fn c49_a_queue_of_nothing_refuses_every_turn_of_a_busy_session() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.turn_queue(0));
        let (id, first) = holding(&stage, &service);
        for request in [queued("x"), interrupting("x")] {
            assert_matches!(service.begin_turn(id, request), Err(SessionError::QueueFull { capacity: 0, .. }));
        }
        stage.release();
        first.wait().unwrap();
    });
}

#[test]
fn c49_an_interrupt_reaches_the_running_turn_alone_and_by_its_id_a_queued_one() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let (event_tx, events) = unbounded();
        let second = service.begin_turn(id, queued("x").event_tx(event_tx)).unwrap();
        let third = service.begin_turn(id, queued("hold")).unwrap();
        service.interrupt_turn(id, second.turn_id()).unwrap();
        assert!(events.recv().is_err(), "its receiver disconnects without an event");
        assert_cancelled(second.wait(), CancelReason::Interrupted);
        service.interrupt(id).unwrap();
        assert_cancelled(first.wait(), CancelReason::Interrupted);
        stage.wait_entered();
        // A late interrupt of the two before touches nothing.
        assert_matches!(service.interrupt_turn(id, turnwise::TurnId::new(2)), Err(SessionError::NotRunning { .. }));
        stage.release();
        assert_eq!(third.wait().unwrap().text, "released");
    });
}

#[test]
fn c49_an_interrupt_of_the_session_finds_a_turn_at_any_time_while_turns_are_queued() {
    run(|| {
        let (service, _stage) = scripted_with(|config| config.turn_queue(1_000));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let turns: Vec<_> = (0..1_000).map(|_| service.begin_turn(id, queued("x")).unwrap()).collect();
        let last = turns.last().unwrap();
        while last.is_queued() {
            let interrupted = service.interrupt(id);
            assert!(interrupted.is_ok() || !last.is_queued(), "{interrupted:?}");
        }
        for turn in turns {
            let result = turn.wait();
            if result.is_err() {
                assert_cancelled(result, CancelReason::Interrupted);
            }
        }
    });
}

#[test]
fn c49_a_deadline_passes_in_the_queue() {
    run(|| {
        let clock = ManualClock::new();
        let (service, stage) = scripted_with(|config| config.clock(clock.clone()));
        let (id, first) = holding(&stage, &service);
        let (event_tx, events) = unbounded();
        let timed = queued("x").timeout(Duration::from_secs(1)).event_tx(event_tx);
        let mut timed = service.begin_turn(id, timed).unwrap();
        let later = service.begin_turn(id, queued("later").timeout(LONG)).unwrap();
        clock.advance(Duration::from_secs(1));
        assert!(timed.finished().recv().is_err());
        assert_cancelled(timed.try_wait().unwrap(), CancelReason::DeadlineExceeded);
        assert!(events.recv().is_err());
        assert!(!first.is_finished() && later.is_queued());
        stage.release();
        assert_eq!(texts(vec![first, later]), ["released", "later"]);
        assert_eq!(service.stats().turns_withdrawn, 1);
    });
}

#[test]
fn c49_a_dropped_handle_leaves_its_turn_in_the_queue() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        drop(service.begin_turn(id, queued("detached")).unwrap());
        let last = service.begin_turn(id, queued("last")).unwrap();
        stage.release();
        first.wait().unwrap();
        assert_eq!(last.wait().unwrap().text, "last");
        assert_eq!(service.read(id).unwrap().state.message_count, 6);
    });
}

#[test]
fn c49_a_refused_request_comes_back_whole() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.turn_queue(0));
        let (id, first) = holding(&stage, &service);
        let boxed: Box<dyn SessionService> = Box::new(service.clone());
        for when_busy in [WhenBusy::Refuse, WhenBusy::Queue, WhenBusy::Interrupt] {
            let (event_tx, events) = unbounded();
            let skills = vec!["office/mail".into()];
            let request =
                turn("x").event_tx(event_tx).timeout(LONG).skill_references(skills.clone()).when_busy(when_busy);
            let refused = boxed.try_begin_turn(id, request).unwrap_err();
            assert!(matches!(refused.error, SessionError::Busy { .. } | SessionError::QueueFull { .. }));
            assert_eq!(refused.to_string(), refused.error.to_string());
            let request = refused.request;
            assert_eq!((request.prompt.as_str(), request.timeout, request.when_busy), ("x", Some(LONG), when_busy));
            assert_eq!(request.skill_references, Some(skills));
            assert!(events.try_recv().unwrap_err().is_empty(), "its sender is there");
            drop(request);
            assert!(events.recv().is_err(), "no copy is left");
        }
        let unknown = service.try_begin_turn(SessionId::new(), turn("y")).unwrap_err();
        assert_matches!(SessionError::from(unknown), SessionError::NotFound { .. });
        stage.release();
        first.wait().unwrap();
    });
}

#[test]
fn c49_a_turn_on_its_own_session_is_reentrant_and_queues_nothing() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let own = jobs.begin(id, "job", move |service, _| {
            for request in [queued("x"), interrupting("x")] {
                assert_matches!(service.start_turn(id, request), Err(SessionError::Reentrant { .. }));
            }
            assert_eq!(service.read(id)?.state.queued_turns, 0);
            // Without a wait it queues behind itself.
            let next = service.begin_turn(id, queued("next"))?;
            assert!(next.is_queued());
            assert_matches!(next.wait(), Err(SessionError::Reentrant { .. }));
            Ok("done".into())
        });
        assert_eq!(own.wait().unwrap().text, "done");
        while service_turns(&jobs) < 2 {
            thread::yield_now();
        }
    });
}

fn service_turns(jobs: &Jobs) -> u64 {
    jobs.service.stats().turns_completed
}

#[test]
fn c49_a_caller_on_a_session_thread_waits_for_its_queued_turn_without_a_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let (parent, child) = (jobs.open(), jobs.open());
        let (enter, entered) = bounded(1);
        let gate = Gate::new();
        let waits = gate.clone();
        let first = jobs.begin(child, "first", move |_, turn| {
            enter.send(()).unwrap();
            turn.sleep(Duration::ZERO)?;
            waits.pass(turn.cancel_token())?;
            Ok("first".into())
        });
        entered.recv().unwrap();
        gate.open();
        let asks = jobs.begin(parent, "asks", move |service, _| Ok(service.start_turn(child, queued("queued"))?.text));
        assert_eq!(asks.wait().unwrap().text, "queued");
        assert_eq!(first.wait().unwrap().text, "first");
    });
}

#[test]
fn c49_a_turn_queues_behind_a_build_with_a_turn_and_without() {
    run(|| {
        let gate = Gate::new();
        let opens = gate.clone();
        let builder = builder_fn(move |spec, context| {
            opens.pass_regardless();
            agent_fn(|prompt, turn| Ok(turn.finish(prompt))).build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 2);
        let first = service.begin_session(create("first")).unwrap();
        let second = service.begin_turn(first.session_id(), queued("second")).unwrap();
        assert_matches!(service.begin_turn(first.session_id(), turn("x")), Err(SessionError::Busy { turn: Some(turn), .. }) if turn == first.turn_id());
        let id = SessionId::new();
        let opening = service.clone();
        let opener = thread::spawn(move || opening.open_session(SessionSpec::new().session_id(id)));
        service.wait_session_registered(1, LONG).unwrap();
        let queued: Vec<_> =
            [queued("one"), interrupting("zero")].map(|request| service.begin_turn(id, request).unwrap()).into();
        assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::Busy { turn: None, .. }));
        // The build has no turn to interrupt.
        assert_matches!(service.interrupt(id), Err(SessionError::NotRunning { .. }));
        let info = service.read(id).unwrap().state;
        assert_eq!((info.state, info.turns, info.queued_turns), (SessionState::Building, 2, 2));
        gate.open();
        assert_eq!(opener.join().unwrap().unwrap(), id);
        assert_eq!(texts(vec![first, second]), ["first", "second"]);
        assert_eq!(texts(queued), ["one", "zero"]);
        assert_eq!(prompts(&service, id)[0], "zero", "it went to the head");
    });
}

#[test]
fn c49_a_turn_behind_host_mode_waits_until_it_ends() {
    run(|| {
        let (service, _stage) = scripted(1);
        let hosting = service.begin_session(create("host").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let next = service.begin_turn(id, queued("next")).unwrap();
        let injector = service.event_injector(id).unwrap();
        let subscription = injector.inject_with_subscription("x".into(), EventSource::Tcp).unwrap();
        assert!(subscription.events.iter().last().is_some());
        assert!(next.is_queued() && !hosting.is_finished());
        injector.dismiss(EventSource::Tcp).unwrap();
        assert!(hosting.wait().is_ok());
        assert_eq!(next.wait().unwrap().text, "next");
    });
}

/// Whether the export was in the queue of commands before the first turn had ended. Then it has been served.
fn export_between(service: &Service, stage: &Stage) -> bool {
    let (id, first) = holding(stage, service);
    let second = service.begin_turn(id, queued("hold")).unwrap();
    let (exporting, (answer, answered)) = (service.clone(), bounded(1));
    let exporter = thread::spawn(move || answer.send(exporting.export_session(id).unwrap()).unwrap());
    assert_matches!(service.export_session_timeout(id, SHORT), Err(SessionError::Timeout { .. }));
    stage.release();
    first.wait().unwrap();
    stage.wait_entered();
    let served = answered.recv_timeout(20 * SHORT);
    if let Ok(history) = &served {
        assert_eq!(history.messages().len(), 2, "the second turn has not ended");
    }
    stage.release();
    second.wait().unwrap();
    exporter.join().unwrap();
    service.archive_wait(id, LONG).unwrap();
    served.is_ok()
}

#[test]
fn c49_an_export_is_served_between_two_queued_turns() {
    run(|| {
        let (service, stage) = scripted(1);
        assert!((0..100).any(|_| export_between(&service, &stage)), "no export was served between two turns");
    });
}

#[test]
fn c49_a_take_waits_until_no_turn_is_queued() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let second = service.begin_turn(id, queued("hold")).unwrap();
        assert_matches!(service.take_session(id, SHORT), Err(SessionError::Timeout { .. }));
        let taking = service.clone();
        let taker = thread::spawn(move || taking.take_session(id, LONG));
        stage.release();
        first.wait().unwrap();
        stage.wait_entered();
        assert!(!taker.is_finished());
        stage.release();
        second.wait().unwrap();
        assert_eq!(taker.join().unwrap().unwrap().messages().len(), 4);
        assert_matches!(service.begin_turn(id, queued("x")), Err(SessionError::NotFound { .. }));
    });
}

#[test]
fn c49_a_take_in_host_mode_waits_for_the_queue_and_notices_that_it_is_empty() {
    run(|| {
        let (service, _stage) = scripted(1);
        let hosting = service.begin_session(create("host").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let next = service.begin_turn(id, queued("next")).unwrap();
        while service.export_session(id).unwrap().messages().is_empty() {}
        assert_matches!(service.take_session(id, SHORT), Err(SessionError::Timeout { .. }));
        let taking = service.clone();
        let taker = thread::spawn(move || taking.take_session(id, LONG));
        assert!(next.is_queued() && !hosting.is_finished());
        next.interrupt();
        assert_cancelled(next.wait(), CancelReason::Interrupted);
        assert_eq!(taker.join().unwrap().unwrap().messages().len(), 2);
        assert!(hosting.wait().is_ok());
    });
}

#[test]
fn c50_the_running_turn_is_superseded_and_the_new_one_is_next() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let waiting = ["one", "two"].map(|prompt| service.begin_turn(id, queued(prompt)).unwrap());
        let now = service.begin_turn(id, interrupting("now")).unwrap();
        assert_eq!(number(&now), 4);
        let superseded = first.wait();
        assert_eq!(superseded.as_ref().unwrap_err().to_string().matches("superseded by another turn").count(), 1);
        assert_cancelled(superseded, CancelReason::Superseded);
        assert_eq!(now.wait().unwrap().text, "now");
        assert_eq!(texts(waiting.into()), ["one", "two"]);
        let prompts = prompts(&service, id);
        assert_eq!(prompts[prompts.len() - 3..], ["now", "one", "two"]);
    });
}

#[test]
fn c50_of_several_the_latest_goes_first_and_none_in_the_queue_is_superseded() {
    run(|| {
        let (service, stage) = scripted(1);
        let first = service.begin_session(create("deaf")).unwrap();
        stage.wait_entered();
        let id = first.session_id();
        let turns: Vec<_> =
            ["one", "two", "three"].map(|prompt| service.begin_turn(id, interrupting(prompt)).unwrap()).into();
        assert!(turns.iter().all(TurnHandle::is_queued));
        stage.release();
        assert!(first.wait().is_ok(), "it has not heeded its token");
        assert_eq!(texts(turns), ["one", "two", "three"]);
        assert_eq!(prompts(&service, id), ["deaf", "three", "two", "one"]);
    });
}

#[test]
fn c50_a_building_turn_is_superseded() {
    run(|| {
        let gate = Gate::new();
        let opens = gate.clone();
        let ran = Arc::new(AtomicUsize::new(0));
        let runs = Arc::clone(&ran);
        let builder = builder_fn(move |spec, context| {
            opens.pass_regardless();
            let runs = Arc::clone(&runs);
            let agent = agent_fn(move |prompt, turn| {
                runs.fetch_add(1, Ordering::SeqCst);
                Ok(turn.finish(prompt))
            });
            agent.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let first = service.begin_session(create("first")).unwrap();
        let second = service.begin_turn(first.session_id(), interrupting("second")).unwrap();
        gate.open();
        assert_cancelled(first.wait(), CancelReason::Superseded);
        assert_eq!(second.wait().unwrap().text, "second");
        assert_eq!(ran.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn c50_a_turn_in_host_mode_is_superseded() {
    run(|| {
        let (service, _stage) = scripted(1);
        let hosting = service.begin_session(create("host").host_mode(true)).unwrap();
        let id = hosting.session_id();
        while service.export_session(id).unwrap().messages().is_empty() {}
        assert_eq!(service.start_turn(id, interrupting("now")).unwrap().text, "now");
        assert_cancelled(hosting.wait(), CancelReason::Superseded);
    });
}

#[test]
fn c50_a_turn_that_waits_for_input_or_for_a_permit_is_superseded() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let asking = jobs.begin(id, "asks", |_, turn| Ok(turn.request_input(InputRequest::new("question", "well?"))?));
        while jobs.service.pending_inputs(id).unwrap().is_empty() {}
        assert_eq!(jobs.service.read(id).unwrap().state.state, SessionState::Waiting);
        assert_eq!(jobs.service.start_turn(id, interrupting("now")).unwrap().text, "now");
        assert_cancelled(asking.wait(), CancelReason::Superseded);

        let (service, stage) = scripted_with(|config| config.max_running_turns(1));
        let running = service.begin_session(create("deaf")).unwrap();
        stage.wait_entered();
        let other = service.begin_session(create("no permit")).unwrap();
        let now = service.begin_turn(other.session_id(), interrupting("now")).unwrap();
        assert_cancelled(other.wait(), CancelReason::Superseded);
        stage.release();
        running.wait().unwrap();
        assert_eq!(now.wait().unwrap().text, "now");
    });
}

#[test]
fn c50_the_hooks_of_the_superseded_turn_run_on_the_caller() {
    run(|| {
        let jobs = Jobs::new(2);
        let id = jobs.open();
        let (enter, entered) = bounded(1);
        let (tell, told) = bounded(1);
        let (abort, aborted) = bounded::<()>(0);
        let first = jobs.begin(id, "first", move |_, turn| {
            let hook = turn.cancel_token().on_cancel(move || {
                tell.send(thread::current().id()).unwrap();
                drop(abort);
            });
            enter.send(()).unwrap();
            // Only the hook ends this wait.
            aborted.recv().unwrap_err();
            drop(hook);
            turn.check()?;
            Ok(String::new())
        });
        entered.recv().unwrap();
        let now = jobs.service.begin_turn(id, interrupting("now")).unwrap();
        assert_eq!(told.try_recv().expect("it ran before the call has returned"), thread::current().id());
        assert_cancelled(first.wait(), CancelReason::Superseded);
        assert_eq!(now.wait().unwrap().text, "now");
    });
}

#[test]
fn c51_a_draining_archive_runs_the_queue() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let waiting: Vec<_> = ["one", "two"].map(|prompt| service.begin_turn(id, queued(prompt)).unwrap()).into();
        service.archive(id).unwrap();
        assert_matches!(service.begin_turn(id, queued("late")), Err(SessionError::NotFound { .. }));
        stage.release();
        assert_eq!(first.wait().unwrap().text, "released");
        assert_eq!(texts(waiting), ["one", "two"]);
        service.archive_wait(id, LONG).unwrap();
    });
}

#[test]
fn c51_a_draining_archive_ends_host_mode_and_then_runs_the_queue() {
    run(|| {
        let (service, _stage) = scripted(1);
        let hosting = service.begin_session(create("host").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let waiting = vec![
            service.begin_turn(id, queued("one")).unwrap(),
            service.begin_turn(id, queued("two").host_mode(true)).unwrap(),
        ];
        service.archive(id).unwrap();
        assert!(hosting.wait().is_ok());
        assert_eq!(texts(waiting), ["one", "two"]);
        service.archive_wait(id, LONG).unwrap();
    });
}

#[test]
fn c51_an_interrupting_archive_and_a_shutdown_answer_every_queued_turn() {
    run(|| {
        for reason in [CancelReason::Archived, CancelReason::Shutdown] {
            let (service, stage) = scripted(1);
            let first = service.begin_session(create("deaf")).unwrap();
            stage.wait_entered();
            let id = first.session_id();
            let (event_tx, events) = unbounded();
            let waiting = [queued("one").event_tx(event_tx), queued("two"), interrupting("three")]
                .map(|request| service.begin_turn(id, request).unwrap());
            match reason {
                CancelReason::Archived => service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
                _ => assert_eq!(service.shutdown(Duration::ZERO).stuck, [id]),
            }
            let is_answered = |turn: &TurnHandle| turn.is_finished() && !turn.is_queued();
            assert!(waiting.iter().all(is_answered), "at once, though the first turn still runs");
            assert!(events.recv().is_err());
            for turn in waiting {
                assert_cancelled(turn.wait(), reason);
            }
            assert_eq!(service.stats().turns_withdrawn, 3);
            stage.release();
            first.wait().unwrap();
            assert_eq!(service.shutdown(LONG).stuck, []);
            assert_eq!(service.stats().turns_started, 1);
        }
    });
}

#[test]
fn c51_a_drain_can_be_escalated_and_the_drop_of_the_service_answers_too() {
    run(|| {
        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let waiting = service.begin_turn(id, queued("x")).unwrap();
        service.archive(id).unwrap();
        assert!(waiting.is_queued());
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        assert_cancelled(waiting.wait(), CancelReason::Archived);
        assert_cancelled(first.wait(), CancelReason::Archived);

        let (service, stage) = scripted(1);
        let (id, first) = holding(&stage, &service);
        let waiting = service.begin_turn(id, queued("x")).unwrap();
        drop(service);
        assert_cancelled(waiting.wait(), CancelReason::Shutdown);
        assert_cancelled(first.wait(), CancelReason::Shutdown);
    });
}

#[test]
fn c51_a_fault_answers_the_queue_as_faulted() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let (gate, (enter, entered)) = (Gate::new(), bounded(1));
        let waits = gate.clone();
        let first = jobs.begin(id, "panics", move |_, turn| {
            enter.send(()).unwrap();
            waits.pass(turn.cancel_token())?;
            panic!("scripted")
        });
        entered.recv().unwrap();
        let (event_tx, events) = unbounded::<AgentEvent>();
        let waiting = [queued("one").event_tx(event_tx), queued("two")]
            .map(|request| jobs.service.begin_turn(id, request).unwrap());
        gate.open();
        for turn in waiting {
            assert_matches!(turn.wait(), Err(SessionError::Faulted { message, .. }) if &*message == "scripted");
        }
        assert!(events.recv().is_err());
        assert_matches!(first.wait(), Err(SessionError::Faulted { .. }));
        assert_matches!(jobs.service.begin_turn(id, queued("x")), Err(SessionError::Faulted { .. }));
        let info = jobs.service.read(id).unwrap().state;
        assert_eq!((info.state, info.queued_turns, info.turns), (SessionState::Faulted, 0, 3));
        let stats = jobs.service.stats();
        assert_eq!((stats.faults, stats.turns_withdrawn), (1, 2));
    });
}

#[test]
fn c51_a_failed_build_answers_the_queue_with_its_error() {
    run(|| {
        for with_turn in [true, false] {
            let gate = Gate::new();
            let opens = gate.clone();
            let builder = builder_fn(move |_, _| {
                opens.pass_regardless();
                Err::<Box<dyn turnwise::SessionAgent>, _>(AgentError::Config("no key".into()))
            });
            let service = EphemeralSessionService::new(builder, 1);
            let id = SessionId::new();
            let spec = SessionSpec::new().session_id(id);
            let starting = service.clone();
            let starter = thread::spawn(move || match with_turn {
                true => starting.create_session(create("first").session(spec)).map(drop),
                false => starting.open_session(spec).map(drop),
            });
            service.wait_session_registered(0, LONG).unwrap();
            let (event_tx, events) = unbounded::<AgentEvent>();
            let waiting = [queued("one").event_tx(event_tx), queued("two")]
                .map(|request| service.begin_turn(id, request).unwrap());
            gate.open();
            for turn in waiting {
                let error = turn.wait().unwrap_err();
                assert_matches!(&error, SessionError::Build { source: BuildError::Agent(_), .. });
                assert_eq!(service.stats().sessions, 0, "the place is free before the answer");
            }
            assert!(events.recv().is_err());
            assert_matches!(starter.join().unwrap(), Err(SessionError::Build { .. }));
            assert_matches!(service.begin_turn(id, queued("x")), Err(SessionError::NotFound { .. }));
            assert_eq!(service.stats().turns_withdrawn, 2);
        }
    });
}

#[test]
fn c51_every_accepted_turn_is_answered_once_whatever_ends_its_session() {
    run(|| {
        for round in 0..100 {
            let (service, stage) = scripted_with(|config| config.max_sessions(1).turn_queue(1_000));
            let id = service.open_session(SessionSpec::new()).unwrap();
            let callers: Vec<_> = (0..3)
                .map(|_| {
                    let service = service.clone();
                    thread::spawn(move || {
                        let mut accepted = Vec::new();
                        for count in 0..50 {
                            let prompt = if count == 40 && round % 4 == 3 { "panic" } else { "x" };
                            match service.begin_turn(id, queued(prompt)) {
                                Ok(turn) => accepted.push(turn),
                                Err(_) => break,
                            }
                        }
                        accepted
                    })
                })
                .collect();
            match round % 4 {
                0 => service.archive(id).unwrap(),
                1 => service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
                2 => drop(service.shutdown(LONG)),
                _ => {}
            }
            let accepted: Vec<_> = callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect();
            let count = accepted.len() as u64;
            for turn in accepted {
                match turn.wait() {
                    Ok(_) | Err(SessionError::Faulted { .. }) => {}
                    Err(error) => assert!(error.cancel_reason().is_some(), "{error}"),
                }
            }
            let stats = service.stats();
            assert_eq!(stats.turns_started + stats.turns_withdrawn, count);
            assert_eq!(stats.turns_ended(), stats.turns_started);
            drop(stage);
        }
    });
}

#[test]
fn c50_a_turn_that_supersedes_a_build_gets_the_agent_also_if_the_builder_observes_its_token() {
    run(|| {
        let building = Gate::new();
        let builder = testkit::scripted().build_waits_at(&building);
        let service = EphemeralSessionService::new(builder, 1);
        let first = service.begin_session(create("first")).unwrap();
        building.wait_arrived(1);
        let id = first.session_id();
        let second = service.begin_turn(id, turn("second").when_busy(WhenBusy::Interrupt)).unwrap();
        let third = service.begin_turn(id, turn("third").when_busy(WhenBusy::Interrupt)).unwrap();
        assert!(second.is_queued() && third.is_queued() && !first.is_finished());
        building.open();
        assert_cancelled(first.wait(), CancelReason::Superseded);
        assert_eq!((second.wait().unwrap().text, third.wait().unwrap().text), ("second".into(), "third".into()));
        // An interrupt still ends the build, and the turns behind it.
        let building = Gate::new();
        let service = EphemeralSessionService::new(testkit::scripted().build_waits_at(&building), 1);
        let first = service.begin_session(create("first")).unwrap();
        building.wait_arrived(1);
        let second = service.begin_turn(first.session_id(), turn("second").when_busy(WhenBusy::Interrupt)).unwrap();
        first.interrupt();
        for ended in [first.wait(), second.wait()] {
            assert_matches!(ended.unwrap_err(), SessionError::Build { .. });
        }
    });
}
