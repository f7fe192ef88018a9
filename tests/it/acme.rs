//! Certificates that the gateway obtains by itself, from a CA that checks names as the real ones do.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::version::TLS13;

use crate::harness::{
    Address, Authority, Builder, Connection, Gateway, Origin, Pebble, PebbleBuilder, answer, client_trusting,
    eventually, free_port, gateway, pebble,
};

const ROUTE: &str = "[[route]]\nmatch = \"/**\"\nrespond = { body = \"ok\" }";
const STATE: &str = "[server]\nstate_dir = \"@dir/state\"";
const TLS_ALPN: &str = r#"
    [listen.public]
    address = "127.0.0.1:@port"
    [listen.public.tls]
    acme = { names = ["a.test", "b.test"], challenge = "tls-alpn-01", agree_to_terms = true, directory = "@directory", ca = "pebble.pem" }
"#;

/// A gateway that may ask a CA, with the listener's port for the CA to check names at.
fn asking(ca: &PebbleBuilder, port: u16) -> Builder {
    gateway().set("port", port.to_string()).set("directory", ca.directory()).file("pebble.pem", ca.vouched_by())
}

fn visit(address: &Address, name: &str, root: &str) -> std::io::Result<Connection> {
    Connection::tls(address, name, client_trusting(root, &["http/1.1"]))
}

/// Waits until a client is served with a certificate of the CA.
#[track_caller]
fn served(address: &Address, name: &str, root: &str) -> Connection {
    let mut connection = eventually(&format!("a certificate for {name}"), || visit(address, name, root).ok());
    connection.get("/").send().expect(200).says("ok");
    connection
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The value of a metric.
fn metric(gw: &Gateway, series: &str) -> Option<i64> {
    let text = gw.admin("/metrics").expect(200).text();
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// A CA, a gateway that asks it by TLS-ALPN-01, and what the CA's certificates hang on.
fn by_tls_alpn() -> (Pebble, Gateway, String) {
    let port = free_port();
    let ca = pebble(free_port(), port);
    let gw = asking(&ca, port).config(STATE).config(TLS_ALPN).config(ROUTE);
    let ca = ca.start();
    let root = ca.root();
    (ca, gw.start(), root)
}

#[test]
fn by_tls_alpn_01_for_several_names() {
    let (ca, gw, root) = by_tls_alpn();
    let first = served(gw.address(), "a.test", &root).certificate();
    assert_eq!(served(gw.address(), "b.test", &root).certificate(), first, "one certificate has both names");
    assert_eq!(ca.issued(), 1);
    gw.says("obtained a certificate for a.test, b.test, valid until 20");

    let mut h2 = gw.h2("a.test", client_trusting(&root, &["h2"]));
    h2.get("/").send().expect(200);
    // Nothing is checked any more, and nobody else speaks the CA's protocol.
    assert!(Connection::tls(gw.address(), "a.test", client_trusting(&root, &["acme-tls/1"])).is_err());

    let state = gw.dir().join("state/acme");
    let (accounts, certificates) = (files(&state.join("accounts")), files(&state.join("certificates")));
    assert_eq!((accounts.len(), certificates.len()), (1, 1), "{accounts:?} {certificates:?}");
    assert_eq!((mode(&accounts[0]), mode(&certificates[0])), (0o600, 0o600));
    for folder in [&state, &state.join("accounts"), &state.join("certificates")] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    assert!(certificates[0].file_name().unwrap().to_str().unwrap().starts_with("a.test-"));

    let expiry = "portcullis_certificate_expiry_timestamp_seconds{certificate=\"a.test\",listener=\"public\"}";
    assert!(metric(&gw, expiry).unwrap() > 1_700_000_000);
    let count = "portcullis_certificate_renewals_total{certificate=\"a.test\",result=\"success\"}";
    assert_eq!(metric(&gw, count), Some(1));
    let secret = std::fs::read_to_string(&certificates[0]).unwrap();
    let line = secret.lines().nth(1).unwrap();
    assert!(!gw.errors().iter().any(|said| said.contains(line)));
}

#[test]
fn by_tls_alpn_01_where_clients_have_to_show_more() {
    let port = free_port();
    let ca = pebble(free_port(), port);
    let members = Authority::new("members");
    let tls = TLS_ALPN
        .replace("[listen.public.tls]", "[listen.public.tls]\nclient_ca = \"members.pem\"\nmin_version = \"1.3\"");
    let gw = asking(&ca, port).file("members.pem", members.pem()).config(STATE).config(&tls).config(ROUTE);
    let ca = ca.start();
    let gw = gw.start();
    gw.says("obtained a certificate for a.test, b.test");
    // The CA has shown no certificate, and clients still have to.
    let refused = visit(gw.address(), "a.test", &ca.root()).and_then(|mut client| client.get("/").try_send());
    assert!(refused.is_err());
    let ours = Authority::new("unknown").client_of(&[], &[&TLS13], Some(&members.issue(&["member.test"])));
    assert!(gw.connect_tls("a.test", ours).is_err(), "the certificate is the CA's");
}

#[test]
fn by_http_01_once_for_two_listeners() {
    let port = free_port();
    let ca = pebble(port, free_port());
    let origin = Origin::saying("from the origin");
    let tls = "{ acme = { names = [\"a.test\"], challenge = \"http-01\", agree_to_terms = true, contact = \
               \"mailto:ops@a.test\", directory = \"@directory\", ca = \"pebble.pem\" } }";
    let gw = asking(&ca, port)
        .config(STATE)
        .config("[listen.plain]\naddress = \"127.0.0.1:@port\"")
        .config(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\ntls = {tls}"))
        .config(&format!("[listen.second]\naddress = \"127.0.0.1:0\"\ntls = {tls}"))
        .config("[[route]]\nmatch = \"/\"\nrespond = { body = \"ok\" }")
        .everything_to(&origin);
    let ca = ca.start();
    let gw = gw.start();
    let root = ca.root();
    let first = served(gw.address(), "a.test", &root).certificate();
    assert_eq!(served(gw.listener("second"), "a.test", &root).certificate(), first);
    assert_eq!(ca.issued(), 1);
    let line = gw.logged("the CA's request", |line| line["stopped_by"] == "acme");
    assert_eq!((line["status"].as_u64(), line["listener"].as_str()), (Some(200), Some("plain")));
    assert!(line["path"].as_str().unwrap().starts_with("/.well-known/acme-challenge/"));
    // No challenge is pending: the path is the origin's.
    assert_eq!(origin.requests().len(), 0);
    let target = line["path"].as_str().unwrap();
    let mut plain = gw.connect_to("plain");
    plain.get(target).send().expect(200).says("from the origin");
}

#[test]
fn with_an_external_account() {
    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let port = free_port();
    let ca = pebble(free_port(), port).external_account("kid-1", KEY);
    let config = |account: &str| TLS_ALPN.replace("ca = ", &format!("{account}ca = "));
    let gw = asking(&ca, port).file("hmac", KEY).config(STATE).config(&config("")).config(ROUTE);
    let ca = ca.start();
    let gw = gw.start();
    gw.says("externalAccountRequired");
    let account = "external_account = { kid = \"kid-1\", key = { file = \"hmac\" } }, ";
    gw.rewrite(&format!("{STATE}\n{}\n{ROUTE}", config(account)));
    gw.reload().expect(200);
    served(gw.address(), "b.test", &ca.root());
    assert!(!gw.errors().iter().any(|said| said.contains(KEY)));
}

#[test]
fn what_is_stored_is_served_by_the_next_process_and_the_ca_is_not_asked() {
    let port = free_port();
    let ca = pebble(free_port(), port);
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state");
    let start = |ca: &PebbleBuilder| {
        let config = STATE.replace("@dir/state", state.to_str().unwrap());
        asking(ca, port).config(&config).config(TLS_ALPN).config(ROUTE)
    };
    let (first, second) = (start(&ca), start(&ca));
    let ca = ca.start();
    let root = ca.root();
    let mut gw = first.start();
    let certificate = served(gw.address(), "a.test", &root).certificate();
    gw.says("obtained");
    gw.interrupt();
    assert!(gw.ended());
    drop(ca);
    let gw = second.start();
    let mut connection = visit(gw.address(), "a.test", &root).expect("it is there from the first connection on");
    assert_eq!(connection.certificate(), certificate);
    connection.get("/").send().expect(200);
    gw.reload().expect(200);
    assert_eq!(visit(gw.address(), "b.test", &root).unwrap().certificate(), certificate);
    assert!(!gw.errors().iter().any(|line| line.contains("certificate for")), "{:?}", gw.errors());
}

#[test]
fn a_certificate_is_renewed_and_connections_live_on() {
    let port = free_port();
    let ca = pebble(free_port(), port).validity(15);
    let gw = asking(&ca, port).config(STATE).config(TLS_ALPN).config(ROUTE);
    let ca = ca.start();
    let gw = gw.start();
    let root = ca.root();
    let mut open = served(gw.address(), "a.test", &root);
    let first = open.certificate();
    let second = eventually("another certificate", || {
        open.get("/").send().expect(200).says("ok");
        let mut connection = visit(gw.address(), "a.test", &root).expect("there is always a valid one");
        connection.get("/").send().expect(200).says("ok");
        Some(connection.certificate()).filter(|certificate| *certificate != first)
    });
    open.get("/").send().expect(200).says("ok");
    // The new one is the one that is stored.
    let stored = std::fs::read_to_string(&files(&gw.dir().join("state/acme/certificates"))[0]).unwrap();
    let leaf = rustls::pki_types::pem::PemObject::from_pem_slice(stored.as_bytes());
    let leaf: rustls::pki_types::CertificateDer<'_> = leaf.unwrap();
    assert_eq!(leaf.as_ref(), second);
}

#[test]
fn a_stored_certificate_that_is_due_is_served_while_another_is_obtained() {
    let port = free_port();
    let ca = pebble(free_port(), port);
    let state = tempfile::tempdir().unwrap();
    let config = STATE.replace("@dir/state", state.path().to_str().unwrap());
    let (first, second) = (asking(&ca, port), asking(&ca, port));
    let ca = ca.start();
    let mut gw = first.config(&config).config(TLS_ALPN).config(ROUTE).start();
    gw.says("obtained");
    gw.interrupt();
    assert!(gw.ended());
    let stored = &files(&state.path().join("certificates"))[..];
    assert!(stored.is_empty(), "the certificates are in the folder acme");
    let stored = &files(&state.path().join("acme/certificates"))[0];
    let old = Authority::new("old");
    let day = Duration::from_secs(24 * 3600);
    let identity = old.issue_for(&["b.test", "a.test"], 80 * day, 10 * day - day / 24);
    std::fs::write(stored, identity.key + &identity.cert).unwrap();
    drop(ca);

    let gw = second.config(&config).config(TLS_ALPN).config(ROUTE).start();
    visit(gw.address(), "a.test", &old.pem()).unwrap().get("/").send().expect(200).says("ok");
    gw.says("warn: the certificate a.test of the listener public expires in 9 days");
    let said = gw.says("no certificate for a.test, b.test, trying again in ");
    assert!(said.starts_with("warn: "), "{said}");
    visit(gw.address(), "b.test", &old.pem()).unwrap().get("/").send().expect(200).says("ok");
}

#[test]
fn while_the_ca_is_away_the_gateway_goes_on() {
    let port = free_port();
    let ca = pebble(free_port(), port);
    let gw = asking(&ca, port)
        .config(STATE)
        .config(TLS_ALPN)
        .config("[listen.plain]\naddress = \"127.0.0.1:0\"")
        .config(ROUTE)
        .start();
    let said = gw.says("no certificate for a.test, b.test, trying again in ");
    assert!(said.starts_with("error: ") && said.contains("Connection refused"), "{said}");
    let count = "portcullis_certificate_renewals_total{certificate=\"a.test\",result=\"failure\"}";
    assert!(metric(&gw, count) >= Some(1));
    assert!(!gw.admin("/metrics").text().contains("expiry_timestamp_seconds{"));
    gw.connect_to("plain").get("/").send().expect(200).says("ok");
    let refused = visit(gw.address(), "a.test", &ca.vouched_by()).err().expect("there is nothing to show");
    assert!(refused.to_string().contains("AccessDenied"), "{refused}");

    // A reload does not wait until it is time to try again.
    let ca = ca.start();
    gw.reload().expect(200);
    served(gw.address(), "a.test", &ca.root());
}

#[test]
fn a_ca_that_refuses_is_quoted_and_not_asked_again_soon() {
    let (port, elsewhere) = (free_port(), free_port());
    // It looks for the challenge where nobody answers.
    let ca = pebble(free_port(), elsewhere);
    let gw = asking(&ca, port).config(STATE).config(TLS_ALPN).config(ROUTE);
    let _ca = ca.start();
    let gw = gw.start();
    let said = gw.says("the CA could not check ");
    assert!(said.contains("Failed to connect") && said.contains("(urn:ietf:params:acme:error:"), "{said}");
    let minutes = ["trying again in 1m ", "trying again in 2m"];
    assert!(minutes.iter().any(|wait| said.contains(wait)), "{said}");
}

#[test]
fn a_ca_that_answers_nonsense_is_told_as_what_it_is() {
    let authority = Authority::new("nonsense");
    for (answer, expected) in [
        (answer(200).body("x".repeat(2 << 20)), "an answer of more than 1048576 bytes"),
        (answer(502).body("<html>"), "the status 502 Bad Gateway"),
        (answer(200).body("{}"), "missing field"),
    ] {
        let ca = Origin::over_tls(authority.server(&["localhost"], &[], false), move |_| answer.clone());
        let port = ca.address().rsplit(':').next().unwrap().to_owned();
        let gw = gateway()
            .set("port", "0")
            .set("directory", format!("https://localhost:{port}/dir"))
            .file("pebble.pem", authority.pem())
            .config(STATE)
            .config(TLS_ALPN)
            .config(ROUTE)
            .start();
        let said = gw.says("no certificate for a.test, b.test");
        assert!(said.contains(expected), "{said}");
    }
    // One that nobody vouches for is told nothing.
    let ca = Origin::over_tls(authority.server(&["localhost"], &[], false), |_| answer(200));
    let port = ca.address().rsplit(':').next().unwrap().to_owned();
    let gw = gateway()
        .set("port", "0")
        .set("directory", format!("https://localhost:{port}/dir"))
        .file("pebble.pem", Authority::new("another").pem())
        .config(STATE)
        .config(TLS_ALPN)
        .config(ROUTE)
        .start();
    assert!(gw.says("no certificate for a.test, b.test").contains("invalid peer certificate"));
    assert!(ca.requests().is_empty());
}

#[test]
fn an_account_that_the_ca_forgot_is_made_anew() {
    let port = free_port();
    let state = tempfile::tempdir().unwrap();
    let config = STATE.replace("@dir/state", state.path().to_str().unwrap());
    let ca = pebble(free_port(), port);
    let gw = asking(&ca, port).config(&config).config(TLS_ALPN).config(ROUTE);
    let again = ca.again();
    let ca = ca.start();
    let gw = gw.start();
    gw.says("obtained a certificate for a.test, b.test");
    drop(ca);
    // A CA without memory at the same place, and a certificate that is not there yet.
    let ca = again.start();
    gw.rewrite(&format!("{config}\n{}\n{ROUTE}", TLS_ALPN.replace("\"b.test\"", "\"c.test\"")));
    gw.reload().expect(200);
    gw.says("the CA does not know the account");
    served(gw.address(), "c.test", &ca.root());
    assert_eq!(files(&state.path().join("acme/accounts")).len(), 1);
}

#[test]
fn names_come_and_go_with_reloads() {
    let (ca, gw, root) = by_tls_alpn();
    let certificate = served(gw.address(), "a.test", &root).certificate();
    let more = TLS_ALPN.replace("acme = {", "acme = [{ names = [\"c.test\"], challenge = \"tls-alpn-01\", agree_to_terms = true, directory = \"@directory\", ca = \"pebble.pem\" }, {");
    gw.rewrite(&format!("{STATE}\n{}]\n{ROUTE}", more.trim_end()));
    gw.reload().expect(200);
    assert_eq!(served(gw.address(), "a.test", &root).certificate(), certificate, "it is kept");
    served(gw.address(), "c.test", &root);
    assert_eq!(ca.issued(), 2);
    let expiry = |name: &str| {
        let series =
            format!("portcullis_certificate_expiry_timestamp_seconds{{certificate=\"{name}\",listener=\"public\"}}");
        metric(&gw, &series).is_some()
    };
    assert!(expiry("a.test") && expiry("c.test"));

    gw.rewrite(&format!("{STATE}\n{TLS_ALPN}\n{ROUTE}"));
    gw.reload().expect(200);
    assert!(expiry("a.test") && !expiry("c.test"));
    assert!(!gw.admin("/metrics").text().contains("c.test"));
    assert_eq!(served(gw.address(), "a.test", &root).certificate(), certificate);
    assert_eq!(ca.issued(), 2);
}

#[test]
fn a_state_directory_that_takes_nothing() {
    let port = free_port();
    let ca = pebble(free_port(), port);
    let own = Authority::new("own");
    let identity = own.issue(&["a.test"]);
    let tls = TLS_ALPN.replace(
        "[listen.public.tls]",
        "[listen.public.tls]\ncertificates = [{ cert = \"own.pem\", key = \"own.key\" }]",
    );
    let builder = asking(&ca, port).file("own.pem", &identity.cert).file("own.key", &identity.key);
    std::fs::create_dir(builder.dir().join("state")).unwrap();
    std::fs::write(builder.dir().join("state/acme"), "in the way").unwrap();
    let gw = builder.config(STATE).config(&tls).config(ROUTE).start();
    let ca = ca.start();
    let said = gw.says("cannot make the folder ");
    assert!(said.contains("state/acme/certificates: ") && said.contains("trying again in "), "{said}");
    // The file answers for the name, and for those that have nothing.
    visit(gw.address(), "a.test", &own.pem()).unwrap().get("/").send().expect(200).says("ok");
    assert_eq!(ca.issued(), 0);

    std::fs::remove_file(gw.dir().join("state/acme")).unwrap();
    gw.reload().expect(200);
    served(gw.address(), "a.test", &ca.root());
    assert!(visit(gw.address(), "a.test", &own.pem()).is_err(), "what was obtained goes before files");
}

#[test]
fn check_asks_nobody() {
    let ca = pebble(free_port(), free_port());
    let builder = asking(&ca, free_port()).config(STATE).config(TLS_ALPN).config(ROUTE);
    let _ca: Pebble = ca.start();
    let state = builder.dir().join("state");
    let output = builder.check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!state.exists());
}
