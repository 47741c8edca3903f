//! The test kit for hosts: tests without sleeps and without chance. With the feature `testkit`:
//!
//! ```toml
//! [dev-dependencies]
//! turnwise = { version = "0.1", features = ["testkit"] }
//! ```
//!
//! A test that sleeps is slow where the sleep is long, and flaky where it is short. Instead it must *know* where a
//! turn is, what time it is, and what has happened. The kit has one tool for each.
//!
//! | To control or know | Use |
//! |---|---|
//! | what the agent does | [`scripted`] agents, with a [`Script`] for each prompt |
//! | where a turn is | a [`Gate`]: turns wait at it, the test waits until one has arrived |
//! | what time it is | a [`ManualClock`]: it advances only when the test advances it |
//! | which ids there are | [`SeededIds`]: the same ids in every run |
//! | what has happened | a [`Recorder`] of events, with assertions that show both sequences |
//! | which turns are queued | a [`TurnRecorder`] of handles, with the state of each turn |
//! | what another schedule of the threads would do | [`explore`], with the model checker where the build asks for it |
//! | that the test ends | [`within`], and [`assert_no_leaked_sessions`] |
//!
//! The kit's assertions panic with readable messages; its own waits panic after [`PATIENCE`]. The code under test
//! follows its usual rules: [`scripted`] agents are ordinary agents, so they work in a service beside a program's own.
//! A program's own agents can wait at gates and use a manual clock.
//!
//! # First example: a turn that is interrupted
//!
//! The gate holds the turn at a chosen step. [`Gate::wait_arrived`] returns when the turn is there. So the interrupt
//! finds a running turn: it has begun and has not ended. An interrupted turn leaves the gate by itself.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::testkit::{assert_no_leaked_sessions, scripted, within, Gate, Recorder, Script};
//! use turnwise::{CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest};
//!
//! within(Duration::from_secs(60), || {
//!     let gate = Gate::new();
//!     let agent = scripted().on("think", Script::new().say("hm, ").wait_at(&gate).say("aha"));
//!     let service = EphemeralSessionService::new(agent, 1);
//!
//!     let (event_tx, mut events) = Recorder::of_turn();
//!     let turn = service.begin_session(CreateSessionRequest::new("think").event_tx(event_tx)).unwrap();
//!     let id = turn.session_id();
//!     gate.wait_arrived(1);
//!     turn.interrupt();
//!
//!     let error = turn.wait().unwrap_err();
//!     assert_eq!(error.cancel_reason(), Some(CancelReason::Interrupted));
//!     events.assert_events(&["RunStarted(think)", "TextDelta(hm, )", "RunFailed"]);
//!
//!     // The session is usable again.
//!     gate.open();
//!     assert_eq!(service.start_turn(id, StartTurnRequest::new("think")).unwrap().text, "hm, aha");
//!     service.archive(id).unwrap();
//!     assert_no_leaked_sessions(&service);
//! });
//! ```
//!
//! # Second example: a turn that takes too long
//!
//! A service measures every duration on its clock. On a [`ManualClock`] an hour takes no real time, and a nanosecond
//! less than an hour is exactly that.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::testkit::{scripted, within, ManualClock, Script};
//! use turnwise::{CancelReason, CreateSessionRequest, EphemeralSessionService, SessionService};
//!
//! const MINUTE: Duration = Duration::from_secs(60);
//!
//! within(MINUTE, || {
//!     let clock = ManualClock::new();
//!     let agent = scripted()
//!         .on("wait for ever", Script::new().until_cancelled())
//!         .on("take 50 minutes", Script::new().sleep(50 * MINUTE).reply("done"));
//!     let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build().unwrap();
//!
//!     // A timeout counts from the admission, so its deadline is set by now.
//!     let turn = service.begin_session(CreateSessionRequest::new("wait for ever").timeout(60 * MINUTE)).unwrap();
//!     clock.advance(60 * MINUTE - Duration::from_nanos(1));
//!     clock.settle(); // everything due has run
//!     assert!(!turn.is_finished());
//!     clock.advance(Duration::from_nanos(1));
//!     let error = turn.wait().unwrap_err();
//!     assert_eq!(error.cancel_reason(), Some(CancelReason::DeadlineExceeded));
//!
//!     // A sleep counts from the moment when the agent begins it: the test must wait for that.
//!     let turn = service.begin_session(CreateSessionRequest::new("take 50 minutes").timeout(60 * MINUTE)).unwrap();
//!     clock.wait_for_waiters(1);
//!     clock.advance(50 * MINUTE);
//!     assert_eq!(turn.wait().unwrap().text, "done");
//! });
//! ```
//!
//! # Third example: output that is the same in every run
//!
//! A session in host mode runs the messages in its inbox; a subscriber sees all events, numbered. With [`SeededIds`]
//! the transcript can be compared with a stored one, byte for byte.
//!
//! ```
//! use std::time::Duration;
//! use turnwise::testkit::{scripted, within, Recorder, Script, SeededIds};
//! use turnwise::{CreateSessionRequest, EphemeralSessionService, EventSource, SessionService, Subscription};
//!
//! fn run_of_the_host() -> String {
//!     let agent = scripted().on("ping", Script::new().say("pong"));
//!     let service = EphemeralSessionService::configure(agent).ids(SeededIds::new(1)).build().unwrap();
//!     let mut record = Recorder::of_stream(service.subscribe_all(Subscription::new()));
//!
//!     let hosting = service.begin_session(CreateSessionRequest::new("hello").host_mode(true)).unwrap();
//!     let injector = service.event_injector(hosting.session_id()).unwrap();
//!     let ping = injector.inject_with_subscription("ping".into(), EventSource::Webhook).unwrap();
//!     Recorder::of_events(ping.events).assert_events(&["TextDelta(pong)", "InteractionComplete(pong)"]);
//!     injector.dismiss(EventSource::Webhook).unwrap();
//!     assert_eq!(hosting.wait().unwrap().text, "pong");
//!
//!     record.assert_next(&["RunStarted(hello)", "TextDelta(pong)", "InteractionComplete(pong)"]);
//!     record.wait_for("RunCompleted(pong)");
//!     record.assert_no_gaps();
//!     drop(service); // the stream ends with the last session
//!     record.transcript()
//! }
//!
//! within(Duration::from_secs(60), || {
//!     let transcript = run_of_the_host();
//!     assert_eq!(transcript.lines().next(), Some("018cc251-f400-78b4-bda8-c892b50e44e5 1 1 RunStarted(hello)"));
//!     assert_eq!(transcript, run_of_the_host());
//! });
//! ```

// Assertions panic by design. So do scripted agents with a panic step.
#![allow(clippy::panic)]

mod describe;
mod explore;
mod gate;
mod recorder;
mod script;
mod scripted;
mod turns;
mod watchdog;

use std::time::Duration;

/// The primitives of a scenario's own threads and state, for [`explore`]. In a build with `--cfg turnwise_shuttle` they
/// are those of the model checker, else those of std and parking_lot.
pub mod sync {
    pub use super::explore::{spawn, yield_now, AtomicBool, AtomicU64, AtomicUsize, JoinHandle, Mutex, Ordering};
}

pub use crate::ids::seeded::SeededIds;
pub use crate::time::manual::ManualClock;
pub use explore::explore;
pub use gate::Gate;
pub use recorder::Recorder;
pub use script::Script;
pub use scripted::{scripted, Scripted};
pub use turns::TurnRecorder;
pub use watchdog::{assert_no_leaked_sessions, assert_no_leaked_sessions_within, within};

/// The maximum duration of the kit's own waits, in real time: a minute. Nothing takes that long even on a loaded
/// machine, so a test that waits that long fails in any case; this way it fails with a reason.
pub const PATIENCE: Duration = crate::time::manual::PATIENCE;
