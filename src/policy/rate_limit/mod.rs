//! `rate_limit`: how many requests a caller, or all of them, may make in a time.
//!
//! ```toml
//! rate_limit = { rate = "100/s", burst = 20, by = "client" }
//! rate_limit = [{ rate = "10/s", by = "consumer", over = { delay = "2s" } }, { rate = "5000/h", by = "consumer" }]
//! ```
//!
//! A limit is a [`Gcra`]: a key that was idle may make `burst` requests at once, and from then on one each interval. Over
//! it a request is refused with a 429, or waits its turn for up to `delay`, the first first. A refusal is not charged,
//! whichever of several limits it is by. What counts is a caller's key, see [`By`].
//!
//! A limit is where it is written: routes that take one from `[defaults]`, from a bundle or from `[api.NAME]` share its
//! counts, unless `by` has `"route"`. One that is put together from several tables is its route's own.
//!
//! Counts are this process's: all its workers share them, reloads keep them as long as `rate`, `by` and `ipv6_prefix`
//! are as they were, and another process begins anew. With a `store` they are those of all gateways that use it:
//!
//! ```toml
//! rate_limit = { rate = "100/s", store = "shared", store_down = "local" }   # [store.shared]
//! ```
//!
//! The store is asked once for all of a route's limits, after those that the gateway counts by itself, so what they refuse
//! does not ask it. While it is down, `store_down` says whether the gateway counts by itself (`local`), lets requests go
//! on (`open`) or answers with a 503 (`closed`).
//!
//! Where a limit counts by `consumer`, a consumer's own rate takes the place of its `rate` and `burst`. As with the limit's
//! own, another `rate` counts anew:
//!
//! ```toml
//! [consumer.ada]
//! rate_limit = { rate = "500/s", burst = 50 }
//! ```
//!
//! A rehearsal finds every limit untouched and leaves it so; it asks no store.

mod config;
mod gcra;
mod shared;
mod table;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use self::config::{LONGEST_DELAY, LimitConfig, Over, check_burst};
use self::shared::{Member, Shared, StoreDown, is_countable};
use super::by::{self, By, Part};
use super::{Policy, Scope, Verdict};
use crate::build::Build;
use crate::clock::Clock;
use crate::facts::{Allowance, Facts};
use crate::keep::Fingerprint;
use crate::reply::Reply;
use crate::store::{Numbers, Store, Unavailable};
use crate::types::{Pace, Timespan};

pub use config::{Config, OwnRate};
pub use gcra::{Decision, Gcra};
pub use table::Table;

/// The compiled policy.
pub struct RateLimit {
    limits: Vec<Limit>,
    /// `RateLimit-Policy`, if clients are told.
    policy: Option<HeaderValue>,
    /// Those of the limits that other gateways count as well.
    shared: Option<Shared>,
}

/// One limit.
struct Limit {
    pace: Pace,
    /// How long a request may be held back.
    patience: Duration,
    by: By,
    /// `by` in words.
    whose: Box<str>,
    /// Whether a consumer's own pace takes the place of the limit's.
    by_consumer: bool,
    ipv6_prefix: u8,
    shadow: bool,
    is_told: bool,
    /// For the client that is over it.
    refusal: Reply,
    is_shared: bool,
    /// The gateway's own.
    counts: Arc<Counts>,
}

/// What outlives a reload.
struct Counts {
    table: Table,
    secret: RandomState,
    clock: Clock,
}

/// What became of a request so far.
#[derive(Default)]
struct Entry<'l> {
    paid: SmallVec<[Paid<'l>; 4]>,
    /// How long it is held back, in nanoseconds.
    wait: u64,
}

/// What a request paid to a limit.
struct Paid<'l> {
    limit: &'l Limit,
    gcra: Gcra,
    key: u64,
    until: u64,
}

/// A list of limits in a header field.
type List = SmallVec<[u8; 128]>;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl Policy for RateLimit {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let mut limits = Vec::new();
        let mut members = Vec::new();
        let store = store(&config, scope, build);
        for (i, limit) in config.limits.into_iter().enumerate() {
            let at = |key: &str| if config.list { format!("[{i}].{key}") } else { key.to_owned() };
            check(&limit, &at, build);
            let Some(counts) = counts(&limit, i, scope, build) else { continue };
            if limit.store.is_some() {
                members.push(Member::new(i, &limit, scope.owner));
            }
            let limit = Limit::new(limit, counts);
            if limit.by_consumer && scope.authenticated {
                scope.providers.use_own_rates();
            }
            limits.push(limit);
        }
        let policy = policy(&limits, None);
        let shared = store.map(|store| Shared::new(store, members, &limits));
        (build.errors() == before).then_some(Self { limits, policy, shared })
    }

    async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        let mut entry = self.enter(request, facts)?;
        if let Some(shared) = self.shared.as_ref().filter(|_| !facts.rehearsal) {
            let found = shared.ask(&self.limits, request, facts).await;
            self.enter_shared(shared, found, &mut entry, request, facts)?;
        }
        if entry.wait > 0 {
            tokio::time::sleep(Duration::from_nanos(entry.wait)).await;
        }
        Ok(())
    }

    fn response(&self, head: &mut ResponseHeader, _request: &RequestHeader, facts: &Facts) {
        let Some(common) = &self.policy else { return };
        if let Some(value) = self.told(facts) {
            let own = own(facts).filter(|_| self.limits.iter().any(|limit| limit.by_consumer));
            let policy = if own.is_some() { policy(&self.limits, own) } else { Some(common.clone()) };
            policy.map(|policy| head.insert_header(RATE_LIMIT_POLICY, policy));
            let _ = head.insert_header(RATE_LIMIT, value);
        }
    }
}

impl RateLimit {
    /// Asks the limits that the gateway counts by itself; in a rehearsal, all.
    fn enter(&self, request: &RequestHeader, facts: &mut Facts) -> Result<Entry<'_>, Reply> {
        let mut entry = Entry::default();
        for (i, limit) in self.limits.iter().enumerate() {
            if !limit.is_shared || facts.rehearsal {
                self.ask(i, &mut entry, request, facts)?;
            }
        }
        Ok(entry)
    }

    /// Goes on with what the store has found of the others, or without it.
    fn enter_shared<'l>(
        &'l self,
        shared: &Shared,
        found: Result<Numbers, Unavailable>,
        entry: &mut Entry<'l>,
        request: &RequestHeader,
        facts: &mut Facts,
    ) -> Result<(), Reply> {
        for (i, member) in shared.members().iter().enumerate() {
            let limit = &self.limits[member.limit];
            match (&found, member.down) {
                (Ok(ahead), _) => {
                    let ahead = ahead.get(i).copied().unwrap_or_default();
                    self.settle(member.limit, limit.gcra(own(facts)).decide(ahead, 0), 0, entry, facts)?;
                }
                (Err(Unavailable), StoreDown::Local) => self.ask(member.limit, entry, request, facts)?,
                (Err(Unavailable), StoreDown::Open) => {}
                (Err(Unavailable), StoreDown::Closed) if limit.shadow => facts.shadowed = Some("rate_limit"),
                (Err(Unavailable), StoreDown::Closed) => {
                    entry.give_back(facts);
                    let detail = "it cannot be found out now how many requests were made: try again";
                    return Err(Reply::limit_unavailable(detail)
                        .retry_after(1)
                        .because("the store of a limit is down"));
                }
            }
        }
        // Clients are told of the limits in the order of the file.
        facts.allowances.sort_unstable_by_key(|allowance| allowance.limit);
        Ok(())
    }

    /// Asks a limit as the gateway counts it by itself.
    fn ask<'l>(
        &'l self,
        i: usize,
        entry: &mut Entry<'l>,
        request: &RequestHeader,
        facts: &mut Facts,
    ) -> Result<(), Reply> {
        let limit = &self.limits[i];
        let now = limit.counts.clock.now();
        let gcra = limit.gcra(own(facts));
        let key = limit.key(request, facts);
        let decision = match facts.rehearsal {
            true => gcra.decide(now, now),
            false => limit.counts.decide(&gcra, key, now),
        };
        self.settle(i, decision, now, entry, facts)?;
        if let (Decision::Admit { until, .. }, false) = (decision, facts.rehearsal) {
            entry.paid.push(Paid { limit, gcra, key, until });
        }
        Ok(())
    }

    /// Does what a limit has decided.
    fn settle(
        &self,
        i: usize,
        decision: Decision,
        now: u64,
        entry: &mut Entry<'_>,
        facts: &mut Facts,
    ) -> Result<(), Reply> {
        let limit = &self.limits[i];
        match decision {
            Decision::Admit { until, wait } => {
                if limit.is_told {
                    let remaining = limit.gcra(own(facts)).remaining(until, now);
                    facts.allowances.push(Allowance { limit: i, remaining, reset: seconds(until - now) });
                }
                // In a shadow nobody is held back.
                if !limit.shadow {
                    entry.wait = entry.wait.max(wait);
                } else if wait > 0 {
                    facts.shadowed = Some("rate_limit");
                }
                Ok(())
            }
            Decision::Refuse { .. } if limit.shadow => {
                facts.shadowed = Some("rate_limit");
                Ok(())
            }
            Decision::Refuse { wait } => {
                entry.give_back(facts);
                if limit.is_told {
                    facts.allowances.push(Allowance { limit: i, remaining: 0, reset: seconds(wait) });
                }
                let refusal = match own(facts).filter(|_| limit.by_consumer) {
                    Some(own) => refusal(own, &limit.whose),
                    None => limit.refusal.clone(),
                };
                Err(refusal.retry_after(seconds(wait)))
            }
        }
    }

    /// `RateLimit`, if there is something to tell.
    fn told(&self, facts: &Facts) -> Option<HeaderValue> {
        let mut text = List::new();
        for allowance in &facts.allowances {
            let Some(limit) = self.limits.get(allowance.limit) else { continue };
            limit.write_name(limit.pace(own(facts)), &mut text);
            text.extend_from_slice(b";r=");
            text.extend_from_slice(itoa::Buffer::new().format(allowance.remaining).as_bytes());
            text.extend_from_slice(b";t=");
            text.extend_from_slice(itoa::Buffer::new().format(allowance.reset).as_bytes());
        }
        if text.is_empty() { None } else { HeaderValue::from_bytes(&text).ok() }
    }
}

impl Counts {
    fn new(clock: Clock) -> Self {
        Self { table: Table::default(), secret: RandomState::new(), clock }
    }

    fn decide(&self, gcra: &Gcra, key: u64, now: u64) -> Decision {
        self.table.update(key, now, |until| match gcra.decide(until, now) {
            admitted @ Decision::Admit { until, .. } => (Some(until), admitted),
            refused => (None, refused),
        })
    }
}

impl Limit {
    fn new(config: LimitConfig, counts: Arc<Counts>) -> Self {
        let (pace, whose) = (config.pace(), config.by.to_string());
        Self {
            refusal: refusal(&pace, &whose).prepared(),
            pace,
            patience: config.patience(),
            by_consumer: config.by.has(&Part::Consumer),
            by: config.by,
            whose: whose.into(),
            ipv6_prefix: config.ipv6_prefix,
            shadow: config.shadow,
            is_told: config.headers && !config.shadow,
            is_shared: config.store.is_some(),
            counts,
        }
    }

    /// How often who asks may, of whom `own` is known.
    fn pace<'p>(&'p self, own: Option<&'p Pace>) -> &'p Pace {
        own.filter(|_| self.by_consumer).unwrap_or(&self.pace)
    }

    fn gcra(&self, own: Option<&Pace>) -> Gcra {
        Gcra::new(self.pace(own), self.patience)
    }

    fn key(&self, request: &RequestHeader, facts: &Facts) -> u64 {
        let mut hash = self.counts.secret.build_hasher();
        self.write_key(&mut hash, request, facts);
        hash.finish()
    }

    /// Writes what makes the key of a request. What one rate has counted says nothing under another.
    fn write_key(&self, hash: &mut impl Hasher, request: &RequestHeader, facts: &Facts) {
        self.by.write(hash, self.ipv6_prefix, request, facts);
        if let Some(own) = own(facts).filter(|_| self.by_consumer) {
            by::add(hash, b'=', own.rate.as_bytes());
        }
    }

    /// Goes on with a list of limits: `"500/s by consumer"`.
    fn write_name(&self, pace: &Pace, list: &mut List) {
        let comma = if list.is_empty() { "" } else { ", " };
        for piece in [comma, "\"", &pace.rate, " by ", &self.whose, "\""] {
            list.extend_from_slice(piece.as_bytes());
        }
    }
}

impl Entry<'_> {
    /// The request is refused: it has paid nothing, and there is nothing left to tell.
    fn give_back(&mut self, facts: &mut Facts) {
        self.paid.drain(..).for_each(Paid::give_back);
        facts.allowances.clear();
    }
}

impl Paid<'_> {
    /// Another limit refused the request. What time has already given back is not given twice.
    fn give_back(self) {
        let Self { limit, gcra, key, until: paid } = self;
        let now = limit.counts.clock.now();
        limit.counts.table.update(key, now, |until| {
            let back = (now <= paid && paid <= until).then(|| gcra.give_back(until));
            (back, ())
        });
    }
}

/// The pace of who asks, if that is a consumer with its own.
fn own(facts: &Facts) -> Option<&Pace> {
    facts.consumer.as_ref()?.pace.as_deref()
}

/// `RateLimit-Policy`, if clients are told of a limit.
fn policy(limits: &[Limit], own: Option<&Pace>) -> Option<HeaderValue> {
    let mut text = List::new();
    for limit in limits.iter().filter(|limit| limit.is_told) {
        let pace = limit.pace(own);
        limit.write_name(pace, &mut text);
        text.extend_from_slice(pace.quota.as_bytes());
    }
    if text.is_empty() { None } else { HeaderValue::from_bytes(&text).ok() }
}

fn refusal(pace: &Pace, whose: &str) -> Reply {
    Reply::too_many_requests(format!("more than {} requests by {whose}", pace.rate))
}

/// The store that the limits name, if they do and it has no mistakes.
fn store(config: &Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Arc<Store>> {
    let named = config.limits.iter().enumerate().filter_map(|(i, limit)| Some((i, limit.store.as_deref()?)));
    let mut first: Option<(&str, Option<Arc<Store>>)> = None;
    for (i, name) in named {
        let key = if config.list { format!("[{i}].store") } else { "store".to_owned() };
        let store = scope.stores.find(&key, name, build);
        let (first, _) = first.get_or_insert((name, store));
        if *first != name {
            build
                .error(&key, "the limits of one list are counted in one store")
                .help("it is asked for all of them at one go");
        }
    }
    first.and_then(|(_, store)| store)
}

fn check(limit: &LimitConfig, at: &dyn Fn(&str) -> String, build: &mut Build<'_>) {
    check_burst(limit.burst, &at("burst"), build);
    if !(1..=128).contains(&limit.ipv6_prefix) {
        build.error(&at("ipv6_prefix"), "a prefix of an IPv6 address has 1 to 128 bits");
    }
    if limit.store_down.is_some() && limit.store.is_none() {
        build
            .error(&at("store_down"), "`store_down` says nothing without a `store`")
            .help("name the [store.NAME] that the limit is counted in: store = \"NAME\"");
    }
    if limit.store.is_some() && !is_countable(&Gcra::new(&limit.pace(), limit.patience())) {
        build
            .error(&at("burst"), "a store cannot count so far ahead")
            .help("what a burst uses up must come back within 104 days");
    }
    if let Over::Delay(delay) = limit.over {
        if delay > LONGEST_DELAY {
            build.error(&at("over.delay"), format!("a request waits for at most {LONGEST_DELAY}"));
        } else if delay.0 < limit.rate.interval() {
            build
                .warning(&at("over.delay"), "nobody will wait: the next turn is further away than this")
                .help(format!("at {} there is one every {}", limit.rate, Timespan(limit.rate.interval())));
        }
    }
}

/// Those of the configuration before, if what they count is the same.
fn counts(limit: &LimitConfig, index: usize, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Arc<Counts>> {
    let mut made_of = Fingerprint::default();
    made_of.add(b'r', limit.rate.to_string().as_bytes());
    made_of.add(b'b', limit.by.to_string().as_bytes());
    made_of.add(b'6', &[limit.ipv6_prefix]);
    build.keep(&format!("rate_limit {index} of {}", scope.owner), made_of, |_| Some(Counts::new(Clock::system())))
}

/// In whole seconds, rounded up; at least one.
fn seconds(nanos: u64) -> u64 {
    nanos.div_ceil(1_000_000_000).max(1)
}

#[cfg(test)]
mod tests;
