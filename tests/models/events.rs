//! What receivers and subscribers see: C35 to C38.

use super::support::*;
use super::{explore, join, spawn};
use crate::sync::{bounded, unbounded};
use crate::{
    builder_fn, AgentEvent, CancelReason, EphemeralSessionService, Overflow, SessionAgentBuilder, SessionEvent,
    SessionService, SessionSpec, Subscription, TurnContext,
};

fn delta(number: usize) -> AgentEvent {
    AgentEvent::TextDelta { delta: number.to_string() }
}

/// Emits as many events as its prompt says.
fn talk(prompt: &str, turn: &TurnContext) -> Result<String, crate::AgentError> {
    for number in 0..prompt.parse().unwrap_or(0) {
        turn.emit(delta(number))?;
    }
    Ok(prompt.to_owned())
}

/// `started`, the deltas from 0, `ended`: without the gaps that a dropped event leaves.
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
fn c35_a_receiver_sees_the_turn_in_order_and_its_end_last() {
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
fn c35_a_cancelled_turn_never_hangs_on_its_receiver_and_nothing_comes_out_of_order() {
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
        // Only where it had no room when the turn was cancelled, and then it is counted.
        assert!(end || service.stats().events_dropped > 0);
        finish(&service);
    });
}

#[test]
fn c36_a_receiver_that_vanishes_stops_nobody() {
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
fn c37_a_subscriber_that_is_waited_for_misses_nothing() {
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
            // What is emitted in a session that is closed already may have no room; nothing is here.
            assert_eq!(seqs(&seen), [1, 2, 3, 4, 5]);
        }
        finish(&service);
    });
}

#[test]
fn c37_what_is_missing_is_what_was_dropped() {
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
            // Nothing comes after the turn's last event: what was dropped before the first or after the last is counted too.
            assert!(stream.dropped() >= missing, "{overflow:?}: {missing} missing, {} dropped", stream.dropped());
        }
        finish(&service);
    });
}

#[test]
fn c37_two_emitters_have_one_order_for_everybody() {
    explore(|| {
        let (contexts, context) = unbounded();
        let builder = builder_fn(move |spec, context| {
            contexts.send(context.clone()).unwrap();
            actors(talk).build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = open(&service);
        let context = context.recv().unwrap();
        // Whoever keeps a context keeps no stream open.
        let _kept = context.clone();
        let streams = [(); 2].map(|()| service.subscribe(id, Subscription::new()).unwrap());
        let helper = spawn(move || (10..12).for_each(|number| context.events().emit(delta(number)).unwrap()));
        service.start_turn(id, turn("2")).unwrap();
        join(helper);
        service.archive_wait(id, FAR).unwrap();
        let [one, other] = streams.map(|stream| stream.collect::<Vec<_>>());
        assert_eq!(one, other);
        assert_eq!(seqs(&one), [1, 2, 3, 4, 5, 6]);
        // C38: what comes from elsewhere is no part of the turn.
        let foreign = one.iter().filter(|event| event.turn_id.is_none()).count();
        assert_eq!(foreign, 2);
        finish(&service);
    });
}

#[test]
fn c37_whoever_subscribes_in_the_middle_gets_a_tail_without_gaps() {
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
fn c37_a_stream_ends_whoever_is_first() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(talk), 2);
        let everything = service.subscribe_all(Subscription::new());
        let other = service.clone();
        let creator = spawn(move || drop(other.create_session(create("1"))));
        let second = service.subscribe_all(Subscription::new());
        join(creator);
        finish(&service);
        let seen: Vec<_> = everything.collect();
        assert_eq!(seqs(&seen), [1, 2, 3], "a session was heard late");
        let tail: Vec<_> = second.collect();
        let first = 4 - tail.len() as u64;
        assert_eq!(seqs(&tail), (first..4).collect::<Vec<_>>());
    });
}

#[test]
fn c37_a_stream_that_is_dropped_lets_whoever_waits_for_room_go_on() {
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
