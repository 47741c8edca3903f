//! The program `keep`, used as a user would: one command after the other, some of them killed.

#[path = "support/program.rs"]
mod program;

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use turnwise::SessionId;

struct Books(PathBuf);

impl Books {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("turnwise-keep-{}", SessionId::new()));
        std::fs::create_dir(&folder).expect("a place for files");
        Self(folder)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program::command("keep");
        command.arg(self.0.join("books.redb")).args(args);
        command
    }

    #[track_caller]
    fn keep(&self, args: &[&str]) -> String {
        let output = self.command(args).stdin(Stdio::null()).output().expect("the example runs");
        assert!(output.status.success(), "{args:?}: {}", err(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.command(args).stdin(Stdio::null()).output().expect("the example runs");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        err(&output)
    }
}

impl Drop for Books {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn ledgers_are_kept_from_one_command_to_the_next() {
    let books = Books::new();
    assert_eq!(books.keep(&[]), "");
    assert_eq!(books.keep(&["kitchen", "12.50", "a", "new", "pan"]), "a new pan: 12.50, 12.50 in all\n");
    assert_eq!(books.keep(&["kitchen", "-2.75", "refund"]), "refund: -2.75, 9.75 in all\n");
    assert_eq!(books.keep(&["travel", "300"]), "something: 300.00, 300.00 in all\n");
    assert_eq!(books.keep(&["kitchen"]), "12.50 a new pan\n-2.75 refund\n= refund: -2.75, 9.75 in all\n");
    let list = books.keep(&[]);
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains("kitchen") && list.contains("9.75      2 entries  idle"), "{list}");

    books.keep(&["--archive", "kitchen"]);
    assert_eq!(books.keep(&["kitchen"]).lines().count(), 3);
    assert!(books.keep(&[]).contains("9.75      2 entries  archived"));
    assert_eq!(books.fails(&["kitchen", "1", "more"]), "this ledger is closed\n");
    assert_eq!(books.fails(&["--archive", "kitchen"]), "this ledger is closed\n");
    books.keep(&["--delete", "kitchen"]);
    assert_eq!(books.fails(&["kitchen"]), "there is no ledger 'kitchen'\n");
    assert_eq!(books.keep(&["kitchen", "1.00", "afresh"]), "afresh: 1.00, 1.00 in all\n");
}

#[test]
fn an_invalid_entry_is_reported_and_not_kept() {
    let books = Books::new();
    books.keep(&["l", "1.00", "one"]);
    for wrong in ["1.5", "x", "1.", ".50", "--", "99999999999999999999", "1.000", "1e3", "٣"] {
        let said = books.fails(&["l", wrong]);
        assert!(said.contains("no amount"), "{wrong}: {said}");
    }
    books.keep(&["l", "92233720368547757", "much"]);
    assert!(books.fails(&["l", "92233720368547757", "more"]).contains("more than a ledger can hold"));
    assert_eq!(books.keep(&["l"]).lines().count(), 3);
    assert!(books.fails(&["--what"]).starts_with("usage"));
    let bare = program::command("keep").output().expect("the example runs");
    assert!(err(&bare).starts_with("usage"));
}

#[test]
fn one_program_at_a_time_uses_the_file() {
    let books = Books::new();
    let mut first = program::Program::start(&mut books.command(&["l", "-"]));
    first.type_line("1.00 one");
    first.out.expect("in all");
    assert!(books.fails(&["l"]).contains("in use"));
    assert!(first.end().success());
    assert_eq!(books.keep(&["l"]).lines().count(), 2);
}

#[test]
fn every_answered_line_is_kept_after_a_kill() {
    let books = Books::new();
    let mut answered = 0;
    for _ in 0..5 {
        let mut running = program::Program::start(&mut books.command(&["l", "-"]));
        for n in 1..=50 {
            running.type_line(&format!("1.00 line {n}"));
        }
        // The kill comes after some of the fifty lines.
        running.out.expect("line 20:");
        running.out.expect("in all\n");
        answered += 20;
        let killed = running.kill();
        answered += killed.matches("in all\n").count();
        let kept = books.keep(&["l"]);
        let entries = kept.lines().count() - 1;
        assert!(entries == answered || entries == answered + 1, "{entries} entries, {answered} answered");
        let total = format!("{entries}.00 in all");
        assert!(kept.trim_end().ends_with(&total), "{kept}");
        answered = entries;
    }
}
