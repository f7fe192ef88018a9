//! OpenAPI documents of the versions 3.0 and 3.1, in YAML or JSON: what the requests of their operations may be like.
//!
//! - `$ref` may be local or name files in the folder of the document; nothing is fetched.
//! - Schemas are JSON Schema 2020-12. Those of 3.0 are translated.
//! - What is `readOnly` need not be in a request, even if it is `required`.
//! - Parameters of all places and styles but `matrix` and `label` are known. The header parameters `Accept`, `Content-Type`
//!   and `Authorization` say nothing, as the specification has it.

mod dialect;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::{HeaderName, Method};
use serde_json::Value;

use super::media::{self, Range};
use super::parameter::{Parameter, Place, Shape, Style};
use super::schema::{Folder, Schema, check_meta};

/// A document that was read.
pub struct Document {
    folder: Folder,
    name: String,
    /// The paths of its servers: what the paths of its operations are below.
    pub bases: Vec<String>,
    /// Its operations, in the order of the document.
    pub operations: Vec<Operation>,
}

/// An operation of a document.
pub struct Operation {
    /// Its `operationId`.
    pub id: Option<String>,
    /// What it does, in one line.
    pub summary: Option<String>,
    /// The method of its requests.
    pub method: Method,
    /// The template of its path: `/users/{id}`.
    pub path: String,
    /// The names of the security schemes that it may be asked with, one of these sets.
    pub security: Vec<Vec<String>>,
    /// What its requests must be like.
    pub rules: Arc<Rules>,
    item: Cursor,
    operation: Cursor,
}

/// What a request of an operation must be like.
#[derive(Default)]
pub struct Rules {
    /// Its parameters. The position of one in the path is that among the template's.
    pub parameters: Vec<Parameter>,
    /// Its body; `None` where the document says nothing of one.
    pub body: Option<BodyRules>,
}

/// What a body must be like.
pub struct BodyRules {
    /// Whether there must be one.
    pub required: bool,
    /// The content types that it may have, each with its schema where it is JSON.
    pub contents: Vec<(Range, Option<Arc<Schema>>)>,
}

/// A place in one of the files.
#[derive(Clone)]
struct Cursor {
    document: Arc<Value>,
    file: String,
    pointer: String,
}

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// Every mistake that was found, with its place.
    pub fn load(path: &Path) -> Result<Self, Vec<String>> {
        let one = |error: String| vec![error];
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| one("not a file's name".into()))?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut folder = Folder::new(parent, dialect::of_requests);
        let mut document = folder.document(name).map_err(one)?;
        match document.get("openapi").and_then(Value::as_str) {
            Some(version) if version.starts_with("3.1.") => {}
            Some(version) if version.starts_with("3.0.") => {
                folder = Folder::new(parent, dialect::of_3_0);
                document = folder.document(name).map_err(one)?;
            }
            Some(version) => return Err(one(format!("OpenAPI {version} is not known: 3.0 and 3.1 are"))),
            None => return Err(one("this is no OpenAPI document: it has no `openapi`".into())),
        }
        let root = Cursor { document, file: name.to_owned(), pointer: String::new() };
        let mut found = Vec::new();
        let schemas = root.get("components").and_then(|components| components.get("schemas"));
        for schema in schemas.into_iter().flat_map(|schemas| schemas.members()) {
            found.extend(schema.check_schema().err());
        }
        let bases = bases(&root);
        let mut document = Self { folder, name: name.to_owned(), bases, operations: Vec::new() };
        document.operations(&root, &mut found);
        for i in 0..document.operations.len() {
            match document.rules(&document.operations[i]) {
                Ok(rules) => document.operations[i].rules = Arc::new(rules),
                Err(mistakes) => mistakes.into_iter().for_each(|mistake| {
                    if !found.contains(&mistake) {
                        found.push(mistake);
                    }
                }),
            }
        }
        if found.is_empty() { Ok(document) } else { Err(found) }
    }

    /// The files that the document is made of.
    pub fn files(&self) -> Vec<PathBuf> {
        self.folder.files()
    }

    /// The URLs of its servers.
    pub fn servers(&self) -> Vec<String> {
        let servers = self.root().and_then(|root| root.get("servers"));
        let servers = servers.into_iter().flat_map(|servers| servers.items());
        servers.filter_map(|server| Some(server.get("url")?.text()?.to_owned())).collect()
    }

    /// Its title.
    pub fn title(&self) -> Option<String> {
        Some(self.root()?.get("info")?.get("title")?.text()?.to_owned())
    }

    /// A security scheme: its type, and what else says how it is used.
    pub fn security_scheme(&self, name: &str) -> Option<Value> {
        let scheme = self.root()?.get("components")?.get("securitySchemes")?.get(name)?;
        Some(scheme.follow(&self.folder).ok()?.value().clone())
    }

    fn rules(&self, operation: &Operation) -> Result<Rules, Vec<String>> {
        let mut found = Vec::new();
        let mut parameters = Vec::new();
        let mut seen = BTreeSet::new();
        let own = operation.operation.get("parameters");
        let shared = operation.item.get("parameters");
        for cursor in own.into_iter().chain(shared).flat_map(|list| list.items()) {
            match self.parameter(&cursor, operation, &mut seen) {
                Ok(parameter) => parameters.extend(parameter),
                Err(mistake) => found.push(mistake),
            }
        }
        let body = operation.operation.get("requestBody").map(|body| self.body(&body));
        let body = match body.transpose() {
            Ok(body) => body,
            Err(mistake) => {
                found.push(mistake);
                None
            }
        };
        if found.is_empty() { Ok(Rules { parameters, body }) } else { Err(found) }
    }

    fn root(&self) -> Option<Cursor> {
        let document = self.folder.document(&self.name).ok()?;
        Some(Cursor { document, file: self.name.clone(), pointer: String::new() })
    }

    fn operations(&mut self, root: &Cursor, found: &mut Vec<String>) {
        let general = root.get("security").map(|security| security_of(&security)).unwrap_or_default();
        for item in root.get("paths").into_iter().flat_map(|paths| paths.members()) {
            let path = item.key();
            if path.starts_with("x-") {
                continue;
            }
            if !path.starts_with('/') {
                found.push(item.wrong("a path begins with `/`"));
                continue;
            }
            let item = match item.follow(&self.folder) {
                Ok(item) => item,
                Err(mistake) => {
                    found.push(mistake);
                    continue;
                }
            };
            for method in METHODS {
                let Some(operation) = item.get(method) else { continue };
                let text = |key: &str| operation.get(key).and_then(|value| value.text().map(str::to_owned));
                let (id, summary) = (text("operationId"), text("summary"));
                if id.is_some() && self.operations.iter().any(|other| other.id == id) {
                    found.push(operation.wrong("two operations have this `operationId`"));
                }
                self.operations.push(Operation {
                    id,
                    summary,
                    method: method.to_ascii_uppercase().parse().unwrap_or(Method::GET),
                    path: path.clone(),
                    security: operation.get("security").map_or_else(|| general.clone(), |own| security_of(&own)),
                    rules: Arc::default(),
                    item: item.clone(),
                    operation,
                });
            }
        }
    }

    /// A parameter; `None` for one that says nothing, or that a nearer one takes the place of.
    fn parameter(
        &self,
        cursor: &Cursor,
        operation: &Operation,
        seen: &mut BTreeSet<(String, String)>,
    ) -> Result<Option<Parameter>, String> {
        let cursor = cursor.follow(&self.folder)?;
        let text = |key: &str| cursor.get(key).and_then(|value| value.text().map(str::to_owned));
        let name = text("name").ok_or_else(|| cursor.wrong("a parameter has a `name`"))?;
        let place = text("in").ok_or_else(|| cursor.wrong("a parameter has an `in`"))?;
        if !seen.insert((place.clone(), name.clone())) {
            return Ok(None);
        }
        let flag = |key: &str| cursor.get(key).and_then(|value| value.value().as_bool());
        let mut required = flag("required").unwrap_or(false);
        let (found, default) = match place.as_str() {
            "query" => (Place::Query, "form"),
            "cookie" => (Place::Cookie, "form"),
            "header" => {
                if ["accept", "content-type", "authorization"].contains(&name.to_ascii_lowercase().as_str()) {
                    return Ok(None);
                }
                let header: HeaderName =
                    name.parse().map_err(|_| cursor.wrong(&format!("`{name}` is not the name of a header field")))?;
                (Place::Header(header), "simple")
            }
            "path" => {
                required = true;
                let position = operation.captures().position(|capture| capture == name);
                let position = position
                    .ok_or_else(|| cursor.wrong(&format!("the path {} has no `{{{name}}}`", operation.path)))?;
                (Place::Path(position), "simple")
            }
            other => return Err(cursor.wrong(&format!("a parameter is not in `{other}`"))),
        };
        let named = text("style");
        let style = named.as_deref().unwrap_or(default);
        let explode = flag("explode").unwrap_or(style == "form");
        let (schema, style) = match (cursor.get("schema"), cursor.get("content")) {
            (Some(schema), None) => {
                let style = match (style, explode) {
                    ("form" | "simple", true) => Style::Exploded,
                    ("form" | "simple", false) => Style::Joined(','),
                    ("spaceDelimited", false) => Style::Joined(' '),
                    ("pipeDelimited", false) => Style::Joined('|'),
                    ("spaceDelimited" | "pipeDelimited", true) => Style::Exploded,
                    ("deepObject", _) => Style::Deep,
                    (other, _) => return Err(cursor.wrong(&format!("the style `{other}` is not supported"))),
                };
                (schema, style)
            }
            (None, Some(content)) => {
                let json = content.members().find(|media| is_json(&media.key()));
                let json = json.ok_or_else(|| cursor.wrong("the content of a parameter is JSON, or not supported"))?;
                (json.get("schema").unwrap_or(json), Style::Json)
            }
            _ => return Err(cursor.wrong("a parameter has either `schema` or `content`")),
        };
        let compiled = self.schema(&schema)?;
        let shape = Shape::of(schema.value(), &schema.file, &self.folder);
        Ok(Some(Parameter::new(&name, found, required, style, shape, compiled)))
    }

    fn body(&self, cursor: &Cursor) -> Result<BodyRules, String> {
        let cursor = cursor.follow(&self.folder)?;
        let required = cursor.get("required").and_then(|value| value.value().as_bool()).unwrap_or(false);
        let mut contents = Vec::new();
        for media in cursor.get("content").into_iter().flat_map(|content| content.members()) {
            let kind = media.key();
            let range = kind.split(';').next().and_then(Range::parse);
            let range = range.ok_or_else(|| cursor.wrong(&format!("`{kind}` is not a media type")))?;
            let schema = match media.get("schema").filter(|_| is_json(&kind)) {
                Some(schema) => Some(Arc::new(self.schema(&schema)?)),
                None => None,
            };
            contents.push((range, schema));
        }
        Ok(BodyRules { required, contents })
    }

    fn schema(&self, cursor: &Cursor) -> Result<Schema, String> {
        cursor.check_schema()?;
        let pointer = percent_encoding::utf8_percent_encode(&cursor.pointer, FRAGMENT);
        let reference = serde_json::json!({ "$ref": format!("{}#{pointer}", Folder::uri(&cursor.file)) });
        Schema::compile(&reference, ".schema", &self.folder).map_err(|error| cursor.wrong(&error))
    }
}

impl Operation {
    /// The names of what the template of its path captures.
    pub fn captures(&self) -> impl Iterator<Item = &str> {
        self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
    }

    /// Whether the path of a route is the operation's, below one of these bases. Captures may have other names.
    pub fn is_at(&self, pattern: &str, bases: &[String]) -> bool {
        bases.iter().any(|base| {
            let own = format!("{base}{}", self.path);
            let (mut own, mut theirs) = (own.split('/'), pattern.split('/'));
            loop {
                match (own.next(), theirs.next()) {
                    (None, None) => return true,
                    (Some(own), Some(theirs)) if own == theirs || (is_capture(own) && is_capture(theirs)) => {}
                    _ => return false,
                }
            }
        })
    }
}

fn is_capture(segment: &str) -> bool {
    segment.starts_with('{') && segment.ends_with('}')
}

impl Cursor {
    fn value(&self) -> &Value {
        self.document.pointer(&self.pointer).unwrap_or(&Value::Null)
    }

    fn text(&self) -> Option<&str> {
        self.value().as_str()
    }

    fn get(&self, key: &str) -> Option<Self> {
        self.value().get(key)?;
        Some(self.below(key))
    }

    /// The members of an object, with what they refer to still to be followed.
    fn members(&self) -> impl Iterator<Item = Self> + use<> {
        let keys: Vec<String> = self.value().as_object().map(|o| o.keys().cloned().collect()).unwrap_or_default();
        let of = self.clone();
        keys.into_iter().map(move |key| of.below(&key))
    }

    fn items(&self) -> impl Iterator<Item = Self> + use<> {
        let of = self.clone();
        (0..self.value().as_array().map_or(0, Vec::len)).map(move |i| of.below(&i.to_string()))
    }

    fn below(&self, key: &str) -> Self {
        let key = key.replace('~', "~0").replace('/', "~1");
        Self { pointer: format!("{}/{key}", self.pointer), ..self.clone() }
    }

    /// The key that it stands under.
    fn key(&self) -> String {
        let key = self.pointer.rsplit('/').next().unwrap_or("");
        key.replace("~1", "/").replace("~0", "~")
    }

    /// What it refers to, or itself.
    fn follow(&self, folder: &Folder) -> Result<Self, String> {
        let mut at = self.clone();
        for _ in 0..32 {
            let Some(reference) = at.value().get("$ref").and_then(Value::as_str) else { return Ok(at) };
            let (file, pointer) = folder.target(&at.file, reference).map_err(|error| at.wrong(&error))?;
            let document = folder.document(&file).map_err(|error| at.wrong(&error))?;
            if document.pointer(&pointer).is_none() {
                return Err(at.wrong(&format!("there is nothing at `{reference}`")));
            }
            at = Self { document, file, pointer };
        }
        Err(self.wrong("its `$ref` leads round in a circle"))
    }

    fn check_schema(&self) -> Result<(), String> {
        check_meta(self.value()).map_err(|error| match error.strip_prefix("at ").and_then(|e| e.split_once(": ")) {
            Some((pointer, error)) => {
                Self { pointer: format!("{}{pointer}", self.pointer), ..self.clone() }.wrong(error)
            }
            None => self.wrong(&error),
        })
    }

    /// This is wrong, here.
    fn wrong(&self, what: &str) -> String {
        format!("{}, at {}: {what}", self.file, self.pointer)
    }
}

/// The sets of security schemes of which one is wanted.
fn security_of(cursor: &Cursor) -> Vec<Vec<String>> {
    cursor.items().map(|set| set.members().map(|scheme| scheme.key()).collect()).collect()
}

/// The paths of the servers' URLs; `""` where there are none.
fn bases(root: &Cursor) -> Vec<String> {
    let servers = root.get("servers").into_iter().flat_map(|servers| servers.items());
    let mut bases: Vec<String> = servers
        .filter_map(|server| {
            let url = server.get("url")?.text()?.to_owned();
            let path = match url.split_once("://") {
                Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
                None => &url,
            };
            Some(path.trim_end_matches('/').to_owned())
        })
        .collect();
    if bases.is_empty() {
        bases.push(String::new());
    }
    bases.dedup();
    bases
}

/// Whether a content type is JSON (RFC 6839, section 3.1).
fn is_json(kind: &str) -> bool {
    super::is_json(kind.as_bytes()) || matches!(media::essence(kind.as_bytes()), b"*/*" | b"application/*")
}

/// What is escaped in the fragment of a URI.
const FRAGMENT: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'~').remove(b'-').remove(b'.').remove(b'_').remove(b'$');

#[cfg(test)]
mod tests;
