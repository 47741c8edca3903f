//! A session in host mode: it stays after its prompt, and is fed from standard input and by a timer, each through the
//! session's injector. What becomes of every line is followed by its own stream.
//!
//! ```sh
//! cargo run -p turnwise-apps --bin host_mode          # type lines; a reminder comes every 5 seconds; `quit` or Ctrl-D ends it
//! cargo run -p turnwise-apps --bin host_mode -- 3 20  # three reminders, 20 ms apart; then the end of the input ends it
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
    /// How many there are; without a number as many as there is time for.
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
    // Does not wait: the session is in host mode for as long as it is needed.
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
    } // else the timer has a last word
    timer.join().map_err(|_| "the timer panicked")??;

    // Everything that was put in is answered; the session is not needed any more.
    injector.dismiss(EventSource::Stdin)?;
    let result = hosting.wait()?;
    say(format_args!("{} prompts and interactions, the last answer: {}", result.turns, result.text));
    Ok(())
}

/// The agent: reads a line out, word by word.
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

/// Puts the lines of standard input in, one after the other. Whether the last one was `quit`.
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

/// Puts a reminder in from time to time, until there were enough or the program is about to end.
fn remind(
    injector: &dyn SubscribableInjector,
    reminders: usize,
    every: Duration,
    stopped: &Receiver<()>,
) -> Result<(), InjectError> {
    for number in 1..=reminders {
        if let Err(RecvTimeoutError::Disconnected) = stopped.recv_timeout(every) {
            // The program ends: `quit` was typed, or the end of the input where no number of reminders was given.
            break;
        }
        follow("timer", format!("reminder {number}"), EventSource::Other("timer".into()), injector)?;
    }
    Ok(())
}

/// Puts a line in, and prints what happens in its interaction until that is over.
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
