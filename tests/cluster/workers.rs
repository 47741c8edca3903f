//! Workers and callers, each a process, over one server, while all of them are killed, stopped and cut off.
//!
//! What has to hold is in the head of [`killed`](crate::killed), and one thing more: a turn that was reported as lost is in
//! no record. `TURNWISE_CLUSTER_FAULTS` is the number of faults, 22 without it: each kind twice.

use std::time::Duration;

use turnwise::cluster::{ClusterService, Engine, EngineConfig, RedisStore, Worker};
use turnwise::store::SessionStore;
use turnwise::{EphemeralSessionService, SessionId, SessionService, SessionSpec};

use crate::players::{faults, play, told, Heard, Player};
use crate::proxy::{Network, Proxy};
use crate::server::Server;
use crate::support::*;

const WORKERS: usize = 2;
const CALLERS: usize = 2;
const THREADS: usize = 3;
const SESSIONS: usize = 4;
const LEASE: Duration = Duration::from_secs(2);
const TEST: &str = "workers::c88_faults_lose_no_answered_turn_and_keep_no_lost_one";

fn engine(url: &str) -> Engine {
    Engine::open(url, EngineConfig::new().lease(LEASE)).expect("the engine opens")
}

/// Hosts sessions until the process is killed.
fn work(url: &str) {
    let _worker = Worker::start(EphemeralSessionService::configure(echo()), engine(url)).expect("the worker starts");
    loop {
        std::thread::park();
    }
}

#[test]
fn c88_faults_lose_no_answered_turn_and_keep_no_lost_one() {
    match told().as_deref() {
        Some([role, url]) if role == "worker" => return work(url),
        Some([_, url, name, sessions @ ..]) => {
            let sessions: Vec<SessionId> = sessions.iter().map(|id| id.parse().expect("an id")).collect();
            let service = ClusterService::new(engine(url)).expect("the client starts");
            return play(&service, name, THREADS, &sessions);
        }
        _ => {}
    }
    let Some(mut server) = Server::start(&[]) else { return };
    let (sender, mut heard) = Heard::new();
    let networks: Vec<Proxy> = (0..WORKERS + CALLERS).map(|_| Proxy::start(server.port())).collect();
    let start_worker = |at: usize| Player::start(TEST, &format!("worker {}", networks[at].url()), &sender);
    let mut workers: Vec<Player> = (0..WORKERS).map(start_worker).collect();
    let sessions: Vec<SessionId> = {
        let service = ClusterService::new(engine(&server.url())).expect("the client starts");
        let open = || loop {
            match service.open_session(SessionSpec::new()) {
                Ok(id) => break id,
                // No worker is there yet.
                Err(error) => assert_eq!(error.code(), "CAPACITY_EXCEEDED"),
            }
        };
        (0..SESSIONS).map(|_| open()).collect()
    };
    let listed: Vec<String> = sessions.iter().map(SessionId::to_string).collect();
    let mut named = 0;
    let mut start_caller = |at: usize| {
        named += 1;
        let url = networks[WORKERS + at].url();
        Player::start(TEST, &format!("caller {url} c{named} {}", listed.join(" ")), &sender)
    };
    let mut callers: Vec<Player> = (0..CALLERS).map(&mut start_caller).collect();
    for fault in 0..faults(22) {
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
    heard.finish();
    let kept = RedisStore::new(engine(&server.url()));
    for id in sessions {
        heard.check(id, &kept.load(id).unwrap().unwrap().0.history);
    }
    assert!(heard.lost() > 0, "no turn was lost, so nothing was proven about those");
}

fn cut(network: &Proxy, how: Network, length: Duration) {
    network.set(how);
    std::thread::sleep(length);
    network.set(Network::Whole);
}
