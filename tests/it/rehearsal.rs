//! What the gateway would do with a request: `[[test]]` and `explain` say it, and live traffic does it.

use std::process::Output;

use serde_json::{Value, json};

use crate::harness::{Authority, Builder, Origin, gateway, portcullis};

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned()).concat()
}

/// A configuration with something of everything.
const CONFIG: &str = r#"
[listen.public]
address   = "127.0.0.1:0"
client_ip = { header = "X-Forwarded-For", trust = ["127.0.0.2"] }
limits    = { max_uri = "60B", max_body = "10B" }
[listen.trusting]
address   = "127.0.0.1:0"
client_ip = { header = "X-Forwarded-For", trust = ["127.0.0.0/8"] }
[upstream]
users = ["@a"]
other = { servers = ["@a"], forwarded = "forwarded" }
[defaults]
request  = { headers = { remove = ["Cookie"], set = { X-Route = "{route}" } } }
response = { headers = { set = { X-Request-Id = "{request.id}", X-From = "{upstream}" } } }
[policy.partner]
request = { headers = { set = { X-Partner = "yes" } } }
[[route]]
match    = "GET /users/{id}"
upstream = "users"
use      = ["partner"]
request  = { path = "/v1/users/{path.id}", query = { set = { from = "{client.ip}" } } }
[[route]]
name     = "me"
match    = "GET /users/me"
upstream = "other"
response = false
[[route]]
name     = "beta"
match    = { path = "/users/me", methods = ["GET"], headers = { X-Beta = "1" } }
respond  = { status = 203, headers = { X-Who = "{client.ip}" }, body = "{host}" }
[[route]]
match    = { path = "/**", host = "*.example.org" }
upstream = "other"
[[route]]
match    = "GET /old/{id}"
redirect = { to = "https://{host}/users/{path.id}" }
[[route]]
match    = "/raw/**"
upstream = "other"
request  = { path = "/{query.p}" }
"#;

fn configured(origin: &Origin) -> Builder {
    gateway().origin("a", origin).config(CONFIG)
}

#[test]
fn what_is_said_is_what_live_traffic_does() {
    let origin = Origin::saying("ok");
    let gw = configured(&origin).start();
    let file = gw.dir().join("portcullis.toml");
    let requests: &[(&str, &str, &str, &[&str])] = &[
        ("GET /users/7", "public", "gateway.test", &[]),
        ("HEAD /users/7?a=b&from=x", "public", "gateway.test", &["Cookie: a=b", "Accept: x/y"]),
        ("GET /users/%41/../me", "public", "GATEWAY.test:80", &[]),
        ("GET /users/me", "public", "gateway.test", &["X-Beta: 1"]),
        ("GET /users/me", "public", "a.example.org", &["X-Beta: 1", "Forwarded: for=1.1.1.1"]),
        ("POST /users/7", "public", "gateway.test", &[]),
        ("POST /users/7", "public", "a.example.org.", &["Content-Length: 0"]),
        ("GET /old/x%20y", "public", "gateway.test:8080", &[]),
        ("GET /nowhere", "public", "gateway.test", &[]),
        ("GET /%2e%2e/x", "public", "gateway.test", &[]),
        ("GET /raw/x?p=..", "public", "gateway.test", &[]),
        ("GET /raw/x?p=a/b", "public", "gateway.test", &["Connection: X-Drop", "X-Drop: 1", "TE: trailers"]),
        ("OPTIONS *", "public", "gateway.test", &[]),
        ("BREW /users/7", "public", "gateway.test", &[]),
        ("GET /users/0123456789012345678901234567890123456789012345678901234567890", "public", "gateway.test", &[]),
        ("POST /raw/", "public", "gateway.test", &["Content-Length: 11"]),
        ("GET /nowhere", "public", "gateway.test", &["Content-Type: application/grpc"]),
        ("GET /users/7", "public", "gateway.test", &["X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"]),
        ("GET /users/7", "trusting", "gateway.test", &["X-Forwarded-For: 203.0.113.7", "X-Forwarded-Proto: https"]),
        ("GET /users/me", "trusting", "gateway.test", &["X-Request-Id: given", "Forwarded: for=1.1.1.1"]),
        ("GET /users/7", "public", "no host", &[]),
    ];
    for (i, (request, listener, host, fields)) in requests.iter().enumerate() {
        let fields: Vec<String> =
            std::iter::once(format!("Host: {host}")).chain(fields.iter().map(|f| (*f).to_owned())).collect();
        let before = origin.requests().len();
        let mut connection = gw.connect_to(listener);
        connection.send_raw(format!("{request} HTTP/1.1\r\n{}\r\n\r\n", fields.join("\r\n")));
        let response = connection.response_to(request.split(' ').next().unwrap()).unwrap();
        let line = gw.logged_lines(i + 1)[i].clone();

        let question = json!({ "request": request, "headers": fields, "listener": listener });
        let live = gw.admin_post("/explain", &question.to_string()).expect(200).json();
        let mut arguments =
            vec!["explain", request, "--config", file.to_str().unwrap(), "--listener", listener, "--json"];
        fields.iter().for_each(|field| arguments.extend(["-H", field]));
        let offline: Value = serde_json::from_slice(&portcullis(&arguments).stdout).unwrap();
        assert_eq!(live, offline, "{request}");

        let word = |value: &Value| value.as_str().unwrap_or("").to_owned();
        assert_eq!(word(&live["route"]["name"]), word(&line["route"]), "{request}: {line}");
        assert_eq!(word(&live["upstream"]), word(&line["upstream"]), "{request}: {line}");
        assert_eq!(word(&live["stopped_by"]), word(&line["stopped_by"]), "{request}: {line}");
        assert_eq!(word(&live["client"]), word(&line["client"]), "{request}: {line}");
        let lines = |value: &Value| value.as_array().unwrap().iter().map(word).collect::<Vec<_>>();
        let id = |line: &String| !line.starts_with("X-Request-Id: ");
        if live["sent"].is_null() {
            assert_eq!(live["answer"]["status"], response.status, "{request}: {line}");
            for field in lines(&live["answer"]["headers"]).into_iter().filter(id) {
                let (name, value) = field.split_once(": ").unwrap();
                assert!(
                    response.headers.all(name).contains(&value),
                    "{request}: {field} is not in {:?}",
                    response.headers
                );
            }
            assert_eq!(origin.requests().len(), before, "{request}");
        } else {
            let seen = origin.wait_for_requests(before + 1).pop().unwrap();
            let mut told = vec![format!("{} {} {}", seen.method, seen.target, seen.version)];
            told.extend(seen.headers.0.iter().map(|(name, value)| format!("{name}: {value}")));
            told.retain(id);
            let mut foretold = lines(&live["sent"]["head"]);
            if fields.iter().any(|field| field == "X-Request-Id: given") {
                assert!(foretold.contains(&"X-Request-Id: given".to_owned()), "{foretold:?}");
            }
            foretold.retain(id);
            assert_eq!(foretold, told, "{request}");
        }
    }
}

#[test]
fn what_is_said_of_tls_is_what_is_done() {
    let origin = Origin::saying("ok");
    let authority = Authority::new("test");
    let gw = gateway()
        .secured(&authority.issue(&["x.test"]), "")
        .config(&format!("[upstream]\no = {{ servers = [\"{}\"], forwarded = \"both\" }}", origin.address()))
        .config("[[route]]\nmatch = { path = \"/**\", when = \"request.scheme == 'https'\" }\nupstream = \"o\"")
        .start();
    let mut connection = gw.connect_tls("x.test", authority.client(&[])).unwrap();
    connection.get("/a").host("x.test").send().expect(200);
    let seen = origin.only_request();
    let live = gw.admin_post("/explain", "{\"request\":\"GET https://x.test/a\"}").expect(200).json();
    let told = |name: &str| format!("{name}: {}", seen.header(name));
    for name in ["Host", "X-Forwarded-Proto", "X-Forwarded-For", "X-Forwarded-Host", "Forwarded", "Via"] {
        assert!(live["sent"]["head"].as_array().unwrap().contains(&told(name).into()), "{}: {live}", told(name));
    }
    assert_eq!(told("X-Forwarded-Proto"), "X-Forwarded-Proto: https");
}

#[test]
fn a_request_is_explained() {
    let config = gateway().set("a", "127.0.0.1:8081").config(CONFIG);
    let output =
        config.run(&["explain", "GET http://x.test/users/me?q=1", "--config", "@file", "--client", "192.0.2.1"]);
    let text = said(&output).replace(&format!("{}/", config.dir().display()), "");
    assert_eq!(
        text,
        r#"GET http://x.test/users/me?q=1
  by the listener public, from 192.0.2.1

Route
  me  portcullis.toml:24
  matches GET /users/me

Near misses
  GET /users/{id}  portcullis.toml:18
    less specific: `{id}` where the winner has `me`
  beta  portcullis.toml:29
    it asks for the header x-beta = "1"
  *.example.org/**  portcullis.toml:32
    it is for `*.example.org`

Policies
  request
    headers.remove = ["Cookie"]  portcullis.toml:13 (defaults)
    headers.set.X-Route = "{route}"  portcullis.toml:13 (defaults)
  response is switched off  portcullis.toml:26

Sent to the upstream other (127.0.0.1:8081)
  GET /users/me?q=1 HTTP/1.1
  Host: x.test
  Forwarded: for=192.0.2.1;host="x.test";proto=http
  X-Request-Id: <request-id>
  Via: 1.1 portcullis
  X-Route: me
"#
    );
    let output = config.run(&["explain", "GET /users/7", "--config", "@file"]);
    let text = said(&output);
    for words in [
        "  {id} = 7\n",
        "  request\n    headers.remove = [\"Cookie\"]  ",
        "portcullis.toml:16 (policy.partner)",
        "    path = \"/v1/users/{path.id}\"  ",
        "portcullis.toml:21 (route)",
        "portcullis.toml:14 (defaults)",
        "  GET /v1/users/7?from=127.0.0.1 HTTP/1.1\n  Host: localhost\n",
        "  X-Partner: yes\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let output = config.run(&["explain", "GET /user/7", "--config", "@file"]);
    let text = said(&output);
    for words in
        ["Route\n  none\n", "it has `users` where the path has `user`", "Answered by no-route\n  404 Not Found\n"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
    let many = (0..20)
        .map(|i| format!("[[route]]\nmatch = {{ path = \"/m\", headers = {{ a = \"{i}\" }} }}\nrespond = {{}}\n"));
    let output = gateway().config(&many.collect::<String>()).run(&["explain", "GET /m", "--config", "@file"]);
    assert!(said(&output).contains("\n  and 12 more\n"), "{}", said(&output));
}

#[test]
fn short_forms_are_explained_in_full() {
    let config = gateway()
        .config("[upstream]\no = [\"127.0.0.1:1\"]\nnext = [\"127.0.0.1:2\"]")
        .config("[defaults]\ntimeout = { connect = \"1s\", total = \"9s\" }\nretry = { attempts = 2 }")
        .config("mirror = { upstream = \"next\", share = 0.5 }\nvalidate = { max_body = \"10B\" }")
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"\ntimeout = \"2s\"\nretry = false");
    let text = said(&config.run(&["explain", "POST /", "--config", "@file"]));
    for words in [
        "  timeout\n    connect = \"1s\"  ",
        "    total = \"2s\"  ",
        "portcullis.toml:12 (route)\n",
        "  retry is switched off  ",
        "\nA share of 0.5 is copied to the upstream next (127.0.0.1:2)\n",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    for (field, sent) in [("Content-Length: 10", true), ("Content-Length: 11", false), ("Upgrade: websocket", true)] {
        let text = said(&config.run(&["explain", "POST /", "--config", "@file", "-H", field]));
        assert_eq!(text.contains("Sent to the upstream o"), sent, "{text}");
        assert_eq!(text.contains("is copied to"), field.ends_with("10"), "{text}");
    }
}

#[test]
fn the_scheme_chooses_the_listener() {
    let identity = Authority::new("test").issue(&["x.test"]);
    let config = gateway()
        .config("[listen.a]\naddress = \"127.0.0.1:0\"")
        .secured(&identity, "")
        .config("[[route]]\nmatch = \"/**\"\nrespond = { body = \"{scheme} {listener}\" }");
    for (request, more, words) in [
        ("GET /", &[][..], "\n  http a\n"),
        ("GET http://x.test/", &[], "\n  http a\n"),
        ("GET https://x.test", &[], "\n  https public\n"),
        ("GET /", &["--listener", "public"], "\n  https public\n"),
        (
            "GET https://x.test/",
            &["--listener", "a"],
            "note: the listener `a` has no TLS: no client can ask it by https://",
        ),
        ("GET http://x.test/", &["--listener", "public"], "note: the listener `public` has TLS: no client can"),
    ] {
        let output = config.run(&[&["explain", request, "--config", "@file"], more].concat());
        assert!(said(&output).contains(words), "{request}: {}", said(&output));
    }
}

#[test]
fn the_running_gateway_explains_itself() {
    let origin = Origin::saying("ok");
    let token = "[admin]\naddress = \"unix:@dir/admin.sock\"\ntoken = { file = \"token\" }";
    let gw = configured(&origin).file("token", "0123456789abcdef0123").config(token).start();
    // What runs is asked, not what the file has become.
    let file = gw.rewrite(&format!("{token}\n[[route]]\nmatch = \"/**\"\nrespond = {{}}\n[[test]]\nrequest = \"GET /\"\nexpect = {{ status = 404 }}"));
    let ask = |arguments: &[&str]| {
        portcullis(&[&["explain", "GET /old/7", "--config", file.to_str().unwrap()], arguments].concat())
    };
    let live = said(&ask(&["--live"]));
    assert!(
        live.contains("\nRoute\n  GET /old/{id}  ") && live.contains("  Location: https://localhost/users/7\n"),
        "{live}"
    );
    assert!(live.contains("\nAnswered by redirect\n  308 Permanent Redirect\n"), "{live}");
    assert!(said(&ask(&[])).contains("\nRoute\n  /**  "));
    let refused = ask(&["--live", "--listener", "pubic"]);
    assert!(!refused.status.success());
    assert!(said(&refused).starts_with("error: there is no listener `pubic`\nhelp: did you mean `public`?"));
}

#[test]
fn what_is_no_question_is_refused() {
    let gw = gateway().config("[[route]]\nmatch = \"/\"\nrespond = {}").start();
    for (question, words) in [
        ("", "not a question"),
        ("{\"request\":7}", "not a question"),
        ("{\"request\":\"GET /\",\"more\":1}", "unknown field `more`"),
        ("{\"request\":\"GET\"}", "is not a method and a target"),
        ("{\"request\":\"GET /\",\"headers\":[\"a\"]}", "`a` is not a header field"),
        ("{\"request\":\"GET /\",\"headers\":[\"a b: c\"]}", "is not the name of a header field"),
        ("{\"request\":\"GET /\",\"as\":\"alice\"}", "invalid type: string \"alice\", expected a map"),
    ] {
        let problem = gw.admin_post("/explain", question).expect(400).problem("bad-request").json();
        assert!(problem["detail"].as_str().unwrap().contains(words), "{question}: {problem}");
    }
    gw.admin("/explain").expect(405);
    let output = portcullis(&["explain", "GET /", "--as", "alice"]);
    assert!(!output.status.success() && said(&output).contains("`alice` is not a claim"));
}

const PASSING: &str = r#"
[[test]]
request = "GET /users/7"
client  = "192.0.2.1"
headers = { Cookie = "a=b" }
[test.expect]
route    = "GET /users/{id}"
upstream = "users"
sent     = { path = "/v1/users/7?from=192.0.2.1", headers = { X-Partner = "yes", Cookie = { present = false } } }
[[test]]
request = "GET /users/me"
headers = { X-Beta = "1" }
expect  = { route = "beta", status = 203, stopped_by = "respond", headers = { X-Who = { regex = "127.*" } } }
[[test]]
request  = "GET http://x.example.org/users/me"
listener = "trusting"
expect   = { route = "*.example.org/**", upstream = "other" }
[[test]]
request = "POST /users/7"
expect  = { status = 405, stopped_by = "method-not-allowed", headers = { Allow = "GET, HEAD" } }
"#;

const FAILING: &str = r#"
[[test]]
request = "GET /users/7"
expect  = { route = "beta", upstream = "other", status = 200, headers = { Location = "/" }, sent = { path = "/v1/users/8", headers = { X-Route = "x" } } }
[[test]]
request = "GET /old/7"
expect  = { upstream = "users", status = 301, stopped_by = "respond", headers = { Location = "/", X-No = "1" }, sent = { path = "/" } }
[[test]]
request = "GET /nowhere"
expect  = { route = "me" }
"#;

#[test]
fn tests_pass() {
    let config = configured(&Origin::saying("ok")).config(PASSING);
    let output = config.run(&["test", "@file"]);
    let text = said(&output).replace(&format!("{}/", config.dir().display()), "");
    assert!(output.status.success(), "{text}");
    assert_eq!(
        text,
        "ok     GET /users/7  portcullis.toml:44\nok     GET /users/me  portcullis.toml:52\n\
         ok     GET http://x.example.org/users/me  portcullis.toml:56\nok     POST /users/7  portcullis.toml:60\n\
         4 tests: 4 passed, 0 failed\n"
    );
    let output = config.run(&["check", "@file"]);
    assert!(said(&output).contains("2 listeners, 4 tests passed"), "{}", said(&output));
    let none = gateway().config("[[route]]\nmatch = \"/\"\nrespond = {}").run(&["test", "@file"]);
    assert!(none.status.success() && said(&none) == "0 tests: 0 passed, 0 failed\n");
    let wrong = gateway().config("[[route]]\nmatch = \"/\"").run(&["test", "@file"]);
    assert!(!wrong.status.success() && said(&wrong).contains("the route leads nowhere"));
}

#[test]
fn a_test_that_fails_says_where_and_what_happened() {
    let config = configured(&Origin::saying("ok")).config(PASSING).config(FAILING);
    let output = config.run(&["test", "@file"]);
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    for words in [
        "ok     POST /users/7",
        "failed GET /old/7",
        "7 tests: 4 passed, 3 failed",
        "error: expected the route `beta`, got `GET /users/{id}`",
        "expected the upstream `other`, got `users`",
        "expected the status 200, got an answer of the upstream `users`, whose status is not known here",
        "expected the gateway to answer with `Location`, got an answer of the upstream `users`",
        "expected `/v1/users/8` to be asked for, got `/v1/users/7?from=127.0.0.1`",
        "expected the header `X-Route` = \"x\", got \"GET /users/{id}\"",
        "expected the upstream `users`, got none: 308 by `redirect`",
        "expected the status 301, got 308 by `redirect`",
        "expected it to be stopped by `respond`, got `redirect`",
        "expected the header `Location` = \"/\", got \"https://localhost/users/7\"",
        "expected the header `X-No` = \"1\", got none",
        "expected it to be sent to an upstream, got 308 by `redirect`",
        "expected the route `me`, got none: 404 by `no-route`",
        "help: to see why: portcullis explain 'GET /nowhere' --config '",
        "13 errors",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.contains("| expect  = { route = \"me\" }\n   |                     ^^^^"), "{text}");
    for output in [config.run(&["check", "@file"]), config.run(&["run", "--config", "@file"])] {
        assert!(!output.status.success());
        assert!(said(&output).contains("expected the route `beta`, got `GET /users/{id}`"), "{}", said(&output));
    }
}

#[test]
fn a_file_whose_test_fails_is_not_loaded() {
    const ROUTE: &str = "[[route]]\nmatch = \"/a\"\nrespond = { status = @status }\n";
    let test = |status: u16| {
        format!(
            "{}[[test]]\nrequest = \"GET /a\"\nexpect = {{ status = 201 }}",
            ROUTE.replace("@status", &status.to_string())
        )
    };
    let gw = gateway().config(&test(201)).start();
    gw.rewrite(&test(202));
    let problem = gw.reload().expect(422).problem("configuration").json();
    assert!(problem["detail"].as_str().unwrap().contains("expected the status 201, got 202 by `respond`"), "{problem}");
    gw.get("/a").send().expect(201);
    gw.rewrite(&format!("{}\n[[route]]\nmatch = \"/b\"\nrespond = {{}}", test(201)));
    let receipt = gw.reload().expect(200).json();
    assert_eq!(receipt["generation"], 2);
    gw.get("/b").send().expect(200);
}

#[test]
fn a_test_may_have_a_body() {
    const CONFIG: &str = r#"
        [upstream]
        o = ["@o"]
        [[route]]
        match    = "/orders"
        upstream = "o"
        request  = { body = { set = { source = "web" } } }
        validate = { max_body = "60B" }
        [[route]]
        match    = "/raw"
        upstream = "o"
        "#;
    let origin = Origin::answering(|seen| crate::harness::answer(200).body(&seen.body));
    let builder = |tests: &str| gateway().origin("o", &origin).config(&format!("{CONFIG}{tests}"));
    let gw = builder(
        r#"
        [[test]]
        request = "POST /orders"
        body    = { sku = "a7", count = 2.0 }
        expect  = { sent = { body = { count = 2, sku = "a7", source = "web" }, headers = { Content-Length = "39" } } }
        [[test]]
        request = "POST /orders"
        body    = '{"a": '
        headers = { Content-Type = "application/json" }
        expect  = { status = 400, stopped_by = "request" }
        [[test]]
        request = "POST /orders"
        body    = { text = "0123456789012345678901234567890123456789012345678901234567890123456789" }
        expect  = { status = 413 }
        [[test]]
        request = "POST /raw"
        body    = "as it is"
        expect  = { sent = { body = "as it is" } }
        "#,
    )
    .start();
    // What live traffic does.
    let post = gw.post("/orders").header("Content-Type", "application/json").body(r#"{"sku":"a7","count":2}"#).send();
    assert_eq!(post.expect(200).json(), json!({ "sku": "a7", "count": 2, "source": "web" }));
    let config = gw.dir().join("portcullis.toml").to_str().unwrap().to_owned();
    let explained = portcullis(&["explain", "POST /raw", "-d", "as it is", "--config", &config]);
    assert!(said(&explained).contains("  as it is\n"), "{}", said(&explained));

    let wrong = builder(
        "[[test]]\nrequest = \"POST /orders\"\nbody = { a = \"it's\" }\nexpect = { sent = { body = { a = 1 } } }\n",
    )
    .refused();
    assert!(wrong.contains(r#"expected the body {"a":1}, got {"a":"it's","source":"web"}"#), "{wrong}");
    let command = r#"-H 'Content-Type: application/json' -d '{"a":"it'\''s"}'"#;
    assert!(wrong.contains(command), "{wrong}");

    let wrong = builder(
        "[[test]]\nrequest = \"POST /raw\"\nbody = \"x\"\nheaders = { Content-Length = \"5\" }\nexpect = { status = 200 }\n",
    );
    assert!(wrong.refused().contains("`content-length` is not to be given beside it"));
}
