//! The settings of a service, and their limits.

use std::time::Duration;

use crate::error::ConfigError;
use crate::ids::Ids;
use crate::service::RestartPolicy;
use crate::time::clock::Clock;

/// More threads than a process can have on any supported system. (Linux: `PID_MAX_LIMIT`, 2²² on 64 bits.)
pub(crate) const MAX_THREADS: usize = 1 << 22;
const DEFAULT_MAX_SESSIONS: usize = 64;
const DEFAULT_INBOX_CAPACITY: usize = 256;
const DEFAULT_TURN_QUEUE: usize = 16;
/// A caller that creates one session after the other uses two threads in turn. A few more serve several such callers.
const DEFAULT_IDLE_THREADS: usize = 4;
/// No session processes more than that: a larger figure is a mistake.
const MAX_QUEUE: usize = 1 << 24;
/// A session with a trivial agent takes 40 KiB on x86-64 Linux, and 48 if a panic prints its backtrace;
/// `tests/faults/stacks.rs` measures both. With less, the program would end with a stack overflow instead of an error.
pub(super) const MIN_STACK: usize = 64 << 10;
const MAX_STACK: usize = 1 << 30;

/// The settings of a service, without its builder.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) max_sessions: usize,
    pub(crate) max_running_turns: Option<usize>,
    pub(crate) stack_size: Option<usize>,
    pub(crate) thread_name_prefix: String,
    pub(crate) idle_threads: usize,
    pub(crate) inbox_capacity: usize,
    pub(crate) event_history: usize,
    pub(crate) turn_queue: usize,
    pub(crate) restart_faulted: Option<RestartPolicy>,
    pub(crate) unload: UnloadSettings,
    pub(crate) clock: Clock,
    pub(crate) ids: Ids,
}

/// When idle sessions are unloaded. Only a service that keeps its sessions has settings other than the defaults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct UnloadSettings {
    /// After this time without a turn.
    pub(crate) idle_after: Option<Duration>,
    /// When another session needs the capacity.
    pub(crate) when_full: bool,
    /// How long a caller waits for the end of a session that is unloaded. `None` for without a limit.
    #[cfg(feature = "store")]
    pub(crate) patience: Option<Duration>,
}

impl UnloadSettings {
    /// Whether a session may be unloaded at all.
    pub(crate) fn is_on(self) -> bool {
        self.idle_after.is_some() || self.when_full
    }

    /// The longest wait for the end of a session that is unloaded.
    #[cfg(feature = "store")]
    pub(crate) fn patience(self) -> Duration {
        self.patience.unwrap_or(Duration::MAX)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_sessions: DEFAULT_MAX_SESSIONS,
            max_running_turns: None,
            stack_size: None,
            thread_name_prefix: "turnwise".to_owned(),
            idle_threads: DEFAULT_IDLE_THREADS,
            inbox_capacity: DEFAULT_INBOX_CAPACITY,
            event_history: 0,
            turn_queue: DEFAULT_TURN_QUEUE,
            restart_faulted: None,
            unload: UnloadSettings::default(),
            clock: Clock::System,
            ids: Ids::System,
        }
    }
}

impl Settings {
    pub(super) fn check(&self, min_stack: usize) -> Result<(), ConfigError> {
        in_range("max_sessions", self.max_sessions, 0, MAX_THREADS)?;
        in_range("idle_threads", self.idle_threads, 0, MAX_THREADS)?;
        in_range("max_running_turns", self.max_running_turns.unwrap_or(1), 1, MAX_THREADS)?;
        in_range("stack_size", self.stack_size.unwrap_or(min_stack), min_stack, MAX_STACK)?;
        in_range("inbox_capacity", self.inbox_capacity, 0, MAX_QUEUE)?;
        in_range("event_history", self.event_history, 0, MAX_QUEUE)?;
        in_range("turn_queue", self.turn_queue, 0, MAX_QUEUE)?;
        if let Some(RestartPolicy { max, within }) = self.restart_faulted {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            in_range("restart_faulted", max, 1, usize::MAX)?;
            // Every restart would leave the count at once, so there would be no limit.
            if within.is_zero() {
                return Err(ConfigError::ZeroDuration { option: "restart_faulted" });
            }
        }
        // A session would be unloaded after each turn, before its caller could begin the next one.
        if self.unload.idle_after.is_some_and(|after| after.is_zero()) {
            return Err(ConfigError::ZeroDuration { option: "unload_idle_after" });
        }
        if self.thread_name_prefix.contains('\0') {
            return Err(ConfigError::ThreadName);
        }
        Ok(())
    }
}

fn in_range(option: &'static str, value: usize, min: usize, max: usize) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(ConfigError::OutOfRange { option, value, min, max })
    }
}
