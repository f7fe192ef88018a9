//! `portcullis demo`: four small services, the gateway in front of them, and requests to try, which are those of the
//! tour in the book.

mod id;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;
use serde_json::json;

use self::id::Id;
use super::compile;
use super::run::Started;
use crate::config::Loaded;
use crate::facts::Connection;
use crate::server::handover::Inherited;
use crate::server::listener::ListenerSpec;
use crate::server::{self, Edge, Refused};

const CONFIG: &str = include_str!("../../conf/demo.toml");

const TOUR: &str = include_str!("../../docs/src/tour.md");

const SERVICES: [(&str, u16); 4] = [("users", 9081), ("payments", 9082), ("catalog", 9083), ("id", 9084)];
/// What is kept of a body.
const LARGEST_BODY: usize = 64 << 10;

/// Runs until a signal.
pub(super) fn run() -> Result<(), String> {
    let loaded = Loaded::from_text("conf/demo.toml", CONFIG);
    let (plan, diagnostics) = compile(&loaded);
    let plan = plan.ok_or_else(|| diagnostics.to_string())?;
    let id = Arc::new(Id::new()?);
    let mut services = Vec::new();
    for (name, port) in SERVICES {
        let address = server::listener::Address::Inet(([127, 0, 0, 1], port).into());
        let spec = Arc::new(ListenerSpec::plain(name, address));
        let bound = server::bind(&[spec], 1, &mut Inherited::default())
            .map_err(|errors| format!("error: {}", errors.join("\n")))?;
        let id = (name == "id").then(|| id.clone());
        let started = bound
            .run(move || (HttpServer::new_app(Service { name, id: id.clone() }), None), Arc::new(NoEdge))
            .map_err(|error| format!("error: cannot start the service {name}: {error}"))?;
        services.push(started);
    }
    let mut notes = vec![
        String::new(),
        "The gateway is in front of four services. Try, in another terminal:".to_owned(),
        String::new(),
    ];
    notes.extend(TOUR.lines().filter_map(to_try));
    notes.extend([String::new(), "Ctrl-C ends it. The configuration is conf/demo.toml.".to_owned()]);
    let result = Started::new(loaded, plan, None, Inherited::default(), None)?.serve(None, &notes);
    services.into_iter().for_each(|service| service.drain(Duration::ZERO, Duration::ZERO));
    result
}

/// What a line of the tour gives to print: its headings, and the commands below them.
fn to_try(line: &str) -> Option<String> {
    let heading = line.strip_prefix("## ").map(|heading| format!("# {heading}"));
    heading.or_else(|| line.strip_prefix("$ ").map(|command| format!("  {command}")))
}

/// A service.
struct Service {
    name: &'static str,
    /// The provider of identities, which is one of them.
    id: Option<Arc<Id>>,
}

/// What a service answers.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    fn of_type(content_type: &'static str, body: String) -> Self {
        Self { status: StatusCode::OK, content_type, headers: Vec::new(), body }
    }

    fn text(body: String) -> Self {
        Self::of_type("text/plain", body)
    }

    fn json(body: serde_json::Value) -> Self {
        Self::of_type("application/json", format!("{body}\n"))
    }
}

impl Service {
    async fn answer(&self, request: &RequestHeader, body: &[u8]) -> Answer {
        if let Some(answer) = self.id.as_ref().and_then(|id| id.answer(request, body)) {
            return answer;
        }
        match (self.name, request.uri.path()) {
            (_, "/slow") => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                Answer::json(json!({ "late": true }))
            }
            (_, "/fail") => {
                Answer { status: StatusCode::INTERNAL_SERVER_ERROR, ..Answer::json(json!({ "error": "it broke" })) }
            }
            (_, "/healthz") => Answer::text("ok\n".to_owned()),
            (_, "/echo") => {
                let field =
                    |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}\n", value.to_str().unwrap_or("?"));
                Answer::text(request.headers.iter().map(field).collect())
            }
            ("catalog", "/catalog/items.xml") => {
                let xml = "<items><item id=\"1\"><name>Lantern</name></item><item id=\"2\"><name>Rope</name></item></items>\n";
                Answer::of_type("application/xml", xml.to_owned())
            }
            (name, path) => match path.strip_prefix("/v1/users/") {
                Some(id) => Answer::json(json!({ "id": id, "name": "Ada Lovelace", "email": "ada@example.com" })),
                None => Answer::json(json!({ "service": name, "path": path })),
            },
        }
    }
}

#[async_trait]
impl ServeHttp for Service {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let mut body = Vec::new();
        while let Ok(Some(part)) = session.read_request_body().await {
            if body.len() + part.len() <= LARGEST_BODY {
                body.extend_from_slice(&part);
            }
        }
        let Answer { status, content_type, headers, body } = self.answer(session.req_header(), &body).await;
        let mut response = Response::new(body.into_bytes());
        *response.status_mut() = status;
        let length = response.body().len();
        let fields = response.headers_mut();
        fields.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        fields.insert(http::header::CONTENT_LENGTH, length.into());
        fields.insert("x-powered-by", HeaderValue::from_static("demo"));
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                fields.insert(name, value);
            }
        }
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
