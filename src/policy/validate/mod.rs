//! `validate`: what a request may be like.
//!
//! ```toml
//! validate = { max_body = "1MiB" }
//! ```
//!
//! A body that is said to be longer is refused before an upstream is asked. One of unknown length is counted while it
//! is passed on: when it grows too long the exchange with the upstream is cut, which never gets more than `max_body`
//! of it. The listener's own `limits.max_body` holds as well.

use pingora_http::RequestHeader;
use serde::Deserialize;

use super::{Policy, Scope, Terms, Verdict};
use crate::build::Build;
use crate::facts::{Facts, check_length};
use crate::types::{Reserved, Size};

/// `validate` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    max_body: Size,
    #[serde(default, rename = "body")]
    _body: Reserved,
    #[serde(default, rename = "openapi")]
    _openapi: Reserved,
}

/// The compiled policy.
pub struct Validate {
    max_body: u64,
}

impl Policy for Validate {
    type Config = Config;

    fn compile(config: Config, _: &Scope<'_>, _: &mut Build<'_>) -> Option<Self> {
        Some(Self { max_body: config.max_body.0 })
    }

    fn settle(&self, terms: &mut Terms) {
        terms.max_body = Some(self.max_body);
    }

    async fn request(&self, request: &mut RequestHeader, _: &mut Facts) -> Verdict {
        check_length(request, self.max_body)
    }
}
