//! `jwt`: signed tokens of an identity provider, in `Authorization: Bearer` (RFC 6750, RFC 7519).
//!
//! ```toml
//! [auth.idp]
//! jwt = { issuer = "https://id.example.com/", jwks = "discover", audience = "api" }
//!
//! [auth.internal]
//! jwt      = { secret = { env = "TOKEN_SECRET" }, algorithms = ["HS256"], required = ["tenant"], leeway = "10s" }
//! consumer = "claims.client_id"
//! ```
//!
//! The keys come from a shared `secret`, a public `key` in a PEM file, or `jwks`: a file, a URL, or `"discover"`, the
//! place that the issuer's metadata names. Fetched keys are fetched again every `refresh`, and when a token names a key
//! that is not known, but not within `cool_down` of the time before. While the provider is down its last keys stay.
//!
//! A token must name an allowed algorithm that fits the key, and say when it expires. Without `audience` only tokens
//! that name none are taken. The signature of a token is checked once; then it is remembered until it expires or the
//! keys change. A token cannot be called back before: let tokens expire soon.

#[cfg(fuzzing)]
mod fuzzing;
mod key;
mod keys;
mod token;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde_json::Value;

use super::Judgement;
use super::identity::{self, Identities};
use super::remembered::Remembered;
use super::{FILES, claims, remote};
use crate::build::Build;
use crate::facts::Consumer;
use crate::telemetry::metrics::policies::Reason;
use crate::types::{OneOrMore, Secret, Timespan};
use key::{Algorithm, Key, shortest_secret};
use keys::{KeySet, Keys, Place, Remote};
use token::{Rules, Signature, Token};

#[cfg(fuzzing)]
pub use fuzzing::token as fuzz;

/// `jwt` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    issuer: Option<String>,
    jwks: Option<JwksConfig>,
    key: Option<PathBuf>,
    secret: Option<Secret>,
    #[serde(default)]
    audience: OneOrMore,
    algorithms: Option<Vec<Algorithm>>,
    #[serde(default = "leeway")]
    leeway: Timespan,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default = "types")]
    types: Vec<String>,
    groups: Option<String>,
    ca: Option<PathBuf>,
    #[serde(default = "refresh")]
    refresh: Timespan,
    #[serde(default = "cool_down")]
    cool_down: Timespan,
}

/// Where a JWK set is.
enum JwksConfig {
    Discover,
    Url(String),
    File(PathBuf),
}

/// A compiled `jwt`.
pub(super) struct Jwt {
    keys: Arc<Keys>,
    rules: Rules,
    identities: Identities,
    remembered: Remembered,
}

fn leeway() -> Timespan {
    Timespan::from_secs(30)
}

fn types() -> Vec<String> {
    ["JWT", "at+jwt"].map(str::to_owned).to_vec()
}

fn refresh() -> Timespan {
    Timespan::from_secs(600)
}

fn cool_down() -> Timespan {
    Timespan::from_secs(10)
}

const LONGEST_LEEWAY: Timespan = Timespan::from_secs(600);
const EXPOSED: Option<&str> =
    Some("keys that come without TLS can be exchanged on the way, and then anybody's tokens are good");
const SHORTEST_REFRESH: Timespan = Timespan::from_secs(1);

impl Jwt {
    /// Compiles `jwt` of the provider `name`; `build` is at the provider. `None` after every mistake was reported.
    pub(super) fn compile(
        name: &str,
        config: &JwtConfig,
        mut identities: Identities,
        build: &mut Build<'_>,
    ) -> Option<Self> {
        let before = build.errors();
        if config.leeway > LONGEST_LEEWAY {
            build
                .error("jwt.leeway", format!("a leeway of {} lets expired tokens live on", config.leeway))
                .help(format!("clocks differ by seconds: at most {LONGEST_LEEWAY}"));
        }
        for (key, time) in [("refresh", config.refresh), ("cool_down", config.cool_down)] {
            if time < SHORTEST_REFRESH {
                build.error(&format!("jwt.{key}"), format!("the provider is asked at most every {SHORTEST_REFRESH}"));
            }
        }
        if let Some(groups) = &config.groups {
            identities.groups = build.or_report("jwt.groups", identity::Claim::parse(groups));
        }
        let algorithms = config.algorithms.clone();
        if algorithms.as_ref().is_some_and(Vec::is_empty) {
            build.error("jwt.algorithms", "no token could be good").help("leave it out for what is usual for the keys");
        }
        // The keys are kept over reloads as long as what they are made of stays.
        let node = build.node();
        let made_of = node.get("jwt").map(|node| build.fingerprint(node, FILES)).unwrap_or_default();
        let keys = build.keep(&format!("auth.{name}"), made_of, |build| keys(name, config, build));
        if build.errors() > before {
            return None;
        }
        let rules = Rules {
            claims: claims::Rules {
                issuer: config.issuer.as_deref().map(Into::into),
                issuer_is_named: true,
                audience: config.audience.0.iter().map(|audience| audience.as_str().into()).collect(),
                required: config.required.iter().map(|claim| claim.as_str().into()).collect(),
            },
            algorithms,
            leeway: config.leeway.0.as_secs(),
            types: config.types.iter().map(|name| name.as_str().into()).collect(),
        };
        Some(Self { keys: keys?, rules, identities, remembered: Remembered::default() })
    }

    /// Starts fetching keys.
    pub(super) fn start(&self, runtime: &tokio::runtime::Handle) {
        self.keys.start(runtime);
    }

    /// Whose token it is. In a rehearsal nobody is asked for keys.
    pub(super) async fn judge(&self, text: &[u8], rehearsal: bool, now: u64) -> Judgement {
        if let Some(generation) = self.keys.generation()
            && let Some(consumer) = self.remembered.find(text, generation, now)
        {
            return Judgement::Known(consumer);
        }
        // Apart, for it is rare, and would be large in every request's future.
        Box::pin(self.look_into(text, rehearsal, now)).await
    }

    /// Who somebody with these claims would be.
    pub(super) fn assume(&self, claims: serde_json::Map<String, Value>) -> Result<Arc<Consumer>, &'static str> {
        self.identities.of(claims)
    }

    async fn look_into(&self, text: &[u8], rehearsal: bool, now: u64) -> Judgement {
        let token = match Token::parse(text, &self.rules) {
            Ok(token) => token,
            Err(why) => return Judgement::Wrong(Reason::Malformed, why),
        };
        // Before the signature: a token that is not good in any case is no reason to ask the provider.
        let until = match token.holds(&self.rules, now) {
            Ok(until) => until,
            Err((reason, why)) => return Judgement::Wrong(reason, why),
        };
        let known = match self.keys.now() {
            Some(set) => set,
            None => match self.renewed(None, rehearsal).await {
                Some(set) => set,
                None => return Judgement::Unknowable("there are no keys of the provider yet".into()),
            },
        };
        let set = match self.signature(&token, &known) {
            Signature::Good => known,
            Signature::Bad => return Judgement::Wrong(Reason::Signature, "the token's signature is wrong"),
            Signature::UnknownKey => {
                let renewed = self.renewed(Some(known.generation), rehearsal).await;
                match renewed.map(|set| (self.signature(&token, &set), set)) {
                    Some((Signature::Good, set)) => set,
                    _ => {
                        let why = "no key of the provider made the token's signature";
                        return Judgement::Wrong(Reason::KeyUnknown, why);
                    }
                }
            }
        };
        match self.identities.of(token.claims) {
            Ok(consumer) => {
                self.remembered.put(text, set.generation, now, until, &consumer);
                Judgement::Known(consumer)
            }
            Err(why) => Judgement::Wrong(Reason::Claims, why),
        }
    }

    async fn renewed(&self, known: Option<u64>, rehearsal: bool) -> Option<Arc<KeySet>> {
        if rehearsal { None } else { self.keys.renewed(known).await }
    }

    fn signature(&self, token: &Token<'_>, set: &KeySet) -> Signature {
        token.signature(&set.keys, &self.rules)
    }
}

/// The keys that the configuration gives, or says where to fetch.
fn keys(name: &str, config: &JwtConfig, build: &mut Build<'_>) -> Option<Keys> {
    let key = match (&config.secret, &config.key, &config.jwks) {
        (Some(secret), None, None) => {
            let secret = build.secret("jwt.secret", secret)?;
            let key = Key::secret(secret.expose().as_bytes());
            for algorithm in config.algorithms.as_deref().unwrap_or(key.usual()) {
                if let Some(shortest) = shortest_secret(*algorithm).filter(|_| !key.fits(*algorithm)) {
                    build
                        .error("jwt.secret", format!("the secret of {algorithm:?} has at least {shortest} bytes"))
                        .help("RFC 7518, section 3.2; make one with: openssl rand -base64 48");
                    return None;
                }
            }
            key
        }
        (None, Some(path), None) => {
            let text = build.read("jwt.key", path)?;
            build.or_report("jwt.key", Key::pem(text.as_bytes()))?
        }
        (None, None, Some(JwksConfig::File(path))) => {
            let text = build.within("jwt.jwks", |build| build.read("file", path))?;
            let (keys, left_out) = build.or_report("jwt.jwks", Key::set(text.as_bytes()))?;
            if keys.is_empty() {
                build.error("jwt.jwks", format!("there is no usable key: {}", left_out.join("; ")));
                return None;
            }
            for why in left_out {
                build.warning("jwt.jwks", format!("not used: {why}"));
            }
            check_algorithms(&keys, config, build);
            return Some(Keys::fixed(keys));
        }
        (None, None, Some(JwksConfig::Discover)) => {
            let Some(issuer) = &config.issuer else {
                build.error("jwt.jwks", "to discover the keys takes an `issuer`");
                return None;
            };
            remote::check_url("jwt.issuer", issuer, EXPOSED, build)?;
            return fetched(name, Place::Discover(issuer.clone()), config, build);
        }
        (None, None, Some(JwksConfig::Url(url))) => {
            remote::check_url("jwt.jwks", url, EXPOSED, build)?;
            return fetched(name, Place::Url(url.clone()), config, build);
        }
        (None, None, None) => {
            build
                .error("jwt", "there are no keys to check tokens with")
                .help("give it `jwks` (\"discover\", a URL or { file = \"…\" }), `key` (a PEM file) or `secret`");
            return None;
        }
        _ => {
            build.error("jwt", "the keys come from more than one place").help("keep one of `jwks`, `key`, `secret`");
            return None;
        }
    };
    let keys = vec![key];
    check_algorithms(&keys, config, build);
    Some(Keys::fixed(keys))
}

/// An algorithm that fits no key would never be used, and is a mistake about the keys.
fn check_algorithms(keys: &[Key], config: &JwtConfig, build: &mut Build<'_>) {
    for (i, algorithm) in config.algorithms.iter().flatten().enumerate() {
        if !keys.iter().any(|key| key.fits(*algorithm)) {
            let usual = keys.iter().flat_map(|key| key.usual()).map(|usual| format!("{usual:?}")).collect::<Vec<_>>();
            build
                .error(&format!("jwt.algorithms[{i}]"), format!("{algorithm:?} is not for a key of this type"))
                .help(format!("usual for it: {}", usual.join(", ")));
        }
    }
}

fn fetched(name: &str, place: Place, config: &JwtConfig, build: &mut Build<'_>) -> Option<Keys> {
    if config.algorithms.iter().flatten().any(|algorithm| shortest_secret(*algorithm).is_some()) {
        build
            .error("jwt.algorithms", "HS256 and its like take a shared secret, and published keys are none")
            .help("use the algorithms of the provider, such as RS256 or ES256");
        return None;
    }
    let client = remote::client("jwt.ca", config.ca.as_deref(), keys::LONGEST, keys::LARGEST, build)?;
    let (refresh, cool_down): (Duration, Duration) = (config.refresh.into(), config.cool_down.into());
    Some(Keys::of(Remote::new(name, place, client, refresh, cool_down)))
}

impl<'de> Deserialize<'de> for JwksConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct JwksVisitor;
        impl<'de> Visitor<'de> for JwksVisitor {
            type Value = JwksConfig;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"discover\", a URL or { file = \"…\" }")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<JwksConfig, E> {
                Ok(match text {
                    "discover" => JwksConfig::Discover,
                    url => JwksConfig::Url(url.to_owned()),
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<JwksConfig, A::Error> {
                #[derive(Deserialize)]
                #[serde(rename_all = "lowercase")]
                enum Long {
                    File(PathBuf),
                }
                let Long::File(path) = Long::deserialize(MapAccessDeserializer::new(map))?;
                Ok(JwksConfig::File(path))
            }
        }
        deserializer.deserialize_any(JwksVisitor)
    }
}
