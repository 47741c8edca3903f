//! C55: idle sessions are unloaded after their time, and where room is needed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::store::{
    FileStore, PersistentSessionService, Revision, Save, SessionStore, StoreError, StoredSession, StoredSummary,
};
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, ConfigError, EphemeralSessionService, EventSource, InjectError,
    InputRequest, InputResponse, RunResult, Session, SessionAgent, SessionAgentBuilder, SessionError, SessionId,
    SessionService, SessionSpec, SessionState, StartTurnRequest, SubscribableInjector, Subscription, TurnContext,
    WhenBusy,
};

use crate::support::*;

const IDLE: Duration = Duration::from_secs(60);

/// A service that unloads sessions that are idle for [`IDLE`].
fn unloading<B: SessionAgentBuilder>(agent: B, clock: &ManualClock) -> PersistentSessionService<B> {
    let config = EphemeralSessionService::configure(agent).clock(clock.clone()).max_sessions(16);
    let config = PersistentSessionService::configure(config, FileStore::in_memory().unwrap());
    config.unload_idle_after(IDLE).build().unwrap()
}

/// A service with room for `max_sessions`, which makes room when that is used up.
fn making_room<B: SessionAgentBuilder>(agent: B, max_sessions: usize) -> PersistentSessionService<B> {
    let config = EphemeralSessionService::configure(agent).max_sessions(max_sessions);
    let config = PersistentSessionService::configure(config, FileStore::in_memory().unwrap());
    config.unload_when_full(true).build().unwrap()
}

/// Waits until the session thread has decided about every alarm that has come.
fn settle(service: &impl SessionService, clock: &ManualClock, id: SessionId) {
    clock.settle();
    // Answered behind the alarm, or from the record.
    service.export_session(id).unwrap();
}

fn wait_until_unloaded<B: SessionAgentBuilder>(service: &PersistentSessionService<B>) {
    while service.stats().sessions > 0 {
        thread::yield_now();
    }
}

#[test]
fn c55_an_idle_session_is_unloaded_after_its_time_and_its_next_turn_resumes_it() {
    run(|| {
        let clock = ManualClock::new();
        let service = unloading(echo(), &clock);
        let spec = SessionSpec::new().label("user", "ada");
        let id = service.create_session(create("one").session(spec)).unwrap().session_id;
        clock.advance(IDLE / 2);
        assert_eq!(service.start_turn(id, turn("two")).unwrap().turn_id.get(), 2);
        // The time counts from the last turn.
        clock.advance(IDLE - Duration::from_nanos(1));
        settle(&service, &clock, id);
        assert!(service.is_live(id));
        let before = service.read(id).unwrap();
        clock.advance(Duration::from_nanos(1));
        wait_until_unloaded(&service);
        assert_eq!((service.is_live(id), service.stats().unloads), (false, 1));
        let after = service.read(id).unwrap();
        assert_eq!((&after.labels, after.state.last_seq), (&before.labels, before.state.last_seq));
        assert_eq!((after.state.state, after.state.turns), (SessionState::Idle, 2));
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one", "two", "= two"]);
        // The next turn finds everything as it was.
        let third = service.start_turn(id, turn("three")).unwrap();
        assert_eq!((third.turn_id.get(), third.text.as_str()), (3, "three"));
        assert_eq!(service.export_session(id).unwrap().messages().len(), 6);
        assert_eq!(service.read(id).unwrap().labels["user"], "ada");
        // In its new life too.
        clock.advance(IDLE);
        wait_until_unloaded(&service);
        assert_eq!(service.stats().unloads, 2);
    });
}

/// A session that is in use in some way, and the end of that use.
type InUse<B> = (SessionId, Box<dyn FnOnce(&PersistentSessionService<B>)>);

/// Checks that a session in use outlives its time, and is unloaded after the use.
fn stays_while_used<B: SessionAgentBuilder>(
    agent: B,
    begin: impl FnOnce(&PersistentSessionService<B>) -> InUse<B> + Send + 'static,
) where
    PersistentSessionService<B>: Send,
{
    let clock = ManualClock::new();
    let service = unloading(agent, &clock);
    let (id, end) = begin(&service);
    for _ in 0..3 {
        clock.advance(IDLE);
        clock.settle();
        assert!(service.is_live(id));
    }
    end(&service);
    while service.is_live(id) {
        clock.advance(IDLE);
        clock.settle();
    }
    assert!(service.export_session(id).is_ok());
}

/// Agents that act by their prompt: `ask` asks the host, `wait` waits at the gate, and any other is echoed.
fn acting(gate: &Gate) -> impl SessionAgentBuilder + use<> {
    let gate = gate.clone();
    agent_fn(move |prompt, turn| {
        match prompt.as_str() {
            "ask" => drop(turn.request_input(InputRequest::new("permission", "go on?"))?),
            "wait" => gate.pass(turn.cancel_token())?,
            _ => {}
        }
        Ok(turn.finish(prompt))
    })
}

#[test]
fn c55_a_session_with_a_turn_that_runs_or_waits_or_is_queued_stays() {
    run(|| {
        let gate = Gate::new();
        stays_while_used(acting(&gate), move |service| {
            let running = service.begin_session(create("wait")).unwrap();
            gate.wait_arrived(1);
            let id = running.session_id();
            let queued = service.begin_turn(id, turn("next").when_busy(WhenBusy::Queue)).unwrap();
            let end = move |_: &PersistentSessionService<_>| {
                gate.open();
                running.wait().unwrap();
                queued.wait().unwrap();
            };
            (id, Box::new(end))
        });
        stays_while_used(acting(&Gate::new()), |service| {
            let asking = service.begin_session(create("ask")).unwrap();
            let id = asking.session_id();
            let pending = loop {
                if let [pending] = &*service.pending_inputs(id).unwrap() {
                    break pending.id;
                }
                thread::yield_now();
            };
            let end = move |service: &PersistentSessionService<_>| {
                service.respond(id, pending, InputResponse::Answer("yes".into())).unwrap();
                asking.wait().unwrap();
            };
            (id, Box::new(end))
        });
    });
}

#[test]
fn c55_a_session_in_host_mode_stays() {
    run(|| {
        stays_while_used(echo(), |service| {
            let hosting = service.begin_session(create("one").host_mode(true)).unwrap();
            let id = hosting.session_id();
            let injector = service.event_injector(id).unwrap();
            let interaction = injector.inject_with_subscription("hello".into(), EventSource::Rpc).unwrap();
            assert!(interaction.events.iter().last().is_some());
            let end = move |_: &PersistentSessionService<_>| {
                hosting.interrupt();
                drop(hosting.wait());
            };
            (id, Box::new(end))
        });
    });
}

#[test]
fn c55_a_session_that_is_subscribed_to_stays() {
    run(|| {
        stays_while_used(echo(), |service| {
            let all = service.subscribe_all(Subscription::new());
            let id = service.create_session(create("one")).unwrap().session_id;
            let (own, other) = [(); 2].map(|()| service.subscribe(id, Subscription::new()).unwrap()).into();
            drop(other);
            let end = move |_: &PersistentSessionService<_>| {
                // A subscriber to all sessions does not count.
                std::mem::forget(all);
                drop(own);
            };
            (id, Box::new(end))
        });
    });
}

#[test]
fn c55_a_session_with_a_message_in_its_inbox_stays() {
    run(|| {
        let agent = agent_fn(|prompt, turn| {
            turn.drain_inbox();
            Ok(turn.finish(prompt))
        });
        stays_while_used(agent, |service| {
            let id = service.create_session(create("one")).unwrap().session_id;
            let injector = service.event_injector(id).unwrap();
            injector.inject("hello".into(), EventSource::Rpc).unwrap();
            let end = move |service: &PersistentSessionService<_>| {
                service.start_turn(id, turn("takes it")).unwrap();
            };
            (id, Box::new(end))
        });
    });
}

#[test]
fn c55_a_session_that_has_faulted_stays_until_its_restart() {
    run(|| {
        stays_while_used(echo(), |service| {
            let id = service.create_session(create("one")).unwrap().session_id;
            service.start_turn(id, turn("panic")).unwrap_err();
            let end = move |service: &PersistentSessionService<_>| {
                assert!(matches!(service.start_turn(id, turn("two")), Err(SessionError::Faulted { .. })));
                service.restart(id, LONG).unwrap();
            };
            (id, Box::new(end))
        });
    });
}

/// An agent with an injector of its own, which it may take back.
struct Reachable {
    history: Session,
    injector: Option<Arc<dyn SubscribableInjector>>,
}

impl SessionAgent for Reachable {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        self.injector.clone()
    }
}

#[test]
fn c55_a_session_whose_agent_has_an_injector_of_its_own_stays() {
    run(|| {
        let clock = ManualClock::new();
        let other = EphemeralSessionService::new(echo(), 1);
        let injector = other.event_injector(other.open_session(SessionSpec::new()).unwrap());
        let agent = builder_fn(move |spec, _| {
            let injector = injector.clone().filter(|_| spec.labels.contains_key("reachable"));
            Ok(Reachable { history: spec.history(), injector })
        });
        let service = unloading(agent, &clock);
        let own = service.open_session(SessionSpec::new().label("reachable", "")).unwrap();
        let none = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..3 {
            clock.advance(IDLE);
            clock.settle();
        }
        while service.is_live(none) {
            thread::yield_now();
        }
        settle(&service, &clock, own);
        assert!(service.is_live(own));
    });
}

#[test]
fn c55_subscribe_and_event_injector_resume_an_unloaded_session() {
    run(|| {
        let clock = ManualClock::new();
        let service = unloading(echo(), &clock);
        let id = service.create_session(create("one")).unwrap().session_id;
        let before = service.event_injector(id).unwrap();
        let unload = || {
            clock.advance(IDLE);
            wait_until_unloaded(&service);
        };
        unload();
        assert!(matches!(before.inject("late".into(), EventSource::Rpc), Err(InjectError::Closed(_))));
        let events = service.subscribe(id, Subscription::new()).unwrap();
        service.start_turn(id, turn("two")).unwrap();
        assert_eq!(events.events().try_iter().count(), 2);
        drop(events);
        unload();
        service.event_injector(id).unwrap().inject("in time".into(), EventSource::Rpc).unwrap();
        assert!(service.is_live(id));
        // Only what is stored.
        assert!(service.event_injector(SessionId::new()).is_none());
        assert!(matches!(service.subscribe(SessionId::new(), Subscription::new()), Err(SessionError::NotFound { .. })));
        service.archive_wait(id, LONG).unwrap();
        assert!(matches!(service.subscribe(id, Subscription::new()), Err(SessionError::Archived { .. })));
        assert!(service.event_injector(id).is_none());
    });
}

/// An agent whose drop waits at a gate.
struct SlowToGo(Session, Gate);

impl SessionAgent for SlowToGo {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.0.push_batch([turnwise::Message::user(prompt.as_str()), turnwise::Message::assistant(prompt.as_str())]);
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.0.clone()
    }
}

impl Drop for SlowToGo {
    fn drop(&mut self) {
        self.1.pass_regardless();
    }
}

/// A service with an unloaded session whose thread still drops the agent, until the gate is open.
fn with_unload_in_progress() -> (PersistentSessionService<impl SessionAgentBuilder>, ManualClock, SessionId, Gate) {
    let (clock, gate) = (ManualClock::new(), Gate::new());
    let own = gate.clone();
    let agent = builder_fn(move |spec, _| Ok(SlowToGo(spec.history(), own.clone())));
    let service = unloading(agent, &clock);
    let id = service.create_session(create("one")).unwrap().session_id;
    clock.advance(IDLE);
    gate.wait_arrived(1);
    (service, clock, id, gate)
}

#[test]
fn c55_calls_that_meet_an_unload_wait_for_it() {
    type Call<S> = fn(&S, SessionId) -> Result<String, SessionError>;
    fn calls<S: SessionService>() -> [(&'static str, Call<S>); 6] {
        [
            ("start", |service, id| Ok(service.start_turn(id, turn("two"))?.text)),
            ("begin", |service, id| Ok(service.begin_turn(id, turn("two"))?.wait()?.text)),
            ("queue", |service, id| Ok(service.start_turn(id, turn("two").when_busy(WhenBusy::Queue))?.text)),
            ("subscribe", |service, id| {
                let events = service.subscribe(id, Subscription::new())?;
                let text = service.start_turn(id, turn("two"))?.text;
                assert_eq!(events.events().try_iter().count(), 2);
                Ok(text)
            }),
            ("inject", |service, id| {
                let injector = service.event_injector(id).ok_or(SessionError::NotFound { id })?;
                injector
                    .inject("hello".into(), EventSource::Rpc)
                    .map(|()| "two".into())
                    .map_err(|_| SessionError::NotFound { id })
            }),
            ("take", |service, id| {
                Ok(service.take_session(id, LONG)?.last_assistant_text().unwrap().replace("one", "two"))
            }),
        ]
    }
    run(|| {
        for number in 0..6 {
            let (service, clock, id, gate) = with_unload_in_progress();
            let (name, call) = calls()[number];
            thread::scope(|scope| {
                let called = scope.spawn(|| call(&service, id));
                clock.wait_for_waiters(1);
                assert!(!called.is_finished(), "{name}");
                gate.open();
                assert_eq!(called.join().unwrap().unwrap(), "two", "{name}");
            });
        }
    });
}

#[test]
fn c55_calls_that_need_no_agent_do_not_wait_for_an_unload() {
    run(|| {
        let (service, _clock, id, gate) = with_unload_in_progress();
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Idle);
        assert_eq!(service.list(turnwise::SessionQuery::new()).unwrap()[0].session_id, id);
        assert_eq!(service.export_session(id).unwrap().messages().len(), 2);
        assert!(matches!(service.interrupt(id), Err(SessionError::NotRunning { .. })));
        assert!(service.pending_inputs(id).unwrap().is_empty());
        service.wait_idle(id, Duration::ZERO).unwrap();
        service.set_labels(id, [("a".into(), "b".into())].into()).unwrap();
        assert_eq!(service.read(id).unwrap().labels["a"], "b");
        assert!(matches!(service.unload(id, Duration::ZERO), Err(SessionError::Ending { .. })));
        service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Archived);
        assert!(matches!(service.begin_turn(id, turn("no")), Err(SessionError::Archived { .. })));
        gate.open();
        service.archive_wait(id, LONG).unwrap();
        service.delete(id).unwrap();
    });
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

#[test]
fn c55_a_session_that_cannot_be_saved_is_not_unloaded() {
    run(|| {
        let (store, clock) = (Arc::new(Watched::default()), ManualClock::new());
        let config = EphemeralSessionService::configure(echo()).clock(clock.clone()).max_sessions(1);
        let config = PersistentSessionService::configure(config, Arc::clone(&store));
        let service = config.unload_idle_after(IDLE).unload_when_full(true).build().unwrap();
        let id = service.create_session(create("one")).unwrap().session_id;
        store.fails.store(true, Ordering::SeqCst);
        let error = service.start_turn(id, turn("two")).unwrap_err();
        assert!(matches!(StoreError::of(&error), Some(StoreError::Failed { .. })), "{error}");
        clock.advance(IDLE);
        settle(&service, &clock, id);
        let error = service.create_session(create("other")).unwrap_err();
        assert!(matches!(error, SessionError::CapacityExceeded { .. }), "{error}");
        assert!(service.is_live(id));
        store.fails.store(false, Ordering::SeqCst);
        clock.advance(IDLE);
        wait_until_unloaded(&service);
        assert_eq!(said(&service.export_session(id).unwrap()), ["one", "= one", "two", "= two"]);
    });
}

#[test]
fn c55_settings_that_make_no_sense_are_refused() {
    let config = || EphemeralSessionService::configure(echo());
    let configured = |config| PersistentSessionService::configure(config, FileStore::in_memory().unwrap());
    let error = configured(config()).unload_idle_after(Duration::ZERO).build().unwrap_err();
    assert!(matches!(error, ConfigError::ZeroDuration { option: "unload_idle_after" }), "{error}");
    let error = configured(config().stack_size(64 << 10)).build().unwrap_err();
    assert!(matches!(error, ConfigError::OutOfRange { option: "stack_size", .. }), "{error}");
    // Longer than any clock can tell: never.
    let service = configured(config()).unload_idle_after(Duration::MAX).build().unwrap();
    let id = service.create_session(create("one")).unwrap().session_id;
    assert!(service.is_live(id));
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
fn c55_a_turn_that_does_not_queue_follows_a_build_that_a_subscriber_began() {
    run(|| {
        let (clock, gate, is_held) = (ManualClock::new(), Gate::new(), Arc::new(AtomicBool::new(false)));
        let (own, held) = (gate.clone(), Arc::clone(&is_held));
        let agent = builder_fn(move |spec, context| {
            if held.load(Ordering::SeqCst) {
                own.pass_regardless();
            }
            echo().build_agent(spec, context)
        });
        let service = unloading(agent, &clock);
        let id = service.create_session(create("one")).unwrap().session_id;
        clock.advance(IDLE);
        wait_until_unloaded(&service);
        is_held.store(true, Ordering::SeqCst);
        thread::scope(|scope| {
            let subscriber = scope.spawn(|| service.subscribe(id, Subscription::new()).unwrap());
            gate.wait_arrived(1);
            let begun = service.begin_turn(id, turn("two")).unwrap();
            // A second one would wait for a turn.
            let error = service.begin_turn(id, turn("three")).unwrap_err();
            assert!(matches!(error, SessionError::Busy { .. }), "{error}");
            gate.open();
            assert_eq!(begun.wait().unwrap().text, "two");
            drop(subscriber.join().unwrap());
        });
    });
}

#[test]
fn c55_the_numbers_do_not_go_back_during_an_unload() {
    run(|| {
        let (service, _clock, id, gate) = with_unload_in_progress();
        let during = service.read(id).unwrap().state;
        gate.open();
        wait_until_unloaded(&service);
        let after = service.read(id).unwrap().state;
        assert_eq!((during.turns, during.last_seq), (after.turns, after.last_seq));
        assert_eq!((after.turns, after.last_seq), (1, 2));
        assert_eq!(service.history_at(id).unwrap().1, 2);
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

#[test]
fn c55_the_idle_time_counts_from_a_restart() {
    run(|| {
        let clock = ManualClock::new();
        let service = unloading(echo(), &clock);
        let id = service.create_session(create("one")).unwrap().session_id;
        service.start_turn(id, turn("panic")).unwrap_err();
        clock.advance(IDLE - Duration::from_secs(1));
        service.restart(id, LONG).unwrap();
        clock.advance(IDLE - Duration::from_secs(1));
        settle(&service, &clock, id);
        assert!(service.is_live(id));
        clock.advance(Duration::from_secs(1));
        wait_until_unloaded(&service);
    });
}
