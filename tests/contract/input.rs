//! Unusual input, settings out of range, and the traits of the public types.

use std::sync::Arc;

use turnwise::{
    agent_fn, AgentError, CancelReason, ConfigError, EphemeralSessionService, RunResult, SessionError, SessionId,
    SessionService, SessionSpec, TurnContext,
};

use crate::support::*;

#[test]
fn empty_and_unusual_prompts_reach_the_agent() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.create_session(create("")).unwrap().session_id;
        for prompt in ["", "\0", "𝕏\u{202e}\u{0}", &"long".repeat(100_000)] {
            assert_eq!(service.start_turn(id, turn(prompt)).unwrap().text, prompt);
        }
    });
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    type Echo = fn(String, &TurnContext) -> Result<RunResult, AgentError>;
    let config = || EphemeralSessionService::configure(agent_fn::<Echo>(|prompt, turn| Ok(turn.finish(prompt))));
    let refused = |error: ConfigError, name: &str| {
        assert_matches!(&error, ConfigError::OutOfRange { option, .. } if *option == name);
        assert!(error.to_string().starts_with(name), "{error}");
    };
    refused(config().max_sessions(usize::MAX).build().unwrap_err(), "max_sessions");
    refused(config().max_running_turns(0).build().unwrap_err(), "max_running_turns");
    refused(config().max_running_turns(usize::MAX).build().unwrap_err(), "max_running_turns");
    refused(config().idle_threads(usize::MAX).build().unwrap_err(), "idle_threads");
    refused(config().stack_size(0).build().unwrap_err(), "stack_size");
    refused(config().stack_size(usize::MAX).build().unwrap_err(), "stack_size");
    assert_eq!(config().thread_name_prefix("a\0b").build().unwrap_err(), ConfigError::ThreadName);
    assert!(config().thread_name_prefix("").max_sessions(0).build().is_ok());
}

#[test]
fn the_smallest_stack_that_is_allowed_starts_a_thread() {
    run(|| {
        let (service, _stage) = scripted_with(|config| config.stack_size(64 << 10));
        assert_eq!(service.create_session(create("x")).unwrap().text, "x");
    });
}

#[test]
fn unknown_ids_are_not_found_everywhere() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = SessionId::new();
        let all = [
            service.start_turn(id, turn("x")).map(drop),
            service.begin_turn(id, turn("x")).map(drop),
            service.begin_turn(id, turn("x").timeout(LONG)).map(drop),
            service.stream_turn(id, turn("x")).map(drop),
            service.start_turn_with(id, turn("x"), &mut |_| {}).map(drop),
            service.interrupt(id),
            service.read(id).map(drop),
            service.archive(id),
            service.archive_wait(id, LONG),
            service.export_session(id).map(drop),
            service.export_session_timeout(id, LONG).map(drop),
            service.take_session(id, LONG).map(drop),
        ];
        for result in all {
            let error = result.unwrap_err();
            assert_matches!(&error, SessionError::NotFound { id: is } if *is == id);
            assert_eq!((error.code(), error.session_id()), ("SESSION_NOT_FOUND", Some(id)));
            assert!(error.to_string().contains(&id.to_string()));
        }
    });
}

#[test]
fn services_are_used_behind_every_kind_of_pointer() {
    run(|| {
        fn use_it(service: impl SessionService) -> String {
            service.create_session(create("x")).unwrap().text
        }
        let (service, _stage) = scripted(8);
        assert_eq!(use_it(&service), "x");
        assert_eq!(use_it(Box::new(service.clone()) as Box<dyn SessionService>), "x");
        assert_eq!(use_it(Arc::new(service.clone()) as Arc<dyn SessionService>), "x");
        assert_eq!(use_it(service.downgrade().upgrade().unwrap()), "x");
        assert_eq!(use_it(service), "x");
    });
}

#[test]
fn handles_are_send_and_sync() {
    fn shared<T: Send + Sync>() {}
    shared::<Service>();
    shared::<turnwise::TurnHandle>();
    shared::<turnwise::TurnStream>();
    shared::<turnwise::CancelToken>();
    shared::<turnwise::CancelHook>();
    shared::<turnwise::SessionContext>();
    shared::<turnwise::WeakService>();
    shared::<SessionError>();
    shared::<AgentError>();
    fn lent<T: Sync>() {}
    lent::<TurnContext>();
}

#[test]
fn errors_keep_their_sources_and_reasons() {
    let id = SessionId::new();
    let io = std::io::Error::new(std::io::ErrorKind::NotFound, "no such file");
    let error = SessionError::Agent { id, source: io.into() };
    assert!(error.to_string().contains("no such file"));
    let source = error.agent_error().and_then(AgentError::downcast_ref::<std::io::Error>).expect("the agent's source");
    assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
    let interrupted = SessionError::Interrupted { id, reason: CancelReason::Shutdown };
    assert_matches!(AgentError::from(interrupted), AgentError::Cancelled { reason: CancelReason::Shutdown });
    let other = AgentError::from(SessionError::Busy { id, turn: None });
    assert_matches!(&other, AgentError::Other(source) if source.downcast_ref::<SessionError>().is_some());
    assert!(AgentError::MaxTurnsReached { turns: 3 }.is_graceful());
    assert!(!other.is_graceful() && !other.is_retryable());
}

/// Runs in a process of its own with little address space, so that the system refuses threads.
#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_the_system_refuses_is_an_error_that_leaks_nothing() {
    const CHILD: &str = "TURNWISE_REFUSED_THREADS";
    if std::env::var_os(CHILD).is_some() {
        return run(refused_threads);
    }
    let name = std::thread::current().name().unwrap().to_owned();
    // 3 GiB of addresses: enough for two stacks of 1 GiB, not for three.
    let child = std::process::Command::new("sh")
        .args(["-c", "ulimit -v 3145728; exec \"$0\" --exact \"$1\""])
        .arg(std::env::current_exe().unwrap())
        .arg(name)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
}

#[cfg(target_os = "linux")]
fn refused_threads() {
    let (service, _stage) = scripted_with(|config| config.stack_size(1 << 30));
    let mut live = Vec::new();
    let refused = loop {
        match service.create_session(create("x")) {
            Ok(result) => live.push(result.session_id),
            Err(error) => break error,
        }
    };
    assert_matches!(&refused, SessionError::Spawn { .. });
    assert!(!live.is_empty());
    for _ in 0..100 {
        let id = SessionId::new();
        let spec = SessionSpec::new().session_id(id);
        assert_matches!(service.open_session(spec), Err(SessionError::Spawn { .. }));
        assert_matches!(service.read(id), Err(SessionError::NotFound { .. }));
    }
    // A reservation is given back too, although a clone of its specification is kept.
    let spec = SessionSpec::new().reservation(service.reserve(std::time::Duration::ZERO).unwrap());
    let kept = spec.clone();
    assert_matches!(service.open_session(spec), Err(SessionError::Spawn { .. }));
    assert_matches!(service.open_session(kept), Err(SessionError::InvalidReservation));
    let free: Vec<_> = std::iter::from_fn(|| service.reserve(std::time::Duration::ZERO).ok()).collect();
    assert_eq!(free.len() + live.len(), service.stats().max_sessions);
    drop(free);
    // A value in the refused specification calls the service in its drop. A lock that was held then would hang the
    // call.
    let (told, tell) = turnwise::crossbeam_channel::bounded(1);
    let extension = Arc::new(CallsService(service.clone(), told));
    let spec = SessionSpec::new().extension(extension);
    assert_matches!(service.open_session(spec), Err(SessionError::Spawn { .. }));
    assert_eq!(tell.recv().unwrap(), "THREAD_SPAWN_FAILED");
    assert_eq!(service.stats().sessions, live.len());
    // The refusals have changed neither the capacity nor the live sessions.
    for id in live {
        assert_eq!(service.start_turn(id, turn("y")).unwrap().text, "y");
    }
    assert_eq!(service.shutdown(LONG).stuck, []);
}

#[cfg(target_os = "linux")]
struct CallsService(Service, turnwise::crossbeam_channel::Sender<&'static str>);

#[cfg(target_os = "linux")]
impl Drop for CallsService {
    fn drop(&mut self) {
        self.1.send(self.0.open_session(SessionSpec::new()).unwrap_err().code()).unwrap();
    }
}
