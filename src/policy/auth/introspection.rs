//! `introspection`: tokens that only the provider understands, in `Authorization: Bearer`. It is asked what they are
//! (RFC 7662).
//!
//! ```toml
//! [auth.idp]
//! introspection = { url = "https://id.example.com/introspect", client_id = "gateway", client_secret = { env = "IDP_SECRET" } }
//!
//! [auth.partners]
//! introspection = { url = "discover", issuer = "https://id.example.org", audience = "api", ttl = "10s", client_id = "gateway", client_secret = { file = "partners.secret" } }
//! ```
//!
//! What the provider says is remembered: that a token is good for `ttl`, and no longer than the token lives; that it is
//! not for `negative_ttl`. So long a token that is called back goes on. Remembered are hashes of tokens, a bounded number
//! of them, over reloads as well where neither the provider nor a consumer changed. However many requests come with a
//! token at once, one question is asked. When the provider gives no sound answer, tokens that are not remembered are
//! answered with a 503.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request};
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::identity::{self, Identities, KeyHash};
use super::remembered::Remembered;
use super::remote::Health;
use super::{Judgement, claims, remote, seconds_since_1970};
use crate::build::Build;
use crate::client::Client;
use crate::facts::Consumer;
use crate::telemetry::metrics::policies::Reason;
use crate::types::{OneOrMore, Secret, Timespan};

/// `introspection` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IntrospectionConfig {
    url: String,
    issuer: Option<String>,
    client_id: String,
    client_secret: Secret,
    #[serde(default)]
    client_auth: ClientAuth,
    #[serde(default)]
    audience: OneOrMore,
    #[serde(default)]
    required: Vec<String>,
    groups: Option<String>,
    #[serde(default = "ttl")]
    ttl: Timespan,
    #[serde(default = "negative_ttl")]
    negative_ttl: Timespan,
    #[serde(default = "timeout")]
    timeout: Timespan,
    ca: Option<PathBuf>,
}

/// How the gateway shows who it is (RFC 6749, section 2.3.1).
#[derive(Deserialize, Default, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum ClientAuth {
    #[default]
    Basic,
    Post,
}

/// A compiled `introspection`.
pub(super) struct Introspection(Arc<Shared>);

struct Shared {
    /// Of the provider, for the log.
    name: Box<str>,
    place: Place,
    client: Client,
    /// The gateway's own credentials: as a field, or as the end of the form.
    authorization: Option<HeaderValue>,
    form: String,
    rules: claims::Rules,
    identities: Identities,
    ttl: u64,
    negative_ttl: u64,
    timeout: Duration,
    good: Remembered,
    bad: Remembered<(Reason, &'static str)>,
    /// The questions under way, by the hash of the token.
    asking: Mutex<HashMap<KeyHash, watch::Receiver<Option<Outcome>>>>,
    /// Where questions are asked, so that they outlive the request that is the first to ask.
    runtime: OnceLock<tokio::runtime::Handle>,
    health: Health,
}

/// Where the provider answers.
enum Place {
    Url(String),
    /// Where the metadata of this issuer says, and said at that time.
    Discover(String, tokio::sync::Mutex<Option<(String, Instant)>>),
}

/// What came of a question.
#[derive(Clone)]
enum Outcome {
    Known(Arc<Consumer>),
    Wrong(Reason, &'static str),
    Unknowable(Arc<str>),
}

/// Bytes of the longest token that is looked at.
const LONGEST: usize = 16 << 10;
/// Bytes of an answer.
const LARGEST: usize = 64 << 10;
/// Questions at once.
const MOST: usize = 256;
/// How long a discovered place is believed.
const DISCOVERED: Duration = Duration::from_secs(600);
const LONGEST_TTL: Timespan = Timespan::from_secs(3600);

fn ttl() -> Timespan {
    Timespan::from_secs(30)
}

fn negative_ttl() -> Timespan {
    Timespan::from_secs(10)
}

fn timeout() -> Timespan {
    Timespan::from_secs(5)
}

impl Introspection {
    /// Compiles `introspection` of the provider `name`; `build` is at the provider. `None` after every mistake was
    /// reported.
    pub(super) fn compile(
        name: &str,
        config: &IntrospectionConfig,
        mut identities: Identities,
        build: &mut Build<'_>,
    ) -> Option<Self> {
        let before = build.errors();
        let place = match (config.url.as_str(), &config.issuer) {
            ("discover", Some(issuer)) => {
                remote::check_url("introspection.issuer", issuer, EXPOSED, build);
                Place::Discover(issuer.clone(), tokio::sync::Mutex::default())
            }
            ("discover", None) => {
                build.error("introspection.url", "to discover the place takes an `issuer`");
                return None;
            }
            (url, _) => {
                remote::check_url("introspection.url", url, EXPOSED, build);
                Place::Url(url.to_owned())
            }
        };
        for (key, time) in [("ttl", config.ttl), ("negative_ttl", config.negative_ttl)] {
            if time.0.subsec_nanos() > 0 || time > LONGEST_TTL {
                build
                    .error(&format!("introspection.{key}"), "an answer is remembered for whole seconds, at most 1h")
                    .help("\"0s\" asks for every request");
            }
        }
        remote::check_timeout("introspection.timeout", config.timeout, build);
        if config.client_id.is_empty() {
            build.error("introspection.client_id", "the gateway has to say who it is");
        }
        if let Some(groups) = &config.groups {
            identities.groups = build.or_report("introspection.groups", identity::Claim::parse(groups));
        }
        let secret = build.secret("introspection.client_secret", &config.client_secret);
        let timeout: Duration = config.timeout.into();
        let client = remote::client("introspection.ca", config.ca.as_deref(), timeout, LARGEST, build)?;
        if build.errors() > before {
            return None;
        }
        let (authorization, form) = credentials(config.client_auth, &config.client_id, secret?.expose());
        Some(Self(Arc::new(Shared {
            name: name.into(),
            place,
            client: client.keeping_connections(),
            authorization,
            form,
            rules: claims::Rules {
                issuer: config.issuer.as_deref().map(Into::into),
                issuer_is_named: false,
                audience: config.audience.0.iter().map(|audience| audience.as_str().into()).collect(),
                required: config.required.iter().map(|claim| claim.as_str().into()).collect(),
            },
            identities,
            ttl: config.ttl.0.as_secs(),
            negative_ttl: config.negative_ttl.0.as_secs(),
            timeout,
            good: Remembered::default(),
            bad: Remembered::default(),
            asking: Mutex::default(),
            runtime: OnceLock::new(),
            health: Health::default(),
        })))
    }

    /// Lets the provider be asked, on a runtime that outlives this. Before that nobody is. To start it again changes
    /// nothing.
    pub(super) fn start(&self, runtime: &tokio::runtime::Handle) {
        let _ = self.0.runtime.set(runtime.clone());
    }

    /// Whose token it is. In a rehearsal nobody is asked.
    pub(super) async fn judge(&self, token: &[u8], rehearsal: bool, now: u64) -> Judgement {
        if token.len() > LONGEST || !is_token(token) {
            return Judgement::Wrong(Reason::Malformed, "the credential is not a token");
        }
        let hash = KeyHash::of(token);
        match self.0.remembered(&hash, now) {
            Some(outcome) => outcome.into(),
            None if rehearsal => Judgement::Unknowable("nobody is asked in a rehearsal".into()),
            // Boxed, for it is rare, and would be large in every request's future.
            None => Box::pin(self.ask(token, hash, now)).await.into(),
        }
    }

    /// Who somebody with these claims would be.
    pub(super) fn assume(&self, claims: Map<String, Value>) -> Result<Arc<Consumer>, &'static str> {
        self.0.identities.of(claims)
    }

    /// Asks the provider, or waits for who asks already.
    async fn ask(&self, token: &[u8], hash: KeyHash, now: u64) -> Outcome {
        let mut answer = {
            let mut asking = self.0.asking.lock();
            if let Some(outcome) = self.0.remembered(&hash, now) {
                return outcome;
            }
            let under_way = asking.len();
            match (asking.get(&hash), self.0.runtime.get()) {
                (Some(answer), _) => answer.clone(),
                (None, Some(runtime)) if under_way < MOST => {
                    let (tell, answer) = watch::channel(None);
                    asking.insert(hash, answer.clone());
                    runtime.spawn(question(self.0.clone(), token.to_vec(), hash, tell));
                    answer
                }
                (None, Some(_)) => return Outcome::Unknowable("the provider is asked too much at once".into()),
                (None, None) => return Outcome::Unknowable("the provider is not asked yet".into()),
            }
        };
        let answer = answer.wait_for(Option::is_some).await;
        answer
            .ok()
            .and_then(|answer| answer.clone())
            .unwrap_or_else(|| Outcome::Unknowable("the question ended".into()))
    }
}

/// One question, for all who wait for its answer.
async fn question(shared: Arc<Shared>, token: Vec<u8>, hash: KeyHash, tell: watch::Sender<Option<Outcome>>) {
    /// Ends the question, however it ends.
    struct Ending<'s>(&'s Shared, KeyHash);
    impl Drop for Ending<'_> {
        fn drop(&mut self) {
            self.0.asking.lock().remove(&self.1);
        }
    }
    let ending = Ending(&shared, hash);
    // An answer is as old as its question.
    let now = seconds_since_1970();
    let answer = match tokio::time::timeout(shared.timeout, shared.fetch(&token)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {:?}", shared.timeout)),
    };
    shared.health.note(&shared.name, &answer);
    let outcome = shared.understand(answer, now);
    match &outcome {
        (Outcome::Known(consumer), until) => shared.good.put(hash.as_ref(), 0, now, *until, consumer),
        (Outcome::Wrong(reason, why), until) => {
            shared.bad.put(hash.as_ref(), 0, now, *until, &Arc::new((*reason, *why)));
        }
        (Outcome::Unknowable(_), _) => {}
    }
    // Remembered first, so that nobody asks again in between.
    drop(ending);
    tell.send_replace(Some(outcome.0));
}

impl Shared {
    fn remembered(&self, hash: &KeyHash, now: u64) -> Option<Outcome> {
        let good = self.good.find(hash.as_ref(), 0, now).map(Outcome::Known);
        good.or_else(|| self.bad.find(hash.as_ref(), 0, now).map(|wrong| Outcome::Wrong(wrong.0, wrong.1)))
    }

    /// The claims of an active token; nothing for one that is not.
    async fn fetch(&self, token: &[u8]) -> Result<Option<Map<String, Value>>, String> {
        let url = self.url().await?;
        let token: String = form_urlencoded::byte_serialize(token).collect();
        let form = format!("token={token}&token_type_hint=access_token{}", self.form);
        let mut request = Request::post(&url)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Bytes::from(form))
            .map_err(|_| "the provider names a URL that is none".to_owned())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        let answer = self.client.exchange(request).await?;
        match answer.status().as_u16() {
            200 => {}
            status @ (400 | 401 | 403) => {
                return Err(format!("the status {status}: is the client_secret right?"));
            }
            status => return Err(format!("the status {status}")),
        }
        let claims =
            claims::object(answer.body()).map_err(|error| format!("what it says is no introspection: {error}"))?;
        match claims.get("active").and_then(Value::as_bool) {
            Some(true) => {
                claims::time(&claims, "exp").map_err(|(_, why)| why.to_owned())?;
                Ok(Some(claims))
            }
            Some(false) => Ok(None),
            None => Err("what it says is no introspection: it lacks `active`".to_owned()),
        }
    }

    async fn url(&self) -> Result<String, String> {
        let (issuer, found) = match &self.place {
            Place::Url(url) => return Ok(url.clone()),
            Place::Discover(issuer, found) => (issuer, found),
        };
        let mut found = found.lock().await;
        if let Some((url, at)) = &*found
            && at.elapsed() < DISCOVERED
        {
            return Ok(url.clone());
        }
        match (remote::discover(&self.client, issuer, "introspection_endpoint").await, &mut *found) {
            (Ok(url), found) => Ok(found.insert((url, Instant::now())).0.clone()),
            // It is there that it answered so far.
            (Err(_), Some((url, at))) => {
                *at = Instant::now();
                Ok(url.clone())
            }
            (Err(error), None) => Err(error),
        }
    }

    /// What an answer means, and until when.
    fn understand(&self, answer: Result<Option<Map<String, Value>>, String>, now: u64) -> (Outcome, u64) {
        let wrong = |reason, why| (Outcome::Wrong(reason, why), now + self.negative_ttl);
        let claims = match answer {
            Ok(Some(claims)) => claims,
            Ok(None) => return wrong(Reason::Refused, "the provider says that the token is not active"),
            Err(error) => {
                let cause = format!("the provider {} cannot be asked: {error}", self.name);
                return (Outcome::Unknowable(cause.into()), now);
            }
        };
        let expires = claims::time(&claims, "exp").ok().flatten().unwrap_or(u64::MAX);
        if now >= expires {
            return wrong(Reason::Expired, "the token is expired");
        }
        // What else `active` means is the provider's to say. How the token is to be shown is not.
        let bearer = |kind: &Value| kind.as_str().is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
        if !claims.get("token_type").is_none_or(bearer) {
            return wrong(Reason::Malformed, "the token is of another type");
        }
        let found =
            self.rules.hold(&claims).and_then(|()| self.identities.of(claims).map_err(|why| (Reason::Claims, why)));
        match found {
            Ok(consumer) => (Outcome::Known(consumer), expires.min(now + self.ttl)),
            Err((reason, why)) => wrong(reason, why),
        }
    }
}

impl From<Outcome> for Judgement {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Known(consumer) => Self::Known(consumer),
            Outcome::Wrong(reason, why) => Self::Wrong(reason, why),
            Outcome::Unknowable(why) => Self::Unknowable(why.to_string().into()),
        }
    }
}

const EXPOSED: Option<&str> = Some("without TLS others can read the tokens and the secret on the way");

/// The gateway's credentials as a field, or as the end of a form.
fn credentials(how: ClientAuth, id: &str, secret: &str) -> (Option<HeaderValue>, String) {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let (id, secret) = (encoded(id), encoded(secret));
    match how {
        ClientAuth::Post => (None, format!("&client_id={id}&client_secret={secret}")),
        ClientAuth::Basic => {
            let value = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
            let mut value = HeaderValue::from_str(&value).expect("base64 is visible ASCII");
            value.set_sensitive(true);
            (Some(value), String::new())
        }
    }
}

/// Whether it is a `b64token` (RFC 6750, section 2.1).
fn is_token(text: &[u8]) -> bool {
    let padding = text.iter().rev().take_while(|b| **b == b'=').count();
    let letters = &text[..text.len() - padding];
    !letters.is_empty() && letters.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_of_some_letters() {
        assert!(is_token(b"aZ09-._~+/") && is_token(b"a=="));
        for wrong in ["", "=", "a b", "a=b", "a,b", "ä", "a\n", "\"a\""] {
            assert!(!is_token(wrong.as_bytes()), "{wrong}");
        }
    }

    #[test]
    fn credentials_are_encoded_before_they_are_joined() {
        let (field, form) = credentials(ClientAuth::Basic, "a:b", "ü&");
        assert_eq!(field.unwrap(), format!("Basic {}", STANDARD.encode("a%3Ab:%C3%BC%26")));
        assert_eq!(form, "");
        let (field, form) = credentials(ClientAuth::Post, "a:b", "ü&");
        assert_eq!((field, form.as_str()), (None, "&client_id=a%3Ab&client_secret=%C3%BC%26"));
    }
}
