//! What a line says, and how it looks: compiled once, so that a line is nothing but copies and numbers.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Deserializer, de};

use crate::types::Stamp;

/// The facts of one request.
#[derive(Default)]
pub struct Line<'a> {
    /// When it ended; now, if it is not given.
    pub time: Option<SystemTime>,
    /// The listener's name.
    pub listener: &'a str,
    /// Who asked.
    pub client: Option<IpAddr>,
    /// The method.
    pub method: &'a str,
    /// The host.
    pub host: &'a str,
    /// The path.
    pub path: &'a str,
    /// `HTTP/1.1` or another version.
    pub protocol: &'a str,
    /// The status of the answer; 499 when the client left before it.
    pub status: u16,
    /// The API that the route belongs to.
    pub api: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The upstream's name.
    pub upstream: &'a str,
    /// The server that was asked last.
    pub server: &'a str,
    /// How often a server was asked.
    pub attempts: u32,
    /// From the head of the request to the end of the answer.
    pub duration: Option<Duration>,
    /// From the head of the request to the first attempt, or to the end of the gateway's own answer.
    pub gateway: Option<Duration>,
    /// How long it waited in policies.
    pub waited: Option<Duration>,
    /// From the last attempt to the head of its answer.
    pub first_byte: Option<Duration>,
    /// Bytes of the request's body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// The request's id.
    pub request_id: &'a str,
    /// The id of its trace.
    pub trace_id: &'a str,
    /// The version of TLS.
    pub tls: &'a str,
    /// The name of who asked.
    pub consumer: &'a str,
    /// Who answered instead of an upstream.
    pub stopped_by: &'a str,
    /// Which policy would have stopped the request, were it not in a shadow.
    pub shadowed: &'a str,
    /// The parts that the answer goes without, and why.
    pub missing: &'a str,
    /// What a cache had to do with the answer.
    pub cache: &'a str,
    /// Why the request never became one.
    pub refused: &'a str,
    /// What went wrong.
    pub cause: &'a str,
    /// The request's header fields.
    pub headers: Option<&'a HeaderMap>,
}

macro_rules! fields {
    ($($name:literal => $field:ident,)*) => {
        /// A part of a line.
        #[derive(Clone, PartialEq, Debug)]
        pub enum Field {
            $(#[doc = $name] $field,)*
            /// `header.NAME`: the first value of a field of the request.
            Header(HeaderName),
        }

        const NAMES: &[&str] = &[$($name),*];

        /// What a line says unless the configuration chooses.
        pub(super) fn all() -> Vec<Field> {
            vec![$(Field::$field),*]
        }

        impl Field {
            fn plain(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$field),)*
                    _ => None,
                }
            }

            fn name(&self) -> String {
                match self {
                    $(Self::$field => $name.to_owned(),)*
                    Self::Header(name) => format!("header.{name}"),
                }
            }
        }
    };
}

fields! {
    "time" => Time,
    "listener" => Listener,
    "client" => Client,
    "consumer" => Consumer,
    "method" => Method,
    "host" => Host,
    "path" => Path,
    "protocol" => Protocol,
    "status" => Status,
    "api" => Api,
    "route" => Route,
    "upstream" => Upstream,
    "server" => Server,
    "attempts" => Attempts,
    "duration_ms" => Duration,
    "gateway_ms" => Gateway,
    "waited_ms" => Waited,
    "first_byte_ms" => FirstByte,
    "bytes_in" => BytesIn,
    "bytes_out" => BytesOut,
    "request_id" => RequestId,
    "trace_id" => TraceId,
    "tls" => Tls,
    "user_agent" => UserAgent,
    "stopped_by" => StoppedBy,
    "shadowed" => Shadowed,
    "missing" => Missing,
    "cache" => Cache,
    "refused" => Refused,
    "cause" => Cause,
}

/// A line as text with `{field}`s.
#[derive(Clone, PartialEq, Debug)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, PartialEq, Debug)]
enum Piece {
    Text(Box<str>),
    Field(Field),
}

/// How lines are put together.
pub(super) enum Layout {
    /// An object; every field with the text that stands before its value.
    Json(Vec<(Box<str>, Field)>),
    /// `key=value` pairs; every field with the text that stands before its value.
    Logfmt(Vec<(Box<str>, Field)>),
    /// Text of the operator's own, where an empty value is `-`.
    Pattern(Pattern),
}

/// What a value must not do to the text around it.
#[derive(Clone, Copy, PartialEq)]
enum Quoting {
    Json,
    Logfmt,
    Pattern,
}

impl Layout {
    pub fn json(fields: &[Field]) -> Self {
        Self::Json(fields.iter().map(|field| (format!("\"{}\":", field.name()).into(), field.clone())).collect())
    }

    pub fn logfmt(fields: &[Field]) -> Self {
        Self::Logfmt(fields.iter().map(|field| (format!("{}=", field.name()).into(), field.clone())).collect())
    }

    /// Appends a line with its end.
    pub fn render(&self, line: &Line<'_>, out: &mut String) {
        match self {
            Self::Json(fields) => {
                out.push('{');
                pairs(fields, line, Quoting::Json, ',', out);
                out.push('}');
            }
            Self::Logfmt(fields) => pairs(fields, line, Quoting::Logfmt, ' ', out),
            Self::Pattern(Pattern(pieces)) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.push_str(text),
                        Piece::Field(field) => {
                            if !line.value(field, Quoting::Pattern, out) {
                                out.push('-');
                            }
                        }
                    }
                }
            }
        }
        out.push('\n');
    }
}

/// The fields that have a value, with a separator between them.
fn pairs(fields: &[(Box<str>, Field)], line: &Line<'_>, quoting: Quoting, separator: char, out: &mut String) {
    let start = out.len();
    for (before, field) in fields {
        let length = out.len();
        out.push_str(before);
        if line.value(field, quoting, out) {
            out.push(separator);
        } else {
            out.truncate(length);
        }
    }
    if out.len() > start {
        out.pop();
    }
}

impl Line<'_> {
    /// Appends the value of a field; gives whether there is one.
    fn value(&self, field: &Field, quoting: Quoting, out: &mut String) -> bool {
        let header = |name: &HeaderName| self.headers.and_then(|headers| headers.get(name));
        let text = match field {
            Field::Listener => self.listener,
            Field::Consumer => self.consumer,
            Field::Method => self.method,
            Field::Host => self.host,
            Field::Path => self.path,
            Field::Protocol => self.protocol,
            Field::Api => self.api,
            Field::Route => self.route,
            Field::Upstream => self.upstream,
            Field::Server => self.server,
            Field::RequestId => self.request_id,
            Field::TraceId => self.trace_id,
            Field::Tls => self.tls,
            Field::StoppedBy => self.stopped_by,
            Field::Shadowed => self.shadowed,
            Field::Missing => self.missing,
            Field::Cache => self.cache,
            Field::Refused => self.refused,
            Field::Cause => self.cause,
            Field::UserAgent => header(&http::header::USER_AGENT)
                .map_or("", |value| std::str::from_utf8(value.as_bytes()).unwrap_or("")),
            Field::Header(name) => header(name).map_or("", |value| std::str::from_utf8(value.as_bytes()).unwrap_or("")),
            Field::Time => {
                quoted(quoting, out, |out| timestamp(self.time.unwrap_or_else(SystemTime::now), out));
                return true;
            }
            Field::Client => {
                let Some(client) = self.client else { return false };
                quoted(quoting, out, |out| address(client, out));
                return true;
            }
            Field::Attempts if self.attempts == 0 => return false,
            Field::Status => return number(self.status.into(), out),
            Field::Attempts => return number(self.attempts.into(), out),
            Field::BytesIn => return number(self.bytes_in, out),
            Field::BytesOut => return number(self.bytes_out, out),
            Field::Duration => return milliseconds(self.duration, out),
            Field::Gateway => return milliseconds(self.gateway, out),
            Field::Waited => return milliseconds(self.waited, out),
            Field::FirstByte => return milliseconds(self.first_byte, out),
        };
        match quoting {
            _ if text.is_empty() => return false,
            Quoting::Json => quoted(quoting, out, |out| escape(text, out)),
            Quoting::Logfmt if text.bytes().all(|b| b.is_ascii_graphic() && !b"\"=\\".contains(&b)) => {
                out.push_str(text)
            }
            Quoting::Logfmt => quoted(Quoting::Json, out, |out| escape(text, out)),
            Quoting::Pattern => escape(text, out),
        }
        true
    }
}

/// Text that needs no escapes.
fn quoted(quoting: Quoting, out: &mut String, write: impl FnOnce(&mut String)) {
    let quote = quoting == Quoting::Json;
    out.extend(quote.then_some('"'));
    write(out);
    out.extend(quote.then_some('"'));
}

fn number(number: u64, out: &mut String) -> bool {
    out.push_str(itoa::Buffer::new().format(number));
    true
}

fn address(address: IpAddr, out: &mut String) {
    let IpAddr::V4(address) = address else {
        let _ = write!(out, "{address}");
        return;
    };
    for (i, octet) in address.octets().into_iter().enumerate() {
        out.push_str(if i > 0 { "." } else { "" });
        number(octet.into(), out);
    }
}

fn milliseconds(time: Option<Duration>, out: &mut String) -> bool {
    let Some(time) = time else { return false };
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    number(micros / 1000, out);
    out.push('.');
    three_digits((micros % 1000) as u32, out)
}

fn three_digits(number: u32, out: &mut String) -> bool {
    for power in [100, 10, 1] {
        out.push(char::from(b'0' + (number / power % 10) as u8));
    }
    true
}

/// JSON's escapes (RFC 8259, section 7): no value can end its line or its quotes.
fn escape(value: &str, out: &mut String) {
    // 0xC2 begins the control characters of ISO 8859-1, which some terminals obey, and 0xE2 those of Unicode.
    let special = |b: u8| b < b' ' || matches!(b, b'"' | b'\\' | 0x7f | 0xc2 | 0xe2);
    // Looks at all bytes of a part at once, for hardly any value has one of these.
    let some = |part: &[u8]| part.iter().fold(false, |found, b| found | special(*b));
    if !value.as_bytes().chunks(16).any(some) {
        out.push_str(value);
        return;
    }
    let mut rest = value;
    while let Some(at) = rest.bytes().position(special) {
        out.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            0xc2 | 0xe2 => {
                let c = rest[at..].chars().next().unwrap_or_default();
                match c.is_control() || steers(c) {
                    true => drop(write!(out, "\\u{:04x}", u32::from(c))),
                    false => out.push(c),
                }
                rest = &rest[at + c.len_utf8()..];
                continue;
            }
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            byte => drop(write!(out, "\\u{byte:04x}")),
        }
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// What ends a line for some readers of Unicode, or turns the order of the text around it.
fn steers(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// RFC 3339 with milliseconds.
fn timestamp(time: SystemTime, out: &mut String) {
    thread_local! {
        static SECOND: Stamp = const { Stamp::new("%Y-%m-%dT%H:%M:%S.") };
    }
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SECOND.with(|stamp| stamp.with(since.as_secs(), |text| out.push_str(text)));
    three_digits(since.subsec_millis(), out);
    out.push('Z');
}

/// Fields that hold what must not be written down.
const SECRETS: [&str; 6] =
    ["authorization", "cookie", "proxy-authorization", "set-cookie", "x-api-key", "x-auth-token"];

impl Field {
    fn parse<E: de::Error>(name: &str) -> Result<Self, E> {
        let Some(header) = name.strip_prefix("header.") else {
            return Self::plain(name).ok_or_else(|| E::unknown_variant(name, NAMES));
        };
        match header.parse::<HeaderName>() {
            Ok(header) if SECRETS.contains(&header.as_str()) => {
                Err(E::custom(format!("`{header}` holds secrets, which are never logged")))
            }
            Ok(header) => Ok(Self::Header(header)),
            Err(_) => Err(E::custom(format!("`{header}` is not the name of a header field"))),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?)
    }
}

impl FromStr for Pattern {
    type Err = de::value::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(de::Error::custom("a `{` without its `}`"));
            };
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(Piece::Field(Field::parse(name)?));
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        match text.contains(char::is_control) {
            true => Err(de::Error::custom("a line has no control characters")),
            false => Ok(Self(pieces)),
        }
    }
}

crate::types::deserialize_from_str!(Pattern, "a line with fields, such as \"{client} {method} {path} {status}\"");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(line: &Line<'_>, layout: &Layout) -> String {
        let mut out = String::new();
        layout.render(line, &mut out);
        out
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_line(path in ".*", cause in any::<String>()) {
            let line = Line { path: &path, cause: &cause, status: 200, ..Line::default() };
            let json = render(&line, &Layout::json(&all()));
            prop_assert_eq!(json.matches('\n').count(), 1);
            let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(parsed["path"].as_str().unwrap_or(""), path.as_str());
            prop_assert_eq!(parsed["cause"].as_str().unwrap_or(""), cause.as_str());
            prop_assert_eq!(render(&line, &Layout::logfmt(&all())).matches('\n').count(), 1);
            let pattern = Layout::Pattern("\"{path}\" {cause}".parse().unwrap());
            prop_assert_eq!(render(&line, &pattern).matches('\n').count(), 1);
        }
    }

    #[test]
    fn logfmt_quotes_what_needs_it() {
        let line = Line { path: "/a b", method: "GET", status: 200, ..Line::default() };
        let text = render(&line, &Layout::logfmt(&all()));
        assert!(text.contains(" method=GET path=\"/a b\" status=200 "), "{text}");
    }

    #[test]
    fn a_pattern_shows_what_is_missing() {
        let line = Line { path: "/\"x", status: 200, duration: Some(Duration::from_micros(1050)), ..Line::default() };
        let pattern: Pattern = "{client} \"{path}\" {status} {duration_ms}ms".parse().unwrap();
        assert_eq!(render(&line, &Layout::Pattern(pattern)), "- \"/\\\"x\" 200 1.050ms\n");
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_007);
        let line = Line { time: Some(time), ..Line::default() };
        assert_eq!(render(&line, &Layout::json(&[Field::Time])), "{\"time\":\"2023-11-14T22:13:20.007Z\"}\n");
    }
}
