//! The simulated agents: eight temperaments. Their turns are the same for the same seed and the same answers.

use std::thread;
use std::time::Duration;

use turnwise::{
    AgentError, AgentEvent, Cancelled, InputError, InputRequest, LlmFailure, Message, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionSnapshot, SessionSpec, StopReason, TurnContext, Usage,
};
use turnwise_apps::dice::Dice;

/// How long an agent waits for the person at the dashboard.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temperament {
    /// Writes its answer word by word.
    Streaming,
    /// Answers within milliseconds.
    Quick,
    /// Emits nothing for a long time, then answers at once.
    Slow,
    /// Calls tools.
    Tools,
    /// Fails in one of four turns.
    Flaky,
    /// Panics now and then.
    Fragile,
    /// Asks the person at the dashboard before it deletes a file.
    Asking,
    /// Gets several prompts at once, which queue.
    Popular,
}

impl Temperament {
    const ALL: [Self; 8] = [
        Self::Streaming,
        Self::Quick,
        Self::Slow,
        Self::Tools,
        Self::Flaky,
        Self::Fragile,
        Self::Asking,
        Self::Popular,
    ];

    /// The temperament of the session with this ordinal.
    pub(crate) fn of(ordinal: usize) -> Self {
        Self::ALL[ordinal % Self::ALL.len()]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Streaming => "streaming",
            Self::Quick => "quick",
            Self::Slow => "slow",
            Self::Tools => "tools",
            Self::Flaky => "flaky",
            Self::Fragile => "fragile",
            Self::Asking => "asking",
            Self::Popular => "popular",
        }
    }

    /// The number of prompts that its users send at once.
    pub(crate) fn prompts(self, dice: &mut Dice) -> u64 {
        match self {
            Self::Popular => dice.between(2..6),
            _ => 1,
        }
    }

    /// The pause of its user before the next prompt.
    pub(crate) fn pause(self, dice: &mut Dice) -> Duration {
        dice.millis(match self {
            Self::Quick => 40..160,
            Self::Streaming => 300..1_200,
            Self::Slow | Self::Tools | Self::Asking | Self::Popular => 200..800,
            Self::Flaky | Self::Fragile => 150..600,
        })
    }
}

/// The role of a session, which reaches its agent in [`SessionSpec::extension`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    pub(crate) temperament: Temperament,
    pub(crate) seed: u64,
}

/// Builds the agents.
#[derive(Debug)]
pub(crate) struct Cast;

impl SessionAgentBuilder for Cast {
    type Agent = Simulated;

    fn build_agent(&self, spec: &SessionSpec, _: &SessionContext) -> Result<Simulated, AgentError> {
        let role = spec.extension_as::<Role>().ok_or_else(|| AgentError::Config("a session without a role".into()))?;
        let history = spec.history();
        Ok(Simulated { temperament: role.temperament, dice: Dice::new(role.seed), history })
    }
}

pub(crate) struct Simulated {
    temperament: Temperament,
    dice: Dice,
    history: Session,
}

impl SessionAgent for Simulated {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let read = self.dice.between(20..200);
        let (answer, tool_calls) = match self.temperament {
            Temperament::Streaming => (self.stream(turn)?, 0),
            Temperament::Quick => (self.think(turn, 1..12)?, 0),
            Temperament::Slow => (self.think(turn, 600..2_600)?, 0),
            Temperament::Tools => self.call_tools(turn)?,
            Temperament::Flaky => (self.try_twice(turn)?, 0),
            Temperament::Fragile => (self.dare(turn)?, 0),
            Temperament::Asking => self.tidy_up(turn)?,
            Temperament::Popular => (self.think(turn, 200..900)?, 0),
        };
        let written = answer.split(' ').count() as u64;
        let usage = Usage { input_tokens: read, output_tokens: written, ..Usage::default() };
        turn.emit(AgentEvent::TurnCompleted { stop_reason: StopReason::EndTurn, usage })?;
        self.history.push_batch([Message::user(prompt), Message::assistant(answer.as_str())]);
        self.history.record_usage(usage);
        Ok(turn.finish(answer).with_usage(usage).with_tool_calls(tool_calls))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

impl Simulated {
    /// Acts as a model that emits nothing for that many milliseconds.
    fn think(&mut self, turn: &TurnContext, millis: std::ops::Range<u64>) -> Result<String, AgentError> {
        turn.emit(AgentEvent::TurnStarted { turn_number: 1 })?;
        turn.sleep(self.dice.millis(millis))?;
        let words = self.dice.between(6..14);
        Ok(self.words(words))
    }

    /// Acts as a model that writes word by word. Reads show its tokens during the turn.
    fn stream(&mut self, turn: &TurnContext) -> Result<String, AgentError> {
        turn.emit(AgentEvent::TurnStarted { turn_number: 1 })?;
        let before = SessionSnapshot::from(&self.history);
        let mut answer = String::new();
        for written in 1..=self.dice.between(30..90) {
            let delta = format!("{}{}", if written == 1 { "" } else { " " }, word(&mut self.dice));
            answer.push_str(&delta);
            turn.emit(AgentEvent::TextDelta { delta })?;
            turn.publish(SessionSnapshot { total_tokens: before.total_tokens + written, ..before.clone() });
            turn.sleep(self.dice.millis(10..40))?;
        }
        Ok(answer)
    }

    fn call_tools(&mut self, turn: &TurnContext) -> Result<(String, u32), AgentError> {
        let calls = self.dice.between(1..5) as u32;
        for call in 1..=calls {
            turn.emit(AgentEvent::TurnStarted { turn_number: call })?;
            turn.sleep(self.dice.millis(30..120))?;
            self.call_tool(turn, format!("call-{call}"))?;
        }
        Ok((self.think(turn, 20..80)?, calls))
    }

    fn call_tool(&mut self, turn: &TurnContext, id: String) -> Result<(), Cancelled> {
        let name = ["search", "read_file", "run_tests"][self.dice.between(0..3) as usize].to_owned();
        turn.emit(AgentEvent::ToolCallRequested { id: id.clone(), name: name.clone(), args: "{}".into() })?;
        turn.emit(AgentEvent::ToolExecutionStarted { id: id.clone(), name: name.clone() })?;
        let takes = self.dice.millis(20..250);
        turn.sleep(takes)?;
        turn.emit(AgentEvent::ToolExecutionCompleted {
            id: id.clone(),
            name: name.clone(),
            result: word(&mut self.dice).into(),
            is_error: false,
            duration_ms: takes.as_millis() as u64,
        })?;
        turn.emit(AgentEvent::ToolResultReceived { id, name, is_error: false })
    }

    /// Acts as a provider that often asks for a retry.
    fn try_twice(&mut self, turn: &TurnContext) -> Result<String, AgentError> {
        if one_in(&mut self.dice, 2) {
            let error = "rate limited".to_owned();
            turn.emit(AgentEvent::Retrying { attempt: 1, max_attempts: 2, error, delay_ms: 100 })?;
            turn.sleep(Duration::from_millis(100))?;
            if one_in(&mut self.dice, 2) {
                let reason = LlmFailure::RateLimited { retry_after: None };
                return Err(AgentError::Llm { provider: "simulated".into(), reason, message: "try later".into() });
            }
        }
        self.think(turn, 40..300)
    }

    #[allow(clippy::panic)] // The dashboard shows that a panic faults its own session only.
    fn dare(&mut self, turn: &TurnContext) -> Result<String, AgentError> {
        let answer = self.think(turn, 60..220)?;
        if one_in(&mut self.dice, 40) {
            panic!("the dice said so");
        }
        Ok(answer)
    }

    /// Deletes one or two files, if the person at the dashboard allows it. It asks for both at the same time.
    fn tidy_up(&mut self, turn: &TurnContext) -> Result<(String, u32), AgentError> {
        turn.emit(AgentEvent::TurnStarted { turn_number: 1 })?;
        turn.sleep(self.dice.millis(30..120))?;
        let first = self.dice.between(0..FILES.len() as u64 - 1) as usize;
        let files = &FILES[first..first + self.dice.between(1..3) as usize];
        let ask = |file: &'static str| may_delete(turn, file);
        let asked: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = files.iter().map(|&file| scope.spawn(move || ask(file))).collect();
            threads.into_iter().map(|thread| thread.join()).collect()
        });
        let (mut done, mut calls) = (Vec::new(), 0);
        for (file, may_delete) in files.iter().zip(asked) {
            match may_delete.map_err(|_| AgentError::Internal("a tool has panicked".into()))?? {
                true => {
                    calls += 1;
                    self.call_tool(turn, format!("call-{calls}"))?;
                    done.push(format!("{file} is deleted."));
                }
                false => done.push(format!("{file} is kept.")),
            }
        }
        Ok((done.join(" "), calls))
    }

    fn words(&mut self, count: u64) -> String {
        let words: Vec<&str> = (0..count).map(|_| word(&mut self.dice)).collect();
        words.join(" ")
    }
}

const FILES: [&str; 4] = ["notes.txt", "core.dump", "build.log", "draft.md"];

/// Asks for the permission to delete a file. Without an answer there is none.
fn may_delete(turn: &TurnContext, file: &str) -> Result<bool, AgentError> {
    let request = InputRequest::new("permission", format!("May I delete {file}?"))
        .option("delete", "Delete it")
        .option("keep", "Keep it")
        .timeout(PATIENCE);
    match turn.request_input(request) {
        Ok(answer) => Ok(answer == "delete"),
        Err(InputError::Declined { .. } | InputError::TimedOut { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn one_in(dice: &mut Dice, sides: u64) -> bool {
    dice.between(0..sides) == 0
}

fn word(dice: &mut Dice) -> &'static str {
    const WORDS: [&str; 16] = [
        "a", "turn", "has", "ended", "well", "and", "the", "next", "one", "begins", "with", "what", "it", "left", "to",
        "say",
    ];
    WORDS[dice.between(0..WORDS.len() as u64) as usize]
}
