//! Errors: their texts, their sources, their fields, and what their `Debug` leaves out.

use std::error::Error;
use std::iter::successors;
use std::sync::Arc;

use turnwise::{
    agent_fn, AgentError, BuildError, CancelReason, CreateSessionRequest, EphemeralSessionService, ServiceStats,
    SessionError, SessionId, SessionService, StopReason, TurnId,
};

use crate::support::*;

#[derive(Debug)]
struct Outer(std::io::Error);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the outer error")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

fn agent_errors() -> Vec<AgentError> {
    let io = || std::io::Error::other("the disk is gone");
    vec![
        AgentError::Cancelled { reason: CancelReason::Archived },
        AgentError::Config("no key".into()),
        AgentError::Tool { name: "search".into(), message: "no net".into() },
        AgentError::other(Outer(io())),
        AgentError::from(io()),
        AgentError::other("a text"),
    ]
}

fn all_errors() -> Vec<SessionError> {
    let id = SessionId::new();
    let of_agents = agent_errors().into_iter().flat_map(|source| {
        let built = SessionError::Build { id, source: BuildError::Agent(source.clone()) };
        let nested = SessionError::Agent { id, source: SessionError::Agent { id, source: source.clone() }.into() };
        [built, nested, SessionError::Agent { id, source }]
    });
    let io = || Arc::new(std::io::Error::other(Outer(std::io::Error::other("deep"))));
    let mut all: Vec<_> = of_agents.collect();
    all.push(SessionError::Spawn { source: io() });
    all.push(SessionError::Store { id: Some(id), source: Arc::new(Outer(std::io::Error::other("deep"))) });
    #[cfg(feature = "store")]
    {
        let failed = turnwise::store::StoreError::failed(Outer(std::io::Error::other("deep")));
        all.push(SessionError::Store { id: None, source: Arc::new(failed) });
    }
    all
}

#[test]
fn no_text_in_the_chain_of_sources_is_repeated() {
    for error in all_errors() {
        let texts: Vec<_> =
            successors(Some(&error as &dyn Error), |&error| error.source()).map(ToString::to_string).collect();
        for (place, text) in texts.iter().enumerate() {
            for above in &texts[..place] {
                assert!(!above.contains(text.as_str()), "'{text}' is repeated in {texts:?}");
            }
        }
    }
    // `source` has the text that `Display` leaves out.
    let error =
        SessionError::Agent { id: SessionId::new(), source: AgentError::other(Outer(std::io::Error::other("deep"))) };
    assert_eq!(error.source().unwrap().to_string(), "deep");
}

#[test]
fn debug_shows_variants_and_fields_and_no_text_of_a_panic() {
    let id = SessionId::new();
    for (error, expected) in [
        (AgentError::Cancelled { reason: CancelReason::Archived }, "Cancelled { reason: Archived }"),
        (AgentError::MaxTurnsReached { turns: 3 }, "MaxTurnsReached { turns: 3 }"),
        (AgentError::Tool { name: "a".into(), message: "b".into() }, "Tool { name: \"a\", message: \"b\" }"),
        (AgentError::Config("c".into()), "Config(\"c\")"),
    ] {
        assert_eq!(format!("{error:?}"), expected);
    }
    let message: Arc<str> = "a secret".into();
    for error in [
        SessionError::Faulted { id, message: Arc::clone(&message) },
        SessionError::Build { id, source: BuildError::Panicked(message) },
        SessionError::Agent { id, source: AgentError::Internal("session_clone panicked: a secret".into()) },
    ] {
        assert!(error.to_string().contains("a secret"), "`Display` has the message");
        let debug = format!("{error:?} {error:#?}");
        assert!(!debug.contains("secret") && debug.contains("bytes"), "{debug}");
    }
}

#[test]
fn busy_names_the_turn() {
    run(|| {
        let (service, stage) = scripted(2);
        let first = service.begin_session(create("hold")).unwrap();
        let id = first.session_id();
        // Another turn is refused during the build and during the run.
        let refused =
            |error| assert_matches!(error, SessionError::Busy { turn: Some(turn), .. } if turn == TurnId::new(1));
        refused(service.begin_turn(id, turn("x")).unwrap_err());
        stage.wait_entered();
        let error = service.start_turn(id, turn("x")).unwrap_err();
        assert!(error.to_string().ends_with("is busy with turn 1"), "{error}");
        refused(error);
        stage.release();
        first.wait().unwrap();
        let second = service.begin_turn(id, turn("deaf")).unwrap();
        let error = service.start_turn(id, turn("x")).unwrap_err();
        assert_matches!(error, SessionError::Busy { turn: Some(turn), .. } if turn == second.turn_id());
        stage.release();
        second.wait().unwrap();
    });
}

#[test]
fn an_interrupted_turn_that_succeeds_counts_as_cancelled() {
    run(|| {
        let agent = agent_fn(|prompt, turn| {
            if prompt == "partial" {
                turn.sleep(std::time::Duration::MAX).unwrap_err();
            }
            let reason = if prompt == "limit" { StopReason::MaxTokens } else { StopReason::EndTurn };
            Ok(turn.finish("as far as I came").with_stop_reason(reason))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let id = service.create_session(CreateSessionRequest::new("whole")).unwrap().session_id;
        let partial = service.begin_turn(id, turn("partial")).unwrap();
        partial.interrupt();
        match partial.wait() {
            Ok(result) => {
                assert_eq!((result.stop_reason, result.text.as_str()), (StopReason::Cancelled, "as far as I came"));
                let history = service.export_session(id).unwrap();
                let last = history.messages().last().unwrap();
                assert_matches!(last, turnwise::Message::Assistant { stop_reason: StopReason::Cancelled, .. });
            }
            // The interrupt came before the run.
            Err(error) => assert_eq!(error.cancel_reason(), Some(CancelReason::Interrupted)),
        }
        let whole = service.start_turn(id, turn("limit")).unwrap();
        assert_eq!(whole.stop_reason, StopReason::MaxTokens);
        let stats = service.stats();
        assert_eq!((stats.turns_completed, stats.turns_cancelled, stats.turns_failed), (2, 1, 0));
    });
}

#[test]
fn the_sum_of_ended_turns_saturates() {
    let mut stats = ServiceStats::default();
    stats.turns_completed = u64::MAX;
    stats.turns_failed = 1;
    stats.turns_cancelled = u64::MAX;
    stats.faults = u64::MAX;
    assert_eq!(stats.turns_ended(), u64::MAX);
}
