//! `[admin]`: what an operator and a load balancer ask of the gateway itself.
//!
//! ```toml
//! [admin]
//! address = "127.0.0.1:9900"      # loopback or a Unix socket
//! ```
//!
//! `GET /health` is 200 while the process lives. `GET /ready` is 200 while it takes traffic and 503 while it drains.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use http::{Method, Response, StatusCode};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;

/// The admin interface.
pub struct Admin {
    draining: Arc<AtomicBool>,
}

impl Admin {
    /// An interface that says so while `draining` is set.
    pub fn new(draining: Arc<AtomicBool>) -> Self {
        Self { draining }
    }

    fn answer(&self, method: &Method, path: &str) -> (StatusCode, &'static str) {
        match path {
            "/health" | "/ready" if !matches!(*method, Method::GET | Method::HEAD) => {
                (StatusCode::METHOD_NOT_ALLOWED, "{\"status\":\"method not allowed\"}\n")
            }
            "/health" => (StatusCode::OK, "{\"status\":\"ok\"}\n"),
            "/ready" if self.draining.load(Ordering::Relaxed) => {
                (StatusCode::SERVICE_UNAVAILABLE, "{\"status\":\"draining\"}\n")
            }
            "/ready" => (StatusCode::OK, "{\"status\":\"ready\"}\n"),
            _ => (StatusCode::NOT_FOUND, "{\"status\":\"not found\"}\n"),
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let request = session.req_header();
        let (status, body) = self.answer(&request.method, request.uri.path());
        let mut response = Response::new(body.as_bytes().to_vec());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        headers.insert(http::header::CONTENT_LENGTH, body.len().into());
        response
    }
}
