//! C47, C48: input requests and callbacks of stored sessions.

use std::sync::atomic::Ordering;
use std::sync::Arc;

use turnwise::store::{PersistentSessionService, SessionStore, StoreError};
use turnwise::{
    agent_fn, AgentError, InputId, InputRequest, InputResponse, InteractionContent, SessionError, SessionService,
    SessionState, ToolResult,
};

use crate::support::*;

/// An agent that asks its host, that ends with a tool for its host, or that answers with what the host's tool returned.
fn asking() -> Echo {
    agent_fn(|prompt, turn| match (prompt.as_str(), turn.tool_results()) {
        (_, [result, ..]) => Ok(turn.finish(result.content.clone())),
        ("ask", _) => Ok(turn.finish(turn.request_input(InputRequest::new("question", "?"))?)),
        ("pay", _) => Err(AgentError::CallbackPending { tool_name: "pay".into(), args: "5".into() }),
        _ => Ok(turn.finish(prompt)),
    })
}

#[test]
fn c48_a_callback_is_stored_and_the_turn_that_goes_on_may_run_in_another_life() {
    run(|| {
        let folder = Folder::new();
        let service = PersistentSessionService::new(asking(), 4, folder.store());
        let id = service.create_session(create("hello")).unwrap().session_id;
        assert_eq!(service.start_turn(id, turn("pay")).unwrap_err().code(), "AGENT_ERROR");
        let pending = service.read(id).unwrap().state.callback_pending.unwrap();
        drop(service);

        let service =
            PersistentSessionService::new(asking(), 4, retry(|| turnwise::store::FileStore::open(folder.file())));
        // Before the session is resumed, and after.
        assert_eq!(service.read(id).unwrap().state.callback_pending.as_ref(), Some(&pending));
        service.resume(id).unwrap();
        assert_eq!(service.read(id).unwrap().state.callback_pending.as_ref(), Some(&pending));
        let result = ToolResult { tool_use_id: "1".into(), content: "paid".into(), is_error: false };
        assert_eq!(service.start_turn(id, turn("").tool_results(vec![result])).unwrap().text, "paid");
        assert_eq!(service.read(id).unwrap().state.callback_pending, None);
        service.unload(id, LONG).unwrap();
        assert_eq!(service.read(id).unwrap().state.callback_pending, None);
    });
}

/// Opens a store whose last owner may still be closing it.
fn retry<T>(open: impl Fn() -> Result<T, StoreError>) -> T {
    loop {
        match open() {
            Err(StoreError::InUse { .. }) => std::thread::yield_now(),
            opened => return opened.unwrap(),
        }
    }
}

#[test]
fn c48_a_callback_that_cannot_be_stored_is_the_error_of_the_store() {
    run(|| {
        let store = Arc::new(Watched::default());
        let service = PersistentSessionService::new(asking(), 4, Arc::clone(&store));
        let id = service.create_session(create("hello")).unwrap().session_id;
        store.fails.store(true, Ordering::SeqCst);
        let error = service.start_turn(id, turn("pay")).unwrap_err();
        assert!(StoreError::of(&error).is_some(), "{error:?}");
        assert_eq!(service.read(id).unwrap().state.callback_pending, None);
        store.fails.store(false, Ordering::SeqCst);
        service.start_turn(id, turn("plain")).unwrap();
        assert_eq!(store.load(id).unwrap().unwrap().0.callback_pending, None);
        service.start_turn(id, turn("pay")).unwrap_err();
        assert!(store.load(id).unwrap().unwrap().0.callback_pending.is_some());
        // A turn that ends otherwise clears it, though the history has not changed.
        service.archive(id).unwrap();
        assert!(store.load(id).unwrap().unwrap().0.callback_pending.is_some(), "archiving runs no turn");
    });
}

#[test]
fn c47_a_request_ends_with_the_life_of_its_session() {
    run(|| {
        let folder = Folder::new();
        let service = PersistentSessionService::new(asking(), 4, folder.store());
        let id = service.create_session(create("hello")).unwrap().session_id;
        let asking_turn = service.begin_turn(id, turn("ask")).unwrap();
        let input = loop {
            match service.pending_inputs(id).unwrap().first() {
                Some(input) => break input.id,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(service.read(id).unwrap().state.state, SessionState::Waiting);
        // A session that asks is not unloaded.
        let refused = service.unload(id, std::time::Duration::from_millis(5)).unwrap_err();
        assert!(matches!(refused, SessionError::Timeout { .. }), "{refused:?}");
        asking_turn.interrupt();
        asking_turn.wait().unwrap_err();
        service.unload(id, LONG).unwrap();
        let respond = |input| service.respond(id, input, InputResponse::Answer("x".into()));
        assert!(matches!(respond(input), Err(SessionError::InputNotPending { .. })));
        assert!(service.pending_inputs(id).unwrap().is_empty());
        // The next life asks under a higher id.
        let asking_turn = service.begin_turn(id, turn("ask")).unwrap();
        let next = loop {
            match service.pending_inputs(id).unwrap().first() {
                Some(input) => break input.id,
                None => std::thread::yield_now(),
            }
        };
        assert!(next > input, "{next} after {input}");
        assert!(matches!(respond(InputId::new(next.get() + 1)), Err(SessionError::InputNotPending { .. })));
        respond(next).unwrap();
        assert_eq!(asking_turn.wait().unwrap().text, "x");
    });
}

#[test]
fn c52_a_stored_session_that_is_not_live_has_no_turn_to_steer() {
    run(|| {
        let folder = Folder::new();
        let service = PersistentSessionService::new(asking(), 4, folder.store());
        let id = service.create_session(create("hello")).unwrap().session_id;
        let steer = || service.steer(id, None, InteractionContent::message("x")).unwrap_err();
        assert!(matches!(steer(), SessionError::NotRunning { .. }));
        service.unload(id, LONG).unwrap();
        assert!(matches!(steer(), SessionError::NotRunning { .. }));
        service.archive(id).unwrap();
        assert!(matches!(steer(), SessionError::Archived { .. }));
        service.delete(id).unwrap();
        assert!(matches!(steer(), SessionError::NotFound { .. }));
    });
}
