//! JSON for callers, gRPC for servers; and gRPC-Web for browsers ([`web`]).
//!
//! ```toml
//! grpc_json = { descriptors = "shop.binpb", services = ["shop.v1.Shelves"] }
//! ```
//!
//! The descriptors are what `protoc --include_imports --descriptor_set_out=shop.binpb shop.proto` writes. Methods are called as
//! their annotation `google.api.http` says; JSON and protobuf correspond as protobuf's JSON mapping says
//! (<https://protobuf.dev/programming-guides/json/>).
//!
//! # What the caller has to do
//!
//! This is about bytes alone. Who has the connection
//!
//! - finds the method with [`Transcoder::find`], by the path as it came, reads the whole request body within a cap, and
//!   turns it into a body of gRPC with [`Call::request`];
//! - sends it by HTTP/2 as `POST` to [`Call::path`] with [`Call::headers`] and `TE: trailers`, without the request's `content-length`,
//!   `content-encoding` and `accept-encoding`, and a `grpc-timeout` of what the request still has ([`timeout`]);
//! - takes an answer that is not 200, or no `application/grpc`, for [`Status::from_http`]; and one with a `grpc-status` in
//!   its head, which has no body, for [`Status::from_trailers`] of the head;
//! - makes an [`Answer`] with the request's `Accept` and the answer's `grpc-encoding`;
//! - of a method with one answer, pushes the whole body, reads the trailers, and only then answers: with the JSON, or with
//!   a problem that has [`Status::http`] and [`Status::members`]. A [`Malformed`] answer is a 502;
//! - of a stream ([`Answer::is_stream`]) sends the head with the first bytes, pushes and sends as it goes, and calls
//!   [`Answer::fail`] before [`Filter::end`](super::Filter::end) if the trailers have an error or the answer is malformed.
//!
//! # Caveats
//!
//! - All of a request is held, and one message of an answer.
//! - A method whose client streams takes one JSON value after the other, all in one held body. Path and query go into the
//!   first message.
//! - `google.api.HttpBody` is written as any message is. Extensions of proto2 and unknown fields are left out.
//! - Fields that proto2 requires are not asked for: the server does so.

mod answer;
mod bind;
mod frame;
mod known;
mod parse;
mod print;
mod rule;
mod schema;
mod status;
mod template;
pub mod web;
mod wire;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use serde::Deserialize;

use super::json_text::Text;
use super::{DEPTH, Malformed, is_json};
use crate::types::{Size, weighted};
use bind::{Place, QueryRules, Taken};
use parse::Parser;
use print::Style;
use rule::Rule;
use schema::Schema;
use template::{Missing, Template, Tree, Variable};

pub use answer::Answer;
pub use status::Status;

/// How JSON becomes gRPC, as the file has it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpcConfig {
    /// The file with the descriptor set.
    pub descriptors: PathBuf,
    /// The full names of the services that can be called. None are all that have annotations.
    pub services: Option<Vec<String>>,
    /// Whether methods without an annotation can be called, with `POST /package.Service/Method`.
    #[serde(default)]
    pub unannotated: bool,
    /// Whether parameters of the query are passed over that are no fields. Else they are refused.
    #[serde(default)]
    pub ignore_unknown_query: bool,
    /// Parameters of the query that are not the method's, as an API key.
    #[serde(default)]
    pub ignore_query: Vec<String>,
    /// Whether fields in JSON are passed over that the message does not have, and bodies that the method does not take.
    /// Else they are refused.
    #[serde(default)]
    pub ignore_unknown_fields: bool,
    /// Whether answers have the fields too that have their default.
    #[serde(default)]
    pub print_defaults: bool,
    /// Whether fields of answers have the names of the proto file, instead of those in lowerCamelCase.
    #[serde(default)]
    pub print_original_names: bool,
    /// Whether enums in answers are numbers, instead of names.
    #[serde(default)]
    pub print_enum_numbers: bool,
    /// How streams are written where the client does not say what it accepts.
    #[serde(default)]
    pub stream: Streaming,
    /// Bytes that a message of an answer may have.
    #[serde(default = "four_mebibytes")]
    pub max_message: Size,
}

/// As much as gRPC's own clients take.
fn four_mebibytes() -> Size {
    Size::kib(4 << 10)
}

/// How the messages of a stream are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Streaming {
    /// One a line: `application/x-ndjson`.
    #[default]
    Ndjson,
    /// Events: `text/event-stream`.
    Sse,
    /// One array: `application/json`.
    Array,
}

/// All methods that can be called.
#[derive(Debug)]
pub struct Transcoder {
    common: Arc<Common>,
    routes: Vec<Arc<Route>>,
    tree: Tree,
}

/// What all calls need.
#[derive(Debug)]
struct Common {
    schema: Schema,
    style: Style,
    query: QueryRules,
    ignore_unknown_fields: bool,
    stream: Streaming,
    /// In bytes.
    max_message: usize,
}

/// One way to call one method.
#[derive(Debug)]
struct Route {
    /// `/package.Service/Method`.
    path: String,
    /// The method and template, for errors.
    name: String,
    input: usize,
    output: usize,
    client_streams: bool,
    server_streams: bool,
    variables: Vec<(Place, Variable)>,
    body: BodyRule,
    /// The index of the field that is the answer; none is the whole message.
    response_body: Option<usize>,
}

/// What the request's body is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum BodyRule {
    None,
    Whole,
    /// The field of this index.
    Field(usize),
}

/// A request whose method was found.
#[derive(Debug, Clone)]
pub struct Call {
    common: Arc<Common>,
    route: Arc<Route>,
    /// The fields of the path, in protobuf.
    bound: Vec<u8>,
}

/// Why a request cannot be made a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// No method has the path: 404.
    Path,
    /// The path has other HTTP methods: 405. `*` is not among them.
    Method(Vec<String>),
    /// The body has another type than JSON: 415.
    MediaType,
    /// A variable of the path is not what its field takes: 400.
    Variable(String),
    /// A parameter of the query is not what its field takes, or no field: 400.
    Query(String),
    /// The body is not what the message takes: 400.
    Body(Malformed),
}

impl Transcoder {
    /// Compiles a descriptor set.
    ///
    /// # Errors
    /// Everything that is wrong with it, in words.
    pub fn new(config: &GrpcConfig, descriptors: &[u8]) -> Result<Self, Vec<String>> {
        let pool = DescriptorPool::decode(descriptors).map_err(|error| {
            vec![format!("this is not a whole descriptor set, as `protoc --include_imports` writes it: {error}")]
        })?;
        let common = Arc::new(Common {
            schema: Schema::new(&pool),
            style: Style {
                defaults: config.print_defaults,
                original_names: config.print_original_names,
                enum_numbers: config.print_enum_numbers,
            },
            query: QueryRules {
                ignore_unknown: config.ignore_unknown_query,
                ignored: config.ignore_query.iter().cloned().collect(),
            },
            ignore_unknown_fields: config.ignore_unknown_fields,
            stream: config.stream,
            max_message: config.max_message.as_usize(),
        });
        let mut errors = Vec::new();
        for name in config.services.iter().flatten().filter(|name| pool.get_service_by_name(name).is_none()) {
            let known: Vec<_> = pool.services().map(|service| format!("`{}`", service.full_name())).collect();
            errors.push(format!("the set has no service `{name}`; it has {}", known.join(", ")));
        }
        let mut transcoder = Self { common, routes: Vec::new(), tree: Tree::default() };
        let wanted = |name: &str| config.services.as_ref().is_none_or(|names| names.iter().any(|one| one == name));
        for service in pool.services().filter(|service| wanted(service.full_name())) {
            for method in service.methods() {
                let name = format!("{}/{}", service.full_name(), method.name());
                let rules = rule::rules(&method).unwrap_or_else(|wrong| {
                    errors.push(format!("{name}: its google.api.http cannot be read: {wrong}"));
                    Vec::new()
                });
                let unannotated = config.unannotated.then(|| Rule {
                    method: "POST".to_owned(),
                    path: format!("/{name}"),
                    body: "*".to_owned(),
                    ..Rule::default()
                });
                for rule in if rules.is_empty() { unannotated.into_iter().collect() } else { rules } {
                    if let Err(wrong) = transcoder.add(&method, &name, &rule) {
                        errors.push(format!("{name}: {} {}: {wrong}", rule.method, rule.path));
                    }
                }
            }
        }
        if transcoder.routes.is_empty() && errors.is_empty() {
            errors.push("no method of these services has a google.api.http annotation".to_owned());
        }
        if errors.is_empty() { Ok(transcoder) } else { Err(errors) }
    }

    /// Finds what a request calls. The path is percent-encoded, and without the query.
    ///
    /// # Errors
    /// There is no such method, or the path does not fit it.
    pub fn find(&self, method: &str, path: &str) -> Result<Call, Refused> {
        let (index, segments) = self.tree.find(method, path).map_err(|missing| match missing {
            Missing::Path => Refused::Path,
            Missing::Method(allowed) => Refused::Method(allowed),
        })?;
        let route = &self.routes[index];
        let mut bound = Vec::new();
        for (place, variable) in &route.variables {
            let wrong = |wrong: &str| Refused::Variable(format!("`{}`: {wrong}", variable.path.join(".")));
            let value = variable.value(&segments).map_err(wrong)?;
            place
                .put(&self.common.schema, &value, &mut bound)
                .map_err(|expected| wrong(&format!("{expected} was expected")))?;
        }
        Ok(Call { common: self.common.clone(), route: route.clone(), bound })
    }

    /// The methods that can be called, each as `package.Service/Method: GET /template`.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.routes.iter().map(|route| &*route.name)
    }

    fn schema(&self) -> &Schema {
        &self.common.schema
    }

    fn add(&mut self, method: &MethodDescriptor, name: &str, rule: &Rule) -> Result<(), String> {
        let schema = &self.common.schema;
        let message = |name: &str| schema.find(name).ok_or_else(|| format!("the set has no message `{name}`"));
        let (input, output) = (message(method.input().full_name())?, message(method.output().full_name())?);
        if rule.method.is_empty() || rule.path.is_empty() {
            return Err("the rule has no method or no path".to_owned());
        }
        let template = Template::parse(&rule.path)?;
        let mut variables = Vec::new();
        for variable in &template.variables {
            let place = Place::find(schema, input, variable.path.iter().map(String::as_str))?;
            if place.repeated {
                return Err(format!("`{}` is repeated, and a path has one", variable.path.join(".")));
            }
            variables.push((place, variable.clone()));
        }
        let field = |message: usize, name: &str, key: &str| {
            let message = &schema.messages[message];
            let found = message.fields.iter().position(|field| field.name == name);
            found.ok_or_else(|| format!("{key}: {} has no field `{name}`", message.name))
        };
        let body = match &*rule.body {
            "" => BodyRule::None,
            "*" => BodyRule::Whole,
            name => BodyRule::Field(field(input, name, "body")?),
        };
        let response_body = match &*rule.response_body {
            "" => None,
            name => Some(field(output, name, "response_body")?),
        };
        self.tree
            .insert(&template, &rule.method, self.routes.len())
            .map_err(|other| format!("the same paths are those of {}", self.routes[other].name))?;
        self.routes.push(Arc::new(Route {
            path: format!("/{name}"),
            name: format!("{name}: {} {}", rule.method, rule.path),
            input,
            output,
            client_streams: method.is_client_streaming(),
            server_streams: method.is_server_streaming(),
            variables,
            body,
            response_body,
        }));
        Ok(())
    }
}

impl Call {
    /// The path of the method: `/package.Service/Method`.
    pub fn path(&self) -> &str {
        &self.route.path
    }

    /// Whether the server may answer with several messages, which go on as they come.
    pub fn is_stream(&self) -> bool {
        self.route.server_streams
    }

    /// What is called, for logs: `package.Service/Method: GET /template`.
    pub fn name(&self) -> &str {
        &self.route.name
    }

    /// The fields of the head that a gRPC server needs.
    pub fn headers() -> [(HeaderName, HeaderValue); 2] {
        [
            (http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
            (HeaderName::from_static("grpc-accept-encoding"), HeaderValue::from_static("gzip")),
        ]
    }

    /// The request's body for the server: a frame, or several of a method whose client streams. `query` is without its
    /// question mark; `body` is held whole.
    ///
    /// # Errors
    /// The request is not what the method takes.
    pub fn request(&self, query: Option<&str>, content_type: Option<&str>, body: &[u8]) -> Result<Vec<u8>, Refused> {
        let (common, route) = (&*self.common, &*self.route);
        let mut messages = match route.body {
            BodyRule::None if !body.is_empty() && !common.ignore_unknown_fields => {
                return Err(Refused::Body(Malformed::new(0, "the method takes no body")));
            }
            BodyRule::None => vec![Vec::new()],
            _ if body.is_empty() => vec![Vec::new()],
            _ if !content_type.is_none_or(|media| is_json(media.as_bytes())) => return Err(Refused::MediaType),
            _ => self.messages(body).map_err(Refused::Body)?,
        };
        let fields = &common.schema.messages[route.input].fields;
        let taken = match route.body {
            BodyRule::Whole => Taken::All,
            BodyRule::Field(index) => Taken::Some { path: &route.variables, body: Some(fields[index].number) },
            BodyRule::None => Taken::Some { path: &route.variables, body: None },
        };
        // What comes later in a message counts: the path overrides the rest.
        let mut others = Vec::new();
        bind::query(&common.schema, route.input, query.unwrap_or_default(), &common.query, taken, &mut others)
            .map_err(Refused::Query)?;
        others.extend_from_slice(&self.bound);
        match messages.first_mut() {
            Some(first) => first.append(&mut others),
            None => messages.push(others),
        }
        let mut out = Vec::new();
        messages.iter().try_for_each(|message| frame::put_frame(0, message, &mut out)).map_err(Refused::Body)?;
        Ok(out)
    }

    /// What makes JSON of the server's answer, in the form that the client accepts (RFC 9110, section 12.5.1).
    ///
    /// # Errors
    /// The answer is compressed in another way than gzip.
    pub fn answer(&self, accept: Option<&str>, grpc_encoding: Option<&str>) -> Result<Answer, Malformed> {
        let gzip = match grpc_encoding.unwrap_or("identity") {
            "identity" => false,
            "gzip" => true,
            _ => return Err(Malformed::new(0, "the answer is compressed in a way that was not asked for")),
        };
        let streaming = self.route.server_streams.then(|| accept.and_then(accepted).unwrap_or(self.common.stream));
        Ok(Answer::new(self.common.clone(), self.route.clone(), streaming, gzip))
    }

    fn messages(&self, body: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
        let (common, route) = (&*self.common, &*self.route);
        let mut parser =
            Parser { schema: &common.schema, text: Text::new(body)?, ignore_unknown: common.ignore_unknown_fields };
        let mut messages = Vec::new();
        loop {
            let mut message = Vec::new();
            match route.body {
                BodyRule::Field(index) => {
                    parser.field(&common.schema.messages[route.input], index, &mut message)?;
                }
                _ => parser.message(route.input, &mut message)?,
            }
            messages.push(message);
            if !route.client_streams || parser.text.end().is_ok() {
                parser.text.end()?;
                return Ok(messages);
            }
        }
    }
}

impl Refused {
    /// The status in HTTP.
    pub fn status(&self) -> u16 {
        match self {
            Self::Path => 404,
            Self::Method(_) => 405,
            Self::MediaType => 415,
            Self::Variable(_) | Self::Query(_) | Self::Body(_) => 400,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path => f.write_str("no method has this path"),
            Self::Method(allowed) => write!(f, "the path takes {}", allowed.join(", ")),
            Self::MediaType => f.write_str("the body has to be application/json"),
            Self::Variable(wrong) => write!(f, "in the path, {wrong}"),
            Self::Query(wrong) => write!(f, "in the query, {wrong}"),
            Self::Body(wrong) => write!(f, "in the body, {wrong}"),
        }
    }
}

impl std::error::Error for Refused {}

/// The field `grpc-timeout` of a time: at most eight digits, and never more than the time is
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
pub fn timeout(time: Duration) -> String {
    const LARGEST: u128 = 99_999_999;
    let units = [(1, "n"), (1_000, "u"), (1_000_000, "m"), (1_000_000_000, "S"), (60_000_000_000, "M")];
    let fits = units.into_iter().find(|(nanos, _)| time.as_nanos() / nanos <= LARGEST);
    let (nanos, unit) = fits.unwrap_or((3_600_000_000_000, "H"));
    format!("{}{unit}", (time.as_nanos() / nanos).min(LARGEST))
}

/// The form of a stream that an `Accept` likes best; none if it names none.
fn accepted(accept: &str) -> Option<Streaming> {
    let mut best: Option<(Streaming, u16)> = None;
    for (range, weight) in weighted(accept.as_bytes()) {
        let streaming = match range.to_ascii_lowercase().as_slice() {
            b"application/x-ndjson" | b"application/ndjson" => Streaming::Ndjson,
            b"text/event-stream" => Streaming::Sse,
            b"application/json" => Streaming::Array,
            _ => continue,
        };
        if weight > best.map_or(0, |(_, best)| best) {
            best = Some((streaming, weight));
        }
    }
    best.map(|(streaming, _)| streaming)
}

#[cfg(test)]
mod tests;
