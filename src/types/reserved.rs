use serde::de::{self, Deserialize, Deserializer};

/// A key that is promised and not there yet: refused, never ignored.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Reserved;

impl<'de> Deserialize<'de> for Reserved {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(de::Error::custom("this is not available in this version"))
    }
}
