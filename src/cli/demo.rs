//! `portcullis demo`: three small services, the gateway in front of them, and requests to try.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{Response, StatusCode};
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;

use super::compile;
use super::run::Started;
use crate::config::Loaded;
use crate::facts::Connection;
use crate::server::handover::Inherited;
use crate::server::listener::ListenerSpec;
use crate::server::{self, Edge, Refused};

const CONFIG: &str = include_str!("../../conf/demo.toml");

const SERVICES: [(&str, u16); 3] = [("users", 9081), ("payments", 9082), ("catalog", 9083)];

/// Runs until a signal.
pub(super) fn run() -> Result<(), String> {
    let loaded = Loaded::from_text("conf/demo.toml", CONFIG);
    let (plan, diagnostics) = compile(&loaded);
    let plan = plan.ok_or_else(|| diagnostics.to_string())?;
    let mut services = Vec::new();
    for (name, port) in SERVICES {
        let address = server::listener::Address::Inet(([127, 0, 0, 1], port).into());
        let spec = Arc::new(ListenerSpec::plain(name, address));
        let bound = server::bind(&[spec], 1, &mut Inherited::default())
            .map_err(|errors| format!("error: {}", errors.join("\n")))?;
        let started = bound
            .run(move || (HttpServer::new_app(Service { name }), None), Arc::new(NoEdge))
            .map_err(|error| format!("error: cannot start the service {name}: {error}"))?;
        services.push(started);
    }
    let notes: Vec<String> = [
        "",
        "The gateway is in front of three services. Try, in another terminal:",
        "",
        "  curl -i http://127.0.0.1:8080/users/7              # a route with a capture, rewritten to /v1/users/7",
        "  curl -i http://127.0.0.1:8080/payments             # two servers behind one route",
        "  curl -i http://127.0.0.1:8080/catalog/items.xml    # an XML answer, streamed through",
        "  curl -i http://127.0.0.1:8080/items                # from the cache from the second on: Cache-Status",
        "  curl -i http://127.0.0.1:8080/slow                 # an upstream that is too slow: 504",
        "  curl -i http://127.0.0.1:8080/flaky                # an upstream that fails: passed on",
        "  curl -i http://127.0.0.1:8080/old/7                # a redirect",
        "  curl -i http://127.0.0.1:8080/hello                # an answer without any upstream",
        "  curl -i http://127.0.0.1:8080/partners             # who asks? 401",
        "  curl -H 'X-Api-Key: pcl_OyOMDGNX4Mlf_97HQRhFkHa_m05lh1gllGk7J_R6wX0' http://127.0.0.1:8080/partners",
        "  curl -i http://127.0.0.1:8080/limited              # at the third within a second: 429",
        "  curl -i http://127.0.0.1:8080/release              # nine of ten go to one upstream, and stay there",
        "  curl -i http://127.0.0.1:8080/nowhere              # no route: a problem document",
        "  curl -i -X DELETE http://127.0.0.1:8080/users/7    # the wrong method: 405 with Allow",
        "  curl --http2-prior-knowledge -i http://127.0.0.1:8080/users/7",
        "  curl http://127.0.0.1:9900/ready                   # the admin interface",
        "  curl http://127.0.0.1:9900/metrics",
        "",
        "Ctrl-C ends it. The configuration is conf/demo.toml.",
    ]
    .map(str::to_owned)
    .into();
    let result = Started::new(loaded, plan, None, Inherited::default(), None)?.serve(None, &notes);
    services.into_iter().for_each(|service| service.drain(Duration::ZERO, Duration::ZERO));
    result
}

struct Service {
    name: &'static str,
}

#[async_trait]
impl ServeHttp for Service {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let path = session.req_header().uri.path().to_owned();
        let id = path.rsplit('/').next().unwrap_or("");
        let (status, content_type, body) = match (self.name, path.as_str()) {
            (_, "/slow") => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                (StatusCode::OK, "application/json", "{\"late\":true}\n".to_owned())
            }
            (_, "/fail") => {
                (StatusCode::INTERNAL_SERVER_ERROR, "application/json", "{\"error\":\"it broke\"}\n".to_owned())
            }
            (_, "/healthz") => (StatusCode::OK, "text/plain", "ok\n".to_owned()),
            ("users", path) if path.starts_with("/v1/users/") => {
                let user = serde_json::json!({ "id": id, "name": "Ada Lovelace", "email": "ada@example.com" });
                (StatusCode::OK, "application/json", format!("{user}\n"))
            }
            ("catalog", "/catalog/items.xml") => {
                let xml = "<items><item id=\"1\"><name>Lantern</name></item><item id=\"2\"><name>Rope</name></item></items>\n";
                (StatusCode::OK, "application/xml", xml.to_owned())
            }
            (name, path) => {
                let answer = serde_json::json!({ "service": name, "path": path });
                (StatusCode::OK, "application/json", format!("{answer}\n"))
            }
        };
        let mut response = Response::new(body.into_bytes());
        *response.status_mut() = status;
        let length = response.body().len();
        let headers = response.headers_mut();
        headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
        headers.insert(http::header::CONTENT_LENGTH, length.into());
        headers.insert("x-powered-by", http::HeaderValue::from_static("demo"));
        response
    }
}

/// The services log nothing.
struct NoEdge;

impl Edge for NoEdge {
    fn refuse(&self, _: &Connection, _: Refused, _: &[u8]) -> Vec<u8> {
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
    }
}
