//! Who a caller is: from what a credential says, and from `[consumer.NAME]`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::build::{Build, Node};
use crate::facts::{Consumer, claim};
use crate::policy::OwnRate;
use crate::types::template::Template;
use crate::types::unhex;

/// `[consumer.NAME]` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsumerConfig {
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    keys: Vec<KeyConfig>,
    #[serde(default)]
    certificates: Vec<String>,
    rate_limit: Option<OwnRate>,
    #[serde(default, rename = "quota")]
    _quota: NotYet,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyConfig {
    sha256: KeyHash,
}

/// The SHA-256 hash of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

crate::types::deserialize_from_str!(KeyHash, "the SHA-256 hash of a key, as 64 hexadecimal digits");

/// A key that is promised and not there yet.
#[derive(Default)]
pub(super) struct NotYet;

impl<'de> Deserialize<'de> for NotYet {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("this is not available in this version"))
    }
}

/// The consumers that the configuration names.
#[derive(Clone, Default)]
pub(super) struct Consumers(Arc<Known>);

#[derive(Default)]
struct Known {
    by_name: BTreeMap<Box<str>, Arc<Consumer>>,
    by_key: HashMap<KeyHash, Arc<Consumer>>,
    /// Names in certificates, and whose they are.
    by_certificate: BTreeMap<Box<str>, Box<str>>,
}

/// A claim by its name. One within another has a dotted name: `realm_access.roles`.
#[derive(Clone)]
pub(super) struct Claim(Box<str>);

/// What upstreams are told of a caller.
pub(super) type Headers = Arc<[(HeaderName, Template)]>;

/// How a provider's claims make a consumer.
#[derive(Clone)]
pub(super) struct Identities {
    pub(super) consumers: Consumers,
    /// The claim that names the consumer.
    pub(super) name: Claim,
    /// The claim with the groups.
    pub(super) groups: Option<Claim>,
    pub(super) headers: Headers,
}

/// Bytes of the longest name of a consumer: it stands in logs and header fields.
const LONGEST_NAME: usize = 256;

impl Consumers {
    /// Compiles every `[consumer.NAME]`.
    pub(super) fn compile(root: &Node, build: &mut Build<'_>) -> Self {
        let mut known = Known::default();
        for (name, entry) in root.get("consumer").and_then(Node::table).into_iter().flatten() {
            build.within_detached(&entry.node, |build| {
                if !is_name(name) {
                    build.error("", format!("{name:?} cannot be the name of a consumer"));
                }
                if let Some(config) = build.deserialize::<ConsumerConfig>() {
                    known.add(name, config, build);
                }
            });
        }
        Self(Arc::new(known))
    }

    /// The same consumers, with what a provider tells upstreams of them.
    pub(super) fn with_headers(&self, headers: &Headers) -> Self {
        let told = |consumer: &Arc<Consumer>| {
            let Consumer { name, groups, claims, pace, .. } = &**consumer;
            let (name, groups, claims, pace) = (name.clone(), groups.clone(), claims.clone(), pace.clone());
            Arc::new(told(Consumer { name, groups, claims, headers: Vec::new(), pace }, headers))
        };
        Self(Arc::new(Known {
            by_name: self.0.by_name.iter().map(|(name, consumer)| (name.clone(), told(consumer))).collect(),
            by_key: self.0.by_key.iter().map(|(key, consumer)| (*key, told(consumer))).collect(),
            by_certificate: self.0.by_certificate.clone(),
        }))
    }

    /// Whose key it is. It is found by its hash: to learn of a key by the time that this takes, one would have to make
    /// hashes at will.
    pub(super) fn with_key(&self, key: &[u8]) -> Option<&Arc<Consumer>> {
        self.0.by_key.get(&KeyHash::of(key))
    }

    /// Whether anybody has a key.
    pub(super) fn have_keys(&self) -> bool {
        !self.0.by_key.is_empty()
    }

    /// The name of who has a name in a certificate.
    pub(super) fn with_certificate(&self, name: &str) -> Option<String> {
        self.0.by_certificate.get(name).map(|name| name.to_string())
    }
}

impl Known {
    fn add(&mut self, name: &str, config: ConsumerConfig, build: &mut Build<'_>) {
        let claims = Map::from_iter([("sub".to_owned(), Value::from(name))]);
        let groups = config.groups.iter().map(|group| group.as_str().into()).collect();
        let pace = config.rate_limit.map(|own| Arc::new(build.within("rate_limit", |build| own.compile(build))));
        let consumer = Arc::new(Consumer { name: name.into(), groups, claims, headers: Vec::new(), pace });
        for (i, key) in config.keys.iter().enumerate() {
            let at = format!("keys[{i}].sha256");
            if key.sha256 == KeyHash::of(b"") {
                build.error(&at, "this is the hash of nothing").help("portcullis key new makes a key with its hash");
            }
            if let Some(other) = self.by_key.insert(key.sha256, consumer.clone()) {
                build.error(&at, format!("the consumer `{}` has this key already", other.name));
            }
        }
        for (i, subject) in config.certificates.iter().enumerate() {
            if let Some(other) = self.by_certificate.insert(subject.as_str().into(), name.into()) {
                build.error(&format!("certificates[{i}]"), format!("the consumer `{other}` has this name already"));
            }
        }
        self.by_name.insert(name.into(), consumer);
    }
}

impl KeyHash {
    /// The hash of a key.
    pub fn of(key: &[u8]) -> Self {
        let hash = digest(&SHA256, key);
        Self(hash.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }
}

impl AsRef<[u8]> for KeyHash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for KeyHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match unhex(text) {
            Some(hash) => Ok(Self(hash)),
            None => {
                Err("a SHA-256 hash has 64 hexadecimal digits: `portcullis key new` makes a key with its hash"
                    .to_owned())
            }
        }
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Claim {
    /// Parses `claims.NAME`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("claims.") {
            Some(name) if !name.is_empty() => Ok(Self(name.into())),
            _ => Err(format!("`{text}` is not a claim: write \"claims.sub\"")),
        }
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.0
    }

    /// The claim, if it is there.
    pub(super) fn of<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        claim(claims, &self.0)
    }
}

impl Identities {
    /// Who has these claims.
    ///
    /// # Errors
    /// They do not say it.
    pub(super) fn of(&self, claims: Map<String, Value>) -> Result<Arc<Consumer>, &'static str> {
        let name = match self.name.of(&claims) {
            Some(Value::String(name)) => name.as_str().into(),
            Some(Value::Number(number)) => number.to_string().into(),
            _ => return Err("the token does not say who it is for"),
        };
        let name: Box<str> = name;
        if !is_name(&name) {
            return Err("the token names somebody who cannot be named");
        }
        let mut groups = match self.groups.as_ref().and_then(|groups| groups.of(&claims)) {
            Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).map(Box::from).collect(),
            Some(Value::String(groups)) => groups.split(' ').filter(|group| !group.is_empty()).map(Box::from).collect(),
            _ => Vec::new(),
        };
        let known = self.consumers.0.by_name.get(&name);
        for group in known.iter().flat_map(|known| &known.groups) {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        let pace = known.and_then(|known| known.pace.clone());
        Ok(Arc::new(told(Consumer { name, groups, claims, headers: Vec::new(), pace }, &self.headers)))
    }
}

/// Adds what upstreams are told. A value that is empty, or that a field cannot hold, leaves its field out.
fn told(mut consumer: Consumer, headers: &[(HeaderName, Template)]) -> Consumer {
    let value = |template: &Template| {
        HeaderValue::from_bytes(&template.render(&consumer)).ok().filter(|value| !value.is_empty())
    };
    let fields = headers.iter().filter_map(|(name, template)| Some((name.clone(), value(template)?))).collect();
    consumer.headers = fields;
    consumer
}

fn is_name(name: &str) -> bool {
    (1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_name_a_consumer() {
        let of = |name: &str, claims: Value| {
            let Value::Object(claims) = claims else { panic!("claims are an object") };
            let name = Claim::parse(name).unwrap();
            let groups = Claim::parse("claims.realm.roles").ok();
            Identities { consumers: Consumers::default(), name, groups, headers: Headers::from([]) }.of(claims)
        };
        let alice = of("claims.sub", serde_json::json!({ "sub": "alice", "realm": { "roles": ["a", "b"] } })).unwrap();
        assert_eq!((&*alice.name, alice.groups.len()), ("alice", 2));
        let number = of("claims.https://x/id", serde_json::json!({ "https://x/id": 7 })).unwrap();
        assert_eq!(&*number.name, "7");
        for wrong in ["", "a\nb", &"x".repeat(257)] {
            assert!(of("claims.sub", serde_json::json!({ "sub": wrong })).is_err());
        }
        assert!(of("claims.sub", serde_json::json!({ "sub": ["alice"] })).is_err());
        assert!(Claim::parse("sub").is_err() && Claim::parse("claims.").is_err());
    }
}
