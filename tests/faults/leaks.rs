//! What is left after thousands of sessions: nothing.

#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::{assert_no_leaked_sessions, scripted, within, Script, Scripted};
use turnwise::{EphemeralSessionService, EventSource, SessionService, Subscription};

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

/// How many files this process has open.
fn files() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("procfs").count()
}
