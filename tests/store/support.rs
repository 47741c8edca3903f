//! Folders, files, stores and agents for the tests of kept sessions.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use turnwise::store::{
    Change, FileStore, PersistentSessionService, Revision, Save, SessionStore, StoreError, StoredSession, TurnEnd,
};
use turnwise::testkit::{within, Gate};
use turnwise::{
    agent_fn, builder_fn, AgentFn, CreateSessionRequest, Message, RunResult, Session, SessionAgentBuilder, SessionId,
    SessionService, StartTurnRequest, TurnContext, TurnHandle,
};

/// Longer than any call of these tests takes on a loaded machine.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Runs the body of a test under a watchdog, so that a test that hangs fails with a message.
#[track_caller]
pub(crate) fn run(body: impl FnOnce() + Send + 'static) {
    within(2 * LONG, body);
}

/// A new folder for one test, which is removed when the value is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("turnwise-store-{}", SessionId::new()));
        std::fs::create_dir(&path).expect("a place for files");
        Self(path)
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("sessions.redb")
    }

    pub(crate) fn store(&self) -> FileStore {
        FileStore::open(self.file()).expect("the store opens")
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A command that runs one test of this test program in a process of its own. An environment variable tells that
/// process what to do. A shell runs `preparation` first, because a umask and limits must be set before the start.
#[cfg(unix)]
pub(crate) fn process(test: &str, preparation: &str) -> std::process::Command {
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &format!("{preparation}\nexec \"$0\" \"$@\"")]);
    command.arg(std::env::current_exe().expect("this test's program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command
}

pub(crate) type Echo = AgentFn<fn(String, &TurnContext) -> Result<RunResult, turnwise::AgentError>>;

/// An agent that answers with its prompt. The prompt `fail` fails, and `panic` panics.
pub(crate) fn echo() -> Echo {
    agent_fn(|prompt, turn| match prompt.as_str() {
        "fail" => Err(turnwise::AgentError::Config("told to".into())),
        "panic" => panic!("told to"),
        _ => Ok(turn.finish(prompt)),
    })
}

pub(crate) fn keeping(folder: &Folder) -> PersistentSessionService<Echo> {
    PersistentSessionService::new(echo(), 4, folder.store())
}

pub(crate) fn create(prompt: &str) -> CreateSessionRequest {
    CreateSessionRequest::new(prompt)
}

pub(crate) fn turn(prompt: &str) -> StartTurnRequest {
    StartTurnRequest::new(prompt)
}

/// The texts of a history. Those of the agent begin with `= `.
pub(crate) fn said(history: &turnwise::Session) -> Vec<String> {
    let text = |message: &turnwise::Message| match message {
        turnwise::Message::User { content } | turnwise::Message::System { content } => content.clone(),
        turnwise::Message::Assistant { blocks, .. } => match blocks.as_slice() {
            [turnwise::AssistantBlock::Text { text }] => format!("= {text}"),
            other => panic!("{other:?}"),
        },
        turnwise::Message::ToolResults { .. } => panic!("no tools here"),
    };
    history.messages().iter().map(text).collect()
}

/// Records in memory, with their revisions.
#[derive(Clone, Default)]
pub(crate) struct Records(BTreeMap<SessionId, (StoredSession, Revision)>);

impl Records {
    pub(crate) fn save(&mut self, save: &Save<'_>) -> Result<(), StoreError> {
        let stored = self.0.get(&save.id()).cloned();
        if save.check(stored.as_ref().map(|(_, revision)| *revision))? {
            let session = save.applied_to(stored.map(|(session, _)| session))?;
            self.0.insert(save.id(), (session, save.next));
        }
        Ok(())
    }

    pub(crate) fn load(&self, id: SessionId) -> Option<(StoredSession, Revision)> {
        self.0.get(&id).cloned()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &StoredSession> {
        self.0.values().map(|(session, _)| session)
    }

    pub(crate) fn delete(&mut self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        match (self.0.get(&id), seen) {
            (Some((_, revision)), Some(seen)) if *revision != seen => Err(StoreError::Conflict { id }),
            _ => Ok(self.0.remove(&id).is_some()),
        }
    }
}

/// Saves a record in place of the stored one, whatever that is.
pub(crate) fn put(store: &impl SessionStore, session: &StoredSession) -> Result<(), StoreError> {
    let seen = store.load(session.id())?.map(|(_, revision)| revision);
    let header = session.header();
    let save = Save::new(&header, Change::Rewritten(&session.history), seen);
    store.save(&save)
}

/// A store in memory that counts its saves, and that a test can make fail.
#[derive(Default)]
pub(crate) struct Watched {
    kept: Mutex<Records>,
    pub(crate) saves: AtomicUsize,
    /// What each save was told: its turn's end, how many messages it appended, or `None` where it rewrote them.
    pub(crate) told: Mutex<Vec<(Option<TurnEnd>, Option<usize>)>>,
    pub(crate) fails: AtomicBool,
    /// A save writes the record, and reports a failure.
    pub(crate) lies: AtomicBool,
    pub(crate) panics: AtomicBool,
}

impl SessionStore for Watched {
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
        assert!(!self.panics.load(Ordering::SeqCst), "a store that panics");
        if self.fails.load(Ordering::SeqCst) {
            return Err(StoreError::failed("no space left"));
        }
        self.saves.fetch_add(1, Ordering::SeqCst);
        self.kept.lock().unwrap().save(save)?;
        let added = match save.change {
            Change::Appended(added) => Some(added.len()),
            Change::Rewritten(_) => None,
        };
        self.told.lock().unwrap().push((save.turn, added));
        match self.lies.load(Ordering::SeqCst) {
            true => Err(StoreError::failed("it took too long")),
            false => Ok(()),
        }
    }

    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
        Ok(self.kept.lock().unwrap().load(id))
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        Ok(self.kept.lock().unwrap().all().map(StoredSession::id).collect())
    }

    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        self.kept.lock().unwrap().delete(id, seen)
    }
}

/// A service with a [`Watched`] store, and that store.
pub(crate) fn watched() -> (PersistentSessionService<Echo>, Arc<Watched>) {
    let store = Arc::new(Watched::default());
    (PersistentSessionService::new(echo(), 4, Arc::clone(&store)), store)
}

/// As [`watched`], with a session whose turn waits at a gate and ignores its cancel token.
pub(crate) fn with_deaf_turn() -> (PersistentSessionService<impl SessionAgentBuilder>, Arc<Watched>, Gate, TurnHandle) {
    let (store, gate) = (Arc::new(Watched::default()), Gate::new());
    let service = PersistentSessionService::new(deaf(&gate), 4, Arc::clone(&store));
    let running = service.begin_session(create("one")).unwrap();
    gate.wait_arrived(1);
    (service, store, gate, running)
}

/// As [`echo`], with builds that wait at a gate.
pub(crate) fn held_builds(gate: &Gate) -> impl SessionAgentBuilder + use<> {
    let gate = gate.clone();
    builder_fn(move |spec, context| {
        gate.pass_regardless();
        echo().build_agent(spec, context)
    })
}

/// Agents whose turns wait at a gate and ignore their cancel tokens.
fn deaf(gate: &Gate) -> impl SessionAgentBuilder + use<> {
    let gate = gate.clone();
    agent_fn(move |prompt, turn| {
        gate.pass_regardless();
        Ok(turn.finish(prompt))
    })
}

/// Makes the same random saves in a store and in memory. Both must have the same records after each, and refuse the same
/// saves. `reopen` opens the store again.
pub(crate) fn check_random_saves<S: SessionStore>(mut store: S, reopen: impl Fn(S) -> S) {
    let model = Watched::default();
    let mut sessions: Vec<(StoredSession, Option<Revision>)> =
        (0..3).map(|_| (StoredSession::new(Session::new()), None)).collect();
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for step in 0..400 {
        let of = random(3);
        let (session, seen) = &mut sessions[of];
        let message = |n: usize| Message::user(format!("{step} {}", "text ".repeat(n)));
        let before = session.history.iter().len();
        let is_rewrite = seen.is_none() || random(8) == 0;
        if is_rewrite {
            let (from, len) = (random(before + 1), random(40));
            session.history.messages_mut().drain(from..);
            session.history.push_batch((0..len).map(message));
        } else {
            // Also no message, and one that is longer than a page.
            let len = random(4);
            let size = [0, 10, 300, 2_000][random(4)];
            session.history.push_batch((0..len).map(|_| message(size)));
        }
        let added: Vec<Message> = session.history.iter().skip(before).cloned().collect();
        let header = session.header();
        let change = if is_rewrite { Change::Rewritten(&session.history) } else { Change::Appended(&added) };
        let save = Save::new(&header, change, *seen);
        for _ in 0..1 + random(2) {
            store.save(&save).unwrap();
            model.save(&save).unwrap();
        }
        let late = Save::new(&header, change, *seen);
        assert!(matches!(store.save(&late), Err(StoreError::Conflict { .. })));
        *seen = Some(save.next);
        if random(10) == 0 {
            store = reopen(store);
        }
        for (session, _) in &sessions {
            let loaded = store.load(session.id()).unwrap();
            assert!(loaded == model.load(session.id()).unwrap(), "step {step}: {loaded:?}");
            assert!(loaded.is_none_or(|(loaded, _)| loaded == *session));
        }
    }
    for (session, seen) in sessions {
        let id = session.id();
        assert_eq!(store.delete(id, Some(Revision::new())).unwrap_err().code(), "STORE_CONFLICT");
        assert!(store.delete(id, seen).unwrap());
        assert_eq!(store.load(id).unwrap(), None);
    }
    assert!(store.list().unwrap().is_empty());
}
