//! Heads of requests.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, Method, Request, Uri, Version};
use pingora_http::RequestHeader;

use super::{Framing, Malformed, is_hop_by_hop, value, write_field};

/// Bytes that most heads are within: a buffer gets them at once instead of growing with each field.
const MOST_HEADS: usize = 1 << 10;

/// Reads a head that was found to be sound, from the request line to the empty line.
///
/// # Errors
/// The head is not what it was taken for.
pub fn parse(head: &Bytes) -> Result<RequestHeader, Malformed> {
    let mut fields = [const { std::mem::MaybeUninit::uninit() }; super::MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match parsed.parse_with_uninit_headers(head, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        _ => return Err(Malformed("the head is not one of a request")),
    }
    let (mut parts, ()) = Request::new(()).into_parts();
    let method = parsed.method.unwrap_or("").as_bytes();
    parts.method = Method::from_bytes(method).map_err(|_| Malformed("the method is not a token"))?;
    let target = head.slice_ref(parsed.path.unwrap_or("").as_bytes());
    parts.uri = Uri::from_maybe_shared(target).map_err(|_| Malformed("the target is not a URI"))?;
    parts.version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    // Room for what is added on the way to the upstream.
    parts.headers = HeaderMap::with_capacity(parsed.headers.len() + 8);
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| super::NO_NAME)?;
        parts.headers.append(name, value(head.slice_ref(header.value))?);
    }
    if parts.headers.contains_key(CONNECTION) {
        super::remove_nominated(&mut parts.headers);
    }
    Ok(parts.into())
}

/// Writes the head of a request to a server: target in origin form, `Host` first, nothing that belongs to the
/// connection that the request came by, and the framing of the body that follows.
pub fn write(head: &RequestHeader, body: Framing, out: &mut Vec<u8>) {
    out.reserve(MOST_HEADS);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.uri.path_and_query().map_or("/", |target| target.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let host = match head.headers.get(HOST) {
        Some(host) => host.as_bytes(),
        None => head.uri.authority().map_or("", |authority| authority.as_str()).as_bytes(),
    };
    write_field(&HOST, host, out);
    for (name, value) in &head.headers {
        if *name != HOST && *name != CONTENT_LENGTH && !is_hop_by_hop(name) {
            write_field(name, value.as_bytes(), out);
        }
    }
    match body {
        Framing::Length(length) => write_field(&CONTENT_LENGTH, itoa::Buffer::new().format(length).as_bytes(), out),
        Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        // Once, however often and in whatever way the client wrote it.
        Framing::None | Framing::UntilClose if head.headers.contains_key(CONTENT_LENGTH) => {
            write_field(&CONTENT_LENGTH, b"0", out);
        }
        Framing::None | Framing::UntilClose => {}
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_written() {
        let head = Bytes::from_static(
            b"POST http://a.test:80/x?y=1 HTTP/1.1\r\nHost: a.test:80\r\nx-tag: 1\r\nX-Tag: 2\r\nConnection: close\r\n\
              Content-Length: 3\r\nTE: trailers\r\nKeep-Alive: 5\r\n\r\n",
        );
        let request = parse(&head).unwrap();
        let mut out = Vec::new();
        write(&request, Framing::Length(3), &mut out);
        let expected = "POST /x?y=1 HTTP/1.1\r\nHost: a.test:80\r\nX-Tag: 1\r\nX-Tag: 2\r\nContent-Length: 3\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
