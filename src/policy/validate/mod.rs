//! `validate`: what a request may be like.
//!
//! ```toml
//! validate = { max_body = "1MiB" }
//! validate = { query = { page = { type = "integer", minimum = 1 } }, headers = { X-Tenant = { required = true, pattern = "^[a-z]+$" } } }
//! validate = { openapi = "users.yaml" }    # the operation with the route's method and path
//! validate = { openapi = { file = "users.yaml", operation = "getUser" }, report_only = true }
//! ```
//!
//! A body that is said to be longer than `max_body` is refused before an upstream is asked. One of unknown length is
//! counted while it is passed on: when it grows too long the exchange with the upstream is cut, which never gets more than
//! `max_body` of it. The listener's own `limits.max_body` holds as well. A body that is checked is held, and so has at most
//! [`HELD`](crate::body::HELD) bytes where `max_body` says nothing else.
//!
//! Parameters and bodies are held to JSON Schemas: see [`crate::body::schema`] and [`crate::body::parameter`]. With
//! `report_only` what is wrong is logged and counted, and the request goes on; `max_body` holds nevertheless.

mod config;

use std::sync::Arc;

use http::Method;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use pingora_http::RequestHeader;

use super::{Policy, Scope, Terms, Verdict};
use crate::body::Held;
use crate::body::media::Range;
use crate::body::openapi::{BodyRules, Rules};
use crate::body::parameter::{Given, Parameter};
use crate::body::schema::Schema;
use crate::build::Build;
use crate::facts::{Facts, check_length};
use crate::reply::{At, Fault, Reply};

pub use config::Config;

/// How many things a client is told of.
const MOST_FAULTS: usize = 20;

/// The compiled policy.
pub struct Validate {
    max_body: Option<u64>,
    report_only: bool,
    /// What the configuration itself says of parameters.
    parameters: Vec<Parameter>,
    /// What it says of bodies.
    body: Option<BodyRules>,
    /// What an OpenAPI document says; `None` without one.
    operations: Option<Vec<Selected>>,
}

/// An operation of a document that the route's requests are held to.
struct Selected {
    /// The method of those; `None` for all.
    method: Option<Method>,
    rules: Arc<Rules>,
    /// Which captures of the route are those of the operation's path.
    captures: Vec<usize>,
}

impl Policy for Validate {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        config::compile(config, scope, build)
    }

    fn settle(&self, terms: &mut Terms) {
        terms.max_body = self.max_body;
        terms.holds_body |= self.holds_bodies();
    }

    fn body(&self, body: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        if !self.needs_body(&request.method) {
            return Ok(());
        }
        let verdict = body.content().and_then(|content| {
            let content_type = body.content_type().map(|kind| kind.to_str().unwrap_or(""));
            self.check_body(&request.method, content_type, &content)
        });
        self.judge(verdict, facts)
    }

    async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        if let Some(most) = self.max_body {
            check_length(request, most)?;
        }
        let verdict = self.check_head(request, facts);
        self.judge(verdict, facts)
    }
}

impl Validate {
    /// Whether a request's body has to be held and checked before the request goes on.
    pub fn needs_body(&self, method: &Method) -> bool {
        self.body_rules(method).any(|rules| rules.required || rules.contents.iter().any(|(_, schema)| schema.is_some()))
    }

    /// Checks a whole body. The content type is the request's, and the body is without a content coding.
    ///
    /// # Errors
    /// The answer: 400 or 415. Give it to [`Validate::judge`].
    pub fn check_body(&self, method: &Method, content_type: Option<&str>, body: &[u8]) -> Result<(), Reply> {
        for rules in self.body_rules(method) {
            if body.is_empty() && content_type.is_none() {
                if rules.required {
                    let fault = Fault { at: At::Pointer("#".to_owned()), detail: "is missing".to_owned() };
                    return Err(invalid(vec![fault]));
                }
                continue;
            }
            let Some((_, schema)) = content(rules, content_type) else { return Err(unsupported(rules, content_type)) };
            let Some(schema) = schema else { continue };
            schema.check(body, MOST_FAULTS).map_err(|violations| {
                let faults = violations.into_iter();
                invalid(faults.map(|fault| Fault { at: At::Pointer(fault.pointer), detail: fault.message }).collect())
            })?;
        }
        Ok(())
    }

    /// What comes of a check: with `report_only`, a note.
    ///
    /// # Errors
    /// The answer.
    pub fn judge(&self, verdict: Verdict, facts: &mut Facts) -> Verdict {
        match verdict {
            Err(reply) if self.report_only => {
                facts.shadowed = Some("validate");
                if facts.cause.is_none() {
                    facts.cause = reply.problem.and_then(|problem| problem.cause.clone());
                }
                Ok(())
            }
            verdict => verdict,
        }
    }

    /// Checks everything but the body.
    fn check_head(&self, request: &RequestHeader, facts: &Facts) -> Result<(), Reply> {
        let mut faults = Vec::new();
        let capture = |position: usize| facts.captures.text(position, request.uri.path());
        check_all(&self.parameters, &given(request, &capture), &mut faults);
        if let Some(operations) = &self.operations {
            let Some(selected) = select(operations, &request.method) else {
                let refused = Reply::method_not_allowed(format!("there is no operation {} here", request.method));
                return Err(refused.allow(&allowed(operations)));
            };
            let theirs = |position: usize| selected.captures.get(position).map_or("", |own| capture(*own));
            check_all(&selected.rules.parameters, &given(request, &theirs), &mut faults);
        }
        if !faults.is_empty() {
            faults.truncate(MOST_FAULTS);
            return Err(invalid(faults));
        }
        self.check_content(request)
    }

    /// Checks what is said of the body.
    fn check_content(&self, request: &RequestHeader) -> Result<(), Reply> {
        let kind = request.headers.get(CONTENT_TYPE);
        let has_body = kind.is_some()
            || request.headers.contains_key(TRANSFER_ENCODING)
            || request.headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
        if !has_body {
            return Ok(());
        }
        let kind = kind.map(|kind| kind.to_str().unwrap_or(""));
        if let Some(rules) = self.body_rules(&request.method).find(|rules| content(rules, kind).is_none()) {
            return Err(unsupported(rules, kind));
        }
        Ok(())
    }

    fn body_rules(&self, method: &Method) -> impl Iterator<Item = &BodyRules> {
        let selected = self.operations.as_deref().and_then(|operations| select(operations, method));
        self.body.iter().chain(selected.and_then(|selected| selected.rules.body.as_ref()))
    }
}

/// The operation for a method; that for GET takes HEAD too.
fn select<'o>(operations: &'o [Selected], method: &Method) -> Option<&'o Selected> {
    let of = |method: &Method| operations.iter().find(|selected| selected.method.as_ref().is_none_or(|m| m == method));
    of(method).or_else(|| if *method == Method::HEAD { of(&Method::GET) } else { None })
}

/// The methods of operations, as in `Allow`.
fn allowed(operations: &[Selected]) -> String {
    let mut methods: Vec<&str> =
        operations.iter().filter_map(|selected| Some(selected.method.as_ref()?.as_str())).collect();
    if methods.contains(&"GET") && !methods.contains(&"HEAD") {
        methods.push("HEAD");
    }
    methods.join(", ")
}

fn given<'r>(request: &'r RequestHeader, capture: &'r dyn Fn(usize) -> &'r str) -> Given<'r> {
    Given { query: request.uri.query(), headers: &request.headers, capture }
}

fn check_all(parameters: &[Parameter], given: &Given<'_>, faults: &mut Vec<Fault>) {
    for parameter in parameters {
        if faults.len() >= MOST_FAULTS {
            return;
        }
        let Err(wrong) = parameter.check(given, MOST_FAULTS) else { continue };
        let name = || parameter.name().to_owned();
        let at = || if parameter.is_header() { At::Header(name()) } else { At::Parameter(name()) };
        faults.extend(wrong.into_iter().map(|detail| Fault { at: at(), detail }));
    }
}

/// What a content type stands for: the nearest of several.
fn content<'r>(rules: &'r BodyRules, content_type: Option<&str>) -> Option<&'r (Range, Option<Arc<Schema>>)> {
    let media = content_type.unwrap_or("").as_bytes();
    rules.contents.iter().max_by_key(|(range, _)| range.rank(media)).filter(|(range, _)| range.rank(media) > 0)
}

fn unsupported(rules: &BodyRules, content_type: Option<&str>) -> Reply {
    let known: Vec<&str> = rules.contents.iter().map(|(range, _)| range.as_str()).collect();
    let known = known.join(", ");
    match content_type {
        Some(_) => Reply::unsupported_media_type(format!("the body must be {known}")),
        None => Reply::unsupported_media_type(format!("the body has no Content-Type; it must be {known}")),
    }
}

/// A 400 that lists what is wrong.
fn invalid(faults: Vec<Fault>) -> Reply {
    let place = |at: &At| match at {
        At::Pointer(pointer) => format!("body {pointer}"),
        At::Parameter(name) | At::Header(name) => name.clone(),
    };
    let first = faults.first().map(|fault| format!("{}: {}", place(&fault.at), fault.detail)).unwrap_or_default();
    let detail = match faults.len() {
        1 => "one thing is wrong, see `errors`".to_owned(),
        many => format!("{many} things are wrong, see `errors`"),
    };
    Reply::invalid_request(detail).because(first).listing(&faults)
}

#[cfg(test)]
mod tests;
