//! A circuit breaker: while too many requests to an upstream fail, the others are answered at once.
//!
//! ```toml
//! [upstream.users]
//! servers = ["10.0.0.1:80"]
//! breaker = { failures = 0.5, window = "10s", min_requests = 20, open_for = "5s", probes = 3 }
//! ```
//!
//! What fails is an attempt without an answer, or with one of 500 and above. When at least `min_requests` of the last
//! `window` ended and the share `failures` of them failed, the breaker opens: requests get a 503 with `Retry-After`.
//! After `open_for` it is half open: `probes` requests go through. If all of them succeed it closes, and with the first
//! that fails it opens again. The window goes by in tenths.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Deserialize;

use crate::build::Build;
use crate::types::Timespan;

/// `breaker` as it is written.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(super) struct BreakerConfig {
    /// The share that is too much.
    pub failures: f64,
    pub window: Timespan,
    pub min_requests: u32,
    pub open_for: Timespan,
    pub probes: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 0.5,
            window: Timespan::from_secs(10),
            min_requests: 20,
            open_for: Timespan::from_secs(5),
            probes: 3,
        }
    }
}

impl BreakerConfig {
    pub fn check(&self, build: &mut Build<'_>) {
        if !(self.failures > 0.0 && self.failures <= 1.0) {
            build
                .error("breaker.failures", "the share of failures is more than 0 and at most 1")
                .help("write 0.5 for half of the requests");
        }
        for (key, time) in [("window", self.window), ("open_for", self.open_for)] {
            if time.0 < Duration::from_millis(10) {
                build.error(&format!("breaker.{key}"), "the time is 10ms or more");
            }
        }
        for (key, count) in [("min_requests", self.min_requests), ("probes", self.probes)] {
            if count == 0 {
                build.error(&format!("breaker.{key}"), "at least one request decides");
            }
        }
    }
}

/// Whether requests go through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Circuit {
    /// They do.
    Closed,
    /// A few do, to see how they fare.
    HalfOpen,
    /// None does.
    Open,
}

/// The breaker of one pool.
pub(super) struct Breaker {
    config: BreakerConfig,
    state: Mutex<State>,
}

/// A request that goes through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Permit {
    /// The turn in which it was let through: what it tells of another is of no use any more.
    turn: u64,
}

struct State {
    circuit: Circuit,
    /// Counts the changes.
    turn: u64,
    /// Until when it is open.
    until: Instant,
    /// Probes that were let through, and those that succeeded.
    probes: (u32, u32),
    window: Window,
}

/// The outcomes of the last time, in tenths of it.
struct Window {
    parts: [Part; PARTS],
    began: Instant,
    /// The tenth since `began` that was counted last.
    last: u64,
}

#[derive(Default, Clone, Copy)]
struct Part {
    all: u32,
    failed: u32,
}

const PARTS: usize = 10;
/// When to ask again while the probes are under way.
const SOON: Duration = Duration::from_secs(1);

impl Breaker {
    pub fn new(config: BreakerConfig, now: Instant) -> Self {
        let state = State { circuit: Circuit::Closed, turn: 0, until: now, probes: (0, 0), window: Window::new(now) };
        Self { config, state: Mutex::new(state) }
    }

    /// Lets a request through, or says when to ask again. The circuit is there if it has changed.
    pub fn admit(&self, now: Instant) -> (Result<Permit, Duration>, Option<Circuit>) {
        let mut state = self.state.lock();
        let mut changed = None;
        if state.circuit == Circuit::Open {
            if now < state.until {
                return (Err(state.until - now), None);
            }
            changed = Some(state.turn_to(Circuit::HalfOpen));
        }
        if state.circuit == Circuit::HalfOpen {
            if state.probes.0 >= self.config.probes {
                return (Err(SOON), changed);
            }
            state.probes.0 += 1;
        }
        (Ok(Permit { turn: state.turn }), changed)
    }

    /// A request that was let through ended; gives the circuit if it has changed.
    pub fn ended(&self, permit: Permit, failed: bool, now: Instant) -> Option<Circuit> {
        let mut state = self.state.lock();
        if permit.turn != state.turn {
            return None;
        }
        match state.circuit {
            Circuit::Open => None,
            Circuit::HalfOpen if failed => Some(self.open(&mut state, now)),
            Circuit::HalfOpen => {
                state.probes.1 += 1;
                if state.probes.1 < self.config.probes {
                    return None;
                }
                state.window = Window::new(now);
                Some(state.turn_to(Circuit::Closed))
            }
            Circuit::Closed => {
                let Part { all, failed } = state.window.count(failed, self.config.window.0, now);
                let too_many = f64::from(failed) >= f64::from(all) * self.config.failures;
                (failed > 0 && all >= self.config.min_requests && too_many).then(|| self.open(&mut state, now))
            }
        }
    }

    /// A request that was let through tells nothing: its client left, or a policy stopped it.
    pub fn forget(&self, permit: Permit) {
        let mut state = self.state.lock();
        if permit.turn == state.turn && state.circuit == Circuit::HalfOpen {
            state.probes.0 = state.probes.0.saturating_sub(1);
        }
    }

    /// Whether requests go through, and when to ask again if they do not.
    pub fn circuit(&self, now: Instant) -> (Circuit, Duration) {
        let state = self.state.lock();
        match state.circuit {
            // It is closed or half open to who asks now.
            Circuit::Open if state.until <= now => (Circuit::HalfOpen, SOON),
            Circuit::Open => (Circuit::Open, state.until - now),
            circuit => (circuit, SOON),
        }
    }

    /// Whether a request would be turned away.
    pub fn is_in_the_way(&self, now: Instant) -> bool {
        let state = self.state.lock();
        match state.circuit {
            Circuit::Closed => false,
            Circuit::HalfOpen => state.probes.0 >= self.config.probes,
            Circuit::Open => now < state.until,
        }
    }

    fn open(&self, state: &mut State, now: Instant) -> Circuit {
        state.until = now + self.config.open_for.0;
        state.turn_to(Circuit::Open)
    }
}

impl State {
    fn turn_to(&mut self, circuit: Circuit) -> Circuit {
        self.circuit = circuit;
        self.turn += 1;
        self.probes = (0, 0);
        circuit
    }
}

impl Window {
    fn new(now: Instant) -> Self {
        Self { parts: [Part::default(); PARTS], began: now, last: 0 }
    }

    /// Counts an outcome; gives all that count at this time.
    fn count(&mut self, failed: bool, window: Duration, now: Instant) -> Part {
        let part = (window / PARTS as u32).max(Duration::from_nanos(1));
        let at = now.saturating_duration_since(self.began).as_nanos() / part.as_nanos();
        let at = u64::try_from(at).unwrap_or(u64::MAX).max(self.last);
        for gone in (self.last + 1..=at).take(PARTS) {
            self.parts[gone as usize % PARTS] = Part::default();
        }
        if at - self.last > PARTS as u64 {
            self.parts = [Part::default(); PARTS];
        }
        self.last = at;
        let current = &mut self.parts[at as usize % PARTS];
        current.all += 1;
        current.failed += u32::from(failed);
        let add = |sum: Part, part: &Part| Part { all: sum.all + part.all, failed: sum.failed + part.failed };
        self.parts.iter().fold(Part::default(), add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(now: Instant) -> Breaker {
        Breaker::new(BreakerConfig { min_requests: 4, probes: 2, ..BreakerConfig::default() }, now)
    }

    /// Takes a request through.
    fn ask(breaker: &Breaker, failed: bool, now: Instant) -> Option<Circuit> {
        let permit = breaker.admit(now).0.expect("it goes through");
        breaker.ended(permit, failed, now)
    }

    #[test]
    fn it_opens_half_opens_and_closes() {
        let start = Instant::now();
        let (breaker, secs) = (breaker(start), Duration::from_secs);
        let early = breaker.admit(start).0.unwrap();
        for failed in [false, true, false] {
            assert_eq!(ask(&breaker, failed, start), None);
        }
        assert_eq!(ask(&breaker, true, start), Some(Circuit::Open));
        assert_eq!(breaker.admit(start + secs(1)), (Err(secs(4)), None));
        assert!(breaker.is_in_the_way(start + secs(4)) && !breaker.is_in_the_way(start + secs(5)));

        let now = start + secs(5);
        let (first, changed) = breaker.admit(now);
        assert_eq!(changed, Some(Circuit::HalfOpen));
        let second = breaker.admit(now).0.unwrap();
        assert_eq!(breaker.admit(now), (Err(SOON), None));
        // Who tells nothing leaves its place to another.
        breaker.forget(second);
        let third = breaker.admit(now).0.unwrap();
        // What began before is of no interest.
        assert_eq!(breaker.ended(early, true, now), None);
        assert_eq!(breaker.ended(first.unwrap(), false, now), None);
        assert_eq!(breaker.ended(third, false, now), Some(Circuit::Closed));
        assert_eq!(ask(&breaker, true, now), None);
    }

    #[test]
    fn a_probe_that_fails_opens_it_again() {
        let start = Instant::now();
        let (breaker, secs) = (breaker(start), Duration::from_secs);
        for _ in 0..4 {
            ask(&breaker, true, start);
        }
        assert_eq!(ask(&breaker, true, start + secs(5)), Some(Circuit::Open));
        assert_eq!(breaker.admit(start + secs(9)).0, Err(secs(1)));
        assert_eq!(breaker.circuit(start + secs(9)), (Circuit::Open, secs(1)));
        assert_eq!(breaker.circuit(start + secs(10)).0, Circuit::HalfOpen);
    }

    #[test]
    fn what_is_older_than_the_window_does_not_count() {
        let start = Instant::now();
        let (breaker, secs) = (breaker(start), Duration::from_secs);
        for i in 0..3 {
            assert_eq!(ask(&breaker, true, start + secs(i)), None);
        }
        // The first two are gone by now.
        assert_eq!(ask(&breaker, true, start + secs(11)), None);
        assert_eq!(ask(&breaker, true, start + secs(11)), None);
        assert_eq!(ask(&breaker, true, start + secs(11)), Some(Circuit::Open));
        let mut window = Window::new(start);
        window.count(true, secs(10), start);
        assert_eq!(window.count(true, secs(10), start + secs(1000)).all, 1);
    }
}
