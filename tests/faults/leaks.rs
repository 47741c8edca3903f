//! Thousands of sessions and requests, which must leak no thread, no file and no memory.

#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::{assert_no_leaked_sessions, scripted, within, Gate, Script, Scripted};
use turnwise::{EphemeralSessionService, EventSource, SessionError, SessionService, SessionSpec, Subscription};

use crate::apart::{apart, settle_threads, status};
use crate::{create, turn, LONG};

/// Runs one session from its creation to its end, with most kinds of calls.
fn run_one_session(service: &EphemeralSessionService<Scripted>, number: usize) {
    let (event_tx, events) = bounded(4);
    drop(events);
    let id = service.create_session(create("talk").event_tx(event_tx)).unwrap().session_id;
    let stream = service.subscribe(id, Subscription::new()).unwrap();
    let timed = service.begin_turn(id, turn("wait").timeout(LONG)).unwrap();
    timed.interrupt();
    timed.wait().unwrap_err();
    let injector = service.event_injector(id).unwrap();
    let followed = injector.inject_with_subscription("talk".into(), EventSource::Tcp).unwrap();
    injector.dismiss(EventSource::Tcp).unwrap();
    service.start_turn(id, turn("x").host_mode(true)).unwrap();
    assert!(followed.count() > 1);
    if number.is_multiple_of(3) {
        service.start_turn(id, turn("panic")).unwrap_err();
    }
    service.archive_wait(id, LONG).unwrap();
    assert!(stream.count() > 5);
}

#[test]
fn thousands_of_sessions_leak_no_thread_no_file_and_no_memory() {
    apart("leaks::thousands_of_sessions_leak_no_thread_no_file_and_no_memory", "", || {
        std::panic::set_hook(Box::new(|_| {}));
        within(LONG, || {
            let before = (status("Threads"), files());
            let kept = Arc::new(());
            let own = Arc::clone(&kept);
            let agent = scripted()
                .on(
                    "talk",
                    Script::new().say("a").say("b").call(move |_| {
                        let _ = &own;
                        Ok(())
                    }),
                )
                .on("wait", Script::new().until_cancelled())
                .on("panic", Script::new().panic("as asked"));
            let service = EphemeralSessionService::configure(agent).idle_threads(2).build().unwrap();
            (0..300).for_each(|number| run_one_session(&service, number));
            let warm = status("VmRSS");
            (0..2_000).for_each(|number| run_one_session(&service, number));
            let grown = status("VmRSS").saturating_sub(warm);
            // A leak of 1 KiB for each session would be 2,000 KiB.
            assert!(grown < 1_500, "{grown} KiB more after 2,000 more sessions");
            assert_no_leaked_sessions(&service);
            assert_eq!(service.shutdown(Duration::from_secs(60)).stuck, []);
            drop(service);
            settle_threads(before.0);
            assert_eq!(files(), before.1);
            assert_eq!(Arc::strong_count(&kept), 1, "the builder and its scripts are dropped");
        });
    });
}

/// A request that times out is taken back. So such requests do not pile up in the queue of a session during a long
/// turn.
#[test]
fn requests_that_time_out_during_a_turn_leak_no_memory() {
    apart("leaks::requests_that_time_out_during_a_turn_leak_no_memory", "", || {
        within(LONG, || {
            let gate = Gate::new();
            let deaf = gate.clone();
            let wait = Script::new().call(move |_| {
                deaf.pass_regardless();
                Ok(())
            });
            let agent = scripted().on("deaf", wait);
            let service = EphemeralSessionService::new(agent, 1);
            let id = service.open_session(SessionSpec::new()).unwrap();
            let running = service.begin_turn(id, turn("deaf")).unwrap();
            gate.wait_arrived(1);
            let ask = |times: usize| {
                for _ in 0..times {
                    let refused = service.export_session_timeout(id, Duration::ZERO).unwrap_err();
                    assert!(matches!(refused, SessionError::Timeout { .. }), "{refused:?}");
                    let refused = service.take_session(id, Duration::ZERO).unwrap_err();
                    assert!(matches!(refused, SessionError::Timeout { .. }), "{refused:?}");
                }
            };
            ask(1_000);
            let warm = status("VmRSS");
            ask(20_000);
            let grown = status("VmRSS").saturating_sub(warm);
            // A leak of 100 bytes for each request would be about 4,000 KiB.
            assert!(grown < 1_000, "{grown} KiB more after 40,000 requests that timed out");
            gate.open();
            running.wait().unwrap();
            assert!(service.read(id).is_ok(), "no request that timed out has taken the session");
        });
    });
}

/// The number of open files of this process.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}
