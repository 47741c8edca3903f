//! A store on the server of an engine.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::ControlFlow;
use std::time::UNIX_EPOCH;

use serde::de::DeserializeOwned;
use serde::Serialize;
use uuid::Uuid;

use crate::model::{Message, Session, SessionId};
use crate::store::{Change, Revision, Save, SessionStore, StoreError, StoredHeader, StoredSession, StoredSummary};

use super::engine::{unexpected, Call, Engine};
use super::scripts::{self, Script};
use super::wire::Reply;

/// Stores sessions on the server of an [`Engine`]. Any number of services, on any machines, may share its sessions.
///
/// A save is one step of the server: it compares the revision, and writes header and messages. It sends the messages that
/// it adds, not the whole history. Whether it survives a crash of the server is a matter of the server's settings; the
/// [module](super) has a table. Concurrent calls share a connection and its round trips.
///
/// A service that saves a turn of a session which another service has changed gets a [`StoreError::Conflict`], as with
/// any store: its turn fails, and the session's next turn there loads the record. So let one service at a time work on a
/// session, for example by routing the callers of a session to one machine.
///
/// ```no_run
/// use std::time::Duration;
/// use turnwise::cluster::{Engine, EngineConfig, RedisStore};
/// use turnwise::store::PersistentSessionService;
/// use turnwise::{agent_fn, CreateSessionRequest, SessionService, StartTurnRequest};
///
/// let service = || {
///     let engine = Engine::open("redis://localhost", EngineConfig::new())?;
///     let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
///     Ok::<_, turnwise::cluster::EngineError>(PersistentSessionService::new(agent, 8, RedisStore::new(engine)))
/// };
/// let (one, other) = (service()?, service()?);
/// let id = one.create_session(CreateSessionRequest::new("hello"))?.session_id;
/// one.unload(id, Duration::from_secs(5))?;
/// assert_eq!(other.start_turn(id, StartTurnRequest::new("again"))?.text, "again");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// A failure of the engine is a [`StoreError::Failed`] with an [`EngineError`](super::EngineError):
///
/// ```
/// use turnwise::cluster::EngineError;
/// use turnwise::store::StoreError;
///
/// fn is_full(error: &StoreError) -> bool {
///     let StoreError::Failed(source) = error else { return false };
///     matches!(source.downcast_ref(), Some(EngineError::OutOfMemory))
/// }
/// # assert!(is_full(&StoreError::failed(EngineError::OutOfMemory)));
/// ```
///
/// # Blocking
/// Every call waits for the network. While the server does not answer, a call repeats itself for one
/// [lease](super::EngineConfig::lease), and may have to wait for as long behind the calls of other threads. Then it fails.
#[derive(Clone)]
pub struct RedisStore {
    engine: Engine,
}

/// The most sessions that one answer of the server lists.
const PAGE: usize = 500;

impl RedisStore {
    /// Creates a store of the sessions in the engine's namespace.
    pub fn new(engine: Engine) -> Self {
        Self { engine }
    }

    /// The engine of the store.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Lists the records, and makes each row an item.
    fn rows<T>(&self, mut item: impl FnMut(Row<'_>) -> T) -> Result<Vec<T>, StoreError> {
        let mut items = Vec::new();
        each_row(&self.engine, None, |row| {
            items.push(item(row));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(items)
    }
}

/// Reads the records behind a place, page by page, in the order of their creation.
pub(super) fn each_row(
    engine: &Engine,
    after: Option<(String, SessionId)>,
    mut each: impl FnMut(Row<'_>) -> Result<ControlFlow<()>, StoreError>,
) -> Result<(), StoreError> {
    let (mut created, mut id) = after.map_or_else(Default::default, |(created, id)| (created, id.to_string()));
    loop {
        let call = Call::new(&scripts::LIST).arg(created.as_str()).arg(id.as_str()).arg(PAGE.to_string());
        let answer = engine.read(call).map_err(StoreError::failed)?;
        let Some([_, rows @ ..]) = answer.list().filter(|_| answer.is_list_of("ok")) else {
            return Err(StoreError::failed(unexpected(&scripts::LIST)));
        };
        for row in rows {
            let row = Row::new(row).ok_or_else(|| StoreError::failed(unexpected(&scripts::LIST)))?;
            (created, id) = (row.created.to_owned(), row.id.to_owned());
            if each(row)?.is_break() {
                return Ok(());
            }
        }
        if rows.len() < PAGE {
            return Ok(());
        }
    }
}

/// The record of a session as `summary` reads it; `None` if there is none.
pub(super) fn with_row<T>(
    engine: &Engine,
    id: SessionId,
    read: impl FnOnce(Row<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    let answer = engine.read(Call::new(&scripts::SUMMARY).arg(id.to_string())).map_err(StoreError::failed)?;
    match answer.list() {
        Some([_]) if answer.is_list_of("none") => Ok(None),
        Some([_, row]) if answer.is_list_of("ok") => {
            let row = Row::new(row).ok_or_else(|| StoreError::failed(unexpected(&scripts::SUMMARY)))?;
            read(row).map(Some)
        }
        _ => Err(StoreError::failed(unexpected(&scripts::SUMMARY))),
    }
}

/// One record of a list.
pub(super) struct Row<'a> {
    id: &'a str,
    /// When it was made, in milliseconds.
    pub(super) created: &'a str,
    summary: &'a [u8],
    labels: &'a [u8],
    archived: &'a [u8],
    /// The turns in flight, separated by spaces.
    pub(super) flight: &'a [u8],
    fault: &'a [u8],
}

impl<'a> Row<'a> {
    fn new(row: &'a Reply) -> Option<Self> {
        let words = row.words()?;
        let &[id, created, summary, labels, archived, flight, fault] = words.as_slice() else { return None };
        let (id, created) = (std::str::from_utf8(id).ok()?, std::str::from_utf8(created).ok()?);
        Some(Self { id, created, summary, labels, archived, flight, fault })
    }

    /// The id; `None` if it is none of this crate's.
    pub(super) fn session_id(&self) -> Option<SessionId> {
        self.id.parse().ok()
    }

    pub(super) fn is_faulted(&self) -> bool {
        self.fault == b"1"
    }

    pub(super) fn summary(&self, id: SessionId) -> Result<StoredSummary, StoreError> {
        let mut summary: StoredSummary = from_json(id, "summary", self.summary)?;
        check_id(id, summary.session_id)?;
        summary.labels = labels(id, self.labels)?.into();
        summary.archived = self.archived == b"1";
        Ok(summary)
    }
}

impl SessionStore for RedisStore {
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
        let id = save.id();
        let call = Call::new(&scripts::SAVE).arg(id.to_string()).args(record(save)?);
        let answer = self.engine.write(call).map_err(StoreError::failed)?;
        saved(&scripts::SAVE, save, &answer)
    }

    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
        let answer = self.engine.read(Call::new(&scripts::LOAD).arg(id.to_string())).map_err(StoreError::failed)?;
        if answer.is_list_of("none") {
            return Ok(None);
        }
        let Some([_, revision, header, own_labels, archived, messages]) =
            answer.list().filter(|_| answer.is_list_of("ok"))
        else {
            return Err(StoreError::failed(unexpected(&scripts::LOAD)));
        };
        let text = |reply: &Reply| reply.text().map(<[u8]>::to_vec).unwrap_or_default();
        let revision = std::str::from_utf8(&text(revision)).ok().and_then(|text| text.parse::<Uuid>().ok());
        let revision = revision.map(Revision::from_uuid).ok_or_else(|| corrupt(id, "its revision is none".into()))?;
        let header = header_of(id, &text(header), &text(own_labels), &text(archived))?;
        let messages = messages.words().unwrap_or_default();
        let messages: Vec<Message> =
            messages.into_iter().map(|text| from_json(id, "message", text)).collect::<Result<_, _>>()?;
        Ok(Some((StoredSession::from_parts(header, messages)?, revision)))
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        Ok(self.rows(|row| row.session_id())?.into_iter().flatten().collect())
    }

    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        with_row(&self.engine, id, |row| row.summary(id))
    }

    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        Ok(self.rows(|row| row.session_id().map(|id| row.summary(id)))?.into_iter().flatten().collect())
    }

    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        let seen = seen.map(|seen| seen.to_string()).unwrap_or_default();
        let request = Uuid::now_v7().to_string();
        let call = Call::new(&scripts::DELETE).arg(id.to_string()).arg(request).arg(seen);
        let answer = self.engine.write(call).map_err(StoreError::failed)?;
        match answer.words().as_deref() {
            Some([b"ok", existed]) => Ok(*existed == b"1"),
            Some([b"conflict"]) => Err(StoreError::Conflict { id }),
            _ => Err(StoreError::failed(unexpected(&scripts::DELETE))),
        }
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("engine", &self.engine).finish()
    }
}

/// Reads the answer of a step that writes a record.
pub(super) fn saved(script: &'static Script, save: &Save<'_>, answer: &Reply) -> Result<(), StoreError> {
    let id = save.id();
    match answer.words().as_deref() {
        Some([b"ok" | b"already", ..]) => Ok(()),
        Some([b"conflict"]) => Err(StoreError::Conflict { id }),
        Some([b"damaged", kept]) => {
            let kept = String::from_utf8_lossy(kept);
            let reason = format!("it has {kept} messages, and the save is about {}", save.header.message_count);
            Err(StoreError::Corrupt { id, reason })
        }
        _ => Err(StoreError::failed(unexpected(script))),
    }
}

/// The arguments of a record; `write_record` in `scripts/common.lua` describes them.
pub(super) fn record(save: &Save<'_>) -> Result<Vec<Vec<u8>>, StoreError> {
    let header = save.header;
    let (stored, messages): (String, Vec<Vec<u8>>) = match save.change {
        Change::Appended(added) => {
            // More than there are is damage, which the server finds.
            let stored = header.message_count.checked_sub(added.len());
            let encoded = added.iter().map(json).collect::<Result<_, _>>()?;
            (stored.map_or_else(|| "none".into(), |stored| stored.to_string()), encoded)
        }
        Change::Rewritten(history) => (String::new(), history.iter().map(json).collect::<Result<_, _>>()?),
    };
    let created = header.created_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    let seen = save.seen.map(|seen| seen.to_string()).unwrap_or_default();
    let mut args: Vec<Vec<u8>> = [seen, save.next.to_string(), stored, created.to_string()].map(Vec::from).into();
    args.extend([json(header)?, json(&header.summary())?, json(&header.labels)?]);
    args.push(if header.archived { b"1".to_vec() } else { b"0".to_vec() });
    args.push(header.numbers.turns_reserved.to_string().into_bytes());
    args.extend(messages);
    Ok(args)
}

/// The header of a record. Its own labels and archive stand over those in the text.
pub(super) fn header_of(id: SessionId, text: &[u8], own: &[u8], archived: &[u8]) -> Result<StoredHeader, StoreError> {
    let mut header: StoredHeader = from_json(id, "header", text)?;
    check_id(id, header.session_id)?;
    header.labels = labels(id, own)?;
    header.archived = archived == b"1";
    if header.format_version > Session::FORMAT_VERSION {
        let (version, supported) = (header.format_version, Session::FORMAT_VERSION);
        return Err(StoreError::Newer { id, version, supported });
    }
    Ok(header)
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::failed)
}

pub(super) fn from_json<T: DeserializeOwned>(id: SessionId, what: &str, text: &[u8]) -> Result<T, StoreError> {
    // The error of a parser may quote the text, so it is not passed on.
    serde_json::from_slice(text).map_err(|_| corrupt(id, format!("its {what} cannot be read")))
}

fn labels(id: SessionId, text: &[u8]) -> Result<BTreeMap<String, String>, StoreError> {
    from_json(id, "labels", text)
}

fn check_id(id: SessionId, found: SessionId) -> Result<(), StoreError> {
    match found == id {
        true => Ok(()),
        false => Err(corrupt(id, format!("it is that of session {found}"))),
    }
}

fn corrupt(id: SessionId, reason: String) -> StoreError {
    StoreError::Corrupt { id, reason }
}
