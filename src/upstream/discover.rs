//! Resolves the names among a pool's servers, again and again as their records expire.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;

use super::balance::Set;
use super::config::Address;
use super::{Backend, Pool};

const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
const AFTER_FAILURE: Duration = Duration::from_secs(5);

/// Runs while the pool lives.
pub(super) async fn run(pool: Weak<Pool>) {
    let resolver = match TokioResolver::builder_tokio().and_then(|builder| builder.build()) {
        Ok(resolver) => resolver,
        Err(error) => {
            log::error!("names cannot be resolved, for the system's resolver configuration is not usable: {error}");
            return;
        }
    };
    let mut last: Vec<Option<Vec<SocketAddr>>> = Vec::new();
    loop {
        let Some(current) = pool.upgrade() else { return };
        let wait = resolve(&current, &resolver, &mut last).await;
        drop(current);
        tokio::time::sleep(wait).await;
    }
}

/// Looks every name up once; gives when to look again. A name that fails keeps what it had.
async fn resolve(pool: &Arc<Pool>, resolver: &TokioResolver, last: &mut Vec<Option<Vec<SocketAddr>>>) -> Duration {
    let servers = &pool.config.servers;
    last.resize(servers.len(), None);
    let mut wait = LONGEST;
    for (server, known) in servers.iter().zip(last.iter_mut()) {
        let Address::Name(host, port) = &server.address else { continue };
        match resolver.lookup_ip(host.as_str()).await {
            Ok(found) => {
                let left = found.valid_until().saturating_duration_since(Instant::now());
                wait = wait.min(left.clamp(SHORTEST, LONGEST));
                let mut addresses: Vec<SocketAddr> = found.iter().map(|ip| SocketAddr::new(ip, *port)).collect();
                addresses.sort();
                addresses.dedup();
                *known = Some(addresses);
            }
            Err(error) => {
                wait = wait.min(AFTER_FAILURE);
                log::warn!("the server {host}:{port} of the upstream {} cannot be resolved: {error}", pool.name());
            }
        }
    }
    apply(pool, last);
    wait
}

/// Puts the new set in place. Servers that stay keep what is known of them.
fn apply(pool: &Arc<Pool>, resolved: &[Option<Vec<SocketAddr>>]) {
    let old = pool.set.load_full();
    let mut backends: Vec<Arc<Backend>> = Vec::new();
    for (server, addresses) in pool.config.servers.iter().zip(resolved) {
        let addresses: Vec<Address> = match &server.address {
            Address::Name(..) => addresses.iter().flatten().map(|address| Address::Inet(*address)).collect(),
            address => vec![address.clone()],
        };
        for address in addresses {
            let name = address.to_string();
            let kept = old.backends.iter().find(|backend| *backend.name() == *name).cloned();
            if backends.iter().any(|backend| *backend.name() == *name) {
                continue;
            }
            backends.extend(kept.or_else(|| pool.backend(&address, &address, server).map(Arc::new)));
        }
    }
    let same = backends.len() == old.backends.len() && backends.iter().zip(&old.backends).all(|(a, b)| a.id == b.id);
    if !same {
        log::info!("the upstream {} now has {} servers", pool.name(), backends.len());
        pool.seen.set(&backends);
        pool.set.store(Arc::new(Set::new(backends)));
    }
}
