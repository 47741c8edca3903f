//! The question whether a tool may run: the request of the agent, its form for the user, and the answers.

use turnwise::{InputRequest, InputResponse};

/// The answers of a request.
pub(crate) const ONCE: &str = "once";
pub(crate) const ALWAYS: &str = "always";
pub(crate) const NO: &str = "no";

/// The keys, for a user that has given another answer.
pub(crate) const KEYS: &str = "y, a, n, or n and the reason";

/// The request of a tool to do what `what` says.
pub(crate) fn request(tool: &str, what: &str) -> InputRequest {
    InputRequest::new("permission", format!("{tool} asks to {what}"))
        .option(ONCE, "once")
        .option(ALWAYS, "always in this conversation")
        .option(NO, "no")
}

/// The request for the user: what would be done, and the keys of the answers.
pub(crate) fn shown(request: &InputRequest) -> String {
    let (what, text) = request.message.split_once('\n').unwrap_or((&request.message, ""));
    let key = |id: &str| if id == ONCE { 'y' } else { id.chars().next().unwrap_or(' ') };
    let keys: Vec<_> = request.options.iter().map(|option| format!("{}: {}", key(&option.id), option.label)).collect();
    let separator = if text.is_empty() { "" } else { "\n" };
    format!("[{what}]\n{text}{separator}[{}]", keys.join(", "))
}

/// The response that a line stands for. `None` if it is no answer.
pub(crate) fn response(line: &str) -> Option<InputResponse> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let answer = match word.to_lowercase().as_str() {
        "y" | "yes" | ONCE => ONCE,
        "a" | ALWAYS => ALWAYS,
        "n" | NO if !rest.is_empty() => {
            return Some(InputResponse::Declined { reason: Some(rest.trim().to_owned()) });
        }
        "n" | NO => NO,
        _ => return None,
    };
    rest.is_empty().then(|| InputResponse::Answer(answer.into()))
}
