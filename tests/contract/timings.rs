//! C58: how turns have spent their time, on a manual clock, and the figures of a service that follow from it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use turnwise::testkit::{self, Gate, ManualClock};
use turnwise::{
    AgentError, EphemeralSessionService, InputRequest, InputResponse, Overflow, ServiceControl, SessionError,
    SessionId, SessionService, SessionSpec, StartTurnRequest, Subscription, TurnHandle, TurnTimings, WhenBusy,
};

use crate::inbox::outcome;
use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);
/// The step of a test that is to leave no trace in the times.
const HOUR: Duration = Duration::from_secs(3_600);

/// A service of scripted agents with one permit, on a manual clock.
fn timed() -> (Service, Stage, ManualClock) {
    let clock = ManualClock::new();
    let on_it = clock.clone();
    let (service, stage) = scripted_with(move |config| config.max_running_turns(1).clock(on_it));
    (service, stage, clock)
}

fn queued(prompt: &str) -> StartTurnRequest {
    turn(prompt).when_busy(WhenBusy::Queue)
}

/// The seconds that a turn was queued, waited for a permit, waited for input, and ran.
fn seconds(timings: TurnTimings) -> [u64; 4] {
    let TurnTimings { queued, permit, input, running, .. } = timings;
    let all = [queued, permit, input, running];
    assert!(all.iter().all(|time| time.subsec_nanos() == 0), "{timings:?}");
    all.map(|time| time.as_secs())
}

/// Waits for the end of a turn, and returns its times as [`seconds`] does.
fn ended(turn: &TurnHandle) -> [u64; 4] {
    turn.finished().recv().unwrap_err();
    seconds(turn.timings().unwrap())
}

/// Waits until this many turns wait for a permit.
fn permit_waiting(service: &dyn ServiceControl, count: usize) {
    while service.stats().permit_waiting_turns != count {
        thread::yield_now();
    }
}

fn started_at(service: &dyn SessionService, id: SessionId) -> Option<SystemTime> {
    service.read(id).unwrap().state.turn_started_at
}

#[test]
fn c58_a_queued_turn_counts_until_its_admission_and_runs_from_then_on() {
    run(|| {
        let (service, stage, clock) = timed();
        let first = service.begin_session(create("hold")).unwrap();
        let id = first.session_id();
        stage.wait_entered();
        let begin = clock.system_time();
        assert_eq!(started_at(&service, id), Some(begin));
        let second = service.begin_turn(id, queued("hold")).unwrap();
        clock.advance(6 * SECOND);
        assert_eq!((first.timings(), second.timings()), (None, None));
        assert_eq!(started_at(&service, id), Some(begin));
        stage.release();
        stage.wait_entered();
        assert_eq!(ended(&first), [0, 0, 0, 6]);
        assert_eq!(started_at(&service, id), Some(begin + 6 * SECOND));
        // The sums of the service: the second turn has left the queue, and has not ended.
        assert_eq!(seconds(service.stats().timings), [6, 0, 0, 6]);
        clock.advance(SECOND);
        assert_eq!((second.timings(), second.is_finished()), (None, false));
        stage.release();
        assert_eq!(ended(&second), [6, 0, 0, 1]);
        assert_eq!(seconds(service.stats().timings), [6, 0, 0, 7]);
        assert_eq!(started_at(&service, id), None);
        clock.advance(HOUR);
        assert_eq!(ended(&second), [6, 0, 0, 1]);
        let third = service.begin_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        assert_eq!(started_at(&service, id), Some(begin + 7 * SECOND + HOUR));
        stage.release();
        assert_eq!(ended(&third), [0; 4]);
    });
}

#[test]
fn c58_a_withdrawn_turn_was_queued_and_nothing_else() {
    run(|| {
        let (service, stage, clock) = timed();
        let first = service.begin_session(create("hold")).unwrap();
        let id = first.session_id();
        stage.wait_entered();
        let [interrupted, timed_out, closed] = [None, Some(3 * SECOND), None].map(|timeout| {
            let request = timeout.into_iter().fold(queued("x"), StartTurnRequest::timeout);
            service.begin_turn(id, request).unwrap()
        });
        clock.advance(2 * SECOND);
        interrupted.interrupt();
        assert_eq!(ended(&interrupted), [2, 0, 0, 0]);
        clock.advance(SECOND);
        clock.settle();
        assert_eq!(ended(&timed_out), [3, 0, 0, 0]);
        clock.advance(SECOND);
        service.archive_with(id, turnwise::ArchiveMode::Interrupt).unwrap();
        assert_eq!(ended(&closed), [4, 0, 0, 0]);
        assert_eq!(ended(&first), [0, 0, 0, 4]);
        assert_eq!(seconds(service.stats().timings), [9, 0, 0, 4]);
    });
}

#[test]
fn c58_waits_for_permits_before_the_call_and_after_a_sleep() {
    run(|| {
        let clock = ManualClock::new();
        let on_it = clock.clone();
        let jobs = Jobs::with(move |config| config.max_running_turns(1).clock(on_it));
        let [sleeper, holder] = [(); 2].map(|()| jobs.open());
        let gate = Gate::new();
        let asleep = jobs.begin(sleeper, "sleep", |_, turn| {
            turn.sleep(10 * SECOND)?;
            Ok("slept".into())
        });
        clock.wait_for_waiters(1);
        let at_gate = gate.clone();
        let held = jobs.begin(holder, "hold", move |_, _| {
            at_gate.pass_regardless();
            Ok("held".into())
        });
        gate.wait_arrived(1);
        let stats = jobs.service.stats();
        assert_eq!((stats.running_turns, stats.permit_waiting_turns), (1, 0));
        clock.advance(10 * SECOND);
        permit_waiting(&jobs.service, 1);
        clock.advance(4 * SECOND);
        // A third turn waits before its first call, behind the sleeper.
        let third = jobs.begin(jobs.open(), "x", |_, _| Ok("x".into()));
        permit_waiting(&jobs.service, 2);
        let stats = jobs.service.stats();
        assert_eq!((stats.running_turns, stats.permit_waiting_turns), (1, 2));
        clock.advance(5 * SECOND);
        gate.open();
        assert_eq!(ended(&asleep), [0, 9, 0, 10]);
        assert_eq!(ended(&held), [0, 0, 0, 19]);
        assert_eq!(ended(&third), [0, 5, 0, 0]);
        assert_eq!(seconds(jobs.service.stats().timings), [0, 14, 0, 29]);
        assert_eq!(jobs.service.stats().permit_waiting_turns, 0);
    });
}

#[test]
fn c58_a_turn_that_is_cancelled_without_a_permit_has_waited_for_it() {
    run(|| {
        let (service, stage, clock) = timed();
        let held = service.begin_session(create("hold")).unwrap();
        stage.wait_entered();
        let waiting = service.begin_session(create("x")).unwrap();
        permit_waiting(&service, 1);
        clock.advance(3 * SECOND);
        waiting.interrupt();
        assert_eq!(ended(&waiting), [0, 3, 0, 0]);
        stage.release();
        // The next turn of that session begins with none of it.
        let next = service.begin_turn(waiting.session_id(), turn("x")).unwrap();
        assert_eq!(ended(&next), [0; 4]);
        assert_eq!(ended(&held), [0, 0, 0, 3]);
    });
}

#[test]
fn c58_requests_for_input_that_overlap_count_once() {
    run(|| {
        let clock = ManualClock::new();
        let on_it = clock.clone();
        let jobs = Jobs::with(move |config| config.max_running_turns(1).clock(on_it));
        let (id, gate) = (jobs.open(), Gate::new());
        let at_gate = gate.clone();
        let asking = jobs.begin(id, "ask", move |_, turn| {
            let ask = || turn.request_input(InputRequest::new("question", "Which?"));
            thread::scope(|scope| {
                let asked = [scope.spawn(ask), scope.spawn(ask)];
                asked.into_iter().for_each(|thread| drop(thread.join().unwrap().unwrap()));
            });
            at_gate.pass_regardless();
            Ok("asked".into())
        });
        let pending = loop {
            let pending = jobs.service.pending_inputs(id).unwrap();
            if pending.len() == 2 {
                break pending;
            }
            thread::yield_now();
        };
        for input in pending {
            clock.advance(2 * SECOND);
            jobs.service.respond(id, input.id, InputResponse::Answer("red".into())).unwrap();
        }
        gate.wait_arrived(1);
        clock.advance(SECOND);
        gate.open();
        assert_eq!(ended(&asking), [0, 0, 4, 1]);
        assert_eq!(seconds(jobs.service.stats().timings), [0, 0, 4, 1]);
    });
}

#[test]
fn c58_the_pauses_of_host_mode_count_nowhere() {
    run(|| {
        let (service, stage, clock) = timed();
        let hosting = service.begin_session(create("hold").host_mode(true)).unwrap();
        let injector = service.event_injector(hosting.session_id()).unwrap();
        let inject = |body: &str| injector.inject_with_subscription(body.into(), turnwise::EventSource::Stdin).unwrap();
        stage.wait_entered();
        clock.advance(SECOND);
        stage.release();
        assert_eq!(outcome(&inject("x")).unwrap(), "x");
        clock.advance(HOUR);
        let held = inject("hold");
        stage.wait_entered();
        clock.advance(2 * SECOND);
        stage.release();
        outcome(&held).unwrap();
        clock.advance(HOUR);
        injector.dismiss(turnwise::EventSource::Stdin).unwrap();
        assert_eq!(ended(&hosting), [0, 0, 0, 3]);
    });
}

#[test]
fn c58_a_first_turn_runs_from_its_build_on_also_if_that_fails() {
    run(|| {
        let (clock, gate) = (ManualClock::new(), Gate::new());
        let agents = || testkit::scripted().build_waits_at(&gate);
        let fails = agents().build_fails(AgentError::Internal("scripted".into()));
        for (round, works) in [(1, true), (2, false)] {
            let agents = if works { agents() } else { fails.clone() };
            let service = EphemeralSessionService::configure(agents).clock(clock.clone()).build().unwrap();
            let begun = service.begin_session(create("x")).unwrap();
            gate.wait_arrived(round);
            assert_eq!(started_at(&service, begun.session_id()), Some(clock.system_time()));
            clock.advance(3 * SECOND);
            gate.let_through(1);
            assert_eq!(ended(&begun), [0, 0, 0, 3]);
            assert_eq!(matches!(begun.wait(), Err(SessionError::Build { .. })), !works);
            assert_eq!(seconds(service.stats().timings), [0, 0, 0, 3]);
        }
        // A build without a turn is no turn.
        let service = EphemeralSessionService::configure(agents()).clock(clock.clone()).build().unwrap();
        thread::scope(|scope| {
            let opening = scope.spawn(|| service.open_session(SessionSpec::new()).unwrap());
            gate.wait_arrived(3);
            let id = service.list(turnwise::SessionQuery::new()).unwrap()[0].session_id;
            assert_eq!(started_at(&service, id), None);
            clock.advance(SECOND);
            gate.let_through(1);
            opening.join().unwrap();
        });
        assert_eq!(seconds(service.stats().timings), [0; 4]);
    });
}

#[test]
fn c58_subscribers_and_the_receivers_of_turns_miss_events_apart() {
    run(|| {
        let (service, _stage) = scripted(1);
        let service: Arc<dyn ServiceControl> = Arc::new(service);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let small = Subscription::new().capacity(1).overflow(Overflow::DropNewest);
        let one = service.subscribe(id, small.clone()).unwrap();
        let all = (&service as &dyn ServiceControl).subscribe_all(small);
        service.start_turn(id, turn("emit 3")).unwrap();
        // RunStarted has room; three deltas and RunCompleted have none.
        assert_eq!((one.dropped(), all.dropped()), (4, 4));
        drop(one);
        let stats = service.stats();
        assert_eq!((stats.subscriber_events_dropped, stats.events_dropped), (8, 0));
        assert_eq!(Box::new(Arc::clone(&service)).subscribe_all(Subscription::new()).dropped(), 0);
        drop(service);
        assert_eq!(all.count(), 1);
    });
}
