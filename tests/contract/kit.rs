//! The test kit: its tools, and the failures of its assertions.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::thread;
use std::time::Duration;

use turnwise::crossbeam_channel::unbounded;
use turnwise::testkit::{
    assert_no_leaked_sessions, assert_no_leaked_sessions_within, scripted as kit, within, Gate, ManualClock, Recorder,
    Script, SeededIds, TurnRecorder,
};
use turnwise::{
    AgentError, AgentEvent, ArchiveMode, CancelReason, EphemeralSessionService, EventSource, Overflow, Session,
    SessionError, SessionService, SessionSnapshot, SessionSpec, SessionState, Subscription, Usage, WhenBusy,
};

use crate::support::{assert_cancelled, assert_matches, create, delta, run, turn, LONG, SHORT};

/// The message of an assertion that must fail.
#[track_caller]
fn failure(assertion: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(assertion)).expect_err("an assertion that must fail has passed");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => payload.downcast::<&str>().map(|text| (*text).to_owned()).expect("a message"),
    }
}

#[test]
fn a_gate_lets_the_given_number_through_and_counts_arrivals() {
    run(|| {
        let gate = Gate::new();
        let (pass, passed) = unbounded();
        let visitors: Vec<_> = (0..4)
            .map(|_| {
                let (gate, pass) = (gate.clone(), pass.clone());
                thread::spawn(move || {
                    gate.pass_regardless();
                    pass.send(()).unwrap();
                })
            })
            .collect();
        gate.wait_arrived(4);
        assert_eq!((gate.arrived(), gate.waiting(), passed.len()), (4, 4, 0));
        gate.let_through(1);
        passed.recv().unwrap();
        gate.let_through(2);
        passed.recv().unwrap();
        passed.recv().unwrap();
        assert_eq!((gate.arrived(), gate.waiting(), passed.len()), (4, 1, 0));
        gate.open();
        visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
        assert_eq!((gate.arrived(), gate.waiting(), passed.len()), (4, 0, 1));
        // `let_through` also counts for a thread that arrives later.
        let other = Gate::new();
        other.let_through(1);
        other.pass_regardless();
    });
}

#[test]
fn a_cancelled_turn_does_not_pass_its_next_gate() {
    run(|| {
        let (gate, never) = (Gate::new(), Gate::new());
        let agent = kit().on("two gates", Script::new().wait_at_ignoring_cancel(&gate).wait_at(&never));
        let service = EphemeralSessionService::new(agent, 1);
        let passing = service.begin_session(create("two gates")).unwrap();
        gate.wait_arrived(1);
        passing.interrupt();
        assert_eq!(gate.waiting(), 1);
        never.open();
        gate.open();
        assert_cancelled(passing.wait(), CancelReason::Interrupted);
        assert_eq!((never.arrived(), never.waiting()), (1, 0));
    });
}

#[test]
fn a_script_plays_its_steps_in_order() {
    run(|| {
        let snapshot = SessionSnapshot { message_count: 42, ..SessionSnapshot::from(&Session::new()) };
        let gate = Gate::new();
        let usage = Usage { input_tokens: 3, ..Usage::default() };
        let script = Script::new()
            .emit(delta(0))
            .say("one")
            .publish(snapshot)
            .wait_at(&gate)
            .drain_inbox()
            .call(|turn| Ok(turn.emit(delta(9))?))
            .usage(usage)
            .usage(usage)
            .tool_calls(2);
        let replied = script.clone().reply("first").reply("last");
        let agent =
            kit().on("all", script).on("replied", replied).otherwise(|prompt| Script::new().say(prompt).say("!"));
        let service = EphemeralSessionService::new(agent, 1);
        let (event_tx, mut events) = Recorder::of_turn();
        let playing = service.begin_session(create("all").event_tx(event_tx)).unwrap();
        let id = playing.session_id();
        gate.wait_arrived(1);
        assert_eq!(service.read(id).unwrap().state.message_count, 42);
        for text in [" two", " three"] {
            service.event_injector(id).unwrap().inject(text.into(), EventSource::Stdin).unwrap();
        }
        gate.open();
        let result = playing.wait().unwrap();
        assert_eq!((result.text.as_str(), result.usage.input_tokens, result.tool_calls), ("one two three", 6, 2));
        events.assert_next(&["RunStarted(all)", "TextDelta(0)", "TextDelta(one)", "TextDelta( two)"]);
        events.wait_for("TextDelta(9)");
        // The drained interactions are settled with the turn.
        events.assert_next(&["InteractionComplete(one two three)", "InteractionComplete", "RunCompleted"]);
        assert_eq!(events.events().count(), 9);
        // The agent plays any number of scripts, and its history has every turn.
        assert_eq!(service.start_turn(id, turn("replied")).unwrap().text, "last");
        assert_eq!(service.start_turn(id, turn("hey")).unwrap().text, "hey!");
        assert_eq!(service.export_session(id).unwrap().messages().len(), 6);
    });
}

#[test]
fn a_script_ends_where_it_fails_panics_or_is_cancelled() {
    run(|| {
        let then_never = |script: Script| script.call(|_| unreachable!("a step after the end of the script"));
        let agent = kit()
            .on("fail", then_never(Script::new().say("so far").fail(AgentError::Config("no".into()))))
            .on("panic", then_never(Script::new().panic("by the script")))
            .on("until", then_never(Script::new().until_cancelled()))
            .on("sleep", then_never(Script::new().sleep(Duration::MAX)));
        assert!(format!("{agent:?}").contains("UntilCancelled"), "{agent:?}");
        let service = EphemeralSessionService::new(agent, 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let failed = service.start_turn(id, turn("fail"));
        assert_matches!(failed, Err(SessionError::Agent { source: AgentError::Config(_), .. }));
        for prompt in ["until", "sleep"] {
            let waiting = service.begin_turn(id, turn(prompt)).unwrap();
            waiting.interrupt();
            assert_cancelled(waiting.wait(), CancelReason::Interrupted);
        }
        match service.start_turn(id, turn("panic")) {
            Err(SessionError::Faulted { message, .. }) => assert_eq!(&*message, "by the script"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn builds_wait_fail_and_panic_as_scripted() {
    run(|| {
        let gate = Gate::new();
        let agent = kit().build_waits_at(&gate).build_calls(|spec, context| {
            context.events().emit(AgentEvent::TextDelta { delta: spec.model.clone() })?;
            if spec.model == "bad" {
                return Err(AgentError::Config("bad".into()));
            }
            Ok(())
        });
        let service = EphemeralSessionService::new(agent, 2);
        let spec = |model: &str| SessionSpec::new().model(model);
        let slow = service.begin_session(create("x").session(spec("good"))).unwrap();
        gate.wait_arrived(1);
        assert_eq!(service.read(slow.session_id()).unwrap().state.state, SessionState::Building);
        let stopped = service.begin_session(create("x").session(spec("good"))).unwrap();
        gate.wait_arrived(2);
        stopped.interrupt();
        assert_matches!(stopped.wait(), Err(SessionError::Build { .. }));
        gate.open();
        assert_eq!(slow.wait().unwrap().text, "x");
        assert_matches!(service.open_session(spec("bad")), Err(SessionError::Build { .. }));
        let failing = EphemeralSessionService::new(kit().build_fails(AgentError::Internal("no".into())), 1);
        let error = failing.open_session(SessionSpec::new()).unwrap_err().to_string();
        assert!(error.contains("internal error: no"), "{error}");
        let panicking = EphemeralSessionService::new(kit().build_panics("by the script"), 1);
        let error = panicking.open_session(SessionSpec::new()).unwrap_err().to_string();
        assert!(error.contains("panicked: by the script"), "{error}");
    });
}

#[test]
fn a_recorder_shows_both_sequences_and_where_they_differ() {
    run(|| {
        let service = EphemeralSessionService::new(kit().on("greet", Script::new().say("hullo").say("world")), 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let recorded = || {
            let (event_tx, events) = Recorder::of_turn();
            service.start_turn(id, turn("greet").event_tx(event_tx)).unwrap();
            events
        };
        recorded().assert_events(&["RunStarted", "TextDelta(hullo)", "TextDelta", "RunCompleted(hulloworld)"]);
        let expected = ["RunStarted", "TextDelta(hello)", "TextDelta(world)", "RunCompleted"];
        let expected_message = "\
the events differ from what was expected, first at position 1:
    expected           recorded
    RunStarted         RunStarted(greet)
--> TextDelta(hello)   TextDelta(hullo)
    TextDelta(world)   TextDelta(world)
    RunCompleted       RunCompleted(hulloworld)
";
        assert_eq!(failure(|| recorded().assert_events(&expected)), expected_message);
        // Too many events, too few events, and patterns that match only the beginning of a name or of a text.
        let message = failure(|| recorded().assert_events(&["RunStarted"]));
        assert!(
            message.contains("at position 1:") && message.contains("--> (nothing)    TextDelta(hullo)"),
            "{message}"
        );
        let message =
            failure(|| recorded().assert_next(&["RunStarted", "TextDelta", "TextDelta", "RunCompleted", "RunStarted"]));
        assert!(message.contains("at position 4 (and the stream has ended)"), "{message}");
        assert!(message.contains("--> RunStarted     (nothing)"), "{message}");
        failure(|| recorded().assert_next(&["Run"]));
        failure(|| recorded().assert_next(&["RunStarted(gree)"]));
        failure(|| recorded().assert_next(&["RunStarted("]));
        let message = failure(|| drop(recorded().wait_for("TextDelta(moon)").clone()));
        assert!(
            message
                .starts_with("TextDelta(moon) has not come, and the stream has ended; recorded:\n  RunStarted(greet)"),
            "{message}"
        );
        // `wait_for` does not find the same event twice.
        let mut events = recorded();
        events.wait_for("TextDelta");
        events.wait_for("TextDelta(world)");
        failure(|| drop(events.wait_for("TextDelta").clone()));
        // `assert_events` compares the whole record.
        events.assert_events(&["RunStarted", "TextDelta", "TextDelta", "RunCompleted"]);
        assert!(failure(|| events.assert_no_gaps()).contains("only subscriptions"));
    });
}

#[test]
fn a_recorder_of_a_subscription_counts_missed_events() {
    run(|| {
        let ten = (0..10).fold(Script::new(), |script, number| script.emit(delta(number)));
        let service = EphemeralSessionService::new(kit().on("ten", ten), 1);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let all = Recorder::of_stream(service.subscribe(id, Subscription::new()).unwrap());
        let oldest = Recorder::of_stream(service.subscribe(id, Subscription::new().capacity(3)).unwrap());
        let newest = Subscription::new().capacity(3).overflow(Overflow::DropNewest);
        let newest = Recorder::of_stream(service.subscribe(id, newest).unwrap());
        service.start_turn(id, turn("ten")).unwrap();
        service.start_turn(id, turn("ten")).unwrap();
        let [mut all, mut oldest, mut newest] = [all, oldest, newest];
        all.wait_for("RunCompleted");
        all.assert_no_gaps();
        assert!(failure(|| all.assert_dropped(1)).contains("expected 1 missed events, found 0 counted"));
        // The last events are left. No number is missing between two events that were read.
        oldest.assert_next(&["TextDelta(8)", "TextDelta(9)", "RunCompleted"]);
        oldest.assert_dropped(21);
        assert!(failure(|| oldest.assert_no_gaps()).contains("expected 0 missed events, found 21 counted"));
        newest.assert_next(&["RunStarted", "TextDelta(0)", "TextDelta(1)"]);
        service.start_turn(id, turn("x")).unwrap();
        newest.assert_next(&["RunStarted(x)", "RunCompleted(x)"]);
        newest.assert_dropped(21);
        let message = failure(|| newest.assert_dropped(20));
        assert!(message.contains("21 in gaps: 3..25"), "{message}");
    });
}

#[test]
fn a_transcript_is_the_same_in_every_run_of_one_seed() {
    run(|| {
        let transcript = |seed| {
            let agent = kit().on("fail", Script::new().fail(AgentError::Internal("no".into())));
            let config = EphemeralSessionService::configure(agent).ids(SeededIds::new(seed));
            let service = config.build().unwrap();
            let mut record = Recorder::of_stream(service.subscribe_all(Subscription::new()));
            for prompt in ["one", "fail", "two"] {
                // The turn with the prompt `fail` fails on purpose.
                drop(service.create_session(create(prompt)));
            }
            service.shutdown(LONG);
            record.transcript()
        };
        let first = transcript(5);
        assert_eq!(first, transcript(5));
        assert_ne!(first, transcript(6));
        assert_eq!(first.lines().count(), 6);
        let failed = first.lines().nth(3).unwrap();
        assert!(failed.ends_with(" 1 2 RunFailed(the turn of the session failed: internal error: no)"), "{failed}");
    });
}

#[test]
fn within_returns_the_result_passes_panics_on_and_times_out() {
    run(|| {
        assert_eq!(within(LONG, || "done"), "done");
        assert_eq!(failure(|| within(LONG, || panic!("inside"))), "inside");
        let gate = Gate::new();
        let hanging = gate.clone();
        let message = failure(move || within(SHORT, move || hanging.pass_regardless()));
        assert_eq!(message, "not done after 5ms: something hangs");
        gate.open();
    });
}

#[test]
fn leaked_sessions_are_named_with_their_states() {
    run(|| {
        let gate = Gate::new();
        let agent = kit().on("deaf", Script::new().wait_at_ignoring_cancel(&gate));
        let service = EphemeralSessionService::new(agent, 2);
        assert_no_leaked_sessions(&service);
        let idle = service.open_session(SessionSpec::new()).unwrap();
        let deaf = service.begin_session(create("deaf")).unwrap();
        gate.wait_arrived(1);
        service.archive_with(deaf.session_id(), ArchiveMode::Interrupt).unwrap();
        let message = failure(|| assert_no_leaked_sessions_within(SHORT, &service));
        let (one, other) = (
            format!("session {idle} is Idle, it has not been closed"),
            format!("session {} is closed, but its turn has not ended", deaf.session_id()),
        );
        assert_eq!(message, format!("2 sessions leaked:\n  {one}\n  {other}"));
        gate.open();
        service.archive(idle).unwrap();
        assert_no_leaked_sessions(&service);
        deaf.wait().unwrap();
    });
}

#[test]
fn the_waits_of_the_kit_use_real_time_also_on_a_manual_clock() {
    run(|| {
        let (clock, gate) = (ManualClock::new(), Gate::new());
        let agent = kit().on("hold", Script::new().wait_at(&gate).say("held"));
        let service = EphemeralSessionService::configure(agent).clock(clock.clone()).build().unwrap();
        let mut record = Recorder::of_stream(service.subscribe_all(Subscription::new()));
        let holding = service.begin_session(create("hold")).unwrap();
        gate.wait_arrived(1);
        record.wait_for("RunStarted");
        gate.open();
        record.wait_for("TextDelta(held)");
        assert_eq!(clock.waiters(), 0);
        holding.wait().unwrap();
    });
}

#[test]
fn a_turn_recorder_shows_queued_superseded_and_withdrawn_turns() {
    run(|| {
        let gate = Gate::new();
        let script = || Script::new().wait_at(&gate);
        let service = EphemeralSessionService::new(kit().on("hold", script()).on("panic", script().panic("oh")), 2);
        let id = service.open_session(SessionSpec::new()).unwrap();
        let mut turns = TurnRecorder::new();
        let begin = |prompt, when_busy| service.begin_turn(id, turn(prompt).when_busy(when_busy)).unwrap();
        assert_eq!(turns.add(begin("hold", WhenBusy::Refuse)).get(), 1);
        gate.wait_arrived(1);
        turns.add(begin("later", WhenBusy::Queue));
        turns.add(begin("withdrawn", WhenBusy::Queue));
        turns.assert_states(&["1 admitted", "2 queued", "3 queued"]);
        turns.handles()[2].interrupt();
        turns.add(begin("panic", WhenBusy::Interrupt));
        turns.wait_for_states(&[
            "1 failed(cancelled: superseded by another turn)",
            "2 queued",
            "3 failed(cancelled: interrupted)",
            "4 admitted",
        ]);
        let message = failure(|| turns.assert_states(&["1 completed", "2 queued", "3 failed"]));
        assert!(message.contains("\n    1 completed   1 failed(cancelled: superseded"), "{message}");
        assert!(message.contains("\n    (nothing)     4 admitted\n"), "{message}");
        gate.open();
        turns.wait_for_states(&["1 failed", "2 failed", "3 failed", "4 failed"]);
        assert!(turns.states()[1].contains("panicked"), "{:?}", turns.states());
    });
}
