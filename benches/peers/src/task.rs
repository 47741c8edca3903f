//! The tasks that a workload gives to an agent or an actor.

use std::thread;
use std::time::Duration;

use crate::common::keep_busy;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// No work. The workload measures the round trip.
    Nothing,
    /// Keeps a core busy for this number of microseconds.
    Compute(u64),
    /// Blocks the thread for this number of milliseconds, like a call of a blocking client.
    Block(u64),
    /// Reports that the turn runs, waits for the release, and then waits for this number of milliseconds. A thread
    /// blocks meanwhile, and a task awaits. Only the agents of a [`Service`](crate::peer::Service) do this.
    Hold(u64),
    /// Emits this number of events.
    Emit(u64),
}

impl Task {
    /// The prompt that gives this task to a session.
    pub(crate) fn prompt(self) -> String {
        match self {
            Self::Nothing => String::new(),
            Self::Compute(microseconds) => format!("compute {microseconds}"),
            Self::Block(milliseconds) => format!("block {milliseconds}"),
            Self::Hold(milliseconds) => format!("hold {milliseconds}"),
            Self::Emit(events) => format!("emit {events}"),
        }
    }

    pub(crate) fn of_prompt(prompt: &str) -> Self {
        let (what, number) = prompt.split_once(' ').unwrap_or_default();
        let number = number.parse().unwrap_or(0);
        match what {
            "compute" => Self::Compute(number),
            "block" => Self::Block(number),
            "hold" => Self::Hold(number),
            "emit" => Self::Emit(number),
            _ => Self::Nothing,
        }
    }

    /// Does the tasks that need only a thread.
    pub(crate) fn work(self) {
        match self {
            Self::Compute(microseconds) => keep_busy(Duration::from_micros(microseconds)),
            Self::Block(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
            Self::Nothing | Self::Hold(_) | Self::Emit(_) => {}
        }
    }

    /// Does the same in a task of a runtime. Work that blocks runs in `spawn_blocking`, as users of a runtime must do.
    pub(crate) async fn work_in_a_task(self) {
        match self {
            Self::Block(_) => {
                let blocking = tokio::task::spawn_blocking(move || self.work());
                blocking.await.expect("the work does not panic");
            }
            _ => self.work(),
        }
    }
}
