//! The short way under attack: hostile servers, hostile clients, and everybody who stops half way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, sleep};
use std::time::Duration;

use crate::harness::{Answer, DEADLINE, Fate, Frames, Gateway, Journal, Origin, answer, gateway};

const LONG: Duration = Duration::from_secs(20);
/// What a hostile server sends beyond its answer.
const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// A server that does what it is told with each connection (from 0). Connections close when the script ends.
fn raw(script: impl Fn(usize, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, script) = (listener.local_addr().unwrap(), Arc::new(script));
    thread::spawn(move || {
        for (i, socket) in listener.incoming().map_while(Result::ok).enumerate() {
            let script = script.clone();
            thread::spawn(move || {
                let mut socket = socket;
                socket.set_nodelay(true).unwrap();
                socket.set_read_timeout(Some(LONG)).unwrap();
                script(i, &mut socket);
            });
        }
    });
    address.to_string()
}

/// Reads a head; empty when there is none.
fn head(socket: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && matches!(socket.read(&mut byte), Ok(1)) {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn target(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or("")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A gateway before one server.
fn before(address: &str, listener: &str, upstream: &str) -> Gateway {
    gateway()
        .set("a", address)
        .config(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\n{listener}"))
        .config(&format!("[upstream.o]\nservers = [\"@a\"]\n{upstream}"))
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start()
}

// ---- answers of hostile servers

#[test]
fn heads_of_answers() {
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X: y\r\n".repeat(300));
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok", "a".repeat(90 << 10));
    let with = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok");
    let cases: Vec<(String, u16)> = vec![
        (with("Content-Length: 2"), 200),
        (with("Content-Length: 2\r\nContent-Length: 2"), 200),
        (with("Content-Length: 002"), 200),
        (with("Content-Length: 2\r\nConnection: content-length, x-a;, date\r\nX-A: b"), 200),
        (with("Content-Length: 2\r\nContent-Length: 3"), 502),
        (with("Content-Length: 2\r\nTransfer-Encoding: chunked"), 502),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 2"), 502),
        (with("Content-Length: 2, 2"), 502),
        (with("Content-Length: +2"), 502),
        (with("Content-Length: -2"), 502),
        (with("Content-Length: 0x2"), 502),
        (with("Content-Length:"), 502),
        (with("Content-Length: 99999999999999999999999"), 502),
        (with("Transfer-Encoding: gzip, chunked"), 502),
        (with("Transfer-Encoding: identity"), 502),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"), 502),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n".into(), 502),
        (with("Content-Length: 2\r\nX: a\0b"), 502),
        (with("Content-Length: 2\r\nX: a\u{1}b"), 502),
        (with("Content-Length: 2\r\nX: a\r\n b"), 502),
        (with("Content-Length: 2\r\nX : a"), 502),
        (with("Content-Length : 2"), 502),
        (with("Content-Length: 2\r\nX: a\rb"), 502),
        (with("Content-Length: 2\r\n: a"), 502),
        ("HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok".into(), 502),
        ("ICY 200 OK\r\nContent-Length: 2\r\n\r\nok".into(), 502),
        ("HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok".into(), 502),
        ("HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok".into(), 502),
        ("HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok".into(), 502),
        ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nok".into(), 502),
        ("HTTP/1.1 200 OK\r\nContent-Le".into(), 502),
        (many, 502),
        (large, 502),
    ];
    let texts: Vec<String> = cases.iter().map(|(text, _)| text.clone()).collect();
    let address = raw(move |_, socket| {
        let head = head(socket);
        let case: usize = target(&head)[1..].parse().unwrap();
        let _ = socket.write_all(texts[case].as_bytes());
    });
    let gw = before(&address, "", "");
    let mut wrong = Vec::new();
    for (i, (text, status)) in cases.iter().enumerate() {
        let mut client = gw.connect();
        let answer = client.get(&format!("/{i}")).send();
        let sound = match status {
            200 => answer.headers.all("content-length") == ["2"] && answer.text() == "ok",
            _ => !answer.text().contains("ok\r\n"),
        };
        let over_h2 = gw.h2c().get(&format!("/{i}")).send().status;
        if answer.status != *status || over_h2 != *status || !sound {
            wrong.push(format!("{:.90?}: {} {over_h2} {:?}", text, answer.status, answer.headers));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn bodies_that_break_are_cut() {
    const CASES: [&str; 9] = [
        "Content-Length: 5\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n-1\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nffffffffffffffffff\r\n",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX y\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n",
    ];
    let address = raw(|_, socket| {
        let head = head(socket);
        let case: usize = target(&head)[1..].parse().unwrap();
        let _ = socket.write_all(format!("HTTP/1.1 200 OK\r\n{}", CASES[case]).as_bytes());
    });
    let gw = before(&address, "", "");
    for (i, case) in CASES.iter().enumerate() {
        assert!(gw.get(&format!("/{i}")).try_send().is_err(), "{case:?}");
        assert!(gw.h2c().get(&format!("/{i}")).try_send().is_err(), "{case:?} over HTTP/2");
    }
    for line in gw.logged_lines(2 * CASES.len()) {
        assert!(line["status"] == 200 && line["cause"].is_string(), "{line}");
    }
}

#[test]
fn what_a_server_sends_beyond_its_answer_reaches_nobody() {
    const CASES: [(&str, &str, &str); 8] = [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nhidden", ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\nhidden", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhidden", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", ""),
        (
            "GET",
            "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 103 x\r\n\r\n",
            "ok",
        ),
    ];
    let poisoned: Arc<Journal<()>> = Arc::default();
    let sent = poisoned.clone();
    let address = raw(move |_, socket| {
        loop {
            let head = head(socket);
            let Some((case, late)) = target(&head).trim_start_matches('/').split_once('-') else { return };
            if case == "good" {
                let _ = socket.write_all(ok("good").as_bytes());
                continue;
            }
            let mut answer = CASES[case.parse::<usize>().unwrap()].1.as_bytes().to_vec();
            if late == "late" {
                let _ = socket.write_all(&answer);
                sleep(Duration::from_millis(40));
                answer.clear();
            }
            answer.extend_from_slice(POISON);
            let _ = socket.write_all(&answer);
            sent.push(());
        }
    });
    let gw = before(&address, "", "");
    let mut answers = 0;
    let mut all_was_sent = || {
        answers += 1;
        poisoned.wait_for("the poison", |sent| (sent.len() >= answers).then_some(()));
    };
    for (i, (method, text, body)) in CASES.iter().enumerate() {
        for late in ["now", "late"] {
            let (mut client, mut h2) = (gw.connect(), gw.h2c());
            let answer = client.request(method, &format!("/{i}-{late}")).send();
            assert_eq!(answer.text(), *body, "{text}");
            assert!(answer.status != 204 || !answer.headers.has("content-length"), "{:?}", answer.headers);
            all_was_sent();
            client.get("/good-").send().expect(200).says("good");
            let answer = h2.request(method, &format!("/{i}-{late}")).send();
            assert_eq!(answer.text(), *body, "{text} over HTTP/2");
            all_was_sent();
            h2.get("/good-").send().expect(200).says("good");
        }
    }
}

#[test]
fn interim_answers_pass_and_endless_ones_end() {
    let address = raw(|_, socket| {
        loop {
            let head = head(socket);
            match target(&head) {
                "/hints" => {
                    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nContent-Length: 3\r\n\r\n";
                    let _ = socket.write_all(format!("{hint}{hint}{}", ok("ok")).as_bytes());
                }
                "/flood" => {
                    let flood = "HTTP/1.1 102 Processing\r\n\r\n".repeat(1000);
                    while socket.write_all(flood.as_bytes()).is_ok() {}
                }
                _ => return,
            }
        }
    });
    let gw = before(&address, "", "timeouts = { first_byte = \"500ms\" }");
    let answer = gw.get("/hints").send().expect(200).says("ok");
    assert_eq!(answer.interim.len(), 2);
    assert!(answer.interim[0].1.has("link") && !answer.interim[0].1.has("content-length"), "{:?}", answer.interim);
    let (old, _) = gw.raw("GET /hints HTTP/1.0\r\n\r\n");
    assert!(old.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&old));
    gw.h2c().get("/hints").send().expect(200).says("ok");
    gw.get("/flood").send().expect(502);
    gw.h2c().get("/flood").send().expect(502);
    // A client that does not read them holds nobody.
    let mut client = gw.connect();
    client.send_raw("GET /flood?unread HTTP/1.1\r\nHost: a\r\n\r\n");
    gw.logged("the flood ends", |line| line["path"] == "/flood");
}

#[test]
fn versions_of_http_meet() {
    let address = raw(|_, socket| {
        loop {
            let head = head(socket);
            let answer = match target(&head) {
                "/old" => "HTTP/1.0 200 OK\r\n\r\nuntil the end",
                "/old-length" => "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
                "/old-kept" => "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
                "/until" => "HTTP/1.1 200 OK\r\n\r\nuntil the end",
                "/chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX: y\r\n\r\n",
                _ => return,
            };
            let _ = socket.write_all(answer.as_bytes());
            if matches!(target(&head), "/old" | "/until") {
                return;
            }
        }
    });
    let gw = before(&address, "", "");
    let (mut client, mut h2) = (gw.connect(), gw.h2c());
    for (path, body) in [
        ("/old", "until the end"),
        ("/old-length", "ok"),
        ("/old-kept", "ok"),
        ("/until", "until the end"),
        ("/chunked", "ok"),
    ] {
        client.get(path).send().expect(200).says(body);
        h2.get(path).send().expect(200).says(body);
        let (old, closed) = gw.raw(format!("GET {path} HTTP/1.0\r\n\r\n"));
        let old = String::from_utf8_lossy(&old);
        assert!(closed && old.ends_with(&format!("\r\n\r\n{body}")) && !old.contains("chunked"), "{old}");
        assert!(old.contains("Connection: close\r\n"), "{old}");
    }
    // A connection of HTTP/1.0 is kept where both want it and the end is known.
    let mut client = gw.connect();
    for _ in 0..2 {
        client.send_raw("GET /old-length HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.response_to("GET").unwrap().header("connection"), "keep-alive");
    }
    client.send_raw("GET /chunked HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.response_to("GET").unwrap().says("ok").header("connection"), "close");
}

// ---- requests

#[test]
fn http2_becomes_sound_http1() {
    let origin = Origin::answering(|request| answer(200).body(request.text()));
    let gw = gateway().everything_to(&origin).start();
    let plain = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let base =
        |method: &'static str, path: &'static str| [(":method", method), plain[1], (":path", path), plain[3]].to_vec();
    let with = |mut fields: Vec<(&'static str, &'static str)>, more: &[(&'static str, &'static str)]| {
        fields.extend_from_slice(more);
        fields
    };
    for (name, fields, data) in [
        ("host only", with(plain[..3].to_vec(), &[("host", "a b")]), None),
        ("host with a path", with(plain[..3].to_vec(), &[("host", "a/b")]), None),
        ("host with a list", with(plain[..3].to_vec(), &[("host", "a, b")]), None),
        ("host with user", with(plain[..3].to_vec(), &[("host", "x@a")]), None),
        ("empty host", with(plain[..3].to_vec(), &[("host", "")]), None),
        ("authority with user", [plain[0], plain[1], plain[2], (":authority", "x@a")].to_vec(), None),
        ("bad port", [plain[0], plain[1], plain[2], (":authority", "a:b")].to_vec(), None),
        ("no host", plain[..3].to_vec(), None),
        ("connect", [(":method", "CONNECT"), plain[3]].to_vec(), None),
        ("extended connect", with(base("CONNECT", "/"), &[(":protocol", "websocket")]), None),
        ("CR LF in a value", with(base("GET", "/"), &[("x", "a\r\nY: b")]), None),
        ("NUL in a value", with(base("GET", "/"), &[("x", "a\0b")]), None),
        ("LF in a path", base("GET", "/\nX: y"), None),
        ("space in a path", base("GET", "/a HTTP/1.1"), None),
        ("colon in a name", with(base("GET", "/"), &[("x: y", "z")]), None),
        ("length without body", with(base("POST", "/"), &[("content-length", "3")]), None),
        ("longer than said", with(base("POST", "/"), &[("content-length", "3")]), Some("abcd")),
        ("shorter than said", with(base("POST", "/"), &[("content-length", "3")]), Some("ab")),
        (
            "data beyond none",
            with(base("POST", "/framed"), &[("content-length", "0")]),
            Some("GET /smuggled HTTP/1.1\r\n\r\n"),
        ),
        ("two lengths", with(base("POST", "/"), &[("content-length", "2"), ("content-length", "3")]), Some("abc")),
        ("plus", with(base("POST", "/"), &[("content-length", "+3")]), Some("abc")),
        ("upgrade", with(base("GET", "/"), &[("upgrade", "websocket")]), None),
    ] {
        let count = || origin.requests().iter().filter(|seen| seen.target != "/framed").count();
        let before = count();
        let mut frames = Frames::connect(gw.address().tcp());
        frames.headers(1, &fields, data.is_none());
        if let Some(data) = data {
            frames.data(1, data.as_bytes(), true);
        }
        let fate = frames.fate_of(1);
        let framed = matches!(name, "data beyond none");
        assert!(fate.is_refusal() || framed, "{name}: {fate:?}");
        let reached = count() - before;
        assert!(reached == 0 || framed, "{name} reached the origin");
    }
    assert!(!String::from_utf8_lossy(&origin.bytes()).contains("smuggled"));
    // One of those that may reach it may still be on its way.
    let others = || origin.requests().into_iter().filter(|seen| seen.target != "/framed").collect::<Vec<_>>();
    let before = others().len();
    let mut frames = Frames::connect(gw.address().tcp());
    for (i, (fields, data)) in [
        (with(base("GET", "/cookies"), &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2"), ("cookie", "c=3")]), None),
        (base("OPTIONS", "*"), None),
        (with(base("POST", "/zero"), &[("content-length", "0"), ("content-length", "0")]), None),
        (with(base("POST", "/same"), &[("content-length", "3"), ("content-length", "3")]), Some("abc")),
        (base("POST", "/chunks"), Some("abc")),
        (with(base("GET", "/te"), &[("te", "trailers")]), None),
    ]
    .into_iter()
    .enumerate()
    {
        let stream = 2 * i as u32 + 1;
        frames.headers(stream, &fields, data.is_none());
        if let Some(data) = data {
            frames.data(stream, data.as_bytes(), true);
        }
        assert_eq!(frames.fate_of(stream), Fate::Answered(Some(200)), "{fields:?}");
    }
    let seen = &others()[before..];
    assert_eq!(seen[0].header("cookie"), "a=1; b=2; c=3");
    assert_eq!((seen[1].method.as_str(), seen[1].target.as_str()), ("OPTIONS", "*"));
    assert_eq!((seen[2].header("content-length"), seen[2].text().as_str()), ("0", ""));
    assert_eq!((seen[3].header("content-length"), seen[3].text().as_str()), ("3", "abc"));
    assert_eq!((seen[4].header("transfer-encoding"), seen[4].text().as_str()), ("chunked", "abc"));
    assert!(!seen[5].headers.has("te"));
    assert!(seen.iter().all(|seen| seen.header("host") == "a"));
}

#[test]
fn targets_and_nominated_fields() {
    let origin = Origin::answering(|request| answer(200).body(request.text()));
    let gw = gateway().everything_to(&origin).start();
    for (target, seen) in
        [("http://a?x=1", "/?x=1"), ("http://a", "/"), ("http://a/b?c", "/b?c"), ("https://a/b", "/b"), ("/?", "/?")]
    {
        gw.get(target).host("a").send().expect(200);
        assert_eq!(origin.requests().last().unwrap().target, seen, "{target}");
        assert_eq!(origin.requests().last().unwrap().header("host"), "a");
    }
    let (answer, _) = gw.raw("GET http://b:80/c HTTP/1.0\r\n\r\n");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
    assert_eq!(origin.requests().last().unwrap().header("host"), "b:80");
    for (nominated, status) in [
        ("x-secret", 200),
        ("close, X-Secret", 200),
        ("transfer-encoding", 200),
        ("te, trailer, keep-alive", 200),
        ("content-length", 400),
        ("host", 400),
        ("x-forwarded-for", 400),
        ("a b", 400),
    ] {
        let answer = gw
            .post("/n")
            .header("Connection", nominated)
            .header("X-Secret", "s")
            .header("TE", "trailers")
            .header("Keep-Alive", "5")
            .header("Proxy-Connection", "close")
            .chunked("abc")
            .send();
        assert_eq!(answer.status, status, "{nominated}");
        let seen = origin.requests().pop().unwrap();
        for gone in ["connection", "te", "keep-alive", "proxy-connection", "content-length"] {
            assert!(!seen.headers.has(gone), "{nominated}: {:?}", seen.headers);
        }
        assert!(status != 200 || seen.text() == "abc" && (nominated.contains("ecret") != seen.headers.has("x-secret")));
    }
    // Extensions and trailers of chunks stay here.
    let (answer, _) = gw.raw(
        "POST /ext HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
         1;a=\"b\"\r\nx\r\n02\r\nyz\r\n00;q\r\nX-Admin: 1\r\nContent-Length: 5\r\n\r\n",
    );
    assert!(answer.ends_with(b"xyz") || answer.windows(3).any(|bytes| bytes == b"xyz"));
    let bytes = String::from_utf8_lossy(&origin.bytes()).into_owned();
    assert!(!bytes.contains("a=\"b\"") && !bytes.contains("X-Admin"));
}

#[test]
fn an_error_of_grpc_over_http1_ends() {
    let gw = gateway().config("[[route]]\nmatch = \"/only\"\nrespond = { status = 200 }").start();
    let mut client = gw.connect();
    for _ in 0..2 {
        let answer = client.get("/nowhere").header("Content-Type", "application/grpc").send();
        assert_eq!(answer.header("content-length"), "0");
        answer.grpc_error(12);
    }
    client.get("/only").send().expect(200);
}

#[test]
fn limits_hold_for_http2_and_are_answered() {
    let origin = Origin::saying("ok");
    let gw = before(&origin.address(), "limits = { max_headers = 10, max_uri = \"100B\", max_body = \"10B\" }", "");
    let mut client = gw.h2c();
    let mut many = client.get("/");
    for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"] {
        many = many.header(name, "x");
    }
    many.send().expect(431);
    client.get(&format!("/{}", "a".repeat(100))).send().expect(414);
    client.post("/").body("0123456789").send().expect(200);
    client.post("/").body("0123456789a").send().expect(413).problem("body-too-large");
    client.post("/").body(vec![b'x'; 1 << 20]).send().expect(413).problem("body-too-large");
    client.post("/").header("content-length", "1048576").body(vec![b'x'; 1 << 20]).send().expect(413);
    gw.post("/").chunked(vec![b'x'; 16 << 10]).send().expect(413);
}

// ---- another try

#[test]
fn an_empty_body_in_chunks_is_sent_again() {
    let (bad, good) =
        (Origin::answering(|_| answer(503)), Origin::answering(|request| answer(200).body(request.text())));
    let gw = gateway()
        .origin("bad", &bad)
        .origin("good", &good)
        .config("[upstream.o]\nservers = [\"@bad\", \"@good\"]\nretry = { attempts = 1, on = [\"503\"] }")
        .config("timeouts = { first_byte = \"2s\" }\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    let mut client = gw.connect();
    for _ in 0..4 {
        client.send_raw("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
        client.response_to("PUT").unwrap().expect(200);
    }
    for _ in 0..4 {
        gw.h2c().request("PUT", "/").body("").send().expect(200);
    }
    assert!(bad.requests().len() >= 2);
}

#[test]
fn a_server_that_breaks_off_during_the_head_does_not_cost_the_next_its_body() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    // It is gone while most of the head, for which the socket has no room, is still to be sent.
    thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.read(&mut [0]);
        }
    });
    let good = Origin::answering(|request| answer(200).body(request.text()));
    let gw = gateway()
        .set("bad", format!("unix:{}", path.display()))
        .origin("good", &good)
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\nlimits = { max_header_size = \"1MiB\" }")
        .config("[upstream.o]\nservers = [\"@bad\", \"@good\"]\nretry = { attempts = 1, on = [\"reset\"] }")
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    let large = "x".repeat(1_000_000);
    for _ in 0..4 {
        gw.request("PUT", "/").header("X-Large", &large).body("hello").send().expect(200).says("hello");
        gw.request("PUT", "/").header("X-Large", &large).chunked("hello").send().expect(200).says("hello");
    }
    assert!(gw.logged_lines(8).iter().any(|line| line["attempts"] == 2), "the first server was asked");
}

#[test]
fn only_a_stale_connection_is_replaced_without_asking() {
    let seen: Arc<Journal<String>> = Arc::default();
    let heard = seen.clone();
    let address = raw(move |_, socket| {
        loop {
            let head = head(socket);
            if head.is_empty() {
                return;
            }
            heard.push(target(&head).to_owned());
            let answer = match target(&head) {
                "/good" => ok("ok"),
                "/garbage" => "garbage\r\n\r\n".into(),
                "/half" => "HTTP/1.1 200 OK\r\nConte".into(),
                _ => String::new(),
            };
            let _ = socket.write_all(answer.as_bytes());
            if target(&head) != "/good" {
                return;
            }
        }
    });
    let gw = before(&address, "", "");
    let count = |path: &str| seen.all().iter().filter(|target| *target == path).count();
    let mut client = gw.connect();
    for (method, path, times) in
        [("GET", "/garbage", 1), ("GET", "/half", 1), ("POST", "/close-post", 1), ("GET", "/close", 2)]
    {
        client.get("/good").send().expect(200);
        client.request(method, path).send().expect(502);
        assert_eq!(count(path), times, "{path}");
    }
    // A body of which something was read is never sent again.
    client.get("/good").send().expect(200);
    client.request("PUT", "/close-put").body("hello").send().expect(502);
    assert_eq!(count("/close-put"), 1);
}

#[test]
fn nobody_is_asked_once_the_time_is_over() {
    let (a, b) = (Origin::answering(|_| Answer::never()), Origin::answering(|_| Answer::never()));
    let gw = gateway()
        .origin("a", &a)
        .origin("b", &b)
        .config("[upstream.o]\nservers = [\"@a\", \"@b\"]\nretry = { attempts = 3, on = [\"timeout\"] }")
        .config("timeouts = { total = \"300ms\" }\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    gw.get("/").send().expect(504);
    gw.h2c().get("/").send().expect(504);
    gw.logged_lines(2);
    assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
}

// ---- those who stop

const SHORT: &str = "timeouts = { first_byte = \"400ms\", idle = \"400ms\" }";
const SHORT_BODY: &str = "timeouts = { body = \"400ms\" }";

#[test]
fn silence_on_both_sides_ends() {
    let address = raw(|_, socket| {
        head(socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab");
        sleep(LONG);
    });
    let gw = before(&address, SHORT_BODY, SHORT);
    let mut client = gw.connect();
    client.send_raw("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nab");
    client.response_to("POST").expect_err("the answer is cut");
    let mut h2 = gw.h2c();
    let mut call = h2.post("/2").open();
    call.write(b"ab");
    assert_eq!((call.response().status, call.read(2)), (200, b"ab".to_vec()));
    for path in ["/1", "/2"] {
        let line = gw.logged("the cut", |line| line["path"] == path);
        assert!(line["cause"].is_string(), "{line}");
    }
}

#[test]
fn two_that_only_send_end() {
    let address = raw(|_, socket| {
        head(socket);
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        while socket.write_all(&[b'x'; 64 << 10]).is_ok() {}
    });
    let gw = before(&address, SHORT_BODY, SHORT);
    let mut client = gw.connect();
    client.send_raw("POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n");
    // Writes until the gateway ends the connection.
    thread::spawn(move || while client.reader.write(&[b'x'; 64 << 10]).is_ok() {});
    let line = gw.logged("the cut", |line| line["path"] == "/1");
    assert!(line["cause"].is_string(), "{line}");
    let mut h2 = gw.h2c();
    let mut call = h2.post("/2").open();
    call.write(&[b'x'; 1 << 20]);
    let line = gw.logged("the cut", |line| line["path"] == "/2");
    assert!(line["cause"].is_string(), "{line}");
}

#[test]
fn whoever_does_not_read_holds_little_and_not_for_long() {
    let address = raw(|_, socket| {
        let head = head(socket);
        if target(&head).starts_with("/deaf") {
            sleep(LONG);
        }
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        while socket.write_all(&[b'x'; 64 << 10]).is_ok() {}
    });
    let gw = before(&address, "timeouts = { body = \"1s\" }", "timeouts = { first_byte = \"1s\" }");
    gw.h2c().get("/warm").open();
    let memory = gw.memory();
    let mut held: Vec<_> = (0..20).map(|_| gw.connect()).collect();
    for (i, client) in held.iter_mut().enumerate() {
        client.send_raw(format!("GET /big/{i} HTTP/1.1\r\nHost: a\r\n\r\n"));
    }
    let mut h2: Vec<_> = (0..20).map(|_| gw.h2c()).collect();
    let calls: Vec<_> = h2.iter_mut().map(|client| client.get("/h2").open()).collect();
    // A server that reads nothing of the request.
    let mut posting = gw.connect();
    let deaf = thread::spawn(move || {
        posting.send_raw("POST /deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
        posting.send_raw(vec![b'x'; 50_000_000]);
        posting.response_to("POST")
    });
    sleep(Duration::from_millis(700));
    let grown = gw.memory().saturating_sub(memory);
    assert!(grown < 24 << 20, "{grown}");
    for (path, count) in [("/big", 20), ("/h2", 20)] {
        gw.logged_lines(count);
        let line = gw.logged("the cut", |line| line["path"].as_str().unwrap().starts_with(path));
        assert!(line["status"] == 200 && line["cause"].is_string(), "{line}");
    }
    assert_eq!(gw.logged("the deaf server", |line| line["path"] == "/deaf")["status"], 504);
    drop(calls);
    drop(held);
    let _ = deaf.join();
}

#[test]
fn an_upload_that_ends_late_leaves_the_answer_its_time() {
    let address = raw(|_, socket| {
        head(socket);
        let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 4\r\n\r\nab";
        let _ = socket.write_all(events.as_bytes());
        let mut body = [0; 4];
        let _ = socket.read_exact(&mut body);
        sleep(Duration::from_millis(900));
        let _ = socket.write_all(b"cd");
    });
    let gw = before(&address, "", "timeouts = { first_byte = \"300ms\", idle = \"300ms\" }");
    let mut client = gw.connect();
    client.send_raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    let (start, _) = client.reader.head().unwrap().unwrap();
    assert_eq!((start.as_str(), client.reader.exactly(2).unwrap()), ("HTTP/1.1 200 OK", b"ab".to_vec()));
    client.send_raw("cd");
    assert_eq!(client.reader.exactly(2).unwrap(), b"cd");
    let mut h2 = gw.h2c();
    let mut call = h2.post("/").open();
    call.write(b"ab");
    assert_eq!((call.response().status, call.read(2)), (200, b"ab".to_vec()));
    call.write(b"cd");
    call.finish();
    assert_eq!(call.read(2), b"cd");
}

#[test]
fn an_answer_before_the_body_ends_the_connection_and_is_heard() {
    let address = raw(|i, socket| {
        let head = head(socket);
        if target(&head) == "/early" {
            let _ = socket.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
            return;
        }
        let _ = socket.write_all(ok(&format!("connection {i}")).as_bytes());
    });
    let gw = before(&address, "", "");
    for size in [10usize, 40_000, 4_000_000] {
        let mut client = gw.connect();
        let length = size + 1;
        client.send_raw(format!("POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        let body = vec![b'x'; size];
        client.send_raw(&body);
        let answer = client.response_to("POST").unwrap().expect(403).says("no");
        assert_eq!(answer.header("connection"), "close");
        client.send_raw("xGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(!String::from_utf8_lossy(&client.rest(DEADLINE).0).contains("HTTP/1.1"));
        gw.h2c().post("/early").body(&body).send().expect(403).says("no");
    }
    gw.get("/next").send().expect(200);
}

#[test]
fn a_client_that_leaves_takes_its_server_connection_along() {
    let seen: Arc<Journal<String>> = Arc::default();
    let heard = seen.clone();
    let address = raw(move |i, socket| {
        loop {
            let head = head(socket);
            if head.is_empty() {
                heard.push(format!("{i} closed"));
                return;
            }
            match target(&head) {
                "/waits" => heard.push(format!("{i} asked")),
                "/half" => {
                    let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                }
                "/body" => {
                    let (mut body, mut byte) = (Vec::new(), [0]);
                    while matches!(socket.read(&mut byte), Ok(1)) {
                        body.push(byte[0]);
                        if body.ends_with(b"hello") {
                            heard.push(format!("{i} asked"));
                        }
                    }
                }
                _ => {
                    let _ = socket.write_all(ok(&format!("connection {i}")).as_bytes());
                }
            }
        }
    });
    let gw = before(&address, "", "");
    for (i, text) in [
        "GET /waits HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /half HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello",
        "POST /body HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ]
    .iter()
    .enumerate()
    {
        let mut client = gw.connect();
        client.send_raw(text);
        if text.contains("/half") {
            client.reader.head().unwrap();
            client.reader.exactly(4).unwrap();
        } else {
            seen.wait_for("the server has the request", |all| all.contains(&format!("{i} asked")).then_some(()));
        }
        drop(client);
        let line = gw.logged_lines(i + 1).pop().unwrap();
        assert_eq!(line["cause"], "the client left", "{line}");
        assert_eq!(line["status"], if text.contains("/half") { 200 } else { 499 }, "{line}");
        assert_eq!(line["bytes_in"], if text.contains("hello") { 5 } else { 0 }, "{line}");
        seen.wait_for("the server's connection ends", |all| all.contains(&format!("{i} closed")).then_some(()));
    }
    // And over HTTP/2.
    let mut h2 = gw.h2c();
    let mut call = h2.get("/half").open();
    call.response();
    drop(call);
    drop(h2);
    seen.wait_for("the server's connection ends", |all| all.contains(&"4 closed".to_owned()).then_some(()));
    gw.get("/").send().expect(200).says("connection 5");
}

#[test]
fn a_unix_server_that_shuts_its_ear_is_waited_for_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("o.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    thread::spawn(move || {
        let mut held = Vec::new();
        for socket in listener.incoming().map_while(Result::ok) {
            let _ = socket.shutdown(std::net::Shutdown::Read);
            held.push(socket);
        }
    });
    let gw = before(&format!("unix:{}", path.display()), SHORT_BODY, SHORT);
    gw.post("/").body(vec![b'x'; 1 << 20]).send().expect(504);
    gw.h2c().post("/").body(vec![b'x'; 1 << 20]).send().expect(504);
}

// ---- the end

#[test]
fn what_is_under_way_ends_well_at_shutdown() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/0" => answer(200),
        _ => answer(200).after(Duration::from_millis(700)).body("done"),
    });
    let mut gw = gateway().everything_to(&origin).start();
    let mut client = gw.connect();
    client.send_raw("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut idle = gw.h2c();
    idle.get("/0").send().expect(200);
    let mut h2 = gw.h2c();
    let mut call = h2.post("/2").open();
    call.write(b"ab");
    call.finish();
    origin.wait_for_requests(3);
    gw.terminate();
    let answer = client.response_to("GET").unwrap().expect(200).says("done");
    assert_eq!(answer.header("connection"), "close");
    assert_eq!((call.response().status, call.read(4)), (200, b"done".to_vec()));
    assert!(gw.ended());
}

#[test]
fn idle_http2_connections_end_and_busy_ones_do_not() {
    let origin = Origin::answering(|_| answer(200).after(Duration::from_millis(900)).body("late"));
    let gw = before(&origin.address(), "timeouts = { idle = \"300ms\" }", "");
    let mut frames = Frames::connect(gw.address().tcp());
    assert_eq!(frames.fate_of(1), Fate::Closed);
    let mut frames = Frames::connect(gw.address().tcp());
    frames.headers(1, &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")], true);
    assert_eq!(frames.fate_of(1), Fate::Answered(Some(200)));
    assert_eq!(frames.fate_of(3), Fate::Closed);
}

#[test]
fn the_log_counts_what_was_carried() {
    let origin = Origin::answering(|_| answer(200).chunked().body(vec![b'x'; 5000]));
    let gw = gateway().everything_to(&origin).start();
    gw.post("/1").chunked("hello").send().expect(200);
    gw.h2c().post("/2").body("hello").send().expect(200);
    gw.request("HEAD", "/3").send().expect(200);
    gw.get("/%2f").send().expect(400);
    for (path, protocol, bytes_in, bytes_out) in [
        ("/1", "HTTP/1.1", 5, Some(5000)),
        ("/2", "HTTP/2", 5, Some(5000)),
        ("/3", "HTTP/1.1", 0, Some(0)),
        ("/%2f", "HTTP/1.1", 0, None),
    ] {
        let line = gw.logged(path, |line| line["path"] == path);
        assert_eq!((&line["protocol"], &line["bytes_in"]), (&protocol.into(), &bytes_in.into()), "{line}");
        assert!(bytes_out.is_none_or(|bytes| line["bytes_out"] == bytes), "{line}");
    }
}
