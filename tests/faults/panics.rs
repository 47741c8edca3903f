//! Thousands of agents that panic at the same time.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use turnwise::testkit::{assert_no_leaked_sessions, within, Gate};
use turnwise::{
    builder_fn, AgentError, EphemeralSessionService, RunResult, Session, SessionAgent, SessionError, SessionQuery,
    SessionService, SessionSnapshot, SessionState, SkillId, TurnContext,
};

use crate::apart::apart;
use crate::{create, LONG};

const MANY: usize = 2_000;

/// An agent that panics in the method that its first prompt names, once the gate is open.
struct PanickingAgent {
    gate: Gate,
    place: String,
    alive: Arc<AtomicUsize>,
}

impl PanickingAgent {
    fn at(&self, place: &str) {
        assert!(self.place != place, "as asked");
    }
}

impl SessionAgent for PanickingAgent {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.gate.pass_regardless();
        self.place = prompt;
        self.at("run_turn");
        if self.place == "cancel" {
            let _ = turn.cancel_token().cancelled().recv();
            turn.check()?;
        }
        Ok(turn.finish("went well"))
    }

    fn session_clone(&self) -> Session {
        Session::new()
    }

    fn snapshot(&self) -> SessionSnapshot {
        self.at("snapshot");
        SessionSnapshot::from(&Session::new())
    }

    fn set_skill_references(&mut self, _skills: Option<Vec<SkillId>>) {}

    fn cancel(&mut self) {
        self.at("cancel");
    }
}

impl Drop for PanickingAgent {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
        self.at("drop");
    }
}

#[test]
fn c31_c32_thousands_of_agents_panic_at_once() {
    apart("panics::c31_c32_thousands_of_agents_panic_at_once", "", || {
        // The default hook would print thousands of expected messages.
        panic::set_hook(Box::new(|_| {}));
        for place in ["run_turn", "snapshot", "cancel", "drop"] {
            within(LONG, move || panic_in(place));
        }
        let _ = panic::take_hook();
    });
}

fn panic_in(place: &'static str) {
    let (gate, alive) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (at, counted) = (gate.clone(), Arc::clone(&alive));
    let builder = builder_fn(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(PanickingAgent { gate: at.clone(), place: String::new(), alive: Arc::clone(&counted) })
    });
    let config = EphemeralSessionService::configure(builder).max_sessions(MANY).stack_size(96 << 10);
    let service = config.build().unwrap();
    let turns: Vec<_> = (0..MANY).map(|_| service.begin_session(create(place)).unwrap()).collect();
    gate.wait_arrived(MANY);
    gate.open();
    if place == "cancel" {
        turns.iter().for_each(|turn| turn.interrupt());
    }
    let faults = matches!(place, "run_turn" | "cancel");
    for turn in turns {
        match turn.wait() {
            Err(SessionError::Faulted { message, .. }) if faults => assert!(message.contains("as asked")),
            Ok(result) if !faults => assert_eq!(result.text, "went well"),
            other => panic!("{place}: {other:?}"),
        }
    }
    let listed = service.list(SessionQuery::new()).unwrap();
    let state = if faults { SessionState::Faulted } else { SessionState::Idle };
    assert!(listed.len() == MANY && listed.iter().all(|session| session.state == state), "{place}");
    assert_eq!(service.stats().faults, if faults { MANY as u64 } else { 0 });
    for session in listed {
        service.archive_with(session.session_id, turnwise::ArchiveMode::Interrupt).unwrap();
    }
    assert_no_leaked_sessions(&service);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
    assert_eq!(service.shutdown(LONG).stuck, []);
}
