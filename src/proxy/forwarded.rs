//! What an upstream is told of the request's way: `X-Forwarded-*`, `Forwarded` (RFC 7239), `Via`, `X-Request-Id`, and
//! the trace that it belongs to.
//!
//! From an untrusted peer none of it is believed, and only our own word goes on. A trusted proxy's word stays, and
//! ours is added to it.

use std::net::IpAddr;

use http::header::{FORWARDED, HOST, VIA};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora_http::RequestHeader;

use crate::facts::{Facts, authority};
use crate::upstream::ForwardedStyle;

/// Marks copies: see `mirror`.
pub(super) const X_PORTCULLIS_MIRROR: HeaderName = HeaderName::from_static("x-portcullis-mirror");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Writes the fields into what is sent to an upstream.
pub(super) fn write(original: &RequestHeader, head: &mut RequestHeader, facts: &Facts, style: ForwardedStyle) {
    // As plain parts, for a field under a name that is a constant costs no parsing there.
    let empty = http::Request::new(()).into_parts().0;
    let mut parts = Parts::from(std::mem::replace(head, RequestHeader::from(empty)));
    let fields = &mut parts.headers;
    if !facts.trusted {
        for name in [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, FORWARDED, X_PORTCULLIS_MIRROR] {
            fields.remove(name);
        }
    }
    if matches!(style, ForwardedStyle::XForwarded | ForwardedStyle::Both) {
        x_forwarded(original, fields, facts);
    }
    if matches!(style, ForwardedStyle::Forwarded | ForwardedStyle::Both)
        && let Ok(element) = HeaderValue::from_bytes(&element(original, facts))
    {
        fields.append(FORWARDED, element);
    }
    fields.insert(X_REQUEST_ID, facts.id.clone());
    fields.append(VIA, via(original.version));
    if let Some(trace) = &facts.trace {
        trace.write(fields);
    }
    *head = RequestHeader::from(parts);
}

fn x_forwarded(original: &RequestHeader, fields: &mut HeaderMap, facts: &Facts) {
    let peer = facts.connection.peer_text();
    let forwarded_for = match fields.contains_key(X_FORWARDED_FOR) {
        true => {
            let mut all: Vec<u8> = Vec::with_capacity(64);
            for value in fields.get_all(X_FORWARDED_FOR) {
                all.extend_from_slice(value.as_bytes());
                all.extend_from_slice(b", ");
            }
            all.extend_from_slice(peer.as_bytes());
            HeaderValue::from_bytes(&all).unwrap_or(peer)
        }
        false => peer,
    };
    fields.insert(X_FORWARDED_FOR, forwarded_for);
    if !fields.contains_key(X_FORWARDED_PROTO) {
        fields.insert(X_FORWARDED_PROTO, HeaderValue::from_static(facts.scheme(original)));
    }
    if !fields.contains_key(X_FORWARDED_HOST) {
        let host = match original.headers.get(HOST) {
            Some(host) if original.uri.authority().is_none() => Some(host.clone()),
            _ => HeaderValue::from_str(authority(original)).ok(),
        };
        if let Some(host) = host {
            fields.insert(X_FORWARDED_HOST, host);
        }
    }
}

/// The element that the gateway adds to `Forwarded`. What is no token is quoted (RFC 7239, section 4).
fn element(original: &RequestHeader, facts: &Facts) -> Vec<u8> {
    let mut element = Vec::with_capacity(64);
    match facts.connection.peer_ip() {
        IpAddr::V4(address) => element.extend_from_slice(format!("for={address}").as_bytes()),
        IpAddr::V6(address) => element.extend_from_slice(format!("for=\"[{address}]\"").as_bytes()),
    }
    let host = authority(original).as_bytes();
    if !host.is_empty() {
        element.extend_from_slice(b";host=\"");
        for byte in host {
            if matches!(byte, b'"' | b'\\') {
                element.push(b'\\');
            }
            element.push(*byte);
        }
        element.push(b'"');
    }
    element.extend_from_slice(b";proto=");
    element.extend_from_slice(if facts.connection.tls.is_some() { b"https" } else { b"http" });
    element
}

/// The received protocol and our pseudonym (RFC 9110, section 7.6.3).
fn via(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2 portcullis",
        Version::HTTP_10 => "1.0 portcullis",
        _ => "1.1 portcullis",
    })
}
