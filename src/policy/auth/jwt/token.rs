//! Tokens: what they say, and what of it must hold (RFC 7515, RFC 7519, RFC 8725).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::key::{Algorithm, Key};
use crate::policy::auth::claims;
use crate::telemetry::metrics::policies::Reason;

/// Bytes of the longest token that is looked at.
const LONGEST: usize = 16 << 10;
/// Bytes of the longest name of a key.
const LONGEST_ID: usize = 256;
/// Keys that are tried for a token that names none.
const MOST_TRIED: usize = 4;

/// A token that is not verified yet.
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    key: Option<String>,
    pub(super) claims: Map<String, Value>,
    signed: &'t [u8],
    signature: &'t str,
}

/// What must hold of a token.
pub(super) struct Rules {
    pub(super) claims: claims::Rules,
    /// Where nothing is said of it, what is usual for the key.
    pub(super) algorithms: Option<Vec<Algorithm>>,
    pub(super) leeway: u64,
    pub(super) types: Vec<Box<str>>,
}

/// How a signature was found to be.
pub(super) enum Signature {
    Good,
    Bad,
    /// None of the keys is the one that it was made with.
    UnknownKey,
}

/// The protected header. Keys in it (`jwk`, `jku`, `x5c`, `x5u`) are not looked at: who signs does not choose the key.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
    b64: Option<bool>,
    enc: Option<Value>,
    zip: Option<Value>,
}

impl<'t> Token<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is no token that could be good, in words that hold no part of it.
    pub(super) fn parse(text: &'t [u8], rules: &Rules) -> Result<Self, &'static str> {
        if text.len() > LONGEST {
            return Err("the token is too long");
        }
        let mut dots = memchr::memchr_iter(b'.', text);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err("the token has not three parts");
        };
        let decoded = |part: &[u8]| URL_SAFE_NO_PAD.decode(part).map_err(|_| "a part of the token is not base64url");
        let header = claims::object(&decoded(&text[..first])?)
            .and_then(|header| Header::deserialize(Value::Object(header)))
            .map_err(|_| "the token's header is not one of a signed token")?;
        if header.crit.is_some() || header.b64 == Some(false) || header.enc.is_some() || header.zip.is_some() {
            return Err("the token's header asks for what is not understood");
        }
        let algorithm = header.alg.parse().map_err(|_| "the token's algorithm is not known")?;
        if rules.algorithms.as_ref().is_some_and(|allowed| !allowed.contains(&algorithm)) {
            return Err("the token's algorithm is not allowed");
        }
        if header.kid.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
            return Err("the name of the token's key is too long");
        }
        if let Some(name) = &header.typ {
            let name =
                name.get(..12).filter(|p| p.eq_ignore_ascii_case("application/")).map_or(&**name, |_| &name[12..]);
            if !rules.types.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                return Err("the token is of another type");
            }
        }
        let claims = claims::object(&decoded(&text[first + 1..second])?)
            .map_err(|_| "the token's claims are not a JSON object")?;
        let signature = &text[second + 1..];
        decoded(signature)?;
        let signature = std::str::from_utf8(signature).map_err(|_| "a part of the token is not base64url")?;
        Ok(Self { algorithm, key: header.kid, claims, signed: &text[..second], signature })
    }

    /// Until when the token is good, in seconds since 1970, leeway included.
    ///
    /// # Errors
    /// What of its claims does not hold.
    pub(super) fn holds(&self, rules: &Rules, now: u64) -> Result<u64, (Reason, &'static str)> {
        let time = |name: &str| claims::time(&self.claims, name);
        let until = time("exp")?.ok_or((Reason::Claims, "the token says not when it expires"))?;
        let until = until.saturating_add(rules.leeway);
        if now >= until {
            return Err((Reason::Expired, "the token is expired"));
        }
        let latest = now.saturating_add(rules.leeway);
        if time("nbf")?.is_some_and(|from| from > latest) {
            return Err((Reason::NotYetValid, "the token is not valid yet"));
        }
        if time("iat")?.is_some_and(|made| made > latest) {
            return Err((Reason::NotYetValid, "the token is from the future"));
        }
        rules.claims.hold(&self.claims).map(|()| until)
    }

    /// Whether one of the keys made the signature.
    pub(super) fn signature(&self, keys: &[Key], rules: &Rules) -> Signature {
        let fits = |key: &&Key| {
            key.fits(self.algorithm)
                && (rules.algorithms.is_some() || key.usual().contains(&self.algorithm))
                && match (&key.id, &self.key) {
                    (Some(theirs), Some(ours)) => **theirs == **ours,
                    // A key without a name is one of the configuration, or the only one of a small provider.
                    _ => true,
                }
        };
        let mut tried = keys.iter().filter(fits).take(MOST_TRIED);
        let named = || self.key.is_some() && keys.iter().any(|key| key.id.as_deref() == self.key.as_deref());
        match tried.any(|key| key.verifies(self.algorithm, self.signed, self.signature)) {
            true => Signature::Good,
            false if named() => Signature::Bad,
            false => Signature::UnknownKey,
        }
    }
}
