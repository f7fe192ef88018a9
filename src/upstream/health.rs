//! Active checks: a connection, or a GET with the status that is expected, each within its deadline. Every server is
//! checked on its own, a tenth of the interval early or late, so that checks of many gateways do not come at once.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector;
use pingora_http::RequestHeader;
use tokio::task::JoinSet;

use super::config::HealthConfig;
use super::{Backend, Health, Pool};

/// What checks connect with: one for all pools, since each knows the system's certificate authorities by heart.
pub(super) struct Connectors {
    http: Connector,
    transport: TransportConnector,
}

impl Default for Connectors {
    fn default() -> Self {
        Self { http: Connector::new(None), transport: TransportConnector::new(None) }
    }
}

/// Runs while the pool lives.
pub(super) async fn run(pool: Weak<Pool>, config: HealthConfig, connectors: Arc<Connectors>) {
    let config = Arc::new(config);
    // Dropping the set ends the checks that it holds.
    let mut checks = JoinSet::new();
    let mut known: HashMap<usize, tokio::task::AbortHandle> = HashMap::new();
    loop {
        let Some(current) = pool.upgrade() else { return };
        let backends = current.set.load_full();
        known.retain(|id, check| {
            let stays = backends.backends.iter().any(|backend| backend.id == *id);
            if !stays {
                check.abort();
            }
            stays
        });
        for backend in &backends.backends {
            known.entry(backend.id).or_insert_with(|| {
                checks.spawn(check(current.shared_name(), backend.clone(), config.clone(), connectors.clone()))
            });
        }
        drop((current, backends));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn check(pool: Arc<str>, backend: Arc<Backend>, config: Arc<HealthConfig>, connectors: Arc<Connectors>) {
    loop {
        let outcome = match tokio::time::timeout(config.timeout.into(), ask(&backend, &config, &connectors)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {}", config.timeout)),
        };
        judge(&pool, &backend, &config, outcome);
        tokio::time::sleep(config.interval.0.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Counts an outcome; enough of one kind in a row change the server's health. The first decides at once.
fn judge(pool: &str, backend: &Backend, config: &HealthConfig, outcome: Result<(), String>) {
    let (next, needed) = match &outcome {
        Ok(()) => (Health::Healthy, config.healthy),
        Err(_) => (Health::Unhealthy, config.unhealthy),
    };
    let before = backend.health();
    if before == next {
        backend.streak.store(0, std::sync::atomic::Ordering::Relaxed);
        return;
    }
    let streak = backend.streak.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
    if before != Health::Unknown && streak < usize::from(needed) {
        return;
    }
    if before == Health::Unhealthy {
        backend.warming().begin();
    }
    backend.set_health(next);
    match outcome {
        Ok(()) => log::info!("the server {} of the upstream {pool} is healthy", backend.name()),
        Err(reason) => log::warn!("the server {} of the upstream {pool} is unhealthy: {reason}", backend.name()),
    }
}

async fn ask(backend: &Backend, config: &HealthConfig, connectors: &Connectors) -> Result<(), String> {
    let say = |error: Box<pingora_core::Error>| error.to_string();
    let mut peer = backend.peer().clone();
    peer.options.read_timeout = Some(config.timeout.into());
    let Some(path) = &config.path else {
        return connectors.transport.new_stream(&peer).await.map(drop).map_err(say);
    };
    let host = match &config.host {
        Some(host) => host.clone(),
        None if peer.sni.is_empty() => backend.name().to_string(),
        None => peer.sni.clone(),
    };
    let (mut session, _) = connectors.http.get_http_session(&peer).await.map_err(say)?;
    let mut request = RequestHeader::build("GET", path.as_bytes(), Some(2)).map_err(say)?;
    request.insert_header("Host", host).map_err(say)?;
    request.insert_header("User-Agent", "portcullis-health").map_err(say)?;
    session.set_read_timeout(Some(config.timeout.into()));
    session.write_request_header(Box::new(request)).await.map_err(say)?;
    session.finish_request_body().await.map_err(say)?;
    session.read_response_header().await.map_err(say)?;
    let status = session.response_header().map_or(0, |head| head.status.as_u16());
    if !config.expect.contains(&status) {
        return Err(format!("the status {status}"));
    }
    while session.read_response_body().await.map_err(say)?.is_some() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> HealthConfig {
        toml::from_str("path = '/'\nhealthy = 2\nunhealthy = 3").unwrap()
    }

    #[test]
    fn thresholds_decide() {
        let backend = Backend::test(0, 1, Health::Unknown);
        let fail = || Err("x".to_owned());
        judge("p", &backend, &config(), Ok(()));
        assert_eq!(backend.health(), Health::Healthy);
        judge("p", &backend, &config(), fail());
        judge("p", &backend, &config(), fail());
        judge("p", &backend, &config(), Ok(()));
        judge("p", &backend, &config(), fail());
        judge("p", &backend, &config(), fail());
        assert_eq!(backend.health(), Health::Healthy);
        judge("p", &backend, &config(), fail());
        assert_eq!(backend.health(), Health::Unhealthy);
        judge("p", &backend, &config(), Ok(()));
        assert_eq!(backend.health(), Health::Unhealthy);
        judge("p", &backend, &config(), Ok(()));
        assert_eq!(backend.health(), Health::Healthy);
    }
}
