//! Reading YAML 1.2 (its core schema) as JSON: what a configuration names, never what a client sends.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::json;
use crate::body::DEPTH;

/// How many nodes a document may have once its aliases stand for what they mean.
const MOST_NODES: usize = 1 << 20;

/// Reads the one document of a text.
///
/// # Errors
/// What is wrong, with its line and column. What JSON cannot say is wrong too: keys that are no text, tags.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut stack: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, (Value, usize)> = HashMap::new();
    let (mut root, mut nodes, mut documents) = (None, 0usize, 0);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            format!("line {}, column {}: {}", error.marker().line(), error.marker().col() + 1, error.info())
        })?;
        let wrong = |what: &str| format!("line {}, column {}: {what}", span.start.line(), span.start.col() + 1);
        let done = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return Err(wrong("a second document begins here: a file has one"));
                }
                continue;
            }
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) if tag.is_some() => {
                let _ = anchor;
                return Err(wrong("tags are not supported"));
            }
            Event::SequenceStart(anchor, _) => {
                stack.push(Open { anchor, before: nodes, value: Value::Array(Vec::new()), key: None });
                None
            }
            Event::MappingStart(anchor, _) => {
                stack.push(Open { anchor, before: nodes, value: Value::Object(Map::new()), key: None });
                None
            }
            Event::SequenceEnd | Event::MappingEnd => {
                stack.pop().map(|open| (open.value, open.anchor, nodes - open.before + 1))
            }
            Event::Scalar(text, style, anchor, tag) => {
                Some((scalar(&text, style, tag.as_deref()).map_err(wrong)?, anchor, 1))
            }
            Event::Alias(anchor) => {
                let (value, size) = anchors.get(&anchor).ok_or_else(|| wrong("this alias stands within itself"))?;
                nodes += size;
                if nodes > MOST_NODES {
                    return Err(wrong("the aliases make the document too large"));
                }
                Some((value.clone(), 0, 0))
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => None,
        };
        if stack.len() > DEPTH {
            return Err(wrong("it lies too deep"));
        }
        let Some((value, anchor, size)) = done else { continue };
        nodes += 1;
        if nodes > MOST_NODES {
            return Err(wrong("the document is too large"));
        }
        if anchor > 0 {
            anchors.insert(anchor, (value.clone(), size));
        }
        match stack.last_mut() {
            Some(open) => open.add(value, span)?,
            None => root = Some(value),
        }
    }
    root.ok_or_else(|| "the file is empty".to_owned())
}

/// A list or a table whose end is still to come.
struct Open {
    anchor: usize,
    /// How many nodes there were before it.
    before: usize,
    value: Value,
    key: Option<String>,
}

impl Open {
    fn add(&mut self, value: Value, span: Span) -> Result<(), String> {
        let wrong = |what: &str| format!("line {}, column {}: {what}", span.start.line(), span.start.col() + 1);
        match (&mut self.value, self.key.take()) {
            (Value::Array(items), _) => items.push(value),
            (Value::Object(object), Some(key)) => drop(object.insert(key, value)),
            (Value::Object(object), None) => {
                // Numbers as keys are common: the statuses of an OpenAPI document.
                let key = match value {
                    Value::String(text) => text,
                    Value::Number(number) => number.to_string(),
                    Value::Bool(value) => value.to_string(),
                    Value::Null => "null".to_owned(),
                    _ => return Err(wrong("a key is a text")),
                };
                if key == "<<" {
                    return Err(wrong("merge keys are not part of YAML 1.2"));
                }
                if object.contains_key(&key) {
                    return Err(wrong(&format!("the key `{key}` comes twice")));
                }
                self.key = Some(key);
            }
            _ => {}
        }
        Ok(())
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, &'static str> {
    match tag {
        None => {}
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => return Ok(text.into()),
        Some(_) => return Err("tags are not supported"),
    }
    if style != ScalarStyle::Plain {
        return Ok(text.into());
    }
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => true.into(),
        "false" | "False" | "FALSE" => false.into(),
        _ => match plain_number(text) {
            Some(number) => number,
            None => text.into(),
        },
    })
}

/// A number by the core schema; one that JSON cannot hold exactly stays text.
fn plain_number(text: &str) -> Option<Value> {
    let radix = |prefix: &str, radix: u32| {
        text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok()).map(Value::from)
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(number);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let fine = digits(whole) && digits(fraction) && digits(exponent) && !exponent.is_empty();
    if !fine || whole.len() + fraction.len() == 0 {
        return None;
    }
    json::number(text.strip_prefix('+').unwrap_or(text)).map(Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_is_read_as_json() {
        let text = "a: 1\nb: [x, 'y', \"z\", ~, true, 1.5, 1e3, 0x1f, .5, '1', 1.2.3, no]\nc: &c\n  d: |\n    text\n  \
                    200: e\ne: *c\nf: {}\n";
        let expected = json!({
            "a": 1, "b": ["x", "y", "z", null, true, 1.5, 1000, 31, 0.5, "1", "1.2.3", "no"],
            "c": { "d": "text\n", "200": "e" }, "e": { "d": "text\n", "200": "e" }, "f": {},
        });
        assert_eq!(parse(text), Ok(expected));
        assert_eq!(parse("{\"a\": [1, 2]}"), Ok(json!({"a": [1, 2]})));
    }

    #[test]
    fn what_is_no_json_or_has_no_bounds_is_refused() {
        let bomb: String =
            (1..40).map(|i| format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 9].join(", "))).collect();
        for (text, what) in [
            ("a: 1\na: 2", "line 2, column 1: the key `a` comes twice"),
            ("a: !!binary x", "tags are not supported"),
            ("a: !x {}", "tags are not supported"),
            ("? [a]\n: b", "a key is a text"),
            ("a: 1\n---\nb: 2", "a second document"),
            ("<<: {a: 1}", "merge keys"),
            ("a: [", "line"),
            ("a: *b", "line 1"),
            ("", "empty"),
            (&format!("a0: &a0 x\n{bomb}"), "too large"),
            (&"[".repeat(200), "too deep"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(what), "{}: {error}", &text[..text.len().min(40)]);
        }
    }
}
