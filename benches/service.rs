//! What the service itself costs, with agents that do no work: `cargo bench --bench service`.
//!
//! Every line is a figure, its floor (the bare operation of the system that the work cannot do without) and their ratio, all
//! of one run: absolute figures say more about the machine than about the code. Figures are medians.

// The library's rule about locks is the library's.
#![allow(clippy::disallowed_types)]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::RwLock;
use std::thread;
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::{
    agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, SessionAgentBuilder, SessionId, SessionQuery,
    SessionService, SessionSpec, StartTurnRequest,
};

const MANY: usize = 10_000;

fn main() {
    println!("{:<44} {:>12} {:>12} {:>7}", "", "figure", "floor", "ratio");
    round_trip();
    events();
    unheard_events();
    create_and_archive(0);
    create_and_archive(MANY);
    read();
    list();
    one_turn_each();
}

/// A service of agents that answer at once, or emit as many events as the prompt says.
fn service() -> EphemeralSessionService<impl SessionAgentBuilder> {
    let agent = agent_fn(|prompt, turn| {
        for _ in 0..prompt.parse().unwrap_or(0) {
            turn.emit(delta())?;
        }
        Ok(turn.finish(""))
    });
    let config = EphemeralSessionService::configure(agent).max_sessions(2 * MANY).stack_size(64 << 10);
    config.build().expect("the settings work")
}

fn open(service: &impl SessionService, count: usize) -> Vec<SessionId> {
    (0..count).map(|_| service.open_session(SessionSpec::new()).expect("a thread")).collect()
}

fn delta() -> AgentEvent {
    AgentEvent::TextDelta { delta: "word ".to_owned() }
}

/// The median time of `repeat` runs.
fn median(repeat: usize, mut run: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..repeat)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed()
        })
        .collect();
    times.sort();
    times[repeat / 2]
}

fn report(what: &str, figure: Duration, floor: Duration) {
    let ratio = figure.as_secs_f64() / floor.as_secs_f64();
    println!("{what:<44} {:>12} {:>12} {ratio:>7.2}", format!("{figure:.2?}"), format!("{floor:.2?}"));
}

/// Against two channels between two threads.
fn round_trip() {
    let (there, inbox) = bounded(1);
    let (answer, back) = bounded(1);
    let echo = thread::spawn(move || inbox.iter().for_each(|()| answer.send(()).expect("the bench listens")));
    let floor = median(50_000, || {
        there.send(()).expect("the echo listens");
        back.recv().expect("the echo answers");
    });
    drop(there);
    echo.join().expect("the echo ends");
    let service = service();
    let id = open(&service, 1)[0];
    let figure = median(50_000, || drop(service.start_turn(id, StartTurnRequest::new("")).expect("a turn")));
    report("a turn, round trip", figure, floor);
}

/// Against the same events through the same kind of channel.
fn events() {
    const EVENTS: usize = 200_000;
    let floor = median(9, || {
        let (sender, receiver) = bounded(256);
        let producer = thread::spawn(move || (0..EVENTS).for_each(|_| sender.send(delta()).expect("a receiver")));
        assert_eq!(receiver.iter().count(), EVENTS);
        producer.join().expect("the producer ends");
    });
    let service = service();
    let id = open(&service, 1)[0];
    let figure = median(9, || {
        let (event_tx, receiver) = bounded(256);
        let request = StartTurnRequest::new(EVENTS.to_string()).event_tx(event_tx);
        let turn = service.begin_turn(id, request).expect("a turn");
        assert_eq!(receiver.iter().count(), EVENTS + 2);
        turn.wait().expect("a result");
    });
    report("an event of a running turn", figure / EVENTS as u32, floor / EVENTS as u32);
}

/// Against making the same events and counting them: nobody listens, and nobody has asked to.
fn unheard_events() {
    const EVENTS: u64 = 200_000;
    let counter = AtomicU64::new(0);
    let floor = median(9, || {
        for _ in 0..EVENTS {
            drop(black_box(delta()));
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let service = service();
    let id = open(&service, 1)[0];
    let figure = median(9, || drop(service.start_turn(id, StartTurnRequest::new(EVENTS.to_string())).expect("a turn")));
    report("an event that nobody hears", figure / EVENTS as u32, floor / EVENTS as u32);
}

/// Against spawning and joining a thread; the oldest of `others` sessions is archived.
fn create_and_archive(others: usize) {
    let floor = median(2_000, || thread::spawn(|| ()).join().expect("the thread ends"));
    let service = service();
    let mut oldest = open(&service, others).into_iter();
    let figure = median(2_000, || {
        let created = service.create_session(CreateSessionRequest::new("")).expect("a session").session_id;
        service.archive(oldest.next().unwrap_or(created)).expect("a live session");
    });
    report(&format!("create, first turn, archive; among {others}"), figure, floor);
    service.shutdown(Duration::from_secs(60));
}

/// Against a lock taken for reading and a clone, each a thousand times.
fn read() {
    const READS: u32 = 1_000;
    let service = service();
    let id = open(&service, 1)[0];
    let view = RwLock::new(service.read(id).expect("a live session"));
    let floor = median(200, || (0..READS).for_each(|_| drop(black_box(view.read().expect("a lock").clone()))));
    let read = || (0..READS).for_each(|_| drop(black_box(service.read(id).expect("a live session"))));
    report("a read, idle", median(200, read) / READS, floor / READS);
    let (event_tx, events) = unbounded();
    let running = service.begin_turn(id, StartTurnRequest::new("1000000000").event_tx(event_tx)).expect("a turn");
    events.recv().expect("the turn runs");
    drop(events);
    report("a read, during a turn", median(200, read) / READS, floor / READS);
    running.interrupt();
    running.wait().expect_err("interrupted");
}

/// Against reading one session after the other.
fn list() {
    let service = service();
    let ids = open(&service, MANY);
    let one = median(1_000, || drop(black_box(service.read(ids[MANY / 2]).expect("a live session"))));
    let page = SessionQuery::new().after(ids[MANY / 2]).limit(50);
    let figure = median(1_000, || drop(black_box(service.list(page.clone()).expect("a page"))));
    report("a list of 50 of 10,000", figure, 50 * one);
    let figure = median(50, || drop(black_box(service.list(SessionQuery::new()).expect("all"))));
    report("a list of all 10,000", figure, MANY as u32 * one);
    service.shutdown(Duration::from_secs(60));
}

/// Against waking as many threads.
fn one_turn_each() {
    let (done, dones) = unbounded();
    let threads: Vec<_> = (0..MANY)
        .map(|_| {
            let ((wake, woken), done) = (unbounded::<()>(), done.clone());
            let thread = thread::Builder::new().stack_size(64 << 10);
            let thread = thread.spawn(move || woken.iter().for_each(|()| done.send(()).expect("the bench listens")));
            (wake, thread.expect("a thread"))
        })
        .collect();
    let floor = median(5, || {
        threads.iter().for_each(|(wake, _)| wake.send(()).expect("a thread listens"));
        dones.iter().take(MANY).for_each(drop);
    });
    for (wake, thread) in threads {
        drop(wake);
        thread.join().expect("the thread ends");
    }
    let service = service();
    let ids = open(&service, MANY);
    let figure = median(5, || {
        let begin = |id: &SessionId| service.begin_turn(*id, StartTurnRequest::new("")).expect("a turn");
        let turns: Vec<_> = ids.iter().map(begin).collect();
        turns.into_iter().for_each(|turn| drop(turn.wait().expect("a result")));
    });
    report("one turn on each of 10,000 sessions", figure, floor);
    service.shutdown(Duration::from_secs(60));
}
