//! Real programs around the gateway: servers behind it and clients before it.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use super::gateway::follow;
use super::{Gateway, Journal, eventually, gateway};

const INSTALL: &str = "`make test` installs what the drills need";

/// A program that is ended with the test, and shows what it said if the test failed.
pub struct Part {
    child: Child,
    output: Arc<Journal<String>>,
    errors: Arc<Journal<String>>,
}

impl Part {
    /// Starts a program.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{command:?}: {error}; {INSTALL}"));
        let (output, errors) = (Arc::new(Journal::default()), Arc::new(Journal::default()));
        follow(child.stdout.take().expect("it is piped"), output.clone(), |line| line);
        follow(child.stderr.take().expect("it is piped"), errors.clone(), |line| line);
        Self { child, output, errors }
    }

    /// Starts a server, and waits until it listens at a port.
    #[track_caller]
    pub fn at_port(command: &mut Command, port: u16) -> Self {
        let part = Self::start(command);
        eventually(&format!("{command:?}"), || TcpStream::connect(("127.0.0.1", port)).ok());
        part
    }

    /// Starts a server that prints the port it took.
    #[track_caller]
    pub fn with_port(command: &mut Command) -> (Self, u16) {
        let part = Self::start(command);
        let port = part.says("its port", |lines| lines.first()?.parse().ok());
        (part, port)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().try_into().ok().and_then(Pid::from_raw).expect("a process has a number");
        kill_process(pid, signal).expect("our process can be signalled");
    }

    /// The lines of its standard output so far.
    pub fn output(&self) -> Vec<String> {
        self.output.all()
    }

    /// Waits for something in the lines of its standard output.
    #[track_caller]
    pub fn says<R>(&self, what: &str, find: impl FnMut(&[String]) -> Option<R>) -> R {
        self.output.wait_for(what, find)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            for line in self.output.all().iter().chain(&self.errors.all()) {
                eprintln!("part: {line}");
            }
        }
    }
}

/// A port that was free a moment ago, for programs that have to be told one.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// nginx, answering `from nginx` to everything, with its files in a folder.
#[track_caller]
pub fn nginx(dir: &Path, port: u16) -> Part {
    nginx_with(dir, port, "location / { return 200 'from nginx'; }")
}

/// nginx with a server of these directives, with its files in a folder.
#[track_caller]
pub fn nginx_with(dir: &Path, port: u16, server: &str) -> Part {
    let conf = format!(
        "daemon off; master_process off; pid {dir}/nginx.pid; error_log {dir}/nginx.err;\n\
         events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;\n\
         fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;\n\
         server {{ listen 127.0.0.1:{port} backlog=1024; {server} }} }}\n",
        dir = dir.display()
    );
    let path = dir.join("nginx.conf");
    std::fs::write(&path, conf).unwrap();
    Part::at_port(Command::new("nginx").arg("-c").arg(path).arg("-p").arg(dir), port)
}

/// A script of `tests/parts`, in the virtual environment that has the packages it needs.
#[track_caller]
pub fn python(script: &str) -> Command {
    let mut command = installed("python");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts").join(script));
    command
}

/// A program of that environment.
#[track_caller]
pub fn installed(program: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts/.venv/bin").join(program);
    assert!(path.exists(), "there is no {}; {INSTALL}", path.display());
    Command::new(path)
}

/// A script of `tests/parts` for Node.js, beside the packages that it needs.
#[track_caller]
pub fn node(script: &str) -> Command {
    let parts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/parts");
    assert!(parts.join("node_modules").exists(), "there are no packages of npm; {INSTALL}");
    let mut command = Command::new("node");
    command.arg(parts.join(script));
    command
}

/// Runs a program to its end, which has to be a good one; gives what it wrote to standard output.
#[track_caller]
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; {INSTALL}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}\n{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A gateway that sends everything to one server, and logs nothing.
#[track_caller]
pub fn in_front_of(port: u16) -> Gateway {
    gateway()
        .config("[log]\naccess = { to = \"off\" }")
        .set("server", format!("127.0.0.1:{port}"))
        .config("[upstream.o]\nservers = [\"@server\"]\n[[route]]\nmatch = \"/**\"\nupstream = \"o\"")
        .start()
}
