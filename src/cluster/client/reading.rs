//! Reads: states, lists and histories come from the engine, and no worker is asked.

use std::ops::ControlFlow;
use std::time::SystemTime;

use crate::cluster::engine::{unexpected, Call};
use crate::cluster::scripts;
use crate::cluster::store::{each_row, from_json, header_of, with_row, RedisStore, Row};
use crate::cluster::wire::Reply;
use crate::error::SessionError;
use crate::model::{InputId, InputRequest, Labels, Message, PendingInput, Session, SessionId, TurnId};
use crate::panics::record;
use crate::service::{SessionInfo, SessionQuery, SessionState, SessionSummary, SessionUsage, SessionView};
use crate::store::{Revision, SessionStore, StoreError, StoredHeader, StoredSession};
use crate::sync::Arc;

use super::core::{engine_failed, store_failed, text, Core};
use super::feed::number;

/// The state of a session, as the engine has it.
pub(super) struct Look {
    /// `None` during the first build.
    header: Option<StoredHeader>,
    labels: Labels,
    pub(super) is_archived: bool,
    /// The last turn that was accepted.
    turn: u64,
    /// The turns in flight, in their order. 0 stands for a build.
    pub(super) flight: Vec<u64>,
    pub(super) inputs: Vec<PendingInput>,
    /// The message of the panic that has left the session faulted.
    pub(super) fault: Option<Arc<str>>,
    /// Whether a live worker has the session.
    has_worker: bool,
    last_text: Option<Arc<str>>,
}

impl Core {
    /// Reads the state of a session; `None` if it does not exist.
    pub(super) fn look(&self, id: SessionId) -> Result<Option<Look>, SessionError> {
        self.look_with(id, false)
    }

    fn look_with(&self, id: SessionId, has_text: bool) -> Result<Option<Look>, SessionError> {
        let mut call = Call::new(&scripts::READ).arg(id.to_string());
        if has_text {
            call = call.arg("1");
        }
        let answer = self.engine.read(call).map_err(|error| engine_failed(Some(id), error))?;
        if answer.is_list_of("missing") {
            return Ok(None);
        }
        let parts = answer.list().filter(|_| answer.is_list_of("ok"));
        let look = parts.and_then(|parts| parts.get(1..)).map(|parts| Look::new(id, parts));
        let look = look.unwrap_or_else(|| Err(StoreError::failed(unexpected(&scripts::READ))));
        look.map(Some).map_err(|error| store_failed(Some(id), error))
    }

    /// As [`look`](Self::look), for a session that has to exist.
    pub(super) fn look_at(&self, id: SessionId) -> Result<Look, SessionError> {
        self.look(id)?.ok_or(SessionError::NotFound { id })
    }

    pub(super) fn read(&self, id: SessionId) -> Result<SessionView, SessionError> {
        let look = self.look_with(id, true)?.ok_or(SessionError::NotFound { id })?;
        Ok(look.view(id))
    }

    pub(super) fn list(&self, query: &SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        let failed = |error| store_failed(None, error);
        let after = match query.after {
            None => None,
            Some(id) => {
                let created = with_row(&self.engine, id, |row| Ok(row.created.to_owned())).map_err(failed)?;
                Some((created.ok_or(SessionError::NotFound { id })?, id))
            }
        };
        let mut page = Page::new(query);
        if !page.is_full() {
            let each = |row: Row<'_>| {
                let id = row.session_id();
                match id.map(|id| row.summary(id)) {
                    Some(Ok(stored)) => {
                        let is_faulted = row.is_faulted();
                        page.add(with_flight(SessionSummary::from(stored), row.flight, is_faulted));
                    }
                    Some(Err(error)) => {
                        record!(Warn, "turnwise::cluster", "a record is left out of a list: {}", error.code());
                    }
                    // The id of no session of this crate.
                    None => {}
                }
                Ok(if page.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            };
            each_row(&self.engine, after, each).map_err(failed)?;
        }
        Ok(page.found)
    }

    pub(super) fn pending_inputs(&self, id: SessionId) -> Result<Vec<PendingInput>, SessionError> {
        Ok(self.look_at(id)?.inputs)
    }

    pub(super) fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, SessionError> {
        let store = RedisStore::new(self.engine.clone());
        store.load(id).map_err(|error| store_failed(Some(id), error))
    }

    /// The record of a session. A session that is being opened has none.
    pub(super) fn loaded(&self, id: SessionId) -> Result<(StoredSession, Revision), SessionError> {
        match self.load(id)? {
            Some(loaded) => Ok(loaded),
            None => {
                self.look_at(id)?;
                // It may have been kept in between.
                self.load(id)?.ok_or(SessionError::Busy { id, turn: None })
            }
        }
    }

    pub(super) fn history_at(&self, id: SessionId) -> Result<(Session, u64), SessionError> {
        let (stored, _) = self.loaded(id)?;
        Ok((stored.history, stored.numbers.events))
    }
}

impl Look {
    /// Reads what follows the first word of the answer.
    fn new(id: SessionId, parts: &[Reply]) -> Result<Self, StoreError> {
        let [header, labels, archived, turn, flight, inputs, fault, has_worker, rest @ ..] = parts else {
            return Err(StoreError::failed(unexpected(&scripts::READ)));
        };
        let is_archived = text(archived) == b"1";
        let header = match text(header) {
            b"" => None,
            found => Some(header_of(id, found, text(labels), text(archived))?),
        };
        let flight = numbers(text(flight));
        // Only the first turn in flight runs.
        let turn_id = TurnId::new(flight.first().copied().unwrap_or(0));
        let inputs = inputs.list().unwrap_or_default().iter().filter_map(|input| match input.words()?.as_slice() {
            [input, request] => {
                let request = from_json::<InputRequest>(id, "input request", request);
                let input = InputId::new(number(input)?);
                Some(request.map(|request| PendingInput::new(input, turn_id, request)))
            }
            _ => None,
        });
        let first = |reply: &Reply| reply.words().and_then(|words| words.first().map(|word| word.to_vec()));
        let last_text = match rest.first().and_then(first) {
            Some(message) => Some(from_json::<Message>(id, "message", &message)?.text().into()),
            None => None,
        };
        Ok(Self {
            labels: header.as_ref().map(|header| header.labels.clone()).unwrap_or_default().into(),
            header,
            is_archived,
            turn: number(text(turn)).unwrap_or(0),
            flight,
            inputs: inputs.collect::<Result<_, _>>()?,
            fault: first(fault).map(|message| String::from_utf8_lossy(&message).into()),
            has_worker: text(has_worker) == b"1",
            last_text,
        })
    }

    /// Whether nothing of an archived session is left but its record: its worker gives it up when no turn is in flight.
    pub(super) fn has_ended(&self) -> bool {
        self.flight.is_empty() && !self.has_worker
    }

    fn state(&self) -> SessionState {
        if self.is_archived {
            SessionState::Archived
        } else if self.header.is_none() || self.flight.first() == Some(&0) {
            SessionState::Building
        } else if self.fault.is_some() {
            SessionState::Faulted
        } else if !self.inputs.is_empty() {
            SessionState::Waiting
        } else if !self.flight.is_empty() {
            SessionState::Running
        } else {
            SessionState::Idle
        }
    }

    fn view(self, id: SessionId) -> SessionView {
        let state = self.state();
        let usage = self.header.as_ref().map(|header| header.usage).unwrap_or_default();
        let now = SystemTime::now();
        let header = self.header.as_ref();
        SessionView {
            state: SessionInfo {
                session_id: id,
                created_at: header.map_or(now, |header| header.created_at),
                updated_at: header.map_or(now, |header| header.updated_at),
                message_count: header.map_or(0, |header| header.message_count),
                turns: self.turn,
                is_active: !self.flight.is_empty(),
                state,
                last_assistant_text: self.last_text,
                pending_inputs: self.inputs.len(),
                queued_turns: self.flight.len().saturating_sub(1),
                callback_pending: header.and_then(|header| header.callback_pending.clone()),
                turn_started_at: None,
                last_seq: header.map_or(0, |header| header.numbers.events),
            },
            billing: SessionUsage { total_tokens: usage.total_tokens(), usage },
            model: header.map(|header| header.model.as_str()).unwrap_or_default().into(),
            labels: self.labels,
        }
    }
}

/// A page of a list, while it is filled.
struct Page<'a> {
    query: &'a SessionQuery,
    to_skip: usize,
    found: Vec<SessionSummary>,
}

impl<'a> Page<'a> {
    fn new(query: &'a SessionQuery) -> Self {
        Self { query, to_skip: query.offset.unwrap_or(0), found: Vec::new() }
    }

    fn is_full(&self) -> bool {
        self.query.limit.is_some_and(|limit| self.found.len() >= limit)
    }

    /// Adds the next session in the order of creation, if the query selects it.
    fn add(&mut self, summary: SessionSummary) {
        let has_labels = self.query.labels.iter().all(|(name, value)| summary.labels.get(name) == Some(value));
        if summary.state == SessionState::Archived || !has_labels || self.is_full() {
            return;
        }
        if self.to_skip > 0 {
            self.to_skip -= 1;
        } else {
            self.found.push(summary);
        }
    }
}

/// The summary of a stored session, with the turns that are in flight.
fn with_flight(mut summary: SessionSummary, flight: &[u8], is_faulted: bool) -> SessionSummary {
    let flight = numbers(flight);
    summary.is_active = !flight.is_empty();
    summary.is_live = summary.is_active;
    summary.queued_turns = flight.len().saturating_sub(1);
    summary.turns = flight.iter().copied().fold(summary.turns, u64::max);
    if summary.state == SessionState::Idle {
        summary.state = match flight.first() {
            Some(0) => SessionState::Building,
            _ if is_faulted => SessionState::Faulted,
            Some(_) => SessionState::Running,
            None => SessionState::Idle,
        };
    }
    summary
}

/// Numbers separated by spaces.
fn numbers(text: &[u8]) -> Vec<u64> {
    text.split(|byte| *byte == b' ').filter_map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::SessionQuery;
    use crate::store::StoredSummary;

    fn word(text: &str) -> Reply {
        Reply::Text(text.as_bytes().to_vec())
    }

    fn look(
        header: &str,
        archived: &str,
        flight: &str,
        inputs: Vec<Reply>,
        fault: &[&str],
    ) -> Result<Look, StoreError> {
        let fault = Reply::List(fault.iter().map(|text| word(text)).collect());
        let labels = r#"{"user":"ada"}"#;
        let (turn, flight, has_worker) = (word("9"), word(flight), word("1"));
        let inputs = Reply::List(inputs);
        let parts = [word(header), word(labels), word(archived), turn, flight, inputs, fault, has_worker];
        Look::new(history().id(), &parts)
    }

    fn history() -> Session {
        let mut history = Session::with_id(SessionId::from_uuid(uuid::Uuid::nil()));
        history.push(Message::user("hello"));
        history
    }

    fn header() -> String {
        serde_json::to_string(&StoredSession::new(history()).header()).unwrap()
    }

    fn input() -> Reply {
        let request = InputRequest::new("question", "?");
        Reply::List(vec![word("1"), word(&serde_json::to_string(&request).unwrap())])
    }

    #[test]
    fn c86_the_state_of_a_session_follows_from_what_the_engine_has() {
        let header = header();
        let state = |header: &str, archived, flight, inputs, fault: &[&str]| {
            look(header, archived, flight, inputs, fault).unwrap().state()
        };
        assert_eq!(state("", "", "0", vec![], &[]), SessionState::Building);
        assert_eq!(state("", "", "1", vec![], &[]), SessionState::Building);
        assert_eq!(state(&header, "0", "", vec![], &[]), SessionState::Idle);
        assert_eq!(state(&header, "0", "9 10", vec![], &[]), SessionState::Running);
        assert_eq!(state(&header, "0", "9", vec![input()], &[]), SessionState::Waiting);
        assert_eq!(state(&header, "0", "", vec![], &["boom"]), SessionState::Faulted);
        assert_eq!(state(&header, "0", "0", vec![], &["boom"]), SessionState::Building);
        assert_eq!(state(&header, "1", "9", vec![], &[]), SessionState::Archived);
    }

    #[test]
    fn c86_a_view_has_the_figures_of_the_record_and_the_turns_in_flight() {
        let view = look(&header(), "0", "9 10 11", vec![input()], &[]).unwrap().view(history().id());
        let state = &view.state;
        assert_eq!((state.message_count, state.turns, state.queued_turns, state.pending_inputs), (1, 9, 2, 1));
        assert!(state.is_active && view.labels["user"] == "ada");
    }

    #[test]
    fn c86_a_session_has_ended_once_no_worker_has_it() {
        let ended = |flight: &str, rest: &[&str]| {
            let labels = r#"{"user":"ada"}"#;
            let (inputs, fault) = (Reply::List(vec![]), Reply::List(vec![]));
            let mut parts = vec![word(&header()), word(labels), word("1"), word("9"), word(flight), inputs, fault];
            parts.extend(rest.iter().map(|text| word(text)));
            Look::new(history().id(), &parts).unwrap().has_ended()
        };
        assert_eq!([ended("9", &["1"]), ended("", &["1"]), ended("", &["0"])], [false, false, true]);
    }

    #[test]
    fn c86_a_record_of_a_newer_format_is_refused() {
        let newer = header().replace(r#""format_version":1"#, r#""format_version":99"#);
        assert_ne!(newer, header());
        assert_eq!(look(&newer, "0", "", vec![], &[]).err().unwrap().code(), "STORE_RECORD_NEWER");
    }

    fn summary(label: &str, archived: bool) -> SessionSummary {
        let mut stored: StoredSummary = StoredSession::new(Session::new()).summary();
        stored.labels =
            [("user".to_owned(), label.to_owned())].into_iter().collect::<std::collections::BTreeMap<_, _>>().into();
        stored.archived = archived;
        stored.into()
    }

    #[test]
    fn c86_a_page_has_the_sessions_that_the_query_selects() {
        let all = [summary("ada", false), summary("bob", false), summary("ada", true), summary("ada", false)];
        let page = |query: &SessionQuery| {
            let mut page = Page::new(query);
            all.iter().for_each(|summary| page.add(summary.clone()));
            page.found.iter().map(|found| all.iter().position(|one| one == found).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(page(&SessionQuery::new()), [0, 1, 3]);
        assert_eq!(page(&SessionQuery::new().label("user", "ada")), [0, 3]);
        assert_eq!(page(&SessionQuery::new().label("user", "ada").offset(1)), [3]);
        assert_eq!(page(&SessionQuery::new().offset(1).limit(1)), [1]);
        assert_eq!(page(&SessionQuery::new().limit(0)), [0; 0]);
    }

    #[test]
    fn c86_a_summary_shows_the_turns_in_flight() {
        let shown = |flight: &str, is_faulted, archived| {
            let summary = with_flight(summary("ada", archived), flight.as_bytes(), is_faulted);
            (summary.state, summary.is_active, summary.queued_turns, summary.turns)
        };
        assert_eq!(shown("", false, false), (SessionState::Idle, false, 0, 0));
        assert_eq!(shown("4 5", false, false), (SessionState::Running, true, 1, 5));
        assert_eq!(shown("0", true, false), (SessionState::Building, true, 0, 0));
        assert_eq!(shown("", true, false), (SessionState::Faulted, false, 0, 0));
        assert_eq!(shown("4", false, true), (SessionState::Archived, true, 0, 4));
    }
}
