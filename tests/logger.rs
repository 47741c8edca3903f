//! A host whose logger panics at every record loses the records, and nothing else. The logger is global, so this test
//! has a program of its own.

use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use turnwise::testkit::within;
use turnwise::{
    agent_fn, CancelReason, CreateSessionRequest, EphemeralSessionService, EventSource, SessionError, SessionService,
    SessionSpec, StartTurnRequest,
};

const LONG: Duration = Duration::from_secs(120);

struct PanickingLogger;

static RECORDS: AtomicUsize = AtomicUsize::new(0);

impl log::Log for PanickingLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        RECORDS.fetch_add(1, Ordering::SeqCst);
        panic!("no room for another record");
    }

    fn flush(&self) {}
}

/// A value that panics in its drop. The library logs the panic.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("boom");
    }
}

#[test]
fn a_logger_that_panics_loses_its_records_and_nothing_else() {
    log::set_logger(&PanickingLogger).expect("no other logger");
    log::set_max_level(log::LevelFilter::Trace);
    // The default hook would print thousands of expected messages.
    panic::set_hook(Box::new(|_| {}));
    within(2 * LONG, || {
        let agent = agent_fn(|prompt, turn| match prompt.as_str() {
            "fail" => Err(turnwise::AgentError::Config("told to".into())),
            "panic" => panic!("told to"),
            "hook" => {
                let bomb = PanicsOnDrop;
                let hook = turn.cancel_token().on_cancel(move || drop(bomb));
                turn.sleep(Duration::MAX).unwrap_err();
                drop(hook);
                Err(turn.check().unwrap_err().into())
            }
            _ => Ok(turn.finish(prompt)),
        });
        let service = EphemeralSessionService::new(agent, 4);
        let id = service.create_session(CreateSessionRequest::new("x")).unwrap().session_id;
        let turn = |prompt: &str| StartTurnRequest::new(prompt);
        service.start_turn(id, turn("fail")).unwrap_err();
        let (event_tx, events) = turnwise::crossbeam_channel::bounded(0);
        drop(events);
        assert_eq!(service.start_turn(id, turn("y").event_tx(event_tx)).unwrap().text, "y");
        let hook = service.begin_turn(id, turn("hook")).unwrap();
        hook.interrupt();
        assert_eq!(hook.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
        let host = service.begin_turn(id, turn("z").host_mode(true)).unwrap();
        let injector = service.event_injector(id).unwrap();
        drop(injector.inject_with_subscription("fail".into(), EventSource::Tcp).unwrap().last());
        injector.dismiss(EventSource::Tcp).unwrap();
        host.wait().unwrap();
        let faulty = service.open_session(SessionSpec::new()).unwrap();
        assert!(matches!(service.start_turn(faulty, turn("panic")), Err(SessionError::Faulted { .. })));
        service.archive_wait(faulty, LONG).unwrap();
        let running = service.begin_session(CreateSessionRequest::new("hook")).unwrap();
        let report = service.shutdown(LONG);
        assert_eq!((report.stuck.len(), service.stats().sessions), (0, 0));
        assert!(running.wait().is_err());
    });
    assert!(RECORDS.load(Ordering::SeqCst) > 20, "the logger was called");
}
