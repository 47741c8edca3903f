//! What is left after thousands of sessions: nothing.

#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::{assert_no_leaked_sessions, scripted, within, Gate, Script, Scripted};
use turnwise::{EphemeralSessionService, EventSource, SessionError, SessionService, SessionSpec, Subscription};

use crate::apart::{apart, settle_threads, status};
use crate::{create, turn, LONG};

/// A session with a bit of everything, from its creation to its end.
fn live_and_die(service: &EphemeralSessionService<Scripted>, number: usize) {
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
fn thousands_of_sessions_leave_no_thread_no_file_and_no_memory_behind() {
    apart("leaks::thousands_of_sessions_leave_no_thread_no_file_and_no_memory_behind", "", || {
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
            (0..300).for_each(|number| live_and_die(&service, number));
            let warm = status("VmRSS");
            (0..2_000).for_each(|number| live_and_die(&service, number));
            let grown = status("VmRSS").saturating_sub(warm);
            // A kibibyte for each session would be two thousand.
            assert!(grown < 1_500, "{grown} KiB more after 2,000 more sessions");
            assert_no_leaked_sessions(&service);
            assert_eq!(service.shutdown(Duration::from_secs(60)).stuck, []);
            drop(service);
            settle_threads(before.0);
            assert_eq!(files(), before.1);
            assert_eq!(Arc::strong_count(&kept), 1, "the builder is gone, and all that it had");
        });
    });
}

/// A caller that asks again and again, and does not wait, takes each request back: behind a long turn they do not pile up.
#[test]
fn requests_that_time_out_during_a_turn_leave_no_memory_behind() {
    apart("leaks::requests_that_time_out_during_a_turn_leave_no_memory_behind", "", || {
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
            // A hundred bytes for each request would be four thousand.
            assert!(grown < 1_000, "{grown} KiB more after 40,000 requests that timed out");
            gate.open();
            running.wait().unwrap();
            assert!(service.read(id).is_ok(), "no request that timed out has taken the session");
        });
    });
}

/// How many files this process has open.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}
