//! Listening sockets that another process bound: systemd, before the gateway began (socket activation), or the
//! gateway that ran before, which gives its own over at an upgrade.
//!
//! Sockets of systemd are taken by the listener that has the name of the socket unit's `FileDescriptorName=`, else by
//! the one that has their address. Sockets of a predecessor are taken by the listener that has the address that they
//! were bound for. What is handed over is the socket itself with its queue: no connection is refused meanwhile.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use listenfd::ListenFd;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use socket2::Socket;

use super::Listening;
use super::listener::{Address, ListenerSpec};

/// Sockets that wait for their listeners.
#[derive(Default)]
pub struct Inherited(Vec<Handed>);

struct Handed {
    name: String,
    /// What a predecessor bound it for; `None` for a socket of systemd.
    configured: Option<Address>,
    socket: Socket,
}

impl Inherited {
    /// The sockets that systemd hands over. Forgets about them, so this is asked once, before there are threads.
    ///
    /// # Errors
    /// A descriptor that is not a listening stream socket.
    pub fn from_systemd() -> io::Result<Self> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut fds = ListenFd::from_env();
        let mut handed = Vec::new();
        for i in 0..fds.len() {
            let socket = match fds.take_tcp_listener(i) {
                Ok(socket) => socket.map(Socket::from),
                Err(_) => fds.take_unix_listener(i)?.map(Socket::from),
            };
            let name = names.next().unwrap_or_default().to_owned();
            handed.extend(socket.map(|socket| Handed { name, configured: None, socket }));
        }
        Ok(Self(handed))
    }

    /// Takes the sockets for a listener; none, if nobody bound them.
    pub(super) fn take(&mut self, spec: &ListenerSpec) -> io::Result<Vec<Socket>> {
        let fits = |handed: &mut Handed| match &handed.configured {
            Some(address) => spec.is_at(address, &handed.name),
            None => {
                let is_there = local(&handed.socket).is_ok_and(|address| address == spec.address);
                is_there || (*handed.name == *spec.facts.name && same_family(&handed.socket, &spec.address))
            }
        };
        let taken: Vec<Handed> = self.0.extract_if(.., fits).collect();
        for handed in &taken {
            handed.socket.set_nonblocking(true)?;
            let address = local(&handed.socket)?;
            if handed.configured.is_none() && address != spec.address {
                let (name, configured) = (&spec.facts.name, &spec.address);
                log::warn!("the listener {name} is at {address}, where systemd listens, and not at {configured}");
            }
        }
        Ok(taken.into_iter().map(|handed| handed.socket).collect())
    }

    /// Where the sockets are that nobody took.
    pub fn left(&self) -> impl Iterator<Item = String> {
        let shown = |handed: &Handed| match local(&handed.socket) {
            Ok(address) => format!("{} ({address})", handed.name),
            Err(_) => handed.name.clone(),
        };
        self.0.iter().map(shown)
    }
}

/// Where a socket is bound.
pub(super) fn local(socket: &Socket) -> io::Result<Address> {
    let address = socket.local_addr()?;
    let unix = || address.as_pathname().map(|path| Address::Unix(path.to_owned()));
    let address = address.as_socket().map(Address::Inet).or_else(unix);
    address.ok_or_else(|| io::Error::other("the socket has no address"))
}

fn same_family(socket: &Socket, address: &Address) -> bool {
    local(socket).is_ok_and(|local| matches!(local, Address::Inet(_)) == matches!(address, Address::Inet(_)))
}

/// Between a gateway and the one that takes its place.
pub struct Channel(OwnedFd);

/// What they say to each other.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The sockets that come with it were bound for this listener.
    Sockets {
        /// The name of the listener.
        name: String,
        /// The address in the configuration.
        address: String,
    },
    /// The lock of the state directory comes with it.
    StateDirectory,
    /// There is nothing more to give.
    Given,
    /// The successor, which has this number, takes connections.
    Ready(u32),
    /// The successor cannot, for this reason.
    Failed(String),
    /// The successor is the gateway from now on.
    Go,
}

/// Descriptors in one message; the kernel's limit is 253.
const MOST_DESCRIPTORS: usize = 64;
/// Bytes of a message; a longer reason is cut.
const LONGEST: usize = 64 << 10;

impl Channel {
    /// A channel, and its other end for another process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(ours), theirs))
    }

    /// The end that another process left here.
    pub fn from_end(end: OwnedFd) -> Self {
        Self(end)
    }

    /// Asks the gateway that waits at `path` to take over.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let socket = packets()?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// Waits at `path` for the gateway that gives over.
    pub fn accept(path: &Path, patience: Duration) -> io::Result<Self> {
        let _ = std::fs::remove_file(path);
        let socket = packets()?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        rustix::net::listen(&socket, 1)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(patience))?;
        let accepted = rustix::net::accept_with(&socket, SocketFlags::CLOEXEC);
        let _ = std::fs::remove_file(path);
        Ok(Self(accepted?))
    }

    /// Gives the sockets of a server.
    pub(super) fn give(&self, listening: &[Listening]) -> io::Result<()> {
        for Listening { listener, sockets } in listening {
            let spec = listener.spec.load();
            for sockets in sockets.chunks(MOST_DESCRIPTORS) {
                let (name, address) = (spec.facts.name.to_string(), spec.address.to_string());
                let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
                self.send(&Message::Sockets { name, address }, &fds)?;
            }
        }
        Ok(())
    }

    /// Takes everything that is given. With the sockets there may come the lock of a state directory.
    pub fn take(&self, patience: Duration) -> io::Result<(Inherited, Option<OwnedFd>)> {
        let (mut handed, mut lock) = (Vec::new(), None);
        loop {
            let (message, fds) = self.receive(patience)?;
            match message {
                Message::Sockets { name, address } => {
                    let configured: Address = address.parse().map_err(io::Error::other)?;
                    handed.extend(fds.into_iter().map(|fd| Handed {
                        name: name.clone(),
                        configured: Some(configured.clone()),
                        socket: Socket::from(fd),
                    }));
                }
                Message::StateDirectory => lock = fds.into_iter().next(),
                Message::Given => return Ok((Inherited(handed), lock)),
                other => return Err(io::Error::other(format!("the predecessor says {other:?}"))),
            }
        }
    }

    /// Sends a message with descriptors.
    pub fn send(&self, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = match message {
            // As JSON a byte may become six.
            Message::Failed(why) => {
                let most = why.len().min(LONGEST / 8);
                serde_json::to_vec(&Message::Failed(String::from_utf8_lossy(&why.as_bytes()[..most]).into_owned()))?
            }
            message => serde_json::to_vec(message)?,
        };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        set_socket_timeout(&self.0, Timeout::Send, Some(Duration::from_secs(10)))?;
        rustix::net::sendmsg(&self.0, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// Waits for a message. Without one in time this fails with `WouldBlock`, and once the other end is closed with
    /// `UnexpectedEof`.
    pub fn receive(&self, patience: Duration) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut text = vec![0; LONGEST];
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        let mut buffers = [IoSliceMut::new(&mut text)];
        let received = rustix::net::recvmsg(&self.0, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        match received.bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => Ok((serde_json::from_slice(&text[..bytes])?, fds)),
        }
    }
}

fn packets() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn what_is_said_and_given_arrives() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::from_end(theirs);
        let (one, other) = UnixStream::pair().unwrap();
        ours.send(&Message::StateDirectory, &[one.as_fd()]).unwrap();
        ours.send(&Message::Given, &[]).unwrap();
        drop((one, other));
        let (inherited, lock) = theirs.take(SOON).unwrap();
        assert!(inherited.0.is_empty() && lock.is_some());
        let why = "ü\n".repeat(LONGEST);
        theirs.send(&Message::Failed(why.clone()), &[]).unwrap();
        match ours.receive(SOON).unwrap() {
            (Message::Failed(said), _) => {
                assert!(said.len() > 1000 && why.starts_with(said.trim_end_matches('\u{fffd}')))
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(ours.receive(Duration::from_millis(1)).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(ours.receive(SOON).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
