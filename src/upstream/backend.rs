//! One server of a pool, and what is known of it at run time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pingora_core::upstreams::peer::HttpPeer;

use super::balance::mix;
use super::config::Address;
use super::h1::Target;

/// Whether a server answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// Not checked yet.
    Unknown,
    /// The last checks passed, or none are configured.
    Healthy,
    /// The last checks failed.
    Unhealthy,
}

/// A server.
pub struct Backend {
    /// Tells the servers of one pool apart.
    pub(super) id: usize,
    pub(super) weight: u16,
    pub(super) hash: u64,
    /// Tells all servers of all pools apart, for as long as the process lives.
    pub(super) serial: u64,
    name: Arc<str>,
    /// Cloned for every request: building a peer anew costs more.
    peer: HttpPeer,
    target: Option<Target>,
    health: AtomicU8,
    /// Checks of the other outcome in a row.
    pub(super) streak: AtomicUsize,
    draining: AtomicBool,
    active: AtomicUsize,
    /// The decaying peak of latencies, in microseconds, as the bits of an `f64`.
    ewma: AtomicU64,
    /// When the last latency was observed, in microseconds since `born`.
    observed: AtomicU64,
    born: Instant,
}

/// In this time an old peak counts for a third: a server that was slow once is tried again.
const FADING: Duration = Duration::from_secs(10);

/// What a backend shows of itself.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its address.
    pub name: Arc<str>,
    /// Whether it answers.
    pub health: Health,
    /// Whether it is being drained.
    pub draining: bool,
    /// Requests under way.
    pub active: usize,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Backend {
    pub(super) fn new(id: usize, weight: u16, name: &Address, peer: HttpPeer, health: Health, drain: bool) -> Self {
        let name: Arc<str> = name.to_string().into();
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Self {
            id,
            weight,
            hash: mix(hash),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            name,
            peer,
            target: None,
            health: AtomicU8::new(health as u8),
            streak: AtomicUsize::new(0),
            draining: AtomicBool::new(drain),
            active: AtomicUsize::new(0),
            ewma: AtomicU64::new(0),
            observed: AtomicU64::new(0),
            born: Instant::now(),
        }
    }

    /// Where a [`super::Server`] connects to.
    pub(super) fn with_target(self, target: Option<Target>) -> Self {
        Self { target, ..self }
    }

    pub(super) fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    #[cfg(test)]
    pub(super) fn test(id: usize, weight: u16, health: Health) -> Self {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1000 + id as u16));
        Self::new(id, weight, &Address::Inet(address), HttpPeer::new(address, false, String::new()), health, false)
    }

    /// Its address, for logs.
    pub fn name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// Whether it answers.
    pub fn health(&self) -> Health {
        match self.health.load(Ordering::Relaxed) {
            0 => Health::Unknown,
            1 => Health::Healthy,
            _ => Health::Unhealthy,
        }
    }

    pub(super) fn set_health(&self, health: Health) {
        self.health.store(health as u8, Ordering::Relaxed);
        self.streak.store(0, Ordering::Relaxed);
    }

    /// Whether it gets no new requests.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Stops or resumes giving it requests.
    pub fn drain(&self, drain: bool) {
        self.draining.store(drain, Ordering::Relaxed);
    }

    pub(super) fn peer(&self) -> &HttpPeer {
        &self.peer
    }

    pub(super) fn begin(&self) {
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// Requests under way for its weight.
    pub(super) fn busy(&self) -> f64 {
        self.active.load(Ordering::Relaxed) as f64 / f64::from(self.weight)
    }

    /// Requests under way for its weight, with one more.
    pub(super) fn load(&self) -> f64 {
        (self.active.load(Ordering::Relaxed) as f64 + 1.0) / f64::from(self.weight)
    }

    /// The peak latency times the load.
    pub(super) fn cost(&self) -> f64 {
        self.latency(self.born.elapsed()) * self.load()
    }

    /// The peak latency, as it has faded by a time since the backend came to be.
    fn latency(&self, now: Duration) -> f64 {
        let since = micros(now).saturating_sub(self.observed.load(Ordering::Relaxed)) as f64;
        f64::from_bits(self.ewma.load(Ordering::Relaxed)) * (-since / micros(FADING) as f64).exp()
    }

    /// A latency above the average counts at once, one below it slowly.
    pub(super) fn observe(&self, latency: Duration) {
        self.observe_at(latency, self.born.elapsed());
    }

    fn observe_at(&self, latency: Duration, now: Duration) {
        let latency = micros(latency) as f64;
        let average = self.latency(now);
        let next = if latency > average { latency } else { average * 0.9 + latency * 0.1 };
        self.ewma.store(next.to_bits(), Ordering::Relaxed);
        self.observed.store(micros(now), Ordering::Relaxed);
    }

    /// What it shows of itself.
    pub fn status(&self) -> Status {
        Status {
            name: self.name(),
            health: self.health(),
            draining: self.is_draining(),
            active: self.active.load(Ordering::Relaxed),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_counts_at_once_and_fades() {
        let backend = Backend::test(0, 1, Health::Healthy);
        let (fast, slow) = (Duration::from_millis(1), Duration::from_secs(1));
        let at = Duration::from_secs;
        backend.observe_at(fast, at(0));
        backend.observe_at(slow, at(1));
        assert_eq!(backend.latency(at(1)), 1_000_000.0);
        backend.observe_at(fast, at(1));
        assert!((900_000.0..901_000.0).contains(&backend.latency(at(1))));
        // Nobody asks it for as long as it looks slow, and in the end it looks as fast as any.
        assert!(backend.latency(at(11)) > 300_000.0);
        assert!(backend.latency(at(121)) < 1_000.0);
    }
}
