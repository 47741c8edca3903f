//! C55: idle sessions are unloaded after their time, and their next call resumes them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use turnwise::store::{FileStore, PersistentSessionService, StoreError};
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    agent_fn, builder_fn, AgentError, ArchiveMode, ConfigError, EphemeralSessionService, EventSource, InjectError,
    InputRequest, InputResponse, RunResult, Session, SessionAgent, SessionAgentBuilder, SessionError, SessionId,
    SessionService, SessionSpec, SessionState, SubscribableInjector, Subscription, TurnContext, WhenBusy,
};

use crate::support::*;

const IDLE: Duration = Duration::from_secs(60);

/// A service that unloads sessions that are idle for [`IDLE`].
fn unloading<B: SessionAgentBuilder>(agent: B, clock: &ManualClock) -> PersistentSessionService<B> {
    let config = EphemeralSessionService::configure(agent).clock(clock.clone()).max_sessions(16);
    let config = PersistentSessionService::configure(config, FileStore::in_memory().unwrap());
    config.unload_idle_after(IDLE).build().unwrap()
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
pub(crate) fn acting(gate: &Gate) -> impl SessionAgentBuilder + use<> {
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
