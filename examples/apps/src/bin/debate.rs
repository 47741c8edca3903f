//! Three sessions that send each other messages, each on its own thread. A moderator asks two debaters in turn for a
//! speech. At the end it dismisses them, and then itself. The sessions alone decide which of them speaks next.
//!
//! ```sh
//! cargo run -p turnwise-apps --bin debate -- "tabs or spaces" 3     # the topic, and how many rounds
//! ```
//!
//! The transcript goes to standard output. On a terminal, a line below it marks the sessions that run at the moment.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::{
    builder_fn, AgentError, AgentEvent, CommsRuntime, EphemeralSessionService, EventSource, EventStream,
    InboxInteraction, InteractionContent, LocalComms, LocalPeer, Message, ResponseStatus, RunResult, Session,
    SessionAgent, SessionContext, SessionId, SessionService, SessionSpec, StartTurnRequest, SubscribableInjector,
    Subscription, TurnContext,
};
use turnwise_apps::{
    args,
    say::{plain_line, say, warn},
};

const USAGE: &str = "usage: debate [TOPIC [ROUNDS]]";
const DEBATERS: [&str; 2] = ["anna", "bruno"];
const MODERATOR: &str = "moderator";

/// An upper limit, so that the number of speeches does not overflow.
const MOST_ROUNDS: usize = 1_000_000;

fn main() -> ExitCode {
    let (topic, rounds) = match args::texts().and_then(parse) {
        Ok(options) => options,
        Err(message) => {
            warn(format_args!("debate: {message}"));
            return ExitCode::from(2);
        }
    };
    match run(&topic, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(format_args!("debate: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The topic, and the number of rounds.
fn parse(args: Vec<String>) -> Result<(String, usize), String> {
    let mut args = args.into_iter();
    let topic = args.next().unwrap_or_else(|| "tabs or spaces".into());
    let Some(text) = args.next() else { return Ok((topic, 2)) };
    let rounds = text.parse().ok().filter(|rounds| *rounds <= MOST_ROUNDS);
    let rounds = rounds.ok_or_else(|| format!("'{text}' is not a number of rounds; {USAGE}"))?;
    args.next().map_or(Ok((topic, rounds)), |_| Err(USAGE.into()))
}

fn run(topic: &str, rounds: usize) -> Result<(), Box<dyn Error>> {
    let comms = LocalComms::new();
    let builder = builder_fn(move |spec: &SessionSpec, context: &SessionContext| {
        // The name is taken until the agent is dropped.
        let peer = comms.join(spec.model.as_str()).map_err(AgentError::other)?;
        let (history, injector, speeches_left) = (spec.history(), context.injector(), DEBATERS.len() * rounds);
        Ok(Speaker { peer, history, injector, topic: String::new(), speeches_left })
    });
    let service = EphemeralSessionService::new(builder, 3);
    let events = service.subscribe_all(Subscription::new());

    // All sessions are open before the first speech.
    let names = [DEBATERS[0], DEBATERS[1], MODERATOR];
    let ids = names.map(|name| service.open_session(SessionSpec::new().model(name)));
    let mut speakers = Vec::new();
    for (id, name) in ids.into_iter().zip(names) {
        speakers.push((id?, name));
    }
    let watched = speakers.clone();
    let view = thread::spawn(move || View::new(watched).watch(events));
    let mut turns = Vec::new();
    for (id, _) in &speakers {
        turns.push(service.begin_turn(*id, StartTurnRequest::new(topic).host_mode(true))?);
    }
    for turn in turns {
        turn.wait()?;
    }
    // The view ends with the last session.
    service.shutdown(Duration::from_secs(10));
    view.join().map_err(|_| "the view panicked")?;
    Ok(())
}

/// An agent that moderates or debates, depending on its name.
struct Speaker {
    peer: LocalPeer,
    history: Session,
    injector: Arc<dyn SubscribableInjector>,
    topic: String,
    /// The number of speeches that the moderator still asks for.
    speeches_left: usize,
}

impl Speaker {
    /// Sleeps for a moment, then emits the text.
    fn say(&mut self, text: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        turn.sleep(Duration::from_millis(100))?;
        turn.emit(AgentEvent::TextComplete { content: text.clone() })?;
        self.history.push(Message::assistant(text.as_str()));
        Ok(turn.finish(text))
    }

    /// The moderator's part: asks the next debater for a speech, or ends the debate.
    fn moderate(&mut self, last_speech: &str, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if self.speeches_left == 0 {
            let result = self.say("Thank you both.".into(), turn)?;
            for name in DEBATERS {
                self.peer.send(name, InteractionContent::Dismiss).map_err(AgentError::other)?;
            }
            self.injector.dismiss(EventSource::Other(MODERATOR.into())).map_err(AgentError::other)?;
            return Ok(result);
        }
        let next = DEBATERS[self.speeches_left % DEBATERS.len()];
        self.speeches_left -= 1;
        let result = self.say(format!("{next}, please."), turn)?;
        let request = InteractionContent::request(self.topic.as_str(), last_speech);
        self.peer.send(next, request).map_err(AgentError::other)?;
        Ok(result)
    }

    /// A debater's part: argues for one side of the topic, and answers the last speech.
    fn argue(&mut self, topic: &str, last_speech: &str, turn: &TurnContext) -> Result<RunResult, AgentError> {
        const POINTS: [&str; 4] =
            ["I grew up with them", "everybody I admire chose them", "they have never let me down", "I rest my case"];
        let side = usize::from(self.peer.name() != DEBATERS[0]);
        let (mine, theirs) = match topic.split_once(" or ") {
            Some((first, second)) if side == 0 => (first, second),
            Some((first, second)) => (second, first),
            None => (topic, "anything else"),
        };
        let point = POINTS[self.history.messages().len() % POINTS.len()];
        let reply = if last_speech.contains(theirs) { format!("Keep your {theirs}. ") } else { String::new() };
        self.say(format!("{reply}I am for {mine}: {point}."), turn)
    }
}

impl SessionAgent for Speaker {
    fn run_turn(&mut self, topic: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if self.peer.name() == MODERATOR {
            self.topic = topic;
            self.moderate("", turn)
        } else {
            Ok(turn.finish("listening"))
        }
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        turn.emit(AgentEvent::TurnStarted { turn_number: 1 })?;
        match interaction.content {
            InteractionContent::Request { intent: topic, params: last_speech } => {
                let speech = self.argue(&topic, &last_speech, turn)?;
                let (status, result) = (ResponseStatus::Completed, speech.text.clone());
                let answer = InteractionContent::Response { in_reply_to: interaction.id, status, result };
                self.peer.send(&interaction.from, answer).map_err(AgentError::other)?;
                Ok(speech)
            }
            InteractionContent::Response { result: speech, .. } => self.moderate(&speech, turn),
            other => Err(AgentError::Config(format!("no answer to {other:?}"))),
        }
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        Some(self.peer.runtime())
    }
}

/// The output of the program.
struct View {
    /// The sessions, with their names, and whether each runs.
    speakers: Vec<(SessionId, &'static str, bool)>,
    is_live: bool,
}

impl View {
    fn new(speakers: Vec<(SessionId, &'static str)>) -> Self {
        let speakers = speakers.into_iter().map(|(id, name)| (id, name, false)).collect();
        Self { speakers, is_live: io::stderr().is_terminal() }
    }

    /// Prints the events of the sessions until the last session has ended.
    fn watch(mut self, events: EventStream) {
        for event in events {
            let Some((_, name, at_work)) = self.speakers.iter_mut().find(|(id, ..)| *id == event.session_id) else {
                continue;
            };
            match event.event {
                AgentEvent::RunStarted { .. } | AgentEvent::TurnStarted { .. } => *at_work = true,
                AgentEvent::TextComplete { content } => {
                    let (name, content) = (*name, plain_line(&content));
                    *at_work = false;
                    self.clear_line();
                    say(format_args!("{name}: {content}"));
                }
                _ => *at_work = false,
            }
            self.show_who_is_at_work();
        }
        self.clear_line();
    }

    fn clear_line(&self) {
        if self.is_live {
            let _ = io::stderr().lock().write_all(b"\r\x1b[K");
        }
    }

    fn show_who_is_at_work(&self) {
        if self.is_live {
            let shown =
                self.speakers.iter().map(|(_, name, at_work)| format!("{}{name}", if *at_work { "● " } else { "  " }));
            let line = shown.collect::<Vec<_>>().join("  ");
            // A failure is ignored: the transcript does not depend on this line.
            let _ = write!(io::stderr().lock(), "\r\x1b[K  {line}");
        }
    }
}
