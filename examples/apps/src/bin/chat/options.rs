//! The options, from the command line and the environment.

use std::collections::HashSet;
use std::env::{self, VarError};
use std::io::{self, IsTerminal};
use std::time::Duration;

use lexopt::Arg::{Long, Short, Value};
use lexopt::ValueExt;

use crate::address::Address;
use crate::tools::CHANGING;

pub(crate) const USAGE: &str = "\
usage: chat [OPTIONS] [QUESTION]

With a question: prints the answer and ends. Without: a prompt; /help lists what it knows.

  --url URL          the endpoint, up to or with '/chat/completions'; a query is kept
                                                               [OPENAI_BASE_URL, https://api.openai.com/v1]
  --key KEY          the key; better kept in the environment   [OPENAI_API_KEY, none]
  --model NAME       the model                                 [OPENAI_MODEL, gpt-4o-mini]
  --system TEXT      what the assistant is to be
  --max-tokens N     how long an answer may be
  --timeout SECONDS  how long an answer may take, retries and tools included [300]
  --idle SECONDS     how long a server may send nothing of an answer; heartbeats do not count [120]
  --attempts N       how often a request is sent that may well succeed later [4]
  --backoff SECONDS  how long to wait before the second attempt; doubles every time [0.5]
  --no-tools         for models that know no tools
  --allow TOOL       run this tool without asking: write_file or note; may be given several times
  --yes              run all tools without asking

The tools write_file and note change files in the working directory, so the chat asks before it runs them. Without a
terminal on standard input and standard error the chat cannot ask. Then a tool that no option allows is refused, and
the model is told so.
A pause that the server asks for (Retry-After) is made up to 60 seconds; a longer one fails the answer at once.
Proxies are not used, and redirections are not followed.";

const DEFAULT_URL: &str = "https://api.openai.com/v1";
const DEFAULT_MODEL: &str = "gpt-4o-mini";

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) url: Address,
    pub(crate) key: Option<String>,
    pub(crate) model: String,
    pub(crate) system: Option<String>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) timeout: Duration,
    pub(crate) idle: Duration,
    pub(crate) attempts: u32,
    pub(crate) backoff: Duration,
    pub(crate) tools: bool,
    /// The tools that run without a question to the user.
    pub(crate) allow: HashSet<String>,
    /// Whether there is a terminal to ask the user in.
    pub(crate) can_ask: bool,
    pub(crate) question: Option<String>,
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
        timeout: Duration::from_secs(300),
        idle: Duration::from_secs(120),
        attempts: 4,
        backoff: Duration::from_millis(500),
        tools: true,
        allow: HashSet::new(),
        // On other systems no keys are read while an answer is written.
        can_ask: cfg!(unix) && io::stdin().is_terminal() && io::stderr().is_terminal(),
        question: None,
    };
    let mut words = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Long("url") => url = Some(args.value()?.string()?),
            Long("key") => key = Some(args.value()?.string()?),
            Long("model") => model = Some(args.value()?.string()?),
            Long("system") => options.system = Some(args.value()?.string()?),
            Long("max-tokens") => options.max_tokens = Some(args.value()?.parse()?),
            Long("timeout") => options.timeout = args.value()?.parse_with(seconds)?,
            Long("idle") => options.idle = args.value()?.parse_with(seconds)?,
            Long("attempts") => options.attempts = args.value()?.parse::<u32>()?.max(1),
            Long("backoff") => options.backoff = args.value()?.parse_with(seconds)?,
            Long("no-tools") => options.tools = false,
            Long("allow") => _ = options.allow.insert(args.value()?.parse_with(changing)?),
            Long("yes") => options.allow.extend(CHANGING.map(str::to_owned)),
            Long("help") | Short('h') => return Ok(None),
            Value(word) => words.push(word.string()?),
            unknown => return Err(unknown.unexpected()),
        }
    }
    options.url = Address::parse(&or_variable(url, "OPENAI_BASE_URL")?.unwrap_or_else(|| DEFAULT_URL.into()))?;
    options.model = or_variable(model, "OPENAI_MODEL")?.unwrap_or_else(|| DEFAULT_MODEL.into());
    // A key from a file may end with a newline.
    let key = or_variable(key, "OPENAI_API_KEY")?;
    options.key = key.map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
    options.question = (!words.is_empty()).then(|| words.join(" "));
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

/// The name of a tool that needs to be allowed.
fn changing(name: &str) -> Result<String, String> {
    match CHANGING.contains(&name) {
        true => Ok(name.to_owned()),
        false => Err(format!("not one of {}", CHANGING.join(", "))),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds".into())
}
