//! The output of cells: their output and values on standard output, all other messages on standard error.

use turnwise::{AgentEvent, CancelReason, RunResult, SessionError, TurnStream};
use turnwise_apps::say::{say, warn};

/// A line of text.
pub(crate) enum Line<'a> {
    /// A line of a cell's output or value.
    Output(&'a str),
    /// A line of a failure's message.
    Trouble(&'a str),
}

/// Shows a cell's stream until its end. Returns whether the cell succeeded.
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

/// Shows lines on the program's own output, after `prefix`.
pub(crate) fn to_terminal(prefix: &str) -> impl FnMut(Line<'_>) + '_ {
    // Each call prints a whole line, so that concurrent kernels do not mix within a line.
    move |line| match line {
        Line::Output(text) => say(format_args!("{prefix}{text}")),
        Line::Trouble(text) => warn(format_args!("{prefix}{text}")),
    }
}

/// The error in the words of cells and kernels.
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
