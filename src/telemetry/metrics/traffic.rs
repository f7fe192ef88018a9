//! What traffic is counted with: numbers that every thread adds to in memory of its own, so that counting a request
//! never waits for another worker, and that are added up when somebody asks for them.
//!
//! A [`Group`] has one block of numbers for each set of labels: a route's, a server's, a listener's. [`Meter`] hands
//! blocks out while a configuration is compiled, within the budget of `[metrics] max_series`:
//!
//! ```toml
//! [metrics]
//! max_series = 10000
//! ```
//!
//! What comes when the budget is used up is counted together, under the label value `other`. Who had a block keeps it
//! over a reload; what a reload removes frees its part of the budget once its last request is over, so what comes
//! with that same reload may find none left, and gets its own block with the next.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{IntCounterVec, IntGaugeVec};

use super::{Family, Metrics, Series, Vector};

/// The label value of what found no room in the budget.
const OTHER: &str = "other";
/// The label value of requests that found no route.
const NONE: &str = "none";

/// The numbers of one route.
pub type RouteSeries = Series<Group<RouteCounts>, 1>;
/// The numbers of one server.
pub type ServerSeries = Series<Group<ServerCounts>, 2>;
/// The numbers of one listener.
pub type ListenerSeries = Series<Group<ListenerCounts>, 1>;

/// Hands out blocks of numbers to what one configuration has.
#[derive(Clone)]
pub struct Meter {
    metrics: Arc<Metrics>,
    most: usize,
}

impl Meter {
    /// A meter that hands out blocks while all together have at most `most` series.
    pub fn new(metrics: Arc<Metrics>, most: usize) -> Self {
        Self { metrics, most }
    }

    /// For a route.
    pub fn route(&self, name: &str) -> RouteSeries {
        self.metrics.routes.within(self.most, [name])
    }

    /// For all requests that find no route.
    pub fn no_route(&self) -> RouteSeries {
        self.metrics.routes.series([NONE])
    }

    /// For a server of an upstream.
    pub fn server(&self, upstream: &str, server: &str) -> ServerSeries {
        self.metrics.servers.within(self.most, [upstream, server])
    }

    /// For the breaker of an upstream.
    pub fn breaker(&self, upstream: &str) -> BreakerSeries {
        BreakerSeries {
            state: self.metrics.breaker_state.series([upstream]),
            opened: self.metrics.breaker_opened.series([upstream]),
        }
    }

    /// For a listener.
    pub fn listener(&self, name: &str) -> ListenerSeries {
        self.metrics.listeners.within(self.most, [name])
    }

    /// What answered instead of an upstream.
    pub fn stopped(&self) -> Arc<Words> {
        self.metrics.stopped.clone()
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
/// The upper bounds of times to an answer, in microseconds.
const ANSWER: [u64; 12] =
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

/// What is counted together.
pub trait Counts: Default + Send + Sync + 'static {
    /// How many series one block has at most.
    const SERIES: usize;
    /// The labels that tell blocks apart.
    const LABELS: &'static [&'static str];
    /// What is shown of a block.
    const SHOWN: &'static [Shown<Self>];
}

/// A metric made of blocks.
pub enum Shown<T: 'static> {
    /// Counters, told apart by one more label unless that is empty.
    Counters {
        /// Its name, without the gateway's.
        name: &'static str,
        /// What it means.
        help: &'static str,
        /// What tells the counters apart.
        label: &'static str,
        /// The values of that label.
        values: &'static [&'static str],
        /// The counters.
        of: fn(&T) -> &[AtomicU64],
    },
    /// What goes up and down; not shown of what is counted together.
    Gauge {
        /// Its name, without the gateway's.
        name: &'static str,
        /// What it means.
        help: &'static str,
        /// Its share in one thread's numbers.
        of: fn(&T) -> i64,
    },
    /// Times; not shown while there are none.
    Histogram {
        /// Its name, without the gateway's.
        name: &'static str,
        /// What it means.
        help: &'static str,
        /// The upper bounds, in microseconds.
        bounds: &'static [u64],
        /// How many are within each bound and in none, and their sum in nanoseconds.
        of: fn(&T) -> (&[AtomicU64], &AtomicU64),
    },
}

/// The blocks of one kind.
pub struct Group<T> {
    blocks: Mutex<BTreeMap<Vec<String>, Arc<Cells<T>>>>,
    /// The series of all groups.
    series: Arc<AtomicUsize>,
}

/// One block, once for every thread that adds to it.
pub struct Cells<T>(Box<[Apart<T>]>);

/// On cache lines of its own; processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T: Counts> Group<T> {
    pub(super) fn new(series: Arc<AtomicUsize>) -> Self {
        Self { blocks: Mutex::default(), series }
    }

    /// Writes all of it in the text format.
    pub(super) fn write(&self, text: &mut String) {
        let blocks: Vec<_> = self.blocks.lock().iter().map(|(labels, cells)| (labels.clone(), cells.clone())).collect();
        for shown in T::SHOWN {
            let (name, help, kind) = match shown {
                Shown::Counters { name, help, .. } => (name, help, "counter"),
                Shown::Gauge { name, help, .. } => (name, help, "gauge"),
                Shown::Histogram { name, help, .. } => (name, help, "histogram"),
            };
            header(text, name, help, kind);
            for (values, cells) in &blocks {
                let mut labels = String::new();
                for (label, value) in T::LABELS.iter().zip(values) {
                    push_label(&mut labels, label, value);
                }
                let together = values.iter().all(|value| value == OTHER);
                cells.write(shown, &labels, together, text);
            }
        }
    }

    /// Whether one more block is within the budget.
    fn fits(&self, most: usize) -> bool {
        self.series.load(Ordering::Relaxed).saturating_add(T::SERIES) <= most
    }
}

impl<T: Counts> Vector for Group<T> {
    type Metric = Arc<Cells<T>>;

    fn metric(&self, labels: &[&str]) -> Arc<Cells<T>> {
        let mut blocks = self.blocks.lock();
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let make = || {
            self.series.fetch_add(T::SERIES, Ordering::Relaxed);
            Arc::default()
        };
        blocks.entry(labels).or_insert_with(make).clone()
    }

    fn forget(&self, labels: &[Box<str>]) {
        let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
        if self.blocks.lock().remove(&labels).is_some() {
            self.series.fetch_sub(T::SERIES, Ordering::Relaxed);
        }
    }
}

impl<T: Counts, const LABELS: usize> Family<Group<T>, LABELS> {
    /// The block of these labels, or of all that found no room within the budget.
    fn within(&self, most: usize, labels: [&str; LABELS]) -> Series<Group<T>, LABELS> {
        match self.is_held(labels) || self.vector().fits(most) {
            true => self.series(labels),
            false => self.series([OTHER; LABELS]),
        }
    }
}

impl<T> Cells<T> {
    /// This thread's numbers.
    pub fn own(&self) -> &T {
        &self.0[thread() % self.0.len()].0
    }

    fn first(&self) -> &T {
        &self.0[0].0
    }

    fn each(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Apart(counts)| counts)
    }

    fn write(&self, shown: &Shown<T>, labels: &str, together: bool, text: &mut String) {
        match shown {
            Shown::Counters { name, label, values, of, .. } => {
                for (i, value) in values.iter().enumerate() {
                    let sum: u64 = self.each().map(|counts| read(&of(counts)[i])).sum();
                    let mut labels = labels.to_owned();
                    if !label.is_empty() {
                        push_label(&mut labels, label, value);
                    }
                    line(text, name, &labels, sum);
                }
            }
            Shown::Gauge { .. } if together => {}
            Shown::Gauge { name, of, .. } => line(text, name, labels, self.each().map(of).sum::<i64>()),
            Shown::Histogram { name, bounds, of, .. } => {
                let sums = |i| self.each().map(|counts| read(&of(counts).0[i])).sum::<u64>();
                let counts: Vec<u64> = (0..=bounds.len()).map(sums).collect();
                let nanos: u64 = self.each().map(|counts| read(of(counts).1)).sum();
                let total: u64 = counts.iter().sum();
                if total == 0 {
                    return;
                }
                let mut below = 0;
                for (i, count) in counts.iter().enumerate() {
                    below += count;
                    let bound = bounds.get(i).map_or("+Inf".to_owned(), |bound| (*bound as f64 / 1e6).to_string());
                    let mut labels = labels.to_owned();
                    push_label(&mut labels, "le", &bound);
                    line(text, &format!("{name}_bucket"), &labels, below);
                }
                line(text, &format!("{name}_sum"), labels, nanos as f64 / 1e9);
                line(text, &format!("{name}_count"), labels, total);
            }
        }
    }
}

impl<T: Default> Default for Cells<T> {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        Self((0..threads).map(|_| Apart::default()).collect())
    }
}

/// Threads beyond share with others.
const MOST_THREADS: usize = 64;

/// Counts by a word that the code has, each of them found when it is first said.
pub struct Words {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    words: [OnceLock<&'static str>; MOST_WORDS],
    counts: Cells<[AtomicU64; MOST_WORDS + 1]>,
}

const MOST_WORDS: usize = 64;

impl Words {
    pub(super) fn new(name: &'static str, help: &'static str, label: &'static str) -> Self {
        let cells = (0..Cells::<u8>::default().0.len()).map(|_| Apart(std::array::from_fn(|_| AtomicU64::new(0))));
        Self { name, help, label, words: [const { OnceLock::new() }; MOST_WORDS], counts: Cells(cells.collect()) }
    }

    /// Counts a word once more.
    pub fn count(&self, word: &'static str) {
        // A free place may be taken by another thread, with this word or another.
        let is_word = |slot: &OnceLock<&'static str>| *slot.get_or_init(|| word) == word;
        let position = self.words.iter().position(is_word).unwrap_or(MOST_WORDS);
        add(&self.counts.own()[position], 1);
    }

    pub(super) fn write(&self, text: &mut String) {
        header(text, self.name, self.help, "counter");
        let words = self.words.iter().map_while(|slot| slot.get().copied()).enumerate();
        for (i, word) in words.chain([(MOST_WORDS, OTHER)]) {
            let sum: u64 = self.counts.each().map(|counts| read(&counts[i])).sum();
            if sum > 0 {
                let mut labels = String::new();
                push_label(&mut labels, self.label, word);
                line(text, self.name, &labels, sum);
            }
        }
    }
}

/// Times, by upper bounds; the last part is beyond all of them.
struct Histogram<const PARTS: usize> {
    counts: [AtomicU64; PARTS],
    nanos: AtomicU64,
}

impl<const PARTS: usize> Histogram<PARTS> {
    fn observe(&self, bounds: &[u64], time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let position = bounds.iter().position(|bound| nanos <= bound * 1_000).unwrap_or(PARTS - 1);
        add(&self.counts[position], 1);
        add(&self.nanos, nanos);
    }

    fn parts(&self) -> (&[AtomicU64], &AtomicU64) {
        (&self.counts, &self.nanos)
    }
}

impl<const PARTS: usize> Default for Histogram<PARTS> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), nanos: AtomicU64::new(0) }
    }
}

/// The number of this thread among those that count.
fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| match own.get() {
        usize::MAX => {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed));
            own.get()
        }
        number => number,
    })
}

/// The position of a status among the classes.
fn class(status: Option<u16>) -> usize {
    match status {
        Some(status @ 100..=599) => usize::from(status / 100 - 1),
        Some(_) => 4,
        None => 5,
    }
}

fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP portcullis_{name} {help}\n# TYPE portcullis_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "portcullis_{name}{{{labels}}} {value}");
}

fn push_label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    let _ = write!(labels, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            c => labels.push(c),
        }
    }
    labels.push('"');
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

    #[test]
    fn words_are_found_when_they_are_said() {
        let words = Words::new("x_total", "X.", "by");
        std::thread::scope(|scope| {
            for order in [["a", "b"], ["b", "a"]] {
                let words = &words;
                scope.spawn(move || (0..100).for_each(|i| words.count(order[i % 2])));
            }
        });
        let mut text = String::new();
        words.write(&mut text);
        assert!(text.contains("{by=\"a\"} 100\n") && text.contains("{by=\"b\"} 100\n"), "{text}");
    }
}
