//! How many requests a caller may make.

use std::time::{Duration, Instant};

use crate::harness::{Builder, Gateway, Origin, Request, gateway};

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
