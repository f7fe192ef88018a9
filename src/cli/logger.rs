//! The operator's log: lines on standard error.
//!
//! ```toml
//! [log]
//! level = "info"                  # error, warn, info, debug, trace
//! ```
//!
//! The environment's `PORTCULLIS_LOG` has the last word, for looking into a running system without a change of its
//! file. Where standard error is systemd's journal, each line begins with its priority (`sd-daemon(3)`), which the
//! journal takes off. The lines of a message after its first are indented and control characters are escaped: nothing
//! that a message quotes can pass for a line of its own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Logger;

/// Whether standard error is the journal; looked at once.
static TO_JOURNAL: OnceLock<bool> = OnceLock::new();

/// Installs the logger.
pub(super) fn install() {
    if log::set_logger(&Logger).is_ok() {
        set_level(None);
    }
}

/// Sets the level that the configuration asks for.
pub(super) fn set_level(configured: Option<LevelFilter>) {
    let environment = std::env::var("PORTCULLIS_LOG").ok().and_then(|level| level.parse().ok());
    log::set_max_level(environment.or(configured).unwrap_or(LevelFilter::Info));
}

/// Writes a report to standard error as it is, whatever the level of the log: mistakes, warnings.
pub(super) fn report(level: Level, text: &str) {
    if !text.is_empty() {
        write(&render(level, text.trim_end(), "", is_journal()));
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What Pingora reports of single requests is in the access log.
        metadata.target().starts_with("portcullis") || log::max_level() >= LevelFilter::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let text = format!("{}: {}", record.level().as_str().to_ascii_lowercase(), record.args());
            write(&render(record.level(), text.trim_end(), "    ", is_journal()));
        }
    }

    fn flush(&self) {}
}

/// One or more lines; `indent` is what those after the first begin with.
fn render(level: Level, text: &str, indent: &str, journal: bool) -> String {
    let mut lines = String::with_capacity(text.len() + 8);
    for (number, line) in text.split('\n').enumerate() {
        if journal {
            let _ = write!(lines, "<{}>", priority(level));
        }
        if number > 0 {
            lines.push_str(indent);
        }
        for c in line.chars() {
            match c {
                '\t' => lines.push(c),
                c if c.is_control() => lines.extend(c.escape_unicode()),
                c => lines.push(c),
            }
        }
        lines.push('\n');
    }
    lines
}

/// As in `syslog(3)`.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// At once, so that another process on the same stream cannot come between.
fn write(lines: &str) {
    let _ = std::io::stderr().lock().write_all(lines.as_bytes());
}

fn is_journal() -> bool {
    *TO_JOURNAL.get_or_init(|| {
        let Ok(stderr) = rustix::fs::fstat(std::io::stderr()) else { return false };
        std::env::var("JOURNAL_STREAM").is_ok_and(|stream| is_stream(&stream, stderr.st_dev, stderr.st_ino))
    })
}

/// Whether `JOURNAL_STREAM` names this file. It is inherited also by those whose standard error is another.
fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    variable.split_once(':').is_some_and(|(dev, ino)| dev.parse() == Ok(device) && ino.parse() == Ok(inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_told_the_priority_of_every_line() {
        let text = "error: there is no upstream\n  --> portcullis.toml:1:1\n\n1 error";
        assert_eq!(
            render(Level::Error, text, "", true),
            "<3>error: there is no upstream\n<3>  --> portcullis.toml:1:1\n<3>\n<3>1 error\n"
        );
        assert_eq!(render(Level::Error, text, "", false), format!("{text}\n"));
        let levels = [(Level::Warn, '4'), (Level::Info, '6'), (Level::Debug, '7'), (Level::Trace, '7')];
        for (level, priority) in levels {
            assert_eq!(render(level, "x", "", true), format!("<{priority}>x\n"));
        }
    }

    #[test]
    fn what_a_message_quotes_is_no_line_of_its_own() {
        let text = "warn: the server says \"a\r\n<0>error: \u{1b}[31mb\u{85}\0\tc\"";
        let safe = "\\u{1b}[31mb\\u{85}\\u{0}\tc\"\n";
        assert_eq!(
            render(Level::Warn, text, "    ", false),
            format!("warn: the server says \"a\\u{{d}}\n    <0>error: {safe}")
        );
        assert_eq!(
            render(Level::Warn, text, "    ", true),
            format!("<4>warn: the server says \"a\\u{{d}}\n<4>    <0>error: {safe}")
        );
    }

    #[test]
    fn only_the_file_that_the_variable_names_is_the_journal() {
        assert!(is_stream("8:123", 8, 123));
        for other in ["", "8", "8:", "8:124", "9:123", "8:123:1", "a:b"] {
            assert!(!is_stream(other, 8, 123), "{other}");
        }
    }
}
