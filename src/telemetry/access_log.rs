//! One line per request, also for what the HTTP parser refused.
//!
//! ```toml
//! [log]
//! access = { to = "stdout", format = "json", buffer = "4MiB" }     # to = "off", { file = "…" }, { unix = "…" }
//! ```
//!
//! Formats are `json` and `logfmt`. Lines are written by a thread of their own: a request never waits for the disk.
//! When the writer cannot keep up and the buffer is full, lines are dropped and counted, and the count is written
//! to the operator's log. The path is logged without its query, which may hold secrets.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use serde::Deserialize;

use crate::types::Size;

/// `access` of `[log]`.
#[derive(Deserialize, Clone, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
pub struct AccessLogConfig {
    /// Where lines go.
    #[serde(default)]
    pub to: Target,
    /// How they look.
    #[serde(default)]
    pub format: Format,
    /// How much may wait to be written.
    #[serde(default = "four_mebibytes")]
    pub buffer: Size,
}

/// Where lines go.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Standard output.
    #[default]
    Stdout,
    /// Nowhere.
    Off,
    /// The end of a file.
    File(PathBuf),
    /// A stream socket.
    Unix(PathBuf),
}

/// How lines look.
#[derive(Deserialize, Clone, Copy, PartialEq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An object a line.
    #[default]
    Json,
    /// `key=value` pairs.
    Logfmt,
}

/// The facts of one request.
#[derive(Default)]
pub struct Line<'a> {
    /// When it ended.
    pub time: Option<SystemTime>,
    /// The listener's name.
    pub listener: &'a str,
    /// Who asked.
    pub client: Option<std::net::IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The host.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// `HTTP/1.1` or another version.
    pub protocol: &'a str,
    /// The status of the answer; 499 when the client left before it.
    pub status: u16,
    /// The route's name.
    pub route: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The server that was asked last.
    pub server: &'a str,
    /// How often a server was asked.
    pub attempts: u32,
    /// From the head of the request to the end of the answer.
    pub duration: Option<Duration>,
    /// From the last attempt to the head of its answer.
    pub first_byte: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The request's id.
    pub request_id: &'a str,
    /// The version of TLS.
    pub tls: &'a str,
    /// The client's program.
    pub user_agent: &'a str,
    /// Who answered instead of an upstream.
    pub stopped_by: &'a str,
    /// Why the request never became one.
    pub refused: &'a str,
    /// What went wrong.
    pub cause: &'a str,
}

/// A log that lines are written to.
pub struct AccessLog {
    format: Format,
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    limit: usize,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    closed: bool,
}

fn four_mebibytes() -> Size {
    Size::kib(4096)
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self { to: Target::default(), format: Format::default(), buffer: four_mebibytes() }
    }
}

/// Lines wait at most this long to be written.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

impl AccessLog {
    /// Opens the log; `None` when it is off.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn open(config: &AccessLogConfig) -> io::Result<Option<Self>> {
        let sink = match &config.to {
            Target::Off => return Ok(None),
            Target::Stdout => Sink::Stdout,
            Target::File(path) => Sink::File(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?),
            Target::Unix(path) => Sink::Unix(path.clone(), None),
        };
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            limit: config.buffer.as_usize(),
            dropped: AtomicU64::new(0),
        });
        let theirs = shared.clone();
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&theirs, sink))?;
        Ok(Some(Self { format: config.format, shared, writer: Some(writer) }))
    }

    /// Writes a line, or counts it as dropped.
    pub fn write(&self, line: &Line<'_>) {
        thread_local! {
            static TEXT: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
        }
        TEXT.with_borrow_mut(|text| {
            text.clear();
            line.render(self.format, text);
            let mut waiting = self.shared.waiting.lock();
            if waiting.lines.len() + text.len() > self.shared.limit {
                self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            waiting.lines.extend_from_slice(text.as_bytes());
            if waiting.lines.len() > self.shared.limit / 2 {
                self.shared.wake.notify_one();
            }
        });
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for AccessLog {
    /// Writes what waits.
    fn drop(&mut self) {
        self.shared.waiting.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

enum Sink {
    Stdout,
    File(File),
    Unix(PathBuf, Option<UnixStream>),
}

fn write(shared: &Shared, mut sink: Sink) {
    let mut lines = Vec::new();
    let mut reported = 0;
    loop {
        let closed = {
            let mut waiting = shared.waiting.lock();
            if !waiting.closed {
                shared.wake.wait_for(&mut waiting, LONGEST_WAIT);
            }
            std::mem::swap(&mut lines, &mut waiting.lines);
            waiting.closed
        };
        if !lines.is_empty() {
            if let Err(error) = sink.write(&lines) {
                let lost = lines.iter().filter(|b| **b == b'\n').count() as u64;
                shared.dropped.fetch_add(lost, Ordering::Relaxed);
                log::warn!("the access log cannot be written: {error}");
            }
            lines.clear();
            lines.shrink_to(1 << 20);
        }
        let dropped = shared.dropped.load(Ordering::Relaxed);
        if dropped > reported {
            log::warn!("the access log dropped {} lines", dropped - reported);
            reported = dropped;
        }
        if closed {
            return;
        }
    }
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(lines),
            Self::Unix(path, stream) => {
                if stream.is_none() {
                    let new = UnixStream::connect(path)?;
                    new.set_write_timeout(Some(Duration::from_secs(1)))?;
                    *stream = Some(new);
                }
                let result = stream.as_mut().map_or(Ok(()), |stream| stream.write_all(lines));
                if result.is_err() {
                    *stream = None;
                }
                result
            }
        }
    }
}

impl Line<'_> {
    fn render(&self, format: Format, out: &mut String) {
        let mut fields = Fields { format, out, first: true };
        fields.begin();
        fields.text("time", &timestamp(self.time.unwrap_or_else(SystemTime::now)));
        fields.text("listener", self.listener);
        if let Some(client) = self.client {
            fields.plain("client", format_args!("{client}"), true);
        }
        fields.text("method", self.method);
        fields.text("host", self.host);
        fields.text("path", self.path);
        fields.text("protocol", self.protocol);
        fields.plain("status", format_args!("{}", self.status), false);
        fields.text("route", self.route);
        fields.text("upstream", self.upstream);
        fields.text("server", self.server);
        if self.attempts > 0 {
            fields.plain("attempts", format_args!("{}", self.attempts), false);
        }
        for (name, time) in [("duration_ms", self.duration), ("first_byte_ms", self.first_byte)] {
            if let Some(time) = time {
                let micros = time.as_micros();
                fields.plain(name, format_args!("{}.{:03}", micros / 1000, micros % 1000), false);
            }
        }
        fields.plain("bytes_in", format_args!("{}", self.bytes_in), false);
        fields.plain("bytes_out", format_args!("{}", self.bytes_out), false);
        fields.text("request_id", self.request_id);
        fields.text("tls", self.tls);
        fields.text("user_agent", self.user_agent);
        fields.text("stopped_by", self.stopped_by);
        fields.text("refused", self.refused);
        fields.text("cause", self.cause);
        fields.end();
    }
}

struct Fields<'o> {
    format: Format,
    out: &'o mut String,
    first: bool,
}

impl Fields<'_> {
    fn begin(&mut self) {
        if self.format == Format::Json {
            self.out.push('{');
        }
    }

    fn end(&mut self) {
        self.out.push_str(if self.format == Format::Json { "}\n" } else { "\n" });
    }

    /// Empty text is left out.
    fn text(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        self.name(name);
        let bare = |b: u8| b.is_ascii_graphic() && !b"\"=\\".contains(&b);
        if self.format == Format::Logfmt && value.bytes().all(bare) {
            self.out.push_str(value);
            return;
        }
        self.out.push('"');
        escape(value, self.out);
        self.out.push('"');
    }

    fn plain(&mut self, name: &str, value: std::fmt::Arguments<'_>, quoted: bool) {
        self.name(name);
        let quote = if quoted && self.format == Format::Json { "\"" } else { "" };
        let _ = write!(self.out, "{quote}{value}{quote}");
    }

    fn name(&mut self, name: &str) {
        let (separator, open, close) = match self.format {
            Format::Json => (",", "\"", "\":"),
            Format::Logfmt => (" ", "", "="),
        };
        if !std::mem::take(&mut self.first) {
            self.out.push_str(separator);
        }
        self.out.push_str(open);
        self.out.push_str(name);
        self.out.push_str(close);
    }
}

/// JSON's escapes (RFC 8259, section 7): no value can end its line or its quotes.
fn escape(value: &str, out: &mut String) {
    let mut rest = value;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\' || c == '\u{7f}') {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            byte => drop(write!(out, "\\u{byte:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// RFC 3339 with milliseconds; the second's part is kept from line to line.
fn timestamp(time: SystemTime) -> String {
    thread_local! {
        static SECOND: std::cell::RefCell<(u64, String)> = const { std::cell::RefCell::new((0, String::new())) };
    }
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != since.as_secs() || text.is_empty() {
            *second = since.as_secs();
            let stamp = jiff::Timestamp::from_second(i64::try_from(since.as_secs()).unwrap_or(0)).unwrap_or_default();
            *text = stamp.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        }
        format!("{text}.{:03}Z", since.subsec_millis())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn render(line: &Line<'_>, format: Format) -> String {
        let mut out = String::new();
        line.render(format, &mut out);
        out
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_line(path in ".*", agent in any::<String>()) {
            let line = Line { path: &path, user_agent: &agent, status: 200, ..Line::default() };
            let json = render(&line, Format::Json);
            prop_assert_eq!(json.matches('\n').count(), 1);
            let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(parsed["path"].as_str().unwrap_or(""), path.as_str());
            prop_assert_eq!(parsed["user_agent"].as_str().unwrap_or(""), agent.as_str());
            prop_assert_eq!(render(&line, Format::Logfmt).matches('\n').count(), 1);
        }
    }

    #[test]
    fn logfmt_quotes_what_needs_it() {
        let line = Line { path: "/a b", method: "GET", status: 200, ..Line::default() };
        let text = render(&line, Format::Logfmt);
        assert!(text.contains(" method=GET path=\"/a b\" status=200 "), "{text}");
    }

    #[test]
    fn what_a_stuck_writer_cannot_take_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        let _never_reads = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let config = AccessLogConfig { to: Target::Unix(path), buffer: Size(2000), ..AccessLogConfig::default() };
        let log = AccessLog::open(&config).unwrap().unwrap();
        for _ in 0..1000 {
            log.write(&Line { path: "/x", ..Line::default() });
        }
        assert!(log.dropped() > 0);
    }
}
