//! `portcullis run`: binds, starts, waits for a signal, drains.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::server::configuration::ServerConf;
use serde::Deserialize;
use tokio::signal::unix::{SignalKind, signal};

use super::reload::{Running, State};
use super::{Plan, logger};
use crate::admin::{Access, Admin, Control};
use crate::build::Build;
use crate::facts::Connection;
use crate::gateway::Gateway;
use crate::proxy::{Direct, Proxy};
use crate::reply::Reply;
use crate::server::{self, Edge, Refused};
use crate::telemetry::access_log::{AccessLog, AccessLogConfig, Format, Line, Target};
use crate::types::Timespan;

/// `[server]` and `[log]`.
#[derive(Default)]
pub(super) struct Settings {
    threads: Option<u16>,
    grace: Option<Timespan>,
    pub(super) level: Option<log::LevelFilter>,
    pub(super) access: AccessLogConfig,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ServerConfig {
    threads: Option<u16>,
    grace_period: Option<Timespan>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LogConfig {
    level: Option<Level>,
    access: AccessLogConfig,
}

/// How much the operator's log says.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for log::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

impl Settings {
    /// `None` after every mistake was reported.
    pub(super) fn compile(build: &mut Build<'_>) -> Option<Self> {
        let root = build.node();
        let server: Option<ServerConfig> = match root.get("server") {
            Some(node) => build.within_node(node, |build| {
                let config: ServerConfig = build.deserialize()?;
                if config.threads.is_some_and(|threads| !(1..=1024).contains(&threads)) {
                    build.error("threads", "a gateway has 1 to 1024 threads");
                }
                Some(config)
            }),
            None => Some(ServerConfig::default()),
        };
        let log: Option<LogConfig> = match root.get("log") {
            Some(node) => build.within_node(node, |build| {
                let mut config: LogConfig = build.deserialize()?;
                if let Target::File(path) | Target::Unix(path) = &mut config.access.to {
                    *path = build.path(path);
                }
                if matches!(config.access.format, Format::Pattern(_)) && config.access.fields.is_some() {
                    build
                        .error("access.fields", "a pattern says itself which fields a line has")
                        .help("remove `fields`, or choose the format \"json\" or \"logfmt\"");
                }
                Some(config)
            }),
            None => Some(LogConfig::default()),
        };
        let server = server?;
        let log = log?;
        Some(Self {
            threads: server.threads,
            grace: server.grace_period,
            level: log.level.map(Into::into),
            access: log.access,
        })
    }
}

const GRACE: Timespan = Timespan::from_secs(30);

/// Runs the gateway until a signal ends it. `file` is what it loads again; `notes` are printed once it is ready.
pub(super) fn run(plan: Plan, file: Option<PathBuf>, notes: &[String]) -> Result<(), String> {
    let Plan { mut gateway, listeners, admin, settings, fixed } = plan;
    logger::set_level(settings.level);
    let threads = settings.threads.map(usize::from);
    let threads = threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let access_log =
        AccessLog::open(&settings.access).map_err(|error| format!("error: cannot open the access log: {error}"))?;
    gateway.access_log = access_log.map(Arc::new);

    let bound = server::bind(&listeners, threads);
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
            state: Mutex::new(State { generation: 1, listeners, access: settings.access.clone(), fixed }),
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
    let grace = if graceful { settings.grace.unwrap_or(GRACE).into() } else { Duration::ZERO };
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
