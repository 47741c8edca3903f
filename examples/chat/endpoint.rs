//! The server that a model answers through: requests, and what its refusals mean.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use turnwise::{AgentError, Cancelled, LlmFailure, Message, TurnContext};
use ureq::http::{Response, StatusCode};
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Body};

use crate::options::Options;
use crate::reply::{message_of_text, Broken, Piece, Reply};
use crate::request;
use crate::wire::{Later, Wire};

/// How much of what a server says about an error is read.
const LONGEST_ERROR: u64 = 16 << 10;

/// One session's way to the server.
pub(crate) struct Endpoint {
    client: Agent,
    wire: Wire,
    options: Arc<Options>,
}

impl Endpoint {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // One from the environment would need a connector of its own.
            .proxy(None)
            // A connection whose answer was given up cannot be used again, and one that was answered is idle for a person's time.
            .max_idle_connections(0)
            .build();
        let wire = Wire::default();
        let connector = ().chain(wire.clone()).chain(RustlsConnector::default());
        let client = Agent::with_parts(config, connector, Later);
        Self { client, wire, options }
    }

    /// Asks the model how the conversation goes on, and reads into `reply` what it says. Where that fails, what has come in
    /// until then is in there.
    pub(crate) fn ask(
        &self,
        history: &[Message],
        reply: &mut Reply,
        turn: &TurnContext,
        on_piece: impl FnMut(Piece) -> Result<(), Cancelled>,
    ) -> Result<(), AgentError> {
        let _closing = self.wire.close_on(turn.cancel_token());
        let asked = self.send(history).and_then(|body| self.read(body, reply, on_piece));
        // An interrupt looks like a cut connection from here.
        turn.check()?;
        asked
    }

    fn send(&self, history: &[Message]) -> Result<impl BufRead, AgentError> {
        let mut request = self
            .client
            .post(self.options.url.of_completions())
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .header("connection", "close");
        if let Some(key) = &self.options.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response =
            request.send(request::body(&self.options, history).to_string()).map_err(|error| self.unreached(&error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response));
        }
        if let Some(other) = other_content(&response) {
            let said = Self::say(response);
            return Err(self.hopeless(format_args!("the answer is {other}, and no stream of events: {said}")));
        }
        Ok(BufReader::new(response.into_body().into_reader()))
    }

    fn read(
        &self,
        mut body: impl BufRead,
        reply: &mut Reply,
        mut on_piece: impl FnMut(Piece) -> Result<(), Cancelled>,
    ) -> Result<(), AgentError> {
        while let Some(pieces) = reply.read(&mut body).map_err(|broken| self.broken(broken))? {
            for piece in pieces {
                on_piece(piece)?;
            }
        }
        Ok(())
    }

    fn unreached(&self, error: &ureq::Error) -> AgentError {
        match error {
            ureq::Error::Timeout(_) => self.failure(LlmFailure::Timeout, "it does not answer"),
            ureq::Error::Io(_) | ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => {
                self.failure(LlmFailure::Network, error)
            }
            other => self.hopeless(other),
        }
    }

    /// What a status other than 200 means.
    fn refused(&self, response: Response<Body>) -> AgentError {
        let status = response.status();
        let reason = match status.as_u16() {
            401 | 403 => LlmFailure::Auth,
            404 => LlmFailure::InvalidModel(self.options.model.clone()),
            408 | 504 => LlmFailure::Timeout,
            429 => LlmFailure::RateLimited { retry_after: retry_after(&response) },
            500..=599 => LlmFailure::Provider,
            _ => LlmFailure::InvalidRequest,
        };
        let said = Self::say(response);
        self.failure(reason, format_args!("{status}{}{said}", if said.is_empty() { "" } else { ": " }))
    }

    /// What else the server says, where it can be read.
    fn say(mut response: Response<Body>) -> String {
        let mut text = Vec::new();
        let _ = response.body_mut().as_reader().take(LONGEST_ERROR).read_to_end(&mut text);
        message_of_text(&String::from_utf8_lossy(&text))
    }

    fn broken(&self, broken: Broken) -> AgentError {
        match broken {
            Broken::Cut => self.failure(LlmFailure::Network, "the connection was cut in the middle of the reply"),
            Broken::Malformed(why) => self.hopeless(format_args!("the reply cannot be understood: {why}")),
            Broken::Failed(why) => self.failure(LlmFailure::Provider, why),
        }
    }

    /// Of what will not be better the next time.
    fn hopeless(&self, message: impl Display) -> AgentError {
        AgentError::other(format!("{}: {message}", self.options.url))
    }

    fn failure(&self, reason: LlmFailure, message: impl ToString) -> AgentError {
        AgentError::Llm { provider: self.options.url.to_string(), reason, message: message.to_string() }
    }
}

/// What the server says its answer is, where that is something else than a stream of events.
fn other_content(response: &Response<Body>) -> Option<String> {
    let content = response.headers().get("content-type")?.to_str().ok()?;
    let is_other = ["json", "html"].iter().any(|other| content.contains(other));
    is_other.then(|| content.to_owned())
}

/// How long the server asks to be left alone: seconds, or until when.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}
