//! The costs of kept sessions: turns that are on the disk before their results are returned. The floor is bare
//! transactions of the same database that write as much, each with one `fsync`. `cargo bench --features store --bench
//! store`
//!
//! The bench writes into the folder for temporary files, which is in memory on some systems. `TMPDIR` sets another one.

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use common::failures::{attempt, exit_code};
use common::times::{interleaved, time, times, Times};
use common::{full_or_quick, report, report_numbers, title};
use redb::{Database, ReadableDatabase, TableDefinition};
use turnwise::store::{FileStore, PersistentSessionService, SessionStore};
use turnwise::{
    AgentError, CreateSessionRequest, EphemeralSessionService, Message, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionId, SessionQuery, SessionService, SessionSpec, StartTurnRequest,
    TurnContext,
};

const TABLE: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("floor");
const ROWS: TableDefinition<'_, [u8; 24], &[u8]> = TableDefinition::new("rows");
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent that changes the last message of its history in each turn. The model of the specification is the number of
/// messages.
struct Rewrites(Session);
struct Builder;

impl SessionAgentBuilder for Builder {
    type Agent = Rewrites;

    fn build_agent(&self, spec: &SessionSpec, _: &SessionContext) -> Result<Rewrites, AgentError> {
        let mut history = spec.history();
        if history.messages().is_empty() {
            let messages: usize = spec.model.parse().map_err(AgentError::other)?;
            history.push_batch((0..messages).map(|n| message(n as u64)));
        }
        Ok(Rewrites(history))
    }
}

impl SessionAgent for Rewrites {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if let Some(last) = self.0.messages_mut().last_mut() {
            *last = message(turn.turn_id().get());
        }
        Ok(turn.finish(""))
    }

    fn session_clone(&self) -> Session {
        self.0.clone()
    }
}

/// An agent that adds a prompt and an answer to its history in each turn. The model of the specification is the length of
/// each text.
struct Grows {
    history: Session,
    len: usize,
}

struct GrowingBuilder;

impl SessionAgentBuilder for GrowingBuilder {
    type Agent = Grows;

    fn build_agent(&self, spec: &SessionSpec, _: &SessionContext) -> Result<Grows, AgentError> {
        Ok(Grows { history: spec.history(), len: spec.model.parse().map_err(AgentError::other)? })
    }
}

impl SessionAgent for Grows {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.history.push_batch([Message::user("p".repeat(self.len)), Message::assistant("a".repeat(self.len))]);
        Ok(turn.finish(""))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

/// A message of about a hundred bytes.
fn message(n: u64) -> Message {
    Message::user(format!("{n:0>100}"))
}

type Service = PersistentSessionService<Builder>;

fn main() -> ExitCode {
    let folder = std::env::temp_dir().join(format!("turnwise-bench-{}", SessionId::new()));
    fs::create_dir(&folder).expect("a folder for files");
    let _ = attempt("the store", || measure(&folder));
    fs::remove_dir_all(folder).expect("a folder of our own");
    exit_code()
}

fn measure(folder: &Path) {
    let service = Service::new(Builder, 64, FileStore::open(folder.join("sessions.redb")).expect("a store"));
    let bare = bare(&folder.join("bare.redb"));
    title("store: turns of one session, which add 400 bytes");
    let _ = attempt("a session that grows", || growing(folder, 200, full_or_quick(10_000, 300)));
    title("store: turns of one session, which add 4,000 bytes");
    let _ = attempt("a session that grows", || growing(folder, 2_000, full_or_quick(1_000, 300)));
    title("store: a turn that rewrites the history");
    for messages in [2, 100, 1_000] {
        let _ = attempt(&format!("one caller, {messages} messages"), || one_caller(&service, &bare, messages));
    }
    let ids: Vec<SessionId> =
        (0..64).map(|_| service.open_session(SessionSpec::new().model("2")).expect("a session")).collect();
    for callers in [2, 8, 64] {
        let _ = attempt(&format!("{callers} callers"), || many_callers(&service, &bare, &ids[..callers]));
    }
    let _ = attempt("unloading", || ids.iter().for_each(|&id| service.unload(id, PATIENCE).expect("an end")));
    title("store: sessions that are not live");
    let _ = attempt("resumed", || resumed(&service, &bare, ids[0]));
    let _ = attempt("cold sessions", || cold(folder));
    let _ = attempt("a read", || read(&service, &bare, ids[0]));
    let _ = attempt("a list", || list(&service, &bare, &ids));
    service.shutdown(PATIENCE);
}

/// One session runs `turns` turns. The floor is a transaction that writes as much, into a table that grows as well. In a
/// table of several sessions each turn writes one row.
fn growing(folder: &Path, len: usize, turns: usize) {
    const WINDOW: usize = 100;
    let path = folder.join(format!("growing-{len}.redb"));
    let store = FileStore::open(&path).expect("a store");
    let bare_path = folder.join(format!("growing-{len}-bare.redb"));
    let bare = Database::create(&bare_path).expect("a database");
    let service = PersistentSessionService::new(GrowingBuilder, 1, store);
    let id = service.open_session(SessionSpec::new().model(len.to_string())).expect("a session");
    let key = |turn: usize| {
        let mut key = [0; 24];
        key[..16].copy_from_slice(id.as_uuid().as_bytes());
        key[16..].copy_from_slice(&turn.to_be_bytes());
        key
    };
    let (mut figures, mut floors) = (Vec::new(), Vec::new());
    for turn in 0..turns {
        figures.push(time(|| drop(service.start_turn(id, StartTurnRequest::new("")).expect("a turn"))));
        floors.push(time(|| {
            let transaction = bare.begin_write().expect("a transaction");
            let mut table = transaction.open_table(ROWS).expect("a table");
            table.insert(key(turn), vec![7; 2 * len].as_slice()).expect("an insert");
            drop(table);
            transaction.commit().expect("a commit");
        }));
    }
    let median =
        |times: &[Duration], from: usize| times[from..from + WINDOW].iter().copied().collect::<Times>().median();
    let places = [WINDOW, turns / 10, turns - WINDOW].map(|from| from.max(WINDOW));
    for from in places {
        report(&format!("turns {from} to {}", from + WINDOW), median(&figures, from), median(&floors, from));
    }
    // Each over its floor, because the disk may be faster at one time than at another.
    let over_floor = |from| median(&figures, from).as_secs_f64() / median(&floors, from).as_secs_f64();
    report_numbers(
        "the last turns over the floor, beside the first",
        over_floor(places[2]),
        over_floor(places[0]),
        "x",
    );
    service.shutdown(PATIENCE);
    drop(service);
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let size = |path: &Path| mebibytes(fs::metadata(path).expect("a file").len());
    let text = mebibytes((2 * len * turns) as u64);
    report_numbers("the file beside its text", size(&path), text, "MiB");
    drop(bare);
    report_numbers("the file of the floor beside its text", size(&bare_path), text, "MiB");
}

fn one_caller(service: &Service, bare: &Database, messages: usize) {
    let id = service.open_session(SessionSpec::new().model(messages.to_string())).expect("a session");
    let size = serde_json::to_vec(&service.export_session(id).expect("a history")).expect("JSON").len();
    let turns = full_or_quick(200, 5);
    let [floor, figure] = interleaved(
        5,
        [Box::new(|| times(turns, || write(bare, id, size))), Box::new(|| times(turns, || run(service, id)))],
    );
    let what = format!("one caller, {messages} messages ({} KiB)", size.div_ceil(1024));
    report(&what, figure.median(), floor.median());
    service.archive_wait(id, PATIENCE).expect("an end");
}

fn many_callers(service: &Service, bare: &Database, ids: &[SessionId]) {
    let turns = full_or_quick(640, 64) / ids.len();
    let each = |work: &(dyn Fn(SessionId) + Sync)| {
        let all = time(|| {
            thread::scope(|scope| {
                for &id in ids {
                    scope.spawn(move || (0..turns).for_each(|_| work(id)));
                }
            });
        });
        Times::of(all / (ids.len() * turns) as u32)
    };
    let [floor, figure] =
        interleaved(5, [Box::new(|| each(&|id| write(bare, id, 500))), Box::new(|| each(&|id| run(service, id)))]);
    report(&format!("{} callers, of all that are made at once", ids.len()), figure.median(), floor.median());
}

fn resumed(service: &Service, bare: &Database, id: SessionId) {
    let resumed = times(full_or_quick(100, 5), || {
        run(service, id);
        service.unload(id, PATIENCE).expect("an end");
    });
    let floor = times(full_or_quick(100, 5), || write(bare, id, 500));
    report("resumed, a turn, unloaded", resumed.median(), floor.median());
}

/// Turns of sessions that are not live, in a service whose capacity is used up: each turn unloads the session that has
/// been idle for longest. The floor is what a host does without the unloading: it loads the history from the store, and
/// creates a session with a first turn in the same service.
fn cold(folder: &Path) {
    const LIVE: usize = 10;
    let config = EphemeralSessionService::configure(Builder).max_sessions(LIVE);
    let store = Arc::new(FileStore::open(folder.join("cold.redb")).expect("a store"));
    let config = PersistentSessionService::configure(config, Arc::clone(&store));
    let service = config.unload_when_full(true).build().expect("the settings are in range");
    let ids: Vec<SessionId> = (0..full_or_quick(1_000, 50))
        .map(|_| service.open_session(SessionSpec::new().model("20")).expect("a session"))
        .collect();
    let mut next = ids.iter().cycle();
    let turns = full_or_quick(200, 10);
    let mut turn = || {
        times(turns, || {
            let id = next.next().expect("a session");
            service.start_turn(*id, StartTurnRequest::new("")).expect("a turn");
        })
    };
    let floor = || {
        times(turns, || {
            let (stored, _) = store.load(ids[0]).expect("a record").expect("a session");
            let spec = SessionSpec::new().model("20");
            drop(stored);
            service.create_session(CreateSessionRequest::new("").session(spec)).expect("a session");
        })
    };
    let [floor, figure] = interleaved(5, [Box::new(floor), Box::new(&mut turn)]);
    report("a turn that resumes one session and unloads another", figure.median(), floor.median());
    service.shutdown(PATIENCE);
}

fn read(service: &Service, bare: &Database, id: SessionId) {
    let read = times(full_or_quick(1_000, 10), || drop(service.read(id).expect("a view")));
    let floor = times(full_or_quick(1_000, 10), || {
        let table = bare.begin_read().expect("a transaction").open_table(TABLE).expect("a table");
        table.get(id.as_uuid().into_bytes()).expect("a look").expect("a record");
    });
    report("a read", read.median(), floor.median());
}

fn list(service: &Service, bare: &Database, ids: &[SessionId]) {
    let list = times(full_or_quick(100, 3), || {
        assert_eq!(service.list(SessionQuery::new()).expect("a list").len(), ids.len());
    });
    let floor = times(full_or_quick(100, 3), || {
        let table = bare.begin_read().expect("a transaction").open_table(TABLE).expect("a table");
        for id in ids {
            table.get(id.as_uuid().into_bytes()).expect("a look").expect("a record");
        }
    });
    report("a list of 64", list.median(), floor.median());
}

fn run(service: &Service, id: SessionId) {
    service.start_turn(id, StartTurnRequest::new("")).expect("a turn");
}

/// A database for the floors, without a service.
fn bare(path: &Path) -> Database {
    let database = Database::create(path).expect("a database");
    let transaction = database.begin_write().expect("a transaction");
    transaction.open_table(TABLE).expect("a table");
    transaction.commit().expect("a commit");
    database
}

fn write(database: &Database, id: SessionId, size: usize) {
    let transaction = database.begin_write().expect("a transaction");
    let mut table = transaction.open_table(TABLE).expect("a table");
    table.insert(id.as_uuid().into_bytes(), vec![7; size].as_slice()).expect("an insert");
    drop(table);
    transaction.commit().expect("a commit");
}
