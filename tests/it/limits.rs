//! How many requests a caller may make.

use std::time::{Duration, Instant};

use crate::harness::{Answer, Builder, Gateway, H2Answer, H2Origin, Origin, Request, answer, eventually, gateway};

/// A listener that believes whom requests say they are of.
const TRUSTING: &str = "[listen.public]\naddress = \"127.0.0.1:0\"\n\
    client_ip = { header = \"X-Forwarded-For\", trust = [\"127.0.0.0/8\"] }";

fn limited(routes: &str) -> Builder {
    gateway().config(TRUSTING).config(routes)
}

fn by<'g>(gw: &'g Gateway, path: &str, client: &str) -> Request<'g> {
    gw.get(path).header("X-Forwarded-For", client)
}

#[test]
fn who_is_over_the_limit_is_told_when_to_come_again() {
    let origin = Origin::saying("ok");
    let gw = limited("[defaults]\nrate_limit = { rate = \"1/h\", burst = 2 }").everything_to(&origin).start();
    let first = by(&gw, "/", "192.0.2.1").send().expect(200);
    assert_eq!(first.header("ratelimit-policy"), "\"1/h by client\";q=1;w=3600");
    assert_eq!(first.header("ratelimit"), "\"1/h by client\";r=1;t=3600");
    by(&gw, "/", "192.0.2.1").send().expect(200);
    let refused = by(&gw, "/", "192.0.2.1").send().expect(429).problem("too-many-requests");
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3000..=3600).contains(&seconds), "{seconds}");
    assert_eq!(refused.header("ratelimit"), format!("\"1/h by client\";r=0;t={seconds}"));
    let line = gw.logged("the refusal", |line| line["status"] == 429);
    assert_eq!(line["stopped_by"], "rate_limit");
    by(&gw, "/", "192.0.2.1").header("Content-Type", "application/grpc").send().grpc_error(8);
    by(&gw, "/", "192.0.2.2").send().expect(200);
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn a_limit_is_where_it_is_written() {
    let gw = limited(
        r#"
        [defaults]
        rate_limit = { rate = "1/h", burst = 2 }
        [policy.each]
        rate_limit = { rate = "1/h", burst = 1, by = ["client", "route"] }
        [[route]]
        match   = "/a"
        respond = {}
        [[route]]
        match   = "/b"
        respond = {}
        [[route]]
        match      = "/own"
        rate_limit = { burst = 3 }
        respond    = {}
        [[route]]
        match   = "/c"
        use     = ["each"]
        respond = {}
        [[route]]
        match   = "/d"
        use     = ["each"]
        respond = {}
        [[route]]
        match      = "/free"
        rate_limit = false
        respond    = {}
        "#,
    )
    .start();
    let statuses =
        |paths: &[&str]| -> Vec<u16> { paths.iter().map(|path| by(&gw, path, "192.0.2.1").send().status).collect() };
    assert_eq!(statuses(&["/a", "/b", "/a", "/b"]), [200, 200, 429, 429], "the routes share the defaults' limit");
    assert_eq!(statuses(&["/own", "/own", "/own", "/own"]), [200, 200, 200, 429], "a merged one is the route's");
    assert_eq!(statuses(&["/c", "/c", "/d", "/d"]), [200, 429, 200, 429], "by the route it is not shared");
    assert_eq!(statuses(&["/free", "/free", "/free"]), [200; 3]);
}

#[test]
fn workers_count_together_and_a_shadow_stops_nobody() {
    let gw = limited(
        r#"
        [server]
        threads = 3
        [[route]]
        match      = "/limited"
        rate_limit = { rate = "1/h", burst = 50, by = "route" }
        respond    = {}
        [[route]]
        match      = "/shadow"
        rate_limit = { rate = "1/h", shadow = true }
        respond    = {}
        "#,
    )
    .start();
    let admitted: usize = std::thread::scope(|scope| {
        let ask = || (0..20).filter(|_| gw.get("/limited").send().status == 200).count();
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert_eq!(admitted, 50);
    assert!(gw.get("/shadow").send().expect(200).headers.first("ratelimit").is_none());
    gw.get("/shadow").send().expect(200);
    let line = gw.logged("the shadow", |line| line["shadowed"] == "rate_limit");
    assert_eq!((&line["status"], &line["route"]), (&200.into(), &"/shadow".into()));
    assert_eq!(gw.metric("portcullis_policy_shadowed_total{route=\"/shadow\",policy=\"rate_limit\"}"), Some(1.0));
}

#[test]
fn those_that_wait_are_let_through_at_the_rate() {
    let limit = "[defaults]\nrate_limit = { rate = \"20/s\", burst = 1, over = { delay = \"30s\" } }";
    let gw = limited(limit).config("[[route]]\nmatch = \"/**\"\nrespond = {}").start();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..9 {
            scope.spawn(|| gw.get("/").send().expect(200));
        }
    });
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
}

#[test]
fn a_reload_keeps_the_counts_of_what_is_counted_alike() {
    let file = |limit: &str| {
        format!("{TRUSTING}\n[defaults]\nrate_limit = {limit}\n[[route]]\nmatch = \"/**\"\nrespond = {{}}\n")
    };
    let gw = gateway().config(&file("{ rate = \"1/h\" }")).start();
    gw.get("/").send().expect(200);
    gw.get("/").send().expect(429);
    for same in ["{ rate = \"1/h\" }", "{ rate = \"1/h\", by = [\"client\"], burst = 1 }"] {
        gw.rewrite(&(file(same) + "[[route]]\nmatch = \"/new\"\nrespond = {}"));
        gw.reload().expect(200);
        gw.get("/").send().expect(429);
        gw.get("/new").send().expect(429);
    }
    gw.rewrite(&file("{ rate = \"2/h\" }"));
    gw.reload().expect(200);
    gw.get("/").send().expect(200);
}

#[test]
fn what_is_only_talked_about_does_not_count() {
    let file = "[[route]]\nmatch = \"/**\"\nrate_limit = { rate = \"1/h\" }\nrespond = {}\n\
        [[test]]\nrequest = \"GET /\"\nexpect = { status = 200, headers = { RateLimit = { regex = \".*;r=0;.*\" } } }";
    let gw = gateway().config(file).start();
    let explained = || gw.admin_post("/explain", r#"{ "request": "GET /" }"#).expect(200).json();
    assert_eq!(explained()["answer"]["status"], 200);
    gw.get("/").send().expect(200);
    gw.get("/").send().expect(429);
    // Neither explain nor the tests of a reload depend on what clients did.
    assert_eq!(explained()["answer"]["status"], 200);
    gw.rewrite(file);
    gw.reload().expect(200);
    gw.get("/").send().expect(429);
}

/// Two consumers, whose keys are their names; `more` is said of ada.
pub fn partners(more: &str) -> String {
    format!(
        r#"
        [auth.partners]
        api_key = {{ header = "X-Key" }}
        [consumer.bob]
        keys = [{{ sha256 = "81b637d8fcd2c6da6359e6963113a1170de795e4b725b84d1e0b4cfd9ec58ce9" }}]
        [consumer.ada]
        keys = [{{ sha256 = "fdee430d40bd57deeac186cd9790033d0f06f909a8806e7ce6e717ab7c7d5029" }}]
        {more}
        "#
    )
}

fn of<'g>(gw: &'g Gateway, path: &str, name: &str) -> Request<'g> {
    gw.get(path).header("X-Key", name)
}

#[test]
fn a_consumers_own_rate_takes_the_place_of_the_limits() {
    let gw = gateway()
        .config(&partners("rate_limit = { rate = \"3/h\", burst = 2 }"))
        .config(
            r#"
            [defaults]
            auth       = "partners"
            rate_limit = { rate = "1/h", by = "consumer" }
            [[route]]
            match   = "/"
            respond = {}
            [[route]]
            match      = "/both"
            rate_limit = [{ rate = "1/h", by = ["route", "consumer"] }, { rate = "5/h" }]
            respond    = {}
            [[route]]
            match      = "/client"
            rate_limit = { rate = "1/h", by = "client" }
            respond    = {}
            "#,
        )
        .start();
    let first = of(&gw, "/", "ada").send().expect(200);
    assert_eq!(first.header("ratelimit-policy"), "\"3/h by consumer\";q=3;w=3600");
    assert_eq!(first.header("ratelimit"), "\"3/h by consumer\";r=1;t=1200");
    of(&gw, "/", "ada").send().expect(200);
    let refused = of(&gw, "/", "ada").send().expect(429).problem("too-many-requests");
    assert!(refused.text().contains("more than 3/h requests by consumer"), "{}", refused.text());
    let seconds: u64 = refused.header("retry-after").parse().unwrap();
    assert!((600..=1200).contains(&seconds), "{seconds}");
    let first = of(&gw, "/", "bob").send().expect(200);
    assert_eq!(first.header("ratelimit-policy"), "\"1/h by consumer\";q=1;w=3600");
    assert_eq!(first.header("ratelimit"), "\"1/h by consumer\";r=0;t=3600");
    of(&gw, "/", "bob").send().expect(429);

    let both = of(&gw, "/both", "ada").send().expect(200);
    let policy = "\"3/h by route and consumer\";q=3;w=3600, \"5/h by client\";q=5;w=3600";
    assert_eq!(both.header("ratelimit-policy"), policy);
    assert_eq!(both.header("ratelimit"), "\"3/h by route and consumer\";r=1;t=1200, \"5/h by client\";r=4;t=720");
    of(&gw, "/both", "ada").send().expect(200);
    of(&gw, "/both", "ada").send().expect(429);
    of(&gw, "/both", "bob").send().expect(200);
    of(&gw, "/both", "bob").send().expect(429);

    let client = of(&gw, "/client", "ada").send().expect(200);
    assert_eq!(client.header("ratelimit-policy"), "\"1/h by client\";q=1;w=3600");
    of(&gw, "/client", "ada").send().expect(429);
}

#[test]
fn a_reload_changes_an_own_rate_at_once_and_touches_nobody_else() {
    let file = |own: &str| {
        partners(own)
            + "[defaults]\nauth = \"partners\"\nrate_limit = { rate = \"1/h\", by = \"consumer\" }\n\
               [[route]]\nmatch = \"/\"\nrespond = {}"
    };
    let gw = gateway().config(&file("rate_limit = { rate = \"1/d\" }")).start();
    let statuses = |name, count| (0..count).map(|_| of(&gw, "/", name).send().status).collect::<Vec<_>>();
    assert_eq!((statuses("ada", 2), statuses("bob", 2)), (vec![200, 429], vec![200, 429]));
    for (own, expected) in [
        ("rate_limit = { rate = \"1/d\", burst = 3 }", &[200, 200, 429][..]),
        ("rate_limit = { rate = \"2/h\" }", &[200, 200, 429]),
        ("rate_limit = { rate = \"1/d\", burst = 4 }", &[200, 429]),
        ("", &[200, 429]),
    ] {
        gw.rewrite(&file(own));
        gw.reload().expect(200);
        assert_eq!(statuses("ada", expected.len()), expected, "{own}");
        assert_eq!(statuses("bob", 1), [429], "{own}");
    }
}

#[test]
fn a_consumer_waits_as_its_own_rate_has_it() {
    let gw = gateway()
        .config(&partners("rate_limit = { rate = \"20/s\", burst = 1 }"))
        .config("[defaults]\nauth = \"partners\"\n[[route]]\nmatch = \"/\"\nrespond = {}")
        .config("rate_limit = { rate = \"1/h\", by = \"consumer\", over = { delay = \"30s\" } }")
        .start();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..9 {
            scope.spawn(|| of(&gw, "/", "ada").send().expect(200));
        }
    });
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    of(&gw, "/", "bob").send().expect(200);
    of(&gw, "/", "bob").send().expect(429);
}

#[test]
fn an_own_rate_that_nothing_uses_is_warned_of() {
    let said = |route: &str| {
        let file = partners("rate_limit = { rate = \"1/s\" }") + "[[route]]\nmatch = \"/\"\nrespond = {}\n" + route;
        let output = gateway().config(&file).check();
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for (route, is_used) in [
        ("", false),
        ("auth = \"partners\"\nrate_limit = { rate = \"1/s\" }", false),
        ("rate_limit = { rate = \"1/s\", by = \"consumer\" }", false),
        ("auth = \"partners\"\nrate_limit = { rate = \"1/s\", by = [\"route\", \"consumer\"] }", true),
    ] {
        let said = said(route);
        assert_eq!(!said.contains("so nothing uses this rate"), is_used, "{route}: {said}");
        assert!(is_used || said.contains("portcullis.toml:8:22"), "{said}");
    }
}

const LONG: Duration = Duration::from_secs(60);

/// One place, in front of a server that is asked socket to socket, of one that Pingora asks, and of one behind a queue.
fn one_at_a_time(h1: &Origin, h2: &H2Origin) -> Gateway {
    limited(
        r#"
        [upstream]
        short = ["@short"]
        long  = { servers = ["@long"], protocol = "h2c" }
        [[route]]
        match       = "/short/**"
        concurrency = { max = 1 }
        upstream    = "short"
        [[route]]
        match       = "/long/**"
        concurrency = { max = 1 }
        upstream    = "long"
        [[route]]
        match       = "/queued/**"
        concurrency = { max = 1, queue = { size = 1, wait = "30s" } }
        upstream    = "short"
        [[route]]
        match       = "/client/**"
        concurrency = { max = 1, by = "client", queue = { size = 1, wait = "50ms" } }
        upstream    = "short"
        "#,
    )
    .origin("short", h1)
    .set("long", h2.address().to_string())
    .start()
}

fn origins() -> (Origin, H2Origin) {
    let short = Origin::answering(|request| match request.target.rsplit('/').next().unwrap_or("") {
        "hold" => Answer::never(),
        "fail" => Answer::hang_up(),
        "rest" => answer(200).body("0123456789").resting(5, LONG),
        "socket" => Answer::websocket_echo(),
        _ => answer(200).body("ok"),
    });
    let long = H2Origin::plain(|request| match request.target.rsplit('/').next().unwrap_or("") {
        "hold" => H2Answer::new(200).after(LONG),
        _ => H2Answer::new(200).body("ok"),
    });
    (short, long)
}

#[test]
fn a_place_is_free_again_however_the_request_ends() {
    let (short, long) = origins();
    let gw = one_at_a_time(&short, &long);
    let seen = |way: &str, path: &str| match way {
        "short" => short.requests_for(path).len(),
        _ => long.requests().iter().filter(|request| request.target == path).count(),
    };
    for (way, endings) in [("short", &["hold", "rest", "socket"][..]), ("long", &["hold"])] {
        let path = |end: &str| format!("/{way}/{end}");
        let is_free = || eventually("the place is free", || (gw.get(&path("x")).send().status == 200).then_some(()));
        for _ in 0..3 {
            gw.get(&path("x")).send().expect(200);
        }
        if way == "short" {
            gw.get(&path("fail")).send().expect(502);
            gw.get(&path("x")).send().expect(200);
        }
        for end in endings {
            let mut client = gw.connect();
            let upgrade = if *end == "socket" { "Connection: Upgrade\r\nUpgrade: websocket\r\n" } else { "" };
            client.send_raw(format!("GET {} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n", path(end)));
            eventually("the origin is asked", || (seen(way, &path(end)) == 1).then_some(()));
            let refused = gw.get(&path("x")).send().expect(503).problem("busy");
            assert_eq!(refused.header("retry-after"), "1");
            drop(client);
            is_free();
        }
        let mut h2 = gw.h2c();
        let mut call = h2.get(&path("hold")).open();
        call.finish();
        eventually("the origin is asked", || (seen(way, &path("hold")) == 2).then_some(()));
        gw.get(&path("x")).send().expect(503);
        drop(call);
        drop(h2);
        is_free();
    }
    let line = gw.logged("the refusal", |line| line["status"] == 503);
    assert_eq!(line["stopped_by"], "concurrency");
}

#[test]
fn who_finds_no_place_waits_or_is_refused() {
    let (short, long) = origins();
    let gw = one_at_a_time(&short, &long);
    let hold = |path: &str| {
        let mut client = gw.connect();
        client.send_raw(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"));
        eventually("the origin is asked", || (!short.requests_for(path).is_empty()).then_some(()));
        client
    };
    let holder = hold("/queued/hold");
    let mut statuses: Vec<u16> = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..2).map(|_| scope.spawn(|| gw.get("/queued/x").send().status)).collect();
        gw.logged("one is refused, for the other has the place in the queue", |line| line["status"] == 503);
        drop(holder);
        waiting.into_iter().map(|waiting| waiting.join().unwrap()).collect()
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);

    let _holder = hold("/client/hold");
    by(&gw, "/client/x", "192.0.2.2").send().expect(200);
    by(&gw, "/client/x", "192.0.2.1").send().expect(429).problem("too-many-requests");
    let line = gw.logged("who waited", |line| line["status"] == 429);
    assert!(line["duration_ms"].as_f64().unwrap() >= 50.0, "{line}");
}
