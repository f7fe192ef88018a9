//! Who asks: tokens, keys and their providers.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::harness::{
    Answer, Authority, Builder, ClosedPort, Origin, answer, eventually, gateway, portcullis, refused_address,
};

/// Who signs tokens.
struct Signer {
    kid: String,
    ec: EcdsaKeyPair,
}

impl Signer {
    fn new(kid: &str) -> Self {
        Self { kid: kid.to_owned(), ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    fn jwk(&self) -> Value {
        let point = self.ec.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "x": b64(&point[1..33]), "y": b64(&point[33..]) })
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.ec.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", b64(signature.as_ref()))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": "ES256", "kid": self.kid }), claims)
    }

    fn pem(&self) -> String {
        pem(self.ec.public_key().as_der().unwrap().as_ref())
    }
}

fn pem(der: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

/// A signature of two numbers as ASN.1 has it, which no token has.
fn der_of(signature: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| [&[2, 33, 0][..], bytes].concat();
    let (r, s) = signature.split_at(signature.len() / 2);
    [&[0x30, 70][..], &number(r), &number(s)].concat()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn signed_part(header: &Value, claims: &Value) -> String {
    format!("{}.{}", b64(header.to_string()), b64(claims.to_string()))
}

pub fn hs256(secret: &[u8], header: &Value, claims: &Value) -> String {
    let signed = signed_part(header, claims);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes());
    format!("{signed}.{}", b64(tag.as_ref()))
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

/// Claims that are good for `idp` of [`protected`].
fn claims() -> Value {
    json!({ "iss": "https://id.test/", "aud": "api", "sub": "alice", "exp": in_seconds(300) })
}

/// Claims that are good, but for this.
fn but(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A gateway where `/` is behind the provider `idp`, which is made with `jwt`.
fn protected(jwt: &str, origin: &Origin) -> Builder {
    gateway()
        .config(&format!("[auth.idp]\njwt = {{ {jwt} }}\n[defaults]\nauth = \"idp\""))
        .config("[[route]]\nmatch = \"/open\"\nauth = false\nrespond = {}")
        .everything_to(origin)
}

/// A provider that publishes what is in its hands at the time.
struct Provider {
    keys: Arc<Mutex<Vec<Value>>>,
    origin: Origin,
}

impl Provider {
    fn new(keys: &[&Signer]) -> Self {
        let keys = Arc::new(Mutex::new(keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()));
        let published = keys.clone();
        let origin = Origin::answering(move |seen| match seen.target.as_str() {
            "/keys" => answer(200).body(json!({ "keys": *published.lock().unwrap() }).to_string()),
            "/.well-known/openid-configuration" => {
                let issuer = format!("http://{}", seen.header("host"));
                answer(200).body(json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }).to_string())
            }
            _ => answer(404),
        });
        Self { keys, origin }
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.origin.address())
    }

    fn publish(&self, keys: &[&Signer]) {
        *self.keys.lock().unwrap() = keys.iter().map(|key| key.jwk()).collect();
    }

    fn asked(&self) -> usize {
        self.origin.requests_for("/keys").len()
    }
}

#[test]
fn a_request_needs_a_good_token() {
    let origin = Origin::saying("ok");
    let signer = Signer::new("1");
    let gw = protected("issuer = \"https://id.test/\", key = \"id.pem\", audience = [\"other\", \"api\"]", &origin)
        .file("id.pem", signer.pem())
        .start();
    gw.get("/open").send().expect(200);
    let refused = gw.get("/").send().expect(401).problem("unauthorized");
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"idp\"");
    let token = signer.token(&claims());
    for _ in 0..3 {
        gw.get("/").header("Authorization", &bearer(&token)).send().expect(200);
    }
    gw.get("/").header("Authorization", &format!("bEARER   {token}")).send().expect(200);
    gw.get("/").header("Authorization", &bearer(&signer.token(&but("aud", json!(["x", "api"]))))).send().expect(200);
    assert_eq!(origin.requests().len(), 5);
    let refused = gw.get("/").header("Authorization", &bearer(&signer.token(&but("exp", json!(1))))).send().expect(401);
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"idp\", error=\"invalid_token\"");
    let line = gw.logged("the expired token", |line| line["cause"] == "the token is expired");
    assert_eq!((&line["stopped_by"], &line["status"]), (&json!("auth"), &json!(401)));
    // Another scheme is no token, and two fields are two requests in one.
    gw.get("/").header("Authorization", "Basic YTpi").send().expect(401);
    let twice = gw.get("/").header("Authorization", &bearer(&token)).header("Authorization", &bearer(&token));
    twice.send().expect(400).problem("bad-request");
    assert_eq!(origin.requests().len(), 5);
    let said = gw.errors().join("\n");
    assert!(!said.contains(&token), "{said}");
}

#[test]
fn hostile_tokens_are_refused() {
    let origin = Origin::saying("ok");
    let signer = Signer::new("1");
    let stranger = Signer::new("1");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let parts = PublicKeyComponents::<Vec<u8>>::from(rsa.public_key());
    let rsa_jwk = json!({ "kty": "RSA", "kid": "r", "alg": "RS256", "n": b64(&parts.n), "e": b64(&parts.e) });
    let set = json!({ "keys": [signer.jwk(), rsa_jwk] }).to_string();
    let gw = protected(
        "issuer = \"https://id.test/\", jwks = { file = \"keys.json\" }, audience = \"api\", leeway = \"2s\", required = [\"sub\", \"tenant\"]",
        &origin,
    )
    .file("keys.json", &set)
    .start();
    let good = but("tenant", json!("t"));
    let with = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let header = |more: Value| {
        let mut header = json!({ "alg": "ES256", "kid": "1" });
        for (name, value) in more.as_object().unwrap() {
            header[name] = value.clone();
        }
        header
    };
    let rs = |header: Value, pss: bool| {
        let signed = signed_part(&header, &good);
        let mut signature = vec![0; rsa.public_modulus_len()];
        let encoding: &dyn aws_lc_rs::signature::RsaEncoding = if pss { &RSA_PSS_SHA256 } else { &RSA_PKCS1_SHA256 };
        rsa.sign(encoding, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        format!("{signed}.{}", b64(signature))
    };
    let send = |token: &str| gw.get("/").header("Authorization", &bearer(token)).send();
    for token in [
        signer.token(&good),
        signer.sign(&header(json!({ "typ": "JWT" })), &good),
        signer.sign(&header(json!({ "typ": "application/at+jwt" })), &good),
        signer.sign(&json!({ "alg": "ES256" }), &good),
        // Keys that the token brings along mean nothing.
        signer.sign(
            &header(json!({ "jwk": stranger.jwk(), "jku": "http://evil.test/", "x5u": "http://evil.test/", "x5c": ["MII"] })),
            &good,
        ),
        signer.token(&with("iat", json!(in_seconds(-60) as f64 + 0.5))),
        signer.token(&with("nbf", json!(in_seconds(1)))),
        signer.token(&with("exp", json!(in_seconds(30) as f64 + 0.5))),
        rs(json!({ "alg": "RS256", "kid": "r" }), false),
    ] {
        send(&token).expect(200);
    }
    let token = signer.token(&good);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let payload = signed.split('.').nth(1).unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let public = signer.ec.public_key().as_ref();
    let none = |alg: &str| format!("{}.{payload}.", b64(json!({ "alg": alg }).to_string()));
    let hostile = [
        ("no token", String::new()),
        ("one part", "abc".to_owned()),
        ("two parts", signed.to_owned()),
        ("four parts", format!("{token}.a")),
        ("no signature", format!("{signed}.")),
        ("alg none", none("none")),
        ("alg None", none("None")),
        ("alg NONE", none("NONE")),
        ("alg noNe", none("noNe")),
        ("alg none with a space", none("none ")),
        ("alg null", format!("{}.{payload}.", b64(json!({ "alg": null }).to_string()))),
        ("alg nOnE with a signature", format!("{}{signature}", none("nOnE"))),
        ("alg empty", none("")),
        ("no alg", signer.sign(&json!({ "kid": "1" }), &good)),
        ("alg of another type", signer.sign(&header(json!({ "alg": ["ES256"] })), &good)),
        ("the public key as a secret", hs256(public, &header(json!({ "alg": "HS256" })), &good)),
        (
            "the public key in PEM as a secret",
            hs256(signer.pem().as_bytes(), &header(json!({ "alg": "HS256" })), &good),
        ),
        ("an empty secret", hs256(b"", &header(json!({ "alg": "HS256", "kid": "" })), &good)),
        (
            "the RSA key in PEM as a secret",
            hs256(
                pem(AsDer::<PublicKeyX509Der<'_>>::as_der(rsa.public_key()).unwrap().as_ref()).as_bytes(),
                &json!({ "alg": "HS256", "kid": "r" }),
                &good,
            ),
        ),
        ("the RSA modulus as a secret", hs256(&parts.n, &json!({ "alg": "HS256", "kid": "r" }), &good)),
        ("the set as a secret", hs256(set.as_bytes(), &json!({ "alg": "HS256" }), &good)),
        ("an RSA algorithm for an EC key", signer.sign(&header(json!({ "alg": "RS256" })), &good)),
        ("another curve's algorithm", signer.sign(&header(json!({ "alg": "ES384" })), &good)),
        ("EdDSA for an EC key", signer.sign(&header(json!({ "alg": "EdDSA" })), &good)),
        ("an EC algorithm for an RSA key", rs(json!({ "alg": "ES256", "kid": "r" }), false)),
        ("PSS with a key for PKCS #1", rs(json!({ "alg": "PS256", "kid": "r" }), true)),
        ("PKCS #1 said to be PSS", rs(json!({ "alg": "PS256", "kid": "r" }), false)),
        ("a zero signature", format!("{signed}.{}", "A".repeat(86))),
        ("a signature of nothing but r", format!("{signed}.{}", &signature[..43])),
        ("a signature without its last byte", format!("{signed}.{}", b64(&bytes[..63]))),
        ("a signature with a byte more", format!("{signed}.{}", b64([&bytes[..], &[0]].concat()))),
        ("a signature with r = 0", format!("{signed}.{}", b64([&[0; 32], &bytes[32..]].concat()))),
        ("a signature with s = 0", format!("{signed}.{}", b64([&bytes[..32], &[0; 32]].concat()))),
        ("a signature of the largest numbers", format!("{signed}.{}", b64([0xff; 64]))),
        ("a signature in DER", format!("{signed}.{}", b64(der_of(&bytes)))),
        ("an RSA signature of zeros", {
            let claims = b64(good.to_string());
            format!("{}.{claims}.{}", b64(json!({ "alg": "RS256", "kid": "r" }).to_string()), b64([0; 256]))
        }),
        ("a kid with a NUL", signer.sign(&header(json!({ "kid": "1\0" })), &good)),
        ("a kid that is a list", signer.sign(&header(json!({ "kid": ["1"] })), &good)),
        ("a kid that is a URL", signer.sign(&header(json!({ "kid": "http://evil.test/key" })), &good)),
        ("an empty kid", signer.sign(&header(json!({ "kid": "" })), &good)),
        ("a kid that is a path", signer.sign(&header(json!({ "kid": "../../../../dev/null" })), &good)),
        ("a kid that is SQL", signer.sign(&header(json!({ "kid": "1' OR '1'='1" })), &good)),
        ("a kid that is a number", signer.sign(&header(json!({ "kid": 1 })), &good)),
        ("a long kid", signer.sign(&header(json!({ "kid": "1".repeat(300) })), &good)),
        ("a stranger's signature", stranger.token(&good)),
        ("its own key", stranger.sign(&header(json!({ "jwk": stranger.jwk() })), &good)),
        ("an unknown crit", signer.sign(&header(json!({ "crit": ["x"], "x": 1 })), &good)),
        ("an empty crit", signer.sign(&header(json!({ "crit": [] })), &good)),
        ("b64 false", signer.sign(&header(json!({ "b64": false, "crit": ["b64"] })), &good)),
        ("b64 false without crit", signer.sign(&header(json!({ "b64": false })), &good)),
        ("compressed", signer.sign(&header(json!({ "zip": "DEF" })), &good)),
        ("encrypted", signer.sign(&header(json!({ "enc": "A128GCM" })), &good)),
        ("another type", signer.sign(&header(json!({ "typ": "dpop+jwt" })), &good)),
        ("expired", signer.token(&with("exp", json!(in_seconds(-3))))),
        ("expires never", signer.token(&with("exp", Value::Null))),
        ("expires in words", signer.token(&with("exp", json!("tomorrow")))),
        ("expires before 1970", signer.token(&with("exp", json!(-1)))),
        ("expires in milliseconds", signer.token(&with("exp", json!(in_seconds(60) * 1000)))),
        ("expires too late to be a time", signer.token(&with("exp", json!(1e300)))),
        ("expires in the greatest number", signer.token(&with("exp", json!(u64::MAX)))),
        ("expires in a number that is none", {
            let claims = good.to_string().replacen("\"exp\":", "\"exp\":1e999,\"x\":", 1);
            signer.sign_text(&header(json!({})).to_string(), &claims)
        }),
        ("expires in a list", signer.token(&with("exp", json!([in_seconds(60)])))),
        ("valid from a word on", signer.token(&with("nbf", json!("now")))),
        ("valid from too late on", signer.token(&with("nbf", json!(1e300)))),
        ("made in words", signer.token(&with("iat", json!("today")))),
        ("made in the future", signer.token(&with("iat", json!(in_seconds(60))))),
        ("bound to a key", signer.token(&with("cnf", json!({ "jkt": "x" })))),
        ("not valid yet", signer.token(&with("nbf", json!(in_seconds(60))))),
        ("another issuer", signer.token(&with("iss", json!("https://id.test")))),
        ("no issuer", signer.token(&with("iss", Value::Null))),
        ("a list of issuers", signer.token(&with("iss", json!(["https://id.test/"])))),
        ("another audience", signer.token(&with("aud", json!("apis")))),
        ("no audience", signer.token(&with("aud", Value::Null))),
        ("an empty audience", signer.token(&with("aud", json!([])))),
        ("an audience of another type", signer.token(&with("aud", json!({ "api": true })))),
        ("no subject", signer.token(&with("sub", Value::Null))),
        ("a subject that is a list", signer.token(&with("sub", json!(["alice"])))),
        ("a subject with a line break", signer.token(&with("sub", json!("a\r\nX-Admin: 1")))),
        ("a missing claim", signer.token(&claims())),
        ("too long", signer.token(&with("pad", json!("x".repeat(17_000))))),
        ("five parts, encrypted", format!("{}.a.b.c.d", b64(json!({ "alg": "dir", "enc": "A128GCM" }).to_string()))),
        ("two algorithms", {
            let header = "{\"alg\":\"none\",\"alg\":\"ES256\",\"kid\":\"1\"}";
            signer.sign_text(header, &good.to_string())
        }),
        ("two subjects", {
            let claims = good.to_string().replacen('{', "{\"sub\":\"root\",", 1);
            signer.sign_text(&header(json!({})).to_string(), &claims)
        }),
        ("two members of a member", {
            let claims = good.to_string().replacen('{', "{\"act\":{\"a\":1,\"\\u0061\":2},", 1);
            signer.sign_text(&header(json!({})).to_string(), &claims)
        }),
        ("signed deep claims", {
            let deep = format!("{{\"a\":{}1{},", "[".repeat(1000), "]".repeat(1000));
            signer.sign_text(&header(json!({})).to_string(), &good.to_string().replacen('{', &deep, 1))
        }),
        ("a deep header", {
            let deep = format!("{{\"a\":{}1{},", "[".repeat(1000), "]".repeat(1000));
            signer.sign_text(&header(json!({})).to_string().replacen('{', &deep, 1), &good.to_string())
        }),
        ("a header that is a list", signer.sign_text("[]", &good.to_string())),
        ("two headers", signer.sign_text(&format!("{0}{0}", header(json!({}))), &good.to_string())),
        ("deep claims", format!("{}.{}.{signature}", signed.split('.').next().unwrap(), b64("[".repeat(5000)))),
        ("claims that are a list", format!("{}.{}.{signature}", signed.split('.').next().unwrap(), b64("[]"))),
        ("claims of another token", {
            let other = signed_part(&header(json!({})), &with("sub", json!("root")));
            format!("{other}.{signature}")
        }),
        ("padding", format!("{token}=")),
        ("a letter too many", format!("{token}A")),
        ("standard base64", token.replacen('.', "+.", 1)),
        ("a comma", format!("{token}, {token}")),
    ];
    for (what, token) in &hostile {
        let response = send(token);
        assert_eq!(response.status, 401, "{what}: {response:?}");
        response.problem("unauthorized");
    }
    // Every letter of a token counts.
    for at in [0, 10, signed.len() - 5, signed.len() + 5, token.len() - 1] {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'B' { b'C' } else { b'B' };
        send(std::str::from_utf8(&bytes).unwrap()).expect(401);
    }
    // A token that is longer than any head may be.
    let (read, closed) =
        gw.raw(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", "x".repeat(1 << 20)));
    assert!(closed && read.starts_with(b"HTTP/1.1 431 "), "{}", String::from_utf8_lossy(&read));
    send(&token).expect(200);
    assert_eq!(origin.requests().len(), 10, "nothing hostile came through");
}

#[test]
fn weak_keys_are_refused_when_they_are_loaded() {
    // 1024 bits.
    let weak = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCfPUMkHCsikAtf4jYFGui+7Nd9\nEEShk48VNg7I59GjoZvUGTWjRaJhOJvUJ961vkcMaEmbRjMiPyoaMg4RQr9Kkv/A\nvIkfJOM85NILQB/fhYNtsaS3HYhPlvmXN+gJLlmlmdu1qY4gjF8Otrkt/suBT5ez\nNHR3cne2kuZKWPOiWwIDAQAB\n-----END PUBLIC KEY-----\n";
    let refused = protected("key = \"weak.pem\"", &Origin::saying("ok")).file("weak.pem", weak).refused();
    assert!(refused.contains("an RSA key of 1024 bits is weak"), "{refused}");
    let set = json!({ "keys": [{ "kty": "RSA", "kid": "1", "n": b64([0xff; 128]), "e": "AQAB" }] }).to_string();
    let refused = protected("jwks = { file = \"weak.json\" }", &Origin::saying("ok")).file("weak.json", set).refused();
    assert!(refused.contains("there is no usable key") && refused.contains("1024 bits is weak"), "{refused}");
}

#[test]
fn a_shared_secret_signs_too() {
    let origin = Origin::saying("ok");
    let secret = "0123456789abcdef0123456789abcdef";
    let gw = protected("secret = { env = \"TOKEN_SECRET\" }", &origin).env("TOKEN_SECRET", secret).start();
    let good = json!({ "sub": "alice", "exp": in_seconds(60) });
    let header = json!({ "alg": "HS256", "kid": "any" });
    let send = |token: &str| gw.get("/").header("Authorization", &bearer(token)).send();
    send(&hs256(secret.as_bytes(), &header, &good)).expect(200);
    send(&hs256(b"0123456789abcdef0123456789abcdeF", &header, &good)).expect(401);
    // Whom it is for is said, and nobody said that that is us (RFC 7519, section 4.1.3).
    let for_others = json!({ "sub": "alice", "exp": in_seconds(60), "aud": "other" });
    send(&hs256(secret.as_bytes(), &header, &for_others)).expect(401);
}

#[test]
fn keys_are_discovered_rotated_and_kept() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let provider = Provider::new(&[&old]);
    let issuer = provider.issuer();
    let origin = Origin::saying("ok");
    let jwt = format!("issuer = \"{issuer}\", jwks = \"discover\", cool_down = \"1s\"");
    let gw = protected(&jwt, &origin).start();
    let good = json!({ "iss": issuer, "sub": "alice", "exp": in_seconds(300) });
    let status = |signer: &Signer| {
        let token = signer.token(&good);
        gw.get("/").header("Authorization", &bearer(&token)).send().status
    };
    assert_eq!(status(&old), 200);
    assert_eq!(provider.asked(), 1);
    // Another file keeps the keys of a provider that did not change.
    gw.reload().expect(200);
    assert_eq!(status(&old), 200);
    assert_eq!(provider.asked(), 1);
    // The provider signs with a new key: after the cool-down one question tells, however many ask.
    provider.publish(&[&old, &new]);
    eventually("the new key is known", || (status(&new) == 200).then_some(()));
    assert_eq!(status(&old), 200);
    let asked = provider.asked();
    assert_eq!(asked, 2);
    // Keys that nobody has are no way to make the gateway ask without end.
    for i in 0..20 {
        assert_eq!(status(&Signer::new(&format!("no such {i}"))), 401);
    }
    assert!(provider.asked() <= asked + 2, "{}", provider.asked());
    // A key that is withdrawn does not count any more, not even for a token that was good.
    let token = old.token(&good);
    gw.get("/").header("Authorization", &bearer(&token)).send().expect(200);
    provider.publish(&[&new]);
    eventually("the old key is forgotten", || {
        status(&Signer::new("unknown"));
        (gw.get("/").header("Authorization", &bearer(&token)).send().status == 401).then_some(())
    });
    assert_eq!(status(&new), 200);
}

#[test]
fn tests_of_a_reload_ask_no_provider() {
    let provider = Provider::new(&[&Signer::new("1")]);
    let token = Signer::new("unknown").token(&json!({ "sub": "alice", "exp": in_seconds(300) }));
    let jwt = format!("jwks = \"http://{}/keys\", cool_down = \"1s\"", provider.origin.address());
    let gw = protected(&jwt, &Origin::saying("ok")).start();
    let ask = || gw.get("/").header("Authorization", &bearer(&token)).send().status;
    eventually("the keys are there", || (ask() == 401).then_some(()));
    std::thread::sleep(Duration::from_millis(1100));
    let asked = provider.asked();
    let config = std::fs::read_to_string(gw.dir().join("portcullis.toml")).unwrap();
    let test = "[[test]]\nrequest = \"GET /\"\nexpect = { status = 401, stopped_by = \"auth\" }\n";
    gw.rewrite(&format!("{config}{test}headers = {{ Authorization = \"{}\" }}\n", bearer(&token)));
    gw.reload().expect(200);
    assert_eq!(provider.asked(), asked);
    // What is live may ask again by now.
    assert_eq!((ask(), provider.asked()), (401, asked + 1));
}

#[test]
fn keys_in_a_file_that_changes_are_noticed() {
    let (origin, old, new) = (Origin::saying("ok"), Signer::new("old"), Signer::new("new"));
    let jwt = "issuer = \"https://id.test/\", audience = \"api\", jwks = { file = \"keys.json\" }";
    let set = |signer: &Signer| json!({ "keys": [signer.jwk()] }).to_string();
    let gw = protected(jwt, &origin).file("keys.json", set(&old)).start();
    let ask = |signer: &Signer| gw.get("/").header("Authorization", &bearer(&signer.token(&claims()))).send().status;
    assert_eq!((ask(&old), ask(&new)), (200, 401));
    std::fs::write(gw.dir().join("keys.json"), set(&new)).unwrap();
    eventually("the keys are loaded", || (ask(&new) == 200).then_some(()));
    assert_eq!(ask(&old), 401);
    std::fs::write(gw.dir().join("keys.json"), set(&old)).unwrap();
    assert_eq!(gw.reload().expect(200).json()["changes"].to_string(), r#"["auth idp changed"]"#);
    assert_eq!((ask(&old), ask(&new)), (200, 401));
}

#[test]
fn a_provider_that_is_down_lets_nobody_in_and_nobody_out() {
    let signer = Signer::new("1");
    let origin = Origin::saying("ok");
    let port = ClosedPort::new();
    let url = format!("http://{}/keys", port.address());
    let gw = protected(&format!("jwks = \"{url}\", refresh = \"1s\", cool_down = \"1s\""), &origin).start();
    let token = signer.token(&json!({ "sub": "alice", "exp": in_seconds(300) }));
    let send = || gw.get("/").header("Authorization", &bearer(&token)).send();
    let refused = send().expect(503).problem("auth-unavailable");
    assert_eq!(refused.header("retry-after"), "1");
    gw.get("/").send().expect(401);
    gw.get("/").header("Authorization", "Bearer x").send().expect(401);
    gw.says("the keys of the provider idp cannot be fetched");
    let set = json!({ "keys": [signer.jwk()] }).to_string();
    let provider = port.open(move |_| answer(200).body(&set));
    eventually("the provider is asked again", || (send().status == 200).then_some(()));
    drop(provider);
    gw.says("Connection refused");
    send().expect(200);
    assert_eq!(gw.get("/").header("Authorization", &bearer(&Signer::new("2").token(&claims()))).send().status, 401);
}

#[test]
fn what_a_bad_provider_says_is_not_believed() {
    let signer = Signer::new("1");
    let weak = json!({ "kty": "RSA", "kid": "1", "n": "w".repeat(171), "e": "AQAB" });
    let secret = json!({ "kty": "oct", "kid": "1", "k": b64(b"0123456789abcdef0123456789abcdef") });
    let mut wrong_type = signer.jwk();
    wrong_type["kty"] = json!("RSA");
    type Script = Box<dyn Fn() -> Answer + Send + Sync>;
    let scripts: Vec<(&str, Script)> = vec![
        ("cannot be fetched", Box::new(|| answer(500))),
        ("cannot be fetched", Box::new(|| answer(302).header("Location", "http://127.0.0.1:1/"))),
        ("not a JWK set", Box::new(|| answer(200).body("<html>"))),
        ("no usable key", Box::new(move || answer(200).body(json!({ "keys": [weak, secret] }).to_string()))),
        ("more than 262144 bytes", Box::new(|| answer(200).body(vec![b' '; 300_000]))),
        ("more than 262144 bytes", Box::new(|| answer(200).body(vec![b' '; 8 << 20]).chunked())),
        ("no usable key", Box::new(move || answer(200).body(json!({ "keys": [wrong_type] }).to_string()))),
        ("no usable key", Box::new(|| answer(200).body("{\"keys\":[]}"))),
        ("cannot be fetched", Box::new(|| Answer::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"))),
        ("cannot be fetched", Box::new(Answer::hang_up)),
        (
            "no answer within 10s",
            Box::new(|| answer(200).body(vec![b' '; 200_000]).trickling(1, Duration::from_millis(500))),
        ),
    ];
    let origin = Origin::saying("ok");
    let token = bearer(&signer.token(&json!({ "sub": "alice", "exp": in_seconds(300) })));
    let running: Vec<_> = scripts
        .into_iter()
        .map(|(words, script)| {
            let provider = Origin::answering(move |_| script());
            let gw = protected(&format!("jwks = \"http://{}/\"", provider.address()), &origin).start();
            (words, provider, gw)
        })
        .collect();
    for (words, _, gw) in &running {
        gw.get("/").header("Authorization", &token).send().expect(503);
        gw.says(words);
    }
    // Metadata of another issuer is nobody's.
    let liar =
        Origin::answering(|_| answer(200).body("{\"issuer\":\"https://x.test\",\"jwks_uri\":\"http://x.test/\"}"));
    let jwt = format!("issuer = \"http://{}\", jwks = \"discover\"", liar.address());
    protected(&jwt, &origin).start().says("is the metadata of another issuer");
    // Metadata without an end, and such that leads nowhere.
    for (words, body) in
        [("more than 262144 bytes", " ".repeat(8 << 20)), ("is not the metadata of a provider", "[]".into())]
    {
        let endless = Origin::answering(move |_| answer(200).body(&body).chunked());
        let jwt = format!("issuer = \"http://{}\", jwks = \"discover\"", endless.address());
        protected(&jwt, &origin).start().says(words);
    }
    assert_eq!(origin.requests().len(), 0);
}

#[test]
fn one_of_several_providers_must_know_the_caller() {
    let (ours, theirs) = (Signer::new("1"), Signer::new("1"));
    let origin = Origin::saying("ok");
    let gw = gateway()
        .file("ours.pem", ours.pem())
        .file("theirs.pem", theirs.pem())
        .config("[auth.ours]\njwt = { key = \"ours.pem\" }\n[auth.theirs]\njwt = { key = \"theirs.pem\" }")
        .config(&format!("[auth.down]\njwt = {{ jwks = \"http://{}/\" }}", refused_address()))
        .config("[[route]]\nmatch = \"/both\"\nupstream = \"origin\"\nauth = [\"ours\", \"theirs\"]")
        .config("[[route]]\nmatch = \"/down\"\nupstream = \"origin\"\nauth = [\"down\", \"theirs\"]")
        .everything_to(&origin)
        .start();
    let good = json!({ "sub": "alice", "exp": in_seconds(300) });
    let send = |target: &str, signer: &Signer| {
        gw.get(target).header("Authorization", &bearer(&signer.token(&good))).send().status
    };
    assert_eq!((send("/both", &ours), send("/both", &theirs), send("/both", &Signer::new("1"))), (200, 200, 401));
    // That one cannot tell is no reason to refuse whom the other knows, nor to let in whom nobody knows.
    assert_eq!((send("/down", &theirs), send("/down", &ours)), (200, 503));
    let refused = gw.get("/both").send().expect(401);
    assert_eq!(refused.headers.all("www-authenticate"), ["Bearer realm=\"ours\"", "Bearer realm=\"theirs\""]);
    gw.get("/else").send().expect(200);
}

#[test]
fn a_caller_can_be_assumed_in_tests() {
    let base = "[auth.idp]\njwt = { jwks = \"https://id.test/keys\" }\n[upstream]\no = [\"127.0.0.1:1\"]\n\
        [[route]]\nmatch = \"/**\"\nauth = \"idp\"\nupstream = \"o\"\n[[route]]\nmatch = \"/open\"\nupstream = \"o\"\n";
    let passing = "[[test]]\nrequest = \"GET /\"\nexpect = { status = 401, stopped_by = \"auth\" }\n\
        [[test]]\nrequest = \"GET /\"\nas = { sub = \"alice\", scopes = [\"a\"], level = 3 }\nexpect = { upstream = \"o\" }\n\
        [[test]]\nrequest = \"GET /\"\nas = { name = \"alice\" }\nexpect = { status = 401 }\n";
    let output = gateway().config(base).config(passing).check();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let failing = "[[test]]\nrequest = \"GET /\"\nas = { sub = \"al ice\", level = 3 }\nexpect = { status = 401 }\n\
        [[test]]\nrequest = \"GET /open\"\nas = { sub = \"alice\" }\nexpect = { upstream = \"o\" }\n";
    let builder = gateway().config(base).config(failing);
    let said = String::from_utf8_lossy(&builder.run(&["check", "@file"]).stderr).into_owned();
    assert!(said.contains("--as 'level=3' --as 'sub=al ice'"), "{said}");
    assert!(said.contains("so `as` changes nothing"), "{said}");
    let explained = |arguments: &[&str]| {
        let output = builder.run(&[&["explain", "GET /", "--config", "@file"], arguments].concat());
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(explained(&["--as", "sub=alice"]).contains("Sent to the upstream o"));
    let refused = explained(&[]);
    assert!(refused.contains("Answered by auth") && refused.contains("401 Unauthorized"), "{refused}");
}

/// A key and its hash, as the binary makes them.
fn new_key() -> (String, String) {
    let output = portcullis(&["key", "new"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut values = text.lines().filter_map(|line| line.split('"').nth(1)).map(str::to_owned);
    (values.next().unwrap(), values.next().unwrap())
}

#[test]
fn consumers_have_keys() {
    let ((first, first_hash), (second, second_hash)) = (new_key(), new_key());
    assert!(first.starts_with("pcl_") && first.len() == 47 && first != second, "{first}");
    let origin = Origin::saying("ok");
    let routes = ["header", "query", "cookie"].map(|place| {
        format!("[[route]]\nmatch = \"/{place}\"\nupstream = \"origin\"\nauth = [\"{place}\", \"basic\"]\n")
    });
    let gw = gateway()
        .config(&format!("[consumer.acme]\nkeys = [{{ sha256 = \"{first_hash}\" }}]\n[consumer.zeta]\nkeys = [{{ sha256 = \"{}\" }}]", second_hash.to_uppercase()))
        .config("[auth]\nheader.api_key = { header = \"X-Key\" }\nquery.api_key = { query = \"key\" }\ncookie.api_key = { cookie = \"key\" }\nbasic.basic = {}")
        .config(&routes.concat())
        .upstream("origin", &origin)
        .start();
    let basic = |user: &str, key: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{key}")));
    gw.get("/header?a=1").header("X-Key", &first).header("Cookie", "key=x").send().expect(200);
    gw.get(&format!("/query?a=1&key={second}&b=2")).send().expect(200);
    gw.get("/cookie").header("Cookie", &format!("a=1; key={first}; b=2")).send().expect(200);
    gw.get("/header").header("Authorization", &basic("acme", &first)).send().expect(200);
    let seen = origin.requests();
    let all: Vec<&str> = seen.iter().map(|seen| seen.target.as_str()).collect();
    assert_eq!(all, ["/header?a=1", "/query?a=1&b=2", "/cookie", "/header"]);
    assert_eq!((seen[0].header("cookie"), seen[2].header("cookie")), ("key=x", "a=1; b=2"));
    assert!(seen.iter().all(|seen| !seen.headers.has("x-key") && !seen.headers.has("authorization")));
    for (name, value) in [
        ("X-Key", String::new()),
        ("X-Key", first_hash.clone()),
        ("X-Key", format!("{first}=")),
        ("X-Key", first.to_uppercase()),
        ("Authorization", bearer(&first)),
        ("Authorization", "Basic".to_owned()),
        ("Authorization", "Basic !".to_owned()),
        ("Authorization", format!("Basic {}", STANDARD.encode(&first))),
        ("Authorization", basic("zeta", &first)),
        ("Authorization", basic("", &first)),
        ("Authorization", basic("acme", "")),
    ] {
        gw.get("/header").header(name, &value).send().expect(401);
    }
    let refused = gw.get("/header").send().expect(401);
    let challenges = ["ApiKey realm=\"header\"", "Basic realm=\"basic\", charset=\"UTF-8\""];
    assert_eq!(refused.headers.all("www-authenticate"), challenges);
    // Which of two credentials counts is nobody's to guess.
    let both = gw.get("/header").header("X-Key", &first).header("Authorization", &basic("zeta", &second));
    both.send().expect(400).problem("bad-request");
    gw.get("/header").header("X-Key", &first).header("X-Key", &first).send().expect(400);
    gw.get(&format!("/query?key={first}&key={first}")).send().expect(400);
    gw.get("/cookie").header("Cookie", &format!("key={first}; key={second}")).send().expect(400);
    assert_eq!(origin.requests().len(), 4);
}

#[test]
fn a_certificate_says_who_the_client_is() {
    let authority = Authority::new("test");
    let origin = Origin::saying("ok");
    let gw = gateway()
        .secured(&authority.issue(&["x.test"]), "client_ca = \"ca.pem\", client_auth = \"optional\"")
        .file("ca.pem", authority.pem())
        .config("[auth.mesh]\nclient_certificate = {}\n[auth.dns]\nclient_certificate = { name = \"dns\" }")
        .config("[auth.mail]\nclient_certificate = { name = \"email\" }")
        .config("[[route]]\nmatch = \"/mail\"\nupstream = \"origin\"\nauth = \"mail\"")
        .config("[[route]]\nmatch = \"/dns\"\nupstream = \"origin\"\nauth = \"dns\"\n[defaults]\nauth = \"mesh\"")
        .everything_to(&origin)
        .start();
    let client = authority.issue(&["billing.test"]);
    let with = authority.client_of(&[], rustls::ALL_VERSIONS, Some(&client));
    let mut connection = gw.connect_tls("x.test", with).unwrap();
    for target in ["/", "/", "/dns"] {
        connection.get(target).host("x.test").send().expect(200);
    }
    connection.get("/mail").host("x.test").send().expect(401);
    let mut connection = gw.connect_tls("x.test", authority.client(&[])).unwrap();
    let refused = connection.get("/").host("x.test").send().expect(401);
    assert_eq!(refused.header("www-authenticate"), "ClientCertificate realm=\"mesh\"");
    assert_eq!(origin.requests().len(), 3);
    // A certificate that is good when the connection is made, and not for long.
    let short = authority.issue_for(&["billing.test"], Duration::from_secs(60), Duration::from_secs(3));
    let mut connection =
        gw.connect_tls("x.test", authority.client_of(&[], rustls::ALL_VERSIONS, Some(&short))).unwrap();
    connection.get("/").host("x.test").send().expect(200);
    eventually("the certificate is expired", || {
        (connection.get("/").host("x.test").send().status == 401).then_some(())
    });
}

#[test]
fn who_is_known_may_not_do_everything() {
    let origin = Origin::saying("ok");
    let signer = Signer::new("1");
    let gw = gateway()
        .file("id.pem", signer.pem())
        .config(
            "[auth.idp]\njwt = { key = \"id.pem\", groups = \"claims.roles\" }\n[consumer.bob]\ngroups = [\"staff\"]",
        )
        .config("[defaults]\nauth = \"idp\"")
        .config(
            r#"
            [[route]]
            match = "/scopes"
            upstream = "origin"
            authorize = { scopes = ["a:read", "b"] }
            [[route]]
            match = "/groups"
            upstream = "origin"
            authorize = { groups = ["staff", "admins"] }
            [[route]]
            match = "/claims"
            upstream = "origin"
            authorize = { claims = { tier = ["gold", "silver"], "org.id" = 7 } }
            [[route]]
            match = "/users/{name}"
            upstream = "origin"
            authorize = { when = 'request.path == "/users/" + consumer.name || claims.admin' }
            "#,
        )
        .everything_to(&origin)
        .start();
    let ask = |target: &str, more: Value| {
        let mut claims = json!({ "sub": "alice", "exp": in_seconds(300) });
        more.as_object().unwrap().iter().for_each(|(name, value)| claims[name] = value.clone());
        gw.get(target).header("Authorization", &bearer(&signer.token(&claims))).send()
    };
    for (target, claims) in [
        ("/scopes", json!({ "scope": "b c a:read" })),
        ("/scopes", json!({ "scp": ["a:read", "b"] })),
        ("/groups", json!({ "roles": ["x", "admins"] })),
        ("/groups", json!({ "sub": "bob" })),
        ("/claims", json!({ "tier": "silver", "org": { "id": 7 } })),
        ("/users/alice", json!({})),
        ("/users/bob", json!({ "admin": true })),
        ("/else", json!({})),
    ] {
        let response = ask(target, claims.clone());
        assert_eq!(response.status, 200, "{target} {claims}: {response:?}");
    }
    for (target, claims) in [
        ("/scopes", json!({ "scope": "a:read" })),
        ("/scopes", json!({ "scope": "a:readb" })),
        ("/scopes", json!({})),
        ("/groups", json!({ "roles": ["Staff"] })),
        ("/groups", json!({ "groups": ["staff"] })),
        ("/claims", json!({ "tier": "gold" })),
        ("/claims", json!({ "tier": "gold", "org": { "id": "7" } })),
        ("/claims", json!({ "tier": "bronze", "org": { "id": 7 } })),
        ("/users/bob", json!({})),
        ("/users/bob", json!({ "admin": "true" })),
    ] {
        let response = ask(target, claims.clone());
        assert_eq!(response.status, 403, "{target} {claims}: {response:?}");
        let response = response.problem("forbidden");
        let challenge = "Bearer error=\"insufficient_scope\", scope=\"a:read b\"";
        assert_eq!(response.headers.first("www-authenticate"), (target == "/scopes").then_some(challenge));
    }
    let line = gw.logged("a scope is missing", |line| line["cause"] == "the caller lacks a scope");
    assert_eq!(line["stopped_by"], "authorize");
    gw.get("/scopes").send().expect(401);
    assert_eq!(origin.requests().len(), 8);
}

#[test]
fn upstreams_and_logs_are_told_who_asks() {
    let origin = Origin::saying("ok");
    let signer = Signer::new("1");
    let (key, hash) = new_key();
    let gw = gateway()
        .file("id.pem", signer.pem())
        .config("[auth.idp]\njwt = { key = \"id.pem\" }")
        .config("headers = { X-User = \"{consumer}\", X-Groups = \"{consumer.groups}\", X-Org = \"{claims.org.id}\" }")
        .config("[auth.keys]\napi_key = { header = \"X-Key\" }\nheaders = { X-Partner = \"{consumer}\" }")
        .config(&format!("[consumer.acme]\ngroups = [\"a\"]\nkeys = [{{ sha256 = \"{hash}\" }}]"))
        .config("[[route]]\nmatch = \"/public\"\nupstream = \"origin\"")
        .config(
            r#"
            [[route]]
            match = "/told"
            upstream = "origin"
            auth = ["idp", "keys"]
            request = { headers = { set = { X-All = "{consumer} {consumer.groups} {claims.level} {claims.no}" } } }
            response = { headers = { set = { X-You = "{consumer}" } } }
            "#,
        )
        .everything_to(&origin)
        .start();
    let forged = ["X-User", "x_user", "X_Groups", "X-Org", "X-Partner"];
    let with_forged = |target: &str, name: &str, value: &str| {
        let request = forged.iter().fold(gw.get(target), |request, name| request.header(name, "root"));
        request.header("X-Users", "mine").header(name, value).send().expect(200)
    };
    let claims =
        json!({ "sub": "alice", "exp": in_seconds(300), "groups": ["a", "b"], "org": { "id": 7 }, "level": [1, true] });
    let token = bearer(&signer.token(&claims));
    // Once looked into, once remembered.
    for _ in 0..2 {
        assert_eq!(with_forged("/told", "Authorization", &token).header("x-you"), "alice");
    }
    with_forged("/told", "X-Key", &key);
    with_forged("/public", "X-A", "b");
    let seen = origin.requests();
    for seen in &seen[..2] {
        assert_eq!((seen.header("x-user"), seen.header("x-groups"), seen.header("x-org")), ("alice", "a,b", "7"));
        assert_eq!(seen.header("x-all"), "alice a,b 1,true");
        assert!(!seen.headers.has("x-partner"));
    }
    assert_eq!((seen[2].header("x-partner"), seen[2].header("x-all")), ("acme", "acme a"));
    assert!(!seen[2].headers.has("x-user"));
    for seen in &seen {
        assert!(!seen.headers.has("x_user") && !seen.headers.has("x_groups"));
        assert_eq!(seen.header("x-users"), "mine");
    }
    assert!(forged.iter().all(|name| !seen[3].headers.has(name)), "{:?}", seen[3].headers);
    let lines = gw.logged_lines(4);
    let consumers: Vec<&Value> = lines.iter().map(|line| &line["consumer"]).collect();
    assert_eq!(consumers, [&json!("alice"), &json!("alice"), &json!("acme"), &Value::Null]);
}

#[test]
fn why_a_caller_is_not_known_is_counted() {
    let (signer, other) = (Signer::new("1"), Signer::new("1"));
    let set = json!({ "keys": [signer.jwk()] }).to_string();
    let (_, hash) = new_key();
    let gone = refused_address();
    let idp = "jwt = { issuer = \"https://id.test/\", audience = \"api\", jwks = { file = \"keys.json\" }, \
               required = [\"tenant\"], leeway = \"0s\" }";
    let route = |path: &str, auth: &str| format!("[[route]]\nmatch = \"{path}\"\nauth = {auth}\nrespond = {{}}\n");
    let gw = gateway()
        .file("keys.json", set)
        .config(&format!("[auth.idp]\n{idp}\n[auth.key]\napi_key = {{ header = \"X-Api-Key\" }}"))
        .config(&format!("[auth.down]\njwt = {{ jwks = \"http://{gone}/\", audience = \"api\" }}"))
        .config(&format!("[consumer.a]\nkeys = [{{ sha256 = \"{hash}\" }}]"))
        .config(&(route("/", "[\"idp\", \"key\"]") + &route("/down", "\"down\"")))
        .start();
    let send = |target: &str, field: &str, value: &str, status: u16| {
        gw.get(target).header(field, value).send().expect(status);
    };
    send("/", "X-Other", "", 401);
    let good = || {
        let mut claims = claims();
        claims["tenant"] = "t".into();
        claims
    };
    for (name, value) in [
        ("exp", in_seconds(-1).into()),
        ("nbf", in_seconds(60).into()),
        ("iss", "https://x.test/".into()),
        ("aud", "x".into()),
        ("tenant", Value::Null),
        ("sub", Value::Null),
    ] {
        let mut claims = good();
        claims[name] = value;
        send("/", "Authorization", &bearer(&signer.token(&claims)), 401);
    }
    send("/", "Authorization", "Bearer x", 401);
    send("/", "Authorization", &bearer(&other.token(&good())), 401);
    send("/", "Authorization", &bearer(&Signer::new("2").token(&good())), 401);
    send("/", "X-Api-Key", "nobody's", 401);
    gw.get("/").header("X-Api-Key", "a").header("Authorization", "Bearer x").send().expect(400);
    send("/down", "Authorization", &bearer(&signer.token(&claims())), 503);
    let text = gw.admin("/metrics").text();
    for (provider, reason, count) in [
        ("idp", "missing", 1),
        ("idp", "ambiguous", 1),
        ("idp", "malformed", 1),
        ("idp", "expired", 1),
        ("idp", "not_yet_valid", 1),
        ("idp", "issuer", 1),
        ("idp", "audience", 1),
        ("idp", "claims", 2),
        ("idp", "signature", 1),
        ("idp", "key_unknown", 1),
        ("idp", "caller_unknown", 0),
        ("key", "missing", 0),
        ("key", "caller_unknown", 1),
        ("down", "provider_down", 1),
    ] {
        let line = format!("portcullis_auth_failures_total{{provider=\"{provider}\",reason=\"{reason}\"}} {count}");
        assert!(text.lines().any(|other| other == line), "{line}\n{text}");
    }
    // Nobody asks in a rehearsal.
    gw.admin_post("/explain", r#"{"request":"GET /"}"#).expect(200);
    assert!(gw.admin("/metrics").text().contains("{provider=\"idp\",reason=\"missing\"} 1\n"));
}
