//! `[store.NAME]` as it is written.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde::Deserialize;
use tokio_rustls::TlsConnector;

use super::link::Target;
use super::resp;
use crate::build::{Build, Node, Value};
use crate::types::{Secret, Timespan};

/// Keys that name files.
pub(super) const FILES: &[&str] = &["file", "ca"];
const DEFAULT_PORT: u16 = 6379;
const SHORTEST: Timespan = Timespan::from_millis(1);
const LONGEST: Timespan = Timespan::from_secs(5);

/// A store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StoreConfig {
    pub redis: RedisConfig,
}

/// A Redis.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RedisConfig {
    pub url: Secret,
    #[serde(default = "twenty_milliseconds")]
    pub timeout: Timespan,
    pub ca: Option<PathBuf>,
}

fn twenty_milliseconds() -> Timespan {
    Timespan::from_millis(20)
}

/// Has the passwords of URLs hidden, whatever is reported of their lines.
pub(super) fn hide_passwords(node: &Node, build: &mut Build<'_>) {
    match &node.value {
        Value::String(text) if has_password(text) => build.within_detached(node, |build| build.hide("")),
        Value::Table(table) => table.values().for_each(|entry| hide_passwords(&entry.node, build)),
        Value::Array(items) => items.iter().for_each(|item| hide_passwords(item, build)),
        _ => {}
    }
}

fn has_password(url: &str) -> bool {
    url.contains('@')
}

impl RedisConfig {
    /// How it is reached, and how long a call may take. `None` after every mistake was reported.
    pub fn compile(&self, build: &mut Build<'_>) -> Option<(Target, Duration)> {
        let before = build.errors();
        if self.timeout < SHORTEST || self.timeout > LONGEST {
            build.error("timeout", format!("a call takes from {SHORTEST} to {LONGEST}"));
        }
        let text = match &self.url {
            // It is no secret where there is no password in it.
            Secret::Literal(text) if !has_password(text.expose()) => text.clone(),
            secret => build.secret("url", secret)?,
        };
        let url = build.or_report("url", Url::parse(text.expose()));
        if let (Some(Url { tls: false, .. }), Some(_)) = (&url, &self.ca) {
            build.error("ca", "nobody's certificate is verified without TLS").help("write a URL with rediss://");
        }
        let url = url?;
        let tls = if url.tls { Some(tls(&url.host, self.ca.as_deref(), build)?) } else { None };
        let (greeting, greetings) = url.greeting();
        let target =
            Target { host: url.host.into(), port: url.port, tls, greeting, greetings, known: Mutex::default() };
        (build.errors() == before).then_some((target, self.timeout.0))
    }
}

fn tls(host: &str, ca: Option<&Path>, build: &mut Build<'_>) -> Option<(TlsConnector, ServerName<'static>)> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for der in build.certificates("ca", path)? {
                let added = roots.add(der).map_err(|error| format!("a certificate cannot vouch for others: {error}"));
                build.or_report("ca", added)?;
            }
        }
        None => {
            let found = pingora_core::tls::load_native_certs();
            let found = found.map_err(|error| format!("the system's authorities cannot be read: {error}"));
            roots.add_parsable_certificates(build.or_report("url", found)?);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = builder
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        .map_err(|error| format!("TLS cannot be had: {error}"));
    let config = build.or_report("url", config)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| "the host cannot be in a certificate");
    Some((TlsConnector::from(Arc::new(config)), build.or_report("url", name)?))
}

/// What a URL says. What is reported of one holds no part of it.
#[derive(Debug, PartialEq, Eq)]
struct Url {
    tls: bool,
    user: String,
    password: String,
    host: String,
    port: u16,
    database: u16,
}

impl Url {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match (text.strip_prefix("redis://"), text.strip_prefix("rediss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err("the URL of a Redis begins with redis://, or rediss:// for TLS"),
        };
        if rest.contains(['?', '#']) {
            return Err("the URL of a Redis ends with its database; a `?` or `#` in a password is written %3F, %23");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let database = match path {
            "" => 0,
            digits => digits.parse().map_err(|_| "after the host of a Redis there is the number of a database")?,
        };
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = match credentials.split_once(':') {
            _ if credentials.is_empty() => ("", ""),
            Some((user, password)) if !password.is_empty() => (user, password),
            _ => return Err("before the `@` there is a password: redis://:password@host, redis://user:password@host"),
        };
        let decoded = |text| percent_decode_str(text).decode_utf8().map_err(|_| "the password is not UTF-8");
        let (host, port) = match address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').ok_or("after the `]` there is a port")?)),
            None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("the port is not one from 1 to 65535")?,
        };
        let is_host = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if host.is_empty() || !host.bytes().all(is_host) {
            return Err("the URL of a Redis names its host: redis://127.0.0.1:6379");
        }
        Ok(Self {
            tls,
            user: decoded(user)?.into_owned(),
            password: decoded(password)?.into_owned(),
            host: host.to_owned(),
            port,
            database,
        })
    }

    /// What a new connection says first, and how many commands that is.
    fn greeting(&self) -> (Box<[u8]>, usize) {
        let mut commands = Vec::new();
        match (self.user.as_str(), self.password.as_str()) {
            (_, "") => {}
            ("", password) => commands.push(resp::command(&[b"AUTH", password.as_bytes()])),
            (user, password) => commands.push(resp::command(&[b"AUTH", user.as_bytes(), password.as_bytes()])),
        }
        if self.database > 0 {
            commands.push(resp::command(&[b"SELECT", self.database.to_string().as_bytes()]));
        }
        (commands.concat().into(), commands.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_url_says_where_a_redis_is() {
        let url = |tls, user: &str, password: &str, host: &str, port, database| Url {
            tls,
            user: user.into(),
            password: password.into(),
            host: host.into(),
            port,
            database,
        };
        for (text, expected) in [
            ("redis://127.0.0.1", url(false, "", "", "127.0.0.1", 6379, 0)),
            ("redis://redis.internal:6380/", url(false, "", "", "redis.internal", 6380, 0)),
            ("rediss://:p%40ss@h/3", url(true, "", "p@ss", "h", 6379, 3)),
            ("redis://u:a:b@[::1]:7/15", url(false, "u", "a:b", "::1", 7, 15)),
            ("redis://[::1]", url(false, "", "", "::1", 6379, 0)),
        ] {
            assert_eq!(Url::parse(text), Ok(expected), "{text}");
        }
        for wrong in [
            "",
            "127.0.0.1:6379",
            "http://h",
            "redis://",
            "redis://:p@",
            "redis://h:0",
            "redis://h:x",
            "redis://h:70000",
            "redis://h/x",
            "redis://h/1/2",
            "redis://h?db=1",
            "redis://u@h",
            "redis://u:@h",
            "redis://::1",
            "redis://[::1]x",
            "redis://a b",
            "redis://:%ff@h",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
        let greeting = |text| Url::parse(text).unwrap().greeting();
        assert_eq!(greeting("redis://h"), (Box::from(*b""), 0));
        let said = b"*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n2\r\n";
        assert_eq!(greeting("redis://u:p@h/2"), (Box::from(*said), 2));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "rediss?://[a-z:@/%\\[\\]0-9?#é]{0,30}") {
            let _ = Url::parse(&text).map(|url| url.greeting());
        }
    }
}
