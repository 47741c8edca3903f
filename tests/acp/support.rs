//! A client over pipes.

use std::collections::VecDeque;
use std::io::{pipe, BufRead, BufReader, PipeReader, PipeWriter, Write};
use std::thread;
use std::time::Duration;

use serde_json::{json, Value};
use turnwise::acp::{serve, AcpClients, AcpConfig, AcpError, AcpService};
use turnwise::crossbeam_channel::{bounded, unbounded, Receiver};
use turnwise::store::{FileStore, PersistentSessionService};
use turnwise::testkit::{within, Scripted};
use turnwise::EphemeralSessionService;

/// The limit of waits that have to succeed.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Runs the body of a test under a watchdog.
#[track_caller]
pub(crate) fn run(body: impl FnOnce() + Send + 'static) {
    within(2 * LONG, body);
}

/// Options whose times let no loaded machine fail a test.
pub(crate) fn config() -> AcpConfig {
    AcpConfig::new(AcpClients::new()).grace(LONG).load_timeout(LONG).close_timeout(LONG)
}

pub(crate) fn service(agents: Scripted) -> EphemeralSessionService<Scripted> {
    EphemeralSessionService::configure(agents).max_sessions(16).turn_queue(8).build().expect("a valid configuration")
}

/// A service that stores its sessions in memory.
pub(crate) fn keeping(agents: Scripted) -> PersistentSessionService<Scripted> {
    let store = FileStore::in_memory().expect("a store");
    PersistentSessionService::with_config(EphemeralSessionService::configure(agents).max_sessions(16), store)
        .expect("a valid configuration")
}

/// A client that is connected to an agent.
pub(crate) struct Client {
    input: Option<PipeWriter>,
    lines: Receiver<Value>,
    /// Lines that were passed over by a wait for another one.
    unread: VecDeque<Value>,
    serving: Receiver<Result<(), AcpError>>,
    next_id: i64,
}

/// Starts an agent with pipes whose other ends are returned.
pub(crate) fn start<S: AcpService>(
    service: S,
    config: AcpConfig,
) -> (PipeWriter, PipeReader, Receiver<Result<(), AcpError>>) {
    let (input, to_agent) = pipe().expect("a pipe");
    let (from_agent, output) = pipe().expect("a pipe");
    let (ended, serving) = bounded(1);
    thread::spawn(move || ended.send(serve(service, config, input, output)));
    (to_agent, from_agent, serving)
}

impl Client {
    /// Connects, without `initialize`.
    pub(crate) fn new<S: AcpService>(service: S, config: AcpConfig) -> Self {
        let (input, output, serving) = start(service, config);
        let (sender, lines) = unbounded();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let line = line.expect("text");
                let message: Value = serde_json::from_str(&line).expect("a line of the agent is JSON");
                assert_eq!(message["jsonrpc"], "2.0", "{message}");
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Self { input: Some(input), lines, unread: VecDeque::new(), serving, next_id: 1 }
    }

    /// Connects with `initialize`, and with these capabilities of the client.
    pub(crate) fn able<S: AcpService>(service: S, config: AcpConfig, capabilities: Value) -> Self {
        let mut client = Self::new(service, config);
        let params = json!({ "protocolVersion": 1, "clientCapabilities": capabilities });
        client.ask("initialize", params).expect("initialize");
        client
    }

    pub(crate) fn connect<S: AcpService>(service: S, config: AcpConfig) -> Self {
        Self::able(service, config, json!({}))
    }

    /// Writes a line as it is.
    pub(crate) fn write(&mut self, line: &[u8]) {
        let input = self.input.as_mut().expect("the client is connected");
        input.write_all(&[line, b"\n"].concat()).expect("the agent reads");
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.write(message.to_string().as_bytes());
    }

    /// Sends a request, and returns its id.
    pub(crate) fn request(&mut self, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        id
    }

    pub(crate) fn notify(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// The next line that no wait has passed over.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Value {
        self.unread.pop_front().unwrap_or_else(|| self.receive())
    }

    #[track_caller]
    fn receive(&self) -> Value {
        self.lines.recv_timeout(LONG).expect("the agent sends a line")
    }

    /// The next line that fits. Lines before it stay for later.
    #[track_caller]
    pub(crate) fn find(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.unread.iter().position(&fits) {
            return self.unread.remove(at).expect("a line at this position");
        }
        loop {
            let line = self.receive();
            if fits(&line) {
                return line;
            }
            self.unread.push_back(line);
        }
    }

    /// The answer of a request. The error is its code.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: i64) -> Result<Value, i64> {
        let answer = self.find(|line| line["id"] == id && line.get("method").is_none());
        match answer.get("error") {
            Some(error) => Err(error["code"].as_i64().expect("a code")),
            None => Ok(answer["result"].clone()),
        }
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> Result<Value, i64> {
        let id = self.request(method, params);
        self.answer(id)
    }

    /// Opens a session in this directory.
    #[track_caller]
    pub(crate) fn open_in(&mut self, cwd: &str) -> String {
        let answer = self.ask("session/new", json!({ "cwd": cwd, "mcpServers": [] })).expect("a session");
        answer["sessionId"].as_str().expect("an id").to_owned()
    }

    #[track_caller]
    pub(crate) fn open(&mut self) -> String {
        self.open_in("/work")
    }

    /// Sends a prompt, and returns the id of the request.
    pub(crate) fn prompt(&mut self, session: &str, text: &str) -> i64 {
        self.request("session/prompt", json!({ "sessionId": session, "prompt": [{ "type": "text", "text": text }] }))
    }

    /// The reason why a prompt has stopped.
    #[track_caller]
    pub(crate) fn stopped(&mut self, prompt: i64) -> Result<String, i64> {
        self.answer(prompt).map(|result| result["stopReason"].as_str().expect("a reason").to_owned())
    }

    /// The next request of the agent with this method.
    #[track_caller]
    pub(crate) fn called(&mut self, method: &str) -> Value {
        self.find(|line| line["method"] == method && line.get("id").is_some())
    }

    /// Answers a request of the agent.
    pub(crate) fn reply(&mut self, call: &Value, result: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": call["id"], "result": result }));
    }

    /// The updates that have arrived before the last line that was found, and were not read.
    pub(crate) fn updates(&mut self) -> Vec<Value> {
        let is_update = |line: &Value| line["method"] == "session/update";
        let (updates, others) = std::mem::take(&mut self.unread).into_iter().partition(is_update);
        self.unread = others;
        let updates: VecDeque<Value> = updates;
        updates.into_iter().map(|line| line["params"]["update"].clone()).collect()
    }

    /// The text of the answer of the agent in these updates.
    pub(crate) fn text(&mut self) -> String {
        let updates = self.updates();
        let chunks = updates.iter().filter(|update| update["sessionUpdate"] == "agent_message_chunk");
        chunks.map(|chunk| chunk["content"]["text"].as_str().expect("text")).collect()
    }

    /// Closes the input of the agent, and waits for the end of `serve`. Returns it with the lines that follow.
    #[track_caller]
    pub(crate) fn leave(mut self) -> (Result<(), AcpError>, Vec<Value>) {
        drop(self.input.take());
        let result = self.serving.recv_timeout(LONG).expect("serve ends after the client");
        let rest = self.unread.into_iter().chain(self.lines.iter()).collect();
        (result, rest)
    }
}

pub(crate) fn code_of(line: &Value) -> i64 {
    line["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {line}"))
}
