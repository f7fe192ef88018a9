//! The admin interface: who may ask, what it shows, and the draining of servers.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{Builder, Connection, DEADLINE, Gateway, Journal, Origin, Response, answer, eventually, gateway};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nupstream = \"o\"";

/// A pool of `@a` and `@b`.
fn pool_of(a: &Origin, b: &Origin) -> Builder {
    gateway().origin("a", a).origin("b", b).config("[upstream]\no = [\"@a\", \"@b\"]").config(ROUTE)
}

/// A gateway without servers, whose admin interface has a token.
fn guarded(token: &str) -> Builder {
    gateway()
        .config(&format!("[admin]\naddress = \"127.0.0.1:0\"\ntoken = {token}"))
        .config("[[route]]\nmatch = \"/**\"\nrespond = {}")
}

#[track_caller]
fn ask(gw: &Gateway, method: &str, target: &str) -> Response {
    let mut connection = gw.connect_to("admin");
    let response = connection.request(method, target).host("localhost").send();
    assert_eq!(response.header("cache-control"), "no-store");
    response
}

#[track_caller]
fn authorized(gw: &Gateway, target: &str, authorization: &str) -> Response {
    let mut connection = gw.connect_to("admin");
    connection.get(target).host("localhost").header("Authorization", authorization).send()
}

fn authorized_post(gw: &Gateway, target: &str, authorization: &str) -> Response {
    let mut connection = gw.connect_to("admin");
    connection.post(target).host("localhost").header("Authorization", authorization).send()
}

fn drain_of(server: &str) -> String {
    format!("/upstreams/o/servers/{server}/drain")
}

/// What is shown of a server.
#[track_caller]
fn server(gw: &Gateway, pool: &str, address: &str) -> Value {
    let shown = ask(gw, "GET", &format!("/upstreams/{pool}")).expect(200).json();
    let servers = shown["servers"].as_array().unwrap();
    servers.iter().find(|server| server["address"] == address).unwrap_or_else(|| panic!("{shown:#}")).clone()
}

#[test]
fn a_token_is_asked_for() {
    let gw = guarded("{ env = \"ADMIN_TOKEN\" }").env("ADMIN_TOKEN", TOKEN).start();
    for path in ["/upstreams", "/routes", "/upstreams/o", "/nothing"] {
        let refused = ask(&gw, "GET", path).expect(401).problem("unauthorized");
        assert_eq!(refused.header("www-authenticate"), "Bearer");
    }
    ask(&gw, "PUT", &drain_of("127.0.0.1:1")).expect(401);
    for wrong in [format!("Bearer {TOKEN}0"), format!("Bearer {}", &TOKEN[1..]), format!("Basic {TOKEN}"), TOKEN.into()]
    {
        let refused = authorized(&gw, "/routes", &wrong).expect(401).problem("unauthorized");
        assert!(!refused.text().contains(TOKEN));
    }
    for right in [format!("Bearer {TOKEN}"), format!("bearer {TOKEN}"), format!("BEARER {TOKEN}")] {
        authorized(&gw, "/routes", &right).expect(200);
        authorized(&gw, "/nothing", &right).expect(404).problem("not-found");
    }
    for open in ["/health", "/ready"] {
        ask(&gw, "GET", open).expect(200);
        authorized(&gw, open, "Bearer wrong").expect(200);
    }
    assert!(!gw.errors().concat().contains(TOKEN));
}

#[test]
fn a_token_can_be_in_a_file() {
    let gw = guarded("{ file = \"admin.token\" }").file("admin.token", format!("{TOKEN}\n")).start();
    authorized(&gw, "/routes", &format!("Bearer {TOKEN}")).expect(200);
    ask(&gw, "GET", "/routes").expect(401);
}

#[test]
fn without_a_token_all_is_open() {
    let gw = gateway().config("[[route]]\nmatch = \"/**\"\nrespond = {}").start();
    ask(&gw, "GET", "/routes").expect(200);
    authorized(&gw, "/routes", "Bearer whatever").expect(200);
}

#[test]
fn a_token_is_shown_nowhere() {
    let said = |config: &str| {
        let config = format!("{config}\n[[route]]\nmatch = \"/**\"\nrespond = {{}}");
        let output = gateway().config(&config).check();
        let all = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(all).unwrap())
    };
    let admin = |token: &str| format!("[admin]\naddress = \"127.0.0.1:0\"\ntoken = {token}");
    let (fine, text) = said(&admin("\"hunter2-hunter2-hunter2\""));
    assert!(fine && text.contains("the secret is written in the file") && !text.contains("fewer than"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    assert!(text.contains("token = ***"), "{text}");

    let (fine, text) = said(&admin("\"hunter2\""));
    assert!(fine && text.contains("the token has fewer than 16 characters") && !text.contains("hunter2"), "{text}");
    let (fine, text) = said(&admin("\"\"\"\nhunter2\nhunter2\n\"\"\""));
    assert!(!fine && text.contains("no white space") && !text.contains("hunter2"), "{text}");
    let (fine, text) = said(&admin("{ value = \"hunter2\" }"));
    assert!(!fine && text.contains("{ env = \"NAME\" }") && !text.contains("hunter2"), "{text}");
    let (fine, text) = said(&admin("31415926535897932"));
    assert!(!fine && !text.contains("31415926535897932"), "{text}");
    // Other mistakes on its line.
    let (fine, text) = said("admin = { adress = \"127.0.0.1:0\", token = \"hunter2\" }");
    assert!(!fine && text.contains("did you mean `address`?") && !text.contains("hunter2"), "{text}");
    let (fine, text) = said("admin = { address = \"192.0.2.1:9900\", token = \"hunter2\" }");
    assert!(!fine && text.contains("a loopback address") && !text.contains("hunter2"), "{text}");
}

#[test]
fn tokens_that_cannot_be_had_are_refused() {
    let refused = |builder: Builder| {
        let output = builder.check();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(guarded("{ env = \"ADMIN_TOKEN\" }").env("ADMIN_TOKEN", ""));
    assert!(text.contains("environment variable `ADMIN_TOKEN` is empty"), "{text}");
    let text = refused(guarded("{ file = \"admin.token\" }").file("admin.token", "\n"));
    assert!(text.contains("admin.token is empty"), "{text}");
    let text = refused(guarded("{ env = \"ADMIN_TOKEN\" }").env("ADMIN_TOKEN", "a secret"));
    assert!(text.contains("no white space") && !text.contains("a secret"), "{text}");
    let output = guarded("{ env = \"ADMIN_TOKEN\" }").env("ADMIN_TOKEN", "short-one").check();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && text.contains("fewer than 16 characters"), "{text}");
    assert!(!text.contains("short-one"), "{text}");
}

#[test]
fn only_hosts_that_are_here_are_answered() {
    let gw = gateway().config("[[route]]\nmatch = \"/**\"\nrespond = {}").start();
    for host in ["127.0.0.1", "127.0.0.1:9900", "[::1]:9900", "192.0.2.1", "localhost", "LOCALHOST:9900", "admin"] {
        gw.connect_to("admin").get("/routes").host(host).send().expect(200);
    }
    for host in ["rebound.example", "rebound.example:9900", "127.0.0.1.example", "localhost.example"] {
        for path in ["/health", "/routes"] {
            let mut connection = gw.connect_to("admin");
            connection.get(path).host(host).send().expect(421).problem("misdirected-request");
        }
        let mut connection = gw.connect_to("admin");
        connection.request("PUT", &drain_of("127.0.0.1:1")).host(host).send().expect(421);
        connection.get(&format!("http://{host}/routes")).host(host).send().expect(421);
    }
    let mut old = gw.connect_to("admin");
    old.send_raw("GET /health HTTP/1.0\r\n\r\n");
    let (answer, closed) = old.rest(DEADLINE);
    assert!(closed && String::from_utf8(answer).unwrap().contains("200 OK"));
    let mut old = gw.connect_to("admin");
    old.send_raw("GET /health HTTP/1.0\r\nHost: rebound.example\r\n\r\n");
    assert!(String::from_utf8(old.rest(DEADLINE).0).unwrap().contains(" 421 "));
}

#[test]
fn a_unix_socket_has_no_host() {
    let gw = gateway()
        .config("[admin]\naddress = \"unix:@dir/admin.sock\"")
        .config("[[route]]\nmatch = \"/**\"\nrespond = {}")
        .start();
    gw.connect_to("admin").get("/routes").host("whatever.example").send().expect(200);
}

#[test]
fn upstreams_are_shown() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = gateway()
        .origin("a", &a)
        .origin("b", &b)
        .set("port", b.address().rsplit_once(':').unwrap().1)
        .config(
            r#"
            [upstream]
            plain  = ["@a", "unix:/run/none.sock"]
            hashed = { servers = ["@a"], balance = { hash = "client" } }
            named  = { servers = ["localhost:@port"], balance = "peak_ewma" }
            [upstream.checked]
            servers = [{ address = "@a", weight = 3 }, { address = "127.0.0.1:1", drain = true }]
            balance = "least_request"
            health  = { interval = "100ms", unhealthy = 1 }
            [[route]]
            match = "/plain"
            upstream = "plain"
            "#,
        )
        .start();
    let shown = ask(&gw, "GET", "/upstreams").expect(200);
    assert_eq!(shown.header("content-type"), "application/json");
    let names: Vec<Value> = shown.json().as_array().unwrap().iter().map(|pool| pool["name"].clone()).collect();
    assert_eq!(names, ["checked", "hashed", "named", "plain"]);

    let server = |address: &str| json!({ "address": address, "weight": 1, "health": "healthy", "draining": false, "ejected": false, "active": 0 });
    let plain = ask(&gw, "GET", "/upstreams/plain").expect(200).json();
    let expected = [server(&a.address()), server("unix:/run/none.sock")];
    assert_eq!(plain, json!({ "name": "plain", "algorithm": "round_robin", "servers": expected }));
    assert_eq!(shown.json()[3], plain);
    assert_eq!(shown.json()[1]["algorithm"], "hash");

    let checked = eventually("both were checked", || {
        let checked = ask(&gw, "GET", "/upstreams/checked").expect(200).json();
        let known = checked["servers"].as_array().unwrap().iter().all(|server| server["health"] != "unknown");
        known.then_some(checked)
    });
    assert_eq!(checked["algorithm"], "least_request");
    let mut expected = server(&a.address());
    expected["weight"] = 3.into();
    assert_eq!(checked["servers"][0], expected);
    let mut expected = server("127.0.0.1:1");
    expected["health"] = "unhealthy".into();
    expected["draining"] = true.into();
    assert_eq!(checked["servers"][1], expected);

    let named = eventually("the name is resolved", || {
        let named = ask(&gw, "GET", "/upstreams/named").expect(200).json();
        named["servers"].as_array().unwrap().iter().find(|server| server["address"] == b.address()).cloned()
    });
    let name = b.address().replace("127.0.0.1", "localhost");
    assert_eq!((&named["name"], &named["health"]), (&name.into(), &"healthy".into()));

    for unknown in ["/upstreams/nobody", "/upstreams/", "/upstreams/plain/", "/upstreams/plain/servers", "/other", "/"]
    {
        ask(&gw, "GET", unknown).expect(404).problem("not-found");
    }
}

#[test]
fn routes_are_shown() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .origin("a", &origin)
        .config(
            r#"
            [upstream]
            users = ["@a"]
            [[route]]
            name = "user"
            match = "GET,HEAD /users/{id}"
            upstream = "users"
            [[route]]
            match = { path = "/old", host = "api.example.com" }
            redirect = { to = "/new" }
            [[route]]
            match = "/hello"
            respond = { body = "hello" }
            "#,
        )
        .start();
    let routes = ask(&gw, "GET", "/routes").expect(200);
    assert_eq!(routes.header("content-type"), "application/json");
    let expected = json!([
        { "name": "user", "match": "GET,HEAD /users/{id}", "destination": "upstream", "upstream": "users", "policies": [] },
        { "name": "api.example.com/old", "match": "api.example.com/old", "destination": "redirect", "policies": [] },
        { "name": "/hello", "match": "/hello", "destination": "respond", "policies": [] },
    ]);
    assert_eq!(routes.json(), expected);
}

#[test]
fn routes_show_what_comes_of_their_layers_without_secrets() {
    let text = r#"
        [auth.key]
        api_key = { header = "X-Key" }
        [consumer.me]
        keys = [{ sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }]
        [defaults]
        rate_limit = { rate = "100/s", by = "client" }
        response = { headers = { remove = ["X-Powered-By"] } }
        [policy.partner]
        rate_limit = { burst = 7 }
        request = { path = "/v1/{path.id}", headers = { set = { Authorization = "Bearer s3cret-bearer", X-From = "http://me:s3cret-url@host/" } } }
        [[route]]
        match = "/users/{id}"
        use = ["partner"]
        auth = "key"
        timeout = "2s"
        rate_limit = { rate = "10/s" }
        response = false
        respond = {}
        [[route]]
        match = "/plain"
        retry = false
        respond = {}
    "#;
    let gw = gateway().config(text).start();
    let policies = |i: usize| {
        let routes = ask(&gw, "GET", "/routes").expect(200);
        assert!(!routes.text().contains("s3cret"), "{}", routes.text());
        routes.json()[i]["policies"].clone()
    };
    let limit = |rate: serde_json::Value| json!({ "policy": "rate_limit", "settings": rate });
    assert_eq!(
        policies(0),
        json!([
            { "policy": "auth", "settings": "key" },
            limit(json!({ "rate": "10/s", "burst": 7, "by": "client" })),
            { "policy": "request", "settings": { "path": "/v1/{path.id}", "headers": { "set": { "Authorization": "***", "X-From": "***" } } } },
            { "policy": "timeout", "settings": { "total": "2s" } },
        ])
    );
    assert_eq!(
        policies(1),
        json!([
            limit(json!({ "rate": "100/s", "by": "client" })),
            { "policy": "retry", "settings": { "attempts": 0 } },
            { "policy": "response", "settings": { "headers": { "remove": ["X-Powered-By"] } } },
        ])
    );

    gw.rewrite(&text.replace("10/s", "20/s").replace("retry = false", "rate_limit = false"));
    ask(&gw, "POST", "/reload").expect(200);
    assert_eq!(policies(0)[1]["settings"]["rate"], "20/s");
    assert_eq!(policies(1).as_array().unwrap().len(), 1);
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let text = r#"
        include = ["more*.toml"]
        [admin]
        address = "127.0.0.1:0"
        token = "s3cret-admin-0123456789"
        [store.shared]
        redis = { url = "redis://:s3cret-redis@127.0.0.1:1/0" }
        [auth.hs]
        jwt = { secret = "s3cret-hs256-0123456789abcdef0123456789", audience = "here" }
        [auth.env]
        jwt = { secret = { env = "HS" }, audience = "here" }
        [auth.idp]
        introspection = { url = "http://127.0.0.1:1/", client_id = "me", client_secret = "s3cret-client" }
        [auth.key]
        api_key = { header = "X-Key" }
        [defaults]
        auth = "hs"
        [[route]]
        match = "/first"
        auth = false
        respond = {}
    "#;
    let more = r#"
        [consumer.partner]
        keys = [{ sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }]
        [[route]]
        name = "set"
        match = "/set/**"
        request = { headers = { set = { Authorization = "Bearer s3cret-bearer", X-Plain = "shown" } } }
        respond = { body = "x" }
        [[route]]
        match = "/limited"
        rate_limit = { rate = "1/h", store = "shared" }
        respond = {}
    "#;
    let gw = gateway().config(text).file("more.toml", more).env("HS", "s3cret-of-the-environment-0123456789").start();
    ask(&gw, "GET", "/config").expect(401);
    let bearer = "Bearer s3cret-admin-0123456789";
    let shown = || authorized(&gw, "/config", bearer).expect(200);
    let first = shown();
    assert_eq!(first.header("content-type"), "application/json");
    assert!(!first.text().contains("s3cret"), "{}", first.text());
    let all = first.json();
    assert_eq!(all["generation"], 1);
    let files: Vec<&str> = all["files"].as_array().unwrap().iter().map(|file| file.as_str().unwrap()).collect();
    assert!(files.len() == 2 && files[1].ends_with("/more.toml"), "{files:?}");
    let config = &all["config"];
    assert_eq!(config["admin"]["token"], "***");
    assert_eq!(config["store"]["shared"]["redis"]["url"], "***");
    assert_eq!(config["auth"]["hs"]["jwt"], json!({ "secret": "***", "audience": "here" }));
    assert_eq!(config["auth"]["env"]["jwt"]["secret"], json!({ "env": "HS" }));
    assert_eq!(config["auth"]["idp"]["introspection"]["client_secret"], "***");
    let hash = config["consumer"]["partner"]["keys"][0]["sha256"].as_str().unwrap();
    assert!(hash.starts_with("9f86d081"), "{hash}");
    let routes = config["route"].as_array().unwrap();
    assert_eq!(routes.len(), 3);
    assert_eq!(routes[0]["match"], "/first");
    assert_eq!(routes[1]["request"]["headers"]["set"], json!({ "Authorization": "***", "X-Plain": "shown" }));

    // What a reload keeps is as secret as before, and so is what it does not keep.
    gw.rewrite(&text.replace("s3cret-hs256", "s3cret-other"));
    authorized_post(&gw, "/reload", bearer).expect(200);
    let second = shown();
    assert_eq!(second.json()["generation"], 2);
    assert_eq!(second.json()["config"], *config);
    assert!(!second.text().contains("s3cret"), "{}", second.text());
}

#[test]
fn the_configuration_is_not_shown_when_its_secrets_are_not_known() {
    let gw = gateway()
        .file("hs", "0123456789abcdef0123456789abcdef")
        .config("[auth.hs]\njwt = { secret = { file = \"hs\" }, audience = \"here\" }")
        .config("[[route]]\nmatch = \"/**\"\nauth = \"hs\"\nrespond = {}")
        .start();
    ask(&gw, "GET", "/config").expect(200);
    std::fs::remove_file(gw.dir().join("hs")).unwrap();
    let problem = ask(&gw, "GET", "/config").expect(500).problem("configuration").json();
    assert!(problem["detail"].as_str().unwrap().contains("hs"), "{problem}");
    assert_eq!(gw.get("/").send().status, 401);
}

#[test]
fn head_is_get_without_a_body_and_other_methods_are_named() {
    let origin = Origin::saying("ok");
    let gw = pool_of(&origin, &Origin::saying("b")).start();
    let mut connection = gw.connect_to("admin");
    for path in ["/health", "/ready", "/upstreams", "/upstreams/o", "/routes", "/config"] {
        let get = connection.get(path).host("localhost").send().expect(200);
        let head = connection.request("HEAD", path).host("localhost").send().expect(200);
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
        assert_eq!((head.header("content-type"), head.header("cache-control")), ("application/json", "no-store"));
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let refused = connection.request(method, path).host("localhost").send().expect(405);
            assert_eq!(refused.problem("method-not-allowed").header("allow"), "GET, HEAD");
        }
    }
    connection.request("HEAD", "/other").host("localhost").send().expect(404);
    for method in ["GET", "HEAD", "POST"] {
        let refused = connection.request(method, &drain_of(&origin.address())).host("localhost").send().expect(405);
        assert_eq!(refused.header("allow"), "PUT, DELETE");
    }
}

#[test]
fn bodies_are_limited() {
    let origin = Origin::saying("ok");
    let gw = pool_of(&origin, &Origin::saying("b")).start();
    let path = drain_of(&origin.address());
    let mut connection = gw.connect_to("admin");
    connection.request("PUT", &path).host("localhost").body("{}").send().expect(204);
    connection.request("DELETE", &path).host("localhost").chunked("PUT / HTTP/1.1").send().expect(204);
    connection.request("PUT", &path).host("localhost").body(vec![b'x'; 64 << 10]).send().expect(204);
    let expecting = connection.request("DELETE", &path).host("localhost").header("Expect", "100-continue");
    let response = expecting.body("{}").send().expect(204);
    assert_eq!(response.interim.len(), 1);

    let mut connection = gw.connect_to("admin");
    connection.send_raw(format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n"));
    let refused = connection.response_to("PUT").unwrap().expect(413).problem("body-too-large");
    assert_eq!(refused.header("connection"), "close");
    connection.expect_closed();
    let mut connection = gw.connect_to("admin");
    connection.send_raw(format!("PUT {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"));
    // One byte too many, for what is not read when the connection ends would have it reset.
    connection.send_raw(format!("10001\r\n{}", "x".repeat(0x10001)));
    connection.response_to("PUT").unwrap().expect(413).problem("body-too-large");
    assert_eq!(server(&gw, "o", &origin.address())["draining"], false);
}

/// A server that takes its time over `/hold`, until the gate opens.
fn holding(gate: &Arc<Journal<()>>) -> Origin {
    let gate = gate.clone();
    Origin::answering(move |request| {
        if request.target == "/hold" {
            gate.wait_for("the gate to open", |opened| opened.first().copied());
        }
        answer(200).body("held")
    })
}

#[test]
fn a_drained_server_ends_what_it_has_and_gets_nothing_new() {
    let gate = Arc::new(Journal::default());
    let (a, b) = (holding(&gate), Origin::saying("b"));
    let gw = pool_of(&a, &b).start();
    let mut waiting: Connection = gw.connect();
    eventually("the server has a request", || {
        // Turns about, until it is the one that holds.
        if b.requests_for("/hold").len() > a.requests_for("/hold").len() {
            waiting.response_to("GET").unwrap().expect(200);
        }
        waiting.send_raw("GET /hold HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
        eventually("one of them has it", || {
            (a.requests_for("/hold").len() + b.requests_for("/hold").len() > 0).then_some(())
        });
        (!a.requests_for("/hold").is_empty()).then_some(())
    });
    assert_eq!(server(&gw, "o", &a.address())["active"], 1);

    let path = drain_of(&a.address());
    ask(&gw, "PUT", &path).expect(204);
    ask(&gw, "PUT", &path).expect(204);
    let drained = server(&gw, "o", &a.address());
    assert_eq!((&drained["draining"], &drained["active"]), (&true.into(), &1.into()));
    let before = a.requests().len();
    for _ in 0..10 {
        gw.get("/").send().expect(200).says("b");
    }
    assert_eq!(a.requests().len(), before);
    gate.push(());
    waiting.response_to("GET").unwrap().expect(200).says("held");
    eventually("nothing is under way", || (server(&gw, "o", &a.address())["active"] == 0).then_some(()));
    assert!(gw.errors().iter().any(|line| line.contains("of the upstream o is drained")));

    ask(&gw, "DELETE", &path).expect(204);
    assert_eq!(server(&gw, "o", &a.address())["draining"], false);
    for _ in 0..4 {
        gw.get("/").send().expect(200);
    }
    assert!(a.requests().len() > before);
}

#[test]
fn when_all_are_drained_none_is_asked() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = pool_of(&a, &b).start();
    ask(&gw, "PUT", &drain_of(&a.address())).expect(204);
    ask(&gw, "PUT", &drain_of(&b.address())).expect(204);
    gw.get("/").send().expect(503).problem("no-upstream");
    ask(&gw, "DELETE", &drain_of(&b.address().replace(':', "%3a"))).expect(204);
    gw.get("/").send().expect(200).says("b");
}

#[test]
fn a_drain_of_what_is_not_there() {
    let (a, b) = (Origin::saying("a"), Origin::saying("b"));
    let gw = pool_of(&a, &b).start();
    for method in ["PUT", "DELETE"] {
        for address in ["127.0.0.1:1", "nobody.test:80", "unix:%2Fnone", "", "%ff", "127.0.0.1", "a%2F..%2Fb"] {
            ask(&gw, method, &drain_of(address)).expect(404).problem("not-found");
        }
        ask(&gw, method, &format!("/upstreams/nobody/servers/{}/drain", a.address())).expect(404).problem("not-found");
        ask(&gw, method, &format!("/upstreams/o/servers/{}", a.address())).expect(404).problem("not-found");
        ask(&gw, method, &format!("/upstreams/o/server/{}/drain", a.address())).expect(404).problem("not-found");
    }
}

#[test]
fn addresses_are_percent_encoded_where_they_must_be() {
    let gw = gateway().config("[upstream]\no = [\"unix:/run/a b.sock\", \"[::1]:80\"]").config(ROUTE).start();
    for (encoded, address) in
        [("unix:%2Frun%2Fa%20b.sock", "unix:/run/a b.sock"), ("%5B::1%5D:80", "[::1]:80"), ("[0:0::1]:80", "[::1]:80")]
    {
        ask(&gw, "PUT", &drain_of(encoded)).expect(204);
        assert_eq!(server(&gw, "o", address)["draining"], true, "{encoded}");
        ask(&gw, "DELETE", &drain_of(encoded)).expect(204);
        assert_eq!(server(&gw, "o", address)["draining"], false, "{encoded}");
    }
}

#[test]
fn a_name_is_drained_as_a_whole_or_by_address() {
    let origin = Origin::saying("found");
    let port = origin.address().rsplit_once(':').unwrap().1.to_owned();
    let gw = gateway().set("port", &port).config("[upstream]\no = [\"localhost:@port\"]").config(ROUTE).start();
    eventually("the name is resolved", || (gw.get("/").send().status == 200).then_some(()));
    let draining = || {
        let shown = ask(&gw, "GET", "/upstreams/o").expect(200).json();
        let servers = shown["servers"].as_array().unwrap();
        servers.iter().all(|server| server["draining"] == true)
    };
    let name = drain_of(&format!("localhost:{port}"));
    ask(&gw, "PUT", &name).expect(204);
    assert!(draining());
    gw.get("/").send().expect(503).problem("no-upstream");

    ask(&gw, "DELETE", &drain_of(&origin.address())).expect(204);
    gw.get("/").send().expect(200).says("found");
    ask(&gw, "PUT", &drain_of(&origin.address())).expect(204);
    assert_eq!(server(&gw, "o", &origin.address())["draining"], true);
    ask(&gw, "DELETE", &name).expect(204);
    assert!(!draining());
    gw.get("/").send().expect(200).says("found");
}

#[test]
fn a_name_can_be_drained_before_it_is_resolved() {
    let gw = gateway().config("[upstream]\no = [\"nowhere.invalid:80\"]").config(ROUTE).start();
    assert_eq!(ask(&gw, "GET", "/upstreams/o").expect(200).json()["servers"], json!([]));
    ask(&gw, "PUT", &drain_of("nowhere.invalid:80")).expect(204);
    ask(&gw, "PUT", &drain_of("nowhere.invalid:81")).expect(404);
}
