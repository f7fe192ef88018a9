//! What must hold of tokens and of key sets, whatever they are.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::key::Key;
use super::token::{Rules, Signature, Token};
use crate::policy::auth::claims;

/// The first two lines are a header and claims, and what follows is a signature; the same bytes are a whole token, a key
/// set and a public key.
pub fn token(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n').map(|part| URL_SAFE_NO_PAD.encode(part));
    let made: Vec<String> = (0..3).map(|_| parts.next().unwrap_or_default()).collect();
    look_into(made.join(".").as_bytes());
    look_into(data);

    if let Ok(object) = claims::object(data) {
        let read: Value = serde_json::from_slice(data).expect("what has one meaning is JSON");
        assert_eq!(Value::Object(object), read);
    }
    let _ = Key::set(data);
    let _ = Key::pem(data);
}

fn look_into(text: &[u8]) {
    let rules = Rules {
        claims: claims::Rules {
            issuer: Some("https://id.test/".into()),
            issuer_is_named: true,
            audience: vec!["api".into()],
            required: vec!["sub".into()],
        },
        algorithms: None,
        leeway: 30,
        types: vec!["JWT".into()],
    };
    let Ok(token) = Token::parse(text, &rules) else { return };
    if let Ok(until) = token.holds(&rules, 1_700_000_000) {
        assert!(until > 1_700_000_000);
        assert_eq!(token.claims.get("iss").and_then(Value::as_str), Some("https://id.test/"));
    }
    // Nobody knows this secret, and nobody has the key of RFC 8037 but for the example there.
    let keys = [Key::secret(&[0x5a; 64])];
    assert!(!matches!(token.signature(&keys, &rules), Signature::Good));
    let point = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let (keys, _) = Key::set(point).expect("it is a key set");
    assert!(!matches!(token.signature(&keys, &rules), Signature::Good));
}
