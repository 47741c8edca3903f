//! The tools that change files: where they write, and what they refuse.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use serde_json::json;

use crate::folder::Folder;
use crate::places::place;
use crate::program::Program;
use crate::server::{calls, words, Act, Server};
use crate::support::chat;

/// A folder with files, folders and links, inside of a folder with other files.
fn folders() -> (Folder, PathBuf) {
    let outer = Folder::new();
    fs::create_dir_all(outer.path("inner/sub/.git")).expect("a folder");
    let inner = outer.path("inner").canonicalize().expect("the folder");
    fs::create_dir(outer.path("inner-too")).expect("a folder");
    fs::write(outer.path("secret.txt"), "secret").expect("a file");
    fs::write(inner.join("old.txt"), "old").expect("a file");
    for (link, target) in [
        ("out", ".."),
        ("out.txt", "../secret.txt"),
        ("dangling", "../not-there.txt"),
        ("around", "around"),
        ("hooks", "sub/.git"),
        ("in", "sub"),
        ("in.txt", "old.txt"),
    ] {
        symlink(target, inner.join(link)).expect("a link");
    }
    (outer, inner)
}

#[test]
fn files_below_the_working_directory_are_written() {
    let (_outer, inner) = folders();
    for (name, at) in [
        ("new.txt", "new.txt"),
        ("old.txt", "old.txt"),
        ("./old.txt", "old.txt"),
        ("a/b/c.txt", "a/b/c.txt"),
        ("sub//./x", "sub/x"),
        ("in/x", "sub/x"),
        ("in.txt", "old.txt"),
        ("a b.txt", "a b.txt"),
        ("x..y", "x..y"),
    ] {
        assert_eq!(place(&inner, name), Ok(inner.join(at)), "{name}");
    }
}

#[test]
fn no_other_file_is_written() {
    let (outer, inner) = folders();
    let absolute = outer.text("secret.txt");
    let inside = inner.join("new.txt");
    for (name, why) in [
        (absolute.as_str(), "not below"),
        (inside.to_str().expect("a plain path"), "not below"),
        ("..", "not below"),
        ("../secret.txt", "not below"),
        ("sub/../../secret.txt", "not below"),
        ("sub/../new.txt", "not below"),
        ("../inner-too/x", "not below"),
        ("out/secret.txt", "a link out"),
        ("out/inner/new.txt", "a link out"),
        ("out/inner-too/x", "a link out"),
        ("out.txt", "a link out"),
        ("dangling", "No such file"),
        ("around", "symbolic links"),
        (".bashrc", "hidden"),
        ("sub/.git/hooks/x", "hidden"),
        ("new/.x", "hidden"),
        ("hooks/x", "hidden"),
        ("", "not the name"),
        (".", "not the name"),
        ("sub/", "not the name"),
        ("a\0b", "not the name"),
        ("sub", "something else"),
        ("old.txt/x", "Not a directory"),
    ] {
        let refused = place(&inner, name).expect_err(name);
        assert!(refused.contains(why), "{name}: {refused}");
    }
}

fn write(path: &str, content: &str) -> Act {
    calls(&[("one", "write_file", &json!({ "path": path, "content": content }).to_string())])
}

/// The chat with these options in a folder, whose model makes one call. Returns what is said about the call.
fn called(act: Act, folder: &Folder, options: &[&str]) -> String {
    let server = Server::start(vec![act, words(&["Good."])]);
    let mut command = chat(&server.url);
    let mut chat = Program::start(command.current_dir(folder.path("")).args(options).arg("do it"));
    assert!(chat.wait().success());
    assert_eq!(chat.out.rest(), "Good.\n");
    server.asked();
    // The model is told the same.
    let told = server.asked().messages().last().expect("a message").1.to_owned();
    assert!(chat.err.rest().contains(&told), "{told}: {}", chat.err.rest());
    told
}

#[test]
fn without_a_terminal_a_tool_runs_only_if_an_option_allows_it() {
    let folder = Folder::new();
    let refusal = "refused: the user cannot be asked without a terminal (--allow write_file allows it)";
    assert_eq!(called(write("a.txt", "one\n"), &folder, &[]), refusal);
    assert_eq!(called(write("a.txt", "one\n"), &folder, &["--allow", "note"]), refusal);
    assert_eq!(folder.names(), [""; 0]);
    let written = "written to 'a.txt': 1 line, 4 bytes";
    assert_eq!(called(write("a.txt", "one\n"), &folder, &["--allow", "note", "--allow", "write_file"]), written);
    assert_eq!(called(write("sub/b.txt", ""), &folder, &["--yes"]), "written to 'sub/b.txt': 0 lines, 0 bytes");
    assert_eq!(fs::read_to_string(folder.path("a.txt")).expect("the file"), "one\n");
    assert_eq!(fs::read_to_string(folder.path("sub/b.txt")).expect("the file"), "");
}

#[test]
fn notes_are_added_to_the_file_of_notes() {
    let folder = Folder::new();
    let note = |text: &str| calls(&[("one", "note", &json!({ "text": text }).to_string())]);
    assert_eq!(called(note(" milk \n"), &folder, &["--yes"]), "written to 'notes.md': 1 line, 7 bytes");
    called(note("a pan,\nbut a small one"), &folder, &["--yes"]);
    assert_eq!(called(note(" "), &folder, &["--yes"]), "the note is empty");
    let path = folder.path("notes.md");
    assert_eq!(fs::read_to_string(&path).expect("the file"), "- milk\n- a pan,\n  but a small one\n");
    fs::write(&path, "mine").expect("the file");
    called(note("yours"), &folder, &["--yes"]);
    assert_eq!(fs::read_to_string(&path).expect("the file"), "mine\n- yours\n");
}

#[test]
fn a_file_that_may_not_be_written_is_refused_without_a_question() {
    let folder = Folder::new();
    for (path, content, why) in [
        ("../x.txt", "x", "'../x.txt' is not written: it is not below the working directory"),
        (".profile", "x", "'.profile' is not written: it is hidden"),
        ("x.txt", &"x".repeat((256 << 10) + 1), "the text is longer than 262144 bytes"),
    ] {
        assert_eq!(called(write(path, content), &folder, &[]), why);
    }
    let nothing = calls(&[("one", "write_file", r#"{"path": "x"}"#)]);
    assert!(called(nothing, &folder, &["--yes"]).starts_with("missing field `content`"));
    assert_eq!(folder.names(), [""; 0]);
}
