//! Waits on behalf of a turn, and sessions that end with it: C61, C62.

use super::support::*;
use super::{explore, join, spawn};
use crate::sync::{Arc, Mutex};
use crate::{CancelReason, EphemeralSessionService, SessionError, SessionQuery, SessionService, TurnContext};

type Reasons = Arc<Mutex<Vec<CancelReason>>>;

/// An agent that notes why it was told to stop.
fn wait_and_note(turn: &TurnContext, reasons: &Reasons) -> crate::AgentError {
    assert!(turn.cancel_token().cancelled().recv().is_err());
    let cancelled = turn.check().expect_err("the token has fired");
    reasons.lock().push(cancelled.reason);
    cancelled.into()
}

#[test]
fn c61_a_wait_on_behalf_of_a_turn_ends_with_the_turns_cancellation() {
    explore(|| {
        let agent = actors(|prompt, turn| {
            if prompt != "parent" {
                return act(prompt, turn);
            }
            let child = turn.service().expect("there is a handle").begin_session(create("wait"))?;
            // The only permit is the child's to have, while both threads of this turn wait.
            let helper = spawn(move || child.wait());
            let ended = turn.without_permit(|| join(helper));
            assert!(matches!(ended, Err(SessionError::Interrupted { .. })), "{ended:?}");
            Err(ended.unwrap_err().into())
        });
        let service = EphemeralSessionService::configure(agent).max_running_turns(1).build().unwrap();
        let parent = service.begin_session(create("parent")).unwrap();
        parent.interrupt();
        assert_eq!(reason(&parent.wait()), Some(CancelReason::Interrupted));
        finish(&service);
    });
}

#[test]
fn c62_a_child_that_begins_while_its_parent_is_interrupted_is_interrupted_too() {
    explore(|| {
        let reasons = Reasons::default();
        let noted = Arc::clone(&reasons);
        let agent = actors(move |prompt, turn| {
            if prompt != "parent" {
                return Err(wait_and_note(turn, &noted));
            }
            let child = turn.sub_session(create("child"))?;
            // A wait that only the end of the child ends: the child is told to stop although its handle is kept.
            turn.without_permit(|| child.handle().finished().recv()).unwrap_err();
            let ended = child.wait().map(drop);
            Err(ended.expect_err("a child ends only by its cancellation").into())
        });
        let service = EphemeralSessionService::configure(agent).max_running_turns(1).build().unwrap();
        let parent = service.begin_session(create("parent")).unwrap();
        let id = parent.session_id();
        parent.interrupt();
        assert_eq!(reason(&parent.wait()), Some(CancelReason::Interrupted));
        let left: Vec<_> = service.list(SessionQuery::new()).unwrap().iter().map(|left| left.session_id).collect();
        assert_eq!(left, [id]);
        finish(&service);
        // Neither before its parent nor only by the drop of its handle.
        assert!(reasons.lock().iter().all(|reason| *reason == CancelReason::Interrupted), "{:?}", *reasons.lock());
    });
}

#[test]
fn c62_the_place_of_a_child_that_is_closed_is_free() {
    explore(|| {
        let agent = actors(|prompt, turn| {
            if prompt != "parent" {
                return act(prompt, turn);
            }
            for prompt in ["wait", "x", "wait"] {
                turn.sub_session(create(prompt))?.close(FAR)?;
            }
            std::mem::forget(turn.sub_session(create("wait"))?);
            Ok("closed".into())
        });
        let service = EphemeralSessionService::configure(agent).max_sessions(2).max_running_turns(1).build().unwrap();
        assert_eq!(service.create_session(create("parent")).unwrap().text, "closed");
        assert_eq!(service.list(SessionQuery::new()).unwrap().len(), 1);
        finish(&service);
    });
}
