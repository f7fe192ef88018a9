//! Answers from the cache: the rules of RFC 9111 for a shared cache, and what it is not to be talked into.

use std::sync::atomic::{AtomicUsize, Ordering};

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::harness::{Answer, Authority, Gateway, Origin, Response, Seen, answer, eventually, gateway};

/// A cache for large answers.
const ROOMY: &str = "[cache.main]\nmemory = \"256MiB\"\nmax_object = \"32MiB\"\n[defaults]\ncache = {}";
const CACHED: &str = "[defaults]\ncache = {}";

/// An origin that says which of its answers this is.
fn counting(shape: impl Fn(Answer, &Seen) -> Answer + Send + Sync + 'static) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::answering(move |seen| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        shape(answer(200).body(format!("answer {n}")), seen)
    })
}

fn saying(name: &'static str, value: &'static str) -> Origin {
    counting(move |answer, _| answer.header(name, value))
}

fn cached(origin: &Origin) -> Gateway {
    gateway().config(CACHED).everything_to(origin).start()
}

fn with(cache: &str, origin: &Origin) -> Gateway {
    gateway().config(&format!("[defaults]\ncache = {cache}")).everything_to(origin).start()
}

fn date(ago: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(ago))
}

fn in_future(seconds: u64) -> String {
    httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(seconds))
}

fn status(response: &Response) -> &str {
    response.header("cache-status")
}

/// The first word of `Cache-Status`: `hit`, or why the request was forwarded.
fn word(response: &Response) -> String {
    status(response).split("; ").nth(1).unwrap_or("").to_owned()
}

/// An answer's status and fields, as `field: value` lines.
type Told = (u16, Vec<(&'static str, String)>);

/// Answers with what each path stands for.
fn telling(told: Vec<Told>) -> Origin {
    counting(move |answer, seen| {
        let index: usize = seen.target.trim_start_matches('/').parse().unwrap();
        let (status, fields) = &told[index];
        let answer = if *status == 200 { answer } else { crate::harness::answer(*status).body("other") };
        fields.iter().fold(answer, |answer, (name, value)| answer.header(name, value))
    })
}

/// Asks for each of these answers twice; the second must be stored, or must not be.
#[track_caller]
fn all_are(stored: bool, cache: &str, told: Vec<Told>, request: &[(&str, &str)]) {
    let origin = telling(told.clone());
    let gw = with(cache, &origin);
    for (i, what) in told.iter().enumerate() {
        let ask = || {
            let target = format!("/{i}");
            request.iter().fold(gw.get(&target), |ask, (name, value)| ask.header(name, value)).send().expect(what.0)
        };
        ask();
        let again = ask();
        assert_eq!(word(&again) == "hit", stored, "{what:?}: {}", status(&again));
    }
}

fn ok(fields: &[(&'static str, &str)]) -> Told {
    (200, fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

fn control(value: &str) -> Told {
    ok(&[("Cache-Control", value)])
}

#[test]
fn a_fresh_answer_is_given_again() {
    let origin = saying("Cache-Control", "max-age=60");
    let gw = cached(&origin);
    let first = gw.get("/x").send().expect(200).says("answer 1");
    assert_eq!(status(&first), "portcullis; fwd=uri-miss; fwd-status=200; stored");
    assert!(first.headers.all("age").is_empty());
    let second = gw.get("/x").send().expect(200).says("answer 1");
    assert!(status(&second).starts_with("portcullis; hit; ttl="), "{}", status(&second));
    assert!(second.header("age").parse::<u64>().unwrap() <= 60);
    assert_eq!(second.header("content-length"), "8");
    gw.get("/y").send().says("answer 2");
    gw.get("/x?q").send().says("answer 3");
    let lines = gw.logged_lines(4);
    let said: Vec<_> = lines.iter().map(|line| line["cache"].as_str().unwrap()).collect();
    assert_eq!(said, ["miss", "hit", "miss", "miss"]);
    assert_eq!(lines[0]["attempts"], 1);
    assert!(lines[1]["attempts"].is_null() && lines[1]["server"].is_null());
}

#[test]
fn all_clients_of_a_host_have_the_same_answers() {
    let origin = saying("Cache-Control", "max-age=60");
    let gw = cached(&origin);
    gw.get("/x").host("example.com").send().says("answer 1");
    assert_eq!(gw.h2c().get("/x").host("example.com").send().text(), "answer 1");
    gw.get("/x").host("EXAMPLE.com").send().says("answer 1");
    gw.get("/x").host("example.org").send().says("answer 2");
    // Servers are told the port too, and may write it into their answers.
    gw.get("/x").host("example.com:81").send().says("answer 3");
    gw.get("/a/../x").host("example.com").send().says("answer 1");
    gw.get("/%78").host("example.com").send().says("answer 1");
}

// RFC 9111, section 3: storing responses in caches.

#[test]
fn what_may_be_stored_is() {
    let future = in_future(60);
    let told = vec![
        control("max-age=60"),
        control("s-maxage=60"),
        control("public, max-age=60"),
        control("MAX-AGE=\"60\""),
        control("max-age=0, s-maxage=60"),
        ok(&[("Expires", &future)]),
        // An extension that nobody knows is nothing.
        control("max-age=60, community=\"UCI, no-store\""),
        // Whoever understands the status may disregard `no-store` (section 5.2.2.3).
        control("no-store, must-understand, max-age=60"),
        // Fields that are not for others (sections 5.2.2.4 and 5.2.2.7).
        control("max-age=60, private=\"x-mine\""),
        control("max-age=60, no-cache=\"x-mine\""),
        // Aimed at caches like this one (RFC 9213).
        ok(&[("Cache-Control", "no-store"), ("CDN-Cache-Control", "max-age=60")]),
        (404, vec![("Cache-Control", "max-age=60".into())]),
        (301, vec![("Cache-Control", "max-age=60".into()), ("Location", "/".into())]),
        (500, vec![("Cache-Control", "max-age=60".into())]),
        // A status that is not known, and says so itself.
        (299, vec![("Cache-Control", "max-age=60".into())]),
        (204, vec![("Cache-Control", "max-age=60".into())]),
    ];
    all_are(true, "{}", told, &[]);
}

#[test]
fn what_may_not_be_stored_is_not() {
    let (past, future) = (date(60), in_future(60));
    let told = vec![
        ok(&[]),
        control("no-store"),
        control("no-store, max-age=60"),
        control("private, max-age=60"),
        control("private, private=\"x-mine\", max-age=60"),
        control("max-age=0"),
        control("max-age=60, max-age=0"),
        control("max-age=sixty"),
        control("max-age=-1"),
        control("max-age"),
        control("max-age=60, s-maxage=0"),
        ok(&[("Expires", &past)]),
        ok(&[("Expires", "0")]),
        ok(&[("Expires", &future), ("Cache-Control", "max-age=0")]),
        // Two dates are as good as none (section 4.2.1).
        ok(&[("Expires", &future), ("Expires", &future)]),
        ok(&[("Cache-Control", "max-age=60"), ("Vary", "*")]),
        ok(&[("Cache-Control", "max-age=60"), ("Vary", "Accept, *")]),
        ok(&[("Cache-Control", "max-age=60"), ("Set-Cookie", "id=1")]),
        ok(&[("Cache-Control", "public, max-age=60"), ("Set-Cookie", "id=1")]),
        ok(&[("Cache-Control", "max-age=60"), ("CDN-Cache-Control", "no-store")]),
        ok(&[("Expires", &future), ("CDN-Cache-Control", "must-revalidate")]),
        // The status is not known, which is required.
        (299, vec![("Cache-Control", "must-understand, max-age=60".into())]),
        (206, vec![("Cache-Control", "max-age=60".into()), ("Content-Range", "bytes 0-4/10".into())]),
        ok(&[("Cache-Control", "max-age=60"), ("Content-Range", "bytes 0-4/10")]),
        // It was stale when it came.
        ok(&[("Cache-Control", "max-age=60"), ("Age", "60")]),
        ok(&[("Cache-Control", "max-age=60"), ("Age", "99999999999999999999")]),
        ok(&[("Cache-Control", "max-age=60"), ("Date", &date(120))]),
    ];
    all_are(false, "{}", told, &[]);
}

#[test]
fn methods_other_than_get_are_not_stored_and_not_answered() {
    let origin = saying("Cache-Control", "max-age=60");
    let gw = cached(&origin);
    for (n, method) in [(1, "POST"), (2, "PUT"), (3, "OPTIONS"), (4, "POST")] {
        let sent = gw.request(method, "/x").send().expect(200).says(&format!("answer {n}"));
        let why = if method == "OPTIONS" { "fwd=bypass" } else { "fwd=method" };
        assert_eq!(word(&sent), why);
    }
    // A GET with a body may mean more than its URL.
    gw.get("/x").body("more").send().says("answer 5");
    gw.get("/x").body("more").send().says("answer 6");
}

#[test]
fn what_a_caller_is_authorized_for_is_not_for_others() {
    let mine = [("Authorization", "Basic QTpC")];
    // Section 3.5.
    let may = ["public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60"];
    all_are(true, "{}", may.map(control).into(), &mine);
    all_are(false, "{}", ["max-age=60", "proxy-revalidate, max-age=60"].map(control).into(), &mine);
    all_are(false, "{ ttl = \"60s\" }", vec![ok(&[])], &mine);
    all_are(true, "{ by = [\"url\", \"header:authorization\"] }", vec![control("max-age=60")], &mine);
    let origin = saying("Cache-Control", "max-age=60");
    let gw = cached(&origin);
    gw.get("/x").header("Authorization", "Basic QTpC").send().says("answer 1");
    gw.get("/x").send().says("answer 2");
    // What everybody may see, the authorized may.
    gw.get("/x").header("Authorization", "Basic QTpC").send().says("answer 2");
}

#[test]
fn cookies_are_not_shared() {
    let mine = [("Cookie", "session=1")];
    all_are(false, "{ ttl = \"60s\" }", vec![ok(&[])], &mine);
    all_are(true, "{ ttl = \"60s\" }", vec![ok(&[])], &[]);
    all_are(true, "{ ttl = \"60s\", by = [\"url\", \"header:cookie\"] }", vec![ok(&[])], &mine);
    all_are(true, "{}", vec![control("max-age=60")], &mine);
    // A field that its owner takes out is not stored, and so cannot be given to others.
    let origin = counting(|answer, _| {
        answer.header("Cache-Control", "max-age=60, no-cache=\"set-cookie\"").header("Set-Cookie", "id=1")
    });
    let gw = cached(&origin);
    assert_eq!(gw.get("/x").send().header("set-cookie"), "id=1");
    let again = gw.get("/x").send().says("answer 1");
    assert!(!again.headers.has("set-cookie"));
}

#[test]
fn a_request_may_ask_for_nothing_to_be_stored() {
    let origin = saying("Cache-Control", "max-age=60");
    let gw = cached(&origin);
    gw.get("/x").header("Cache-Control", "no-store").send().says("answer 1");
    gw.get("/x").send().says("answer 2");
}

#[test]
fn fields_of_the_connection_are_not_stored() {
    let origin = counting(|answer, _| {
        let answer = answer.header("Cache-Control", "max-age=60").header("Connection", "X-Hop").header("X-Hop", "1");
        answer.header("Keep-Alive", "timeout=5").header("X-End", "1").header("Age", "7")
    });
    let gw = cached(&origin);
    gw.get("/x").send().expect(200);
    let again = gw.get("/x").send().says("answer 1");
    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert!(!again.headers.has(name), "{name}");
    }
    assert_eq!(again.header("x-end"), "1");
    let age: u64 = again.header("age").parse().unwrap();
    assert!((7..60).contains(&age), "{age}");
}

// Section 4: constructing responses from caches.

#[test]
fn what_was_not_whole_is_not_stored() {
    let count = AtomicUsize::new(0);
    let origin = Origin::answering(move |_| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let whole = answer(200).header("Cache-Control", "max-age=60").body(format!("answer number {n}"));
        if n == 0 { whole.cut_after(5) } else { whole }
    });
    let gw = cached(&origin);
    assert!(gw.get("/x").try_send().is_err());
    gw.get("/x").send().says("answer number 1");
    gw.get("/x").send().says("answer number 1");
}

#[test]
fn answers_that_vary_are_told_apart() {
    let origin =
        counting(|answer, _| answer.header("Cache-Control", "max-age=60").header("Vary", "Accept-Language, X-Kind"));
    let gw = cached(&origin);
    let ask = |language: &str| gw.get("/x").header("Accept-Language", language).send();
    ask("de").says("answer 1");
    assert_eq!(word(&ask("fr").says("answer 2")), "fwd=vary-miss");
    ask("de").says("answer 1");
    ask("fr").says("answer 2");
    gw.get("/x").send().says("answer 3");
    gw.get("/x").send().says("answer 3");
    // White space, and a field in several lines, mean the same (section 4.1).
    let both = gw.get("/x").header("Accept-Language", "de").header("X-Kind", "a,b").send().text();
    let lines = gw.get("/x").header("Accept-Language", " de ").header("X-Kind", "a").header("X-Kind", "b").send();
    lines.says(&both);
}

#[test]
fn what_varies_more_than_before_is_told_apart_by_more() {
    let origin = counting(|answer, seen| {
        let answer = answer.header("Cache-Control", "max-age=60");
        match seen.headers.first("x-b") {
            Some(_) => answer.header("Vary", "X-A, X-B"),
            None => answer.header("Vary", "X-A"),
        }
    });
    let gw = cached(&origin);
    let ask = |b: &str| gw.get("/x").header("X-A", "1").header("X-B", b).send();
    gw.get("/x").header("X-A", "1").send().says("answer 1");
    ask("1").says("answer 1");
    gw.get("/x").header("X-A", "2").header("X-B", "1").send().says("answer 2");
    ask("1").says("answer 3");
    ask("2").says("answer 4");
    ask("1").says("answer 3");
}

#[test]
fn the_age_of_an_answer_counts_from_its_origin() {
    let told = [("Age", "50"), ("Age", "junk"), ("Age", "50, 1")];
    let origin = counting(move |answer, seen| {
        let (name, value) = told[seen.target[1..].parse::<usize>().unwrap()];
        answer.header("Cache-Control", "max-age=60").header(name, value)
    });
    let gw = cached(&origin);
    let age = |target: &str| {
        gw.get(target).send();
        gw.get(target).send().header("age").parse::<u64>().unwrap()
    };
    assert!((50..60).contains(&age("/0")));
    assert!(age("/1") < 10);
    assert!((50..60).contains(&age("/2")));
    // An old date makes it old too (section 4.2.3).
    let origin = counting(|answer, _| answer.header("Cache-Control", "max-age=600").header("Date", &date(100)));
    let gw = cached(&origin);
    gw.get("/x").send();
    let age: u64 = gw.get("/x").send().header("age").parse().unwrap();
    assert!((100..200).contains(&age), "{age}");
}

#[test]
fn a_stale_answer_is_not_used() {
    let origin = saying("Cache-Control", "max-age=1");
    let gw = cached(&origin);
    gw.get("/x").send().says("answer 1");
    gw.get("/x").send().says("answer 1");
    eventually("the answer is fetched anew", || (gw.get("/x").send().text() != "answer 1").then_some(()));
}

// Section 4.2.2: heuristics, only where somebody asks for them.

#[test]
fn heuristics_are_for_those_who_ask_for_them() {
    let old = date(86400);
    let told = vec![ok(&[("Last-Modified", &old)])];
    let origin = telling(told.clone());
    let gw = with("{ heuristic = true }", &origin);
    gw.get("/0").send();
    let hit = gw.get("/0").send();
    let ttl: u64 = status(&hit).rsplit_once("ttl=").unwrap().1.parse().unwrap();
    assert!((8000..=8640).contains(&ttl), "{ttl}");
    assert!(!hit.headers.has("warning"));
    // It may be stored to be validated, not to be used.
    let origin = telling(told);
    let gw = cached(&origin);
    gw.get("/0").send();
    assert_ne!(word(&gw.get("/0").send()), "hit");
    // What says itself how long it is fresh is not guessed at.
    all_are(false, "{ heuristic = true }", vec![ok(&[("Last-Modified", &old), ("Expires", "0")])], &[]);
    all_are(false, "{ heuristic = true }", vec![ok(&[])], &[]);
}

// Section 5.2.1: what requests say.

#[test]
fn requests_say_what_they_take() {
    let origin =
        counting(|answer, _| answer.header("Cache-Control", "max-age=100").header("Age", "50").header("ETag", "\"1\""));
    let gw = cached(&origin);
    let ask = |control: &str| word(&gw.get("/x").header("Cache-Control", control).send().expect(200));
    gw.get("/x").send();
    for fine in ["max-age=90", "min-fresh=10", "max-stale", "max-age=90, max-stale=5", "only-if-cached"] {
        assert_eq!(ask(fine), "hit", "{fine}");
    }
    for wanting in ["no-cache", "max-age=0", "max-age=5", "min-fresh=90", "max-age=x"] {
        assert_eq!(ask(wanting), "fwd=request", "{wanting}");
    }
    assert_eq!(word(&gw.get("/x").header("Pragma", "no-cache").send()), "fwd=request");
    // Where there is both, the newer one counts (section 5.4).
    assert_eq!(word(&gw.get("/x").header("Pragma", "no-cache").header("Cache-Control", "max-age=90").send()), "hit");
    gw.get("/other").header("Cache-Control", "only-if-cached").send().expect(504).problem("not-cached");
    assert_eq!(gw.logged("the refusal", |line| line["status"] == 504)["stopped_by"], "not-cached");
    let gw = with("{ request_directives = false }", &origin);
    gw.get("/x").send();
    assert_eq!(word(&gw.get("/x").header("Cache-Control", "no-cache").send()), "hit");
}

#[test]
fn who_takes_stale_answers_gets_them_unless_they_are_forbidden() {
    let told =
        ["max-age=5", "max-age=5, must-revalidate", "max-age=5, proxy-revalidate", "s-maxage=5", "max-age=5, no-cache"];
    let stale = |control: &str| ok(&[("Cache-Control", control), ("Age", "10"), ("ETag", "\"1\"")]);
    let origin = telling(told.iter().map(|control| stale(control)).collect());
    let gw = cached(&origin);
    for (i, what) in told.iter().enumerate() {
        let target = format!("/{i}");
        gw.get(&target).send();
        let ask = |control: &str| word(&gw.get(&target).header("Cache-Control", control).send().expect(200));
        let given = [ask("max-stale=3"), ask("max-stale=30"), ask("max-stale")].map(|word| word == "hit");
        assert_eq!(given, if i == 0 { [false, true, true] } else { [false; 3] }, "{what}");
    }
}

// Section 4.3: validation.

/// Answers with an entity that changes when `version` does, and that may be validated.
fn validating(version: Arc<AtomicUsize>, fields: &'static [(&'static str, &'static str)]) -> Origin {
    Origin::answering(move |seen| {
        let tag = format!("\"v{}\"", version.load(Ordering::SeqCst));
        let same = seen.headers.first("if-none-match") == Some(&*tag);
        let answer = if same { answer(304) } else { answer(200).body(format!("entity {tag}")) };
        fields.iter().fold(answer.header("ETag", &tag), |answer, (name, value)| answer.header(name, value))
    })
}

#[test]
fn a_stale_answer_is_validated() {
    let version = Arc::new(AtomicUsize::new(1));
    let origin = validating(version.clone(), &[("Cache-Control", "no-cache")]);
    let gw = cached(&origin);
    gw.get("/x").send().says("entity \"v1\"");
    let valid = gw.get("/x").send().expect(200).says("entity \"v1\"");
    assert_eq!(status(&valid), "portcullis; fwd=stale; fwd-status=304");
    assert_eq!(origin.requests()[1].header("if-none-match"), "\"v1\"");
    version.store(2, Ordering::SeqCst);
    let new = gw.get("/x").send().says("entity \"v2\"");
    assert_eq!(status(&new), "portcullis; fwd=stale; fwd-status=200; stored");
    // What the client has is its own matter: it is not what the cache has (section 4.3.1).
    gw.get("/x").header("If-None-Match", "\"v1\"").send().expect(200).says("entity \"v2\"");
    assert_eq!(origin.requests()[3].header("if-none-match"), "\"v2\"");
    gw.get("/x").header("If-None-Match", "W/\"v2\"").send().expect(304);
    let words: Vec<_> = gw.logged_lines(5).iter().map(|line| line["cache"].as_str().unwrap().to_owned()).collect();
    assert_eq!(words, ["miss", "revalidated", "miss", "revalidated", "revalidated"]);
}

#[test]
fn dates_validate_too() {
    let changed = date(1000);
    let told = changed.clone();
    let origin = counting(move |found, seen| {
        let same = seen.headers.first("if-modified-since") == Some(&told);
        let answer = if same { answer(304) } else { found };
        answer.header("Last-Modified", &told).header("Cache-Control", "no-cache")
    });
    let gw = cached(&origin);
    gw.get("/x").send().says("answer 1");
    gw.get("/x").send().expect(200).says("answer 1");
    gw.get("/x").header("If-Modified-Since", &changed).send().expect(304);
    gw.get("/x").header("If-Modified-Since", &date(5000)).send().expect(200).says("answer 1");
    gw.get("/x").header("If-Modified-Since", "yesterday").send().expect(200).says("answer 1");
}

#[test]
fn all_fields_of_a_304_are_merged() {
    let origin = Origin::answering(|seen| match seen.headers.has("if-none-match") {
        false => {
            let first = answer(200).header("ETag", "\"1\"").header("Cache-Control", "no-cache").body("whole");
            first
                .header("X-Old", "1")
                .header("X-Both", "old")
                .header("X-Both", "older")
                .header("Content-Type", "text/a")
        }
        true => {
            let valid = answer(304).header("ETag", "\"1\"").header("Cache-Control", "max-age=60").header("X-New", "2");
            valid
                .header("X-Both", "new")
                .header("Content-Length", "999")
                .header("Connection", "x-hop")
                .header("X-Hop", "1")
        }
    });
    let gw = cached(&origin);
    gw.get("/x").send().says("whole");
    for word in ["fwd=stale", "hit", "hit"] {
        let given = gw.get("/x").send().expect(200).says("whole");
        assert_eq!(self::word(&given), word);
        assert_eq!((given.header("x-old"), given.header("x-new"), given.header("x-both")), ("1", "2", "new"));
        assert_eq!((given.header("content-type"), given.header("content-length")), ("text/a", "5"));
        assert!(!given.headers.has("x-hop"));
    }
}

#[test]
fn what_is_for_one_caller_in_a_304_is_not_for_others() {
    let count = AtomicUsize::new(0);
    let origin = Origin::answering(move |seen| {
        let n = count.fetch_add(1, Ordering::SeqCst);
        let answer = if seen.headers.has("if-none-match") { answer(304) } else { answer(200).body("whole") };
        let answer =
            answer.header("ETag", "\"1\"").header("X-Mine", &n.to_string()).header("Set-Cookie", &format!("id={n}"));
        let age = if n == 0 { "10" } else { "0" };
        answer.header("Cache-Control", "max-age=5, private=\"x-mine\", no-cache=\"set-cookie\"").header("Age", age)
    });
    let gw = cached(&origin);
    assert_eq!(gw.get("/x").send().says("whole").header("x-mine"), "0");
    assert_eq!(word(&gw.get("/x").send().says("whole")), "fwd=stale");
    let hit = gw.get("/x").send().says("whole");
    assert_eq!(word(&hit), "hit");
    assert!(!hit.headers.has("x-mine") && !hit.headers.has("set-cookie"), "{hit:?}");
}

#[test]
fn a_304_about_something_else_is_not_believed() {
    let origin = counting(|found, seen| match seen.headers.has("if-none-match") {
        true => answer(304).header("ETag", "\"other\""),
        false => {
            let answer = found.header("ETag", "\"1\"").header("Cache-Control", "no-cache");
            answer.resting(3, Duration::from_millis(300))
        }
    });
    let gw = cached(&origin);
    gw.get("/x").send().says("answer 1");
    gw.get("/x").send().expect(200).says("answer 3");
    // Nobody asked whether anything has changed.
    let origin = Origin::answering(|_| answer(304));
    let gw = cached(&origin);
    gw.get("/x").send().expect(502).problem("upstream-failed");
}

#[test]
fn an_answer_that_may_not_be_stored_replaces_what_was() {
    let count = AtomicUsize::new(0);
    let origin = Origin::answering(move |seen| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer(200).header("Cache-Control", "no-cache").header("ETag", "\"1\"").body("stored"),
        // It still holds, and for this once only.
        1 => answer(304).header("Cache-Control", "no-store"),
        _ => answer(200).body(format!("fresh, {:?}", seen.headers.first("if-none-match"))),
    });
    let gw = cached(&origin);
    gw.get("/x").send().says("stored");
    gw.get("/x").send().expect(200).says("stored");
    gw.get("/x").send().says("fresh, None");
}

// RFC 5861.

/// Stale from the start.
fn stale(more: &'static str) -> Origin {
    counting(move |answer, _| answer.header("Cache-Control", more).header("Age", "10").header("ETag", "\"1\""))
}

#[test]
fn a_stale_answer_is_given_while_it_is_fetched_anew() {
    for (control, cache) in
        [("max-age=10, stale-while-revalidate=60", "{}"), ("max-age=10", "{ stale_while_revalidate = \"60s\" }")]
    {
        let origin = stale(control);
        let gw = with(cache, &origin);
        gw.get("/x").send().says("answer 1");
        let given = gw.get("/x").send().says("answer 1");
        assert!(
            status(&given).starts_with("portcullis; hit; ttl=0") || status(&given).contains("ttl=-"),
            "{}",
            status(&given)
        );
        assert_eq!(gw.logged("the stale answer", |line| line["cache"] == "stale")["status"], 200);
        origin.wait_for_requests(2);
        eventually("the new answer is given", || gw.get("/x").send().text().ends_with('2').then_some(()));
    }
}

#[test]
fn a_stale_answer_stands_in_for_an_upstream_that_fails() {
    let forbidden = ["max-age=10, must-revalidate", "s-maxage=10", "no-cache", "max-age=10, proxy-revalidate"];
    let allowed = ["max-age=10, stale-if-error=60", "s-maxage=10, stale-if-error=60", "max-age=10"];
    for (control, fine) in forbidden.map(|c| (c, false)).into_iter().chain(allowed.map(|c| (c, true))) {
        let failing = Arc::new(AtomicUsize::new(0));
        let now = failing.clone();
        let origin = counting(move |found, _| match now.load(Ordering::SeqCst) {
            0 => found.header("Cache-Control", control).header("Age", "10").header("ETag", "\"1\""),
            1 => answer(503).body("failing"),
            2 => answer(404).body("gone"),
            _ => Answer::hang_up(),
        });
        let gw = with("{ stale_if_error = \"60s\" }", &origin);
        gw.get("/x").send().says("answer 1");
        failing.store(1, Ordering::SeqCst);
        let given = gw.get("/x").send();
        assert_eq!(given.status == 200, fine, "{control}: {given:?}");
        assert!(status(&given).starts_with("portcullis; fwd=stale; fwd-status=503"), "{}", status(&given));
        failing.store(3, Ordering::SeqCst);
        gw.get("/x").send().expect(if fine { 200 } else { 502 });
        failing.store(2, Ordering::SeqCst);
        gw.get("/x").send().expect(404).says("gone");
    }
}

// Many at once.

/// Asks so many times at once.
fn at_once<T: Send>(count: usize, ask: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(count);
    thread::scope(|scope| {
        let asking = (0..count).map(|i| {
            let (start, ask) = (&start, &ask);
            scope.spawn(move || {
                start.wait();
                ask(i)
            })
        });
        asking.collect::<Vec<_>>().into_iter().map(|asked| asked.join().unwrap()).collect()
    })
}

#[test]
fn a_thousand_who_want_the_same_are_one_request() {
    let origin = counting(|answer, _| answer.header("Cache-Control", "max-age=60").after(Duration::from_secs(1)));
    let gw = cached(&origin);
    let given = at_once(1000, |_| gw.get("/x").send().expect(200).says("answer 1"));
    assert_eq!(origin.requests().len(), 1);
    let collapsed = given.iter().filter(|given| status(given).ends_with("; collapsed")).count();
    assert!(collapsed > 100, "{collapsed}");
}

#[test]
fn all_read_an_answer_as_it_comes() {
    let origin = counting(|answer, _| {
        answer
            .header("Cache-Control", "max-age=60")
            .body(vec![b'x'; 200_000])
            .chunked()
            .resting(100_000, Duration::from_secs(3))
    });
    let gw = cached(&origin);
    let mut first = gw.connect();
    first.send_raw("GET /x HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    origin.wait_for_requests(1);
    let (early, closed) = first.rest(Duration::from_secs(1));
    assert!(!closed && early.len() > 50_000, "{}", early.len());
    let mut second = gw.connect();
    second.send_raw("GET /x HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    let (late, closed) = second.rest(Duration::from_secs(1));
    assert!(!closed && late.len() > 50_000, "{}", late.len());
    gw.get("/x").send().says(&"x".repeat(200_000));
    assert_eq!(origin.requests().len(), 1);
}

#[test]
fn what_cannot_be_shared_is_fetched_by_each() {
    let origin =
        counting(|answer, _| answer.header("Cache-Control", "private, max-age=60").after(Duration::from_millis(300)));
    let gw = cached(&origin);
    let mut given = at_once(20, |_| gw.get("/x").send().expect(200).text());
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 20);
    // It is remembered, so that none waits for another.
    assert_eq!(word(&gw.get("/x").send()), "fwd=bypass");
}

#[test]
fn each_variant_is_fetched_once() {
    let origin = counting(|answer, _| {
        answer.header("Cache-Control", "max-age=60").header("Vary", "X-Kind").after(Duration::from_millis(300))
    });
    let gw = cached(&origin);
    let given = at_once(40, |i| {
        let kind = (i % 4).to_string();
        (kind.clone(), gw.get("/x").header("X-Kind", &kind).send().expect(200).text())
    });
    for (kind, text) in &given {
        let again = gw.get("/x").header("X-Kind", kind).send().text();
        let mine = given.iter().filter(|(other, _)| other == kind).map(|(_, text)| text);
        assert!(
            mine.clone().any(|text| *text == again) && !given.iter().any(|(k, t)| k != kind && t == text),
            "{given:?}"
        );
    }
}

#[test]
fn an_answer_is_fetched_even_if_nobody_waits_for_it() {
    let origin = counting(|answer, _| answer.header("Cache-Control", "max-age=60").after(Duration::from_millis(500)));
    let gw = cached(&origin);
    let mut client = gw.connect();
    client.send_raw("GET /x HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    origin.wait_for_requests(1);
    drop(client);
    gw.logged("the client that left", |line| line["status"] == 499);
    eventually("it is stored", || (word(&gw.get("/x").send().says("answer 1")) == "hit").then_some(()));
}

#[test]
fn a_fetch_that_fails_fails_for_all_who_wait_and_for_nobody_after() {
    let failing = Arc::new(AtomicUsize::new(1));
    let now = failing.clone();
    let origin = counting(move |answer, _| match now.load(Ordering::SeqCst) {
        1 => Answer::hang_up().after(Duration::from_millis(500)),
        _ => answer.header("Cache-Control", "max-age=60"),
    });
    let gw = cached(&origin);
    at_once(20, |_| gw.get("/x").send().expect(502).problem("upstream-failed"));
    failing.store(0, Ordering::SeqCst);
    gw.get("/x").send().expect(200);
}

// Sizes.

#[test]
fn an_answer_that_grows_too_large_is_passed_on_whole() {
    let body = vec![b'x'; 3 << 20];
    let sent = body.clone();
    let origin = counting(move |found, seen| {
        let answer = found.header("Cache-Control", "max-age=60").body(&sent);
        if seen.target == "/chunked" { answer.chunked() } else { answer }
    });
    let zone = "[cache.default]\nmemory = \"4MiB\"\nmax_object = \"64KiB\"\n[defaults]\ncache = {}";
    let gw = gateway().config(zone).everything_to(&origin).start();
    for target in ["/chunked", "/length"] {
        let first = gw.get(target).send().expect(200);
        assert!(first.body == body, "{} bytes of {target}", first.body.len());
        assert!(status(&first).contains(if target == "/chunked" { "stored" } else { "detail=too-large" }));
        assert_eq!(word(&gw.get(target).send()), "fwd=bypass");
    }
    // Nobody who reads slowly makes the gateway hold it all.
    let before = gw.memory();
    let mut slow = gw.connect();
    slow.send_raw("GET /chunked?slow HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    origin.wait_for_requests(5);
    for i in 0..3 {
        gw.get(&format!("/chunked?{i}")).send().expect(200);
    }
    assert!(gw.memory() < before + (2 << 20), "{} from {before}", gw.memory());
}

#[test]
fn what_is_stored_has_a_bound() {
    let origin = counting(|answer, _| answer.header("Cache-Control", "max-age=600").body(vec![b'x'; 50_000]));
    let zone = "[cache.default]\nmemory = \"2MiB\"\n[defaults]\ncache = {}";
    let gw = gateway().config(zone).everything_to(&origin).start();
    // What is asked for again and again stays.
    for i in 0..200 {
        gw.get(&format!("/{i}")).send().expect(200);
        gw.get("/often").send().expect(200);
    }
    assert_eq!(word(&gw.get("/often").send()), "hit");
    assert!(origin.requests_for("/often").len() < 20, "{}", origin.requests_for("/often").len());
    let cache = &gw.admin("/caches").expect(200).json()[0];
    assert!(cache["bytes"].as_u64().unwrap() <= 2 << 20, "{cache}");
    assert!((20..=42).contains(&cache["entries"].as_u64().unwrap()), "{cache}");
    let metrics = gw.admin("/metrics").text();
    let value = |name: &str| -> u64 {
        let line =
            metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {metrics}"));
        line.trim().parse().unwrap()
    };
    assert_eq!(value("portcullis_cache_entries{cache=\"default\"}"), cache["entries"].as_u64().unwrap());
    assert!(value("portcullis_cache_evictions_total{cache=\"default\"}") >= 150);
    assert!(value("portcullis_cache_requests_total{cache=\"default\",status=\"hit\"}") >= 100);
    assert!(value("portcullis_cache_requests_total{cache=\"default\",status=\"miss\"}") >= 200);
}

// HEAD, parts, conditions.

#[test]
fn heads_parts_and_conditions_are_answered_from_what_is_stored() {
    let origin = Origin::answering(|_| {
        let answer = answer(200).header("Cache-Control", "max-age=60").header("ETag", "\"1\"").body("0123456789");
        answer.header("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT").header("Content-Type", "text/plain")
    });
    let gw = cached(&origin);
    // A part of what is not stored: the whole is fetched.
    let part = gw.get("/x").header("Range", "bytes=2-4").send().expect(206).says("234");
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    assert!(!origin.requests()[0].headers.has("range"));
    let get = |name: &str, value: &str| gw.get("/x").header(name, value).send();
    for (range, text) in [("bytes=0-0", "0"), ("bytes=-3", "789"), ("bytes=7-", "789"), ("bytes=5-100", "56789")] {
        get("Range", range).expect(206).says(text);
    }
    for range in ["lines=1-2", "bytes=x", "bytes=0-1,4-5"] {
        get("Range", range).expect(200).says("0123456789");
    }
    for range in ["bytes=10-", "bytes=99-100"] {
        assert_eq!(get("Range", range).expect(416).header("content-range"), "bytes */10");
    }
    gw.get("/x").header("Range", "bytes=0-1").header("If-Range", "\"1\"").send().expect(206).says("01");
    for other in ["\"2\"", "W/\"1\"", "Sat, 01 Jan 2000 00:00:00 GMT"] {
        gw.get("/x").header("Range", "bytes=0-1").header("If-Range", other).send().expect(200).says("0123456789");
    }
    for (name, value) in
        [("If-None-Match", "\"0\", W/\"1\""), ("If-None-Match", "*"), ("If-Modified-Since", &in_future(0))]
    {
        let same = get(name, value).expect(304);
        assert_eq!((same.header("etag"), same.header("cache-control")), ("\"1\"", "max-age=60"));
        assert!(same.body.is_empty() && !same.headers.has("content-type"));
    }
    // `If-None-Match` decides alone (RFC 9110, section 13.2.2).
    let both = gw.get("/x").header("If-None-Match", "\"0\"").header("If-Modified-Since", &in_future(0));
    both.send().expect(200);
    let head = gw.request("HEAD", "/x").send().expect(200);
    assert_eq!((head.header("content-length"), head.body.len()), ("10", 0));
    let h2 = gw.h2c().request("HEAD", "/x").host("gateway.test").send();
    assert_eq!((h2.status, h2.header("content-length")), (200, "10"));
    assert_eq!(gw.h2c().get("/x").host("gateway.test").header("range", "bytes=2-4").send().text(), "234");
    assert_eq!(origin.requests().len(), 1);
    // Of what is not stored, a head alone is asked for, and says nothing of the whole.
    gw.request("HEAD", "/y").send().expect(200);
    assert_eq!(origin.requests()[1].method, "HEAD");
    assert_eq!(word(&gw.get("/y").send()), "fwd=uri-miss");
}

// Section 4.4: invalidation.

#[test]
fn a_change_outdates_what_is_stored_of_the_same() {
    let origin = counting(|found, seen| match (&*seen.method, &*seen.target) {
        (_, "/fails") => answer(500),
        ("POST", "/elsewhere") => {
            answer(201).header("Location", "/x").header("Content-Location", "http://other.test/y")
        }
        _ => found.header("Cache-Control", "max-age=60"),
    });
    let gw = gateway()
        .upstream("origin", &origin)
        .config("[[route]]\nmatch = \"GET /**\"\nupstream = \"origin\"\ncache = {}\n[[route]]\nmatch = \"/**\"\nupstream = \"origin\"")
        .start();
    let refetched = |target: &str| word(&gw.get(target).send()) != "hit";
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        gw.get("/x").send();
        gw.get("/x?q").send();
        assert!(!refetched("/x"));
        gw.request(method, "/x").send();
        assert!(refetched("/x") && refetched("/x?q"), "{method}");
    }
    gw.get("/x").send();
    gw.get("/y").send();
    gw.post("/elsewhere").send().expect(201);
    // Of another host nothing can be said.
    assert!(refetched("/x") && !refetched("/y"));
    gw.request("OPTIONS", "/x").send();
    assert!(!refetched("/x"));
    gw.post("/fails").send().expect(500);
    gw.post("/x").host("other.test").send();
    assert!(!refetched("/x"));
}

#[test]
fn what_is_under_way_when_it_is_changed_is_not_stored() {
    let origin = counting(|found, seen| match &*seen.method {
        "GET" => found.header("Cache-Control", "max-age=60").after(Duration::from_secs(1)),
        _ => answer(204),
    });
    let gw = cached(&origin);
    thread::scope(|scope| {
        let old = scope.spawn(|| gw.get("/x").send().text());
        origin.wait_for_requests(1);
        gw.post("/x").send().expect(204);
        // Who asks after the change does not get what was asked for before.
        assert_ne!(gw.get("/x").send().text(), old.join().unwrap());
    });
    assert_eq!(word(&gw.get("/x").send()), "hit");
}

#[test]
fn answers_are_purged_by_url_prefix_and_tag() {
    let origin = counting(|answer, seen| {
        answer.header("Cache-Control", "max-age=60").header("Cache-Tag", seen.headers.first("x-tags").unwrap_or(""))
    });
    let gw = with("{ tags = \"Cache-Tag\" }", &origin);
    let fill = || {
        for (target, tags) in [("/a", "red, blue"), ("/a?q=1", "blue"), ("/a/b", "green"), ("/c", "red")] {
            gw.get(target).host("example.com").header("X-Tags", tags).send().expect(200);
        }
    };
    let gone = || {
        let ask = |target: &&str| word(&gw.get(target).host("example.com").send()) != "hit";
        ["/a", "/a?q=1", "/a/b", "/c"].into_iter().filter(ask).collect::<Vec<_>>()
    };
    let purge = |order: &str| gw.admin_post("/caches/default/purge", order);
    for (order, purged) in [
        (r#"{ "url": "https://example.com/a" }"#, vec!["/a"]),
        (r#"{ "url": "example.com/a?q=1" }"#, vec!["/a?q=1"]),
        (r#"{ "prefix": "http://EXAMPLE.com:80/x/../a" }"#, vec!["/a", "/a?q=1", "/a/b"]),
        (r#"{ "prefix": "example.com" }"#, vec!["/a", "/a?q=1", "/a/b", "/c"]),
        (r#"{ "url": "other.com/a" }"#, vec![]),
        (r#"{ "all": true }"#, vec!["/a", "/a?q=1", "/a/b", "/c"]),
    ] {
        fill();
        assert_eq!(purge(order).expect(200).json()["purged"], purged.len(), "{order}");
        assert_eq!(gone(), purged, "{order}");
    }
    purge(r#"{ "all": true }"#);
    fill();
    assert_eq!(purge(r#"{ "tag": "red" }"#).expect(200).json()["purged"], 2);
    assert_eq!(gone(), ["/a", "/c"]);
    for wrong in
        ["", "{}", r#"{ "url": "/a" }"#, r#"{ "all": false }"#, r#"{ "uri": "a" }"#, r#"{ "url": "a", "tag": "b" }"#]
    {
        purge(wrong).expect(400).problem("bad-request");
    }
    gw.admin_post("/caches/other/purge", r#"{ "all": true }"#).expect(404);
    gw.admin("/caches/default/purge").expect(405);
    gw.says("answers were purged from the cache default");
}

// Keys, and what must not get into an answer that others are given.

#[test]
fn a_key_has_what_it_is_told_to() {
    let origin = counting(|found, seen| {
        found.header("Cache-Control", "max-age=60").body(format!("{} {:?}", seen.target, seen.headers.first("x-kind")))
    });
    let gw = with("{ by = [\"path\", \"query:page\", \"query:size\", \"header:X-Kind\"] }", &origin);
    gw.get("/x?page=1&utm=a").send().says("/x?page=1 None");
    gw.get("/x?utm=b&page=1").send().says("/x?page=1 None");
    gw.get("/x?page=2").send().says("/x?page=2 None");
    // All values count, in their order; and so do other ways to write a name.
    gw.get("/x?page=1&page=2").send().says("/x?page=1&page=2 None");
    gw.get("/x?page=2&page=1").send().says("/x?page=2&page=1 None");
    gw.get("/x?p%61ge=3").send().says("/x?p%61ge=3 None");
    gw.get("/x?size=5&page=1").send().says("/x?page=1&size=5 None");
    gw.get("/x?page=1").header("X-Kind", "a").send().says("/x?page=1 Some(\"a\")");
    gw.get("/x?utm=a").send().says("/x None");
    assert_eq!(origin.requests().len(), 8);
}

#[test]
fn nobody_writes_into_what_others_are_given() {
    // Fields that no key has and that some servers believe.
    let names = [
        "X-Forwarded-Host",
        "X-Forwarded-Scheme",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-Host",
    ];
    let origin = counting(move |found, seen| {
        let seen = names.map(|name| seen.headers.first(name).unwrap_or("").to_owned()).join("");
        found.header("Cache-Control", "max-age=60").body(format!("evil: {}", seen.contains("evil")))
    });
    let gw = cached(&origin);
    names.iter().fold(gw.get("/x"), |ask, name| ask.header(name, "evil.test")).send().says("evil: false");
    // A part of the path is a part of the path, however it is written.
    let origin = counting(|found, seen| found.header("Cache-Control", "max-age=60").body(&seen.target));
    let gw = cached(&origin);
    for target in ["/a/b", "/a%3fb", "/a;b", "/A/b", "/a/b/", "/a?b", "/a?b&b", "/a?b=", "/a?B"] {
        let given = gw.get(target).send().expect(200).text();
        gw.get(target).send().expect(200).says(&given);
    }
    assert_eq!(origin.requests().len(), 9);
}

#[test]
fn callers_have_their_own_answers() {
    let origin = counting(|answer, seen| answer.header("Cache-Control", "max-age=60").body(seen.header("x-caller")));
    let people = r#"
        [auth.people]
        api_key = { header = "X-Key" }
        headers = { X-Caller = "{consumer}" }
        [consumer.alice]
        keys = [{ sha256 = "$ALICE" }]
        [consumer.bob]
        keys = [{ sha256 = "$BOB" }]
        [defaults]
        auth  = "people"
    "#;
    let sha256 = |text: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let people = people.replace("$ALICE", &sha256("key-of-alice")).replace("$BOB", &sha256("key-of-bob"));
    let gw = gateway()
        .config(&format!("{people}\ncache = {{ by = [\"url\", \"consumer\"] }}"))
        .everything_to(&origin)
        .start();
    let ask = |who: &str| gw.get("/x").header("X-Key", &format!("key-of-{who}")).send();
    for word in ["fwd=uri-miss", "hit"] {
        for who in ["alice", "bob"] {
            assert_eq!(self::word(&ask(who).expect(200).says(who)), word);
        }
    }
    // Who is not known gets nothing, whatever is stored.
    gw.get("/x").send().expect(401);
    let shared =
        gateway().config(&format!("{people}\ncache = {{ across_callers = true }}")).everything_to(&origin).start();
    shared.get("/x").header("X-Key", "key-of-alice").send().expect(200).says("alice");
    shared.get("/x").header("X-Key", "key-of-bob").send().expect(200).says("alice");
    shared.get("/x").send().expect(401);
}

#[test]
fn policies_shape_an_answer_for_each_who_gets_it() {
    let origin = saying("Cache-Control", "max-age=60");
    let config = r#"
        [defaults]
        cache    = {}
        cors     = { origins = ["https://a.test", "https://b.test"] }
        response = { headers = { set = { X-Id = "{request.id}" } } }
    "#;
    let gw = gateway().config(config).everything_to(&origin).start();
    let mut ids = Vec::new();
    for site in ["https://a.test", "https://b.test", "https://a.test"] {
        let given = gw.get("/x").header("Origin", site).send().says("answer 1");
        assert_eq!(given.header("access-control-allow-origin"), site);
        ids.push(given.header("x-id").to_owned());
    }
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_stream_is_not_waited_for() {
    let origin = Origin::answering(|_| {
        let events = answer(200).header("Content-Type", "text/event-stream").header("Cache-Control", "max-age=60");
        events.body("data: 1\n\ndata: 2\n\n").chunked().resting(20, Duration::from_secs(60))
    });
    let gw = cached(&origin);
    let mut client = gw.connect();
    client.send_raw("GET /x HTTP/1.1\r\nHost: gateway.test\r\nAccept: text/event-stream\r\n\r\n");
    let (seen, _) = client.rest(Duration::from_secs(2));
    assert!(String::from_utf8_lossy(&seen).contains("data: 1"));
}

// What a cache stands in front of.

#[test]
fn upstreams_with_tls_and_http2_have_a_cache_too() {
    let authority = Authority::new("origins");
    let count = Arc::new(AtomicUsize::new(0));
    let script = move |seen: &Seen| {
        let n = count.fetch_add(1, Ordering::SeqCst) + 1;
        match &*seen.target {
            "/private" => answer(200).body(format!("answer {n} {:?}", seen.headers.first("range"))),
            "/broken" => Answer::hang_up(),
            _ => answer(200).header("Cache-Control", "max-age=60").body(format!("answer {n}")),
        }
    };
    let origin = Origin::over_tls(authority.server(&["origin.test"], &[], false), script);
    let config = format!(
        "[upstream.secure]\nservers = [\"{}\"]\ntls = {{ sni = \"origin.test\", ca = \"ca.pem\" }}\n\
         [[route]]\nmatch = \"/**\"\nupstream = \"secure\"\ncache = {{}}",
        origin.address()
    );
    let gw = gateway().file("ca.pem", authority.pem()).config(&config).start();
    let first = gw.get("/x").send().expect(200).says("answer 1");
    assert_eq!(status(&first), "portcullis; fwd=uri-miss; fwd-status=200; stored");
    gw.get("/x").send().says("answer 1");
    gw.h2c().get("/x").host("gateway.test").send();
    assert_eq!(gw.logged("the fetch", |line| line["cache"] == "miss")["server"], origin.address());
    gw.get("/private").send().says("answer 2 None");
    assert_eq!(
        word(&gw.get("/private").header("Range", "bytes=0-1").send().says("answer 3 Some(\"bytes=0-1\")")),
        "fwd=bypass"
    );
    gw.request("HEAD", "/y").send().expect(200);
    gw.post("/x").body("change").send().expect(200).says("answer 5");
    gw.get("/x").send().says("answer 6");
    gw.get("/broken").send().expect(502);
    at_once(20, |_| gw.get("/many").send().expect(200));
    assert_eq!(origin.requests_for("/many").len(), 1);
}

#[test]
fn a_reload_keeps_what_is_stored() {
    let origin = saying("Cache-Control", "max-age=60");
    let config = |memory: &str, more: &str| {
        format!(
            "[upstream]\norigin = [\"{}\"]\n[cache.default]\nmemory = \"{memory}\"\n[[route]]\nmatch = \"/**\"\n\
             upstream = \"origin\"\ncache = {{}}\n{more}",
            origin.address()
        )
    };
    let gw = gateway().config(&config("4MiB", "")).start();
    gw.get("/x").send().says("answer 1");
    gw.rewrite(&config("4MiB", "[[route]]\nmatch = \"/more\"\nrespond = {}"));
    gw.reload().expect(200);
    gw.get("/x").send().says("answer 1");
    gw.rewrite(&config("8MiB", ""));
    let receipt = gw.reload().expect(200).text();
    assert!(receipt.contains("cache default changed"), "{receipt}");
    gw.get("/x").send().says("answer 2");
}

#[test]
fn tests_of_a_configuration_find_an_empty_cache() {
    let config = r#"
        [upstream]
        a = ["127.0.0.1:9"]
        [[route]]
        match    = "/cached"
        upstream = "a"
        cache    = {}
        [[route]]
        match    = "/not"
        upstream = "a"
        [[test]]
        request = "GET /cached"
        expect  = { cache = "miss" }
        [[test]]
        request = "POST /cached"
        expect  = { cache = "bypass" }
        [[test]]
        request = "GET /not"
        expect  = { cache = "miss" }
    "#;
    let said = gateway().config(config).refused();
    assert!(said.contains("expected `miss` of the cache, got no cache") && said.contains("1 error"), "{said}");
}

#[test]
fn a_cache_that_no_route_uses_is_told() {
    let config = "[cache.spare]\nmemory = \"1MiB\"\n[[route]]\nmatch = \"/\"\nrespond = {}";
    let checked = gateway().config(config).check();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("no route uses the cache `spare`"), "{said}");
}

#[test]
fn who_reads_slowly_but_steadily_gets_all_of_what_is_stored() {
    const LENGTH: usize = 16 << 20;
    let origin = counting(|answer, _| answer.header("Cache-Control", "max-age=60").body(vec![b'a'; LENGTH]));
    let gw = gateway()
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntimeouts = { body = \"500ms\" }")
        .config(ROOMY)
        .everything_to(&origin)
        .start();
    gw.get("/").send().expect(200);
    let mut connection = gw.connect();
    connection.send_raw("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    let (start, headers) = connection.reader.head().unwrap().unwrap();
    assert!(start.contains("200") && headers.first("cache-status").unwrap().contains("hit"), "{headers:?}");
    // Of a second and a half, none is spent without reading for long.
    for _ in 0..32 {
        connection.reader.exactly(LENGTH / 32).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    let line = gw.logged("all that was sent", |line| line["cache"] == "hit");
    assert_eq!(line["bytes_out"], LENGTH);
}

#[test]
fn what_was_sent_of_an_answer_is_logged_where_its_client_leaves() {
    let origin = counting(|answer, _| answer.header("Cache-Control", "max-age=60").body(vec![b'a'; 32 << 20]));
    let gw = gateway().config(ROOMY).everything_to(&origin).start();
    gw.get("/").send().expect(200);
    let mut connection = gw.connect();
    connection.send_raw("GET / HTTP/1.1\r\nHost: gateway.test\r\n\r\n");
    connection.reader.exactly(1000).unwrap();
    drop(connection);
    let line = gw.logged("that it left", |line| line["cause"] == "the client left");
    assert!(line["bytes_out"].as_u64().unwrap() < 32 << 20, "{line}");
}
