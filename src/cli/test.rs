//! `[[test]]`: what the configuration is to do with a request, held before the configuration is.
//!
//! ```toml
//! [[test]]
//! request  = "GET /users/7"                    # or an absolute URL
//! headers  = { Accept = "application/json" }
//! client   = "203.0.113.7"                     # who connects; loopback, unless said otherwise
//! as       = { sub = "alice" }                 # claims that `auth` takes for true, without a credential
//! listener = "public"                          # the first in the file, unless said otherwise
//! expect   = { route = "GET /users/{id}", upstream = "users", sent = { path = "/v1/users/7" } }
//!
//! [[test]]
//! request = "GET /old/7"
//! expect  = { status = 308, stopped_by = "redirect", headers = { Location = "/users/7" } }
//!
//! [[test]]
//! request = "POST /orders"
//! body    = { sku = "a7", count = 2 }          # JSON; or a text
//! expect  = { sent = { body = { sku = "a7", count = 2, source = "web" } } }
//! ```
//!
//! `status`, `stopped_by` and `headers` are about an answer of the gateway's own, `upstream`, `mirror` and `sent` about a
//! request that goes on: what an upstream would answer is not known here. A test that fails is a mistake of the file.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use http::HeaderName;
use serde::Deserialize;
use serde_json::Value;

use super::rehearse::{Question, Wrong, wait};
use super::{Plan, plan};
use crate::body::schema::json;
use crate::build::{Build, Node, Place, Table};
use crate::config;
use crate::gateway::matcher::ValueTest;
use crate::gateway::{Gateway, ValueMatch, value_test};
use crate::proxy::{End, Outcome};
use crate::telemetry::metrics::traffic::Cached;

/// One `[[test]]`, compiled.
pub(super) struct Test {
    /// As it is written.
    request: String,
    place: Place,
    question: Question,
    expect: Expect,
    /// The command that explains it.
    explained_by: String,
}

/// What is expected of a request.
struct Expect {
    route: Option<String>,
    upstream: Option<String>,
    mirror: Option<String>,
    status: Option<u16>,
    stopped_by: Option<String>,
    cache: Option<String>,
    headers: Vec<(String, HeaderName, ValueTest)>,
    sent: Option<Sent>,
}

/// What is expected of what an upstream is sent.
struct Sent {
    path: Option<String>,
    body: Option<Value>,
    headers: Vec<(String, HeaderName, ValueTest)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TestConfig {
    request: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// A text as it is, anything else as JSON.
    body: Option<Value>,
    client: Option<IpAddr>,
    listener: Option<String>,
    r#as: Option<serde_json::Map<String, Value>>,
    expect: ExpectConfig,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectConfig {
    route: Option<String>,
    upstream: Option<String>,
    mirror: Option<String>,
    status: Option<u16>,
    stopped_by: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, ValueMatch>,
    sent: Option<SentConfig>,
    cache: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SentConfig {
    path: Option<String>,
    body: Option<Value>,
    #[serde(default)]
    headers: BTreeMap<String, ValueMatch>,
}

/// `portcullis test`: runs every test, and says of each how it went.
pub(super) fn command(file: &Path) -> Result<(), String> {
    let loaded = config::load(file).map_err(|diagnostics| diagnostics.to_string())?;
    let mut build = loaded.build();
    let Some((plan, tests)) = plan(&mut build) else {
        return Err(build.diagnostics().to_string());
    };
    let (_, failed) = run(plan, &tests, &mut build);
    let mut report = String::new();
    for (i, test) in tests.iter().enumerate() {
        let how = if failed.binary_search(&i).is_ok() { "failed" } else { "ok" };
        let _ = writeln!(report, "{how:6} {}  {}", test.request, build.shown(test.place));
    }
    let _ =
        writeln!(report, "{}: {} passed, {} failed", counted(tests.len()), tests.len() - failed.len(), failed.len());
    print!("{report}");
    let diagnostics = build.diagnostics();
    match failed.is_empty() {
        true => {
            eprint!("{diagnostics}");
            Ok(())
        }
        false => Err(diagnostics.to_string()),
    }
}

/// `1 test`, `2 tests`.
pub(super) fn counted(tests: usize) -> String {
    format!("{tests} test{}", if tests == 1 { "" } else { "s" })
}

/// Compiles every `[[test]]`; `None` after every mistake in them was reported. Without a gateway the names of routes
/// are not known, and not judged.
pub(super) fn compile(gateway: Option<&Gateway>, build: &mut Build<'_>) -> Option<Vec<Test>> {
    let before = build.errors();
    let nodes = build.node().get("test").and_then(Node::array).unwrap_or(&[]);
    let root = build.node();
    let test = |node| build.within_node(node, |build| compile_one(node, root, gateway, build));
    let tests = nodes.iter().map(test).collect::<Vec<_>>();
    (build.errors() == before).then(|| tests.into_iter().flatten().collect())
}

/// Holds a plan to its tests; gives it back with the positions of the tests that failed, in order. Each failure is an
/// error where the expectation is written.
pub(super) fn run(mut plan: Plan, tests: &[Test], build: &mut Build<'_>) -> (Plan, Vec<usize>) {
    let gateway = Arc::new(plan.gateway);
    let mut failed = Vec::new();
    let nodes = build.node().get("test").and_then(Node::array).unwrap_or(&[]);
    let root = build.node();
    wait(async {
        for (i, (test, node)) in tests.iter().zip(nodes).enumerate() {
            let before = build.errors();
            match test.question.rehearse(&gateway, &plan.listeners, root).await {
                Ok(rehearsed) => build.within_node(node, |build| {
                    for note in &rehearsed.notes {
                        build.warning("request", note.as_str());
                    }
                    test.expect.hold(&rehearsed.outcome, &test.explained_by, build);
                }),
                Err(wrong) => build.within_node(node, |build| report(&wrong, build)),
            }
            if build.errors() > before {
                failed.push(i);
            }
        }
    });
    plan.gateway = Arc::into_inner(gateway).expect("a request lets go of its gateway when it ends");
    (plan, failed)
}

fn compile_one(node: &Node, root: &Node, gateway: Option<&Gateway>, build: &mut Build<'_>) -> Option<Test> {
    let before = build.errors();
    let mut config: TestConfig = build.deserialize()?;
    let typed = config.headers.keys().any(|name| name.eq_ignore_ascii_case("content-type"));
    if config.body.as_ref().is_some_and(|body| !body.is_string()) && !typed {
        config.headers.insert("Content-Type".to_owned(), "application/json".to_owned());
    }
    let explained_by = explain_command(&config, build.file(root));
    let mut question = match Question::new(&config.request, config.client, config.listener.clone()) {
        Ok(question) => Some(question),
        Err(wrong) => {
            report(&wrong, build);
            None
        }
    };
    if let Some(question) = &mut question {
        for (name, value) in &config.headers {
            if let Err(wrong) = question.field(name, value) {
                report(&wrong, build);
            }
        }
    }
    if let Some((question, body)) = question.as_mut().zip(config.body.as_ref())
        && let Err(wrong) = question.carry(body_text(body))
    {
        report(&wrong, build);
    }
    if let Some((question, claims)) = question.as_mut().zip(config.r#as) {
        question.assume(claims);
    }
    let named = |table: &str| root.get(table).and_then(Node::table).into_iter().flat_map(Table::keys);
    if let Some(name) = config.listener.filter(|name| !named("listen").any(|known| known == name)) {
        build.unknown("listener", "listener", &name, named("listen").map(String::as_str));
    }
    let expect = build.within("expect", |build| {
        let expect = config.expect;
        for (key, name) in [("upstream", &expect.upstream), ("mirror", &expect.mirror)] {
            if let Some(name) = name.as_ref().filter(|name| !named("upstream").any(|known| known == *name)) {
                build.unknown(key, "upstream", name, named("upstream").map(String::as_str));
            }
        }
        if let (Some(name), Some(gateway)) = (&expect.route, gateway) {
            let known: Vec<&str> = (0..gateway.routes()).map(|i| &*gateway.route(i).name).collect();
            if !known.contains(&name.as_str()) {
                build.unknown("route", "route", name, known);
            }
        }
        compile_expect(expect, build)
    });
    if build.errors() > before {
        return None;
    }
    let place = node.get("request")?.place;
    Some(Test { request: config.request, place, question: question?, expect, explained_by })
}

/// The command line that asks what a test asks.
fn explain_command(config: &TestConfig, file: &str) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "'\\''"));
    let mut command = format!("portcullis explain {} --config {}", quoted(&config.request), quoted(file));
    for (name, value) in &config.headers {
        let _ = write!(command, " -H {}", quoted(&format!("{name}: {value}")));
    }
    if let Some(body) = &config.body {
        let _ = write!(command, " -d {}", quoted(&body_text(body)));
    }
    if let Some(client) = config.client {
        let _ = write!(command, " --client {client}");
    }
    for (name, value) in config.r#as.iter().flatten() {
        // A text that reads as JSON stays a text.
        let value = match value.as_str() {
            Some(text) if serde_json::from_str::<Value>(text).is_err() => text.to_owned(),
            _ => value.to_string(),
        };
        let _ = write!(command, " --as {}", quoted(&format!("{name}={value}")));
    }
    if let Some(listener) = &config.listener {
        let _ = write!(command, " --listener {}", quoted(listener));
    }
    command
}

fn compile_expect(config: ExpectConfig, build: &mut Build<'_>) -> Expect {
    if config.status.is_some_and(|status| !(200..=599).contains(&status)) {
        build.error("status", "the status of an answer is a number from 200 to 599");
    }
    let expect = Expect {
        route: config.route,
        upstream: config.upstream,
        mirror: config.mirror,
        status: config.status,
        stopped_by: config.stopped_by,
        cache: config.cache,
        headers: fields(&config.headers, build),
        sent: config.sent.map(|sent| {
            build.within("sent", |build| {
                if sent.path.is_none() && sent.body.is_none() && sent.headers.is_empty() {
                    build.error("", "nothing is expected").help("give `path`, `headers` or `body`");
                }
                Sent { path: sent.path, body: sent.body, headers: fields(&sent.headers, build) }
            })
        }),
    };
    let Expect { route, upstream, mirror, status, stopped_by, cache, sent, .. } = &expect;
    if cache.as_ref().is_some_and(|word| !["miss", "bypass"].contains(&word.as_str())) {
        build.error("cache", "a test finds every cache empty: expect `miss`, or `bypass` where it is not asked");
    }
    let texts = [route, upstream, mirror, stopped_by, cache];
    if texts.iter().all(|text| text.is_none()) && status.is_none() && config.headers.is_empty() && sent.is_none() {
        build
            .error("", "nothing is expected, so the test could not fail")
            .help("give `route`, `upstream`, `mirror`, `status`, `stopped_by`, `cache`, `headers` or `sent`");
    }
    expect
}

fn fields(config: &BTreeMap<String, ValueMatch>, build: &mut Build<'_>) -> Vec<(String, HeaderName, ValueTest)> {
    let mut fields = Vec::new();
    for (name, value) in config {
        let key = format!("headers.{name}");
        let Ok(header) = name.parse() else {
            build.error(&key, format!("`{name}` is not the name of a header field"));
            continue;
        };
        fields.extend(value_test(value, &key, build).map(|test| (name.clone(), header, test)));
    }
    fields
}

fn report(wrong: &Wrong, build: &mut Build<'_>) {
    let diagnostic = build.error(&wrong.key, wrong.message.as_str());
    if let Some(help) = &wrong.help {
        diagnostic.help(help.as_str());
    }
}

impl Expect {
    /// Reports what is not as expected.
    fn hold(&self, outcome: &Outcome, explained_by: &str, build: &mut Build<'_>) {
        let fate = Fate(outcome);
        let mut miss = |key: &str, expected: String, got: String| {
            build
                .error(&format!("expect.{key}"), format!("expected {expected}, got {got}"))
                .help(format!("to see why: {explained_by}"));
        };
        if let Some(expected) = &self.route {
            match &outcome.route {
                Some(route) if *route.name == **expected => {}
                Some(route) => miss("route", format!("the route `{expected}`"), format!("`{}`", route.name)),
                None => miss("route", format!("the route `{expected}`"), format!("none: {fate}")),
            }
        }
        if let Some(expected) = self.upstream.as_ref().filter(|name| outcome.upstream() != Some(name)) {
            match outcome.upstream() {
                Some(other) => miss("upstream", format!("the upstream `{expected}`"), format!("`{other}`")),
                None => miss("upstream", format!("the upstream `{expected}`"), format!("none: {fate}")),
            }
        }
        let mirror = outcome.mirror().map(|mirror| mirror.pool.name());
        if let Some(expected) = self.mirror.as_deref().filter(|name| mirror != Some(name)) {
            let got = mirror.map_or_else(|| "none".to_owned(), |other| format!("copies for `{other}`"));
            miss("mirror", format!("copies for the upstream `{expected}`"), got);
        }
        if let Some(expected) = &self.stopped_by
            && outcome.stopped_by() != Some(expected)
        {
            let got = outcome.stopped_by().map_or_else(|| format!("nothing: {fate}"), |other| format!("`{other}`"));
            miss("stopped_by", format!("it to be stopped by `{expected}`"), got);
        }
        if let Some(expected) = &self.cache
            && outcome.cache().map(Cached::word) != Some(expected)
        {
            let got =
                outcome.cache().map_or_else(|| format!("no cache: {fate}"), |other| format!("`{}`", other.word()));
            miss("cache", format!("`{expected}` of the cache"), got);
        }
        match &outcome.end {
            End::Answer { head, .. } => {
                if let Some(expected) = self.status.filter(|status| head.status != *status) {
                    miss("status", format!("the status {expected}"), fate.to_string());
                }
                let values =
                    |name: &HeaderName| head.headers.get_all(name).iter().map(|v| text(v.as_bytes())).collect();
                compare("headers", &self.headers, values, &mut miss);
                if self.sent.is_some() {
                    miss("sent", "it to be sent to an upstream".to_owned(), fate.to_string());
                }
            }
            End::Parts(_) | End::Upstream { .. } => {
                if let Some(status) = self.status {
                    miss("status", format!("the status {status}"), format!("{fate}, whose status is not known here"));
                }
                for (name, ..) in &self.headers {
                    miss(&format!("headers.{name}"), format!("the gateway to answer with `{name}`"), fate.to_string());
                }
                match (&self.sent, &outcome.end) {
                    (Some(sent), End::Upstream { head, body, .. }) => sent.hold(head, body, &mut miss),
                    (Some(_), _) => miss("sent", "it to be sent to one upstream".to_owned(), fate.to_string()),
                    (None, _) => {}
                }
            }
        }
    }
}

impl Sent {
    fn hold(&self, head: &[u8], body: &[u8], miss: &mut dyn FnMut(&str, String, String)) {
        let head = text(head);
        let mut lines = head.lines();
        let target = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or("");
        let fields: Vec<(&str, &str)> = lines.filter_map(|line| line.split_once(": ")).collect();
        if let Some(expected) = self.path.as_ref().filter(|path| *path != target) {
            miss("sent.path", format!("`{expected}` to be asked for"), format!("`{target}`"));
        }
        let is = |expected: &Value| match expected {
            Value::String(text) => text.as_bytes() == body,
            // However its numbers are written.
            json => json::parse(body).is_ok_and(|body| json::parse(json.to_string().as_bytes()) == Ok(body)),
        };
        if let Some(expected) = self.body.as_ref().filter(|body| !is(body)) {
            miss("sent.body", format!("the body {}", body_text(expected)), text(body));
        }
        let values = |name: &HeaderName| {
            let fields = fields.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_str()));
            fields.map(|(_, value)| (*value).to_owned()).collect()
        };
        compare("sent.headers", &self.headers, values, miss);
    }
}

fn compare(
    part: &str,
    expected: &[(String, HeaderName, ValueTest)],
    values: impl Fn(&HeaderName) -> Vec<String>,
    miss: &mut dyn FnMut(&str, String, String),
) {
    for (written, name, test) in expected {
        let there = values(name);
        if !test.matches(there.iter().map(|value| value.as_str().into())) {
            let quoted: Vec<String> = there.iter().map(|value| format!("{value:?}")).collect();
            let got = if there.is_empty() { "none".to_owned() } else { quoted.join(" and ") };
            miss(&format!("{part}.{written}"), format!("the header `{written}` {}", test.example()), got);
        }
    }
}

/// A body as it is written in a test.
fn body_text(body: &Value) -> String {
    body.as_str().map_or_else(|| body.to_string(), str::to_owned)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What becomes of a request, in a few words.
struct Fate<'o>(&'o Outcome);

impl fmt::Display for Fate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.end, self.0.stopped_by()) {
            (End::Upstream { pool, .. }, _) => write!(f, "an answer of the upstream `{}`", pool.name()),
            (End::Parts(parts), _) => write!(f, "an answer out of {}", parts.join(", ")),
            (End::Answer { head, .. }, Some(by)) => write!(f, "{} by `{by}`", head.status.as_u16()),
            (End::Answer { head, .. }, None) => {
                write!(f, "{}: the head of the request is refused", head.status.as_u16())
            }
        }
    }
}
