//! `[cache.NAME]`: answers that were given once and are given again, by the rules of HTTP (RFC 9111) for a cache that
//! many share.
//!
//! ```toml
//! [cache.default]
//! memory     = "256MiB"     # all that the zone takes, with what it needs beside the answers
//! max_object = "8MiB"       # a larger answer is passed on and not stored
//! ```
//!
//! A zone is memory for answers; the `cache` policy of a route says which zone, under what key and for how long. What is
//! stored goes with the process: a reload keeps a zone whose table did not change, a restart or an upgrade begins
//! with an empty one.
//!
//! Pingora's cache is not behind it, for it can neither bound what an answer of unknown length takes nor merge a 304
//! whole (RFC 9111, section 3.2); and an answer that is here already needs none of the machinery of a proxied one.

mod directives;
mod fill;
mod freshness;
mod key;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::header::{AGE, CONTENT_LENGTH};
use pingora_http::ResponseHeader;
use serde::Deserialize;

use crate::build::{Build, Node};
use crate::keep;
use crate::telemetry::metrics::traffic::Meter;
use crate::types::{Reserved, Size};

pub use directives::{CDN_CACHE_CONTROL, Directives};
pub use fill::{Answer, End, Fill, Outcome, Reader, Unwanted};
pub use freshness::{Arrival, Caller, Life, Rules, Use};
pub use key::{Key, KeyBuilder, Resource};
pub use store::{Found, Purge, Store, Stored, answers_both};

/// `[cache.NAME]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ZoneConfig {
    memory: Size,
    max_object: Option<Size>,
    #[serde(default, rename = "disk")]
    _disk: Reserved,
}

/// Memory for answers.
pub struct Zone {
    /// Its name in the configuration.
    pub name: Box<str>,
    /// What is in it.
    pub store: Arc<Store>,
    /// The largest body that is stored, in bytes.
    pub max_object: u64,
    /// What it may take, in bytes.
    pub memory: u64,
}

/// The zones of a configuration, by name.
#[derive(Default, Clone)]
pub struct Zones(BTreeMap<String, Option<Arc<Zone>>>);

/// A zone that nobody named.
const DEFAULT: &str = "default";
/// What that one may take.
const DEFAULT_MEMORY: u64 = 64 << 20;
/// The largest body that is stored where nobody says, if that is not too much of the zone.
const LARGEST: u64 = 8 << 20;
/// An answer has at most this part of a zone.
const PART: u64 = 4;

impl Zones {
    /// The zones of a file.
    pub fn compile(root: &Node, meter: &Meter, build: &mut Build<'_>) -> Self {
        let mut zones = BTreeMap::new();
        for (name, entry) in root.get("cache").and_then(Node::table).into_iter().flatten() {
            let zone = build.within_detached(&entry.node, |build| {
                build.check_name("a cache", name)?;
                let made_of = build.fingerprint(&entry.node, &[]);
                build.keep(name, made_of, |build| Zone::compile(name, meter, build))
            });
            zones.insert(name.clone(), zone);
        }
        if zones.is_empty() {
            let zone =
                build.keep(DEFAULT, Default::default(), |_| Some(Zone::new(DEFAULT, DEFAULT_MEMORY, LARGEST, meter)));
            zones.insert(DEFAULT.to_owned(), zone);
        }
        Self(zones)
    }

    /// The zone of a name, or the only one or `default` where none is given; `None` where it has mistakes, or after a
    /// report that there is none.
    pub fn find(&self, name: Option<&str>, build: &mut Build<'_>) -> Option<Arc<Zone>> {
        let found = match name {
            Some(name) => self.0.get(name),
            None => self.0.get(DEFAULT).or_else(|| self.0.values().next().filter(|_| self.0.len() == 1)),
        };
        match (found, name) {
            (Some(zone), _) => zone.clone(),
            (None, Some(name)) => {
                build.unknown("zone", "cache", name, self.0.keys().map(String::as_str));
                None
            }
            (None, None) => {
                let names: Vec<_> = self.0.keys().map(|name| format!("\"{name}\"")).collect();
                build
                    .error("", "there are several caches, and none is named `default`")
                    .help(format!("say which: `zone = {}`", names.join("` or `zone = ")));
                None
            }
        }
    }

    /// Lets go of the zones that no route uses, and says so of those that somebody wrote.
    pub fn retain(&mut self, root: &Node, used: impl Fn(&Zone) -> bool, build: &mut Build<'_>) {
        let written = |name: &str| root.get("cache").and_then(|caches| caches.get(name)).is_some();
        self.0.retain(|name, zone| {
            let keep = zone.as_ref().is_none_or(|zone| used(zone));
            if !keep && written(name) {
                build.warning(&format!("cache.{name}"), format!("no route uses the cache `{name}`"));
            }
            keep
        });
    }

    /// What is not as it was among the `previous` ones, in words.
    pub fn changes(&self, previous: &Self) -> Vec<String> {
        fn by_name(of: &Zones) -> BTreeMap<&str, *const Zone> {
            of.iter().map(|zone| (&*zone.name, Arc::as_ptr(zone))).collect()
        }
        keep::changes("cache", &by_name(previous), &by_name(self))
    }

    /// Whether there is none that a route uses.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Every zone.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Zone>> {
        self.0.values().flatten()
    }

    /// The zone of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<Zone>> {
        self.0.get(name)?.as_ref()
    }
}

impl Zone {
    fn compile(name: &str, meter: &Meter, build: &mut Build<'_>) -> Option<Self> {
        let config: ZoneConfig = build.deserialize()?;
        let memory = config.memory.0;
        if memory < 1 << 20 {
            build
                .error("memory", format!("{} is too little to store anything in", config.memory))
                .help("give at least 1MiB");
            return None;
        }
        let most = memory / PART;
        let max_object = config.max_object.map_or(LARGEST.min(most), |size| size.0);
        if max_object > most || max_object > u64::from(u32::MAX / 2) {
            build
                .error("max_object", "an answer may have at most a quarter of the cache's memory, and 2GiB")
                .help("give the cache more `memory`, or store no such answers");
            return None;
        }
        Some(Self::new(name, memory, max_object, meter))
    }

    fn new(name: &str, memory: u64, max_object: u64, meter: &Meter) -> Self {
        let store = Store::new(memory, meter.cache(name));
        Self { name: name.into(), store, max_object, memory }
    }
}

/// The head as it is stored (RFC 9111, section 3.1): without the age, which is known otherwise, and without what is not for
/// others. What is about one connection is taken out when an answer is read.
pub fn to_store(head: &ResponseHeader, withheld: &[HeaderName]) -> ResponseHeader {
    let mut stored = head.clone();
    std::iter::once(&AGE).chain(withheld).for_each(|name| drop(stored.remove_header(name)));
    stored
}

/// What is stored, with what a 304 says anew: every field of it, but the length, which is that of no body (RFC 9111,
/// section 3.2).
pub fn merged(stored: &ResponseHeader, not_modified: &ResponseHeader) -> ResponseHeader {
    let mut head = stored.clone();
    let new = to_store(not_modified, &[CONTENT_LENGTH]);
    for name in new.headers.keys() {
        head.remove_header(name);
    }
    for (name, value) in &new.headers {
        let _ = head.append_header(name.clone(), value.clone());
    }
    head
}
