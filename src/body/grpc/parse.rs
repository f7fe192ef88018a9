//! JSON to protobuf, by the JSON mapping of protobuf. What is read goes straight into the binary form.

use std::collections::HashSet;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::known::{self, Seconds};
use super::schema::{Kind, Label, Message, Schema, Special};
use super::wire::{self, VARINT, enclose, put_bytes, put_tag, put_varint};
use crate::body::Malformed;
use crate::body::json_text::{Text, Token, is_number};

/// Reads messages from a text.
pub(super) struct Parser<'a> {
    pub schema: &'a Schema,
    pub text: Text<'a>,
    /// Whether fields that the message does not have are passed over.
    pub ignore_unknown: bool,
}

type Read<T> = Result<T, Malformed>;

impl<'a> Parser<'a> {
    /// Reads a value as a message, and appends its fields to `out`.
    pub fn message(&mut self, id: usize, out: &mut Vec<u8>) -> Read<()> {
        let schema = self.schema;
        let message = &schema.messages[id];
        match message.special {
            Special::No => {
                self.open(message)?;
                self.fields(message, &[], out)
            }
            Special::Any => self.any(message, out),
            Special::Value => self.any_value(out),
            Special::Struct => {
                self.open(message)?;
                self.structure(out)
            }
            Special::ListValue => match self.text.value()? {
                Token::Array => self.list(out),
                _ => Err(self.expected("an array")),
            },
            special => {
                let token = self.text.value()?;
                match from_token(schema, special, &token, out) {
                    Ok(()) => Ok(()),
                    Err(expected) => Err(self.expected(expected)),
                }
            }
        }
    }

    /// Reads a value as a field, and appends it to `out`.
    pub fn field(&mut self, message: &Message, index: usize, out: &mut Vec<u8>) -> Read<bool> {
        let field = &message.fields[index];
        let inside = |mut wrong: Malformed| {
            wrong.what = format!("{}: {}", field.json, wrong.what).into();
            wrong
        };
        if self.text.is_null() && !(field.label == Label::Singular && self.takes_null(field.kind)) {
            return self.text.skip().map(|()| false);
        }
        match field.label {
            Label::Singular => self.single(field.number, field.kind, out),
            Label::Repeated { packed } => self.repeated(field.number, field.kind, packed, out),
            Label::Map { key, value } => self.map(field.number, key, value, out),
        }
        .map_err(inside)?;
        Ok(true)
    }

    /// Reads the fields of an object that was opened. The keys in `but` are somebody else's.
    fn fields(&mut self, message: &Message, but: &[&str], out: &mut Vec<u8>) -> Read<()> {
        let mut seen = smallvec::SmallVec::<[u64; 2]>::from_elem(0, message.fields.len() / 64 + 1);
        let mut oneofs = smallvec::SmallVec::<[usize; 4]>::new();
        let mut first = true;
        while let Some(key) = self.text.key(&mut first)? {
            if but.contains(&&*key) {
                self.text.skip()?;
                continue;
            }
            let Some(index) = message.named(&key) else {
                if !self.ignore_unknown {
                    return Err(self.text.wrong(format!("{} has no field `{}`", message.name, short(&key))));
                }
                self.text.skip()?;
                continue;
            };
            if seen[index / 64] & (1 << (index % 64)) != 0 {
                return Err(self.text.wrong(format!("{}: the field is given twice", short(&key))));
            }
            seen[index / 64] |= 1 << (index % 64);
            let set = self.field(message, index, out)?;
            if let Some(oneof) = message.fields[index].oneof.filter(|_| set) {
                if oneofs.contains(&oneof) {
                    return Err(self.text.wrong(format!("{}: another field of its oneof is given", short(&key))));
                }
                oneofs.push(oneof);
            }
        }
        Ok(())
    }

    fn single(&mut self, number: u32, kind: Kind, out: &mut Vec<u8>) -> Read<()> {
        match kind {
            Kind::Message(id) => {
                let start = out.len();
                self.message(id, out)?;
                enclose(number, start, out);
            }
            Kind::Group(id) => {
                put_tag(number, wire::GROUP, out);
                self.message(id, out)?;
                put_tag(number, wire::GROUP_END, out);
            }
            kind => {
                put_tag(number, kind.wire(), out);
                self.scalar(kind, out)?;
            }
        }
        Ok(())
    }

    fn scalar(&mut self, kind: Kind, out: &mut Vec<u8>) -> Read<()> {
        let token = self.text.value()?;
        scalar(self.schema, kind, &token, out).map_err(|expected| self.expected(expected))
    }

    fn repeated(&mut self, number: u32, kind: Kind, packed: bool, out: &mut Vec<u8>) -> Read<()> {
        if self.text.value()? != Token::Array {
            return Err(self.expected("an array"));
        }
        let (start, mut first) = (out.len(), true);
        while self.text.element(&mut first)? {
            if self.text.is_null() && !self.takes_null(kind) {
                return Err(self.text.wrong("an element of an array is null"));
            }
            if packed { self.scalar(kind, out)? } else { self.single(number, kind, out)? }
        }
        if packed && out.len() > start {
            enclose(number, start, out);
        }
        Ok(())
    }

    fn map(&mut self, number: u32, key_kind: Kind, value_kind: Kind, out: &mut Vec<u8>) -> Read<()> {
        if self.text.value()? != Token::Object {
            return Err(self.expected("an object"));
        }
        let (mut seen, mut first) = (HashSet::new(), true);
        while let Some(key) = self.text.key(&mut first)? {
            let token = match (&key_kind, &*key) {
                (Kind::Bool, "true") => Token::Bool(true),
                (Kind::Bool, "false") => Token::Bool(false),
                _ => Token::String(key),
            };
            let start = out.len();
            put_tag(1, key_kind.wire(), out);
            if let Err(expected) = scalar(self.schema, key_kind, &token, out) {
                return Err(self.text.wrong(format!("as a key, {expected} was expected")));
            }
            if !seen.insert(out[start..].to_vec()) {
                return Err(self.text.wrong("a key is given twice"));
            }
            if self.text.is_null() && !self.takes_null(value_kind) {
                return Err(self.text.wrong("a value of a map is null"));
            }
            self.single(2, value_kind, out)?;
            enclose(number, start, out);
        }
        Ok(())
    }

    /// The type stands somewhere in the object, and has to be known before the rest.
    fn any(&mut self, message: &Message, out: &mut Vec<u8>) -> Read<()> {
        self.open(message)?;
        let (mut ahead, mut first, mut url) = (self.text.clone(), true, None);
        let mut is_empty = true;
        while let Some(key) = ahead.key(&mut first)? {
            is_empty = false;
            if key != "@type" {
                ahead.skip()?;
                continue;
            }
            match ahead.value()? {
                Token::String(_) if url.is_some() => return Err(ahead.wrong("@type is given twice")),
                Token::String(value) => url = Some(value),
                _ => return Err(ahead.wrong("@type: a string was expected")),
            }
        }
        let Some(url) = url else {
            return if is_empty {
                self.text.key(&mut true).map(drop)
            } else {
                Err(self.text.wrong("an Any has no @type"))
            };
        };
        let known = url.rsplit_once('/').and_then(|(_, name)| self.schema.find(name));
        let Some(id) = known else {
            return Err(self.text.wrong(format!("@type: the type `{}` is not known", short(&url))));
        };
        put_bytes(1, url.as_bytes(), out);
        let (start, schema) = (out.len(), self.schema);
        let inner = &schema.messages[id];
        if inner.special == Special::No && inner.name != EMPTY {
            self.fields(inner, &["@type"], out)?;
        } else {
            self.any_special(id, out)?;
        }
        enclose(2, start, out);
        Ok(())
    }

    /// What has its own form in JSON stands under `value`.
    fn any_special(&mut self, id: usize, out: &mut Vec<u8>) -> Read<()> {
        let (mut first, mut given) = (true, false);
        while let Some(key) = self.text.key(&mut first)? {
            match &*key {
                "@type" => self.text.skip()?,
                "value" if given => return Err(self.text.wrong("value: the field is given twice")),
                "value" => {
                    self.message(id, out)?;
                    given = true;
                }
                _ if self.ignore_unknown => self.text.skip()?,
                _ => return Err(self.text.wrong("an Any of this type has `@type` and `value`, and no more")),
            }
        }
        if given || self.schema.messages[id].name == EMPTY {
            Ok(())
        } else {
            Err(self.text.wrong("an Any has no value"))
        }
    }

    fn structure(&mut self, out: &mut Vec<u8>) -> Read<()> {
        let (mut seen, mut first) = (HashSet::new(), true);
        while let Some(key) = self.text.key(&mut first)? {
            let start = out.len();
            put_bytes(1, key.as_bytes(), out);
            if !seen.insert(key) {
                return Err(self.text.wrong("a key is given twice"));
            }
            let value = out.len();
            self.any_value(out)?;
            enclose(2, value, out);
            enclose(1, start, out);
        }
        Ok(())
    }

    fn list(&mut self, out: &mut Vec<u8>) -> Read<()> {
        let mut first = true;
        while self.text.element(&mut first)? {
            let start = out.len();
            self.any_value(out)?;
            enclose(1, start, out);
        }
        Ok(())
    }

    /// The fields of a `google.protobuf.Value`.
    fn any_value(&mut self, out: &mut Vec<u8>) -> Read<()> {
        match self.text.value()? {
            Token::Null => out.extend([1 << 3, 0]),
            Token::Number(digits) => {
                let value = float(digits).ok_or_else(|| self.expected("a number that a double can hold"))?;
                put_tag(2, wire::FIXED64, out);
                out.extend(value.to_le_bytes());
            }
            Token::String(value) => put_bytes(3, value.as_bytes(), out),
            Token::Bool(value) => out.extend([4 << 3, u8::from(value)]),
            Token::Object => {
                let start = out.len();
                self.structure(out)?;
                enclose(5, start, out);
            }
            Token::Array => {
                let start = out.len();
                self.list(out)?;
                enclose(6, start, out);
            }
        }
        Ok(())
    }

    fn open(&mut self, message: &Message) -> Read<()> {
        match self.text.value()? {
            Token::Object => Ok(()),
            _ => Err(self.text.wrong(format!("an object was expected, a {}", message.name))),
        }
    }

    /// Whether `null` is a value, and not the lack of one.
    fn takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(id) => self.schema.messages[id].special == Special::Value,
            Kind::Enum(id) => self.schema.enums[id].null,
            _ => false,
        }
    }

    fn expected(&self, what: &str) -> Malformed {
        self.text.wrong(format!("{what} was expected"))
    }
}

/// Appends a value of a kind that is no message.
///
/// # Errors
/// What was expected instead.
pub(super) fn scalar(schema: &Schema, kind: Kind, token: &Token<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    const INTEGER: &str = "an integer that the field can hold";
    let signed = |min: i64, max: i64| {
        integer(token).and_then(|value| i64::try_from(value).ok()).filter(|n| (min..=max).contains(n)).ok_or(INTEGER)
    };
    let unsigned = |max: u64| {
        integer(token).and_then(|value| u64::try_from(value).ok()).filter(|value| *value <= max).ok_or(INTEGER)
    };
    let (min, max) = (i64::from(i32::MIN), i64::from(i32::MAX));
    let zigzag = |value: i64| ((value << 1) ^ (value >> 63)) as u64;
    match kind {
        Kind::Double => out.extend(floating(token, float).ok_or("a number that a double can hold")?.to_le_bytes()),
        Kind::Float => out.extend(floating(token, float32).ok_or("a number that a float can hold")?.to_le_bytes()),
        Kind::Int32 => put_varint(signed(min, max)? as u64, out),
        Kind::Int64 => put_varint(signed(i64::MIN, i64::MAX)? as u64, out),
        Kind::Uint32 => put_varint(unsigned(u64::from(u32::MAX))?, out),
        Kind::Uint64 => put_varint(unsigned(u64::MAX)?, out),
        Kind::Sint32 => put_varint(zigzag(signed(min, max)?), out),
        Kind::Sint64 => put_varint(zigzag(signed(i64::MIN, i64::MAX)?), out),
        Kind::Fixed32 => out.extend((unsigned(u64::from(u32::MAX))? as u32).to_le_bytes()),
        Kind::Fixed64 => out.extend(unsigned(u64::MAX)?.to_le_bytes()),
        Kind::Sfixed32 => out.extend((signed(min, max)? as i32).to_le_bytes()),
        Kind::Sfixed64 => out.extend(signed(i64::MIN, i64::MAX)?.to_le_bytes()),
        Kind::Bool => match token {
            Token::Bool(value) => out.push(u8::from(*value)),
            _ => return Err("true or false"),
        },
        Kind::String => match token {
            Token::String(value) => {
                put_varint(value.len() as u64, out);
                out.extend_from_slice(value.as_bytes());
            }
            _ => return Err("a string"),
        },
        Kind::Bytes => match token {
            Token::String(value) => {
                let value = base64(value).ok_or("base64")?;
                put_varint(value.len() as u64, out);
                out.extend_from_slice(&value);
            }
            _ => return Err("a string of base64"),
        },
        Kind::Enum(id) => {
            let one = &schema.enums[id];
            let number = match token {
                Token::Null if one.null => Some(0),
                Token::String(name) => one.numbers.get(&**name).copied(),
                Token::Number(_) => integer(token).and_then(|value| i32::try_from(value).ok()),
                _ => None,
            };
            put_varint(i64::from(number.ok_or("a name or number of the enum")?) as u64, out);
        }
        Kind::Message(_) | Kind::Group(_) => return Err("a message"),
    }
    Ok(())
}

/// Appends the fields of a message that is one value in JSON.
///
/// # Errors
/// What was expected instead.
pub(super) fn from_token(
    schema: &Schema,
    special: Special,
    token: &Token<'_>,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let Token::String(value) = token else {
        return match special {
            Special::Wrapper(kind) => wrapped(schema, kind, token, out),
            Special::Timestamp => Err("a time, as \"2024-01-01T00:00:00Z\","),
            Special::Duration => Err("a duration, as \"1.5s\","),
            _ => Err("a string"),
        };
    };
    match special {
        Special::Wrapper(kind) => wrapped(schema, kind, token, out)?,
        Special::Timestamp => {
            seconds(known::read_timestamp(value).ok_or("a time, as \"2024-01-01T00:00:00Z\",")?, out);
        }
        Special::Duration => seconds(known::read_duration(value).ok_or("a duration, as \"1.5s\",")?, out),
        Special::FieldMask => {
            for path in value.split(',').filter(|_| !value.is_empty()) {
                put_bytes(
                    1,
                    known::read_path(path).ok_or("a list of fields, as \"user.name,userId\",")?.as_bytes(),
                    out,
                );
            }
        }
        _ => return Err("another value"),
    }
    Ok(())
}

/// A client's name for something, cut to what a message needs.
pub(super) fn short(name: &str) -> String {
    name.chars().take(64).filter(|c| !c.is_control()).collect()
}

const EMPTY: &str = "google.protobuf.Empty";

fn wrapped(schema: &Schema, kind: Kind, token: &Token<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    put_tag(1, kind.wire(), out);
    scalar(schema, kind, token, out)
}

fn seconds(time: Seconds, out: &mut Vec<u8>) {
    put_tag(1, VARINT, out);
    put_varint(time.seconds as u64, out);
    put_tag(2, VARINT, out);
    put_varint(i64::from(time.nanos) as u64, out);
}

/// A number, or a string that has one.
fn digits<'a>(token: &'a Token<'_>) -> Option<&'a str> {
    match token {
        Token::Number(digits) => Some(digits),
        Token::String(value) => is_number(value).then_some(value),
        _ => None,
    }
}

/// An integer, however it is written: `1e3` and `1000.0` are one.
fn integer(token: &Token<'_>) -> Option<i128> {
    let digits = digits(token)?;
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, digits),
    };
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let significant = match fraction {
        "" => whole.trim_end_matches('0'),
        _ => whole,
    };
    let zeros = whole.len() - significant.len();
    let all = || significant.bytes().chain(fraction.bytes()).skip_while(|digit| *digit == b'0');
    let count = all().count();
    if count == 0 {
        return Some(0);
    }
    let shift = exponent.parse::<i64>().ok()?.checked_add(zeros as i64)?.checked_sub(fraction.len() as i64)?;
    if shift < 0 || count as i64 + shift.min(64) > 20 {
        return None;
    }
    let value = all().fold(0i128, |value, digit| value * 10 + i128::from(digit - b'0')) * 10i128.pow(shift as u32);
    Some(if negative { -value } else { value })
}

fn floating<T>(token: &Token<'_>, read: fn(&str) -> Option<T>) -> Option<T> {
    match token {
        Token::String(name) if matches!(&**name, "NaN" | "Infinity" | "-Infinity") => read(name),
        token => read(digits(token)?),
    }
}

fn float(digits: &str) -> Option<f64> {
    let named = digits.ends_with(['N', 'y']);
    digits.parse::<f64>().ok().filter(|value| value.is_finite() || named)
}

fn float32(digits: &str) -> Option<f32> {
    let named = digits.ends_with(['N', 'y']);
    digits.parse::<f32>().ok().filter(|value| value.is_finite() || named)
}

/// Either alphabet, with padding or without.
fn base64(value: &str) -> Option<Vec<u8>> {
    const ANY: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&STANDARD, ANY);
    if value.contains(['-', '_']) {
        return ENGINE.decode(value.replace('-', "+").replace('_', "/")).ok();
    }
    ENGINE.decode(value).ok()
}
