//! Services that are asked about callers: where they are, whom to trust, and what they say.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{Request, Uri};
use serde_json::Value;

use super::claims;
use crate::build::Build;
use crate::client::Client;
use crate::types::Timespan;

const LONGEST_TIMEOUT: Timespan = Timespan::from_secs(60);

/// Checks a URL; `None` after a report of what is wrong with it. `exposed` says what can happen without TLS, where that
/// is worth a warning.
pub(super) fn check_url(key: &str, text: &str, exposed: Option<&str>, build: &mut Build<'_>) -> Option<Uri> {
    let url = text.parse::<Uri>().ok().filter(|url| url.host().is_some_and(|host| !host.is_empty()));
    let user = |url: &Uri| url.authority().is_some_and(|authority| authority.as_str().contains('@'));
    match url.filter(|url| matches!(url.scheme_str(), Some("https" | "http")) && !user(url)) {
        Some(url) => {
            let host = url.host().unwrap_or_default();
            let on_the_way =
                url.scheme_str() == Some("http") && !matches!(host, "localhost" | "[::1]") && !host.starts_with("127.");
            if let Some(exposed) = exposed.filter(|_| on_the_way) {
                build.warning(key, exposed).help("use https");
            }
            Some(url)
        }
        None => {
            build.error(key, format!("`{text}` is not a URL with https"));
            None
        }
    }
}

/// A client for a service that may need `longest` for an answer of `largest` bytes. `ca` is a file, at `key`, with who
/// may vouch for it. `None` after a report of what is wrong with that.
pub(super) fn client(
    key: &str,
    ca: Option<&Path>,
    longest: Duration,
    largest: usize,
    build: &mut Build<'_>,
) -> Option<Client> {
    let roots = match ca {
        Some(path) => Some(build.certificates(key, path)?.into_iter().map(|der| der.to_vec()).collect::<Vec<_>>()),
        None => None,
    };
    Some(Client::new(roots.as_deref(), longest, largest))
}

/// Checks how long a service may take while a request waits.
pub(super) fn check_timeout(key: &str, timeout: Timespan, build: &mut Build<'_>) {
    if timeout == Timespan::from_secs(0) || timeout > LONGEST_TIMEOUT {
        build.error(key, format!("requests wait for the answer: more than nothing, and at most {LONGEST_TIMEOUT}"));
    }
}

/// Reads what is at a URL.
///
/// # Errors
/// It cannot be had, in words.
pub(super) async fn read(client: &Client, url: &str) -> Result<Bytes, String> {
    let request = Request::get(url).header(ACCEPT, "application/json").body(Bytes::new());
    let request = request.map_err(|_| "the provider names a URL that is none".to_owned())?;
    let answer = client.exchange(request).await.map_err(|error| format!("{url}: {error}"))?;
    match answer.status().as_u16() {
        200 => Ok(answer.into_body()),
        status => Err(format!("{url}: the status {status}")),
    }
}

/// The URL that the metadata of an issuer has under a name (OpenID Connect Discovery 1.0).
///
/// # Errors
/// There is none, in words.
pub(super) async fn discover(client: &Client, issuer: &str, name: &str) -> Result<String, String> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let metadata = read(client, &url).await?;
    let metadata =
        claims::object(&metadata).map_err(|error| format!("{url} is not the metadata of a provider: {error}"))?;
    if metadata.get("issuer").and_then(Value::as_str) != Some(issuer) {
        return Err(format!("{url} is the metadata of another issuer"));
    }
    let found = metadata.get(name).and_then(Value::as_str);
    let found = found.ok_or_else(|| format!("{url} is not the metadata of a provider: it lacks `{name}`"))?;
    // Who serves the metadata over TLS does not get to choose a way without it.
    if issuer.starts_with("https:") && !found.starts_with("https:") {
        return Err(format!("{url} names a `{name}` that is not served by https"));
    }
    Ok(found.to_owned())
}

/// Whether a service fails, for the log: it hears of changes.
#[derive(Default)]
pub(super) struct Health(AtomicBool);

impl Health {
    /// How asking the service of a provider went.
    pub(super) fn note<T>(&self, provider: &str, answer: &Result<T, String>) {
        let failed = answer.is_err();
        if self.0.swap(failed, Ordering::Relaxed) == failed {
            return;
        }
        match answer {
            Ok(_) => log::info!("the service of the provider {provider} answers again"),
            Err(error) => log::warn!("the service of the provider {provider} does not answer: {error}"),
        }
    }
}
