//! Answers that are put together of several.

use std::time::Duration;

use crate::harness::{Builder, H2Answer, H2Origin, Origin, answer, gateway};

fn json(text: impl Into<String>) -> impl Fn(&crate::harness::Seen) -> crate::harness::Answer + Send + Sync + 'static {
    let text = text.into();
    move |_| answer(200).header("Content-Type", "application/json").body(&text)
}

/// A route for `/dashboard/{id}` with this aggregate.
fn dashboard(aggregate: &str) -> Builder {
    gateway().config(&format!("[[route]]\nmatch = \"/dashboard/{{id}}\"\n[route.aggregate]\n{aggregate}\n"))
}

#[test]
fn parts_are_asked_at_once_or_one_after_the_other_and_put_together_by_name() {
    let users = Origin::answering(json(r#"{"account": "a 7", "name": "Ada", "n": 1.0}"#));
    let billing = Origin::answering(json(r#"{"balance": 12.50}"#));
    let gw = dashboard(
        "part.user = { upstream = \"users\", path = \"/users/{id}\", headers = { set = { X-Route = \"{route}\" } } }\n\
         part.billing = { upstream = \"billing\", path = \"/accounts/{user.account}\", query = { set = { n = \"{user.n}\" } } }",
    )
    .upstream("users", &users)
    .upstream("billing", &billing)
    .start();
    let got = gw.get("/dashboard/7?x=1").header("Authorization", "Bearer t").send().expect(200);
    assert_eq!(got.text(), r#"{"user":{"account": "a 7", "name": "Ada", "n": 1.0},"billing":{"balance": 12.50}}"#);
    assert_eq!((got.header("content-type"), got.maybe("portcullis-missing")), ("application/json", ""));
    let seen = users.only_request();
    assert_eq!((seen.target.as_str(), seen.header("authorization")), ("/users/7?x=1", "Bearer t"));
    let seen = billing.only_request();
    assert_eq!(seen.target, "/accounts/a%207?x=1&n=1.0");
    let line = gw.logged("the answer", |line| line["status"] == 200);
    assert_eq!((line["attempts"].as_u64(), line["missing"].as_str()), (Some(2), None));
    assert_eq!(gw.h2c().get("/dashboard/8").send().expect(200).json()["billing"]["balance"], 12.5);
    let head = gw.request("HEAD", "/dashboard/9").send().expect(200);
    assert_eq!(head.body.len(), 0);
}

#[test]
fn a_required_part_that_fails_fails_the_answer_with_its_status() {
    let users = Origin::answering(|seen| match seen.target.as_str() {
        "/users/none" => answer(404).body("secret"),
        "/users/down" => answer(503),
        "/users/html" => answer(200).body("<p>"),
        "/users/moved" => answer(302).header("Location", "/x"),
        "/users/cut" => answer(200).body("{\"a\": 1}").cut_after(4),
        _ => answer(200).body("{}"),
    });
    let gw = dashboard(
        "part.user = { upstream = \"users\", path = \"/users/{id}\" }\n\
         part.next = { upstream = \"users\", path = \"/x/{user.account}\" }",
    )
    .upstream("users", &users)
    .start();
    for (id, status) in [("none", 404), ("down", 503), ("html", 502), ("moved", 502), ("cut", 502), ("empty", 502)] {
        let got = gw.get(&format!("/dashboard/{id}")).send().expect(status).problem("part-failed");
        assert!(!got.text().contains("secret"));
    }
    let line = gw.logged("why", |line| line["path"] == "/dashboard/none");
    assert_eq!(
        (line["stopped_by"].as_str(), line["cause"].as_str()),
        (Some("part-failed"), Some("user: it was answered with 404 Not Found"))
    );
}

#[test]
fn an_optional_part_leaves_its_fallback_and_is_named() {
    let (users, down) = (Origin::answering(json("{}")), Origin::answering(|_| answer(500)));
    let silent = Origin::answering(|_| crate::harness::Answer::never());
    let gw = dashboard(
        "deadline = \"300ms\"\n\
         part.user = { upstream = \"users\" }\n\
         part.billing = { upstream = \"down\", optional = true, fallback = { state = \"unknown\", n = 1 } }\n\
         part.news = { upstream = \"silent\", optional = true }",
    )
    .upstream("users", &users)
    .upstream("down", &down)
    .upstream("silent", &silent)
    .start();
    let got = gw.get("/dashboard/7").send().expect(200);
    assert_eq!(got.text(), r#"{"user":{},"billing":{"state":"unknown","n":1}}"#);
    assert_eq!((got.maybe("portcullis-missing"), got.header("cache-control")), ("billing, news", "no-store"));
    let line = gw.logged("the parts", |line| line["status"] == 200);
    let missing = line["missing"].as_str().unwrap();
    assert_eq!(missing, "billing: it was answered with 500 Internal Server Error; news: it was not there in time");
}

#[test]
fn a_required_part_that_is_late_is_a_timeout() {
    let silent = Origin::answering(|_| crate::harness::Answer::never());
    let gw =
        dashboard("deadline = \"200ms\"\npart.user = { upstream = \"silent\" }").upstream("silent", &silent).start();
    gw.get("/dashboard/7").send().expect(504).problem("part-failed");
}

#[test]
fn an_array_fans_out_within_its_bounds() {
    let orders = Origin::answering(|seen| {
        let many = if seen.target.ends_with("many") { 11 } else { 5 };
        let items: Vec<String> = (0..many).map(|i| format!("{{\"sku\": {i}}}")).collect();
        answer(200).body(format!("{{\"items\": [{}]}}", items.join(",")))
    });
    let prices =
        Origin::answering(|seen| answer(200).body(format!("\"{}\"", seen.target)).after(Duration::from_millis(20)));
    let gw = dashboard(
        "part.order = { upstream = \"orders\" }\n\
         part.prices = { upstream = \"prices\", path = \"/prices/{each.sku}\", each = \"order.items\", at_once = 2, most = 10 }",
    )
    .upstream("orders", &orders)
    .upstream("prices", &prices)
    .start();
    let got = gw.get("/dashboard/few").send().expect(200).json();
    let paths: Vec<String> = (0..5).map(|i| format!("/prices/{i}")).collect();
    assert_eq!(got["prices"], serde_json::json!(paths));
    assert!(prices.connections() <= 2, "{}", prices.connections());
    gw.get("/dashboard/many").send().expect(502).problem("part-failed");
    assert_eq!(prices.requests().len(), 5);
}

#[test]
fn parts_may_have_bodies_and_methods() {
    let users = Origin::answering(json(r#"{"id": 12345678901234567890, "tags": ["a"]}"#));
    let search = Origin::answering(json("[]"));
    let gw = dashboard(
        "part.user = { upstream = \"users\", method = \"PUT\", body = \"client\" }\n\
         part.found = { upstream = \"search\", method = \"POST\", body = { who = \"{user.id}\", tags = \"{user.tags}\", no = \"{user.none}\", text = \"of {path.id}\" } }",
    )
    .config("[defaults]\nvalidate = { max_body = \"1KiB\" }")
    .upstream("users", &users)
    .upstream("search", &search)
    .start();
    gw.request("POST", "/dashboard/a%20%22b").body("{\"x\": 1}").send().expect(502).problem("part-failed");
    assert_eq!(users.only_request().text(), "{\"x\": 1}");
    let line = gw.logged("why", |line| line["status"] == 502);
    assert_eq!(line["cause"], "found: `user.none`, which it needs, is not there");
}

#[test]
fn what_is_written_into_a_body_stays_where_it_is() {
    let users = Origin::answering(json(r#"{"id": 12345678901234567890, "tags": ["a"]}"#));
    let search = Origin::answering(json("[]"));
    let gw = dashboard(
        "part.user = { upstream = \"users\" }\n\
         part.found = { upstream = \"search\", method = \"POST\", body = { who = \"{user.id}\", tags = \"{user.tags}\", text = \"of {path.id}\", n = [1, true] } }",
    )
    .upstream("users", &users)
    .upstream("search", &search)
    .start();
    gw.get("/dashboard/a%20%22b").header("Content-Type", "text/x").send().expect(200);
    let seen = search.only_request();
    assert_eq!((seen.method.as_str(), seen.header("content-type")), ("POST", "application/json"));
    assert_eq!(seen.text(), r#"{"who":12345678901234567890,"tags":["a"],"text":"of a \"b","n":[1,true]}"#);
}

#[test]
fn objects_may_be_merged() {
    let (a, b) =
        (Origin::answering(json(r#"{"x": 1, "y": {"a": 1}}"#)), Origin::answering(json(r#"{"y": 2.0, "z": []}"#)));
    let gw = dashboard("compose = \"merge\"\npart.a = { upstream = \"a\" }\npart.b = { upstream = \"b\" }")
        .upstream("a", &a)
        .upstream("b", &b)
        .start();
    assert_eq!(gw.get("/dashboard/1").send().expect(200).text(), r#"{"x":1,"y":2.0,"z":[]}"#);
}

#[test]
fn what_is_put_together_is_cached_as_long_as_its_parts() {
    let kept =
        |control: &'static str| Origin::answering(move |_| answer(200).header("Cache-Control", control).body("1"));
    let (a, b) = (kept("max-age=60"), kept("max-age=30"));
    let gw = dashboard("part.a = { upstream = \"a\" }\npart.b = { upstream = \"b\" }")
        .config("[defaults]\ncache = {}\ncompress = true")
        .upstream("a", &a)
        .upstream("b", &b)
        .start();
    for word in ["fwd=uri-miss", "hit"] {
        let got = gw.get("/dashboard/1").send().expect(200);
        assert_eq!((got.header("cache-control"), got.text().as_str()), ("max-age=30", r#"{"a":1,"b":1}"#));
        assert!(got.header("cache-status").contains(word), "{}", got.header("cache-status"));
    }
    assert_eq!((a.requests().len(), b.requests().len()), (1, 1));
}

#[test]
fn what_parts_depend_on_the_answer_depends_on() {
    let part = |vary: &'static str| {
        Origin::answering(move |seen| {
            let said = format!("\"{}\"", seen.headers.first("accept-language").unwrap_or(""));
            answer(200).header("Cache-Control", "max-age=60").header("Vary", vary).body(said)
        })
    };
    let (a, b) = (part("Accept-Language"), part("Accept-Language"));
    let gw = dashboard("part.a = { upstream = \"a\" }\npart.b = { upstream = \"b\" }")
        .config("[defaults]\ncache = {}")
        .upstream("a", &a)
        .upstream("b", &b)
        .start();
    for language in ["de", "en", "de"] {
        let got = gw.get("/dashboard/1").header("Accept-Language", language).send().expect(200);
        assert_eq!((got.header("vary"), &got.json()["a"]), ("Accept-Language", &language.into()));
    }
    assert_eq!(a.requests().len(), 2);
}

#[test]
fn parts_take_the_way_that_their_upstream_needs() {
    let plain = Origin::answering(json("1"));
    let h2 = H2Origin::plain(|_| H2Answer::new(200).body("2"));
    let gw =
        dashboard("part.a = { upstream = \"plain\" }\npart.b = { upstream = \"h2\" }\npart.c = { upstream = \"h2\" }")
            .upstream("plain", &plain)
            .config("[upstream.h2]\nservers = [\"@h2\"]\nprotocol = \"h2c\"")
            .set("h2", h2.address())
            .start();
    assert_eq!(gw.get("/dashboard/1").send().expect(200).text(), r#"{"a":1,"b":2,"c":2}"#);
}

#[test]
fn a_client_that_leaves_leaves_nothing_behind() {
    let slow = Origin::answering(|_| crate::harness::Answer::never());
    let gw = dashboard("part.a = { upstream = \"slow\" }").upstream("slow", &slow).start();
    let mut connection = gw.connect();
    connection.send_raw("GET /dashboard/1 HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.wait_for_requests(1);
    drop(connection);
    gw.logged("that the client left", |line| line["cause"] == "the client left");
    crate::harness::eventually("the part is cancelled", || {
        gw.admin("/upstreams").json()[0]["servers"][0]["active"].as_u64().filter(|active| *active == 0)
    });
}

#[test]
fn mistakes_are_told() {
    let wrong = |aggregate: &str| dashboard(aggregate).config("[upstream]\nusers = [\"127.0.0.1:1\"]").refused();
    for (aggregate, told) in [
        ("part.a = { upstream = \"nobody\" }", "there is no upstream `nobody`"),
        (
            "part.a = { upstream = \"users\", path = \"/{b.x}\" }\npart.b = { upstream = \"users\", path = \"/{a.x}\" }",
            "waits for itself",
        ),
        ("part.a = { upstream = \"users\", path = \"/{c.x}\" }", "`{c.x}` is not known"),
        ("part.a = { upstream = \"users\", fallback = 1 }", "nothing ever stands in its place"),
        ("part.a = { upstream = \"users\", pth = \"/\" }", "did you mean `path`?"),
        ("part.path = { upstream = \"users\" }", "cannot have the name `path`"),
        ("part.a = { upstream = \"users\", path = \"/{each}\" }", "`{each}` is the element"),
        ("part = {}", "has 1 to 32 parts"),
        ("part.a = { upstream = \"users\", each = \"b.x\" }", "there is no part `b`"),
    ] {
        let said = wrong(aggregate);
        assert!(said.contains(told), "{aggregate}\n{said}");
    }
}

#[test]
fn a_program_puts_parts_together() {
    let (user, billing) =
        (Origin::answering(json(r#"{"name": "Ada", "n": 1.50}"#)), Origin::answering(|_| answer(404)));
    let gw = dashboard(
        "part.user = { upstream = \"user\" }\n\
         part.billing = { upstream = \"billing\", optional = true }\n\
         compose = \"{ name: .user.name, n: .user.n, balance: (.billing.balance // null) }\"",
    )
    .upstream("user", &user)
    .upstream("billing", &billing)
    .start();
    let got = gw.get("/dashboard/1").send().expect(200);
    assert_eq!(
        (got.text().as_str(), got.header("portcullis-missing")),
        (r#"{"name":"Ada","n":1.50,"balance":null}"#, "billing")
    );
}

#[test]
fn parts_have_policies_of_their_own_and_the_route_has_its() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let flaky = Origin::answering(move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => answer(503),
        _ => answer(200).header("Content-Type", "application/xml").body("<a><b>1</b><c>2</c></a>"),
    });
    let silent = Origin::answering(|_| crate::harness::Answer::never());
    let gw = dashboard(
        "part.a = { upstream = \"flaky\", retry = { attempts = 1, on = [\"503\"] }, response = { body = { from = \"xml\", remove = [\"a.c\"] } } }\n\
         part.b = { upstream = \"silent\", timeout = { first_byte = \"50ms\" }, optional = true, fallback = [] }",
    )
    .config("[defaults]\nrate_limit = { rate = \"1/d\" }")
    .upstream("flaky", &flaky)
    .upstream("silent", &silent)
    .start();
    assert_eq!(gw.get("/dashboard/1").send().expect(200).text(), r#"{"a":{"a":{"b":"1"}},"b":[]}"#);
    gw.get("/dashboard/1").send().expect(429);
    assert_eq!((flaky.requests().len(), silent.requests().len()), (2, 1));
}

#[test]
fn an_answer_that_sets_cookies_is_not_for_others() {
    let origin =
        Origin::answering(|_| answer(200).header("Cache-Control", "max-age=60").header("Set-Cookie", "a=b").body("1"));
    let gw = dashboard("part.a = { upstream = \"a\" }").config("[defaults]\ncache = {}").upstream("a", &origin).start();
    for _ in 0..2 {
        let got = gw.get("/dashboard/1").send().expect(200);
        assert_eq!((got.header("cache-control"), got.maybe("set-cookie")), ("private", ""));
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn what_parts_answer_in_a_coding_is_read() {
    let coded = zstd::encode_all(&br#"{"p": 1}"#[..], 1).unwrap();
    let users = Origin::answering(move |seen| match seen.header("accept-encoding") {
        // It does so whatever it is told.
        "identity" => answer(200).header("Content-Encoding", "zstd").body(&coded),
        other => answer(400).body(other),
    });
    let gw = dashboard("part.a = { upstream = \"users\" }").upstream("users", &users).start();
    let got = gw.get("/dashboard/1").header("Accept-Encoding", "gzip, br").send().expect(200);
    assert_eq!(got.text(), r#"{"a":{"p": 1}}"#);
}

#[test]
fn a_body_that_no_part_takes_is_read() {
    let users = Origin::answering(json("1"));
    let gw = dashboard("part.a = { upstream = \"users\" }").upstream("users", &users).start();
    let mut connection = gw.connect();
    for _ in 0..2 {
        connection.post("/dashboard/1").body("whatever").send().expect(200).says(r#"{"a":1}"#);
    }
    assert_eq!(users.requests()[0].text(), "");
}

#[test]
fn what_parts_become_without_their_coding_is_counted() {
    let item = zstd::encode_all(format!("\"{}\"", "a".repeat(1 << 20)).as_bytes(), 1).unwrap();
    let list = format!("[{}0]", "0,".repeat(799));
    let users = Origin::answering(move |seen| match seen.target.as_str() {
        "/list" => answer(200).body(&list),
        _ => answer(200).header("Content-Encoding", "zstd").body(&item),
    });
    let parts = "part.list = { upstream = \"users\", path = \"/list\" }\n\
        part.items = { upstream = \"users\", path = \"/item\", each = \"list\", most = 1000, max_answer = \"2MiB\" }";
    let gw = dashboard(&format!("deadline = \"60s\"\n{parts}")).upstream("users", &users).start();
    gw.get("/dashboard/1").send().expect(503).problem("part-failed");
    let line = gw.logged("why", |line| line["status"] == 503);
    assert!(line["cause"].as_str().unwrap().contains("there is no room"), "{line}");
    assert!(gw.memory() < 3 << 29, "{}", gw.memory());
}
