//! The answer of a gRPC method as JSON.

use std::sync::Arc;

use super::frame::Frames;
use super::print::Printer;
use super::status::Status;
use super::{Common, Route, Streaming};
use crate::body::{Filter, Malformed};

/// Turns frames into JSON. Of a method with one answer nothing comes out before the end, so that an error can still be
/// answered instead; of a stream each message comes out as soon as it is whole.
pub struct Answer {
    common: Arc<Common>,
    route: Arc<Route>,
    frames: Frames,
    streaming: Option<Streaming>,
    /// The only answer, or one message on its way out.
    held: Vec<u8>,
    /// Whether a message was read.
    begun: bool,
    failed: bool,
}

/// How many times as long a message may be in JSON as the longest in protobuf.
const GROWTH: usize = 16;

impl Answer {
    pub(super) fn new(common: Arc<Common>, route: Arc<Route>, streaming: Option<Streaming>, gzip: bool) -> Self {
        let frames = Frames::new(common.max_message, gzip);
        Self { common, route, frames, streaming, held: Vec::new(), begun: false, failed: false }
    }

    /// The `Content-Type` of the answer.
    pub fn content_type(&self) -> &'static str {
        match self.streaming {
            None | Some(Streaming::Array) => "application/json",
            Some(Streaming::Ndjson) => "application/x-ndjson",
            Some(Streaming::Sse) => "text/event-stream",
        }
    }

    /// Whether there may be several messages, which come out as they come in.
    pub fn is_stream(&self) -> bool {
        self.streaming.is_some()
    }

    /// Ends a stream with an error: what comes in after that is dropped. Of a method with one answer the head was not yet
    /// sent, and the error is a problem document.
    pub fn fail(&mut self, status: &Status, out: &mut Vec<u8>) {
        if self.failed {
            return;
        }
        let document = status.document();
        match self.streaming {
            None => {}
            Some(Streaming::Sse) => {
                out.extend_from_slice(b"event: error\n");
                self.put(document.as_bytes(), out);
            }
            Some(_) => self.put(document.as_bytes(), out),
        }
        self.failed = true;
    }

    /// One message in its frame of text.
    fn put(&mut self, message: &[u8], out: &mut Vec<u8>) {
        let (before, after): (&[u8], &[u8]) = match self.streaming {
            None => (b"", b""),
            Some(Streaming::Ndjson) => (b"", b"\n"),
            Some(Streaming::Sse) => (b"data: ", b"\n\n"),
            Some(Streaming::Array) if self.begun => (b",", b""),
            Some(Streaming::Array) => (b"[", b""),
        };
        self.begun = true;
        out.extend_from_slice(before);
        out.extend_from_slice(message);
        out.extend_from_slice(after);
    }
}

impl Filter for Answer {
    fn push(&mut self, mut part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.failed {
            return Ok(());
        }
        let (common, route) = (self.common.clone(), self.route.clone());
        let limit = common.max_message.saturating_mul(GROWTH);
        let printer = Printer { schema: &common.schema, style: common.style, limit };
        while let Some((at, message)) = self.frames.next(&mut part)? {
            if self.streaming.is_none() && self.begun {
                return Err(Malformed::new(at, "the method has one answer, and more came"));
            }
            let mut held = std::mem::take(&mut self.held);
            held.clear();
            match route.response_body {
                None => printer.message(route.output, message, &mut held),
                Some(field) => printer.field(route.output, field, message, &mut held),
            }
            .map_err(|what| Malformed::new(at, what))?;
            if self.streaming.is_some() {
                self.put(&held, out);
            }
            (self.held, self.begun) = (held, true);
        }
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if !self.failed {
            self.frames.end()?;
        }
        match self.streaming {
            None if self.failed => {}
            None if !self.begun => {
                return Err(Malformed::new(self.frames.at(), "the method has an answer, and none came"));
            }
            None => out.append(&mut self.held),
            Some(Streaming::Array) if self.begun => out.push(b']'),
            Some(Streaming::Array) => out.extend_from_slice(b"[]"),
            Some(_) => {}
        }
        Ok(())
    }
}
