//! Connections to the server. The only module that names the client crate.
//!
//! A [`Connection`] sends commands in a pipeline and returns one answer for each. It is dropped after every failure of
//! the transport, whatever the failure was: a late reply to an abandoned command would be taken for the reply to the
//! next one.

use std::fmt;
use std::time::Duration;

use redis::{ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisError, ServerErrorKind, Value};

use crate::sync::Arc;

use super::error::EngineError;

/// The address of a server, with the user and the password.
pub(super) struct Address {
    client: redis::Client,
}

/// One command with its arguments.
#[derive(Clone)]
pub(super) struct Command {
    parts: Vec<Vec<u8>>,
}

/// The answer to a command.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Nil,
    Int(i64),
    Text(Vec<u8>),
    List(Vec<Reply>),
}

/// An answer that refuses a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The server does not have the script. The command has changed nothing.
    NoScript,
    Error(EngineError),
}

/// One connection.
pub(super) struct Connection(redis::Connection);

impl Address {
    /// Reads a URL: `redis://user:password@host:port/database`, `rediss://` for TLS, or `unix:///path`. With TLS the
    /// server's certificate must be signed by one of `roots`, in PEM, or by one that the system knows.
    pub(super) fn parse(url: &str, roots: Option<&[u8]>) -> Result<Self, EngineError> {
        let has_tls = ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme));
        if has_tls && !cfg!(feature = "redis-tls") {
            return Err(EngineError::TlsNotSupported);
        }
        let info = url.into_connection_info().map_err(|_| EngineError::InvalidUrl)?;
        if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
            return Err(EngineError::InvalidUrl);
        }
        let client = if has_tls { tls(info, roots)? } else { open(info)? };
        Ok(Self { client })
    }

    /// Connects, and authenticates. `timeout` limits the connect, and later each wait for the server.
    pub(super) fn connect(&self, timeout: Duration) -> Result<Connection, EngineError> {
        let connection = self.client.get_connection_with_timeout(timeout).map_err(|error| from_redis(&error))?;
        connection.set_read_timeout(Some(timeout)).map_err(|error| from_redis(&error))?;
        connection.set_write_timeout(Some(timeout)).map_err(|error| from_redis(&error))?;
        Ok(Connection(connection))
    }
}

fn open(info: redis::ConnectionInfo) -> Result<redis::Client, EngineError> {
    redis::Client::open(info).map_err(|_| EngineError::InvalidUrl)
}

#[cfg(not(feature = "redis-tls"))]
fn tls(_: redis::ConnectionInfo, _: Option<&[u8]>) -> Result<redis::Client, EngineError> {
    Err(EngineError::TlsNotSupported)
}

#[cfg(feature = "redis-tls")]
fn tls(info: redis::ConnectionInfo, roots: Option<&[u8]>) -> Result<redis::Client, EngineError> {
    // The client takes the provider of the process. If the program has chosen one, that stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let Some(roots) = roots else { return open(info) };
    let reason = "it must have a certificate in PEM";
    let invalid = || EngineError::InvalidConfig { option: "root_certificates", reason };
    // The client takes a text without any certificate for an empty list, which trusts no server.
    if !String::from_utf8_lossy(roots).contains("-----BEGIN CERTIFICATE-----") {
        return Err(invalid());
    }
    let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(roots.to_vec()) };
    redis::Client::build_with_tls(info, certificates).map_err(|_| invalid())
}

/// Shows neither the user nor the password.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => write!(f, "{host}:{port}"),
            ConnectionAddr::Unix(path) => write!(f, "{}", path.display()),
            _ => f.write_str("another address"),
        }
    }
}

impl Command {
    pub(super) fn new(name: &str) -> Self {
        Self { parts: vec![name.into()] }
    }

    #[must_use]
    pub(super) fn arg(mut self, arg: impl Into<Vec<u8>>) -> Self {
        self.parts.push(arg.into());
        self
    }

    #[must_use]
    pub(super) fn args(mut self, args: impl IntoIterator<Item = Vec<u8>>) -> Self {
        self.parts.extend(args);
        self
    }
}

impl Connection {
    /// Sends the commands at once, and returns the answer to each, in order.
    ///
    /// # Errors
    /// A failure of the transport: nothing is known about any of the commands, and the connection must be dropped.
    pub(super) fn send<'a>(
        &mut self,
        commands: impl IntoIterator<Item = &'a Command>,
    ) -> Result<Vec<Result<Reply, Refusal>>, EngineError> {
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for command in commands {
            let [name, args @ ..] = command.parts.as_slice() else { continue };
            let mut packed = redis::Cmd::new();
            packed.arg(name.as_slice());
            args.iter().for_each(|arg| {
                packed.arg(arg.as_slice());
            });
            pipeline.add_command(packed);
        }
        let answers: Vec<Result<Value, RedisError>> =
            pipeline.query(&mut self.0).map_err(|error| from_redis(&error))?;
        answers
            .into_iter()
            .map(|answer| {
                answer.map_err(|error| refusal(&error)).and_then(reply).map_or_else(transport, |reply| Ok(Ok(reply)))
            })
            .collect()
    }
}

/// An answer that says that this connection is of no use: the server loads its data or is a replica now.
fn transport(refusal: Refusal) -> Result<Result<Reply, Refusal>, EngineError> {
    match refusal {
        Refusal::Error(error) if error.is_passing() => Err(error),
        refusal => Ok(Err(refusal)),
    }
}

fn reply(value: Value) -> Result<Reply, Refusal> {
    Ok(match value {
        Value::Nil => Reply::Nil,
        Value::Int(number) => Reply::Int(number),
        Value::BulkString(text) => Reply::Text(text),
        Value::SimpleString(text) => Reply::Text(text.into_bytes()),
        Value::Okay => Reply::Text(b"OK".to_vec()),
        Value::Array(values) => Reply::List(values.into_iter().map(reply).collect::<Result<_, _>>()?),
        // The connection speaks RESP2, which has no other types.
        _ => return Err(Refusal::Error(EngineError::failed("an answer of an unknown type"))),
    })
}

fn refusal(error: &RedisError) -> Refusal {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::NoScript) => Refusal::NoScript,
        _ => Refusal::Error(from_redis(error)),
    }
}

fn from_redis(error: &RedisError) -> EngineError {
    let reason: Arc<str> = if error.is_timeout() { "it took too long".into() } else { error.to_string().into() };
    match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm), _)
        | (_, Some("NOAUTH" | "WRONGPASS")) => EngineError::Denied { reason },
        // The server has no code of its own for a script whose user may not run a command or use a key.
        _ if reason.contains("The user executing the script") => EngineError::Denied { reason },
        (_, Some("OOM")) => EngineError::OutOfMemory,
        // A write that found the disk full, or too few replicas: the server answers, and the call may succeed later.
        (
            ErrorKind::Server(ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly),
            _,
        )
        | (_, Some("BUSY" | "MISCONF" | "NOREPLICAS" | "UNBLOCKED")) => EngineError::Unavailable { reason },
        (ErrorKind::Io | ErrorKind::Parse, _) => EngineError::Unreachable { reason },
        (ErrorKind::InvalidClientConfig, _) => EngineError::InvalidUrl,
        _ => EngineError::Failed { reason },
    }
}

/// A connection that waits for the entries of one stream, and does nothing else.
pub(super) struct Listener {
    connection: redis::Connection,
    stream: String,
    /// The id of the last entry that was read.
    last: String,
    /// The size of the entries that were read and were not removed.
    left: usize,
    /// Whether the last read has found none.
    is_idle: bool,
}

/// An entry of a stream: names and values by turns, in the order of the script that has added it.
pub(super) type Entry = Vec<Vec<u8>>;

impl Listener {
    /// The size of entries, in bytes, at which they are removed.
    const MOST_LEFT: usize = 64 << 10;
    /// What an entry counts besides its texts.
    const COST: usize = 512;

    /// Connects. Entries that are in the stream already are read too.
    pub(super) fn new(address: &Address, stream: String, timeout: Duration) -> Result<Self, EngineError> {
        let Connection(connection) = address.connect(timeout)?;
        Ok(Self { connection, stream, last: "0".into(), left: 0, is_idle: false })
    }

    /// Goes on behind an entry that an earlier connection has read.
    pub(super) fn after(self, last: String) -> Self {
        // What that connection has left in the stream is not known.
        Self { last, left: Self::MOST_LEFT, ..self }
    }

    /// The id of the last entry that was read.
    pub(super) fn last(&self) -> &str {
        &self.last
    }

    /// Returns the entries that follow those that were read before. Without any it waits for `block`.
    ///
    /// Entries that were read are removed later, many at a time: a removal is a write, for which a server that syncs its file
    /// would hold up everybody. Until then the server has them: some 64 KiB and the last read, or what was read before an
    /// empty read.
    ///
    /// # Errors
    /// After any error the connection must be dropped.
    pub(super) fn read(&mut self, block: Duration) -> Result<Vec<Entry>, EngineError> {
        const MOST: usize = 256;
        // Longer than the wait, so that the end of the wait is an answer and not a failure.
        let patience = block + Duration::from_secs(5);
        self.connection.set_read_timeout(Some(patience)).map_err(|error| from_redis(&error))?;
        let mut pipeline = redis::pipe();
        let removes = self.left >= Self::MOST_LEFT || self.is_idle && self.left > 0;
        if removes {
            pipeline.cmd("XTRIM").arg(&self.stream).arg("MINID").arg(behind(&self.last)).ignore();
        }
        let millis = u64::try_from(block.as_millis()).unwrap_or(u64::MAX).max(1);
        pipeline.cmd("XREAD").arg("COUNT").arg(MOST).arg("BLOCK").arg(millis);
        pipeline.arg("STREAMS").arg(&self.stream).arg(&self.last);
        let (found,): (Value,) = pipeline.query(&mut self.connection).map_err(|error| from_redis(&error))?;
        if removes {
            self.left = 0;
        }
        let invalid = || EngineError::failed("an entry of a stream that cannot be read");
        let found = reply(found).map_err(|_| invalid())?;
        self.is_idle = found == Reply::Nil;
        if self.is_idle {
            return Ok(Vec::new());
        }
        let stream = found.list().and_then(<[_]>::first).and_then(Reply::list).ok_or_else(invalid)?;
        let entries = stream.get(1).and_then(Reply::list).ok_or_else(invalid)?;
        let mut read = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some([Reply::Text(id), fields]) = entry.list() else { return Err(invalid()) };
            // An entry that was deleted has no fields.
            let entry: Entry = fields.words().unwrap_or_default().into_iter().map(<[u8]>::to_vec).collect();
            self.left += entry.iter().map(Vec::len).sum::<usize>() + Self::COST;
            read.push(entry);
            self.last = String::from_utf8_lossy(id).into_owned();
        }
        Ok(read)
    }
}

/// The lowest id behind that of an entry.
fn behind(id: &str) -> String {
    let next = id.split_once('-').and_then(|(time, number)| Some((time, number.parse::<u64>().ok()?.checked_add(1)?)));
    next.map_or_else(|| id.to_owned(), |(time, number)| format!("{time}-{number}"))
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Reply {
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn list(&self) -> Option<&[Reply]> {
        match self {
            Self::List(items) => Some(items),
            _ => None,
        }
    }

    /// The texts of a list of texts.
    pub(super) fn words(&self) -> Option<Vec<&[u8]>> {
        self.list()?.iter().map(Self::text).collect()
    }

    /// Whether this is a list that begins with this word.
    pub(super) fn is_list_of(&self, word: &str) -> bool {
        self.list().and_then(<[Self]>::first).and_then(Self::text) == Some(word.as_bytes())
    }
}

/// Shows no text, which may be that of a conversation.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("Nil"),
            Self::Int(number) => write!(f, "Int({number})"),
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::List(items) => f.debug_list().entries(items).finish(),
        }
    }
}

/// The digest by which the server knows a script.
pub(super) fn digest(source: &str) -> String {
    redis::Script::new(source).get_hash().to_owned()
}
