//! The short way: a request to a server that speaks HTTP/1.1 without TLS goes from socket to socket.
//!
//! It asks the same gateway for the same things in the same order as Pingora's hooks do, and costs little over half
//! as much, for nothing lies between the two connections. What needs more goes the long way, by Pingora: HTTP/2 and
//! TLS to the server, protocols that are switched to, `Expect`.

mod http1;
mod http2;
mod upload;

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, EXPECT};
use ::http::{Method, Version};
use arc_swap::ArcSwap;
use bytes::Bytes;
use pingora_core::protocols::http::v2::server::HttpSession;
use pingora_http::{RequestHeader, ResponseHeader};

use super::log_line::Carried;
use super::patience::Patience;
use super::{Ctx, admit, answer, forward, log_line, patience};
use crate::deadline::Alarm;
use crate::facts::Connection;
use crate::gateway::Gateway;
use crate::http1::{Framing, ResponseHead};
use crate::reply::Reply;
use crate::upstream::{Failure, Idle, Server};
use upload::{Sending, Upload};

use self::http1::Http1;
use self::http2::Http2;

pub use self::http1::Wire;

/// The client's side of an exchange.
trait Client: Send + Sized {
    /// Who it is.
    fn connection(&self) -> &Arc<Connection>;
    /// Reads a part of the request's body and frames it for the server; gives how many bytes of data it has.
    fn poll_body(&mut self, upload: &mut Upload, out: &mut Vec<u8>, cx: &mut Context<'_>) -> Poll<io::Result<u64>>;
    /// The request is read: waits for the client to leave, or for the time to be over (`TimedOut`).
    fn poll_gone(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<io::Error>;
    /// Waits for the time to be over.
    fn poll_late(&mut self, patience: &Patience, cx: &mut Context<'_>) -> Poll<()>;
    /// Passes an interim answer on.
    fn inform(&mut self, head: &ResponseHeader) -> impl Future<Output = io::Result<()>> + Send;
    /// Writes the head of the answer; gives whether the connection can be kept.
    fn begin(&mut self, head: ResponseHeader, opening: Opening) -> io::Result<bool>;
    /// Passes the body of the server's answer on.
    fn relay(
        exchange: &mut Exchange<'_, Self>,
        server: &mut Server,
        ctx: &mut Ctx,
    ) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Ends an answer of the gateway's own, with this body.
    fn finish(
        exchange: &mut Exchange<'_, Self>,
        body: Bytes,
        ctx: &mut Ctx,
    ) -> impl Future<Output = Result<(), Broken>> + Send;
}

/// What the head of an answer opens.
struct Opening {
    /// How the body is framed that follows.
    body: Framing,
    /// Whether the connection is to be kept, if it can be.
    keep: bool,
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

/// Whether a connection is to end with the answer that begins.
pub type Ending<'e> = dyn Fn() -> bool + Send + Sync + 'e;

/// How often idle connections are looked over.
const SWEEP: Duration = Duration::from_secs(5);
/// Interim answers before an answer.
const MOST_INTERIM: usize = 100;

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
    pub async fn http1<W: Wire>(&self, wire: &mut W, head: &Bytes, body: Framing, ending: &Ending<'_>) -> Served {
        let Ok(mut request) = crate::http1::parse_request(head) else { return Served::NotHere };
        if request.headers.contains_key(EXPECT) {
            return Served::NotHere;
        }
        let old = request.version == Version::HTTP_10;
        let keep = crate::http1::keeps_alive(&request.headers, old);
        let ctx = Ctx::new(self.gateway.load_full());
        let mut client = Http1 { wire, old, chunk: None };
        match self.serve(&mut client, &mut request, body, ctx, keep, ending).await {
            None => Served::NotHere,
            Some(true) => Served::Keep,
            Some(false) => Served::Close,
        }
    }

    /// Serves a stream of HTTP/2; gives whether it did.
    pub async fn http2(&self, session: &mut HttpSession, connection: Arc<Connection>) -> bool {
        let empty = ::http::Request::new(()).into_parts().0;
        let mut request = std::mem::replace(session.req_header_mut(), empty.into());
        let length = request.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let body = match (session.is_body_done(), length) {
            (true, _) | (_, Some(0)) => Framing::None,
            (false, Some(length)) => Framing::Length(length),
            (false, None) => Framing::Chunked,
        };
        let mut ctx = Ctx::new(self.gateway.load_full());
        ctx.patience = Patience::own();
        let mut client = Http2 { session, connection, alarm: Alarm::default() };
        let served = match request.headers.contains_key(EXPECT) {
            true => None,
            false => self.serve(&mut client, &mut request, body, ctx, true, &|| false).await,
        };
        if served.is_none() {
            *client.session.req_header_mut() = request;
        } else {
            client.drain().await;
        }
        served.is_some()
    }

    /// Gives whether the connection is to be kept; `None` when the request has to go the long way.
    async fn serve<C: Client>(
        &self,
        client: &mut C,
        request: &mut RequestHeader,
        body: Framing,
        mut ctx: Ctx,
        keep: bool,
        ending: &Ending<'_>,
    ) -> Option<bool> {
        ctx.facts = Some(admit::gather(client.connection().clone(), request));
        let mut verdict = admit::route(request, &mut ctx);
        if ctx.pool().is_some_and(|pool| !pool.is_plain_h1()) {
            return None;
        }
        if verdict.is_ok() {
            verdict = admit::enter(request, &mut ctx).await;
        }
        let upload = Upload::new(body);
        let mut exchange =
            Exchange { client, request, keep, ending, upload, waiting: Waiting::Nobody, status: None, sent: 0 };
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
        log_line::write(request, &carried, &mut ctx);
        Some(keep)
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
                        let failure = if late { Failure::ConnectTimeout } else { Failure::Connect };
                        if forward::broke(method, true, ctx, failure, false) {
                            continue;
                        }
                        return Err(Fault::Reply(answer::upstream_failed(ctx, late)));
                    }
                },
            };
            match exchange.attempt(&mut server, ctx).await {
                Ok(()) => {
                    self.idle.put(&backend, server, exchange.upload.is_read(), pool.keepalive());
                    return Ok(());
                }
                Err(Broken::Again) => {}
                Err(Broken::Server(error)) => {
                    let late = error.kind() == io::ErrorKind::TimedOut;
                    explain(ctx, "the exchange with the server", &error);
                    let untouched = exchange.status.is_none();
                    let failure = if late { Failure::Timeout } else { Failure::Reset };
                    // Who said something was not gone already.
                    let stale = reused && !server.was_heard();
                    if forward::broke(method, untouched, ctx, failure, stale) {
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
    /// The client was silent, or did not read, for too long.
    Slow,
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

/// One request and its answer.
struct Exchange<'e, C> {
    client: &'e mut C,
    request: &'e RequestHeader,
    keep: bool,
    ending: &'e Ending<'e>,
    upload: Upload,
    waiting: Waiting,
    /// The status that the client was sent.
    status: Option<u16>,
    /// Bytes of the answer's body that went to the client.
    sent: u64,
}

impl<C: Client> Exchange<'_, C> {
    /// One attempt, from the head of the request to the end of the answer.
    async fn attempt(&mut self, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        let mut head = self.request.clone();
        forward::shape(self.request, &mut head, ctx).map_err(|reply| Broken::Client(Fault::Reply(reply)))?;
        crate::http1::write_request(&head, self.upload.framing, &mut server.unsent);
        drop(head);
        self.upload.begin(&mut server.unsent);
        self.waiting = Waiting::Nobody;
        if self.upload.is_read() {
            patience::sent(ctx);
        }
        let bodiless = self.request.method == Method::HEAD;
        let mut interim = 0;
        loop {
            let ResponseHead { mut head, body, .. } = poll_fn(|cx| self.poll_answer(cx, server, bodiless, ctx)).await?;
            if head.status == 101 {
                return Err(Broken::Server(invalid("the server switched protocols unasked")));
            }
            if head.status.is_informational() {
                interim += 1;
                if interim > MOST_INTERIM {
                    return Err(Broken::Server(invalid("the server gave interim answers only")));
                }
                self.wait_for(Waiting::Client, ctx);
                if let Err(error) = self.client.inform(&head).await {
                    return Err(self.client_failed(&error, ctx));
                }
                self.waiting = Waiting::Nobody;
                patience::went_on(ctx);
                continue;
            }
            if !forward::answered(&self.request.method, self.status.is_none(), &head, ctx) {
                return Err(Broken::Again);
            }
            if let (Some(route), Some(facts)) = (&ctx.route, &ctx.facts) {
                route.chain.response(&mut head, self.request, facts);
            }
            self.begin(head, body).map_err(|_| Broken::Client(Fault::Gone))?;
            return C::relay(self, server, ctx).await;
        }
    }

    /// Writes the head of the answer.
    fn begin(&mut self, head: ResponseHeader, body: Framing) -> io::Result<()> {
        self.status = Some(head.status.as_u16());
        // What is left of the request's body would stand in the way of the next request.
        let keep = self.keep && self.upload.is_read() && !(self.ending)();
        self.keep = self.client.begin(head, Opening { body, keep })?;
        Ok(())
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

    /// Sends the request, as far as it is there; only an error is an outcome.
    fn poll_upload(&mut self, cx: &mut Context<'_>, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        loop {
            match server.poll_send(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // The server may have answered before it closed: that is worth looking at.
                    server.give_up();
                    if self.upload.state == Sending::Body {
                        self.upload.state = Sending::Refused;
                        self.request_sent(ctx);
                    }
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
            match self.client.poll_body(&mut self.upload, &mut server.unsent, cx) {
                Poll::Pending => {
                    self.wait_for(Waiting::Client, ctx);
                    return Ok(());
                }
                Poll::Ready(Err(error)) => return Err(self.client_failed(&error, ctx)),
                Poll::Ready(Ok(data)) => ctx.body += data,
            }
            self.waiting = Waiting::Nobody;
            if let Some(most) = self.client.connection().listener.limits.max_body
                && ctx.body > most
            {
                server.unsent.clear();
                let reply = Reply::body_too_large(format!("the body has more than {most} bytes")).closing();
                return Err(Broken::Client(Fault::Reply(reply)));
            }
            if self.upload.state == Sending::Done {
                self.request_sent(ctx);
            }
        }
    }

    /// Nothing more of the request is to be sent. An answer that began already has its own time.
    fn request_sent(&self, ctx: &mut Ctx) {
        match self.status {
            None => patience::sent(ctx),
            Some(_) => patience::went_on(ctx),
        }
    }

    /// Waits for the client to leave, and for the time to be over.
    fn poll_client<T>(&mut self, cx: &mut Context<'_>, ctx: &Ctx) -> Poll<Result<T, Broken>> {
        if self.upload.is_read() {
            let gone = self.client.poll_gone(&ctx.patience, cx);
            gone.map(|error| Err(self.client_failed(&error, ctx)))
        } else {
            self.client.poll_late(&ctx.patience, cx).map(|()| Err(self.late(ctx)))
        }
    }

    fn client_failed(&self, error: &io::Error, ctx: &Ctx) -> Broken {
        let over = || ctx.facts.as_ref().is_some_and(|facts| ctx.patience.deadline(facts).is_over());
        match error.kind() {
            io::ErrorKind::TimedOut if over() => self.late(ctx),
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
                Some(_) => Broken::Client(Fault::Slow),
                None => Broken::Client(Fault::Reply(
                    Reply::request_timeout("the request's body did not arrive in time").closing(),
                )),
            },
            _ => Broken::Server(io::Error::new(io::ErrorKind::TimedOut, "the server was silent for too long")),
        }
    }

    /// Sets the time that whoever is waited for has. While a wait goes on, its time goes on.
    fn wait_for(&mut self, who: Waiting, ctx: &Ctx) {
        let before = std::mem::replace(&mut self.waiting, who);
        if before == who {
            return;
        }
        // Who waits for both turns from one to the other and back, which gives neither more time.
        let over = || ctx.facts.as_ref().is_some_and(|facts| ctx.patience.deadline(facts).is_over());
        if before != Waiting::Nobody && over() {
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
            Fault::Reply(_) | Fault::Cut | Fault::Slow | Fault::Gone => {
                self.keep = false;
                let cause = match fault {
                    Fault::Gone => Some("the client left"),
                    Fault::Slow => Some("the client was silent for too long"),
                    Fault::Reply(_) | Fault::Cut => None,
                };
                if let (Some(cause), Some(facts)) = (cause, &mut ctx.facts) {
                    facts.cause = Some(cause.into());
                }
                return true;
            }
        };
        let (mut head, body) = answer::render(&reply, self.request, ctx);
        self.keep &= !reply.close;
        let bodiless = self.request.method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304);
        let body = if bodiless { Bytes::new() } else { body };
        if body.is_empty() && !bodiless && self.request.version != Version::HTTP_2 {
            // A gRPC status is a head alone, whose end HTTP/1 has to be told.
            let _ = head.insert_header(CONTENT_LENGTH, "0");
        }
        let framing = if body.is_empty() { Framing::None } else { Framing::Length(body.len() as u64) };
        self.sent = body.len() as u64;
        self.waiting = Waiting::Nobody;
        let sent = match self.begin(head, framing) {
            Ok(()) => C::finish(self, body, ctx).await.is_ok(),
            Err(_) => false,
        };
        self.keep &= sent;
        reply.problem.is_some()
    }
}

fn explain(ctx: &mut Ctx, what: &str, error: &io::Error) {
    if let Some(facts) = &mut ctx.facts {
        facts.cause = Some(format!("{what}: {error}").into());
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
