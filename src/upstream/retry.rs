//! Whether a failed attempt is worth another, and whether there is budget for it.
//!
//! The budget keeps retries from making an outage worse: every request adds its share of a token, every retry takes
//! a whole one (as in Finagle), and ten tokens are there from the start so that a quiet upstream can retry too.

use std::sync::atomic::{AtomicI64, Ordering};

use super::config::{RetryConfig, RetryOn};

/// How an attempt failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No connection: nothing was sent.
    Connect,
    /// No connection in time: nothing was sent either.
    ConnectTimeout,
    /// The connection broke.
    Reset,
    /// Nothing came in time.
    Timeout,
    /// An answer with this status.
    Status(u16),
}

/// Which failures are tried again.
#[derive(Debug)]
pub struct Policy {
    /// Further tries after the first.
    pub attempts: u32,
    on: Vec<RetryOn>,
}

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

impl Policy {
    pub(super) fn new(config: &RetryConfig) -> Self {
        Self { attempts: config.attempts, on: config.on.clone() }
    }

    /// Whether a failure is one that is tried again.
    pub fn allows(&self, failure: Failure) -> bool {
        self.on.iter().any(|on| match (on, failure) {
            (RetryOn::Connect, Failure::Connect | Failure::ConnectTimeout)
            | (RetryOn::Reset, Failure::Reset)
            | (RetryOn::Timeout, Failure::Timeout | Failure::ConnectTimeout)
            | (RetryOn::S500, Failure::Status(500))
            | (RetryOn::S502, Failure::Status(502))
            | (RetryOn::S503, Failure::Status(503))
            | (RetryOn::S504, Failure::Status(504)) => true,
            (RetryOn::Any5xx, Failure::Status(status)) => status >= 500,
            _ => false,
        })
    }
}

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

    #[test]
    fn conditions_are_told_apart() {
        let policy = Policy { attempts: 1, on: vec![RetryOn::Connect, RetryOn::S503] };
        assert!(policy.allows(Failure::Connect) && policy.allows(Failure::Status(503)));
        assert!(!policy.allows(Failure::Reset) && !policy.allows(Failure::Status(500)));
        assert!(Policy { attempts: 1, on: vec![RetryOn::Any5xx] }.allows(Failure::Status(599)));
    }

    #[test]
    fn a_connection_that_was_not_made_in_time_is_of_both_kinds() {
        let allows = |on, failure| Policy { attempts: 1, on: vec![on] }.allows(failure);
        for on in [RetryOn::Connect, RetryOn::Timeout] {
            assert!(allows(on, Failure::ConnectTimeout));
        }
        assert!(!allows(RetryOn::Reset, Failure::ConnectTimeout));
        assert!(!allows(RetryOn::Connect, Failure::Timeout));
    }
}
