//! A session in host mode. Standard input and a timer inject lines into it, both through the session's injector. A
//! subscription of its own follows each line to its answer.
//!
//! ```sh
//! cargo run -p turnwise-apps --bin host_mode          # a reminder every 5 seconds; `quit` or Ctrl-D ends the program
//! cargo run -p turnwise-apps --bin host_mode -- 3 20  # three reminders, 20 ms apart; ends after them and the input
//! ```

use std::error::Error;
use std::io::{self, BufRead};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, Receiver, RecvTimeoutError};
use turnwise::{
    agent_fn, AgentError, AgentEvent, CreateSessionRequest, EphemeralSessionService, EventSource, InjectError,
    RunResult, SessionService, SubscribableInjector, TurnContext,
};
use turnwise_apps::{
    args,
    say::{say, warn},
};

const USAGE: &str = "usage: host_mode [REMINDERS [MILLISECONDS]]";

struct Options {
    /// The number of reminders. `None` means no limit.
    reminders: Option<usize>,
    every: Duration,
}

fn main() -> ExitCode {
    let options = match args::texts().and_then(|args| parse(&args)) {
        Ok(options) => options,
        Err(message) => {
            warn(format_args!("host_mode: {message}"));
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(format_args!("host_mode: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let number = |text: &String| text.parse::<u32>().map_err(|_| format!("'{text}' is not a number; {USAGE}"));
    let (reminders, millis) = match args {
        [] => (None, 5_000),
        [reminders] => (Some(number(reminders)?), 5_000),
        [reminders, millis] => (Some(number(reminders)?), number(millis)?),
        _ => return Err(USAGE.into()),
    };
    Ok(Options { reminders: reminders.map(|count| count as usize), every: Duration::from_millis(millis.into()) })
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let &Options { reminders, every } = options;
    let service = EphemeralSessionService::new(agent_fn(read_out), 1);
    // This call does not wait. The session stays in host mode until it is dismissed.
    let hosting = service.begin_session(CreateSessionRequest::new("good morning").host_mode(true))?;
    let injector = service.event_injector(hosting.session_id()).ok_or("the session is gone")?;

    // The timer stops when the other end of this channel is dropped.
    let (running, stopped) = bounded::<()>(0);
    let timer = {
        let injector = Arc::clone(&injector);
        thread::spawn(move || remind(&*injector, reminders.unwrap_or(usize::MAX), every, &stopped))
    };
    let has_quit = feed_lines(&*injector)?;
    if has_quit || reminders.is_none() {
        drop(running);
    } // else the timer sends the rest of its reminders
    timer.join().map_err(|_| "the timer panicked")??;

    // All injected lines are answered, so the session is not needed any more.
    injector.dismiss(EventSource::Stdin)?;
    let result = hosting.wait()?;
    say(format_args!("{} prompts and interactions, the last answer: {}", result.turns, result.text));
    Ok(())
}

/// The agent: emits a line word by word.
fn read_out(line: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    let words: Vec<_> = line.split_whitespace().collect();
    if words.is_empty() {
        return Err(AgentError::Config("there is nothing to read".into()));
    }
    for word in &words {
        turn.emit(AgentEvent::TextDelta { delta: word.to_uppercase() })?;
        turn.sleep(Duration::from_millis(5))?;
    }
    Ok(turn.finish(format!("{} words", words.len())))
}

/// Injects the lines of standard input, one after the other. Returns whether the last one was `quit`.
fn feed_lines(injector: &dyn SubscribableInjector) -> Result<bool, Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        if line.trim() == "quit" {
            return Ok(true);
        }
        follow("stdin", line, EventSource::Stdin, injector)?;
    }
    Ok(false)
}

/// Injects a reminder from time to time, until the number is reached or the program ends.
fn remind(
    injector: &dyn SubscribableInjector,
    reminders: usize,
    every: Duration,
    stopped: &Receiver<()>,
) -> Result<(), InjectError> {
    for number in 1..=reminders {
        if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(every) {
            // The program ends, because of `quit`, or at the end of the input if the number of reminders has no limit.
            break;
        }
        follow("timer", format!("reminder {number}"), EventSource::Other("timer".into()), injector)?;
    }
    Ok(())
}

/// Injects a line, and prints the events of its interaction until its end.
fn follow(
    label: &str,
    line: String,
    source: EventSource,
    injector: &dyn SubscribableInjector,
) -> Result<(), InjectError> {
    let interaction = injector.inject_with_subscription(line, source)?;
    for event in interaction.events {
        match event {
            AgentEvent::TextDelta { delta } => say(format_args!("[{label}] {delta}")),
            AgentEvent::InteractionComplete { result, .. } => say(format_args!("[{label}] -> {result}")),
            AgentEvent::InteractionFailed { error, .. } => say(format_args!("[{label}] failed: {error}")),
            _ => {}
        }
    }
    Ok(())
}
