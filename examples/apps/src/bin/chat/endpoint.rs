//! The requests to the server of the model.

use std::fmt::Display;
use std::io::{BufReader, Read};
use std::sync::Arc;
use std::time::Duration;

use turnwise::{AgentError, Cancelled, LlmFailure, Message, TurnContext};
use ureq::http::{HeaderMap, StatusCode};
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Body};

use crate::events::{Broken, Events};
use crate::options::Options;
use crate::refusal::{self, message_of_text, Failed, LONGEST_DELAY};
use crate::reply::{Piece, Reply, Step};
use crate::request::{self, Dialect, Spelling};
use crate::wire::{Later, Wire};

/// How much of the body of a refusal is read, in bytes.
const LONGEST_ERROR: u64 = 16 << 10;
/// How long the program waits for the text of a refusal.
const ERROR_PATIENCE: Duration = Duration::from_secs(2);
/// How long the program waits for the usage after the model has stopped. Heartbeats do not extend it.
const GRACE: Duration = Duration::from_millis(500);

/// The client of one session.
pub(crate) struct Endpoint {
    client: Agent,
    wire: Wire,
    dialect: Arc<Dialect>,
    options: Arc<Options>,
}

/// An answer whose status is not a success.
struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
    /// The body, as the server has sent it.
    said: String,
}

impl Endpoint {
    pub(crate) fn new(options: Arc<Options>, dialect: Arc<Dialect>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // A proxy from the environment would need a connector of its own.
            .proxy(None)
            // The key must not reach another server.
            .max_redirects(0)
            // A connection with an abandoned answer cannot be reused, and one with a complete answer would be idle
            // until the user has typed.
            .max_idle_connections(0)
            .build();
        let wire = Wire::default();
        let connector = ().chain(wire.clone()).chain(RustlsConnector::default());
        let client = Agent::with_parts(config, connector, Later);
        Self { client, wire, dialect, options }
    }

    /// Asks the model for the next message of the conversation, and reads it into `reply`. If that fails, `reply` has
    /// the part that has arrived.
    pub(crate) fn ask(
        &self,
        history: &[Message],
        reply: &mut Reply,
        turn: &TurnContext,
        on_piece: impl FnMut(Piece) -> Result<(), Cancelled>,
    ) -> Result<(), Failed> {
        let _closing = self.wire.close_on(turn.cancel_token());
        let asked = self.send(history).and_then(|body| self.read(body, reply, on_piece));
        // An interrupt looks like a closed connection here.
        turn.check()?;
        asked
    }

    /// Sends the request. If the server does not know a parameter, sends it again without that parameter.
    fn send(&self, history: &[Message]) -> Result<Body, Failed> {
        let mut spelling = self.dialect.spelling();
        loop {
            let refusal = match self.send_spelled(spelling, history)? {
                Ok(body) => {
                    self.dialect.learn(spelling);
                    return Ok(body);
                }
                Err(refusal) => refusal,
            };
            let is_about_request = matches!(refusal.status.as_u16(), 400 | 422);
            match spelling.otherwise(&refusal.said, &self.options).filter(|_| is_about_request) {
                Some(other) => spelling = other,
                None => return Err(self.refused(refusal)),
            }
        }
    }

    fn send_spelled(&self, spelling: Spelling, history: &[Message]) -> Result<Result<Body, Refusal>, Failed> {
        self.wire.give_up_after(self.options.idle);
        let mut request = self
            .client
            .post(self.options.url.of_completions())
            .header("content-type", "application/json")
            .header("accept", "text/event-stream, application/json")
            .header("accept-encoding", "identity")
            .header("connection", "close");
        if let Some(key) = &self.options.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let body = request::body(&self.options, spelling, history).to_string();
        let response = request.send(body).map_err(|error| self.unreached(&error))?;
        let encoding = encoding(response.headers());
        let is_answer = response.status().is_success() && !matches!(response.status().as_u16(), 204 | 205);
        if !is_answer {
            let (status, headers) = (response.status(), response.headers().clone());
            // The status is known, and a body that never ends must not delay its report.
            self.wire.give_up_after(self.options.idle.min(ERROR_PATIENCE));
            let said = if encoding.is_none() { read_error(response.into_body()) } else { String::new() };
            return Ok(Err(Refusal { status, headers, said }));
        }
        match encoding {
            Some(encoding) => {
                Err(self.unreadable(format_args!("it is compressed ({encoding}), which was not asked for")))
            }
            None => Ok(Ok(response.into_body())),
        }
    }

    fn read(
        &self,
        body: Body,
        reply: &mut Reply,
        mut on_piece: impl FnMut(Piece) -> Result<(), Cancelled>,
    ) -> Result<(), Failed> {
        let mut events = Events::new(BufReader::new(body.into_reader()));
        loop {
            let (pieces, is_end) = match reply.read(&mut events).map_err(|broken| self.broken(broken))? {
                Step::Nothing => continue,
                Step::Progress(pieces) => (pieces, false),
                Step::End(pieces) => (pieces, true),
            };
            for piece in pieces {
                on_piece(piece)?;
            }
            if is_end {
                return Ok(());
            }
            self.wire.give_up_after(if reply.is_finished() { GRACE } else { self.options.idle });
        }
    }

    fn unreached(&self, error: &ureq::Error) -> Failed {
        match error {
            _ if self.wire.is_overdue() => self.silent(),
            ureq::Error::Timeout(_) => self.failure(LlmFailure::Timeout, "it does not answer"),
            ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                self.failure(LlmFailure::Network, error)
            }
            other => self.hopeless(other),
        }
    }

    fn refused(&self, refusal: Refusal) -> Failed {
        let Refusal { status, headers, said } = refusal;
        let retry_after = refusal::retry_after(&headers);
        let mut message = status.to_string();
        if let Some(encoding) = encoding(&headers) {
            message.push_str(&format!(" (what it says is compressed: {encoding})"));
        }
        let words = message_of_text(&said);
        if !words.is_empty() {
            message.push_str(&format!(": {words}"));
        }
        if let Some(target) = headers.get("location").filter(|_| status.is_redirection()) {
            message.push_str(&format!(" to {}", String::from_utf8_lossy(target.as_bytes())));
        }
        message.push_str(&self.advice(status, &said));
        if let Some(delay) = retry_after.filter(|delay| *delay > LONGEST_DELAY) {
            let (delay, longest) = (refusal::spoken(delay), refusal::spoken(LONGEST_DELAY));
            message.push_str(&format!("; the server asks for a pause of {delay}, and the longest pause is {longest}"));
        }
        let reason = match refusal::reason(status.as_u16()) {
            Some(LlmFailure::RateLimited { .. }) if refusal::is_used_up(&said) => None,
            Some(LlmFailure::RateLimited { .. }) => Some(LlmFailure::RateLimited { retry_after }),
            None if is_about_model(status, &said) => Some(LlmFailure::InvalidModel(self.options.model.clone())),
            reason => reason,
        };
        let failed = match reason {
            Some(reason) => self.failure(reason, message),
            None => self.hopeless(message),
        };
        Failed { retry_after, ..failed }
    }

    /// A hint about a refusal for the user, in brackets.
    fn advice(&self, status: StatusCode, said: &str) -> String {
        let advice = match status.as_u16() {
            400 | 404 | 422 if self.options.tools && said.contains("tool") => "--no-tools leaves the tools out",
            _ if is_about_model(status, said) => "",
            status => refusal::advice(status),
        };
        if advice.is_empty() {
            String::new()
        } else {
            format!(" ({advice})")
        }
    }

    fn broken(&self, broken: Broken) -> Failed {
        match broken {
            Broken::Cut if self.wire.is_overdue() => self.silent(),
            Broken::Cut => self.failure(LlmFailure::Network, "the connection was cut in the middle of the reply"),
            Broken::Malformed(why) => self.unreadable(why),
            Broken::Failed { message, status } => match status.map_or(Some(LlmFailure::Provider), refusal::reason) {
                Some(reason) => self.failure(reason, message),
                None => self.hopeless(message),
            },
        }
    }

    fn silent(&self) -> Failed {
        let idle = refusal::spoken(self.options.idle);
        self.failure(LlmFailure::Timeout, format_args!("nothing of an answer has come for {idle} (--idle)"))
    }

    fn unreadable(&self, why: impl Display) -> Failed {
        self.hopeless(format_args!("the reply cannot be understood: {why}"))
    }

    /// A failure that is not retried.
    fn hopeless(&self, message: impl Display) -> Failed {
        AgentError::other(format!("{}: {message}", self.options.url)).into()
    }

    fn failure(&self, reason: LlmFailure, message: impl ToString) -> Failed {
        AgentError::Llm { provider: self.options.url.to_string(), reason, message: message.to_string() }.into()
    }
}

/// Whether the server did not find the model.
fn is_about_model(status: StatusCode, said: &str) -> bool {
    status == StatusCode::NOT_FOUND && said.contains("model")
}

/// The compression of the body, if it has one.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let encodings = headers.get_all("content-encoding").iter();
    let names: Vec<_> = encodings.map(|name| String::from_utf8_lossy(name.as_bytes()).trim().to_owned()).collect();
    let name = names.join(", ");
    (!matches!(name.to_ascii_lowercase().as_str(), "" | "identity" | "none")).then_some(name)
}

/// The body of a refusal, as far as it can be read.
fn read_error(body: Body) -> String {
    let mut text = Vec::new();
    let _ = body.into_reader().take(LONGEST_ERROR).read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}
