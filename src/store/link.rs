//! A connection to a Redis, and the task that has it: commands of many requests go out together, and the answers come
//! back in their order.
//!
//! It ends with the first thing that goes wrong, and with it all that is under way.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio_rustls::TlsConnector;

use super::resp::{self, Answer};

/// How long connecting may take, from the look-up of the name to the end of the TLS handshake.
const CONNECT: Duration = Duration::from_secs(1);
/// Calls of one connection that may wait to be sent, and as many that may wait for their answers.
pub(super) const MOST: usize = 512;

/// Where a Redis is, and what it is told first.
pub(super) struct Target {
    pub host: Box<str>,
    pub port: u16,
    pub tls: Option<(TlsConnector, ServerName<'static>)>,
    /// `AUTH` and `SELECT`, as they are sent.
    pub greeting: Box<[u8]>,
    /// How many commands that is.
    pub greetings: usize,
    /// The address that was last connected to, so that a request does not wait for the name to be resolved.
    pub known: Mutex<Option<SocketAddr>>,
}

/// A command under way.
pub(super) struct Call {
    pub command: Vec<u8>,
    /// How many numbers its answer may have.
    pub numbers: usize,
    pub to: oneshot::Sender<Result<Answer, Failure>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no connection.
    Connect(Arc<str>),
    /// The connection broke.
    Broken,
    /// It did not come in time.
    Late,
    /// It is not one.
    Garbage,
    /// It is an error, of this code.
    Refused(Box<str>),
    /// Too many are under way.
    Busy,
}

/// Whether a name is looked up although the address that it had is known.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Address {
    Known,
    Anew,
}

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A command that waits for its answer; of the greeting there is nobody to tell.
struct Pending {
    numbers: usize,
    to: Option<oneshot::Sender<Result<Answer, Failure>>>,
}

/// Connects, and carries calls until there can be no more or something goes wrong.
pub(super) async fn run(target: Arc<Target>, mut calls: mpsc::Receiver<Call>) {
    let failure = match target.connect(Address::Known).await {
        Ok(stream) => return exchange(stream, &target, &mut calls).await,
        Err(failure) => failure,
    };
    refuse(&mut calls, &failure);
}

/// Carries calls over a connection until there can be no more or something goes wrong.
pub(super) async fn exchange(stream: Box<dyn Stream>, target: &Target, calls: &mut mpsc::Receiver<Call>) {
    let mut pending: VecDeque<Pending> = (0..target.greetings).map(|_| Pending { numbers: 0, to: None }).collect();
    if let Err(failure) = carry(stream, target, calls, &mut pending).await {
        for to in pending.into_iter().filter_map(|pending| pending.to) {
            let _ = to.send(Err(failure.clone()));
        }
        refuse(calls, &failure);
    }
}

async fn carry(
    stream: Box<dyn Stream>,
    target: &Target,
    calls: &mut mpsc::Receiver<Call>,
    pending: &mut VecDeque<Pending>,
) -> Result<(), Failure> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut out = BytesMut::from(&*target.greeting);
    let mut input = BytesMut::with_capacity(resp::LONGEST);
    let mut unsent = true;
    loop {
        // Calls first: those that are there go out together.
        tokio::select! {
            biased;
            call = calls.recv(), if pending.len() < MOST => match call {
                Some(call) if call.to.is_closed() => {}
                Some(call) => {
                    out.extend_from_slice(&call.command);
                    unsent = true;
                    pending.push_back(Pending { numbers: call.numbers, to: Some(call.to) });
                }
                None => return Ok(()),
            },
            sent = send(&mut writer, &mut out), if unsent => {
                sent.map_err(|_| Failure::Broken)?;
                unsent = false;
            }
            read = reader.read_buf(&mut input) => {
                match read {
                    // Servers close connections that have nothing to do.
                    Ok(0) if pending.is_empty() => return Ok(()),
                    Ok(0) | Err(_) => return Err(Failure::Broken),
                    Ok(_) => answer(&mut input, pending)?,
                }
            }
        }
    }
}

/// Sends all that there is. Nothing is lost or sent twice if this is given up and begun again.
async fn send(writer: &mut (impl AsyncWrite + Unpin), out: &mut BytesMut) -> io::Result<()> {
    writer.write_all_buf(out).await?;
    writer.flush().await
}

/// Gives every whole answer to who waits for it.
fn answer(input: &mut BytesMut, pending: &mut VecDeque<Pending>) -> Result<(), Failure> {
    while !input.is_empty() {
        // What nobody asked for is no answer.
        let numbers = pending.front().ok_or(Failure::Garbage)?.numbers;
        let Some((answer, length)) = resp::parse(input, numbers).map_err(|_| Failure::Garbage)? else { break };
        input.advance(length);
        let Some(Pending { to, .. }) = pending.pop_front() else { break };
        match (to, answer) {
            (Some(to), answer) => drop(to.send(Ok(answer))),
            (None, Answer::Done) => {}
            (None, Answer::Refused(code)) => return Err(Failure::Refused(code)),
            (None, Answer::Numbers(_)) => return Err(Failure::Garbage),
        }
    }
    Ok(())
}

/// Says to who still waits that there is no answer.
fn refuse(calls: &mut mpsc::Receiver<Call>, failure: &Failure) {
    calls.close();
    while let Ok(call) = calls.try_recv() {
        let _ = call.to.send(Err(failure.clone()));
    }
}

impl Target {
    /// Connects to the first of the name's addresses that can be connected to.
    pub async fn connect(&self, address: Address) -> Result<Box<dyn Stream>, Failure> {
        let connecting = async {
            let known = if address == Address::Known { *self.known.lock() } else { None };
            match known {
                Some(address) => self.connect_to(address).await,
                None => self.resolve_and_connect().await,
            }
        };
        let connected = tokio::time::timeout(CONNECT, connecting).await;
        connected
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(|error| Failure::Connect(error.to_string().into()))
    }

    async fn resolve_and_connect(&self) -> io::Result<Box<dyn Stream>> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in tokio::net::lookup_host((&*self.host, self.port)).await? {
            match self.connect_to(address).await {
                Ok(stream) => {
                    *self.known.lock() = Some(address);
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "it cannot be connected to: {error}"),
            Self::Broken => f.write_str("the connection broke"),
            Self::Late => f.write_str("it did not answer in time"),
            Self::Garbage => f.write_str("what it said is no answer of a Redis"),
            Self::Refused(code) => write!(f, "it answered with the error {code}"),
            Self::Busy => f.write_str("too many calls are under way"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(greetings: usize) -> Target {
        let greeting = resp::command(&[b"SELECT", b"1"]).repeat(greetings).into();
        Target { host: "".into(), port: 0, tls: None, greeting, greetings, known: Mutex::default() }
    }

    /// Sends calls of a number each to a server that says this at once; gives what they came to.
    fn told(greetings: usize, calls: usize, said: &'static [u8]) -> Vec<Result<Answer, Failure>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (stream, mut server) = tokio::io::duplex(64 << 10);
            let (sender, mut receiver) = mpsc::channel(MOST);
            let mut answers = Vec::new();
            for _ in 0..calls {
                let (to, answer) = oneshot::channel();
                sender.try_send(Call { command: resp::command(&[b"PING"]), numbers: 1, to }).ok().unwrap();
                answers.push(answer);
            }
            server.write_all(said).await.unwrap();
            server.shutdown().await.unwrap();
            exchange(Box::new(stream), &target(greetings), &mut receiver).await;
            answers.into_iter().map(|mut answer| answer.try_recv().unwrap_or(Err(Failure::Broken))).collect()
        })
    }

    #[test]
    fn answers_come_in_the_order_of_the_calls() {
        let number = |n| Ok(Answer::Numbers([n].into_iter().collect()));
        let refused = Ok(Answer::Refused("NOSCRIPT".into()));
        assert_eq!(told(1, 3, b"+OK\r\n*1\r\n:7\r\n-NOSCRIPT no\r\n*1\r\n:8\r\n"), [number(7), refused, number(8)]);
    }

    #[test]
    fn what_goes_wrong_ends_all_that_is_under_way() {
        assert_eq!(told(0, 2, b""), [Err(Failure::Broken), Err(Failure::Broken)]);
        assert_eq!(told(0, 2, b"+PONG\r\n$7\r\n"), [Ok(Answer::Done), Err(Failure::Garbage)]);
        assert_eq!(told(0, 1, b"*2\r\n:1\r\n:2\r\n"), [Err(Failure::Garbage)]);
        assert_eq!(told(1, 1, b"-WRONGPASS no\r\n"), [Err(Failure::Refused("WRONGPASS".into()))]);
        assert_eq!(told(1, 1, b"*0\r\n*1\r\n:1\r\n"), [Err(Failure::Garbage)]);
        assert_eq!(told(0, 1, b"*1\r\n:1\r\n*1\r\n"), [Ok(Answer::Numbers([1].into_iter().collect()))]);
    }
}
