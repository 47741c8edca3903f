//! Arguments, standard output and standard error.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::folder::Folder;
use crate::program::command;

/// Longer than any program takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// The output and the exit code of a program.
struct Ended {
    out: String,
    err: String,
    code: Option<i32>,
}

/// Runs a program until its end.
#[track_caller]
fn run(command: &mut Command, input: &str) -> Ended {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // A program that does not read all of its input may end before all of it is written.
    thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let (out, err) = (child.stdout.take().map(collect), child.stderr.take().map(collect));
    let code = wait(child).code();
    let text = |read: Option<thread::JoinHandle<String>>| read.map_or(String::new(), |read| read.join().expect("text"));
    Ended { out: text(out), err: text(err), code }
}

#[track_caller]
fn run_piped(command: &mut Command, input: &str) -> Ended {
    run(command.stdout(Stdio::piped()).stderr(Stdio::piped()), input)
}

fn collect(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("the pipe is read");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end, and kills a program that does not end.
#[track_caller]
fn wait(mut child: Child) -> ExitStatus {
    let id = child.id().to_string();
    let (done, ended) = channel();
    thread::spawn(move || done.send(child.wait()));
    ended.recv_timeout(PATIENCE).map_or_else(
        |_| {
            let _ = Command::new("kill").args(["-KILL", &id]).status();
            panic!("the program does not end")
        },
        |status| status.expect("the program ends"),
    )
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("a device that is full")
}

fn bad() -> OsString {
    OsStr::from_bytes(b"a\xffb").to_owned()
}

#[test]
fn arguments_that_are_not_utf8_are_refused_without_a_panic() {
    let folder = Folder::new();
    let text = |text: &str| OsString::from(text);
    let ledgers = folder.path("ledgers.redb").into_os_string();
    let cases = [
        ("notebook", vec![bad()], 2),
        ("notebook", vec![text("--limit"), bad()], 2),
        ("dashboard", vec![bad()], 2),
        ("dashboard", vec![text("--sessions"), bad()], 2),
        ("game_loop", vec![bad()], 2),
        ("game_loop", vec![text("--seed"), bad()], 2),
        ("plugin_host", vec![bad()], 2),
        ("plugin_host", vec![text("--rounds"), bad()], 2),
        ("host_mode", vec![bad()], 2),
        ("chat", vec![bad()], 2),
        ("chat", vec![text("--system"), bad()], 2),
        ("debate", vec![bad()], 2),
        ("debate", vec![text("tabs or spaces"), bad()], 2),
        ("keep", vec![ledgers.clone(), bad()], 1),
        ("keep", vec![ledgers, text("kitchen"), bad()], 1),
    ];
    for (example, args, code) in cases {
        let ended = run_piped(command(example).args(&args), "");
        assert_eq!(ended.code, Some(code), "{example} {args:?}: {}", ended.err);
        assert!(ended.err.contains("a\u{fffd}b"), "{example} {args:?}: {}", ended.err);
        assert!(!ended.err.contains("panicked"), "{example}: {}", ended.err);
        assert_eq!(ended.out, "", "{example}");
    }
}

#[test]
fn the_name_of_a_file_need_not_be_utf8() {
    let folder = Folder::new();
    let script = folder.path(bad());
    std::fs::write(&script, "40 + 2").expect("a script");
    let ended = run_piped(command("notebook").arg(&script), "");
    assert_eq!((ended.out.as_str(), ended.code), ("= 42\n", Some(0)), "{}", ended.err);
    let picture = folder.path(OsStr::from_bytes(b"\xff.svg"));
    let ended = run_piped(command("dashboard").args(["--seconds", "0.1", "--svg"]).arg(&picture), "");
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(picture.exists());
    let ended = run_piped(command("keep").arg(folder.path(OsStr::from_bytes(b"\xff.redb"))).args(["l", "1.00"]), "");
    assert_eq!((ended.out.as_str(), ended.code), ("something: 1.00, 1.00 in all\n", Some(0)), "{}", ended.err);
}

/// Every program with arguments that make it write, most of them without an end.
fn writers(folder: &Folder) -> Vec<(Command, &'static str)> {
    let with = |example: &str, args: &[&str]| {
        let mut command = command(example);
        command.args(args);
        command
    };
    let mut keep = command("keep");
    keep.arg(folder.path("ledgers.redb")).args(["kitchen", "-"]);
    vec![
        (with("notebook", &[]), "loop { print(1) }"),
        (with("notebook", &["--prompt"]), "loop { print(1) }\n"),
        (with("dashboard", &["--once", "--seconds", "0.1"]), ""),
        (with("game_loop", &["--frames", "216000"]), ""),
        (with("plugin_host", &["--rounds", "1000000"]), ""),
        (with("host_mode", &["1000000", "1"]), ""),
        (with("debate", &["tabs or spaces", "1000000"]), ""),
        (keep, "1.00 one\n2.00 two\n"),
    ]
}

#[test]
fn a_closed_output_ends_the_program_without_a_message() {
    let folder = Folder::new();
    for (mut command, input) in writers(&folder) {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        drop(child.stdout.take());
        let errors = collect(child.stderr.take().expect("a pipe"));
        // The program may have ended already.
        let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        assert_eq!(wait(child).code(), Some(141), "{command:?}");
        assert_eq!(errors.join().expect("text"), "", "{command:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn output_that_cannot_be_written_is_an_error() {
    let folder = Folder::new();
    for (mut command, input) in writers(&folder) {
        let ended = run(command.stdout(full()).stderr(Stdio::piped()), input);
        assert_eq!(ended.code, Some(1), "{command:?}");
        assert!(ended.err.starts_with("standard output: No space left on device"), "{command:?}: {}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{command:?}: {}", ended.err);
    }
}

#[test]
fn a_chat_with_a_closed_output_ends_before_the_next_line() {
    let mut child = command("chat")
        .args(["--url", "http://127.0.0.1:1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    drop(child.stdout.take());
    let errors = collect(child.stderr.take().expect("a pipe"));
    child.stdin.take().expect("a pipe").write_all(b"/list\n/nonsense\n").expect("the program reads");
    assert_eq!(wait(child).code(), Some(141));
    let errors = errors.join().expect("text");
    assert!(errors.contains("/help lists what there is") && errors.lines().count() == 1, "{errors}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_chat_that_cannot_write_reports_the_error() {
    let cases: [(&[&str], &str); 2] = [(&["--help"], ""), (&["--url", "http://127.0.0.1:1"], "/list\n/nonsense\n")];
    for (args, input) in cases {
        let ended = run(command("chat").args(args).stdout(full()).stderr(Stdio::piped()), input);
        assert_eq!(ended.code, Some(1), "{args:?}");
        let last = ended.err.lines().last().unwrap_or_default();
        assert!(last.starts_with("standard output: No space left on device"), "{args:?}: {}", ended.err);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn errors_that_cannot_be_written_cause_no_hang_and_no_panic() {
    let folder = Folder::new();
    let ledgers = folder.path("ledgers.redb");
    let ledgers = ledgers.to_str().expect("a plain path");
    let cases = [
        ("notebook", vec!["--nonsense"], "", 2),
        ("notebook", vec![], "nonsense()", 1),
        ("notebook", vec!["--prompt"], ":nonsense\n:open main\nnonsense()\n", 0),
        ("dashboard", vec!["--nonsense"], "", 2),
        ("game_loop", vec!["--nonsense"], "", 2),
        ("plugin_host", vec!["--nonsense"], "", 2),
        ("host_mode", vec!["nonsense"], "", 2),
        ("chat", vec!["--nonsense"], "", 2),
        ("chat", vec!["--url", "http://127.0.0.1:1"], "/nonsense\n/new main\n/help\n", 0),
        ("chat", vec!["--url", "http://127.0.0.1:1", "--attempts", "1", "so?"], "", 1),
        ("debate", vec!["tabs or spaces", "nonsense"], "", 2),
        ("keep", vec!["--nonsense"], "", 1),
        ("keep", vec![ledgers, "kitchen", "nonsense"], "", 1),
    ];
    for (example, args, input, code) in cases {
        let ended = run(command(example).args(&args).stdout(Stdio::piped()).stderr(full()), input);
        assert_eq!(ended.code, Some(code), "{example} {args:?}");
    }
}

#[test]
fn error_messages_are_plain_text_and_not_debug_output() {
    let cases = [
        (
            "host_mode",
            &["many"][..],
            "host_mode: 'many' is not a number; usage: host_mode [REMINDERS [MILLISECONDS]]\n",
        ),
        ("host_mode", &["1", "2", "3"], "host_mode: usage: host_mode [REMINDERS [MILLISECONDS]]\n"),
        ("debate", &["x", "-1"], "debate: '-1' is not a number of rounds; usage: debate [TOPIC [ROUNDS]]\n"),
    ];
    for (example, args, message) in cases {
        let ended = run_piped(command(example).args(args), "");
        assert_eq!((ended.err.as_str(), ended.code), (message, Some(2)), "{example} {args:?}");
    }
    let mut child =
        command("host_mode").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let errors = collect(child.stderr.take().expect("a pipe"));
    child.stdin.take().expect("a pipe").write_all(b"a\xffb\n").expect("the program reads");
    assert_eq!(wait(child).code(), Some(1));
    let errors = errors.join().expect("text");
    assert_eq!(errors, "host_mode: standard input: stream did not contain valid UTF-8\n");
}

/// Control characters that clear the screen, set the title, and reverse the text after them.
const CONTROLS: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}2J\u{202e}";

#[test]
fn text_from_outside_does_not_control_the_terminal() {
    let folder = Folder::new();
    let file = |name: &str| folder.path(name).to_str().expect("a plain path").to_owned();
    let (ledgers, missing, name) = (file("ledgers.redb"), file(CONTROLS), format!("a{CONTROLS}\nb"));
    let script = file(&format!("{CONTROLS}\nscript.rhai"));
    std::fs::write(&script, r#"print("\x1b[2J\x07"); throw "\x1b[2J"; "#).expect("a script");
    let (entry, prompt) =
        (format!("1.00 {CONTROLS}"), format!(":open {CONTROLS}\n:list\n:switch x{CONTROLS}\n:read\n"));
    let lines = format!("{CONTROLS}\n");
    let commands = format!("/{CONTROLS}\n/new x{CONTROLS}\n/switch x{CONTROLS}\n/load {missing} x\n");
    let cases: [(&str, &[&str], &str); 18] = [
        ("keep", &[&ledgers, &name, "1.00", CONTROLS], ""),
        ("keep", &[&ledgers, &name, "-"], &entry),
        ("keep", &[&ledgers, &name], ""),
        ("keep", &[&ledgers], ""),
        ("keep", &[&ledgers, CONTROLS], ""),
        ("keep", &[&ledgers, "x", CONTROLS], ""),
        ("keep", &[&format!("{missing}/ledgers.redb")], ""),
        ("notebook", &[&script, &script], ""),
        ("notebook", &[&missing], ""),
        ("notebook", &[&format!("--{CONTROLS}")], ""),
        ("notebook", &["--prompt"], &prompt),
        ("host_mode", &["0"], &lines),
        ("chat", &[&format!("--{CONTROLS}")], ""),
        ("chat", &["--url", "http://127.0.0.1:1"], &commands),
        ("debate", &[CONTROLS, "1"], ""),
        ("dashboard", &[CONTROLS], ""),
        ("game_loop", &[CONTROLS], ""),
        ("plugin_host", &[CONTROLS], ""),
    ];
    for (example, args, input) in cases {
        let ended = run_piped(command(example).args(args), input);
        let shown = ended.out + &ended.err;
        let controls: Vec<char> = shown.chars().filter(|symbol| symbol.is_control() || *symbol == '\u{202e}').collect();
        assert!(controls.iter().all(|symbol| *symbol == '\n'), "{example} {args:?}: {shown:?}");
        assert!(shown.contains('\u{fffd}'), "{example} {args:?}: {shown:?}");
    }
    // The list has one line for each ledger: the one with this name, and the one whose only entry was refused.
    let list = run_piped(command("keep").arg(&ledgers), "").out;
    assert_eq!(list.lines().count(), 2, "{list:?}");
}
