//! Stores: what several gateways know together, in a Redis.
//!
//! ```toml
//! [store.shared]
//! redis = { url = { env = "REDIS_URL" }, timeout = "20ms" }   # redis://:password@redis.internal:6379/0
//!
//! [defaults]
//! rate_limit = { rate = "100/s", store = "shared", store_down = "local" }
//! ```
//!
//! A store is asked by one [`Script`] a request, which Redis runs at one go. Every worker has a connection of its own,
//! made when it first asks, so that nothing wakes another thread.
//!
//! No request waits for a store that is down. A call has a deadline. The first call that fails (no answer in time, a broken
//! connection, an error, what is no answer at all) makes the store count as down for all workers: their connections are
//! given up, and nobody asks. From then on a task in the background tries once a second, with a connection of its own and
//! with what a real call needs: a script that writes. When that works the store is up. What is under way is bounded; a
//! call beyond that fails, and says nothing of the store.
//!
//! What a store says is not trusted, and no length that it names makes the gateway hold more than a few lines. That is why
//! the client is the gateway's own: the published ones read an answer of any length into memory.

mod config;
mod link;
pub(crate) mod resp;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::build::{Build, Node};
use crate::keep;
use crate::telemetry::metrics;
use crate::telemetry::metrics::traffic::{Called, Meter, StoreSeries};
use config::StoreConfig;
use link::{Address, Call, Failure, Target};
use resp::Answer;

pub use resp::Numbers;

/// How long a store that is down is left alone.
const PAUSE: Duration = Duration::from_secs(1);
/// Workers beyond share a connection with others.
const MOST_LINKS: usize = 64;
/// Needs what the scripts of policies need.
const PROBE: &str =
    "redis.call('TIME') redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], 1, 'PX', 1000) return {1}";

/// Every `[store.NAME]`, compiled.
#[derive(Default)]
pub struct Stores(BTreeMap<String, Named>);

/// A store, and whether anything uses it. `None` stands for one with mistakes, so that what names it is not reported as
/// well.
struct Named {
    store: Option<Arc<Store>>,
    used: AtomicBool,
}

/// A Redis, and the task that looks after it, which ends with this.
pub struct Store {
    redis: Arc<Redis>,
    started: AtomicBool,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Redis {
    name: Box<str>,
    target: Arc<Target>,
    timeout: Duration,
    /// How often it fell and came up again: even while it is up.
    turns: AtomicU64,
    fell: Notify,
    /// The connection of each worker.
    links: Box<[Mutex<Option<mpsc::Sender<Call>>>]>,
    counts: StoreSeries,
}

/// A Lua script that gives a number for each of its keys.
pub struct Script {
    /// The beginning of a call by the script's SHA-1, and of one that brings the text.
    by_hash: Box<[u8]>,
    by_text: Box<[u8]>,
    /// What follows the keys.
    arguments: Box<[u8]>,
    keys: usize,
}

/// What a store knows something by.
pub type Key = SmallVec<[u8; 80]>;

/// A store has no answer now; why is in the operator's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable;

impl Stores {
    /// Compiles every `[store.NAME]`.
    pub fn compile(root: &Node, meter: &Meter, build: &mut Build<'_>) -> Self {
        let mut stores = BTreeMap::new();
        for (name, entry) in root.get("store").and_then(Node::table).into_iter().flatten() {
            config::hide_passwords(&entry.node, build);
            let store = build.within_detached(&entry.node, |build| Store::compile(name, meter, build));
            stores.insert(name.clone(), Named { store, used: AtomicBool::new(false) });
        }
        Self(stores)
    }

    /// The store that the key `key` names. `None` if it has mistakes, or after a report that there is none.
    pub fn find(&self, key: &str, name: &str, build: &mut Build<'_>) -> Option<Arc<Store>> {
        let Some(named) = self.0.get(name) else {
            build.unknown(key, "store", name, self.0.keys().map(String::as_str));
            return None;
        };
        named.used.store(true, Ordering::Relaxed);
        named.store.clone()
    }

    /// Warns of stores that nothing uses.
    pub fn report_unused(&self, build: &mut Build<'_>) {
        for (name, named) in &self.0 {
            if named.store.is_some() && !named.used.load(Ordering::Relaxed) {
                build.warning(&format!("store.{name}"), format!("no limit of a route uses the store `{name}`"));
            }
        }
    }

    /// The stores that are used.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Store>> {
        self.0.values().filter(|named| named.used.load(Ordering::Relaxed)).filter_map(|named| named.store.as_ref())
    }

    /// What is not as it was among the `previous` ones, in words.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        fn by_name(of: &Stores) -> BTreeMap<&str, *const Store> {
            of.0.iter().filter_map(|(name, named)| Some((name.as_str(), Arc::as_ptr(named.store.as_ref()?)))).collect()
        }
        keep::changes("store", &by_name(previous), &by_name(self))
    }

    /// Starts looking after the stores that are used, on a runtime that outlives this. To start it again changes nothing.
    pub fn start(&self, runtime: &tokio::runtime::Handle) {
        self.iter().for_each(|store| store.start(runtime));
    }
}

impl Store {
    /// The one of the configuration before, if nothing of it changed. `None` after every mistake was reported.
    fn compile(name: &str, meter: &Meter, build: &mut Build<'_>) -> Option<Arc<Self>> {
        build.check_name("a store", name)?;
        let node = build.node();
        let config: StoreConfig = build.deserialize()?;
        let mut made_of = build.fingerprint(node, config::FILES);
        build.within("redis", |build| {
            let (target, timeout) = config.redis.compile(build)?;
            // What a variable or a credential held is in here.
            made_of.add(b'g', &target.greeting);
            made_of.add(b'a', format!("{}:{}", target.host, target.port).as_bytes());
            build.keep(name, made_of, |_| Some(Self::new(name, target, timeout, meter)))
        })
    }

    fn new(name: &str, target: Target, timeout: Duration, meter: &Meter) -> Self {
        let redis = Redis {
            name: name.into(),
            target: Arc::new(target),
            timeout,
            turns: AtomicU64::new(0),
            fell: Notify::new(),
            links: (0..MOST_LINKS).map(|_| Mutex::default()).collect(),
            counts: meter.store(name),
        };
        Self { redis: Arc::new(redis), started: AtomicBool::new(false), task: Mutex::default() }
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &str {
        &self.redis.name
    }

    /// Whether it is asked.
    pub fn is_up(&self) -> bool {
        self.redis.is_up()
    }

    fn start(&self, runtime: &tokio::runtime::Handle) {
        if !self.started.swap(true, Ordering::Relaxed) {
            self.redis.counts.is_up(true);
            *self.task.lock() = Some(runtime.spawn(self.redis.clone().look_after()));
        }
    }

    /// Has Redis run a script, from a worker: with other `arguments` than its own, if there are any.
    ///
    /// # Errors
    /// There is no answer, or none in time. Then the script may have run or not.
    pub async fn run(&self, script: &Script, keys: &[Key], arguments: Option<&[u64]>) -> Result<Numbers, Unavailable> {
        self.redis.run(script, keys, arguments).await
    }
}

impl Redis {
    fn is_up(&self) -> bool {
        is_up(self.turns.load(Ordering::Relaxed))
    }

    async fn run(&self, script: &Script, keys: &[Key], arguments: Option<&[u64]>) -> Result<Numbers, Unavailable> {
        let turn = self.turns.load(Ordering::Relaxed);
        if !is_up(turn) {
            self.counts.own().called(Called::Spared);
            return Err(Unavailable);
        }
        let began = Instant::now();
        let asked =
            tokio::time::timeout(self.timeout, self.ask(script, keys, arguments)).await.unwrap_or(Err(Failure::Late));
        let called = match &asked {
            Ok(_) => Called::Answered(began.elapsed()),
            Err(Failure::Busy) => Called::Busy,
            Err(Failure::Late) => Called::Late,
            Err(_) => Called::Failed,
        };
        self.counts.own().called(called);
        asked.map_err(|failure| {
            if failure != Failure::Busy {
                self.falls(turn, &failure);
            }
            Unavailable
        })
    }

    async fn ask(&self, script: &Script, keys: &[Key], arguments: Option<&[u64]>) -> Result<Numbers, Failure> {
        let call = |head| self.call(script.call(head, keys, arguments), script.keys);
        let answer = match call(&script.by_hash).await? {
            Answer::Refused(code) if *code == *"NOSCRIPT" => call(&script.by_text).await?,
            answer => answer,
        };
        script.numbers(answer)
    }

    /// One command over the worker's connection.
    async fn call(&self, command: Vec<u8>, numbers: usize) -> Result<Answer, Failure> {
        let (to, answer) = oneshot::channel();
        let sent = {
            let mut link = self.links[metrics::thread() % MOST_LINKS].lock();
            let link = match &mut *link {
                Some(link) if !link.is_closed() => link,
                other => {
                    let (sender, calls) = mpsc::channel(link::MOST);
                    tokio::spawn(link::run(self.target.clone(), calls));
                    other.insert(sender)
                }
            };
            link.try_send(Call { command, numbers, to })
        };
        match sent {
            Ok(()) => answer.await.unwrap_or(Err(Failure::Broken)),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Failure::Busy),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Failure::Broken),
        }
    }

    /// It is down, as was found in this turn.
    fn falls(&self, turn: u64, failure: &Failure) {
        if self.turns.compare_exchange(turn, turn + 1, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        // The next connection may find another server behind the name.
        self.links.iter().for_each(|link| drop(link.lock().take()));
        self.counts.is_up(false);
        self.fell.notify_one();
        log::warn!("the store {} is down: {failure}", self.name);
    }

    fn comes_up(&self) {
        let turn = self.turns.load(Ordering::Relaxed);
        if !is_up(turn) {
            self.turns.store(turn + 1, Ordering::Relaxed);
            self.counts.is_up(true);
            log::info!("the store {} is up", self.name);
        }
    }

    /// Tries once at the start, and then whenever the store is down.
    async fn look_after(self: Arc<Self>) {
        loop {
            let turn = self.turns.load(Ordering::Relaxed);
            match self.probe().await {
                Ok(()) => self.comes_up(),
                Err(failure) if is_up(turn) => self.falls(turn, &failure),
                Err(_) => {}
            }
            while self.is_up() {
                self.fell.notified().await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks over a connection of its own.
    async fn probe(&self) -> Result<(), Failure> {
        let stream = self.target.connect(Address::Anew).await?;
        let script = Script::new(PROBE, 1, &[]);
        let command = script.call(&script.by_text, &[Key::from_slice(b"portcullis:probe")], None);
        let (link, mut calls) = mpsc::channel(1);
        let (to, answer) = oneshot::channel();
        let _ = link.try_send(Call { command, numbers: script.keys, to });
        let carry = async {
            link::exchange(stream, &self.target, &mut calls).await;
            std::future::pending().await
        };
        let asked = async {
            tokio::select! {
                answer = answer => answer.unwrap_or(Err(Failure::Broken)),
                () = carry => Err(Failure::Broken),
            }
        };
        let answer = tokio::time::timeout(self.timeout, asked).await.unwrap_or(Err(Failure::Late))?;
        script.numbers(answer).map(|_| ())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut() {
            task.abort();
        }
    }
}

fn is_up(turn: u64) -> bool {
    turn.is_multiple_of(2)
}

impl Script {
    /// A script with its arguments, for so many keys.
    pub fn new(text: &str, keys: usize, arguments: &[u64]) -> Self {
        let head = |command: &[u8], script: &[u8]| {
            let mut head = resp::head(3 + keys + arguments.len());
            let count = keys.to_string();
            [command, script, count.as_bytes()].iter().for_each(|word| resp::bulk(&mut head, word));
            head.into()
        };
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self {
            by_hash: head(b"EVALSHA", hash.as_bytes()),
            by_text: head(b"EVAL", text.as_bytes()),
            arguments: encoded(arguments).into(),
            keys,
        }
    }

    fn call(&self, head: &[u8], keys: &[Key], arguments: Option<&[u64]>) -> Vec<u8> {
        let arguments = arguments.map_or(Cow::Borrowed(&*self.arguments), |others| Cow::Owned(encoded(others)));
        let keys_length: usize = keys.iter().map(|key| key.len() + 10).sum();
        let mut command = Vec::with_capacity(head.len() + keys_length + arguments.len());
        command.extend_from_slice(head);
        keys.iter().for_each(|key| resp::bulk(&mut command, key));
        command.extend_from_slice(&arguments);
        command
    }

    /// A number for each key.
    fn numbers(&self, answer: Answer) -> Result<Numbers, Failure> {
        match answer {
            Answer::Numbers(numbers) if numbers.len() == self.keys => Ok(numbers),
            Answer::Refused(code) => Err(Failure::Refused(code)),
            _ => Err(Failure::Garbage),
        }
    }
}

fn encoded(arguments: &[u64]) -> Vec<u8> {
    let mut text = Vec::new();
    arguments.iter().for_each(|argument| resp::bulk(&mut text, itoa::Buffer::new().format(*argument).as_bytes()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(port: u16) -> Store {
        let (host, known) = ("127.0.0.1".into(), Mutex::default());
        let target = Target { host, port, tls: None, greeting: Box::default(), greetings: 0, known };
        Store::new("a", target, Duration::from_secs(5), &Meter::default())
    }

    #[test]
    fn a_store_falls_once_and_only_by_what_was_asked_since_it_came_up() {
        let store = store(1);
        let redis = &store.redis;
        assert!(store.is_up());
        redis.comes_up();
        redis.falls(0, &Failure::Late);
        redis.falls(0, &Failure::Broken);
        assert!(!store.is_up());
        redis.comes_up();
        assert!(store.is_up());
        redis.falls(0, &Failure::Late);
        assert!(store.is_up(), "that call began before");
        redis.falls(2, &Failure::Late);
        assert!(!store.is_up());
    }

    #[test]
    fn no_more_than_so_many_calls_are_under_way() {
        // Connections are made there, and nothing is read.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let redis = store(listener.local_addr().unwrap().port()).redis.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let busy = runtime.block_on(async {
            let mut busy = 0;
            let mut waiting = Vec::new();
            for _ in 0..3 * link::MOST {
                let mut call = Box::pin(redis.call(resp::command(&[b"PING"]), 0));
                // The connection's task has its turn after each.
                match tokio::time::timeout(Duration::ZERO, &mut call).await {
                    Ok(answer) => busy += usize::from(answer == Err(Failure::Busy)),
                    Err(_) => waiting.push(call),
                }
                tokio::task::yield_now().await;
            }
            assert!(waiting.len() <= 2 * link::MOST, "{}", waiting.len());
            busy
        });
        assert!(busy >= link::MOST, "{busy}");
    }

    #[test]
    fn a_call_has_the_keys_between_the_script_and_its_arguments() {
        let script = Script::new("return {1}", 1, &[7, 0]);
        let text = |head: &[u8]| String::from_utf8(script.call(head, &[Key::from_slice(b"k")], None)).unwrap();
        let rest = "$1\r\n1\r\n$1\r\nk\r\n$1\r\n7\r\n$1\r\n0\r\n";
        assert_eq!(text(&script.by_text), format!("*6\r\n$4\r\nEVAL\r\n$10\r\nreturn {{1}}\r\n{rest}"));
        let hash = "9c8545b8579e405965831fc6d1e3d0b3ac248d51";
        assert_eq!(text(&script.by_hash), format!("*6\r\n$7\r\nEVALSHA\r\n$40\r\n{hash}\r\n{rest}"));
        let others = script.call(&script.by_hash, &[Key::from_slice(b"k")], Some(&[9, 10]));
        assert!(others.ends_with(b"$1\r\nk\r\n$1\r\n9\r\n$2\r\n10\r\n"));
        let given = |list: &[u64]| script.numbers(Answer::Numbers(list.iter().copied().collect()));
        assert!(given(&[3]).is_ok());
        assert_eq!((given(&[]), given(&[1, 2])), (Err(Failure::Garbage), Err(Failure::Garbage)));
        assert_eq!(script.numbers(Answer::Done), Err(Failure::Garbage));
    }
}
