//! Which route takes a request, and what the origin sees of its path.

use crate::harness::{Origin, answer, gateway};

/// Answers with the name and the target that arrived.
fn named(name: &'static str) -> Origin {
    Origin::answering(move |request| answer(200).body(format!("{name} {}", request.target)))
}

#[test]
fn the_most_specific_route_wins_wherever_it_stands() {
    let origin = named("o");
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            r#"
            [[route]]
            match = "/**"
            respond = { body = "any" }
            [[route]]
            match = "/users/{id}"
            respond = { body = "one {path.id}" }
            [[route]]
            match = "/users/{id:[0-9]+}"
            respond = { body = "number {path.id}" }
            [[route]]
            match = "/users/me"
            upstream = "o"
            [[route]]
            match = "GET /users/me/**"
            respond = { body = "below {**}" }
            [[route]]
            match = { path = "/users/me", headers = { x-beta = "1" } }
            respond = { body = "beta" }
            [[route]]
            match = { path = "/users/me", headers = { x-beta = "1" }, when = 'request.query["v"] == "2"' }
            respond = { body = "when" }
            [[route]]
            match = { path = "/**", host = "*.example.org" }
            respond = { body = "wildcard {host}" }
            [[route]]
            match = { path = "/**", host = "api.example.org" }
            respond = { body = "exact" }
            "#,
        )
        .start();
    gw.get("/users/ada").send().expect(200).says("one ada");
    gw.get("/users/42").send().expect(200).says("number 42");
    gw.get("/users/me").send().expect(200).says("o /users/me");
    gw.get("/users/me/").send().expect(200).says("below ");
    gw.get("/users/me/a/b").send().expect(200).says("below a/b");
    gw.get("/elsewhere").send().expect(200).says("any");
    gw.get("/users/me").header("X-Beta", "1").send().expect(200).says("beta");
    gw.get("/users/me?v=2").header("X-Beta", "1").send().expect(200).says("when");
    gw.get("/users/me").host("a.b.example.org:80").send().expect(200).says("wildcard a.b.example.org");
    gw.get("/users/me").host("API.example.org").send().expect(200).says("exact");
}

#[test]
fn a_condition_may_look_at_every_field() {
    let gw = gateway()
        .config("[[route]]\nmatch = \"/**\"\nrespond = { body = \"no\" }")
        .config("[[route]]\nmatch = { path = \"/any\", when = 'request.query.exists(k, k.startsWith(\"x-\"))' }")
        .config("respond = { body = \"yes\" }")
        .config("[[route]]\nmatch = { path = \"/all\", when = 'request.query.all(k, request.query[k] != \"\")' }")
        .config("respond = { body = \"yes\" }")
        .start();
    for (target, answer) in [("/any?x-a", "yes"), ("/any?a=x-a", "no"), ("/all?a=1&b=2", "yes"), ("/all?a=1&b", "no")] {
        gw.get(target).send().expect(200).says(answer);
    }
}

#[test]
fn what_is_not_there_is_a_problem_document() {
    let origin = named("o");
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            "[[route]]\nmatch = \"GET,POST /a\"\nupstream = \"o\"\n[[route]]\nmatch = \"DELETE /a\"\nupstream = \"o\"",
        )
        .start();
    gw.get("/b").send().expect(404).problem("no-route");
    let refused = gw.request("PUT", "/a").send().expect(405);
    assert_eq!(refused.header("allow"), "GET, HEAD, POST, DELETE");
    refused.problem("method-not-allowed");
    gw.request("OPTIONS", "/a").send().expect(405);
    let taken = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
    assert_eq!(gw.request("TRACE", "/a").send().expect(405).header("allow"), taken);
    assert_eq!(gw.h2c().request("TRACE", "/a").send().expect(405).header("allow"), taken);
    let head = gw.request("HEAD", "/a").send().expect(200);
    assert!(head.body.is_empty());
    gw.request("DELETE", "/a").send().expect(200);
    assert!(origin.requests().iter().all(|request| request.target == "/a"));
}

#[test]
fn what_is_matched_is_what_is_forwarded() {
    let (open, closed) = (named("open"), named("closed"));
    let gw = gateway()
        .upstream("open", &open)
        .upstream("closed", &closed)
        .config("[[route]]\nmatch = \"/open/**\"\nupstream = \"open\"\n[[route]]\nmatch = \"/closed/**\"\nupstream = \"closed\"")
        .start();
    for (sent, seen) in [
        ("/open/a", "open /open/a"),
        ("/open/%61%7e?q=%2f", "open /open/a~?q=%2f"),
        ("/open/../closed/x", "closed /closed/x"),
        ("/open/%2e%2e/closed/x", "closed /closed/x"),
        ("/open/.%2E//closed/x", "404"),
        ("/open//a///b", "open /open/a/b"),
        ("/open/./a/.", "open /open/a/"),
        ("/open/%c3%a9", "open /open/%C3%A9"),
        ("/open/%252e%252e/x", "open /open/%252e%252e/x"),
    ] {
        match seen {
            "404" => drop(gw.get(sent).send()),
            seen => drop(gw.get(sent).send().expect(200).says(seen)),
        }
    }
    for sent in [
        "/open/..%2fclosed",
        "/open/%2Fx",
        "/open/%5cx",
        "/open/a%00",
        "/open/..;/closed",
        "/../open",
        "/open/%zz",
        "/open/%0d%0a",
    ] {
        gw.get(sent).send().expect(400).problem("bad-request");
    }
    assert!(closed.requests().iter().all(|request| request.target == "/closed/x"));
}
