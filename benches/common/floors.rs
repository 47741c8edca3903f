//! The floors: the costs of the same work with threads and channels alone.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::{bounded, unbounded, Receiver, Sender};

use super::times::{time, times, times_of_thousands, Times};
use super::{delta, STACK};

/// A thread that answers each message of one channel through a second channel.
pub(crate) struct PingPong {
    there: Option<Sender<()>>,
    back: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl PingPong {
    pub(crate) fn new() -> Self {
        let (there, inbox) = bounded(1);
        let (answer, back) = bounded(1);
        let echo = move || inbox.iter().for_each(|()| answer.send(()).expect("the bench listens"));
        Self { there: Some(there), back, thread: Some(spawn(echo)) }
    }

    pub(crate) fn round_trip(&self) {
        self.there.iter().for_each(|there| there.send(()).expect("the echo listens"));
        self.back.recv().expect("the echo answers");
    }

    pub(crate) fn round_trips(&self, count: usize) -> Times {
        times(count, || self.round_trip())
    }
}

impl Drop for PingPong {
    fn drop(&mut self) {
        drop(self.there.take());
        join(self.thread.take());
    }
}

/// A thread that answers each message of one channel with the instant at which it got it, through a second channel.
pub(crate) struct Echo {
    there: Option<Sender<()>>,
    noticed: Receiver<Instant>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    pub(crate) fn new() -> Self {
        let ((there, inbox), (notice, noticed)) = (bounded(1), unbounded());
        let echo = move || inbox.iter().for_each(|()| notice.send(Instant::now()).expect("the bench listens"));
        Self { there: Some(there), noticed, thread: Some(spawn(echo)) }
    }

    /// The times from a message until the thread has got it. The thread waits for each message for as long as `settle`.
    pub(crate) fn notices(&self, count: usize, settle: Duration) -> Times {
        let notice = || {
            thread::sleep(settle);
            let told = Instant::now();
            self.there.iter().for_each(|there| there.send(()).expect("the echo listens"));
            self.noticed.recv().expect("the echo answers") - told
        };
        (0..count).map(|_| notice()).collect()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.there.take());
        join(self.thread.take());
    }
}

/// Threads that look at a flag again and again, with a pause.
pub(crate) struct Polling {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Polling {
    pub(crate) fn new(count: usize, pause: Duration) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let poll = |_| {
            let is_over = Arc::clone(&is_over);
            spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    thread::sleep(pause);
                }
            })
        };
        let threads = (0..count).map(poll).collect();
        Self { is_over, threads }
    }
}

impl Drop for Polling {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| join(Some(thread)));
    }
}

/// `callers` threads make `each` round trips, each with its own [`PingPong`]. Returns the whole time, divided by the
/// number of all round trips.
pub(crate) fn callers(callers: usize, each: usize) -> Duration {
    let pairs: Vec<PingPong> = (0..callers).map(|_| PingPong::new()).collect();
    let all = time(|| {
        thread::scope(|scope| {
            for pair in &pairs {
                scope.spawn(move || (0..each).for_each(|_| pair.round_trip()));
            }
        });
    });
    all / (callers * each) as u32
}

/// Sends `count` events through a channel. Returns the time per event.
pub(crate) fn events(count: usize) -> Duration {
    let (sender, receiver) = bounded(256);
    let all = time(|| {
        let producer = spawn(move || (0..count).for_each(|_| sender.send(delta()).expect("a receiver")));
        assert_eq!(receiver.iter().count(), count);
        join(Some(producer));
    });
    all / count as u32
}

/// Makes, counts and drops `count` events. Returns the time per event.
pub(crate) fn events_counted(count: usize) -> Duration {
    let counter = AtomicUsize::new(0);
    let all = time(|| {
        for _ in 0..count {
            drop(black_box(delta()));
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    all / count as u32
}

/// Starts and joins a thread, `count` times.
pub(crate) fn spawn_and_join(count: usize) -> Times {
    times(count, || join(Some(spawn(|| ()))))
}

/// Reads a value under an uncontended lock, and clones it.
pub(crate) fn locked_clone<T: Clone>(batches: usize, value: &RwLock<T>) -> Times {
    times_of_thousands(batches, || drop(black_box(value.read().expect("the lock is not poisoned").clone())))
}

/// The time from the unpark of a parked thread until it runs.
pub(crate) fn wakes(count: usize, settle: Duration) -> Times {
    notices(count, settle, thread::park)
}

/// The time from the setting of a flag until a thread that spins on it sees it.
pub(crate) fn flags_seen(count: usize, settle: Duration) -> Times {
    notices(count, settle, spin_loop)
}

fn notices(count: usize, settle: Duration, between_looks: fn()) -> Times {
    let (noticed_tx, noticed) = unbounded();
    let flag = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&flag);
    let thread = spawn(move || {
        for _ in 0..count {
            while !seen.swap(false, Ordering::SeqCst) {
                between_looks();
            }
            noticed_tx.send(Instant::now()).expect("the bench listens");
        }
    });
    let notice = || {
        thread::sleep(settle);
        let told = Instant::now();
        flag.store(true, Ordering::SeqCst);
        thread.thread().unpark();
        noticed.recv().expect("the thread notices") - told
    };
    let times = (0..count).map(|_| notice()).collect();
    join(Some(thread));
    times
}

/// Parked threads, which one thread can unpark.
pub(crate) struct Parked {
    shared: Arc<ParkedShared>,
    threads: Vec<JoinHandle<()>>,
}

struct ParkedShared {
    /// The number of the round. `usize::MAX` ends the threads.
    round: AtomicUsize,
    /// The number of threads that have run in this round.
    awake: AtomicUsize,
    count: usize,
    bench: Thread,
}

impl Parked {
    pub(crate) fn new(count: usize) -> Self {
        let shared =
            ParkedShared { round: AtomicUsize::new(0), awake: AtomicUsize::new(0), count, bench: thread::current() };
        let shared = Arc::new(shared);
        let threads = (0..count).map(|_| spawn_parked(&shared)).collect();
        Self { shared, threads }
    }

    /// Unparks every thread, and waits until each has run. The calling thread has to be the one that created the
    /// threads.
    pub(crate) fn wake_all(&self) -> Duration {
        time(|| {
            self.shared.awake.store(0, Ordering::SeqCst);
            self.shared.round.fetch_add(1, Ordering::SeqCst);
            self.threads.iter().for_each(|thread| thread.thread().unpark());
            while self.shared.awake.load(Ordering::SeqCst) < self.shared.count {
                thread::park();
            }
        })
    }
}

fn spawn_parked(shared: &Arc<ParkedShared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    spawn(move || {
        let mut seen = 0;
        while seen != usize::MAX {
            let round = shared.round.load(Ordering::SeqCst);
            if round == seen {
                thread::park();
                continue;
            }
            seen = round;
            if shared.awake.fetch_add(1, Ordering::SeqCst) + 1 == shared.count {
                shared.bench.unpark();
            }
        }
    })
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.shared.round.store(usize::MAX, Ordering::SeqCst);
        self.threads.iter().for_each(|thread| thread.thread().unpark());
        self.threads.drain(..).for_each(|thread| join(Some(thread)));
    }
}

/// Threads that each receive from their own channel, and answer through a shared one.
pub(crate) struct Listening {
    wakes: Vec<Sender<()>>,
    answers: Receiver<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Listening {
    pub(crate) fn new(count: usize) -> Self {
        let (answer, answers) = unbounded();
        let pairs = (0..count).map(|_| {
            let ((wake, woken), answer) = (unbounded::<()>(), answer.clone());
            let thread = spawn(move || woken.iter().for_each(|()| answer.send(()).expect("the bench listens")));
            (wake, thread)
        });
        let (wakes, threads) = pairs.unzip();
        Self { wakes, answers, threads }
    }

    /// Sends a message to every thread, and waits for all answers.
    pub(crate) fn ask_all(&self) -> Duration {
        time(|| {
            self.wakes.iter().for_each(|wake| wake.send(()).expect("a thread listens"));
            self.answers.iter().take(self.wakes.len()).for_each(drop);
        })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.wakes.clear();
        self.threads.drain(..).for_each(|thread| join(Some(thread)));
    }
}

/// Starts a thread with the stack size of the session threads.
pub(crate) fn spawn(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new().stack_size(STACK).spawn(run).expect("a thread")
}

fn join(thread: Option<JoinHandle<()>>) {
    thread.into_iter().for_each(|thread| thread.join().expect("the thread ends"));
}
