//! The policies: what may be said of a request on its way, in the order in which it happens.
//!
//! A policy is plain data compiled from its configuration, and the hooks of [`Policy`]. It sees headers and
//! facts, never a socket, so its tests need none. To add one: a folder, a `mod` line and a row in the table.
//!
//! `[defaults]`, the route's `[api.NAME]`, the bundles that `use` names and the route itself are merged key by key before a policy is
//! compiled, the nearer winning; `false` switches a policy off.

use std::borrow::Cow;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderName;
use http::header::CONTENT_ENCODING;
use pingora_http::{RequestHeader, ResponseHeader};
use serde::de::DeserializeOwned;

use crate::body::{HELD, Held, Shaper, Shaping, varies};
use crate::build::{Build, Node, Value};
use crate::cache::Zones;
use crate::facts::Facts;
use crate::reply::Reply;
use crate::store::Stores;
use crate::telemetry::metrics::policies::PolicySeries;
use crate::telemetry::metrics::traffic::Meter;
use crate::types::template::Names;

/// What one policy does. Every hook but `compile` may be left out.
pub trait Policy: Sized + Send + Sync + 'static {
    /// The value of the policy's key in the file.
    type Config: DeserializeOwned;

    /// Whether the policy answers preflight requests (CORS), so that they are its route's.
    const ANSWERS_PREFLIGHTS: bool = false;

    /// The table that a short value of the key stands for, so that it is merged with those of other layers.
    fn long(_short: &Node) -> Option<Node> {
        None
    }

    /// `None` after reporting to `build` what is wrong, and where.
    fn compile(config: Self::Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self>;

    /// Says what holds for every exchange of the route.
    fn settle(&self, _terms: &mut Terms) {}

    /// Judges and changes the request once, before a server is chosen.
    fn request(&self, _request: &mut RequestHeader, _facts: &mut Facts) -> impl Future<Output = Verdict> + Send {
        std::future::ready(Ok(()))
    }

    /// Changes what is sent to the upstream, once per attempt. `request` is what the client sent.
    fn upstream(&self, _head: &mut RequestHeader, _request: &RequestHeader, _facts: &Facts) -> Verdict {
        Ok(())
    }

    /// Checks or changes the body of the request, which is held whole because [`Policy::settle`] asked for it: once, before
    /// the upstream is asked. There may be none, and then it is empty. `request` is what the client sent.
    fn body(&self, _body: &mut Held, _request: &RequestHeader, _facts: &mut Facts) -> Verdict {
        Ok(())
    }

    /// What is to become of the body of an answer with this head. The policies are asked in the reverse of their order,
    /// and each sees the head as those before leave it.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    fn shaper(&self, _head: &ResponseHeader, _request: &RequestHeader, _facts: &Facts) -> Shaped {
        Ok(None)
    }

    /// Changes the head of the response. The policies see it in the reverse of their order.
    fn response(&self, _head: &mut ResponseHeader, _request: &RequestHeader, _facts: &Facts) {}
}

/// Go on, or answer with this.
pub type Verdict = Result<(), Reply>;

/// What is to become of an answer's body, if anything is; or the answer that the client gets instead.
pub type Shaped = Result<Option<Box<dyn Shaper>>, Reply>;

/// What a policy can know of its route when it is compiled.
#[derive(Clone, Copy)]
pub struct Scope<'r> {
    /// The names of the captures of the route's path, by position.
    pub captures: &'r [Box<str>],
    /// The names of the parts of the aggregate that the policy's request is one of.
    pub parts: &'r [Box<str>],
    /// The pattern of the route's path.
    pub pattern: &'r str,
    /// The methods that the route takes; none for all.
    pub methods: &'r [String],
    /// The route's name.
    pub route: &'r str,
    /// The names of the layers that its policies are merged from: `route`, `policy.NAME`, `api.NAME`, `defaults`.
    pub layers: &'r [&'r str],
    /// Where the policy at hand is written: a bundle, the defaults, or the route itself. What is merged from several
    /// layers is the route's.
    pub owner: &'r str,
    /// The ways to find out who asks, by name.
    pub providers: &'r Providers,
    /// The caches, by name.
    pub zones: &'r Zones,
    /// What is known together with other gateways, by name.
    pub stores: &'r Stores,
    /// The base path of the API that the route belongs to, if it has one.
    pub base: Option<&'r Base>,
    /// The version of the API that the route belongs to, if it has one.
    pub version: Option<&'r Version>,
    /// Whether the route has `auth`, so that whoever comes by it is known. [`Chain::compile`] finds it out.
    pub authenticated: bool,
    /// Whether the route has `cache`. [`Chain::compile`] finds it out.
    pub cached: bool,
}

impl<'r> Scope<'r> {
    /// That of a route of which nothing is known yet, with these ways to find out who asks, caches and stores.
    pub fn new(providers: &'r Providers, zones: &'r Zones, stores: &'r Stores) -> Self {
        Self {
            captures: &[],
            parts: &[],
            pattern: "",
            methods: &[],
            route: "",
            layers: &[],
            owner: "",
            providers,
            zones,
            stores,
            base: None,
            version: None,
            authenticated: false,
            cached: false,
        }
    }

    /// The methods that the route takes but HEAD, as `Allow` has them.
    pub fn bodily_methods(&self) -> Box<str> {
        let own: Vec<&str> =
            self.methods.iter().map(|method| method.trim()).filter(|method| *method != "HEAD").collect();
        if own.is_empty() { "GET, POST".into() } else { own.join(", ").into() }
    }

    /// The names that texts may use.
    pub fn names(&self) -> Names<'r> {
        Names { captures: self.captures, parts: self.parts }
    }
}

macro_rules! policies {
    ($($key:ident => $variant:ident($policy:ty),)*) => {
        /// The keys of the policies, in the order in which they run.
        pub const KEYS: &[&str] = &[$(stringify!($key)),*];

        /// The value of a policy's key in its long form.
        fn long(key: &str, value: &Node) -> Option<Node> {
            match key {
                $(stringify!($key) => <$policy as Policy>::long(value),)*
                _ => None,
            }
        }

        /// One compiled policy of a route.
        enum Step {
            $($variant($policy),)*
        }

        impl Step {
            fn compile(key: &str, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
                match key {
                    $(stringify!($key) => {
                        let config = build.deserialize::<<$policy as Policy>::Config>()?;
                        <$policy as Policy>::compile(config, scope, build).map(Self::$variant)
                    })*
                    _ => None,
                }
            }

            fn settle(&self, terms: &mut Terms) {
                match self {
                    $(Self::$variant(policy) => policy.settle(terms),)*
                }
            }

            fn key(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($key),)*
                }
            }

            fn answers_preflights(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$policy as Policy>::ANSWERS_PREFLIGHTS,)*
                }
            }

            async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
                match self {
                    $(Self::$variant(policy) => policy.request(request, facts).await,)*
                }
            }

            fn upstream(&self, head: &mut RequestHeader, request: &RequestHeader, facts: &Facts) -> Verdict {
                match self {
                    $(Self::$variant(policy) => policy.upstream(head, request, facts),)*
                }
            }

            fn body(&self, body: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
                match self {
                    $(Self::$variant(policy) => policy.body(body, request, facts),)*
                }
            }

            fn shaper(
                &self,
                head: &ResponseHeader,
                request: &RequestHeader,
                facts: &Facts,
            ) -> Shaped {
                match self {
                    $(Self::$variant(policy) => policy.shaper(head, request, facts),)*
                }
            }

            fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, facts: &Facts) {
                match self {
                    $(Self::$variant(policy) => policy.response(head, request, facts),)*
                }
            }
        }
    };
}

mod access;
mod auth;
mod authorize;
mod base;
mod by;
mod cache;
mod compress;
mod concurrency;
mod cors;
mod edits;
mod graphql;
mod graphql_guard;
mod grpc_json;
mod grpc_web;
mod json_template;
mod mirror;
mod rate_limit;
mod request;
mod response;
mod retry;
mod soap;
mod terms;
mod timeout;
mod transform;
mod validate;
pub mod version;
mod when;

#[cfg(fuzzing)]
pub use auth::fuzz_token;
pub use auth::{KeyHash, Providers};
pub use base::Base;
pub use cache::{Cache, Wanted};
pub use compress::{Compress, Offer};
pub use json_template::{JsonTemplate, json};
pub use mirror::Mirror as MirrorTerms;
pub use terms::Terms;
pub use version::Version;
pub use when::When;

// THE TABLE: key => step(policy), in the order in which they run.
policies! {
    cors => Cors(cors::Cors),
    version => Version(version::Version),
    access => Access(access::Access),
    auth => Auth(auth::Auth),
    authorize => Authorize(authorize::Authorize),
    rate_limit => RateLimit(rate_limit::RateLimit),
    concurrency => Concurrency(concurrency::Concurrency),
    validate => Validate(validate::Validate),
    request => Request(request::Request),
    cache => Cache(cache::Cache),
    mirror => Mirror(mirror::Mirror),
    timeout => Timeout(timeout::Timeout),
    retry => Retry(retry::Retry),
    response => Response(response::Response),
    grpc_json => GrpcJson(grpc_json::GrpcJson),
    grpc_web => GrpcWeb(grpc_web::GrpcWeb),
    soap => Soap(soap::Soap),
    graphql => Graphql(graphql::Graphql),
    graphql_guard => GraphqlGuard(graphql_guard::GraphqlGuard),
    compress => Compress(compress::Compress),
}

pub use cors::preflight;
pub use rate_limit::{Decision, Gcra, OwnRate, Table};

/// Keys that are promised and not there yet: they are refused, never ignored.
pub const RESERVED: &[&str] = &["quota"];
/// The keys that only the table of an API has.
pub const OF_API: &[&str] = &["version"];

/// The policies of one route, compiled.
#[derive(Default)]
pub struct Chain {
    steps: Vec<(Step, PolicySeries)>,
    answers_preflights: bool,
    /// Where one of the steps is the cache.
    cache: Option<usize>,
    /// Where one of them compresses.
    compress: Option<usize>,
    terms: Terms,
    /// What upstreams are not sent of the path.
    base: Option<Base>,
    /// Fields that only the gateway may send to upstreams.
    stripped: Arc<[HeaderName]>,
}

impl Chain {
    /// Compiles the policies of a route from its layers, the nearest first. `None` after every mistake in them
    /// was reported.
    pub fn compile(layers: &[&Node], scope: &Scope<'_>, meter: &Meter, build: &mut Build<'_>) -> Option<Self> {
        let mut steps = Vec::new();
        let mut whole = true;
        let scope = &Scope {
            authenticated: effective("auth", layers).is_some(),
            cached: effective("cache", layers).is_some(),
            ..*scope
        };
        for key in KEYS {
            let Some(node) = effective(key, layers) else { continue };
            let owner = owner(key, layers, scope);
            let scope = Scope { owner: &owner, ..*scope };
            match build.within_detached(&node, |build| Step::compile(key, &scope, build)) {
                Some(step) => steps.push((step, meter.policy(scope.route, key))),
                None => whole = false,
            }
        }
        let answers_preflights = steps.iter().any(|(step, _)| step.answers_preflights());
        let cache = steps.iter().position(|(step, _)| matches!(step, Step::Cache(_)));
        let compress = steps.iter().position(|(step, _)| matches!(step, Step::Compress(_)));
        let mut terms = Terms::default();
        steps.iter().for_each(|(step, _)| step.settle(&mut terms));
        let (base, stripped) = (scope.base.cloned(), scope.providers.headers());
        whole.then_some(Self { steps, answers_preflights, cache, compress, terms, base, stripped })
    }

    /// What holds for every exchange of the route.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Whether preflight requests (CORS) for the route's requests are answered by one of its policies.
    pub fn answers_preflights(&self) -> bool {
        self.answers_preflights
    }

    /// What says how the route's answers are cached.
    pub fn cache(&self) -> Option<&Cache> {
        match self.steps.get(self.cache?) {
            Some((Step::Cache(cache), _)) => Some(cache),
            _ => None,
        }
    }

    /// What compresses the route's answers.
    pub fn compress(&self) -> Option<&Compress> {
        match self.steps.get(self.compress?) {
            Some((Step::Compress(compress), _)) => Some(compress),
            _ => None,
        }
    }

    /// Whether a policy looks at the bodies of a request or its answer: then it does not go where these cannot be held.
    pub fn reads_bodies(&self, facts: &Facts) -> bool {
        self.terms.holds_body(facts) || self.terms.reads_answers(facts)
    }

    /// Whether bodies are looked at or compressed. What gRPC sends is not compressed by others.
    pub fn shapes_bodies(&self, facts: &Facts) -> bool {
        self.reads_bodies(facts) || (self.compress.is_some() && !facts.is_native_grpc())
    }

    /// Runs the request through the policies until one stops it; says which.
    pub async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        if !self.stripped.is_empty() {
            strip(request, &self.stripped);
        }
        for (i, (step, counts)) in self.steps.iter().enumerate() {
            facts.entered = i + 1;
            let (verdict, waits_since) = timed(step.request(request, facts)).await;
            if waits_since.is_some() || verdict.is_err() || facts.shadowed.is_some() {
                account(step.key(), counts, &verdict, waits_since, facts);
            }
            verdict?;
        }
        Ok(())
    }

    /// Changes what is sent to the upstream.
    pub fn upstream(&self, head: &mut RequestHeader, request: &RequestHeader, facts: &Facts) -> Verdict {
        if let Some(base) = &self.base {
            base.take_off(head, !self.terms.sets_path);
        }
        self.steps.iter().try_for_each(|(step, _)| step.upstream(head, request, facts))
    }

    /// Takes the body of the request, which is held whole, through the policies.
    pub fn body(&self, body: &mut Held, request: &RequestHeader, facts: &mut Facts) -> Verdict {
        for (step, counts) in &self.steps {
            let shadowed = facts.shadowed;
            let verdict = step.body(body, request, facts);
            if verdict.is_err() || facts.shadowed != shadowed {
                account(step.key(), counts, &verdict, None, facts);
            }
            verdict?;
        }
        Ok(())
    }

    /// What becomes of the body of an answer with this head: `to_shape` as the upstream gave it, and `to_send` to a client.
    /// That it depends on what the client can read is said in the head where nothing else becomes of it.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    pub fn shaping(
        &self,
        head: &mut ResponseHeader,
        (to_shape, to_send): (bool, bool),
        request: &RequestHeader,
        facts: &Facts,
    ) -> Result<Shaping, Reply> {
        let mut shaping = Shaping::new(self.terms.most_answer.unwrap_or(HELD));
        let mut shaped = Cow::Borrowed(&*head);
        for (step, _) in self.steps.iter().rev().filter(|_| to_shape && self.terms.reads_answers(facts)) {
            if let Some(mut shaper) = step.shaper(&shaped, request, facts)? {
                let head = shaped.to_mut();
                shaper.head(head);
                if shaper.reads() {
                    head.remove_header(&CONTENT_ENCODING);
                }
                shaping.add(shaper);
            }
        }
        match self.compress().filter(|_| to_send).and_then(|policy| policy.offer(&shaped, request)) {
            Some(Offer::Coded(shaper)) => shaping.add(shaper),
            Some(Offer::AsItIs) if shaping.is_empty() => varies(head),
            Some(Offer::AsItIs) => shaping.varies(),
            None => {}
        }
        Ok(shaping)
    }

    /// Runs the response through the policies that the request entered, backwards.
    pub fn response(&self, head: &mut ResponseHeader, request: &RequestHeader, facts: &Facts) {
        for (step, _) in self.steps[..facts.entered.min(self.steps.len())].iter().rev() {
            step.response(head, request, facts);
        }
    }
}

/// What a future gives, and since when it waited if it did: one that is ready at once costs no look at the clock.
async fn timed<F: Future>(future: F) -> (F::Output, Option<Instant>) {
    let mut future = pin!(future);
    let mut since = None;
    let output = poll_fn(|context| {
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            since.get_or_insert_with(Instant::now);
        }
        polled
    });
    (output.await, since)
}

/// Notes that a policy stopped a request, would have, or let it wait.
fn account(
    key: &'static str,
    counts: &PolicySeries,
    verdict: &Verdict,
    waits_since: Option<Instant>,
    facts: &mut Facts,
) {
    let stopped = verdict.as_ref().err();
    if stopped.is_some() {
        facts.stopped_by = Some(key);
    }
    if facts.rehearsal {
        return;
    }
    if stopped.is_some() {
        counts.stopped();
    }
    if facts.shadowed == Some(key) {
        counts.shadowed();
    }
    if let Some(since) = waits_since {
        let time = since.elapsed();
        counts.waited(time);
        facts.waited += time;
    }
    if let Some(trace) = facts.trace.as_mut().filter(|_| waits_since.is_some() || stopped.is_some()) {
        let now = Instant::now();
        let after = |time: Instant| time.saturating_duration_since(facts.started);
        trace.policy(key, after(waits_since.unwrap_or(now)), after(now), stopped.map(|reply| reply.status.as_u16()));
    }
}

/// Takes fields out of a request, also as `X_User` for `X-User`: some servers take the one for the other.
fn strip(request: &mut RequestHeader, names: &[HeaderName]) {
    for name in names {
        request.remove_header(name);
    }
    let alike = |field: &&HeaderName| {
        let field = field.as_str();
        let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
        let alike = |name: &HeaderName| {
            field.len() == name.as_str().len() && field.bytes().zip(name.as_str().bytes()).all(same)
        };
        field.contains('_') && names.iter().any(alike)
    };
    let alike: Vec<HeaderName> = request.headers.keys().filter(alike).cloned().collect();
    alike.iter().for_each(|name| drop(request.remove_header(name)));
}

/// The value of a policy's key over all layers, the nearest first. `false` in a nearer layer ends it.
pub fn effective(key: &str, layers: &[&Node]) -> Option<Node> {
    let mut merged: Option<Node> = None;
    for node in layers.iter().filter_map(|layer| layer.get(key)) {
        let node = long(key, node).map_or(Cow::Borrowed(node), Cow::Owned);
        if node.value == Value::Boolean(false) {
            break;
        }
        merged = Some(match merged {
            Some(nearer) => nearer.over(&node),
            None => node.into_owned(),
        });
    }
    merged
}

/// Where the value of a policy's key is written: see [`Scope::owner`].
fn owner(key: &str, layers: &[&Node], scope: &Scope<'_>) -> String {
    let written = layers.iter().enumerate().filter_map(|(i, layer)| Some((i, layer.get(key)?)));
    let mut written = written.take_while(|(_, node)| node.value != Value::Boolean(false));
    let nearest = written.next();
    // Only tables are merged.
    let merged =
        nearest.is_some_and(|(_, node)| node.table().is_some()) && written.any(|(_, node)| node.table().is_some());
    match nearest.and_then(|(i, _)| scope.layers.get(i)) {
        Some(layer) if !merged && *layer != "route" => (*layer).to_owned(),
        _ => format!("route {}", scope.route),
    }
}
