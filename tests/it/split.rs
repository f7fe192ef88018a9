//! Requests of one route over several upstreams.

use std::collections::HashMap;

use crate::harness::{Builder, Gateway, H2Answer, H2Origin, Origin, Response, gateway};

fn splitting(split: &str) -> (Gateway, [Origin; 2]) {
    let origins = [Origin::saying("stable"), Origin::saying("canary")];
    (between(&origins, split).start(), origins)
}

fn between(origins: &[Origin; 2], split: &str) -> Builder {
    let [stable, canary] = origins;
    gateway()
        .upstream("stable", stable)
        .upstream("canary", canary)
        .config(&format!("[[route]]\nmatch = \"/**\"\n{split}"))
}

fn shares(mut ask: impl FnMut(usize) -> Response) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for i in 0..1000 {
        *counts.entry(ask(i).expect(200).text()).or_default() += 1;
    }
    counts
}

#[test]
fn every_upstream_gets_its_share() {
    let (gw, _origins) = splitting("split = { stable = 90, canary = 10 }");
    let mut client = gw.connect();
    let counts = shares(|_| client.get("/").send());
    // Fifty standard deviations wide would still tell 10 from 20.
    assert!((50..=160).contains(&counts["canary"]), "{counts:?}");
    let line = gw.logged("an upstream of the split", |line| line["upstream"] == "canary");
    assert_eq!(line["route"], "/**");
}

#[test]
fn an_upstream_without_weight_gets_nothing() {
    let (gw, _origins) = splitting("split = { stable = 1, canary = 0 }\nsticky = \"cookie:release\"");
    let mut client = gw.connect();
    let counts = shares(|_| client.get("/").header("Cookie", "release=canary").send());
    assert_eq!(counts, HashMap::from([("stable".to_owned(), 1000)]));
}

#[test]
fn a_cookie_keeps_a_client_where_it_was() {
    let (gw, _origins) = splitting("split = { stable = 50, canary = 50 }\nsticky = \"cookie:release\"");
    let first = gw.get("/").send().expect(200);
    let own = first.text();
    assert_eq!(first.header("set-cookie"), format!("release={own}; Path=/; HttpOnly; SameSite=Lax"));
    let mut client = gw.connect();
    for _ in 0..100 {
        let again = client.get("/").header("Cookie", &format!("a=b; release={own}")).send().expect(200).says(&own);
        assert!(!again.headers.has("set-cookie"), "it knows");
    }
    // A cookie that names nothing is as good as none.
    let forged = gw.get("/").header("Cookie", "release=elsewhere").send().expect(200);
    assert!(forged.headers.has("set-cookie"));
}

#[test]
fn what_is_tied_to_a_value_goes_the_same_way_everywhere() {
    let split = "split = { stable = 80, canary = 20 }\nsticky = \"header:X-User\"";
    let (one, _origins) = splitting(split);
    let (other, _others) = splitting(split);
    let (mut to_one, mut to_other) = (one.connect(), other.connect());
    let counts = shares(|i| {
        let user = format!("user-{i}");
        let first = to_one.get("/").header("X-User", &user).send();
        assert_eq!(first.text(), to_other.get("/").header("X-User", &user).send().text());
        first
    });
    assert!((130..=280).contains(&counts["canary"]), "{counts:?}");
    // By the client's address, of which there is one.
    let (gw, _origins) = splitting("split = { stable = 1, canary = 1 }\nsticky = \"client\"");
    assert_eq!(shares(|_| gw.get("/").send()).len(), 1);
}

#[test]
fn upstreams_of_several_protocols() {
    let origins = [Origin::saying("stable"), Origin::saying("unused")];
    let h2c = H2Origin::plain(|_| H2Answer::new(200).body("h2c"));
    let gw = between(&origins, "split = { stable = 50, h2c = 50 }")
        .set("h2c", h2c.address())
        .config("[upstream.h2c]\nservers = [\"@h2c\"]\nprotocol = \"h2c\"")
        .start();
    let mut client = gw.connect();
    let counts = shares(|_| client.get("/").send());
    assert!(counts["stable"] > 300 && counts["h2c"] > 300, "{counts:?}");
}
