//! The generic cell rate algorithm (ITU-T I.371), in nanoseconds.
//!
//! All that is known of a key is its *theoretical arrival time*: when it would be idle if nothing more came. Each request
//! moves it on by one interval. It may be ahead of the clock by as much as the burst allows.

use std::time::Duration;

use crate::types::Pace;

/// The arithmetic of one limit.
#[derive(Clone, Copy, Debug)]
pub struct Gcra {
    interval: u64,
    /// How far a key may be ahead of the clock before a request: all of the burst but this request.
    tolerance: u64,
    /// How long a request may be held back.
    patience: u64,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes on.
    Admit {
        /// The key's theoretical arrival time from now on.
        until: u64,
        /// How long it is held back first.
        wait: u64,
    },
    /// It does not, and leaves no trace.
    Refuse {
        /// In how long a request would not be refused.
        wait: u64,
    },
}

impl Gcra {
    /// A limit that lets requests through at this pace, and holds others back for up to `patience`.
    pub fn new(pace: &Pace, patience: Duration) -> Self {
        let patience = u64::try_from(patience.as_nanos()).unwrap_or(u64::MAX / 4);
        Self { interval: pace.interval, tolerance: pace.tolerance, patience }
    }

    /// Decides on a request of a key whose theoretical arrival time is `until`.
    pub fn decide(&self, until: u64, now: u64) -> Decision {
        let until = until.max(now);
        let wait = (until - now).saturating_sub(self.tolerance);
        match wait.checked_sub(self.patience) {
            None | Some(0) => Decision::Admit { until: until.saturating_add(self.interval), wait },
            Some(wait) => Decision::Refuse { wait },
        }
    }

    /// Interval, tolerance and patience, in nanoseconds.
    pub fn parts(&self) -> [u64; 3] {
        [self.interval, self.tolerance, self.patience]
    }

    /// The theoretical arrival time of a key that gets back what it paid for a request.
    pub fn give_back(&self, until: u64) -> u64 {
        until.saturating_sub(self.interval)
    }

    /// How many more requests a key could make at once.
    pub fn remaining(&self, until: u64, now: u64) -> u64 {
        let ahead = until.saturating_sub(now);
        self.tolerance.saturating_add(self.interval).saturating_sub(ahead) / self.interval
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Rate;

    const SECOND: u64 = 1_000_000_000;

    fn gcra(count: u32, burst: u32, patience: u64) -> Gcra {
        let pace = Pace::new(Rate { count, per: Duration::from_secs(1) }, burst);
        Gcra::new(&pace, Duration::from_nanos(patience))
    }

    #[test]
    fn a_burst_and_then_one_an_interval() {
        let gcra = gcra(10, 3, 0);
        let mut until = 0;
        for remaining in [2, 1, 0] {
            let Decision::Admit { until: next, wait: 0 } = gcra.decide(until, 0) else { panic!("{remaining}") };
            until = next;
            assert_eq!(gcra.remaining(until, 0), remaining);
        }
        assert_eq!(gcra.decide(until, 0), Decision::Refuse { wait: SECOND / 10 });
        assert_eq!(gcra.decide(until, SECOND / 20), Decision::Refuse { wait: SECOND / 20 });
        assert!(matches!(gcra.decide(until, SECOND / 10), Decision::Admit { wait: 0, .. }));
        assert_eq!(gcra.remaining(until, SECOND), 3);
    }

    #[test]
    fn those_held_back_follow_each_other() {
        let gcra = gcra(10, 1, SECOND / 4);
        let mut until = 0;
        for expected in [0, SECOND / 10, SECOND / 5] {
            let Decision::Admit { until: next, wait } = gcra.decide(until, 0) else { panic!("{expected}") };
            until = next;
            assert_eq!(wait, expected);
        }
        assert_eq!(gcra.decide(until, 0), Decision::Refuse { wait: SECOND / 20 });
    }

    proptest! {
        /// In any span of time no more go through than the burst and what the rate gives in that time.
        #[test]
        fn never_more_than_burst_and_rate(
            count in 1u32..2000,
            burst in 1u32..50,
            patience in 0u64..SECOND,
            steps in prop::collection::vec(0u64..SECOND / 20, 1..300),
        ) {
            let gcra = gcra(count, burst, patience);
            let (mut until, mut now) = (0, 0);
            let mut through: Vec<u64> = Vec::new();
            for step in steps {
                now += step * u64::from(step % 3 != 0);
                if let Decision::Admit { until: next, wait } = gcra.decide(until, now) {
                    until = next;
                    through.push(now + wait);
                }
            }
            for (i, first) in through.iter().enumerate() {
                for (j, last) in through.iter().enumerate().skip(i) {
                    let most = u128::from(burst) + u128::from(last - first) * u128::from(count) / u128::from(SECOND);
                    prop_assert!(u128::try_from(j - i + 1).unwrap() <= most);
                }
            }
            prop_assert!(through.is_sorted());
        }
    }
}
