//! # Testing your agent
//!
//! [`run_turn`](crate::SessionAgent::run_turn) needs a [`TurnContext`](crate::TurnContext), and only a service makes
//! one. So test the agent in a service. A service is cheap to make, and the test runs the code that the program runs.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::{agent_fn, AgentEvent, CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
//!
//! // The agent under test: emits each word, and sleeps after it.
//! let agent = || agent_fn(|prompt, turn| {
//!     for word in prompt.split(' ') {
//!         turn.emit(AgentEvent::TextDelta { delta: word.to_owned() })?;
//!         turn.sleep(Duration::from_millis(1))?;
//!     }
//!     Ok(turn.finish(prompt))
//! });
//!
//! // The answer, and the events before it.
//! let service = EphemeralSessionService::new(agent(), 1);
//! let mut words = Vec::new();
//! let answer = service.create_session_with(CreateSessionRequest::new("one two"), &mut |event| {
//!     if let AgentEvent::TextDelta { delta } = event {
//!         words.push(delta);
//!     }
//! })?;
//! assert_eq!(answer.text, "one two");
//! assert_eq!(words, ["one", "two"]);
//!
//! // The history that the turn leaves.
//! let history = service.take_session(answer.session_id, Duration::from_secs(5))?;
//! assert_eq!(history.messages().len(), 2);
//!
//! // An interrupt stops the turn at any point.
//! let turn = service.begin_session(CreateSessionRequest::new("word ".repeat(1_000_000)))?;
//! turn.interrupt();
//! let error = turn.wait().unwrap_err();
//! assert_eq!(error.cancel_reason(), Some(CancelReason::Interrupted));
//! # Ok::<(), turnwise::SessionError>(())
//! ```
//!
//! Test these cases with every agent: an interrupt during a turn, and a turn after it; a resumed history; two sessions
//! at once; an error of a dependency; an empty prompt, and a huge one.
//!
//! For the program around the agents, use the feature `testkit`: gates that hold a turn at a chosen point, a clock
//! that the test advances, seeded ids, event recorders. With these tools no test needs a sleep. See
//! `turnwise::testkit`.
//!
//! # Finding a race in an agent
//!
//! A test on real threads meets the schedules that the system happens to choose. `testkit::explore` runs a scenario in
//! as many as it is told, if the build has `--cfg turnwise_shuttle`. This agent parks in a channel of its own, and a hook
//! wakes it when its turn is cancelled:
//!
//! ```no_run
//! # #[cfg(feature = "testkit")] {
//! use std::sync::Arc;
//! use turnwise::crossbeam_channel::bounded;
//! use turnwise::testkit::{explore, sync::{AtomicBool, Ordering}};
//! use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
//!
//! explore(2_000, 1, || {
//!     let agent = agent_fn(|prompt, turn| {
//!         let waits = Arc::new(AtomicBool::new(false));
//!         let (stop, stopped) = bounded(1);
//!         let (seen, _open) = (Arc::clone(&waits), stop.clone());
//!         let _hook = turn.cancel_token().on_cancel(move || {
//!             if seen.load(Ordering::SeqCst) {
//!                 let _ = stop.try_send(());
//!             }
//!         });
//!         if !turn.is_cancelled() {
//!             waits.store(true, Ordering::SeqCst);
//!             let _ = stopped.recv();
//!         }
//!         turn.check()?;
//!         Ok(turn.finish(prompt))
//!     });
//!     let service = EphemeralSessionService::new(agent, 1);
//!     let turn = service.begin_session(CreateSessionRequest::new("park")).unwrap();
//!     turn.interrupt();
//!     assert!(turn.wait().is_err());
//! });
//! # }
//! ```
//!
//! An interrupt between `is_cancelled` and `store` is missed: the hook finds that the agent does not wait, and the agent
//! then waits for ever. On real threads, 20,000 runs did not meet this schedule. The model checker reports a deadlock within a second, and
//! prints the schedule. To mend the agent, set `waits` before the check.
