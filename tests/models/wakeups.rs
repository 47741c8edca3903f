//! A thread that sends more wake-ups than may be in flight.

use super::support::{actors, create, finish, open, turn};
use super::{explore, join, spawn};
use crate::sync::{select, Arc, AtomicBool, Ordering};
use crate::wait::latch::Latch;
use crate::wait::wakeups::own_throttle;
use crate::wait::work_queue::WorkQueue;
use crate::{
    builder_fn, AgentError, EphemeralSessionService, EventSource, RunResult, Session, SessionAgent, SessionService,
    SessionSnapshot, TurnContext,
};

/// In a model one wake-up is in flight at a time, so with this many threads several wake-ups are queued.
const WAITERS: usize = 3;
const ROUNDS: usize = 2;

/// Waits at two queues, as a session thread in host mode does, until that many items have arrived.
fn wait_at(queues: &[Arc<WorkQueue<usize>>; 2], items: usize) -> Vec<usize> {
    let [one, other] = queues;
    let mut received = Vec::new();
    while received.len() < items {
        select! {
            recv(one.ready()) -> _ => {},
            recv(other.ready()) -> _ => {},
        }
        one.end_wait();
        other.end_wait();
        received.extend(queues.iter().filter_map(|queue| queue.pop()));
    }
    received
}

#[test]
fn every_notified_thread_arrives_whichever_thread_sends_the_wake_up() {
    explore(|| {
        let queues: Vec<[Arc<WorkQueue<usize>>; 2]> =
            (0..WAITERS).map(|_| [Arc::new(WorkQueue::new()), Arc::new(WorkQueue::new())]).collect();
        let waiters: Vec<_> =
            queues.iter().cloned().map(|queues| spawn(move || wait_at(&queues, 2 * ROUNDS))).collect();
        let callers = [0, 1].map(|caller| {
            let queues = queues.clone();
            spawn(move || {
                for round in 0..ROUNDS {
                    queues.iter().for_each(|queues| queues[(caller + round) % 2].push(2 * round + caller).unwrap());
                }
                own_throttle()
            })
        });
        let throttles = callers.map(join);
        for waiter in waiters {
            // If a wake-up were lost, this would wait for ever.
            let mut received = join(waiter);
            received.sort_unstable();
            assert_eq!(received, (0..2 * ROUNDS).collect::<Vec<_>>());
        }
        assert!(throttles.iter().all(|throttle| throttle.is_idle()), "a wake-up stays in flight");
    });
}

#[test]
fn c40_a_session_that_leaves_its_select_by_another_arm_reports_its_arrival() {
    explore(|| {
        let told = Arc::new(Latch::new());
        let telling = Arc::clone(&told);
        let agents = actors(move |prompt, _| {
            match prompt {
                "wait for the other" => telling.wait(),
                "tell" => telling.set(),
                _ => {}
            }
            Ok(prompt.to_owned())
        });
        let service = EphemeralSessionService::new(agents, 2);
        let other = open(&service);
        let hosting = service.begin_session(create("begun").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let injector = service.event_injector(id).unwrap();
        injector.inject("wait for the other".into(), EventSource::Tcp).unwrap();
        // The session thread is notified of a command too. It may take that command only after the interaction, which
        // waits for the other session.
        service.archive(id).unwrap();
        service.start_turn(other, turn("tell")).unwrap();
        hosting.wait().unwrap();
        assert!(told.is_set());
        finish(&service);
        assert!(own_throttle().is_idle(), "a wake-up stays in flight");
    });
}

/// An agent whose export waits, once it is armed, until a turn of any session gets the prompt `tell`.
struct Told {
    armed: Arc<AtomicBool>,
    told: Arc<Latch>,
    history: Session,
}

impl SessionAgent for Told {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if prompt == "tell" {
            self.told.set();
        }
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        if self.armed.load(Ordering::SeqCst) {
            self.told.wait();
        }
        self.history.clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        SessionSnapshot::from(&self.history)
    }
}

#[test]
fn c40_a_session_that_exports_reports_the_wake_up_for_its_inbox() {
    explore(|| {
        let told = Arc::new(Latch::new());
        let armed = Arc::new(AtomicBool::new(false));
        let arm = Arc::clone(&armed);
        let agents = builder_fn(move |spec, _| {
            Ok(Told { armed: Arc::clone(&armed), told: Arc::clone(&told), history: spec.history() })
        });
        let service = EphemeralSessionService::new(agents, 2);
        let other = open(&service);
        let hosting = service.begin_session(create("begun").host_mode(true)).unwrap();
        let id = hosting.session_id();
        arm.store(true, Ordering::SeqCst);
        let exporting = service.clone();
        let exporter = spawn(move || exporting.export_session(id).unwrap());
        service.event_injector(id).unwrap().inject("x".into(), EventSource::Tcp).unwrap();
        service.start_turn(other, turn("tell")).unwrap();
        join(exporter);
        service.archive(id).unwrap();
        hosting.wait().unwrap();
        finish(&service);
        assert!(own_throttle().is_idle(), "a wake-up stays in flight");
    });
}
