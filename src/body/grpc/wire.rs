//! The binary form of protobuf: fields as they stand in a message, without a word of what they mean.

use super::DEPTH;

/// What a field holds, by its wire type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Datum<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
    /// What lies between the two tags of a group.
    Group(&'a [u8]),
}

/// Reads the fields of a message one after the other.
#[derive(Debug, Clone)]
pub(super) struct Wire<'a> {
    rest: &'a [u8],
}

type Read<T> = Result<T, &'static str>;

impl<'a> Wire<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next field's number and what it holds.
    pub fn next(&mut self) -> Read<Option<(u32, Datum<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (number, kind) = self.tag()?;
        let datum = match kind {
            3 => Datum::Group(self.group(number)?),
            4 => return Err("a group ends that did not begin"),
            kind => self.plain(kind)?,
        };
        Ok(Some((number, datum)))
    }

    pub fn varint(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for (i, byte) in self.rest.iter().take(10).enumerate() {
            if i == 9 && *byte > 1 {
                return Err("a number is longer than 64 bits");
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[i + 1..];
                return Ok(value);
            }
        }
        Err("a number does not end")
    }

    pub fn fixed64(&mut self) -> Read<u64> {
        let (value, rest) = self.rest.split_first_chunk().ok_or("a number does not end")?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*value))
    }

    pub fn fixed32(&mut self) -> Read<u32> {
        let (value, rest) = self.rest.split_first_chunk().ok_or("a number does not end")?;
        self.rest = rest;
        Ok(u32::from_le_bytes(*value))
    }

    fn bytes(&mut self) -> Read<&'a [u8]> {
        let length = usize::try_from(self.varint()?).map_err(|_| "a field is longer than its message")?;
        let (value, rest) = self.rest.split_at_checked(length).ok_or("a field is longer than its message")?;
        self.rest = rest;
        Ok(value)
    }

    fn tag(&mut self) -> Read<(u32, u8)> {
        let tag = u32::try_from(self.varint()?).map_err(|_| "a field's number is too large")?;
        if tag >> 3 == 0 {
            return Err("a field has the number 0");
        }
        Ok((tag >> 3, (tag & 7) as u8))
    }

    fn plain(&mut self, kind: u8) -> Read<Datum<'a>> {
        Ok(match kind {
            0 => Datum::Varint(self.varint()?),
            1 => Datum::Fixed64(self.fixed64()?),
            2 => Datum::Bytes(self.bytes()?),
            5 => Datum::Fixed32(self.fixed32()?),
            _ => return Err("a field has an unknown wire type"),
        })
    }

    /// What lies before the end of the group.
    fn group(&mut self, number: u32) -> Read<&'a [u8]> {
        let whole = self.rest;
        let mut open = vec![number];
        loop {
            let before = whole.len() - self.rest.len();
            let (number, kind) = self.tag()?;
            match kind {
                3 if open.len() == DEPTH => return Err("groups lie too deep in each other"),
                3 => open.push(number),
                4 if open.pop() != Some(number) => return Err("a group ends that did not begin"),
                4 if open.is_empty() => return Ok(&whole[..before]),
                4 => {}
                kind => drop(self.plain(kind)?),
            }
        }
    }
}

/// The wire types that are written.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const BYTES: u8 = 2;
pub(super) const GROUP: u8 = 3;
pub(super) const GROUP_END: u8 = 4;
pub(super) const FIXED32: u8 = 5;

pub(super) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_tag(number: u32, kind: u8, out: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | u64::from(kind), out);
}

pub(super) fn put_bytes(number: u32, value: &[u8], out: &mut Vec<u8>) {
    put_tag(number, BYTES, out);
    put_varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Makes what stands in `out` from `start` on a field of that length.
pub(super) fn enclose(number: u32, start: usize, out: &mut Vec<u8>) {
    let length = out.len() - start;
    let mut head = Vec::with_capacity(10);
    put_tag(number, BYTES, &mut head);
    put_varint(length as u64, &mut head);
    out.splice(start..start, head);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Read<Vec<(u32, Datum<'_>)>> {
        let mut wire = Wire::new(bytes);
        let mut all = Vec::new();
        while let Some(field) = wire.next()? {
            all.push(field);
        }
        Ok(all)
    }

    #[test]
    fn fields_are_read() {
        assert_eq!(all(&[8, 0x96, 1]).unwrap(), [(1, Datum::Varint(150))]);
        assert_eq!(all(&[0x0d, 1, 0, 0, 0]).unwrap(), [(1, Datum::Fixed32(1))]);
        assert_eq!(all(&[0x12, 2, b'h', b'i']).unwrap(), [(2, Datum::Bytes(b"hi"))]);
        assert_eq!(all(&[0x0b, 0x13, 0x14, 8, 1, 0x0c]).unwrap(), [(1, Datum::Group(&[0x13, 0x14, 8, 1]))]);
    }

    #[test]
    fn garbage_is_refused() {
        let refused: [&[u8]; 10] = [
            &[8],
            &[8, 0x80],
            &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            &[8, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1],
            &[0, 0],
            &[0x12, 255, 255, 255, 255, 15],
            &[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            &[0x0c],
            &[0x0b, 0x14],
            &[0x0f],
        ];
        for bytes in refused {
            assert!(all(bytes).is_err(), "{bytes:?}");
        }
        assert!(all(&[0x0b; 100_000]).is_err());
    }
}
