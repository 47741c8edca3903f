//! The errors of engines.

use std::fmt;

use crate::sync::Arc;

/// An error of an [`Engine`](super::Engine).
///
/// A [`RedisStore`](super::RedisStore) passes it on inside of a [`StoreError::Failed`](crate::store::StoreError::Failed).
/// No error has a password in its text, and none has a text of a conversation.
///
/// ```
/// use turnwise::cluster::{Engine, EngineConfig, EngineError};
///
/// let error = Engine::open("http://localhost", EngineConfig::new()).unwrap_err();
/// assert!(matches!(error, EngineError::InvalidUrl));
/// assert_eq!(error.code(), "ENGINE_INVALID_URL");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineError {
    /// An option of the [`EngineConfig`](super::EngineConfig) has a value that cannot be used.
    InvalidConfig {
        /// The option's name.
        option: &'static str,
        /// The rule that the value breaks.
        reason: &'static str,
    },
    /// The URL is not that of a Redis or Valkey server. The URL itself is not shown, because it may have a password.
    InvalidUrl,
    /// The URL asks for TLS, and the feature `redis-tls` is not enabled.
    TlsNotSupported,
    /// The server does not answer: it cannot be reached, the connection was cut, or it took too long. Whether it has run
    /// the call is not known.
    Unreachable {
        /// The last failure.
        reason: Arc<str>,
    },
    /// The server answers, and cannot serve the call now: it still loads its data, or it has become a replica.
    Unavailable {
        /// The answer of the server.
        reason: Arc<str>,
    },
    /// The server refuses the user: the password is wrong or missing, or the user may not run the command.
    Denied {
        /// The answer of the server.
        reason: Arc<str>,
    },
    /// The server is too old. It must implement version 7.0 of Redis; every version of Valkey does.
    TooOld {
        /// The version that the server reports.
        version: Arc<str>,
    },
    /// The server is a node of a Redis cluster. One primary is required, since a script uses keys of several sessions.
    ClusterMode,
    /// The server is a replica.
    Replica,
    /// The server may delete keys when its memory is full. Its `maxmemory-policy` must be `noeviction`.
    Evicts {
        /// The policy of the server.
        policy: Arc<str>,
    },
    /// The server has no append-only file, so a restart loses turns that were answered; see
    /// [`Durability`](super::Durability).
    NotDurable,
    /// The namespace was made by a version of this crate with other scripts. Both versions must not use it at once.
    OtherVersion {
        /// The version of the namespace.
        found: Arc<str>,
        /// The version that this crate uses.
        supported: u32,
    },
    /// The namespace is not the one that this engine was opened with: the server was restarted without its data, or
    /// another server has its address. The engine refuses every further call. Open a new one to use what is there now.
    Replaced,
    /// The memory of the server is full. Nothing was changed.
    OutOfMemory,
    /// The server refused the call for another reason, or answered what no script answers.
    Failed {
        /// The answer of the server.
        reason: Arc<str>,
    },
}

impl EngineError {
    /// A name for the kind of error that does not change between releases.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::InvalidConfig { .. } => "ENGINE_INVALID_CONFIG",
            Self::InvalidUrl => "ENGINE_INVALID_URL",
            Self::TlsNotSupported => "ENGINE_TLS_NOT_SUPPORTED",
            Self::Unreachable { .. } => "ENGINE_UNREACHABLE",
            Self::Unavailable { .. } => "ENGINE_UNAVAILABLE",
            Self::Denied { .. } => "ENGINE_DENIED",
            Self::TooOld { .. } => "ENGINE_TOO_OLD",
            Self::ClusterMode => "ENGINE_CLUSTER_MODE",
            Self::Replica => "ENGINE_REPLICA",
            Self::Evicts { .. } => "ENGINE_EVICTS",
            Self::NotDurable => "ENGINE_NOT_DURABLE",
            Self::OtherVersion { .. } => "ENGINE_OTHER_VERSION",
            Self::Replaced => "ENGINE_REPLACED",
            Self::OutOfMemory => "ENGINE_OUT_OF_MEMORY",
            Self::Failed { .. } => "ENGINE_FAILED",
        }
    }

    /// Whether the same call may succeed a moment later, over a new connection.
    pub(super) const fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unavailable { .. })
    }

    pub(super) fn failed(reason: impl Into<Arc<str>>) -> Self {
        Self::Failed { reason: reason.into() }
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidConfig { option, reason } => write!(f, "{option}: {reason}"),
            Self::InvalidUrl => f.write_str("the URL of the engine is not that of a Redis or Valkey server"),
            Self::TlsNotSupported => {
                f.write_str("the URL of the engine asks for TLS, which needs the feature redis-tls")
            }
            Self::Unreachable { reason } => write!(f, "the engine does not answer: {reason}"),
            Self::Unavailable { reason } => write!(f, "the engine cannot serve the call now: {reason}"),
            Self::Denied { reason } => write!(f, "the engine refuses the user: {reason}"),
            Self::TooOld { version } => write!(f, "the engine is of version {version}, and 7.0 or later is required"),
            Self::ClusterMode => f.write_str("the engine is a node of a Redis cluster, and one primary is required"),
            Self::Replica => f.write_str("the engine is a replica, and its primary is required"),
            Self::Evicts { policy } => write!(
                f,
                "the engine deletes keys when its memory is full: its maxmemory-policy is {policy}, and noeviction is \
                 required"
            ),
            Self::NotDurable => f.write_str(
                "the engine has no append-only file (appendonly yes), so a restart would lose answered turns; \
                 Durability::Any accepts that",
            ),
            Self::OtherVersion { found, supported } => write!(
                f,
                "the namespace is of version {found}, and this program uses version {supported}: use another namespace"
            ),
            Self::Replaced => {
                f.write_str("the engine has lost the namespace, or is another one: it has to be opened again")
            }
            Self::OutOfMemory => f.write_str("the memory of the engine is full"),
            Self::Failed { reason } => write!(f, "the engine refused the call: {reason}"),
        }
    }
}

impl std::error::Error for EngineError {}
