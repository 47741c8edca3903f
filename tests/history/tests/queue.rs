//! Histories about the queue of a session.

use turnwise::WhenBusy::{Interrupt, Queue, Refuse};
use turnwise::{ArchiveMode, CancelReason, SessionState};

use super::UNEXPLAINED;
use crate::answers::{Ending, Figures, Refused};
use crate::history::{Uid, What, Who};
use crate::told::*;

const INTERRUPTED: Ending = Ending::Cancelled(CancelReason::Interrupted);
const SUPERSEDED: Ending = Ending::Cancelled(CancelReason::Superseded);

/// Turn 1 runs.
fn running() -> Told {
    told(1).opened().then(begun(1, 1)).entered(1, 1)
}

/// Turn 1 runs, and turns 2 and 3 fill the queue.
fn two_queued() -> Told {
    running().then(accepted(2, Queue, 2)).then(accepted(3, Queue, 3))
}

fn interrupted_turn(number: u64, answer: Result<(), Refused>) -> What {
    What::Interrupt { only: Some(number), answer }
}

#[test]
fn queued_turns_out_of_order_are_refused() {
    let first_ended = || two_queued().left(1, 1, well(1)).told(1, well(1));
    let all = first_ended().ran(2, 2, well(2)).ran(3, 3, well(3));
    all.told(3, well(3)).told(2, well(2)).then(read(IDLE, 3, figures(3, 3))).passes();
    first_ended().ran(3, 3, well(3)).fails(UNEXPLAINED);
    // Two of them at a time.
    two_queued().entered(2, 2).fails(UNEXPLAINED);
    // A subscriber of all sessions sees the order too, also of turns that no agent has run.
    let both_interrupted = |started: &[Uid]| {
        let second = first_ended().then(interrupted(Ok(()))).told(2, INTERRUPTED);
        second.then(interrupted_turn(3, Ok(()))).told(3, INTERRUPTED).started(started)
    };
    both_interrupted(&[1, 2, 3]).passes();
    both_interrupted(&[1, 3, 2]).fails(UNEXPLAINED);
}

#[test]
fn a_refuse_caller_between_two_queued_turns_is_refused() {
    let handed_over = || running().then(accepted(2, Queue, 2)).left(1, 1, well(1)).told(1, well(1));
    handed_over().then(busy(3, 2)).ran(2, 2, well(2)).then(begun(3, 3)).passes();
    handed_over().then(begun(3, 3)).fails(UNEXPLAINED);
    handed_over().between(100, 190, Who::Thread(1), begun(3, 3)).ran(2, 2, well(2)).fails(UNEXPLAINED);
    // `Busy` names the admitted turn, not one that has ended, and not one that is queued.
    handed_over().then(busy(3, 1)).fails(UNEXPLAINED);
    two_queued().then(busy(4, 1)).passes();
    two_queued().then(busy(4, 2)).fails(UNEXPLAINED);
    two_queued().then(refused(4, Refuse, Refused::Busy(None))).fails(UNEXPLAINED);
}

#[test]
fn numbers_that_do_not_rise_with_each_accepted_turn_are_refused() {
    running().then(accepted(2, Queue, 1)).fails(UNEXPLAINED);
    running().then(accepted(2, Queue, 3)).fails(UNEXPLAINED);
    two_queued()
        .then(refused(4, Queue, Refused::QueueFull(2)))
        .left(1, 1, well(1))
        .then(accepted(5, Queue, 4))
        .passes();
    two_queued()
        .then(refused(4, Queue, Refused::QueueFull(2)))
        .left(1, 1, well(1))
        .then(accepted(5, Queue, 5))
        .fails(UNEXPLAINED);
    // A withdrawn turn has used its number.
    let withdrawn = || running().then(accepted(2, Queue, 2)).then(interrupted_turn(2, Ok(())));
    withdrawn().then(accepted(3, Queue, 3)).passes();
    withdrawn().then(accepted(3, Queue, 2)).fails(UNEXPLAINED);
}

#[test]
fn a_full_queue_with_room_and_a_queue_with_too_many_turns_are_refused() {
    two_queued().then(refused(4, Queue, Refused::QueueFull(2))).passes();
    two_queued().then(refused(4, Interrupt, Refused::QueueFull(2))).passes();
    two_queued().then(accepted(4, Queue, 4)).fails(UNEXPLAINED);
    two_queued().then(accepted(4, Interrupt, 4)).fails(UNEXPLAINED);
    two_queued().then(refused(4, Queue, Refused::QueueFull(1))).fails(UNEXPLAINED);
    let one_queued = || running().then(accepted(2, Queue, 2));
    one_queued().then(refused(3, Queue, Refused::QueueFull(2))).fails(UNEXPLAINED);
    // A withdrawal makes room at once, and so does a hand-over.
    let withdrawn = || two_queued().then(interrupted_turn(2, Ok(())));
    withdrawn().then(refused(4, Queue, Refused::QueueFull(2))).fails(UNEXPLAINED);
    let handed_over = || two_queued().left(1, 1, well(1)).told(1, well(1));
    handed_over().then(refused(4, Queue, Refused::QueueFull(2))).fails(UNEXPLAINED);
    // A turn that may queue is never busy, and on an idle session it is admitted.
    one_queued().then(refused(3, Queue, Refused::Busy(Some(1)))).fails(UNEXPLAINED);
    let mut idle = told(1).opened();
    idle.history.settings.turn_queue = 0;
    idle.then(accepted(1, Queue, 1)).then(refused(2, Queue, Refused::QueueFull(0))).passes();
    told(1).opened().then(refused(1, Queue, Refused::QueueFull(2))).fails(UNEXPLAINED);
}

#[test]
fn a_queued_turn_that_runs_after_its_withdrawal_is_refused() {
    let by_handle = |uid| What::InterruptHandle { uid };
    for withdrawal in [interrupted_turn(2, Ok(())), by_handle(2)] {
        let withdrawn = || two_queued().then(withdrawal).told(2, INTERRUPTED);
        let ended = || withdrawn().left(1, 1, well(1));
        ended().ran(3, 3, well(3)).passes();
        ended().ran(2, 2, well(2)).fails(UNEXPLAINED);
        ended().ran(2, 2, INTERRUPTED).fails(UNEXPLAINED);
        withdrawn().then(What::IsQueued { uid: 2, answer: true }).fails(UNEXPLAINED);
        withdrawn().received(2, false).passes();
        withdrawn().received(2, true).fails(UNEXPLAINED);
        // It is answered by then.
        two_queued().then(withdrawal).then(What::NoResult { uid: 2 }).fails(UNEXPLAINED);
        two_queued().then(withdrawal).then(What::NoResult { uid: 3 }).passes();
        two_queued().then(withdrawal).then(read_queue(RUNNING, 3, 1, odd(0))).passes();
        two_queued().then(withdrawal).then(read_queue(RUNNING, 3, 2, odd(0))).fails(UNEXPLAINED);
    }
    // A turn that is not withdrawn gets events.
    running().left(1, 1, well(1)).told(1, well(1)).received(1, false).fails(UNEXPLAINED);
}

#[test]
fn a_withdrawal_that_reaches_another_turn_is_refused() {
    two_queued().then(interrupted_turn(2, Err(Refused::NotRunning))).fails(UNEXPLAINED);
    two_queued().then(interrupted_turn(4, Err(Refused::NotRunning))).passes();
    let withdrawn = || two_queued().then(interrupted_turn(2, Ok(())));
    withdrawn().agent(What::Looks(None)).passes();
    withdrawn().agent(What::Looks(Some(CancelReason::Interrupted))).fails(UNEXPLAINED);
    withdrawn().told(3, INTERRUPTED).fails(UNEXPLAINED);
    // Without a number an interrupt reaches the admitted turn alone.
    let first = || two_queued().then(interrupted(Ok(())));
    first().agent(What::Looks(Some(CancelReason::Interrupted))).passes();
    first().told(2, INTERRUPTED).fails(UNEXPLAINED);
}

#[test]
fn an_interrupt_that_finds_no_turn_between_two_queued_turns_is_refused() {
    let handed_over = || running().then(accepted(2, Queue, 2)).left(1, 1, well(1));
    handed_over().then(interrupted(Ok(()))).passes();
    handed_over().then(interrupted(Err(Refused::NotRunning))).fails(UNEXPLAINED);
    let is_over = || running().left(1, 1, well(1));
    is_over().then(interrupted(Err(Refused::NotRunning))).passes();
    is_over().then(interrupted(Err(Refused::NotRunning))).then(read(RUNNING, 1, figures(1, 1))).fails(UNEXPLAINED);
}

#[test]
fn two_answers_of_a_queued_turn_are_refused() {
    let withdrawn = || two_queued().then(interrupted_turn(2, Ok(()))).told(2, INTERRUPTED);
    withdrawn().told(2, INTERRUPTED).passes();
    withdrawn().told(2, well(2)).fails("ended twice");
    // Of two withdrawals the first one gives the reason.
    let archived = archived(ArchiveMode::Interrupt);
    withdrawn().then(archived).passes();
    two_queued().then(archived).then(What::InterruptHandle { uid: 2 }).told(2, INTERRUPTED).fails(UNEXPLAINED);
    // An answer that comes while the turn is still queued.
    two_queued().told(2, INTERRUPTED).fails(UNEXPLAINED);
    two_queued().told(2, Ending::Wrong("SESSION_NOT_FOUND")).fails(UNEXPLAINED);
}

#[test]
fn a_superseding_turn_that_is_not_at_the_head_is_refused() {
    let superseding = || running().then(accepted(2, Queue, 2)).then(accepted(3, Interrupt, 3));
    let ended = || superseding().agent(What::Looks(Some(CancelReason::Superseded))).left(1, 1, SUPERSEDED);
    ended().ran(3, 3, well(3)).ran(2, 2, well(2)).passes();
    ended().ran(2, 2, well(2)).fails(UNEXPLAINED);
    superseding().agent(What::Looks(None)).fails(UNEXPLAINED);
    superseding().left(1, 1, INTERRUPTED).fails(UNEXPLAINED);
    // A queued turn is not superseded.
    superseding().told(2, SUPERSEDED).fails(UNEXPLAINED);
    // Nor does it supersede anything where it queues.
    let queueing = || running().then(accepted(2, Queue, 2));
    queueing().agent(What::Looks(Some(CancelReason::Superseded))).fails(UNEXPLAINED);
    // Of two, the latest goes first.
    let twice = || running().then(accepted(2, Interrupt, 2)).then(accepted(3, Interrupt, 3)).left(1, 1, SUPERSEDED);
    twice().ran(3, 3, well(3)).passes();
    twice().ran(2, 2, well(2)).fails(UNEXPLAINED);
    // A full queue cancels nothing.
    let full = || two_queued().then(refused(4, Interrupt, Refused::QueueFull(2)));
    full().agent(What::Looks(None)).passes();
    full().agent(What::Looks(Some(CancelReason::Superseded))).fails(UNEXPLAINED);
}

#[test]
fn a_close_that_leaves_a_queued_turn_is_refused() {
    let reason = Ending::Cancelled(CancelReason::Archived);
    let closed = || two_queued().then(archived(ArchiveMode::Interrupt));
    closed().told(2, reason).told(3, reason).left(1, 1, reason).agent(What::Dropped).passes();
    closed().told(2, INTERRUPTED).fails(UNEXPLAINED);
    closed().then(What::NoResult { uid: 3 }).fails(UNEXPLAINED);
    closed().left(1, 1, reason).ran(2, 2, reason).fails(UNEXPLAINED);
    let drained = || two_queued().then(archived(ArchiveMode::Drain));
    drained().left(1, 1, well(1)).ran(2, 2, well(2)).ran(3, 3, well(3)).agent(What::Dropped).passes();
    drained().told(2, reason).fails(UNEXPLAINED);
    drained().left(1, 1, well(1)).agent(What::Dropped).fails(UNEXPLAINED);
    drained().then(accepted(4, Queue, 4)).fails(UNEXPLAINED);
    let shutdown = What::Shutdown { mode: ArchiveMode::Interrupt, timed_out: true };
    let shut = || two_queued().then(shutdown).then(What::IsQueued { uid: 3, answer: false });
    shut().told(2, Ending::Cancelled(CancelReason::Shutdown)).passes();
    shut().told(2, reason).fails(UNEXPLAINED);
    shut().left(1, 1, well(1)).ran(2, 2, well(2)).fails(UNEXPLAINED);
}

#[test]
fn a_fault_that_leaves_a_queued_turn_is_refused() {
    let faulted = || two_queued().left(1, 1, Ending::Panicked);
    let told = || faulted().told(1, Ending::Panicked);
    told().told(2, Ending::Panicked).told(3, Ending::Panicked).passes();
    told().told(2, INTERRUPTED).fails(UNEXPLAINED);
    faulted().ran(2, 2, well(2)).fails(UNEXPLAINED);
    // The queue ends before the turn that panicked.
    told().then(What::NoResult { uid: 2 }).fails(UNEXPLAINED);
    let shown = odd(0);
    told().then(read_queue(SessionState::Faulted, 3, 0, shown)).passes();
    told().then(read_queue(SessionState::Faulted, 3, 1, shown)).fails(UNEXPLAINED);
    told().then(refused(4, Queue, Refused::Faulted)).passes();
    told().then(accepted(4, Queue, 4)).fails(UNEXPLAINED);
}

#[test]
fn a_failed_build_that_leaves_a_queued_turn_is_refused() {
    let figures = Figures::default();
    let failed = || {
        let queued = told(1).created(1).then(accepted(2, Queue, 2));
        queued.agent(What::BuildEnds { well: false, figures })
    };
    let answered = || failed().told(1, Ending::NotBuilt).told(2, Ending::NotBuilt);
    answered().passes();
    failed().told(2, INTERRUPTED).fails(UNEXPLAINED);
    // The capacity is free before the answer.
    answered().then(What::Read(Err(Refused::NotFound))).passes();
    answered().then(refused(3, Refuse, Refused::Busy(None))).fails(UNEXPLAINED);
    // A build without a turn is not superseded, and hands over to the turn that is queued behind it.
    let opening = |reason| {
        let open = What::Open { uid: 100, figures, answer: Ok(()) };
        let built = told(1).agent(What::BuildBegins { uid: 100 }).then(accepted(1, Interrupt, 1));
        let built = built.agent(What::BuildEnds { well: true, figures }).between(0, 30, Who::Thread(1), open);
        built.entered(1, 1).agent(What::Looks(reason))
    };
    opening(None).passes();
    opening(Some(CancelReason::Superseded)).fails(UNEXPLAINED);
}

#[test]
fn a_wrong_number_of_queued_turns_is_refused() {
    two_queued().then(read_queue(RUNNING, 3, 2, odd(0))).passes();
    two_queued().then(read_queue(RUNNING, 3, 1, odd(0))).fails(UNEXPLAINED);
    two_queued().then(read_queue(RUNNING, 1, 2, odd(0))).fails(UNEXPLAINED);
    two_queued().then(What::IsQueued { uid: 2, answer: true }).passes();
    two_queued().then(What::IsQueued { uid: 2, answer: false }).fails(UNEXPLAINED);
    let handed_over = || two_queued().left(1, 1, well(1)).told(1, well(1));
    handed_over().then(read_queue(RUNNING, 3, 1, figures(1, 1))).passes();
    handed_over().then(read_queue(RUNNING, 3, 2, figures(1, 1))).fails(UNEXPLAINED);
    handed_over().then(read_queue(IDLE, 3, 2, figures(1, 1))).fails(UNEXPLAINED);
    handed_over().then(What::IsQueued { uid: 2, answer: true }).fails(UNEXPLAINED);
}

#[test]
fn an_export_within_a_turn_and_a_take_before_a_queued_turn_are_refused() {
    let handed_over = || running().then(accepted(2, Queue, 2)).left(1, 1, well(1));
    handed_over().then(What::Export(Ok(figures(1, 1)))).ran(2, 2, well(2)).passes();
    handed_over().entered(2, 2).then(What::Export(Ok(figures(1, 1)))).fails(UNEXPLAINED);
    handed_over().then(What::Take(Ok(figures(1, 1)))).ran(2, 2, well(2)).fails(UNEXPLAINED);
    let taken = handed_over().ran(2, 2, well(2));
    let now = 1_000;
    taken
        .between(now, now + 20, Who::Thread(1), What::Take(Ok(figures(2, 2))))
        .between(now + 10, now + 10, Who::Agent, What::Dropped)
        .passes();
}

/// The figures in the run of the turn after `turns` turns.
fn odd(turns: u64) -> Figures {
    let before = figures(turns, 0);
    Figures { messages: before.messages + 1, ..before }
}
