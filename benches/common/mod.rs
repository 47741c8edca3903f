//! What the benches share: how something is timed, how a figure is printed, and the service that is measured.
//!
//! Every figure is printed with its floor, the bare operation of the system that the work cannot do without, and their
//! ratio, all of one run: absolute figures say more about the machine than about the code. Figures are medians where a line
//! does not say otherwise. No timing makes a bench fail. A measurement that fails says so and makes the process fail at its end,
//! after the others.

// Each bench is a crate of its own and uses a part of this.
#![allow(dead_code)]

pub(crate) mod failures;
pub(crate) mod floors;
pub(crate) mod memory;
pub(crate) mod plot;
pub(crate) mod times;

use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

use turnwise::{
    AgentError, AgentEvent, Cancelled, EphemeralSessionService, RunResult, ServiceConfig, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionId, SessionService, SessionSpec, TurnContext,
};

/// How many sessions are many.
pub(crate) const MANY: usize = 10_000;
/// The stack of every thread, so that ours and those of the floors are of one size.
pub(crate) const STACK: usize = 64 << 10;

/// `full`, or `quick` where the environment asks for a run that only shows that the bench works.
pub(crate) fn full_or_quick(full: usize, quick: usize) -> usize {
    if std::env::var_os("TURNWISE_BENCH_QUICK").is_some() {
        quick
    } else {
        full
    }
}

/// [`MANY`], or enough for a quick run.
pub(crate) fn many() -> usize {
    full_or_quick(MANY, 300)
}

/// What agents do in a turn besides answering.
pub(crate) type Work = fn(&str, &TurnContext) -> Result<(), Cancelled>;

/// Nothing: what is measured is the service.
pub(crate) fn nothing(_prompt: &str, _turn: &TurnContext) -> Result<(), Cancelled> {
    Ok(())
}

/// As many events as the prompt says.
pub(crate) fn emit(prompt: &str, turn: &TurnContext) -> Result<(), Cancelled> {
    (0..number(prompt)).try_for_each(|_| turn.emit(delta()))
}

/// Blocks its thread for as many milliseconds as the prompt says, as a call of a blocking client would.
pub(crate) fn block(prompt: &str, _turn: &TurnContext) -> Result<(), Cancelled> {
    thread::sleep(Duration::from_millis(number(prompt)));
    Ok(())
}

/// Keeps its core busy for as many microseconds as the prompt says.
pub(crate) fn compute(prompt: &str, _turn: &TurnContext) -> Result<(), Cancelled> {
    keep_busy(Duration::from_micros(number(prompt)));
    Ok(())
}

/// Waits to be told to stop, where the prompt is "wait"; otherwise nothing.
pub(crate) fn wait(prompt: &str, turn: &TurnContext) -> Result<(), Cancelled> {
    if prompt == "wait" {
        // Nothing is ever sent: the channel ends with the cancellation.
        let _ = turn.cancel_token().cancelled().recv();
    }
    turn.check()
}

fn number(prompt: &str) -> u64 {
    prompt.parse().unwrap_or(0)
}

/// Work whose length does not depend on the speed of the machine.
pub(crate) fn keep_busy(time: Duration) {
    let started = Instant::now();
    while started.elapsed() < time {
        spin_loop();
    }
}

/// An event of the most frequent kind.
pub(crate) fn delta() -> AgentEvent {
    AgentEvent::TextDelta { delta: "word ".to_owned() }
}

/// Builds agents that do no work of their own: no history grows, no text is made.
#[derive(Debug)]
pub(crate) struct Workers(Work);

impl SessionAgentBuilder for Workers {
    type Agent = Worker;

    fn build_agent(&self, _spec: &SessionSpec, session: &SessionContext) -> Result<Worker, AgentError> {
        Ok(Worker { session: Session::with_id(session.session_id()), work: self.0 })
    }
}

#[derive(Debug)]
pub(crate) struct Worker {
    session: Session,
    work: Work,
}

impl SessionAgent for Worker {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        (self.work)(&prompt, turn)?;
        Ok(turn.finish(""))
    }

    fn session_clone(&self) -> Session {
        self.session.clone()
    }
}

pub(crate) type Service = EphemeralSessionService<Workers>;

/// The settings of every measured service. Twice as many sessions as are ever alive, since archived ones count until their
/// threads have ended.
pub(crate) fn configure(work: Work) -> ServiceConfig<Workers> {
    EphemeralSessionService::configure(Workers(work)).max_sessions(2 * MANY).stack_size(STACK)
}

pub(crate) fn service(work: Work) -> Service {
    configure(work).build().expect("the settings work")
}

/// Opens `count` sessions, whose agents are built and have run no turn.
pub(crate) fn open(service: &impl SessionService, count: usize) -> Vec<SessionId> {
    (0..count).map(|_| service.open_session(SessionSpec::new()).expect("a thread")).collect()
}

/// Ends every session, so that what is measured next has the machine to itself.
pub(crate) fn shut_down(service: &Service) {
    let report = service.shutdown(Duration::from_secs(60));
    assert!(report.stuck.is_empty(), "sessions that do not end: {report:?}");
}

/// The head of a bench's table.
pub(crate) fn title(workload: &str) {
    println!("{workload:<48} {:>12} {:>12} {:>7}", "figure", "floor", "ratio");
}

/// A line of the table. A time of zero is that of a measurement that has failed.
pub(crate) fn report(what: &str, figure: Duration, floor: Duration) {
    println!("{}", line(what, figure, floor));
}

/// A line of the table that has its figure per second too.
pub(crate) fn report_rate(what: &str, figure: Duration, floor: Duration, unit: &str) {
    match figure.is_zero() {
        true => report(what, figure, floor),
        false => println!("{}   {:.0} k {unit}/s", line(what, figure, floor), 1e-3 / figure.as_secs_f64()),
    }
}

/// A line of the table whose figures are no times.
pub(crate) fn report_numbers(what: &str, figure: f64, floor: f64, unit: &str) {
    let (figure_text, floor_text) = (format!("{figure:.2} {unit}"), format!("{floor:.2} {unit}"));
    println!("  {what:<46} {figure_text:>12} {floor_text:>12} {:>7.2}", figure / floor);
}

fn line(what: &str, figure: Duration, floor: Duration) -> String {
    let text = |time: Duration| if time.is_zero() { "failed".to_owned() } else { format!("{time:.2?}") };
    let ratio = match figure.is_zero() || floor.is_zero() {
        true => String::new(),
        false => format!("{:.2}", figure.as_secs_f64() / floor.as_secs_f64()),
    };
    format!("  {what:<46} {:>12} {:>12} {ratio:>7}", text(figure), text(floor))
}
