//! Follows the chunked coding (RFC 9112, section 7.1) without changing it: where the body ends, and the first
//! byte that is wrong. Sizes are hexadecimal digits and nothing else, lines end in CRLF, extensions and
//! trailers are bounded.

/// The place in a chunked body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Bytes of extensions and trailers so far.
    extra: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Size { value: u64, digits: u8 },
    Extension { last: bool, left: u64 },
    SizeLf { last: bool, left: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer { colon: bool },
    TrailerLf,
    EndLf,
    End,
}

/// Extensions and trailers of one body together.
const MOST_EXTRA: usize = 8 << 10;

/// The framing is broken.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

impl Default for Chunked {
    fn default() -> Self {
        Self { state: State::Size { value: 0, digits: 0 }, extra: 0 }
    }
}

impl Chunked {
    /// Follows `bytes`; gives how many of them belong to the body.
    ///
    /// # Errors
    /// The first byte that breaks the framing.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let mut at = 0;
        loop {
            at += self.skip(&bytes[at..])?;
            let data = self.data().min((bytes.len() - at) as u64);
            if data == 0 {
                return Ok(at);
            }
            self.take(data);
            at += data as usize;
        }
    }

    /// Follows what is no data; gives how many bytes that is.
    ///
    /// # Errors
    /// The first byte that breaks the framing.
    pub fn skip(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        for (at, byte) in bytes.iter().enumerate() {
            if matches!(self.state, State::Data { .. } | State::End) {
                return Ok(at);
            }
            self.state = self.step(*byte)?;
        }
        Ok(bytes.len())
    }

    /// How many of the next bytes are data.
    pub fn data(&self) -> u64 {
        match self.state {
            State::Data { left } => left,
            _ => 0,
        }
    }

    /// Follows data: not more bytes than [`Self::data`] says.
    pub fn take(&mut self, bytes: u64) {
        if let State::Data { left } = &mut self.state {
            *left = left.saturating_sub(bytes);
            if *left == 0 {
                self.state = State::DataCr;
            }
        }
    }

    /// Whether the whole body was followed.
    pub fn is_done(&self) -> bool {
        self.state == State::End
    }

    fn step(&mut self, byte: u8) -> Result<State, Broken> {
        Ok(match (&self.state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if *digits < 15 => {
                let digit = (byte as char).to_digit(16).ok_or(Broken)?;
                State::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }
            }
            (State::Size { value, digits: 1.. }, b';') => State::Extension { last: *value == 0, left: *value },
            (State::Size { value, digits: 1.. }, b'\r') => State::SizeLf { last: *value == 0, left: *value },
            (State::Extension { last, left }, b'\r') => State::SizeLf { last: *last, left: *left },
            (State::Extension { last, left }, b'\t' | 0x20..=0x7e) => {
                let next = State::Extension { last: *last, left: *left };
                self.count()?;
                next
            }
            (State::SizeLf { last: true, .. }, b'\n') => State::TrailerStart,
            (State::SizeLf { left, .. }, b'\n') => State::Data { left: *left },
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, b'!'..=b'9' | b';'..=b'~') => {
                self.count()?;
                State::Trailer { colon: false }
            }
            (State::Trailer { colon: true }, b'\r') => State::TrailerLf,
            (State::Trailer { colon: false }, b':') => State::Trailer { colon: true },
            (State::Trailer { colon: false }, b'!'..=b'~') => {
                self.count()?;
                State::Trailer { colon: false }
            }
            (State::Trailer { colon: true }, b'\t' | 0x20..=0x7e | 0x80..) => {
                self.count()?;
                State::Trailer { colon: true }
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::End,
            _ => return Err(Broken),
        })
    }

    fn count(&mut self) -> Result<(), Broken> {
        self.extra += 1;
        if self.extra > MOST_EXTRA { Err(Broken) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn follow(bytes: &[u8]) -> Result<(usize, bool), Broken> {
        let mut chunked = Chunked::default();
        let taken = chunked.advance(bytes)?;
        Ok((taken, chunked.is_done()))
    }

    #[test]
    fn a_body_ends_where_it_ends() {
        let whole = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nX: y\r\n\r\n";
        let mut more = whole.to_vec();
        more.extend_from_slice(b"GET / HTTP/1.1");
        assert_eq!(follow(&more), Ok((whole.len(), true)));
        assert_eq!(follow(b"0\r\n\r\n"), Ok((5, true)));
    }

    #[test]
    fn what_is_broken_is_refused() {
        for wrong in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b"0x1\r\n",
            b" 1\r\n",
            b"1 \r\n",
            b"1\n",
            b"1\r\r\n",
            b"1\r\nab\r\n",
            b"1\r\na\n",
            b"1\r\na\rb",
            b"ffffffffffffffff\r\n",
            b"0\r\nX\r\n\r\n",
            b"0\r\n X: y\r\n",
            b"0\r\nX y: z\r\n",
            b"0\n\r\n",
            b"1;a\nb\r\n",
            b"1;\0\r\n",
            b"0\r\nX: a\nb\r\n\r\n",
        ] {
            assert_eq!(follow(wrong), Err(Broken), "{:?}", wrong.escape_ascii().to_string());
        }
        let mut endless = b"1;".to_vec();
        endless.resize(20_000, b'a');
        assert_eq!(follow(&endless), Err(Broken));
    }

    proptest! {
        #[test]
        fn reads_may_be_split_anywhere(body in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..5), cut in 0usize..200) {
            let mut bytes = Vec::new();
            for chunk in &body {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
            let cut = cut.min(bytes.len());
            let mut chunked = Chunked::default();
            prop_assert_eq!(chunked.advance(&bytes[..cut]), Ok(cut));
            prop_assert_eq!(chunked.advance(&bytes[cut..]), Ok(bytes.len() - cut));
            prop_assert!(chunked.is_done());
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = follow(&bytes);
        }
    }
}
