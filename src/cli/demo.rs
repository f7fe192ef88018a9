//! `portcullis demo`: four small services, the gateway in front of them, and requests to try, which are those of the
//! tour in the book.

mod id;

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_http::{RequestHeader, ResponseHeader};
use serde_json::json;

use self::id::Id;
use super::run::Started;
use super::{Plan, compile};
use crate::config::Loaded;
use crate::facts::Connection;
use crate::server::handover::Inherited;
use crate::server::listener::ListenerSpec;
use crate::server::{self, Edge, Refused};

const CONFIG: &str = include_str!("../../conf/demo.toml");

/// The file that `CONFIG` names, and what is in it.
const DESCRIPTORS: (&str, &[u8]) = ("examples/shop.binpb", include_bytes!("../../conf/examples/shop.binpb"));

const TOUR: &str = include_str!("../../docs/src/tour.md");

const SERVICES: [(&str, u16); 4] = [("users", 9081), ("payments", 9082), ("catalog", 9083), ("id", 9084)];
/// What is kept of a body.
const LARGEST_BODY: usize = 64 << 10;

const GRPC: &str = "application/grpc";

const ITEMS: &str =
    "<items><item id=\"1\"><name>Lantern</name></item><item id=\"2\"><name>Rope</name></item></items>\n";
/// What the service of SOAP answers.
const INVOICE: &str = "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body>\
    <GetInvoiceResponse xmlns=\"urn:invoices\"><invoice><total>12.50</total><line>Rope</line></invoice></GetInvoiceResponse>\
    </s:Body></s:Envelope>\n";
/// `theme` and `books` of a `shop.v1.Shelf`, in protobuf.
const SHELF: &[u8] = b"\x12\x04maps\x18\x07";

/// Runs until a signal.
pub(super) fn run() -> Result<(), String> {
    let (loaded, plan) = compiled()?;
    let id = Arc::new(Id::new()?);
    let mut services = Vec::new();
    for (name, port) in SERVICES {
        let address = server::listener::Address::Inet(([127, 0, 0, 1], port).into());
        let spec = Arc::new(ListenerSpec::plain(name, address, true));
        let bound = server::bind(&[spec], 1, &mut Inherited::default())
            .map_err(|errors| format!("error: {}", errors.join("\n")))?;
        let id = (name == "id").then(|| id.clone());
        let started = bound
            .run(move || (Service { name, id: id.clone() }, None), Arc::new(NoEdge))
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

/// The configuration. The file that it names is a temporary one, for the demo runs in any folder.
fn compiled() -> Result<(Loaded, Plan), String> {
    let (name, descriptors) = DESCRIPTORS;
    let path = std::env::temp_dir().join(format!("portcullis-demo-{}.binpb", std::process::id()));
    File::create_new(&path)
        .and_then(|mut file| file.write_all(descriptors))
        .map_err(|error| format!("error: cannot write {}: {error}", path.display()))?;
    let loaded = Loaded::from_text("conf/demo.toml", &CONFIG.replace(name, &path.to_string_lossy()));
    let (plan, diagnostics) = compile(&loaded);
    fs::remove_file(&path).map_err(|error| format!("error: cannot remove {}: {error}", path.display()))?;
    Ok((loaded, plan.ok_or_else(|| diagnostics.to_string())?))
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

/// What a service answers; in gRPC, with the status OK in the trailers.
struct Answer {
    status: StatusCode,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
}

impl Answer {
    fn of_type(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, content_type, headers: Vec::new(), body: body.into() }
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
                Answer::text(request.headers.iter().map(field).collect::<String>() + &String::from_utf8_lossy(body))
            }
            ("catalog", "/catalog/items.xml") => Answer::of_type("application/xml", ITEMS),
            ("catalog", "/catalog/all.json") => {
                Answer::json((1..=500).map(|id| json!({ "id": id, "name": "Rope" })).collect())
            }
            ("catalog", "/InvoiceService.asmx") => Answer::of_type("text/xml", INVOICE),
            ("users", "/graphql") => {
                let posts = json!([{ "title": "Notes on the Analytical Engine" }]);
                Answer::json(json!({ "data": { "user": { "name": "Ada Lovelace", "posts": posts } } }))
            }
            // After the frame's head is a GetShelf, which is its name alone. So begins a Shelf.
            ("catalog", "/shop.v1.Shelves/Get") => {
                let shelf = [body.get(5..).unwrap_or_default(), SHELF].concat();
                Answer::of_type(GRPC, [&[0][..], &(shelf.len() as u32).to_be_bytes(), &shelf].concat())
            }
            (name, path) => match path.strip_prefix("/v1/users/") {
                Some(id) => Answer::json(json!({ "id": id, "name": "Ada Lovelace", "email": "ada@example.com" })),
                None => Answer::json(json!({ "service": name, "path": path })),
            },
        }
    }
}

#[async_trait]
impl HttpServerApp for Service {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        session.set_keepalive(Some(60));
        let mut body = Vec::new();
        while let Ok(Some(part)) = session.read_request_body().await {
            if body.len() + part.len() <= LARGEST_BODY {
                body.extend_from_slice(&part);
            }
        }
        let Answer { status, content_type, headers, body } = self.answer(session.req_header(), &body).await;
        let mut head = ResponseHeader::build(status, None).ok()?;
        head.insert_header(CONTENT_TYPE, content_type).ok()?;
        head.insert_header(CONTENT_LENGTH, body.len()).ok()?;
        head.insert_header("X-Powered-By", "demo").ok()?;
        for (name, value) in headers {
            head.insert_header(name, value).ok()?;
        }
        let is_grpc = content_type == GRPC;
        session.write_response_header(Box::new(head)).await.ok()?;
        session.write_response_body(body, !is_grpc).await.ok()?;
        if is_grpc {
            let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
            session.write_response_trailers(HeaderMap::from_iter([status])).await.ok()?;
        }
        let settings = HttpPersistentSettings::for_session(&session);
        Some(ReusedHttpStream::from_reusable_stream(session.finish().await.ok()??, settings))
    }
}

/// The services log nothing.
struct NoEdge;

impl Edge for NoEdge {
    fn refuse(&self, _: &Connection, _: Refused, _: &[u8]) -> Vec<u8> {
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec()
    }
}
