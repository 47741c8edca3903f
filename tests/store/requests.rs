//! The parts of a request that reach a turn which resumes its session.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use turnwise::crossbeam_channel::{unbounded, Receiver, Sender};
use turnwise::store::{FileStore, PersistentSessionService};
use turnwise::testkit::ManualClock;
use turnwise::{
    builder_fn, AgentError, AgentEvent, CancelReason, EphemeralSessionService, EventSource, InboxInteraction,
    RunResult, Session, SessionAgent, SessionAgentBuilder, SessionContext, SessionError, SessionId, SessionService,
    SessionSpec, SkillId, StartTurnRequest, TurnContext,
};

use crate::support::*;

/// An agent that records the calls it gets. With the prompt `sleep` it sleeps until its turn is cancelled.
struct Noting<A> {
    agent: A,
    notes: Notes,
}

#[derive(Clone)]
struct Notes {
    calls: Arc<Mutex<Vec<String>>>,
    running: Sender<()>,
}

impl Notes {
    fn new() -> (Self, Receiver<()>) {
        let (running, runs) = unbounded();
        (Self { calls: Arc::default(), running }, runs)
    }

    fn add(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }
}

impl<A: SessionAgent> SessionAgent for Noting<A> {
    fn set_skill_references(&mut self, skills: Option<Vec<SkillId>>) {
        let skills = skills.unwrap_or_default();
        self.notes.add(format!("skills {}", skills.iter().map(SkillId::as_str).collect::<String>()));
    }

    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.notes.add(format!("prompt {prompt}"));
        self.notes.running.send(()).unwrap();
        if prompt == "sleep" {
            turn.sleep(Duration::MAX)?;
        }
        self.agent.run_turn(prompt, turn)
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.notes.add(format!("interaction {}", interaction.text()));
        self.agent.run_turn(interaction.text(), turn)
    }

    fn session_clone(&self) -> Session {
        self.agent.session_clone()
    }
}

fn noting(notes: &Notes) -> impl SessionAgentBuilder + use<> {
    let notes = notes.clone();
    builder_fn(move |spec: &SessionSpec, context: &SessionContext| {
        Ok(Noting { agent: echo().build_agent(spec, context)?, notes: notes.clone() })
    })
}

/// The calls that start a turn. Each waits for the result and sends the turn's events to `events`.
type Start =
    fn(&dyn SessionService, SessionId, StartTurnRequest, Sender<AgentEvent>) -> Result<RunResult, SessionError>;

const STARTS: [(&str, Start); 3] = [
    ("begin_turn", |service, id, request, events| service.begin_turn(id, request.event_tx(events))?.wait()),
    ("start_turn", |service, id, request, events| service.start_turn(id, request.event_tx(events))),
    ("start_turn_with", |service, id, request, events| {
        service.start_turn_with(id, request, &mut |event| events.send(event).unwrap())
    }),
];

#[test]
fn a_turn_that_resumes_its_session_gets_the_whole_request() {
    run(|| {
        for (name, start) in STARTS {
            let (notes, runs) = Notes::new();
            let service = PersistentSessionService::new(noting(&notes), 4, FileStore::in_memory().unwrap());
            let id = service.open_session(SessionSpec::new()).unwrap();
            service.unload(id, LONG).unwrap();
            let (event_tx, events) = unbounded();
            let request = turn("two").host_mode(true).skill_references(vec![SkillId::new("ask")]).timeout(LONG);
            let result = std::thread::scope(|scope| {
                let started = scope.spawn(|| start(&service, id, request, event_tx));
                runs.recv().unwrap();
                // A turn that is not in host mode would run neither of these.
                let injector = service.event_injector(id).unwrap();
                injector.inject("more".to_owned(), EventSource::Tcp).unwrap();
                injector.dismiss(EventSource::Tcp).unwrap();
                started.join().unwrap().unwrap()
            });
            assert_eq!(result.text, "more", "{name}");
            assert_eq!(notes.take(), ["skills ask", "prompt two", "interaction more"], "{name}");
            let events: Vec<AgentEvent> = events.try_iter().collect();
            assert!(matches!(&events[0], AgentEvent::RunStarted { prompt, .. } if prompt == "two"), "{name}");
            assert!(matches!(events.last(), Some(AgentEvent::RunCompleted { .. })), "{name}");
        }
    });
}

#[test]
fn a_turn_that_resumes_its_session_keeps_the_timeout_of_the_request() {
    const HOUR: Duration = Duration::from_secs(3_600);
    run(|| {
        for (name, start) in STARTS {
            let (clock, (notes, runs)) = (ManualClock::new(), Notes::new());
            let config = EphemeralSessionService::configure(noting(&notes)).clock(clock.clone());
            let service = PersistentSessionService::with_config(config, FileStore::in_memory().unwrap()).unwrap();
            let id = service.open_session(SessionSpec::new()).unwrap();
            service.unload(id, LONG).unwrap();
            let (event_tx, _events) = unbounded();
            let error = std::thread::scope(|scope| {
                let started = scope.spawn(|| start(&service, id, turn("sleep").timeout(HOUR), event_tx));
                runs.recv().unwrap();
                clock.advance(HOUR);
                started.join().unwrap().unwrap_err()
            });
            assert_eq!(error.cancel_reason(), Some(CancelReason::DeadlineExceeded), "{name}");
        }
    });
}

#[test]
fn a_turn_that_is_refused_as_busy_leaves_the_session_as_it_is() {
    run(|| {
        let (service, _store, gate, running) = with_deaf_turn();
        let id = running.session_id();
        for (name, start) in STARTS {
            let (event_tx, events) = unbounded();
            let error = start(&service, id, turn("two"), event_tx).unwrap_err();
            assert_eq!(error.code(), "SESSION_BUSY", "{name}");
            // The request was dropped, and its sender with it.
            assert!(events.recv().is_err(), "{name}");
        }
        gate.open();
        assert_eq!(running.wait().unwrap().text, "one");
        assert_eq!(service.start_turn(id, turn("three")).unwrap().text, "three");
    });
}
