//! Locks with the interface of parking_lot and of the standard library, on top of those of a model checker
//! (`super::raw`).

#![allow(unreachable_pub, missing_docs, clippy::new_without_default)] // Public in the test kit only.
#![allow(clippy::expect_used)] // A broken invariant fails the run of a model checker.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

use super::raw;
use std::sync::atomic::Ordering;

/// Like `parking_lot::Mutex`: a panic does not poison it.
#[derive(Default)]
pub struct Mutex<T>(raw::Mutex<T>);

/// `None` only inside of [`Condvar::wait`].
pub struct MutexGuard<'a, T>(Option<raw::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(raw::Mutex::new(value))
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("the lock is held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("the lock is held")
    }
}

/// Like `parking_lot::Condvar`.
#[derive(Default)]
pub(crate) struct Condvar(raw::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(raw::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.0.take().expect("the lock is held");
        guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Like `parking_lot::RwLock`.
#[derive(Default)]
pub(crate) struct RwLock<T>(raw::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(raw::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> raw::ReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> raw::WriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Like `std::sync::OnceLock`, but no thread waits for another one that makes the value. If two threads make one at the
/// same time, one value is dropped.
pub(crate) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    /// Set once the value is there. The model checker does not see the value itself, so it orders accesses by this
    /// flag.
    made: raw::AtomicBool,
}

impl<T> OnceLock<T> {
    pub(crate) fn new() -> Self {
        Self { value: std::sync::OnceLock::new(), made: raw::AtomicBool::new(false) }
    }

    pub(crate) fn get(&self) -> Option<&T> {
        self.made.load(Ordering::Acquire).then(|| self.value.get()).flatten()
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.get() {
            return value;
        }
        let made = make();
        let value = self.value.get_or_init(|| made);
        self.made.store(true, Ordering::Release);
        value
    }
}

macro_rules! opaque {
    ($($name:ident $(<$param:ident>)?),+) => { $(
        impl$(<$param>)? fmt::Debug for $name$(<$param>)? {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    )+ };
}
opaque!(Mutex<T>, Condvar, RwLock<T>, OnceLock<T>);
