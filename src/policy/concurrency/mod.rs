//! `concurrency`: how many requests may be under way at once.
//!
//! ```toml
//! concurrency = { max = 100 }
//! concurrency = { max = 2, by = "client", queue = { size = 10, wait = "5s" } }
//! ```
//!
//! A request takes one of `max` places and gives it back when it ends, however it ends: a stream or a WebSocket when it
//! is closed. Where all are taken, it waits in the queue, if there is one, the first first; else, or when it has waited
//! for too long, it is refused: with a 429 where callers are counted apart, for then it is the caller who asks too much,
//! and with a 503 where all count together. What counts is a key, see [`By`].
//!
//! Places are this process's, and belong to where the policy is written, as [`super::rate_limit`] has it. A reload that
//! changes the policy begins with empty places; requests under way give theirs back to those that they took them from.
//! A rehearsal takes none.

mod places;

use std::hash::RandomState;
use std::sync::Arc;
use std::time::Duration;

use pingora_http::RequestHeader;
use serde::Deserialize;

use self::places::{Places, Taken};
use super::by::{By, Part};
use super::{Policy, Scope, Verdict};
use crate::build::Build;
use crate::facts::Facts;
use crate::reply::Reply;
use crate::types::Timespan;

/// `concurrency` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    max: u32,
    #[serde(default = "route")]
    by: By,
    queue: Option<QueueConfig>,
    #[serde(default = "network")]
    ipv6_prefix: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueConfig {
    size: u32,
    wait: Timespan,
}

/// The compiled policy.
pub struct Concurrency {
    by: By,
    ipv6_prefix: u8,
    /// How long a request waits for a place.
    wait: Duration,
    kept: Arc<Kept>,
}

/// What outlives a reload.
struct Kept {
    places: Arc<Places>,
    secret: RandomState,
}

const LONGEST_WAIT: Timespan = Timespan::from_secs(60);

impl Policy for Concurrency {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        if config.max == 0 {
            build.error("max", "nobody could be served").help("give at least 1");
        }
        if !(1..=128).contains(&config.ipv6_prefix) {
            build.error("ipv6_prefix", "a prefix of an IPv6 address has 1 to 128 bits");
        }
        if let Some(queue) = &config.queue {
            if queue.size == 0 {
                build.error("queue.size", "nobody could wait").help("leave `queue` out to refuse at once");
            }
            if queue.wait > LONGEST_WAIT {
                build.error("queue.wait", format!("a request waits for at most {LONGEST_WAIT}"));
            }
        }
        if build.errors() > before {
            return None;
        }
        let queue = config.queue.as_ref().map_or(0, |queue| queue.size);
        let made_of = build.fingerprint(build.node(), &[]);
        let kept = build.keep(&format!("concurrency of {}", scope.owner), made_of, |_| {
            Some(Kept { places: Arc::new(Places::new(config.max, queue)), secret: RandomState::new() })
        })?;
        let wait = config.queue.map_or(Duration::ZERO, |queue| queue.wait.0);
        Some(Self { by: config.by, ipv6_prefix: config.ipv6_prefix, wait, kept })
    }

    async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        if facts.rehearsal {
            return Ok(());
        }
        let key = self.by.key(&self.kept.secret, self.ipv6_prefix, request, facts);
        facts.place = match self.kept.places.take(key) {
            Taken::Place(place) => Some(place),
            Taken::Turn(turn) => tokio::time::timeout(self.wait, turn.comes()).await.ok().flatten(),
            Taken::Nothing => None,
        };
        match facts.place {
            Some(_) => Ok(()),
            None => Err(self.refusal().retry_after(1)),
        }
    }
}

impl Concurrency {
    fn refusal(&self) -> Reply {
        match self.by.is_per_caller() {
            true => Reply::too_many_requests("as many requests as allowed are under way"),
            false => Reply::busy("as many requests as can be served are under way"),
        }
    }
}

fn route() -> By {
    By::one(Part::Route)
}

fn network() -> u8 {
    64
}
