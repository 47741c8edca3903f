//! The keys that matter while an answer is written, from the bytes of a terminal.

use std::mem;
use std::str;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Text(char),
    Enter,
    /// Alt-Enter.
    Steer,
    Backspace,
    /// Ctrl-W.
    EraseWord,
    /// Ctrl-U.
    EraseLine,
    /// Ctrl-D.
    End,
}

/// Turns bytes into keys. A character may arrive in several reads; an escape sequence arrives in one.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    state: State,
    /// The first bytes of a character.
    begun: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Ground,
    /// After an escape.
    Escape,
    /// After an escape and `O`: one more byte.
    Function,
    /// After an escape and `[`: all bytes up to a letter or a tilde.
    Sequence,
}

impl Decoder {
    /// The keys of one read.
    pub(crate) fn keys(&mut self, bytes: &[u8]) -> Vec<Key> {
        let keys = bytes.iter().filter_map(|byte| self.key(*byte)).collect();
        // An escape at the end of a read is the key itself, which has no effect here.
        if matches!(self.state, State::Escape) {
            self.state = State::Ground;
        }
        keys
    }

    fn key(&mut self, byte: u8) -> Option<Key> {
        match mem::take(&mut self.state) {
            State::Ground => self.plain(byte),
            State::Escape => self.escaped(byte),
            State::Function => None,
            State::Sequence => {
                if !(0x40..=0x7e).contains(&byte) {
                    self.state = State::Sequence;
                }
                None
            }
        }
    }

    fn plain(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'\x1b' => {
                self.state = State::Escape;
                None
            }
            b'\r' | b'\n' => Some(Key::Enter),
            b'\t' => Some(Key::Text(' ')),
            0x08 | 0x7f => Some(Key::Backspace),
            0x04 => Some(Key::End),
            0x15 => Some(Key::EraseLine),
            0x17 => Some(Key::EraseWord),
            0x00..0x20 => None,
            _ => self.character(byte),
        }
    }

    fn escaped(&mut self, byte: u8) -> Option<Key> {
        match byte {
            b'\r' | b'\n' => return Some(Key::Steer),
            b'[' => self.state = State::Sequence,
            b'O' => self.state = State::Function,
            b'\x1b' => self.state = State::Escape,
            // Another key with Alt.
            _ => {}
        }
        None
    }

    /// Adds a byte of a character in UTF-8. Bytes that are not UTF-8 have no effect.
    fn character(&mut self, byte: u8) -> Option<Key> {
        self.begun.push(byte);
        match str::from_utf8(&self.begun) {
            Ok(text) => {
                // U+0080 to U+009F control a terminal, as the bytes below U+0020 do.
                let symbol = text.chars().next().filter(|symbol| !symbol.is_control());
                self.begun.clear();
                symbol.map(Key::Text)
            }
            Err(error) if error.error_len().is_some() => {
                // The byte may begin the next character.
                let is_alone = self.begun.len() == 1;
                self.begun.clear();
                if is_alone {
                    None
                } else {
                    self.character(byte)
                }
            }
            Err(_) => None,
        }
    }
}
