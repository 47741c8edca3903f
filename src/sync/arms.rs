//! Waiting for one of several channel operations.
//!
//! A waiting thread registers in the list of every channel concerned, tries again, and parks. Every change of a channel
//! takes its list and unparks the threads in it, which try again. An unpark before the park is not lost. The scheduler
//! chooses which arm is tried first (`raw::choose`), and when a deadline comes (`TimedWait`).

#![allow(clippy::expect_used)] // A broken invariant fails the run of a model checker.

use std::time::Duration;

use crossbeam_channel::{RecvError, SendError, TryRecvError, TrySendError};

use super::channel::{Receiver, Sender};
use super::raw::{choose, park};
use super::{Instant, TimedWait};

/// One operation of a `select!`.
pub(crate) trait Arm {
    /// Does the operation if it need not wait. Returns whether it is done.
    fn attempt(&mut self) -> bool;
    /// Registers this thread to be woken when the operation may have become possible.
    fn register(&self);
    fn unregister(&self);
    /// When the operation becomes possible without another thread.
    fn due(&self) -> Option<Instant>;
}

/// A receive and its result.
pub(crate) struct RecvArm<'a, T> {
    receiver: &'a Receiver<T>,
    received: Option<Result<T, RecvError>>,
}

/// A send and its result.
pub(crate) struct SendArm<'a, T> {
    sender: &'a Sender<T>,
    message: Option<T>,
    sent: Option<Result<(), SendError<T>>>,
}

impl<'a, T> RecvArm<'a, T> {
    pub(super) fn new(receiver: &'a Receiver<T>) -> Self {
        Self { receiver, received: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.received.is_some()
    }

    pub(crate) fn finish(self) -> Result<T, RecvError> {
        self.received.expect("this arm is done")
    }
}

impl<'a, T> SendArm<'a, T> {
    pub(super) fn new(sender: &'a Sender<T>, message: T) -> Self {
        Self { sender, message: Some(message), sent: None }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.sent.is_some()
    }

    pub(crate) fn finish(self) -> Result<(), SendError<T>> {
        self.sent.expect("this arm is done")
    }
}

impl<T> Arm for RecvArm<'_, T> {
    fn attempt(&mut self) -> bool {
        self.received = match self.receiver.try_recv() {
            Ok(message) => Some(Ok(message)),
            Err(TryRecvError::Disconnected) => Some(Err(RecvError)),
            Err(TryRecvError::Empty) => None,
        };
        self.received.is_some()
    }

    fn register(&self) {
        self.receiver.register();
    }

    fn unregister(&self) {
        self.receiver.unregister();
    }

    fn due(&self) -> Option<Instant> {
        self.receiver.due()
    }
}

impl<T> Arm for SendArm<'_, T> {
    fn attempt(&mut self) -> bool {
        let Some(message) = self.message.take() else { return true };
        self.sent = match self.sender.try_send(message) {
            Ok(()) => Some(Ok(())),
            Err(TrySendError::Disconnected(message)) => Some(Err(SendError(message))),
            Err(TrySendError::Full(message)) => {
                self.message = Some(message);
                None
            }
        };
        self.sent.is_some()
    }

    fn register(&self) {
        self.sender.register();
    }

    fn unregister(&self) {
        self.sender.unregister();
    }

    fn due(&self) -> Option<Instant> {
        None
    }
}

/// An arm that waits until a receive is possible, and receives nothing.
struct ReadyArm<'a, T>(&'a Receiver<T>);

impl<T> Arm for ReadyArm<'_, T> {
    fn attempt(&mut self) -> bool {
        self.0.is_ready()
    }

    fn register(&self) {
        self.0.register();
    }

    fn unregister(&self) {
        self.0.unregister();
    }

    fn due(&self) -> Option<Instant> {
        self.0.due()
    }
}

/// See `crossbeam_channel::Select`: the part of it that waits for any number of channels.
pub(crate) struct Select<'a>(Vec<Box<dyn Arm + 'a>>);

impl<'a> Select<'a> {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn recv<T>(&mut self, receiver: &'a Receiver<T>) -> usize {
        self.0.push(Box::new(ReadyArm(receiver)));
        self.0.len() - 1
    }

    /// Waits until a channel is ready, and returns the number of one that is.
    pub(crate) fn ready(&mut self) -> usize {
        let mut arms = Arms::none();
        self.0.iter_mut().for_each(|arm| arms.add(&mut **arm));
        arms.wait();
        self.0.iter_mut().position(|arm| arm.attempt()).unwrap_or_default()
    }
}

/// The arms of one `select!`.
pub(crate) struct Arms<'a>(Vec<&'a mut dyn Arm>);

impl<'a> Arms<'a> {
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn add(&mut self, arm: &'a mut dyn Arm) {
        self.0.push(arm);
    }

    /// Waits until one arm is possible, and does it.
    pub(crate) fn wait(mut self) {
        self.wait_for_one(None);
    }

    /// As [`wait`](Self::wait), until `deadline`. Returns whether an arm is done.
    pub(crate) fn wait_until(mut self, deadline: Instant) -> bool {
        self.wait_for_one(Some(deadline))
    }

    /// As [`wait_until`](Self::wait_until), with a timeout.
    pub(crate) fn wait_for(self, timeout: Duration) -> bool {
        match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait_until(deadline),
            None => {
                self.wait();
                true
            }
        }
    }

    fn wait_for_one(&mut self, deadline: Option<Instant>) -> bool {
        let mut timed_wait = TimedWait::new();
        loop {
            if self.attempt() {
                return true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            let due = self.0.iter().filter_map(|arm| arm.due()).chain(deadline).min();
            match due {
                Some(due) if TimedWait::can_poll_until(due) => timed_wait.wait_for(due),
                _ => {
                    if self.park() {
                        return true;
                    }
                }
            }
        }
    }

    /// Does any one arm that is possible now.
    fn attempt(&mut self) -> bool {
        let count = self.0.len();
        let first = choose(count);
        (0..count).any(|number| self.0[(first + number) % count].attempt())
    }

    /// Waits for a change of one of the channels. Returns whether an arm is done.
    fn park(&mut self) -> bool {
        self.0.iter().for_each(|arm| arm.register());
        let done = self.attempt();
        if !done {
            park();
        }
        self.0.iter().for_each(|arm| arm.unregister());
        done
    }
}

/// See `crossbeam_channel::select!`. The operations of the arms are methods, so the macro needs no path to this module.
macro_rules! select {
    // Moves one arm after the other into the list: the name of its channel, the name of its operation, and the arm.
    (@list [$($arms:tt)*] [$($default:tt)*] recv($channel:expr) -> $result:pat => $body:block, $($rest:tt)*) => {
        select!(@list [$($arms)* (channel arm (&$channel) (arm_recv()) $result => $body)] [$($default)*] $($rest)*)
    };
    (@list [$($arms:tt)*] [$($default:tt)*] recv($channel:expr) -> $result:pat => $body:block $($rest:tt)*) => {
        select!(@list [$($arms)* (channel arm (&$channel) (arm_recv()) $result => $body)] [$($default)*] $($rest)*)
    };
    (@list [$($arms:tt)*] [$($default:tt)*] recv($channel:expr) -> $result:pat => $body:expr, $($rest:tt)*) => {
        select!(@list [$($arms)* (channel arm (&$channel) (arm_recv()) $result => $body)] [$($default)*] $($rest)*)
    };
    (@list [$($arms:tt)*] [$($default:tt)*] send($channel:expr, $message:expr) -> $result:pat => $body:block $($rest:tt)*) => {
        select!(@list [$($arms)* (channel arm (&$channel) (arm_send($message)) $result => $body)] [$($default)*] $($rest)*)
    };
    (@list [$($arms:tt)*] [$($default:tt)*] send($channel:expr, $message:expr) -> $result:pat => $body:expr, $($rest:tt)*) => {
        select!(@list [$($arms)* (channel arm (&$channel) (arm_send($message)) $result => $body)] [$($default)*] $($rest)*)
    };
    (@list [$($arms:tt)*] [] default($timeout:expr) => $body:expr, $($rest:tt)*) => {
        select!(@list [$($arms)*] [$timeout => $body] $($rest)*)
    };
    (@list [$(($channel:ident $arm:ident ($($source:tt)*) ($($operation:tt)*) $result:pat => $body:expr))*] [$($timeout:expr => $default:expr)?]) => {
        {
            $( let $channel = $($source)*; )*
            $( let mut $arm = $channel.$($operation)*; )*
            {
                let mut arms = select!(@first $($channel)*).arm_set();
                $( arms.add(&mut $arm); )*
                select!(@wait arms $($timeout)?);
            }
            select!(@run [$(($arm $result => $body))*] [$($default)?])
        }
    };
    (@first $channel:ident $($rest:ident)*) => { $channel };
    (@wait $arms:ident) => { $arms.wait() };
    (@wait $arms:ident $timeout:expr) => { $arms.wait_for($timeout) };
    (@run [($arm:ident $result:pat => $body:expr) $($rest:tt)*] [$($default:expr)?]) => {
        if $arm.is_done() {
            let $result = $arm.finish();
            $body
        } else {
            select!(@run [$($rest)*] [$($default)?])
        }
    };
    (@run [] [$default:expr]) => { $default };
    (@run [] []) => { unreachable!("one of the arms is done") };
    ($($arms:tt)*) => { select!(@list [] [] $($arms)*) };
}
pub(crate) use select;
