//! What a limit counts by: `"client"`, `"consumer"`, `"route"`, `"header:X-Key"`, or a list of them, all of which
//! make the key.
//!
//! - `client` is the client's address; of an IPv6 address the first `ipv6_prefix` bits, for whoever has one address has
//!   the network.
//! - `consumer` is who the caller is known to be. Of a caller that is not known it is the client's address.
//! - `header:NAME` is what the request says in a field, whatever that is: anybody can write anything there. Of a request
//!   without the field it is the client's address.
//!
//! A key is a hash of all that: under a secret of the process, so that nobody can choose keys that collide, or one that
//! is the same everywhere and that nobody can make collide.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};

use http::HeaderName;
use pingora_http::RequestHeader;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::facts::Facts;

/// What a limit counts by.
#[derive(Clone, Debug, PartialEq)]
pub struct By(Vec<Part>);

/// A part of the key.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// The client's address.
    Client,
    /// Who the caller is known to be.
    Consumer,
    /// The route's name.
    Route,
    /// What a field of the request says.
    Header(HeaderName),
}

impl By {
    /// By this alone.
    pub fn one(part: Part) -> Self {
        Self(vec![part])
    }

    /// Whether it tells callers apart.
    pub fn is_per_caller(&self) -> bool {
        self.0.iter().any(|part| *part != Part::Route)
    }

    /// Whether this is a part of it.
    pub fn has(&self, part: &Part) -> bool {
        self.0.contains(part)
    }

    /// The key of a request in this process.
    pub fn key(&self, secret: &RandomState, ipv6_prefix: u8, request: &RequestHeader, facts: &Facts) -> u64 {
        let mut hash = secret.build_hasher();
        self.write(&mut hash, ipv6_prefix, request, facts);
        hash.finish()
    }

    /// Writes what makes the key of a request.
    pub fn write(&self, hash: &mut impl Hasher, ipv6_prefix: u8, request: &RequestHeader, facts: &Facts) {
        for part in &self.0 {
            let client = |hash: &mut _| add_client(hash, facts.client, ipv6_prefix);
            match part {
                Part::Client => client(hash),
                Part::Consumer => match &facts.consumer {
                    Some(consumer) => add(hash, b'c', consumer.name.as_bytes()),
                    None => client(hash),
                },
                Part::Route => add(hash, b'r', facts.route.as_deref().unwrap_or("").as_bytes()),
                Part::Header(name) => {
                    let mut values = request.headers.get_all(name).iter().peekable();
                    if values.peek().is_none() {
                        client(hash);
                    }
                    values.for_each(|value| add(hash, b'h', value.as_bytes()));
                }
            }
        }
    }
}

fn add_client(hash: &mut impl Hasher, client: IpAddr, ipv6_prefix: u8) {
    match client {
        IpAddr::V4(address) => add(hash, b'4', &address.octets()),
        IpAddr::V6(address) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(ipv6_prefix)).unwrap_or(0);
            add(hash, b'6', &Ipv6Addr::from_bits(address.to_bits() & kept).octets());
        }
    }
}

/// With its kind and its length: no two lists of pieces run into each other. Every machine writes the same.
pub(super) fn add(hash: &mut impl Hasher, kind: u8, piece: &[u8]) {
    hash.write_u8(kind);
    hash.write(&(piece.len() as u64).to_le_bytes());
    hash.write(piece);
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, part) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" and ")?;
            }
            match part {
                Part::Client => f.write_str("client")?,
                Part::Consumer => f.write_str("consumer")?,
                Part::Route => f.write_str("route")?,
                Part::Header(name) => write!(f, "header:{name}")?,
            }
        }
        Ok(())
    }
}

fn part<E: de::Error>(text: &str) -> Result<Part, E> {
    const KNOWN: [&str; 4] = ["client", "consumer", "route", "header:NAME"];
    match text {
        "client" => Ok(Part::Client),
        "consumer" => Ok(Part::Consumer),
        "route" => Ok(Part::Route),
        _ => match text.strip_prefix("header:") {
            Some(name) => match name.parse() {
                Ok(name) => Ok(Part::Header(name)),
                Err(_) => Err(E::custom(format!("`{name}` is not the name of a header field"))),
            },
            None => Err(E::custom(format!(
                "a limit cannot count by `{text}`: {}",
                crate::build::suggestion("key", text, &KNOWN)
            ))),
        },
    }
}

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByVisitor;
        impl<'de> Visitor<'de> for ByVisitor {
            type Value = By;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"client\", \"consumer\", \"route\", \"header:NAME\" or a list of them")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<By, E> {
                part(text).map(By::one)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<By, A::Error> {
                let mut parts = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    let part = part(&text)?;
                    if parts.contains(&part) {
                        return Err(de::Error::custom(format!("`{text}` is given twice")));
                    }
                    parts.push(part);
                }
                match parts.is_empty() {
                    true => {
                        Err(de::Error::custom("an empty list counts by nothing: write \"route\" for all of a route"))
                    }
                    false => Ok(By(parts)),
                }
            }
        }
        deserializer.deserialize_any(ByVisitor)
    }
}
