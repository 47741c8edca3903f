//! Comms between the sessions of one process.
//!
//! The network owns the map from names to senders. Each peer's endpoint owns its receiver.
//!
//! **Invariants.**
//! - A name is in the map exactly as long as its [`LocalPeer`] lives. The endpoints that others hold do not keep it.
//! - No lock is held during a send.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{InboxInteraction, InteractionContent, InteractionId};
use crate::sync::{bounded, Arc, AtomicBool, Ordering, Receiver, RwLock, Sender, TrySendError};

use super::{CommsError, CommsRuntime};

/// Connects sessions of one process by name, of one service or of several. A cheap handle: clones are the same
/// network.
///
/// An agent joins during its build and keeps its [`LocalPeer`]. The name is taken exactly as long as the peer lives,
/// so it is free again when the session has ended.
///
/// ```
/// use turnwise::{CommsRuntime, InteractionContent, LocalComms};
///
/// let comms = LocalComms::new();
/// let (alice, bob) = (comms.join("alice")?, comms.join("bob")?);
/// alice.send("bob", InteractionContent::message("hello"))?;
/// let heard = bob.inbox().expect("a local peer has one").try_recv()?;
/// assert_eq!((heard.from.as_str(), heard.text().as_str()), ("alice", "hello"));
/// drop(bob);
/// assert!(alice.send("bob", InteractionContent::message("still there?")).is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct LocalComms {
    network: Arc<Network>,
}

struct Network {
    capacity: usize,
    peers: RwLock<BTreeMap<String, Sender<InboxInteraction>>>,
}

/// The error of a name that another peer has.
///
/// ```
/// use turnwise::{LocalComms, NameTaken};
///
/// let comms = LocalComms::new();
/// let first = comms.join("alice")?;
/// assert_eq!(comms.join("alice").unwrap_err(), NameTaken { name: "alice".into() });
/// drop(first);
/// assert!(comms.join("alice").is_ok());
/// # Ok::<(), NameTaken>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name '{name}' is taken")]
pub struct NameTaken {
    /// The name.
    pub name: String,
}

/// A member of a [`LocalComms`]: a name and an inbox. Dropping it frees the name and discards unread messages.
///
/// ```
/// use turnwise::{CommsError, InteractionContent, LocalComms};
///
/// let comms = LocalComms::new();
/// let peer = comms.join("alice")?;
/// let line = peer.runtime(); // what an agent's `comms_runtime` returns
/// assert_eq!((peer.name(), comms.peers()), ("alice", vec!["alice".to_owned()]));
/// drop(peer);
/// assert!(comms.peers().is_empty());
/// assert!(matches!(line.send("bob", InteractionContent::Dismiss), Err(CommsError::Closed { .. })));
/// # Ok::<(), turnwise::NameTaken>(())
/// ```
#[must_use = "dropping it leaves the network"]
pub struct LocalPeer {
    endpoint: Arc<PeerEndpoint>,
}

/// The part of a peer that others may hold. It does not keep the name.
struct PeerEndpoint {
    name: String,
    network: Arc<Network>,
    inbox: Receiver<InboxInteraction>,
    has_left: AtomicBool,
}

impl LocalComms {
    /// The default capacity of an inbox, in interactions.
    pub const CAPACITY: usize = 256;

    const MAX_CAPACITY: usize = 1 << 16;

    /// Makes a network without peers. Each inbox has room for [`CAPACITY`](Self::CAPACITY) interactions.
    pub fn new() -> Self {
        Self::with_capacity(Self::CAPACITY)
    }

    /// As [`new`](Self::new), with this capacity of each inbox, at least 1 and at most 65,536. Each inbox allocates
    /// its room when its peer joins.
    ///
    /// ```
    /// use turnwise::{CommsError, CommsRuntime, InteractionContent, LocalComms};
    ///
    /// let comms = LocalComms::with_capacity(1);
    /// let (alice, bob) = (comms.join("alice")?, comms.join("bob")?);
    /// alice.send("bob", InteractionContent::message("first"))?;
    /// let refused = alice.send("bob", InteractionContent::message("second"));
    /// assert!(matches!(refused, Err(CommsError::Full { to, .. }) if to == "bob")); // at once: sending never waits
    /// # drop(bob);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_capacity(interactions: usize) -> Self {
        let peers = RwLock::new(BTreeMap::new());
        Self { network: Arc::new(Network { capacity: interactions.clamp(1, Self::MAX_CAPACITY), peers }) }
    }

    /// Joins the network under a name.
    ///
    /// # Errors
    /// [`NameTaken`], where another peer has the name.
    pub fn join(&self, name: impl Into<String>) -> Result<LocalPeer, NameTaken> {
        let name = name.into();
        let (sender, inbox) = bounded(self.network.capacity);
        {
            let mut peers = self.network.peers.write();
            if peers.contains_key(&name) {
                return Err(NameTaken { name });
            }
            peers.insert(name.clone(), sender);
        }
        let endpoint =
            PeerEndpoint { name, network: Arc::clone(&self.network), inbox, has_left: AtomicBool::new(false) };
        Ok(LocalPeer { endpoint: Arc::new(endpoint) })
    }

    /// Returns the names of all peers, sorted.
    ///
    /// ```
    /// use turnwise::{CommsRuntime, LocalComms};
    ///
    /// let comms = LocalComms::new();
    /// let (bob, alice) = (comms.join("bob")?, comms.join("alice")?);
    /// assert_eq!(comms.peers(), ["alice", "bob"]);
    /// assert_eq!(alice.peers(), ["bob"]); // without itself
    /// # drop(bob);
    /// # Ok::<(), turnwise::NameTaken>(())
    /// ```
    pub fn peers(&self) -> Vec<String> {
        self.network.peers.read().keys().cloned().collect()
    }
}

impl Default for LocalComms {
    fn default() -> Self {
        Self::new()
    }
}

impl LocalPeer {
    /// Returns the peer's name.
    pub fn name(&self) -> &str {
        &self.endpoint.name
    }

    /// Returns the peer's endpoint for other holders, such as
    /// [`SessionAgent::comms_runtime`](crate::SessionAgent::comms_runtime). It does not keep the name: once the peer
    /// is dropped, sending fails with [`CommsError::Closed`].
    pub fn runtime(&self) -> Arc<dyn CommsRuntime> {
        Arc::clone(&self.endpoint) as Arc<dyn CommsRuntime>
    }
}

impl Drop for LocalPeer {
    fn drop(&mut self) {
        self.endpoint.has_left.store(true, Ordering::SeqCst);
        let sender = self.endpoint.network.peers.write().remove(&self.endpoint.name);
        // A sender that has looked the name up before still sends into a channel that nothing reads. For it the
        // message arrived a moment before the peer left.
        drop(sender);
        while self.endpoint.inbox.try_recv().is_ok() {}
    }
}

impl CommsRuntime for LocalPeer {
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError> {
        self.endpoint.send(to, content)
    }

    fn peers(&self) -> Vec<String> {
        self.endpoint.peers()
    }

    fn inbox(&self) -> Option<Receiver<InboxInteraction>> {
        self.endpoint.inbox()
    }
}

impl CommsRuntime for PeerEndpoint {
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError> {
        let to_owned = || to.to_owned();
        if self.has_left.load(Ordering::SeqCst) {
            return Err(CommsError::Closed { to: to_owned(), content });
        }
        let peer = self.network.peers.read().get(to).cloned();
        let Some(peer) = peer else {
            return Err(CommsError::UnknownPeer { to: to_owned(), content });
        };
        let interaction = InboxInteraction::new(self.name.as_str(), content);
        let id = interaction.id;
        match peer.try_send(interaction) {
            Ok(()) => Ok(id),
            Err(TrySendError::Full(unsent)) => Err(CommsError::Full { to: to_owned(), content: unsent.content }),
            Err(TrySendError::Disconnected(unsent)) => {
                Err(CommsError::Closed { to: to_owned(), content: unsent.content })
            }
        }
    }

    fn peers(&self) -> Vec<String> {
        let peers = self.network.peers.read();
        peers.keys().filter(|name| **name != self.name).cloned().collect()
    }

    fn inbox(&self) -> Option<Receiver<InboxInteraction>> {
        Some(self.inbox.clone())
    }
}

impl fmt::Debug for LocalComms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalComms").field("peers", &self.peers()).finish()
    }
}

impl fmt::Debug for LocalPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalPeer")
            .field("name", &self.endpoint.name)
            .field("unread", &self.endpoint.inbox.len())
            .finish_non_exhaustive()
    }
}
