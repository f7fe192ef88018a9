//! Upstreams: pools of servers, which of them takes a request, and whether they answer.
//!
//! ```toml
//! [upstream]
//! users = ["127.0.0.1:8081"]                       # short form: just addresses
//!
//! [upstream.payments]
//! servers  = ["10.0.0.1:443", { address = "10.0.0.2:443", weight = 2 }, { address = "payments.internal:443", drain = true }]
//! balance  = "least_request"                       # round_robin, random, peak_ewma, { hash = "cookie:session" }
//! health   = { path = "/healthz", host = "payments.internal", interval = "5s", timeout = "1s", healthy = 1, unhealthy = 3, expect = [200, 204] }
//! timeouts = { connect = "1s", first_byte = "10s", idle = "60s", total = "30s" }
//! retry    = { attempts = 1, on = ["connect", "503"], budget = "20%" }
//! protocol = "h1"                                  # h2 over TLS, h2c without
//! outlier  = { consecutive = 5, eject_for = "30s", max_ejected = 0.5 }
//! slow_start = "30s"                               # servers that are new or come back get their share bit by bit
//! breaker  = { failures = 0.5, window = "10s", min_requests = 20, open_for = "5s", probes = 3 }
//! forwarded = "x-forwarded"                        # "forwarded" (RFC 7239), "both", "none"
//! keepalive = { idle = "50s" }                     # how long a connection without requests is kept
//! tls      = { sni = "payments.internal", ca = "ca.pem", cert = "client.pem", key = "client.key" }
//! ```
//!
//! A name is resolved in the background and again when its records expire; until then the pool has no server for
//! it, and nothing waits. With `health` a server starts as unknown, and an unknown server is asked only while none
//! is known to be healthy. A server with `drain` gets no requests. Certificates of TLS servers are always verified,
//! unless `insecure_skip_verify = true` says otherwise.
//!
//! A drained server gets no new requests, and those under way end. Draining goes by the address or by the text in the
//! file; a name stands for all that it is resolved to, now and later.
//!
//! `first_byte` bounds the wait for the head of an answer once the request is sent, `idle` every silence within the
//! answer, `total` everything from the request's arrival on. Streams (WebSockets, `text/event-stream`, gRPC) may be
//! silent for the listener's `stream_idle` and have no total, but that a gRPC client's `grpc-timeout` counts. Between
//! clients that speak HTTP/2 and servers with `tls`, `h2` or `h2c` the longer of `first_byte` and `idle` bounds both.

mod backend;
mod balance;
mod breaker;
mod config;
mod discover;
mod h1;
mod hash;
mod health;
mod outlier;
mod peer;
mod retry;
mod slow_start;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use tokio::task::JoinHandle;

use crate::build::Build;
use crate::telemetry::metrics::traffic::{BreakerSeries, Failed, Meter};
use crate::types::{Failure, Failures, Timespan};
use balance::Set;
use config::{Address, BalanceConfig};

use backend::Drains;
pub use backend::{Backend, Health, Status};
pub use breaker::Circuit;
use breaker::{Breaker, Permit};
pub use config::{ForwardedStyle, UpstreamConfig};
pub use h1::{Idle, Server};
pub use hash::{HashSource, cookie, hash};
use outlier::Outlier;
pub use retry::Budget;
pub use slow_start::Seen;

/// A pool of servers.
pub struct Pool {
    name: Arc<str>,
    config: config::Long,
    template: peer::Template,
    meter: Meter,
    set: ArcSwap<Set>,
    next_id: AtomicUsize,
    drains: Drains,
    seen: Arc<Seen>,
    budget: Budget,
    outlier: Option<Outlier>,
    breaker: Option<(Breaker, BreakerSeries)>,
    started: AtomicBool,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// The longest that things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Connecting.
    pub connect: Duration,
    /// From the end of the request to the head of its answer.
    pub first_byte: Duration,
    /// Silence between the parts of an answer.
    pub idle: Duration,
    /// The whole exchange.
    pub total: Option<Duration>,
}

/// A server that was taken for a request; counts as busy until it is dropped.
pub struct Pick {
    backend: Arc<Backend>,
    /// The pool, where it judges by outcomes.
    judge: Option<Arc<Pool>>,
    /// Where there is a breaker and it was not told the outcome yet.
    permit: Mutex<Option<Permit>>,
}

/// The servers that a request was tried at.
#[derive(Default)]
pub struct Tried {
    ids: smallvec::SmallVec<[usize; 4]>,
    /// Whether there was any, even a forgotten one.
    any: bool,
}

/// Where the tasks of pools run, and what they share.
pub struct Background {
    runtime: tokio::runtime::Handle,
    connectors: OnceLock<Arc<health::Connectors>>,
}

impl Background {
    /// Tasks run there.
    pub fn new(runtime: tokio::runtime::Handle) -> Self {
        Self { runtime, connectors: OnceLock::new() }
    }

    /// Where they run.
    pub fn runtime(&self) -> &tokio::runtime::Handle {
        &self.runtime
    }
}

impl Pool {
    /// Compiles `[upstream.NAME]`, some of whose servers may have been `seen` before; `None` after every mistake in it
    /// was reported.
    pub fn compile(
        name: &str,
        config: &UpstreamConfig,
        seen: &Arc<Seen>,
        meter: &Meter,
        build: &mut Build<'_>,
    ) -> Option<Self> {
        let before = build.errors();
        let config = config.0.clone();
        config.check(build);
        let template = peer::Template::compile(&config, build);
        if build.errors() > before {
            return None;
        }
        let pool = Self {
            name: name.into(),
            template: template?,
            meter: meter.clone(),
            set: ArcSwap::from_pointee(Set::new(Vec::new())),
            next_id: AtomicUsize::new(0),
            drains: Drains::new(&config.servers),
            seen: seen.clone(),
            budget: Budget::new(config.retry.budget.0),
            outlier: config.outlier.clone().map(Outlier::new),
            breaker: config.breaker.clone().map(|config| (Breaker::new(config, Instant::now()), meter.breaker(name))),
            started: AtomicBool::new(false),
            tasks: Mutex::default(),
            config,
        };
        let mut fixed = Vec::new();
        for server in &pool.config.servers {
            match &server.address {
                Address::Name(..) => {}
                address => fixed.push(Arc::new(pool.backend(address, address, server)?)),
            }
        }
        pool.set.store(Arc::new(Set::new(fixed)));
        Some(pool)
    }

    /// Starts resolving names and checking health, on a runtime that outlives the pool. What it starts ends with
    /// the pool. To start it again changes nothing.
    pub fn start(self: &Arc<Self>, background: &Background) {
        if self.started.swap(true, Ordering::Relaxed) {
            return;
        }
        let mut tasks = self.tasks.lock();
        if !self.config.servers.iter().any(|server| matches!(server.address, Address::Name(..))) {
            self.seen.set(&self.set.load().backends);
        } else {
            tasks.push(background.runtime.spawn(discover::run(Arc::downgrade(self))));
        }
        if let Some(health) = &self.config.health {
            let connectors = background.connectors.get_or_init(Arc::default).clone();
            tasks.push(background.runtime.spawn(health::run(Arc::downgrade(self), health.clone(), connectors)));
        }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name, to keep.
    pub fn shared_name(&self) -> Arc<str> {
        self.name.clone()
    }

    /// What the pool's hash is taken of in this request, if it has one.
    pub fn key(&self, request: &RequestHeader, client: IpAddr) -> Option<u64> {
        let BalanceConfig::Hash(source) = &self.config.balance else { return None };
        source.hash(request, client)
    }

    /// Takes a server for a request. `None` when none is usable.
    pub fn pick(self: &Arc<Self>, key: Option<u64>, tried: &Tried) -> Option<Pick> {
        let permit = match &self.breaker {
            None => None,
            Some((breaker, _)) => {
                let (admitted, changed) = breaker.admit(Instant::now());
                self.changed(changed);
                Some(admitted.ok()?)
            }
        };
        self.readmit();
        let Some(backend) = self.set.load().choose(&self.config.balance, key, tried) else {
            if let (Some((breaker, _)), Some(permit)) = (&self.breaker, permit) {
                breaker.forget(permit);
            }
            return None;
        };
        backend.begin();
        let judge = (self.outlier.is_some() || permit.is_some()).then(|| self.clone());
        Some(Pick { backend, judge, permit: Mutex::new(permit) })
    }

    /// Whether its breaker lets nothing through, so that another attempt would be in vain.
    pub fn is_broken(&self) -> bool {
        self.breaker.as_ref().is_some_and(|(breaker, _)| breaker.is_in_the_way(Instant::now()))
    }

    /// How its breaker is, if it has one.
    pub fn circuit(&self) -> Option<Circuit> {
        self.breaker.as_ref().map(|(breaker, _)| breaker.circuit(Instant::now()).0)
    }

    /// An attempt ended.
    fn judge(&self, backend: &Backend, permit: Option<Permit>, failed: bool) {
        if let Some(outlier) = &self.outlier {
            match failed {
                false => outlier.succeeded(backend.record()),
                true => {
                    let ejected = outlier.failed(backend.record(), &self.set.load().backends, Instant::now());
                    if let Some(time) = ejected {
                        backend.counts().own().ejected();
                        let (server, time) = (backend.name(), Timespan(time));
                        log::warn!(
                            "the server {server} of the upstream {} failed and is ejected for {time}",
                            self.name
                        );
                    }
                }
            }
        }
        if let (Some((breaker, _)), Some(permit)) = (&self.breaker, permit) {
            self.changed(breaker.ended(permit, failed, Instant::now()));
        }
    }

    /// Lets ejected servers come back whose time is over.
    fn readmit(&self) {
        let Some(outlier) = &self.outlier else { return };
        for server in outlier.readmit(&self.set.load().backends, Instant::now) {
            log::info!("the server {} of the upstream {} is no longer ejected", server.name(), self.name);
        }
    }

    fn changed(&self, circuit: Option<Circuit>) {
        let (Some(circuit), Some((_, counts))) = (circuit, &self.breaker) else { return };
        match circuit {
            Circuit::Open => {
                counts.opened();
                log::warn!("the breaker of the upstream {} is open: too many requests failed", self.name);
            }
            Circuit::HalfOpen => log::info!("the breaker of the upstream {} is half open", self.name),
            Circuit::Closed => log::info!("the breaker of the upstream {} is closed", self.name),
        }
    }

    /// The longest that things may take.
    pub fn timeouts(&self) -> Timeouts {
        let timeouts = &self.config.timeouts;
        Timeouts {
            connect: timeouts.connect.0,
            first_byte: timeouts.first_byte.0,
            idle: timeouts.idle.0,
            total: timeouts.total.map(Into::into),
        }
    }

    /// Whether its servers speak HTTP/1.1 without TLS, so that a [`Server`] can talk to them.
    pub fn is_plain_h1(&self) -> bool {
        self.config.protocol == config::Protocol::H1 && self.config.tls.is_none()
    }

    /// Whether its servers speak HTTP/2, which gRPC needs.
    pub fn is_http2(&self) -> bool {
        self.config.protocol != config::Protocol::H1
    }

    /// How long connections to its servers are kept.
    pub fn keepalive(&self) -> Duration {
        self.config.keepalive.idle.0
    }

    /// Which fields tell a server of the client.
    pub fn forwarded(&self) -> ForwardedStyle {
        self.config.forwarded
    }

    /// How many further tries a request has after the first, and after which failures.
    pub fn retry(&self) -> (u32, &Failures) {
        (self.config.retry.attempts, &self.config.retry.on)
    }

    /// How many retries there may be over all requests.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// When a server may be usable again.
    pub fn retry_after(&self) -> Duration {
        if let Some((breaker, _)) = &self.breaker
            && let (Circuit::Open | Circuit::HalfOpen, left) = breaker.circuit(Instant::now())
        {
            return left;
        }
        self.config.health.as_ref().map_or(Duration::from_secs(1), |health| health.interval.0)
    }

    /// How it chooses among its servers, in the word of the configuration.
    pub fn algorithm(&self) -> &'static str {
        match self.config.balance {
            BalanceConfig::RoundRobin => "round_robin",
            BalanceConfig::Random => "random",
            BalanceConfig::LeastRequest => "least_request",
            BalanceConfig::PeakEwma => "peak_ewma",
            BalanceConfig::Hash(_) => "hash",
        }
    }

    /// Its servers as the file has them.
    pub fn written(&self) -> impl Iterator<Item = String> {
        self.config.servers.iter().map(|server| server.address.to_string())
    }

    /// What its servers show of themselves.
    pub fn status(&self) -> Vec<Status> {
        self.readmit();
        self.set.load().backends.iter().map(|backend| backend.status()).collect()
    }

    /// Measures its servers.
    pub fn measure(&self) {
        self.readmit();
        if let (Some((_, counts)), Some(circuit)) = (&self.breaker, self.circuit()) {
            counts.measure(circuit as i64);
        }
        self.set.load().backends.iter().for_each(|backend| backend.measure());
    }

    /// Stops or resumes giving requests to a server, by its address or by what the file has for it; gives whether
    /// there is such a server.
    pub fn drain(&self, address: &str, drain: bool) -> bool {
        let Ok(address) = address.parse::<Address>() else { return false };
        let address = address.to_string();
        let set = self.set.load();
        let drained: Vec<_> = set.backends.iter().filter(|backend| backend.is_draining()).collect();
        let mut found = self.drains.set(&address, drain);
        for backend in set.backends.iter().filter(|backend| *backend.name() == *address) {
            backend.drain(drain);
            found = true;
        }
        drained.iter().filter(|backend| !backend.is_draining()).for_each(|backend| backend.warming().begin());
        found
    }

    fn backend(&self, shown: &Address, address: &Address, server: &config::ServerConfig) -> Option<Backend> {
        let peer = self.template.peer(address, &server.address)?;
        let health = if self.config.health.is_some() { Health::Unknown } else { Health::Healthy };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let target = self.is_plain_h1().then(|| h1::Target::of(address)).flatten();
        let draining = self.drains.of(&server.address, address);
        let counts = self.meter.server(&self.name, &shown.to_string());
        let backend = Backend::new(id, server.weight, shown, peer, health, counts).with_target(target);
        let warming = self.seen.warming(&backend.name(), self.config.slow_start);
        Some(backend.with_drain(&server.address, draining).with_warming(warming))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for task in self.tasks.get_mut() {
            task.abort();
        }
    }
}

impl Pick {
    /// The server.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }

    /// The server, to keep.
    pub fn shared(&self) -> Arc<Backend> {
        self.backend.clone()
    }

    /// Where to connect, and how.
    pub fn peer(&self) -> Box<HttpPeer> {
        Box::new(self.backend.peer().clone())
    }

    /// The head of an answer with this status came after this time.
    pub fn answered(&self, status: u16, latency: Duration) {
        self.backend.counts().own().answered(status);
        self.backend.observe(latency);
        self.judged(status >= 500);
    }

    /// Another attempt for the same request had failed before.
    pub fn retried(&self) {
        self.backend.counts().own().retried();
    }

    /// The attempt failed: for the algorithms that look at latency it counts as slow.
    pub fn failed(&self, failure: Failure) {
        let how = match failure {
            Failure::Connect => Some(Failed::Connect),
            Failure::ConnectTimeout => Some(Failed::ConnectTimeout),
            Failure::Reset => Some(Failed::Reset),
            Failure::Timeout => Some(Failed::Timeout),
            // Counted as the answer that it is.
            Failure::Status(_) => None,
        };
        if let Some(how) = how {
            self.backend.counts().own().failed(how);
            self.judged(true);
        }
        self.backend.observe(Duration::from_secs(1));
    }
}

impl Pick {
    fn judged(&self, failed: bool) {
        if let Some(pool) = &self.judge {
            let permit = self.permit.lock().take();
            pool.judge(&self.backend, permit, failed);
        }
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.backend.end();
        let breaker = self.judge.as_ref().and_then(|pool| pool.breaker.as_ref());
        if let (Some((breaker, _)), Some(permit)) = (breaker, self.permit.get_mut().take()) {
            breaker.forget(permit);
        }
    }
}

impl Tried {
    /// Adds a server.
    pub fn add(&mut self, pick: &Pick) {
        self.ids.push(pick.backend.id);
        self.any = true;
    }

    /// Forgets them all, so that they may be asked again.
    pub fn clear(&mut self) {
        self.ids.clear();
    }
}
