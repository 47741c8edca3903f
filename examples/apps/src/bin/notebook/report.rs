//! How cells are shown: output and values on standard output, everything else on standard error.

use turnwise::{AgentEvent, CancelReason, RunResult, SessionError, TurnStream};
use turnwise_apps::say::{say, warn};

/// A line to show.
pub(crate) enum Line<'a> {
    /// Of a cell's output, or its value.
    Output(&'a str),
    /// Of what went wrong.
    Trouble(&'a str),
}

/// Runs a cell's stream to its end, showing what it prints as it comes. Whether it ended well.
pub(crate) fn show(mut stream: TurnStream, to: &mut dyn FnMut(Line<'_>)) -> bool {
    show_output(&mut stream, to);
    let result = stream.wait();
    show_result(&result, to);
    result.is_ok()
}

pub(crate) fn show_output(events: impl Iterator<Item = AgentEvent>, to: &mut dyn FnMut(Line<'_>)) {
    for event in events {
        if let AgentEvent::TextDelta { delta } = event {
            delta.lines().for_each(|line| to(Line::Output(line)));
        }
    }
}

pub(crate) fn show_result(result: &Result<RunResult, SessionError>, to: &mut dyn FnMut(Line<'_>)) {
    match result {
        Ok(result) if result.text.is_empty() => {}
        Ok(result) => format!("= {}", result.text).lines().for_each(|line| to(Line::Output(line))),
        Err(error) => to(Line::Trouble(&explain(error))),
    }
}

/// Shows lines where the program's own output goes, behind `prefix`.
pub(crate) fn to_terminal(prefix: &str) -> impl FnMut(Line<'_>) + '_ {
    // A whole line at a time, so that kernels that print at the same time do not mix within a line.
    move |line| match line {
        Line::Output(text) => say(format_args!("{prefix}{text}")),
        Line::Trouble(text) => warn(format_args!("{prefix}{text}")),
    }
}

/// What went wrong, without the library's view of it.
pub(crate) fn explain(error: &SessionError) -> String {
    match error.cancel_reason() {
        Some(CancelReason::Interrupted | CancelReason::Archived) => return "interrupted".into(),
        Some(CancelReason::DeadlineExceeded) => return "stopped: the cell's time limit is over".into(),
        Some(reason) => return format!("stopped: {reason}"),
        None => {}
    }
    if let Some(error) = error.agent_error() {
        return format!("error: {error}");
    }
    match error {
        SessionError::Busy { .. } | SessionError::Timeout { .. } => {
            "error: that kernel is running a cell; :interrupt stops it".into()
        }
        SessionError::NotRunning { .. } => "error: that kernel is not running a cell".into(),
        other => format!("error: {other}"),
    }
}
