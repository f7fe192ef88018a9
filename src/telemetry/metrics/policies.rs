//! What is counted of policies: whom they stopped, and how long requests waited in them. The budget is that of
//! [`super::traffic`].

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use super::Series;
use super::cells::{Counts, Group, Histogram, OTHER, Shown, add};
use super::traffic::{ANSWER, Meter};

/// The numbers of one policy of a route.
#[derive(Debug)]
pub struct PolicySeries {
    verdicts: Series<Group<PolicyCounts>, 2>,
    waits: Series<Group<WaitCounts>, 1>,
}

/// The numbers of a way to find out who asks.
#[derive(Debug)]
pub struct AuthSeries(Series<Group<AuthCounts>, 1>);

/// Why a caller is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// There is no credential.
    Missing,
    /// There is more than one credential, or one in two ways.
    Ambiguous,
    /// The credential cannot be read, or is of a kind that is not taken.
    Malformed,
    /// It was good once.
    Expired,
    /// It will be good.
    NotYetValid,
    /// It is from somebody else.
    Issuer,
    /// It is for somebody else.
    Audience,
    /// It lacks what it has to say.
    Claims,
    /// Its signature is wrong.
    Signature,
    /// None of the keys made its signature.
    KeyUnknown,
    /// Nobody has it.
    CallerUnknown,
    /// The provider, or a service that is asked, does not let it in.
    Refused,
    /// It cannot be found out now.
    ProviderDown,
}

/// [`Reason`] as a label, in its order.
const REASONS: [&str; 13] = [
    "missing",
    "ambiguous",
    "malformed",
    "expired",
    "not_yet_valid",
    "issuer",
    "audience",
    "claims",
    "signature",
    "key_unknown",
    "caller_unknown",
    "refused",
    "provider_down",
];

impl Meter {
    /// For a policy of a route.
    pub fn policy(&self, route: &str, policy: &str) -> PolicySeries {
        PolicySeries {
            verdicts: self.metrics.policies.within(self.most, [route, policy], [OTHER, policy]),
            waits: self.metrics.waits.within(self.most, [policy], [OTHER]),
        }
    }

    /// For a way to find out who asks.
    pub fn auth(&self, provider: &str) -> AuthSeries {
        AuthSeries(self.metrics.auth.within(self.most, [provider], [OTHER]))
    }
}

impl PolicySeries {
    /// It answered the request.
    pub fn stopped(&self) {
        add(&self.verdicts.own().stopped, 1);
    }

    /// It would have, were it not in a shadow.
    pub fn shadowed(&self) {
        add(&self.verdicts.own().shadowed, 1);
    }

    /// A request waited in it.
    pub fn waited(&self, time: Duration) {
        self.waits.own().0.observe(&ANSWER, time);
    }
}

impl AuthSeries {
    /// A request was not let in.
    pub fn failed(&self, why: Reason) {
        add(&self.0.own().0[why as usize], 1);
    }
}

/// What is counted of a policy of a route.
#[derive(Default)]
pub(super) struct PolicyCounts {
    stopped: AtomicU64,
    shadowed: AtomicU64,
}

impl Counts for PolicyCounts {
    const SERIES: usize = 2;
    const LABELS: &[&str] = &["route", "policy"];
    const SHOWN: &[Shown<Self>] = &[
        Shown::Counters {
            name: "policy_stopped_total",
            help: "Requests that a policy of a route answered.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.stopped),
        },
        Shown::Counters {
            name: "policy_shadowed_total",
            help: "Requests that a policy of a route would have answered, were it not in a shadow.",
            label: "",
            values: &[""],
            of: |counts| std::slice::from_ref(&counts.shadowed),
        },
    ];
}

/// How long requests waited.
#[derive(Default)]
pub(super) struct WaitCounts(Histogram<13>);

impl Counts for WaitCounts {
    const SERIES: usize = 12 + 3;
    const LABELS: &[&str] = &["policy"];
    const SHOWN: &[Shown<Self>] = &[Shown::Histogram {
        name: "policy_wait_seconds",
        help: "How long requests waited in a policy: for their turn, a place, or somebody's answer.",
        bounds: &ANSWER,
        of: |counts| counts.0.parts(),
    }];
}

/// Why callers were not known.
#[derive(Default)]
pub(super) struct AuthCounts([AtomicU64; REASONS.len()]);

impl Counts for AuthCounts {
    const SERIES: usize = REASONS.len();
    const LABELS: &[&str] = &["provider"];
    const SHOWN: &[Shown<Self>] = &[Shown::Counters {
        name: "auth_failures_total",
        help: "Requests whose caller is not known, by the reason.",
        label: "reason",
        values: &REASONS,
        of: |counts| &counts.0,
    }];
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Metrics;
    use super::*;

    #[test]
    fn a_policy_beyond_the_budget_keeps_its_name() {
        let metrics = Arc::new(Metrics::new());
        let meter = Meter::new(metrics.clone(), PolicyCounts::SERIES + WaitCounts::SERIES);
        let (first, second) = (meter.policy("a", "auth"), meter.policy("b", "auth"));
        first.stopped();
        second.stopped();
        second.shadowed();
        second.waited(Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            "policy_stopped_total{route=\"a\",policy=\"auth\"} 1",
            "policy_stopped_total{route=\"other\",policy=\"auth\"} 1",
            "policy_shadowed_total{route=\"other\",policy=\"auth\"} 1",
            "policy_wait_seconds_bucket{policy=\"auth\",le=\"0.0025\"} 0",
            "policy_wait_seconds_bucket{policy=\"auth\",le=\"0.005\"} 1",
        ] {
            assert!(text.lines().any(|other| other == format!("portcullis_{line}")), "{line}\n{text}");
        }
    }

    #[test]
    fn every_reason_has_its_word() {
        let metrics = Arc::new(Metrics::new());
        let series = Meter::new(metrics.clone(), 100).auth("idp");
        series.failed(Reason::ProviderDown);
        series.failed(Reason::KeyUnknown);
        let text = metrics.render();
        for (reason, count) in [("provider_down", 1), ("key_unknown", 1), ("missing", 0)] {
            let line = format!("portcullis_auth_failures_total{{provider=\"idp\",reason=\"{reason}\"}} {count}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
