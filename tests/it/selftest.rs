//! The harness against itself: what the other tests rest on.

use std::io;
use std::time::Duration;

use crate::harness::{
    Address, Answer, Authority, Connection, Fate, Frames, H2, H2Answer, H2Origin, Origin, answer, full_address,
    grpc_frame, refused_address,
};

fn connect(origin: &Origin) -> Connection {
    Connection::open(&Address::Tcp(origin.address().parse().unwrap()))
}

#[test]
fn an_origin_answers_by_script_and_remembers_what_it_saw() {
    let origin =
        Origin::answering(|request| answer(201).header("X-Turn", &request.turn.to_string()).body(&request.body));
    let mut client = connect(&origin);
    let first = client.post("/a?b").header("X-One", "1").body("hello").send().expect(201).says("hello");
    assert_eq!(first.header("x-turn"), "0");
    assert_eq!(client.post("/c").chunked("again").send().says("again").header("x-turn"), "1");
    let seen = origin.requests();
    assert_eq!((seen[0].target.as_str(), seen[0].header("x-one"), seen[1].text().as_str()), ("/a?b", "1", "again"));
    assert_eq!(origin.connections(), 1);
    assert!(origin.bytes().starts_with(b"POST /a?b HTTP/1.1\r\n"));
}

#[test]
fn an_origin_frames_its_answers_in_every_way() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/chunked" => answer(200).body("x".repeat(3000)).trailer("X-Sum", "7"),
        "/close" => answer(200).body("to the end").until_close(),
        "/early" => answer(200).preceded_by("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n").body("late"),
        "/cut" => answer(200).body("0123456789").cut_after(4),
        "/lie" => answer(200).body("0123456789").claiming(5),
        _ => Answer::hang_up(),
    });
    let chunked = connect(&origin).get("/chunked").send().expect(200);
    assert_eq!((chunked.body.len(), chunked.trailers.first("x-sum")), (3000, Some("7")));
    connect(&origin).get("/close").send().says("to the end");
    let early = connect(&origin).get("/early").send().says("late");
    assert_eq!((early.interim[0].0, early.interim[0].1.first("link")), (103, Some("</a.css>")));
    assert!(connect(&origin).get("/cut").try_send().is_err());
    connect(&origin).get("/lie").send().says("01234");
    assert!(connect(&origin).get("/other").try_send().is_err());
}

#[test]
fn an_origin_echoes_after_an_upgrade() {
    let origin = Origin::answering(|_| Answer::websocket_echo());
    let mut client = connect(&origin);
    client.get("/").header("Upgrade", "websocket").header("Connection", "Upgrade").send().expect(101);
    client.send_raw(b"\x81\x05hello");
    assert_eq!(client.reader.exactly(7).unwrap(), b"\x81\x05hello");
    client.reader.socket.shutdown_write();
    client.expect_closed();
}

#[test]
fn an_origin_speaks_tls_and_may_demand_a_certificate() {
    let authority = Authority::new("test");
    let origin = Origin::over_tls(authority.server(&["localhost"], &[], true), |_| answer(200).body("secret"));
    let address = Address::Tcp(origin.address().parse().unwrap());
    let identity = authority.issue(&["client.test"]);
    let config = authority.client_of(&[], rustls::ALL_VERSIONS, Some(&identity));
    Connection::tls(&address, "localhost", config).unwrap().get("/").send().expect(200).says("secret");
    let anonymous = Connection::tls(&address, "localhost", authority.client(&[]));
    assert!(anonymous.and_then(|mut client| client.get("/").try_send()).is_err());
    let stranger = Authority::new("stranger");
    assert!(Connection::tls(&address, "localhost", stranger.client(&[])).is_err());
}

#[test]
fn an_http2_origin_answers_with_trailers_and_streams() {
    let origin = H2Origin::plain(|request| match request.target.as_str() {
        "/echo" => H2Answer::grpc_echo(),
        _ => H2Answer::grpc(b"pong"),
    });
    let mut client = H2::plain(origin.address().parse().unwrap());
    let unary = client.grpc("/ping", b"ping").send().expect(200);
    assert_eq!((unary.body, unary.trailers.first("grpc-status")), (grpc_frame(b"pong"), Some("0")));
    assert_eq!(origin.only_request().body, grpc_frame(b"ping"));
    let mut call = client.post("/echo").open();
    call.response().expect(200);
    for word in [&b"one"[..], b"two"] {
        call.write(word);
        assert_eq!(call.read(3), word);
    }
    call.finish();
    assert_eq!(call.trailers().first("grpc-status"), Some("0"));
}

#[test]
fn an_http2_origin_speaks_tls() {
    let authority = Authority::new("test");
    let origin = H2Origin::over_tls(authority.server(&["localhost"], &["h2"], false), |_| H2Answer::new(204));
    H2::tls(origin.address().parse().unwrap(), "localhost", authority.client(&[])).get("/").send().expect(204);
}

#[test]
fn frames_tell_the_fate_of_a_stream() {
    let origin = H2Origin::plain(|_| H2Answer::new(404));
    let mut frames = Frames::connect(origin.address().parse().unwrap());
    let good = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    frames.headers(1, &good, true);
    assert_eq!(frames.fate_of(1), Fate::Answered(Some(404)));
    frames.headers(3, &[good.as_slice(), &[("Upper", "x")]].concat(), true);
    assert!(matches!(frames.fate_of(3), Fate::Reset | Fate::Closed));
}

#[test]
fn some_addresses_refuse_and_some_never_answer() {
    let connect =
        |address: &str| std::net::TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(300));
    let refused = connect(&refused_address()).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    let (full, _held) = full_address();
    assert_eq!(connect(&full).unwrap_err().kind(), io::ErrorKind::TimedOut);
}
