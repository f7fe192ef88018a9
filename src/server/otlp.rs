//! Sends spans to a collector (OTLP over HTTP), in the background and in batches. A collector that is slow or gone costs
//! spans, which are counted, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{Request, Uri};
use prometheus::IntCounter;
use tokio::sync::mpsc;

use crate::client::Client;
use crate::telemetry::trace::{Span, export};

/// Spans in one request.
const MOST: usize = 512;
/// How often the first span of a batch looks whether there are enough others, and how many times it does. Nobody is
/// woken by those that come meanwhile: that would cost each of them more than all else that is done for it.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 20;
/// How long a collector may take.
const LONGEST: Duration = Duration::from_secs(10);
/// Bytes of its answer, which says at most how many spans it did not want.
const LARGEST: usize = 64 << 10;

/// Where spans go.
pub struct Collector {
    /// Of the collector, for the log.
    uri: Uri,
    /// Of its traces.
    target: String,
    client: Client,
    dropped: IntCounter,
}

impl Collector {
    /// The collector at an address that has `http` or `https` and a host.
    pub fn new(uri: Uri, dropped: IntCounter) -> Self {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let path = uri.path().trim_end_matches('/');
        let target = format!("{}://{authority}{path}/v1/traces", uri.scheme_str().unwrap_or_default());
        Self { uri, target, client: Client::new(None, LONGEST, LARGEST), dropped }
    }

    /// Sends what comes until nobody can send any more.
    pub async fn run(self, mut spans: mpsc::Receiver<Box<Span>>) {
        let mut fails = false;
        loop {
            let mut batch = Vec::new();
            if spans.recv_many(&mut batch, MOST).await == 0 {
                return;
            }
            for _ in 0..LOOKS {
                if batch.len() + spans.len() >= MOST || spans.is_closed() {
                    break;
                }
                tokio::time::sleep(LOOK).await;
            }
            let room = MOST - batch.len();
            if room > 0 && !spans.is_empty() {
                spans.recv_many(&mut batch, room).await;
            }
            match self.send(export(&batch)).await {
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

    async fn send(&self, body: Vec<u8>) -> Result<(), String> {
        let request = Request::post(&self.target)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, "portcullis")
            .body(Bytes::from(body))
            .map_err(|error| error.to_string())?;
        match self.client.exchange(request).await?.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("the status {status}")),
        }
    }
}
