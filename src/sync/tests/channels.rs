//! The behaviour that this crate relies on in a channel, and in `select!` over several.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, TryRecvError, TrySendError};

use super::support::{at, bounded, never, select, unbounded, Instant, Receiver, Select, Sender};
use crate::models::{explore, join, spawn};

/// So far in the future that no schedule reaches it.
const FAR: Duration = Duration::from_secs(86_400);

#[test]
fn messages_arrive_in_order_then_the_disconnection() {
    explore(|| {
        let (sender, receiver) = unbounded();
        let reader = spawn(move || receiver.into_iter().collect::<Vec<u32>>());
        for number in 0..3 {
            sender.send(number).unwrap();
        }
        drop(sender);
        assert_eq!(join(reader), [0, 1, 2]);
    });
}

#[test]
fn a_full_channel_refuses_or_waits() {
    explore(|| {
        let (sender, receiver) = bounded(1);
        sender.try_send(1).unwrap();
        assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
        assert_eq!((sender.len(), receiver.len()), (1, 1));
        let writer = spawn(move || sender.send(3));
        assert_eq!(receiver.recv(), Ok(1));
        assert_eq!(receiver.recv(), Ok(3));
        assert_eq!(join(writer), Ok(()));
        assert!(receiver.recv().is_err());
    });
}

#[test]
fn a_waiting_sender_gets_its_message_back_without_a_receiver() {
    explore(|| {
        let (sender, receiver) = bounded(1);
        sender.send(1).unwrap();
        let reader = spawn(move || drop(receiver));
        assert_eq!(sender.send(2).unwrap_err().0, 2);
        join(reader);
        assert_eq!(sender.try_send(3), Err(TrySendError::Disconnected(3)));
    });
}

#[test]
fn only_the_last_clone_disconnects() {
    explore(|| {
        let (sender, receiver) = unbounded::<u32>();
        let (other_sender, other_receiver) = (sender.clone(), receiver.clone());
        assert!(sender.same_channel(&other_sender));
        assert!(!sender.same_channel(&unbounded().0));
        drop(sender);
        drop(receiver);
        let waiting = spawn(move || other_receiver.recv());
        assert_eq!(other_sender.send(7), Ok(()));
        assert_eq!(join(waiting), Ok(7));
        assert!(other_sender.send(8).is_err());
    });
}

#[test]
fn unread_messages_are_dropped_with_the_last_receiver_or_sender() {
    explore(|| {
        let kept = Arc::new(());
        let (bounded_sender, bounded_receiver) = bounded(2);
        let (sender, receiver) = unbounded();
        for _ in 0..2 {
            bounded_sender.send(Arc::clone(&kept)).unwrap();
            sender.send(Arc::clone(&kept)).unwrap();
        }
        drop(receiver);
        assert_eq!(Arc::strong_count(&kept), 3);
        drop(sender);
        drop(bounded_receiver);
        // So the crate never relies on the drop of a message in a bounded channel.
        assert_eq!(Arc::strong_count(&kept), 3);
        drop(bounded_sender);
        assert_eq!(Arc::strong_count(&kept), 1);
    });
}

#[test]
fn messages_sent_before_the_disconnection_are_still_read() {
    explore(|| {
        let (sender, receiver) = bounded(2);
        sender.send(1).unwrap();
        sender.send(2).unwrap();
        drop(sender);
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    });
}

#[test]
fn every_message_goes_to_one_of_several_readers() {
    explore(|| {
        let (sender, receiver) = bounded(1);
        let readers: Vec<_> =
            (0..2).map(|_| receiver.clone()).map(|own| spawn(move || own.into_iter().sum())).collect();
        drop(receiver);
        let writers: Vec<_> = [1_u32, 10]
            .map(|number| (sender.clone(), number))
            .map(|(own, number)| spawn(move || (0..2).try_for_each(|_| own.send(number))))
            .into();
        drop(sender);
        writers.into_iter().for_each(|writer| join(writer).unwrap());
        assert_eq!(readers.into_iter().map(join::<u32>).sum::<u32>(), 22);
    });
}

#[test]
fn the_disconnection_wakes_every_waiting_thread() {
    explore(|| {
        let (sender, receiver) = bounded::<()>(0);
        let plain = receiver.clone();
        let plain = spawn(move || plain.recv().is_err());
        let selecting = spawn(move || {
            select! {
                recv(receiver) -> message => message.is_err(),
                recv(never::<()>()) -> _ => false,
            }
        });
        drop(sender);
        assert!(join(plain) && join(selecting));
    });
}

#[test]
fn a_select_does_exactly_one_ready_operation() {
    explore(|| {
        let (sender, receiver) = unbounded();
        let (other_sender, other_receiver) = unbounded();
        sender.send(1).unwrap();
        other_sender.send(2).unwrap();
        let got = select! {
            recv(receiver) -> message => message.unwrap(),
            recv(other_receiver) -> message => message.unwrap(),
        };
        assert_eq!(receiver.len() + other_receiver.len(), 1);
        assert_eq!(got, if receiver.is_empty() { 1 } else { 2 });
    });
}

#[test]
fn no_arm_starves() {
    explore(|| {
        let (sender, receiver) = bounded::<()>(0);
        let (other_sender, other_receiver) = bounded::<()>(0);
        drop((sender, other_sender));
        let (mut first, mut second) = (0, 0);
        while first == 0 || second == 0 {
            select! {
                recv(receiver) -> _ => first += 1,
                recv(other_receiver) -> _ => second += 1,
            }
            assert!(first + second < 1_000, "{first} and {second}");
        }
    });
}

#[test]
fn a_select_waits_for_room_or_for_a_message() {
    explore(|| {
        let (sender, receiver) = bounded(1);
        let (stop, stopped) = bounded::<()>(0);
        sender.send(0).unwrap();
        let writer = spawn(move || {
            let mut sent = 0;
            loop {
                select! {
                    send(sender, 1) -> result => match result {
                        Ok(()) => sent += 1,
                        Err(error) => return Err((sent, error.0)),
                    },
                    recv(stopped) -> _ => return Ok(sent),
                }
            }
        });
        assert_eq!(receiver.recv(), Ok(0));
        assert_eq!(receiver.recv(), Ok(1));
        drop(stop);
        let sent = join(writer).unwrap();
        assert_eq!(receiver.try_iter().count() + 1, sent);
    });
}

#[test]
fn a_body_may_change_the_channels_of_its_arms_and_return() {
    struct Listener {
        numbers: Receiver<u32>,
        end: Receiver<()>,
        ended: bool,
    }
    impl Listener {
        fn next(&mut self) -> Option<u32> {
            loop {
                select! {
                    recv(self.numbers) -> number => return number.ok(),
                    recv(self.end) -> _ => {
                        self.ended = true;
                        self.end = never();
                    }
                }
            }
        }
    }
    explore(|| {
        let (sender, numbers) = unbounded();
        let (end_sender, end) = bounded::<()>(0);
        let mut listener = Listener { numbers, end, ended: false };
        let other = spawn(move || {
            drop(end_sender);
            sender.send(5).unwrap();
        });
        assert_eq!(listener.next(), Some(5));
        assert_eq!(listener.next(), None);
        join(other);
    });
}

#[test]
fn a_deadline_ends_a_wait_and_no_other() {
    explore(|| {
        let (sender, receiver) = unbounded();
        let soon = || Instant::now() + Duration::from_millis(1);
        assert_eq!(receiver.recv_deadline(soon()), Err(RecvTimeoutError::Timeout));
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
        sender.send(1).unwrap();
        // The deadline has passed, but the message is there.
        assert_eq!(receiver.recv_deadline(Instant::now()), Ok(1));
        let writer = spawn(move || {
            let result = sender.send(2);
            drop(sender);
            result
        });
        assert_eq!(receiver.recv_deadline(Instant::now() + FAR), Ok(2));
        assert_eq!(receiver.recv_timeout(FAR), Err(RecvTimeoutError::Disconnected));
        join(writer).unwrap();
    });
}

#[test]
fn a_select_ends_at_its_timeout() {
    explore(|| {
        let (sender, receiver) = unbounded::<u32>();
        let waited = |receiver: &Receiver<u32>| {
            select! {
                recv(receiver) -> number => number.ok(),
                default(Duration::from_millis(1)) => None,
            }
        };
        assert_eq!(waited(&receiver), None);
        sender.send(3).unwrap();
        assert_eq!(waited(&receiver), Some(3));
    });
}

#[test]
fn a_timer_fires_once() {
    explore(|| {
        let timer = at(Instant::now() + Duration::from_millis(1));
        let again = timer.clone();
        assert!(timer.recv().is_ok());
        assert_eq!(again.try_recv(), Err(TryRecvError::Empty));
        let far = at(Instant::now() + FAR);
        let (_sender, nothing): (Sender<()>, _) = unbounded();
        select! {
            recv(far) -> _ => panic!("not today"),
            recv(nothing) -> _ => panic!("nothing was sent"),
            recv(at(Instant::now() + Duration::from_millis(1))) -> due => assert!(due.unwrap() <= Instant::now()),
        }
    });
}

#[test]
fn a_wait_for_any_number_of_channels_takes_no_message() {
    explore(|| {
        let channels: Vec<(Sender<u32>, Receiver<u32>)> = (0..3).map(|_| bounded(1)).collect();
        let (mut senders, receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let silent: Receiver<u32> = never();
        let wait = |receivers: &[Receiver<u32>]| {
            let timer = at(Instant::now() + FAR);
            let mut select = Select::new();
            for receiver in receivers.iter().chain([&silent]) {
                select.recv(receiver);
            }
            select.recv(&timer);
            // It may return although no channel is ready.
            loop {
                let ready = select.ready();
                let is_over =
                    |receiver: &Receiver<u32>| receiver.try_recv().is_err_and(|error| error.is_disconnected());
                if receivers.get(ready).is_some_and(|receiver| !receiver.is_empty() || is_over(receiver)) {
                    return ready;
                }
            }
        };
        let sender = senders.pop().unwrap();
        let writer = spawn(move || {
            sender.send(7).unwrap();
            sender
        });
        assert_eq!(wait(&receivers), 2);
        assert_eq!(receivers[2].try_recv(), Ok(7));
        let _last = join(writer);
        drop(senders.remove(0));
        assert_eq!(wait(&receivers), 0);
    });
}
