//! A new process takes the place of the gateway, or nothing changes.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{
    Authority, Connection, Gateway, Origin, Part, Traffic, eventually, free_port, gateway, portcullis,
};

const BINARY: &str = env!("CARGO_BIN_EXE_portcullis");
const ROUTES: &str = "[upstream]\no = [\"@a\"]\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"";
const SERVER: &str = "[server]\nthreads = 2\ngrace_period = \"70s\"\nstate_dir = \"@dir/state\"\n\
    pid_file = \"@dir/pid\"\nbinary = \"@dir/binary\"\n";

fn exists(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z "))
}

/// Puts a binary where an upgrade looks for it.
fn install(dir: &Path, script: Option<&str>) {
    let path = dir.join("binary");
    let _ = std::fs::remove_file(&path);
    match script {
        None => std::os::unix::fs::symlink(BINARY, path).unwrap(),
        Some(script) => {
            std::fs::write(&path, script).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }
}

fn pid_file(gw: &Gateway) -> u32 {
    std::fs::read_to_string(gw.dir().join("pid")).unwrap().trim().parse().unwrap()
}

#[test]
fn twenty_upgrades_under_traffic_lose_no_request() {
    let (origin, authority) = (Traffic::origin(), Authority::new("test"));
    let gw = Traffic::gateway(&origin, &authority).config(SERVER).config(ROUTES).start();
    install(gw.dir(), None);
    let traffic = Traffic::start(&gw, &authority, |response| response.status == 200).with_a_download(&gw);
    let first = gw.pid();
    for _ in 0..20 {
        let before = gw.pid();
        gw.upgrade().expect(200);
        assert_ne!(gw.pid(), before);
        eventually("the pid file names the new process", || (pid_file(&gw) == gw.pid()).then_some(()));
    }
    assert!(exists(first), "the first process has a download to end");
    traffic.end(200);
    eventually("the first process leaves once its download is over", || (!exists(first)).then_some(()));
}

#[test]
fn a_binary_that_does_not_come_so_far_changes_nothing() {
    let (origin, authority) = (Traffic::origin(), Authority::new("test"));
    let gw = Traffic::gateway(&origin, &authority).config(SERVER).config(ROUTES).start();
    let traffic = Traffic::start(&gw, &authority, |response| response.status == 200);
    let first = gw.pid();
    let crashes = format!("#!/bin/sh\n(sleep 1; kill -KILL $$) > /dev/null 2>&1 &\nexec {BINARY} \"$@\"\n");
    for (script, why) in [
        (None, "No such file"),
        (Some("#!/bin/sh\nexit 7\n"), "exit status: 7"),
        (Some("#!/bin/sh\nkill -SEGV $$\n"), "signal: 11"),
        (Some("this is no program"), "cannot start"),
        (Some(crashes.as_str()), "signal: 9"),
    ] {
        match script {
            Some(_) => install(gw.dir(), script),
            None => drop(std::fs::remove_file(gw.dir().join("binary"))),
        }
        let problem = gw.upgrade().expect(500).problem("upgrade").json();
        assert!(problem["detail"].as_str().unwrap().contains(why), "{why}: {problem}");
        assert_eq!((pid_file(&gw), gw.pid()), (first, first));
        gw.get("/").send().expect(200);
    }
    install(gw.dir(), None);
    gw.upgrade().expect(200);
    traffic.end(20);
}

#[test]
fn a_binary_that_hears_nothing_is_ended_with_all_that_it_started() {
    let origin = Origin::saying("ok");
    let mut gw = gateway().origin("a", &origin).config(SERVER).config(ROUTES).start();
    let child = gw.dir().join("child");
    install(gw.dir(), Some(&format!("#!/bin/sh\nexec 3<&0\nsleep 1000 <&3 &\necho $! > {}\nwait\n", child.display())));
    gw.usr2();
    let read = || std::fs::read_to_string(&child).ok()?.trim().parse().ok();
    let child: u32 = eventually("the binary is started", read);
    assert!(exists(child));
    gw.terminate();
    assert!(gw.ended());
    assert!(!exists(child));
}

#[test]
fn a_file_with_mistakes_changes_nothing() {
    let origin = Origin::saying("ok");
    let gw = gateway().origin("a", &origin).config(SERVER).config(ROUTES).start();
    install(gw.dir(), None);
    let first = gw.pid();
    gw.rewrite(&format!("{SERVER}{ROUTES}\n[[route]]\nmatch = \"/x\"\nupstream = \"nowhere\""));
    let problem = gw.upgrade().expect(500).problem("upgrade").json();
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("portcullis.toml:") && detail.contains("there is no upstream `nowhere`"), "{detail}");
    // What only shows when it is tried: an address that somebody else has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[listen.more]\naddress = \"{}\"\n", taken.local_addr().unwrap());
    gw.rewrite(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\n{more}{SERVER}{ROUTES}"));
    let problem = gw.upgrade().expect(500).problem("upgrade").json();
    assert!(problem["detail"].as_str().unwrap().contains("another process listens there"), "{problem}");
    gw.get("/").send().expect(200);
    assert_eq!((pid_file(&gw), exists(first)), (first, true));
    // The file that an upgrade takes may say of [server] what a reload may not.
    let server = SERVER.replace("threads = 2", "threads = 1");
    gw.rewrite(&format!("{server}{ROUTES}\n[[route]]\nmatch = \"/new\"\nrespond = {{ status = 204 }}"));
    gw.reload().expect(422);
    gw.upgrade().expect(200);
    eventually("the new process answers", || (gw.get("/new").send().status == 204).then_some(()));
    eventually("the first process leaves", || (!exists(first)).then_some(()));
}

#[test]
fn the_command_and_the_signal_do_the_same() {
    let origin = Origin::saying("ok");
    let admin = "[admin]\naddress = \"unix:@dir/admin.sock\"\ntoken = { file = \"token\" }\n";
    let gw = gateway()
        .origin("a", &origin)
        .file("token", "0123456789abcdef0123")
        .config(&format!("{SERVER}{admin}{ROUTES}"))
        .start();
    install(gw.dir(), None);
    let first = gw.pid();
    let config = gw.rewrite(&format!("{SERVER}{admin}{ROUTES}"));
    let done = portcullis(&["upgrade", "--config", config.to_str().unwrap()]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let receipt: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    let second = u32::try_from(receipt["pid"].as_u64().unwrap()).unwrap();
    gw.is_now(second);
    eventually("the first process leaves", || (!exists(first)).then_some(()));
    gw.usr2();
    let third = eventually("another process takes over", || Some(pid_file(&gw)).filter(|pid| *pid != second));
    gw.is_now(third);
    eventually("the second process leaves", || (!exists(second)).then_some(()));
    gw.get("/").send().expect(200);
    gw.terminate();
    eventually("the third process leaves", || (!exists(third)).then_some(()));
    assert!(!gw.dir().join("pid").exists());
}

/// Asks until the gateway says that it closes the connection.
fn last_answer(client: &mut Connection) {
    eventually("the last answer", || {
        let response = client.get("/").send().expect(200);
        response.headers.first("connection").map(|connection| assert_eq!(connection, "close"))
    });
}

#[test]
fn a_connection_that_waits_for_a_request_may_have_it() {
    let origin = Origin::saying("ok");
    let gw = gateway().origin("a", &origin).config(SERVER).config(ROUTES).start();
    install(gw.dir(), None);
    let (mut waits, mut h2) = (gw.connect(), gw.h2c());
    waits.get("/").send().expect(200);
    h2.get("/").send().expect(200);
    let first = gw.pid();
    gw.upgrade().expect(200);
    last_answer(&mut waits);
    waits.expect_closed();
    eventually("HTTP/2 is told to go elsewhere", || h2.get("/").send_unless_closing().is_none().then_some(()));
    eventually("the first process leaves", || (!exists(first)).then_some(()));
    // The same when it is stopped.
    let mut waits = gw.connect();
    waits.get("/").send().expect(200);
    gw.terminate();
    eventually("it drains", || std::net::TcpStream::connect(gw.address().tcp()).is_err().then_some(()));
    last_answer(&mut waits);
}

#[test]
fn a_process_that_was_started_for_it_takes_over_on_quit() {
    let (origin, authority) = (Traffic::origin(), Authority::new("test"));
    let gw = Traffic::gateway(&origin, &authority).config(SERVER).config(ROUTES).start();
    let traffic = Traffic::start(&gw, &authority, |response| response.status == 200);
    let first = gw.pid();
    // Nobody waits: nothing happens.
    gw.quit();
    eventually("it says so", || gw.errors().iter().any(|line| line.contains("no process waits at")).then_some(()));
    let mut command = Command::new(BINARY);
    command.args(["run", "--upgrade", "--config"]).arg(gw.dir().join("portcullis.toml"));
    let mut second = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    gw.is_now(second.id());
    eventually("it waits", || gw.dir().join("state/upgrade.sock").exists().then_some(()));
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(first.try_into().unwrap()).unwrap(),
        rustix::process::Signal::QUIT,
    )
    .unwrap();
    eventually("it has taken over", || (pid_file(&gw) == second.id()).then_some(()));
    eventually("the first process leaves", || (!exists(first)).then_some(()));
    gw.get("/").send().expect(200);
    traffic.end(20);
    gw.terminate();
    assert!(second.wait().unwrap().success());
}

#[test]
fn sockets_of_systemd_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (port, other) = (free_port(), free_port());
    let config = dir.path().join("portcullis.toml");
    // By its name; and by its address.
    let text = format!(
        "[listen.public]\naddress = \"127.0.0.1:1\"\n[listen.other]\naddress = \"127.0.0.1:{other}\"\n\
         [server]\nthreads = 2\n[[route]]\nmatch = \"/\"\nrespond = {{ body = \"ok\" }}"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new("systemd-socket-activate");
    for port in [port, other] {
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
    }
    command.args(["--fdname", "public:else", BINARY, "run", "--config"]).arg(&config);
    let _part = Part::start(&mut command);
    for port in [port, other] {
        let address = crate::harness::Address::Tcp(([127, 0, 0, 1], port).into());
        eventually("it listens", || std::net::TcpStream::connect(address.tcp()).ok());
        for _ in 0..20 {
            Connection::open(&address).get("/").send().expect(200).says("ok");
        }
    }
}
