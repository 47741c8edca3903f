//! C24–C26: reads and lists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use turnwise::crossbeam_channel::unbounded;
use turnwise::{
    agent_fn, builder_fn, AgentError, EphemeralSessionService, Message, RunResult, Session, SessionAgent,
    SessionContext, SessionError, SessionId, SessionQuery, SessionService, SessionSnapshot, SessionSpec, SessionState,
    Subscription, TurnContext, TurnId, Usage,
};

use crate::support::*;

#[test]
fn c24_read_and_list_never_wait_for_a_turn() {
    run(|| {
        let (service, stage) = scripted(2);
        let id = service.create_session(create("before")).unwrap().session_id;
        let running = service.begin_turn(id, turn("deaf")).unwrap();
        stage.wait_entered();
        // The turn is released only after `read` and `list` have returned.
        let view = service.read(id).unwrap();
        assert_eq!((view.session_id(), view.state.state, view.state.is_active), (id, SessionState::Running, true));
        assert_eq!(view.state.last_assistant_text.as_deref(), Some("before"));
        let listed = service.list(SessionQuery::new()).unwrap();
        assert_eq!((listed[0].state, listed[0].message_count), (SessionState::Running, 2));
        stage.release();
        running.wait().unwrap();
        assert_eq!(service.read(id).unwrap().state.message_count, 4);
    });
}

/// An agent that publishes an odd message count during a turn, and an even one after it.
struct OddWhileRunning {
    session: Session,
    turns: usize,
}

impl SessionAgent for OddWhileRunning {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        turn.publish(SessionSnapshot { message_count: 2 * self.turns + 1, ..self.snapshot() });
        self.turns += 1;
        Ok(turn.finish(""))
    }

    fn session_clone(&self) -> Session {
        self.session.clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        SessionSnapshot {
            message_count: 2 * self.turns,
            total_tokens: self.turns as u64,
            usage: Usage { input_tokens: self.turns as u64, ..Usage::default() },
            ..SessionSnapshot::from(&self.session)
        }
    }
}

#[test]
fn c24_state_and_figures_are_from_one_instant() {
    run(|| {
        let builder =
            builder_fn(|_, context| Ok(OddWhileRunning { session: Session::with_id(context.session_id()), turns: 0 }));
        let service = EphemeralSessionService::new(builder, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut looks = 0_u64;
                let mut last = 0;
                while !done.load(Ordering::SeqCst) {
                    let view = service.read(id).unwrap();
                    let (state, count) = (view.state.state, view.state.message_count);
                    // An idle session shows the snapshot of its last turn. During a turn either figure is right.
                    assert!(state == SessionState::Running || count % 2 == 0, "{state:?} with {count}");
                    assert_eq!(view.billing.total_tokens, view.billing.usage.input_tokens);
                    assert!(count >= last, "figures went back from {last} to {count}");
                    last = count;
                    let listed = &service.list(SessionQuery::new()).unwrap()[0];
                    assert!(listed.state == SessionState::Running || listed.message_count % 2 == 0);
                    looks += 1;
                }
                looks
            });
            for _ in 0..30_000 {
                service.start_turn(id, turn("x")).unwrap();
            }
            done.store(true, Ordering::SeqCst);
            assert!(reader.join().unwrap() > 0);
        });
    });
}

/// An agent with four messages for each turn and seven tokens for each message. It publishes after every message.
struct Counting {
    history: Session,
    messages: usize,
}

impl SessionAgent for Counting {
    fn run_turn(&mut self, _: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        for _ in 0..3 {
            self.messages += 1;
            turn.publish(self.snapshot());
        }
        self.messages += 1;
        Ok(turn.finish("counted"))
    }

    fn session_clone(&self) -> Session {
        self.history.clone()
    }

    fn snapshot(&self) -> SessionSnapshot {
        let (message_count, total_tokens) = (self.messages, 7 * self.messages as u64);
        SessionSnapshot { message_count, total_tokens, ..SessionSnapshot::from(&self.history) }
    }
}

#[test]
fn c24_lists_are_whole_and_in_order_while_turns_run() {
    run(|| {
        let build = |_: &SessionSpec, context: &SessionContext| {
            Ok(Counting { history: Session::with_id(context.session_id()), messages: 0 })
        };
        let service = EphemeralSessionService::new(builder_fn(build), 40);
        let all: Vec<_> = (0..40).map(|_| service.open_session(SessionSpec::new()).unwrap()).collect();
        let running = AtomicUsize::new(3);
        thread::scope(|scope| {
            for first in 0..3 {
                let (service, all, running) = (&service, &all, &running);
                scope.spawn(move || {
                    for number in 0..4_000 {
                        // Another thread may run a turn of this session.
                        let _ = service.start_turn(all[(number * 7 + first) % all.len()], turn("x"));
                    }
                    running.fetch_sub(1, Ordering::SeqCst);
                });
            }
            while running.load(Ordering::SeqCst) > 0 {
                let page = service.list(SessionQuery::new().offset(3).limit(30)).unwrap();
                assert_eq!(page.iter().map(|session| session.session_id).collect::<Vec<_>>(), all[3..33]);
                for session in page {
                    let (messages, most) = (session.message_count as u64, 4 * session.turns);
                    assert_eq!(session.total_tokens, 7 * messages, "{session:?}");
                    match session.state {
                        SessionState::Idle => assert_eq!(messages, most, "{session:?}"),
                        _ => assert!((most - 4..=most).contains(&messages), "{session:?}"),
                    }
                }
                let stats = service.stats();
                assert!(stats.turns_ended() <= stats.turns_started, "{stats:?}");
            }
        });
    });
}

#[test]
fn c24_reads_and_lists_show_the_number_of_turns_and_the_running_one() {
    run(|| {
        let (service, stage) = scripted(1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let turns = || {
            let (info, summary) =
                (service.read(id).unwrap().state, service.list(SessionQuery::new()).unwrap().remove(0));
            assert_eq!((info.turns, info.is_active), (summary.turns, summary.is_active));
            (info.turns, info.is_active)
        };
        assert_eq!(turns(), (0, false));
        service.start_turn(id, turn("x")).unwrap();
        service.start_turn(id, turn("fail")).unwrap_err();
        assert_eq!(turns(), (2, false));
        let running = service.begin_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        assert_eq!(turns(), (3, true));
        assert_eq!(running.turn_id(), TurnId::new(3));
        service.interrupt_turn(id, TurnId::new(turns().0)).unwrap();
        running.wait().unwrap_err();
        assert_eq!(turns(), (3, false));
        // The statistics count every turn, however it ended.
        assert_eq!(service.stats().turns_ended(), 3);
    });
}

#[test]
fn c24_an_agent_can_publish_in_the_middle_of_a_turn() {
    run(|| {
        let (enter, entered) = unbounded();
        let (go, gate) = unbounded::<()>();
        let service = EphemeralSessionService::new(
            agent_fn(move |_, turn| {
                let mut progress = SessionSnapshot::from(&Session::new());
                progress.last_assistant_text = Some("half of".into());
                turn.publish(progress);
                enter.send(()).unwrap();
                let _ = gate.recv();
                Ok(turn.finish("half of it and more"))
            }),
            1,
        );
        let running = service.begin_session(create("x")).unwrap();
        entered.recv().unwrap();
        let id = running.session_id();
        assert_eq!(service.read(id).unwrap().state.last_assistant_text.as_deref(), Some("half of"));
        go.send(()).unwrap();
        running.wait().unwrap();
        assert_eq!(service.read(id).unwrap().state.last_assistant_text.as_deref(), Some("half of it and more"));
    });
}

fn ids(service: &impl SessionService, query: SessionQuery) -> Vec<SessionId> {
    service.list(query).unwrap().iter().map(|session| session.session_id).collect()
}

#[test]
fn c25_list_order_is_creation_order_and_stays_so_across_archives() {
    run(|| {
        let (service, _stage) = scripted(200);
        let mut live = Vec::new();
        for number in 0..120 {
            // The ids sort in the reverse order of creation.
            let id = SessionId::from_uuid(uuid_from(u128::MAX - number));
            let parity = if number % 2 == 0 { "even" } else { "odd" };
            let spec = SessionSpec::new().session_id(id).label("parity", parity).label("all", "yes");
            live.push(service.open_session(spec).unwrap());
        }
        assert_eq!(ids(&service, SessionQuery::new()), live);
        // So many scattered removals make the registry remove its gaps.
        for round in 0..60 {
            let id = live.remove(round * 37 % live.len());
            service.archive_wait(id, LONG).unwrap();
            assert_eq!(ids(&service, SessionQuery::new()), live);
        }
        assert_eq!(ids(&service, SessionQuery::new().limit(3)), live[..3]);
        assert_eq!(ids(&service, SessionQuery::new().limit(0)), []);
        assert_eq!(ids(&service, SessionQuery::new().offset(5).limit(3)), live[5..8]);
        assert_eq!(ids(&service, SessionQuery::new().offset(1_000)), []);
        assert_eq!(ids(&service, SessionQuery::new().after(live[9]).limit(2)), live[10..12]);
        assert_eq!(ids(&service, SessionQuery::new().after(live[9]).offset(2).limit(2)), live[12..14]);
        assert_eq!(ids(&service, SessionQuery::new().after(*live.last().unwrap())), []);
        let unknown = service.list(SessionQuery::new().after(SessionId::new()));
        assert_matches!(unknown, Err(SessionError::NotFound { .. }));

        let odd = service.list(SessionQuery::new().label("parity", "odd").label("all", "yes")).unwrap();
        assert!(odd.len() > 20 && odd.iter().all(|session| session.labels["parity"] == "odd"));
        assert_eq!(ids(&service, SessionQuery::new().label("parity", "neither")), []);
        assert_eq!(ids(&service, SessionQuery::new().label("none", "")), []);
    });
}

fn uuid_from(number: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(number)
}

#[test]
fn c25_an_archived_session_that_has_not_ended_is_in_no_list() {
    run(|| {
        let (service, stage) = scripted(3);
        let first = service.open_session(SessionSpec::new()).unwrap();
        let running = service.begin_session(create("deaf")).unwrap();
        let last = service.open_session(SessionSpec::new()).unwrap();
        stage.wait_entered();
        service.archive(running.session_id()).unwrap();
        assert_eq!(ids(&service, SessionQuery::new()), [first, last]);
        assert_eq!(ids(&service, SessionQuery::new().after(first)), [last]);
        // The cursor is archived between two pages. The next page begins behind it.
        assert_eq!(ids(&service, SessionQuery::new().after(running.session_id())), [last]);
        stage.release();
        running.wait().unwrap();
    });
}

#[test]
fn c25_the_cost_of_a_page_after_an_id_does_not_grow_with_the_sessions() {
    run(|| {
        // Compares a page near the end of many sessions with a page near the end of few.
        let page_time = |sessions: usize| {
            let (builder, _stage) = scripted_with(|config| config.max_sessions(sessions).stack_size(64 << 10));
            let opened: Vec<_> = (0..sessions).map(|_| builder.open_session(SessionSpec::new()).unwrap()).collect();
            let query = SessionQuery::new().after(opened[sessions - 20]).limit(10);
            let sample = || {
                let before = Instant::now();
                for _ in 0..200 {
                    assert_eq!(builder.list(query.clone()).unwrap().len(), 10);
                }
                before.elapsed()
            };
            let best = (0..10).map(|_| sample()).min().unwrap();
            builder.shutdown(LONG);
            best
        };
        let (few, many) = (page_time(40), page_time(2_000));
        // There are fifty times as many sessions. A scan of all of them would exceed this limit by far.
        assert!(many < 10 * few + Duration::from_millis(1), "{few:?} among 40, {many:?} among 2,000");
    });
}

#[test]
fn c26_a_resumed_session_shows_its_figures_from_the_moment_it_is_registered() {
    run(|| {
        let mut history = Session::new();
        history.push_batch([Message::user("then"), Message::assistant("long ago")]);
        history.record_usage(Usage { input_tokens: 40, output_tokens: 2, ..Usage::default() });
        let (go, gate) = unbounded::<()>();
        let echo = agent_fn(|prompt, turn| Ok(turn.finish(prompt)));
        let builder = builder_fn(move |spec, context| {
            let _ = gate.recv();
            turnwise::SessionAgentBuilder::build_agent(&echo, spec, context)
        });
        let service = EphemeralSessionService::new(builder, 1);
        let resumed = create("now").session(SessionSpec::new().resume(history.clone()));
        let building = service.begin_session(resumed).unwrap();
        let view = service.read(history.id()).unwrap();
        assert_eq!((view.state.state, view.state.message_count), (SessionState::Building, 2));
        assert_eq!(view.state.last_assistant_text.as_deref(), Some("long ago"));
        assert_eq!((view.billing.total_tokens, view.billing.usage), (42, history.usage()));
        assert_eq!(view.state.created_at, history.created_at());
        assert_eq!(service.list(SessionQuery::new()).unwrap()[0].total_tokens, 42);
        go.send(()).unwrap();
        building.wait().unwrap();
        assert_eq!(service.read(history.id()).unwrap().state.message_count, 4);
    });
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn c25_labels_can_be_replaced_in_every_state_of_a_session() {
    run(|| {
        let (service, stage) = scripted(4);
        let spec = || SessionSpec::new().label("user", "ada");
        let idle = service.open_session(spec()).unwrap();
        let running = service.begin_session(create("hold").session(spec())).unwrap();
        stage.wait_entered();
        let faulted = service.begin_session(create("panic").session(spec())).unwrap();
        let ids = [idle, running.session_id(), faulted.session_id()];
        assert!(faulted.wait().is_err());
        for id in ids {
            let wanted = labels(&[("topic", "maps"), ("user", "bob")]);
            service.set_labels(id, wanted.clone()).unwrap();
            assert_eq!(service.read(id).unwrap().labels, wanted);
        }
        assert!(service.list(SessionQuery::new().label("user", "ada")).unwrap().is_empty());
        let found = service.list(SessionQuery::new().label("topic", "maps").label("user", "bob")).unwrap();
        assert_eq!(found.iter().map(|summary| summary.session_id).collect::<Vec<_>>(), ids);
        assert!(found.iter().all(|summary| summary.labels["topic"] == "maps"));
        service.set_labels(idle, BTreeMap::new()).unwrap();
        assert!(service.read(idle).unwrap().labels.is_empty());
        service.archive(idle).unwrap();
        for unknown in [idle, SessionId::new()] {
            let refused = service.set_labels(unknown, BTreeMap::new()).unwrap_err();
            assert_matches!(refused, SessionError::NotFound { id } if id == unknown);
        }
        stage.release();
        running.wait().unwrap();
    });
}

#[test]
fn c25_a_list_has_only_the_labels_that_its_query_has_asked_for() {
    run(|| {
        let (service, _stage) = scripted(2);
        let id = service.open_session(SessionSpec::new().label("a", "")).unwrap();
        let changing = {
            let service = service.clone();
            thread::spawn(move || {
                for round in 0..2_000 {
                    let name = if round % 2 == 0 { "b" } else { "a" };
                    service.set_labels(id, labels(&[(name, "")])).unwrap();
                    service.start_turn(id, turn("x")).unwrap();
                }
            })
        };
        while !changing.is_finished() {
            for name in ["a", "b"] {
                let found = service.list(SessionQuery::new().label(name, "")).unwrap();
                assert!(found.iter().all(|summary| summary.labels == labels(&[(name, "")])), "{found:?}");
            }
        }
        changing.join().unwrap();
    });
}

#[test]
fn c24_a_read_tells_the_model_and_the_number_of_the_last_event() {
    run(|| {
        let (service, stage) = scripted_with(|config| config.event_history(16));
        let id = service.open_session(SessionSpec::new().model("small")).unwrap();
        let read = || service.read(id).unwrap();
        assert_eq!((&*read().model, read().state.last_seq), ("small", 0));
        service.start_turn(id, turn("emit 3")).unwrap();
        assert_eq!(read().state.last_seq, 5); // RunStarted, three deltas, RunCompleted
        let held = service.begin_turn(id, turn("hold")).unwrap();
        stage.wait_entered();
        let seen = read().state.last_seq;
        assert_eq!(seen, 6);
        stage.release();
        held.wait().unwrap();
        // What the client has not seen: no gap, and no event twice.
        let stream = service.subscribe(id, Subscription::new().from_seq(seen + 1)).unwrap();
        service.archive(id).unwrap();
        assert_eq!(stream.map(|event| event.seq).collect::<Vec<_>>(), [7]);
    });
}
