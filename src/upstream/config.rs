//! `[upstream.NAME]` as it is written.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer, value::SeqAccessDeserializer};

use super::breaker::BreakerConfig;
use super::hash::HashSource;
use super::outlier::OutlierConfig;
use crate::build::Build;
use crate::types::{Failures, Reserved, Timespan};

/// An upstream. The short form is the list of its servers.
#[derive(Clone, PartialEq, Debug)]
pub struct UpstreamConfig(pub(super) Long);

#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Long {
    pub servers: Vec<ServerConfig>,
    #[serde(default)]
    pub balance: BalanceConfig,
    pub health: Option<HealthConfig>,
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    #[serde(default)]
    pub retry: RetryConfig,
    #[serde(default)]
    pub protocol: Protocol,
    pub tls: Option<TlsConfig>,
    #[serde(default)]
    pub keepalive: KeepaliveConfig,
    #[serde(default)]
    pub forwarded: ForwardedStyle,
    pub outlier: Option<OutlierConfig>,
    pub breaker: Option<BreakerConfig>,
    #[serde(default)]
    pub max_requests: Reserved,
    pub slow_start: Option<Timespan>,
    #[serde(default)]
    pub discover: Reserved,
}

/// A server; the short form is its address.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct ServerConfig {
    pub address: Address,
    pub weight: u16,
    pub drain: bool,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Address {
    Inet(SocketAddr),
    Name(String, u16),
    Unix(PathBuf),
}

#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "snake_case")]
pub(super) enum BalanceConfig {
    #[default]
    RoundRobin,
    Random,
    LeastRequest,
    PeakEwma,
    Hash(HashSource),
}

/// Which fields tell a server of the client.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedStyle {
    /// `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto`.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// All of them.
    Both,
    /// None that the gateway adds.
    None,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthConfig {
    /// Without a path only the connection is tried.
    pub path: Option<String>,
    pub host: Option<String>,
    #[serde(default = "five_seconds")]
    pub interval: Timespan,
    #[serde(default = "one_second")]
    pub timeout: Timespan,
    #[serde(default = "one")]
    pub healthy: u16,
    #[serde(default = "three")]
    pub unhealthy: u16,
    #[serde(default = "any_success")]
    pub expect: Vec<u16>,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TimeoutsConfig {
    pub connect: Timespan,
    pub first_byte: Timespan,
    pub idle: Timespan,
    pub total: Option<Timespan>,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RetryConfig {
    /// Further tries after the first.
    pub attempts: u32,
    pub on: Failures,
    /// The share of requests that may be tried again, such as `"20%"`.
    pub budget: Percent,
}

/// `"20%"`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Percent(pub u32);

#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub(super) enum Protocol {
    #[default]
    H1,
    H2,
    H2c,
}

#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct TlsConfig {
    pub sni: Option<String>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub verify: Option<bool>,
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KeepaliveConfig {
    pub idle: Timespan,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            connect: Timespan::from_secs(5),
            first_byte: Timespan::from_secs(60),
            idle: Timespan::from_secs(60),
            total: None,
        }
    }
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { attempts: 1, on: Failures::default(), budget: Percent(20) }
    }
}

impl Default for KeepaliveConfig {
    fn default() -> Self {
        Self { idle: Timespan::from_secs(50) }
    }
}

fn five_seconds() -> Timespan {
    Timespan::from_secs(5)
}

fn one_second() -> Timespan {
    Timespan::from_secs(1)
}

fn one() -> u16 {
    1
}

fn three() -> u16 {
    3
}

fn any_success() -> Vec<u16> {
    vec![200, 204]
}

impl Long {
    /// What can be wrong beyond the types.
    pub fn check(&self, build: &mut Build<'_>) {
        if self.servers.is_empty() {
            build.error("servers", "an upstream without servers can answer nothing");
        }
        for (i, server) in self.servers.iter().enumerate() {
            let short = format!("[{i}]");
            let key = if build.node().array().is_some() { short } else { format!("servers[{i}]") };
            if server.weight == 0 {
                build
                    .error(&format!("{key}.weight"), "a weight is 1 or more")
                    .help("use drain = true to give it no requests");
            }
            if self.servers[..i].iter().any(|other| other.address == server.address) {
                build
                    .error(&key, format!("the server `{}` is given twice", server.address))
                    .help("use `weight` to give it more");
            }
        }
        if let Some(health) = &self.health {
            if health.path.as_ref().is_some_and(|path| !path.starts_with('/')) {
                build.error("health.path", "the path of a check begins with `/`");
            }
            if health.interval.0 < Duration::from_millis(100) {
                build.error("health.interval", "checks are at least 100ms apart");
            }
            if health.timeout.0.is_zero() {
                build.error("health.timeout", "a check needs time to answer");
            }
            for (key, count) in [("health.healthy", health.healthy), ("health.unhealthy", health.unhealthy)] {
                if count == 0 {
                    build.error(key, "at least one check decides");
                }
            }
            if health.expect.iter().any(|status| !(100..=599).contains(status)) {
                build.error("health.expect", "a status is a number from 100 to 599");
            }
        }
        for (key, time) in
            [("connect", self.timeouts.connect), ("first_byte", self.timeouts.first_byte), ("idle", self.timeouts.idle)]
        {
            if time.0.is_zero() {
                build.error(&format!("timeouts.{key}"), "no time at all would fail every request");
            }
        }
        if let Some(outlier) = &self.outlier {
            outlier.check(build);
        }
        if let Some(breaker) = &self.breaker {
            breaker.check(build);
        }
        if self.slow_start.is_some_and(|time| time.0.is_zero()) {
            build.error("slow_start", "no time at all is no slow start").help("leave it out");
        }
        if self.retry.attempts > 10 {
            build.error("retry.attempts", "more than 10 further tries only make an outage worse");
        }
    }
}

impl<'de> Deserialize<'de> for UpstreamConfig {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UpstreamVisitor;
        impl<'de> Visitor<'de> for UpstreamVisitor {
            type Value = UpstreamConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an upstream, such as [\"10.0.0.1:80\"] or { servers = [\"10.0.0.1:80\"] }")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<UpstreamConfig, A::Error> {
                let servers = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
                Ok(UpstreamConfig(Long { servers, ..Long::default() }))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<UpstreamConfig, A::Error> {
                Long::deserialize(MapAccessDeserializer::new(map)).map(UpstreamConfig)
            }
        }
        deserializer.deserialize_any(UpstreamVisitor)
    }
}

impl<'de> Deserialize<'de> for ServerConfig {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ServerVisitor;
        impl<'de> Visitor<'de> for ServerVisitor {
            type Value = ServerConfig;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a server, such as \"10.0.0.1:80\" or { address = \"10.0.0.1:80\", weight = 2 }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<ServerConfig, E> {
                Ok(ServerConfig { address: text.parse().map_err(E::custom)?, weight: 1, drain: false })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ServerConfig, A::Error> {
                #[derive(Deserialize)]
                #[serde(deny_unknown_fields)]
                struct Full {
                    address: Address,
                    #[serde(default = "one")]
                    weight: u16,
                    #[serde(default)]
                    drain: bool,
                }
                let full = Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(ServerConfig { address: full.address, weight: full.weight, drain: full.drain })
            }
        }
        deserializer.deserialize_any(ServerVisitor)
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Inet(address));
        }
        let hint = "write \"host:port\", \"10.0.0.1:80\", \"[::1]:80\" or \"unix:/path\"";
        if text.contains("://") {
            return Err(format!("`{text}` is a URL, and a server is an address: {hint}"));
        }
        let Some((host, port)) = text.rsplit_once(':') else { return Err(format!("`{text}` has no port: {hint}")) };
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        if host.is_empty() || host.len() > 253 || !host.bytes().all(fine) {
            return Err(format!("`{host}` is not a host: {hint}"));
        }
        match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(Self::Name(host.to_owned(), port)),
            _ => Err(format!("`{port}` is not a port from 1 to 65535")),
        }
    }
}

crate::types::deserialize_from_str!(Address, "the address of a server, such as \"10.0.0.1:80\"");

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%').and_then(|number| number.trim().parse().ok()) {
            Some(percent) if percent <= 100 => Ok(Self(percent)),
            _ => Err(format!("`{text}` is not a share: write \"20%\"")),
        }
    }
}

crate::types::deserialize_from_str!(Percent, "a share, such as \"20%\"");
