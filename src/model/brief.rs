//! How `Debug` shows what people wrote: by its length.

use std::fmt;

/// Stands in for a text in `Debug` output, so that prompts and answers do not end up in logs.
pub(crate) struct Brief<'a>(pub(crate) &'a str);

impl fmt::Debug for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}
