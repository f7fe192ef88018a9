//! The answers of several upstreams, as JSON texts: what the parts of an aggregate say to each other, and what is put
//! together of them. Nothing of a text is changed, so numbers, the order of members and escapes stay as they are.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use bytes::Bytes;
use indexmap::IndexMap;
use serde::de::{self, Deserialize, Deserializer, MapAccess};
use serde_json::value::RawValue;

use super::tokens::write_string;

/// What parts have answered, by their position: JSON texts.
#[derive(Debug, Clone, Default)]
pub struct Parts(pub Vec<Option<Bytes>>);

impl Parts {
    /// All that the part at a position has answered.
    pub fn whole(&self, position: usize) -> Option<&str> {
        std::str::from_utf8(self.0.get(position)?.as_ref()?).ok()
    }

    /// What a dotted path leads to in the answer of a part: all of it where the path is empty.
    pub fn json(&self, position: usize, path: &str) -> Option<&str> {
        member(self.whole(position)?, path)
    }

    /// The same, as a text without quotes: only strings, numbers, `true` and `false` have one.
    pub fn text(&self, position: usize, path: &str) -> Option<Vec<u8>> {
        let json = self.json(position, path)?;
        match json.as_bytes().first()? {
            b'"' => serde_json::from_str::<String>(json).ok().map(String::into_bytes),
            b'{' | b'[' | b'n' => None,
            _ => Some(json.as_bytes().to_vec()),
        }
    }
}

/// What a dotted path leads to in a JSON text: the names of members, and the positions of elements. Of members with one
/// name it is the last.
pub fn member<'t>(text: &'t str, path: &str) -> Option<&'t str> {
    let mut text = text.trim();
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let found = match text.as_bytes().first()? {
            b'{' => serde_json::from_str::<HashMap<Cow<'_, str>, &RawValue>>(text).ok()?.get(name).copied(),
            b'[' => serde_json::from_str::<Vec<&RawValue>>(text).ok()?.get(name.parse::<usize>().ok()?).copied(),
            _ => None,
        };
        text = found?.get();
    }
    Some(text)
}

/// A JSON object without its members that are `null`; another value as it is.
pub fn without_nulls(json: &[u8]) -> Vec<u8> {
    let Ok(Members(members)) = serde_json::from_slice(json) else { return json.to_vec() };
    object(members.iter().filter(|(_, value)| value.get() != "null").map(|(name, value)| (&**name, value.get())))
}

/// An object of these members, which are JSON texts.
pub fn object<'m>(members: impl Iterator<Item = (&'m str, &'m str)>) -> Vec<u8> {
    let mut out = b"{".to_vec();
    for (name, json) in members {
        out.extend_from_slice(if out.len() > 1 { b"," } else { b"" });
        write_string(name, &mut out);
        out.push(b':');
        out.extend_from_slice(json.as_bytes());
    }
    out.push(b'}');
    out
}

/// Objects as one: what a later one says takes the place of what an earlier one said.
///
/// # Errors
/// The position of one that is no object.
pub fn merge(objects: &[&str]) -> Result<Vec<u8>, usize> {
    let mut merged: IndexMap<Cow<'_, str>, &RawValue> = IndexMap::new();
    for (i, json) in objects.iter().enumerate() {
        let Members(members) = serde_json::from_str(json).map_err(|_| i)?;
        merged.extend(members);
    }
    Ok(object(merged.iter().map(|(name, value)| (&**name, value.get()))))
}

/// The members of an object, in their order.
struct Members<'t>(Vec<(Cow<'t, str>, &'t RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_left_out() {
        assert_eq!(without_nulls(br#" { "z": 1.50, "n": null, "a\"": [null] } "#), br#"{"z":1.50,"a\"":[null]}"#);
        assert_eq!((without_nulls(b"[null]"), without_nulls(br#"{"a":null}"#)), (b"[null]".to_vec(), b"{}".to_vec()));
    }

    #[test]
    fn objects_are_merged_in_their_order() {
        let merged = merge(&[r#"{"x": 1, "y": {"a": 1}}"#, r#"{"y": 2.0, "z": []}"#]).unwrap();
        assert_eq!(merged, br#"{"x":1,"y":2.0,"z":[]}"#);
        assert_eq!((merge(&["{}", "[]"]), merge(&[]).unwrap()), (Err(1), b"{}".to_vec()));
    }

    #[test]
    fn a_path_leads_to_a_member() {
        let text = r#" {"a": {"b": [1.0, {"c": "x\"y"}]}, "n": null, "t": true} "#;
        assert_eq!(member(text, "a.b.0"), Some("1.0"));
        assert_eq!(member(text, "a.b.1.c"), Some(r#""x\"y""#));
        assert_eq!(member(text, "a.b"), Some(r#"[1.0, {"c": "x\"y"}]"#));
        assert_eq!((member(text, "a.x"), member(text, "a.b.2"), member(text, "t.x")), (None, None, None));
        let parts = Parts(vec![None, Some(Bytes::from_static(text.as_bytes()))]);
        assert_eq!(parts.text(1, "a.b.1.c").unwrap(), b"x\"y");
        assert_eq!(parts.text(1, "t").unwrap(), b"true");
        assert_eq!(
            (parts.text(1, "n"), parts.text(1, "a"), parts.text(0, "a"), parts.text(7, "")),
            (None, None, None, None)
        );
    }
}
