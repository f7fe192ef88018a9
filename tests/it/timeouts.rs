//! How long a server may take, and a client.

use std::time::Duration;

use crate::harness::{Answer, Gateway, H2Answer, H2Origin, Origin, answer, gateway};

fn waiting(origin: &Origin, timeouts: &str, listener: &str) -> Gateway {
    gateway()
        .origin("a", origin)
        .config(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\ntimeouts = {{ {listener} }}"))
        .config(&format!("[upstream.o]\nservers = [\"@a\"]\ntimeouts = {{ {timeouts} }}"))
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_first_byte_may_take_longer_than_the_next_ones() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/thinks" => answer(200).after(Duration::from_millis(700)).body("thought"),
        "/rests" => answer(200).body("0123456789").resting(5, LONG),
        _ => answer(200).body("0123456789").resting(5, Duration::from_millis(50)),
    });
    let gw = waiting(&origin, "first_byte = \"20s\", idle = \"300ms\"", "");
    let mut client = gw.connect();
    client.get("/thinks").send().expect(200).says("thought");
    client.get("/works").send().expect(200).says("0123456789");
    client.get("/rests").try_send().expect_err("the answer is cut");
    gw.logged("the cause", |line| line["path"] == "/rests" && line["cause"].is_string());
}

#[test]
fn an_answer_may_rest_longer_than_it_may_take_to_begin() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/thinks" => answer(200).after(LONG),
        _ => answer(200).body("0123456789").resting(5, Duration::from_millis(700)),
    });
    let gw = waiting(&origin, "first_byte = \"300ms\", idle = \"20s\"", "");
    let mut client = gw.connect();
    client.get("/rests").send().expect(200).says("0123456789");
    client.get("/thinks").send().expect(504).problem("upstream-timeout");
    client.get("/rests").send().expect(200).says("0123456789");
}

#[test]
fn the_time_of_the_first_byte_begins_when_the_request_is_sent() {
    let origin = Origin::answering(|request| answer(200).body(request.text()));
    let gw = waiting(&origin, "first_byte = \"300ms\"", "");
    let mut client = gw.connect();
    client.send_raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(150));
        client.send_raw("ab");
    }
    client.response_to("POST").unwrap().expect(200).says("ababababab");
}

#[test]
fn the_total_bounds_an_answer_that_trickles() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/silent" => Answer::never(),
        _ => answer(200).body("0123456789").resting(5, LONG),
    });
    let gw = waiting(&origin, "total = \"400ms\"", "");
    gw.get("/silent").send().expect(504).problem("upstream-timeout");
    gw.get("/trickles").try_send().expect_err("the answer is cut");
    // HTTP/2 clients too.
    gw.h2c().get("/silent").send().expect(504).problem("upstream-timeout");
}

#[test]
fn a_slow_body_is_the_clients_fault() {
    let origin = Origin::answering(|request| answer(200).body(request.text()));
    let gw = waiting(&origin, "first_byte = \"100ms\"", "body = \"400ms\"");
    let mut client = gw.connect();
    client.send_raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab");
    client.response_to("POST").unwrap().expect(408).problem("request-timeout");
    client.expect_closed();
}

#[test]
fn streams_have_their_own_silence() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/events" => answer(200)
            .header("Content-Type", "text/event-stream")
            .chunked()
            .body("data: 1\n\ndata: 2\n\n")
            .resting(9, Duration::from_millis(700)),
        "/dead" => answer(200)
            .header("Content-Type", "text/event-stream")
            .chunked()
            .body("data: 1\n\ndata: 2\n\n")
            .resting(9, LONG),
        "/never" => Answer::never(),
        _ => Answer::websocket_echo(),
    });
    let gw =
        waiting(&origin, "first_byte = \"300ms\", idle = \"300ms\", total = \"500ms\"", "stream_idle = \"1500ms\"");
    gw.get("/events").header("Accept", "text/event-stream").send().expect(200).says("data: 1\n\ndata: 2\n\n");
    gw.get("/dead").try_send().expect_err("the stream is cut");
    // Asking for events does not let a client hold a server that says nothing.
    gw.get("/never").header("Accept", "text/event-stream").send().expect(504);
    let mut client = gw.connect();
    client.get("/ws").header("Upgrade", "websocket").header("Connection", "Upgrade").send().expect(101);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(700));
        client.send_raw(b"\x81\x05hello");
        assert_eq!(client.reader.exactly(7).unwrap(), b"\x81\x05hello");
    }
    client.expect_closed();
}

#[test]
fn a_grpc_client_says_how_long_it_waits() {
    let origin = H2Origin::plain(|_| H2Answer::grpc(b"late").after(LONG));
    let gw = gateway()
        .set("a", origin.address())
        .config("[upstream.o]\nservers = [\"@a\"]\nprotocol = \"h2c\"\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    gw.h2c().grpc("/svc/slow", b"ping").header("grpc-timeout", "200m").send().grpc_error(4);
}
