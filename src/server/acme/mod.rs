//! `acme` of a listener's `tls`: certificates that the gateway obtains and renews by itself (ACME, RFC 8555).
//!
//! ```toml
//! [server]
//! state_dir = "/var/lib/portcullis"
//!
//! [listen.public]
//! address = "0.0.0.0:443"
//! [listen.public.tls]
//! acme = { names = ["api.example.com"], challenge = "tls-alpn-01", agree_to_terms = true }
//! ```
//!
//! The CA checks a name by TLS-ALPN-01 (RFC 8737) at the listener's own port, or by HTTP-01 (RFC 8555, section 8.3) at
//! any listener without TLS; it connects to port 443 or 80 of the name. Wildcards would need DNS-01, which is not
//! spoken.
//!
//! [`Acme`] outlives reloads. A configuration names the certificates that it wants; the same one on two listeners is
//! obtained once. [`Acme::load`] serves what is stored, and [`Acme::apply`] takes over those of the
//! listeners that hold now: each certificate has a task that renews it. No CA is asked before [`Acme::start`], so that
//! of two processes that live side by side only one does.
//!
//! What is where: `config` is the table in the file, `store` the files of the state, `renew` when to ask, `order`
//! one conversation with the CA, `client` the HTTP that carries it, `challenge` the answers to TLS-ALPN-01.

mod challenge;
mod client;
mod config;
mod order;
mod renew;
mod store;

use std::path::Path;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::listener::ListenerSpec;
use super::tls::{Certificate, Held, now};
use crate::http01::Http01;
use crate::telemetry::metrics::Metrics;
use challenge::TlsAlpn01;
use config::{Challenge, Settings};
use store::Store;

pub(super) use challenge::ALPN;
pub(super) use config::{AcmeConfig, hide_secrets};

/// Every certificate that is obtained by ACME, for as long as the process lives.
pub struct Acme {
    shared: Arc<Shared>,
    /// Those that a configuration names, also one that is only looked over.
    known: Mutex<Vec<Weak<Managed>>>,
    work: Mutex<Work>,
}

/// A certificate that is obtained and renewed.
pub struct Managed {
    settings: Settings,
    certificate: Arc<Certificate>,
}

/// What the tasks have in common.
struct Shared {
    /// `None` without a state directory; then no certificate can be named.
    store: Option<Store>,
    http01: Arc<Http01>,
    tls_alpn01: Arc<TlsAlpn01>,
    /// Held while an account is looked up or made, so that no two are made for the same.
    accounts: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Work {
    started: Option<(Handle, Arc<Metrics>)>,
    tasks: Vec<Task>,
}

/// A certificate that holds now; who renews it, once started.
struct Task {
    managed: Arc<Managed>,
    hurry: Arc<Notify>,
    running: Option<JoinHandle<()>>,
}

impl Acme {
    /// Without certificates yet. They and the accounts will be kept in the folder `acme` of `state_dir`.
    pub fn new(state_dir: Option<&Path>) -> Self {
        let shared = Shared {
            store: state_dir.map(|dir| Store::new(dir.join("acme"))),
            http01: Arc::default(),
            tls_alpn01: Arc::default(),
            accounts: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared), known: Mutex::default(), work: Mutex::default() }
    }

    /// The challenges that listeners without TLS answer.
    pub fn http01(&self) -> Arc<Http01> {
        self.shared.http01.clone()
    }

    /// Serves what is stored of the certificates of these listeners, before they take connections.
    pub fn load(&self, listeners: &[Arc<ListenerSpec>]) {
        for managed in managed(listeners).filter(|managed| managed.certificate.held().is_none()) {
            self.shared.load(managed);
        }
    }

    /// Goes on with the certificates of these listeners: those that no listener names any more are left alone, and
    /// failed attempts are made again now.
    pub fn apply(&self, listeners: &[Arc<ListenerSpec>]) {
        let mut work = self.work.lock();
        work.tasks.retain(|task| managed(listeners).any(|other| Arc::ptr_eq(other, &task.managed)));
        work.tasks.iter().for_each(|task| task.hurry.notify_waiters());
        for managed in managed(listeners) {
            if !work.tasks.iter().any(|task| Arc::ptr_eq(&task.managed, managed)) {
                work.tasks.push(Task { managed: managed.clone(), hurry: Arc::default(), running: None });
            }
        }
        work.run(&self.shared);
    }

    /// Begins to ask CAs, on a runtime that outlives this. To be called by the process that is in charge: a CA that
    /// checks a name may come to any process that takes connections, and only this one knows what to answer.
    pub fn start(&self, runtime: &Handle, metrics: &Arc<Metrics>) {
        let mut work = self.work.lock();
        work.started = Some((runtime.clone(), metrics.clone()));
        work.run(&self.shared);
    }

    /// Asks no CA any more; what is served stays. For a process that makes way for another, or ends.
    pub fn stop(&self) {
        let mut work = self.work.lock();
        work.started = None;
        work.tasks.iter_mut().for_each(Task::stop);
    }

    /// The certificate with these settings: the one that there is, or a new one that is not obtained yet.
    fn managed(&self, settings: Settings) -> Arc<Managed> {
        let mut known = self.known.lock();
        known.retain(|managed| managed.strong_count() > 0);
        if let Some(same) = known.iter().filter_map(Weak::upgrade).find(|managed| managed.settings == settings) {
            return same;
        }
        let managed = Arc::new(Managed { certificate: Arc::new(Certificate::renewed(settings.name())), settings });
        known.push(Arc::downgrade(&managed));
        managed
    }

    /// What a listener speaks to a CA that checks a TLS-ALPN-01 challenge.
    pub(super) fn challenges(&self) -> Arc<ServerConfig> {
        challenge::server(&self.shared.tls_alpn01)
    }
}

fn managed(listeners: &[Arc<ListenerSpec>]) -> impl Iterator<Item = &Arc<Managed>> {
    listeners.iter().flat_map(|listener| &listener.tls).flat_map(|tls| tls.managed())
}

impl Managed {
    /// What is served, once it is obtained.
    pub(super) fn certificate(&self) -> &Arc<Certificate> {
        &self.certificate
    }

    /// The names that it is for.
    pub(super) fn names(&self) -> &[String] {
        &self.settings.names
    }

    /// Whether the CA checks the names by TLS-ALPN-01.
    pub(super) fn is_checked_by_tls(&self) -> bool {
        self.settings.challenge == Challenge::TlsAlpn01
    }

    /// Whether both would be stored in the same place, with different settings.
    pub(super) fn is_at_odds_with(&self, other: &Self) -> bool {
        self.settings.identity() == other.settings.identity() && self.settings != other.settings
    }
}

impl Work {
    /// Has every certificate a task, once started.
    fn run(&mut self, shared: &Arc<Shared>) {
        let Some((runtime, metrics)) = &self.started else { return };
        for task in self.tasks.iter_mut().filter(|task| task.running.is_none()) {
            let renewal = renew::run(shared.clone(), task.managed.clone(), task.hurry.clone(), metrics.clone());
            task.running = Some(runtime.spawn(renewal));
        }
    }
}

impl Task {
    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    /// Serves what is stored of a certificate, if that is better than what is served.
    fn load(&self, managed: &Managed) {
        let Some(store) = &self.store else { return };
        let path = store.certificate(&managed.settings);
        let pem = match store.read(&path) {
            Ok(Some(pem)) => pem,
            Ok(None) => return,
            Err(error) => return log::error!("{error}"),
        };
        match Held::from_pem(&pem).and_then(|held| managed.accept(held)) {
            Ok(held) => {
                let current = managed.certificate.held();
                if current.is_none_or(|current| current.leaf.not_after < held.leaf.not_after) {
                    managed.certificate.install(held);
                }
            }
            Err(error) => log::warn!("the stored certificate {} is not used: {error}", path.display()),
        }
    }
}

impl Managed {
    /// Gives a certificate back that is for the names of this one and valid now. A CA may add names, such as `www.`
    /// before a domain.
    fn accept(&self, held: Held) -> Result<Held, String> {
        if let Some(missing) = self.names().iter().find(|name| !held.leaf.names.contains(name)) {
            return Err(format!("it is for {}, not for {missing}", held.leaf.names.join(", ")));
        }
        held.leaf.check(now())?;
        Ok(held)
    }
}
