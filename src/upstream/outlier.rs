//! Servers that fail one request after the other get none for a while.
//!
//! ```toml
//! [upstream.users]
//! servers = ["10.0.0.1:80", "10.0.0.2:80"]
//! outlier = { consecutive = 5, eject_for = "30s", max_ejected = 0.5 }
//! ```
//!
//! What fails is an attempt without an answer, or with one of 500 and above; any other answer begins the count anew.
//! A server that fails again soon after it came back stays away longer: twice, three times, at most ten times
//! `eject_for`. No more than the share `max_ejected` of the servers is ejected at once, rounded down, so that the only
//! server of a pool never is. Where no other server is usable, those that are ejected are asked after all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;

use super::Backend;
use crate::build::Build;
use crate::types::Timespan;

/// `outlier` as it is written.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OutlierConfig {
    /// Failures in a row.
    pub consecutive: u32,
    pub eject_for: Timespan,
    /// The share of servers that may be away at once.
    pub max_ejected: f64,
}

impl Default for OutlierConfig {
    fn default() -> Self {
        Self { consecutive: 5, eject_for: Timespan::from_secs(30), max_ejected: 0.5 }
    }
}

impl OutlierConfig {
    pub fn check(&self, build: &mut Build<'_>) {
        if self.consecutive == 0 {
            build.error("outlier.consecutive", "at least one failure decides");
        }
        if self.eject_for.0.is_zero() {
            build.error("outlier.eject_for", "a server that is ejected stays away for some time");
        }
        if !(self.max_ejected > 0.0 && self.max_ejected <= 1.0) {
            build
                .error("outlier.max_ejected", "the share of servers is more than 0 and at most 1")
                .help("write 0.5 for half of them");
        }
    }
}

/// Who is ejected of one pool.
pub(super) struct Outlier {
    config: OutlierConfig,
    /// Whether anybody may be: else there is nothing to look at.
    any: AtomicBool,
    /// Held by who ejects or readmits.
    changing: Mutex<()>,
}

/// What is remembered of one server.
#[derive(Default)]
pub(super) struct Record {
    /// Failures in a row.
    streak: AtomicU32,
    ejected: AtomicBool,
    history: Mutex<History>,
}

#[derive(Default)]
struct History {
    /// When it may come back, or could.
    until: Option<Instant>,
    /// How often it was ejected, one time soon after the other.
    times: u32,
}

/// The most that `eject_for` is multiplied by; also for how many of them an ejection is remembered.
const MOST: u32 = 10;

impl Record {
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }
}

impl Outlier {
    pub fn new(config: OutlierConfig) -> Self {
        Self { config, any: AtomicBool::new(false), changing: Mutex::default() }
    }

    /// An answer that speaks for the server.
    pub fn succeeded(&self, server: &Record) {
        // Most of the time nothing is written, so that workers do not wait for each other.
        if server.streak.load(Ordering::Relaxed) > 0 {
            server.streak.store(0, Ordering::Relaxed);
        }
    }

    /// A failure; gives for how long the server is ejected, if it is now. `servers` are those of its pool.
    pub fn failed(&self, server: &Record, servers: &[Arc<Backend>], now: Instant) -> Option<Duration> {
        let streak = server.streak.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if streak < self.config.consecutive || server.is_ejected() {
            return None;
        }
        let _changing = self.changing.lock();
        let away = servers.iter().filter(|other| other.record().is_ejected()).count();
        let most = (servers.len() as f64 * self.config.max_ejected) as usize;
        if server.is_ejected() || away >= most {
            return None;
        }
        let eject_for = self.config.eject_for.0;
        let mut history = server.history.lock();
        if history.until.is_some_and(|until| now.saturating_duration_since(until) > eject_for * MOST) {
            history.times = 0;
        }
        history.times = (history.times + 1).min(MOST);
        let time = eject_for * history.times;
        history.until = Some(now + time);
        server.streak.store(0, Ordering::Relaxed);
        server.ejected.store(true, Ordering::Relaxed);
        self.any.store(true, Ordering::Relaxed);
        Some(time)
    }

    /// Lets those come back whose time is over; gives them.
    pub fn readmit(&self, servers: &[Arc<Backend>], now: impl FnOnce() -> Instant) -> Vec<Arc<Backend>> {
        if !self.any.load(Ordering::Relaxed) {
            return Vec::new();
        }
        // Who cannot have the lock leaves it to who has it.
        let Some(_changing) = self.changing.try_lock() else { return Vec::new() };
        let now = now();
        let (mut back, mut stay) = (Vec::new(), false);
        for server in servers.iter().filter(|server| server.record().is_ejected()) {
            let record = server.record();
            if record.history.lock().until.is_some_and(|until| until <= now) {
                server.warming().begin();
                record.ejected.store(false, Ordering::Relaxed);
                record.streak.store(0, Ordering::Relaxed);
                back.push(server.clone());
            } else {
                stay = true;
            }
        }
        self.any.store(stay, Ordering::Relaxed);
        back
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    fn servers(count: usize) -> Vec<Arc<Backend>> {
        (0..count).map(|id| Arc::new(Backend::test(id, 1, Health::Healthy))).collect()
    }

    fn outlier(consecutive: u32, max_ejected: f64) -> Outlier {
        Outlier::new(OutlierConfig { consecutive, eject_for: Timespan::from_secs(30), max_ejected })
    }

    #[test]
    fn failures_in_a_row_eject_and_time_brings_back() {
        let (outlier, servers, start) = (outlier(3, 0.5), servers(2), Instant::now());
        let record = servers[0].record();
        let secs = Duration::from_secs;
        let fail = |now| outlier.failed(record, &servers, now);
        assert_eq!((fail(start), fail(start)), (None, None));
        outlier.succeeded(record);
        assert_eq!((fail(start), fail(start), fail(start)), (None, None, Some(secs(30))));
        assert!(record.is_ejected() && outlier.readmit(&servers, || start + secs(29)).is_empty());
        assert_eq!(outlier.readmit(&servers, || start + secs(30)).len(), 1);
        assert!(!record.is_ejected() && outlier.readmit(&servers, || unreachable!("nobody is away")).is_empty());
    }

    #[test]
    fn who_fails_again_soon_stays_away_longer() {
        let (outlier, servers) = (outlier(1, 0.5), servers(2));
        let secs = Duration::from_secs;
        let mut now = Instant::now();
        for times in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
            let time = outlier.failed(servers[0].record(), &servers, now).unwrap();
            assert_eq!(time, secs(30 * times));
            now += time;
            assert_eq!(outlier.readmit(&servers, || now).len(), 1);
        }
        now += secs(301);
        assert_eq!(outlier.failed(servers[0].record(), &servers, now), Some(secs(30)));
    }

    #[test]
    fn no_more_than_a_share_is_away() {
        let now = Instant::now();
        for (count, share, most) in [(1, 0.5, 0), (2, 0.5, 1), (3, 0.5, 1), (4, 0.5, 2), (3, 1.0, 3)] {
            let (outlier, servers) = (outlier(1, share), servers(count));
            let away = servers.iter().filter(|server| outlier.failed(server.record(), &servers, now).is_some()).count();
            assert_eq!(away, most, "{count} servers, {share}");
        }
    }
}
