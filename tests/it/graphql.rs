//! Stored queries behind REST routes, and what a GraphQL server is kept from.

use crate::harness::{Answer, Gateway, Origin, Response, Seen, answer, gateway};

fn json(status: u16, text: &str) -> Answer {
    answer(status).header("Content-Type", "application/json").body(text)
}

fn echo(seen: &Seen) -> Answer {
    json(200, &format!("{{\"data\": {{\"sent\": {}}}}}", seen.text()))
}

fn route(pattern: &str, policies: &str, origin: &Origin) -> Gateway {
    gateway()
        .upstream("origin", origin)
        .config(&format!("[[route]]\nmatch = \"{pattern}\"\nupstream = \"origin\"\n{policies}"))
        .start()
}

const USER: &str = "query User($id: ID!, $first: Int, $all: Boolean = false, $ratio: Float, $tags: [String!]) {\n  user(id: $id) { name }\n}\n";

#[test]
fn a_route_is_a_stored_query() {
    let origin = Origin::answering(echo);
    let gw = gateway()
        .upstream("origin", &origin)
        .file("user.graphql", USER)
        .config(
            r#"
            [[route]]
            match    = "GET /users/{id}"
            upstream = "origin"
            graphql  = { query = "user.graphql", variables = { id = "{path.id}", first = "{query.first}", all = "{query.all}", ratio = "1.50", tags = ["a", "{query.tag}"] }, unwrap = "sent" }
            [[route]]
            match    = "POST /users"
            upstream = "origin"
            request  = { path = "/api/graphql", query = { set = { v = "1" } } }
            graphql  = { query = "mutation($input: In!, $name: String) { add(input: $input, name: $name) { id } }", variables = { input = "{body}", name = "{body.name}" }, unwrap = "sent.variables" }
            "#,
        )
        .start();
    let got = gw.get("/users/7%20%22?first=10&all=true&tag=b%22").header("If-None-Match", "\"x\"").send().expect(200);
    let sent = got.json();
    assert_eq!((&sent["query"], &sent["operationName"]), (&USER.into(), &"User".into()));
    let variables = r#"{"id": "7 \"", "first": 10, "all": true, "ratio": 1.50, "tags": ["a", "b\""]}"#;
    assert_eq!(sent["variables"], serde_json::from_str::<serde_json::Value>(variables).unwrap());
    let seen = origin.only_request();
    assert!(seen.text().contains("\"ratio\":1.50,"), "{}", seen.text());
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/graphql"));
    assert_eq!(seen.header("content-type"), "application/json");
    assert!(seen.header("accept").starts_with("application/graphql-response+json"));
    assert!(!seen.headers.has("if-none-match"));
    // What is not there is left out, what must be there is asked for.
    assert_eq!(gw.get("/users/7").send().expect(200).json()["variables"].as_object().unwrap().len(), 3);
    gw.get("/users/7?first=1x").send().expect(400).problem("bad-request");
    gw.get("/users/7?first=3000000000").send().expect(400).problem("bad-request");
    gw.get("/users/7?all=1").send().expect(400).problem("bad-request");
    gw.request("HEAD", "/users/7").send().expect(405);

    let post = |body: &str| gw.post("/users?a=b").header("Content-Type", "application/json").body(body).send();
    let got = post(r#"{"name": "n", "age": 1.0}"#).expect(200);
    assert_eq!(got.text(), r#"{"input":{"name": "n", "age": 1.0},"name":"n"}"#);
    assert_eq!(origin.requests().last().unwrap().target, "/api/graphql?v=1");
    post("{").expect(400);
    post(r#"{"a": 1}, "x": {"b": 1}"#).expect(400);
    gw.post("/users").header("Content-Type", "text/plain").body("x").send().expect(415);
    assert_eq!(gw.h2c().get("/users/7").send().expect(200).json()["variables"]["id"], "7");
}

#[test]
fn data_and_errors_become_answers_and_problems() {
    let origin = Origin::answering(|seen| {
        let error = |code: &str| {
            format!(
                r#"{{"message": "no", "path": ["user"], "extensions": {{"code": "{code}", "stacktrace": ["secret"]}}}}"#
            )
        };
        match seen.text().split(r#""id":""#).nth(1).unwrap().split('"').next().unwrap() {
            "gone" => json(200, &format!(r#"{{"errors": [{}], "data": null}}"#, error("NOT_FOUND"))),
            "denied" => json(200, &format!(r#"{{"errors": [{}]}}"#, error("FORBIDDEN"))),
            "own" => json(200, &format!(r#"{{"errors": [{}]}}"#, error("BUSY"))),
            "other" => json(200, r#"{"errors": [{"message": "oops"}]}"#),
            "auth" => json(401, r#"{"errors": [{"message": "who?"}]}"#),
            "partial" => json(200, r#"{"data": {"user": {"n": 1.0}}, "errors": [{"message": "oops"}]}"#),
            "null" => json(200, r#"{"data": {"user": null}}"#),
            "html" => answer(200).header("Content-Type", "text/html").body("<p>"),
            "neither" => json(200, "{}"),
            "broken" => json(200, r#"{"data": "#),
            "down" => answer(503).header("Content-Type", "text/html").body("<p>"),
            "plain" => json(403, r#"{"message": "no"}"#),
            _ => answer(200)
                .header("Content-Type", "application/graphql-response+json")
                .body(r#"{"data": {"user": {"n": 1.0}}, "errors": []}"#),
        }
    });
    let config = |more: &str| {
        format!(
            "graphql = {{ query = \"query($id: ID!) {{ user(id: $id) {{ n }} }}\", variables = {{ id = \"{{path.id}}\" }}, unwrap = \"user\"{more} }}"
        )
    };
    let gw = route("/{id}", &config(", codes = { BUSY = 503 }"), &origin);
    let got = gw.get("/fine").send().expect(200);
    assert_eq!((got.text().as_str(), got.header("content-type")), (r#"{"n": 1.0}"#, "application/json"));
    assert_eq!(gw.get("/null").send().expect(200).text(), "null");
    for (id, status) in [("gone", 404), ("denied", 403), ("own", 503), ("other", 502), ("auth", 401), ("partial", 502)]
    {
        let problem = gw.get(&format!("/{id}")).send().expect(status).problem("graphql-errors");
        assert!(
            problem.json()["errors"][0]["message"].is_string() && !problem.text().contains("secret"),
            "{}",
            problem.text()
        );
    }
    let gone = gw.get("/gone").send().json();
    assert_eq!(gone["errors"], serde_json::json!([{ "message": "no", "path": ["user"], "code": "NOT_FOUND" }]));
    for id in ["html", "neither", "broken"] {
        gw.get(&format!("/{id}")).send().expect(502).problem("answer-unusable");
    }
    assert_eq!(gw.get("/down").send().expect(503).text(), "<p>");
    assert_eq!(gw.get("/plain").send().expect(403).text(), r#"{"message": "no"}"#);
    let lenient = route("/{id}", &config(", partial = true"), &origin);
    assert_eq!(lenient.get("/partial").send().expect(200).text(), r#"{"n": 1.0}"#);
    lenient.get("/gone").send().expect(404);
}

fn guarded(guard: &str, origin: &Origin) -> Gateway {
    route("/graphql", &format!("graphql_guard = {guard}"), origin)
}

fn post(gw: &Gateway, body: &str) -> Response {
    gw.post("/graphql").header("Content-Type", "application/json").body(body).send()
}

fn query(gw: &Gateway, document: &str) -> Response {
    post(gw, &serde_json::json!({ "query": document }).to_string())
}

#[test]
fn what_costs_too_much_is_refused() {
    let origin = Origin::answering(echo);
    let gw = guarded(
        "{ max_depth = 3, max_cost = 100, costs = { search = 50 }, max_aliases = 2, max_directives = 2 }",
        &origin,
    );
    let body = r#" { "query" : "{ a { b { c } } }" , "variables":{}, "extra": 1.0 } "#;
    post(&gw, body).expect(200);
    let seen = origin.only_request();
    assert_eq!(
        (seen.text().as_str(), seen.target.as_str(), seen.header("content-type")),
        (body, "/graphql", "application/json")
    );
    query(&gw, "{ search { a } }").expect(200);
    post(&gw, r#"{"query": "query($n: Int = 500) { a(first: $n) }", "variables": {"n": 50}}"#).expect(200);
    gw.get("/graphql?query=%7Ba%7D").send().expect(200);
    let allowed = origin.requests().len();
    for document in [
        "{ a { b { c { d } } } }",
        "{ search { a } search { a } }",
        "{ a(first: 100) { b } }",
        "query($n: Int = 500) { a(first: $n) }",
        "{ x: a y: a z: a }",
        "{ a @i @i @i }",
        "{ ...F } fragment F on Q { ...F }",
        "{ __schema { types { name } } }",
        "{ ...F }",
        "{ a } { b }",
        "{",
    ] {
        query(&gw, document).expect(400).problem("graphql-refused");
    }
    let nested = "{a".repeat(200_000);
    for document in [&*nested, &"a".repeat(900_000), &format!("{{{}}}", "a ".repeat(400_000))] {
        query(&gw, document).expect(400).problem("graphql-refused");
    }
    let problem = query(&gw, "{\n  a(b: )\n}").expect(400).json();
    assert_eq!(problem["errors"][0]["locations"][0], serde_json::json!({ "line": 2, "column": 8 }));
    assert!(problem["detail"].as_str().unwrap().ends_with("at line 2, column 8"), "{problem}");
    post(&gw, r#"{"query": "query($n: Int) { a(first: $n) { b } }", "variables": {"n": 51}}"#).expect(400);
    assert_eq!(origin.requests().len(), allowed);
    guarded("{ introspection = true }", &origin)
        .post("/graphql")
        .header("Content-Type", "application/json")
        .body(r#"{"query": "{ __schema { a } }"}"#)
        .send()
        .expect(200);
}

#[test]
fn requests_that_could_be_understood_otherwise_are_refused() {
    let origin = Origin::answering(echo);
    let gw = guarded("{}", &origin);
    for body in [
        r#"{"query": "{a}", "query": "{b}"}"#,
        r#"{"query": "{a}", "Query": "{b}"}"#,
        r#"{"query": ["{a}"]}"#,
        r#"{"operationName": "A"}"#,
        r#"[{"query": "{a}"}, {"query": "{b}"}]"#,
        "[]",
        "{",
        "",
    ] {
        post(&gw, body).expect(400).problem("graphql-refused");
    }
    let target =
        |target: &str| gw.post(target).header("Content-Type", "application/json").body(r#"{"query": "{a}"}"#).send();
    target("/graphql?query=%7Bb%7D").expect(400).problem("graphql-refused");
    target("/graphql?v=1").expect(200);
    for target in [
        "/graphql",
        "/graphql?query=%7Ba%7D&query=%7Bb%7D",
        "/graphql?query=mutation%7Ba%7D",
        "/graphql?query=subscription%7Ba%7D",
    ] {
        gw.get(target).send().expect(400).problem("graphql-refused");
    }
    gw.request("GET", "/graphql?query=%7Ba%7D").header("Content-Length", "2").body("{}").send().expect(400);
    for media in
        ["application/graphql", "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"]
    {
        gw.post("/graphql").header("Content-Type", media).body(r#"{"query": "{a}"}"#).send().expect(415);
    }
    gw.request("PUT", "/graphql").header("Content-Type", "application/json").body("{}").send().expect(405);
    assert_eq!(origin.requests().len(), 1);
    let batching = guarded("{ max_batch = 2, max_cost = 3 }", &origin);
    post(&batching, r#"[{"query": "{a}"}, {"query": "{b c}"}]"#).expect(200);
    post(&batching, r#"[{"query": "{a d}"}, {"query": "{b c}"}]"#).expect(400);
    post(&batching, r#"[{"query": "{a}"}, {"query": "{b}"}, {"query": "{c}"}]"#).expect(400);
}

#[test]
fn only_documents_of_a_list_are_let_through() {
    let origin = Origin::answering(echo);
    let gw = gateway()
        .upstream("origin", &origin)
        .file("a.graphql", "query A($n: Int) { a(first: $n) }\n")
        .config(
            "[[route]]\nmatch = \"/graphql\"\nupstream = \"origin\"\ngraphql_guard = { max_cost = 10, allow = [\"a.graphql\", \
             \"sha256:fcf31818e50ac3e818ca4bdbc433d6ab73176f0b9d5f9d5ad17e200cdab6fba4\"] }",
        )
        .start();
    query(&gw, "query A($n: Int) { a(first: $n) }").expect(200);
    query(&gw, "query A($n: Int) { a(first: $n) }\n").expect(200);
    query(&gw, "query A($n: Int) { a(first: $n)  }").expect(400).problem("graphql-refused");
    // A known document is put in for its hash, in the body and in the target.
    let hash = "67c899f3ea510b9e4721f7be030301aa045a1f4852f265fb293b751ef74bbe38";
    let persisted = |variables: &str| {
        format!(
            r#"{{"variables": {variables}, "extensions": {{"persistedQuery": {{"version": 1, "sha256Hash": "{hash}"}}}}}}"#
        )
    };
    let sent = post(&gw, &persisted(r#"{"n": 5}"#)).expect(200).json()["data"]["sent"].clone();
    assert_eq!((&sent["query"], &sent["variables"]["n"]), (&"query A($n: Int) { a(first: $n) }".into(), &5.into()));
    post(&gw, &persisted(r#"{"n": 50}"#)).expect(400);
    let extensions = "%7B%22persistedQuery%22%3A%7B%22sha256Hash%22%3A%22HASH%22%7D%7D".replace("HASH", hash);
    gw.get(&format!("/graphql?extensions={extensions}")).send().expect(200);
    let seen = origin.requests().last().unwrap().clone();
    assert_eq!((seen.method.as_str(), seen.target.as_str()), ("POST", "/graphql"));
    // One that is not known is told so as clients of automatic persisted queries know it.
    let unknown = persisted("{}").replace(hash, &"0".repeat(64));
    let count = origin.requests().len();
    assert_eq!(post(&gw, &unknown).expect(200).json()["errors"][0]["message"], "PersistedQueryNotFound");
    let other = format!(r#"{{"query": "{{a}}", "extensions": {{"persistedQuery": {{"sha256Hash": "{hash}"}}}}}}"#);
    post(&gw, &other).expect(400);
    assert_eq!(origin.requests().len(), count);
    // Of one that is only a hash the server knows the document, or does not.
    post(&gw, &persisted("{}").replace(hash, "fcf31818e50ac3e818ca4bdbc433d6ab73176f0b9d5f9d5ad17e200cdab6fba4"))
        .expect(200);
}

#[test]
fn mistakes_are_told() {
    let wrong = |policy: &str| {
        let route = format!("[[route]]\nmatch = \"/{{id}}\"\nupstream = \"o\"\n{policy}");
        gateway().config("[upstream]\no = [\"127.0.0.1:1\"]").file("bad.graphql", "{\n a(").config(&route).refused()
    };
    for (policy, told) in [
        ("graphql = { query = \"none.graphql\" }", "cannot read"),
        ("graphql = { query = \"bad.graphql\" }", "at line 2, column"),
        ("graphql = { query = \"{ a \" }", "syntax error"),
        ("graphql = { query = \"query A { a } query B { b }\" }", "several operations"),
        ("graphql = { query = \"query A { a }\", operation = \"B\" }", "no operation of the name"),
        ("graphql = { query = \"subscription { a }\" }", "a subscription has no one answer"),
        ("graphql = { query = \"query($id: ID!) { a }\" }", "needs the variable `id`"),
        ("graphql = { query = \"query($id: ID) { a }\", variables = { ids = 1 } }", "did you mean `id`?"),
        ("graphql = { query = \"query($n: Int) { a }\", variables = { n = \"x\" } }", "`x` is no Int"),
        ("graphql = { query = \"query($n: Int) { a }\", variables = { n = \"{path.no}\" } }", "path.no"),
        ("graphql = { query = \"{ a }\", codes = { A = 200 } }", "from 400 to 599"),
        ("graphql_guard = { max_depth = 0 }", "from 1 to 100"),
        ("graphql_guard = { max_cost = 0 }", "nothing would be let through"),
        ("graphql_guard = { allow = [\"sha256:1\"] }", "64 hexadecimal digits"),
        ("graphql_guard = { allow = [\"bad.graphql\"] }", "bad.graphql:2:"),
        ("graphql_guard = { allow = [\"none\"] }", "cannot read"),
        ("graphql_guard = { allow = [] }", "nothing would be let through"),
    ] {
        let said = wrong(policy);
        assert!(said.contains(told), "{policy}\n{said}");
    }
}
