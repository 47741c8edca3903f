//! The end of a turn as the answer of its prompt, and errors of the service as errors of JSON-RPC.

use agent_client_protocol_schema::v1::{Error, PromptResponse, StopReason as Stopped};
use serde_json::{json, Value};

use crate::error::{AgentError, CancelReason, SessionError};
use crate::model::{RunResult, StopReason};
use crate::panics::{contain, Contained};

/// The answer of a prompt whose turn has ended. `is_cancelled` says that the client has cancelled it.
pub(super) fn prompt_response(
    result: Result<RunResult, SessionError>,
    is_cancelled: bool,
    filtered_prompts_are_dropped: bool,
) -> Result<PromptResponse, Error> {
    let result = Contained::new("the drop of a turn's result", result);
    if is_cancelled {
        return Ok(PromptResponse::new(Stopped::Cancelled));
    }
    match &*result {
        Ok(result) => Ok(PromptResponse::new(stopped(result.stop_reason, filtered_prompts_are_dropped))),
        Err(error) => stopped_by(error).map(PromptResponse::new).ok_or_else(|| shown(error)),
    }
}

fn stopped(reason: StopReason, filtered_prompts_are_dropped: bool) -> Stopped {
    match reason {
        StopReason::EndTurn | StopReason::ToolUse | StopReason::StopSequence => Stopped::EndTurn,
        StopReason::MaxTokens => Stopped::MaxTokens,
        StopReason::ContentFilter if filtered_prompts_are_dropped => Stopped::Refusal,
        StopReason::ContentFilter => Stopped::EndTurn,
        StopReason::Cancelled => Stopped::Cancelled,
    }
}

/// The errors that are an ordinary end for a client.
fn stopped_by(error: &SessionError) -> Option<Stopped> {
    match error.cancel_reason() {
        // Also by the host, and by another prompt. A deadline and a shutdown are errors.
        Some(CancelReason::Interrupted | CancelReason::Superseded) => return Some(Stopped::Cancelled),
        Some(_) => return None,
        None => {}
    }
    match error.agent_error()? {
        AgentError::MaxTurnsReached { .. } | AgentError::ToolCallBudgetExceeded { .. } => {
            Some(Stopped::MaxTurnRequests)
        }
        AgentError::TokenBudgetExceeded { .. } => Some(Stopped::MaxTokens),
        _ => None,
    }
}

/// An error of the service, for the client. `data` has the stable code and the text.
pub(super) fn error_of(error: SessionError) -> Error {
    // The error may be one of an agent, whose code may panic.
    shown(&Contained::new("the drop of an error of the service", error))
}

fn shown(error: &SessionError) -> Error {
    if let SessionError::NotFound { id } | SessionError::Archived { id } = error {
        return unknown_session(&id.to_string());
    }
    let kind = match error {
        SessionError::Busy { .. } | SessionError::QueueFull { .. } => Error::invalid_request(),
        _ => Error::internal_error(),
    };
    let message = contain(|| error.to_string()).unwrap_or_else(|_| error.code().to_owned());
    kind.data(json!({ "code": error.code(), "message": message }))
}

/// The error of a request about a session that the connection does not have.
pub(super) fn unknown_session(id: &str) -> Error {
    Error::session_not_found(id.to_owned())
}

pub(super) fn invalid_params(why: &str) -> Error {
    Error::invalid_params().data(Value::from(why))
}

pub(super) fn invalid_request(why: &str) -> Error {
    Error::invalid_request().data(Value::from(why))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::{SessionId, TurnId};

    fn of(result: Result<RunResult, SessionError>) -> Result<Stopped, i32> {
        prompt_response(result, false, false).map(|response| response.stop_reason).map_err(|error| error.code.into())
    }

    fn ended(stop_reason: StopReason) -> Result<RunResult, SessionError> {
        Ok(RunResult::new(SessionId::new(), TurnId::new(1), "x").with_stop_reason(stop_reason))
    }

    fn failed(source: AgentError) -> Result<RunResult, SessionError> {
        Err(SessionError::Agent { id: SessionId::new(), source })
    }

    #[test]
    fn c72_every_stop_reason_has_its_counterpart() {
        assert_eq!(of(ended(StopReason::EndTurn)), Ok(Stopped::EndTurn));
        assert_eq!(of(ended(StopReason::MaxTokens)), Ok(Stopped::MaxTokens));
        assert_eq!(of(ended(StopReason::ContentFilter)), Ok(Stopped::EndTurn));
        let filtered = prompt_response(ended(StopReason::ContentFilter), false, true).unwrap();
        assert_eq!(filtered.stop_reason, Stopped::Refusal);
        assert_eq!(of(failed(AgentError::MaxTurnsReached { turns: 3 })), Ok(Stopped::MaxTurnRequests));
        assert_eq!(of(failed(AgentError::TokenBudgetExceeded { used: 2, limit: 1 })), Ok(Stopped::MaxTokens));
        let time = AgentError::TimeBudgetExceeded { elapsed: Duration::ZERO, limit: Duration::ZERO };
        assert_eq!(of(failed(time)), Err(-32603));
    }

    #[test]
    fn c73_only_an_interrupt_is_cancelled_and_a_mark_of_the_client_decides() {
        let cancelled = |reason| failed(AgentError::Cancelled { reason });
        assert_eq!(of(cancelled(CancelReason::Interrupted)), Ok(Stopped::Cancelled));
        assert_eq!(of(cancelled(CancelReason::Superseded)), Ok(Stopped::Cancelled));
        for reason in [CancelReason::DeadlineExceeded, CancelReason::Archived, CancelReason::Shutdown] {
            assert_eq!(of(cancelled(reason)), Err(-32603));
        }
        for result in [ended(StopReason::EndTurn), failed(AgentError::Config("x".into()))] {
            assert_eq!(prompt_response(result, true, false).unwrap().stop_reason, Stopped::Cancelled);
        }
    }

    #[test]
    fn c69_an_unknown_session_is_named_in_the_error() {
        let id = SessionId::new();
        let error = error_of(SessionError::NotFound { id });
        assert_eq!(i32::from(error.code), -32002);
        assert_eq!(error.data, Some(json!({ "sessionId": id.to_string() })));
        assert_eq!(i32::from(error_of(SessionError::Busy { id, turn: None }).code), -32600);
    }
}
