//! The times of the loop: the starts of the frames, the durations of their work, and the share of the library's calls.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

/// 60 frames a second.
pub(crate) const FRAME: Duration = Duration::from_nanos(16_666_667);

/// Measures the library's calls. Every call goes through it, so that none is missed.
#[derive(Default)]
pub(crate) struct Meter {
    calls: u64,
    in_frame: Duration,
    slowest: (&'static str, Duration),
}

impl Meter {
    pub(crate) fn call<T>(&mut self, name: &'static str, call: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = call();
        let took = started.elapsed();
        self.calls += 1;
        self.in_frame += took;
        if took > self.slowest.1 {
            self.slowest = (name, took);
        }
        result
    }
}

/// The starts and the durations of the frames.
pub(crate) struct Frames {
    due: Instant,
    overshoot: Vec<Duration>,
    work: Vec<Duration>,
    library: Vec<Duration>,
    /// The part of the work during which the thread had no processor.
    waited: Vec<Duration>,
    processor: Processor,
}

impl Frames {
    pub(crate) fn new() -> Self {
        let (overshoot, work, library, waited) = Default::default();
        Self { due: Instant::now(), overshoot, work, library, waited, processor: Processor::new() }
    }

    /// Sleeps until the next frame is due, then calls `work` for it.
    pub(crate) fn draw(&mut self, meter: &mut Meter, work: impl FnOnce(&mut Meter)) {
        thread::sleep(self.due.saturating_duration_since(Instant::now()));
        let (started, waited) = (Instant::now(), self.processor.waited());
        self.overshoot.push(started.saturating_duration_since(self.due));
        meter.in_frame = Duration::ZERO;
        work(meter);
        self.work.push(started.elapsed());
        self.library.push(meter.in_frame);
        self.waited.push(self.processor.waited().saturating_sub(waited));
        // After a late frame, the next one begins at once, and the later ones follow at the normal period.
        self.due = (self.due + FRAME).max(Instant::now());
    }

    /// Whether the library's calls took longer than a frame in any frame. Time without a processor does not count.
    pub(crate) fn was_blocked(&self) -> bool {
        self.library.iter().zip(&self.waited).any(|(library, waited)| library.saturating_sub(*waited) > FRAME)
    }

    pub(crate) fn report(&self, meter: &Meter) -> String {
        let late = self.work.iter().zip(&self.waited).filter(|(work, _)| **work > FRAME);
        let starved = late.clone().filter(|(work, waited)| work.saturating_sub(**waited) <= FRAME).count();
        let (late, budget) = (late.count(), Millis(FRAME));
        let (name, took) = meter.slowest;
        [
            format!("frames: {} drawn, {late} late, {starved} of them for want of a processor", self.work.len()),
            format!("frame work: {}, budget {budget}", Spread::of(&self.work)),
            format!("library calls: {} in a frame, {} in all", Spread::of(&self.library), meter.calls),
            format!("slowest call: {name}, {}", Millis(took)),
            format!("sleep overshoot: {}", Spread::of(&self.overshoot)),
        ]
        .join("\n")
    }
}

/// The time for which this thread was ready and had no processor. Linux reports it. On other systems it is 0.
struct Processor {
    #[cfg(target_os = "linux")]
    figures: Option<std::fs::File>,
}

#[cfg(target_os = "linux")]
impl Processor {
    fn new() -> Self {
        Self { figures: std::fs::File::open("/proc/thread-self/schedstat").ok() }
    }

    fn waited(&self) -> Duration {
        use std::os::unix::fs::FileExt;
        let read = self.figures.as_ref().and_then(|figures| {
            let mut text = [0; 64];
            let length = figures.read_at(&mut text, 0).ok()?;
            let text = std::str::from_utf8(&text[..length]).ok()?;
            // The fields are the nanoseconds of running, the nanoseconds of waiting, and a count.
            text.split_whitespace().nth(1)?.parse().ok()
        });
        read.map_or(Duration::ZERO, Duration::from_nanos)
    }
}

#[cfg(not(target_os = "linux"))]
impl Processor {
    fn new() -> Self {
        Self {}
    }

    fn waited(&self) -> Duration {
        Duration::ZERO
    }
}

struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} ms", self.0.as_secs_f64() * 1e3)
    }
}

struct Spread {
    median: Duration,
    p99: Duration,
    worst: Duration,
}

impl Spread {
    fn of(durations: &[Duration]) -> Self {
        let mut sorted = durations.to_vec();
        sorted.sort_unstable();
        let at = |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied();
        let at = |percent| at(percent).unwrap_or_default();
        Self { median: at(50), p99: at(99), worst: at(100) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { median, p99, worst } = *self;
        write!(f, "median {}, p99 {}, worst {}", Millis(median), Millis(p99), Millis(worst))
    }
}
