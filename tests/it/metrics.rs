//! What `GET /metrics` shows, and what is said of certificates near their end.

use std::time::Duration;

use crate::harness::{Answer, Authority, ClosedPort, Gateway, Origin, Traffic, answer, eventually, gateway};

const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nrespond = {}";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn lines(gw: &Gateway) -> Vec<String> {
    gw.admin("/metrics").expect(200).text().lines().map(str::to_owned).collect()
}

fn value(gw: &Gateway, series: &str) -> Option<f64> {
    gw.metric(series)
}

#[test]
fn prometheus_gets_its_format_and_needs_the_token() {
    let gw = gateway().config(ROUTE).start();
    let response = gw.admin("/metrics").expect(200);
    assert_eq!(response.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(response.header("cache-control"), "no-store");
    for line in response.text().lines() {
        assert!(["# ", "portcullis_", "process_"].iter().any(|start| line.starts_with(start)), "{line}");
    }
    let version = format!("portcullis_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&gw, &version), Some(1.0));
    assert_eq!(value(&gw, "portcullis_access_log_dropped_total"), Some(0.0));

    let admin = "[admin]\naddress = \"127.0.0.1:0\"\ntoken = { file = \"token\" }";
    let gw = gateway().file("token", "0123456789abcdef0123").config(admin).config(ROUTE).start();
    gw.admin("/metrics").expect(401);
}

#[test]
fn a_reload_shows_whether_it_was_taken() {
    let gw = gateway().config(ROUTE).start();
    let state = || {
        ["generation", "last_reload_successful"].map(|name| value(&gw, &format!("portcullis_config_{name}")).unwrap())
    };
    let taken_at = || value(&gw, "portcullis_config_last_reload_success_timestamp_seconds").unwrap();
    assert_eq!(state(), [1.0, 1.0]);
    let first = taken_at();
    assert!(first > 1.7e9);
    gw.rewrite("[[route");
    gw.reload().expect(422);
    assert_eq!((state(), taken_at()), ([1.0, 0.0], first));
    gw.rewrite(ROUTE);
    gw.hang_up();
    eventually("the next generation", || (state() == [2.0, 1.0]).then_some(()));
    assert!(taken_at() >= first);
}

#[test]
fn certificates_in_files_are_watched() {
    let authority = Authority::new("test");
    let builder = gateway()
        .config("[[route]]\nmatch = \"/**\"\nrespond = {}")
        .config("[listen.plain]\naddress = \"127.0.0.1:0\"");
    let files = [("fine", 15), ("near", 13), ("nearer", 2)];
    let mut builder = files.into_iter().fold(builder, |builder, (name, days)| {
        let identity = authority.issue_for(&[&format!("{name}.test")], 100 * DAY, days * DAY + DAY / 24);
        builder.file(&format!("{name}.pem"), identity.cert).file(&format!("{name}.key"), identity.key)
    });
    let tls = |name: &str| {
        format!(
            "[listen.{name}]\naddress = \"127.0.0.1:0\"\ntls = {{ certificates = [{{ cert = \"{name}.pem\", key = \"{name}.key\" }}] }}\n"
        )
    };
    for (name, _) in files {
        builder = builder.config(&tls(name));
    }
    let gw = builder.start();
    let said = gw.says("warn: the certificate near.test of the listener near expires in 13 days, on 20");
    assert!(said.ends_with('Z'), "{said}");
    gw.says("error: the certificate nearer.test of the listener nearer expires in 2 days, on 20");
    // `check` says the same, at the certificate.
    let errors = gw.errors().join("\n");
    assert!(errors.contains("warning: the certificate expires in 13 days") && errors.contains("portcullis.toml:"));
    assert!(!errors.contains("fine.test"));
    let expiry = |name: &str| {
        value(
            &gw,
            &format!(
                "portcullis_certificate_expiry_timestamp_seconds{{certificate=\"{name}.test\",listener=\"{name}\"}}"
            ),
        )
    };
    let apart = expiry("fine").unwrap() - expiry("near").unwrap();
    assert!((apart - 2.0 * 86400.0).abs() < 60.0, "{apart}");

    gw.rewrite(&format!("{ROUTE}\n[listen.plain]\naddress = \"127.0.0.1:0\"\n{}", tls("near")));
    gw.reload().expect(200);
    assert!(expiry("near").is_some());
    let gone = |text: &str| ["fine", "nearer"].map(|name| !text.contains(name)) == [true; 2];
    eventually("nothing is shown of the others", || gone(&lines(&gw).join("\n")).then_some(()));
}

#[test]
fn lines_that_the_access_log_cannot_take_are_counted() {
    let origin = Origin::saying("ok");
    let builder = gateway();
    let path = builder.dir().join("log.sock");
    let _never_reads = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let log = "[log]\naccess = { to = { unix = \"@dir/log.sock\" }, buffer = \"2KiB\" }";
    let gw = builder.config(log).everything_to(&origin).start();
    let mut client = gw.connect();
    eventually("a line that is dropped", || {
        client.get("/").send().expect(200);
        value(&gw, "portcullis_access_log_dropped_total").filter(|dropped| *dropped > 0.0)
    });
}

/// Waits until a series has a value: a request is counted after its answer was sent.
#[track_caller]
fn counts_to(gw: &Gateway, series: &str, expected: f64) {
    let name = format!("portcullis_{series}");
    let mut last = None;
    let reached = || {
        last = value(gw, &name);
        (last == Some(expected)).then_some(())
    };
    eventually(&format!("{series} {expected}"), reached);
}

#[test]
fn requests_are_counted_by_route_and_by_what_stopped_them() {
    let origin = Origin::answering(|request| answer(if request.target == "/api/no" { 500 } else { 201 }));
    let routes = "[[route]]\nname = \"api\"\nmatch = \"GET /api/**\"\nupstream = \"origin\"\n\
                  [[route]]\nname = \"hello\"\nmatch = \"/hello\"\nrespond = {}";
    let gw = gateway().upstream("origin", &origin).config(routes).start();
    let mut client = gw.connect();
    for (target, status) in [("/api/a", 201), ("/api/b", 201), ("/api/no", 500), ("/hello", 200), ("/none", 404)] {
        client.get(target).send().expect(status);
    }
    client.post("/api/a").send().expect(405);
    let mut h2 = gw.h2c();
    h2.get("/api/c").send().expect(201);
    gw.raw("GET /api/a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");

    let server = format!("upstream=\"origin\",server=\"{}\"", origin.address());
    for (series, expected) in [
        ("requests_total{route=\"api\",class=\"2xx\"}", 3.0),
        ("requests_total{route=\"api\",class=\"5xx\"}", 1.0),
        ("requests_total{route=\"hello\",class=\"2xx\"}", 1.0),
        ("requests_total{route=\"none\",class=\"4xx\"}", 2.0),
        ("requests_active{route=\"api\"}", 0.0),
        ("request_duration_seconds_count{route=\"api\"}", 4.0),
        ("request_duration_seconds_bucket{route=\"api\",le=\"+Inf\"}", 4.0),
        ("request_upstream_seconds_count{route=\"api\"}", 4.0),
        ("request_gateway_seconds_count{route=\"hello\"}", 1.0),
        ("stopped_total{by=\"respond\"}", 1.0),
        ("stopped_total{by=\"no-route\"}", 1.0),
        ("stopped_total{by=\"method-not-allowed\"}", 1.0),
        (&format!("upstream_answers_total{{{server},class=\"2xx\"}}"), 3.0),
        (&format!("upstream_answers_total{{{server},class=\"5xx\"}}"), 1.0),
        (&format!("upstream_server_healthy{{{server}}}"), 1.0),
        ("connections_accepted_total{listener=\"public\"}", 3.0),
        ("connections_refused_total{listener=\"public\",reason=\"limit\"}", 0.0),
    ] {
        counts_to(&gw, series, expected);
    }
    let text = lines(&gw).join("\n");
    assert!(!text.contains("request_upstream_seconds_count{route=\"hello\"}"), "it has no upstream");
    assert!(text.contains("portcullis_requests_refused_total{reason=\"more than one Host\"} 1"), "{text}");
    drop((client, h2));
    counts_to(&gw, "connections_open{listener=\"public\"}", 0.0);
}

#[test]
fn every_way_and_every_end_is_counted() {
    let authority = Authority::new("test");
    let secure = Origin::over_tls(authority.server(&["origin.test"], &["http/1.1"], false), |_| answer(200));
    let silent = Origin::answering(|_| Answer::never());
    let gw = gateway()
        .origin("secure", &secure)
        .origin("silent", &silent)
        .file("ca.pem", authority.pem())
        .config("[upstream.secure]\nservers = [\"@secure\"]\ntls = { ca = \"ca.pem\", sni = \"origin.test\" }")
        .config("[upstream.silent]\nservers = [\"@silent\"]\ntimeouts = { first_byte = \"200ms\" }")
        .config("[[route]]\nmatch = \"/secure\"\nupstream = \"secure\"")
        .config("[[route]]\nmatch = \"/silent\"\nupstream = \"silent\"")
        .start();
    gw.get("/secure").send().expect(200);
    gw.get("/silent").send().expect(504);
    counts_to(&gw, "requests_total{route=\"/secure\",class=\"2xx\"}", 1.0);
    counts_to(&gw, "requests_active{route=\"/secure\"}", 0.0);
    counts_to(&gw, "requests_total{route=\"/silent\",class=\"5xx\"}", 1.0);
    let server = format!("upstream=\"silent\",server=\"{}\"", silent.address());
    counts_to(&gw, &format!("upstream_failures_total{{{server},reason=\"timeout\"}}"), 1.0);
    counts_to(&gw, "stopped_total{by=\"upstream-timeout\"}", 1.0);

    let mut gone = gw.connect();
    gone.send_raw("GET /silent HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    counts_to(&gw, "requests_active{route=\"/silent\"}", 1.0);
    drop(gone);
    counts_to(&gw, "requests_active{route=\"/silent\"}", 0.0);
    counts_to(&gw, "requests_total{route=\"/silent\",class=\"none\"}", 1.0);
}

#[test]
fn retries_and_connections_that_cannot_be_made_are_counted() {
    let (closed, origin) = (ClosedPort::new(), Origin::saying("ok"));
    let gw = gateway()
        .set("closed", closed.address())
        .origin("open", &origin)
        .config("[upstream.o]\nservers = [\"@closed\", \"@open\"]")
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    let mut client = gw.connect();
    (0..4).for_each(|_| drop(client.get("/").send().expect(200)));
    let (closed, open) = (closed.address(), origin.address());
    counts_to(&gw, &format!("upstream_failures_total{{upstream=\"o\",server=\"{closed}\",reason=\"connect\"}}"), 2.0);
    counts_to(&gw, &format!("upstream_retries_total{{upstream=\"o\",server=\"{open}\"}}"), 2.0);
    counts_to(&gw, &format!("upstream_answers_total{{upstream=\"o\",server=\"{open}\",class=\"2xx\"}}"), 4.0);
}

#[test]
fn handshakes_that_fail_are_counted() {
    let authority = Authority::new("test");
    let gw = gateway().secured(&authority.issue(&["gateway.test"]), "").config(ROUTE).start();
    gw.raw("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    counts_to(&gw, "tls_handshake_failures_total{listener=\"public\",reason=\"failed\"}", 1.0);
    counts_to(&gw, "connections_open{listener=\"public\"}", 0.0);
}

#[test]
fn counters_go_on_over_a_reload_and_end_with_their_route() {
    let routes = |names: &[&str]| -> String {
        let route = |name| format!("[[route]]\nname = \"{name}\"\nmatch = \"/{name}\"\nrespond = {{}}\n");
        names.iter().map(route).collect()
    };
    let gw = gateway().config(&routes(&["a", "b"])).start();
    for name in ["a", "b"] {
        gw.get(&format!("/{name}")).send().expect(200);
        counts_to(&gw, &format!("requests_total{{route=\"{name}\",class=\"2xx\"}}"), 1.0);
    }
    gw.rewrite(&routes(&["b", "c"]));
    gw.reload().expect(200);
    gw.get("/b").send().expect(200);
    counts_to(&gw, "requests_total{route=\"b\",class=\"2xx\"}", 2.0);
    counts_to(&gw, "requests_total{route=\"c\",class=\"2xx\"}", 0.0);
    eventually("nothing is shown of a", || (!lines(&gw).join("\n").contains("route=\"a\"")).then_some(()));
    // What is refused leaves no trace.
    gw.rewrite(&format!("{}[[route]]\nmatch = 1", routes(&["d"])));
    gw.reload().expect(422);
    assert!(!lines(&gw).join("\n").contains("route=\"d\""));
}

#[test]
fn routes_beyond_the_budget_are_counted_together() {
    let routes: String =
        (0..100).map(|i| format!("[[route]]\nname = \"r{i}\"\nmatch = \"/{i}\"\nrespond = {{}}\n")).collect();
    let gw = gateway().config("[metrics]\nmax_series = 1000").config(&routes).start();
    let mut client = gw.connect();
    (0..100).for_each(|i| drop(client.get(&format!("/{i}")).send().expect(200)));
    counts_to(&gw, "requests_total{route=\"r0\",class=\"2xx\"}", 1.0);
    assert!(lines(&gw).len() < 1500, "{}", lines(&gw).len());
    let told_apart = lines(&gw).iter().filter(|line| line.starts_with("portcullis_requests_active{route=\"r")).count();
    counts_to(&gw, "requests_total{route=\"other\",class=\"2xx\"}", (100 - told_apart) as f64);
}

#[test]
fn policies_say_whom_they_stopped_and_who_waited() {
    let routes = "[[route]]\nname = \"strict\"\nmatch = \"/strict\"\nrate_limit = { rate = \"1/h\" }\nrespond = {}\n\
                  [[route]]\nname = \"shadow\"\nmatch = \"/shadow\"\nrate_limit = { rate = \"1/h\", shadow = true }\nrespond = {}\n\
                  [[route]]\nname = \"slow\"\nmatch = \"/slow\"\nrespond = {}\n\
                  rate_limit = { rate = \"100/s\", burst = 1, over = { delay = \"60s\" } }";
    let gw = gateway().config(routes).start();
    for (target, statuses) in [("/strict", [200, 429, 429]), ("/shadow", [200; 3])] {
        statuses.iter().for_each(|status| drop(gw.get(target).send().expect(*status)));
    }
    std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(|| gw.get("/slow").send().expect(200)))));
    for (series, expected) in [
        ("policy_stopped_total{route=\"strict\",policy=\"rate_limit\"}", 2.0),
        ("policy_stopped_total{route=\"shadow\",policy=\"rate_limit\"}", 0.0),
        ("policy_shadowed_total{route=\"shadow\",policy=\"rate_limit\"}", 2.0),
        ("policy_shadowed_total{route=\"strict\",policy=\"rate_limit\"}", 0.0),
        ("stopped_total{by=\"rate_limit\"}", 2.0),
    ] {
        counts_to(&gw, series, expected);
    }
    // On a busy machine the three may come so far apart that not all of the others wait.
    let waited = value(&gw, "portcullis_policy_wait_seconds_count{policy=\"rate_limit\"}");
    let lines = gw.logged_lines(9);
    let waits = lines.iter().filter(|line| line["waited_ms"].as_f64().is_some_and(|time| time > 0.0)).count();
    assert_eq!(waited.unwrap_or(0.0), waits as f64);
    // Nobody asks in a rehearsal.
    gw.admin_post("/explain", r#"{"request":"GET /strict"}"#).expect(200);
    counts_to(&gw, "policy_stopped_total{route=\"strict\",policy=\"rate_limit\"}", 2.0);
}

#[test]
fn who_scrapes_on_and_on_harms_no_request_and_gets_all() {
    let (authority, origin) = (Authority::new("test"), Traffic::origin());
    let gw = Traffic::gateway(&origin, &authority)
        .config("[upstream]\no = [\"@a\"]\n[[route]]\nname = \"all\"\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    let families = |text: &str| text.lines().filter(|line| line.starts_with("# TYPE ")).count();
    let all = families(&gw.admin("/metrics").expect(200).text());
    let traffic = Traffic::start(&gw, &authority, |response| response.status == 200);
    let (mut served, mut scrapes) = (0.0, 0);
    while served < 1000.0 || scrapes < 50 {
        let text = gw.admin("/metrics").expect(200).text();
        assert!(text.ends_with('\n') && families(&text) == all, "{text}");
        let mut now = 0.0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
            if series.starts_with("portcullis_requests_total{") {
                now += value;
            }
        }
        assert!(now >= served, "{served} {now}");
        (served, scrapes) = (now, scrapes + 1);
    }
    traffic.end(20);
}
