//! What the fuzz targets of `fuzz/` run: parsers that meet the network or the file, each with what must hold
//! whatever they are given. Only there when fuzzing.

use bytes::{Bytes, BytesMut};
use http::Version;

use crate::facts::Limits;
use crate::gateway::Gateway;
use crate::http1::chunked::Chunked;
use crate::http1::{Framing, parse_request, parse_response, write_request};
use crate::server::acme::Acme;
use crate::server::{head, listener};
use crate::telemetry::metrics::traffic::Meter;
use crate::types::path;

/// A head that is let in has one meaning: what is written to a server is let in again, with the same framing.
pub fn request(data: &[u8]) {
    let Ok(Some(length)) = head::end(data, 0) else { return };
    let Ok(found) = head::check(&data[..length], &Limits::default()) else { return };
    let Ok(mut request) = parse_request(&Bytes::copy_from_slice(&data[..length])) else { return };
    if request.version == Version::HTTP_10 && !request.headers.contains_key("host") {
        return;
    }
    request.set_version(Version::HTTP_11);
    let mut written = Vec::new();
    write_request(&request, found.body, &mut written);
    let again = head::check(&written, &Limits { max_headers: 200, ..Limits::default() });
    let again = again.unwrap_or_else(|refused| panic!("{refused:?}: {}", String::from_utf8_lossy(&written)));
    assert_eq!(again.body, found.body);
    assert_eq!(head::end(&written, 0), Ok(Some(written.len())));
}

/// A server's head is read or refused, and never says that a body ends in two places.
pub fn response(data: &[u8]) {
    let mut read = BytesMut::from(data);
    if let Ok(Some(head)) = parse_response(&mut read, false) {
        let fields = &head.head.headers;
        assert!(!(fields.contains_key("content-length") && fields.contains_key("transfer-encoding")));
        assert!(head.body != Framing::UntilClose || !head.keep_alive);
    }
}

/// Where a chunked body ends does not depend on how it arrives.
pub fn chunked(data: &[u8]) {
    let mut whole = Chunked::default();
    let at_once = whole.advance(data);
    let mut piece = Chunked::default();
    let mut taken = 0;
    for byte in data {
        match piece.advance(std::slice::from_ref(byte)) {
            Ok(1) => taken += 1,
            Ok(_) => break,
            Err(_) => return assert!(at_once.is_err()),
        }
    }
    assert_eq!(at_once, Ok(taken));
    assert_eq!(whole.is_done(), piece.is_done());
}

/// What is normal stays as it is, and holds nothing that climbs.
pub fn target(data: &[u8]) {
    if let Ok(normal) = path::normalize_bytes(data) {
        assert_eq!(path::normalize(&normal).as_deref(), Ok(&*normal));
        assert!(normal.starts_with('/') && !normal.split('/').any(|segment| segment == ".." || segment == "."));
    }
}

/// Tokens and key sets are read or refused, and nothing is good that nobody signed.
pub fn token(data: &[u8]) {
    crate::policy::fuzz_token(data);
}

/// A file is compiled, or refused with words.
pub fn config(text: &str) {
    let loaded = crate::config::Loaded::from_text("fuzz.toml", text);
    let mut build = loaded.build();
    let meter = Meter::default();
    let gateway = Gateway::compile(&meter, &mut build);
    let listeners = listener::compile(&Acme::new(None), &meter, &mut build);
    let failed = gateway.is_none() || listeners.is_none();
    let diagnostics = build.diagnostics();
    assert!(!failed || diagnostics.errors() > 0, "refused without a word");
    let _ = diagnostics.to_string();
}
