//! Signals: the threads of the library take none.
//!
//! A thread inherits the signal mask of the thread that starts it. So a call that may start a thread blocks all signals
//! first and restores the mask afterwards. A signal that arrives in between stays pending for this thread, or goes to
//! another one.
//!
//! The signals of faults stay as they are: a thread that has caused one while it is blocked is killed, without the handler
//! of the host.

use std::mem::MaybeUninit;
use std::ptr;

/// The signals that a thread gets for what it does itself.
const FAULTS: [libc::c_int; 7] =
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT, libc::SIGSYS];

/// Restores the signal mask of the thread at the drop.
#[must_use]
#[expect(missing_debug_implementations, reason = "a signal set has none")]
pub struct Blocked {
    /// `None` if the mask could not be changed.
    before: Option<libc::sigset_t>,
    /// A mask belongs to one thread.
    _not_send: std::marker::PhantomData<*const ()>,
}

/// Blocks all signals but those of faults on this thread until the drop of the guard.
pub fn block_all() -> Blocked {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both pointers are to memory of the right type. `sigfillset` initialises the first before it is read, and
    // `pthread_sigmask` initialises the second if it returns 0.
    let before = unsafe {
        let filled = libc::sigfillset(all.as_mut_ptr()) == 0
            && FAULTS.iter().all(|signal| libc::sigdelset(all.as_mut_ptr(), *signal) == 0);
        let is_set = filled && libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) == 0;
        is_set.then(|| before.assume_init())
    };
    Blocked { before, _not_send: std::marker::PhantomData }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // SAFETY: the first pointer is to an initialised set, and a null pointer asks for no old mask.
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, ptr::null_mut()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_blocked(signal: libc::c_int) -> bool {
        let mut now = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: a null pointer changes nothing, and the set is initialised before it is read.
        unsafe {
            assert_eq!(libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), now.as_mut_ptr()), 0);
            libc::sigismember(now.as_ptr(), signal) == 1
        }
    }

    #[test]
    fn c91_the_signals_of_faults_are_not_blocked() {
        let blocked = block_all();
        assert!(is_blocked(libc::SIGINT) && is_blocked(libc::SIGUSR1));
        assert_eq!(FAULTS.map(is_blocked), [false; FAULTS.len()]);
        drop(blocked);
        assert!(!is_blocked(libc::SIGINT) && !is_blocked(libc::SIGUSR1));
    }
}
