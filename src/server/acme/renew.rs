//! When to ask for a certificate: at once if there is none, else when two thirds of its lifetime are over, and again
//! after a failure, later each time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::order::{self, Failure};
use super::{Held, Managed, Shared, now};
use crate::server::tls::{Leaf, date};
use crate::telemetry::metrics::Metrics;

/// How long one conversation with a CA may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// A clock may be set while we sleep, or the machine may sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// The first wait after a failure that was not the CA's word.
const SOON: Duration = Duration::from_secs(5);
/// The first wait after the CA refused: Let's Encrypt takes five failed checks an hour.
const LATER: Duration = Duration::from_secs(120);
/// The longest wait after a failure.
const LATEST: Duration = Duration::from_secs(3 * 3600);

/// Keeps a certificate valid, for as long as it is polled. `hurry` ends the wait after a failure.
pub(super) async fn run(shared: Arc<Shared>, managed: Arc<Managed>, hurry: Arc<Notify>, metrics: Arc<Metrics>) {
    let counted = |result| metrics.certificate_renewals.series([managed.settings.name(), result]);
    let (obtained, failed) = (counted("success"), counted("failure"));
    let names = managed.names().join(", ");
    // What was in charge before may have renewed it since we looked.
    order::blocking(|| shared.load(&managed));
    until_due(&managed, None).await;
    let mut failures = 0;
    loop {
        let result = tokio::time::timeout(PATIENCE, order::obtain(&shared, &managed)).await;
        match result.unwrap_or_else(|_| Err(Failure::late(PATIENCE))) {
            Ok(held) => {
                log::info!("obtained a certificate for {names}, valid until {}", date(held.leaf.not_after));
                obtained.inc();
                failures = 0;
                let floor = floor(&held);
                managed.certificate.install(held);
                until_due(&managed, Some(floor)).await;
            }
            Err(failure) => {
                failed.inc();
                failures += 1;
                let wait = backoff(failures, failure.refused, fastrand::f64());
                let level = if managed.certificate.held().is_some() { log::Level::Warn } else { log::Level::Error };
                let shown = Duration::from_secs(wait.as_secs().max(1));
                let shown = humantime::format_duration(shown);
                log::log!(level, "no certificate for {names}, trying again in {shown}: {failure}");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = hurry.notified() => {}
                }
            }
        }
    }
}

/// Waits until the certificate that is served is to be renewed, and not before `floor`.
async fn until_due(managed: &Managed, floor: Option<i64>) {
    let Some(held) = managed.certificate.held() else { return };
    let due = due(&held.leaf, fastrand::f64()).max(floor.unwrap_or(i64::MIN));
    while let Ok(left @ 1..) = u64::try_from(due.saturating_sub(now())) {
        tokio::time::sleep(Duration::from_secs(left).min(LONGEST_SLEEP)).await;
    }
}

/// When two thirds of the lifetime are over, or up to a twentieth of it before: gateways that began together do not
/// ask together. `jitter` is from 0 to 1.
fn due(leaf: &Leaf, jitter: f64) -> i64 {
    let lifetime = leaf.not_after.saturating_sub(leaf.not_before);
    let early = (lifetime as f64 * jitter / 20.0) as i64;
    leaf.not_before.saturating_add(lifetime / 3 * 2).saturating_sub(early)
}

/// Before this a new certificate is not renewed, whatever it and our clock say: a CA is never asked in a tight loop.
fn floor(held: &Held) -> i64 {
    let lifetime = held.leaf.not_after.saturating_sub(held.leaf.not_before);
    now().saturating_add((lifetime / 10).max(5))
}

/// The wait after so many failures in a row, twice as long each time, and up to a quarter more or less. `jitter` is from 0
/// to 1.
fn backoff(failures: u32, refused: bool, jitter: f64) -> Duration {
    let first = if refused { LATER } else { SOON };
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(20)).min(LATEST);
    doubled.mul_f64(0.75 + jitter / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_due_at_two_thirds_of_its_lifetime() {
        const DAY: i64 = 24 * 3600;
        let leaf = Leaf::lasting(1000, 1000 + 90 * DAY);
        assert_eq!(due(&leaf, 0.0), 1000 + 60 * DAY);
        assert_eq!(due(&leaf, 1.0), 1000 + 60 * DAY - 90 * DAY / 20);
        assert_eq!(due(&Leaf::lasting(0, i64::MAX), 0.0), i64::MAX / 3 * 2);
    }

    #[test]
    fn waits_get_longer_and_stay_bounded() {
        let seconds = |failures, refused, jitter| backoff(failures, refused, jitter).as_secs_f64();
        assert_eq!((seconds(1, false, 0.5), seconds(2, false, 0.5), seconds(3, false, 0.5)), (5.0, 10.0, 20.0));
        assert_eq!((seconds(1, true, 0.0), seconds(1, true, 1.0)), (90.0, 150.0));
        let latest = LATEST.as_secs_f64();
        assert_eq!((seconds(30, true, 0.5), seconds(u32::MAX, false, 0.5)), (latest, latest));
        // Let's Encrypt takes five failed checks of a name an hour.
        let hour: f64 = (1..=5).map(|failures| seconds(failures, true, 0.0)).sum();
        assert!(hour > 2700.0, "{hour}");
    }
}
