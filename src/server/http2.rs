//! HTTP/2 connections: streams are accepted here and served as tasks of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::protocols::http::v2::server::{H2Accept, H2Options, HttpSession, handshake};
use pingora_core::protocols::{Digest, GetProxyDigest, GetSocketDigest, GetTimingDigest, Ssl};
use tokio::sync::Notify;

use super::connection::Conn;
use super::worker::Worker;

/// Streams at a time.
const MOST_STREAMS: u32 = 100;
/// Malformed streams before the connection is ended.
const MOST_MALFORMED: usize = 32;

impl<A: HttpServerApp + Send + Sync + 'static> Worker<A> {
    /// Serves a connection until the client leaves, is idle for too long, or the gateway stops.
    pub(super) async fn http2(self: Arc<Self>, conn: Box<Conn>) {
        let connection = conn.connection().clone();
        let listener = &connection.listener;
        let digest = Arc::new(Digest {
            ssl_digest: conn.get_ssl_digest(),
            timing_digest: conn.get_timing_digest(),
            proxy_digest: conn.get_proxy_digest(),
            socket_digest: conn.get_socket_digest(),
        });
        let mut options = H2Options::new();
        let most = u32::try_from(listener.limits.max_header_size).unwrap_or(u32::MAX);
        options.max_concurrent_streams(MOST_STREAMS).max_header_list_size(most);
        let Ok(Ok(mut h2)) = tokio::time::timeout(listener.timeouts.head, handshake(conn, Some(options))).await else {
            return;
        };
        let mut watch = self.watch.clone();
        let streams = Arc::new(Streams::default());
        let (mut stopping, mut malformed) = (false, 0);
        loop {
            let accepted = tokio::select! {
                biased;
                _ = watch.wait_for(|stop| *stop), if !stopping => {
                    h2.graceful_shutdown();
                    stopping = true;
                    continue;
                }
                accepted = HttpSession::from_h2_conn(&mut h2, digest.clone()) => accepted,
                () = streams.idle(listener.timeouts.idle) => return,
            };
            match accepted {
                Ok(Some(H2Accept::Session(session))) => {
                    let (worker, open, connection) = (self.clone(), streams.open(), connection.clone());
                    tokio::spawn(async move {
                        worker.stream(session, connection).await;
                        drop(open);
                    });
                }
                Ok(Some(H2Accept::Rejected)) => {
                    malformed += 1;
                    if malformed >= MOST_MALFORMED {
                        return;
                    }
                }
                Ok(None) | Err(_) => return,
            }
        }
    }

    async fn stream(&self, mut session: HttpSession, connection: Arc<crate::facts::Connection>) {
        if let Some(direct) = &self.direct
            && direct.http2(&mut session, connection).await
        {
            return;
        }
        Box::pin(self.app.process_new_http(ServerSession::new_http2(session), &self.watch)).await;
    }
}

/// How many streams are open.
#[derive(Default)]
struct Streams {
    open: AtomicUsize,
    closed: Notify,
}

/// A stream that is open.
struct Open(Arc<Streams>);

impl Streams {
    fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open(self.clone())
    }

    /// Waits until no stream was open for this long.
    async fn idle(&self, time: std::time::Duration) {
        while self.open.load(Ordering::Relaxed) > 0 {
            self.closed.notified().await;
        }
        tokio::time::sleep(time).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.closed.notify_one();
        }
    }
}
