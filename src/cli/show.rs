//! `GET /config` and `GET /routes` of the admin interface: the configuration at work, over all of its files, and what comes
//! of it for each route, without secrets.
//!
//! ```json
//! {"generation":2,"files":["portcullis.toml"],"config":{"admin":{"address":"127.0.0.1:9900","token":"***"}}}
//! [{"name":"user","match":"GET /users/{id}","destination":"upstream","upstream":"users",
//!   "policies":[{"policy":"auth","settings":"idp"},{"policy":"rate_limit","settings":{"rate":"10/s"}}]}]
//! ```
//!
//! Stars stand for what the features know as secret, for URLs with a user or a password, and for texts whose key sounds
//! like a credential. A table that says where a secret is (`{ env = "NAME" }`) is shown. Defaults that no file has are not.

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::build::{Build, Node, Value};
use crate::config::Loaded;
use crate::gateway::origin::{self, Merged, Served};
use crate::gateway::{Destination, Gateway};

/// What stands for a secret.
const STARS: &str = "***";
/// Parts of the names of what is a credential wherever it is written, such as in the header fields of a request.
const CREDENTIALS: &[&str] =
    &["authorization", "cookie", "token", "secret", "password", "api-key", "api_key", "apikey"];

#[derive(Serialize)]
struct Shown<'l> {
    generation: u64,
    files: Vec<&'l str>,
    config: Json,
}

#[derive(Serialize)]
struct ShownRoute<'r> {
    name: &'r str,
    #[serde(skip_serializing_if = "Option::is_none")]
    api: Option<&'r str>,
    r#match: &'r str,
    destination: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<&'r str>,
    policies: Vec<ShownPolicy>,
}

#[derive(Serialize)]
struct ShownPolicy {
    policy: &'static str,
    settings: Json,
}

/// A configuration as JSON. Each feature says what is secret while it compiles; so this compiles anew.
///
/// # Errors
/// It does not compile any more, for a file that it names has changed: what is secret is not known.
pub(super) fn config(generation: u64, loaded: &Loaded) -> Result<Vec<u8>, String> {
    let mut build = loaded.build();
    if super::plan(&mut build).is_none() {
        return Err(build.diagnostics().to_string());
    }
    written(&Shown { generation, files: loaded.sources.names().collect(), config: json("", &loaded.root, &build) })
}

/// The routes of a gateway that was compiled from `loaded`, in the order of the file, each with the policies that it has
/// over its bundles and the defaults, in the order in which they run.
///
/// # Errors
/// What comes of it is no JSON.
pub(super) fn routes(gateway: &Gateway, loaded: &Loaded) -> Result<Vec<u8>, String> {
    let mut build = loaded.build();
    let shown = |(index, served): (usize, &Served<'_>)| {
        let captures = origin::captures(index, &mut build);
        let layers = origin::layers(&loaded.root, served);
        let merged = origin::policies(&layers, &captures, gateway, &mut build);
        let policy = |Merged { key, settings, .. }: Merged<'_>| {
            Some(ShownPolicy { policy: key, settings: json(key, &settings?, &build) })
        };
        let policies = merged.into_iter().filter_map(policy).collect();
        let route = gateway.route(index);
        let (destination, upstream) = match &route.destination {
            Destination::Upstream(pool) => ("upstream", Some(pool.name())),
            Destination::Split(_) => ("split", None),
            Destination::Aggregate(_) => ("aggregate", None),
            Destination::Reply(canned) => (canned.kind(), None),
        };
        let api = route.api.as_ref().map(|api| &*api.name);
        ShownRoute { name: &route.name, api, r#match: &route.matches, destination, upstream, policies }
    };
    written(&origin::served(&loaded.root).iter().enumerate().map(shown).collect::<Vec<_>>())
}

/// Ends with a line break, for terminals.
fn written(shown: &impl Serialize) -> Result<Vec<u8>, String> {
    let mut text = serde_json::to_vec(shown).map_err(|error| error.to_string())?;
    text.push(b'\n');
    Ok(text)
}

/// What stands under a key.
fn json(key: &str, node: &Node, build: &Build<'_>) -> Json {
    match &node.value {
        Value::Table(table) => {
            let entries = table.iter().map(|(key, entry)| (key.clone(), json(key, &entry.node, build)));
            Json::Object(entries.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| json(key, item, build)).collect(),
        _ if build.hides(node.place) => STARS.into(),
        Value::String(text) if is_credential(key) || has_user(text) => STARS.into(),
        Value::String(text) | Value::Datetime(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(value) => (*value).into(),
    }
}

fn is_credential(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    CREDENTIALS.iter().any(|name| key.contains(name))
}

/// Whether there is a URL with a user, or with what would be one (RFC 3986, section 3.2.1), in a text.
fn has_user(text: &str) -> bool {
    text.split("://").skip(1).any(|rest| rest.split(['/', '?', '#']).next().unwrap_or("").contains('@'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_stars() {
        let text = "a = 's3cret'\n[b]\nX-Api-Key = 's3cret'\ntoken = { env = 'NAME' }\ncookie = ['s3cret']\n\
            url = 'redis://:s3cret@host/1'\nplain = 'http://host/@x'\nn = [1, 2.5, true]\n[[c]]\nk = 's3cret'\n";
        let loaded = Loaded::from_text("x.toml", text);
        let mut build = loaded.build();
        build.hide("a");
        build.hide("c[0].k");
        let shown = json("", &loaded.root, &build);
        let expected = serde_json::json!({
            "a": "***", "c": [{ "k": "***" }],
            "b": { "X-Api-Key": "***", "token": { "env": "NAME" }, "cookie": ["***"], "url": "***",
                   "plain": "http://host/@x", "n": [1, 2.5, true] },
        });
        assert_eq!(shown, expected);
    }
}
