//! C53, C61, C63: what turns and hosts wait for, and for how long.

use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    agent_fn, builder_fn, wait_any, AgentError, ArchiveMode, CancelReason, EphemeralSessionService, EventSource,
    SessionAgentBuilder, SessionError, SessionId, SessionService, SessionSpec, StartTurnRequest, Subscription,
    TurnHandle, TurnService,
};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn c63_the_deadline_of_a_turn_is_on_the_services_clock() {
    run(|| {
        let clock = ManualClock::new();
        let (of_service, own) = (clock.clone(), clock.clone());
        let jobs = Jobs::with(move |config| config.clock(of_service));
        let (id, begun) = (jobs.open(), clock.system_time());
        jobs.prepare("plain", move |_, turn| {
            assert_eq!((turn.remaining(), turn.deadline(), turn.now()), (None, None, begun));
            Ok("plain".into())
        });
        assert_eq!(jobs.service.start_turn(id, turn("plain")).unwrap().text, "plain");
        jobs.prepare("timed", move |_, turn| {
            assert_eq!((turn.remaining(), turn.deadline()), (Some(5 * SECOND), Some(begun + 5 * SECOND)));
            own.advance(2 * SECOND);
            assert_eq!((turn.remaining(), turn.deadline()), (Some(3 * SECOND), Some(begun + 5 * SECOND)));
            assert_eq!(turn.now(), begun + 2 * SECOND);
            own.advance(4 * SECOND);
            // Zero, not below: the deadline is in the past, and is shown as now.
            assert_eq!((turn.remaining(), turn.deadline()), (Some(Duration::ZERO), Some(turn.now())));
            Err(turn.sleep(LONG).unwrap_err().into())
        });
        let timed = jobs.service.start_turn(id, turn("timed").timeout(5 * SECOND));
        assert_eq!(timed.unwrap_err().cancel_reason(), Some(CancelReason::DeadlineExceeded));
        // The next turn has no deadline of the last one.
        jobs.prepare("after", |_, turn| Ok(format!("{:?} {:?}", turn.remaining(), turn.deadline())));
        assert_eq!(jobs.service.start_turn(id, turn("after")).unwrap().text, "None None");
        // A timeout past the last representable instant never comes.
        jobs.prepare("for ever", |_, turn| Ok(format!("{:?}", turn.remaining())));
        let forever = jobs.service.start_turn(id, turn("for ever").timeout(Duration::MAX));
        assert_eq!(forever.unwrap().text, "None");
    });
}

#[test]
fn c63_the_time_that_remains_never_rises_on_the_systems_clock() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("timed", |_, turn| {
            let mut last = turn.remaining().ok_or_else(|| AgentError::Internal("no deadline".into()))?;
            assert!(last <= LONG);
            for _ in 0..1_000 {
                let next = turn.remaining().unwrap();
                assert!(next <= last);
                last = next;
            }
            let ahead = turn.deadline().unwrap().duration_since(turn.now()).unwrap();
            assert!(ahead <= LONG && ahead + LONG / 2 > LONG, "{ahead:?}");
            Ok("done".into())
        });
        let request: StartTurnRequest = turn("timed").timeout(LONG);
        assert_eq!(jobs.service.start_turn(id, request).unwrap().text, "done");
    });
}

/// A thread that waits until session `id` is idle. When this returns, it waits.
fn waits_until_idle<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    service: &'scope impl SessionService,
    clock: &ManualClock,
    id: SessionId,
) -> ScopedJoinHandle<'scope, Result<(), SessionError>> {
    let before = clock.waiters();
    let waiting = scope.spawn(move || service.wait_idle(id, LONG));
    clock.wait_for_waiters(before + 1);
    waiting
}

#[test]
fn c53_a_wait_for_an_idle_session_ends_with_its_turn() {
    run(|| {
        let clock = ManualClock::new();
        let (service, stage) = scripted_with(|config| config.clock(clock.clone()));
        let id = service.open_session(SessionSpec::new()).unwrap();
        service.wait_idle(id, Duration::ZERO).unwrap();
        let held = service.begin_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        assert_matches!(service.wait_idle(id, Duration::ZERO), Err(SessionError::Timeout { id: is, .. }) if is == id);
        thread::scope(|scope| {
            let late = scope.spawn(|| service.wait_idle(id, SECOND));
            clock.wait_for_waiters(1);
            clock.advance(SECOND);
            assert_matches!(late.join().unwrap(), Err(SessionError::Timeout { waited, .. }) if waited == SECOND);
            let waiting = [(); 3].map(|()| waits_until_idle(scope, &service, &clock, id));
            assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
            stage.release();
            waiting.into_iter().for_each(|waiting| waiting.join().unwrap().unwrap());
        });
        assert_eq!(held.wait().unwrap().text, "released");
        // A failed turn ends too.
        assert!(service.start_turn(id, turn("fail")).is_err());
        service.wait_idle(id, Duration::ZERO).unwrap();
        let unknown = SessionId::new();
        assert_matches!(service.wait_idle(unknown, LONG), Err(SessionError::NotFound { id }) if id == unknown);
    });
}

#[test]
fn c53_a_session_is_not_idle_while_it_is_built() {
    run(|| {
        let clock = ManualClock::new();
        let gate = Gate::new();
        let at = gate.clone();
        let builder = builder_fn(move |spec: &SessionSpec, session| {
            at.pass_regardless();
            if spec.model == "none" {
                return Err(AgentError::Config("no such model".into()));
            }
            agent_fn(|prompt, turn| Ok(turn.finish(prompt))).build_agent(spec, session)
        });
        let service = EphemeralSessionService::configure(builder).clock(clock.clone()).build().unwrap();
        let [opened, begun, failed] = [(); 3].map(|()| SessionId::new());
        thread::scope(|scope| {
            let opening = scope.spawn(|| service.open_session(SessionSpec::new().session_id(opened)));
            gate.wait_arrived(1);
            let first = service.begin_session(create("x").session(SessionSpec::new().session_id(begun))).unwrap();
            let refused = SessionSpec::new().session_id(failed).model("none");
            let refused = service.begin_session(create("x").session(refused)).unwrap();
            gate.wait_arrived(3);
            let [opened, begun, failed] = [opened, begun, failed].map(|id| {
                assert_matches!(service.wait_idle(id, Duration::ZERO), Err(SessionError::Timeout { .. }));
                waits_until_idle(scope, &service, &clock, id)
            });
            gate.open();
            opened.join().unwrap().unwrap();
            begun.join().unwrap().unwrap();
            assert_matches!(failed.join().unwrap(), Err(SessionError::NotFound { .. }));
            assert!(opening.join().unwrap().is_ok() && first.wait().is_ok() && refused.wait().is_err());
        });
    });
}

#[test]
fn c53_a_session_in_host_mode_is_not_idle() {
    run(|| {
        let clock = ManualClock::new();
        let (service, _stage) = scripted_with(|config| config.clock(clock.clone()));
        let id = service.open_session(SessionSpec::new()).unwrap();
        let hosting = service.begin_turn(id, turn("x").host_mode(true)).unwrap();
        let injector = service.event_injector(id).unwrap();
        thread::scope(|scope| {
            let waiting = waits_until_idle(scope, &service, &clock, id);
            assert_eq!(injector.inject_with_subscription("y".into(), EventSource::Tcp).unwrap().count(), 1);
            assert!(!waiting.is_finished());
            injector.dismiss(EventSource::Tcp).unwrap();
            waiting.join().unwrap().unwrap();
        });
        hosting.wait().unwrap();
    });
}

#[test]
fn c53_a_close_or_a_fault_ends_the_wait() {
    run(|| {
        let clock = ManualClock::new();
        let (service, stage) = scripted_with(|config| config.clock(clock.clone()));
        for mode in [ArchiveMode::Drain, ArchiveMode::Interrupt] {
            let id = service.open_session(SessionSpec::new()).unwrap();
            let held = service.begin_turn(id, turn("deaf")).unwrap();
            stage.wait_entered();
            thread::scope(|scope| {
                let waiting = waits_until_idle(scope, &service, &clock, id);
                service.archive_with(id, mode).unwrap();
                // Closed, though its turn still runs.
                assert_matches!(waiting.join().unwrap(), Err(SessionError::NotFound { id: is }) if is == id);
                assert!(!held.is_finished());
            });
            assert_matches!(service.wait_idle(id, LONG), Err(SessionError::NotFound { .. }));
            stage.release();
            held.wait().unwrap();
        }
        let gate = Gate::new();
        let at = gate.clone();
        let jobs = Jobs::with(|config| config.clock(clock.clone()));
        let id = jobs.open();
        let panicking = jobs.begin(id, "panics", move |_, _| {
            at.pass_regardless();
            std::panic::resume_unwind(Box::new("out of ideas"))
        });
        gate.wait_arrived(1);
        thread::scope(|scope| {
            let waiting = waits_until_idle(scope, &jobs.service, &clock, id);
            gate.open();
            let faulted = waiting.join().unwrap();
            assert_matches!(faulted, Err(SessionError::Faulted { ref message, .. }) if &**message == "out of ideas");
        });
        assert!(panicking.wait().is_err());
        assert_matches!(jobs.service.wait_idle(id, LONG), Err(SessionError::Faulted { .. }));
        jobs.service.archive(id).unwrap();
        assert_matches!(jobs.service.wait_idle(id, LONG), Err(SessionError::NotFound { .. }));
    });
}

#[test]
fn c53_a_session_thread_that_waits_lends_its_permit_and_can_be_interrupted() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, child] = [jobs.open(), jobs.open()];
        let begun = bounded(1);
        jobs.prepare("parent", move |service, _| {
            assert_matches!(service.wait_idle(parent, LONG), Err(SessionError::Reentrant { id }) if id == parent);
            drop(service.begin_turn(child, turn("child"))?);
            service.wait_idle(child, LONG)?;
            drop(service.begin_turn(child, turn("sleeps"))?);
            begun.0.send(()).expect("the test listens");
            assert_matches!(service.wait_idle(child, LONG), Err(SessionError::Interrupted { id, .. }) if id == parent);
            Ok("interrupted".into())
        });
        jobs.prepare("child", move |service, _| {
            // The parent waits for this session.
            assert_matches!(service.wait_idle(parent, LONG), Err(SessionError::Reentrant { id }) if id == child);
            Ok("done".into())
        });
        jobs.prepare("sleeps", |_, turn| Err(turn.sleep(LONG).unwrap_err().into()));
        let running = jobs.service.begin_turn(parent, turn("parent")).unwrap();
        begun.1.recv_timeout(LONG).unwrap();
        running.interrupt();
        assert_eq!(running.wait().unwrap().text, "interrupted");
        // The child goes on.
        assert!(jobs.service.read(child).unwrap().state.is_active);
    });
}

#[test]
fn c53_a_session_that_is_idle_for_an_instant_only_is_seen_idle() {
    run(|| {
        let (service, _stage) = scripted(2);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let (stop, stopped) = bounded::<()>(0);
        thread::scope(|scope| {
            let busy = scope.spawn(|| {
                while stopped.try_recv().is_err_and(|error| error.is_empty()) {
                    service.start_turn(id, turn("x")).unwrap();
                }
            });
            for _ in 0..1_000 {
                service.wait_idle(id, LONG).unwrap();
            }
            drop(stop);
            busy.join().unwrap();
        });
    });
}

#[test]
fn c61_a_wait_for_any_turn_returns_the_lowest_that_has_ended() {
    run(|| {
        let clock = ManualClock::new();
        let (service, stage) = scripted_with(|config| config.clock(clock.clone()).max_sessions(200));
        assert_matches!(wait_any(&[], None), Ok(None));
        let held: Vec<TurnHandle> = (0..100).map(|_| service.begin_session(create("hold")).unwrap()).collect();
        (0..100).for_each(|_| assert!(stage.wait_entered().1.get() == 1));
        let mut handles: Vec<&TurnHandle> = held.iter().collect();
        assert_matches!(wait_any(&handles, Some(Duration::ZERO)), Ok(None));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| wait_any(&handles, Some(SECOND)));
            clock.wait_for_waiters(1);
            clock.advance(SECOND);
            assert_matches!(waiting.join().unwrap(), Ok(None));
            for (some, ended, timeout) in [(&handles[60..], 10, None), (&handles[..60], 50, Some(LONG))] {
                let waiting = scope.spawn(move || wait_any(some, timeout));
                some[ended].interrupt();
                assert_eq!(waiting.join().unwrap().unwrap(), Some(ended));
            }
        });
        // A session that appears twice, and several that have ended.
        let ended = service.begin_session(create("x")).unwrap();
        ended.finished().recv().unwrap_err();
        handles.insert(1, &ended);
        handles.insert(3, &ended);
        assert_matches!(wait_any(&handles, None), Ok(Some(1)));
    });
}

#[test]
fn c61_a_session_thread_waits_for_any_turn_without_its_permit_and_in_no_cycle() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, one, other] = [(); 3].map(|()| jobs.open());
        let begun = bounded(1);
        jobs.prepare("one", move |service, _| {
            // Its parent waits for any of two turns, and this is one of them.
            assert_matches!(service.export_session(parent), Err(SessionError::Reentrant { id }) if id == one);
            Ok("one".into())
        });
        jobs.prepare("other", |_, turn| Err(turn.sleep(LONG).unwrap_err().into()));
        let waiting = jobs.begin(parent, "parent", move |service, turn| {
            let slow = service.begin_turn(other, self::turn("other"))?;
            assert_matches!(turn.wait_any(&[], None), Ok(None));
            assert_matches!(turn.wait_any(&[&slow], Some(SHORT)), Ok(None));
            // It gets the permit only in the wait for it.
            let quick = service.begin_turn(one, self::turn("one"))?;
            assert_matches!(turn.wait_any(&[&slow, &quick], None), Ok(Some(1)));
            assert_matches!(wait_any(&[&quick, &slow], None), Ok(Some(0)));
            begun.0.send(()).expect("the test listens");
            assert_matches!(turn.wait_any(&[&slow], None), Err(SessionError::Interrupted { id, .. }) if id == parent);
            // What has ended comes before the cancellation.
            assert_matches!(turn.wait_any(&[&slow, &quick], None), Ok(Some(1)));
            turn.check()?;
            Ok("not reached".into())
        });
        begun.1.recv_timeout(LONG).unwrap();
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
    });
}

#[test]
fn c61_a_wait_for_any_turn_is_refused_if_one_of_them_waits_for_the_caller() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, child, idle] = [(); 3].map(|()| jobs.open());
        let (give, handle) = bounded::<TurnHandle>(1);
        jobs.prepare("child", move |service, turn| {
            let of_parent = turn.recv(&handle)?.expect("the test gives it");
            let mut harmless = service.begin_turn(idle, self::turn("x"))?;
            assert!(harmless.wait_timeout(LONG).is_some());
            let asleep = service.begin_turn(idle, self::turn("asleep"))?;
            for handles in [[&asleep, &of_parent], [&of_parent, &asleep]] {
                assert_matches!(turn.wait_any(&handles, None), Err(SessionError::Reentrant { id }) if id == child);
            }
            // No edge of the refused waits is left: the idle session may ask for this one.
            asleep.interrupt();
            assert_matches!(turn.wait_any(&[&asleep], None), Ok(Some(0)));
            Ok("refused".into())
        });
        jobs.prepare("asleep", |_, turn| Err(turn.sleep(LONG).unwrap_err().into()));
        let waiting =
            jobs.begin(parent, "parent", move |service, _| Ok(service.start_turn(child, turn("child"))?.text));
        // The child is in its turn only once the parent waits for it: see C33.
        give.send(waiting).unwrap();
        jobs.service.wait_idle(parent, LONG).unwrap();
        assert_eq!(jobs.service.read(parent).unwrap().state.last_assistant_text.as_deref(), Some("refused"));
    });
}

#[test]
fn c61_scoped_threads_use_sub_agents_under_one_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let running = jobs.begin(id, "parent", |_, turn| {
            let service = turn.service().expect("the test has a handle");
            let ask = |text: &str| -> Result<String, SessionError> {
                let created = service.create_session(create(text))?;
                let again = service.begin_turn(created.session_id, self::turn(text))?.wait()?;
                let streamed = service.stream_turn(created.session_id, self::turn(text))?.wait()?;
                service.wait_idle(created.session_id, LONG)?;
                service.archive_wait(created.session_id, LONG)?;
                Ok([created.text, again.text, streamed.text].concat())
            };
            let answers = thread::scope(|scope| {
                let tools = ["a", "b", "c"].map(|text| scope.spawn(move || ask(text)));
                turn.without_permit(|| tools.map(|tool| tool.join().expect("tools do not panic")))
            });
            Ok(answers.into_iter().collect::<Result<Vec<_>, _>>()?.join(" "))
        });
        assert_eq!(running.wait().unwrap().text, "aaa bbb ccc");
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}

/// A wait of a turn for session `child`, whose turn never ends by itself.
type Waits = fn(&TurnService<'_>, SessionId, &TurnHandle) -> Result<(), SessionError>;

#[test]
fn c61_the_cancellation_of_a_turn_ends_the_waits_of_its_scoped_threads() {
    run(|| {
        let waits: [Waits; 9] = [
            |service, child, _| service.export_session(child).map(drop),
            |service, child, _| service.export_session_timeout(child, LONG).map(drop),
            |service, child, _| service.take_session(child, LONG).map(drop),
            |service, child, _| service.wait_idle(child, LONG),
            |service, _, _| service.create_session(create("asleep")).map(drop),
            |service, _, _| service.stream_session(create("asleep"))?.wait().map(drop),
            |service, _, _| service.begin_session(create("asleep"))?.wait_timeout(LONG).expect("in time").map(drop),
            |_, _, turn| wait_any(&[turn], None).map(drop),
            |service, child, _| service.archive_wait(child, LONG),
        ];
        for wait in waits {
            let jobs = Jobs::new(1);
            let [parent, child] = [jobs.open(), jobs.open()];
            let about_to = bounded(1);
            for _ in 0..2 {
                jobs.prepare("asleep", |_, turn| Err(turn.sleep(LONG).unwrap_err().into()));
            }
            let waiting = jobs.begin(parent, "parent", move |_, turn| {
                let service = turn.service().expect("the test has a handle");
                let handle = service.begin_turn(child, self::turn("asleep"))?;
                let ended = thread::scope(|scope| {
                    let tool = scope.spawn(|| {
                        about_to.0.send(()).expect("the test listens");
                        wait(&service, child, &handle)
                    });
                    tool.join().expect("tools do not panic")
                });
                assert_matches!(ended, Err(SessionError::Interrupted { id, .. }) if id == parent);
                Err(ended.unwrap_err().into())
            });
            about_to.1.recv_timeout(LONG).unwrap();
            waiting.interrupt();
            assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        }
    });
}

#[test]
fn c61_the_cancellation_of_a_turn_ends_the_streams_that_its_scoped_threads_read() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, child] = [jobs.open(), jobs.open()];
        let read = bounded(2);
        jobs.prepare("asleep", |_, turn| Err(turn.sleep(LONG).unwrap_err().into()));
        let waiting = jobs.begin(parent, "parent", move |_, turn| {
            let service = turn.service().expect("the test has a handle");
            let mut events = service.subscribe(child, Subscription::new())?;
            let mut stream = service.stream_turn(child, self::turn("asleep"))?;
            let read = &read.0;
            thread::scope(|scope| {
                scope.spawn(move || stream.by_ref().inspect(|_| read.send(()).expect("the test listens")).count());
                scope.spawn(move || events.by_ref().inspect(|_| read.send(()).expect("the test listens")).count());
            });
            turn.check()?;
            Ok("not reached".into())
        });
        // The first event of each.
        (0..2).for_each(|_| read.1.recv_timeout(LONG).unwrap());
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        assert!(jobs.service.read(child).unwrap().state.is_active, "the child goes on");
    });
}

#[test]
fn c61_waits_of_scoped_threads_count_for_cycles() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, child] = [jobs.open(), jobs.open()];
        jobs.prepare("child", move |service, _| {
            assert_matches!(service.export_session(parent), Err(SessionError::Reentrant { id }) if id == child);
            Ok("refused".into())
        });
        let running = jobs.begin(parent, "parent", move |_, turn| {
            let service = turn.service().expect("the test has a handle");
            let asked = thread::scope(|scope| {
                let tool = scope.spawn(|| {
                    // Its own session, from another thread.
                    assert_matches!(service.export_session(parent), Err(SessionError::Reentrant { id }) if id == parent);
                    assert_matches!(service.start_turn(parent, self::turn("x")), Err(SessionError::Reentrant { .. }));
                    service.start_turn(child, self::turn("child"))
                });
                tool.join().expect("tools do not panic")
            });
            Ok(asked?.text)
        });
        assert_eq!(running.wait().unwrap().text, "refused");
        // Nothing of that is left: the parent may be asked again.
        jobs.prepare("asks", move |service, _| Ok(service.export_session(parent)?.messages().len().to_string()));
        assert_eq!(jobs.service.start_turn(child, turn("asks")).unwrap().text, "2");
    });
}

#[test]
fn c61_a_handle_that_outlives_the_turn_is_waited_for_by_the_host() {
    run(|| {
        let jobs = Jobs::new(1);
        let [parent, child] = [jobs.open(), jobs.open()];
        let ((begun, begins), gate) = (bounded::<TurnHandle>(1), Gate::new());
        let at = gate.clone();
        jobs.prepare("child", move |service, turn| {
            turn.without_permit(|| at.pass_regardless());
            // A thread waits for this session with a handle of the parent's. Its turn has ended, so that is no cycle.
            service.export_session(parent)?;
            Ok("done".into())
        });
        let first = jobs.begin(parent, "first", move |_, turn| {
            let service = turn.service().expect("the test has a handle");
            begun.send(service.begin_turn(child, self::turn("child"))?).expect("the test listens");
            Ok("first".into())
        });
        let handle = begins.recv_timeout(LONG).unwrap();
        let outliving = thread::spawn(move || handle.wait());
        assert_eq!(first.wait().unwrap().text, "first");
        gate.wait_arrived(1);
        // The next turn of the same session has nothing to do with it, and its cancellation neither.
        let second = jobs.begin(parent, "second", |_, turn| Err(turn.sleep(LONG).unwrap_err().into()));
        second.interrupt();
        assert_cancelled(second.wait(), CancelReason::Interrupted);
        gate.open();
        assert_eq!(outliving.join().unwrap().unwrap().text, "done");
    });
}

#[test]
fn c61_a_turn_whose_service_is_gone_has_none() {
    run(|| {
        let (gate, told) = (Gate::new(), bounded(1));
        let at = gate.clone();
        let agent = agent_fn(move |prompt, turn| {
            assert!(turn.service().is_some());
            at.pass_regardless();
            told.0.send((turn.service().is_none(), turn.sub_session(create("x")).err())).expect("the test listens");
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::new(agent, 2);
        let turn = service.begin_session(create("x")).unwrap();
        gate.wait_arrived(1);
        drop(service);
        gate.open();
        let (is_gone, refused) = told.1.recv_timeout(LONG).unwrap();
        assert!(is_gone);
        // The drop of the last handle has told the turn to stop.
        assert_matches!(refused, Some(SessionError::Interrupted { reason: CancelReason::Shutdown, .. }));
        turn.wait().unwrap();
    });
}

#[test]
fn c61_the_end_of_one_of_two_waits_leaves_the_other_in_the_graph() {
    run(|| {
        let clock = ManualClock::new();
        let own = clock.clone();
        let jobs = Jobs::with(|config| config.max_running_turns(1).clock(own));
        let ([parent, child], gate) = ([jobs.open(), jobs.open()], Gate::new());
        let at = gate.clone();
        jobs.prepare("child", move |service, turn| {
            turn.without_permit(|| at.pass_regardless());
            assert_matches!(service.export_session(parent), Err(SessionError::Reentrant { id }) if id == child);
            Ok("refused".into())
        });
        let running = jobs.begin(parent, "parent", move |_, turn| {
            let service = turn.service().expect("the test has a handle");
            let mut handle = service.begin_turn(child, self::turn("child"))?;
            let waited = thread::scope(|scope| {
                let waiting = scope.spawn(move || handle.wait_timeout(LONG));
                clock.wait_for_waiters(1);
                let other = scope.spawn(|| service.wait_idle(child, Duration::ZERO));
                assert_matches!(other.join().unwrap(), Err(SessionError::Timeout { .. }));
                gate.open();
                turn.without_permit(|| waiting.join().unwrap())
            });
            Ok(waited.expect("in time")?.text)
        });
        assert_eq!(running.wait().unwrap().text, "refused");
    });
}
