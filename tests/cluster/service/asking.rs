//! Input requests, and messages to turns.

use turnwise::testkit::Gate;
use turnwise::{
    AgentEvent, CancelReason, InputError, InputId, InputResponse, InteractionContent, SessionId, SessionService,
    SessionSpec, SessionState,
};

use super::*;
use crate::support::*;

/// Waits until a turn of the session asks.
fn asked(client: &turnwise::cluster::ClusterService, id: SessionId) -> InputId {
    eventually("a question", || client.pending_inputs(id).unwrap().first().map(|pending| pending.id))
}

#[test]
fn c87_an_input_request_is_answered_from_another_process() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let other = super::client(&server);
        let _worker = worker(&server, &gate);
        let mut stream = client.stream_session(create("ask who")).unwrap();
        let (id, number) = (stream.handle().session_id(), stream.handle().turn_id());
        let asked = stream.find_map(|event| match event {
            AgentEvent::InputRequested { input_id, request } => Some((input_id, request)),
            _ => None,
        });
        let (input, request) = asked.unwrap();
        // A reader of the event may answer at once.
        let pending = other.pending_inputs(id).unwrap();
        assert_eq!((pending[0].id, pending[0].turn_id, &pending[0].request), (input, number, &*request));
        let view = other.read(id).unwrap().state;
        assert_eq!((view.state, view.pending_inputs), (SessionState::Waiting, 1));
        other.respond(id, input, InputResponse::Answer("Ada".into())).unwrap();
        let late = client.respond(id, input, InputResponse::Answer("Bob".into()));
        assert_eq!(code(late), "INPUT_NOT_PENDING");
        assert_eq!(stream.wait().unwrap().text, "Ada");
        assert!(client.pending_inputs(id).unwrap().is_empty());
    });
}

#[test]
fn c87_options_declines_and_timeouts_decide_as_locally() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let choice = client.begin_turn(id, turn("ask which")).unwrap();
        let input = asked(&client, id);
        let answer = |text: &str| client.respond(id, input, InputResponse::Answer(text.into()));
        assert_eq!(code(answer("c")), "INVALID_ANSWER");
        answer("b").unwrap();
        assert_eq!(choice.wait().unwrap().text, "b");

        let declined = client.begin_turn(id, turn("ask which")).unwrap();
        let input = asked(&client, id);
        client.respond(id, input, InputResponse::Declined { reason: Some("no".into()) }).unwrap();
        let error = declined.wait().unwrap_err();
        assert_eq!(
            error.agent_error().unwrap().to_string(),
            InputError::Declined { reason: Some("no".into()) }.to_string()
        );

        let late = client.start_turn(id, turn("ask soon")).unwrap_err();
        assert!(late.to_string().contains("no answer within"), "{late}");
        assert_eq!(
            code(client.respond(SessionId::new(), input, InputResponse::Answer("x".into()))),
            "SESSION_NOT_FOUND"
        );
    });
}

#[test]
fn c87_after_an_interrupt_no_response_is_accepted() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let turn = client.begin_session(create("ask who")).unwrap();
        let id = turn.session_id();
        let input = asked(&client, id);
        client.interrupt(id).unwrap();
        assert_eq!(code(client.respond(id, input, InputResponse::Answer("x".into()))), "INPUT_NOT_PENDING");
        assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
    });
}

#[test]
fn c87_a_message_reaches_the_running_turn_and_ends_with_it() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let turn = client.begin_session(create("inbox")).unwrap();
        let id = turn.session_id();
        let message = client.steer(id, Some(turn.turn_id()), InteractionContent::message("in metres")).unwrap();
        let own = message.id;
        assert_eq!(turn.wait().unwrap().text, "in metres");
        let events: Vec<AgentEvent> = message.collect();
        let last = events.last().unwrap();
        assert!(
            matches!(last, AgentEvent::InteractionComplete { interaction_id, .. } if *interaction_id == own),
            "{last:?}"
        );
        let late = client.steer(id, None, InteractionContent::message("too late"));
        assert_eq!(code(late), "SESSION_NOT_RUNNING");
        assert_eq!(code(client.steer(SessionId::new(), None, InteractionContent::message("x"))), "SESSION_NOT_FOUND");
    });
}

#[test]
fn c87_a_message_that_a_turn_does_not_take_fails() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let worker = worker(&server, &gate);
        let turn = client.begin_session(create("wait")).unwrap();
        let id = turn.session_id();
        gate.wait_arrived(1);
        let untaken = client.steer(id, None, InteractionContent::message("x")).unwrap();
        gate.let_through(1);
        turn.wait().unwrap();
        assert_eq!(kinds(&untaken.collect::<Vec<_>>()), ["interaction failed"]);
        let turn = client.begin_turn(id, super::super::support::turn("wait")).unwrap();
        gate.wait_arrived(2);
        let lost = client.steer(id, None, InteractionContent::message("x")).unwrap();
        drop(worker);
        assert_eq!(kinds(&lost.collect::<Vec<_>>()), ["interaction failed"]);
        assert_eq!(code(turn.wait()), "WORKER_LOST");
    });
}
