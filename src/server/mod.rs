//! Listeners and workers: our own accept loop under Pingora's proxy.
//!
//! A worker is a thread with a runtime, a socket of every TCP listener (`SO_REUSEPORT`), a Pingora proxy and its
//! pool of upstream connections. A request stays on its worker, so nothing wakes another thread. A connection
//! that waits for a request holds no buffer.

pub mod acme;
mod connection;
pub mod handover;
pub(crate) mod head;
mod http2;
pub mod listener;
pub mod otlp;
mod proxy_protocol;
mod tls;
mod transport;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora_core::apps::HttpServerApp;
use socket2::{Domain, Socket, Type};
use tokio::sync::{mpsc, oneshot, watch};

use crate::facts::Connection;
use crate::proxy::{Direct, LongWay};
use handover::{Channel, Inherited};
use listener::{Address, ListenerSpec};
use worker::Worker;

pub use head::Refused;
pub use tls::expiry::Expiry;

/// What the server asks of the gateway outside Pingora's hooks.
pub trait Edge: Send + Sync + 'static {
    /// The answer for a request that never became one, as a whole HTTP/1.1 response; also counts and logs it.
    /// `head` is what was read.
    fn refuse(&self, connection: &Connection, refused: Refused, head: &[u8]) -> Vec<u8>;
}

/// Sockets that are bound and listen, and nobody accepts yet.
pub struct Bound {
    workers: Vec<Vec<BoundSocket>>,
    listening: Vec<Listening>,
    addresses: Vec<(Box<str>, Address)>,
}

/// A server at work.
pub struct Server {
    shutdown: watch::Sender<bool>,
    workers: Mutex<Vec<(JoinHandle<()>, mpsc::UnboundedSender<Order>)>>,
    listening: Mutex<Vec<Listening>>,
    ending: Arc<Mutex<Option<Ending>>>,
}

/// Makes the short way beside a long one.
pub type MakeDirect = Box<dyn FnOnce(LongWay) -> Direct>;

/// What a worker is told.
enum Order {
    Accept(BoundSocket),
    /// A worker that does not answer hangs.
    Answer(oneshot::Sender<()>),
}

/// Until when connections may live on once the server stops.
#[derive(Clone, Copy)]
struct Ending {
    /// Those that wait for a request.
    idle: Instant,
    all: Instant,
}

/// A listener with its sockets, to be given to another process; the workers accept from duplicates.
struct Listening {
    listener: Arc<BoundListener>,
    sockets: Vec<Socket>,
}

struct BoundSocket {
    socket: Socket,
    listener: Arc<BoundListener>,
}

struct BoundListener {
    /// What holds for the next connection.
    spec: ArcSwap<ListenerSpec>,
    /// Set when the listener is no longer in the configuration.
    stop: watch::Sender<bool>,
    open: AtomicUsize,
}

/// Binds every listener for every worker, or takes the sockets that are inherited for it.
///
/// # Errors
/// Every address that cannot be bound, with the reason.
pub fn bind(specs: &[Arc<ListenerSpec>], threads: usize, inherited: &mut Inherited) -> Result<Bound, Vec<String>> {
    let workers = (0..threads.max(1)).map(|_| Vec::new()).collect();
    let mut bound = Bound { workers, listening: Vec::new(), addresses: Vec::new() };
    let mut errors = Vec::new();
    for spec in specs {
        let (stop, _) = watch::channel(false);
        let listener = BoundListener { spec: ArcSwap::new(spec.clone()), stop, open: AtomicUsize::new(0) };
        if let Err(error) = bound.add(Arc::new(listener), inherited) {
            let hint = match error.kind() {
                io::ErrorKind::AddrInUse => ": another process listens there",
                io::ErrorKind::PermissionDenied => ": ports below 1024 need the capability CAP_NET_BIND_SERVICE",
                _ => "",
            };
            errors.push(format!("cannot listen on {} ({}): {error}{hint}", spec.address, spec.facts.name));
        }
    }
    if errors.is_empty() { Ok(bound) } else { Err(errors) }
}

impl Bound {
    /// Where the listeners are, by name, with the ports that the system chose.
    pub fn addresses(&self) -> &[(Box<str>, Address)] {
        &self.addresses
    }

    /// Starts the workers. `app` makes each worker's own proxy, on its thread, and the short way beside it that its
    /// requests are tried on first.
    ///
    /// # Errors
    /// A thread or a runtime cannot be made.
    pub fn run<A>(
        self,
        app: impl Fn() -> (A, Option<MakeDirect>) + Send + Sync + 'static,
        edge: Arc<dyn Edge>,
    ) -> io::Result<Server>
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let (shutdown, watch) = watch::channel(false);
        let ending = Arc::new(Mutex::new(None));
        let app = Arc::new(app);
        let mut workers = Vec::new();
        for (i, sockets) in self.workers.into_iter().enumerate() {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (app, edge, watch, ending) = (app.clone(), edge.clone(), watch.clone(), ending.clone());
            let (tell, orders) = mpsc::unbounded_channel();
            let work = move || {
                runtime.block_on(async move {
                    let (app, direct) = app();
                    let (app, live) = (Arc::new(app), AtomicUsize::new(0));
                    let direct = direct.map(|make| make(worker::long_way(app.clone(), watch.clone())));
                    Arc::new(Worker { app, direct, edge, watch, ending, live }).run(sockets, orders).await;
                });
            };
            workers.push((std::thread::Builder::new().name(format!("worker-{i}")).spawn(work)?, tell));
        }
        Ok(Server { shutdown, workers: Mutex::new(workers), listening: Mutex::new(self.listening), ending })
    }

    fn add(&mut self, listener: Arc<BoundListener>, inherited: &mut Inherited) -> io::Result<()> {
        let spec = listener.spec.load_full();
        let mut sockets = inherited.take(&spec)?;
        if sockets.is_empty() {
            sockets = open(&spec.address, self.workers.len())?;
        }
        self.addresses.push((spec.facts.name.clone(), handover::local(&sockets[0])?));
        let threads = self.workers.len();
        // Every worker has a socket and every socket a worker, however many there are of each.
        for i in 0..threads.max(sockets.len()) {
            let socket = sockets[i % sockets.len()].try_clone()?;
            self.workers[i % threads].push(BoundSocket { socket, listener: listener.clone() });
        }
        self.listening.push(Listening { listener, sockets });
        Ok(())
    }
}

/// Sockets for that many workers.
fn open(address: &Address, workers: usize) -> io::Result<Vec<Socket>> {
    match address {
        Address::Inet(address) => {
            let mut address = *address;
            probe(address)?;
            let mut sockets = Vec::new();
            for _ in 0..workers {
                let socket = inet_socket(address)?;
                // A port that the system chose for the first socket holds for all.
                if let Some(bound) = socket.local_addr()?.as_socket() {
                    address = bound;
                }
                sockets.push(socket);
            }
            Ok(sockets)
        }
        Address::Unix(path) => {
            if path.exists() && std::os::unix::net::UnixStream::connect(path).is_err() {
                std::fs::remove_file(path)?;
            }
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&socket2::SockAddr::unix(path)?)?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
            socket.listen(BACKLOG)?;
            socket.set_nonblocking(true)?;
            Ok(vec![socket])
        }
    }
}

impl Server {
    /// Stops accepting, and lets what is under way end within `grace`. A connection that waits for a request may
    /// have it within `idle`: closing it at once could meet a request that is on its way.
    pub fn stop(&self, grace: Duration, idle: Duration) {
        let now = Instant::now();
        *self.ending.lock() = Some(Ending { idle: now + idle.min(grace), all: now + grace });
        let _ = self.shutdown.send(true);
        self.listening.lock().clear();
    }

    /// Stops, and returns when all workers are gone.
    pub fn drain(&self, grace: Duration, idle: Duration) {
        self.stop(grace, idle);
        self.join();
    }

    /// Returns when all workers are gone, once it was stopped.
    pub fn join(&self) {
        for (thread, _) in std::mem::take(&mut *self.workers.lock()) {
            let _ = thread.join();
        }
    }

    /// Gives the listening sockets to another process, and goes on accepting.
    ///
    /// # Errors
    /// The other process does not take them.
    pub fn give(&self, channel: &Channel) -> io::Result<()> {
        channel.give(&self.listening.lock())
    }

    /// Whether every worker answers within `patience`.
    pub async fn is_alive(&self, patience: Duration) -> bool {
        let asked = |(_, worker): &(_, mpsc::UnboundedSender<Order>)| {
            let (answer, answered) = oneshot::channel();
            worker.send(Order::Answer(answer)).is_ok().then_some(answered)
        };
        let Some(answers) = self.workers.lock().iter().map(asked).collect::<Option<Vec<_>>>() else { return false };
        let all = async {
            for answer in answers {
                answer.await?;
            }
            Ok::<(), oneshot::error::RecvError>(())
        };
        matches!(tokio::time::timeout(patience, all).await, Ok(Ok(())))
    }

    /// Goes on with these listeners: binds what is new, gives what stays its new settings for the connections to
    /// come, and accepts no more at what is gone. Gives where the new ones are.
    ///
    /// # Errors
    /// A new one cannot be bound, with the reason; then nothing has changed.
    pub fn apply(&self, specs: &[Arc<ListenerSpec>]) -> Result<Vec<(Box<str>, Address)>, Vec<String>> {
        let mut listening = self.listening.lock();
        let find = |spec: &ListenerSpec| {
            let is_same = |listening: &&Listening| {
                let old = listening.listener.spec.load();
                spec.is_at(&old.address, &old.facts.name)
            };
            listening.iter().find(is_same).map(|listening| listening.listener.clone())
        };
        let (mut staying, mut new) = (Vec::new(), Vec::new());
        for kept in specs {
            match find(kept) {
                Some(listener) => staying.push((listener, kept.clone())),
                None => new.push(kept.clone()),
            }
        }
        let workers = self.workers.lock();
        let bound = bind(&new, workers.len(), &mut Inherited::default())?;
        listening.retain(|Listening { listener, .. }| {
            let stays = staying.iter().any(|(staying, _)| Arc::ptr_eq(staying, listener));
            if !stays {
                listener.stop.send_replace(true);
                if let Address::Unix(path) = &listener.spec.load().address {
                    let _ = std::fs::remove_file(path);
                }
            }
            stays
        });
        listening.extend(bound.listening);
        for (listener, spec) in staying {
            listener.spec.store(spec);
        }
        for ((_, worker), sockets) in workers.iter().zip(bound.workers) {
            sockets.into_iter().for_each(|socket| drop(worker.send(Order::Accept(socket))));
        }
        Ok(bound.addresses)
    }
}

const BACKLOG: i32 = 8192;

/// `SO_REUSEPORT` would let two gateways of one user share a port without a word.
fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())
}

fn inet_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}
