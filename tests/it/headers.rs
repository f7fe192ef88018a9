//! What is changed on the way: fields, paths, queries, and who asked.

use crate::harness::{Connection, Origin, answer, gateway};

#[test]
fn requests_and_responses_are_edited() {
    let origin = Origin::answering(|_| {
        answer(200).header("X-Powered-By", "php").header("X-Int-A", "1").header("X-Old", "o").body("ok")
    });
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            r#"
            [defaults]
            response = { headers = { remove = ["X-Powered-By", "x-int-*", "con*"] } }
            [[route]]
            match = "GET /users/{id}/**"
            upstream = "o"
            [route.request]
            path = "/v1/{path.id}/{**}"
            host = "inner.test"
            query = { set = { lang = "{header.accept-language}", debug = "0" }, remove = ["secret"] }
            headers = { set = { X-Id = "{path.id}", X-Client = "{client.ip}", X-Rid = "{request.id}" }, add = { X-Tag = "b" }, remove = ["Cookie"], rename = { X-A = "X-B" } }
            [route.response]
            headers = { set = { X-Route = "{method} {path.id}" }, rename = { X-Old = "X-New" } }
            "#,
        )
        .start();
    let response = gw
        .get("/users/7%20x/a/b?secret=1&q=1&debug=1")
        .header("Cookie", "c")
        .header("X-A", "1")
        .header("X-Tag", "a")
        .header("Accept-Language", "d&e")
        .send()
        .expect(200);
    assert_eq!((response.header("x-route"), response.header("x-new")), ("GET 7%20x", "o"));
    assert_eq!(response.header("content-length"), "2", "a prefix removes nothing that frames the message");
    for gone in ["x-powered-by", "x-int-a", "x-old"] {
        assert!(response.headers.first(gone).is_none(), "{gone}");
    }
    let seen = origin.only_request();
    assert_eq!(seen.target, "/v1/7%20x/a/b?q=1&debug=0&lang=d%26e");
    assert_eq!(seen.header("host"), "inner.test");
    assert_eq!((seen.header("x-id"), seen.header("x-client"), seen.header("x-b")), ("7%20x", "127.0.0.1", "1"));
    assert_eq!(seen.header("x-rid"), seen.header("x-request-id"));
    assert_eq!(seen.headers.all("x-tag"), ["a", "b"]);
    assert!(seen.headers.first("cookie").is_none() && seen.headers.first("x-a").is_none());
}

#[test]
fn a_rewrite_cannot_be_climbed_out_of() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .upstream("o", &origin)
        .config("[[route]]\nmatch = \"/f\"\nupstream = \"o\"\nrequest = { path = \"/safe/{query.name}\" }")
        .start();
    gw.get("/f?name=a%2Fb").send().expect(400);
    gw.get("/f?name=..").send().expect(400).problem("bad-request");
    gw.get("/f?name=a").send().expect(200);
    assert_eq!(origin.only_request().target, "/safe/a?name=a");
}

#[test]
fn an_untrusted_client_cannot_say_who_it_is() {
    let origin = Origin::saying("ok");
    let gw = gateway().everything_to(&origin).start();
    gw.get("/")
        .host("shop.test:8080")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-Host", "evil.test")
        .header("Forwarded", "for=1.2.3.4")
        .header("X-Request-Id", "mine")
        .header("Connection", "X-Hop")
        .header("X-Hop", "1")
        .send()
        .expect(200);
    let seen = origin.only_request();
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-host"), "shop.test:8080");
    assert_eq!((seen.header("host"), seen.header("via")), ("shop.test:8080", "1.1 portcullis"));
    assert_ne!(seen.header("x-request-id"), "mine");
    assert!(seen.headers.first("forwarded").is_none());
    assert!(seen.headers.first("x-hop").is_none(), "{:?}", seen.headers);
}

#[test]
fn a_trusted_proxy_is_believed() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\nclient_ip = { header = \"X-Forwarded-For\", trust = [\"127.0.0.0/8\"] }")
        .upstream("o", &origin)
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"\nresponse = { headers = { set = { X-Client = \"{client.ip}\" } } }")
        .start();
    let response = gw
        .get("/")
        .header("X-Forwarded-For", "9.9.9.9, 1.2.3.4, 127.0.0.9")
        .header("X-Forwarded-Proto", "https")
        .header("X-Request-Id", "from-the-edge")
        .send()
        .expect(200);
    assert_eq!(response.header("x-client"), "1.2.3.4");
    let seen = origin.only_request();
    assert_eq!(seen.header("x-forwarded-for"), "9.9.9.9, 1.2.3.4, 127.0.0.9, 127.0.0.1");
    assert_eq!((seen.header("x-forwarded-proto"), seen.header("x-request-id")), ("https", "from-the-edge"));
}

#[test]
fn the_gateway_answers_and_redirects_itself() {
    let gw = gateway()
        .config(
            r#"
            [[route]]
            match = "/hello/{name}"
            respond = { status = 201, headers = { X-A = "b" }, body = "Hello, {path.name}" }
            [[route]]
            match = "/old/{id}"
            redirect = { to = "https://{host}/new/{path.id}", status = 307 }
            "#,
        )
        .start();
    assert_eq!(gw.get("/hello/ada").send().expect(201).says("Hello, ada").header("x-a"), "b");
    let redirect = gw.get("/old/7").host("shop.test").send().expect(307);
    assert_eq!(redirect.header("location"), "https://shop.test/new/7");
}

#[test]
fn a_redirect_cannot_be_led_elsewhere() {
    let gw = gateway()
        .config(
            r#"
            [[route]]
            match = "/search"
            redirect = { to = "https://{host}/find/{header.x-lang}?q={query.q}&back={path}#{query.at}" }
            [[route]]
            match = "/next"
            redirect = { to = "{query.to}" }
            [[route]]
            match = "/slashes"
            redirect = { to = "/{query.a}/{query.b}" }
            [[route]]
            match = "/moved/{first}/**"
            redirect = { to = "{path.first}/{**}" }
            [[route]]
            match = "/doubled/**"
            redirect = { to = "/{path}" }
            [[route]]
            match = "/tenant/{tenant}/**"
            redirect = { to = "https://{path.tenant}.example.com{path}?id={path.tenant}" }
            [[route]]
            match = "/at/{tenant}"
            redirect = { to = "https://{query.host}/{path.tenant}" }
            "#,
        )
        .start();
    let to = |target: &str| {
        let response = gw.get(target).host("shop.test:80").header("x-lang", "a/b?c#d\\e@f").send();
        let location = response.headers.first("location").unwrap_or("").to_owned();
        (response.status, location)
    };
    for (target, location) in [
        (
            "/search?q=a%26b+%c3%a9&at=%22",
            "https://shop.test/find/a%2Fb%3Fc%23d%5Ce%40f?q=a%26b%20%C3%A9&back=%2Fsearch#%22",
        ),
        ("/next?to=https://evil.test/x", "https%3A%2F%2Fevil.test%2Fx"),
        ("/next?to=//evil.test", "%2F%2Fevil.test"),
        ("/slashes?a=x&b=y", "/x/y"),
        ("/slashes?b=evil.test", "/evil.test"),
        ("/moved/7%20x/a:b", "7%20x/a:b"),
        ("/moved/javascript:alert(1)/x", "javascript%3Aalert(1)/x"),
        ("/doubled/evil.test", "/doubled/evil.test"),
        ("/tenant/a/x", "https://a.example.com/tenant/a/x?id=a"),
        ("/tenant/a:1@b%20&c/x", "https://a%3A1%40b%20%26c.example.com/tenant/a:1@b%20&c/x?id=a%3A1%40b%20%26c"),
        ("/at/x?host=a.test", "https://a.test/x"),
    ] {
        assert_eq!(to(target), (308, location.to_owned()), "{target}");
    }
    // What would make another place of the text is refused.
    for target in ["/at/evil.test", "/slashes?a=..&b=x"] {
        assert_eq!(to(target), (400, String::new()), "{target}");
    }
}

#[test]
fn forwarded_is_written_where_a_server_wants_it() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"")
        .config("[listen.six]\naddress = \"[::1]:0\"")
        .config("[listen.trusting]\naddress = \"127.0.0.1:0\"\nclient_ip = { header = \"Forwarded\", trust = [\"127.0.0.0/8\"] }")
        .origin("a", &origin)
        .config("[upstream]\no = { servers = [\"@a\"], forwarded = \"forwarded\" }")
        .config("none = { servers = [\"@a\"], forwarded = \"none\" }")
        .config("[[route]]\nmatch = \"/**\"\nupstream = \"o\"\nresponse = { headers = { set = { X-Client = \"{client.ip}\" } } }")
        .config("[[route]]\nmatch = \"/none\"\nupstream = \"none\"")
        .start();
    let forwarded = |target: &str| {
        let seen = origin.requests_for(target).pop().unwrap();
        assert!(seen.headers.first("x-forwarded-for").is_none());
        seen.headers.all("forwarded").join(" | ")
    };
    gw.get("/1").host("shop.test:8080").header("Forwarded", "for=1.2.3.4").send().expect(200);
    assert_eq!(forwarded("/1"), "for=127.0.0.1;host=\"shop.test:8080\";proto=http");
    Connection::open(gw.listener("six")).get("/2").host("shop.test").send().expect(200);
    assert_eq!(forwarded("/2"), "for=\"[::1]\";host=\"shop.test\";proto=http");
    let response = Connection::open(gw.listener("trusting"))
        .get("/3")
        .host("shop.test")
        .header("Forwarded", "for=9.9.9.9, for=\"[2001:db8::1]:47011\";proto=https, for=127.0.0.5")
        .send()
        .expect(200);
    assert_eq!(response.header("x-client"), "2001:db8::1");
    assert_eq!(
        forwarded("/3"),
        "for=9.9.9.9, for=\"[2001:db8::1]:47011\";proto=https, for=127.0.0.5 | for=127.0.0.1;host=\"shop.test\";proto=http"
    );
    gw.get("/none").header("Forwarded", "for=1.2.3.4").send().expect(200);
    assert_eq!(forwarded("/none"), "");
}
