//! What a request may be like.

use crate::harness::{Authority, Gateway, Origin, answer, eventually, gateway};

/// Routes with a limit of ten bytes: to a server that is asked socket to socket, and to one that Pingora asks.
struct Ways {
    gw: Gateway,
    short: Origin,
    long: Origin,
}

const WAYS: [&str; 2] = ["/short", "/long"];

fn ways(listener: &str) -> Ways {
    let authority = Authority::new("test");
    let echo = |request: &crate::harness::Seen| answer(200).body(request.text());
    let short = Origin::answering(echo);
    let long = Origin::over_tls(authority.server(&["origin.test"], &["http/1.1"], false), echo);
    let gw = gateway()
        .origin("short", &short)
        .origin("long", &long)
        .file("ca.pem", authority.pem())
        .config(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\n{listener}"))
        .config(
            r#"
            [upstream]
            short = ["@short"]
            long  = { servers = ["@long"], tls = { ca = "ca.pem", sni = "origin.test" } }
            [defaults]
            validate = { max_body = "10B" }
            [[route]]
            match    = "/short"
            upstream = "short"
            [[route]]
            match    = "/long"
            upstream = "long"
            [[route]]
            match    = "/free"
            upstream = "short"
            validate = false
            "#,
        )
        .start();
    Ways { gw, short, long }
}

impl Ways {
    fn origin(&self, way: &str) -> &Origin {
        if way == "/short" { &self.short } else { &self.long }
    }
}

#[test]
fn a_body_that_is_said_to_be_too_long_is_not_sent() {
    let ways = ways("");
    for way in WAYS {
        let mut client = ways.gw.connect();
        client.post(way).body("0123456789").send().expect(200).says("0123456789");
        client.post(way).body("0123456789a").send().expect(413).problem("body-too-large");
        client.expect_closed();
        let mut h2 = ways.gw.h2c();
        h2.post(way).header("content-length", "10").body("0123456789").send().expect(200).says("0123456789");
        h2.post(way).header("content-length", "11").body("0123456789a").send().expect(413).problem("body-too-large");
        h2.get(way).send().expect(200);
        assert_eq!(ways.origin(way).requests().len(), 3);
    }
    ways.gw.post("/free").body("0123456789a").send().expect(200);
    let line = ways.gw.logged("the refusal", |line| line["status"] == 413);
    assert_eq!(line["stopped_by"], "validate");
}

#[test]
fn a_body_that_grows_too_long_is_cut() {
    let ways = ways("");
    for way in WAYS {
        let origin = ways.origin(way);
        let mut client = ways.gw.connect();
        client.post(way).chunked("0123456789").send().expect(200).says("0123456789");
        client.send_raw(format!("POST {way} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nABCDE\r\n"));
        let has = |bytes: &[u8]| origin.bytes().windows(bytes.len()).any(|window| window == bytes);
        eventually("the first part at the origin", || has(b"ABCDE").then_some(()));
        client.send_raw("6\r\nFGHIJK\r\n");
        client.response_to("POST").unwrap().expect(413).problem("body-too-large");
        client.expect_closed();

        let mut h2 = ways.gw.h2c();
        h2.post(way).body("0123456789").send().expect(200).says("0123456789");
        let mut call = h2.post(way).open();
        call.write(b"LMNOP");
        eventually("the first part at the origin", || has(b"LMNOP").then_some(()));
        call.write(b"QRSTUV");
        call.response().expect(413);
        drop(call);
        h2.get(way).send().expect(200);
        assert!(!has(b"FGHIJ") && !has(b"QRSTU"), "more than the limit was passed on");
        assert_eq!(origin.requests().len(), 3);
    }
    let line = ways.gw.logged("the refusal", |line| line["status"] == 413);
    assert_eq!((&line["stopped_by"], &line["attempts"]), (&"body-too-large".into(), &1.into()));
}

#[test]
fn who_waits_for_100_continue_is_refused_before_it_sends() {
    let ways = ways("");
    for way in WAYS {
        let mut client = ways.gw.connect();
        let head = |length| {
            format!("POST {way} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
        };
        client.send_raw(head(5) + "01234");
        client.response_to("POST").unwrap().expect(200).says("01234");
        client.send_raw(head(11));
        let refused = client.response_to("POST").unwrap().expect(413);
        assert!(refused.interim.is_empty(), "{:?}", refused.interim);
        client.expect_closed();
        let mut client = ways.gw.connect();
        client.send_raw(format!(
            "POST {way} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        client.send_raw("b\r\n0123456789a\r\n0\r\n\r\n");
        client.response_to("POST").unwrap().expect(413);
    }
}

#[test]
fn the_smaller_of_two_limits_holds() {
    let ways = ways("limits = { max_body = \"5B\" }");
    for way in ["/short", "/long", "/free"] {
        ways.gw.post(way).body("01234").send().expect(200);
        ways.gw.post(way).body("012345").send().expect(413);
        ways.gw.post(way).chunked("012345").send().expect(413);
    }
}
