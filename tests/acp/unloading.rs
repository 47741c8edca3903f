//! A service that unloads sessions by itself, while an editor has them open.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::{json, Value};
use turnwise::acp::{AcpClients, AcpConfig};
use turnwise::crossbeam_channel::{bounded, unbounded, Receiver, TryRecvError};
use turnwise::store::{FileStore, PersistentConfig, PersistentSessionService};
use turnwise::testkit::{scripted, Gate, ManualClock, Script, Scripted};
use turnwise::{AgentError, EphemeralSessionService, InputRequest, ServiceConfig, SessionId, SessionService, WhenBusy};

use crate::support::{run, Client, LONG};

const IDLE: Duration = Duration::from_secs(60);

type Service = PersistentSessionService<Scripted>;

/// What a builder finds: the directory of its client, and whether it resumes a history.
type Build = (Option<PathBuf>, bool);

/// Agents that use their client: `read` reads a file, `ask` asks for a permission, `hold` waits at the gate, and any
/// other prompt is streamed in two pieces. Returns them with the options of a connection, and with what each build finds.
fn agents(gate: &Gate) -> (Scripted, AcpConfig, Receiver<Build>) {
    let clients = AcpClients::new();
    let config = AcpConfig::new(clients.clone()).grace(LONG).load_timeout(LONG).close_timeout(LONG);
    let (seen, builds) = unbounded();
    let (of_builder, of_agent) = (clients.clone(), clients);
    let read = Script::new().reply_with(move |turn| {
        let client = of_agent.client(turn.session_id());
        client.read_text_file(turn, "/project/a.txt", None, None).map_err(AgentError::from)
    });
    let ask = Script::new().reply_with(|turn| {
        let request = InputRequest::new("permission", "Go on?").option("allow_once", "Yes");
        turn.request_input(request).map_err(AgentError::from)
    });
    let agents = scripted()
        .on("read", read)
        .on("ask", ask)
        .on("hold", Script::new().wait_at(gate))
        .otherwise(|prompt| Script::new().say(format!("{prompt}, ")).say("said"))
        .build_calls(move |spec, session| {
            let client = of_builder.client(session.session_id());
            // The test may have ended.
            let _ = seen.send((client.cwd(), spec.resume.is_some()));
            Ok(())
        });
    (agents, config, builds)
}

fn able() -> Value {
    json!({ "fs": { "readTextFile": true } })
}

/// A service that unloads sessions that are idle for [`IDLE`] on the clock.
fn unloading(agents: Scripted, clock: &ManualClock) -> Service {
    let config = EphemeralSessionService::configure(agents).clock(clock.clone()).max_sessions(16);
    of(config).unload_idle_after(IDLE).build().expect("a valid configuration")
}

fn of(config: ServiceConfig<Scripted>) -> PersistentConfig<Scripted> {
    PersistentSessionService::configure(config, FileStore::in_memory().expect("a store"))
}

/// Lets the time pass after which the only session is unloaded.
fn unload(service: &Service, clock: &ManualClock) {
    clock.advance(IDLE);
    while service.stats().sessions > 0 {
        thread::yield_now();
    }
}

#[track_caller]
fn said(client: &mut Client, session: &str, text: &str) {
    let prompt = client.prompt(session, text);
    assert_eq!(client.stopped(prompt), Ok("end_turn".into()));
    let chunks: Vec<Value> = client.updates().into_iter().map(|update| update["content"]["text"].clone()).collect();
    assert_eq!(chunks, [format!("{text}, "), "said".to_owned()]);
}

#[test]
fn c71_a_session_that_was_unloaded_under_its_client_goes_on() {
    run(|| {
        let clock = ManualClock::new();
        let (agents, config, builds) = agents(&Gate::new());
        let service = unloading(agents, &clock);
        let mut client = Client::able(service.clone(), config, able());
        let session = client.open();
        assert_eq!(builds.recv(), Ok((Some("/work".into()), false)));
        // Without a turn so far.
        for text in ["one", "two"] {
            unload(&service, &clock);
            said(&mut client, &session, text);
            assert_eq!(builds.recv(), Ok((Some("/work".into()), true)));
        }
        // The calls and questions of the new agent reach the client.
        unload(&service, &clock);
        let read = client.prompt(&session, "read");
        let call = client.called("fs/read_text_file");
        client.reply(&call, json!({ "content": "unsaved" }));
        assert_eq!(client.stopped(read), Ok("end_turn".into()));
        assert_eq!(client.text(), "unsaved");
        unload(&service, &clock);
        let ask = client.prompt(&session, "ask");
        let call = client.called("session/request_permission");
        client.reply(&call, json!({ "outcome": { "outcome": "selected", "optionId": "allow_once" } }));
        assert_eq!(client.stopped(ask), Ok("end_turn".into()));
        assert_eq!(service.stats().unloads, 4);
        let id: SessionId = session.parse().expect("an id");
        assert_eq!(service.export_session(id).expect("a history").messages().len(), 8);
    });
}

#[test]
fn c73_a_prompt_that_resumes_an_unloaded_session_is_cancelled() {
    run(|| {
        let (clock, gate) = (ManualClock::new(), Gate::new());
        let (agents, config, _builds) = agents(&gate);
        let service = unloading(agents, &clock);
        let mut client = Client::connect(service.clone(), config.when_busy(WhenBusy::Queue));
        let session = client.open();
        for _ in 0..20 {
            unload(&service, &clock);
            // The cancellation may come before, during and after the build.
            let (held, queued) = (client.prompt(&session, "hold"), client.prompt(&session, "queued"));
            client.notify("session/cancel", json!({ "sessionId": session }));
            assert_eq!(client.stopped(held), Ok("cancelled".into()));
            assert_eq!(client.stopped(queued), Ok("cancelled".into()));
        }
        client.updates();
        said(&mut client, &session, "on");
    });
}

#[test]
fn c71_an_unloaded_session_is_listed_loaded_closed_and_deleted() {
    run(|| {
        let clock = ManualClock::new();
        let (agents, config, _builds) = agents(&Gate::new());
        let service = unloading(agents, &clock);
        let mut client = Client::connect(service.clone(), config);
        let session = client.open();
        said(&mut client, &session, "hello");
        let params = json!({ "sessionId": session, "cwd": "/work" });
        unload(&service, &clock);
        let listed = client.ask("session/list", json!({ "cwd": "/work" })).expect("a list");
        assert_eq!(listed["sessions"][0]["sessionId"], session);
        // Loaded again by the client that has it open.
        assert_eq!(client.ask("session/load", params.clone()), Ok(json!({})));
        assert_eq!(client.updates()[0]["content"]["text"], "hello");
        unload(&service, &clock);
        assert_eq!(client.ask("session/close", json!({ "sessionId": session })), Ok(json!({})));
        assert_eq!(client.ask("session/resume", params.clone()), Ok(json!({})));
        said(&mut client, &session, "again");
        unload(&service, &clock);
        assert_eq!(client.ask("session/delete", json!({ "sessionId": session })), Ok(json!({})));
        assert_eq!(client.ask("session/load", params), Err(-32002));
    });
}

#[test]
fn c71_sessions_of_a_client_make_room_for_each_other() {
    run(|| {
        let gate = Gate::new();
        let (agents, config, builds) = agents(&gate);
        let of_service = EphemeralSessionService::configure(agents).max_sessions(1);
        let service = of(of_service).unload_when_full(true).build().expect("a valid configuration");
        let mut client = Client::connect(service.clone(), config);
        let sessions = ["/one", "/two", "/three"].map(|cwd| (client.open_in(cwd), cwd));
        for round in 0..3 {
            for (session, _) in &sessions {
                said(&mut client, session, &format!("round {round}"));
            }
        }
        // Three builds for the new sessions, and one for each prompt.
        let found: Vec<Build> = builds.try_iter().collect();
        let expected = (0..12).map(|at| (Some(PathBuf::from(sessions[at % 3].1)), at >= 3));
        assert_eq!(found, expected.collect::<Vec<_>>());
        // A prompt finds no room while the turn of another session runs. That one ends well.
        let held = client.prompt(&sessions[0].0, "hold");
        gate.wait_arrived(1);
        let refused = client.prompt(&sessions[1].0, "x");
        assert_eq!(client.stopped(refused), Err(-32603));
        gate.open();
        assert_eq!(client.stopped(held), Ok("end_turn".into()));
        client.updates();
        said(&mut client, &sessions[1].0, "now");
    });
}

#[test]
fn c71_prompts_at_the_moment_of_the_unload_run_once_each() {
    run(|| {
        let clock = ManualClock::new();
        let (agents, config, _builds) = agents(&Gate::new());
        let of_service = EphemeralSessionService::configure(agents).clock(clock.clone()).max_sessions(2);
        let of_service = of(of_service).unload_idle_after(IDLE).unload_when_full(true);
        let service = of_service.build().expect("a valid configuration");
        let mut client = Client::connect(service.clone(), config);
        let sessions = [client.open(), client.open(), client.open()];
        let (until_end, ended) = bounded::<()>(0);
        // The time of each session comes at any moment.
        let passing = thread::spawn(move || {
            while ended.try_recv() == Err(TryRecvError::Empty) {
                clock.advance(IDLE);
                thread::yield_now();
            }
        });
        for at in 0..200 {
            for session in &sessions {
                said(&mut client, session, &format!("{at}"));
            }
        }
        drop(until_end);
        passing.join().expect("no panic");
        assert!(service.stats().unloads > 0);
        for session in sessions {
            let id: SessionId = session.parse().expect("an id");
            assert_eq!(service.export_session(id).expect("a history").messages().len(), 400);
        }
    });
}
