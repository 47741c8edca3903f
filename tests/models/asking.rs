//! A response, an interrupt and a timeout race for an input request: C44, C45.

use super::support::*;
use super::{explore, join, spawn, yield_now};
use crate::sync::unbounded;
use crate::{
    AgentError, CancelReason, EphemeralSessionService, InputError, InputRequest, InputResponse, SessionError,
    SessionService, SessionState,
};

fn asking(turn: &crate::TurnContext) -> Result<String, AgentError> {
    match turn.request_input(InputRequest::new("question", "?")) {
        Err(InputError::TimedOut { .. }) => Ok("timed out".into()),
        answer => Ok(answer?),
    }
}

#[test]
fn c45_of_two_responses_and_an_interrupt_one_decides_and_each_learns_of_it() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(|_, turn| asking(turn)), 1);
        let id = open(&service);
        let turn = service.begin_turn(id, turn("ask")).unwrap();
        let (accepted_tx, accepted) = unbounded();
        let responders = ["one", "two"].map(|text| {
            let (service, accepted) = (service.clone(), accepted_tx.clone());
            spawn(move || {
                // The request may have ended, or may not have begun.
                let Some(input) = service.pending_inputs(id).unwrap().pop() else { return };
                match service.respond(id, input.id, InputResponse::Answer(text.into())) {
                    Ok(()) => accepted.send(text.to_owned()).unwrap(),
                    Err(SessionError::InputNotPending { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            })
        });
        drop(accepted_tx);
        yield_now();
        turn.interrupt();
        // The interrupt has returned: the request is over, or its answer was accepted before.
        for input in service.pending_inputs(id).unwrap() {
            let late = service.respond(id, input.id, InputResponse::Answer("late".into()));
            assert!(matches!(late, Err(SessionError::InputNotPending { .. })), "{late:?}");
        }
        let result = turn.wait();
        let [one, two] = responders;
        join(one);
        join(two);
        let accepted: Vec<String> = accepted.try_iter().collect();
        match &accepted[..] {
            [] => assert_eq!(reason(&result), Some(CancelReason::Interrupted)),
            [text] => assert_eq!(&result.unwrap().text, text),
            more => panic!("two responses were accepted: {more:?}"),
        }
        let state = service.read(id).unwrap().state;
        assert_eq!((state.state, state.pending_inputs), (SessionState::Idle, 0));
        assert_eq!(service.stats().waiting_turns, 0);
        finish(&service);
    });
}

#[test]
fn c44_a_turn_that_waits_for_input_lends_its_permit_and_takes_one_again() {
    explore(|| {
        let service = EphemeralSessionService::configure(actors(|prompt, turn| match prompt {
            "ask" => asking(turn),
            other => Ok(other.to_owned()),
        }));
        let service = service.max_running_turns(1).build().unwrap();
        let (first, second) = (open(&service), open(&service));
        let asks = service.begin_turn(first, turn("ask")).unwrap();
        let other = service.clone();
        // It needs the permit that the asking turn holds until it waits.
        let works = spawn(move || other.start_turn(second, turn("x")).unwrap().text);
        let input = loop {
            match service.pending_inputs(first).unwrap().pop() {
                Some(input) => break input.id,
                None => yield_now(),
            }
        };
        service.respond(first, input, InputResponse::Answer("red".into())).unwrap();
        assert_eq!(asks.wait().unwrap().text, "red");
        assert_eq!(join(works), "x");
        assert_eq!(service.stats().running_turns, 0);
        finish(&service);
    });
}
