//! What an agent, or an actor, is asked to do.

use std::thread;
use std::time::Duration;

use crate::common::keep_busy;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Task {
    /// Nothing: what is measured is the way there and back.
    Nothing,
    /// Keep a core busy for so many microseconds.
    Compute(u64),
    /// Block the thread for so many milliseconds, as a call of a blocking client would.
    Block(u64),
    /// Say that the turn runs, wait to be released, and then for so many milliseconds: in a thread by blocking, in a task by
    /// awaiting. Only services are asked for it, whose agents do it: see [`Service`](crate::peer::Service).
    Hold(u64),
    /// Emit so many events.
    Emit(u64),
}

impl Task {
    /// Sessions are asked by prompt.
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

    /// What needs nothing but a thread.
    pub(crate) fn work(self) {
        match self {
            Self::Compute(microseconds) => keep_busy(Duration::from_micros(microseconds)),
            Self::Block(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
            Self::Nothing | Self::Hold(_) | Self::Emit(_) => {}
        }
    }

    /// What a task does: work that blocks is moved off the workers, by hand, as their users have to.
    pub(crate) async fn work_in_a_task(self) {
        match self {
            Self::Block(_) => {
                let blocking = tokio::task::spawn_blocking(move || self.work());
                blocking.await.expect("nothing panics in there");
            }
            _ => self.work(),
        }
    }
}
