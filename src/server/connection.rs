//! The client's connection: one stream type for TCP, Unix sockets and TLS, which hands Pingora exactly the bytes
//! of the request at hand and nothing of the next, and which holds nothing while it waits for one.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::l4::socket::SocketAddr as PingoraAddr;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::head::{self, Head, Refused};
use super::transport::Transport;
use crate::deadline::Alarm;
use crate::facts::Connection;
use crate::http1::Framing;
use crate::http1::chunked::Chunked;
use crate::proxy::Wire;

/// What HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at once while a head is awaited; lives on the stack of one poll only.
const READ: usize = 4 << 10;
/// A head and a small body.
const SMALL_BEHIND: usize = 2 << 10;
/// What may wait to be sent.
const MOST_BEHIND: usize = 16 << 10;
/// What may be read ahead while an upstream is at work.
const MOST_AHEAD: usize = 64 << 10;

/// A client's connection.
pub struct Conn {
    io: Transport,
    /// What was read beyond the request at hand.
    ahead: BytesMut,
    /// What is written and not sent yet: a head and a small body leave together.
    behind: Vec<u8>,
    budget: Budget,
    http2: bool,
    alarm: Alarm,
    connection: Arc<Connection>,
    digests: Option<(Arc<ProxyDigest>, Arc<SocketDigest>)>,
}

/// How much of what arrives belongs to the request at hand.
enum Budget {
    Length(u64),
    Chunked(Box<Chunked>),
    /// No longer HTTP/1.
    Unlimited,
}

/// What came of waiting for a request.
pub enum Next {
    /// A sound head, with its empty line, and what it says of the rest.
    Request(BytesMut, Head),
    /// The client speaks HTTP/2 from the start.
    Http2,
    /// The head is refused. What was read is there for the log.
    Refused(Refused, BytesMut),
    /// The client left, or nothing came in time.
    Closed,
}

impl Conn {
    /// A connection of which nothing was read yet.
    pub fn new(io: Transport, http2: bool, connection: Arc<Connection>) -> Self {
        Self {
            io,
            ahead: BytesMut::new(),
            behind: Vec::new(),
            budget: Budget::Length(0),
            http2,
            alarm: Alarm::default(),
            connection,
            digests: None,
        }
    }

    /// Who it is.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Whether HTTP/2 was agreed on.
    pub fn is_http2(&self) -> bool {
        self.http2
    }

    /// Lifts every bound on what may be read: for HTTP/2, which has its own framing.
    pub fn unlimited(&mut self) {
        self.budget = Budget::Unlimited;
    }

    /// Waits for the next request's head and judges it.
    pub async fn next(&mut self) -> Next {
        self.budget = Budget::Length(0);
        self.behind = Vec::new();
        let timeouts = self.connection.listener.timeouts;
        if self.ahead.is_empty() {
            self.ahead = BytesMut::new();
            match self.fill_until(Instant::now() + timeouts.idle).await {
                Ok(Some(n)) if n > 0 => {}
                _ => return Next::Closed,
            }
        }
        self.head(Instant::now() + timeouts.head).await
    }

    /// Writes the answer to a refused head and lets the client read it before the connection ends.
    pub async fn refuse(mut self, answer: &[u8]) {
        if self.write_all(answer).await.is_ok() {
            self.end().await;
        }
    }

    /// Ends the connection in a way that lets the client read what it was sent: what it still sends is read and
    /// forgotten for a while, for else the system would reset the connection.
    pub async fn end(mut self) {
        self.budget = Budget::Unlimited;
        let linger = async {
            Shutdown::shutdown(&mut self).await;
            let mut left = MOST_AHEAD;
            while left > 0 {
                self.ahead.clear();
                match std::future::poll_fn(|cx| self.poll_fill(cx)).await? {
                    0 => break,
                    n => left = left.saturating_sub(n),
                }
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), linger).await;
    }

    async fn head(&mut self, deadline: Instant) -> Next {
        let limits = self.connection.listener.limits;
        let (mut looked, mut skipped) = (0, false);
        loop {
            // One empty line may stand before a request (RFC 9112, section 2.2).
            if !skipped && looked == 0 && self.ahead.starts_with(b"\r\n") {
                self.ahead.advance(2);
                skipped = true;
            }
            if self.connection.listener.http2
                && self.connection.tls.is_none()
                && !self.ahead.is_empty()
                && PREFACE.starts_with(&self.ahead[..self.ahead.len().min(PREFACE.len())])
            {
                if self.ahead.len() >= PREFACE.len() {
                    self.http2 = true;
                    return Next::Http2;
                }
            } else {
                let found = head::end(&self.ahead, looked).and_then(|end| match end {
                    Some(length) if length <= limits.max_header_size => Ok(Some(length)),
                    None if self.ahead.len() < limits.max_header_size => Ok(None),
                    _ => Err(too_large(&self.ahead, limits.max_uri)),
                });
                match found {
                    Ok(Some(length)) => return self.judge(length),
                    Ok(None) => looked = self.ahead.len(),
                    Err(refused) => return Next::Refused(refused, std::mem::take(&mut self.ahead)),
                }
            }
            match self.fill_until(deadline).await {
                Ok(Some(n)) if n > 0 => {}
                Ok(None) => {
                    let late = Refused { status: 408, reason: "the request's head did not arrive in time" };
                    return Next::Refused(late, std::mem::take(&mut self.ahead));
                }
                _ => return Next::Closed,
            }
        }
    }

    fn judge(&mut self, length: usize) -> Next {
        let head = match head::check(&self.ahead[..length], &self.connection.listener.limits) {
            Ok(head) => head,
            Err(refused) => return Next::Refused(refused, std::mem::take(&mut self.ahead)),
        };
        self.budget = Budget::of(&head);
        if let Budget::Chunked(chunked) = &self.budget
            && chunked.clone().advance(&self.ahead[length..]).is_err()
        {
            let refused = Refused { status: 400, reason: "a chunk of the body has a wrong size line" };
            return Next::Refused(refused, std::mem::take(&mut self.ahead));
        }
        let bytes = match length == self.ahead.len() {
            true => std::mem::take(&mut self.ahead),
            false => self.ahead.split_to(length),
        };
        Next::Request(bytes, head)
    }

    /// Reads once into `ahead`; `None` when nothing came in time.
    async fn fill_until(&mut self, deadline: Instant) -> io::Result<Option<usize>> {
        std::future::poll_fn(|cx| match self.poll_fill(cx) {
            Poll::Pending => self.alarm.poll(deadline, cx).map(|()| Ok(None)),
            Poll::Ready(read) => Poll::Ready(read.map(Some)),
        })
        .await
    }

    /// Reads once into `ahead`, holding no buffer while it waits.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [const { MaybeUninit::uninit() }; READ];
        let mut buf = ReadBuf::uninit(&mut bytes);
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut buf))?;
        self.ahead.extend_from_slice(buf.filled());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// What is left of the request's body, into `buf`.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>, most: usize) -> Poll<io::Result<usize>> {
        let most = most.min(buf.remaining());
        if !self.ahead.is_empty() {
            let n = most.min(self.ahead.len());
            buf.put_slice(&self.ahead[..n]);
            self.ahead.advance(n);
            if self.ahead.is_empty() {
                self.ahead = BytesMut::new();
            }
            return Poll::Ready(Ok(n));
        }
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        std::task::ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let n = part.filled().len();
        buf.advance(n);
        Poll::Ready(Ok(n))
    }

    /// The body is read: waits for the client to leave, and keeps what it sends meanwhile.
    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ahead.len() < MOST_AHEAD {
            if std::task::ready!(self.poll_fill(cx))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }

    fn digests(&self) -> (Arc<ProxyDigest>, Arc<SocketDigest>) {
        if let Some(digests) = &self.digests {
            return digests.clone();
        }
        let head = ResponseHeader::build_no_case(200, Some(0)).expect("200 is a status");
        let proxy = ProxyDigest::new(Box::new(head), Some(Box::new(self.connection.clone())));
        let socket = SocketDigest::from_raw_fd(self.io.fd());
        let _ = socket.peer_addr.set(self.connection.peer.map(PingoraAddr::Inet));
        let _ = socket.local_addr.set(self.connection.local.map(PingoraAddr::Inet));
        (Arc::new(proxy), Arc::new(socket))
    }

    /// Makes the facts that requests ask for; once, before the first of them.
    pub fn prepare(&mut self) {
        if self.digests.is_none() {
            self.digests = Some(self.digests());
        }
    }
}

/// A head over the limit is a long target or long fields, and the client is told which.
fn too_large(read: &[u8], max_uri: usize) -> Refused {
    let line = memchr::memchr(b'\n', read).unwrap_or(read.len());
    if line > max_uri + 32 {
        Refused { status: 414, reason: "the request target is too long" }
    } else {
        Refused { status: 431, reason: "the request head is too large" }
    }
}

impl Budget {
    fn of(head: &Head) -> Self {
        match head.body {
            _ if head.upgrade => Self::Unlimited,
            Framing::None | Framing::UntilClose => Self::Length(0),
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
        }
    }
}

impl AsyncRead for Conn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.poll_request(cx, buf) {
            Poll::Pending => {
                let late = this.alarm.poll_deadline(&this.connection.deadline, cx);
                late.map(|()| Err(io::Error::from(io::ErrorKind::TimedOut)))
            }
            read => read,
        }
    }
}

impl Conn {
    /// Reads what belongs to the request at hand.
    fn poll_request(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.budget {
            Budget::Unlimited => self.poll_body(cx, buf, usize::MAX).map_ok(drop),
            Budget::Length(0) => self.poll_gone(cx),
            Budget::Length(left) => {
                let most = usize::try_from(*left).unwrap_or(usize::MAX);
                let n = std::task::ready!(self.poll_body(cx, buf, most))?;
                if let Budget::Length(left) = &mut self.budget {
                    *left -= n as u64;
                }
                Poll::Ready(Ok(()))
            }
            Budget::Chunked(chunked) if chunked.is_done() => self.poll_gone(cx),
            Budget::Chunked(_) => {
                let before = buf.filled().len();
                std::task::ready!(self.poll_body(cx, buf, usize::MAX))?;
                let Budget::Chunked(chunked) = &mut self.budget else { return Poll::Ready(Ok(())) };
                let new = &buf.filled()[before..];
                match chunked.advance(new) {
                    Ok(n) => {
                        if n < new.len() {
                            // What was taken from `ahead` goes back in front of what is left of it.
                            let mut beyond = BytesMut::from(&new[n..]);
                            beyond.unsplit(std::mem::take(&mut self.ahead));
                            self.ahead = beyond;
                            buf.set_filled(before + n);
                        }
                        Poll::Ready(Ok(()))
                    }
                    Err(_) => {
                        buf.set_filled(before);
                        Poll::Ready(Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "invalid framing of a chunked body",
                        )))
                    }
                }
            }
        }
    }
}

impl Wire for Conn {
    fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn unsent(&mut self) -> &mut Vec<u8> {
        self.room_behind(0);
        &mut self.behind
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll_deadline(&self.connection.deadline, cx)
    }
}

impl AsyncWrite for Conn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.behind.len() + buf.len() > MOST_BEHIND {
            return this.poll_write_through(cx, buf);
        }
        this.room_behind(buf.len());
        this.behind.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl Conn {
    /// Makes room for an answer's head and a small body at once, instead of growing with each field.
    fn room_behind(&mut self, length: usize) {
        if self.behind.capacity() == 0 {
            self.behind.reserve(length.max(SMALL_BEHIND));
        }
    }

    /// Sends what waits, and then of `buf` what can be sent.
    fn poll_write_through(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        while !self.behind.is_empty() && self.io.is_write_vectored() {
            let both = [io::IoSlice::new(&self.behind), io::IoSlice::new(buf)];
            let n = std::task::ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &both))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let waiting = self.behind.len();
            self.behind.drain(..n.min(waiting));
            if n > waiting {
                return Poll::Ready(Ok(n - waiting));
            }
        }
        std::task::ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    /// Sends what waits.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.behind.is_empty() {
            match std::task::ready!(Pin::new(&mut self.io).poll_write(cx, &self.behind))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n if n == self.behind.len() => self.behind.clear(),
                n => drop(self.behind.drain(..n)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conn").field("peer", &self.connection.peer).finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Conn {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Conn {
    fn id(&self) -> UniqueIDType {
        self.io.fd()
    }
}

impl Ssl for Conn {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        // Pingora looks only for whether there is one; the facts are in `Connection`.
        self.connection
            .tls
            .as_ref()
            .map(|tls| Arc::new(SslDigest::new(tls.cipher, tls.version, None, None, Vec::new())))
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.http2.then_some(ALPN::H2)
    }
}

#[async_trait]
impl Peek for Conn {}

impl GetTimingDigest for Conn {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Conn {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digests().0)
    }
}

impl GetSocketDigest for Conn {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digests().1)
    }
}
