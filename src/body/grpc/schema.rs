//! What a descriptor set says of messages, compiled for the two ways of the JSON mapping.

use std::collections::HashMap;

use prost_reflect::{Cardinality, DescriptorPool, FieldDescriptor, Kind as Described, MessageDescriptor};

use super::wire;

/// All messages and enums of a descriptor set.
#[derive(Debug, Default)]
pub(super) struct Schema {
    pub messages: Vec<Message>,
    pub enums: Vec<Enum>,
    /// Messages by their full name.
    names: HashMap<String, usize>,
}

#[derive(Debug)]
pub(super) struct Message {
    /// The full name.
    pub name: String,
    /// In the order of their numbers.
    pub fields: Vec<Field>,
    pub special: Special,
    /// Fields by their name in JSON, and by their own.
    by_name: HashMap<String, usize>,
}

#[derive(Debug)]
pub(super) struct Field {
    pub number: u32,
    pub name: String,
    /// The name in JSON.
    pub json: String,
    pub kind: Kind,
    pub label: Label,
    /// Whether it is known if it was set: what has no presence has a default instead.
    pub presence: bool,
    /// Which of the message's oneofs it is in.
    pub oneof: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Label {
    Singular,
    Repeated { packed: bool },
    Map { key: Kind, value: Kind },
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(usize),
    Message(usize),
    /// A message between tags, as proto2 has them.
    Group(usize),
}

/// What has a form of its own in JSON.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Special {
    No,
    Any,
    Timestamp,
    Duration,
    FieldMask,
    Struct,
    Value,
    ListValue,
    /// One of `google/protobuf/wrappers.proto`, of this kind.
    Wrapper(Kind),
}

#[derive(Debug)]
pub(super) struct Enum {
    /// `google.protobuf.NullValue`, which is `null`.
    pub null: bool,
    pub numbers: HashMap<String, i32>,
    pub names: HashMap<i32, String>,
    /// What a field without a value has.
    pub default: i32,
}

impl Schema {
    pub fn new(pool: &DescriptorPool) -> Self {
        let messages: HashMap<String, usize> =
            pool.all_messages().enumerate().map(|(i, message)| (message.full_name().to_owned(), i)).collect();
        let enums: HashMap<String, usize> =
            pool.all_enums().enumerate().map(|(i, one)| (one.full_name().to_owned(), i)).collect();
        let names = Names { messages: &messages, enums: &enums };
        Self {
            messages: pool.all_messages().map(|message| Message::new(&message, &names)).collect(),
            enums: pool.all_enums().map(|one| Enum::new(&one)).collect(),
            names: messages,
        }
    }

    /// The message of a full name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name).copied()
    }
}

impl Message {
    fn new(message: &MessageDescriptor, names: &Names<'_>) -> Self {
        let mut fields: Vec<Field> = message.fields().map(|field| Field::new(&field, names)).collect();
        fields.sort_by_key(|field| field.number);
        let mut by_name: HashMap<String, usize> =
            fields.iter().enumerate().map(|(i, field)| (field.name.clone(), i)).collect();
        by_name.extend(fields.iter().enumerate().map(|(i, field)| (field.json.clone(), i)));
        let special = match message.full_name() {
            "google.protobuf.Any" => Special::Any,
            "google.protobuf.Timestamp" => Special::Timestamp,
            "google.protobuf.Duration" => Special::Duration,
            "google.protobuf.FieldMask" => Special::FieldMask,
            "google.protobuf.Struct" => Special::Struct,
            "google.protobuf.Value" => Special::Value,
            "google.protobuf.ListValue" => Special::ListValue,
            "google.protobuf.DoubleValue" => Special::Wrapper(Kind::Double),
            "google.protobuf.FloatValue" => Special::Wrapper(Kind::Float),
            "google.protobuf.Int64Value" => Special::Wrapper(Kind::Int64),
            "google.protobuf.UInt64Value" => Special::Wrapper(Kind::Uint64),
            "google.protobuf.Int32Value" => Special::Wrapper(Kind::Int32),
            "google.protobuf.UInt32Value" => Special::Wrapper(Kind::Uint32),
            "google.protobuf.BoolValue" => Special::Wrapper(Kind::Bool),
            "google.protobuf.StringValue" => Special::Wrapper(Kind::String),
            "google.protobuf.BytesValue" => Special::Wrapper(Kind::Bytes),
            _ => Special::No,
        };
        Self { name: message.full_name().to_owned(), fields, special, by_name }
    }

    /// The field of a name, in JSON or its own.
    pub fn named(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The field of a number.
    pub fn numbered(&self, number: u32) -> Option<usize> {
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }
}

impl Field {
    fn new(field: &FieldDescriptor, names: &Names<'_>) -> Self {
        let kind = names.kind(field);
        let label = match field.kind() {
            Described::Message(entry) if field.is_map() => Label::Map {
                key: names.kind(&entry.map_entry_key_field()),
                value: names.kind(&entry.map_entry_value_field()),
            },
            _ if field.cardinality() == Cardinality::Repeated => Label::Repeated { packed: field.is_packed() },
            _ => Label::Singular,
        };
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        Self {
            number: field.number(),
            name: field.name().to_owned(),
            json: field.json_name().to_owned(),
            kind,
            label,
            presence: label == Label::Singular && field.supports_presence(),
            oneof: oneof.and_then(|oneof| oneof.path().last().and_then(|index| usize::try_from(*index).ok())),
        }
    }
}

impl Enum {
    fn new(one: &prost_reflect::EnumDescriptor) -> Self {
        let mut names = HashMap::new();
        for value in one.values() {
            names.entry(value.number()).or_insert_with(|| value.name().to_owned());
        }
        Self {
            null: one.full_name() == "google.protobuf.NullValue",
            numbers: one.values().map(|value| (value.name().to_owned(), value.number())).collect(),
            names,
            default: one.default_value().number(),
        }
    }
}

impl Kind {
    /// Its wire type.
    pub fn wire(self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => wire::FIXED64,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => wire::FIXED32,
            Self::String | Self::Bytes | Self::Message(_) => wire::BYTES,
            Self::Group(_) => wire::GROUP,
            _ => wire::VARINT,
        }
    }

    /// Whether many of it can lie in one field.
    pub fn is_packable(self) -> bool {
        !matches!(self, Self::String | Self::Bytes | Self::Message(_) | Self::Group(_))
    }
}

struct Names<'a> {
    messages: &'a HashMap<String, usize>,
    enums: &'a HashMap<String, usize>,
}

impl Names<'_> {
    fn kind(&self, field: &FieldDescriptor) -> Kind {
        match field.kind() {
            Described::Double => Kind::Double,
            Described::Float => Kind::Float,
            Described::Int32 => Kind::Int32,
            Described::Int64 => Kind::Int64,
            Described::Uint32 => Kind::Uint32,
            Described::Uint64 => Kind::Uint64,
            Described::Sint32 => Kind::Sint32,
            Described::Sint64 => Kind::Sint64,
            Described::Fixed32 => Kind::Fixed32,
            Described::Fixed64 => Kind::Fixed64,
            Described::Sfixed32 => Kind::Sfixed32,
            Described::Sfixed64 => Kind::Sfixed64,
            Described::Bool => Kind::Bool,
            Described::String => Kind::String,
            Described::Bytes => Kind::Bytes,
            Described::Message(message) if field.is_group() => Kind::Group(self.messages[message.full_name()]),
            Described::Message(message) => Kind::Message(self.messages[message.full_name()]),
            Described::Enum(one) => Kind::Enum(self.enums[one.full_name()]),
        }
    }
}
