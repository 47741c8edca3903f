//! Waiting for one of several channel operations.
//!
//! Whoever waits puts itself into the list of every channel concerned, looks once more, and parks. Every change of a
//! channel takes its list and unparks all that are in it; they look again. An unpark that comes before the park is not
//! lost. Which arm is looked at first is up to the scheduler (`raw::choose`), and so is when a deadline comes (`Patience`).

use std::time::Duration;

use crossbeam_channel::{RecvError, SendError, TryRecvError, TrySendError};

use super::channel::{Receiver, Sender};
use super::raw::{choose, park};
use super::{Instant, Patience};

/// One operation of a `select!`.
pub(crate) trait Arm {
    /// Does the operation if it needs no waiting. Whether it is done.
    fn attempt(&mut self) -> bool;
    /// Has this thread woken when the operation may have become possible.
    fn enlist(&self);
    fn delist(&self);
    /// When it becomes possible by itself.
    fn due(&self) -> Option<Instant>;
}

/// A receive, and what has come of it.
pub(crate) struct RecvArm<'a, T> {
    receiver: &'a Receiver<T>,
    received: Option<Result<T, RecvError>>,
}

/// A send, and what has come of it.
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

    fn enlist(&self) {
        self.receiver.enlist();
    }

    fn delist(&self) {
        self.receiver.delist();
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

    fn enlist(&self) {
        self.sender.enlist();
    }

    fn delist(&self) {
        self.sender.delist();
    }

    fn due(&self) -> Option<Instant> {
        None
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

    /// Does one of them, as soon as one is possible.
    pub(crate) fn wait(mut self) {
        self.wait_for_one(None);
    }

    /// Whether one of them was possible before `deadline`, and is done.
    pub(crate) fn wait_until(mut self, deadline: Instant) -> bool {
        self.wait_for_one(Some(deadline))
    }

    /// As [`wait_until`](Self::wait_until), from now.
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
        let mut patience = Patience::new();
        loop {
            if self.attempt() {
                return true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            let due = self.0.iter().filter_map(|arm| arm.due()).chain(deadline).min();
            match due {
                Some(due) if Patience::is_worth_waiting_for(due) => patience.wait_for(due),
                _ => {
                    if self.park() {
                        return true;
                    }
                }
            }
        }
    }

    /// Any one that is possible now.
    fn attempt(&mut self) -> bool {
        let count = self.0.len();
        let first = choose(count);
        (0..count).any(|number| self.0[(first + number) % count].attempt())
    }

    /// Waits for a change of one of the channels. Whether an arm is done.
    fn park(&mut self) -> bool {
        self.0.iter().for_each(|arm| arm.enlist());
        let done = self.attempt();
        if !done {
            park();
        }
        self.0.iter().for_each(|arm| arm.delist());
        done
    }
}

/// See `crossbeam_channel::select!`. The arms' operations are methods, so that this needs no path to where it is compiled.
macro_rules! select {
    // One arm after the other goes into the list: a place for the channel, a place for the operation, and the arm itself.
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
