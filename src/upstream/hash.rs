//! What of a request a choice is tied to, so that like requests are chosen for alike.

use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderName;
use pingora_http::RequestHeader;

/// What a hash is taken of.
#[derive(Clone, PartialEq, Debug)]
pub enum HashSource {
    /// The first field of a name.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// The client's address.
    Client,
    /// The path.
    Path,
}

impl HashSource {
    /// The hash for a request; `None` where the request has none of it. The same in every process.
    pub fn hash(&self, request: &RequestHeader, client: IpAddr) -> Option<u64> {
        match self {
            Self::Header(name) => request.headers.get(name).map(|value| hash(value.as_bytes())),
            Self::Cookie(name) => cookie(request, name).map(hash),
            Self::Client => match client {
                IpAddr::V4(address) => Some(hash(&address.octets())),
                IpAddr::V6(address) => Some(hash(&address.octets())),
            },
            Self::Path => Some(hash(request.uri.path().as_bytes())),
        }
    }
}

impl FromStr for HashSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("header", name)) => {
                name.parse().map(Self::Header).map_err(|_| format!("`{name}` is not the name of a header field"))
            }
            Some(("cookie", name)) if !name.is_empty() => Ok(Self::Cookie(name.to_owned())),
            None if text == "client" => Ok(Self::Client),
            None if text == "path" => Ok(Self::Path),
            _ => Err(format!("`{text}`: hash `header:NAME`, `cookie:NAME`, `client` or `path`")),
        }
    }
}

crate::types::deserialize_from_str!(
    HashSource,
    "what to hash: \"header:NAME\", \"cookie:NAME\", \"client\" or \"path\""
);

/// The value of a cookie (RFC 6265, section 4.2).
pub fn cookie<'r>(request: &'r RequestHeader, name: &str) -> Option<&'r [u8]> {
    request
        .headers
        .get_all(http::header::COOKIE)
        .iter()
        .flat_map(|cookies| cookies.as_bytes().split(|b| *b == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let at = pair.iter().position(|b| *b == b'=')?;
            Some((&pair[..at], &pair[at + 1..]))
        })
        .find(|(key, _)| *key == name.as_bytes())
        .map(|(_, value)| value)
}

/// FNV-1a, spread.
pub fn hash(bytes: &[u8]) -> u64 {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv))
}

/// The finalizer of SplitMix64: spreads what differs in few bits.
pub(super) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
