//! A real Redis, and servers that only claim to be one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Part, eventually, free_port, output};

/// A Redis that keeps nothing on disk, ended with the test.
pub struct Redis {
    part: Option<Part>,
    port: u16,
    arguments: Vec<String>,
    password: Option<String>,
    dir: TempDir,
}

impl Redis {
    #[track_caller]
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With arguments of `redis-server`; `@dir` in them stands for its folder.
    #[track_caller]
    pub fn with(arguments: &[&str]) -> Self {
        Self::of(arguments, tempfile::tempdir().expect("a folder"))
    }

    /// With arguments, and a folder that has files in it.
    #[track_caller]
    pub fn of(arguments: &[&str], dir: TempDir) -> Self {
        let of = |name: &str| arguments.iter().position(|word| *word == name).map(|i| arguments[i + 1].to_owned());
        let password = of("--requirepass");
        let port = free_port();
        let arguments = arguments.iter().map(|word| word.replace("@dir", &dir.path().display().to_string())).collect();
        let mut redis = Self { part: None, port, arguments, password, dir };
        redis.begin();
        redis
    }

    /// Starts it at its port, with nothing in it.
    #[track_caller]
    pub fn begin(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        command.args(&self.arguments).current_dir(self.dir.path());
        self.part = Some(Part::at_port(&mut command, self.port));
        eventually("Redis answers", || self.cli(&["ping"]).contains("PONG").then_some(()));
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.part = None;
    }

    /// Has it do nothing, with its connections open.
    pub fn pause(&self) {
        self.part().signal(Signal::STOP);
    }

    /// Has it go on.
    pub fn resume(&self) {
        self.part().signal(Signal::CONT);
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What it answers to a command.
    #[track_caller]
    pub fn cli(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-p", &self.port.to_string()]);
        if let Some(password) = &self.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        output(command.args(words)).trim_end().to_owned()
    }

    /// A number that it has of itself.
    #[track_caller]
    pub fn info(&self, name: &str) -> u64 {
        let info = self.cli(&["info"]);
        let value = info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {info}"))
    }

    fn part(&self) -> &Part {
        self.part.as_ref().expect("it was not ended")
    }
}

/// A server that is no Redis.
pub struct NoRedis {
    port: u16,
    connections: Arc<AtomicUsize>,
}

impl NoRedis {
    /// One that does this with every connection, each on a thread of its own.
    pub fn that(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("it is bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let (serve, count) = (Arc::new(serve), connections.clone());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                thread::spawn(move || serve(stream));
            }
        });
        Self { port, connections }
    }

    /// One that answers every command with these bytes, as long as anybody listens to `again`.
    pub fn saying(bytes: impl Into<Vec<u8>>, again: bool) -> Self {
        let bytes = bytes.into();
        Self::that(move |mut stream| {
            let mut buffer = [0; 4096];
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                while stream.write_all(&bytes).is_ok() && again {}
            }
        })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
