//! What browsers are told of other origins.

use crate::harness::{Gateway, Origin, Response, answer, gateway};

const APP: &str = "https://app.example.com";

fn started(origin: &Origin) -> Gateway {
    gateway()
        .upstream("o", origin)
        .config(
            r#"
            [[route]]
            match    = "GET,PUT /api/{id}"
            upstream = "o"
            access   = { deny = ["127.0.0.9"] }
            request  = { path = "/{query.p}" }
            cors     = { origins = ["https://app.example.com", "https://*.example.org"], expose = ["X-Total", "X-Id"], credentials = true, max_age = "10m" }
            [[route]]
            match    = "POST /api/{id}"
            upstream = "o"
            [[route]]
            match    = "/fixed"
            upstream = "o"
            cors     = { origins = "*", methods = ["GET", "PUT"], headers = ["X-A", "X-B"] }
            [[route]]
            match    = "/plain"
            upstream = "o"
            "#,
        )
        .start()
}

fn preflight(gw: &Gateway, path: &str, origin: &str, method: &str, headers: &str) -> Response {
    let request = gw.request("OPTIONS", path).header("Origin", origin).header("Access-Control-Request-Method", method);
    let request = if headers.is_empty() { request } else { request.header("Access-Control-Request-Headers", headers) };
    request.send()
}

fn is_silent(response: &Response) {
    let fields: Vec<_> =
        response.headers.0.iter().filter(|(name, _)| name.to_lowercase().starts_with("access-c")).collect();
    assert!(fields.is_empty(), "{fields:?}");
}

#[test]
fn preflights_are_answered_for_the_route_of_the_request_that_they_announce() {
    let origin = Origin::saying("ok");
    let gw = started(&origin);
    let response = preflight(&gw, "/api/7", APP, "PUT", "authorization,content-type").expect(204);
    for (name, value) in [
        ("access-control-allow-origin", APP),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", "authorization,content-type"),
        ("access-control-allow-credentials", "true"),
        ("access-control-max-age", "600"),
        ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"),
    ] {
        assert_eq!(response.header(name), value);
    }
    assert!(response.headers.first("access-control-expose-headers").is_none());
    let line = gw.logged("the preflight", |line| line["status"] == 204);
    assert_eq!((&line["stopped_by"], &line["route"]), (&"cors".into(), &"GET,PUT /api/{id}".into()));

    let response = preflight(&gw, "/fixed", "https://any.test", "DELETE", "x-z").expect(204);
    assert_eq!(response.header("access-control-allow-origin"), "*");
    assert_eq!(response.header("access-control-allow-methods"), "GET, PUT");
    assert_eq!(response.header("access-control-allow-headers"), "X-A, X-B");
    assert!(origin.requests().is_empty());
}

#[test]
fn preflights_of_others_and_for_other_routes() {
    let origin = Origin::saying("ok");
    let gw = started(&origin);
    for other in ["https://evil.test", "null", "https://app.example.com.evil.test", "https://example.org", ""] {
        let response = preflight(&gw, "/api/7", other, "GET", "").expect(403).problem("forbidden");
        is_silent(&response);
        assert!(response.header("vary").starts_with("Origin"));
    }
    preflight(&gw, "/api/7", "https://a.b.example.org", "GET", "").expect(204);
    // A route without `cors`: an OPTIONS like any other, that no route takes.
    let refused = preflight(&gw, "/api/7", APP, "POST", "").expect(405);
    assert_eq!(refused.header("allow"), "GET, HEAD, POST, PUT");
    preflight(&gw, "/api/7", APP, "BREW", "").expect(405);
    preflight(&gw, "/nowhere", APP, "GET", "").expect(404);
    assert!(origin.requests().is_empty());
    is_silent(&preflight(&gw, "/plain", APP, "GET", "").expect(200));
    // Not a preflight.
    gw.request("OPTIONS", "/api/7").header("Origin", APP).send().expect(405);
    is_silent(&gw.request("OPTIONS", "/fixed").send().expect(200));
}

#[test]
fn answers_and_errors_say_whom_they_are_for() {
    let origin = Origin::answering(|_| {
        answer(200).header("Access-Control-Allow-Origin", "*").header("Vary", "Accept").body("ok")
    });
    let gw = started(&origin);
    let response = gw.get("/api/7").header("Origin", APP).send().expect(200);
    assert_eq!(response.header("access-control-allow-origin"), APP);
    assert_eq!(response.header("access-control-allow-credentials"), "true");
    assert_eq!(response.header("access-control-expose-headers"), "X-Total, X-Id");
    assert_eq!(response.headers.all("vary"), ["Accept", "Origin"]);
    for request in [
        gw.get("/api/7").header("Origin", "https://evil.test"),
        gw.get("/api/7").header("Origin", APP).header("Origin", "https://evil.test"),
        gw.get("/api/7"),
    ] {
        let response = request.send().expect(200);
        is_silent(&response);
        assert_eq!(response.headers.all("vary"), ["Accept", "Origin"]);
    }
    let anyone = gw.get("/fixed").header("Origin", "https://evil.test").send().expect(200);
    assert_eq!((anyone.header("access-control-allow-origin"), anyone.header("vary")), ("*", "Accept"));

    // The gateway's own errors, by a policy before the upstream and at it.
    let refused = gw.get("/api/7?p=..").header("Origin", APP).send().expect(400).problem("bad-request");
    assert_eq!((refused.header("access-control-allow-origin"), refused.header("vary")), (APP, "Origin"));
}

#[test]
fn refusals_of_other_policies_can_be_read_by_the_page_and_do_not_stop_preflights() {
    let gw = gateway()
        .config(
            r#"
            [defaults]
            cors       = { origins = ["https://app.example.com"], expose = ["RateLimit", "Retry-After"] }
            [[route]]
            match      = "GET /limited"
            rate_limit = { rate = "1/h" }
            respond    = {}
            [[route]]
            match      = "GET /inside"
            access     = { deny = ["127.0.0.0/8"] }
            respond    = {}
            "#,
        )
        .start();
    gw.get("/limited").header("Origin", APP).send().expect(200);
    let limited = gw.get("/limited").header("Origin", APP).send().expect(429).problem("too-many-requests");
    let denied = gw.get("/inside").header("Origin", APP).send().expect(403).problem("forbidden");
    for response in [&limited, &denied] {
        assert_eq!(response.header("access-control-allow-origin"), APP);
        assert_eq!(response.header("access-control-expose-headers"), "RateLimit, Retry-After");
    }
    assert!(limited.headers.first("ratelimit").is_some());
    preflight(&gw, "/limited", APP, "GET", "").expect(204);
    preflight(&gw, "/inside", APP, "GET", "").expect(204);
}

#[test]
fn a_preflight_is_explained() {
    let origin = Origin::saying("ok");
    let gw = started(&origin);
    let question = serde_json::json!({
        "request": "OPTIONS /api/7",
        "headers": [format!("Origin: {APP}"), "Access-Control-Request-Method: PUT"],
    });
    let explained = gw.admin_post("/explain", &question.to_string()).expect(200).json();
    assert_eq!(explained["route"]["name"], "GET,PUT /api/{id}", "{explained:#}");
    assert_eq!((&explained["stopped_by"], &explained["answer"]["status"]), (&"cors".into(), &204.into()));
}

#[test]
fn http2_is_the_same() {
    let origin = Origin::saying("ok");
    let gw = started(&origin);
    let mut h2 = gw.h2c();
    let preflight = h2.request("OPTIONS", "/api/7").header("origin", APP);
    let response = preflight.header("access-control-request-method", "GET").send().expect(204);
    assert_eq!(response.header("access-control-allow-origin"), APP);
}
