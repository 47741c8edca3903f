//! Processes that share the sessions of one server, each with a service of its own, while processes and the server are
//! killed, stopped and cut off.
//!
//! - A turn that was answered with a result is in its record exactly once, whoever was killed since.
//! - No turn is there twice, and none that was not begun.
//! - A turn that was answered before another one began stands before it.
//! - No two answered turns of a session have the same number.
//!
//! `TURNWISE_CLUSTER_FAULTS` is the number of faults, 16 without it.

use std::time::Duration;

use turnwise::cluster::{Engine, EngineConfig, RedisStore};
use turnwise::store::{PersistentSessionService, SessionStore};
use turnwise::{SessionId, SessionService, SessionSpec};

use crate::players::{faults, play, told, Heard, Player};
use crate::server::Server;
use crate::support::*;

const PLAYERS: usize = 3;
const THREADS: usize = 2;
const SESSIONS: usize = 3;

fn store(url: &str) -> RedisStore {
    RedisStore::new(Engine::open(url, EngineConfig::new().lease(Duration::from_secs(10))).expect("the engine opens"))
}

#[test]
fn c82_killed_processes_and_servers_lose_no_answered_turn() {
    if let Some([url, name, sessions @ ..]) = told().as_deref() {
        let sessions: Vec<SessionId> = sessions.iter().map(|id| id.parse().expect("an id")).collect();
        return play(&PersistentSessionService::new(echo(), SESSIONS, store(url)), name, THREADS, &sessions);
    }
    let Some(mut server) = Server::start(&[]) else { return };
    let url = server.url();
    let sessions: Vec<SessionId> = {
        let service = PersistentSessionService::new(echo(), SESSIONS, store(&url));
        let ids = (0..SESSIONS).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        service.shutdown(LONG);
        ids
    };
    let listed: Vec<String> = sessions.iter().map(SessionId::to_string).collect();
    let (sender, mut heard) = Heard::new();
    let mut named = 0;
    let mut start = || {
        named += 1;
        let test = "killed::c82_killed_processes_and_servers_lose_no_answered_turn";
        Player::start(&[], test, &format!("{url} p{named} {}", listed.join(" ")), &sender)
    };
    let mut players: Vec<Player> = (0..PLAYERS).map(|_| start()).collect();
    for fault in 0..faults(16) {
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
    heard.finish();
    let kept = store(&url);
    for id in sessions {
        heard.check(id, &kept.load(id).unwrap().unwrap().0.history);
    }
}
