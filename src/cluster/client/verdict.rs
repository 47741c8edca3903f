//! How a request has ended, as the engine tells it.

use crate::cluster::error::EngineError;
use crate::cluster::messages::{reason_of, Failure, Verdict};
use crate::cluster::wire::Entry;
use crate::error::{AgentError, CancelReason, SessionError};
use crate::model::{RequestId, RunResult, SessionId, TurnId};
use crate::sync::Arc;

use super::feed::number;

/// The end of a request: kind, body and counts, not yet read.
pub(super) struct Ended {
    pub(super) turn: TurnId,
    pub(super) kind: Kind,
    body: Vec<u8>,
    /// How many turns of the session were answered with this one. 0 where the engine does not say.
    pub(super) answers: u64,
}

/// Who has ended a request, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The turn has run, or the build has succeeded.
    Done,
    /// The worker has refused it, or the build has failed.
    Refused,
    /// It was withdrawn from the queue.
    Withdrawn,
    /// Its worker is gone.
    Lost,
    /// Its session was deleted.
    Deleted,
    Unknown,
}

impl Ended {
    pub(super) fn new(turn: &[u8], kind: &[u8], body: &[u8], answers: &[u8]) -> Option<Self> {
        // A removal of a session has no turn.
        let turn = TurnId::new(if turn.is_empty() { 0 } else { number(turn)? });
        let kind = match kind {
            b"done" => Kind::Done,
            b"refused" => Kind::Refused,
            b"withdrawn" => Kind::Withdrawn,
            b"lost" => Kind::Lost,
            b"deleted" => Kind::Deleted,
            _ => Kind::Unknown,
        };
        Some(Self { turn, kind, body: body.to_vec(), answers: number(answers).unwrap_or(0) })
    }

    /// Reads a message `verdict {request} id {id} turn {turn} kind {kind} body {body} answers {count}`.
    pub(super) fn read(entry: &Entry) -> Option<(RequestId, SessionId, Self)> {
        let [verdict, request, _, id, _, turn, _, kind, _, body, _, answers] = entry.as_slice() else { return None };
        if verdict != b"verdict" {
            return None;
        }
        let parse = |text: &Vec<u8>| std::str::from_utf8(text).ok().map(str::to_owned);
        let (request, id) = (parse(request)?.parse().ok()?, parse(id)?.parse().ok()?);
        Some((request, id, Self::new(turn, kind, body, answers)?))
    }

    /// The result for the caller. The result of a build is that of no turn.
    pub(super) fn result(&self, id: SessionId) -> Result<RunResult, SessionError> {
        let turn = self.turn;
        let cancelled = |reason| SessionError::Agent { id, source: AgentError::Cancelled { reason } };
        match self.kind {
            Kind::Done | Kind::Refused => match serde_json::from_slice::<Verdict>(&self.body) {
                Ok(verdict) => verdict.map_err(|failure: Failure| failure.into_error(id)),
                Err(_) => Err(unreadable(id)),
            },
            Kind::Withdrawn => Err(cancelled(reason_of(&self.body))),
            Kind::Lost => Err(SessionError::WorkerLost { id, turn }),
            // A delete interrupts the session. A session that was not built yet is gone.
            Kind::Deleted if turn.get() == 0 => Err(SessionError::NotFound { id }),
            Kind::Deleted => Err(cancelled(CancelReason::Archived)),
            Kind::Unknown => Err(unreadable(id)),
        }
    }
}

fn unreadable(id: SessionId) -> SessionError {
    let source = EngineError::failed("a result that cannot be read: a worker has another version of this crate");
    SessionError::Store { id: Some(id), source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(turn: u64, kind: &str, body: &str) -> (SessionId, Result<RunResult, SessionError>) {
        let id = SessionId::new();
        let ended = Ended::new(turn.to_string().as_bytes(), kind.as_bytes(), body.as_bytes(), b"3").unwrap();
        assert_eq!(ended.answers, 3);
        (id, ended.result(id))
    }

    fn failure(error: impl Fn(SessionId) -> SessionError) -> String {
        serde_json::to_string(&Verdict::Err(Failure::new(&error(SessionId::new())))).unwrap()
    }

    #[test]
    fn c84_each_kind_of_verdict_is_the_result_that_a_local_caller_gets() {
        let result = RunResult::new(SessionId::new(), TurnId::new(7), "hello");
        let (_, done) = ended(7, "done", &serde_json::to_string(&Verdict::Ok(result.clone())).unwrap());
        assert_eq!(done.unwrap(), result);
        let (id, refused) = ended(7, "refused", &failure(|id| SessionError::Archived { id }));
        assert!(matches!(refused, Err(SessionError::Archived { id: of }) if of == id));
        let (_, withdrawn) = ended(7, "withdrawn", "superseded");
        assert_eq!(withdrawn.unwrap_err().cancel_reason(), Some(CancelReason::Superseded));
        let (id, lost) = ended(7, "lost", "");
        assert!(matches!(lost, Err(SessionError::WorkerLost { id: of, turn }) if of == id && turn.get() == 7));
        let (_, deleted) = ended(7, "deleted", "");
        assert_eq!(deleted.unwrap_err().cancel_reason(), Some(CancelReason::Archived));
        let (_, unbuilt) = ended(0, "deleted", "");
        assert_eq!(unbuilt.unwrap_err().code(), "SESSION_NOT_FOUND");
    }

    #[test]
    fn c84_a_result_that_cannot_be_read_is_an_error_without_its_text() {
        for (kind, body) in [("done", "a secret"), ("of a later version", "a secret")] {
            let (_, result) = ended(1, kind, body);
            let error = result.unwrap_err();
            assert_eq!(error.code(), "STORE_FAILED");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
    }

    #[test]
    fn c84_a_verdict_is_read_from_the_fields_of_its_entry() {
        let (request, id) = (RequestId::new(), SessionId::new());
        let entry = |text: String| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Entry>();
        let text = format!("verdict {request} id {id} turn 4 kind lost body  answers 9");
        let (of, session, ended) = Ended::read(&entry(text)).unwrap();
        assert_eq!((of, session, ended.turn.get(), ended.kind, ended.answers), (request, id, 4, Kind::Lost, 9));
        assert!(Ended::read(&entry("steered x kind lost body ".into())).is_none());
    }
}
