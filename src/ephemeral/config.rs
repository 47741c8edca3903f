//! How a service is set up.

use crate::agent::SessionAgentBuilder;
use crate::error::ConfigError;
#[cfg(feature = "testkit")]
use crate::ids::{seeded::SeededIds, Ids};
use crate::panics::contain_and_log;
#[cfg(feature = "testkit")]
use crate::time::{clock::Clock, manual::ManualClock};

use super::service::EphemeralSessionService;
use super::settings::{Settings, MIN_STACK};

/// The settings of an [`EphemeralSessionService`]; made by [`EphemeralSessionService::configure`].
///
/// ```
/// use turnwise::{agent_fn, EphemeralSessionService};
///
/// let service = EphemeralSessionService::configure(agent_fn(|prompt, turn| Ok(turn.finish(prompt))))
///     .max_sessions(1_000)
///     .max_running_turns(8)
///     .stack_size(256 << 10)
///     .build()?;
/// # drop(service);
/// # Ok::<(), turnwise::ConfigError>(())
/// ```
#[must_use]
#[derive(Clone, Debug)]
pub struct ServiceConfig<B> {
    builder: B,
    pub(crate) settings: Settings,
}

impl<B: SessionAgentBuilder> EphemeralSessionService<B> {
    /// Sets a service up with other settings than the defaults.
    pub fn configure(builder: B) -> ServiceConfig<B> {
        ServiceConfig::new(builder)
    }
}

impl<B: SessionAgentBuilder> ServiceConfig<B> {
    pub(crate) fn new(builder: B) -> Self {
        Self { builder, settings: Settings::default() }
    }

    /// How many sessions there may be at a time, each of them a thread; archived ones count until they have ended.
    /// 0 admits nobody. Default: 64.
    ///
    /// The system has limits too. A session that it has no thread for is [`SessionError::Spawn`](crate::SessionError::Spawn);
    /// nothing is left of it, and the others go on. On Linux, whose defaults have room for some 15,800 sessions, these are, in
    /// the order in which they are met:
    ///
    /// | Limit | Default | Sessions | To raise it |
    /// |---|---|---|---|
    /// | memory maps of a process | 65,530 | 4 maps each, and one in 32 is left alone | `sysctl vm.max_map_count` |
    /// | thread ids | 32,768, or 4,194,304 with systemd | 1 each | `sysctl kernel.pid_max` |
    /// | threads of the system | by memory | 1 each | `sysctl kernel.threads-max` |
    /// | threads of a user, or of a container | varies | 1 each | `ulimit -u`; `pids.max` of the control group |
    /// | address space | none | [`stack_size`](Self::stack_size) each | `ulimit -v`, or a smaller stack |
    ///
    /// An idle session takes 40 KiB of memory, the kernel's included (`benches/w08_memory.rs`), and what its agent takes.
    ///
    /// ```
    /// use turnwise::{agent_fn, EphemeralSessionService, SessionError, SessionService, SessionSpec};
    ///
    /// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// let service = EphemeralSessionService::configure(agent).max_sessions(1).build()?;
    /// service.open_session(SessionSpec::new())?;
    /// let error = service.open_session(SessionSpec::new()).unwrap_err();
    /// assert!(matches!(error, SessionError::CapacityExceeded { active: 1, max: 1 }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_sessions(mut self, max_sessions: usize) -> Self {
        self.settings.max_sessions = max_sessions;
        self
    }

    /// How many turns may run at a time. Others that are admitted wait, first come first served, and can be interrupted
    /// meanwhile. Default: no limit but the number of sessions.
    ///
    /// A turn that waits for another session, or for room in its event channel, does not count meanwhile, and waits for its
    /// turn again afterwards. Where that wait is cut short, by its timeout or by an interrupt, the turn goes on at once, one
    /// above the limit if need be: it may be the very one that has to stop the others.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let at_work = AtomicUsize::new(0);
    /// let agent = agent_fn(move |_, turn| {
    ///     let others = at_work.fetch_add(1, Ordering::SeqCst);
    ///     std::thread::yield_now();
    ///     at_work.fetch_sub(1, Ordering::SeqCst);
    ///     Ok(turn.finish(others.to_string()))
    /// });
    /// let service = EphemeralSessionService::configure(agent).max_running_turns(1).build()?;
    /// let one = service.begin_session(CreateSessionRequest::new("one"))?;
    /// let two = service.begin_session(CreateSessionRequest::new("two"))?; // admitted, but not at work beside one
    /// assert_eq!((one.wait()?.text.as_str(), two.wait()?.text.as_str()), ("0", "0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_running_turns(mut self, max_running_turns: usize) -> Self {
        self.settings.max_running_turns = Some(max_running_turns);
        self
    }

    /// The stack of each session's thread, in bytes; only what is used of it takes memory. Default: that of
    /// `std::thread`, 2 MiB unless `RUST_MIN_STACK` says otherwise. The library itself takes up to 48 KiB of it, and 96 where
    /// sessions are kept (see `PersistentSessionService`); an agent that needs more than there is ends the program, as stack overflows
    /// do.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// What the threads' names begin with; the end of the id of their (first) session follows. Linux shows the first 15
    /// bytes of a name. Default: `turnwise`.
    ///
    /// ```
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let agent = agent_fn(|_, turn| Ok(turn.finish(std::thread::current().name().unwrap_or_default())));
    /// let service = EphemeralSessionService::configure(agent).thread_name_prefix("chat").build()?;
    /// assert!(service.create_session(CreateSessionRequest::new("who are you?"))?.text.starts_with("chat"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn thread_name_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.thread_name_prefix = prefix.into();
        self
    }

    /// How many threads whose sessions have ended may wait for another session, each for up to 10 seconds; 0 for a new thread
    /// for every session. Default: 4.
    ///
    /// A session that gets one of them takes a third of the time to create, run once and archive
    /// (`benches/w03_create_archive.rs`), and has the thread to itself all the same. What belongs to the thread and not to the session stays: its name, whatever an agent has changed of
    /// it (a priority, a signal mask, a locale), and its thread-local values. Those that an agent has left behind are there
    /// for the next agent on that thread, and are dropped with the thread: when it has waited in vain, or when the service is shut
    /// down or its last handle dropped (so a handle that an agent has left in one of them keeps the service for that long).
    /// Where sessions must not see that of each other, or a session's end has to take its thread-local values along, say 0.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// thread_local!(static TURNS: Cell<u32> = Cell::new(0));
    /// let agent = agent_fn(|_, turn| {
    ///     TURNS.with(|turns| turns.set(turns.get() + 1));
    ///     Ok(turn.finish(TURNS.with(Cell::get).to_string()))
    /// });
    /// let service = EphemeralSessionService::configure(agent).idle_threads(0).build()?;
    /// for _ in 0..2 {
    ///     let result = service.create_session(CreateSessionRequest::new("count"))?;
    ///     assert_eq!(result.text, "1"); // a thread that nobody has had before
    ///     service.archive_wait(result.session_id, Duration::from_secs(60))?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn idle_threads(mut self, idle_threads: usize) -> Self {
        self.settings.idle_threads = idle_threads;
        self
    }

    /// How many messages the inbox of each session has room for; more are refused as
    /// [`InjectError::Full`](crate::InjectError::Full). 0 refuses all. It takes memory only for what is in it. Default: 256.
    pub fn inbox_capacity(mut self, messages: usize) -> Self {
        self.settings.inbox_capacity = messages;
        self
    }

    /// How many of its last events each session keeps, for subscribers that come late or come back
    /// ([`Subscription::from_seq`](crate::Subscription::from_seq)). Every event is copied then, whether anybody listens or
    /// not. Default: 0, none.
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService};
    /// use turnwise::{SessionService, Subscription};
    ///
    /// let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
    /// let service = EphemeralSessionService::configure(agent).event_history(16).build()?;
    /// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
    /// let mut late = service.subscribe(id, Subscription::new().from_seq(0))?;
    /// assert!(matches!(late.next().unwrap().event, AgentEvent::RunStarted { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn event_history(mut self, events: usize) -> Self {
        self.settings.event_history = events;
        self
    }

    /// Has every duration that the service is given measured on this clock, which a test moves by hand. Only with the feature
    /// `testkit`. Default: the clock of the system.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::testkit::{scripted, ManualClock, Script};
    /// use turnwise::{CreateSessionRequest, EphemeralSessionService, SessionService};
    ///
    /// let clock = ManualClock::new();
    /// let agent = scripted().on("think", Script::new().until_cancelled());
    /// let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build()?;
    /// let turn = service.begin_session(CreateSessionRequest::new("think").timeout(Duration::from_secs(3_600)))?;
    /// clock.advance(Duration::from_secs(3_600)); // takes no time
    /// assert!(turn.wait().unwrap_err().cancel_reason().is_some());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "testkit")]
    pub fn clock(mut self, clock: ManualClock) -> Self {
        self.settings.clock = Clock::Manual(clock);
        self
    }

    /// Has the ids of sessions, and those of the interactions that injectors put into their inboxes, come from here: the same
    /// seed, the same ids. Sessions that bring an id keep it. Only with the feature `testkit`. Default: ids that nobody has had before.
    ///
    /// ```
    /// use turnwise::testkit::{scripted, SeededIds};
    /// use turnwise::{EphemeralSessionService, SessionService, SessionSpec};
    ///
    /// let service = EphemeralSessionService::configure(scripted()).ids(SeededIds::new(7)).build()?;
    /// assert_eq!(service.open_session(SessionSpec::new())?, SeededIds::new(7).next_session_id());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "testkit")]
    pub fn ids(mut self, ids: SeededIds) -> Self {
        self.settings.ids = Ids::Seeded(ids);
        self
    }

    /// Makes the service. Starts no thread.
    ///
    /// # Errors
    /// [`ConfigError`] where a figure cannot work: `max_sessions` or `idle_threads` above 4,194,304, `max_running_turns` of
    /// 0 or above that, a `stack_size` outside of 64 KiB to 1 GiB, an `inbox_capacity` or `event_history` above 16,777,216,
    /// a `thread_name_prefix` with a NUL character in it.
    pub fn build(self) -> Result<EphemeralSessionService<B>, ConfigError> {
        let (builder, settings) = self.check(MIN_STACK)?;
        Ok(EphemeralSessionService::with_settings(builder, settings))
    }

    /// What it is made of, once it is known that the figures can work.
    pub(crate) fn check(self, min_stack: usize) -> Result<(B, Settings), ConfigError> {
        let Self { builder, settings } = self;
        match settings.check(min_stack) {
            Ok(()) => Ok((builder, settings)),
            Err(error) => {
                contain_and_log("the drop of a builder", move || drop(builder));
                Err(error)
            }
        }
    }
}
