//! Turns that queue and supersede, and every end of a queue: C49 to C51.

use super::support::*;
use super::{explore, join, spawn, yield_now};
use crate::sync::{Arc, AtomicBool, Mutex, Ordering};
use crate::{
    builder_fn, AgentError, ArchiveMode, CancelReason, EphemeralSessionService, RunResult, SessionAgentBuilder,
    SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest, TurnHandle, WhenBusy,
};

type Service<B> = EphemeralSessionService<B>;

fn queued(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Queue)
}

fn interrupting(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Interrupt)
}

/// A service whose agents record the turns that they run, and one session of it.
fn recording() -> (Service<impl SessionAgentBuilder>, SessionId, Arc<Mutex<Vec<u64>>>) {
    let (ran, running) = (Arc::new(Mutex::new(Vec::new())), AtomicBool::new(false));
    let record = Arc::clone(&ran);
    let service = EphemeralSessionService::new(
        actors(move |prompt, turn| {
            assert!(!running.swap(true, Ordering::SeqCst), "two turns at once");
            record.lock().push(turn.turn_id().get());
            let result = if prompt == "panic" { Ok(String::new()) } else { act(prompt, turn) };
            running.store(false, Ordering::SeqCst);
            if prompt == "panic" {
                unwind("as asked")
            } else {
                result
            }
        }),
        1,
    );
    let id = open(&service);
    (service, id, ran)
}

/// Begins a turn that may queue, unless the session is closed or faulted.
fn begin(service: &dyn SessionService, id: SessionId, request: StartTurnRequest) -> Option<TurnHandle> {
    match service.begin_turn(id, request) {
        Ok(turn) => Some(turn),
        Err(SessionError::NotFound { .. } | SessionError::ShuttingDown | SessionError::Faulted { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Every accepted turn was started or withdrawn, and the figures agree.
fn check_counts<B: SessionAgentBuilder>(service: &Service<B>, accepted: u64) {
    let stats = service.stats();
    assert_eq!(stats.turns_started + stats.turns_withdrawn, accepted, "{stats:?}");
    assert_eq!(stats.turns_ended(), stats.turns_started);
}

fn was_cancelled(result: &Result<RunResult, SessionError>, reasons: &[CancelReason]) -> bool {
    reason(result).is_some_and(|reason| reasons.contains(&reason))
}

#[test]
fn c49_queued_turns_run_in_their_order_beside_an_interrupt_and_an_archive() {
    explore(|| {
        let (service, id, ran) = recording();
        let first = service.begin_turn(id, turn("first")).unwrap();
        let queuers = [(); 2].map(|()| {
            let service = service.clone();
            spawn(move || begin(&service, id, queued("x")))
        });
        let withdrawn = begin(&service, id, queued("withdrawn"));
        let other = service.clone();
        let archivist = spawn(move || other.archive(id).unwrap());
        let interrupted = withdrawn.as_ref().map(|turn| {
            turn.interrupt();
            turn.turn_id().get()
        });
        let others: Vec<_> = queuers.into_iter().filter_map(join).collect();
        join(archivist);
        let accepted = 1 + others.len() as u64 + u64::from(withdrawn.is_some());
        assert_eq!(first.wait().unwrap().text, "first");
        for turn in others {
            assert_eq!(turn.wait().expect("a draining archive runs the queue").text, "x");
        }
        if let Some(turn) = withdrawn {
            let result = turn.wait();
            assert!(result.is_ok() || was_cancelled(&result, &[CancelReason::Interrupted]), "{result:?}");
        }
        let ran = ran.lock().clone();
        assert!(ran.is_sorted(), "{ran:?}");
        assert!((1..=accepted).all(|number| ran.contains(&number) || Some(number) == interrupted), "{ran:?}");
        finish(&service);
        check_counts(&service, accepted);
    });
}

#[test]
fn c49_no_refused_caller_gets_in_between() {
    explore(|| {
        let (service, id, ran) = recording();
        let turns = [(); 2].map(|()| service.begin_turn(id, queued("x")).unwrap());
        let other = service.clone();
        let rival = spawn(move || match other.begin_turn(id, turn("rival")) {
            Ok(turn) => drop(turn.wait().unwrap()),
            Err(SessionError::Busy { .. }) => {}
            Err(error) => panic!("{error}"),
        });
        let numbers = turns.each_ref().map(|turn| turn.turn_id().get());
        turns.into_iter().for_each(|turn| drop(turn.wait().unwrap()));
        join(rival);
        assert_eq!(numbers, [1, 2]);
        assert_eq!(ran.lock()[..2], [1, 2]);
        finish(&service);
    });
}

#[test]
fn c49_an_interrupt_of_the_session_finds_a_turn_while_one_is_queued() {
    explore(|| {
        let (service, id, _) = recording();
        let first = service.begin_turn(id, turn("x")).unwrap();
        let last = service.begin_turn(id, queued("wait")).unwrap();
        let other = service.clone();
        let interrupter = spawn(move || other.interrupt(id).expect("a turn is admitted at any time"));
        let result = first.wait();
        assert!(result.is_ok() || was_cancelled(&result, &[CancelReason::Interrupted]), "{result:?}");
        join(interrupter);
        last.interrupt();
        assert_eq!(reason(&last.wait()), Some(CancelReason::Interrupted));
        finish(&service);
        check_counts(&service, 2);
    });
}

#[test]
fn c49_a_withdrawal_that_races_with_the_hand_over_answers_once() {
    explore(|| {
        let (service, id, ran) = recording();
        let first = service.begin_turn(id, turn("x")).unwrap();
        let timed = service.begin_turn(id, queued("wait").timeout(SOON)).unwrap();
        let other = service.clone();
        let number = timed.turn_id();
        let interrupter = spawn(move || match other.interrupt_turn(id, number) {
            Ok(()) | Err(SessionError::NotRunning { .. }) => {}
            Err(error) => panic!("{error}"),
        });
        first.wait().unwrap();
        let result = timed.wait();
        let reasons = [CancelReason::Interrupted, CancelReason::DeadlineExceeded];
        assert!(was_cancelled(&result, &reasons), "{result:?}");
        join(interrupter);
        service.start_turn(id, queued("free")).expect("its place is free");
        assert!(ran.lock().is_sorted());
        finish(&service);
        check_counts(&service, 3);
    });
}

#[test]
fn c50_of_an_interrupting_turn_and_the_end_of_the_turn_before_both_are_answered() {
    explore(|| {
        let (service, id, ran) = recording();
        let first = service.begin_turn(id, turn("x")).unwrap();
        let later = service.begin_turn(id, queued("later")).unwrap();
        let other = service.clone();
        let superseding = spawn(move || other.begin_turn(id, interrupting("now")).unwrap());
        let result = first.wait();
        assert!(result.is_ok() || was_cancelled(&result, &[CancelReason::Superseded]), "{result:?}");
        let result = later.wait();
        assert!(result.is_ok() || was_cancelled(&result, &[CancelReason::Superseded]), "{result:?}");
        let now = join(superseding);
        assert_eq!(now.turn_id().get(), 3);
        assert_eq!(now.wait().expect("no caller supersedes this one").text, "now");
        let ran = ran.lock().clone();
        assert!(ran.contains(&3), "{ran:?}");
        finish(&service);
        check_counts(&service, 3);
    });
}

#[test]
fn c50_a_turn_in_host_mode_is_superseded_or_its_build_is() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let hosting = service.begin_session(create("host").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let other = service.clone();
        let rival = spawn(move || other.start_turn(id, queued("queued")));
        assert_eq!(service.start_turn(id, interrupting("now")).unwrap().text, "now");
        assert_eq!(reason(&hosting.wait()), Some(CancelReason::Superseded));
        let result = join(rival);
        assert!(result.is_ok() || was_cancelled(&result, &[CancelReason::Superseded]), "{result:?}");
        finish(&service);
    });
}

#[test]
fn c51_every_turn_is_answered_once_whatever_closes_the_session() {
    let ways: [fn(&Service<_>, SessionId); 3] = [
        |service, id| service.archive_with(id, ArchiveMode::Interrupt).unwrap(),
        |service, _| finish(service),
        |service, id| {
            service.archive(id).unwrap();
            service.archive_with(id, ArchiveMode::Interrupt).unwrap();
        },
    ];
    explore_each(ways, |way| {
        let (service, id, _) = recording();
        let first = service.begin_turn(id, turn("wait")).unwrap();
        let second = begin(&service, id, queued("wait"));
        let other = service.clone();
        let queuer = spawn(move || begin(&other, id, queued("wait")));
        way(&service, id);
        let turns: Vec<_> = [Some(first), second, join(queuer)].into_iter().flatten().collect();
        let accepted = turns.len() as u64;
        for turn in turns {
            let result = turn.wait();
            assert!(was_cancelled(&result, &[CancelReason::Archived, CancelReason::Shutdown]), "{result:?}");
        }
        finish(&service);
        check_counts(&service, accepted);
    });
}

/// Explores the scenario with each of these.
fn explore_each<T: Copy + Send + Sync + 'static>(
    all: impl IntoIterator<Item = T>,
    body: impl Fn(T) + Copy + Send + Sync + 'static,
) {
    all.into_iter().for_each(|one| explore(move || body(one)));
}

#[test]
fn c51_a_fault_answers_the_queue() {
    explore(|| {
        let (service, id, _) = recording();
        let first = service.begin_turn(id, turn("panic")).unwrap();
        let second = begin(&service, id, queued("x"));
        let other = service.clone();
        let queuer = spawn(move || begin(&other, id, queued("x")));
        assert!(matches!(first.wait(), Err(SessionError::Faulted { .. })));
        let turns: Vec<_> = [second, join(queuer)].into_iter().flatten().collect();
        let accepted = 1 + turns.len() as u64;
        for turn in turns {
            assert!(matches!(turn.wait(), Err(SessionError::Faulted { .. })));
        }
        assert_eq!(service.read(id).unwrap().state.queued_turns, 0);
        finish(&service);
        check_counts(&service, accepted);
    });
}

#[test]
fn c51_a_failed_build_answers_the_queue() {
    explore_each([true, false], |with_turn| {
        let builder = builder_fn(|_: &SessionSpec, _: &crate::SessionContext| -> Result<Actor, AgentError> {
            Err(AgentError::Config("no such agent".into()))
        });
        let service = EphemeralSessionService::new(builder, 1);
        let id = SessionId::new();
        let other = service.clone();
        let queuer = spawn(move || loop {
            match begin(&other, id, queued("x")) {
                Some(turn) => break Some(turn.wait()),
                // Before the registration, or after the end.
                None if other.registered_sessions() == 0 => yield_now(),
                None => break None,
            }
        });
        let spec = SessionSpec::new().session_id(id);
        let built = match with_turn {
            true => service.create_session(create("x").session(spec)).map(drop),
            false => service.open_session(spec).map(drop),
        };
        assert!(matches!(built, Err(SessionError::Build { .. })), "{built:?}");
        match join(queuer) {
            None | Some(Err(SessionError::Build { .. })) => {}
            other => panic!("{other:?}"),
        }
        finish(&service);
    });
}

#[test]
fn c49_a_turn_that_queues_behind_a_build_without_a_turn_is_run() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let id = SessionId::new();
        let other = service.clone();
        let queuer = spawn(move || loop {
            match begin(&other, id, queued("x")) {
                Some(turn) => break turn.wait().unwrap().text,
                None => yield_now(),
            }
        });
        service.open_session(SessionSpec::new().session_id(id)).unwrap();
        assert_eq!(join(queuer), "x");
        finish(&service);
    });
}

#[test]
fn c49_a_take_comes_after_the_queue_in_host_mode_too() {
    explore(|| {
        let service = EphemeralSessionService::new(actors(act), 1);
        let hosting = service.begin_session(create("host").host_mode(true)).unwrap();
        let id = hosting.session_id();
        let next = service.begin_turn(id, queued("next")).unwrap();
        let other = service.clone();
        let taker = spawn(move || other.take_session(id, FAR).expect("it is decided once nothing is queued"));
        // Without a wake-up the taker would wait for ever.
        next.interrupt();
        assert_eq!(reason(&next.wait()), Some(CancelReason::Interrupted));
        assert_eq!(join(taker).messages().len(), 1);
        hosting.wait().unwrap();
        finish(&service);
    });
}

#[test]
fn c24_a_read_shows_the_queue_and_the_gate_of_one_instant() {
    explore(|| {
        let (service, id, _) = recording();
        let first = service.begin_turn(id, turn("x")).unwrap();
        let other = service.clone();
        let queuer = spawn(move || other.start_turn(id, queued("x")).unwrap());
        for _ in 0..2 {
            let info = service.read(id).unwrap().state;
            let listed = service.list(Default::default()).unwrap().remove(0);
            // Turns that have ended, one that is admitted, and those that are queued.
            for (turns, queued, messages, active) in [
                (info.turns, info.queued_turns, info.message_count, info.is_active),
                (listed.turns, listed.queued_turns, listed.message_count, listed.is_active),
            ] {
                assert!(turns - queued as u64 <= messages as u64 + 1, "{info:?} {listed:?}");
                assert!(active || (queued == 0 && turns == messages as u64), "{info:?} {listed:?}");
                // A turn that is queued has no message.
                assert!(queued as u64 + messages as u64 <= turns, "{info:?} {listed:?}");
            }
        }
        first.wait().unwrap();
        join(queuer);
        finish(&service);
    });
}
