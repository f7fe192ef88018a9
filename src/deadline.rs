//! Times by which something must have happened, and the alarm that rings when it did not.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// A time by which something must have happened; moved as things go on.
#[derive(Debug)]
pub struct Deadline {
    epoch: Instant,
    /// Nanoseconds since `epoch`; 0 is no bound.
    nanos: AtomicU64,
}

/// Wakes who waits for a deadline. It is set anew only for an earlier time or when it rings too early, so that
/// deadlines that move on cost nothing.
#[derive(Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Default for Deadline {
    fn default() -> Self {
        Self { epoch: Instant::now(), nanos: AtomicU64::new(0) }
    }
}

impl Deadline {
    /// Moves it; `None` is no bound.
    pub fn set(&self, at: Option<Instant>) {
        let since = |at: Instant| at.saturating_duration_since(self.epoch).as_nanos();
        let nanos = |at: Instant| u64::try_from(since(at)).unwrap_or(u64::MAX).max(1);
        self.nanos.store(at.map_or(0, nanos), Ordering::Relaxed);
    }

    /// When it is.
    pub fn at(&self) -> Option<Instant> {
        let nanos = self.nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| self.epoch + Duration::from_nanos(nanos))
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.at().is_some_and(|at| at <= Instant::now())
    }
}

impl Alarm {
    /// Waits until `at`.
    pub fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let at = at.into();
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if at < sleep.deadline() {
            sleep.as_mut().reset(at);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if at <= tokio::time::Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(at);
        }
        Poll::Pending
    }

    /// Waits for a deadline, forever if there is none.
    pub fn poll_deadline(&mut self, deadline: &Deadline, cx: &mut Context<'_>) -> Poll<()> {
        match deadline.at() {
            Some(at) => self.poll(at, cx),
            None => Poll::Pending,
        }
    }
}
