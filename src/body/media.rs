//! Media types (RFC 9110, section 8.3.1): what a `Content-Type` says, and ranges of types as configurations name them.

use crate::http1::is_token;

/// The type and subtype of a `Content-Type`, without its parameters.
pub fn essence(content_type: &[u8]) -> &[u8] {
    content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii()
}

/// Whether a `Content-Type` says JSON.
pub fn is_json(content_type: &[u8]) -> bool {
    is(content_type, &["application/json"], b"+json")
}

/// Whether a `Content-Type` says XML.
pub fn is_xml(content_type: &[u8]) -> bool {
    is(content_type, &["application/xml", "text/xml"], b"+xml")
}

/// Whether a `Content-Type` says gRPC, or gRPC-Web.
pub fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

fn is(content_type: &[u8], names: &[&str], suffix: &[u8]) -> bool {
    let media = essence(content_type);
    let start = media.len().saturating_sub(suffix.len());
    names.iter().any(|name| media.eq_ignore_ascii_case(name.as_bytes()))
        || media.contains(&b'/') && media[start..].eq_ignore_ascii_case(suffix)
}

/// A parameter of a `Content-Type`; `None` where it is not there, or the parameters can be read in two ways.
pub fn parameter<'t>(content_type: &'t str, name: &str) -> Option<&'t str> {
    let (_, parameters) = parameters(content_type)?;
    parameters.into_iter().find(|(known, _)| known == name).map(|(_, value)| value)
}

/// The value of a field and its parameters, with names in lower case; `None` if it is not well-formed or has one twice. A
/// backslash in a quoted value is refused, for some mean it as an escape and others do not.
pub fn parameters(value: &str) -> Option<(&str, Vec<(String, &str)>)> {
    let (first, mut rest) = value.split_at(value.find(';').unwrap_or(value.len()));
    let mut found: Vec<(String, &str)> = Vec::new();
    let spaces = [' ', '\t'];
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches(spaces);
        if parameter.is_empty() || parameter.starts_with(';') {
            rest = parameter;
            continue;
        }
        let (name, value) = parameter.split_once('=')?;
        let (value, after) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').filter(|(value, _)| !value.contains('\\'))?,
            None => {
                let (value, after) = value.split_at(value.find(';').unwrap_or(value.len()));
                let value = value.trim_end_matches(spaces);
                (Some(value).filter(|value| !value.is_empty() && value.bytes().all(is_token))?, after)
            }
        };
        let name = name.trim_matches(spaces).to_ascii_lowercase();
        if name.is_empty() || found.iter().any(|(other, _)| *other == name) {
            return None;
        }
        found.push((name, value));
        rest = after.trim_start_matches(spaces);
    }
    rest.is_empty().then(|| (first.trim_matches(spaces), found))
}

/// One media type, or several: `application/json`, `text/*`, `application/*+json`, `*/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    text: Box<str>,
    /// Where its star is, if it has one.
    star: Option<usize>,
}

impl Range {
    /// Reads a range; `None` if it is none. It has no parameters.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let (kind, subtype) = text.split_once('/')?;
        let name = |part: &str| !part.is_empty() && part.bytes().all(|b| is_token(b) && b != b'*');
        let star = text.find('*');
        let sound = match subtype.split_once('*') {
            None => name(kind) && name(subtype),
            Some(("", "")) => kind == "*" || name(kind),
            Some((start, end)) => name(kind) && (start.is_empty() || name(start)) && (end.is_empty() || name(end)),
        };
        sound.then(|| Self { text: text.into(), star })
    }

    /// Whether it takes a `Content-Type`: the more the nearer, and not at all where it is 0.
    pub fn rank(&self, content_type: &[u8]) -> u8 {
        let (media, text) = (essence(content_type), self.text.as_bytes());
        match self.star {
            None => {
                if media.eq_ignore_ascii_case(text) {
                    3
                } else {
                    0
                }
            }
            Some(0) => u8::from(media.contains(&b'/')),
            Some(star) => {
                let (start, end) = (&text[..star], &text[star + 1..]);
                let long = media.len() >= start.len() + end.len();
                let alike = long
                    && media[..start.len()].eq_ignore_ascii_case(start)
                    && media[media.len() - end.len()..].eq_ignore_ascii_case(end);
                if alike { 2 } else { 0 }
            }
        }
    }

    /// As it is written, in lower case.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_may_have_a_star() {
        let rank = |range: &str, media: &str| Range::parse(range).unwrap().rank(media.as_bytes());
        assert_eq!((rank("application/*+json", "application/problem+JSON"), rank("text/*", "text/html; a=b")), (2, 2));
        assert_eq!((rank("Text/HTML", "text/html"), rank("*/*", "a/b"), rank("*/*", "")), (3, 1, 0));
        assert_eq!((rank("application/*+json", "application/json"), rank("text/html", "text/htmlx")), (0, 0));
        for none in ["text", "*", "text/a b", "*/json", "a/*b*", "a/b;c=d", "/", "a/"] {
            assert_eq!(Range::parse(none), None, "{none}");
        }
    }

    #[test]
    fn parameters_may_be_quoted() {
        assert_eq!(parameter("a/b; Action=\"urn:a;b\" ; charset=utf-8;", "action"), Some("urn:a;b"));
        assert_eq!(parameter("a/b; x=\"y;charset=z\"", "charset"), None);
        for wrong in ["a/b; x", "a/b; x=1; X=2", "a/b; x=\"1", "a/b; x=\"a\\b\"", "a/b; x=1 2"] {
            assert_eq!(parameters(wrong), None, "{wrong}");
        }
    }
}
