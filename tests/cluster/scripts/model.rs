//! The sequential model: what each script promises, in plain data.

mod dump;
mod feeds;

use std::collections::BTreeMap;

use super::resp::Value;
use feeds::{Client, Feed};

#[derive(Default)]
pub(crate) struct Model {
    workers: BTreeMap<String, Worker>,
    /// Those that have a lease.
    clients: BTreeMap<String, Client>,
    sessions: BTreeMap<String, Session>,
    requests: BTreeMap<String, Request>,
    epoch: u64,
    /// The most answers of a session that was removed.
    answers: u64,
}

struct Worker {
    max: usize,
    queue: usize,
    state: &'static str,
    has_lease: bool,
    lease: u64,
    /// The entries of its stream.
    woken: Stream,
}

/// Each entry of a stream as its words.
pub(crate) type Stream = Vec<Vec<String>>;

#[derive(Default)]
struct Session {
    record: Option<Record>,
    labels: Option<String>,
    archived: Option<String>,
    /// Empty for none; `None` if no worker ever had it.
    wid: Option<String>,
    epoch: u64,
    turn: Option<u64>,
    answers: Option<u64>,
    flight: Vec<Turn>,
    /// Whether a turn was ever in flight.
    has_flown: bool,
    fault: Option<String>,
    /// `None` if there was never one.
    feeds: Option<Vec<Feed>>,
}

#[derive(Default)]
struct Record {
    past: Vec<String>,
    header: String,
    summary: String,
    created: u64,
    messages: Vec<String>,
}

struct Turn {
    number: u64,
    request: String,
    cids: Vec<String>,
    body: String,
    cancel: Option<String>,
    inputs: Vec<(String, Input)>,
    /// Each with its client and its text.
    messages: Vec<[String; 3]>,
}

enum Input {
    Pending { options: String },
    Settled(String),
    Cancelled,
}

#[derive(Clone, Default)]
struct Request {
    id: String,
    turn: Option<u64>,
    kind: Option<&'static str>,
    verdict: Option<(String, u64)>,
}

fn say<T: Into<String>>(words: impl IntoIterator<Item = T>) -> Value {
    Value::words(words)
}

impl Session {
    fn rev(&self) -> String {
        self.record.as_ref().and_then(|record| record.past.last()).cloned().unwrap_or_default()
    }

    fn is_archived(&self) -> bool {
        self.archived.as_deref() == Some("1")
    }

    fn wid(&self) -> &str {
        self.wid.as_deref().unwrap_or_default()
    }

    fn position(&self, turn: &str) -> Option<usize> {
        self.flight.iter().position(|other| other.number.to_string() == turn)
    }

    fn numbers(&self) -> String {
        self.flight.iter().map(|turn| turn.number.to_string()).collect::<Vec<_>>().join(" ")
    }

    fn cancel(&mut self, at: usize, reason: &str) {
        let turn = &mut self.flight[at];
        if turn.cancel.is_none() {
            turn.cancel = Some(reason.into());
            for (_, input) in &mut turn.inputs {
                if matches!(input, Input::Pending { .. }) {
                    *input = Input::Cancelled;
                }
            }
        }
    }

    fn input(&mut self, name: &str) -> Option<&mut Input> {
        let mut inputs = self.flight.iter_mut().flat_map(|turn| &mut turn.inputs);
        inputs.find(|(input, _)| input == name).map(|(_, input)| input)
    }
}

impl Model {
    // What a plan looks at.

    pub(crate) fn owner(&self, id: &str) -> (String, String) {
        self.sessions.get(id).map(|session| (session.wid().to_owned(), session.epoch.to_string())).unwrap_or_default()
    }

    pub(crate) fn in_flight(&self, id: &str, at: usize) -> Option<String> {
        Some(self.sessions.get(id)?.flight.get(at)?.number.to_string())
    }

    pub(crate) fn request_of(&self, id: &str, turn: &str) -> String {
        let session = self.sessions.get(id);
        let turn = session.and_then(|session| session.flight.get(session.position(turn)?));
        turn.map_or_else(|| "r-none".into(), |turn| turn.request.clone())
    }

    /// The revision, the number of messages and the creation time.
    pub(crate) fn record(&self, id: &str) -> (String, usize, String) {
        let created = if id == "s0" { "1000" } else { "1001" };
        let session = self.sessions.get(id);
        let len = session.and_then(|session| session.record.as_ref()).map_or(0, |record| record.messages.len());
        (session.map(Session::rev).unwrap_or_default(), len, created.into())
    }

    /// The streams that the server must have, and no others.
    pub(crate) fn streams(&self) -> BTreeMap<String, Stream> {
        let clients = self.clients.iter().map(|(cid, client)| (format!("c:{cid}"), client.told.clone()));
        let workers = self.workers.iter().map(|(wid, worker)| (format!("w:{wid}:q"), worker.woken.clone()));
        clients.chain(workers).collect()
    }

    // The parts of the scripts.

    fn has_lease(&self, wid: &str) -> bool {
        self.workers.get(wid).is_some_and(|worker| worker.has_lease)
    }

    fn busy(&self, wid: &str) -> usize {
        self.sessions.values().filter(|session| session.wid() == wid && !session.flight.is_empty()).count()
    }

    fn all(&self, wid: &str) -> usize {
        self.sessions.values().filter(|session| session.wid() == wid).count()
    }

    fn choose(&self) -> Option<String> {
        let open = self.workers.iter().filter(|(_, worker)| worker.has_lease && worker.state == "open");
        let room = open.filter(|(wid, worker)| self.busy(wid) < worker.max);
        room.min_by_key(|(wid, _)| (self.busy(wid), self.all(wid), (*wid).clone())).map(|(wid, _)| wid.clone())
    }

    fn wake(&mut self, wid: &str, id: &str, copied: &[&str]) {
        if let Some(worker) = self.workers.get_mut(wid) {
            worker.woken.push(owned(&[&["id", id], copied].concat()));
        }
    }

    fn wake_owner(&mut self, id: &str) {
        let wid = self.sessions[id].wid().to_owned();
        self.wake(&wid, id, &[]);
    }

    fn answer(&mut self, id: &str, at: usize, kind: &'static str, body: &str) -> u64 {
        let session = self.sessions.get_mut(id).unwrap();
        let turn = session.flight.remove(at);
        let answers = session.answers.get_or_insert(0);
        *answers += 1;
        let answers = *answers;
        let fate = if kind == "lost" { "lost" } else { "over" };
        for [request, cid, _] in &turn.messages {
            self.tell(cid, &["steered", request, "kind", fate, "body", ""]);
        }
        let verdict = Some((body.into(), answers));
        let known = Request { id: id.into(), turn: Some(turn.number), kind: Some(kind), verdict };
        self.requests.insert(turn.request.clone(), known);
        let (number, count) = (turn.number.to_string(), answers.to_string());
        let verdict =
            ["verdict", &turn.request, "id", id, "turn", &number, "kind", kind, "body", body, "answers", &count];
        for cid in turn.cids {
            self.tell(&cid, &verdict);
        }
        answers
    }

    fn abandon(&mut self, id: &str) {
        while !self.sessions[id].flight.is_empty() {
            self.answer(id, 0, "lost", "");
        }
        let session = self.sessions.get_mut(id).unwrap();
        session.wid = Some(String::new());
        let (is_built, is_archived) = (session.record.is_some(), session.is_archived());
        self.tell_gap(id);
        if !is_built {
            self.remove(id);
        } else if is_archived {
            self.end_feeds(id);
        }
    }

    fn settle_owner(&mut self, id: &str) -> bool {
        let is_lost = self.sessions.get(id).is_some_and(|session| {
            let wid = session.wid();
            !wid.is_empty() && !self.has_lease(wid)
        });
        if is_lost {
            self.abandon(id);
        }
        self.sessions.contains_key(id)
    }

    fn give(&mut self, id: &str, wid: &str) {
        self.epoch += 1;
        let session = self.sessions.get_mut(id).unwrap();
        (session.wid, session.epoch) = (Some(wid.into()), self.epoch);
    }

    /// Gives a session without a turn in flight to a worker that may run one. Returns whether there is one.
    fn place(&mut self, id: &str) -> bool {
        let wid = self.sessions[id].wid().to_owned();
        if self.workers.get(&wid).is_some_and(|worker| worker.has_lease && worker.state == "open") {
            return true;
        }
        let Some(chosen) = self.choose() else { return false };
        self.wake(&wid, id, &[]);
        self.give(id, &chosen);
        true
    }

    fn put_in_flight(&mut self, id: &str, at: usize, number: u64, request: &str, cid: &str, body: &str) -> Value {
        let session = self.sessions.get_mut(id).unwrap();
        let turn = Turn {
            number,
            request: request.into(),
            cids: vec![cid.into()],
            body: body.into(),
            cancel: None,
            inputs: Vec::new(),
            messages: Vec::new(),
        };
        session.flight.insert(at, turn);
        session.has_flown = true;
        let known = Request { id: id.into(), turn: Some(number), ..Request::default() };
        self.requests.insert(request.into(), known);
        let session = &self.sessions[id];
        let has_feeds = session.feeds.as_ref().is_some_and(|feeds| !feeds.is_empty());
        // A turn that is alone is copied into the entry, if it is not too long and there are no feeds to begin.
        if session.flight.len() > 1 || number == 0 || body.len() > 4096 || has_feeds {
            self.wake_owner(id);
        } else {
            let (wid, epoch, turn) = (session.wid().to_owned(), session.epoch.to_string(), number.to_string());
            let copied = ["epoch", &epoch, "turn", &turn, "request", request, "cid", cid, "body", body];
            self.wake(&wid, id, &copied);
        }
        say(["begun".to_owned(), number.to_string()])
    }

    fn repeated(&mut self, id: &str, request: &str, cid: &str) -> Option<Value> {
        let known = self.requests.get(request)?;
        let turn = known.turn.map(|turn| turn.to_string()).unwrap_or_default();
        match known {
            Request { kind: Some("tombstone"), .. } => Some(say(["tombstone"])),
            Request { kind: Some(kind), verdict: Some((body, answers)), .. } => {
                Some(say(["answered", &turn, kind, body, &answers.to_string()]))
            }
            Request { .. } => {
                let session = self.sessions.get_mut(id).unwrap();
                let at = session.position(&turn).unwrap();
                let cids = &mut session.flight[at].cids;
                if !cids.iter().any(|other| other == cid) {
                    cids.push(cid.into());
                }
                Some(say(["begun", &turn]))
            }
        }
    }

    fn is_owner(&self, id: &str, wid: &str, epoch: &str) -> bool {
        let session = self.sessions.get(id);
        session.is_some_and(|session| session.wid() == wid && session.epoch.to_string() == epoch && epoch != "0")
    }

    fn is_first(&self, id: &str, turn: &str) -> bool {
        self.sessions.get(id).is_some_and(|session| session.position(turn) == Some(0))
    }

    fn write_record(&mut self, id: &str, record: &[String], keeps_settings: bool) -> Vec<String> {
        let [seen, next, stored, created, header, summary, labels, archived, turns, messages @ ..] = record else {
            panic!("{record:?}");
        };
        let rev = self.sessions.get(id).map(Session::rev).unwrap_or_default();
        let known = self.sessions.get(id).and_then(|session| session.record.as_ref());
        if known.is_some_and(|record| record.past.contains(next)) {
            return vec!["ok".into()];
        } else if rev != *seen {
            return vec!["conflict".into()];
        }
        let len = known.map_or(0, |record| record.messages.len()).to_string();
        if !stored.is_empty() && *stored != len {
            return vec!["damaged".into(), len];
        }
        let session = self.sessions.entry(id.into()).or_default();
        let kept = session.record.get_or_insert_with(Record::default);
        if stored.is_empty() {
            kept.messages.clear();
        }
        kept.messages.extend_from_slice(messages);
        kept.past.push(next.clone());
        if kept.past.len() > 8 {
            kept.past.remove(0);
        }
        (kept.header, kept.summary) = (header.clone(), summary.clone());
        if seen.is_empty() {
            kept.created = created.parse().unwrap();
        }
        if !keeps_settings || session.labels.is_none() {
            session.labels = Some(labels.clone());
        }
        if !keeps_settings || session.archived.is_none() {
            session.archived = Some(archived.clone());
        }
        let turns: u64 = turns.parse().unwrap();
        if session.turn.unwrap_or(0) < turns {
            session.turn = Some(turns);
        }
        vec!["ok".into()]
    }

    fn note(&mut self, request: &str, id: &str, turn: Option<u64>, kind: &'static str) {
        self.requests.insert(request.into(), Request { id: id.into(), turn, kind: Some(kind), verdict: None });
    }

    fn is_known(&self, request: &str, kind: &str) -> bool {
        self.requests.get(request).is_some_and(|known| known.kind == Some(kind))
    }

    /// The answer of a script, and its effect.
    pub(crate) fn apply(&mut self, script: &str, args: &[String]) -> Value {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match (script, args.as_slice()) {
            ("enrol", &["w", wid, lease, max, queue]) => self.enrol(wid, lease, max, queue),
            ("enrol", &["c", cid, lease]) => self.enrol_client(cid, lease),
            ("kill", &["w", wid]) => {
                if let Some(worker) = self.workers.get_mut(wid) {
                    worker.has_lease = false;
                }
                Value::ok()
            }
            ("kill", &["c", cid]) => {
                self.clients.remove(cid);
                Value::ok()
            }
            ("renew", &[kind, name, lease]) => {
                let own = match kind {
                    "w" => self.workers.get_mut(name).filter(|worker| worker.has_lease).map(|worker| &mut worker.lease),
                    _ => self.clients.get_mut(name).map(|client| &mut client.lease),
                };
                let Some(own) = own else { return say(["over"]) };
                *own = lease.parse().unwrap();
                Value::ok()
            }
            ("drain", &[wid]) => match self.workers.get_mut(wid).filter(|worker| worker.has_lease) {
                Some(worker) => {
                    worker.state = "draining";
                    Value::ok()
                }
                None => say(["over"]),
            },
            ("abandon", &[wid, _, gives_up]) => self.abandon_worker(wid, gives_up == "1"),
            ("open", &[id, request, cid, turn, body]) => self.open(id, request, cid, turn, body),
            ("begin", &[id, request, cid, seen, when_busy, body]) => {
                self.begin(id, request, cid, seen, when_busy, body)
            }
            ("keep", &[id, wid, epoch, ref record @ ..]) => match self.is_owner(id, wid, epoch) {
                true => say(self.write_record(id, &owned(record), true)),
                false => say(["conflict"]),
            },
            ("save", &[id, ref record @ ..]) => match self.settle_owner(id) && !self.sessions[id].wid().is_empty() {
                true => say(["conflict"]),
                false => {
                    let written = self.write_record(id, &owned(record), false);
                    if written[0] == "ok" && record[7] == "1" {
                        self.end_feeds(id);
                    }
                    say(written)
                }
            },
            ("finish", &[id, wid, epoch, turn, request, body, fault, ref record @ ..]) => {
                self.finish(id, [wid, epoch], turn, request, body, fault, &owned(record))
            }
            ("refuse", &[id, wid, epoch, turn, request, body]) => self.refuse(id, [wid, epoch], turn, request, body),
            ("interrupt", &[id, turn, reason, request]) => self.interrupt(id, turn, reason, request),
            ("ask", &[id, wid, epoch, turn, input, _, options]) => self.ask(id, [wid, epoch], turn, input, options),
            ("respond", &[id, request, input, kind, text, response]) => {
                self.respond(id, request, input, kind, text, response)
            }
            ("settle", &[id, wid, epoch, input]) => self.settle(id, wid, epoch, input),
            ("steer", &[id, turn, request, cid, text]) => self.steer(id, turn, request, cid, text),
            ("archive", &[id, request, mode]) => self.archive(id, request, mode),
            ("label", &[id, labels]) => match self.settle_owner(id) {
                false => say(["missing"]),
                true if self.sessions[id].is_archived() => say(["archived"]),
                true => {
                    self.sessions.get_mut(id).unwrap().labels = Some(labels.into());
                    self.wake_owner(id);
                    Value::ok()
                }
            },
            ("delete", &[id, request, seen]) => self.delete(id, request, seen),
            ("take", &[id, request, seen]) => self.take(id, request, seen),
            ("restart", &[id, request, cid, body]) => self.restart(id, request, cid, body),
            ("follow", &[id, cid, feed, options]) => self.follow(id, cid, feed, options),
            ("credit", &[id, cid, feed, sum]) => self.credit(id, cid, feed, sum),
            ("emit", &[cid, feed, epoch, first, count, last, body]) => {
                self.emit(cid, feed, epoch, [first, count, last], body)
            }
            ("tell", &[cid, request, kind, body, number]) => {
                match self.tell(cid, &["steered", request, "kind", kind, "body", body, "number", number]) {
                    true => Value::ok(),
                    false => say(["gone"]),
                }
            }
            ("unload", &[id, wid, epoch]) => match self.is_owner(id, wid, epoch) {
                false => say(["over"]),
                true if !self.sessions[id].flight.is_empty() => say(["begun"]),
                true => {
                    let session = self.sessions.get_mut(id).unwrap();
                    session.wid = Some(String::new());
                    if session.is_archived() {
                        self.end_feeds(id);
                    }
                    Value::ok()
                }
            },
            ("outcome", &[id, request]) => self.outcome(id, request, None),
            ("outcome", &[id, request, cid]) => self.outcome(id, request, Some(cid)),
            ("forget", &[request]) => {
                self.requests.remove(request);
                Value::ok()
            }
            ("load", &[id]) => self.load(id),
            ("read", &[id]) => self.read(id, false),
            ("read", &[id, "1"]) => self.read(id, true),
            ("look", &[id, wid]) => self.look(id, wid),
            ("sweep", &[wid]) => self.sweep(wid),
            ("summary", &[id]) => match self.list("", "", "500") {
                Value::List(rows) => match rows.into_iter().find(|row| is_of(row, id)) {
                    Some(row) => Value::List(vec![Value::word("ok"), row]),
                    None => say(["none"]),
                },
                Value::Word(_) => unreachable!("a list"),
            },
            ("list", &[created, id, limit]) => self.list(created, id, limit),
            other => panic!("{other:?}"),
        }
    }

    fn enrol(&mut self, wid: &str, lease: &str, max: &str, queue: &str) -> Value {
        let (lease, max, queue) = (lease.parse().unwrap(), max.parse().unwrap(), queue.parse().unwrap());
        let known = self.workers.get(wid);
        if let Some(worker) = known.filter(|worker| worker.has_lease) {
            let is_same = (worker.max, worker.queue, worker.state) == (max, queue, "open");
            return say([if is_same { "ok" } else { "taken" }]);
        }
        // The stream stays until the sessions of the worker are taken.
        let mut woken = known.map(|worker| worker.woken.clone()).unwrap_or_default();
        woken.push(owned(&["enrolled", wid]));
        self.workers.insert(wid.into(), Worker { max, queue, state: "open", has_lease: true, lease, woken });
        Value::ok()
    }

    fn abandon_worker(&mut self, wid: &str, gives_up: bool) -> Value {
        if self.has_lease(wid) && !gives_up {
            return say(["alive"]);
        }
        let ids: Vec<String> =
            self.sessions.iter().filter(|(_, session)| session.wid() == wid).map(|(id, _)| id.clone()).collect();
        ids.iter().for_each(|id| self.abandon(id));
        self.workers.remove(wid);
        say(["ok", "0"])
    }

    fn open(&mut self, id: &str, request: &str, cid: &str, turn: &str, body: &str) -> Value {
        let is_there = self.settle_owner(id);
        if let Some(known) = self.repeated(id, request, cid) {
            return known;
        } else if is_there {
            return say(["exists"]);
        }
        let Some(wid) = self.choose() else { return say(["capacity"]) };
        let turn = turn.parse().unwrap();
        self.sessions
            .insert(id.into(), Session { turn: Some(turn), answers: Some(self.answers), ..Session::default() });
        self.give(id, &wid);
        self.put_in_flight(id, 0, turn, request, cid, body)
    }

    fn begin(&mut self, id: &str, request: &str, cid: &str, seen: &str, when_busy: &str, body: &str) -> Value {
        let is_there = self.settle_owner(id);
        if let Some(known) = self.repeated(id, request, cid) {
            return known;
        } else if !is_there {
            return say(["missing"]);
        }
        let session = &self.sessions[id];
        let (answers, in_flight) = (session.answers.unwrap_or(0), session.flight.len());
        if session.is_archived() {
            return say(["archived"]);
        } else if answers < seen.parse().unwrap() {
            return say(["shorter".into(), answers.to_string()]);
        }
        // A turn may wait for the build of a restart.
        let is_restarting = session.flight.first().is_some_and(|turn| turn.number == 0);
        if let Some(fault) = session.fault.as_ref().filter(|_| !is_restarting) {
            return say(["faulted", fault]);
        }
        if in_flight > 0 {
            let limit = self.workers[session.wid()].queue;
            if when_busy == "refuse" {
                return say(["busy".into(), session.flight[0].number.to_string()]);
            } else if in_flight > limit {
                return say(["full".into(), (in_flight - 1).to_string(), limit.to_string()]);
            }
        } else if !self.place(id) {
            return say(["capacity"]);
        }
        let session = self.sessions.get_mut(id).unwrap();
        let number = session.turn.unwrap_or(0) + 1;
        session.turn = Some(number);
        let at = match when_busy {
            "interrupt" if in_flight > 0 => {
                if session.flight[0].number != 0 {
                    session.cancel(0, "superseded");
                }
                1
            }
            _ => in_flight,
        };
        self.put_in_flight(id, at, number, request, cid, body)
    }

    fn restart(&mut self, id: &str, request: &str, cid: &str, body: &str) -> Value {
        let is_there = self.settle_owner(id);
        if let Some(known) = self.repeated(id, request, cid) {
            return known;
        } else if !is_there {
            return say(["missing"]);
        }
        let session = &self.sessions[id];
        if session.is_archived() {
            return say(["archived"]);
        } else if let Some(first) = session.flight.first() {
            return say(["busy".into(), first.number.to_string()]);
        } else if session.fault.is_none() {
            return say(["sound"]);
        } else if !self.place(id) {
            return say(["capacity"]);
        }
        self.put_in_flight(id, 0, 0, request, cid, body)
    }

    #[allow(clippy::too_many_arguments)]
    fn finish(
        &mut self,
        id: &str,
        fence: [&str; 2],
        turn: &str,
        request: &str,
        body: &str,
        fault: &str,
        rest: &[String],
    ) -> Value {
        if self.is_known(request, "done") {
            let answers = self.requests[request].verdict.as_ref().unwrap().1;
            return say(["already".into(), answers.to_string()]);
        } else if !self.is_owner(id, fence[0], fence[1]) || !self.is_first(id, turn) {
            return say(["conflict"]);
        }
        if !rest.is_empty() {
            let written = self.write_record(id, rest, true);
            if written[0] != "ok" {
                return say(written);
            }
        }
        let session = self.sessions.get_mut(id).unwrap();
        if !fault.is_empty() {
            session.fault = Some(fault.into());
        } else if turn == "0" {
            session.fault = None;
        }
        let mut answers = self.answer(id, 0, "done", body);
        while !fault.is_empty() && !self.sessions[id].flight.is_empty() {
            answers = self.answer(id, 0, "refused", body);
        }
        say(["ok".into(), answers.to_string(), self.sessions[id].numbers()])
    }

    fn refuse(&mut self, id: &str, fence: [&str; 2], turn: &str, request: &str, body: &str) -> Value {
        if self.is_known(request, "refused") {
            return say(["already"]);
        } else if !self.is_owner(id, fence[0], fence[1]) {
            return say(["conflict"]);
        }
        let Some(at) = self.sessions[id].position(turn) else { return say(["conflict"]) };
        let is_built = self.sessions[id].record.is_some();
        if is_built && turn != "0" {
            self.answer(id, at, "refused", body);
            return Value::ok();
        }
        while !self.sessions[id].flight.is_empty() {
            self.answer(id, 0, "refused", body);
        }
        if !is_built {
            self.remove(id);
        }
        Value::ok()
    }

    fn interrupt(&mut self, id: &str, turn: &str, reason: &str, request: &str) -> Value {
        if self.is_known(request, "interrupted") {
            return say(["ok".into(), self.requests[request].turn.unwrap().to_string()]);
        } else if self.is_known(request, "tombstone") {
            return say(["tombstone"]);
        } else if !self.settle_owner(id) {
            return say(["missing"]);
        }
        let session = self.sessions.get_mut(id).unwrap();
        let at = if turn.is_empty() { (!session.flight.is_empty()).then_some(0) } else { session.position(turn) };
        let Some(at) = at.filter(|&at| session.flight[at].number != 0) else {
            let is_over = session.is_archived() && session.flight.is_empty();
            return say([if is_over { "archived" } else { "idle" }]);
        };
        let number = session.flight[at].number.to_string();
        if at > 0 {
            self.answer(id, at, "withdrawn", reason);
        } else {
            session.cancel(0, reason);
        }
        self.note(request, id, number.parse().ok(), "interrupted");
        self.wake_owner(id);
        say(["ok", &number])
    }

    fn ask(&mut self, id: &str, fence: [&str; 2], turn: &str, input: &str, options: &str) -> Value {
        if !self.is_owner(id, fence[0], fence[1]) || !self.is_first(id, turn) {
            return say(["conflict"]);
        }
        let turn = &mut self.sessions.get_mut(id).unwrap().flight[0];
        if let Some(reason) = &turn.cancel {
            return say(["cancelled", reason]);
        }
        if !turn.inputs.iter().any(|(other, _)| other == input) {
            turn.inputs.push((input.into(), Input::Pending { options: options.into() }));
        }
        Value::ok()
    }

    fn respond(&mut self, id: &str, request: &str, input: &str, kind: &str, text: &str, response: &str) -> Value {
        if self.is_known(request, "responded") {
            return Value::ok();
        } else if !self.settle_owner(id) {
            return say(["missing"]);
        }
        match self.sessions.get_mut(id).unwrap().input(input) {
            Some(Input::Pending { options })
                if kind == "answer" && !options.is_empty() && !options.contains(&format!("\"{text}\"")) =>
            {
                say(["invalid"])
            }
            Some(pending @ Input::Pending { .. }) => {
                *pending = Input::Settled(response.into());
                self.note(request, id, None, "responded");
                self.wake_owner(id);
                Value::ok()
            }
            _ => say(["settled"]),
        }
    }

    fn settle(&mut self, id: &str, wid: &str, epoch: &str, input: &str) -> Value {
        if !self.is_owner(id, wid, epoch) {
            return say(["conflict"]);
        }
        match self.sessions.get_mut(id).unwrap().input(input) {
            Some(Input::Settled(response)) if response.is_empty() => say(["claimed"]),
            Some(Input::Settled(response)) => say(["answered", response]),
            Some(pending @ Input::Pending { .. }) => {
                *pending = Input::Settled(String::new());
                say(["claimed"])
            }
            _ => say(["cancelled"]),
        }
    }

    fn steer(&mut self, id: &str, turn: &str, request: &str, cid: &str, text: &str) -> Value {
        if self.is_known(request, "steered") {
            return say(["ok".into(), self.requests[request].turn.unwrap().to_string()]);
        } else if self.is_known(request, "tombstone") {
            return say(["tombstone"]);
        } else if !self.settle_owner(id) {
            return say(["missing"]);
        }
        let session = self.sessions.get_mut(id).unwrap();
        let is_archived = session.is_archived();
        let Some(first) = session.flight.first_mut() else {
            return say([if is_archived { "archived" } else { "idle" }]);
        };
        let number = first.number;
        if number == 0 || (!turn.is_empty() && turn != number.to_string()) {
            return say(["idle"]);
        }
        first.messages.push([request, cid, text].map(str::to_owned));
        self.note(request, id, Some(number), "steered");
        self.wake_owner(id);
        say(["ok".into(), number.to_string()])
    }

    fn archive(&mut self, id: &str, request: &str, mode: &str) -> Value {
        if self.is_known(request, "archived") {
            return Value::ok();
        } else if !self.settle_owner(id) {
            return say(["missing"]);
        }
        let session = self.sessions.get_mut(id).unwrap();
        if session.is_archived() && (mode == "drain" || session.flight.is_empty()) {
            return say(["archived"]);
        }
        session.archived = Some("1".into());
        if mode == "interrupt" {
            for at in (1..session.flight.len()).rev() {
                self.answer(id, at, "withdrawn", "archived");
            }
            let session = self.sessions.get_mut(id).unwrap();
            if session.flight.first().is_some_and(|turn| turn.number != 0) {
                session.cancel(0, "archived");
            }
        }
        self.note(request, id, None, "archived");
        self.wake_owner(id);
        if self.sessions[id].wid().is_empty() {
            self.end_feeds(id);
        }
        Value::ok()
    }

    fn delete(&mut self, id: &str, request: &str, seen: &str) -> Value {
        if self.is_known(request, "deleted") {
            return say(["ok", "1"]);
        }
        if !self.settle_owner(id) || self.sessions[id].record.is_none() {
            return say(["ok", "0"]);
        } else if !seen.is_empty() && self.sessions[id].rev() != seen {
            return say(["conflict"]);
        }
        while !self.sessions[id].flight.is_empty() {
            self.answer(id, 0, "deleted", "");
        }
        self.delete_now(id, request);
        say(["ok", "1"])
    }

    fn take(&mut self, id: &str, request: &str, seen: &str) -> Value {
        if self.is_known(request, "deleted") {
            return Value::ok();
        } else if self.is_known(request, "tombstone") {
            return say(["tombstone"]);
        } else if !self.settle_owner(id) {
            return say(["missing"]);
        }
        let session = &self.sessions[id];
        if session.is_archived() {
            return say(["archived"]);
        } else if let Some(first) = session.flight.first() {
            return say(["busy".into(), first.number.to_string()]);
        } else if session.record.is_none() || session.rev() != seen {
            return say(["conflict"]);
        }
        self.delete_now(id, request);
        Value::ok()
    }

    fn delete_now(&mut self, id: &str, request: &str) {
        self.wake_owner(id);
        self.remove(id);
        self.note(request, id, None, "deleted");
    }

    fn remove(&mut self, id: &str) {
        self.end_feeds(id);
        let answers = self.sessions.remove(id).and_then(|session| session.answers);
        self.answers = self.answers.max(answers.unwrap_or(0));
    }

    fn outcome(&mut self, id: &str, request: &str, cid: Option<&str>) -> Value {
        let of = self.requests.get(request).map_or_else(|| id.to_owned(), |known| known.id.clone());
        self.settle_owner(&of);
        let known = self.requests.get(request).cloned().unwrap_or_default();
        if let Some(kind) = known.kind.filter(|&kind| kind != "tombstone") {
            let turn = known.turn.map(|turn| turn.to_string()).unwrap_or_default();
            let (body, answers) = known.verdict.map(|(body, count)| (body, count.to_string())).unwrap_or_default();
            return say(["answered", &turn, kind, &body, &answers]);
        }
        // Also if the request is not remembered.
        let flight = self.sessions.get_mut(&of).map(|session| &mut session.flight);
        let Some(turn) = flight.and_then(|flight| flight.iter_mut().find(|turn| turn.request == request)) else {
            self.note(request, &of, None, "tombstone");
            return say(["tombstone"]);
        };
        if let Some(cid) = cid.filter(|&cid| !turn.cids.iter().any(|other| other == cid)) {
            turn.cids.push(cid.into());
        }
        say(["running", &turn.number.to_string()])
    }

    fn load(&self, id: &str) -> Value {
        let Some((session, record)) =
            self.sessions.get(id).and_then(|session| Some((session, session.record.as_ref()?)))
        else {
            return say(["none"]);
        };
        let (labels, archived) = (session.labels.clone().unwrap(), session.archived.clone().unwrap());
        let mut parts: Vec<Value> =
            ["ok".into(), session.rev(), record.header.clone(), labels, archived].map(Value::Word).into();
        parts.push(say(record.messages.clone()));
        Value::List(parts)
    }

    fn read(&self, id: &str, with_text: bool) -> Value {
        let Some(session) = self.sessions.get(id) else { return say(["missing"]) };
        let is_live = self.has_lease(session.wid());
        if session.record.is_none() && !is_live {
            return say(["missing"]);
        }
        let header = session.record.as_ref().map(|record| record.header.clone()).unwrap_or_default();
        let (labels, archived) = (session.labels.clone().unwrap_or_default(), session.is_archived());
        let archived = if archived { "1" } else { "0" };
        let flight = if is_live { session.numbers() } else { String::new() };
        let turn = session.turn.unwrap_or(0).to_string();
        let mut parts: Vec<Value> =
            ["ok".into(), header, labels, archived.into(), turn, flight].map(Value::Word).into();
        let inputs = session.flight.iter().filter(|_| is_live).flat_map(|turn| &turn.inputs);
        let pending = inputs.filter(|(_, input)| matches!(input, Input::Pending { .. }));
        parts.push(Value::List(pending.map(|(input, _)| say([input, "question"])).collect()));
        parts.push(say(session.fault.clone()));
        parts.push(Value::word(if is_live { "1" } else { "0" }));
        if with_text {
            let messages = session.record.iter().flat_map(|record| record.messages.iter().rev().take(64));
            let is_text =
                |text: &&String| text.starts_with(r#"{"role":"assistant""#) && text.contains(r#""type":"text""#);
            parts.push(say(messages.into_iter().find(is_text).cloned()));
        }
        Value::List(parts)
    }

    fn look(&self, id: &str, wid: &str) -> Value {
        let Some(session) = self.sessions.get(id).filter(|session| session.wid.as_deref() == Some(wid)) else {
            return say(["gone"]);
        };
        let turn = |turn: &Turn| {
            let head = [
                turn.number.to_string(),
                turn.request.clone(),
                turn.cids.join(" "),
                turn.body.clone(),
                turn.cancel.clone().unwrap_or_default(),
            ];
            let mut parts: Vec<Value> = head.map(Value::Word).into();
            parts.push(Value::List(turn.messages.iter().map(|message| say(message.clone())).collect()));
            let responses = turn.inputs.iter().filter_map(|(input, state)| match state {
                Input::Settled(response) => Some(say([input, response])),
                _ => None,
            });
            parts.push(Value::List(responses.collect()));
            Value::List(parts)
        };
        let archived = session.archived.clone().unwrap_or_else(|| "0".into());
        let mut parts: Vec<Value> = ["ok".into(), session.epoch.to_string(), archived].map(Value::Word).into();
        parts.push(Value::List(session.flight.iter().map(turn).collect()));
        let feeds = session.feeds.iter().flatten();
        parts.push(Value::List(feeds.map(|Feed { name, cid, options }| say([name, cid, options])).collect()));
        Value::List(parts)
    }

    fn sweep(&self, wid: &str) -> Value {
        let is_busy = |session: &Session| session.wid() == wid && !session.flight.is_empty();
        let busy = self.sessions.iter().filter(|(_, session)| is_busy(session)).map(|(id, _)| id.clone());
        let gone = self.workers.iter().filter(|(_, worker)| !worker.has_lease).map(|(wid, _)| wid.clone());
        Value::List(vec![Value::word("ok"), say(busy), say(gone)])
    }

    fn list(&self, created: &str, after: &str, limit: &str) -> Value {
        let mut found: Vec<(u64, &String, &Session, &Record)> = self
            .sessions
            .iter()
            .filter_map(|(id, session)| session.record.as_ref().map(|record| (record.created, id, session, record)))
            .collect();
        found.sort_by_key(|(created, id, ..)| (*created, (*id).clone()));
        if !after.is_empty() {
            let place = (created.parse::<u64>().unwrap(), after);
            found.retain(|(created, id, ..)| (*created, id.as_str()) > place);
        }
        found.truncate(limit.parse().unwrap());
        let mut page = vec![Value::word("ok")];
        page.extend(found.into_iter().map(|(created, id, session, record)| {
            let flight = if self.has_lease(session.wid()) { session.numbers() } else { String::new() };
            say([
                id.clone(),
                created.to_string(),
                record.summary.clone(),
                session.labels.clone().unwrap_or_default(),
                session.archived.clone().unwrap_or_default(),
                flight,
                if session.fault.is_some() { "1" } else { "0" }.into(),
            ])
        }));
        Value::List(page)
    }
}

/// Whether a row of a list is that of this session.
fn is_of(row: &Value, id: &str) -> bool {
    matches!(row, Value::List(row) if row[0] == Value::word(id))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
