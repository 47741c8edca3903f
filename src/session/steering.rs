//! Steering: messages for the turn that is admitted now, and for no other.
//!
//! A message is put into the session's inbox together with its turn's id, while the turn is admitted:
//!
//! ```text
//! the end of the turn                        a caller that steers
//! the agent's last call returns              lock the admissions
//! lock the inbox                               the active entry is the turn that it means
//!   set the turn as the one that is over       lock the inbox
//!   take the messages that it has not taken      the turn is not over: push the message, with its id
//! unlock; fail these messages                  unlock
//! settle, emit the last event                unlock
//! lock the admissions; replace the entry
//! ```
//!
//! - **The two locks of the caller are nested.** Without the first one, the turn that it means could end after the look
//!   at the entry, and several others after it. The inbox knows only the turn that was over last, and would accept the
//!   message.
//! - **The end of the turn is set before its messages fail.** So each message is in the queue before that, and then fails
//!   or has been taken, or it is refused.
//! - In host mode the agent's last call is the one after which host mode ends. What an interaction has not taken is run as
//!   the next one.

use crate::error::SessionError;
use crate::inbox::injector::InteractionSubscription;
use crate::inbox::queue::Refused;
use crate::model::{InteractionContent, TurnId};

use super::handle::SessionHandle;

impl SessionHandle {
    /// Puts a message for the admitted turn into the inbox, if that turn is `only`, or `only` is `None`.
    pub(crate) fn steer(
        &self,
        only: Option<TurnId>,
        content: InteractionContent,
    ) -> Result<InteractionSubscription, SessionError> {
        let id = self.id();
        let inbox = &self.shared().inbox;
        let (message, subscription) = inbox.steering_message(content);
        let admissions = self.admissions.lock();
        if let Some(error) = self.final_refusal() {
            return Err(error);
        }
        match admissions.turn() {
            Some(turn) if only.is_none_or(|only| only == turn) => match inbox.steer(turn, message) {
                Ok(()) => Ok(subscription),
                Err(Refused::SteeringOver) => Err(SessionError::NotRunning { id }),
                Err(Refused::Full) => Err(SessionError::InboxFull { id, capacity: inbox.capacity() }),
                // The session is being closed, or faults, in this instant. If neither, the turn has faulted, and a restart
                // follows it.
                Err(Refused::Closed) => Err(self.final_refusal().unwrap_or(SessionError::NotRunning { id })),
            },
            _ => Err(SessionError::NotRunning { id }),
        }
    }
}
