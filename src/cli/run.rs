//! `portcullis run`: binds, starts, waits for a signal, drains.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::apps::http_app::HttpServer;
use pingora_core::server::configuration::ServerConf;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::reload::{Running, State, tracer};
use super::state_dir::StateDir;
use super::upgrade::{self, LAST_ANSWER, Predecessor};
use super::{Plan, logger, notify, watch};
use crate::admin::{Access, Admin};
use crate::config::Loaded;
use crate::facts::Connection;
use crate::gateway::Gateway;
use crate::proxy::{Direct, Mirrors, Proxy};
use crate::reply::Reply;
use crate::server::handover::Inherited;
use crate::server::listener::Address;
use crate::server::{self, Edge, Expiry, MakeDirect, Refused};
use crate::telemetry::access_log::{Line, Logs, Rotation};
use crate::telemetry::metrics::Metrics;
use crate::upstream::Background;

/// The number of the configuration that a process starts with.
const FIRST: u64 = 1;

/// How the process ends.
pub(super) enum End {
    /// What is under way may end.
    Drained,
    /// At once.
    AtOnce,
    /// Another process is the gateway, and what is under way here may end.
    HandedOver,
    /// It never was the gateway, for this reason.
    Refused(String),
}

/// How long connections without a request are kept when the gateway stops: a request may be on its way.
const LAST_REQUEST: Duration = Duration::from_secs(2);
/// How long a process that is not to be the gateway may take: its predecessor waits for it.
const MOST_IF_REFUSED: Duration = Duration::from_secs(5);

/// Runs the gateway with the configuration of a file until a signal ends it. It takes over from the process that started
/// it for that, or from one that hands over if it is to be `awaited`.
pub(super) fn run(file: &Path, awaited: bool) -> Result<(), String> {
    if upgrade::is_starter() {
        return upgrade::start_orphan(file);
    }
    // Before there are threads: the environment is changed.
    let systemd = Inherited::from_systemd().map_err(|error| format!("error: what systemd hands over: {error}"))?;
    let mut predecessor = Predecessor::parent();
    let start = |predecessor: &mut Option<Predecessor>| {
        // First of all: what is given and not taken would look like a crash.
        let mut given = predecessor.as_ref().map(Predecessor::gives).transpose()?;
        let (loaded, plan) = super::load(file)?;
        if awaited && given.is_none() {
            let awaited = predecessor.insert(Predecessor::awaited(plan.settings.state_dir.as_deref())?);
            given = Some(awaited.gives()?);
        }
        let (inherited, lock) = given.unwrap_or((systemd, None));
        Started::new(loaded, plan, Some(file), inherited, lock)
    };
    let started = start(&mut predecessor);
    match started {
        Ok(started) => started.serve(predecessor, &[]),
        Err(why) => {
            if let Some(predecessor) = predecessor {
                predecessor.failed(why.trim_end());
            }
            Err(why)
        }
    }
}

/// The gateway at work, and who ends it.
pub(super) struct Started {
    running: Arc<Running>,
    ends: mpsc::UnboundedReceiver<End>,
    background: Runtime,
    /// Shown by the admin interface.
    draining: Arc<AtomicBool>,
    addresses: Vec<(Box<str>, Address)>,
}

impl Started {
    /// Binds what is not inherited, and starts. `lock` is that of a predecessor's state directory.
    pub(super) fn new(
        loaded: Loaded,
        plan: Plan,
        file: Option<&Path>,
        mut inherited: Inherited,
        lock: Option<OwnedFd>,
    ) -> Result<Self, String> {
        let Plan { mut gateway, listeners, admin, settings, acme, metrics, fixed, files, keep } = plan;
        logger::set_level(settings.level);
        let state_dir = settings.state_dir.as_deref().map(|path| StateDir::take(path, lock)).transpose()?;
        let rotation = Rotation::default();
        gateway.open_logs(&settings.access, &Logs::default(), &rotation, &metrics.access_log_dropped)?;

        let bound = server::bind(&listeners, settings.threads, &mut inherited);
        let (admin, access) = admin.map(|admin| (admin.listener, admin.access)).unzip();
        let admin = server::bind(admin.as_slice(), 1, &mut inherited);
        let (bound, admin) = match (bound, admin) {
            (Ok(bound), Ok(admin)) => (bound, admin),
            (bound, admin) => {
                let errors = bound.err().into_iter().chain(admin.err()).flatten();
                return Err(errors.map(|error| format!("error: {error}\n")).collect());
            }
        };
        for socket in inherited.left() {
            log::warn!("no listener takes the socket {socket} that was handed over, and it is closed");
        }

        // Health checks, name resolution and signals: apart from the workers, so that they never wait for each other.
        let background = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("background")
            .enable_all()
            .build()
            .map_err(|error| format!("error: cannot start: {error}"))?;
        gateway.tracer = tracer(settings.trace.as_ref(), &metrics, background.handle());
        let pools = Background::new(background.handle().clone());
        gateway.pools().for_each(|(_, pool)| pool.start(&pools));
        gateway.providers().start(pools.runtime());
        gateway.stores().start(pools.runtime());

        acme.load(&listeners);
        acme.apply(&listeners);
        let expiry = Arc::new(Expiry::new(metrics.clone()));
        expiry.watch(&listeners);
        expiry.start(background.handle());
        metrics.config.accepted(FIRST);

        let current = Arc::new(ArcSwap::from_pointee(gateway));
        let edge = Arc::new(Refusals { gateway: current.clone(), metrics: metrics.clone() });
        let draining = Arc::new(AtomicBool::new(false));
        let addresses = bound.addresses().iter().chain(admin.addresses()).cloned().collect();
        let (end, ends) = mpsc::unbounded_channel();
        let serve = || -> std::io::Result<_> {
            let gateway = current.clone();
            let proxies = move || {
                let mirrors = Arc::new(Mirrors::default());
                let (proxy, gateway) = (http_proxy(gateway.clone(), mirrors.clone()), gateway.clone());
                let direct: MakeDirect = Box::new(move |long_way| Direct::new(gateway, mirrors, long_way));
                (proxy, Some(direct))
            };
            let running = Arc::new(Running {
                file: file.map(Path::to_owned),
                current: current.clone(),
                server: bound.run(proxies, edge.clone())?,
                admin: OnceLock::new(),
                runtime: background.handle().clone(),
                pools,
                rotation,
                state_dir,
                pid_file: settings.pid_file,
                binary: upgrade::binary(settings.binary),
                acme,
                metrics,
                expiry,
                end,
                grace: settings.grace,
                stopping: AtomicBool::new(false),
                has_left: AtomicBool::new(false),
                state: Mutex::new(State {
                    generation: FIRST,
                    loaded,
                    files,
                    keep,
                    listeners,
                    trace: settings.trace,
                    fixed,
                }),
            });
            let access = access.unwrap_or_else(|| Access::unix(None));
            let (control, seen, draining) = (running.clone(), current.clone(), draining.clone());
            let app = move || {
                HttpServer::new_app(Admin::new(seen.clone(), draining.clone(), access.clone(), control.clone()))
            };
            let admin = admin.run(move || (app(), None), edge)?;
            let _ = running.admin.set(admin);
            Ok(running)
        };
        let running = serve().map_err(|error| format!("error: cannot start: {error}"))?;
        Ok(Self { running, ends, background, draining, addresses })
    }

    /// Serves until it is ended. `notes` are printed once it is ready.
    pub(super) fn serve(mut self, predecessor: Option<Predecessor>, notes: &[String]) -> Result<(), String> {
        for (name, address) in &self.addresses {
            eprintln!("listening name={name} address={address}");
        }
        match predecessor {
            None => self.running.take_charge()?,
            Some(predecessor) => {
                predecessor.ready()?;
                let running = self.running.clone();
                self.background.spawn_blocking(move || match predecessor.wait() {
                    Ok(()) => running.take_charge().unwrap_or_else(|why| log::error!("{why}")),
                    Err(why) => {
                        let _ = running.end.send(End::Refused(why));
                        // The predecessor waits for the end of the channel as the end of this process.
                        loop {
                            std::thread::park();
                        }
                    }
                });
            }
        }
        eprintln!("ready");
        notes.iter().for_each(|note| println!("{note}"));
        self.background.spawn(watch::watch(self.running.clone()));
        let end = self.background.block_on(until_the_end(&self.running, &mut self.ends));

        let Self { running, background, draining, .. } = self;
        // From here on nothing is replaced, and a process that was to take over is ended.
        running.stopping.store(true, Ordering::Relaxed);
        running.acme.stop();
        drop(running.state.lock());
        match &end {
            // Both were stopped when it was.
            End::HandedOver => {
                log::info!("ending what is under way within {:?}", running.grace);
                running.server.join();
            }
            End::Drained => {
                draining.store(true, Ordering::Relaxed);
                notify::stopping();
                log::info!("stopping, with {:?} for requests under way", running.grace);
                running.server.drain(running.grace, LAST_REQUEST);
            }
            // It took connections, and ends what is under way on them.
            End::Refused(_) => running.server.drain(running.grace.min(MOST_IF_REFUSED), LAST_REQUEST),
            End::AtOnce => running.server.drain(Duration::ZERO, Duration::ZERO),
        }
        if let Some(admin) = running.admin.get() {
            admin.drain(LAST_ANSWER, Duration::ZERO);
        }
        if !matches!(end, End::HandedOver) {
            running.leave_charge();
        }
        background.shutdown_background();
        match end {
            End::Refused(why) => Err(why),
            _ => Ok(()),
        }
    }
}

impl Running {
    /// From now on this process is the gateway.
    fn take_charge(self: &Arc<Self>) -> Result<(), String> {
        if let Some(path) = &self.pid_file {
            // Who looks finds the old number or the new one.
            let new = path.with_extension("new");
            let written = std::fs::write(&new, format!("{}\n", std::process::id()));
            written
                .and_then(|()| std::fs::rename(&new, path))
                .map_err(|error| format!("error: cannot write the pid file {}: {error}", path.display()))?;
        }
        self.acme.start(&self.runtime, &self.metrics);
        notify::ready("takes connections");
        // Systemd listens to who is in charge only.
        let running = self.clone();
        self.runtime.spawn(async move { notify::watchdog(&running.server, &running.stopping).await });
        Ok(())
    }

    fn leave_charge(&self) {
        let Some(path) = &self.pid_file else { return };
        let is_ours = |text: String| text.trim() == std::process::id().to_string();
        if std::fs::read_to_string(path).is_ok_and(is_ours) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Does what signals ask for, until one of them or something else ends the process.
async fn until_the_end(running: &Arc<Running>, ends: &mut mpsc::UnboundedReceiver<End>) -> End {
    use SignalKind as Kind;
    let kinds = [
        Kind::terminate(),
        Kind::interrupt(),
        Kind::hangup(),
        Kind::user_defined1(),
        Kind::user_defined2(),
        Kind::quit(),
    ];
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup), Ok(mut user1), Ok(mut user2), Ok(mut quit)] =
        kinds.map(signal)
    else {
        log::error!("signals cannot be received");
        return End::AtOnce;
    };
    let apart = |act: fn(&Running)| {
        let running = running.clone();
        tokio::task::spawn_blocking(move || act(&running));
    };
    loop {
        tokio::select! {
            _ = terminate.recv() => return End::Drained,
            _ = interrupt.recv() => return End::AtOnce,
            Some(end) = ends.recv() => return end,
            _ = hangup.recv() => apart(|running| {
                if let Err(mistakes) = running.load_again(None) {
                    log::error!("the configuration stays as it is:\n{mistakes}");
                }
            }),
            _ = user1.recv() => running.rotation.turn(),
            // They log themselves how it went.
            _ = user2.recv() => apart(|running| drop(running.upgrade())),
            _ = quit.recv() => apart(|running| {
                if let Err(why) = running.hand_over() {
                    log::error!("{why}");
                }
            }),
        }
    }
}

/// A worker's proxy, with its own pool of upstream connections.
fn http_proxy(gateway: Arc<ArcSwap<Gateway>>, mirrors: Arc<Mirrors>) -> pingora_proxy::HttpProxy<Proxy> {
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, max_retries: 16, ..ServerConf::default() };
    pingora_proxy::http_proxy(&Arc::new(conf), Proxy::new(gateway, mirrors))
}

/// Answers and logs what never became a request.
struct Refusals {
    gateway: Arc<ArcSwap<Gateway>>,
    metrics: Arc<Metrics>,
}

impl Edge for Refusals {
    fn refuse(&self, connection: &Connection, refused: Refused, head: &[u8]) -> Vec<u8> {
        // The admin interface has its own.
        if connection.listener.counts.is_some() {
            self.metrics.refused.count(refused.reason);
        }
        if let Some(log) = self.gateway.load().logs.at(0) {
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
