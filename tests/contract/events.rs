//! C35, C36, C38: a turn's events.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;

use turnwise::crossbeam_channel::{bounded, unbounded, RecvTimeoutError, TryRecvError};
use turnwise::testkit::Recorder;
use turnwise::{
    agent_fn, builder_fn, AgentEvent, EphemeralSessionService, SessionAgentBuilder, SessionError, SessionService,
    SessionSpec, Usage,
};

use crate::support::*;

#[test]
fn c35_run_started_first_one_terminal_event_last_then_the_receiver_disconnects() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for (prompt, deltas, succeeds) in [("emit 100", 100, true), ("fail", 0, false), ("panic", 0, false)] {
            let (event_tx, events) = unbounded();
            let result = service.start_turn(id, turn(prompt).event_tx(event_tx));
            assert_eq!(result.is_ok(), succeeds);
            // The result is delivered, so all events are in the channel and its sender is dropped.
            let mut seen: Vec<_> = events.try_iter().collect();
            assert!(events.try_recv().unwrap_err().is_disconnected());
            assert_matches!(
                seen.remove(0),
                AgentEvent::RunStarted { session_id, prompt: is, .. } if session_id == id && is == prompt
            );
            match seen.pop().unwrap() {
                AgentEvent::RunCompleted { session_id, result, .. } => {
                    assert!(succeeds && session_id == id && result == "emitted");
                }
                AgentEvent::RunFailed { error, .. } => assert!(!succeeds && error.contains("scripted")),
                other => panic!("{other:?}"),
            }
            assert_eq!(seen, (0..deltas).map(delta).collect::<Vec<_>>());
        }
    });
}

#[test]
fn c35_the_callback_and_the_stream_see_the_same() {
    run(|| {
        let (service, _stage) = scripted(2);
        let mut seen = Vec::new();
        let result = service.create_session_with(create("emit 1000"), &mut |event| seen.push(event)).unwrap();
        assert_eq!(seen.len(), 1_002);
        let id = result.session_id;
        let mut seen = Vec::new();
        service.start_turn_with(id, turn("emit 1000"), &mut |event| seen.push(event)).unwrap();
        assert_eq!(seen.len(), 1_002);
        let streamed: Vec<_> = service.stream_turn(id, turn("emit 1000")).unwrap().collect();
        assert_eq!(streamed[1..1_001], seen[1..1_001]);
        // `wait` returns although the stream was not read to its end.
        let mut stream = service.stream_turn(id, turn("emit 1000")).unwrap();
        assert!(stream.next().is_some());
        assert_eq!(stream.wait().unwrap().text, "emitted");
        // The drop of a stream does not fail its turn.
        let stream = service.stream_turn(id, turn("emit 1000")).unwrap();
        let finished = stream.handle().finished().clone();
        drop(stream);
        assert!(finished.recv().is_err());
        assert_eq!(service.read(id).unwrap().state.last_assistant_text.as_deref(), Some("emitted"));
        let stream = service.stream_session(create("x")).unwrap();
        assert_eq!(stream.events().iter().count(), 2);
        assert_eq!(stream.wait().unwrap().text, "x");
    });
}

#[test]
fn c35_a_stream_can_be_polled_and_its_end_is_that_of_the_turn() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let mut stream = service.stream_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        assert_matches!(stream.try_recv(), Ok(AgentEvent::RunStarted { .. }));
        assert_eq!(stream.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(stream.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
        assert!(stream.try_wait().is_none());
        stage.release();
        assert_matches!(stream.recv_timeout(LONG), Ok(AgentEvent::RunCompleted { .. }));
        assert_eq!(stream.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
        assert_eq!(stream.try_recv(), Err(TryRecvError::Disconnected));
        assert_eq!(stream.next(), None);
        assert_eq!(stream.try_wait().unwrap().unwrap().text, "released");
        assert_eq!(stream.wait().unwrap().text, "released");
        // A caller that has seen the end of the stream may start the next turn, by whichever method it saw the end.
        for round in 0..3_000 {
            let stream = service.stream_turn(id, turn("x")).unwrap();
            while match round % 2 {
                0 => stream.try_recv() != Err(TryRecvError::Disconnected),
                _ => stream.recv_timeout(LONG) != Err(RecvTimeoutError::Disconnected),
            } {}
        }
    });
}

#[test]
fn c35_a_full_receiver_of_a_cancelled_turn_misses_the_terminal_event() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let (event_tx, events) = bounded(4);
        let flooding = service.begin_turn(id, turn("flood").event_tx(event_tx)).unwrap();
        stage.wait_entered();
        while events.len() < 4 {
            thread::yield_now();
        }
        flooding.interrupt();
        flooding.wait().unwrap_err();
        let seen: Vec<_> = events.iter().collect();
        assert_eq!(seen.len(), 4);
        assert_matches!(&seen[3], AgentEvent::TextDelta { .. });
        assert_eq!(service.stats().events_dropped, 1);
        // With room the terminal event of a cancelled turn arrives.
        let (event_tx, events) = bounded(4);
        let held = service.begin_turn(id, turn("hold").event_tx(event_tx)).unwrap();
        held.interrupt();
        held.wait().unwrap_err();
        Recorder::of_events(events).assert_events(&["RunStarted(hold)", "RunFailed"]);
        assert_eq!(service.stats().events_dropped, 1);
    });
}

#[test]
fn c35_scoped_threads_may_emit_and_end_before_the_terminal_event() {
    run(|| {
        let service = EphemeralSessionService::new(
            agent_fn(|_, turn| {
                thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| (0..100).for_each(|number| turn.emit(delta(number)).unwrap()));
                    }
                });
                Ok(turn.finish("done").with_usage(Usage { input_tokens: 3, ..Usage::default() }))
            }),
            1,
        );
        let (event_tx, events) = unbounded();
        service.create_session(create("x").event_tx(event_tx)).unwrap();
        let seen: Vec<_> = events.iter().collect();
        assert_eq!(seen.len(), 402);
        assert_matches!(&seen[401], AgentEvent::RunCompleted { usage: Usage { input_tokens: 3, .. }, .. });
    });
}

#[test]
fn c36_a_slow_receiver_gives_back_pressure() {
    run(|| {
        const CAPACITY: usize = 3;
        let emitted = Arc::new(AtomicUsize::new(0));
        let service = {
            let emitted = Arc::clone(&emitted);
            EphemeralSessionService::new(
                agent_fn(move |_, turn| {
                    for number in 0..10_000 {
                        turn.emit(delta(number))?;
                        emitted.fetch_add(1, Ordering::SeqCst);
                    }
                    Ok(turn.finish(""))
                }),
                1,
            )
        };
        let (event_tx, events) = bounded(CAPACITY);
        let running = service.begin_session(create("x").event_tx(event_tx)).unwrap();
        for received in 0..10_001 {
            let ahead = emitted.load(Ordering::SeqCst);
            // The turn is ahead by the capacity of the channel at most. `RunStarted` is one of the received events.
            assert!(ahead <= received + CAPACITY, "{ahead} emitted, {received} received");
            events.recv().unwrap();
        }
        drop(events);
        running.wait().unwrap();
    });
}

#[test]
fn c36_a_dropped_receiver_is_logged_once_and_the_turn_goes_on() {
    run(|| {
        record_log();
        let (service, stage) = scripted(1);
        let (event_tx, events) = bounded(1);
        let running = service.begin_session(create("flood").event_tx(event_tx)).unwrap();
        let (id, _) = stage.wait_entered();
        // The turn waits for room, or will soon. The drop releases it, and it emits until the interrupt.
        drop(events);
        running.interrupt();
        running.wait().unwrap_err();
        let (event_tx, events) = unbounded();
        drop(events);
        assert_eq!(service.start_turn(id, turn("emit 100").event_tx(event_tx)).unwrap().text, "emitted");
        let warnings = logged(log::Level::Warn, &id.to_string());
        assert_eq!(warnings.iter().filter(|text| text.contains("turn 2")).count(), 1, "{warnings:?}");
        assert!(warnings.iter().all(|text| text.starts_with("turnwise::events")), "{warnings:?}");
    });
}

#[test]
fn c36_prompts_and_answers_are_never_logged() {
    run(|| {
        record_log();
        let (service, _stage) = scripted(2);
        let (event_tx, events) = bounded(1);
        drop(events);
        let secret = "xyzzy-secret";
        let id = service.create_session(create(secret).event_tx(event_tx)).unwrap().session_id;
        service.start_turn(id, turn(secret)).unwrap();
        service.start_turn(id, turn("panic")).unwrap_err();
        service.shutdown(LONG);
        for level in [log::Level::Error, log::Level::Warn, log::Level::Info, log::Level::Debug, log::Level::Trace] {
            assert_eq!(logged(level, secret), [] as [String; 0]);
        }
        assert!(logged(log::Level::Error, &id.to_string())[0].contains("panicked in turn 3"));
        let lifecycle = logged(log::Level::Debug, &id.to_string());
        for step in ["created", "built", "turn 1 runs", "turn 1 ends: OK", "closed", "ended"] {
            assert!(lifecycle.iter().any(|text| text.contains(step)), "no '{step}' in {lifecycle:?}");
        }
    });
}

#[test]
fn c38_events_of_the_build_reach_the_first_turn_and_others_reach_no_turn() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let (kept, contexts) = unbounded();
        let builder = builder_fn(move |spec, context| {
            context.events().emit(delta(1))?;
            let elsewhere = context.clone();
            thread::spawn(move || elsewhere.events().emit(delta(2))).join().unwrap()?;
            context.events().emit(delta(3))?;
            kept.send(context.clone()).unwrap();
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 3);
        let (event_tx, events) = unbounded();
        let id = service.create_session(create("x").event_tx(event_tx)).unwrap().session_id;
        let seen: Vec<_> = events.iter().collect();
        assert_eq!(seen[1..3], [delta(1), delta(3)]);
        assert_matches!(
            (&seen[0], &seen[3], seen.len()),
            (AgentEvent::RunStarted { .. }, AgentEvent::RunCompleted { .. }, 4)
        );
        // Events that the context emits after the build belong to no turn.
        let context = contexts.recv().unwrap();
        let (event_tx, events) = unbounded();
        let running = service.begin_turn(id, turn("y").event_tx(event_tx)).unwrap();
        context.events().emit(delta(4)).unwrap();
        running.wait().unwrap();
        assert_eq!(events.iter().count(), 2);
        // The build of an opened session has no receiver. Its events are dropped, and the build succeeds.
        service.open_session(SessionSpec::new()).unwrap();
    });
}

#[test]
fn c38_a_build_that_waits_for_room_can_be_interrupted() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let (enter, entered) = unbounded();
        let builder = builder_fn(move |spec, context| {
            enter.send(()).unwrap();
            for number in 0..10 {
                context.events().emit(delta(number))?;
            }
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let (event_tx, _events) = bounded(2);
        let building = service.begin_session(create("x").event_tx(event_tx)).unwrap();
        entered.recv().unwrap();
        building.interrupt();
        assert_matches!(building.wait(), Err(SessionError::Build { .. }));
        assert_eq!(service.stats().sessions, 0);
    });
}
