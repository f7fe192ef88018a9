//! `portcullis run`: binds, starts, waits for a signal, drains.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::server::configuration::ServerConf;
use tokio::signal::unix::{SignalKind, signal};

use super::reload::{Running, State};
use super::state_dir::StateDir;
use super::{Plan, logger};
use crate::admin::{Access, Admin, Control};
use crate::config::Loaded;
use crate::facts::Connection;
use crate::gateway::Gateway;
use crate::proxy::{Direct, Proxy};
use crate::reply::Reply;
use crate::server::{self, Edge, Expiry, Refused};
use crate::telemetry::access_log::{AccessLog, Line};
use crate::telemetry::metrics::Metrics;

/// The number of the configuration that a process starts with.
const FIRST: u64 = 1;

/// Runs the gateway until a signal ends it. `file` is what it loads again; `notes` are printed once it is ready.
pub(super) fn run(loaded: Loaded, plan: Plan, file: Option<PathBuf>, notes: &[String]) -> Result<(), String> {
    let Plan { mut gateway, listeners, admin, settings, acme, fixed } = plan;
    let metrics = Arc::new(Metrics::new());
    logger::set_level(settings.level);
    let access_log = AccessLog::open(&settings.access, metrics.access_log_dropped.clone())
        .map_err(|error| format!("error: cannot open the access log: {error}"))?;
    gateway.access_log = access_log.map(Arc::new);

    let _state_dir = settings.state_dir.as_deref().map(StateDir::take).transpose()?;
    let bound = server::bind(&listeners, settings.threads);
    let (admin, access) = admin.map(|admin| (admin.listener, admin.access)).unzip();
    let admin = server::bind(admin.as_slice(), 1);
    let (bound, admin) = match (bound, admin) {
        (Ok(bound), Ok(admin)) => (bound, admin),
        (bound, admin) => {
            let errors = bound.err().into_iter().chain(admin.err()).flatten();
            return Err(errors.map(|error| format!("error: {error}\n")).collect());
        }
    };

    // Health checks, name resolution and signals: apart from the workers, so that they never wait for each other.
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()
        .map_err(|error| format!("error: cannot start: {error}"))?;
    for (_, pool) in gateway.pools() {
        pool.start(background.handle());
    }

    acme.load(&listeners);
    acme.apply(&listeners);
    let expiry = Arc::new(Expiry::new(metrics.clone()));
    expiry.watch(&listeners);
    expiry.start(background.handle());
    metrics.config.accepted(FIRST);

    let current = Arc::new(ArcSwap::from_pointee(gateway));
    let edge = Arc::new(Refusals { gateway: current.clone() });
    let draining = Arc::new(AtomicBool::new(false));
    let addresses: Vec<_> = bound.addresses().iter().chain(admin.addresses()).cloned().collect();
    let serve = || -> std::io::Result<_> {
        let gateway = current.clone();
        let proxies = move || (http_proxy(gateway.clone()), Some(Direct::new(gateway.clone())));
        let running = Arc::new(Running {
            file,
            current: current.clone(),
            server: bound.run(proxies, edge.clone())?,
            background: background.handle().clone(),
            acme: acme.clone(),
            metrics: metrics.clone(),
            expiry,
            state: Mutex::new(State { generation: FIRST, loaded, listeners, access: settings.access.clone(), fixed }),
        });
        let access = access.unwrap_or_else(|| Access::unix(None));
        let (control, seen, draining) = (running.clone(), current.clone(), draining.clone());
        let app =
            move || HttpServer::new_app(Admin::new(seen.clone(), draining.clone(), access.clone(), control.clone()));
        let admin = admin.run(move || (app(), None), edge)?;
        Ok((running, admin))
    };
    let (running, admin) = serve().map_err(|error| format!("error: cannot start: {error}"))?;
    for (name, address) in addresses {
        eprintln!("listening name={name} address={address}");
    }
    eprintln!("ready");
    acme.start(background.handle(), &metrics);
    notes.iter().for_each(|note| println!("{note}"));

    let graceful = background.block_on(async {
        let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals else {
            log::error!("signals cannot be received");
            return true;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => return true,
                _ = interrupt.recv() => return false,
                _ = hangup.recv() => {
                    let running = running.clone();
                    let reloaded = tokio::task::spawn_blocking(move || running.reload()).await;
                    if let Ok(Err(mistakes)) = reloaded {
                        log::error!("the configuration stays as it is:\n{mistakes}");
                    }
                }
            }
        }
    });
    draining.store(true, Ordering::Relaxed);
    acme.stop();
    let grace = if graceful { settings.grace } else { Duration::ZERO };
    log::info!("stopping, with {grace:?} for requests under way");
    running.server.drain(grace);
    admin.drain(Duration::ZERO);
    background.shutdown_background();
    Ok(())
}

/// A worker's proxy, with its own pool of upstream connections.
fn http_proxy(gateway: Arc<ArcSwap<Gateway>>) -> pingora_proxy::HttpProxy<Proxy> {
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, max_retries: 16, ..ServerConf::default() };
    pingora_proxy::http_proxy(&Arc::new(conf), Proxy::new(gateway))
}

/// Answers and logs what never became a request.
struct Refusals {
    gateway: Arc<ArcSwap<Gateway>>,
}

impl Edge for Refusals {
    fn refuse(&self, connection: &Connection, refused: Refused, head: &[u8]) -> Vec<u8> {
        if let Some(log) = &self.gateway.load().access_log {
            let line = head.split(|b| matches!(b, b'\r' | b'\n')).next().unwrap_or(b"");
            let line = String::from_utf8_lossy(&line[..line.len().min(1024)]);
            let mut words = line.split(' ');
            let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            log.write(&Line {
                listener: &connection.listener.name,
                client: Some(connection.peer_ip()),
                method,
                path: target.split('?').next().unwrap_or(""),
                status: refused.status,
                tls: connection.tls.as_ref().map_or("", |tls| tls.version),
                refused: refused.reason,
                ..Line::default()
            });
        }
        let (head, body) = Reply::refusal(refused.status, refused.reason).render(false);
        let mut answer =
            format!("HTTP/1.1 {} {}\r\n", head.status.as_u16(), head.status.canonical_reason().unwrap_or(""));
        for (name, value) in &head.headers {
            answer.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or("")));
        }
        answer.push_str("connection: close\r\n\r\n");
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(&body);
        answer
    }
}
