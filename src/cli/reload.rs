//! Reload: the file is read, checked, compiled anew and held to its tests, and the result takes the place of what
//! runs; or, when something is wrong with it, nothing changes and every mistake is told.
//!
//! `SIGHUP`, `POST /reload` at the admin interface and `portcullis reload` do the same. `portcullis reload --api NAME` and
//! `POST /apis/NAME/reload` read the file of one API and nothing else: what others are writing meanwhile does not matter.
//!
//! Requests end with the
//! configuration that they began with. Pools and listeners whose part of the file did not change are the same as
//! before, with their connections and their health. `[server]` and `[admin]` hold for as long as the process lives.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use tokio::sync::mpsc;

use super::explain::{Asked, explain};
use super::run::End;
use super::settings::TraceSettings;
use super::state_dir::StateDir;
use super::{Plan, compile_over, logger, notify, show};
use crate::admin::Control;
use crate::build::Build;
use crate::config::{self, Loaded};
use crate::gateway::Gateway;
use crate::keep::{self, Fingerprint, Keep};
use crate::server::acme::Acme;
use crate::server::listener::{self, Address, AdminSpec, ListenerSpec};
use crate::server::otlp::Collector;
use crate::server::{Expiry, Server};
use crate::telemetry::access_log::Rotation;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Tracer;
use crate::upstream::Background;

/// The gateway at work, and what it was made of.
pub(super) struct Running {
    /// The configuration's file; the demo has none.
    pub file: Option<PathBuf>,
    pub current: Arc<ArcSwap<Gateway>>,
    pub server: Server,
    /// The server of the admin interface, once it runs.
    pub admin: OnceLock<Server>,
    /// Where the tasks of pools run.
    pub runtime: tokio::runtime::Handle,
    pub pools: Background,
    /// Of the access logs, whichever configuration they come from.
    pub rotation: Rotation,
    pub state_dir: Option<StateDir>,
    pub pid_file: Option<PathBuf>,
    /// What an upgrade starts.
    pub binary: PathBuf,
    /// How long what is under way may take when the process ends.
    pub grace: Duration,
    /// Set once this process is to end.
    pub stopping: AtomicBool,
    /// Set once another process is the gateway.
    pub has_left: AtomicBool,
    /// Ends this process.
    pub end: mpsc::UnboundedSender<End>,
    pub acme: Arc<Acme>,
    pub metrics: Arc<Metrics>,
    pub expiry: Arc<Expiry>,
    pub state: Mutex<State>,
}

/// What a reload looks at and replaces.
pub(super) struct State {
    pub generation: u64,
    /// What the configuration says.
    pub loaded: Loaded,
    /// The files that it names: certificates and their like.
    pub files: Vec<PathBuf>,
    pub listeners: Vec<Arc<ListenerSpec>>,
    pub keep: Keep,
    pub trace: Option<TraceSettings>,
    /// `[server]` and `[admin]`.
    pub fixed: [Fingerprint; 2],
}

/// What a reload did.
#[derive(Serialize)]
pub(super) struct Receipt {
    /// How often the configuration was replaced, and once more.
    generation: u64,
    /// Of what the files say.
    digest: String,
    changes: Vec<String>,
    warnings: String,
    took_ms: f64,
}

impl Running {
    /// Reads the files again, or else only that of an API, and goes on with what they say.
    ///
    /// # Errors
    /// Every mistake in them; then nothing has changed.
    pub(super) fn load_again(&self, api: Option<&str>) -> Result<Receipt, String> {
        self.read_again(api).inspect_err(|_| self.metrics.config.refused())
    }

    fn read_again(&self, api: Option<&str>) -> Result<Receipt, String> {
        let Some(file) = &self.file else { return Err("the demo has no file to load again".to_owned()) };
        // One at a time, and none sees the half of another.
        let mut state = self.state.lock();
        if self.has_left.load(Ordering::Relaxed) {
            return Err("error: another process has taken over, and this one only ends what is under way".to_owned());
        }
        let began = Instant::now();
        let loaded = match api {
            Some(api) => config::load_api(file, api, &state.loaded),
            None => config::load(file),
        };
        let loaded = loaded.map_err(|diagnostics| diagnostics.to_string())?;
        self.replace(&mut state, Some(loaded), began)
    }

    /// Goes on with what the configuration's files, or else only the certificates that it names, say by now; does
    /// nothing if that is what runs.
    pub(super) fn catch_up(&self, all: bool) -> Result<(), String> {
        self.read_changed(all).inspect_err(|_| self.metrics.config.refused())
    }

    fn read_changed(&self, all: bool) -> Result<(), String> {
        let mut state = self.state.lock();
        let (Some(file), false) = (&self.file, self.has_left.load(Ordering::Relaxed)) else { return Ok(()) };
        let began = Instant::now();
        let loaded = match all {
            true => Some(config::load(file).map_err(|diagnostics| diagnostics.to_string())?),
            false => None,
        };
        match &loaded {
            Some(loaded) if loaded.sources == state.loaded.sources => Ok(()),
            _ => self.replace(&mut state, loaded, began).map(drop),
        }
    }

    /// Goes on with what is loaded, or with what was loaded before.
    fn replace(&self, state: &mut State, loaded: Option<Loaded>, began: Instant) -> Result<Receipt, String> {
        let before = self.current.load_full();
        let (plan, diagnostics) = compile_over(Some(&state.keep), loaded.as_ref().unwrap_or(&state.loaded));
        let Some(plan) = plan else { return Err(diagnostics.to_string()) };
        let Plan { mut gateway, listeners, settings, fixed, files, keep, .. } = plan;
        for (table, (now, then)) in ["server", "admin"].iter().zip(fixed.iter().zip(&state.fixed)) {
            if now != then {
                return Err(format!(
                    "error: [{table}] has changed, and that takes a new process: upgrade or restart the gateway"
                ));
            }
        }
        let mut changes = gateway.changes(&before);
        changes.extend(listener_changes(&state.listeners, &listeners));
        let digest = loaded.as_ref().unwrap_or(&state.loaded).digest();
        let receipt = |generation, changes| Receipt {
            generation,
            digest,
            changes,
            warnings: diagnostics.to_string(),
            took_ms: began.elapsed().as_secs_f64() * 1000.0,
        };
        if loaded.is_none() && changes.is_empty() {
            return Ok(receipt(state.generation, changes));
        }
        gateway.open_logs(&settings.access, &before.logs, &self.rotation, &self.metrics.access_log_dropped)?;
        gateway.tracer = match settings.trace == state.trace {
            true => before.tracer.clone(),
            false => tracer(settings.trace.as_ref(), &self.metrics, &self.runtime),
        };
        self.acme.load(&listeners);
        let bound = self.server.apply(&listeners).map_err(|errors| format!("error: {}", errors.join("\nerror: ")))?;
        for (name, address) in bound {
            eprintln!("listening name={name} address={address}");
        }
        // From here on nothing can fail.
        logger::set_level(settings.level);
        gateway.pools().for_each(|(_, pool)| pool.start(&self.pools));
        gateway.providers().start(self.pools.runtime());
        gateway.stores().start(self.pools.runtime());
        self.acme.apply(&listeners);
        self.expiry.watch(&listeners);
        self.current.store(Arc::new(gateway));
        state.generation += 1;
        self.metrics.config.accepted(state.generation);
        if let Some(loaded) = loaded {
            state.loaded = loaded;
        }
        (state.listeners, state.fixed, state.files) = (listeners, fixed, files);
        (state.keep, state.trace) = (keep, settings.trace);
        let receipt = receipt(state.generation, changes);
        let said = format!("generation {}, {}", receipt.generation, summary(&receipt.changes));
        log::info!("reloaded: {said}");
        notify::status(&said);
        Ok(receipt)
    }
}

/// What traces are made with; they go to their collector in the background.
pub(super) fn tracer(
    settings: Option<&TraceSettings>,
    metrics: &Metrics,
    background: &tokio::runtime::Handle,
) -> Option<Arc<Tracer>> {
    let settings = settings?;
    let (tracer, spans) = Tracer::new(settings.sample, metrics.traces_dropped.clone());
    let collector = Collector::new(settings.endpoint.clone(), metrics.traces_dropped.clone());
    background.spawn(collector.run(spans));
    Some(Arc::new(tracer))
}

impl Control for Running {
    fn reload(&self, api: Option<&str>) -> Result<Vec<u8>, String> {
        json(&self.load_again(api)?)
    }

    fn metrics(&self) -> String {
        self.expiry.measure();
        self.current.load().pools().for_each(|(_, pool)| pool.measure());
        self.metrics.render()
    }

    fn upgrade(&self) -> Result<Vec<u8>, String> {
        json(&Running::upgrade(self)?)
    }

    fn explain(&self, question: &[u8]) -> Result<Vec<u8>, String> {
        let asked: Asked = serde_json::from_slice(question).map_err(|error| format!("not a question: {error}"))?;
        // A gateway and the tree that it was made of: a reload replaces both under this lock.
        let state = self.state.lock();
        let explanation = explain(&asked, &self.current.load_full(), &state.listeners, &state.loaded)?;
        serde_json::to_vec(&explanation).map_err(|error| error.to_string())
    }

    fn config(&self) -> Result<Vec<u8>, String> {
        let state = self.state.lock();
        show::config(state.generation, &state.loaded)
    }

    fn routes(&self) -> Result<Vec<u8>, String> {
        let state = self.state.lock();
        show::routes(&self.current.load(), &state.loaded)
    }
}

fn json(receipt: &impl Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(receipt).map_err(|error| error.to_string())
}

fn listener_changes(before: &[Arc<ListenerSpec>], now: &[Arc<ListenerSpec>]) -> Vec<String> {
    fn by_name(specs: &[Arc<ListenerSpec>]) -> BTreeMap<&str, *const ListenerSpec> {
        specs.iter().map(|spec| (&*spec.facts.name, Arc::as_ptr(spec))).collect()
    }
    keep::changes("listener", &by_name(before), &by_name(now))
}

fn summary(changes: &[String]) -> String {
    match changes {
        [] => "nothing is named differently".to_owned(),
        changes if changes.len() <= 5 => changes.join(", "),
        changes => format!("{} and {} more", changes[..5].join(", "), changes.len() - 5),
    }
}

/// `portcullis reload`: looks the file over, then has the running gateway load it. Of one API alone it is the gateway that
/// looks: what else is in the files has no part in it.
pub(super) fn ask(file: &Path, api: Option<&str>) -> Result<(), String> {
    let Some(api) = api else { return command(file, "/reload", "send it SIGHUP") };
    let loaded = config::load(file).map_err(|diagnostics| diagnostics.to_string())?;
    let mut build = Build::new(&loaded.sources, &loaded.root);
    let admin = listener::compile_admin(&mut build).ok_or_else(|| build.diagnostics().to_string())?;
    let admin = admin.ok_or("error: without [admin] the running gateway cannot be asked")?;
    println!("{}", post(&admin, &format!("/apis/{}/reload", utf8_percent_encode(api, NON_ALPHANUMERIC)), "")?);
    Ok(())
}

/// Looks the file over, then asks the running gateway and prints its receipt.
///
/// # Errors
/// Mistakes in the file, or why the gateway does not do it. Without an admin interface there is something to do
/// `instead`.
pub(super) fn command(file: &Path, path: &str, instead: &str) -> Result<(), String> {
    let (_, plan) = super::load(file)?;
    let Some(admin) = plan.admin else {
        return Err(format!("error: without [admin] the running gateway cannot be asked: {instead}"));
    };
    println!("{}", post(&admin, path, "")?);
    Ok(())
}

/// Posts to the admin interface of the running gateway; gives the answer.
pub(super) fn post(admin: &AdminSpec, path: &str, body: &str) -> Result<String, String> {
    let mut request = format!("POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    if let Some(token) = admin.access.token() {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    request += "\r\n";
    request += body;
    let address = &admin.listener.address;
    let answer =
        exchange(address, &request).map_err(|error| format!("error: no gateway answers at {address}: {error}"))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    if head.split(' ').nth(1) == Some("200") {
        return Ok(body.to_owned());
    }
    let problem: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let detail = problem.as_ref().and_then(|problem| problem["detail"].as_str());
    Err(detail.unwrap_or(&answer).to_owned())
}

fn exchange(address: &Address, request: &str) -> std::io::Result<String> {
    const LONGEST: Duration = Duration::from_secs(180);
    let mut answer = String::new();
    match address {
        Address::Inet(address) => {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(LONGEST))?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer)?;
        }
        Address::Unix(path) => {
            let mut stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(LONGEST))?;
            stream.write_all(request.as_bytes())?;
            stream.read_to_string(&mut answer)?;
        }
    }
    Ok(answer)
}
