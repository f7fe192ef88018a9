//! `authorize`: what a caller that is known may do. Whoever may not is answered with a 403.
//!
//! ```toml
//! authorize = { scopes = ["users:read"], groups = ["staff", "partners"], claims = { tier = ["gold", "silver"] }, when = 'claims.org == request.query["org"]' }
//! ```
//!
//! All of it must hold: every scope, one of the groups, every claim (one of the values, where there are several), and
//! the condition, which is CEL over `request`, `claims` and `consumer` (`name`, `groups`). A condition that fails while
//! it runs does not hold.

use std::collections::BTreeMap;

use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use pingora_http::RequestHeader;
use serde::Deserialize;
use serde_json::Value;

use super::when::When;
use super::{Policy, Scope, Verdict};
use crate::build::Build;
use crate::facts::{Consumer, Facts, RequestView, lower_host};
use crate::reply::Reply;

/// `authorize` as it is written.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    scopes: Vec<String>,
    groups: Vec<String>,
    claims: BTreeMap<String, Value>,
    when: Option<String>,
}

/// The compiled policy.
pub struct Authorize {
    scopes: Vec<Box<str>>,
    groups: Vec<Box<str>>,
    claims: Vec<(Box<str>, Value)>,
    when: Option<When>,
    /// Which scopes a caller would have to have (RFC 6750, section 3.1).
    challenge: HeaderValue,
}

impl Policy for Authorize {
    type Config = Config;

    fn compile(config: Config, scope: &Scope<'_>, build: &mut Build<'_>) -> Option<Self> {
        let before = build.errors();
        let asks = !config.scopes.is_empty() || !config.groups.is_empty() || !config.claims.is_empty();
        if !asks && config.when.is_none() {
            build.error("", "nothing is demanded").help("give `scopes`, `groups`, `claims` or `when`");
        }
        for (i, scope) in config.scopes.iter().enumerate() {
            // RFC 6749, section 3.3.
            if scope.is_empty() || !scope.bytes().all(|b| b.is_ascii_graphic() && !b"\"\\".contains(&b)) {
                build.error(&format!("scopes[{i}]"), format!("`{scope}` is not a scope"));
            }
        }
        let when = config.when.as_ref().and_then(|text| build.or_report("when", When::with_caller(text)));
        if !scope.authenticated && (asks || when.as_ref().is_some_and(When::asks_for_caller)) {
            build
                .error("", "nobody is known on this route, so nobody would be let through")
                .help("name a provider: auth = \"NAME\"");
        }
        if build.errors() > before {
            return None;
        }
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{}\"", config.scopes.join(" "));
        let boxed = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
        Some(Self {
            scopes: boxed(config.scopes),
            groups: boxed(config.groups),
            claims: config.claims.into_iter().map(|(name, value)| (name.into(), value)).collect(),
            when,
            challenge: HeaderValue::from_str(&challenge).expect("scopes are visible ASCII"),
        })
    }

    async fn request(&self, request: &mut RequestHeader, facts: &mut Facts) -> Verdict {
        let nobody = Consumer::default();
        let caller = facts.consumer.as_deref().unwrap_or(&nobody);
        let refused = |cause: &'static str| Reply::forbidden("the caller may not do this").because(cause);
        if !self.scopes.iter().all(|scope| has_scope(caller, scope)) {
            return Err(refused("the caller lacks a scope").with(WWW_AUTHENTICATE, self.challenge.clone()));
        }
        if !self.groups.is_empty() && !self.groups.iter().any(|group| caller.groups.contains(group)) {
            return Err(refused("the caller is in none of the groups"));
        }
        if !self.claims.iter().all(|(name, wanted)| caller.claim(name).is_some_and(|claim| holds(claim, wanted))) {
            return Err(refused("a claim of the caller is not as demanded"));
        }
        if let Some(when) = &self.when {
            let host = lower_host(request);
            if !when.matches_caller(&RequestView::of(request, &host, facts), caller) {
                return Err(refused("the condition does not hold"));
            }
        }
        Ok(())
    }
}

/// Scopes are words of `scope` (RFC 8693, section 4.2), or elements of it or of `scp` or `scopes`, as providers have it.
fn has_scope(caller: &Consumer, scope: &str) -> bool {
    ["scope", "scp", "scopes"].into_iter().filter_map(|name| caller.claims.get(name)).any(|value| match value {
        Value::String(scopes) => scopes.split(' ').any(|other| other == scope),
        Value::Array(scopes) => scopes.iter().any(|other| other.as_str() == Some(scope)),
        _ => false,
    })
}

/// Whether a claim has a value that is wanted; either may be a list.
fn holds(claim: &Value, wanted: &Value) -> bool {
    match (claim, wanted) {
        (claim, Value::Array(wanted)) => wanted.iter().any(|wanted| holds(claim, wanted)),
        (Value::Array(claims), wanted) => claims.contains(wanted),
        (claim, wanted) => claim == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scopes_and_claims_are_compared_whole() {
        let caller = |claims: Value| {
            let Value::Object(claims) = claims else { panic!("claims are an object") };
            Consumer { claims, ..Consumer::default() }
        };
        assert!(has_scope(&caller(json!({ "scope": "a b:c" })), "b:c"));
        assert!(has_scope(&caller(json!({ "scp": ["a", "b"] })), "b"));
        assert!(has_scope(&caller(json!({ "scope": "x", "scopes": ["b"] })), "b"));
        for lacking in [json!({ "scope": "ab" }), json!({ "scope": { "b": 1 } }), json!({}), json!({ "scp": [["b"]] })]
        {
            assert!(!has_scope(&caller(lacking), "b"));
        }
        assert!(holds(&json!("gold"), &json!(["silver", "gold"])) && holds(&json!(["a", "b"]), &json!("b")));
        assert!(holds(&json!(3), &json!(3)) && !holds(&json!("3"), &json!(3)) && !holds(&json!("a"), &json!([])));
    }
}
