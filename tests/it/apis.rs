//! Gateways of their own inside the gateway: their routes, policies and views, their files, and their versions.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::{Builder, Gateway, Origin, Request, answer, eventually, gateway, portcullis};

/// An origin that says how often it was asked, and what for.
fn counting() -> Origin {
    let count = AtomicUsize::new(0);
    Origin::answering(move |seen| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        answer(200).header("X-Times", &n.to_string()).body(&seen.target)
    })
}

const TWO: &str = r#"
    [api.mobile]
    hosts     = "m.test"
    base_path = "/mobile"
    response  = { headers = { set = { X-By = "mobile" } } }
    [api.web]
    hosts     = ["www.test", "*.web.test"]
    response  = { headers = { set = { X-By = "web" } } }
    [[route]]
    name     = "user"
    api      = ["mobile", "web"]
    match    = "GET /users/{id}"
    upstream = "o"
    [[route]]
    api      = "mobile"
    match    = "/only/**"
    upstream = "o"
    [[route]]
    match    = "/**"
    upstream = "o"
"#;

fn two(origin: &Origin) -> Builder {
    gateway().upstream("o", origin).config(TWO)
}

#[test]
fn a_route_is_served_for_each_of_its_apis() {
    let origin = counting();
    let gw = two(&origin).start();
    let ask = |host: &str, target: &str| gw.get(target).host(host).send().expect(200);
    let answer = ask("m.test", "/mobile/users/7?a=1").says("/users/7?a=1");
    assert_eq!(answer.header("x-by"), "mobile");
    assert_eq!(origin.only_request().header("x-forwarded-prefix"), "/mobile");
    for host in ["www.test", "a.web.test"] {
        assert_eq!(ask(host, "/users/7").says("/users/7").header("x-by"), "web");
    }
    ask("m.test", "/mobile/only").says("/only");
    ask("m.test", "/mobile/only/x%20y/").says("/only/x%20y/");
    // Not its host, or not below its path: the route of no api takes it as it is.
    assert_eq!(ask("www.test", "/mobile/users/7").says("/mobile/users/7").maybe("x-by"), "");
    assert_eq!(ask("m.test", "/mobileusers/7").says("/mobileusers/7").maybe("x-by"), "");

    let line = gw.logged("the first request", |line| line["path"] == "/mobile/users/7" && line["host"] == "m.test");
    assert_eq!((&line["api"], &line["route"]), (&Value::from("mobile"), &Value::from("mobile/user")));
    let line = gw.logged("a request of no api", |line| line["path"] == "/mobileusers/7");
    assert_eq!((&line["api"], &line["route"]), (&Value::Null, &Value::from("/**")));
    assert_eq!(gw.metric(r#"portcullis_requests_total{route="mobile/user",class="2xx"}"#), Some(1.0));
    assert_eq!(gw.metric(r#"portcullis_requests_total{route="web/user",class="2xx"}"#), Some(2.0));
    assert_eq!(gw.metric(r#"portcullis_api_requests_total{api="mobile",version="",consumer=""}"#), Some(3.0));

    let routes = gw.admin("/routes").expect(200).json();
    let named = |name: &str| routes.as_array().unwrap().iter().find(|route| route["name"] == name).unwrap().clone();
    assert_eq!((&named("web/user")["api"], &named("/**")["api"]), (&Value::from("web"), &Value::Null));
    assert_eq!(named("mobile/user")["match"], "GET m.test/mobile/users/{id}");
    assert_eq!(named("mobile/user")["policies"][0]["settings"]["headers"]["set"]["X-By"], "mobile");
    let file = gw.dir().join("portcullis.toml");
    let said = explained(&gw, &["GET http://m.test/mobile/users/7", "--config", file.to_str().unwrap()]);
    assert!(said.contains("of the api mobile") && said.contains("(api.mobile)"), "{said}");
}

fn explained(gw: &Gateway, arguments: &[&str]) -> String {
    assert!(gw.dir().exists());
    let output = crate::harness::portcullis(&[&["explain"], arguments].concat());
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_path_that_a_route_sets_is_the_one_that_is_sent() {
    let origin = counting();
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            r#"
            [api.a]
            base_path = "/a"
            [[route]]
            api      = "a"
            match    = "/whole/**"
            upstream = "o"
            request  = { path = "{path}" }
            [[route]]
            api      = "a"
            match    = "/below/**"
            upstream = "o"
            request  = { path = "/other/{**}" }
            [[route]]
            api      = "a"
            match    = "/query"
            upstream = "o"
            request  = { query = { set = { x = "1" } } }
            [[route]]
            api       = "a"
            match     = "/parts"
            aggregate = { part = { one = { upstream = "o" } }, compose = "{ one: .one }" }
            "#,
        )
        .start();
    gw.get("/a/whole/x?q").send().expect(200).says("/a/whole/x?q");
    gw.get("/a/below/x").send().expect(200).says("/other/x");
    gw.get("/a/query?y=2").send().expect(200).says("/query?y=2&x=1");
    gw.get("/a/parts").send();
    let seen = origin.requests();
    let prefixes: Vec<&str> = seen.iter().map(|seen| seen.headers.first("x-forwarded-prefix").unwrap_or("")).collect();
    assert_eq!(prefixes, ["", "", "/a", "/a"]);
    assert_eq!(seen[3].target, "/parts");
}

#[test]
fn an_api_may_have_listeners_of_its_own() {
    let origin = counting();
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            r#"
            [listen.public]
            address = "127.0.0.1:0"
            [listen.inside]
            address = "127.0.0.1:0"
            [api.inside]
            listen   = "inside"
            response = { headers = { set = { X-By = "inside" } } }
            [api.outside]
            listen   = ["public"]
            response = { headers = { set = { X-By = "outside" } } }
            [[route]]
            api      = ["inside", "outside"]
            match    = "/both"
            upstream = "o"
            [[route]]
            api      = "inside"
            match    = "/secret"
            upstream = "o"
            "#,
        )
        .start();
    assert_eq!(gw.get("/both").send().expect(200).header("x-by"), "outside");
    gw.get("/secret").send().expect(404).problem("no-route");
    let mut inside = gw.connect_to("inside");
    assert_eq!(inside.get("/both").send().expect(200).header("x-by"), "inside");
    inside.get("/secret").send().expect(200);
}

const FILES: &str =
    "include = [\"apis/*.toml\"]\n[upstream]\no = [\"@origin\"]\n[[route]]\nmatch = \"/free\"\nupstream = \"o\"";

fn api_file(name: &str, rate: &str) -> String {
    format!(
        "[api.{name}]\nbase_path = \"/{name}\"\nroutes = \"file\"\nrate_limit = {{ rate = \"{rate}\", burst = 1 }}\n\
         [[route]]\nname = \"x\"\nmatch = \"/x\"\nupstream = \"o\"\n\
         [[route]]\nmatch = \"/free-{name}\"\napi = false\nupstream = \"o\"\n"
    )
}

#[test]
fn an_api_in_a_file_of_its_own_is_told_by_itself() {
    let origin = counting();
    let builder = gateway().origin("origin", &origin).config(FILES);
    std::fs::create_dir(builder.dir().join("apis")).unwrap();
    let gw = builder.file("apis/a.toml", api_file("a", "1/h")).file("apis/b.toml", api_file("b", "1/h")).start();
    for target in ["/a/x", "/b/x", "/free-a", "/free-b", "/free"] {
        gw.get(target).send().expect(200);
    }
    gw.get("/a/x").send().expect(429);
    let write = |text: &str| std::fs::write(gw.dir().join("apis/b.toml"), text).unwrap();
    write(&api_file("b", "2/h"));
    assert_eq!(gw.reload().expect(200).json()["changes"].to_string(), r#"["api b changed","route b/x changed"]"#);
    // What did not change goes on as it was: its limit and its numbers.
    gw.get("/a/x").send().expect(429);
    gw.get("/b/x").send().expect(200);
    assert_eq!(gw.metric(r#"portcullis_api_requests_total{api="a",version="",consumer=""}"#), Some(3.0));
    write("[api.b]\nbase_path = \"/b/{x}\"\nroutes = \"file\"\n[[route]]\nmatch = \"/x\"\nupstream = \"o\"\n");
    let detail = gw.reload().expect(422).problem("configuration").json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("apis/b.toml:2:13") && detail.contains("literal segments"), "{detail}");
    assert!(!detail.contains("a.toml") && detail.contains("1 error"), "{detail}");
    gw.get("/b/x").send().expect(429);
}

#[test]
fn an_api_is_reloaded_by_itself() {
    let origin = counting();
    let admin = "\n[admin]\naddress = \"unix:@dir/admin.sock\"\n";
    let builder = gateway().origin("origin", &origin).config(&format!("{FILES}{admin}"));
    std::fs::create_dir(builder.dir().join("apis")).unwrap();
    let gw = builder.file("apis/a.toml", api_file("a", "1/h")).file("apis/b.toml", api_file("b", "1/h")).start();
    let write = |name: &str, text: &str| std::fs::write(gw.dir().join(name), text).unwrap();
    // Others are in the midst of their work.
    write("apis/a.toml", "[api.a]\nbase_path =");
    write("apis/b.toml", &api_file("b", "2/h"));
    gw.reload().expect(422);
    let receipt = gw.admin_post("/apis/b/reload", "").expect(200).json();
    assert_eq!(receipt["changes"].to_string(), r#"["api b changed","route b/x changed"]"#);
    gw.get("/a/x").send().expect(200);
    gw.get("/a/x").send().expect(429);
    let detail = gw.admin_post("/apis/a/reload", "").expect(422).problem("configuration").json()["detail"].to_string();
    assert!(detail.contains("apis/a.toml:2") && !detail.contains("b.toml"), "{detail}");
    let detail = gw.admin_post("/apis/c/reload", "").expect(422).problem("configuration").json()["detail"].to_string();
    assert!(detail.contains("no api `c` is at work") && detail.contains("did you mean"), "{detail}");
    gw.admin("/apis/a/reload").expect(405);

    // The command asks for the same, and looks at nothing but where the interface is.
    write("apis/b.toml", &api_file("b", "3/h"));
    let config = gw.dir().join("portcullis.toml");
    let done = portcullis(&["reload", "--api", "b", "--config", config.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("\"generation\":3"));
    let failed = portcullis(&["reload", "--api", "a", "--config", config.to_str().unwrap()]);
    assert!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("apis/a.toml:2"));
    // What was kept is what runs, and so there is nothing else to change.
    write("apis/a.toml", &api_file("a", "1/h"));
    assert_eq!(gw.reload().expect(200).json()["changes"].to_string(), "[]");
}

#[test]
fn an_api_is_logged_by_itself() {
    let origin = counting();
    let log = |name: &str, format: &str| {
        let api = format!("[api.{name}]\nbase_path = \"/{name}\"\nroutes = \"file\"\n");
        let to = format!("log = {{ access = {{ to = {{ file = \"{name}.log\" }}, {format} }} }}\n");
        format!("{api}{to}[[route]]\nmatch = \"/x\"\nupstream = \"o\"\n")
    };
    let builder = gateway().origin("origin", &origin).config(FILES);
    std::fs::create_dir(builder.dir().join("apis")).unwrap();
    let gw = builder
        .file("apis/a.toml", log("a", "fields = [\"api\", \"path\"]"))
        .file("apis/b.toml", log("b", "format = \"logfmt\", fields = [\"api\", \"path\"]"))
        .start();
    // Beside the file that says so.
    let is = |name: &str, lines: &str| {
        let path = gw.dir().join("apis").join(name);
        eventually(name, || (std::fs::read_to_string(&path).is_ok_and(|text| text == lines)).then_some(()));
    };
    ["/a/x", "/free", "/b/x", "/nowhere"].iter().for_each(|target| drop(gw.get(target).send()));
    is("a.log", "{\"api\":\"a\",\"path\":\"/a/x\"}\n");
    is("b.log", "api=b path=/b/x\n");
    let own = gw.logged_lines(2);
    assert_eq!((own.len(), &own[0]["path"], &own[1]["path"]), (2, &"/free".into(), &"/nowhere".into()));

    // After a change of its own it goes on elsewhere, and the others where they were.
    std::fs::write(gw.dir().join("apis/a.toml"), log("a", "fields = [\"path\"]").replace("a.log", "c.log")).unwrap();
    gw.admin_post("/apis/a/reload", "").expect(200);
    ["/a/x", "/b/x"].iter().for_each(|target| drop(gw.get(target).send().expect(200)));
    is("c.log", "{\"path\":\"/a/x\"}\n");
    is("b.log", "api=b path=/b/x\napi=b path=/b/x\n");
    // A rotation is one of all.
    for name in ["b", "c"] {
        let path = |suffix: &str| gw.dir().join(format!("apis/{name}.log{suffix}"));
        std::fs::rename(path(""), path(".1")).unwrap();
    }
    gw.reopen_logs();
    ["b.log", "c.log"].iter().for_each(|name| is(name, ""));
}

#[test]
fn each_api_has_its_own_answers_in_the_cache() {
    let origin = counting();
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            r#"
            [api.mobile]
            hosts = "m.test"
            [api.web]
            hosts = "m.test"
            base_path = "/w"
            [[route]]
            api      = ["mobile", "web"]
            match    = "/x"
            upstream = "o"
            cache    = { ttl = "1h", by = ["path"] }
            request  = { path = "/same" }
            "#,
        )
        .start();
    let times = |target: &str| gw.get(target).host("m.test").send().expect(200).header("x-times").to_owned();
    assert_eq!(
        (times("/x"), times("/w/x"), times("/x"), times("/w/x")),
        ("1".into(), "2".into(), "1".into(), "2".into())
    );
}

#[test]
fn a_view_shapes_the_answers_of_its_api_and_is_cached_by_itself() {
    let origin = Origin::answering(|_| {
        answer(200).header("Content-Type", "application/json").body(r#"{"id":7,"name":"Ada","secret":1,"more":2}"#)
    });
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            r#"
            [api.mobile]
            base_path = "/mobile"
            [api.web]
            base_path = "/web"
            [[route]]
            api         = ["mobile", "web"]
            match       = "/x"
            upstream    = "o"
            cache       = { ttl = "1h" }
            response    = { body = { remove = ["secret"] } }
            view.mobile = { remove = ["secret", "more"] }
            [[route]]
            api         = ["mobile", "web"]
            match       = "/y"
            upstream    = "o"
            view.mobile = { pick = ["name"] }
            "#,
        )
        .start();
    for _ in 0..2 {
        gw.get("/mobile/x").send().expect(200).says(r#"{"id":7,"name":"Ada"}"#);
        gw.get("/web/x").send().expect(200).says(r#"{"id":7,"name":"Ada","more":2}"#);
    }
    assert_eq!(origin.requests().len(), 2);
    gw.get("/mobile/y").send().expect(200).says(r#"{"name":"Ada"}"#);
    gw.get("/web/y").send().expect(200).says(r#"{"id":7,"name":"Ada","secret":1,"more":2}"#);
}

#[test]
fn a_trace_says_which_api_it_was() {
    let (origin, collector) = (counting(), Origin::saying("{}"));
    let trace = format!("[trace]\nendpoint = \"http://{}\"\nsample = 1.0", collector.address());
    let gw = two(&origin).config(&trace).start();
    gw.get("/users/7").host("www.test").send().expect(200);
    eventually("the span", || {
        let exported = collector.requests_for("/v1/traces");
        let has = |text: String| {
            text.contains(r#""portcullis.api","value":{"stringValue":"web"}"#) && text.contains("web/user")
        };
        exported.iter().any(|request| has(request.text())).then_some(())
    });
}

/// Two versions of one API, told apart in this way, with a route each.
fn versions(by: &str, first: &str, second: &str) -> Builder {
    gateway().config(&format!(
        r#"
        [api.v1]
        base_path = "/shop"
        version   = {{ name = "v1", by = {by}, {first} }}
        [api.v2]
        base_path = "/shop"
        version   = {{ name = "v2", by = {by}, {second} }}
        [[route]]
        api     = "v1"
        match   = "GET /x"
        respond = {{ body = "one" }}
        [[route]]
        api     = "v2"
        match   = "GET /x"
        respond = {{ body = "two" }}
        [[route]]
        api     = "v2"
        match   = "POST /x"
        respond = {{ body = "new" }}
        "#
    ))
}

#[track_caller]
fn refused(request: Request<'_>, status: u16, words: &str) {
    let problem = request.send().expect(status).problem("unknown-version").json();
    assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
}

#[test]
fn a_path_names_a_version() {
    let gw = versions("\"path\"", "deprecated = \"2024-01-01\", successor = \"v2\"", "default = true").start();
    let old = gw.get("/shop/v1/x?a=1").send().expect(200).says("one");
    assert_eq!((old.header("deprecation"), old.maybe("sunset")), ("@1704067200", ""));
    assert_eq!(old.header("link"), "</shop/v2/x?a=1>; rel=\"successor-version\"");
    let new = gw.get("/shop/v2/x").send().expect(200).says("two");
    assert_eq!((new.maybe("deprecation"), new.maybe("link")), ("", ""));
    gw.get("/shop/x").send().expect(200).says("two");
    refused(gw.get("/shop/v3/x"), 404, "there is no version `v3`: there are `v1`, `v2`");
    gw.get("/shop/v1/y").send().expect(404).problem("no-route");
    gw.get("/shop/other").send().expect(404).problem("no-route");
    gw.get("/v3/x").send().expect(404).problem("no-route");
    gw.post("/shop/v1/x").send().expect(405);
    let line = gw.logged("the refusal", |line| line["path"] == "/shop/v3/x");
    assert_eq!(line["stopped_by"], "unknown-version");
}

#[test]
fn a_header_names_a_version() {
    let gw = versions("{ header = \"X-Api-Version\" }", "successor = \"v2\"", "default = true").start();
    let ask = |version: &str| gw.get("/shop/x").header("X-Api-Version", version);
    let old = ask("1").send().expect(200).says("one");
    assert_eq!(old.header("vary").to_ascii_lowercase(), "x-api-version");
    assert_eq!(old.header("link"), "</shop/x>; rel=\"successor-version\"; title=\"v2\"");
    ask("v2").send().expect(200).says("two");
    gw.get("/shop/x").send().expect(200).says("two");
    refused(ask("3"), 400, "there is no version `3`: there are `v1`, `v2`");
    refused(ask("1").header("X-Api-Version", "2"), 400, "there is no version `2`");
    // Also where another method would be refused.
    refused(gw.request("DELETE", "/shop/x").header("X-Api-Version", "3"), 400, "`3`");
    gw.request("DELETE", "/shop/x").header("X-Api-Version", "2").send().expect(405);
}

#[test]
fn a_parameter_names_a_version_and_without_a_default_one_must_be_named() {
    let gw = versions("{ query = \"version\" }", "successor = \"v2\"", "").start();
    let old = gw.get("/shop/x?version=1&a=b").send().expect(200).says("one");
    assert_eq!(old.header("link"), "</shop/x?a=b&version=v2>; rel=\"successor-version\"");
    gw.get("/shop/x?version=v2").send().expect(200).says("two");
    refused(gw.get("/shop/x?version=9"), 400, "there is no version `9`");
    refused(gw.get("/shop/x"), 400, "the request names no version: there are `v1`, `v2`");
    gw.get("/elsewhere").send().expect(404).problem("no-route");
}

#[test]
fn a_media_type_names_a_version() {
    let by = "{ media_type = \"application/vnd.acme.{version}+json\" }";
    let gw = versions(by, "default = true, successor = \"v2\"", "").start();
    let ask = |accept: &str| gw.get("/shop/x").header("Accept", accept);
    let old = ask("application/vnd.acme.v1+json").send().expect(200).says("one");
    assert_eq!(old.header("vary").to_ascii_lowercase(), "accept");
    assert!(old.header("link").ends_with("type=\"application/vnd.acme.v2+json\""), "{}", old.header("link"));
    ask("text/html, application/vnd.acme.v2+json;q=0.9").send().expect(200).says("two");
    ask("*/*").send().expect(200).says("one");
    refused(ask("application/vnd.acme.v3+json"), 406, "there is no version `v3`");
}

#[test]
fn a_version_ends_as_it_says() {
    let past = "sunset = \"2024-07-01\", successor = \"v2\", after";
    let gone = versions("\"path\"", &format!("deprecated = 2024-01-01, {past} = \"gone\""), "").start();
    let answer = gone.get("/shop/v1/x").send().expect(410).problem("gone");
    assert_eq!(answer.header("deprecation"), "@1704067200");
    assert_eq!(answer.header("sunset"), "Mon, 01 Jul 2024 00:00:00 GMT");
    assert_eq!(answer.header("link"), "</shop/v2/x>; rel=\"successor-version\"");
    assert!(answer.json()["detail"].as_str().unwrap().ends_with(": use `v2`"));
    assert_eq!(gone.logged("the 410", |line| line["status"] == 410)["stopped_by"], "version");
    refused(gone.get("/shop/v3/x"), 404, "there is `v2`");

    let led = versions("{ query = \"v\" }", &format!("{past} = \"redirect\""), "").start();
    let answer = led.get("/shop/x?a=1&v=1").send().expect(308);
    assert_eq!((answer.header("location"), answer.header("sunset").len()), ("/shop/x?a=1&v=v2", 29));

    let served = versions("\"path\"", "sunset = \"2024-07-01\"", "").start();
    served.get("/shop/v1/x").send().expect(200).says("one");
    let coming = versions("\"path\"", "sunset = \"2999-01-01\", after = \"gone\"", "from = \"2998-01-01\"").start();
    coming.get("/shop/v1/x").send().expect(200).says("one");
    refused(coming.get("/shop/v2/x"), 404, "the version `v2` is there from 2998-01-01T00:00:00Z on: there is `v1`");
}

#[test]
fn who_uses_a_version_is_counted_and_refusals_announce_its_end() {
    let builder = gateway().config(
        r#"
        [auth.keys]
        api_key = { header = "X-Api-Key" }
        [consumer.ada]
        keys = [{ sha256 = "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683" }]
        [api.v1]
        version = { name = "v1", deprecated = "2024-01-01", successor = "v2" }
        auth    = "keys"
        [api.v2]
        version = "v2"
        [[route]]
        api     = ["v1", "v2"]
        match   = "/x"
        respond = {}
        "#,
    );
    let gw = builder.start();
    let stranger = gw.get("/v1/x").send().expect(401);
    assert_eq!(stranger.header("deprecation"), "@1704067200");
    assert_eq!(stranger.header("link"), "</v2/x>; rel=\"successor-version\"");
    // The SHA-256 is that of this text.
    gw.get("/v1/x").header("X-Api-Key", "key").send().expect(200);
    gw.get("/v2/x").send().expect(200);
    let count = |version: &str, consumer: &str| {
        gw.metric(&format!(
            r#"portcullis_api_requests_total{{api="{version}",version="{version}",consumer="{consumer}"}}"#
        ))
    };
    assert_eq!((count("v1", ""), count("v1", "ada"), count("v2", "")), (Some(1.0), Some(1.0), Some(1.0)));
}
