//! The connection to an editor: cancellations against the begin of a turn, replies and the end: C73, C75 and C76.

use std::io::{self, Read, Write};

use serde_json::{json, Value};

#[cfg(feature = "store")]
use super::keeping::{messages, Memory};
use super::support::*;
use super::{explore, join, spawn};
use crate::acp::{serve, AcpClients, AcpConfig, AcpError, AcpService};
#[cfg(feature = "store")]
use crate::store::PersistentSessionService;
#[cfg(feature = "store")]
use crate::sync::Arc;
use crate::sync::{bounded, unbounded, JoinHandle, Receiver, Sender};
#[cfg(feature = "store")]
use crate::SessionSpec;
use crate::{AgentEvent, EphemeralSessionService, SessionService, WhenBusy};

/// The input of the agent: lines from a channel, until that disconnects.
struct Input {
    lines: Receiver<String>,
    rest: Vec<u8>,
}

impl Read for Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty() {
            self.rest = self.lines.recv().map(String::into_bytes).unwrap_or_default();
        }
        let size = self.rest.len().min(into.len());
        into[..size].copy_from_slice(&self.rest[..size]);
        self.rest.drain(..size);
        Ok(size)
    }
}

/// The output of the agent: what is written at a time, in a channel. It waits while the channel is full.
struct Output(Sender<Vec<u8>>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Client {
    input: Sender<String>,
    output: Receiver<Vec<u8>>,
    read: Vec<u8>,
    serving: JoinHandle<Result<(), AcpError>>,
    session: Value,
}

impl Client {
    /// A client with one session.
    fn connect(
        service: impl AcpService,
        config: AcpConfig,
        (written, output): (Sender<Vec<u8>>, Receiver<Vec<u8>>),
    ) -> Self {
        let (input, lines) = unbounded();
        let serving = spawn(move || serve(service, config, Input { lines, rest: Vec::new() }, Output(written)));
        let mut client = Self { input, output, read: Vec::new(), serving, session: Value::Null };
        let able = json!({ "fs": { "readTextFile": true } });
        client.request(0, "initialize", json!({ "protocolVersion": 1, "clientCapabilities": able }));
        client.request(1, "session/new", json!({ "cwd": "/work" }));
        client.next().unwrap();
        client.session = client.next().unwrap()["result"]["sessionId"].clone();
        client
    }

    fn send(&self, message: Value) {
        self.input.send(format!("{message}\n")).unwrap();
    }

    fn request(&self, id: i64, method: &str, params: Value) {
        self.send(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
    }

    fn prompt(&self, id: i64, text: &str) {
        let prompt = json!([{ "type": "text", "text": text }]);
        self.request(id, "session/prompt", json!({ "sessionId": self.session, "prompt": prompt }));
    }

    fn cancel(&self) {
        self.send(json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": self.session } }));
    }

    /// The next line, or `None` at the end of the output.
    fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.read.extend(self.output.recv().ok()?);
        }
    }

    /// Goes away, and returns the lines that are left.
    fn leave(self) -> Vec<Value> {
        let Self { input, output, read, serving, session } = self;
        drop(input);
        // The output ends with the writer.
        let mut rest = Client { input: unbounded().0, output, read, serving, session };
        let lines = std::iter::from_fn(|| rest.next()).collect();
        join(rest.serving).unwrap();
        lines
    }
}

fn config() -> AcpConfig {
    AcpConfig::new(AcpClients::new()).grace(FAR)
}

/// The reasons with which the prompts have stopped, by their ids.
fn stopped(lines: &[Value]) -> Vec<(i64, &str)> {
    let answers = lines.iter().filter(|line| line.get("method").is_none());
    answers.map(|line| (line["id"].as_i64().unwrap(), line["result"]["stopReason"].as_str().unwrap())).collect()
}

#[test]
fn c73_a_cancellation_behind_its_prompts_answers_each_of_them() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let mut client = Client::connect(service, config().when_busy(WhenBusy::Queue), unbounded());
        client.prompt(2, "wait");
        client.prompt(3, "x");
        client.cancel();
        let lines = [client.next().unwrap(), client.next().unwrap()];
        let mut answers = stopped(&lines);
        answers.sort_unstable();
        assert_eq!(answers, [(2, "cancelled"), (3, "cancelled")]);
        assert!(client.leave().is_empty());
    });
}

#[test]
fn c76_a_client_that_leaves_behind_its_prompt_cancels_it() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let client = Client::connect(service.clone(), config(), unbounded());
        client.prompt(2, "wait");
        assert_eq!(stopped(&client.leave()), [(2, "cancelled")]);
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c75_a_reply_and_a_cancellation_end_a_call_once() {
    explore(|| {
        let clients = AcpClients::new();
        let config = AcpConfig::new(clients.clone()).grace(FAR);
        let agents =
            actors(move |path, turn| Ok(clients.client(turn.session_id()).read_text_file(turn, path, None, None)?));
        let mut client = Client::connect(EphemeralSessionService::new(agents, 1), config, unbounded());
        client.prompt(2, "/a");
        let call = client.next().unwrap();
        client.send(json!({ "jsonrpc": "2.0", "id": call["id"], "result": { "content": "text" } }));
        client.cancel();
        let lines = client.leave();
        let answers = stopped(&lines);
        assert!(matches!(answers[..], [(2, "end_turn" | "cancelled")]), "{lines:?}");
    });
}

#[test]
fn c76_a_cancellation_frees_a_turn_whose_client_does_not_read() {
    explore(|| {
        // Larger than the buffer of the writer, which would hold many small updates.
        let delta = "x".repeat(10_000);
        let agents = actors(move |_, turn| loop {
            turn.emit(AgentEvent::TextDelta { delta: delta.clone() })?;
        });
        let service = EphemeralSessionService::new(agents, 1);
        let mut client = Client::connect(service.clone(), config().unread_updates(1), bounded(1));
        client.prompt(2, "flood");
        // One update is read, so the turn runs. Nothing is read from then on, until the turn has ended. One line is in the
        // output, one with the writer, one in its queue, one with the worker, one in the channel, and one with the turn.
        client.next().unwrap();
        client.cancel();
        service.wait_idle(client.session.as_str().unwrap().parse().unwrap(), FAR).unwrap();
        let lines = client.leave();
        assert_eq!(stopped(&lines), [(2, "cancelled")]);
        assert!(lines.len() <= 9, "{}", lines.len());
    });
}

#[cfg(feature = "store")]
#[test]
fn c71_a_prompt_that_meets_the_unload_of_its_session_runs() {
    explore(|| {
        let (store, clients) = (Arc::<Memory>::default(), AcpClients::new());
        let of_agents = clients.clone();
        let agents = actors(move |prompt, turn| {
            assert!(of_agents.client(turn.session_id()).cwd().is_some(), "the new agent finds its client");
            act(prompt, turn)
        });
        let config = EphemeralSessionService::configure(agents).max_sessions(2).idle_threads(0);
        let config = PersistentSessionService::configure(config, Arc::clone(&store)).unload_when_full(true);
        let service = config.build().unwrap();
        let mut client = Client::connect(service.clone(), AcpConfig::new(clients).grace(FAR), unbounded());
        // There is one session that the rival could have unloaded instead, so the prompt finds room too.
        open(&service);
        let other = service.clone();
        let rival = spawn(move || {
            other.open_session(SessionSpec::new()).expect("there is room");
        });
        client.prompt(2, "x");
        let lines = [client.next().unwrap(), client.next().unwrap()];
        assert_eq!(lines[0]["params"]["update"]["content"]["text"], "x");
        assert_eq!(stopped(&lines), [(2, "end_turn")]);
        join(rival);
        let id = client.session.as_str().unwrap().parse().unwrap();
        assert!(client.leave().is_empty());
        assert_eq!(messages(&store, id), 1);
    });
}
