//! Servers that are new, or come back, get their share bit by bit: their caches are cold and their code is not warm.
//!
//! ```toml
//! [upstream.users]
//! servers    = ["10.0.0.1:80", "10.0.0.2:80"]
//! slow_start = "30s"
//! ```
//!
//! The share of such a server grows evenly from a tenth of its weight to all of it, as a part of what the warmest usable
//! server of the pool has: where all of them are cold, nothing is held back. New is a server that comes to others; those
//! that an upstream begins with are taken for warm. A server comes back when its checks pass again, when its ejection is
//! over, or when it is no longer drained.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::Backend;
use crate::clock::Clock;
use crate::types::Timespan;

/// Since when the servers of an upstream are there; it outlives the pools that reloads make of it.
pub struct Seen {
    clock: Clock,
    /// Nothing until the upstream has begun.
    servers: Mutex<Option<HashMap<Arc<str>, u64>>>,
}

/// How far one server is.
pub(super) struct Warming {
    clock: Clock,
    /// Nanoseconds until it is warm; 0 is no slow start.
    over: u64,
    /// When it began, by the clock; 0 is long ago.
    since: AtomicU64,
}

/// What a server has at once: enough to become warm, and to fail if it does.
const LEAST: f64 = 0.1;

impl Seen {
    /// How far a server is, which is new if it was not seen before.
    pub(super) fn warming(&self, server: &str, over: Option<Timespan>) -> Warming {
        let since = match &*self.servers.lock() {
            Some(servers) => servers.get(server).copied().unwrap_or_else(|| self.clock.now().max(1)),
            None => 0,
        };
        let over = over.map_or(0, |over| u64::try_from(over.0.as_nanos()).unwrap_or(u64::MAX));
        Warming { clock: self.clock.clone(), over, since: AtomicU64::new(since) }
    }

    /// These are there now.
    pub(super) fn set(&self, servers: &[Arc<Backend>]) {
        let since = |server: &Arc<Backend>| (server.name(), server.warming().since.load(Ordering::Relaxed));
        *self.servers.lock() = Some(servers.iter().map(since).collect());
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self { clock: Clock::system(), servers: Mutex::default() }
    }
}

impl Warming {
    /// The time, if it matters.
    pub fn now(&self) -> Option<u64> {
        (self.over > 0).then(|| self.clock.now())
    }

    /// The server comes back.
    pub fn begin(&self) {
        if let Some(now) = self.now() {
            self.since.store(now.max(1), Ordering::Relaxed);
        }
    }

    /// The part of its weight that it has.
    pub fn warmth(&self, now: u64) -> f64 {
        match self.since.load(Ordering::Relaxed) {
            0 => 1.0,
            since => (now.saturating_sub(since) as f64 / self.over as f64).clamp(LEAST, 1.0),
        }
    }
}

impl Default for Warming {
    fn default() -> Self {
        Self { clock: Clock::system(), over: 0, since: AtomicU64::new(0) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::balance::Set;
    use super::super::config::BalanceConfig;
    use super::super::hash::{HashSource, mix};
    use super::super::{Health, Tried};
    use super::*;

    const OVER: Option<Timespan> = Some(Timespan::from_secs(30));

    fn seen(clock: &Clock) -> Seen {
        Seen { clock: clock.clone(), servers: Mutex::default() }
    }

    /// Servers of these weights, all warm, and a clock that stands still.
    fn servers(weights: &[u16]) -> (Set, Clock) {
        let clock = Clock::fake();
        let seen = seen(&clock);
        let backend = |(i, weight): (usize, &u16)| {
            Arc::new(Backend::test(i, *weight, Health::Healthy).with_warming(seen.warming(&i.to_string(), OVER)))
        };
        (Set::new(weights.iter().enumerate().map(backend).collect()), clock)
    }

    fn algorithms() -> [BalanceConfig; 4] {
        let hash = BalanceConfig::Hash(HashSource::Client);
        [BalanceConfig::RoundRobin, BalanceConfig::Random, BalanceConfig::LeastRequest, hash]
    }

    const ASKED: u64 = 20_000;

    /// The share of each of the servers.
    fn shares(set: &Set, balance: &BalanceConfig) -> Vec<f64> {
        let mut counts = vec![0.0; set.backends.len()];
        for key in 0..ASKED {
            counts[set.choose(balance, Some(mix(key)), &Tried::default()).unwrap().id] += 1.0 / ASKED as f64;
        }
        counts
    }

    #[test]
    fn a_share_grows_evenly_from_a_tenth() {
        let clock = Clock::fake();
        let warming = seen(&clock).warming("a", OVER);
        assert_eq!(warming.warmth(0), 1.0);
        clock.advance(Duration::from_nanos(1));
        warming.begin();
        let mut parts = Vec::new();
        for _ in 0..8 {
            parts.push(warming.warmth(warming.now().unwrap()));
            clock.advance(Duration::from_secs(5));
        }
        assert_eq!(parts, [0.1, 5.0 / 30.0, 10.0 / 30.0, 0.5, 20.0 / 30.0, 25.0 / 30.0, 1.0, 1.0]);
        warming.begin();
        assert_eq!(warming.warmth(warming.now().unwrap()), 0.1);
    }

    #[test]
    fn every_algorithm_gives_who_comes_back_its_share_bit_by_bit() {
        for balance in algorithms() {
            let (set, clock) = servers(&[1, 2, 1]);
            for (seconds, weight) in [(0, 0.2), (3, 0.2), (15, 1.0), (30, 2.0), (1000, 2.0)] {
                let (again, total) = (set.backends[1].warming(), weight + 2.0);
                again.begin();
                clock.advance(Duration::from_secs(seconds));
                let shares = shares(&set, &balance);
                for (share, weight) in shares.iter().zip([1.0, weight, 1.0]) {
                    assert!((share - weight / total).abs() < 0.02, "{balance:?} after {seconds}s: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn where_all_are_cold_nothing_is_held_back() {
        for balance in algorithms() {
            let (set, clock) = servers(&[1, 3]);
            set.backends.iter().for_each(|backend| backend.warming().begin());
            for _ in 0..4 {
                let shares = shares(&set, &balance);
                assert!((shares[1] - 0.75).abs() < 0.02, "{balance:?}: {shares:?}");
                clock.advance(Duration::from_secs(10));
            }
            // Also where the warm ones are not usable.
            set.backends[1].warming().begin();
            set.backends[0].set_health(Health::Unhealthy);
            assert_eq!(shares(&set, &balance)[1].round(), 1.0);
        }
    }

    #[test]
    fn the_fastest_server_is_not_flooded_while_it_is_cold() {
        let (set, clock) = servers(&[1, 1]);
        set.backends[0].observe(Duration::from_millis(10));
        set.backends[1].warming().begin();
        let cold = shares(&set, &BalanceConfig::PeakEwma)[1];
        assert!((0.05..0.25).contains(&cold), "{cold}");
        clock.advance(Duration::from_secs(30));
        assert!(shares(&set, &BalanceConfig::PeakEwma)[1] > 0.99);
    }

    #[test]
    fn with_a_hash_keys_move_to_the_server_that_warms_up_and_nowhere_else() {
        let (set, clock) = servers(&[1, 1, 1]);
        let balance = BalanceConfig::Hash(HashSource::Client);
        let owners = || -> Vec<usize> {
            (0..2_000).map(|key| set.choose(&balance, Some(mix(key)), &Tried::default()).unwrap().id).collect()
        };
        set.backends[2].warming().begin();
        let mut before = owners();
        for _ in 0..30 {
            clock.advance(Duration::from_secs(1));
            let now = owners();
            assert!(before.iter().zip(&now).all(|(before, now)| before == now || *now == 2));
            before = now;
        }
    }

    #[test]
    fn new_is_who_comes_to_others() {
        let clock = Clock::fake();
        let seen = seen(&clock);
        let new = |id| {
            let backend = Backend::test(id, 1, Health::Healthy);
            let warming = seen.warming(&backend.name(), OVER);
            Arc::new(backend.with_warming(warming))
        };
        let warmth = |backend: &Arc<Backend>| backend.warming().warmth(clock.now());
        let (a, b) = (new(0), new(1));
        seen.set(&[a.clone(), b.clone()]);
        let c = new(2);
        assert_eq!([&a, &b, &c].map(warmth), [1.0, 1.0, 0.1]);
        seen.set(&[a, c]);
        clock.advance(Duration::from_secs(15));
        // After a reload they are what they were; who was gone meanwhile is new.
        let again = [0, 1, 2].map(|id| warmth(&new(id)));
        assert!(again[0] == 1.0 && again[1] == 0.1 && (again[2] - 0.5).abs() < 1e-6, "{again:?}");
    }
}
