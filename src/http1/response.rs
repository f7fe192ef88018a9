//! Heads of responses.

use std::ops::Range;

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Response, StatusCode, Version};
use pingora_http::ResponseHeader;
use smallvec::SmallVec;

use super::{Framing, HOP_BY_HOP, Malformed, is_hop_by_hop, value, write_field};

/// The head of a response, and what it says of the rest.
pub struct Head {
    /// Status and fields.
    pub head: ResponseHeader,
    /// How the body is framed.
    pub body: Framing,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

/// Takes the head of a response off what was read, without what belongs to the server's connection; `None` while it
/// is not whole. `bodiless` responses (to `HEAD`) have no body, whatever their fields say.
///
/// # Errors
/// What was read is no head, or leaves open where the body ends.
pub fn parse(read: &mut BytesMut, bodiless: bool) -> Result<Option<Head>, Malformed> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; super::MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, read, &mut fields) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Malformed("the server's answer is not HTTP")),
    };
    let (status, old) = (parsed.code.unwrap_or(0), parsed.version == Some(0));
    let mut fields: SmallVec<[(HeaderName, Range<usize>); 24]> = SmallVec::new();
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let start = header.value.as_ptr() as usize - read.as_ptr() as usize;
        fields.push((name.map_err(|_| super::NO_NAME)?, start..start + header.value.len()));
    }
    let bytes = read.split_to(length).freeze();

    let (mut parts, ()) = Response::new(()).into_parts();
    parts.status = StatusCode::from_u16(status).map_err(|_| Malformed("the status is no status"))?;
    parts.version = Version::HTTP_11;
    parts.headers = HeaderMap::with_capacity(fields.len() + 2);
    let mut hops = false;
    for (name, range) in fields {
        hops |= is_hop_by_hop(&name);
        parts.headers.append(name, value(bytes.slice(range))?);
    }
    let keep_alive = super::keeps_alive(&parts.headers, old);
    let body = framing(parts.status, &parts.headers, bodiless, old)?;
    one_length(&mut parts.headers, parts.status, body);
    if hops {
        super::remove_nominated(&mut parts.headers);
        HOP_BY_HOP.iter().for_each(|name| drop(parts.headers.remove(name)));
    }
    let keep_alive = keep_alive && body != Framing::UntilClose;
    Ok(Some(Head { head: parts.into(), body, keep_alive }))
}

/// RFC 9112, section 6.3.
fn framing(status: StatusCode, fields: &HeaderMap, bodiless: bool, old: bool) -> Result<Framing, Malformed> {
    if bodiless || status.is_informational() || matches!(status.as_u16(), 204 | 304) {
        return Ok(Framing::None);
    }
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        return match coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") && codings.next().is_none() {
            true if !old && !fields.contains_key(CONTENT_LENGTH) => Ok(Framing::Chunked),
            true => Err(Malformed("the answer has two framings")),
            false => Err(Malformed("the answer has a transfer coding other than chunked")),
        };
    }
    match length(fields)? {
        None => Ok(Framing::UntilClose),
        Some(0) => Ok(Framing::None),
        Some(length) => Ok(Framing::Length(length)),
    }
}

fn length(fields: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else { return Ok(None) };
    if lengths.any(|length| length != first) {
        return Err(Malformed("the answer has two lengths"));
    }
    let digits = first.as_bytes();
    let length = digits.iter().all(u8::is_ascii_digit).then(|| first.to_str().ok()?.parse().ok()).flatten();
    length.map(Some).ok_or(Malformed("the answer's length is no number"))
}

/// Leaves of `Content-Length` what a client can read in one way only: one field in plain digits, and none where the
/// status has no body or the length is not known.
fn one_length(fields: &mut HeaderMap, status: StatusCode, body: Framing) {
    if !fields.contains_key(CONTENT_LENGTH) {
        return;
    }
    let senseless = body == Framing::Chunked || status.is_informational() || status == StatusCode::NO_CONTENT;
    match length(fields) {
        Ok(Some(length)) if !senseless => drop(fields.insert(CONTENT_LENGTH, length.into())),
        _ => drop(fields.remove(CONTENT_LENGTH)),
    }
}

/// Writes the head of a response to a client. `keep_alive` says whether the connection goes on, `old` whether the
/// client speaks HTTP/1.0.
pub fn write(head: &ResponseHeader, body: Framing, keep_alive: bool, old: bool, date: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut dated = false;
    for (name, value) in &head.headers {
        if body == Framing::Chunked && *name == CONTENT_LENGTH {
            continue;
        }
        dated |= *name == DATE;
        write_field(name, value.as_bytes(), out);
    }
    if !head.status.is_informational() {
        if !dated {
            write_field(&DATE, date, out);
        }
        match (keep_alive, old) {
            (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
            (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            (true, false) => {}
        }
        if body == Framing::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, bodiless: bool) -> Result<(Framing, bool), Malformed> {
        parse(&mut BytesMut::from(text), bodiless).map(|head| head.map(|h| (h.body, h.keep_alive)).unwrap())
    }

    #[test]
    fn the_fields_say_where_the_body_ends() {
        let ok = |fields: &str| parsed(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n"), false);
        assert_eq!(ok("Content-Length: 5\r\n"), Ok((Framing::Length(5), true)));
        assert_eq!(ok("Content-Length: 5\r\nContent-Length: 5\r\n"), Ok((Framing::Length(5), true)));
        assert_eq!(ok("Transfer-Encoding: Chunked\r\nConnection: close\r\n"), Ok((Framing::Chunked, false)));
        assert_eq!(ok(""), Ok((Framing::UntilClose, false)));
        assert_eq!(parsed("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), Ok((Framing::None, true)));
        assert_eq!(parsed("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false), Ok((Framing::None, false)));
        for fields in [
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(ok(fields).is_err(), "{fields}");
        }
    }

    #[test]
    fn what_belongs_to_the_connection_stays_there() {
        let text = "HTTP/1.1 200 Fine\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nx-a: b\r\nContent-Length: 0\r\n\r\nrest";
        let mut read = BytesMut::from(text);
        let head = parse(&mut read, false).unwrap().unwrap();
        assert_eq!(&read[..], b"rest");
        let mut out = Vec::new();
        write(&head.head, head.body, true, false, b"now", &mut out);
        let mut lines: Vec<&str> = std::str::from_utf8(&out).unwrap().split("\r\n").collect();
        lines.sort_unstable();
        assert_eq!(lines, ["", "", "Content-Length: 0", "Date: now", "HTTP/1.1 200 OK", "X-A: b"]);
    }
}
