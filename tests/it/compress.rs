//! Answers that are compressed for clients that can read them so.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;

use crate::harness::{Gateway, Origin, Response, answer, gateway};

fn text(length: usize) -> String {
    "A sentence that is said again and again. ".chars().cycle().take(length).collect()
}

fn compressing(policy: &str, origin: &Origin) -> Gateway {
    gateway().config(&format!("[defaults]\ncompress = {policy}")).everything_to(origin).start()
}

fn of_length(length: usize) -> Origin {
    Origin::answering(move |_| {
        answer(200).header("Content-Type", "application/json").header("ETag", "\"a\"").body(text(length))
    })
}

fn undone(response: &Response) -> String {
    let mut text = Vec::new();
    match response.maybe("content-encoding") {
        "gzip" => drop(MultiGzDecoder::new(&response.body[..]).read_to_end(&mut text).unwrap()),
        "br" => drop(brotli::Decompressor::new(&response.body[..], 4096).read_to_end(&mut text).unwrap()),
        "zstd" => drop(zstd::Decoder::new(&response.body[..]).unwrap().read_to_end(&mut text).unwrap()),
        "" => text.clone_from(&response.body.to_vec()),
        other => panic!("{other}"),
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_client_gets_what_it_likes_best() {
    let origin = of_length(5000);
    let gw = compressing("true", &origin);
    for (accepts, coding) in [
        ("gzip", "gzip"),
        ("br;q=0.8, gzip;q=0.5", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("deflate", ""),
        ("gzip;q=0", ""),
        ("identity;q=1, gzip;q=0.1", ""),
    ] {
        let got = gw.get("/").header("Accept-Encoding", accepts).send().expect(200);
        assert_eq!(got.maybe("content-encoding"), coding, "{accepts}");
        assert_eq!(got.header("vary"), "Accept-Encoding");
        assert_eq!(got.header("etag"), if coding.is_empty() { "\"a\"" } else { "W/\"a\"" });
        assert_eq!(undone(&got), text(5000), "{accepts}");
    }
    let mut h2 = gw.h2c();
    let got = h2.get("/").header("accept-encoding", "gzip").send().expect(200);
    assert_eq!((got.maybe("content-encoding"), undone(&got)), ("gzip", text(5000)));
    let head = gw.request("HEAD", "/").header("Accept-Encoding", "gzip").send().expect(200);
    assert_eq!((head.maybe("content-encoding"), head.maybe("content-length")), ("gzip", ""));
}

#[test]
fn what_is_not_worth_it_is_left_as_it_is() {
    let origin = Origin::answering(|seen| match seen.target.as_str() {
        "/small" => answer(200).header("Content-Type", "text/plain").body(text(1000)),
        "/small-chunks" => answer(200).header("Content-Type", "text/plain").body(text(1000)).chunked(),
        "/image" => answer(200).header("Content-Type", "image/png").body(text(5000)),
        "/coded" => answer(200).header("Content-Type", "text/plain").header("Content-Encoding", "br").body(text(5000)),
        "/kept" => {
            let kept =
                answer(200).header("Content-Type", "text/plain").header("Cache-Control", "no-cache, No-Transform");
            kept.body(text(5000))
        }
        "/part" => {
            let part = answer(206).header("Content-Type", "text/plain").header("Content-Range", "bytes 0-4999/9999");
            part.body(text(5000))
        }
        "/none" => answer(204),
        _ => answer(304).header("ETag", "\"a\""),
    });
    let gw = compressing("true", &origin);
    for (target, coding) in [
        ("/small", ""),
        ("/small-chunks", ""),
        ("/image", ""),
        ("/coded", "br"),
        ("/kept", ""),
        ("/part", ""),
        ("/none", ""),
        ("/same", ""),
    ] {
        let got = gw.get(target).header("Accept-Encoding", "gzip").send();
        assert_eq!(got.maybe("content-encoding"), coding, "{target}");
        assert!(matches!(got.status, 204 | 304) || got.body.len() >= 1000, "{target}");
    }
}

#[test]
fn long_answers_and_streams_go_on_as_they_come() {
    let origin = Origin::answering(|seen| {
        let found = answer(200).header("Content-Type", "text/html");
        match seen.target.as_str() {
            "/long" => found.body(text(3 << 20)),
            "/chunks" => found.body(text(1 << 20)).chunked(),
            _ => found.body(text(3000)).chunked().resting(1500, Duration::from_millis(200)),
        }
    });
    let gw = compressing("{ algorithms = [\"gzip\", \"br\"] }", &origin);
    for (target, length) in [("/long", 3 << 20), ("/chunks", 1 << 20), ("/slow", 3000)] {
        for accepts in ["gzip", "br", "x"] {
            let got = gw.get(target).header("Accept-Encoding", accepts).send().expect(200);
            assert_eq!(undone(&got), text(length), "{target} {accepts}");
            assert_eq!(got.maybe("content-encoding"), if accepts == "x" { "" } else { accepts });
        }
    }
}

#[test]
fn what_is_stored_is_compressed_for_each_who_gets_it() {
    let origin = Origin::answering(|_| {
        answer(200).header("Content-Type", "text/css").header("Cache-Control", "max-age=60").body(text(5000))
    });
    let gw = gateway().config("[defaults]\ncache = {}\ncompress = true").everything_to(&origin).start();
    for accepts in ["zstd", "gzip", "", "br", "gzip"] {
        let got = gw.get("/").header("Accept-Encoding", accepts).send().expect(200);
        assert_eq!((got.maybe("content-encoding"), undone(&got)), (accepts, text(5000)));
    }
    let part = gw.get("/").header("Accept-Encoding", "gzip").header("Range", "bytes=2-10").send().expect(206);
    assert_eq!(part.text(), text(5000)[2..=10]);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn a_client_that_leaves_ends_it() {
    let origin = Origin::answering(|_| {
        answer(200)
            .header("Content-Type", "text/html")
            .body(text(64 << 10))
            .chunked()
            .trickling(64, Duration::from_millis(20))
    });
    let gw = compressing("true", &origin);
    let mut connection = gw.connect();
    connection.send_raw("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n");
    origin.wait_for_requests(1);
    drop(connection);
    gw.logged("that the client left", |line| line["cause"] == "the client left");
}

#[test]
fn websockets_are_none_of_its_business() {
    let origin = Origin::answering(|_| crate::harness::Answer::websocket_echo());
    let gw = compressing("true", &origin);
    let mut connection = gw.connect();
    let upgrade = connection.get("/").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let upgrade = upgrade.header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==").header("Sec-WebSocket-Version", "13");
    upgrade.send().expect(101);
}

#[test]
fn what_was_decoded_to_be_read_is_compressed_anew() {
    let coded = zstd::encode_all(format!("{{\"a\": 1, \"text\": \"{}\"}}", text(5000)).as_bytes(), 1).unwrap();
    let origin = Origin::answering(move |_| {
        let found = answer(200).header("Content-Type", "application/json").header("Content-Encoding", "zstd");
        found.header("Vary", "Accept-Encoding").body(&coded)
    });
    let gw = gateway()
        .config("[defaults]\ncompress = true\nresponse = { body = { remove = [\"a\"] } }")
        .everything_to(&origin)
        .start();
    for accepts in ["gzip", "x"] {
        let got = gw.get("/").header("Accept-Encoding", accepts).send().expect(200);
        assert_eq!(
            (got.maybe("content-encoding"), got.header("vary")),
            (if accepts == "x" { "" } else { accepts }, "Accept-Encoding")
        );
        assert_eq!(undone(&got), format!("{{ \"text\": \"{}\"}}", text(5000)));
    }
}

#[test]
fn who_can_read_no_coding_gets_the_answer_as_it_is() {
    let origin = of_length(5000);
    let gw = compressing("true", &origin);
    let got = gw.get("/").send().expect(200);
    assert_eq!(
        (got.header("content-length"), got.header("vary"), got.header("etag")),
        ("5000", "Accept-Encoding", "\"a\"")
    );
}
