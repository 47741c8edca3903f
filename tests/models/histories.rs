//! The committed history and its boundary, against everything that emits events meanwhile: C57.

use super::support::*;
use super::{explore, join, spawn};
use crate::sync::{bounded, unbounded};
use crate::{
    builder_fn, AgentEvent, EphemeralSessionService, EventSource, Session, SessionAgentBuilder, SessionEvent,
    SessionId, SessionService, SessionSpec, Subscription,
};

/// A service whose sessions keep their events, with one idle session.
fn keeping_events() -> (EphemeralSessionService<impl SessionAgentBuilder>, SessionId) {
    let service = EphemeralSessionService::configure(actors(act)).event_history(64).build().unwrap();
    let id = open(&service);
    (service, id)
}

fn messages(history: &Session) -> usize {
    history.iter().len()
}

fn completes(event: &SessionEvent) -> bool {
    matches!(event.event, AgentEvent::RunCompleted { .. })
}

/// The number of turns that the events show, each of them whole.
fn whole_turns(events: &[SessionEvent]) -> usize {
    let of_turns: Vec<_> = events.iter().filter(|event| event.turn_id.is_some()).collect();
    for turn in of_turns.chunks(2) {
        assert!(matches!(turn[0].event, AgentEvent::RunStarted { .. }), "the boundary is within a turn: {of_turns:?}");
        assert!(completes(turn[1]), "{of_turns:?}");
    }
    of_turns.len() / 2
}

#[test]
fn c57_a_client_that_follows_from_the_boundary_sees_each_turn_once() {
    explore(|| {
        let (service, id) = keeping_events();
        let other = service.clone();
        let client = spawn(move || {
            let (history, seq) = other.history_at(id).ok()?;
            let stream = other.subscribe(id, Subscription::new().from_seq(seq + 1)).ok()?;
            Some((messages(&history), seq, stream))
        });
        for prompt in ["one", "two"] {
            service.start_turn(id, turn(prompt)).unwrap();
        }
        service.archive(id).unwrap();
        if let Some((shown, seq, stream)) = join(client) {
            assert_eq!(stream.dropped(), 0);
            let events: Vec<_> = stream.collect();
            assert!(events.iter().zip(seq + 1..).all(|(event, seq)| event.seq == seq), "{events:?}");
            assert_eq!(shown + whole_turns(&events), 2);
        }
        finish(&service);
    });
}

#[test]
fn c57_events_of_no_turn_do_not_move_a_turn_over_the_boundary() {
    explore(|| {
        let (contexts, context) = unbounded();
        let builder = builder_fn(move |spec: &SessionSpec, session: &crate::SessionContext| {
            contexts.send(session.clone()).expect("the test is listening");
            actors(act).build_agent(spec, session)
        });
        let service = EphemeralSessionService::configure(builder).event_history(64).build().unwrap();
        let id = open(&service);
        let context = context.recv().unwrap();
        let helper = spawn(move || {
            for _ in 0..3 {
                context.events().emit(AgentEvent::TextDelta { delta: String::new() }).unwrap();
            }
        });
        let other = service.clone();
        let reader = spawn(move || [(); 2].map(|()| other.history_at(id).unwrap()));
        service.start_turn(id, turn("one")).unwrap();
        join(helper);
        let pairs = join(reader);
        let log = service.subscribe(id, Subscription::new().from_seq(1)).unwrap();
        service.archive(id).unwrap();
        let log: Vec<_> = log.collect();
        for (history, seq) in pairs {
            let (before, after) = log.split_at(seq as usize);
            assert_eq!((whole_turns(before), whole_turns(after)), (messages(&history), 1 - messages(&history)));
        }
        finish(&service);
    });
}

#[test]
fn c57_a_receiver_or_subscriber_of_the_last_event_finds_the_turn() {
    for observed in [false, true] {
        explore(move || {
            let (service, id) = with_session();
            let stream = observed.then(|| service.subscribe(id, Subscription::new()).unwrap());
            let (event_tx, events) = bounded(1);
            let turn = service.begin_turn(id, turn("one").event_tx(event_tx)).unwrap();
            let other = service.clone();
            let reader = spawn(move || {
                let last = events.into_iter().last().expect("a terminal event");
                assert!(matches!(last, AgentEvent::RunCompleted { .. }));
                other.history_at(id).unwrap()
            });
            let followed = stream.map(|mut stream| {
                let last = stream.find(completes).expect("a terminal event");
                (service.history_at(id).unwrap(), last.seq)
            });
            for (history, seq) in [join(reader)].into_iter().chain(followed.map(|(pair, _)| pair)) {
                assert_eq!((messages(&history), seq), (1, 2));
            }
            turn.wait().unwrap();
            finish(&service);
        });
    }
}

#[test]
fn c57_a_caller_of_an_interaction_finds_it_behind_no_boundary() {
    explore(|| {
        let (service, id) = keeping_events();
        let hosting = service.begin_turn(id, turn("prompt").host_mode(true)).unwrap();
        let injector = service.event_injector(id).unwrap();
        let followed = injector.inject_with_subscription("one".into(), EventSource::Rpc).unwrap();
        let other = service.clone();
        let reader = spawn(move || other.history_at(id).unwrap());
        assert!(matches!(followed.last(), Some(AgentEvent::InteractionComplete { .. })));
        let (history, seq) = service.history_at(id).unwrap();
        assert_eq!((messages(&history), seq), (2, 2)); // RunStarted, InteractionComplete
        let (history, seq) = join(reader);
        // Before the turn, after its prompt, after the interaction.
        assert!([(0, 0), (1, 1), (2, 2)].contains(&(messages(&history), seq)), "{history:?} {seq}");
        injector.dismiss(EventSource::Rpc).unwrap();
        hosting.wait().unwrap();
        finish(&service);
    });
}

#[test]
fn c57_a_turn_that_panics_is_behind_the_boundary_until_a_later_one() {
    explore(|| {
        let (service, id) = keeping_events();
        service.start_turn(id, turn("one")).unwrap();
        let other = service.clone();
        let reader = spawn(move || [(); 3].map(|()| other.history_at(id).unwrap()));
        service.start_turn(id, turn("panic")).unwrap_err();
        service.restart(id, FAR).unwrap();
        service.start_turn(id, turn("three")).unwrap();
        for (history, seq) in join(reader) {
            assert!([(1, 2), (2, 6)].contains(&(messages(&history), seq)), "{history:?} {seq}");
        }
        finish(&service);
    });
}
