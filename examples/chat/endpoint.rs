//! The server that a model answers through: requests, and what its refusals mean.

use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{json, Value};
use turnwise::{AgentError, AssistantBlock, Cancelled, LlmFailure, Message, TurnContext};
use ureq::http::{Response, StatusCode};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector, RustlsConnector};
use ureq::{Agent, Body};

use crate::options::Options;
use crate::reply::{message_of, Broken, Piece, Reply};
use crate::socket::Line;
use crate::tools;

/// How long the look-up of a name may take.
const LOOK_UP: Duration = Duration::from_secs(5);
/// How much of what a server says about an error is read.
const LONGEST_ERROR: u64 = 16 << 10;

/// One session's way to the server.
pub(crate) struct Endpoint {
    client: Agent,
    line: Line,
    options: Arc<Options>,
}

impl Endpoint {
    pub(crate) fn new(options: Arc<Options>) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_resolve(Some(LOOK_UP))
            // A connection whose answer was given up cannot be used again, and one that was answered is idle for a person's time.
            .max_idle_connections(0)
            .build();
        let line = Line::default();
        let connector = ().chain(line.clone()).chain(RustlsConnector::default());
        let client = Agent::with_parts(config, connector, DefaultResolver::default());
        Self { client, line, options }
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
        let _closing = self.line.close_on(turn.cancel_token());
        let asked = self.send(history).and_then(|body| self.read(body, reply, on_piece));
        // An interrupt looks like a cut connection from here.
        turn.check()?;
        asked
    }

    fn send(&self, history: &[Message]) -> Result<impl BufRead, AgentError> {
        let url = format!("{}/chat/completions", self.options.url.trim_end_matches('/'));
        let mut request = self
            .client
            .post(url)
            .header("content-type", "application/json")
            .header("accept", "text/event-stream")
            .header("connection", "close");
        if let Some(key) = &self.options.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let response = request.send(self.body(history).to_string()).map_err(|error| self.unreached(&error))?;
        if response.status() != StatusCode::OK {
            return Err(self.refused(response));
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

    fn body(&self, history: &[Message]) -> Value {
        let messages: Vec<Value> = history.iter().flat_map(messages).collect();
        let mut body = json!({
            "model": self.options.model,
            "messages": messages,
            "stream": true,
            "stream_options": { "include_usage": true }
        });
        if self.options.tools {
            body["tools"] = tools::described();
        }
        if let Some(max_tokens) = self.options.max_tokens {
            body["max_tokens"] = max_tokens.into();
        }
        body
    }

    fn unreached(&self, error: &ureq::Error) -> AgentError {
        match error {
            ureq::Error::Timeout(_) => self.failure(LlmFailure::Timeout, "it does not answer"),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => AgentError::Config(error.to_string()),
            other => self.failure(LlmFailure::Network, other),
        }
    }

    /// What a status other than 200 means.
    fn refused(&self, mut response: Response<Body>) -> AgentError {
        let status = response.status();
        let reason = match status.as_u16() {
            401 | 403 => LlmFailure::Auth,
            404 => LlmFailure::InvalidModel(self.options.model.clone()),
            408 | 504 => LlmFailure::Timeout,
            429 => LlmFailure::RateLimited { retry_after: retry_after(&response) },
            500..=599 => LlmFailure::Provider,
            _ => LlmFailure::InvalidRequest,
        };
        let mut text = String::new();
        // The status says most of it; what else the server says is a help where it can be read.
        let _ = response.body_mut().as_reader().take(LONGEST_ERROR).read_to_string(&mut text);
        let said = match serde_json::from_str::<Value>(&text) {
            Ok(json) => message_of(json.get("error").unwrap_or(&json)),
            Err(_) => text.lines().next().unwrap_or_default().trim().to_owned(),
        };
        self.failure(reason, format_args!("{status}{}{said}", if said.is_empty() { "" } else { ": " }))
    }

    fn broken(&self, broken: Broken) -> AgentError {
        match broken {
            Broken::Cut => self.failure(LlmFailure::Network, "the connection was cut in the middle of the reply"),
            Broken::Malformed(why) => {
                self.failure(LlmFailure::Provider, format_args!("the reply cannot be understood: {why}"))
            }
            Broken::Failed(why) => self.failure(LlmFailure::Provider, why),
        }
    }

    fn failure(&self, reason: LlmFailure, message: impl ToString) -> AgentError {
        AgentError::Llm { provider: self.options.url.clone(), reason, message: message.to_string() }
    }
}

/// How long the server asks to be left alone: seconds, or until when.
fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let value = response.headers().get("retry-after")?.to_str().ok()?;
    match value.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

/// A message as the server wants it. The answers of tools are a message each.
fn messages(message: &Message) -> Vec<Value> {
    match message {
        Message::System { content } => vec![json!({ "role": "system", "content": content })],
        Message::User { content } => vec![json!({ "role": "user", "content": content })],
        Message::Assistant { blocks, .. } => vec![assistant(blocks)],
        Message::ToolResults { results } => {
            let result = |result: &turnwise::ToolResult| json!({ "role": "tool", "tool_call_id": result.tool_use_id, "content": result.content });
            results.iter().map(result).collect()
        }
    }
}

fn assistant(blocks: &[AssistantBlock]) -> Value {
    let (mut text, mut calls) = (String::new(), Vec::new());
    for block in blocks {
        match block {
            AssistantBlock::Text { text: part } => text.push_str(part),
            AssistantBlock::ToolUse { id, name, args } => {
                calls.push(json!({ "id": id, "type": "function", "function": { "name": name, "arguments": args } }));
            }
            AssistantBlock::Reasoning { .. } => {}
        }
    }
    let mut message = json!({ "role": "assistant", "content": text });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}
