//! The parts of the line that is typed while an answer is written: keys, the line, the columns, the answers.

use turnwise::InputResponse;

use crate::asking;
use crate::columns::{after, tail};
use crate::draft::{Draft, Typed};
use crate::keys::{Decoder, Key};

/// The keys of these bytes, if they arrive in one read.
fn keys(bytes: &str) -> Vec<Key> {
    Decoder::default().keys(bytes.as_bytes())
}

fn texts(text: &str) -> Vec<Key> {
    text.chars().map(Key::Text).collect()
}

fn line(text: &str) -> Option<Typed> {
    Some(Typed::Line(text.into()))
}

/// A line that is typed with these keys, and what has come of it.
fn typed(bytes: &str) -> (Draft, Vec<Typed>) {
    let mut draft = Draft::default();
    let typed = keys(bytes).into_iter().filter_map(|key| draft.press(key)).collect();
    (draft, typed)
}

#[test]
fn keys_are_recognised() {
    assert_eq!(keys("a\tb"), texts("a b"));
    assert_eq!(keys("\r\n"), [Key::Enter, Key::Enter]);
    assert_eq!(keys("\x08\x7f"), [Key::Backspace, Key::Backspace]);
    assert_eq!(keys("\x04\x15\x17"), [Key::End, Key::EraseLine, Key::EraseWord]);
    assert_eq!(keys("a\x1b\rb\x1b\n"), [Key::Text('a'), Key::Steer, Key::Text('b'), Key::Steer]);
    assert_eq!(keys("\0\x01\x1f\u{9b}"), []);
}

#[test]
fn escape_sequences_have_no_effect() {
    for sequence in ["\x1b[A", "\x1b[1;5C", "\x1b[3~", "\x1bOP", "\x1bx", "\x1b\x1b[D"] {
        assert_eq!(keys(&format!("a{sequence}b")), texts("ab"), "{sequence:?}");
    }
    // An escape at the end of a read is the key itself.
    let mut decoder = Decoder::default();
    assert_eq!(decoder.keys(b"a\x1b"), texts("a"));
    assert_eq!(decoder.keys(b"[b"), texts("[b"));
}

#[test]
fn a_character_may_arrive_in_several_reads() {
    let text = "a\u{e9}\u{20ac}\u{1f600}z";
    for part in 1..text.len() {
        let mut decoder = Decoder::default();
        let read: Vec<Key> = text.as_bytes().chunks(part).flat_map(|bytes| decoder.keys(bytes)).collect();
        assert_eq!(read, texts(text), "in parts of {part}");
    }
    // Bytes that are no character are left out, and the next character is read.
    assert_eq!(
        Decoder::default().keys(b"\xffa\xe2\x82b\xe2\xc3\xa9\xf0\x9f\r"),
        [texts("ab\u{e9}"), vec![Key::Enter]].concat()
    );
    let mut decoder = Decoder::default();
    decoder.keys(b"\xf0\x9f");
    assert_eq!(decoder.keys(b"\x15c"), [Key::EraseLine, Key::Text('c')]);
}

#[test]
fn a_line_is_typed_and_corrected() {
    let (draft, done) = typed("on\x7fne two  three\x17\x17four\rfive");
    assert_eq!(done, [Typed::Line("one four".into())]);
    assert_eq!(draft.shown(), "five");
    assert_eq!(typed("one\x15two\r").1, [Typed::Line("two".into())]);
    assert_eq!(typed("caf\u{e9}\u{3000}\u{e9}\u{e9}\x17").0.shown(), "caf\u{e9}\u{3000}");
    assert_eq!(typed("a\x7f\x7f").0.shown(), "");
}

#[test]
fn an_empty_line_is_no_line_and_the_end_of_one_is_no_end_of_the_input() {
    assert_eq!(typed("\r  \r").1, []);
    assert_eq!(typed("a\x04").1, []);
    assert_eq!(typed("a\x15\x04").1, [Typed::End]);
}

#[test]
fn a_line_with_a_backslash_at_its_end_continues() {
    let (mut draft, done) = typed("one\\\rtwo");
    assert_eq!((draft.shown(), done), ("two", vec![]));
    assert_eq!(draft.press(Key::Enter), line("one\ntwo"));
    draft.put_back("again");
    assert_eq!(draft.press(Key::Enter), line("again"));
}

#[test]
fn a_line_for_the_answer_is_marked_or_ends_with_alt_enter() {
    let steered = |text: &str| vec![Typed::Steer(text.into())];
    assert_eq!(typed("! shorter \r").1, steered("shorter"));
    assert_eq!(typed(" !shorter\r").1, steered("shorter"));
    assert_eq!(typed("shorter \x1b\r").1, steered("shorter"));
    assert_eq!(typed("!shorter\x1b\r").1, steered("shorter"));
    assert_eq!(typed("!\r").1, [Typed::Line("!".into())]);
    assert_eq!(typed("so!\r").1, [Typed::Line("so!".into())]);
    assert_eq!(typed("  \x1b\r").1, []);
}

#[test]
fn the_columns_of_an_answer_are_counted() {
    for (column, text, width, end) in [
        (0, "", 10, 0),
        (3, "abc", 10, 6),
        (8, "abc", 10, 1),
        // The cursor stays in the last column until the next character.
        (7, "abc", 10, 10),
        (10, "d", 10, 1),
        (10, "\n", 10, 0),
        (3, "ab\ncdef", 10, 4),
        // A wide character does not begin in the last column.
        (7, "\u{6f22}", 10, 9),
        (9, "\u{6f22}", 10, 2),
        (9, "\u{6f22}\u{5b57}", 10, 4),
        // An accent of its own has no width.
        (10, "\u{301}", 10, 10),
        (1, "\t", 20, 8),
        (8, "\t", 20, 16),
        (17, "\t", 20, 19),
    ] {
        assert_eq!(after(column, text, width), end, "{column} {text:?} {width}");
    }
}

#[test]
fn the_end_of_a_long_line_is_shown() {
    assert_eq!(tail("abcdef", 10), "abcdef");
    assert_eq!(tail("abcdef", 3), "def");
    assert_eq!(tail("a\u{6f22}\u{5b57}", 3), "\u{5b57}");
    assert_eq!(tail("abc", 0), "");
}

#[test]
fn answers_are_recognised() {
    let answer = |text: &str| Some(InputResponse::Answer(text.into()));
    for (text, id) in [("y", "once"), (" Yes ", "once"), ("once", "once"), ("A", "always"), ("always", "always")] {
        assert_eq!(asking::response(text), answer(id), "{text}");
    }
    assert_eq!(asking::response("n"), answer("no"));
    assert_eq!(asking::response("NO"), answer("no"));
    let declined = |reason: &str| Some(InputResponse::Declined { reason: Some(reason.into()) });
    assert_eq!(asking::response("n not now"), declined("not now"));
    assert_eq!(asking::response("No  never "), declined("never"));
    for text in ["", "x", "yes please", "always not", "nothing", "yn"] {
        assert_eq!(asking::response(text), None, "{text}");
    }
}

#[test]
fn a_question_shows_what_would_be_done_and_the_keys() {
    let request = asking::request("note", "add to the file 'notes.md'\n    - milk");
    let shown =
        "[note asks to add to the file 'notes.md']\n    - milk\n[y: once, a: always in this conversation, n: no]";
    assert_eq!(asking::shown(&request), shown);
    let request = asking::request("note", "do something");
    assert_eq!(
        asking::shown(&request),
        "[note asks to do something]\n[y: once, a: always in this conversation, n: no]"
    );
}
