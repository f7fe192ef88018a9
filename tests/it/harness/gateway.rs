//! The real binary with a configuration of the test's.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;

use super::client::{Connection, Request, Response};
use super::{DEADLINE, H2, Identity, Journal, Origin, eventually};

/// Where a listener listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// The address of a TCP listener.
    #[track_caller]
    pub fn tcp(&self) -> SocketAddr {
        match self {
            Self::Tcp(address) => *address,
            Self::Unix(path) => panic!("{} is a Unix socket", path.display()),
        }
    }
}

/// A gateway about to start. What the configuration does not say gets what most tests want: one worker, a listener
/// `public` and an admin listener on ports of the kernel's choice, JSON lines on standard output.
pub fn gateway() -> Builder {
    Builder { config: String::new(), names: Vec::new(), env: Vec::new(), dir: tempfile::tempdir().expect("a folder") }
}

/// Runs the binary to its end.
pub fn portcullis(arguments: &[&str]) -> Output {
    binary().args(arguments).output().expect("the binary runs")
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.stdin(Stdio::null());
    command
}

pub struct Builder {
    config: String,
    names: Vec<(String, String)>,
    env: Vec<(String, String)>,
    dir: TempDir,
}

impl Builder {
    /// The configuration. `@name` in it stands for what [`Self::set`] says, `@dir` for the test's own folder.
    pub fn config(mut self, toml: &str) -> Self {
        self.config += toml;
        self.config.push('\n');
        self
    }

    /// An upstream with one server.
    pub fn upstream(self, name: &str, origin: &Origin) -> Self {
        let server = origin.address();
        self.config(&format!("[upstream.{name}]\nservers = [\"{server}\"]"))
    }

    /// A route from everything to an upstream with one server: for tests about something else.
    pub fn everything_to(self, origin: &Origin) -> Self {
        self.upstream("origin", origin).config("[[route]]\nmatch = \"/**\"\nupstream = \"origin\"")
    }

    /// The listener `public` with a certificate; `more` is what else its `tls` says.
    pub fn secured(self, identity: &Identity, more: &str) -> Self {
        let certificates = "certificates = [{ cert = \"gateway.pem\", key = \"gateway.key\" }]";
        let tls = [certificates, more].join(if more.is_empty() { "" } else { ", " });
        self.file("gateway.pem", &identity.cert)
            .file("gateway.key", &identity.key)
            .config(&format!("[listen.public]\naddress = \"127.0.0.1:0\"\ntls = {{ {tls} }}"))
    }

    /// What `@name` stands for.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.names.push((format!("@{name}"), value.into()));
        self
    }

    /// What `@name` stands for: an origin's address.
    pub fn origin(self, name: &str, origin: &Origin) -> Self {
        self.set(name, origin.address())
    }

    /// A file in the test's folder.
    pub fn file(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        std::fs::write(self.dir.path().join(name), bytes).expect("the test's folder takes files");
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The test's own folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let config = self.written();
        let mut child = binary()
            .args(["run", "--config"])
            .arg(&config)
            .envs(self.env.iter().cloned())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let (log, errors) = (Arc::new(Journal::default()), Arc::new(Journal::default()));
        follow(child.stdout.take().expect("it is piped"), log.clone(), |line| {
            serde_json::from_str(&line).unwrap_or(Value::String(line))
        });
        follow(child.stderr.take().expect("it is piped"), errors.clone(), |line| line);
        let mut gateway = Gateway {
            child,
            listeners: HashMap::new(),
            log,
            errors,
            names: self.names,
            dir: self.dir,
            successors: Mutex::default(),
        };
        gateway.wait_until_ready();
        gateway
    }

    /// Runs `portcullis check` over the configuration.
    pub fn check(self) -> Output {
        let config = self.written();
        binary().arg("check").arg(&config).envs(self.env.iter().cloned()).output().expect("the binary runs")
    }

    /// Runs the binary with other arguments, of which `@file` stands for the configuration.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let config = self.written();
        let arguments = arguments.iter().map(|word| if *word == "@file" { config.as_os_str() } else { word.as_ref() });
        binary().args(arguments).envs(self.env.iter().cloned()).output().expect("the binary runs")
    }

    /// Runs it with a configuration that is to be refused: whether it was, and what it said.
    pub fn refused(self) -> String {
        let config = self.written();
        let output = binary().args(["run", "--config"]).arg(&config).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "it ended well: {said}");
        said
    }

    fn written(&self) -> PathBuf {
        written(&self.config, &self.names, self.dir.path())
    }
}

/// Writes a configuration with what most tests want and it does not say.
fn written(config: &str, names: &[(String, String)], dir: &Path) -> PathBuf {
    let mut text = config.to_owned();
    for (table, lines) in [
        ("[server", "[server]\nthreads = 1\n"),
        ("[listen.", "[listen.public]\naddress = \"127.0.0.1:0\"\n"),
        ("[admin", "[admin]\naddress = \"127.0.0.1:0\"\n"),
        ("[log", "[log]\naccess = { to = \"stdout\", format = \"json\" }\n"),
    ] {
        if !text.lines().any(|line| line.trim_start().starts_with(table)) {
            text += lines;
        }
    }
    let mut names = names.to_vec();
    names.push(("@dir".to_owned(), dir.display().to_string()));
    // The longest first: `@ab` is not `@a` and a `b`.
    names.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    for (name, value) in names {
        text = text.replace(&name, &value);
    }
    let path = dir.join("portcullis.toml");
    std::fs::write(&path, text).expect("the test's folder takes files");
    path
}

/// Makes an entry of every line.
pub(super) fn follow<T: Clone + Send + 'static>(
    pipe: impl std::io::Read + Send + 'static,
    journal: Arc<Journal<T>>,
    parse: fn(String) -> T,
) {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            journal.push(parse(line));
        }
    });
}

/// A running gateway. It is killed when the test ends, and shows what it said if the test failed.
pub struct Gateway {
    child: Child,
    listeners: HashMap<String, Address>,
    log: Arc<Journal<Value>>,
    errors: Arc<Journal<String>>,
    names: Vec<(String, String)>,
    dir: TempDir,
    successors: Mutex<Vec<u32>>,
}

impl Gateway {
    /// Writes its file anew, as [`Builder::config`] would; gives its path.
    pub fn rewrite(&self, config: &str) -> PathBuf {
        written(&format!("{config}\n"), &self.names, self.dir.path())
    }

    /// Has it load its file again: the answer of the admin interface.
    pub fn reload(&self) -> Response {
        Request::to(self.listener("admin"), "POST", "/reload").host("localhost").send()
    }

    /// Has another process take over from it: the answer of the admin interface. From then on this is the other
    /// process.
    pub fn upgrade(&self) -> Response {
        let response = Request::to(self.listener("admin"), "POST", "/upgrade").host("localhost").send();
        if response.status == 200 {
            let pid = response.json()["pid"].as_u64().and_then(|pid| pid.try_into().ok());
            self.is_now(pid.expect("the receipt names the process"));
        }
        response
    }

    /// Another process has taken over.
    pub fn is_now(&self, pid: u32) {
        self.successors.lock().unwrap_or_else(|e| e.into_inner()).push(pid);
    }

    /// USR2: have another process take over.
    pub fn usr2(&self) {
        self.signal(Signal::USR2);
    }

    /// QUIT: hand over to a process that waits for it.
    pub fn quit(&self) {
        self.signal(Signal::QUIT);
    }

    /// USR1: open the log files again.
    pub fn reopen_logs(&self) {
        self.signal(Signal::USR1);
    }

    /// HUP: load the file again.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// Waits until it says that a listener is somewhere new.
    #[track_caller]
    pub fn new_listener(&self, name: &str) -> Address {
        let said = format!("listening name={name} address=");
        self.errors.wait_for(&said, |lines| {
            let address = lines.iter().rev().find_map(|line| line.strip_prefix(&said))?;
            Some(Address::Tcp(address.parse().ok()?))
        })
    }

    /// `GET` over a connection of its own to the listener `public`.
    pub fn get(&self, target: &str) -> Request<'_> {
        self.request("GET", target)
    }

    pub fn post(&self, target: &str) -> Request<'_> {
        self.request("POST", target)
    }

    pub fn request(&self, method: &str, target: &str) -> Request<'_> {
        Request::to(self.address(), method, target)
    }

    /// `POST` to the admin listener.
    pub fn admin_post(&self, target: &str, body: &str) -> Response {
        Request::to(self.listener("admin"), "POST", target).host("localhost").body(body).send()
    }

    /// `GET` to the admin listener.
    pub fn admin(&self, target: &str) -> Response {
        Request::to(self.listener("admin"), "GET", target).host("localhost").send()
    }

    /// The value of a series of its metrics, if there is one.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("/metrics").expect(200).text();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// A connection to the listener `public`.
    pub fn connect(&self) -> Connection {
        Connection::open(self.address())
    }

    /// A connection to a listener.
    pub fn connect_to(&self, listener: &str) -> Connection {
        Connection::open(self.listener(listener))
    }

    /// A TLS connection to the listener `public`.
    pub fn connect_tls(&self, name: &str, config: ClientConfig) -> std::io::Result<Connection> {
        Connection::tls(self.address(), name, config)
    }

    /// An HTTP/2 connection without TLS, by prior knowledge.
    pub fn h2c(&self) -> H2 {
        H2::plain(self.address().tcp())
    }

    /// An HTTP/2 connection over TLS.
    pub fn h2(&self, name: &str, config: ClientConfig) -> H2 {
        H2::tls(self.address().tcp(), name, config)
    }

    /// Sends bytes on a connection of their own; gives everything that came back, and whether the gateway closed.
    pub fn raw(&self, bytes: impl AsRef<[u8]>) -> (Vec<u8>, bool) {
        let mut connection = self.connect();
        connection.send_raw(bytes);
        connection.rest(DEADLINE)
    }

    /// The address of the listener `public`.
    #[track_caller]
    pub fn address(&self) -> &Address {
        self.listener("public")
    }

    /// The address of a listener by its name.
    #[track_caller]
    pub fn listener(&self, name: &str) -> &Address {
        self.listeners.get(name).unwrap_or_else(|| panic!("no listener {name:?} in {:?}", self.listeners))
    }

    /// Waits for a line of the access log.
    #[track_caller]
    pub fn logged(&self, what: &str, mut find: impl FnMut(&Value) -> bool) -> Value {
        self.log.wait_for(&format!("a log line: {what}"), |lines| lines.iter().find(|line| find(line)).cloned())
    }

    /// Waits for so many lines of the access log.
    #[track_caller]
    pub fn logged_lines(&self, count: usize) -> Vec<Value> {
        self.log.wait_for("lines of the access log", |lines| (lines.len() >= count).then(|| lines.to_vec()))
    }

    /// Waits for a line of its standard error with these words.
    #[track_caller]
    pub fn says(&self, words: &str) -> String {
        self.errors.wait_for(words, |lines| lines.iter().find(|line| line.contains(words)).cloned())
    }

    /// What it wrote to standard error so far.
    pub fn errors(&self) -> Vec<String> {
        self.errors.all()
    }

    /// The test's own folder.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Its process, for `/proc`.
    pub fn pid(&self) -> u32 {
        *self.successors.lock().unwrap_or_else(|e| e.into_inner()).last().unwrap_or(&self.child.id())
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it runs");
        let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("statm has numbers");
        pages * rustix::param::page_size() as u64
    }

    /// TERM: stop when the requests in flight are done.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// INT: stop now.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(pid(self.pid()), signal).expect("our process can be signalled");
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended; whether it ended well.
    #[track_caller]
    pub fn ended(&mut self) -> bool {
        eventually("the gateway's end", || self.child.try_wait().ok().flatten()).success()
    }

    #[track_caller]
    fn wait_until_ready(&mut self) {
        let child = &mut self.child;
        let lines = eventually("`ready`", || {
            let lines = self.errors.all();
            if lines.iter().any(|line| line.trim_end().ends_with("ready")) {
                return Some(Ok(lines));
            }
            let ended = child.try_wait().ok().flatten()?;
            Some(Err(format!("the gateway ended ({ended}):\n{}", lines.join("\n"))))
        });
        let lines = lines.unwrap_or_else(|said| panic!("{said}"));
        for line in lines {
            let word = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            if let (Some(name), Some(address)) = (word("name"), word("address")) {
                let address = match address.strip_prefix("unix:") {
                    Some(path) => Address::Unix(path.into()),
                    None => Address::Tcp(address.parse().unwrap_or_else(|e| panic!("{address}: {e}"))),
                };
                self.listeners.insert(name.to_owned(), address);
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for successor in self.successors.get_mut().unwrap_or_else(|e| e.into_inner()) {
            let _ = kill_process(pid(*successor), Signal::KILL);
        }
        if thread::panicking() {
            let mut said = String::new();
            for line in self.errors.all() {
                let _ = writeln!(said, "gateway: {line}");
            }
            for line in self.log.all() {
                let _ = writeln!(said, "access:  {line}");
            }
            eprint!("{said}");
        }
    }
}

fn pid(number: u32) -> Pid {
    number.try_into().ok().and_then(Pid::from_raw).expect("a process has a number")
}
