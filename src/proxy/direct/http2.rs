//! Clients that speak HTTP/2: one stream each.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use pingora_core::ErrorType;
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_http::ResponseHeader;

use super::exchange::{Broken, Client, Exchange, Fault, Opening, Waiting};
use super::upload::Upload;
use crate::deadline::Alarm;
use crate::facts::Connection;
use crate::http1::Framing;
use crate::proxy::patience::Patience;
use crate::proxy::{Ctx, answer};
use crate::upstream::Server;

/// A client at a stream of HTTP/2.
pub(super) struct Http2<'s> {
    pub session: &'s mut HttpSession,
    pub connection: Arc<Connection>,
    pub alarm: Alarm,
}

impl Http2<'_> {
    /// Reads and forgets what is left of the request.
    pub async fn drain(&mut self) {
        let _ = tokio::time::timeout(answer::DRAIN, self.session.drain_request_body()).await;
    }
}

impl Client for Http2<'_> {
    fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    fn poll_body(&mut self, upload: &mut Upload, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(match std::task::ready!(self.session.poll_read_body_bytes(cx)) {
            Some(Ok(data)) => Ok(upload.pass_data(&data, out)),
            None => upload.end(out).map(|()| 0),
            Some(Err(error)) => Err(io::Error::new(io::ErrorKind::ConnectionReset, error)),
        })
    }

    fn poll_gone(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<io::Error> {
        match Pin::new(&mut self.session.idle()).poll(cx) {
            Poll::Ready(_) => Poll::Ready(io::ErrorKind::ConnectionReset.into()),
            Poll::Pending => self.poll_late(patience, cx).map(|()| io::ErrorKind::TimedOut.into()),
        }
    }

    fn poll_late(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll_deadline(patience.kept_by_exchange(), cx)
    }

    /// The `h2` crate has no interim answers.
    async fn inform(&mut self, _: &ResponseHeader) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self, head: ResponseHeader, opening: Opening) -> io::Result<bool> {
        self.session.set_write_timeout(Some(self.connection.listener.timeouts.body));
        let end = opening.body == Framing::None;
        self.session.write_response_header(Box::new(head), end).map(|()| true).map_err(io::Error::other)
    }

    async fn relay(exchange: &mut Exchange<'_, Self>, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        loop {
            let more = exchange.more(server, ctx).await?;
            let data = if more { server.take_data() } else { Bytes::new() };
            let (length, end) = (data.len() as u64, server.is_body_done());
            if length > 0 {
                exchange.client.session.write_body(data, end).await.map_err(|error| failed(&error))?;
            } else if end {
                exchange.client.session.finish().map_err(|_| Broken::Client(Fault::Gone))?;
            }
            exchange.sent += length;
            if end {
                exchange.waiting = Waiting::Nobody;
                return Ok(());
            }
            exchange.went_on(ctx)?;
        }
    }

    async fn pass(exchange: &mut Exchange<'_, Self>, part: Bytes, last: bool, _: &mut Ctx) -> Result<(), Broken> {
        match (part.is_empty(), last) {
            // The end is the head's where there is nothing but a head.
            (true, true) => exchange.client.session.finish().map_err(|_| Broken::Client(Fault::Gone)),
            (true, false) => Ok(()),
            (false, _) => {
                let mut left = part;
                while !left.is_empty() {
                    // Each has the whole time that a client may take.
                    let part = left.split_to(left.len().min(PART));
                    let (length, end) = (part.len() as u64, last && left.is_empty());
                    exchange.client.session.write_body(part, end).await.map_err(|error| failed(&error))?;
                    exchange.sent += length;
                }
                Ok(())
            }
        }
    }
}

/// Bytes that are written at once.
const PART: usize = 64 << 10;

/// Why the client did not take what it was sent.
fn failed(error: &pingora_core::Error) -> Broken {
    Broken::Client(match error.etype() {
        ErrorType::WriteTimedout => Fault::Slow,
        _ => Fault::Gone,
    })
}
