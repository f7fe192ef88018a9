//! A watch over the certificates of all listeners: when they expire is a metric, and near the end a line of the log.
//!
//! A certificate in a file is near its end with fewer than 14 days left, and it is an error with fewer than 3. One
//! that is obtained by ACME may be meant to live for days only: with it, the bound is a sixth of its lifetime, and an
//! error a twenty-fourth, where that is less.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::IntGaugeVec;
use tokio::runtime::Handle;

use super::certificate::{Certificate, Leaf, date, now};
use crate::server::listener::ListenerSpec;
use crate::telemetry::metrics::{Metrics, Series};

const DAY: i64 = 24 * 3600;
const WARNING: i64 = 14 * DAY;
const ERROR: i64 = 3 * DAY;
/// How often it is said that a certificate is near its end.
const REMINDER: Duration = Duration::from_secs(24 * 3600);

/// The certificates of all listeners, by the time of their end.
pub struct Expiry {
    metrics: Arc<Metrics>,
    watched: Mutex<Vec<Watched>>,
}

struct Watched {
    listener: Box<str>,
    certificate: Arc<Certificate>,
    /// Not before there is a certificate.
    expiry: Option<Series<IntGaugeVec, 2>>,
}

impl Expiry {
    /// A watch over nothing yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, watched: Mutex::default() }
    }

    /// Watches the certificates of these listeners, and no others; says which are near their end.
    pub fn watch(&self, listeners: &[Arc<ListenerSpec>]) {
        let of = |listener: &Arc<ListenerSpec>| {
            let ListenerSpec { facts, tls, .. } = &**listener;
            let certificates = tls.iter().flat_map(|tls| tls.certificates());
            let watched = |certificate: &Arc<Certificate>| Watched {
                listener: facts.name.clone(),
                certificate: certificate.clone(),
                expiry: None,
            };
            certificates.map(watched).collect::<Vec<_>>()
        };
        let before = std::mem::replace(&mut *self.watched.lock(), listeners.iter().flat_map(of).collect());
        self.measure();
        self.remind();
        drop(before);
    }

    /// Says every day which certificates are near their end, for as long as this lives.
    pub fn start(self: &Arc<Self>, runtime: &Handle) {
        let watch = Arc::downgrade(self);
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(REMINDER).await;
                match watch.upgrade() {
                    Some(watch) => watch.remind(),
                    None => return,
                }
            }
        });
    }

    /// Brings the metric up to date.
    pub fn measure(&self) {
        for Watched { listener, certificate, expiry } in self.watched.lock().iter_mut() {
            let Some(held) = certificate.held() else { continue };
            let series = || self.metrics.certificate_expiry.series([listener, certificate.name()]);
            expiry.get_or_insert_with(series).set(held.leaf.not_after);
        }
    }

    fn remind(&self) {
        for Watched { listener, certificate, .. } in self.watched.lock().iter() {
            let Some(held) = certificate.held() else { continue };
            if let Some(near) = near(&held.leaf, certificate.is_renewed(), now()) {
                let level = if near.urgent { log::Level::Error } else { log::Level::Warn };
                log::log!(level, "the certificate {} of the listener {listener} {near}", certificate.name());
            }
        }
    }
}

/// How near its end a certificate is; reads `expires in 5 days, on …`.
pub(super) struct Near {
    left: i64,
    not_after: i64,
    urgent: bool,
}

/// `None` while there is time.
pub(super) fn near(leaf: &Leaf, renewed: bool, now: i64) -> Option<Near> {
    let left = leaf.not_after - now;
    let lifetime = leaf.not_after - leaf.not_before;
    let bound = |days: i64, share: i64| if renewed { days.min(lifetime / share) } else { days };
    let urgent = left < bound(ERROR, 24);
    (left < bound(WARNING, 6)).then_some(Near { left, not_after: leaf.not_after, urgent })
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = date(self.not_after);
        match self.left {
            left if left < 0 => write!(f, "expired on {on}"),
            left if left < 2 * 3600 => write!(f, "expires in {} minutes, on {on}", left / 60),
            left if left < 2 * DAY => write!(f, "expires in {} hours, on {on}", left / 3600),
            left => write!(f, "expires in {} days, on {on}", left / DAY),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lifetime: i64, left: i64, renewed: bool) -> Option<(bool, String)> {
        let leaf = Leaf::lasting(0, lifetime);
        near(&leaf, renewed, lifetime - left).map(|near| (near.urgent, near.to_string()))
    }

    #[test]
    fn the_end_is_near_by_days_or_by_the_lifetime() {
        assert_eq!(said(90 * DAY, 14 * DAY, false), None);
        let (urgent, text) = said(90 * DAY, 14 * DAY - 1, false).unwrap();
        assert!(!urgent && text.starts_with("expires in 13 days, on 1970-04-01T00:00:00Z"), "{text}");
        assert!(said(90 * DAY, 3 * DAY - 1, false).unwrap().0);
        assert!(said(90 * DAY, -5, false).unwrap().1.starts_with("expired on"));
        assert!(said(6 * DAY, 2 * DAY, false).is_some() && said(6 * DAY, 2 * DAY, true).is_none());
        assert_eq!(said(6 * DAY, DAY - 1, true).map(|(urgent, _)| urgent), Some(false));
        assert_eq!(said(6 * DAY, 6 * 3600 - 1, true).map(|(urgent, _)| urgent), Some(true));
    }
}
