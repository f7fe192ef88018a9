//! Limits that several gateways count together, in a [store](crate::store): what [`Gcra`](super::Gcra) does, done by Redis
//! for all shared limits of a request at one go.
//!
//! A key's value is its theoretical arrival time by the clock of Redis, `seconds.nanoseconds`, and it is forgotten when
//! it is idle. The script gives for each key how far that time is ahead, in nanoseconds, before the request; from that
//! the gateway comes to the decision that the script has come to. Where a limit refuses, none is charged. A time that is
//! further ahead than the limit ever lets one get (a clock was set back) counts as that far.
//!
//! Lua counts in doubles, which are exact up to 2^53: a limit may be ahead by 104 days at most. So that a sum with the time
//! of day is exact as well, seconds and nanoseconds are kept apart.
//!
//! A key is `portcullis:LIMIT:WHOSE`. `LIMIT` is a hash of where the limit is written and of what it counts, so another
//! definition begins anew; `WHOSE` is the SHA-256 of what the limit counts by, and of a consumer's own rate.

use std::hash::Hasher;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pingora_http::RequestHeader;
use serde::Deserialize;
use smallvec::SmallVec;

use super::config::LimitConfig;
use super::gcra::Gcra;
use super::{Limit, own};
use crate::facts::Facts;
use crate::policy::by;
use crate::store::{Key, Numbers, Script, Store, Unavailable};
use crate::types::Pace;

/// How far ahead of the clock a shared limit may be: doubles are exact up to here.
const FURTHEST: u64 = 1 << 53;

const SCRIPT: &str = "\
local now = redis.call('TIME')
local seconds, nanos = tonumber(now[1]), tonumber(now[2]) * 1000
local ahead, refused = {}, false
for i, key in ipairs(KEYS) do
  local interval, tolerance, patience = tonumber(ARGV[4*i-3]), tonumber(ARGV[4*i-2]), tonumber(ARGV[4*i-1])
  local s, n = string.match(redis.call('GET', key) or '', '^(%d+)%.(%d+)$')
  local is = s and (tonumber(s) - seconds) * 1e9 + (tonumber(n) - nanos) or 0
  ahead[i] = math.min(math.max(is, 0), interval + tolerance + patience)
  refused = refused or (ahead[i] > tolerance + patience and ARGV[4*i] == '0')
end
if not refused then
  for i, key in ipairs(KEYS) do
    local interval, tolerance, patience = tonumber(ARGV[4*i-3]), tonumber(ARGV[4*i-2]), tonumber(ARGV[4*i-1])
    if ahead[i] <= tolerance + patience then
      local till = nanos + ahead[i] + interval
      local value = string.format('%.0f.%09.0f', seconds + math.floor(till / 1e9), till % 1e9)
      redis.call('SET', key, value, 'PX', string.format('%.0f', math.ceil((ahead[i] + interval) / 1e6)))
    end
  end
end
return ahead
";

/// The shared limits of a route.
pub(super) struct Shared {
    store: Arc<Store>,
    script: Script,
    members: Box<[Member]>,
}

/// One of them.
pub(super) struct Member {
    /// Which of the policy's limits it is.
    pub limit: usize,
    /// The beginning of its keys.
    prefix: Box<[u8]>,
    pub down: StoreDown,
}

/// What becomes of requests while the store is down.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum StoreDown {
    /// The gateway counts by itself.
    #[default]
    Local,
    /// They go on.
    Open,
    /// They are refused.
    Closed,
}

impl Member {
    /// The limit at a position of those that are written at `owner`.
    pub fn new(limit: usize, config: &LimitConfig, owner: &str) -> Self {
        let mut hash = Sha256(Context::new(&SHA256));
        for piece in [
            owner,
            &limit.to_string(),
            &config.rate.to_string(),
            &config.by.to_string(),
            &config.ipv6_prefix.to_string(),
        ] {
            by::add(&mut hash, b'.', piece.as_bytes());
        }
        let mut prefix = Key::from_slice(b"portcullis:");
        hash.finish_into(&mut prefix, 8);
        prefix.push(b':');
        Self { limit, prefix: prefix.into_boxed_slice(), down: config.store_down.unwrap_or_default() }
    }

    fn key(&self, limit: &Limit, request: &RequestHeader, facts: &Facts) -> Key {
        let mut hash = Sha256(Context::new(&SHA256));
        limit.write_key(&mut hash, request, facts);
        let mut key = Key::from_slice(&self.prefix);
        hash.finish_into(&mut key, 32);
        key
    }
}

impl Shared {
    pub fn new(store: Arc<Store>, members: Vec<Member>, limits: &[Limit]) -> Self {
        let arguments = members.iter().flat_map(|member| limits[member.limit].arguments(None));
        let script = Script::new(SCRIPT, members.len(), &arguments.collect::<Vec<_>>());
        Self { store, script, members: members.into() }
    }

    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How far ahead of the clock the request's key was of each limit, in nanoseconds. If none refuses, it is charged.
    pub async fn ask(&self, limits: &[Limit], request: &RequestHeader, facts: &Facts) -> Result<Numbers, Unavailable> {
        let keys: SmallVec<[Key; 2]> =
            self.members.iter().map(|member| member.key(&limits[member.limit], request, facts)).collect();
        let own = own(facts).filter(|_| self.members.iter().any(|member| limits[member.limit].by_consumer));
        let arguments: Option<SmallVec<[u64; 8]>> =
            own.map(|own| self.members.iter().flat_map(|member| limits[member.limit].arguments(Some(own))).collect());
        self.store.run(&self.script, &keys, arguments.as_deref()).await
    }
}

/// Whether Redis can count by a limit.
pub(super) fn is_countable(gcra: &Gcra) -> bool {
    gcra.parts().into_iter().fold(0, u64::saturating_add) < FURTHEST
}

impl Limit {
    /// What the script is told of it.
    fn arguments(&self, own: Option<&Pace>) -> [u64; 4] {
        let [interval, tolerance, patience] = self.gcra(own).parts();
        [interval, tolerance, patience, u64::from(self.shadow)]
    }
}

struct Sha256(Context);

impl Sha256 {
    /// Adds the first bytes of the hash in base64url.
    fn finish_into(self, key: &mut Key, bytes: usize) {
        let digest = self.0.finish();
        let mut text = [0; 44];
        let length = URL_SAFE_NO_PAD.encode_slice(&digest.as_ref()[..bytes], &mut text);
        key.extend_from_slice(&text[..length.expect("32 bytes are 43 characters")]);
    }
}

impl Hasher for Sha256 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash is longer than this: see [`Self::finish_into`].
    fn finish(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_limit_and_nothing_of_the_caller() {
        let config = |toml: &str| toml::from_str::<LimitConfig>(toml).unwrap();
        let prefix = |limit, toml, owner| Member::new(limit, &config(toml), owner).prefix;
        let first = prefix(0, "rate = '1/s'", "defaults");
        assert!(first.starts_with(b"portcullis:") && first.ends_with(b":") && first.len() == 23);
        assert_eq!(first, prefix(0, "rate = '1/s'\nburst = 7\nshadow = true", "defaults"));
        for other in [
            prefix(1, "rate = '1/s'", "defaults"),
            prefix(0, "rate = '2/s'", "defaults"),
            prefix(0, "rate = '1/s'\nby = 'route'", "defaults"),
            prefix(0, "rate = '1/s'\nipv6_prefix = 48", "defaults"),
            prefix(0, "rate = '1/s'", "route a"),
        ] {
            assert_ne!(first, other);
        }
    }
}
