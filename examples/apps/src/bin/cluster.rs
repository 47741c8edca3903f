//! Sessions on several machines, or in several processes of one machine, over a Redis or Valkey server.
//!
//! ```sh
//! redis-server --port 7379 --appendonly yes --dir "$(mktemp -d)" &
//! cargo run -p turnwise-apps --bin cluster -- worker redis://localhost:7379     # in two terminals
//! cargo run -p turnwise-apps --bin cluster -- client redis://localhost:7379     # in a third one
//! ```
//!
//! The client opens four sessions, and runs ten turns of half a second in each. Every answer names the process that has run
//! the turn. Kill one worker meanwhile, with `kill -9`: what it was running is reported as lost after a few seconds, and is
//! begun again by the client. The other worker has the sessions from then on, with all that was answered. Ctrl-C ends a
//! worker in order: it lets its turns finish.

use std::error::Error;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use turnwise::cluster::{ClusterService, Durability, Engine, EngineConfig, Worker};
use turnwise::{
    builder_fn, AgentError, EphemeralSessionService, Message, RunResult, Session, SessionAgent, SessionContext,
    SessionError, SessionService, SessionSpec, StartTurnRequest, TurnContext,
};
use turnwise_apps::{
    args,
    say::{say, warn},
};

const USAGE: &str = "usage: cluster worker [URL] | cluster client [URL [SESSIONS [TURNS]]]";
const URL: &str = "redis://localhost:6379";
/// How long a worker may be silent before its turns are lost.
const LEASE: Duration = Duration::from_secs(3);
const WORK: Duration = Duration::from_millis(500);
const MOST: usize = 10_000;

enum Job {
    Worker { url: String },
    Client { url: String, sessions: usize, turns: usize },
}

fn main() -> ExitCode {
    let job = match args::texts().and_then(parse) {
        Ok(job) => job,
        Err(message) => {
            warn(format_args!("cluster: {message}"));
            return ExitCode::from(2);
        }
    };
    let done = match job {
        Job::Worker { url } => work(&url),
        Job::Client { url, sessions, turns } => talk(&url, sessions, turns),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(format_args!("cluster: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn parse(args: Vec<String>) -> Result<Job, String> {
    let mut args = args.into_iter();
    let verb = args.next().ok_or(USAGE)?;
    let url = args.next().unwrap_or_else(|| URL.into());
    let mut number = |default: usize| {
        let Some(text) = args.next() else { return Ok(default) };
        let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
        number.ok_or_else(|| format!("'{text}' is not a number from 1 to {MOST}; {USAGE}"))
    };
    let job = match verb.as_str() {
        "worker" => Job::Worker { url },
        "client" => Job::Client { url, sessions: number(4)?, turns: number(10)? },
        _ => return Err(USAGE.into()),
    };
    args.next().map_or(Ok(job), |_| Err(USAGE.into()))
}

fn engine(url: &str) -> Result<Engine, Box<dyn Error>> {
    // A server without an append-only file will do for a demonstration.
    let config = EngineConfig::new().namespace("turnwise-demo").lease(LEASE).durability(Durability::Any);
    Ok(Engine::open(url, config)?)
}

/// An agent that works for a moment, and tells how many turns it remembers and which process has run it.
struct Clerk {
    history: Session,
}

impl SessionAgent for Clerk {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        turn.sleep(WORK)?;
        self.history.push(Message::user(prompt));
        let answered = self.history.iter().len().div_ceil(2);
        let text = format!("answer {answered}, by process {}", std::process::id());
        self.history.push(Message::assistant(text.as_str()));
        Ok(turn.finish(text))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

fn work(url: &str) -> Result<(), Box<dyn Error>> {
    let clerks = builder_fn(|spec: &SessionSpec, _: &SessionContext| Ok(Clerk { history: spec.history() }));
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        // A second Ctrl-C finds the receiver busy, and is ignored.
        let _ = stop.send(());
    })?;
    let worker = Worker::start(EphemeralSessionService::configure(clerks).max_sessions(100), engine(url)?)?;
    say(format_args!("worker {} waits for turns; Ctrl-C ends it", std::process::id()));
    stopped.recv()?;
    let report = worker.drain(Duration::from_secs(30));
    let stats = worker.stats();
    say(format_args!(
        "worker {} has ended. Sessions given up: {}, turns run: {}, still busy: {}",
        std::process::id(),
        report.given_up,
        stats.turns_ended,
        report.busy
    ));
    Ok(())
}

fn talk(url: &str, sessions: usize, turns: usize) -> Result<(), Box<dyn Error>> {
    let service = ClusterService::new(engine(url)?)?;
    let talks: Vec<_> = (0..sessions)
        .map(|_| {
            let service = service.clone();
            thread::spawn(move || talk_in_one(&service, turns))
        })
        .collect();
    for talk in talks {
        talk.join().map_err(|_| "a thread panicked")??;
    }
    Ok(())
}

/// One conversation. A turn that is lost is begun again.
fn talk_in_one(service: &ClusterService, turns: usize) -> Result<(), SessionError> {
    let id = loop {
        match again(|| service.open_session(SessionSpec::new())) {
            // The worker that was to have the session is gone, and there is none.
            Err(SessionError::WorkerLost { .. }) => {}
            opened => break opened?,
        }
    };
    let short = id.short();
    let (mut answered, mut lost) = (0, 0);
    while answered < turns {
        match again(|| service.start_turn(id, StartTurnRequest::new("next"))) {
            Ok(result) => {
                answered += 1;
                say(format_args!("session {short}: turn {}: {}", result.turn_id, result.text));
            }
            Err(SessionError::WorkerLost { turn, .. }) => {
                lost += 1;
                say(format_args!("session {short}: turn {turn} is lost with its worker, and is begun again"));
            }
            Err(error) => return Err(error),
        }
    }
    let kept = service.export_session(id)?.iter().len() / 2;
    say(format_args!("session {short}: {answered} turns answered, {kept} in the history, {lost} lost"));
    service.archive(id)
}

/// Tries a call until there is a worker with room.
fn again<T>(call: impl Fn() -> Result<T, SessionError>) -> Result<T, SessionError> {
    let mut is_told = false;
    loop {
        match call() {
            Err(SessionError::CapacityExceeded { .. }) => {
                if !std::mem::replace(&mut is_told, true) {
                    say("there is no worker with room: waiting for one");
                }
                thread::sleep(WORK);
            }
            result => return result,
        }
    }
}
