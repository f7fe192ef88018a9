//! The head of an HTTP/1 request, held to RFC 9112 without leniency, before anything else sees it.
//!
//! Every known way to make two parsers disagree is an error here: bare CR or LF, NUL, obsolete folding, space
//! around field names, doubled or odd `Content-Length`, `Content-Length` beside `Transfer-Encoding`, codings
//! other than exactly `chunked`, a missing or doubled `Host`, an absolute target for another host.
//! A refused head is answered and the connection is closed, for where the next request begins is not known.

use memchr::{memchr, memchr2};

use crate::facts::Limits;
use crate::http1::{Framing, is_authority, is_token, may_be_nominated};

/// What the head says about the rest of the request.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Head {
    /// How the body is framed.
    pub body: Framing,
    /// The request asks to switch protocols (WebSocket): what follows is not HTTP.
    pub upgrade: bool,
}

/// Why a head is refused: the status to answer with, and the reason for client and operator.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct Refused {
    /// The status of the answer.
    pub status: u16,
    /// The reason in words.
    pub reason: &'static str,
}

/// Where the head ends in what was read so far: the length with its empty line. Looks from `from` on.
///
/// # Errors
/// A line does not end in CRLF, or a byte that no head may hold. Found as soon as it is read.
pub fn end(bytes: &[u8], from: usize) -> Result<Option<usize>, Refused> {
    let mut at = from.saturating_sub(3);
    while let Some(i) = memchr2(b'\r', b'\n', &bytes[at..]) {
        let i = at + i;
        if bytes[i] == b'\n' {
            if i == 0 || bytes[i - 1] != b'\r' {
                return bad("a line ends in a bare LF");
            }
            if i >= 3 && &bytes[i - 3..=i] == b"\r\n\r\n" {
                return Ok(Some(i + 1));
            }
        } else if bytes.get(i + 1).is_some_and(|next| *next != b'\n') {
            return bad("a bare CR");
        }
        at = i + 1;
    }
    Ok(None)
}

/// Judges a whole head, from the request line to the empty line.
pub fn check(head: &[u8], limits: &Limits) -> Result<Head, Refused> {
    let line_end = find_crlf(head).ok_or(Refused { status: 400, reason: "no request line" })?;
    let line = &head[..line_end];
    let (method, target, old) = request_line(line, limits)?;
    let mut fields = Fields::default();
    let mut rest = &head[line_end + 2..];
    let mut count = 0;
    loop {
        let end = find_crlf(rest).ok_or(Refused { status: 400, reason: "the head does not end" })?;
        if end == 0 {
            break;
        }
        count += 1;
        if count > limits.max_headers {
            return refuse(431, "too many header fields");
        }
        fields.field(&rest[..end])?;
        rest = &rest[end + 2..];
    }
    fields.judge(method, target, old)
}

/// Method, target, and whether the version is 1.0.
fn request_line<'h>(line: &'h [u8], limits: &Limits) -> Result<(&'h [u8], &'h [u8], bool), Refused> {
    let Some(first) = memchr(b' ', line) else { return bad("the request line has no target") };
    let (method, rest) = (&line[..first], &line[first + 1..]);
    let Some(second) = memchr(b' ', rest) else { return bad("the request line has no version") };
    let (target, version) = (&rest[..second], &rest[second + 1..]);
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return bad("the method is not a token");
    }
    if target.len() > limits.max_uri {
        return refuse(414, "the request target is too long");
    }
    let old = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return refuse(505, "the version of HTTP is not supported");
        }
        _ => return bad("the version is not HTTP"),
    };
    match method {
        b"GET" | b"HEAD" | b"POST" | b"PUT" | b"PATCH" | b"DELETE" | b"OPTIONS" => {}
        b"TRACE" | b"CONNECT" => return refuse(405, "this method is not proxied"),
        _ => return refuse(501, "the method is not known"),
    }
    if target.is_empty() || !target.iter().all(|b| (0x21..=0x7e).contains(b)) {
        return bad("the request target has bytes that a URI cannot hold");
    }
    if memchr(b'#', target).is_some() {
        return bad("the request target has a fragment");
    }
    match target {
        [b'/', ..] => {}
        b"*" if method == b"OPTIONS" => {}
        _ if absolute_authority(target).is_some() => {}
        _ => return bad("the request target is neither a path nor an absolute URI"),
    }
    Ok((method, target, old))
}

/// The authority of an absolute `http` or `https` URI.
fn absolute_authority(target: &[u8]) -> Option<&[u8]> {
    let scheme = target.iter().position(|b| *b == b':')?;
    if !(target[..scheme].eq_ignore_ascii_case(b"http") || target[..scheme].eq_ignore_ascii_case(b"https")) {
        return None;
    }
    let rest = target[scheme + 1..].strip_prefix(b"//")?;
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    (end > 0).then(|| &rest[..end])
}

#[derive(Default)]
struct Fields<'h> {
    host: Option<&'h [u8]>,
    length: Option<u64>,
    chunked: bool,
    upgrade: bool,
    connection_upgrade: bool,
    /// What `Connection` names.
    nominated: usize,
}

/// What `Connection` may name.
const MOST_NOMINATED: usize = 10;

impl<'h> Fields<'h> {
    fn field(&mut self, line: &'h [u8]) -> Result<(), Refused> {
        if matches!(line[0], b' ' | b'\t') {
            return bad("obsolete line folding");
        }
        let Some(colon) = memchr(b':', line) else { return bad("a header line has no colon") };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() {
            return bad("a header field has no name");
        }
        if !name.iter().all(|b| is_token(*b)) {
            return bad(if name.ends_with(b" ") || name.ends_with(b"\t") {
                "white space before the colon of a header field"
            } else {
                "the name of a header field is not a token"
            });
        }
        if value.iter().any(|b| (*b < 0x20 && *b != b'\t') || *b == 0x7f) {
            return bad("a control character in a header field");
        }
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                if self.host.replace(value).is_some() {
                    return bad("more than one Host");
                }
                if !is_authority(value) {
                    return bad("the Host is not a host");
                }
            }
            6 if name.eq_ignore_ascii_case(b"expect") && !value.eq_ignore_ascii_case(b"100-continue") => {
                return refuse(417, "an expectation other than 100-continue");
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => {
                self.upgrade = value.eq_ignore_ascii_case(b"websocket");
            }
            10 if name.eq_ignore_ascii_case(b"connection") => {
                for token in value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty()) {
                    self.nominated += 1;
                    if self.nominated > MOST_NOMINATED || !may_be_nominated(token) {
                        return bad("`Connection` names a field that it may not");
                    }
                    self.connection_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return bad("more than one Content-Length");
                }
                let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
                let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|value| value.parse().ok());
                self.length =
                    Some(number.ok_or(Refused { status: 400, reason: "the Content-Length is not a number" })?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked {
                    return bad("more than one Transfer-Encoding");
                }
                if !value.eq_ignore_ascii_case(b"chunked") {
                    return bad("a Transfer-Encoding other than chunked");
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn judge(self, method: &[u8], target: &[u8], old: bool) -> Result<Head, Refused> {
        match self.host {
            None if !old => return bad("the Host is missing"),
            Some(host) => {
                if let Some(authority) = absolute_authority(target)
                    && authority != host
                {
                    return bad("the request target and the Host name different hosts");
                }
            }
            None => {
                if let Some(authority) = absolute_authority(target)
                    && !is_authority(authority)
                {
                    return bad("the request target has no valid host");
                }
            }
        }
        if self.chunked && self.length.is_some() {
            return bad("both Content-Length and Transfer-Encoding");
        }
        if self.chunked && old {
            return bad("Transfer-Encoding in HTTP/1.0");
        }
        let body = match self.length {
            _ if self.chunked => Framing::Chunked,
            Some(length) if length > 0 => Framing::Length(length),
            _ => Framing::None,
        };
        let upgrade = self.upgrade && self.connection_upgrade && !old;
        if upgrade && (method != b"GET" || body != Framing::None) {
            return bad("a WebSocket begins with a GET without a body");
        }
        Ok(Head { body, upgrade })
    }
}

fn find_crlf(bytes: &[u8]) -> Option<usize> {
    memchr(b'\n', bytes).map(|i| i.saturating_sub(1))
}

fn bad<T>(reason: &'static str) -> Result<T, Refused> {
    refuse(400, reason)
}

fn refuse<T>(status: u16, reason: &'static str) -> Result<T, Refused> {
    Err(Refused { status, reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(bytes: &str) -> Result<Head, u16> {
        let bytes = bytes.as_bytes();
        match end(bytes, 0) {
            Ok(Some(length)) => check(&bytes[..length], &Limits::default()).map_err(|r| r.status),
            Ok(None) => Err(0),
            Err(refused) => Err(refused.status),
        }
    }

    #[test]
    fn sound_heads_pass() {
        let sound = |text: &str, body| assert_eq!(judge(text), Ok(Head { body, upgrade: false }), "{text}");
        sound("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None);
        sound("GET /a?b=c HTTP/1.1\r\nhost: a.example:8080\r\nX: \t y \r\n\r\n", Framing::None);
        sound("GET / HTTP/1.0\r\n\r\n", Framing::None);
        sound("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Framing::None);
        sound("GET http://a:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n", Framing::None);
        sound("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", Framing::Length(3));
        sound("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Framing::None);
        sound(
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nExpect: 100-Continue\r\n\r\n",
            Framing::Chunked,
        );
        let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n";
        assert_eq!(judge(upgrade), Ok(Head { body: Framing::None, upgrade: true }));
    }

    #[test]
    fn unsound_heads_are_refused() {
        let fields = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        for (head, status) in [
            ("GET / HTTP/1.1\nHost: a\n\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /# HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /  HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
            (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("GET /\r\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
            ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
            ("get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("FOO / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
            ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
            ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
            ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ] {
            assert_eq!(judge(head), Err(status), "{head}");
        }
        for (field, status) in [
            ("X: a\r\n folded", 400),
            (" X: a", 400),
            ("X : a", 400),
            ("X\t: a", 400),
            (": a", 400),
            ("X", 400),
            ("X\0: a", 400),
            ("X: a\0", 400),
            ("X: a\u{1}", 400),
            ("X(y): a", 400),
            ("Content-Length: 3\r\nContent-Length: 3", 400),
            ("Content-Length: 3\r\nContent-Length: 4", 400),
            ("Content-Length: 3, 3", 400),
            ("Content-Length: +3", 400),
            ("Content-Length: -3", 400),
            ("Content-Length: 0x3", 400),
            ("Content-Length: 3 3", 400),
            ("Content-Length: ", 400),
            ("Content-Length: 99999999999999999999", 400),
            ("Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
            ("Transfer-Encoding: chunked, chunked", 400),
            ("Transfer-Encoding: gzip, chunked", 400),
            ("Transfer-Encoding: identity", 400),
            ("Transfer-Encoding: xchunked", 400),
            ("Transfer-Encoding: \u{b}chunked", 400),
            ("Transfer-Encoding:", 400),
            ("Expect: 200-ok", 417),
            ("Upgrade: websocket\r\nConnection: upgrade", 400),
        ] {
            let head = fields(field);
            assert_eq!(judge(&head), Err(status), "{head}");
        }
        assert_eq!(judge("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(400));
        assert_eq!(judge(&fields(&"X: y\r\n".repeat(100))), Err(431));
        assert_eq!(judge(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000))), Err(414));
    }

    #[test]
    fn the_end_is_found_whatever_the_reads() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        for split in 0..text.len() {
            match end(&text[..split], 0).unwrap() {
                Some(length) => assert_eq!(length, 27),
                None => assert_eq!(end(text, split).unwrap(), Some(27), "{split}"),
            }
        }
    }
}
