//! What is counted of an API: who uses which version of it. The budget is that of [`super::traffic`].
//!
//! A consumer has its own series from its first request on, as long as there is room: callers are not known before they
//! come, and there may be any number of them.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use parking_lot::RwLock;

use super::Series;
use super::cells::{Counts, Group, OTHER, Shown, add};
use super::traffic::Meter;

/// Consumers of one version that are told apart; those who come later are counted together.
const MOST_CONSUMERS: usize = 1000;
/// Bytes of a name that a consumer is told apart by.
const LONGEST: usize = 256;

/// The numbers of one version of an API, by consumer.
pub struct ApiSeries {
    meter: Meter,
    api: Box<str>,
    version: Box<str>,
    /// Of requests that nobody is known to have made.
    anonymous: ApiCount,
    known: RwLock<HashMap<Box<str>, ApiCount>>,
    /// Of those who found no room.
    other: ApiCount,
}

type ApiCount = Series<Group<ApiCounts>, 3>;

impl Meter {
    /// For a version of an API; one that has no versions has the empty one.
    pub fn api(&self, api: &str, version: &str) -> ApiSeries {
        ApiSeries {
            meter: self.clone(),
            api: api.into(),
            version: version.into(),
            anonymous: self.consumer(api, version, ""),
            known: RwLock::default(),
            other: self.consumer(api, version, OTHER),
        }
    }

    fn consumer(&self, api: &str, version: &str, consumer: &str) -> ApiCount {
        self.metrics.apis.within(self.most, [api, version, consumer], [OTHER; 3])
    }
}

impl ApiSeries {
    /// A request of a consumer ended, or of nobody who is known.
    pub fn count(&self, consumer: Option<&str>) {
        let Some(name) = consumer else { return one(&self.anonymous) };
        let known = self.known.read();
        if let Some(count) = known.get(name) {
            return one(count);
        }
        let full = known.len() >= MOST_CONSUMERS || name.len() > LONGEST;
        drop(known);
        if full || !self.meter.metrics.apis.has_room(self.meter.most) {
            return one(&self.other);
        }
        let mut known = self.known.write();
        let count = || self.meter.consumer(&self.api, &self.version, name);
        one(known.entry(name.into()).or_insert_with(count));
    }
}

fn one(count: &ApiCount) {
    add(&count.own().0, 1);
}

/// What is counted of a consumer of a version.
#[derive(Default)]
pub(super) struct ApiCounts(AtomicU64);

impl Counts for ApiCounts {
    const SERIES: usize = 1;
    const LABELS: &[&str] = &["api", "version", "consumer"];
    const SHOWN: &[Shown<Self>] = &[Shown::Counters {
        name: "api_requests_total",
        help: "Requests of an API that ended, by its version and by who asked.",
        label: "",
        values: &[""],
        of: |counts| std::slice::from_ref(&counts.0),
    }];
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Metrics;
    use super::*;

    fn count(metrics: &Metrics, labels: &str) -> Option<u64> {
        let text = metrics.render();
        let line = format!("portcullis_api_requests_total{{{labels}}} ");
        text.lines().find_map(|other| other.strip_prefix(&line)).map(|count| count.parse().unwrap())
    }

    #[test]
    fn who_finds_no_room_is_counted_with_others() {
        let metrics = Arc::new(Metrics::new());
        let series = Meter::new(metrics.clone(), 3).api("shop", "v1");
        series.count(None);
        for consumer in ["alice", "bob", "alice", "carol"] {
            series.count(Some(consumer));
        }
        let of = |consumer: &str| count(&metrics, &format!("api=\"shop\",version=\"v1\",consumer=\"{consumer}\""));
        assert_eq!((of(""), of("alice"), of("bob"), of("other")), (Some(1), Some(2), None, Some(2)));
        drop(series);
        assert_eq!(of("alice"), None);
    }

    #[test]
    fn consumers_are_told_apart_up_to_a_number() {
        let metrics = Arc::new(Metrics::new());
        let series = Meter::new(metrics.clone(), usize::MAX).api("shop", "");
        for i in 0..MOST_CONSUMERS + 5 {
            series.count(Some(&i.to_string()));
        }
        assert_eq!(count(&metrics, "api=\"shop\",version=\"\",consumer=\"other\""), Some(5));
    }
}
