//! The engine: one namespace on a server, its checks, and the calls of scripts.
//!
//! # Lanes
//!
//! An engine has two lanes, one for calls that write and one for calls that read. A lane has one connection. The calls
//! that are made while the connection is in use form a batch, which one of their threads sends in one pipeline. So many
//! threads share a connection, and under load a round trip serves many calls. No lock is held meanwhile.
//!
//! # Repeats
//!
//! A call whose connection fails may have been run or not. It is repeated over a new connection, until one lease has
//! passed since its batch was taken, or five minutes. So every script gives the same answer when it is run twice with the same arguments;
//! the head of each says how. A script that the server has forgotten (`NOSCRIPT`) has changed nothing: it is loaded, and
//! only the calls that were refused are repeated, in their order. The other calls of the pipeline have their answers.
//!
//! # Identity
//!
//! The key `meta` has a random id, made by the first open. Every script compares it first, with the id that the engine
//! was opened with. A server that was restarted without its data, or another one behind the same address, has another
//! id or none. From then on the engine refuses every call.

use std::fmt;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use crate::panics::record;
use crate::sync::{never, Arc, AtomicBool, Mutex, Ordering};
use crate::time::clock::{Clock, Deadline};

use super::config::{Durability, EngineConfig};
use super::error::EngineError;
use super::pipeline::Pipeline;
use super::scripts::{self, Script};
use super::wire::{Address, Command, Connection, Listener, Refusal, Reply};

/// The version of the keys and the scripts. Programs with different versions must not share a namespace.
pub(super) const VERSION: u32 = 2;

/// A namespace on a Redis or Valkey server. A cheap handle: clones share two connections.
///
/// ```no_run
/// use turnwise::cluster::{Engine, EngineConfig, RedisStore};
/// use turnwise::store::PersistentSessionService;
/// use turnwise::{agent_fn, CreateSessionRequest, SessionService};
///
/// let engine = Engine::open("redis://localhost:6379", EngineConfig::new().namespace("demo"))?;
/// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
/// let service = PersistentSessionService::new(agent, 8, RedisStore::new(engine));
/// service.create_session(CreateSessionRequest::new("hello"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    config: EngineConfig,
    /// The id of the namespace.
    id: String,
    /// Set by the first call that finds another id.
    is_replaced: AtomicBool,
    writes: Lane,
    reads: Lane,
}

type Answer = Result<Arc<Reply>, EngineError>;

/// What has become of a call.
struct Sent {
    answer: Answer,
    /// Whether it was sent more than once. Then an earlier one may have been run, although this answer is an error.
    is_repeated: bool,
}

struct Lane {
    calls: Pipeline<Call, Sent>,
    /// Taken out by the caller that sends a batch. `None` before the first call, and after a failure.
    connection: Mutex<Option<Connection>>,
}

/// A call of a script: its arguments after the id of the namespace.
pub(super) struct Call {
    script: &'static Script,
    args: Vec<Vec<u8>>,
}

impl Engine {
    /// Connects to a server, checks that it can keep sessions, and makes the namespace if it is new.
    ///
    /// The URL is `redis://user:password@host:port/database`. Each part but the host may be left out: the default port
    /// is 6379, and the default database 0. The schemes `valkey` and, on Unix, `unix` for a socket work too. With the
    /// feature `redis-tls` the schemes `rediss` and `valkeys` encrypt the connection and check the server's certificate.
    ///
    /// # Errors
    /// - [`EngineError::InvalidConfig`], [`EngineError::InvalidUrl`], [`EngineError::TlsNotSupported`].
    /// - [`EngineError::Unreachable`] and [`EngineError::Unavailable`] if the server does not answer, or still loads its
    ///   data, after one [lease](EngineConfig::lease).
    /// - [`EngineError::Denied`] if the password is wrong or missing, or the user may not use the namespace.
    /// - [`EngineError::TooOld`], [`EngineError::ClusterMode`], [`EngineError::Replica`], [`EngineError::Evicts`] and
    ///   [`EngineError::NotDurable`] if the server is not suitable.
    /// - [`EngineError::OtherVersion`] if the namespace was made by a version of this crate with other scripts.
    /// - [`EngineError::OutOfMemory`] if the namespace is new and the memory of the server is full.
    ///
    /// # Blocking
    /// For the network and for the resolution of the host's name. While the server does not answer, each of three steps
    /// repeats itself for one [lease](EngineConfig::lease).
    pub fn open(url: &str, config: EngineConfig) -> Result<Self, EngineError> {
        config.check()?;
        let address = Address::parse(url, config.root_certificates.as_deref())?;
        let (writes, reads) = (Lane::new(), Lane::new());
        let info = writes.command(&address, &config, &Command::new("INFO").arg("default"))?;
        check_server(&info, config.durability)?;
        let version = VERSION.to_string();
        let meet = Call::new(&scripts::MEET).arg(version.as_str());
        let mut met = writes.call(&address, &config, "", meet).answer?;
        if met.is_list_of("none") {
            let found = Call::new(&scripts::FOUND).arg(version).arg(Uuid::now_v7().to_string());
            met = writes.call(&address, &config, "", found).answer?;
        }
        let id = match met.words().as_deref() {
            Some([b"ok", id]) => String::from_utf8_lossy(id).into_owned(),
            Some([b"version", found]) => {
                let found = String::from_utf8_lossy(found).into();
                return Err(EngineError::OtherVersion { found, supported: VERSION });
            }
            _ => return Err(unexpected(&scripts::MEET)),
        };
        let is_replaced = AtomicBool::new(false);
        Ok(Self { shared: Arc::new(Shared { address, config, id, is_replaced, writes, reads }) })
    }

    /// The settings with which the engine was opened.
    pub fn config(&self) -> &EngineConfig {
        &self.shared.config
    }

    /// Calls a script that writes.
    pub(super) fn write(&self, call: Call) -> Answer {
        self.call(&self.shared.writes, call).answer
    }

    /// As [`write`](Self::write). Says also whether the call may have been run although the answer is an error of the server.
    pub(super) fn write_and_tell(&self, call: Call) -> (Answer, bool) {
        let Sent { answer, is_repeated } = self.call(&self.shared.writes, call);
        (answer, is_repeated)
    }

    /// Calls a script that reads.
    pub(super) fn read(&self, call: Call) -> Answer {
        self.call(&self.shared.reads, call).answer
    }

    /// A connection of its own that waits for the entries of a stream. The stream's name comes behind the namespace.
    pub(super) fn listen(&self, stream: &str) -> Result<Listener, EngineError> {
        let Shared { address, config, .. } = &*self.shared;
        Listener::new(address, format!("{}:{stream}", config.namespace), config.socket_timeout())
    }

    /// Whether a call has found that the namespace is another one.
    pub(super) fn is_replaced(&self) -> bool {
        // ORDERING: Relaxed, see `call`.
        self.shared.is_replaced.load(Ordering::Relaxed)
    }

    fn call(&self, lane: &Lane, call: Call) -> Sent {
        let shared = &*self.shared;
        // ORDERING: Relaxed; a call that misses the flag finds the other id itself.
        if shared.is_replaced.load(Ordering::Relaxed) {
            return Sent { answer: Err(EngineError::Replaced), is_repeated: false };
        }
        let mut sent = lane.call(&shared.address, &shared.config, &shared.id, call);
        if sent.answer.as_ref().is_ok_and(|answer| answer.is_list_of("replaced")) {
            shared.is_replaced.store(true, Ordering::Relaxed);
            sent.answer = Err(EngineError::Replaced);
        }
        sent
    }
}

/// Shows the address, without user and password.
impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("address", &self.shared.address)
            .field("namespace", &self.shared.config.namespace)
            .finish_non_exhaustive()
    }
}

impl Call {
    pub(super) fn new(script: &'static Script) -> Self {
        Self { script, args: Vec::new() }
    }

    #[must_use]
    pub(super) fn arg(mut self, arg: impl Into<Vec<u8>>) -> Self {
        self.args.push(arg.into());
        self
    }

    #[must_use]
    pub(super) fn args(mut self, args: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.args.extend(args);
        self
    }

    fn command(&self, namespace: &str, id: &str) -> Command {
        let prefix = format!("{namespace}:");
        let head = Command::new("EVALSHA").arg(self.script.digest()).arg("1").arg(prefix).arg(id);
        head.args(self.args.iter().cloned())
    }
}

impl Lane {
    /// The longest pause before a call is repeated.
    const MAX_PAUSE: Duration = Duration::from_millis(500);
    const FIRST_PAUSE: Duration = Duration::from_millis(10);
    /// How often scripts are loaded for one batch, where another program makes the server forget them.
    const LOADS: usize = 8;

    fn new() -> Self {
        Self { calls: Pipeline::new(), connection: Mutex::new(None) }
    }

    /// Sends a call, alone or with those that other threads make meanwhile.
    fn call(&self, address: &Address, config: &EngineConfig, id: &str, call: Call) -> Sent {
        let sent = self.calls.send(call, |calls| {
            let commands: Vec<Command> = calls.iter().map(|call| call.command(&config.namespace, id)).collect();
            let load = |refused: &[usize]| refused.iter().map(|&index| calls[index].script).collect();
            self.send_all(address, config, &commands, load)
        });
        let lost = || Sent { answer: Err(EngineError::failed("a call has got lost")), is_repeated: true };
        sent.unwrap_or_else(lost)
    }

    /// Sends a command that is no script, before the lane has any other caller.
    fn command(&self, address: &Address, config: &EngineConfig, command: &Command) -> Answer {
        let commands = std::slice::from_ref(command);
        let answers = self.send_all(address, config, commands, |_| Vec::new());
        let answer = answers.into_iter().next().map(|sent| sent.answer);
        answer.unwrap_or_else(|| Err(EngineError::failed("a command has got lost")))
    }

    /// Sends commands until each has an answer. `scripts` names the scripts of the commands that the server did not
    /// know.
    fn send_all(
        &self,
        address: &Address,
        config: &EngineConfig,
        commands: &[Command],
        scripts: impl Fn(&[usize]) -> Vec<&'static Script>,
    ) -> Vec<Sent> {
        let patience = Patience::new(config.lease);
        let mut answers: Vec<Option<Answer>> = vec![None; commands.len()];
        let mut open: Vec<usize> = (0..commands.len()).collect();
        let (mut pause, mut loads, mut has_failed) = (Self::FIRST_PAUSE, 0, false);
        let mut to_load: Vec<Command> = Vec::new();
        while !open.is_empty() {
            let sent = self.send(address, config, &to_load, open.iter().map(|&index| &commands[index]));
            match sent {
                Ok(results) => {
                    let mut refused = Vec::new();
                    for (&index, result) in open.iter().zip(results) {
                        match result {
                            Ok(reply) => answers[index] = Some(Ok(Arc::new(reply))),
                            Err(Refusal::NoScript) if loads < Self::LOADS => refused.push(index),
                            Err(Refusal::NoScript) => {
                                answers[index] = Some(Err(EngineError::failed("the server forgets the scripts")));
                            }
                            Err(Refusal::Error(error)) => answers[index] = Some(Err(error)),
                        }
                    }
                    to_load = scripts(&refused).iter().map(|script| script.load()).collect();
                    loads += 1;
                    open = refused;
                }
                Err(error) if error.is_passing() && patience.leaves_more_than(pause) => {
                    if !has_failed {
                        let (code, count) = (error.code(), open.len());
                        record!(Warn, "turnwise::cluster", "the engine is away ({code}): {count} calls are repeated");
                    }
                    has_failed = true;
                    sleep(pause);
                    pause = (pause * 2).min(Self::MAX_PAUSE);
                }
                Err(error) => open.drain(..).for_each(|index| answers[index] = Some(Err(error.clone()))),
            }
        }
        if has_failed && answers.iter().flatten().any(Result::is_ok) {
            record!(Warn, "turnwise::cluster", "the engine is back");
        }
        let lost = || Err(EngineError::failed("a call has no answer"));
        let sent = |answer: Option<Answer>| Sent { answer: answer.unwrap_or_else(lost), is_repeated: has_failed };
        answers.into_iter().map(sent).collect()
    }

    /// Sends commands once, behind those that load scripts. After a failure the connection is dropped.
    fn send<'a>(
        &self,
        address: &Address,
        config: &EngineConfig,
        to_load: &'a [Command],
        commands: impl Iterator<Item = &'a Command>,
    ) -> Result<Vec<Result<Reply, Refusal>>, EngineError> {
        let connection = self.connection.lock().take();
        let mut connection = match connection {
            Some(connection) => connection,
            None => address.connect(config.socket_timeout())?,
        };
        let mut results = connection.send(to_load.iter().chain(commands))?;
        *self.connection.lock() = Some(connection);
        Ok(results.split_off(to_load.len().min(results.len())))
    }
}

/// How long a call may be repeated whose answer was lost: never longer than the engine knows the request.
pub(super) struct Patience {
    deadline: Deadline,
    /// The clock of the machine goes on while it is suspended, which the other one need not.
    since: SystemTime,
}

impl Patience {
    /// Half of the time for which the engine knows a request.
    pub(super) const MOST: Duration = Duration::from_secs(300);

    pub(super) fn new(patience: Duration) -> Self {
        Self { deadline: Clock::System.deadline(patience.min(Self::MOST)), since: SystemTime::now() }
    }

    pub(super) fn leaves_more_than(&self, pause: Duration) -> bool {
        self.deadline.leaves_more_than(pause) && self.since.elapsed().is_ok_and(|passed| passed < Self::MOST)
    }
}

/// Sleeps. The thread runs no code of a host, so nothing ends the pause early.
pub(super) fn sleep(pause: Duration) {
    let _ = Clock::System.deadline(pause).receive(&never::<()>());
}

/// The error of an answer that the script does not give.
pub(super) fn unexpected(script: &Script) -> EngineError {
    EngineError::failed(format!("an unexpected answer to '{}'", script.name()))
}

/// Checks what the server reports of itself.
fn check_server(info: &Reply, durability: Durability) -> Result<(), EngineError> {
    let text = info.text().ok_or_else(|| EngineError::failed("the server does not describe itself"))?;
    let text = String::from_utf8_lossy(text);
    let field = |name: &str| {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned());
        text.lines().find_map(value)
    };
    let missing = |name: &str| EngineError::failed(format!("the server does not report its {name}"));
    let required = |name: &str| field(name).ok_or_else(|| missing(name));
    let version = required("redis_version")?;
    let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(0);
    if major < 7 {
        return Err(EngineError::TooOld { version: version.into() });
    }
    if field("cluster_enabled").as_deref() == Some("1") || field("redis_mode").as_deref() == Some("cluster") {
        return Err(EngineError::ClusterMode);
    }
    if required("role")? != "master" {
        return Err(EngineError::Replica);
    }
    let policy = required("maxmemory_policy")?;
    if policy != "noeviction" {
        return Err(EngineError::Evicts { policy: policy.into() });
    }
    if durability == Durability::AppendOnlyFile && required("aof_enabled")? != "1" {
        return Err(EngineError::NotDurable);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "redis_version:7.0.15\r\nredis_mode:standalone\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n\
                        role:master\r\ncluster_enabled:0\r\n";

    fn check(from: &str, to: &str) -> Result<(), EngineError> {
        assert!(GOOD.contains(from));
        check_server(&Reply::Text(GOOD.replace(from, to).into_bytes()), Durability::AppendOnlyFile)
    }

    #[test]
    fn c80_a_server_that_cannot_keep_sessions_is_refused_by_what_it_reports() {
        let code = |from: &str, to: &str| check(from, to).unwrap_err().code();
        assert_eq!(check("", ""), Ok(()));
        assert_eq!(check("7.0.15", "10.0.0"), Ok(()));
        assert_eq!(code("7.0.15", "6.2.14"), "ENGINE_TOO_OLD");
        assert_eq!(code("7.0.15", "unknown"), "ENGINE_TOO_OLD");
        assert_eq!(code("standalone", "cluster"), "ENGINE_CLUSTER_MODE");
        assert_eq!(code("cluster_enabled:0", "cluster_enabled:1"), "ENGINE_CLUSTER_MODE");
        assert_eq!(code("master", "slave"), "ENGINE_REPLICA");
        assert_eq!(code("noeviction", "allkeys-lru"), "ENGINE_EVICTS");
        assert_eq!(code("maxmemory_policy:noeviction\r\n", ""), "ENGINE_FAILED");
        assert_eq!(code("aof_enabled:1", "aof_enabled:0"), "ENGINE_NOT_DURABLE");
        let any = check_server(&Reply::Text(GOOD.replace("aof_enabled:1", "aof_enabled:0").into()), Durability::Any);
        assert_eq!(any, Ok(()));
    }
}
