//! Sessions on the smallest stacks that the settings allow.

use turnwise::testkit::within;
use turnwise::{
    agent_fn, AgentEvent, EphemeralSessionService, EventSource, Overflow, SessionError, SessionService, Subscription,
};

use crate::apart::apart;
use crate::{create, turn, LONG};

/// The smallest value that `ServiceConfig::stack_size` accepts, in bytes.
const SMALLEST: usize = 64 << 10;

#[test]
fn a_session_works_on_the_smallest_stack() {
    // A stack overflow would end the process, so the test has a process of its own.
    apart("stacks::a_session_works_on_the_smallest_stack", "", || within(LONG, use_most_features));
}

fn use_most_features() {
    let agent = agent_fn(|prompt, turn| {
        turn.emit(AgentEvent::TextDelta { delta: prompt.clone() })?;
        match prompt.as_str() {
            "panic" => panic!("as asked"),
            "wait" => {
                let _hook = turn.cancel_token().on_cancel(|| ());
                let _ = turn.cancel_token().cancelled().recv();
                turn.check()?;
            }
            _ => {}
        }
        Ok(turn.finish(prompt))
    });
    let config = EphemeralSessionService::configure(agent).stack_size(SMALLEST).event_history(8).idle_threads(1);
    let service = config.build().expect("the smallest stack is allowed");
    let heard = service.subscribe_all(Subscription::new().capacity(1).overflow(Overflow::DropNewest));
    let id = service.create_session(create("first")).unwrap().session_id;
    assert!(service.start_turn(id, turn("wait").timeout(std::time::Duration::from_millis(1))).is_err());
    let hosting = service.begin_turn(id, turn("stay").host_mode(true)).unwrap();
    let injector = service.event_injector(id).unwrap();
    let followed = injector.inject_with_subscription("asked".into(), EventSource::Tcp).unwrap();
    assert!(followed.count() >= 2);
    injector.dismiss(EventSource::Tcp).unwrap();
    assert_eq!(hosting.wait().unwrap().text, "asked");
    assert_eq!(service.export_session(id).unwrap().messages().len(), 6);
    assert!(matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. })));
    service.archive_wait(id, LONG).unwrap();
    assert_eq!(service.shutdown(LONG).stuck, []);
    drop(heard);
}

#[test]
fn a_smaller_stack_is_refused() {
    let echo = || agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    assert!(EphemeralSessionService::configure(echo()).stack_size(SMALLEST - 1).build().is_err());
    assert!(EphemeralSessionService::configure(echo()).stack_size(SMALLEST).build().is_ok());
}
