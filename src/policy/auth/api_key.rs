//! `api_key`: a key of a `[consumer.NAME]`, in a header field, a query parameter or a cookie.
//!
//! ```toml
//! [auth.partners]
//! api_key = { header = "X-Api-Key" }          # { query = "key" }, { cookie = "key" }
//!
//! [consumer.acme]
//! keys   = [{ sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }]
//! groups = ["partners"]
//! ```
//!
//! The configuration has the hash of a key only: `portcullis key new` makes a key with its hash. A key is looked up by
//! its hash, so that the time that it takes says nothing of the keys that there are. Hashes are not slow ones, and
//! need not be where keys are random: what people choose is no key.
//!
//! A good key is taken out of the request before it goes on. Better not in a query: those stand in logs and histories.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::COOKIE;
use http::{HeaderName, HeaderValue, Uri};
use pingora_http::RequestHeader;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Judgement;
use super::identity::Identities;
use crate::build::Build;
use crate::facts::Consumer;
use crate::telemetry::metrics::policies::Reason;

/// `api_key` as it is written.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ApiKeyConfig {
    Header(String),
    Query(String),
    Cookie(String),
}

/// A compiled `api_key`.
pub(super) struct ApiKey {
    place: Place,
    identities: Identities,
}

/// Where a credential is.
#[derive(Clone, PartialEq)]
pub(super) enum Place {
    Header(HeaderName),
    Query(Box<str>),
    Cookie(Box<str>),
}

impl ApiKey {
    /// Compiles; `None` after every mistake was reported.
    pub(super) fn compile(config: &ApiKeyConfig, identities: Identities, build: &mut Build<'_>) -> Option<Self> {
        let place = match config {
            ApiKeyConfig::Header(name) => {
                let header = name.parse().map_err(|_| format!("`{name}` is not the name of a header field"));
                Place::Header(build.or_report("api_key.header", header)?)
            }
            ApiKeyConfig::Query(name) if !name.is_empty() => Place::Query(name.as_str().into()),
            ApiKeyConfig::Cookie(name) if !name.is_empty() => Place::Cookie(name.as_str().into()),
            _ => {
                build.error("api_key", "the key has to have a name where it stands");
                return None;
            }
        };
        Some(Self { place, identities })
    }

    /// Where the key is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// Whose key it is.
    pub(super) fn judge(&self, request: &RequestHeader) -> Judgement {
        match self.place.value(request) {
            Ok(None) => Judgement::Absent,
            Ok(Some(key)) => match self.identities.consumers.with_key(&key) {
                Some(consumer) => Judgement::Known(consumer.clone()),
                None => Judgement::Wrong(Reason::CallerUnknown, "nobody has the key"),
            },
            Err(how) => Judgement::Ambiguous(how),
        }
    }

    /// Who somebody with these claims would be.
    pub(super) fn assume(&self, claims: Map<String, Value>) -> Result<Arc<Consumer>, &'static str> {
        self.identities.of(claims)
    }
}

impl Place {
    /// What is there.
    ///
    /// # Errors
    /// It is there more than once.
    pub(super) fn value<'r>(&self, request: &'r RequestHeader) -> Result<Option<Cow<'r, [u8]>>, &'static str> {
        const TWICE: &str = "the request has its key more than once";
        fn only<T>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, &'static str> {
            let value = values.next();
            if values.next().is_some() { Err(TWICE) } else { Ok(value) }
        }
        match self {
            Self::Header(name) => {
                let value = only(request.headers.get_all(name).iter())?;
                Ok(value.map(|value| Cow::Borrowed(value.as_bytes())))
            }
            Self::Query(name) => {
                let pairs = form_urlencoded::parse(request.uri.query().unwrap_or("").as_bytes());
                let value = only(pairs.filter(|(key, _)| *key == **name).map(|(_, value)| value))?;
                Ok(value.map(|value| Cow::Owned(value.into_owned().into_bytes())))
            }
            Self::Cookie(name) => {
                let fields = request.headers.get_all(COOKIE).iter();
                let pairs = fields.flat_map(|cookies| cookies.as_bytes().split(|b| *b == b';')).filter_map(pair);
                let value = only(pairs.filter(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value))?;
                Ok(value.map(Cow::Borrowed))
            }
        }
    }

    /// Takes what is there out of the request.
    pub(super) fn take(&self, request: &mut RequestHeader) {
        match self {
            Self::Header(name) => drop(request.remove_header(name)),
            Self::Query(name) => {
                let is_other =
                    |text: &&str| form_urlencoded::parse(text.as_bytes()).next().is_none_or(|(key, _)| key != **name);
                let rest: Vec<&str> = request.uri.query().unwrap_or("").split('&').filter(is_other).collect();
                let path = request.uri.path();
                let target = if rest.is_empty() { path.to_owned() } else { format!("{path}?{}", rest.join("&")) };
                let mut parts = request.uri.clone().into_parts();
                parts.path_and_query = target.parse().ok();
                if let Ok(uri) = Uri::from_parts(parts) {
                    request.set_uri(uri);
                }
            }
            Self::Cookie(name) => {
                let fields: Vec<HeaderValue> = request.headers.get_all(COOKIE).iter().cloned().collect();
                request.remove_header(&COOKIE);
                for field in fields {
                    let is_other = |text: &&[u8]| pair(text).is_none_or(|(key, _)| key != name.as_bytes());
                    let rest: Vec<&[u8]> =
                        field.as_bytes().split(|b| *b == b';').map(<[u8]>::trim_ascii).filter(is_other).collect();
                    if let (false, Ok(value)) = (rest.is_empty(), HeaderValue::from_bytes(&rest.join(&b"; "[..]))) {
                        let _ = request.append_header(COOKIE, value);
                    }
                }
            }
        }
    }
}

/// `name=value`
fn pair(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.trim_ascii();
    let at = memchr::memchr(b'=', text)?;
    Some((&text[..at], &text[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_and_taken_out() {
        let mut request = RequestHeader::build("GET", b"/a?x=1&key=s%2Bt&y", None).unwrap();
        request.insert_header("Cookie", "a=1; key=s; b=\"2\"").unwrap();
        request.append_header("Cookie", "other=3").unwrap();
        request.insert_header("X-Key", "s").unwrap();
        let places =
            [Place::Query("key".into()), Place::Cookie("key".into()), Place::Header(HeaderName::from_static("x-key"))];
        for (place, value) in places.iter().zip(["s+t", "s", "s"]) {
            assert_eq!(place.value(&request).unwrap().as_deref(), Some(value.as_bytes()));
            place.take(&mut request);
            assert_eq!(place.value(&request), Ok(None));
        }
        assert_eq!(request.uri, "/a?x=1&y");
        let cookies: Vec<_> = request.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=\"2\"", "other=3"]);
        let twice = RequestHeader::build("GET", b"/a?key=1&k%65y=2", None).unwrap();
        assert!(places[0].value(&twice).is_err());
    }
}
