//! The output of a turn: the answer on standard output, all other messages on standard error.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::RecvTimeoutError;
use turnwise::{AgentEvent, CancelReason, RunResult, SessionError, TurnHandle, TurnStream};
use turnwise_apps::say::{plain, warn, write_out};

use crate::agent::why;

/// The period of the progress sign.
const TICK: Duration = Duration::from_millis(100);
const SIGNS: [char; 4] = ['|', '/', '-', '\\'];

/// Shows a turn until its end.
pub(crate) fn show(stream: TurnStream) -> Result<RunResult, SessionError> {
    let mut screen = Screen::new();
    loop {
        match stream.recv_timeout(TICK) {
            Ok(event) => screen.on_event(event),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        screen.on_time();
    }
    screen.end_line();
    let result = stream.wait()?;
    if !why(Some(result.stop_reason)).is_empty() {
        screen.note(&format!("the answer is cut off{}", why(Some(result.stop_reason))));
    }
    Ok(result)
}

/// Waits for a turn without a receiver of events.
pub(crate) fn wait(mut turn: TurnHandle) -> Result<RunResult, SessionError> {
    let mut screen = Screen::new();
    loop {
        if let Some(result) = turn.wait_timeout(TICK) {
            screen.clear_sign();
            return result;
        }
        screen.on_time();
    }
}

/// The state of the terminal. A failure to write the answer ends the program. A failure to write anything else is
/// ignored.
struct Screen {
    begun: Instant,
    /// The time of the last output.
    shown: Instant,
    ticks: usize,
    /// Whether standard error is a terminal, which can show progress.
    is_watched: bool,
    /// Whether the progress sign is visible.
    shows_sign: bool,
    /// Whether the cursor is in a line of the answer.
    in_line: bool,
}

impl Screen {
    fn new() -> Self {
        let is_watched = io::stderr().is_terminal();
        let now = Instant::now();
        Self { begun: now, shown: now, ticks: 0, is_watched, shows_sign: false, in_line: false }
    }

    fn on_event(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::TextDelta { delta } => self.text(&delta),
            AgentEvent::ToolExecutionCompleted { name, result, is_error, .. } => {
                let failed = if is_error { "failed: " } else { "" };
                self.note(&format!("{name}: {failed}{result}"));
            }
            AgentEvent::Retrying { attempt, max_attempts, error, delay_ms } => {
                let delay = Duration::from_millis(delay_ms);
                self.note(&format!("{error}; attempt {} of {max_attempts} in {delay:?}", attempt + 1));
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        self.clear_sign();
        write_out(without_controls(text).as_bytes());
        self.in_line = !text.ends_with('\n');
    }

    fn note(&mut self, text: &str) {
        self.clear_sign();
        self.end_line();
        warn(format_args!("[{}]", without_controls(text)));
    }

    /// Shows progress if there was no output for a while, since a model may think for long.
    fn on_time(&mut self) {
        if self.shown.elapsed() < TICK {
            return;
        }
        self.shown = Instant::now();
        self.ticks += 1;
        // In a line of the answer the sign would overwrite text.
        if self.is_watched && !self.in_line {
            let sign = SIGNS[self.ticks % SIGNS.len()];
            let mut err = io::stderr().lock();
            let _ = write!(err, "\r{sign} {} s", self.begun.elapsed().as_secs()).and_then(|()| err.flush());
            self.shows_sign = true;
        }
    }

    fn clear_sign(&mut self) {
        self.shown = Instant::now();
        if std::mem::take(&mut self.shows_sign) {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn end_line(&mut self) {
        self.clear_sign();
        if std::mem::take(&mut self.in_line) {
            write_out(b"\n");
        }
    }
}

/// The text of a model or a server without characters that control a terminal. Carriage returns are removed, not
/// replaced, because some models and servers end their lines with them.
pub(crate) fn without_controls(text: &str) -> String {
    plain(&text.replace('\r', ""))
}

/// The error in the words of conversations.
pub(crate) fn explain(error: &SessionError) -> String {
    match error.cancel_reason() {
        Some(CancelReason::Interrupted | CancelReason::Archived) => return "interrupted".into(),
        Some(CancelReason::DeadlineExceeded) => return "stopped: that took too long (--timeout)".into(),
        Some(reason) => return format!("stopped: {reason}"),
        None => {}
    }
    if let Some(error) = error.agent_error() {
        return format!("error: {}", without_controls(&error.to_string()));
    }
    match error {
        SessionError::Busy { .. } | SessionError::Timeout { .. } => {
            "error: that conversation is still being answered; /stop ends it".into()
        }
        SessionError::NotRunning { .. } => "error: that conversation is not being answered".into(),
        other => format!("error: {other}"),
    }
}
