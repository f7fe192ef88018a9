//! Parameters of a request: found in its path, query, header fields or cookies, read as their schemas want them (the
//! styles of OpenAPI), and checked.
//!
//! A text is read as what the schema's `type` allows: `7` as a number where that may be `integer`, else as a text. One that
//! comes twice where one is wanted is refused, for the upstream might take the other.

use std::borrow::Cow;
use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::json_text::is_number;
use super::schema::{Folder, Schema, Violation, json};

/// A parameter that is checked.
pub struct Parameter {
    name: Box<str>,
    place: Place,
    required: bool,
    style: Style,
    shape: Shape,
    schema: Schema,
}

/// Where a parameter is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the query.
    Query,
    /// The capture of the route's path at this position.
    Path(usize),
    /// In the header fields of this name.
    Header(HeaderName),
    /// In the cookies.
    Cookie,
}

/// How lists and objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// One value, with this between items, or between names and values.
    Joined(char),
    /// An item or a member is a parameter of its own; in a header field and in a path, `a=1,b=2`.
    Exploded,
    /// `name[member]=value`.
    Deep,
    /// JSON.
    Json,
}

/// What a request has.
pub struct Given<'r> {
    /// Its query, as it was sent.
    pub query: Option<&'r str>,
    /// Its header fields.
    pub headers: &'r HeaderMap,
    /// The text of a capture of the path, as it was sent.
    pub capture: &'r dyn Fn(usize) -> &'r str,
}

/// What types a schema allows, so that a text can be read as one of them.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    integer: bool,
    number: bool,
    boolean: bool,
    null: bool,
    array: bool,
    object: bool,
    items: Option<Box<Shape>>,
    members: BTreeMap<String, Shape>,
}

/// What was given for a parameter.
enum Found<'r> {
    Nothing,
    One(Cow<'r, str>),
    Several(Vec<Cow<'r, str>>),
}

/// How far a shape is followed.
const DEPTH: usize = 8;

impl Parameter {
    /// A parameter that a schema describes.
    pub fn new(name: &str, place: Place, required: bool, style: Style, shape: Shape, schema: Schema) -> Self {
        Self { name: name.into(), place, required, style, shape, schema }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is in a header field.
    pub fn is_header(&self) -> bool {
        matches!(self.place, Place::Header(_))
    }

    /// What is wrong with it in a request: at most `most` things.
    ///
    /// # Errors
    /// At least one thing, in words.
    pub fn check(&self, given: &Given<'_>, most: usize) -> Result<(), Vec<String>> {
        match self.read(given) {
            Err(what) => Err(vec![what.to_owned()]),
            Ok(None) if self.required => Err(vec!["is missing".to_owned()]),
            Ok(None) => Ok(()),
            Ok(Some(value)) => self
                .schema
                .check_value(&value, most)
                .map_err(|violations| violations.into_iter().map(Violation::in_words).collect()),
        }
    }

    fn read(&self, given: &Given<'_>) -> Result<Option<Value>, &'static str> {
        let pairs = match self.place {
            Place::Query => pairs(given.query.unwrap_or("")),
            _ => Vec::new(),
        };
        if self.place == Place::Query && self.shape.object {
            match self.style {
                Style::Deep => return self.members(&pairs, |name| deep(&self.name, name)),
                Style::Exploded => return self.members(&pairs, |name| Some(name.to_owned())),
                _ => {}
            }
        }
        match self.find(given, &pairs)? {
            Found::Nothing => Ok(None),
            Found::One(text) => self.value(&text).map(Some),
            Found::Several(texts) if self.shape.array => {
                texts.iter().map(|text| self.item(text)).collect::<Result<_, _>>().map(Value::Array).map(Some)
            }
            Found::Several(_) => Err("is given more than once"),
        }
    }

    /// What is given for it, still escaped.
    fn find<'r>(&self, given: &Given<'r>, pairs: &[(String, &'r str)]) -> Result<Found<'r>, &'static str> {
        let mut texts: Vec<Cow<'r, str>> = match &self.place {
            Place::Query => {
                pairs.iter().filter(|(name, _)| **name == *self.name).map(|(_, value)| (*value).into()).collect()
            }
            Place::Path(position) => vec![(given.capture)(*position).into()],
            Place::Header(name) => given.headers.get_all(name).iter().map(header_text).collect::<Result<_, _>>()?,
            Place::Cookie => cookies(given.headers, &self.name)?,
        };
        if matches!(self.place, Place::Header(_)) && (self.shape.array || self.shape.object) && texts.len() > 1 {
            texts = vec![texts.join(",").into()];
        }
        let is_list = self.place == Place::Query && self.style == Style::Exploded && self.shape.array;
        Ok(match texts.len() {
            0 => Found::Nothing,
            1 if !is_list => texts.pop().map_or(Found::Nothing, Found::One),
            _ => Found::Several(texts),
        })
    }

    /// One text as what the schema wants.
    fn value(&self, text: &str) -> Result<Value, &'static str> {
        if self.style == Style::Json {
            return json::parse(self.decode(text)?.as_bytes()).map_err(|_| "is no valid JSON");
        }
        let separator = match self.style {
            Style::Joined(separator) => separator,
            _ => ',',
        };
        if self.shape.array {
            return split(text, separator).map(|item| self.item(item)).collect::<Result<_, _>>().map(Value::Array);
        }
        if !self.shape.object {
            return Ok(self.shape.read(&self.decode(text)?));
        }
        let mut object = Map::new();
        let mut parts = split(text, separator);
        while let Some(part) = parts.next() {
            let (name, value) = match self.style {
                Style::Exploded => part.split_once('=').ok_or("is not written as name=value")?,
                _ => (part, parts.next().ok_or("has a name without a value")?),
            };
            self.member(&mut object, self.decode(name)?.into_owned(), value)?;
        }
        Ok(Value::Object(object))
    }

    /// An object out of the query's parameters that are members of it.
    fn members(
        &self,
        pairs: &[(String, &str)],
        member: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Value>, &'static str> {
        let mut object = Map::new();
        for (name, value) in pairs {
            let Some(name) = member(name) else { continue };
            if self.style == Style::Deep || self.shape.members.contains_key(&name) {
                self.member(&mut object, name, value)?;
            }
        }
        Ok((!object.is_empty()).then_some(Value::Object(object)))
    }

    fn member(&self, object: &mut Map<String, Value>, name: String, value: &str) -> Result<(), &'static str> {
        let value = self.decode(value)?;
        let value = self.shape.members.get(&name).map_or_else(|| Value::from(&*value), |shape| shape.read(&value));
        match object.insert(name, value) {
            None => Ok(()),
            Some(_) => Err("has a member that is given more than once"),
        }
    }

    fn item(&self, text: &str) -> Result<Value, &'static str> {
        let text = self.decode(text)?;
        Ok(self.shape.items.as_ref().map_or_else(|| Value::from(&*text), |shape| shape.read(&text)))
    }

    /// A text without the escapes of its place.
    fn decode<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, &'static str> {
        match self.place {
            Place::Query => decode_query(text).ok_or("is not UTF-8"),
            Place::Path(_) => percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8"),
            Place::Header(_) => Ok(text.trim_matches([' ', '\t']).into()),
            Place::Cookie => Ok(text.into()),
        }
    }
}

impl Violation {
    /// What is wrong with a parameter: its name is said elsewhere.
    fn in_words(self) -> String {
        match self.pointer.as_str() {
            "#" => self.message,
            pointer => format!("{pointer} {}", self.message),
        }
    }
}

impl Shape {
    /// The types that a schema in this file of the folder allows.
    pub fn of(schema: &Value, file: &str, folder: &Folder) -> Self {
        let mut shape = Self::default();
        shape.add(schema, file, folder, DEPTH);
        shape
    }

    fn add(&mut self, schema: &Value, file: &str, folder: &Folder, depth: usize) {
        let (Some(schema), Some(depth)) = (schema.as_object(), depth.checked_sub(1)) else { return };
        let inner = |schema: &Value| {
            let mut shape = Self::default();
            shape.add(schema, file, folder, depth);
            shape
        };
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str)
            && let Ok((file, pointer)) = folder.target(file, reference)
            && let Ok(document) = folder.document(&file)
            && let Some(target) = document.pointer(&pointer)
        {
            self.add(target, &file, folder, depth);
        }
        let types = match schema.get("type") {
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(one)) => vec![one.as_str()],
            _ => Vec::new(),
        };
        types.into_iter().for_each(|one| self.allow(one));
        let values = schema.get("enum").and_then(Value::as_array).into_iter().flatten().chain(schema.get("const"));
        if !schema.contains_key("type") {
            values.for_each(|value| self.allow(type_of(value)));
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for schema in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.add(schema, file, folder, depth);
            }
        }
        if let Some(items) = schema.get("items") {
            self.items = Some(Box::new(inner(items)));
        }
        for (name, schema) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            self.members.insert(name.clone(), inner(schema));
        }
    }

    fn allow(&mut self, one: &str) {
        match one {
            "integer" => self.integer = true,
            "number" => self.number = true,
            "boolean" => self.boolean = true,
            "null" => self.null = true,
            "array" => self.array = true,
            "object" => self.object = true,
            _ => {}
        }
    }

    /// A text as what is allowed; as a text where it is nothing else.
    fn read(&self, text: &str) -> Value {
        match text {
            "true" | "false" if self.boolean => return (text == "true").into(),
            "" | "null" if self.null => return Value::Null,
            _ => {}
        }
        // Only what JSON calls a number: no `+1`, `0x1` or `1.`.
        let is_number = (self.integer || self.number) && is_number(text);
        is_number.then(|| json::number(text)).flatten().map_or_else(|| text.into(), Value::Number)
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The parameters of a query: names without escapes, values with them.
fn pairs(query: &str) -> Vec<(String, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let split = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    split.filter_map(|(name, value)| Some((decode_query(name)?.into_owned(), value))).collect()
}

/// A text of a query without its escapes; `None` if it is not UTF-8.
fn decode_query(text: &str) -> Option<Cow<'_, str>> {
    let text: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    match text {
        Cow::Borrowed(text) => percent_decode_str(text).decode_utf8().ok(),
        Cow::Owned(text) => Some(percent_decode_str(&text).decode_utf8().ok()?.into_owned().into()),
    }
}

/// The parts of a text; none where it is empty. A separator that a query has to escape is found escaped too.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let escaped = match separator {
        ' ' => &["%20", "+"][..],
        '|' => &["%7C", "%7c", "|"],
        _ => &[","],
    };
    let mut rest = (!text.is_empty()).then_some(text);
    std::iter::from_fn(move || {
        let whole = rest?;
        let next = escaped.iter().filter_map(|s| Some((whole.find(s)?, s.len()))).min();
        let Some((end, length)) = next else { return rest.take() };
        rest = Some(&whole[end + length..]);
        Some(&whole[..end])
    })
}

/// The member that `name[member]` means.
fn deep(of: &str, name: &str) -> Option<String> {
    name.strip_prefix(of)?.strip_prefix('[')?.strip_suffix(']').map(str::to_owned)
}

fn header_text(value: &HeaderValue) -> Result<Cow<'_, str>, &'static str> {
    value.to_str().map(Cow::from).map_err(|_| "has characters that are not ASCII")
}

/// The values of a cookie (RFC 6265, section 4.2.1).
fn cookies<'r>(headers: &'r HeaderMap, name: &str) -> Result<Vec<Cow<'r, str>>, &'static str> {
    let mut found = Vec::new();
    for field in headers.get_all(http::header::COOKIE) {
        let Ok(text) = field.to_str() else {
            return Err("cannot be read: the cookies have characters that are not ASCII");
        };
        let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
        found.extend(pairs.filter(|(key, _)| *key == name).map(|(_, value)| Cow::from(value.trim_matches('"'))));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn parameter(place: Place, style: Style, schema: Value) -> Parameter {
        let folder = Folder::new(Path::new(""), |_| {});
        let name = folder.hold(schema.clone());
        let shape = Shape::of(&schema, name, &folder);
        let schema = Schema::compile(&schema, name, &folder).unwrap();
        Parameter::new("p", place, false, style, shape, schema)
    }

    fn read(parameter: &Parameter, query: &str) -> Result<Option<Value>, &'static str> {
        let headers = HeaderMap::new();
        parameter.read(&Given { query: Some(query), headers: &headers, capture: &|_| "" })
    }

    #[test]
    fn a_text_is_read_as_what_the_schema_wants() {
        let query = |schema: Value, query: &str| read(&parameter(Place::Query, Style::Exploded, schema), query);
        let integer = || json!({"type": "integer"});
        assert_eq!(query(integer(), "p=7"), Ok(Some(json!(7))));
        assert_eq!(query(integer(), "q=7"), Ok(None));
        assert_eq!(query(integer(), "p=7&p=8"), Err("is given more than once"));
        for text in ["+7", "%2B7", "0x7", "07", "7.", "%207", "", "seven"] {
            assert!(matches!(query(integer(), &format!("p={text}")), Ok(Some(Value::String(_)))), "{text}");
        }
        assert_eq!(query(json!({"type": "string"}), "p=7"), Ok(Some(json!("7"))));
        assert_eq!(query(json!({"type": "string"}), "%70=a+b%C3%BC"), Ok(Some(json!("a bü"))));
        assert_eq!(query(json!({"type": "string"}), "p=%ff"), Err("is not UTF-8"));
        assert_eq!(query(json!({"type": ["boolean", "null"]}), "p=true"), Ok(Some(json!(true))));
        assert_eq!(query(json!({"type": ["boolean", "null"]}), "p="), Ok(Some(json!(null))));
        assert_eq!(
            query(json!({"allOf": [{"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "number"}}}), "p=1.5"),
            Ok(Some(json!(1.5)))
        );
        assert_eq!(query(json!({"enum": [1, 2]}), "p=2"), Ok(Some(json!(2))));
        let list = || json!({"type": "array", "items": {"type": "integer"}});
        assert_eq!(query(list(), "p=1&p=2"), Ok(Some(json!([1, 2]))));
        assert_eq!(query(list(), "p=1"), Ok(Some(json!([1]))));
        let object = || json!({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}});
        assert_eq!(query(object(), "a=1&b=2&c=3"), Ok(Some(json!({"a": 1, "b": "2"}))));
        let styled = |style: Style, schema: Value, query: &str| read(&parameter(Place::Query, style, schema), query);
        assert_eq!(styled(Style::Joined(','), list(), "p=1,2"), Ok(Some(json!([1, 2]))));
        assert_eq!(styled(Style::Joined('|'), list(), "p=1%7C2|3"), Ok(Some(json!([1, 2, 3]))));
        assert_eq!(styled(Style::Joined(' '), list(), "p=1%202+3"), Ok(Some(json!([1, 2, 3]))));
        assert_eq!(styled(Style::Joined(','), json!({"type": "array"}), "p=a%2Cb,c"), Ok(Some(json!(["a,b", "c"]))));
        assert_eq!(styled(Style::Joined(','), object(), "p=a,1,b,2"), Ok(Some(json!({"a": 1, "b": "2"}))));
        assert_eq!(styled(Style::Deep, object(), "p[a]=1&p%5Bx%5D=2&q=1"), Ok(Some(json!({"a": 1, "x": "2"}))));
        assert_eq!(styled(Style::Deep, object(), "p[a]=1&p[a]=2"), Err("has a member that is given more than once"));
        assert_eq!(styled(Style::Json, object(), "p=%7B%22a%22:1%7D"), Ok(Some(json!({"a": 1}))));
        assert_eq!(styled(Style::Json, object(), "p={"), Err("is no valid JSON"));
    }

    #[test]
    fn parameters_are_found_in_their_places() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-n", "7"), ("x-list", "1, 2"), ("x-list", "3"), ("cookie", "a=1; p=2"), ("x-o", "a=1,b=2")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        let read = |place: Place, style: Style, schema: Value| {
            parameter(place, style, schema).read(&Given { query: None, headers: &headers, capture: &|_| "a%2Fb" })
        };
        let header = |name: &'static str| Place::Header(HeaderName::from_static(name));
        let simple = Style::Joined(',');
        assert_eq!(read(header("x-n"), simple, json!({"type": "integer"})), Ok(Some(json!(7))));
        assert_eq!(read(header("x-list"), simple, json!({"type": "string"})), Err("is given more than once"));
        assert_eq!(
            read(header("x-list"), simple, json!({"type": "array", "items": {"type": "integer"}})),
            Ok(Some(json!([1, 2, 3])))
        );
        assert_eq!(
            read(header("x-o"), Style::Exploded, json!({"type": "object"})),
            Ok(Some(json!({"a": "1", "b": "2"})))
        );
        assert_eq!(read(Place::Cookie, simple, json!({"type": "integer"})), Ok(Some(json!(2))));
        assert_eq!(read(Place::Path(0), simple, json!({})), Ok(Some(json!("a/b"))));
    }
}
