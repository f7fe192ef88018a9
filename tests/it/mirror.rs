//! Copies of requests for another upstream, which no client feels.

use crate::harness::{Answer, Authority, Builder, ClosedPort, Gateway, Origin, Seen, answer, eventually, gateway};

const WAYS: [&str; 2] = ["/short", "/long"];

/// Routes with a mirror: to a server that is asked socket to socket, and to one that Pingora asks.
struct Ways {
    gw: Gateway,
    short: Origin,
    long: Origin,
}

fn ways(next: &str, mirror: &str, more: impl FnOnce(Builder) -> Builder) -> Ways {
    let authority = Authority::new("test");
    let echo = |request: &Seen| answer(200).body(request.text());
    let short = Origin::answering(echo);
    let long = Origin::over_tls(authority.server(&["origin.test"], &["http/1.1"], false), echo);
    let builder = gateway()
        .origin("short", &short)
        .origin("long", &long)
        .set("next", next)
        .file("ca.pem", authority.pem())
        .config(
            r#"
            [upstream]
            short = ["@short"]
            long  = { servers = ["@long"], tls = { ca = "ca.pem", sni = "origin.test" } }
            next  = { servers = ["@next"], timeouts = { connect = "500ms" } }
            [[route]]
            match    = "/short/**"
            upstream = "short"
            [[route]]
            match    = "/long/**"
            upstream = "long"
            [defaults]
            request  = { headers = { set = { X-Route = "{route}" }, remove = ["X-Secret"] } }
            "#,
        )
        .config(&format!("mirror = {{ upstream = \"next\", {mirror} }}"));
    Ways { gw: more(builder).start(), short, long }
}

fn same(builder: Builder) -> Builder {
    builder
}

impl Ways {
    fn origin(&self, way: &str) -> &Origin {
        if way.starts_with("/short") { &self.short } else { &self.long }
    }

    /// What was counted of copies: answered, failed, dropped, skipped.
    fn counted(&self) -> [u64; 4] {
        let text = self.gw.admin("/metrics").text();
        ["answered", "failed", "dropped", "skipped"].map(|result| {
            let name = format!("portcullis_mirrored_total{{result=\"{result}\",upstream=\"next\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
        })
    }

    #[track_caller]
    fn counts(&self, expected: [u64; 4]) {
        eventually("the copies are counted", || (self.counted() == expected).then_some(()));
    }
}

#[test]
fn a_copy_has_the_shape_of_what_the_upstream_is_sent() {
    let next = Origin::saying("another answer");
    let ways = ways(&next.address(), "share = 1.0", same);
    for (i, way) in WAYS.into_iter().enumerate() {
        let answered = ways
            .gw
            .post(&format!("{way}/a?b=c"))
            .header("X-Secret", "1")
            .header("X-Portcullis-Mirror", "forged")
            .header("Connection", "X-Hop")
            .header("X-Hop", "1")
            .body("hello")
            .send();
        answered.expect(200).says("hello");
        let copy = next.wait_for_requests(3 * i + 1).remove(3 * i);
        let request = ways.origin(way).only_request();
        assert_eq!((&copy.method, &copy.target, &copy.text()), (&request.method, &request.target, &"hello".into()));
        assert_eq!(copy.header("x-portcullis-mirror"), "1");
        for name in ["host", "x-forwarded-for", "x-forwarded-host", "x-request-id", "via", "x-route", "content-length"]
        {
            assert_eq!(copy.header(name), request.header(name), "{name}");
        }
        for name in ["x-secret", "x-hop", "connection"] {
            assert!(!copy.headers.has(name), "{name}");
        }
        assert!(!request.headers.has("x-portcullis-mirror"));
        ways.gw.post(&format!("{way}/chunks")).chunked("in chunks").send().expect(200).says("in chunks");
        assert_eq!(next.wait_for_requests(3 * i + 2)[3 * i + 1].text(), "in chunks");
        ways.gw.h2c().post(&format!("{way}/h2")).body("by HTTP/2").send().expect(200).says("by HTTP/2");
        let copy = next.wait_for_requests(3 * i + 3).remove(3 * i + 2);
        assert_eq!((copy.text().as_str(), copy.header("host")), ("by HTTP/2", "gateway.test"));
    }
    ways.counts([6, 0, 0, 0]);
    // A copy that begins before the one before it is read to its end has a connection of its own.
    assert!(next.connections() < 6, "connections are kept");
    let status = ways.gw.admin("/metrics").text();
    let line = format!("upstream_answers_total{{upstream=\"next\",server=\"{}\",class=\"2xx\"}} 6", next.address());
    assert!(status.contains(&line), "{status}");
}

#[test]
fn a_share_is_copied() {
    let next = Origin::saying("");
    let ways = ways(&next.address(), "share = 0.25", same);
    for way in WAYS {
        let mut client = ways.gw.connect();
        (0..400).for_each(|_| drop(client.get(way).send().expect(200)));
    }
    eventually("about a quarter", || (next.requests().len() >= 120).then_some(()));
    let [answered, _, dropped, _] = ways.counted();
    // The standard deviation is 12.
    assert!((100..300).contains(&(answered + dropped)), "{answered} {dropped}");
}

#[test]
fn what_becomes_of_a_copy_is_not_felt() {
    let closed = ClosedPort::new();
    for (next, counts) in [
        (Origin::answering(|_| answer(500)), [10, 0, 0, 0]),
        (Origin::answering(|_| Answer::hang_up()), [0, 10, 0, 0]),
        (Origin::answering(|_| Answer::raw(b"garbage\r\n\r\n")), [0, 10, 0, 0]),
        (Origin::answering(|_| answer(200).body("0123456789").cut_after(5)), [10, 0, 0, 0]),
    ] {
        let ways = ways(&next.address(), "share = 1", same);
        asked(&ways);
        ways.counts(counts);
    }
    let ways = ways(&closed.address(), "share = 1", same);
    asked(&ways);
    ways.counts([0, 10, 0, 0]);
}

/// Five requests each way, over one connection.
#[track_caller]
fn asked(ways: &Ways) {
    for way in WAYS {
        let mut client = ways.gw.connect();
        (0..5).for_each(|_| drop(client.post(way).body("x").send().expect(200).says("x")));
        assert_eq!(ways.origin(way).connections(), 1, "the connection to the server is kept");
    }
}

#[test]
fn an_upstream_that_hangs_gets_no_more_than_it_can_hold() {
    let next = Origin::answering(|_| Answer::never());
    let ways = ways(&next.address(), "share = 1.0", same);
    for way in WAYS {
        let mut client = ways.gw.connect();
        (0..50).for_each(|_| drop(client.get(way).send().expect(200)));
    }
    ways.counts([0, 0, 100 - 64, 0]);
    next.wait_for_requests(64);
    drop(next);
    // Those under way fail with their connections, and others take their places.
    ways.counts([0, 64, 100 - 64, 0]);
    ways.gw.get("/short").send().expect(200);
}

#[test]
fn copies_have_a_time() {
    let next = Origin::answering(|_| Answer::never());
    let keys = "[upstream.bounded]\nservers = [\"@next\"]\ntimeouts = { total = \"200ms\" }\n\
        outlier = {}\n[[route]]\nmatch = \"/bounded\"\nupstream = \"short\"\nmirror = { upstream = \"bounded\" }";
    let ways = ways(&next.address(), "share = 1.0", |builder| builder.config(keys));
    ways.gw.get("/bounded").send().expect(200);
    let line = "portcullis_mirrored_total{result=\"failed\",upstream=\"bounded\"} 1";
    eventually("the copy's end", || ways.gw.admin("/metrics").text().lines().any(|l| l == line).then_some(()));
    let line = format!(
        "portcullis_upstream_failures_total{{upstream=\"bounded\",server=\"{}\",reason=\"timeout\"}} 1",
        next.address()
    );
    assert!(ways.gw.admin("/metrics").text().lines().any(|l| l == line));
}

#[test]
fn what_is_too_long_is_not_copied() {
    let next = Origin::saying("");
    let ways = ways(&next.address(), "share = 1.0, max_body = \"20B\"", same);
    let long = "x".repeat(100);
    for way in WAYS {
        ways.gw.post(way).body(&long).send().expect(200).says(&long);
        ways.gw.post(way).chunked(&long).send().expect(200).says(&long);
        ways.gw.h2c().post(way).body(&long).send().expect(200).says(&long);
        ways.gw.get(way).header("Accept", "text/event-stream").send().expect(200);
        // What was not whole is not copied either.
        let mut client = ways.gw.connect();
        client.send_raw(format!("POST {way} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabcde"));
        let origin = ways.origin(way);
        eventually("the part at the origin", || origin.bytes().ends_with(b"abcde").then_some(()));
        drop(client);
        ways.gw.post(way).body("short enough").send().expect(200);
    }
    ways.counts([2, 0, 0, 10]);
    assert_eq!(next.requests().len(), 2);
}

#[test]
fn a_request_that_is_tried_again_or_answered_here_is_copied_once_or_never() {
    let (bad, good, next) = (Origin::answering(|_| answer(503)), Origin::saying("ok"), Origin::saying(""));
    let gw = gateway()
        .origin("bad", &bad)
        .origin("good", &good)
        .origin("next", &next)
        .config("[upstream]\nnext = [\"@next\"]\no = { servers = [\"@bad\", \"@good\"], retry = { on = [\"503\"] } }")
        .config("[defaults]\nmirror = { upstream = \"next\" }")
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .config("[[route]]\nmatch = \"/refused\"\nupstream = \"o\"\naccess = { deny = [\"127.0.0.0/8\"] }")
        .config("[[route]]\nmatch = \"/off\"\nupstream = \"o\"\nmirror = false")
        .config("[[test]]\nrequest = \"GET /\"\nexpect = { mirror = \"next\", upstream = \"o\" }")
        .start();
    let mut client = gw.connect();
    for _ in 0..4 {
        client.get("/").send().expect(200);
        client.get("/refused").send().expect(403);
        client.get("/off").send().expect(200);
    }
    let explained = gw.admin_post("/explain", r#"{ "request": "GET /" }"#).expect(200).json();
    assert_eq!((&explained["mirror"]["upstream"], &explained["mirror"]["share"]), (&"next".into(), &1.0.into()));
    let explained = gw.admin_post("/explain", r#"{ "request": "GET /off" }"#).expect(200).json();
    assert!(explained["mirror"].is_null());
    assert!(bad.requests().len() >= 4);
    assert_eq!(next.wait_for_requests(4).len(), 4);
    let line = "portcullis_mirrored_total{result=\"answered\",upstream=\"next\"} 4";
    eventually("four copies", || gw.admin("/metrics").text().lines().any(|l| l == line).then_some(()));
    assert!(!gw.errors().iter().any(|line| line.contains("no route uses")), "a mirror is a use");
}
