//! W5: a read of an idle session, and of one that runs a turn. The floor is a read lock and a clone. `cargo bench
//! --bench w05_read`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::RwLock;

use common::failures::{attempt, exit_code};
use common::floors::locked_clone;
use common::times::{interleaved, times, times_of_thousands, Times};
use common::{emit, full_or_quick, open, report, service, shut_down, title, wait, Service};
use turnwise::crossbeam_channel::unbounded;
use turnwise::{AgentEvent, SessionId, SessionService, StartTurnRequest, TurnHandle};

fn main() -> ExitCode {
    let batches = full_or_quick(100, 10);
    let (blocking, busy) = (service(wait), service(emit));
    let (idle_id, blocked_id, busy_id) = (open(&blocking, 1)[0], open(&blocking, 1)[0], open(&busy, 1)[0]);
    let view = RwLock::new(blocking.read(idle_id).expect("a live session"));
    let running = begin(&busy, busy_id, "1000000000000");
    let [floor, idle, blocked, busy_reads] = interleaved(
        9,
        [
            Box::new(|| locked_clone(batches, &view)),
            Box::new(|| times_of_thousands(batches, || read(&blocking, idle_id))),
            Box::new(|| {
                during_a_turn(&blocking, blocked_id, || times_of_thousands(batches, || read(&blocking, blocked_id)))
            }),
            Box::new(|| times_of_thousands(batches, || read(&busy, busy_id))),
        ],
    );
    running.interrupt();
    running.wait().expect_err("interrupted");
    title("W5: a read");
    report("idle", idle.median(), floor.median());
    report("during a turn that blocks", blocked.median(), floor.median());
    report("during a turn that emits events", busy_reads.median(), floor.median());
    // Each read is measured alone. A read that waited for the turn would not return.
    let alone = attempt("the slowest read during a turn", || {
        during_a_turn(&blocking, blocked_id, || times(batches * 1_000, || read(&blocking, blocked_id)))
    });
    report("during a turn that blocks, the slowest", alone.unwrap_or_default().max(), floor.median());
    [blocking, busy].iter().for_each(shut_down);
    exit_code()
}

fn read(service: &Service, id: SessionId) {
    drop(black_box(service.read(id).expect("a live session")));
}

/// Calls `take` during a turn that blocks until it is interrupted.
fn during_a_turn(service: &Service, id: SessionId, take: impl FnOnce() -> Times) -> Times {
    let running = begin(service, id, "wait");
    let times = take();
    running.interrupt();
    running.wait().expect_err("interrupted");
    times
}

/// Starts a turn, and waits for its first event, so that the turn runs and is not only admitted.
fn begin(service: &Service, id: SessionId, prompt: &str) -> TurnHandle {
    let (event_tx, events) = unbounded::<AgentEvent>();
    let turn = service.begin_turn(id, StartTurnRequest::new(prompt).event_tx(event_tx)).expect("a turn");
    events.recv().expect("the turn runs");
    turn
}
