//! A system that refuses threads.

#![cfg(target_os = "linux")]

use std::sync::Arc;

use turnwise::testkit::{assert_no_leaked_sessions, within};
use turnwise::{agent_fn, EphemeralSessionService, SessionError, SessionId, SessionService, SessionSpec};

use crate::apart::apart;
use crate::{create, turn, LONG};

/// The limit of address space has room for some stacks of this size, but not for many.
const STACK: usize = 64 << 20;
const LIMIT: &str = "ulimit -v 1000000";

#[test]
fn c09_a_refused_thread_leaves_nothing_behind() {
    apart("threads::c09_a_refused_thread_leaves_nothing_behind", LIMIT, || {
        within(LONG, || {
            let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
            let config =
                EphemeralSessionService::configure(agent).max_sessions(1_000).stack_size(STACK).idle_threads(0);
            let service = config.build().unwrap();
            let mut live = Vec::new();
            let refused = loop {
                match service.create_session(create("x")) {
                    Ok(result) => live.push(result.session_id),
                    Err(error) => break error,
                }
            };
            assert!(matches!(refused, SessionError::Spawn { .. }), "{refused}");
            assert!(!live.is_empty());

            // Every call that needs a thread is refused, and its specification is dropped.
            let (id, kept) = (SessionId::new(), Arc::new(()));
            let spec = || SessionSpec::new().session_id(id).extension(Arc::clone(&kept) as _);
            let errors = [
                service.open_session(spec()).unwrap_err(),
                service.begin_session(create("x").session(spec())).unwrap_err(),
            ];
            assert!(errors.iter().all(|error| matches!(error, SessionError::Spawn { .. })), "{errors:?}");
            assert_eq!(Arc::strong_count(&kept), 1);
            assert_eq!(service.stats().sessions, live.len());
            assert!(matches!(service.read(id), Err(SessionError::NotFound { .. })));

            // The live sessions still run turns.
            for id in &live {
                assert_eq!(service.start_turn(*id, turn("on")).unwrap().text, "on");
            }

            // Once there is room again, a session with the refused id can be opened.
            service.archive_wait(live.pop().expect("a session is live"), LONG).unwrap();
            // The session has ended, but its thread frees the stack a moment later.
            loop {
                match service.open_session(spec()) {
                    Ok(again) => break assert_eq!(again, id),
                    Err(SessionError::Spawn { .. }) => std::thread::yield_now(),
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(service.shutdown(LONG).stuck, []);
            assert_no_leaked_sessions(&service);
        });
    });
}

/// Creates sessions up to the system's limit of memory maps, of thread ids or of processes, whichever comes first. If a
/// thread that has started already met the limit of memory maps, it would abort the program.
#[test]
fn c09_sessions_work_at_the_systems_limit_of_threads() {
    apart("threads::c09_sessions_work_at_the_systems_limit_of_threads", "true", || {
        let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        // Linux has room for fewer by default. Where it has room for all of these, the capacity is the limit.
        let config = EphemeralSessionService::configure(agent).max_sessions(20_000).stack_size(64 << 10);
        let service = config.build().unwrap();
        let mut live = Vec::new();
        let refused = loop {
            match service.open_session(SessionSpec::new()) {
                Ok(id) => live.push(id),
                Err(error) => break error,
            }
        };
        let is_edge = |error: &SessionError| {
            matches!(error, SessionError::Spawn { .. } | SessionError::CapacityExceeded { max: 20_000, .. })
        };
        assert!(is_edge(&refused), "{refused}");
        assert_eq!(service.stats().sessions, live.len());
        println!("{} sessions, then: {refused}", live.len());
        for _ in 0..10 {
            assert!(is_edge(&service.open_session(SessionSpec::new()).unwrap_err()));
        }
        for &id in live.iter().step_by(live.len() / 100 + 1) {
            assert_eq!(service.start_turn(id, turn("on")).unwrap().text, "on");
        }
        assert_eq!(service.shutdown(LONG).stuck, []);
        assert_no_leaked_sessions(&service);
    });
}

#[test]
fn c23_a_timeout_without_a_timer_thread_is_refused_before_the_admission() {
    apart("threads::c23_a_timeout_without_a_timer_thread_is_refused_before_the_admission", LIMIT, || {
        let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let service = EphemeralSessionService::new(agent, 4);
        let id = service.create_session(create("x")).unwrap().session_id;
        // Reserves the rest of the address space in ever smaller pieces, so that not even a small stack fits in.
        let mut hoard: Vec<Vec<u8>> = Vec::new();
        let mut size = 256_usize << 20;
        while size >= 64 << 10 {
            let mut piece = Vec::new();
            match piece.try_reserve_exact(size) {
                Ok(()) => hoard.push(piece),
                Err(_) => size /= 2,
            }
        }
        let refused = service.begin_turn(id, turn("x").timeout(LONG)).map(drop);
        drop(hoard);
        assert!(matches!(refused, Err(SessionError::Spawn { .. })), "{refused:?}");
        let next = service.begin_turn(id, turn("next").timeout(LONG)).expect("nothing was admitted");
        assert_eq!(next.turn_id().get(), 2);
        assert_eq!(next.wait().unwrap().text, "next");
        assert_eq!(service.shutdown(LONG).stuck, []);
    });
}
