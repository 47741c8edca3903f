//! What each call does: the live session where there is one, and what is kept of it otherwise.

use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::comms::CommsRuntime;
use crate::ephemeral::awaited::follow;
use crate::ephemeral::EphemeralSessionService;
use crate::error::SessionError;
use crate::inbox::injector::SubscribableInjector;
use crate::model::{AgentEvent, RunResult, Session, SessionId, SessionSnapshot, TurnId};
use crate::service::{
    ArchiveMode, CreateSessionRequest, SessionInfo, SessionQuery, SessionService, SessionSpec, SessionState,
    SessionSummary, SessionUsage, SessionView, StartTurnRequest,
};
use crate::session::command::Taken;
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{yield_now, Arc};
use crate::turn::handle::TurnHandle;

use super::agent::{KeepingBuilder, Launch};
use super::kept::{Kept, Launching};
use super::record::StoredSession;
use super::service::Inner;

type Live<B> = EphemeralSessionService<KeepingBuilder<B>>;

impl<B: SessionAgentBuilder> Inner<B> {
    /// Launches a session that is new. `create` has the service below do it.
    fn launch<T>(
        &self,
        mut spec: SessionSpec,
        create: impl FnOnce(&Live<B>, SessionSpec) -> Result<T, SessionError>,
    ) -> Result<(Arc<Kept>, T), SessionError> {
        let id = self.live.identify(&mut spec);
        if self.live.is_shut_down() {
            return Err(SessionError::ShuttingDown);
        }
        let kept = self.keeper.reserve_launch(id).ok_or(SessionError::AlreadyExists { id })?;
        // Generated ones too: those of a seed come again.
        if self.keeper.summary(id)?.is_some() {
            return Err(SessionError::AlreadyExists { id });
        }
        kept.begin(StoredSession::of_new(&spec, id))?;
        self.launch_kept(kept, spec, create)
    }

    /// Launches a session that is new, with a first turn.
    fn create<T>(
        &self,
        request: CreateSessionRequest,
        create: impl FnOnce(&Live<B>, CreateSessionRequest) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let CreateSessionRequest { session, turn } = request;
        let create = |live: &Live<B>, spec| create(live, CreateSessionRequest { session: spec, turn });
        self.launch(session, create).map(|(_, created)| created)
    }

    /// Launches a session that is kept.
    fn relaunch<T>(
        &self,
        id: SessionId,
        create: impl FnOnce(&Live<B>, SessionSpec) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let kept = self.keeper.reserve_launch(id).ok_or_else(|| self.at_work(id))?;
        let stored = kept.stored()?;
        let launched = self.launch_kept(kept, stored.spec(), create);
        launched.map(|(_, launched)| launched).map_err(|error| match error {
            // The session's life before has not quite ended.
            SessionError::AlreadyExists { id } => SessionError::Busy { id },
            error => error,
        })
    }

    fn launch_kept<T>(
        &self,
        kept: Launching,
        mut spec: SessionSpec,
        create: impl FnOnce(&Live<B>, SessionSpec) -> Result<T, SessionError>,
    ) -> Result<(Arc<Kept>, T), SessionError> {
        let id = kept.id();
        spec.extension = Some(Arc::new(Launch { kept: Arc::clone(&kept), extension: spec.extension.take() }));
        let launched = create(&self.live, spec);
        // Whoever has archived or deleted it before it was registered has not found it in the service below.
        if kept.is_archived() {
            let _ = self.live.archive_with(id, kept.archive_mode());
        }
        Ok((Arc::clone(&kept), launched?))
    }

    /// Why a session that somebody works on can be had by nobody else.
    fn at_work(&self, id: SessionId) -> SessionError {
        if self.keeper.is_archived(id) {
            SessionError::NotFound { id }
        } else {
            SessionError::Busy { id }
        }
    }

    /// Starts a turn of a live session, or the first turn of a resumed one.
    fn on_turn<T>(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        start: impl FnOnce(&Live<B>, StartTurnRequest) -> Result<T, SessionError>,
        create: impl FnOnce(&Live<B>, CreateSessionRequest) -> Result<T, SessionError>,
    ) -> Result<T, SessionError> {
        let again = copy_of(&request);
        match start(&self.live, request) {
            Err(SessionError::NotFound { .. }) => {
                self.relaunch(id, |live, spec| create(live, CreateSessionRequest { session: spec, turn: again }))
            }
            started => started,
        }
    }

    /// What is kept of a session that nobody finds in the service below.
    fn stored(&self, id: SessionId) -> Result<StoredSession, SessionError> {
        self.keeper.load(id)?.ok_or(SessionError::NotFound { id })
    }

    pub(super) fn resume(&self, id: SessionId) -> Result<(), SessionError> {
        match self.live.read(id) {
            // By another thread, and it may fail.
            Ok(view) if view.state.state == SessionState::Building => Err(SessionError::Busy { id }),
            Ok(_) => Ok(()),
            Err(_) => self.relaunch(id, |live, spec| live.open_session(spec)).map(drop),
        }
    }

    pub(super) fn unload(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        match self.take_live(id, timeout) {
            Ok((_, ended)) => ended,
            // It may be on its way out still.
            Err(SessionError::NotFound { id }) => {
                self.keeper.summary(id)?.ok_or(SessionError::NotFound { id })?;
                self.live.see_off(id, timeout)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a live session once all that it has come to is kept. Where that fails, the session stays.
    fn take_live(&self, id: SessionId, timeout: Duration) -> Result<Taken, SessionError> {
        let keeper = Arc::clone(&self.keeper);
        let is_kept = move |history: &Session| {
            let kept = keeper.find(id);
            kept.map_or(Ok(()), |kept| kept.catch_up(|| Ok(history.clone())).map_err(|error| error.about(id)))
        };
        self.live.take_session_if(id, timeout, Box::new(is_kept))
    }

    pub(super) fn delete(&self, id: SessionId) -> Result<(), SessionError> {
        if !self.any(id).delete()? {
            return Err(SessionError::NotFound { id });
        }
        // Not there where it is not live.
        let _ = self.live.archive_with(id, ArchiveMode::Interrupt);
        Ok(())
    }

    /// Whoever works on the session, or the right to do so.
    fn any(&self, id: SessionId) -> Arc<Kept> {
        loop {
            // Both may fail in turn only while others come and go.
            if let Some(kept) = self.keeper.find(id).or_else(|| self.keeper.reserve(id)) {
                return kept;
            }
        }
    }

    pub(super) fn list_archived(&self, query: &SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        page(self.summaries(true)?, query)
    }

    /// Sessions that are kept and not live: those that are archived, or the others.
    fn summaries(&self, archived: bool) -> Result<Vec<SessionSummary>, SessionError> {
        let mut found = Vec::new();
        for summary in self.keeper.summaries()? {
            let summary = match summary {
                Ok(summary) => summary,
                Err(error) => {
                    log::warn!(target: "turnwise::store", "left out of a list: {error}");
                    continue;
                }
            };
            if summary.archived == archived {
                found.push(summary.into());
            }
        }
        Ok(found)
    }
}

impl<B: SessionAgentBuilder> SessionService for Inner<B> {
    fn create_session(&self, request: CreateSessionRequest) -> Result<RunResult, SessionError> {
        self.create(request, Live::begin_awaited_session)?.wait()
    }

    fn create_session_with(
        &self,
        request: CreateSessionRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let begin = |event_tx| self.create(request.event_tx(event_tx), Live::begin_awaited_session);
        follow(begin, on_event)
    }

    fn start_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<RunResult, SessionError> {
        let start = |live: &Live<B>, request| live.begin_awaited_turn(id, request);
        self.on_turn(id, request, start, Live::begin_awaited_session)?.wait()
    }

    fn start_turn_with(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let start = |live: &Live<B>, request| live.begin_awaited_turn(id, request);
        let begin = |event_tx| self.on_turn(id, request.event_tx(event_tx), start, Live::begin_awaited_session);
        follow(begin, on_event)
    }

    fn export_session(&self, id: SessionId) -> Result<Session, SessionError> {
        match self.live.export_session(id) {
            Err(SessionError::NotFound { .. }) => Ok(self.stored(id)?.history),
            exported => exported,
        }
    }

    fn begin_session(&self, request: CreateSessionRequest) -> Result<TurnHandle, SessionError> {
        self.create(request, Live::begin_session)
    }

    fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError> {
        self.on_turn(id, request, |live, request| live.begin_turn(id, request), Live::begin_session)
    }

    fn interrupt(&self, id: SessionId) -> Result<(), SessionError> {
        self.or_not_running(id, self.live.interrupt(id))
    }

    fn interrupt_turn(&self, id: SessionId, turn: TurnId) -> Result<(), SessionError> {
        self.or_not_running(id, self.live.interrupt_turn(id, turn))
    }

    fn read(&self, id: SessionId) -> Result<SessionView, SessionError> {
        match self.live.read(id) {
            Err(SessionError::NotFound { .. }) => self.stored(id).map(|stored| view(&stored)),
            read => read,
        }
    }

    fn list(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        let mut found = self.live.list(SessionQuery::new())?;
        let live: std::collections::HashSet<SessionId> = found.iter().map(|summary| summary.session_id).collect();
        let is_left = |summary: &SessionSummary| !live.contains(&summary.session_id);
        found.extend(self.summaries(false)?.into_iter().filter(is_left));
        page(found, &query)
    }

    fn archive_with(&self, id: SessionId, mode: ArchiveMode) -> Result<(), SessionError> {
        let kept = self.any(id);
        let was_open = kept.archive(mode)?;
        match self.live.archive_with(id, mode) {
            // It was not live, or about to end.
            Err(SessionError::NotFound { .. }) if was_open => Ok(()),
            // Whoever launches it just now finds out how it is to end.
            Err(SessionError::NotFound { .. }) if mode == ArchiveMode::Interrupt && kept.is_launching() => Ok(()),
            archived => archived,
        }
    }

    fn event_injector(&self, id: SessionId) -> Option<Arc<dyn SubscribableInjector>> {
        self.live.event_injector(id)
    }

    fn comms_runtime(&self, id: SessionId) -> Option<Arc<dyn CommsRuntime>> {
        self.live.comms_runtime(id)
    }

    fn subscribe(&self, id: SessionId, options: Subscription) -> Result<EventStream, SessionError> {
        self.live.subscribe(id, options)
    }

    fn open_session(&self, spec: SessionSpec) -> Result<SessionId, SessionError> {
        let mut launching = None;
        let opened = self.launch(spec, |live, spec| {
            launching = spec.extension_as::<Launch>().map(|launch| Arc::clone(&launch.kept));
            live.open_session(spec)
        });
        if let (Err(_), Some(kept)) = (&opened, launching.filter(|kept| !kept.is_archived())) {
            // An error means that there is no session. It may be built still, by a thread that nobody waits for any more.
            if let Err(error) = kept.delete() {
                log::warn!(target: "turnwise::store", "a session that could not be opened is kept: {error}");
            }
        }
        opened.map(|(_, id)| id)
    }

    fn export_session_timeout(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        match self.live.export_session_timeout(id, timeout) {
            Err(SessionError::NotFound { .. }) => Ok(self.stored(id)?.history),
            exported => exported,
        }
    }

    fn archive_wait(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        // Before anything is archived. A circle that is closed only now is found by the wait.
        self.live.refuse_circle(id)?;
        let kept = self.any(id);
        kept.archive(ArchiveMode::Drain)?;
        loop {
            match self.live.archive_wait(id, timeout) {
                // Whoever resumes it just now registers it in a moment, sees that it is archived, and closes it.
                Err(SessionError::NotFound { .. }) if kept.is_launching() => yield_now(),
                // It was not live, or has ended long ago.
                Err(SessionError::NotFound { .. }) => return Ok(()),
                waited => return waited,
            }
        }
    }

    fn take_session(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        loop {
            // Nobody works on it, so it is not live, and what is kept of it is the last word.
            if let Some(kept) = self.keeper.reserve(id) {
                return take_cold(&kept);
            }
            // Held from before the session ends until it is archived: nobody resumes it in between.
            let Some(kept) = self.keeper.find(id) else { continue };
            match self.take_live(id, timeout) {
                Ok((taken, _ended)) => {
                    kept.archive(ArchiveMode::Drain)?;
                    return Ok(taken);
                }
                // It has ended since, or somebody else works on it.
                Err(SessionError::NotFound { .. }) => {
                    drop(kept);
                    return match self.keeper.reserve(id) {
                        Some(kept) => take_cold(&kept),
                        None => Err(self.at_work(id)),
                    };
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl<B: SessionAgentBuilder> Inner<B> {
    fn or_not_running(&self, id: SessionId, interrupted: Result<(), SessionError>) -> Result<(), SessionError> {
        match interrupted {
            Err(SessionError::NotFound { .. }) if self.may_run_again(id)? => Err(SessionError::NotRunning { id }),
            interrupted => interrupted,
        }
    }

    /// Whether the session is kept and not archived. One that is archived is not there, as without a store, whether its thread
    /// has ended or not.
    fn may_run_again(&self, id: SessionId) -> Result<bool, SessionError> {
        Ok(!self.keeper.is_archived(id) && self.keeper.summary(id)?.is_some_and(|summary| !summary.archived))
    }
}

/// Takes a session that nobody else works on.
fn take_cold(kept: &Kept) -> Result<Session, SessionError> {
    let stored = kept.stored()?;
    kept.archive(ArchiveMode::Drain)?;
    Ok(stored.history)
}

/// A request once more, for where the first is not used. Dropped with the call, so that no receiver outlives its turn by it.
fn copy_of(request: &StartTurnRequest) -> StartTurnRequest {
    StartTurnRequest {
        prompt: request.prompt.clone(),
        event_tx: request.event_tx.clone(),
        host_mode: request.host_mode,
        skill_references: request.skill_references.clone(),
        timeout: request.timeout,
    }
}

fn view(stored: &StoredSession) -> SessionView {
    let SessionSnapshot { created_at, updated_at, message_count, total_tokens, usage, last_assistant_text } =
        SessionSnapshot::from(&stored.history);
    SessionView {
        state: SessionInfo {
            session_id: stored.id(),
            created_at,
            updated_at,
            message_count,
            turns: 0,
            is_active: false,
            state: if stored.archived { SessionState::Archived } else { SessionState::Idle },
            last_assistant_text,
        },
        billing: SessionUsage { total_tokens, usage },
    }
}

/// What a query asks for, of sessions in no order.
fn page(mut found: Vec<SessionSummary>, query: &SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
    found.sort_by_key(|summary| (summary.created_at, summary.session_id));
    let after = match query.after {
        None => 0,
        Some(id) => {
            let place = found.iter().position(|summary| summary.session_id == id);
            place.ok_or(SessionError::NotFound { id })? + 1
        }
    };
    let matches =
        |summary: &SessionSummary| query.labels.iter().all(|(name, value)| summary.labels.get(name) == Some(value));
    let rest = found.into_iter().skip(after).filter(matches).skip(query.offset.unwrap_or(0));
    Ok(rest.take(query.limit.unwrap_or(usize::MAX)).collect())
}
