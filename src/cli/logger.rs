//! The operator's log: lines on standard error.
//!
//! ```toml
//! [log]
//! level = "info"                  # error, warn, info, debug, trace
//! ```
//!
//! The environment's `PORTCULLIS_LOG` has the last word, for looking into a running system without a change of its
//! file.

use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

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

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What Pingora reports of single requests is in the access log.
        metadata.target().starts_with("portcullis") || log::max_level() >= LevelFilter::Debug
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            eprintln!("{}: {}", record.level().as_str().to_ascii_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}
