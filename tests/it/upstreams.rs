//! Which server is asked, and what follows when it fails.

use std::time::Duration;

use crate::harness::{
    Answer, Authority, H2Answer, H2Origin, Origin, answer, eventually, full_address, gateway, refused_address,
};

const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nupstream = \"o\"";

#[test]
fn round_robin_keeps_to_the_weights() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = gateway()
        .origin("a", &a)
        .origin("b", &b)
        .config("[upstream.o]\nservers = [{ address = \"@a\", weight = 2 }, \"@b\"]")
        .config(ROUTE)
        .start();
    for _ in 0..9 {
        gw.get("/").send().expect(200);
    }
    assert_eq!((a.requests().len(), b.requests().len()), (6, 3));
}

#[test]
fn a_hash_keeps_a_session_at_its_server() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = gateway()
        .origin("a", &a)
        .origin("b", &b)
        .config("[upstream.o]\nservers = [\"@a\", \"@b\"]\nbalance = { hash = \"cookie:session\" }")
        .config(ROUTE)
        .start();
    for session in 0..20 {
        let ask = || gw.get("/").header("Cookie", &format!("x=1; session={session}")).send().expect(200).text();
        assert_eq!(ask(), ask());
    }
    assert!(!a.requests().is_empty() && !b.requests().is_empty());
}

#[test]
fn a_refused_connection_is_tried_elsewhere() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .set("dead", refused_address())
        .origin("a", &origin)
        .config("[upstream.o]\nservers = [\"@dead\", \"@a\"]")
        .config(ROUTE)
        .start();
    for _ in 0..6 {
        gw.post("/").body("x").send().expect(200);
    }
    assert_eq!(origin.requests().len(), 6);
}

#[test]
fn a_retry_leaves_the_turns_as_they_are() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = gateway()
        .set("dead", refused_address())
        .origin("a", &a)
        .origin("b", &b)
        .config("[upstream]\ntwo = { servers = [\"@dead\", \"@a\"], retry = { budget = \"100%\" } }")
        .config("three = { servers = [\"@dead\", \"@a\", \"@b\"], retry = { budget = \"100%\" } }")
        .config("[[route]]\nmatch = \"/two\"\nupstream = \"two\"\n[[route]]\nmatch = \"/three\"\nupstream = \"three\"")
        .start();
    for _ in 0..20 {
        gw.get("/two").send().expect(200);
    }
    for _ in 0..21 {
        gw.get("/three").send().expect(200);
    }
    let lines = gw.logged_lines(41);
    let at_once = |path: &str| lines.iter().filter(|line| line["path"] == path && line["attempts"] == 1).count();
    assert_eq!((at_once("/two"), at_once("/three")), (10, 14));
    assert!(b.requests().len() >= 7, "{}", b.requests().len());
}

#[test]
fn an_answer_may_be_worth_another_try_and_a_sent_body_never_is() {
    let (bad, good) = (Origin::answering(|_| answer(503).body("no")), Origin::saying("ok"));
    let gw = gateway()
        .origin("bad", &bad)
        .origin("good", &good)
        .config("[upstream.o]\nservers = [\"@bad\", \"@good\"]\nretry = { attempts = 1, on = [\"503\"] }")
        .config(ROUTE)
        .start();
    for _ in 0..4 {
        gw.get("/").send().expect(200).says("ok");
    }
    let mut statuses: Vec<u16> = (0..2).map(|_| gw.post("/").body("x").send().status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}

#[test]
fn a_silent_server_is_a_504_and_a_broken_one_a_502() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/silent" => Answer::never(),
        "/garbage" => Answer::raw(b"not http\r\n\r\n"),
        _ => Answer::hang_up(),
    });
    let gw = gateway()
        .origin("a", &origin)
        .config("[upstream.o]\nservers = [\"@a\"]\ntimeouts = { first_byte = \"300ms\" }")
        .config(ROUTE)
        .start();
    gw.get("/silent").send().expect(504).problem("upstream-timeout");
    gw.get("/garbage").send().expect(502).problem("upstream-failed");
    gw.get("/gone").send().expect(502).problem("upstream-failed");
    gw.logged("the cause", |line| line["path"] == "/silent" && line["cause"].is_string());
}

#[test]
fn a_pool_with_nobody_healthy_is_a_503_until_somebody_is() {
    let up = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = up.clone();
    let origin = Origin::answering(move |request| match request.target.as_str() {
        "/healthz" if !seen.load(std::sync::atomic::Ordering::Relaxed) => answer(500),
        _ => answer(200).body("ok"),
    });
    let gw = gateway()
        .origin("a", &origin)
        .config("[upstream.o]\nservers = [\"@a\"]\nhealth = { path = \"/healthz\", interval = \"100ms\", timeout = \"1s\", unhealthy = 1 }")
        .config(ROUTE)
        .start();
    let refused = eventually("the server is unhealthy", || {
        let response = gw.get("/").send();
        (response.status == 503).then_some(response)
    });
    assert!(refused.header("retry-after").parse::<u32>().unwrap() >= 1);
    refused.problem("no-upstream");
    up.store(true, std::sync::atomic::Ordering::Relaxed);
    eventually("the server is healthy", || (gw.get("/").send().status == 200).then_some(()));
}

#[test]
fn a_name_that_cannot_be_resolved_blocks_nothing() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .origin("a", &origin)
        .config("[upstream]\nlost = [\"nonexistent.invalid:80\"]\no = [\"@a\"]")
        .config("[[route]]\nmatch = \"/lost\"\nupstream = \"lost\"")
        .config(ROUTE)
        .start();
    gw.get("/").send().expect(200);
    gw.get("/lost").send().expect(503).problem("no-upstream");
}

#[test]
fn tls_to_a_server_is_verified() {
    let authority = Authority::new("ours");
    let origin = Origin::over_tls(authority.server(&["inner.test"], &[], false), |_| answer(200).body("secret"));
    let gw = gateway()
        .origin("a", &origin)
        .file("ca.pem", authority.pem())
        .config("[upstream]\nunknown = { servers = [\"@a\"], tls = { sni = \"inner.test\" } }")
        .config("other = { servers = [\"@a\"], tls = { sni = \"other.test\", ca = \"ca.pem\" } }")
        .config("o = { servers = [\"@a\"], tls = { sni = \"inner.test\", ca = \"ca.pem\" } }")
        .config("[[route]]\nmatch = \"/unknown\"\nupstream = \"unknown\"\n[[route]]\nmatch = \"/other\"\nupstream = \"other\"")
        .config(ROUTE)
        .start();
    gw.get("/unknown").send().expect(502);
    gw.get("/other").send().expect(502);
    gw.get("/").send().expect(200).says("secret");
    gw.get("/unknown").send().expect(502);
}

#[test]
fn http2_to_a_server_and_grpc_through_it() {
    let origin = H2Origin::plain(|request| match request.target.as_str() {
        "/slow" => H2Answer::new(200).after(Duration::from_secs(20)),
        _ => H2Answer::grpc(b"pong"),
    });
    let gw = gateway()
        .set("a", origin.address())
        .config("[upstream.o]\nservers = [\"@a\"]\nprotocol = \"h2c\"")
        .config("[[route]]\nmatch = \"/svc/**\"\nupstream = \"o\"")
        .config(
            "[upstream.lost]\nservers = [\"nonexistent.invalid:1\"]\n[[route]]\nmatch = \"/lost\"\nupstream = \"lost\"",
        )
        .start();
    let mut client = gw.h2c();
    let answer = client.grpc("/svc/ping", b"ping").send().expect(200);
    assert_eq!(answer.trailers.first("grpc-status"), Some("0"));
    client.grpc("/nowhere", b"ping").send().grpc_error(12);
    client.grpc("/lost", b"ping").send().grpc_error(14);
}

#[test]
fn a_server_that_takes_no_connection_in_time_is_passed_over() {
    let origin = Origin::saying("ok");
    let (full, _held) = full_address();
    let gw = gateway()
        .set("full", full)
        .origin("a", &origin)
        .config("[upstream.o]\nservers = [\"@full\", \"@a\"]\ntimeouts = { connect = \"200ms\" }")
        .config(ROUTE)
        .start();
    for _ in 0..4 {
        gw.post("/").body("x").send().expect(200);
    }
    assert_eq!(origin.requests().len(), 4);
}
