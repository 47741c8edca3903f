//! C57 in a service that keeps sessions: the history of a session that is not live, and the boundary at which its next
//! life begins.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;

use turnwise::store::{PersistentSessionService, SessionStore};
use turnwise::testkit::Gate;
use turnwise::{
    AgentEvent, ArchiveMode, SessionAgentBuilder, SessionError, SessionEvent, SessionId, SessionService, SessionSpec,
    Subscription,
};

use crate::support::*;

/// The texts of the history and its boundary.
#[track_caller]
fn at(service: &impl SessionService, id: SessionId) -> (Vec<String>, u64) {
    let (history, seq) = service.history_at(id).unwrap();
    let texts = said(&history);
    assert_eq!(said(&service.history(id).unwrap()), texts);
    (texts, seq)
}

fn last_seq(service: &impl SessionService, id: SessionId) -> u64 {
    service.read(id).unwrap().state.last_seq
}

#[test]
fn c57_a_kept_session_that_is_not_live_is_read_from_its_record() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let id = service.create_session(create("one")).unwrap().session_id;
        service.start_turn(id, turn("fail")).unwrap_err();
        let live = at(&service, id);
        assert_eq!(live, (vec!["one".to_owned(), "= one".to_owned()], 4));
        service.unload(id, LONG).unwrap();
        assert_eq!(at(&service, id), live);
        assert!(!service.is_live(id), "reading does not resume the session");
        service.shutdown(LONG);
        drop(service);

        let service = keeping(&folder);
        assert_eq!(at(&service, id), live);
        service.resume(id).unwrap();
        assert_eq!(at(&service, id), live);
        // The first event after the boundary is the first event of the next life.
        let events = service.subscribe(id, Subscription::new().from_seq(live.1 + 1)).unwrap();
        service.start_turn(id, turn("two")).unwrap();
        let first = events.try_recv().unwrap();
        assert_eq!((first.seq, events.dropped()), (live.1 + 1, 0));
        assert!(matches!(first.event, AgentEvent::RunStarted { .. }));
        assert_eq!(at(&service, id), (["one", "= one", "two", "= two"].map(str::to_owned).to_vec(), 6));
    });
}

#[test]
fn c57_after_a_kill_the_boundary_is_where_the_next_life_begins() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        // The copy of the record is that of a killed process, which has not written its exact numbers.
        let copy = Arc::new(Watched::default());
        let stored = store.load(id).unwrap().unwrap().0;
        put(&copy, &stored).unwrap();
        let other = PersistentSessionService::new(echo(), 1, copy);
        let (texts, seq) = at(&other, id);
        assert_eq!(texts, ["one", "= one"]);
        // The killed life had events after its last save: none of them is behind the boundary.
        assert!(seq >= last_seq(&service, id) && seq == stored.numbers.events_reserved);
        other.resume(id).unwrap();
        assert_eq!(at(&other, id), (texts, seq));
        let events = other.subscribe(id, Subscription::new().from_seq(seq + 1)).unwrap();
        other.start_turn(id, turn("two")).unwrap();
        assert_eq!((events.try_recv().unwrap().seq, events.dropped()), (seq + 1, 0));
    });
}

#[test]
fn c57_an_archived_session_keeps_its_history() {
    run(|| {
        let (service, _store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        gate.let_through(1);
        running.wait().unwrap();
        let one = at(&service, id);
        assert_eq!(one.0, ["one", "= one"]);
        let draining = service.begin_turn(id, turn("two")).unwrap();
        gate.wait_arrived(2);
        service.archive(id).unwrap();
        // At once, though the turn drains, and with the boundary of the turn before it.
        assert_eq!(at(&service, id), one);
        gate.open();
        draining.wait().unwrap();
        service.archive_wait(id, LONG).unwrap();
        let two = at(&service, id);
        assert_eq!(two, (["one", "= one", "two", "= two"].map(str::to_owned).to_vec(), 4));
        service.shutdown(LONG);
        assert_eq!(at(&service, id), two);
    });
}

#[test]
fn c57_a_session_that_is_deleted_or_unknown_is_not_found() {
    run(|| {
        let (service, _store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        let not_found = |id| {
            assert!(matches!(service.history(id), Err(SessionError::NotFound { .. })));
            assert!(matches!(service.history_at(id), Err(SessionError::NotFound { .. })));
        };
        not_found(SessionId::new());
        service.delete(id).unwrap();
        not_found(id); // the turn still runs
        gate.open();
        running.wait().unwrap();
        service.archive_wait(id, LONG).unwrap_err();
        not_found(id);
    });
}

#[test]
fn c57_a_session_archived_during_its_build_is_not_found_before_its_record() {
    run(|| {
        let (store, gate) = (Arc::new(Watched::default()), Gate::new());
        let service = PersistentSessionService::new(held_builds(&gate), 1, Arc::clone(&store));
        let id = SessionId::new();
        thread::scope(|scope| {
            let opening = scope.spawn(|| service.open_session(SessionSpec::new().session_id(id)));
            gate.wait_arrived(1);
            assert_eq!(at(&service, id), (vec![], 0));
            service.archive(id).unwrap();
            assert!(matches!(service.history_at(id), Err(SessionError::NotFound { .. })));
            gate.open();
            opening.join().unwrap().unwrap_err();
        });
        service.archive_wait(id, LONG).unwrap();
        assert_eq!(at(&service, id), (vec![], 0));
    });
}

#[test]
fn c57_a_session_that_another_writer_has_changed_is_read_from_the_store() {
    run(|| {
        let (service, store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        gate.let_through(1);
        running.wait().unwrap();
        // Held, so that the life is there while it is read.
        let held = service.begin_turn(id, turn("two")).unwrap();
        gate.wait_arrived(2);
        let other = PersistentSessionService::new(echo(), 1, Arc::clone(&store));
        other.start_turn(id, turn("other")).unwrap();
        other.shutdown(LONG);
        // Labels are saved in the record of the other writer. This life ends unsaved.
        service.set_labels(id, [("a".to_owned(), "b".to_owned())].into()).unwrap();
        let stored = store.load(id).unwrap().unwrap().0;
        let expected = ["one", "= one", "other", "= other"].map(str::to_owned).to_vec();
        assert_eq!(at(&service, id), (expected, stored.numbers.events_reserved));
        gate.open();
        held.wait().unwrap_err();
    });
}

#[test]
fn c57_the_store_is_not_read_while_the_session_is_live() {
    run(|| {
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.panics.store(true, Ordering::SeqCst);
        assert_eq!(at(&service, id).0, ["one", "= one"]);
        store.panics.store(false, Ordering::SeqCst);
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
    });
}

fn starts_turn(event: &&SessionEvent) -> bool {
    matches!(event.event, AgentEvent::RunStarted { .. })
}

/// Lives begin and end while readers take pairs. No boundary hides an event of a later turn, and none shows an event of
/// a turn that the history holds.
fn follow_lives<B: SessionAgentBuilder>(service: &PersistentSessionService<B>, lives: usize) {
    let all = service.subscribe_all(Subscription::new().capacity(1 << 20));
    let id = service.open_session(SessionSpec::new()).unwrap();
    let done = AtomicBool::new(false);
    let pairs: Vec<_> = thread::scope(|scope| {
        let reader = || {
            let mut pairs = Vec::new();
            while !done.load(Ordering::SeqCst) {
                let (history, seq) = service.history_at(id).unwrap();
                let pair = (history.iter().len() / 2, seq);
                if pairs.last() != Some(&pair) {
                    pairs.push(pair);
                }
            }
            pairs
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for _ in 0..lives {
            service.start_turn(id, turn("x")).unwrap();
            service.unload(id, LONG).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    service.shutdown(LONG);
    let log: Vec<_> = all.collect();
    assert!(log.iter().zip(1..).all(|(event, seq)| event.seq == seq), "the log has every event");
    assert!(pairs.len() > 2, "the readers have run");
    for (turns, seq) in pairs {
        let (before, after) = log.split_at_checked(seq as usize).expect("a boundary is a number that is used");
        assert_eq!(before.iter().filter(starts_turn).count(), turns, "of boundary {seq}");
        assert!(after.first().is_none_or(|event| starts_turn(&event)), "of boundary {seq}");
    }
}

#[test]
fn c57_no_boundary_hides_an_event_while_lives_begin_and_end() {
    run(|| {
        let (service, _store) = watched();
        follow_lives(&service, 100);
    });
}
