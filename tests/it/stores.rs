//! What several gateways know together, in a Redis: shared limits, and what becomes of them without it.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::harness::{Authority, Builder, Gateway, NoRedis, Redis, Request, Response, eventually, free_port, gateway};

/// A listener that believes whom requests say they are of, and a store that is given all the time of a busy machine.
const PATIENT: &str = "[listen.public]\naddress = \"127.0.0.1:0\"\n\
    client_ip = { header = \"X-Forwarded-For\", trust = [\"127.0.0.0/8\"] }\n\
    [store.shared]\nredis = { url = \"@url\", timeout = \"5s\" }";
/// The same with a store that is given up soon.
const HASTY: &str = "[listen.public]\naddress = \"127.0.0.1:0\"\n[store.shared]\n\
    redis = { url = \"@url\", timeout = \"200ms\" }";
/// Every word for a store that is down.
const DOWN: &str = r#"
    [[route]]
    match      = "/local"
    rate_limit = { rate = "1/h", burst = 3, by = "route", store = "shared" }
    respond    = {}
    [[route]]
    match      = "/open"
    rate_limit = { rate = "1/h", burst = 3, by = "route", store = "shared", store_down = "open" }
    respond    = {}
    [[route]]
    match      = "/closed"
    rate_limit = { rate = "1/h", burst = 3, by = "route", store = "shared", store_down = "closed" }
    respond    = {}
    [[route]]
    match      = "/shadow"
    rate_limit = { rate = "1/h", burst = 3, by = "route", store = "shared", store_down = "closed", shadow = true }
    respond    = {}
"#;

fn of(url: &str, store: &str, routes: &str) -> Builder {
    gateway().set("url", url).config(store).config(routes)
}

fn patient(redis: &Redis, routes: &str) -> Gateway {
    of(&redis.url(), PATIENT, routes).start()
}

fn by<'g>(gw: &'g Gateway, path: &str, client: &str) -> Request<'g> {
    gw.get(path).header("X-Forwarded-For", client)
}

fn statuses(gw: &Gateway, path: &str, count: usize) -> Vec<u16> {
    (0..count).map(|_| gw.get(path).send().status).collect()
}

fn calls(gw: &Gateway, result: &str) -> u64 {
    gw.metric(&format!("portcullis_store_calls_total{{store=\"shared\",result=\"{result}\"}}")).unwrap_or(0.0) as u64
}

fn is_up(gw: &Gateway) -> bool {
    gw.metric("portcullis_store_up{store=\"shared\"}") == Some(1.0)
}

fn said(gw: &Gateway, words: &str) -> usize {
    gw.errors().iter().filter(|line| line.contains(words)).count()
}

#[test]
fn gateways_together_let_no_more_through_than_burst_and_rate() {
    let redis = Redis::start();
    let limit = "[server]\nthreads = 2\n[[route]]\nmatch = \"/**\"\nrespond = {}\n\
        rate_limit = { rate = \"50/s\", burst = 50, by = \"route\", store = \"shared\", store_down = \"closed\" }";
    let gateways: Vec<Gateway> = (0..4).map(|_| patient(&redis, limit)).collect();
    let began = Instant::now();
    let ask = |gw: &Gateway| {
        let mut connection = gw.connect();
        let mut admitted = (0, 0);
        while began.elapsed() < Duration::from_secs(2) {
            match connection.get("/").send().status {
                200 => admitted.0 += 1,
                429 => admitted.1 += 1,
                other => panic!("{other}"),
            }
        }
        admitted
    };
    let found: Vec<(u64, u64)> = std::thread::scope(|scope| {
        let clients: Vec<_> = gateways.iter().flat_map(|gw| (0..3).map(move |_| gw)).collect();
        let clients: Vec<_> = clients.into_iter().map(|gw| scope.spawn(move || ask(gw))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let took = began.elapsed().as_secs_f64();
    let (admitted, refused) = found.iter().fold((0, 0), |sum, each| (sum.0 + each.0, sum.1 + each.1));
    assert!(admitted as f64 <= 50.0 + 50.0 * took, "{admitted} in {took} seconds");
    // Whoever came was let through while there was anything left: all that 2 seconds give but for the last second.
    assert!(admitted >= 100, "{admitted} in {took} seconds");
    let answered: u64 = gateways.iter().map(|gw| calls(gw, "answered")).sum();
    assert_eq!(answered, admitted + refused, "every request asked the store, once");
}

#[test]
fn gateways_together_count_a_consumer_by_its_own_rate() {
    let redis = Redis::start();
    let file = crate::limits::partners("rate_limit = { rate = \"50/s\", burst = 50 }")
        + "[defaults]\nauth = \"partners\"\n[[route]]\nmatch = \"/\"\nrespond = {}\n\
           [defaults.rate_limit]\nrate = \"1/h\"\nburst = 3\nby = \"consumer\"\n\
           store = \"shared\"\nstore_down = \"closed\"";
    let gateways = [patient(&redis, &file), patient(&redis, &file)];
    let began = Instant::now();
    let first = gateways[0].get("/").header("X-Key", "ada").send().expect(200);
    assert_eq!(first.header("ratelimit-policy"), "\"50/s by consumer\";q=50;w=1");
    assert_eq!(first.header("ratelimit"), "\"50/s by consumer\";r=49;t=1");
    let ask = |gw: &Gateway, name: &str| {
        let mut connection = gw.connect();
        let mut admitted = 0;
        while began.elapsed() < Duration::from_secs(2) {
            match connection.get("/").header("X-Key", name).send().status {
                200 => admitted += 1,
                429 => {}
                other => panic!("{other}"),
            }
        }
        admitted
    };
    let [ada, bob] = std::thread::scope(|scope| {
        let asking = ["ada", "bob"].map(|name| gateways.each_ref().map(|gw| scope.spawn(move || ask(gw, name))));
        asking.map(|both| both.into_iter().map(|one| one.join().unwrap()).sum::<u32>())
    });
    let took = began.elapsed().as_secs_f64();
    assert!(1.0 + f64::from(ada) <= 50.0 + 50.0 * took, "{ada} in {took} seconds");
    assert!(ada >= 100, "{ada} in {took} seconds");
    assert_eq!(bob, 3);
}

#[test]
fn a_shared_limit_does_what_a_local_one_does() {
    let redis = Redis::start();
    let routes = r#"
        [[route]]
        match      = "/plain"
        rate_limit = { rate = "1/h", burst = 2, store = "shared" }
        respond    = {}
        [[route]]
        match      = "/two"
        rate_limit = [{ rate = "10/h", store = "shared" }, { rate = "1/min", burst = 1, store = "shared" }]
        respond    = {}
        [[route]]
        match      = "/shadow"
        rate_limit = { rate = "1/h", store = "shared", shadow = true }
        respond    = {}
        [[route]]
        match      = "/wait"
        rate_limit = { rate = "20/s", burst = 1, store = "shared", over = { delay = "30s" } }
        respond    = {}
        [[route]]
        match      = "/fast"
        rate_limit = { rate = "300000/s", burst = 1000, store = "shared" }
        respond    = {}
    "#;
    let (a, b) = (patient(&redis, routes), patient(&redis, routes));
    let client = "192.0.2.1";
    let first = by(&a, "/plain", client).send().expect(200);
    assert_eq!(first.header("ratelimit-policy"), "\"1/h by client\";q=1;w=3600");
    assert_eq!(first.header("ratelimit"), "\"1/h by client\";r=1;t=3600");
    let second = by(&b, "/plain", client).send().expect(200);
    assert!(second.header("ratelimit").starts_with("\"1/h by client\";r=0;t="), "{:?}", second.headers);
    for gw in [&a, &b] {
        let refused = by(gw, "/plain", client).send().expect(429).problem("too-many-requests");
        let seconds: u64 = refused.header("retry-after").parse().unwrap();
        assert!((3000..=3600).contains(&seconds), "{seconds}");
        assert_eq!(refused.header("ratelimit"), format!("\"1/h by client\";r=0;t={seconds}"));
    }
    by(&b, "/plain", "192.0.2.2").send().expect(200);

    by(&a, "/two", client).send().expect(200);
    for _ in 0..20 {
        by(&b, "/two", client).send().expect(429);
    }
    // Of another network of IPv6 there is nothing yet; of this one the other limit still has nine.
    let told = by(&a, "/two", "2001:db8::1").send().expect(200);
    assert_eq!(told.header("ratelimit"), "\"10/h by client\";r=9;t=360, \"1/min by client\";r=0;t=60");
    let keys = redis.cli(&["keys", "portcullis:*"]);
    assert!(keys.lines().all(|key| !key.contains("192.0.2")), "{keys}");

    by(&a, "/shadow", client).send().expect(200);
    by(&b, "/shadow", client).send().expect(200);
    b.logged("the shadow", |line| line["shadowed"] == "rate_limit");

    let began = Instant::now();
    for gw in [&a, &b, &a, &b, &a] {
        by(gw, "/wait", client).send().expect(200);
    }
    assert!(began.elapsed() >= Duration::from_millis(200), "{:?}", began.elapsed());

    let left = by(&a, "/fast", client).send().expect(200);
    assert_eq!(left.header("ratelimit"), "\"300000/s by client\";r=999;t=1");
    assert_eq!(said(&a, "down") + said(&b, "down"), 0);
}

#[test]
fn idle_keys_are_forgotten_and_what_is_no_time_counts_as_none() {
    let redis = Redis::start();
    let routes = "[[route]]\nmatch = \"/h\"\nrespond = {}\nrate_limit = { rate = \"1/h\", burst = 2, store = \"shared\" }\n\
        [[route]]\nmatch = \"/s\"\nrespond = {}\nrate_limit = { rate = \"20/s\", store = \"shared\" }";
    let gw = patient(&redis, routes);
    let keys = || -> Vec<String> {
        let keys = redis.cli(&["keys", "portcullis:*"]);
        keys.lines().filter(|key| !key.is_empty() && *key != "portcullis:probe").map(str::to_owned).collect()
    };
    gw.get("/s").send().expect(200);
    eventually("the key is gone", || keys().is_empty().then_some(()));
    gw.get("/h").send().expect(200);
    let [key] = keys().try_into().unwrap();
    let left: u64 = redis.cli(&["pttl", &key]).parse().unwrap();
    assert!((3_000_000..=3_600_000).contains(&left), "{left}");
    // The clock was set back by a year: nobody is locked out for one.
    redis.cli(&["set", &key, "99999999999.000000000"]);
    let refused = gw.get("/h").send().expect(429);
    assert_eq!(refused.header("retry-after"), "3600");
    for garbage in ["", "x", "1", "1.x", "-1.0", "1e9.0", "nan.0"] {
        redis.cli(&["set", &key, garbage]);
        gw.get("/h").send().expect(200);
    }
    redis.cli(&["del", &key]);
    redis.cli(&["lpush", &key, "x"]);
    // What is no text is not ours: it is an error, and the gateway counts by itself.
    gw.get("/h").send().expect(200);
    gw.says("the store shared is down: it answered with the error WRONGTYPE");
}

#[test]
fn what_a_local_limit_refuses_does_not_ask_the_store() {
    let redis = Redis::start();
    let limits = "[{ rate = \"5/h\", by = \"header:a\", store = \"shared\" }, { rate = \"2/h\", by = \"header:b\" }]";
    let routes = format!("[[route]]\nmatch = \"/**\"\nrespond = {{}}\nrate_limit = {limits}");
    let gw = patient(&redis, &routes);
    let ask = |a: &str, b: &str| gw.get("/").header("a", a).header("b", b).send();
    let told = ask("1", "1").expect(200);
    let both = "\"5/h by header:a\";r=4;t=720, \"2/h by header:b\";r=1;t=1800";
    assert_eq!(told.header("ratelimit"), both, "in the order of the file");
    ask("1", "1").expect(200);
    for _ in 0..5 {
        ask("1", "1").expect(429);
    }
    assert_eq!(calls(&gw, "answered"), 2);
    for b in ["2", "3", "4"] {
        ask("1", b).expect(200);
    }
    // Who is refused by the shared one gets back what the other has taken.
    for _ in 0..3 {
        ask("1", "5").expect(429);
    }
    assert_eq!(ask("2", "5").expect(200).header("ratelimit"), both);
}

#[test]
fn a_store_that_ends_and_begins_again_does_as_is_said() {
    let mut redis = Redis::start();
    let gw = of(&redis.url(), PATIENT, DOWN).start();
    for path in ["/local", "/open", "/closed"] {
        assert_eq!(statuses(&gw, path, 4), [200, 200, 200, 429], "{path}");
    }
    assert!(is_up(&gw));
    redis.end();
    // The first that finds out goes on as is said for it, as do the others.
    assert_eq!(statuses(&gw, "/local", 5), [200, 200, 200, 429, 429]);
    assert_eq!(statuses(&gw, "/open", 5), [200; 5]);
    for _ in 0..5 {
        let refused = gw.get("/closed").send().expect(503).problem("limit-unavailable");
        assert_eq!(refused.header("retry-after"), "1");
        assert!(refused.headers.first("ratelimit").is_none());
    }
    let line = gw.logged("the refusal", |line| line["status"] == 503);
    assert_eq!((&line["stopped_by"], &line["cause"]), (&"rate_limit".into(), &"the store of a limit is down".into()));
    gw.get("/closed").header("Content-Type", "application/grpc").send().grpc_error(14);
    gw.get("/shadow").send().expect(200);
    gw.logged("the shadow", |line| line["shadowed"] == "rate_limit");
    assert!(!is_up(&gw));
    assert_eq!(gw.admin("/stores").expect(200).text(), "[{\"name\":\"shared\",\"up\":false}]\n");
    assert!(calls(&gw, "spared") >= 12, "nobody waits for a store that is known to be down");

    redis.begin();
    gw.says("the store shared is up");
    // Redis has forgotten.
    for path in ["/local", "/open", "/closed"] {
        assert_eq!(statuses(&gw, path, 4), [200, 200, 200, 429], "{path}");
    }
    assert!(is_up(&gw));
    assert_eq!(gw.metric("portcullis_store_falls_total{store=\"shared\"}"), Some(1.0));
    assert_eq!((said(&gw, "shared is down"), said(&gw, "shared is up")), (1, 1), "{:?}", gw.errors());
}

#[test]
fn a_store_that_hangs_is_given_up_and_taken_back() {
    let redis = Redis::start();
    let gw = of(&redis.url(), HASTY, DOWN).start();
    eventually("the store is asked", || {
        gw.get("/open").send().expect(200);
        (calls(&gw, "answered") > 0).then_some(())
    });
    let before = calls(&gw, "late");
    redis.pause();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = gw.connect();
                for _ in 0..50 {
                    connection.get("/open").send().expect(200);
                }
            });
        }
    });
    gw.says("the store shared is down: it did not answer in time");
    gw.get("/closed").send().expect(503);
    // Only those that were under way waited.
    assert!(calls(&gw, "late") <= before + 8, "{}", calls(&gw, "late"));
    assert!(calls(&gw, "spared") >= 8 * 49, "{}", calls(&gw, "spared"));
    redis.resume();
    eventually("the store is asked again", || {
        let before = calls(&gw, "answered");
        gw.get("/open").send();
        (calls(&gw, "answered") > before).then_some(())
    });
}

#[test]
fn what_only_claims_to_be_a_redis_is_down() {
    let garbage = "is down: what it said is no answer of a Redis";
    let flood = vec![b'x'; 1 << 20];
    for (server, why) in [
        (NoRedis::that(drop), "is down: the connection broke"),
        (
            NoRedis::that(|_| {
                loop {
                    std::thread::park()
                }
            }),
            "is down: it did not answer in time",
        ),
        (NoRedis::saying("HTTP/1.1 400 Bad Request\r\n\r\n", false), garbage),
        (NoRedis::saying("+OK\r\n", false), garbage),
        (NoRedis::saying("*1\r\n:-1\r\n", false), garbage),
        (NoRedis::saying("*1\r\n$1\r\n1\r\n", false), garbage),
        (NoRedis::saying("$9223372036854775807\r\n", false), garbage),
        (NoRedis::saying("*9223372036854775807\r\n:1\r\n", false), garbage),
        (NoRedis::saying("*1\r\n*1\r\n".repeat(10_000), false), garbage),
        (NoRedis::saying([&b"$1073741824\r\n"[..], &flood].concat(), true), garbage),
        (NoRedis::saying(flood.clone(), true), garbage),
        (NoRedis::saying([&b"-"[..], &flood].concat(), true), garbage),
        (NoRedis::saying("-\u{1b}[2Jhello\r\n", false), "is down: it answered with the error ERR"),
        (NoRedis::saying("-LOADING Redis is loading the dataset in memory\r\n", false), "with the error LOADING"),
        (NoRedis::saying("-NOSCRIPT No matching script.\r\n", false), "with the error NOSCRIPT"),
    ] {
        let store = if why.ends_with("in time") { HASTY } else { PATIENT };
        let gw = of(&server.url(), store, DOWN).start();
        let before = gw.memory();
        for _ in 0..5 {
            gw.get("/closed").send().expect(503).problem("limit-unavailable");
            gw.get("/open").send().expect(200);
        }
        gw.says(why);
        assert_eq!(statuses(&gw, "/local", 4), [200, 200, 200, 429], "{why}");
        assert!(gw.memory() < before + (32 << 20), "{why}: {} after {before}", gw.memory());
        assert!(gw.errors().iter().all(|line| !line.contains('\u{1b}') && !line.contains("panicked")));
    }
}

#[test]
fn a_script_that_was_forgotten_is_brought_again() {
    let redis = Redis::start();
    let gw = patient(&redis, DOWN);
    gw.get("/closed").send().expect(200);
    redis.cli(&["script", "flush"]);
    assert_eq!(statuses(&gw, "/closed", 3), [200, 200, 429]);
    assert_eq!(said(&gw, "is down"), 0, "{:?}", gw.errors());
}

#[test]
fn a_password_is_given_and_never_shown() {
    let redis = Redis::with(&["--requirepass", "hunter/2"]);
    let store = "[listen.public]\naddress = \"127.0.0.1:0\"\n[store.shared]\n\
        redis = { url = { env = \"REDIS_URL\" }, timeout = \"5s\" }";
    let start = |url: &str| gateway().env("REDIS_URL", url).config(store).config(DOWN).start();
    let at = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}/2", redis.port());
    let gw = start(&at(":hunter%2F2@"));
    assert_eq!(statuses(&gw, "/closed", 4), [200, 200, 200, 429]);
    let keys = redis.cli(&["-n", "2", "keys", "portcullis:*"]);
    assert!(keys.lines().any(|key| key != "portcullis:probe"), "{keys}");
    assert_eq!(said(&gw, "is down"), 0, "{:?}", gw.errors());

    for (url, code) in [(at(":hunter3@"), "WRONGPASS"), (at(""), "NOAUTH")] {
        let gw = start(&url);
        gw.get("/closed").send().expect(503);
        gw.says(&format!("the store shared is down: it answered with the error {code}"));
        for text in [gw.errors().join("\n"), gw.admin("/metrics").text()] {
            assert!(!text.contains("hunter"), "{text}");
        }
    }
    redis.cli(&[
        "acl",
        "setuser",
        "gate",
        "on",
        ">open",
        "~portcullis:*",
        "+eval",
        "+evalsha",
        "+time",
        "+get",
        "+set",
        "+select",
    ]);
    let gw = start(&at("gate:open@"));
    assert_eq!(statuses(&gw, "/open", 4), [200, 200, 200, 429]);
    assert_eq!(said(&gw, "is down"), 0, "{:?}", gw.errors());

    let said = gateway()
        .config("[store.a]\nredis = { url = \"redis://:hunter2@h/x\", timeot = \"1s\" }\n[store.b]\nurl = \"redis://:hunter2@h\"")
        .config(DOWN)
        .refused();
    assert!(said.contains("did you mean `timeout`?") && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_store_over_tls_is_verified() {
    let (authority, stranger) = (Authority::new("redis"), Authority::new("stranger"));
    let dir = tempfile::tempdir().unwrap();
    let identity = authority.issue(&["127.0.0.1"]);
    for (name, text) in [("own.pem", &identity.cert), ("own.key", &identity.key), ("ca.pem", &authority.pem())] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let port = free_port();
    let _redis = Redis::of(
        &[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            "@dir/own.pem",
            "--tls-key-file",
            "@dir/own.key",
            "--tls-ca-cert-file",
            "@dir/ca.pem",
            "--tls-auth-clients",
            "no",
        ],
        dir,
    );
    let start = |ca: &Authority| {
        let store = "[listen.public]\naddress = \"127.0.0.1:0\"\n[store.shared]\n\
            redis = { url = \"rediss://127.0.0.1:@port\", ca = \"ca.pem\", timeout = \"5s\" }";
        gateway().set("port", port.to_string()).file("ca.pem", ca.pem()).config(store).config(DOWN).start()
    };
    let gw = start(&authority);
    assert_eq!(statuses(&gw, "/closed", 4), [200, 200, 200, 429]);
    let gw = start(&stranger);
    gw.get("/closed").send().expect(503);
    gw.says("the store shared is down: it cannot be connected to: invalid peer certificate");
}

#[test]
fn a_reload_keeps_the_connection_of_a_store_that_did_not_change() {
    let redis = Redis::start();
    let file = |more: &str, timeout: &str| {
        format!(
            "[listen.public]\naddress = \"127.0.0.1:0\"\n\
             [store.shared]\nredis = {{ url = {{ file = \"url\" }}, timeout = \"{timeout}\" }}\n{DOWN}{more}"
        )
    };
    let gw = gateway().file("url", redis.url() + "\n").config(&file("", "5s")).start();
    assert_eq!(statuses(&gw, "/closed", 2), [200, 200]);
    let connections = || {
        let list = redis.cli(&["client", "list"]);
        let gateways = list.lines().filter(|line| !line.contains("cmd=client"));
        let mut ids: Vec<String> = gateways.map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let before =
        eventually("only the worker's connection is left", || Some(connections()).filter(|ids| ids.len() == 1));
    let changes = |response: Response| response.expect(200).json()["changes"].to_string();
    gw.rewrite(&file("[[route]]\nmatch = \"/new\"\nrespond = {}\n", "5s"));
    assert!(!changes(gw.reload()).contains("store"));
    assert_eq!(statuses(&gw, "/closed", 2), [200, 429], "the counts are kept");
    assert_eq!(connections(), before);

    for (file, url) in [(file("", "4s"), redis.url()), (file("", "4s"), redis.url() + "/0")] {
        std::fs::write(gw.dir().join("url"), url).unwrap();
        gw.rewrite(&file);
        assert!(changes(gw.reload()).contains("store shared changed"));
        gw.get("/closed").send().expect(429);
        eventually("the old connections are closed", || {
            let now = connections();
            (now.len() == 1 && now != before).then_some(())
        });
    }
    gw.rewrite("[listen.public]\naddress = \"127.0.0.1:0\"\n[[route]]\nmatch = \"/\"\nrespond = {}");
    assert!(changes(gw.reload()).contains("store shared removed"));
    eventually("no connection is left", || connections().is_empty().then_some(()));
    eventually("nothing is counted of it", || {
        gw.metric("portcullis_store_up{store=\"shared\"}").is_none().then_some(())
    });
}

#[test]
fn what_is_only_talked_about_asks_no_store() {
    let server = NoRedis::that(|mut stream| drop(stream.write_all(b"x")));
    let routes = format!(
        "{DOWN}\n[[test]]\nrequest = \"GET /closed\"\n\
         expect = {{ status = 200, headers = {{ RateLimit = {{ regex = \".*;r=2;.*\" }} }} }}"
    );
    let builder = of(&server.url(), PATIENT, &routes);
    for arguments in [&["check", "@file"][..], &["test", "@file"], &["explain", "--config", "@file", "GET /closed"]] {
        let output = builder.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn a_store_that_nothing_uses_is_warned_of_and_left_alone() {
    let server = NoRedis::that(drop);
    let routes = "[[route]]\nmatch = \"/\"\nrespond = {}\n\
        [policy.unused]\nrate_limit = { rate = \"1/s\", store = \"shared\" }";
    let output = of(&server.url(), PATIENT, routes).check();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no limit of a route uses the store `shared`"), "{said}");
    let gw = of(&server.url(), PATIENT, routes).start();
    gw.get("/").send().expect(200);
    assert_eq!(server.connections(), 0);
}
