//! What a request may be like.

use crate::harness::{Authority, Gateway, Origin, answer, eventually, gateway};

/// Routes with a limit of ten bytes: to a server that is asked socket to socket, and to one that Pingora asks.
struct Ways {
    gw: Gateway,
    short: Origin,
    long: Origin,
}

const WAYS: [&str; 2] = ["/short", "/long"];

fn ways(listener: &str) -> Ways {
    let authority = Authority::new("test");
    let echo = |request: &crate::harness::Seen| answer(200).body(request.text());
    let short = Origin::answering(echo);
    let long = Origin::over_tls(authority.server(&["origin.test"], &["http/1.1"], false), echo);
    let gw = gateway()
        .origin("short", &short)
        .origin("long", &long)
        .file("ca.pem", authority.pem())
        .config(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\n{listener}"))
        .config(
            r#"
            [upstream]
            short = ["@short"]
            long  = { servers = ["@long"], tls = { ca = "ca.pem", sni = "origin.test" } }
            [defaults]
            validate = { max_body = "10B" }
            [[route]]
            match    = "/short"
            upstream = "short"
            [[route]]
            match    = "/long"
            upstream = "long"
            [[route]]
            match    = "/free"
            upstream = "short"
            validate = false
            "#,
        )
        .start();
    Ways { gw, short, long }
}

impl Ways {
    fn origin(&self, way: &str) -> &Origin {
        if way == "/short" { &self.short } else { &self.long }
    }
}

#[test]
fn a_body_that_is_said_to_be_too_long_is_not_sent() {
    let ways = ways("");
    for way in WAYS {
        let mut client = ways.gw.connect();
        client.post(way).body("0123456789").send().expect(200).says("0123456789");
        client.post(way).body("0123456789a").send().expect(413).problem("body-too-large");
        client.expect_closed();
        let mut h2 = ways.gw.h2c();
        h2.post(way).header("content-length", "10").body("0123456789").send().expect(200).says("0123456789");
        h2.post(way).header("content-length", "11").body("0123456789a").send().expect(413).problem("body-too-large");
        h2.get(way).send().expect(200);
        assert_eq!(ways.origin(way).requests().len(), 3);
    }
    ways.gw.post("/free").body("0123456789a").send().expect(200);
    let line = ways.gw.logged("the refusal", |line| line["status"] == 413);
    assert_eq!(line["stopped_by"], "validate");
}

#[test]
fn a_body_that_grows_too_long_is_cut() {
    let ways = ways("");
    for way in WAYS {
        let origin = ways.origin(way);
        let mut client = ways.gw.connect();
        client.post(way).chunked("0123456789").send().expect(200).says("0123456789");
        client.send_raw(format!("POST {way} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nABCDE\r\n"));
        let has = |bytes: &[u8]| origin.bytes().windows(bytes.len()).any(|window| window == bytes);
        eventually("the first part at the origin", || has(b"ABCDE").then_some(()));
        client.send_raw("6\r\nFGHIJK\r\n");
        client.response_to("POST").unwrap().expect(413).problem("body-too-large");
        client.expect_closed();

        let mut h2 = ways.gw.h2c();
        h2.post(way).body("0123456789").send().expect(200).says("0123456789");
        let mut call = h2.post(way).open();
        call.write(b"LMNOP");
        eventually("the first part at the origin", || has(b"LMNOP").then_some(()));
        call.write(b"QRSTUV");
        call.response().expect(413);
        drop(call);
        h2.get(way).send().expect(200);
        assert!(!has(b"FGHIJ") && !has(b"QRSTU"), "more than the limit was passed on");
        assert_eq!(origin.requests().len(), 3);
    }
    let line = ways.gw.logged("the refusal", |line| line["status"] == 413);
    assert_eq!((&line["stopped_by"], &line["attempts"]), (&"body-too-large".into(), &1.into()));
}

#[test]
fn who_waits_for_100_continue_is_refused_before_it_sends() {
    let ways = ways("");
    for way in WAYS {
        let mut client = ways.gw.connect();
        let head = |length| {
            format!("POST {way} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
        };
        client.send_raw(head(5) + "01234");
        client.response_to("POST").unwrap().expect(200).says("01234");
        client.send_raw(head(11));
        let refused = client.response_to("POST").unwrap().expect(413);
        assert!(refused.interim.is_empty(), "{:?}", refused.interim);
        client.expect_closed();
        let mut client = ways.gw.connect();
        client.send_raw(format!(
            "POST {way} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
        ));
        client.send_raw("b\r\n0123456789a\r\n0\r\n\r\n");
        client.response_to("POST").unwrap().expect(413);
    }
}

#[test]
fn the_smaller_of_two_limits_holds() {
    let ways = ways("limits = { max_body = \"5B\" }");
    for way in ["/short", "/long", "/free"] {
        ways.gw.post(way).body("01234").send().expect(200);
        ways.gw.post(way).body("012345").send().expect(413);
        ways.gw.post(way).chunked("012345").send().expect(413);
    }
}

const USERS: &str = r##"
openapi: 3.0.3
info: { title: Users, version: "1" }
servers: [{ url: "http://users.internal:8081/v1" }, { url: "https://other.example" }]
security: [{ token: [] }]
paths:
  /users/{user.id}:
    parameters:
      - { name: user.id, in: path, required: true, schema: { type: integer, minimum: 1 } }
    get:
      operationId: getUser
      summary: One user
      parameters:
        - { name: fields, in: query, explode: false, schema: { type: array, items: { enum: [name, mail] } } }
        - { name: X-Trace, in: header, schema: { type: string, maxLength: 3 } }
      responses: { 200: { description: yes } }
    put:
      security: []
      requestBody:
        required: true
        content: { application/json: { schema: { $ref: "#/components/schemas/User" } } }
      responses: { 200: { description: yes } }
    head: { responses: { 200: { description: yes } } }
  /report.{format}:
    get: { responses: { 200: { description: yes } } }
  /users/by/{user}:
    get:
      operationId: report
      parameters: [{ name: user, in: path, required: true, schema: { type: string, minLength: 2 } }]
components:
  securitySchemes: { token: { type: http, scheme: bearer } }
  schemas: { User: { type: object, required: [name], properties: { name: { type: string } } } }
"##;

/// What an answer says is wrong.
fn errors(response: crate::harness::Response) -> serde_json::Value {
    let text = response.problem("invalid-request").text().to_owned();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["errors"].clone()
}

#[test]
fn parameters_are_held_to_their_schemas() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .origin("o", &origin)
        .file("id.json", r#"{ "type": "integer", "minimum": 1 }"#)
        .config(
            r#"
            [upstream]
            o = ["@o"]
            [policy.checked.validate]
            query   = { page = { type = "integer", minimum = 1 }, tag = { type = "array", maxItems = 2 } }
            headers = { X-Tenant = { required = true, pattern = "^[a-z]+$" } }
            [[route]]
            match    = "/users/{id}"
            upstream = "o"
            use      = ["checked"]
            validate = { path = { id = { "$ref" = "id.json" } }, content_types = ["application/json", "text/*"] }
            [[route]]
            match    = "/reported"
            upstream = "o"
            use      = ["checked"]
            validate = { report_only = true }
            "#,
        )
        .start();
    let get = |target: &str| gw.get(target).header("X-Tenant", "acme");
    get("/users/7?page=2&tag=a&tag=b&other=x").send().expect(200);
    get("/users/7").send().expect(200);
    assert_eq!(
        errors(gw.get("/users/seven?page=0&tag=a&tag=b&tag=secret").header("X-Tenant", "SECRET").send().expect(400)),
        serde_json::json!([
            { "parameter": "page", "detail": "is less than 1" },
            { "parameter": "tag", "detail": "has more than 2 items" },
            { "parameter": "id", "detail": "is not of the type integer" },
            { "header": "X-Tenant", "detail": "does not match ^[a-z]+$" },
        ])
    );
    let line = gw.logged("the refusal", |line| line["status"] == 400);
    assert_eq!((&line["stopped_by"], &line["cause"]), (&"validate".into(), &"page: is less than 1".into()));
    let twice = errors(get("/users/7?page=1&page=2").send().expect(400));
    assert_eq!(twice, serde_json::json!([{ "parameter": "page", "detail": "is given more than once" }]));
    let missing = errors(gw.get("/users/7").send().expect(400));
    assert_eq!(missing, serde_json::json!([{ "header": "X-Tenant", "detail": "is missing" }]));
    let mut client = gw.h2c();
    client.get("/users/7?page=x").header("x-tenant", "a").send().expect(400);
    let post = |kind: &str| gw.post("/users/7").header("X-Tenant", "a").header("Content-Type", kind).body("1").send();
    post("Application/JSON;charset=utf-8").expect(200);
    post("text/csv").expect(200);
    post("image/png").expect(415).problem("unsupported-media-type");
    gw.post("/users/7").header("X-Tenant", "a").body("1").send().expect(415);

    gw.get("/reported?page=0").send().expect(200);
    let line = gw.logged("the report", |line| line["shadowed"] == "validate");
    assert_eq!((&line["status"], &line["cause"]), (&200.into(), &"page: is less than 1".into()));
    assert_eq!(gw.metric("portcullis_policy_shadowed_total{route=\"/reported\",policy=\"validate\"}"), Some(1.0));
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn an_openapi_document_says_what_requests_may_be_like() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .origin("o", &origin)
        .file("users.yaml", USERS)
        .config(
            r#"
            [upstream]
            o = ["@o"]
            [[route]]
            match    = "/v1/users/{id}"
            upstream = "o"
            validate = { openapi = "users.yaml" }
            [[route]]
            match    = "/one/{user}"
            upstream = "o"
            validate = { openapi = { file = "users.yaml", operation = "report" } }
            "#,
        )
        .start();
    gw.get("/v1/users/7?fields=name,mail").header("X-Trace", "abc").send().expect(200);
    let wrong = errors(gw.get("/v1/users/0?fields=name,age").header("X-Trace", "abcd").send().expect(400));
    assert_eq!(wrong.as_array().unwrap().len(), 3, "{wrong}");
    assert_eq!(gw.post("/v1/users/7").send().expect(405).header("allow"), "GET, PUT, HEAD");
    gw.request("PUT", "/v1/users/7").header("Content-Type", "text/plain").body("x").send().expect(415);
    gw.request("PUT", "/v1/users/7").header("Content-Type", "application/json").body("{}").send().expect(400);
    let named = r#"{"name": "Ada"}"#;
    gw.request("PUT", "/v1/users/7").header("Content-Type", "application/json").body(named).send().expect(200);
    gw.get("/one/ab").send().expect(200);
    gw.get("/one/%61").send().expect(400);
    assert_eq!(origin.requests().len(), 3);
}

#[test]
fn a_document_becomes_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("users.yaml"), USERS).unwrap();
    let (document, output) = (at("users.yaml"), at("gateway.toml"));
    let import = || {
        let done = crate::harness::portcullis(&["import", &document, "--output", &output]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        std::fs::read_to_string(&output).unwrap()
    };
    let written = import();
    assert_eq!(written, import(), "it is the same each time");
    for words in [
        "# Users, from users.yaml.",
        "api = [\"users.internal:8081\"]\n# The document has this server too: https://other.example\n",
        "# [auth.token]\n# jwt = { issuer = \"https://id.example.com/\", ",
        "# One user\n[[route]]\nname     = \"getUser\"\nmatch    = \"GET /v1/users/{user_id}\"\nupstream = \"api\"\n",
        "# auth  = [\"token\"]\n",
        "name     = \"PUT /v1/users/{user_id}\"\n",
        "# HEAD /users/{user.id} is not carried over: the route for GET takes HEAD\n",
        "# GET /report.{format} is not carried over: ",
    ] {
        assert!(written.contains(words), "{words}: {written}");
    }
    let checked = crate::harness::portcullis(&["check", &output]);
    assert!(checked.status.success(), "{}{written}", String::from_utf8_lossy(&checked.stderr));
    let named = crate::harness::portcullis(&["import", &document, "--upstream", "u", "--address", "127.0.0.1:9"]);
    assert!(String::from_utf8_lossy(&named.stdout).contains("\nu = [\"127.0.0.1:9\"]\n"));
    std::fs::write(at("bad.yaml"), "openapi: 3.0.0\npaths: { x: {} }").unwrap();
    let refused = crate::harness::portcullis(&["import", &at("bad.yaml")]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bad.yaml, at /paths/x: a path begins with `/`"));
}

const ORDER: &str = r#"{ "type": "object", "required": ["sku"], "additionalProperties": false,
  "properties": { "sku": { "type": "string" }, "count": { "type": "integer", "minimum": 1 } } }"#;

#[test]
fn a_body_is_held_to_its_schema_and_sent_as_it_came() {
    let echo = |request: &crate::harness::Seen| answer(200).body(request.text());
    let (origin, h2) =
        (Origin::answering(echo), crate::harness::H2Origin::plain(|_| crate::harness::H2Answer::new(200)));
    let gw = gateway()
        .origin("o", &origin)
        .set("h2", h2.address())
        .file("order.json", ORDER)
        .config(
            r#"
            [upstream]
            o  = ["@o"]
            h2 = { servers = ["@h2"], protocol = "h2c" }
            [defaults]
            validate = { body = "order.json" }
            [[route]]
            match    = "/plain"
            upstream = "o"
            [[route]]
            match    = "/h2"
            upstream = "h2"
            [[route]]
            match    = "/reported"
            upstream = "o"
            validate = { report_only = true }
            [[route]]
            match    = "/long"
            upstream = "o"
            validate = { max_body = "4MiB" }
            "#,
        )
        .start();
    let post = |target: &str, body: &str| gw.post(target).header("Content-Type", "application/json").body(body).send();
    let text = "{ \"sku\": \"a\\u0062\",\n \"count\": 3.0 }";
    for target in ["/plain", "/h2"] {
        post(target, text).expect(200);
        gw.post(target).header("Content-Type", "application/json").chunked(text).send().expect(200);
        let wrong = errors(post(target, r#"{"count": 0, "x": 1}"#).expect(400));
        let pointers: Vec<&str> =
            wrong.as_array().unwrap().iter().filter_map(|wrong| wrong["pointer"].as_str()).collect();
        assert!(pointers.contains(&"#/count") && pointers.len() == 3, "{wrong}");
        for (body, status) in [("", 400), ("{", 400), ("{\"sku\": \"a\", \"sku\": \"b\"}", 400), ("[]", 400)] {
            assert_eq!(post(target, body).status, status, "{body}");
        }
        gw.post(target)
            .header("Content-Type", "text/plain")
            .body("{}")
            .send()
            .expect(415)
            .problem("unsupported-media-type");
        gw.get(target).send().expect(400).problem("invalid-request");
    }
    assert_eq!(
        gw.h2c().post("/plain").header("content-type", "application/json").body(text).send().expect(200).text(),
        text
    );
    let seen: Vec<String> = origin.requests().iter().chain(&h2.requests()).map(crate::harness::Seen::text).collect();
    assert_eq!(seen, [text; 5]);
    assert_eq!(post("/reported", "{}").expect(200).text(), "{}");
    gw.logged("the report", |line| line["shadowed"] == "validate" && line["route"] == "/reported");
    let coded = gw.post("/reported").header("Content-Type", "application/json").header("Content-Encoding", "deflate");
    coded.body("what is it?").send().expect(200).says("what is it?");
    let long = format!("{{ \"sku\": \"{}\" }}", "x".repeat(3 << 20));
    assert_eq!(post("/long", &long).expect(200).text(), long);
    let mut connection = gw.connect();
    let head = "POST /plain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    connection.send_raw(format!("{head}Content-Length: {}\r\n\r\n", (1 << 20) + 1));
    connection.response_to("POST").unwrap().expect(413).problem("body-too-large");
}

#[test]
fn hostile_bodies_end_in_time_and_reach_nobody() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .origin("o", &origin)
        .file("tree.json", r##"{ "$ref": "#/$defs/tree", "$defs": { "tree": { "anyOf": [{ "type": "object", "additionalProperties": { "$ref": "#/$defs/tree" } }, { "type": "array", "items": { "$ref": "#/$defs/tree" }, "uniqueItems": true }, { "type": "string", "pattern": "^(a+)+$" }] } } }"##)
        .config("[upstream]\no = [\"@o\"]\n[[route]]\nmatch = \"/\"\nupstream = \"o\"\nvalidate = { body = \"tree.json\" }")
        .start();
    let items: String = (0..100_000).map(|i| format!("\"{}\",", "a".repeat(i % 7))).collect();
    for body in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        "[".repeat(127) + "1" + &"]".repeat(127),
        format!("[{items}1]"),
        format!("\"{}!\"", "a".repeat(100_000)),
        "9".repeat(1000),
        "\u{feff}{}".to_owned(),
    ] {
        let got = gw.post("/").header("Content-Type", "application/json").body(&body).send();
        got.expect(400).problem("invalid-request");
    }
    assert_eq!(origin.requests().len(), 0);
}
