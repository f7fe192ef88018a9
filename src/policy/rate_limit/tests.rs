use super::*;
use crate::build::{Node, Sources};

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
    let scope = Scope {
        captures: &[],
        parts: &[],
        route: "a route",
        layers: &[],
        owner: "here",
        providers: &providers,
        zones: &zones,
        stores: &stores,
        base: None,
        version: None,
        authenticated: false,
    };
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
    assert_eq!(policy.told(&facts.allowances).unwrap(), "\"2/s by client\";r=0;t=1");
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
    assert_eq!(policy.told(&facts.allowances).unwrap(), "\"10/h by client\";r=9;t=360, \"1/min by client\";r=0;t=60");
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
    assert!(policy.told(&facts.allowances).is_none());

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
