//! The annotation `google.api.http` of a method, read from its options: extension 72295728 of
//! `google.protobuf.MethodOptions`, a `google.api.HttpRule`. The set needs not have `google/api/annotations.proto`.

use prost_reflect::MethodDescriptor;
use prost_reflect::prost::Message;

use super::wire::{Datum, Wire};

/// One way to call a method.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rule {
    /// The HTTP method; `*` is any. Empty where the rule has none.
    pub method: String,
    /// The path template.
    pub path: String,
    /// `*`, the name of a field, or nothing.
    pub body: String,
    /// The name of a field, or nothing.
    pub response_body: String,
}

/// The number of the extension.
const HTTP: u32 = 72_295_728;

/// All rules of a method, the additional ones too.
///
/// # Errors
/// The annotation is malformed.
pub(super) fn rules(method: &MethodDescriptor) -> Result<Vec<Rule>, &'static str> {
    let options = method.options().encode_to_vec();
    let mut wire = Wire::new(&options);
    let mut annotation = Vec::new();
    while let Some((number, datum)) = wire.next()? {
        if let (HTTP, Datum::Bytes(rule)) = (number, datum) {
            annotation.extend_from_slice(rule);
        }
    }
    let mut rules = Vec::new();
    if !annotation.is_empty() {
        read(&annotation, true, &mut rules)?;
    }
    Ok(rules)
}

fn read(bytes: &[u8], may_have_more: bool, rules: &mut Vec<Rule>) -> Result<(), &'static str> {
    let (mut rule, mut more) = (Rule::default(), Vec::new());
    let mut wire = Wire::new(bytes);
    while let Some((number, datum)) = wire.next()? {
        let Datum::Bytes(value) = datum else { continue };
        let method = match number {
            2 => "GET",
            3 => "PUT",
            4 => "POST",
            5 => "DELETE",
            6 => "PATCH",
            7 => {
                rule.body = text(value)?;
                continue;
            }
            8 => {
                (rule.method, rule.path) = custom(value)?;
                continue;
            }
            11 if may_have_more => {
                more.push(value);
                continue;
            }
            11 => return Err("additional_bindings lie in each other"),
            12 => {
                rule.response_body = text(value)?;
                continue;
            }
            _ => continue,
        };
        (rule.method, rule.path) = (method.to_owned(), text(value)?);
    }
    rules.push(rule);
    more.into_iter().try_for_each(|bytes| read(bytes, false, rules))
}

fn custom(bytes: &[u8]) -> Result<(String, String), &'static str> {
    let (mut kind, mut path) = (String::new(), String::new());
    let mut wire = Wire::new(bytes);
    while let Some((number, datum)) = wire.next()? {
        match (number, datum) {
            (1, Datum::Bytes(value)) => kind = text(value)?,
            (2, Datum::Bytes(value)) => path = text(value)?,
            _ => {}
        }
    }
    Ok((kind, path))
}

fn text(bytes: &[u8]) -> Result<String, &'static str> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| "a string is not UTF-8")
}
