//! C44 to C48: a turn asks its host for input, or ends with a tool for its host.

use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    agent_fn, AgentError, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventSource, InputError,
    InputId, InputOutcome, InputRequest, InputResponse, PendingInput, SessionError, SessionId, SessionQuery,
    SessionService, SessionSpec, SessionState, Subscription, ToolResult, TurnContext,
};

use crate::support::*;

fn question() -> InputRequest {
    InputRequest::new("question", "Which colour?")
}

fn answer(text: &str) -> InputResponse {
    InputResponse::Answer(text.into())
}

fn ask(_: &dyn SessionService, turn: &TurnContext) -> Result<String, AgentError> {
    Ok(turn.request_input(question())?)
}

/// Waits until session `id` has `count` pending requests. Each is pending before its event, which the test follows.
fn pending(service: &dyn SessionService, id: SessionId, count: usize) -> Vec<PendingInput> {
    loop {
        let pending = service.pending_inputs(id).unwrap();
        if pending.len() == count {
            return pending;
        }
        thread::yield_now();
    }
}

#[test]
fn c44_a_reader_of_the_event_can_respond_at_once() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("ask", ask);
        let (mut outcomes, mut id_seen) = (Vec::new(), None);
        let result = jobs.service.start_turn_with(id, turn("ask"), &mut |event| match event {
            AgentEvent::InputRequested { input_id, request } => {
                assert_eq!(request.message, "Which colour?");
                assert_eq!(jobs.service.pending_inputs(id).unwrap()[0].id, input_id);
                jobs.service.respond(id, input_id, answer("red")).unwrap();
                id_seen = Some(input_id);
            }
            AgentEvent::InputResolved { input_id, outcome } => outcomes.push((input_id, outcome)),
            _ => {}
        });
        assert_eq!(result.unwrap().text, "red");
        assert_eq!(outcomes, [(id_seen.unwrap(), InputOutcome::Answered)]);
    });
}

#[test]
fn c44_a_waiting_turn_holds_no_permit_and_shows_that_it_waits() {
    run(|| {
        let jobs = Jobs::new(1);
        let (asking, other) = (jobs.open(), jobs.open());
        let turn_1 = jobs.begin(asking, "ask", ask);
        let input = pending(&jobs.service, asking, 1).remove(0);
        assert_eq!((input.turn_id, input.request), (turn_1.turn_id(), question()));
        let info = jobs.service.read(asking).unwrap().state;
        assert_eq!((info.state, info.pending_inputs, info.is_active), (SessionState::Waiting, 1, true));
        assert_eq!(jobs.service.list(SessionQuery::new()).unwrap()[0].state, SessionState::Waiting);
        // The permit is there for another session's turn.
        assert_eq!(jobs.service.start_turn(other, turn("x")).unwrap().text, "x");
        assert_eq!(jobs.service.stats().waiting_turns, 1);
        // The asking turn waits for a permit before its call returns.
        let gate = Gate::new();
        let held = gate.clone();
        let holding = jobs.begin(other, "hold", move |_, turn| {
            held.pass(turn.cancel_token())?;
            Ok("held".into())
        });
        gate.wait_arrived(1);
        jobs.service.respond(asking, input.id, answer("red")).unwrap();
        let info = jobs.service.read(asking).unwrap().state;
        assert_eq!((info.state, info.pending_inputs), (SessionState::Running, 0));
        assert_eq!((jobs.service.stats().waiting_turns, turn_1.is_finished()), (0, false));
        gate.open();
        assert_eq!((holding.wait().unwrap().text, turn_1.wait().unwrap().text), ("held".into(), "red".into()));
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}

#[test]
fn c44_ids_rise_over_the_turns_of_a_session() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let mut last = InputId::new(0);
        for name in ["a", "b"] {
            let asking = jobs.begin(id, name, |_, turn| {
                let [one, other] = [turn.request_input(question())?, turn.request_input(question())?];
                Ok(one + &other)
            });
            for _ in 0..2 {
                let input = pending(&jobs.service, id, 1).remove(0);
                assert!(input.id > last, "{} after {last}", input.id);
                last = input.id;
                jobs.service.respond(id, input.id, answer("x")).unwrap();
            }
            assert_eq!(asking.wait().unwrap().text, "xx");
        }
    });
}

#[test]
fn c45_the_first_response_wins() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        for round in 0..100 {
            let asking = jobs.begin(id, "ask", ask);
            let input = pending(&jobs.service, id, 1)[0].id;
            let service = &jobs.service;
            let accepted: Vec<String> = thread::scope(|scope| {
                let respond = |text: String| move || (service.respond(id, input, answer(&text)), text);
                let responses = [0, 1, 2].map(|n| scope.spawn(respond(format!("{round}.{n}"))));
                let responses = responses.map(|response| response.join().unwrap()).into_iter();
                let accepted = responses.filter(|(response, _)| match response {
                    Ok(()) => true,
                    Err(SessionError::InputNotPending { id: of, input: about }) => {
                        assert_eq!((*of, *about), (id, input));
                        false
                    }
                    Err(error) => panic!("{error:?}"),
                });
                accepted.map(|(_, text)| text).collect()
            });
            assert_eq!(accepted, [asking.wait().unwrap().text]);
            assert_matches!(service.respond(id, input, answer("late")), Err(SessionError::InputNotPending { .. }));
        }
    });
}

#[test]
fn c45_of_a_response_and_an_interrupt_one_wins_and_the_other_is_told() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        for _ in 0..300 {
            let asking = jobs.begin(id, "ask", ask);
            let input = pending(&jobs.service, id, 1)[0].id;
            let responded = thread::scope(|scope| {
                scope.spawn(|| asking.interrupt());
                jobs.service.respond(id, input, answer("red"))
            });
            match (responded, asking.wait()) {
                // An answer that was accepted is returned, also to a turn that is told to stop.
                (Ok(()), result) => assert_eq!(result.unwrap().text, "red"),
                (Err(SessionError::InputNotPending { .. }), result) => {
                    assert_cancelled(result, CancelReason::Interrupted)
                }
                (responded, result) => panic!("{responded:?}, {result:?}"),
            }
        }
    });
}

#[test]
fn c45_after_an_interrupt_has_returned_no_response_is_accepted() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        for _ in 0..100 {
            let asking = jobs.begin(id, "ask", ask);
            let input = pending(&jobs.service, id, 1)[0].id;
            jobs.service.interrupt(id).unwrap();
            assert_matches!(jobs.service.respond(id, input, answer("red")), Err(SessionError::InputNotPending { .. }));
            assert_cancelled(asking.wait(), CancelReason::Interrupted);
        }
        assert_eq!(jobs.service.read(id).unwrap().state.state, SessionState::Idle);
    });
}

#[test]
fn c45_every_end_of_the_turn_ends_the_request() {
    run(|| {
        type End = fn(&Jobs, SessionId);
        let ends: [(End, CancelReason); 3] = [
            (|jobs, id| jobs.service.archive_with(id, ArchiveMode::Interrupt).unwrap(), CancelReason::Archived),
            (|jobs, _| assert_eq!(jobs.service.shutdown(LONG).stuck, []), CancelReason::Shutdown),
            (|_, _| {}, CancelReason::DeadlineExceeded),
        ];
        for (end, reason) in ends {
            let jobs = Jobs::new(1);
            let id = jobs.open();
            let mut events = jobs.service.subscribe(id, Subscription::new()).unwrap();
            jobs.prepare("ask", ask);
            let request = turn("ask");
            let is_timed = reason == CancelReason::DeadlineExceeded;
            let asking = jobs.service.begin_turn(id, if is_timed { request.timeout(SHORT) } else { request }).unwrap();
            // A deadline may pass before the turn asks.
            let asks = events
                .find(|event| matches!(event.event, AgentEvent::InputRequested { .. } | AgentEvent::RunFailed { .. }));
            end(&jobs, id);
            assert_cancelled(asking.wait(), reason);
            if !is_timed {
                assert_matches!(asks.unwrap().event, AgentEvent::InputRequested { .. });
                let ended = events.find(|event| matches!(event.event, AgentEvent::InputResolved { .. })).unwrap().event;
                assert_matches!(ended, AgentEvent::InputResolved { outcome: InputOutcome::Cancelled, .. });
            }
            assert_eq!(jobs.service.stats().waiting_turns, 0);
        }
    });
}

#[test]
fn c45_a_draining_session_still_takes_responses() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let asking = jobs.begin(id, "ask", ask);
        let input = pending(&jobs.service, id, 1)[0].id;
        jobs.service.archive(id).unwrap();
        assert_eq!(jobs.service.pending_inputs(id).unwrap()[0].id, input);
        jobs.service.respond(id, input, answer("red")).unwrap();
        assert_eq!(asking.wait().unwrap().text, "red");
        jobs.service.archive_wait(id, LONG).unwrap();
        assert_matches!(jobs.service.respond(id, input, answer("red")), Err(SessionError::NotFound { .. }));
        assert_matches!(jobs.service.pending_inputs(id), Err(SessionError::NotFound { .. }));
    });
}

#[test]
fn c45_the_timeout_of_a_request_does_not_end_its_turn() {
    run(|| {
        let clock = ManualClock::new();
        let jobs = Jobs::with(|config| config.clock(clock.clone()));
        let id = jobs.open();
        let asking = jobs.begin(id, "ask", |_, turn| {
            let missing = turn.request_input(question().timeout(Duration::from_secs(60))).unwrap_err();
            assert_eq!(missing, InputError::TimedOut { waited: Duration::from_secs(61) });
            Ok(turn.request_input(question())?)
        });
        clock.wait_for_waiters(1);
        let late = pending(&jobs.service, id, 1)[0].id;
        clock.advance(Duration::from_secs(59));
        assert_eq!(jobs.service.pending_inputs(id).unwrap()[0].id, late);
        clock.advance(Duration::from_secs(2));
        let next = loop {
            match jobs.service.pending_inputs(id).unwrap().first() {
                Some(input) if input.id != late => break input.id,
                _ => thread::yield_now(),
            }
        };
        assert_matches!(jobs.service.respond(id, late, answer("red")), Err(SessionError::InputNotPending { .. }));
        jobs.service.respond(id, next, answer("blue")).unwrap();
        assert_eq!(asking.wait().unwrap().text, "blue");
        assert_eq!(clock.waiters(), 0);
    });
}

#[test]
fn c45_only_the_options_are_valid_answers() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let options = || question().option("red", "Red").option("blue", "Blue");
        let asking = jobs.begin(id, "ask", move |_, turn| Ok(turn.request_input(options())?));
        let input = pending(&jobs.service, id, 1)[0].id;
        for invalid in ["Red", "", "green"] {
            let refused = jobs.service.respond(id, input, answer(invalid)).unwrap_err();
            assert_matches!(&refused, SessionError::InvalidAnswer { input: about, .. } if *about == input);
            assert_eq!((refused.code(), refused.session_id()), ("INVALID_ANSWER", Some(id)));
            assert_eq!(jobs.service.read(id).unwrap().state.state, SessionState::Waiting);
        }
        jobs.service.respond(id, input, answer("blue")).unwrap();
        assert_eq!(asking.wait().unwrap().text, "blue");

        let asking = jobs.begin(id, "ask", move |_, turn| Ok(turn.request_input(options())?));
        let input = pending(&jobs.service, id, 1)[0].id;
        let declined = InputResponse::Declined { reason: Some("no paint".into()) };
        jobs.service.respond(id, input, declined.clone()).unwrap();
        let error = asking.wait().unwrap_err();
        let cause = error.agent_error().and_then(AgentError::downcast_ref::<InputError>);
        assert_eq!(cause, Some(&InputError::Declined { reason: Some("no paint".into()) }));
        assert!(error.to_string().ends_with("the host declined: no paint"), "{error}");
    });
}

#[test]
fn c46_requests_of_several_threads_are_pending_side_by_side() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let asking = jobs.begin(id, "ask", |_, turn| {
            let answers = thread::scope(|scope| {
                let ask = |n: usize| scope.spawn(move || turn.request_input(InputRequest::new("tool", n.to_string())));
                [0, 1, 2].map(ask).map(|tool| tool.join().expect("tools do not panic"))
            });
            answers.into_iter().try_fold(String::new(), |all, answer| Ok(all + &answer?))
        });
        let inputs = pending(&jobs.service, id, 3);
        assert_eq!(jobs.service.read(id).unwrap().state.pending_inputs, 3);
        // In the reverse order; each gets its own answer.
        for (left, input) in inputs.iter().enumerate().rev() {
            jobs.service.respond(id, input.id, answer(&input.request.message)).unwrap();
            assert_eq!(jobs.service.pending_inputs(id).unwrap().len(), left);
        }
        assert_eq!(asking.wait().unwrap().text, "012");
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}

#[test]
fn c46_a_response_works_from_another_turn_and_from_a_cancel_hook() {
    run(|| {
        let jobs = Jobs::new(1);
        let (asking_id, other) = (jobs.open(), jobs.open());
        let asking = jobs.begin(asking_id, "ask", ask);
        let input = pending(&jobs.service, asking_id, 1)[0].id;
        let responding = jobs.begin(other, "respond", move |service, _| {
            service.respond(asking_id, input, answer("from a turn"))?;
            Ok("responded".into())
        });
        assert_eq!(responding.wait().unwrap().text, "responded");
        assert_eq!(asking.wait().unwrap().text, "from a turn");

        let asking = jobs.begin(asking_id, "ask", ask);
        let input = pending(&jobs.service, asking_id, 1)[0].id;
        let (armed, is_armed) = bounded(1);
        let responding = jobs.begin(other, "hook", move |_, turn| {
            let (responds, response) = unbounded();
            let _hook = turn.cancel_token().on_cancel(move || responds.send(()).unwrap());
            armed.send(()).unwrap();
            response.recv().unwrap();
            Ok("told to stop".into())
        });
        is_armed.recv().unwrap();
        responding.interrupt();
        assert_eq!(responding.wait().unwrap().text, "told to stop");
        jobs.service.respond(asking_id, input, answer("red")).unwrap();
        assert_eq!(asking.wait().unwrap().text, "red");
    });
}

#[test]
fn c46_a_response_works_through_the_service_of_another_turn() {
    run(|| {
        let jobs = Jobs::new(1);
        let (asking_id, other) = (jobs.open(), jobs.open());
        let asking = jobs.begin(asking_id, "ask", ask);
        let input = pending(&jobs.service, asking_id, 1)[0].id;
        let responding = jobs.begin(other, "respond", move |_, turn| {
            let service = turn.service().expect("the test has a handle");
            assert_eq!(service.pending_inputs(asking_id)?[0].id, input);
            service.respond(asking_id, input, answer("from a turn"))?;
            Ok("responded".into())
        });
        assert_eq!(responding.wait().unwrap().text, "responded");
        assert_eq!(asking.wait().unwrap().text, "from a turn");
    });
}

#[test]
fn c46_a_response_within_the_asking_turns_own_cancel_hook_finds_no_request() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let service = jobs.service.clone();
        let (told, response) = unbounded();
        let asking = jobs.begin(id, "ask", move |_, turn| {
            let (returned_tx, returned) = unbounded();
            let hook = turn.cancel_token().on_cancel(move || {
                let input = service.pending_inputs(id).unwrap().first().map_or(InputId::new(1), |input| input.id);
                told.send(service.respond(id, input, answer("red"))).unwrap();
                returned_tx.send(()).unwrap();
            });
            let answer = turn.request_input(question());
            // A hook whose guard is dropped before it starts does not run.
            returned.recv().unwrap();
            drop(hook);
            Ok(answer?)
        });
        pending(&jobs.service, id, 1);
        asking.interrupt();
        assert_matches!(response.recv().unwrap(), Err(SessionError::InputNotPending { .. }));
        assert_cancelled(asking.wait(), CancelReason::Interrupted);
    });
}

#[test]
fn c46_a_request_whose_event_finds_no_room_ends_with_its_turn() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("ask", ask);
        // The first event fills the channel.
        let (event_tx, events) = bounded(1);
        let asking = jobs.service.begin_turn(id, turn("ask").event_tx(event_tx)).unwrap();
        let input = pending(&jobs.service, id, 1)[0].id;
        asking.interrupt();
        assert_cancelled(asking.wait(), CancelReason::Interrupted);
        assert_matches!(jobs.service.respond(id, input, answer("x")), Err(SessionError::InputNotPending { .. }));
        let kinds: Vec<AgentEvent> = events.into_iter().collect();
        assert_matches!(&kinds[..], [AgentEvent::RunStarted { .. }]);
    });
}

#[test]
fn c47_an_interaction_asks_and_is_interrupted_alone() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let hosting = jobs.service.begin_turn(id, turn("hello").host_mode(true)).unwrap();
        let injector = jobs.service.event_injector(id).unwrap();
        jobs.prepare("one", ask);
        jobs.prepare("two", ask);
        let one = injector.inject_with_subscription("one".into(), EventSource::Rpc).unwrap();
        let input = pending(&jobs.service, id, 1)[0].id;
        assert_eq!(jobs.service.read(id).unwrap().state.state, SessionState::Waiting);
        jobs.service.interrupt_interaction(id, one.id).unwrap();
        assert_matches!(jobs.service.respond(id, input, answer("x")), Err(SessionError::InputNotPending { .. }));
        assert_matches!(one.last(), Some(AgentEvent::InteractionFailed { .. }));

        let two = injector.inject_with_subscription("two".into(), EventSource::Rpc).unwrap();
        let next = pending(&jobs.service, id, 1)[0].id;
        assert!(next > input);
        jobs.service.respond(id, next, answer("blue")).unwrap();
        let events: Vec<AgentEvent> = two.collect();
        assert!(events.iter().any(|event| matches!(event, AgentEvent::InputRequested { .. })), "{events:?}");
        assert_matches!(events.last(), Some(AgentEvent::InteractionComplete { result, .. }) if result == "blue");
        injector.dismiss(EventSource::Rpc).unwrap();
        assert_eq!(hosting.wait().unwrap().text, "blue");
        assert_eq!(jobs.service.stats().waiting_turns, 0);
    });
}

#[test]
fn c48_a_session_shows_its_pending_callback_until_a_turn_ends_otherwise() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let callback = |args: &str| {
            let args = args.to_owned();
            move |_: &dyn SessionService, _: &TurnContext| {
                Err::<String, _>(AgentError::CallbackPending { tool_name: "pay".into(), args })
            }
        };
        let shown = || jobs.service.read(id).unwrap().state.callback_pending.map(|pending| pending.args);
        assert_eq!(shown(), None);
        for args in ["1", "2"] {
            let error = jobs.begin(id, "pay", callback(args)).wait().unwrap_err();
            assert_matches!(error.agent_error(), Some(AgentError::CallbackPending { tool_name, .. }) if tool_name == "pay");
            assert_eq!(shown().as_deref(), Some(args));
        }
        let result = ToolResult { tool_use_id: "x".into(), content: "paid".into(), is_error: false };
        jobs.prepare("go on", |_, turn| Ok(turn.tool_results().iter().map(|result| result.content.as_str()).collect()));
        let request = turn("go on").tool_results(vec![result.clone(), result]);
        assert!(!format!("{request:?}").contains("paid"));
        assert_eq!(jobs.service.start_turn(id, request).unwrap().text, "paidpaid");
        assert_eq!(shown(), None);
        // A plain turn is not refused, and a failed one clears the callback too.
        jobs.begin(id, "pay", callback("3")).wait().unwrap_err();
        let failing = jobs.begin(id, "fail", |_, turn| {
            assert!(turn.tool_results().is_empty());
            Err(AgentError::Internal("as asked".into()))
        });
        failing.wait().unwrap_err();
        assert_eq!(shown(), None);
    });
}

#[test]
fn c45_an_answer_counts_that_was_accepted_before_the_event_had_room() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        for (response, text) in [(answer("red"), Some("red")), (InputResponse::Declined { reason: None }, None)] {
            // Full with the first event of the turn.
            let (event_tx, events) = bounded(1);
            jobs.prepare("ask", ask);
            let asking = jobs.service.begin_turn(id, turn("ask").event_tx(event_tx)).unwrap();
            let input = pending(&jobs.service, id, 1).remove(0);
            jobs.service.respond(id, input.id, response).unwrap();
            asking.interrupt();
            match (asking.wait(), text) {
                (Ok(result), Some(text)) => assert_eq!(result.text, text),
                (Err(error), None) => assert!(format!("{error}").contains("declined"), "{error}"),
                (other, _) => panic!("{other:?}"),
            }
            // The request was never announced, so its end is not either.
            assert!(!events.iter().any(|event| matches!(event, AgentEvent::InputResolved { .. })));
        }
    });
}

#[test]
fn c48_the_pending_callback_of_a_read_is_that_of_its_last_turn() {
    run(|| {
        const TURNS: u64 = 20_000;
        let agent = agent_fn(|prompt, turn| match turn.turn_id().get() % 2 {
            0 => Ok(turn.finish(prompt)),
            _ => Err(AgentError::CallbackPending { tool_name: "pay".into(), args: String::new() }),
        });
        let service = EphemeralSessionService::new(agent, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let reader = {
            let service = service.clone();
            thread::spawn(move || loop {
                let info = service.read(id).unwrap().state;
                if info.state == SessionState::Idle {
                    assert_eq!(info.callback_pending.is_some(), info.turns % 2 == 1, "after turn {}", info.turns);
                }
                if info.turns == TURNS {
                    return;
                }
            })
        };
        for _ in 0..TURNS {
            drop(service.start_turn(id, turn("x")));
        }
        reader.join().unwrap();
    });
}

#[test]
fn c48_an_interaction_that_ends_with_a_callback_leaves_none_pending() {
    run(|| {
        let agent = agent_fn(|prompt, turn| match prompt.as_str() {
            "pay" => Err(AgentError::CallbackPending { tool_name: "pay".into(), args: String::new() }),
            _ => Ok(turn.finish(prompt)),
        });
        let service = EphemeralSessionService::new(agent, 1);
        let hosting = service.begin_session(create("hello").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        let paying = injector.inject_with_subscription("pay".into(), EventSource::Rpc).unwrap();
        assert!(matches!(paying.last(), Some(AgentEvent::InteractionFailed { .. })));
        assert_eq!(service.read(id).unwrap().state.callback_pending, None);
        injector.dismiss(EventSource::Rpc).unwrap();
        hosting.wait().unwrap();
        assert_eq!(service.read(id).unwrap().state.callback_pending, None);
    });
}
