//! C41, C40: messages between sessions.

use std::sync::Arc;
use std::thread;

use turnwise::crossbeam_channel::{bounded, unbounded, Receiver, Sender};
use turnwise::{
    AgentError, CancelReason, CommsError, CommsRuntime, CreateSessionRequest, EphemeralSessionService, EventSource,
    InboxInteraction, InteractionContent, InteractionId, LocalComms, LocalPeer, NameTaken, ResponseStatus, RunResult,
    Session, SessionAgent, SessionAgentBuilder, SessionContext, SessionError, SessionService, SessionSpec, TurnContext,
    TurnHandle,
};

use crate::support::*;

/// An agent that joins under the name of its model. A prompt `ask NAME WHAT` sends a request to that peer. The agent
/// answers requests, and reports every message that it gets.
struct Peer {
    history: Session,
    peer: LocalPeer,
    heard: Sender<(String, InteractionContent)>,
}

struct Peers {
    comms: LocalComms,
    heard: Sender<(String, InteractionContent)>,
}

impl SessionAgentBuilder for Peers {
    type Agent = Peer;

    fn build_agent(&self, spec: &SessionSpec, context: &SessionContext) -> Result<Peer, AgentError> {
        let peer = self.comms.join(spec.model.as_str()).map_err(AgentError::other)?;
        Ok(Peer { history: Session::with_id(context.session_id()), peer, heard: self.heard.clone() })
    }
}

impl SessionAgent for Peer {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if let Some(("ask", rest)) = prompt.split_once(' ') {
            let (to, what) = rest.split_once(' ').expect("ask NAME WHAT");
            self.peer.send(to, InteractionContent::request(what, "")).map_err(AgentError::other)?;
        }
        Ok(turn.finish(prompt))
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let InboxInteraction { id, from, content, .. } = interaction;
        self.heard.send((format!("{} hears {from}", self.peer.name()), content.clone())).expect("the test listens");
        match &content {
            InteractionContent::Request { intent, .. } if intent == "panic" => panic!("scripted"),
            InteractionContent::Request { intent, .. } => {
                let (status, result) = (ResponseStatus::Completed, intent.to_uppercase());
                let answer = InteractionContent::Response { in_reply_to: id, status, result };
                self.peer.send(&from, answer).map_err(AgentError::other)?;
                Ok(turn.finish("answered").with_tool_calls(1))
            }
            _ => Ok(turn.finish("noted")),
        }
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        Some(self.peer.runtime())
    }
}

type Heard = Receiver<(String, InteractionContent)>;

fn peers() -> (EphemeralSessionService<Peers>, LocalComms, Heard) {
    let comms = LocalComms::new();
    let (heard, hearing) = unbounded();
    (EphemeralSessionService::new(Peers { comms: comms.clone(), heard }, 8), comms, hearing)
}

fn host(service: &dyn SessionService, name: &str, prompt: &str) -> TurnHandle {
    let request = CreateSessionRequest::new(prompt).session(SessionSpec::new().model(name)).host_mode(true);
    service.begin_session(request).unwrap()
}

fn next(heard: &Heard) -> (String, InteractionContent) {
    heard.recv_timeout(LONG).expect("a peer gets a message")
}

#[test]
fn c41_two_sessions_converse_and_one_dismisses_the_other() {
    run(|| {
        let (service, comms, heard) = peers();
        let bob = host(&service, "bob", "x");
        while comms.peers().is_empty() {
            thread::yield_now();
        }
        let alice = host(&service, "alice", "ask bob the way");
        let (direction, asked) = next(&heard);
        assert_eq!((direction.as_str(), asked), ("bob hears alice", InteractionContent::request("the way", "")));
        let (direction, answer) = next(&heard);
        assert_eq!(direction, "alice hears bob");
        assert_matches!(
            answer,
            InteractionContent::Response { status: ResponseStatus::Completed, result, .. } if result == "THE WAY"
        );
        // The host may send in the name of a session, and a session may dismiss its peer.
        let runtime = service.comms_runtime(alice.session_id()).unwrap();
        assert_eq!(runtime.peers(), ["bob"]);
        runtime.send("bob", InteractionContent::Dismiss).unwrap();
        let result = bob.wait().unwrap();
        assert_eq!((result.text.as_str(), result.turns, result.tool_calls), ("answered", 2, 1));
        service.event_injector(alice.session_id()).unwrap().dismiss(EventSource::Stdin).unwrap();
        assert_eq!(alice.wait().unwrap().text, "noted");
    });
}

#[test]
fn c41_names_are_taken_once_and_free_again_when_their_session_has_ended() {
    run(|| {
        let (service, comms, _heard) = peers();
        let spec = || SessionSpec::new().model("alice");
        let alice = service.open_session(spec()).unwrap();
        let again = service.open_session(spec());
        assert_matches!(again, Err(SessionError::Build { .. }));
        assert_eq!(comms.join("alice").unwrap_err(), NameTaken { name: "alice".into() });
        let runtime = service.comms_runtime(alice).unwrap();
        service.archive_wait(alice, LONG).unwrap();
        assert_eq!(comms.peers(), [] as [String; 0]);
        assert!(service.comms_runtime(alice).is_none());
        // A comms runtime is closed after the end of its session.
        let closed = runtime.send("bob", InteractionContent::message("x")).unwrap_err();
        assert_matches!(&closed, CommsError::Closed { to, .. } if to == "bob");
        assert_eq!(closed.into_content(), InteractionContent::message("x"));
        let alice = service.open_session(spec()).unwrap();
        // A fault does not free the name. The end of the session does.
        let faulting = service.begin_turn(alice, turn("x").host_mode(true)).unwrap();
        let other = comms.join("other").unwrap();
        other.send("alice", InteractionContent::request("panic", "")).unwrap();
        assert_matches!(faulting.wait(), Err(SessionError::Faulted { .. }));
        assert!(comms.join("alice").is_err());
        service.shutdown(LONG);
        drop(comms.join("alice").unwrap());
    });
}

#[test]
fn c41_a_full_or_unknown_peer_is_an_error_to_the_sender() {
    run(|| {
        assert!(LocalComms::with_capacity(usize::MAX).join("with all the room there is").is_ok());
        let comms = LocalComms::with_capacity(2);
        let (alice, bob) = (comms.join("alice").unwrap(), comms.join("bob").unwrap());
        for _ in 0..2 {
            alice.send("bob", InteractionContent::message("hello")).unwrap();
        }
        let full = alice.send("bob", InteractionContent::message("secret")).unwrap_err();
        assert_matches!(&full, CommsError::Full { to, .. } if to == "bob");
        assert!(!format!("{full:?}").contains("secret"));
        let inbox = bob.inbox().unwrap();
        let id = inbox.try_recv().unwrap().id;
        assert_ne!(alice.send("bob", InteractionContent::message("room")).unwrap(), id);
        assert_matches!(
            alice.send("carol", InteractionContent::Dismiss),
            Err(CommsError::UnknownPeer { to, content: InteractionContent::Dismiss }) if to == "carol"
        );
        drop(bob);
        assert_matches!(alice.send("bob", InteractionContent::Dismiss), Err(CommsError::UnknownPeer { .. }));
        // The drop of a peer drops its unread messages, and no more arrive.
        assert!(inbox.try_recv().is_err());
        assert_eq!(alice.peers(), [] as [String; 0]);
        alice.send("alice", InteractionContent::message("to myself")).unwrap();
        assert_eq!(alice.inbox().unwrap().try_recv().unwrap().from, "alice");
    });
}

/// An agent that sends eight messages to its peer in every turn and interaction, and ignores refusals.
struct Sending {
    history: Session,
    peer: LocalPeer,
    other: String,
}

impl SessionAgent for Sending {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        for _ in 0..8 {
            // The peer may be full, or may not have joined yet.
            drop(self.peer.send(&self.other, InteractionContent::message("more")));
        }
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        Some(self.peer.runtime())
    }
}

#[test]
fn c41_two_sessions_at_full_rate_neither_deadlock_nor_miss_an_interrupt() {
    run(|| {
        let comms = LocalComms::with_capacity(4);
        let builder = turnwise::builder_fn(move |spec: &SessionSpec, context: &SessionContext| {
            let peer = comms.join(spec.model.as_str()).map_err(AgentError::other)?;
            let other = if spec.model == "tick" { "tock" } else { "tick" }.to_owned();
            Ok(Sending { history: Session::with_id(context.session_id()), peer, other })
        });
        let service = EphemeralSessionService::configure(builder).max_running_turns(1).build().unwrap();
        let open = |name: &str| service.open_session(SessionSpec::new().model(name)).unwrap();
        let ids = [open("tick"), open("tock")];
        let turns = ids.map(|id| service.begin_turn(id, turn("go").host_mode(true)).unwrap());
        // Both sessions keep sending, and answer exports between their interactions.
        for id in ids {
            for _ in 0..50 {
                service.export_session(id).unwrap();
            }
        }
        for turn in turns {
            turn.interrupt();
            assert_cancelled(turn.wait(), CancelReason::Interrupted);
        }
        assert!(service.shutdown(LONG).stuck.is_empty());
    });
}

/// An agent that joins in its first turn.
struct JoinsLate {
    history: Session,
    comms: LocalComms,
    peer: Option<LocalPeer>,
}

impl SessionAgent for JoinsLate {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        if self.peer.is_none() {
            self.peer = Some(self.comms.join("late").map_err(AgentError::other)?);
        }
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        self.peer.as_ref().map(LocalPeer::runtime)
    }
}

#[test]
fn c41_an_agent_may_join_during_the_prompt_that_begins_host_mode() {
    run(|| {
        let comms = LocalComms::new();
        let other = comms.join("other").unwrap();
        let builder = turnwise::builder_fn(move |_: &SessionSpec, context: &SessionContext| {
            Ok(JoinsLate { history: Session::with_id(context.session_id()), comms: comms.clone(), peer: None })
        });
        let service = EphemeralSessionService::new(builder, 1);
        let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
        while other.peers().is_empty() {
            thread::yield_now();
        }
        other.send("late", InteractionContent::message("welcome")).unwrap();
        other.send("late", InteractionContent::Dismiss).unwrap();
        assert_eq!(hosting.wait().unwrap().text, "welcome");
    });
}

/// A comms runtime with the given inbox. Without one its `inbox` panics.
struct FaultyComms {
    inbox: Option<Receiver<InboxInteraction>>,
}

impl CommsRuntime for FaultyComms {
    fn send(&self, to: &str, content: InteractionContent) -> Result<InteractionId, CommsError> {
        Err(CommsError::UnknownPeer { to: to.to_owned(), content })
    }

    fn peers(&self) -> Vec<String> {
        Vec::new()
    }

    fn inbox(&self) -> Option<Receiver<InboxInteraction>> {
        Some(self.inbox.clone().expect("no inbox"))
    }
}

struct WithComms {
    history: Session,
    runtime: Arc<FaultyComms>,
}

impl SessionAgent for WithComms {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(prompt))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        Some(Arc::clone(&self.runtime) as Arc<dyn CommsRuntime>)
    }
}

#[test]
fn c40_a_comms_inbox_that_disconnects_or_panics_does_not_end_host_mode() {
    run(|| {
        let (sender, inbox) = bounded(1);
        sender.send(InboxInteraction::new("peer", InteractionContent::message("last words"))).unwrap();
        drop(sender);
        for inbox in [Some(inbox), None] {
            let expected = if inbox.is_some() { "last words" } else { "x" };
            let runtime = Arc::new(FaultyComms { inbox });
            let builder = turnwise::builder_fn(move |_: &SessionSpec, context: &SessionContext| {
                Ok(WithComms { history: Session::with_id(context.session_id()), runtime: Arc::clone(&runtime) })
            });
            let service = EphemeralSessionService::new(builder, 1);
            let hosting = service.begin_session(create("x").host_mode(true)).unwrap();
            let id = hosting.session_id();
            let injector = service.event_injector(id).unwrap();
            // The session answers exports and interactions, and does not spin on the disconnected channel.
            service.export_session(id).unwrap();
            let followed = injector.inject_with_subscription("after".into(), EventSource::Tcp).unwrap();
            assert_eq!(crate::inbox::outcome(&followed).unwrap(), "after");
            #[cfg(target_os = "linux")]
            assert_idle(&id.to_string());
            service.archive(id).unwrap();
            assert!(["after", expected].contains(&hosting.wait().unwrap().text.as_str()));
        }
    });
}

/// Asserts that the thread of this session uses almost no processor time while it waits.
#[cfg(target_os = "linux")]
fn assert_idle(session: &str) {
    let name = format!("-{}", &session[session.len() - 6..]);
    let own = std::fs::read_dir("/proc/self/task")
        .expect("procfs")
        .flatten()
        .map(|task| task.path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim().ends_with(&name)));
    let own = own.expect("the thread of the session is listed");
    let used = || {
        let text = std::fs::read_to_string(own.join("schedstat")).expect("scheduler statistics");
        text.split(' ').next().expect("time on the processor").parse::<u64>().expect("nanoseconds")
    };
    let before = used();
    // A thread that spins uses most of these 50 ms.
    thread::sleep(std::time::Duration::from_millis(50));
    let nanos = used() - before;
    assert!(nanos < 10_000_000, "{nanos} ns of 50 ms");
}
