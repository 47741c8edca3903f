//! Turns that workers run for a client, through the server.
//!
//! The floor of a turn is a message there and back: one thread adds an entry to a stream, another one waits for it and adds
//! one to a second stream, for which the first one waits.

use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turnwise::cluster::{ClusterService, Durability, Engine, EngineConfig, Worker};
use turnwise::{CreateSessionRequest, ServiceConfig, SessionId, SessionService, StartTurnRequest};

use crate::bare::Bare;
use crate::common::failures::attempt;
use crate::common::times::{interleaved, time, times, Times};
use crate::common::{self, full_or_quick, report, report_numbers, report_rate, title};
use crate::server::Server;
use crate::TEXT;

/// The variable that makes the process a worker: the address of the server.
const WORKER: &str = "TURNWISE_BENCH_WORKER";
const LEASE: Duration = Duration::from_secs(2);

/// Runs a worker until the process is killed, if this process is to be one.
pub(crate) fn is_worker() -> bool {
    let Ok(url) = std::env::var(WORKER) else { return false };
    let _worker = Worker::start(configure(common::block), engine(&url, "workers")).expect("a worker");
    loop {
        thread::park();
    }
}

/// The settings of a worker. An agent that is kept needs a larger stack than the others.
fn configure(work: common::Work) -> ServiceConfig<common::Workers> {
    common::configure(work).stack_size(2 * common::STACK)
}

fn engine(url: &str, namespace: &str) -> Engine {
    let config = EngineConfig::new().namespace(namespace).lease(LEASE).durability(Durability::Any);
    Engine::open(url, config).expect("an engine")
}

pub(crate) fn measure(server: &Server, sync: &str) {
    title(&format!("cluster: turns that workers run, appendfsync {sync}"));
    let _ = attempt("a turn", || one_turn(server));
    let _ = attempt("two workers", || two_workers(server));
    let _ = attempt("events", || events(server));
    let _ = attempt("interrupt", || interrupts(server));
    let _ = attempt("fail-over", || fail_over(server));
}

/// A worker and a client, each with connections of its own, as in two processes.
fn pair(server: &Server, namespace: &str, work: common::Work) -> (Worker, ClusterService) {
    let worker = Worker::start(configure(work), engine(&server.url(), namespace)).expect("a worker");
    (worker, ClusterService::new(engine(&server.url(), namespace)).expect("a client"))
}

/// One caller, one worker, no work.
fn one_turn(server: &Server) {
    let (_worker, client) = pair(server, "one-turn", common::nothing);
    let id = common::open(&client, 1)[0];
    let stop = AtomicBool::new(false);
    let turns = full_or_quick(500, 5);
    thread::scope(|scope| {
        let mut other = Bare::connect(server);
        let stop = &stop;
        scope.spawn(move || {
            let mut last = "0".to_owned();
            loop {
                last = other.next("there", &last);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                other.add("back", &"m".repeat(TEXT));
            }
        });
        let mut own = Bare::connect(server);
        let mut last = "0".to_owned();
        let [floor, figure] = interleaved(
            5,
            [
                Box::new(|| {
                    times(turns, || {
                        own.add("there", &"m".repeat(TEXT));
                        last = own.next("back", &last);
                    })
                }),
                Box::new(|| times(turns, || run(&client, id, &"p".repeat(TEXT)))),
            ],
        );
        report("a turn, over a message there and back", figure.median(), floor.median());
        stop.store(true, Ordering::SeqCst);
        Bare::connect(server).add("there", "stop");
    });
}

fn run(client: &ClusterService, id: SessionId, prompt: &str) {
    client.start_turn(id, StartTurnRequest::new(prompt)).expect("a turn");
}

/// Sixteen callers whose turns block for 10 ms, on workers that run eight turns at a time.
fn two_workers(server: &Server) {
    let engine = || engine(&server.url(), "two-workers");
    let start = || {
        let config = configure(common::block).max_sessions(64).max_running_turns(8);
        Worker::start(config, engine()).expect("a worker")
    };
    let client = ClusterService::new(engine()).expect("a client");
    let turns = full_or_quick(100, 2);
    let measure = |ids: &[SessionId]| {
        let all = time(|| {
            thread::scope(|scope| {
                for id in ids {
                    let client = &client;
                    scope.spawn(move || (0..turns).for_each(|_| run(client, *id, "10")));
                }
            });
        });
        (ids.len() * turns) as f64 / all.as_secs_f64()
    };
    let first = start();
    let alone = measure(&common::open(&client, 16));
    let _second = start();
    // A new session goes to the worker with the fewest: the first sixteen to the second worker, the others to both in turn.
    let both = measure(&common::open(&client, 32)[16..]);
    drop(first);
    report_numbers("turns of 10 ms a second, two workers over one", both, alone, "/s");
}

fn events(server: &Server) {
    let (_worker, client) = pair(server, "events", common::emit);
    let id = common::open(&client, 1)[0];
    let count = full_or_quick(100_000, 200);
    let mut floor = Bare::connect(server);
    // 64 to an entry, as the worker sends them.
    let body = r#"{"type":"text_delta","delta":"word "},"#.repeat(64);
    let bare = time(|| (0..count.div_ceil(64)).for_each(|_| floor.add("events", &body)));
    let mut seen = 0;
    let streamed = time(|| {
        let stream = client.stream_turn(id, StartTurnRequest::new(count.to_string())).expect("a turn");
        seen = stream.count();
    });
    assert!(seen >= count, "{seen} of {count} events");
    report_rate("an event", streamed / count as u32, bare / count as u32, "events");
}

/// From the interrupt of a waiting turn to its result.
fn interrupts(server: &Server) {
    let (_worker, client) = pair(server, "interrupts", common::wait);
    let first = client.create_session(CreateSessionRequest::new("")).expect("a session");
    let mut floor = Bare::connect(server);
    let mut all = Times::default();
    let mut bare = Times::default();
    for _ in 0..full_or_quick(500, 5) {
        bare.add(Times::of(time(|| floor.add("interrupts", "stop"))));
        let turn = client.begin_turn(first.session_id, StartTurnRequest::new("wait")).expect("a turn");
        all.add(Times::of(time(|| {
            turn.interrupt();
            let _ = turn.wait();
        })));
    }
    report("interrupt to result, median, over one command", all.median(), bare.median());
    report("interrupt to result, p99, over one command", all.percentile(99), bare.percentile(99));
}

/// From the kill of the worker that runs a turn to the next answer of its session, from the other worker.
fn fail_over(server: &Server) {
    let start = || {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        let worker = command.env(WORKER, server.url()).spawn().expect("a process");
        Process(worker)
    };
    let wait_for_workers = |count: usize| {
        while server.command(&["SCARD", "workers:workers"]).trim() != format!(":{count}") {
            thread::sleep(Duration::from_millis(5));
        }
    };
    let client = ClusterService::new(engine(&server.url(), "workers")).expect("a client");
    let mut all = Times::default();
    let mut first = start();
    wait_for_workers(1);
    for _ in 0..full_or_quick(5, 1) {
        let id = client.create_session(CreateSessionRequest::new("0")).expect("a session").session_id;
        let second = start();
        wait_for_workers(2);
        let lost = client.begin_turn(id, StartTurnRequest::new("60000")).expect("a turn");
        // The worker runs it by then.
        thread::sleep(Duration::from_millis(100));
        let killed = Instant::now();
        drop(first);
        assert_eq!(lost.wait().expect_err("a lost turn").code(), "WORKER_LOST");
        client.start_turn(id, StartTurnRequest::new("0")).expect("the other worker runs it");
        all.add(Times::of(killed.elapsed()));
        wait_for_workers(1);
        first = second;
    }
    report("kill of a worker to the next answer, over a lease", all.median(), LEASE);
}

/// A process that is killed at its drop.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
