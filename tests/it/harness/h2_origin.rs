//! An origin that speaks HTTP/2: by prior knowledge, or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use super::{Fields, Journal, Seen};

/// What the origin does about a request, decided by its head.
#[derive(Clone, Debug, Default)]
pub struct H2Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    trailers: Vec<(&'static str, String)>,
    delay: Duration,
    echo: bool,
    reset: bool,
}

impl H2Answer {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    /// A gRPC server's answer: a message, and its status in trailers.
    pub fn grpc(message: &[u8]) -> Self {
        Self::new(200)
            .header("content-type", "application/grpc")
            .body(super::h2_client::grpc_frame(message))
            .trailer("grpc-status", "0")
    }

    /// A gRPC server that sends back every message as it comes.
    pub fn grpc_echo() -> Self {
        Self { echo: true, ..Self::new(200).header("content-type", "application/grpc").trailer("grpc-status", "0") }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    pub fn trailer(mut self, name: &'static str, value: &str) -> Self {
        self.trailers.push((name, value.to_owned()));
        self
    }

    /// Instead of an end, the stream is reset.
    pub fn reset(mut self) -> Self {
        self.reset = true;
        self
    }

    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

type Script = Arc<dyn Fn(&Seen) -> H2Answer + Send + Sync>;

/// An HTTP/2 server whose answers a test writes; it stops when it is dropped.
pub struct H2Origin {
    address: SocketAddr,
    requests: Arc<Journal<Seen>>,
    _stop: oneshot::Sender<()>,
}

impl H2Origin {
    /// Without TLS, by prior knowledge.
    pub fn plain(script: impl Fn(&Seen) -> H2Answer + Send + Sync + 'static) -> Self {
        Self::start(None, Arc::new(script))
    }

    /// Over TLS; the configuration has to offer `h2`.
    pub fn over_tls(config: ServerConfig, script: impl Fn(&Seen) -> H2Answer + Send + Sync + 'static) -> Self {
        Self::start(Some(Arc::new(config).into()), Arc::new(script))
    }

    fn start(tls: Option<TlsAcceptor>, script: Script) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port is free");
        listener.set_nonblocking(true).expect("a socket can be made non-blocking");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(Journal::default());
        let (stop, stopped) = oneshot::channel::<()>();
        let journal = requests.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("the runtime takes the socket");
                tokio::select! {
                    () = accept(&listener, tls, &script, &journal) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, requests, _stop: stop }
    }

    /// `host:port`, for the configuration.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The requests whose bodies were read to the end.
    pub fn requests(&self) -> Vec<Seen> {
        self.requests.all()
    }

    /// The one request that there was.
    #[track_caller]
    pub fn only_request(&self) -> Seen {
        let mut requests = self.requests.wait_for("a request", |all| (!all.is_empty()).then(|| all.to_vec()));
        assert_eq!(requests.len(), 1, "the origin saw {requests:#?}");
        requests.remove(0)
    }
}

async fn accept(listener: &TcpListener, tls: Option<TlsAcceptor>, script: &Script, journal: &Arc<Journal<Seen>>) {
    let mut connection = 0;
    while let Ok((socket, _)) = listener.accept().await {
        let (tls, script, journal) = (tls.clone(), script.clone(), journal.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(socket, connection, script, journal).await,
                Some(acceptor) => {
                    if let Ok(socket) = acceptor.accept(socket).await {
                        serve(socket, connection, script, journal).await;
                    }
                }
            }
        });
        connection += 1;
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Unpin,
    connection: usize,
    script: Script,
    journal: Arc<Journal<Seen>>,
) {
    let Ok(mut streams) = h2::server::handshake(io).await else { return };
    let mut turn = 0;
    while let Some(Ok((request, respond))) = streams.accept().await {
        let (script, journal) = (script.clone(), journal.clone());
        tokio::spawn(async move {
            let _ = stream(request, respond, (connection, turn), script, journal).await;
        });
        turn += 1;
    }
}

async fn stream(
    request: http::Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    (connection, turn): (usize, usize),
    script: Script,
    journal: Arc<Journal<Seen>>,
) -> Result<(), h2::Error> {
    let (parts, mut body) = request.into_parts();
    let mut seen = Seen {
        method: parts.method.to_string(),
        target: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: "HTTP/2".to_owned(),
        headers: fields(&parts.headers),
        body: Vec::new(),
        trailers: Fields::default(),
        connection,
        turn,
    };
    // The authority stands where HTTP/1.1 has it, so that tests ask for it alike.
    if let Some(authority) = parts.uri.authority() {
        seen.headers.add(":authority", authority.as_str());
    }
    let answer = script(&seen);
    let mut head = Response::builder().status(answer.status);
    for (name, value) in &answer.headers {
        head = head.header(*name, value);
    }
    let head = head.body(()).expect("the script's head is sound");
    let mut sink = None;
    if answer.echo {
        sink = Some(respond.send_response(head.clone(), false)?);
    }
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        seen.body.extend_from_slice(&data);
        if let Some(sink) = &mut sink {
            sink.send_data(data, false)?;
        }
    }
    seen.trailers = fields(&body.trailers().await?.unwrap_or_default());
    journal.push(seen);
    tokio::time::sleep(answer.delay).await;
    let mut sink = match sink {
        Some(sink) => sink,
        None if answer.body.is_empty() && answer.trailers.is_empty() && !answer.reset => {
            respond.send_response(head, true)?;
            return Ok(());
        }
        None => respond.send_response(head, false)?,
    };
    if !answer.body.is_empty() {
        sink.send_data(Bytes::from(answer.body), answer.trailers.is_empty() && !answer.reset)?;
    }
    if answer.reset {
        sink.send_reset(h2::Reason::INTERNAL_ERROR);
        return Ok(());
    }
    if !answer.trailers.is_empty() {
        let mut trailers = HeaderMap::new();
        for (name, value) in &answer.trailers {
            trailers.append(HeaderName::from_static(name), value.parse().expect("the script's trailers are sound"));
        }
        sink.send_trailers(trailers)?;
    }
    Ok(())
}

fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map {
        fields.add(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    fields
}
