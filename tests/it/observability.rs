//! What others make of the metrics and of traces: Prometheus as Debian has it, promtool, OpenTelemetry's own reader. The
//! dashboard and the alerts ask for nothing that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Gateway, Origin, Part, answer, eventually, free_port, gateway, output};

fn conf(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/observability").join(name)
}

/// Has promtool judge what a gateway shows.
#[track_caller]
pub fn check(text: &str) {
    use std::io::Write as _;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool: `make test` installs what the drills need");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let said = promtool.wait_with_output().unwrap();
    let words = [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(said.status.success() && words.is_empty(), "{words}\n{text}");
}

/// A gateway that shows every metric that there is.
fn full() -> (Gateway, Origin) {
    let origin = Origin::answering(|request| answer(if request.target == "/api/no" { 503 } else { 200 }));
    let authority = crate::harness::Authority::new("test");
    let gw = gateway()
        .secured(&authority.issue(&["gateway.test"]), "")
        .origin("o", &origin)
        .config("[listen.plain]\naddress = \"127.0.0.1:0\"")
        .config("[upstream.o]\nservers = [\"@o\"]\nbreaker = {}")
        .config("[auth.key]\napi_key = { header = \"X-Api-Key\" }")
        .config(
            "[consumer.a]\nkeys = [{ sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]",
        )
        .config("[[route]]\nname = \"api \\\"quoted\\\\\"\nmatch = \"/api/**\"\nupstream = \"o\"")
        .config("rate_limit = { rate = \"20/s\", burst = 1, over = { delay = \"60s\" } }")
        .config("[[route]]\nname = \"key\"\nmatch = \"/key\"\nauth = \"key\"\nrespond = {}")
        .start();
    let mut client = gw.connect_to("plain");
    client.get("/api/yes").send().expect(200);
    client.get("/api/no").send().expect(503);
    client.get("/api/yes").send().expect(200);
    client.get("/key").send().expect(401);
    client.get("/none").send().expect(404);
    client.send_raw("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n");
    client.response_to("GET").unwrap().expect(400);
    (gw, origin)
}

#[test]
fn prometheus_stores_what_was_sent() {
    let (gw, origin) = full();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let target = gw.listener("admin").tcp();
    let config = format!(
        "global: {{ evaluation_interval: 1s }}\n\
         rule_files: [{}]\nscrape_configs: [{{ job_name: portcullis, scrape_interval: 1s, scrape_timeout: 1s, \
         static_configs: [{{ targets: [\"{target}\"] }}] }}]\n",
        conf("alerts.yml").display()
    );
    fs::write(dir.path().join("prometheus.yml"), config).unwrap();
    let _prometheus = Part::at_port(
        Command::new("prometheus")
            .arg(format!("--config.file={}", dir.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}")),
        port,
    );
    let query = |expression: &str| -> Option<f64> {
        let url = format!("http://127.0.0.1:{port}/api/v1/query");
        let mut ask = Command::new("curl");
        let text = output(ask.args(["-sG", &url, "--data-urlencode", &format!("query={expression}")]));
        let json: Value = serde_json::from_str(&text).ok()?;
        json["data"]["result"].as_array()?.first()?["value"][1].as_str()?.parse().ok()
    };
    let server = origin.address();
    for (expression, expected) in [
        ("up{job=\"portcullis\"}".to_owned(), 1.0),
        ("portcullis_requests_total{route=\"api \\\"quoted\\\\\",class=\"2xx\"}".to_owned(), 2.0),
        ("portcullis_requests_total{route=\"api \\\"quoted\\\\\",class=\"5xx\"}".to_owned(), 1.0),
        ("sum(portcullis_requests_total)".to_owned(), 5.0),
        ("portcullis_stopped_total{by=\"no-route\"}".to_owned(), 1.0),
        ("portcullis_auth_failures_total{provider=\"key\",reason=\"missing\"}".to_owned(), 1.0),
        ("portcullis_policy_stopped_total{route=\"key\",policy=\"auth\"}".to_owned(), 1.0),
        (format!("portcullis_upstream_answers_total{{upstream=\"o\",server=\"{server}\",class=\"5xx\"}}"), 1.0),
        ("portcullis_upstream_breaker_state{upstream=\"o\"}".to_owned(), 0.0),
        ("portcullis_requests_refused_total{reason=\"more than one Host\"}".to_owned(), 1.0),
        ("sum(portcullis_request_duration_seconds_count)".to_owned(), 5.0),
        ("sum(portcullis_request_duration_seconds_bucket{le=\"+Inf\"})".to_owned(), 5.0),
        ("process_open_fds < bool process_max_fds".to_owned(), 1.0),
    ] {
        let mut last = None;
        eventually(&format!("{expression} = {expected}"), || {
            last = query(&expression);
            (last == Some(expected)).then_some(())
        });
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let started = query("process_start_time_seconds").unwrap();
    assert!((now - started).abs() < 600.0, "{started} {now}");
}

#[test]
fn promtool_accepts_the_metrics_and_the_alerts() {
    let (gw, _origin) = full();
    check(&gw.admin("/metrics").text());
    output(Command::new("promtool").args(["check", "rules"]).arg(conf("alerts.yml")));
    output(Command::new("promtool").args(["test", "rules"]).arg(conf("alerts.test.yml")));
    let [rules, tests] = ["alerts.yml", "alerts.test.yml"].map(|name| fs::read_to_string(conf(name)).unwrap());
    for line in rules.lines() {
        if let Some(name) = line.trim().strip_prefix("- alert: ") {
            assert!(tests.contains(&format!("alertname: {name}\n")), "{name} has no test");
        }
    }
}

/// The words of expressions that are names of metrics of a program.
fn metrics_in(expressions: &[String]) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expressions.iter().flat_map(|text| text.split(|c| !is_name(c)));
    words.filter(|word| word.starts_with("portcullis_") || word.starts_with("process_")).map(str::to_owned).collect()
}

#[test]
fn what_the_dashboard_and_the_alerts_ask_for_is_there() {
    let (gw, _origin) = full();
    let shown = gw.admin("/metrics").text();
    // The head of a metric is there even where it has no series yet.
    let mut there = BTreeSet::new();
    for line in shown.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            there.insert(name.to_owned());
            if kind == "histogram" {
                there.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
            }
        }
    }
    let dashboard: Value = serde_json::from_slice(&fs::read(conf("dashboard.json")).unwrap()).unwrap();
    let mut asked = Vec::new();
    fn gather(value: &Value, asked: &mut Vec<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| match value {
                Value::String(text) if ["expr", "query", "definition"].contains(&key.as_str()) => {
                    asked.push(text.clone())
                }
                value => gather(value, asked),
            }),
            Value::Array(values) => values.iter().for_each(|value| gather(value, asked)),
            _ => {}
        }
    }
    gather(&dashboard, &mut asked);
    assert!(asked.len() > 30, "{}", asked.len());
    asked.push(fs::read_to_string(conf("alerts.yml")).unwrap().replace("portcullis\"", "\""));
    asked.push(fs::read_to_string(conf("alerts.test.yml")).unwrap());
    let asked = metrics_in(&asked);
    assert!(asked.len() > 30, "{}", asked.len());
    // Counted when they are first said, or only with ACME.
    let rare = ["portcullis_certificate_renewals_total"];
    let missing: Vec<_> =
        asked.iter().filter(|name| !there.contains(*name) && !rare.contains(&name.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}\n{shown}");
    // And the book says what they all are.
    let book = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/src/metrics.md")).unwrap();
    let named = |name: &&String| !book.contains(&format!("`{name}`"));
    let untold: Vec<_> = shown
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ').map(|(name, _)| name.to_owned()))
        .collect();
    let untold: Vec<_> = untold.iter().filter(named).collect();
    assert!(untold.is_empty(), "{untold:?}");
}
