//! The feeds that this client receives, and the threads that read them.

use std::collections::HashMap;

use crate::sync::{Mutex, Sender};

use super::feed::Batch;
use super::subscriptions::FollowMessage;
use super::turn_events::FeedMessage;

/// The reader of a feed. Its channel has no bound of its own: the credit is the bound.
pub(super) enum Reader {
    Turn(Sender<FeedMessage>),
    Session(Sender<FollowMessage>),
}

#[derive(Default)]
pub(super) struct Feeds {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    readers: HashMap<String, Reader>,
    is_closed: bool,
}

impl Feeds {
    /// Enters a feed, before any worker knows it. `false` if the client has ended.
    pub(super) fn enter(&self, feed: String, reader: Reader) -> bool {
        let mut table = self.table.lock();
        if !table.is_closed {
            table.readers.insert(feed, reader);
        }
        !table.is_closed
    }

    pub(super) fn remove(&self, feed: &str) {
        let reader = self.table.lock().readers.remove(feed);
        drop(reader);
    }

    /// Enters the reader of a feed under another name.
    pub(super) fn rename_feed(&self, from: &str, to: String) {
        let mut table = self.table.lock();
        if let Some(reader) = table.readers.remove(from) {
            table.readers.insert(to, reader);
        }
    }

    /// Passes a batch to the reader of its feed. Fails only if the reader has ended.
    pub(super) fn pass(&self, feed: &str, batch: Batch) {
        match self.table.lock().readers.get(feed) {
            Some(Reader::Turn(reader)) => drop(reader.send(FeedMessage::Batch(batch))),
            Some(Reader::Session(reader)) => drop(reader.send(FollowMessage::Batch(batch))),
            None => {}
        }
    }

    /// The client has a new name: workers know feeds of sessions by the old one.
    pub(super) fn rename(&self) {
        for reader in self.table.lock().readers.values() {
            if let Reader::Session(reader) = reader {
                drop(reader.send(FollowMessage::Renamed));
            }
        }
    }

    /// Ends all feeds.
    pub(super) fn close(&self) {
        let readers = {
            let mut table = self.table.lock();
            table.is_closed = true;
            std::mem::take(&mut table.readers)
        };
        drop(readers);
    }

    pub(super) fn count(&self) -> usize {
        self.table.lock().readers.len()
    }
}
