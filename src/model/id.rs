//! The ids of sessions, turns, interactions and skills.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use uuid::Uuid;

/// The error of a text that is not a valid id.
///
/// ```
/// use turnwise::{InvalidId, SessionId};
///
/// let error: InvalidId = "the third session".parse::<SessionId>().unwrap_err();
/// assert!(error.to_string().starts_with("not a valid id: "));
/// ```
///
/// In a function that returns a [`SessionError`](crate::SessionError) or an [`AgentError`](crate::AgentError), `?`
/// converts it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid id: {0}")]
pub struct InvalidId(Cause);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Cause {
    #[error(transparent)]
    Uuid(uuid::Error),
    #[error(transparent)]
    Number(ParseIntError),
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a fresh id: a UUID of version 7, which sorts by creation time.
            #[allow(clippy::new_without_default)] // A `default()` that makes a fresh id would surprise.
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// Makes the id with this UUID, of any version.
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the id's last six hexadecimal digits, for display. They tell a few ids apart; the first digits
            /// do not, since they hold the time. Not unique: 24 random bits.
            ///
            /// ```
            #[doc = concat!("let id = turnwise::", stringify!($name), "::new();")]
            /// assert!(id.to_string().ends_with(&id.short()));
            /// ```
            #[must_use]
            pub fn short(&self) -> String {
                format!("{:06x}", self.0.as_u128() & 0xff_ffff)
            }

            /// Returns the id's UUID.
            pub const fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::parse_str(text).map(Self).map_err(|error| InvalidId(Cause::Uuid(error)))
            }
        }
    };
}

uuid_id! {
    /// The id of a session. The library assigns it before the build.
    ///
    /// ```
    /// use turnwise::SessionId;
    ///
    /// let id = SessionId::new();
    /// assert_eq!(id.to_string().parse::<SessionId>()?, id);
    /// # Ok::<(), turnwise::InvalidId>(())
    /// ```
    SessionId
}

uuid_id! {
    /// The id of an interaction: a message that reaches a session through its inbox or its peers.
    ///
    /// ```
    /// use turnwise::{CommsRuntime, InteractionContent, InteractionId, LocalComms};
    ///
    /// let comms = LocalComms::new();
    /// let (alice, bob) = (comms.join("alice")?, comms.join("bob")?);
    /// let sent: InteractionId = alice.send("bob", InteractionContent::message("hello"))?;
    /// assert_eq!(bob.inbox().expect("a local peer has one").recv()?.id, sent);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    InteractionId
}

#[cfg(feature = "redis")]
uuid_id! {
    /// The id of a request to a cluster, by which a client asks later what has become of it:
    /// [`ClusterService::outcome`](crate::cluster::ClusterService::outcome).
    ///
    /// ```
    /// use turnwise::RequestId;
    ///
    /// let id = RequestId::new();
    /// assert_eq!(id.to_string().parse::<RequestId>()?, id);
    /// # Ok::<(), turnwise::InvalidId>(())
    /// ```
    RequestId
}

/// The id of a turn in its session: 1 for the first turn, rising by one with every admitted turn.
///
/// A session in memory that resumes a history counts from 1 again. A stored session continues counting across unloads
/// and restarts, so an old id never names a new turn. After the process was killed it skips some numbers.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest, TurnId};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt))), 1);
/// let first = service.create_session(CreateSessionRequest::new("hello"))?;
/// let second = service.start_turn(first.session_id, StartTurnRequest::new("again"))?;
/// assert_eq!(first.turn_id, TurnId::new(1));
/// assert_eq!(second.turn_id.get(), 2);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct TurnId(u64);

impl TurnId {
    /// Makes the id of the turn with this number. 0 names no turn.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Returns the turn's number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Parses what `Display` shows.
///
/// ```
/// use turnwise::TurnId;
///
/// assert_eq!("7".parse::<TurnId>()?, TurnId::new(7));
/// assert!("seven".parse::<TurnId>().is_err());
/// # Ok::<(), turnwise::SessionError>(())
/// ```
impl FromStr for TurnId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self).map_err(|error| InvalidId(Cause::Number(error)))
    }
}

impl fmt::Display for TurnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The id of a skill: a path of names separated by `/`. The last name is the skill's own.
///
/// ```
/// use turnwise::SkillId;
///
/// let skill = SkillId::new("office/mail/triage");
/// assert_eq!(skill.collection(), Some("office/mail"));
/// assert_eq!(skill.skill_name(), "triage");
/// assert_eq!(SkillId::new("triage").collection(), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(transparent))]
pub struct SkillId(String);

impl SkillId {
    /// Makes the id of the skill at this path.
    pub fn new(path: impl Into<String>) -> Self {
        Self(path.into())
    }

    /// Returns the whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the path before the last `/`; `None` for a skill at the root.
    pub fn collection(&self) -> Option<&str> {
        self.0.rsplit_once('/').map(|(collection, _)| collection)
    }

    /// Returns the name after the last `/`.
    pub fn skill_name(&self) -> &str {
        self.0.rsplit_once('/').map_or(self.as_str(), |(_, name)| name)
    }
}

impl fmt::Display for SkillId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for SkillId {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<String> for SkillId {
    fn from(path: String) -> Self {
        Self(path)
    }
}
