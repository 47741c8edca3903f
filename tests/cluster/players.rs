//! Players: processes that run turns, and print what they begin and how it ends. The checker compares that with the record.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turnwise::{SessionError, SessionId, SessionService};

use crate::server::{behind, signal};
use crate::support::*;

/// The variable that makes a test a player, with what the player is told.
const PLAYER: &str = "TURNWISE_CLUSTER_PLAYER";

/// What this process is told, if it is a player.
pub(crate) fn told() -> Option<Vec<String>> {
    std::env::var(PLAYER).ok().map(|told| told.split(' ').map(str::to_owned).collect())
}

/// The number of faults of a test.
pub(crate) fn faults(usual: usize) -> usize {
    std::env::var("TURNWISE_CLUSTER_FAULTS").ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// A line of a player: a turn that begins, or its end.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    at: u128,
    pub(crate) session: SessionId,
    prompt: String,
    end: Option<End>,
}

/// The end of a turn, where it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With a result, under this number.
    Answered(u64),
    /// Its worker is gone: the turn is not in the history, and never will be.
    Lost,
    /// It was not begun.
    Refused,
}

impl Line {
    fn parse(line: &str) -> Option<Self> {
        // The test harness prints lines of its own, and a killed player half a line.
        let words: Vec<&str> = line.split(' ').collect();
        let &["player", at, session, prompt, end, "."] = words.as_slice() else { return None };
        let (at, session) = (at.parse().expect("a time"), session.parse().expect("an id"));
        let end = match end {
            "begins" => None,
            "lost" => Some(End::Lost),
            "refused" => Some(End::Refused),
            number => Some(End::Answered(number.parse().expect("a number"))),
        };
        Some(Self { at, session, prompt: prompt.into(), end })
    }

    fn number(&self) -> Option<u64> {
        match self.end {
            Some(End::Answered(number)) => Some(number),
            _ => None,
        }
    }

    /// Whether the turn must not be in the history.
    fn is_in_no_history(&self) -> bool {
        matches!(self.end, Some(End::Lost | End::Refused))
    }
}

pub(crate) fn say(session: SessionId, prompt: &str, end: Option<End>) {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time of today").as_nanos();
    let end = match end {
        None => "begins".into(),
        Some(End::Answered(number)) => number.to_string(),
        Some(End::Lost) => "lost".into(),
        Some(End::Refused) => "refused".into(),
    };
    let line = format!("player {at} {session} {prompt} {end} .\n");
    // In one write, so that lines of several threads do not mix.
    if std::io::stdout().lock().write_all(line.as_bytes()).is_err() {
        std::process::exit(0); // the parent has ended
    }
}

/// Runs turns of these sessions on several threads, until the process is killed.
pub(crate) fn play(service: &(impl SessionService + Clone), name: &str, threads: usize, sessions: &[SessionId]) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                for n in 0.. {
                    let session = sessions[(n + thread) % sessions.len()];
                    let prompt = format!("{name}-{thread}-{n}");
                    say(session, &prompt, None);
                    match service.start_turn(session, turn(&prompt)) {
                        Ok(result) => say(session, &prompt, Some(End::Answered(result.turn_id.get()))),
                        Err(error) => match error.code() {
                            "WORKER_LOST" => say(session, &prompt, Some(End::Lost)),
                            "SESSION_BUSY" | "QUEUE_FULL" | "CAPACITY_EXCEEDED" => {
                                say(session, &prompt, Some(End::Refused));
                                pause_after(&error);
                            }
                            _ => pause_after(&error),
                        },
                    }
                }
            });
        }
    });
}

/// A caller that is refused tries again a moment later, as callers do.
fn pause_after(error: &SessionError) {
    if !matches!(error, SessionError::Busy { .. }) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) struct Player {
    process: Child,
}

impl Player {
    /// Starts `test` of this program as a player, by a command that runs another one.
    pub(crate) fn start(prefix: &[String], test: &str, told: &str, lines: &Sender<Line>) -> Self {
        let mut command = behind(prefix, std::env::current_exe().expect("this test's program"));
        command.args([test, "--exact", "--nocapture"]);
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

    pub(crate) fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The lines so far.
pub(crate) struct Heard {
    lines: Receiver<Line>,
    pub(crate) all: Vec<Line>,
}

impl Heard {
    pub(crate) fn new() -> (Sender<Line>, Self) {
        let (sender, lines) = channel();
        (sender, Self { lines, all: Vec::new() })
    }

    /// Reads lines until so many more turns have a result.
    pub(crate) fn wait_for_results(&mut self, count: usize) {
        let mut results = 0;
        while results < count {
            let line = self.lines.recv_timeout(LONG).expect("the players get on");
            results += usize::from(line.number().is_some());
            self.all.push(line);
        }
    }

    /// Reads the rest. The players and their senders are gone by now.
    pub(crate) fn finish(&mut self) {
        self.all.extend(self.lines.iter());
    }

    /// Reads lines until none comes for so long. Returns the last number of a result.
    pub(crate) fn wait_for_silence(&mut self, length: Duration) -> u64 {
        while let Ok(line) = self.lines.recv_timeout(length) {
            self.all.push(line);
        }
        self.all.iter().rev().find_map(Line::number).expect("a result")
    }

    /// The numbers of the results, in their order.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.all.iter().filter_map(Line::number).collect()
    }

    /// Fails if no turn was lost: then nothing was proven about those. Prints the counts.
    pub(crate) fn check_counts(&self, faults: usize) {
        let count = |is_it: fn(&Line) -> bool| self.all.iter().filter(|line| is_it(line)).count();
        let begun = count(|line| line.end.is_none());
        let (answered, lost) = (count(|line| line.number().is_some()), count(|line| line.end == Some(End::Lost)));
        let refused = count(|line| line.end == Some(End::Refused));
        let unknown = begun - answered - lost - refused;
        eprintln!("{faults} faults; {answered} turns answered, {lost} lost, {unknown} unknown, {refused} refused");
        assert!(lost > 0, "no turn was lost, so nothing was proven about those");
    }

    /// Compares what was printed of a session with its record.
    pub(crate) fn check(&self, id: SessionId, history: &turnwise::Session) {
        let history = said(history);
        let lines: Vec<&Line> = self.all.iter().filter(|line| line.session == id).collect();
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
        lines.iter().filter(|line| line.end.is_none()).map(|line| (line.prompt.as_str(), line.at)).collect();
    if let Some(prompt) = places.keys().find(|prompt| !begun.contains_key(**prompt)) {
        return Err(format!("{prompt} was not begun"));
    }
    if let Some(line) = lines.iter().find(|line| line.is_in_no_history() && places.contains_key(&*line.prompt)) {
        return Err(format!("{} was lost or refused, and is there", line.prompt));
    }
    let mut numbers = BTreeSet::new();
    // By place: when the turn began, and when its result was there.
    let mut times: Vec<(u128, Option<u128>)> = vec![(0, None); places.len()];
    for (prompt, place) in &places {
        times[*place].0 = begun[prompt];
    }
    for line in lines {
        let Some(number) = line.number() else { continue };
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
    let line = |at, prompt: &str, end| Line { at, session: id, prompt: prompt.into(), end };
    let answered = |number| Some(End::Answered(number));
    let of =
        |prompts: &[&str]| prompts.iter().flat_map(|prompt| [(*prompt).to_owned(), format!("= {prompt}")]).collect();
    let lines = [
        line(1, "a", None),
        line(2, "a", answered(1)),
        line(3, "b", None),
        line(4, "c", None),
        line(5, "c", answered(3)),
        line(6, "d", None),
        line(7, "d", Some(End::Lost)),
        line(8, "e", None),
        line(9, "e", Some(End::Refused)),
    ];
    let checked = |history: &[&str], lines: &[Line]| {
        let history: Vec<String> = of(history);
        check(&history, &lines.iter().collect::<Vec<_>>())
    };
    for good in [&["a", "c"][..], &["a", "b", "c"], &["a", "c", "b"]] {
        assert_eq!(checked(good, &lines), Ok(()), "{good:?}");
    }
    let bad = [
        &["a"][..],
        &["c", "a"],
        &["b", "a", "c"],
        &["a", "c", "d"],
        &["a", "c", "e"],
        &["a", "c", "f"],
        &["a", "c", "a"],
        &["a", "b", "b", "c"],
    ];
    for bad in bad {
        assert!(checked(bad, &lines).is_err(), "{bad:?}");
    }
    let twice = [lines.as_slice(), &[line(10, "b", answered(3))]].concat();
    assert!(checked(&["a", "c", "b"], &twice).is_err());
    assert!(check(&["a".into()], &[&lines[0]]).is_err());
}
