//! Bodies that are changed on their way.

use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzEncoder;

use crate::harness::{Answer, Gateway, H2Answer, H2Origin, Origin, Seen, answer, gateway, refused_address};

fn json(text: &str) -> Answer {
    answer(200).header("Content-Type", "application/json").body(text)
}

fn echo(seen: &Seen) -> Answer {
    answer(200).header("Content-Type", "text/plain").body(seen.text())
}

fn answering(body: &str, origin: &Origin) -> Gateway {
    gateway().config(&format!("[defaults]\nresponse = {{ body = {body} }}")).everything_to(origin).start()
}

fn asking(body: &str, origin: &Origin) -> Gateway {
    gateway().config(&format!("[defaults]\nrequest = {{ body = {body} }}")).everything_to(origin).start()
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    std::io::Read::read_to_end(&mut GzEncoder::new(text, Compression::fast()), &mut coded).unwrap();
    coded
}

#[test]
fn an_answer_is_edited_and_all_else_stays() {
    let origin = Origin::answering(|_| {
        let text =
            r#"{ "z": 1.0, "a": [], "secret": "x", "items": [{"id": 1e400, "cost": 2}, {"cost": 3}], "u": "\u00e4" }"#;
        json(text).header("ETag", "\"v1\"").header("Content-MD5", "x").header("Accept-Ranges", "bytes")
    });
    let gw = answering(
        r#"{ remove = ["secret", "items.*.cost"], rename = { z = "y" }, set = { "meta.by" = "gateway", "meta.n" = 1 } }"#,
        &origin,
    );
    let got = gw.get("/").header("Range", "bytes=0-5").header("Accept-Encoding", "gzip").send().expect(200);
    assert_eq!(
        got.text(),
        r#"{ "y": 1.0, "a": [], "items": [{"id": 1e400}, {}], "u": "\u00e4","meta":{"by":"gateway","n":1} }"#
    );
    assert_eq!((got.header("etag"), got.header("content-length")), ("W/\"v1\"", &*got.body.len().to_string()));
    assert_eq!((got.maybe("content-md5"), got.maybe("accept-ranges")), ("", ""));
    let seen = origin.only_request();
    assert!(!seen.headers.has("range"));
    assert_eq!(seen.header("accept-encoding"), "identity");
    assert_eq!(gw.h2c().get("/").send().expect(200).body, got.body);
    let head = gw.request("HEAD", "/").send().expect(200);
    assert_eq!((head.maybe("content-length"), head.header("etag")), ("", "W/\"v1\""));
}

#[test]
fn a_program_makes_the_rest() {
    let origin = Origin::answering(|_| json(r#"{"items": [{"price": 1.5}, {"price": 2}], "id": 7}"#));
    let gw = answering(r#"{ jq = "{ id, total: (.items | map(.price) | add) }" }"#, &origin);
    assert_eq!(gw.get("/").send().expect(200).text(), r#"{"id":7,"total":3.5}"#);
    let gw = answering(r#"{ jq = "def f: f; f" }"#, &origin);
    gw.get("/").send().expect(502).problem("answer-unusable");
    let line = gw.logged("why", |line| line["status"] == 502);
    assert_eq!(line["cause"], "`jq`: the program takes too many steps");
}

#[test]
fn xml_becomes_json_and_json_becomes_xml() {
    let origin = Origin::answering(|seen| match seen.method.as_str() {
        "GET" => answer(200).header("Content-Type", "text/xml; charset=utf-8").body("<o id='1'><line>a</line></o>"),
        _ => echo(seen).header("X-Type", seen.header("content-type")),
    });
    let gw = gateway()
        .config(
            "[defaults]\nrequest = { body = { to = \"xml\", xml = { root = \"order\" } } }\n\
             response = { body = { from = \"xml\", xml = { arrays = [\"o.line\"] }, otherwise = \"pass\" } }",
        )
        .everything_to(&origin)
        .start();
    let got = gw.get("/").send().expect(200);
    assert_eq!(got.header("content-type"), "application/json");
    assert_eq!(got.text(), r#"{"o":{"@id":"1","line":["a"]}}"#);
    let got = gw.post("/").header("Content-Type", "application/json").body(r#"{"n": 1.50, "t": "<&>"}"#).send();
    let got = got.expect(200);
    assert_eq!(got.header("x-type"), "application/xml");
    assert!(got.text().ends_with("<order><n>1.50</n><t>&lt;&amp;&gt;</t></order>"), "{}", got.text());
}

#[test]
fn forms_become_json() {
    let origin = Origin::answering(echo);
    let gw = gateway()
        .upstream("origin", &origin)
        .config(
            "[[route]]\nmatch = \"POST /{who}\"\nupstream = \"origin\"\n\
             request = { body = { from = \"form\", form = { arrays = [\"tag\"] }, set = { who = \"{path.who} \\\"x\" } } }",
        )
        .start();
    let got = gw.post("/a%20b").header("Content-Type", "application/x-www-form-urlencoded").body("tag=a&n=1").send();
    assert_eq!(got.expect(200).text(), r#"{"tag":["a"],"n":"1","who":"a b \"x"}"#);
    assert_eq!(origin.only_request().header("content-type"), "application/json");
}

#[test]
fn json_becomes_a_form_and_multipart_becomes_json() {
    let origin = Origin::answering(echo);
    let gw = gateway()
        .upstream("origin", &origin)
        .config(
            "[[route]]\nmatch = \"/form\"\nupstream = \"origin\"\nrequest = { body = { to = \"form\" } }\n\
             [[route]]\nmatch = \"/multipart\"\nupstream = \"origin\"\nrequest = { body = { from = \"multipart\" } }",
        )
        .start();
    let post = |target: &str, media: &str, body: &str| gw.post(target).header("Content-Type", media).body(body).send();
    assert_eq!(
        post("/form", "application/json", r#"{"a": ["1", 2.0], "b": "x y&"}"#).expect(200).text(),
        "a=1&a=2.0&b=x+y%26"
    );
    assert_eq!(origin.only_request().header("content-type"), "application/x-www-form-urlencoded");
    let whole = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n";
    let media = "multipart/form-data; boundary=x";
    assert_eq!(post("/multipart", media, whole).expect(200).text(), r#"{"a":"1"}"#);
    for cut in [whole.len() - 4, 20, 1] {
        post("/multipart", media, &whole[..cut]).expect(400).problem("bad-request");
    }
}

#[test]
fn hostile_xml_reaches_nobody() {
    let origin = Origin::answering(echo);
    let gw = asking(r#"{ from = "xml" }"#, &origin);
    let laughs = "<!DOCTYPE a [<!ENTITY b \"ha\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
    let external = "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>";
    let deep = format!("{}{}", "<a>".repeat(50_000), "</a>".repeat(50_000));
    for body in [laughs, external, &deep, "<a><b></a>", "<a/><b/>", "<a x='1' x='2'/>", "<a>\u{1}</a>", "<a"] {
        gw.post("/").header("Content-Type", "application/xml").body(body).send().expect(400).problem("bad-request");
    }
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn what_cannot_be_read_is_refused() {
    let origin = Origin::answering(echo);
    let gw = asking(r#"{ remove = ["a"] }"#, &origin);
    let post = |body: &[u8], media: &str| gw.post("/").header("Content-Type", media).body(body).send();
    post(b"{", "application/json").expect(400).problem("bad-request");
    post(b"{\"a\": \"\xff\"}", "application/json").expect(400).problem("bad-request");
    post("[".repeat(100_000).as_bytes(), "application/json").expect(400).problem("bad-request");
    post(b"<a/>", "application/xml").expect(415).problem("unsupported-media-type");
    // One who says how much it has is refused before it sends that, and before it is told to go on.
    let mut long = gw.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n";
    long.send_raw(format!("{head}Content-Length: {}\r\n\r\n", (1 << 20) + 1));
    let refused = long.response_to("POST").unwrap().expect(413).problem("body-too-large");
    assert!(refused.interim.is_empty());
    gw.post("/")
        .header("Content-Type", "application/json")
        .header("Content-Encoding", "gzip")
        .body(gzip(&vec![b' '; 9 << 20]))
        .send()
        .expect(413)
        .problem("body-too-large");
    let bomb = zstd::encode_all(&vec![b' '; 9 << 20][..], 1).unwrap();
    let zstd = gw.post("/").header("Content-Type", "application/json").header("Content-Encoding", "zstd").body(bomb);
    zstd.send().expect(413).problem("body-too-large");
    gw.post("/")
        .header("Content-Type", "application/json")
        .header("Content-Encoding", "gzip")
        .body("{}")
        .send()
        .expect(400);
    gw.post("/")
        .header("Content-Type", "application/json")
        .header("Content-Encoding", "lzma")
        .body("{}")
        .send()
        .expect(415);
    assert_eq!(origin.requests().len(), 0);
    let coded = gzip(br#"{"a": 1, "b": 2}"#);
    let got =
        gw.post("/").header("Content-Type", "application/json").header("Content-Encoding", "gzip").body(coded).send();
    assert_eq!(got.expect(200).text(), r#"{ "b": 2}"#);
    assert!(!origin.only_request().headers.has("content-encoding"));
    assert_eq!(
        gw.post("/").header("Content-Type", "application/json").chunked("{\"a\": 1}").send().expect(200).text(),
        "{}"
    );
    assert_eq!(gw.get("/").send().expect(200).text(), "");
    let continued = gw
        .post("/")
        .header("Content-Type", "application/json")
        .header("Expect", "100-continue")
        .body("{\"a\":1}")
        .send();
    assert_eq!((continued.interim.len(), continued.expect(200).text().as_str()), (1, "{}"));
    assert!(!origin.requests().last().unwrap().headers.has("expect"));
}

#[test]
fn an_answer_that_cannot_be_read_is_refused_or_passed_on() {
    let origin = Origin::answering(|seen| match seen.target.as_str() {
        "/html" => answer(200).header("Content-Type", "text/html").body("<p>"),
        "/broken" => json("{\"a\": 1"),
        "/large" => json(&format!("{{\"a\": \"{}\"}}", "x".repeat(3000))),
        "/error" => answer(404).header("Content-Type", "application/json").body(r#"{"a": 1}"#),
        "/empty" => json(""),
        "/bomb" => json("").header("Content-Encoding", "gzip").body(gzip(&vec![b' '; 9 << 20])),
        _ => answer(206).header("Content-Type", "application/json").header("Content-Range", "bytes 0-1/9").body("{}"),
    });
    let refusing = answering(r#"{ remove = ["a"], jq = ".", max = "2KiB" }"#, &origin);
    let passing = answering(r#"{ remove = ["a"], jq = ".", max = "2KiB", otherwise = "pass" }"#, &origin);
    for (target, status) in [("/html", 200), ("/broken", 200), ("/large", 200), ("/part", 206), ("/bomb", 200)] {
        refusing.get(target).send().expect(502).problem("answer-unusable");
        let passed = passing.get(target).send().expect(status);
        assert!(passed.body.len() >= 2, "{target}: {}", passed.text());
    }
    assert_eq!(passing.get("/large").send().text().len(), 3009);
    for gw in [&refusing, &passing] {
        assert_eq!(gw.get("/error").send().expect(404).text(), r#"{"a": 1}"#);
        assert_eq!(gw.get("/empty").send().expect(200).text(), "");
    }
    let also = answering(r#"{ remove = ["a"], status = ["2xx", "404"] }"#, &origin);
    assert_eq!(also.get("/error").send().expect(404).text(), "{}");
}

#[test]
fn coded_answers_are_decoded_first() {
    let text = r#"{"a": 1, "b": 2}"#;
    let origin = Origin::answering(move |seen| {
        let (name, body) = match seen.target.as_str() {
            "/gzip" => ("gzip", gzip(text.as_bytes())),
            "/br" => {
                let mut coded = Vec::new();
                std::io::Read::read_to_end(
                    &mut brotli::CompressorReader::new(text.as_bytes(), 4096, 4, 20),
                    &mut coded,
                )
                .unwrap();
                ("br", coded)
            }
            _ => ("zstd", zstd::encode_all(text.as_bytes(), 1).unwrap()),
        };
        json("").header("Content-Encoding", name).header("Vary", "Accept-Encoding, X-A").body(body)
    });
    let gw = answering(r#"{ remove = ["a"] }"#, &origin);
    for target in ["/gzip", "/br", "/zstd"] {
        let got = gw.get(target).header("Accept-Encoding", "gzip").send().expect(200);
        assert_eq!((got.maybe("content-encoding"), got.header("vary")), ("", "X-A"));
        assert_eq!(got.text(), r#"{ "b": 2}"#);
    }
}

#[test]
fn large_answers_go_on_as_they_come() {
    let items: String = (0..100_000).map(|i| format!("{{\"id\":{i},\"cost\":{i}}},")).collect();
    let text = format!("[{}0]", items);
    let expected = (0..100_000).map(|i| format!("{{\"id\":{i}}},")).collect::<String>();
    let sent = text.clone();
    let origin = Origin::answering(move |seen| match seen.target.as_str() {
        "/coded" => json("").header("Content-Encoding", "gzip").body(gzip(sent.as_bytes())),
        "/cut" => json(&sent[..sent.len() - 1]),
        _ => json(&sent),
    });
    let gw = answering(r#"{ remove = ["*.cost"] }"#, &origin);
    for target in ["/", "/coded"] {
        let got = gw.get(target).send().expect(200);
        assert_eq!(got.header("transfer-encoding"), "chunked");
        assert_eq!(got.text(), format!("[{expected}0]"));
    }
    assert_eq!(gw.h2c().get("/").send().expect(200).text(), format!("[{expected}0]"));
    assert!(gw.get("/cut").try_send().is_err());
    gw.logged("why", |line| {
        line["cause"].as_str().is_some_and(|cause| cause.starts_with("the upstream's answer cannot be read"))
    });
}

#[test]
fn what_is_changed_is_what_is_stored() {
    let origin = Origin::answering(|seen| match seen.headers.first("if-none-match").unwrap_or("") {
        "" => json(r#"{"a": 1, "b": 2}"#).header("ETag", "\"1\"").header("Cache-Control", "max-age=0"),
        _ => answer(304).header("ETag", "\"1\"").header("Cache-Control", "max-age=60"),
    });
    let gw = gateway()
        .config("[defaults]\ncache = {}\nresponse = { body = { remove = [\"a\"] } }")
        .everything_to(&origin)
        .start();
    for _ in 0..3 {
        let got = gw.get("/").send().expect(200);
        assert_eq!((got.text().as_str(), got.header("etag")), (r#"{ "b": 2}"#, "W/\"1\""));
    }
    assert_eq!(origin.requests().len(), 2);
    gw.get("/").header("If-None-Match", "W/\"1\"").send().expect(304);
}

#[test]
fn servers_that_are_reached_the_long_way_are_shaped_as_well() {
    let origin =
        H2Origin::plain(|_| H2Answer::new(200).header("content-type", "application/json").body(r#"{"a": 1, "b": 2}"#));
    let gw = gateway()
        .config("[defaults]\nrequest = { body = { remove = [\"x\"] } }\nresponse = { body = { remove = [\"a\"] } }")
        .config("[upstream.o]\nservers = [\"@o\"]\nprotocol = \"h2c\"\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .set("o", origin.address())
        .start();
    let got = gw.post("/").header("Content-Type", "application/json").body(r#"{"x": 1, "y": 2}"#).send().expect(200);
    assert_eq!(got.text(), r#"{ "b": 2}"#);
    let seen = origin.only_request();
    assert_eq!((seen.text().as_str(), seen.header("content-length")), (r#"{ "y": 2}"#, "9"));
    let line = gw.logged("the upstream", |line| line["status"] == 200);
    assert_eq!((line["upstream"].as_str(), line["attempts"].as_u64()), (Some("o"), Some(1)));
}

#[test]
fn protocols_are_not_switched_around_a_policy() {
    let origin = Origin::answering(|_| Answer::websocket_echo());
    let gw = asking(r#"{ remove = ["a"] }"#, &origin);
    let upgrade = gw.get("/").header("Connection", "Upgrade").header("Upgrade", "websocket");
    upgrade
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("Sec-WebSocket-Version", "13")
        .send()
        .expect(501);
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn a_body_that_never_comes_is_a_timeout() {
    let origin = Origin::answering(echo);
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntimeouts = { body = \"200ms\" }\n[defaults]\nrequest = { body = { remove = [\"a\"] } }")
        .everything_to(&origin)
        .start();
    let mut connection = gw.connect();
    connection.send_raw("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{");
    assert_eq!(connection.response_to("POST").unwrap().status, 408);
    assert_eq!(origin.connections(), 0);
}

#[test]
fn mistakes_are_told() {
    let wrong = |key: &str, body: &str| {
        let route = format!("[[route]]\nmatch = \"/**\"\nupstream = \"o\"\ncache = {{}}\n{key} = {{ body = {body} }}");
        gateway().config("[upstream]\no = [\"127.0.0.1:1\"]").config(&route).refused()
    };
    for (key, body, told) in [
        ("response", "{}", "this changes nothing"),
        ("response", "{ remove = [\"\"] }", "remove"),
        ("response", "{ remove = [\"a\"], xml = {} }", "neither `from` nor `to` is \"xml\""),
        ("response", "{ jq = \".a |\" }", "jq"),
        ("response", "{ jq = \"input\" }", "jq"),
        ("response", "{ to = \"multipart\" }", "can be read only"),
        ("response", "{ to = \"yaml\" }", "yaml"),
        ("response", "{ remove = [\"a\"], status = [\"9xx\"] }", "`9xx` is not a status"),
        ("response", "{ set = { a = \"{client.ip}\" } }", "cannot have variables"),
        ("request", "{ remove = [\"a\"], max = \"1KiB\" }", "has its own key"),
        ("request", "{ set = { a = \"{clint.ip}\" } }", "did you mean `{client.ip}`?"),
    ] {
        let said = wrong(key, body);
        assert!(said.contains(told), "{body}\n{said}");
    }
}

#[test]
fn what_has_not_changed_has_no_body() {
    let raw = b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\nContent-Length: 16\r\n\r\n";
    let origin = Origin::answering(move |_| Answer::raw(raw));
    let gw = answering(r#"{ remove = ["a"] }"#, &origin);
    let got = gw.get("/").header("If-None-Match", "\"1\"").send().expect(304);
    assert_eq!((got.header("etag"), got.maybe("content-length")), ("W/\"1\"", ""));
}

#[test]
fn a_body_that_is_held_is_sent_to_another_server_when_one_fails() {
    let origin = Origin::answering(echo);
    let gw = gateway()
        .config("[upstream.o]\nservers = [\"@o\", \"@dead\"]\nretry = { attempts = 1, on = [\"connect\"], budget = \"100%\" }\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"\nrequest = { body = { remove = [\"x\"] } }")
        .origin("o", &origin)
        .set("dead", refused_address())
        .start();
    for length in [10, 100_000] {
        let text = format!("{{\"x\": 1, \"y\": \"{}\"}}", "a".repeat(length));
        for _ in 0..4 {
            let got = gw.post("/").header("Content-Type", "application/json").body(&text).send().expect(200);
            assert_eq!(got.text(), text.replace("\"x\": 1,", ""));
        }
    }
}

#[test]
fn what_several_fields_say_of_a_body_is_not_picked_from() {
    let origin = Origin::answering(echo);
    let gw = asking(r#"{ remove = ["x"] }"#, &origin);
    let post = || gw.post("/").header("Content-Type", "application/json");
    post().header("Content-Type", "text/xml").body("{}").send().expect(400).problem("bad-request");
    let coded = gzip(br#"{"x": 1, "y": 2}"#);
    let both = post().header("Content-Encoding", "identity").header("Content-Encoding", "gzip").body(&coded);
    assert_eq!(both.send().expect(200).text(), r#"{ "y": 2}"#);
    post().header("Content-Encoding", "gzip").header("Content-Encoding", "gzip").body(&coded).send().expect(415);
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn who_was_refused_for_a_body_may_go_on() {
    let origin = Origin::answering(echo);
    let gw = asking(r#"{ remove = ["x"] }"#, &origin);
    let mut connection = gw.connect();
    connection.post("/").header("Content-Type", "application/json").body("{").send().expect(400);
    connection.post("/").header("Content-Type", "text/plain").body("{}").send().expect(415);
    connection.post("/").header("Content-Type", "application/json").body("{}").send().expect(200);
}

#[test]
fn what_may_pass_passes_in_whatever_coding_it_has() {
    let coded = gzip(format!("{{\"a\": \"{}\"}}", "x".repeat(3 << 20)).as_bytes());
    let long = gzip(&(0..400_000u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<_>>());
    assert!(long.len() > 1 << 20);
    let script = {
        let (coded, long) = (coded.clone(), long.clone());
        move |seen: &Seen| {
            let found =
                |coding| answer(200).header("Content-Type", "application/json").header("Content-Encoding", coding);
            match seen.target.as_str() {
                "/long" => found("gzip").body(&long),
                "/bomb" => found("gzip").body(&coded),
                "/broken" => found("gzip").body("this is no gzip, whatever it says it is: ".repeat(100)),
                "/unknown" => found("deflate").body("who knows what this may be? ".repeat(100)),
                _ => echo(seen),
            }
        }
    };
    let origin = Origin::answering(script);
    let gw = gateway()
        .config("[defaults]\ncompress = true\nresponse = { body = { jq = \".\", otherwise = \"pass\" } }\nrequest = { body = { remove = [\"x\"], otherwise = \"pass\" } }")
        .everything_to(&origin)
        .start();
    for (target, coding, body) in [
        ("/long", "gzip", long),
        ("/bomb", "gzip", coded),
        ("/broken", "gzip", "this is no gzip, whatever it says it is: ".repeat(100).into()),
        ("/unknown", "deflate", "who knows what this may be? ".repeat(100).into()),
    ] {
        let got = gw.get(target).header("Accept-Encoding", "zstd, gzip").send().expect(200);
        assert_eq!((got.header("content-encoding"), got.body == body), (coding, true), "{target}");
        assert_eq!(got.header("vary"), "Accept-Encoding", "{target}");
    }
    let post = gw.post("/echo").header("Content-Type", "application/json").header("Content-Encoding", "deflate");
    assert_eq!(post.body("who knows?").send().expect(200).text(), "who knows?");
}

#[test]
fn a_body_may_grow_on_its_way() {
    let origin = H2Origin::plain(|_| H2Answer::new(200).body("taken"));
    let gw = gateway()
        .config("[defaults]\nvalidate = { max_body = \"10KiB\" }\nrequest = { body = { to = \"xml\", xml = { root = \"many-items-of-one-kind\" } } }")
        .config("[upstream.o]\nservers = [\"@o\"]\nprotocol = \"h2c\"\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .set("o", origin.address())
        .start();
    let text = format!("{{\"many-items-of-one-kind\": {{\"a-long-name\": [{}1]}}}}", "1,".repeat(4000));
    gw.post("/").header("Content-Type", "application/json").body(&text).send().expect(200).says("taken");
    assert!(origin.only_request().text().len() > 100_000);
    gw.post("/").header("Content-Type", "application/json").body(text + &" ".repeat(5000)).send().expect(413);
}

#[test]
fn a_body_that_is_held_has_to_come_along() {
    let origin = Origin::answering(echo);
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntimeouts = { body = \"1s\" }\n[defaults]\nrequest = { body = { remove = [\"a\"] } }")
        .everything_to(&origin)
        .start();
    let mut connection = std::net::TcpStream::connect(gw.address().tcp()).unwrap();
    connection
        .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
        .unwrap();
    connection.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    // It is never silent for long, and would take minutes.
    let mut answer = Vec::new();
    while connection.read_to_end(&mut answer).is_err() && answer.is_empty() {
        let _ = connection.write_all(b" ");
    }
    assert!(answer.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(origin.connections(), 0);
}

/// What bodies become is counted, and not only what came.
#[test]
fn a_few_bytes_do_not_become_gigabytes() {
    let origin = Origin::answering(|_| Answer::never());
    let gw = gateway()
        .config("[defaults]\nvalidate = { max_body = \"16MiB\" }\nrequest = { body = { remove = [\"x\"] } }")
        .everything_to(&origin)
        .start();
    let coded = gzip(format!("\"{}\"", "a".repeat(15 << 20)).as_bytes());
    let mut held: Vec<_> = (0..48).map(|_| gw.connect()).collect();
    for connection in &mut held {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Encoding: gzip";
        connection.send_raw(format!("{head}\r\nContent-Length: {}\r\n\r\n", coded.len()));
        connection.send_raw(&coded);
    }
    gw.logged("that there is no more room", |line| line["status"] == 503 && line["stopped_by"] == "busy");
    assert!(gw.memory() < 1 << 30, "{}", gw.memory());
    drop(held);
}
