//! The sources of session and interaction ids, and of turn and event numbers.

pub(crate) mod numbers;

#[cfg(feature = "testkit")]
pub(crate) mod seeded;

use crate::model::{InteractionId, SessionId};

/// A service's source of ids. A cheap handle: clones are the same source.
#[derive(Clone, Debug, Default)]
pub(crate) enum Ids {
    /// Time and random bits: every id is new.
    #[default]
    System,
    /// A seed; see [`seeded`].
    #[cfg(feature = "testkit")]
    Seeded(seeded::SeededIds),
}

impl Ids {
    pub(crate) fn session_id(&self) -> SessionId {
        match self {
            Self::System => SessionId::new(),
            #[cfg(feature = "testkit")]
            Self::Seeded(ids) => ids.next_session_id(),
        }
    }

    pub(crate) fn interaction_id(&self) -> InteractionId {
        match self {
            Self::System => InteractionId::new(),
            #[cfg(feature = "testkit")]
            Self::Seeded(ids) => ids.next_interaction_id(),
        }
    }
}
