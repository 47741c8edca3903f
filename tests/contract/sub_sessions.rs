//! C62: child sessions that end with the turn that made them.

use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::testkit::{Gate, ManualClock};
use turnwise::{
    AgentError, AgentEvent, CancelReason, CreateSessionRequest, SessionError, SessionId, SessionQuery, SessionService,
    SubSession, TurnContext,
};

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

fn listed(jobs: &Jobs) -> Vec<SessionId> {
    jobs.service.list(SessionQuery::new()).unwrap().iter().map(|session| session.session_id).collect()
}

/// Waits until each of these sessions has ended.
fn wait_ended(jobs: &Jobs, ids: impl IntoIterator<Item = SessionId>) {
    ids.into_iter().for_each(|id| jobs.service.archive_wait(id, LONG).unwrap());
}

/// As many children as there are prompts, side by side.
fn children<'turn>(turn: &'turn TurnContext, prompts: &[&str]) -> Result<Vec<SubSession<'turn>>, SessionError> {
    prompts.iter().map(|prompt| turn.sub_session(create(prompt))).collect()
}

#[test]
fn c62_sub_sessions_run_under_one_permit_and_leave_nothing_behind() {
    run(|| {
        let jobs = Jobs::with(|config| config.max_running_turns(1).max_sessions(4));
        let id = jobs.open();
        let running = jobs.begin(id, "parent", |_, turn| {
            let children = children(turn, &["a", "b", "c"])?;
            // No room for a fourth, at once.
            assert_matches!(turn.sub_session(create("d")), Err(SessionError::CapacityExceeded { active: 4, max: 4 }));
            let mut texts = Vec::new();
            for mut child in children {
                assert_matches!(child.next(), Some(AgentEvent::RunStarted { session_id, .. }) if session_id == child.session_id());
                assert_eq!(child.handle().session_id(), child.session_id());
                texts.push(child.wait()?.text);
            }
            Ok(texts.concat())
        });
        assert_eq!(running.wait().unwrap().text, "abc");
        assert_eq!(listed(&jobs), [id]);
        assert_eq!(jobs.service.stats().sessions_created, 4);
    });
}

#[test]
fn c62_sub_sessions_of_scoped_threads_run_under_one_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let running = jobs.begin(id, "parent", |_, turn| {
            let ask = |prompt: &str| Ok::<_, SessionError>(turn.sub_session(create(prompt))?.wait()?.text);
            let answers = thread::scope(|scope| {
                let tools = ["a", "b", "c"].map(|prompt| scope.spawn(move || ask(prompt)));
                turn.without_permit(|| tools.map(|tool| tool.join().expect("tools do not panic")))
            });
            Ok(answers.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
        });
        assert_eq!(running.wait().unwrap().text, "abc");
        assert_eq!(listed(&jobs), [id]);
    });
}

#[test]
fn c62_a_sub_session_is_interrupted_with_its_parent_for_the_same_reason() {
    run(|| {
        for reason in [CancelReason::Interrupted, CancelReason::Archived, CancelReason::DeadlineExceeded] {
            let clock = ManualClock::new();
            let own = clock.clone();
            let jobs = Jobs::with(|config| config.max_running_turns(1).clock(own));
            let (id, seen, gate) = (jobs.open(), unbounded(), Gate::new());
            for _ in 0..2 {
                let (seen_by, at) = (seen.0.clone(), gate.clone());
                jobs.prepare("child", move |_, turn| {
                    // The grandchild is interrupted with its grandparent.
                    let grandchild = turn.sub_session(create("grandchild"))?;
                    turn.without_permit(|| at.pass(turn.cancel_token())).unwrap_err();
                    seen_by.send(turn.check().unwrap_err().reason).expect("the test listens");
                    // Also where the grandchild is the first to react.
                    assert_matches!(grandchild.wait(), Err(SessionError::Interrupted { reason: is, .. }) if is == reason);
                    Err(turn.check().unwrap_err().into())
                });
                let seen = seen.0.clone();
                jobs.prepare("grandchild", move |_, turn| {
                    turn.sleep(Duration::MAX).unwrap_err();
                    seen.send(turn.check().unwrap_err().reason).expect("the test listens");
                    Err(turn.check().unwrap_err().into())
                });
            }
            jobs.prepare("parent", move |_, turn| {
                let children = children(turn, &["child", "child"])?;
                let ended = children.into_iter().map(SubSession::wait).map(Result::unwrap_err).collect::<Vec<_>>();
                assert!(ended.iter().all(|error| error.cancel_reason() == Some(reason)), "{ended:?}");
                turn.check()?;
                Ok("not reached".into())
            });
            let running = jobs.service.begin_turn(id, turn("parent").timeout(5 * SECOND)).unwrap();
            gate.wait_arrived(2);
            // Both grandchildren are asleep.
            clock.wait_for_waiters(2);
            match reason {
                CancelReason::Interrupted => running.interrupt(),
                CancelReason::Archived => jobs.service.archive_with(id, turnwise::ArchiveMode::Interrupt).unwrap(),
                _ => clock.advance(5 * SECOND),
            }
            assert_cancelled(running.wait(), reason);
            jobs.service.shutdown(LONG);
            let seen: Vec<_> = seen.1.try_iter().collect();
            assert_eq!(seen.iter().filter(|seen| **seen == reason).count(), 4, "{seen:?}");
        }
    });
}

#[test]
fn c62_a_sub_session_has_at_most_the_time_that_remains_to_its_parent() {
    run(|| {
        let clock = ManualClock::new();
        let (of_service, own) = (clock.clone(), clock.clone());
        let jobs = Jobs::with(move |config| config.clock(of_service));
        let (id, told) = (jobs.open(), unbounded());
        for name in ["own", "shorter", "longer", "free"] {
            let told = told.0.clone();
            jobs.prepare(name, move |_, turn| {
                told.send((name, turn.remaining())).expect("the test listens");
                Ok(name.into())
            });
        }
        jobs.prepare("parent", move |_, turn| {
            own.advance(2 * SECOND);
            turn.sub_session(create("own"))?.wait()?;
            turn.sub_session(create("shorter").timeout(SECOND))?.wait()?;
            turn.sub_session(create("longer").timeout(LONG))?.wait()?;
            Ok("asked".into())
        });
        assert_eq!(jobs.service.start_turn(id, turn("parent").timeout(10 * SECOND)).unwrap().text, "asked");
        jobs.prepare("parent without", |_, turn| Ok(turn.sub_session(create("free"))?.wait()?.text));
        jobs.service.start_turn(id, turn("parent without")).unwrap();
        let remaining: Vec<_> = told.1.try_iter().collect();
        let eight = Some(8 * SECOND);
        assert_eq!(remaining, [("own", eight), ("shorter", Some(SECOND)), ("longer", eight), ("free", None)]);
    });
}

#[test]
fn c62_a_dropped_sub_session_is_interrupted_and_archived_without_a_wait() {
    run(|| {
        let jobs = Jobs::with(|config| config.max_sessions(2));
        let (id, gate) = (jobs.open(), Gate::new());
        let at = gate.clone();
        jobs.prepare("deaf", move |_, turn| {
            at.pass_regardless();
            Err(turn.check().unwrap_err().into())
        });
        let reached = gate.clone();
        let running = jobs.begin(id, "parent", move |service, turn| {
            let child = turn.sub_session(create("deaf"))?;
            let id = child.session_id();
            reached.wait_arrived(1);
            drop(child);
            // It still runs, and still has its place.
            assert_matches!(service.read(id), Err(SessionError::NotFound { .. }));
            assert_matches!(turn.sub_session(create("x")), Err(SessionError::CapacityExceeded { .. }));
            reached.open();
            service.archive_wait(id, LONG)?;
            let child = turn.sub_session(create("sleeps"))?;
            child.close(LONG)?;
            assert!(turn.sub_session(create("x"))?.wait().is_ok());
            Ok("done".into())
        });
        jobs.prepare("sleeps", |_, turn| Err(turn.sleep(Duration::MAX).unwrap_err().into()));
        assert_eq!(running.wait().unwrap().text, "done");
        assert_eq!(listed(&jobs), [id]);
    });
}

#[test]
fn c62_a_close_is_bounded_and_ends_with_the_turn() {
    run(|| {
        let jobs = Jobs::new(8);
        let (id, gate) = (jobs.open(), Gate::new());
        for _ in 0..2 {
            let at = gate.clone();
            jobs.prepare("deaf", move |_, _| {
                at.pass_regardless();
                Ok("late".into())
            });
        }
        let (reached, about_to) = (gate.clone(), bounded(1));
        let running = jobs.begin(id, "parent", move |_, turn| {
            let [late, last] = <[_; 2]>::try_from(children(turn, &["deaf", "deaf"])?).expect("two");
            reached.wait_arrived(2);
            assert_matches!(late.close(SHORT), Err(SessionError::Timeout { .. }));
            about_to.0.send(()).expect("the test listens");
            assert_matches!(last.close(LONG), Err(SessionError::Interrupted { .. }));
            turn.check()?;
            Ok("not reached".into())
        });
        about_to.1.recv_timeout(LONG).unwrap();
        running.interrupt();
        assert_cancelled(running.wait(), CancelReason::Interrupted);
        assert_eq!(listed(&jobs), [id]);
        gate.open();
    });
}

#[test]
fn c62_a_parent_that_panics_or_leaks_leaves_no_sub_session_behind() {
    run(|| {
        for how in ["drop", "leak", "panic", "leak and panic", "host mode"] {
            let jobs = Jobs::new(8);
            let (id, told) = (jobs.open(), unbounded());
            let told_by = told.0.clone();
            for _ in 0..2 {
                jobs.prepare("sleeps", |_, turn| Err(turn.sleep(Duration::MAX).unwrap_err().into()));
            }
            jobs.prepare("parent", move |_, turn| {
                let children = children(turn, &["sleeps", "sleeps"])?;
                children.iter().for_each(|child| told_by.send(child.session_id()).expect("the test listens"));
                if how.contains("leak") || how == "host mode" {
                    std::mem::forget(children);
                }
                if how.contains("panic") {
                    std::panic::resume_unwind(Box::new("out of ideas"));
                }
                Ok("parent".into())
            });
            let request = turn("parent").host_mode(how == "host mode");
            let running = jobs.service.begin_turn(id, request).unwrap();
            if how == "host mode" {
                // At the end of the prompt, though the turn goes on.
                wait_ended(&jobs, told.1.iter().take(2));
                jobs.service.event_injector(id).unwrap().dismiss(turnwise::EventSource::Tcp).unwrap();
            }
            assert_eq!(running.wait().is_err(), how.contains("panic"), "{how}");
            // By the time of the answer they are archived, and soon they have ended.
            assert_eq!(listed(&jobs), [id], "{how}");
            wait_ended(&jobs, told.1.try_iter());
        }
    });
}

#[test]
fn c62_a_detached_sub_session_outlives_the_turn_and_its_cancellation() {
    run(|| {
        let jobs = Jobs::new(1);
        let (id, gate, detached) = (jobs.open(), Gate::new(), bounded(1));
        let at = gate.clone();
        jobs.prepare("child", move |_, turn| {
            turn.without_permit(|| at.pass(turn.cancel_token()))?;
            Ok("on its own".into())
        });
        let running = jobs.begin(id, "parent", move |_, turn| {
            detached.0.send(turn.sub_session(create("child"))?.detach()).expect("the test listens");
            Err(turn.sleep(Duration::MAX).unwrap_err().into())
        });
        let child = detached.1.recv_timeout(LONG).unwrap();
        gate.wait_arrived(1);
        running.interrupt();
        assert_cancelled(running.wait(), CancelReason::Interrupted);
        assert_eq!(listed(&jobs), [id, child.session_id()]);
        gate.open();
        assert_eq!(child.wait().unwrap().text, "on its own");
    });
}

#[test]
fn c62_a_cancelled_turn_gets_no_sub_session() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        let running = jobs.begin(id, "parent", move |service, turn| {
            service.interrupt(id)?;
            let refused = turn.sub_session(create("x"));
            assert_matches!(refused, Err(SessionError::Interrupted { id: is, reason: CancelReason::Interrupted }) if is == id);
            turn.check()?;
            Ok("not reached".into())
        });
        assert_cancelled(running.wait(), CancelReason::Interrupted);
        assert_eq!(jobs.service.stats().sessions_created, 1);
    });
}

/// Three sub-agents under a deadline: what is there in time is kept.
fn research(ask: impl FnOnce(&TurnContext) -> Result<Vec<String>, AgentError> + Send + 'static) {
    let clock = ManualClock::new();
    let own = clock.clone();
    let jobs = Jobs::with(|config| config.max_running_turns(1).clock(own));
    let id = jobs.open();
    jobs.prepare("slow", |_, turn| {
        turn.sleep(Duration::MAX)?;
        Ok("never".into())
    });
    jobs.prepare("parent", move |_, turn| {
        let mut found = ask(turn)?;
        found.sort();
        Ok(found.join(", "))
    });
    let running = jobs.service.begin_turn(id, turn("parent").timeout(2 * SECOND)).unwrap();
    // The parent has the results of the quick ones once these have ended: it drops each after its result.
    loop {
        let stats = jobs.service.stats();
        if (stats.sessions_created, stats.turns_completed, stats.sessions) == (4, 2, 2) {
            break;
        }
        thread::yield_now();
    }
    clock.advance(2 * SECOND);
    let result = running.wait().unwrap();
    assert_eq!((result.text.as_str(), result.stop_reason), ("north, south", turnwise::StopReason::Cancelled));
    assert_eq!(listed(&jobs), [id]);
    assert!(jobs.service.shutdown(LONG).stuck.is_empty());
    assert_eq!(jobs.service.stats().running_turns, 0);
}

#[test]
fn c62_partial_results_are_kept_under_a_deadline() {
    run(|| {
        research(|turn| {
            let mut asked = children(turn, &["north", "slow", "south"])?;
            let mut found = Vec::new();
            while !asked.is_empty() {
                let handles: Vec<_> = asked.iter().map(SubSession::handle).collect();
                let Ok(Some(done)) = turn.wait_any(&handles, None) else { break };
                // The slow one may have been interrupted before this turn looks at its own token.
                found.extend(asked.remove(done).wait().map(|result| result.text));
            }
            Ok(found)
        });
    });
}

#[test]
fn c62_partial_results_of_scoped_threads_are_kept_under_a_deadline() {
    run(|| {
        research(|turn| {
            let ask = |prompt: &str| Ok::<_, SessionError>(turn.sub_session(create(prompt))?.wait()?.text);
            let answers = thread::scope(|scope| {
                let tools = ["north", "slow", "south"].map(|prompt| scope.spawn(move || ask(prompt)));
                turn.without_permit(|| tools.map(|tool| tool.join().expect("tools do not panic")))
            });
            Ok(answers.into_iter().flatten().collect())
        });
    });
}

#[test]
fn c62_a_sub_session_whose_events_are_not_read_is_ended_too() {
    run(|| {
        let jobs = Jobs::new(1);
        let id = jobs.open();
        jobs.prepare("floods", |_, turn| {
            (0..).try_for_each(|number| turn.emit(delta(number))).map(|()| String::new()).map_err(Into::into)
        });
        let running = jobs.begin(id, "parent", |_, turn| {
            let flooding: SubSession<'_> = turn.sub_session(CreateSessionRequest::new("floods"))?;
            assert_matches!(turn.wait_any(&[flooding.handle()], Some(SHORT)), Ok(None));
            flooding.close(LONG)?;
            Ok("closed".into())
        });
        assert_eq!(running.wait().unwrap().text, "closed");
    });
}

#[test]
fn c62_a_sub_session_of_an_interaction_ends_with_the_interaction() {
    run(|| {
        let jobs = Jobs::new(1);
        let (id, told) = (jobs.open(), unbounded());
        for name in ["child", "leaked"] {
            jobs.prepare(name, |_, turn| Err(turn.sleep(Duration::MAX).unwrap_err().into()));
        }
        let seen = told.0.clone();
        jobs.prepare("waits", move |_, turn| {
            let mut child = turn.sub_session(create("child"))?;
            assert!(child.next().is_some());
            seen.send(child.session_id()).expect("the test listens");
            Ok(child.wait()?.text)
        });
        jobs.prepare("leaks", move |_, turn| {
            let child = turn.sub_session(create("leaked"))?;
            told.0.send(child.session_id()).expect("the test listens");
            std::mem::forget(child);
            Ok("leaked".into())
        });
        let hosting = jobs.service.begin_turn(id, turn("hosts").host_mode(true)).unwrap();
        let injector = jobs.service.event_injector(id).unwrap();
        let waiting = injector.inject_with_subscription("waits".into(), turnwise::EventSource::Tcp).unwrap();
        let child = told.1.recv_timeout(LONG).unwrap();
        jobs.service.interrupt_interaction(id, waiting.id).unwrap();
        let ended = waiting.last();
        assert_matches!(ended, Some(AgentEvent::InteractionFailed { ref error, .. }) if error == "cancelled: interrupted");
        let leaking = injector.inject_with_subscription("leaks".into(), turnwise::EventSource::Tcp).unwrap();
        assert_matches!(leaking.last(), Some(AgentEvent::InteractionComplete { .. }));
        // The turn goes on, without them.
        assert!(!hosting.is_finished());
        wait_ended(&jobs, [child, told.1.recv_timeout(LONG).unwrap()]);
        injector.dismiss(turnwise::EventSource::Tcp).unwrap();
        hosting.wait().unwrap();
        assert_eq!(listed(&jobs), [id]);
    });
}
