//! What a gRPC call ended with, and what that is in HTTP.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::{HeaderMap, StatusCode};
use percent_encoding::percent_decode;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto, MessageOptions};
use serde_json::{Map, Value, json};

use super::parse::short;
use super::print::{Printer, any_parts};
use super::schema::Schema;
use super::wire::{Datum, Wire};

/// The status of a call (<https://grpc.io/docs/guides/status-codes/>).
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// From 0, which is success, to 16. What is beyond is 2, unknown.
    pub code: u8,
    /// In words, for the client; often empty.
    pub message: String,
    /// The details of a `google.rpc.Status`: an array of objects with `@type`.
    pub details: Option<Value>,
}

/// The names of the codes, and what they are in HTTP (`google/rpc/code.proto`).
const CODES: [(&str, StatusCode); 17] = [
    ("OK", StatusCode::OK),
    ("CANCELLED", CLIENT_CLOSED_REQUEST),
    ("UNKNOWN", StatusCode::INTERNAL_SERVER_ERROR),
    ("INVALID_ARGUMENT", StatusCode::BAD_REQUEST),
    ("DEADLINE_EXCEEDED", StatusCode::GATEWAY_TIMEOUT),
    ("NOT_FOUND", StatusCode::NOT_FOUND),
    ("ALREADY_EXISTS", StatusCode::CONFLICT),
    ("PERMISSION_DENIED", StatusCode::FORBIDDEN),
    ("RESOURCE_EXHAUSTED", StatusCode::TOO_MANY_REQUESTS),
    ("FAILED_PRECONDITION", StatusCode::BAD_REQUEST),
    ("ABORTED", StatusCode::CONFLICT),
    ("OUT_OF_RANGE", StatusCode::BAD_REQUEST),
    ("UNIMPLEMENTED", StatusCode::NOT_IMPLEMENTED),
    ("INTERNAL", StatusCode::INTERNAL_SERVER_ERROR),
    ("UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE),
    ("DATA_LOSS", StatusCode::INTERNAL_SERVER_ERROR),
    ("UNAUTHENTICATED", StatusCode::UNAUTHORIZED),
];

/// 499, which has no name in HTTP.
const CLIENT_CLOSED_REQUEST: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
};

/// The longest details, in bytes of JSON.
const LONGEST: usize = 64 * 1024;

/// UNKNOWN.
const UNKNOWN: u8 = 2;

impl Status {
    /// A status without details.
    pub fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code: if usize::from(code) < CODES.len() { code } else { UNKNOWN },
            message: message.into(),
            details: None,
        }
    }

    /// What the trailers say, or the head of an answer that has no body. Without a `grpc-status` it is 2, unknown. Details
    /// of types that neither the descriptor set nor `google/rpc/error_details.proto` has keep their bytes, and
    /// `google.rpc.DebugInfo`, which is for developers alone, is left out.
    pub fn from_trailers(trailers: &HeaderMap, transcoder: Option<&super::Transcoder>) -> Self {
        let code = trailers.get("grpc-status").and_then(|code| code.to_str().ok()?.trim().parse().ok());
        let message = trailers
            .get("grpc-message")
            .map_or(Cow::Borrowed(""), |message| percent_decode(message.as_bytes()).decode_utf8_lossy());
        let details = trailers.get("grpc-status-details-bin").and_then(|value| base64(value.as_bytes()));
        let mut status = Self::new(code.unwrap_or(UNKNOWN), message);
        if code.is_none() && status.message.is_empty() {
            status.message = "the call ended without a status".to_owned();
        }
        status.details = details.and_then(|bytes| self::details(&bytes, transcoder.map(|own| own.schema())));
        status
    }

    /// What an answer means that is not gRPC, as from something on the way
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    pub fn from_http(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => 13,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => 14,
            _ => UNKNOWN,
        };
        Self::new(code, format!("the answer was not gRPC, and had the status {}", status.as_u16()))
    }

    /// Whether the call succeeded.
    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// The name of the code, as `NOT_FOUND`.
    pub fn name(&self) -> &'static str {
        CODES[usize::from(self.code)].0
    }

    /// The status in HTTP.
    pub fn http(&self) -> StatusCode {
        CODES[usize::from(self.code)].1
    }

    /// What it adds to a problem document (RFC 9457, section 3.2): `code`, the name, and `details`. The message is the
    /// document's `detail`.
    pub fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("code".to_owned(), self.name().into());
        if let Some(details) = &self.details {
            members.insert("details".to_owned(), details.clone());
        }
        members
    }

    /// The document with which a stream ends that had begun: `{"error":{"status":…,"code":…,"detail":…}}`.
    pub(super) fn document(&self) -> String {
        let mut error = Map::new();
        error.insert("status".to_owned(), self.http().as_u16().into());
        error.append(&mut self.members());
        if !self.message.is_empty() {
            error.insert("detail".to_owned(), self.message.as_str().into());
        }
        json!({ "error": error }).to_string()
    }
}

/// The details of a `google.rpc.Status`.
fn details(bytes: &[u8], own: Option<&Schema>) -> Option<Value> {
    let (mut wire, mut details) = (Wire::new(bytes), Vec::new());
    while let Some((number, datum)) = wire.next().ok()? {
        let (3, Datum::Bytes(any)) = (number, datum) else { continue };
        let (url, value) = any_parts(any).ok()?;
        let name = url.rsplit_once('/').map_or(url, |(_, name)| name);
        if name == "google.rpc.DebugInfo" {
            continue;
        }
        details.push(own.and_then(|own| detail(any, own)).or_else(|| detail(any, &DETAILS)).unwrap_or_else(
            || json!({ "@type": short(url), "value": base64::engine::general_purpose::STANDARD.encode(value) }),
        ));
    }
    (!details.is_empty()).then_some(Value::Array(details))
}

fn detail(any: &[u8], schema: &Schema) -> Option<Value> {
    let id = schema.find("google.protobuf.Any")?;
    let mut out = Vec::new();
    Printer { schema, style: Default::default(), limit: LONGEST }.message(id, any, &mut out).ok()?;
    serde_json::from_slice(&out).ok()
}

/// Binary header fields come with padding or without.
fn base64(value: &[u8]) -> Option<Vec<u8>> {
    const ANY: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&base64::alphabet::STANDARD, ANY).decode(value).ok()
}

/// `google/rpc/error_details.proto`, for sets that do not have it.
static DETAILS: LazyLock<Schema> = LazyLock::new(|| {
    let mut pool = DescriptorPool::global();
    let added = pool.add_file_descriptor_proto(error_details());
    debug_assert!(added.is_ok(), "{added:?}");
    Schema::new(&pool)
});

/// The messages with their fields in the order of their numbers, which begin with 1. `*` is repeated, a type is a message,
/// `map` a map of strings.
const MESSAGES: [(&str, &[(&str, &str)]); 13] = [
    ("ErrorInfo", &[("reason", ""), ("domain", ""), ("metadata", "map")]),
    ("RetryInfo", &[("retry_delay", ".google.protobuf.Duration")]),
    ("QuotaFailure", &[("violations", "*.google.rpc.QuotaViolation")]),
    (
        "QuotaViolation",
        &[
            ("subject", ""),
            ("description", ""),
            ("api_service", ""),
            ("quota_metric", ""),
            ("quota_id", ""),
            ("quota_dimensions", "map"),
            ("quota_value", "int64"),
            ("future_quota_value", "int64"),
        ],
    ),
    ("PreconditionFailure", &[("violations", "*.google.rpc.PreconditionViolation")]),
    ("PreconditionViolation", &[("type", ""), ("subject", ""), ("description", "")]),
    ("BadRequest", &[("field_violations", "*.google.rpc.FieldViolation")]),
    (
        "FieldViolation",
        &[("field", ""), ("description", ""), ("reason", ""), ("localized_message", ".google.rpc.LocalizedMessage")],
    ),
    ("RequestInfo", &[("request_id", ""), ("serving_data", "")]),
    ("ResourceInfo", &[("resource_type", ""), ("resource_name", ""), ("owner", ""), ("description", "")]),
    ("Help", &[("links", "*.google.rpc.HelpLink")]),
    ("HelpLink", &[("description", ""), ("url", "")]),
    ("LocalizedMessage", &[("locale", ""), ("message", "")]),
];

fn error_details() -> FileDescriptorProto {
    let field = |number: usize, name: &str, kind: Type, label: Label, type_name: Option<String>| FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: i32::try_from(number).ok(),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name,
        ..Default::default()
    };
    let entry = |name: &str| DescriptorProto {
        name: Some(name.to_owned()),
        field: ["key", "value"]
            .into_iter()
            .enumerate()
            .map(|(i, name)| field(i + 1, name, Type::String, Label::Optional, None))
            .collect(),
        options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }),
        ..Default::default()
    };
    let message = |(name, fields): &(&str, &[(&str, &str)])| {
        let mut message = DescriptorProto { name: Some((*name).to_owned()), ..Default::default() };
        for (i, (field_name, kind)) in fields.iter().enumerate() {
            message.field.push(match *kind {
                "" => field(i + 1, field_name, Type::String, Label::Optional, None),
                "int64" => field(i + 1, field_name, Type::Int64, Label::Optional, None),
                "map" => {
                    let mut words: Vec<String> = field_name.split('_').map(str::to_owned).collect();
                    words.iter_mut().for_each(|word| word[..1].make_ascii_uppercase());
                    let entry_name = words.concat() + "Entry";
                    message.nested_type.push(entry(&entry_name));
                    let path = format!(".google.rpc.{name}.{entry_name}");
                    field(i + 1, field_name, Type::Message, Label::Repeated, Some(path))
                }
                other => match other.strip_prefix('*') {
                    Some(path) => field(i + 1, field_name, Type::Message, Label::Repeated, Some(path.to_owned())),
                    None => field(i + 1, field_name, Type::Message, Label::Optional, Some(other.to_owned())),
                },
            });
        }
        message
    };
    FileDescriptorProto {
        name: Some("google/rpc/error_details.proto".to_owned()),
        package: Some("google.rpc".to_owned()),
        dependency: vec!["google/protobuf/duration.proto".to_owned()],
        syntax: Some("proto3".to_owned()),
        message_type: MESSAGES.iter().map(message).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{put_bytes, put_tag, put_varint};
    use super::*;

    fn trailers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn codes_are_mapped() {
        let http = [200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401];
        for (code, http) in http.into_iter().enumerate() {
            let status = Status::from_trailers(&trailers(&[("grpc-status", &code.to_string())]), None);
            assert_eq!((usize::from(status.code), status.http().as_u16()), (code, http));
        }
        for odd in ["17", "-1", "256", "x", ""] {
            let status = Status::from_trailers(&trailers(&[("grpc-status", odd)]), None);
            assert_eq!(status.name(), "UNKNOWN", "{odd}");
        }
        assert_eq!(Status::from_trailers(&HeaderMap::new(), None).code, 2);
        assert_eq!(Status::from_http(StatusCode::BAD_GATEWAY).name(), "UNAVAILABLE");
    }

    #[test]
    fn messages_are_decoded() {
        let of = |text| Status::from_trailers(&trailers(&[("grpc-status", "5"), ("grpc-message", text)]), None).message;
        assert_eq!(of("no %C3%A9l%C3%A8ve 100%25"), "no élève 100%");
        assert_eq!(of("50% of %ff"), "50% of \u{fffd}");
    }

    #[test]
    fn details_are_read() {
        let any = |name: &str, value: &[u8]| {
            let mut any = Vec::new();
            put_bytes(1, format!("type.googleapis.com/{name}").as_bytes(), &mut any);
            put_bytes(2, value, &mut any);
            any
        };
        let mut violation = Vec::new();
        put_bytes(1, b"name", &mut violation);
        put_bytes(2, b"is empty", &mut violation);
        let mut bad_request = Vec::new();
        put_bytes(1, &violation, &mut bad_request);
        let mut info = Vec::new();
        put_bytes(1, b"WHY", &mut info);
        put_bytes(3, &[10, 1, b'k', 18, 1, b'v'], &mut info);
        let mut status = Vec::new();
        put_tag(1, 0, &mut status);
        put_varint(3, &mut status);
        let all = [
            any("google.rpc.BadRequest", &bad_request),
            any("google.rpc.ErrorInfo", &info),
            any("google.rpc.DebugInfo", &[18, 1, b's']),
            any("google.rpc.RetryInfo", &[10, 2, 8, 5]),
            any("my.Own", &[1, 2, 3]),
        ];
        all.iter().for_each(|any| put_bytes(3, any, &mut status));
        for engine in [base64::engine::general_purpose::STANDARD, base64::engine::general_purpose::STANDARD_NO_PAD] {
            let value = engine.encode(&status);
            let read = Status::from_trailers(
                &trailers(&[("grpc-status", "3"), ("grpc-message", "no"), ("grpc-status-details-bin", &value)]),
                None,
            );
            let details = json!([
                { "@type": "type.googleapis.com/google.rpc.BadRequest",
                  "fieldViolations": [{ "field": "name", "description": "is empty" }] },
                { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "WHY", "metadata": { "k": "v" } },
                { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s" },
                { "@type": "type.googleapis.com/my.Own", "value": "AQID" },
            ]);
            assert_eq!(read.members(), *json!({ "code": "INVALID_ARGUMENT", "details": details }).as_object().unwrap());
            assert_eq!(
                serde_json::from_str::<Value>(&read.document()).unwrap(),
                json!({ "error": { "status": 400, "code": "INVALID_ARGUMENT", "details": details, "detail": "no" } })
            );
        }
        let garbled = trailers(&[("grpc-status", "3"), ("grpc-status-details-bin", "!!")]);
        assert_eq!(Status::from_trailers(&garbled, None).details, None);
    }
}
