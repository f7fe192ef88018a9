use super::*;
use crate::build::{Node, Sources};
use crate::facts::Consumer;

fn compiled(toml: &str, clock: &Clock) -> RateLimit {
    let mut sources = Sources::default();
    let (root, found) = sources.parse("x.toml", format!("x = {toml}"));
    assert!(found.is_empty());
    let node: &Node = root.get("x").unwrap();
    let mut build = Build::new(&sources, node);
    let config = build.deserialize().unwrap();
    let providers = crate::policy::Providers::default();
    let zones = crate::cache::Zones::default();
    let stores = crate::store::Stores::default();
    let scope = Scope { route: "a route", owner: "here", ..Scope::new(&providers, &zones, &stores) };
    let mut policy = RateLimit::compile(config, &scope, &mut build).unwrap();
    policy.limits.iter_mut().for_each(|limit| limit.counts = Arc::new(Counts::new(clock.clone())));
    policy
}

fn get() -> RequestHeader {
    RequestHeader::build("GET", b"/", None).unwrap()
}

/// How long a request waits, or when it may come again.
fn ask(policy: &RateLimit, facts: &mut Facts) -> Result<u64, u64> {
    facts.allowances.clear();
    policy.enter(&get(), facts).map(|entry| entry.wait / 1_000_000).map_err(|reply| {
        assert_eq!(reply.status, 429);
        reply.headers.iter().find_map(|(_, value)| value.to_str().ok()?.parse().ok()).unwrap()
    })
}

#[test]
fn a_burst_then_the_rate() {
    let clock = Clock::fake();
    let policy = compiled(r#"{ rate = "2/s", burst = 3 }"#, &clock);
    let mut facts = Facts::of_client("192.0.2.1");
    for left in [2, 1, 0] {
        assert_eq!(ask(&policy, &mut facts), Ok(0));
        assert_eq!(facts.allowances[0].remaining, left);
    }
    assert_eq!(ask(&policy, &mut facts), Err(1));
    assert_eq!(policy.told(&facts).unwrap(), "\"2/s by client\";r=0;t=1");
    assert_eq!(policy.policy.as_ref().unwrap(), "\"2/s by client\";q=2;w=1");
    clock.advance(Duration::from_millis(500));
    assert_eq!(ask(&policy, &mut facts), Ok(0));
    assert_eq!(ask(&policy, &mut facts), Err(1));
    assert_eq!(ask(&policy, &mut Facts::of_client("192.0.2.2")), Ok(0));
}

#[test]
fn one_network_of_ipv6_is_one_client() {
    let policy = compiled(r#"{ rate = "1/h" }"#, &Clock::fake());
    assert_eq!(ask(&policy, &mut Facts::of_client("2001:db8::1")), Ok(0));
    assert!(ask(&policy, &mut Facts::of_client("2001:db8::ffff:1")).is_err());
    assert_eq!(ask(&policy, &mut Facts::of_client("2001:db8:0:1::1")), Ok(0));
    let policy = compiled(r#"{ rate = "1/h", ipv6_prefix = 128 }"#, &Clock::fake());
    assert_eq!(ask(&policy, &mut Facts::of_client("2001:db8::1")), Ok(0));
    assert_eq!(ask(&policy, &mut Facts::of_client("2001:db8::2")), Ok(0));
}

#[test]
fn who_is_over_one_limit_pays_none() {
    let clock = Clock::fake();
    let policy = compiled(r#"[{ rate = "10/h" }, { rate = "1/min", burst = 1 }]"#, &clock);
    let mut facts = Facts::of_client("192.0.2.1");
    assert_eq!(ask(&policy, &mut facts), Ok(0));
    assert_eq!(policy.told(&facts).unwrap(), "\"10/h by client\";r=9;t=360, \"1/min by client\";r=0;t=60");
    for _ in 0..100 {
        assert_eq!(ask(&policy, &mut facts), Err(60));
    }
    clock.advance(Duration::from_secs(60));
    assert_eq!(ask(&policy, &mut facts), Ok(0));
    assert_eq!(facts.allowances[0].remaining, 8);
}

#[test]
fn those_over_the_limit_wait_their_turn_and_no_longer() {
    let clock = Clock::fake();
    let policy = compiled(r#"{ rate = "10/s", burst = 1, over = { delay = "250ms" } }"#, &clock);
    let mut facts = Facts::of_client("192.0.2.1");
    let waits: Vec<_> = (0..4).map(|_| ask(&policy, &mut facts)).collect();
    assert_eq!(waits, [Ok(0), Ok(100), Ok(200), Err(1)]);
    clock.advance(Duration::from_millis(100));
    assert_eq!(ask(&policy, &mut facts), Ok(200));
}

#[test]
fn a_shadow_and_a_rehearsal_stop_nobody() {
    let policy = compiled(r#"{ rate = "1/h", shadow = true }"#, &Clock::fake());
    let mut facts = Facts::of_client("192.0.2.1");
    assert_eq!((ask(&policy, &mut facts), facts.shadowed), (Ok(0), None));
    assert_eq!((ask(&policy, &mut facts), facts.shadowed), (Ok(0), Some("rate_limit")));
    assert!(policy.told(&facts).is_none());

    let policy = compiled(r#"{ rate = "1/h" }"#, &Clock::fake());
    facts.rehearsal = true;
    for _ in 0..3 {
        assert_eq!(ask(&policy, &mut facts), Ok(0));
    }
    facts.rehearsal = false;
    assert_eq!(ask(&policy, &mut facts), Ok(0));
    facts.rehearsal = true;
    assert_eq!(ask(&policy, &mut facts), Ok(0));
}

#[test]
fn a_key_is_made_of_all_its_parts() {
    let policy = compiled(r#"{ rate = "1/h", by = ["header:x-key", "route"] }"#, &Clock::fake());
    let ask = |keys: &[&str], route: &str| {
        let mut facts = Facts::of_client("192.0.2.1");
        facts.route = Some(route.into());
        let mut request = get();
        keys.iter().for_each(|key| drop(request.append_header("X-Key", *key)));
        policy.enter(&request, &mut facts).is_ok()
    };
    assert!(ask(&["a"], "r") && ask(&["b"], "r") && ask(&["a"], "s") && ask(&["a", "b"], "r") && ask(&["ab"], "r"));
    assert!(ask(&[], "r") && !ask(&[], "r"), "without the field it is the address that counts");
    assert!(!ask(&["a"], "r") && !ask(&["a", "b"], "r"));
}

#[test]
fn workers_together_let_no_more_through_than_burst_and_rate() {
    let clock = Clock::fake();
    let policy = compiled(r#"{ rate = "1000/s", burst = 10 }"#, &clock);
    let work = || {
        let mut facts = Facts::of_client("192.0.2.1");
        let ask = |_| {
            clock.advance(Duration::from_micros(50));
            ask(&policy, &mut facts).is_ok()
        };
        (0..2000).map(ask).filter(|admitted| *admitted).count()
    };
    let admitted: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    // 8000 times 50 microseconds.
    assert!((300..=410).contains(&admitted), "{admitted}");
}

/// A consumer with its own pace, or without.
fn of(name: &str, own: Option<(&str, u32)>) -> Facts {
    let pace = own.map(|(rate, burst)| Arc::new(Pace::new(rate.parse().unwrap(), burst)));
    let consumer = Consumer { name: name.into(), pace, ..Default::default() };
    Facts { consumer: Some(Arc::new(consumer)), ..Facts::of_client("192.0.2.1") }
}

#[test]
fn a_consumer_has_its_own_rate_where_consumers_are_counted() {
    let policy =
        compiled(r#"[{ rate = "1/h", by = ["consumer", "route"] }, { rate = "9/s", by = "client" }]"#, &Clock::fake());
    let mut ada = of("ada", Some(("2/s", 3)));
    for _ in 0..3 {
        assert_eq!(ask(&policy, &mut ada), Ok(0));
    }
    assert_eq!(policy.told(&ada).unwrap(), "\"2/s by consumer and route\";r=0;t=2, \"9/s by client\";r=6;t=1");
    let told = super::policy(&policy.limits, own(&ada)).unwrap();
    assert_eq!(told, "\"2/s by consumer and route\";q=2;w=1, \"9/s by client\";q=9;w=1");
    assert_eq!(ask(&policy, &mut ada), Err(1));
    let mut bob = of("bob", None);
    assert_eq!((ask(&policy, &mut bob), ask(&policy, &mut bob)), (Ok(0), Err(3600)));
}

#[test]
fn an_own_burst_goes_on_with_what_was_counted_and_an_own_rate_begins() {
    let policy = compiled(r#"{ rate = "9/s", by = "consumer", over = { delay = "250ms" } }"#, &Clock::fake());
    let waits = |own, count: usize| -> Vec<_> {
        let mut ada = of("ada", own);
        (0..count).map(|_| ask(&policy, &mut ada)).collect()
    };
    assert_eq!(waits(Some(("1/h", 1)), 2), [Ok(0), Err(3600)]);
    assert_eq!(waits(Some(("1/h", 3)), 3), [Ok(0), Ok(0), Err(3600)]);
    assert_eq!(waits(Some(("10/s", 1)), 4), [Ok(0), Ok(100), Ok(200), Err(1)]);
    assert_eq!(waits(Some(("1/h", 3)), 1), [Err(3600)], "and back again");
    assert_eq!(waits(None, 9), [Ok(0); 9]);
}

#[test]
fn a_refusal_by_another_limit_gives_back_at_the_own_rate() {
    let policy = compiled(r#"[{ rate = "1/h", by = "consumer" }, { rate = "1/min" }]"#, &Clock::fake());
    let mut ada = of("ada", Some(("10/h", 10)));
    assert_eq!(ask(&policy, &mut ada), Ok(0));
    for _ in 0..20 {
        assert_eq!(ask(&policy, &mut ada), Err(60));
    }
    ada.client = "192.0.2.2".parse().unwrap();
    assert_eq!(ask(&policy, &mut ada), Ok(0));
    assert_eq!(ada.allowances[0].remaining, 8);
}
