//! One line per request, and the admin interface.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Gateway, Origin, eventually, gateway};

#[test]
fn every_request_has_a_line_also_a_refused_one() {
    let origin = Origin::saying("hello");
    let gw = gateway().everything_to(&origin).start();
    gw.get("/a?secret=1").header("User-Agent", "x\"y").send().expect(200);
    let line = gw.logged("the request", |line| line["path"] == "/a");
    assert_eq!((&line["method"], &line["status"], &line["route"]), (&"GET".into(), &200.into(), &"/**".into()));
    assert_eq!((&line["upstream"], &line["bytes_out"]), (&"origin".into(), &5.into()));
    assert_eq!((&line["user_agent"], &line["client"]), (&"x\"y".into(), &"127.0.0.1".into()));
    assert!(line["duration_ms"].as_f64().is_some() && line["request_id"].is_string());
    assert!(!line.to_string().contains("secret"));
    gw.raw("GET /bad HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n");
    let line = gw.logged("the refused request", |line| line["refused"].is_string());
    assert_eq!((&line["status"], &line["path"]), (&400.into(), &"/bad".into()));
}

#[test]
fn the_log_can_be_a_file() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[log]\naccess = { to = { file = \"access.log\" }, format = \"logfmt\" }")
        .everything_to(&origin)
        .start();
    gw.get("/a").send().expect(200);
    let path = gw.dir().join("access.log");
    crate::harness::eventually("the line is in the file", || {
        std::fs::read_to_string(&path).ok().filter(|text| text.contains("path=/a") && text.contains("status=200"))
    });
}

const TO_A_FILE: &str = "[log]\naccess = { to = { file = \"access.log\" }, fields = [\"path\"] }\n\
    [[route]]\nmatch = \"/**\"\nrespond = {}";

/// How often each path is in the files of the access log, the renamed ones included.
fn lines_in_files(gw: &Gateway) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(gw.dir()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() && path.file_name().unwrap().to_str().unwrap().starts_with("access.log") {
            // The last line may just be being written.
            let text = fs::read_to_string(&path).unwrap();
            for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
                let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
                *found.entry(line["path"].as_str().unwrap().to_owned()).or_default() += 1;
            }
        }
    }
    found
}

#[test]
fn renamed_under_traffic_the_log_has_every_line_once() {
    let gw = gateway().config(TO_A_FILE).start();
    let (log, stop) = (gw.dir().join("access.log"), AtomicBool::new(false));
    let sent = std::thread::scope(|scope| {
        let client = |name: &'static str| {
            let (gw, stop) = (&gw, &stop);
            scope.spawn(move || {
                let mut client = gw.connect();
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    client.get(&format!("/{name}/{count}")).send().expect(200);
                    count += 1;
                }
                count
            })
        };
        let clients = ["a", "b"].map(client);
        for turn in 0..5 {
            if turn == 3 {
                // Another configuration, with a log of its own to the same file.
                gw.rewrite(&TO_A_FILE.replace("[\"path\"]", "[\"path\", \"status\"]"));
                gw.reload().expect(200);
            }
            fs::rename(&log, gw.dir().join(format!("access.log.{turn}"))).unwrap();
            gw.reopen_logs();
            eventually("lines in the new file", || fs::metadata(&log).ok().filter(|file| file.len() > 0));
        }
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap())
    });
    let total: usize = sent.iter().sum();
    let lines = eventually("every line", || Some(lines_in_files(&gw)).filter(|lines| lines.len() == total));
    assert!(lines.values().all(|count| *count == 1), "{lines:?}");
    assert!(gw.errors().iter().any(|line| line.contains("access.log was opened again")), "{:?}", gw.errors());
}

#[test]
fn a_log_that_cannot_be_opened_again_goes_on_as_it_is() {
    let gw = gateway().config(TO_A_FILE).start();
    let (log, moved) = (gw.dir().join("access.log"), gw.dir().join("access.log.0"));
    fs::rename(&log, &moved).unwrap();
    fs::create_dir(&log).unwrap();
    gw.reopen_logs();
    let said = eventually("why", || gw.errors().into_iter().find(|line| line.contains("cannot be opened again")));
    assert!(said.contains("access.log") && said.contains("Is a directory"), "{said}");
    gw.get("/after").send().expect(200);
    eventually("the line is in the old file", || lines_in_files(&gw).get("/after").copied());
    fs::remove_dir(&log).unwrap();
    gw.reopen_logs();
    eventually("the file is there", || log.is_file().then_some(()));
    gw.get("/again").send().expect(200);
    eventually("the line is in the new file", || fs::read_to_string(&log).ok().filter(|text| text.contains("/again")));
}

#[test]
fn health_and_readiness() {
    let origin = Origin::saying("ok");
    let gw = gateway().everything_to(&origin).start();
    gw.admin("/health").expect(200);
    gw.admin("/ready").expect(200);
    gw.admin("/other").expect(404);
}

#[test]
fn a_signal_lets_requests_under_way_end() {
    let origin =
        Origin::answering(|_| crate::harness::answer(200).body("late").after(std::time::Duration::from_millis(500)));
    let mut gw = gateway().everything_to(&origin).start();
    let mut client = gw.connect();
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    crate::harness::eventually("the origin has the request", || (!origin.requests().is_empty()).then_some(()));
    gw.terminate();
    let response = client.response_to("GET").unwrap().expect(200).says("late");
    assert_eq!(response.headers.first("connection"), Some("close"));
    assert!(gw.ended());
}

#[test]
fn the_operator_chooses_what_a_line_says() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[log]\naccess = { fields = [\"path\", \"header.x-tenant\", \"status\", \"cause\"] }")
        .everything_to(&origin)
        .start();
    gw.get("/a").header("X-Tenant", "t\"1").send().expect(200);
    let line = gw.logged("the request", |line| line["path"] == "/a");
    assert_eq!(line.to_string(), r#"{"path":"/a","header.x-tenant":"t\"1","status":200}"#);

    let gw = gateway()
        .config("[log]\naccess = { format = { pattern = '{client} \"{method} {path}\" {status} {user_agent} {header.referer}' } }")
        .everything_to(&origin)
        .start();
    gw.get("/a").header("User-Agent", "x\"y").send().expect(200);
    gw.logged("the request", |line| *line == r#"127.0.0.1 "GET /a" 200 x\"y -"#);
}

#[test]
fn the_operators_log_has_a_level() {
    let origin = Origin::saying("ok");
    for (level, said) in [("warn", false), ("info", true)] {
        let mut gw = gateway().config(&format!("[log]\nlevel = \"{level}\"")).everything_to(&origin).start();
        gw.terminate();
        assert!(gw.ended());
        assert_eq!(gw.errors().iter().any(|line| line.contains("info: stopping")), said, "{level}");
    }
}

/// What would begin another line, another field, or a terminal's command.
const FORGERIES: &[&[u8]] = &[
    b"a\n{\"forged\":1}",
    b"a\r\n{\"forged\":1}\r\n",
    b"a\nforged=1",
    b"a\",\"forged\":\"1",
    b"a\" forged=\"1",
    b"a\\\" forged=1 \\",
    b"a\\",
    b"a forged=1",
    b"a=b forged=",
    b"a%0Aforged=1%0D%22 forged=%22",
    b"a\x00forged=1",
    b"a\x1b[2J\x1b]0;forged\x07",
    b"a\x7f\x08\x08\tforged=1",
    b"a\x85forged=1",
    b"a\xff\xfe forged=1",
    b"a\xe2\x80",
    "a\u{85}forged=1".as_bytes(),
    "a\u{9b}2Jforged".as_bytes(),
    "a\u{2028}forged=1\u{2029}forged=1".as_bytes(),
    "a\u{202e}degrof\u{2066}".as_bytes(),
    "ä\u{20ac}\u{1f600}".as_bytes(),
];

/// Asks with every forgery as a part of the path, as header fields and as the caller's name; gives how many requests that
/// were. The number of a request is in its path.
fn forge(gw: &Gateway) -> usize {
    let token = |name: &str| {
        let claims = serde_json::json!({ "aud": "here", "sub": name, "exp": 9_999_999_999_u64 });
        crate::auth::hs256(HS.as_bytes(), &serde_json::json!({ "alg": "HS256" }), &claims)
    };
    let ask = |path: &str, agent: &[u8], tenant: &[u8], token: &str| {
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n");
        gw.raw([head.as_bytes(), b"User-Agent: ", agent, b"\r\nX-Tenant: ", tenant, b"\r\n\r\n"].concat());
    };
    for (i, text) in FORGERIES.iter().enumerate() {
        let encoded: String = text.iter().map(|byte| format!("%{byte:02X}")).collect();
        let name = String::from_utf8_lossy(text);
        ask(&format!("/path/{i}/{encoded}?{encoded}"), b"x", b"x", &token("x"));
        ask(&format!("/agent/{i}"), text, b"x", &token("x"));
        ask(&format!("/tenant/{i}"), b"x", text, &token("x"));
        ask(&format!("/caller/{i}"), b"x", b"x", &token(&name));
    }
    4 * FORGERIES.len()
}

const HS: &str = "0123456789abcdef0123456789abcdef";

fn forgeable(format: &str) -> Gateway {
    gateway()
        .config(&format!(
            "[log]\naccess = {{ to = {{ file = \"access.log\" }}, format = \"{format}\", fields = {FIELDS} }}"
        ))
        .config("[auth.hs]\njwt = { secret = { env = \"HS\" }, audience = \"here\" }")
        .config("[[route]]\nmatch = \"/**\"\nauth = \"hs\"\nrespond = {}")
        .env("HS", HS)
        .start()
}

const FIELDS: &str =
    "[\"consumer\", \"method\", \"path\", \"status\", \"user_agent\", \"header.x-tenant\", \"refused\", \"cause\"]";

/// The lines of the access log once there are so many and another: there are no more.
#[track_caller]
fn lines_of(gw: &Gateway, count: usize) -> Vec<String> {
    let read = || fs::read(gw.dir().join("access.log")).unwrap();
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    eventually("every line", || (lines(&read()) >= count).then_some(()));
    gw.get("/last").send().expect(401);
    eventually("the last line", || String::from_utf8_lossy(&read()).contains("/last").then_some(()));
    let text = String::from_utf8(read()).expect("the log is UTF-8");
    let obeyed = |c: char| c != '\n' && (c.is_control() || ('\u{2028}'..='\u{202e}').contains(&c) || c == '\u{2066}');
    assert!(!text.contains(obeyed), "{text:?}");
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    assert!(lines.len() == count + 1 && lines[count].contains("/last"), "{count} {text}");
    lines
}

/// The keys of a line of logfmt, and their values without quotes.
fn logfmt(line: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let (value, after) = match after.strip_prefix('"') {
            None => after.split_once(' ').unwrap_or((after, "")),
            Some(quoted) => {
                let mut escaped = false;
                let end = quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                let end = end.unwrap_or_else(|| panic!("{line}"));
                (&quoted[..end], quoted[end + 1..].strip_prefix(' ').unwrap_or(&quoted[end + 1..]))
            }
        };
        let value = serde_json::from_str(&format!("\"{value}\"")).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(found.insert(key.to_owned(), value).is_none(), "{key} twice: {line}");
        rest = after;
    }
    found
}

#[test]
fn no_request_forges_a_line_or_a_field() {
    let allowed: Vec<String> = serde_json::from_str(FIELDS).unwrap();
    let fine = |line: &str, keys: Vec<&String>| assert!(keys.iter().all(|key| allowed.contains(key)), "{line}");
    let gw = forgeable("json");
    let sent = forge(&gw);
    let mut told = 0;
    for line in lines_of(&gw, sent) {
        let object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        fine(&line, object.keys().collect());
        // What was taken is told as it was.
        let path = object.get("path").and_then(|path| path.as_str()).unwrap_or("");
        let mut parts = path.split('/').skip(1);
        let field = match parts.next() {
            Some("agent") => "user_agent",
            Some("tenant") => "header.x-tenant",
            Some("caller") => "consumer",
            _ => continue,
        };
        let text = FORGERIES[parts.next().unwrap().parse::<usize>().unwrap()];
        if let (Ok(text), Some(200)) = (std::str::from_utf8(text), object["status"].as_u64()) {
            assert_eq!(object[field], text, "{line}");
            told += 1;
        }
    }
    assert!(told > FORGERIES.len(), "{told}");
    let metrics = gw.admin("/metrics").text();
    assert!(!metrics.contains("forged"), "{metrics}");
    crate::observability::check(&metrics);

    let gw = forgeable("logfmt");
    let sent = forge(&gw);
    for line in lines_of(&gw, sent) {
        fine(&line, logfmt(&line).keys().collect());
    }
}

#[test]
fn what_the_gateway_says_itself_is_counted_once() {
    let gw = gateway().config("[[route]]\nmatch = \"/\"\nrespond = { body = \"hello\" }").start();
    for (target, status) in [("/", 200), ("/nowhere", 404)] {
        for length in [gw.get(target).send().body.len(), gw.h2c().get(target).send().body.len()] {
            let is = |line: &serde_json::Value| line["status"] == status && line["bytes_out"] == length;
            gw.logged("the length", is);
        }
    }
}
