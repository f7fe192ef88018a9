//! Who is let in by the address.

use crate::harness::{Origin, gateway};

#[test]
fn deny_wins_over_allow_and_who_is_not_named_is_refused() {
    let origin = Origin::saying("ok");
    let gw = gateway()
        .upstream("o", &origin)
        .config(
            r#"
            [listen.public]
            address   = "127.0.0.1:0"
            client_ip = { header = "X-Forwarded-For", trust = ["127.0.0.0/8"] }
            [defaults]
            access = { deny = ["10.9.0.0/16", "2001:db8:bad::/48"] }
            [[route]]
            match    = "/inside"
            access   = { allow = ["10.0.0.0/8", "2001:db8::/32"] }
            upstream = "o"
            [[route]]
            match    = "/open"
            upstream = "o"
            [[route]]
            match    = "/off"
            access   = false
            upstream = "o"
            "#,
        )
        .start();
    for (client, inside, open) in [
        ("10.1.2.3", 200, 200),
        ("10.9.2.3", 403, 403),
        ("::ffff:10.9.2.3", 403, 403),
        ("192.0.2.7", 403, 200),
        ("2001:db8::1", 200, 200),
        ("2001:db8:bad::1", 403, 403),
    ] {
        let ask = |path| gw.get(path).header("X-Forwarded-For", client).send();
        ask("/inside").expect(inside);
        ask("/open").expect(open);
        ask("/off").expect(200);
    }
    let refused = gw.get("/inside").send().expect(403).problem("forbidden");
    assert!(!refused.text().contains("127.0.0.1"));
    let line = gw.logged("the refusal", |line| line["client"] == "127.0.0.1" && line["status"] == 403);
    assert_eq!((&line["stopped_by"], &line["cause"]), (&"access".into(), &"the address is not allowed".into()));
    assert_eq!(origin.requests().len(), 11);
}

#[test]
fn a_test_and_explain_know_it() {
    let builder = gateway().config(
        r#"
        [[route]]
        match   = "/**"
        access  = { allow = ["10.0.0.0/8"] }
        respond = {}
        [[test]]
        request = "GET /"
        client  = "10.0.0.1"
        expect  = { status = 200 }
        [[test]]
        request = "GET /"
        client  = "11.0.0.1"
        expect  = { status = 403, stopped_by = "access" }
        "#,
    );
    let output = builder.run(&["test", "@file"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
