//! The columns of a terminal, for output that continues a row which other output has left.

use unicode_width::UnicodeWidthChar;

const TAB: usize = 8;

/// The column of the cursor after this text, from 0 at the left margin. The result is `width` if the text ends in the
/// last column: a terminal begins the next row only with the next character.
pub(crate) fn after(column: usize, text: &str, width: usize) -> usize {
    text.chars().fold(column, |column, symbol| match symbol {
        '\n' => 0,
        // A tab stays in its row.
        '\t' => ((column / TAB + 1) * TAB).min(width - 1).max(column),
        _ => {
            let columns = symbol.width().unwrap_or(0);
            if columns > 0 && column + columns > width {
                columns
            } else {
                column + columns
            }
        }
    })
}

/// The end of a text that fits into this width, in whole characters.
pub(crate) fn tail(text: &str, width: usize) -> &str {
    let mut left = width;
    let mut begin = text.len();
    for (at, symbol) in text.char_indices().rev() {
        let Some(rest) = left.checked_sub(symbol.width().unwrap_or(0)) else { break };
        (left, begin) = (rest, at);
    }
    &text[begin..]
}
