//! `timeout`: how long the requests of a route may take, in the place of what their upstream says.
//!
//! ```toml
//! timeout = "2s"                                       # short form of { total = "2s" }
//! timeout = { connect = "200ms", first_byte = "1s", idle = "10s", total = "30s" }
//! ```
//!
//! Each key that is given takes the place of the same key of the upstream's `timeouts`, and means the same.

use std::time::Duration;

use serde::Deserialize;

use super::{Policy, Scope, Terms};
use crate::build::{Build, Node, Value};
use crate::types::Timespan;

/// `timeout` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    connect: Option<Timespan>,
    first_byte: Option<Timespan>,
    idle: Option<Timespan>,
    total: Option<Timespan>,
}

/// The longest that things may take, as far as the route says.
#[derive(Clone, Copy, Default)]
pub struct Timeout {
    /// Connecting.
    pub connect: Option<Duration>,
    /// From the end of the request to the head of its answer.
    pub first_byte: Option<Duration>,
    /// Silence between the parts of an answer.
    pub idle: Option<Duration>,
    /// The whole exchange.
    pub total: Option<Duration>,
}

impl Policy for Timeout {
    type Config = Config;

    /// A text is the total.
    fn long(short: &Node) -> Option<Node> {
        matches!(short.value, Value::String(_)).then(|| short.clone().under("total"))
    }

    fn compile(config: Config, _: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let mut checked = |key, time: Option<Timespan>| {
            if time.is_some_and(|time| time.0.is_zero()) {
                build.error(key, "no time at all would fail every request");
            }
            time.map(Duration::from)
        };
        let timeout = Self {
            connect: checked("connect", config.connect),
            first_byte: checked("first_byte", config.first_byte),
            idle: checked("idle", config.idle),
            total: checked("total", config.total),
        };
        (build.errors() == before).then_some(timeout)
    }

    fn settle(&self, terms: &mut Terms) {
        terms.timeout = *self;
    }
}
