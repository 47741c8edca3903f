//! The traits that a user of the crate implements: [`SessionAgent`], and [`SessionAgentBuilder`] to make agents.
//! [`agent_fn`] implements both for a closure.
//!
//! This module does not catch the panics of an agent; the session thread does.

use std::fmt;
use std::time::Duration;

use crate::cancel::CancelToken;
use crate::comms::CommsRuntime;
use crate::context::turn::TurnContext;
use crate::error::{AgentError, Cancelled};
use crate::inbox::injector::SubscribableInjector;
use crate::model::{
    AssistantBlock, InboxInteraction, Message, RunResult, Session, SessionId, SessionSnapshot, SkillId,
};
use crate::service::{SessionSpec, WeakService};
use crate::sync::Arc;
use crate::turn::events::EventSender;

/// Builds the agent of each session, on the session thread.
///
/// All threads share the builder; the agents that it builds need not be `Send`. Closures are builders too: see
/// [`builder_fn`] and, for small agents, [`agent_fn`].
///
/// ```
/// use turnwise::{agent_fn, AgentError, CreateSessionRequest, EphemeralSessionService, SessionAgent};
/// use turnwise::{SessionAgentBuilder, SessionContext, SessionService, SessionSpec};
///
/// /// Builds agents that greet, with a configured greeting.
/// struct Greeters { greeting: &'static str }
///
/// impl SessionAgentBuilder for Greeters {
///     type Agent = Box<dyn SessionAgent>;
///
///     fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Self::Agent, AgentError> {
///         let greeting = self.greeting;
///         let agent = agent_fn(move |name, turn| Ok(turn.finish(format!("{greeting}, {name}"))));
///         Ok(Box::new(agent.build_agent(spec, session)?))
///     }
/// }
///
/// let service = EphemeralSessionService::new(Greeters { greeting: "Ahoy" }, 8);
/// assert_eq!(service.create_session(CreateSessionRequest::new("Ada"))?.text, "Ahoy, Ada");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
///
/// An agent is not a builder:
///
/// ```compile_fail
/// use turnwise::{AgentError, EphemeralSessionService, RunResult, Session, SessionAgent, TurnContext};
///
/// struct Echo(Session);
///
/// impl SessionAgent for Echo {
///     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
///         Ok(turn.finish(prompt))
///     }
///
///     fn session_clone(&self) -> Session {
///         self.0.clone()
///     }
/// }
///
/// // Every session needs an agent of its own: `builder_fn(|spec, _| Ok(Echo(spec.history())))`.
/// let service = EphemeralSessionService::new(Echo(Session::new()), 8);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not build agents",
    label = "not a builder of agents",
    note = "an agent is built once for each session: pass `builder_fn(|spec, session| Ok(...))`, which returns it",
    note = "an agent that is only a function of prompt and turn: pass `agent_fn(|prompt, turn| Ok(turn.finish(...)))`"
)]
pub trait SessionAgentBuilder: Send + Sync + 'static {
    /// The agent type. It has no `Send` bound: an agent is built, run and dropped on one thread.
    type Agent: SessionAgent;

    /// Builds an agent for a session.
    ///
    /// `spec.session_id` is always set. An agent with a history begins with [`spec.history()`](SessionSpec::history):
    /// the history to resume, or an empty one.
    ///
    /// # Errors
    /// Any error that prevents the build. The creator of the session gets it as
    /// [`SessionError::Build`](crate::SessionError::Build), and no session remains. A panic counts as an error.
    ///
    /// A [restart](crate::SessionService::restart) calls this again for the same session, with the same specification, the
    /// history to resume, and the session's current labels. After an error the session stays faulted.
    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<Self::Agent, AgentError>;
}

// The compiler would otherwise ask for a closure, and not for a builder.
#[diagnostic::do_not_recommend]
impl<F, A> SessionAgentBuilder for F
where
    F: Fn(&SessionSpec, &SessionContext) -> Result<A, AgentError> + Send + Sync + 'static,
    A: SessionAgent,
{
    type Agent = A;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<A, AgentError> {
        self(spec, session)
    }
}

/// A shared builder is a builder, also behind `dyn`: hosts of plugins take an `Arc<dyn SessionAgentBuilder<Agent =
/// Box<dyn SessionAgent>>>`.
impl<B: SessionAgentBuilder + ?Sized> SessionAgentBuilder for Arc<B> {
    type Agent = B::Agent;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<B::Agent, AgentError> {
        (**self).build_agent(spec, session)
    }
}

/// Returns the closure unchanged. The bound lets the compiler infer the closure's types.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
/// use turnwise::{builder_fn, AgentError, EphemeralSessionService, RunResult, Session, SessionAgent, TurnContext};
///
/// /// Counts its turns in a value that is not `Send`.
/// struct Counting { session: Session, turns: Rc<Cell<u32>> }
///
/// impl SessionAgent for Counting {
///     fn run_turn(&mut self, _prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
///         self.turns.set(self.turns.get() + 1);
///         Ok(turn.finish(self.turns.get().to_string()))
///     }
///
///     fn session_clone(&self) -> Session {
///         self.session.clone()
///     }
/// }
///
/// let builder = builder_fn(|spec, _| {
///     Ok(Counting { session: spec.history(), turns: Rc::default() })
/// });
/// let service = EphemeralSessionService::new(builder, 8);
/// # drop(service);
/// ```
pub fn builder_fn<F, A>(builder: F) -> F
where
    F: Fn(&SessionSpec, &SessionContext) -> Result<A, AgentError> + Send + Sync + 'static,
    A: SessionAgent,
{
    builder
}

/// The agent of a session: runs turns and owns the history.
///
/// It is built, run and dropped on one thread. It may hold an `Rc`, a script engine, or GUI and FFI handles with
/// thread affinity.
///
/// ```
/// use turnwise::{builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService, RunResult, Session};
/// use turnwise::{SessionAgent, SessionService, StartTurnRequest, TurnContext};
///
/// /// Adds up the numbers in its prompts.
/// struct Adding { sum: i64, history: Session }
///
/// impl SessionAgent for Adding {
///     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
///         let number: i64 = prompt.parse().map_err(|_| AgentError::Config("not a number".into()))?;
///         self.sum += number;
///         Ok(turn.finish(self.sum.to_string()))
///     }
///
///     fn session_clone(&self) -> Session {
///         self.history.clone()
///     }
/// }
///
/// let builder = builder_fn(|spec, _| Ok(Adding { sum: 0, history: spec.history() }));
/// let service = EphemeralSessionService::new(builder, 8);
/// let first = service.create_session(CreateSessionRequest::new("2"))?;
/// assert_eq!(service.start_turn(first.session_id, StartTurnRequest::new("3"))?.text, "5");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
///
/// # Panics
/// A panic in [`run_turn`](Self::run_turn), [`run_interaction`](Self::run_interaction),
/// [`set_skill_references`](Self::set_skill_references) or [`cancel`](Self::cancel) faults the session: the turn's
/// caller gets [`SessionError::Faulted`](crate::SessionError::Faulted), and the session runs no more turns until it is
/// [restarted](crate::SessionService::restart).
///
/// A panic in [`snapshot`](Self::snapshot), [`session_clone`](Self::session_clone),
/// [`event_injector`](Self::event_injector), [`comms_runtime`](Self::comms_runtime) or the agent's drop is caught and
/// logged; the session goes on. A failed `session_clone` is an error of the export, and a restart begins with the last
/// history that the agent has returned.
///
/// Catching panics needs `panic = "unwind"`, Cargo's default.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an agent",
    label = "not an agent",
    note = "implement `SessionAgent`, or make a small agent of a closure: `agent_fn(|prompt, turn| Ok(turn.finish(...)))`"
)]
pub trait SessionAgent: 'static {
    /// Runs a turn.
    ///
    /// The agent should call [`TurnContext::check`] from time to time, or emit events, which checks too. An interrupt
    /// is a request: only the agent can end the turn.
    ///
    /// # Errors
    /// Any error that fails the turn. The session goes on.
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError>;

    /// Runs an interaction that arrived in [host mode](crate::StartTurnRequest#structfield.host_mode). By default its
    /// [text](InboxInteraction::text) is the prompt of a [`run_turn`](Self::run_turn).
    ///
    /// The agent itself answers a peer, through its [`CommsRuntime`]. The library reports the result to the caller
    /// that injected the interaction.
    ///
    /// ```
    /// use turnwise::{builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService, EventSource};
    /// use turnwise::{InboxInteraction, RunResult, Session, SessionAgent, SessionService, TurnContext};
    ///
    /// # struct Clerk { history: Session }
    /// impl SessionAgent for Clerk {
    ///     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    ///         Ok(turn.finish(prompt))
    ///     }
    ///
    ///     fn run_interaction(&mut self, what: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
    ///         Ok(turn.finish(format!("{} wants {}", what.from, what.text())))
    ///     }
    /// #   fn session_clone(&self) -> Session {
    /// #       self.history.clone()
    /// #   }
    /// }
    ///
    /// # let builder = builder_fn(|spec, _| Ok(Clerk { history: spec.history() }));
    /// let service = EphemeralSessionService::new(builder, 1);
    /// let hosting = service.begin_session(CreateSessionRequest::new("open the office").host_mode(true))?;
    /// let injector = service.event_injector(hosting.session_id()).expect("the session is there");
    /// injector.inject("a stamp".into(), EventSource::Rpc)?;
    /// injector.dismiss(EventSource::Rpc)?;
    /// assert_eq!(hosting.wait()?.text, "rpc wants a stamp");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Any error that fails the interaction. The library reports it as failed, and the session goes on to the next.
    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        self.run_turn(interaction.text(), turn)
    }

    /// Returns the history, for exports and restarts. Called after the build, after every turn and interaction that ran
    /// without a panic, and for every export. A clone of a [`Session`] shares the messages, so it is cheap.
    fn session_clone(&self) -> Session;

    /// Returns the state that reads show. Called after the build, and after every turn and interaction that ran
    /// without a panic.
    ///
    /// ```
    /// use turnwise::{AgentError, RunResult, Session, SessionAgent, SessionSnapshot, TurnContext};
    ///
    /// struct Quiet { history: Session }
    ///
    /// impl SessionAgent for Quiet {
    ///     fn snapshot(&self) -> SessionSnapshot {
    ///         let shown = SessionSnapshot::from(&self.history);
    ///         SessionSnapshot { last_assistant_text: None, ..shown } // the answer is private
    ///     }
    /// #   fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    /// #       self.history.push(turnwise::Message::assistant(prompt.as_str()));
    /// #       Ok(turn.finish(prompt))
    /// #   }
    /// #   fn session_clone(&self) -> Session {
    /// #       self.history.clone()
    /// #   }
    ///     // ...
    /// }
    /// # use turnwise::{builder_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let builder = builder_fn(|spec, _| Ok(Quiet { history: spec.history() }));
    /// # let service = EphemeralSessionService::new(builder, 1);
    /// # let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
    ///
    /// assert_eq!(service.read(id)?.state.last_assistant_text, None);
    /// # assert_eq!(service.read(id)?.state.message_count, 1);
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    fn snapshot(&self) -> SessionSnapshot {
        SessionSnapshot::from(&self.session_clone())
    }

    /// Sets the skills that the next turn may use; `None` where the request names none. Called before every turn.
    ///
    /// ```
    /// use turnwise::{AgentError, RunResult, Session, SessionAgent, SkillId, TurnContext};
    ///
    /// struct Skilled { skills: Vec<SkillId>, history: Session }
    ///
    /// impl SessionAgent for Skilled {
    ///     fn set_skill_references(&mut self, skills: Option<Vec<SkillId>>) {
    ///         self.skills = skills.unwrap_or_else(|| vec!["office/mail".into()]); // the default
    ///     }
    ///
    ///     fn run_turn(&mut self, _prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    ///         let names: Vec<&str> = self.skills.iter().map(SkillId::skill_name).collect();
    ///         Ok(turn.finish(names.join(", ")))
    ///     }
    /// #   fn session_clone(&self) -> Session {
    /// #       self.history.clone()
    /// #   }
    /// }
    /// # use turnwise::{builder_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    /// # let service = EphemeralSessionService::new(builder_fn(|spec, _| {
    /// #     Ok(Skilled { skills: Vec::new(), history: spec.history() })
    /// # }), 1);
    /// # let request = CreateSessionRequest::new("hello").skill_references(vec!["a/one".into(), "a/two".into()]);
    ///
    /// let result = service.create_session(request)?; // with the skills `a/one` and `a/two`
    /// assert_eq!(result.text, "one, two");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    fn set_skill_references(&mut self, skills: Option<Vec<SkillId>>) {
        let _ = skills;
    }

    /// Rolls back what a cancelled turn left half-done. Called after [`run_turn`](Self::run_turn) or
    /// [`run_interaction`](Self::run_interaction) has failed in a cancelled turn. The token is still set,
    /// so a wait for another session ends at once here.
    ///
    /// ```
    /// use turnwise::{builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService, Message, RunResult};
    /// use turnwise::{Session, SessionAgent, SessionService, TurnContext};
    ///
    /// # struct Tidy { history: Session, kept: Session }
    /// impl SessionAgent for Tidy {
    ///     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    ///         self.kept = self.history.clone(); // shares the messages: constant cost
    ///         self.history.push(Message::user(prompt));
    ///         turn.sleep(std::time::Duration::MAX)?; // an interrupt ends the turn here, with an unanswered question
    ///         Ok(turn.finish("done"))
    ///     }
    ///
    ///     fn cancel(&mut self) {
    ///         self.history = self.kept.clone();
    ///     }
    /// #   fn session_clone(&self) -> Session {
    /// #       self.history.clone()
    /// #   }
    /// }
    ///
    /// # let service = EphemeralSessionService::new(builder_fn(|spec, _| {
    /// #     let history = spec.history();
    /// #     Ok(Tidy { kept: history.clone(), history })
    /// # }), 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// let id = turn.session_id();
    /// turn.interrupt();
    /// assert!(turn.wait().is_err());
    /// assert!(service.export_session(id)?.messages().is_empty());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    fn cancel(&mut self) {}

    /// Returns the injector that [`SessionService::event_injector`](crate::SessionService::event_injector) hands out;
    /// `None` selects the injector of the session's own inbox. An agent with its own injector must send every
    /// subscription exactly one terminal event.
    ///
    /// Called after the build, and again when host mode begins.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use turnwise::{EventInjector, EventSource, InjectError, InteractionSubscription, SubscribableInjector};
    /// # use turnwise::{builder_fn, AgentError, EphemeralSessionService, RunResult, Session, SessionAgent};
    /// # use turnwise::{SessionService, SessionSpec, StartTurnRequest, TurnContext};
    ///
    /// /// The session's own injector, but it trims the messages.
    /// struct Trimming(Arc<dyn SubscribableInjector>);
    ///
    /// impl EventInjector for Trimming {
    ///     fn inject(&self, body: String, source: EventSource) -> Result<(), InjectError> {
    ///         self.0.inject(body.trim().to_owned(), source)
    ///     }
    ///
    ///     fn dismiss(&self, source: EventSource) -> Result<(), InjectError> {
    ///         self.0.dismiss(source)
    ///     }
    /// }
    ///
    /// impl SubscribableInjector for Trimming {
    ///     fn inject_with_subscription(
    ///         &self,
    ///         body: String,
    ///         source: EventSource,
    ///     ) -> Result<InteractionSubscription, InjectError> {
    ///         self.0.inject_with_subscription(body.trim().to_owned(), source)
    ///     }
    /// }
    ///
    /// # struct Tidy { injector: Arc<Trimming>, history: Session }
    /// impl SessionAgent for Tidy {
    ///     fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
    ///         Some(self.injector.clone()) // made from `SessionContext::injector` during the build
    ///     }
    ///     // ...
    /// #   fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    /// #       Ok(turn.finish(turn.drain_inbox()[0].text()))
    /// #   }
    /// #   fn session_clone(&self) -> Session {
    /// #       self.history.clone()
    /// #   }
    /// }
    /// # let service = EphemeralSessionService::new(builder_fn(|spec, session| {
    /// #     let injector = Arc::new(Trimming(session.injector()));
    /// #     Ok(Tidy { injector, history: spec.history() })
    /// # }), 1);
    /// # let id = service.open_session(SessionSpec::new())?;
    /// # service.event_injector(id).unwrap().inject(" hello ".into(), EventSource::Stdin)?;
    /// # assert_eq!(service.start_turn(id, StartTurnRequest::new(""))?.text, "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        None
    }

    /// Returns the session's connection to its peers, if it has one. Host mode runs the messages that arrive there.
    /// Called together with [`event_injector`](Self::event_injector).
    ///
    /// ```
    /// use std::sync::Arc;
    /// use turnwise::{AgentError, CommsRuntime, InteractionContent, LocalComms, LocalPeer, RunResult, Session};
    /// use turnwise::{SessionAgent, TurnContext};
    ///
    /// struct Member { peer: LocalPeer, history: Session }
    ///
    /// impl SessionAgent for Member {
    ///     fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
    ///         Some(self.peer.runtime())
    ///     }
    ///
    ///     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
    ///         for peer in self.peer.peers() {
    ///             let told = InteractionContent::message(prompt.as_str());
    ///             self.peer.send(&peer, told).map_err(AgentError::other)?;
    ///         }
    ///         Ok(turn.finish(prompt))
    ///     }
    /// #   fn session_clone(&self) -> Session {
    /// #       self.history.clone()
    /// #   }
    /// }
    /// # use turnwise::{builder_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let comms = LocalComms::new();
    /// let host = comms.join("host")?;
    /// let service = EphemeralSessionService::new(builder_fn(move |spec, _| {
    ///     let peer = comms.join("member").map_err(AgentError::other)?; // leaves with the agent
    ///     Ok(Member { peer, history: spec.history() })
    /// }), 1);
    /// service.create_session(CreateSessionRequest::new("hello"))?;
    /// assert_eq!(host.inbox().expect("a local peer has one").recv()?.text(), "hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        None
    }
}

/// A boxed agent is an agent, so one builder may build several kinds.
impl<A: SessionAgent + ?Sized> SessionAgent for Box<A> {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        (**self).run_turn(prompt, turn)
    }

    fn run_interaction(&mut self, interaction: InboxInteraction, turn: &TurnContext) -> Result<RunResult, AgentError> {
        (**self).run_interaction(interaction, turn)
    }

    fn session_clone(&self) -> Session {
        (**self).session_clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        (**self).snapshot()
    }

    fn set_skill_references(&mut self, skills: Option<Vec<SkillId>>) {
        (**self).set_skill_references(skills);
    }

    fn cancel(&mut self) {
        (**self).cancel();
    }

    fn event_injector(&self) -> Option<Arc<dyn SubscribableInjector>> {
        (**self).event_injector()
    }

    fn comms_runtime(&self) -> Option<Arc<dyn CommsRuntime>> {
        (**self).comms_runtime()
    }
}

/// The session's context, passed to the build of its agent. An agent may keep a clone, and share it with its own
/// threads.
///
/// ```
/// use turnwise::{agent_fn, builder_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService};
/// use turnwise::{SessionAgentBuilder, SessionService};
///
/// let builder = builder_fn(|spec, session| {
///     session.check()?; // a long build checks for cancellation from time to time
///     session.events().emit(AgentEvent::Custom { name: "loaded".into(), payload: String::new() })?;
///     agent_fn(|prompt, turn| Ok(turn.finish(prompt))).build_agent(spec, session)
/// });
/// let service = EphemeralSessionService::new(builder, 8);
/// let events: Vec<_> = service.stream_session(CreateSessionRequest::new("hello"))?.collect();
/// assert!(matches!(&events[1], AgentEvent::Custom { name, .. } if name == "loaded")); // after RunStarted
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SessionContext {
    events: EventSender,
    service: WeakService,
    cancel: CancelToken,
}

impl SessionContext {
    pub(crate) fn new(events: EventSender, service: WeakService, cancel: CancelToken) -> Self {
        Self { events, service, cancel }
    }

    /// The session's id.
    pub fn session_id(&self) -> SessionId {
        self.events.shared().session_id()
    }

    /// The sender of events that belong to no turn.
    pub fn events(&self) -> &EventSender {
        &self.events
    }

    /// The injector of the session's own inbox. Timers and other threads of the agent use it to wake the session in
    /// host mode.
    ///
    /// ```
    /// use turnwise::{agent_fn, builder_fn, CreateSessionRequest, EphemeralSessionService, EventSource};
    /// use turnwise::{SessionAgentBuilder, SessionService};
    ///
    /// let builder = builder_fn(|spec, session| {
    ///     let injector = session.injector();
    ///     std::thread::spawn(move || {
    ///         let folder = EventSource::Other("folder".into()); // the thread watches it, say
    ///         injector.inject("a file has come".into(), folder.clone())?;
    ///         injector.dismiss(folder)
    ///     });
    ///     agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))).build_agent(spec, session)
    /// });
    /// let service = EphemeralSessionService::new(builder, 1);
    /// let result = service.create_session(CreateSessionRequest::new("watch").host_mode(true))?;
    /// assert_eq!(result.text, "A FILE HAS COME");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn injector(&self) -> Arc<dyn SubscribableInjector> {
        Arc::clone(&self.events.shared().inbox) as Arc<dyn SubscribableInjector>
    }

    /// The service that hosts the session, for agents that use other sessions. Waits through it belong to the session's
    /// turn on the session thread only; [`TurnContext::service`] is for all threads of a turn.
    ///
    /// ```
    /// use turnwise::{agent_fn, builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService};
    /// use turnwise::{SessionAgentBuilder, SessionService};
    ///
    /// // Reverses a text: a sub-agent reverses all but the first letter.
    /// let builder = builder_fn(|spec, session| {
    ///     let service = session.service();
    ///     let agent = agent_fn(move |prompt, turn| {
    ///         let Some(first) = prompt.chars().next() else { return Ok(turn.finish("")) };
    ///         let service = service.upgrade().ok_or_else(|| AgentError::Internal("the service is gone".into()))?;
    ///         let rest = service.create_session(CreateSessionRequest::new(&prompt[first.len_utf8()..]))?;
    ///         service.archive(rest.session_id)?;
    ///         Ok(turn.finish(format!("{}{first}", rest.text)))
    ///     });
    ///     agent.build_agent(spec, session)
    /// });
    /// let service = EphemeralSessionService::new(builder, 8);
    /// assert_eq!(service.create_session(CreateSessionRequest::new("live"))?.text, "evil");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn service(&self) -> WeakService {
        self.service.clone()
    }

    /// The token that cancels the build. It is the token of the first turn; of a session that is opened without a
    /// turn or restarted, a token that only an archive or a shutdown cancels. Nothing cancels it after the first turn, or after the
    /// build.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// Checks whether the build should go on: a cancellation point.
    ///
    /// # Errors
    /// [`Cancelled`] once the [token](Self::cancel_token) is cancelled.
    pub fn check(&self) -> Result<(), Cancelled> {
        self.cancel.check()
    }

    /// Sleeps on the service's clock, in a build that waits for something.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, builder_fn, CreateSessionRequest, EphemeralSessionService};
    /// use turnwise::{SessionAgentBuilder, SessionService};
    ///
    /// let builder = builder_fn(|spec, session| {
    ///     session.sleep(Duration::MAX)?; // a build that waits for something
    ///     agent_fn(|prompt, turn| Ok(turn.finish(prompt))).build_agent(spec, session)
    /// });
    /// let service = EphemeralSessionService::new(builder, 1);
    /// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
    /// turn.interrupt();
    /// assert!(turn.wait().unwrap_err().cancel_reason().is_some());
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    ///
    /// # Errors
    /// [`Cancelled`] as soon as the [token](Self::cancel_token) is cancelled.
    ///
    /// # Blocking
    /// For `duration`, or until the cancel. A duration beyond the range of the clock waits for the cancel alone.
    pub fn sleep(&self, duration: Duration) -> Result<(), Cancelled> {
        self.events.shared().sleep(duration, &self.cancel)
    }
}

/// Makes a builder of small agents from a closure that runs a turn.
///
/// The agents keep the history themselves: the system prompt and the resumed messages, then the prompt and answer of
/// every successful turn. A failed turn leaves no trace in the history, so it can be retried.
///
/// ```
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let service = EphemeralSessionService::new(agent_fn(|prompt, turn| Ok(turn.finish(prompt.to_uppercase()))), 8);
/// let result = service.create_session(CreateSessionRequest::new("hello"))?;
/// assert_eq!(result.text, "HELLO");
/// assert_eq!(service.export_session(result.session_id)?.messages().len(), 2);
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub fn agent_fn<F>(run_turn: F) -> AgentFn<F>
where
    F: Fn(String, &TurnContext) -> Result<RunResult, AgentError> + Send + Sync + 'static,
{
    AgentFn { run_turn: Arc::new(run_turn) }
}

/// The builder that [`agent_fn`] makes.
///
/// ```
/// use turnwise::{agent_fn, AgentError, AgentFn, CreateSessionRequest, EphemeralSessionService};
/// use turnwise::{RunResult, SessionService, TurnContext};
///
/// type Run = fn(String, &TurnContext) -> Result<RunResult, AgentError>;
///
/// /// A closure's type has no name. A function pointer's has: use it for a field.
/// struct Host { service: EphemeralSessionService<AgentFn<Run>> }
///
/// let echo: Run = |prompt, turn| Ok(turn.finish(prompt));
/// let host = Host { service: EphemeralSessionService::new(agent_fn(echo), 8) };
/// assert_eq!(host.service.create_session(CreateSessionRequest::new("hello"))?.text, "hello");
/// # Ok::<(), turnwise::SessionError>(())
/// ```
pub struct AgentFn<F> {
    run_turn: Arc<F>,
}

impl<F> SessionAgentBuilder for AgentFn<F>
where
    F: Fn(String, &TurnContext) -> Result<RunResult, AgentError> + Send + Sync + 'static,
{
    type Agent = FnAgent<F>;

    fn build_agent(&self, spec: &SessionSpec, session: &SessionContext) -> Result<FnAgent<F>, AgentError> {
        // Not `spec.history()`: a builder that wraps this one may pass a specification without an id.
        let resumed = spec.resume.clone();
        let mut history = resumed.unwrap_or_else(|| Session::with_id(session.session_id()));
        if let Some(prompt) = &spec.system_prompt {
            history.set_system_prompt(prompt.as_str());
        }
        Ok(FnAgent { run_turn: Arc::clone(&self.run_turn), history })
    }
}

impl<F> fmt::Debug for AgentFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentFn").finish_non_exhaustive()
    }
}

/// The agent that [`agent_fn`]'s builder builds.
///
/// ```
/// use turnwise::{agent_fn, builder_fn, AgentError, EphemeralSessionService, FnAgent, RunResult};
/// use turnwise::{SessionAgentBuilder, SessionService, SessionSpec, TurnContext};
///
/// type Run = fn(String, &TurnContext) -> Result<RunResult, AgentError>;
///
/// // Builds small agents, and requires a model.
/// let builder = builder_fn(|spec, session| -> Result<FnAgent<Run>, AgentError> {
///     if spec.model.is_empty() {
///         return Err(AgentError::Config("no model is set".into()));
///     }
///     let echo: Run = |prompt, turn| Ok(turn.finish(prompt));
///     agent_fn(echo).build_agent(spec, session)
/// });
/// let service = EphemeralSessionService::new(builder, 8);
/// assert!(service.open_session(SessionSpec::new()).is_err());
/// assert!(service.open_session(SessionSpec::new().model("small")).is_ok());
/// ```
pub struct FnAgent<F> {
    run_turn: Arc<F>,
    history: Session,
}

impl<F> SessionAgent for FnAgent<F>
where
    F: Fn(String, &TurnContext) -> Result<RunResult, AgentError> + Send + Sync + 'static,
{
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let result = turn.mark_if_cancelled((self.run_turn)(prompt.clone(), turn)?);
        let blocks = vec![AssistantBlock::Text { text: result.text.clone() }];
        let answer = Message::Assistant { blocks, stop_reason: result.stop_reason };
        self.history.push_batch([Message::user(prompt), answer]);
        self.history.record_usage(result.usage);
        Ok(result)
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }
}

impl<F> fmt::Debug for FnAgent<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnAgent").field("history", &self.history).finish_non_exhaustive()
    }
}
