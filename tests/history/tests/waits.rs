//! Histories about waits until a session is idle.

use turnwise::ArchiveMode;
use turnwise::WhenBusy::Queue;

use super::UNEXPLAINED;
use crate::answers::{Ending, Figures, Refused};
use crate::history::{What, Who};
use crate::told::*;

const TIMED_OUT: What = What::WaitIdle(Err(Refused::TimedOut));
const IS_IDLE: What = What::WaitIdle(Ok(()));

/// Turn 1 runs.
fn running() -> Told {
    told(1).opened().then(begun(1, 1)).entered(1, 1)
}

#[test]
fn a_wait_that_finds_a_busy_session_idle_is_refused() {
    told(1).opened().then(IS_IDLE).passes();
    running().left(1, 1, well(1)).then(IS_IDLE).passes();
    running().then(IS_IDLE).fails(UNEXPLAINED);
    running().left(1, 1, well(1)).told(1, well(1)).then(begun(2, 2)).then(IS_IDLE).fails(UNEXPLAINED);
    // While the agent is built.
    let building = |until| {
        let built = What::BuildEnds { well: true, figures: Figures::default() };
        told(1)
            .between(0, 60, Who::Thread(1), open())
            .between(1, 1, Who::Agent, What::BuildBegins { uid: 100 })
            .between(10, until, Who::Thread(0), IS_IDLE)
            .between(30, 30, Who::Agent, built)
    };
    building(40).passes();
    building(20).fails(UNEXPLAINED);
    // The session was idle before the call, and not during it.
    let idle_before = |call| {
        let again = running().left(1, 1, well(1)).told(1, well(1)).between(100, 110, Who::Thread(0), begun(2, 2));
        again.between(call, 130, Who::Thread(1), IS_IDLE)
    };
    idle_before(105).passes();
    idle_before(115).fails(UNEXPLAINED);
}

#[test]
fn a_wait_that_finds_an_idle_instant_between_two_queued_turns_is_refused() {
    let wait = |told: Told, begins, ends| told.between(begins, ends, Who::Thread(1), IS_IDLE);
    let queued = || running().then(accepted(2, Queue, 2)).left(1, 1, well(1)).entered(2, 2);
    wait(queued(), 40, 190).fails(UNEXPLAINED);
    wait(queued().left(2, 2, well(2)), 40, 190).passes();
}

#[test]
fn a_wait_that_runs_out_of_time_on_an_idle_session_is_refused() {
    running().then(TIMED_OUT).passes();
    told(1).opened().then(TIMED_OUT).fails(UNEXPLAINED);
    running().left(1, 1, well(1)).told(1, well(1)).then(TIMED_OUT).fails(UNEXPLAINED);
    running().left(1, 1, Ending::Panicked).told(1, Ending::Panicked).then(TIMED_OUT).fails(UNEXPLAINED);
    running().then(archived(ArchiveMode::Drain)).then(TIMED_OUT).fails(UNEXPLAINED);
}

#[test]
fn a_wait_that_ends_with_a_wrong_error_is_refused() {
    let closed = What::WaitIdle(Err(Refused::NotFound));
    let faulted = What::WaitIdle(Err(Refused::Faulted));
    let archiving = || running().then(archived(ArchiveMode::Drain));
    archiving().then(closed).passes();
    running().then(closed).fails(UNEXPLAINED);
    archiving().then(IS_IDLE).fails(UNEXPLAINED);
    let panicked = || running().left(1, 1, Ending::Panicked).told(1, Ending::Panicked);
    panicked().then(faulted).passes();
    panicked().then(IS_IDLE).fails(UNEXPLAINED);
    running().left(1, 1, Ending::Failed).then(faulted).fails(UNEXPLAINED);
    // A wait that begins after the close does not find the fault.
    panicked().then(archived(ArchiveMode::Drain)).then(faulted).fails(UNEXPLAINED);
}

fn open() -> What {
    What::Open { uid: 100, figures: Figures::default(), answer: Ok(()) }
}
