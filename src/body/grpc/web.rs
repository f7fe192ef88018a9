//! gRPC-Web: gRPC without trailers, for browsers
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>).
//!
//! A request in `application/grpc-web` or `application/grpc-web+proto` goes on as it is, one in
//! `application/grpc-web-text` through a [`Decode`]. The server gets it as `application/grpc` (and the `+proto` or the
//! like of the client's type). Its answer goes through an [`Encode`], whose trailers are given before it ends; one that
//! has its status in the head and no body has these fields given as trailers too. The client's type, not the server's, is
//! the answer's. A browser reads no field that is not exposed to it: see `Access-Control-Expose-Headers` in the book.

use base64::engine::general_purpose::STANDARD;
use base64::{DecodeError, Engine};
use http::HeaderMap;

use super::frame::{Cutter, Piece, put_frame};
use crate::body::{Filter, Malformed};

/// How gRPC-Web writes a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Binary,
    /// In base64.
    Text,
}

impl Coding {
    /// What a content type stands for, and the content type that the server gets.
    pub fn of(content_type: &str) -> Option<(Self, String)> {
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let rest = essence.strip_prefix("application/grpc-web")?;
        let (coding, message) = match rest.strip_prefix("-text") {
            Some(message) => (Self::Text, message),
            None => (Self::Binary, rest),
        };
        let is_type = message.is_empty() || message.starts_with('+') && message.len() > 1;
        is_type.then(|| (coding, format!("application/grpc{message}")))
    }
}

/// Decodes a request in base64, which may be several pieces with padding in a row.
#[derive(Debug, Default)]
pub struct Decode {
    group: [u8; 4],
    have: usize,
    at: u64,
}

impl Filter for Decode {
    fn push(&mut self, mut part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        while !part.is_empty() {
            // Whole groups without padding at once, as far as they go.
            let plain = part.iter().position(|byte| *byte == b'=').unwrap_or(part.len()) / 4 * 4;
            if self.have == 0 && plain > 0 {
                decode(&part[..plain], self.at, out)?;
                self.at += plain as u64;
                part = &part[plain..];
                continue;
            }
            self.group[self.have] = part[0];
            self.have += 1;
            self.at += 1;
            part = &part[1..];
            if self.have == 4 {
                self.have = 0;
                decode(&self.group, self.at - 4, out)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, _: &mut Vec<u8>) -> Result<(), Malformed> {
        if self.have == 0 { Ok(()) } else { Err(Malformed::new(self.at, "base64 is cut off")) }
    }
}

/// Passes a server's frames on, and ends them with one that has the trailers.
#[derive(Debug)]
pub struct Encode {
    coding: Coding,
    cutter: Cutter,
    /// What is not yet a whole group.
    rest: Vec<u8>,
    trailers: Option<Vec<u8>>,
}

impl Encode {
    /// An answer in this coding.
    pub fn new(coding: Coding) -> Self {
        Self { coding, cutter: Cutter::default(), rest: Vec::new(), trailers: None }
    }

    /// Sets the trailers, which are written at the end.
    pub fn trailers(&mut self, trailers: &HeaderMap) {
        let mut frame = Vec::new();
        put_trailers(trailers, &mut frame);
        self.trailers = Some(frame);
    }

    fn write(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        if self.coding == Coding::Binary {
            return out.extend_from_slice(bytes);
        }
        self.rest.extend_from_slice(bytes);
        let whole = self.rest.len() / 3 * 3;
        append_base64(&self.rest[..whole], out);
        self.rest.drain(..whole);
    }
}

impl Filter for Encode {
    fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        let mut unread = part;
        while let Some(piece) = self.cutter.next(&mut unread) {
            // A server's frame must not pass for the trailers.
            if let Piece::Head { flag, .. } = piece
                && flag > 1
            {
                return Err(Malformed::new(self.cutter.at - super::frame::HEAD as u64, "a frame has an unknown flag"));
            }
        }
        self.write(part, out);
        Ok(())
    }

    fn end(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if !self.cutter.is_between() {
            return Err(Malformed::new(self.cutter.at, "a frame is cut off"));
        }
        let Some(frame) = self.trailers.take() else {
            return Err(Malformed::new(self.cutter.at, "the answer has no trailers"));
        };
        self.write(&frame, out);
        append_base64(&std::mem::take(&mut self.rest), out);
        Ok(())
    }
}

/// Appends the frame that has the trailers: the flag 0x80, and lines as of HTTP/1.
pub fn put_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    let mut lines = Vec::new();
    for (name, value) in trailers {
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    // Trailers that are read from a connection are far shorter than a frame can be.
    let written = put_frame(0x80, &lines, out);
    debug_assert!(written.is_ok());
}

/// Appends what whole groups say, which begin at `at`; nothing of them where one is malformed.
fn decode(groups: &[u8], at: u64, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let start = out.len();
    STANDARD.decode_vec(groups, out).map_err(|error| {
        out.truncate(start);
        let inside = match error {
            DecodeError::InvalidByte(inside, _) | DecodeError::InvalidLastSymbol(inside, _) => inside / 4 * 4,
            _ => 0,
        };
        Malformed::new(at + inside as u64, "the body is not base64")
    })
}

fn append_base64(bytes: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, &mut out[start..]);
    debug_assert_eq!(written, Ok(out.len() - start));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(filter: &mut dyn Filter, bytes: &[u8], size: usize) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::new();
        for part in bytes.chunks(size.max(1)) {
            filter.push(part, &mut out)?;
        }
        filter.end(&mut out).map(|()| out)
    }

    fn trailers() -> HeaderMap {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        trailers.insert("grpc-message", "ok".parse().unwrap());
        trailers
    }

    #[test]
    fn types_are_told_apart() {
        let of = |content_type| Coding::of(content_type).map(|(coding, server)| (coding == Coding::Text, server));
        for (content_type, text, server) in [
            ("application/grpc-web", false, "application/grpc"),
            ("application/grpc-web+proto", false, "application/grpc+proto"),
            ("Application/gRPC-Web-Text; charset=utf-8", true, "application/grpc"),
            ("application/grpc-web-text+proto", true, "application/grpc+proto"),
        ] {
            assert_eq!(of(content_type), Some((text, server.to_owned())), "{content_type}");
        }
        for other in
            ["application/grpc", "application/grpc-webs", "application/grpc-web-texts", "application/grpc-web+", ""]
        {
            assert_eq!(of(other), None, "{other}");
        }
    }

    #[test]
    fn pieces_of_base64_are_decoded() {
        for size in 1..12 {
            assert_eq!(run(&mut Decode::default(), b"YQ==YWI=YWJjZGVm", size).unwrap(), b"aababcdef");
        }
        for wrong in ["YQ", "YQ=", "YQ==Y", "Y Q=", "YQ-_", "====", "YR==", "Y=Q=", "YWJjYWJj\n"] {
            for size in 1..10 {
                assert!(run(&mut Decode::default(), wrong.as_bytes(), size).is_err(), "{wrong}");
            }
        }
        let mut out = Vec::new();
        assert_eq!(Decode::default().push(b"YWJjYW*jYWJj", &mut out).unwrap_err().at, 4);
        assert_eq!(out, b"");
    }

    #[test]
    fn trailers_are_a_frame() {
        let mut encode = Encode::new(Coding::Binary);
        encode.trailers(&trailers());
        let out = run(&mut encode, &[0, 0, 0, 0, 1, 7], 4).unwrap();
        assert_eq!(out, b"\0\0\0\0\x01\x07\x80\0\0\0\x22grpc-status: 0\r\ngrpc-message: ok\r\n");
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let refused: [&[u8]; 4] = [&[0x80, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 2, 0, 0, 0, 0], &[0, 0], &[0, 0, 0, 0, 1]];
        for bytes in refused {
            let mut encode = Encode::new(Coding::Binary);
            encode.trailers(&trailers());
            assert!(run(&mut encode, bytes, 9).is_err(), "{bytes:?}");
        }
        assert!(run(&mut Encode::new(Coding::Text), &[], 1).is_err(), "there are no trailers");
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(messages: Vec<Vec<u8>>, size in 1..40usize) {
            let mut frames = Vec::new();
            messages.iter().for_each(|message| put_frame(0, message, &mut frames).unwrap());
            let of = |coding, size| {
                let mut encode = Encode::new(coding);
                encode.trailers(&trailers());
                run(&mut encode, &frames, size).unwrap()
            };
            let (binary, text) = (of(Coding::Binary, size), of(Coding::Text, size));
            prop_assert!(binary.starts_with(&frames));
            prop_assert_eq!(&text, &of(Coding::Text, usize::MAX));
            prop_assert_eq!(run(&mut Decode::default(), &text, size).unwrap(), binary);
        }

        #[test]
        fn base64_does_not_depend_on_the_cut(text in "[A-Za-z=*]{0,40}", size in 1..9usize) {
            let whole = run(&mut Decode::default(), text.as_bytes(), usize::MAX);
            let cut = run(&mut Decode::default(), text.as_bytes(), size);
            prop_assert_eq!(whole.ok(), cut.ok());
        }
    }
}
