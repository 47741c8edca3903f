//! The part of the model about clients: their leases, their streams, and the feeds that they read.

use std::collections::BTreeMap;

use super::{owned, say, Model, Stream};
use crate::scripts::resp::Value;

/// A client that has a lease.
pub(super) struct Client {
    pub(super) lease: u64,
    /// The entries of its stream.
    pub(super) told: Stream,
    /// By the feed and its epoch: up to which sum of costs the client takes events, or 'closed'.
    pub(super) credit: BTreeMap<String, String>,
}

/// A feed with all events of a session.
pub(super) struct Feed {
    pub(super) name: String,
    pub(super) cid: String,
    pub(super) options: String,
}

impl Model {
    pub(super) fn enrol_client(&mut self, cid: &str, lease: &str) -> Value {
        let told = vec![owned(&["enrolled", cid])];
        let client = Client { lease: lease.parse().unwrap(), told, credit: BTreeMap::new() };
        self.clients.entry(cid.into()).or_insert(client);
        Value::ok()
    }

    /// Sends a message to a client. Returns whether the client is there.
    pub(super) fn tell(&mut self, cid: &str, words: &[&str]) -> bool {
        let client = self.clients.get_mut(cid);
        client.map(|client| client.told.push(owned(words))).is_some()
    }

    pub(super) fn follow(&mut self, id: &str, cid: &str, feed: &str, options: &str) -> Value {
        let is_there = self.settle_owner(id);
        if options.is_empty() {
            self.note(feed, id, None, "closed");
        } else if self.is_known(feed, "closed") {
            return say(["closed"]);
        }
        if !is_there {
            return say(["missing"]);
        }
        let session = self.sessions.get_mut(id).unwrap();
        if options.is_empty() {
            let feeds = session.feeds.as_mut();
            let at = feeds.as_ref().and_then(|feeds| feeds.iter().position(|other| other.name == feed));
            if let (Some(feeds), Some(at)) = (feeds, at) {
                feeds.remove(at);
                self.wake_owner(id);
            }
            return Value::ok();
        } else if session.is_archived() {
            return say(["archived"]);
        }
        let feeds = session.feeds.get_or_insert_default();
        if !feeds.iter().any(|other| other.name == feed) {
            feeds.push(Feed { name: feed.into(), cid: cid.into(), options: options.into() });
        }
        self.wake_owner(id);
        Value::ok()
    }

    /// Events of this epoch may be missing.
    pub(super) fn tell_gap(&mut self, id: &str) {
        let session = &self.sessions[id];
        let epoch = session.epoch.to_string();
        let feeds = session.feeds.iter().flatten();
        let of: Vec<_> = feeds.map(|feed| (feed.name.clone(), feed.cid.clone())).collect();
        for (name, cid) in of {
            let first = (1_u64 << 53).to_string();
            let entry = ["events", &name, "epoch", &epoch, "first", &first, "count", "0", "last", "gap", "body", "[]"];
            self.tell(&cid, &entry);
        }
    }

    /// No events of the session follow.
    pub(super) fn end_feeds(&mut self, id: &str) {
        let session = self.sessions.get_mut(id).unwrap();
        let epoch = session.epoch.to_string();
        for Feed { name, cid, .. } in session.feeds.take().unwrap_or_default() {
            let entry = ["events", &name, "epoch", &epoch, "first", "0", "count", "0", "last", "1", "body", "[]"];
            self.tell(&cid, &entry);
        }
    }

    pub(super) fn credit(&mut self, id: &str, cid: &str, feed: &str, sum: &str) -> Value {
        let Some(client) = self.clients.get_mut(cid) else { return say(["over"]) };
        if sum.is_empty() {
            client.credit.remove(feed);
            return Value::ok();
        }
        let is_more = match client.credit.get(feed).map(String::as_str) {
            None => true,
            Some("closed") => false,
            Some(last) => sum == "closed" || last.parse::<u64>().unwrap() < sum.parse().unwrap(),
        };
        if is_more {
            client.credit.insert(feed.into(), sum.into());
            let wid = self.sessions.get(id).map(|session| session.wid().to_owned()).unwrap_or_default();
            if self.has_lease(&wid) {
                self.wake(&wid, id, &["feed", feed, "credit", sum]);
            }
        }
        Value::ok()
    }

    pub(super) fn emit(&mut self, cid: &str, feed: &str, epoch: &str, part: [&str; 3], body: &str) -> Value {
        let [first, count, last] = part;
        let Some(client) = self.clients.get_mut(cid) else { return say(["gone"]) };
        let credit = client.credit.get(&format!("{feed}:{epoch}")).cloned().unwrap_or_default();
        if credit == "closed" {
            return say(["gone"]);
        }
        if count != "0" || last != "0" {
            let entry = ["events", feed, "epoch", epoch, "first", first, "count", count, "last", last, "body", body];
            client.told.push(owned(&entry));
        }
        if last == "1" {
            client.credit.remove(&format!("{feed}:{epoch}"));
        }
        say(["ok", &credit])
    }
}
