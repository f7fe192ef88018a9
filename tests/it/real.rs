//! Drills with real parts: nginx and Python's http.server as upstreams, curl and h2load as clients. A part that is
//! missing fails its drill: `make test` installs them.

use std::path::Path;
use std::process::Command;

use crate::harness::{Authority, Part, eventually, free_port, gateway, in_front_of, nginx, output};

#[test]
fn curl_over_http2_and_tls_to_nginx() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _nginx = nginx(dir.path(), port);
    let authority = Authority::new("test");
    let identity = authority.issue(&["shop.test"]);
    let gw = gateway()
        .file("ca.pem", authority.pem())
        .file("cert.pem", &identity.cert)
        .file("key.pem", &identity.key)
        .config("[listen.public]\naddress = \"127.0.0.1:0\"\ntls = { certificates = [{ cert = \"cert.pem\", key = \"key.pem\" }] }")
        .set("server", format!("127.0.0.1:{port}"))
        .config("[upstream.o]\nservers = [\"@server\"]\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    let listener = gw.address().tcp().port();
    for (version, shown) in [("--http2", "2"), ("--http1.1", "1.1")] {
        let text = output(
            Command::new("curl")
                .args(["-sS", version, "--cacert"])
                .arg(gw.dir().join("ca.pem"))
                .args(["--resolve", &format!("shop.test:{listener}:127.0.0.1")])
                .args(["-w", " over %{http_version}", &format!("https://shop.test:{listener}/")]),
        );
        assert_eq!(text, format!("from nginx over {shown}"));
    }
}

#[test]
fn pythons_http_server() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file.txt"), "x".repeat(300_000)).unwrap();
    let port = free_port();
    let mut command = Command::new("python3");
    command.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1", "--directory"]).arg(dir.path());
    let _server = Part::at_port(&mut command, port);
    let gw = in_front_of(port);
    assert_eq!(gw.get("/file.txt").send().expect(200).body.len(), 300_000);
    gw.get("/none").send().expect(404);
}

#[test]
fn a_million_requests_end_without_an_error_and_with_flat_memory() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _nginx = nginx(dir.path(), port);
    let gw = in_front_of(port);
    let url = format!("http://127.0.0.1:{}/", gw.address().tcp().port());
    let load = |requests: u32, arguments: &[&str]| {
        let text =
            output(Command::new("h2load").args(["-n", &requests.to_string(), "-c", "32"]).args(arguments).arg(&url));
        let all =
            format!("{requests} total, {requests} started, {requests} done, {requests} succeeded, 0 failed, 0 errored");
        assert!(text.contains(&all), "{text}");
        assert!(text.contains(&format!("{requests} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{text}");
    };
    load(100_000, &["--h1"]);
    load(100_000, &["-m", "10"]);
    let before = gw.memory();
    load(500_000, &["--h1"]);
    load(300_000, &["-m", "10"]);
    let after = gw.memory();
    assert!(after < before + before / 5 + (4 << 20), "{before} bytes grew to {after}");
}

#[test]
fn the_starter_configuration_is_fine() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/portcullis.toml");
    let output = crate::harness::portcullis(&["check", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What the README shows and what the demo prints is of the tour, and the tour is run. All in one test, for the demo has
/// ports of its own.
#[test]
fn the_tour_shows_what_the_demo_answers() {
    let demo = Part::start(Command::new(env!("CARGO_BIN_EXE_portcullis")).arg("demo"));
    let printed = demo.says("its last line", |lines| {
        lines.last().is_some_and(|line| line.starts_with("Ctrl-C")).then(|| lines.to_vec())
    });
    let tour = steps("docs/src/tour.md");
    assert!(tour.len() >= 30, "{tour:?}");
    let printed: Vec<&str> = printed.iter().filter_map(|line| line.strip_prefix("  ")).collect();
    assert_eq!(printed, tour.iter().map(|(command, _)| command.as_str()).collect::<Vec<_>>());
    let mut of_the_readme = steps("README.md").into_iter();
    assert!((4..=12).contains(&of_the_readme.len()), "{of_the_readme:?}");
    let mut rest = tour.iter();
    assert_eq!(of_the_readme.find(|step| !rest.any(|of_the_tour| of_the_tour == step)), None);

    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let binaries = Path::new(env!("CARGO_BIN_EXE_portcullis")).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    for (command, answer) in tour {
        let said = output(Command::new("sh").args(["-c", &command]).current_dir(root).env("PATH", &path));
        let said: Vec<&str> = said.lines().map(str::trim_end).collect();
        let shown: Vec<&str> = answer.iter().map(String::as_str).collect();
        assert!(is_shown(&said, &shown), "{command}\nsays\n{}\nnot\n{}", said.join("\n"), shown.join("\n"));
    }
}

/// The commands after `$` in the `console` blocks of a page, each with the lines that it answers.
fn steps(page: &str) -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(page)).unwrap();
    let blocks = text.split("```console\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), Vec::new())),
            (None, Some((_, answer))) => answer.push(line.to_owned()),
            (None, None) => panic!("{page} has an answer before its command: {line}"),
        }
    }
    steps
}

/// Whether lines are as they are shown: `…` in a line stands for anything within it, and a line of nothing else for any
/// number of lines.
fn is_shown(said: &[&str], shown: &[&str]) -> bool {
    match shown {
        [] => said.is_empty(),
        ["…", rest @ ..] => (0..=said.len()).any(|skipped| is_shown(&said[skipped..], rest)),
        [line, rest @ ..] => said.first().is_some_and(|first| is_like(first, line)) && is_shown(&said[1..], rest),
    }
}

fn is_like(line: &str, shown: &str) -> bool {
    match shown.split_once('…') {
        None => line == shown,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            let mut ends = rest.char_indices().map(|(i, _)| i).chain([rest.len()]);
            ends.any(|end| is_like(&rest[end..], after))
        }),
    }
}

#[test]
fn what_changes_is_the_only_thing_that_may_differ() {
    let like = |line: &str, shown: &str| is_like(line, shown);
    assert!(like("a=1; b", "a=…; b") && like("a", "…a…") && like("", "…") && like("aXbXc", "a…b…c"));
    assert!(!like("a=1; c", "a=…; b") && !like("a", "b…") && !like("ab", "a") && !like("a", "a…b") && !like("x", ""));
    assert!(is_shown(&["a", "b", "c"], &["a", "…", "c"]) && is_shown(&["a"], &["a", "…"]) && is_shown(&[], &[]));
    assert!(!is_shown(&["a", "b"], &["a"]) && !is_shown(&["a"], &["a", "b"]) && !is_shown(&["a", "b"], &["…", "c"]));
}

/// The five minutes of the README, on ports of the test's own.
#[test]
fn the_readme_leads_to_a_routed_balanced_tls_service() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let block = |name: &str| {
        let from = readme.find(&format!("`{name}`,")).expect("the README introduces the file");
        let from = from + readme[from..].find("```toml\n").unwrap() + "```toml\n".len();
        readme[from..from + readme[from..].find("```\n").unwrap()].to_owned()
    };
    let (a, b) = (free_port(), free_port());
    let servers = block("servers.toml")
        .replace("127.0.0.1:8081", &format!("127.0.0.1:{a}"))
        .replace("127.0.0.1:8082", &format!("127.0.0.1:{b}"))
        .replace("127.0.0.1:9901", "127.0.0.1:0");
    let _servers = gateway().config(&servers).start();

    let authority = Authority::new("readme");
    let identity = authority.issue(&["localhost"]);
    let config = block("portcullis.toml")
        .replace("127.0.0.1:8081", &format!("127.0.0.1:{a}"))
        .replace("127.0.0.1:8082", &format!("127.0.0.1:{b}"))
        .replace("127.0.0.1:9900", "127.0.0.1:0")
        .replace("0.0.0.0:8443", "127.0.0.1:0");
    let gw = gateway()
        .file("api.pem", &identity.cert)
        .file("api.key", &identity.key)
        .config("[server]\nthreads = 1")
        .config(&config)
        .start();
    let client = || gw.connect_tls("localhost", authority.client(&["http/1.1"])).unwrap();
    let first = |_| client().get("/users/7").host("localhost").send().expect(200).json()["server"].clone();
    eventually("both servers are healthy", || {
        let served: Vec<_> = (0..6).map(first).collect();
        (served.iter().filter(|server| *server == "b").count() == 4).then_some(())
    });
    let moved = client().get("/old/7").host("localhost").send().expect(308);
    assert_eq!(moved.header("location"), "https://localhost/users/7");
}
