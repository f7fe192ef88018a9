//! `serve`: clients speak SOAP, and the upstream takes and gives JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;
use serde_json::Value;

use super::{Mapping, check_names, limit, text};
use crate::body::media::parameter;
use crate::body::xml::Xml;
use crate::body::xml::soap::{self, Blame, Envelope, Version, Wrapping, Wrong};
use crate::body::{Held, Sends, Shaper, is_json, is_xml, refusal, reshaped};
use crate::build::Build;
use crate::facts::{Called, Facts, Values};
use crate::policy::json_template::with_body;
use crate::policy::{JsonTemplate, Scope, Verdict};
use crate::reply::Reply;
use crate::types::path;
use crate::types::template::{Names, Template};

/// `serve` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServeConfig {
    namespace: String,
    prefix: Option<String>,
    #[serde(default)]
    prefixes: BTreeMap<String, String>,
    #[serde(default)]
    understands: Vec<String>,
    operations: BTreeMap<String, OperationConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationConfig {
    action: Option<String>,
    method: Option<String>,
    path: String,
    #[serde(default)]
    query: BTreeMap<String, String>,
    #[serde(rename = "body")]
    _body: Option<serde_json::Map<String, Value>>,
    response: Option<String>,
    result: Option<String>,
    #[serde(default)]
    arrays: Vec<String>,
    #[serde(default)]
    numbers: Vec<String>,
    #[serde(default)]
    booleans: Vec<String>,
}

/// What a service of JSON offers.
pub(super) struct Serve {
    namespace: Box<str>,
    understands: Box<[Box<str>]>,
    operations: Box<[Operation]>,
}

struct Operation {
    name: Box<str>,
    action: Option<Box<str>>,
    method: Method,
    path: Template,
    ends_in_slash: bool,
    query: Vec<(String, Template)>,
    body: Option<JsonTemplate>,
    xml: Xml,
    /// By version.
    response: [Wrapping; 2],
    result: Option<Box<str>>,
}

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

impl Serve {
    pub fn compile(config: &ServeConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        check_names(None, config.prefix.as_deref(), &config.prefixes, build);
        if config.operations.is_empty() {
            build.error("operations", "there are no operations");
        }
        let mut operations = Vec::new();
        for (name, operation) in &config.operations {
            let key = format!("operations.{name}");
            operations.extend(build.within(&key, |build| Operation::compile(name, operation, config, scope, build)));
        }
        (build.errors() == before).then(|| Self {
            namespace: config.namespace.as_str().into(),
            understands: config.understands.iter().map(|namespace| namespace.as_str().into()).collect(),
            operations: operations.into(),
        })
    }

    /// Makes the request that the message asks for.
    pub fn request(&self, held: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        if request.method != Method::POST {
            return Err(Reply::method_not_allowed("a message of SOAP is a POST").allow("POST"));
        }
        let content_type = held.content_type().cloned();
        if !content_type.as_ref().is_some_and(|media| is_xml(media.as_bytes())) {
            return Err(Reply::unsupported_media_type("the body is to be text/xml or application/soap+xml"));
        }
        let content = held.content()?;
        let text = text(&content, content_type.as_ref())?;
        let media = content_type.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let envelope = match Envelope::read(&text) {
            Ok(envelope) => envelope,
            Err(Wrong::Malformed(malformed)) => return Err(malformed.into()),
            Err(Wrong::Version) => {
                return Err(told(Version::of(media), Blame::Version, "the envelope is neither SOAP 1.1 nor SOAP 1.2"));
            }
        };
        let version = envelope.version;
        if let Some(header) = envelope.not_understood(&self.understands) {
            let reason = format!("the header `{header}` must be understood, and is not");
            return Err(told(version, Blame::Header, &reason));
        }
        let Some(position) = self.find(&envelope, media, request) else {
            facts.soap = Some(Called { version, operation: usize::MAX });
            let name = envelope.child().map_or("", |(_, name)| name).chars().take(64).collect::<String>();
            return Err(Reply::bad_request(format!("there is no operation `{name}` of this namespace here")));
        };
        facts.soap = Some(Called { version, operation: position });
        let operation = &self.operations[position];
        let json = Bytes::from(envelope.json(&operation.xml)?);
        let (target, body) = with_body(json.clone(), facts, |facts| operation.render(&Values { request, facts }));
        let takes_none = matches!(operation.method, Method::GET | Method::DELETE);
        let content = match body {
            Some(body) => body.into(),
            None if takes_none => Bytes::new(),
            None => json,
        };
        let content_type = (!content.is_empty()).then(|| HeaderValue::from_static("application/json"));
        held.becomes(content, Sends { content_type, method: Some(operation.method.clone()), target: Some(target?) });
        Ok(())
    }

    /// What the head of the request says.
    pub fn tell(&self, head: &mut RequestHeader) {
        let _ = head.insert_header(ACCEPT, HeaderValue::from_static("application/json"));
        head.remove_header(&SOAP_ACTION);
    }

    /// What makes a message of the answer.
    pub fn shaper(self: &Arc<Self>, facts: &Facts) -> Option<Box<dyn Shaper>> {
        let Called { version, operation } = facts.soap?;
        (operation < self.operations.len())
            .then(|| Box::new(Answer { serve: self.clone(), version, operation }) as Box<dyn Shaper>)
    }

    /// The operation that a message is for: by the element in its body, else by its action.
    fn find(&self, envelope: &Envelope<'_>, media: &[u8], request: &RequestHeader) -> Option<usize> {
        if let Some((namespace, name)) = envelope.child()
            && namespace == *self.namespace
            && let Some(found) = self.operations.iter().position(|operation| *operation.name == *name)
        {
            return Some(found);
        }
        let action = match envelope.version {
            Version::V11 => request.headers.get(SOAP_ACTION)?.to_str().ok()?,
            Version::V12 => parameter(std::str::from_utf8(media).ok()?, "action")?,
        };
        let action = action.trim().trim_matches('"');
        self.operations.iter().position(|operation| operation.action.as_deref() == Some(action))
    }
}

impl Operation {
    fn compile(
        name: &str,
        config: &OperationConfig,
        serve: &ServeConfig,
        scope: &Scope<'_>,
        build: &mut Build<'_>,
    ) -> Option<Self> {
        let before = build.errors();
        let names = Names { captures: scope.captures, parts: &["body".into()] };
        let node = build.node();
        let response = config.response.clone().unwrap_or_else(|| format!("{name}Response"));
        check_names(Some(("", name)), None, &BTreeMap::new(), build);
        check_names(Some(("response", &response)), None, &BTreeMap::new(), build);
        if let Some(result) = &config.result {
            check_names(Some(("result", result)), None, &BTreeMap::new(), build);
        }
        let method = match config.method.as_deref().unwrap_or("POST") {
            method @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE") => method.parse().ok(),
            other => {
                build
                    .error("method", format!("`{other}` is not a method that an operation has"))
                    .help("expected GET, POST, PUT, PATCH or DELETE");
                None
            }
        };
        let mut template = |key: &str, text: &str| match Template::parse_with(text, names) {
            Ok(template) => Some(template),
            Err(error) => {
                build.error(key, error);
                None
            }
        };
        let path = template("path", &config.path);
        let query = config.query.iter().filter_map(|(name, text)| {
            let encoded = form_urlencoded::byte_serialize(name.as_bytes()).collect();
            Some((encoded, template(&format!("query.{name}"), text)?))
        });
        let query = query.collect();
        if path.as_ref().is_some_and(|path| !path.prefix().starts_with('/')) || config.path.contains(['?', '#']) {
            build.error("path", "a path begins with `/` and has no `?`").help("`query` is for the parameters");
        }
        let body = node.get("body").map(|node| JsonTemplate::compile(node, names, build));
        let xml = Mapping {
            arrays: config.arrays.clone(),
            numbers: config.numbers.clone(),
            booleans: config.booleans.clone(),
            ..Mapping::default()
        }
        .compile(build);
        if build.errors() > before {
            return None;
        }
        let prefixes = || serve.prefixes.iter().map(|(prefix, namespace)| (prefix.as_str(), namespace.as_str()));
        let wrapping =
            |version| Wrapping::new(version, &response, &serve.namespace, serve.prefix.as_deref(), prefixes());
        Some(Self {
            name: name.into(),
            action: config.action.as_deref().map(Box::from),
            method: method?,
            path: path?,
            ends_in_slash: config.path.len() > 1 && config.path.ends_with('/'),
            query,
            body: body.flatten(),
            xml: xml?,
            response: [wrapping(Version::V11), wrapping(Version::V12)],
            result: config.result.as_deref().map(Box::from),
        })
    }

    /// The target and the body of the request. Parameters without a value are left out.
    fn render(&self, values: &Values<'_>) -> (Result<PathAndQuery, Reply>, Option<Vec<u8>>) {
        let body = self.body.as_ref().map(|body| body.render(values));
        let rendered = self.path.render_path(values);
        let rendered = String::from_utf8_lossy(&rendered);
        // A value must not climb out of where the template puts it, nor leave nothing there.
        let checked = if self.ends_in_slash { &rendered[1..rendered.len() - 1] } else { &rendered[1..] };
        if checked.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
            return (Err(Reply::bad_request("a value of the message makes no segment of a path")), body);
        }
        let mut target = match path::normalize(&rendered) {
            Ok(normal) => normal.into_owned(),
            Err(error) => return (Err(Reply::bad_request(error.to_string())), body),
        };
        for (name, template) in &self.query {
            let value = template.render_query(values);
            if !value.is_empty() {
                let separator = if target.contains('?') { '&' } else { '?' };
                target.push_str(&format!("{separator}{name}={}", String::from_utf8_lossy(&value)));
            }
        }
        let target = target.parse().map_err(|_| Reply::bad_request("the message makes no target of a request"));
        (target, body)
    }
}

/// A Fault of its own code, with the status that its version asks for.
fn told(version: Version, blame: Blame, reason: &str) -> Reply {
    let mut reply = Reply::new(StatusCode::INTERNAL_SERVER_ERROR)
        .with(CONTENT_TYPE, version.content_type())
        .with(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply.body = soap::fault(version, blame, reason, None).into();
    reply
}

/// An answer of the service.
struct Answer {
    serve: Arc<Serve>,
    version: Version,
    operation: usize,
}

impl Answer {
    /// The message and its status, of the answer with this status.
    fn message(&self, status: StatusCode, json: bool, body: &[u8]) -> Result<(StatusCode, Vec<u8>), Reply> {
        let operation = &self.serve.operations[self.operation];
        if !status.is_success() {
            let detail = json.then(|| serde_json::from_slice::<Value>(body).ok()).flatten();
            let says = |name: &str| detail.as_ref()?.get(name)?.as_str();
            let reason = ["detail", "title", "message", "error"].into_iter().find_map(says);
            let reason = reason.map_or_else(|| format!("the service answered {}", status.as_u16()), str::to_owned);
            let blame = if status.is_client_error() { Blame::Sender } else { Blame::Receiver };
            let status = match (self.version, blame) {
                (Version::V12, Blame::Sender) => StatusCode::BAD_REQUEST,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            return Ok((status, soap::fault(self.version, blame, &reason, detail.as_ref())));
        }
        let wrapped;
        let content = match &operation.result {
            _ if body.is_empty() => b"null",
            _ if !json => return Err(refusal("it is not JSON")),
            None => body,
            Some(result) => {
                serde_json::from_slice::<&serde_json::value::RawValue>(body)
                    .map_err(|error| refusal(error.to_string()))?;
                wrapped = [format!("{{{}:", Value::from(&**result)).as_bytes(), body, b"}"].concat();
                &wrapped
            }
        };
        let wrapping = &operation.response[usize::from(self.version == Version::V12)];
        let written = wrapping.write(None, content, limit(content.len()));
        Ok((StatusCode::OK, written.map_err(|malformed| refusal(malformed.to_string()))?))
    }
}

impl Shaper for Answer {
    fn fills(&self) -> bool {
        true
    }

    fn head(&mut self, head: &mut ResponseHeader) {
        reshaped(head);
        let _ = head.insert_header(CONTENT_TYPE, self.version.content_type());
    }

    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, _: Option<&HeaderMap>) -> Result<Bytes, Reply> {
        let json = head.headers.get(CONTENT_TYPE).is_some_and(|media| is_json(media.as_bytes()));
        let (status, message) = self.message(head.status, json, &body)?;
        self.head(head);
        let _ = head.set_status(status);
        Ok(message.into())
    }
}
