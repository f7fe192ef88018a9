//! What happened, in order, and how to wait for it.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How long anything may take that has to happen. Generous: it is only ever waited for in full when a test fails.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// A list that only grows, and that can be waited on.
#[derive(Debug)]
pub struct Journal<T> {
    entries: Mutex<Vec<T>>,
    grew: Condvar,
}

impl<T> Default for Journal<T> {
    fn default() -> Self {
        Self { entries: Mutex::new(Vec::new()), grew: Condvar::new() }
    }
}

impl<T: Clone> Journal<T> {
    pub fn push(&self, entry: T) {
        self.lock().push(entry);
        self.grew.notify_all();
    }

    pub fn extend(&self, entries: &[T]) {
        self.lock().extend_from_slice(entries);
        self.grew.notify_all();
    }

    pub fn all(&self) -> Vec<T> {
        self.lock().clone()
    }

    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Waits until `find` finds what it looks for; gives up loudly at the deadline.
    #[track_caller]
    pub fn wait_for<R>(&self, what: &str, mut find: impl FnMut(&[T]) -> Option<R>) -> R {
        let deadline = Instant::now() + DEADLINE;
        let mut entries = self.lock();
        loop {
            if let Some(found) = find(&entries) {
                return found;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited {DEADLINE:?} in vain for {what}");
            entries = self.grew.wait_timeout(entries, left).unwrap_or_else(|e| e.into_inner()).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.entries.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Asks again and again until there is an answer: for what gives no event of its own.
#[track_caller]
pub fn eventually<R>(what: &str, mut ask: impl FnMut() -> Option<R>) -> R {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
