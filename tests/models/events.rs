//! The events that the receiver of a turn and the subscribers see: C35 to C38.

use super::support::*;
use super::{explore, join, spawn};
use crate::sync::{bounded, unbounded};
use crate::{
    builder_fn, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, Overflow, SessionAgentBuilder,
    SessionEvent, SessionService, SessionSpec, Subscription, TurnContext,
};

fn delta(number: usize) -> AgentEvent {
    AgentEvent::TextDelta { delta: number.to_string() }
}

/// Emits as many events as the prompt says.
fn talk(prompt: &str, turn: &TurnContext) -> Result<String, crate::AgentError> {
    for number in 0..prompt.parse().unwrap_or(0) {
        turn.emit(delta(number))?;
    }
    Ok(prompt.to_owned())
}

/// A short text for each event: `started`, the text of a delta, `ended`.
fn shape(events: &[AgentEvent]) -> Vec<String> {
    let name = |event: &AgentEvent| match event {
        AgentEvent::RunStarted { .. } => "started".to_owned(),
        AgentEvent::TextDelta { delta } => delta.clone(),
        AgentEvent::RunCompleted { .. } | AgentEvent::RunFailed { .. } => "ended".to_owned(),
        other => format!("{other:?}"),
    };
    events.iter().map(name).collect()
}

#[test]
fn c35_a_receiver_sees_the_events_in_order_and_the_terminal_event_last() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 1);
        let (event_tx, events) = bounded(1);
        let turn = service.begin_session(create("2").event_tx(event_tx)).unwrap();
        let seen: Vec<_> = events.into_iter().collect();
        assert_eq!(shape(&seen), ["started", "0", "1", "ended"]);
        turn.wait().unwrap();
        finish(&service);
    });
}

#[test]
fn c35_a_cancelled_turn_does_not_hang_and_its_events_stay_in_order() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 1);
        let id = open(&service);
        let (event_tx, events) = bounded(1);
        let turn = service.begin_turn(id, turn("3").event_tx(event_tx)).unwrap();
        let reader = spawn(move || events.into_iter().collect::<Vec<_>>());
        turn.interrupt();
        let result = turn.wait();
        assert!(result.is_ok() || reason(&result) == Some(CancelReason::Interrupted));
        let seen = shape(&join(reader));
        let all = ["started", "0", "1", "2"];
        let (body, end) = match seen.split_last() {
            Some((last, body)) if last == "ended" => (body, true),
            _ => (&seen[..], false),
        };
        assert_eq!(body, &all[..body.len()]);
        // The terminal event is missing only if the receiver was full at the cancel. Then the event is counted as
        // dropped.
        assert!(end || service.stats().events_dropped > 0);
        finish(&service);
    });
}

#[test]
fn c36_a_dropped_receiver_does_not_stop_the_turn() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 1);
        let (event_tx, events) = bounded(1);
        let turn = service.begin_session(create("3").event_tx(event_tx)).unwrap();
        let reader = spawn(move || drop(events.recv()));
        assert_eq!(turn.wait().unwrap().text, "3");
        join(reader);
        finish(&service);
    });
}

fn seqs(events: &[SessionEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

#[test]
fn c37_a_blocking_subscriber_misses_no_event() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 1);
        let id = open(&service);
        let subscription = Subscription::new().capacity(1).overflow(Overflow::Block);
        let streams = [subscription.clone(), subscription].map(|options| service.subscribe(id, options).unwrap());
        let readers = streams.map(|stream| spawn(move || stream.collect::<Vec<_>>()));
        service.start_turn(id, turn("3")).unwrap();
        service.archive(id).unwrap();
        for reader in readers {
            let seen = join(reader);
            // An event of a closed session may find no room and be dropped. This scenario emits none after the close.
            assert_eq!(seqs(&seen), [1, 2, 3, 4, 5]);
        }
        finish(&service);
    });
}

#[test]
fn c37_every_missing_event_is_counted_as_dropped() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 1);
        let id = open(&service);
        for overflow in [Overflow::DropOldest, Overflow::DropNewest, Overflow::Block] {
            let stream = service.subscribe(id, Subscription::new().capacity(1).overflow(overflow)).unwrap();
            let turn = service.begin_turn(id, turn("2")).unwrap();
            let first = stream.recv_timeout(FAR).unwrap().seq;
            let mut last = first;
            let mut missing = 0;
            if overflow == Overflow::Block {
                let rest = [(); 3].map(|()| stream.recv_timeout(FAR).unwrap().seq);
                assert_eq!(rest, [first + 1, first + 2, first + 3]);
                last = first + 3;
            }
            turn.wait().unwrap();
            while let Ok(event) = stream.try_recv() {
                assert!(event.seq > last, "out of order");
                missing += event.seq - last - 1;
                last = event.seq;
            }
            // `dropped` also counts events before the first received one and after the last. So it may exceed
            // `missing`.
            assert!(stream.dropped() >= missing, "{overflow:?}: {missing} missing, {} dropped", stream.dropped());
        }
        finish(&service);
    });
}

#[test]
fn c37_all_subscribers_see_the_events_of_two_emitters_in_one_order() {
    explore(|| {
        let (contexts, context) = unbounded();
        let builder = builder_fn(move |spec, context| {
            contexts.send(context.clone()).unwrap();
            actors(talk).build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = open(&service);
        let context = context.recv().unwrap();
        // A context that is still held keeps no stream open.
        let _kept = context.clone();
        let streams = [(); 2].map(|()| service.subscribe(id, Subscription::new()).unwrap());
        let helper = spawn(move || (10..12).for_each(|number| context.events().emit(delta(number)).unwrap()));
        service.start_turn(id, turn("2")).unwrap();
        join(helper);
        service.archive_wait(id, FAR).unwrap();
        let [one, other] = streams.map(|stream| stream.collect::<Vec<_>>());
        assert_eq!(one, other);
        assert_eq!(seqs(&one), [1, 2, 3, 4, 5, 6]);
        // C38: events of `SessionContext::events` are not part of the turn.
        let foreign = one.iter().filter(|event| event.turn_id.is_none()).count();
        assert_eq!(foreign, 2);
        finish(&service);
    });
}

#[test]
fn c37_a_late_subscriber_gets_a_tail_without_gaps() {
    explore(|| {
        let builder = actors(talk);
        let service = EphemeralSessionService::configure(builder).event_history(1).build().unwrap();
        let id = open(&service);
        let other = service.clone();
        let late = spawn(move || {
            other
                .subscribe(id, Subscription::new().from_seq(0))
                .map(|stream| (stream.dropped(), stream.collect::<Vec<_>>()))
        });
        service.start_turn(id, turn("2")).unwrap();
        service.archive(id).unwrap();
        if let Ok((missed, seen)) = join(late) {
            let expected: Vec<u64> = (missed + 1..5).collect();
            assert_eq!(seqs(&seen), expected);
        }
        finish(&service);
    });
}

#[test]
fn c37_a_global_stream_gets_all_events_or_a_tail_and_then_ends() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 2);
        let everything = service.subscribe_all(Subscription::new());
        let other = service.clone();
        let creator = spawn(move || drop(other.create_session(create("1"))));
        let second = service.subscribe_all(Subscription::new());
        join(creator);
        finish(&service);
        let seen: Vec<_> = everything.collect();
        assert_eq!(seqs(&seen), [1, 2, 3], "the first events of a session are missing");
        let tail: Vec<_> = second.collect();
        let first = 4 - tail.len() as u64;
        assert_eq!(seqs(&tail), (first..4).collect::<Vec<_>>());
    });
}

#[test]
fn c37_a_session_that_is_created_during_a_shutdown_is_in_a_global_stream() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 1);
        let everything = service.subscribe_all(Subscription::new());
        let other = service.clone();
        let creator = spawn(move || other.create_session(create("1")).is_ok());
        assert_eq!(service.shutdown_with(ArchiveMode::Drain, FAR).stuck, []);
        let expected = if join(creator) { vec![1, 2, 3] } else { Vec::new() };
        assert_eq!(seqs(&everything.collect::<Vec<_>>()), expected);
    });
}

#[test]
fn c37_the_drop_of_a_stream_releases_an_emitter_that_waits_for_room() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let stream = service.subscribe(id, Subscription::new().capacity(1).overflow(Overflow::Block)).unwrap();
        let turn = service.begin_turn(id, turn("3")).unwrap();
        let reader = spawn(move || drop(stream));
        turn.wait().unwrap();
        join(reader);
        finish(&service);
    });
}
