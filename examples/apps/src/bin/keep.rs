//! Kept ledgers: every ledger is a session, every entry is a turn, and every answered entry is in the file.
//!
//! ```text
//! keep FILE                        list the ledgers in a file, with their totals keep FILE LEDGER                 show
//! the entries of a ledger keep FILE LEDGER AMOUNT WHAT...  add an entry: keep household.redb kitchen 12.50 a new pan
//! keep FILE LEDGER -               add each line of standard input keep FILE --archive LEDGER       close a ledger: it
//! can be read, and takes no more entries keep FILE --delete LEDGER        delete a ledger
//! ```
//!
//! Each command is a process of its own, and finds the entries of the earlier ones. Kill it (`kill -9`) while it adds
//! thousands of lines: every answered line is in the file afterwards, and no line is there in part.
//!
//! Names and entries are kept unchanged, and shown without characters that control a terminal.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use turnwise::store::{FileStore, PersistentSessionService};
use turnwise::{
    AgentError, Message, RunResult, Session, SessionAgent, SessionAgentBuilder, SessionContext, SessionError,
    SessionId, SessionQuery, SessionService, SessionSpec, StartTurnRequest, TurnContext,
};
use turnwise_apps::{
    args,
    say::{plain_line, say, warn},
};

/// The label with the name of a ledger. Sessions are found by it.
const NAME: &str = "ledger";
const USAGE: &str = "usage: keep FILE [LEDGER [AMOUNT WHAT... | -] | --archive LEDGER | --delete LEDGER]";
/// How long turns may take to end at the end of the program.
const GRACE: Duration = Duration::from_secs(5);

/// An agent that adds up entries.
struct Ledger {
    history: Session,
    /// The total in cents. It is not kept: like all state of an agent, it follows from the history.
    total: i64,
}

struct Ledgers;

impl SessionAgentBuilder for Ledgers {
    type Agent = Ledger;

    fn build_agent(&self, spec: &SessionSpec, _: &SessionContext) -> Result<Ledger, AgentError> {
        let history = spec.history();
        let mut total = 0;
        for entry in entries(&history) {
            total = add(total, parse(entry)?.0)?;
        }
        Ok(Ledger { history, total })
    }
}

impl SessionAgent for Ledger {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let (amount, what) = parse(&prompt)?;
        let total = add(self.total, amount)?;
        let answer = format!("{what}: {}, {} in all", money(amount), money(total));
        // No step can fail from here on, so total and history change together.
        self.total = total;
        self.history.push_batch([Message::user(prompt), Message::assistant(answer.as_str())]);
        Ok(turn.finish(answer))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

fn entries(history: &Session) -> impl Iterator<Item = &str> {
    history.messages().iter().filter_map(|message| match message {
        Message::User { content } => Some(content.as_str()),
        _ => None,
    })
}

/// The amount of an entry in cents, and its description.
fn parse(entry: &str) -> Result<(i64, &str), AgentError> {
    let (amount, what) = entry.trim().split_once(char::is_whitespace).unwrap_or((entry.trim(), "something"));
    let wrong = || AgentError::Config(format!("'{amount}' is no amount, such as 12.50 or -3"));
    let (is_negative, digits) = amount.strip_prefix('-').map_or((false, amount), |digits| (true, digits));
    let (whole, cents) = digits.split_once('.').unwrap_or((digits, "00"));
    if cents.len() != 2
        || ![whole, cents].iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(wrong());
    }
    let amount: i64 = format!("{whole}{cents}").parse().map_err(|_| wrong())?;
    Ok((if is_negative { -amount } else { amount }, what.trim()))
}

fn add(total: i64, amount: i64) -> Result<i64, AgentError> {
    total.checked_add(amount).ok_or_else(|| AgentError::Config("more than a ledger can hold".into()))
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}

type Service = PersistentSessionService<Ledgers>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            warn(message);
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), String> {
    let args: Vec<OsString> = args::all().collect();
    // A file name need not be UTF-8.
    let [file, rest @ ..] = args.as_slice() else { return Err(USAGE.into()) };
    if file.to_str().is_some_and(|file| file.starts_with("--")) {
        return Err(USAGE.into());
    }
    let rest = rest.iter().map(|arg| args::text(arg)).collect::<Result<Vec<_>, _>>()?;
    let store = FileStore::open(file).map_err(|error| format!("{}: {error}", Path::new(file).display()))?;
    // One live session is enough here. A server would keep as many live as fit in its memory, and unload the idle ones.
    let service = PersistentSessionService::new(Ledgers, 1, store);
    let done = match rest[..] {
        [] => list(&service),
        ["--archive", name] => find(&service, name).and_then(|id| service.archive(id).map_err(explain)),
        ["--delete", name] => find(&service, name).and_then(|id| service.delete(id).map_err(explain)),
        [option, ..] if option.starts_with("--") => Err(USAGE.into()),
        [name] => show(&service, name),
        [name, "-"] => enter_lines(&service, name),
        [name, ref entry @ ..] => enter(&service, name, &entry.join(" ")),
    };
    let stuck = service.shutdown(GRACE).stuck;
    debug_assert!(stuck.is_empty(), "ledgers have no turns that last");
    done
}

fn list(service: &Service) -> Result<(), String> {
    let open = service.list(SessionQuery::new()).map_err(explain)?;
    let closed = service.list_archived(SessionQuery::new()).map_err(explain)?;
    for line in open.iter().chain(&closed) {
        let history = service.export_session(line.session_id).map_err(explain)?;
        let total: i64 = entries(&history).filter_map(|entry| parse(entry).ok()).map(|(amount, _)| amount).sum();
        let name = plain_line(line.labels.get(NAME).map_or("?", String::as_str));
        say(format_args!("{name:<16} {:>12}  {:>5} entries  {}", money(total), line.message_count / 2, line.state));
    }
    Ok(())
}

fn show(service: &Service, name: &str) -> Result<(), String> {
    let history = service.export_session(find(service, name)?).map_err(explain)?;
    entries(&history).for_each(say);
    if let Some(last) = history.last_assistant_text() {
        say(format_args!("= {last}"));
    }
    Ok(())
}

/// Adds one entry. Its answer is printed after the entry is in the file.
fn enter(service: &Service, name: &str, entry: &str) -> Result<(), String> {
    let id = find_or_open(service, name)?;
    let result = service.start_turn(id, StartTurnRequest::new(entry)).map_err(explain)?;
    say(result.text);
    Ok(())
}

fn enter_lines(service: &Service, name: &str) -> Result<(), String> {
    let id = find_or_open(service, name)?;
    for line in io::stdin().lock().lines() {
        let line = line.map_err(|error| format!("standard input: {error}"))?;
        if line.trim().is_empty() {
            continue;
        }
        let result = service.start_turn(id, StartTurnRequest::new(line)).map_err(explain)?;
        say(result.text);
    }
    Ok(())
}

fn find(service: &Service, name: &str) -> Result<SessionId, String> {
    look_for(service, name)?.ok_or_else(|| format!("there is no ledger '{}'", plain_line(name)))
}

fn look_for(service: &Service, name: &str) -> Result<Option<SessionId>, String> {
    let query = || SessionQuery::new().label(NAME, name).limit(1);
    let mut found = service.list(query()).map_err(explain)?;
    if found.is_empty() {
        found = service.list_archived(query()).map_err(explain)?;
    }
    Ok(found.first().map(|line| line.session_id))
}

/// Finds a ledger, or creates it. An archived ledger keeps its name.
fn find_or_open(service: &Service, name: &str) -> Result<SessionId, String> {
    match look_for(service, name)? {
        Some(id) => Ok(id),
        None => service.open_session(SessionSpec::new().label(NAME, name)).map_err(explain),
    }
}

/// The error in the words of ledgers, for a user who need not know sessions.
fn explain(error: SessionError) -> String {
    match error {
        SessionError::Archived { .. } => "this ledger is closed".into(),
        error => error.agent_error().map_or_else(|| error.to_string(), ToString::to_string),
    }
}
