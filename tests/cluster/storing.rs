//! A store on a server: the same records as in memory, services that share it, and what a server does that fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use turnwise::cluster::{Engine, EngineConfig, EngineError, RedisStore};
use turnwise::store::{
    Change, PersistentSessionService, Revision, Save, SessionStore, StoreError, StoredSession, StoredSummary,
};
use turnwise::{Message, Session, SessionError, SessionId, SessionQuery, SessionService, SessionSpec, SessionState};

use crate::server::Server;
use crate::support::*;

const LEASE: Duration = Duration::from_secs(5);

fn open(server: &Server) -> RedisStore {
    RedisStore::new(Engine::open(&server.url(), EngineConfig::new().lease(LEASE)).unwrap())
}

fn service(server: &Server) -> PersistentSessionService<Echo> {
    PersistentSessionService::new(echo(), 4, open(server))
}

fn engine_error(error: &StoreError) -> &EngineError {
    match error {
        StoreError::Failed(source) => source.downcast_ref().expect("an error of the engine"),
        other => panic!("{other}"),
    }
}

fn engine_error_of(error: &SessionError) -> &EngineError {
    engine_error(StoreError::of(error).expect("an error of the store"))
}

/// Saves a new session with these messages.
fn save_new(store: &RedisStore, messages: Vec<Message>) -> Result<(StoredSession, Revision), StoreError> {
    let mut history = Session::new();
    history.push_batch(messages);
    let session = StoredSession::new(history);
    let header = session.header();
    let save = Save::new(&header, Change::Rewritten(&session.history), None);
    let revision = save.next;
    store.save(&save)?;
    Ok((session, revision))
}

#[test]
fn c82_appends_and_rewrites_on_a_server_are_those_in_memory() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || check_random_saves(open(&server), |_| open(&server)));
}

#[test]
fn c82_a_record_has_all_that_was_saved_after_a_crash_of_the_server() {
    let Some(mut server) = Server::start(&[]) else { return };
    run(move || {
        let store = open(&server);
        let mut session = StoredSession::new(Session::new());
        session.history.push_batch((0..2_500).map(|n| Message::user(format!("message {n} \u{1F980}\0\r\n"))));
        session.history.set_metadata("title", "crabs");
        session.history.record_usage(turnwise::Usage { input_tokens: u64::MAX, ..Default::default() });
        (session.model, session.system_prompt, session.max_tokens) = ("m".into(), Some("Be brief.".into()), Some(7));
        session.labels.insert("user".into(), "ada".into());
        let header = session.header();
        let first = Save::new(&header, Change::Rewritten(&session.history), None);
        store.save(&first).unwrap();
        session.archived = true;
        session.labels.insert("topic".into(), "maps".into());
        let header = session.header();
        let second = Save::new(&header, Change::Appended(&[]), Some(first.next));
        store.save(&second).unwrap();
        server.kill();
        server.start_again();
        // The open store connects again by itself.
        for store in [store, open(&server)] {
            assert!(store.load(session.id()).unwrap() == Some((session.clone(), second.next)));
            assert_eq!(store.summary(session.id()).unwrap(), Some(session.summary()));
            let summaries: Vec<StoredSummary> = store.summaries().unwrap().into_iter().map(Result::unwrap).collect();
            assert_eq!(summaries, [session.summary()]);
        }
    });
}

#[test]
fn c82_lists_go_through_all_pages_in_order() {
    let Some(server) = Server::start(&["--appendfsync", "no"]) else { return };
    run(move || {
        let store = open(&server);
        let mut ids: Vec<SessionId> = (0..1_203).map(|_| save_new(&store, Vec::new()).unwrap().0.id()).collect();
        let listed = store.list().unwrap();
        assert_eq!(store.summaries().unwrap().len(), ids.len());
        ids.sort();
        let mut sorted = listed.clone();
        sorted.sort();
        assert_eq!(sorted, ids);
        // The place behind which a page begins may be deleted meanwhile: no other session is left out.
        assert!(store.delete(listed[499], None).unwrap());
        assert_eq!(store.list().unwrap().len(), ids.len() - 1);
        let service = PersistentSessionService::new(echo(), 1, store);
        let page = service.list(SessionQuery::new().after(listed[600]).limit(2)).unwrap();
        assert_eq!(page.iter().map(|one| one.session_id).collect::<Vec<_>>(), listed[601..603]);
    });
}

#[test]
fn c82_services_on_two_engines_share_sessions_and_learn_of_each_other() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let services = [(); 2].map(|()| service(&server));
        let id = services[0].create_session(create("0")).unwrap().session_id;
        let mut answered = vec!["0".to_owned(), "= 0".to_owned()];
        for n in 1..12 {
            let service = &services[n % 2];
            let prompt = n.to_string();
            if service.is_live(id) {
                let error = service.start_turn(id, turn("lost")).unwrap_err();
                assert!(matches!(StoreError::of(&error), Some(StoreError::Conflict { .. })), "{error}");
            }
            assert_eq!(service.start_turn(id, turn(&prompt)).unwrap().text, prompt);
            answered.extend([prompt.clone(), format!("= {prompt}")]);
            assert_eq!(said(&services[n % 2].export_session(id).unwrap()), answered);
        }
        services[0].archive(id).unwrap();
        assert!(services[1].start_turn(id, turn("late")).is_err());
        assert_eq!(services[1].read(id).unwrap().state.state, SessionState::Archived);
    });
}

/// Each thread writes sessions of its own and one that all share. An `Ok` is in the record exactly once, in the order of
/// the saves; nothing else is there.
#[test]
fn c82_concurrent_saves_under_faults_of_the_server_lose_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        const THREADS: usize = 8;
        let store = open(&server);
        let (shared, _) = save_new(&store, Vec::new()).unwrap();
        let shared = shared.id();
        // How many saves have been answered, and `usize::MAX` at the end.
        let saved = AtomicUsize::new(0);
        let (own, kept): (Vec<(SessionId, Vec<String>)>, Vec<String>) = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let store = if thread % 2 == 0 { store.clone() } else { open(&server) };
                    let saved = &saved;
                    scope.spawn(move || write_turns(&store, thread, shared, saved))
                })
                .collect();
            let troubles = scope.spawn(|| {
                let mut seen = 0;
                while seen < usize::MAX {
                    server.command(&["SCRIPT", "FLUSH"]);
                    server.command(&["CLIENT", "KILL", "TYPE", "normal"]);
                    // Some saves come through between two troubles.
                    let before = seen;
                    while seen <= before.saturating_add(10) && seen < usize::MAX {
                        std::thread::yield_now();
                        seen = saved.load(Ordering::SeqCst);
                    }
                }
            });
            let written: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            saved.store(usize::MAX, Ordering::SeqCst);
            troubles.join().unwrap();
            let written: Vec<_> = written.into_iter().map(Result::unwrap).collect();
            let kept = written.iter().flat_map(|(_, _, shared)| shared.clone()).collect();
            (written.into_iter().map(|(id, own, _)| (id, own)).collect(), kept)
        });
        for (id, written) in own {
            assert_eq!(said(&store.load(id).unwrap().unwrap().0.history), written);
        }
        let mut found = said(&store.load(shared).unwrap().unwrap().0.history);
        let mut kept = kept;
        for thread in 0..THREADS {
            let of = |texts: &[String]| -> Vec<String> {
                texts.iter().filter(|text| text.starts_with(&format!("{thread}:"))).cloned().collect()
            };
            assert_eq!(of(&found), of(&kept), "the saves of one thread are in their order");
        }
        found.sort();
        kept.sort();
        assert_eq!(found, kept);
    });
}

/// Saves 40 turns of a session of its own and some of the shared one. Returns what was answered with `Ok`.
fn write_turns(
    store: &RedisStore,
    thread: usize,
    shared: SessionId,
    saved: &AtomicUsize,
) -> (SessionId, Vec<String>, Vec<String>) {
    let (mut own, mut seen) = save_new(store, Vec::new()).unwrap();
    let (mut written, mut to_shared) = (Vec::new(), Vec::new());
    for turn in 0..40 {
        let text = format!("{thread}:{turn}");
        let added = [Message::user(text.as_str())];
        own.history.push_batch(added.clone());
        let header = own.header();
        let save = Save::new(&header, Change::Appended(&added), Some(seen));
        store.save(&save).unwrap();
        seen = save.next;
        written.push(text.clone());
        saved.fetch_add(1, Ordering::SeqCst);
        // The shared one: the save of another thread may come first.
        let (mut session, revision) = store.load(shared).unwrap().unwrap();
        session.history.push_batch(added.clone());
        let header = session.header();
        match store.save(&Save::new(&header, Change::Appended(&added), Some(revision))) {
            Ok(()) => to_shared.push(text),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    (own.id(), written, to_shared)
}

#[test]
fn c82_a_save_that_is_repeated_after_other_saves_was_written_once() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let (store, other) = (open(&server), open(&server));
        let (mut session, seen) = save_new(&store, Vec::new()).unwrap();
        let added = [Message::user("one")];
        session.history.push_batch(added.clone());
        let header = session.header();
        let save = Save::new(&header, Change::Appended(&added), Some(seen));
        store.save(&save).unwrap();
        put(&other, &session).unwrap();
        // Its reply was lost, and another writer came before the repeat.
        store.save(&save).unwrap();
        assert_eq!(said(&store.load(session.id()).unwrap().unwrap().0.history), ["one"]);
    });
}

#[test]
fn c83_a_server_that_is_stopped_for_less_than_a_lease_costs_nothing() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let store = open(&server);
        let service = PersistentSessionService::new(echo(), 4, store.clone());
        let id = service.create_session(create("one")).unwrap().session_id;
        server.signal("STOP");
        std::thread::scope(|scope| {
            let answer = scope.spawn(|| service.start_turn(id, turn("two")));
            // Longer than one wait for the server, so that a connection is given up.
            std::thread::sleep(LEASE / 2);
            server.signal("CONT");
            assert_eq!(answer.join().unwrap().unwrap().text, "two");
        });
        // A late answer to the call that was given up is not taken for the answer to another one.
        let header = StoredSession::new(Session::with_id(id)).header();
        let late = Save::new(&header, Change::Appended(&[]), Some(Revision::new()));
        assert_eq!(store.save(&late).unwrap_err().code(), "STORE_CONFLICT");
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one", "two", "= two"]);
    });
}

#[test]
fn c83_a_server_that_is_gone_fails_the_turn_and_the_next_turn_saves_both() {
    let Some(mut server) = Server::start(&[]) else { return };
    run(move || {
        let service = service(&server);
        let id = service.create_session(create("one")).unwrap().session_id;
        server.kill();
        let begun = Instant::now();
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert!(matches!(engine_error_of(&error), EngineError::Unreachable { .. }), "{error}");
        assert!(begun.elapsed() < 4 * LEASE, "{:?}", begun.elapsed());
        server.start_again();
        assert_eq!(service.start_turn(id, turn("three")).unwrap().text, "three");
        service.shutdown(LONG);
        let (stored, _) = open(&server).load(id).unwrap().unwrap();
        assert_eq!(said(&stored.history), ["one", "= one", "two", "= two", "three", "= three"]);
    });
}

#[test]
fn c83_a_server_without_its_data_ends_the_engine_with_an_error() {
    let Some(mut server) = Server::start(&[]) else { return };
    run(move || {
        let service = service(&server);
        let id = service.create_session(create("one")).unwrap().session_id;
        server.kill();
        server.remove_data();
        server.start_again();
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert_eq!(engine_error_of(&error), &EngineError::Replaced, "{error}");
        // Also after another engine has made the namespace again.
        let other = open(&server);
        assert!(other.list().unwrap().is_empty());
        let error = service.list(SessionQuery::new()).unwrap_err();
        assert_eq!(engine_error_of(&error), &EngineError::Replaced, "{error}");
        service.shutdown(LONG);
        assert!(other.list().unwrap().is_empty(), "nothing came into the new namespace");
    });
}

#[test]
fn c83_a_full_server_refuses_saves_and_goes_on_once_there_is_room() {
    let Some(server) = Server::start(&["--maxmemory", "64mb"]) else { return };
    run(move || {
        let service = service(&server);
        let id = service.create_session(create("one")).unwrap().session_id;
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert_eq!(engine_error_of(&error), &EngineError::OutOfMemory, "{error}");
        let error = service.open_session(SessionSpec::new()).unwrap_err();
        assert!(error.to_string().contains("the memory of the engine is full"), "{error}");
        let other = open(&server);
        assert_eq!(said(&other.load(id).unwrap().unwrap().0.history), ["one", "= one"], "reads work");
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        service.start_turn(id, turn("three")).unwrap();
        let (stored, _) = other.load(id).unwrap().unwrap();
        assert_eq!(said(&stored.history), ["one", "= one", "two", "= two", "three", "= three"]);
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        service.delete(id).unwrap();
        assert!(other.list().unwrap().is_empty(), "a delete makes room");
    });
}

#[test]
fn c83_a_user_without_rights_gets_an_error_without_the_password() {
    let Some(server) = Server::start(&[]) else { return };
    let user = |name: &str, rules: &[&str]| {
        let rules = [&["ACL", "SETUSER", name, "on", ">a-secret-word"], rules].concat();
        assert!(server.command(&rules).contains("OK"));
        let url = format!("redis://{name}:a-secret-word@127.0.0.1:{}", server.port());
        Engine::open(&url, EngineConfig::new().lease(LEASE))
    };
    open(&server);
    // These rights are enough; the documentation names them.
    let rights = ["~turnwise:*", "+@all", "-@admin", "-@dangerous", "+info"];
    let store = RedisStore::new(user("worker", &rights).unwrap());
    let id = save_new(&store, vec![Message::user("one")]).unwrap().0.id();
    assert!(store.delete(id, None).unwrap());
    let reader = RedisStore::new(user("reader", &["~turnwise:*", "+@all", "-@write"]).unwrap());
    let errors = [
        engine_error(&save_new(&reader, Vec::new()).unwrap_err()).clone(),
        user("stranger", &["~other:*", "+@all"]).unwrap_err(),
        user("mute", &["~turnwise:*", "-@all"]).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.code(), "ENGINE_DENIED", "{error}");
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}

#[test]
fn c83_damaged_records_concern_their_own_sessions_only() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let store = open(&server);
        let records: Vec<SessionId> =
            (0..6).map(|_| save_new(&store, vec![Message::user("one")]).unwrap().0.id()).collect();
        let key = |at: usize| format!("turnwise:s:{}", records[at]);
        server.command(&["HSET", &key(0), "head", "{\"a secret\"}", "sum", "a secret"]);
        server.command(&["RPUSH", &format!("{}:h", key(1)), "{\"a secret\"}"]);
        server.command(&["RPOP", &format!("{}:h", key(2))]);
        server.command(&["HSET", &key(3), "rev", "a secret"]);
        server.command(&["HSET", &key(4), "labels", "a secret"]);
        for &id in &records[..5] {
            let error = store.load(id).unwrap_err();
            assert_eq!(error.code(), "STORE_RECORD_CORRUPT", "{error}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
        let header = StoredSession::new(Session::with_id(records[5])).header();
        let (_, revision) = store.load(records[5]).unwrap().unwrap();
        let error = store.save(&Save::new(&header, Change::Appended(&[]), Some(revision))).unwrap_err();
        assert_eq!(error.code(), "STORE_RECORD_CORRUPT", "an append to another number of messages");
        assert_eq!(store.list().unwrap().len(), 6);
        let readable = store.summaries().unwrap().into_iter().filter(Result::is_ok).count();
        assert_eq!(readable, 4);
        records.iter().for_each(|&id| assert!(store.delete(id, None).unwrap()));
        assert!(store.list().unwrap().is_empty());
        assert!(server.command(&["KEYS", "turnwise:s:*"]).starts_with("*0"));
    });
}

#[test]
fn c83_a_shared_store_is_closed_with_its_last_handle() {
    let Some(server) = Server::start(&[]) else { return };
    run(move || {
        let store = Arc::new(open(&server));
        let service = PersistentSessionService::new(echo(), 1, Arc::clone(&store));
        service.create_session(create("one")).unwrap();
        assert!(server.command(&["CLIENT", "LIST"]).matches("cmd=").count() > 1);
        drop((service, store));
        while server.command(&["CLIENT", "LIST"]).matches("cmd=").count() > 1 {
            std::thread::yield_now();
        }
    });
}
