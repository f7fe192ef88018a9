//! Content codings (RFC 9110, section 8.4.1): gzip, brotli (RFC 7932) and zstd (RFC 8878), to be undone and to be done.
//!
//! What is undone has a bound, so that a few bytes do not become gigabytes; zstd's window has the bound of RFC 9659.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, HeaderMap, HeaderValue};
use libdeflater::{CompressionLvl, Compressor};
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};
use zstd::stream::raw::{DParameter, Operation};

/// A content coding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// `zstd`.
    Zstd,
    /// `br`.
    Brotli,
    /// `gzip`.
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding` and `Accept-Encoding`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// By its name; `x-gzip` is `gzip`.
    pub fn parse(name: &[u8]) -> Option<Self> {
        [Self::Zstd, Self::Brotli, Self::Gzip]
            .into_iter()
            .find(|coding| name.eq_ignore_ascii_case(coding.name().as_bytes()))
            .or_else(|| name.eq_ignore_ascii_case(b"x-gzip").then_some(Self::Gzip))
    }

    /// Does it to a body that is at hand as a whole; `None` where that would not make it shorter.
    pub fn shorten(self, body: &[u8]) -> Option<Vec<u8>> {
        let mut out = match self {
            Self::Gzip => return gzipped(body),
            _ => Vec::with_capacity(body.len() / 2),
        };
        let mut encoder = Encoder::new(self).ok()?;
        encoder.push(body, &mut out).and_then(|()| encoder.end(&mut out)).ok()?;
        Some(out).filter(|out| out.len() < body.len())
    }
}

/// By libdeflate, which does it in a third of the time that it takes part by part.
fn gzipped(body: &[u8]) -> Option<Vec<u8>> {
    thread_local! {
        static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    }
    let mut out = vec![0; body.len()];
    let length = COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor = compressor
            .get_or_insert_with(|| Compressor::new(CompressionLvl::new(WHOLE_GZIP_LEVEL).unwrap_or_default()));
        compressor.gzip_compress(body, &mut out).ok()
    })?;
    out.truncate(length);
    Some(out)
}

/// What all lines of `Content-Encoding` say together.
pub fn codings(headers: &HeaderMap) -> Option<HeaderValue> {
    let first = headers.get(CONTENT_ENCODING)?;
    let lines: Vec<&[u8]> = headers.get_all(CONTENT_ENCODING).iter().map(HeaderValue::as_bytes).collect();
    match lines.len() {
        1 => Some(first.clone()),
        _ => HeaderValue::from_bytes(&lines.join(&b", "[..])).ok(),
    }
}

/// Why a coding could not be undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It is not what it is said to be, or ends too early.
    Malformed,
    /// There is more than there may be.
    TooLarge,
}

/// Undoes a content coding, part by part.
pub struct Decoder {
    inner: Inner,
    most: u64,
}

enum Inner {
    Gzip(Box<MultiGzDecoder<Sink>>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
    Zstd(Box<Zstd>),
}

/// The writer of its crate does not tell a frame that ends too early.
struct Zstd {
    decoder: zstd::stream::raw::Decoder<'static>,
    sink: Sink,
    whole: bool,
}

/// What comes out.
struct Sink {
    out: Vec<u8>,
    most: u64,
    over: bool,
}

/// Bytes of a window of zstd at most, as a power of two (RFC 9659).
const ZSTD_WINDOW: u32 = 23;

impl Decoder {
    /// Undoes what a `Content-Encoding` says: at most `most` bytes come out of one part, or of the whole. `None` where it
    /// is not known here; `Some(None)` where there is nothing to undo.
    pub fn of(codings: &[u8], most: u64) -> Option<Option<Self>> {
        let mut coding = None;
        for name in codings.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
                continue;
            }
            if coding.replace(Coding::parse(name)?).is_some() {
                // One over the other: nobody does that for anything good.
                return None;
            }
        }
        let Some(coding) = coding else { return Some(None) };
        let sink = Sink { out: Vec::new(), most, over: false };
        let inner = match coding {
            Coding::Gzip => Inner::Gzip(Box::new(MultiGzDecoder::new(sink))),
            Coding::Brotli => Inner::Brotli(Box::new(brotli::DecompressorWriter::new(sink, 16 << 10))),
            Coding::Zstd => {
                let mut decoder = zstd::stream::raw::Decoder::new().ok()?;
                decoder.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW)).ok()?;
                Inner::Zstd(Box::new(Zstd { decoder, sink, whole: true }))
            }
        };
        Some(Some(Self { inner, most }))
    }

    /// Takes a part and gives what it stands for.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn push(&mut self, part: &[u8]) -> Result<Vec<u8>, Failed> {
        let written = match &mut self.inner {
            Inner::Gzip(decoder) => decoder.write_all(part).and_then(|()| decoder.flush()),
            Inner::Brotli(decoder) => decoder.write_all(part).and_then(|()| decoder.flush()),
            Inner::Zstd(decoder) => decoder.write_all(part),
        };
        self.taken(written)
    }

    /// There is no more.
    ///
    /// # Errors
    /// It ended too early.
    pub fn end(&mut self) -> Result<Vec<u8>, Failed> {
        let ended = match &mut self.inner {
            Inner::Gzip(decoder) => decoder.try_finish(),
            Inner::Brotli(decoder) => decoder.close(),
            Inner::Zstd(decoder) if decoder.whole => Ok(()),
            Inner::Zstd(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        self.taken(ended)
    }

    /// Undoes it for all of a body.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn whole(mut self, body: &[u8]) -> Result<Bytes, Failed> {
        if body.is_empty() {
            return Ok(Bytes::new());
        }
        let mut content = self.push(body)?;
        content.extend(self.end()?);
        match content.len() as u64 > self.most {
            true => Err(Failed::TooLarge),
            false => Ok(content.into()),
        }
    }

    fn taken(&mut self, written: io::Result<()>) -> Result<Vec<u8>, Failed> {
        let sink = match &mut self.inner {
            Inner::Gzip(decoder) => decoder.get_mut(),
            Inner::Brotli(decoder) => decoder.get_mut(),
            Inner::Zstd(decoder) => &mut decoder.sink,
        };
        let out = std::mem::take(&mut sink.out);
        match (written, sink.over) {
            (Ok(()), _) => Ok(out),
            (Err(_), true) => Err(Failed::TooLarge),
            (Err(_), false) => Err(Failed::Malformed),
        }
    }
}

impl Zstd {
    fn write_all(&mut self, mut part: &[u8]) -> io::Result<()> {
        let mut out = [0; 16 << 10];
        loop {
            let status = self.decoder.run_on_buffers(part, &mut out)?;
            part = &part[status.bytes_read..];
            self.whole = status.remaining == 0 || (self.whole && status.bytes_read == 0);
            self.sink.write_all(&out[..status.bytes_written])?;
            if part.is_empty() && status.bytes_written < out.len() {
                return Ok(());
            }
        }
    }
}

impl Write for Sink {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        if (self.out.len() + part.len()) as u64 > self.most {
            self.over = true;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.out.extend_from_slice(part);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Does a content coding, part by part.
pub struct Encoder(Outer);

enum Outer {
    Gzip(Gzip),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// What is asked of the codings: about as much time for each, and little of it.
const GZIP_LEVEL: i32 = 4;
const WHOLE_GZIP_LEVEL: i32 = 2;
const BROTLI_LEVEL: u32 = 4;
const BROTLI_WINDOW: u32 = 19;
const ZSTD_LEVEL: i32 = 3;

impl Encoder {
    /// Begins a body.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn new(coding: Coding) -> io::Result<Self> {
        let out = Vec::new();
        Ok(Self(match coding {
            Coding::Gzip => Outer::Gzip(Gzip::take()),
            Coding::Brotli => {
                Outer::Brotli(Box::new(brotli::CompressorWriter::new(out, 4 << 10, BROTLI_LEVEL, BROTLI_WINDOW)))
            }
            Coding::Zstd => Outer::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?),
        }))
    }

    /// Takes a part, and appends what is ready.
    ///
    /// # Errors
    /// The coder failed.
    pub fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Outer::Gzip(encoder) => return encoder.push(part, DeflateFlush::NoFlush, out),
            Outer::Brotli(encoder) => encoder.write_all(part)?,
            Outer::Zstd(encoder) => encoder.write_all(part)?,
        }
        self.take(out);
        Ok(())
    }

    /// Appends all that came so far.
    ///
    /// # Errors
    /// The coder failed.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match &mut self.0 {
            Outer::Gzip(encoder) => return encoder.push(&[], DeflateFlush::SyncFlush, out),
            Outer::Brotli(encoder) => encoder.flush()?,
            Outer::Zstd(encoder) => encoder.flush()?,
        }
        self.take(out);
        Ok(())
    }

    /// Appends what is left.
    ///
    /// # Errors
    /// The coder failed.
    pub fn end(self, out: &mut Vec<u8>) -> io::Result<()> {
        out.extend(match self.0 {
            Outer::Gzip(mut encoder) => {
                encoder.push(&[], DeflateFlush::Finish, out)?;
                encoder.give_back();
                return Ok(());
            }
            Outer::Brotli(encoder) => encoder.into_inner(),
            Outer::Zstd(encoder) => encoder.finish()?,
        });
        Ok(())
    }

    fn take(&mut self, out: &mut Vec<u8>) {
        out.append(match &mut self.0 {
            Outer::Gzip(_) => return,
            Outer::Brotli(encoder) => encoder.get_mut(),
            Outer::Zstd(encoder) => encoder.get_mut(),
        });
    }
}

/// A body in gzip. Its tables are large, and go from one body to the next.
struct Gzip(Box<Deflate>);

thread_local! {
    /// The tables of the last body of this thread.
    static SPARE: Cell<Option<Box<Deflate>>> = const { Cell::new(None) };
}

impl Gzip {
    fn take() -> Self {
        Self(SPARE.take().unwrap_or_else(|| {
            // 15 bits of window, and 16 for the wrapping of gzip.
            let config = DeflateConfig { window_bits: 15 + 16, level: GZIP_LEVEL, ..DeflateConfig::default() };
            Box::new(Deflate::new_with_config(config))
        }))
    }

    fn give_back(mut self) {
        self.0.reset();
        SPARE.set(Some(self.0));
    }

    fn push(&mut self, mut part: &[u8], flush: DeflateFlush, out: &mut Vec<u8>) -> io::Result<()> {
        let deflate = &mut self.0;
        loop {
            let (read, written, start) = (deflate.total_in(), deflate.total_out(), out.len());
            out.resize(start + part.len() / 2 + 512, 0);
            let room = out.len() - start;
            let status = deflate.compress(part, &mut out[start..], flush);
            let (read, written) = ((deflate.total_in() - read) as usize, (deflate.total_out() - written) as usize);
            out.truncate(start + written);
            part = &part[read..];
            match status {
                Ok(zlib_rs::Status::StreamEnd) => return Ok(()),
                Ok(_) if part.is_empty() && written < room && flush != DeflateFlush::Finish => return Ok(()),
                Ok(_) if read > 0 || written > 0 => {}
                _ => return Err(io::ErrorKind::Other.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn encoded(coding: Coding, text: &[u8]) -> Vec<u8> {
        let (mut encoder, mut out) = (Encoder::new(coding).unwrap(), Vec::new());
        for part in text.chunks(1000) {
            encoder.push(part, &mut out).unwrap();
        }
        encoder.end(&mut out).unwrap();
        out
    }

    fn decoder(coding: Coding, most: u64) -> Decoder {
        Decoder::of(coding.name().as_bytes(), most).unwrap().unwrap()
    }

    #[test]
    fn what_is_done_can_be_undone_in_any_parts() {
        let text: Vec<u8> = (0..20_000u32).flat_map(|i| i.to_string().into_bytes()).collect();
        for coding in ALL {
            let coded = encoded(coding, &text);
            assert!(coded.len() < text.len());
            assert_eq!(decoder(coding, 1 << 20).whole(&coded).unwrap(), text);
            let (mut decoder, mut out) = (decoder(coding, 1 << 20), Vec::new());
            coded.chunks(7).for_each(|part| out.extend(decoder.push(part).unwrap()));
            out.extend(decoder.end().unwrap());
            assert_eq!(out, text);
            assert_eq!(decoder_of_whole(coding, &text), text);
        }
    }

    fn decoder_of_whole(coding: Coding, text: &[u8]) -> Vec<u8> {
        let short = coding.shorten(text).unwrap();
        assert!(short.len() < text.len());
        decoder(coding, 1 << 20).whole(&short).unwrap().into()
    }

    #[test]
    fn what_would_not_be_shorter_is_left() {
        let random: Vec<u8> = (0..4096).map(|_| fastrand::u8(..)).collect();
        for coding in ALL {
            assert_eq!((coding.shorten(&random), coding.shorten(b"x"), coding.shorten(b"")), (None, None, None));
        }
    }

    #[test]
    fn what_is_broken_or_too_large_is_told() {
        let text = vec![b'a'; 1 << 20];
        for coding in ALL {
            let coded = encoded(coding, &text);
            assert_eq!(decoder(coding, 1 << 19).whole(&coded), Err(Failed::TooLarge), "{coding:?}");
            let short = decoder(coding, 1 << 21).whole(&coded[..coded.len() - 3]);
            assert_eq!(short, Err(Failed::Malformed), "{coding:?}");
            assert_eq!(decoder(coding, 1 << 21).whole(b"what is this?"), Err(Failed::Malformed), "{coding:?}");
            let mut trailed = coded.clone();
            trailed.extend(b"more");
            assert_eq!(decoder(coding, 1 << 21).whole(&trailed), Err(Failed::Malformed), "{coding:?}");
        }
    }

    #[test]
    fn only_one_coding_that_is_known_is_undone() {
        assert!(Decoder::of(b"", 1).unwrap().is_none());
        assert!(Decoder::of(b"Identity, X-GZIP", 1).unwrap().is_some());
        assert!(Decoder::of(b"gzip, br", 1).is_none());
        assert!(Decoder::of(b"compress", 1).is_none());
    }
}
