//! The options, from the command line and the environment. An editor's settings have both.

use std::env::{self, VarError};
use std::path::PathBuf;
use std::time::Duration;

use lexopt::Arg::{Long, Short};
use lexopt::ValueExt;

use crate::address::Address;

pub(crate) const USAGE: &str = "\
usage: acp-agent [OPTIONS]

An agent for editors that speak the Agent Client Protocol. The editor starts it.

  --url URL          the endpoint, up to or with '/chat/completions'; a query is kept
                                                               [OPENAI_BASE_URL, https://api.openai.com/v1]
  --key KEY          the key; better kept in the environment   [OPENAI_API_KEY, none]
  --model NAME       the model                                 [OPENAI_MODEL, gpt-4o-mini]
  --system TEXT      what the agent is to be
  --max-tokens N     how long an answer may be
  --context N        the size of the model's context in tokens, by which the editor shows how much is used
  --timeout SECONDS  how long a prompt may take, permissions and tools included [3600]
  --idle SECONDS     how long a server may send nothing of an answer; heartbeats do not count [120]
  --attempts N       how often a request is sent that may well succeed later [4]
  --backoff SECONDS  how long to wait before the second attempt; doubles every time [0.5]
  --no-tools         for models that know no tools
  --sessions FILE    the file with the sessions [acp-agent.redb in the user's folder for the state of programs]";

const DEFAULT_URL: &str = "https://api.openai.com/v1";
const DEFAULT_MODEL: &str = "gpt-4o-mini";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) url: Address,
    pub(crate) key: Option<String>,
    pub(crate) model: String,
    pub(crate) system: Option<String>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) context: Option<u64>,
    pub(crate) timeout: Duration,
    pub(crate) idle: Duration,
    pub(crate) attempts: u32,
    pub(crate) backoff: Duration,
    pub(crate) tools: bool,
    pub(crate) sessions: Option<PathBuf>,
}

/// The options. `None` if the arguments ask for the usage.
pub(crate) fn parse(args: Vec<String>) -> Result<Option<Options>, String> {
    parse_all(lexopt::Parser::from_args(args)).map_err(|error| error.to_string())
}

fn parse_all(mut args: lexopt::Parser) -> Result<Option<Options>, lexopt::Error> {
    let (mut url, mut key, mut model) = (None, None, None);
    let mut options = Options {
        url: Address::default(),
        key: None,
        model: String::new(),
        system: None,
        max_tokens: None,
        context: None,
        timeout: Duration::from_secs(3_600),
        idle: Duration::from_secs(120),
        attempts: 4,
        backoff: Duration::from_millis(500),
        tools: true,
        sessions: None,
    };
    while let Some(arg) = args.next()? {
        match arg {
            Long("url") => url = Some(args.value()?.string()?),
            Long("key") => key = Some(args.value()?.string()?),
            Long("model") => model = Some(args.value()?.string()?),
            Long("system") => options.system = Some(args.value()?.string()?),
            Long("max-tokens") => options.max_tokens = Some(args.value()?.parse()?),
            Long("context") => options.context = Some(args.value()?.parse()?),
            Long("timeout") => options.timeout = args.value()?.parse_with(seconds)?,
            Long("idle") => options.idle = args.value()?.parse_with(seconds)?,
            Long("attempts") => options.attempts = args.value()?.parse::<u32>()?.max(1),
            Long("backoff") => options.backoff = args.value()?.parse_with(seconds)?,
            Long("no-tools") => options.tools = false,
            Long("sessions") => options.sessions = Some(args.value()?.into()),
            Long("help") | Short('h') => return Ok(None),
            unknown => return Err(unknown.unexpected()),
        }
    }
    options.url = Address::parse(&or_variable(url, "OPENAI_BASE_URL")?.unwrap_or_else(|| DEFAULT_URL.into()))?;
    options.model = or_variable(model, "OPENAI_MODEL")?.unwrap_or_else(|| DEFAULT_MODEL.into());
    // A key from a file may end with a newline.
    let key = or_variable(key, "OPENAI_API_KEY")?;
    options.key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
    Ok(Some(options))
}

/// The value of the command line, or else of the environment variable. An empty variable counts as absent.
///
/// # Errors
/// Fails if the variable is not UTF-8. Its value may be a key, so the message does not show it.
fn or_variable(given: Option<String>, name: &str) -> Result<Option<String>, String> {
    if given.is_some() {
        return Ok(given);
    }
    match env::var(name) {
        Ok(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8")),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds".into())
}
