//! The PROXY protocol, versions 1 and 2: who really connected, said by a load balancer in front before
//! anything else.
//!
//! Whoever may speak it can claim any address, so it is believed from trusted peers only, and a trusted peer
//! must speak it.

use std::io;
use std::net::SocketAddr;

use bytes::BytesMut;
use ppp::{HeaderResult, PartialResult};
use tokio::io::{AsyncRead, AsyncReadExt};

/// A header with all that version 2 may add to it.
const LONGEST: usize = 4096;

/// Source and destination that the header gives.
pub type Addresses = (SocketAddr, SocketAddr);

/// Reads the header, and not one byte more. `None` when it gives no address (`UNKNOWN`, `LOCAL`).
///
/// # Errors
/// What arrives is not a header of either version, or the connection ends.
pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Addresses>> {
    let mut bytes = BytesMut::with_capacity(256);
    // The shortest header has 15 bytes; version 2 says its length in the first 16.
    let mut want = 12;
    loop {
        while bytes.len() < want {
            let mut byte = [0; 256];
            let n = io.read(&mut byte[..(want - bytes.len()).min(256)]).await?;
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            bytes.extend_from_slice(&byte[..n]);
        }
        if bytes.starts_with(ppp::v2::PROTOCOL_PREFIX) {
            if bytes.len() < 16 {
                want = 16;
                continue;
            }
            let length = 16 + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
            if length > LONGEST {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the PROXY header is too long"));
            }
            if bytes.len() < length {
                want = length;
                continue;
            }
        } else if !bytes.starts_with(b"PROXY ") {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY header"));
        } else if !bytes.ends_with(b"\r\n") {
            // Version 1 ends with its line: byte by byte, so that nothing beyond it is taken.
            if bytes.len() >= 107 {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the PROXY line is too long"));
            }
            want = bytes.len() + 1;
            continue;
        }
        let result = HeaderResult::parse(&bytes);
        if result.is_incomplete() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the PROXY header is incomplete"));
        }
        return addresses(result);
    }
}

fn addresses(result: HeaderResult<'_>) -> io::Result<Option<Addresses>> {
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    match result {
        HeaderResult::V1(header) => Ok(match header.map_err(|error| invalid(error.to_string()))?.addresses {
            ppp::v1::Addresses::Tcp4(a) => {
                Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
            }
            ppp::v1::Addresses::Tcp6(a) => {
                Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
            }
            ppp::v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(header) => {
            let header = header.map_err(|error| invalid(error.to_string()))?;
            if header.command == ppp::v2::Command::Local {
                return Ok(None);
            }
            Ok(match header.addresses {
                ppp::v2::Addresses::IPv4(a) => {
                    Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
                }
                ppp::v2::Addresses::IPv6(a) => {
                    Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
                }
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn parse(bytes: &[u8]) -> (io::Result<Option<Addresses>>, usize) {
        let mut rest = bytes;
        let result = read(&mut rest).await;
        (result, rest.len())
    }

    #[tokio::test]
    async fn both_versions() {
        let (result, rest) = parse(b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\nGET /").await;
        assert_eq!(result.unwrap().unwrap().0, "192.0.2.1:1000".parse().unwrap());
        assert_eq!(rest, 5);
        let (result, rest) = parse(b"PROXY UNKNOWN\r\nGET /").await;
        assert_eq!((result.unwrap(), rest), (None, 5));
        let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
        v2.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2, 3, 232, 0, 80]);
        v2.extend_from_slice(b"GET /");
        let (result, rest) = parse(&v2).await;
        assert_eq!(result.unwrap().unwrap().0, "192.0.2.1:1000".parse().unwrap());
        assert_eq!(rest, 5);
        let (result, _) = parse(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0").await;
        assert_eq!(result.unwrap(), None);
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        for wrong in [
            &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
            b"PROXY TCP4 x y 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            b"",
        ] {
            assert!(parse(wrong).await.0.is_err(), "{wrong:?}");
        }
        let long = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        assert!(parse(&long).await.0.is_err());
    }
}
