//! The agents of the characters: their builds take a while, they think, buy things, speak word by word, and ask each
//! other.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use turnwise::{
    AgentError, AgentEvent, InputError, InputRequest, Message, RunResult, Session, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionQuery, SessionService, SessionSpec, StartTurnRequest, TurnContext, WeakService,
};
use turnwise_apps::dice::Dice;

use crate::purse::{Purchase, PAID, PURCHASE};

/// How long a character waits for the loop to pay.
const PATIENCE: Duration = Duration::from_millis(300);

/// The label by which characters find each other.
pub(crate) const NAME: &str = "name";

/// The way in which a character thinks.
#[derive(Clone, Copy)]
enum Thinking {
    /// Waits, as for a model.
    Sleeps,
    /// Computes on a processor.
    Computes,
    /// Asks another character.
    Asks(&'static str),
}

pub(crate) struct Role {
    pub(crate) name: &'static str,
    thinking: Thinking,
    /// The range of the thinking time, in milliseconds.
    think: (u64, u64),
    /// What it wants to buy in each turn, and the price in coins.
    wants: (&'static str, u64),
    words: &'static str,
}

pub(crate) const ROLES: [Role; 5] = [
    Role {
        name: "Ada",
        thinking: Thinking::Computes,
        think: (5, 60),
        wants: ("charcoal", 3),
        words: "iron bends when the fire is honest",
    },
    Role {
        name: "Bram",
        thinking: Thinking::Sleeps,
        think: (50, 250),
        wants: ("barley", 4),
        words: "the soup is hot and the beds are dry",
    },
    Role {
        name: "Cleo",
        thinking: Thinking::Sleeps,
        think: (200, 400),
        wants: ("a telescope", 40),
        words: "two moons will rise over the old mill",
    },
    Role {
        name: "Dorn",
        thinking: Thinking::Asks("Bram"),
        think: (5, 40),
        wants: ("an ale", 2),
        words: "so I have heard at the inn",
    },
    Role {
        name: "Edda",
        thinking: Thinking::Asks("Cleo"),
        think: (20, 120),
        wants: ("candles", 5),
        words: "the oracle told me as much",
    },
];

/// The generator for one matter under the seed.
pub(crate) fn dice(seed: u64, matter: u64, number: u64) -> Dice {
    let mut dice = Dice::new(seed ^ matter.wrapping_mul(0xA076_1D64_78BD_642F) ^ number.rotate_left(32));
    dice.roll();
    dice
}

/// The builder of the characters.
pub(crate) struct Minds {
    pub(crate) seed: u64,
    /// The number of questions among characters, answered or not.
    pub(crate) questions: Arc<AtomicU64>,
    /// The number of coins for which the characters have bought something.
    pub(crate) bought: Arc<AtomicU64>,
}

impl SessionAgentBuilder for Minds {
    type Agent = Mind;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Mind, AgentError> {
        let name = spec.labels.get(NAME).map_or("", String::as_str);
        let number = ROLES.iter().position(|role| role.name == name);
        let number = number.ok_or_else(|| AgentError::Config(format!("nobody is called {name}")))?;
        // This stands for a slow build. A shutdown ends the sleep.
        let build = dice(self.seed, number as u64, 0).millis(100..301);
        context.sleep(build)?;
        let history = spec.history();
        let (service, seed) = (context.service(), self.seed);
        let (questions, bought) = (Arc::clone(&self.questions), Arc::clone(&self.bought));
        Ok(Mind { role: &ROLES[number], number, seed, service, questions, bought, history })
    }
}

pub(crate) struct Mind {
    role: &'static Role,
    number: usize,
    seed: u64,
    service: WeakService,
    questions: Arc<AtomicU64>,
    bought: Arc<AtomicU64>,
    history: Session,
}

impl SessionAgent for Mind {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let mut dice = dice(self.seed, self.number as u64, turn.turn_id().get());
        let think = dice.millis(self.role.think.0..self.role.think.1 + 1);
        match self.role.thinking {
            Thinking::Sleeps => turn.sleep(think)?,
            Thinking::Computes => compute(think, turn)?,
            Thinking::Asks(whom) => {
                turn.sleep(think)?;
                self.ask(whom, &prompt)?;
            }
        }
        self.buy(turn)?;
        for word in self.role.words.split(' ') {
            turn.emit(AgentEvent::TextDelta { delta: word.into() })?;
            turn.sleep(dice.millis(5..41))?;
        }
        self.history.push_batch([Message::user(prompt), Message::assistant(self.role.words)]);
        Ok(turn.finish(self.role.words))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

impl Mind {
    /// Asks another character. There is no answer if that character is away or busy, or if the wait would close a
    /// cycle.
    fn ask(&self, whom: &str, prompt: &str) -> Result<(), AgentError> {
        let Some(service) = self.service.upgrade() else { return Ok(()) };
        let found = service.list(SessionQuery::new().label(NAME, whom).limit(1))?;
        let Some(other) = found.first() else { return Ok(()) };
        match service.begin_turn(other.session_id, StartTurnRequest::new(prompt)) {
            Ok(asked) => {
                self.questions.fetch_add(1, Ordering::SeqCst);
                match asked.wait() {
                    // The own turn of this character is cancelled.
                    Err(error @ turnwise::SessionError::Interrupted { .. }) => Err(error.into()),
                    _ => Ok(()),
                }
            }
            Err(_) => Ok(()),
        }
    }

    /// Buys what the character wants, if the loop pays for it. Without it the turn goes on too.
    fn buy(&self, turn: &TurnContext) -> Result<(), AgentError> {
        let (thing, price) = self.role.wants;
        let purchase = Purchase { who: self.number, thing: thing.into(), price };
        let request = InputRequest::new(PURCHASE, format!("{price} coins for {thing}"))
            .option(PAID, "The loop has paid")
            .payload(serde_json::to_string(&purchase).map_err(AgentError::other)?)
            .timeout(PATIENCE);
        match turn.request_input(request) {
            Ok(_) => {
                self.bought.fetch_add(price, Ordering::SeqCst);
                Ok(())
            }
            Err(InputError::Declined { .. } | InputError::TimedOut { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Computes for that long, and checks for a cancel regularly.
fn compute(time: Duration, turn: &TurnContext) -> Result<(), AgentError> {
    let end = Instant::now() + time;
    let mut sum = 0_u64;
    while Instant::now() < end {
        turn.check()?;
        sum = (0..2_000).fold(sum, |sum, number| black_box(sum.wrapping_mul(31) ^ number));
    }
    Ok(())
}
