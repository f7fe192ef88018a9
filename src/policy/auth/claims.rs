//! Claims: how they are read, and what of them must hold (RFC 7519, section 4).

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::telemetry::metrics::policies::Reason;

/// What must hold of claims.
pub(super) struct Rules {
    /// What `iss` must be.
    pub(super) issuer: Option<Box<str>>,
    /// Whether an issuer must be named at all.
    pub(super) issuer_is_named: bool,
    /// One of them must be in `aud`; without any `aud` must not be there.
    pub(super) audience: Vec<Box<str>>,
    pub(super) required: Vec<Box<str>>,
}

/// The last second of the year 9999: what is later is no time, but milliseconds or a mistake.
const LATEST: f64 = 253_402_300_799.0;

impl Rules {
    /// # Errors
    /// What does not hold.
    pub(super) fn hold(&self, claims: &Map<String, Value>) -> Result<(), (Reason, &'static str)> {
        let named = claims.get("iss");
        if let Some(issuer) = &self.issuer
            && (named.is_some() || self.issuer_is_named)
            && named.and_then(Value::as_str) != Some(issuer)
        {
            return Err((Reason::Issuer, "the token is from another issuer"));
        }
        let ours = |audience: &Value| {
            audience.as_str().is_some_and(|audience| self.audience.iter().any(|ours| **ours == *audience))
        };
        let meant = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(ours),
            Some(one) => ours(one),
            None => self.audience.is_empty(),
        };
        if !meant {
            return Err((Reason::Audience, "the token is for another audience"));
        }
        // RFC 7800: only who has a key may use it, and whether the caller has it is not looked at.
        if claims.contains_key("cnf") {
            return Err((Reason::Claims, "the token is bound to a key of its owner"));
        }
        match self.required.iter().all(|claim| claims.get(&**claim).is_some_and(|value| !value.is_null())) {
            true => Ok(()),
            false => Err((Reason::Claims, "the token lacks a required claim")),
        }
    }
}

/// A claim that is a time, in seconds since 1970.
///
/// # Errors
/// It is something else.
pub(super) fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<u64>, (Reason, &'static str)> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let time = value.as_f64().ok_or((Reason::Claims, "a time in the token is not a number"))?;
    match time <= LATEST {
        true => Ok(Some(time as u64)),
        false => Err((Reason::Claims, "a time in the token is not in seconds")),
    }
}

/// Reads a JSON object in which no object has two members of one name: which of them counts would depend on who reads.
///
/// # Errors
/// It is none.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::from_slice(json)? {
        Unambiguous(Value::Object(object)) => Ok(object),
        Unambiguous(_) => Err(de::Error::custom("not an object")),
    }
}

struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;
        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
            }
            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(Unambiguous(value)) = seq.next_element()? {
                    values.push(value);
                }
                Ok(Value::Array(values))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut object = Map::new();
                while let Some((name, Unambiguous(value))) = map.next_entry::<String, _>()? {
                    if object.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member stands twice"));
                    }
                }
                Ok(Value::Object(object))
            }
        }
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_has_one_meaning() {
        let text = r#"{"a":[1,-2,0.5,{"b":null}],"c":{"a":true,"b":"x"}}"#;
        assert_eq!(Value::Object(object(text.as_bytes()).unwrap()), serde_json::from_str::<Value>(text).unwrap());
        for wrong in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":[{"b":1,"b":2}]}"#, "[]", "{", "{} {}"] {
            assert!(object(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(object(format!("{{\"a\":{}", "[".repeat(100_000)).as_bytes()).is_err());
    }

    #[test]
    fn times_are_seconds() {
        let of = |value: Value| time(&Map::from_iter([("exp".to_owned(), value)]), "exp");
        assert_eq!((of(7.into()), of(7.9.into()), of((-1).into())), (Ok(Some(7)), Ok(Some(7)), Ok(Some(0))));
        assert_eq!(time(&Map::new(), "exp"), Ok(None));
        for wrong in [Value::Null, "7".into(), u64::MAX.into(), 1e300.into(), 1_700_000_000_000_u64.into()] {
            assert!(of(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
