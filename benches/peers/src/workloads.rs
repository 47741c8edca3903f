//! The workloads W1 to W10 of the benches, for each crate that has the needed operations.

use std::sync::RwLock;
use std::thread;
use std::time::Duration;

use ::turnwise::{SessionService, SessionSpec};

use crate::common::failures::attempt;
use crate::common::floors::{self, PingPong};
use crate::common::memory::{counted, memory, total};
use crate::common::plot::Series;
use crate::common::times::{interleaved, time, times, Contestant, Times};
use crate::common::{configure, full_or_quick, many, nothing};
use crate::kameo::Kameo;
use crate::meerkat::Meerkat;
use crate::peer::{Peer, Service};
use crate::ractor::Ractor;
use crate::table::{microseconds, Row, Unit, NAMES};
use crate::task::Task;
use crate::tonari::Tonari;
use crate::turnwise::Turnwise;

/// All crates, in one process.
pub(crate) struct Everybody<'r> {
    pub(crate) turnwise: Turnwise,
    pub(crate) meerkat: Meerkat<'r>,
    pub(crate) tonari: Tonari,
    pub(crate) kameo: Kameo<'r>,
    pub(crate) ractor: Ractor<'r>,
}

/// Calls a function for every crate: `[f(&turnwise, …), f(&meerkat, …), …]`.
macro_rules! each {
    ($all:expr, $f:ident $(, $argument:expr)*) => {
        [
            $f(&$all.turnwise $(, $argument)*),
            $f(&$all.meerkat $(, $argument)*),
            $f(&$all.tonari $(, $argument)*),
            $f(&$all.kameo $(, $argument)*),
            $f(&$all.ractor $(, $argument)*),
        ]
    };
}

/// W1: the round trip of a turn.
pub(crate) fn round_trip(all: &Everybody<'_>) -> Row {
    fn contestant<P: Peer>(peer: &P) -> Contestant<'_> {
        let session = peer.open();
        Box::new(move || times(full_or_quick(4_000, 200), || peer.ask(&session, Task::Nothing)))
    }
    let floor = PingPong::new();
    let [turnwise, meerkat, tonari, kameo, ractor] = each!(all, contestant);
    let floor: Contestant<'_> = Box::new(|| floor.round_trips(full_or_quick(4_000, 200)));
    let [floor, rest @ ..] = interleaved(9, [floor, turnwise, meerkat, tonari, kameo, ractor]);
    Row::of_times("W1 a turn, round trip", Some(floor), rest, 1)
}

/// W2: an event to one receiver.
pub(crate) fn events(all: &Everybody<'_>) -> Row {
    fn contestant<S: Service>(service: &S, events: usize) -> Contestant<'_> {
        let session = service.open();
        Box::new(move || Times::of(time(|| service.stream(&session, events as u64)) / events as u32))
    }
    let events = full_or_quick(400_000, 4_000);
    let floor: Contestant<'_> = Box::new(|| Times::of(floors::events(events)));
    let [floor, ours, theirs] =
        interleaved(7, [floor, contestant(&all.turnwise, events), contestant(&all.meerkat, events)]);
    Row::of_services("W2 an event to one receiver", Some(floor.median()), [ours.median(), theirs.median()])
}

/// W3: a session is created, runs its first turn, and is archived.
pub(crate) fn create_and_end(all: &Everybody<'_>) -> Row {
    fn contestant<P: Peer>(peer: &P) -> Contestant<'_> {
        Box::new(move || times(full_or_quick(500, 50), || peer.cycle()))
    }
    let [turnwise, meerkat, tonari, kameo, ractor] = each!(all, contestant);
    let floor: Contestant<'_> = Box::new(|| floors::spawn_and_join(full_or_quick(500, 50)));
    let [floor, rest @ ..] = interleaved(5, [floor, turnwise, meerkat, tonari, kameo, ractor]);
    Row::of_times("W3 create, first turn, archive", Some(floor), rest, 1)
}

/// W4: the time per turn while `callers` callers run turns at once.
pub(crate) fn callers(all: &Everybody<'_>, callers: usize) -> Row {
    fn contestant<P: Peer + Sync>(peer: &P, callers: usize, each: usize) -> Contestant<'_> {
        let sessions: Vec<_> = (0..callers).map(|_| peer.open()).collect();
        Box::new(move || {
            let all = time(|| {
                thread::scope(|scope| {
                    for session in &sessions {
                        scope.spawn(move || (0..each).for_each(|_| peer.ask(session, Task::Nothing)));
                    }
                });
            });
            Times::of(all / (callers * each) as u32)
        })
    }
    let turns = full_or_quick(64_000, 1_280) / callers;
    let figures = interleaved(7, each!(all, contestant, callers, turns));
    Row::of_times(format!("W4 a turn, of {callers} callers at once"), None, figures, 1)
}

/// W5: a read of an idle session.
pub(crate) fn reads(all: &Everybody<'_>) -> Row {
    fn contestant<S: Service>(service: &S) -> Contestant<'_> {
        let session = service.open();
        const BATCH: usize = 200;
        Box::new(move || {
            let batch = || time(|| (0..BATCH).for_each(|_| service.read(&session))) / BATCH as u32;
            (0..full_or_quick(100, 5)).map(|_| batch()).collect()
        })
    }
    let service = configure(nothing).build().expect("the settings are valid");
    let id = service.open_session(SessionSpec::new()).expect("a session");
    let view = RwLock::new(service.read(id).expect("a live session"));
    let floor: Contestant<'_> = Box::new(|| floors::locked_clone(full_or_quick(100, 5), &view));
    let [floor, ours, theirs] = interleaved(7, [floor, contestant(&all.turnwise), contestant(&all.meerkat)]);
    Row::of_services("W5 a read of an idle session", Some(floor.median()), [ours.median(), theirs.median()])
}

/// W5: a read during a turn of 500 ms.
pub(crate) fn reads_during_a_turn(all: &Everybody<'_>) -> Row {
    fn contestant<S: Service>(service: &S) -> Contestant<'_> {
        let session = service.open();
        Box::new(move || Times::of(service.read_during_a_turn(&session, 500)))
    }
    let [ours, theirs] = interleaved(5, [contestant(&all.turnwise), contestant(&all.meerkat)]);
    Row::of_services("W5 a read during a turn of 500 ms", None, [ours.median(), theirs.median()])
}

/// W6: the 99th percentile of the time from an interrupt until the agent is notified. The turns would wait for 20 ms
/// more.
pub(crate) fn interrupts(all: &Everybody<'_>) -> Row {
    fn contestant<S: Service>(service: &S, count: usize) -> Contestant<'_> {
        let session = service.open();
        Box::new(move || (0..count).map(|_| service.interrupt(&session, 20)).collect())
    }
    let count = full_or_quick(100, 5);
    let floor: Contestant<'_> = Box::new(|| floors::wakes(count, Duration::from_micros(500)));
    let [floor, ours, theirs] =
        interleaved(5, [floor, contestant(&all.turnwise, count), contestant(&all.meerkat, count)]);
    let p99 = |times: Times| times.percentile(99);
    Row::of_services("W6 interrupt until told, p99", Some(p99(floor)), [p99(ours), p99(theirs)])
}

/// W7: a list of 50 of 10,000 sessions, and a list of all of them. Shows each row as soon as it is measured.
pub(crate) fn lists(all: &Everybody<'_>, mut show: impl FnMut(Row)) {
    fn contestant<S: Service>(service: &S, limit: Option<usize>) -> Contestant<'_> {
        Box::new(move || times(full_or_quick(100, 5), || assert!(service.list(limit) >= limit.unwrap_or_else(many))))
    }
    let Everybody { turnwise, meerkat, .. } = all;
    let (ours, theirs) = (open_many(turnwise), open_many(meerkat));
    let row = |what: String, limit| {
        let [ours, theirs] = interleaved(5, [contestant(turnwise, limit), contestant(meerkat, limit)]);
        Row::of_services(what, None, [ours.median(), theirs.median()])
    };
    show(row(format!("W7 a list of 50 of {}", many()), Some(50)));
    show(row("W7 a list of all of them".to_owned(), None));
    turnwise.close_all(ours);
    meerkat.close_all(theirs);
}

fn open_many<P: Peer>(peer: &P) -> Vec<P::Session> {
    (0..many()).map(|_| peer.open()).collect()
}

/// W8: the memory of an idle session. Each count runs in a process of its own, with [`make_idle`].
pub(crate) fn memory_of_idle() -> Option<Row> {
    memory()?;
    let runs = full_or_quick(3, 1);
    let floor = attempt("W8 of threads", || total(&counted("threads", runs)));
    let figures = NAMES.map(|name| attempt(&format!("W8 of {name}"), || total(&counted(name, runs))));
    Some(Row::new(format!("W8 memory, one idle of {}", many()), Unit::Kibibytes, floor, figures))
}

/// Makes many of the objects that W8 counts, and leaves them idle until the process ends.
pub(crate) fn make_idle(what: &str, all: &Everybody<'_>) {
    fn make<P: Peer>(peer: &P, what: &str) {
        if what == P::NAME {
            let sessions = open_many(peer);
            // Some crates run a turn to create a session. So every session runs a turn before the count.
            sessions.iter().for_each(|session| peer.ask(session, Task::Nothing));
            std::mem::forget(sessions);
        }
    }
    each!(all, make, what);
    if what == "threads" {
        let threads = floors::Parked::new(many());
        threads.wake_all();
        std::mem::forget(threads);
    }
}

/// W9: the time per turn while one thread begins a turn on each of many sessions. Also returns that time over the work
/// of a turn, as one line for each crate.
pub(crate) fn one_turn_each(all: &Everybody<'_>) -> (Row, Vec<Series>) {
    const WORK: [u64; 10] = [0, 1, 2, 5, 10, 20, 50, 100, 200, 500];
    fn contestant<P: Peer>(peer: &P) -> [Times; WORK.len()] {
        let all = || {
            let sessions = open_many(peer);
            peer.ask_all(&sessions, Task::Nothing);
            let times = WORK.map(|work| {
                let task = if work == 0 { Task::Nothing } else { Task::Compute(work) };
                let measure = || times(full_or_quick(5, 1), || peer.ask_all(&sessions, task));
                attempt(&format!("W9 of {}, with {work} µs of work", P::NAME), measure).unwrap_or_default()
            });
            let _ = attempt(&format!("the end of W9 of {}", P::NAME), || peer.close_all(sessions));
            times
        };
        attempt(&format!("W9 of {}", P::NAME), all).unwrap_or_default()
    }
    // The crates run one after the other. Two sets of that many threads would exceed the default limits of Linux.
    let parked = || {
        let parked = floors::Parked::new(many());
        (0..full_or_quick(5, 1)).map(|_| parked.wake_all()).collect()
    };
    let floor: Times = attempt("W9 of parked threads", parked).unwrap_or_default();
    let all = each!(all, contestant);
    let series = NAMES.iter().zip(&all).map(|(name, by_work)| {
        let cost = |times: &Times| microseconds(times.median()) / many() as f64;
        // The time per turn includes the work, which the cores share.
        let measured = WORK.iter().zip(by_work).skip(1).filter(|(_, times)| !times.is_empty());
        let points = measured.map(|(&work, times)| (work as f64, cost(times)));
        Series { name: (*name).to_owned(), points: points.collect() }
    });
    let series = series.collect();
    let without_work = all.map(|by_work| by_work[0].clone());
    let row = Row::of_times(format!("W9 a turn, of one on each of {}", many()), Some(floor), without_work, many());
    (row, series)
}

/// W10: 1,000 turns that block for 10 ms. In tasks this work runs in `spawn_blocking`.
pub(crate) fn blocking_turns(all: &Everybody<'_>) -> Row {
    fn contestant<P: Peer>(peer: &P) -> Contestant<'_> {
        let sessions: Vec<_> = (0..full_or_quick(1_000, 50)).map(|_| peer.open()).collect();
        Box::new(move || times(3, || peer.ask_all(&sessions, Task::Block(10))))
    }
    let floor: Contestant<'_> = Box::new(|| times(3, || thread::sleep(Duration::from_millis(10))));
    let [turnwise, meerkat, tonari, kameo, ractor] = each!(all, contestant);
    let [floor, rest @ ..] = interleaved(5, [floor, turnwise, meerkat, tonari, kameo, ractor]);
    Row::of_times("W10 1,000 turns that block for 10 ms", Some(floor), rest, 1)
}

/// The least work of a turn, in microseconds, from which on W9 costs at most a tenth more than with the fastest other
/// crate. `None` if no measured work is enough, or if a measurement is missing.
pub(crate) fn crossover(series: &[Series]) -> Option<f64> {
    let (ours, others) = series.split_first()?;
    if others.iter().any(|other| other.points.len() != ours.points.len()) {
        return None;
    }
    let enough = |place: usize, cost: f64| {
        let best = others.iter().map(|other| other.points[place].1).fold(f64::INFINITY, f64::min);
        cost <= 1.1 * best
    };
    let places = ours.points.iter().enumerate();
    places.rev().take_while(|(place, (_, cost))| enough(*place, *cost)).last().map(|(_, (work, _))| *work)
}
