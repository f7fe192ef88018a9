//! `[admin]`: what an operator and a load balancer ask of the gateway itself.
//!
//! ```toml
//! [admin]
//! address = "127.0.0.1:9900"            # loopback or a Unix socket
//! token   = { env = "ADMIN_TOKEN" }     # for everything but /health and /ready
//! ```
//!
//! `GET /health` is 200 while the process lives. `GET /ready` is 200 while it takes traffic and 503 while it drains.
//! `GET /metrics` is what Prometheus asks for. `GET /upstreams`, `GET /upstreams/NAME`, `GET /stores` and `GET /routes` show
//! what is there, and `PUT` or `DELETE` of `/upstreams/NAME/servers/ADDRESS/drain` starts or ends the draining of a server.
//!
//! `POST /reload` loads the configuration again and answers with a receipt, or with 422 and every mistake.
//! `POST /apis/NAME/reload` reads nothing but the file of that API again.
//! `POST /upgrade` has a new process take over and answers with a receipt, or with 500 and the reason.
//!
//! `GET /config` shows the configuration, with stars for its secrets.
//!
//! `GET /caches` shows what the caches hold, and `POST /caches/NAME/purge` removes what its body names.
//!
//! `POST /explain` says what the gateway would do with the request that its body describes.
//!
//! Every request sees the configuration of its moment. What is drained here lasts until its upstream is configured anew; the
//! file's `drain` is what lasts longer.

mod access;
mod show;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Method, Response, StatusCode, Version};
use percent_encoding::percent_decode_str;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;
use serde::Deserialize;

use crate::cache::{Purge, Resource};
use crate::gateway::Gateway;
use crate::reply::{Problem, Reply};
use crate::upstream::Pool;

pub use access::Access;

/// The largest body that is read, whether the request has a use for it or not.
const LARGEST_BODY: usize = 64 << 10;
/// The text format of Prometheus.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// How long the body may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a reload fails.
const UNUSABLE: (StatusCode, &str, &str) =
    (StatusCode::UNPROCESSABLE_ENTITY, "configuration", "The configuration cannot be used");
/// How the configuration is not shown.
const NOT_SHOWN: (StatusCode, &str, &str) =
    (StatusCode::INTERNAL_SERVER_ERROR, "configuration", "The configuration cannot be shown");
/// How an upgrade fails.
const NOT_UPGRADED: (StatusCode, &str, &str) =
    (StatusCode::INTERNAL_SERVER_ERROR, "upgrade", "No other process takes over");

/// The admin interface.
pub struct Admin {
    gateway: Arc<ArcSwap<Gateway>>,
    draining: Arc<AtomicBool>,
    access: Access,
    control: Arc<dyn Control>,
}

/// What can be done to the gateway as a whole.
pub trait Control: Send + Sync {
    /// Loads the configuration again, or of it the file of one API; gives the receipt as JSON, or every mistake in words.
    ///
    /// # Errors
    /// The configuration cannot be used; then nothing has changed.
    fn reload(&self, api: Option<&str>) -> Result<Vec<u8>, String>;

    /// Has a new process take over; gives the receipt as JSON, or the reason in words.
    ///
    /// # Errors
    /// It did not; then nothing has changed.
    fn upgrade(&self) -> Result<Vec<u8>, String>;

    /// The metrics in the text format of Prometheus.
    fn metrics(&self) -> String;

    /// Says as JSON what the gateway would do with a request, which the question describes as JSON.
    ///
    /// # Errors
    /// What is wrong with the question.
    fn explain(&self, question: &[u8]) -> Result<Vec<u8>, String>;

    /// The configuration at work as JSON, without its secrets.
    ///
    /// # Errors
    /// What is secret cannot be told, in words.
    fn config(&self) -> Result<Vec<u8>, String>;

    /// Every route as JSON, with its policies, without their secrets.
    ///
    /// # Errors
    /// It cannot be written as JSON, in words.
    fn routes(&self) -> Result<Vec<u8>, String>;
}

impl Admin {
    /// An interface to the gateway that is current when it is asked, and that says so while `draining` is set.
    pub fn new(
        gateway: Arc<ArcSwap<Gateway>>,
        draining: Arc<AtomicBool>,
        access: Access,
        control: Arc<dyn Control>,
    ) -> Self {
        Self { gateway, draining, access, control }
    }

    async fn reply(&self, session: &mut ServerSession) -> Result<Reply, Reply> {
        self.access.check_host(&session.req_header().headers)?;
        let body = read_body(session).await?;
        let request = session.req_header();
        let path = request.uri.path();
        if !["/health", "/ready"].contains(&path) {
            self.access.check_token(&request.headers)?;
        }
        match path {
            "/reload" => self.control(request, UNUSABLE, |control| control.reload(None)).await,
            "/upgrade" => self.control(request, NOT_UPGRADED, |control| control.upgrade()).await,
            "/explain" => self.explain(request, body).await,
            "/config" => {
                check_read(request)?;
                self.blocking(NOT_SHOWN, |control| control.config()).await
            }
            "/routes" => {
                check_read(request)?;
                self.blocking(NOT_SHOWN, |control| control.routes()).await
            }
            _ => {
                if let Some(cache) = within(path, "/caches/", "/purge") {
                    purge(&self.gateway.load(), request, &cache, &body)
                } else if let Some(api) = within(path, "/apis/", "/reload") {
                    self.control(request, UNUSABLE, move |control| control.reload(Some(&api))).await
                } else {
                    self.answer(request, path)
                }
            }
        }
    }

    /// What changes the gateway as a whole, and takes a while.
    async fn control(
        &self,
        request: &RequestHeader,
        failed: (StatusCode, &'static str, &'static str),
        act: impl FnOnce(&dyn Control) -> Result<Vec<u8>, String> + Send + 'static,
    ) -> Result<Reply, Reply> {
        if request.method != Method::POST {
            return Err(Reply::method_not_allowed("this is begun by POST").allow("POST"));
        }
        self.blocking(failed, act).await
    }

    async fn blocking(
        &self,
        failed: (StatusCode, &'static str, &'static str),
        act: impl FnOnce(&dyn Control) -> Result<Vec<u8>, String> + Send + 'static,
    ) -> Result<Reply, Reply> {
        let control = self.control.clone();
        match tokio::task::spawn_blocking(move || act(&*control)).await {
            Ok(Ok(receipt)) => Ok(json(StatusCode::OK, receipt)),
            Ok(Err(why)) => Err(problem(failed.0, failed.1, failed.2, why)),
            Err(error) => Err(Reply::internal("the gateway failed at it").because(error.to_string())),
        }
    }

    async fn explain(&self, request: &RequestHeader, question: Vec<u8>) -> Result<Reply, Reply> {
        if request.method != Method::POST {
            return Err(Reply::method_not_allowed("what is to be explained is sent by POST").allow("POST"));
        }
        let control = self.control.clone();
        match tokio::task::spawn_blocking(move || control.explain(&question)).await {
            Ok(Ok(explanation)) => Ok(json(StatusCode::OK, explanation)),
            Ok(Err(wrong)) => Err(Reply::bad_request(wrong)),
            Err(error) => Err(Reply::internal("the explanation failed").because(error.to_string())),
        }
    }

    fn answer(&self, request: &RequestHeader, path: &str) -> Result<Reply, Reply> {
        let gateway = self.gateway.load();
        match path {
            "/health" => get(request, || (StatusCode::OK, b"{\"status\":\"ok\"}\n".to_vec())),
            "/ready" => get(request, || match self.draining.load(Ordering::Relaxed) {
                true => (StatusCode::SERVICE_UNAVAILABLE, b"{\"status\":\"draining\"}\n".to_vec()),
                false => (StatusCode::OK, b"{\"status\":\"ready\"}\n".to_vec()),
            }),
            "/metrics" => read(request, || of_type(StatusCode::OK, METRICS, self.control.metrics().into_bytes())),
            "/upstreams" => get(request, || (StatusCode::OK, show::pools(&gateway))),
            "/stores" => get(request, || (StatusCode::OK, show::stores(&gateway))),
            "/caches" => get(request, || (StatusCode::OK, show::caches(&gateway))),
            _ => match path.strip_prefix("/upstreams/") {
                Some(rest) => upstream(&gateway, request, rest),
                None => Err(not_found("there is nothing here".to_owned())),
            },
        }
    }
}

/// The name in a path, between what is before it and behind it.
fn within(path: &str, before: &str, behind: &str) -> Option<String> {
    let name = path.strip_prefix(before)?.strip_suffix(behind)?;
    Some(percent_decode_str(name).decode_utf8_lossy().into_owned())
}

/// `NAME` and `NAME/servers/ADDRESS/drain`.
fn upstream(gateway: &Gateway, request: &RequestHeader, rest: &str) -> Result<Reply, Reply> {
    let (name, below) = rest.split_once('/').map_or((rest, None), |(name, below)| (name, Some(below)));
    let name = percent_decode_str(name).decode_utf8_lossy();
    let find = || {
        let pool = gateway.pools().find(|(other, _)| *other == name).map(|(_, pool)| pool);
        pool.ok_or_else(|| not_found(format!("there is no upstream `{name}`")))
    };
    let Some(below) = below else {
        let pool = find()?;
        return get(request, || (StatusCode::OK, show::pool(pool)));
    };
    let Some(address) = below.strip_prefix("servers/").and_then(|rest| rest.strip_suffix("/drain")) else {
        return Err(not_found("there is nothing here".to_owned()));
    };
    let drain = match request.method {
        Method::PUT => true,
        Method::DELETE => false,
        _ => return Err(Reply::method_not_allowed("a drain is begun by PUT and ended by DELETE").allow("PUT, DELETE")),
    };
    set_drain(find()?, &percent_decode_str(address).decode_utf8_lossy(), drain)
}

fn set_drain(pool: &Pool, address: &str, drain: bool) -> Result<Reply, Reply> {
    if !pool.drain(address, drain) {
        return Err(not_found(format!("the upstream `{}` has no server `{address}`", pool.name())));
    }
    let what = if drain { "is drained" } else { "is drained no longer" };
    log::info!("the server {address} of the upstream {} {what}", pool.name());
    Ok(Reply::new(StatusCode::NO_CONTENT))
}

/// What is to be purged, as it is written: one of these.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum PurgeOrder {
    Url(String),
    Prefix(String),
    Tag(String),
    All(bool),
}

fn purge(gateway: &Gateway, request: &RequestHeader, name: &str, body: &[u8]) -> Result<Reply, Reply> {
    const WAYS: &str = "send one of { \"url\": \"https://host/path\" }, { \"prefix\": \"host/path\" }, { \"tag\": \"name\" }, \
                        { \"all\": true }";
    if request.method != Method::POST {
        return Err(Reply::method_not_allowed("a purge is begun by POST").allow("POST"));
    }
    let zone = gateway.zones().named(name).ok_or_else(|| not_found(format!("there is no cache `{name}`")))?;
    let order = serde_json::from_slice(body).map_err(|error| Reply::bad_request(format!("{error}: {WAYS}")))?;
    let resource = |text: &str| {
        Resource::parse(text, None).ok_or_else(|| Reply::bad_request(format!("`{text}` is no URL with a host: {WAYS}")))
    };
    let purge = match order {
        PurgeOrder::Url(url) => Purge::Url(resource(&url)?),
        PurgeOrder::Prefix(prefix) => Purge::Prefix(resource(&prefix)?),
        PurgeOrder::Tag(tag) => Purge::Tag(tag.into()),
        PurgeOrder::All(true) => Purge::All,
        PurgeOrder::All(false) => return Err(Reply::bad_request(WAYS)),
    };
    let purged = zone.store.purge(&purge);
    log::info!("{purged} answers were purged from the cache {name}");
    Ok(json(StatusCode::OK, format!("{{\"purged\":{purged}}}\n").into_bytes()))
}

fn get(request: &RequestHeader, body: impl FnOnce() -> (StatusCode, Vec<u8>)) -> Result<Reply, Reply> {
    read(request, || {
        let (status, body) = body();
        json(status, body)
    })
}

fn read(request: &RequestHeader, reply: impl FnOnce() -> Reply) -> Result<Reply, Reply> {
    check_read(request)?;
    Ok(reply())
}

fn check_read(request: &RequestHeader) -> Result<(), Reply> {
    match request.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Reply::method_not_allowed("this can be read only").allow("GET, HEAD")),
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Reply {
    of_type(status, "application/json", body)
}

fn of_type(status: StatusCode, content_type: &'static str, body: Vec<u8>) -> Reply {
    let mut reply = Reply::new(status).with(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.body = Bytes::from(body);
    reply
}

fn not_found(detail: String) -> Reply {
    problem(StatusCode::NOT_FOUND, "not-found", "There is no such thing", detail)
}

/// A problem that only this interface has.
fn problem(
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: impl Into<std::borrow::Cow<'static, str>>,
) -> Reply {
    let problem = Problem { kind, title, detail: detail.into(), members: serde_json::Map::new(), cause: None };
    Reply { problem: Some(Arc::new(problem)), ..Reply::new(status) }
}

/// Reads what there is of a body, so that the connection can have another request.
async fn read_body(session: &mut ServerSession) -> Result<Vec<u8>, Reply> {
    let mut body = Vec::new();
    if session.is_body_empty() {
        return Ok(body);
    }
    let too_large = || Reply::body_too_large("no request here has a use for such a body").closing();
    let length = session.req_header().headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > LARGEST_BODY as u64) {
        return Err(too_large());
    }
    let read = async {
        if session.req_header().headers.contains_key(EXPECT) {
            let _ = session.write_continue_response().await;
        }
        loop {
            match session.read_request_body().await {
                Ok(None) => return Ok(body),
                Ok(Some(part)) if body.len() + part.len() > LARGEST_BODY => return Err(too_large()),
                Ok(Some(part)) => body.extend_from_slice(&part),
                Err(_) => return Err(Reply::bad_request("the body is malformed").closing()),
            }
        }
    };
    let late = || Err(Reply::request_timeout("the body did not arrive in time").closing());
    tokio::time::timeout(PATIENCE, read).await.unwrap_or_else(|_| late())
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let reply = self.reply(session).await.unwrap_or_else(|refusal| refusal);
        // A refusal may come before the body was read: what follows on the connection is not a request.
        if reply.close || !session.is_body_done() || session.req_header().version < Version::HTTP_11 {
            session.set_keepalive(None);
        }
        let (head, body) = reply.render(false);
        let shown = session.req_header().method != Method::HEAD;
        let mut response = Response::new(if shown { body.to_vec() } else { Vec::new() });
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers.clone();
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
