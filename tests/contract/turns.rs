//! C10–C16: admission, results, options of one turn, the limit of running turns.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use turnwise::crossbeam_channel::{bounded, unbounded};
use turnwise::testkit::ManualClock;
use turnwise::{
    agent_fn, builder_fn, AgentError, CancelReason, EphemeralSessionService, RunResult, Session, SessionAgent,
    SessionError, SessionService, SessionSpec, SessionState, SkillId, StartTurnRequest, TurnContext,
};

use crate::support::*;

#[test]
fn c10_of_many_concurrent_starts_exactly_one_is_admitted() {
    run(|| {
        const CALLERS: usize = 8;
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for round in 1..=100 {
            let start = Barrier::new(CALLERS);
            let begun: Vec<_> = thread::scope(|scope| {
                let callers: Vec<_> = (0..CALLERS)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            service.begin_turn(id, turn("deaf"))
                        })
                    })
                    .collect();
                callers.into_iter().map(|caller| caller.join().unwrap()).collect()
            });
            let (admitted, refused): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
            assert_eq!(admitted.len(), 1);
            for result in refused {
                assert_matches!(result, Err(SessionError::Busy { .. }));
            }
            stage.release();
            for admitted in admitted {
                assert_eq!(admitted.unwrap().wait().unwrap().turn_id.get(), round);
            }
            stage.wait_entered();
        }
        // No refused turn was queued.
        assert_eq!(service.stats().turns_started, 100);
        assert!(stage.entered.is_empty());
    });
}

#[test]
fn c11_after_a_result_the_session_is_free_and_shows_the_turns_figures() {
    run(|| {
        let (service, _stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for number in 1..=2_000 {
            let text = number.to_string();
            let result = service.start_turn(id, turn(&text)).expect("the session is free");
            assert_eq!(result.turn_id.get(), number);
            let view = service.read(id).unwrap();
            assert_eq!(view.state.state, SessionState::Idle);
            assert_eq!(view.state.message_count as u64, 2 * number);
            assert_eq!(view.state.last_assistant_text.as_deref(), Some(text.as_str()));
        }
    });
}

#[test]
fn c11_every_way_of_waiting_gives_the_same_result_again() {
    run(|| {
        let (service, stage) = scripted(1);
        let mut running = service.begin_session(create("hold")).unwrap();
        stage.wait_entered();
        assert!(running.try_wait().is_none());
        assert!(running.wait_timeout(SHORT).is_none());
        assert!(!running.is_finished());
        assert!(running.finished().try_recv().unwrap_err().is_empty());
        stage.release();
        assert!(running.finished().recv().is_err());
        for _ in 0..2 {
            assert_eq!(running.try_wait().unwrap().unwrap().text, "released");
            assert_eq!(running.wait_timeout(LONG).unwrap().unwrap().text, "released");
        }
        assert!(running.is_finished());
        assert_eq!(running.wait().unwrap().text, "released");
    });
}

#[test]
fn c12_a_session_is_free_however_its_turn_has_ended() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        for _ in 0..50 {
            service.start_turn(id, turn("ok")).unwrap();
            service.start_turn(id, turn("fail")).unwrap_err();
            // The interrupt comes before or after the pick-up.
            let cancelled = service.begin_turn(id, turn("hold")).unwrap();
            cancelled.interrupt();
            assert_cancelled(cancelled.wait(), CancelReason::Interrupted);
            // The caller drops its handle.
            let left = service.begin_turn(id, turn("hold")).unwrap();
            let finished = left.finished().clone();
            drop(left);
            service.interrupt(id).unwrap();
            assert!(finished.recv().is_err());
            // The receiver of the events is dropped.
            let (event_tx, events) = unbounded();
            drop(events);
            service.start_turn(id, turn("emit 3").event_tx(event_tx)).unwrap();
        }
        while stage.entered.try_recv().is_ok() {}
        assert_matches!(service.start_turn(id, turn("panic")), Err(SessionError::Faulted { .. }));
        assert_matches!(service.start_turn(id, turn("ok")), Err(SessionError::Faulted { .. }));
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Faulted);
        assert!(!service.read(id).unwrap().state.is_active);
    });
}

#[test]
fn c13_dropping_the_handle_detaches() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("hold")).unwrap();
        let (id, finished) = (running.session_id(), running.finished().clone());
        stage.wait_entered();
        drop(running);
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Running);
        assert_matches!(service.begin_turn(id, turn("x")), Err(SessionError::Busy { .. }));
        stage.release();
        assert!(finished.recv().is_err());
        assert_eq!(service.read(id).unwrap().state.last_assistant_text.as_deref(), Some("released"));
    });
}

/// An agent that answers with its skills.
struct Skilled {
    session: Session,
    skills: Option<Vec<SkillId>>,
}

impl SessionAgent for Skilled {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        Ok(turn.finish(format!("{:?}", self.skills)))
    }

    fn session_clone(&self) -> Session {
        self.session.clone()
    }

    fn set_skill_references(&mut self, skills: Option<Vec<SkillId>>) {
        self.skills = skills;
    }
}

#[test]
fn c14_options_of_a_turn_do_not_reach_the_next_turn() {
    run(|| {
        let builder =
            builder_fn(|_, context| Ok(Skilled { session: Session::with_id(context.session_id()), skills: None }));
        let service = EphemeralSessionService::new(builder, 1);
        let skills = vec![SkillId::new("office/mail")];
        let (event_tx, events) = unbounded();
        let request = create("x").skill_references(skills.clone()).event_tx(event_tx).timeout(LONG);
        let first = service.create_session(request).unwrap();
        assert_eq!(first.text, format!("{:?}", Some(skills)));
        assert_eq!(events.iter().count(), 2);
        let second = service.start_turn(first.session_id, turn("x")).unwrap();
        assert_eq!(second.text, "None");
        assert!(events.recv().is_err());
    });
}

#[test]
fn c14_a_timeout_that_has_not_run_out_does_not_reach_the_next_turn() {
    run(|| {
        let clock = ManualClock::new();
        let (service, stage) = scripted_with(|config| config.clock(clock.clone()));
        let id = service.open_session(SessionSpec::new()).unwrap();
        service.start_turn(id, turn("quick").timeout(LONG)).unwrap();
        let next = service.begin_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        clock.advance(2 * LONG);
        clock.settle();
        assert!(!next.is_finished(), "the deadline of the previous turn has cancelled this one");
        stage.release();
        assert_eq!(next.wait().unwrap().text, "released");
    });
}

#[test]
fn c15_turn_ids_rise_by_one_per_admitted_turn() {
    run(|| {
        let (service, stage) = scripted(1);
        let running = service.begin_session(create("hold")).unwrap();
        let id = running.session_id();
        stage.wait_entered();
        for _ in 0..5 {
            service.begin_turn(id, turn("refused")).unwrap_err();
        }
        stage.release();
        assert_eq!(running.wait().unwrap().turn_id.get(), 1);
        service.start_turn(id, turn("fail")).unwrap_err();
        assert_eq!(service.start_turn(id, turn("x")).unwrap().turn_id.get(), 3);
    });
}

#[test]
fn c16_no_more_turns_run_at_a_time_than_allowed() {
    run(|| {
        const LIMIT: usize = 2;
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counting = {
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            agent_fn(move |_, turn| {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                for _ in 0..20 {
                    thread::yield_now();
                }
                now.fetch_sub(1, Ordering::SeqCst);
                Ok(turn.finish(""))
            })
        };
        let config = EphemeralSessionService::configure(counting).max_sessions(8).max_running_turns(LIMIT);
        let service = config.build().unwrap();
        let ids: Vec<_> = (0..8).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        for _ in 0..50 {
            let turns: Vec<_> = ids.iter().map(|id| service.begin_turn(*id, turn("x")).unwrap()).collect();
            turns.into_iter().for_each(|turn| drop(turn.wait().unwrap()));
            assert!(service.stats().running_turns == 0);
        }
        assert_eq!(now.load(Ordering::SeqCst), 0);
        assert!(most.load(Ordering::SeqCst) <= LIMIT);
    });
}

#[test]
fn c16_a_turn_that_waits_for_its_permit_can_be_interrupted() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.max_sessions(3).max_running_turns(1));
        let running = service.begin_session(create("deaf")).unwrap();
        stage.wait_entered();
        let waiting = service.begin_session(create("never run")).unwrap();
        let id = waiting.session_id();
        waiting.interrupt();
        assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        assert_eq!(service.stats().running_turns, 1);
        assert_eq!(service.read(id).unwrap().state.message_count, 0);
        stage.release();
        running.wait().unwrap();
        // The cancelled wait has not lost the permit.
        assert_eq!(service.start_turn(id, turn("x")).unwrap().text, "x");
    });
}

#[test]
fn c16_a_turn_that_waits_for_a_sub_agents_turn_holds_no_permit() {
    run(|| {
        let parent_and_child = builder_fn(|spec, context| {
            let (service, is_child) = (context.service(), spec.model == "child");
            let agent = agent_fn(move |prompt, turn| {
                if is_child {
                    return Ok(turn.finish(format!("child says {prompt}")));
                }
                let service = service.upgrade().expect("the test has a handle");
                let child = create(&prompt).session(SessionSpec::new().model("child"));
                let answer = service.create_session(child)?;
                let again = service.start_turn(answer.session_id, StartTurnRequest::new("more"))?;
                let mut stream = service.stream_turn(answer.session_id, StartTurnRequest::new("streamed"))?;
                stream.by_ref().for_each(drop);
                stream.wait()?;
                service.archive_wait(answer.session_id, LONG)?;
                Ok(turn.finish(again.text))
            });
            turnwise::SessionAgentBuilder::build_agent(&agent, spec, context)
        });
        let config = EphemeralSessionService::configure(parent_and_child).max_sessions(2).max_running_turns(1);
        let service = config.build().unwrap();
        assert_eq!(service.create_session(create("hello")).unwrap().text, "child says more");
        assert_eq!(service.stats().running_turns, 0);
    });
}

#[test]
fn c16_a_parent_that_reads_a_sub_agents_events_lends_its_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let (parent, child) = (jobs.open(), jobs.open());
        // More events than a stream holds.
        jobs.prepare("child", |_, turn| {
            (0..2_000).try_for_each(|number| turn.emit(delta(number)))?;
            Ok("done".into())
        });
        let reading = jobs.begin(parent, "parent", move |service, _| {
            let mut seen = 0;
            service.start_turn_with(child, turn("child"), &mut |_| seen += 1)?;
            Ok(seen.to_string())
        });
        assert_eq!(reading.wait().unwrap().text, "2002");
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}

#[test]
fn c16_a_timed_wait_ends_in_time_to_stop_the_turn_that_has_the_permit() {
    run(|| {
        let jobs = Jobs::new(1);
        let (one, other) = (jobs.open(), jobs.open());
        let (enter, entered) = unbounded();
        jobs.prepare("endless", move |_, turn| {
            enter.send(()).unwrap();
            // A wait that the library does not know keeps the permit.
            turn.cancel_token().cancelled().recv().unwrap_err();
            turn.check()?;
            Ok("never".into())
        });
        let stopping = jobs.begin(one, "stops the other", move |service, _| {
            let endless = service.begin_turn(other, turn("endless"))?;
            // The other turn gets the permit as soon as this turn waits, and keeps it.
            while entered.is_empty() {
                assert_matches!(service.export_session_timeout(other, SHORT), Err(SessionError::Timeout { .. }));
            }
            endless.interrupt();
            assert_cancelled(endless.wait(), CancelReason::Interrupted);
            Ok("stopped".into())
        });
        assert_eq!(stopping.wait().unwrap().text, "stopped");
        assert_eq!(jobs.service.stats().running_turns, 0);
    });
}

#[test]
fn c16_a_turn_whose_last_event_waits_for_room_needs_no_permit() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.max_running_turns(1));
        let (one, other) =
            (service.open_session(SessionSpec::new()).unwrap(), service.open_session(SessionSpec::new()).unwrap());
        let (event_tx, events) = bounded(1); // `RunStarted` fills it
        let answered = service.begin_turn(one, turn("hold").event_tx(event_tx)).unwrap();
        stage.wait_entered();
        let holding = service.begin_turn(other, turn("hold")).unwrap();
        stage.release();
        // The first turn has only its last event left. The other one has the permit and keeps it.
        assert_eq!(stage.wait_entered().0, other);
        assert_eq!(events.iter().count(), 2);
        assert_eq!(answered.wait().unwrap().text, "released");
        stage.release();
        holding.wait().unwrap();
        assert_eq!(service.stats().running_turns, 0);
    });
}

#[test]
fn c12_a_reused_thread_serves_the_next_session_like_a_new_one() {
    run(|| {
        let threads = Arc::new(Mutex::new(HashSet::new()));
        let seen = Arc::clone(&threads);
        let agent = agent_fn(move |prompt, turn| {
            seen.lock().unwrap().insert(thread::current().id());
            match prompt.as_str() {
                "fail" => Err(AgentError::Internal("scripted".into())),
                "panic" => panic!("scripted"),
                "hold" => turn.sleep(std::time::Duration::MAX).map(|()| turn.finish("")).map_err(Into::into),
                _ => Ok(turn.finish(prompt)),
            }
        });
        let config = EphemeralSessionService::configure(agent).max_sessions(1).idle_threads(1);
        let service = config.thread_name_prefix("c12-hand").build().unwrap();
        for _ in 0..50 {
            for prompt in ["ok", "fail", "panic", "hold"] {
                let begun = service.begin_session(create(prompt)).unwrap();
                let id = begun.session_id();
                if prompt == "hold" {
                    begun.interrupt();
                }
                let ended = begun.wait();
                assert_eq!(ended.is_ok(), prompt == "ok");
                // The state of the previous session on this thread does not reach the new one.
                assert_eq!(service.read(id).unwrap().state.state == SessionState::Faulted, prompt == "panic");
                service.archive_wait(id, LONG).unwrap();
            }
        }
        // The thread was idle in time for most of the 200 sessions, though not for all.
        assert!(threads.lock().unwrap().len() < 150, "{} threads", threads.lock().unwrap().len());
        assert_eq!(service.shutdown(LONG).stuck, []);
        #[cfg(target_os = "linux")]
        assert_no_threads("c12-hand");
    });
}

#[test]
fn c12_idle_threads_end_with_the_service() {
    run(|| {
        let agent = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let config = EphemeralSessionService::configure(agent).idle_threads(8).thread_name_prefix("c12-idle");
        let service = config.build().unwrap();
        let ids: Vec<_> = (0..8).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        ids.into_iter().for_each(|id| service.archive_wait(id, LONG).unwrap());
        drop(service);
        #[cfg(target_os = "linux")]
        assert_no_threads("c12-idle");
    });
}
