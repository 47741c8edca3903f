//! The keys and fields that the server must have.

use std::collections::{BTreeMap, BTreeSet};

use super::super::resp::{Dump, EXPIRES};
use super::{Input, Model, Session};

/// How long the verdict of a request is kept, in milliseconds.
const VERDICT_TTL: u64 = 600_000;

/// The mark of a key that expires, by its time to live in milliseconds.
fn expires(ttl: u64) -> BTreeMap<String, String> {
    BTreeMap::from([(EXPIRES.to_owned(), ttl.div_ceil(600_000).to_string())])
}

impl Model {
    /// The keys that the server must have, and no others.
    pub(crate) fn dump(&self) -> Dump {
        let mut dump = Dump::new();
        let names = |names: BTreeSet<String>| names.into_iter().map(|name| (name, String::new())).collect();
        for (cid, client) in &self.clients {
            dump.insert(format!("c:{cid}"), expires(client.lease));
            dump.insert(format!("c:{cid}:l"), expires(client.lease));
            if !client.credit.is_empty() {
                let mut fields = expires(client.lease);
                fields.extend(client.credit.clone());
                dump.insert(format!("c:{cid}:f"), fields);
            }
        }
        if self.epoch > 0 {
            dump.insert("epoch".into(), BTreeMap::new());
        }
        if self.answers > 0 {
            dump.insert("answers".into(), BTreeMap::new());
        }
        if !self.workers.is_empty() {
            dump.insert("workers".into(), names(self.workers.keys().cloned().collect()));
        }
        for (wid, worker) in &self.workers {
            dump.insert(format!("w:{wid}:q"), BTreeMap::new());
            if worker.has_lease {
                dump.insert(format!("w:{wid}:l"), expires(worker.lease));
            }
            let own = || self.sessions.iter().filter(|(_, session)| session.wid() == wid);
            let all: BTreeSet<String> = own().map(|(id, _)| id.clone()).collect();
            let is_busy = |session: &Session| !session.flight.is_empty();
            let busy: BTreeSet<String> =
                own().filter(|(_, session)| is_busy(session)).map(|(id, _)| id.clone()).collect();
            for (name, ids) in [("s", all), ("b", busy)] {
                if !ids.is_empty() {
                    dump.insert(format!("w:{wid}:{name}"), names(ids));
                }
            }
        }
        for (request, known) in &self.requests {
            let mut fields = expires(VERDICT_TTL);
            fields.insert("id".into(), known.id.clone());
            fields.extend(known.turn.map(|turn| ("turn".to_owned(), turn.to_string())));
            fields.extend(known.kind.map(|kind| ("kind".to_owned(), kind.to_owned())));
            if let Some((body, answers)) = &known.verdict {
                fields.extend([("body".to_owned(), body.clone()), ("answers".to_owned(), answers.to_string())]);
            }
            dump.insert(format!("req:{request}"), fields);
        }
        let kept: BTreeSet<String> =
            self.sessions.iter().filter(|(_, session)| session.record.is_some()).map(|(id, _)| id.clone()).collect();
        if !kept.is_empty() {
            dump.insert("idx".into(), names(kept));
        }
        for (id, session) in &self.sessions {
            dump.insert(format!("s:{id}"), session.fields());
            if session.record.as_ref().is_some_and(|record| !record.messages.is_empty()) {
                dump.insert(format!("s:{id}:h"), BTreeMap::new());
            }
        }
        dump
    }
}

impl Session {
    /// The fields of the session's hash.
    fn fields(&self) -> BTreeMap<String, String> {
        let mut fields: BTreeMap<String, String> = BTreeMap::new();
        let mut set = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                fields.insert(name.into(), value);
            }
        };
        set("made", Some("1".into()));
        set("wid", self.wid.clone());
        set("epoch", (self.epoch > 0).then(|| self.epoch.to_string()));
        set("turn", self.turn.map(|turn| turn.to_string()));
        set("answers", self.answers.map(|answers| answers.to_string()));
        set("flight", self.has_flown.then(|| self.numbers()));
        set("labels", self.labels.clone());
        set("archived", self.archived.clone());
        set("fault", self.fault.clone());
        if let Some(feeds) = &self.feeds {
            let names: Vec<&str> = feeds.iter().map(|feed| feed.name.as_str()).collect();
            set("feeds", Some(names.join(" ")));
            for feed in feeds {
                set(&format!("f:{}", feed.name), Some(feed.options.clone()));
                set(&format!("f:{}:cid", feed.name), Some(feed.cid.clone()));
            }
        }
        if let Some(record) = &self.record {
            set("rev", record.past.last().cloned());
            set("past", Some(record.past.join(" ")));
            set("head", Some(record.header.clone()));
            set("sum", Some(record.summary.clone()));
        }
        for turn in &self.flight {
            let of = format!("t:{}:", turn.number);
            set(&format!("{of}req"), Some(turn.request.clone()));
            set(&format!("{of}cid"), Some(turn.cids.join(" ")));
            set(&format!("{of}body"), Some(turn.body.clone()));
            set(&format!("{of}cancel"), turn.cancel.clone());
            let inputs: Vec<&str> = turn.inputs.iter().map(|(input, _)| input.as_str()).collect();
            set(&format!("{of}in"), (!inputs.is_empty()).then(|| inputs.join(" ")));
            for (input, state) in &turn.inputs {
                match state {
                    Input::Pending { options } => {
                        set(&format!("i:{input}"), Some("question".into()));
                        set(&format!("i:{input}:opt"), (!options.is_empty()).then(|| options.clone()));
                    }
                    Input::Settled(response) => set(&format!("r:{input}"), Some(response.clone())),
                    Input::Cancelled => {}
                }
            }
            let messages: Vec<&str> = turn.messages.iter().map(|[request, ..]| request.as_str()).collect();
            set(&format!("{of}msg"), (!messages.is_empty()).then(|| messages.join(" ")));
            for [request, cid, text] in &turn.messages {
                set(&format!("m:{request}"), Some(text.clone()));
                set(&format!("m:{request}:cid"), Some(cid.clone()));
            }
        }
        fields
    }
}
