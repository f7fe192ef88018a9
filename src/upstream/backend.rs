//! One server of a pool, and what is known of it at run time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;

use super::config::{Address, ServerConfig};
use super::h1::Target;
use super::hash::hash;
use super::outlier::Record;
use super::slow_start::Warming;
#[cfg(test)]
use crate::telemetry::metrics::traffic::Meter;
use crate::telemetry::metrics::traffic::ServerSeries;

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
    /// Its address as the file has it: a name, where it was resolved.
    written: Arc<str>,
    /// Cloned for every request: building a peer anew costs more.
    peer: HttpPeer,
    target: Option<Target>,
    health: AtomicU8,
    /// Checks of the other outcome in a row.
    pub(super) streak: AtomicUsize,
    /// One for all servers with this address, for as long as the pool lives.
    draining: Arc<AtomicBool>,
    active: AtomicUsize,
    /// The decaying peak of latencies, in microseconds, as the bits of an `f64`.
    ewma: AtomicU64,
    /// When the last latency was observed, in microseconds since `born`.
    observed: AtomicU64,
    born: Instant,
    counts: ServerSeries,
    record: Record,
    warming: Warming,
}

/// In this time an old peak counts for a third: a server that was slow once is tried again.
const FADING: Duration = Duration::from_secs(10);

/// What a backend shows of itself.
#[derive(Debug, Clone)]
pub struct Status {
    /// Its address.
    pub name: Arc<str>,
    /// Its address as the file has it: a name, where it was resolved.
    pub written: Arc<str>,
    /// Its share, relative to the others.
    pub weight: u16,
    /// Whether it answers.
    pub health: Health,
    /// Whether it is being drained.
    pub draining: bool,
    /// Whether it gets no requests for a while, since it failed.
    pub ejected: bool,
    /// Requests under way.
    pub active: usize,
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

impl Backend {
    pub(super) fn new(
        id: usize,
        weight: u16,
        name: &Address,
        peer: HttpPeer,
        health: Health,
        counts: ServerSeries,
    ) -> Self {
        let name: Arc<str> = name.to_string().into();
        Self {
            id,
            weight,
            hash: hash(name.as_bytes()),
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
            written: name.clone(),
            name,
            peer,
            target: None,
            health: AtomicU8::new(health as u8),
            streak: AtomicUsize::new(0),
            draining: Arc::default(),
            active: AtomicUsize::new(0),
            ewma: AtomicU64::new(0),
            observed: AtomicU64::new(0),
            born: Instant::now(),
            counts,
            record: Record::default(),
            warming: Warming::default(),
        }
    }

    /// How far it is with its slow start.
    pub(super) fn with_warming(self, warming: Warming) -> Self {
        Self { warming, ..self }
    }

    /// Where a [`super::Server`] connects to.
    pub(super) fn with_target(self, target: Option<Target>) -> Self {
        Self { target, ..self }
    }

    /// What it is called in the file, and where it is told that it is drained.
    pub(super) fn with_drain(self, written: &Address, draining: Arc<AtomicBool>) -> Self {
        Self { written: written.to_string().into(), draining, ..self }
    }

    pub(super) fn target(&self) -> Option<&Target> {
        self.target.as_ref()
    }

    #[cfg(test)]
    pub(super) fn test(id: usize, weight: u16, health: Health) -> Self {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1000 + id as u16));
        let peer = HttpPeer::new(address, false, String::new());
        let counts = Meter::default().server("test", &address.to_string());
        Self::new(id, weight, &Address::Inet(address), peer, health, counts)
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

    /// Requests under way, `more` among them, for a weight.
    pub(super) fn busy(&self, more: usize, weight: f64) -> f64 {
        (self.active.load(Ordering::Relaxed) + more) as f64 / weight
    }

    /// The peak latency times the requests that would share it. Between idle servers weights play no part: they
    /// decide which two are compared.
    pub(super) fn cost(&self, weight: f64) -> f64 {
        self.latency(self.born.elapsed()) * (1.0 + self.busy(0, weight))
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

    /// Whether it gets no requests for a while.
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// How far it is with its slow start.
    pub(super) fn warming(&self) -> &Warming {
        &self.warming
    }

    /// What is counted of it.
    pub(super) fn counts(&self) -> &ServerSeries {
        &self.counts
    }

    /// Has its numbers say how it is.
    pub(super) fn measure(&self) {
        let status = self.status();
        self.counts.measure(status.health == Health::Healthy, status.draining, status.ejected, status.active);
    }

    /// What it shows of itself.
    pub fn status(&self) -> Status {
        Status {
            name: self.name(),
            written: self.written.clone(),
            weight: self.weight,
            health: self.health(),
            draining: self.is_draining(),
            ejected: self.record.is_ejected(),
            active: self.active.load(Ordering::Relaxed),
        }
    }
}

/// Which servers of a pool are drained. It remembers them by the text in the file and by the address, so that a server
/// that comes again with the next resolution of its name is what it was.
pub(super) struct Drains(Mutex<HashMap<String, Group>>);

/// What one text in the file stands for.
struct Group {
    /// What the addresses begin with that are not known yet.
    drained: bool,
    addresses: HashMap<String, Arc<AtomicBool>>,
}

impl Drains {
    /// What the file says.
    pub fn new(servers: &[ServerConfig]) -> Self {
        let group = |server: &ServerConfig| {
            (server.address.to_string(), Group { drained: server.drain, addresses: HashMap::new() })
        };
        Self(Mutex::new(servers.iter().map(group).collect()))
    }

    /// Where a server that a text in the file stands for is told that it is drained.
    pub fn of(&self, written: &Address, address: &Address) -> Arc<AtomicBool> {
        let mut groups = self.0.lock();
        let Some(group) = groups.get_mut(&written.to_string()) else { return Arc::default() };
        let drained = group.drained;
        // Addresses that no server has any more are kept only for what was said of them alone.
        group.addresses.retain(|_, flag| Arc::strong_count(flag) > 1 || flag.load(Ordering::Relaxed) != drained);
        group.addresses.entry(address.to_string()).or_insert_with(|| Arc::new(AtomicBool::new(drained))).clone()
    }

    /// Drains all that a text in the file stands for, now and later, or ends that; gives whether there is such a text.
    pub fn set(&self, written: &str, drain: bool) -> bool {
        let mut groups = self.0.lock();
        let Some(group) = groups.get_mut(written) else { return false };
        group.drained = drain;
        group.addresses.values().for_each(|flag| flag.store(drain, Ordering::Relaxed));
        true
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drains_outlive_the_servers() {
        let server = |text: &str| ServerConfig { address: text.parse().unwrap(), weight: 1, drain: false };
        let name = server("a.test:80");
        let (one, two): (Address, Address) = ("192.0.2.1:80".parse().unwrap(), "192.0.2.2:80".parse().unwrap());
        let drains = Drains::new(&[name.clone(), server("192.0.2.3:80")]);
        let drained = |address: &Address| drains.of(&name.address, address).load(Ordering::Relaxed);

        // By its address alone, and again when it comes again.
        drains.of(&name.address, &one).store(true, Ordering::Relaxed);
        assert!(!drained(&two) && drained(&one));
        // By the name: what is there, and what comes later.
        let held = drains.of(&name.address, &two);
        assert!(drains.set("a.test:80", true));
        assert!(held.load(Ordering::Relaxed) && drained(&"192.0.2.9:80".parse().unwrap()));
        assert!(drains.set("a.test:80", false));
        assert!(!held.load(Ordering::Relaxed) && !drained(&one));
        assert!(!drains.set("192.0.2.1:80", true));
        // What is not drained and not there any more is forgotten.
        for last in 0..100 {
            assert!(!drained(&format!("198.51.100.{last}:80").parse().unwrap()));
        }
        assert!(drains.0.lock()["a.test:80"].addresses.len() <= 2);
    }

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
