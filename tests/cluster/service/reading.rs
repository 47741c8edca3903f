//! Reads, lists and histories.

use std::collections::BTreeMap;

use turnwise::testkit::Gate;
use turnwise::{
    Message, Session, SessionId, SessionQuery, SessionService, SessionSpec, SessionState, Subscription, WhenBusy,
};

use super::*;
use crate::support::*;

#[test]
fn c86_a_view_shows_the_session_with_its_worker_and_without() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let worker = worker(&server, &gate);
        let spec = SessionSpec::new().model("small").label("user", "ada");
        let id = client.create_session(create("one").session(spec)).unwrap().session_id;
        let running = client.begin_turn(id, turn("wait")).unwrap();
        gate.wait_arrived(1);
        let queued = client.begin_turn(id, turn("next").when_busy(WhenBusy::Queue)).unwrap();
        let view = client.read(id).unwrap();
        assert_eq!((&*view.model, view.labels["user"].as_str()), ("small", "ada"));
        let state = view.state;
        assert_eq!((state.state, state.is_active, state.queued_turns), (SessionState::Running, true, 1));
        assert_eq!((state.turns, state.message_count), (3, 2));
        assert_eq!(state.last_assistant_text.as_deref(), Some("one"));
        let listed = client.list(SessionQuery::new()).unwrap();
        assert_eq!((listed[0].state, listed[0].is_live, listed[0].queued_turns), (SessionState::Running, true, 1));
        drop(worker);
        assert_eq!(code(running.wait()), "WORKER_LOST");
        assert_eq!(code(queued.wait()), "WORKER_LOST");
        // No worker is left, and all of this still works.
        let state = client.read(id).unwrap().state;
        assert_eq!((state.state, state.is_active, state.message_count), (SessionState::Idle, false, 2));
        assert_eq!(said(&client.history(id).unwrap()), ["one", "= one"]);
        assert_eq!(said(&client.export_session(id).unwrap()), ["one", "= one"]);
        assert_eq!(client.list(SessionQuery::new().label("user", "ada")).unwrap().len(), 1);
        assert_eq!(code(client.read(SessionId::new())), "SESSION_NOT_FOUND");
        assert_eq!(code(client.history(SessionId::new())), "SESSION_NOT_FOUND");
    });
}

#[test]
fn c86_a_session_in_its_first_build_is_building() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = work(&server, turnwise::EphemeralSessionService::configure(held_builds(&gate)));
        let first = client.begin_session(create("one")).unwrap();
        let id = first.session_id();
        gate.wait_arrived(1);
        assert_eq!(client.read(id).unwrap().state.state, SessionState::Building);
        assert!(client.list(SessionQuery::new()).unwrap().is_empty());
        assert_eq!(code(client.history(id)), "SESSION_BUSY");
        gate.open();
        first.wait().unwrap();
        assert_eq!(client.read(id).unwrap().state.state, SessionState::Idle);
    });
}

#[test]
fn c86_lists_are_filtered_and_paged_as_those_of_a_local_service() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let ids: Vec<SessionId> = (0..7)
            .map(|number| {
                let user = ["ada", "bob"][number % 2];
                client.open_session(SessionSpec::new().label("user", user)).unwrap()
            })
            .collect();
        let list = |query: SessionQuery| -> Vec<usize> {
            let found = client.list(query).unwrap();
            found.iter().map(|summary| ids.iter().position(|id| *id == summary.session_id).unwrap()).collect()
        };
        assert_eq!(list(SessionQuery::new()), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(list(SessionQuery::new().label("user", "bob")), [1, 3, 5]);
        assert_eq!(list(SessionQuery::new().offset(2).limit(2)), [2, 3]);
        assert_eq!(list(SessionQuery::new().after(ids[3]).label("user", "ada")), [4, 6]);
        assert_eq!(list(SessionQuery::new().limit(0)), [0; 0]);
        client.archive(ids[3]).unwrap();
        // An archived session is not listed, and still is a cursor.
        assert_eq!(list(SessionQuery::new().after(ids[3]).limit(1)), [4]);
        assert_eq!(list(SessionQuery::new().label("user", "bob")), [1, 5]);
        assert_eq!(code(client.list(SessionQuery::new().after(SessionId::new()))), "SESSION_NOT_FOUND");
        client.set_labels(ids[0], BTreeMap::from([("user".into(), "bob".into())])).unwrap();
        assert_eq!(list(SessionQuery::new().label("user", "bob")), [0, 1, 5]);
        assert_eq!(code(client.set_labels(ids[3], BTreeMap::new())), "SESSION_ARCHIVED");
        assert_eq!(code(client.set_labels(SessionId::new(), BTreeMap::new())), "SESSION_NOT_FOUND");
        // The worker has the labels too: its next save leaves them.
        client.start_turn(ids[0], turn("x")).unwrap();
        assert_eq!(client.read(ids[0]).unwrap().labels["user"], "bob");
    });
}

#[test]
fn c86_a_follower_of_the_history_sees_at_most_the_last_event_of_a_turn_twice() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let config = turnwise::EphemeralSessionService::configure(obedient(&gate)).event_history(1_024);
        let _worker = work(&server, config);
        let id = client.create_session(create("emit 3")).unwrap().session_id;
        let (history, seq) = client.history_at(id).unwrap();
        assert_eq!(history.messages().len(), 2);
        let mut events = client.subscribe(id, Subscription::new().from_seq(seq + 1)).unwrap();
        client.start_turn(id, turn("emit 1")).unwrap();
        let mut next = events.next().unwrap();
        if kind(&next.event) == "completed" {
            assert_eq!(next.turn_id.unwrap().get(), 1);
            next = events.next().unwrap();
        }
        assert_eq!((kind(&next.event), next.turn_id.unwrap().get()), ("started", 2));
    });
}

#[test]
fn c86_a_resumed_history_is_that_of_the_new_session() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let _worker = worker(&server, &gate);
        let mut history = Session::new();
        history.push_batch([Message::user("before"), Message::assistant("before")]);
        let id = client.open_session(SessionSpec::new().resume(history.clone())).unwrap();
        assert_eq!(id, history.id());
        client.start_turn(id, turn("after")).unwrap();
        assert_eq!(said(&client.history(id).unwrap()), ["before", "= before", "after", "= after"]);
        let fork = client.open_session(SessionSpec::new().resume(client.history(id).unwrap().fork())).unwrap();
        assert_ne!(fork, id);
        assert_eq!(client.history(fork).unwrap().messages().len(), 4);
    });
}

#[test]
fn c86_a_record_of_a_newer_format_is_refused_and_left_as_it_is() {
    let Some(server) = start() else { return };
    run(move || {
        let (client, gate) = (client(&server), Gate::new());
        let first = worker(&server, &gate);
        let id = client.create_session(create("one")).unwrap().session_id;
        first.drain(LONG);
        drop(first);
        let key = format!("turnwise:s:{id}");
        let script = "local h = redis.call('HGET', KEYS[1], 'head') \
                      redis.call('HSET', KEYS[1], 'head', (string.gsub(h, '\"format_version\":1', '\"format_version\":99')))";
        server.command(&["EVAL", script, "1", &key]);
        let newer = server.command(&["HGET", &key, "head"]);
        assert!(newer.contains("\"format_version\":99"));
        assert_eq!(code(client.read(id)), "STORE_FAILED");
        assert_eq!(code(client.history(id)), "STORE_FAILED");
        let _second = worker(&server, &gate);
        assert_eq!(code(client.start_turn(id, turn("two"))), "STORE_FAILED");
        assert_eq!(code(client.take_session(id, LONG)), "STORE_FAILED");
        assert_eq!(server.command(&["HGET", &key, "head"]), newer);
    });
}

#[test]
fn c86_no_view_shows_a_turn_that_is_kept_and_still_runs() {
    let Some(server) = start() else { return };
    run(move || {
        let client = client(&server);
        let _worker = worker(&server, &Gate::new());
        let id = client.create_session(create("first")).unwrap().session_id;
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| (0..50).for_each(|_| drop(client.start_turn(id, turn("next")).unwrap())));
            while !caller.is_finished() {
                let state = client.read(id).unwrap().state;
                let kept = state.turns - u64::from(state.is_active);
                assert_eq!(state.message_count as u64, 2 * kept, "{state:?}");
            }
        });
    });
}
