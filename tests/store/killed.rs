//! A process that is killed at any moment loses at most the turns that were running.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use turnwise::{
    builder_fn, AgentError, Message, RunResult, Session, SessionAgent, SessionAgentBuilder, SessionContext, SessionId,
    SessionQuery, SessionService, SessionSpec, TurnContext,
};

use crate::support::*;

const FILE: &str = "TURNWISE_KILLED_FILE";
const NAME: &str = "killed::a_killed_process_loses_at_most_the_turns_in_flight";
const CALLERS: usize = 3;

/// An agent that answers with its prompt. Every third turn replaces the messages before it by equal ones, as a compaction
/// replaces them by fewer. So the store is told of appended and of rewritten histories.
struct Rewriting(Session);

impl SessionAgent for Rewriting {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if turn.turn_id().get().is_multiple_of(3) {
            let same = self.0.iter().cloned().collect();
            *self.0.messages_mut() = same;
        }
        self.0.push_batch([Message::user(prompt.as_str()), Message::assistant(prompt.as_str())]);
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.0.clone()
    }
}

fn rewriting() -> impl SessionAgentBuilder {
    builder_fn(|spec: &SessionSpec, _: &SessionContext| Ok(Rewriting(spec.history())))
}

/// The body of the process that is killed. Its callers run turns on their own sessions, and print each turn that has
/// its result. The next process must find every printed turn.
fn live_until_killed(file: &str) -> ! {
    let store = turnwise::store::FileStore::open(file).expect("the store opens clean");
    let service = turnwise::store::PersistentSessionService::new(rewriting(), 64, store);
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).expect("the parent reads");
    };
    say("open\n".to_owned());
    let mut known: Vec<SessionId> =
        service.list(SessionQuery::new()).expect("a list").iter().map(|line| line.session_id).collect();
    known.truncate(CALLERS * 4);
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let (service, known) = (&service, &known);
            scope.spawn(move || {
                let mut mine: Vec<SessionId> = known.iter().skip(caller).step_by(CALLERS).copied().collect();
                for n in 0.. {
                    if n % 7 == 0 && mine.len() < 4 {
                        let id = service.create_session(create("first")).expect("a session").session_id;
                        say(format!("{id} first\n"));
                        mine.push(id);
                    }
                    let id = mine[n % mine.len()];
                    let prompt = SessionId::new().to_string();
                    // This line comes before the turn. So a turn that is kept but not answered is known to have been
                    // running.
                    say(format!("{id} begins {prompt}\n"));
                    service.start_turn(id, turn(&prompt)).expect("a turn");
                    say(format!("{id} {prompt}\n"));
                    if n % 5 == 4 {
                        service.unload(id, LONG).expect("an unload");
                    }
                }
            });
        }
    });
    unreachable!("the callers have no end")
}

#[test]
fn a_killed_process_loses_at_most_the_turns_in_flight() {
    if let Ok(file) = std::env::var(FILE) {
        live_until_killed(&file);
    }
    let rounds = std::env::var("TURNWISE_KILLS").map_or(25, |rounds| rounds.parse().expect("a number"));
    // One file is used in all rounds. In each round a second, new file is killed while it is created.
    let old = Folder::new();
    let mut answered: BTreeMap<SessionId, Vec<String>> = BTreeMap::new();
    let mut turns = 0;
    for round in 0..rounds {
        let new = Folder::new();
        turns += round_of(&old, 10 + 37 * round % 400, &mut answered);
        round_of(&new, round % 12, &mut BTreeMap::new());
    }
    assert!(turns > rounds, "{turns} turns in {rounds} rounds");
}

/// Runs a process for some milliseconds after it has opened the store, or after its start. Then kills the process and
/// checks its file. Returns the number of turns that the process has answered.
fn round_of(folder: &Folder, millis: u64, answered: &mut BTreeMap<SessionId, Vec<String>>) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this test's program"))
        .args([NAME, "--exact", "--nocapture", "--test-threads=1"])
        .env(FILE, folder.file())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    let (opened_tx, opened) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut lines = Vec::new();
        for line in out.split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8(line).expect("text");
            if line.ends_with("open") {
                let _ = opened_tx.send(());
            } else {
                lines.push(line);
            }
        }
        lines
    });
    // For a new file the test does not wait until the store is open, so the kill may come before, during or after the
    // creation of the file.
    if millis >= 12 {
        opened.recv_timeout(LONG).expect("the store opens clean");
    }
    let until = Instant::now() + Duration::from_millis(millis);
    thread::sleep(until.saturating_duration_since(Instant::now()));
    child.kill().expect("SIGKILL");
    child.wait().expect("an end");
    let lines = reader.join().expect("lines");

    let mut turns = 0;
    let mut in_flight: BTreeMap<SessionId, Vec<String>> = BTreeMap::new();
    for line in &lines {
        let mut words = line.split(' ');
        let Some(id) = words.next().and_then(|word| word.parse::<SessionId>().ok()) else { continue };
        match (words.next(), words.next()) {
            (Some("begins"), Some(prompt)) => in_flight.entry(id).or_default().push(prompt.to_owned()),
            (Some(prompt), None) => {
                in_flight.entry(id).or_default().retain(|other| other != prompt);
                answered.entry(id).or_default().push(prompt.to_owned());
                turns += 1;
            }
            _ => panic!("{line}"),
        }
    }

    let service = keeping(folder);
    let listed = service.list(SessionQuery::new()).expect("a list");
    for (id, prompts) in answered.iter_mut() {
        let history = service.export_session(*id).expect("the session of every answered turn is kept");
        let said = said(&history);
        let asked: Vec<&str> = said.iter().step_by(2).map(String::as_str).collect();
        let replies: Vec<&str> = said.iter().skip(1).step_by(2).map(|text| &text[2..]).collect();
        assert_eq!(asked, replies, "no half of a turn is kept");
        assert_eq!(asked[..prompts.len()], prompts[..], "every answered turn is there, in order");
        let more = &asked[prompts.len()..];
        let flying = in_flight.get(id).map_or(&[][..], Vec::as_slice);
        assert!(more.len() <= 1 && more.iter().all(|prompt| flying.iter().any(|other| other == prompt)), "{more:?}");
        // From here on this turn counts as answered.
        prompts.extend(more.iter().map(|&prompt| prompt.to_owned()));
    }
    // A session that the process has not printed is kept from its build on, with its first turn or without it. From
    // here on it counts as known.
    for line in listed {
        let prompts = answered.entry(line.session_id).or_insert_with(|| {
            assert!(line.message_count <= 2, "{line:?}");
            vec!["first".to_owned(); line.message_count / 2]
        });
        assert_eq!(prompts.len() * 2, line.message_count, "the list agrees with the histories");
    }
    turns
}
