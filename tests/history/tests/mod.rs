//! Tests of the checker: histories that it must refuse, and histories that it must accept.
//!
//! Each test begins with a correct history, and changes one thing in it.

mod queue;
mod waits;

use std::sync::atomic::AtomicUsize;

use turnwise::{ArchiveMode, CancelReason, SessionState, WhenBusy};

use crate::answers::{Ending, Figures, Refused};
use crate::check::check;
use crate::history::{Counted, Stamp, What, Who, NEVER};
use crate::plan::{Plan, Slot, Step};
use crate::run::where_it_is;
use crate::told::*;

const UNEXPLAINED: &str = "session 0 cannot be explained";

#[test]
fn a_correct_life_passes() {
    told(1)
        .opened()
        .then(read(IDLE, 0, figures(0, 0)))
        .then(begun(1, 1))
        .then(busy(2, 1))
        .ran(1, 1, well(1))
        .then(What::Result { uid: 1 })
        .result(1, well(1))
        .then(read(IDLE, 1, figures(1, 1)))
        .then(What::Export(Ok(figures(1, 1))))
        .then(archived(ArchiveMode::Drain))
        .then(What::Read(Err(Refused::NotFound)))
        .agent(What::Dropped)
        .then(What::ArchiveWait(Ok(())))
        .passes();
}

#[test]
fn overlapping_calls_may_have_either_order() {
    let overlapping = |first: What, second: What| {
        told(1).opened().between(20, 40, Who::Thread(0), begun(1, 1)).between(21, 39, Who::Thread(1), first).between(
            22,
            38,
            Who::Thread(2),
            second,
        )
    };
    overlapping(busy(2, 1), read(IDLE, 0, figures(0, 0))).passes();
    overlapping(read(RUNNING, 1, figures(0, 0)), interrupted(Err(Refused::NotRunning))).passes();
    overlapping(begun(2, 1), busy(3, 1)).fails(UNEXPLAINED);
}

#[test]
fn two_admissions_at_once_are_refused() {
    told(1).opened().then(begun(1, 1)).then(begun(2, 2)).fails(UNEXPLAINED);
    // Two turns with the same number are refused too.
    told(1).opened().then(begun(1, 1)).ran(1, 1, well(1)).then(begun(2, 1)).fails(UNEXPLAINED);
}

#[test]
fn a_stale_read_after_the_result_is_refused() {
    let ended = || told(1).opened().then(begun(1, 1)).ran(1, 1, well(1)).then(What::Result { uid: 1 });
    ended().then(read(IDLE, 1, figures(1, 1))).passes();
    ended().then(read(IDLE, 1, figures(0, 0))).fails(UNEXPLAINED);
    ended().then(read(RUNNING, 1, figures(1, 1))).fails(UNEXPLAINED);
    ended().then(busy(2, 1)).fails(UNEXPLAINED);
}

#[test]
fn state_and_figures_of_different_instants_are_refused() {
    let odd = Figures { messages: 1, ..Figures::default() };
    let running = || told(1).opened().then(begun(1, 1)).entered(1, 1);
    running().then(read(RUNNING, 1, odd)).passes();
    running().then(read(RUNNING, 1, figures(0, 0))).fails(UNEXPLAINED);
    // The state is from before the turn, and the figures are from the middle of it.
    told(1)
        .opened()
        .between(20, 90, Who::Thread(1), read(IDLE, 0, odd))
        .between(30, 35, Who::Thread(0), begun(1, 1))
        .entered(1, 1)
        .fails(UNEXPLAINED);
}

#[test]
fn a_lost_interrupt_is_refused() {
    let interrupting = || told(1).opened().then(begun(1, 1)).then(interrupted(Ok(())));
    let reason = CancelReason::Interrupted;
    interrupting().entered(1, 1).agent(What::Looks(Some(reason))).left(1, 1, Ending::Cancelled(reason)).passes();
    interrupting().entered(1, 1).agent(What::Looks(None)).fails(UNEXPLAINED);
    // The turn was admitted, so `NotRunning` is wrong.
    told(1).opened().then(begun(1, 1)).then(interrupted(Err(Refused::NotRunning))).fails(UNEXPLAINED);
    // The same holds for an interrupt by handle before the run.
    told(1)
        .opened()
        .then(begun(1, 1))
        .then(What::InterruptHandle { uid: 1 })
        .entered(1, 1)
        .agent(What::Looks(None))
        .fails(UNEXPLAINED);
}

#[test]
fn an_interrupt_that_hits_the_next_turn_is_refused() {
    let next = |interrupt: What| {
        told(1)
            .opened()
            .then(begun(1, 1))
            .ran(1, 1, well(1))
            .then(What::Result { uid: 1 })
            .then(begun(2, 2))
            .then(interrupt)
            .entered(2, 2)
            .agent(What::Looks(Some(CancelReason::Interrupted)))
    };
    next(interrupted(Ok(()))).passes();
    next(What::InterruptHandle { uid: 1 }).fails(UNEXPLAINED);
    next(What::Interrupt { only: Some(1), answer: Err(Refused::NotRunning) }).fails(UNEXPLAINED);
}

#[test]
fn a_turn_cancelled_for_another_reason_is_refused() {
    let cancelled = |reason| {
        told(1).opened().then(begun(1, 1)).then(archived(ArchiveMode::Interrupt)).entered(1, 1).left(
            1,
            1,
            Ending::Cancelled(reason),
        )
    };
    cancelled(CancelReason::Archived).passes();
    cancelled(CancelReason::Interrupted).fails(UNEXPLAINED);
    // A draining archive cancels no turn.
    told(1)
        .opened()
        .then(begun(1, 1))
        .then(archived(ArchiveMode::Drain))
        .entered(1, 1)
        .agent(What::Looks(Some(CancelReason::Archived)))
        .fails(UNEXPLAINED);
}

#[test]
fn not_found_for_an_admitted_turn_is_refused() {
    let drained = |ending| {
        told(1)
            .opened()
            .then(begun(1, 1))
            .then(archived(ArchiveMode::Drain))
            .ran(1, 1, well(1))
            .then(What::Result { uid: 1 })
            .result(1, ending)
    };
    drained(well(1)).passes();
    drained(Ending::Wrong("SESSION_NOT_FOUND")).fails(UNEXPLAINED);
}

#[test]
fn a_turn_after_the_close_is_refused() {
    told(1).opened().then(archived(ArchiveMode::Drain)).then(begun(1, 1)).fails(UNEXPLAINED);
    told(1).opened().then(archived(ArchiveMode::Drain)).then(archived(ArchiveMode::Drain)).fails(UNEXPLAINED);
    // A call that began before the close is accepted: the turn may have been admitted before the close.
    told(1)
        .opened()
        .between(20, 40, Who::Thread(1), begun(1, 1))
        .between(25, 30, Who::Thread(0), archived(ArchiveMode::Drain))
        .passes();
}

#[test]
fn a_session_that_runs_a_turn_after_a_panic_is_refused() {
    let faulted = || told(1).opened().then(begun(1, 1)).ran(1, 1, Ending::Panicked).then(What::Result { uid: 1 });
    let refused = refused(2, WhenBusy::Refuse, Refused::Faulted);
    // The figures that the agent published before its panic stay.
    let shown = Figures { messages: 1, ..Figures::default() };
    faulted().then(refused).then(read(SessionState::Faulted, 1, shown)).passes();
    faulted().then(begun(2, 2)).fails(UNEXPLAINED);
    faulted().then(read(IDLE, 1, shown)).fails(UNEXPLAINED);
}

#[test]
fn an_end_before_the_drop_of_the_agent_is_refused() {
    let archived = || told(1).opened().then(archived(ArchiveMode::Drain));
    archived().agent(What::Dropped).then(What::ArchiveWait(Ok(()))).passes();
    archived().then(What::ArchiveWait(Ok(()))).agent(What::Dropped).fails(UNEXPLAINED);
    archived().opened().agent(What::Dropped).fails(UNEXPLAINED);
}

#[test]
fn capacity_exceeded_by_one_is_refused() {
    let two = [life(0, (1, 5), (50, 60)), life(1, (10, 20), (40, NEVER))];
    told(2).lived(&two).passes();
    told(1).lived(&two).fails("C02");
}

#[test]
fn capacity_freed_before_the_drop_of_the_agent_is_refused() {
    // The second session was registered while the agent of the first one was still being dropped.
    told(1).lived(&[life(0, (1, 5), (30, 40)), life(1, (20, 25), (50, 60))]).fails("C02");
    told(1).lived(&[life(0, (1, 5), (30, 40)), life(1, (20, 32), (50, 60))]).passes();
}

#[test]
fn a_refusal_with_free_capacity_is_refused() {
    let exceeded = Counted::Exceeded { active: 1, max: 1 };
    let one = [life(0, (10, 15), (30, 40))];
    told(1).lived(&one).counted(5, 12, exceeded).passes();
    told(1).lived(&one).counted(35, 45, exceeded).passes();
    told(1).lived(&one).counted(5, 9, exceeded).fails("C02");
    told(1).lived(&one).counted(41, 45, exceeded).fails("C02");
    told(1).lived(&one).counted(20, 25, Counted::Exceeded { active: 2, max: 1 }).fails("C02");
}

#[test]
fn impossible_counts_are_refused() {
    let one = [life(0, (10, 15), (30, 40))];
    told(1).lived(&one).counted(20, 25, Counted::Sessions(1)).passes();
    told(1).lived(&one).counted(20, 25, Counted::Sessions(0)).fails("C09");
    told(1).lived(&one).counted(45, 50, Counted::Sessions(1)).fails("C09");
    told(1).lived(&one).counted(20, 25, Counted::RegisteredAfter { seen: 0, answer: Some(1) }).passes();
    told(1).lived(&one).counted(20, 25, Counted::RegisteredAfter { seen: 0, answer: None }).fails("C08");
}

#[test]
fn a_list_out_of_order_is_refused() {
    let two = [life(1, (1, 5), (90, NEVER)), life(2, (10, 15), (90, NEVER))];
    let wrongs = |told: Told| check(&told.history).wrongs.join("\n");
    assert!(!wrongs(told(2).lived(&two).listed(20, 30, &[1, 2])).contains("C25"));
    told(2).lived(&two).listed(20, 30, &[2, 1]).fails("C25");
    // Sessions that were created at the same time may have either order, but not both.
    let together = [life(1, (1, 15), (90, NEVER)), life(2, (2, 15), (90, NEVER))];
    assert!(!wrongs(told(2).lived(&together).listed(20, 30, &[2, 1])).contains("C25"));
    told(2).lived(&together).listed(20, 30, &[2, 1]).listed(40, 50, &[1, 2]).fails("C25");
}

#[test]
fn a_list_without_a_live_session_is_refused() {
    let opened = || told(1).opened().lived(&[life(0, (0, 5), (NEVER, NEVER))]);
    opened().listed(20, 30, &[0]).passes();
    opened().listed(20, 30, &[]).fails(UNEXPLAINED);
    opened().then(archived(ArchiveMode::Drain)).listed(40, 50, &[]).passes();
    opened().then(archived(ArchiveMode::Drain)).listed(40, 50, &[0]).fails(UNEXPLAINED);
}

#[test]
fn two_results_of_one_turn_are_refused() {
    told(1).result(1, well(1)).result(1, well(1)).passes();
    told(1).result(1, well(1)).result(1, Ending::Failed).fails("ended twice");
}

#[test]
fn a_read_of_figures_that_are_not_published_yet_is_refused() {
    let reading = |until: Stamp| {
        told(1)
            .opened()
            .between(20, 25, Who::Thread(0), begun(1, 1))
            .entered(1, 1)
            .between(30, until, Who::Thread(1), read(IDLE, 1, figures(1, 1)))
            .between(50, 50, Who::Agent, What::Leave { ending: well(1), figures: figures(1, 1) })
    };
    reading(60).passes();
    reading(40).fails(UNEXPLAINED);
}

#[test]
fn the_report_of_a_hang_names_a_call_that_must_not_wait() {
    let threads = vec![vec![Step::Read { slot: Slot(0) }], vec![Step::Take { slot: Slot(0) }], vec![]];
    let plan = Plan { settings: settings(1), threads };
    let place = where_it_is(&plan, &(0..4).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
    assert_eq!(
        place.lines().collect::<Vec<_>>(),
        [
            "thread 0 is in step 0: Read { slot: Slot(0) }, which must never wait",
            "thread 1 is in step 0: Take { slot: Slot(0) }",
            "thread 2 is through"
        ]
    );
}
