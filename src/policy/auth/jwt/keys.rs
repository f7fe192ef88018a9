//! Where the keys come from: the configuration, or a provider that is asked in the background.
//!
//! One task asks, so that no two requests ask at once: when the keys are due, and when a token names a key that is not
//! known, but then not sooner than the cool-down after the time before. While the provider gives no answer, the keys
//! that there are stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::key::Key;
use crate::client::Client;
use crate::policy::auth::remote;

/// How long a request waits for keys.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one answer of a provider may take.
pub(super) const LONGEST: Duration = Duration::from_secs(10);
/// Bytes of one answer of a provider.
pub(super) const LARGEST: usize = 256 << 10;
/// After a failure the provider is asked again after a second, then after twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keys, at one time.
pub(super) struct KeySet {
    /// Goes up with every change of the keys.
    pub(super) generation: u64,
    pub(super) keys: Vec<Key>,
}

/// The keys of a provider, and the task that asks for them, which ends with this.
pub(super) struct Keys {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    set: ArcSwapOption<KeySet>,
    remote: Option<Remote>,
}

/// A provider to ask.
pub(super) struct Remote {
    /// For the log.
    pub(super) name: Box<str>,
    pub(super) place: Place,
    pub(super) client: Client,
    pub(super) refresh: Duration,
    pub(super) cool_down: Duration,
    state: State,
}

/// Where a provider's keys are.
pub(super) enum Place {
    /// Where the metadata of this issuer says (OpenID Connect Discovery 1.0).
    Discover(String),
    /// There.
    Url(String),
}

#[derive(Default)]
struct State {
    started: AtomicBool,
    wanted: Notify,
    asking: AtomicBool,
    last: Mutex<Option<Instant>>,
    /// How often the provider was asked.
    asked: watch::Sender<u64>,
}

impl Keys {
    /// Keys that do not change.
    pub(super) fn fixed(keys: Vec<Key>) -> Self {
        let set = KeySet { generation: 0, keys };
        let shared = Shared { set: ArcSwapOption::from_pointee(set), remote: None };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// Keys of a provider, which is not asked before [`Self::start`].
    pub(super) fn of(remote: Remote) -> Self {
        let shared = Shared { set: ArcSwapOption::empty(), remote: Some(remote) };
        Self { shared: Arc::new(shared), task: Mutex::default() }
    }

    /// Starts asking, on a runtime that outlives this. To start it again changes nothing.
    pub(super) fn start(&self, runtime: &tokio::runtime::Handle) {
        let Some(remote) = &self.shared.remote else { return };
        if !remote.state.started.swap(true, Ordering::AcqRel) {
            *self.task.lock() = Some(runtime.spawn(run(self.shared.clone())));
        }
    }

    /// The keys as they are now.
    pub(super) fn now(&self) -> Option<Arc<KeySet>> {
        self.shared.set.load_full()
    }

    /// The generation of the keys as they are now.
    pub(super) fn generation(&self) -> Option<u64> {
        self.shared.set.load().as_ref().map(|set| set.generation)
    }

    /// The keys after the provider was asked again, where that is due or under way: `known` did not do.
    pub(super) async fn renewed(&self, known: Option<u64>) -> Option<Arc<KeySet>> {
        let remote = self.shared.remote.as_ref()?;
        let state = &remote.state;
        if !state.started.load(Ordering::Acquire) {
            return None;
        }
        let mut asked = state.asked.subscribe();
        // Somebody else's question may have been answered meanwhile.
        if self.generation() == known {
            let cooled = state.last.lock().is_none_or(|last| last.elapsed() >= remote.cool_down);
            if !cooled && !state.asking.load(Ordering::Acquire) {
                return None;
            }
            state.wanted.notify_one();
            let _ = tokio::time::timeout(PATIENCE, asked.changed()).await;
        }
        self.now().filter(|set| Some(set.generation) != known)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

impl Remote {
    pub(super) fn new(name: &str, place: Place, client: Client, refresh: Duration, cool_down: Duration) -> Self {
        Self { name: name.into(), place, client, refresh, cool_down, state: State::default() }
    }

    async fn fetch(&self) -> Result<Vec<Key>, String> {
        let set = match &self.place {
            Place::Url(url) => remote::read(&self.client, url).await?,
            Place::Discover(issuer) => {
                let url = remote::discover(&self.client, issuer, "jwks_uri").await?;
                remote::read(&self.client, &url).await?
            }
        };
        let (keys, left_out) = Key::set(&set)?;
        if keys.is_empty() {
            return Err(format!("there is no usable key: {}", left_out.join("; ")));
        }
        left_out.iter().for_each(|why| log::debug!("a key of the provider {} is left out: {why}", self.name));
        Ok(keys)
    }
}

async fn run(shared: Arc<Shared>) {
    let Some(remote) = &shared.remote else { return };
    let state = &remote.state;
    let mut pause = Duration::from_secs(1);
    loop {
        state.asking.store(true, Ordering::Release);
        let fetched = remote.fetch().await;
        *state.last.lock() = Some(Instant::now());
        let rest = match fetched {
            Ok(keys) => {
                pause = Duration::from_secs(1);
                shared.put(keys);
                remote.refresh
            }
            Err(error) => {
                log::warn!("the keys of the provider {} cannot be fetched: {error}", remote.name);
                let rest = pause.min(remote.refresh);
                pause = (2 * pause).min(LONGEST_PAUSE);
                rest
            }
        };
        state.asking.store(false, Ordering::Release);
        state.asked.send_modify(|asked| *asked += 1);
        let due = tokio::time::sleep(rest);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => break,
                () = state.wanted.notified() => {
                    if state.last.lock().is_none_or(|last| last.elapsed() >= remote.cool_down) {
                        break;
                    }
                }
            }
        }
    }
}

impl Shared {
    fn put(&self, keys: Vec<Key>) {
        let before = self.set.load();
        match before.as_ref() {
            Some(before) if before.keys == keys => {}
            before => {
                let generation = before.map_or(0, |before| before.generation + 1);
                self.set.store(Some(Arc::new(KeySet { generation, keys })));
            }
        }
    }
}
