//! Sends spans to a collector (OTLP over HTTP), in the background and in batches. A collector that is slow or gone costs
//! spans, which are counted, and nothing else.

use std::time::Duration;

use http::Uri;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT};
use pingora_core::connectors::http::v1::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::RequestHeader;
use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::telemetry::trace::{Span, export};

/// Spans in one request.
const MOST: usize = 512;
/// How long the first span of a batch waits for others.
const GATHERING: Duration = Duration::from_secs(1);
/// How long a collector may take.
const LONGEST: Duration = Duration::from_secs(10);

/// Where spans go.
pub struct Collector {
    uri: Uri,
    connector: Connector,
    dropped: IntCounter,
}

impl Collector {
    /// The collector at an address that has `http` or `https` and a host.
    pub fn new(uri: Uri, dropped: IntCounter) -> Self {
        Self { uri, connector: Connector::new(None), dropped }
    }

    /// Sends what comes until nobody can send any more.
    pub async fn run(self, mut spans: mpsc::Receiver<Box<Span>>) {
        let mut fails = false;
        loop {
            let mut batch = Vec::new();
            if spans.recv_many(&mut batch, MOST).await == 0 {
                return;
            }
            let more = async { while batch.len() < MOST && spans.recv_many(&mut batch, MOST).await > 0 {} };
            let _ = tokio::time::timeout(GATHERING, more).await;
            let sent = match tokio::time::timeout(LONGEST, self.send(&export(&batch))).await {
                Ok(sent) => sent,
                Err(_) => Err(format!("no answer within {LONGEST:?}")),
            };
            match sent {
                Ok(()) if fails => log::info!("the collector {} takes traces again", self.uri),
                Ok(()) => {}
                Err(error) => {
                    self.dropped.inc_by(batch.len() as u64);
                    if !fails {
                        log::warn!("the collector {} does not take traces: {error}", self.uri);
                    }
                    fails = true;
                    continue;
                }
            }
            fails = false;
        }
    }

    async fn send(&self, body: &[u8]) -> Result<(), String> {
        let host = self.uri.host().unwrap_or_default();
        let tls = self.uri.scheme_str() == Some("https");
        let port = self.uri.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = format!("{}/v1/traces", self.uri.path().trim_end_matches('/'));
        let mut head = RequestHeader::build("POST", path.as_bytes(), None).map_err(text)?;
        let authority = self.uri.authority().map_or(host, |authority| authority.as_str());
        head.insert_header(HOST, authority).map_err(text)?;
        head.insert_header(CONTENT_TYPE, "application/json").map_err(text)?;
        head.insert_header(USER_AGENT, "portcullis").map_err(text)?;
        head.insert_header(CONTENT_LENGTH, body.len()).map_err(text)?;

        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses = tokio::net::lookup_host((host, port)).await.map_err(text)?;
        let address = addresses.next().ok_or("the name has no address")?;
        let mut peer = HttpPeer::new(address, tls, host.to_owned());
        peer.options.alpn = ALPN::H1;
        peer.options.connection_timeout = Some(LONGEST);
        let (mut session, _) = self.connector.get_http_session(&peer).await.map_err(text)?;
        session.write_request_header(Box::new(head)).await.map_err(text)?;
        session.write_body(body).await.map_err(text)?;
        session.finish_body().await.map_err(text)?;
        session.read_response().await.map_err(text)?;
        match session.resp_header().map(|head| head.status) {
            Some(status) if status.is_success() => Ok(()),
            Some(status) => Err(format!("the status {status}")),
            None => Err("no answer".to_owned()),
        }
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
