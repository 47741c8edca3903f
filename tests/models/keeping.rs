//! Kept sessions: no turn is lost between two lives, and an archived or deleted session stays archived or deleted.

use std::collections::BTreeMap;

use super::support::*;
use super::{explore, join, spawn, yield_now};
use crate::store::batches::Batches;
use crate::store::{PersistentSessionService, Revision, Save, SessionStore, StoreError, StoredSession};
use crate::sync::{Arc, Mutex};
use crate::{
    ArchiveMode, ServiceControl, SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec,
    Subscription, WhenBusy,
};

/// A store that keeps its records in a map. Under the model checker another thread may run before and after every call.
#[derive(Default)]
pub(super) struct Memory(Mutex<BTreeMap<SessionId, (StoredSession, Revision)>>, Fails);

/// True if the next save fails.
type Fails = Mutex<bool>;

impl SessionStore for Arc<Memory> {
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
        if std::mem::take(&mut *self.1.lock()) {
            return Err(StoreError::failed("no space left"));
        }
        let mut records = self.0.lock();
        let stored = records.get(&save.id()).cloned();
        if save.check(stored.as_ref().map(|(_, revision)| *revision))? {
            let session = save.applied_to(stored.map(|(session, _)| session))?;
            records.insert(save.id(), (session, save.next));
        }
        Ok(())
    }

    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
        Ok(self.0.lock().get(&id).cloned())
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        Ok(self.0.lock().keys().copied().collect())
    }

    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        let mut records = self.0.lock();
        match (records.get(&id), seen) {
            (Some((_, revision)), Some(seen)) if *revision != seen => Err(StoreError::Conflict { id }),
            _ => Ok(records.remove(&id).is_some()),
        }
    }
}

/// A service with a kept session that is not live.
fn with_cold_session() -> (PersistentSessionService<impl SessionAgentBuilder>, Arc<Memory>, SessionId) {
    let store: Arc<Memory> = Arc::default();
    let service = PersistentSessionService::new(actors(act), 2, Arc::clone(&store));
    let id = service.open_session(SessionSpec::new()).unwrap();
    service.unload(id, FAR).unwrap();
    (service, store, id)
}

pub(super) fn messages(store: &Memory, id: SessionId) -> usize {
    store.0.lock().get(&id).map_or(0, |(stored, _)| stored.history.iter().len())
}

pub(super) fn end(service: &impl ServiceControl) {
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
fn keeping_c59_two_services_on_one_store_lose_no_answered_turn() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = PersistentSessionService::new(actors(act), 1, Arc::clone(&store));
        let answered_by = move |service: &dyn SessionService| {
            let mut answered = 0;
            for _ in 0..2 {
                match service.start_turn(id, turn("x")) {
                    Ok(_) => answered += 1,
                    Err(error) => assert!(is_conflict(&error), "{error}"),
                }
            }
            answered
        };
        let rival = spawn(move || {
            let answered = answered_by(&other);
            end(&other);
            answered
        });
        let answered = answered_by(&service) + join(rival);
        assert_eq!(messages(&store, id), answered);
        end(&service);
        assert_eq!(messages(&store, id), answered, "nothing is saved at the end of a session that is out of date");
    });
}

#[test]
fn keeping_c57_no_boundary_hides_an_event_of_the_next_life() {
    explore(|| {
        let (service, _store, id) = with_cold_session();
        let all = service.subscribe_all(Subscription::new());
        let other = service.clone();
        let reader = spawn(move || [(); 3].map(|()| other.history_at(id).unwrap()));
        for _ in 0..2 {
            service.start_turn(id, turn("x")).unwrap();
            service.unload(id, FAR).unwrap();
        }
        let pairs = join(reader);
        end(&service);
        let log: Vec<_> = all.collect();
        for (history, seq) in pairs {
            let (turns, seq) = (history.iter().len(), seq as usize);
            // Two events for each turn.
            assert_eq!((2 * turns, log.len()), (seq, 4), "boundary {seq}: {log:?}");
        }
    });
}

fn is_conflict(error: &SessionError) -> bool {
    matches!(StoreError::of(error), Some(StoreError::Conflict { .. }))
}

#[test]
fn keeping_c59_a_conflict_ends_the_session_with_its_queue_and_frees_its_place() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        service.resume(id).unwrap();
        let other = PersistentSessionService::new(actors(act), 1, Arc::clone(&store));
        other.start_turn(id, turn("x")).unwrap();
        // The session is out of date. Turns that are queued behind the first one fail with it. A turn that comes later
        // begins the next life.
        let client = service.clone();
        let rival = spawn(move || client.start_turn(id, turn("x").when_busy(WhenBusy::Queue)).map(drop));
        let first = service.start_turn(id, turn("x").when_busy(WhenBusy::Queue)).map(drop);
        let results = [first, join(rival)];
        assert!(results.iter().flat_map(|result| result.as_ref().err()).any(is_conflict), "{results:?}");
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            assert!(is_conflict(error) || matches!(error, SessionError::Busy { .. }), "{error}");
        }
        let answered = results.iter().filter(|result| result.is_ok()).count();
        assert_eq!(messages(&store, id), 1 + answered);
        service.start_turn(id, turn("x")).expect("the next turn loads what is kept");
        assert_eq!(service.stats().sessions, 1);
        end(&service);
        end(&other);
        assert_eq!(messages(&store, id), 2 + answered);
    });
}

#[test]
fn keeping_c59_an_archive_beside_another_service_keeps_its_turns() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        service.resume(id).unwrap();
        let other = PersistentSessionService::new(actors(act), 1, Arc::clone(&store));
        let rival = spawn(move || {
            let answered = match other.start_turn(id, turn("x")) {
                Ok(_) => 1,
                Err(error) => {
                    assert!(is_conflict(&error) || matches!(error, SessionError::Archived { .. }), "{error}");
                    0
                }
            };
            end(&other);
            answered
        });
        service.archive(id).unwrap();
        let answered = join(rival);
        end(&service);
        assert!(store.0.lock()[&id].0.archived);
        assert_eq!(messages(&store, id), answered);
    });
}

#[test]
fn keeping_a_session_archived_during_its_resume_ends_archived() {
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
        assert!(store.0.lock()[&id].0.archived);
        assert_eq!(messages(&store, id), answered);
        end(&service);
    });
}

#[test]
fn keeping_an_interrupting_archive_reaches_a_turn_that_is_being_resumed() {
    explore(|| {
        let (service, store, id) = with_cold_session();
        let other = service.clone();
        // If the archive did not cancel the turn, the turn would wait for ever.
        let rival = spawn(move || other.begin_turn(id, turn("wait")).map(|turn| turn.wait().is_err()));
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        match join(rival) {
            Ok(was_stopped) => assert!(was_stopped),
            Err(error) => {
                assert!(matches!(error, SessionError::Archived { .. } | SessionError::Busy { .. }), "{error}");
            }
        }
        end(&service);
        assert!(store.0.lock()[&id].0.archived);
    });
}

#[test]
fn keeping_a_later_save_makes_up_for_a_failed_one_and_undoes_no_turn() {
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
fn keeping_no_turn_changes_the_record_after_a_take() {
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
                assert!(store.0.lock()[&id].0.archived);
                assert_eq!(messages(&store, id), taken.messages().len());
            }
            Err(error) => assert!(matches!(error, SessionError::Busy { .. }), "{error}"),
        }
        end(&service);
    });
}

#[test]
fn keeping_one_of_two_concurrent_takes_gets_the_session() {
    for is_live in [false, true] {
        explore(move || {
            let (service, store, id) = with_cold_session();
            if is_live {
                service.resume(id).unwrap();
            }
            let other = service.clone();
            let rival = spawn(move || other.take_session(id, FAR).is_ok());
            // The interrupt only looks for a record, and must not make a take fail.
            let _ = service.interrupt(id);
            let own = service.take_session(id, FAR).is_ok();
            assert!(own != join(rival));
            assert!(store.0.lock()[&id].0.archived);
            end(&service);
        });
    }
}

#[test]
fn keeping_a_concurrent_interrupt_does_not_make_a_take_fail() {
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
fn keeping_a_take_or_a_concurrent_turn_succeeds() {
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
fn keeping_a_session_deleted_during_a_turn_stays_deleted() {
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
fn keeping_two_concurrent_resumes_build_one_agent() {
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
fn keeping_a_call_about_an_unknown_id_fails_no_create_of_that_id() {
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
                // The session was registered, and the other call has archived or taken it.
                Err(error) => assert!(matches!(error, SessionError::NotFound { .. }), "{error}"),
            }
            join(rival);
            end(&service);
        });
    }
}

#[test]
fn keeping_a_shared_lease_of_a_refused_create_fails_no_later_create() {
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

/// Each item is written once, its caller gets the result of that item, and two threads never write at the same time.
#[test]
fn keeping_each_item_is_written_once_and_answered_with_its_own_result() {
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
                        assert!(
                            !std::mem::replace(&mut *is_writing.lock(), true),
                            "two threads write at the same time"
                        );
                        written.lock().extend(items);
                        *is_writing.lock() = false;
                        items.iter().map(|item| item * 10).collect()
                    });
                    assert_eq!(result, Some(item * 10));
                    assert!(written.lock().contains(&item), "the item is written before it is answered");
                })
            })
            .collect();
        writers.into_iter().for_each(join);
        written.lock().sort_unstable();
        assert_eq!(*written.lock(), [1, 2, 3]);
    });
}
