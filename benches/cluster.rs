//! The costs of sessions on a Redis server, and of turns that workers run. The floor of a kept turn is the same data on a
//! bare connection to the same server: a header of a record and two messages, written by `MULTI`, `HSET`, `RPUSH` and `EXEC`
//! in one round trip. `workers` has the floors of the others. `cargo bench --features redis,testkit --bench cluster`
//!
//! The bench starts a `redis-server` of its own, once with `appendfsync always` and once with `everysec`. Without the
//! program it measures nothing.

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

#[path = "cluster/bare.rs"]
mod bare;
mod common;
#[allow(dead_code)]
#[path = "../tests/cluster/server.rs"]
mod server;
#[path = "cluster/workers.rs"]
mod workers;

use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;

use bare::Bare;
use common::failures::{attempt, exit_code};
use common::times::{interleaved, time, times, Times};
use common::{full_or_quick, report, title};
use server::Server;
use turnwise::cluster::{Engine, EngineConfig, RedisStore};
use turnwise::store::PersistentSessionService;
use turnwise::{agent_fn, AgentFn, RunResult, SessionId, SessionService, SessionSpec, StartTurnRequest, TurnContext};

type Agent = AgentFn<fn(String, &TurnContext) -> Result<RunResult, turnwise::AgentError>>;
type Service = PersistentSessionService<Agent>;

/// A prompt as long as an answer: a turn adds both.
const TEXT: usize = 200;

fn main() -> ExitCode {
    if workers::is_worker() {
        return ExitCode::SUCCESS;
    }
    for sync in ["always", "everysec"] {
        let _ = attempt(sync, || {
            if let Some(server) = Server::start(&["--appendfsync", sync]) {
                measure(&server, sync);
                workers::measure(&server, sync);
            }
        });
    }
    exit_code()
}

fn measure(server: &Server, sync: &str) {
    title(&format!("cluster: turns that are kept on a server with appendfsync {sync}"));
    let engine = Engine::open(&server.url(), EngineConfig::new()).expect("an engine");
    let agent: Agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    let service = Service::new(agent, 64, RedisStore::new(engine));
    let ids: Vec<SessionId> = (0..64).map(|_| service.open_session(SessionSpec::new()).expect("a session")).collect();
    let bare: Vec<Mutex<Bare>> = (0..64).map(|_| Mutex::new(Bare::connect(server))).collect();
    let _ = attempt("one caller", || {
        let turns = full_or_quick(500, 5);
        let [floor, figure] = interleaved(
            5,
            [
                Box::new(|| times(turns, || bare[0].lock().expect("a connection").write(0))),
                Box::new(|| times(turns, || run(&service, ids[0]))),
            ],
        );
        report("one caller", figure.median(), floor.median());
    });
    for callers in [8, 64] {
        let _ = attempt(&format!("{callers} callers"), || many_callers(&service, &ids[..callers], &bare));
    }
}

/// The floor has a connection for each caller. The engine has one for all.
fn many_callers(service: &Service, ids: &[SessionId], bare: &[Mutex<Bare>]) {
    let turns = full_or_quick(6_400, 64) / ids.len();
    let each = |work: &(dyn Fn(usize) + Sync)| {
        let all = time(|| {
            thread::scope(|scope| {
                for caller in 0..ids.len() {
                    scope.spawn(move || (0..turns).for_each(|_| work(caller)));
                }
            });
        });
        Times::of(all / (ids.len() * turns) as u32)
    };
    let [floor, figure] = interleaved(
        5,
        [
            Box::new(|| each(&|caller| bare[caller].lock().expect("a connection").write(caller))),
            Box::new(|| each(&|caller| run(service, ids[caller]))),
        ],
    );
    report(&format!("{} callers, of all that are made at once", ids.len()), figure.median(), floor.median());
}

fn run(service: &Service, id: SessionId) {
    service.start_turn(id, StartTurnRequest::new("p".repeat(TEXT))).expect("a turn");
}
