//! `compress`: answers are compressed for clients that can read them so (RFC 9110, section 12.5.3).
//!
//! ```toml
//! compress = true
//! compress = { algorithms = ["zstd", "br", "gzip"], min_size = "1KiB", types = ["application/json", "text/*"] }
//! ```
//!
//! Of the codings that a client likes equally well it gets the first of `algorithms`. Left as they are: answers of fewer
//! than `min_size` bytes, of other types than `types`, parts (206), what has a content coding already, and what says
//! `Cache-Control: no-transform`. The entity tag of what is compressed becomes a weak one, and `Vary` has
//! `Accept-Encoding` wherever the same answer may be given in another way.
//!
//! What a cache holds is compressed for each client that gets it; the gateway's own answers are not.

use bytes::Bytes;
use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue,
};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use super::{Policy, Scope};
use crate::body::coding::{Coding, Encoder};
use crate::body::media::Range;
use crate::body::{Malformed, Shaper, reshaped, varies};
use crate::build::{Build, Node, Table, Value};
use crate::reply::Reply;
use crate::types::{Size, weighted};

/// `compress` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    algorithms: Vec<String>,
    min_size: Size,
    types: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self { algorithms: owned(&["zstd", "br", "gzip"]), min_size: Size::kib(1), types: owned(&TYPES) }
    }
}

/// What is worth it, and is not compressed in itself.
const TYPES: [&str; 12] = [
    "text/html",
    "text/css",
    "text/plain",
    "text/xml",
    "text/csv",
    "text/javascript",
    "application/javascript",
    "application/json",
    "application/*+json",
    "application/xml",
    "application/*+xml",
    "image/svg+xml",
];

/// Bytes that are held before an answer of unknown length goes on.
const HELD: usize = 64 << 10;

/// What becomes of an answer that may be compressed.
pub enum Offer {
    /// It is.
    Coded(Box<dyn Shaper>),
    /// It is not for this client, but may be for others.
    AsItIs,
}

/// The compiled policy.
pub struct Compress {
    algorithms: Box<[Coding]>,
    min_size: u64,
    types: Box<[Range]>,
}

impl Policy for Compress {
    type Config = Config;

    fn long(short: &Node) -> Option<Node> {
        (short.value == Value::Boolean(true)).then(|| Node { place: short.place, value: Value::Table(Table::new()) })
    }

    fn compile(config: Config, _: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let mut algorithms = Vec::new();
        for (i, name) in config.algorithms.iter().enumerate() {
            match Coding::parse(name.as_bytes()) {
                Some(coding) if algorithms.contains(&coding) => {
                    build.error(&format!("algorithms[{i}]"), format!("`{name}` is given twice"));
                }
                Some(coding) => algorithms.push(coding),
                None => {
                    build
                        .error(&format!("algorithms[{i}]"), format!("`{name}` is not known"))
                        .help(crate::build::suggestion("algorithm", name, &["zstd", "br", "gzip"]));
                }
            }
        }
        if config.algorithms.is_empty() {
            build.error("algorithms", "without an algorithm nothing is compressed").help("or compress = false");
        }
        let mut types = Vec::new();
        for (i, text) in config.types.iter().enumerate() {
            match Range::parse(text) {
                Some(parsed) => types.push(parsed),
                None => {
                    build
                        .error(&format!("types[{i}]"), format!("`{text}` is not a media type"))
                        .help("write application/json, text/* or application/*+json");
                }
            }
        }
        let min_size = config.min_size.0;
        (build.errors() == before).then(|| Self { algorithms: algorithms.into(), min_size, types: types.into() })
    }
}

impl Compress {
    /// What an answer with this head goes through: it is compressed, or only said to depend on the request. None where it
    /// is left as it is.
    pub fn offer(&self, head: &ResponseHeader, request: &RequestHeader) -> Option<Offer> {
        let coding = self.is_for(head).then(|| preferred(&request.headers, &self.algorithms))?;
        Some(match coding {
            Some(coding) => Offer::Coded(Box::new(Compressing { coding, min_size: self.min_size, encoder: None })),
            None => Offer::AsItIs,
        })
    }

    fn is_for(&self, head: &ResponseHeader) -> bool {
        let fields = &head.headers;
        let length = fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let media = fields.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let unsuitable = matches!(head.status, StatusCode::PARTIAL_CONTENT | StatusCode::NO_CONTENT);
        let kept = |value: &HeaderValue| {
            value.as_bytes().split(|b| *b == b',').any(|said| said.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
        };
        !unsuitable
            && length.is_none_or(|length| length >= self.min_size)
            && !fields.contains_key(CONTENT_ENCODING)
            && self.types.iter().any(|known| known.rank(media) > 0)
            && !fields.get_all(CACHE_CONTROL).iter().any(kept)
    }
}

/// The coding that the client likes best, the earlier of `known` where it likes two as well (RFC 9110, section 12.5.3).
/// None where it says nothing, or likes the answer as it is better.
fn preferred(fields: &HeaderMap, known: &[Coding]) -> Option<Coding> {
    let mut wishes = [None; 3];
    let (mut others, mut identity) = (None, None);
    for value in fields.get_all(ACCEPT_ENCODING) {
        for (name, weight) in weighted(value.as_bytes()) {
            match name {
                b"*" => others = Some(weight),
                name if name.eq_ignore_ascii_case(b"identity") => identity = Some(weight),
                name => {
                    let position = known.iter().position(|coding| Coding::parse(name) == Some(*coding));
                    if let Some(wish) = position.and_then(|i| wishes.get_mut(i)) {
                        *wish = Some(weight);
                    }
                }
            }
        }
    }
    let weighed = known.iter().zip(wishes).map(|(coding, wish)| (*coding, wish.or(others).unwrap_or(0)));
    let best = weighed.filter(|(_, weight)| *weight > 0).reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.filter(|(_, weight)| *weight >= identity.unwrap_or(0)).map(|(coding, _)| coding)
}

/// An answer that is being compressed.
struct Compressing {
    coding: Coding,
    min_size: u64,
    encoder: Option<Encoder>,
}

impl Compressing {
    /// What compresses it, from the first use on.
    fn encoder(&mut self) -> Result<&mut Encoder, Malformed> {
        match &mut self.encoder {
            Some(encoder) => Ok(encoder),
            none => Ok(none.insert(Encoder::new(self.coding).map_err(failed)?)),
        }
    }
}

fn failed(error: std::io::Error) -> Malformed {
    Malformed::new(0, format!("it cannot be compressed: {error}"))
}

impl Shaper for Compressing {
    fn needs(&self) -> Option<usize> {
        Some(HELD)
    }

    fn reads(&self) -> bool {
        false
    }

    fn head(&mut self, head: &mut ResponseHeader) {
        varies(head);
        reshaped(head);
        let _ = head.insert_header(CONTENT_ENCODING, HeaderValue::from_static(self.coding.name()));
    }

    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, _: Option<&HeaderMap>) -> Result<Bytes, Reply> {
        varies(head);
        if (body.len() as u64) < self.min_size.max(1) {
            return Ok(body);
        }
        let Some(shorter) = self.coding.shorten(&body) else { return Ok(body) };
        self.head(head);
        Ok(shorter.into())
    }

    fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.encoder()?.push(part, out).map_err(failed)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.encoder()?.flush(out).map_err(failed)
    }

    fn end(&mut self, _: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.encoder()?;
        self.encoder.take().map_or(Ok(()), |encoder| encoder.end(out)).map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_gets_the_coding_that_it_likes_best() {
        let known = [Coding::Zstd, Coding::Brotli, Coding::Gzip];
        for (wish, coding) in [
            ("gzip", Some(Coding::Gzip)),
            ("gzip, br, zstd", Some(Coding::Zstd)),
            ("gzip;q=1.0, br;q=0.9", Some(Coding::Gzip)),
            ("x-gzip", Some(Coding::Gzip)),
            ("*", Some(Coding::Zstd)),
            ("*;q=0.5, zstd;q=0", Some(Coding::Brotli)),
            ("gzip;q=0", None),
            ("identity, gzip;q=0.5", None),
            ("deflate", None),
            ("", None),
        ] {
            let mut fields = HeaderMap::new();
            fields.insert(ACCEPT_ENCODING, wish.parse().unwrap());
            assert_eq!(preferred(&fields, &known), coding, "{wish}");
        }
        assert_eq!(preferred(&HeaderMap::new(), &known), None);
    }
}
