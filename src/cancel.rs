//! The cancel token of a turn, and the hooks that abort blocking calls.
//!
//! # States
//!
//! | State | `cancel` | `seal` | a new hook |
//! |---|---|---|---|
//! | live | → cancelled | → sealed | is stored |
//! | cancelled (reason) | ignored | keeps the reason | runs at once |
//! | sealed, never cancelled | ignored | - | never runs |
//! | sealed, cancelled before | ignored | - | runs at once |
//!
//! # Two steps
//!
//! A cancel has two steps, so that one slow hook delays no other session. [`CancelToken::cancel`] sets the reason and
//! wakes every waiting thread. [`DueHooks::run`] runs the hooks one after the other, with no lock held. It runs on the
//! cancelling thread, or after a deadline on one of the timer threads. A caller that cancels many sessions takes the
//! first step for all of them, then the second. A caller that cancels one session takes both with
//! [`CancelToken::cancel_and_run_hooks`].
//!
//! # A hook and its guard
//!
//! A hook often shuts down a connection. If it could still run after the drop of its guard, it could shut down the
//! connection of the *next* turn:
//!
//! ```text
//! canceller: takes the hook ─────────────── descheduled ───────────── shuts the socket down
//! turn:            reply arrives, guard dropped, turn ends; next turn reuses the socket  ✗
//! ```
//!
//! So the drop of a [`CancelHook`] removes a hook that has not started, and waits for a hook that runs on another
//! thread. On the same thread there is nothing to wait for: the hook itself drops its guard.
//!
//! **Invariants.** A token yields [`DueHooks`] at most once, and only their holder runs stored hooks. No lock is held
//! while a hook runs or is dropped.

use std::convert::Infallible;
use std::fmt;

use crate::error::{CancelReason, Cancelled};
use crate::panics::contain_and_log;
use crate::sync::{current, Arc, AtomicU8, Condvar, Mutex, Ordering, Receiver, ThreadId};
use crate::wait::latch::Latch;

/// Set once the turn has ended. The other bits are the reason, 0 for none.
const SEALED: u8 = 0x80;

/// Tells a turn to stop, and why.
///
/// A clone is cheap, and may be passed to other threads. The token belongs to one turn: after the end of the turn it
/// neither fires nor changes.
///
/// Use [`is_cancelled`](CancelToken::is_cancelled) in a loop, [`cancelled`](CancelToken::cancelled) in a `select!`, and
/// [`on_cancel`](CancelToken::on_cancel) around a call that blocks on something else.
///
/// ```
/// use std::thread;
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| {
///     let token = turn.cancel_token().clone();
///     let helper = thread::spawn(move || while !token.is_cancelled() { thread::yield_now() });
///     helper.join().expect("the helper does not panic");
///     turn.check()?;
///     Ok(turn.finish(prompt))
/// });
/// let service = EphemeralSessionService::new(agent, 1);
/// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
/// turn.interrupt();
/// assert!(turn.wait().unwrap_err().cancel_reason().is_some());
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[derive(Clone)]
pub struct CancelToken {
    cell: Arc<Cell>,
}

struct Cell {
    state: AtomicU8,
    fired: Latch,
    hooks: Mutex<Hooks>,
    hook_returned: Condvar,
}

#[derive(Default)]
struct Hooks {
    next_id: u64,
    armed: Vec<(u64, Hook)>,
    /// The hook that runs now. One thread at a time runs stored hooks: the one that holds the token's only
    /// [`DueHooks`].
    running: Option<(u64, ThreadId)>,
    /// The child tokens, which fire with this one.
    children: Vec<CancelToken>,
}

type Hook = Box<dyn FnOnce() + Send>;

impl CancelToken {
    pub(crate) fn new() -> Self {
        let cell = Cell {
            state: AtomicU8::new(0),
            fired: Latch::new(),
            hooks: Mutex::new(Hooks::default()),
            hook_returned: Condvar::new(),
        };
        Self { cell: Arc::new(cell) }
    }

    /// Whether the turn has been told to stop.
    pub fn is_cancelled(&self) -> bool {
        self.reason().is_some()
    }

    /// The reason why the turn has been told to stop, if it has.
    ///
    /// ```
    /// use turnwise::{agent_fn, AgentEvent, CancelReason, CreateSessionRequest, EphemeralSessionService};
    /// use turnwise::SessionService;
    ///
    /// let agent = agent_fn(|_, turn| {
    ///     turn.emit(AgentEvent::TurnStarted { turn_number: 1 })?;
    ///     let token = turn.cancel_token();
    ///     while token.reason().is_none() {
    ///         std::thread::yield_now();
    ///     }
    ///     let asked_to = token.reason() == Some(CancelReason::Interrupted);
    ///     Ok(turn.finish(if asked_to { "as far as I got" } else { "no time left" })) // a cancelled turn may succeed
    /// });
    /// let service = EphemeralSessionService::new(agent, 1);
    /// let mut stream = service.stream_session(CreateSessionRequest::new("Tell me all."))?;
    /// stream.find(|event| matches!(event, AgentEvent::TurnStarted { .. }));
    /// stream.handle().interrupt();
    /// assert_eq!(stream.wait()?.text, "as far as I got");
    /// # Ok::<(), turnwise::SessionError>(())
    /// ```
    pub fn reason(&self) -> Option<CancelReason> {
        decode(self.cell.state.load(Ordering::SeqCst))
    }

    /// Returns an error if the turn has been told to stop.
    ///
    /// # Errors
    /// [`Cancelled`], with the reason.
    pub fn check(&self) -> Result<(), Cancelled> {
        match self.reason() {
            None => Ok(()),
            Some(reason) => Err(Cancelled { reason }),
        }
    }

    /// A channel that carries no message and disconnects on cancel, for a `select!`.
    ///
    /// It does not disconnect when the turn ends uncancelled. It also disconnects when the last clone of the token is
    /// dropped. So code that keeps a clone of the receiver also keeps a clone of the token, and reads the
    /// [`reason`](CancelToken::reason) from it.
    ///
    /// ```
    /// use turnwise::crossbeam_channel::{select, Receiver};
    /// use turnwise::{AgentError, TurnContext};
    ///
    /// /// Waits for a line of input, or for the turn to be interrupted.
    /// fn next_line(lines: &Receiver<String>, turn: &TurnContext) -> Result<String, AgentError> {
    ///     select! {
    ///         recv(lines) -> line => line.map_err(|_| AgentError::Config("input closed".into())),
    ///         recv(turn.cancel_token().cancelled()) -> _ => Err(turn.check().unwrap_err().into()),
    ///     }
    /// }
    /// ```
    pub fn cancelled(&self) -> &Receiver<Infallible> {
        self.cell.fired.receiver()
    }

    /// Runs `hook` when the turn is cancelled, to abort a call that blocks on something else: for example to shut a
    /// socket down or to kill a child process. Dropping the returned guard disarms the hook.
    ///
    /// The hook runs at most once. If the turn is already cancelled, it runs at once on this thread. Otherwise it runs
    /// on the cancelling thread, after the token has been set. A hook should do one thing and not wait, since that
    /// thread may be the one that serves the deadlines of the whole service. A panic in the hook is logged and goes no
    /// further.
    ///
    /// # Blocking
    /// Does not block, except for a hook that runs at once. Dropping the guard waits for a hook that runs on another
    /// thread, so that the hook cannot hit later work.
    ///
    /// ```
    /// use std::io::Read;
    /// use std::net::{Shutdown, TcpStream};
    /// use turnwise::{AgentError, TurnContext};
    ///
    /// /// Reads the whole answer; an interrupt ends the read at once.
    /// fn read_answer(socket: &mut TcpStream, turn: &TurnContext) -> Result<String, AgentError> {
    ///     let aborted = socket.try_clone()?;
    ///     let _hook = turn.cancel_token().on_cancel(move || drop(aborted.shutdown(Shutdown::Both)));
    ///     let mut answer = String::new();
    ///     let read = socket.read_to_string(&mut answer);
    ///     turn.check()?; // rather than the error that the shutdown caused
    ///     read?;
    ///     Ok(answer)
    /// }
    /// ```
    pub fn on_cancel(&self, hook: impl FnOnce() + Send + 'static) -> CancelHook {
        let id = {
            let mut hooks = self.cell.hooks.lock();
            // Checked under the lock: a later cancel finds the hook in the list, an earlier one is seen here.
            match self.cell.state.load(Ordering::SeqCst) {
                0 => {
                    let id = hooks.next_id;
                    hooks.next_id += 1;
                    hooks.armed.push((id, Box::new(hook)));
                    return CancelHook { token: self.clone(), id: Some(id) };
                }
                state => decode(state),
            }
        };
        match id {
            Some(_) => contain_and_log("a cancel hook", hook),
            None => contain_and_log("the drop of a cancel hook", move || drop(hook)),
        }
        CancelHook { token: self.clone(), id: None }
    }

    /// First step of a cancel: sets the reason and wakes every waiting thread, those of the child tokens too. Returns
    /// the second step, to be taken with no lock held; `None` if the token was already cancelled or sealed.
    pub(crate) fn cancel(&self, reason: CancelReason) -> Option<DueHooks> {
        let (children, of_children) = {
            // Under one lock: a second cancel returns only when the first one has reached the children too.
            let mut hooks = self.cell.hooks.lock();
            self.cell.state.compare_exchange(0, encode(reason), Ordering::SeqCst, Ordering::SeqCst).ok()?;
            let children = std::mem::take(&mut hooks.children);
            let of_children = children.iter().filter_map(|child| child.cancel(reason)).collect();
            (children, of_children)
        };
        drop(children);
        // Afterwards: a thread that wakes up here may end its turn, and the host may cancel the children for a reason of
        // its own.
        self.cell.fired.set();
        Some(DueHooks { token: self.clone(), of_children })
    }

    /// Both steps of a cancel. Changes nothing if the token was already cancelled or sealed. The caller holds no lock.
    pub(crate) fn cancel_and_run_hooks(&self, reason: CancelReason) {
        if let Some(hooks) = self.cancel(reason) {
            hooks.run();
        }
    }

    /// Makes a child token for a part of the turn, such as an interaction in host mode. It fires with this token, or
    /// alone, until [`end_child`](Self::end_child).
    pub(crate) fn begin_child(&self) -> Self {
        let child = Self::new();
        self.adopt(&child);
        child
    }

    /// Makes `child` fire with this token, for the same reason. If this token has fired already, `child` fires now, and
    /// its hooks run on this thread.
    pub(crate) fn adopt(&self, child: &Self) {
        let reason = {
            let mut hooks = self.cell.hooks.lock();
            // Checked under the lock: a later cancel finds the child, an earlier one is seen here.
            let reason = decode(self.cell.state.load(Ordering::SeqCst));
            if reason.is_none() {
                hooks.children.push(child.clone());
            }
            reason
        };
        if let Some(reason) = reason {
            child.cancel_and_run_hooks(reason);
        }
    }

    /// A later cancel of this token does not reach `child`.
    pub(crate) fn disown(&self, child: &Self) {
        let disowned = {
            let mut hooks = self.cell.hooks.lock();
            let position = hooks.children.iter().position(|other| Arc::ptr_eq(&other.cell, &child.cell));
            position.map(|position| hooks.children.swap_remove(position))
        };
        drop(disowned);
    }

    /// Ends the child token: a later cancel of either token does not reach it.
    pub(crate) fn end_child(&self, child: &Self) {
        self.disown(child);
        child.seal();
    }

    /// Ends the token at the end of its turn: later cancels are ignored, and hooks that have not started never run.
    pub(crate) fn seal(&self) {
        self.cell.state.fetch_or(SEALED, Ordering::SeqCst);
        let disarmed = std::mem::take(&mut self.cell.hooks.lock().armed);
        for (_, hook) in disarmed {
            contain_and_log("the drop of a cancel hook", move || drop(hook));
        }
    }

    /// Whether the turn has ended.
    pub(crate) fn is_sealed(&self) -> bool {
        self.cell.state.load(Ordering::SeqCst) & SEALED != 0
    }

    /// Whether hooks are stored that a cancel runs.
    pub(crate) fn has_hooks(&self) -> bool {
        !self.cell.hooks.lock().armed.is_empty()
    }

    fn start_next_hook(&self) -> Option<Hook> {
        let mut hooks = self.cell.hooks.lock();
        if hooks.armed.is_empty() {
            return None;
        }
        let (id, hook) = hooks.armed.remove(0);
        hooks.running = Some((id, current().id()));
        Some(hook)
    }

    fn finish_hook(&self) {
        self.cell.hooks.lock().running = None;
        self.cell.hook_returned.notify_all();
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("reason", &self.reason()).finish_non_exhaustive()
    }
}

/// The second step of a cancel: the hooks that are due. [`run`](Self::run) runs them on the calling thread. A drop does
/// too, so that no early return loses a hook.
#[must_use = "the hooks run at the latest when this is dropped: keep it until no lock is held"]
#[derive(Debug)]
pub(crate) struct DueHooks {
    token: CancelToken,
    of_children: Vec<DueHooks>,
}

impl DueHooks {
    pub(crate) fn is_empty(&self) -> bool {
        !self.token.has_hooks() && self.of_children.iter().all(Self::is_empty)
    }

    /// Runs the hooks of the token, then those of its children. The caller holds no lock.
    pub(crate) fn run(self) {
        // The drop runs them, on every other way out too.
        drop(self);
    }
}

impl Drop for DueHooks {
    fn drop(&mut self) {
        while let Some(hook) = self.token.start_next_hook() {
            contain_and_log("a cancel hook", hook);
            self.token.finish_hook();
        }
        std::mem::take(&mut self.of_children).into_iter().for_each(Self::run);
    }
}

/// Keeps a hook armed. Made by [`CancelToken::on_cancel`].
///
/// ```
/// use turnwise::crossbeam_channel::bounded;
/// use turnwise::{agent_fn, CreateSessionRequest, EphemeralSessionService, SessionService};
///
/// let agent = agent_fn(|prompt, turn| {
///     let (abort, aborted) = bounded::<()>(0);
///     let hook = turn.cancel_token().on_cancel(move || drop(abort));
///     let _ = aborted.recv(); // stands for a call that only the hook can end
///     drop(hook); // from here on it does not run any more
///     turn.check()?;
///     Ok(turn.finish(prompt))
/// });
/// let service = EphemeralSessionService::new(agent, 1);
/// let turn = service.begin_session(CreateSessionRequest::new("hello"))?;
/// turn.interrupt();
/// assert!(turn.wait().unwrap_err().cancel_reason().is_some());
/// # Ok::<(), turnwise::SessionError>(())
/// ```
#[must_use = "dropping it disarms the hook"]
pub struct CancelHook {
    token: CancelToken,
    /// `None` where no hook was stored.
    id: Option<u64>,
}

impl Drop for CancelHook {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let cell = &self.token.cell;
        let mut hooks = cell.hooks.lock();
        let position = hooks.armed.iter().position(|(other, _)| *other == id);
        let hook = position.map(|at| hooks.armed.remove(at));
        while hooks.running.is_some_and(|(other, thread)| other == id && thread != current().id()) {
            cell.hook_returned.wait(&mut hooks);
        }
        drop(hooks);
        // The hook is a user's value: it is dropped with no lock held, and its panic must not leave this drop.
        contain_and_log("the drop of a cancel hook", move || drop(hook));
    }
}

impl fmt::Debug for CancelHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHook").field("armed", &self.id.is_some()).finish_non_exhaustive()
    }
}

fn encode(reason: CancelReason) -> u8 {
    match reason {
        CancelReason::Interrupted => 1,
        CancelReason::DeadlineExceeded => 2,
        CancelReason::Archived => 3,
        CancelReason::Shutdown => 4,
        CancelReason::Superseded => 5,
    }
}

fn decode(state: u8) -> Option<CancelReason> {
    match state & !SEALED {
        1 => Some(CancelReason::Interrupted),
        2 => Some(CancelReason::DeadlineExceeded),
        3 => Some(CancelReason::Archived),
        4 => Some(CancelReason::Shutdown),
        5 => Some(CancelReason::Superseded),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c62_a_token_fires_with_its_parent_until_it_is_disowned() {
        let (parent, child, disowned) = (CancelToken::new(), CancelToken::new(), CancelToken::new());
        let own = parent.begin_child();
        [&child, &disowned].into_iter().for_each(|token| parent.adopt(token));
        parent.disown(&disowned);
        parent.end_child(&parent.begin_child());
        assert_eq!(parent.cell.hooks.lock().children.len(), 2);
        parent.cancel_and_run_hooks(CancelReason::Archived);
        let archived = Some(CancelReason::Archived);
        assert_eq!([&own, &child, &disowned].map(CancelToken::reason), [archived, archived, None]);
        // Too late for a later cancel: it fires at once.
        let late = CancelToken::new();
        parent.adopt(&late);
        assert_eq!(late.reason(), Some(CancelReason::Archived));
        assert!(parent.cell.hooks.lock().children.is_empty());
    }

    #[test]
    fn c62_a_parent_that_fires_runs_the_hooks_of_all_its_children() {
        let (parent, children) = (CancelToken::new(), [CancelToken::new(), CancelToken::new()]);
        let ran = Arc::new(Mutex::new(0));
        let _hooks = children.each_ref().map(|child| {
            parent.adopt(child);
            let ran = Arc::clone(&ran);
            child.on_cancel(move || *ran.lock() += 1)
        });
        let due = parent.cancel(CancelReason::Interrupted).expect("it is the first");
        // All of them are told to stop before the first hook runs.
        assert!(!due.is_empty() && children.iter().all(CancelToken::is_cancelled) && *ran.lock() == 0);
        due.run();
        assert_eq!(*ran.lock(), 2);
    }
}
