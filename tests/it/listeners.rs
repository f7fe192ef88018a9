//! How clients connect.

use std::time::Duration;

use crate::harness::{Authority, Connection, Origin, answer, gateway};

#[test]
fn connections_are_kept_and_requests_may_be_pipelined() {
    let origin = Origin::answering(|request| answer(200).body(format!("{} {}", request.target, request.text())));
    let gw = gateway().everything_to(&origin).start();
    let mut client = gw.connect();
    client.send_raw(
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nabGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    for expected in ["/1 ab", "/2 ", "/3 xyz", "/4 "] {
        client.response_to("GET").unwrap().expect(200).says(expected);
    }
    client.get("/5").send().expect(200).says("/5 ");
    client.get("/6").header("Connection", "close").send().expect(200);
    client.expect_closed();
}

#[test]
fn a_unix_socket() {
    let origin = Origin::saying("ok");
    let gw = gateway().config("[listen.public]\naddress = \"unix:@dir/p.sock\"").everything_to(&origin).start();
    gw.get("/").send().expect(200).says("ok");
}

#[test]
fn certificates_are_chosen_by_name() {
    let origin = Origin::saying("ok");
    let authority = Authority::new("test");
    let (a, b) = (authority.issue(&["a.test"]), authority.issue(&["*.b.test"]));
    let gw = gateway()
        .file("a.pem", &a.cert)
        .file("a.key", &a.key)
        .file("b.pem", &b.cert)
        .file("b.key", &b.key)
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }, { cert = \"b.pem\", key = \"b.key\" }] }")
        .everything_to(&origin)
        .start();
    for name in ["a.test", "x.b.test"] {
        gw.connect_tls(name, authority.client(&["http/1.1"])).unwrap().get("/").send().expect(200);
    }
    assert!(gw.connect_tls("other.test", authority.client(&[])).is_err());
}

#[test]
fn the_proxy_protocol_says_who_connects() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\nproxy_protocol = { trust = [\"127.0.0.1\"] }")
        .config("[listen.strict]\naddress = \"127.0.0.1:0\"\nproxy_protocol = { trust = [\"10.0.0.0/8\"] }")
        .everything_to(&origin)
        .start();
    let (answer, _) =
        gw.raw("PROXY TCP4 192.0.2.9 192.0.2.1 1000 80\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(origin.only_request().header("x-forwarded-for"), "192.0.2.9");
    assert_eq!(gw.raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), (Vec::new(), true));
    let mut strict = Connection::open(gw.listener("strict"));
    strict.send_raw("PROXY TCP4 192.0.2.9 192.0.2.1 1000 80\r\n");
    strict.expect_closed();
}

#[test]
fn slow_heads_and_idle_connections_end() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntimeouts = { head = \"300ms\", idle = \"300ms\" }")
        .everything_to(&origin)
        .start();
    let (answer, closed) = gw.raw("GET / HTTP/1.1\r\nHost:");
    assert!(closed && answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(gw.raw(""), (Vec::new(), true));
}

#[test]
fn there_is_a_cap_on_connections() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\nmax_connections = 2")
        .everything_to(&origin)
        .start();
    let (mut a, mut b) = (gw.connect(), gw.connect());
    a.get("/").send().expect(200);
    b.get("/").send().expect(200);
    gw.connect().response_to("GET").unwrap().expect(503).problem("overloaded");
    drop(a);
    crate::harness::eventually("there is room again", || {
        gw.connect().get("/").try_send().ok().filter(|response| response.status == 200)
    });
}

#[test]
fn websockets_and_streams_pass() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/events" => answer(200)
            .header("Content-Type", "text/event-stream")
            .chunked()
            .body("data: 1\n\ndata: 2\n\n")
            .resting(9, Duration::from_millis(700)),
        _ => crate::harness::Answer::websocket_echo(),
    });
    let gw = gateway()
        .origin("a", &origin)
        .config("[upstream.o]\nservers = [\"@a\"]\ntimeouts = { first_byte = \"300ms\" }\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    let mut client = gw.connect();
    client.get("/ws").header("Upgrade", "websocket").header("Connection", "Upgrade").send().expect(101);
    for _ in 0..3 {
        client.send_raw(b"\x81\x05hello");
        assert_eq!(client.reader.exactly(7).unwrap(), b"\x81\x05hello");
    }
    gw.get("/events").header("Accept", "text/event-stream").send().expect(200).says("data: 1\n\ndata: 2\n\n");
}

#[test]
fn bodies_have_a_limit() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\nlimits = { max_body = \"10B\" }")
        .everything_to(&origin)
        .start();
    gw.post("/").body("0123456789").send().expect(200);
    gw.post("/").body("0123456789a").send().expect(413).problem("body-too-large");
    gw.post("/").chunked("0123456789a").send().expect(413);
}

#[test]
fn a_port_that_is_taken_is_an_error() {
    let origin = Origin::saying("ok");
    let gw = gateway().everything_to(&origin).start();
    let address = gw.address().tcp().to_string();
    let said = gateway()
        .set("taken", &address)
        .config("[listen.public]\naddress = \"@taken\"")
        .everything_to(&origin)
        .refused();
    assert!(
        said.contains(&format!("cannot listen on {address} (public)")) && said.contains("another process"),
        "{said}"
    );
}
