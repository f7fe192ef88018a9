//! What time it is, for what counts it: nanoseconds since the clock was made, or the seconds of the calendar. Tests have
//! one that they set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock that only goes forward.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System(Instant),
    Fake(Arc<AtomicU64>),
}

impl Clock {
    /// The system's monotonic clock.
    pub fn system() -> Self {
        Self(Source::System(Instant::now()))
    }

    /// A clock that stands still until it is moved; its clones move with it.
    pub fn fake() -> Self {
        Self(Source::Fake(Arc::default()))
    }

    /// Nanoseconds since the clock was made; enough for five centuries.
    pub fn now(&self) -> u64 {
        match &self.0 {
            Source::System(start) => u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
            Source::Fake(nanos) => nanos.load(Ordering::Relaxed),
        }
    }

    /// Seconds since 1970. A fake clock was made at their beginning.
    pub fn date(&self) -> i64 {
        let since = match &self.0 {
            Source::System(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            Source::Fake(_) => Duration::from_nanos(self.now()).as_secs(),
        };
        i64::try_from(since).unwrap_or(i64::MAX)
    }

    /// Moves a fake clock; the system's goes as it goes.
    pub fn advance(&self, by: Duration) {
        if let Source::Fake(nanos) = &self.0 {
            nanos.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
