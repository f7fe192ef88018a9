//! A service of the user's own says who asks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Answer, Authority, Builder, Origin, Seen, answer, gateway, refused_address};

/// A gateway where `/**` is behind a service, and `/open` is not.
fn protected(service: &Origin, more: &str, origin: &Origin) -> Builder {
    at(&format!("http://{}/check?a=1", service.address()), more, origin)
}

fn at(url: &str, more: &str, origin: &Origin) -> Builder {
    gateway()
        .config(&format!(
            "[auth.sso]\nforward = {{ url = \"{url}\", response_headers = [\"X-User\", \"X-Groups\"]{more} }}"
        ))
        .config("consumer = \"claims.x-user\"\n[defaults]\nauth = \"sso\"")
        .config("[[route]]\nmatch = \"/open\"\nauth = false\nupstream = \"origin\"")
        .everything_to(origin)
}

/// A service that knows who has a cookie.
fn knows(seen: &Seen) -> Answer {
    match seen.headers.first("cookie") {
        Some("session=alice") => answer(200).header("X-User", "alice").header("X-Groups", "staff, domain users"),
        Some("session=bob") => answer(204).header("X-User", "bob").header("X-Other", "1"),
        Some("session=eve") => answer(403).body("no"),
        Some("session=nobody") => answer(200),
        _ => answer(302)
            .header("Location", "https://login.test/?rd=a")
            .header("Set-Cookie", "state=1; HttpOnly")
            .header("Set-Cookie", "nonce=2")
            .header("X-Secret", "1"),
    }
}

#[test]
fn the_service_says_who_asks() {
    let (origin, service) = (Origin::saying("ok"), Origin::answering(knows));
    let gw = protected(&service, ", groups = \"claims.x-groups\"", &origin)
        .config("[[route]]\nmatch = \"/staff\"\nupstream = \"origin\"\nauthorize = { groups = [\"domain users\"], when = 'claims[\"x-user\"] == consumer.name' }")
        .start();
    let as_who = |target: &str, who: &str| {
        let request = gw.get(target).header("Cookie", &format!("session={who}")).host("shop.test");
        request.header("X-User", "root").header("X_Groups", "root").header("X-Forwarded-Uri", "/open").send()
    };
    as_who("/a%20b?c=d", "alice").expect(200);
    as_who("/staff", "alice").expect(200);
    as_who("/staff", "bob").expect(403);
    as_who("/", "bob").expect(200);
    as_who("/open", "bob").expect(200);
    let refused = as_who("/", "eve").expect(403).problem("forbidden");
    assert!(!refused.headers.has("location"));
    let moved = as_who("/", "stranger").expect(302);
    assert_eq!(moved.header("location"), "https://login.test/?rd=a");
    assert_eq!(moved.header("cache-control"), "no-store");
    assert_eq!(moved.headers.all("set-cookie"), ["state=1; HttpOnly", "nonce=2"]);
    assert!(!moved.headers.has("x-secret"));
    as_who("/", "nobody").expect(503).problem("auth-unavailable");

    let seen = origin.requests();
    assert_eq!((seen[0].header("x-user"), seen[0].header("x-groups")), ("alice", "staff,domain users"));
    assert_eq!((seen[2].header("x-user"), seen[2].headers.has("x-groups")), ("bob", false));
    assert!(seen.iter().all(|seen| !seen.headers.has("x_groups") && !seen.headers.has("x-other")));
    assert!(!seen[3].headers.has("x-user"), "the route has no auth");
    assert_eq!((seen.len(), seen[0].header("cookie")), (4, "session=alice"));

    let asked = service.requests();
    let first = &asked[0];
    assert_eq!((first.method.as_str(), first.target.as_str()), ("GET", "/check?a=1"));
    assert_eq!(first.header("host"), service.address());
    assert_eq!((first.header("x-forwarded-method"), first.header("x-forwarded-uri")), ("GET", "/a%20b?c=d"));
    assert_eq!((first.header("x-forwarded-host"), first.header("x-forwarded-proto")), ("shop.test", "http"));
    assert_eq!((first.header("x-forwarded-for"), first.header("cookie")), ("127.0.0.1", "session=alice"));
    assert_eq!(first.header("x-request-id"), seen[0].header("x-request-id"));
    assert!(!first.headers.has("x-user") && !first.headers.has("content-length"));
    assert_eq!((asked.len(), service.connections()), (7, 1));
    let lines = gw.logged_lines(8);
    assert_eq!((&lines[0]["consumer"], &lines[4]["consumer"]), (&json!("alice"), &Value::Null));
    assert_eq!((&lines[6]["stopped_by"], &lines[7]["stopped_by"]), (&json!("auth"), &json!("auth")));
}

#[test]
fn a_kept_connection_that_the_service_closed_is_no_failure() {
    let (origin, service) = (Origin::saying("ok"), Origin::answering(knows));
    let gw = protected(&service, "", &origin).start();
    for _ in 0..20 {
        gw.get("/").header("Cookie", "session=alice").send().expect(200);
        service.close_connections();
    }
    // One that announces it is not used again.
    let closing = Origin::answering(|seen| knows(seen).header("Connection", "close").closing());
    let gw = protected(&closing, "", &origin).start();
    for _ in 0..3 {
        gw.get("/").header("Cookie", "session=alice").send().expect(200);
    }
    assert_eq!((closing.connections(), closing.requests().len()), (3, 3));
}

#[test]
fn a_401_is_passed_on_with_its_challenge() {
    let origin = Origin::saying("ok");
    let service = Origin::answering(|seen| match seen.headers.first("authorization") {
        Some("Bearer good") => answer(200).header("X-User", "alice").header("Authorization", "Internal 1"),
        Some("Bearer plain") => answer(200).header("X-User", "alice"),
        Some(_) => answer(401).header("WWW-Authenticate", "Bearer realm=\"x\"").header("WWW-Authenticate", "Basic"),
        None => answer(401),
    });
    let more = ", request_headers = [\"Authorization\"]";
    let gw = gateway()
        .config(&format!("[auth.sso]\nforward = {{ url = \"http://{}/\", response_headers = [\"X-User\", \"Authorization\"]{more} }}", service.address()))
        .config("consumer = \"claims.x-user\"\n[defaults]\nauth = \"sso\"")
        .config("[[route]]\nmatch = \"/open\"\nauth = false\nupstream = \"origin\"")
        .everything_to(&origin)
        .start();
    let refused = gw.get("/").header("Authorization", "Bearer bad").send().expect(401).problem("unauthorized");
    assert_eq!(refused.headers.all("www-authenticate"), ["Bearer realm=\"x\"", "Basic"]);
    assert_eq!(gw.get("/").send().expect(401).header("www-authenticate"), "Forward realm=\"sso\"");
    let twice = gw.get("/").header("Authorization", "Bearer good").header("Authorization", "Bearer bad");
    twice.send().expect(400).problem("bad-request");
    // What the service judged is exchanged for what it says, or taken out.
    for token in ["good", "plain"] {
        gw.get("/").header("Authorization", &format!("Bearer {token}")).header("Cookie", "a=b").send().expect(200);
    }
    gw.get("/open").header("Authorization", "Bearer own").send().expect(200);
    let seen = origin.requests();
    assert_eq!((seen[0].header("authorization"), seen[2].header("authorization")), ("Internal 1", "Bearer own"));
    assert!(!seen[1].headers.has("authorization"));
    assert!(service.requests().iter().all(|seen| !seen.headers.has("cookie")));
}

#[test]
fn a_service_that_fails_lets_nobody_in() {
    let origin = Origin::saying("ok");
    type Script = Box<dyn Fn() -> Answer + Send + Sync>;
    let scripts: Vec<(&str, Script)> = vec![
        ("the status 500", Box::new(|| answer(500).header("X-User", "alice"))),
        ("the status 404", Box::new(|| answer(404).header("X-User", "alice"))),
        ("the status 407", Box::new(|| answer(407).header("X-User", "alice"))),
        ("the status 304", Box::new(|| answer(304).header("X-User", "alice").header("Location", "/"))),
        ("the status 302", Box::new(|| answer(302).header("X-User", "alice"))),
        ("is no text", Box::new(|| Answer::raw(b"HTTP/1.1 200 OK\r\nX-User: \xff\r\nContent-Length: 0\r\n\r\n"))),
        ("more than 65536 bytes", Box::new(|| answer(200).header("X-User", "alice").body(vec![b' '; 70_000]))),
        ("gives no answer", Box::new(Answer::hang_up)),
        ("gives no answer", Box::new(|| Answer::raw(b"nonsense\r\n\r\n"))),
        ("gives no answer", Box::new(|| Answer::raw(b"HTTP/1.1 200 OK\r\nX-User: alice\r\nContent-Length: 9\r\n\r\n"))),
        ("no answer within 500ms", Box::new(Answer::never)),
        (
            "no answer within 500ms",
            Box::new(|| {
                answer(200).header("X-User", "alice").body(vec![b' '; 9000]).trickling(1, Duration::from_millis(100))
            }),
        ),
        ("nobody is named", Box::new(|| answer(200).header("X-User", ""))),
        ("nobody is named", Box::new(|| answer(200).header("X-User", &"x".repeat(300)))),
    ];
    for (words, script) in scripts {
        let service = Origin::answering(move |_| script());
        let gw = protected(&service, ", timeout = \"500ms\"", &origin).start();
        let refused = gw.get("/").header("X-User", "alice").send().expect(503).problem("auth-unavailable");
        assert_eq!(refused.header("retry-after"), "1");
        let line = gw.logged("why it failed", |line| line["status"] == 503);
        assert!(line["cause"].as_str().unwrap().contains(words), "{words}: {line}");
        gw.get("/open").send().expect(200);
        gw.says("the service of the provider sso does not answer");
    }
    let gw = at(&format!("http://{}/", refused_address()), "", &origin).start();
    gw.get("/").send().expect(503).problem("auth-unavailable");
    assert!(origin.requests().iter().all(|seen| seen.target == "/open"));
}

#[test]
fn a_service_over_tls_must_be_who_it_says() {
    let (origin, ours) = (Origin::saying("ok"), Authority::new("ours"));
    let service = |authority: &Authority| Origin::over_tls(authority.server(&["localhost"], &[], false), knows);
    let good = service(&ours);
    let bad = service(&Authority::new("theirs"));
    let status = |service: &Origin| {
        let port = service.address().rsplit_once(':').unwrap().1.to_owned();
        let gw =
            at(&format!("https://localhost:{port}/"), ", ca = \"ca.pem\"", &origin).file("ca.pem", ours.pem()).start();
        [(); 2].map(|()| gw.get("/").header("Cookie", "session=alice").send().status)
    };
    assert_eq!((status(&good), status(&bad)), ([200; 2], [503; 2]));
    assert_eq!((good.connections(), bad.requests().len()), (1, 0));
}

#[test]
fn nobody_is_asked_without_a_network() {
    let (origin, service) = (Origin::saying("ok"), Origin::answering(knows));
    let tests = r#"
        [[test]]
        request = "GET /"
        headers = { Cookie = "session=alice" }
        expect  = { status = 503, stopped_by = "auth" }
        [[test]]
        request = "GET /"
        as      = { x-user = "alice", x-groups = ["staff", "b"] }
        expect  = { upstream = "origin", sent = { headers = { X-User = "alice", X-Groups = "staff,b" } } }
        [[test]]
        request = "GET /"
        headers = { X-User = "alice" }
        as      = { sub = "alice" }
        expect  = { status = 401, stopped_by = "auth" }
    "#;
    let output = protected(&service, "", &origin).config(tests).check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let gw = protected(&service, "", &origin).config(tests).start();
    gw.reload().expect(200);
    assert_eq!(service.requests().len(), 0);
}

#[test]
fn the_service_stands_beside_other_providers() {
    let (origin, service) = (Origin::saying("ok"), Origin::answering(knows));
    let hash = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
    let gw = gateway()
        .config(&format!(
            "[auth.keys]\napi_key = {{ header = \"X-Key\" }}\n[consumer.acme]\nkeys = [{{ sha256 = \"{hash}\" }}]"
        ))
        .config(&format!(
            "[auth.sso]\nforward = {{ url = \"http://{}/\", response_headers = [\"X-User\"] }}",
            service.address()
        ))
        .config("consumer = \"claims.x-user\"\n[defaults]\nauth = [\"keys\", \"sso\"]")
        .everything_to(&origin)
        .start();
    gw.get("/").header("X-Key", "secret").send().expect(200);
    assert_eq!(service.requests().len(), 0);
    gw.get("/").header("Cookie", "session=alice").send().expect(200);
    gw.get("/").send().expect(302);
    gw.get("/").header("X-Key", "wrong").send().expect(401);
    let mut h2 = gw.h2c();
    h2.get("/").host("shop.test").header("cookie", "session=bob").send().expect(200);
    assert_eq!(service.requests().last().unwrap().header("x-forwarded-host"), "shop.test");
    let lines = gw.logged_lines(5);
    assert_eq!((&lines[0]["consumer"], &lines[4]["consumer"]), (&json!("acme"), &json!("bob")));
}
