//! Single protocols under loom, which tries every value that a load may see under the declared memory orderings.
//!
//! `RUSTFLAGS="--cfg turnwise_loom" cargo test --release --lib models` runs them. Each explores every schedule, except
//! for two that limit the preemptions. Shuttle checks a `select!` over several channels to which one thread sends.
//! Loom cannot, because it loses an unpark that reaches a thread at another lock.

use super::{join, spawn};
use crate::cancel::CancelToken;
use crate::error::CancelReason;
use crate::ids::numbers::{Numbering, Numbers};
use crate::ids::Ids;
use crate::inbox::injector::EventInjector;
use crate::inbox::queue::Inbox;
use crate::model::{AgentEvent, EventSource, Labels, Message, Session, SessionId, SessionSnapshot, TurnId};
use crate::permits::semaphore::Semaphore;
use crate::permits::turn_permit::TurnPermit;
use crate::reentrancy::PermitDuringWait;
use crate::service::{ArchiveMode, SessionState, WhenBusy};
use crate::session::admission::{Admission, TokenSeal};
use crate::session::command::Command;
use crate::session::handle::{Profile, SessionHandle};
use crate::session::queue::NewTurn;
use crate::session::running::Input;
use crate::spans::CallerSpan;
use crate::status::history::Commit;
use crate::status::slab::StatusSlab;
use crate::subscription::bus::{Bus, Origin, Scope};
use crate::subscription::stream::EventStream;
use crate::subscription::Subscription;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};
use crate::time::clock::Clock;
use crate::turn::handle::Outcome;
use crate::wait::latch::Latch;
use crate::wait::wakeups::own_throttle;
use crate::wait::work_queue::WorkQueue;

/// Runs `body` in every schedule.
fn check(body: impl Fn() + Send + Sync + 'static) {
    check_within(None, body);
}

/// Runs `body` in every schedule with at most that many preemptions. `LOOM_MAX_PREEMPTIONS` overrides the limit.
fn check_within(preemptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(preemptions);
    model.max_branches = 100_000;
    let executions = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&executions);
    model.check(move || {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
    println!("{} executions", executions.load(std::sync::atomic::Ordering::Relaxed));
}

fn snapshot(message_count: usize) -> SessionSnapshot {
    let session = Session::with_id(SessionId::from_uuid(uuid::Uuid::nil()));
    SessionSnapshot { message_count, ..SessionSnapshot::from(&session) }
}

/// The handle of a session. With a token, the session runs its first turn, and the guards of that turn are returned.
/// Without one it is idle.
fn session(first: Option<&CancelToken>) -> (Arc<SessionHandle>, Option<(TokenSeal, Admission)>) {
    let turn = first.map(|_| TurnId::new(1));
    let profile = Profile {
        service: crate::service::WeakService::none(),
        status: StatusSlab::default().building(0, turn, &snapshot(0)),
        id: SessionId::from_uuid(uuid::Uuid::nil()),
        model: "".into(),
        labels: Labels::default(),
        snapshot: snapshot(0),
        history: Session::with_id(SessionId::from_uuid(uuid::Uuid::nil())),
        inbox_capacity: 1,
        event_history: 0,
        ids: Ids::default(),
        counters: Arc::default(),
        clock: Clock::default(),
        numbering: Numbering::default(),
        callback: None,
        running: Semaphore::new(1),
        turn_queue: 2,
        may_be_unloaded: false,
    };
    let cancel = first.cloned().unwrap_or_else(CancelToken::new);
    let (handle, seal, mut admission) = SessionHandle::new(profile, turn, cancel);
    admission.pick_up();
    if first.is_some() {
        handle.gate().end_build();
        return (handle, Some((seal, admission)));
    }
    // The guards are those of the build, which is over.
    seal.seal();
    admission.end_build();
    (handle, None)
}

#[test]
fn c28_a_close_finds_the_token_of_a_turn_admitted_before_it() {
    check(|| {
        let (handle, _) = session(None);
        let closing = Arc::clone(&handle);
        let closer = spawn(move || closing.close(ArchiveMode::Interrupt, CancelReason::Shutdown).run_hooks());
        let token = CancelToken::new();
        let admitted = handle.admit(&token, None);
        join(closer);
        assert_eq!(admitted.is_ok(), token.is_cancelled());
        if admitted.is_ok() {
            let gate = handle.gate().state();
            assert!(gate.is_closed() && gate.is_running(), "the session thread must wait for the command");
        }
    });
}

#[test]
fn c28_the_end_of_a_turn_does_not_undo_a_close() {
    check(|| {
        let (handle, guards) = session(Some(&CancelToken::new()));
        let closing = Arc::clone(&handle);
        let closer = spawn(move || closing.close(ArchiveMode::Drain, CancelReason::Archived).run_hooks());
        drop(guards);
        join(closer);
        let gate = handle.gate().state();
        assert!(gate.is_closed() && !gate.is_running());
    });
}

#[test]
fn c28_a_dropped_admission_wakes_the_session_thread_that_waits_for_it() {
    check(|| {
        let (handle, _) = session(None);
        let giving_up = Arc::clone(&handle);
        let caller = spawn(move || drop(giving_up.admit(&CancelToken::new(), None)));
        handle.close(ArchiveMode::Drain, CancelReason::Archived).run_hooks();
        // This is what the session thread does after a close: it waits for the command of the admitted turn.
        while handle.gate().state().is_running() {
            handle.commands().wait_and_pop();
        }
        join(caller);
    });
}

#[test]
fn c10_one_of_two_callers_is_admitted() {
    check(|| {
        let (handle, _) = session(None);
        let other = Arc::clone(&handle);
        let rival = spawn(move || other.admit(&CancelToken::new(), None).ok().map(|(turn, ..)| turn));
        let own = handle.admit(&CancelToken::new(), None).ok();
        let own_turn = own.as_ref().map(|(turn, ..)| *turn);
        let rival_turn = join(rival);
        // The rival has dropped its admission by now. It may have dropped it before this thread tried, so both may be
        // admitted.
        assert!(own_turn.is_some() || rival_turn.is_some());
        assert_ne!(own_turn, rival_turn);
        drop(own);
        assert!(handle.admit(&CancelToken::new(), None).is_ok(), "the session is free again");
    });
}

#[test]
fn c19_the_end_of_a_turn_clears_its_own_token_and_no_other() {
    check(|| {
        let first = CancelToken::new();
        let (handle, guards) = session(Some(&first));
        let late = Arc::clone(&handle);
        let interrupter = spawn(move || late.interrupt(Some(TurnId::new(1))).is_ok());
        let (seal, admission) = guards.unwrap();
        let starting = Arc::clone(&handle);
        let starter = spawn(move || {
            let token = CancelToken::new();
            let guards = starting.admit(&token, None).ok()?;
            starting.interrupt(Some(TurnId::new(2))).expect("an admitted turn can be interrupted");
            assert!(token.is_cancelled());
            drop(guards);
            Some(())
        });
        seal.seal();
        admission.give_back();
        let interrupted = join(interrupter);
        join(starter);
        assert!(
            !first.is_cancelled() || interrupted,
            "the first token is cancelled although the interrupt did not find it"
        );
        assert!(handle.interrupt(None).is_err(), "no active entry is left");
    });
}

/// A turn that may queue, and the slot for its result.
fn new_turn(cancel: &CancelToken) -> (NewTurn, Arc<Outcome>) {
    let (answer, outcome) = Outcome::new(SessionId::from_uuid(uuid::Uuid::nil()));
    let input = Input { prompt: String::new(), skills: None, host_mode: false };
    let cancel = cancel.clone();
    let (tool_results, caller) = (Vec::new(), CallerSpan::current());
    (NewTurn { number: None, input, tool_results, event_tx: None, cancel, deadline: None, caller, answer }, outcome)
}

/// Ends the turn whose command is in the queue of commands, if there is one.
fn end_sent_turn(handle: &SessionHandle) {
    while let Some(command) = handle.commands().pop() {
        drop(command);
    }
}

#[test]
fn c49_a_turn_that_is_accepted_at_the_end_of_another_is_handed_over_or_admitted() {
    check(|| {
        let (handle, guards) = session(Some(&CancelToken::new()));
        let accepting = Arc::clone(&handle);
        let token = CancelToken::new();
        let (turn, outcome) = new_turn(&token);
        let caller = spawn(move || accepting.accept(turn, WhenBusy::Queue).map_err(|(error, _)| error));
        let (seal, admission) = guards.unwrap();
        seal.seal();
        admission.give_back();
        assert_eq!(join(caller).expect("there is room").get(), 2);
        // Its command is there: no thread has to come and start it.
        assert!(handle.commands().has_items() && handle.gate().state().is_running());
        assert_eq!(handle.view().unwrap().state.queued_turns, 0);
        handle.interrupt(Some(TurnId::new(2))).expect("it is the admitted turn");
        assert!(token.is_cancelled() && !outcome.finished().is_set());
        end_sent_turn(&handle);
        assert!(outcome.finished().is_set() && !handle.gate().state().is_running());
    });
}

#[test]
fn c51_a_close_finds_a_turn_that_was_accepted_before_it() {
    check(|| {
        let first = CancelToken::new();
        let (handle, guards) = session(Some(&first));
        let closing = Arc::clone(&handle);
        let closer = spawn(move || closing.close(ArchiveMode::Interrupt, CancelReason::Shutdown).run_hooks());
        let (turn, outcome) = new_turn(&CancelToken::new());
        let accepted = handle.accept(turn, WhenBusy::Queue).map_err(|(error, turn)| {
            // Not answered: the caller gets it back.
            assert!(!outcome.finished().is_set());
            drop(turn);
            error
        });
        join(closer);
        assert!(first.is_cancelled());
        if accepted.is_ok() {
            let result = outcome.take().expect("it is answered by now");
            assert_eq!(result.unwrap_err().cancel_reason(), Some(CancelReason::Shutdown));
        }
        drop(guards);
        let gate = handle.gate().state();
        assert!(gate.is_closed() && !gate.is_running());
        assert_eq!(handle.shared().counters.turns_withdrawn.get(), u64::from(accepted.is_ok()));
    });
}

#[test]
fn c49_a_turn_is_withdrawn_or_handed_over_and_not_both() {
    check(|| {
        let (handle, guards) = session(Some(&CancelToken::new()));
        let token = CancelToken::new();
        let (turn, outcome) = new_turn(&token);
        handle.accept(turn, WhenBusy::Queue).map_err(|(error, _)| error).expect("there is room");
        let canceller = spawn(move || token.cancel_and_run_hooks(CancelReason::Interrupted));
        drop(guards);
        join(canceller);
        let withdrawn = handle.shared().counters.turns_withdrawn.get() == 1;
        assert_eq!(outcome.finished().is_set(), withdrawn);
        assert_eq!(handle.gate().state().is_running(), !withdrawn);
        end_sent_turn(&handle);
        assert!(outcome.finished().is_set() && !handle.gate().state().is_running());
        assert!(handle.interrupt(None).is_err(), "nothing is left behind");
    });
}

#[test]
fn c50_a_superseding_turn_cancels_the_turn_before_it_or_finds_none() {
    check(|| {
        let first = CancelToken::new();
        let (handle, guards) = session(Some(&first));
        let accepting = Arc::clone(&handle);
        let token = CancelToken::new();
        let (turn, outcome) = new_turn(&token);
        let caller = spawn(move || accepting.accept(turn, WhenBusy::Interrupt).map_err(|(error, _)| error));
        drop(guards);
        assert_eq!(join(caller).expect("there is room").get(), 2);
        assert!(!token.is_cancelled() && !outcome.finished().is_set());
        assert!(handle.commands().has_items());
        end_sent_turn(&handle);
        assert!(outcome.finished().is_set());
    });
}

/// Takes the command of a restart, as the session thread does. Returns whether its build is cancelled, or not begun.
fn is_needless(handle: &SessionHandle) -> impl FnOnce() -> bool {
    let restart = loop {
        match handle.commands().pop() {
            Some(Command::Restart(restart)) => break restart,
            // Of the close.
            Some(Command::Wake) => {}
            other => panic!("the restart was sent, not {other:?}"),
        }
    };
    let is_skipped = handle.needs_no_agent();
    move || is_skipped || restart.cancel().is_cancelled()
}

#[test]
fn c56_a_close_finds_the_token_of_a_restart_that_began_before_it() {
    check(|| {
        let (handle, _) = session(None);
        handle.fault("a panic".into());
        let closing = Arc::clone(&handle);
        let closer = spawn(move || closing.close(ArchiveMode::Interrupt, CancelReason::Shutdown).run_hooks());
        let begun = handle.begin_restart(None);
        let needless = begun.is_ok().then(|| is_needless(&handle));
        join(closer);
        assert!(needless.is_none_or(|needless| needless()), "the build would run in a closed session");
    });
}

#[test]
fn c56_a_close_finds_a_restart_that_waits_for_the_end_of_the_faulted_turn() {
    for mode in [ArchiveMode::Interrupt, ArchiveMode::Drain] {
        check(move || {
            let (handle, guards) = session(Some(&CancelToken::new()));
            handle.fault("a panic".into());
            handle.begin_restart(None).expect("it is faulted");
            let closing = Arc::clone(&handle);
            let closer = spawn(move || closing.close(mode, CancelReason::Shutdown).run_hooks());
            drop(guards);
            let needless = is_needless(&handle);
            join(closer);
            assert!(needless(), "the build would run in a closed session");
        });
    }
}

#[test]
fn c56_a_turn_that_is_accepted_at_the_end_of_a_failed_restart_is_answered() {
    check(|| {
        let (handle, _) = session(None);
        handle.fault("a panic".into());
        handle.begin_restart(None).expect("it is faulted");
        let restart = handle.commands().pop();
        let accepting = Arc::clone(&handle);
        let (turn, outcome) = new_turn(&CancelToken::new());
        let caller = spawn(move || accepting.accept(turn, WhenBusy::Queue).map_err(|(error, _)| error.code()));
        drop(restart);
        match join(caller) {
            Ok(_) => assert!(outcome.finished().is_set()),
            Err(code) => assert_eq!(code, "SESSION_FAULTED"),
        }
        let gate = handle.gate().state();
        assert!(gate.is_faulted() && !gate.is_busy());
    });
}

#[test]
fn c57_history_and_boundary_are_from_one_instant() {
    check(|| {
        let (handle, _) = session(None);
        let reading = Arc::clone(&handle);
        let reader = spawn(move || {
            let (history, boundary) = reading.shared().history.get_with_boundary();
            assert_eq!(history.iter().len() as u64, boundary);
            assert!(reading.bus().last_seq() >= boundary, "a boundary without its event");
        });
        let mut history = Session::new();
        for turn in 1..=2 {
            history.push(Message::user(""));
            let committed = &handle.shared().history;
            committed.stage(history.clone());
            let event = AgentEvent::TextDelta { delta: String::new() };
            let commit = |last| committed.commit(Commit::Advance, last);
            drop(handle.bus().publish_last(TurnId::new(turn), std::iter::once(event), commit));
        }
        join(reader);
        assert_eq!(handle.shared().history.get_with_boundary().1, 2);
    });
}

#[test]
fn c24_queue_and_gate_are_from_one_instant() {
    check_within(Some(3), || {
        let (handle, guards) = session(Some(&CancelToken::new()));
        let reading = Arc::clone(&handle);
        let reader = spawn(move || {
            // As a list reads it, without a lock. `None` if it changes meanwhile.
            if let Some((gate, queued, _)) = reading.status().try_read() {
                // One turn is admitted, and the second one is queued or withdrawn.
                assert!(gate.turns() == 2 || queued == 0, "{gate:?} {queued}");
            }
        });
        let token = CancelToken::new();
        let (turn, _outcome) = new_turn(&token);
        handle.accept(turn, WhenBusy::Queue).map_err(|(error, _)| error).expect("there is room");
        token.cancel_and_run_hooks(CancelReason::Interrupted);
        join(reader);
        assert_eq!(handle.status().try_read().map(|(gate, queued, _)| (gate.turns(), queued)), Some((2, 0)));
        drop(guards);
    });
}

#[test]
fn c24_state_and_figures_are_from_one_instant() {
    check(|| {
        let (handle, _) = session(None);
        let reading = Arc::clone(&handle);
        let reader = spawn(move || {
            let view = reading.view().expect("the session is open").state;
            // The turn publishes 1 while it runs, and 2 before its end.
            match view.state {
                SessionState::Idle => assert!(view.message_count != 1, "{view:?}"),
                _ => assert!(view.message_count <= 2, "{view:?}"),
            }
        });
        let (_, seal, mut admission) = handle.admit(&CancelToken::new(), None).expect("the session is idle");
        admission.pick_up();
        handle.shared().published.publish(snapshot(1));
        handle.shared().published.publish(snapshot(2));
        seal.seal();
        admission.give_back();
        join(reader);
        assert_eq!(handle.view().unwrap().state.message_count, 2);
    });
}

#[test]
fn c16_no_permit_is_lost_and_none_is_granted_twice() {
    check(|| {
        let (semaphore, inside) = (Semaphore::new(1), Arc::new(AtomicBool::new(false)));
        let enter = |semaphore: &Arc<Semaphore>, inside: &Arc<AtomicBool>| {
            let permit = semaphore.acquire(&CancelToken::new()).expect("the token is not cancelled");
            // ORDERING: Relaxed; the permit itself has to make the writes of its last holder visible.
            assert!(!inside.swap(true, Ordering::Relaxed), "two threads hold the permit");
            inside.store(false, Ordering::Relaxed);
            permit.release();
        };
        let other = (Arc::clone(&semaphore), Arc::clone(&inside));
        let rival = spawn(move || enter(&other.0, &other.1));
        enter(&semaphore, &inside);
        join(rival);
        assert_eq!(semaphore.held(), 0);
    });
}

#[test]
fn c16_a_cancelled_wait_leaves_no_permit_behind() {
    // Without a limit there are 1.3 million schedules, which take a minute.
    check_within(Some(4), || {
        let (semaphore, token) = (Semaphore::new(1), CancelToken::new());
        let held = semaphore.try_acquire().unwrap();
        let waiting = (Arc::clone(&semaphore), token.clone());
        let waiter = spawn(move || drop(waiting.0.acquire(&waiting.1)));
        let canceller = spawn(move || token.cancel_and_run_hooks(CancelReason::Interrupted));
        held.release();
        join(waiter);
        join(canceller);
        assert_eq!(semaphore.held(), 0);
        assert!(semaphore.try_acquire().is_ok());
    });
}

#[test]
fn c22_a_hook_that_is_armed_during_a_cancel_runs_once() {
    check(|| {
        let (token, runs) = (CancelToken::new(), Arc::new(AtomicUsize::new(0)));
        let cancelled = token.clone();
        let canceller = spawn(move || cancelled.cancel_and_run_hooks(CancelReason::Interrupted));
        let counted = Arc::clone(&runs);
        let hook = token.on_cancel(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        join(canceller);
        assert_eq!(runs.load(Ordering::Relaxed), 1);
        drop(hook);
    });
}

#[test]
fn c22_no_hook_runs_after_its_guard() {
    check(|| {
        let (token, armed) = (CancelToken::new(), Arc::new(AtomicBool::new(true)));
        let late = Arc::new(AtomicBool::new(false));
        let cancelled = token.clone();
        let canceller = spawn(move || cancelled.cancel_and_run_hooks(CancelReason::Interrupted));
        let (seen, own_late) = (Arc::clone(&armed), Arc::clone(&late));
        // The hook does not assert, because its panic would be contained.
        let hook = token.on_cancel(move || {
            if !seen.load(Ordering::Relaxed) {
                own_late.store(true, Ordering::Relaxed);
            }
        });
        drop(hook);
        // ORDERING: Relaxed; the drop of the guard has to order this store after the hook's load.
        armed.store(false, Ordering::Relaxed);
        token.seal();
        join(canceller);
        assert!(!late.load(Ordering::Relaxed), "a hook ran after its guard was dropped");
    });
}

#[test]
fn a_latch_that_is_set_leaves_no_thread_waiting() {
    check(|| {
        let latch = Arc::new(Latch::new());
        let waiting = Arc::clone(&latch);
        let receiver = spawn(move || {
            assert!(waiting.receiver().recv().is_err());
            assert!(waiting.is_set());
        });
        let waiting = Arc::clone(&latch);
        let waiter = spawn(move || waiting.wait());
        latch.set();
        join(receiver);
        join(waiter);
    });
}

#[test]
fn a_work_queue_loses_no_item_and_no_wake_up() {
    check(|| {
        let queue: Arc<WorkQueue<u32>> = Arc::new(WorkQueue::new());
        let senders = [1, 2].map(|item| {
            let queue = Arc::clone(&queue);
            spawn(move || queue.push(item).unwrap())
        });
        // If a wake-up were lost, this would wait for ever.
        assert_eq!(queue.wait_and_pop() + queue.wait_and_pop(), 3);
        assert!(!queue.has_items());
        senders.into_iter().for_each(join);
    });
}

#[test]
fn of_two_threads_that_one_thread_wakes_both_arrive() {
    // Without a limit the schedules take minutes.
    check_within(Some(3), || {
        let queues: [Arc<WorkQueue<u32>>; 2] = [Arc::new(WorkQueue::new()), Arc::new(WorkQueue::new())];
        let waiters = queues.clone().map(|queue| spawn(move || queue.wait_and_pop()));
        // One wake-up is in flight at a time. So the first thread has to send the second wake-up when it arrives.
        queues[0].push(1).unwrap();
        queues[1].push(2).unwrap();
        assert_eq!(waiters.map(join), [1, 2]);
        assert!(own_throttle().is_idle(), "a wake-up stays in flight");
    });
}

#[test]
fn a_work_queue_keeps_no_item_after_its_close() {
    check(|| {
        let queue: Arc<WorkQueue<Arc<()>>> = Arc::new(WorkQueue::new());
        let item = Arc::new(());
        let (sending, sent) = (Arc::clone(&queue), Arc::clone(&item));
        let sender = spawn(move || drop(sending.push(sent)));
        drop(queue.close());
        join(sender);
        assert_eq!(Arc::strong_count(&item), 1);
    });
}

#[test]
fn c11_a_result_is_stored_before_its_latch_is_set() {
    check(|| {
        let (answer, outcome) = Outcome::new(SessionId::from_uuid(uuid::Uuid::nil()));
        let waiting = Arc::clone(&outcome);
        let waiter = spawn(move || {
            assert!(waiting.finished().receiver().recv().is_err());
            waiting.take().expect("the result is stored").unwrap_err()
        });
        let error = crate::SessionError::ShuttingDown;
        answer.prepare(Err(error));
        answer.give();
        assert!(matches!(join(waiter), crate::SessionError::ShuttingDown));
    });
}

#[test]
fn c37_an_unobserved_event_is_numbered_before_all_that_a_subscriber_gets() {
    check(|| {
        let bus =
            Arc::new(Bus::new(SessionId::from_uuid(uuid::Uuid::nil()), 0, 0, 0, Numbers::new(Numbering::default())));
        let permit = TurnPermit::new(Semaphore::new(1), Clock::default());
        let (emitting, lent) = (Arc::clone(&bus), Arc::clone(&permit));
        let emitter = spawn(move || {
            let mut unheard = 0;
            for _ in 0..2 {
                if emitting.count_unobserved() {
                    unheard += 1;
                } else {
                    let event = AgentEvent::TextDelta { delta: String::new() };
                    emitting.publish(None, event, Origin::Agent, None, (&lent, PermitDuringWait::Lent));
                }
            }
            unheard
        });
        let (queue, stream) =
            EventStream::new(Subscription::new(), Scope::OneSession, Clock::default(), Arc::default());
        assert!(bus.attach(&queue));
        drop(queue);
        // From here on every event is observed.
        let event = AgentEvent::TextDelta { delta: String::new() };
        assert!(!bus.count_unobserved());
        bus.publish(None, event, Origin::Agent, None, (&permit, PermitDuringWait::Lent));
        let unheard: u64 = join(emitter);
        bus.end();
        let heard: Vec<u64> = stream.map(|event| event.seq).collect();
        assert_eq!(heard, (unheard + 1..4).collect::<Vec<_>>());
    });
}

#[test]
fn c39_no_interaction_is_missed() {
    check(|| {
        let inbox = Arc::new(Inbox::new(1, Ids::default()));
        let injecting = Arc::clone(&inbox);
        let injector = spawn(move || injecting.inject(String::new(), EventSource::Tcp).unwrap());
        // If the signal were missed, this would wait for ever.
        inbox.ready().recv().expect("the inbox keeps its signal");
        inbox.end_wait();
        assert!(inbox.take_next(&CancelToken::new()).is_some());
        join(injector);
    });
}
