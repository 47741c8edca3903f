//! Receivers that are dropped during a turn or an interaction.

use std::thread;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::testkit::{assert_no_leaked_sessions, within};
use turnwise::{
    agent_fn, AgentEvent, EphemeralSessionService, EventSource, Overflow, SessionService, SessionSpec, Subscription,
};

use crate::{turn, LONG};

const EVENTS: usize = 300;

/// The receivers of each turn are dropped after another number of events, so that the drops meet many places of a turn.
#[test]
fn c36_c37_receivers_dropped_at_any_event_stop_no_turn() {
    within(LONG, || {
        let agent = agent_fn(|prompt, turn| {
            for number in 0..EVENTS {
                turn.emit(AgentEvent::TextDelta { delta: number.to_string() })?;
            }
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::new(agent, 2);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let overflows = [Overflow::Block, Overflow::DropNewest, Overflow::DropOldest, Overflow::Disconnect];
        let mut lingering = Vec::new();
        for leave_after in (0..EVENTS + 2).step_by(7) {
            let capacity = Subscription::new().capacity(1 + leave_after % 3);
            let streams = overflows.map(|overflow| service.subscribe(id, capacity.clone().overflow(overflow)).unwrap());
            let readers =
                streams.map(|mut stream| thread::spawn(move || stream.by_ref().take(leave_after).for_each(drop)));
            let (event_tx, events) = bounded(1);
            let reader = thread::spawn(move || events.into_iter().take(leave_after).for_each(drop));
            let turn = service.begin_turn(id, turn("went well").event_tx(event_tx)).unwrap();
            if leave_after % 2 == 0 {
                assert_eq!(turn.wait().unwrap().text, "went well");
            } else {
                // The handle is dropped as well. The export waits for the end of the turn, so that the next one is
                // admitted.
                drop(turn);
                service.export_session(id).unwrap();
            }
            reader.join().unwrap();
            // A queue that has dropped events may never have as many as its reader takes. Such a reader ends with the
            // stream.
            let next = service.start_turn(id, super::turn("next")).unwrap();
            assert_eq!(next.text, "next");
            lingering.extend(readers);
        }
        assert_eq!(service.stats().turns_failed, 0);
        service.archive(id).unwrap();
        assert_no_leaked_sessions(&service);
        lingering.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn c39_interactions_whose_subscriptions_are_dropped_still_run() {
    within(LONG, || {
        let (ran, runs) = unbounded();
        let agent = agent_fn(move |prompt, turn| {
            turn.emit(AgentEvent::TextDelta { delta: prompt.clone() })?;
            ran.send(prompt.clone()).unwrap();
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        let hosting = service.begin_turn(id, turn("stay").host_mode(true)).unwrap();
        for number in 0..200 {
            let followed = injector.inject_with_subscription(number.to_string(), EventSource::Rpc).unwrap();
            followed.take(number % 3).for_each(drop);
        }
        injector.dismiss(EventSource::Rpc).unwrap();
        assert_eq!(hosting.wait().unwrap().text, "199");
        assert_eq!(runs.try_iter().count(), 201);
    });
}
