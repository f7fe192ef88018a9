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
//! A rehearsal finds every limit untouched and leaves it so; it asks no store.

mod config;
mod gcra;
mod shared;
mod table;

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use pingora_http::{RequestHeader, ResponseHeader};
use smallvec::SmallVec;

use self::config::{LimitConfig, Over};
use self::shared::{Member, Shared, StoreDown, is_countable};
use super::by::By;
use super::{Policy, Scope, Verdict};
use crate::build::Build;
use crate::clock::Clock;
use crate::facts::{Allowance, Facts};
use crate::keep::Fingerprint;
use crate::reply::Reply;
use crate::store::{Numbers, Store, Unavailable};
use crate::types::Timespan;

pub use config::Config;
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
    gcra: Gcra,
    by: By,
    ipv6_prefix: u8,
    shadow: bool,
    /// What `RateLimit` calls it, up to its first number; `None` if clients are not told.
    told: Option<Box<[u8]>>,
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
    key: u64,
    until: u64,
}

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LONGEST_DELAY: Timespan = Timespan::from_secs(60);

impl Policy for RateLimit {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let mut limits = Vec::new();
        let mut policy = Vec::new();
        let mut members = Vec::new();
        let store = store(&config, scope, build);
        for (i, limit) in config.limits.into_iter().enumerate() {
            let at = |key: &str| if config.list { format!("[{i}].{key}") } else { key.to_owned() };
            check(&limit, &at, build);
            let Some(counts) = counts(&limit, i, scope, build) else { continue };
            let name = format!("\"{} by {}\"", limit.rate, limit.by);
            let told = limit.headers && !limit.shadow;
            if told {
                policy.push(format!("{name};q={};w={}", limit.rate.count, limit.rate.per.as_secs()));
            }
            let patience = match limit.over {
                Over::Reject => Duration::ZERO,
                Over::Delay(delay) => delay.0,
            };
            let gcra = Gcra::new(limit.rate, limit.burst.unwrap_or(limit.rate.count), patience);
            if limit.store.is_some() {
                if !is_countable(&gcra) {
                    build
                        .error(&at("burst"), "a store cannot count so far ahead")
                        .help("what a burst uses up must come back within 104 days");
                }
                members.push(Member::new(i, &limit, scope.owner));
            }
            limits.push(Limit {
                gcra,
                is_shared: limit.store.is_some(),
                told: told.then(|| format!("{name};r=").into_bytes().into()),
                refusal: Reply::too_many_requests(format!("more than {} requests by {}", limit.rate, limit.by))
                    .prepared(),
                by: limit.by,
                ipv6_prefix: limit.ipv6_prefix,
                shadow: limit.shadow,
                counts,
            });
        }
        let policy = HeaderValue::from_str(&policy.join(", ")).ok().filter(|policy| !policy.is_empty());
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
        let Some(policy) = &self.policy else { return };
        if let Some(value) = self.told(&facts.allowances) {
            let _ = head.insert_header(RATE_LIMIT_POLICY, policy.clone());
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
                    self.settle(member.limit, limit.gcra.decide(ahead, 0), 0, entry, facts)?;
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
        let key = limit.by.key(&limit.counts.secret, limit.ipv6_prefix, request, facts);
        let decision = match facts.rehearsal {
            true => limit.gcra.decide(now, now),
            false => limit.decide(key, now),
        };
        self.settle(i, decision, now, entry, facts)?;
        if let (Decision::Admit { until, .. }, false) = (decision, facts.rehearsal) {
            entry.paid.push(Paid { limit, key, until });
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
                if limit.told.is_some() {
                    let remaining = limit.gcra.remaining(until, now);
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
                if limit.told.is_some() {
                    facts.allowances.push(Allowance { limit: i, remaining: 0, reset: seconds(wait) });
                }
                Err(limit.refusal.clone().retry_after(seconds(wait)))
            }
        }
    }

    /// `RateLimit`, if there is something to tell.
    fn told(&self, allowances: &[Allowance]) -> Option<HeaderValue> {
        let mut text = SmallVec::<[u8; 128]>::new();
        for allowance in allowances {
            let Some(name) = self.limits.get(allowance.limit).and_then(|limit| limit.told.as_deref()) else { continue };
            if !text.is_empty() {
                text.extend_from_slice(b", ");
            }
            text.extend_from_slice(name);
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
}

impl Limit {
    fn decide(&self, key: u64, now: u64) -> Decision {
        self.counts.table.update(key, now, |until| match self.gcra.decide(until, now) {
            admitted @ Decision::Admit { until, .. } => (Some(until), admitted),
            refused => (None, refused),
        })
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
        let Self { limit, key, until: paid } = self;
        let now = limit.counts.clock.now();
        limit.counts.table.update(key, now, |until| {
            let back = (now <= paid && paid <= until).then(|| limit.gcra.give_back(until));
            (back, ())
        });
    }
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
    if limit.burst == Some(0) {
        build.error(&at("burst"), "a burst of 0 would let nothing through").help("1 is one request at a time");
    }
    if !(1..=128).contains(&limit.ipv6_prefix) {
        build.error(&at("ipv6_prefix"), "a prefix of an IPv6 address has 1 to 128 bits");
    }
    if limit.store_down.is_some() && limit.store.is_none() {
        build
            .error(&at("store_down"), "`store_down` says nothing without a `store`")
            .help("name the [store.NAME] that the limit is counted in: store = \"NAME\"");
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
