//! Tokens that only their provider understands.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{
    Answer, Builder, ClosedPort, Gateway, Origin, Seen, answer, eventually, gateway, refused_address,
};

const SECRET: &str = "s3cret:&ü";

/// A provider that knows some tokens.
struct Provider {
    tokens: Arc<Mutex<BTreeMap<String, Value>>>,
    origin: Origin,
}

impl Provider {
    fn new(tokens: &[(&str, Value)]) -> Self {
        let tokens = tokens.iter().map(|(token, claims)| ((*token).to_owned(), claims.clone()));
        let tokens = Arc::new(Mutex::new(tokens.collect::<BTreeMap<_, _>>()));
        let known = tokens.clone();
        let origin = Origin::answering(move |seen| match seen.target.as_str() {
            "/introspect" => {
                let claims = known.lock().unwrap().get(&token_of(seen)).cloned();
                answer(200).body(claims.unwrap_or_else(|| json!({ "active": false })).to_string())
            }
            "/.well-known/openid-configuration" => {
                let issuer = format!("http://{}", seen.header("host"));
                let place = format!("{issuer}/introspect");
                answer(200).body(json!({ "issuer": issuer, "introspection_endpoint": place }).to_string())
            }
            _ => answer(404),
        });
        Self { tokens, origin }
    }

    fn url(&self) -> String {
        format!("http://{}/introspect", self.origin.address())
    }

    fn forget(&self, token: &str) {
        self.tokens.lock().unwrap().remove(token);
    }

    fn asked(&self) -> usize {
        self.origin.requests_for("/introspect").len()
    }
}

fn token_of(seen: &Seen) -> String {
    let body = seen.text();
    let pairs: Vec<_> = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    pairs.into_iter().find(|(name, _)| name == "token").map(|(_, token)| token).unwrap_or_default()
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

/// A gateway where `/**` is behind a provider, and `/open` is not.
fn protected(url: &str, more: &str, origin: &Origin) -> Builder {
    gateway()
        .config(&format!(
            "[auth.idp]\nintrospection = {{ url = \"{url}\", client_id = \"a b\", client_secret = {{ env = \"SECRET\" }}{more} }}"
        ))
        .env("SECRET", SECRET)
        .config("[defaults]\nauth = \"idp\"\n[[route]]\nmatch = \"/open\"\nauth = false\nrespond = {}")
        .everything_to(origin)
}

fn send(gw: &Gateway, token: &str) -> u16 {
    gw.get("/").header("Authorization", &format!("Bearer {token}")).send().status
}

#[test]
fn the_provider_says_whose_token_it_is() {
    let origin = Origin::saying("ok");
    let good = json!({
        "active": true, "sub": "alice", "client_id": "app", "scope": "read write", "aud": ["api"], "exp": in_seconds(60),
        "token_type": "Bearer", "roles": ["staff"],
    });
    let provider = Provider::new(&[("good/+~1==", good)]);
    let gw = protected(&provider.url(), ", audience = \"api\", groups = \"claims.roles\"", &origin)
        .config("[[route]]\nmatch = \"/write\"\nupstream = \"origin\"\nauthorize = { scopes = [\"write\"], groups = [\"staff\"], when = 'claims.client_id == \"app\"' }")
        .config("[[route]]\nmatch = \"/admin\"\nupstream = \"origin\"\nauthorize = { scopes = [\"admin\"] }")
        .start();
    let get = |target: &str, token: &str| gw.get(target).header("Authorization", &format!("bEARER {token}")).send();
    for target in ["/", "/write", "/"] {
        get(target, "good/+~1==").expect(200);
    }
    get("/admin", "good/+~1==").expect(403);
    assert_eq!(gw.logged("alice's request", |line| line["route"] == "/write")["consumer"], "alice");
    let question = provider.origin.only_request();
    assert_eq!(
        (question.method.as_str(), question.text().as_str()),
        ("POST", "token=good%2F%2B%7E1%3D%3D&token_type_hint=access_token")
    );
    assert_eq!(question.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(question.header("authorization"), "Basic YStiOnMzY3JldCUzQSUyNiVDMyVCQw==");
    // A token that is not active, once and again: one question. What is no token is none.
    for _ in 0..2 {
        let refused = get("/", "unknown").expect(401).problem("unauthorized");
        assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"idp\", error=\"invalid_token\"");
    }
    assert_eq!(gw.get("/").send().expect(401).header("www-authenticate"), "Bearer realm=\"idp\"");
    for wrong in ["", "a b", "a,b", "\u{e4}", &"x".repeat(20_000)] {
        get("/", wrong).expect(401);
    }
    let twice = gw.get("/").header("Authorization", "Bearer a").header("Authorization", "Bearer a");
    twice.send().expect(400).problem("bad-request");
    assert_eq!(provider.asked(), 2);
    // Connections to the provider are kept, also when it closed one.
    assert_eq!(provider.origin.connections(), 1);
    provider.origin.close_connections();
    get("/", "unknown-2").expect(401);
    let said = gw.errors().join("\n") + &gw.logged_lines(9).iter().map(Value::to_string).collect::<String>();
    assert!(!said.contains("good/") && !said.contains("unknown-2") && !said.contains("s3cret"), "{said}");
}

#[test]
fn what_an_answer_says_must_hold() {
    let origin = Origin::saying("ok");
    let good = json!({ "active": true, "sub": "alice", "aud": "api", "iss": "https://id.test", "exp": in_seconds(60) });
    let but = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let tokens = [
        ("good", good.clone()),
        ("good-without-issuer", json!({ "active": true, "sub": "alice", "aud": ["x", "api"] })),
        ("expired", but("exp", json!(in_seconds(-1)))),
        ("another-audience", but("aud", json!("apis"))),
        ("another-issuer", but("iss", json!("https://id.test/"))),
        ("another-type", but("token_type", json!("DPoP"))),
        ("bound-to-a-key", but("cnf", json!({ "jkt": "x" }))),
        ("nobody", but("sub", Value::Null)),
        ("lines", but("sub", json!("a\r\nb"))),
        ("no-audience", json!({ "active": true, "sub": "alice" })),
        ("inactive", but("active", json!(false))),
        ("lie-1", but("active", json!("true"))),
        ("lie-2", but("active", json!(1))),
        ("lie-3", json!({ "sub": "alice", "aud": "api" })),
        ("lie-4", but("exp", json!("tomorrow"))),
        ("lie-5", json!(["active"])),
    ];
    let provider = Provider::new(&tokens);
    let gw = protected(&provider.url(), ", audience = \"api\", issuer = \"https://id.test\"", &origin).start();
    for (token, _) in &tokens {
        let expected = match token {
            token if token.starts_with("good") => 200,
            token if token.starts_with("lie") => 503,
            _ => 401,
        };
        assert_eq!(send(&gw, token), expected, "{token}");
    }
    assert_eq!(origin.requests().len(), 2);
}

#[test]
fn a_provider_that_fails_lets_nobody_in() {
    let origin = Origin::saying("ok");
    type Script = Box<dyn Fn() -> Answer + Send + Sync>;
    let scripts: Vec<(&str, Script)> = vec![
        ("the status 500", Box::new(|| answer(500).body("{\"active\":true,\"sub\":\"a\"}"))),
        ("the status 302", Box::new(|| answer(302).header("Location", "http://127.0.0.1:1/"))),
        ("is the client_secret right?", Box::new(|| answer(401))),
        ("is no introspection", Box::new(|| answer(200).body("<html>"))),
        ("a member stands twice", Box::new(|| answer(200).body("{\"active\":false,\"active\":true,\"sub\":\"a\"}"))),
        ("is no introspection", Box::new(|| answer(200).body("{\"active\":true,\"sub\":\"a\"} x"))),
        ("is no introspection", Box::new(|| answer(200).body("[".repeat(60_000)))),
        ("more than 65536 bytes", Box::new(|| answer(200).body(vec![b' '; 70_000]))),
        ("more than 65536 bytes", Box::new(|| answer(200).body(vec![b' '; 4 << 20]).chunked())),
        (
            "cannot be asked",
            Box::new(|| Answer::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"active\":true,")),
        ),
        ("cannot be asked", Box::new(Answer::hang_up)),
        ("cannot be asked", Box::new(|| Answer::raw(b"SSH-2.0-OpenSSH\r\n\r\n"))),
        ("no answer within 500ms", Box::new(Answer::never)),
        (
            "no answer within 500ms",
            Box::new(|| answer(200).body(vec![b' '; 60_000]).trickling(1, Duration::from_millis(100))),
        ),
    ];
    for (words, script) in scripts {
        let provider = Origin::answering(move |_| script());
        let url = format!("http://{}/", provider.address());
        let gw = protected(&url, ", timeout = \"500ms\"", &origin).start();
        let refused = gw.get("/").header("Authorization", "Bearer a").send().expect(503).problem("auth-unavailable");
        assert_eq!(refused.header("retry-after"), "1");
        let line = gw.logged("why it failed", |line| line["status"] == 503);
        assert!(line["cause"].as_str().unwrap().contains(words), "{words}: {line}");
        assert_eq!(line["stopped_by"], "auth");
        gw.get("/open").send().expect(200);
        gw.get("/").send().expect(401);
        // What is not known is not remembered.
        gw.get("/").header("Authorization", "Bearer a").send().expect(503);
    }
    // Metadata that is somebody else's, or leads nowhere.
    for metadata in [json!({ "issuer": "x", "introspection_endpoint": "x" }), json!({})] {
        let liar = Origin::answering(move |_| answer(200).body(metadata.to_string()));
        let gw = protected("discover", &format!(", issuer = \"http://{}\"", liar.address()), &origin).start();
        assert_eq!(send(&gw, "a"), 503);
    }
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn what_is_remembered_goes_on_while_the_provider_is_down() {
    let origin = Origin::saying("ok");
    let claims = json!({ "active": true, "sub": "alice" }).to_string();
    let port = ClosedPort::new();
    let url = format!("http://{}/", port.address());
    let gw = protected(&url, ", ttl = \"3s\", negative_ttl = \"0s\"", &origin).start();
    assert_eq!(send(&gw, "a"), 503);
    gw.says("the service of the provider idp does not answer");
    let provider = port.open(move |_| answer(200).body(&claims));
    assert_eq!(send(&gw, "a"), 200);
    gw.says("the service of the provider idp answers again");
    let asked = provider.requests().len();
    drop(provider);
    // Another configuration keeps what is remembered where nothing of it changed.
    gw.reload().expect(200);
    assert_eq!((send(&gw, "a"), send(&gw, "b")), (200, 503));
    eventually("what was remembered is forgotten", || (send(&gw, "a") == 503).then_some(()));
    assert_eq!(asked, 1);
}

#[test]
fn an_answer_is_remembered_for_its_time() {
    let origin = Origin::saying("ok");
    let provider = Provider::new(&[
        ("short", json!({ "active": true, "sub": "alice", "exp": in_seconds(3) })),
        ("long", json!({ "active": true, "sub": "alice", "exp": in_seconds(600) })),
    ]);
    let gw = protected(&provider.url(), ", ttl = \"2s\", negative_ttl = \"600s\"", &origin).start();
    assert_eq!((send(&gw, "short"), send(&gw, "long")), (200, 200));
    provider.forget("long");
    eventually("the token that was called back is refused", || (send(&gw, "long") == 401).then_some(()));
    eventually("the token is expired", || (send(&gw, "short") == 401).then_some(()));
    let asked = provider.asked();
    assert_eq!((send(&gw, "short"), send(&gw, "long"), provider.asked()), (401, 401, asked));
    // Who asks for every request knows at once.
    let provider = Provider::new(&[("a", json!({ "active": true, "sub": "alice" }))]);
    let gw = protected(&provider.url(), ", ttl = \"0s\"", &origin).start();
    assert_eq!((send(&gw, "a"), send(&gw, "a"), provider.asked()), (200, 200, 2));
    provider.forget("a");
    assert_eq!(send(&gw, "a"), 401);
}

#[test]
fn a_hundred_requests_ask_once() {
    let origin = Origin::saying("ok");
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let closed = gate.clone();
    let provider = Origin::answering(move |_| {
        let open = closed.0.lock().unwrap();
        drop(closed.1.wait_while(open, |open| !*open).unwrap());
        answer(200).body("{\"active\":true,\"sub\":\"alice\"}")
    });
    let url = format!("http://{}/", provider.address());
    let gw = protected(&url, ", timeout = \"60s\"", &origin).config("[server]\nthreads = 2").start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        // Whoever asks first may go away.
        let mut first = gw.connect();
        first.send_raw("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\n\r\n");
        provider.wait_for_requests(1);
        drop(first);
        let asking: Vec<_> = (0..100).map(|_| scope.spawn(|| send(&gw, "a"))).collect();
        eventually("all are under way", || {
            let metrics = gw.admin("/metrics").text();
            let active = metrics.lines().find(|line| line.starts_with("portcullis_requests_active{route=\"/**\"}"));
            let active: usize = active.and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
            (active >= 100).then_some(())
        });
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 100]);
    assert_eq!(provider.requests().len(), 1);
}

#[test]
fn a_flood_of_tokens_does_not_reach_the_provider() {
    let origin = Origin::saying("ok");
    let provider = Origin::answering(|seen| match token_of(seen).as_str() {
        "good" => answer(200).body("{\"active\":true,\"sub\":\"alice\"}"),
        _ => Answer::never(),
    });
    let url = format!("http://{}/", provider.address());
    let gw = protected(&url, ", ttl = \"600s\", timeout = \"60s\"", &origin).start();
    assert_eq!(send(&gw, "good"), 200);
    let flood: Vec<_> = (0..256)
        .map(|i| {
            let mut connection = gw.connect();
            connection.send_raw(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bad-{i}\r\n\r\n"));
            connection
        })
        .collect();
    provider.wait_for_requests(257);
    assert_eq!(send(&gw, "one-more"), 503);
    let line = gw.logged("what is too much", |line| line["status"] == 503);
    assert_eq!(line["cause"], "the provider is asked too much at once");
    assert_eq!((send(&gw, "good"), provider.requests().len(), flood.len()), (200, 257, 256));
}

#[test]
fn the_place_is_discovered_and_the_secret_can_be_posted() {
    let origin = Origin::saying("ok");
    let provider = Provider::new(&[("a", json!({ "active": true, "client_id": "app" }))]);
    let issuer = format!("http://{}", provider.origin.address());
    let gw = protected("discover", &format!(", issuer = \"{issuer}\", client_auth = \"post\" }}\nconsumer = \"claims.client_id\"\nheaders = {{ X-App = \"{{consumer}}\", X-No = \"{{claims.no}}\""), &origin).start();
    for _ in 0..2 {
        gw.get("/").header("Authorization", "Bearer a").header("X-App", "root").send().expect(200);
    }
    assert_eq!(send(&gw, "b"), 401);
    let seen = origin.requests();
    assert_eq!((seen[0].header("x-app"), seen[0].headers.has("x-no")), ("app", false));
    let seen = provider.origin.requests();
    let targets: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(targets, ["/.well-known/openid-configuration", "/introspect", "/introspect"]);
    assert_eq!(seen[1].text(), "token=a&token_type_hint=access_token&client_id=a+b&client_secret=s3cret%3A%26%C3%BC");
    assert!(!seen[1].headers.has("authorization"));
}

#[test]
fn nobody_is_asked_without_a_network() {
    let origin = Origin::saying("ok");
    let provider = Provider::new(&[]);
    let tests = r#"
        [[test]]
        request = "GET /"
        headers = { Authorization = "Bearer a" }
        expect  = { status = 503, stopped_by = "auth" }
        [[test]]
        request = "GET /"
        expect  = { status = 401, stopped_by = "auth" }
        [[test]]
        request = "GET /"
        as      = { sub = "alice" }
        expect  = { upstream = "origin" }
    "#;
    let output = protected(&provider.url(), "", &origin).config(tests).check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Nor by the tests of a reload, where the provider is asked for others.
    let gw = protected(&provider.url(), "", &origin).config(tests).start();
    assert_eq!(send(&gw, "b"), 401);
    gw.reload().expect(200);
    assert_eq!(provider.asked(), 1);
}

#[test]
fn a_provider_beside_others_is_asked_for_what_they_do_not_know() {
    let origin = Origin::saying("ok");
    let provider = Provider::new(&[("a", json!({ "active": true, "sub": "alice" }))]);
    let auth = |name: &str, url: &str| {
        format!(
            "[auth.{name}]\nintrospection = {{ url = \"{url}\", client_id = \"a\", client_secret = {{ env = \"SECRET\" }} }}\n"
        )
    };
    let gw = gateway()
        .config(&(auth("up", &provider.url()) + &auth("down", &format!("http://{}/", refused_address()))))
        .env("SECRET", SECRET)
        .config("[defaults]\nauth = [\"down\", \"up\"]")
        .everything_to(&origin)
        .start();
    assert_eq!((send(&gw, "a"), send(&gw, "b")), (200, 503));
}
