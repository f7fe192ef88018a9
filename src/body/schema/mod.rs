//! What JSON must be like: JSON Schema, of the drafts 2020-12 (where a schema says nothing) and 7, and those between.
//!
//! - `$ref` may name files in the folder of the schema, and nothing else: nothing is fetched. All is resolved when the
//!   schema is compiled.
//! - `format` is asserted, as far as the format is known: `date-time`, `email`, `uuid`, `ipv4`, `uri` and so on. Unknown
//!   formats and keywords say nothing, as the specification wants it.
//! - `pattern` is a regular expression that takes linear time: one with look-around or back-references is refused.
//! - Numbers are never rounded before they are compared: see [`json::number`].
//! - A check takes a bounded number of steps. A body that needs more is refused.

mod folder;
mod fuel;
pub mod json;
pub mod yaml;

use std::fmt::Write as _;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{PatternOptions, ValidationError, Validator};
use serde_json::Value;

pub use folder::Folder;
use fuel::{Fuel, Limited, Metered};

/// A compiled schema.
pub struct Schema(Validator<Limited>);

/// One thing that is not as a schema wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where, as a JSON pointer in a URI fragment (RFC 6901, section 6): `#/name`.
    pub pointer: String,
    /// What is wrong, for the client; never the value itself.
    pub message: String,
}

/// Steps that may be taken to find out whether a body is valid.
const STEPS: u32 = 20_000_000;
/// Steps that may be taken to find out what is wrong with it.
const STEPS_TO_EXPLAIN: u32 = 200_000;
/// Bytes that a compiled regular expression may have.
const REGEX_SIZE: usize = 1 << 20;
/// Characters that a pointer or a message may have.
const MOST_CHARACTERS: usize = 200;

impl Schema {
    /// Compiles the schema that a document is. It is called `name` in its folder, from where its references are meant.
    ///
    /// # Errors
    /// What is wrong, and where in the document, as a JSON pointer.
    pub fn compile(document: &Value, name: &str, folder: &Folder) -> Result<Self, String> {
        if let Some(id) = document.get("$id").and_then(Value::as_str) {
            folder.call(id);
        }
        jsonschema::options_for::<Limited>()
            .with_base_uri(Folder::uri(name))
            .with_retriever(folder.clone())
            .with_pattern_options(PatternOptions::regex().size_limit(REGEX_SIZE).dfa_size_limit(8 * REGEX_SIZE))
            .should_validate_formats(true)
            .build(document)
            .map(Self)
            .map_err(|error| mistake(&error))
    }

    /// Whether a body is JSON as the schema wants it. Of what is wrong, `most` things are said.
    ///
    /// # Errors
    /// What is wrong: at least one thing.
    pub fn check(&self, body: &[u8], most: usize) -> Result<(), Vec<Violation>> {
        match json::parse(body) {
            Ok(value) => self.check_value(&value, most),
            Err(malformed) => Err(vec![Violation::new("", format!("not JSON: {malformed}"))]),
        }
    }

    /// Whether a value is as the schema wants it. Of what is wrong, `most` things are said.
    ///
    /// # Errors
    /// What is wrong: at least one thing.
    pub fn check_value(&self, value: &Value, most: usize) -> Result<(), Vec<Violation>> {
        let fuel = Fuel::new(STEPS);
        let is_valid = self.0.is_valid(Metered::new(value, &fuel));
        if fuel.is_gone() {
            return Err(vec![Violation::new("", "it would take too long to check this")]);
        }
        if is_valid {
            return Ok(());
        }
        let fuel = Fuel::new(STEPS_TO_EXPLAIN);
        let errors = self.0.iter_errors(Metered::new(value, &fuel));
        let mut violations: Vec<Violation> = errors.take(most.max(1)).map(|error| violation(&error)).collect();
        if fuel.is_gone() || violations.is_empty() {
            violations = vec![Violation::new("", "is not as the schema wants it")];
        }
        Err(violations)
    }
}

impl Violation {
    /// This is wrong, there. What is too long is cut.
    pub fn new(pointer: &str, message: impl Into<String>) -> Self {
        let mut fragment = String::from("#");
        for character in pointer.chars() {
            // What a URI fragment may have (RFC 3986, section 3.5).
            if character.is_ascii_alphanumeric() || "/~-._!$&'()*+,;=:@?".contains(character) {
                fragment.push(character);
            } else {
                let mut bytes = [0; 4];
                for byte in character.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(fragment, "%{byte:02X}");
                }
            }
        }
        Self { pointer: cut(fragment), message: cut(message.into()) }
    }
}

/// The meta-schema's word on a part of a document that is a schema.
///
/// # Errors
/// What is wrong, and where in it.
pub fn check_meta(schema: &Value) -> Result<(), String> {
    jsonschema::draft202012::meta::validate(schema).map_err(|error| mistake(&error))
}

/// A mistake in a schema, for the operator.
fn mistake(error: &ValidationError<'_>) -> String {
    let at = match error.instance_path().as_str() {
        "" => String::new(),
        pointer => format!("at {pointer}: "),
    };
    let hint = match error.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => {
            " that takes linear time: no look-around, no back-references, not too large"
        }
        _ => "",
    };
    format!("{at}{}{hint}", cut(error.to_string()))
}

/// What of a body breaks the schema, for the client.
fn violation(error: &ValidationError<'_>) -> Violation {
    use ValidationErrorKind as Kind;
    let mut pointer = error.instance_path().as_str().to_owned();
    let message = match error.kind() {
        Kind::Type { kind } => match kind {
            TypeKind::Single(one) => format!("is not of the type {one}"),
            TypeKind::Multiple(several) => {
                let several: Vec<String> = several.iter().map(|one| one.to_string()).collect();
                format!("is of none of the types {}", several.join(", "))
            }
        },
        Kind::Required { property } => format!("{} is missing", name(property.as_str().unwrap_or(""))),
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
            let more =
                if unexpected.len() > 1 { format!(", and {} more", unexpected.len() - 1) } else { String::new() };
            format!("{} is not expected here{more}", name(unexpected.first().map_or("", String::as_str)))
        }
        Kind::AdditionalItems { limit } => format!("has more than {limit} items"),
        Kind::UnevaluatedItems { .. } => "has an item that is not expected".to_owned(),
        Kind::Constant { .. } => "is not the one value that is allowed".to_owned(),
        Kind::Enum { .. } => "is not one of the values that are allowed".to_owned(),
        Kind::FalseSchema => "is not expected here".to_owned(),
        Kind::Format { format } => format!("is no {format}"),
        Kind::Pattern { pattern } => format!("does not match {pattern}"),
        Kind::Minimum { limit } => format!("is less than {limit}"),
        Kind::Maximum { limit } => format!("is more than {limit}"),
        Kind::ExclusiveMinimum { limit } => format!("is not more than {limit}"),
        Kind::ExclusiveMaximum { limit } => format!("is not less than {limit}"),
        Kind::MultipleOf { multiple_of } => format!("is no multiple of {multiple_of}"),
        Kind::MinLength { limit } => format!("has fewer than {limit} characters"),
        Kind::MaxLength { limit } => format!("has more than {limit} characters"),
        Kind::MinItems { limit } => format!("has fewer than {limit} items"),
        Kind::MaxItems { limit } => format!("has more than {limit} items"),
        Kind::MinProperties { limit } => format!("has fewer than {limit} members"),
        Kind::MaxProperties { limit } => format!("has more than {limit} members"),
        Kind::UniqueItems => "has the same item twice".to_owned(),
        Kind::Contains => "has no item, or too many, of the kind that is wanted".to_owned(),
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } => "is none of what is allowed here".to_owned(),
        Kind::OneOfMultipleValid { .. } => "is more than one of what is allowed here".to_owned(),
        Kind::Not { .. } => "is what is not allowed here".to_owned(),
        Kind::PropertyNames { error } => {
            pointer = error.instance_path().as_str().to_owned();
            return Violation::new(&pointer, format!("has a name that {}", violation(error).message));
        }
        Kind::ContentEncoding { .. } | Kind::ContentMediaType { .. } | Kind::FromUtf8 { .. } => {
            "has not the content that is wanted".to_owned()
        }
        _ => "is not as the schema wants it".to_owned(),
    };
    Violation::new(&pointer, message)
}

/// A name of a member, for a message.
fn name(name: &str) -> String {
    format!("`{}`", cut(name.to_owned()))
}

/// The beginning of a text that is too long; without what a terminal could take for a command.
fn cut(text: String) -> String {
    let mut cut: String =
        text.chars().take(MOST_CHARACTERS).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if cut.len() < text.len() && text.chars().nth(MOST_CHARACTERS).is_some() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests;
