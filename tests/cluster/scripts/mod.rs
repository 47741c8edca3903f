//! The scripts, without the library: each call goes to a real server and to a sequential model, and both must answer
//! the same. At the end the server must have exactly the keys and the fields that the model has.
//!
//! A plan is a list of steps. A step names its sessions, workers and turns by number, and becomes a call when it is
//! played, so that it mostly fits the state. Some steps repeat an earlier call, as a client does that has lost a reply.

mod model;
mod resp;
mod steps;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::server::Server;
use model::{Model, Stream};
use resp::{Client, Dump, Value};
use steps::{scene, Step};

/// A script with its arguments behind the id of the namespace.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    script: &'static str,
    args: Vec<String>,
}

impl Call {
    fn new(script: &'static str, args: &[&str]) -> Self {
        Self { script, args: args.iter().map(|arg| (*arg).to_owned()).collect() }
    }
}

/// A play of one plan: the model, the calls so far, and how many names were given.
struct Play {
    model: Model,
    calls: Vec<Call>,
    requests: Vec<String>,
    /// Requests that the engine does not remember any more.
    forgotten: BTreeSet<String>,
    /// Of workers, of clients, and of feeds.
    incarnations: [BTreeMap<u8, usize>; 3],
    named: usize,
}

impl Play {
    fn new() -> Self {
        let (model, calls, requests, forgotten) = (Model::default(), Vec::new(), Vec::new(), BTreeSet::new());
        Self { model, calls, requests, forgotten, incarnations: Default::default(), named: 0 }
    }

    fn name(&mut self, kind: &str) -> String {
        self.named += 1;
        format!("{kind}{}", self.named)
    }

    fn request(&mut self) -> String {
        let request = self.name("r");
        self.requests.push(request.clone());
        request
    }

    fn wid(&self, worker: u8) -> String {
        format!("w{worker}-{}", self.incarnations[0].get(&worker).copied().unwrap_or(0))
    }

    fn cid(&self, client: u8) -> String {
        format!("c{client}-{}", self.incarnations[1].get(&client).copied().unwrap_or(0))
    }

    fn feed(&self, feed: u8) -> String {
        format!("f{feed}-{}", self.incarnations[2].get(&feed).copied().unwrap_or(0))
    }

    /// A request that was made lately, or one that the engine has not seen.
    fn late_request(&self, request: u8) -> String {
        let last = self.requests.iter().rev().nth(usize::from(request) % 8);
        last.cloned().unwrap_or_else(|| "r-unknown".into())
    }

    /// The pair by which a worker shows that it has a session; where `fence` is not 0, another one.
    fn fence(&self, id: &str, fence: u8) -> [String; 2] {
        let (wid, epoch) = self.model.owner(id);
        match fence {
            0 => [wid, epoch],
            1 => [self.wid(0), epoch],
            2 => [wid, format!("{epoch}1")],
            _ => [self.wid(1), "0".into()],
        }
    }

    /// A turn in flight, the first one for 0; or one that is not in flight.
    fn turn(&self, id: &str, turn: u8) -> String {
        self.model.in_flight(id, turn.into()).unwrap_or_else(|| "99".into())
    }

    /// The arguments of a record: an append, an append of nothing, a replacement, a damaged append, or another append.
    fn record(&mut self, id: &str, is_stale: bool, change: u8) -> Vec<String> {
        let (seen, len, created) = self.model.record(id);
        let seen = if is_stale { "none-such".into() } else { seen };
        let next = self.name("v");
        let stored = match change {
            0 | 1 | 4 => len.to_string(),
            2 => String::new(),
            _ => (len + 1).to_string(),
        };
        let mut args = vec![seen, next.clone(), stored, created, format!("head {next}"), format!("sum {next}")];
        args.extend(["{}".into(), "0".into(), if change == 2 { "5" } else { "0" }.to_string()]);
        let added = [1, 0, 2, 1][usize::from(change % 4)];
        let added = if change == 2 && self.named.is_multiple_of(4) { 66 } else { added };
        args.extend((0..added).map(|index| match (index + self.named) % 3 {
            0 => format!(r#"{{"role":"assistant","content":[{{"type":"text","text":"{index} of {next}"}}]}}"#),
            1 => format!(r#"{{"role":"assistant","content":["{index} of {next}"]}}"#),
            _ => format!(r#"{{"role":"user","content":[{{"type":"text","text":"{index} of {next}"}}]}}"#),
        }));
        args
    }

    /// The call of a step; `None` where it has none in this state.
    fn call(&mut self, step: Step) -> Option<Call> {
        use Step::*;
        let id = |session: u8| format!("s{session}");
        let lease = |longer: bool| if longer { "7200000".to_owned() } else { LEASE.to_owned() };
        let (script, args): (_, Vec<String>) = match step {
            Enrol { worker, max, queue } => {
                *self.incarnations[0].entry(worker).or_default() += 1;
                let wid = self.wid(worker);
                ("enrol", vec!["w".into(), wid, LEASE.into(), max.to_string(), queue.to_string()])
            }
            EnrolClient { client } => {
                *self.incarnations[1].entry(client).or_default() += 1;
                ("enrol", vec!["c".into(), self.cid(client), LEASE.into()])
            }
            Kill { worker } => ("kill", vec!["w".into(), self.wid(worker)]),
            KillClient { client } => ("kill", vec!["c".into(), self.cid(client)]),
            Renew { worker, longer } => ("renew", vec!["w".into(), self.wid(worker), lease(longer)]),
            RenewClient { client, longer } => ("renew", vec!["c".into(), self.cid(client), lease(longer)]),
            Drain { worker } => ("drain", vec![self.wid(worker)]),
            Abandon { worker, gives_up } => {
                ("abandon", vec![self.wid(worker), "100".into(), if gives_up { "1" } else { "0" }.into()])
            }
            Open { session, client, with_turn } => {
                let turn = if with_turn { "1" } else { "0" };
                ("open", vec![id(session), self.request(), self.cid(client), turn.into(), "spec".into()])
            }
            Begin { session, client, when_busy, seen } => {
                let when_busy = ["refuse", "queue", "interrupt"][usize::from(when_busy)];
                // Mostly fewer than were answered.
                let seen = if seen == 11 { "1000" } else { "0" };
                let (request, cid) = (self.request(), self.cid(client));
                // A long one is not copied into the entry of the worker's stream.
                let prompt = if self.named.is_multiple_of(5) { "prompt ".repeat(600) } else { "prompt".into() };
                ("begin", [&id(session), &request, &cid, seen, when_busy, &prompt].map(str::to_owned).into())
            }
            Keep { session, fence, change } => {
                let record = self.record(&id(session), fence == 3, change);
                let fence = self.fence(&id(session), fence);
                ("keep", [id(session)].into_iter().chain(fence).chain(record).collect())
            }
            Finish { session, fence, turn, change, faults } => {
                let turn = self.turn(&id(session), turn);
                let request = self.model.request_of(&id(session), &turn);
                // Without a record where the history is as before.
                let record = if change == 1 { Vec::new() } else { self.record(&id(session), false, change) };
                let fence = self.fence(&id(session), fence);
                let fault = if faults { self.name("fault ") } else { String::new() };
                let head = [id(session)].into_iter().chain(fence).chain([turn, request, "result".into(), fault]);
                ("finish", head.chain(record).collect())
            }
            Refuse { session, fence, turn } => {
                let turn = self.turn(&id(session), turn);
                let request = self.model.request_of(&id(session), &turn);
                let fence = self.fence(&id(session), fence);
                let tail = [turn, request, "reason".into()];
                ("refuse", [id(session)].into_iter().chain(fence).chain(tail).collect())
            }
            Interrupt { session, turn } => {
                let turn = if turn == 3 { String::new() } else { self.turn(&id(session), turn) };
                ("interrupt", vec![id(session), turn, "interrupted".into(), self.name("r")])
            }
            Ask { session, fence, input, has_options } => {
                let turn = self.turn(&id(session), 0);
                let input = format!("{turn}00{input}");
                let fence = self.fence(&id(session), fence);
                let options = if has_options { r#"["yes","no"]"# } else { "" };
                let tail = [turn, input, "question".into(), options.into()];
                ("ask", [id(session)].into_iter().chain(fence).chain(tail).collect())
            }
            Respond { session, input, answer } => {
                let input = format!("{}00{input}", self.turn(&id(session), 0));
                let [kind, text] = [["answer", "yes"], ["answer", "perhaps"], ["declined", ""]][usize::from(answer)];
                let request = self.name("r");
                let response = format!("response {text}");
                ("respond", vec![id(session), request, input, kind.into(), text.into(), response])
            }
            Settle { session, fence, input } => {
                let input = format!("{}00{input}", self.turn(&id(session), 0));
                let fence = self.fence(&id(session), fence);
                ("settle", [id(session)].into_iter().chain(fence).chain([input]).collect())
            }
            Steer { session, client, turn } => {
                let turn = if turn == 3 { String::new() } else { self.turn(&id(session), turn) };
                ("steer", vec![id(session), turn, self.request(), self.cid(client), "message".into()])
            }
            Archive { session, interrupts } => {
                let mode = if interrupts { "interrupt" } else { "drain" };
                ("archive", vec![id(session), self.name("r"), mode.into()])
            }
            Label { session } => ("label", vec![id(session), self.name("labels")]),
            Save { session, stale, change } => {
                let mut record = self.record(&id(session), stale, change);
                if change == 4 {
                    record[7] = "1".into();
                }
                ("save", [id(session)].into_iter().chain(record).collect())
            }
            Delete { session, seen } => {
                let seen = match seen {
                    0 => String::new(),
                    1 => self.model.record(&id(session)).0,
                    _ => "none-such".into(),
                };
                ("delete", vec![id(session), self.name("r"), seen])
            }
            Take { session, stale } => {
                let seen = if stale { "none-such".into() } else { self.model.record(&id(session)).0 };
                ("take", vec![id(session), self.request(), seen])
            }
            Restart { session, client } => {
                ("restart", vec![id(session), self.request(), self.cid(client), "order".into()])
            }
            Follow { session, client, feed, ends } => {
                let name = self.feed(feed);
                // A name is not used again.
                *self.incarnations[2].entry(feed).or_default() += usize::from(ends);
                let options = if ends { String::new() } else { self.name("options ") };
                ("follow", vec![id(session), self.cid(client), name, options])
            }
            Credit { session, client, feed, epoch, sum } => {
                // As decimal numbers, they are not in the order of their texts.
                let sum = ["999", "1000", "3000", "3001", "2000000", "2000001", "closed", ""][usize::from(sum)];
                ("credit", vec![id(session), self.cid(client), format!("{}:{epoch}", self.feed(feed)), sum.into()])
            }
            Emit { client, feed, epoch, count, last } => {
                let last = ["0", "1", "gap"][usize::from(last)];
                let part = [epoch.to_string(), "1".into(), count.to_string(), last.into(), self.name("events ")];
                ("emit", [self.cid(client), self.feed(feed)].into_iter().chain(part).collect())
            }
            Tell { client, kind } => {
                let kind = ["taken", "event", "end"][usize::from(kind)];
                ("tell", vec![self.cid(client), "m1".into(), kind.into(), "event".into(), "7".into()])
            }
            Unload { session, fence } => {
                ("unload", [id(session)].into_iter().chain(self.fence(&id(session), fence)).collect())
            }
            Outcome { request, client } => {
                let mut args = vec!["s0".into(), self.late_request(request)];
                args.extend((client < 2).then(|| self.cid(client)));
                ("outcome", args)
            }
            Forget { request } => {
                let request = self.late_request(request);
                self.forgotten.insert(request.clone());
                ("forget", vec![request])
            }
            // Mostly one of the last calls.
            Again { call } => {
                let of = if call < 200 { 8 } else { usize::MAX };
                let of = of.min(self.calls.len()).max(1);
                let call = self.calls.iter().rev().nth(usize::from(call) % of).cloned();
                // A client does not repeat a request for so long.
                return call.filter(|call| call.args.get(1).is_none_or(|request| !self.forgotten.contains(request)));
            }
        };
        Some(Call { script, args })
    }
}

/// The lease of a worker or a client, in milliseconds.
const LEASE: &str = "3600000";

/// The beginning of every plan: two clients, two workers, and two sessions of which one is built.
const FIRST_STEPS: [Step; 8] = [
    Step::EnrolClient { client: 0 },
    Step::EnrolClient { client: 1 },
    Step::Enrol { worker: 0, max: 2, queue: 2 },
    Step::Enrol { worker: 1, max: 1, queue: 1 },
    Step::Open { session: 0, client: 0, with_turn: true },
    Step::Keep { session: 0, fence: 0, change: 2 },
    Step::Finish { session: 0, fence: 0, turn: 0, change: 0, faults: false },
    Step::Open { session: 1, client: 1, with_turn: false },
];

/// How often each script has begun its answer with each word.
type Coverage = BTreeMap<(&'static str, String), usize>;

/// What is read of a session after each step.
fn reads(model: &Model) -> Vec<Call> {
    let of = |session| {
        let (owner, _) = model.owner(session);
        [
            Call::new("read", &[session]),
            Call::new("read", &[session, "1"]),
            Call::new("load", &[session]),
            Call::new("summary", &[session]),
            Call::new("look", &[session, &owner]),
        ]
    };
    ["s0", "s1", "s2"].into_iter().flat_map(of).collect()
}

fn play(client: &mut Client, namespace: &str, steps: &[Step], coverage: &mut Coverage) -> Result<(), TestCaseError> {
    let id = client.meet(namespace);
    let mut play = Play::new();
    let mut compare = |client: &mut Client, model: &mut Model, calls: &[Call], what: &str| {
        let told = client.calls(namespace, &id, calls);
        for (call, told) in calls.iter().zip(told) {
            prop_assert_eq!(&told, &model.apply(call.script, &call.args), "{}: {:?}", what, call);
            *coverage.entry((call.script, told.list()[0].text().to_owned())).or_default() += 1;
        }
        Ok(())
    };
    for (at, step) in FIRST_STEPS.into_iter().chain(steps.iter().copied()).enumerate() {
        let Some(call) = play.call(step) else { continue };
        let what = format!("step {at}, {call:?}");
        match call.script {
            // What time does, and no script.
            "kill" => client.end_lease(namespace, &call.args[0], &call.args[1]),
            "forget" => drop(client.command(&["DEL", &format!("{namespace}:req:{}", call.args[0])])),
            _ => compare(client, &mut play.model, std::slice::from_ref(&call), &what)?,
        }
        if ["kill", "forget"].contains(&call.script) {
            play.model.apply(call.script, &call.args);
        }
        play.calls.push(call);
        let mut reads = reads(&play.model);
        reads.extend([0, 1, 2].map(|worker| Call::new("sweep", &[&play.wid(worker)])));
        compare(client, &mut play.model, &reads, &what)?;
    }
    let looks = ["s0", "s1", "s2"].map(|session| Call::new("look", &[session, "none-such"]));
    let pages = [["", "", "2"], ["1001", "s1", "500"]].map(|page| Call::new("list", &page));
    compare(client, &mut play.model, &looks, "at the end")?;
    compare(client, &mut play.model, &pages, "at the end")?;
    let (dump, streams) = (client.dump(namespace), client.streams(namespace));
    prop_assert_eq!(&dump, &play.model.dump());
    prop_assert_eq!(&streams, &play.model.streams());
    each_request_has_one_end(&dump, &streams)
}

/// A turn is in flight until its request has a verdict. No client is told of a verdict, or of the end of a message, twice.
fn each_request_has_one_end(dump: &Dump, streams: &BTreeMap<String, Stream>) -> Result<(), TestCaseError> {
    for (key, known) in dump.iter().filter(|(key, known)| key.starts_with("req:") && known.contains_key("turn")) {
        let field = format!("t:{}:req", known["turn"]);
        let session = dump.get(&format!("s:{}", known["id"]));
        let is_in_flight = session.and_then(|session| session.get(&field)).is_some_and(|request| key[4..] == *request);
        prop_assert_eq!(is_in_flight, !known.contains_key("kind"), "{}: {:?}", key, known);
    }
    for (key, entries) in streams.iter().filter(|(key, _)| key.starts_with("c:")) {
        let mut ends = BTreeSet::new();
        for entry in entries.iter().filter(|entry| entry[0] == "verdict" || entry[0] == "steered") {
            let is_end = entry[0] == "verdict" || ["over", "lost"].contains(&entry[3].as_str());
            prop_assert!(!is_end || ends.insert(&entry[1]), "{} is told twice: {:?}", key, entry);
        }
    }
    Ok(())
}

/// The answers that the plans must have met: every one that a script gives.
const ANSWERS: [(&str, &[&str]); 32] = [
    ("abandon", &["ok", "alive"]),
    ("archive", &["ok", "missing", "archived"]),
    ("ask", &["ok", "cancelled", "conflict"]),
    (
        "begin",
        &["begun", "missing", "archived", "shorter", "faulted", "busy", "full", "capacity", "answered", "tombstone"],
    ),
    ("credit", &["ok", "over"]),
    ("delete", &["ok", "conflict"]),
    ("drain", &["ok", "over"]),
    ("emit", &["ok", "gone"]),
    ("enrol", &["ok", "taken"]),
    ("finish", &["ok", "already", "conflict", "damaged"]),
    ("follow", &["ok", "missing", "archived", "closed"]),
    ("interrupt", &["ok", "missing", "archived", "idle"]),
    ("keep", &["ok", "conflict", "damaged"]),
    ("label", &["ok", "missing", "archived"]),
    ("list", &["ok"]),
    ("load", &["ok", "none"]),
    ("look", &["ok", "gone"]),
    ("open", &["begun", "exists", "capacity", "answered", "tombstone"]),
    ("outcome", &["answered", "running", "tombstone"]),
    ("read", &["ok", "missing"]),
    ("refuse", &["ok", "already", "conflict"]),
    ("renew", &["ok", "over"]),
    ("respond", &["ok", "missing", "settled", "invalid"]),
    ("restart", &["begun", "missing", "archived", "busy", "sound", "capacity", "answered", "tombstone"]),
    ("save", &["ok", "conflict", "damaged"]),
    ("settle", &["answered", "claimed", "cancelled", "conflict"]),
    ("steer", &["ok", "missing", "archived", "idle", "tombstone"]),
    ("summary", &["ok", "none"]),
    ("sweep", &["ok"]),
    ("take", &["ok", "missing", "archived", "busy", "conflict", "tombstone"]),
    ("tell", &["ok", "gone"]),
    ("unload", &["ok", "begun", "over"]),
];

#[test]
fn c81_the_table_of_answers_has_every_script_and_every_answer_in_its_text() {
    let mut names: Vec<&str> = ANSWERS.iter().map(|(script, _)| *script).collect();
    names.sort_unstable();
    let mut scripts = resp::all_scripts();
    scripts.sort_unstable();
    assert_eq!(names, scripts);
    for (script, answers) in ANSWERS {
        let text = resp::text_of(script);
        let given = text.split("return { '").skip(1).map(|rest| rest.split('\'').next().expect("the rest"));
        for answer in given {
            assert!(answers.contains(&answer), "{script} answers {answer}");
        }
    }
}

/// The plans are the same in every run, unless `TURNWISE_SCRIPT_PLANS` has a number: then as many random ones.
fn runner() -> TestRunner {
    let wanted = std::env::var("TURNWISE_SCRIPT_PLANS").ok().and_then(|text| text.parse().ok());
    let cases = wanted.unwrap_or(250);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 2_000, ..Config::default() };
    match wanted {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    }
}

#[test]
fn c81_the_scripts_answer_as_a_sequential_model_does() {
    let Some(server) = Server::start(&["--appendonly", "no"]) else { return };
    let state = RefCell::new((Client::connect(&server), Coverage::new(), 0));
    let played = runner().run(&prop::collection::vec(scene(), 1..80), |scenes| {
        let (client, coverage, count) = &mut *state.borrow_mut();
        *count += 1;
        let result = play(client, &format!("plan{count}"), &scenes.concat(), coverage);
        client.command(&["FLUSHALL"]);
        result
    });
    if let Err(error) = played {
        panic!("{error}");
    }
    let (_, coverage, _) = state.into_inner();
    let met = |script: &'static str, answer: &str| coverage.contains_key(&(script, answer.to_owned()));
    let missed = ANSWERS.iter().flat_map(|(script, answers)| answers.iter().map(move |answer| (*script, *answer)));
    let missed: Vec<_> = missed.filter(|(script, answer)| !met(script, answer)).collect();
    assert!(missed.is_empty(), "no plan has met {missed:?}, but {coverage:?}");
}

#[test]
fn c81_every_script_refuses_a_namespace_with_another_id() {
    let Some(server) = Server::start(&[]) else { return };
    let mut client = Client::connect(&server);
    let id = client.meet("ns");
    assert_eq!(client.script("ns", &id, "load", &["s".into()]), Value::words(["none"]));
    for script in resp::all_scripts() {
        let args = [(); 20].map(|()| "1".to_owned());
        assert_eq!(client.script("ns", "another", &script, &args), Value::words(["replaced"]), "{script}");
        assert_eq!(client.script("gone", &id, &script, &args), Value::words(["replaced"]), "{script}");
    }
    assert_eq!(client.command(&["DBSIZE"]), Value::Word("1".into()), "nothing was written");
}

/// A script passes at most 8,000 values to one command.
#[test]
fn c81_a_turn_with_thousands_of_messages_and_inputs_ends() {
    let Some(server) = Server::start(&["--appendonly", "no"]) else { return };
    let mut client = Client::connect(&server);
    let (id, mut model) = (client.meet("ns"), Model::default());
    let mut calls = vec![
        Call::new("enrol", &["c", "c", LEASE]),
        Call::new("enrol", &["w", "w", LEASE, "1", "0"]),
        Call::new("open", &["s0", "r", "c", "1", "order"]),
    ];
    for number in 0..3_000 {
        let name = |kind: &str| format!("{kind}{number}");
        calls.push(Call::new("ask", &["s0", "w", "1", "1", &name("i"), "question", ""]));
        calls.push(Call::new("steer", &["s0", "1", &name("m"), "c", "message"]));
    }
    calls.push(Call::new("keep", &["s0", "w", "1", "", "v1", "0", "1000", "head", "sum", "{}", "0", "0"]));
    calls.push(Call::new("finish", &["s0", "w", "1", "1", "r", "result", ""]));
    // Fewer than fill the buffers of the connection.
    for part in calls.chunks(100) {
        for (call, told) in part.iter().zip(client.calls("ns", &id, part)) {
            assert_eq!(told, model.apply(call.script, &call.args), "{call:?}");
        }
    }
    assert_eq!(client.dump("ns"), model.dump());
    assert_eq!(client.streams("ns")["c:c"], model.streams()["c:c"]);
}
