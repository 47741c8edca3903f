//! The calls of the persistent service: on the live session if there is one, otherwise on its record.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::time::Duration;

use crate::agent::SessionAgentBuilder;
use crate::comms::CommsRuntime;
use crate::ephemeral::started::event_channel;
use crate::error::SessionError;
use crate::ids::numbers::LastNumbers;
use crate::inbox::injector::{InteractionSubscription, SubscribableInjector};
use crate::model::{
    AgentEvent, InputId, InputResponse, InteractionContent, InteractionId, PendingInput, RunResult, Session, SessionId,
    SessionSnapshot, TurnId,
};
use crate::panics::record;
use crate::service::{
    ArchiveMode, CreateSessionRequest, RefusedTurn, SessionInfo, SessionQuery, SessionService, SessionSpec,
    SessionState, SessionSummary, SessionUsage, SessionView, StartTurnRequest,
};
use crate::session::command::Taken;
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{yield_now, Arc};
use crate::turn::handle::TurnHandle;

use super::agent::Launch;
use super::error::{discard, Loggable};
use super::kept::RecordLease;
use super::launch::still_ending;
use super::record::StoredSession;
use super::service::Inner;

/// The lease of the record that a call works on.
enum Lease {
    /// The session is live, or is being launched: the lease is shared with it.
    Live(Arc<RecordLease>),
    /// No session uses the record.
    Stored(Arc<RecordLease>),
}

impl Deref for Lease {
    type Target = RecordLease;

    fn deref(&self) -> &RecordLease {
        let (Self::Live(lease) | Self::Stored(lease)) = self;
        lease
    }
}

impl Lease {
    /// Drops this share of the lease. After the last share the lease is free.
    fn drop_share(self) {
        let (Self::Live(lease) | Self::Stored(lease)) = self;
        lease.drop_share();
    }
}

impl<B: SessionAgentBuilder> Inner<B> {
    /// The record of a session that is not in the ephemeral service.
    fn stored(&self, id: SessionId) -> Result<StoredSession, SessionError> {
        let (stored, _) = self.table.load(id)?.ok_or(SessionError::NotFound { id })?;
        Ok(stored)
    }

    /// The history of a session that is not open in the ephemeral service, and its boundary. Events of the next life
    /// have higher numbers.
    ///
    /// The record of a session in use has numbers that are reserved and not used yet. A boundary among them would hide
    /// events. So the boundary of a life is that of its committed history, and the record has it only before the life
    /// and after it:
    ///
    /// - A life that is not registered yet has reserved nothing: [`launch`](crate::ephemeral::launch) registers first.
    /// - A life that has ended has written its exact numbers before it leaves the registry.
    fn stored_history_at(&self, id: SessionId) -> Result<(Session, u64), SessionError> {
        loop {
            let lease = self.lease(id)?;
            let recorded = lease.recorded_history()?;
            if let Lease::Live(lease) = &lease {
                if lease.is_lost() {
                    let StoredSession { history, numbers, .. } = self.stored(id)?;
                    return Ok((history, numbers.reserved().event));
                }
                if let Some(life) = self.live.life(id) {
                    return Ok(life.history_at());
                }
                if !recorded.is_over && lease.recorded_history()?.is_over {
                    // The life has begun before the record was read, and has ended since.
                    continue;
                }
            }
            return Ok((recorded.history, recorded.last_event));
        }
    }

    pub(super) fn resume(&self, id: SessionId) -> Result<(), SessionError> {
        let mut room = None;
        loop {
            match self.live.read(id) {
                // Another thread builds the session, which may fail.
                Ok(view) if view.state.state == SessionState::Building => {
                    return Err(SessionError::Busy { id, turn: None });
                }
                Ok(_) => return Ok(()),
                Err(_) => {
                    if let Some((spec, launch)) = self.launch_stored_with_room(id, &mut room)? {
                        let opened = self.live.open_session(spec).map_err(still_ending);
                        launch.finish();
                        return opened.map(drop);
                    }
                }
            }
        }
    }

    /// Makes a session live for a call that needs a live session, if the service unloads sessions by itself. Returns whether
    /// the caller should look again.
    fn resume_unloaded(&self, id: SessionId) -> Result<bool, SessionError> {
        if !self.unloads() {
            return Ok(false);
        }
        match self.resume(id) {
            Ok(()) => Ok(true),
            // Another thread builds it, or has unloaded it again.
            Err(SessionError::Busy { .. }) if self.is_in_motion(id) => {
                yield_now();
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn unload(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let ended = match self.take_live(id, timeout) {
            Ok((_, ended)) => ended,
            // It may still be ending.
            Err(SessionError::NotFound { id }) => {
                self.table.summary(id)?.ok_or(SessionError::NotFound { id })?;
                self.live.wait_until_ended(id, timeout)
            }
            Err(error) => return Err(error),
        };
        ended.map_err(|error| match error {
            SessionError::Timeout { id, waited } => SessionError::Ending { id, waited },
            error => error,
        })
    }

    /// Takes a live session after its history is saved. If the save fails, the session stays.
    fn take_live(&self, id: SessionId, timeout: Duration) -> Result<Taken, SessionError> {
        let table = Arc::clone(&self.table);
        let save = move |history: &Session| {
            let lease = table.find(id);
            lease.map_or(Ok(()), |lease| lease.catch_up(|| Ok(history.clone())).map_err(|error| error.about(id)))
        };
        self.live.take_session_if(id, timeout, Box::new(save))
    }

    pub(super) fn delete(&self, id: SessionId) -> Result<(), SessionError> {
        let lease = self.lease(id)?;
        if !lease.delete()? {
            return Err(SessionError::NotFound { id });
        }
        // Found while this share keeps the lease from the next launch. Closed after the share is dropped, because a
        // close runs the agent's cancel hooks.
        let life = self.live.life(id);
        lease.drop_share();
        if let Some(life) = life {
            let _ = life.archive(ArchiveMode::Interrupt);
        }
        Ok(())
    }

    /// The lease of a live session, or the reserved lease of a stored one.
    fn lease(&self, id: SessionId) -> Result<Lease, SessionError> {
        loop {
            // Both fail only while lives of the session begin and end at that moment.
            if let Some(lease) = self.table.find(id) {
                return Ok(Lease::Live(lease));
            }
            if let Some(lease) = self.table.reserve(id)? {
                return Ok(Lease::Stored(lease));
            }
        }
    }

    pub(super) fn list_archived(&self, query: &SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        self.page(self.summaries(true)?, query)
    }

    /// The stored sessions that are archived, or those that are not. The latter include live sessions.
    fn summaries(&self, archived: bool) -> Result<Vec<SessionSummary>, SessionError> {
        let mut found = Vec::new();
        for summary in self.table.summaries()? {
            let summary = match summary {
                Ok(summary) => summary,
                Err(error) => {
                    record!(Warn, "turnwise::store", "a record is left out of a list: {}", Loggable(&error));
                    discard(error);
                    continue;
                }
            };
            if summary.archived == archived {
                let mut summary = SessionSummary::from(summary);
                if self.is_running(summary.session_id) {
                    show_running(&mut summary.state, &mut summary.is_active);
                }
                found.push(summary);
            }
        }
        Ok(found)
    }

    /// Sorts the sessions, and returns the page that the query asks for.
    fn page(&self, mut found: Vec<SessionSummary>, query: &SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        let place = |summary: &SessionSummary| (summary.created_at, summary.session_id);
        found.sort_by_key(place);
        let after = match query.after {
            None => 0,
            Some(id) => {
                let cursor = found.iter().find(|summary| summary.session_id == id).map(place);
                // Archived since the last page, or listed by the other call: its creation time still places the cursor.
                let cursor = match cursor {
                    None => self.table.summary(id)?.map(|stored| (stored.created_at, id)),
                    cursor => cursor,
                };
                let cursor = cursor.ok_or(SessionError::NotFound { id })?;
                found.partition_point(|summary| place(summary) <= cursor)
            }
        };
        let matches =
            |summary: &SessionSummary| query.labels.iter().all(|(name, value)| summary.labels.get(name) == Some(value));
        let rest = found.into_iter().skip(after).filter(matches).skip(query.offset.unwrap_or(0));
        Ok(rest.take(query.limit.unwrap_or(usize::MAX)).collect())
    }
}

impl<B: SessionAgentBuilder> SessionService for Inner<B> {
    fn create_session(&self, request: CreateSessionRequest) -> Result<RunResult, SessionError> {
        self.prepare_new(request)?.start_with_wait()?.wait()
    }

    fn create_session_with(
        &self,
        request: CreateSessionRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let (event_tx, events) = event_channel();
        self.prepare_new(request.event_tx(event_tx))?.start_with_wait()?.follow(events, on_event)
    }

    fn start_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<RunResult, SessionError> {
        self.start_with_wait(id, request)?.wait()
    }

    fn start_turn_with(
        &self,
        id: SessionId,
        request: StartTurnRequest,
        on_event: &mut dyn FnMut(AgentEvent),
    ) -> Result<RunResult, SessionError> {
        let (event_tx, events) = event_channel();
        self.start_with_wait(id, request.event_tx(event_tx))?.follow(events, on_event)
    }

    fn export_session(&self, id: SessionId) -> Result<Session, SessionError> {
        match self.live.export_session(id) {
            Err(SessionError::NotFound { .. }) => Ok(self.stored(id)?.history),
            exported => exported,
        }
    }

    fn begin_session(&self, request: CreateSessionRequest) -> Result<TurnHandle, SessionError> {
        self.prepare_new(request)?.start()
    }

    fn begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, SessionError> {
        Ok(self.begin(id, request)?)
    }

    #[allow(clippy::result_large_err)] // See the trait.
    fn try_begin_turn(&self, id: SessionId, request: StartTurnRequest) -> Result<TurnHandle, RefusedTurn> {
        self.begin(id, request)
    }

    fn interrupt(&self, id: SessionId) -> Result<(), SessionError> {
        self.or_not_running(id, self.live.interrupt(id))
    }

    fn interrupt_turn(&self, id: SessionId, turn: TurnId) -> Result<(), SessionError> {
        self.or_not_running(id, self.live.interrupt_turn(id, turn))
    }

    fn interrupt_interaction(&self, id: SessionId, interaction: InteractionId) -> Result<(), SessionError> {
        self.or_not_running(id, self.live.interrupt_interaction(id, interaction))
    }

    fn respond(&self, id: SessionId, input: InputId, response: InputResponse) -> Result<(), SessionError> {
        match self.live.respond(id, input, response) {
            // A request ends with the life of its session.
            Err(SessionError::NotFound { .. }) if self.is_stored(id)? => {
                Err(SessionError::InputNotPending { id, input })
            }
            responded => responded,
        }
    }

    fn pending_inputs(&self, id: SessionId) -> Result<Vec<PendingInput>, SessionError> {
        match self.live.pending_inputs(id) {
            Err(SessionError::NotFound { .. }) if self.is_stored(id)? => Ok(Vec::new()),
            pending => pending,
        }
    }

    fn steer(
        &self,
        id: SessionId,
        turn: Option<TurnId>,
        content: InteractionContent,
    ) -> Result<InteractionSubscription, SessionError> {
        self.or_not_running(id, self.live.steer(id, turn, content))
    }

    fn read(&self, id: SessionId) -> Result<SessionView, SessionError> {
        match self.live.read(id) {
            Err(SessionError::NotFound { .. }) => {
                // Before the record is read: it has the exact numbers only after the end of the life.
                let life = self.live.life(id);
                let mut view = self.stored(id).map(|stored| view(&stored))?;
                if let Some(life) = life {
                    let LastNumbers { turn, event } = life.last_numbers();
                    (view.state.turns, view.state.last_seq) = (turn, event);
                    if life.is_running() {
                        show_running(&mut view.state.state, &mut view.state.is_active);
                    }
                }
                Ok(view)
            }
            read => read,
        }
    }

    fn history_at(&self, id: SessionId) -> Result<(Session, u64), SessionError> {
        match self.live.history_at(id) {
            Err(SessionError::NotFound { .. }) => self.stored_history_at(id),
            read => read,
        }
    }

    fn list(&self, query: SessionQuery) -> Result<Vec<SessionSummary>, SessionError> {
        let mut found = self.live.list(SessionQuery::new())?;
        let live: std::collections::HashSet<SessionId> = found.iter().map(|summary| summary.session_id).collect();
        let is_left = |summary: &SessionSummary| !live.contains(&summary.session_id);
        found.extend(self.summaries(false)?.into_iter().filter(is_left));
        self.page(found, &query)
    }

    fn set_labels(&self, id: SessionId, labels: BTreeMap<String, String>) -> Result<(), SessionError> {
        let lease = self.lease(id)?;
        lease.set_labels(&labels)?;
        // A launch in progress may have read the labels from before. It registers its session in a moment.
        while !lease.with_labels(|labels| self.live.set_labels(id, labels.clone())).is_ok_and(|set| set.is_ok())
            && lease.standing().is_launching()
        {
            yield_now();
        }
        // If another writer has changed the record, the session is out of date, and ends unsaved.
        let life = self.live.life(id).filter(|_| lease.is_lost());
        lease.drop_share();
        if let Some(life) = life {
            let _ = life.archive(ArchiveMode::Drain);
        }
        Ok(())
    }

    fn archive_with(&self, id: SessionId, mode: ArchiveMode) -> Result<(), SessionError> {
        let lease = self.lease(id)?;
        let was_open = lease.archive(mode)?.was_open;
        // Found while this share keeps the lease from the next launch. Closed after the share is dropped, because a
        // close runs the agent's cancel hooks.
        let (life, standing) = (self.live.life(id), Arc::clone(lease.standing()));
        lease.drop_share();
        match life.map_or(Err(SessionError::NotFound { id }), |life| life.archive(mode)) {
            // It was not live, or is about to end.
            Err(SessionError::NotFound { .. }) if was_open => Ok(()),
            // The launch in progress reads the mode and archives the session.
            Err(SessionError::NotFound { .. }) if mode == ArchiveMode::Interrupt && standing.is_launching() => Ok(()),
            Err(SessionError::NotFound { id }) => Err(SessionError::Archived { id }),
            archived => archived,
        }
    }

    fn event_injector(&self, id: SessionId) -> Option<Arc<dyn SubscribableInjector>> {
        loop {
            let injector = self.live.event_injector(id);
            if injector.is_some() || !self.resume_unloaded(id).unwrap_or(false) {
                return injector;
            }
        }
    }

    fn comms_runtime(&self, id: SessionId) -> Option<Arc<dyn CommsRuntime>> {
        loop {
            let comms = self.live.comms_runtime(id);
            if comms.is_some() || self.is_open(id) || !self.resume_unloaded(id).unwrap_or(false) {
                return comms;
            }
        }
    }

    fn subscribe(&self, id: SessionId, options: Subscription) -> Result<EventStream, SessionError> {
        loop {
            match self.live.subscribe(id, options.clone()) {
                Err(SessionError::NotFound { .. }) if self.is_archived(id)? => {
                    return Err(SessionError::Archived { id });
                }
                Err(error @ SessionError::NotFound { .. }) if !self.resume_unloaded(id)? => return Err(error),
                Err(SessionError::NotFound { .. }) => {}
                subscribed => return subscribed,
            }
        }
    }

    fn open_session(&self, spec: SessionSpec) -> Result<SessionId, SessionError> {
        let (spec, launch) = self.launch_new(spec)?;
        let lease = spec.extension_as::<Launch>().map(|launch| Arc::clone(&launch.lease));
        let opened = self.live.open_session(spec);
        launch.finish();
        if let (Err(_), Some(lease)) = (&opened, lease.filter(|lease| !lease.standing().is_closed())) {
            // An error means that there is no session. The session thread may still build it, but no caller waits for
            // it.
            lease.withdraw("opened");
        }
        opened
    }

    fn export_session_timeout(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        match self.live.export_session_timeout(id, timeout) {
            Err(SessionError::NotFound { .. }) => Ok(self.stored(id)?.history),
            exported => exported,
        }
    }

    fn archive_wait(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        // Before anything is archived. A cycle that is closed only afterwards is found by the wait.
        self.live.refuse_circle(id)?;
        let lease = self.lease(id)?;
        lease.archive(ArchiveMode::Drain)?;
        let life = loop {
            match self.live.life(id) {
                // The launch in progress registers it in a moment.
                None if lease.standing().is_launching() => yield_now(),
                life => break life,
            }
        };
        // Dropped before the wait, so that other callers can use the record meanwhile.
        lease.drop_share();
        // Without a life the session was not live, or has ended.
        life.map_or(Ok(()), |life| life.archive_wait(timeout))
    }

    fn wait_idle(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        let waiting = self.live.stopwatch();
        match self.live.wait_idle(id, timeout) {
            Err(SessionError::NotFound { .. }) if self.is_archived(id)? => Err(SessionError::Archived { id }),
            Err(SessionError::NotFound { .. }) if self.is_shut_down_in_turn(id) => Err(SessionError::NotFound { id }),
            Err(SessionError::NotFound { .. }) if self.is_stored(id)? => match self.live.life(id) {
                // It is being unloaded in host mode, which ends in a moment.
                Some(life) if life.is_running() => life.wait_until_ended(&waiting, timeout),
                // It is not live, or has been unloaded meanwhile: no turn of it is admitted.
                _ => Ok(()),
            },
            idle => idle,
        }
    }

    fn restart(&self, id: SessionId, timeout: Duration) -> Result<(), SessionError> {
        match self.live.restart(id, timeout) {
            Err(SessionError::NotFound { .. }) if self.is_archived(id)? => Err(SessionError::Archived { id }),
            // It is not live: its next turn builds its agent.
            Err(SessionError::NotFound { .. }) if self.is_stored(id)? => Err(SessionError::NotFaulted { id }),
            restarted => restarted,
        }
    }

    fn take_session(&self, id: SessionId, timeout: Duration) -> Result<Session, SessionError> {
        let waiting = self.live.stopwatch();
        loop {
            let lease = match self.lease(id)? {
                // The record is final.
                Lease::Stored(lease) => return take_stored(&lease),
                // Held from before the end of the session until it is archived, so that no caller resumes it in between.
                Lease::Live(lease) => lease,
            };
            match self.take_live(id, timeout) {
                // If another writer has changed the record, it is that record which is archived and taken.
                Ok((taken, _ended)) => return Ok(lease.archive(ArchiveMode::Drain)?.reloaded.unwrap_or(taken)),
                // It has ended since, or is being launched.
                Err(SessionError::NotFound { .. }) => {
                    lease.drop_share();
                    if self.wait_for_unload(id, &waiting, timeout)? || (self.unloads() && self.is_open(id)) {
                        continue;
                    }
                    let lease = self.table.reserve(id)?.ok_or_else(|| self.table.refusal(id))?;
                    return take_stored(&lease);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl<B: SessionAgentBuilder> Inner<B> {
    fn or_not_running<T>(&self, id: SessionId, called: Result<T, SessionError>) -> Result<T, SessionError> {
        match called {
            Err(SessionError::NotFound { .. }) if self.is_archived(id)? => Err(SessionError::Archived { id }),
            Err(SessionError::NotFound { .. }) if self.is_shut_down_in_turn(id) => Err(SessionError::NotFound { id }),
            Err(SessionError::NotFound { .. }) if self.is_stored(id)? => Err(SessionError::NotRunning { id }),
            called => called,
        }
    }

    /// Whether a shutdown has closed the session while a turn was admitted, and the turn has not ended.
    fn is_shut_down_in_turn(&self, id: SessionId) -> bool {
        self.live.is_shut_down() && self.is_running(id)
    }

    /// Whether a turn of the session is admitted, also after the session was closed.
    fn is_running(&self, id: SessionId) -> bool {
        self.live.life(id).is_some_and(|life| life.is_running())
    }

    /// Whether the session is stored and archived, whether its thread has ended or not.
    fn is_archived(&self, id: SessionId) -> Result<bool, SessionError> {
        Ok(self.table.is_archived(id) || self.table.summary(id)?.is_some_and(|summary| summary.archived))
    }

    fn is_stored(&self, id: SessionId) -> Result<bool, SessionError> {
        Ok(!self.table.is_deleted(id) && self.table.summary(id)?.is_some())
    }
}

/// Takes a stored session that is not live.
fn take_stored(lease: &RecordLease) -> Result<Session, SessionError> {
    let stored = lease.stored()?;
    Ok(lease.archive(ArchiveMode::Drain)?.reloaded.unwrap_or(stored.history))
}

/// Shows the last turn of a session that is closed: its record does not tell.
fn show_running(state: &mut SessionState, is_active: &mut bool) {
    *is_active = true;
    if *state == SessionState::Idle {
        *state = SessionState::Running;
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
            turns: stored.numbers.turns,
            is_active: false,
            state: if stored.archived { SessionState::Archived } else { SessionState::Idle },
            last_assistant_text,
            pending_inputs: 0,
            queued_turns: 0,
            callback_pending: stored.callback_pending.clone(),
            turn_started_at: None,
            last_seq: stored.numbers.events,
        },
        billing: SessionUsage { total_tokens, usage },
        model: stored.model.as_str().into(),
        labels: stored.labels.clone().into(),
    }
}
