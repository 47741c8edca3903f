//! What a client remembers of sessions: the key of waits for each, and how many of its turns were answered.
//!
//! The key is the same for every handle of a session: that of the target of a wait. The waits of a session thread belong to
//! the life of its own session, which has another key. So a circle of several sessions is not found, also if their workers
//! are in this process. A session that waits for itself is found by its [id](super::core::Core::wait_key). The count of
//! answers is passed on with every turn that is begun: an engine that has fewer has lost some.

use indexmap::IndexMap;

use crate::model::SessionId;
use crate::reentrancy::WaitKey;
use crate::sync::{Arc, AtomicU64, Mutex, Ordering};

/// How many sessions are remembered. Those in use do not count.
const REMEMBERED: usize = 16_384;

#[derive(Default)]
pub(super) struct KnownSessions {
    /// In the order in which they were met.
    sessions: Mutex<IndexMap<SessionId, Arc<Known>>>,
}

pub(super) struct Known {
    pub(super) key: WaitKey,
    answers: AtomicU64,
}

impl KnownSessions {
    pub(super) fn get(&self, id: SessionId) -> Arc<Known> {
        let mut sessions = self.sessions.lock();
        if let Some(known) = sessions.get(&id) {
            return Arc::clone(known);
        }
        if sessions.len() >= 2 * REMEMBERED {
            let mut to_forget = sessions.len() - REMEMBERED;
            // A session that is in use, by a request or a stream, has another share.
            sessions.retain(|_, known| {
                let is_kept = to_forget == 0 || Arc::strong_count(known) > 1;
                to_forget -= usize::from(!is_kept);
                is_kept
            });
        }
        let known = Arc::new(Known { key: WaitKey::new(), answers: AtomicU64::new(0) });
        sessions.insert(id, Arc::clone(&known));
        known
    }
}

impl Known {
    /// How many turns are known to be answered.
    pub(super) fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }

    pub(super) fn note_answers(&self, answers: u64) {
        self.answers.fetch_max(answers, Ordering::SeqCst);
    }

    /// Forgets the answers, of which the engine has lost some.
    pub(super) fn forget_answers(&self) {
        self.answers.store(0, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c84_the_highest_count_of_answers_is_remembered_until_it_is_forgotten() {
        let (sessions, id) = (KnownSessions::default(), SessionId::new());
        sessions.get(id).note_answers(4);
        sessions.get(id).note_answers(3);
        assert_eq!(sessions.get(id).answers(), 4);
        sessions.get(id).forget_answers();
        assert_eq!(sessions.get(id).answers(), 0);
    }

    #[test]
    fn c84_sessions_in_use_are_remembered_and_others_up_to_a_limit() {
        let (sessions, first, second) = (KnownSessions::default(), SessionId::new(), SessionId::new());
        let in_use = sessions.get(first);
        sessions.get(second).note_answers(1);
        (0..2 * REMEMBERED).for_each(|_| drop(sessions.get(SessionId::new())));
        assert_eq!(sessions.get(first).key, in_use.key);
        assert_eq!(sessions.get(second).answers(), 0);
        assert!(sessions.sessions.lock().len() <= 2 * REMEMBERED);
    }
}
