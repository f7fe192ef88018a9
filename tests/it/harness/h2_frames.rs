//! HTTP/2 frame by frame, for what no proper client would send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::DEADLINE;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// An answer; its status, if it is one of those that HPACK's static table has.
    Answered(Option<u16>),
    /// RST_STREAM.
    Reset,
    /// GOAWAY with an error, or the end of the connection.
    Closed,
}

impl Fate {
    /// Whether the request was turned down: no success, no redirect.
    pub fn is_refusal(self) -> bool {
        !matches!(self, Self::Answered(Some(200 | 204 | 206 | 304)))
    }
}

/// A connection to write frames on.
pub struct Frames {
    socket: TcpStream,
}

impl Frames {
    /// Connects and exchanges settings.
    pub fn connect(address: SocketAddr) -> Self {
        let mut socket = TcpStream::connect(address).expect("the gateway listens");
        socket.set_read_timeout(Some(DEADLINE)).expect("a time-out can be set");
        socket.set_nodelay(true).expect("a TCP socket has no delay");
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("the connection is open");
        let mut frames = Self { socket };
        frames.send(SETTINGS, 0, 0, &[]);
        frames
    }

    /// A header block in one frame, each field a literal as it is written.
    pub fn headers(&mut self, stream: u32, fields: &[(&str, &str)], ends: bool) {
        let flags = END_HEADERS | if ends { END_STREAM } else { 0 };
        self.send(HEADERS, flags, stream, &block(fields));
    }

    /// A header block that does not end; more is to follow.
    pub fn headers_without_end(&mut self, stream: u32, fields: &[(&str, &str)]) {
        self.send(HEADERS, END_STREAM, stream, &block(fields));
    }

    /// More of a header block that still does not end. `false` when the gateway has enough.
    pub fn continuation(&mut self, stream: u32, fields: &[(&str, &str)]) -> bool {
        self.try_send(CONTINUATION, 0, stream, &block(fields)).is_ok()
    }

    pub fn data(&mut self, stream: u32, bytes: &[u8], ends: bool) {
        self.send(DATA, if ends { END_STREAM } else { 0 }, stream, bytes);
    }

    /// Cancels a stream. `false` when the gateway has enough.
    pub fn reset(&mut self, stream: u32) -> bool {
        self.try_send(RST_STREAM, 0, stream, &8u32.to_be_bytes()).is_ok()
    }

    /// A PING. `false` when the gateway has enough.
    pub fn ping(&mut self) -> bool {
        self.try_send(PING, 0, 0, &[0; 8]).is_ok()
    }

    /// Empty SETTINGS. `false` when the gateway has enough.
    pub fn settings(&mut self) -> bool {
        self.try_send(SETTINGS, 0, 0, &[]).is_ok()
    }

    /// A frame as it is.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let _ = self.try_send(kind, flags, stream, payload);
    }

    fn try_send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> io::Result<()> {
        let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame)
    }

    /// Reads until it is known how a stream ended.
    pub fn fate_of(&mut self, stream: u32) -> Fate {
        loop {
            let Ok((kind, flags, id, payload)) = self.receive() else { return Fate::Closed };
            match kind {
                HEADERS if id == stream => return Fate::Answered(status(flags, &payload)),
                RST_STREAM if id == stream => return Fate::Reset,
                GOAWAY if payload.get(4..8) != Some(&[0; 4]) => return Fate::Closed,
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload),
                _ => {}
            }
        }
    }

    fn receive(&mut self) -> io::Result<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.socket.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload)?;
        Ok((head[3], head[4], u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]), payload))
    }
}

/// Literal fields that are never indexed (RFC 7541, section 6.2.2), without Huffman coding.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, mut value: usize) {
    if value < 127 {
        block.push(value as u8);
        return;
    }
    block.push(127);
    value -= 127;
    while value >= 128 {
        block.push((value % 128 + 128) as u8);
        value /= 128;
    }
    block.push(value as u8);
}

/// The status, if its block begins with an entry of the static table.
fn status(flags: u8, payload: &[u8]) -> Option<u16> {
    const PADDED: u8 = 8;
    const PRIORITY: u8 = 0x20;
    let skip = usize::from(flags & PADDED != 0) + if flags & PRIORITY != 0 { 5 } else { 0 };
    // Changes of the size of the dynamic table may come first.
    let first = payload.get(skip..)?.iter().find(|byte| *byte & 0xe0 != 0x20)?;
    [(0x88, 200), (0x89, 204), (0x8a, 206), (0x8b, 304), (0x8c, 400), (0x8d, 404), (0x8e, 500)]
        .into_iter()
        .find_map(|(entry, status)| (entry == *first).then_some(status))
}
