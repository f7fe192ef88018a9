//! `validate` as it is written, and what comes of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use http::HeaderName;
use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::Value;

use super::super::Scope;
use super::{Selected, Validate};
use crate::body::HELD;
use crate::body::media::Range;
use crate::body::openapi::{BodyRules, Document, Operation};
use crate::body::parameter::{Parameter, Place, Shape, Style};
use crate::body::schema::{Folder, Schema};
use crate::build::{Build, suggestion};
use crate::types::Size;

/// `validate` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    #[serde(default)]
    max_body: Option<Size>,
    #[serde(default)]
    body: Option<BodyConfig>,
    #[serde(default)]
    content_types: Option<Vec<String>>,
    #[serde(default)]
    query: BTreeMap<String, Value>,
    #[serde(default)]
    path: BTreeMap<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, Value>,
    #[serde(default)]
    openapi: Option<OpenApiConfig>,
    #[serde(default)]
    report_only: bool,
}

/// A schema in a file, or itself.
enum BodyConfig {
    File(String),
    Inline(Value),
}

/// `"users.yaml"`, or `{ file = "users.yaml", operation = "getUser" }`.
struct OpenApiConfig {
    file: String,
    operation: Option<String>,
}

/// What is checked where nothing else is said.
const JSON: [&str; 2] = ["application/json", "application/*+json"];

/// Compiles the policy; `None` after every mistake in it was reported.
pub(super) fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Validate> {
    let before = build.errors();
    if config.says_nothing() {
        build
            .error("", "`validate` says nothing")
            .help("give it `max_body`, `body`, `query`, `path`, `headers` or `openapi`");
    }
    let mut parameters = Vec::new();
    for (name, schema) in &config.query {
        parameters.extend(parameter(name, Place::Query, Style::Exploded, schema, &format!("query.{name}"), build));
    }
    for (name, schema) in &config.path {
        let key = format!("path.{name}");
        match scope.captures.iter().position(|capture| **capture == **name) {
            Some(position) => {
                parameters.extend(parameter(name, Place::Path(position), Style::Joined(','), schema, &key, build));
            }
            None => build.unknown(&key, "capture", name, scope.captures.iter().map(|capture| &**capture)),
        }
    }
    for (name, schema) in &config.headers {
        let key = format!("headers.{name}");
        match name.parse::<HeaderName>() {
            Ok(header) => {
                parameters.extend(parameter(name, Place::Header(header), Style::Joined(','), schema, &key, build));
            }
            Err(_) => drop(build.error(&key, format!("`{name}` is not the name of a header field"))),
        }
    }
    let body = body(&config, build);
    let operations = config.openapi.as_ref().map(|openapi| select(openapi, scope, build));
    let mut validate = Validate {
        max_body: config.max_body.map(|size| size.0),
        report_only: config.report_only,
        parameters,
        body,
        operations: operations.map(Option::unwrap_or_default),
    };
    if validate.max_body.is_none() && validate.holds_bodies() {
        validate.max_body = Some(HELD);
    }
    (build.errors() == before).then_some(validate)
}

impl Config {
    fn says_nothing(&self) -> bool {
        self.max_body.is_none()
            && self.body.is_none()
            && self.content_types.is_none()
            && self.openapi.is_none()
            && self.query.is_empty()
            && self.path.is_empty()
            && self.headers.is_empty()
    }
}

impl Validate {
    /// Whether there are requests whose bodies are held.
    pub(super) fn holds_bodies(&self) -> bool {
        let of_operations = self.operations.iter().flatten().filter_map(|selected| selected.rules.body.as_ref());
        self.body.iter().chain(of_operations).any(|rules| rules.contents.iter().any(|(_, schema)| schema.is_some()))
    }
}

fn parameter(
    name: &str,
    place: Place,
    style: Style,
    schema: &Value,
    key: &str,
    build: &mut Build<'_>,
) -> Option<Parameter> {
    let Value::Object(mut schema) = schema.clone() else {
        build.error(key, "expected a schema, such as { type = \"integer\" }");
        return None;
    };
    let mut required = matches!(place, Place::Path(_));
    if let Some(Value::Bool(own)) = schema.get("required") {
        required = *own;
        schema.remove("required");
    }
    for keyword in schema.keys().filter(|keyword| !KEYWORDS.contains(&keyword.as_str())) {
        build
            .error(&format!("{key}.{keyword}"), format!("`{keyword}` is no keyword of JSON Schema"))
            .help(suggestion("keyword", keyword, KEYWORDS));
    }
    let schema = Value::Object(schema);
    let folder = Folder::new(&build.path(Path::new("")), |_| {});
    let held = folder.hold(schema.clone());
    let compiled = Schema::compile(&schema, held, &folder);
    build.watch(folder.files());
    let compiled = build.or_report(key, compiled.map_err(|error| format!("the schema is wrong: {error}")))?;
    Some(Parameter::new(name, place, required, style, Shape::of(&schema, held, &folder), compiled))
}

fn body(config: &Config, build: &mut Build<'_>) -> Option<BodyRules> {
    let schema = match &config.body {
        None => None,
        Some(BodyConfig::Inline(schema)) => {
            let folder = Folder::new(&build.path(Path::new("")), |_| {});
            let held = folder.hold(schema.clone());
            let compiled = Schema::compile(schema, held, &folder);
            build.watch(folder.files());
            Some(build.or_report("body", compiled.map_err(|error| format!("the schema is wrong: {error}")))?)
        }
        Some(BodyConfig::File(file)) => {
            let path = build.within("body", |build| build.path(Path::new(file)));
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("").to_owned();
            let folder = Folder::new(path.parent().unwrap_or(Path::new("")), |_| {});
            let compiled = folder.document(&name).and_then(|document| {
                Schema::compile(&document, &name, &folder).map_err(|error| format!("{}: {error}", path.display()))
            });
            build.watch(folder.files());
            Some(build.or_report("body", compiled)?)
        }
    };
    let schema = schema.map(Arc::new);
    let given = config.content_types.clone();
    let kinds = match (&schema, given) {
        (_, Some(kinds)) => kinds,
        (Some(_), None) => JSON.map(str::to_owned).to_vec(),
        (None, None) => return None,
    };
    if kinds.is_empty() {
        build.error("content_types", "no body would be allowed");
    }
    let mut contents = Vec::new();
    for (i, kind) in kinds.iter().enumerate() {
        match Range::parse(kind) {
            Some(range) => contents.push((range, schema.clone())),
            None => {
                build.error(&format!("content_types[{i}]"), format!("`{kind}` is not a content type")).help(
                    "write it as in \"application/json\", \"text/*\" or \"application/*+json\", without parameters",
                );
            }
        }
    }
    Some(BodyRules { required: schema.is_some(), contents })
}

/// The operations of a document that the route's requests are held to. `None` after a report of why there are none.
fn select(config: &OpenApiConfig, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Vec<Selected>> {
    let path = build.within("openapi", |build| build.path(Path::new(&config.file)));
    let document = build.once(&format!("openapi {}", path.display()), |build| match Document::load(&path) {
        Ok(document) => {
            build.watch(document.files());
            Some(document)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                build.error("openapi", mistake);
            }
            None
        }
    });
    // Where it is used first, its mistakes are reported.
    let Some(document) = &*document else {
        if build.errors() == 0 {
            build.error("openapi", format!("{} has mistakes", path.display()));
        }
        return None;
    };
    match &config.operation {
        Some(name) => named(name, document, scope, build),
        None => matching(document, &config.file, scope, build),
    }
}

fn named(name: &str, document: &Document, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Vec<Selected>> {
    let Some(operation) = document.operations.iter().find(|operation| operation.id.as_deref() == Some(name)) else {
        let known = document.operations.iter().filter_map(|operation| operation.id.as_deref());
        build.unknown("openapi.operation", "operation", name, known);
        return None;
    };
    if operation.is_at(scope.pattern, &document.bases) {
        return Some(vec![Selected { method: None, ..selected(operation) }]);
    }
    let mut captures = Vec::new();
    for capture in operation.captures() {
        match scope.captures.iter().position(|own| **own == *capture) {
            Some(position) => captures.push(position),
            None => {
                build.error(
                    "openapi.operation",
                    format!("the operation is for {}, and the route's path has no `{{{capture}}}`", operation.path),
                );
                return None;
            }
        }
    }
    Some(vec![Selected { method: None, captures, rules: operation.rules.clone() }])
}

fn matching(document: &Document, file: &str, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Vec<Selected>> {
    let found = document.operations.iter().filter(|operation| operation.is_at(scope.pattern, &document.bases));
    let all: Vec<Selected> = found.map(selected).collect();
    if all.is_empty() {
        build
            .error("openapi", format!("{file} has no operation at the route's path, {}", scope.pattern))
            .help("name one: openapi = { file = \"…\", operation = \"…\" }; paths are those below its `servers`");
        return None;
    }
    for method in scope.methods {
        let has = |method: &str| all.iter().any(|operation| operation.method.as_ref().is_some_and(|m| m == method));
        let is_taken = has(method) || (method == "HEAD" && has("GET"));
        if !is_taken {
            build.error("openapi", format!("{file} has no operation {method} {}", scope.pattern));
        }
    }
    Some(all)
}

fn selected(operation: &Operation) -> Selected {
    Selected {
        method: Some(operation.method.clone()),
        rules: operation.rules.clone(),
        captures: (0..operation.captures().count()).collect(),
    }
}

impl<'de> Deserialize<'de> for BodyConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(file) => Ok(Self::File(file)),
            schema @ Value::Object(_) => Ok(Self::Inline(schema)),
            _ => Err(de::Error::custom("expected the name of a file, or a schema")),
        }
    }
}

impl<'de> Deserialize<'de> for OpenApiConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const SHAPE: &str = "expected the name of a file, or { file = \"…\", operation = \"…\" }";
        match Value::deserialize(deserializer)? {
            Value::String(file) => Ok(Self { file, operation: None }),
            Value::Object(mut table) => {
                let mut text = |key: &str| match table.remove(key) {
                    None => Ok(None),
                    Some(Value::String(text)) => Ok(Some(text)),
                    Some(_) => Err(de::Error::custom(SHAPE)),
                };
                let (file, operation) = (text("file")?, text("operation")?);
                match file {
                    Some(file) if table.is_empty() => Ok(Self { file, operation }),
                    _ => Err(de::Error::custom(SHAPE)),
                }
            }
            _ => Err(de::Error::custom(SHAPE)),
        }
    }
}

/// What a schema of a parameter may say: the keywords of JSON Schema 2020-12.
#[rustfmt::skip]
const KEYWORDS: &[&str] = &[
    "$anchor", "$comment", "$defs", "$dynamicAnchor", "$dynamicRef", "$id", "$ref", "$schema", "additionalProperties",
    "allOf", "anyOf", "const", "contains", "contentEncoding", "contentMediaType", "default", "dependentRequired",
    "dependentSchemas", "deprecated", "description", "else", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum",
    "format", "if", "items", "maxContains", "maxItems", "maxLength", "maxProperties", "maximum", "minContains",
    "minItems", "minLength", "minProperties", "minimum", "multipleOf", "not", "oneOf", "pattern", "patternProperties",
    "prefixItems", "properties", "propertyNames", "required", "then", "title", "type", "unevaluatedItems",
    "unevaluatedProperties", "uniqueItems",
];
