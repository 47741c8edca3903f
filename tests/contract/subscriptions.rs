//! C37, C38: the events of sessions, as their subscribers get them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{select, unbounded, RecvTimeoutError, TryRecvError};
use turnwise::{
    agent_fn, builder_fn, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventStream, Overflow,
    SessionAgentBuilder, SessionContext, SessionError, SessionEvent, SessionId, SessionService, SessionSpec,
    Subscription, TurnId,
};

use crate::support::*;

fn capacity(events: usize, overflow: Overflow) -> Subscription {
    Subscription::new().capacity(events).overflow(overflow)
}

/// The count of numbers from `from` on that these events of one session leave out.
fn missing(events: &[SessionEvent], from: u64) -> u64 {
    let mut next = from;
    let mut missing = 0;
    for event in events {
        assert!(event.seq >= next, "{} comes after {next}", event.seq);
        missing += event.seq - next;
        next = event.seq + 1;
    }
    missing
}

#[test]
fn c37_all_subscribers_see_the_same_events_with_numbers_and_turn_ids() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let streams: Vec<_> = (0..3).map(|_| service.subscribe(id, Subscription::new()).unwrap()).collect();
        let (event_tx, receiver) = unbounded();
        service.start_turn(id, turn("emit 5").event_tx(event_tx)).unwrap();
        service.start_turn(id, turn("fail")).unwrap_err();
        service.archive_wait(id, LONG).unwrap();
        let seen: Vec<Vec<_>> = streams.into_iter().map(Iterator::collect).collect();
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0], seen[2]);
        assert_eq!(seen[0].iter().map(|event| event.seq).collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
        assert!(seen[0].iter().all(|event| event.session_id == id));
        let turns: Vec<_> = seen[0].iter().map(|event| event.turn_id.unwrap().get()).collect();
        assert_eq!(turns, [1, 1, 1, 1, 1, 1, 1, 2, 2]);
        // The turn's own receiver has seen the same events in the same order.
        let of_first: Vec<_> = seen[0][..7].iter().map(|event| event.event.clone()).collect();
        assert_eq!(of_first, receiver.iter().collect::<Vec<_>>());
        assert_matches!(&seen[0][8].event, AgentEvent::RunFailed { error, .. } if error.contains("scripted"));
    });
}

#[test]
fn c37_a_subscription_may_begin_and_end_while_a_turn_runs() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("hold")).unwrap();
        let (id, _) = stage.wait_entered();
        let mut late = service.subscribe(id, Subscription::new()).unwrap();
        let gone = service.subscribe(id, Subscription::new()).unwrap();
        assert_eq!(late.try_recv(), Err(TryRecvError::Empty));
        assert_eq!(late.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout));
        stage.release();
        running.wait().unwrap();
        let cloned = gone.events().clone();
        assert_eq!(cloned.len(), 1);
        drop(gone);
        let last = late.next().unwrap();
        assert_eq!((last.seq, last.turn_id), (2, Some(TurnId::new(1))));
        assert_matches!(last.event, AgentEvent::RunCompleted { .. });
        // The subscription ends with its stream, although the test holds a clone of its receiver.
        assert_eq!(cloned.iter().count(), 0);
        assert_eq!(late.dropped(), 0);
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(late.recv_timeout(LONG), Err(RecvTimeoutError::Disconnected));
        assert_eq!(late.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn c37_a_full_queue_drops_the_newest_or_the_oldest_and_counts_the_drops() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let oldest = service.subscribe(id, capacity(4, Overflow::DropOldest)).unwrap();
        let newest = service.subscribe(id, capacity(4, Overflow::DropNewest)).unwrap();
        service.start_turn(id, turn("emit 100")).unwrap();
        assert_eq!((oldest.dropped(), newest.dropped()), (98, 98));
        // A read makes room for a later event.
        assert_eq!(newest.try_recv().unwrap().seq, 1);
        service.start_turn(id, turn("x")).unwrap();
        service.archive_wait(id, LONG).unwrap();
        assert_eq!((oldest.dropped(), newest.dropped()), (100, 99));
        let seqs = |stream: EventStream| stream.map(|event| event.seq).collect::<Vec<_>>();
        assert_eq!(seqs(oldest), [101, 102, 103, 104]);
        assert_eq!(seqs(newest), [2, 3, 4, 103]);
    });
}

#[test]
fn c37_a_queue_has_room_for_one_event_at_least() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, capacity(0, Overflow::DropOldest)).unwrap();
        service.start_turn(id, turn("emit 3")).unwrap();
        let seen: Vec<_> = std::iter::from_fn(|| stream.try_recv().ok()).collect();
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].seq, stream.dropped()), (5, 4));
    });
}

#[test]
fn c37_a_full_queue_may_end_its_subscription_and_no_other() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let slow = service.subscribe(id, capacity(4, Overflow::Disconnect)).unwrap();
        let other = service.subscribe(id, Subscription::new()).unwrap();
        service.start_turn(id, turn("emit 10")).unwrap();
        // The stream ends although the session is live.
        assert_eq!(slow.map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(other.count(), 12);
    });
}

#[test]
fn c37_block_gives_back_pressure_and_loses_nothing() {
    run(|| {
        const CAPACITY: usize = 3;
        let emitted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&emitted);
        let agent = agent_fn(move |_, turn| {
            for number in 0..3_000 {
                turn.emit(delta(number))?;
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(turn.finish(""))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let mut stream = service.subscribe(id, capacity(CAPACITY, Overflow::Block)).unwrap();
        let running = service.begin_turn(id, turn("x")).unwrap();
        for received in 0..3_001 {
            let ahead = emitted.load(Ordering::SeqCst);
            assert!(ahead <= received + CAPACITY, "{ahead} emitted, {received} received");
            assert_eq!(stream.next().unwrap().seq, received as u64 + 1);
        }
        running.wait().unwrap();
        assert_matches!(stream.next().unwrap().event, AgentEvent::RunCompleted { .. });
        assert_eq!(stream.dropped(), 0);
    });
}

#[test]
fn c37_an_emitter_that_waits_for_room_notices_reads_from_the_channel() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, capacity(1, Overflow::Block)).unwrap();
        let running = service.begin_turn(id, turn("emit 20")).unwrap();
        for seq in 1..=22 {
            let event = select! {
                recv(stream.events()) -> event => event.unwrap(),
                default(LONG) => panic!("no event arrives"),
            };
            assert_eq!(event.seq, seq);
        }
        running.wait().unwrap();
    });
}

#[test]
fn c37_a_cancel_and_a_dropped_stream_wake_an_emitter_that_waits_for_room() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, capacity(2, Overflow::Block)).unwrap();
        let flooding = service.begin_turn(id, turn("flood")).unwrap();
        stage.wait_entered();
        while stream.events().len() < 3 {
            thread::yield_now();
        }
        flooding.interrupt();
        assert_cancelled(flooding.wait(), CancelReason::Interrupted);
        // The terminal event is in the queue although no event was read.
        let seen: Vec<_> = stream.events().try_iter().collect();
        assert_eq!(missing(&seen, 1), 0);
        assert_matches!(&seen.last().unwrap().event, AgentEvent::RunFailed { .. });

        let flooding = service.begin_turn(id, turn("emit 5000")).unwrap();
        while stream.events().len() < 3 {
            thread::yield_now();
        }
        drop(stream);
        assert_eq!(flooding.wait().unwrap().text, "emitted");
    });
}

#[test]
fn c37_no_emitter_waits_for_room_in_a_closed_session() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, capacity(2, Overflow::Block)).unwrap();
        let running = service.begin_turn(id, turn("emit 1000")).unwrap();
        while stream.events().len() < 3 {
            thread::yield_now();
        }
        service.archive_with(id, ArchiveMode::Drain).unwrap();
        assert_eq!(running.wait().unwrap().text, "emitted");
        let (dropped, seen) = (stream.dropped(), stream.collect::<Vec<_>>());
        assert_eq!(missing(&seen, 1), dropped);
        assert_eq!(seen.len() as u64 + dropped, 1_002);
        assert_matches!(&seen.last().unwrap().event, AgentEvent::RunCompleted { .. });
    });
}

#[test]
fn c37_with_many_emitters_and_a_slow_reader_each_missing_event_is_counted() {
    run(|| {
        for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block] {
            let agent = agent_fn(|_, turn| {
                thread::scope(|scope| {
                    for _ in 0..4 {
                        scope.spawn(|| (0..2_000).for_each(|number| turn.emit(delta(number)).unwrap()));
                    }
                });
                Ok(turn.finish(""))
            });
            let service = EphemeralSessionService::new(agent, 1);
            let id = service.open_session(SessionSpec::new()).unwrap();
            let mut stream = service.subscribe(id, capacity(8, overflow)).unwrap();
            let running = service.begin_turn(id, turn("x")).unwrap();
            let mut seen = Vec::new();
            while !running.is_finished() {
                seen.extend(stream.recv_timeout(Duration::from_millis(1)));
            }
            service.archive_wait(id, LONG).unwrap();
            seen.extend(stream.by_ref());
            assert_eq!(missing(&seen, 1), seen.last().unwrap().seq - seen.len() as u64);
            assert_eq!(seen.len() as u64 + stream.dropped(), 8_002, "{overflow:?}");
            if overflow == Overflow::Block {
                assert_eq!(stream.dropped(), 0);
            }
        }
    });
}

#[test]
fn c37_a_subscription_that_races_with_emitters_has_no_gap() {
    run(|| {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let agent = agent_fn(move |_, turn| {
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| {
                        while !stopped.load(Ordering::SeqCst) {
                            turn.emit(delta(0)).unwrap();
                        }
                    });
                }
            });
            Ok(turn.finish(""))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let running = service.begin_turn(id, turn("x")).unwrap();
        for _ in 0..300 {
            // The stream is dropped after each round, so that events without a subscriber come between the rounds.
            let stream = service.subscribe(id, capacity(100_000, Overflow::DropNewest)).unwrap();
            let seen: Vec<_> = stream.take(20).collect();
            assert_eq!(missing(&seen, seen[0].seq), 0);
        }
        stop.store(true, Ordering::SeqCst);
        running.wait().unwrap();
    });
}

#[test]
fn c37_a_history_replays_earlier_events_to_a_late_subscriber() {
    run(|| {
        let (service, _stage) = scripted_with(|config| config.event_history(10));
        let id = service.create_session(create("emit 98")).unwrap().session_id;
        // The session has emitted 100 events, and the history has the last ten.
        let mut stream = service.subscribe(id, capacity(1, Overflow::Disconnect).from_seq(0)).unwrap();
        assert_eq!(stream.dropped(), 90);
        assert_eq!(stream.by_ref().take(8).map(|event| event.seq).collect::<Vec<_>>(), (91..99).collect::<Vec<_>>());
        // A new subscription from the next number loses no event and repeats none.
        let last = stream.next().unwrap().seq;
        drop(stream);
        service.start_turn(id, turn("emit 2")).unwrap();
        let again = service.subscribe(id, Subscription::new().from_seq(last + 1)).unwrap();
        assert_eq!(again.dropped(), 0);
        // Replayed events take no room from new ones.
        let narrow = service.subscribe(id, capacity(2, Overflow::DropNewest).from_seq(0)).unwrap();
        // Without `from_seq` no event is replayed.
        let fresh = service.subscribe(id, Subscription::new()).unwrap();
        let ahead = service.subscribe(id, Subscription::new().from_seq(1_000_000)).unwrap();
        service.start_turn(id, turn("x")).unwrap();
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(again.map(|event| event.seq).collect::<Vec<_>>(), (100..107).collect::<Vec<_>>());
        assert_eq!(narrow.map(|event| event.seq).collect::<Vec<_>>(), (95..107).collect::<Vec<_>>());
        assert_eq!(fresh.map(|event| event.seq).collect::<Vec<_>>(), [105, 106]);
        assert_eq!(ahead.map(|event| event.seq).collect::<Vec<_>>(), [105, 106]);
    });
}

#[test]
fn c37_a_history_can_be_replayed_into_a_queue_without_a_limit() {
    run(|| {
        let (service, _stage) = scripted_with(|config| config.event_history(100));
        let id = service.create_session(create("emit 8")).unwrap().session_id;
        let all = service.subscribe(id, capacity(usize::MAX, Overflow::DropNewest).from_seq(0)).unwrap();
        service.start_turn(id, turn("emit 8")).unwrap();
        service.archive_wait(id, LONG).unwrap();
        assert_eq!((all.dropped(), all.count()), (0, 20));
    });
}

#[test]
fn c37_replayed_events_leave_no_extra_room_when_they_are_read() {
    run(|| {
        let (service, _stage) = scripted_with(|config| config.event_history(100));
        let id = service.create_session(create("emit 48")).unwrap().session_id;
        let replayed = |overflow, count| {
            let mut stream = service.subscribe(id, capacity(3, overflow).from_seq(0)).unwrap();
            assert_eq!(stream.by_ref().take(count).count(), count);
            stream
        };
        let (newest, oldest) = (replayed(Overflow::DropNewest, 50), replayed(Overflow::DropOldest, 50));
        // One replayed event stays unread here. It takes no room from new events.
        let behind = replayed(Overflow::Disconnect, 49);
        service.start_turn(id, turn("emit 20")).unwrap();
        assert_eq!([newest.dropped(), oldest.dropped(), behind.dropped()], [19, 19, 0]);
        let unread = |stream: &EventStream| stream.events().try_iter().map(|event| event.seq).collect::<Vec<_>>();
        assert_eq!(unread(&newest), [51, 52, 53]);
        assert_eq!(unread(&oldest), [70, 71, 72]);
        assert_eq!(unread(&behind), [50, 51, 52, 53]);

        let blocking = replayed(Overflow::Block, 72);
        let waiting = service.begin_turn(id, turn("flood")).unwrap();
        while blocking.events().len() < 4 {
            thread::yield_now();
        }
        // With more room the turn would not wait. It would fill the queue until the interrupt.
        assert_eq!(blocking.recv_timeout(LONG).unwrap().seq, 73);
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        assert!(blocking.events().len() <= 5);
        assert_eq!(missing(&blocking.events().try_iter().collect::<Vec<_>>(), 74), 0);
    });
}

#[test]
fn c37_without_a_history_earlier_events_count_as_dropped() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.create_session(create("emit 3")).unwrap().session_id;
        let stream = service.subscribe(id, Subscription::new().from_seq(3)).unwrap();
        assert_eq!(stream.dropped(), 3);
        service.start_turn(id, turn("x")).unwrap();
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(stream.map(|event| event.seq).collect::<Vec<_>>(), [6, 7]);
    });
}

#[test]
fn c37_subscribe_all_hears_every_session_from_its_first_event() {
    run(|| {
        let (service, _stage) = scripted(100);
        let before = service.create_session(create("emit 1")).unwrap().session_id;
        let stream = service.subscribe_all(capacity(1_000_000, Overflow::Disconnect));
        let created: Vec<SessionId> = thread::scope(|scope| {
            let creators: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let ids = (0..10).map(|_| service.create_session(create("emit 10")).unwrap().session_id);
                        ids.collect::<Vec<_>>()
                    })
                })
                .collect();
            creators.into_iter().flat_map(|creator| creator.join().unwrap()).collect()
        });
        service.start_turn(before, turn("x")).unwrap();
        assert!(service.shutdown(LONG).stuck.is_empty());
        // The stream ends with the last session.
        let seen: Vec<_> = stream.collect();
        for id in created {
            let own: Vec<_> = seen.iter().filter(|event| event.session_id == id).cloned().collect();
            assert_eq!((own.len(), missing(&own, 1)), (12, 0));
        }
        assert_eq!(seen.iter().filter(|event| event.session_id == before).map(|event| event.seq).min(), Some(4));
        // After a shutdown a new stream ends at once.
        assert_eq!(service.subscribe_all(Subscription::new()).count(), 0);
    });
}

#[test]
fn c37_subscribing_to_all_races_with_creation_and_misses_no_later_event() {
    run(|| {
        let (service, _stage) = scripted(1_000);
        for _ in 0..200 {
            let (stream, id) = thread::scope(|scope| {
                let creator = scope.spawn(|| service.open_session(SessionSpec::new()).unwrap());
                let stream = service.subscribe_all(Subscription::new());
                (stream, creator.join().unwrap())
            });
            service.start_turn(id, turn("x")).unwrap();
            let seen: Vec<_> = stream.take(2).collect();
            assert_eq!((seen[0].session_id, missing(&seen, 1)), (id, 0));
            service.archive(id).unwrap();
        }
    });
}

#[test]
fn c37_a_failed_build_has_its_events_and_does_not_end_subscribe_all() {
    run(|| {
        let builder = builder_fn(|_, _| {
            Err::<Box<dyn turnwise::SessionAgent>, _>(turnwise::AgentError::Internal("no agent today".into()))
        });
        let service = EphemeralSessionService::new(builder, 1);
        let mut all = service.subscribe_all(Subscription::new());
        service.create_session(create("x")).unwrap_err();
        assert_matches!(all.next().unwrap().event, AgentEvent::RunStarted { .. });
        assert_matches!(all.next().unwrap().event, AgentEvent::RunFailed { error, .. } if error.contains("no agent"));
        assert_eq!(all.try_recv(), Err(TryRecvError::Empty));
        drop(service);
        assert_eq!(all.next(), None);
    });
}

#[test]
fn c37_subscribing_to_archived_sessions_is_refused_and_to_faulted_ones_not() {
    run(|| {
        let (service, stage) = scripted(2);
        let unknown = SessionId::new();
        assert_matches!(service.subscribe(unknown, Subscription::new()), Err(SessionError::NotFound { id }) if id == unknown);
        let id = service.create_session(create("x")).unwrap().session_id;
        let stream = service.subscribe(id, Subscription::new()).unwrap();
        service.start_turn(id, turn("panic")).unwrap_err();
        let faulted = service.subscribe(id, Subscription::new()).unwrap();
        assert_eq!(stream.events().len(), 2);
        service.archive_wait(id, LONG).unwrap();
        assert_eq!((stream.count(), faulted.count()), (2, 0));

        let held = service.begin_session(create("hold")).unwrap();
        let (id, _) = stage.wait_entered();
        let stream = service.subscribe(id, Subscription::new()).unwrap();
        service.archive(id).unwrap();
        assert_matches!(service.subscribe(id, Subscription::new()), Err(SessionError::NotFound { .. }));
        stage.release();
        held.wait().unwrap();
        // The subscriber gets the events of the draining turn up to its end.
        assert_matches!(&stream.collect::<Vec<_>>()[..], [last] if matches!(last.event, AgentEvent::RunCompleted { .. }));
    });
}

#[test]
fn c38_events_outside_of_turns_reach_subscribers_without_a_turn_id() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let (kept, contexts) = unbounded();
        let builder = builder_fn(move |spec, context| {
            context.events().emit(delta(1))?;
            kept.send(context.clone()).unwrap();
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 2);
        let all = service.subscribe_all(Subscription::new());
        // One session is built without a first turn, the other one with it.
        let opened = service.open_session(SessionSpec::new()).unwrap();
        let created = service.create_session(create("x")).unwrap().session_id;
        for id in [opened, created] {
            let context = contexts.recv().unwrap();
            assert_eq!(context.session_id(), id);
            let stream = service.subscribe(id, Subscription::new()).unwrap();
            thread::scope(|scope| scope.spawn(|| context.events().emit(delta(2)).unwrap()).join().unwrap());
            service.archive_wait(id, LONG).unwrap();
            // After the end of the session the event is dropped, and `emit` succeeds.
            context.events().emit(delta(3)).unwrap();
            assert_matches!(&stream.collect::<Vec<_>>()[..], [own] if own.event == delta(2) && own.turn_id.is_none());
        }
        service.shutdown(LONG);
        let built: Vec<_> = all.filter(|event| event.event == delta(1)).map(|event| event.turn_id).collect();
        assert_eq!(built, [None, Some(TurnId::new(1))]);
    });
}

#[test]
fn c38_a_helper_thread_that_waits_for_room_is_released_by_the_close() {
    run(|| {
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let (kept, contexts) = unbounded();
        let builder = builder_fn(move |spec, context| {
            kept.send(context.clone()).unwrap();
            echo.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, capacity(1, Overflow::Block)).unwrap();
        let context = contexts.recv().unwrap();
        let helper = thread::spawn(move || (0..100).for_each(|number| context.events().emit(delta(number)).unwrap()));
        while stream.events().len() < 2 {
            thread::yield_now();
        }
        service.archive(id).unwrap();
        helper.join().unwrap();
        assert_eq!(stream.count(), 2);
    });
}

#[test]
fn c38_events_that_a_cancelled_turn_emits_outside_of_it_do_not_pile_up() {
    run(|| {
        let (enter, entered) = unbounded();
        let builder = builder_fn(move |spec: &SessionSpec, context: &SessionContext| {
            let (events, enter) = (context.events().clone(), enter.clone());
            let agent = agent_fn(move |_, turn| {
                enter.send(()).expect("the test listens");
                turn.cancel_token().cancelled().recv().unwrap_err();
                (0..1_000).try_for_each(|number| events.emit(delta(number)))?;
                Err(turn.check().unwrap_err().into())
            });
            agent.build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, capacity(3, Overflow::Block)).unwrap();
        let running = service.begin_turn(id, turn("x")).unwrap();
        entered.recv_timeout(LONG).unwrap();
        running.interrupt();
        assert_cancelled(running.wait(), CancelReason::Interrupted);
        // `RunStarted`, two events that had room, and the terminal event, which needs no room.
        assert_eq!((stream.events().len(), stream.dropped()), (4, 998));
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(stream.map(|event| event.seq).collect::<Vec<_>>(), [1, 2, 3, 1_002]);
    });
}

#[test]
fn c37_a_parent_reads_its_sub_agents_stream_under_a_limit_of_one_running_turn() {
    run(|| {
        let jobs = Jobs::new(1);
        let (parent, child) = (jobs.open(), jobs.open());
        jobs.prepare("many", |_, turn| {
            (0..50).try_for_each(|number| turn.emit(delta(number)))?;
            Ok("sent".into())
        });
        let running = jobs.begin(parent, "read", move |service, _| {
            let stream = service.subscribe(child, capacity(1, Overflow::Block))?;
            let turn = service.begin_turn(child, turn("many"))?;
            let read = stream.take(52).filter(|event| matches!(event.event, AgentEvent::TextDelta { .. })).count();
            Ok(format!("{read} {}", turn.wait()?.text))
        });
        assert_eq!(running.wait().unwrap().text, "50 sent");
        // A parent that reads a silent stream can be interrupted. A parent that reads its own session's stream does not
        // hang.
        let (enter, entered) = unbounded();
        let listening = jobs.begin(parent, "listen", move |service, turn| {
            let mut stream = service.subscribe(child, Subscription::new())?;
            enter.send(()).unwrap();
            assert!(stream.next().is_none());
            turn.check()?;
            Ok("not reached".into())
        });
        entered.recv().unwrap();
        listening.interrupt();
        assert_cancelled(listening.wait(), CancelReason::Interrupted);
        let listening = jobs.begin(parent, "myself", move |service, _| {
            let mut stream = service.subscribe(parent, Subscription::new())?;
            Ok(format!("{:?}", stream.next().is_none()))
        });
        assert_eq!(listening.wait().unwrap().text, "true");
    });
}
