//! C55: where room is needed, the session that has been idle for longest is unloaded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::store::{
    FileStore, PersistentSessionService, Revision, Save, SessionStore, StoreError, StoredSession, StoredSummary,
};
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    builder_fn, AgentError, EphemeralSessionService, EventSource, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest, Subscription,
    TurnContext, WhenBusy,
};

use crate::support::*;

use crate::unloading::acting;

/// A service with room for `max_sessions`, which makes room when that is used up.
fn making_room<B: SessionAgentBuilder>(agent: B, max_sessions: usize) -> PersistentSessionService<B> {
    let config = EphemeralSessionService::configure(agent).max_sessions(max_sessions);
    let config = PersistentSessionService::configure(config, FileStore::in_memory().unwrap());
    config.unload_when_full(true).build().unwrap()
}

#[test]
fn c55_where_room_is_needed_the_longest_idle_session_is_unloaded() {
    run(|| {
        let service = making_room(echo(), 3);
        let ids = ["a", "b", "c"].map(|prompt| service.create_session(create(prompt)).unwrap().session_id);
        let [a, b, c] = ids;
        service.start_turn(a, turn("again")).unwrap();
        let d = service.create_session(create("d")).unwrap().session_id;
        let live = |ids: &[SessionId]| ids.iter().map(|id| service.is_live(*id)).collect::<Vec<_>>();
        assert_eq!(live(&[a, b, c, d]), [true, false, true, true]);
        // A resume makes room as a create does. The list of candidates is older than the turn of `c`.
        service.start_turn(c, turn("again")).unwrap();
        assert_eq!(service.start_turn(b, turn("back")).unwrap().turn_id.get(), 2);
        assert_eq!(live(&[a, b, c, d]), [false, true, true, true]);
        service.resume(a).unwrap();
        assert_eq!(live(&[a, b, c, d]), [true, true, true, false]);
        assert_eq!((service.stats().unloads, service.stats().sessions), (3, 3));
        for (id, messages) in [(a, 4), (b, 4), (c, 4), (d, 2)] {
            assert_eq!(service.export_session(id).unwrap().messages().len(), messages);
        }
    });
}

#[test]
fn c55_no_session_in_use_gives_way() {
    run(|| {
        let gate = Gate::new();
        let service = making_room(acting(&gate), 3);
        let running = service.begin_session(create("wait")).unwrap();
        gate.wait_arrived(1);
        let subscribed = service.create_session(create("one")).unwrap().session_id;
        let events = service.subscribe(subscribed, Subscription::new()).unwrap();
        let mail = service.create_session(create("two")).unwrap().session_id;
        service.event_injector(mail).unwrap().inject("hello".into(), EventSource::Rpc).unwrap();
        for _ in 0..3 {
            let error = service.create_session(create("three")).unwrap_err();
            assert!(matches!(error, SessionError::CapacityExceeded { active: 3, max: 3 }), "{error}");
        }
        assert!([running.session_id(), subscribed, mail].iter().all(|id| service.is_live(*id)));
        assert_eq!(service.stats().unloads, 0);
        drop(events);
        service.create_session(create("three")).unwrap();
        assert!(!service.is_live(subscribed));
        gate.open();
        running.wait().unwrap();
    });
}

#[test]
fn c55_no_session_is_unloaded_for_one_that_cannot_be_resumed() {
    run(|| {
        let service = making_room(echo(), 1);
        let archived = service.create_session(create("one")).unwrap().session_id;
        service.archive_wait(archived, LONG).unwrap();
        let live = service.create_session(create("two")).unwrap().session_id;
        assert!(matches!(service.start_turn(archived, turn("x")), Err(SessionError::Archived { .. })));
        assert!(matches!(service.resume(archived), Err(SessionError::Archived { .. })));
        assert!(matches!(service.start_turn(SessionId::new(), turn("x")), Err(SessionError::NotFound { .. })));
        assert!(service.is_live(live));
        assert_eq!(service.stats().unloads, 0);
    });
}

#[test]
fn c55_a_reservation_makes_room_or_gets_that_of_the_next_idle_session() {
    run(|| {
        let gate = Gate::new();
        let service = making_room(acting(&gate), 1);
        let id = service.create_session(create("one")).unwrap().session_id;
        assert!(matches!(service.reserve(Duration::ZERO), Err(SessionError::CapacityExceeded { .. })));
        assert!(service.is_live(id), "a reservation that does not wait unloads nothing");
        drop(service.reserve(LONG).unwrap());
        assert!(!service.is_live(id));
        // While every session is in use it waits for one to become idle.
        let running = service.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| service.reserve(LONG).map(drop));
            thread::yield_now();
            gate.open();
            running.wait().unwrap();
            waiting.join().unwrap().unwrap();
        });
        assert!(!service.is_live(id));
        assert_eq!(service.stats().unloads, 2);
    });
}

/// Random calls of 16 callers on many sessions, of which few are live.
#[test]
fn c55_random_callers_of_ten_thousand_sessions_notice_nothing_but_time() {
    const CALLERS: usize = 16;
    const SESSIONS: usize = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
    const LIVE: usize = SESSIONS / 100;
    run(|| {
        let store = Arc::new(Watched::default());
        let config = EphemeralSessionService::configure(echo()).max_sessions(LIVE).stack_size(256 << 10);
        let config = PersistentSessionService::configure(config, Arc::clone(&store));
        let service = config.unload_when_full(true).unload_idle_after(Duration::from_millis(20)).build().unwrap();
        let ids: Vec<_> = (0..SESSIONS).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        let (over, begun) = (AtomicBool::new(false), std::sync::Mutex::new(vec![0_u64; SESSIONS]));
        thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (service, ids, begun, over) = (&service, &ids, &begun, &over);
                scope.spawn(move || {
                    let mut random = caller as u64 + 1;
                    for _ in 0..SESSIONS / CALLERS {
                        // A xorshift generator: every caller has its own order of calls.
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        let place = usize::try_from(random >> 8).unwrap() % SESSIONS;
                        call(service, ids[place], random % 8, &mut || begun.lock().unwrap()[place] += 1);
                    }
                    over.store(true, Ordering::SeqCst);
                });
            }
            // Meanwhile the service keeps within its limits.
            while !over.load(Ordering::SeqCst) {
                let stats = service.stats();
                // The threads of sessions, idle ones, the timer's, and those of sessions that have just ended.
                assert!(stats.sessions <= LIVE && stats.threads <= LIVE + 4 + 1 + CALLERS, "{stats:?}");
                thread::yield_now();
            }
        });
        for (id, begun) in ids.iter().zip(begun.into_inner().unwrap()) {
            let view = service.read(*id).unwrap();
            assert_eq!(view.state.turns, begun);
            assert_eq!(service.export_session(*id).unwrap().messages().len() as u64, 2 * begun);
        }
        assert!(service.stats().unloads as usize > SESSIONS - LIVE);
        assert_eq!(service.shutdown(LONG).stuck, []);
    });
}

fn call(service: &impl SessionService, id: SessionId, kind: u64, count: &mut dyn FnMut()) {
    let queued = |prompt| StartTurnRequest::new(prompt).when_busy(WhenBusy::Queue);
    match kind {
        0 => {
            let events = service.subscribe(id, Subscription::new()).unwrap();
            let done = service.start_turn(id, queued("watched")).unwrap();
            count();
            let seen = events.events().try_iter().filter(|event| event.turn_id == Some(done.turn_id)).count();
            assert_eq!(seen, 2);
        }
        1 => drop(service.read(id).unwrap()),
        2 => drop(service.export_session(id).unwrap()),
        3 => {
            let begun = service.begin_turn(id, queued("begun")).unwrap();
            count();
            assert_eq!(begun.wait().unwrap().text, "begun");
        }
        4 => service.set_labels(id, [("a".to_owned(), "b".to_owned())].into()).unwrap(),
        _ => {
            assert_eq!(service.start_turn(id, queued("started")).unwrap().text, "started");
            count();
        }
    }
}

/// A store whose loads wait at a gate, once it is told so.
#[derive(Default)]
struct SlowLoads {
    store: Watched,
    is_slow: AtomicBool,
    gate: Gate,
}

impl SessionStore for SlowLoads {
    fn save(&self, save: &Save<'_>) -> Result<(), StoreError> {
        self.store.save(save)
    }

    fn load(&self, id: SessionId) -> Result<Option<(StoredSession, Revision)>, StoreError> {
        if self.is_slow.load(Ordering::SeqCst) {
            self.gate.pass_regardless();
        }
        self.store.load(id)
    }

    fn list(&self) -> Result<Vec<SessionId>, StoreError> {
        self.store.list()
    }

    fn delete(&self, id: SessionId, seen: Option<Revision>) -> Result<bool, StoreError> {
        self.store.delete(id, seen)
    }

    fn summary(&self, id: SessionId) -> Result<Option<StoredSummary>, StoreError> {
        Ok(self.store.load(id)?.map(|(stored, _)| stored.summary()))
    }
}

#[test]
fn c55_callers_of_one_stored_session_make_room_once() {
    run(|| {
        let (store, clock) = (Arc::new(SlowLoads::default()), ManualClock::new());
        let config = EphemeralSessionService::configure(echo()).max_sessions(1).clock(clock.clone());
        let config = PersistentSessionService::configure(config, Arc::clone(&store));
        let service = config.unload_when_full(true).build().unwrap();
        let stored = service.create_session(create("one")).unwrap().session_id;
        let other = service.create_session(create("two")).unwrap().session_id;
        store.is_slow.store(true, Ordering::SeqCst);
        thread::scope(|scope| {
            let queued = || service.start_turn(stored, turn("x").when_busy(WhenBusy::Queue)).map(drop);
            let first = scope.spawn(queued);
            // The first caller has the unit of the other session, and its own is not live yet.
            store.gate.wait_arrived(1);
            assert!(!service.is_live(other));
            let second = scope.spawn(queued);
            let subscriber = scope.spawn(|| service.subscribe(stored, Subscription::new()).map(drop));
            let injector = scope.spawn(|| service.event_injector(stored).is_some());
            clock.wait_for_waiters(3);
            store.gate.open();
            first.join().unwrap().unwrap();
            second.join().unwrap().unwrap();
            subscriber.join().unwrap().unwrap();
            assert!(injector.join().unwrap());
        });
        assert_eq!(service.stats().unloads, 2);
    });
}

#[test]
fn c55_a_create_with_an_id_in_use_unloads_nothing() {
    run(|| {
        let service = making_room(echo(), 1);
        let stored = service.create_session(create("one")).unwrap().session_id;
        let live = service.create_session(create("two")).unwrap().session_id;
        let before = service.stats().unloads;
        for id in [stored, live] {
            let mut spec = SessionSpec::new();
            spec.session_id = Some(id);
            let error = service.open_session(spec).unwrap_err();
            assert!(matches!(error, SessionError::AlreadyExists { .. }), "{error}");
        }
        assert!(service.is_live(live));
        assert_eq!(service.stats().unloads, before);
    });
}

#[test]
fn c55_one_session_is_unloaded_for_one_reservation() {
    const SESSIONS: usize = 8;
    run(|| {
        let (turns, drops) = (Gate::new(), Gate::new());
        let (own, held) = (turns.clone(), drops.clone());
        let agent =
            builder_fn(move |spec, _| Ok(Held { history: spec.history(), turns: own.clone(), drops: held.clone() }));
        let clock = ManualClock::new();
        let config = EphemeralSessionService::configure(agent).max_sessions(SESSIONS).clock(clock.clone());
        let config = PersistentSessionService::configure(config, FileStore::in_memory().unwrap());
        let service = config.unload_when_full(true).build().unwrap();
        let running: Vec<_> = (0..SESSIONS).map(|_| service.begin_session(create("x")).unwrap()).collect();
        turns.wait_arrived(SESSIONS);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| service.reserve(Duration::MAX).unwrap());
            clock.wait_for_waiters(1);
            turns.open();
            for turn in running {
                let id = turn.session_id();
                turn.wait().unwrap();
                // Answered after the thread has looked for callers that wait.
                service.export_session(id).unwrap();
            }
            drops.wait_arrived(1);
            assert_eq!(service.stats().unloads, 1);
            drops.open();
            drop(waiting.join().unwrap());
        });
        assert_eq!(service.stats().unloads, 1);
    });
}

/// An agent whose turns wait at one gate, and whose drop waits at another.
struct Held {
    history: Session,
    turns: Gate,
    drops: Gate,
}

impl SessionAgent for Held {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.turns.pass(turn.cancel_token())?;
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.drops.pass_regardless();
    }
}

/// An agent whose export waits at a gate, once it is told so.
struct SlowExport(Session, Arc<AtomicBool>, Gate);

impl SessionAgent for SlowExport {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        if self.1.load(Ordering::SeqCst) {
            self.2.pass_regardless();
        }
        self.0.clone()
    }
}

#[test]
fn c55_a_reservation_keeps_its_timeout_while_a_session_is_slow_to_decide() {
    run(|| {
        let (is_slow, gate) = (Arc::new(AtomicBool::new(false)), Gate::new());
        let (slow, own) = (Arc::clone(&is_slow), gate.clone());
        let agent = builder_fn(move |spec, _| Ok(SlowExport(spec.history(), Arc::clone(&slow), own.clone())));
        let service = making_room(agent, 1);
        service.create_session(create("one")).unwrap();
        is_slow.store(true, Ordering::SeqCst);
        let error = service.reserve(Duration::from_millis(1)).unwrap_err();
        assert!(matches!(error, SessionError::CapacityExceeded { .. }), "{error}");
        gate.open();
    });
}
