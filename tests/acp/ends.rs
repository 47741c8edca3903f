//! A client that reads slowly, and the end of a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use turnwise::acp::{AcpError, AcpService};
use turnwise::crossbeam_channel::{bounded, unbounded, Receiver};
use turnwise::testkit::{scripted, Gate, Script, Scripted};
use turnwise::{AgentEvent, SessionId, SessionService, SessionState, StartTurnRequest, WhenBusy};

use crate::support::{config, keeping, run, service, start, Client, LONG};

/// A line that fills the buffers of a pipe soon.
fn big() -> String {
    "x".repeat(10_000)
}

/// Agents that emit big updates until they are cancelled. They count those that were taken, and tell each.
fn flooding() -> (Scripted, Arc<AtomicUsize>, Receiver<()>) {
    let (tell, taken) = unbounded();
    let emitted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&emitted);
    let script = Script::new().call(move |turn| {
        let ended = loop {
            if let Err(cancelled) = turn.emit(AgentEvent::TextDelta { delta: big() }) {
                break cancelled;
            }
            count.fetch_add(1, Ordering::Relaxed);
            tell.send(()).expect("the test is listening");
        };
        Err(ended.into())
    });
    (scripted().on("flood", script), emitted, taken)
}

#[test]
fn c76_a_client_that_does_not_read_holds_its_turn_and_a_cancel_frees_it() {
    run(|| {
        let (agents, emitted, taken) = flooding();
        let service = service(agents);
        let (mut input, output, serving) = start(service.clone(), config().unread_updates(4));
        let mut send = |line: Value| writeln!(input, "{line}").expect("the agent reads");
        send(json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": { "protocolVersion": 1 } }));
        send(json!({ "jsonrpc": "2.0", "id": 1, "method": "session/new", "params": { "cwd": "/work" } }));
        let mut lines = BufReader::new(output).lines();
        let mut next =
            || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
        next();
        let session = next()["result"]["sessionId"].clone();
        let prompt = json!([{ "type": "text", "text": "flood" }]);
        let params = json!({ "sessionId": session, "prompt": prompt });
        send(json!({ "jsonrpc": "2.0", "id": 2, "method": "session/prompt", "params": params }));
        // Nothing is read from here on. The turn stops taking events when every place is used.
        let id: SessionId = session.as_str().expect("text").parse().expect("an id");
        taken.recv_timeout(LONG).expect("the turn has started");
        while taken.recv_timeout(Duration::from_millis(200)).is_ok() {}
        // Another session is not affected, and neither is the reader: the cancellation comes through.
        send(json!({ "jsonrpc": "2.0", "method": "session/cancel", "params": { "sessionId": session } }));
        service.wait_idle(id, LONG).expect("the turn has ended, although the client still reads nothing");
        assert_eq!(service.read(id).expect("a view").state.state, SessionState::Idle);
        let emitted = emitted.load(Ordering::Relaxed);
        // 64 KiB in the pipe, a line in the writer, and two times four places.
        assert!((1..40).contains(&emitted), "{emitted}");
        let mut updates = 0;
        let answer = loop {
            let line = next();
            if line["id"] == 2 {
                break line;
            }
            updates += 1;
        };
        // What was taken before the cancellation is flushed, and then the prompt is answered.
        assert_eq!((updates, &answer["result"]["stopReason"]), (emitted, &json!("cancelled")));
        drop(input);
        assert!(serving.recv_timeout(LONG).expect("the end").is_ok());
    });
}

#[test]
fn c76_an_end_of_the_input_cancels_keeps_and_shuts_down() {
    run(|| {
        let gate = Gate::new();
        let service = keeping(scripted().on("hold", Script::new().say("so far").wait_at(&gate)));
        let mut client = Client::connect(service.clone(), config());
        let session = client.open();
        let kept = client.prompt(&session, "kept");
        assert_eq!(client.stopped(kept), Ok("end_turn".into()));
        let held = client.prompt(&session, "hold");
        gate.wait_arrived(1);
        let (result, rest) = client.leave();
        result.expect("the connection ends well");
        // The prompt is answered all the same.
        let answer = rest.iter().find(|line| line["id"] == held).expect("an answer");
        assert_eq!(answer["result"]["stopReason"], "cancelled");
        assert_eq!(service.stats().sessions, 0);
        assert_eq!(service.open_session(Default::default()).expect_err("shut down").code(), "SHUTTING_DOWN");
        let id = session.parse().expect("an id");
        assert_eq!(service.export_session(id).expect("kept").messages()[0].text(), "kept");
    });
}

#[test]
fn c76_a_request_at_the_end_of_the_input_is_answered() {
    run(|| {
        let mut client = Client::new(service(scripted()), config());
        client.request("initialize", json!({ "protocolVersion": 1 }));
        client.request("session/new", json!({ "cwd": "/work", "mcpServers": [] }));
        client.request("session/list", json!({}));
        let (result, lines) = client.leave();
        result.expect("the connection ends well");
        let mut answered: Vec<_> = lines.iter().filter_map(|line| line["id"].as_i64()).collect();
        answered.sort_unstable();
        assert_eq!(answered, [1, 2, 3]);
        assert!(lines.iter().all(|line| line.get("error").is_none()), "{lines:?}");
    });
}

#[test]
fn c76_the_service_goes_on_where_the_host_keeps_it() {
    run(|| {
        let gate = Gate::new();
        let service = service(scripted().on("hold", Script::new().wait_at(&gate)));
        let mut client = Client::connect(service.clone(), config().keep_service());
        let session = client.open();
        client.prompt(&session, "hold");
        gate.wait_arrived(1);
        client.leave().0.expect("the connection ends well");
        let id = session.parse().expect("an id");
        service.wait_idle(id, LONG).expect("its prompt was cancelled");
        assert_eq!(service.start_turn(id, StartTurnRequest::new("on")).expect("a turn").text, "on");
        // Another client takes the session over.
        let mut client = Client::connect(service.clone(), config());
        assert_eq!(client.ask("session/resume", json!({ "sessionId": session, "cwd": "/work" })), Ok(json!({})));
    });
}

#[test]
fn c76_a_client_that_closes_its_side_ends_the_connection() {
    run(|| {
        let service = service(scripted());
        let (mut input, output, serving) = start(service.clone(), config());
        drop(output);
        // The input stays open: only the write fails.
        writeln!(input, "{{").expect("the agent reads");
        assert!(serving.recv_timeout(LONG).expect("the end").is_ok());
        assert_eq!(service.stats().threads, 0);
    });
}

#[test]
fn c76_an_agent_that_does_not_stop_ends_the_connection_in_bounded_time() {
    run(|| {
        let gate = Gate::new();
        let service = service(scripted().on("deaf", Script::new().wait_at_ignoring_cancel(&gate)));
        let mut client = Client::connect(service.clone(), config().grace(Duration::from_millis(200)));
        let session = client.open();
        client.prompt(&session, "deaf");
        gate.wait_arrived(1);
        let begun = Instant::now();
        let (result, _) = client.leave();
        assert!(begun.elapsed() < LONG / 2);
        match result {
            Err(AcpError::Stuck { sessions }) => assert_eq!(sessions, [session.parse().expect("an id")]),
            other => panic!("{other:?}"),
        }
        gate.open();
    });
}

#[test]
fn c76_a_cancel_hook_that_does_not_return_ends_the_connection_in_bounded_time() {
    run(|| {
        let (gate, arrived) = (Gate::new(), Gate::new());
        let (in_hook, at) = (gate.clone(), arrived.clone());
        let script = Script::new().call(move |turn| {
            let (in_hook, (tell, begun)) = (in_hook.clone(), bounded(1));
            let _hook = turn.cancel_token().on_cancel(move || {
                tell.send(()).expect("the turn waits for the hook");
                in_hook.pass_regardless();
            });
            let cancelled = at.pass(turn.cancel_token());
            // A hook that has begun holds its turn.
            begun.recv().expect("the hook runs");
            cancelled.map_err(Into::into)
        });
        let service = service(scripted().on("hook", script));
        let mut client = Client::connect(service.clone(), config().grace(Duration::from_millis(200)));
        // One turn of the client, and one of the host, which only the shutdown cancels.
        let session = client.open();
        client.prompt(&session, "hook");
        let own = service.open_session(Default::default()).expect("a session");
        let turn = service.begin_turn(own, StartTurnRequest::new("hook")).expect("a turn");
        arrived.wait_arrived(2);
        let begun = Instant::now();
        let (result, _) = client.leave();
        assert!(begun.elapsed() < LONG / 2);
        match result {
            Err(AcpError::Stuck { mut sessions }) => {
                sessions.sort_unstable();
                assert_eq!(sessions, [session.parse().expect("an id"), own]);
            }
            other => panic!("{other:?}"),
        }
        gate.open();
        assert!(turn.wait().is_err());
    });
}

/// A stream that fails.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("torn"))
    }
}

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("full"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn c76_a_failure_of_the_streams_is_reported() {
    run(|| {
        fn serve(
            service: impl AcpService,
            input: impl Read + Send + 'static,
            output: impl Write + Send + 'static,
        ) -> AcpError {
            turnwise::acp::serve(service, config(), input, output).expect_err("a broken stream")
        }
        assert!(matches!(serve(service(scripted()), Broken, io::sink()), AcpError::Input(_)));
        let (input, mut to_agent) = io::pipe().expect("a pipe");
        to_agent.write_all(b"{\n").expect("room");
        assert!(matches!(serve(service(scripted()), input, Broken), AcpError::Output(_)));
    });
}

#[test]
fn c76_a_client_that_reads_no_answers_is_given_up_within_the_grace() {
    run(|| {
        let service = service(scripted());
        let grace = Duration::from_millis(300);
        let (mut input, output, serving) = start(service.clone(), config().grace(grace));
        // More answers than the pipe and the queue hold. The writes fail once the reader has ended.
        std::thread::spawn(move || while input.write_all(b"{\n").is_ok() {});
        match serving.recv_timeout(LONG).expect("the end") {
            Err(AcpError::Output(error)) => assert_eq!(error.kind(), io::ErrorKind::TimedOut),
            other => panic!("{other:?}"),
        }
        assert_eq!(service.open_session(Default::default()).expect_err("shut down").code(), "SHUTTING_DOWN");
        drop(output);
    });
}

#[test]
fn c76_the_number_of_requests_without_an_answer_is_limited() {
    run(|| {
        let gate = Gate::new();
        let agents = scripted().on("hold", Script::new().wait_at(&gate));
        let config = config().max_requests(2).when_busy(WhenBusy::Queue);
        let mut client = Client::connect(service(agents), config);
        let session = client.open();
        let (held, queued) = (client.prompt(&session, "hold"), client.prompt(&session, "queued"));
        gate.wait_arrived(1);
        assert_eq!(client.ask("session/list", json!({})), Err(-32600));
        let refused = client.prompt(&session, "refused");
        assert_eq!(client.stopped(refused), Err(-32600));
        gate.open();
        assert_eq!(client.stopped(held), Ok("end_turn".into()));
        assert_eq!(client.stopped(queued), Ok("end_turn".into()));
        // An answer that has been read takes no place any more.
        for _ in 0..9 {
            assert!(client.ask("session/list", json!({})).is_ok());
        }
    });
}

#[test]
fn c76_what_was_asked_before_a_failure_of_the_input_is_answered() {
    run(|| {
        let lines = concat!(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}"#,
            "\n",
            r#"{"jsonrpc":"2.0","id":2,"method":"session/new","params":{"cwd":"/work","mcpServers":[]}}"#,
            "\n",
        );
        let (mut from_agent, output) = io::pipe().expect("a pipe");
        let ended = turnwise::acp::serve(service(scripted()), config(), lines.as_bytes().chain(Broken), output);
        assert!(matches!(ended, Err(AcpError::Input(_))));
        // The writer has ended before, so the output is closed.
        let mut text = String::new();
        from_agent.read_to_string(&mut text).expect("text");
        assert_eq!(text.lines().count(), 2, "{text}");
    });
}
