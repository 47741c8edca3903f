//! C58: the spans of sessions and turns. A subscriber that records them is the global one, so these tests are a program of
//! their own.

// The rule of `clippy.toml` about primitives is for the library, not for its tests.
#![allow(clippy::disallowed_types)]

mod recording;

use std::fmt;
use std::thread;
use std::time::Duration;

use tracing::{info, info_span};
use turnwise::testkit::{within, Gate};
use turnwise::{
    agent_fn, builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService, EventSource, RunResult, Session,
    SessionAgent, SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSnapshot, SessionSpec,
    StartTurnRequest, TurnContext,
};

use recording::{events, find, innermost, install, panic_in, session_span, span, turn_span};

const LONG: Duration = Duration::from_secs(120);

fn run(body: impl FnOnce() + Send + 'static) {
    install();
    within(2 * LONG, body);
}

fn create(prompt: &str) -> CreateSessionRequest {
    CreateSessionRequest::new(prompt)
}

fn turn(prompt: &str) -> StartTurnRequest {
    StartTurnRequest::new(prompt)
}

/// Records an event with the name of the call.
fn record(call: &str) {
    info!(call);
}

/// Asserts that a span was entered, and exited as often on each thread.
#[track_caller]
fn assert_exited(id: u64) {
    let span = span(id);
    let entered: Vec<_> = span.entered.iter().map(|(thread, _)| *thread).collect();
    assert!(!entered.is_empty() && entered == span.exited, "{span:?}");
}

/// An agent that records every call, under a name of its own.
struct Talkative(String);

/// Its error. It records the formatting of its text.
#[derive(Debug)]
struct Told(String);

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        record(&format!("{} display", self.0));
        f.write_str("told")
    }
}

impl std::error::Error for Told {}

impl Talkative {
    fn record(&self, call: &str) {
        record(&format!("{} {call}", self.0));
    }
}

impl SessionAgent for Talkative {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.record("run_turn");
        match prompt.as_str() {
            "fail" => Err(AgentError::other(Told(self.0.clone()))),
            "panic" => {
                let _own = info_span!("own").entered();
                panic!("told to")
            }
            "sleep" => {
                record(&format!("{} asleep", self.0));
                turn.sleep(Duration::MAX).map(|()| unreachable!()).map_err(AgentError::from)
            }
            _ => Ok(turn.finish(prompt)),
        }
    }

    fn session_clone(&self) -> Session {
        self.record("session_clone");
        Session::new()
    }

    fn snapshot(&self) -> SessionSnapshot {
        self.record("snapshot");
        SessionSnapshot::from(&Session::new())
    }

    fn cancel(&mut self) {
        self.record("cancel");
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        self.record("drop");
    }
}

/// A service of agents that record every call, under the name that their specification has as its label `name`.
fn talkative() -> EphemeralSessionService<impl SessionAgentBuilder> {
    let builder = builder_fn(|spec, _| {
        let agent = Talkative(spec.labels["name"].clone());
        agent.record("build");
        Ok(agent)
    });
    EphemeralSessionService::new(builder, 8)
}

#[test]
fn c58_what_an_agent_records_belongs_to_its_turn_or_its_session() {
    run(|| {
        let service = talkative();
        let first = service.create_session(create("x").session(SessionSpec::new().label("name", "one"))).unwrap();
        let id = first.session_id;
        let [session, turn_1] = [session_span(id), turn_span(id, 1)];
        assert!(span(turn_1).is_closed && !span(session).is_closed, "closed before the result");
        assert_exited(session);
        // Only for a receiver is the error formatted.
        service.start_turn_with(id, turn("fail"), &mut drop).unwrap_err();
        let asleep = service.begin_turn(id, turn("sleep")).unwrap();
        while events("one asleep").is_empty() {
            thread::yield_now();
        }
        asleep.interrupt();
        asleep.wait().unwrap_err();
        service.export_session(id).unwrap();
        service.archive_wait(id, LONG).unwrap();
        let [turn_2, turn_3] = [2, 3].map(|number| turn_span(id, number));
        let of = |call: &str| innermost(&format!("one {call}")).into_iter().map(Option::unwrap).collect::<Vec<_>>();
        assert_eq!(of("build"), [turn_1]);
        assert_eq!(of("snapshot"), [session, turn_1, turn_2, turn_3]);
        assert_eq!(of("run_turn"), [turn_1, turn_2, turn_3]);
        assert_eq!(of("display"), [turn_2]);
        assert_eq!(of("cancel"), [turn_3]);
        // After the build, after each turn, and for the export.
        assert_eq!(of("session_clone"), [session, turn_1, turn_2, turn_3, session]);
        assert_eq!(of("drop"), [session]);
        // Nothing else is entered on the thread, and nothing in between.
        for id in [session, turn_1, turn_2, turn_3] {
            assert!(span(id).entered.iter().all(|(_, before)| before.is_empty()) && span(id).is_closed);
            assert_exited(id);
        }
        assert_eq!(span(session).parent, None);
        assert!([turn_1, turn_2, turn_3].iter().all(|turn| span(*turn).parent == Some(session)));
        assert!(span(session).fields.keys().eq(["session_id"].iter()));
        assert!(span(turn_3).fields.keys().eq(["session_id", "turn_id"].iter()));
        assert_eq!(span(turn_3).metadata.target(), "turnwise::session");
    });
}

#[test]
fn c58_a_build_without_a_turn_belongs_to_its_session_also_if_it_fails() {
    run(|| {
        let service = talkative();
        let id = service.open_session(SessionSpec::new().label("name", "two")).unwrap();
        assert_eq!(innermost("two build"), [Some(session_span(id))]);
        assert_eq!(find("turn", id, Some(1)), None);
        let fails = builder_fn(|_, _| -> Result<Talkative, AgentError> {
            record("two fails");
            panic!("told to")
        });
        let service = EphemeralSessionService::new(fails, 1);
        service.open_session(SessionSpec::new()).unwrap_err();
        let begun = service.begin_session(create("x")).unwrap();
        let id = begun.session_id();
        assert!(matches!(begun.wait(), Err(SessionError::Build { .. })));
        let [opened, turn_1] = innermost("two fails").try_into().unwrap();
        assert_eq!(turn_1, Some(turn_span(id, 1)));
        assert_eq!(span(opened.unwrap()).metadata.name(), "session");
        for id in [opened.unwrap(), turn_span(id, 1)] {
            assert_exited(id);
            assert!(span(id).is_closed);
        }
        assert!(span(session_span(id)).is_closed);
    });
}

#[test]
fn c58_a_panic_exits_the_spans() {
    run(|| {
        let service = talkative();
        let id = service.open_session(SessionSpec::new().label("name", "three")).unwrap();
        assert!(matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. })));
        assert_exited(turn_span(id, 1));
        service.export_session(id).unwrap();
        // After the build, and for the export.
        let cloned = events("three session_clone");
        assert_eq!(cloned.iter().map(|cloned| &*cloned.stack).collect::<Vec<_>>(), [[session_span(id)]; 2]);
        service.archive_wait(id, LONG).unwrap();
        assert!(span(turn_span(id, 1)).is_closed && span(session_span(id)).is_closed);
    });
}

#[test]
fn c58_a_reused_thread_begins_the_next_session_without_a_span() {
    run(|| {
        let agent = agent_fn(|prompt, turn| {
            record(&format!("four {prompt} {}", turn.session_id()));
            if prompt == "leak" {
                std::mem::forget(info_span!("leaked").entered());
            }
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::configure(agent).idle_threads(1).build().unwrap();
        let one = |prompt: &str| {
            let id = service.create_session(create(prompt)).unwrap().session_id;
            service.archive_wait(id, LONG).unwrap();
            let [seen] = <[_; 1]>::try_from(events(&format!("four {prompt} {id}"))).unwrap();
            (id, seen)
        };
        // A thread that has just ended its session may not be idle yet.
        let mut last = one("x").1.thread;
        let (id, seen) = loop {
            let (id, seen) = one("x");
            if std::mem::replace(&mut last, seen.thread) == seen.thread {
                break (id, seen);
            }
        };
        assert_eq!(seen.stack, [turn_span(id, 1)]);
        // An agent that leaves a span of its own entered does so on its thread. The next spans are not its children.
        let (id, seen) = loop {
            let leaking = one("leak").1.thread;
            let (id, seen) = one("x");
            if seen.thread == leaking {
                break (id, seen);
            }
        };
        assert_eq!(seen.stack.last(), Some(&turn_span(id, 1)));
        assert!(seen.stack.len() >= 2, "the agent's own span is still entered");
        assert_eq!(span(session_span(id)).parent, None);
        assert_eq!(span(turn_span(id, 1)).parent, Some(session_span(id)));
    });
}

#[test]
fn c58_interactions_are_in_the_span_of_their_turn_and_pauses_in_none() {
    run(|| {
        let agent = agent_fn(|prompt, turn| {
            record(&format!("five {prompt}"));
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let hosting = service.begin_session(create("prompt").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        for body in ["one", "two"] {
            drop(injector.inject_with_subscription(body.into(), EventSource::Stdin).unwrap().last());
            // The interaction has ended: the turn is in no span until the next one.
            assert_exited(turn_span(id, 1));
        }
        injector.dismiss(EventSource::Stdin).unwrap();
        hosting.wait().unwrap();
        let all: Vec<_> = ["prompt", "one", "two"].iter().flat_map(|text| innermost(&format!("five {text}"))).collect();
        assert_eq!(all, [Some(turn_span(id, 1)); 3]);
        assert!(span(turn_span(id, 1)).is_closed);
    });
}

#[test]
fn c58_a_turn_follows_from_the_span_in_which_it_was_begun() {
    run(|| {
        let agent = agent_fn(|prompt, turn| {
            if prompt == "parent" {
                let service = turn.service().expect("the service");
                let here = service.create_session(create("child"))?;
                // Another thread of the turn, in the span that it enters.
                let there = thread::scope(|scope| {
                    let helper = scope.spawn(|| turn.span().in_scope(|| service.create_session(create("child"))));
                    turn.without_permit(|| helper.join()).expect("no panic")
                })?;
                return Ok(turn.finish(format!("{} {}", here.session_id, there.session_id)));
            }
            record(&format!("six {}", turn.session_id()));
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::new(agent, 8);
        let request = info_span!("request");
        let result = request.in_scope(|| service.create_session(create("parent"))).unwrap();
        let parent = turn_span(result.session_id, 1);
        assert_eq!(span(parent).follows, [request.id().unwrap().into_u64()]);
        assert_eq!(span(session_span(result.session_id)).parent, None);
        for child in result.text.split(' ') {
            let id: SessionId = child.parse().unwrap();
            assert_eq!(span(turn_span(id, 1)).follows, [parent]);
            assert_eq!(span(session_span(id)).parent, None);
            assert_eq!(innermost(&format!("six {id}")), [Some(turn_span(id, 1))]);
        }
        // The caller's span is held until the turn is picked up, and not longer.
        let asked = request.id().unwrap().into_u64();
        assert!(!span(asked).is_closed);
        drop(request);
        assert!(span(asked).is_closed);
        let alone = service.create_session(create("x")).unwrap().session_id;
        assert!(span(turn_span(alone, 1)).follows.is_empty());
    });
}

#[test]
fn c58_a_turn_that_waits_for_a_permit_is_in_no_span() {
    run(|| {
        let gate = Gate::new();
        let at_gate = gate.clone();
        let agent = agent_fn(move |prompt, turn| {
            if prompt == "hold" {
                at_gate.pass_regardless();
            }
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::configure(agent).max_running_turns(1).build().unwrap();
        let held = service.begin_session(create("hold")).unwrap();
        gate.wait_arrived(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let waiting = service.begin_turn(id, turn("x")).unwrap();
        while service.stats().permit_waiting_turns == 0 {
            thread::yield_now();
        }
        assert_eq!(span(turn_span(id, 1)).entered, []);
        gate.open();
        waiting.wait().unwrap();
        assert_exited(turn_span(id, 1));
        held.wait().unwrap();
    });
}

#[test]
fn c58_a_subscriber_that_panics_loses_its_spans_and_nothing_else() {
    run(|| {
        std::panic::set_hook(Box::new(|_| {}));
        let service = talkative();
        for method in ["new_span", "record_follows_from", "enter", "exit", "try_close"] {
            let id = SessionId::new();
            panic_in(method, id);
            let _caller = info_span!("caller").entered();
            service.open_session(SessionSpec::new().session_id(id).label("name", method)).unwrap();
            assert_eq!(service.start_turn(id, turn("hello")).unwrap().text, "hello");
            service.start_turn(id, turn("fail")).unwrap_err();
            assert!(matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. })));
            service.export_session(id).unwrap();
            service.archive_wait(id, LONG).unwrap();
            assert_eq!(events(&format!("{method} run_turn")).len(), 3);
            assert_eq!(events(&format!("{method} drop")).len(), 1);
        }
        assert!(service.shutdown(LONG).stuck.is_empty());
    });
}
