//! The body of a request on its way to the server.

use std::io::{self, Write};

use bytes::Bytes;

use crate::http1::Framing;
use crate::http1::chunked::Chunked;
use crate::upstream::Server;

/// How far the body of a request is sent.
pub(super) struct Upload {
    /// How it is framed for the server.
    pub framing: Framing,
    pub state: Sending,
    left: u64,
    chunked: Chunked,
    /// It is held: every server gets it from its beginning.
    held: Option<Bytes>,
    /// What is read is not framed, for it is to be held.
    bare: bool,
}

/// How far a body is.
#[derive(PartialEq, Clone, Copy)]
pub(super) enum Sending {
    /// There is more.
    Body,
    /// All was read, and is sent or about to be.
    Done,
    /// The server takes no more.
    Refused,
}

/// Bytes of a body that are copied, so that they leave in one write with the head.
const SMALL: usize = 16 << 10;
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

impl Upload {
    pub fn new(framing: Framing) -> Self {
        let (left, state) = match framing {
            Framing::None | Framing::UntilClose => (0, Sending::Done),
            Framing::Length(length) => (length, Sending::Body),
            Framing::Chunked => (0, Sending::Body),
        };
        Self { framing, chunked: Chunked::default(), left, state, held: None, bare: false }
    }

    /// A body that is read to be held.
    pub fn to_hold(framing: Framing) -> Self {
        Self { bare: true, ..Self::new(framing) }
    }

    /// A body that is held.
    pub fn of(body: Bytes) -> Self {
        let framing = if body.is_empty() { Framing::None } else { Framing::Length(body.len() as u64) };
        Self { held: Some(body), state: Sending::Done, ..Self::new(framing) }
    }

    /// The body, if it is held.
    pub fn held(&self) -> Option<&Bytes> {
        self.held.as_ref()
    }

    /// The head is written for a server, maybe not the first: another is asked only while no data was read, or all is held.
    pub fn begin(&mut self, server: &mut Server) {
        match (&self.held, self.state) {
            // A small one leaves with the head.
            (Some(held), _) if held.len() <= SMALL => server.unsent.extend_from_slice(held),
            (Some(held), _) => server.behind = held.clone(),
            (None, Sending::Refused) => self.state = Sending::Body,
            // The end of an empty body was for the server before.
            (None, Sending::Done) if self.framing == Framing::Chunked => server.unsent.extend_from_slice(LAST_CHUNK),
            _ => {}
        }
    }

    pub fn is_read(&self) -> bool {
        self.state == Sending::Done
    }

    /// Passes on a part of a body that is framed as it is for the server; gives how many bytes of data it has. The
    /// connection lets nothing come that is not properly framed.
    pub fn pass_framed(&mut self, part: &[u8], out: &mut Vec<u8>) -> u64 {
        if self.framing != Framing::Chunked {
            return self.pass_data(part, out);
        }
        let (mut at, mut passed) = (0, 0);
        loop {
            at += self.chunked.skip(&part[at..]).unwrap_or(part.len() - at);
            let length = self.chunked.data().min((part.len() - at) as u64);
            if length == 0 {
                break;
            }
            // Written anew, without extensions; and the trailers stay here.
            passed += self.pass_data(&part[at..at + length as usize], out);
            self.chunked.take(length);
            at += length as usize;
        }
        if self.chunked.is_done() {
            if !self.bare {
                out.extend_from_slice(LAST_CHUNK);
            }
            self.state = Sending::Done;
        }
        passed
    }

    /// Frames data for the server; gives how many bytes it has.
    pub fn pass_data(&mut self, data: &[u8], out: &mut Vec<u8>) -> u64 {
        if self.framing == Framing::Chunked {
            if self.bare {
                out.extend_from_slice(data);
            } else if !data.is_empty() {
                push_chunk_size(data.len(), out);
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
        } else {
            out.extend_from_slice(data);
            self.left = self.left.saturating_sub(data.len() as u64);
            if self.left == 0 {
                self.state = Sending::Done;
            }
        }
        data.len() as u64
    }

    /// There is no more data.
    ///
    /// # Errors
    /// The body is shorter than it was said to be.
    pub fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.framing == Framing::Chunked {
            if !self.bare {
                out.extend_from_slice(LAST_CHUNK);
            }
        } else if self.left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.state = Sending::Done;
        Ok(())
    }
}

pub(super) fn push_chunk_size(size: usize, out: &mut Vec<u8>) {
    let _ = write!(out, "{size:x}\r\n");
}
