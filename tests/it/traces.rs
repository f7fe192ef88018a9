//! Traces: which one a request belongs to, what servers are told of it, and what a collector gets.

use serde_json::Value;

use crate::harness::{Authority, ClosedPort, Gateway, Origin, Part, answer, eventually, gateway, python};

const ROUTE: &str = "[[route]]\nname = \"all\"\nmatch = \"/**\"\nupstream = \"o\"";
const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const TRUSTING: &str = "[listen.public]\naddress = \"127.0.0.1:0\"\nclient_ip = { header = \"X-Forwarded-For\", trust = [\"127.0.0.1/32\"] }";

fn collector() -> Origin {
    Origin::saying("{}")
}

fn trace(collector: &Origin, sample: &str) -> String {
    format!("[trace]\nendpoint = \"http://{}\"\nsample = {sample}", collector.address())
}

/// The spans that the collector has.
fn spans(collector: &Origin) -> Vec<Value> {
    let mut spans = Vec::new();
    for request in collector.requests_for("/v1/traces") {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let resource = &body["resourceSpans"][0];
        assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "portcullis");
        spans.extend(resource["scopeSpans"][0]["spans"].as_array().unwrap().iter().cloned());
    }
    spans
}

#[track_caller]
fn wait_for_spans(collector: &Origin, count: usize) -> Vec<Value> {
    eventually(&format!("{count} spans"), || Some(spans(collector)).filter(|spans| spans.len() >= count))
}

fn attribute<'s>(span: &'s Value, key: &str) -> &'s Value {
    let attributes = span["attributes"].as_array().unwrap();
    attributes.iter().find(|attribute| attribute["key"] == key).map_or(&Value::Null, |attribute| &attribute["value"])
}

fn dropped(gw: &Gateway) -> f64 {
    let text = gw.admin("/metrics").text();
    let line = text.lines().find_map(|line| line.strip_prefix("portcullis_traces_dropped_total "));
    line.unwrap().parse().unwrap()
}

#[test]
fn a_request_and_its_attempts_are_one_trace() {
    let (closed, origin, collector) = (ClosedPort::new(), Origin::saying("ok"), collector());
    let gw = gateway()
        .set("closed", closed.address())
        .origin("open", &origin)
        .config("[upstream.o]\nservers = [\"@closed\", \"@open\"]")
        .config(ROUTE)
        .config(&trace(&collector, "1.0"))
        .start();
    // Who is not trusted does not say which trace it is.
    let given = format!("00-{ID}-{PARENT}-00");
    gw.get("/x?secret").header("traceparent", &given).header("tracestate", "a=b").send().expect(200);
    let spans = wait_for_spans(&collector, 3);
    let (server, attempts) = spans.split_first().unwrap();
    assert_eq!((&server["kind"], &server["name"], &server["parentSpanId"]), (&2.into(), &"GET /**".into(), &"".into()));
    assert_eq!(attribute(server, "http.response.status_code")["intValue"], "200");
    assert_eq!(attribute(server, "url.path")["stringValue"], "/x");
    assert_eq!(attribute(server, "client.address")["stringValue"], "127.0.0.1");
    assert!(server["status"].get("code").is_none());
    for attempt in attempts {
        assert_eq!((&attempt["kind"], &attempt["traceId"]), (&3.into(), &server["traceId"]));
        assert_eq!(attempt["parentSpanId"], server["spanId"]);
    }
    assert_eq!(attempts[0]["status"]["code"], 2);
    assert_eq!(attribute(&attempts[0], "error.type")["stringValue"], "connect");
    let address = attribute(&attempts[1], "server.address")["stringValue"].as_str().unwrap();
    let port = attribute(&attempts[1], "server.port")["intValue"].as_str().unwrap();
    assert_eq!(format!("{address}:{port}"), origin.address());
    assert_eq!(attribute(&attempts[1], "http.request.resend_count")["intValue"], "1");
    let sent = origin.only_request();
    let (trace, span) = (server["traceId"].as_str().unwrap(), attempts[1]["spanId"].as_str().unwrap());
    assert_eq!(sent.header("traceparent"), format!("00-{trace}-{span}-01"));
    assert!(trace != ID && !sent.text().contains("tracestate"));
    assert_eq!(gw.logged_lines(1)[0]["trace_id"], trace);
}

#[test]
fn a_trusted_peer_decides_and_is_the_parent() {
    let authority = Authority::new("test");
    let secure = Origin::over_tls(authority.server(&["origin.test"], &["http/1.1"], false), |_| answer(200));
    let collector = collector();
    let gw = gateway()
        .file("ca.pem", authority.pem())
        .origin("o", &secure)
        .config("[upstream.o]\nservers = [\"@o\"]\ntls = { ca = \"ca.pem\", sni = \"origin.test\" }")
        .config(ROUTE)
        .config(TRUSTING)
        .config(&trace(&collector, "0.0"))
        .start();
    for flags in ["00", "01"] {
        let given = format!("00-{ID}-{PARENT}-{flags}");
        gw.get("/").header("traceparent", &given).header("tracestate", "a=b").send().expect(200);
        let sent = secure.requests().pop().unwrap();
        assert!(sent.header("traceparent").starts_with(&format!("00-{ID}-")), "{}", sent.header("traceparent"));
        assert!(sent.header("traceparent").ends_with(flags) && !sent.header("traceparent").contains(PARENT));
        assert_eq!(sent.header("tracestate"), "a=b");
    }
    let spans = wait_for_spans(&collector, 2);
    assert_eq!((spans.len(), &spans[0]["traceId"], &spans[0]["parentSpanId"]), (2, &ID.into(), &PARENT.into()));
}

#[test]
fn what_fails_is_exported_and_what_is_answered_here_too() {
    let origin = Origin::answering(|request| answer(if request.target == "/bad" { 500 } else { 200 }));
    let collector = collector();
    let gw = gateway().upstream("o", &origin).config(ROUTE).config(&trace(&collector, "0.0")).start();
    let mut h2 = gw.h2c();
    for (target, status) in [("/fine", 200), ("/bad", 500), ("/fine", 200)] {
        h2.get(target).send().expect(status);
    }
    let spans = wait_for_spans(&collector, 2);
    assert_eq!((spans.len(), &spans[0]["status"]["code"]), (2, &2.into()));
    assert_eq!(attribute(&spans[0], "url.path")["stringValue"], "/bad");
    assert!(origin.requests().iter().all(|request| request.header("traceparent").ends_with("-00")));

    let gw = gateway().upstream("o", &origin).config("[[route]]\nmatch = \"/a\"\nupstream = \"o\"");
    let gw = gw.config(&trace(&collector, "1.0")).start();
    gw.get("/none").send().expect(404);
    let spans = wait_for_spans(&collector, 3);
    assert_eq!(attribute(&spans[2], "portcullis.stopped_by")["stringValue"], "no-route");
}

#[test]
fn traffic_does_not_notice_a_collector_that_is_gone() {
    let (port, origin) = (ClosedPort::new(), Origin::saying("ok"));
    let gw = gateway()
        .upstream("o", &origin)
        .config(ROUTE)
        .config(&format!("[trace]\nendpoint = \"http://{}\"\nsample = 1.0", port.address()))
        .start();
    let mut client = gw.connect();
    (0..20).for_each(|_| drop(client.get("/").send().expect(200)));
    gw.says("does not take traces");
    eventually("all are counted", || (dropped(&gw) == 20.0).then_some(()));
    let collector = port.open(|_| answer(200));
    client.get("/").send().expect(200);
    wait_for_spans(&collector, 2);
    client.get("/").send().expect(200);
    gw.says("takes traces again");
}

#[test]
fn a_reload_begins_and_ends_traces() {
    let (origin, collector) = (Origin::saying("ok"), collector());
    let upstream = format!("[upstream.o]\nservers = [\"{}\"]\n", origin.address());
    let gw = gateway().config(&upstream).config(ROUTE).start();
    let given = format!("00-{ID}-{PARENT}-01");
    gw.get("/").header("traceparent", &given).send().expect(200);
    assert_eq!(origin.only_request().header("traceparent"), given);
    assert!(gw.logged_lines(1)[0].get("trace_id").is_none_or(|id| id == ""));
    gw.rewrite(&format!("{upstream}{ROUTE}\n{}", trace(&collector, "1.0")));
    gw.reload().expect(200);
    gw.get("/").send().expect(200);
    wait_for_spans(&collector, 2);
    gw.rewrite(&format!("{upstream}{ROUTE}"));
    gw.reload().expect(200);
    gw.get("/").header("traceparent", &given).send().expect(200);
    assert_eq!(origin.requests()[2].header("traceparent"), given);
}

#[test]
fn policies_that_a_request_waits_in_or_is_stopped_by_are_spans() {
    let collector = collector();
    let gw = gateway()
        .config("[[route]]\nname = \"slow\"\nmatch = \"/slow/{id}\"\nrespond = {}")
        .config("rate_limit = { rate = \"1/s\", burst = 1, over = { delay = \"60s\" } }")
        .config("concurrency = { max = 10 }")
        .config("[[route]]\nmatch = \"/strict\"\nrate_limit = { rate = \"1/h\" }\nrespond = {}")
        .config(&trace(&collector, "1.0"))
        .start();
    for (target, status) in [("/slow/1", 200), ("/slow/2", 200), ("/strict", 200), ("/strict", 429)] {
        gw.get(target).send().expect(status);
    }
    let spans = wait_for_spans(&collector, 6);
    let (server, below): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span["kind"] == 2);
    assert_eq!((server.len(), below.len()), (4, 2));
    let parent = |span: &Value| server.iter().find(|other| other["spanId"] == span["parentSpanId"]).copied().unwrap();
    let time = |span: &Value, edge: &str| span[edge].as_str().unwrap().parse::<u64>().unwrap();
    for (span, path) in [(below[0], "/slow/2"), (below[1], "/strict")] {
        assert_eq!((&span["name"], &span["kind"]), (&"rate_limit".into(), &1.into()));
        assert_eq!(attribute(span, "portcullis.policy")["stringValue"], "rate_limit");
        let parent = parent(span);
        assert_eq!(attribute(parent, "url.path")["stringValue"], path);
        assert_eq!(parent["traceId"], span["traceId"]);
        let (from, to) = ("startTimeUnixNano", "endTimeUnixNano");
        assert!(time(parent, from) <= time(span, from) && time(span, from) <= time(span, to));
        assert!(time(span, to) <= time(parent, to));
    }
    assert_eq!(attribute(below[1], "http.response.status_code")["intValue"], "429");
    assert_eq!(attribute(below[0], "http.response.status_code"), &Value::Null);
    assert!(time(below[0], "endTimeUnixNano") > time(below[0], "startTimeUnixNano"));
    let slow = parent(below[0]);
    assert_eq!(slow["name"], "GET /slow/{id}");
    assert_eq!(attribute(slow, "http.route")["stringValue"], "/slow/{id}");
    assert_eq!(attribute(slow, "portcullis.route")["stringValue"], "slow");
}

/// What a collector understands that reads the messages as OpenTelemetry publishes them.
#[test]
fn a_collector_of_opentelemetry_understands_the_spans() {
    let (collector, port) = Part::with_port(&mut python("otlp_collector.py"));
    let (closed, origin) =
        (ClosedPort::new(), Origin::answering(|request| answer(if request.target == "/bad" { 500 } else { 200 })));
    let gw = gateway()
        .set("closed", closed.address())
        .origin("open", &origin)
        .config("[upstream.o]\nservers = [\"@closed\", \"@open\"]")
        .config(ROUTE)
        .config(TRUSTING)
        .config("[[route]]\nmatch = \"/strict\"\nrate_limit = { rate = \"1/h\" }\nrespond = {}")
        .config(&format!("[trace]\nendpoint = \"http://127.0.0.1:{port}\"\nsample = 1.0"))
        .start();
    let given = format!("00-{ID}-{PARENT}-01");
    // The closed server may be tried before the open one.
    gw.get("/fine").header("traceparent", &given).header("tracestate", "a=b").send().expect(200);
    gw.get("/bad").send().expect(500);
    for status in [200, 429] {
        gw.get("/strict").send().expect(status);
    }
    let spans = collector.says("the spans of four requests", |lines| {
        let mut spans: Vec<Value> = Vec::new();
        for line in &lines[1..] {
            let said: Value = serde_json::from_str(line).unwrap();
            assert!(said.get("refused").is_none(), "{said}");
            spans.extend(said["spans"].as_array().unwrap().iter().cloned());
        }
        (spans.iter().filter(|span| span["kind"] == "SPAN_KIND_SERVER").count() == 4).then_some(spans)
    });
    let of = |path: &str| -> Vec<&Value> {
        spans
            .iter()
            .filter(|span| span["kind"] == "SPAN_KIND_SERVER" && span["attributes"]["url.path"] == path)
            .collect()
    };
    let below = |server: &Value| -> Vec<&Value> {
        spans.iter().filter(|span| span["parent"] == server["span"] && span["trace"] == server["trace"]).collect()
    };
    let status = |span: &Value| span["attributes"]["http.response.status_code"].clone();
    let mut ids: Vec<&str> = spans.iter().map(|span| span["span"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), spans.len());
    for span in &spans {
        assert_eq!(span["resource"]["service.name"], "portcullis");
        assert!(span["start"].as_u64().unwrap() > 0 && span["start"].as_u64() <= span["end"].as_u64(), "{span}");
    }

    let fine = of("/fine")[0];
    assert_eq!((&fine["trace"], &fine["parent"]), (&ID.into(), &PARENT.into()));
    assert_eq!((&fine["name"], &fine["status"]), (&"GET /**".into(), &"STATUS_CODE_UNSET".into()));
    let attempts = below(fine);
    let (last, failed) = attempts.split_last().expect("an attempt at a server");
    assert_eq!((&last["kind"], &last["status"]), (&"SPAN_KIND_CLIENT".into(), &"STATUS_CODE_UNSET".into()));
    assert_eq!(status(last), 200);
    let sent = origin.requests()[0].header("traceparent").to_owned();
    assert_eq!(sent, format!("00-{ID}-{}-01", last["span"].as_str().unwrap()));
    for attempt in failed {
        assert_eq!(
            (&attempt["status"], &attempt["attributes"]["error.type"]),
            (&"STATUS_CODE_ERROR".into(), &"connect".into())
        );
        assert!(attempt["end"].as_u64() <= last["start"].as_u64(), "{attempt} {last}");
    }

    let bad = of("/bad")[0];
    assert_eq!((&bad["status"], &bad["parent"], status(bad)), (&"STATUS_CODE_ERROR".into(), &"".into(), 500.into()));
    assert!(bad["trace"] != fine["trace"]);
    let strict = of("/strict");
    assert_eq!((status(strict[0]), status(strict[1])), (200.into(), 429.into()));
    assert!(below(strict[0]).is_empty());
    let stopped = below(strict[1]);
    assert_eq!(
        (stopped.len(), &stopped[0]["name"], &stopped[0]["kind"]),
        (1, &"rate_limit".into(), &"SPAN_KIND_INTERNAL".into())
    );
    for server in [fine, bad, strict[1]] {
        for span in below(server) {
            assert!(
                server["start"].as_u64() <= span["start"].as_u64() && span["end"].as_u64() <= server["end"].as_u64()
            );
        }
    }
}

#[test]
fn each_part_of_an_aggregate_has_a_span() {
    let (collector, a) = (collector(), Origin::answering(|_| answer(200).body("1")));
    let gone = Origin::answering(|_| answer(404));
    let gw = gateway()
        .config(&trace(&collector, "1.0"))
        .upstream("a", &a)
        .upstream("gone", &gone)
        .config(
            "[[route]]\nmatch = \"/x\"\n[route.aggregate]\npart.one = { upstream = \"a\" }\n\
             part.two = { upstream = \"gone\", method = \"POST\", optional = true }",
        )
        .start();
    gw.get("/x").send().expect(200);
    let spans = wait_for_spans(&collector, 3);
    let server = spans.iter().find(|span| span["name"] == "GET /x").unwrap();
    assert_eq!(attribute(server, "portcullis.missing")["stringValue"], "two: it was answered with 404 Not Found");
    for (upstream, method) in [("a", "GET"), ("gone", "POST")] {
        let part = spans.iter().find(|span| span["name"] == method).unwrap();
        assert_eq!(part["parentSpanId"], server["spanId"]);
        assert_eq!(attribute(part, "portcullis.upstream")["stringValue"], upstream);
        assert!(attribute(part, "http.request.resend_count").is_null());
    }
}
