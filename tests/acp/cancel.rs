//! Cancellation by the client.

use serde_json::json;
use turnwise::testkit::{scripted, Gate, Script};
use turnwise::{
    agent_fn, AgentError, EphemeralSessionService, SessionError, SessionId, SessionService, StartTurnRequest,
    StopReason, WhenBusy,
};

use crate::support::{config, keeping, run, service, Client};

#[test]
fn c73_a_cancel_in_mid_stream_flushes_and_answers_cancelled() {
    run(|| {
        let gate = Gate::new();
        let script = Script::new().say("so far").wait_at(&gate).say("never");
        let mut client = Client::connect(service(scripted().on("go", script)), config());
        let session = client.open();
        let prompt = client.prompt(&session, "go");
        gate.wait_arrived(1);
        client.notify("session/cancel", json!({ "sessionId": session }));
        assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
        assert_eq!(client.text(), "so far");
        // The session goes on.
        let next = client.prompt(&session, "next");
        assert_eq!(client.stopped(next), Ok("end_turn".into()));
    });
}

#[test]
fn c73_a_cancelled_prompt_is_no_error_even_if_its_agent_fails() {
    run(|| {
        let gate = Gate::new();
        let at = gate.clone();
        let agents = agent_fn(move |prompt, turn| {
            let _ = at.pass(turn.cancel_token());
            match prompt.as_str() {
                "fails" => Err(AgentError::Internal("the connection broke".into())),
                "succeeds" => Ok(turn.finish("done all the same")),
                // The library does not replace the stop reason of an agent.
                _ => Ok(turn.finish("cut off").with_stop_reason(StopReason::MaxTokens)),
            }
        });
        let mut client = Client::connect(EphemeralSessionService::new(agents, 1), config());
        let session = client.open();
        for (arrivals, prompt) in [(1, "fails"), (2, "succeeds"), (3, "is cut off")] {
            let prompt = client.prompt(&session, prompt);
            gate.wait_arrived(arrivals);
            client.notify("session/cancel", json!({ "sessionId": session }));
            assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
        }
    });
}

#[test]
fn c73_a_cancel_answers_the_queued_prompts_and_runs_none_of_them() {
    run(|| {
        let gate = Gate::new();
        let (ran, runs) = turnwise::crossbeam_channel::unbounded();
        let at = gate.clone();
        let agents = scripted().otherwise(move |prompt| {
            ran.send(prompt.to_owned()).expect("the test is listening");
            if prompt == "hold" {
                Script::new().wait_at(&at)
            } else {
                Script::new()
            }
        });
        let mut client = Client::connect(service(agents), config().when_busy(WhenBusy::Queue));
        let session = client.open();
        let prompts: Vec<_> =
            ["hold", "second", "third"].iter().map(|prompt| client.prompt(&session, prompt)).collect();
        gate.wait_arrived(1);
        client.notify("session/cancel", json!({ "sessionId": session }));
        for prompt in prompts {
            assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
        }
        let next = client.prompt(&session, "fourth");
        assert_eq!(client.stopped(next), Ok("end_turn".into()));
        assert_eq!(runs.try_iter().collect::<Vec<_>>(), ["hold", "fourth"]);
    });
}

#[test]
fn c73_a_cancel_right_behind_its_prompt_is_not_lost() {
    run(|| {
        let agents = scripted().on("for ever", Script::new().until_cancelled());
        let mut client = Client::connect(service(agents), config());
        let session = client.open();
        // Both lines arrive before the worker has begun the turn, or after it: the schedule decides.
        for _ in 0..200 {
            let prompt = client.prompt(&session, "for ever");
            client.notify("session/cancel", json!({ "sessionId": session }));
            assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
        }
    });
}

#[test]
fn c73_a_cancel_without_a_prompt_is_ignored() {
    run(|| {
        let mut client = Client::connect(service(scripted()), config());
        let session = client.open();
        client.notify("session/cancel", json!({ "sessionId": session }));
        client.notify("session/cancel", json!({ "sessionId": SessionId::new().to_string() }));
        client.notify("session/cancel", json!({ "sessionId": "nothing" }));
        client.notify("session/cancel", json!({}));
        let prompt = client.prompt(&session, "x");
        assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    });
}

#[test]
fn c73_a_cancel_leaves_the_turns_of_the_host_alone() {
    run(|| {
        let gate = Gate::new();
        let service = service(scripted().on("hold", Script::new().wait_at(&gate).reply("kept")));
        let mut client = Client::connect(service.clone(), config());
        let session = client.open();
        let id: SessionId = session.parse().expect("an id");
        let turn = service.begin_turn(id, StartTurnRequest::new("hold")).expect("a turn of the host's own");
        gate.wait_arrived(1);
        client.notify("session/cancel", json!({ "sessionId": session }));
        // Lines are handled in order: after this answer the cancellation has been handled.
        assert!(client.ask("session/list", json!({})).is_ok());
        gate.open();
        assert_eq!(turn.wait().expect("the turn ends").text, "kept");
    });
}

#[test]
fn c73_a_request_is_cancelled_by_its_id() {
    run(|| {
        let gate = Gate::new();
        let agents = scripted().otherwise({
            let gate = gate.clone();
            move |_| Script::new().wait_at(&gate)
        });
        let mut client = Client::connect(service(agents), config());
        let (one, two) = (client.open(), client.open());
        let (first, second) = (client.prompt(&one, "x"), client.prompt(&two, "x"));
        gate.wait_arrived(2);
        client.notify("$/cancel_request", json!({ "requestId": second }));
        assert_eq!(client.stopped(second), Ok("cancelled".into()));
        gate.open();
        assert_eq!(client.stopped(first), Ok("end_turn".into()));
    });
}

#[test]
fn c73_a_queued_prompt_that_is_cancelled_does_not_wait_for_the_one_before() {
    run(|| {
        let gate = Gate::new();
        let agents = scripted().on("hold", Script::new().say("held").wait_at(&gate));
        let service = service(agents);
        let mut client = Client::connect(service.clone(), config().when_busy(WhenBusy::Queue));
        let session = client.open();
        let first = client.prompt(&session, "hold");
        gate.wait_arrived(1);
        // The first turn is the one whose events are read.
        client.find(|line| line["params"]["update"]["content"]["text"] == "held");
        let (second, third) = (client.prompt(&session, "second"), client.prompt(&session, "third"));
        let id: SessionId = session.parse().expect("an id");
        while service.read(id).expect("a session").state.queued_turns < 2 {
            std::thread::yield_now();
        }
        client.notify("$/cancel_request", json!({ "requestId": second }));
        assert_eq!(client.stopped(second), Ok("cancelled".into()));
        gate.open();
        assert_eq!(client.stopped(first), Ok("end_turn".into()));
        assert_eq!(client.stopped(third), Ok("end_turn".into()));
        assert_eq!(client.text(), "third");
    });
}

#[test]
fn c73_a_deadline_is_an_error_and_an_interrupt_of_the_host_is_not() {
    run(|| {
        let gate = Gate::new();
        let held = service(scripted().on("hold", Script::new().wait_at(&gate)));
        let mut client = Client::connect(held.clone(), config());
        let session = client.open();
        let prompt = client.prompt(&session, "hold");
        gate.wait_arrived(1);
        held.interrupt(session.parse().expect("an id")).expect("a turn runs");
        assert_eq!(client.stopped(prompt), Ok("cancelled".into()));

        let agents = scripted().on("for ever", Script::new().until_cancelled());
        let timeout = std::time::Duration::from_millis(1);
        let mut client = Client::connect(service(agents), config().turn_timeout(timeout));
        let session = client.open();
        let prompt = client.prompt(&session, "for ever");
        assert_eq!(client.stopped(prompt), Err(-32603));
    });
}

#[test]
fn c73_a_close_cancels_the_prompts_before_its_own_answer() {
    run(|| {
        let gate = Gate::new();
        let service = service(scripted().on("hold", Script::new().wait_at(&gate)));
        let mut client = Client::connect(service.clone(), config().when_busy(WhenBusy::Queue));
        let session = client.open();
        let (first, second) = (client.prompt(&session, "hold"), client.prompt(&session, "second"));
        gate.wait_arrived(1);
        let close = client.request("session/close", json!({ "sessionId": session }));
        let mut answers = Vec::new();
        while answers.last() != Some(&close) {
            let line = client.find(|line| line["id"].is_i64());
            if line["id"] != close {
                assert_eq!(line["result"]["stopReason"], "cancelled", "{line}");
            }
            answers.push(line["id"].as_i64().expect("an id"));
        }
        answers.sort_unstable();
        assert_eq!(answers, [first, second, close]);
        // It is not archived.
        let view = service.read(session.parse().expect("an id"));
        assert!(!matches!(view, Err(SessionError::NotFound { .. } | SessionError::Archived { .. })));
    });
}

#[test]
fn c73_a_close_waits_for_a_turn_that_does_not_stop_only_so_long() {
    run(|| {
        let gate = Gate::new();
        let service = keeping(scripted().on("deaf", Script::new().wait_at_ignoring_cancel(&gate)));
        let timeout = std::time::Duration::from_millis(5);
        let mut client = Client::connect(service, config().close_timeout(timeout));
        let session = client.open();
        let prompt = client.prompt(&session, "deaf");
        gate.wait_arrived(1);
        assert_eq!(client.ask("session/close", json!({ "sessionId": session })), Err(-32603));
        // The prompt is answered when its turn has ended.
        gate.open();
        assert_eq!(client.stopped(prompt), Ok("cancelled".into()));
    });
}

#[test]
fn c73_a_cancelled_prompt_of_a_session_that_is_not_built_is_no_error() {
    run(|| {
        let gate = Gate::new();
        let at = gate.clone();
        let agents = scripted().build_calls(move |spec, _| match spec.resume {
            Some(_) => {
                at.pass_regardless();
                Err(AgentError::Internal("no model".into()))
            }
            None => Ok(()),
        });
        let mut client = Client::connect(keeping(agents), config());
        let session = client.open();
        assert_eq!(client.ask("session/close", json!({ "sessionId": session })), Ok(json!({})));
        let resume = client.request("session/resume", json!({ "sessionId": session, "cwd": "/work" }));
        gate.wait_arrived(1);
        let cancelled = client.prompt(&session, "first");
        client.notify("session/cancel", json!({ "sessionId": session }));
        let refused = client.prompt(&session, "second");
        // Lines are handled in order: after this answer the cancellation has been handled.
        assert!(client.ask("session/list", json!({})).is_ok());
        gate.open();
        assert!(client.answer(resume).is_err());
        assert_eq!(client.stopped(cancelled), Ok("cancelled".into()));
        assert_eq!(client.stopped(refused), Err(-32002));
    });
}
