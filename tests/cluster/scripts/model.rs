//! The sequential model: what each script promises, in plain data.

use std::collections::{BTreeMap, BTreeSet};

use super::resp::{Dump, Value};

#[derive(Default)]
pub(crate) struct Model {
    workers: BTreeMap<String, Worker>,
    sessions: BTreeMap<String, Session>,
    requests: BTreeMap<String, Request>,
    /// The messages to each client.
    told: BTreeMap<String, Vec<[String; 3]>>,
    epoch: u64,
}

struct Worker {
    max: usize,
    queue: usize,
    state: &'static str,
    has_lease: bool,
}

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

    pub(crate) fn messages(&self, cid: &str) -> Vec<[String; 3]> {
        self.told.get(cid).cloned().unwrap_or_default()
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

    fn answer(&mut self, id: &str, at: usize, kind: &'static str, body: &str) -> u64 {
        let session = self.sessions.get_mut(id).unwrap();
        let turn = session.flight.remove(at);
        let answers = session.answers.get_or_insert(0);
        *answers += 1;
        let answers = *answers;
        if kind == "lost" {
            for [request, cid, _] in &turn.messages {
                self.told.entry(cid.clone()).or_default().push(["steered".into(), request.clone(), kind.into()]);
            }
        }
        let request = self.requests.entry(turn.request.clone()).or_default();
        (request.kind, request.verdict) = (Some(kind), Some((body.into(), answers)));
        for cid in turn.cids {
            self.told.entry(cid).or_default().push(["verdict".into(), turn.request.clone(), kind.into()]);
        }
        answers
    }

    fn abandon(&mut self, id: &str) {
        while !self.sessions[id].flight.is_empty() {
            self.answer(id, 0, "lost", "");
        }
        let session = self.sessions.get_mut(id).unwrap();
        session.wid = Some(String::new());
        if session.record.is_none() {
            self.sessions.remove(id);
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
            ("enrol", &["w", wid, _, max, queue]) => self.enrol(wid, max, queue),
            ("kill", &[wid]) => {
                if let Some(worker) = self.workers.get_mut(wid) {
                    worker.has_lease = false;
                }
                Value::ok()
            }
            ("renew", &["w", wid, _]) => say([if self.has_lease(wid) { "ok" } else { "over" }]),
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
                false => say(self.write_record(id, &owned(record), false)),
            },
            ("finish", &[id, wid, epoch, turn, request, body, ref record @ ..]) => {
                self.finish(id, [wid, epoch], turn, request, body, &owned(record))
            }
            ("refuse", &[id, wid, epoch, turn, request, body]) => self.refuse(id, [wid, epoch], turn, request, body),
            ("interrupt", &[id, turn, reason]) => self.interrupt(id, turn, reason),
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
                    Value::ok()
                }
            },
            ("delete", &[id, request, seen]) => self.delete(id, request, seen),
            ("unload", &[id, wid, epoch]) => match self.is_owner(id, wid, epoch) {
                false => say(["over"]),
                true if !self.sessions[id].flight.is_empty() => say(["begun"]),
                true => {
                    self.sessions.get_mut(id).unwrap().wid = Some(String::new());
                    Value::ok()
                }
            },
            ("outcome", &[id, request]) => self.outcome(id, request),
            ("load", &[id]) => self.load(id),
            ("read", &[id]) => self.read(id),
            ("look", &[id, wid]) => self.look(id, wid),
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

    fn enrol(&mut self, wid: &str, max: &str, queue: &str) -> Value {
        let (max, queue) = (max.parse().unwrap(), queue.parse().unwrap());
        if let Some(worker) = self.workers.get(wid).filter(|worker| worker.has_lease) {
            return say([if (worker.max, worker.queue, worker.state) == (max, queue, "open") {
                "ok"
            } else {
                "taken"
            }]);
        }
        self.workers.insert(wid.into(), Worker { max, queue, state: "open", has_lease: true });
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
        self.sessions.insert(id.into(), Session { turn: Some(turn), answers: Some(0), ..Session::default() });
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
        let worker = self.workers.get(session.wid());
        if in_flight > 0 {
            let limit = worker.unwrap().queue;
            if when_busy == "refuse" {
                return say(["busy".into(), session.flight[0].number.to_string()]);
            } else if in_flight > limit {
                return say(["full".into(), (in_flight - 1).to_string(), limit.to_string()]);
            }
        } else if worker.is_none_or(|worker| worker.state != "open") {
            let Some(chosen) = self.choose() else { return say(["capacity"]) };
            self.give(id, &chosen);
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

    fn finish(&mut self, id: &str, fence: [&str; 2], turn: &str, request: &str, body: &str, rest: &[String]) -> Value {
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
        let answers = self.answer(id, 0, "done", body);
        say(["ok".into(), answers.to_string(), self.sessions[id].numbers()])
    }

    fn refuse(&mut self, id: &str, fence: [&str; 2], turn: &str, request: &str, body: &str) -> Value {
        if self.is_known(request, "refused") {
            return say(["already"]);
        } else if !self.is_owner(id, fence[0], fence[1]) {
            return say(["conflict"]);
        }
        let Some(at) = self.sessions[id].position(turn) else { return say(["conflict"]) };
        if self.sessions[id].record.is_none() {
            while !self.sessions[id].flight.is_empty() {
                self.answer(id, 0, "refused", body);
            }
            self.sessions.remove(id);
        } else {
            self.answer(id, at, "refused", body);
        }
        Value::ok()
    }

    fn interrupt(&mut self, id: &str, turn: &str, reason: &str) -> Value {
        if !self.settle_owner(id) {
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
        say(["ok", &number])
    }

    fn ask(&mut self, id: &str, fence: [&str; 2], turn: &str, input: &str, options: &str) -> Value {
        if !self.is_owner(id, fence[0], fence[1]) || !self.is_first(id, turn) {
            return say(["conflict"]);
        }
        let turn = &mut self.sessions.get_mut(id).unwrap().flight[0];
        if turn.cancel.is_some() {
            return say(["cancelled"]);
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
        self.sessions.remove(id);
        self.note(request, id, None, "deleted");
        say(["ok", "1"])
    }

    fn outcome(&mut self, id: &str, request: &str) -> Value {
        let of = self.requests.get(request).map_or_else(|| id.to_owned(), |known| known.id.clone());
        self.settle_owner(&of);
        let known = self.requests.get(request).cloned().unwrap_or_default();
        let turn = known.turn.map(|turn| turn.to_string()).unwrap_or_default();
        match (known.kind, known.verdict) {
            (None, _) if known.turn.is_some() => say(["running", &turn]),
            (Some(kind), verdict) if kind != "tombstone" => {
                let (body, answers) = verdict.map(|(body, answers)| (body, answers.to_string())).unwrap_or_default();
                say(["answered", &turn, kind, &body, &answers])
            }
            _ => {
                self.note(request, id, None, "tombstone");
                say(["tombstone"])
            }
        }
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

    fn read(&self, id: &str) -> Value {
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
        Value::List(parts)
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
            let flight = if self.has_lease(session.wid()) { session.flight.len() } else { 0 };
            say([
                id.clone(),
                created.to_string(),
                record.summary.clone(),
                session.labels.clone().unwrap_or_default(),
                session.archived.clone().unwrap_or_default(),
                flight.to_string(),
            ])
        }));
        Value::List(page)
    }

    /// The keys that the server must have, and no others.
    pub(crate) fn dump(&self) -> Dump {
        let mut dump = Dump::new();
        let names = |names: BTreeSet<String>| names.into_iter().map(|name| (name, String::new())).collect();
        for cid in ["c0", "c1"] {
            dump.insert(format!("c:{cid}"), BTreeMap::new());
            dump.insert(format!("c:{cid}:l"), BTreeMap::new());
        }
        if self.epoch > 0 {
            dump.insert("epoch".into(), BTreeMap::new());
        }
        if !self.workers.is_empty() {
            dump.insert("workers".into(), names(self.workers.keys().cloned().collect()));
        }
        for (wid, worker) in &self.workers {
            dump.insert(format!("w:{wid}:q"), BTreeMap::new());
            if worker.has_lease {
                dump.insert(format!("w:{wid}:l"), BTreeMap::new());
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
            let mut fields = BTreeMap::from([("id".to_owned(), known.id.clone())]);
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

/// Whether a row of a list is that of this session.
fn is_of(row: &Value, id: &str) -> bool {
    matches!(row, Value::List(row) if row[0] == Value::word(id))
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}
