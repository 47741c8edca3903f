//! W6: the time from an interrupt until the agent notices it. The floors are a parked thread that is unparked, and a
//! thread that spins on a flag. `cargo bench --bench w06_interrupt`

// The library's rule about locks does not apply to its benches.
#![allow(clippy::disallowed_types)]

mod common;

use std::hint::spin_loop;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use common::failures::exit_code;
use common::floors::{flags_seen, wakes};
use common::times::{interleaved, Times};
use common::{full_or_quick, open, report, title, STACK};
use turnwise::crossbeam_channel::{unbounded, Receiver};
use turnwise::{agent_fn, EphemeralSessionService, SessionId, SessionService, StartTurnRequest};

/// Long enough for a waiting thread to be parked before it is notified.
const SETTLE: Duration = Duration::from_micros(200);

fn main() -> ExitCode {
    let interrupts = full_or_quick(1_000, 100);
    let (begun_tx, begun) = unbounded();
    let (noticed_tx, noticed) = unbounded();
    let agent = agent_fn(move |prompt, turn| {
        begun_tx.send(()).expect("the bench listens");
        if prompt == "blocks" {
            // No message is ever sent. The channel disconnects with the cancel.
            let _ = turn.cancel_token().cancelled().recv();
        }
        while !turn.is_cancelled() {
            spin_loop();
        }
        noticed_tx.send(Instant::now()).expect("the bench listens");
        Ok(turn.finish(""))
    });
    let service = EphemeralSessionService::configure(agent).stack_size(STACK).build().expect("the settings are valid");
    let id = open(&service, 1)[0];
    let [wakes, blocks, flags, polls] = interleaved(
        5,
        [
            Box::new(|| wakes(interrupts, SETTLE)),
            Box::new(|| notices(&service, id, "blocks", (&begun, &noticed), interrupts)),
            Box::new(|| flags_seen(interrupts, SETTLE)),
            Box::new(|| notices(&service, id, "polls", (&begun, &noticed), interrupts)),
        ],
    );
    title("W6: from an interrupt until the agent notices");
    report("the agent blocks, p50", blocks.median(), wakes.median());
    report("the agent blocks, p99", blocks.percentile(99), wakes.percentile(99));
    report("the agent polls, p50", polls.median(), flags.median());
    report("the agent polls, p99", polls.percentile(99), flags.percentile(99));
    exit_code()
}

fn notices(
    service: &impl SessionService,
    id: SessionId,
    prompt: &str,
    (begun, noticed): (&Receiver<()>, &Receiver<Instant>),
    count: usize,
) -> Times {
    let notice = || {
        let turn = service.begin_turn(id, StartTurnRequest::new(prompt)).expect("a turn");
        // A turn that is interrupted before its run is not run, so its agent would never notice the interrupt.
        begun.recv().expect("the turn begins");
        thread::sleep(SETTLE);
        let told = Instant::now();
        service.interrupt(id).expect("the turn runs");
        let time = noticed.recv().expect("the agent notices") - told;
        turn.wait().expect("a result");
        time
    };
    (0..count).map(|_| notice()).collect()
}
