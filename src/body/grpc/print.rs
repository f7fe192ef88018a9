//! Protobuf to JSON, by the JSON mapping of protobuf. Fields go out in the order of their numbers, maps in the order of
//! their keys, so that the same message is always the same text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write;

use base64::engine::general_purpose::STANDARD;

use super::DEPTH;
use super::known::{self, Seconds};
use super::schema::{Field, Kind, Label, Message, Schema, Special};
use super::wire::{Datum, Wire};

/// How messages are written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Style {
    /// Whether fields without presence are written that have their default.
    pub defaults: bool,
    /// Whether fields have the names of the proto file.
    pub original_names: bool,
    /// Whether enums are numbers.
    pub enum_numbers: bool,
}

/// Writes messages of a schema.
#[derive(Clone, Copy)]
pub(super) struct Printer<'s> {
    pub schema: &'s Schema,
    pub style: Style,
    /// How long a text may become before its end is given up, in bytes. A list of nothing can have a long text.
    pub limit: usize,
}

/// Or what is wrong with the message.
type Written = Result<(), Cow<'static, str>>;

/// A field's index in its message, where in the message it stands, and what it holds.
type Found<'a> = (usize, usize, Datum<'a>);

impl<'s> Printer<'s> {
    /// Appends a message as a value.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn message(&self, id: usize, bytes: &[u8], out: &mut Vec<u8>) -> Written {
        self.value_of(id, bytes, 0, out)
    }

    /// Appends one field of a message as a value, whether it is there or not.
    ///
    /// # Errors
    /// What is wrong with the message.
    pub fn field(&self, id: usize, index: usize, bytes: &[u8], out: &mut Vec<u8>) -> Written {
        let message = &self.schema.messages[id];
        let found = self.collect(message, bytes)?;
        let from = found.partition_point(|(i, ..)| *i < index);
        let to = found.partition_point(|(i, ..)| *i <= index);
        match &found[from..to] {
            [] => self.default(&message.fields[index], out),
            found => self.field_of(&message.fields[index], found, 0, out)?,
        }
        Ok(())
    }

    fn value_of(&self, id: usize, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Written {
        let message = &self.schema.messages[id];
        match message.special {
            Special::No => {
                out.push(b'{');
                self.fields(message, bytes, &mut true, deeper(depth)?, out)?;
                out.push(b'}');
                Ok(())
            }
            Special::Any => self.any(bytes, depth, out),
            Special::Struct => self.structure(bytes, depth, out),
            Special::Value => self.any_value(bytes, depth, out),
            Special::ListValue => self.list(bytes, depth, out),
            Special::Wrapper(kind) => match last(bytes, |datum| accepts(kind, datum))? {
                Some(datum) => self.single(kind, datum, depth, out),
                None => self.zero(kind, out),
            },
            Special::FieldMask => field_mask(bytes, out),
            Special::Timestamp | Special::Duration => {
                let time = seconds(bytes)?;
                out.push(b'"');
                match message.special {
                    Special::Timestamp => {
                        known::write_timestamp(time, out).ok_or("a Timestamp is out of range")?;
                    }
                    _ => known::write_duration(time, out).ok_or("a Duration is out of range")?,
                }
                out.push(b'"');
                Ok(())
            }
        }
    }

    /// The members of an object.
    fn fields(&self, message: &Message, bytes: &[u8], first: &mut bool, depth: usize, out: &mut Vec<u8>) -> Written {
        let found = self.collect(message, bytes)?;
        let mut rest = &found[..];
        let mut expected = 0;
        while let Some((index, ..)) = rest.first() {
            let (of_field, others) = rest.split_at(rest.partition_point(|(i, ..)| i == index));
            self.defaults(&message.fields[expected..*index], first, out);
            self.name(&message.fields[*index], first, out)?;
            self.field_of(&message.fields[*index], of_field, depth, out)?;
            (rest, expected) = (others, index + 1);
        }
        self.defaults(&message.fields[expected..], first, out);
        Ok(())
    }

    fn defaults(&self, fields: &[Field], first: &mut bool, out: &mut Vec<u8>) {
        for field in fields.iter().filter(|field| self.style.defaults && !field.presence) {
            if self.name(field, first, out).is_ok() {
                self.default(field, out);
            }
        }
    }

    /// The fields of a message that count, by index. Of a oneof that is the last one; a field without presence counts if
    /// it does not have its default.
    fn collect<'a>(&self, message: &Message, bytes: &'a [u8]) -> Result<Vec<Found<'a>>, Cow<'static, str>> {
        let mut found: Vec<Found<'a>> = Vec::new();
        let mut oneofs: smallvec::SmallVec<[(usize, usize, usize); 4]> = smallvec::SmallVec::new();
        let mut wire = Wire::new(bytes);
        while let Some((number, datum)) = wire.next()? {
            let Some(index) = message.numbered(number) else { continue };
            let field = &message.fields[index];
            let packed = matches!(field.label, Label::Repeated { .. })
                && field.kind.is_packable()
                && matches!(datum, Datum::Bytes(_));
            if !packed && !accepts(field.kind, &datum) {
                continue;
            }
            let at = found.len();
            if let Some(oneof) = field.oneof {
                match oneofs.iter_mut().find(|(one, ..)| *one == oneof) {
                    Some((_, member, since)) if *member != index => (*member, *since) = (index, at),
                    Some(_) => {}
                    None => oneofs.push((oneof, index, at)),
                }
            }
            found.push((index, at, datum));
        }
        if !oneofs.is_empty() {
            found.retain(|(index, at, _)| {
                let oneof = message.fields[*index].oneof;
                oneofs.iter().all(|(one, _, since)| oneof != Some(*one) || at >= since)
            });
        }
        found.sort_unstable_by_key(|(index, at, _)| (*index, *at));
        let mut i = 0;
        while let Some((index, ..)) = found.get(i) {
            let field = &message.fields[*index];
            let end = i + found[i..].partition_point(|(other, ..)| other == index);
            let bare = match field.label {
                Label::Singular => !field.presence && (self.is_null(field.kind) || is_zero(&found[end - 1].2)),
                Label::Repeated { .. } => {
                    field.kind.is_packable() && found[i..end].iter().all(|(_, _, d)| *d == Datum::Bytes(&[]))
                }
                Label::Map { .. } => false,
            };
            if bare {
                found.drain(i..end);
            } else {
                i = end;
            }
        }
        Ok(found)
    }

    fn field_of(&self, field: &Field, found: &[Found<'_>], depth: usize, out: &mut Vec<u8>) -> Written {
        let data = || found.iter().map(|(_, _, datum)| *datum);
        match field.label {
            Label::Singular => match (field.kind, found) {
                (Kind::Message(id) | Kind::Group(id), [_, _, ..]) => {
                    let merged: Vec<u8> = data().flat_map(content).copied().collect();
                    self.value_of(id, &merged, depth, out)
                }
                (kind, [.., (_, _, datum)]) => self.single(kind, *datum, depth, out),
                (_, []) => Ok(()),
            },
            Label::Repeated { .. } => {
                out.push(b'[');
                let (mut first, depth) = (true, deeper(depth)?);
                for datum in data() {
                    if !(field.kind.is_packable() && matches!(datum, Datum::Bytes(_))) {
                        comma(&mut first, out);
                        self.single(field.kind, datum, depth, out)?;
                        continue;
                    }
                    let mut wire = Wire::new(content(datum));
                    while !wire.is_empty() {
                        comma(&mut first, out);
                        let datum = match field.kind.wire() {
                            super::wire::FIXED64 => Datum::Fixed64(wire.fixed64()?),
                            super::wire::FIXED32 => Datum::Fixed32(wire.fixed32()?),
                            _ => Datum::Varint(wire.varint()?),
                        };
                        self.single(field.kind, datum, depth, out)?;
                    }
                }
                out.push(b']');
                Ok(())
            }
            Label::Map { key, value } => self.map(key, value, data().map(content), depth, out),
        }
    }

    fn map<'a>(
        &self,
        key_kind: Kind,
        value_kind: Kind,
        entries: impl Iterator<Item = &'a [u8]>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Written {
        let mut sorted = BTreeMap::new();
        for entry in entries {
            let (mut key, mut value) = (None, None);
            let mut wire = Wire::new(entry);
            while let Some((number, datum)) = wire.next()? {
                match number {
                    1 if accepts(key_kind, &datum) => key = Some(datum),
                    2 if accepts(value_kind, &datum) => value = Some(datum),
                    _ => {}
                }
            }
            sorted.insert(Key::new(key_kind, key)?, value);
        }
        out.push(b'{');
        let (mut first, depth) = (true, deeper(depth)?);
        for (key, value) in sorted {
            comma(&mut first, out);
            match key {
                Key::Text(text) => string(text, out)?,
                Key::Signed(number) => drop(write!(out, "\"{number}\"")),
                Key::Unsigned(number) => drop(write!(out, "\"{number}\"")),
                Key::Bool(value) => drop(write!(out, "\"{value}\"")),
            }
            out.push(b':');
            match value {
                Some(datum) => self.single(value_kind, datum, depth, out)?,
                None => self.zero_or_empty(value_kind, depth, out)?,
            }
        }
        out.push(b'}');
        Ok(())
    }

    /// A value that is no list and no map.
    fn single(&self, kind: Kind, datum: Datum<'_>, depth: usize, out: &mut Vec<u8>) -> Written {
        if out.len() > self.limit {
            return Err("a message is too long as JSON".into());
        }
        let written = match (kind, datum) {
            (Kind::Message(id) | Kind::Group(id), datum) => return self.value_of(id, content(datum), depth, out),
            (Kind::String, Datum::Bytes(bytes)) => return string(utf8(bytes)?, out),
            (Kind::Bytes, Datum::Bytes(bytes)) => write!(out, "\"{}\"", Base64(bytes)),
            (Kind::Double, Datum::Fixed64(bits)) => return double(f64::from_bits(bits), out),
            (Kind::Float, Datum::Fixed32(bits)) => return float(f32::from_bits(bits), out),
            (Kind::Int32, Datum::Varint(value)) => write!(out, "{}", value as i32),
            (Kind::Int64, Datum::Varint(value)) => write!(out, "\"{}\"", value as i64),
            (Kind::Uint32, Datum::Varint(value)) => write!(out, "{}", value as u32),
            (Kind::Uint64, Datum::Varint(value)) => write!(out, "\"{value}\""),
            (Kind::Sint32, Datum::Varint(value)) => write!(out, "{}", zigzag(u64::from(value as u32)) as i32),
            (Kind::Sint64, Datum::Varint(value)) => write!(out, "\"{}\"", zigzag(value)),
            (Kind::Fixed32, Datum::Fixed32(value)) => write!(out, "{value}"),
            (Kind::Fixed64, Datum::Fixed64(value)) => write!(out, "\"{value}\""),
            (Kind::Sfixed32, Datum::Fixed32(value)) => write!(out, "{}", value as i32),
            (Kind::Sfixed64, Datum::Fixed64(value)) => write!(out, "\"{}\"", value as i64),
            (Kind::Bool, Datum::Varint(value)) => write!(out, "{}", value != 0),
            (Kind::Enum(id), Datum::Varint(value)) => return self.enum_value(id, value as i32, out),
            _ => return Err("a field has another type than its descriptor says".into()),
        };
        written.map_err(|error| error.to_string().into())
    }

    fn enum_value(&self, id: usize, number: i32, out: &mut Vec<u8>) -> Written {
        let one = &self.schema.enums[id];
        match one.names.get(&number) {
            _ if one.null => out.extend_from_slice(b"null"),
            Some(name) if !self.style.enum_numbers => string(name, out)?,
            _ => drop(write!(out, "{number}")),
        }
        Ok(())
    }

    fn any(&self, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Written {
        let (url, value) = any_parts(bytes)?;
        if url.is_empty() && value.is_empty() {
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        let known = url.rsplit_once('/').and_then(|(_, name)| self.schema.find(name));
        let Some(id) = known else {
            return Err(format!("an Any has the type `{}`, which is not known", super::parse::short(url)).into());
        };
        out.extend_from_slice(b"{\"@type\":");
        string(url, out)?;
        let message = &self.schema.messages[id];
        let depth = deeper(depth)?;
        if message.special == Special::No {
            self.fields(message, value, &mut false, depth, out)?;
        } else {
            out.extend_from_slice(b",\"value\":");
            self.value_of(id, value, depth, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn structure(&self, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Written {
        let mut sorted = BTreeMap::new();
        let mut wire = Wire::new(bytes);
        while let Some((number, datum)) = wire.next()? {
            let (1, Datum::Bytes(entry)) = (number, datum) else { continue };
            let (mut key, mut value): (_, &[u8]) = ("", &[]);
            let mut wire = Wire::new(entry);
            while let Some((number, datum)) = wire.next()? {
                match (number, datum) {
                    (1, Datum::Bytes(bytes)) => key = utf8(bytes)?,
                    (2, Datum::Bytes(bytes)) => value = bytes,
                    _ => {}
                }
            }
            sorted.insert(key, value);
        }
        out.push(b'{');
        let (mut first, depth) = (true, deeper(depth)?);
        for (key, value) in sorted {
            comma(&mut first, out);
            string(key, out)?;
            out.push(b':');
            self.any_value(value, depth, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn list(&self, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Written {
        out.push(b'[');
        let (mut first, depth) = (true, deeper(depth)?);
        let mut wire = Wire::new(bytes);
        while let Some((number, datum)) = wire.next()? {
            let (1, Datum::Bytes(value)) = (number, datum) else { continue };
            comma(&mut first, out);
            self.any_value(value, depth, out)?;
        }
        out.push(b']');
        Ok(())
    }

    fn any_value(&self, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Written {
        let mut held = None;
        let mut wire = Wire::new(bytes);
        while let Some((number, datum)) = wire.next()? {
            match (number, datum) {
                (1 | 4, Datum::Varint(_)) | (2, Datum::Fixed64(_)) | (3 | 5 | 6, Datum::Bytes(_)) => {
                    held = Some((number, datum));
                }
                _ => {}
            }
        }
        match held {
            Some((2, Datum::Fixed64(bits))) if !f64::from_bits(bits).is_finite() => {
                Err("a Value has a number that JSON cannot hold".into())
            }
            Some((2, Datum::Fixed64(bits))) => double(f64::from_bits(bits), out),
            Some((3, Datum::Bytes(bytes))) => string(utf8(bytes)?, out),
            Some((4, Datum::Varint(value))) => {
                out.extend_from_slice(if value != 0 { b"true" } else { b"false" });
                Ok(())
            }
            Some((5, Datum::Bytes(bytes))) => self.structure(bytes, depth, out),
            Some((6, Datum::Bytes(bytes))) => self.list(bytes, depth, out),
            _ => {
                out.extend_from_slice(b"null");
                Ok(())
            }
        }
    }

    fn is_null(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Enum(id) if self.schema.enums[id].null)
    }

    fn name(&self, field: &Field, first: &mut bool, out: &mut Vec<u8>) -> Written {
        comma(first, out);
        string(if self.style.original_names { &field.name } else { &field.json }, out)?;
        out.push(b':');
        Ok(())
    }

    /// What a field has that is not set.
    fn default(&self, field: &Field, out: &mut Vec<u8>) {
        match (field.label, field.kind) {
            (Label::Repeated { .. }, _) => out.extend_from_slice(b"[]"),
            (Label::Map { .. }, _) => out.extend_from_slice(b"{}"),
            (Label::Singular, Kind::Message(_) | Kind::Group(_)) => out.extend_from_slice(b"null"),
            (Label::Singular, kind) => drop(self.zero(kind, out)),
        }
    }

    fn zero_or_empty(&self, kind: Kind, depth: usize, out: &mut Vec<u8>) -> Written {
        match kind {
            Kind::Message(id) | Kind::Group(id) => self.value_of(id, &[], depth, out),
            kind => self.zero(kind, out),
        }
    }

    fn zero(&self, kind: Kind, out: &mut Vec<u8>) -> Written {
        match kind {
            Kind::Enum(id) => self.enum_value(id, self.schema.enums[id].default, out),
            kind => {
                let datum = match kind.wire() {
                    super::wire::FIXED64 => Datum::Fixed64(0),
                    super::wire::FIXED32 => Datum::Fixed32(0),
                    super::wire::BYTES => Datum::Bytes(&[]),
                    _ => Datum::Varint(0),
                };
                self.single(kind, datum, 0, out)
            }
        }
    }
}

/// The type and the value of a `google.protobuf.Any`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn any_parts(bytes: &[u8]) -> Result<(&str, &[u8]), Cow<'static, str>> {
    let (mut url, mut value): (_, &[u8]) = ("", &[]);
    let mut wire = Wire::new(bytes);
    while let Some((number, datum)) = wire.next()? {
        match (number, datum) {
            (1, Datum::Bytes(bytes)) => url = utf8(bytes)?,
            (2, Datum::Bytes(bytes)) => value = bytes,
            _ => {}
        }
    }
    Ok((url, value))
}

/// A key of a map.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Text(&'a str),
    Signed(i64),
    Unsigned(u64),
    Bool(bool),
}

impl<'a> Key<'a> {
    fn new(kind: Kind, datum: Option<Datum<'a>>) -> Result<Self, Cow<'static, str>> {
        let bits = match datum {
            Some(Datum::Varint(bits) | Datum::Fixed64(bits)) => bits,
            Some(Datum::Fixed32(bits)) => u64::from(bits),
            _ => 0,
        };
        Ok(match kind {
            Kind::String => Self::Text(utf8(datum.map_or(&[], content))?),
            Kind::Bool => Self::Bool(bits != 0),
            Kind::Int32 | Kind::Sfixed32 => Self::Signed(i64::from(bits as i32)),
            Kind::Int64 | Kind::Sfixed64 => Self::Signed(bits as i64),
            Kind::Sint32 => Self::Signed(zigzag(u64::from(bits as u32))),
            Kind::Sint64 => Self::Signed(zigzag(bits)),
            Kind::Uint32 | Kind::Fixed32 => Self::Unsigned(u64::from(bits as u32)),
            _ => Self::Unsigned(bits),
        })
    }
}

/// How many brackets are open behind one more.
fn deeper(depth: usize) -> Result<usize, Cow<'static, str>> {
    if depth < DEPTH { Ok(depth + 1) } else { Err("messages lie too deep in each other".into()) }
}

struct Base64<'a>(&'a [u8]);

impl std::fmt::Display for Base64<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        base64::display::Base64Display::new(self.0, &STANDARD).fmt(f)
    }
}

fn accepts(kind: Kind, datum: &Datum<'_>) -> bool {
    use super::wire::{BYTES, FIXED32, FIXED64, GROUP, VARINT};
    kind.wire()
        == match datum {
            Datum::Varint(_) => VARINT,
            Datum::Fixed64(_) => FIXED64,
            Datum::Fixed32(_) => FIXED32,
            Datum::Bytes(_) => BYTES,
            Datum::Group(_) => GROUP,
        }
}

/// Whether it is what a field has that is not set; the zero of a float has no sign.
fn is_zero(datum: &Datum<'_>) -> bool {
    matches!(datum, Datum::Varint(0) | Datum::Fixed64(0) | Datum::Fixed32(0) | Datum::Bytes([]))
}

fn content(datum: Datum<'_>) -> &[u8] {
    match datum {
        Datum::Bytes(bytes) | Datum::Group(bytes) => bytes,
        _ => &[],
    }
}

/// The last field of number 1 that is accepted.
fn last<'a>(bytes: &'a [u8], accepted: impl Fn(&Datum<'_>) -> bool) -> Result<Option<Datum<'a>>, &'static str> {
    let (mut wire, mut last) = (Wire::new(bytes), None);
    while let Some((number, datum)) = wire.next()? {
        if number == 1 && accepted(&datum) {
            last = Some(datum);
        }
    }
    Ok(last)
}

fn seconds(bytes: &[u8]) -> Result<Seconds, &'static str> {
    let (mut wire, mut time) = (Wire::new(bytes), Seconds { seconds: 0, nanos: 0 });
    while let Some((number, datum)) = wire.next()? {
        match (number, datum) {
            (1, Datum::Varint(value)) => time.seconds = value as i64,
            (2, Datum::Varint(value)) => time.nanos = value as i32,
            _ => {}
        }
    }
    Ok(time)
}

fn field_mask(bytes: &[u8], out: &mut Vec<u8>) -> Written {
    out.push(b'"');
    let (mut wire, mut first) = (Wire::new(bytes), true);
    while let Some((number, datum)) = wire.next()? {
        let (1, Datum::Bytes(path)) = (number, datum) else { continue };
        comma(&mut first, out);
        let path = known::write_path(utf8(path)?).ok_or("a FieldMask has a path that JSON cannot hold")?;
        out.extend_from_slice(path.as_bytes());
    }
    out.push(b'"');
    Ok(())
}

fn zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

fn comma(first: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(first, false) {
        out.push(b',');
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Cow<'static, str>> {
    std::str::from_utf8(bytes).map_err(|_| "a string is not UTF-8".into())
}

fn string(text: &str, out: &mut Vec<u8>) -> Written {
    serde_json::to_writer(out, text).map_err(|error| error.to_string().into())
}

fn double(value: f64, out: &mut Vec<u8>) -> Written {
    if !value.is_finite() {
        return not_a_number(value, out);
    }
    serde_json::to_writer(&mut *out, &value).map_err(|error| error.to_string())?;
    whole(out);
    Ok(())
}

fn float(value: f32, out: &mut Vec<u8>) -> Written {
    if !value.is_finite() {
        return not_a_number(value.into(), out);
    }
    serde_json::to_writer(&mut *out, &value).map_err(|error| error.to_string())?;
    whole(out);
    Ok(())
}

fn not_a_number(value: f64, out: &mut Vec<u8>) -> Written {
    out.extend_from_slice(match value {
        f64::INFINITY => b"\"Infinity\"",
        f64::NEG_INFINITY => b"\"-Infinity\"",
        _ => b"\"NaN\"",
    });
    Ok(())
}

/// `1.0` is written as `1`.
fn whole(out: &mut Vec<u8>) {
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}
