//! Leaf types of the configuration, each parsed once and unable to hold a wrong value.

mod captures;
mod cidr;
mod date;
mod failure;
pub mod file;
mod hex;
mod one_or_more;
pub mod path;
mod rate;
mod reserved;
mod secret;
mod size;
mod stamp;
pub mod template;
mod timespan;
mod weighted;

pub use captures::Captures;
pub use cidr::{Cidr, Cidrs};
pub use date::Date;
pub use failure::{Failure, Failures};
pub use hex::{hex, unhex};
pub use one_or_more::OneOrMore;
pub use rate::{Pace, Rate};
pub use reserved::Reserved;
pub use secret::{Secret, SecretError, SecretText};
pub use size::Size;
pub use stamp::Stamp;
pub use timespan::Timespan;
pub use weighted::weighted;

/// Deserializes a type from a string by its [`std::str::FromStr`], so that the message of the parser is the
/// message that the operator reads.
macro_rules! deserialize_from_str {
    ($type:ty, $expected:literal) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}
pub(crate) use deserialize_from_str;
