//! `call`: the upstream speaks SOAP, and clients send and get JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use super::{Mapping, check_names, limit, text};
use crate::body::xml::soap::{Envelope, Fault, Version, Wrapping, Wrong};
use crate::body::xml::{Namespaces, Xml};
use crate::body::{Held, Malformed, Sends, Shaper, is_xml, member, refusal, reshaped, without_nulls};
use crate::build::Build;
use crate::facts::{Facts, Values};
use crate::policy::json_template::with_body;
use crate::policy::{JsonTemplate, Scope, Shaped, Verdict};
use crate::reply::Reply;
use crate::types::template::Names;

/// `call` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CallConfig {
    #[serde(default)]
    version: Spoken,
    operation: String,
    namespace: String,
    prefix: Option<String>,
    #[serde(default)]
    prefixes: BTreeMap<String, String>,
    action: Option<String>,
    #[serde(rename = "headers")]
    _headers: Option<serde_json::Map<String, serde_json::Value>>,
    #[serde(rename = "body")]
    _body: Option<serde_json::Map<String, serde_json::Value>>,
    unwrap: Option<String>,
    #[serde(default)]
    faults: BTreeMap<String, u16>,
    #[serde(default)]
    arrays: Vec<String>,
    #[serde(default)]
    numbers: Vec<String>,
    #[serde(default)]
    booleans: Vec<String>,
    namespaces: Option<Namespaces>,
    #[serde(default)]
    ordered: bool,
}

#[derive(Deserialize, Default, Clone, Copy)]
enum Spoken {
    #[default]
    #[serde(rename = "1.1")]
    V11,
    #[serde(rename = "1.2")]
    V12,
}

/// How a service is called.
pub(super) struct Call {
    wrapping: Wrapping,
    content_type: HeaderValue,
    accept: HeaderValue,
    action: Option<HeaderValue>,
    headers: Option<JsonTemplate>,
    body: Option<JsonTemplate>,
    unwrap: Option<Box<str>>,
    faults: BTreeMap<String, StatusCode>,
    xml: Xml,
    /// The methods that have an answer with a body, as `Allow` has them.
    methods: Box<str>,
}

const SOAP_ACTION: HeaderName = HeaderName::from_static("soapaction");

impl Call {
    pub fn compile(config: &CallConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let prefix = config.prefix.as_deref();
        check_names(Some(("operation", &config.operation)), prefix, &config.prefixes, build);
        if prefix.is_some() && config.namespace.is_empty() {
            build.error("prefix", "a prefix has a namespace");
        }
        let version = match config.version {
            Spoken::V11 => Version::V11,
            Spoken::V12 => Version::V12,
        };
        let action = config.action.as_deref().unwrap_or_default();
        if action.contains(['"', '\\']) || HeaderValue::from_str(action).is_err() {
            build.error("action", "an action is a URI, without quotes");
        }
        let content_type = match version {
            Version::V12 if !action.is_empty() => {
                HeaderValue::from_str(&format!("application/soap+xml; charset=utf-8; action=\"{action}\"")).ok()
            }
            _ => Some(version.content_type()),
        };
        let names = Names { captures: scope.captures, parts: &["body".into()] };
        let node = build.node();
        let mut template = |key: &str| node.get(key).map(|node| JsonTemplate::compile(node, names, build));
        let (headers, body) = (template("headers"), template("body"));
        let xml = Mapping {
            arrays: config.arrays.clone(),
            numbers: config.numbers.clone(),
            booleans: config.booleans.clone(),
            namespaces: config.namespaces,
            ordered: config.ordered,
        }
        .compile(build);
        let mut faults = BTreeMap::new();
        for (code, status) in &config.faults {
            match StatusCode::from_u16(*status) {
                Ok(status) if status.is_client_error() || status.is_server_error() => {
                    faults.insert(code.clone(), status);
                }
                _ => drop(build.error(&format!("faults.{code}"), "a Fault has a status from 400 to 599")),
            }
        }
        if build.errors() > before {
            return None;
        }
        let prefixes = config.prefixes.iter().map(|(prefix, namespace)| (prefix.as_str(), namespace.as_str()));
        Some(Self {
            wrapping: Wrapping::new(version, &config.operation, &config.namespace, prefix, prefixes),
            content_type: content_type?,
            accept: HeaderValue::from_static(match version {
                Version::V11 => "text/xml",
                Version::V12 => "application/soap+xml",
            }),
            action: match version {
                Version::V11 => Some(HeaderValue::from_str(&format!("\"{action}\"")).ok()?),
                Version::V12 => None,
            },
            headers: headers.flatten(),
            body: body.flatten(),
            unwrap: config.unwrap.as_deref().map(Box::from),
            faults,
            xml: xml?,
            methods: scope.bodily_methods(),
        })
    }

    /// Makes the message.
    pub fn request(&self, held: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        if request.method == Method::HEAD {
            return Err(Reply::method_not_allowed("a call has an answer with a body").allow(&self.methods));
        }
        let client = held.json()?;
        let (headers, content) = with_body(client.clone(), facts, |facts| {
            let values = Values { request, facts };
            let headers = self.headers.as_ref().map(|headers| headers.render(&values));
            let content = self.body.as_ref().map(|body| without_nulls(&body.render(&values)));
            (headers, content.map_or(client, Bytes::from))
        });
        let message = self.wrapping.write(headers.as_deref(), &content, limit(content.len()))?;
        held.becomes(
            message.into(),
            Sends {
                content_type: Some(self.content_type.clone()),
                method: Some(Method::POST),
                // What the client asks for is in the message now.
                target: request.uri.path().parse().ok(),
            },
        );
        Ok(())
    }

    /// What the head of the message says.
    pub fn tell(&self, head: &mut RequestHeader) {
        let _ = head.insert_header(ACCEPT, self.accept.clone());
        match &self.action {
            Some(action) => drop(head.insert_header(SOAP_ACTION, action.clone())),
            None => drop(head.remove_header(&SOAP_ACTION)),
        }
    }

    /// What makes JSON of an answer with this head.
    ///
    /// # Errors
    /// It is no message.
    pub fn shaper(self: &Arc<Self>, head: &ResponseHeader) -> Shaped {
        let content_type = head.headers.get(CONTENT_TYPE);
        let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::ACCEPTED);
        match content_type.is_some_and(|media| is_xml(media.as_bytes())) {
            true => Ok(Some(Box::new(Answer {
                call: self.clone(),
                content_type: content_type.cloned(),
                status: head.status,
            }))),
            false if bodiless || !head.status.is_success() => Ok(None),
            false => Err(refusal("it is not XML")),
        }
    }

    fn problem(&self, fault: Fault) -> Reply {
        let told = [fault.detail_name.as_deref(), fault.subcode.as_deref(), Some(fault.code.as_str())];
        let status = told.into_iter().flatten().find_map(|name| self.faults.get(name)).copied();
        let of_sender = matches!(fault.code.split('.').next(), Some("Client" | "Sender"));
        let usual = if of_sender { StatusCode::BAD_REQUEST } else { StatusCode::BAD_GATEWAY };
        let cause = format!("the upstream's Fault: {} {}", fault.code, fault.reason);
        let reason = if fault.reason.is_empty() { "the service gives no reason".to_owned() } else { fault.reason };
        let mut reply = Reply::soap_fault(reason).with_status(status.unwrap_or(usual)).and("code", fault.code);
        if let Some(subcode) = fault.subcode {
            reply = reply.and("subcode", subcode);
        }
        if let Some(detail) = fault.detail.and_then(|detail| serde_json::from_slice::<serde_json::Value>(&detail).ok())
        {
            reply = reply.and("fault", detail);
        }
        reply.because(cause)
    }
}

/// An answer of a service.
struct Answer {
    call: Arc<Call>,
    content_type: Option<HeaderValue>,
    status: StatusCode,
}

impl Answer {
    fn json(&self, body: &[u8]) -> Result<Vec<u8>, Reply> {
        let malformed = |malformed: Malformed| refusal(malformed.to_string());
        let text = text(body, self.content_type.as_ref()).map_err(malformed)?;
        let envelope = Envelope::read(&text).map_err(|wrong| match wrong {
            Wrong::Malformed(wrong) => malformed(wrong),
            Wrong::Version => refusal("the envelope is of another version of SOAP"),
        })?;
        if let Some(fault) = envelope.fault() {
            return Err(self.call.problem(fault));
        }
        let json = envelope.json(&self.call.xml).map_err(malformed)?;
        match &self.call.unwrap {
            None => Ok(json),
            Some(path) => {
                let json = std::str::from_utf8(&json).unwrap_or_default();
                Ok(member(json, path).unwrap_or("null").as_bytes().to_vec())
            }
        }
    }
}

impl Shaper for Answer {
    fn head(&mut self, head: &mut ResponseHeader) {
        reshaped(head);
        let _ = head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }

    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, _: Option<&HeaderMap>) -> Result<Bytes, Reply> {
        if body.is_empty() && self.status.is_success() {
            // The call has no answer.
            return Ok(body);
        }
        let json = self.json(&body)?;
        self.head(head);
        Ok(json.into())
    }
}
