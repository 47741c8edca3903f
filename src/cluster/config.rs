//! The settings of an engine.

use std::time::Duration;

use super::error::EngineError;

/// The settings of an [`Engine`](super::Engine).
///
/// ```
/// use std::time::Duration;
/// use turnwise::cluster::{Durability, EngineConfig};
///
/// let config = EngineConfig::new().namespace("staging").lease(Duration::from_secs(5)).durability(Durability::Any);
/// assert_eq!(config.namespace, "staging");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineConfig {
    /// The beginning of every key, so that several systems may share one server. 1 to 64 letters, digits, `_`, `-` or
    /// `.`. The default is `turnwise`.
    pub namespace: String,
    /// How long a call may wait for a server that does not answer, from 1 second to 1 hour. Meanwhile it connects again
    /// and repeats itself. The default is 15 seconds.
    pub lease: Duration,
    /// What the server must do against the loss of answered turns. The default is
    /// [`Durability::AppendOnlyFile`].
    pub durability: Durability,
    /// With TLS: the certificates, in PEM, of which one must have signed the server's. `None`, the default, takes those
    /// that the system knows. Without TLS they are not used.
    pub root_certificates: Option<Vec<u8>>,
}

/// What a server must do against the loss of answered turns. The module describes what each setting of a server
/// promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// The server must have an append-only file (`appendonly yes`). Its setting `appendfsync` decides how much a loss of
    /// power takes; the server does not report it.
    #[default]
    AppendOnlyFile,
    /// Any server will do. Without an append-only file a restart of the server loses turns that were answered.
    Any,
}

impl EngineConfig {
    /// The shortest lease. A shorter one would end during an ordinary pause of a process or of the network.
    const MIN_LEASE: Duration = Duration::from_secs(1);
    const MAX_LEASE: Duration = Duration::from_secs(3600);
    const MAX_NAMESPACE: usize = 64;

    /// The defaults. The same as `default()`.
    pub fn new() -> Self {
        Self {
            namespace: "turnwise".into(),
            lease: Duration::from_secs(15),
            durability: Durability::default(),
            root_certificates: None,
        }
    }

    /// Sets the namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets how long a call may wait for a server that does not answer.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets what the server must do against the loss of answered turns.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the certificates that vouch for the server, in PEM.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates = Some(pem.into());
        self
    }

    pub(super) fn check(&self) -> Result<(), EngineError> {
        let is_letter = |letter: u8| letter.is_ascii_alphanumeric() || b"_-.".contains(&letter);
        let len = self.namespace.len();
        if len == 0 || len > Self::MAX_NAMESPACE || !self.namespace.bytes().all(is_letter) {
            let reason = "it must have 1 to 64 letters, digits, '_', '-' or '.'";
            return Err(EngineError::InvalidConfig { option: "namespace", reason });
        }
        if !(Self::MIN_LEASE..=Self::MAX_LEASE).contains(&self.lease) {
            return Err(EngineError::InvalidConfig { option: "lease", reason: "it must be 1 second to 1 hour" });
        }
        Ok(())
    }

    /// How long one wait for the server may take, before the connection is given up.
    pub(super) fn socket_timeout(&self) -> Duration {
        (self.lease / 3).min(Duration::from_secs(5))
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self::new()
    }
}
