//! The types that have a text form in JSON: Timestamp, Duration and FieldMask, both ways.

use std::io::Write;

use jiff::SignedDuration;
use jiff::civil::Date;

/// Seconds and nanoseconds, which both types have as fields 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seconds {
    pub seconds: i64,
    pub nanos: i32,
}

/// The seconds of 0001-01-01T00:00:00Z and of 9999-12-31T23:59:59Z.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const EPOCH: Date = Date::constant(1970, 1, 1);
/// About 10,000 years.
const LONGEST: i64 = 315_576_000_000;

/// Reads RFC 3339, as `2024-02-29T12:00:00.5Z`.
pub(super) fn read_timestamp(text: &str) -> Option<Seconds> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !separators.iter().all(|(at, byte)| bytes.get(*at) == Some(byte)) {
        return None;
    }
    let date = Date::new(digits(text, 0, 4)?, digits(text, 5, 7)?, digits(text, 8, 10)?).ok()?;
    let (hour, minute, second): (i64, i64, i64) = (digits(text, 11, 13)?, digits(text, 14, 16)?, digits(text, 17, 19)?);
    let (nanos, zone) = fraction(text.get(19..)?)?;
    let offset = match zone.as_bytes() {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes): (i64, i64) = (digits(zone, 1, 3)?, digits(zone, 4, 6)?);
            let seconds = hours * 3600 + minutes * 60;
            (hours < 24 && minutes < 60).then_some(if *sign == b'-' { -seconds } else { seconds })?
        }
        _ => return None,
    };
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let midnight = date.duration_since(EPOCH).as_secs();
    let seconds = midnight + hour * 3600 + minute * 60 + second - offset;
    TIMES.contains(&seconds).then_some(Seconds { seconds, nanos })
}

/// Writes RFC 3339, in UTC.
pub(super) fn write_timestamp(time: Seconds, out: &mut Vec<u8>) -> Option<()> {
    if !TIMES.contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        return None;
    }
    let civil = EPOCH.at(0, 0, 0, 0).checked_add(SignedDuration::from_secs(time.seconds)).ok()?;
    let (year, month, day) = (civil.year(), civil.month(), civil.day());
    let (hour, minute, second) = (civil.hour(), civil.minute(), civil.second());
    write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}").ok()?;
    write_fraction(time.nanos, out);
    out.push(b'Z');
    Some(())
}

/// Reads seconds, as `-1.5s`.
pub(super) fn read_duration(text: &str) -> Option<Seconds> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let whole = text.bytes().take_while(u8::is_ascii_digit).count();
    let seconds: i64 = text[..whole].parse().ok()?;
    let (nanos, rest) = fraction(&text[whole..])?;
    let sign = if negative { -1 } else { 1 };
    let read = Seconds { seconds: seconds.checked_mul(sign)?, nanos: nanos * sign as i32 };
    (rest.is_empty() && is_duration(read)).then_some(read)
}

/// Writes seconds.
pub(super) fn write_duration(time: Seconds, out: &mut Vec<u8>) -> Option<()> {
    if !is_duration(time) {
        return None;
    }
    let sign = if time.seconds < 0 || time.nanos < 0 { "-" } else { "" };
    write!(out, "{sign}{}", time.seconds.unsigned_abs()).ok()?;
    write_fraction(time.nanos.abs(), out);
    out.push(b's');
    Some(())
}

/// A path of a FieldMask in lowerCamelCase, as its field is named: `userName` is `user_name`.
pub(super) fn read_path(text: &str) -> Option<String> {
    let mut path = String::with_capacity(text.len() + 4);
    for c in text.chars() {
        match c {
            'A'..='Z' => path.extend(['_', c.to_ascii_lowercase()]),
            'a'..='z' | '0'..='9' | '.' => path.push(c),
            _ => return None,
        }
    }
    (!path.is_empty()).then_some(path)
}

/// A path of a FieldMask in lowerCamelCase, if that says the same.
pub(super) fn write_path(path: &str) -> Option<String> {
    let mut text = String::with_capacity(path.len());
    let mut raise = false;
    for c in path.chars() {
        match c {
            '_' if !raise => raise = true,
            'a'..='z' if raise => {
                text.push(c.to_ascii_uppercase());
                raise = false;
            }
            'a'..='z' | '0'..='9' | '.' if !raise => text.push(c),
            _ => return None,
        }
    }
    (!raise && !text.is_empty()).then_some(text)
}

fn is_duration(time: Seconds) -> bool {
    let one_way = time.seconds == 0 || time.nanos == 0 || (time.seconds < 0) == (time.nanos < 0);
    one_way && time.seconds.unsigned_abs() <= LONGEST.unsigned_abs() && time.nanos.unsigned_abs() < 1_000_000_000
}

fn digits<T: std::str::FromStr>(text: &str, from: usize, to: usize) -> Option<T> {
    let digits = text.get(from..to)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The nanoseconds of `.5`, which may be missing, and what follows.
fn fraction(text: &str) -> Option<(i32, &str)> {
    let Some(text) = text.strip_prefix('.') else { return Some((0, text)) };
    let length = text.bytes().take_while(u8::is_ascii_digit).count();
    if !(1..=9).contains(&length) {
        return None;
    }
    let value: i32 = text[..length].parse().ok()?;
    Some((value * 10i32.pow(9 - length as u32), &text[length..]))
}

/// None, three, six or nine digits.
fn write_fraction(nanos: i32, out: &mut Vec<u8>) {
    let written = match nanos {
        0 => Ok(()),
        n if n % 1_000_000 == 0 => write!(out, ".{:03}", n / 1_000_000),
        n if n % 1_000 == 0 => write!(out, ".{:06}", n / 1_000),
        n => write!(out, ".{n:09}"),
    };
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timestamp(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write_timestamp(read_timestamp(text)?, &mut out)?;
        String::from_utf8(out).ok()
    }

    fn duration(text: &str) -> Option<String> {
        let mut out = Vec::new();
        write_duration(read_duration(text)?, &mut out)?;
        String::from_utf8(out).ok()
    }

    #[test]
    fn timestamps() {
        let same = [
            "1970-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "2024-02-29T12:00:00.010Z",
        ];
        for text in same {
            assert_eq!(timestamp(text).as_deref(), Some(text));
        }
        assert_eq!(timestamp("1969-12-31T23:59:59.5Z").as_deref(), Some("1969-12-31T23:59:59.500Z"));
        assert_eq!(timestamp("1970-01-01T08:00:01.000001+08:00").as_deref(), Some("1970-01-01T00:00:01.000001Z"));
        let refused = [
            "",
            "1970-01-01",
            "1970-01-01T00:00:00",
            "1970-01-01t00:00:00Z",
            "1970-01-01T00:00:00z",
            "1970-01-01 00:00:00Z",
            "1970-02-30T00:00:00Z",
            "1970-01-01T24:00:00Z",
            "1970-01-01T00:00:60Z",
            "1970-01-01T00:00:00.Z",
            "1970-01-01T00:00:00.1234567890Z",
            "1970-01-01T00:00:00+1:00",
            "0001-01-01T00:00:00+01:00",
            "+970-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
            "0000-01-01T00:00:00Z",
            "1970-01-01T00:00:00ZZ",
            "1970-01-01T00:00:00+24:00",
            "é970-01-01T00:00:00Z",
        ];
        for text in refused {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn durations() {
        for text in ["0s", "1s", "-1s", "1.500s", "-0.500s", "0.000001s", "315576000000.999999999s", "-3.000000001s"] {
            assert_eq!(duration(text).as_deref(), Some(text));
        }
        for text in [
            "",
            "s",
            "1",
            "1.s",
            ".5s",
            "1.0000000000s",
            "315576000001s",
            "+1s",
            "--1s",
            "1 s",
            "99999999999999999999s",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(write_duration(Seconds { seconds: 1, nanos: -1 }, &mut Vec::new()), None);
        assert_eq!(write_timestamp(Seconds { seconds: 1, nanos: i32::MIN }, &mut Vec::new()), None);
        assert_eq!(write_duration(Seconds { seconds: i64::MIN, nanos: i32::MIN }, &mut Vec::new()), None);
    }

    #[test]
    fn field_masks() {
        for (path, text) in [("foo_bar.baz", "fooBar.baz"), ("a", "a"), ("a1_b", "a1B")] {
            assert_eq!(read_path(text).as_deref(), Some(path));
            assert_eq!(write_path(path).as_deref(), Some(text));
        }
        for path in ["", "foo__bar", "fooBar", "foo_3", "foo_", "foo bar"] {
            assert_eq!(write_path(path), None, "{path}");
        }
        for text in ["foo_bar", "foo bar", ""] {
            assert_eq!(read_path(text), None, "{text}");
        }
    }
}
