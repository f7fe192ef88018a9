//! Forms and JSON: `application/x-www-form-urlencoded` (WHATWG URL, section 5) both ways, and `multipart/form-data` as JSON.
//!
//! ```toml
//! arrays   = ["tag"]       # fields that are arrays, even if there is one
//! numbers  = ["amount"]    # values that are numbers of JSON
//! booleans = ["agreed"]    # values that are `true` or `false`
//! files    = "refuse"      # "base64": files of multipart forms as objects
//! ```
//!
//! | Form | JSON |
//! | --- | --- |
//! | `a=1&b=2&a=3` | `{"a":["1","3"],"b":"2"}` |
//! | `a=x+y%26&b` | `{"a":"x y&","b":""}` |
//! | `a[b]=1&c[]=2` | `{"a[b]":"1","c[]":"2"}`: brackets mean nothing |
//!
//! JSON that came of a form becomes a form with the same fields; where fields of several names interleave, those of one name
//! come together. That form becomes the same JSON, by the same configuration. What else JSON may have: an empty array is no
//! field, `null` is an empty value, numbers and booleans are their text. Objects in objects and arrays in arrays are refused.
//!
//! A form is read strictly: a `%` without two digits, or what is not UTF-8, is refused, as are more than [`FIELDS`] fields.

mod multipart;

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;

use super::json_text::is_number;
use super::tokens::{Json, Kind, Node, short, utf8, write_string};
use super::{Malformed, Mistake};

/// How many fields are read of a form.
pub const FIELDS: usize = 10_000;

/// The mapping as it is written.
#[derive(Deserialize, Default, Debug, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct FormConfig {
    /// The fields that are arrays, even if there is one.
    pub arrays: Vec<String>,
    /// The fields that are numbers, where they are written as those of JSON; others stay texts.
    pub numbers: Vec<String>,
    /// The fields that are booleans, where they are `true` or `false`; others stay texts.
    pub booleans: Vec<String>,
    /// What becomes of the files of a multipart form.
    pub files: Files,
}

/// What becomes of files.
#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Files {
    /// A form with one is refused.
    #[default]
    Refuse,
    /// They are objects: `{"filename":"a.png","content_type":"image/png","content":"iVBORw0KGgo="}`.
    Base64,
}

/// The mapping, ready for use.
#[derive(Debug, Clone)]
pub struct Form(FormConfig);

impl FormConfig {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn compile(&self) -> Result<Form, Vec<Mistake>> {
        let twice = |(number, name): (usize, &String)| {
            let what = || format!("`{name}` is among the numbers as well");
            self.numbers.contains(name).then(|| Mistake::new(format!("booleans[{number}]"), what()))
        };
        let mistakes: Vec<Mistake> = self.booleans.iter().enumerate().filter_map(twice).collect();
        if mistakes.is_empty() { Ok(Form(self.clone())) } else { Err(mistakes) }
    }
}

/// A field of a form.
struct Field<'a> {
    name: Cow<'a, str>,
    value: Value<'a>,
}

/// What a field holds.
enum Value<'a> {
    Text(Cow<'a, str>),
    File { filename: Cow<'a, str>, content_type: &'a str, content: &'a [u8] },
}

impl Form {
    /// Makes JSON of an URL-encoded form, in at most eight times its size and a few bytes.
    ///
    /// # Errors
    /// It is not well-formed, or has more than [`FIELDS`] fields.
    pub fn to_json(&self, form: &[u8]) -> Result<Vec<u8>, Malformed> {
        let text = utf8(form)?;
        let mut fields = Vec::new();
        let mut at = 0;
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !pair.is_empty() {
                let start = at + name.len() + 1;
                fields.push(Field { name: decode(name, at)?, value: Value::Text(decode(value, start)?) });
            }
            if fields.len() > FIELDS {
                return Err(Malformed::new(at as u64, format!("the form has more than {FIELDS} fields")));
            }
            at += pair.len() + 1;
        }
        Ok(self.write(&fields))
    }

    /// Makes JSON of a multipart form (RFC 7578), whose content type has the boundary; files take four thirds of their size,
    /// texts at most eight times.
    ///
    /// A text is a string whatever its own content type is. The form is read strictly: there is nothing before the first part
    /// and after the last, lines end in CR and LF, and parts are neither encoded nor nested.
    ///
    /// # Errors
    /// It is not well-formed, has more than [`FIELDS`] fields, or a file, if these are refused.
    pub fn multipart_to_json(&self, form: &[u8], content_type: &str) -> Result<Vec<u8>, Malformed> {
        let fields = multipart::read(form, content_type)?;
        let file = fields.iter().find(|(_, field)| matches!(field.value, Value::File { .. }));
        if let (Some((at, field)), Files::Refuse) = (file, self.0.files) {
            return Err(Malformed::new(*at, format!("the field `{}` is a file", short(&field.name))));
        }
        let fields: Vec<Field> = fields.into_iter().map(|(_, field)| field).collect();
        Ok(self.write(&fields))
    }

    /// Makes an URL-encoded form of JSON, of at most `limit` bytes: since each element of an array has a name, it may be much
    /// larger than the JSON.
    ///
    /// # Errors
    /// It is not JSON, has a name twice, or is not an object of texts, numbers, booleans, `null` and arrays of such. The
    /// message begins with the JSON Pointer of the value.
    pub fn from_json(&self, json: &[u8], limit: usize) -> Result<Vec<u8>, Malformed> {
        let json = Json::read(json)?;
        if json.root().kind() != Kind::Object {
            return Err(json.root().wrong("an object is expected"));
        }
        let mut form = Vec::new();
        for (name, value) in json.root().members() {
            match value.kind() {
                Kind::Array => value.items().try_for_each(|value| append(&name, value, limit, &mut form))?,
                _ => append(&name, value, limit, &mut form)?,
            }
        }
        Ok(form)
    }

    fn write(&self, fields: &[Field<'_>]) -> Vec<u8> {
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let mut groups: Vec<(&str, Vec<&Value>)> = Vec::new();
        for Field { name, value } in fields {
            let number = *numbers.entry(name).or_insert(groups.len());
            match groups.get_mut(number) {
                Some((_, values)) => values.push(value),
                None => groups.push((name, vec![value])),
            }
        }
        let mut json = vec![b'{'];
        for (number, (name, values)) in groups.into_iter().enumerate() {
            if number > 0 {
                json.push(b',');
            }
            write_string(name, &mut json);
            json.push(b':');
            let array = values.len() > 1 || has(&self.0.arrays, name);
            if array {
                json.push(b'[');
            }
            for (number, value) in values.into_iter().enumerate() {
                if number > 0 {
                    json.push(b',');
                }
                self.value(name, value, &mut json);
            }
            if array {
                json.push(b']');
            }
        }
        json.push(b'}');
        json
    }

    fn value(&self, name: &str, value: &Value<'_>, json: &mut Vec<u8>) {
        match value {
            Value::Text(text) => {
                let plain = is_number(text) && has(&self.0.numbers, name)
                    || matches!(&**text, "true" | "false") && has(&self.0.booleans, name);
                match plain {
                    true => json.extend_from_slice(text.as_bytes()),
                    false => write_string(text, json),
                }
            }
            Value::File { filename, content_type, content } => {
                json.extend_from_slice(b"{\"filename\":");
                write_string(filename, json);
                json.extend_from_slice(b",\"content_type\":");
                write_string(content_type, json);
                json.extend_from_slice(b",\"content\":\"");
                let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, content);
                json.extend_from_slice(text.as_bytes());
                json.extend_from_slice(b"\"}");
            }
        }
    }
}

fn has(names: &[String], name: &str) -> bool {
    names.iter().any(|other| other == name)
}

fn append(name: &str, value: Node<'_>, limit: usize, form: &mut Vec<u8>) -> Result<(), Malformed> {
    let text = match value.kind() {
        Kind::Null => Cow::Borrowed(""),
        Kind::Boolean | Kind::Number | Kind::String => value.text(),
        Kind::Array | Kind::Object => return Err(value.wrong("a text, a number, `true` or `false` is expected")),
    };
    if !form.is_empty() {
        form.push(b'&');
    }
    let encoded = |text: &str, form: &mut Vec<u8>| {
        form_urlencoded::byte_serialize(text.as_bytes()).for_each(|part| form.extend_from_slice(part.as_bytes()));
    };
    encoded(name, form);
    form.push(b'=');
    encoded(&text, form);
    match form.len() > limit {
        true => Err(value.wrong(&format!("the form is larger than {limit} bytes"))),
        false => Ok(()),
    }
}

/// A name or a value, which stands at a place in the form.
fn decode(raw: &str, at: usize) -> Result<Cow<'_, str>, Malformed> {
    if memchr::memchr2(b'%', b'+', raw.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let place = at + raw.len() - rest.len() - 1;
                let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
                let (Some(high), Some(low)) = (digit(), digit()) else {
                    return Err(Malformed::new(place as u64, "`%` must have two hexadecimal digits after it"));
                };
                (high * 16 + low) as u8
            }
            byte => byte,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| Malformed::new(at as u64, "this is not UTF-8 once decoded"))?;
    Ok(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(super) fn form(toml: &str) -> Form {
        toml::from_str::<FormConfig>(toml).unwrap().compile().unwrap()
    }

    fn json(toml: &str, text: &str) -> Result<String, Malformed> {
        form(toml).to_json(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn urlencoded(json: &str) -> Result<String, Malformed> {
        form("").from_json(json.as_bytes(), 1 << 20).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn fields_are_members() {
        for (text, value) in [
            ("a=1&b=2", r#"{"a":"1","b":"2"}"#),
            ("a=1&a=3&b=2", r#"{"a":["1","3"],"b":"2"}"#),
            ("a=x+y%26", r#"{"a":"x y&"}"#),
            ("a%5Bb%5D=1&c%5B%5D=2", r#"{"a[b]":"1","c[]":"2"}"#),
            ("%C3%A9=%22%00", r#"{"é":"\"\u0000"}"#),
            ("=", r#"{"":""}"#),
            ("", "{}"),
        ] {
            assert_eq!(json("", text).as_deref(), Ok(value));
            assert_eq!(urlencoded(value).as_deref(), Ok(text));
        }
        assert_eq!(json("", "a=1&b=2&a=3").unwrap(), r#"{"a":["1","3"],"b":"2"}"#);
        assert_eq!(json("", "&&a&b==&").unwrap(), r#"{"a":"","b":"="}"#);
        assert_eq!(json("", "a[b]=é").unwrap(), r#"{"a[b]":"é"}"#);
    }

    #[test]
    fn arrays_numbers_and_booleans_are_named() {
        let toml = "arrays = ['a', 'n']\nnumbers = ['n', 'm']\nbooleans = ['b']";
        assert_eq!(
            json(toml, "a=1&n=1.0&m=-2e9&b=true&c=1").unwrap(),
            r#"{"a":["1"],"n":[1.0],"m":-2e9,"b":true,"c":"1"}"#
        );
        assert_eq!(json(toml, "m=01&b=yes").unwrap(), r#"{"m":"01","b":"yes"}"#);
        assert_eq!(urlencoded(r#"{"a":1.50,"b":[true,null,"x"],"c":[],"d":null}"#).unwrap(), "a=1.50&b=true&b=&b=x&d=");
    }

    #[test]
    fn what_is_not_a_form_is_refused() {
        for (text, at) in [("a=%", 2), ("a=1&b%4=", 5), ("a=%zz", 2), ("a=%+1", 2), ("x=1&a=%ff", 6), ("a%c3=%a9", 0)] {
            assert_eq!(json("", text).map_err(|wrong| wrong.at), Err(at), "{text}");
        }
        assert!(form("").to_json(b"a=\xff").is_err());
        assert!(json("", &"a&".repeat(FIELDS)).is_ok());
        assert!(json("", &"a&".repeat(FIELDS + 1)).unwrap_err().what.contains("more than 10000 fields"));
        assert!(json("", &"&".repeat(1_000_000)).is_ok());
    }

    #[test]
    fn what_a_form_cannot_say_is_refused() {
        for (value, what) in [
            ("[]", "the whole JSON value: an object is expected"),
            ("1", "the whole JSON value: an object is expected"),
            (r#"{"a":{"b":1}}"#, "/a: a text"),
            (r#"{"a":[1,[2]]}"#, "/a/1: a text"),
            (r#"{"a":[{}]}"#, "/a/0: a text"),
            (r#"{"a":1,"a":2}"#, "`a` twice"),
        ] {
            let wrong = urlencoded(value).unwrap_err();
            assert!(wrong.what.contains(what), "{value}: {wrong}");
        }
        let large = format!("{{\"{}\":[{}1]}}", "n".repeat(1000), "1,".repeat(1000));
        assert!(form("").from_json(large.as_bytes(), 10_000).unwrap_err().what.contains("larger than 10000"));
        assert!(form("").from_json(b"{\"a\":1}", 3).is_ok());
    }

    #[test]
    fn mistakes_of_the_configuration_have_their_key() {
        let config: FormConfig = toml::from_str("numbers = ['a']\nbooleans = ['b', 'a']").unwrap();
        assert_eq!(config.compile().unwrap_err()[0].key, "booleans[1]");
        assert!(toml::from_str::<FormConfig>("array = []").is_err());
    }

    proptest! {
        #[test]
        fn a_form_survives_json(fields in prop::collection::vec(("[ab]|.{0,2}", ".{0,4}|true|[0-9]{1,2}"), 0..8)) {
            let form = form("arrays = ['a']\nnumbers = ['b']\nbooleans = ['a']");
            let mut text = form_urlencoded::Serializer::new(String::new());
            fields.iter().for_each(|(name, value)| { text.append_pair(name, value); });
            let text = text.finish();
            let json = form.to_json(text.as_bytes()).unwrap();
            serde_json::from_slice::<serde_json::Value>(&json).unwrap();
            let again = form.from_json(&json, usize::MAX).unwrap();
            let names: Vec<&String> = fields.iter().map(|(name, _)| name).collect();
            let mut grouped = fields.clone();
            grouped.sort_by_key(|(name, _)| names.iter().position(|other| *other == name));
            let read: Vec<(String, String)> = form_urlencoded::parse(&again).into_owned().collect();
            prop_assert_eq!(read, grouped);
            prop_assert_eq!(form.to_json(&again).unwrap(), json);
        }

        #[test]
        fn nothing_panics(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "(a|=|&|%|%41|[+\u{1}]|é){0,16}".prop_map(String::into_bytes),
        ]) {
            let form = form("arrays = ['a', '\\u0001']");
            if let Ok(json) = form.to_json(&bytes) {
                prop_assert!(json.len() <= 8 * bytes.len() + 64);
            }
            let _ = form.from_json(&bytes, usize::MAX);
        }
    }
}
