//! What `GET /metrics` shows, and what is said of certificates near their end.

use std::time::Duration;

use crate::harness::{Authority, Gateway, Origin, eventually, gateway};

const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nrespond = {}";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn lines(gw: &Gateway) -> Vec<String> {
    gw.admin("/metrics").expect(200).text().lines().map(str::to_owned).collect()
}

fn value(gw: &Gateway, series: &str) -> Option<f64> {
    lines(gw).iter().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn prometheus_gets_its_format_and_needs_the_token() {
    let gw = gateway().config(ROUTE).start();
    let response = gw.admin("/metrics").expect(200);
    assert_eq!(response.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(response.header("cache-control"), "no-store");
    for line in response.text().lines() {
        assert!(line.starts_with("# ") || line.starts_with("portcullis_"), "{line}");
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
    let text = lines(&gw).join("\n");
    assert!(!text.contains("fine") && !text.contains("nearer"), "{text}");
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
