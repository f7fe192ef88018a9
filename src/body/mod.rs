//! What is done with the bodies of requests and answers, without a network: reading, changing and checking them.
//!
//! A body is either held whole, within a cap, or goes through a [`Filter`] part by part, however it is cut. All of it may
//! come from anybody: everything here takes bounded time and memory, and says of what it cannot read why, and where.

mod answer;
pub mod coding;
pub mod form;
pub mod graphql;
pub mod grpc;
mod held;
pub mod jq;
pub mod json;
mod json_text;
pub mod media;
pub mod openapi;
pub mod parameter;
mod parts;
pub mod schema;
mod tokens;
pub mod xml;

use std::borrow::Cow;
use std::fmt;

pub use answer::{Shaper, Shaping, refusal, reshaped, varies};
pub use held::{Held, NO_ROOM, Room, Sends, no_room};
pub use media::{is_json, is_xml};
pub use parts::{Parts, member, merge, object, without_nulls};

/// Works on a body that passes by, whatever parts it comes in.
pub trait Filter: Send {
    /// Takes a part, and appends to `out` what can go on.
    ///
    /// # Errors
    /// The body cannot be read any further. What is in `out` may have gone on already.
    fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed>;

    /// The body is whole: appends what is left of it.
    ///
    /// # Errors
    /// It ends too early.
    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed>;
}

/// A body is not what it is said to be, or goes beyond what is read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// Where, in bytes from its beginning.
    pub at: u64,
    /// What is wrong, for the client.
    pub what: Cow<'static, str>,
}

impl Malformed {
    /// This is wrong, there.
    pub fn new(at: u64, what: impl Into<Cow<'static, str>>) -> Self {
        Self { at, what: what.into() }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at byte {}", self.what, self.at)
    }
}

impl std::error::Error for Malformed {}

/// The `charset` of a content type.
pub fn charset(content_type: &str) -> Option<&str> {
    media::parameter(content_type, "charset")
}

/// Bytes of a body that is held, where nothing else is said.
pub const HELD: u64 = 1 << 20;

/// A mistake in the configuration of what is done with bodies, for the caller to report at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key in the configuration's table; `arrays[1]` is an element.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl Mistake {
    /// This is wrong, at that key.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self { key: key.into(), message: message.into() }
    }
}

/// How deep objects, arrays and elements may lie in each other, in whatever is read.
pub const DEPTH: usize = 128;
