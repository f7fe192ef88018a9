//! `[server]` and `[log]`: what holds for the whole process.
//!
//! ```toml
//! [server]
//! threads      = 4                      # one a core, unless said otherwise
//! grace_period = "30s"                  # for what is under way when the process ends
//! state_dir    = "/var/lib/portcullis"  # what outlives the process; systemd's StateDirectory=, unless said otherwise
//! pid_file     = "/run/portcullis/pid"  # of the process that is the gateway
//! binary       = "/usr/bin/portcullis"  # what an upgrade starts; where this process was started from, unless said otherwise
//! ```
//!
//! A change of `[server]` takes a new process.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::Deserialize;

use crate::build::Build;
use crate::gateway;
use crate::telemetry::access_log::AccessLogConfig;
use crate::types::Timespan;

const GRACE: Duration = Duration::from_secs(30);

/// `[server]` and `[log]`.
pub(super) struct Settings {
    /// How many workers there are.
    pub(super) threads: usize,
    /// How long requests under way may take when the process ends.
    pub(super) grace: Duration,
    /// Where the process keeps what outlives it.
    pub(super) state_dir: Option<PathBuf>,
    /// Where the process writes its number.
    pub(super) pid_file: Option<PathBuf>,
    /// What an upgrade starts.
    pub(super) binary: Option<PathBuf>,
    pub(super) level: Option<log::LevelFilter>,
    pub(super) access: AccessLogConfig,
    pub(super) trace: Option<TraceSettings>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ServerConfig {
    threads: Option<u16>,
    grace_period: Option<Timespan>,
    state_dir: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    binary: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct LogConfig {
    level: Option<Level>,
    access: AccessLogConfig,
}

/// `[trace]`.
#[derive(Clone, PartialEq)]
pub(super) struct TraceSettings {
    pub(super) endpoint: Uri,
    pub(super) sample: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TraceConfig {
    endpoint: String,
    #[serde(default = "a_tenth")]
    sample: f64,
}

fn a_tenth() -> f64 {
    0.1
}

/// `None` after every mistake was reported.
fn trace(build: &mut Build<'_>) -> Option<TraceSettings> {
    let config: TraceConfig = build.deserialize()?;
    if !(0.0..=1.0).contains(&config.sample) {
        build.error("sample", "the share of requests is from 0 to 1").help("write 0.1 for a tenth of them");
        return None;
    }
    let endpoint = config.endpoint.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    if endpoint.is_none() {
        build
            .error("endpoint", format!("`{}` is not the address of a collector", config.endpoint))
            .help("write \"http://127.0.0.1:4318\"; `/v1/traces` is added to it");
    }
    Some(TraceSettings { endpoint: endpoint?, sample: config.sample })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MetricsConfig {
    max_series: u32,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { max_series: 10_000 }
    }
}

/// How many series there may be of routes, servers, listeners and stores. `None` after every mistake in `[metrics]` was
/// reported.
pub(super) fn max_series(build: &mut Build<'_>) -> Option<usize> {
    let config = match build.node().get("metrics") {
        Some(node) => build.within_node(node, |build| {
            let config: MetricsConfig = build.deserialize()?;
            if config.max_series == 0 {
                build.error("max_series", "without series nothing would be told apart");
                return None;
            }
            Some(config)
        })?,
        None => MetricsConfig::default(),
    };
    usize::try_from(config.max_series).ok()
}

/// How much the operator's log says.
#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for log::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

impl Settings {
    /// `None` after every mistake was reported.
    pub(super) fn compile(build: &mut Build<'_>) -> Option<Self> {
        let root = build.node();
        let server: Option<ServerConfig> = match root.get("server") {
            Some(node) => build.within_node(node, |build| {
                let mut config: ServerConfig = build.deserialize()?;
                if config.threads.is_some_and(|threads| !(1..=1024).contains(&threads)) {
                    build.error("threads", "a gateway has 1 to 1024 threads");
                }
                for path in [&mut config.state_dir, &mut config.pid_file, &mut config.binary].into_iter().flatten() {
                    *path = build.path(path);
                }
                Some(config)
            }),
            None => Some(ServerConfig::default()),
        };
        let log: Option<LogConfig> = match root.get("log") {
            Some(node) => build.within_node(node, |build| {
                let mut config: LogConfig = build.deserialize()?;
                gateway::log::settle(&mut config.access, "access", build);
                Some(config)
            }),
            None => Some(LogConfig::default()),
        };
        let trace = match root.get("trace") {
            Some(node) => build.within_node(node, trace).map(Some),
            None => Some(None),
        };
        let (server, log, trace) = (server?, log?, trace?);
        Some(Self {
            threads: server.threads.map_or_else(cores, usize::from),
            grace: server.grace_period.map_or(GRACE, Into::into),
            state_dir: server.state_dir.or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from)),
            pid_file: server.pid_file,
            binary: server.binary,
            level: log.level.map(Into::into),
            access: log.access,
            trace,
        })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
