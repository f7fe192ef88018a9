//! Answers with the content codings of real services: nginx, and Python with the libraries of those who made the codings.
//! What the policies of a route read is decoded first; what cannot be decoded ends as `docs/src/bodies.md` says.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{Gateway, Part, Response, free_port, gateway, nginx_with, output, python};

const REMOVE: &str = r#"{ remove = ["secret", "items.*.secret"] }"#;
const JQ: &str = r#"{ max = "8MiB", jq = "del(.secret) | .items |= map(del(.secret))" }"#;

/// Items of more than is held of an answer that goes on as it comes, in any coding.
const MANY: usize = 20_000;
/// Items of less than is held in any coding, and more than 200 KiB without one.
const LARGE_WITHOUT: usize = 5_000;
/// Items that a program has steps for.
const SOME: usize = 2_000;

fn changing(body: &str, port: u16) -> Gateway {
    gateway()
        .set("server", format!("127.0.0.1:{port}"))
        .config(&format!(
            "[upstream]\no = [\"@server\"]\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"\nresponse = {{ body = {body} }}"
        ))
        .start()
}

fn python_server() -> (Part, u16) {
    Part::with_port(&mut python("coded_server.py"))
}

fn without_secrets(count: usize) -> Value {
    let items: Vec<Value> = (0..count).map(|i| json!({ "id": i, "name": format!("ä {}", i * i) })).collect();
    json!({ "items": items })
}

fn get(gw: &Gateway, target: &str, accepts: Option<&str>) -> Response {
    let request = gw.get(target);
    match accepts {
        Some(codings) => request.header("Accept-Encoding", codings).send(),
        None => request.send(),
    }
}

/// The answer is without a coding, says nothing of the bytes that it once was, and has a length if it was held.
#[track_caller]
fn expect_decoded(got: &Response, is_held: bool) {
    assert_eq!(got.status, 200, "{:?} {}", got.headers, got.text());
    for gone in ["content-encoding", "accept-ranges", "content-md5"] {
        assert!(!got.headers.has(gone), "{gone}: {:?}", got.headers);
    }
    assert_eq!(got.header("content-type"), "application/json");
    assert!(got.header("etag").starts_with("W/\""), "{:?}", got.headers);
    let length = if is_held { got.body.len().to_string() } else { String::new() };
    assert_eq!(got.maybe("content-length"), length);
}

#[test]
fn what_python_coded_is_decoded_and_changed() {
    let (_server, port) = python_server();
    for (body, many) in [(REMOVE, MANY), (JQ, SOME)] {
        let gw = changing(body, port);
        for coding in ["gzip", "x-gzip", "members", "br", "zstd", "frames"] {
            for (how, count) in [("length", 10), ("chunked", 10), ("length", many), ("chunked", many)] {
                for accepts in [None, Some("gzip, deflate, br, zstd"), Some("identity;q=0, gzip")] {
                    let got = get(&gw, &format!("/{coding}/{how}/{count}"), accepts);
                    expect_decoded(&got, count < MANY);
                    assert_eq!(got.header("vary"), "Origin");
                    assert!(got.json() == without_secrets(count), "{coding} {how} {count}");
                }
            }
        }
        let got = gw.h2c().get(&format!("/br/chunked/{many}")).send();
        assert!(got.expect(200).json() == without_secrets(many));
    }
}

#[test]
fn what_python_coded_is_coded_anew_for_who_can_read_it() {
    let (_server, port) = python_server();
    let gw = changing(&format!("{REMOVE} }}\ncompress = {{ types = [\"application/json\"]"), port);
    for count in [100, MANY] {
        let url = format!("http://{}/br/chunked/{count}", gw.address().tcp());
        let text =
            output(Command::new("curl").args(["-sS", "--compressed", "-D", "head.txt", &url]).current_dir(gw.dir()));
        assert!(serde_json::from_str::<Value>(&text).unwrap() == without_secrets(count));
        let head = std::fs::read_to_string(gw.dir().join("head.txt")).unwrap().to_ascii_lowercase();
        assert!(
            head.contains("content-encoding: ") && head.contains("vary: origin\r\nvary: accept-encoding"),
            "{head}"
        );
        let plain = get(&gw, &format!("/br/chunked/{count}"), None);
        assert!(plain.json() == without_secrets(count));
        assert!(!plain.headers.has("content-encoding"));
    }
}

#[test]
fn what_cannot_be_decoded_is_refused_or_passed_on_as_it_came() {
    let (_server, port) = python_server();
    let cases = [
        ("deflate/length", "its content coding is not known here"),
        ("twice/length", "its content coding is not known here"),
        ("gzip/cut", "its content coding is broken"),
        ("members/cut", "its content coding is broken"),
        ("br/cut", "its content coding is broken"),
        ("zstd/cut", "its content coding is broken"),
        ("gzip/flipped", "its content coding is broken"),
        ("zstd/flipped", "its content coding is broken"),
        ("gzip/trailed", "its content coding is broken"),
        ("br/trailed", "its content coding is broken"),
        ("zstd/trailed", "its content coding is broken"),
        ("gzip/wrong", "its content coding is broken"),
        ("br/wrong", "its content coding is broken"),
        ("zstd/wrong", "its content coding is broken"),
    ];
    for body in [REMOVE, JQ] {
        let gw = changing(body, port);
        for (what, cause) in cases {
            get(&gw, &format!("/{what}/10"), None).expect(502).problem("answer-unusable");
            gw.logged(what, |line| line["path"] == format!("/{what}/10") && line["cause"] == cause);
        }
        let passing = changing(&body.replace("{ ", "{ otherwise = \"pass\", "), port);
        for (what, _) in cases {
            let got = get(&passing, &format!("/{what}/10"), None).expect(200);
            assert!(got.headers.has("content-encoding"), "{what}: {:?}", got.headers);
            assert_eq!((got.header("etag"), got.header("content-md5")), ("\"1\"", "AAAA"), "{what}");
            assert_eq!(got.header("vary"), "Origin, accept-encoding");
        }
    }
}

#[test]
fn what_goes_on_as_it_comes_ends_in_the_middle_where_it_is_broken() {
    let (_server, port) = python_server();
    let gw = changing(REMOVE, port);
    for what in ["gzip/cut", "br/cut", "zstd/cut", "gzip/flipped", "zstd/flipped", "gzip/trailed", "zstd/trailed"] {
        let target = format!("/{what}/{MANY}");
        let got = gw.get(&target).try_send();
        assert!(got.is_err(), "{what} has an end: {:?}", got.map(|got| got.headers));
        gw.logged(what, |line| {
            line["path"] == target
                && line["cause"].as_str().is_some_and(|cause| cause.contains("content coding is broken"))
        });
    }
    let whole = changing(JQ, port);
    get(&whole, &format!("/gzip/flipped/{MANY}"), None).expect(502).problem("answer-unusable");
}

#[test]
fn what_is_large_only_without_its_coding_goes_on_as_it_comes() {
    let (_server, port) = python_server();
    let gw = changing(&REMOVE.replace("{ ", "{ max = \"200KiB\", "), port);
    for coding in ["gzip", "br", "zstd"] {
        let got = get(&gw, &format!("/{coding}/length/{LARGE_WITHOUT}"), None);
        expect_decoded(&got, false);
        assert!(got.json() == without_secrets(LARGE_WITHOUT), "{coding}");
    }
    let whole = changing(&JQ.replace("8MiB", "200KiB"), port);
    get(&whole, &format!("/gzip/length/{LARGE_WITHOUT}"), None).expect(502).problem("answer-unusable");
}

#[test]
fn a_gigabyte_in_a_few_bytes_is_refused_and_takes_no_room() {
    let (_server, port) = python_server();
    for body in [REMOVE, JQ] {
        let gw = changing(body, port);
        get(&gw, "/gzip/length/10", None).expect(200);
        let before = gw.memory();
        for coding in ["gzip", "br", "zstd"] {
            let target = format!("/{coding}/bomb/0");
            gw.get(&target).send().expect(502).problem("answer-unusable");
            gw.logged(coding, |line| line["path"] == target && line["cause"].is_string());
        }
        let after = gw.memory();
        assert!(after < before + (64 << 20), "{before} bytes grew to {after}");
        get(&gw, "/gzip/length/10", None).expect(200);
    }
    let long = get(&changing(JQ, port), &format!("/long-window/length/{MANY}"), None);
    long.expect(502).problem("answer-unusable");
}

#[test]
fn what_nginx_coded_is_decoded_and_changed() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let text = |count: usize| {
        let items: Vec<Value> = (0..count)
            .map(|i| json!({ "id": i, "name": format!("ä {}", i * i), "secret": "x".repeat(i % 7) }))
            .collect();
        json!({ "secret": 1, "items": items }).to_string()
    };
    for (name, count) in [("small.json", 10), ("some.json", SOME), ("large.json", MANY)] {
        std::fs::write(dir.path().join(name), text(count)).unwrap();
    }
    output(Command::new("gzip").args(["-k", "small.json", "some.json", "large.json"]).current_dir(dir.path()));
    // What is fetched through /always comes as nginx sends it to those who like gzip, whatever was asked for.
    let _nginx = nginx_with(
        dir.path(),
        port,
        &format!(
            "root {dir}; gzip_vary on; gzip_min_length 0; gzip_types application/json; gzip_proxied any;
             types {{ application/json json; }}
             location /made/ {{ alias {dir}/; gzip on; }}
             location /kept/ {{ alias {dir}/; gzip_static always; }}
             location /always/ {{ proxy_pass http://127.0.0.1:{port}/; proxy_http_version 1.1; proxy_set_header Connection \"\";
                                  proxy_set_header Accept-Encoding gzip; }}",
            dir = dir.path().display()
        ),
    );
    for (body, many) in [(REMOVE, MANY), (JQ, SOME)] {
        let gw = changing(body, port);
        let large = if many == MANY { "large.json" } else { "some.json" };
        for (name, count) in [("small.json", 10), (large, many)] {
            for place in ["/kept", "/always/made", "/always/kept", "/made"] {
                for accepts in [None, Some("gzip, br")] {
                    let got = get(&gw, &format!("{place}/{name}"), accepts);
                    expect_decoded(&got, count < MANY);
                    assert!(got.json() == without_secrets(count), "{place} {name}");
                    assert!(place == "/made" || !got.headers.has("vary"), "{place}: {:?}", got.headers);
                }
            }
        }
        let tag = get(&gw, "/kept/small.json", None).header("etag").to_owned();
        let same = gw.get("/kept/small.json").header("If-None-Match", &tag).send().expect(304);
        assert_eq!(same.header("etag"), tag);
        let whole = gw.get("/kept/small.json").header("Range", "bytes=0-9").send();
        assert_eq!(whole.expect(200).json(), without_secrets(10));
    }
}
