//! Processes that share the sessions of one server, while processes and the server are killed, stopped and cut off.
//!
//! Each player is a process with a service of its own. Its threads run turns of the same few sessions, and print what
//! they begin and how it ends. A checker compares the printed lines with the records at the end:
//!
//! - A turn that was answered with a result is in its record exactly once, whoever was killed since.
//! - No turn is there twice, and none that was not begun.
//! - A turn that was answered before another one began stands before it.
//! - No two answered turns of a session have the same number.
//!
//! `TURNWISE_CLUSTER_FAULTS` is the number of faults, 16 without it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turnwise::cluster::{Engine, EngineConfig, RedisStore};
use turnwise::store::{PersistentSessionService, SessionStore};
use turnwise::{SessionId, SessionService, SessionSpec};

use crate::server::Server;
use crate::support::*;

const PLAYERS: usize = 3;
const THREADS: usize = 2;
const SESSIONS: usize = 3;
/// The variable that makes the test a player: the address, the player's name, and the sessions.
const PLAYER: &str = "TURNWISE_CLUSTER_PLAYER";

fn store(url: &str) -> RedisStore {
    RedisStore::new(Engine::open(url, EngineConfig::new().lease(Duration::from_secs(10))).expect("the engine opens"))
}

/// A line of a player: a turn that begins, or one that has a result.
#[derive(Clone, Debug)]
struct Line {
    at: u128,
    session: SessionId,
    prompt: String,
    /// The number of the turn, if it has a result.
    number: Option<u64>,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        // The test harness prints lines of its own, and a killed player half a line.
        let words: Vec<&str> = line.split(' ').collect();
        let &["player", at, session, prompt, number, "."] = words.as_slice() else { return None };
        let (at, session) = (at.parse().expect("a time"), session.parse().expect("an id"));
        Some(Self { at, session, prompt: prompt.into(), number: number.parse().ok() })
    }
}

fn say(session: SessionId, prompt: &str, number: Option<u64>) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time of today").as_nanos();
    let number = number.map_or_else(|| "begins".into(), |number| number.to_string());
    let line = format!("player {at} {session} {prompt} {number} .\n");
    // In one write, so that lines of several threads do not mix.
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        std::process::exit(0); // the parent has ended
    }
}

/// Runs turns until it is killed.
fn play(told: &str) {
    let mut words = told.split(' ');
    let (url, name) = (words.next().expect("a URL"), words.next().expect("a name"));
    let sessions: Vec<SessionId> = words.map(|id| id.parse().expect("an id")).collect();
    let service = PersistentSessionService::new(echo(), SESSIONS, store(url));
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (service, sessions) = (&service, &sessions);
            scope.spawn(move || {
                for n in 0.. {
                    let session = sessions[(n + thread) % sessions.len()];
                    let prompt = format!("{name}-{thread}-{n}");
                    say(session, &prompt, None);
                    if let Ok(result) = service.start_turn(session, turn(&prompt)) {
                        say(session, &prompt, Some(result.turn_id.get()));
                    }
                }
            });
        }
    });
}

struct Player {
    process: Child,
}

impl Player {
    fn start(told: &str, lines: &Sender<Line>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test's program"));
        command.args(["killed::c82_killed_processes_and_servers_lose_no_answered_turn", "--exact", "--nocapture"]);
        command.env(PLAYER, told).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().expect("a player starts");
        let output = BufReader::new(process.stdout.take().expect("its output"));
        let lines = lines.clone();
        std::thread::spawn(move || {
            for line in output.split(b'\n').map_while(Result::ok) {
                if let Some(line) = Line::parse(&String::from_utf8_lossy(&line)) {
                    if lines.send(line).is_err() {
                        return;
                    }
                }
            }
        });
        Self { process }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines so far. They are read until so many more turns have a result.
struct Heard {
    lines: Receiver<Line>,
    all: Vec<Line>,
}

impl Heard {
    fn wait_for_results(&mut self, count: usize) {
        let mut results = 0;
        while results < count {
            let line = self.lines.recv_timeout(LONG).expect("the players get on");
            results += usize::from(line.number.is_some());
            self.all.push(line);
        }
    }
}

#[test]
fn c82_killed_processes_and_servers_lose_no_answered_turn() {
    if let Ok(told) = std::env::var(PLAYER) {
        return play(&told);
    }
    let Some(mut server) = Server::start(&[]) else { return };
    let faults = std::env::var("TURNWISE_CLUSTER_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(16);
    let url = server.url();
    let sessions: Vec<SessionId> = {
        let service = PersistentSessionService::new(echo(), SESSIONS, store(&url));
        let ids = (0..SESSIONS).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        service.shutdown(LONG);
        ids
    };
    let listed: Vec<String> = sessions.iter().map(SessionId::to_string).collect();
    let (sender, lines) = channel();
    let mut named = 0;
    let mut start = || {
        named += 1;
        Player::start(&format!("{url} p{named} {}", listed.join(" ")), &sender)
    };
    let mut players: Vec<Player> = (0..PLAYERS).map(|_| start()).collect();
    let mut heard = Heard { lines, all: Vec::new() };
    for fault in 0..faults {
        heard.wait_for_results(20);
        let at = fault % PLAYERS;
        match fault % 6 {
            0 | 3 => players[at] = start(),
            1 => {
                players[at].signal("STOP");
                heard.wait_for_results(20);
                players[at].signal("CONT");
            }
            2 => {
                server.kill();
                server.start_again();
            }
            4 => drop(server.command(&["CLIENT", "KILL", "TYPE", "normal"])),
            _ => drop(server.command(&["SCRIPT", "FLUSH"])),
        }
    }
    heard.wait_for_results(20);
    drop(players);
    drop(sender);
    heard.all.extend(heard.lines.iter());
    let kept = store(&url);
    for id in sessions {
        let history = said(&kept.load(id).unwrap().unwrap().0.history);
        let lines: Vec<&Line> = heard.all.iter().filter(|line| line.session == id).collect();
        if let Err(fault) = check(&history, &lines) {
            panic!("session {id}: {fault}\n{history:?}\n{lines:#?}");
        }
    }
}

/// The checker of one session.
fn check(history: &[String], lines: &[&Line]) -> Result<(), String> {
    let mut places: BTreeMap<&str, usize> = BTreeMap::new();
    for (place, pair) in history.chunks(2).enumerate() {
        let [prompt, answer] = pair else { return Err("half a turn is there".into()) };
        if *answer != format!("= {prompt}") {
            return Err(format!("{answer} follows {prompt}"));
        }
        if places.insert(prompt, place).is_some() {
            return Err(format!("{prompt} is there twice"));
        }
    }
    let begun: BTreeMap<&str, u128> =
        lines.iter().filter(|line| line.number.is_none()).map(|line| (line.prompt.as_str(), line.at)).collect();
    if let Some(prompt) = places.keys().find(|prompt| !begun.contains_key(**prompt)) {
        return Err(format!("{prompt} was not begun"));
    }
    let mut numbers = BTreeSet::new();
    // By place: when the turn began, and when its result was there.
    let mut times: Vec<(u128, Option<u128>)> = vec![(0, None); places.len()];
    for (prompt, place) in &places {
        times[*place].0 = begun[prompt];
    }
    for line in lines {
        let Some(number) = line.number else { continue };
        let Some(place) = places.get(line.prompt.as_str()) else {
            return Err(format!("{} was answered, and is not there", line.prompt));
        };
        if !numbers.insert(number) {
            return Err(format!("two answered turns have the number {number}"));
        }
        times[*place].1 = Some(line.at);
    }
    // No turn stands behind one that began after its result was there.
    let mut latest_begin = 0;
    for (place, (begin, end)) in times.iter().enumerate() {
        if end.is_some_and(|end| end < latest_begin) {
            return Err(format!("the turn at place {place} was over before one in front of it began"));
        }
        latest_begin = latest_begin.max(*begin);
    }
    Ok(())
}

#[test]
fn c82_the_checker_of_histories_finds_each_kind_of_fault() {
    let id = SessionId::new();
    let line = |at, prompt: &str, number| Line { at, session: id, prompt: prompt.into(), number };
    let of =
        |prompts: &[&str]| prompts.iter().flat_map(|prompt| [(*prompt).to_owned(), format!("= {prompt}")]).collect();
    let lines =
        [line(1, "a", None), line(2, "a", Some(1)), line(3, "b", None), line(4, "c", None), line(5, "c", Some(3))];
    let checked = |history: &[&str], lines: &[Line]| {
        let history: Vec<String> = of(history);
        check(&history, &lines.iter().collect::<Vec<_>>())
    };
    for good in [&["a", "c"][..], &["a", "b", "c"], &["a", "c", "b"]] {
        assert_eq!(checked(good, &lines), Ok(()), "{good:?}");
    }
    for bad in [&["a"][..], &["c", "a"], &["b", "a", "c"], &["a", "c", "d"], &["a", "c", "a"], &["a", "b", "b", "c"]] {
        assert!(checked(bad, &lines).is_err(), "{bad:?}");
    }
    let twice = [lines.as_slice(), &[line(6, "b", Some(3))]].concat();
    assert!(checked(&["a", "c", "b"], &twice).is_err());
    assert!(check(&["a".into()], &[&lines[0]]).is_err());
}
