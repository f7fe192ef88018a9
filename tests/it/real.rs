//! Drills with real parts: nginx and Python's http.server as upstreams, curl and h2load as clients. A part that is
//! missing fails its drill: `make test` installs them.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Authority, Gateway, eventually, gateway};

/// A program that is ended with the test.
struct Part(Child);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn started(mut command: Command, port: u16) -> Part {
    let what = format!("{command:?}");
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let part = Part(child.unwrap_or_else(|error| panic!("{what}: {error}; `make test` installs what the drills need")));
    eventually(&what, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    part
}

fn nginx(dir: &Path, port: u16) -> Part {
    let conf = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;\n\
         fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ return 200 'from nginx'; }} }} }}\n",
        dir = dir.display()
    );
    let path = dir.join("nginx.conf");
    std::fs::write(&path, conf).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(path).arg("-p").arg(dir);
    started(command, port)
}

fn output(command: &mut Command) -> String {
    let what = format!("{command:?}");
    let output =
        command.output().unwrap_or_else(|error| panic!("{what}: {error}; `make test` installs what the drills need"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{what}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn in_front_of(port: u16) -> Gateway {
    gateway()
        .config("[log]\naccess = { to = \"off\" }")
        .set("server", format!("127.0.0.1:{port}"))
        .config("[upstream.o]\nservers = [\"@server\"]\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start()
}

#[test]
fn curl_over_http2_and_tls_to_nginx() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _nginx = nginx(dir.path(), port);
    let authority = Authority::new("test");
    let identity = authority.issue(&["shop.test"]);
    let gw = gateway()
        .file("ca.pem", &authority.pem())
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
    let _server = started(command, port);
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
    let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .arg("demo")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let _demo = Part(child);
    let mut lines = Vec::new();
    for line in stdout.lines().map_while(Result::ok) {
        let done = line.starts_with("Ctrl-C");
        lines.push(line);
        if done {
            break;
        }
    }
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
            line if line.contains("/flaky") => "500",
            line if line.contains("/old/") => "308",
            line if line.contains("/nowhere") => "404",
            line if line.contains("DELETE") => "405",
            _ => "200",
        };
        assert_eq!(status.trim(), expected, "{line}");
    }
}
