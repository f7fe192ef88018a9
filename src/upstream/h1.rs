//! A connection to a server that speaks HTTP/1.1 without TLS, and the idle ones that wait for the next request.
//!
//! A worker has its own, so nothing is shared between threads. A connection goes back only when the message on it
//! ended by its own framing on both sides and nothing lies beyond.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncWrite, DuplexStream};
use tokio::net::{TcpStream, UnixStream};
use tokio_util::io::poll_read_buf;

use super::backend::Backend;
use super::config::Address;
use crate::http1::chunked::Chunked;
use crate::http1::{Framing, Malformed, ResponseHead, parse_response};

/// A connection to a server.
pub struct Server {
    io: Io,
    /// What was read and not yet looked at.
    read: BytesMut,
    /// What is to be sent and was not yet.
    pub unsent: Vec<u8>,
    /// What is to be sent after that, from where it is.
    pub behind: Bytes,
    body: Body,
    keep_alive: bool,
    /// It said something since it was taken.
    heard: bool,
    /// It takes no more.
    deaf: bool,
}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Within(DuplexStream),
}

/// Where a server listens.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(Arc<Path>),
}

impl Target {
    pub fn of(address: &Address) -> Option<Self> {
        match address {
            Address::Inet(address) => Some(Self::Tcp(*address)),
            Address::Unix(path) => Some(Self::Unix(path.as_path().into())),
            Address::Name(..) => None,
        }
    }
}

/// What is left of the answer's body.
enum Body {
    Length(u64),
    Chunked(Box<Chunked>),
    UntilClose,
}

/// The largest head of an answer.
const MOST_HEAD: usize = 64 << 10;
/// Read at once: enough for a head and a small body, or much of a large one.
const SMALL: usize = 4 << 10;
const LARGE: usize = 64 << 10;

impl Server {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there, or not within `timeout`.
    pub async fn connect(backend: &Backend, timeout: Duration) -> io::Result<Self> {
        let connected = async {
            io::Result::Ok(match backend.target().ok_or(io::ErrorKind::Unsupported)? {
                Target::Tcp(address) => {
                    let stream = TcpStream::connect(*address).await?;
                    stream.set_nodelay(true)?;
                    Io::Tcp(stream)
                }
                Target::Unix(path) => Io::Unix(UnixStream::connect(path).await?),
            })
        };
        let io =
            tokio::time::timeout(timeout, connected).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        Ok(Self::new(io))
    }

    /// What answers at the other end of a stream within the gateway.
    pub fn within(stream: DuplexStream) -> Self {
        Self::new(Io::Within(stream))
    }

    fn new(io: Io) -> Self {
        Self {
            io,
            read: BytesMut::new(),
            unsent: Vec::new(),
            behind: Bytes::new(),
            body: Body::Length(0),
            keep_alive: true,
            heard: false,
            deaf: false,
        }
    }

    /// Whether it said anything since it was taken: if not, it may have closed before it got the request.
    pub fn was_heard(&self) -> bool {
        self.heard
    }

    /// Forgets what is unsent, for the server takes no more.
    pub fn give_up(&mut self) {
        self.unsent.clear();
        self.behind.clear();
        self.deaf = true;
    }

    /// Sends what is unsent.
    pub fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let next = if self.unsent.is_empty() { &self.behind[..] } else { &self.unsent[..] };
            if next.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let n = ready!(match &mut self.io {
                Io::Tcp(io) => Pin::new(io).poll_write(cx, next),
                Io::Unix(io) => Pin::new(io).poll_write(cx, next),
                Io::Within(io) => Pin::new(io).poll_write(cx, next),
            })?;
            match n {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n if self.unsent.is_empty() => self.behind.advance(n),
                n if n == self.unsent.len() => self.unsent.clear(),
                n => drop(self.unsent.drain(..n)),
            }
        }
    }

    /// Reads the head of the answer, or of an interim one. `bodiless` answers (to `HEAD`) have no body.
    ///
    /// # Errors
    /// The connection broke (`UnexpectedEof` before the first byte), or what came is no head (`InvalidData`).
    pub fn poll_head(&mut self, cx: &mut Context<'_>, bodiless: bool) -> Poll<io::Result<ResponseHead>> {
        loop {
            if !self.read.is_empty() {
                if let Some(head) = parse_response(&mut self.read, bodiless).map_err(io::Error::from)? {
                    self.keep_alive = head.keep_alive;
                    self.body = match head.body {
                        Framing::None => Body::Length(0),
                        Framing::Length(length) => Body::Length(length),
                        Framing::Chunked => Body::Chunked(Box::default()),
                        Framing::UntilClose => Body::UntilClose,
                    };
                    return Poll::Ready(Ok(head));
                }
                if self.read.len() >= MOST_HEAD {
                    return Poll::Ready(Err(Malformed("the head of the server's answer is too large").into()));
                }
            }
            if ready!(self.poll_read(cx, SMALL))? == 0 {
                let broken =
                    if self.read.is_empty() { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::ConnectionReset };
                return Poll::Ready(Err(broken.into()));
            }
        }
    }

    /// Waits until some of the answer's body is at hand; `false` when it ended.
    ///
    /// # Errors
    /// The connection broke before the body's end, or its framing is wrong.
    pub fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if let Body::Chunked(chunked) = &mut self.body {
                let wrong = |_| io::Error::from(Malformed("the chunks of the server's answer are wrong"));
                let n = chunked.skip(&self.read).map_err(wrong)?;
                self.read.advance(n);
            }
            if self.is_body_done() {
                return Poll::Ready(Ok(false));
            }
            if !self.data().is_empty() {
                return Poll::Ready(Ok(true));
            }
            let most = match self.body {
                Body::Length(left) if left <= SMALL as u64 => SMALL,
                _ => LARGE,
            };
            if ready!(self.poll_read(cx, most))? == 0 {
                return match self.body {
                    Body::UntilClose => {
                        self.body = Body::Length(0);
                        Poll::Ready(Ok(false))
                    }
                    _ => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                };
            }
        }
    }

    /// What is at hand of the answer's body.
    pub fn data(&self) -> &[u8] {
        let most = match &self.body {
            Body::Length(left) => *left,
            Body::Chunked(chunked) => chunked.data(),
            Body::UntilClose => u64::MAX,
        };
        &self.read[..usize::try_from(most).map_or(self.read.len(), |most| most.min(self.read.len()))]
    }

    /// Takes [`Self::data`] out, without a copy.
    pub fn take_data(&mut self) -> Bytes {
        let data = self.read.split_to(self.data().len()).freeze();
        self.count(data.len());
        data
    }

    /// Lets go of so much of [`Self::data`].
    pub fn consume(&mut self, n: usize) {
        self.read.advance(n);
        self.count(n);
    }

    fn count(&mut self, n: usize) {
        match &mut self.body {
            Body::Length(left) => *left -= n as u64,
            Body::Chunked(chunked) => chunked.take(n as u64),
            Body::UntilClose => {}
        }
    }

    /// Whether the answer's body ended.
    pub fn is_body_done(&self) -> bool {
        match &self.body {
            Body::Length(left) => *left == 0,
            Body::Chunked(chunked) => chunked.is_done(),
            Body::UntilClose => false,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < most / 4 {
            self.read.reserve(most);
        }
        let n = ready!(match &mut self.io {
            Io::Tcp(io) => poll_read_buf(Pin::new(io), cx, &mut self.read),
            Io::Unix(io) => poll_read_buf(Pin::new(io), cx, &mut self.read),
            Io::Within(io) => poll_read_buf(Pin::new(io), cx, &mut self.read),
        })?;
        self.heard |= n > 0;
        Poll::Ready(Ok(n))
    }

    /// Whether the next request can go this way.
    fn is_clean(&self) -> bool {
        self.keep_alive
            && !self.deaf
            && self.is_body_done()
            && self.read.is_empty()
            && self.unsent.is_empty()
            && self.behind.is_empty()
    }

    /// Whether the server neither closed an idle connection nor said anything on it.
    fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match &self.io {
            Io::Tcp(io) => io.try_read(&mut byte),
            Io::Unix(io) => io.try_read(&mut byte),
            // It serves one request.
            Io::Within(_) => return false,
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// The idle connections of one worker.
#[derive(Default)]
pub struct Idle(Mutex<HashMap<u64, ToServer, foldhash::fast::FixedState>>);

/// The idle connections to one server.
struct ToServer {
    /// Gone when the configuration no longer has the server.
    backend: Weak<Backend>,
    waiting: Vec<Waiting>,
}

struct Waiting {
    server: Server,
    until: Instant,
}

/// Idle connections to one server at most.
const MOST_IDLE: usize = 512;

impl Idle {
    /// A connection to the server, the one that was used last, if one is there.
    pub fn take(&self, backend: &Backend) -> Option<Server> {
        let mut idle = self.0.lock();
        let to_server = idle.get_mut(&backend.serial)?;
        while let Some(Waiting { server, until }) = to_server.waiting.pop() {
            if until > Instant::now() && server.is_quiet() {
                return Some(server);
            }
        }
        None
    }

    /// Keeps a connection for later, if it can be used again. `body_sent` says whether the whole request was sent.
    pub fn put(&self, backend: &Arc<Backend>, mut server: Server, body_sent: bool, most: Duration) {
        if !body_sent || !server.is_clean() || most.is_zero() {
            return;
        }
        // What an idle connection does not need.
        server.read = BytesMut::new();
        server.unsent = Vec::new();
        server.heard = false;
        let mut idle = self.0.lock();
        if !idle.contains_key(&backend.serial) {
            // Another configuration may have come, and then nobody takes what is there for the former.
            idle.retain(|_, to_server| to_server.backend.strong_count() > 0);
            idle.insert(backend.serial, ToServer { backend: Arc::downgrade(backend), waiting: Vec::new() });
        }
        if let Some(ToServer { waiting, .. }) = idle.get_mut(&backend.serial)
            && waiting.len() < MOST_IDLE
        {
            waiting.push(Waiting { server, until: Instant::now() + most });
        }
    }

    /// Closes what waited for too long, what the servers closed, and what no configuration has a use for.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.0.lock().retain(|_, ToServer { backend, waiting }| {
            waiting.retain(|waiting| waiting.until > now && waiting.server.is_quiet());
            !waiting.is_empty() && backend.strong_count() > 0
        });
    }
}
