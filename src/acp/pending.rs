//! The calls to the client that have no reply yet.

use std::collections::BTreeMap;

use agent_client_protocol_schema::v1::{Error, RequestId};
use serde_json::Value;

use crate::model::{InputId, SessionId};
use crate::sync::{Mutex, Sender};

/// The reply of the client to a call.
pub(super) type Reply = Result<Value, Error>;

/// What becomes of a reply.
#[derive(Debug)]
pub(super) enum Waiter {
    /// An agent waits for it. The channel has room for the one reply.
    Call(Sender<Reply>),
    /// It answers the creation of a terminal whose agent does not wait any more: the terminal has to be released.
    AbandonedTerminal { session: SessionId },
    /// It answers an input request of a turn.
    Input { session: SessionId, input: InputId, kind: Asked },
}

/// The method by which the client was asked for input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Permission,
    Elicitation,
}

/// The table of calls, by the number that is the id of the request.
///
/// **Invariant.** A call that is added is taken, removed, or dropped at the end of the connection. Each of them ends the
/// wait of its agent.
#[derive(Debug)]
pub(super) struct PendingCalls {
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    next: i64,
    /// `None` after the end of the connection.
    waiters: Option<BTreeMap<i64, Waiter>>,
}

impl PendingCalls {
    pub(super) fn new() -> Self {
        Self { table: Mutex::new(Table { next: 1, waiters: Some(BTreeMap::new()) }) }
    }

    /// Adds a call, before its request is sent. `None` after the end of the connection.
    pub(super) fn add(&self, waiter: Waiter) -> Option<i64> {
        let mut table = self.table.lock();
        let number = table.next;
        table.waiters.as_mut()?.insert(number, waiter);
        table.next += 1;
        Some(number)
    }

    /// Takes the call that a reply names. `None` for a reply to a call that was never made, or that has ended.
    pub(super) fn take(&self, id: &RequestId) -> Option<Waiter> {
        match id {
            RequestId::Number(number) => self.remove(*number),
            RequestId::Null | RequestId::Str(_) => None,
        }
    }

    /// Removes a call whose reply is not waited for any more. A later reply is ignored.
    pub(super) fn remove(&self, number: i64) -> Option<Waiter> {
        self.table.lock().waiters.as_mut()?.remove(&number)
    }

    /// Replaces the waiter of a call that has no reply yet. Returns whether there was one.
    pub(super) fn replace(&self, number: i64, waiter: Waiter) -> bool {
        let replaced = {
            let mut table = self.table.lock();
            let entry = table.waiters.as_mut().and_then(|waiters| waiters.get_mut(&number));
            entry.map(|entry| std::mem::replace(entry, waiter))
        };
        replaced.is_some()
    }

    /// Ends all waits, and refuses new calls.
    pub(super) fn close(&self) {
        let waiters = self.table.lock().waiters.take();
        drop(waiters);
    }

    /// The number of calls without a reply.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.table.lock().waiters.as_ref().map_or(0, BTreeMap::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::bounded;

    #[test]
    fn a_reply_ends_one_call_and_only_once() {
        let pending = PendingCalls::new();
        let (sender, _reply) = bounded(1);
        let number = pending.add(Waiter::Call(sender)).unwrap();
        assert!(pending.take(&RequestId::Str(number.to_string())).is_none());
        assert!(pending.take(&RequestId::Number(number + 1)).is_none());
        assert!(pending.take(&RequestId::Number(number)).is_some());
        assert!(pending.take(&RequestId::Number(number)).is_none());
        assert_eq!(pending.len(), 0);
    }

    #[test]
    fn the_end_of_the_connection_ends_every_wait() {
        let pending = PendingCalls::new();
        let (sender, reply) = bounded(1);
        pending.add(Waiter::Call(sender)).unwrap();
        pending.close();
        assert!(reply.recv().is_err());
        let (sender, _reply) = bounded(1);
        assert!(pending.add(Waiter::Call(sender)).is_none());
    }
}
