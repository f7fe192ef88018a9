//! Keys that check signatures, and which algorithm goes with which (RFC 7518, RFC 8037).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// A way to sign. There is no `none`.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    EdDSA,
}

/// A key with what its set says of it.
#[derive(Clone, PartialEq)]
pub struct Key {
    /// Its name in its set.
    pub id: Option<Box<str>>,
    /// The one algorithm that it is for.
    only: Option<Algorithm>,
    material: Material,
}

#[derive(Clone, PartialEq)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
}

#[derive(Clone, Copy, PartialEq)]
enum Curve {
    P256,
    P384,
    P521,
}

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

impl Algorithm {
    /// What `alg` says.
    pub fn parse(name: &str) -> Option<Self> {
        let name = serde::de::value::StrDeserializer::<serde::de::value::Error>::new(name);
        Self::deserialize(name).ok()
    }

    /// The bytes that the secret of an HMAC has at least (RFC 7518, section 3.2); none where it is no HMAC.
    pub fn shortest_secret(self) -> Option<usize> {
        match self {
            Self::HS256 => Some(32),
            Self::HS384 => Some(48),
            Self::HS512 => Some(64),
            _ => None,
        }
    }
}

impl Key {
    /// A shared secret.
    pub fn secret(bytes: &[u8]) -> Self {
        Self { id: None, only: None, material: Material::Secret(bytes.to_vec()) }
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
        let material = match info.parsed().map_err(|_| unreadable())? {
            PublicKey::RSA(rsa) => Material::rsa(rsa.modulus, rsa.exponent)?,
            PublicKey::EC(point) => {
                let curve = match point.data().len() {
                    65 => Curve::P256,
                    97 => Curve::P384,
                    133 => Curve::P521,
                    _ => return Err("the key's curve is not one of P-256, P-384 and P-521".to_owned()),
                };
                Material::ec(curve, point.data().to_vec())?
            }
            // RFC 8410, section 3.
            PublicKey::Unknown(key) if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => {
                Material::ed25519(key.to_vec())?
            }
            _ => return Err("the key is not of a type that signs tokens: RSA, EC or Ed25519".to_owned()),
        };
        Ok(Self { id: None, only: None, material })
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
            Some(name) => Some(Algorithm::parse(name).ok_or("its algorithm is not known")?),
            None => None,
        };
        let bytes = |text: &Option<String>, what: &str| {
            let text = text.as_ref().ok_or_else(|| format!("it lacks `{what}`"))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("its `{what}` is not base64url"))
        };
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Material::rsa(&bytes(&jwk.n, "n")?, &bytes(&jwk.e, "e")?)?,
            ("EC", Some(name)) => {
                let (curve, size) = match name {
                    "P-256" => (Curve::P256, 32),
                    "P-384" => (Curve::P384, 48),
                    "P-521" => (Curve::P521, 66),
                    _ => return Err("its curve is not known".to_owned()),
                };
                let (x, y) = (bytes(&jwk.x, "x")?, bytes(&jwk.y, "y")?);
                if x.len() != size || y.len() != size {
                    return Err("its point has the wrong size".to_owned());
                }
                Material::ec(curve, [&[4][..], &x, &y].concat())?
            }
            ("OKP", Some("Ed25519")) => Material::ed25519(bytes(&jwk.x, "x")?)?,
            ("oct", _) => return Err("it is a shared secret, which has no place in a set".to_owned()),
            _ => return Err("its type is not known".to_owned()),
        };
        let key = Self { id: jwk.kid.map(Into::into), only, material };
        match only.is_none_or(|only| key.material.fits(only)) {
            true => Ok(key),
            false => Err("its algorithm is not one for its type".to_owned()),
        }
    }

    /// Whether the key may check signatures of an algorithm.
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.only.is_none_or(|only| only == algorithm) && self.material.fits(algorithm)
    }

    /// The algorithms that are allowed for it where the configuration names none.
    pub fn usual(&self) -> &'static [Algorithm] {
        match &self.material {
            Material::Rsa { .. } => &[Algorithm::RS256, Algorithm::PS256],
            Material::Ec { curve: Curve::P256, .. } => &[Algorithm::ES256],
            Material::Ec { curve: Curve::P384, .. } => &[Algorithm::ES384],
            Material::Ec { curve: Curve::P521, .. } => &[Algorithm::ES512],
            Material::Ed25519(_) => &[Algorithm::EdDSA],
            Material::Secret(_) => &[Algorithm::HS256],
        }
    }

    /// Whether a message has this key's signature. Never with an algorithm that does not fit the key.
    pub fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        match &self.material {
            Material::Rsa { modulus, exponent } => {
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                rsa(algorithm).is_some_and(|with| key.verify(with, message, signature).is_ok())
            }
            Material::Ec { curve, point } => {
                UnparsedPublicKey::new(curve.algorithm(), point).verify(message, signature).is_ok()
            }
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Material::Secret(secret) => {
                let with = match algorithm {
                    Algorithm::HS384 => hmac::HMAC_SHA384,
                    Algorithm::HS512 => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                let tag = hmac::sign(&hmac::Key::new(with, secret), message);
                constant_time::verify_slices_are_equal(tag.as_ref(), signature).is_ok()
            }
        }
    }
}

impl Material {
    fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let unpadded = |number: &[u8]| {
            let zeros = number.iter().take_while(|b| **b == 0).count();
            number[zeros..].to_vec()
        };
        let (modulus, exponent) = (unpadded(modulus), unpadded(exponent));
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |first| first.leading_zeros() as usize);
        match bits {
            ..SMALLEST_RSA => Err(format!("an RSA key of {bits} bits is weak: at least {SMALLEST_RSA} are needed")),
            _ if bits > LARGEST_RSA => Err(format!("an RSA key of {bits} bits: at most {LARGEST_RSA} are taken")),
            _ if exponent.last().is_none_or(|last| last % 2 == 0) || exponent == [1] => {
                Err("the exponent of the RSA key is none".to_owned())
            }
            _ => Ok(Self::Rsa { modulus, exponent }),
        }
    }

    fn ec(curve: Curve, point: Vec<u8>) -> Result<Self, String> {
        match ParsedPublicKey::new(curve.algorithm(), &point) {
            Ok(_) => Ok(Self::Ec { curve, point }),
            Err(_) => Err("its point is not on its curve".to_owned()),
        }
    }

    fn ed25519(key: Vec<u8>) -> Result<Self, String> {
        match key.len() == 32 && ParsedPublicKey::new(&ED25519, &key).is_ok() {
            true => Ok(Self::Ed25519(key)),
            false => Err("it is not a key of Ed25519".to_owned()),
        }
    }

    fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => rsa(algorithm).is_some(),
            Self::Ec { curve: Curve::P256, .. } => algorithm == Algorithm::ES256,
            Self::Ec { curve: Curve::P384, .. } => algorithm == Algorithm::ES384,
            Self::Ec { curve: Curve::P521, .. } => algorithm == Algorithm::ES512,
            Self::Ed25519(_) => algorithm == Algorithm::EdDSA,
            Self::Secret(secret) => algorithm.shortest_secret().is_some_and(|shortest| secret.len() >= shortest),
        }
    }
}

impl Curve {
    fn algorithm(self) -> &'static aws_lc_rs::signature::EcdsaVerificationAlgorithm {
        match self {
            Self::P256 => &ECDSA_P256_SHA256_FIXED,
            Self::P384 => &ECDSA_P384_SHA384_FIXED,
            Self::P521 => &ECDSA_P521_SHA512_FIXED,
        }
    }
}

fn rsa(algorithm: Algorithm) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
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
        key.verifies(algorithm, message.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap())
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
