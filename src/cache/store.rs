//! What is stored, in memory: answers by their keys, bounded in bytes with all that they need counted.
//!
//! What an answer has to be worth to get in, and what goes for it, is decided by TinyLFU: what is asked for once does
//! not push out what is asked for again and again ("TinyLFU: A Highly Efficient Cache Admission Policy", 2017).
//!
//! An answer that has `Vary` is stored under its key and the values of the fields that `Vary` names, and below the key
//! itself the store remembers those names: all that answers under it have named so far, for what is told apart by more
//! than it must be is still told apart (RFC 9111, section 4.1).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{HeaderMap, VARY};
use http::{HeaderName, HeaderValue};
use moka::notification::RemovalCause;
use parking_lot::Mutex;
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use super::fill::{Fill, Underway};
use super::freshness::Life;
use super::key::{Key, Resource};
use crate::telemetry::metrics::traffic::CacheSeries;

/// An answer in the store.
#[derive(Debug)]
pub struct Stored {
    /// What it is an answer to.
    pub resource: Resource,
    /// Its head, without what is about one connection or one request.
    pub head: ResponseHeader,
    /// Its whole body.
    pub body: Bytes,
    /// How long it may be used.
    pub life: Life,
    /// What it can be purged by.
    pub tags: Box<[Box<str>]>,
}

#[derive(Clone)]
enum Entry {
    /// Answers are told apart by these fields of the request.
    Vary(Arc<[HeaderName]>),
    Answer(Arc<Stored>),
}

/// What is to be removed.
#[derive(Debug, Clone, PartialEq)]
pub enum Purge {
    /// The answers to one URL, whatever else their keys have.
    Url(Resource),
    /// The answers to all URLs that begin like this.
    Prefix(Resource),
    /// The answers that have a tag.
    Tag(Box<str>),
    /// Everything.
    All,
}

/// The answers of one zone.
pub struct Store {
    entries: moka::sync::Cache<Arc<[u8]>, Entry>,
    /// The keys below which there are answers to a resource, whatever its query.
    index: Arc<Index>,
    fills: Mutex<Fills>,
    /// The bytes of answers under way that may be stored.
    underway: Arc<Underway>,
    /// What was asked for and could not be stored, for a while: it is not waited for by others.
    hopeless: moka::sync::Cache<u64, ()>,
    hash: RandomState,
    counts: CacheSeries,
}

/// What is being fetched.
#[derive(Default)]
struct Fills {
    /// Where it may be stored: who wants that joins.
    slots: HashMap<Arc<[u8]>, Arc<Fill>>,
    /// What nobody joins.
    alone: Vec<Arc<Fill>>,
}

/// What looking for an answer came to.
pub enum Found {
    /// There is one.
    Answer(Arc<Stored>),
    /// There are answers under the key, and not for such a request.
    OtherVariant,
    /// There is none.
    Nothing,
}

/// What may be under way at once; beyond that requests pass by the cache.
const MOST_FILLS: usize = 4096;
/// Fields that `Vary` may name under one key. An answer that names more is not stored.
const MOST_VARY: usize = 16;
/// How long what could not be stored is remembered, and how much of it.
const HOPELESS: (std::time::Duration, u64) = (std::time::Duration::from_secs(60), 10_000);
/// What an entry costs beside its parts: the tables' share, allocations, and the index.
const OVERHEAD: usize = 512;
/// What a field costs beside its text.
const FIELD: usize = 96;

impl Store {
    /// An empty store for so many bytes.
    pub fn new(bytes: u64, counts: CacheSeries) -> Arc<Self> {
        Arc::new_cyclic(|store: &std::sync::Weak<Self>| {
            let (index, on_removal) = (Arc::new(Index::default()), store.clone());
            let forget = index.clone();
            let entries = moka::sync::Cache::builder()
                .max_capacity(bytes)
                .weigher(|key: &Arc<[u8]>, entry: &Entry| weight(key, entry))
                .eviction_listener(move |key: Arc<Arc<[u8]>>, entry, cause| {
                    let Entry::Answer(stored) = entry else { return };
                    if cause != RemovalCause::Replaced {
                        forget.remove(&stored.resource, &key);
                    }
                    if let (RemovalCause::Size, Some(store)) = (cause, on_removal.upgrade()) {
                        store.counts.own().evicted();
                    }
                })
                .build();
            let hopeless = moka::sync::Cache::builder().max_capacity(HOPELESS.1).time_to_live(HOPELESS.0).build();
            let underway = Arc::new(Underway::new(bytes / 2));
            Self { entries, index, fills: Mutex::default(), underway, hopeless, hash: RandomState::default(), counts }
        })
    }

    /// The answer under a key to a request with these fields.
    pub fn find(&self, key: &Key, request: &HeaderMap) -> Found {
        match self.entries.get(&*key.bytes) {
            None => Found::Nothing,
            Some(Entry::Answer(stored)) => Found::Answer(stored),
            Some(Entry::Vary(names)) => match self.entries.get(&*variant(&key.bytes, &names, request)) {
                Some(Entry::Answer(stored)) => Found::Answer(stored),
                _ => Found::OtherVariant,
            },
        }
    }

    /// The fetch of the answer to such a request that is under way, or a new one; says whether it is new.
    pub fn join(&self, key: &Key, request: &HeaderMap, resource: &Resource) -> (Arc<Fill>, bool) {
        let slot = self.slot(key, request);
        let mut fills = self.fills.lock();
        if let Some(fill) = fills.slots.get(&slot) {
            return (fill.clone(), false);
        }
        let fill = Arc::new(self.fill(request, resource, Some(slot.clone())));
        fills.slots.insert(slot, fill.clone());
        (fill, true)
    }

    /// Whether so much is being fetched that no more may be: fetches outlive the clients that wanted them.
    pub fn is_busy(&self) -> bool {
        let fills = self.fills.lock();
        fills.slots.len() + fills.alone.len() >= MOST_FILLS
    }

    /// A fetch that nobody else waits for.
    pub fn alone(&self, request: &HeaderMap, resource: &Resource) -> Arc<Fill> {
        let fill = Arc::new(self.fill(request, resource, None));
        self.fills.lock().alone.push(fill.clone());
        fill
    }

    fn fill(&self, request: &HeaderMap, resource: &Resource, slot: Option<Arc<[u8]>>) -> Fill {
        Fill::new(resource.clone(), request.clone(), slot, self.underway.clone())
    }

    /// Others do not join this fetch any more: it is over, or nothing that is stored.
    pub fn leave(&self, fill: &Arc<Fill>) {
        let mut fills = self.fills.lock();
        match &fill.slot {
            Some(slot) if fills.slots.get(slot).is_some_and(|other| Arc::ptr_eq(other, fill)) => {
                fills.slots.remove(slot);
            }
            Some(_) => {}
            None => fills.alone.retain(|other| !Arc::ptr_eq(other, fill)),
        }
    }

    /// Whether answers under this key could not be stored lately.
    pub fn is_hopeless(&self, key: &Key) -> bool {
        self.hopeless.contains_key(&self.hash_of(&key.bytes))
    }

    /// Remembers that answers under this key cannot be stored.
    pub fn give_up(&self, key: &Key) {
        self.hopeless.insert(self.hash_of(&key.bytes), ());
    }

    /// Stores the answer that was fetched for a request with these fields; gives whether it is not outdated already.
    pub fn put(&self, key: &Key, request: &HeaderMap, stored: &Arc<Stored>, fill: &Fill) -> bool {
        if fill.is_outdated() {
            return false;
        }
        let Some(slot) = self.place(key, request, &stored.head) else { return false };
        self.index.add(&stored.resource, &slot);
        self.entries.insert(slot.clone(), Entry::Answer(stored.clone()));
        // Bounded at all times, not at some time.
        self.entries.run_pending_tasks();
        if self.entries.contains_key(&*slot) {
            // What went for it may have had the same key.
            self.index.add(&stored.resource, &slot);
        }
        self.measure();
        // A purge marks what is under way and then looks through what is stored: one of the two finds it.
        if fill.is_outdated() {
            let is_this = |entry: Entry| matches!(entry, Entry::Answer(other) if Arc::ptr_eq(&other, stored));
            if self.entries.get(&*slot).is_some_and(is_this) {
                self.entries.invalidate(&*slot);
            }
            return false;
        }
        true
    }

    /// Removes the answer to such a request.
    pub fn remove(&self, key: &Key, request: &HeaderMap) {
        self.entries.invalidate(&*self.slot(key, request));
    }

    /// Removes what may be wrong; gives how many answers that were.
    pub fn purge(&self, purge: &Purge) -> u64 {
        self.outdate(|fill| match purge {
            Purge::Url(resource) => fill.resource == *resource,
            Purge::Prefix(prefix) => fill.resource.begins_with(prefix),
            // Its tags are not known yet.
            Purge::Tag(_) | Purge::All => true,
        });
        let removed = match purge {
            Purge::Url(resource) => self.remove_indexed(resource, |stored| stored.resource == *resource),
            Purge::All => {
                let count = self.answers().count() as u64;
                self.entries.invalidate_all();
                count
            }
            Purge::Prefix(prefix) => self.remove_all(|stored| stored.resource.begins_with(prefix)),
            Purge::Tag(tag) => self.remove_all(|stored| stored.tags.iter().any(|other| other == tag)),
        };
        self.entries.run_pending_tasks();
        self.counts.own().purged(removed);
        self.measure();
        removed
    }

    /// Removes all answers to a resource, whatever its query: it was changed (RFC 9111, section 4.4).
    pub fn invalidate(&self, resource: &Resource) {
        self.outdate(|fill| fill.resource.is_at(resource));
        let removed = self.remove_indexed(resource, |stored| stored.resource.is_at(resource));
        if removed > 0 {
            self.counts.own().purged(removed);
            self.measure();
        }
    }

    /// How many answers there are.
    pub fn entries(&self) -> u64 {
        self.index.len()
    }

    /// How many bytes they take.
    pub fn bytes(&self) -> u64 {
        self.entries.weighted_size()
    }

    /// What is counted of it.
    pub fn counts(&self) -> &CacheSeries {
        &self.counts
    }

    fn measure(&self) {
        self.counts.measure(self.entries(), self.bytes());
    }

    /// What is under way and may be wrong is not stored, and nobody else joins it.
    fn outdate(&self, doomed: impl Fn(&Fill) -> bool) {
        let mut fills = self.fills.lock();
        fills.alone.iter().filter(|fill| doomed(fill)).for_each(|fill| fill.outdate());
        fills.slots.retain(|_, fill| {
            let doomed = doomed(fill);
            if doomed {
                fill.outdate();
            }
            !doomed
        });
    }

    fn answers(&self) -> impl Iterator<Item = (Arc<Arc<[u8]>>, Arc<Stored>)> + '_ {
        self.entries.iter().filter_map(|(key, entry)| match entry {
            Entry::Answer(stored) => Some((key, stored)),
            Entry::Vary(_) => None,
        })
    }

    fn remove_all(&self, doomed: impl Fn(&Stored) -> bool) -> u64 {
        let keys: Vec<_> = self.answers().filter(|(_, stored)| doomed(stored)).map(|(key, _)| key).collect();
        keys.iter().for_each(|key| self.entries.invalidate(&***key));
        keys.len() as u64
    }

    fn remove_indexed(&self, resource: &Resource, doomed: impl Fn(&Stored) -> bool) -> u64 {
        let mut removed = 0;
        for key in self.index.keys(resource) {
            if matches!(self.entries.get(&*key), Some(Entry::Answer(stored)) if doomed(&stored)) {
                self.entries.invalidate(&*key);
                removed += 1;
            }
        }
        removed
    }

    /// Where the answer to such a request would be.
    fn slot(&self, key: &Key, request: &HeaderMap) -> Arc<[u8]> {
        match self.entries.get(&*key.bytes) {
            Some(Entry::Vary(names)) => variant(&key.bytes, &names, request).into(),
            _ => key.bytes.clone(),
        }
    }

    /// Where this answer goes: what it names in `Vary` is remembered.
    fn place(&self, key: &Key, request: &HeaderMap, head: &ResponseHeader) -> Option<Arc<[u8]>> {
        let named = vary(&head.headers)?;
        let known = match self.entries.get(&*key.bytes) {
            Some(Entry::Vary(names)) => names,
            _ if named.is_empty() => return Some(key.bytes.clone()),
            // An answer that did not vary goes: this one says that such answers do.
            _ => Arc::from([]),
        };
        let mut all: Vec<HeaderName> = known.to_vec();
        all.extend(named.iter().filter(|name| !known.contains(name)).cloned());
        if all.len() > MOST_VARY {
            return None;
        }
        let names: Arc<[HeaderName]> = all.into();
        if names.len() > known.len() {
            self.entries.insert(key.bytes.clone(), Entry::Vary(names.clone()));
        }
        Some(variant(&key.bytes, &names, request).into())
    }

    fn hash_of(&self, key: &[u8]) -> u64 {
        self.hash.hash_one(key)
    }
}

/// Whether an answer to the one request is, by what it says in `Vary`, an answer to the other as well.
pub fn answers_both(answer: &HeaderMap, one: &HeaderMap, other: &HeaderMap) -> bool {
    vary(answer).is_some_and(|names| variant(&[], &names, one) == variant(&[], &names, other))
}

/// The names in `Vary`; `None` where they are too many, or none at all.
fn vary(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut names = Vec::new();
    for name in headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|b| *b == b',')) {
        let name = name.trim_ascii();
        if !name.is_empty() {
            let name = HeaderName::from_bytes(name).ok()?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    (names.len() <= MOST_VARY).then_some(names)
}

/// The key of the answers to requests that have the same in these fields. Fields that are given in several lines are the
/// same as in one (RFC 9111, section 4.1).
fn variant(key: &[u8], names: &[HeaderName], request: &HeaderMap) -> Vec<u8> {
    let mut out = key.to_vec();
    for name in names {
        let mut values = request.get_all(name).iter().peekable();
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(if values.peek().is_some() { b"=" } else { b"-" });
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        for (i, value) in values.flat_map(|value| value.as_bytes().split(|b| *b == b',')).enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(value.trim_ascii());
        }
        let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
        out[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    out
}

fn weight(key: &[u8], entry: &Entry) -> u32 {
    let own = match entry {
        Entry::Vary(names) => names.len() * FIELD,
        Entry::Answer(stored) => stored.size(),
    };
    u32::try_from(OVERHEAD + 2 * key.len() + own).unwrap_or(u32::MAX)
}

impl Stored {
    /// How many bytes it takes.
    pub fn size(&self) -> usize {
        let field = |(name, value): (&HeaderName, &HeaderValue)| FIELD + name.as_str().len() + value.len();
        self.head.headers.iter().map(field).sum::<usize>()
            + self.body.len()
            + self.tags.iter().map(|tag| 16 + tag.len()).sum::<usize>()
            + self.resource.size()
    }
}

/// Keys by the hash of host and path.
type Keys = HashMap<u64, SmallVec<[Arc<[u8]>; 1]>>;

/// Keys by resource.
#[derive(Default)]
struct Index {
    shards: [Mutex<Keys>; 16],
    hash: RandomState,
    length: AtomicU64,
}

impl Index {
    fn with<T>(&self, resource: &Resource, act: impl FnOnce(u64, &mut Keys) -> T) -> T {
        let hash = self.hash.hash_one((&resource.host, &resource.path));
        act(hash, &mut self.shards[(hash >> 60) as usize].lock())
    }

    fn add(&self, resource: &Resource, key: &Arc<[u8]>) {
        self.with(resource, |hash, shard| {
            let keys = shard.entry(hash).or_default();
            if !keys.contains(key) {
                keys.push(key.clone());
                self.length.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    fn remove(&self, resource: &Resource, key: &Arc<[u8]>) {
        self.with(resource, |hash, shard| {
            let Some(keys) = shard.get_mut(&hash) else { return };
            if let Some(at) = keys.iter().position(|other| other == key) {
                keys.swap_remove(at);
                self.length.fetch_sub(1, Ordering::Relaxed);
            }
            if keys.is_empty() {
                shard.remove(&hash);
            }
        });
    }

    fn keys(&self, resource: &Resource) -> SmallVec<[Arc<[u8]>; 1]> {
        self.with(resource, |hash, shard| shard.get(&hash).cloned().unwrap_or_default())
    }

    fn len(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_of_different_fields_are_different() {
        let request = |name: &'static str, value: &'static str| {
            HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))])
        };
        let of = |name: &'static str, request: &HeaderMap| variant(b"key", &[HeaderName::from_static(name)], request);
        assert_ne!(of("x-a", &request("x-a", "1")), of("x-b", &request("x-b", "1")));
        assert_ne!(of("x-a", &request("x-a", "1")), of("x-a", &request("x-a", "2")));
        assert_ne!(of("x-a", &request("x-a", "")), of("x-a", &HeaderMap::new()));
        assert_eq!(of("x-a", &request("x-a", "1, 2")), of("x-a", &request("x-a", "1 ,2")));
    }
}
