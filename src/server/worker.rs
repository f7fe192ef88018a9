//! A worker: accepts connections from its own sockets and serves what comes on them, on one thread.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use socket2::Socket;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::connection::{Conn, Next};
use super::listener::Address;
use super::transport::{Plain, Transport};
use super::{BoundListener, BoundSocket, Edge, Ending, Order, Refused, proxy_protocol};
use crate::facts::{Connection, Listener, Tls};
use crate::proxy::{Direct, LongWay, Served};
use crate::telemetry::metrics::traffic::{ListenerCounts, Rejected};

/// One thread's part of the server.
pub(super) struct Worker<A> {
    pub app: Arc<A>,
    pub direct: Option<Direct>,
    pub edge: Arc<dyn Edge>,
    pub watch: watch::Receiver<bool>,
    pub ending: Arc<Mutex<Option<Ending>>>,
    pub live: AtomicUsize,
}

/// Counts a connection while it lives.
struct Counted<A> {
    worker: Arc<Worker<A>>,
    listener: Arc<BoundListener>,
    facts: Arc<Listener>,
}

impl<A> Drop for Counted<A> {
    fn drop(&mut self) {
        self.worker.live.fetch_sub(1, Ordering::Relaxed);
        self.listener.open.fetch_sub(1, Ordering::Relaxed);
        count(&self.facts, ListenerCounts::closed);
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> Worker<A> {
    /// Works until the server stops and what was under way has ended.
    pub async fn run(self: Arc<Self>, sockets: Vec<BoundSocket>, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut accepting = JoinSet::new();
        for BoundSocket { socket, listener } in sockets {
            accepting.spawn(self.clone().accept(socket, listener));
        }
        let mut watch = self.watch.clone();
        loop {
            tokio::select! {
                _ = watch.wait_for(|stop| *stop) => break,
                Some(order) = orders.recv() => match order {
                    Order::Accept(BoundSocket { socket, listener }) => {
                        accepting.spawn(self.clone().accept(socket, listener));
                    }
                    Order::Answer(answer) => drop(answer.send(())),
                },
                Some(_) = accepting.join_next() => {}
            }
        }
        while accepting.join_next().await.is_some() {}
        self.app.http_cleanup().await;
        let deadline = self.ending.lock().map_or_else(Instant::now, |ending| ending.all);
        while self.live.load(Ordering::Relaxed) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn accept(self: Arc<Self>, socket: Socket, listener: Arc<BoundListener>) {
        let (mut watch, mut stop) = (self.watch.clone(), listener.stop.subscribe());
        let address = listener.spec.load().address.clone();
        let accepted = async {
            match address {
                Address::Inet(_) => {
                    let sockets = TcpListener::from_std(socket.into())?;
                    loop {
                        match sockets.accept().await {
                            Ok((io, peer)) => {
                                let _ = io.set_nodelay(true);
                                let local = io.local_addr().ok();
                                self.take(Plain::Tcp(io), Some(peer), local, &listener);
                            }
                            Err(error) => pause(&error).await,
                        }
                    }
                }
                Address::Unix(_) => {
                    let sockets = UnixListener::from_std(socket.into())?;
                    loop {
                        match sockets.accept().await {
                            Ok((io, _)) => self.take(Plain::Unix(io), None, None, &listener),
                            Err(error) => pause(&error).await,
                        }
                    }
                }
            }
            #[allow(unreachable_code)]
            io::Result::Ok(())
        };
        tokio::select! {
            result = accepted => if let Err(error) = result {
                log::error!("the listener {} stopped: {error}", listener.spec.load().facts.name);
            },
            _ = watch.wait_for(|stop| *stop) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
    }

    fn take(
        self: &Arc<Self>,
        io: Plain,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        listener: &Arc<BoundListener>,
    ) {
        self.live.fetch_add(1, Ordering::Relaxed);
        let open = listener.open.fetch_add(1, Ordering::Relaxed);
        let spec = listener.spec.load_full();
        count(&spec.facts, ListenerCounts::accepted);
        let counted = Counted { worker: self.clone(), listener: listener.clone(), facts: spec.facts.clone() };
        let over = open >= spec.max_connections;
        tokio::spawn(async move {
            let (worker, listener) = (counted.worker.clone(), counted.listener.clone());
            if over {
                worker.turn_away(io, peer, local, &listener).await;
            } else if let Some(conn) = Box::pin(establish(io, peer, local, &listener)).await {
                worker.serve(conn).await;
            }
            drop(counted);
        });
    }

    /// Beyond the cap: plaintext clients are told, TLS clients are not worth a handshake.
    async fn turn_away(
        &self,
        io: Plain,
        peer: Option<SocketAddr>,
        local: Option<SocketAddr>,
        listener: &BoundListener,
    ) {
        let spec = listener.spec.load_full();
        count(&spec.facts, |counts| counts.rejected(Rejected::Limit));
        if spec.tls.is_some() {
            return;
        }
        let connection = Connection::new(peer, local, spec.facts.clone(), None);
        let refused = Refused { status: 503, reason: "the listener has all the connections that it may have" };
        let answer = self.edge.refuse(&connection, refused, b"");
        Conn::new(io.into(), false, Arc::new(connection)).refuse(&answer).await;
    }

    /// Waits until the server stops and connections without a request have waited long enough.
    async fn idle_is_over(&self, watch: &mut watch::Receiver<bool>) {
        let _ = watch.wait_for(|stop| *stop).await;
        let until = self.ending.lock().map(|ending| ending.idle);
        if let Some(until) = until {
            // Boxed, so that connections that wait for a request are no larger for it.
            Box::pin(tokio::time::sleep_until(until.into())).await;
        }
    }

    async fn serve(self: Arc<Self>, mut conn: Box<Conn>) {
        let mut watch = self.watch.clone();
        loop {
            let next = if conn.is_http2() {
                Next::Http2
            } else {
                tokio::select! {
                    biased;
                    next = conn.next() => next,
                    () = self.idle_is_over(&mut watch) => return,
                }
            };
            match next {
                Next::Closed => return,
                Next::Http2 => {
                    conn.unlimited();
                    conn.prepare();
                    Box::pin(self.http2(conn)).await;
                    return;
                }
                Next::Refused(refused, read) => {
                    let answer = self.edge.refuse(conn.connection(), refused, &read);
                    Box::pin(conn.refuse(&answer)).await;
                    return;
                }
                Next::Request(bytes, head) => {
                    let bytes = bytes.freeze();
                    if let (Some(direct), false) = (&self.direct, head.upgrade) {
                        let ending = || *self.watch.borrow();
                        match Box::pin(direct.http1(&mut *conn, &bytes, head.body, &ending)).await {
                            Served::Keep => continue,
                            Served::Close => {
                                Box::pin(conn.end()).await;
                                return;
                            }
                            Served::NotHere => {}
                        }
                    }
                    let session = session(conn, bytes.into());
                    let Some(reused) = self.app.process_new_http(session, &self.watch).await else { return };
                    let (stream, _) = reused.consume();
                    match stream.into_any().downcast::<Conn>() {
                        Ok(same) => conn = same,
                        Err(_) => return,
                    }
                }
            }
        }
    }
}

/// The way by Pingora for requests that the gateway makes itself.
pub(super) fn long_way<A>(app: Arc<A>, watch: watch::Receiver<bool>) -> LongWay
where
    A: HttpServerApp + Send + Sync + 'static,
{
    Arc::new(move |stream, connection, head| {
        let (app, watch) = (app.clone(), watch.clone());
        let mut conn = Box::new(Conn::new(Transport::Within(stream), false, connection));
        // Its head is not read here, and what the gateway writes itself is framed as it says.
        conn.unlimited();
        tokio::spawn(async move { app.process_new_http(session(conn, head), &watch).await.is_some() });
    })
}

/// Hands a connection and the head that was read from it to Pingora.
fn session(mut conn: Box<Conn>, head: bytes::BytesMut) -> ServerSession {
    conn.prepare();
    let mut session = ServerSession::new_http1(conn);
    session.set_pipelined_prefix(head);
    session
}

/// PROXY header and TLS handshake, each within its time.
async fn establish(
    mut io: Plain,
    mut peer: Option<SocketAddr>,
    mut local: Option<SocketAddr>,
    listener: &BoundListener,
) -> Option<Box<Conn>> {
    let spec = listener.spec.load_full();
    let timeouts = &spec.facts.timeouts;
    let reject = |why| count(&spec.facts, |counts| counts.rejected(why));
    if let Some(trust) = &spec.proxy_protocol {
        let trusted = peer.is_none_or(|peer| trust.iter().any(|range| range.contains(peer.ip())));
        if !trusted {
            log::debug!("{peer:?} may not speak the PROXY protocol");
            reject(Rejected::ProxyProtocol);
            return None;
        }
        match tokio::time::timeout(timeouts.head, proxy_protocol::read(&mut io)).await {
            Ok(Ok(Some((source, destination)))) => (peer, local) = (Some(source), Some(destination)),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                log::debug!("the PROXY header of {peer:?} is refused: {error}");
                reject(Rejected::ProxyProtocol);
                return None;
            }
            Err(_) => {
                reject(Rejected::ProxyProtocol);
                return None;
            }
        }
    }
    let facts = spec.facts.clone();
    let Some(tls) = &spec.tls else {
        return Some(Box::new(Conn::new(io.into(), false, Arc::new(Connection::new(peer, local, facts, None)))));
    };
    let stream = match tokio::time::timeout(timeouts.tls_handshake, tls.accept(io)).await {
        Ok(Ok(Some(stream))) => stream,
        // A CA has seen what it came for.
        Ok(Ok(None)) => return None,
        Ok(Err(error)) => {
            log::debug!("the TLS handshake with {peer:?} failed: {error}");
            reject(Rejected::Handshake);
            return None;
        }
        Err(_) => {
            reject(Rejected::HandshakeTimeout);
            return None;
        }
    };
    let tls = stream.get_ref().1;
    let http2 = tls.alpn_protocol() == Some(b"h2");
    let facts_of_tls = Tls {
        version: match tls.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => "TLSv1.2",
        },
        cipher: tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        sni: tls.server_name().map(Box::from),
        client_certificate: tls.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec()),
    };
    let connection = Arc::new(Connection::new(peer, local, facts, Some(facts_of_tls)));
    Some(Box::new(Conn::new(Transport::Tls(Box::new(stream)), http2, connection)))
}

/// Counts something of a listener of which anything is counted.
fn count(listener: &Listener, what: impl FnOnce(&ListenerCounts)) {
    if let Some(counts) = &listener.counts {
        what(counts.own());
    }
}

/// Out of descriptors or memory: accepting at once again would only spin.
async fn pause(error: &io::Error) {
    log::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
