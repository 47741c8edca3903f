//! The running permit of a turn with several threads that wait: C60.

use super::{explore, join, spawn};
use crate::cancel::CancelToken;
use crate::permits::semaphore::Semaphore;
use crate::permits::turn_permit::TurnPermit;
use crate::sync::{bounded, Arc};
use crate::time::clock::{Clock, Deadline};

#[test]
fn c60_a_turn_whose_threads_wait_never_waits_for_its_own_permit() {
    explore(|| {
        let (semaphore, cancel) = (Semaphore::new(1), CancelToken::new());
        let [one, other] = [(); 2].map(|()| TurnPermit::new(Arc::clone(&semaphore), Clock::default()));
        one.start(crate::model::TurnId::new(1), &cancel).unwrap();
        let (finish, finished) = bounded::<()>(1);
        let tool = Arc::clone(&one);
        // The second wait of this thread is for the other turn, which needs the only permit.
        let tool = spawn(move || {
            tool.lend(None, Deadline::never()).unwrap().end_wait();
            let _permit = tool.lend(None, Deadline::never());
            finished.recv().unwrap_err();
        });
        let waits = Arc::clone(&one);
        let helper = spawn(move || waits.lend(None, Deadline::never()).unwrap().end_wait());
        let rival = spawn(move || {
            other.start(crate::model::TurnId::new(1), &CancelToken::new()).unwrap();
            other.stop();
            drop(finish);
        });
        one.lend(None, Deadline::never()).unwrap().end_wait();
        // As with scoped threads, the turn continues only after both threads have ended.
        join(tool);
        join(helper);
        assert_eq!(semaphore.held(), 1, "the last wait has taken the permit again");
        one.stop();
        join(rival);
        assert_eq!(semaphore.held(), 0);
    });
}
