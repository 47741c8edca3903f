//! The store in a file: its records, its single owner, and what damage leads to.

use std::thread;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use turnwise::store::{Change, FileStore, PersistentSessionService, Save, SessionStore, StoreError, StoredSession};
use turnwise::{EphemeralSessionService, Message, Session, SessionId, SessionQuery, SessionService};

use crate::support::*;

const RECORDS: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("records");
const WHOLE: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("sessions");
const FORMAT: TableDefinition<'_, &str, u32> = TableDefinition::new("format");
const SUMMARIES: TableDefinition<'_, [u8; 16], &[u8]> = TableDefinition::new("summaries");

fn stored(text: &str) -> StoredSession {
    let mut history = Session::new();
    history.push(Message::user(text));
    StoredSession::new(history)
}

fn loaded(store: &FileStore, id: SessionId) -> Option<StoredSession> {
    store.load(id).unwrap().map(|(session, _)| session)
}

/// Changes the records of a session in the file, without the store.
fn tamper(folder: &Folder, id: SessionId, change: impl Fn(&mut Vec<u8>)) {
    let database = Database::open(folder.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    for table in [RECORDS, SUMMARIES] {
        let mut table = transaction.open_table(table).unwrap();
        let key = id.as_uuid().into_bytes();
        let mut record = table.get(key).unwrap().unwrap().value().to_vec();
        change(&mut record);
        table.insert(key, record.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn saved_sessions_are_loaded_listed_and_deleted() {
    let folder = Folder::new();
    let (one, mut two) = (stored("one"), stored("two"));
    {
        let store = folder.store();
        put(&store, &one).unwrap();
        put(&store, &two).unwrap();
        two.archived = true;
        two.labels.insert("user".into(), "ada".into());
        put(&store, &two).unwrap();
    }
    let store = folder.store();
    assert_eq!(loaded(&store, one.id()), Some(one.clone()));
    assert_eq!(loaded(&store, two.id()), Some(two.clone()));
    assert_eq!(store.summary(two.id()).unwrap(), Some(two.summary()));
    let mut listed = store.list().unwrap();
    listed.sort();
    let mut ids = vec![one.id(), two.id()];
    ids.sort();
    assert_eq!(listed, ids);
    assert!(store.delete(one.id(), None).unwrap());
    assert!(!store.delete(one.id(), None).unwrap());
    assert_eq!(loaded(&store, one.id()), None);
    assert_eq!(store.summary(one.id()).unwrap(), None);
    assert_eq!(store.list().unwrap(), [two.id()]);
}

#[test]
fn the_smallest_stack_has_room_for_a_save() {
    run(|| {
        let config = |bytes| EphemeralSessionService::configure(echo()).stack_size(bytes).max_sessions(1);
        let store = FileStore::in_memory().unwrap();
        assert!(
            PersistentSessionService::with_config(config((128 << 10) - 1), FileStore::in_memory().unwrap()).is_err()
        );
        let service = PersistentSessionService::with_config(config(128 << 10), store).unwrap();
        for _ in 0..300 {
            let id = service.create_session(create("one")).unwrap().session_id;
            service.unload(id, LONG).unwrap();
        }
        assert_eq!(service.list(SessionQuery::new().limit(1_000)).unwrap().len(), 300);
    });
}

#[test]
fn records_out_of_order_are_an_error_and_no_endless_list() {
    // The damage is like that of a page that leads back to an earlier one. redb checks its checksums only after a
    // crash.
    run(|| {
        let folder = Folder::new();
        let store = folder.store();
        let ids: Vec<SessionId> = (1..=9_u128).map(|n| SessionId::from_uuid(uuid::Uuid::from_u128(n << 64))).collect();
        for id in &ids {
            put(&store, &StoredSession::new(Session::with_id(*id))).unwrap();
        }
        assert_eq!(store.list().unwrap(), ids);
        drop(store);
        let mut bytes = std::fs::read(folder.file()).unwrap();
        let (from, to) = (*ids[4].as_uuid().as_bytes(), *ids[0].as_uuid().as_bytes());
        for at in 0..bytes.len() - 16 {
            if bytes[at..at + 16] == from {
                bytes[at..at + 16].copy_from_slice(&to);
            }
        }
        std::fs::write(folder.file(), bytes).unwrap();
        let error = folder.store().list().unwrap_err();
        assert!(error.to_string().contains("in no order"), "{error}");
    });
}

/// A value as version 1 of the file has it: four letters, the version, a checksum and JSON.
fn value_of_version_1(json: &[u8]) -> Vec<u8> {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(&[1, 0]);
    checksum.update(json);
    [b"turn", &[1, 0][..], &checksum.finalize().to_le_bytes(), json].concat()
}

/// Makes a file of version 1, with whole sessions in one table and their summaries in another.
fn file_of_version_1(folder: &Folder, sessions: &[&StoredSession]) {
    let database = Database::create(folder.file()).unwrap();
    let transaction = database.begin_write().unwrap();
    for session in sessions {
        let key = session.id().as_uuid().into_bytes();
        let record = value_of_version_1(&serde_json::to_vec(session).unwrap());
        transaction.open_table(WHOLE).unwrap().insert(key, record.as_slice()).unwrap();
        let summary = value_of_version_1(&serde_json::to_vec(&session.summary()).unwrap());
        transaction.open_table(SUMMARIES).unwrap().insert(key, summary.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn records_of_version_1_are_read_and_converted_by_their_next_save() {
    run(|| {
        let folder = Folder::new();
        let (mut one, two, mut three) = (stored("one"), stored("two"), stored("three"));
        one.labels.insert("user".into(), "ada".into());
        three.archived = true;
        file_of_version_1(&folder, &[&one, &two, &three]);
        let service = keeping(&folder);
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 2);
        assert_eq!(service.list_archived(SessionQuery::new()).unwrap().len(), 1);
        for session in [&one, &two, &three] {
            assert_eq!(service.export_session(session.id()).unwrap(), session.history);
        }
        assert_eq!(service.start_turn(one.id(), turn("more")).unwrap().text, "more");
        service.delete(two.id()).unwrap();
        service.shutdown(LONG);
        drop(service);

        let left = {
            let database = Database::open(folder.file()).unwrap();
            let whole = database.begin_read().unwrap().open_table(WHOLE).unwrap();
            whole.iter().unwrap().map(|row| row.unwrap().0.value()).collect::<Vec<_>>()
        };
        assert_eq!(left, [three.id().as_uuid().into_bytes()], "only a record that was not saved is left");
        let store = folder.store();
        let (converted, _) = store.load(one.id()).unwrap().unwrap();
        assert_eq!(said(&converted.history), ["one", "more", "= more"]);
        assert_eq!(converted.labels, one.labels);
        let mut listed = store.list().unwrap();
        listed.sort();
        assert_eq!(listed, [one.id(), three.id()]);
        // Two writers that have read the old record.
        let (session, seen) = store.load(three.id()).unwrap().unwrap();
        assert_eq!(session, three);
        let header = session.header();
        let save = || Save::new(&header, Change::Appended(&[]), Some(seen));
        store.save(&save()).unwrap();
        assert_eq!(store.save(&save()).unwrap_err().code(), "STORE_CONFLICT");
        assert_eq!(loaded(&store, three.id()), Some(three));
    });
}

#[test]
fn a_damaged_record_of_version_1_is_an_error_for_its_session() {
    let folder = Folder::new();
    let (one, two) = (stored("one"), stored("two"));
    file_of_version_1(&folder, &[&one, &two]);
    {
        let database = Database::open(folder.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        let key = one.id().as_uuid().into_bytes();
        transaction.open_table(WHOLE).unwrap().insert(key, &b"turn"[..]).unwrap();
        transaction.commit().unwrap();
    }
    let store = folder.store();
    assert!(matches!(store.load(one.id()), Err(StoreError::Corrupt { .. })));
    assert_eq!(loaded(&store, two.id()), Some(two));
    assert!(store.delete(one.id(), None).unwrap());
}

#[test]
fn a_file_of_a_newer_version_is_refused_and_stays_as_it_is() {
    let folder = Folder::new();
    put(&folder.store(), &stored("one")).unwrap();
    {
        let database = Database::open(folder.file()).unwrap();
        let transaction = database.begin_write().unwrap();
        transaction.open_table(FORMAT).unwrap().insert("version", 3).unwrap();
        transaction.commit().unwrap();
    }
    for _ in 0..2 {
        let error = FileStore::open(folder.file()).unwrap_err();
        assert!(matches!(error, StoreError::NewerFile { version: 3, supported: 2 }), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_folder_or_a_pipe_is_no_store() {
    run(|| {
        let folder = Folder::new();
        assert!(matches!(FileStore::open(&*folder), Err(StoreError::Failed(_))));
        // A pipe without a writer would block a plain open.
        let made = std::process::Command::new("mkfifo").arg(folder.file()).status();
        assert!(made.unwrap().success());
        assert!(matches!(FileStore::open(folder.file()), Err(StoreError::Failed(_))));
    });
}

#[test]
fn a_file_belongs_to_one_store_at_a_time() {
    let folder = Folder::new();
    let store = folder.store();
    let error = FileStore::open(folder.file()).unwrap_err();
    assert!(matches!(&error, StoreError::InUse { path } if *path == folder.file()), "{error:?}");
    drop(store);
    folder.store();
}

#[test]
fn a_file_that_is_no_store_is_an_error_and_stays_as_it_is() {
    let folder = Folder::new();
    for content in [&b"something else entirely"[..], b"x", &[0; 10_000], &[0xff; 10_000]] {
        std::fs::write(folder.file(), content).unwrap();
        let error = FileStore::open(folder.file()).unwrap_err();
        assert!(matches!(error, StoreError::Failed(_)), "{error}");
        assert_eq!(std::fs::read(folder.file()).unwrap(), content);
    }
    assert!(FileStore::open(folder.join("no/such/folder")).is_err());
    assert!(FileStore::open(&*folder).is_err());
    // An empty file becomes a store.
    std::fs::write(folder.file(), b"").unwrap();
    folder.store();
}

#[test]
fn saves_of_many_threads_are_all_there() {
    run(|| {
        let folder = Folder::new();
        let store = folder.store();
        let all: Vec<StoredSession> = thread::scope(|scope| {
            let savers: Vec<_> = (0..8)
                .map(|n| {
                    let store = &store;
                    scope.spawn(move || {
                        let save = |k: usize| {
                            let session = stored(&format!("{n}.{k}"));
                            put(store, &session).unwrap();
                            // A saved session can be loaded at once.
                            assert_eq!(loaded(store, session.id()).as_ref(), Some(&session));
                            session
                        };
                        (0..10).map(save).collect::<Vec<_>>()
                    })
                })
                .collect();
            savers.into_iter().flat_map(|saver| saver.join().unwrap()).collect()
        });
        drop(store);
        let store = folder.store();
        assert_eq!(store.list().unwrap().len(), 80);
        for session in all {
            assert_eq!(loaded(&store, session.id()), Some(session));
        }
    });
}

#[test]
fn readers_are_not_disturbed_by_concurrent_saves() {
    run(|| {
        let folder = Folder::new();
        let store = folder.store();
        let sessions: Vec<StoredSession> = (0..3).map(|n| stored(&n.to_string())).collect();
        sessions.iter().for_each(|session| put(&store, session).unwrap());
        thread::scope(|scope| {
            for session in &sessions {
                let store = &store;
                scope.spawn(move || {
                    let mut session = session.clone();
                    for n in 0..200 {
                        session.history.push(Message::user("x".repeat(n)));
                        put(store, &session).unwrap();
                    }
                });
                scope.spawn(move || {
                    for _ in 0..1_000 {
                        assert!(store.load(session.id()).unwrap().is_some());
                        assert_eq!(store.list().unwrap().len(), 3);
                        assert_eq!(store.summaries().unwrap().len(), 3);
                    }
                });
            }
        });
    });
}

#[cfg(unix)]
#[test]
fn a_dangling_link_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    std::os::unix::fs::symlink(folder.join("elsewhere"), folder.file()).unwrap();
    assert!(FileStore::open(folder.file()).unwrap_err().to_string().contains("leads nowhere"));
    assert!(folder.file().is_symlink());
    std::fs::write(folder.join("elsewhere"), b"").unwrap();
    put(&folder.store(), &stored("one")).unwrap();
    assert!(folder.file().is_symlink());
    assert_eq!(folder.store().list().unwrap().len(), 1);
}

#[test]
fn a_damaged_or_newer_record_is_a_clear_error_and_leaves_the_others_usable() {
    run(|| {
        let folder = Folder::new();
        let service = keeping(&folder);
        let [good, damaged, newer] =
            ["good", "damaged", "newer"].map(|prompt| service.create_session(create(prompt)).unwrap().session_id);
        service.shutdown(LONG);
        drop(service);
        tamper(&folder, damaged, |record| *record.last_mut().unwrap() ^= 4);
        tamper(&folder, newer, |record| {
            record[4] = 9;
            let mut checksum = crc32fast::Hasher::new();
            checksum.update(&record[4..6]);
            checksum.update(&record[10..]);
            record[6..10].copy_from_slice(&checksum.finalize().to_le_bytes());
        });

        let service = keeping(&folder);
        let about = |error: turnwise::SessionError| {
            assert_eq!(error.code(), "STORE_FAILED");
            (error.session_id().unwrap(), StoreError::of(&error).unwrap().clone())
        };
        for id in [damaged, newer] {
            let errors = [
                service.start_turn(id, turn("more")).unwrap_err(),
                service.read(id).unwrap_err(),
                service.export_session(id).unwrap_err(),
                service.archive(id).unwrap_err(),
                service.resume(id).unwrap_err(),
                service.create_session(create("x").session(turnwise::SessionSpec::new().session_id(id))).unwrap_err(),
            ];
            for error in errors {
                match about(error) {
                    (whose, StoreError::Corrupt { id: about, .. }) => assert_eq!([whose, about], [damaged; 2]),
                    (whose, StoreError::Newer { id: about, version, supported }) => {
                        assert_eq!([whose, about], [newer; 2]);
                        assert_eq!((version, supported), (9, 2));
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 1);
        assert_eq!(service.start_turn(good, turn("more")).unwrap().text, "more");
        assert_eq!(service.stats().sessions_created, 1);
        // The newer record is not overwritten, so a newer version of the library can still read it.
        let listed = |service: &turnwise::store::PersistentSessionService<Echo>| service.read(newer).unwrap_err();
        assert!(matches!(about(listed(&service)).1, StoreError::Newer { .. }));
        service.delete(damaged).unwrap();
        assert_eq!(service.read(damaged).unwrap_err().code(), "SESSION_NOT_FOUND");
    });
}

/// Damage to the file is an error or a missing session, never a crash and never a wrong history.
#[test]
fn no_damage_to_the_file_leads_to_a_wrong_history() {
    run(|| {
        let folder = Folder::new();
        let mut all = Vec::new();
        let store = folder.store();
        for n in 0..20 {
            let session = stored(&format!("session {n} {}", "word ".repeat(100)));
            put(&store, &session).unwrap();
            all.push(session);
        }
        drop(store);
        let sound = std::fs::read(folder.file()).unwrap();
        let written: Vec<usize> = (0..sound.len() - 64)
            .filter(|place| sound[place + 32..].starts_with(b"word") || (*place < 512 && sound[*place] != 0))
            .collect();
        let mut noticed = 0;
        let mut state = 1_u64;
        for round in 0..60 {
            // A linear congruential generator selects the place of the damage.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let place = written[(state >> 16) as usize % written.len()];
            let mut damaged = sound.clone();
            damaged[place..place + 64].iter_mut().for_each(|byte| *byte ^= 0x5a);
            std::fs::write(folder.file(), &damaged).unwrap();
            let Ok(store) = FileStore::open(folder.file()) else {
                noticed += 1;
                continue;
            };
            for session in &all {
                match store.load(session.id()) {
                    Ok(Some((loaded, _))) => assert_eq!(loaded, *session, "round {round}, at {place}"),
                    Ok(None) | Err(_) => noticed += 1,
                }
            }
            let _ = store.list();
        }
        assert!(noticed > 10, "too little damage was noticed: {noticed}");
    });
}
