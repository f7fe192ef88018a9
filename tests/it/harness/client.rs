//! An HTTP/1.1 client that sends what it is told and reads what there is.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned};
use serde_json::Value;

use super::wire::{Fields, Reader, Socket, broken};
use super::{Address, DEADLINE};

/// A request in the making.
pub struct Request<'c> {
    via: Via<'c>,
    method: String,
    target: String,
    host: Option<String>,
    headers: Fields,
    body: Option<Vec<u8>>,
    chunked: bool,
}

enum Via<'c> {
    New(&'c Address),
    Open(&'c mut Connection),
}

impl<'c> Request<'c> {
    pub(super) fn to(address: &'c Address, method: &str, target: &str) -> Self {
        Self::new(Via::New(address), method, target)
    }

    fn new(via: Via<'c>, method: &str, target: &str) -> Self {
        Self {
            via,
            method: method.to_owned(),
            target: target.to_owned(),
            host: Some("gateway.test".to_owned()),
            headers: Fields::default(),
            body: None,
            chunked: false,
        }
    }

    /// Another host than `gateway.test`.
    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    /// A body with its length.
    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = Some(body.as_ref().to_vec());
        self
    }

    /// A body in one chunk.
    pub fn chunked(mut self, body: impl AsRef<[u8]>) -> Self {
        self.chunked = true;
        self.body(body)
    }

    /// Sends it and reads the answer.
    #[track_caller]
    pub fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.target);
        self.try_send().unwrap_or_else(|error| panic!("{what}: {error}"))
    }

    /// As [`Self::send`], where there may be no answer.
    pub fn try_send(self) -> io::Result<Response> {
        let bytes = self.bytes();
        let mut fresh;
        let connection = match self.via {
            Via::Open(connection) => connection,
            Via::New(address) => {
                fresh = Connection::open(address);
                &mut fresh
            }
        };
        connection.reader.write(&bytes)?;
        connection.response_to(&self.method)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = &self.host {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers.0 {
            head += &format!("{name}: {value}\r\n");
        }
        let Some(body) = &self.body else { return (head + "\r\n").into_bytes() };
        if self.chunked {
            head += &format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len());
            [head.as_bytes(), body, b"\r\n0\r\n\r\n"].concat()
        } else {
            head += &format!("Content-Length: {}\r\n\r\n", body.len());
            [head.as_bytes(), body].concat()
        }
    }
}

/// An open connection to the gateway.
pub struct Connection {
    pub reader: Reader,
}

impl Connection {
    pub fn open(address: &Address) -> Self {
        let socket = match address {
            Address::Tcp(address) => {
                let socket = TcpStream::connect(address).expect("the gateway listens");
                socket.set_nodelay(true).expect("a TCP socket has no delay");
                Socket::Tcp(socket)
            }
            Address::Unix(path) => Socket::Unix(UnixStream::connect(path).expect("the gateway listens")),
        };
        Self::over(socket)
    }

    /// TLS with a server name; fails where the handshake does.
    pub fn tls(address: &Address, name: &str, config: ClientConfig) -> io::Result<Self> {
        let name = ServerName::try_from(name.to_owned()).expect("this is a server name");
        let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut socket = TcpStream::connect(address.tcp())?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(Self::over(Socket::TlsClient(Box::new(StreamOwned::new(tls, socket)))))
    }

    fn over(socket: Socket) -> Self {
        socket.set_read_timeout(DEADLINE);
        Self { reader: Reader::new(socket) }
    }

    /// How TLS began: in full or resumed.
    #[track_caller]
    pub fn handshake(&self) -> HandshakeKind {
        self.reader.socket.tls().and_then(|tls| tls.handshake_kind()).expect("the connection has TLS")
    }

    /// The server's certificate, in DER.
    #[track_caller]
    pub fn certificate(&self) -> Vec<u8> {
        let chain = self.reader.socket.tls().and_then(|tls| tls.peer_certificates()).expect("the connection has TLS");
        chain.first().expect("a server has a certificate").to_vec()
    }

    /// The version of TLS that was agreed on.
    #[track_caller]
    pub fn tls_version(&self) -> ProtocolVersion {
        self.reader.socket.tls().and_then(|tls| tls.protocol_version()).expect("the connection has TLS")
    }

    pub fn get(&mut self, target: &str) -> Request<'_> {
        self.request("GET", target)
    }

    pub fn post(&mut self, target: &str) -> Request<'_> {
        self.request("POST", target)
    }

    pub fn request(&mut self, method: &str, target: &str) -> Request<'_> {
        Request::new(Via::Open(self), method, target)
    }

    /// Sends bytes as they are. That the other side may have closed already is no failure.
    pub fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.reader.write(bytes.as_ref());
    }

    /// The next response, read as the answer to a method.
    pub fn response_to(&mut self, method: &str) -> io::Result<Response> {
        let mut interim = Vec::new();
        loop {
            let (start, headers) =
                self.reader.head()?.ok_or_else(|| broken("the connection closed without an answer"))?;
            let status = start
                .strip_prefix("HTTP/1.1 ")
                .and_then(|rest| rest.get(..3))
                .and_then(|status| status.parse().ok())
                .ok_or_else(|| broken(&format!("not a status line: {start:?}")))?;
            let mut response = Response { status, headers, interim, ..Response::default() };
            if (100..200).contains(&status) && status != 101 {
                interim = std::mem::take(&mut response.interim);
                interim.push((status, response.headers));
                continue;
            }
            let bodiless = method == "HEAD" || matches!(status, 101 | 204 | 304);
            if bodiless {
            } else if response.headers.first("transfer-encoding").is_some_and(|te| te.eq_ignore_ascii_case("chunked")) {
                (response.body, response.trailers) = self.reader.chunked()?;
            } else if let Some(length) = response.headers.first("content-length") {
                let length = length.parse().map_err(|_| broken("a Content-Length that is no number"))?;
                response.body = self.reader.exactly(length)?;
            } else {
                response.body = self.reader.to_end()?;
            }
            return Ok(response);
        }
    }

    /// Everything until the connection ends; whether it ended within the time.
    pub fn rest(&mut self, within: Duration) -> (Vec<u8>, bool) {
        self.reader.socket.set_read_timeout(within);
        let rest = self.reader.drain();
        self.reader.socket.set_read_timeout(DEADLINE);
        rest
    }

    /// The gateway closes without another byte.
    #[track_caller]
    pub fn expect_closed(&mut self) {
        let (rest, closed) = self.rest(DEADLINE);
        assert!(closed, "the connection stayed open");
        assert!(rest.is_empty(), "more came before the end: {:?}", String::from_utf8_lossy(&rest));
    }
}

/// A response, over whatever version of HTTP it came.
#[derive(Clone, Debug, Default)]
pub struct Response {
    pub status: u16,
    pub headers: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// The interim responses before it.
    pub interim: Vec<(u16, Fields)>,
}

impl Response {
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}\n{:?}\n{}", self.status, self.headers, self.text());
        self
    }

    /// The body is this text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert_eq!(self.text(), text, "{}\n{:?}", self.status, self.headers);
        self
    }

    /// The value of a field that is there exactly once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        match self.headers.all(name).as_slice() {
            [value] => value,
            others => panic!("{name} is there {} times: {others:?}\n{:?}", others.len(), self.headers),
        }
    }

    /// The first value of a field, or nothing.
    pub fn maybe(&self, name: &str) -> &str {
        self.headers.first(name).unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {:?}", self.text()))
    }

    /// A problem document (RFC 9457) of a kind, that says nothing of causes.
    #[track_caller]
    pub fn problem(self, kind: &str) -> Self {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        let named = json["type"].as_str().unwrap_or_default();
        assert!(named.ends_with(&format!(":{kind}")) || named.ends_with(&format!("/{kind}")), "{json:#}");
        assert_eq!(json["status"], self.status, "{json:#}");
        assert!(json["title"].as_str().is_some_and(|title| !title.is_empty()), "{json:#}");
        self
    }

    /// An error in gRPC's terms: a 200 without a body whose one block of headers has the status.
    #[track_caller]
    pub fn grpc_error(self, code: u32) -> Self {
        assert_eq!(self.status, 200, "{:?}", self.headers);
        assert!(self.header("content-type").starts_with("application/grpc"));
        assert_eq!(self.header("grpc-status"), code.to_string(), "{:?}", self.headers);
        assert!(self.body.is_empty(), "{:?}", self.text());
        self
    }
}
