//! A client of a cluster, with its workers in the same process: the calls of a session service, over a server.

mod administration;
mod asking;
mod clients;
mod ends;
mod events;
mod reading;
mod turns;

use std::time::{Duration, Instant};

use turnwise::cluster::{ClusterService, Engine, EngineConfig, Worker};
use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, AgentError, AgentEvent, EphemeralSessionService, InputRequest, LlmFailure, ServiceConfig,
    SessionAgentBuilder, SessionError, TurnContext,
};

use crate::server::Server;
use crate::support::LONG;

/// Longer than any pause of a loaded machine, and short enough to wait for.
const LEASE: Duration = Duration::from_secs(10);

/// These tests crash no server, so it need not sync its file.
fn start() -> Option<Server> {
    Server::start(&["--appendfsync", "no"])
}

fn engine(server: &Server) -> Engine {
    Engine::open(&server.url(), EngineConfig::new().lease(LEASE)).expect("the engine opens")
}

fn client(server: &Server) -> ClusterService {
    ClusterService::new(engine(server)).expect("the client starts")
}

fn work<B: SessionAgentBuilder>(server: &Server, config: ServiceConfig<B>) -> Worker {
    Worker::start(config, engine(server)).expect("the worker starts")
}

/// A worker whose agents do what their prompts say. `wait` waits at the gate.
fn worker(server: &Server, gate: &Gate) -> Worker {
    work(server, EphemeralSessionService::configure(obedient(gate)))
}

/// Agents that do what their prompts say, and answer with the prompt.
fn obedient(gate: &Gate) -> impl SessionAgentBuilder + use<> {
    let gate = gate.clone();
    agent_fn(move |prompt: String, turn: &TurnContext| {
        let (verb, rest) = prompt.split_once(' ').unwrap_or((&prompt, ""));
        match verb {
            "wait" => gate.pass(turn.cancel_token())?,
            "emit" => (0..rest.parse().unwrap_or(0)).try_for_each(|number| turn.emit(delta(number)))?,
            "ask" => {
                let mut request = InputRequest::new("question", rest);
                if rest == "which" {
                    request = request.option("a", "A").option("b", "B");
                } else if rest == "soon" {
                    request = request.timeout(Duration::from_millis(1));
                }
                return Ok(turn.finish(turn.request_input(request)?));
            }
            "inbox" => {
                let taken = turn.wait_inbox(LONG)?;
                return Ok(turn.finish(taken.map(|message| message.text()).unwrap_or_default()));
            }
            "panic" => panic!("told to"),
            "config" => return Err(AgentError::Config(rest.into())),
            "io" => return Err(std::io::Error::other("told to").into()),
            "limit" => return Err(AgentError::MaxTurnsReached { turns: 3 }),
            "llm" => {
                let reason = LlmFailure::RateLimited { retry_after: Some(Duration::from_secs(2)) };
                return Err(AgentError::Llm { provider: "acme".into(), reason, message: "slow down".into() });
            }
            _ => {}
        }
        Ok(turn.finish(prompt.clone()))
    })
}

/// The event with this number.
fn delta(number: u32) -> AgentEvent {
    AgentEvent::TextDelta { delta: number.to_string() }
}

/// The numbers of the events that have one.
fn numbers(events: &[AgentEvent]) -> Vec<u32> {
    let number = |event: &AgentEvent| match event {
        AgentEvent::TextDelta { delta } => delta.parse().ok(),
        _ => None,
    };
    events.iter().filter_map(number).collect()
}

fn kind(event: &AgentEvent) -> &'static str {
    match event {
        AgentEvent::RunStarted { .. } => "started",
        AgentEvent::RunCompleted { .. } => "completed",
        AgentEvent::RunFailed { .. } => "failed",
        AgentEvent::TextDelta { .. } => "delta",
        AgentEvent::StreamTruncated { .. } => "truncated",
        AgentEvent::InteractionComplete { .. } => "interaction complete",
        AgentEvent::InteractionFailed { .. } => "interaction failed",
        AgentEvent::InputRequested { .. } => "asked",
        AgentEvent::InputResolved { .. } => "resolved",
        _ => "other",
    }
}

fn kinds(events: &[AgentEvent]) -> Vec<&'static str> {
    events.iter().map(kind).collect()
}

/// Looks again until something is there.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::yield_now();
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, SessionError>) -> &'static str {
    result.unwrap_err().code()
}
