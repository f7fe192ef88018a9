//! Keys that check signatures, and which algorithm goes with which (RFC 7518, RFC 8037). What is not to be trusted is
//! refused when a key is read: a weak modulus, a point that is not on its curve, a short secret.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A way to sign. There is no `none`.
pub use jsonwebtoken::Algorithm;

/// A key with what its set says of it.
#[derive(Clone)]
pub struct Key {
    /// Its name in its set.
    pub id: Option<Box<str>>,
    /// The one algorithm that it is for.
    only: Option<Algorithm>,
    key: DecodingKey,
}

/// Curves, by the bytes of an uncompressed point on them.
const P256: usize = 65;
const P384: usize = 97;

/// A key of a set, as JSON (RFC 7517, section 4).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Bits of the smallest RSA key that is used.
const SMALLEST_RSA: usize = 2048;
const LARGEST_RSA: usize = 8192;
/// Keys of a set beyond these are not looked at.
const MOST_KEYS: usize = 100;

/// The bytes that the secret of an HMAC has at least (RFC 7518, section 3.2); none where it is no HMAC.
pub fn shortest_secret(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        _ => None,
    }
}

impl Key {
    /// A shared secret.
    pub fn secret(bytes: &[u8]) -> Self {
        Self { id: None, only: None, key: DecodingKey::from_secret(bytes) }
    }

    /// A public key in PEM form (`PUBLIC KEY`).
    ///
    /// # Errors
    /// It is none, or a weak one, in words.
    pub fn pem(text: &[u8]) -> Result<Self, String> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(text)
            .map_err(|_| "there is no public key in PEM form (`-----BEGIN PUBLIC KEY-----`)".to_owned())?;
        let unreadable = || "the public key cannot be read".to_owned();
        let (_, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| unreadable())?;
        let key = match info.parsed().map_err(|_| unreadable())? {
            PublicKey::RSA(public) => rsa(public.modulus, public.exponent)?,
            PublicKey::EC(point) => ec(point.data())?,
            // RFC 8410, section 3.
            PublicKey::Unknown(key) if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => ed25519(key)?,
            _ => return Err("the key is not of a type that signs tokens: RSA, EC or Ed25519".to_owned()),
        };
        Ok(Self { id: None, only: None, key })
    }

    /// The usable keys of a JWK set (RFC 7517, section 5), and why others are not. Shared secrets have no place in a
    /// set: they are left out.
    ///
    /// # Errors
    /// It is no JWK set.
    pub fn set(json: &[u8]) -> Result<(Vec<Self>, Vec<String>), String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|error| format!("not a JWK set: {error}"))?;
        let (mut keys, mut left_out) = (Vec::new(), Vec::new());
        for (i, jwk) in set.keys.into_iter().take(MOST_KEYS).enumerate() {
            match serde_json::from_value::<Jwk>(jwk).map_err(|error| error.to_string()).and_then(Self::jwk) {
                Ok(key) => keys.push(key),
                Err(why) => left_out.push(format!("key {i}: {why}")),
            }
        }
        Ok((keys, left_out))
    }

    fn jwk(jwk: Jwk) -> Result<Self, String> {
        if jwk.r#use.as_ref().is_some_and(|r#use| r#use != "sig") {
            return Err("it is not for signatures".to_owned());
        }
        if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return Err("it is not for verifying".to_owned());
        }
        let only = match &jwk.alg {
            Some(name) => Some(name.parse().map_err(|_| "its algorithm is not known")?),
            None => None,
        };
        let bytes = |text: &Option<String>, what: &str| {
            let text = text.as_ref().ok_or_else(|| format!("it lacks `{what}`"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its `{what}` is not base64url"))
        };
        let key = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => rsa(&bytes(&jwk.n, "n")?, &bytes(&jwk.e, "e")?)?,
            ("EC", Some(name)) => {
                let size = match name {
                    "P-256" => 32,
                    "P-384" => 48,
                    _ => return Err("its curve is not known".to_owned()),
                };
                let (x, y) = (bytes(&jwk.x, "x")?, bytes(&jwk.y, "y")?);
                if x.len() != size || y.len() != size {
                    return Err("its point has the wrong size".to_owned());
                }
                ec(&[&[4][..], &x, &y].concat())?
            }
            ("OKP", Some("Ed25519")) => ed25519(&bytes(&jwk.x, "x")?)?,
            ("oct", _) => return Err("it is a shared secret, which has no place in a set".to_owned()),
            _ => return Err("its type is not known".to_owned()),
        };
        let key = Self { id: jwk.kid.map(Into::into), only: None, key };
        match only.is_none_or(|only| key.fits(only)) {
            true => Ok(Self { only, ..key }),
            false => Err("its algorithm is not one for its type".to_owned()),
        }
    }

    /// Whether the key may check signatures of an algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let fits = match (algorithm, self.bytes().len()) {
            (Algorithm::ES256, length) => length == P256,
            (Algorithm::ES384, length) => length == P384,
            (other, length) => shortest_secret(other).is_none_or(|shortest| length >= shortest),
        };
        fits && self.key.family() == algorithm.family() && self.only.is_none_or(|only| only == algorithm)
    }

    /// The algorithms that are allowed for it where the configuration names none.
    pub fn usual(&self) -> &'static [Algorithm] {
        match self.key.family() {
            AlgorithmFamily::Rsa => &[Algorithm::RS256, Algorithm::PS256],
            AlgorithmFamily::Ec if self.bytes().len() == P256 => &[Algorithm::ES256],
            AlgorithmFamily::Ec => &[Algorithm::ES384],
            AlgorithmFamily::Ed => &[Algorithm::EdDSA],
            AlgorithmFamily::Hmac => &[Algorithm::HS256],
        }
    }

    /// Whether a message has this key's signature, which is in base64url. Never with an algorithm that does not fit the
    /// key.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &str) -> bool {
        self.fits(algorithm)
            && jsonwebtoken::crypto::verify(signature, message, &self.key, algorithm).is_ok_and(|good| good)
    }

    /// A secret, a point, a modulus.
    fn bytes(&self) -> &[u8] {
        match self.key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) | DecodingKeyKind::RsaModulusExponent { n: bytes, .. } => bytes,
        }
    }

    fn exponent(&self) -> &[u8] {
        match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { e, .. } => e,
            DecodingKeyKind::SecretOrDer(_) => &[],
        }
    }
}

/// To tell whether a provider has changed its keys.
impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        (&self.id, self.only, self.key.family(), self.bytes(), self.exponent())
            == (&other.id, other.only, other.key.family(), other.bytes(), other.exponent())
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<DecodingKey, String> {
    fn unpadded(number: &[u8]) -> &[u8] {
        let zeros = number.iter().take_while(|b| **b == 0).count();
        &number[zeros..]
    }
    let (modulus, exponent) = (unpadded(modulus), unpadded(exponent));
    let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
    match bits {
        ..SMALLEST_RSA => Err(format!("an RSA key of {bits} bits is weak: at least {SMALLEST_RSA} are needed")),
        _ if bits > LARGEST_RSA => Err(format!("an RSA key of {bits} bits: at most {LARGEST_RSA} are taken")),
        _ if exponent.last().is_none_or(|last| last % 2 == 0) || exponent == [1] => {
            Err("the exponent of the RSA key is none".to_owned())
        }
        _ => Ok(DecodingKey::from_rsa_raw_components(modulus, exponent)),
    }
}

/// An uncompressed point.
fn ec(point: &[u8]) -> Result<DecodingKey, String> {
    let parsed = match point.len() {
        P256 => ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point),
        P384 => ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point),
        _ => return Err("the key's curve is not one of P-256 and P-384".to_owned()),
    };
    match parsed {
        Ok(_) => Ok(DecodingKey::from_ec_der(point)),
        Err(_) => Err("its point is not on its curve".to_owned()),
    }
}

fn ed25519(key: &[u8]) -> Result<DecodingKey, String> {
    match key.len() == 32 && ParsedPublicKey::new(&ED25519, key).is_ok() {
        true => Ok(DecodingKey::from_ed_der(key)),
        false => Err("it is not a key of Ed25519".to_owned()),
    }
}

/// Kept out of sight: nothing prints a key.
impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a compact JWS of an RFC.
    fn verifies(key: &Key, algorithm: Algorithm, jws: &str) -> bool {
        let (message, signature) = jws.rsplit_once('.').unwrap();
        key.verifies(algorithm, message.as_bytes(), signature)
    }

    const JOE: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

    #[test]
    fn the_examples_of_the_rfcs_verify() {
        // RFC 7515, appendix A.1.
        let secret = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let key = Key::secret(&URL_SAFE_NO_PAD.decode(secret).unwrap());
        let jws = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{JOE}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert!(verifies(&key, Algorithm::HS256, &jws));
        assert!(!verifies(&key, Algorithm::HS512, &jws) && !verifies(&key, Algorithm::RS256, &jws));
        // RFC 7515, appendix A.3, and RFC 8037, appendix A.
        let set = br#"{"keys":[
            {"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
            {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
        ]}"#;
        let (keys, left_out) = Key::set(set).unwrap();
        assert!(left_out.is_empty(), "{left_out:?}");
        let jws = format!(
            "eyJhbGciOiJFUzI1NiJ9.{JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
        );
        assert!(verifies(&keys[0], Algorithm::ES256, &jws) && !verifies(&keys[0], Algorithm::EdDSA, &jws));
        let zero = format!("eyJhbGciOiJFUzI1NiJ9.{JOE}.{}", "A".repeat(86));
        assert!(!verifies(&keys[0], Algorithm::ES256, &zero));
        let jws = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
        assert!(verifies(&keys[1], Algorithm::EdDSA, jws) && !verifies(&keys[1], Algorithm::ES256, jws));
    }

    #[test]
    fn keys_that_are_not_to_be_used_are_left_out() {
        let weak = "w".repeat(171);
        let set = format!(
            r#"{{"keys":[{{"kty":"oct","k":"AAAA"}},{{"kty":"RSA","n":"{weak}","e":"AQAB"}},{{"kty":"RSA","use":"enc","n":"{weak}","e":"AQAB"}},
            {{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"}},
            {{"kty":"OKP","crv":"Ed25519","alg":"RS256","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}},7,{{"kty":"X"}}]}}"#
        );
        let (keys, left_out) = Key::set(set.as_bytes()).unwrap();
        assert!(keys.is_empty());
        for (words, said) in
            ["shared secret", "is weak", "not for signatures", "not on its curve", "not one for its type", "", ""]
                .iter()
                .zip(&left_out)
        {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(left_out.len(), 7);
        assert!(Key::set(b"[]").is_err() && Key::pem(b"x").is_err());
    }
}
