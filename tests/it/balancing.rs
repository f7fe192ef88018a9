//! Which server of a pool takes a request: by its algorithm, its weight and its health.

use std::sync::Arc;
use std::time::Duration;

use crate::harness::{
    Authority, Builder, ClosedPort, Connection, Gateway, H2Answer, H2Origin, Journal, Origin, answer, eventually,
    gateway,
};

const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nupstream = \"o\"";

/// A pool of `@a` and `@b`.
fn pool_of(a: &Origin, b: &Origin, pool: &str) -> Builder {
    gateway().origin("a", a).origin("b", b).config(&format!("[upstream.o]\n{pool}")).config(ROUTE)
}

fn counts(a: &Origin, b: &Origin) -> (usize, usize) {
    (a.requests().len(), b.requests().len())
}

#[test]
fn random_keeps_to_the_weights_by_and_large() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let pool = "servers = [{ address = \"@a\", weight = 3 }, \"@b\"]\nbalance = \"random\"";
    let gw = pool_of(&a, &b, pool).start();
    let mut client = gw.connect();
    let order: String = (0..400).map(|_| client.get("/").send().expect(200).text()).collect();
    // 300 are expected; 240 and 360 are seven standard deviations away.
    assert!((240..360).contains(&a.requests().len()), "{:?}", counts(&a, &b));
    assert!(order.contains("bb") && order.contains("aaaa"), "an order by turns is not random: {order}");
}

/// A server that takes its time over `/hold`, until the gate opens.
fn holding(gate: &Arc<Journal<()>>) -> Origin {
    let gate = gate.clone();
    Origin::answering(move |request| {
        if request.target == "/hold" {
            gate.wait_for("the gate to open", |opened| opened.first().copied());
        }
        answer(200)
    })
}

/// Asks for `/hold`, and waits until one of the servers has the request.
fn hold(gw: &Gateway, servers: [&Origin; 2]) -> Connection {
    let held = || servers.iter().map(|server| server.requests_for("/hold").len()).sum::<usize>();
    let before = held();
    let mut client = gw.connect();
    client.send_raw("GET /hold HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    eventually("a server has the request", || (held() > before).then_some(()));
    client
}

#[test]
fn least_request_spares_a_busy_server() {
    let gate = Arc::new(Journal::default());
    let (a, b) = (holding(&gate), holding(&gate));
    let gw = pool_of(&a, &b, "servers = [\"@a\", \"@b\"]\nbalance = \"least_request\"").start();
    let mut waiting = hold(&gw, [&a, &b]);
    let (busy, free) = if a.requests().is_empty() { (&b, &a) } else { (&a, &b) };
    for _ in 0..20 {
        gw.get("/").send().expect(200);
    }
    assert_eq!((busy.requests().len(), free.requests().len()), (1, 20));
    gate.push(());
    waiting.response_to("GET").unwrap().expect(200);
    eventually("the server that is free again gets requests", || {
        gw.get("/").send().expect(200);
        (busy.requests().len() > 5).then_some(())
    });
}

#[test]
fn least_request_gives_a_heavier_server_more_at_once() {
    let gate = Arc::new(Journal::default());
    let (a, b) = (holding(&gate), holding(&gate));
    let pool = "servers = [{ address = \"@a\", weight = 3 }, \"@b\"]\nbalance = \"least_request\"";
    let gw = pool_of(&a, &b, pool).start();
    let waiting: Vec<Connection> = (0..8).map(|_| hold(&gw, [&a, &b])).collect();
    assert_eq!(counts(&a, &b), (6, 2));
    gate.push(());
    for mut client in waiting {
        client.response_to("GET").unwrap().expect(200);
    }
}

#[test]
fn least_request_keeps_to_the_weights_where_nobody_is_busy() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let pool = "servers = [{ address = \"@a\", weight = 3 }, \"@b\"]\nbalance = \"least_request\"";
    let gw = pool_of(&a, &b, pool).start();
    let mut client = gw.connect();
    for _ in 0..400 {
        client.get("/").send().expect(200);
    }
    assert!((240..360).contains(&a.requests().len()), "{:?}", counts(&a, &b));
}

#[test]
fn peak_ewma_avoids_a_slow_server() {
    let (slow, fast) = (Origin::answering(|_| answer(200).after(Duration::from_millis(200))), Origin::saying("fast"));
    let gw = pool_of(&slow, &fast, "servers = [\"@a\", \"@b\"]\nbalance = \"peak_ewma\"").start();
    for _ in 0..60 {
        gw.get("/").send().expect(200);
    }
    let (slow, fast) = counts(&slow, &fast);
    assert!((1..=6).contains(&slow) && slow + fast == 60, "{slow} at the slow server, {fast} at the fast one");
}

/// The same key twice is the same server, and of many keys each server gets some.
#[track_caller]
fn assert_sticky(a: &Origin, b: &Origin, mut ask: impl FnMut(usize) -> String) {
    for key in 0..30 {
        assert_eq!(ask(key), ask(key), "key {key}");
    }
    let (a, b) = counts(a, b);
    assert!(a > 0 && b > 0 && a + b == 60, "{a} and {b}");
}

#[test]
fn a_hash_of_a_header() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = pool_of(&a, &b, "servers = [\"@a\", \"@b\"]\nbalance = { hash = \"header:X-Tenant\" }").start();
    let mut turn = 0;
    assert_sticky(&a, &b, |key| {
        turn += 1;
        gw.get(&format!("/{turn}")).header("x-tenant", &format!("tenant {key}")).send().expect(200).text()
    });
    let without: String = (0..4).map(|_| gw.get("/").send().expect(200).text()).collect();
    assert!(["abab", "baba"].contains(&without.as_str()), "requests without the header go by turns: {without}");
}

#[test]
fn a_hash_of_the_client() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = pool_of(&a, &b, "servers = [\"@a\", \"@b\"]\nbalance = { hash = \"client\" }")
        .config("[listen.public]\naddress = \"127.0.0.1:0\"")
        .config("client_ip = { header = \"X-Forwarded-For\", trust = [\"127.0.0.1\"] }")
        .start();
    let mut turn = 0;
    assert_sticky(&a, &b, |key| {
        turn += 1;
        let client = if key % 2 == 0 { format!("192.0.2.{key}") } else { format!("2001:db8::{key}") };
        gw.get(&format!("/{turn}")).header("X-Forwarded-For", &client).send().expect(200).text()
    });
    let direct: Vec<String> = (0..4).map(|_| gw.get("/").send().expect(200).text()).collect();
    assert!(direct.iter().all(|server| *server == direct[0]), "one client is at one server: {direct:?}");
}

#[test]
fn a_hash_of_the_path() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = pool_of(&a, &b, "servers = [\"@a\", \"@b\"]\nbalance = { hash = \"path\" }").start();
    let mut turn = 0;
    assert_sticky(&a, &b, |key| {
        turn += 1;
        gw.get(&format!("/objects/{key}?query={turn}")).send().expect(200).text()
    });
}

#[test]
fn a_hash_keeps_to_the_weights() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let pool = "servers = [{ address = \"@a\", weight = 3 }, \"@b\"]\nbalance = { hash = \"path\" }";
    let gw = pool_of(&a, &b, pool).start();
    let mut client = gw.connect();
    for key in 0..400 {
        client.get(&format!("/{key}")).send().expect(200);
    }
    assert!((240..360).contains(&a.requests().len()), "{:?}", counts(&a, &b));
}

#[test]
fn a_drained_server_gets_nothing() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    for balance in ["\"round_robin\"", "\"random\"", "\"least_request\"", "\"peak_ewma\"", "{ hash = \"path\" }"] {
        let pool = format!("servers = [{{ address = \"@a\", drain = true }}, \"@b\"]\nbalance = {balance}");
        let gw = pool_of(&a, &b, &pool).start();
        for path in 0..10 {
            gw.get(&format!("/{path}")).send().expect(200).says("b");
        }
    }
    assert_eq!(counts(&a, &b), (0, 50));
    let gw = pool_of(&a, &b, "servers = [{ address = \"@a\", drain = true }]").start();
    gw.get("/").send().expect(503).problem("no-upstream");
}

#[test]
fn a_name_is_resolved() {
    let origin = Origin::saying("found");
    let port = origin.address().rsplit_once(':').unwrap().1.to_owned();
    let gw = gateway().set("port", port).config("[upstream]\no = [\"localhost:@port\"]").config(ROUTE).start();
    eventually("the name is resolved", || (gw.get("/").send().status == 200).then_some(()));
    for _ in 0..10 {
        gw.get("/").send().expect(200).says("found");
    }
}

#[test]
fn a_check_without_a_path_is_a_connection() {
    let (port, steady) = (ClosedPort::new(), Origin::saying("steady"));
    let gw = gateway()
        .set("closed", port.address())
        .origin("steady", &steady)
        .config("[upstream]\no = { servers = [\"@closed\"], health = { interval = \"100ms\" } }")
        .config("both = { servers = [\"@closed\", \"@steady\"], retry = { attempts = 0 }, health = { interval = \"100ms\" } }")
        .config("[[route]]\nmatch = \"/both\"\nupstream = \"both\"")
        .config(ROUTE)
        .start();
    eventually("the checks find the port closed", || (gw.get("/").send().status == 503).then_some(()));
    gw.get("/").send().expect(503).problem("no-upstream");
    eventually("the checks find the other server", || said(&gw, "of the upstream both is healthy"));
    for _ in 0..10 {
        gw.get("/both").send().expect(200).says("steady");
    }

    let opened = port.open(|_| answer(200).body("opened"));
    eventually("the checks find the port open", || (gw.get("/").send().status == 200).then_some(()));
    eventually("it is one of both", || (gw.get("/both").send().expect(200).text() == "opened").then_some(()));
    assert!(opened.requests().iter().all(|request| ["/", "/both"].contains(&request.target.as_str())));
}

fn said(gw: &Gateway, what: &str) -> Option<()> {
    gw.errors().iter().any(|line| line.contains(what)).then_some(())
}

#[test]
fn a_check_over_tls_trusts_whom_the_pool_trusts() {
    let authority = Authority::new("ours");
    let origin = Origin::over_tls(authority.server(&["inner.test"], &[], false), |_| answer(200).body("ok"));
    let gw = gateway()
        .origin("a", &origin)
        .file("ca.pem", authority.pem())
        .config(
            r#"
            [upstream.o]
            servers = ["@a"]
            tls = { sni = "inner.test", ca = "ca.pem" }
            health = { path = "/healthz", interval = "100ms" }
            [upstream.distrustful]
            servers = ["@a"]
            tls = { sni = "inner.test" }
            health = { path = "/elsewhere", interval = "100ms" }
            [[route]]
            match = "/distrustful"
            upstream = "distrustful"
            "#,
        )
        .config(ROUTE)
        .start();
    eventually("the check passes", || said(&gw, "of the upstream o is healthy"));
    gw.get("/").send().expect(200).says("ok");
    eventually("the other check fails", || said(&gw, "of the upstream distrustful is unhealthy"));
    gw.get("/distrustful").send().expect(503).problem("no-upstream");

    let check = origin.requests_for("/healthz").remove(0);
    assert_eq!((check.method.as_str(), check.header("host")), ("GET", "inner.test"));
    assert_eq!(check.header("user-agent"), "portcullis-health");
    assert!(origin.requests_for("/elsewhere").is_empty());
}

#[test]
fn a_check_speaks_the_protocol_of_its_pool() {
    let authority = Authority::new("ours");
    let script = |request: &crate::harness::Seen| match request.target.as_str() {
        "/healthz" => H2Answer::new(204),
        _ => H2Answer::new(200).body("ok"),
    };
    let plain = H2Origin::plain(script);
    let tls = H2Origin::over_tls(authority.server(&["inner.test"], &["h2"], false), script);
    let gw = gateway()
        .set("plain", plain.address())
        .set("tls", tls.address())
        .file("ca.pem", authority.pem())
        .config(
            r#"
            [upstream.plain]
            servers = ["@plain"]
            protocol = "h2c"
            health = { path = "/healthz", host = "checked.test", interval = "100ms" }
            [upstream.tls]
            servers = ["@tls"]
            protocol = "h2"
            tls = { sni = "inner.test", ca = "ca.pem" }
            health = { path = "/healthz", interval = "100ms" }
            [[route]]
            match = "/plain"
            upstream = "plain"
            [[route]]
            match = "/tls"
            upstream = "tls"
            "#,
        )
        .start();
    for (pool, origin, host) in [("plain", &plain, "checked.test"), ("tls", &tls, "inner.test")] {
        eventually("the check passes", || said(&gw, &format!("of the upstream {pool} is healthy")));
        gw.get(&format!("/{pool}")).send().expect(200).says("ok");
        let check = origin.requests().remove(0);
        assert_eq!((check.version.as_str(), check.target.as_str()), ("HTTP/2", "/healthz"));
        assert_eq!(check.header(":authority"), host);
    }
}
