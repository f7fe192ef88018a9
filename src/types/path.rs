//! The path of a request, in the one form that everything after it sees.
//!
//! A path is normalised once, before any decision is taken on it: the route, the policies, the cache key, the log
//! and the upstream all get the same text, so none of them can be talked into reading it differently. This is the
//! whole rule:
//!
//! 1. A path starts with `/`. It is the path alone: a `?` or `#` in it is refused.
//! 2. `%` is followed by two hexadecimal digits; anything else (`%`, `%4`, `%zz`) is refused.
//! 3. An escape of an unreserved character (RFC 3986, section 2.3: letters, digits, `-`, `.`, `_`, `~`) is decoded:
//!    `%41` becomes `A`. Every other escape stays, with its digits in upper case: `%c3%a9` becomes `%C3%A9`.
//!    Decoding happens once: `%252e` is the text `%2e`, escaped, and stays as it is.
//! 4. Escapes that mean structure or harm in some servers are refused: `%2F` (`/`), `%5C` (`\`), `%00`, and the other
//!    control characters (`%01` to `%1F`, `%7F`).
//! 5. A raw backslash, a raw control character and a raw byte outside ASCII are refused.
//! 6. Characters that RFC 3986, section 3.3, does not allow in a path are escaped: the space and `"<>[]^`{|}`.
//! 7. Empty segments are merged: `/a//b` becomes `/a/b`.
//! 8. After all that, dot segments are removed (RFC 3986, section 5.2.4): `/a/./b` becomes `/a/b` and
//!    `/a/%2e%2e/b` becomes `/b`. A path that climbs above the root is refused, where the RFC would stop at the root.
//! 9. A dot segment with a parameter (`/..;/`, `/.;x`, `/..%3B/`) is refused: some servers cut the parameter off and
//!    find a dot segment.
//! 10. A slash at the end stays, and `/a/` is another path than `/a`.
//!
//! Upper and lower case are different, and escapes above `%7F` are not checked to be UTF-8: `%C0%AE` is data, not a dot.
//!
//! ```
//! use portcullis::types::path::{PathError, normalize};
//!
//! assert_eq!(normalize("/users/%7Ealice/./notes//").as_deref(), Ok("/users/~alice/notes/"));
//! assert_eq!(normalize("/static/..%2f..%2fetc/passwd"), Err(PathError::EncodedSlash));
//! ```

use std::borrow::Cow;
use std::fmt;

/// Normalises the path of a request target by the rule of this [module](self).
///
/// A path that is normal already comes back borrowed, after one pass over it. Normalising twice changes nothing.
///
/// # Errors
/// What makes the path unacceptable; the request deserves a 400.
pub fn normalize(raw: &str) -> Result<Cow<'_, str>, PathError> {
    if is_normal(raw) {
        return Ok(Cow::Borrowed(raw));
    }
    rewrite(raw.as_bytes()).map(Cow::Owned)
}

/// [`normalize`] for a path that is still bytes.
///
/// # Errors
/// As [`normalize`]; bytes outside ASCII are one of them.
pub fn normalize_bytes(raw: &[u8]) -> Result<Cow<'_, str>, PathError> {
    match std::str::from_utf8(raw) {
        Ok(text) => normalize(text),
        Err(_) => rewrite(raw).map(Cow::Owned),
    }
}

/// Whether [`normalize`] would give back the path unchanged.
pub fn is_normal(path: &str) -> bool {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return false;
    }
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        let at_segment_start = bytes[at - 1] == b'/';
        match CLASSES[usize::from(byte)] {
            Class::Plain => at += 1,
            Class::Dot if at_segment_start && dot_segment(&bytes[at..]) != DotSegment::No => return false,
            Class::Dot => at += 1,
            Class::Slash if at_segment_start => return false,
            Class::Slash => at += 1,
            Class::Percent => match bytes.get(at + 1..at + 3) {
                Some(&[high, low]) if is_normal_escape(high, low) => at += 3,
                _ => return false,
            },
            _ => return false,
        }
    }
    true
}

/// Why a path was refused. Its text is fit for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathError {
    /// It does not start with `/`.
    NotAbsolute,
    /// A raw `?` or `#`: the query was not cut off, or the client sent a fragment.
    Delimiter,
    /// `%` without two hexadecimal digits after it.
    BadEscape,
    /// `%2F`.
    EncodedSlash,
    /// `%5C`.
    EncodedBackslash,
    /// `%00`.
    EncodedNul,
    /// `%01` to `%1F`, or `%7F`.
    EncodedControl,
    /// A raw `\`.
    Backslash,
    /// A raw control character.
    Control,
    /// A raw byte outside ASCII.
    NonAscii,
    /// `..` at the root.
    AboveRoot,
    /// `.` or `..` with a parameter, as in `/..;/`.
    DotParameter,
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not start with `/`",
            Self::Delimiter => "the path holds a `?` or `#`",
            Self::BadEscape => "the path holds a `%` that two hexadecimal digits do not follow",
            Self::EncodedSlash => "the path holds an encoded slash (`%2F`)",
            Self::EncodedBackslash => "the path holds an encoded backslash (`%5C`)",
            Self::EncodedNul => "the path holds an encoded NUL (`%00`)",
            Self::EncodedControl => "the path holds an encoded control character",
            Self::Backslash => "the path holds a backslash",
            Self::Control => "the path holds a control character",
            Self::NonAscii => "the path holds a byte outside ASCII that is not percent-encoded",
            Self::AboveRoot => "the path climbs above the root with `..`",
            Self::DotParameter => "the path holds a dot segment with a parameter, such as `..;`",
        })
    }
}

impl std::error::Error for PathError {}

/// The slow way: writes the normal form segment by segment. Between segments the output ends with a slash, so taking
/// a segment back is a truncation.
fn rewrite(raw: &[u8]) -> Result<String, PathError> {
    let Some(b'/') = raw.first() else { return Err(PathError::NotAbsolute) };
    let mut path = String::with_capacity(raw.len() + 8);
    path.push('/');
    let mut segments = raw[1..].split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let start = path.len();
        push_segment(&mut path, segment)?;
        let written = &path.as_bytes()[start..];
        match dot_segment(written) {
            DotSegment::Parameter => return Err(PathError::DotParameter),
            DotSegment::Current => path.truncate(start),
            DotSegment::Parent => {
                // The root's slash is at 0, so what is before the last slash is a segment unless we are at the root.
                let parent = path[..start - 1].rfind('/').ok_or(PathError::AboveRoot)?;
                path.truncate(parent + 1);
            }
            DotSegment::No if written.is_empty() || segments.peek().is_none() => {}
            DotSegment::No => path.push('/'),
        }
    }
    Ok(path)
}

/// Writes one segment with every character in its normal form.
fn push_segment(path: &mut String, segment: &[u8]) -> Result<(), PathError> {
    let mut rest = segment;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match CLASSES[usize::from(*byte)] {
            Class::Plain | Class::Dot => path.push(char::from(*byte)),
            Class::Escape => push_escape(path, *byte),
            Class::Percent => {
                let [high, low, tail @ ..] = rest else { return Err(PathError::BadEscape) };
                rest = tail;
                let value = escaped(*high, *low).ok_or(PathError::BadEscape)?;
                match value {
                    b'/' => return Err(PathError::EncodedSlash),
                    b'\\' => return Err(PathError::EncodedBackslash),
                    0 => return Err(PathError::EncodedNul),
                    1..=0x1F | 0x7F => return Err(PathError::EncodedControl),
                    _ if is_unreserved(value) => path.push(char::from(value)),
                    _ => push_escape(path, value),
                }
            }
            Class::Backslash => return Err(PathError::Backslash),
            Class::Control => return Err(PathError::Control),
            Class::NonAscii => return Err(PathError::NonAscii),
            Class::Delimiter => return Err(PathError::Delimiter),
            Class::Slash => unreachable!("segments are split at slashes"),
        }
    }
    Ok(())
}

/// Appends `%XX`.
pub(crate) fn push_escape(path: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    path.push('%');
    path.push(char::from(DIGITS[usize::from(byte >> 4)]));
    path.push(char::from(DIGITS[usize::from(byte & 15)]));
}

/// What the text is up to its next slash, every character being normal.
fn dot_segment(text: &[u8]) -> DotSegment {
    let (kind, rest) = match text {
        [b'.', b'.', rest @ ..] => (DotSegment::Parent, rest),
        [b'.', rest @ ..] => (DotSegment::Current, rest),
        _ => return DotSegment::No,
    };
    match rest {
        [] | [b'/', ..] => kind,
        [b';', ..] | [b'%', b'3', b'B' | b'b', ..] => DotSegment::Parameter,
        _ => DotSegment::No,
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum DotSegment {
    No,
    Current,
    Parent,
    Parameter,
}

/// Whether `%` and these digits are as normalisation leaves them.
fn is_normal_escape(high: u8, low: u8) -> bool {
    !high.is_ascii_lowercase() && !low.is_ascii_lowercase() && escaped(high, low).is_some_and(stays_escaped)
}

/// Whether a byte stays an escape in a normal path: neither is it decoded nor refused.
pub(crate) const fn stays_escaped(byte: u8) -> bool {
    !is_unreserved(byte) && !matches!(byte, b'/' | b'\\' | 0..=0x1F | 0x7F)
}

fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |byte| char::from(byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a raw byte is to a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `pchar` of RFC 3986, apart from the dot and escapes.
    Plain,
    Dot,
    Slash,
    Percent,
    /// Not allowed in a path, and harmless once escaped.
    Escape,
    Backslash,
    Control,
    NonAscii,
    Delimiter,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Escape; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'.' => Class::Dot,
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'\\' => Class::Backslash,
            b'?' | b'#' => Class::Delimiter,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' => Class::Plain,
            0..=0x1F | 0x7F => Class::Control,
            0x80.. => Class::NonAscii,
            other if is_unreserved(other) => Class::Plain,
            _ => Class::Escape,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(raw: &str) -> String {
        normalize(raw).unwrap_or_else(|error| panic!("{raw}: {error}")).into_owned()
    }

    #[test]
    fn what_is_normal_is_borrowed() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c/d",
            "/.well-known/x",
            "/..a/...",
            "/a;v=1/b",
            "/%2525/%C3%A9",
            "/%252e",
            "/@:!$&'()*+,=~_-",
        ] {
            assert!(matches!(normalize(path), Ok(Cow::Borrowed(same)) if same == path), "{path}");
            assert_eq!(rewrite(path.as_bytes()).as_deref(), Ok(path));
        }
    }

    #[test]
    fn rewriting() {
        for (raw, expected) in [
            ("/%41%7e%2D", "/A~-"),
            ("/%c3%a9", "/%C3%A9"),
            ("/%c0%ae%c0%ae/", "/%C0%AE%C0%AE/"),
            ("/a b", "/a%20b"),
            ("/\"<>[]^`{|}", "/%22%3C%3E%5B%5D%5E%60%7B%7C%7D"),
            ("//", "/"),
            ("///a///b///", "/a/b/"),
            ("/.", "/"),
            ("/./", "/"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2e/b", "/b"),
            ("/a/%2E./b/.%2e/c", "/c"),
            ("/a//..//b", "/b"),
            ("/a//b//../c", "/a/c"),
            ("/%252e%252E/", "/%252e%252E/"),
            ("/%2525", "/%2525"),
            ("/...", "/..."),
            ("/a;..", "/a;.."),
            ("/a%3b", "/a%3B"),
            ("/a%3f%23", "/a%3F%23"),
        ] {
            assert_eq!(normal(raw), expected, "{raw}");
        }
    }

    #[test]
    fn refusals_say_why() {
        use PathError::*;
        for (raw, expected) in [
            ("", NotAbsolute),
            ("*", NotAbsolute),
            ("a/b", NotAbsolute),
            ("http://x/", NotAbsolute),
            ("/a?b", Delimiter),
            ("/a#/../b", Delimiter),
            ("/%", BadEscape),
            ("/%4", BadEscape),
            ("/%zz", BadEscape),
            ("/%4/1", BadEscape),
            ("/%+1", BadEscape),
            ("/..%2f", EncodedSlash),
            ("/a%2Fb", EncodedSlash),
            ("/..%5c", EncodedBackslash),
            ("/a%00.png", EncodedNul),
            ("/%0d%0aSet-Cookie:x", EncodedControl),
            ("/%7f", EncodedControl),
            ("/..\\..\\", Backslash),
            ("/a\0b", Control),
            ("/a\tb", Control),
            ("/a\r\nb", Control),
            ("/a\u{7f}", Control),
            ("/caf\u{e9}", NonAscii),
            ("/\u{ff0e}\u{ff0e}/", NonAscii),
            ("/..", AboveRoot),
            ("/../", AboveRoot),
            ("/%2e%2e/a", AboveRoot),
            ("/%2E%2e", AboveRoot),
            ("/a/../../b", AboveRoot),
            ("//..", AboveRoot),
            ("/./..", AboveRoot),
            ("/a/..;/b", DotParameter),
            ("/.;x=1/b", DotParameter),
            ("/a/%2e%2e;x", DotParameter),
            ("/a/..%3b/b", DotParameter),
        ] {
            assert_eq!(normalize(raw), Err(expected), "{raw:?}");
        }
        assert_eq!(normalize_bytes(b"/\xc0\xae\xc0\xae/"), Err(NonAscii));
        assert_eq!(normalize_bytes(b"/a").as_deref(), Ok("/a"));
    }

    /// Paths out of the pieces that attacks are made of.
    fn hostile() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%2e", "%2E", "%", "%25", "%252e", "%2f", "%5c", "%00", "%c0%ae", "\\", ";",
            "%3b", "a", "B", "%41", " ", "\0", "é", "?", "#", "%4", "{", "%7e", "%20",
        ]);
        prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn normalising_twice_changes_nothing(raw in prop_oneof![hostile(), "/?[ -~]{0,20}", any::<String>()]) {
            let once = normalize(&raw);
            prop_assert_eq!(&once, &rewrite(raw.as_bytes()).map(Cow::Owned));
            if let Ok(once) = once {
                prop_assert!(is_normal(&once));
                prop_assert!(matches!(normalize(&once), Ok(Cow::Borrowed(_))));
                prop_assert_eq!(rewrite(once.as_bytes()), Ok(once.into_owned()));
            }
        }

        #[test]
        fn what_comes_out_is_harmless(raw in hostile()) {
            if let Ok(path) = normalize(&raw) {
                prop_assert!(path.starts_with('/') && path.is_ascii());
                prop_assert!(!path.contains("//") && !path.contains('\\'));
                prop_assert!(!path.split('/').any(|segment| matches!(segment.split(';').next(), Some("." | ".."))));
                prop_assert!(!path.contains("%2F") && !path.contains("%5C") && !path.contains("%00") && !path.contains("%2E"));
            }
        }

        #[test]
        fn any_bytes(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = normalize_bytes(&raw);
        }
    }
}
