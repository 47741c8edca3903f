//! The scripts, without the library: each call goes to a real server and to a sequential model, and both must answer
//! the same. At the end the server must have exactly the keys and the fields that the model has.
//!
//! A plan is a list of steps. A step names its sessions, workers and turns by number, and becomes a call when it is
//! played, so that it mostly fits the state. Some steps repeat an earlier call, as a client does that has lost a reply.

mod model;
mod resp;

use std::cell::RefCell;
use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::server::Server;
use model::Model;
use resp::{Client, Value};

/// A script with its arguments behind the id of the namespace.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    script: &'static str,
    args: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Enrol { worker: u8, max: u8, queue: u8 },
    Kill { worker: u8 },
    Renew { worker: u8 },
    Drain { worker: u8 },
    Abandon { worker: u8, gives_up: bool },
    Open { session: u8, client: u8, with_turn: bool },
    Begin { session: u8, client: u8, when_busy: u8, seen: u8 },
    Keep { session: u8, fence: u8, change: u8 },
    Finish { session: u8, fence: u8, turn: u8, change: u8 },
    Refuse { session: u8, fence: u8, turn: u8 },
    Interrupt { session: u8, turn: u8 },
    Ask { session: u8, fence: u8, input: u8, has_options: bool },
    Respond { session: u8, input: u8, answer: u8 },
    Settle { session: u8, fence: u8, input: u8 },
    Steer { session: u8, client: u8, turn: u8 },
    Archive { session: u8, interrupts: bool },
    Label { session: u8 },
    Save { session: u8, stale: bool, change: u8 },
    Delete { session: u8, seen: u8 },
    Unload { session: u8, fence: u8 },
    Outcome { request: u8 },
    Again { call: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    let (session, worker, client) = (0..3_u8, 0..3_u8, 0..2_u8);
    // Mostly the owner with its epoch; see `fence`.
    let fence = || prop_oneof![9 => Just(0_u8), 1 => 1..4_u8];
    let input = || prop_oneof![4 => Just(0_u8), 1 => Just(1_u8)];
    let turn = || prop_oneof![6 => Just(0_u8), 4 => 1..4_u8];
    prop_oneof![
        2 => (worker.clone(), 1..3_u8, 0..3_u8).prop_map(|(worker, max, queue)| Enrol { worker, max, queue }),
        1 => worker.clone().prop_map(|worker| Kill { worker }),
        1 => worker.clone().prop_map(|worker| Renew { worker }),
        1 => worker.clone().prop_map(|worker| Drain { worker }),
        1 => (worker, any::<bool>()).prop_map(|(worker, gives_up)| Abandon { worker, gives_up }),
        4 => (session.clone(), client.clone(), any::<bool>())
            .prop_map(|(session, client, with_turn)| Open { session, client, with_turn }),
        12 => (session.clone(), client.clone(), 0..3_u8, 0..12_u8)
            .prop_map(|(session, client, when_busy, seen)| Begin { session, client, when_busy, seen }),
        4 => (session.clone(), fence(), 0..4_u8).prop_map(|(session, fence, change)| Keep { session, fence, change }),
        8 => (session.clone(), fence(), turn(), 0..4_u8)
            .prop_map(|(session, fence, turn, change)| Finish { session, fence, turn, change }),
        2 => (session.clone(), fence(), turn()).prop_map(|(session, fence, turn)| Refuse { session, fence, turn }),
        3 => (session.clone(), turn()).prop_map(|(session, turn)| Interrupt { session, turn }),
        4 => (session.clone(), fence(), input(), any::<bool>())
            .prop_map(|(session, fence, input, has_options)| Ask { session, fence, input, has_options }),
        4 => (session.clone(), input(), 0..3_u8)
            .prop_map(|(session, input, answer)| Respond { session, input, answer }),
        2 => (session.clone(), fence(), input()).prop_map(|(session, fence, input)| Settle { session, fence, input }),
        3 => (session.clone(), client, turn()).prop_map(|(session, client, turn)| Steer { session, client, turn }),
        2 => (session.clone(), any::<bool>()).prop_map(|(session, interrupts)| Archive { session, interrupts }),
        1 => session.clone().prop_map(|session| Label { session }),
        2 => (session.clone(), any::<bool>(), 0..4_u8)
            .prop_map(|(session, stale, change)| Save { session, stale, change }),
        1 => (session.clone(), 0..3_u8).prop_map(|(session, seen)| Delete { session, seen }),
        2 => (session, fence()).prop_map(|(session, fence)| Unload { session, fence }),
        2 => any::<u8>().prop_map(|request| Outcome { request }),
        12 => any::<u8>().prop_map(|call| Again { call }),
    ]
}

/// A play of one plan: the model, the calls so far, and how many names were given.
struct Play {
    model: Model,
    calls: Vec<Call>,
    requests: Vec<String>,
    incarnations: BTreeMap<u8, usize>,
    named: usize,
}

impl Play {
    fn new() -> Self {
        let (model, calls, requests) = (Model::default(), Vec::new(), Vec::new());
        Self { model, calls, requests, incarnations: BTreeMap::new(), named: 0 }
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
        format!("w{worker}-{}", self.incarnations.get(&worker).copied().unwrap_or(0))
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

    /// The arguments of a record: an append, an append of nothing, a replacement, or a damaged append.
    fn record(&mut self, id: &str, is_stale: bool, change: u8) -> Vec<String> {
        let (seen, len, created) = self.model.record(id);
        let seen = if is_stale { "none-such".into() } else { seen };
        let next = self.name("v");
        let stored = match change {
            0 | 1 => len.to_string(),
            2 => String::new(),
            _ => (len + 1).to_string(),
        };
        let mut args = vec![seen, next.clone(), stored, created, format!("head {next}"), format!("sum {next}")];
        args.extend(["{}".into(), "0".into(), if change == 2 { "5" } else { "0" }.to_string()]);
        let added = [1, 0, 2, 1][usize::from(change % 4)];
        args.extend((0..added).map(|index| format!("message {index} of {next}")));
        args
    }

    /// The call of a step; `None` where it has none in this state.
    fn call(&mut self, step: Step) -> Option<Call> {
        use Step::*;
        let id = |session: u8| format!("s{session}");
        let cid = |client: u8| format!("c{client}");
        let (script, args): (_, Vec<String>) = match step {
            Enrol { worker, max, queue } => {
                *self.incarnations.entry(worker).or_default() += 1;
                let wid = self.wid(worker);
                ("enrol", vec!["w".into(), wid, "3600000".into(), max.to_string(), queue.to_string()])
            }
            Kill { worker } => ("kill", vec![self.wid(worker)]),
            Renew { worker } => ("renew", vec!["w".into(), self.wid(worker), "3600000".into()]),
            Drain { worker } => ("drain", vec![self.wid(worker)]),
            Abandon { worker, gives_up } => {
                ("abandon", vec![self.wid(worker), "100".into(), if gives_up { "1" } else { "0" }.into()])
            }
            Open { session, client, with_turn } => {
                let turn = if with_turn { "1" } else { "0" };
                ("open", vec![id(session), self.request(), cid(client), turn.into(), "spec".into()])
            }
            Begin { session, client, when_busy, seen } => {
                let when_busy = ["refuse", "queue", "interrupt"][usize::from(when_busy)];
                // Mostly fewer than were answered.
                let seen = if seen == 11 { "1000" } else { "0" };
                let request = self.request();
                ("begin", [&id(session), &request, &cid(client), seen, when_busy, "prompt"].map(str::to_owned).into())
            }
            Keep { session, fence, change } => {
                let record = self.record(&id(session), fence == 3, change);
                let fence = self.fence(&id(session), fence);
                ("keep", [id(session)].into_iter().chain(fence).chain(record).collect())
            }
            Finish { session, fence, turn, change } => {
                let turn = self.turn(&id(session), turn);
                let request = self.model.request_of(&id(session), &turn);
                // Without a record where the history is as before.
                let record = if change == 1 { Vec::new() } else { self.record(&id(session), false, change) };
                let fence = self.fence(&id(session), fence);
                let head = [id(session)].into_iter().chain(fence).chain([turn, request, "result".into()]);
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
                ("interrupt", vec![id(session), turn, "interrupted".into()])
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
                ("steer", vec![id(session), turn, self.name("m"), cid(client), "message".into()])
            }
            Archive { session, interrupts } => {
                let mode = if interrupts { "interrupt" } else { "drain" };
                ("archive", vec![id(session), self.name("r"), mode.into()])
            }
            Label { session } => ("label", vec![id(session), self.name("labels")]),
            Save { session, stale, change } => {
                let record = self.record(&id(session), stale, change);
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
            Unload { session, fence } => {
                ("unload", [id(session)].into_iter().chain(self.fence(&id(session), fence)).collect())
            }
            Outcome { request } => {
                // A request that was made lately, or one that the engine has not seen.
                let last = self.requests.iter().rev().nth(usize::from(request) % 8);
                let request = last.cloned().unwrap_or_else(|| "r-unknown".into());
                ("outcome", vec!["s0".into(), request])
            }
            // Mostly one of the last calls.
            Again { call } => {
                let of = if call < 200 { 8 } else { usize::MAX };
                let of = of.min(self.calls.len()).max(1);
                return self.calls.iter().rev().nth(usize::from(call) % of).cloned();
            }
        };
        Some(Call { script, args })
    }
}

/// The beginning of every plan: two workers, and two sessions of which one is built.
const FIRST_STEPS: [Step; 6] = [
    Step::Enrol { worker: 0, max: 2, queue: 2 },
    Step::Enrol { worker: 1, max: 1, queue: 1 },
    Step::Open { session: 0, client: 0, with_turn: true },
    Step::Keep { session: 0, fence: 0, change: 2 },
    Step::Finish { session: 0, fence: 0, turn: 0, change: 0 },
    Step::Open { session: 1, client: 1, with_turn: false },
];

/// How often each script has begun its answer with each word.
type Coverage = BTreeMap<(&'static str, String), usize>;

fn play(client: &mut Client, namespace: &str, steps: &[Step], coverage: &mut Coverage) -> Result<(), TestCaseError> {
    let id = client.meet(namespace);
    for cid in ["c0", "c1"] {
        client.script(namespace, &id, "enrol", &["c".into(), cid.into(), "3600000".into()]);
    }
    let mut play = Play::new();
    for (at, step) in FIRST_STEPS.into_iter().chain(steps.iter().copied()).enumerate() {
        let Some(call) = play.call(step) else { continue };
        let told = match call.script {
            // The lease ends, which no script does.
            "kill" => {
                client.command(&["DEL", &format!("{namespace}:w:{}:l", call.args[0])]);
                Value::ok()
            }
            script => client.script(namespace, &id, script, &call.args),
        };
        let expected = play.model.apply(call.script, &call.args);
        prop_assert_eq!(&told, &expected, "step {}: {:?}", at, call);
        *coverage.entry((call.script, told.list()[0].text().to_owned())).or_default() += 1;
        play.calls.push(call);
        for session in ["s0", "s1", "s2"] {
            for script in ["read", "load", "summary"] {
                let args = [session.to_owned()];
                let told = client.script(namespace, &id, script, &args);
                prop_assert_eq!(told, play.model.apply(script, &args), "step {}: then {} of {}", at, script, session);
            }
            let args = [session.to_owned(), play.model.owner(session).0];
            let told = client.script(namespace, &id, "look", &args);
            prop_assert_eq!(told, play.model.apply("look", &args), "step {}: then look at {}", at, session);
        }
    }
    let page = ["".to_owned(), "".to_owned(), "2".to_owned()];
    prop_assert_eq!(client.script(namespace, &id, "list", &page), play.model.apply("list", &page));
    let rest = ["1001".to_owned(), "s1".to_owned(), "500".to_owned()];
    prop_assert_eq!(client.script(namespace, &id, "list", &rest), play.model.apply("list", &rest));
    prop_assert_eq!(client.dump(namespace), play.model.dump());
    for cid in ["c0", "c1"] {
        prop_assert_eq!(client.messages(namespace, cid), play.model.messages(cid));
    }
    Ok(())
}

/// The answers that the plans must have met: every one that a script gives.
const ANSWERS: [(&str, &[&str]); 19] = [
    ("abandon", &["ok", "alive"]),
    ("archive", &["ok", "missing", "archived"]),
    ("ask", &["ok", "cancelled", "conflict"]),
    ("begin", &["begun", "missing", "archived", "shorter", "busy", "full", "capacity", "answered", "tombstone"]),
    ("delete", &["ok", "conflict"]),
    ("drain", &["ok", "over"]),
    ("enrol", &["ok", "taken"]),
    ("finish", &["ok", "already", "conflict", "damaged"]),
    ("interrupt", &["ok", "missing", "archived", "idle"]),
    ("keep", &["ok", "conflict", "damaged"]),
    ("label", &["ok", "missing", "archived"]),
    ("open", &["begun", "exists", "capacity", "answered", "tombstone"]),
    ("outcome", &["answered", "running", "tombstone"]),
    ("refuse", &["ok", "already", "conflict"]),
    ("respond", &["ok", "missing", "settled", "invalid"]),
    ("save", &["ok", "conflict", "damaged"]),
    ("settle", &["answered", "claimed", "cancelled", "conflict"]),
    ("steer", &["ok", "missing", "archived", "idle"]),
    ("unload", &["ok", "begun", "over"]),
];

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
    let played = runner().run(&prop::collection::vec(step(), 1..100), |steps| {
        let (client, coverage, count) = &mut *state.borrow_mut();
        *count += 1;
        let result = play(client, &format!("plan{count}"), &steps, coverage);
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
