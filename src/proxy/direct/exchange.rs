//! One request and its answer: from one attempt at a server to the end, whatever the client speaks.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::http::header::CONTENT_LENGTH;
use ::http::{Method, Version};
use bytes::Bytes;
use pingora_http::{RequestHeader, ResponseHeader};

use super::Ending;
use super::shaped::Source;
use super::upload::{Sending, Upload};
use crate::facts::Connection;
use crate::http1::{Framing, Malformed, ResponseHead, write_request};
use crate::proxy::patience::{self, Patience};
use crate::proxy::{Ctx, answer, forward, mirror};
use crate::reply::Reply;
use crate::upstream::Server;

/// Interim answers before an answer.
const MOST_INTERIM: usize = 100;

/// The client's side of an exchange.
pub(super) trait Client: Send + Sized {
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
    /// Passes on a part of the body of an answer that is here already, maybe the last, and counts what was sent of it.
    fn pass(
        exchange: &mut Exchange<'_, Self>,
        part: Bytes,
        last: bool,
        ctx: &mut Ctx,
    ) -> impl Future<Output = Result<(), Broken>> + Send;
    /// Whether the answer is stored, and so is as it would be for anybody.
    const STORES: bool = false;
    /// Shapes the head of the server's answer.
    fn shape(&mut self, head: &mut ResponseHeader, request: &RequestHeader, ctx: &mut Ctx) {
        ctx.shape_answer(head, request);
    }
}

/// A policy ends the exchange.
pub(super) fn refused(reply: Reply) -> Broken {
    Broken::Client(Fault::Reply(reply))
}

/// The request's body takes too long.
pub(super) fn too_slow() -> Fault {
    Fault::Reply(Reply::request_timeout("the request's body did not arrive in time").closing())
}

/// What the head of an answer opens.
pub(super) struct Opening {
    /// How the body is framed that follows.
    pub body: Framing,
    /// Whether the connection is to be kept, if it can be.
    pub keep: bool,
}

/// Why an exchange ends before it is over.
pub(super) enum Fault {
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
pub(super) enum Broken {
    /// The answer is worth another try.
    Again,
    /// The server failed.
    Server(io::Error),
    /// The client failed, or a policy stopped the request.
    Client(Fault),
}

impl From<Broken> for Fault {
    /// What is left of an answer that is not tried again.
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Client(fault) => fault,
            Broken::Again | Broken::Server(_) => Self::Cut,
        }
    }
}

/// Who is waited for.
#[derive(PartialEq, Clone, Copy)]
pub(super) enum Waiting {
    Nobody,
    Client,
    Server,
}

/// One request and its answer.
pub(super) struct Exchange<'e, C> {
    pub client: &'e mut C,
    pub request: &'e RequestHeader,
    pub keep: bool,
    pub ending: &'e Ending<'e>,
    pub upload: Upload,
    pub waiting: Waiting,
    /// The status that the client was sent.
    pub status: Option<u16>,
    /// Bytes of the answer's body that went to the client.
    pub sent: u64,
}

impl<C: Client> Exchange<'_, C> {
    /// One attempt, from the head of the request to the end of the answer.
    pub(super) async fn attempt(&mut self, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        let mut head = self.request.clone();
        forward::shape(self.request, &mut head, ctx).map_err(refused)?;
        write_request(&head, self.upload.framing, &mut server.unsent);
        drop(head);
        self.listen(server, ctx).await
    }

    /// The head of the request is written: sends it and the body, and passes the answer on.
    pub(super) async fn listen(&mut self, server: &mut Server, ctx: &mut Ctx) -> Result<(), Broken> {
        self.upload.begin(server);
        self.waiting = Waiting::Nobody;
        if self.upload.is_read() {
            patience::sent(ctx);
            if let Some(body) = self.upload.held() {
                mirror::part(body, ctx);
            }
            mirror::whole(self.upload.framing, ctx);
        }
        let bodiless = self.request.method == Method::HEAD;
        let mut interim = 0;
        loop {
            let ResponseHead { mut head, body, .. } = poll_fn(|cx| self.poll_answer(cx, server, bodiless, ctx)).await?;
            if head.status == 101 {
                return Err(Broken::Server(Malformed("the server switched protocols unasked").into()));
            }
            if head.status.is_informational() {
                interim += 1;
                if interim > MOST_INTERIM {
                    return Err(Broken::Server(Malformed("the server gave interim answers only").into()));
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
            ctx.catch_up();
            if let Some(shaping) = ctx.shaping(&mut head, (true, !C::STORES), self.request).map_err(refused)? {
                let bodiless = bodiless || matches!(head.status.as_u16(), 204 | 304);
                return self.shaped(head, Source::Server(server), bodiless, shaping, ctx).await;
            }
            self.client.shape(&mut head, self.request, ctx);
            self.begin(head, body).map_err(|_| Broken::Client(Fault::Gone))?;
            return C::relay(self, server, ctx).await;
        }
    }

    /// Waits for a part of the answer's body, while the rest of the request is sent; `false` when it ended.
    pub(super) async fn more(&mut self, server: &mut Server, ctx: &mut Ctx) -> Result<bool, Broken> {
        poll_fn(|cx| {
            self.poll_upload(cx, server, ctx)?;
            match server.poll_body(cx) {
                Poll::Ready(more) => Poll::Ready(more.map_err(Broken::Server)),
                Poll::Pending => {
                    self.wait_for(Waiting::Server, ctx);
                    self.poll_client(cx, ctx)
                }
            }
        })
        .await
    }

    /// The exchange went on; it may have taken too long in all.
    pub(super) fn went_on(&mut self, ctx: &Ctx) -> Result<(), Broken> {
        self.waiting = Waiting::Nobody;
        match ctx.patience.is_over() {
            true => Err(Broken::Server(io::ErrorKind::TimedOut.into())),
            false => Ok(()),
        }
    }

    /// Writes the head of the answer.
    pub(super) fn begin(&mut self, head: ResponseHeader, body: Framing) -> io::Result<()> {
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
    pub(super) fn poll_upload(
        &mut self,
        cx: &mut Context<'_>,
        server: &mut Server,
        ctx: &mut Ctx,
    ) -> Result<(), Broken> {
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
            if let Some(most) = ctx.max_body()
                && ctx.body > most
            {
                server.unsent.clear();
                let reply = Reply::body_too_large(format!("the body has more than {most} bytes")).closing();
                return Err(Broken::Client(Fault::Reply(reply)));
            }
            mirror::part(&server.unsent, ctx);
            if self.upload.state == Sending::Done {
                self.request_sent(ctx);
                mirror::whole(self.upload.framing, ctx);
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
    pub(super) fn poll_client<T>(&mut self, cx: &mut Context<'_>, ctx: &Ctx) -> Poll<Result<T, Broken>> {
        if self.upload.is_read() {
            let gone = self.client.poll_gone(&ctx.patience, cx);
            gone.map(|error| Err(self.client_failed(&error, ctx)))
        } else {
            self.client.poll_late(&ctx.patience, cx).map(|()| Err(self.late(ctx)))
        }
    }

    pub(super) fn client_failed(&self, error: &io::Error, ctx: &Ctx) -> Broken {
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
    pub(super) fn late(&self, ctx: &Ctx) -> Broken {
        match self.waiting {
            Waiting::Client if !ctx.patience.is_over() => match self.status {
                Some(_) => Broken::Client(Fault::Slow),
                None => Broken::Client(too_slow()),
            },
            _ => Broken::Server(io::Error::new(io::ErrorKind::TimedOut, "the server was silent for too long")),
        }
    }

    /// Sets the time that whoever is waited for has. While a wait goes on, its time goes on.
    pub(super) fn wait_for(&mut self, who: Waiting, ctx: &Ctx) {
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
    pub(super) async fn end(&mut self, fault: Fault, ctx: &mut Ctx) -> bool {
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
        self.waiting = Waiting::Nobody;
        let sent = match self.begin(head, framing) {
            Ok(()) => C::pass(self, body, true, ctx).await.is_ok(),
            Err(_) => false,
        };
        self.keep &= sent;
        reply.problem.is_some()
    }
}
