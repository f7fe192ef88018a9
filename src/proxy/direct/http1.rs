//! Clients that speak HTTP/1.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use pingora_http::ResponseHeader;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::exchange::{Broken, Client, Exchange, Fault, Opening, Waiting};
use super::upload::{Upload, push_chunk_size};
use crate::facts::Connection;
use crate::http1::{self, Framing};
use crate::proxy::Ctx;
use crate::proxy::patience::Patience;
use crate::types::Stamp;
use crate::upstream::Server;

/// An HTTP/1 connection at a request. Reading gives the request's body as it was framed, and then waits for the
/// client to leave; it fails with `TimedOut` once the connection's deadline is over.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {
    /// Who it is.
    fn connection(&self) -> &Arc<Connection>;
    /// What is written and not sent yet.
    fn unsent(&mut self) -> &mut Vec<u8>;
    /// Waits for the connection's deadline.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A client at an HTTP/1 connection.
pub(super) struct Http1<'w, W> {
    pub wire: &'w mut W,
    /// The client speaks HTTP/1.0.
    pub old: bool,
    /// What is left of the chunk that is being written, where the answer is written in chunks.
    pub chunk: Option<usize>,
}

/// Read of a request's body at once.
const READ: usize = 16 << 10;

impl<W: Wire> Client for Http1<'_, W> {
    fn connection(&self) -> &Arc<Connection> {
        self.wire.connection()
    }

    fn poll_body(&mut self, upload: &mut Upload, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        let mut bytes = [const { MaybeUninit::uninit() }; READ];
        let mut part = ReadBuf::uninit(&mut bytes);
        std::task::ready!(Pin::new(&mut *self.wire).poll_read(cx, &mut part))?;
        match part.filled() {
            [] => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            part => Poll::Ready(Ok(upload.pass_framed(part, out))),
        }
    }

    fn poll_gone(&mut self, _: &Patience, cx: &mut Context<'_>) -> Poll<io::Error> {
        let mut byte = [0];
        Pin::new(&mut *self.wire)
            .poll_read(cx, &mut ReadBuf::new(&mut byte))
            .map(|read| read.err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into()))
    }

    fn poll_late(&mut self, _: &Patience, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.poll_late(cx)
    }

    async fn inform(&mut self, head: &ResponseHeader) -> io::Result<()> {
        if self.old {
            return Ok(());
        }
        http1::write_response(head, Framing::None, true, false, b"", self.wire.unsent());
        poll_fn(|cx| match Pin::new(&mut *self.wire).poll_flush(cx) {
            Poll::Pending => self.wire.poll_late(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
            flushed => flushed,
        })
        .await
    }

    fn begin(&mut self, head: ResponseHeader, opening: Opening) -> io::Result<bool> {
        let framing = match opening.body {
            Framing::Chunked | Framing::UntilClose if self.old => Framing::UntilClose,
            Framing::Chunked | Framing::UntilClose => Framing::Chunked,
            framing => framing,
        };
        let keep = opening.keep && framing != Framing::UntilClose;
        self.chunk = (framing == Framing::Chunked).then_some(0);
        let old = self.old;
        with_date(|date| http1::write_response(&head, framing, keep, old, date, self.wire.unsent()));
        Ok(keep)
    }

    async fn relay(exchange: &mut Exchange<'_, Self>, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        poll_fn(|cx| exchange.poll_relay(cx, server, ctx)).await
    }

    async fn pass(exchange: &mut Exchange<'_, Self>, part: Bytes, last: bool, ctx: &mut Ctx) -> Result<(), Broken> {
        let chunked = exchange.client.chunk.is_some() && !part.is_empty();
        if chunked {
            push_chunk_size(part.len(), exchange.client.wire.unsent());
        }
        let mut written = 0;
        poll_fn(|cx| {
            while written < part.len() {
                match Pin::new(&mut *exchange.client.wire).poll_write(cx, &part[written..]) {
                    Poll::Ready(Ok(n)) => {
                        written += n;
                        exchange.sent += n as u64;
                        exchange.waiting = Waiting::Nobody;
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::Client(Fault::Gone))),
                    Poll::Pending => {
                        exchange.wait_for(Waiting::Client, ctx);
                        return exchange.client.wire.poll_late(cx).map(|()| Err(Broken::Client(Fault::Slow)));
                    }
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        let unsent = exchange.client.wire.unsent();
        if chunked {
            unsent.extend_from_slice(b"\r\n");
        }
        if last && exchange.client.chunk.take().is_some() {
            unsent.extend_from_slice(b"0\r\n\r\n");
        }
        poll_fn(|cx| match exchange.poll_flush(cx, ctx) {
            Poll::Pending => exchange.client.wire.poll_late(cx).map(|()| Err(Broken::Client(Fault::Slow))),
            flushed => flushed,
        })
        .await
    }
}

impl<W: Wire> Exchange<'_, Http1<'_, W>> {
    /// Passes the answer's body on, as it comes.
    fn poll_relay(&mut self, cx: &mut Context<'_>, server: &mut Server, ctx: &mut Ctx) -> Poll<Result<(), Broken>> {
        self.poll_upload(cx, server, ctx)?;
        loop {
            match server.poll_body(cx).map_err(Broken::Server)? {
                Poll::Ready(true) => {
                    let mut data = server.data();
                    if let Some(chunk) = &mut self.client.chunk {
                        if *chunk == 0 {
                            *chunk = data.len();
                            push_chunk_size(data.len(), self.client.wire.unsent());
                        }
                        data = &data[..data.len().min(*chunk)];
                    }
                    let Poll::Ready(written) = Pin::new(&mut *self.client.wire).poll_write(cx, data) else {
                        self.wait_for(Waiting::Client, ctx);
                        break;
                    };
                    let written = written.map_err(|_| Broken::Client(Fault::Gone))?;
                    server.consume(written);
                    self.sent += written as u64;
                    self.waiting = Waiting::Nobody;
                    if let Some(chunk) = &mut self.client.chunk {
                        *chunk -= written;
                        if *chunk == 0 {
                            self.client.wire.unsent().extend_from_slice(b"\r\n");
                        }
                    }
                    if ctx.patience.is_over() {
                        return Poll::Ready(Err(Broken::Server(io::ErrorKind::TimedOut.into())));
                    }
                }
                Poll::Ready(false) => {
                    if self.client.chunk.take().is_some() {
                        self.client.wire.unsent().extend_from_slice(b"0\r\n\r\n");
                    }
                    match self.poll_flush(cx, ctx) {
                        Poll::Pending => break,
                        flushed => return flushed,
                    }
                }
                Poll::Pending => {
                    // What came so far is not kept from the client.
                    if self.poll_flush(cx, ctx)?.is_ready() {
                        self.wait_for(Waiting::Server, ctx);
                    }
                    break;
                }
            }
        }
        self.poll_client(cx, ctx)
    }

    /// Sends what waits for the client.
    fn poll_flush(&mut self, cx: &mut Context<'_>, ctx: &Ctx) -> Poll<Result<(), Broken>> {
        match Pin::new(&mut *self.client.wire).poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Broken::Client(Fault::Gone))),
            Poll::Pending => {
                self.wait_for(Waiting::Client, ctx);
                Poll::Pending
            }
        }
    }
}

/// The value of `Date` (RFC 9110, section 6.6.1).
fn with_date(write: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: Stamp = const { Stamp::new("%a, %d %b %Y %H:%M:%S GMT") };
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with(|stamp| stamp.with(now, |text| write(text.as_bytes())));
}
