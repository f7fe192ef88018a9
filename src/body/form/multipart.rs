//! A multipart form (RFC 7578) that is held whole.

use std::borrow::Cow;

use super::{FIELDS, Field, Value};
use crate::body::Malformed;
use crate::body::media::parameters;
use crate::body::tokens::short;

/// How large the head of a part may be, in bytes.
const HEAD: usize = 8 << 10;

/// The fields, with where each begins.
pub(super) fn read<'a>(form: &'a [u8], content_type: &str) -> Result<Vec<(u64, Field<'a>)>, Malformed> {
    let delimiter = format!("\r\n--{}", boundary(content_type)?);
    let finder = memchr::memmem::Finder::new(&delimiter);
    // The first delimiter has no line before it.
    if !form.starts_with(&delimiter.as_bytes()[2..]) {
        return Err(Malformed::new(0, "the form does not begin with its boundary"));
    }
    let mut at = delimiter.len() - 2;
    let mut fields = Vec::new();
    while !form[at..].starts_with(b"--") {
        if !form[at..].starts_with(b"\r\n") {
            return Err(Malformed::new(at as u64, "a boundary has something after it, or the form ends too early"));
        }
        if fields.len() == FIELDS {
            return Err(Malformed::new(at as u64, format!("the form has more than {FIELDS} fields")));
        }
        let start = at + 2;
        let length = finder.find(&form[start..]);
        let length = length.ok_or_else(|| Malformed::new(form.len() as u64, "the form ends within a part"))?;
        fields.push((start as u64, part(&form[start..start + length], start)?));
        at = start + length + delimiter.len();
    }
    match &form[at + 2..] {
        b"" | b"\r\n" => Ok(fields),
        _ => Err(Malformed::new(at as u64 + 2, "there is something after the form")),
    }
}

/// A part, which stands at a place in the form.
fn part(part: &[u8], at: usize) -> Result<Field<'_>, Malformed> {
    let wrong = |what: &'static str| Malformed::new(at as u64, what);
    let end = memchr::memmem::find(&part[..part.len().min(HEAD)], b"\r\n\r\n");
    let end = end.ok_or_else(|| wrong("the head of the part is too large, or has no end"))?;
    let (head, content) = (&part[..end], &part[end + 4..]);
    let head = std::str::from_utf8(head).map_err(|_| wrong("the head of the part is not UTF-8"))?;
    let (mut disposition, mut content_type, mut encoding) = (None, None, None);
    for line in head.split("\r\n") {
        let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let field = line.split_once(':').filter(|(name, _)| is_name(name));
        let (name, value) = field.ok_or_else(|| wrong("the head of the part is not well-formed"))?;
        let value = value.trim_matches([' ', '\t']);
        if value.contains(|c: char| c.is_control()) {
            return Err(wrong("the head of the part has a control character"));
        }
        let place = match name.to_ascii_lowercase().as_str() {
            "content-disposition" => &mut disposition,
            "content-type" => &mut content_type,
            "content-transfer-encoding" => &mut encoding,
            _ => continue,
        };
        if place.replace(value).is_some() {
            return Err(wrong("the head of the part has a field twice"));
        }
    }
    if encoding.is_some_and(|name| !["7bit", "8bit", "binary"].iter().any(|plain| name.eq_ignore_ascii_case(plain))) {
        return Err(wrong("an encoded part is not read"));
    }
    let (kind, named) = disposition.and_then(parameters).ok_or_else(|| wrong("the part has no name"))?;
    let (mut name, mut filename) = (None, None);
    for (key, value) in named {
        match key.as_str() {
            "name" => name = Some(value),
            "filename" => filename = Some(value),
            _ => return Err(wrong("the content disposition has other parameters than `name` and `filename`")),
        }
    }
    let name = name.filter(|_| kind.eq_ignore_ascii_case("form-data"));
    let name = unescape(name.ok_or_else(|| wrong("the part has no name"))?);
    if let Some(filename) = filename.map(unescape) {
        let content_type = content_type.unwrap_or("application/octet-stream");
        return Ok(Field { name, value: Value::File { filename, content_type, content } });
    }
    let charset = match content_type.map(parameters) {
        None => None,
        Some(None) => return Err(wrong("the content type of the part is not well-formed")),
        Some(Some((_, parameters))) => parameters.into_iter().find(|(key, _)| key == "charset"),
    };
    if charset.is_some_and(|(_, name)| !["utf-8", "us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known))) {
        return Err(wrong("only texts in UTF-8 are read"));
    }
    let text = std::str::from_utf8(content).map_err(|_| wrong("the text of the part is not UTF-8"))?;
    Ok(Field { name, value: Value::Text(Cow::Borrowed(text)) })
}

/// The boundary (RFC 2046 section 5.1.1).
fn boundary(content_type: &str) -> Result<&str, Malformed> {
    let wrong = |what: String| Malformed::new(0, what);
    let (_, parameters) = parameters(content_type)
        .filter(|(kind, _)| kind.eq_ignore_ascii_case("multipart/form-data"))
        .ok_or_else(|| wrong("the content type is not that of a multipart form".into()))?;
    let boundary = parameters.into_iter().find(|(name, _)| name == "boundary").map(|(_, value)| value);
    let boundary = boundary.ok_or_else(|| wrong("the content type has no boundary".into()))?;
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&b);
    match (1..=70).contains(&boundary.len()) && boundary.bytes().all(fine) && !boundary.ends_with(' ') {
        true => Ok(boundary),
        false => Err(wrong(format!("`{}` is not a boundary", short(boundary)))),
    }
}

/// A name as browsers write it (WHATWG HTML, multipart form data).
fn unescape(name: &str) -> Cow<'_, str> {
    match name.contains('%') {
        true => name.replace("%22", "\"").replace("%0D", "\r").replace("%0A", "\n").into(),
        false => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::form;
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=x-y";

    fn json(toml: &str, text: &str) -> Result<String, String> {
        let json = form(toml).multipart_to_json(text.as_bytes(), TYPE);
        json.map(|bytes| String::from_utf8(bytes).unwrap()).map_err(|wrong| wrong.to_string())
    }

    fn part(head: &str, content: &str) -> String {
        format!("--x-y\r\n{head}\r\n\r\n{content}\r\n")
    }

    fn text(name: &str, content: &str) -> String {
        part(&format!("Content-Disposition: form-data; name=\"{name}\""), content)
    }

    #[test]
    fn texts_are_strings() {
        let body = text("a", "1") + &text("é", "x\r\n--x\r\n") + &text("a", "") + &text("q%22", "\"") + "--x-y--\r\n";
        assert_eq!(json("", &body).unwrap(), r#"{"a":["1",""],"é":"x\r\n--x\r\n","q\"":"\""}"#);
        assert_eq!(json("numbers = ['a']", &(text("a", "1.0") + "--x-y--")).unwrap(), r#"{"a":1.0}"#);
        assert_eq!(json("", "--x-y--").unwrap(), "{}");
        let plain = "content-disposition:form-data;name=a\r\nContent-Type: text/plain; charset=\"UTF-8\"\r\nX-Other: 1";
        assert_eq!(json("", &(part(plain, "x") + "--x-y--")).unwrap(), r#"{"a":"x"}"#);
    }

    #[test]
    fn files_are_refused_or_objects() {
        let file = "Content-Disposition: form-data; name=\"f\"; filename=\"a;b.png\"\r\nContent-Type: image/png";
        let body = text("a", "1") + &part(file, "\u{1}\u{2}\u{3}") + "--x-y--\r\n";
        assert!(json("", &body).unwrap_err().starts_with("the field `f` is a file, at byte"));
        assert_eq!(
            json("files = 'base64'", &body).unwrap(),
            r#"{"a":"1","f":{"filename":"a;b.png","content_type":"image/png","content":"AQID"}}"#
        );
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let disposition = "Content-Disposition: form-data; name=\"a\"";
        for (body, what) in [
            (String::new(), "begin with its boundary"),
            ("preamble\r\n".to_owned() + &text("a", "1") + "--x-y--", "begin with its boundary"),
            ("--x-y".to_owned(), "ends too early"),
            (text("a", "1"), "ends within a part"),
            (text("a", "1") + "--x-y", "ends too early"),
            (text("a", "1") + "--x-y-", "something after it"),
            (text("a", "1") + "--x-yz\r\n", "something after it"),
            (text("a", "1") + "--x-y--\r\nmore", "something after the form"),
            (part("X: y", "1") + "--x-y--", "has no name"),
            (part("Content-Disposition: attachment; name=\"a\"", "1") + "--x-y--", "has no name"),
            (part("Content-Disposition: form-data", "1") + "--x-y--", "has no name"),
            (part("Content-Disposition: form-data; name=\"a\"; name=\"b\"", "1") + "--x-y--", "has no name"),
            (part("Content-Disposition: form-data; name=\"a\\\"b\"", "1") + "--x-y--", "has no name"),
            (part("Content-Disposition: form-data; name=\"a", "1") + "--x-y--", "has no name"),
            (
                part("Content-Disposition: form-data; name=\"a\"; filename*=UTF-8''x", "1") + "--x-y--",
                "other parameters",
            ),
            (part(&format!("{disposition}\r\n{disposition}"), "1") + "--x-y--", "a field twice"),
            (part(&format!("{disposition}\r\n folded"), "1") + "--x-y--", "not well-formed"),
            (part(&format!("{disposition}\nX: y"), "1") + "--x-y--", "control character"),
            (part(&format!("{disposition}\r\nContent-Transfer-Encoding: base64"), "1") + "--x-y--", "encoded part"),
            (part(&format!("{disposition}\r\nContent-Type: text/plain; charset=latin1"), "1") + "--x-y--", "in UTF-8"),
            (part(&format!("{disposition}\r\nX: {}", "x".repeat(HEAD)), "1") + "--x-y--", "too large"),
            (text("a", "1").repeat(FIELDS + 1) + "--x-y--", "more than 10000"),
        ] {
            let wrong = json("", &body).unwrap_err();
            assert!(wrong.contains(what), "{wrong}: {}", &body[..body.len().min(200)]);
        }
        let bytes = [text("a", "").as_bytes(), b"\xff"].concat();
        assert!(form("").multipart_to_json(&bytes, TYPE).is_err());
        assert!(json("", &(text("a", "1").repeat(FIELDS) + "--x-y--")).is_ok());
    }

    #[test]
    fn a_boundary_is_needed() {
        let of = |content_type: &'static str| boundary(content_type).map_err(|wrong| wrong.what.into_owned());
        assert_eq!(of("Multipart/Form-Data; charset=utf-8; Boundary=\"a b:c\""), Ok("a b:c"));
        for wrong in [
            "text/plain; boundary=a",
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=\"\"",
            "multipart/form-data; boundary=\"a \"",
            "multipart/form-data; boundary=\"a;b\"",
            "multipart/form-data; boundary=a; boundary=b",
            "multipart/form-data; boundary=a b",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_cut_off_is_refused(cut in any::<prop::sample::Index>(), value in "[a\r\n-]{0,8}") {
            let body = text("a", &value) + &text("b", "2") + "--x-y--";
            prop_assert!(json("", &body).is_ok());
            prop_assert!(json("", &body[..cut.index(body.len())]).is_err());
        }

        #[test]
        fn nothing_panics(body in "(--x-y|--|\r\n|a|: |;|content-disposition: form-data|name=|\"|filename=){0,24}") {
            let _ = json("files = 'base64'", &body);
            let _ = json("", &format!("--x-y\r\n{body}"));
        }
    }
}
