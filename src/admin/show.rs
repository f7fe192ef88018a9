//! What the gateway shows of itself, as JSON.
//!
//! ```json
//! {"name":"users","algorithm":"round_robin","servers":[
//!   {"address":"127.0.0.1:8081","weight":1,"health":"healthy","draining":false,"ejected":false,"active":3}]}
//! {"name":"shared","up":true}
//! ```
//!
//! A server that a name was resolved to has it as `name`. What is shown is what one process knows; `active` changes
//! while it is read.

use std::sync::Arc;

use serde::Serialize;

use crate::cache::Zone;
use crate::gateway::Gateway;
use crate::store::Store;
use crate::upstream::{Circuit, Health, Pool, Status};

#[derive(Serialize)]
struct ShownPool<'p> {
    name: &'p str,
    algorithm: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    breaker: Option<&'static str>,
    servers: Vec<ShownServer>,
}

#[derive(Serialize)]
struct ShownServer {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    weight: u16,
    health: &'static str,
    draining: bool,
    ejected: bool,
    active: usize,
}

#[derive(Serialize)]
struct ShownCache {
    name: Box<str>,
    memory: u64,
    bytes: u64,
    entries: u64,
}

#[derive(Serialize)]
struct ShownStore {
    name: String,
    up: bool,
}

/// Every pool.
pub(super) fn pools(gateway: &Gateway) -> Vec<u8> {
    json(&gateway.pools().map(|(_, pool)| shown(pool)).collect::<Vec<_>>())
}

/// One pool.
pub(super) fn pool(pool: &Pool) -> Vec<u8> {
    json(&shown(pool))
}

/// Every cache.
pub(super) fn caches(gateway: &Gateway) -> Vec<u8> {
    let shown = |zone: &Arc<Zone>| ShownCache {
        name: zone.name.clone(),
        memory: zone.memory,
        bytes: zone.store.bytes(),
        entries: zone.store.entries(),
    };
    json(&gateway.zones().iter().map(shown).collect::<Vec<_>>())
}

/// Every store that is used.
pub(super) fn stores(gateway: &Gateway) -> Vec<u8> {
    let shown = |store: &Arc<Store>| ShownStore { name: store.name().to_owned(), up: store.is_up() };
    json(&gateway.stores().iter().map(shown).collect::<Vec<_>>())
}

fn shown(pool: &Pool) -> ShownPool<'_> {
    ShownPool {
        name: pool.name(),
        algorithm: pool.algorithm(),
        breaker: pool.circuit().map(|circuit| match circuit {
            Circuit::Closed => "closed",
            Circuit::HalfOpen => "half_open",
            Circuit::Open => "open",
        }),
        servers: pool.status().into_iter().map(shown_server).collect(),
    }
}

fn shown_server(status: Status) -> ShownServer {
    ShownServer {
        name: (status.written != status.name).then(|| status.written.to_string()),
        address: status.name.to_string(),
        weight: status.weight,
        health: match status.health {
            Health::Unknown => "unknown",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        },
        draining: status.draining,
        ejected: status.ejected,
        active: status.active,
    }
}

/// Ends with a line break, for terminals.
fn json(value: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(value).unwrap_or_default();
    text.push(b'\n');
    text
}
