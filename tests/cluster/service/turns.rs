//! Turns and builds.

use std::sync::Mutex;
use std::time::Duration;

use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, builder_fn, AgentError, BuildError, CancelReason, EphemeralSessionService, LlmFailure, SessionAgent,
    SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec, SessionState, TurnContext, TurnId,
    WhenBusy,
};

use super::*;
use crate::support::*;

#[test]
fn c84_a_session_is_created_and_runs_turns_in_a_worker() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        assert_eq!(code(client.create_session(create("one"))), "CAPACITY_EXCEEDED");
        let _worker = worker(&server, &gate);
        let first = client.create_session(create("one")).unwrap();
        let id = first.session_id;
        let second = client.start_turn(id, turn("two")).unwrap();
        assert_eq!((first.text.as_str(), first.turn_id), ("one", TurnId::new(1)));
        assert_eq!((second.text.as_str(), second.turn_id), ("two", TurnId::new(2)));
        assert_eq!(said(&client.history(id).unwrap()), ["one", "= one", "two", "= two"]);
        let opened = client.open_session(SessionSpec::new().session_id(SessionId::new())).unwrap();
        assert_eq!(client.start_turn(opened, turn("three")).unwrap().turn_id, TurnId::new(1));
        assert_eq!(code(client.open_session(SessionSpec::new().session_id(id))), "SESSION_ALREADY_EXISTS");
        assert_eq!(code(client.start_turn(SessionId::new(), turn("x"))), "SESSION_NOT_FOUND");
    });
}

#[test]
fn c84_an_error_of_the_agent_keeps_its_kind() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let error = |prompt: &str| client.start_turn(id, turn(prompt)).unwrap_err();
        assert!(matches!(error("config x").agent_error(), Some(AgentError::Config(text)) if text == "x"));
        assert!(matches!(error("limit").agent_error(), Some(AgentError::MaxTurnsReached { turns: 3 })));
        let limited = LlmFailure::RateLimited { retry_after: Some(Duration::from_secs(2)) };
        assert!(matches!(error("llm").agent_error(), Some(AgentError::Llm { reason, .. }) if *reason == limited));
        let other = error("io");
        assert_eq!(other.agent_error().unwrap().to_string(), "told to");
        assert!(other.agent_error().unwrap().downcast_ref::<std::io::Error>().is_none());
        assert_eq!(client.start_turn(id, turn("on")).unwrap().text, "on");
    });
}

#[test]
fn c84_a_panic_leaves_the_session_faulted_until_it_is_restarted() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.create_session(create("one")).unwrap().session_id;
        assert_eq!(code(client.restart(id, LONG)), "SESSION_NOT_FAULTED");
        let panicked = client.start_turn(id, turn("panic")).unwrap_err();
        assert!(matches!(&panicked, SessionError::Faulted { message, .. } if &**message == "told to"), "{panicked:?}");
        assert_eq!(client.read(id).unwrap().state.state, SessionState::Faulted);
        assert_eq!(client.list(turnwise::SessionQuery::new()).unwrap()[0].state, SessionState::Faulted);
        assert_eq!(code(client.start_turn(id, turn("two"))), "SESSION_FAULTED");
        assert_eq!(code(client.wait_idle(id, LONG)), "SESSION_FAULTED");
        client.restart(id, LONG).unwrap();
        assert_eq!(client.read(id).unwrap().state.state, SessionState::Idle);
        assert_eq!(client.start_turn(id, turn("two")).unwrap().text, "two");
        assert_eq!(said(&client.history(id).unwrap()), ["one", "= one", "two", "= two"]);
    });
}

#[test]
fn c84_a_build_that_fails_or_panics_leaves_no_session() {
    let Some(server) = start() else { return };
    run(move || {
        let client = client(&server);
        let builder = builder_fn(|spec: &SessionSpec, context| -> Result<Box<dyn SessionAgent>, AgentError> {
            match spec.model.as_str() {
                "fails" => Err(AgentError::Config("no key".into())),
                "panics" => panic!("no keys at all"),
                _ => {
                    let agent = agent_fn(|prompt, turn: &TurnContext| Ok(turn.finish(prompt)));
                    Ok(Box::new(agent.build_agent(spec, context)?))
                }
            }
        });
        let _worker = work(&server, EphemeralSessionService::configure(builder));
        let spec = |model: &str| SessionSpec::new().model(model);
        let failed = client.open_session(spec("fails")).unwrap_err();
        assert!(matches!(&failed, SessionError::Build { source: BuildError::Agent(AgentError::Config(_)), .. }));
        let failed = client.create_session(create("x").session(spec("fails"))).unwrap_err();
        assert_eq!(failed.code(), "SESSION_BUILD_FAILED");
        assert_eq!(code(client.read(failed.session_id().unwrap())), "SESSION_NOT_FOUND");
        let panicked = client.open_session(spec("panics")).unwrap_err();
        assert!(matches!(&panicked, SessionError::Build { source: BuildError::Panicked(_), .. }), "{panicked:?}");
        let id = failed.session_id().unwrap();
        assert_eq!(client.open_session(spec("good").session_id(id)).unwrap(), id);
    });
}

#[test]
fn c84_a_busy_session_refuses_queues_or_is_interrupted() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let first = client.begin_session(create("wait")).unwrap();
        let id = first.session_id();
        gate.wait_arrived(1);
        let refused = client.try_begin_turn(id, turn("me too")).unwrap_err();
        assert!(matches!(refused.error, SessionError::Busy { turn: Some(turn), .. } if turn == first.turn_id()));
        assert_eq!(refused.request.prompt, "me too");
        let queued = client.begin_turn(id, turn("queued").when_busy(WhenBusy::Queue)).unwrap();
        let other = client.begin_turn(id, turn("other").when_busy(WhenBusy::Queue)).unwrap();
        assert!(queued.is_queued() && other.is_queued() && !first.is_queued());
        assert_eq!(client.read(id).unwrap().state.queued_turns, 2);
        other.interrupt();
        assert_eq!(other.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        let now = client.begin_turn(id, turn("now").when_busy(WhenBusy::Interrupt)).unwrap();
        assert_eq!(first.wait().unwrap_err().cancel_reason(), Some(CancelReason::Superseded));
        assert_eq!((now.wait().unwrap().text, queued.wait().unwrap().text), ("now".into(), "queued".into()));
        // Idle again: nothing is queued.
        let idle = client.begin_turn(id, turn("idle").when_busy(WhenBusy::Queue)).unwrap();
        assert!(!idle.is_queued());
        idle.wait().unwrap();
    });
}

#[test]
fn c84_the_queue_has_the_limit_of_the_worker() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = work(&server, EphemeralSessionService::configure(obedient(&gate)).turn_queue(1));
        let first = client.begin_session(create("wait")).unwrap();
        let id = first.session_id();
        gate.wait_arrived(1);
        let queue = || client.begin_turn(id, turn("x").when_busy(WhenBusy::Queue));
        let queued = queue().unwrap();
        assert!(matches!(queue(), Err(SessionError::QueueFull { capacity: 1, .. })));
        gate.open();
        first.wait().unwrap();
        queued.wait().unwrap();
    });
}

#[test]
fn c84_an_interrupt_ends_one_turn_and_no_later_one() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let first = client.begin_session(create("wait")).unwrap();
        let (id, number) = (first.session_id(), first.turn_id());
        gate.wait_arrived(1);
        client.interrupt(id).unwrap();
        assert_eq!(first.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        let second = client.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(2);
        assert_eq!(code(client.interrupt_turn(id, number)), "SESSION_NOT_RUNNING");
        second.interrupt();
        assert_eq!(second.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        assert_eq!(code(client.interrupt(id)), "SESSION_NOT_RUNNING");
        assert_eq!(code(client.interrupt(SessionId::new())), "SESSION_NOT_FOUND");
    });
}

#[test]
fn c84_a_timeout_cancels_a_turn_that_runs_and_one_that_is_queued() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let error = client.start_turn(id, turn("wait").timeout(Duration::from_millis(50))).unwrap_err();
        assert_eq!(error.cancel_reason(), Some(CancelReason::DeadlineExceeded));
        let running = client.begin_turn(id, turn("wait")).unwrap();
        let queued = turn("never").when_busy(WhenBusy::Queue).timeout(Duration::from_millis(50));
        let error = client.start_turn(id, queued).unwrap_err();
        assert_eq!(error.cancel_reason(), Some(CancelReason::DeadlineExceeded));
        gate.open();
        running.wait().unwrap();
        assert_eq!(said(&client.history(id).unwrap()).last().unwrap(), "= wait");
    });
}

#[test]
fn c84_what_cannot_be_passed_to_a_worker_is_refused() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let spec = SessionSpec::new().extension(std::sync::Arc::new(1));
        assert_eq!(code(client.open_session(spec.clone())), "SESSION_BUILD_FAILED");
        assert_eq!(code(client.create_session(create("x").session(spec))), "SESSION_BUILD_FAILED");
        let local = EphemeralSessionService::new(echo(), 1);
        let spec = SessionSpec::new().reservation(local.reserve(LONG).unwrap());
        assert_eq!(code(client.open_session(spec)), "INVALID_RESERVATION");
        assert!(client.list(turnwise::SessionQuery::new()).unwrap().is_empty());
    });
}

#[test]
fn c84_an_agent_uses_sessions_of_the_cluster_as_sub_agents() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let through = client.clone();
        let parents = EphemeralSessionService::configure(agent_fn(move |prompt: String, turn: &TurnContext| {
            let result = through.create_session(create(&prompt))?;
            let again = through.start_turn(result.session_id, turnwise::StartTurnRequest::new("again"))?;
            Ok(turn.finish(format!("{} {}", result.text, again.text)))
        }));
        // One permit: a parent that waits gives it back.
        let parents = parents.max_running_turns(1).build().unwrap();
        assert_eq!(parents.create_session(create("child")).unwrap().text, "child again");
        let waiting = parents.begin_session(create("wait")).unwrap();
        gate.wait_arrived(1);
        let quick = parents.create_session(create("quick")).unwrap();
        assert_eq!(quick.text, "quick again");
        // The cancellation of the parent ends its wait. The child goes on.
        waiting.interrupt();
        assert_eq!(waiting.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        let running = client.list(turnwise::SessionQuery::new()).unwrap();
        let child = running.iter().find(|summary| summary.is_active).expect("the child runs").session_id;
        gate.open();
        client.wait_idle(child, LONG).unwrap();
        assert_eq!(said(&client.history(child).unwrap()), ["wait", "= wait"]);
    });
}

#[test]
fn c84_many_threads_share_one_client() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let config = || EphemeralSessionService::configure(obedient(&gate)).max_sessions(16);
        let _workers = [work(&server, config()), work(&server, config())];
        let answers = Mutex::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (client, answers) = (&client, &answers);
                scope.spawn(move || {
                    let id = client.open_session(SessionSpec::new()).unwrap();
                    for turn_number in 0..10 {
                        let prompt = format!("{thread} {turn_number}");
                        assert_eq!(client.start_turn(id, turn(&prompt)).unwrap().text, prompt);
                        *answers.lock().unwrap() += 1;
                    }
                    assert_eq!(client.history(id).unwrap().messages().len(), 20);
                });
            }
        });
        assert_eq!(*answers.lock().unwrap(), 80);
    });
}
