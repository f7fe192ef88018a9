//! `graphql`: a stored query of GraphQL behind a REST route.
//!
//! ```toml
//! graphql = { query = "queries/user.graphql", variables = { id = "{path.id}", first = 10 }, unwrap = "user" }
//! graphql = { query = "mutation ($input: UserInput!) { add(input: $input) { id } }", variables = { input = "{body}" } }
//! ```
//!
//! The request becomes a POST to `/graphql`, or to what [`request.path`](super::request) says. A text becomes what its
//! variable is of: a number for an `Int`. The document is read when the file is loaded; that it fits the schema, the server
//! knows alone.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode};
use pingora_http::{RequestHeader, ResponseHeader};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::json_template::{Decoded, with_body};
use super::{JsonTemplate, Policy, Scope, Shaped, Terms, Verdict};
use crate::body::graphql::{Document, Kind, Operation};
use crate::body::{Held, Sends, Shaper, is_json, member, refusal, reshaped};
use crate::build::{self, Build, Node};
use crate::facts::{Facts, Values};
use crate::reply::Reply;
use crate::types::template::{Names, Template, Variable};
use crate::types::{Size, file};

/// `graphql` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    query: String,
    operation: Option<String>,
    #[serde(default, rename = "variables")]
    _variables: serde_json::Map<String, Value>,
    unwrap: Option<String>,
    #[serde(default)]
    partial: bool,
    #[serde(default)]
    codes: BTreeMap<String, u16>,
    max: Option<Size>,
}

/// The compiled policy.
pub struct Graphql {
    /// The request up to the values of its variables.
    beginning: Box<str>,
    variables: Vec<(Box<str>, Given)>,
    reads_body: bool,
    answers: Arc<Answers>,
    most: Option<u64>,
    /// The methods that have an answer with a body, as `Allow` has them.
    methods: Box<str>,
}

/// Where the value of a variable comes from.
enum Given {
    /// A text of this type; none where it is empty and may be.
    Text { template: Template, scalar: Scalar, name: Box<str>, required: bool },
    /// JSON.
    Json(JsonTemplate),
}

/// What a text becomes.
#[derive(Clone, Copy)]
enum Scalar {
    Int,
    Float,
    Boolean,
    Text,
}

/// What becomes of answers.
struct Answers {
    unwrap: Option<Box<str>>,
    partial: bool,
    codes: BTreeMap<String, StatusCode>,
}

const CODES: [(&str, StatusCode); 4] = [
    ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
    ("FORBIDDEN", StatusCode::FORBIDDEN),
    ("NOT_FOUND", StatusCode::NOT_FOUND),
    ("BAD_USER_INPUT", StatusCode::BAD_REQUEST),
];

impl Policy for Graphql {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let text = match config.query.contains('{') {
            true => config.query.clone(),
            false => match file::read_text(&build.path(Path::new(&config.query))) {
                Ok(text) => text,
                Err(error) => {
                    build.error("query", error).help("give the path of a file, or a document, which has a `{`");
                    return None;
                }
            },
        };
        let document = match Document::read(&text) {
            Ok(document) => document,
            Err(wrong) => {
                let (line, column) = wrong.location(&text).unwrap_or((1, 1));
                build.error("query", format!("{wrong}, at line {line}, column {column} of the document"));
                return None;
            }
        };
        let operation = match document.operation(config.operation.as_deref()) {
            Ok(operation) => operation,
            Err(wrong) => {
                let key = if config.operation.is_some() { "operation" } else { "query" };
                build.error(key, wrong.to_string()).help("`operation` names one of the document's");
                return None;
            }
        };
        if operation.kind == Kind::Subscription {
            build.error("query", "a subscription has no one answer").help("expected a query or a mutation");
        }
        let (variables, reads_body) = variables(operation, scope, build);
        let mut codes: BTreeMap<String, StatusCode> =
            CODES.into_iter().map(|(code, status)| (code.to_owned(), status)).collect();
        for (code, status) in &config.codes {
            match StatusCode::from_u16(*status) {
                Ok(status) if status.is_client_error() || status.is_server_error() => {
                    codes.insert(code.clone(), status);
                }
                _ => drop(build.error(&format!("codes.{code}"), "an error has a status from 400 to 599")),
            }
        }
        if build.errors() > before {
            return None;
        }
        let name = operation.name.as_deref().map(|name| format!(",\"operationName\":{}", Value::from(name)));
        Some(Self {
            beginning: format!("{{\"query\":{}{}", Value::from(text), name.unwrap_or_default()).into(),
            variables,
            reads_body,
            answers: Arc::new(Answers { unwrap: config.unwrap.map(Into::into), partial: config.partial, codes }),
            most: config.max.map(|max| max.0),
            methods: scope.bodily_methods(),
        })
    }

    fn settle(&self, terms: &mut Terms) {
        terms.holds_body = true;
        terms.reads_answers = true;
        terms.most_answer = terms.most_answer.max(self.most);
    }

    fn body(&self, held: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        if request.method == Method::HEAD {
            return Err(Reply::method_not_allowed("a query has an answer with a body").allow(&self.methods));
        }
        let client = if self.reads_body { held.json()? } else { Bytes::from_static(b"null") };
        let body = with_body(client, facts, |facts| self.render(&Values { request, facts }))?;
        held.becomes(
            body.into(),
            Sends {
                content_type: Some(HeaderValue::from_static("application/json")),
                method: Some(Method::POST),
                target: Some(PathAndQuery::from_static("/graphql")),
            },
        );
        Ok(())
    }

    fn upstream(&self, head: &mut RequestHeader, _: &RequestHeader, _: &Facts) -> Verdict {
        let accepted = HeaderValue::from_static("application/graphql-response+json, application/json;q=0.9");
        let _ = head.insert_header(ACCEPT, accepted);
        Ok(())
    }

    fn shaper(&self, head: &ResponseHeader, _: &RequestHeader, _: &Facts) -> Shaped {
        let json = head.headers.get(CONTENT_TYPE).is_some_and(|media| is_json(media.as_bytes()));
        match (json, head.status.is_success()) {
            (true, _) => Ok(Some(Box::new(Answer { answers: self.answers.clone(), status: head.status }))),
            (false, true) => Err(refusal("it is not JSON")),
            (false, false) => Ok(None),
        }
    }
}

/// The variables that are given, and whether one of them is of the client's body.
fn variables(operation: &Operation, scope: &Scope<'_>, build: &mut Build<'_>) -> (Vec<(Box<str>, Given)>, bool) {
    let names = Names { captures: scope.captures, parts: &["body".into()] };
    let node = build.node().get("variables");
    let mut variables = Vec::new();
    let mut reads_body = false;
    for (name, entry) in node.map(Node::in_order).unwrap_or_default() {
        let known = || operation.variables.iter().map(|variable| &*variable.name);
        let Some(variable) = operation.variables.iter().find(|variable| &*variable.name == name) else {
            build.within_detached(&entry.node, |build| build.unknown("", "variable", name, known()));
            continue;
        };
        let given = match &entry.node.value {
            build::Value::String(text) => match Template::parse_with(text, names) {
                Ok(template) if matches!(template.only_variable(), Some(Variable::Part(..))) => {
                    JsonTemplate::compile(&entry.node, names, build).map(Given::Json)
                }
                Ok(template) => Some(Given::Text {
                    scalar: match variable.scalar.as_deref() {
                        Some("Int") => Scalar::Int,
                        Some("Float") => Scalar::Float,
                        Some("Boolean") => Scalar::Boolean,
                        _ => Scalar::Text,
                    },
                    template,
                    name: name.into(),
                    required: variable.required,
                }),
                Err(error) => {
                    build.within_detached(&entry.node, |build| {
                        build.error("", error);
                    });
                    None
                }
            },
            _ => JsonTemplate::compile(&entry.node, names, build).map(Given::Json),
        };
        let Some(given) = given else { continue };
        if let Given::Text { template, scalar, .. } = &given
            && let Some(text) = template.constant()
            && scalar.json(text.as_bytes()).is_none()
        {
            let what = format!("`{text}` is no {}", variable.scalar.as_deref().unwrap_or_default());
            build.within_detached(&entry.node, |build| {
                build.error("", what);
            });
        }
        reads_body |= match &given {
            Given::Text { template, .. } => template.variables().any(|variable| matches!(variable, Variable::Part(..))),
            Given::Json(template) => template.variables().any(|variable| matches!(variable, Variable::Part(..))),
        };
        variables.push((name.into(), given));
    }
    for variable in operation.variables.iter().filter(|variable| variable.required) {
        if node.is_none_or(|node| node.get(&variable.name).is_none()) {
            build.error("variables", format!("the query needs the variable `{}`", variable.name));
        }
    }
    (variables, reads_body)
}

impl Graphql {
    fn render(&self, values: &Values<'_>) -> Result<Vec<u8>, Reply> {
        let mut out = self.beginning.as_bytes().to_vec();
        out.extend_from_slice(b",\"variables\":{");
        let start = out.len();
        for (name, given) in &self.variables {
            let Some(value) = given.render(values)? else { continue };
            out.extend_from_slice(if out.len() > start { b"," } else { b"" });
            out.extend_from_slice(Value::from(&**name).to_string().as_bytes());
            out.push(b':');
            out.extend_from_slice(&value);
        }
        out.extend_from_slice(b"}}");
        Ok(out)
    }
}

impl Given {
    /// The value as JSON; `None` where there is none.
    fn render(&self, values: &Values<'_>) -> Result<Option<Vec<u8>>, Reply> {
        match self {
            Self::Json(template) => Ok(Some(template.render(values))),
            Self::Text { template, scalar, name, required } => {
                let text = template.render(&Decoded(values));
                if text.is_empty() && template.constant().is_none() {
                    return match required {
                        true => Err(Reply::bad_request(format!("there is no value for `{name}`"))),
                        false => Ok(None),
                    };
                }
                match scalar.json(&text) {
                    Some(json) => Ok(Some(json)),
                    None => Err(Reply::bad_request(format!("the value for `{name}` is not of its type"))),
                }
            }
        }
    }
}

impl Scalar {
    /// A text as JSON of the type; `None` where it is none.
    fn json(self, text: &[u8]) -> Option<Vec<u8>> {
        let text = String::from_utf8_lossy(text);
        let fine = match self {
            Self::Int => serde_json::from_str::<i32>(&text).is_ok(),
            Self::Float => serde_json::from_str::<f64>(&text).is_ok(),
            Self::Boolean => matches!(&*text, "true" | "false"),
            Self::Text => return Some(Value::from(&*text).to_string().into_bytes()),
        };
        fine.then(|| text.trim().as_bytes().to_vec())
    }
}

/// An answer of the server.
struct Answer {
    answers: Arc<Answers>,
    status: StatusCode,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(default)]
    errors: Vec<Value>,
}

impl Answers {
    /// The errors as a problem: what they say, where, and of which code. What else they have is not for clients.
    fn problem(&self, errors: &[Value], status: StatusCode) -> Reply {
        let code = errors.iter().find_map(|error| error.pointer("/extensions/code")?.as_str());
        let usual = if status.is_client_error() && status != StatusCode::BAD_REQUEST {
            status
        } else {
            StatusCode::BAD_GATEWAY
        };
        let status = code.and_then(|code| self.codes.get(code)).copied().unwrap_or(usual);
        let told = errors.iter().map(|error| {
            let mut told = serde_json::Map::new();
            for (name, value) in [
                ("message", error.get("message")),
                ("path", error.get("path")),
                ("code", error.pointer("/extensions/code")),
            ] {
                told.extend(value.map(|value| (name.to_owned(), value.clone())));
            }
            Value::Object(told)
        });
        let message =
            errors.iter().find_map(|error| error.get("message")?.as_str()).unwrap_or("the server does not say why");
        Reply::graphql_errors(message.to_owned())
            .with_status(status)
            .and("errors", told.collect::<Vec<_>>())
            .because(format!("the upstream's errors: {message}"))
    }
}

impl Shaper for Answer {
    fn head(&mut self, head: &mut ResponseHeader) {
        reshaped(head);
        let _ = head.insert_header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }

    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, _: Option<&HeaderMap>) -> Result<Bytes, Reply> {
        let said = match serde_json::from_slice::<Said<'_>>(&body) {
            Ok(said) => said,
            Err(_) if !self.status.is_success() => return Ok(body),
            Err(error) => return Err(refusal(error.to_string())),
        };
        let data = said.data.map_or("null", RawValue::get);
        let is_enough = said.errors.is_empty() || self.answers.partial && data != "null";
        if !is_enough {
            return Err(self.answers.problem(&said.errors, self.status));
        }
        if said.data.is_none() {
            return if self.status.is_success() { Err(refusal("it has neither data nor errors")) } else { Ok(body) };
        }
        let data = self.answers.unwrap.as_ref().map_or(data, |path| member(data, path).unwrap_or("null"));
        let data = Bytes::copy_from_slice(data.as_bytes());
        self.head(head);
        Ok(data)
    }
}
