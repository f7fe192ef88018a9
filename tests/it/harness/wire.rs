//! HTTP/1.1 as it is on the wire, lenient on purpose: the tests look at what there is, they do not correct it.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustls::{ClientConnection, ServerConnection, StreamOwned};

/// Header fields in their order and spelling; looked up without regard to case.
#[derive(Clone, Default, PartialEq)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// The first value of a field.
    pub fn first(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.first(name).is_some()
    }

    pub fn add(&mut self, name: &str, value: &str) {
        self.0.push((name.to_owned(), value.to_owned()));
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, value)| writeln!(f, "{name}: {value}"))
    }
}

/// A connected socket of any kind.
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    TlsClient(Box<StreamOwned<ClientConnection, TcpStream>>),
    TlsServer(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Socket {
    pub fn set_read_timeout(&self, timeout: Duration) {
        let set = match self {
            Self::Tcp(s) => s.set_read_timeout(Some(timeout)),
            Self::Unix(s) => s.set_read_timeout(Some(timeout)),
            Self::TlsClient(s) => s.sock.set_read_timeout(Some(timeout)),
            Self::TlsServer(s) => s.sock.set_read_timeout(Some(timeout)),
        };
        set.expect("a time-out that is not zero can be set");
    }

    /// Ends our half of the connection.
    pub fn shutdown_write(&mut self) {
        let _ = match self {
            Self::Tcp(s) => s.shutdown(Shutdown::Write),
            Self::Unix(s) => s.shutdown(Shutdown::Write),
            Self::TlsClient(s) => {
                s.conn.send_close_notify();
                s.flush()
            }
            Self::TlsServer(s) => {
                s.conn.send_close_notify();
                s.flush()
            }
        };
    }

    /// The TLS side, if the socket is a TLS client's.
    pub fn tls(&self) -> Option<&ClientConnection> {
        match self {
            Self::TlsClient(s) => Some(&s.conn),
            _ => None,
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buffer),
            Self::Unix(s) => s.read(buffer),
            Self::TlsClient(s) => s.read(buffer),
            Self::TlsServer(s) => s.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(bytes),
            Self::Unix(s) => s.write(bytes),
            Self::TlsClient(s) => s.write(bytes),
            Self::TlsServer(s) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.flush(),
            Self::Unix(s) => s.flush(),
            Self::TlsClient(s) => s.flush(),
            Self::TlsServer(s) => s.flush(),
        }
    }
}

/// Reads messages from a socket and shows every byte that arrives to `tap`.
pub struct Reader {
    pub socket: Socket,
    buffer: Vec<u8>,
    tap: Box<dyn FnMut(&[u8]) + Send>,
}

impl Reader {
    pub fn new(socket: Socket) -> Self {
        Self::tapped(socket, |_| {})
    }

    pub fn tapped(socket: Socket, tap: impl FnMut(&[u8]) + Send + 'static) -> Self {
        Self { socket, buffer: Vec::new(), tap: Box::new(tap) }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)?;
        self.socket.flush()
    }

    /// The start line and the header fields, or `None` when the connection ended before the first byte.
    pub fn head(&mut self) -> io::Result<Option<(String, Fields)>> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if self.fill()? == 0 {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(broken("the connection ended within a head"));
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end).collect();
        let text = String::from_utf8_lossy(&head);
        let mut lines = text.trim_end_matches("\r\n").split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Fields::default();
        for line in lines {
            let (name, value) = line.split_once(':').ok_or_else(|| broken("a header line without a colon"))?;
            fields.add(name, value.trim());
        }
        Ok(Some((start, fields)))
    }

    pub fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            if self.fill()? == 0 {
                return Err(broken("the connection ended within a body"));
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// A chunked body and its trailers.
    pub fn chunked(&mut self) -> io::Result<(Vec<u8>, Fields)> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .map_err(|_| broken("a chunk size that is no number"))?;
            if size == 0 {
                break;
            }
            body.extend(self.exactly(size)?);
            if !self.line()?.is_empty() {
                return Err(broken("a chunk that is longer than its size"));
            }
        }
        let mut trailers = Fields::default();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { return Ok((body, trailers)) };
            trailers.add(name, value.trim());
        }
    }

    /// Some bytes, as they come; none when the connection ended.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Everything until the connection ends.
    pub fn to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Everything until the connection ends, or until nothing more came in time: what was read, and whether it ended.
    pub fn drain(&mut self) -> (Vec<u8>, bool) {
        let ended = loop {
            match self.fill() {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        };
        (std::mem::take(&mut self.buffer), ended)
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill()? == 0 {
                return Err(broken("the connection ended within a line"));
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 16 << 10];
        let read = match self.socket.read(&mut bytes) {
            Ok(read) => read,
            // TLS without close_notify: the end all the same, for who reads by length.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(error),
        };
        (self.tap)(&bytes[..read]);
        self.buffer.extend_from_slice(&bytes[..read]);
        Ok(read)
    }
}

pub fn broken(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
