//! HTTP/1.1 on the wire (RFC 9112): heads to and from bytes, and the framing of bodies.
//!
//! Field names are written in the case that people write them in (`Content-Type`), for old programs that compare
//! them byte by byte; RFC 9110 says that nobody should.

pub mod chunked;
mod request;
mod response;

use bytes::Bytes;
use http::header::{
    CONNECTION, HeaderMap, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue};

pub use request::{parse as parse_request, write as write_request};
pub use response::{Head as ResponseHead, parse as parse_response, write as write_response};

/// How a body is framed (RFC 9112, section 6).
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Framing {
    /// No body.
    None,
    /// This many bytes, more than zero.
    Length(u64),
    /// The chunked coding.
    Chunked,
    /// Everything until the connection ends; only for responses.
    UntilClose,
}

/// Something is no HTTP/1.1: what.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Malformed(pub &'static str);

impl From<Malformed> for std::io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, malformed.0)
    }
}

/// Header fields in one head at most.
const MOST_FIELDS: usize = 256;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

const HOP_BY_HOP: [HeaderName; 10] = [
    CONNECTION,
    HTTP2_SETTINGS,
    KEEP_ALIVE,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Whether a field belongs to one connection only (RFC 9110, section 7.6.1) or to the framing of a message.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    match name.as_str().len() {
        2 => *name == TE,
        7 => *name == TRAILER || *name == UPGRADE,
        10 => *name == CONNECTION || *name == KEEP_ALIVE,
        14 => *name == HTTP2_SETTINGS,
        16 => *name == PROXY_CONNECTION,
        17 => *name == TRANSFER_ENCODING,
        18 => *name == PROXY_AUTHENTICATE,
        19 => *name == PROXY_AUTHORIZATION,
        _ => false,
    }
}

/// Fields that `Connection` may not take away: they frame the message or tell of the client.
const PROTECTED: [&str; 7] = [
    "host",
    "content-length",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "authorization",
];

/// Whether a client's `Connection` may name this as a field of its own hop.
pub fn may_be_nominated(token: &[u8]) -> bool {
    !token.is_empty() && token.iter().all(|b| is_token(*b)) && !is_protected(token)
}

fn is_protected(name: &[u8]) -> bool {
    PROTECTED.iter().any(|protected| protected.as_bytes().eq_ignore_ascii_case(name))
}

/// Removes the fields that `Connection` names, as far as it may name them.
pub fn remove_nominated(fields: &mut HeaderMap) {
    let named = |value: &HeaderValue| {
        let tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let allowed = tokens.filter(|token| may_be_nominated(token));
        allowed.filter_map(|token| HeaderName::from_bytes(token).ok()).collect::<Vec<_>>()
    };
    let nominated: Vec<HeaderName> = fields.get_all(CONNECTION).iter().flat_map(named).collect();
    nominated.iter().for_each(|name| drop(fields.remove(name)));
}

/// A character of a token (RFC 9110, section 5.6.2).
pub fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// `host`, `host:port`, `[address]` or `[address]:port` (RFC 9110, section 7.2), without user information.
pub fn is_authority(text: &[u8]) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        let address = &rest[..end];
        if address.is_empty() || !address.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')) {
            return false;
        }
        (None, &rest[end + 1..])
    } else {
        let end = memchr::memchr(b':', text).unwrap_or(text.len());
        (Some(&text[..end]), &text[end..])
    };
    let host_is_fine = host.is_none_or(|host| {
        !host.is_empty() && host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(b))
    });
    let port_is_fine = match port {
        [] => true,
        [b':', digits @ ..] => {
            (1..=5).contains(&digits.len())
                && digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).is_ok_and(|d| d.parse::<u16>().is_ok())
        }
        _ => false,
    };
    host_is_fine && port_is_fine
}

/// Whether the connection is to be kept after the message (RFC 9112, section 9.3). `old` is HTTP/1.0.
pub fn keeps_alive(fields: &HeaderMap, old: bool) -> bool {
    match old {
        true => has_option(fields, b"keep-alive") && !has_option(fields, b"close"),
        false => !has_option(fields, b"close"),
    }
}

fn has_option(fields: &HeaderMap, option: &[u8]) -> bool {
    fields.get_all(CONNECTION).iter().any(|value| {
        value.as_bytes().split(|b| *b == b',').any(|token| token.trim_ascii().eq_ignore_ascii_case(option))
    })
}

const NO_NAME: Malformed = Malformed("a field has no proper name");

/// A value that shares the memory of its head.
fn value(bytes: Bytes) -> Result<HeaderValue, Malformed> {
    HeaderValue::from_maybe_shared(bytes).map_err(|_| Malformed("a field's value has control characters"))
}

/// `Name: value`, the name in its usual case.
pub fn write_field(name: &HeaderName, value: &[u8], out: &mut Vec<u8>) {
    let mut upper = true;
    out.extend(name.as_str().bytes().map(|byte| {
        let written = if upper { byte.to_ascii_uppercase() } else { byte };
        upper = byte == b'-';
        written
    }));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
