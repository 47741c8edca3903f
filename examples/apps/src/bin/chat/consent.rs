//! The consent of the user to tools that change something.

use std::collections::HashSet;
use std::sync::Arc;

use turnwise::{Cancelled, InputError, TurnContext};

use crate::asking::{self, ALWAYS, ONCE};
use crate::options::Options;

/// What the user has allowed in one conversation.
pub(crate) struct Consent {
    options: Arc<Options>,
    /// The tools that may run without another question. Kept in memory only: a conversation from a file asks again.
    always: HashSet<String>,
}

impl Consent {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        Self { options, always: HashSet::new() }
    }

    /// Asks whether a tool may do what `what` says. Returns the refusal, as a text for the model; `None` if the tool may
    /// run.
    ///
    /// # Errors
    /// Fails if the turn is cancelled before the user has answered.
    pub(crate) fn refusal(&mut self, tool: &str, what: &str, turn: &TurnContext) -> Result<Option<String>, Cancelled> {
        if self.options.allow.contains(tool) || self.always.contains(tool) {
            return Ok(None);
        }
        if !self.options.can_ask {
            let why = format!("the user cannot be asked without a terminal (--allow {tool} allows it)");
            return Ok(Some(format!("refused: {why}")));
        }
        // The turn waits here, until the user has answered or the turn is cancelled.
        match turn.request_input(asking::request(tool, what)) {
            Ok(answer) if answer == ONCE => Ok(None),
            Ok(answer) if answer == ALWAYS => {
                self.always.insert(tool.to_owned());
                Ok(None)
            }
            Ok(_) | Err(InputError::Declined { reason: None }) => Ok(Some("refused by the user".into())),
            Err(InputError::Declined { reason: Some(reason) }) => Ok(Some(format!("refused by the user: {reason}"))),
            Err(InputError::Cancelled(cancelled)) => Err(cancelled),
            Err(error) => Ok(Some(format!("refused: {error}"))),
        }
    }
}
