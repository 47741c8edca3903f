//! Sessions that start each other's turns or send each other messages: C16, C33, C34, C41.

use super::support::*;
use super::{explore, explore_from, join, spawn};
use crate::sync::{Arc, Mutex};
use crate::{
    builder_fn, AgentError, ArchiveMode, CancelReason, CommsError, CommsRuntime, EphemeralSessionService,
    InboxInteraction, InteractionContent, LocalComms, LocalPeer, RunResult, Session, SessionAgent, SessionAgentBuilder,
    SessionContext, SessionError, SessionId, SessionService, TurnContext,
};

/// A service whose sessions start turns of other sessions, and the list of their ids. A prompt has indices into that
/// list and a last word, separated by blanks. The agent sends the rest of its prompt to the session with the first
/// index.
fn askers(limit: usize) -> (EphemeralSessionService<impl SessionAgentBuilder>, Arc<Mutex<Vec<SessionId>>>) {
    let ids: Arc<Mutex<Vec<SessionId>>> = Arc::default();
    let known = Arc::clone(&ids);
    let builder = builder_fn(move |spec, context: &SessionContext| {
        let (known, weak) = (Arc::clone(&known), context.service());
        let play = move |prompt: &str, turn: &TurnContext| {
            let Some((whom, rest)) = prompt.split_once(' ') else { return act(prompt, turn) };
            let id = known.lock()[whom.parse::<usize>().expect("a number")];
            let service = weak.upgrade().expect("the scenario has a handle");
            match service.start_turn(id, super::support::turn(rest)) {
                Ok(result) => Ok(result.text),
                Err(error) => Ok(error.code().to_owned()),
            }
        };
        actors(play).build_agent(spec, context)
    });
    let service = EphemeralSessionService::configure(builder).max_running_turns(limit).build().unwrap();
    (service, ids)
}

#[test]
fn c33_a_cycle_of_waits_is_refused() {
    for sessions in [2, 3] {
        explore(move || {
            let (service, ids) = askers(sessions);
            for _ in 0..sessions {
                let id = open(&service);
                ids.lock().push(id);
            }
            // Each session starts a turn of the next one, and the last starts one of the first. So one wait would close
            // the cycle.
            let turns: Vec<_> = (0..sessions)
                .map(|own| {
                    let id = ids.lock()[own];
                    service.begin_turn(id, turn(&format!("{} answer", (own + 1) % sessions)))
                })
                .collect();
            for turn in turns.into_iter().flatten() {
                let text = turn.wait().expect("a refused wait does not fail the turn that asked").text;
                assert!(["answer", "SESSION_BUSY", "SESSION_REENTRANT"].contains(&text.as_str()), "{text}");
            }
            finish(&service);
        });
    }
}

#[test]
fn c16_a_parent_lends_its_permit_to_its_sub_agent() {
    explore(|| {
        let (service, ids) = askers(1);
        let (parent, child) = (open(&service), open(&service));
        ids.lock().extend([parent, child]);
        assert_eq!(service.start_turn(parent, turn("1 answer")).unwrap().text, "answer");
        assert_eq!(service.stats().running_turns, 0);
        finish(&service);
    });
}

#[test]
fn c34_an_interrupt_of_the_parent_ends_its_wait_but_not_the_child() {
    explore(|| {
        let (service, ids) = askers(1);
        let (parent, child) = (open(&service), open(&service));
        ids.lock().extend([parent, child]);
        let turn = service.begin_turn(parent, turn("1 wait")).unwrap();
        turn.interrupt();
        match turn.wait() {
            Ok(result) => assert_eq!(result.text, "SESSION_INTERRUPTED"),
            // The interrupt came before the run, or while the turn took its permit again.
            other => assert_eq!(reason(&other), Some(CancelReason::Interrupted), "{other:?}"),
        }
        let _ = service.interrupt(child);
        finish(&service);
    });
}

#[test]
fn c34_a_sub_agent_that_is_archived_answers_its_parent() {
    explore(|| {
        let (service, ids) = askers(1);
        let (parent, child) = (open(&service), open(&service));
        ids.lock().extend([parent, child]);
        let turn = service.begin_turn(parent, turn("1 wait")).unwrap();
        service.archive_with(child, ArchiveMode::Interrupt).unwrap();
        let text = turn.wait().expect("the parent goes on").text;
        assert!(["AGENT_CANCELLED", "AGENT_ERROR", "SESSION_NOT_FOUND"].contains(&text.as_str()), "{text}");
        finish(&service);
    });
}

/// Sends two messages to its peer in every run. A full, unknown or closed peer is no error.
struct Talker {
    peer: LocalPeer,
    other: &'static str,
}

impl Talker {
    fn send(&self) {
        for _ in 0..2 {
            match self.peer.send(self.other, InteractionContent::message("again")) {
                Ok(_) | Err(CommsError::Full { .. } | CommsError::UnknownPeer { .. } | CommsError::Closed { .. }) => {}
            }
        }
    }
}

impl SessionAgent for Talker {
    fn run_turn(&mut self, _prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.send();
        Ok(turn.finish(""))
    }

    fn run_interaction(&mut self, _: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        turn.check()?;
        self.send();
        Ok(turn.finish(""))
    }

    fn session_clone(&self) -> Session {
        Session::new()
    }

    fn comms_runtime(&self) -> Option<std::sync::Arc<dyn CommsRuntime>> {
        Some(self.peer.runtime())
    }
}

#[test]
fn c41_two_sessions_that_send_at_full_rate_can_be_stopped() {
    // With this seed host mode once ended with `Ok` during a shutdown, between the gate and the token.
    explore_from(&[8_391_739_299_450_155_877], || {
        let comms = LocalComms::with_capacity(1);
        let network = comms.clone();
        let service = EphemeralSessionService::new(
            builder_fn(move |spec, _: &SessionContext| {
                let (name, other) = if spec.model == "anna" { ("anna", "bruno") } else { ("bruno", "anna") };
                Ok(Talker { peer: network.join(name).map_err(AgentError::other)?, other })
            }),
            2,
        );
        let begin = |name: &str| {
            let request = create("x").host_mode(true).session(crate::SessionSpec::new().model(name));
            service.begin_session(request).unwrap()
        };
        let (anna, bruno) = (begin("anna"), begin("bruno"));
        let other = service.clone();
        let stopped = anna.session_id();
        let stop = spawn(move || other.interrupt(stopped));
        let result = anna.wait();
        assert_eq!(reason(&result), Some(CancelReason::Interrupted), "{result:?}");
        join(stop).unwrap();
        finish(&service);
        assert_eq!(reason(&bruno.wait()), Some(CancelReason::Shutdown));
        // The names are free again.
        assert!(comms.peers().is_empty());
    });
}

#[test]
fn c33_a_session_that_waits_for_its_own_end_is_refused() {
    explore(|| {
        let builder = builder_fn(|spec, context: &SessionContext| {
            let (weak, id) = (context.service(), context.session_id());
            let play = move |_: &str, _: &TurnContext| {
                let service = weak.upgrade().expect("the scenario has a handle");
                let error = service.archive_wait(id, FAR).expect_err("no session can wait for itself");
                assert!(matches!(error, SessionError::Reentrant { .. }), "{error}");
                Ok("refused".to_owned())
            };
            actors(play).build_agent(spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        assert_eq!(service.create_session(create("x")).unwrap().text, "refused");
        finish(&service);
    });
}
