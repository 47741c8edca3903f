//! # Hosting agents that are not `Send`
//!
//! All threads share the builder, so it is `Send + Sync`. The agent that it builds never leaves its session thread. So
//! the agent may hold an `Rc`, an interpreter, a window, or a C library's handle that belongs to one thread. Create
//! these values in [`build_agent`](crate::SessionAgentBuilder::build_agent), not before.
//!
//! ```
//! use std::cell::RefCell;
//! use std::collections::HashMap;
//! use std::rc::Rc;
//! use turnwise::{builder_fn, AgentError, CreateSessionRequest, EphemeralSessionService};
//! use turnwise::{RunResult, Session, SessionAgent, SessionService, StartTurnRequest, TurnContext};
//!
//! /// An interpreter of assignments. It holds the variables in an `Rc`, so it is not `Send`.
//! struct Interpreter {
//!     variables: Rc<RefCell<HashMap<String, String>>>,
//!     history: Session,
//! }
//!
//! impl SessionAgent for Interpreter {
//!     fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
//!         if let Some((name, value)) = prompt.split_once('=') {
//!             self.variables.borrow_mut().insert(name.to_owned(), value.to_owned());
//!             return Ok(turn.finish("done"));
//!         }
//!         let value = self.variables.borrow().get(&prompt).cloned();
//!         Ok(turn.finish(value.ok_or_else(|| AgentError::Config(format!("no variable '{prompt}'")))?))
//!     }
//!
//!     fn session_clone(&self) -> Session {
//!         self.history.clone()
//!     }
//! }
//!
//! let service = EphemeralSessionService::new(
//!     builder_fn(|spec, _| {
//!         let history = spec.history();
//!         Ok(Interpreter { variables: Rc::default(), history })
//!     }),
//!     4,
//! );
//! let id = service.create_session(CreateSessionRequest::new("x=42"))?.session_id;
//! assert_eq!(service.start_turn(id, StartTurnRequest::new("x"))?.text, "42");
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! Agents of several kinds in one service are `Box<dyn SessionAgent>`, which is an agent too. Builders of several
//! kinds are `Arc<dyn SessionAgentBuilder<Agent = Box<dyn SessionAgent>>>`.
//!
//! Some libraries need a set-up on every thread that uses them (`CoInitialize`, an OpenGL context, a thread-local
//! interpreter). Set them up in `build_agent` and tear them down in the agent's `Drop`: both run on the session
//! thread. If such a library leaves thread-local values behind,
//! [`idle_threads(0)`](crate::ServiceConfig::idle_threads) gives every session a new thread.
//!
//! An agent cannot run on *the main thread*, as some windowing systems require. Let the agent [ask the
//! host](super::asking): the main thread does the work, and responds. If the answer is more than a text, let the agent
//! send a request over a channel of the program, and wait with [`recv`](crate::TurnContext::recv).
