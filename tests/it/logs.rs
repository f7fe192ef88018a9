//! One line per request, and the admin interface.

use crate::harness::{Origin, gateway};

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
