//! The thread that watches the queues of a service for its descriptor.
//!
//! It takes no event. It waits until a watched channel is ready, marks that channel's source as ready, and watches it
//! again when the reader has emptied it. So a burst of events costs one wake-up of this thread. A wake-up costs time
//! proportional to the number of sources, because the thread selects over all of them.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Select};
use library::{AgentEvent, SessionEvent};

use super::notifier::{Shared, SourceId};

/// A channel that the thread watches.
#[derive(Clone, Debug)]
pub(super) enum Watched {
    /// The events of a turn or an interaction. Disconnects at the end.
    Events(Receiver<AgentEvent>),
    /// The events of a subscription. Disconnects at the end.
    Subscription(Receiver<SessionEvent>),
    /// The end of a turn: disconnects.
    Finished(Receiver<Infallible>),
}

impl Watched {
    fn add_to<'a>(&'a self, select: &mut Select<'a>) {
        match self {
            Self::Events(events) => select.recv(events),
            Self::Subscription(events) => select.recv(events),
            Self::Finished(finished) => select.recv(finished),
        };
    }
}

/// A message to the thread.
#[derive(Debug)]
pub(super) enum Control {
    /// Watches a channel. The source is not ready.
    Watch(SourceId, Watched),
    /// Watches a channel that was ready again.
    Rearm(SourceId),
    /// Forgets a source, and drops its channel.
    Forget(SourceId),
}

/// Runs until the sender of `control` is dropped.
pub(super) fn run(control: &Receiver<Control>, shared: &Arc<Shared>) {
    let mut armed: Vec<(SourceId, Watched)> = Vec::new();
    let mut ready: HashMap<SourceId, Watched> = HashMap::new();
    loop {
        let index = {
            let mut select = Select::new();
            select.recv(control);
            armed.iter().for_each(|(_, watched)| watched.add_to(&mut select));
            select.ready()
        };
        match index.checked_sub(1) {
            Some(index) => {
                let (id, watched) = armed.swap_remove(index);
                shared.set_ready(id);
                ready.insert(id, watched);
            }
            None => loop {
                match control.try_recv() {
                    Ok(Control::Watch(id, watched)) => {
                        armed.retain(|(other, _)| *other != id);
                        ready.remove(&id);
                        armed.push((id, watched));
                    }
                    Ok(Control::Rearm(id)) => armed.extend(ready.remove(&id).map(|watched| (id, watched))),
                    Ok(Control::Forget(id)) => {
                        armed.retain(|(other, _)| *other != id);
                        ready.remove(&id);
                        shared.clear(id);
                    }
                    Err(error) if error.is_empty() => break,
                    Err(_) => return,
                }
            },
        }
    }
}
