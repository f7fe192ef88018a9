//! `body` in `request` and `response`: what becomes of a body on its way.
//!
//! ```toml
//! request  = { body = { from = "json", to = "xml", xml = { root = "order" } } }
//! response = { body = { from = "xml", remove = ["internal", "items.*.cost"], rename = { "user.mail" = "email" } } }
//! response = { body = { pick = ["id", "name"], set = { "meta.source" = "gateway" } } }
//! response = { body = { jq = "{ id, total: (.items | map(.price) | add) }", otherwise = "pass" } }
//! ```
//!
//! The body is read as `from` says, which is JSON by default; the simple verbs ([`crate::body::json`]) come next, then the
//! program, and it is written as `to` says. What cannot be read so, is of another type or is too large is refused, or
//! with `otherwise = "pass"` goes on as it came. Answers are changed where their status is one of `status`, 2xx by default.
//!
//! An answer that only the simple verbs change needs no place for all of it: beyond 64 KiB it goes on as it comes.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;

use super::{JsonTemplate, Scope, Shaped};
use crate::body::form::{Form, FormConfig};
use crate::body::jq::{self, Bounds, Program};
use crate::body::json::{self, Editor, Edits, EditsConfig};
use crate::body::xml::{Xml, XmlConfig};
use crate::body::{self, Filter, Held, Malformed, Shaper, charset, is_json, is_xml, refusal, reshaped};
use crate::build::{Build, Node};
use crate::facts::{Facts, Values};
use crate::reply::Reply;
use crate::types::Size;

/// `body` as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct TransformConfig {
    from: Kind,
    to: Option<Kind>,
    pick: Option<Vec<String>>,
    remove: Vec<String>,
    rename: std::collections::BTreeMap<String, String>,
    set: serde_json::Map<String, serde_json::Value>,
    jq: Option<String>,
    xml: Option<XmlConfig>,
    form: Option<FormConfig>,
    otherwise: Otherwise,
    max: Option<Size>,
    status: Option<Vec<String>>,
}

/// What a body is.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Kind {
    #[default]
    Json,
    Xml,
    Form,
    Multipart,
}

/// What becomes of a body that cannot be changed.
#[derive(Deserialize, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Otherwise {
    #[default]
    Refuse,
    Pass,
}

/// Whose body it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client's.
    Request,
    /// The upstream's.
    Response,
}

/// What becomes of a body, ready for use.
pub struct Transform {
    from: Kind,
    to: Kind,
    xml: Xml,
    form: Form,
    edits: Option<Arc<Edits>>,
    /// What is set, where it has variables.
    set: Vec<JsonTemplate>,
    jq: Option<Program>,
    lets_pass: bool,
    most: Option<u64>,
    status: Box<[u16]>,
}

/// Bytes of an answer that are held before it goes on as it comes.
const HELD: usize = 64 << 10;

/// Why a body was not changed.
enum Wrong {
    Malformed(Malformed),
    Program(jq::Error),
}

impl Transform {
    /// Compiles the `body` at the node at hand; `None` after every mistake in it was reported.
    pub fn compile(config: &TransformConfig, side: Side, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let node = build.node();
        let (from, to) = (config.from, config.to.unwrap_or_default());
        if to == Kind::Multipart {
            build.error("to", "a multipart form can be read only").help("expected \"json\", \"xml\" or \"form\"");
        }
        let uses = |kind: Kind| from == kind || to == kind;
        let forms = uses(Kind::Form) || uses(Kind::Multipart);
        for (key, given, used) in
            [("xml", config.xml.is_some(), uses(Kind::Xml)), ("form", config.form.is_some(), forms)]
        {
            if given && !used {
                build.error(key, format!("neither `from` nor `to` is \"{key}\", so this says nothing"));
            }
        }
        if side == Side::Request {
            if config.max.is_some() {
                build
                    .error("max", "the size of a request's body has its own key")
                    .help("write `validate = { max_body = … }`");
            }
            if config.status.is_some() {
                build.error("status", "a request has no status");
            }
        }
        let xml = report("xml", config.xml.clone().unwrap_or_default().compile(), build);
        let form = report("form", config.form.clone().unwrap_or_default().compile(), build);
        let edits = EditsConfig {
            pick: config.pick.clone(),
            remove: config.remove.clone(),
            rename: config.rename.clone(),
            set: config.set.clone(),
        };
        let edits = match Edits::compile(&edits) {
            Ok(edits) => edits.map(Arc::new),
            Err(mistakes) => {
                mistakes.iter().for_each(|mistake| tell(mistake, node, build));
                None
            }
        };
        let mut set = Vec::new();
        for (_, entry) in node.get("set").and_then(Node::table).into_iter().flatten() {
            set.extend(JsonTemplate::compile(&entry.node, scope.names(), build));
        }
        if set.iter().all(|template| template.variables().next().is_none()) {
            set.clear();
        } else if side == Side::Response && scope.cached {
            build
                .error("set", "what is stored is the same for all who get it, so it cannot have variables")
                .help("use values without variables, or `cache = false`");
        }
        let program = config.jq.as_deref().and_then(|text| match Program::compile(text, &[]) {
            Ok(program) => Some(program),
            Err(error) => {
                build.error("jq", error);
                None
            }
        });
        let mut status = Vec::new();
        for (i, text) in config.status.iter().flatten().enumerate() {
            match statuses(text) {
                Some(range) => status.extend(range),
                None => {
                    build
                        .error(&format!("status[{i}]"), format!("`{text}` is not a status such as \"200\" or \"4xx\""));
                }
            }
        }
        if config.status.is_none() {
            status.extend(200..300);
        }
        let nothing = from == to && edits.is_none() && config.jq.is_none();
        if nothing && build.errors() == before {
            build
                .error("", "this changes nothing")
                .help("give `pick`, `remove`, `rename`, `set`, `jq`, or another `from` or `to`");
        }
        if build.errors() > before {
            return None;
        }
        Some(Self {
            from,
            to,
            xml: xml?,
            form: form?,
            edits,
            set,
            jq: program,
            lets_pass: config.otherwise == Otherwise::Pass,
            most: config.max.map(|max| max.0),
            status: status.into(),
        })
    }

    /// Bytes of an answer that are held at most.
    pub fn most(&self) -> Option<u64> {
        self.most
    }

    /// Changes the body of a request.
    ///
    /// # Errors
    /// The answer, where it cannot be changed.
    pub fn request(&self, held: &mut Held, request: &RequestHeader, facts: &Facts) -> Result<(), Reply> {
        let content_type = held.content_type().cloned();
        let media = content_type.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let is_bodiless = held.is_empty() && matches!(request.method, Method::GET | Method::HEAD | Method::DELETE);
        if is_bodiless || (self.lets_pass && !self.from.is(media)) {
            return Ok(());
        }
        if !self.from.is(media) {
            return Err(Reply::unsupported_media_type(format!("the body is to be {}", self.from.media())));
        }
        let content = match held.content() {
            Err(_) if self.lets_pass => return Ok(()),
            content => content?,
        };
        let values = self.values(request, facts);
        match self.apply(&content, media, values, content.len().saturating_mul(8) + HELD) {
            Ok(changed) => {
                held.replace(changed.into(), self.content_type());
                Ok(())
            }
            Err(_) if self.lets_pass => Ok(()),
            Err(Wrong::Malformed(malformed)) => Err(malformed.into()),
            Err(Wrong::Program(jq::Error::Malformed(malformed))) => Err(malformed.into()),
            Err(Wrong::Program(error)) => {
                Err(Reply::bad_request("the body is not one that can be passed on").because(format!("`jq`: {error}")))
            }
        }
    }

    /// What changes the body of an answer with this head.
    ///
    /// # Errors
    /// The answer in its place, where it cannot be changed.
    pub fn shaper(self: &Arc<Self>, head: &ResponseHeader, request: &RequestHeader, facts: &Facts) -> Shaped {
        let unchanged = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT);
        if unchanged || !(self.status.contains(&head.status.as_u16()) || head.status == StatusCode::NOT_MODIFIED) {
            return Ok(None);
        }
        let media = head.headers.get(CONTENT_TYPE);
        let fits = head.status == StatusCode::NOT_MODIFIED || media.is_some_and(|media| self.from.is(media.as_bytes()));
        match fits && head.status != StatusCode::PARTIAL_CONTENT {
            true => Ok(Some(Box::new(Transforming {
                transform: self.clone(),
                values: self.values(request, facts),
                media: media.cloned(),
                editor: None,
            }))),
            false if self.lets_pass => Ok(None),
            false => Err(refusal(format!("it is not {}, or not whole", self.from.media()))),
        }
    }

    fn values(&self, request: &RequestHeader, facts: &Facts) -> Vec<Vec<u8>> {
        let values = Values { request, facts };
        self.set.iter().map(|template| template.render(&values)).collect()
    }

    /// What is to be said of what is made, where it is of another kind than what came.
    fn content_type(&self) -> Option<HeaderValue> {
        (self.from != self.to).then(|| HeaderValue::from_static(self.to.media()))
    }

    fn apply(&self, body: &[u8], media: &[u8], values: Vec<Vec<u8>>, limit: usize) -> Result<Vec<u8>, Wrong> {
        let media = std::str::from_utf8(media).unwrap_or("");
        let mut json: Cow<'_, [u8]> = match self.from {
            Kind::Json => body.into(),
            Kind::Xml => self.xml.to_json(body, charset(media))?.into(),
            Kind::Form => self.form.to_json(body)?.into(),
            Kind::Multipart => self.form.multipart_to_json(body, media)?.into(),
        };
        if let Some(edits) = &self.edits {
            let mut out = Vec::with_capacity(json.len() + 64);
            let mut editor = edits.filter_with(values);
            editor.push(&json, &mut out)?;
            editor.end(&mut out)?;
            json = out.into();
        }
        if let Some(program) = &self.jq {
            json = program.run(&json, &[], &Bounds::default()).map_err(Wrong::Program)?.into();
        }
        Ok(match self.to {
            Kind::Json | Kind::Multipart => json.into_owned(),
            Kind::Xml => self.xml.from_json(&json, limit)?,
            Kind::Form => self.form.from_json(&json, limit)?,
        })
    }
}

impl From<Malformed> for Wrong {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Kind {
    fn media(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Xml => "application/xml",
            Self::Form => "application/x-www-form-urlencoded",
            Self::Multipart => "multipart/form-data",
        }
    }

    /// Whether a `Content-Type` says that a body is of this kind.
    fn is(self, content_type: &[u8]) -> bool {
        match self {
            Self::Json => is_json(content_type),
            Self::Xml => is_xml(content_type),
            Self::Form | Self::Multipart => {
                let media = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
                media.eq_ignore_ascii_case(self.media().as_bytes())
            }
        }
    }
}

/// `"200"`, or `"4xx"` for all that begin so.
fn statuses(text: &str) -> Option<std::ops::Range<u16>> {
    match text.strip_suffix("xx") {
        Some(class) => {
            class.parse().ok().filter(|class| (2..=5).contains(class)).map(|class: u16| class * 100..class * 100 + 100)
        }
        None => text.parse().ok().filter(|status| (200..600).contains(status)).map(|status: u16| status..status + 1),
    }
}

fn report<T>(key: &str, compiled: Result<T, Vec<body::Mistake>>, build: &mut Build<'_>) -> Option<T> {
    match compiled {
        Ok(compiled) => Some(compiled),
        Err(mistakes) => {
            for mistake in mistakes {
                build.error(&format!("{key}.{}", mistake.key), mistake.message);
            }
            None
        }
    }
}

/// Reports a mistake where it is: the keys of an entry may have dots.
fn tell(mistake: &json::Mistake, node: &Node, build: &mut Build<'_>) {
    let verb = node.get(mistake.verb).unwrap_or(node);
    let entry = mistake.entry.as_deref().and_then(|entry| match verb.array() {
        Some(entries) => entries.get(entry.parse::<usize>().ok()?),
        None => verb.get(entry),
    });
    build.within_detached(entry.unwrap_or(verb), |build| {
        build.error("", mistake.message.as_str()).help(mistake.help.as_str());
    });
}

/// An answer whose body is being changed.
struct Transforming {
    transform: Arc<Transform>,
    values: Vec<Vec<u8>>,
    media: Option<HeaderValue>,
    /// What changes an answer that goes on as it comes.
    editor: Option<Editor>,
}

impl Transforming {
    fn editor(&mut self) -> Result<&mut Editor, Malformed> {
        let Some(edits) = &self.transform.edits else { return Err(Malformed::new(0, "it has to be whole")) };
        Ok(self.editor.get_or_insert_with(|| edits.filter_with(std::mem::take(&mut self.values))))
    }
}

impl Shaper for Transforming {
    fn needs(&self) -> Option<usize> {
        let Transform { from, to, jq, lets_pass, edits, .. } = &*self.transform;
        let simple = *from == Kind::Json && *to == Kind::Json && jq.is_none() && edits.is_some();
        (simple && !lets_pass).then_some(HELD)
    }

    fn lets_pass(&self) -> bool {
        self.transform.lets_pass
    }

    fn head(&mut self, head: &mut ResponseHeader) {
        reshaped(head);
        if let Some(content_type) = self.transform.content_type().filter(|_| head.headers.contains_key(CONTENT_TYPE)) {
            let _ = head.insert_header(CONTENT_TYPE, content_type);
        }
    }

    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, _: Option<&HeaderMap>) -> Result<Bytes, Reply> {
        if body.is_empty() {
            return Ok(body);
        }
        let media = self.media.as_ref().map_or(&b""[..], HeaderValue::as_bytes);
        let limit = body.len().saturating_mul(8) + HELD;
        match self.transform.apply(&body, media, std::mem::take(&mut self.values), limit) {
            Ok(changed) => {
                self.head(head);
                Ok(changed.into())
            }
            Err(_) if self.transform.lets_pass => Ok(body),
            Err(Wrong::Malformed(malformed)) => Err(refusal(malformed.to_string())),
            Err(Wrong::Program(error)) => Err(refusal(format!("`jq`: {error}"))),
        }
    }

    fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.editor()?.push(part, out)
    }

    fn end(&mut self, _: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        self.editor()?.end(out)
    }
}
