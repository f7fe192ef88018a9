//! `response`: shapes what the client gets: the head here, the body in [`transform`](super::transform).
//!
//! ```toml
//! response = { body = { remove = ["internal"] } }
//! response = { headers = { remove = ["X-Powered-By", "X-Internal-*"], set = { X-Request-Id = "{request.id}" } } }
//! ```
//!
//! It also sees the gateway's own answers, if the request came as far as this policy.

use std::sync::Arc;

use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use super::edits::{Edits, EditsConfig};
use super::transform::{Side, Transform, TransformConfig};
use super::{Policy, Scope, Shaped, Terms};
use crate::build::Build;
use crate::facts::{Facts, Values};

/// `response` as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    headers: EditsConfig,
    body: Option<TransformConfig>,
}

/// The compiled policy.
pub struct Response {
    edits: Edits,
    body: Option<Arc<Transform>>,
}

impl Policy for Response {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let edits = Edits::compile(&config.headers, scope, build);
        let body = config.body.as_ref();
        let body =
            body.map(|body| build.within("body", |build| Transform::compile(body, Side::Response, scope, build)));
        let body = match body {
            Some(body) => Some(Arc::new(body?)),
            None => None,
        };
        Some(Self { edits: edits?, body })
    }

    fn settle(&self, terms: &mut Terms) {
        if let Some(body) = &self.body {
            terms.reads_answers = true;
            terms.most_answer = terms.most_answer.max(body.most());
        }
    }

    fn shaper(&self, head: &ResponseHeader, request: &RequestHeader, facts: &Facts) -> Shaped {
        self.body.as_ref().map_or(Ok(None), |body| body.shaper(head, request, facts))
    }

    fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, facts: &Facts) {
        self.edits.apply(head, &Values { request, facts });
    }
}
