//! Where requests are logged: all in `[log]`, or those of an API in a log of their own.
//!
//! ```toml
//! [api.mobile]
//! log = { access = { to = { file = "/var/log/portcullis/mobile.log" } } }     # the keys of `access` in [log]
//! ```
//!
//! A request is in one log: in that of the API whose route took it, or else in that of the process.

use serde::Deserialize;

use crate::build::Build;
use crate::telemetry::access_log::{AccessLogConfig, Format, Target};

/// `log` of an API, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogConfig {
    pub access: AccessLogConfig,
}

/// Takes the paths of an access log, which stands `at` a key, from where its file is, and reports what contradicts itself.
pub fn settle(config: &mut AccessLogConfig, at: &str, build: &mut Build<'_>) {
    if let Target::File(path) | Target::Unix(path) = &mut config.to {
        *path = build.path(path);
    }
    if matches!(config.format, Format::Pattern(_)) && config.fields.is_some() {
        build
            .error(&format!("{at}.fields"), "a pattern says itself which fields a line has")
            .help("remove `fields`, or choose the format \"json\" or \"logfmt\"");
    }
}
