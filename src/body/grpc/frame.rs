//! The frames in which gRPC sends messages: a flag, the length in four bytes, the message.

use std::io::Read;

use crate::body::Malformed;

/// What a frame begins with, in bytes.
pub(super) const HEAD: usize = 5;

/// Appends a frame with this flag.
pub(super) fn put_frame(flag: u8, message: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    let length = u32::try_from(message.len()).map_err(|_| Malformed::new(0, "a message is too long for a frame"))?;
    out.push(flag);
    out.extend(length.to_be_bytes());
    out.extend_from_slice(message);
    Ok(())
}

/// A part of a frame.
#[derive(Debug, PartialEq)]
pub(super) enum Piece<'p> {
    /// Its head, with the flag and the length of what follows.
    Head { flag: u8, length: u32 },
    /// Some of the message.
    Data { bytes: &'p [u8], last: bool },
}

/// Finds where frames begin and end, however they are cut.
#[derive(Debug, Default)]
pub(super) struct Cutter {
    head: [u8; HEAD],
    have: usize,
    left: u32,
    /// How many bytes were read.
    pub at: u64,
}

impl Cutter {
    /// The next piece of what comes in; what is left of `part` is behind it.
    pub fn next<'p>(&mut self, part: &mut &'p [u8]) -> Option<Piece<'p>> {
        if self.have < HEAD {
            let taken = part.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&part[..taken]);
            self.take(taken, part);
            self.have += taken;
            if self.have < HEAD {
                return None;
            }
            let [flag, length @ ..] = self.head;
            self.left = u32::from_be_bytes(length);
            return Some(Piece::Head { flag, length: self.left });
        }
        if part.is_empty() && self.left > 0 {
            return None;
        }
        let taken = part.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let bytes = self.take(taken, part);
        // No more was taken than is left, which has 32 bits.
        self.left -= taken as u32;
        let last = self.left == 0;
        if last {
            self.have = 0;
        }
        Some(Piece::Data { bytes, last })
    }

    /// Whether what was read ends with a frame.
    pub fn is_between(&self) -> bool {
        self.have == 0
    }

    fn take<'p>(&mut self, length: usize, part: &mut &'p [u8]) -> &'p [u8] {
        let (taken, rest) = part.split_at(length);
        *part = rest;
        self.at += length as u64;
        taken
    }
}

/// Puts messages together.
#[derive(Debug)]
pub(super) struct Frames {
    cutter: Cutter,
    /// The longest message, in bytes.
    cap: usize,
    gzip: bool,
    compressed: bool,
    /// Where the frame began.
    began: u64,
    message: Vec<u8>,
    inflated: Vec<u8>,
}

impl Frames {
    pub fn new(cap: usize, gzip: bool) -> Self {
        let cutter = Cutter::default();
        Self { cutter, cap, gzip, compressed: false, began: 0, message: Vec::new(), inflated: Vec::new() }
    }

    /// The next message that is whole, and where its frame begins.
    ///
    /// # Errors
    /// A frame is too long, has an unknown flag, or cannot be decompressed.
    pub fn next(&mut self, part: &mut &[u8]) -> Result<Option<(u64, &[u8])>, Malformed> {
        loop {
            match self.cutter.next(part) {
                None => return Ok(None),
                Some(Piece::Head { flag, length }) => self.head(flag, length)?,
                Some(Piece::Data { bytes, last }) => {
                    self.message.extend_from_slice(bytes);
                    if last {
                        break;
                    }
                }
            }
        }
        if !self.compressed {
            return Ok(Some((self.began, &self.message)));
        }
        self.inflated.clear();
        let inflated = flate2::read::MultiGzDecoder::new(&self.message[..])
            .take((self.cap as u64).saturating_add(1))
            .read_to_end(&mut self.inflated);
        match inflated {
            Ok(length) if length <= self.cap => Ok(Some((self.began, &self.inflated))),
            Ok(_) => Err(Malformed::new(self.began, "a message is longer than is allowed")),
            Err(_) => Err(Malformed::new(self.began, "a compressed message cannot be read")),
        }
    }

    /// # Errors
    /// A frame is not whole.
    pub fn end(&self) -> Result<(), Malformed> {
        if self.cutter.is_between() { Ok(()) } else { Err(Malformed::new(self.cutter.at, "a frame is cut off")) }
    }

    /// How many bytes were read.
    pub fn at(&self) -> u64 {
        self.cutter.at
    }

    fn head(&mut self, flag: u8, length: u32) -> Result<(), Malformed> {
        self.began = self.cutter.at - HEAD as u64;
        self.message.clear();
        self.compressed = match flag {
            0 => false,
            1 if self.gzip => true,
            1 => return Err(Malformed::new(self.began, "a message is compressed, and nothing says how")),
            _ => return Err(Malformed::new(self.began, "a frame has an unknown flag")),
        };
        if usize::try_from(length).is_ok_and(|length| length <= self.cap) {
            return Ok(());
        }
        Err(Malformed::new(self.began, "a message is longer than is allowed"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(frames: &mut Frames, mut part: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
        let mut all = Vec::new();
        while let Some((_, message)) = frames.next(&mut part)? {
            all.push(message.to_vec());
        }
        frames.end().map(|()| all)
    }

    #[test]
    fn frames_are_read() {
        let bytes = [0, 0, 0, 0, 2, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9];
        assert_eq!(read(&mut Frames::new(2, false), &bytes).unwrap(), [vec![7, 8], vec![], vec![9]]);
        assert_eq!(read(&mut Frames::new(1, false), &bytes).unwrap_err().at, 0);
        assert_eq!(read(&mut Frames::new(2, false), &bytes[..17]).unwrap_err().at, 17);
        assert_eq!(read(&mut Frames::new(2, false), &bytes[..13]).unwrap_err().at, 13);
        assert!(read(&mut Frames::new(usize::MAX, false), &[0, 255, 255, 255, 255]).is_err());
        assert!(read(&mut Frames::new(9, false), &[2, 0, 0, 0, 0]).is_err());
        assert!(read(&mut Frames::new(9, false), &[1, 0, 0, 0, 0]).is_err());
    }

    #[test]
    fn what_is_compressed_is_bounded() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&[0; 100_000]).unwrap();
        let mut bytes = Vec::new();
        put_frame(1, &gzip.finish().unwrap(), &mut bytes).unwrap();
        assert_eq!(read(&mut Frames::new(100_000, true), &bytes).unwrap(), [vec![0; 100_000]]);
        assert!(read(&mut Frames::new(99_999, true), &bytes).is_err());
        assert!(read(&mut Frames::new(100_000, false), &bytes).is_err());
        let last = bytes.len() - 10;
        bytes[last] ^= 1;
        assert!(read(&mut Frames::new(100_000, true), &bytes).is_err());
    }
}
