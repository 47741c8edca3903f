//! The store of a worker's sessions: every save carries the fence, and the save at the end of a turn answers its clients.

use crate::model::SessionId;
use crate::store::{Revision, Save, SessionStore, StoreError, StoredSession, StoredSummary, TurnOutcome};
use crate::sync::Arc;

use super::super::engine::{Call, Engine};
use super::super::messages::{Failure, Verdict};
use super::super::scripts::{self, Script};
use super::super::store::{record, saved, RedisStore};
use super::super::wire::Reply;
use super::hosting::{Ending, Hosted, Hosting, Owner};

pub(super) struct HostedStore {
    pub(super) plain: RedisStore,
    pub(super) hosting: Arc<Hosting>,
    /// Whether a panic leaves the session faulted. Not if the worker restarts its sessions itself.
    pub(super) marks_faults: bool,
}

impl HostedStore {
    fn engine(&self) -> &Engine {
        self.plain.engine()
    }

    /// A save at the end of no turn.
    fn keep(&self, owner: &Owner, save: &Save<'_>) -> Result<(), StoreError> {
        let call = fenced(&scripts::KEEP, save.id(), owner).args(numbered(save)?);
        let answer = self.engine().write(call).map_err(StoreError::failed)?;
        saved(&scripts::KEEP, save, &answer)
    }

    /// The save at the end of a turn: history and result in one step.
    fn finish(&self, hosted: &Hosted, owner: &Owner, save: &Save<'_>, ending: Ending) -> Result<(), StoreError> {
        let Some(end) = save.turn else { return self.keep(owner, save) };
        let fault = match (&ending.verdict, end.outcome) {
            (Err(Failure::Faulted { message }), TurnOutcome::Faulted) if self.marks_faults => match message.as_str() {
                // An empty text stands for no fault.
                "" => "it panicked",
                message => message,
            },
            _ => "",
        };
        let call = finish(save.id(), owner, end.turn_id.get(), &ending.request, &ending.verdict, fault)?;
        let answer = self.engine().write(call.args(numbered(save)?)).map_err(StoreError::failed)?;
        saved(&scripts::FINISH, save, &answer)?;
        hosted.set_answered(end.turn_id, has_more(&answer));
        Ok(())
    }
}

impl SessionStore for HostedStore {
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
        let id = save.id();
        // A session of an agent's own, which the engine has given to no worker.
        let Some(hosted) = self.hosting.find(id) else { return self.plain.save(save) };
        let Some(owner) = hosted.owner() else { return Err(StoreError::Conflict { id }) };
        match save.turn.and_then(|end| hosted.ending(end)) {
            Some(ending) => self.finish(&hosted, &owner, save, ending),
            None => self.keep(&owner, save),
        }
    }

    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
        let Some((mut stored, revision)) = self.plain.load(id)? else { return Ok(None) };
        if let Some(hosted) = self.hosting.find(id) {
            // The engine gives the numbers of turns out, and has accepted this one although the session may be archived
            // since.
            stored.archived = false;
            let used = hosted.next_turn().checked_sub(1).unwrap_or(stored.numbers.turns);
            stored.numbers.turns = stored.numbers.turns.min(used);
            stored.numbers.turns_reserved = used;
        }
        Ok(Some((stored, revision)))
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        self.plain.list()
    }

    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        let summary = self.plain.summary(id)?;
        let is_hosted = self.hosting.find(id).is_some();
        Ok(summary.map(|summary| StoredSummary { archived: summary.archived && !is_hosted, ..summary }))
    }

    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        self.plain.summaries()
    }

    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        self.plain.delete(id, seen)
    }
}

/// A script that only the owner of the session may run.
pub(super) fn fenced(script: &'static Script, id: SessionId, owner: &Owner) -> Call {
    Call::new(script).arg(id.to_string()).arg(&*owner.wid).arg(&*owner.epoch)
}

/// The end of a turn with its result, without a record.
pub(super) fn finish(
    id: SessionId,
    owner: &Owner,
    turn: u64,
    request: &str,
    verdict: &Verdict,
    fault: &str,
) -> Result<Call, StoreError> {
    let body = serde_json::to_vec(verdict).map_err(StoreError::failed)?;
    Ok(fenced(&scripts::FINISH, id, owner).arg(turn.to_string()).arg(request).arg(body).arg(fault))
}

/// The arguments of a record. The engine counts the turns, so the numbers reserved here are not its.
fn numbered(save: &Save<'_>) -> Result<Vec<Vec<u8>>, StoreError> {
    const LAST_TURN: usize = 8;
    let mut args = record(save)?;
    if let Some(last) = args.get_mut(LAST_TURN) {
        *last = b"0".to_vec();
    }
    Ok(args)
}

/// Whether turns are left in flight. After a repeated call that is not known.
fn has_more(answer: &Reply) -> bool {
    !matches!(answer.words().as_deref(), Some([b"ok", _, b""]))
}
