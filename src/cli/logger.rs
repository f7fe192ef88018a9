//! The operator's log: lines on standard error. `PORTCULLIS_LOG` is the level: `error`, `warn`, `info` (the
//! default), `debug`.

use log::{LevelFilter, Log, Metadata, Record};

struct Logger;

/// Installs the logger.
pub(super) fn install() {
    let level = std::env::var("PORTCULLIS_LOG").ok().and_then(|level| level.parse().ok());
    if log::set_logger(&Logger).is_ok() {
        log::set_max_level(level.unwrap_or(LevelFilter::Info));
    }
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
