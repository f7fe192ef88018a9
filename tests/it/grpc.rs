//! gRPC servers for clients that speak JSON and gRPC-Web: with scripted servers, and with Python's `grpcio` and Chromium.

use std::io::Write;
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{
    Gateway, H2Answer, H2Origin, Origin, Part, answer, gateway, grpc_frame, output, python, refused_address,
};

/// What `conf/examples/shop.proto` says.
const SET: &[u8] = include_bytes!("../../conf/examples/shop.binpb");
const GET: &str = "/shop.v1.Shelves/Get";

/// Before a server that speaks HTTP/2, with more lines for the route.
fn before(server: &str, more: &str) -> Gateway {
    let route = "[[route]]\nmatch = \"/**\"\nupstream = \"shop\"\ngrpc_web = true\n";
    gateway()
        .file("shop.binpb", SET)
        .set("server", server)
        .config("[upstream.shop]\nservers = [\"@server\"]\nprotocol = \"h2c\"\n[defaults]\ncompress = true")
        .config(&format!("{route}{more}"))
        .start()
}

const JSON: &str = "grpc_json = { descriptors = \"shop.binpb\" }";

fn text_field(number: u8, text: &str) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// A `Shelf` in protobuf.
fn shelf(name: &str, theme: &str) -> Vec<u8> {
    [text_field(1, name), text_field(2, theme)].concat()
}

/// The head of a gRPC server's answer.
fn grpc(body: &[u8]) -> H2Answer {
    H2Answer::new(200).header("content-type", "application/grpc").body(body)
}

#[test]
fn a_request_in_json_becomes_a_call() {
    let call = |ask: &dyn Fn(&Gateway) -> crate::harness::Response| {
        let origin = H2Origin::plain(|_| H2Answer::grpc(&shelf("shelves/7", "maps")).header("x-own", "1"));
        let gw = before(&origin.address(), &format!("{JSON}\ntimeout = {{ total = \"20s\" }}"));
        let got = ask(&gw).expect(200);
        assert_eq!((got.header("content-type"), got.header("x-own")), ("application/json", "1"));
        assert!(!got.headers.has("grpc-status") && !got.headers.has("trailer"), "{:?}", got.headers);
        assert_eq!(got.text(), r#"{"name":"shelves/7","theme":"maps"}"#);
        assert_eq!(got.header("content-length"), got.body.len().to_string());
        origin.only_request()
    };
    let seen = call(&|gw| gw.get("/v1/shelves/7").header("X-Mine", "2").header("Accept-Encoding", "gzip").send());
    assert_eq!((&*seen.method, &*seen.target), ("POST", GET));
    assert_eq!(seen.body, grpc_frame(&text_field(1, "shelves/7")));
    for (name, value) in [
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("grpc-accept-encoding", "gzip"),
        ("x-mine", "2"),
        (":authority", "gateway.test"),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    assert!(!seen.headers.has("content-length") && !seen.headers.has("accept-encoding"), "{:?}", seen.headers);
    let left: u64 = seen.header("grpc-timeout").trim_end_matches(char::is_alphabetic).parse().unwrap();
    assert!(seen.header("grpc-timeout").ends_with('u') && left <= 20_000_000, "{left}");

    let seen = call(&|gw| gw.h2c().post("/v1/shelves").body(r#"{"name":"shelves/7","theme":"maps"}"#).send());
    assert_eq!((&*seen.method, &*seen.target), ("POST", "/shop.v1.Shelves/Create"));
    let inner = shelf("shelves/7", "maps");
    assert_eq!(seen.body, grpc_frame(&[&[10, u8::try_from(inner.len()).unwrap()], &inner[..]].concat()));
    // What the client waits is less than what the route gives.
    let seen = call(&|gw| gw.get("/v1/shelves/7").header("Grpc-Timeout", "9S").send());
    let left: u64 = seen.header("grpc-timeout").trim_end_matches('u').parse().unwrap();
    assert!(left <= 9_000_000, "{left}");
}

#[test]
fn what_is_no_call_is_refused() {
    let origin = H2Origin::plain(|_| H2Answer::grpc(b""));
    let gw = before(&origin.address(), &format!("{JSON}\nvalidate = {{ max_body = \"1KiB\" }}"));
    gw.get("/v1/none").send().expect(404).problem("no-route");
    let wrong = gw.request("DELETE", "/v1/shelves/7").body("{").send().expect(405).problem("method-not-allowed");
    assert_eq!(wrong.header("allow"), "GET");
    gw.request("HEAD", "/v1/shelves/7").send().expect(405);
    let detail = |response: crate::harness::Response| response.json()["detail"].as_str().unwrap().to_owned();
    let wrong = gw.post("/v1/shelves").body(r#"{"name": 7}"#).send().expect(400).problem("bad-request");
    assert!(detail(wrong).contains("at byte "));
    let wrong = gw.post("/v1/shelves").header("Content-Type", "text/plain").body("{}").send().expect(415);
    assert!(detail(wrong).contains("application/json"));
    let wrong = gw.get("/v1/shelves/7?depth=1").send().expect(400).problem("bad-request");
    assert!(detail(wrong).contains("`depth`"));
    gw.post("/v1/shelves").chunked(format!("\"{}\"", "x".repeat(2000))).send().expect(413).problem("body-too-large");
    assert!(origin.requests().is_empty());
}

#[test]
fn a_status_is_a_problem() {
    let message = grpc_frame(&shelf("shelves/7", "maps"));
    let origin = H2Origin::plain(move |seen| match seen.header("x-case") {
        "head" => grpc(b"").header("grpc-status", "5").header("grpc-message", "no %C3%A9l%C3%A8ve"),
        "trailers" => grpc(&message).trailer("grpc-status", "7"),
        "length" => grpc(&message).header("content-length", &message.len().to_string()).trailer("grpc-status", "9"),
        "none" => grpc(&message),
        "cancelled" => grpc(b"").trailer("grpc-status", "1"),
        "proxy" => H2Answer::new(503).header("content-type", "text/html").body("<html>"),
        "page" => H2Answer::new(200).header("content-type", "text/html").body("<html>"),
        "garbled" => grpc(b"\0\0\0\0\x02\xff\xff").trailer("grpc-status", "0"),
        "cut" => grpc(b"\0\0\0\0\x09\x0a").trailer("grpc-status", "0"),
        "empty" => grpc(b"").trailer("grpc-status", "0"),
        "empty-head" => grpc(b"").header("grpc-status", "0"),
        "two" => grpc(&message.repeat(2)).trailer("grpc-status", "0"),
        "coded" => grpc(&message).header("grpc-encoding", "br").trailer("grpc-status", "0"),
        "large" => H2Answer::grpc(&shelf("x", &"y".repeat(200)).repeat(8)),
        "reset" => grpc(&message).reset(),
        other => panic!("{other}"),
    });
    let gw = before(
        &origin.address(),
        "grpc_json = { descriptors = \"shop.binpb\", services = [\"shop.v1.Shelves\"], max_message = \"1KiB\" }",
    );
    for (case, status, kind, code) in [
        ("head", 404, "grpc-status", "NOT_FOUND"),
        ("trailers", 403, "grpc-status", "PERMISSION_DENIED"),
        ("length", 400, "grpc-status", "FAILED_PRECONDITION"),
        ("none", 500, "grpc-status", "UNKNOWN"),
        ("cancelled", 499, "grpc-status", "CANCELLED"),
        ("proxy", 503, "grpc-status", "UNAVAILABLE"),
        ("page", 500, "grpc-status", "UNKNOWN"),
        ("garbled", 502, "answer-unusable", ""),
        ("cut", 502, "answer-unusable", ""),
        ("empty", 502, "answer-unusable", ""),
        ("empty-head", 502, "answer-unusable", ""),
        ("two", 502, "answer-unusable", ""),
        ("coded", 502, "answer-unusable", ""),
        ("large", 502, "answer-unusable", ""),
        ("reset", 502, "upstream-failed", ""),
    ] {
        let got = gw.get("/v1/shelves/7").header("X-Case", case).send();
        assert_eq!(got.status, status, "{case} {}", got.text());
        let json = got.problem(kind).json();
        assert_eq!(json["code"].as_str().unwrap_or_default(), code, "{case}");
        let detail = json["detail"].as_str().unwrap();
        assert!(!detail.is_empty() && (case != "head" || detail == "no élève"), "{case} {detail}");
    }
    gw.logged("the status", |line| line["status"] == 404 && line["stopped_by"] == "grpc-status");
}

#[test]
fn a_compressed_answer_is_read() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&shelf("shelves/7", "maps")).unwrap();
    let mut frame = grpc_frame(&gzip.finish().unwrap());
    frame[0] = 1;
    let origin = H2Origin::plain(move |_| grpc(&frame).header("grpc-encoding", "gzip").trailer("grpc-status", "0"));
    let gw = before(&origin.address(), JSON);
    gw.get("/v1/shelves/7").send().expect(200).says(r#"{"name":"shelves/7","theme":"maps"}"#);
}

#[test]
fn a_stream_is_written_as_the_client_accepts_it() {
    let messages = [grpc_frame(&shelf("a", "")), grpc_frame(&shelf("b", ""))].concat();
    let origin = H2Origin::plain(move |seen| match seen.headers.first("x-case") {
        Some("fails") => grpc(&messages).trailer("grpc-status", "15").trailer("grpc-message", "burnt"),
        Some("fails-at-once") => grpc(b"").trailer("grpc-status", "16"),
        Some("empty") => grpc(b"").trailer("grpc-status", "0"),
        Some("garbled") => grpc(&[&messages[..], b"\x07\0\0\0\0"].concat()).trailer("grpc-status", "0"),
        _ => grpc(&messages).trailer("grpc-status", "0"),
    });
    let gw = before(&origin.address(), JSON);
    let watch = |accept: &str, case: &str| {
        gw.get("/v1/shelves:watch").header("Accept", accept).header("X-Case", case).try_send()
    };
    let error = r#"{"error":{"status":500,"code":"DATA_LOSS","detail":"burnt"}}"#;
    for (accept, content_type, whole, fails, empty) in [
        ("*/*", "application/x-ndjson", "{\"name\":\"a\"}\n{\"name\":\"b\"}\n".to_owned(), format!("{error}\n"), ""),
        (
            "text/event-stream",
            "text/event-stream",
            "data: {\"name\":\"a\"}\n\ndata: {\"name\":\"b\"}\n\n".to_owned(),
            format!("event: error\ndata: {error}\n\n"),
            "",
        ),
        (
            "application/json",
            "application/json",
            r#"[{"name":"a"},{"name":"b"}]"#.to_owned(),
            format!(",{error}]"),
            "[]",
        ),
    ] {
        let got = watch(accept, "").unwrap().expect(200).says(&whole);
        assert_eq!(got.header("content-type"), content_type);
        let cut = whole.trim_end_matches(']');
        watch(accept, "fails").unwrap().expect(200).says(&format!("{cut}{fails}"));
        watch(accept, "fails-at-once").unwrap().expect(401).problem("grpc-status");
        watch(accept, "empty").unwrap().expect(200).says(empty);
        // The client sees that it is cut off.
        assert!(watch(accept, "garbled").is_err());
    }
    gw.logged("why it was cut off", |line| line["cause"].as_str().is_some_and(|cause| cause.contains("unknown flag")));
}

#[test]
fn native_grpc_goes_by_as_it_is() {
    let origin = H2Origin::plain(|_| H2Answer::grpc_echo().trailer("x-own", "1"));
    let gw = before(&origin.address(), JSON);
    let mut client = gw.h2c();
    let mut call = client.post(GET).header("content-type", "application/grpc").header("te", "trailers").open();
    call.response().expect(200);
    for message in [&b"one"[..], b"two"] {
        call.write(&grpc_frame(message));
        assert_eq!(call.read(message.len() + 5), grpc_frame(message));
    }
    call.finish();
    let trailers = call.trailers();
    assert_eq!((trailers.first("grpc-status"), trailers.first("x-own")), (Some("0"), Some("1")));
    assert_eq!(origin.only_request().header("te"), "trailers");
}

#[test]
fn python_speaks_grpc_by_a_route_that_makes_it_of_json() {
    let (_server, port) = Part::with_port(&mut python("grpc_server.py"));
    let gw = gateway()
        .file("shop.binpb", SET)
        .set("server", format!("127.0.0.1:{port}"))
        .config(
            r#"
            [upstream]
            drill = { servers = ["@server"], protocol = "h2c" }
            lost = { servers = ["nonexistent.invalid:1"], protocol = "h2c" }
            [defaults]
            compress = true
            grpc_web = true
            grpc_json = { descriptors = "shop.binpb" }
            [[route]]
            match = "/drill.Drill/{name}"
            upstream = "drill"
            [[route]]
            match = "/lost.Service/{name}"
            upstream = "lost"
            "#,
        )
        .start();
    assert_eq!(output(python("grpc_client.py").arg(gw.address().tcp().to_string())), "ok\n");
}

/// What gRPC-Web writes at the end.
fn trailer_frame(lines: &str) -> Vec<u8> {
    let mut frame = grpc_frame(lines.as_bytes());
    frame[0] = 0x80;
    frame
}

#[test]
fn grpc_web_becomes_grpc() {
    let message = grpc_frame(&shelf("shelves/7", "maps"));
    let sent = message.clone();
    let origin = H2Origin::plain(move |seen| match seen.headers.first("x-case") {
        Some("head") => grpc(b"").header("grpc-status", "5").header("grpc-message", "none"),
        Some("length") => grpc(&sent).header("content-length", &sent.len().to_string()).trailer("grpc-status", "0"),
        Some("proxy") => H2Answer::new(503).header("content-type", "text/html").body("<html>"),
        Some("cut") => grpc(&sent[..9]).trailer("grpc-status", "0"),
        _ => grpc(&sent).trailer("grpc-status", "0").trailer("x-own", "1"),
    });
    let gw = before(&origin.address(), JSON);
    let request = grpc_frame(&text_field(1, "shelves/7"));
    let whole = [&message[..], &trailer_frame("grpc-status: 0\r\nx-own: 1\r\n")].concat();
    for (content_type, body, plain) in [
        ("application/grpc-web+proto", request.clone(), "application/grpc+proto"),
        ("application/grpc-web", request.clone(), "application/grpc"),
        ("application/grpc-web-text", STANDARD.encode(&request).into_bytes(), "application/grpc"),
        ("application/grpc-web-text+proto", STANDARD.encode(&request).into_bytes(), "application/grpc+proto"),
    ] {
        let call = |case: &str| gw.post(GET).header("Content-Type", content_type).header("X-Case", case).body(&body);
        let undone = |body: &[u8]| match content_type.contains("text") {
            true => STANDARD.decode(body).unwrap(),
            false => body.to_vec(),
        };
        let got = call("").send().expect(200);
        assert_eq!(got.header("content-type"), content_type);
        assert_eq!(undone(&got.body), whole, "{content_type}");
        let seen = origin.requests().pop().unwrap();
        assert_eq!((&*seen.method, &*seen.target, seen.header("content-type")), ("POST", GET, plain));
        assert_eq!((seen.header("te"), &seen.body), ("trailers", &request));
        let got = call("length").send().expect(200);
        assert_eq!(undone(&got.body), [&message[..], &trailer_frame("grpc-status: 0\r\n")].concat());
        for (case, code) in [("head", 5), ("proxy", 14)] {
            let got = call(case).send().grpc_error(code);
            assert_eq!(got.header("content-type"), content_type, "{case}");
        }
        assert!(call("cut").try_send().is_err(), "{content_type}");
        let mut h2 = gw.h2c();
        let got = h2.post(GET).header("content-type", content_type).body(&body).send().expect(200);
        assert_eq!(undone(&got.body), whole);
        assert_eq!(got.trailers.first("grpc-status"), None);
    }
    let text = |body: &str| gw.post(GET).header("Content-Type", "application/grpc-web-text").body(body).send();
    text("AAAA*").grpc_error(3);
    text("AAAAA").grpc_error(3);
}

#[test]
fn the_gateways_own_refusals_are_statuses_for_grpc_web() {
    let gw = before(&refused_address(), "");
    for content_type in ["application/grpc-web+proto", "application/grpc-web-text"] {
        let got = gw.post(GET).header("Content-Type", content_type).body("").send().grpc_error(14);
        assert_eq!(got.header("content-type"), content_type);
        assert!(got.header("grpc-message").contains("shop"));
    }
}

#[test]
fn what_cannot_be_called_is_a_mistake() {
    let said = |more: &str| {
        let upstreams = "[upstream]\no = [\"127.0.0.1:1\"]\nh = { servers = [\"127.0.0.1:1\"], protocol = \"h2c\" }\n";
        let config = format!("{upstreams}[[route]]\nmatch = \"/**\"\n{more}");
        String::from_utf8(gateway().file("shop.binpb", SET).config(&config).check().stderr).unwrap()
    };
    for (more, words) in [
        (
            "upstream = \"h\"\ngrpc_json = { descriptors = \"shop.binpb\", services = [\"shop.v1.Shelf\"] }",
            "the set has no service `shop.v1.Shelf`; it has `shop.v1.Shelves`",
        ),
        ("split = { h = 1, o = 1 }\ngrpc_json = { descriptors = \"shop.binpb\" }", "`grpc_json` needs a route to"),
        ("respond = {}\ngrpc_json = { descriptors = \"shop.binpb\" }", "or the route grpc_json = false"),
        ("upstream = \"h\"\ngrpc_json = { descriptors = \"shop.binpb\", stream = \"xml\" }", "xml"),
    ] {
        assert!(said(more).contains(words), "{more}\n{}", said(more));
    }
}

#[test]
fn a_changed_descriptor_set_is_read_again() {
    let origin = H2Origin::plain(|_| H2Answer::grpc(&shelf("shelves/7", "maps")));
    let config = "[upstream.shop]\nservers = [\"@server\"]\nprotocol = \"h2c\"\n[[route]]\nmatch = \"/**\"\n\
                  name = \"all\"\nupstream = \"shop\"\ngrpc_json = { descriptors = \"shop.binpb\" }";
    let gw = gateway().file("shop.binpb", SET).set("server", origin.address()).config(config).start();
    gw.get("/v1/shelves/7").send().expect(200);
    std::fs::write(gw.dir().join("shop.binpb"), b"\xff").unwrap();
    let refused = gw.reload();
    assert!(refused.status >= 400 && refused.text().contains("not a whole descriptor set"), "{}", refused.text());
    // The path of a template, in a set that is as sound as it was.
    let mut set = SET.to_vec();
    let at = set.windows(20).position(|window| window == b"/v1/{name=shelves/*}").unwrap();
    set[at + 2] = b'2';
    std::fs::write(gw.dir().join("shop.binpb"), set).unwrap();
    let reloaded = gw.reload().expect(200);
    assert!(reloaded.text().contains("route all changed"), "{}", reloaded.text());
    gw.get("/v1/shelves/7").send().expect(404);
    gw.get("/v2/shelves/7").send().expect(200);
}

/// Python's gRPC server of the shop, and a gateway before it.
fn shop(more: &str) -> (Part, Gateway) {
    let dir = tempfile::tempdir().unwrap();
    let set = dir.path().join("set.binpb");
    let (server, port) = Part::with_port(python("shop_server.py").arg(&set));
    let compiled = std::fs::read(&set).unwrap();
    assert!(compiled == SET, "conf/examples/shop.binpb is not what shop.proto says");
    (server, before(&format!("127.0.0.1:{port}"), more))
}

#[test]
fn a_server_of_python_answers_json() {
    let (server, gw) = shop(JSON);
    let got = gw.get("/v1/shelves/7").header("X-Tell", "me").send().expect(200);
    assert_eq!(got.header("x-told"), "me");
    assert_eq!(got.text(), r#"{"name":"shelves/7","theme":"maps","books":"1152921504606846977"}"#);
    let made = gw.post("/v1/shelves").header("Content-Type", "application/json").body(r#"{"theme":"\u00e9"}"#);
    made.send().expect(200).says(r#"{"theme":"é"}"#);
    let filled = gw.post("/v1/shelves:fill").chunked("{\"name\":\"a\",\"theme\":\"x\"}\n{\"theme\":\"y\"}");
    filled.send().expect(200).says(r#"{"name":"a","theme":"x,y","books":"2"}"#);

    let missing = gw.get("/v1/shelves/none").send().expect(404).problem("grpc-status").json();
    assert_eq!((&missing["code"], &missing["detail"]), (&"NOT_FOUND".into(), &"no such shelf: élève".into()));
    let details = &missing["details"];
    assert_eq!(details[0]["@type"], "type.googleapis.com/google.rpc.ResourceInfo");
    assert_eq!(details[0]["resourceName"], "shelves/none");
    assert_eq!(
        (&details[1]["reason"], &details[1]["metadata"]["near"]),
        (&"NO_SUCH_SHELF".into(), &"shelves/7".into())
    );

    gw.get("/v1/shelves/slow").header("Grpc-Timeout", "1500m").send().expect(504);
    server.says("the deadline", |lines| lines.contains(&"deadline True".to_owned()).then_some(()));
    server.says("its end", |lines| lines.contains(&"slow ended".to_owned()).then_some(()));
}

#[test]
fn a_stream_of_python_goes_on_as_it_comes() {
    let (server, gw) = shop(JSON);
    for (accept, first, second) in [
        ("*/*", "{\"name\":\"shelves/0\",\"theme\":\"patient\"}\n", "{\"name\":\"shelves/1\",\"theme\":\"patient\"}\n"),
        (
            "text/event-stream",
            "data: {\"name\":\"shelves/0\",\"theme\":\"patient\"}\n\n",
            "data: {\"name\":\"shelves/1\",\"theme\":\"patient\"}\n\n",
        ),
    ] {
        let watch = format!(
            "GET /v1/shelves:watch?theme=patient&count=2 HTTP/1.1\r\nHost: gateway.test\r\nAccept: {accept}\r\n\r\n"
        );
        let mut connection = gw.connect();
        connection.send_raw(&watch);
        let (start, _) = connection.reader.head().unwrap().unwrap();
        assert_eq!(start, "HTTP/1.1 200 OK");
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
        let expect = |connection: &mut crate::harness::Connection, text: &str| {
            let read = connection.reader.exactly(chunk(text).len()).unwrap();
            assert_eq!(String::from_utf8_lossy(&read), chunk(text));
        };
        expect(&mut connection, first);
        // The server waits for this.
        gw.post("/v1/shelves").body("{}").send().expect(200);
        expect(&mut connection, second);
        assert_eq!(connection.reader.exactly(5).unwrap(), b"0\r\n\r\n");

        let mut leaving = gw.connect();
        leaving.send_raw(&watch);
        leaving.reader.head().unwrap().unwrap();
        expect(&mut leaving, first);
        let before = server.output().len();
        drop(leaving);
        server.says("that nobody watches any more", |lines| {
            lines[before..].contains(&"watch cancelled".to_owned()).then_some(())
        });
    }
    gw.get("/v1/shelves:watch?theme=denied").send().expect(403).problem("grpc-status");
    let broken = gw.get("/v1/shelves:watch?theme=breaks&count=9").send().expect(200).text();
    assert_eq!(
        broken.lines().collect::<Vec<_>>(),
        [
            r#"{"name":"shelves/0","theme":"breaks"}"#,
            r#"{"error":{"status":500,"code":"DATA_LOSS","detail":"the warehouse burns"}}"#
        ]
    );
}

#[test]
fn chromium_speaks_grpc_web() {
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts");
    let page = std::fs::read(script.join("grpc_web.html")).unwrap();
    let library = std::fs::read(script.join("node_modules/grpc-web/index.esm.js")).unwrap();
    let pages = Origin::answering(move |seen| match seen.target.split('?').next().unwrap() {
        "/grpc_web.html" => answer(200).header("Content-Type", "text/html").body(&page),
        "/grpc-web.js" => answer(200).header("Content-Type", "text/javascript").body(&library),
        "/result" => answer(204),
        _ => answer(404),
    });
    let own = format!("http://{}", pages.address());
    let (_server, gw) = shop(&format!(
        "cors = {{ origins = [\"{own}\"], headers = [\"content-type\", \"x-grpc-web\", \"x-user-agent\", \"x-tell\"], \
         expose = [\"grpc-status\", \"grpc-message\", \"grpc-status-details-bin\", \"x-told\"] }}\n\
         validate = {{ max_body = \"1KiB\" }}"
    ));
    let profile = tempfile::tempdir().unwrap();
    let _browser = Part::start(
        Command::new("chromium")
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-extensions"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("--remote-debugging-port=0")
            .arg(format!("{own}/grpc_web.html?http://{}", gw.address().tcp())),
    );
    let results = crate::harness::eventually("the browser's results", || pages.requests_for("/result").pop());
    let results: serde_json::Value = serde_json::from_slice(&results.body).unwrap();
    let found =
        STANDARD.encode([shelf("shelves/7", "maps"), b"\x18\x81\x80\x80\x80\x80\x80\x80\x80\x10".to_vec()].concat());
    for format in ["binary", "text"] {
        let of = |what: &str| &results[format][what];
        assert_eq!(of("unary")["message"], found.as_str(), "{results:#}");
        assert_eq!(of("unary")["metadata"]["x-told"], "me", "{results:#}");
        assert_eq!((&of("missing")["code"], &of("missing")["text"]), (&5.into(), &"no such shelf: élève".into()));
        assert_eq!(of("large")["code"], 8, "{results:#}");
    }
    let stream = &results["text"]["stream"];
    assert_eq!(stream["messages"].as_array().map(Vec::len), Some(3), "{results:#}");
    assert_eq!(stream["status"], 0, "{results:#}");
    let broken = &results["text"]["broken"];
    assert_eq!((broken["messages"].as_array().map(Vec::len), &broken["status"]), (Some(1), &15.into()), "{results:#}");
}
