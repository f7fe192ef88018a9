//! HTTP/2 from clients: by ALPN and by prior knowledge, and what is malformed in it.

use crate::harness::{Authority, Fate, Frames, Origin, gateway};

#[test]
fn http2_by_alpn_and_by_prior_knowledge() {
    let origin = Origin::saying("ok");
    let authority = Authority::new("test");
    let identity = authority.issue(&["shop.test"]);
    let gw = gateway()
        .file("cert.pem", &identity.cert)
        .file("key.pem", &identity.key)
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }] }")
        .config("[listen.plain]\naddress = \"127.0.0.1:0\"")
        .everything_to(&origin)
        .start();
    let mut tls = gw.h2("shop.test", authority.client(&[]));
    tls.get("/a").send().expect(200).says("ok");
    tls.post("/b").body("hello").send().expect(200);
    let mut plain = crate::harness::H2::plain(gw.listener("plain").tcp());
    plain.get("/c").send().expect(200).says("ok");
    let seen = origin.requests();
    assert_eq!((seen[0].header("x-forwarded-proto"), seen[1].text().as_str()), ("https", "hello"));
    assert_eq!((seen[2].header("x-forwarded-proto"), seen[2].header("via")), ("http", "2 portcullis"));
}

#[test]
fn malformed_requests_never_reach_an_upstream() {
    let origin = Origin::saying("ok");
    let gw = gateway().everything_to(&origin).start();
    let good = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let with = |extra: &[(&'static str, &'static str)]| [good.as_slice(), extra].concat();
    for (name, fields) in [
        ("upper case", with(&[("Upper", "x")])),
        ("connection", with(&[("connection", "close")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("host differs", with(&[("host", "b")])),
        ("two paths", with(&[(":path", "/b")])),
        ("no path", vec![good[0], good[1], good[3]]),
        ("no method", vec![good[1], good[2], good[3]]),
        ("te", with(&[("te", "gzip")])),
        ("unknown pseudo", with(&[(":x", "y")])),
        ("trace", vec![(":method", "TRACE"), good[1], good[2], good[3]]),
        ("unknown method", vec![(":method", "BREW"), good[1], good[2], good[3]]),
        ("encoded slash", vec![good[0], good[1], (":path", "/a%2fb"), good[3]]),
        ("relative path", vec![good[0], good[1], (":path", "a"), good[3]]),
    ] {
        let mut frames = Frames::connect(gw.address().tcp());
        frames.headers(1, &fields, true);
        let fate = frames.fate_of(1);
        assert!(fate.is_refusal(), "{name}: {fate:?}");
        assert!(!matches!(fate, Fate::Answered(Some(200))), "{name}");
    }
    assert!(origin.requests().is_empty());
}
