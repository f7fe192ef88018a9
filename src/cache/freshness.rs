//! How long an answer may be used: whether it may be stored at all, its age, and what a request accepts (RFC 9111,
//! sections 3 and 4).

use std::time::{Duration, Instant, SystemTime};

use http::header::{AGE, CONTENT_RANGE, DATE, ETAG, EXPIRES, LAST_MODIFIED, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, StatusCode};

use super::directives::Directives;

/// What the configuration says of a route's answers.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// How long an answer is fresh, whatever it says itself.
    pub ttl: Option<Duration>,
    /// How long a stale answer is used while it is fetched anew, where the answer itself does not say.
    pub stale_while_revalidate: Duration,
    /// How long a stale answer is used while the upstream fails, where the answer itself does not say.
    pub stale_if_error: Duration,
    /// Whether an answer that does not say how long it is fresh is judged by its `Last-Modified`.
    pub heuristic: bool,
    /// Whether what a request says of its cache counts.
    pub request_directives: bool,
}

/// When an answer came, and what is known of its age.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// When its head was here.
    pub at: Instant,
    /// The same by the clock on the wall.
    pub date: SystemTime,
    /// How long it took from the request to then.
    pub delay: Duration,
}

/// How long an answer may be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// When it came.
    arrived: Instant,
    /// How old it was then (`corrected_initial_age`).
    initial_age: Duration,
    /// How long it is fresh (`freshness_lifetime`).
    lifetime: Duration,
    while_revalidate: Duration,
    if_error: Duration,
    /// It is not to be used stale.
    strict: bool,
}

/// How an answer in the store may be used for a request.
#[derive(Debug, PartialEq, Clone, Copy)]
pub enum Use {
    /// As it is.
    Fresh,
    /// As it is, while it is fetched anew.
    WhileRevalidate,
    /// Once the upstream says that it still holds.
    Validated,
}

/// Statuses that are understood and whose answers are stored, when they say for how long.
const UNDERSTOOD: [u16; 19] =
    [200, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 451, 500, 501, 503];
/// Those of them that are stored without saying so (RFC 9110, section 15.1), apart from errors of the request's making.
const BY_TTL: [u16; 6] = [200, 203, 204, 300, 301, 308];
/// Those of which something can be told from `Last-Modified`.
const HEURISTICALLY: [u16; 10] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414];
/// A heuristic is right for a day at most.
const LONGEST_HEURISTIC: Duration = Duration::from_secs(86400);

impl Life {
    /// The life of an answer that may be stored. `private` says that it is stored for its caller alone, and `authorized`
    /// that the request had `Authorization`; `cookies` that it had cookies which the key does not have.
    ///
    /// # Errors
    /// Why it may not be stored, in a word for `Cache-Status`.
    pub fn of(
        status: StatusCode,
        headers: &HeaderMap,
        said: (&Directives, bool),
        rules: &Rules,
        caller: Caller,
        arrival: Arrival,
    ) -> Result<Self, &'static str> {
        let (said, targeted) = said;
        let code = status.as_u16();
        let understood = UNDERSTOOD.contains(&code);
        if code == 206 || headers.contains_key(CONTENT_RANGE) {
            return Err("partial");
        }
        if !understood && (said.must_understand || status.is_informational()) {
            return Err("status");
        }
        // Whoever understands the status may disregard `no-store` beside `must-understand`.
        if said.no_store && !said.must_understand {
            return Err("no-store");
        }
        if said.private {
            return Err("private");
        }
        if headers.contains_key(SET_COOKIE) && !said.withheld.contains(&SET_COOKIE) {
            return Err("set-cookie");
        }
        let shared = said.public || said.must_revalidate || said.s_maxage.is_some();
        if caller == Caller::Authorized && !shared {
            return Err("authorization");
        }
        if headers
            .get_all(VARY)
            .iter()
            .any(|value| value.as_bytes().split(|b| *b == b',').any(|n| n.trim_ascii() == b"*"))
        {
            return Err("vary");
        }

        let initial_age = initial_age(headers, arrival);
        let explicit = explicit(headers, said, targeted, arrival);
        let by_ttl = rules.ttl.filter(|_| BY_TTL.contains(&code) || explicit.is_some());
        if caller == Caller::Cookies && explicit.is_none() && !said.public {
            return Err("cookie");
        }
        let heuristic = || {
            let applies = rules.heuristic && (HEURISTICALLY.contains(&code) || said.public);
            applies.then(|| heuristic(headers, arrival)).flatten()
        };
        let lifetime = match (said.no_cache, by_ttl) {
            (true, _) => Some(Duration::ZERO),
            // From now on, however old it is.
            (false, Some(ttl)) => Some(initial_age + ttl),
            (false, None) => explicit.or_else(heuristic),
        };
        let Some(lifetime) = lifetime else { return Err("no-freshness") };
        let forbidden = said.must_revalidate || said.proxy_revalidate || said.no_cache;
        // `s-maxage` forbids it too, but for one who says it in the same breath.
        let strict = forbidden
            || (said.s_maxage.is_some() && said.stale_while_revalidate.is_none() && said.stale_if_error.is_none());
        let stale = |own: Option<Duration>, rule: Duration| match strict {
            true => Duration::ZERO,
            false => own.unwrap_or(if said.s_maxage.is_some() { Duration::ZERO } else { rule }),
        };
        let life = Self {
            arrived: arrival.at,
            initial_age,
            lifetime,
            while_revalidate: stale(said.stale_while_revalidate, rules.stale_while_revalidate),
            if_error: stale(said.stale_if_error, rules.stale_if_error),
            strict,
        };
        let validator = headers.contains_key(ETAG) || headers.contains_key(LAST_MODIFIED);
        let usable = lifetime > initial_age || !life.while_revalidate.is_zero() || !life.if_error.is_zero();
        (usable || validator).then_some(life).ok_or("stale")
    }

    /// How old the answer is (RFC 9111, section 4.2.3).
    pub fn age(&self, now: Instant) -> Duration {
        self.initial_age + now.saturating_duration_since(self.arrived)
    }

    /// In how many seconds it is stale; below zero for how many it has been.
    pub fn ttl(&self, now: Instant) -> i64 {
        let (lifetime, age) = (self.lifetime.as_secs() as i64, self.age(now).as_secs() as i64);
        lifetime - age
    }

    /// How it may be used for a request that says this.
    pub fn usable(&self, asked: &Directives, now: Instant) -> Use {
        let age = self.age(now);
        if asked.no_cache || asked.max_age.is_some_and(|most| age > most) {
            return Use::Validated;
        }
        let left = self.lifetime.saturating_sub(age);
        if age < self.lifetime {
            return match asked.min_fresh {
                Some(least) if left < least => Use::Validated,
                _ => Use::Fresh,
            };
        }
        let stale = age - self.lifetime;
        if asked.min_fresh.is_some() {
            return Use::Validated;
        }
        if !self.strict && asked.max_stale.is_some_and(|most| stale <= most) {
            return Use::Fresh;
        }
        match stale < self.while_revalidate {
            true => Use::WhileRevalidate,
            false => Use::Validated,
        }
    }

    /// Whether it may be used because the upstream fails.
    pub fn stands_in(&self, now: Instant) -> bool {
        self.age(now) < self.lifetime + self.if_error
    }

    /// Whether those who wait for it may have it as it comes.
    pub fn is_fresh(&self, now: Instant) -> bool {
        self.age(now) < self.lifetime
    }
}

/// Who a stored answer would be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Anybody, or the caller alone.
    Anyone,
    /// Whoever the credentials of the request belong to, which the key does not have (RFC 9111, section 3.5).
    Authorized,
    /// Whoever the cookies of the request belong to, which the key does not have.
    Cookies,
}

/// What the answer itself says of how long it is fresh (RFC 9111, section 4.2.1).
fn explicit(headers: &HeaderMap, said: &Directives, targeted: bool, arrival: Arrival) -> Option<Duration> {
    said.s_maxage.or(said.max_age).or_else(|| {
        if targeted {
            return None;
        }
        let mut expires = headers.get_all(EXPIRES).iter();
        let first = expires.next()?;
        // Two, or one that is no date (as `0`), have passed (RFC 9111, section 5.3).
        let expires = match expires.next() {
            None => first.to_str().ok().and_then(|text| httpdate::parse_http_date(text).ok()),
            Some(_) => None,
        };
        let date = date(headers, &DATE).unwrap_or(arrival.date);
        Some(expires.and_then(|expires| expires.duration_since(date).ok()).unwrap_or_default())
    })
}

/// A tenth of the time since it was changed (RFC 9111, section 4.2.2).
fn heuristic(headers: &HeaderMap, arrival: Arrival) -> Option<Duration> {
    let changed = date(headers, &LAST_MODIFIED)?;
    let date = date(headers, &DATE).unwrap_or(arrival.date);
    Some((date.duration_since(changed).ok()? / 10).min(LONGEST_HEURISTIC))
}

/// `corrected_initial_age` (RFC 9111, section 4.2.3).
fn initial_age(headers: &HeaderMap, arrival: Arrival) -> Duration {
    let apparent = date(headers, &DATE).and_then(|date| arrival.date.duration_since(date).ok()).unwrap_or_default();
    // The first member of the field counts, and one that is no number is ignored (RFC 9111, section 5.1).
    let said = headers.get(AGE).and_then(|age| {
        let first = age.as_bytes().split(|b| *b == b',').next()?.trim_ascii();
        let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
        let number = std::str::from_utf8(first).ok().filter(|_| digits)?;
        Some(Duration::from_secs(number.parse().unwrap_or(u64::from(u32::MAX)).min(u64::from(u32::MAX))))
    });
    apparent.max(said.unwrap_or_default() + arrival.delay)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}
