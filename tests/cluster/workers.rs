//! Workers and callers, each a process, over one server, while all of them are killed, stopped and cut off.
//!
//! What has to hold is in the head of [`killed`](crate::killed), and one thing more: a turn that was reported as lost is in
//! no record. `TURNWISE_CLUSTER_FAULTS` is the number of faults. Without it each kind comes twice over proxies, and once over
//! networks of namespaces.

use std::time::Duration;

use turnwise::cluster::{ClusterService, Engine, EngineConfig, RedisStore, Worker};
use turnwise::store::SessionStore;
use turnwise::{
    agent_fn, CancelReason, EphemeralSessionService, SessionId, SessionService, SessionSpec, TurnContext, WhenBusy,
};

use crate::namespaces::{Cut, Healing, Namespaces};
use crate::players::{faults, play, told, Heard, Player};
use crate::proxy::{Network, Proxy};
use crate::server::Server;
use crate::support::*;

const WORKERS: usize = 2;
const CALLERS: usize = 2;
const THREADS: usize = 3;
const SESSIONS: usize = 4;
const LEASE: Duration = Duration::from_secs(2);

fn engine(url: &str, lease: Duration) -> Engine {
    Engine::open(url, EngineConfig::new().lease(lease)).expect("the engine opens")
}

/// Hosts sessions until the process is killed.
fn work(engine: Engine) {
    // A turn takes a moment, so that a fault meets some that run.
    let agent = agent_fn(|prompt, turn: &TurnContext| {
        std::thread::sleep(Duration::from_millis(2));
        Ok(turn.finish(prompt))
    });
    let _worker = Worker::start(EphemeralSessionService::configure(agent), engine).expect("the worker starts");
    loop {
        std::thread::park();
    }
}

/// Does what a player is told. Returns `false` in the process of the test itself.
fn is_player() -> bool {
    match told().as_deref() {
        Some([role, url, lease]) if role == "worker" => {
            work(engine(url, Duration::from_secs(lease.parse().expect("seconds"))));
        }
        Some([_, url, name, sessions @ ..]) => {
            let sessions: Vec<SessionId> = sessions.iter().map(|id| id.parse().expect("an id")).collect();
            let service = ClusterService::new(engine(url, LEASE)).expect("the client starts");
            play(&service, name, THREADS, &sessions);
        }
        _ => return false,
    }
    true
}

fn tell_worker(url: &str, lease: Duration) -> String {
    format!("worker {url} {}", lease.as_secs())
}

fn tell_caller(url: &str, name: usize, sessions: &[SessionId]) -> String {
    let sessions: Vec<String> = sessions.iter().map(SessionId::to_string).collect();
    format!("caller {url} c{name} {}", sessions.join(" "))
}

/// Opens the sessions of a test. Waits for the first worker.
fn open_sessions(url: &str) -> Vec<SessionId> {
    let service = ClusterService::new(engine(url, LEASE)).expect("the client starts");
    let open = || loop {
        match service.open_session(SessionSpec::new()) {
            Ok(id) => break id,
            // No worker is there yet.
            Err(error) => assert_eq!(error.code(), "CAPACITY_EXCEEDED"),
        }
    };
    (0..SESSIONS).map(|_| open()).collect()
}

/// Compares what the players have printed with the records. The players are gone by now.
fn check(mut heard: Heard, faults: usize, url: &str, sessions: Vec<SessionId>) {
    heard.finish();
    let kept = RedisStore::new(engine(url, LEASE));
    for id in sessions {
        heard.check(id, &kept.load(id).unwrap().unwrap().0.history);
    }
    heard.check_counts(faults);
}

#[test]
fn c88_faults_lose_no_answered_turn_and_keep_no_lost_one() {
    if is_player() {
        return;
    }
    let Some(mut server) = Server::start(&[]) else { return };
    let (sender, mut heard) = Heard::new();
    let networks: Vec<Proxy> = (0..WORKERS + CALLERS).map(|_| Proxy::start(server.port())).collect();
    let start = |told: String| {
        let test = "workers::c88_faults_lose_no_answered_turn_and_keep_no_lost_one";
        Player::start(&[], test, &told, &sender)
    };
    let start_worker = |at: usize| start(tell_worker(&networks[at].url(), LEASE));
    let mut workers: Vec<Player> = (0..WORKERS).map(start_worker).collect();
    let sessions = open_sessions(&server.url());
    let mut named = 0;
    let mut start_caller = |at: usize| {
        named += 1;
        start(tell_caller(&networks[WORKERS + at].url(), named, &sessions))
    };
    let mut callers: Vec<Player> = (0..CALLERS).map(&mut start_caller).collect();
    let faults = faults(22);
    for fault in 0..faults {
        heard.wait_for_results(30);
        let (worker, caller) = (fault / 11 % WORKERS, fault / 11 % CALLERS);
        match fault % 11 {
            0 => workers[worker] = start_worker(worker),
            1 => callers[caller] = start_caller(caller),
            2 => {
                // Past its lease: its sessions move to the other worker meanwhile.
                workers[worker].signal("STOP");
                std::thread::sleep(LEASE * 3 / 2);
                heard.wait_for_results(10);
                workers[worker].signal("CONT");
            }
            3 => {
                callers[caller].signal("STOP");
                std::thread::sleep(LEASE * 3 / 2);
                callers[caller].signal("CONT");
            }
            4 => {
                server.kill();
                server.start_again();
            }
            5 => drop(server.command(&["CLIENT", "KILL", "TYPE", "normal"])),
            6 => drop(server.command(&["SCRIPT", "FLUSH"])),
            // Long enough for some steps to be done without an answer, and for none to end a lease.
            7 => cut(&networks[worker], Network::NoAnswers, LEASE / 4),
            8 => cut(&networks[WORKERS + caller], Network::NoAnswers, LEASE / 4),
            9 => cut(&networks[worker], Network::Cut, LEASE * 3 / 2),
            _ => {
                server.signal("STOP");
                std::thread::sleep(LEASE / 2);
                server.signal("CONT");
            }
        }
    }
    heard.wait_for_results(30);
    drop((callers, workers));
    drop(sender);
    check(heard, faults, &server.url(), sessions);
}

fn cut(network: &Proxy, how: Network, length: Duration) {
    network.set(how);
    std::thread::sleep(length);
    network.set(Network::Whole);
}

/// Cuts that close no connection: what was lost is sent again behind them, and arrives when its time is over.
#[test]
fn c88_late_messages_lose_no_answered_turn_and_keep_no_lost_one() {
    if is_player() {
        return;
    }
    let Some(namespaces) = Namespaces::new(WORKERS + CALLERS) else { return };
    let Some(server) = namespaces.start_server() else { return };
    let (sender, mut heard) = Heard::new();
    let url = |at| format!("redis://{}", namespaces.address(&server, at));
    let start = |at: usize, told: String| {
        let test = "workers::c88_late_messages_lose_no_answered_turn_and_keep_no_lost_one";
        Player::start(&namespaces.exec(at), test, &told, &sender)
    };
    let workers: Vec<Player> = (0..WORKERS).map(|at| start(at, tell_worker(&url(at), LEASE))).collect();
    let of_the_test = format!("unix://{}", server.socket().display());
    let sessions = open_sessions(&of_the_test);
    let callers = (WORKERS..WORKERS + CALLERS).map(|at| start(at, tell_caller(&url(at), at, &sessions)));
    let callers: Vec<Player> = callers.collect();
    let faults = faults(12);
    for fault in 0..faults {
        heard.wait_for_results(30);
        let how = [Cut::Both, Cut::Answers, Cut::Requests][fault % 3];
        let (worker, caller) = (fault % WORKERS, WORKERS + fault % CALLERS);
        match fault / 3 % 4 {
            // The connections go on.
            0 => drop(during(LEASE / 4, namespaces.cut(worker, how))),
            // The connections are given up, and what they have sent arrives nevertheless.
            1 => drop(during(LEASE / 2, namespaces.cut(caller, how))),
            // Past its lease: its sessions move to the other worker meanwhile.
            2 => {
                let cut = during(LEASE * 3 / 2, namespaces.cut(worker, how));
                heard.wait_for_results(10);
                drop(cut);
            }
            // The same, but the callers stand still until the ends of its lost turns have arrived.
            _ => {
                let cut = namespaces.cut(worker, how);
                callers.iter().for_each(|caller| caller.signal("STOP"));
                drop(during(LEASE * 3 / 2, cut));
                namespaces.wait_until_all_is_delivered(worker);
                callers.iter().for_each(|caller| caller.signal("CONT"));
            }
        }
    }
    heard.wait_for_results(30);
    drop((callers, workers));
    drop(sender);
    check(heard, faults, &of_the_test, sessions);
}

/// Leaves a cut as it is for so long.
fn during(length: Duration, cut: Healing) -> Healing {
    std::thread::sleep(length);
    cut
}

#[test]
fn c84_a_timeout_ends_a_queued_turn_although_its_worker_is_frozen() {
    if is_player() {
        return;
    }
    let Some(server) = Server::start(&["--appendfsync", "no"]) else { return };
    run(move || {
        let lease = Duration::from_secs(30);
        let (sender, _heard) = Heard::new();
        let test = "workers::c84_a_timeout_ends_a_queued_turn_although_its_worker_is_frozen";
        let worker = Player::start(&[], test, &tell_worker(&server.url(), lease), &sender);
        let id = open_sessions(&server.url())[0];
        let client = ClusterService::new(engine(&server.url(), lease)).unwrap();
        worker.signal("STOP");
        let first = client.begin_turn(id, turn("first")).unwrap();
        let queued = turn("queued").when_busy(WhenBusy::Queue).timeout(Duration::from_millis(50));
        let error = client.start_turn(id, queued).unwrap_err();
        assert_eq!(error.cancel_reason(), Some(CancelReason::DeadlineExceeded), "{error}");
        worker.signal("CONT");
        assert_eq!(first.wait().unwrap().text, "first");
        assert_eq!(said(&client.history(id).unwrap()), ["first", "= first"]);
    });
}
