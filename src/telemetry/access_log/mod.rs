//! One line per request, also for what the HTTP parser refused.
//!
//! ```toml
//! [log]
//! access = { to = "stdout", format = "json", buffer = "4MiB" }     # to = "off", { file = "…" }, { unix = "…" }
//! # fields = ["time", "method", "path", "status", "header.x-tenant"]   # all but headers, unless some are chosen
//! # format = { pattern = '{client} [{time}] "{method} {path}" {status} {bytes_out}' }
//! ```
//!
//! Formats are `json`, `logfmt` and a pattern of the operator's own; a field without a value is left out, or `-` in a
//! pattern. Fields: see [`Field`]. Header fields that hold credentials are refused. Lines are written by a thread of
//! their own: a request never waits for the disk. When the writer cannot keep up and the buffer is full, lines are
//! dropped and counted, and the count is written to the operator's log. The path is logged without its query, which
//! may hold secrets. A file that was renamed is left by a turn of the [`Rotation`], between two lines.

mod line;

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;
use serde::Deserialize;

use crate::types::Size;
use line::Layout;

pub use line::{Field, Line, Pattern};

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
    /// What they say.
    pub fields: Option<Vec<Field>>,
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

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("on standard output"),
            Self::Off => f.write_str("that is off"),
            Self::File(path) | Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// How lines look.
#[derive(Deserialize, Clone, PartialEq, Debug, Default)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An object a line.
    #[default]
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// Text with `{field}`s.
    Pattern(Pattern),
}

/// Has the files of all access logs that were opened with it opened again by their paths, which is what a tool that
/// renames them asks for.
#[derive(Clone, Default)]
pub struct Rotation(Arc<AtomicU64>);

impl Rotation {
    /// Asks for it. Within a tenth of a second, and after the lines that wait now, each log goes on in the file that
    /// has its path by then. The old file goes on when that cannot be opened.
    pub fn turn(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn turns(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The open logs of a configuration: that of the process, then those of APIs. Two that are configured alike are one.
#[derive(Default)]
pub struct Logs(Vec<(AccessLogConfig, Option<Arc<AccessLog>>)>);

impl Logs {
    /// Opens what is not open in the logs `before`. Lines that a log cannot take are counted as `dropped`.
    ///
    /// # Errors
    /// As [`AccessLog::open`], in words.
    pub fn open<'c>(
        configs: impl IntoIterator<Item = &'c AccessLogConfig>,
        before: &Self,
        rotation: &Rotation,
        dropped: &IntCounter,
    ) -> Result<Self, String> {
        let mut logs = Self::default();
        for config in configs {
            let open = logs.0.iter().chain(&before.0).find(|(other, _)| other == config);
            let log = match open {
                Some((_, log)) => log.clone(),
                None => AccessLog::open(config, rotation, dropped.clone())
                    .map_err(|error| format!("error: cannot open the access log {}: {error}", config.to))?
                    .map(Arc::new),
            };
            logs.0.push((config.clone(), log));
        }
        Ok(logs)
    }

    /// A log by its position in the configuration; `None` when it is off.
    pub fn at(&self, index: usize) -> Option<&AccessLog> {
        self.0.get(index)?.1.as_deref()
    }
}

/// A log that lines are written to.
pub struct AccessLog {
    layout: Layout,
    shared: Arc<Shared>,
    writer: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    limit: usize,
    dropped: Dropped,
}

/// Lines that were lost.
struct Dropped {
    /// By this log.
    own: AtomicU64,
    /// By all of the process.
    all: IntCounter,
}

impl Dropped {
    fn count(&self, lines: u64) {
        self.own.fetch_add(lines, Ordering::Relaxed);
        self.all.inc_by(lines);
    }
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
        Self { to: Target::default(), format: Format::default(), fields: None, buffer: four_mebibytes() }
    }
}

impl AccessLogConfig {
    fn layout(&self) -> Layout {
        let fields = || self.fields.clone().unwrap_or_else(line::all);
        match &self.format {
            Format::Json => Layout::json(&fields()),
            Format::Logfmt => Layout::logfmt(&fields()),
            Format::Pattern(pattern) => Layout::Pattern(pattern.clone()),
        }
    }
}

/// Lines wait at most this long to be written.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

impl AccessLog {
    /// Opens the log; `None` when it is off. Lines that it cannot take are counted as `dropped`.
    ///
    /// # Errors
    /// The file cannot be opened, or the thread not started.
    pub fn open(config: &AccessLogConfig, rotation: &Rotation, dropped: IntCounter) -> io::Result<Option<Self>> {
        // Before the file is opened: a turn between the two opens it once more.
        let (rotation, turns, name) = (rotation.clone(), rotation.turns(), config.to.to_string());
        let sink = match &config.to {
            Target::Off => return Ok(None),
            Target::Stdout => Sink::Stdout,
            Target::File(path) => Sink::File(path.clone(), open_file(path)?),
            Target::Unix(path) => Sink::Unix(path.clone(), None),
        };
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            limit: config.buffer.as_usize(),
            dropped: Dropped { own: AtomicU64::new(0), all: dropped },
        });
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write(&theirs, &name, sink, &rotation, turns))?;
        Ok(Some(Self { layout: config.layout(), shared, writer: Some(writer) }))
    }

    /// Writes a line, or counts it as dropped.
    pub fn write(&self, line: &Line<'_>) {
        thread_local! {
            static TEXT: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
        }
        TEXT.with_borrow_mut(|text| {
            text.clear();
            self.layout.render(line, text);
            let mut waiting = self.shared.waiting.lock();
            if waiting.lines.len() + text.len() > self.shared.limit {
                self.shared.dropped.count(1);
                return;
            }
            waiting.lines.extend_from_slice(text.as_bytes());
            if waiting.lines.len() > self.shared.limit / 2 {
                self.shared.wake.notify_one();
            }
        });
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
    File(PathBuf, File),
    Unix(PathBuf, Option<UnixStream>),
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

fn write(shared: &Shared, name: &str, mut sink: Sink, rotation: &Rotation, mut turns: u64) {
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
        let asked = rotation.turns();
        if !lines.is_empty() {
            if let Err(error) = sink.write(&lines) {
                let lost = lines.iter().filter(|b| **b == b'\n').count() as u64;
                shared.dropped.count(lost);
                log::warn!("the access log {name} cannot be written: {error}");
            }
            lines.clear();
            lines.shrink_to(1 << 20);
        }
        if asked != turns {
            turns = asked;
            sink.open_again();
        }
        let dropped = shared.dropped.own.load(Ordering::Relaxed);
        if dropped > reported {
            log::warn!("the access log {name} dropped {} lines", dropped - reported);
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
            Self::File(_, file) => file.write_all(lines),
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

    /// Opens a file by its path; whether that is the same file or not. Streams have nothing to open.
    fn open_again(&mut self) {
        let Self::File(path, file) = self else { return };
        match open_file(path) {
            Ok(new) => {
                *file = new;
                log::info!("the access log {} was opened again", path.display());
            }
            Err(error) => log::error!(
                "the access log {} cannot be opened again, and goes on in the file as it is: {error}",
                path.display()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metrics::Metrics;

    #[test]
    fn what_a_stuck_writer_cannot_take_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.sock");
        let _never_reads = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let config = AccessLogConfig { to: Target::Unix(path), buffer: Size(2000), ..AccessLogConfig::default() };
        let dropped = Metrics::new().access_log_dropped;
        let log = AccessLog::open(&config, &Rotation::default(), dropped.clone()).unwrap().unwrap();
        for _ in 0..1000 {
            log.write(&Line { path: "/x", ..Line::default() });
        }
        assert!(dropped.get() > 0);
    }
}
