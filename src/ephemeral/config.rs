//! The configuration of a service.

use crate::agent::SessionAgentBuilder;
use crate::error::ConfigError;
#[cfg(feature = "testkit")]
use crate::ids::{seeded::SeededIds, Ids};
use crate::panics::contain_and_log;
use crate::service::RestartPolicy;
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
    /// Configures a service with other settings than the defaults.
    pub fn configure(builder: B) -> ServiceConfig<B> {
        ServiceConfig::new(builder)
    }
}

impl<B: SessionAgentBuilder> ServiceConfig<B> {
    pub(crate) fn new(builder: B) -> Self {
        Self { builder, settings: Settings::default() }
    }

    /// Sets how many sessions there may be at a time. Each is a thread; an archived session counts until it has ended.
    /// [Reservations](crate::Reservation) count too. 0 admits none. Default: 64.
    ///
    /// The system has limits too. A session without a thread is [`SessionError::Spawn`](crate::SessionError::Spawn);
    /// nothing is left of it, and the others continue. Linux has room for some 15,800 sessions by default. Its limits,
    /// in the order in which they are reached:
    ///
    /// | Limit | Default | Sessions | To raise it |
    /// |---|---|---|---|
    /// | memory maps of a process | 65,530 | 4 maps each; one in 32 is kept free | `sysctl vm.max_map_count` |
    /// | thread ids | 32,768, or 4,194,304 with systemd | 1 each | `sysctl kernel.pid_max` |
    /// | threads of the system | by memory | 1 each | `sysctl kernel.threads-max` |
    /// | threads of a user, or of a container | varies | 1 each | `ulimit -u`; `pids.max` of the control group |
    /// | address space | none | [`stack_size`](Self::stack_size) each | `ulimit -v`, or a smaller stack |
    ///
    /// An idle session takes 42 KiB of memory, the kernel's included (`benches/w08_memory.rs`), plus that of its agent.
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

    /// Sets how many turns may run at a time. Further admitted turns wait, first come first served, and can be
    /// interrupted meanwhile. Default: no limit but the number of sessions.
    ///
    /// A turn that waits for another session, for capacity, or for room in its event channel, does not count meanwhile.
    /// Afterwards it waits for a permit again. If its wait ends by a timeout or an interrupt, the turn continues at
    /// once, even above the limit: it may be the turn that has to stop the others.
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
    /// let two = service.begin_session(CreateSessionRequest::new("two"))?; // admitted, but does not run beside the first
    /// assert_eq!((one.wait()?.text.as_str(), two.wait()?.text.as_str()), ("0", "0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn max_running_turns(mut self, max_running_turns: usize) -> Self {
        self.settings.max_running_turns = Some(max_running_turns);
        self
    }

    /// Sets the stack size of each session thread, in bytes; only the used part takes memory. Default: that of
    /// `std::thread`, 2 MiB unless `RUST_MIN_STACK` says otherwise. The library itself takes up to 48 KiB of it, and 96
    /// KiB in a `PersistentSessionService`. An agent that needs more than the rest ends the program with a stack
    /// overflow.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.settings.stack_size = Some(bytes);
        self
    }

    /// Sets the prefix of the threads' names. The end of the id of the thread's first session follows. Linux shows the
    /// first 15 bytes of a name. Default: `turnwise`.
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

    /// Sets how many threads whose sessions have ended may wait for another session, each for up to 10 seconds. With 0
    /// every session gets a new thread. Default: 4.
    ///
    /// A session on such a thread takes less than half of the time to create, run once and archive
    /// (`benches/w03_create_archive.rs`), and has the thread to itself all the same. The state of the thread stays: its
    /// name, whatever an agent has changed of it (a priority, a signal mask, a locale), and its thread-local values.
    /// The next agent on that thread finds the values that an agent has left. They are dropped with the thread: after
    /// its wait, or when the service is shut down or its last handle dropped. So a handle of the service in a
    /// thread-local value keeps the service alive for that long. Use 0 if sessions must not see each other's thread
    /// state, or if the end of a session has to drop its thread-local values.
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
    ///     assert_eq!(result.text, "1"); // a new thread
    ///     service.archive_wait(result.session_id, Duration::from_secs(60))?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn idle_threads(mut self, idle_threads: usize) -> Self {
        self.settings.idle_threads = idle_threads;
        self
    }

    /// Sets how many messages fit into the inbox of each session. Further ones are refused with
    /// [`InjectError::Full`](crate::InjectError::Full). 0 refuses all. The inbox takes memory only for its messages.
    /// Default: 256.
    pub fn inbox_capacity(mut self, messages: usize) -> Self {
        self.settings.inbox_capacity = messages;
        self
    }

    /// Sets how many of its last events each session keeps, for subscribers that come late or reconnect
    /// ([`Subscription::from_seq`](crate::Subscription::from_seq)). Every event is then copied, with subscribers or
    /// without. Default: 0, none.
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

    /// Sets how many turns may wait in the queue of each session. A turn waits only if its request says so, with
    /// [`StartTurnRequest::when_busy`](crate::StartTurnRequest::when_busy). Beyond the limit a request is
    /// [`SessionError::QueueFull`](crate::SessionError::QueueFull) at once. Default: 16. With 0 no turn waits.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService, StartTurnRequest, WhenBusy};
    ///
    /// let agent = agent_fn(|prompt, turn| {
    ///     turn.sleep(Duration::MAX)?;
    ///     Ok(turn.finish(prompt))
    /// });
    /// let service = EphemeralSessionService::configure(agent).turn_queue(1).build()?;
    /// let id = service.begin_session(CreateSessionRequest::new("one"))?.session_id();
    /// let request = |prompt: &str| StartTurnRequest::new(prompt).when_busy(WhenBusy::Queue);
    /// let second = service.begin_turn(id, request("two"))?;
    /// assert_eq!(service.begin_turn(id, request("three")).unwrap_err().code(), "QUEUE_FULL");
    /// second.interrupt(); // withdraws it
    /// assert!(service.begin_turn(id, request("three")).is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn turn_queue(mut self, turns: usize) -> Self {
        self.settings.turn_queue = turns;
        self
    }

    /// Lets faulted sessions restart by themselves, within the limit of the policy. Default: they stay faulted until a
    /// caller [restarts](crate::SessionService::restart) them.
    ///
    /// The caller of the turn whose agent panicked gets [`SessionError::Faulted`](crate::SessionError::Faulted) all the
    /// same, and so do the callers of queued turns. Neither of these turns runs again. From the fault on the session is
    /// [`Building`](crate::SessionState::Building), and later turns may [queue](crate::WhenBusy). A build that fails is not
    /// repeated: the session stays faulted.
    ///
    /// ```
    /// use std::time::Duration;
    /// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, RestartPolicy, SessionService};
    /// use turnwise::{StartTurnRequest, WhenBusy};
    ///
    /// let agent = agent_fn(|prompt, turn| match prompt.as_str() {
    ///     "boom" => panic!("a bug in a tool"),
    ///     _ => Ok(turn.finish(prompt)),
    /// });
    /// let policy = RestartPolicy::new(3, Duration::from_secs(60));
    /// let service = EphemeralSessionService::configure(agent).restart_faulted(policy).build()?;
    /// let id = service.create_session(CreateSessionRequest::new("hello"))?.session_id;
    /// let fault = service.start_turn(id, StartTurnRequest::new("boom")).unwrap_err();
    /// assert_eq!(fault.code(), "SESSION_FAULTED");
    /// let next = StartTurnRequest::new("again").when_busy(WhenBusy::Queue); // behind the build
    /// assert_eq!(service.start_turn(id, next)?.text, "again");
    /// assert_eq!(service.export_session(id)?.messages().len(), 4); // of "hello" and "again"
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn restart_faulted(mut self, policy: RestartPolicy) -> Self {
        self.settings.restart_faulted = Some(policy);
        self
    }

    /// Sets the clock that measures all durations of the service. A test advances it by hand. Only with the feature
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

    /// Sets the source of session ids, and of the ids of interactions that injectors put into inboxes: the same seed,
    /// the same ids. A session that is created with an id keeps it. Only with the feature `testkit`. Default: unique
    /// ids.
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

    /// Creates the service. Starts no thread.
    ///
    /// # Errors
    /// [`ConfigError`] if a setting is out of range: `max_sessions` or `idle_threads` above 4,194,304,
    /// `max_running_turns` of 0 or above that, a `stack_size` outside of 64 KiB to 1 GiB, an `inbox_capacity`,
    /// `event_history` or `turn_queue` above 16,777,216, a `restart_faulted` of no restarts or within no time, a
    /// `thread_name_prefix` with a NUL character in it.
    pub fn build(self) -> Result<EphemeralSessionService<B>, ConfigError> {
        let (builder, settings) = self.check(MIN_STACK)?;
        Ok(EphemeralSessionService::with_settings(builder, settings))
    }

    /// Checks the settings, and returns the builder and the settings.
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
