//! Servers that fail: ejected one by one, or the whole upstream given time by its breaker.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Answer, Authority, Builder, ClosedPort, Gateway, Origin, Seen, answer, eventually, gateway};

const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nupstream = \"o\"";

/// An origin that answers 500 until it is told to be well.
fn ill() -> (Origin, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(false));
    let told = well.clone();
    let origin = Origin::answering(move |_| answer(if told.load(Ordering::Relaxed) { 200 } else { 500 }));
    (origin, well)
}

fn pool(origins: &[&str], keys: &str) -> Builder {
    let servers: Vec<String> = origins.iter().map(|address| format!("\"{address}\"")).collect();
    gateway().config(&format!("[upstream.o]\nservers = [{}]\n{keys}", servers.join(", "))).config(ROUTE)
}

fn shown(gw: &Gateway) -> serde_json::Value {
    gw.admin("/upstreams/o").expect(200).json()
}

fn metric(gw: &Gateway, line: &str) -> bool {
    gw.admin("/metrics").text().lines().any(|other| other == format!("portcullis_{line}"))
}

#[test]
fn a_server_that_fails_is_ejected_and_seen_to_be() {
    let ((bad, _), good) = (ill(), Origin::saying("ok"));
    let outlier = "outlier = { consecutive = 2, eject_for = \"1h\" }";
    let gw = pool(&[&bad.address(), &good.address()], outlier).start();
    let mut client = gw.connect();
    let failed = (0..20).filter(|_| client.get("/").send().status == 500).count();
    assert_eq!((failed, bad.requests().len()), (2, 2));
    gw.says(&format!("warn: the server {} of the upstream o failed and is ejected for 1h", bad.address()));
    assert_eq!(shown(&gw)["servers"][0]["ejected"], true);
    assert_eq!(shown(&gw)["servers"][1]["ejected"], false);
    assert!(shown(&gw).get("breaker").is_none());
    let labels = format!("upstream=\"o\",server=\"{}\"", bad.address());
    assert!(metric(&gw, &format!("upstream_server_ejected{{{labels}}} 1")));
    assert!(metric(&gw, &format!("upstream_ejections_total{{{labels}}} 1")));
}

#[test]
fn an_ejected_server_comes_back() {
    let ((bad, well), good) = (ill(), Origin::saying("ok"));
    let outlier = "outlier = { consecutive = 1, eject_for = \"100ms\" }";
    let gw = pool(&[&bad.address(), &good.address()], outlier).start();
    let mut client = gw.connect();
    eventually("a failure", || (client.get("/").send().status == 500).then_some(()));
    well.store(true, Ordering::Relaxed);
    gw.says(&format!("the server {} of the upstream o failed and is ejected", bad.address()));
    let before = bad.requests().len();
    eventually("requests for the server", || {
        client.get("/").send().expect(200);
        (bad.requests().len() > before).then_some(())
    });
    gw.says("is no longer ejected");
    assert_eq!(shown(&gw)["servers"][0]["ejected"], false);
}

#[test]
fn connections_that_fail_count_and_the_only_server_stays() {
    let (closed, good) = (ClosedPort::new(), Origin::saying("ok"));
    let outlier = "outlier = { consecutive = 3, eject_for = \"1h\" }";
    let gw = pool(&[&closed.address(), &good.address()], outlier).start();
    let mut client = gw.connect();
    // Retries hide the failures.
    (0..20).for_each(|_| drop(client.get("/").send().expect(200)));
    let labels = format!("upstream=\"o\",server=\"{}\"", closed.address());
    assert!(metric(&gw, &format!("upstream_failures_total{{{labels},reason=\"connect\"}} 3")));

    let (bad, _) = ill();
    let gw = pool(&[&bad.address()], "outlier = { consecutive = 1, max_ejected = 0.9 }").start();
    let mut client = gw.connect();
    (0..5).for_each(|_| drop(client.get("/").send().expect(500)));
    assert_eq!(bad.requests().len(), 5);
}

#[test]
fn where_no_other_server_is_usable_the_ejected_are_asked() {
    let ((bad, _), good) = (ill(), Origin::saying("ok"));
    let outlier = "outlier = { consecutive = 1, eject_for = \"1h\" }";
    let gw = pool(&[&bad.address(), &good.address()], outlier).start();
    let mut client = gw.connect();
    (0..4).for_each(|_| drop(client.get("/").send()));
    assert_eq!(shown(&gw)["servers"][0]["ejected"], true);
    let drain = format!("/upstreams/o/servers/{}/drain", good.address());
    let admin = gw.listener("admin");
    let mut asked = crate::harness::Connection::open(admin);
    asked.request("PUT", &drain).host("localhost").send().expect(204);
    client.get("/").send().expect(500);
}

#[test]
fn a_breaker_opens_and_lets_probes_through() {
    let (origin, well) = ill();
    let breaker = "breaker = { min_requests = 4, open_for = \"1s\", probes = 2 }";
    let gw = pool(&[&origin.address()], breaker).start();
    assert_eq!(shown(&gw)["breaker"], "closed");
    let mut client = gw.connect();
    (0..4).for_each(|_| drop(client.get("/").send().expect(500)));
    let refused = client.get("/").send().expect(503).problem("breaker-open");
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(origin.requests().len(), 4);
    gw.says("warn: the breaker of the upstream o is open");
    let line = gw.logged("what the breaker answers", |line| line["stopped_by"] == "breaker-open");
    assert_eq!((&line["status"], &line["upstream"]), (&503.into(), &"o".into()));
    assert!(metric(&gw, "upstream_breaker_opened_total{upstream=\"o\"} 1"));

    // The first probe fails, and it is open again.
    eventually("a probe", || (client.get("/").send().status == 500).then_some(()));
    client.get("/").send().expect(503).problem("breaker-open");
    well.store(true, Ordering::Relaxed);
    eventually("an answer", || (client.get("/").send().status == 200).then_some(()));
    client.get("/").send().expect(200);
    gw.says("the breaker of the upstream o is closed");
    assert_eq!(shown(&gw)["breaker"], "closed");
    assert!(metric(&gw, "upstream_breaker_state{upstream=\"o\"} 0"));
}

#[test]
fn a_breaker_is_open_for_servers_with_tls_too() {
    let authority = Authority::new("test");
    let origin = Origin::over_tls(authority.server(&["origin.test"], &["http/1.1"], false), |_| answer(502));
    let keys = "tls = { ca = \"ca.pem\", sni = \"origin.test\" }\n\
                breaker = { min_requests = 2, open_for = \"1h\" }\nretry = { on = [\"5xx\"] }";
    let gw = pool(&[&origin.address()], keys).file("ca.pem", authority.pem()).start();
    // The retry is the second.
    gw.get("/").send().expect(502);
    let refused = gw.get("/").send().expect(503).problem("breaker-open");
    assert_eq!(refused.header("retry-after"), "3600");
    assert_eq!(shown(&gw)["breaker"], "open");
    assert!(metric(&gw, "upstream_breaker_state{upstream=\"o\"} 2"));
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_probe_whose_client_leaves_does_not_keep_the_breaker_half_open() {
    let silent = Arc::new(AtomicBool::new(false));
    let told = silent.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/silent" => Answer::never(),
        _ => answer(if told.load(Ordering::Relaxed) { 200 } else { 500 }),
    });
    let gw = pool(&[&origin.address()], "breaker = { min_requests = 1, open_for = \"50ms\", probes = 1 }").start();
    gw.get("/").send().expect(500);
    silent.store(true, Ordering::Relaxed);
    eventually("the breaker is half open", || (shown(&gw)["breaker"] == "half_open").then_some(()));
    let mut probe = gw.connect();
    probe.send_raw("GET /silent HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    origin.wait_for_requests(2);
    gw.get("/").send().expect(503).problem("breaker-open");
    drop(probe);
    eventually("another probe", || (gw.get("/").send().status == 200).then_some(()));
}

/// Servers that are asked socket to socket, and by Pingora: `/short/…` and `/long/…` with the same script, whose routes
/// say the same.
fn both_ways(script: fn(&Seen) -> Answer, upstream: &str, route: &str, more: &str) -> (Gateway, [Origin; 2]) {
    let authority = Authority::new("test");
    let tls = authority.server(&["origin.test"], &["http/1.1"], false);
    let origins = [Origin::answering(script), Origin::over_tls(tls, script)];
    let mut builder = gateway().origin("short", &origins[0]).origin("long", &origins[1]);
    for (way, tls) in [("short", ""), ("long", "tls = { ca = \"ca.pem\", sni = \"origin.test\" }")] {
        builder = builder
            .config(&format!("[upstream.{way}]\nservers = [\"@{way}\"]\n{tls}\n{upstream}"))
            .config(&format!("[[route]]\nmatch = \"/{way}/route\"\nupstream = \"{way}\"\n{route}"))
            .config(&format!("[[route]]\nmatch = \"/{way}/other\"\nupstream = \"{way}\""));
    }
    (builder.config(more).file("ca.pem", authority.pem()).start(), origins)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_route_says_how_long_its_requests_may_take() {
    let (gw, _origins) = both_ways(|_| answer(200).after(Duration::from_millis(700)), "", "timeout = \"200ms\"", "");
    for way in ["/short", "/long"] {
        gw.get(&format!("{way}/route")).send().expect(504).problem("upstream-timeout");
        gw.h2c().get(&format!("{way}/route")).send().expect(504).problem("upstream-timeout");
        gw.get(&format!("{way}/other")).send().expect(200);
    }
}

#[test]
fn a_routes_times_are_merged_key_by_key() {
    // The route's first byte over the upstream's, the idle time of the defaults, and the upstream's total.
    let script = |request: &Seen| match request.header("x-case") {
        "thinks" => answer(200).after(Duration::from_millis(700)).body("thought"),
        "rests" => answer(200).body("0123456789").resting(5, LONG),
        _ => Answer::never(),
    };
    let upstream = "timeouts = { first_byte = \"100ms\", idle = \"20s\", total = \"2s\" }";
    let route = "timeout = { first_byte = \"20s\" }";
    let (gw, _origins) = both_ways(script, upstream, route, "[defaults]\ntimeout = { idle = \"200ms\" }");
    for way in ["/short", "/long"] {
        let ask = |route: &str, case: &str| gw.get(&format!("{way}/{route}")).header("X-Case", case).try_send();
        ask("route", "thinks").unwrap().expect(200).says("thought");
        ask("other", "thinks").unwrap().expect(504);
        ask("route", "rests").expect_err("the answer is cut");
        ask("route", "never").unwrap().expect(504);
    }
}

#[test]
fn a_route_says_how_long_connecting_may_take() {
    // Connections that nobody accepts: once the queue is full the kernel answers no more.
    let full = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let address = full.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(socket) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        held.push(socket);
    }
    for protocol in ["h1", "h2c"] {
        let gw = gateway()
            .config(&format!("[upstream.o]\nservers = [\"{address}\"]\nprotocol = \"{protocol}\""))
            .config("timeouts = { connect = \"1h\" }\nretry = { attempts = 0 }")
            .config(&format!("{ROUTE}\ntimeout = {{ connect = \"100ms\" }}"))
            .start();
        gw.get("/").send().expect(504).problem("upstream-timeout");
        let labels = format!("upstream=\"o\",server=\"{address}\",reason=\"connect_timeout\"");
        assert!(metric(&gw, &format!("upstream_failures_total{{{labels}}} 1")));
    }
}

#[test]
fn a_route_says_what_is_tried_again() {
    let (bad, good) = (Origin::answering(|_| answer(503)), Origin::saying("ok"));
    let authority = Authority::new("test");
    let server = || authority.server(&["origin.test"], &["http/1.1"], false);
    let (bad_tls, good_tls) =
        (Origin::over_tls(server(), |_| answer(503)), Origin::over_tls(server(), |_| answer(200)));
    for (bad, good, tls) in
        [(&bad, &good, ""), (&bad_tls, &good_tls, "tls = { ca = \"ca.pem\", sni = \"origin.test\" }")]
    {
        let retry = format!("{tls}\nretry = {{ attempts = 2, on = [\"connect\"] }}");
        let gw = pool(&[&bad.address(), &good.address()], &retry)
            .file("ca.pem", authority.pem())
            .config("retry = { on = [\"503\"] }")
            .config("[[route]]\nmatch = \"/defaults\"\nupstream = \"o\"")
            .config("[[route]]\nmatch = \"/never\"\nupstream = \"o\"\nretry = false")
            .config("[defaults]\nretry = { attempts = 1, on = [\"5xx\"] }")
            .start();
        let failures = |path: &str| (0..4).filter(|_| gw.get(path).send().status == 503).count();
        assert_eq!((failures("/"), failures("/defaults"), failures("/never")), (0, 0, 2));
        let posted = (0..4).filter(|_| gw.post("/").body("x").send().status == 503).count();
        assert_eq!(posted, 2, "what is not idempotent is not sent again");
    }
}

#[test]
fn the_upstreams_budget_bounds_the_routes_retries() {
    let (bad, _) = ill();
    let gw = pool(&[&bad.address()], "retry = { budget = \"0%\" }")
        .config("retry = { attempts = 10, on = [\"5xx\"] }")
        .start();
    (0..5).for_each(|_| drop(gw.get("/").send().expect(500)));
    assert_eq!(bad.requests().len(), 5 + 10, "ten are there from the start");
}

#[test]
fn a_server_that_comes_back_or_is_new_gets_its_share_bit_by_bit() {
    let ((bad, well), good, new) = (ill(), Origin::saying("ok"), Origin::saying("ok"));
    let keys = "outlier = { consecutive = 1, eject_for = \"100ms\" }\nslow_start = \"1h\"";
    let gw = pool(&[&bad.address(), &good.address()], keys).start();
    let mut client = gw.connect();
    let mut ask = |times: usize| (0..times).for_each(|_| drop(client.get("/").send()));
    // All are new.
    ask(2);
    assert_eq!((bad.requests().len(), good.requests().len()), (1, 1));
    well.store(true, Ordering::Relaxed);
    gw.says(&format!("the server {} of the upstream o failed and is ejected", bad.address()));
    let before = bad.requests().len();
    eventually("requests for the server", || {
        ask(1);
        (bad.requests().len() > before).then_some(())
    });
    let before = bad.requests().len();
    ask(400);
    let again = bad.requests().len() - before;
    assert!((1..80).contains(&again), "a tenth of its turns is about 36 of 400, not {again}");

    // A reload adds one, and the others are what they are.
    let config = std::fs::read_to_string(gw.dir().join("portcullis.toml")).unwrap();
    let server = format!("servers = [\"{}\", ", new.address());
    gw.rewrite(&config.replace("servers = [", &server).replace(&format!("\"{}\", ", bad.address()), ""));
    gw.reload().expect(200);
    let before = good.requests().len();
    ask(400);
    let (new, good) = (new.requests().len(), good.requests().len() - before);
    assert!((1..80).contains(&new) && new + good == 400, "{new} {good}");
}
