//! What the gateway counts and measures of itself, in the text format of Prometheus: `GET /metrics` at the admin
//! interface.
//!
//! [`Metrics`] lives as long as the process and is the list of what there is. A metric without labels is a field of
//! it. One with labels is a [`Family`], and whoever has something to say takes a [`Series`] of it when it is compiled
//! or started: at run time nothing is looked up by name, and a series is gone with the last who held it, so that what
//! is no longer in the configuration is no longer shown.
//!
//! ```
//! # use portcullis::telemetry::metrics::Metrics;
//! let metrics = Metrics::new();
//! let series = metrics.certificate_expiry.series(["public", "api.example.com"]);
//! series.set(1_893_456_000);
//! assert!(metrics.render().contains("{certificate=\"api.example.com\",listener=\"public\"} 1893456000"));
//! drop(series);
//! assert!(!metrics.render().contains("api.example.com"));
//! ```
//!
//! A label takes values of the configuration, never of a request; save that APIs are counted by who asks, up to a number
//! ([`apis`]). What traffic is counted with is in [`traffic`] and
//! [`policies`].

pub mod apis;
mod cells;
pub mod policies;
mod process;
pub mod traffic;

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use apis::ApiCounts;
use cells::Group;
use policies::{AuthCounts, PolicyCounts, WaitCounts};
use traffic::{CacheCounts, ListenerCounts, RouteCounts, ServerCounts, StoreCounts};

pub use cells::{Words, thread};

/// Everything that is counted and measured.
pub struct Metrics {
    registry: Registry,
    _build: Series<IntGaugeVec, 1>,
    /// What is loaded, and what became of the last attempt to load it again.
    pub config: ConfigMetrics,
    /// When a certificate expires, by listener and certificate.
    pub certificate_expiry: Family<IntGaugeVec, 2>,
    /// How often a certificate was asked for by ACME, by certificate and result.
    pub certificate_renewals: Family<IntCounterVec, 2>,
    /// Lines that the access log could not take.
    pub access_log_dropped: IntCounter,
    /// Traces that no collector took.
    pub traces_dropped: IntCounter,
    /// What answered instead of an upstream: a policy, or the kind of problem.
    pub stopped: Arc<Words>,
    /// Why requests were refused before they were read as a whole.
    pub refused: Words,
    breaker_state: Family<IntGaugeVec, 1>,
    breaker_opened: Family<IntCounterVec, 1>,
    mirrored: Family<IntCounterVec, 2>,
    routes: Family<Group<RouteCounts>, 1>,
    policies: Family<Group<PolicyCounts>, 2>,
    waits: Family<Group<WaitCounts>, 1>,
    auth: Family<Group<AuthCounts>, 1>,
    servers: Family<Group<ServerCounts>, 2>,
    listeners: Family<Group<ListenerCounts>, 1>,
    caches: Family<Group<CacheCounts>, 1>,
    stores: Family<Group<StoreCounts>, 1>,
    apis: Family<Group<ApiCounts>, 3>,
}

/// What is loaded, and what became of the last attempt to load it again.
pub struct ConfigMetrics {
    generation: IntGauge,
    successful: IntGauge,
    succeeded_at: IntGauge,
}

impl Metrics {
    /// All of them, with nothing counted yet.
    pub fn new() -> Self {
        let registry = Registry::new();
        let add = Add(&registry);
        let build = add.family(
            IntGaugeVec::new,
            "build_info",
            "Always 1; the version of the gateway is in the label.",
            ["version"],
        );
        let build = build.series([env!("CARGO_PKG_VERSION")]);
        build.set(1);
        let series = Arc::new(AtomicUsize::new(0));
        Self {
            _build: build,
            config: ConfigMetrics {
                generation: add.gauge("config_generation", "Configurations that were loaded since the start."),
                successful: add
                    .gauge("config_last_reload_successful", "Whether the configuration was accepted when last loaded."),
                succeeded_at: add.gauge(
                    "config_last_reload_success_timestamp_seconds",
                    "When a configuration was last accepted, in seconds since 1970.",
                ),
            },
            certificate_expiry: add.family(
                IntGaugeVec::new,
                "certificate_expiry_timestamp_seconds",
                "When a listener's certificate expires, in seconds since 1970.",
                ["listener", "certificate"],
            ),
            certificate_renewals: add.family(
                IntCounterVec::new,
                "certificate_renewals_total",
                "Attempts to obtain a certificate by ACME.",
                ["certificate", "result"],
            ),
            access_log_dropped: add.counter("access_log_dropped_total", "Lines that the access log could not take."),
            traces_dropped: add.counter("traces_dropped_total", "Traces that no collector took."),
            breaker_state: add.family(
                IntGaugeVec::new,
                "upstream_breaker_state",
                "How an upstream's breaker is: 0 closed, 1 half open, 2 open.",
                ["upstream"],
            ),
            breaker_opened: add.family(
                IntCounterVec::new,
                "upstream_breaker_opened_total",
                "How often an upstream's breaker opened.",
                ["upstream"],
            ),
            mirrored: add.family(
                IntCounterVec::new,
                "mirrored_total",
                "Copies of requests for an upstream, by what became of them.",
                ["upstream", "result"],
            ),
            stopped: Arc::new(Words::new(
                "stopped_total",
                "Requests that the gateway answered itself, by the policy or the kind of problem that did.",
                "by",
            )),
            refused: Words::new(
                "requests_refused_total",
                "Requests whose head was refused before there was a route for them.",
                "reason",
            ),
            routes: Family::new(Group::new(series.clone())),
            policies: Family::new(Group::new(series.clone())),
            waits: Family::new(Group::new(series.clone())),
            auth: Family::new(Group::new(series.clone())),
            servers: Family::new(Group::new(series.clone())),
            listeners: Family::new(Group::new(series.clone())),
            caches: Family::new(Group::new(series.clone())),
            stores: Family::new(Group::new(series.clone())),
            apis: Family::new(Group::new(series)),
            registry,
        }
    }

    /// All of them as text.
    pub fn render(&self) -> String {
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_else(|error| {
            log::error!("the metrics cannot be written: {error}");
            String::new()
        });
        self.routes.vector().write(&mut text);
        self.stopped.write(&mut text);
        self.policies.vector().write(&mut text);
        self.waits.vector().write(&mut text);
        self.auth.vector().write(&mut text);
        self.servers.vector().write(&mut text);
        self.listeners.vector().write(&mut text);
        self.caches.vector().write(&mut text);
        self.stores.vector().write(&mut text);
        self.apis.vector().write(&mut text);
        self.refused.write(&mut text);
        process::write(&mut text);
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ConfigMetrics {
    /// A configuration holds now.
    pub fn accepted(&self, generation: u64) {
        self.generation.set(generation.try_into().unwrap_or(i64::MAX));
        self.successful.set(1);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.succeeded_at.set(now.as_secs().try_into().unwrap_or(i64::MAX));
    }

    /// A configuration was refused, and the one before it still holds.
    pub fn refused(&self) {
        self.successful.set(0);
    }
}

/// One metric with labels: the series of all their values.
pub struct Family<V: Vector, const LABELS: usize>(Arc<Held<V, LABELS>>);

/// The metric of one set of label values; shown for as long as anybody holds it.
pub struct Series<V: Vector, const LABELS: usize> {
    metric: V::Metric,
    labels: [Box<str>; LABELS],
    family: Arc<Held<V, LABELS>>,
}

struct Held<V, const LABELS: usize> {
    vector: V,
    /// How many hold each series.
    holders: Mutex<HashMap<[Box<str>; LABELS], usize>>,
}

impl<V: Vector, const LABELS: usize> Family<V, LABELS> {
    fn new(vector: V) -> Self {
        Self(Arc::new(Held { vector, holders: Mutex::default() }))
    }

    fn vector(&self) -> &V {
        &self.0.vector
    }

    /// Whether anybody holds the series of these label values.
    fn is_held(&self, labels: [&str; LABELS]) -> bool {
        self.0.holders.lock().contains_key(&labels.map(Box::from))
    }

    /// The series of these label values, with what it had counted if somebody holds it already.
    pub fn series(&self, labels: [&str; LABELS]) -> Series<V, LABELS> {
        let metric = {
            let mut holders = self.0.holders.lock();
            *holders.entry(labels.map(Box::from)).or_default() += 1;
            self.0.vector.metric(&labels)
        };
        Series { metric, labels: labels.map(Box::from), family: self.0.clone() }
    }
}

impl<V: Vector, const LABELS: usize> std::fmt::Debug for Series<V, LABELS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Series").field(&self.labels).finish()
    }
}

impl<V: Vector, const LABELS: usize> Deref for Series<V, LABELS> {
    type Target = V::Metric;

    fn deref(&self) -> &V::Metric {
        &self.metric
    }
}

impl<V: Vector, const LABELS: usize> Drop for Series<V, LABELS> {
    fn drop(&mut self) {
        let mut holders = self.family.holders.lock();
        match holders.get_mut(&self.labels) {
            Some(holders) if *holders > 1 => *holders -= 1,
            _ => {
                holders.remove(&self.labels);
                self.family.vector.forget(&self.labels);
            }
        }
    }
}

/// The vectors of Prometheus, whatever they are made of.
pub trait Vector {
    /// What a series is.
    type Metric;

    /// The metric of these label values, new if it has to be.
    fn metric(&self, labels: &[&str]) -> Self::Metric;

    /// Removes the metric of these label values.
    fn forget(&self, labels: &[Box<str>]);
}

impl<B: MetricVecBuilder> Vector for MetricVec<B> {
    type Metric = B::M;

    fn metric(&self, labels: &[&str]) -> B::M {
        // A family has as many values as names, for its type says how many.
        self.with_label_values(labels)
    }

    fn forget(&self, labels: &[Box<str>]) {
        let _ = self.remove_label_values(labels);
    }
}

/// Puts metrics into a registry, under the gateway's name.
struct Add<'r>(&'r Registry);

impl Add<'_> {
    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.registered(IntGauge::with_opts(opts(name, help)))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.registered(IntCounter::with_opts(opts(name, help)))
    }

    fn family<V: Vector + Collector + Clone + 'static, const LABELS: usize>(
        &self,
        vector: fn(Opts, &[&str]) -> prometheus::Result<V>,
        name: &str,
        help: &str,
        labels: [&str; LABELS],
    ) -> Family<V, LABELS> {
        Family::new(self.registered(vector(opts(name, help), &labels)))
    }

    fn registered<C: Collector + Clone + 'static>(&self, made: prometheus::Result<C>) -> C {
        let collector = made.expect("names and labels are written in this file, in Prometheus' alphabet");
        self.0.register(Box::new(collector.clone())).expect("every name in this file is written once");
        collector
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("portcullis")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_shown_while_anybody_holds_it() {
        let metrics = Metrics::new();
        let count = || metrics.certificate_renewals.series(["a.test", "success"]);
        let first = count();
        first.inc();
        let second = count();
        drop(first);
        second.inc();
        let line = "portcullis_certificate_renewals_total{certificate=\"a.test\",result=\"success\"} 2\n";
        assert!(metrics.render().contains(line), "{}", metrics.render());
        drop(second);
        assert!(!metrics.render().contains("a.test"));
    }

    #[test]
    fn the_text_says_what_it_is() {
        let metrics = Metrics::new();
        metrics.config.accepted(3);
        metrics.config.refused();
        let text = metrics.render();
        for line in [
            "# TYPE portcullis_access_log_dropped_total counter",
            "# HELP portcullis_config_generation Configurations that were loaded since the start.",
            "portcullis_config_generation 3",
            "portcullis_config_last_reload_successful 0",
            concat!("portcullis_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
