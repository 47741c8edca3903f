//! Refused requests: the statuses that are retried, the messages for the user, and the pauses.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use turnwise::{AgentError, Cancelled, LlmFailure};
use ureq::http::HeaderMap;

use crate::events::{title, Broken};
use crate::json::{self, Joiner};

/// The longest pause (Retry-After) that the program makes. If the server asks for a longer one, the turn fails at once.
pub(crate) const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// The failure of a request.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: AgentError,
    /// The pause that the server asks for.
    pub(crate) retry_after: Option<Duration>,
}

impl Failed {
    /// Whether the same request may succeed after a pause within the limit.
    pub(crate) fn is_retryable(&self) -> bool {
        self.error.is_retryable() && self.retry_after.is_none_or(|delay| delay <= LONGEST_DELAY)
    }
}

impl From<AgentError> for Failed {
    fn from(error: AgentError) -> Self {
        Self { error, retry_after: None }
    }
}

impl From<Cancelled> for Failed {
    fn from(cancelled: Cancelled) -> Self {
        AgentError::from(cancelled).into()
    }
}

/// The failure of a status. `None` for a refusal that the library has no name for, and that is not retried.
///
/// The program retries 408, 409, 425, 429, and the statuses of 500 to 599 that report an overload, a fault or a time
/// limit. It does not retry 501 and 505, which report a missing feature, nor statuses about certificates and logins.
pub(crate) fn reason(status: u16) -> Option<LlmFailure> {
    match status {
        401 | 403 | 407 => Some(LlmFailure::Auth),
        408 | 504 | 522 | 524 | 598 => Some(LlmFailure::Timeout),
        429 => Some(LlmFailure::RateLimited { retry_after: None }),
        409 | 425 => Some(LlmFailure::Provider),
        501 | 505 | 506 | 508 | 510 | 511 | 525 | 526 => None,
        500..=599 => Some(LlmFailure::Provider),
        400 | 411..=417 | 421..=424 | 431 => Some(LlmFailure::InvalidRequest),
        _ => None,
    }
}

/// A hint about a status: what the user can do, or what the status means.
pub(crate) fn advice(status: u16) -> &'static str {
    match status {
        100..=199 => "the server has sent an interim answer that this program does not know",
        204 | 205 => "the answer is empty",
        300..=399 => "redirections are not followed; check --url",
        402 => "the server requires a payment",
        404 | 405 | 410 => "there is no such model, or no chat completions at this address; see --model and --url",
        406 | 415 => "the server does not speak this protocol; see --url",
        407 => "a proxy asks for a login",
        409 | 425 => "the server cannot take the request now",
        413 => "the conversation is too long for the server; /new begins another one",
        426 | 505 => "the server requires another version of HTTP",
        431 => "the key is too long for the server",
        451 => "refused for legal reasons",
        501 => "the server does not have chat completions; see --url",
        511 => "the network asks for a login",
        525 | 526 => "the certificate of the server behind the proxy is bad",
        _ => "",
    }
}

/// Whether a 429 means that the credit of the account is used up. A retry cannot succeed then.
pub(crate) fn is_used_up(said: &str) -> bool {
    ["insufficient_quota", "billing_hard_limit"].iter().any(|code| said.contains(code))
}

/// The pause that the server asks for, in seconds or as a date. A value that is not a positive time, such as a date in
/// the past, is ignored. A value that a `Duration` cannot hold becomes the longest one.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let seconds = |text: &str| text.parse::<f64>().ok();
    if let Some(millis) = value("retry-after-ms").and_then(seconds) {
        return duration(millis / 1000.0);
    }
    let value = value("retry-after")?;
    match seconds(value) {
        Some(seconds) => duration(seconds),
        None => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).ok(),
    }
}

fn duration(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// A duration in the form for the user.
pub(crate) fn spoken(duration: Duration) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match duration.as_secs() {
        0 => format!("{duration:?}"),
        seconds @ 1..=119 => format!("{seconds} s"),
        seconds if seconds < 2 * HOUR => format!("{seconds} s ({} min)", seconds / MINUTE),
        seconds if seconds < 2 * DAY => format!("{seconds} s ({} h)", seconds / HOUR),
        seconds if seconds < 366 * DAY => format!("{seconds} s ({} days)", seconds / DAY),
        _ => "more than a year".into(),
    }
}

/// The message in the field `error`, which holds the message itself or an object with it.
pub(crate) fn message_of(error: &Value) -> String {
    let said = ["message", "error", "detail", "msg"].iter().filter_map(|name| error.get(*name));
    let message = said.into_iter().find(|said| json::says_something(said)).unwrap_or(error);
    match message {
        Value::String(text) => shortened(text),
        Value::Object(_) if !std::ptr::eq(message, error) => message_of(message),
        other => shortened(&other.to_string()),
    }
}

/// The message in the body of a refusal: JSON of some kind, the title of a page, or the first line of a text.
pub(crate) fn message_of_text(text: &str) -> String {
    match json::values(text) {
        Ok(values) if values.len() == 1 => {
            let value = &values[0];
            let inner = value.get(0).unwrap_or(value);
            message_of(inner.get("error").filter(|error| json::says_something(error)).unwrap_or(inner))
        }
        _ => {
            let first = text.lines().map(str::trim).find(|line| !line.is_empty());
            shortened(&title(text).unwrap_or_else(|| first.unwrap_or_default().to_owned()))
        }
    }
}

/// The beginning of a message, for the user.
fn shortened(message: &str) -> String {
    const LONGEST: usize = 300;
    Joiner::once(message).chars().take(LONGEST).collect()
}

/// The failure of an error object in an answer.
pub(crate) fn failed(error: &Value) -> Broken {
    let codes = ["code", "status", "status_code", "type"].map(|name| &error[name]);
    let numbers = codes.iter().filter_map(|code| json::whole_number(code)).filter_map(|code| u16::try_from(code).ok());
    let status = numbers.into_iter().find(|status| (300..600).contains(status));
    let named = || codes.iter().filter_map(|code| code.as_str()).find_map(status_of_code);
    let status = status.or_else(named);
    Broken::Failed { message: message_of(error), status }
}

/// The status that corresponds to the name of an error.
fn status_of_code(code: &str) -> Option<u16> {
    let says = |words: &[&str]| words.iter().any(|word| code.contains(word));
    match () {
        () if says(&["authentication", "permission", "invalid_api_key"]) => Some(401),
        () if says(&["insufficient_quota", "billing"]) => Some(402),
        () if says(&["invalid_request", "context_length", "unsupported", "not_found"]) => Some(400),
        () => None,
    }
}

/// The failure of an error event.
pub(crate) fn failed_with_text(text: &str) -> Broken {
    match json::values(text) {
        Ok(values) if values.len() == 1 && values[0].is_object() => {
            let value = &values[0];
            failed(value.get("error").filter(|error| json::says_something(error)).unwrap_or(value))
        }
        _ => Broken::Failed { message: message_of_text(text), status: None },
    }
}
