//! Whether there is budget for another attempt.
//!
//! The budget keeps retries from making an outage worse: every request adds its share of a token, every retry takes
//! a whole one (as in Finagle), and ten tokens are there from the start so that a quiet upstream can retry too.

use std::sync::atomic::{AtomicI64, Ordering};

/// A share of requests that may be tried again.
#[derive(Debug)]
pub struct Budget {
    /// Thousandths of a retry.
    tokens: AtomicI64,
    deposit: i64,
}

const RETRY: i64 = 1000;
const RESERVE: i64 = 10 * RETRY;
const MOST: i64 = 100 * RETRY;

impl Budget {
    pub(super) fn new(percent: u32) -> Self {
        Self { tokens: AtomicI64::new(RESERVE), deposit: i64::from(percent) * RETRY / 100 }
    }

    /// A new request adds its share.
    pub fn request(&self) {
        if self.deposit > 0 && self.tokens.load(Ordering::Relaxed) < MOST {
            self.tokens.fetch_add(self.deposit, Ordering::Relaxed);
        }
    }

    /// Takes one retry, if there is one.
    pub fn withdraw(&self) -> bool {
        self.tokens
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |tokens| (tokens >= RETRY).then(|| tokens - RETRY))
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_within_their_share() {
        let budget = Budget::new(20);
        let mut retries = 0;
        for _ in 0..1000 {
            budget.request();
            retries += u32::from(budget.withdraw());
        }
        assert_eq!(retries, 10 + 200);
        let none = Budget::new(0);
        assert_eq!((0..100).filter(|_| none.withdraw()).count(), 10);
    }
}
