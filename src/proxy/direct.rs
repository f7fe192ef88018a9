//! The short way: an HTTP/1 request to a server that speaks HTTP/1.1 without TLS goes from socket to socket.
//!
//! It asks the same gateway for the same things in the same order as Pingora's hooks do, and costs little over half
//! as much, for nothing lies between the two connections. What needs more goes the long way, by Pingora: HTTP/2 on
//! either side, TLS to the server, protocols that are switched to, `Expect`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::EXPECT;
use http::{Method, Version};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::log_line::Carried;
use super::{Ctx, admit, answer, forward, log_line, patience};
use crate::facts::Connection;
use crate::gateway::Gateway;
use crate::http1::chunked::Chunked;
use crate::http1::{self, Framing, ResponseHead};
use crate::reply::Reply;
use crate::upstream::{Failure, Idle, Server};

/// The client's side of an HTTP/1 exchange. Reading gives the request's body as it was framed, and then waits for
/// the client to leave; it fails with `TimedOut` once the connection's deadline is over.
pub trait Client: AsyncRead + AsyncWrite + Unpin + Send {
    /// Who it is.
    fn connection(&self) -> &Arc<Connection>;
    /// What is written and not sent yet.
    fn unsent(&mut self) -> &mut Vec<u8>;
    /// Waits for the connection's deadline.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()>;
}

/// A worker's short way.
pub struct Direct {
    gateway: Arc<ArcSwap<Gateway>>,
    idle: Arc<Idle>,
}

/// What became of a request.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Served {
    /// Nothing: it goes the long way.
    NotHere,
    /// It was answered, and the connection waits for the next.
    Keep,
    /// It was answered, or could not be, and the connection ends.
    Close,
}

/// How often idle connections are looked over.
const SWEEP: Duration = Duration::from_secs(5);
/// Read of a request's body at once.
const READ: usize = 16 << 10;

impl Direct {
    /// A short way over the configuration that `gateway` holds at the time of each request. Must be made on the
    /// runtime of the worker that it is for.
    pub fn new(gateway: Arc<ArcSwap<Gateway>>) -> Self {
        let idle = Arc::new(Idle::default());
        let swept = Arc::downgrade(&idle);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                match swept.upgrade() {
                    Some(idle) => idle.sweep(),
                    None => return,
                }
            }
        });
        Self { gateway, idle }
    }

    /// Serves a request whose head was found to be sound. `ending` says, when the answer begins, whether the
    /// connection is to end with it.
    pub async fn serve<C: Client>(
        &self,
        client: &mut C,
        head: &Bytes,
        body: Framing,
        ending: &(dyn Fn() -> bool + Send + Sync),
    ) -> Served {
        let Ok(mut request) = http1::parse_request(head) else { return Served::NotHere };
        if request.headers.contains_key(EXPECT) {
            return Served::NotHere;
        }
        let mut ctx = Ctx::new(self.gateway.load_full());
        ctx.facts = Some(admit::gather(client.connection().clone(), &request));
        let mut verdict = admit::route(&mut request, &mut ctx);
        if ctx.pool().is_some_and(|pool| !pool.is_plain_h1()) {
            return Served::NotHere;
        }
        if verdict.is_ok() {
            verdict = admit::enter(&mut request, &mut ctx).await;
        }
        let old = request.version == Version::HTTP_10;
        let mut exchange = Exchange {
            client,
            request: &request,
            old,
            keep: http1::keeps_alive(&request.headers, old),
            ending,
            upload: Upload::new(body),
            waiting: Waiting::Nobody,
            status: None,
            sent: 0,
            chunk: None,
        };
        let ended = match verdict {
            Ok(()) => self.forward(&mut exchange, &mut ctx).await,
            Err(reply) => Err(Fault::Reply(reply)),
        };
        let broke = match ended {
            Ok(()) => false,
            Err(fault) => exchange.end(fault, &mut ctx).await,
        };
        let carried = Carried { status: exchange.status, bytes_in: ctx.body, bytes_out: exchange.sent, broke };
        let keep = exchange.keep;
        log_line::write(&request, &carried, &mut ctx);
        if keep { Served::Keep } else { Served::Close }
    }

    /// Asks one server after the other, as far as that is allowed.
    async fn forward<C: Client>(&self, exchange: &mut Exchange<'_, C>, ctx: &mut Ctx) -> Result<(), Fault> {
        let method = &exchange.request.method;
        let Some(pool) = ctx.pool().cloned() else {
            return Err(Fault::Reply(Reply::internal("the route has no upstream")));
        };
        loop {
            if !forward::choose(ctx, exchange.request) {
                return Err(Fault::Reply(answer::no_server(ctx)));
            }
            let Some(backend) = ctx.attempt.as_ref().map(|attempt| attempt.pick.shared()) else {
                return Err(Fault::Reply(Reply::internal("no server was taken")));
            };
            let (mut server, reused) = match self.idle.take(&backend) {
                Some(server) => (server, true),
                None => match Server::connect(&backend, pool.timeouts().connect).await {
                    Ok(server) => (server, false),
                    Err(error) => {
                        let late = error.kind() == io::ErrorKind::TimedOut;
                        explain(ctx, "connecting", &error);
                        let failure = if late { Failure::Timeout } else { Failure::Connect };
                        if forward::broke(method, true, ctx, failure, false) {
                            continue;
                        }
                        return Err(Fault::Reply(answer::upstream_failed(ctx, late)));
                    }
                },
            };
            match exchange.attempt(&mut server, ctx).await {
                Ok(()) => {
                    self.idle.put(&backend, server, exchange.upload.is_sent(), pool.keepalive());
                    return Ok(());
                }
                Err(Broken::Again) => {}
                Err(Broken::Server(error)) => {
                    let late = error.kind() == io::ErrorKind::TimedOut;
                    explain(ctx, "the exchange with the server", &error);
                    let untouched = exchange.status.is_none();
                    let failure = if late { Failure::Timeout } else { Failure::Reset };
                    if forward::broke(method, untouched, ctx, failure, reused) {
                        continue;
                    }
                    return Err(match untouched {
                        true => Fault::Reply(answer::upstream_failed(ctx, late)),
                        false => Fault::Cut,
                    });
                }
                Err(Broken::Client(fault)) => return Err(fault),
            }
        }
    }
}

/// Why an exchange ends before it is over.
enum Fault {
    /// The client is told this, if it was told nothing yet.
    Reply(Reply),
    /// The answer was cut short.
    Cut,
    /// The client left.
    Gone,
}

/// Why an attempt ended.
enum Broken {
    /// The answer is worth another try.
    Again,
    /// The server failed.
    Server(io::Error),
    /// The client failed, or a policy stopped the request.
    Client(Fault),
}

/// Who is waited for.
#[derive(PartialEq, Clone, Copy)]
enum Waiting {
    Nobody,
    Client,
    Server,
}

/// The body of the request on its way to the server.
struct Upload {
    framing: Framing,
    chunked: Chunked,
    left: u64,
    state: Sending,
}

#[derive(PartialEq, Clone, Copy)]
enum Sending {
    /// There is more.
    Body,
    /// All was read, and is sent or about to be.
    Done,
    /// The server takes no more.
    Refused,
}

/// One request and its answer.
struct Exchange<'e, C> {
    client: &'e mut C,
    request: &'e RequestHeader,
    /// The client speaks HTTP/1.0.
    old: bool,
    keep: bool,
    ending: &'e (dyn Fn() -> bool + Send + Sync),
    upload: Upload,
    waiting: Waiting,
    /// The status that the client was sent.
    status: Option<u16>,
    /// Bytes of the answer's body that went to the client.
    sent: u64,
    /// What is left of the chunk that is being written, where the answer is written in chunks.
    chunk: Option<usize>,
}

impl<C: Client> Exchange<'_, C> {
    /// One attempt, from the head of the request to the end of the answer.
    async fn attempt(&mut self, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        let mut head = self.request.clone();
        forward::shape(self.request, &mut head, ctx).map_err(|reply| Broken::Client(Fault::Reply(reply)))?;
        http1::write_request(&head, self.upload.framing, &mut server.unsent);
        drop(head);
        self.waiting = Waiting::Nobody;
        if self.upload.state == Sending::Done {
            patience::sent(ctx);
        }
        let bodiless = self.request.method == Method::HEAD;
        loop {
            let ResponseHead { mut head, body, .. } =
                std::future::poll_fn(|cx| self.poll_answer(cx, server, bodiless, ctx)).await?;
            if head.status == 101 {
                return Err(Broken::Server(invalid("the server switched protocols unasked")));
            }
            if head.status.is_informational() {
                self.inform(&head, ctx).await?;
                continue;
            }
            if !forward::answered(&self.request.method, self.status.is_none(), &head, ctx) {
                return Err(Broken::Again);
            }
            if let (Some(route), Some(facts)) = (&ctx.route, &ctx.facts) {
                route.chain.response(&mut head, self.request, facts);
            }
            self.begin(&head, body);
            return std::future::poll_fn(|cx| self.poll_relay(cx, server, ctx)).await;
        }
    }

    /// Passes an interim answer on.
    async fn inform(&mut self, head: &ResponseHeader, ctx: &mut Ctx) -> Result<(), Broken> {
        if !self.old {
            http1::write_response(head, Framing::None, true, false, b"", self.client.unsent());
            std::future::poll_fn(|cx| self.poll_flush(cx, ctx)).await?;
        }
        Ok(())
    }

    /// Writes the head of the answer.
    fn begin(&mut self, head: &ResponseHeader, body: Framing) {
        let framing = match body {
            Framing::Chunked | Framing::UntilClose if self.old => Framing::UntilClose,
            Framing::Chunked | Framing::UntilClose => Framing::Chunked,
            framing => framing,
        };
        // What is left of the request's body would stand in the way of the next request.
        self.keep &= framing != Framing::UntilClose && self.upload.is_sent() && !(self.ending)();
        self.chunk = (framing == Framing::Chunked).then_some(0);
        self.status = Some(head.status.as_u16());
        let (keep, old) = (self.keep, self.old);
        with_date(|date| http1::write_response(head, framing, keep, old, date, self.client.unsent()));
    }

    /// Sends the request and waits for the head of its answer.
    fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Server,
        bodiless: bool,
        ctx: &mut Ctx,
    ) -> Poll<Result<ResponseHead, Broken>> {
        self.poll_upload(cx, server, ctx)?;
        match server.poll_head(cx, bodiless) {
            Poll::Ready(head) => Poll::Ready(head.map_err(Broken::Server)),
            Poll::Pending => self.poll_client(cx, ctx),
        }
    }

    /// Passes the answer's body on, as it comes.
    fn poll_relay(&mut self, cx: &mut Context<'_>, server: &mut Server, ctx: &mut Ctx) -> Poll<Result<(), Broken>> {
        self.poll_upload(cx, server, ctx)?;
        loop {
            match server.poll_body(cx).map_err(Broken::Server)? {
                Poll::Ready(true) => {
                    let mut data = server.data();
                    if let Some(chunk) = &mut self.chunk {
                        if *chunk == 0 {
                            *chunk = data.len();
                            push_chunk_size(data.len(), self.client.unsent());
                        }
                        data = &data[..data.len().min(*chunk)];
                    }
                    let Poll::Ready(written) = Pin::new(&mut *self.client).poll_write(cx, data) else {
                        self.wait_for(Waiting::Client, ctx);
                        break;
                    };
                    let written = written.map_err(|_| Broken::Client(Fault::Gone))?;
                    server.consume(written);
                    self.sent += written as u64;
                    self.waiting = Waiting::Nobody;
                    if let Some(chunk) = &mut self.chunk {
                        *chunk -= written;
                        if *chunk == 0 {
                            self.client.unsent().extend_from_slice(b"\r\n");
                        }
                    }
                    if ctx.patience.is_over() {
                        return Poll::Ready(Err(Broken::Server(io::ErrorKind::TimedOut.into())));
                    }
                }
                Poll::Ready(false) => {
                    if self.chunk.take().is_some() {
                        self.client.unsent().extend_from_slice(b"0\r\n\r\n");
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
        match Pin::new(&mut *self.client).poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Broken::Client(Fault::Gone))),
            Poll::Pending => {
                self.wait_for(Waiting::Client, ctx);
                Poll::Pending
            }
        }
    }

    /// Sends the request, as far as it is there; only an error is an outcome.
    fn poll_upload(&mut self, cx: &mut Context<'_>, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        loop {
            match server.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // The server may have answered before it closed: that is worth looking at.
                    server.unsent.clear();
                    self.upload.state = Sending::Refused;
                    return Ok(());
                }
                Poll::Pending => {
                    self.wait_for(Waiting::Server, ctx);
                    return Ok(());
                }
            }
            if self.upload.state != Sending::Body {
                return Ok(());
            }
            let mut bytes = [const { std::mem::MaybeUninit::uninit() }; READ];
            let mut part = ReadBuf::uninit(&mut bytes);
            match Pin::new(&mut *self.client).poll_read(cx, &mut part) {
                Poll::Pending => {
                    self.wait_for(Waiting::Client, ctx);
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return Err(self.client_failed(&error, ctx)),
                Poll::Ready(Ok(())) if part.filled().is_empty() => return Err(Broken::Client(Fault::Gone)),
                Poll::Ready(Ok(())) => {}
            }
            self.waiting = Waiting::Nobody;
            ctx.body += self.upload.pass(part.filled(), &mut server.unsent);
            if let Some(most) = self.client.connection().listener.limits.max_body
                && ctx.body > most
            {
                server.unsent.clear();
                let reply = Reply::body_too_large(format!("the body has more than {most} bytes")).closing();
                return Err(Broken::Client(Fault::Reply(reply)));
            }
            if self.upload.state == Sending::Done {
                patience::sent(ctx);
            }
        }
    }

    /// Waits for the client to leave, and for the time to be over.
    fn poll_client<T>(&mut self, cx: &mut Context<'_>, ctx: &Ctx) -> Poll<Result<T, Broken>> {
        if self.upload.state == Sending::Done {
            let mut byte = [0];
            match Pin::new(&mut *self.client).poll_read(cx, &mut ReadBuf::new(&mut byte)) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(Err(error)) => Poll::Ready(Err(self.client_failed(&error, ctx))),
                Poll::Ready(Ok(())) => Poll::Ready(Err(Broken::Client(Fault::Gone))),
            }
        } else {
            self.client.poll_late(cx).map(|()| Err(self.late(ctx)))
        }
    }

    fn client_failed(&self, error: &io::Error, ctx: &Ctx) -> Broken {
        match error.kind() {
            io::ErrorKind::TimedOut if self.client.connection().is_late() => self.late(ctx),
            io::ErrorKind::InvalidData => {
                Broken::Client(Fault::Reply(Reply::bad_request("the framing of the request's body is wrong").closing()))
            }
            _ => Broken::Client(Fault::Gone),
        }
    }

    /// Whose fault it is that the time is over.
    fn late(&self, ctx: &Ctx) -> Broken {
        match self.waiting {
            Waiting::Client if !ctx.patience.is_over() => match self.status {
                Some(_) => Broken::Client(Fault::Cut),
                None => Broken::Client(Fault::Reply(
                    Reply::request_timeout("the request's body did not arrive in time").closing(),
                )),
            },
            _ => Broken::Server(io::Error::new(io::ErrorKind::TimedOut, "the server was silent for too long")),
        }
    }

    /// Sets the time that whoever is waited for has. While a wait goes on, its time goes on.
    fn wait_for(&mut self, who: Waiting, ctx: &Ctx) {
        if std::mem::replace(&mut self.waiting, who) == who {
            return;
        }
        match who {
            Waiting::Client => patience::client(ctx),
            Waiting::Server if self.upload.state == Sending::Body => patience::server(ctx),
            _ => patience::went_on(ctx),
        }
    }

    /// Ends an exchange that failed; gives whether the client did not get what it asked for.
    async fn end(&mut self, fault: Fault, ctx: &mut Ctx) -> bool {
        let reply = match fault {
            Fault::Reply(reply) if self.status.is_none() => reply,
            Fault::Reply(_) | Fault::Cut | Fault::Gone => {
                self.keep = false;
                if let (Fault::Gone, Some(facts)) = (fault, &mut ctx.facts) {
                    facts.cause.get_or_insert("the client left".into());
                }
                return true;
            }
        };
        let (head, body) = answer::render(&reply, self.request, ctx);
        self.keep &= !reply.close;
        let framing = if body.is_empty() { Framing::None } else { Framing::Length(body.len() as u64) };
        self.begin(&head, framing);
        if self.request.method != Method::HEAD {
            self.client.unsent().extend_from_slice(&body);
            self.sent = body.len() as u64;
        }
        self.waiting = Waiting::Nobody;
        let flushed = std::future::poll_fn(|cx| match self.poll_flush(cx, ctx) {
            Poll::Pending => self.client.poll_late(cx).map(|()| Err(Broken::Client(Fault::Cut))),
            flushed => flushed,
        });
        self.keep &= flushed.await.is_ok();
        reply.problem.is_some()
    }
}

impl Upload {
    fn new(framing: Framing) -> Self {
        let (left, state) = match framing {
            Framing::None | Framing::UntilClose => (0, Sending::Done),
            Framing::Length(length) => (length, Sending::Body),
            Framing::Chunked => (0, Sending::Body),
        };
        Self { framing, chunked: Chunked::default(), left, state }
    }

    /// Frames a part of the body for the server; gives how many bytes of data it has.
    fn pass(&mut self, part: &[u8], out: &mut Vec<u8>) -> u64 {
        if self.framing != Framing::Chunked {
            out.extend_from_slice(part);
            self.left = self.left.saturating_sub(part.len() as u64);
            if self.left == 0 {
                self.state = Sending::Done;
            }
            return part.len() as u64;
        }
        // The connection lets nothing pass that is not properly framed.
        let (mut at, mut passed) = (0, 0);
        loop {
            at += self.chunked.skip(&part[at..]).unwrap_or(part.len() - at);
            let length = self.chunked.data().min((part.len() - at) as u64) as usize;
            if length == 0 {
                break;
            }
            push_chunk_size(length, out);
            out.extend_from_slice(&part[at..at + length]);
            out.extend_from_slice(b"\r\n");
            self.chunked.take(length as u64);
            at += length;
            passed += length as u64;
        }
        if self.chunked.is_done() {
            out.extend_from_slice(b"0\r\n\r\n");
            self.state = Sending::Done;
        }
        passed
    }

    fn is_sent(&self) -> bool {
        self.state == Sending::Done
    }
}

fn push_chunk_size(size: usize, out: &mut Vec<u8>) {
    use std::io::Write;
    let _ = write!(out, "{size:x}\r\n");
}

fn explain(ctx: &mut Ctx, what: &str, error: &io::Error) {
    if let Some(facts) = &mut ctx.facts {
        facts.cause = Some(format!("{what}: {error}").into());
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// The value of `Date`, which is the same for a whole second.
fn with_date(write: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: std::cell::RefCell<(u64, String)> = const { std::cell::RefCell::new((0, String::new())) };
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(second, text)| {
        if *second != now || text.is_empty() {
            *second = now;
            let stamp = jiff::Timestamp::from_second(i64::try_from(now).unwrap_or(0)).unwrap_or_default();
            *text = stamp.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        }
        write(text.as_bytes());
    });
}
