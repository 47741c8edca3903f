//! The load: one thread that keeps many sessions busy, each with one turn after the other.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{Receiver, Select, Sender, TryRecvError};
use turnwise::{
    AgentError, CreateSessionRequest, RunResult, SessionError, SessionId, SessionService, SessionSpec,
    StartTurnRequest, TurnHandle,
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
    Thinking { until: Instant },
    Waiting { turn: TurnHandle, since: Instant },
}

/// The event that the load has waited for.
enum Step {
    Order(Order),
    /// The turn of the client with this index has ended.
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
                Stage::Waiting { turn, .. } => {
                    select.recv(turn.finished());
                    waiting.push(index);
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
        let (session, stage) = (turn.session_id(), Stage::Waiting { turn, since });
        self.clients.push(Client { session, temperament, dice, stage });
        Ok(name)
    }

    fn on_finished(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Stage::Waiting { turn, since } = &mut client.stage else { return };
        let Some(result) = turn.try_wait() else { return };
        let took = since.elapsed();
        let ended = Ended { session: client.session, took, outcome: outcome(&result) };
        client.stage = Stage::Thinking { until: Instant::now() + client.temperament.pause(&mut client.dice) };
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
    /// Starts a turn. Returns whether the client should stay.
    fn begin(&mut self, service: &Host) -> bool {
        /// The pause before another attempt at a busy session. In this program no other client starts turns.
        const AGAIN: Duration = Duration::from_millis(50);
        let since = Instant::now();
        self.stage = match service.begin_turn(self.session, StartTurnRequest::new("go on")) {
            Ok(turn) => Stage::Waiting { turn, since },
            Err(SessionError::Busy { .. }) => Stage::Thinking { until: since + AGAIN },
            Err(_) => return false,
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
