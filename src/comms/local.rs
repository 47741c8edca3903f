//! Comms between the sessions of one process.

use std::collections::BTreeMap;
use std::fmt;

use crate::model::{InboxInteraction, InteractionContent, InteractionId};
use crate::sync::{bounded, Arc, AtomicBool, Ordering, Receiver, RwLock, Sender, TrySendError};

use super::{CommsError, CommsRuntime};

/// Connects sessions of one process by name, of one service or of several. A cheap handle: clones are the same network.
///
/// An agent joins when it is built and keeps its [`LocalPeer`]: its name is taken for exactly as long as that lives, so it is
/// free again when the session has ended.
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

/// Somebody has this name already.
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
    /// Which name.
    pub name: String,
}

/// A place in a [`LocalComms`]: a name and an inbox. Dropping it gives both up, and what was not read.
///
/// ```
/// use turnwise::{CommsError, InteractionContent, LocalComms};
///
/// let comms = LocalComms::new();
/// let peer = comms.join("alice")?;
/// let line = peer.runtime(); // what an agent's `comms_runtime` gives out
/// assert_eq!((peer.name(), comms.peers()), ("alice", vec!["alice".to_owned()]));
/// drop(peer);
/// assert!(comms.peers().is_empty());
/// assert!(matches!(line.send("bob", InteractionContent::Dismiss), Err(CommsError::Closed { .. })));
/// # Ok::<(), turnwise::NameTaken>(())
/// ```
#[must_use = "dropping it leaves the network"]
pub struct LocalPeer {
    line: Arc<Line>,
}

/// What others may hold of a peer; it does not keep the name.
struct Line {
    name: String,
    network: Arc<Network>,
    inbox: Receiver<InboxInteraction>,
    left: AtomicBool,
}

impl LocalComms {
    /// How many interactions an inbox has room for where nothing else is said.
    pub const CAPACITY: usize = 256;

    const MOST: usize = 1 << 16;

    /// A network without peers, whose inboxes have room for [`CAPACITY`](Self::CAPACITY) interactions each.
    pub fn new() -> Self {
        Self::with_capacity(Self::CAPACITY)
    }

    /// As [`new`](Self::new), with room for so many interactions, but at least for one and at most for 65,536: the room is there from
    /// the start.
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
        Self { network: Arc::new(Network { capacity: interactions.clamp(1, Self::MOST), peers }) }
    }

    /// Takes a name.
    ///
    /// # Errors
    /// [`NameTaken`].
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
        let line = Line { name, network: Arc::clone(&self.network), inbox, left: AtomicBool::new(false) };
        Ok(LocalPeer { line: Arc::new(line) })
    }

    /// The names that are taken, in their order.
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
    /// The peer's name.
    pub fn name(&self) -> &str {
        &self.line.name
    }

    /// The same line for others, such as [`SessionAgent::comms_runtime`](crate::SessionAgent::comms_runtime). It does not
    /// keep the name: once the peer is dropped, sending is [`CommsError::Closed`].
    pub fn runtime(&self) -> Arc<dyn CommsRuntime> {
        Arc::clone(&self.line) as Arc<dyn CommsRuntime>
    }
}

impl Drop for LocalPeer {
    fn drop(&mut self) {
        self.line.left.store(true, Ordering::SeqCst);
        let sender = self.line.network.peers.write().remove(&self.line.name);
        // Whoever has looked the name up before still sends into a channel that nobody reads: as if a moment earlier.
        drop(sender);
        while self.line.inbox.try_recv().is_ok() {}
    }
}

impl CommsRuntime for LocalPeer {
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError> {
        self.line.send(to, content)
    }

    fn peers(&self) -> Vec<String> {
        self.line.peers()
    }

    fn inbox(&self) -> Option<Receiver<InboxInteraction>> {
        self.line.inbox()
    }
}

impl CommsRuntime for Line {
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError> {
        let to_owned = || to.to_owned();
        if self.left.load(Ordering::SeqCst) {
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
            Err(TrySendError::Full(back)) => Err(CommsError::Full { to: to_owned(), content: back.content }),
            Err(TrySendError::Disconnected(back)) => Err(CommsError::Closed { to: to_owned(), content: back.content }),
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
            .field("name", &self.line.name)
            .field("unread", &self.line.inbox.len())
            .finish_non_exhaustive()
    }
}
