//! `request`: shapes what is sent to the upstream.
//!
//! ```toml
//! request = { path = "/v1/users/{path.id}", host = "users.internal", headers = { set = { X-User = "{path.id}" }, remove = ["Cookie"] }, query = { set = { lang = "en" }, remove = ["debug"] } }
//! ```
//!
//! Variables are those of [`crate::types::template`]. A capture keeps its percent-encoding, every other value is
//! encoded where it stands in a path or a query. Without `host` the upstream gets the host that the client named.

use std::collections::BTreeMap;

use http::{HeaderValue, Uri};
use pingora_http::RequestHeader;
use serde::Deserialize;

use super::edits::{Edits, EditsConfig};
use super::transform::{Side, Transform, TransformConfig};
use super::{Policy, Scope, Terms, Verdict};
use crate::body::Held;
use crate::build::Build;
use crate::facts::{Facts, Values};
use crate::reply::Reply;
use crate::types::path;
use crate::types::template::Template;

/// `request` as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    path: Option<String>,
    host: Option<String>,
    headers: EditsConfig,
    query: QueryConfig,
    body: Option<TransformConfig>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct QueryConfig {
    set: BTreeMap<String, String>,
    remove: Vec<String>,
}

/// The compiled policy.
pub struct Request {
    path: Option<Template>,
    host: Option<HeaderValue>,
    edits: Edits,
    set: Vec<(Box<str>, Template)>,
    remove: Vec<Box<str>>,
    body: Option<Box<Transform>>,
}

impl Policy for Request {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let edits = Edits::compile(&config.headers, scope, build);
        let path = config.path.as_ref().and_then(|text| path_template(text, scope, build));
        let host = config.host.as_ref().and_then(|text| match text.parse::<http::uri::Authority>() {
            Ok(authority) if !authority.as_str().contains('@') => HeaderValue::from_str(text).ok(),
            _ => {
                build.error("host", format!("`{text}` is not a host, with or without a port"));
                None
            }
        });
        let mut set = Vec::new();
        for (name, text) in &config.query.set {
            match Template::parse_with(text, scope.names()) {
                Ok(template) => set.push((encode(name).into(), template)),
                Err(error) => drop(build.error(&format!("query.set.{name}"), error)),
            }
        }
        let remove = config.query.remove.iter().map(|name| name.as_str().into()).collect();
        let body = config.body.as_ref();
        let body = body.map(|body| build.within("body", |build| Transform::compile(body, Side::Request, scope, build)));
        (build.errors() == before).then_some(Self {
            path,
            host,
            edits: edits?,
            set,
            remove,
            body: body.flatten().map(Box::new),
        })
    }

    fn settle(&self, terms: &mut Terms) {
        terms.sets_path = self.path.is_some();
        terms.holds_body |= self.body.is_some();
    }

    fn body(&self, body: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        self.body.as_ref().map_or(Ok(()), |transform| transform.request(body, request, facts))
    }

    fn upstream(&self, head: &mut RequestHeader, request: &RequestHeader, facts: &Facts) -> Verdict {
        let values = Values { request, facts };
        if self.path.is_some() || !self.set.is_empty() || !self.remove.is_empty() {
            let target = self.target(head, &values)?;
            let mut parts = head.uri.clone().into_parts();
            parts.path_and_query = target.parse().ok();
            match (parts.path_and_query.is_some(), Uri::from_parts(parts)) {
                (true, Ok(uri)) => head.set_uri(uri),
                _ => return Err(Reply::bad_request("the request cannot be rewritten for the upstream")),
            }
        }
        if let Some(host) = &self.host {
            if let (Some(_), Ok(authority)) = (head.uri.authority(), host.to_str()) {
                let mut parts = head.uri.clone().into_parts();
                parts.authority = authority.parse().ok();
                if let Ok(uri) = Uri::from_parts(parts) {
                    head.set_uri(uri);
                }
            }
            let _ = head.insert_header("Host", host.clone());
        }
        self.edits.apply(head, &values);
        Ok(())
    }
}

impl Request {
    /// The target, made of that which would be sent.
    fn target(&self, head: &RequestHeader, values: &Values<'_>) -> Result<String, Reply> {
        let path = match &self.path {
            // The base path of an API is not in it any more.
            None => head.uri.path().to_owned(),
            Some(template) => {
                let path = String::from_utf8(template.render_path(values)).unwrap_or_default();
                // A value must not climb out of where the template puts it.
                if path.split('/').any(|segment| matches!(segment, "." | "..")) {
                    return Err(Reply::bad_request(
                        "a value of the request makes a dot segment in the upstream's path",
                    ));
                }
                match path::normalize(&path) {
                    Ok(normal) => normal.into_owned(),
                    Err(error) => return Err(Reply::bad_request(error.to_string())),
                }
            }
        };
        let mut target = path;
        let mut separator = '?';
        let dropped = |name: &str| {
            let name = form_urlencoded::parse(name.as_bytes()).next().map(|(name, _)| name).unwrap_or_default();
            self.remove.iter().any(|removed| **removed == *name)
                || self.set.iter().any(|(set, _)| **set == *encode(&name))
        };
        for pair in head.uri.query().unwrap_or("").split('&').filter(|pair| !pair.is_empty()) {
            if !dropped(pair.split('=').next().unwrap_or("")) {
                target.push(separator);
                target.push_str(pair);
                separator = '&';
            }
        }
        for (name, template) in &self.set {
            target.push(separator);
            target.push_str(name);
            target.push('=');
            target.push_str(&String::from_utf8_lossy(&template.render_query(values)));
            separator = '&';
        }
        Ok(target)
    }
}

fn path_template(text: &str, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Template> {
    match Template::parse_with(text, scope.names()) {
        Ok(template) if template.prefix().starts_with('/') && !text.contains('?') => Some(template),
        Ok(template) if template.constant().is_none() && text == "{path}" => Some(template),
        Ok(_) => {
            build.error("path", "a path begins with `/` and has no `?`").help("`query` is for the parameters");
            None
        }
        Err(error) => {
            build.error("path", error);
            None
        }
    }
}

fn encode(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}
