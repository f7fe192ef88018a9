//! Requests that are malformed, oversized, ambiguous or smuggled: each gets a refusal and a closed connection, and
//! the origin sees not one byte of it.

use crate::harness::{Origin, gateway};

/// A request in the middle of which something is wrong, and a good one behind it that must not be answered.
fn cases() -> Vec<(String, Vec<u8>)> {
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, bytes: &[u8]| cases.push((name.to_owned(), bytes.to_vec()));

    for line in [
        "GET /",
        "GET / HTTP/1.1 ",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        " GET / HTTP/1.1",
        "GET\t/\tHTTP/1.1",
        "/ HTTP/1.1",
        "GET / HTTP/1.2",
        "GET / HTTP/2.0",
        "GET / HTTP/0.9",
        "GET / http/1.1",
        "GET / HTTP/1",
        "GET / HTTP/1.1.1",
        "GET / HTTPS/1.1",
        "get / HTTP/1.1",
        "FOO / HTTP/1.1",
        "G@T / HTTP/1.1",
        "TRACE / HTTP/1.1",
        "CONNECT a:80 HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "PRI * HTTP/1.1",
        "GET a HTTP/1.1",
        "GET ../a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET http://b/ HTTP/1.1",
        "GET http://a:81/ HTTP/1.1",
        "GET http://x@a/ HTTP/1.1",
        "GET ftp://a/ HTTP/1.1",
        "GET http:///x HTTP/1.1",
        "GET /%zz HTTP/1.1",
        "GET /%2e%2e/%2e%2e HTTP/1.1",
        "GET /a%2fb HTTP/1.1",
        "GET /a%00 HTTP/1.1",
        "GET /a\\b HTTP/1.1",
        "GET /..;/a HTTP/1.1",
        "GET /%5c HTTP/1.1",
        "GET /\u{e9} HTTP/1.1",
        "GET /a\0b HTTP/1.1",
        "GET /a\u{1}b HTTP/1.1",
    ] {
        add(line, format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
    }
    for host in ["", "a b", "a,b", "a/b", "x@a", "a:b", "a:99999", "a:80:80", "[::1", "[x]", "a\u{e9}", "a:"] {
        let host = if host == "a,b" { "a\tb" } else { host };
        add(&format!("host {host:?}"), format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
    }
    add("no host", b"GET / HTTP/1.1\r\nX: y\r\n\r\n");
    add("two hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n");
    for field in [
        "X : y",
        "X\t: y",
        " X: y",
        "\tX: y",
        ": y",
        "X",
        "X y: z",
        "X(: y",
        "X\0: y",
        "X: a\0b",
        "X: a\u{1}b",
        "X: a\u{7f}b",
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\rb",
        "X: a\nY: b",
        "\u{e9}: y",
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -3",
        "Content-Length: 3.0",
        "Content-Length: 0x3",
        "Content-Length: 3 3",
        "Content-Length:",
        "Content-Length: abc",
        "Content-Length: 99999999999999999999999",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunkedx",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding: chunked;q=1",
        "Expect: something",
        "Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 3",
    ] {
        add(field, format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\nabc").as_bytes());
    }
    add("chunked in 1.0", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    for chunk in [
        "x\r\nabc\r\n0\r\n\r\n",
        "-1\r\n",
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3 \r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nab\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "\r\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3\r\nabc0\r\n\r\n",
        "0\r\nX: y\nZ: z\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX\r\n\r\n",
    ] {
        add(
            &format!("chunk {chunk:?}"),
            format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes(),
        );
    }
    add("bare LF", b"GET / HTTP/1.1\nHost: a\n\n");
    add("LF in the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n");
    add("CR CR LF", b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n");
    add("two empty lines first", b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    add("long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9 << 10)).as_bytes());
    add("endless target", format!("GET /{}", "a".repeat(70 << 10)).as_bytes());
    add("long field", format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(40 << 10)).as_bytes());
    add("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(200)).as_bytes());
    add("TLS on plaintext", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n");
    add("binary", &[0xff; 64]);
    cases
}

#[test]
fn every_one_is_refused_and_none_reaches_the_origin() {
    let origin = Origin::saying("reached");
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntimeouts = { head = \"500ms\" }")
        .everything_to(&origin)
        .start();
    let cases = cases();
    assert!(cases.len() >= 80, "{}", cases.len());
    let mut wrong = Vec::new();
    for (name, bytes) in cases {
        let mut sent = bytes.clone();
        sent.extend_from_slice(b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        let (answer, closed) = gw.raw(&sent);
        let text = String::from_utf8_lossy(&answer);
        let status: u16 = text.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0);
        let refused = (400..500).contains(&status) || status == 501 || status == 505;
        let answers = text.matches("HTTP/1.1 ").count();
        if !refused || !closed || answers != 1 || text.contains("reached") {
            wrong.push(format!("{name:?}: status {status}, closed {closed}, {answers} answers"));
        }
        if !origin.bytes().is_empty() {
            wrong.push(format!("{name:?} reached the origin: {:?}", String::from_utf8_lossy(&origin.bytes())));
            break;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    gw.get("/").send().expect(200).says("reached");
}

#[test]
fn a_body_that_breaks_later_ends_both_connections() {
    let origin = Origin::saying("ok");
    let gw = gateway().everything_to(&origin).start();
    let mut client = gw.connect();
    client.send_raw("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    crate::harness::eventually("the first chunk is with the origin", || {
        String::from_utf8_lossy(&origin.bytes()).contains("abc").then_some(())
    });
    client.send_raw("zz\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
    let (answer, closed) = client.rest(crate::harness::DEADLINE);
    assert!(closed);
    assert!(String::from_utf8_lossy(&answer).matches("HTTP/1.1 ").count() <= 1);
    gw.get("/after").send().expect(200);
    assert!(!String::from_utf8_lossy(&origin.bytes()).contains("smuggled"));
}
