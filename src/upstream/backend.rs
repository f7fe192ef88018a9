//! One server of a pool, and what is known of it at run time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

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
}

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
    pub(super) fn load(&self) -> f64 {
        (self.active.load(Ordering::Relaxed) as f64 + 1.0) / f64::from(self.weight)
    }

    /// The peak latency times the load.
    pub(super) fn cost(&self) -> f64 {
        f64::from_bits(self.ewma.load(Ordering::Relaxed)) * self.load()
    }

    /// A latency above the average counts at once, one below it slowly.
    pub(super) fn observe(&self, latency: Duration) {
        let micros = latency.as_micros() as f64;
        let average = f64::from_bits(self.ewma.load(Ordering::Relaxed));
        let next = if micros > average { micros } else { average * 0.9 + micros * 0.1 };
        self.ewma.store(next.to_bits(), Ordering::Relaxed);
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
