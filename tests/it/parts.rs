//! Drills with WebSockets, gRPC and load as others implement them: Python's `websockets` and `grpcio` on both sides
//! of the gateway, and wrk. A part that is missing fails its drill: `make test` installs them.

use std::process::Command;

use crate::harness::{Authority, Part, free_port, gateway, in_front_of, nginx, output, python};

#[test]
fn websockets_of_python() {
    let (server, port) = Part::with_port(&mut python("websocket_server.py"));
    let gw = in_front_of(port);
    let url = format!("ws://{}/echo", gw.address().tcp());
    assert_eq!(output(python("websocket_client.py").arg(url)), "ok\n");
    expect_closed_well(&server);
}

#[test]
fn websockets_of_python_over_tls() {
    let (server, port) = Part::with_port(&mut python("websocket_server.py"));
    let authority = Authority::new("test");
    let gw = gateway()
        .secured(&authority.issue(&["gateway.test"]), "")
        .file("ca.pem", authority.pem())
        .set("server", format!("127.0.0.1:{port}"))
        .config("[upstream]\no = [\"@server\"]\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start();
    let url = format!("wss://{}/echo", gw.address().tcp());
    assert_eq!(output(python("websocket_client.py").arg(url).arg(gw.dir().join("ca.pem"))), "ok\n");
    expect_closed_well(&server);
}

/// The server saw what the client said when it closed its two connections.
#[track_caller]
fn expect_closed_well(server: &Part) {
    let closed = server.says("the end of two connections", |lines| (lines.len() >= 3).then(|| lines[1..].to_vec()));
    assert_eq!(closed, ["closed 1000 that was all"; 2]);
}

#[test]
fn grpc_of_python() {
    let (_server, port) = Part::with_port(&mut python("grpc_server.py"));
    let gw = gateway()
        .set("server", format!("127.0.0.1:{port}"))
        .config(
            r#"
            [upstream]
            drill = { servers = ["@server"], protocol = "h2c" }
            lost = { servers = ["nonexistent.invalid:1"], protocol = "h2c" }
            [[route]]
            match = "/drill.Drill/{name}"
            upstream = "drill"
            [[route]]
            match = "/lost.Service/{name}"
            upstream = "lost"
            "#,
        )
        .start();
    assert_eq!(output(python("grpc_client.py").arg(gw.address().tcp().to_string())), "ok\n");
}

#[test]
fn wrk_to_nginx() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let _nginx = nginx(dir.path(), port);
    let gw = in_front_of(port);
    let url = format!("http://{}/", gw.address().tcp());
    let report = output(Command::new("wrk").args(["-t", "1", "-c", "8", "-d", "2s", &url]));
    assert!(!report.contains("Non-2xx") && !report.contains("Socket errors"), "{report}");
    let requests = report.lines().find_map(|line| line.trim().split_once(" requests in "));
    let requests: u64 = requests.and_then(|(count, _)| count.parse().ok()).unwrap_or_else(|| panic!("{report}"));
    assert!(requests > 100, "{report}");
}
