//! Cancel hooks that panic, block, arm other hooks, drop their own guards or call the service.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use turnwise::crossbeam_channel::bounded;
use turnwise::testkit::{assert_no_leaked_sessions, within, Gate};
use turnwise::{
    builder_fn, AgentError, CancelReason, EphemeralSessionService, RunResult, Session, SessionAgent,
    SessionAgentBuilder, SessionService, TurnContext, WeakService,
};

use crate::{create, turn, LONG};

/// An agent that arms the hook that its prompt names, then waits for its cancellation.
struct Armed {
    service: WeakService,
    ran: Arc<AtomicUsize>,
    ready: Gate,
}

impl SessionAgent for Armed {
    fn run_turn(&mut self, prompt: String, turn: &TurnContext) -> Result<RunResult, AgentError> {
        let token = turn.cancel_token().clone();
        let (ran, id, weak) = (Arc::clone(&self.ran), turn.session_id(), self.service.clone());
        let (begin, begun) = bounded(2);
        let count = move || {
            ran.fetch_add(1, Ordering::SeqCst);
            begin.send(()).expect("the turn is waiting");
        };
        let (give, taken) = bounded(1);
        let hook = match prompt.as_str() {
            "panics" => token.clone().on_cancel(move || {
                count();
                panic!("as asked");
            }),
            "arms another" => token.clone().on_cancel(move || {
                count();
                drop(token.on_cancel(count));
            }),
            "drops its own guard" => token.clone().on_cancel(move || {
                count();
                drop(taken.recv());
            }),
            _ => token.clone().on_cancel(move || {
                count();
                let service = weak.upgrade().expect("the test has a handle");
                service.read(id).expect("the session is live");
                service.interrupt(id).expect("the turn has not ended");
                service.begin_turn(id, crate::turn("x")).expect_err("the session is busy");
                service.archive(id).expect("the session is not archived yet");
            }),
        };
        let kept = if prompt == "drops its own guard" { give.send(hook).ok().map(|()| None) } else { Some(Some(hook)) };
        self.ready.pass_regardless();
        // A turn that waited for the token instead could disarm the hook before the hook begins.
        begun.recv().expect("the hook is armed");
        // The drop waits for the hook, which may still run on the cancelling thread.
        drop(kept);
        turn.check()?;
        unreachable!("the token has fired")
    }

    fn session_clone(&self) -> Session {
        Session::new()
    }
}

fn armed(ran: &Arc<AtomicUsize>, ready: &Gate) -> EphemeralSessionService<impl SessionAgentBuilder + use<>> {
    let (ran, ready) = (Arc::clone(ran), ready.clone());
    let builder = builder_fn(move |_, context| {
        Ok(Armed { service: context.service(), ran: Arc::clone(&ran), ready: ready.clone() })
    });
    EphemeralSessionService::new(builder, 4)
}

#[test]
fn c22_hooks_may_panic_arm_others_drop_their_guard_or_call_the_service() {
    within(LONG, || {
        let cases = [("panics", 1), ("arms another", 2), ("drops its own guard", 1), ("calls the service", 1)];
        for (prompt, expected) in cases {
            let (ran, ready) = (Arc::new(AtomicUsize::new(0)), Gate::new());
            let service = armed(&ran, &ready);
            let running = service.begin_session(create(prompt)).unwrap();
            ready.wait_arrived(1);
            ready.open();
            running.interrupt();
            let id = running.session_id();
            assert_eq!(running.wait().unwrap_err().cancel_reason(), Some(CancelReason::Interrupted), "{prompt}");
            assert_eq!(ran.load(Ordering::SeqCst), expected, "{prompt}");
            if prompt == "calls the service" {
                service.begin_turn(id, turn("x")).expect_err("the hook has archived the session");
            } else {
                service.archive(id).unwrap();
            }
            assert_no_leaked_sessions(&service);
        }
    });
}

#[test]
fn c29_a_hook_that_blocks_delays_the_cancellation_of_no_other_session() {
    within(LONG, || {
        let blocked = Gate::new();
        let at = blocked.clone();
        let builder = turnwise::agent_fn(move |prompt, turn| {
            let at = at.clone();
            let _hook = (prompt == "blocks").then(|| turn.cancel_token().on_cancel(move || at.pass_regardless()));
            let _ = turn.cancel_token().cancelled().recv();
            turn.check()?;
            Ok(turn.finish(prompt))
        });
        let service = EphemeralSessionService::new(builder, 4);
        let blocking = service.begin_session(create("blocks")).unwrap();
        let other = service.begin_session(create("does not")).unwrap();
        let closing = service.clone();
        let shutdown = std::thread::spawn(move || closing.shutdown(LONG));
        // The hook delays the shutdown, as documented, but no other session.
        assert_eq!(other.wait().unwrap_err().cancel_reason(), Some(CancelReason::Shutdown));
        blocked.open();
        assert_eq!(blocking.wait().unwrap_err().cancel_reason(), Some(CancelReason::Shutdown));
        assert_eq!(shutdown.join().unwrap().stuck, []);
    });
}
