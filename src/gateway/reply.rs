//! Answers that a route gives without an upstream: `respond` and `redirect`.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora_http::RequestHeader;

use super::config::{RedirectConfig, RespondConfig};
use crate::build::Build;
use crate::facts::{Facts, Values};
use crate::policy::Scope;
use crate::reply::Reply;
use crate::types::template::Template;

/// A compiled answer.
pub struct Canned {
    kind: &'static str,
    status: StatusCode,
    /// Where a redirect leads.
    location: Option<Template>,
    headers: Vec<(HeaderName, Template)>,
    body: Template,
}

impl Canned {
    /// Compiles `respond`; `None` after every mistake was reported.
    pub(super) fn respond(config: &RespondConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let status = StatusCode::from_u16(config.status).ok().filter(|_| (200..=599).contains(&config.status));
        if status.is_none() {
            build.error("status", "the status of an answer is a number from 200 to 599");
        }
        let mut headers = Vec::new();
        for (name, text) in &config.headers {
            let key = format!("headers.{name}");
            let header = name.parse::<HeaderName>().ok();
            if header
                .as_ref()
                .is_none_or(|name| ["content-length", "transfer-encoding", "connection"].contains(&name.as_str()))
            {
                build.error(&key, format!("`{name}` cannot be set here"));
            }
            match Template::parse_with(text, scope.names()) {
                Ok(template) => headers.extend(header.map(|header| (header, template))),
                Err(error) => drop(build.error(&key, error)),
            }
        }
        if !config.body.is_empty() && !headers.iter().any(|(name, _)| name == CONTENT_TYPE) {
            headers.push((CONTENT_TYPE, Template::parse("text/plain; charset=utf-8", &[]).ok()?));
        }
        let body = match Template::parse_with(&config.body, scope.names()) {
            Ok(body) => Some(body),
            Err(error) => {
                build.error("body", error);
                None
            }
        };
        (build.errors() == before).then_some(Self {
            kind: "respond",
            status: status?,
            location: None,
            headers,
            body: body?,
        })
    }

    /// Compiles `redirect`; `None` after every mistake was reported.
    pub(super) fn redirect(config: &RedirectConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        if ![301, 302, 303, 307, 308].contains(&config.status) {
            build.error("status", "a redirect has the status 301, 302, 303, 307 or 308");
        }
        let to = match Template::parse_with(&config.to, scope.names()) {
            Ok(to) => Some(to),
            Err(error) => {
                build.error("to", error);
                None
            }
        };
        if (build.errors()) > before {
            return None;
        }
        let body = Template::parse("", &[]).ok()?;
        Some(Self {
            kind: "redirect",
            status: StatusCode::from_u16(config.status).ok()?,
            location: Some(to?),
            headers: Vec::new(),
            body,
        })
    }

    /// `respond` or `redirect`.
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The answer to one request.
    pub fn reply(&self, request: &RequestHeader, facts: &Facts) -> Reply {
        let values = Values { request, facts };
        let mut reply = Reply::new(self.status);
        if let Some(location) = &self.location {
            let Some(location) = location.render_reference(&values) else {
                return Reply::bad_request("a value of the request would lead the redirect elsewhere");
            };
            if let Ok(location) = HeaderValue::from_bytes(&location) {
                reply = reply.with(LOCATION, location);
            }
        }
        for (name, template) in &self.headers {
            let value = template.render(&values);
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                reply = reply.with(name.clone(), value);
            }
        }
        reply.body = match self.body.constant() {
            Some(text) => Bytes::copy_from_slice(text.as_bytes()),
            None => Bytes::from(self.body.render(&values)),
        };
        reply
    }
}
