//! What is kept: no turn is lost between two lives of a session, and what is archived or deleted stays so.

use std::collections::BTreeMap;

use super::support::*;
use super::{explore, join, spawn, yield_now};
use crate::store::batches::Batches;
use crate::store::{PersistentSessionService, SessionStore, StoreError, StoredSession};
use crate::sync::{Arc, Mutex};
use crate::{ArchiveMode, ServiceControl, SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec};

/// Keeps sessions in a map. Every call is a place where another thread may come in.
#[derive(Default)]
struct Memory(Mutex<BTreeMap<SessionId, StoredSession>>, Fails);

/// Whether the next save fails.
type Fails = Mutex<bool>;

impl SessionStore for Arc<Memory> {
    fn save(&self, session: &StoredSession) -> Result<(), StoreError> {
        if std::mem::take(&mut *self.1.lock()) {
            return Err(StoreError::failed("no space left"));
        }
        self.0.lock().insert(session.id(), session.clone());
        Ok(())
    }

    fn load(&self, id: SessionId) -> Result<Option<StoredSession>, StoreError> {
        Ok(self.0.lock().get(&id).cloned())
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        Ok(self.0.lock().keys().copied().collect())
    }

    fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        Ok(self.0.lock().remove(&id).is_some())
    }
}

/// A service with a session that is kept and not live.
fn with_cold_session() -> (PersistentSessionService<impl SessionAgentBuilder>, Arc<Memory>, SessionId) {
    let store: Arc<Memory> = Arc::default();
    let service = PersistentSessionService::new(actors(act), 2, Arc::clone(&store));
    let id = service.open_session(SessionSpec::new()).unwrap();
    service.unload(id, FAR).unwrap();
    (service, store, id)
}

fn messages(store: &Memory, id: SessionId) -> usize {
    store.0.lock().get(&id).map_or(0, |stored| stored.history.messages().len())
}

fn end(service: &impl ServiceControl) {
    assert!(service.shutdown(FAR).stuck.is_empty());
    assert_eq!(service.stats().sessions, 0);
}

#[test]
fn keeping_no_answered_turn_is_lost_between_two_lives() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = service.clone();
        let rival = spawn(move || {
            let answered = usize::from(other.start_turn(id, turn("x")).is_ok());
            other.unload(id, FAR).unwrap();
            answered
        });
        let mut answered = 0;
        for _ in 0..2 {
            match service.start_turn(id, turn("x")) {
                Ok(_) => answered += 1,
                Err(error) => assert!(matches!(error, SessionError::Busy { .. }), "{error}"),
            }
        }
        answered += join(rival);
        assert_eq!(messages(&store, id), answered);
        end(&service);
    });
}

#[test]
fn keeping_what_is_archived_while_it_is_resumed_ends_archived() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = service.clone();
        let rival = spawn(move || other.begin_turn(id, turn("x")).map(|turn| turn.wait().is_ok()));
        service.archive(id).unwrap();
        let answered = match join(rival) {
            Ok(went_well) => usize::from(went_well),
            Err(error) => {
                assert!(matches!(error, SessionError::Archived { .. } | SessionError::Busy { .. }), "{error}");
                0
            }
        };
        assert!(!service.is_live(id));
        service.archive_wait(id, FAR).unwrap();
        assert!(store.0.lock()[&id].archived);
        assert_eq!(messages(&store, id), answered);
        end(&service);
    });
}

#[test]
fn keeping_an_archive_that_interrupts_reaches_a_turn_that_is_just_resumed() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = service.clone();
        // Were it not told to stop, it would wait for ever.
        let rival = spawn(move || other.begin_turn(id, turn("wait")).map(|turn| turn.wait().is_err()));
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        match join(rival) {
            Ok(was_stopped) => assert!(was_stopped),
            Err(error) => {
                assert!(matches!(error, SessionError::Archived { .. } | SessionError::Busy { .. }), "{error}");
            }
        }
        end(&service);
        assert!(store.0.lock()[&id].archived);
    });
}

#[test]
fn keeping_what_could_not_be_kept_is_caught_up_with_and_undoes_no_turn() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        service.resume(id).unwrap();
        *store.1.lock() = true;
        service.start_turn(id, turn("x")).unwrap_err();
        let other = service.clone();
        let rival = spawn(move || other.unload(id, FAR).unwrap());
        let answered = usize::from(service.start_turn(id, turn("x")).is_ok());
        join(rival);
        assert_eq!(messages(&store, id), 1 + answered);
        end(&service);
        assert_eq!(messages(&store, id), 1 + answered);
    });
}

#[test]
fn keeping_what_is_taken_is_the_last_word() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = service.clone();
        let rival = spawn(move || {
            for _ in 0..2 {
                let _ = other.start_turn(id, turn("x"));
                let _ = other.unload(id, FAR);
            }
        });
        let taken = service.take_session(id, FAR);
        join(rival);
        match taken {
            Ok(taken) => {
                assert!(store.0.lock()[&id].archived);
                assert_eq!(messages(&store, id), taken.messages().len());
            }
            Err(error) => assert!(matches!(error, SessionError::Busy { .. }), "{error}"),
        }
        end(&service);
    });
}

#[test]
fn keeping_of_two_who_take_a_session_one_gets_it() {
    for is_live in [false, true] {
        explore(move || {
            let (service, store, id) = with_cold_session();
            if is_live {
                service.resume(id).unwrap();
            }
            let other = service.clone();
            let rival = spawn(move || other.take_session(id, FAR).is_ok());
            // Only looks, and is in nobody's way.
            let _ = service.interrupt(id);
            let own = service.take_session(id, FAR).is_ok();
            assert!(own != join(rival));
            assert!(store.0.lock()[&id].archived);
            end(&service);
        });
    }
}

#[test]
fn keeping_a_take_is_refused_by_nobody_who_only_looks() {
    explore(|| {
        let (service, _store, id) = with_cold_session();
        let other = service.clone();
        let rival = spawn(move || drop(other.interrupt(id)));
        service.take_session(id, FAR).unwrap();
        join(rival);
        end(&service);
    });
}

#[test]
fn keeping_of_a_take_and_a_turn_one_succeeds() {
    explore(|| {
        let (service, _store, id) = with_cold_session();
        let other = service.clone();
        let rival = spawn(move || other.start_turn(id, turn("x")).is_ok());
        let is_taken = service.take_session(id, FAR).is_ok();
        assert!(join(rival) || is_taken);
        end(&service);
    });
}

#[test]
fn keeping_what_is_deleted_while_a_turn_runs_stays_deleted() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = service.clone();
        let rival = spawn(move || drop(other.start_turn(id, turn("x"))));
        service.delete(id).unwrap();
        join(rival);
        end(&service);
        assert!(store.0.lock().is_empty());
    });
}

#[test]
fn keeping_of_two_who_resume_at_once_nobody_builds_a_second_agent() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = service.clone();
        let rival = spawn(move || other.start_turn(id, turn("x")).is_ok());
        let own = service.start_turn(id, turn("x")).is_ok();
        let answered = usize::from(own) + usize::from(join(rival));
        assert!(answered >= 1);
        assert_eq!(messages(&store, id), answered);
        assert_eq!(service.stats().sessions_created, 2);
        end(&service);
    });
}

#[test]
fn keeping_a_call_about_a_session_that_is_not_there_fails_no_create_of_its_id() {
    let calls: [fn(&dyn SessionService, SessionId); 3] = [
        |service, id| drop(service.archive(id)),
        |service, id| drop(service.take_session(id, FAR)),
        |service, id| drop(service.start_turn(id, turn("x"))),
    ];
    for call in calls {
        explore(move || {
            let store: Arc<Memory> = Arc::default();
            let service = PersistentSessionService::new(actors(act), 2, Arc::clone(&store));
            let (other, id) = (service.clone(), SessionId::from_uuid(uuid::Uuid::from_u128(7)));
            let rival = spawn(move || call(&other, id));
            match service.open_session(SessionSpec::new().session_id(id)) {
                Ok(opened) => assert_eq!(opened, id),
                // It was there, and has been archived or taken.
                Err(error) => assert!(matches!(error, SessionError::NotFound { .. }), "{error}"),
            }
            join(rival);
            end(&service);
        });
    }
}

#[test]
fn keeping_a_shared_lease_of_a_session_that_was_not_created_keeps_its_id_from_no_create() {
    explore(|| {
        let store: Arc<Memory> = Arc::default();
        let service = PersistentSessionService::new(actors(act), 1, Arc::clone(&store));
        service.open_session(SessionSpec::new()).unwrap();
        let (other, id) = (service.clone(), SessionId::from_uuid(uuid::Uuid::from_u128(7)));
        let rival = spawn(move || drop(other.archive(id)));
        for _ in 0..2 {
            let error = service.open_session(SessionSpec::new().session_id(id)).unwrap_err();
            assert!(matches!(error, SessionError::CapacityExceeded { .. }), "{error}");
        }
        join(rival);
        end(&service);
    });
}

#[test]
fn keeping_a_late_launch_ends_no_later_life_of_its_session() {
    explore(|| {
        let store: Arc<Memory> = Arc::default();
        let service = PersistentSessionService::new(actors(act), 2, Arc::clone(&store));
        let (other, id) = (service.clone(), SessionId::from_uuid(uuid::Uuid::from_u128(7)));
        let spec = move || SessionSpec::new().session_id(id);
        let launcher = spawn(move || drop(other.begin_session(create("x").session(spec()))));
        while !service.is_live(id) {
            yield_now();
        }
        service.archive_wait(id, FAR).unwrap();
        service.delete(id).unwrap();
        service.open_session(spec()).expect("the id is free");
        join(launcher);
        assert!(service.is_live(id));
        end(&service);
    });
}

/// Each item is written once, and whoever wrote it gets its own result; never two write at once.
#[test]
fn keeping_everything_is_written_once_and_answered_with_its_own_result() {
    explore(|| {
        let batches: Arc<Batches<u32, u32>> = Arc::new(Batches::new());
        let written: Arc<Mutex<Vec<u32>>> = Arc::default();
        let is_writing: Arc<Mutex<bool>> = Arc::default();
        let writers: Vec<_> = (1..=3)
            .map(|item| {
                let (batches, written, is_writing) =
                    (Arc::clone(&batches), Arc::clone(&written), Arc::clone(&is_writing));
                spawn(move || {
                    let result = batches.write(item, |items| {
                        assert!(!std::mem::replace(&mut *is_writing.lock(), true), "two write at once");
                        written.lock().extend(items);
                        *is_writing.lock() = false;
                        items.iter().map(|item| item * 10).collect()
                    });
                    assert_eq!(result, Some(item * 10));
                    assert!(written.lock().contains(&item), "it is written before it is answered");
                })
            })
            .collect();
        writers.into_iter().for_each(join);
        written.lock().sort_unstable();
        assert_eq!(*written.lock(), [1, 2, 3]);
    });
}
