//! Ids that are the same in every run of a test.

use std::fmt;

use uuid::{Builder, Uuid};

use crate::model::{InteractionId, SessionId};
use crate::sync::{Arc, AtomicU64, Ordering};

/// The start of the ids' time, in milliseconds since 1970: the first second of 2024. Each id is a millisecond later
/// than the one before.
const EPOCH: u64 = 1_704_067_200_000;

/// Gives out ids from a seed, for [`ServiceConfig::ids`](crate::ServiceConfig::ids). The same seed gives the same ids
/// in the same order.
///
/// They are UUIDs of version 7 like any others, and sort in their order. Sessions and interactions have a sequence
/// each. So the id of the second session does not depend on the messages injected into the first. If several threads
/// create sessions at the same time, which session gets which id is not determined.
///
/// A cheap handle: clones share their sequences, so services with clones of one source never have the same id. Two
/// sources with the same seed give the same ids, so the sessions of one service must not get theirs from both.
///
/// ```
/// use turnwise::testkit::SeededIds;
///
/// let (ids, again) = (SeededIds::new(7), SeededIds::new(7));
/// let (first, second) = (ids.next_session_id(), ids.next_session_id());
/// assert!(first < second);
/// assert_eq!((first, second), (again.next_session_id(), again.next_session_id()));
/// assert_ne!(first, SeededIds::new(8).next_session_id());
/// ```
#[derive(Clone)]
pub struct SeededIds {
    shared: Arc<Sequences>,
}

struct Sequences {
    seed: u64,
    sessions: AtomicU64,
    interactions: AtomicU64,
}

impl SeededIds {
    /// Makes the source of this seed's ids, from the first on.
    pub fn new(seed: u64) -> Self {
        let (sessions, interactions) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { shared: Arc::new(Sequences { seed, sessions, interactions }) }
    }

    /// Takes the next session id. A test may give it to
    /// [`SessionSpec::session_id`](crate::SessionSpec#structfield.session_id); the service does not give it out again.
    pub fn next_session_id(&self) -> SessionId {
        SessionId::from_uuid(self.shared.uuid(&self.shared.sessions, 0))
    }

    /// Takes the next interaction id.
    pub fn next_interaction_id(&self) -> InteractionId {
        InteractionId::from_uuid(self.shared.uuid(&self.shared.interactions, 1))
    }
}

impl Sequences {
    /// The next id of a sequence. `kind` distinguishes the sequences.
    fn uuid(&self, sequence: &AtomicU64, kind: u64) -> Uuid {
        // ORDERING: Relaxed; only the uniqueness of the number matters, and nothing is published with it.
        let number = sequence.fetch_add(1, Ordering::Relaxed);
        let first = mixed(self.seed ^ mixed(2 * number + kind));
        let second = mixed(first);
        let mut random = [0; 10];
        random[..8].copy_from_slice(&first.to_be_bytes());
        random[8..].copy_from_slice(&second.to_be_bytes()[..2]);
        Builder::from_unix_timestamp_millis(EPOCH + number, &random).into_uuid()
    }
}

/// The finalizer of SplitMix64: scatters neighbouring numbers.
fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl fmt::Debug for SeededIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeededIds").field("seed", &self.shared.seed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_of_version_7_unique_and_in_order() {
        let ids = SeededIds::new(1);
        let made: Vec<Uuid> = (0..10_000).map(|_| *ids.next_session_id().as_uuid()).collect();
        assert!(made.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(made.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
        let others: HashSet<Uuid> = (0..10_000).map(|_| *ids.next_interaction_id().as_uuid()).collect();
        assert!(made.iter().all(|id| !others.contains(id)));
    }
}
