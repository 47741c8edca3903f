//! The prompts of a session that have no answer yet. The reader marks them as cancelled; the worker answers them.
//!
//! The head of [`acp`](super) draws the race between a cancellation and the start of a turn.

use agent_client_protocol_schema::v1::RequestId;

use crate::model::TurnId;
use crate::sync::{Arc, Mutex};

/// One prompt.
#[derive(Debug)]
pub(super) struct Prompt {
    pub(super) id: RequestId,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_cancelled: bool,
    /// The turn, once it has begun and until it is interrupted.
    turn: Option<TurnId>,
}

impl Prompt {
    /// Marks the prompt. Returns the turn to interrupt, if it has begun, and only once.
    fn cancel(&self) -> Option<TurnId> {
        let mut state = self.state.lock();
        state.is_cancelled = true;
        state.turn.take()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.state.lock().is_cancelled
    }

    /// Stores the turn. Returns whether the prompt was cancelled before: then the worker has to interrupt the turn.
    pub(super) fn has_begun(&self, turn: TurnId) -> bool {
        let mut state = self.state.lock();
        state.turn = Some(turn).filter(|_| !state.is_cancelled);
        state.is_cancelled
    }
}

/// The prompts of one session without an answer, in the order in which they arrived.
#[derive(Debug, Default)]
pub(super) struct Prompts {
    unanswered: Mutex<Vec<Arc<Prompt>>>,
}

impl Prompts {
    pub(super) fn add(&self, id: RequestId) -> Arc<Prompt> {
        let prompt = Arc::new(Prompt { id, state: Mutex::default() });
        self.unanswered.lock().push(Arc::clone(&prompt));
        prompt
    }

    pub(super) fn remove(&self, prompt: &Arc<Prompt>) {
        self.unanswered.lock().retain(|other| !Arc::ptr_eq(other, prompt));
    }

    /// Takes every prompt, for a worker that ends without answering them.
    pub(super) fn take_all(&self) -> Vec<Arc<Prompt>> {
        std::mem::take(&mut *self.unanswered.lock())
    }

    /// Marks every prompt. Returns the turns to interrupt, the latest first: a queued turn must not start because the
    /// turn before it was interrupted.
    pub(super) fn cancel_all(&self) -> Vec<TurnId> {
        let prompts = self.unanswered.lock().clone();
        prompts.iter().rev().filter_map(|prompt| prompt.cancel()).collect()
    }

    /// As [`cancel_all`](Self::cancel_all), for the prompts with this id of a request.
    pub(super) fn cancel(&self, id: &RequestId) -> Vec<TurnId> {
        let prompts = self.unanswered.lock().clone();
        prompts.iter().rev().filter(|prompt| prompt.id == *id).filter_map(|prompt| prompt.cancel()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c73_a_cancellation_is_seen_by_the_reader_or_by_the_worker() {
        let prompts = Prompts::default();
        let (begun, waiting) = (prompts.add(RequestId::Number(1)), prompts.add(RequestId::Number(2)));
        assert!(!begun.has_begun(TurnId::new(7)));
        assert_eq!(prompts.cancel_all(), [TurnId::new(7)]);
        // The second one has not begun: its worker sees the mark.
        assert!(waiting.has_begun(TurnId::new(8)));
        assert!(begun.is_cancelled() && waiting.is_cancelled());
        // Each turn is interrupted once, by one of them.
        assert_eq!(prompts.cancel_all(), []);
        assert_eq!(prompts.cancel(&RequestId::Number(2)), []);
    }

    #[test]
    fn c73_turns_are_interrupted_the_latest_first_and_answered_ones_are_not() {
        let prompts = Prompts::default();
        let [answered, running, queued] = [1, 2, 3].map(|id| prompts.add(RequestId::Number(id)));
        for (prompt, turn) in [(&answered, 6), (&running, 7), (&queued, 8)] {
            assert!(!prompt.has_begun(TurnId::new(turn)));
        }
        prompts.remove(&answered);
        assert_eq!(prompts.cancel(&RequestId::Number(1)), []);
        assert_eq!(prompts.cancel_all(), [TurnId::new(8), TurnId::new(7)]);
        let late = prompts.add(RequestId::Number(4));
        assert!(!late.has_begun(TurnId::new(9)));
        assert_eq!(prompts.cancel(&RequestId::Number(4)), [TurnId::new(9)]);
    }
}
