//! `rate_limit` as it is written: one limit, or a list of several.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};

use super::gcra::Gcra;
use super::shared::{StoreDown, is_countable};
use crate::build::Build;
use crate::policy::by::{By, Part};
use crate::types::{Pace, Rate, Timespan};

/// The limits, in the order in which they are asked.
pub struct Config {
    /// Whether they are written as a list.
    pub(super) list: bool,
    pub(super) limits: Vec<LimitConfig>,
}

/// One limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitConfig {
    pub rate: Rate,
    pub burst: Option<u32>,
    #[serde(default = "client")]
    pub by: By,
    #[serde(default)]
    pub over: Over,
    #[serde(default)]
    pub shadow: bool,
    #[serde(default = "yes")]
    pub headers: bool,
    #[serde(default = "network")]
    pub ipv6_prefix: u8,
    /// Where it is counted together with other gateways.
    pub store: Option<String>,
    pub store_down: Option<StoreDown>,
}

/// What becomes of a request that is over the limit.
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
pub(super) enum Over {
    /// It is refused.
    #[default]
    Reject,
    /// It waits its turn, for up to so long.
    Delay(Timespan),
}

/// `rate_limit` of a consumer: the numbers that take the place of those of limits by consumers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OwnRate {
    rate: Rate,
    burst: Option<u32>,
}

/// The longest time that a request may wait.
pub(super) const LONGEST_DELAY: Timespan = Timespan::from_secs(60);

impl OwnRate {
    /// Compiles it; `build` is at it. Any limit can count by it.
    pub fn compile(&self, build: &mut Build<'_>) -> Pace {
        check_burst(self.burst, "burst", build);
        let pace = Pace::new(self.rate, self.burst.unwrap_or(self.rate.count));
        if !is_countable(&Gcra::new(&pace, LONGEST_DELAY.0)) {
            build
                .error("burst", "a limit with a store could not count so far ahead")
                .help("what a burst uses up must come back within 104 days");
        }
        pace
    }
}

impl LimitConfig {
    pub fn pace(&self) -> Pace {
        Pace::new(self.rate, self.burst.unwrap_or(self.rate.count))
    }

    /// How long a request may be held back.
    pub fn patience(&self) -> Duration {
        match self.over {
            Over::Reject => Duration::ZERO,
            Over::Delay(delay) => delay.0,
        }
    }
}

pub(super) fn check_burst(burst: Option<u32>, key: &str, build: &mut Build<'_>) {
    if burst == Some(0) {
        build.error(key, "a burst of 0 would let nothing through").help("1 is one request at a time");
    }
}

fn client() -> By {
    By::one(Part::Client)
}

fn yes() -> bool {
    true
}

fn network() -> u8 {
    64
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct LimitsVisitor;
        impl<'de> Visitor<'de> for LimitsVisitor {
            type Value = Config;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a limit such as { rate = \"100/s\" }, or a list of them")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Config, A::Error> {
                let limit = LimitConfig::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Config { list: false, limits: vec![limit] })
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Config, A::Error> {
                let mut limits = Vec::new();
                while let Some(limit) = seq.next_element()? {
                    limits.push(limit);
                }
                match limits.is_empty() {
                    true => Err(de::Error::custom("an empty list limits nothing: write `false` to switch limits off")),
                    false => Ok(Config { list: true, limits }),
                }
            }
        }
        deserializer.deserialize_any(LimitsVisitor)
    }
}
