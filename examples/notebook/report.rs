//! How cells are shown: output and values on standard output, everything else on standard error.

use std::io::{self, Write};

use turnwise::{AgentEvent, BuildError, CancelReason, RunResult, SessionError, TurnStream};

/// Runs a cell's stream to its end, showing what it prints as it comes. Whether it ended well.
pub(crate) fn show(mut stream: TurnStream, prefix: &str) -> bool {
    for event in &mut stream {
        if let AgentEvent::TextDelta { delta } = event {
            write_lines(prefix, &delta);
        }
    }
    show_result(&stream.wait(), prefix)
}

/// Shows how a cell ended. Whether it ended well.
pub(crate) fn show_result(result: &Result<RunResult, SessionError>, prefix: &str) -> bool {
    match result {
        Ok(result) if result.text.is_empty() => {}
        Ok(result) => write_lines(prefix, &format!("= {}\n", result.text)),
        Err(error) => eprintln!("{prefix}{}", explain(error)),
    }
    result.is_ok()
}

/// What went wrong, without the library's view of it.
pub(crate) fn explain(error: &SessionError) -> String {
    match error.cancel_reason() {
        Some(CancelReason::Interrupted) => return "interrupted".into(),
        Some(CancelReason::DeadlineExceeded) => return "stopped: the cell's time limit is over".into(),
        Some(reason) => return format!("stopped: {reason}"),
        None => {}
    }
    match error {
        SessionError::Agent { source, .. } | SessionError::Build { source: BuildError::Agent(source), .. } => {
            format!("error: {source}")
        }
        SessionError::Busy { .. } => "error: that kernel is running a cell; :interrupt stops it".into(),
        other => format!("error: {other}"),
    }
}

/// Whole lines at a time, so that kernels that print at the same time do not mix within a line.
fn write_lines(prefix: &str, text: &str) {
    let mut out = io::stdout().lock();
    for line in text.lines() {
        // Nobody reads on: nothing can be said about it.
        let _ = writeln!(out, "{prefix}{line}");
    }
    let _ = out.flush();
}
