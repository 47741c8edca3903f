//! C40: how the end of host mode, and an interrupt of one interaction, act on queued and running interactions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded, Sender};
use turnwise::{
    agent_fn, builder_fn, AgentError, AgentEvent, CancelReason, CommsRuntime, EphemeralSessionService, EventSource,
    InteractionContent, InteractionId, LocalComms, LocalPeer, RunResult, Session, SessionAgent, SessionContext,
    SessionError, SessionId, SessionService, SessionSnapshot, SessionSpec, StopReason, TurnContext, WeakService,
};

use crate::hosting::{hosted, Hosted};
use crate::inbox::outcome;
use crate::support::*;

/// A name, and a call that ends host mode.
type End = (&'static str, fn(&Hosted));

#[test]
fn c40_however_host_mode_ends_subscribed_interactions_fail_and_others_stay() {
    run(|| {
        let ends: [End; 3] = [
            ("an interrupt", |host| host.service.interrupt(host.id()).unwrap()),
            ("an interrupt by the handle", |host| host.turn.interrupt()),
            ("an interrupt by number", |host| host.service.interrupt_turn(host.id(), host.turn.turn_id()).unwrap()),
        ];
        for (name, end) in ends {
            let host = hosted("x");
            host.injector.inject("hold".into(), EventSource::Tcp).unwrap();
            host.stage.wait_entered();
            let followed = host.injector.inject_with_subscription("followed".into(), EventSource::Tcp).unwrap();
            host.injector.inject("not followed".into(), EventSource::Tcp).unwrap();
            end(&host);
            assert!(outcome(&followed).unwrap_err().contains("host mode ended"), "{name}");
            let id = host.id();
            assert_cancelled(host.turn.wait(), CancelReason::Interrupted);
            // The sender may inject the message again.
            let again = host.injector.inject_with_subscription("again".into(), EventSource::Tcp).unwrap();
            host.injector.dismiss(EventSource::Tcp).unwrap();
            let (event_tx, events) = unbounded();
            let next = turn("y").host_mode(true).event_tx(event_tx);
            assert_eq!(host.service.start_turn(id, next).unwrap().text, "again", "{name}");
            assert_eq!(outcome(&again).unwrap(), "again", "{name}");
            let completed = |event: &AgentEvent| matches!(event, AgentEvent::InteractionComplete { .. });
            assert_eq!(
                events.iter().filter(completed).count(),
                3,
                "{name}: the one without a subscriber, `again`, the dismissal"
            );
        }
    });
}

#[test]
fn c40_a_prompt_that_begins_no_host_mode_fails_subscribed_interactions() {
    run(|| {
        for prompt in ["fail", "panic", "hold"] {
            let (service, stage) = scripted(1);
            let id = service.open_session(SessionSpec::new()).unwrap();
            let injector = service.event_injector(id).unwrap();
            let followed = injector.inject_with_subscription("followed".into(), EventSource::Tcp).unwrap();
            let host = service.begin_turn(id, turn(prompt).host_mode(true)).unwrap();
            if prompt == "hold" {
                stage.wait_entered();
                host.interrupt();
            }
            host.wait().unwrap_err();
            outcome(&followed).unwrap_err();
        }
    });
}

#[test]
fn c40_a_dismissal_and_a_timeout_fail_later_subscribed_interactions() {
    run(|| {
        let host = hosted("x");
        host.injector.inject("hold".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        host.injector.dismiss(EventSource::Tcp).unwrap();
        let behind = host.injector.inject_with_subscription("behind it".into(), EventSource::Tcp).unwrap();
        host.stage.release();
        assert_eq!(host.turn.wait().unwrap().text, "released");
        assert!(outcome(&behind).unwrap_err().contains("host mode ended"));

        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let injector = service.event_injector(id).unwrap();
        injector.inject("hold".into(), EventSource::Tcp).unwrap();
        let queued = injector.inject_with_subscription("queued".into(), EventSource::Tcp).unwrap();
        let timed = service.begin_turn(id, turn("x").host_mode(true).timeout(SHORT)).unwrap();
        assert_cancelled(timed.wait(), CancelReason::DeadlineExceeded);
        outcome(&queued).unwrap_err();
        drop(stage);
    });
}

#[test]
fn c40_one_interaction_is_interrupted_alone_queued_or_running() {
    run(|| {
        let host = hosted("x");
        let id = host.id();
        let running = host.injector.inject_with_subscription("hold".into(), EventSource::Tcp).unwrap();
        host.stage.wait_entered();
        let queued = host.injector.inject_with_subscription("never run".into(), EventSource::Tcp).unwrap();
        let next = host.injector.inject_with_subscription("next".into(), EventSource::Tcp).unwrap();
        host.service.interrupt_interaction(id, queued.id).unwrap();
        assert!(outcome(&queued).unwrap_err().contains("interrupted"));
        assert_matches!(host.service.interrupt_interaction(id, queued.id), Err(SessionError::NotRunning { .. }));
        host.service.interrupt_interaction(id, running.id).unwrap();
        assert!(outcome(&running).unwrap_err().contains("interrupted"));
        // Host mode continues.
        assert_eq!(outcome(&next).unwrap(), "next");
        assert_eq!(host.ask("and on"), "and on");
        for gone in [running.id, next.id, InteractionId::new()] {
            assert_matches!(host.service.interrupt_interaction(id, gone), Err(SessionError::NotRunning { .. }));
        }
        let unknown = SessionId::new();
        assert_matches!(host.service.interrupt_interaction(unknown, next.id), Err(SessionError::NotFound { .. }));
        assert_eq!(host.dismiss().text, "and on");
    });
}

#[test]
fn c40_interrupt_interaction_runs_hooks_ends_sleeps_and_rolls_back() {
    run(|| {
        struct Agent(Session, Sender<&'static str>);
        impl SessionAgent for Agent {
            fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                match prompt.as_str() {
                    "hook" => {
                        let (abort, aborted) = bounded::<()>(0);
                        let _hook = turn.cancel_token().on_cancel(move || drop(abort));
                        self.1.send("at work").unwrap();
                        aborted.recv().unwrap_err();
                    }
                    "sleep" => {
                        self.1.send("at work").unwrap();
                        turn.sleep(Duration::MAX).unwrap_err();
                    }
                    _ => return Ok(turn.finish(prompt)),
                }
                Err(turn.check().unwrap_err().into())
            }
            fn cancel(&mut self) {
                self.1.send("rolled back").unwrap();
            }
            fn session_clone(&self) -> Session {
                self.0.clone()
            }
        }
        let (tell, told) = unbounded();
        let builder = builder_fn(move |spec: &SessionSpec, _: &_| Ok(Agent(spec.history(), tell.clone())));
        let service = EphemeralSessionService::new(builder, 1);
        let host = service.begin_session(create("x").host_mode(true)).unwrap();
        let id = host.session_id();
        let injector = service.event_injector(id).unwrap();
        for body in ["hook", "sleep"] {
            let stuck = injector.inject_with_subscription(body.into(), EventSource::Tcp).unwrap();
            assert_eq!(told.recv().unwrap(), "at work");
            service.interrupt_interaction(id, stuck.id).unwrap();
            assert!(outcome(&stuck).unwrap_err().contains("interrupted"));
            assert_eq!(told.recv().unwrap(), "rolled back");
            let next = injector.inject_with_subscription("next".into(), EventSource::Tcp).unwrap();
            assert_eq!(outcome(&next).unwrap(), "next");
        }
        // An interrupt of the whole turn reaches the running interaction too.
        let stuck = injector.inject_with_subscription("hook".into(), EventSource::Tcp).unwrap();
        assert_eq!(told.recv().unwrap(), "at work");
        host.interrupt();
        assert!(outcome(&stuck).unwrap_err().contains("interrupted"));
        assert_cancelled(host.wait(), CancelReason::Interrupted);
        assert_eq!(service.start_turn(id, turn("y")).unwrap().text, "y");
    });
}

#[test]
fn c40_an_interrupted_interaction_does_not_cancel_its_turn() {
    run(|| {
        let (enter, entered) = unbounded();
        let agent = agent_fn(move |prompt, turn| {
            if prompt == "slow" {
                enter.send(()).expect("the test listens");
                turn.sleep(Duration::MAX).unwrap_err();
                return Ok(turn.finish("as far as I came"));
            }
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::new(agent, 1);
        let host = service.begin_session(create("x").host_mode(true)).unwrap();
        let injector = service.event_injector(host.session_id()).unwrap();
        let slow = injector.inject_with_subscription("slow".into(), EventSource::Rpc).unwrap();
        entered.recv().unwrap();
        service.interrupt_interaction(host.session_id(), slow.id).unwrap();
        assert_eq!(outcome(&slow).unwrap(), "as far as I came");
        injector.dismiss(EventSource::Rpc).unwrap();
        assert_eq!(host.wait().unwrap().stop_reason, StopReason::EndTurn);
        let stats = service.stats();
        assert_eq!((stats.turns_completed, stats.turns_cancelled), (1, 0));
    });
}

#[test]
fn c40_a_dismissal_by_a_peer_cannot_be_interrupted() {
    run(|| {
        let comms = LocalComms::new();
        let peer = comms.join("peer").unwrap();
        struct Member(LocalPeer, Session);
        impl SessionAgent for Member {
            fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                Ok(turn.finish(prompt))
            }
            fn session_clone(&self) -> Session {
                self.1.clone()
            }
            fn comms_runtime(&self) -> Option<std::sync::Arc<dyn CommsRuntime>> {
                Some(self.0.runtime())
            }
        }
        let builder = builder_fn(move |spec: &SessionSpec, _: &_| {
            Ok(Member(comms.join("member").map_err(AgentError::other)?, spec.history()))
        });
        let service = EphemeralSessionService::new(builder, 1);
        let host = service.begin_session(create("x").host_mode(true)).unwrap();
        let id = host.session_id();
        // The peer is listed once the agent is built.
        while peer.peers().is_empty() {
            std::thread::yield_now();
        }
        let dismissal = peer.send("member", InteractionContent::Dismiss).unwrap();
        host.wait().unwrap();
        assert_matches!(service.interrupt_interaction(id, dismissal), Err(SessionError::NotRunning { .. }));
    });
}

#[test]
fn c40_between_interactions_an_interrupt_ends_a_wait_of_the_session_thread() {
    run(|| {
        /// An agent whose `session_clone` exports another session, once it is armed.
        struct Waits(Session, WeakService, SessionId, Sender<()>, Arc<AtomicBool>);
        impl SessionAgent for Waits {
            fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
                if prompt == "forever" {
                    turn.sleep(Duration::MAX)?;
                }
                Ok(turn.finish(prompt))
            }
            fn session_clone(&self) -> Session {
                if !self.4.load(Ordering::SeqCst) {
                    return self.0.clone();
                }
                self.3.send(()).unwrap();
                let _ = self.1.upgrade().expect("the test has a handle").export_session(self.2);
                self.0.clone()
            }
            fn snapshot(&self) -> SessionSnapshot {
                SessionSnapshot::from(&self.0)
            }
        }
        let (enter, entered) = unbounded();
        let busy_id = SessionId::new();
        let armed = Arc::new(AtomicBool::new(false));
        let arm = Arc::clone(&armed);
        let builder = builder_fn(move |spec: &SessionSpec, context: &SessionContext| {
            Ok(Waits(spec.history(), context.service(), busy_id, enter.clone(), Arc::clone(&armed)))
        });
        let service = EphemeralSessionService::new(builder, 2);
        let busy = service.begin_session(create("forever").session(SessionSpec::new().session_id(busy_id))).unwrap();
        let host = service.begin_session(create("x").host_mode(true)).unwrap();
        let id = host.session_id();
        let injector = service.event_injector(id).unwrap();
        outcome(&injector.inject_with_subscription("one".into(), EventSource::Rpc).unwrap()).unwrap();
        // The subscriber has its answer a moment before the interaction is over, and the history is committed before.
        arm.store(true, Ordering::SeqCst);
        let other = service.clone();
        let exporting = std::thread::spawn(move || other.export_session(id));
        entered.recv().unwrap();
        host.interrupt();
        assert_cancelled(host.wait(), CancelReason::Interrupted);
        busy.interrupt();
        exporting.join().unwrap().unwrap();
        drop(busy.wait());
    });
}
