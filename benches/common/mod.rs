//! The shared parts of the benches: the measurement of times, the output of figures, and the measured service.
//!
//! Every figure is printed with its floor and their ratio. The floor is the bare operation of the system that the work
//! needs in any case. Figure and floor are from one run, because absolute figures say more about the machine than about
//! the code. Figures are medians unless the line says otherwise. No time makes a bench fail. A measurement that fails
//! is reported, and makes the process fail after all other measurements.

// Each bench is a crate of its own, and uses a part of this module.
#![allow(dead_code)]

pub(crate) mod failures;
pub(crate) mod floors;
pub(crate) mod memory;
pub(crate) mod plot;
pub(crate) mod processor;
pub(crate) mod times;

use std::hint::spin_loop;
use std::thread;
use std::time::{Duration, Instant};

use turnwise::{
    AgentError, AgentEvent, Cancelled, EphemeralSessionService, RunResult, ServiceConfig, Session, SessionAgent,
    SessionAgentBuilder, SessionContext, SessionId, SessionService, SessionSpec, TurnContext,
};

/// The number of sessions in the large workloads.
pub(crate) const MANY: usize = 10_000;
/// The stack size of every thread, of the service and of the floors alike.
pub(crate) const STACK: usize = 64 << 10;

/// `full`, or `quick` if the environment asks for a run that only shows that the bench works.
pub(crate) fn full_or_quick(full: usize, quick: usize) -> usize {
    if std::env::var_os("TURNWISE_BENCH_QUICK").is_some() {
        quick
    } else {
        full
    }
}

/// [`MANY`], or fewer for a quick run.
pub(crate) fn many() -> usize {
    full_or_quick(MANY, 300)
}

/// The work of an agent in a turn.
pub(crate) type Work = fn(&str, &TurnContext) -> Result<(), Cancelled>;

/// No work, so that only the service is measured.
pub(crate) fn nothing(_prompt: &str, _turn: &TurnContext) -> Result<(), Cancelled> {
    Ok(())
}

/// Emits as many events as the prompt says.
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

/// Waits for a cancel if the prompt is "wait". Otherwise no work.
pub(crate) fn wait(prompt: &str, turn: &TurnContext) -> Result<(), Cancelled> {
    if prompt == "wait" {
        // No message is ever sent. The channel disconnects with the cancel.
        let _ = turn.cancel_token().cancelled().recv();
    }
    turn.check()
}

fn number(prompt: &str) -> u64 {
    prompt.parse().unwrap_or(0)
}

/// Work whose duration does not depend on the speed of the machine.
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

/// Builds agents that only do their [`Work`]: no history grows, and no text is made.
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

/// The settings of every measured service. The limit is twice the number of live sessions, since an archived session
/// counts until its thread has ended.
pub(crate) fn configure(work: Work) -> ServiceConfig<Workers> {
    EphemeralSessionService::configure(Workers(work)).max_sessions(2 * MANY).stack_size(STACK)
}

pub(crate) fn service(work: Work) -> Service {
    configure(work).build().expect("the settings are valid")
}

/// Opens `count` sessions. Their agents are built, and have run no turn.
pub(crate) fn open(service: &impl SessionService, count: usize) -> Vec<SessionId> {
    (0..count).map(|_| service.open_session(SessionSpec::new()).expect("a thread")).collect()
}

/// Ends every session, so that the next measurement has the machine to itself.
pub(crate) fn shut_down(service: &Service) {
    let report = service.shutdown(Duration::from_secs(60));
    assert!(report.stuck.is_empty(), "stuck sessions: {report:?}");
}

/// Prints the head of a bench's table.
pub(crate) fn title(workload: &str) {
    println!("{workload:<48} {:>12} {:>12} {:>7}", "figure", "floor", "ratio");
}

/// Prints a line of the table. A time of zero means that the measurement has failed.
pub(crate) fn report(what: &str, figure: Duration, floor: Duration) {
    println!("{}", line(what, figure, floor));
}

/// Prints a line of the table that also has the rate per second.
pub(crate) fn report_rate(what: &str, figure: Duration, floor: Duration, unit: &str) {
    match figure.is_zero() {
        true => report(what, figure, floor),
        false => println!("{}   {:.0} k {unit}/s", line(what, figure, floor), 1e-3 / figure.as_secs_f64()),
    }
}

/// Prints a line of the table whose figures are no times.
pub(crate) fn report_numbers(what: &str, figure: f64, floor: f64, unit: &str) {
    let (figure_text, floor_text) = (format!("{figure:.2} {unit}"), format!("{floor:.2} {unit}"));
    let ratio = if floor > 0.0 { format!("{:.2}", figure / floor) } else { String::new() };
    println!("  {what:<46} {figure_text:>12} {floor_text:>12} {ratio:>7}");
}

fn line(what: &str, figure: Duration, floor: Duration) -> String {
    let text = |time: Duration| if time.is_zero() { "failed".to_owned() } else { format!("{time:.2?}") };
    let ratio = match figure.is_zero() || floor.is_zero() {
        true => String::new(),
        false => format!("{:.2}", figure.as_secs_f64() / floor.as_secs_f64()),
    };
    format!("  {what:<46} {:>12} {:>12} {ratio:>7}", text(figure), text(floor))
}
