//! What a turn and an event cost through the C interface, beside the same in Rust:
//!
//! ```sh
//! cargo bench --bench overhead
//! ```
//!
//! Both sides run in one process and in turn, so that they meet the same machine. Each figure is the median of the
//! rounds; the ratio is the median of the rounds' ratios. `python/bench.py` measures the Python package.

use std::ffi::{c_char, c_void};
use std::hint::black_box;
use std::ptr;
use std::time::{Duration, Instant};

use library::{
    agent_fn, AgentEvent, EphemeralSessionService, SessionId, SessionService, SessionSpec, StartTurnRequest,
};
use turnwise::abi::context::{turnwise_context_answer, turnwise_context_emit_text};
use turnwise::abi::events::turnwise_next_event;
use turnwise::abi::service::{turnwise_close, turnwise_service_new, turnwise_service_shutdown};
use turnwise::abi::sessions::turnwise_open_session;
use turnwise::abi::structs::{TurnwiseAgent, TurnwiseEvent, TurnwiseResult, TurnwiseServiceOptions};
use turnwise::abi::texts::turnwise_string_free;
use turnwise::abi::turns::{turnwise_start_turn, turnwise_stream_turn};

const PROMPT: &str = "hello";
const EVENTS: u32 = 1000;

fn rounds() -> (usize, u32) {
    // One quick round shows that the bench runs.
    if std::env::var_os("TURNWISE_BENCH_QUICK").is_some() {
        (1, 20)
    } else {
        (41, 2000)
    }
}

/// Time per call.
fn timed(calls: u32, mut call: impl FnMut()) -> Duration {
    let begin = Instant::now();
    (0..calls).for_each(|_| call());
    begin.elapsed() / calls
}

extern "C" fn run_turn(_: *mut c_void, _: *mut c_void, ctx: u64, prompt: *const c_char, len: usize) -> i32 {
    if len != PROMPT.len() {
        for _ in 0..EVENTS {
            // SAFETY: the text is one of the program, and there is no struct for an error.
            unsafe { turnwise_context_emit_text(ctx, c"piece".as_ptr(), 5, ptr::null_mut()) };
        }
    }
    // SAFETY: the prompt is valid until this function returns, and the other pointers are null.
    unsafe { turnwise_context_answer(ctx, prompt, len, ptr::null(), 0, ptr::null_mut()) }
}

struct Host {
    service: u64,
    session: [c_char; 40],
}

impl Host {
    fn new() -> Self {
        let agent = TurnwiseAgent {
            size: size_of::<TurnwiseAgent>(),
            context: ptr::null_mut(),
            build: None,
            run_turn: Some(run_turn),
            drop_state: None,
            drop_context: None,
            on_cancel: None,
        };
        let options = TurnwiseServiceOptions {
            size: size_of::<TurnwiseServiceOptions>(),
            agent: &raw const agent,
            store_path: ptr::null(),
            store_path_len: 0,
            settings: ptr::null(),
            settings_len: 0,
        };
        let (mut service, mut session) = (0, [0; 40]);
        // SAFETY: all pointers are to values of this function, or null.
        let codes = unsafe {
            [
                turnwise_service_new(&raw const options, &raw mut service, ptr::null_mut()),
                turnwise_open_session(service, ptr::null(), 0, session.as_mut_ptr(), ptr::null_mut()),
            ]
        };
        assert_eq!(codes, [0, 0]);
        Self { service, session }
    }

    fn turn(&self) {
        // SAFETY: a result of zeros has null pointers, and its size is set.
        let mut result: TurnwiseResult = unsafe { std::mem::zeroed() };
        result.size = size_of::<TurnwiseResult>();
        let (session, prompt) = (self.session.as_ptr(), PROMPT.as_ptr().cast());
        // SAFETY: the texts have these lengths, and the struct has its size.
        let code = unsafe {
            turnwise_start_turn(
                self.service,
                session,
                36,
                prompt,
                PROMPT.len(),
                ptr::null(),
                0,
                &raw mut result,
                ptr::null_mut(),
            )
        };
        assert_eq!((code, result.text_len), (0, PROMPT.len()));
        assert_eq!(turnwise_string_free(black_box(result.text)), 0);
    }

    fn events(&self) {
        let (mut turn, mut events) = (0, 0);
        // SAFETY: an event of zeros has null pointers, and its size is set.
        let mut event: TurnwiseEvent = unsafe { std::mem::zeroed() };
        event.size = size_of::<TurnwiseEvent>();
        // SAFETY: the texts have these lengths, and all structs have their sizes.
        unsafe {
            let session = self.session.as_ptr();
            let code = turnwise_stream_turn(
                self.service,
                session,
                36,
                c"events".as_ptr(),
                6,
                ptr::null(),
                0,
                &raw mut turn,
                ptr::null_mut(),
            );
            assert_eq!(code, 0);
            while turnwise_next_event(turn, -1, &raw mut event, ptr::null_mut()) == 0 {
                events += 1;
                turnwise_string_free(black_box(event.json));
            }
            assert_eq!((events, turnwise_close(turn, ptr::null_mut())), (EVENTS + 2, 0));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: the null pointers ask for no report and no error.
        unsafe {
            turnwise_service_shutdown(self.service, 1, -1, ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
            turnwise_close(self.service, ptr::null_mut());
        }
    }
}

fn median<T: PartialOrd + Copy>(mut values: Vec<T>) -> T {
    values.sort_by(|one, other| one.partial_cmp(other).expect("a number"));
    values[values.len() / 2]
}

fn compare(what: &str, calls: u32, per: u32, mut rust: impl FnMut(), mut c: impl FnMut()) {
    let mut pairs = Vec::new();
    for round in 0..rounds().0 {
        // The side that begins changes, because the first may meet a colder cache.
        let pair = if round % 2 == 0 {
            let first = timed(calls, &mut rust);
            (first, timed(calls, &mut c))
        } else {
            let first = timed(calls, &mut c);
            (timed(calls, &mut rust), first)
        };
        pairs.push((pair.0 / per, pair.1 / per));
    }
    let ratio = median(pairs.iter().map(|(rust, c)| c.as_secs_f64() / rust.as_secs_f64()).collect());
    let (rust, c) =
        (median(pairs.iter().map(|pair| pair.0).collect()), median(pairs.iter().map(|pair| pair.1).collect()));
    println!("{what}: Rust {rust:.2?}, C {c:.2?}, ratio {ratio:.2}");
}

fn main() {
    let agent = agent_fn(|prompt, turn| {
        if prompt != PROMPT {
            for _ in 0..EVENTS {
                turn.emit(AgentEvent::TextDelta { delta: "piece".into() })?;
            }
        }
        Ok(turn.finish(prompt))
    });
    let service = EphemeralSessionService::new(agent, 1);
    let id: SessionId = service.open_session(SessionSpec::new()).expect("a session");
    let host = Host::new();
    let turns = rounds().1;
    let turn = || drop(black_box(service.start_turn(id, StartTurnRequest::new(PROMPT)).expect("a result")));
    compare("a turn, round trip", turns, 1, turn, || host.turn());
    let stream = || {
        let stream = service.stream_turn(id, StartTurnRequest::new("events")).expect("a stream");
        assert_eq!(stream.map(black_box).count(), EVENTS as usize + 2);
    };
    compare("an event of a stream", turns / 100 + 1, EVENTS, stream, || host.events());
}
