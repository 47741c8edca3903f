//! Events of turns and sessions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use turnwise::crossbeam_channel::{bounded, TryRecvError};
use turnwise::testkit::Gate;
use turnwise::{
    agent_fn, AgentEvent, CancelReason, EphemeralSessionService, Overflow, SessionEvent, SessionService, SessionSpec,
    Subscription, TurnContext, WhenBusy,
};

use super::*;
use crate::support::*;

#[test]
fn c85_a_stream_has_all_events_of_its_turn_in_order() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let mut stream = client.stream_session(create("emit 3000")).unwrap();
        let events: Vec<AgentEvent> = stream.by_ref().collect();
        assert_eq!(stream.wait().unwrap().text, "emit 3000");
        assert_eq!(numbers(&events), (0..3000).collect::<Vec<_>>());
        let kinds = kinds(&events);
        assert_eq!((kinds[0], kinds[3001], kinds.len()), ("started", "completed", 3002));
        // Once the stream has ended, the session is free.
        let id = client.list(turnwise::SessionQuery::new()).unwrap()[0].session_id;
        let mut shown = Vec::new();
        client.start_turn_with(id, turn("emit 2"), &mut |event| shown.push(event)).unwrap();
        assert_eq!(super::kinds(&shown), ["started", "delta", "delta", "completed"]);
    });
}

#[test]
fn c85_a_turn_waits_for_a_reader_that_is_behind_by_the_window() {
    let Some(server) = start() else { return };
    run(move || {
        let client = client(&server);
        let emitted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&emitted);
        let agent = agent_fn(move |prompt: String, turn: &TurnContext| {
            for number in 0..20_000 {
                turn.emit(delta(number))?;
                counted.fetch_add(1, Ordering::SeqCst);
            }
            Ok(turn.finish(prompt))
        });
        let _worker = work(&server, EphemeralSessionService::configure(agent));
        let mut stream = client.stream_session(create("x")).unwrap();
        eventually("a full stream", || stream.events().is_full().then_some(()));
        // The window, and the message that exceeds it; the channel here and that at the worker, and a message between.
        let bound = 256 + 64 + 256 + 256 + 64 + 8;
        let mut read = Vec::new();
        for event in stream.by_ref() {
            let ahead = emitted.load(Ordering::SeqCst).saturating_sub(read.len());
            assert!(ahead <= bound, "{ahead} events ahead");
            read.push(event);
        }
        assert_eq!(numbers(&read), (0..20_000).collect::<Vec<_>>());
        stream.wait().unwrap();
    });
}

#[test]
fn c85_an_interrupt_ends_the_wait_of_a_turn_for_its_reader() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let other = super::client(&server);
        let _worker = worker(&server, &gate);
        for by_handle in [true, false] {
            let (event_tx, events) = bounded(1);
            let turn = client.begin_session(create("emit 100000").event_tx(event_tx)).unwrap();
            eventually("a full channel", || events.is_full().then_some(()));
            match by_handle {
                true => turn.interrupt(),
                // From another process, so to speak.
                false => other.interrupt(turn.session_id()).unwrap(),
            }
            assert_eq!(turn.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted));
            assert!(matches!(events.try_recv(), Ok(AgentEvent::RunStarted { .. })));
            assert_eq!(events.try_recv(), Err(TryRecvError::Disconnected));
        }
    });
}

#[test]
fn c85_a_turn_goes_on_without_its_receiver() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let (event_tx, events) = bounded(1);
        let turn = client.begin_session(create("emit 5000").event_tx(event_tx)).unwrap();
        eventually("a full channel", || events.is_full().then_some(()));
        drop(events);
        assert_eq!(turn.wait().unwrap().text, "emit 5000");
    });
}

#[test]
fn c85_events_of_failed_withdrawn_and_refused_turns_end_as_local_ones() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let mut failed = client.stream_session(create("config x")).unwrap();
        let id = failed.handle().session_id();
        let events: Vec<AgentEvent> = failed.by_ref().collect();
        assert_eq!(kinds(&events), ["started", "failed"]);
        failed.wait().unwrap_err();
        let running = client.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(1);
        let (event_tx, events) = bounded(8);
        let refused = client.try_begin_turn(id, turn("x").event_tx(event_tx)).unwrap_err();
        assert!(refused.request.event_tx.is_some());
        drop(refused);
        assert_eq!(events.recv().ok(), None);
        let queued = client.stream_turn(id, turn("x").when_busy(WhenBusy::Queue)).unwrap();
        queued.handle().interrupt();
        assert_eq!(queued.count(), 0);
        gate.open();
        running.wait().unwrap();
    });
}

#[test]
fn c85_the_stream_of_a_lost_turn_ends_and_says_so() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let worker = worker(&server, &gate);
        let mut stream = client.stream_session(create("wait")).unwrap();
        assert!(matches!(stream.next(), Some(AgentEvent::RunStarted { .. })));
        drop(worker);
        let events: Vec<AgentEvent> = stream.by_ref().collect();
        assert_eq!(code(stream.wait()), "WORKER_LOST");
        // The worker may have had the time to send the last event itself.
        assert!([&["truncated", "failed"][..], &["failed"]].contains(&&*kinds(&events)), "{events:?}");
    });
}

#[test]
fn c85_a_subscription_has_the_events_of_all_turns_of_all_clients() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let other = super::client(&server);
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let events = client.subscribe(id, Subscription::new()).unwrap();
        client.start_turn(id, turn("emit 2")).unwrap();
        other.start_turn(id, turn("emit 1")).unwrap();
        client.archive_wait(id, LONG).unwrap();
        // It ends with the session.
        let events: Vec<SessionEvent> = events.collect();
        let of: Vec<_> = events.iter().map(|event| (event.turn_id.unwrap().get(), kind(&event.event))).collect();
        let expected = [
            (1, "started"),
            (1, "delta"),
            (1, "delta"),
            (1, "completed"),
            (2, "started"),
            (2, "delta"),
            (2, "completed"),
        ];
        assert_eq!(of, expected);
        assert!(events.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
        assert_eq!(code(client.subscribe(id, Subscription::new())), "SESSION_ARCHIVED");
    });
}

#[test]
fn c85_a_subscription_goes_on_at_the_next_worker() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let first = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let mut events = client.subscribe(id, Subscription::new()).unwrap();
        client.start_turn(id, turn("emit 1")).unwrap();
        let before: Vec<SessionEvent> = events.by_ref().take(3).collect();
        let _second = worker(&server, &gate);
        first.drain(LONG);
        client.start_turn(id, turn("emit 1")).unwrap();
        let after: Vec<SessionEvent> = events.by_ref().take(4).collect();
        let kinds: Vec<_> = after.iter().map(|event| kind(&event.event)).collect();
        assert_eq!(kinds, ["truncated", "started", "delta", "completed"]);
        let (last, marker) = (&before[2], &after[0]);
        assert_eq!((marker.seq, marker.turn_id), (last.seq, None));
        assert!(after[1].seq > last.seq);
        client.archive(id).unwrap();
        assert!(events.next().is_none());
    });
}

#[test]
fn c85_a_subscriber_that_blocks_makes_the_turns_wait_and_loses_nothing() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = work(&server, EphemeralSessionService::configure(obedient(&gate)));
        let id = client.open_session(SessionSpec::new()).unwrap();
        let options = Subscription::new().capacity(4).overflow(Overflow::Block);
        let mut events = client.subscribe(id, options).unwrap();
        let turn = client.begin_turn(id, turn("emit 2000")).unwrap();
        let read: Vec<AgentEvent> = events.by_ref().take(2002).map(|event| event.event).collect();
        assert_eq!(numbers(&read), (0..2000).collect::<Vec<_>>());
        assert_eq!(events.dropped(), 0);
        turn.wait().unwrap();
    });
}

#[test]
fn c85_a_subscription_ends_with_a_session_that_is_taken() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let first = worker(&server, &gate);
        let id = client.create_session(create("one")).unwrap().session_id;
        let events = client.subscribe(id, Subscription::new()).unwrap();
        client.start_turn(id, turn("two")).unwrap();
        first.drain(LONG);
        drop(first);
        // No worker has it any more.
        client.take_session(id, LONG).unwrap();
        let events: Vec<AgentEvent> = events.map(|event| event.event).collect();
        assert_eq!(kinds(&events), ["started", "completed"]);
    });
}

#[test]
fn c85_a_dropped_subscription_is_removed_from_the_session() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let id = client.open_session(SessionSpec::new()).unwrap();
        let feeds = || server.command(&["HGET", &format!("turnwise:s:{id}"), "feeds"]);
        let events = client.subscribe(id, Subscription::new()).unwrap();
        assert!(feeds().len() > 36, "{}", feeds());
        client.start_turn(id, turn("emit 300")).unwrap();
        drop(events);
        eventually("the end of the feed", || feeds().starts_with("$0").then_some(()));
        client.start_turn(id, turn("emit 300")).unwrap();
    });
}

#[test]
fn c85_a_subscription_that_is_dropped_while_the_server_is_away_is_removed_later() {
    let Some(mut server) = Server::start(&[]) else { return };
    run(move || {
        let gate = Gate::new();
        let _worker = worker(&server, &gate);
        let lease = EngineConfig::new().lease(Duration::from_secs(1));
        let client = ClusterService::new(Engine::open(&server.url(), lease).unwrap()).unwrap();
        let id = client.open_session(SessionSpec::new()).unwrap();
        let feeds = |server: &Server| server.command(&["HGET", &format!("turnwise:s:{id}"), "feeds"]);
        let events = client.subscribe(id, Subscription::new()).unwrap();
        assert!(feeds(&server).len() > 36);
        server.kill();
        drop(events);
        // The calls of a client wait for each other. So the removal of the feed has failed too by now.
        for _ in 0..2 {
            assert_eq!(code(client.interrupt(id)), "STORE_FAILED");
        }
        server.start_again();
        eventually("the end of the feed", || feeds(&server).starts_with("$0").then_some(()));
    });
}
