//! `split`: the requests of one route over several upstreams, by weight.
//!
//! ```toml
//! [[route]]
//! match  = "/payments/**"
//! split  = { stable = 95, canary = 5 }    # of 100 requests
//! sticky = "cookie:release"               # or "client", "consumer", "header:NAME"
//! ```
//!
//! Without `sticky` every request is drawn anew. With a cookie the client keeps the upstream that its first request was
//! drawn for, as long as that has a weight: the gateway sets the cookie. With the others the choice is a hash of the
//! value, the same in every gateway; a change of the weights moves no more callers than it has to. Where the request
//! has no such value it is drawn. An upstream with the weight 0 gets nothing, and neither does one take over for
//! another that has no usable server.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderValue;
use http::header::SET_COOKIE;
use pingora_http::{RequestHeader, ResponseHeader};

use crate::build::Build;
use crate::facts::Facts;
use crate::upstream::{HashSource, Pool, cookie, hash};

/// Upstreams with their weights.
pub struct Split {
    parts: Vec<Part>,
    /// Of all weights; not 0.
    sum: u64,
    sticky: Option<Sticky>,
}

struct Part {
    pool: Arc<Pool>,
    weight: u32,
    /// What tells a client which part is its own.
    cookie: Option<HeaderValue>,
}

/// What a choice is tied to.
#[derive(Clone)]
pub enum Sticky {
    /// A cookie of the gateway's own.
    Cookie(String),
    /// Who asks.
    Consumer,
    /// Something else of the request.
    Hash(HashSource),
}

/// Which upstream a request goes to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    part: usize,
    /// The client is to be told, so that it stays there.
    told: bool,
}

/// The greatest sum of weights.
const MOST: u32 = 1_000_000;

impl Split {
    /// Compiles; `None` after every mistake was reported. `find` gives the upstream of a name.
    pub(super) fn compile(
        weights: &BTreeMap<String, u32>,
        sticky: Option<&Sticky>,
        mut find: impl FnMut(&str, &str, &mut Build<'_>) -> Option<Arc<Pool>>,
        build: &mut Build<'_>,
    ) -> Option<Self> {
        let before = build.errors();
        let mut parts = Vec::new();
        for (name, weight) in weights {
            let cookie = match sticky {
                Some(Sticky::Cookie(cookie)) => cookie_for(cookie, name),
                _ => None,
            };
            parts.extend(find(&format!("split.{name}"), name, build).map(|pool| Part {
                pool,
                weight: *weight,
                cookie,
            }));
        }
        let sum: u64 = weights.values().map(|weight| u64::from(*weight)).sum();
        if sum == 0 {
            build.error("split", "no upstream has a weight, so nobody would be asked");
        } else if sum > u64::from(MOST) {
            build.error("split", format!("the weights add up to {sum}, and more than {MOST} cannot be told apart"));
        }
        (build.errors() == before && parts.len() == weights.len()).then(|| Self { parts, sum, sticky: sticky.cloned() })
    }

    /// The upstream of a choice.
    pub fn pool(&self, choice: Choice) -> &Arc<Pool> {
        &self.parts[choice.part].pool
    }

    /// All upstreams.
    pub fn pools(&self) -> impl Iterator<Item = &Arc<Pool>> {
        self.parts.iter().map(|part| &part.pool)
    }

    /// Chooses for a request.
    pub fn choose(&self, request: &RequestHeader, facts: &Facts) -> Choice {
        self.tied(request, facts).unwrap_or_else(|| Choice {
            part: self.at(fastrand::u64(..)),
            told: matches!(self.sticky, Some(Sticky::Cookie(_))),
        })
    }

    /// The same without chance: where one would be drawn, the one with the greatest weight.
    pub fn likely(&self, request: &RequestHeader, facts: &Facts) -> Choice {
        self.tied(request, facts).unwrap_or_else(|| {
            let heaviest = self.parts.iter().enumerate().rev().max_by_key(|(_, part)| part.weight);
            Choice { part: heaviest.map_or(0, |(i, _)| i), told: false }
        })
    }

    /// Tells the client what was chosen, if it is to know.
    pub fn tell(&self, choice: Choice, head: &mut ResponseHeader) {
        if let (true, Some(cookie)) = (choice.told, &self.parts[choice.part].cookie) {
            let _ = head.append_header(SET_COOKIE, cookie.clone());
        }
    }

    fn tied(&self, request: &RequestHeader, facts: &Facts) -> Option<Choice> {
        let part = match self.sticky.as_ref()? {
            Sticky::Cookie(name) => {
                let value = cookie(request, name)?;
                self.parts.iter().position(|part| part.weight > 0 && part.pool.name().as_bytes() == value)?
            }
            Sticky::Consumer => self.at(hash(facts.consumer.as_ref()?.name.as_bytes())),
            Sticky::Hash(source) => self.at(source.hash(request, facts.client)?),
        };
        Some(Choice { part, told: false })
    }

    /// The part that has a number in its stretch of all numbers.
    fn at(&self, number: u64) -> usize {
        // The high half of a product spreads all numbers over 0..sum.
        let mut at = ((u128::from(number) * u128::from(self.sum)) >> 64) as u64;
        for (i, part) in self.parts.iter().enumerate() {
            match at.checked_sub(u64::from(part.weight)) {
                Some(rest) => at = rest,
                None => return i,
            }
        }
        unreachable!("a number of the sum is in one of its parts")
    }
}

/// Names of cookies and of upstreams have no characters that would have to be quoted.
fn cookie_for(name: &str, upstream: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("{name}={upstream}; Path=/; HttpOnly; SameSite=Lax")).ok()
}

impl FromStr for Sticky {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let token = |name: &str| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        match text.split_once(':') {
            None if text == "consumer" => Ok(Self::Consumer),
            None if text == "client" => Ok(Self::Hash(HashSource::Client)),
            Some(("cookie", name)) if token(name) => Ok(Self::Cookie(name.to_owned())),
            Some(("cookie", name)) => Err(format!("`{name}` is not the name of a cookie")),
            Some(("header", _)) => text.parse().map(Self::Hash),
            _ => Err(format!("`{text}`: write `cookie:NAME`, `client`, `consumer` or `header:NAME`")),
        }
    }
}

crate::types::deserialize_from_str!(
    Sticky,
    "what the choice is tied to: \"cookie:NAME\", \"client\", \"consumer\" or \"header:NAME\""
);
