//! An HTTP/2 client, without TLS or over it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Method, Version};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::client::Response;
use super::{DEADLINE, Fields};

/// One HTTP/2 connection to the gateway.
pub struct H2 {
    runtime: Runtime,
    sender: SendRequest<Bytes>,
    scheme: &'static str,
}

impl H2 {
    /// By prior knowledge.
    pub fn plain(address: SocketAddr) -> Self {
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let socket = TcpStream::connect(address).await.expect("the gateway listens");
            Self::handshake(socket).await
        });
        Self { runtime, sender, scheme: "http" }
    }

    /// Over TLS, chosen by ALPN.
    pub fn tls(address: SocketAddr, name: &str, mut config: ClientConfig) -> Self {
        config.alpn_protocols = vec![b"h2".to_vec()];
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let socket = TcpStream::connect(address).await.expect("the gateway listens");
            let name = ServerName::try_from(name.to_owned()).expect("this is a server name");
            let tls = TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("the handshake succeeds");
            assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the gateway chose another protocol");
            Self::handshake(tls).await
        });
        Self { runtime, sender, scheme: "https" }
    }

    async fn handshake(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> SendRequest<Bytes> {
        let (sender, connection) = h2::client::handshake(io).await.expect("the gateway speaks HTTP/2");
        tokio::spawn(async move {
            let _ = connection.await;
        });
        sender
    }

    pub fn get(&mut self, path: &str) -> H2Request<'_> {
        self.request("GET", path)
    }

    pub fn post(&mut self, path: &str) -> H2Request<'_> {
        self.request("POST", path)
    }

    pub fn request(&mut self, method: &str, path: &str) -> H2Request<'_> {
        H2Request {
            client: self,
            method: method.parse().expect("this is a method"),
            authority: "gateway.test".to_owned(),
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: None,
            trailers: None,
        }
    }

    /// A gRPC call: `POST` with a message in its frame.
    pub fn grpc(&mut self, path: &str, message: &[u8]) -> H2Request<'_> {
        self.post(path).header("content-type", "application/grpc").header("te", "trailers").body(grpc_frame(message))
    }
}

/// A message as gRPC frames it: not compressed, its length, itself.
pub fn grpc_frame(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message");
    [&[0][..], &length.to_be_bytes(), message].concat()
}

/// A request in the making.
pub struct H2Request<'c> {
    client: &'c mut H2,
    method: Method,
    authority: String,
    path: String,
    headers: HeaderMap,
    body: Option<Bytes>,
    trailers: Option<HeaderMap>,
}

impl<'c> H2Request<'c> {
    pub fn host(mut self, authority: &str) -> Self {
        self.authority = authority.to_owned();
        self
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("this is a value"));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(Bytes::copy_from_slice(body.as_ref()));
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.trailers.get_or_insert_default().append(name, value.parse().expect("this is a value"));
        self
    }

    /// Sends it and reads the answer.
    #[track_caller]
    pub fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.path);
        self.try_send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// As [`Self::send`], where there may be no answer.
    pub fn try_send(self) -> Result<Response, h2::Error> {
        let (body, trailers) = (self.body.clone(), self.trailers.clone());
        let call = self.begin(body.is_none() && trailers.is_none())?;
        call.complete(body, trailers)
    }

    /// As [`Self::try_send`]; `None` where the gateway has said that it takes no more requests on this connection, or
    /// not this one any more: a client then asks again elsewhere (RFC 9113, section 6.8). One that the gateway took has
    /// an answer.
    pub fn send_unless_closing(self) -> Option<Result<Response, h2::Error>> {
        match self.try_send() {
            Err(error) if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) => None,
            result => Some(result),
        }
    }

    /// Sends the head only; the body follows as the test goes on.
    #[track_caller]
    pub fn open(self) -> Call<'c> {
        self.begin(false).expect("the request can be sent")
    }

    fn begin(self, ends: bool) -> Result<Call<'c>, h2::Error> {
        let uri = format!("{}://{}{}", self.client.scheme, self.authority, self.path);
        let mut request = http::Request::builder().method(self.method).uri(uri).version(Version::HTTP_2);
        *request.headers_mut().expect("the parts are sound") = self.headers;
        let request = request.body(()).expect("the parts are sound");
        let H2 { runtime, sender, .. } = self.client;
        let ready = sender.clone().ready();
        let mut sender = within_deadline(runtime, ready)?;
        let (response, sink) = {
            let _inside = runtime.enter();
            sender.send_request(request, ends)?
        };
        Ok(Call { runtime, sink, response: Some(response), source: None })
    }
}

/// A request under way: both directions, as the test goes on.
pub struct Call<'c> {
    runtime: &'c Runtime,
    sink: SendStream<Bytes>,
    response: Option<h2::client::ResponseFuture>,
    source: Option<RecvStream>,
}

impl Call<'_> {
    fn complete(mut self, body: Option<Bytes>, trailers: Option<HeaderMap>) -> Result<Response, h2::Error> {
        let runtime = self.runtime;
        within_deadline(runtime, async move {
            if let Some(body) = body {
                // A server may answer, and end the stream, before it has read the body.
                let _ = self.sink.send_data(body, trailers.is_none());
            }
            if let Some(trailers) = trailers {
                let _ = self.sink.send_trailers(trailers);
            }
            let mut response = self.head().await?;
            let mut body = self.source.take().expect("the head was read");
            while let Some(data) = body.data().await {
                let data = data?;
                body.flow_control().release_capacity(data.len())?;
                response.body.extend_from_slice(&data);
            }
            response.trailers = fields(&body.trailers().await?.unwrap_or_default());
            Ok(response)
        })
    }

    /// Sends some of the body.
    pub fn write(&mut self, bytes: &[u8]) {
        self.sink.send_data(Bytes::copy_from_slice(bytes), false).expect("the stream takes data");
    }

    /// Ends the body.
    pub fn finish(&mut self) {
        self.sink.send_data(Bytes::new(), true).expect("the stream takes its end");
    }

    /// The head of the response, without a body.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        let runtime = self.runtime;
        within_deadline(runtime, self.head()).expect("an answer comes")
    }

    /// Reads so many bytes of the body.
    #[track_caller]
    pub fn read(&mut self, length: usize) -> Vec<u8> {
        let source = self.source.as_mut().expect("the head was read");
        within_deadline(self.runtime, async {
            let mut bytes = Vec::new();
            while bytes.len() < length {
                let Some(data) = source.data().await.transpose()? else { break };
                source.flow_control().release_capacity(data.len())?;
                bytes.extend_from_slice(&data);
            }
            Ok::<_, h2::Error>(bytes)
        })
        .expect("the body comes")
    }

    /// The trailers after the body.
    #[track_caller]
    pub fn trailers(&mut self) -> Fields {
        let source = self.source.as_mut().expect("the head was read");
        let trailers = within_deadline(self.runtime, async {
            while let Some(data) = source.data().await.transpose()? {
                source.flow_control().release_capacity(data.len())?;
            }
            source.trailers().await
        });
        fields(&trailers.expect("the stream ends well").unwrap_or_default())
    }

    async fn head(&mut self) -> Result<Response, h2::Error> {
        let response = self.response.take().expect("the head is read once").await?;
        let (parts, body) = response.into_parts();
        self.source = Some(body);
        Ok(Response { status: parts.status.as_u16(), headers: fields(&parts.headers), ..Response::default() })
    }
}

fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map {
        fields.add(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    fields
}

#[track_caller]
fn within_deadline<T>(runtime: &Runtime, work: impl Future<Output = T>) -> T {
    match runtime.block_on(async { timeout(DEADLINE + Duration::from_secs(1), work).await }) {
        Ok(done) => done,
        Err(_) => panic!("waited {DEADLINE:?} in vain for HTTP/2"),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime can be made")
}
