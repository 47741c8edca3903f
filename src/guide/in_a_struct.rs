//! # Keeping a service in a struct
//!
//! A service is generic over its builder, and a closure's type has no name. There are three ways to keep a service in a
//! struct. To share a service among threads, clone it: it is a handle, and needs no `Arc` and no lock.
//!
//! **As a trait object**, if the struct only makes the calls of a host. [`SessionService`](crate::SessionService) is
//! object-safe. [`ServiceControl`](crate::ServiceControl) adds statistics and shutdown.
//!
//! ```
//! use std::sync::Arc;
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, ServiceControl, SessionError, SessionId};
//!
//! struct App {
//!     sessions: Arc<dyn ServiceControl>,
//!     current: Option<SessionId>,
//! }
//!
//! impl App {
//!     fn new() -> Self {
//!         let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
//!         Self { sessions: Arc::new(EphemeralSessionService::new(agent, 8)), current: None }
//!     }
//!
//!     fn say(&mut self, text: &str) -> Result<String, SessionError> {
//!         let answer = self.sessions.create_session(CreateSessionRequest::new(text))?;
//!         self.current = Some(answer.session_id);
//!         Ok(answer.text)
//!     }
//! }
//!
//! assert_eq!(App::new().say("hello")?, "hello");
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! **With a builder type of your own**, if the builder has a configuration: the field is an
//! `EphemeralSessionService<MyBuilder>`. **With a boxed agent**, if the builder is a closure that must be named: an
//! `Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>` is a builder.
//!
//! ```
//! use std::sync::Arc;
//! use turnwise::{agent_fn, builder_fn, EphemeralSessionService, SessionAgent, SessionAgentBuilder};
//!
//! type AnyBuilder = Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>;
//!
//! struct App {
//!     sessions: EphemeralSessionService<AnyBuilder>,
//! }
//!
//! let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
//! let builder: AnyBuilder = Arc::new(builder_fn(move |spec, session| {
//!     Ok(Box::new(echo.build_agent(spec, session)?) as Box<dyn SessionAgent>)
//! }));
//! let app = App { sessions: EphemeralSessionService::new(builder, 8) };
//! # drop(app.sessions);
//! ```
//!
//! An agent that holds a handle of its own service keeps that service alive for ever. It should hold a
//! [`WeakService`](crate::WeakService) instead, which [`SessionContext::service`](crate::SessionContext::service)
//! returns.
