//! Servers that have no short way are reached by Pingora, at a stream within the gateway.
//!
//! The exchange at hand is the client at one end of it. The other end is served like any connection, but what its request
//! is known to be is handed over, and what is found out there comes back by [`Elsewhere`].

use std::io;
use std::sync::Arc;

use ::http::HeaderMap;
use bytes::BytesMut;
use parking_lot::Mutex;

use super::exchange::{Broken, Client, Exchange, Fault};
use super::{Direct, explain};
use crate::facts::Facts;
use crate::http1::write_request;
use crate::proxy::{Ctx, answer, patience};
use crate::reply::Reply;
use crate::upstream::Server;

/// What the two ends of the stream may have under way.
const WITHIN: usize = 64 << 10;

/// What an exchange found out at the other end.
#[derive(Default)]
pub(in crate::proxy) struct Elsewhere {
    /// What is known of the request there, once there is an answer.
    pub facts: Mutex<Option<Box<Facts>>>,
    /// What came after the body of the answer.
    pub trailers: Mutex<Option<HeaderMap>>,
}

impl Direct {
    /// Takes an exchange to a server that has no short way.
    pub(super) async fn by_pingora<C: Client>(
        &self,
        exchange: &mut Exchange<'_, C>,
        ctx: &mut Ctx,
    ) -> Result<(), Fault> {
        let Some(facts) = &ctx.facts else {
            return Err(Fault::Reply(Reply::internal("nothing is known of the request")));
        };
        let connection = Arc::new(facts.connection.within());
        let elsewhere = Arc::new(Elsewhere::default());
        connection.hand(Box::new(Ctx { fetching: Some(elsewhere.clone()), ..ctx.for_fetch(connection.clone()) }));
        ctx.elsewhere = Some(elsewhere);
        // How long the server may take is looked at at the other end.
        patience::elsewhere(ctx);
        let (here, there) = tokio::io::duplex(WITHIN);
        let mut head = Vec::new();
        write_request(exchange.request, exchange.upload.framing, &mut head);
        (self.long_way)(there, connection, BytesMut::from(&head[..]), exchange.upload.framing);
        exchange.listen(&mut Server::within(here), ctx).await.map_err(|broken| match broken {
            Broken::Server(error) if exchange.status.is_none() => {
                explain(ctx, "the exchange with the server", &error);
                Fault::Reply(answer::upstream_failed(ctx, error.kind() == io::ErrorKind::TimedOut))
            }
            broken => broken.into(),
        })
    }
}
