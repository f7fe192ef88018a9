//! Origins: real servers that answer by script, one thread a connection, and remember every byte that they saw.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::wire::{Fields, Reader, Socket};
use super::{DEADLINE, Journal};

/// A request as an origin saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    /// The request target as it was on the wire.
    pub target: String,
    pub version: String,
    pub headers: Fields,
    pub body: Vec<u8>,
    pub trailers: Fields,
    /// Which of the origin's connections it came by, from 0.
    pub connection: usize,
    /// Which request of its connection it was, from 0.
    pub turn: usize,
}

impl Seen {
    /// The value of a field that is there exactly once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        match self.headers.all(name).as_slice() {
            [value] => value,
            others => panic!("the origin saw {name} {} times: {others:?}", others.len()),
        }
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What an origin does about a request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    status: u16,
    headers: Fields,
    body: Vec<u8>,
    /// Bytes before everything else: an interim response, or garbage.
    before: Vec<u8>,
    delay: Duration,
    framing: Framing,
    sent: Option<usize>,
    pause: Option<(usize, Duration)>,
    trickle: Option<(usize, Duration)>,
    then: Then,
}

#[derive(Clone, Debug, Default)]
enum Framing {
    #[default]
    Length,
    Claimed(usize),
    Chunked(Fields),
    UntilClose,
    Raw,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Then {
    #[default]
    KeepAlive,
    Close,
    Silence,
    Echo,
}

/// An answer with a status, to be refined.
pub fn answer(status: u16) -> Answer {
    Answer { status, ..Answer::default() }
}

impl Answer {
    /// These bytes and nothing else; then the connection closes.
    pub fn raw(bytes: &[u8]) -> Self {
        Self { before: bytes.to_vec(), framing: Framing::Raw, then: Then::Close, ..Self::default() }
    }

    /// No answer, on a connection that stays open.
    pub fn never() -> Self {
        Self { framing: Framing::Raw, then: Then::Silence, ..Self::default() }
    }

    /// No answer: the connection closes.
    pub fn hang_up() -> Self {
        Self::raw(b"")
    }

    /// Switches protocols; from then on every byte is sent back.
    pub fn websocket_echo() -> Self {
        let mut answer = Self { then: Then::Echo, ..answer(101) };
        answer.headers.add("Upgrade", "websocket");
        answer.headers.add("Connection", "Upgrade");
        answer.headers.add("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        answer
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.add(name, value);
        self
    }

    pub fn body(mut self, body: impl AsRef<[u8]>) -> Self {
        self.body = body.as_ref().to_vec();
        self
    }

    /// Sent before the head, as it is: `HTTP/1.1 103 …`.
    pub fn preceded_by(mut self, bytes: &str) -> Self {
        self.before = bytes.as_bytes().to_vec();
        self
    }

    /// How long the origin thinks before the head.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// In chunks of at most a kilobyte.
    pub fn chunked(mut self) -> Self {
        self.framing = Framing::Chunked(Fields::default());
        self
    }

    /// In chunks, with a trailer.
    pub fn trailer(mut self, name: &str, value: &str) -> Self {
        let mut trailers = match self.framing {
            Framing::Chunked(trailers) => trailers,
            _ => Fields::default(),
        };
        trailers.add(name, value);
        self.framing = Framing::Chunked(trailers);
        self
    }

    /// The body ends with the connection.
    pub fn until_close(mut self) -> Self {
        self.framing = Framing::UntilClose;
        self.then = Then::Close;
        self
    }

    /// A `Content-Length` that is not the body's.
    pub fn claiming(mut self, length: usize) -> Self {
        self.framing = Framing::Claimed(length);
        self
    }

    /// Closes the connection after so many bytes of the framed body.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        self.sent = Some(bytes);
        self.then = Then::Close;
        self
    }

    /// Rests after so many bytes of the framed body.
    pub fn resting(mut self, after: usize, pause: Duration) -> Self {
        self.pause = Some((after, pause));
        self
    }

    /// Rests after every so many bytes of the framed body.
    pub fn trickling(mut self, each: usize, pause: Duration) -> Self {
        self.trickle = Some((each, pause));
        self
    }

    /// Closes the connection after the answer, without saying so in it.
    pub fn closing(mut self) -> Self {
        self.then = Then::Close;
        self
    }

    fn send(&self, reader: &mut Reader, request: &Seen) -> io::Result<()> {
        thread::sleep(self.delay);
        reader.write(&self.before)?;
        if matches!(self.framing, Framing::Raw) {
            return Ok(());
        }
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers.0 {
            head += &format!("{name}: {value}\r\n");
        }
        let bodiless = self.status == 204 || self.status == 304 || self.status == 101;
        let body = match &self.framing {
            Framing::Length if bodiless => Vec::new(),
            Framing::Length => {
                head += &format!("Content-Length: {}\r\n", self.body.len());
                self.body.clone()
            }
            Framing::Claimed(length) => {
                head += &format!("Content-Length: {length}\r\n");
                self.body.clone()
            }
            Framing::Chunked(trailers) => {
                head += "Transfer-Encoding: chunked\r\n";
                in_chunks(&self.body, trailers)
            }
            Framing::UntilClose | Framing::Raw => self.body.clone(),
        };
        head += "\r\n";
        reader.write(head.as_bytes())?;
        if request.method == "HEAD" {
            return Ok(());
        }
        let body = &body[..self.sent.unwrap_or(body.len()).min(body.len())];
        if let Some((each, pause)) = self.trickle {
            for piece in body.chunks(each) {
                reader.write(piece)?;
                thread::sleep(pause);
            }
            return Ok(());
        }
        match self.pause {
            Some((after, pause)) if after < body.len() => {
                reader.write(&body[..after])?;
                thread::sleep(pause);
                reader.write(&body[after..])
            }
            _ => reader.write(body),
        }
    }
}

fn in_chunks(body: &[u8], trailers: &Fields) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(1024) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n");
    for (name, value) in &trailers.0 {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes
}

type Script = Box<dyn Fn(&Seen) -> Answer + Send + Sync>;

/// A server whose answers a test writes. It stops, and its connections close, when it is dropped.
pub struct Origin {
    shared: Arc<Shared>,
}

struct Shared {
    address: SocketAddr,
    script: Script,
    tls: Option<Arc<ServerConfig>>,
    requests: Journal<Seen>,
    bytes: Journal<u8>,
    accepted: AtomicUsize,
    open: Mutex<HashMap<usize, TcpStream>>,
    stopped: AtomicBool,
}

impl Origin {
    /// An origin that answers 200 with a text.
    pub fn saying(text: &'static str) -> Self {
        Self::answering(move |_| answer(200).header("Content-Type", "text/plain").body(text))
    }

    /// An origin that answers by a script.
    pub fn answering(script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(free_listener(), Box::new(script), None)
    }

    /// An origin behind TLS.
    pub fn over_tls(config: ServerConfig, script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        Self::start(free_listener(), Box::new(script), Some(Arc::new(config)))
    }

    fn start(listener: TcpListener, script: Script, tls: Option<Arc<ServerConfig>>) -> Self {
        let shared = Arc::new(Shared {
            address: listener.local_addr().expect("a bound socket has an address"),
            script,
            tls,
            requests: Journal::default(),
            bytes: Journal::default(),
            accepted: AtomicUsize::new(0),
            open: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = shared.clone();
        thread::spawn(move || accepting.accept(&listener));
        Self { shared }
    }

    /// `host:port`, for the configuration.
    pub fn address(&self) -> String {
        self.shared.address.to_string()
    }

    /// The requests that were read, health checks and all.
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.requests.all()
    }

    /// The requests for a target.
    pub fn requests_for(&self, target: &str) -> Vec<Seen> {
        self.requests().into_iter().filter(|request| request.target == target).collect()
    }

    /// The one request that there was.
    #[track_caller]
    pub fn only_request(&self) -> Seen {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "the origin saw {requests:#?}");
        requests.remove(0)
    }

    /// Waits until so many requests were read.
    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) -> Vec<Seen> {
        self.shared.requests.wait_for("requests at the origin", |all| (all.len() >= count).then(|| all.to_vec()))
    }

    /// Every byte of plaintext that any client sent.
    pub fn bytes(&self) -> Vec<u8> {
        self.shared.bytes.all()
    }

    /// Waits until so many bytes came, whether they make requests or not.
    #[track_caller]
    pub fn wait_for_bytes(&self, count: usize) {
        self.shared.bytes.wait_for("bytes at the origin", |all| (all.len() >= count).then_some(()));
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Closes every open connection, as a server does whose keep-alive ran out.
    pub fn close_connections(&self) {
        for (_, socket) in self.shared.open().drain() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.shared.address);
        self.close_connections();
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        while let Ok((socket, _)) = listener.accept() {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            let connection = self.accepted.fetch_add(1, Ordering::SeqCst);
            if let Ok(clone) = socket.try_clone() {
                self.open().insert(connection, clone);
            }
            let shared = self.clone();
            thread::spawn(move || {
                let _ = shared.serve(socket, connection);
                if let Some(socket) = shared.open().remove(&connection) {
                    let _ = socket.shutdown(Shutdown::Both);
                }
            });
        }
    }

    fn serve(self: &Arc<Self>, socket: TcpStream, connection: usize) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let socket = match &self.tls {
            None => Socket::Tcp(socket),
            Some(config) => {
                let tls = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
                Socket::TlsServer(Box::new(StreamOwned::new(tls, socket)))
            }
        };
        let tap = self.clone();
        let mut reader = Reader::tapped(socket, move |bytes| tap.bytes.extend(bytes));
        for turn in 0.. {
            let Some(request) = read_request(&mut reader, connection, turn)? else { return Ok(()) };
            self.requests.push(request.clone());
            let answer = (self.script)(&request);
            answer.send(&mut reader, &request)?;
            match answer.then {
                Then::KeepAlive => {}
                Then::Close => return Ok(()),
                Then::Silence => {
                    reader.socket.set_read_timeout(2 * DEADLINE);
                    reader.drain();
                    return Ok(());
                }
                Then::Echo => loop {
                    let bytes = reader.some()?;
                    if bytes.is_empty() {
                        return Ok(());
                    }
                    reader.write(&bytes)?;
                },
            }
        }
        Ok(())
    }

    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<usize, TcpStream>> {
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }
}

fn read_request(reader: &mut Reader, connection: usize, turn: usize) -> io::Result<Option<Seen>> {
    let Some((start, headers)) = reader.head()? else { return Ok(None) };
    let mut words = start.splitn(3, ' ').map(str::to_owned);
    let mut word = || words.next().unwrap_or_default();
    let (method, target, version) = (word(), word(), word());
    if headers.first("expect").is_some_and(|e| e.eq_ignore_ascii_case("100-continue")) {
        reader.write(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let (body, trailers) = if headers.has("transfer-encoding") {
        reader.chunked()?
    } else {
        let length = headers.first("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        (reader.exactly(length)?, Fields::default())
    };
    Ok(Some(Seen { method, target, version, headers, body, trailers, connection, turn }))
}

fn free_listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").expect("a loopback port is free")
}

/// A port where connections are refused, until an origin opens it.
pub struct ClosedPort {
    // Bound and not listened on: nobody else gets the port, and the kernel refuses.
    socket: socket2::Socket,
}

impl ClosedPort {
    pub fn new() -> Self {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket can be made");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("this is an address");
        socket.bind(&any.into()).expect("a loopback port is free");
        Self { socket }
    }

    /// `host:port`, for the configuration.
    pub fn address(&self) -> String {
        let address = self.socket.local_addr().ok().and_then(|address| address.as_socket());
        address.expect("a bound socket has an address").to_string()
    }

    /// An origin that answers by a script from now on.
    pub fn open(self, script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Origin {
        self.socket.listen(128).expect("a bound socket can listen");
        Origin::start(self.socket.into(), Box::new(script), None)
    }
}

/// An address where nobody ever listens: connections are refused.
pub fn refused_address() -> String {
    let port = ClosedPort::new();
    let address = port.address();
    std::mem::forget(port);
    address
}

/// An address whose backlog is full: connecting there takes for ever. Full as long as the sockets are held.
pub fn full_address() -> (String, Vec<socket2::Socket>) {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket can be made");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("this is an address");
    listener.bind(&any.into()).expect("a loopback port is free");
    listener.listen(0).expect("a bound socket can listen");
    let address = listener.local_addr().expect("a bound socket has an address");
    let mut held = vec![listener];
    loop {
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let full = client.connect_timeout(&address, Duration::from_millis(300)).is_err();
        held.push(client);
        if full {
            return (address.as_socket().expect("an IP address").to_string(), held);
        }
    }
}
