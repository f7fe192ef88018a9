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

#[test]
fn the_demo_does_what_its_lines_say() {
    let demo = Part::start(Command::new(env!("CARGO_BIN_EXE_portcullis")).arg("demo"));
    let lines = demo.says("its last line", |lines| {
        lines.last().is_some_and(|line| line.starts_with("Ctrl-C")).then(|| lines.to_vec())
    });
    the_readme_shows_what_the_demo_answers();
    let requests: Vec<&str> = lines.iter().filter(|line| line.contains("curl")).map(String::as_str).collect();
    assert!(requests.len() >= 10, "{lines:?}");
    for line in requests {
        let command = line.split('#').next().unwrap().trim();
        let status = output(
            Command::new("sh")
                .args(["-c", &format!("{command} -sS -o /dev/null -w '%{{http_code}}'").replace(" -i ", " ")]),
        );
        let expected = match line {
            line if line.contains("/slow") => "504",
            line if line.contains("/partners") && !line.contains("X-Api-Key") => "401",
            line if line.contains("/flaky") => "500",
            line if line.contains("/old/") => "308",
            line if line.contains("/nowhere") => "404",
            line if line.contains("DELETE") => "405",
            _ => "200",
        };
        assert_eq!(status.trim(), expected, "{line}");
    }
}

/// The commands after `$` in the README's `console`, each with what it says below it. How long an answer is still fresh
/// may differ.
fn the_readme_shows_what_the_demo_answers() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let tour = readme.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a tour");
    let steady = |text: &str| -> String {
        let line = |line: &str| match line.split_once("ttl=") {
            Some((before, ttl)) if ttl.trim().parse::<u8>().is_ok_and(|ttl| ttl <= 60) => format!("{before}ttl"),
            _ => line.trim_end().to_owned(),
        };
        text.trim_end().lines().map(line).collect::<Vec<_>>().join("\n")
    };
    let steps: Vec<_> = tour.split("$ ").skip(1).map(|step| step.split_once('\n').unwrap()).collect();
    assert!(steps.len() >= 4, "{tour}");
    for (command, answer) in steps {
        assert_eq!(steady(&output(Command::new("sh").args(["-c", command]))), steady(answer), "{command}");
    }
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
