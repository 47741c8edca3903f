//! Many threads that use one kept session while it is unloaded and resumed: no turn is lost, and none runs twice.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use turnwise::{SessionId, SessionQuery, SessionService, SessionSpec};

use crate::support::*;

/// The errors that a turn may get while other threads unload its session.
fn is_expected(code: &str) -> bool {
    ["SESSION_BUSY", "CAPACITY_EXCEEDED"].contains(&code)
}

#[test]
fn no_answered_turn_is_lost_between_two_lives_of_a_session() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let ids: Vec<SessionId> = (0..2).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        let answered: Mutex<BTreeMap<SessionId, Vec<String>>> = Mutex::default();
        thread::scope(|scope| {
            for caller in 0..4 {
                let (service, ids, answered) = (&service, &ids, &answered);
                scope.spawn(move || {
                    for n in 0..60 {
                        let id = ids[n % 2];
                        let text = loop {
                            match service.start_turn(id, turn(&format!("{caller}.{n}"))) {
                                Ok(result) => break result.text,
                                Err(error) => assert!(is_expected(error.code()), "{error}"),
                            }
                            thread::yield_now();
                        };
                        answered.lock().unwrap().entry(id).or_default().push(text);
                    }
                });
            }
            for id in &ids {
                let service = &service;
                scope.spawn(move || (0..60).for_each(|_| service.unload(*id, LONG).unwrap()));
            }
            let service = &service;
            scope.spawn(move || {
                for _ in 0..60 {
                    // The list has both sessions at any time, live or not.
                    assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 2);
                }
            });
        });
        assert!(service.stats().sessions_created > 2, "sessions were unloaded and resumed");
        service.shutdown(LONG);
        drop(service);
        let service = keeping(&folder);
        for (id, mut texts) in answered.into_inner().unwrap() {
            let said = said(&service.export_session(id).unwrap());
            let mut kept: Vec<&str> = said.iter().filter_map(|text| text.strip_prefix("= ")).collect();
            kept.sort_unstable();
            texts.sort_unstable();
            assert_eq!(kept, texts);
        }
    });
}

#[test]
fn a_session_archived_during_its_resume_ends_archived() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        for round in 0..40 {
            let id = service.create_session(create("one")).unwrap().session_id;
            service.unload(id, LONG).unwrap();
            thread::scope(|scope| {
                scope.spawn(|| match service.start_turn(id, turn("two")) {
                    Ok(_) => {}
                    Err(error) => assert!(["SESSION_BUSY", "SESSION_ARCHIVED"].contains(&error.code()), "{error}"),
                });
                scope.spawn(|| service.archive(id).unwrap());
            });
            assert!(!service.is_live(id), "round {round}");
            service.archive_wait(id, LONG).unwrap();
            assert_eq!(service.start_turn(id, turn("three")).unwrap_err().code(), "SESSION_ARCHIVED");
            assert_eq!(service.read(id).unwrap().state.state, turnwise::SessionState::Archived);
            assert_eq!(service.stats().sessions, 0);
        }
        assert_eq!(service.list_archived(SessionQuery::new()).unwrap().len(), 40);
    });
}

#[test]
fn one_of_many_concurrent_resumes_builds_the_agent() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let id = service.create_session(create("one")).unwrap().session_id;
        for _ in 0..20 {
            service.unload(id, LONG).unwrap();
            let before = service.stats().sessions_created;
            let done = thread::scope(|scope| {
                let start = || match service.start_turn(id, turn("more")) {
                    Ok(_) => 1,
                    Err(error) => {
                        assert_eq!(error.code(), "SESSION_BUSY");
                        0
                    }
                };
                let callers: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                callers.into_iter().map(|caller| caller.join().unwrap()).sum::<usize>()
            });
            assert!(done >= 1);
            assert_eq!(service.stats().sessions_created, before + 1);
        }
    });
}
