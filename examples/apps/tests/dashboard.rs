//! The dashboard, used as a user would: a frame on standard output, a picture, and keys in a terminal.
#![cfg(unix)]

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{unbounded, Receiver};

#[path = "support/folder.rs"]
mod folder;
#[path = "support/program.rs"]
mod program;

use folder::Folder;

/// Longer than any program takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(60);

fn dashboard() -> Command {
    program::command("dashboard")
}

fn run(args: &[&str]) -> Output {
    dashboard().args(args).stdin(Stdio::null()).output().expect("the dashboard runs")
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn one_frame_shows_the_service_and_a_row_for_every_session() {
    let output = run(&["--once", "--sessions", "8"]);
    let frame = out(&output);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(err(&output), "", "an agent's panic is not printed");
    assert!(frame.contains("sessions 8 of 12"), "{frame}");
    assert!(figure(&frame, "completed") > 0 && frame.contains("dropped events 0"), "{frame}");
    let names = ["streaming-1", "quick-2", "slow-3", "tools-4", "flaky-5", "fragile-6", "popular-8"];
    for name in names {
        assert!(matches!(state(&frame, name), Some("building" | "idle" | "running" | "faulted")), "{name}: {frame}");
    }
    // Without a person, a session that asks waits for longer than this run takes. Its question is shown.
    assert_eq!((state(&frame, "asking-7"), figure(&frame, "waiting")), (Some("waiting"), 1), "{frame}");
    let lines = ["asking-7 asks ", " May I delete notes.txt? ", " 1 Delete it   2 Keep it   d decline "];
    assert!(lines.iter().all(|line| frame.contains(line)), "{frame}");
    assert!(frame.ends_with("\nsessions joined: 8, stuck: 0\n"), "{frame}");
}

#[test]
fn the_picture_is_well_formed_and_has_the_same_text() {
    let folder = Folder::new();
    let file = folder.text("picture.svg");
    let output = run(&["--svg", &file, "--seconds", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let picture = fs::read_to_string(&file).expect("the picture");
    assert!(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    let text = text_of_well_formed(&picture);
    for word in ["turnwise", "events/s", "queue", "waiting", "streaming-1", "popular-16", "decline"] {
        assert!(text.iter().any(|found| found == word), "{word}");
    }
}

/// The texts between the tags. Panics if the picture is not well-formed, as far as this checks.
fn text_of_well_formed(xml: &str) -> Vec<String> {
    let (mut open, mut text) = (Vec::new(), Vec::new());
    for piece in xml.split('<').skip(1) {
        let (tag, content) = piece.split_once('>').expect("a tag ends");
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{piece}");
        } else {
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            assert_eq!(attributes.matches('"').count() % 2, 0, "{piece}");
            if !attributes.ends_with('/') {
                open.push(name);
            }
        }
        for reference in content.split('&').skip(1) {
            let name = reference.split(';').next();
            assert!(matches!(name, Some("amp" | "lt" | "gt" | "quot")), "{content}");
        }
        text.push(content.trim().to_owned());
    }
    assert_eq!(open, [""; 0], "every tag is closed");
    text
}

#[test]
fn bad_options_are_refused_before_the_first_session() {
    let bad = [
        &["--sessions"][..],
        &["--sessions", "0"],
        &["--sessions", "257"],
        &["--sessions", "many"],
        &["--seconds", "0"],
        &["--seconds", "-1"],
        &["--seconds", "nan"],
        &["--svg"],
        &["--nonsense"],
        &["twice"],
        &["--once", "--svg", "/no/such/folder/picture.svg", "--seconds", "0.1"],
        // Here neither standard input nor standard output is a terminal.
        &[],
        &["--seconds", "1"],
    ];
    for args in bad {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(err(&output).starts_with("dashboard: "), "{args:?}: {}", err(&output));
        assert_eq!(out(&output), "", "{args:?}");
    }
    assert!(err(&run(&[])).contains("standard output is no terminal"));
}

#[test]
fn keys_select_interrupt_archive_open_and_pause() {
    let Some(mut terminal) = Terminal::start("--sessions 6") else { return };
    terminal.wait_for("a row for every session", |screen| row(screen, "fragile-6").is_some());
    terminal.press("\t");
    terminal.wait_for("the message", |screen| screen.contains("\n no session asks"));
    terminal.press("jjk");
    terminal.press("\u{1b}[B");
    terminal.wait_for("slow-3 to be chosen", |screen| chosen(screen, "slow-3"));
    // The session runs most of the time. The screen shows a moment later whether the key has interrupted a turn.
    for _ in 0..20 {
        terminal.wait_for("slow-3 to run", |screen| row(screen, "slow-3").is_some_and(|row| row.contains("running")));
        terminal.press("i");
        terminal
            .wait_for("an answer", |screen| screen.contains("\n interrupted slow-3") || screen.contains("\n slow-3: "));
        if terminal.text().contains("\n interrupted slow-3") {
            break;
        }
        terminal.wait_for("slow-3 to rest", |screen| row(screen, "slow-3").is_some_and(|row| !row.contains("running")));
    }
    terminal.wait_for("the cancelled turn", |screen| figure(screen, "cancelled") >= 1);
    terminal.press("a");
    terminal.wait_for("the archive", |screen| screen.contains("\n archived slow-3"));
    terminal.wait_for("the row to go", |screen| row(screen, "slow-3").is_none() && chosen(screen, "tools-4"));
    terminal.press("n");
    terminal.wait_for("a new row", |screen| row(screen, "asking-7").is_some());
    terminal.press(" ");
    terminal.wait_for("the pause", |screen| screen.contains("the picture is paused"));
    terminal.press(" ");
    terminal.wait_for("the end of the pause", |screen| !screen.contains("the picture is paused"));
    terminal.press("q");
    terminal.expect_restored();
}

#[test]
fn keys_answer_the_session_that_asks() {
    let Some(mut terminal) = Terminal::start("--sessions 15") else { return };
    let waits = |screen: &str, name| state(screen, name) == Some("waiting");
    terminal.wait_for("two questions", |screen| waits(screen, "asking-7") && waits(screen, "asking-15"));
    for name in ["asking-7", "asking-15", "asking-7"] {
        terminal.press("\t");
        let title = format!("╭ {name} asks");
        terminal.wait_for("the question", |screen| screen.contains(&title) && chosen(screen, name));
    }
    let question = |screen: &str| screen.contains("\n│ May I delete notes.txt? ");
    terminal.wait_for("the text of the question", question);
    // There is no ninth option, so the first key has no effect.
    terminal.press("92");
    terminal.wait_for("the message", |screen| screen.contains("\n answered asking-7: Keep it"));
    terminal.wait_for("the agent's answer", |screen| screen.contains("  notes.txt is kept."));
    terminal.wait_for("the next question", |screen| waits(screen, "asking-7") && screen.contains("╭ asking-7 asks"));
    terminal.press("d");
    terminal.wait_for("the message", |screen| screen.contains("\n answered asking-7: no answer"));
    terminal.press("q");
    terminal.expect_restored();
}

#[test]
fn turns_of_a_busy_session_queue() {
    let Some(mut terminal) = Terminal::start("--sessions 8") else { return };
    let queue = |screen: &str| row(screen, "popular-8").and_then(|row| row.split_whitespace().nth(4)?.parse().ok());
    terminal.wait_for("turns in the queue", |screen| queue(screen).is_some_and(|turns: u64| turns >= 1));
    terminal.wait_for("turns in all queues", |screen| figure(screen, "queued") >= 1);
    terminal.wait_for("the end of the queue", |screen| figure(screen, "queued") == 0 && queue(screen).is_none());
    terminal.press("q");
    terminal.expect_restored();
}

#[test]
fn the_terminal_is_restored_after_the_time_limit_and_after_ctrl_c() {
    let Some(mut terminal) = Terminal::start("--sessions 2 --seconds 0.5") else { return };
    terminal.expect_restored();
    let Some(mut terminal) = Terminal::start("--sessions 2") else { return };
    terminal.wait_for("a row for every session", |screen| row(screen, "quick-2").is_some());
    terminal.press("\u{3}");
    terminal.expect_restored();
}

#[test]
fn the_terminal_is_restored_after_a_signal_which_the_exit_code_names() {
    for (name, code) in [("-HUP", 129), ("-QUIT", 131), ("-TERM", 143)] {
        let Some(mut terminal) = Terminal::start("--sessions 2") else { return };
        terminal.wait_for("a row for every session", |screen| row(screen, "quick-2").is_some());
        terminal.signal(name);
        terminal.expect_end(&format!("code={code}\r\n"));
    }
    let Some(mut terminal) = Terminal::start("--sessions 2") else { return };
    terminal.wait_for("a row for every session", |screen| row(screen, "quick-2").is_some());
    terminal.signal("-INT");
    terminal.expect_restored();
}

/// The figure after this name in the header.
fn figure(screen: &str, name: &str) -> u64 {
    let mut words = screen.split_whitespace().skip_while(|word| *word != name);
    words.nth(1).and_then(|figure| figure.parse().ok()).unwrap_or(0)
}

/// The row of the session with this name, without its frame.
fn row<'a>(screen: &'a str, name: &str) -> Option<&'a str> {
    let mut rows = screen.lines().filter_map(|line| line.strip_prefix('│'));
    rows.find(|row| row.split_whitespace().nth(1) == Some(name))
}

/// The state in the row of the session with this name.
fn state<'a>(screen: &'a str, name: &str) -> Option<&'a str> {
    row(screen, name)?.split_whitespace().nth(2)
}

/// Whether the line below the table shows the id of the session with this name.
fn chosen(screen: &str, name: &str) -> bool {
    let short = row(screen, name).and_then(|row| row.split_whitespace().next());
    let ids = screen.lines().filter_map(|line| line.strip_prefix(' ')?.split_whitespace().next());
    short.is_some_and(|short| ids.filter(|id| id.len() == 36).any(|id| id.ends_with(short)))
}

/// The dashboard in a terminal of its own, 120 columns by 40 rows.
struct Terminal {
    child: Child,
    keys: ChildStdin,
    output: Receiver<Vec<u8>>,
    /// Output that is not processed yet: the beginning of a character or of a sequence.
    rest: Vec<u8>,
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// The output outside of the dashboard's screen.
    outside: String,
    taken: bool,
}

impl Terminal {
    /// Starts the dashboard. `None` if the tool that makes terminals is missing, or another tool has its name.
    fn start(args: &str) -> Option<Self> {
        let script = |command: &str| {
            let mut script = Command::new("script");
            script.args(["-qec", command, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
            script
        };
        let probe = script("true").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if !probe.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no `script` that runs a command in a terminal");
            return None;
        }
        let program = dashboard().get_program().to_str().expect("a plain path").to_owned();
        let run = format!("sh -c 'echo id=$$; exec \"$0\" \"$@\"' '{program}' {args}");
        let line = format!("stty rows 40 cols 120; {run}; echo code=$?; stty -a");
        let mut command = script(&line);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the dashboard starts");
        let (mut pipe, keys) = (child.stdout.take().expect("a pipe"), child.stdin.take().expect("a pipe"));
        let (written, output) = unbounded();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let _ = written.send(buffer[..length].to_vec());
            }
        });
        let cells = vec![vec![' '; 120]; 40];
        let (rest, outside) = (Vec::new(), String::new());
        Some(Self { child, keys, output, rest, cells, row: 0, column: 0, outside, taken: false })
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).and_then(|()| self.keys.flush()).expect("the terminal reads");
    }

    fn text(&self) -> String {
        let lines = self.cells.iter().map(|cells| cells.iter().collect::<String>().trim_end().to_owned() + "\n");
        lines.collect()
    }

    fn wait_for(&mut self, what: &str, seen: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !seen(&self.text()) {
            match self.output.recv_deadline(deadline) {
                Ok(bytes) => self.feed(&bytes),
                Err(error) => panic!("waited for {what}: {error}\n{}{}", self.text(), self.outside),
            }
        }
    }

    /// Sends the dashboard a signal.
    fn signal(&self, name: &str) {
        let id = self.outside.lines().find_map(|line| line.strip_prefix("id=")).expect("the process id");
        let sent = Command::new("kill").args([name, id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// Waits for an end without stuck sessions.
    fn expect_restored(&mut self) {
        self.expect_end("stuck: 0\r\ncode=0");
    }

    /// Waits for the end with this output, and checks the modes of the terminal.
    fn expect_end(&mut self, end: &str) {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(bytes) = self.output.recv_deadline(deadline) {
            self.feed(&bytes);
        }
        assert!(Instant::now() < deadline, "the dashboard does not end:\n{}", self.text());
        self.child.wait().expect("the end");
        assert!(!self.taken, "the main screen is restored");
        let outside = &self.outside;
        assert!(outside.contains(end), "{end:?} is missing, or line mode is not restored: {outside:?}");
        let modes: Vec<&str> = outside.split([' ', ';', '\r', '\n']).collect();
        for mode in ["icanon", "echo", "isig", "opost"] {
            assert!(modes.contains(&mode), "{mode}: {outside}");
        }
    }

    /// Interprets the output, as far as the dashboard uses a terminal.
    fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let valid = match std::str::from_utf8(&self.rest) {
            Ok(text) => text.len(),
            Err(error) => error.valid_up_to(),
        };
        let later = self.rest.split_off(valid);
        let text = String::from_utf8(std::mem::replace(&mut self.rest, later)).expect("checked above");
        let mut text = text.as_str();
        while let Some(symbol) = text.chars().next() {
            if let Some(sequence) = text.strip_prefix("\u{1b}[") {
                let Some(end) = sequence.find(|symbol| matches!(symbol, '@'..='~')) else { break };
                self.on_sequence(&sequence[..=end]);
                text = &sequence[end + 1..];
                continue;
            } else if text == "\u{1b}" {
                break;
            }
            self.put(symbol);
            text = &text[symbol.len_utf8()..];
        }
        self.rest.splice(..0, text.bytes());
    }

    fn on_sequence(&mut self, sequence: &str) {
        if let Some(place) = sequence.strip_suffix('H') {
            let mut numbers = place.split(';').map(|number| number.parse().unwrap_or(1) - 1);
            (self.row, self.column) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        } else if sequence == "2J" {
            self.cells.iter_mut().for_each(|cells| cells.fill(' '));
        } else if sequence.starts_with("?1049") {
            self.taken = sequence.ends_with('h');
        }
    }

    fn put(&mut self, symbol: char) {
        if !self.taken {
            self.outside.push(symbol);
        } else if let Some(cell) = self.cells.get_mut(self.row).and_then(|cells| cells.get_mut(self.column)) {
            *cell = symbol;
            self.column += 1;
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The program has ended unless the test has failed. The kill of `script` also ends the terminal and the
        // dashboard.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
