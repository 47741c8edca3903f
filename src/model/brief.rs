//! `Debug` output for texts of the conversation.

use std::fmt;

/// Shows a text by its length, so that prompts and answers do not end up in logs.
pub(crate) struct Brief<'a>(pub(crate) &'a str);

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}
