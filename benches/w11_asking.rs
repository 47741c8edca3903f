//! W11: a turn that asks its host: the time from `respond` until the turn goes on, and the processor time of turns that
//! wait for a response. The floor of the times is a bare thread that waits for a message of a channel. That of the
//! processor time is what a program could do instead: threads that look for the response every 10 ms. `cargo bench
//! --bench w11_asking`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use common::failures::{attempt, exit_code};
use common::floors::{Echo, PingPong, Polling};
use common::processor::of_other_threads;
use common::times::{interleaved, time, Times};
use common::{full_or_quick, report, report_numbers, title, STACK};
use turnwise::crossbeam_channel::{unbounded, Receiver};
use turnwise::{agent_fn, AgentEvent, CreateSessionRequest, EphemeralSessionService, InputRequest, InputResponse};
use turnwise::{InputId, ServiceConfig, SessionAgentBuilder, SessionId, SessionService, SessionState, TurnHandle};

/// Long enough for a waiting thread to be parked before the response.
const SETTLE: Duration = Duration::from_micros(200);
/// The number of turns whose processor time is measured.
const WAITING: usize = 100;

fn main() -> ExitCode {
    let (responses, trips) = (full_or_quick(1_000, 100), full_or_quick(20_000, 2_000));
    let (echo, ping_pong) = (Echo::new(), PingPong::new());
    let (noticed_tx, noticed) = unbounded();
    // Asks again and again, and notes when each response has reached it.
    let agent = agent_fn(move |_, turn| loop {
        match turn.request_input(InputRequest::new("question", "?")) {
            Ok(_) => noticed_tx.send(Instant::now()).expect("the bench listens"),
            Err(error) => return Err(error.into()),
        }
    });
    let service = configure(agent).build().expect("the settings are valid");
    let asking = Asking::begin(&service);
    let [notices, parked, round_trips, asked] = interleaved(
        7,
        [
            Box::new(|| echo.notices(responses, SETTLE)),
            Box::new(|| asking.notices(responses, &noticed)),
            Box::new(|| ping_pong.round_trips(trips)),
            Box::new(|| asking.round_trips(trips, &noticed)),
        ],
    );
    title("W11: from a response until the turn goes on");
    report("the turn's thread is parked, p50", parked.median(), notices.median());
    report("the turn's thread is parked, p99", parked.percentile(99), notices.percentile(99));
    report("request and response in a loop, p50", asked.median(), round_trips.median());
    asking.turn.interrupt();
    attempt("the processor time of waiting turns", processor_time);
    exit_code()
}

fn configure<B: SessionAgentBuilder>(agent: B) -> ServiceConfig<B> {
    EphemeralSessionService::configure(agent).max_sessions(2 * WAITING).stack_size(STACK)
}

/// A turn that asks without end.
struct Asking<'a> {
    service: &'a dyn SessionService,
    turn: TurnHandle,
    events: Receiver<AgentEvent>,
}

impl<'a> Asking<'a> {
    fn begin(service: &'a dyn SessionService) -> Self {
        let (event_tx, events) = unbounded();
        let request = CreateSessionRequest::new("").event_tx(event_tx);
        Self { service, turn: service.begin_session(request).expect("a session"), events }
    }

    /// Waits until the turn asks.
    fn request(&self) -> InputId {
        loop {
            if let AgentEvent::InputRequested { input_id, .. } = self.events.recv().expect("the turn goes on") {
                return input_id;
            }
        }
    }

    fn respond(&self, input: InputId) {
        let answer = InputResponse::Answer(String::new());
        self.service.respond(self.turn.session_id(), input, answer).expect("the request is pending");
    }

    fn notices(&self, count: usize, noticed: &Receiver<Instant>) -> Times {
        let notice = || {
            let input = self.request();
            thread::sleep(SETTLE);
            let told = Instant::now();
            self.respond(input);
            noticed.recv().expect("the turn goes on") - told
        };
        (0..count).map(|_| notice()).collect()
    }

    fn round_trips(&self, count: usize, noticed: &Receiver<Instant>) -> Times {
        let round_trip = || {
            let input = self.request();
            self.respond(input);
        };
        let times = (0..count).map(|_| time(round_trip)).collect();
        noticed.iter().take(count).for_each(drop);
        times
    }
}

/// Compares the processor time of turns that wait for a response with that of bare threads that poll.
fn processor_time() {
    if of_other_threads().is_none() {
        println!("W11: not counted: there is no /proc here that says how long threads have run");
        return;
    }
    let second = Duration::from_millis(full_or_quick(1_000, 50) as u64);
    let agent = agent_fn(|_, turn| match turn.request_input(InputRequest::new("question", "?")) {
        Ok(answer) => Ok(turn.finish(answer)),
        Err(error) => Err(error.into()),
    });
    let service = configure(agent).build().expect("the settings are valid");
    let begin = |_| service.begin_session(CreateSessionRequest::new("")).expect("a session");
    let turns: Vec<TurnHandle> = (0..WAITING).map(begin).collect();
    turns.iter().for_each(|turn| wait_until_it_asks(&service, turn.session_id()));
    let figure = micros_during(second);
    assert_eq!(service.stats().waiting_turns, WAITING, "every turn still waits");
    turns.iter().for_each(TurnHandle::interrupt);
    drop(turns);
    assert!(service.shutdown(Duration::from_secs(60)).stuck.is_empty());
    let polling = Polling::new(WAITING, Duration::from_millis(10));
    let floor = micros_during(second);
    drop(polling);
    report_numbers(&format!("processor time of {WAITING} waiting turns in {second:?}"), figure, floor, "µs");
}

fn wait_until_it_asks(service: &dyn SessionService, id: SessionId) {
    while service.read(id).expect("the session is there").state.state != SessionState::Waiting {
        thread::yield_now();
    }
}

/// The processor time that all threads but this one use within `time`.
fn micros_during(time: Duration) -> f64 {
    thread::sleep(Duration::from_millis(100)); // until all threads are parked
    let before = of_other_threads().expect("/proc was readable before");
    thread::sleep(time);
    let after = of_other_threads().expect("/proc was readable before");
    (after - before).as_secs_f64() * 1e6
}
