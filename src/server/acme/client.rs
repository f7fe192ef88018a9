//! HTTPS to a CA: the gateway's own client as the ACME library wants it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};

/// How long an exchange may take.
const LONGEST: Duration = Duration::from_secs(30);
/// A chain of certificates has some kilobytes.
const LARGEST: usize = 1 << 20;

/// Asks the servers of one CA.
#[derive(Clone)]
pub(super) struct Client(Arc<crate::client::Client>);

impl Client {
    /// One that trusts these authorities, in readable DER, or those of the system.
    pub(super) fn new(roots: Option<&[Vec<u8>]>) -> Self {
        Self(Arc::new(crate::client::Client::new(roots, LONGEST, LARGEST)))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move {
            let uri = request.uri().clone();
            exchange(&client, request).await.map_err(|error| Error::Other(format!("{uri}: {error}").into()))
        })
    }
}

async fn exchange(
    client: &crate::client::Client,
    request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, String> {
    if request.uri().scheme_str() != Some("https") {
        return Err("not a URL with https".to_owned());
    }
    let (head, body) = request.into_parts();
    // The type lets its body be read as that of a response only.
    let body = BytesResponse::from(Response::new(body)).body.into_bytes().await.map_err(|error| error.to_string())?;
    let (parts, body) = client.exchange(Request::from_parts(head, body)).await?.into_parts();
    // What is no problem document would be reported as JSON that cannot be read.
    if parts.status.as_u16() >= 400 && !body.starts_with(b"{") {
        return Err(format!("the status {}", parts.status));
    }
    Ok(BytesResponse { parts, body: Box::new(body) })
}
