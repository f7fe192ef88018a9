//! The demo's provider of identities, on a port of its own: it signs tokens for anybody who asks, says what opaque ones
//! are (RFC 7662), and knows who a session is of. It takes the gateway's traces, too, and throws them away.
//!
//! ```sh
//! curl localhost:9084/token/ada      # a token of Ada's, signed with a key that the process made
//! ```

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use pingora_http::RequestHeader;
use serde_json::{Value, json};

use super::Answer;

/// As `conf/demo.toml` has it.
const ISSUER: &str = "http://127.0.0.1:9084";

/// A provider of identities.
pub(super) struct Id {
    key: Ed25519KeyPair,
}

impl Id {
    /// A provider with a new key.
    pub(super) fn new() -> Result<Self, String> {
        let key = Ed25519KeyPair::generate().map_err(|_| "error: cannot make a key for the demo's tokens")?;
        Ok(Self { key })
    }

    /// Answers, where there is something to answer.
    pub(super) fn answer(&self, request: &RequestHeader, body: &[u8]) -> Option<Answer> {
        let path = request.uri.path();
        Some(match path {
            "/.well-known/openid-configuration" => {
                Answer::json(json!({ "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/jwks.json") }))
            }
            "/jwks.json" => {
                let x = URL_SAFE_NO_PAD.encode(self.key.public_key());
                Answer::json(json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "x": x }] }))
            }
            "/introspect" => Answer::json(introspected(body)),
            "/check" => checked(request),
            "/v1/traces" => Answer::json(json!({})),
            _ => match claims(path.strip_prefix("/token/")?) {
                Some(claims) => Answer::text(format!("{}\n", self.token(claims))),
                None => Answer {
                    status: StatusCode::NOT_FOUND,
                    ..Answer::text("try /token/ada, /token/grace\n".to_owned())
                },
            },
        })
    }

    /// A token (RFC 7519) with some claims, for an hour.
    fn token(&self, mut claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        claims["iss"] = ISSUER.into();
        claims["aud"] = "demo".into();
        claims["exp"] = (now + 3600).into();
        let encoded = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encoded(json!({ "alg": "EdDSA", "typ": "JWT" })), encoded(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// What the provider knows of somebody.
fn claims(name: &str) -> Option<Value> {
    match name {
        "ada" => Some(json!({ "sub": "ada", "scope": "orders:read", "groups": ["staff"], "tier": "silver" })),
        "grace" => Some(
            json!({ "sub": "grace", "scope": "orders:read orders:write", "groups": ["staff", "admins"], "tier": "gold" }),
        ),
        _ => None,
    }
}

/// What a token is that only the provider understands: `opaque-ada`.
fn introspected(form: &[u8]) -> Value {
    let token = form_urlencoded::parse(form).find(|(name, _)| name == "token").map(|(_, token)| token);
    match token.as_deref().and_then(|token| token.strip_prefix("opaque-")).and_then(claims) {
        Some(mut claims) => {
            claims["active"] = true.into();
            claims
        }
        None => json!({ "active": false }),
    }
}

/// Who a session is of, or where to begin one.
fn checked(request: &RequestHeader) -> Answer {
    let session = request.headers.get("cookie").and_then(|cookie| cookie.to_str().ok()?.strip_prefix("session="));
    match session.and_then(|name| Some((name, claims(name)?))) {
        Some((name, claims)) => {
            let groups = claims["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let groups = groups.collect::<Vec<_>>().join(",");
            Answer { headers: vec![("x-user", name.to_owned()), ("x-groups", groups)], ..Answer::text(String::new()) }
        }
        None => Answer {
            status: StatusCode::FOUND,
            headers: vec![("location", format!("{ISSUER}/login"))],
            ..Answer::text(String::new())
        },
    }
}
