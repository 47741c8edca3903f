//! The load: one thread that keeps many sessions busy, each with one turn after the other. The prompts of some clients
//! come several at once, and queue.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{Receiver, Select, Sender, TryRecvError};
use turnwise::{
    AgentError, CreateSessionRequest, RunResult, SessionError, SessionId, SessionService, SessionSpec,
    StartTurnRequest, TurnHandle, WhenBusy,
};
use turnwise_apps::dice::Dice;

use crate::agents::{Role, Temperament};
use crate::model::{Ended, Outcome};
use crate::Host;

/// The seed, so that every run has the same turns.
const SEED: u64 = 2;

/// An order to the load. The load ends when the sender of orders is dropped.
pub(crate) enum Order {
    /// Opens another session.
    Open,
}

/// A report of the load.
pub(crate) enum Report {
    Opened(String),
    Refused(SessionError),
    Ended(Ended),
}

struct Load {
    service: Host,
    orders: Receiver<Order>,
    reports: Sender<Report>,
    clients: Vec<Client>,
    /// The number of sessions opened so far. Names and seeds depend on it.
    opened: usize,
}

/// The client of a session, which starts its turns.
struct Client {
    session: SessionId,
    temperament: Temperament,
    dice: Dice,
    stage: Stage,
}

enum Stage {
    Thinking {
        until: Instant,
    },
    /// At least one turn, in the order in which they run.
    Waiting {
        turns: VecDeque<Begun>,
    },
}

struct Begun {
    turn: TurnHandle,
    since: Instant,
}

/// The event that the load has waited for.
enum Step {
    Order(Order),
    /// The oldest turn of the client with this index has ended.
    Finished(usize),
    /// The pause of a client has passed.
    Due,
}

/// Starts the load, with that many sessions.
pub(crate) fn start(
    service: Host,
    sessions: usize,
    orders: Receiver<Order>,
    reports: Sender<Report>,
) -> std::io::Result<JoinHandle<()>> {
    let load = Load { service, orders, reports, clients: Vec::new(), opened: 0 };
    thread::Builder::new().name("load".into()).spawn(move || load.run(sessions))
}

impl Load {
    fn run(mut self, sessions: usize) {
        for _ in 0..sessions {
            if let Err(error) = self.open() {
                self.report(Report::Refused(error));
            }
        }
        while let Some(step) = self.next_step() {
            match step {
                Step::Order(Order::Open) => {
                    let opened = self.open();
                    self.report(opened.map_or_else(Report::Refused, Report::Opened));
                }
                Step::Finished(client) => self.on_finished(client),
                Step::Due => self.on_due(),
            }
        }
    }

    /// Waits for the next event. `None` if the sender of orders is dropped.
    fn next_step(&self) -> Option<Step> {
        let mut select = Select::new();
        select.recv(&self.orders);
        let mut waiting = Vec::with_capacity(self.clients.len());
        let mut due: Option<Instant> = None;
        for (index, client) in self.clients.iter().enumerate() {
            match &client.stage {
                Stage::Waiting { turns } => {
                    if let Some(begun) = turns.front() {
                        select.recv(begun.turn.finished());
                        waiting.push(index);
                    }
                }
                Stage::Thinking { until } => due = Some(due.map_or(*until, |due| due.min(*until))),
            }
        }
        let ready = match due {
            Some(due) => select.ready_deadline(due).ok(),
            None => Some(select.ready()),
        };
        match ready {
            None => Some(Step::Due),
            // This is the only receiver, so the order is still there.
            Some(0) => match self.orders.try_recv() {
                Ok(order) => Some(Step::Order(order)),
                Err(TryRecvError::Disconnected) => None,
                Err(TryRecvError::Empty) => Some(Step::Due),
            },
            Some(operation) => Some(Step::Finished(waiting[operation - 1])),
        }
    }

    /// Begins a session with its first turn, and returns its name. Waits for neither.
    fn open(&mut self) -> Result<String, SessionError> {
        let temperament = Temperament::of(self.opened);
        let name = format!("{}-{}", temperament.name(), self.opened + 1);
        let mut dice = Dice::new(SEED + self.opened as u64);
        let role = Role { temperament, seed: dice.roll() };
        let spec = SessionSpec::new().label("name", name.as_str()).extension(Arc::new(role));
        let since = Instant::now();
        let turn = self.service.begin_session(CreateSessionRequest::new("how do you do").session(spec))?;
        self.opened += 1;
        let (session, stage) = (turn.session_id(), Stage::Waiting { turns: [Begun { turn, since }].into() });
        self.clients.push(Client { session, temperament, dice, stage });
        Ok(name)
    }

    fn on_finished(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Stage::Waiting { turns } = &mut client.stage else { return };
        let Some(begun) = turns.front_mut() else { return };
        let Some(result) = begun.turn.try_wait() else { return };
        let took = begun.since.elapsed();
        turns.pop_front();
        if turns.is_empty() {
            client.stage = Stage::Thinking { until: Instant::now() + client.temperament.pause(&mut client.dice) };
        }
        let ended = Ended { session: client.session, took, outcome: outcome(&result) };
        self.report(Report::Ended(ended));
    }

    /// Starts the turns that are due. An archived or faulted session loses its client.
    fn on_due(&mut self) {
        let service = &self.service;
        self.clients.retain_mut(|client| match client.stage {
            Stage::Thinking { until } if until <= Instant::now() => client.begin(service),
            _ => true,
        });
    }

    fn report(&self, report: Report) {
        // The send fails at the end of the program, when the dashboard is dropped.
        let _ = self.reports.send(report);
    }
}

impl Client {
    /// Starts a turn for each prompt. The first one runs, and the others queue. Returns whether the client should stay.
    fn begin(&mut self, service: &Host) -> bool {
        /// The pause before another attempt at a session that accepts no turn. In this program no other client starts
        /// turns, and no client has more prompts than a queue has room.
        const AGAIN: Duration = Duration::from_millis(50);
        let mut turns = VecDeque::new();
        for _ in 0..self.temperament.prompts(&mut self.dice) {
            let since = Instant::now();
            match service.begin_turn(self.session, StartTurnRequest::new("go on").when_busy(WhenBusy::Queue)) {
                Ok(turn) => turns.push_back(Begun { turn, since }),
                Err(SessionError::Busy { .. } | SessionError::QueueFull { .. }) => break,
                // The turns that were begun before are reported first.
                Err(_) if !turns.is_empty() => break,
                Err(_) => return false,
            }
        }
        self.stage = match turns.is_empty() {
            true => Stage::Thinking { until: Instant::now() + AGAIN },
            false => Stage::Waiting { turns },
        };
        true
    }
}

fn outcome(result: &Result<RunResult, SessionError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Completed,
        Err(SessionError::Faulted { message, .. }) => Outcome::Panicked(message.to_string()),
        Err(error) if error.cancel_reason().is_some() => Outcome::Cancelled,
        Err(SessionError::Agent { source: AgentError::Llm { reason, .. }, .. }) => Outcome::Failed(reason.to_string()),
        Err(error) => Outcome::Failed(error.code().to_lowercase()),
    }
}
