//! Reload: the file is read, checked, compiled anew and held to its tests, and the result takes the place of what
//! runs; or, when something is wrong with it, nothing changes and every mistake is told.
//!
//! `SIGHUP`, `POST /reload` at the admin interface and `portcullis reload` do the same. Requests end with the
//! configuration that they began with. Pools and listeners whose part of the file did not change are the same as
//! before, with their connections and their health. `[server]` and `[admin]` hold for as long as the process lives.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::Serialize;

use super::explain::{Asked, explain};
use super::{Plan, Previous, compile_over, logger};
use crate::admin::Control;
use crate::config::{self, Loaded};
use crate::gateway::Gateway;
use crate::keep::{Fingerprint, Kept};
use crate::server::Server;
use crate::server::listener::{Address, AdminSpec, ListenerSpec};
use crate::telemetry::access_log::{AccessLog, AccessLogConfig};

/// The gateway at work, and what it was made of.
pub(super) struct Running {
    /// The configuration's file; the demo has none.
    pub file: Option<PathBuf>,
    pub current: Arc<ArcSwap<Gateway>>,
    pub server: Server,
    /// Where the tasks of pools run.
    pub background: tokio::runtime::Handle,
    pub state: Mutex<State>,
}

/// What a reload looks at and replaces.
pub(super) struct State {
    pub generation: u64,
    /// What the configuration says.
    pub loaded: Loaded,
    pub listeners: Vec<Kept<ListenerSpec>>,
    pub access: AccessLogConfig,
    /// `[server]` and `[admin]`.
    pub fixed: [Fingerprint; 2],
}

/// What a reload did.
#[derive(Serialize)]
struct Receipt {
    /// How often the configuration was replaced, and once more.
    generation: u64,
    changes: Vec<String>,
    warnings: String,
    took_ms: f64,
}

impl Running {
    /// Reads the files again, and goes on with what they say.
    fn load_again(&self) -> Result<Receipt, String> {
        let Some(file) = &self.file else { return Err("the demo has no file to load again".to_owned()) };
        // One at a time, and none sees the half of another.
        let mut state = self.state.lock();
        let began = Instant::now();
        let loaded = config::load(file).map_err(|diagnostics| diagnostics.to_string())?;
        self.replace(&mut state, Some(loaded), began)
    }

    /// Goes on with what is loaded, or with what was loaded before and the certificates that it names as they are
    /// now.
    fn replace(&self, state: &mut State, loaded: Option<Loaded>, began: Instant) -> Result<Receipt, String> {
        let before = self.current.load_full();
        let previous = Previous { gateway: Some(&before), listeners: &state.listeners };
        let (plan, diagnostics) = compile_over(&previous, loaded.as_ref().unwrap_or(&state.loaded));
        let Some(plan) = plan else { return Err(diagnostics.to_string()) };
        let Plan { mut gateway, listeners, settings, fixed, .. } = plan;
        for (table, (now, then)) in ["server", "admin"].iter().zip(fixed.iter().zip(&state.fixed)) {
            if now != then {
                return Err(format!("error: [{table}] has changed, and that takes a new process: restart the gateway"));
            }
        }
        gateway.access_log = match settings.access == state.access {
            true => before.access_log.clone(),
            false => AccessLog::open(&settings.access)
                .map_err(|error| format!("error: cannot open the access log: {error}"))?
                .map(Arc::new),
        };
        let bound = self.server.apply(&listeners).map_err(|errors| format!("error: {}", errors.join("\nerror: ")))?;
        for (name, address) in bound {
            eprintln!("listening name={name} address={address}");
        }
        // From here on nothing can fail.
        logger::set_level(settings.level);
        gateway.pools().for_each(|(_, pool)| pool.start(&self.background));
        let mut changes = gateway.changes(&before);
        changes.extend(listener_changes(&state.listeners, &listeners));
        self.current.store(Arc::new(gateway));
        state.generation += 1;
        if let Some(loaded) = loaded {
            state.loaded = loaded;
        }
        (state.listeners, state.access, state.fixed) = (listeners, settings.access, fixed);
        let receipt = Receipt {
            generation: state.generation,
            changes,
            warnings: diagnostics.to_string(),
            took_ms: began.elapsed().as_secs_f64() * 1000.0,
        };
        log::info!("reloaded: generation {}, {}", receipt.generation, summary(&receipt.changes));
        Ok(receipt)
    }
}

impl Control for Running {
    fn reload(&self) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&self.load_again()?).map_err(|error| error.to_string())
    }

    fn explain(&self, question: &[u8]) -> Result<Vec<u8>, String> {
        let asked: Asked = serde_json::from_slice(question).map_err(|error| format!("not a question: {error}"))?;
        // A gateway and the tree that it was made of: a reload replaces both under this lock.
        let state = self.state.lock();
        let explanation = explain(&asked, &self.current.load_full(), &state.listeners, &state.loaded)?;
        serde_json::to_vec(&explanation).map_err(|error| error.to_string())
    }
}

fn listener_changes(before: &[Kept<ListenerSpec>], now: &[Kept<ListenerSpec>]) -> Vec<String> {
    let find = |kept: &Kept<ListenerSpec>, others: &[Kept<ListenerSpec>]| {
        others.iter().find(|other| other.thing.facts.name == kept.thing.facts.name).cloned()
    };
    let mut changes = Vec::new();
    for kept in now {
        match find(kept, before) {
            None => changes.push(format!("listener {} added", kept.thing.facts.name)),
            Some(other) if !other.is(kept) => changes.push(format!("listener {} changed", kept.thing.facts.name)),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|kept| find(kept, now).is_none());
    changes.extend(gone.map(|kept| format!("listener {} removed", kept.thing.facts.name)));
    changes
}

fn summary(changes: &[String]) -> String {
    match changes {
        [] => "nothing is named differently".to_owned(),
        changes if changes.len() <= 5 => changes.join(", "),
        changes => format!("{} and {} more", changes[..5].join(", "), changes.len() - 5),
    }
}

/// `portcullis reload`: looks the file over, then has the running gateway load it.
pub(super) fn ask(file: &Path) -> Result<(), String> {
    let (_, plan) = super::load(file)?;
    let Some(admin) = plan.admin else {
        return Err("error: without [admin] the running gateway cannot be asked: send it SIGHUP".to_owned());
    };
    println!("{}", post(&admin, "/reload", "")?);
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
    let address = &admin.listener.thing.address;
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
    const LONGEST: Duration = Duration::from_secs(60);
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
