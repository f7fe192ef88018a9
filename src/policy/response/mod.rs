//! `response`: shapes the head of what the client gets.
//!
//! ```toml
//! response = { headers = { remove = ["X-Powered-By", "X-Internal-*"], set = { X-Request-Id = "{request.id}" } } }
//! ```
//!
//! It also sees the gateway's own answers, if the request came as far as this policy.

use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use super::edits::{Edits, EditsConfig};
use super::{Policy, Scope};
use crate::build::Build;
use crate::facts::{Facts, Values};

/// `response` as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    headers: EditsConfig,
}

/// The compiled policy.
pub struct Response {
    edits: Edits,
}

impl Policy for Response {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        Edits::compile(&config.headers, scope, build).map(|edits| Self { edits })
    }

    fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, facts: &Facts) {
        self.edits.apply(head, &Values { request, facts });
    }
}
