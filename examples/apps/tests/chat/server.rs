//! A server that follows the script of a test, and answers well or badly.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{json, Value};
use tiny_http::{Header, Request, Response};

/// The server's action for one request.
pub(crate) type Act = Box<dyn FnOnce(Request) + Send>;

pub(crate) struct Server {
    http: Arc<tiny_http::Server>,
    pub(crate) url: String,
    asked: Receiver<Asked>,
    thread: Option<JoinHandle<()>>,
}

/// A request that has arrived.
pub(crate) struct Asked {
    pub(crate) path: String,
    pub(crate) key: Option<String>,
    pub(crate) body: Value,
}

impl Server {
    /// Starts a server. Each act answers one request, in the order of arrival, on a thread of its own.
    pub(crate) fn start(acts: Vec<Act>) -> Self {
        let http = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("a free port"));
        let url = format!("http://{}/v1", http.server_addr());
        let (note, asked) = channel();
        let server = Arc::clone(&http);
        let thread = thread::spawn(move || serve(&server, acts.into(), &note));
        Self { http, url, asked, thread: Some(thread) }
    }

    /// The next request that has arrived.
    #[track_caller]
    pub(crate) fn asked(&self) -> Asked {
        self.asked.recv_timeout(Duration::from_secs(60)).expect("a request")
    }

    /// Whether a request has arrived that the test has not taken.
    pub(crate) fn was_asked_more(&self) -> bool {
        self.asked.try_recv().is_ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.http.unblock();
        // After a failed test, an act may wait for ever.
        if let Some(thread) = self.thread.take().filter(|_| !thread::panicking()) {
            thread.join().expect("the server works");
        }
    }
}

impl Asked {
    /// The messages of the request, as `(role, content)`.
    pub(crate) fn messages(&self) -> Vec<(&str, &str)> {
        let messages = self.body["messages"].as_array().expect("messages");
        messages.iter().map(|message| (field(message, "role"), field(message, "content"))).collect()
    }
}

fn field<'a>(message: &'a Value, name: &str) -> &'a str {
    message[name].as_str().unwrap_or_default()
}

fn serve(server: &tiny_http::Server, mut acts: VecDeque<Act>, note: &Sender<Asked>) {
    thread::scope(|scope| {
        // `unblock` ends this loop.
        while let Ok(mut request) = server.recv() {
            let body: Value = serde_json::from_reader(request.as_reader()).expect("JSON");
            let key = request.headers().iter().find(|header| header.field.equiv("authorization"));
            let key = key.map(|header| header.value.to_string());
            assert_sound(&body["messages"]);
            // The test may have ended.
            let _ = note.send(Asked { path: request.url().to_owned(), key, body });
            match acts.pop_front() {
                Some(act) => _ = scope.spawn(move || act(request)),
                None => respond(request, Response::from_string("nothing more is expected").with_status_code(418)),
            }
        }
    });
}

/// Panics on messages that endpoints refuse: calls without a name, an id, a result or valid arguments, results without
/// a call, messages without content.
fn assert_sound(messages: &Value) {
    let mut unanswered: Vec<&str> = Vec::new();
    for message in messages.as_array().expect("messages") {
        let (role, content) = (field(message, "role"), field(message, "content"));
        if role == "tool" {
            let id = field(message, "tool_call_id");
            let call = unanswered.iter().position(|call| *call == id).unwrap_or_else(|| panic!("no call '{id}'"));
            unanswered.remove(call);
            continue;
        }
        assert!(unanswered.is_empty(), "unanswered: {unanswered:?}");
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(!content.is_empty() || !calls.is_empty(), "nothing in {message}");
        for call in calls {
            let (id, function) = (field(call, "id"), &call["function"]);
            assert!(!id.is_empty() && !unanswered.contains(&id), "'{id}' is the id of another call");
            assert!(!field(function, "name").is_empty());
            serde_json::from_str::<Value>(field(function, "arguments")).expect("arguments are JSON");
            unanswered.push(id);
        }
    }
    assert!(unanswered.is_empty(), "unanswered: {unanswered:?}");
}

fn respond<R: std::io::Read>(request: Request, response: Response<R>) {
    // The program may have ended.
    let _ = request.respond(response);
}

/// Answers with these words, each in a piece of its own.
pub(crate) fn words(pieces: &[&str]) -> Act {
    let (pieces, last) = (pieces.iter().map(|piece| text(piece)).collect::<Vec<_>>(), finish("stop"));
    Box::new(move |request| {
        let mut stream = Stream::begin(request);
        pieces.iter().for_each(|piece| stream.event(piece));
        stream.event(&last);
        stream.end();
    })
}

/// Calls tools: `(id, name, arguments)`, each call in several pieces.
pub(crate) fn calls(calls: &[(&str, &str, &str)]) -> Act {
    let call = |(index, &(id, name, args)): (usize, &(&str, &str, &str))| {
        let (first, second) = args.split_at(args.len() / 2);
        let function = |arguments: &str| json!({ "index": index, "function": { "arguments": arguments } });
        let begin =
            json!({ "index": index, "id": id, "type": "function", "function": { "name": name, "arguments": "" } });
        [begin, function(first), function(second)].map(|call| chunk(json!({ "tool_calls": [call] }), None))
    };
    let pieces: Vec<_> = calls.iter().enumerate().flat_map(call).chain([finish("tool_calls")]).collect();
    Box::new(move |request| {
        let mut stream = Stream::begin(request);
        pieces.iter().for_each(|piece| stream.event(piece));
        stream.end();
    })
}

/// Refuses with this status, these headers, and this body.
pub(crate) fn status(code: u16, headers: &[(&str, &str)], body: &str) -> Act {
    let headers: Vec<_> =
        headers.iter().map(|(name, value)| Header::from_bytes(*name, *value).expect("a header")).collect();
    let body = body.to_owned();
    Box::new(move |request| {
        let response = Response::from_string(body).with_status_code(code);
        respond(request, headers.into_iter().fold(response, Response::with_header));
    })
}

/// Begins a stream, sends these bytes, and closes the connection.
pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Act {
    let bytes = bytes.into();
    Box::new(move |request| Stream::begin(request).raw(&bytes))
}

/// Begins a stream, sends these bytes, and ends the stream in the way of HTTP.
pub(crate) fn closed(bytes: impl Into<Vec<u8>>) -> Act {
    let bytes = bytes.into();
    Box::new(move |request| {
        let mut stream = Stream::begin(request);
        stream.raw(&bytes);
        stream.close();
    })
}

/// Sends these words, and then heartbeats until the program closes the connection. The receiver gets a message then.
pub(crate) fn words_until_closed(pieces: &[&str]) -> (Act, Receiver<()>) {
    let events: Vec<_> = pieces.iter().map(|piece| format!("data: {}\n\n", text(piece))).collect();
    then_heartbeats(events.concat())
}

/// Begins a stream, sends these bytes, and then comments until the program closes the connection. The receiver gets a
/// message then.
pub(crate) fn then_heartbeats(bytes: impl Into<Vec<u8>>) -> (Act, Receiver<()>) {
    let bytes = bytes.into();
    let (closed, is_closed) = channel();
    let act = move |request| {
        let mut stream = Stream::begin(request);
        stream.raw(&bytes);
        // A write fails after the program has closed the connection. The pause keeps the window of the socket free: the
        // system reports the close of a socket with a full window only after a minute.
        while stream.write(b": still thinking\n\n") {
            thread::sleep(Duration::from_millis(2));
        }
        let _ = closed.send(());
    };
    (Box::new(act), is_closed)
}

/// Begins a stream, sends these bytes, and then heartbeats without a pause. The receiver gets a message when the
/// connection is closed.
pub(crate) fn flood(bytes: impl Into<Vec<u8>>) -> (Act, Receiver<()>) {
    let bytes = bytes.into();
    let (closed, is_closed) = channel();
    let act = move |request| {
        let mut stream = Stream::begin(request);
        stream.raw(&bytes);
        while stream.write(b": still thinking\n\n") {}
        let _ = closed.send(());
    };
    (Box::new(act), is_closed)
}

/// Begins a stream, sends these bytes, and then nothing until the test drops the sender.
pub(crate) fn then_silence(bytes: impl Into<Vec<u8>>) -> (Act, Sender<()>) {
    let bytes = bytes.into();
    let (open, wait) = channel::<()>();
    let act = move |request| {
        let mut stream = Stream::begin(request);
        stream.raw(&bytes);
        // This waits on another thread, because the server waits for the thread of the act at the end of the test.
        thread::spawn(move || {
            let _ = wait.recv();
            drop(stream);
        });
    };
    (Box::new(act), open)
}

/// Sends these chunks, each as an event, and ends as a complete reply does.
pub(crate) fn chunks(chunks: &[Value]) -> Act {
    let chunks: Vec<_> = chunks.iter().map(Value::to_string).collect();
    Box::new(move |request| {
        let mut stream = Stream::begin(request);
        chunks.iter().for_each(|chunk| stream.event(chunk));
        stream.end();
    })
}

/// Delays the other act until the test sends a message.
pub(crate) fn held(act: Act) -> (Act, Sender<()>) {
    let (go, wait) = channel();
    let held = move |request| {
        // An error means that the test has ended.
        if wait.recv().is_ok() {
            act(request);
        }
    };
    (Box::new(held), go)
}

/// A chunk with a piece of text.
pub(crate) fn text(content: &str) -> String {
    chunk(json!({ "content": content }), None)
}

fn finish(reason: &str) -> String {
    chunk(json!({}), Some(reason))
}

fn chunk(delta: Value, finish_reason: Option<&str>) -> String {
    json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": finish_reason }] }).to_string()
}

/// A stream of server-sent events. The drop of this value closes the connection.
pub(crate) struct Stream {
    to: Box<dyn Write + Send>,
}

impl Stream {
    fn begin(request: Request) -> Self {
        let mut stream = Self { to: request.into_writer() };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.to.write_all(head.as_bytes());
        stream
    }

    fn event(&mut self, data: &str) {
        self.write(format!("data: {data}\n\n").as_bytes());
    }

    /// Sends the usage and `[DONE]`, with which a complete reply ends.
    fn end(mut self) {
        let usage = json!({ "prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42 });
        self.event(&json!({ "choices": [], "usage": usage }).to_string());
        self.event("[DONE]");
        self.close();
    }

    fn close(mut self) {
        let _ = self.to.write_all(b"0\r\n\r\n").and_then(|()| self.to.flush());
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }

    /// Writes a chunk. Returns whether the connection is still open.
    fn write(&mut self, bytes: &[u8]) -> bool {
        // An empty chunk would end the body.
        if bytes.is_empty() {
            return true;
        }
        let head = format!("{:x}\r\n", bytes.len()).into_bytes();
        let chunk = [&head, bytes, b"\r\n"].concat();
        self.to.write_all(&chunk).and_then(|()| self.to.flush()).is_ok()
    }
}
