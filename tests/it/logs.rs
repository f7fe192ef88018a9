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
