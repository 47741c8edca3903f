//! A chat with a language model in the terminal, over any endpoint with the protocol of OpenAI's chat completions.
//!
//! ```text
//! OPENAI_API_KEY=... chat                                                        a prompt; /help lists its commands
//! chat --url http://localhost:11434/v1 --model llama3.2 "why is the sky blue"    one question to a local server
//! ```
//!
//! Every conversation is a session, and every question is a turn. The answer appears as it arrives. Ctrl-C stops the
//! answer and closes the connection; the conversation keeps the text that has arrived.
//!
//! The model may call a clock and a calculator, and two tools that change files in the working directory. Before one of
//! those runs, the turn asks the user (`consent.rs`), and waits until the user has answered in the terminal (`front.rs`).
//!
//! A line that is typed while an answer is written is the next question. Its turn waits in the queue of the session
//! (`meanwhile.rs`). With an exclamation mark in front the line goes to the running turn instead (`steering.rs`): the
//! agent takes it in before its next request, or makes one more (`agent.rs`).
//!
//! Servers differ, and the chat accepts these variants:
//!
//! - A reply is complete once the server has sent a reason to stop, `[DONE]`, or a whole completion as JSON. After a
//!   reason to stop, the chat waits half a second for the usage, and ignores all other data.
//! - A tool call runs only if its arguments are one JSON object. No call runs if the pieces of two calls cannot be told
//!   apart.
//! - A parameter that the server refuses by name is omitted (`stream_options`) or renamed (`max_tokens`) from then on.
//!
//! Three limits apply to an answer. `--timeout` limits the whole turn, with retries and tools. `--idle` limits the time
//! without any data of the reply; heartbeats do not count. A pause that the server asks for may take up to 60 seconds;
//! a longer one fails the turn at once. The chat retries failures of the network and statuses that may change (408,
//! 409, 425, 429, most of 500 to 599), if no part of the reply has arrived.

// The library's rule about locks does not apply to the programs.
#![allow(clippy::disallowed_types)]

mod address;
mod agent;
mod asking;
mod background;
mod calls;
mod changes;
mod columns;
mod consent;
mod conversations;
mod draft;
mod endpoint;
mod events;
mod front;
mod interrupts;
mod json;
mod keyboard;
mod keys;
mod meanwhile;
mod options;
mod places;
mod prompt;
mod refusal;
mod reply;
mod request;
mod screen;
mod show;
mod shown;
mod steering;
mod toolbox;
mod tools;
mod wire;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use turnwise::{
    CancelReason, CreateSessionRequest, EphemeralSessionService, SessionError, SessionService, SessionSpec, TurnStream,
};
use turnwise_apps::{
    args,
    ctrl_c::{self, AtRest},
    say::{say, warn},
};

use front::{Front, Next, Reading};
use interrupts::Foreground;
use options::Options;
use shown::Shown;
use toolbox::ChatBuilder;

/// The service with the conversations.
type Service = EphemeralSessionService<ChatBuilder>;

const MAX_CONVERSATIONS: usize = 64;
/// How many questions may wait in a conversation.
const MAX_QUEUED: usize = 8;
/// How long conversations may take to end at the end of the program.
const GRACE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match args::texts().and_then(options::parse) {
        Ok(Some(options)) => run(options).unwrap_or_else(|message| {
            warn(format_args!("chat: {message}"));
            ExitCode::FAILURE
        }),
        Ok(None) => {
            say(options::USAGE);
            ExitCode::SUCCESS
        }
        Err(message) => {
            warn(format_args!("chat: {message}\n\n{}", options::USAGE));
            ExitCode::from(2)
        }
    }
}

fn run(options: Options) -> Result<ExitCode, String> {
    let options = Arc::new(options);
    let builder = ChatBuilder { options: Arc::clone(&options), dialect: Arc::default() };
    let config = EphemeralSessionService::configure(builder).max_sessions(MAX_CONVERSATIONS).turn_queue(MAX_QUEUED);
    let service = config.thread_name_prefix("chat").build().map_err(|error| error.to_string())?;
    let at_rest = AtRest::of(options.question.is_none());
    let foreground =
        Foreground::install(service.downgrade(), at_rest).map_err(|error| format!("cannot catch Ctrl-C: {error}"))?;
    let code = match &options.question {
        Some(question) => ask(&service, &options, &foreground, question),
        None => prompt::run(&service, &options, &foreground).map(|()| ExitCode::SUCCESS),
    };
    let stuck = service.shutdown(GRACE).stuck;
    if !stuck.is_empty() {
        warn(format_args!("chat: {} conversations did not stop", stuck.len()));
    }
    code
}

/// Asks one question, and shows its answer.
fn ask(service: &Service, options: &Options, foreground: &Foreground, question: &str) -> Result<ExitCode, String> {
    let mut spec = SessionSpec::new();
    spec.system_prompt.clone_from(&options.system);
    let request = CreateSessionRequest::new(question).session(spec).timeout(options.timeout);
    let answered = match service.stream_session(request) {
        Ok(stream) => show(service, options, foreground, stream),
        Err(error) => {
            warn(show::explain(&error));
            Err(error)
        }
    };
    Ok(match answered {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.cancel_reason() == Some(CancelReason::Interrupted) => ExitCode::from(ctrl_c::INTERRUPTED),
        Err(_) => ExitCode::FAILURE,
    })
}

/// Shows the answer, and asks what its tools ask.
fn show(service: &Service, options: &Options, foreground: &Foreground, stream: TurnStream) -> Result<(), SessionError> {
    let reading = if options.can_ask { Reading::Answers } else { Reading::Never };
    let mut front = Front::new(service, reading, String::new());
    foreground.during(stream.handle(), || {
        let shown = Shown::stream(&stream);
        // The keyboard is read for answers only. Another line has no effect.
        while !matches!(front.next(&shown), Next::Ended) {}
    });
    let ended = front.show_end(stream.wait());
    front.end();
    ended
}
