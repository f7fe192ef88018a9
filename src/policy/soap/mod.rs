//! `soap`: JSON for clients of a SOAP service, and SOAP for clients of a JSON service, by operation.
//!
//! ```toml
//! # JSON → SOAP
//! soap = { call = { operation = "GetOrder", namespace = "urn:orders", action = "urn:orders#Get", body = { id = "{path.id}" } } }
//!
//! # SOAP → JSON
//! soap = { serve = { namespace = "urn:orders", operations = { GetOrder = { method = "GET", path = "/orders/{body.id}" } } } }
//! ```
//!
//! The mapping between XML and JSON is that of [`crate::body::xml`]. A WSDL is neither read nor served, and attachments
//! (MTOM) and references within a message (`href`) are not followed.

mod call;
mod serve;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderValue;
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use self::call::{Call, CallConfig};
use self::serve::{Serve, ServeConfig};
use super::{Policy, Scope, Shaped, Terms, Verdict};
use crate::body::xml::soap;
use crate::body::xml::{Namespaces, Xml, XmlConfig};
use crate::body::{Held, Malformed, charset};
use crate::build::Build;
use crate::facts::Facts;
use crate::types::Size;

/// `soap` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    call: Option<CallConfig>,
    serve: Option<ServeConfig>,
    max: Option<Size>,
}

/// The compiled policy.
pub struct Soap {
    way: Way,
    most: Option<u64>,
}

enum Way {
    Call(Arc<Call>),
    Serve(Arc<Serve>),
}

/// Bytes of XML for each byte of JSON, and bytes beside.
const GROWTH: (usize, usize) = (8, 64 << 10);

impl Policy for Soap {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let way = match (&config.call, &config.serve) {
            (Some(call), None) => Way::Call(Arc::new(build.within("call", |build| Call::compile(call, scope, build))?)),
            (None, Some(serve)) => {
                Way::Serve(Arc::new(build.within("serve", |build| Serve::compile(serve, scope, build))?))
            }
            _ => {
                build
                    .error("", "either the upstream speaks SOAP, or the clients do")
                    .help("write `call = { … }` for JSON to SOAP, or `serve = { … }` for SOAP to JSON");
                return None;
            }
        };
        Some(Self { way, most: config.max.map(|max| max.0) })
    }

    fn settle(&self, terms: &mut Terms) {
        terms.holds_body = true;
        terms.reads_answers = true;
        terms.speaks_soap |= matches!(self.way, Way::Serve(_));
        terms.most_answer = terms.most_answer.max(self.most);
    }

    fn body(&self, body: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        match &self.way {
            Way::Call(call) => call.request(body, request, facts),
            Way::Serve(serve) => serve.request(body, request, facts),
        }
    }

    fn upstream(&self, head: &mut RequestHeader, _: &RequestHeader, _: &Facts) -> Verdict {
        match &self.way {
            Way::Call(call) => call.tell(head),
            Way::Serve(serve) => serve.tell(head),
        }
        Ok(())
    }

    fn shaper(&self, head: &ResponseHeader, _: &RequestHeader, facts: &Facts) -> Shaped {
        match &self.way {
            Way::Call(call) => call.shaper(head),
            Way::Serve(serve) => Ok(serve.shaper(facts)),
        }
    }
}

/// What of a message's content is what in JSON. Paths begin within the element that the body holds.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Mapping {
    arrays: Vec<String>,
    numbers: Vec<String>,
    booleans: Vec<String>,
    namespaces: Option<Namespaces>,
    ordered: bool,
}

impl Mapping {
    fn compile(&self, build: &mut Build<'_>) -> Option<Xml> {
        let within = |paths: &[String]| -> Vec<String> {
            paths.iter().map(|path| if path.starts_with("**.") { path.clone() } else { format!("*.{path}") }).collect()
        };
        let config = XmlConfig {
            arrays: within(&self.arrays),
            numbers: within(&self.numbers),
            booleans: within(&self.booleans),
            namespaces: self.namespaces.unwrap_or(Namespaces::Drop),
            ordered: self.ordered,
            typed: true,
            ..XmlConfig::default()
        };
        match config.compile() {
            Ok(xml) => Some(xml),
            Err(mistakes) => {
                for mistake in mistakes {
                    build.error(&mistake.key, mistake.message);
                }
                None
            }
        }
    }
}

/// Checks names of elements and prefixes.
fn check_names(
    element: Option<(&str, &str)>,
    prefix: Option<&str>,
    prefixes: &BTreeMap<String, String>,
    build: &mut Build<'_>,
) {
    if let Some((key, name)) = element.filter(|(_, name)| !soap::is_name(name)) {
        build.error(key, format!("`{name}` is not a name of an element")).help("write it without its prefix");
    }
    let mut check = |key: &str, prefix: &str| {
        if !soap::is_name(prefix) || ["soap", "xml", "xmlns"].contains(&prefix) {
            build.error(key, format!("`{prefix}` cannot be a prefix")).help("`soap` is the envelope's own");
        }
    };
    prefix.iter().for_each(|prefix| check("prefix", prefix));
    prefixes.keys().for_each(|prefix| check(&format!("prefixes.{prefix}"), prefix));
    if let Some(prefix) = prefix.filter(|prefix| prefixes.contains_key(*prefix)) {
        build.error("prefix", format!("`{prefix}` is among the `prefixes` as well"));
    }
    for (prefix, _) in prefixes.iter().filter(|(_, namespace)| namespace.is_empty()) {
        build.error(&format!("prefixes.{prefix}"), "a prefix has a namespace");
    }
}

/// The text of a message, by what its content type says of it.
fn text<'b>(body: &'b [u8], content_type: Option<&HeaderValue>) -> Result<Cow<'b, str>, Malformed> {
    let charset = content_type.and_then(|media| charset(media.to_str().ok()?));
    soap::text(body, charset)
}

/// How large the XML of so much JSON may be.
fn limit(json: usize) -> usize {
    json.saturating_mul(GROWTH.0).saturating_add(GROWTH.1)
}
