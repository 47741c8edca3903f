//! Stores and agents whose errors panic when they are shown or dropped, and what the log may say about them.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};

use turnwise::store::{PersistentSessionService, SessionStore, StoreError, StoredSession, StoredSummary};
use turnwise::{
    agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionError, SessionId, SessionQuery, SessionService, SessionSpec, SessionState,
};

use crate::support::*;

/// An error that panics in each of its methods and in its drop.
struct Hostile;

impl fmt::Display for Hostile {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("Display of an error")
    }
}

impl fmt::Debug for Hostile {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("Debug of an error")
    }
}

impl std::error::Error for Hostile {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        panic!("source of an error")
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        panic!("the drop of an error");
    }
}

/// A store in memory whose saves or loads a test can make fail.
#[derive(Default)]
struct Turning {
    kept: Mutex<BTreeMap<SessionId, StoredSession>>,
    saves_fail: AtomicBool,
    looks_fail: AtomicBool,
}

impl Turning {
    fn look<T>(&self, look: impl FnOnce(&BTreeMap<SessionId, StoredSession>) -> T) -> Result<T, StoreError> {
        match self.looks_fail.load(Ordering::SeqCst) {
            true => Err(StoreError::failed(Hostile)),
            false => Ok(look(&self.kept.lock().unwrap())),
        }
    }
}

impl SessionStore for Turning {
    fn save(&self, session: &StoredSession) -> Result<(), StoreError> {
        if self.saves_fail.load(Ordering::SeqCst) {
            return Err(StoreError::failed(Hostile));
        }
        self.kept.lock().unwrap().insert(session.id(), session.clone());
        Ok(())
    }

    fn load(&self, id: SessionId) -> Result<Option<StoredSession>, StoreError> {
        self.look(|kept| kept.get(&id).cloned())
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        self.look(|kept| kept.keys().copied().collect())
    }

    fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        if self.saves_fail.load(Ordering::SeqCst) {
            return Err(StoreError::failed(Hostile));
        }
        Ok(self.kept.lock().unwrap().remove(&id).is_some())
    }

    fn summaries(&self) -> Result<Vec<Result<StoredSummary, StoreError>>, StoreError> {
        let sound = self.kept.lock().unwrap().values().map(|stored| Ok(stored.summary())).collect::<Vec<_>>();
        let hostile = (0..3).map(|_| Err(StoreError::failed(Hostile)));
        Ok(hostile.chain(sound).collect())
    }
}

/// The code of a hostile error. The error is leaked, because its drop would panic in the test.
#[track_caller]
fn failed<T>(result: Result<T, SessionError>) -> &'static str {
    match result {
        Ok(_) => panic!("the call succeeded"),
        Err(error) => {
            let code = error.code();
            mem::forget(error);
            code
        }
    }
}

#[test]
fn c32_panicking_store_errors_fault_no_session_and_unwind_into_no_caller() {
    run(|| {
        record_log();
        let store = Arc::new(Turning::default());
        let service = PersistentSessionService::new(echo(), 4, Arc::clone(&store));
        let id = service.create_session(create("one")).unwrap().session_id;
        let other = service.create_session(create("other")).unwrap().session_id;
        service.unload(other, LONG).unwrap();

        store.saves_fail.store(true, Ordering::SeqCst);
        assert_eq!(failed(service.start_turn(id, turn("two"))), "AGENT_ERROR");
        assert_eq!(failed(service.start_turn(id, turn("fail"))), "AGENT_ERROR");
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle, "the session is not faulted");
        // The handle is dropped, so the session thread drops the error.
        drop(service.begin_turn(id, turn("three")).unwrap());
        while service.read(id).unwrap().state.is_active {
            std::thread::yield_now();
        }
        assert_eq!(failed(service.unload(id, LONG)), "STORE_FAILED");
        assert_eq!(failed(service.open_session(SessionSpec::new())), "SESSION_BUILD_FAILED");
        assert_eq!(failed(service.start_turn(other, turn("more"))), "STORE_FAILED");
        assert_eq!(failed(service.archive(id)), "STORE_FAILED");
        assert_eq!(failed(service.delete(id)), "STORE_FAILED");
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 2);
        assert_eq!(service.list_archived(SessionQuery::new()).unwrap().len(), 0);

        store.looks_fail.store(true, Ordering::SeqCst);
        assert_eq!(failed(service.read(other)), "STORE_FAILED");
        assert_eq!(failed(service.start_turn(other, turn("more"))), "STORE_FAILED");
        assert_eq!(failed(service.interrupt(other)), "STORE_FAILED");
        store.looks_fail.store(false, Ordering::SeqCst);

        store.saves_fail.store(false, Ordering::SeqCst);
        assert_eq!(service.start_turn(id, turn("four")).unwrap().text, "four");
        assert_eq!(service.start_turn(other, turn("more")).unwrap().text, "more");
        // The save at the end of the session fails too.
        store.saves_fail.store(true, Ordering::SeqCst);
        failed(service.start_turn(id, turn("five")));
        assert!(service.shutdown(LONG).stuck.is_empty());
        assert_eq!(service.stats().sessions, 0);
    });
}

#[test]
fn c32_panicking_agent_errors_are_contained() {
    run(|| {
        let agent = agent_fn(|prompt, turn| match prompt.as_str() {
            "fail" => Err(AgentError::other(Hostile)),
            "stop" => {
                turn.sleep(LONG).unwrap_err();
                Err(AgentError::other(Hostile))
            }
            _ => Ok(turn.finish(prompt)),
        });
        let store = Arc::new(Turning::default());
        let service = PersistentSessionService::new(agent, 4, store);
        assert_eq!(failed(service.create_session(CreateSessionRequest::new("fail"))), "AGENT_ERROR");
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..10 {
            drop(service.begin_turn(id, turn("fail")).unwrap());
            while service.read(id).unwrap().state.is_active {
                std::thread::yield_now();
            }
        }
        let stopped = service.begin_turn(id, turn("stop")).unwrap();
        stopped.interrupt();
        failed(stopped.wait());
        assert_eq!(service.start_turn(id, turn("x")).unwrap().text, "x");
        assert!(service.shutdown(LONG).stuck.is_empty());
    });
}

/// A host's value whose drop panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("the drop of a host's value");
    }
}

struct BombBuilder(#[allow(dead_code)] Bomb);

impl SessionAgentBuilder for BombBuilder {
    type Agent = Box<dyn SessionAgent>;

    fn build_agent(&self, _: &SessionSpec, _: &SessionContext) -> Result<Self::Agent, AgentError> {
        Err(AgentError::Config("no agents here".into()))
    }
}

struct BombStore(#[allow(dead_code)] Bomb);

impl SessionStore for BombStore {
    fn save(&self, _: &StoredSession) -> Result<(), StoreError> {
        Ok(())
    }
    fn load(&self, _: SessionId) -> Result<Option<StoredSession>, StoreError> {
        Ok(None)
    }
    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        Ok(Vec::new())
    }
    fn delete(&self, _: SessionId) -> Result<bool, StoreError> {
        Ok(false)
    }
}

#[test]
fn c32_drops_of_host_values_that_panic_unwind_into_no_caller() {
    run(|| {
        let config = || EphemeralSessionService::configure(BombBuilder(Bomb));
        assert!(config().max_running_turns(0).build().is_err());
        assert!(PersistentSessionService::with_config(config().stack_size(1), BombStore(Bomb)).is_err());
        drop(config().build().unwrap());
        let service = PersistentSessionService::with_config(config(), BombStore(Bomb)).unwrap();
        service.open_session(SessionSpec::new()).unwrap_err();
        service.shutdown(LONG);
        drop(service);

        let full = PersistentSessionService::new(echo(), 0, Turning::default());
        // Refused before the session is prepared, because the id is taken.
        let service = PersistentSessionService::new(echo(), 2, Arc::new(Watched::default()));
        let taken = service.open_session(SessionSpec::new()).unwrap();
        let refused = || SessionSpec::new().session_id(taken).extension(Arc::new(Bomb));
        let error = service.open_session(refused()).unwrap_err();
        assert!(matches!(error, SessionError::AlreadyExists { .. }), "{error:?}");
        let error = service.begin_session(CreateSessionRequest::new("x").session(refused())).map(drop).unwrap_err();
        assert!(matches!(error, SessionError::AlreadyExists { .. }), "{error:?}");
        drop(service);
        let spec = || SessionSpec::new().extension(Arc::new(Bomb));
        assert_eq!(full.open_session(spec()).unwrap_err().code(), "CAPACITY_EXCEEDED");
        let full = EphemeralSessionService::new(echo(), 0);
        assert_eq!(full.open_session(spec()).unwrap_err().code(), "CAPACITY_EXCEEDED");

        let failing = agent_fn(|_, _| Err(AgentError::other(Hostile)));
        let service = EphemeralSessionService::new(failing, 4);
        let unread = service.begin_session(create("x")).unwrap();
        while !unread.is_finished() {
            std::thread::yield_now();
        }
        drop(unread);
        let stream = service.stream_session(create("x")).unwrap();
        while !stream.handle().is_finished() {
            std::thread::yield_now();
        }
        drop(stream);
    });
}

#[test]
fn panic_messages_of_stores_and_agents_are_not_in_the_log() {
    run(|| {
        record_log();
        let (service, store) = watched();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.panics.store(true, Ordering::SeqCst);
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert!(error.to_string().contains("a store that panics"), "the caller gets the panic message: {error}");
        assert!(!format!("{error:?} {error:#?}").contains("a store that panics"), "{error:?}");
        service.start_turn(id, turn("fail")).unwrap_err();
        service.shutdown(LONG);
        let about = logged(&id.to_string());
        assert!(about.iter().any(|text| text.contains("its last turns are not kept: STORE_FAILED")), "{about:?}");
        let log = logged("");
        let leak = log
            .iter()
            .find(|text| ["a store that panics", "Display of an error"].iter().any(|said| text.contains(said)));
        assert_eq!(leak, None);
    });
}

#[test]
fn the_log_has_the_kind_of_an_io_error_and_not_its_text() {
    run(|| {
        struct Full;
        impl SessionStore for Full {
            fn save(&self, session: &StoredSession) -> Result<(), StoreError> {
                if session.history.messages().is_empty() {
                    return Ok(());
                }
                Err(StoreError::failed(std::io::Error::new(std::io::ErrorKind::PermissionDenied, "a secret path")))
            }
            fn load(&self, _: SessionId) -> Result<Option<StoredSession>, StoreError> {
                Ok(None)
            }
            fn list(&self) -> Result<Vec<SessionId>, StoreError> {
                Ok(Vec::new())
            }
            fn delete(&self, _: SessionId) -> Result<bool, StoreError> {
                Ok(true)
            }
        }
        record_log();
        let service = PersistentSessionService::new(echo(), 1, Full);
        let id = service.open_session(SessionSpec::new()).unwrap();
        service.start_turn(id, turn("one")).unwrap_err();
        service.shutdown(LONG);
        let about = logged(&id.to_string());
        let said =
            about.iter().find(|text| text.contains("its last turns are not kept")).expect("the failed save is logged");
        assert!(said.ends_with("STORE_FAILED (permission denied)"), "{said}");
    });
}

static RECORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Recorder;

impl log::Log for Recorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        RECORDS.lock().unwrap().push(record.args().to_string());
    }

    fn flush(&self) {}
}

fn record_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Recorder).expect("no other logger");
        log::set_max_level(log::LevelFilter::Trace);
    });
}

fn logged(about: &str) -> Vec<String> {
    RECORDS.lock().unwrap().iter().filter(|text| text.contains(about)).cloned().collect()
}
