//! What is counted of traffic: of routes, of servers, of listeners, of stores. [`Meter`] hands blocks of numbers out while a
//! configuration is compiled, within the budget of `[metrics] max_series`:
//!
//! ```toml
//! [metrics]
//! max_series = 10000
//! ```
//!
//! What comes when the budget is used up is counted together, under the label value `other`. Who had a block keeps it
//! over a reload; what a reload removes frees its part of the budget once its last request is over, so what comes
//! with that same reload may find none left, and gets its own block with the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGaugeVec};

use super::cells::{Counts, Group, Histogram, OTHER, Shown, Words, add, read};
use super::{Metrics, Series};

/// The label value of requests that found no route.
const NONE: &str = "none";

/// The numbers of one route.
pub type RouteSeries = Series<Group<RouteCounts>, 1>;
/// The numbers of one server.
pub type ServerSeries = Series<Group<ServerCounts>, 2>;
/// The numbers of one listener.
pub type ListenerSeries = Series<Group<ListenerCounts>, 1>;
/// The numbers of one store.
pub type StoreSeries = Series<Group<StoreCounts>, 1>;

/// The numbers of one cache.
pub type CacheSeries = Series<Group<CacheCounts>, 1>;

/// Hands out blocks of numbers to what one configuration has.
#[derive(Clone)]
pub struct Meter {
    pub(super) metrics: Arc<Metrics>,
    pub(super) most: usize,
}

impl Meter {
    /// A meter that hands out blocks while all together have at most `most` series.
    pub fn new(metrics: Arc<Metrics>, most: usize) -> Self {
        Self { metrics, most }
    }

    /// For a route.
    pub fn route(&self, name: &str) -> RouteSeries {
        self.metrics.routes.within(self.most, [name], [OTHER])
    }

    /// For a cache.
    pub fn cache(&self, name: &str) -> CacheSeries {
        self.metrics.caches.within(self.most, [name], [OTHER])
    }

    /// For all requests that find no route.
    pub fn no_route(&self) -> RouteSeries {
        self.metrics.routes.series([NONE])
    }

    /// For a server of an upstream.
    pub fn server(&self, upstream: &str, server: &str) -> ServerSeries {
        self.metrics.servers.within(self.most, [upstream, server], [OTHER; 2])
    }

    /// For the breaker of an upstream.
    pub fn breaker(&self, upstream: &str) -> BreakerSeries {
        BreakerSeries {
            state: self.metrics.breaker_state.series([upstream]),
            opened: self.metrics.breaker_opened.series([upstream]),
        }
    }

    /// For the copies of requests that an upstream gets.
    pub fn mirror(&self, upstream: &str) -> MirrorSeries {
        MirrorSeries(RESULTS.map(|result| self.metrics.mirrored.series([upstream, result])))
    }

    /// For a listener.
    pub fn listener(&self, name: &str) -> ListenerSeries {
        self.metrics.listeners.within(self.most, [name], [OTHER])
    }

    /// For a store.
    pub fn store(&self, name: &str) -> StoreSeries {
        self.metrics.stores.within(self.most, [name], [OTHER])
    }

    /// What answered instead of an upstream.
    pub fn stopped(&self) -> Arc<Words> {
        self.metrics.stopped.clone()
    }
}

/// The numbers of the copies of requests that one upstream gets.
pub struct MirrorSeries([Series<IntCounterVec, 2>; 4]);

/// What became of a copy.
#[derive(Clone, Copy)]
pub enum Mirrored {
    /// It was answered, whatever the status.
    Answered,
    /// It was not.
    Failed,
    /// It was not sent, for too many were under way.
    Dropped,
    /// It was not made, for the request is none that can be copied, or was not whole.
    Skipped,
}

/// The label values of [`Mirrored`].
const RESULTS: [&str; 4] = ["answered", "failed", "dropped", "skipped"];

impl MirrorSeries {
    /// A copy has come to its end.
    pub fn count(&self, result: Mirrored) {
        self.0[result as usize].inc();
    }
}

/// The numbers of one breaker.
pub struct BreakerSeries {
    state: Series<IntGaugeVec, 1>,
    opened: Series<IntCounterVec, 1>,
}

impl BreakerSeries {
    /// It opened.
    pub fn opened(&self) {
        self.opened.inc();
    }

    /// How it is at this moment.
    pub fn measure(&self, state: i64) {
        self.state.set(state);
    }
}

impl Default for Meter {
    /// A meter of its own, for what nobody looks at.
    fn default() -> Self {
        Self::new(Arc::default(), usize::MAX)
    }
}

/// The classes of statuses, and requests whose client left before it was answered.
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];
/// How an attempt can fail before it has an answer.
const FAILURES: [&str; 4] = ["connect", "connect_timeout", "reset", "timeout"];
/// Why a connection is not served.
const TURNED_AWAY: [&str; 2] = ["limit", "proxy_protocol"];
/// How a TLS handshake ends that does not succeed.
const HANDSHAKES: [&str; 2] = ["failed", "timeout"];
/// What a call of a store comes to.
const CALLED: [&str; 5] = ["answered", "late", "failed", "busy", "spared"];
/// The upper bounds of times of a store, in microseconds.
const CALL: [u64; 12] = [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 500_000, 2_500_000];
/// The upper bounds of times to an answer, in microseconds.
pub(super) const ANSWER: [u64; 12] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];
/// The upper bounds of the gateway's own times, in microseconds.
const OWN: [u64; 8] = [50, 100, 250, 500, 1_000, 5_000, 25_000, 250_000];

/// What is counted of a route.
#[derive(Default)]
pub struct RouteCounts {
    begun: AtomicU64,
    ended: [AtomicU64; 6],
    duration: Histogram<13>,
    upstream: Histogram<13>,
    gateway: Histogram<9>,
}

impl RouteCounts {
    /// A request begins, and will end.
    pub fn begin(&self) {
        add(&self.begun, 1);
    }

    /// A request ended with this status, if its client was there for one. `first_byte` is the time from the last
    /// attempt's start to its answer, `own` the time before the first attempt or to the gateway's own answer.
    pub fn end(&self, status: Option<u16>, total: Duration, first_byte: Option<Duration>, own: Duration) {
        add(&self.ended[class(status)], 1);
        self.duration.observe(&ANSWER, total);
        if let Some(first_byte) = first_byte {
            self.upstream.observe(&ANSWER, first_byte);
        }
        self.gateway.observe(&OWN, own);
    }
}

impl Counts for RouteCounts {
    const SERIES: usize = 1 + 6 + (12 + 3) + (12 + 3) + (8 + 3);
    const LABELS: &[&str] = &["route"];
    const SHOWN: &[Shown<Self>] = &[
        Shown::Counters {
            name: "requests_total",
            help: "Requests that ended, by the class of their status; none where the client left without an answer.",
            label: "class",
            values: &CLASSES,
            of: |counts| &counts.ended,
        },
        Shown::Gauge {
            name: "requests_active",
            help: "Requests under way.",
            of: |counts| {
                // In this order, or a request that comes and goes meanwhile would count as less than none.
                let ended: u64 = counts.ended.iter().map(read).sum();
                read(&counts.begun).wrapping_sub(ended) as i64
            },
        },
        Shown::Histogram {
            name: "request_duration_seconds",
            help: "From a request's head to the end of its answer.",
            bounds: &ANSWER,
            of: |counts| counts.duration.parts(),
        },
        Shown::Histogram {
            name: "request_upstream_seconds",
            help: "From the start of the last attempt at a server to the head of its answer.",
            bounds: &ANSWER,
            of: |counts| counts.upstream.parts(),
        },
        Shown::Histogram {
            name: "request_gateway_seconds",
            help: "From a request's head to the first attempt at a server, or to the end of the gateway's own answer.",
            bounds: &OWN,
            of: |counts| counts.gateway.parts(),
        },
    ];
}

/// What is counted of a server.
#[derive(Default)]
pub struct ServerCounts {
    answers: [AtomicU64; 6],
    failures: [AtomicU64; 4],
    retries: AtomicU64,
    healthy: AtomicI64,
    draining: AtomicI64,
    ejected: AtomicI64,
    ejections: AtomicU64,
    active: AtomicI64,
}

/// How an attempt failed, as it is counted.
#[derive(Clone, Copy)]
pub enum Failed {
    /// No connection.
    Connect,
    /// No connection in time.
    ConnectTimeout,
    /// The connection broke.
    Reset,
    /// No answer in time.
    Timeout,
}

impl ServerCounts {
    /// An answer with this status began.
    pub fn answered(&self, status: u16) {
        add(&self.answers[class(Some(status))], 1);
    }

    /// An attempt failed.
    pub fn failed(&self, how: Failed) {
        add(&self.failures[how as usize], 1);
    }

    /// The server gets no requests for a while.
    pub fn ejected(&self) {
        add(&self.ejections, 1);
    }

    /// The server was asked after another attempt had failed.
    pub fn retried(&self) {
        add(&self.retries, 1);
    }
}

impl ServerSeries {
    /// How the server is at this moment.
    pub fn measure(&self, healthy: bool, draining: bool, ejected: bool, active: usize) {
        // In one place only: what is shown is the sum.
        let counts = self.first();
        counts.healthy.store(healthy.into(), Ordering::Relaxed);
        counts.draining.store(draining.into(), Ordering::Relaxed);
        counts.ejected.store(ejected.into(), Ordering::Relaxed);
        counts.active.store(active.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl Counts for ServerCounts {
    const SERIES: usize = 5 + 4 + 1 + 1 + 4;
    const LABELS: &[&str] = &["upstream", "server"];
    const SHOWN: &[Shown<Self>] = &[
        Shown::Counters {
            name: "upstream_answers_total",
            help: "Answers of a server, by the class of their status; those that were tried again are among them.",
            label: "class",
            values: CLASSES.split_at(5).0,
            of: |counts| &counts.answers,
        },
        Shown::Counters {
            name: "upstream_failures_total",
            help: "Attempts at a server that ended without an answer.",
            label: "reason",
            values: &FAILURES,
            of: |counts| &counts.failures,
        },
        Shown::Counters {
            name: "upstream_retries_total",
            help: "Attempts at a server after another attempt for the same request.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.retries),
        },
        Shown::Gauge {
            name: "upstream_server_healthy",
            help: "1 if a server is known to be healthy, or is not checked.",
            of: |counts| counts.healthy.load(Ordering::Relaxed),
        },
        Shown::Gauge {
            name: "upstream_server_draining",
            help: "1 if a server gets no new requests.",
            of: |counts| counts.draining.load(Ordering::Relaxed),
        },
        Shown::Counters {
            name: "upstream_ejections_total",
            help: "How often a server was ejected since it failed.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.ejections),
        },
        Shown::Gauge {
            name: "upstream_server_ejected",
            help: "1 if a server gets no requests for a while, since it failed.",
            of: |counts| counts.ejected.load(Ordering::Relaxed),
        },
        Shown::Gauge {
            name: "upstream_server_active",
            help: "Requests that a server is at work on.",
            of: |counts| counts.active.load(Ordering::Relaxed),
        },
    ];
}

/// What is counted of a store.
#[derive(Default)]
pub struct StoreCounts {
    calls: [AtomicU64; 5],
    answered: Histogram<13>,
    up: AtomicI64,
    falls: AtomicU64,
}

/// What a call of a store came to.
#[derive(Clone, Copy)]
pub enum Called {
    /// It was answered, in so much time.
    Answered(Duration),
    /// There was no answer in time.
    Late,
    /// There was no answer.
    Failed,
    /// It was not made: too many are under way.
    Busy,
    /// It was not made: the store is down.
    Spared,
}

impl StoreCounts {
    /// A call ended.
    pub fn called(&self, how: Called) {
        if let Called::Answered(time) = how {
            self.answered.observe(&CALL, time);
        }
        let position = match how {
            Called::Answered(_) => 0,
            Called::Late => 1,
            Called::Failed => 2,
            Called::Busy => 3,
            Called::Spared => 4,
        };
        add(&self.calls[position], 1);
    }
}

impl StoreSeries {
    /// The store is up from now on, or down.
    pub fn is_up(&self, up: bool) {
        // In one place only: what is shown is the sum.
        let counts = self.first();
        if counts.up.swap(up.into(), Ordering::Relaxed) != 0 && !up {
            add(&counts.falls, 1);
        }
    }
}

impl Counts for StoreCounts {
    const SERIES: usize = 5 + (12 + 3) + 1 + 1;
    const LABELS: &[&str] = &["store"];
    const SHOWN: &[Shown<Self>] = &[
        Shown::Counters {
            name: "store_calls_total",
            help: "Calls of a store, by what they came to; spared are those that were not made since it is down.",
            label: "result",
            values: &CALLED,
            of: |counts| &counts.calls,
        },
        Shown::Histogram {
            name: "store_call_duration_seconds",
            help: "How long a store took to answer.",
            bounds: &CALL,
            of: |counts| counts.answered.parts(),
        },
        Shown::Gauge {
            name: "store_up",
            help: "1 if a store is asked, 0 while it is down.",
            of: |counts| counts.up.load(Ordering::Relaxed),
        },
        Shown::Counters {
            name: "store_falls_total",
            help: "How often a store went down.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.falls),
        },
    ];
}

/// What is counted of a listener.
#[derive(Default)]
pub struct ListenerCounts {
    accepted: AtomicU64,
    closed: AtomicU64,
    turned_away: [AtomicU64; 2],
    handshakes: [AtomicU64; 2],
}

/// Why a connection came to nothing.
#[derive(Clone, Copy)]
pub enum Rejected {
    /// The listener has all that it may have.
    Limit,
    /// Its PROXY header is missing, wrong, late, or from a stranger.
    ProxyProtocol,
    /// The TLS handshake failed.
    Handshake,
    /// The TLS handshake took too long.
    HandshakeTimeout,
}

impl ListenerCounts {
    /// A connection was accepted, and will be closed.
    pub fn accepted(&self) {
        add(&self.accepted, 1);
    }

    /// A connection was closed.
    pub fn closed(&self) {
        add(&self.closed, 1);
    }

    /// A connection came to nothing.
    pub fn rejected(&self, why: Rejected) {
        add(
            match why {
                Rejected::Limit => &self.turned_away[0],
                Rejected::ProxyProtocol => &self.turned_away[1],
                Rejected::Handshake => &self.handshakes[0],
                Rejected::HandshakeTimeout => &self.handshakes[1],
            },
            1,
        );
    }
}

impl Counts for ListenerCounts {
    const SERIES: usize = 1 + 1 + 2 + 2;
    const LABELS: &[&str] = &["listener"];
    const SHOWN: &[Shown<Self>] = &[
        Shown::Gauge {
            name: "connections_open",
            help: "Connections that are open.",
            of: |counts| {
                let closed = read(&counts.closed);
                read(&counts.accepted).wrapping_sub(closed) as i64
            },
        },
        Shown::Counters {
            name: "connections_accepted_total",
            help: "Connections that were accepted.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.accepted),
        },
        Shown::Counters {
            name: "connections_refused_total",
            help: "Connections that were accepted and not served.",
            label: "reason",
            values: &TURNED_AWAY,
            of: |counts| &counts.turned_away,
        },
        Shown::Counters {
            name: "tls_handshake_failures_total",
            help: "TLS handshakes that did not succeed.",
            label: "reason",
            values: &HANDSHAKES,
            of: |counts| &counts.handshakes,
        },
    ];
}

/// What is counted of a cache.
#[derive(Default)]
pub struct CacheCounts {
    requests: [AtomicU64; 5],
    evicted: AtomicU64,
    purged: AtomicU64,
    entries: AtomicI64,
    bytes: AtomicI64,
}

/// What a cache had to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cached {
    /// It had a fresh one.
    Hit,
    /// It had a stale one, and that was good enough.
    Stale,
    /// It had one of which the upstream said that it still holds.
    Revalidated,
    /// It had none, and the upstream was asked for one.
    Miss,
    /// It was not asked, or had no use for the answer.
    Bypass,
}

const CACHED: [&str; 5] = ["hit", "stale", "revalidated", "miss", "bypass"];

impl Cached {
    /// In a word, for logs.
    pub fn word(self) -> &'static str {
        CACHED[self as usize]
    }
}

impl CacheCounts {
    /// A request was answered.
    pub fn answered(&self, how: Cached) {
        add(&self.requests[how as usize], 1);
    }

    /// An answer went for others, or was not worth storing.
    pub fn evicted(&self) {
        add(&self.evicted, 1);
    }

    /// So many answers were removed because they may be wrong.
    pub fn purged(&self, n: u64) {
        add(&self.purged, n);
    }
}

impl CacheSeries {
    /// How much there is at this moment.
    pub fn measure(&self, entries: u64, bytes: u64) {
        // In one place only: what is shown is the sum.
        let counts = self.first();
        counts.entries.store(entries.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
        counts.bytes.store(bytes.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl Counts for CacheCounts {
    const SERIES: usize = 5 + 1 + 1 + 2;
    const LABELS: &[&str] = &["cache"];
    const SHOWN: &[Shown<Self>] = &[
        Shown::Counters {
            name: "cache_requests_total",
            help: "Requests of routes with a cache, by what it had to do with their answers.",
            label: "status",
            values: &CACHED,
            of: |counts| &counts.requests,
        },
        Shown::Counters {
            name: "cache_evictions_total",
            help: "Answers that went for others, or were not worth storing.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.evicted),
        },
        Shown::Counters {
            name: "cache_purged_total",
            help: "Answers that were purged, or outdated by a change.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.purged),
        },
        Shown::Gauge {
            name: "cache_entries",
            help: "Answers that are stored.",
            of: |counts| counts.entries.load(Ordering::Relaxed),
        },
        Shown::Gauge {
            name: "cache_bytes",
            help: "Bytes that the stored answers take, with all that they need.",
            of: |counts| counts.bytes.load(Ordering::Relaxed),
        },
    ];
}

/// The position of a status among the classes.
fn class(status: Option<u16>) -> usize {
    match status {
        Some(status @ 100..=599) => usize::from(status / 100 - 1),
        Some(_) => 4,
        None => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(metrics: &Metrics, line: &str) -> bool {
        metrics.render().lines().any(|other| other == line)
    }

    #[test]
    fn what_threads_count_apart_is_shown_as_one() {
        let metrics = Arc::new(Metrics::new());
        let route = Meter::new(metrics.clone(), 1000).route("a \"b\"");
        let ms = Duration::from_millis;
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        route.own().begin();
                        route.own().end(Some(204), ms(3), Some(ms(2)), Duration::from_micros(60));
                    }
                });
            }
        });
        route.own().begin();
        let label = "route=\"a \\\"b\\\"\"";
        for (name, value) in [
            (format!("requests_total{{{label},class=\"2xx\"}}"), "400"),
            (format!("requests_total{{{label},class=\"none\"}}"), "0"),
            (format!("requests_active{{{label}}}"), "1"),
            (format!("request_duration_seconds_bucket{{{label},le=\"0.0025\"}}"), "0"),
            (format!("request_duration_seconds_bucket{{{label},le=\"0.005\"}}"), "400"),
            (format!("request_duration_seconds_bucket{{{label},le=\"+Inf\"}}"), "400"),
            (format!("request_duration_seconds_sum{{{label}}}"), "1.2"),
            (format!("request_upstream_seconds_count{{{label}}}"), "400"),
            (format!("request_gateway_seconds_bucket{{{label},le=\"0.00005\"}}"), "0"),
            (format!("request_gateway_seconds_bucket{{{label},le=\"0.0001\"}}"), "400"),
        ] {
            assert!(has(&metrics, &format!("portcullis_{name} {value}")), "{name}\n{}", metrics.render());
        }
    }

    #[test]
    fn what_is_beyond_the_budget_is_counted_together() {
        let metrics = Arc::new(Metrics::new());
        let meter = Meter::new(metrics.clone(), 2 * RouteCounts::SERIES);
        let routes: Vec<RouteSeries> = ["a", "b", "c", "d"].map(|name| meter.route(name)).into();
        routes.iter().for_each(|route| route.own().end(None, Duration::ZERO, None, Duration::ZERO));
        let count = |route: &str, n: u32| {
            has(&metrics, &format!("portcullis_requests_total{{route=\"{route}\",class=\"none\"}} {n}"))
        };
        assert!(count("a", 1) && count("b", 1) && count("other", 2), "{}", metrics.render());
        assert!(!metrics.render().contains("requests_active{route=\"other\"}"));
        // Who has a block keeps it; what is gone leaves room.
        let again = meter.route("b");
        drop(routes);
        again.own().end(None, Duration::ZERO, None, Duration::ZERO);
        let _c = meter.route("c");
        assert!(count("b", 2) && count("c", 0) && !metrics.render().contains("\"other\""));
    }
}
