//! A configuration takes the place of another, or nothing changes.

use std::time::Duration;

use crate::harness::{
    Answer, Authority, Connection, Gateway, Identity, Origin, Response, Traffic, answer, eventually, gateway,
    portcullis,
};

const A: &str = "[upstream]\no = [\"@a\"]\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"\n\
    response = { headers = { set = { X-Is = \"a\" } } }";
const B: &str = "[upstream]\no = [\"@a\"]\n[[route]]\nname = \"new\"\nmatch = \"/**\"\nupstream = \"o\"\n\
    response = { headers = { set = { X-Is = \"b\" } } }";

#[test]
fn a_reload_answers_with_a_receipt_and_keeps_what_did_not_change() {
    let origin = Origin::saying("ok");
    let gw = gateway().origin("a", &origin).config(A).start();
    let mut client = gw.connect();
    assert_eq!(client.get("/").send().expect(200).header("x-is"), "a");
    gw.rewrite(B);
    let receipt = gw.reload().expect(200).json();
    assert_eq!(receipt["generation"], 2);
    assert_eq!(receipt["changes"].to_string(), r#"["route new added","route /** removed"]"#);
    let again = format!("{B}\n[defaults]\nrequest = {{ headers = {{ remove = [\"X-A\"] }} }}");
    gw.rewrite(&again);
    let changed = gw.reload().expect(200).json();
    assert_eq!(changed["changes"].to_string(), r#"["route new changed"]"#);
    let same = gw.reload().expect(200).json();
    assert_eq!(same["changes"].to_string(), "[]");
    assert_eq!((&same["digest"], changed["digest"].as_str().unwrap().len()), (&changed["digest"], 64));
    assert_ne!(receipt["digest"], changed["digest"]);
    assert!(receipt["took_ms"].as_f64().is_some());
    assert_eq!(client.get("/").send().expect(200).header("x-is"), "b");
    // The pool did not change, and so the connection to its server is still there.
    assert_eq!((origin.connections(), origin.requests().len()), (1, 2));
}

#[test]
fn a_file_with_mistakes_changes_nothing_and_every_mistake_is_told() {
    let origin = Origin::saying("ok");
    let gw = gateway().origin("a", &origin).config(A).start();
    for (config, mistakes) in [
        (
            "[[route]]\nmatch = \"/x\"\nupstream = \"nowhere\"\n[[route]]\nmatch = \"y\"\nrespond = {}",
            &["nowhere", "`y`"][..],
        ),
        ("[[route", &["not valid TOML"]),
        ("watch = \"yes\"\n[[route]]\nmatch = \"/\"\nrespond = {}", &["`watch` is true or false"]),
        ("[server]\nthreads = 2\n[[route]]\nmatch = \"/\"\nrespond = {}", &["[server] has changed", "a new process"]),
    ] {
        gw.rewrite(config);
        let problem = gw.reload().expect(422).problem("configuration").json();
        let detail = problem["detail"].as_str().unwrap();
        mistakes.iter().for_each(|mistake| assert!(detail.contains(mistake), "{detail}"));
        assert_eq!(gw.get("/").send().expect(200).header("x-is"), "a");
    }
    gw.hang_up();
    eventually("the mistake is in the log", || {
        gw.errors().iter().any(|line| line.contains("the configuration stays as it is")).then_some(())
    });
    assert_eq!(gw.get("/").send().expect(200).header("x-is"), "a");
    gw.rewrite(B);
    gw.hang_up();
    eventually("the new file holds", || (gw.get("/").send().expect(200).header("x-is") == "b").then_some(()));
}

#[test]
fn the_command_says_what_the_gateway_says() {
    let origin = Origin::saying("ok");
    let admin = "\n[admin]\naddress = \"unix:@dir/admin.sock\"\ntoken = { file = \"token\" }\n";
    let gw =
        gateway().origin("a", &origin).file("token", "0123456789abcdef0123").config(&format!("{A}{admin}")).start();
    let reload = |path: &std::path::Path| portcullis(&["reload", "--config", path.to_str().unwrap()]);
    let done = reload(&gw.rewrite(&format!("{B}{admin}")));
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert!(String::from_utf8_lossy(&done.stdout).contains("\"generation\":2"));
    assert_eq!(gw.get("/").send().expect(200).header("x-is"), "b");
    let failed = reload(&gw.rewrite(&format!("{A}{admin}\n[server]\nthreads = 3")));
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("[server] has changed"));
    let failed = reload(&gw.rewrite(&format!("{admin}[[route]]\nmatch = 7")));
    assert!(!failed.status.success() && String::from_utf8_lossy(&failed.stderr).contains("portcullis.toml:"));
    assert_eq!(gw.get("/").send().expect(200).header("x-is"), "b");
}

#[test]
fn requests_and_websockets_under_way_live_on() {
    let origin = Origin::answering(|request| match request.target.as_str() {
        "/slow" => answer(200).body("slow").after(Duration::from_millis(500)),
        _ => Answer::websocket_echo(),
    });
    let gw = gateway().origin("a", &origin).config(A).start();
    let (mut slow, mut socket) = (gw.connect(), gw.connect());
    socket.get("/ws").header("Upgrade", "websocket").header("Connection", "Upgrade").send().expect(101);
    slow.send_raw("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
    origin.wait_for_requests(2);
    gw.rewrite("[[route]]\nmatch = \"/**\"\nrespond = { status = 204 }");
    gw.reload().expect(200);
    gw.get("/").send().expect(204);
    let response = slow.response_to("GET").unwrap().expect(200).says("slow");
    assert_eq!(response.header("x-is"), "a", "a request ends with what it began with");
    socket.send_raw(b"\x81\x05hello");
    assert_eq!(socket.reader.exactly(7).unwrap(), b"\x81\x05hello");
}

#[test]
fn listeners_come_change_and_go() {
    let origin = Origin::saying("ok");
    let public = "[listen.public]\naddress = \"127.0.0.1:0\"\n";
    let gw = gateway().origin("a", &origin).config(public).config(A).start();
    let mut client = gw.connect();
    client.get("/").send().expect(200);

    let more = "[listen.more]\naddress = \"127.0.0.1:0\"\n";
    gw.rewrite(&format!("{public}limits = {{ max_uri = \"20B\" }}\n{more}{A}"));
    let receipt = gw.reload().expect(200).json();
    assert_eq!(receipt["changes"].to_string(), r#"["listener more added","listener public changed"]"#);
    let added = gw.new_listener("more");
    Connection::open(&added).get("/").send().expect(200);
    gw.get("/a-long-way-to-go-from-here").send().expect(414);
    client.get("/a-long-way-to-go-from-here").send().expect(200);

    gw.rewrite(&format!("{public}{A}"));
    assert_eq!(
        gw.reload().expect(200).json()["changes"].to_string(),
        r#"["listener public changed","listener more removed"]"#
    );
    eventually("nobody listens", || std::net::TcpStream::connect(added.tcp()).is_err().then_some(()));
    gw.get("/a-long-way-to-go-from-here").send().expect(200);

    // A port that is taken: nothing changes, and nothing of the rest happens either.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    gw.rewrite(&format!("{public}[listen.more]\naddress = \"{}\"\n{B}", taken.local_addr().unwrap()));
    let problem = gw.reload().expect(422).json();
    assert!(problem["detail"].as_str().unwrap().contains("another process listens there"), "{problem}");
    assert_eq!(gw.get("/").send().expect(200).header("x-is"), "a");
}

/// The one listener of [`with_certificate`].
const TLS: &str =
    "[listen.public]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }";

fn with_certificate(identity: &Identity, origin: &Origin) -> Gateway {
    let files = gateway().file("a.pem", &identity.cert).file("a.key", &identity.key);
    files.origin("a", origin).config(TLS).config(A).start()
}

#[test]
fn certificates_that_were_renewed_are_loaded() {
    let origin = Origin::saying("ok");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let gw = with_certificate(&old.issue(&["a.test"]), &origin);
    let ask = |authority: &Authority| {
        gw.connect_tls("a.test", authority.client(&["http/1.1"])).map(|mut client| client.get("/").send().status)
    };
    assert_eq!(ask(&old).unwrap(), 200);
    let mut open = gw.connect_tls("a.test", old.client(&["http/1.1"])).unwrap();
    let renewed = new.issue(&["a.test"]);
    std::fs::write(gw.dir().join("a.pem"), &renewed.cert).unwrap();
    // A key that is not the certificate's: nothing changes.
    let problem = gw.reload().expect(422).json();
    assert!(problem["detail"].as_str().unwrap().contains("does not belong"), "{problem}");
    assert_eq!(ask(&old).unwrap(), 200);
    std::fs::write(gw.dir().join("a.key"), &renewed.key).unwrap();
    gw.reload().expect(200);
    assert_eq!(ask(&new).unwrap(), 200);
    assert!(ask(&old).is_err());
    open.get("/").send().expect(200);
}

#[test]
fn files_that_change_are_noticed() {
    let origin = Origin::saying("ok");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let gw = with_certificate(&old.issue(&["a.test"]), &origin);
    let ask = |authority: &Authority| {
        let client = gw.connect_tls("a.test", authority.client(&["http/1.1"]));
        client.map(|mut client| client.get("/").send().expect(200).header("x-is").to_owned()).ok()
    };
    assert_eq!(ask(&old).unwrap(), "a");
    let said = |what: &str| gw.errors().iter().any(|line| line.contains(what)).then_some(());
    // The configuration is not watched, and so the certificate is all that changes.
    gw.rewrite(&format!("{TLS}\n{B}"));
    let renewed = new.issue(&["a.test"]);
    std::fs::write(gw.dir().join("a.pem"), &renewed.cert).unwrap();
    eventually("half of it is refused", || said("does not belong to the certificate"));
    assert_eq!(ask(&old).unwrap(), "a");
    std::fs::write(gw.dir().join("a.key"), &renewed.key).unwrap();
    eventually("the certificate is loaded", || ask(&new).filter(|is| is == "a"));
    assert!(ask(&old).is_none());

    let watched = format!("watch = true\n{TLS}\n");
    gw.rewrite(&format!("{watched}{A}"));
    assert_eq!(gw.reload().expect(200).json()["generation"], 3);
    gw.rewrite(&format!("{watched}{B}"));
    eventually("the configuration is loaded", || ask(&new).filter(|is| is == "b"));
    gw.rewrite(&format!("{watched}{A}\n[[route"));
    eventually("a mistake is told", || said("not valid TOML"));
    assert_eq!(ask(&new).unwrap(), "b");
    assert_eq!(gw.reload().status, 422);
    gw.rewrite(&format!("{watched}{A}"));
    eventually("the configuration is loaded", || ask(&new).filter(|is| is == "a"));
}

#[test]
fn files_are_looked_for_where_they_are_named() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let builder = gateway().config("include = [\"apis/*.toml\"]\n[[route]]\nmatch = \"/\"\nrespond = {}");
    let apis = builder.dir().join("apis");
    std::fs::create_dir(&apis).unwrap();
    let install = |authority: &Authority| {
        let identity = authority.issue(&["a.test"]);
        std::fs::write(apis.join("a.pem"), &identity.cert).unwrap();
        std::fs::write(apis.join("a.key"), &identity.key).unwrap();
    };
    install(&old);
    let tls =
        "[listen.tls]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [{ cert = \"a.pem\", key = \"a.key\" }] }";
    std::fs::write(apis.join("tls.toml"), tls).unwrap();
    let gw = builder.config("[listen.public]\naddress = \"127.0.0.1:0\"").start();
    let ask = |authority: &Authority| {
        Connection::tls(gw.listener("tls"), "a.test", authority.client(&["http/1.1"]))
            .map(|mut client| client.get("/").send().status)
    };
    assert_eq!(ask(&old).unwrap(), 200);
    install(&new);
    let changes = gw.reload().expect(200).json()["changes"].to_string();
    assert_eq!((changes.as_str(), ask(&new).unwrap()), (r#"["listener tls changed"]"#, 200));
    assert_eq!(gw.reload().expect(200).json()["changes"].to_string(), "[]");
}

#[test]
fn two_files_alternate_under_traffic_and_no_request_is_lost() {
    let (origin, authority) = (Traffic::origin(), Authority::new("test"));
    let gw = Traffic::gateway(&origin, &authority).config(A).start();
    let is_of_one = |response: &Response| response.status == 200 && ["a", "b"].contains(&response.header("x-is"));
    let traffic = Traffic::start(&gw, &authority, is_of_one);
    for i in 0..200 {
        gw.rewrite(&format!("{}{}", Traffic::LISTENERS, if i % 2 == 0 { B } else { A }));
        let receipt = gw.reload().expect(200).json();
        assert_eq!(receipt["generation"], i + 2);
        assert_eq!(gw.get("/").send().expect(200).header("x-is"), if i % 2 == 0 { "b" } else { "a" });
    }
    traffic.end(20);
}

#[test]
fn listeners_and_certificates_change_under_traffic_and_no_request_is_lost() {
    let (origin, authority) = (Traffic::origin(), Authority::new("test"));
    let gw = Traffic::gateway(&origin, &authority).config(A).start();
    let traffic = Traffic::start(&gw, &authority, |response| response.status == 200);
    for i in 0..20 {
        let identity = authority.issue(&["a.test"]);
        std::fs::write(gw.dir().join("a.pem"), &identity.cert).unwrap();
        std::fs::write(gw.dir().join("a.key"), &identity.key).unwrap();
        gw.rewrite(&format!("[listen.more{i}]\naddress = \"127.0.0.1:0\"\n{}{A}", Traffic::LISTENERS));
        gw.reload().expect(200);
        let more = gw.new_listener(&format!("more{i}"));
        Connection::open(&more).get("/").send().expect(200);
        gw.rewrite(&format!("{}{A}", Traffic::LISTENERS));
        gw.reload().expect(200);
        eventually("nobody listens", || std::net::TcpStream::connect(more.tcp()).is_err().then_some(()));
    }
    traffic.end(3);
}

#[test]
fn ten_thousand_reloads_leave_no_trace() {
    let (origin, authority) = (Origin::saying("ok"), Authority::new("test"));
    let identity = authority.issue(&["a.test"]);
    // Everything changes: upstreams with checks and tasks of their own, a listener with TLS, routes, policies.
    let config = |is: &str| {
        format!(
            "[listen.public]\naddress = \"127.0.0.1:0\"\nmax_connections = {connections}\n\
             tls = {{ certificates = [{{ cert = \"a.pem\", key = \"a.key\" }}] }}\n\
             [upstream.o]\nservers = [\"@a\"]\nretry = {{ attempts = {attempts} }}\n\
             health = {{ path = \"/\", interval = \"1s\" }}\n\
             [log]\naccess = {{ to = \"off\" }}\n\
             [[route]]\nname = \"{is}\"\nmatch = \"/{{x:[{is}-z]+}}/**\"\nupstream = \"o\"\n\
             response = {{ headers = {{ set = {{ X-Is = \"{is}\" }} }} }}",
            connections = if is == "a" { 100 } else { 200 },
            attempts = if is == "a" { 2 } else { 3 },
        )
    };
    let gw = gateway()
        .file("a.pem", &identity.cert)
        .file("a.key", &identity.key)
        .origin("a", &origin)
        .config(&config("a"))
        // A huge page is as large as what is looked for.
        .env("MIMALLOC_ALLOW_THP", "0")
        .start();
    let (mut admin, tls) = (gw.connect_to("admin"), authority.client(&["http/1.1"]));
    let mut reload = |times: std::ops::Range<usize>| {
        for i in times {
            gw.rewrite(&config(if i % 2 == 0 { "b" } else { "a" }));
            let receipt = admin.post("/reload").host("localhost").send().expect(200).json();
            assert_eq!(receipt["generation"], i + 2);
            let mut client = gw.connect_tls("a.test", tls.clone()).unwrap();
            assert_eq!(client.get("/z/1").send().expect(200).header("x-is"), if i % 2 == 0 { "b" } else { "a" });
        }
        gw.memory()
    };
    reload(0..50);
    // What happens every second has happened before memory is measured.
    let checks = origin.requests_for("/").len();
    eventually("two more checks", || (origin.requests_for("/").len() >= checks + 2).then_some(()));
    let early = reload(50..100);
    let late = reload(100..10_000);
    assert!(late as f64 <= early as f64 * 1.05, "{early} bytes after 100 reloads, {late} after 10,000");
    let threads = std::fs::read_dir(format!("/proc/{}/task", gw.pid())).unwrap().count();
    assert!(threads < 20, "{threads} threads are left");
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", gw.pid())).unwrap().count();
    assert!(descriptors < 100, "{descriptors} descriptors are left");
}

#[test]
fn a_state_directory_is_one_gateways_own() {
    let config = "[server]\nstate_dir = \"@dir/state\"\n[[route]]\nmatch = \"/\"\nrespond = { status = 200 }";
    let gw = gateway().config(config).start();
    let state = gw.dir().join("state");
    let second = config.replace("@dir/state", state.to_str().unwrap());
    let said = gateway().config(&second).refused();
    assert!(said.contains("another gateway uses the state directory"), "{said}");
    let said = gateway().file("taken", "").config(&config.replace("@dir/state", "@dir/taken/state")).refused();
    assert!(said.contains("the state directory") && said.contains("cannot be made"), "{said}");
    gw.get("/").send().expect(200);
}
