//! XML 1.0 without a document type, as a flat list of nodes: a strict reader that checks all that makes a document
//! well-formed, its namespaces included. A node takes 24 bytes, whatever it holds.

use std::borrow::Cow;
use std::collections::HashSet;
use std::ops::Range;

use super::names::{Scopes, continues_name, declared, is_blank, is_character, is_local_name, is_name, is_space};
use crate::body::tokens::{short, utf8};
use crate::body::{DEPTH, Malformed};

/// A document that was read.
pub(super) struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
}

/// What a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Element,
    /// Attributes come first in their element.
    Attribute,
    /// Text with references.
    Text,
    /// Text as it is.
    Cdata,
}

struct Node {
    kind: Kind,
    name: (u32, u32),
    value: (u32, u32),
    after: u32,
}

impl<'a> Document<'a> {
    /// Reads a document.
    ///
    /// # Errors
    /// It is not well-formed, has a document type, or is deeper than [`DEPTH`].
    pub(super) fn read(text: &'a str) -> Result<Self, Malformed> {
        utf8(text.as_bytes())?;
        if let Some((at, _)) = text.char_indices().find(|(_, c)| !is_character(*c)) {
            return Err(Malformed::new(at as u64, "XML does not allow this character"));
        }
        let mut reader = Reader { text, at: 0, nodes: Vec::new(), open: Vec::new(), scopes: Scopes::default() };
        declaration(text).map(|declaration| reader.at = declaration.length)?;
        reader.document()?;
        Ok(Self { text, nodes: reader.nodes })
    }

    /// What the node is.
    pub(super) fn kind(&self, node: u32) -> Kind {
        self.nodes[node as usize].kind
    }

    /// Where it begins.
    pub(super) fn at(&self, node: u32) -> u64 {
        let Node { kind, name, value, .. } = self.nodes[node as usize];
        u64::from(if matches!(kind, Kind::Element | Kind::Attribute) { name.0 } else { value.0 })
    }

    /// The name of an element or an attribute.
    pub(super) fn name(&self, node: u32) -> &'a str {
        self.slice(self.nodes[node as usize].name)
    }

    /// The value of an attribute, or a text: without references, and with line ends as XML has them.
    pub(super) fn value(&self, node: u32) -> Cow<'a, str> {
        let Node { kind, value, .. } = self.nodes[node as usize];
        decode(self.slice(value), kind)
    }

    /// Whether it says nothing between elements: no text, or only space. Space that is written as CDATA or by reference
    /// says something.
    pub(super) fn is_layout(&self, node: u32) -> bool {
        let Node { kind, value, .. } = self.nodes[node as usize];
        value.0 == value.1 || kind == Kind::Text && is_blank(self.slice(value))
    }

    /// The nodes right within an element, attributes first.
    pub(super) fn inner(&self, element: u32) -> impl Iterator<Item = u32> {
        let (mut next, end) = (element + 1, self.nodes[element as usize].after);
        std::iter::from_fn(move || {
            let node = (next < end).then_some(next)?;
            next = self.nodes[node as usize].after;
            Some(node)
        })
    }

    /// The prefixes that stand for a namespace anywhere.
    pub(super) fn prefixes_of(&self, namespace: &str) -> HashSet<&'a str> {
        let nodes = 0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        nodes
            .filter(|node| self.kind(*node) == Kind::Attribute && self.value(*node) == namespace)
            .filter_map(|node| declared(self.name(node)).filter(|prefix| !prefix.is_empty()))
            .collect()
    }

    fn slice(&self, (start, end): (u32, u32)) -> &'a str {
        &self.text[start as usize..end as usize]
    }
}

/// The text of a document, from the encoding that its byte order mark tells of, else `charset` (of the content type), else
/// its XML declaration (RFC 7303 section 3).
///
/// # Errors
/// It is another encoding than UTF-8, UTF-16, US-ASCII and ISO-8859-1, or is not what it is said to be.
pub(super) fn text<'a>(bytes: &'a [u8], charset: Option<&str>) -> Result<Cow<'a, str>, Malformed> {
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => return utf8(rest).map(Cow::Borrowed),
        [0xFF, 0xFE, rest @ ..] => return utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => return utf16(rest, u16::from_be_bytes),
        _ => {}
    }
    if let Some(charset) = charset {
        return decoded(bytes, charset);
    }
    match bytes {
        [b'<', 0, ..] => utf16(bytes, u16::from_le_bytes),
        [0, b'<', ..] => utf16(bytes, u16::from_be_bytes),
        _ => {
            // What is before the end of the declaration is ASCII, whatever comes later.
            let head = memchr::memchr(b'>', bytes).map_or(bytes, |end| &bytes[..=end]);
            match std::str::from_utf8(head).map(declaration) {
                Ok(Ok(Declaration { encoding: Some(name), .. })) => decoded(bytes, name),
                _ => utf8(bytes).map(Cow::Borrowed),
            }
        }
    }
}

fn decoded<'a>(bytes: &'a [u8], charset: &str) -> Result<Cow<'a, str>, Malformed> {
    match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" => utf8(bytes).map(Cow::Borrowed),
        "us-ascii" | "ascii" => match bytes.iter().position(|b| !b.is_ascii()) {
            Some(at) => Err(Malformed::new(at as u64, "this is not US-ASCII")),
            None => utf8(bytes).map(Cow::Borrowed),
        },
        "iso-8859-1" | "latin1" => Ok(Cow::Owned(bytes.iter().map(|b| char::from(*b)).collect())),
        "utf-16le" => utf16(bytes, u16::from_le_bytes),
        "utf-16" | "utf-16be" if bytes.first() == Some(&0) => utf16(bytes, u16::from_be_bytes),
        "utf-16" => utf16(bytes, u16::from_le_bytes),
        other => {
            let what =
                format!("the encoding `{}` is not read: UTF-8, UTF-16, US-ASCII and ISO-8859-1 are", short(other));
            Err(Malformed::new(0, what))
        }
    }
}

fn utf16<'a>(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Cow<'a, str>, Malformed> {
    let wrong = |at: usize| Malformed::new(at as u64, "this is not UTF-16");
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(bytes.len());
    for c in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        text.push(c.map_err(|_| wrong(text.len()))?);
    }
    match rest {
        [] => Ok(Cow::Owned(text)),
        _ => Err(wrong(text.len())),
    }
}

/// `<?xml version="1.0" encoding="…" standalone="…"?>`.
#[derive(Default)]
struct Declaration<'a> {
    length: usize,
    encoding: Option<&'a str>,
}

/// The XML declaration, which a document need not have.
fn declaration(text: &str) -> Result<Declaration<'_>, Malformed> {
    let Some(rest) = text.strip_prefix("<?xml").filter(|rest| rest.starts_with(is_space)) else {
        return Ok(Declaration::default());
    };
    let wrong = || Malformed::new(0, "the XML declaration is not well-formed");
    let (inside, _) = rest.split_once("?>").ok_or_else(wrong)?;
    let mut left = inside;
    let mut values = [None; 3];
    for (name, value) in ["version", "encoding", "standalone"].iter().zip(&mut values) {
        let trimmed = left.trim_start_matches(is_space);
        let Some(after) = trimmed.strip_prefix(name).filter(|_| trimmed.len() < left.len()) else { continue };
        let after = after.trim_start_matches(is_space).strip_prefix('=').ok_or_else(wrong)?;
        let after = after.trim_start_matches(is_space);
        let quote = after.chars().next().filter(|c| ['"', '\''].contains(c)).ok_or_else(wrong)?;
        let (inner, after) = after[1..].split_once(quote).ok_or_else(wrong)?;
        (*value, left) = (Some(inner), after);
    }
    let [version, encoding, standalone] = values;
    let is_encoding = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    if !is_blank(left) || !encoding.is_none_or(is_encoding) || !matches!(standalone, None | Some("yes" | "no")) {
        return Err(wrong());
    }
    match version {
        Some("1.0") => Ok(Declaration { length: "<?xml".len() + inside.len() + "?>".len(), encoding }),
        Some(_) => Err(Malformed::new(0, "only XML 1.0 is read")),
        None => Err(wrong()),
    }
}

/// A value without references, and with line ends and the space of attributes as sections 2.11 and 3.3.3 have them.
fn decode(raw: &str, kind: Kind) -> Cow<'_, str> {
    let special = |b: u8| match kind {
        Kind::Cdata => b == b'\r',
        Kind::Text => b == b'\r' || b == b'&',
        _ => matches!(b, b'\r' | b'&' | b'\n' | b'\t'),
    };
    let Some(first) = raw.bytes().position(special) else { return Cow::Borrowed(raw) };
    let mut text = String::with_capacity(raw.len());
    text.push_str(&raw[..first]);
    let mut rest = &raw[first..];
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\r' if rest.starts_with('\n') => {}
            '\r' | '\n' | '\t' if kind == Kind::Attribute => text.push(' '),
            '\r' => text.push('\n'),
            '&' if kind != Kind::Cdata => {
                if let Some((name, after)) = rest.split_once(';') {
                    // They were tried when they were read.
                    text.extend(referenced(name));
                    rest = after;
                }
            }
            c => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// What stands between `&` and `;`.
fn referenced(name: &str) -> Option<char> {
    let code = |digits: &str, radix| {
        // A sign is no digit.
        let digits = Some(digits).filter(|digits| digits.chars().all(|c| c.is_digit(radix)))?;
        char::from_u32(u32::from_str_radix(digits, radix).ok()?).filter(|c| is_character(*c))
    };
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => match name.strip_prefix("#x") {
            Some(digits) => code(digits, 16),
            None => code(name.strip_prefix('#')?, 10),
        },
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    nodes: Vec<Node>,
    /// The elements that are not closed yet.
    open: Vec<usize>,
    scopes: Scopes,
}

impl<'a> Reader<'a> {
    fn document(&mut self) -> Result<(), Malformed> {
        while self.at < self.text.len() {
            match self.rest().strip_prefix('<') {
                Some(markup) => self.markup(markup)?,
                None => self.characters()?,
            }
        }
        match self.open.last() {
            Some(element) => {
                let (start, end) = self.nodes[*element].name;
                let name = short(&self.text[start as usize..end as usize]);
                Err(self.wrong(format!("the document ends within the element `{name}`")))
            }
            None if self.nodes.is_empty() => Err(self.wrong("the document has no element")),
            None => Ok(()),
        }
    }

    fn markup(&mut self, markup: &'a str) -> Result<(), Malformed> {
        match markup.as_bytes().first() {
            Some(b'/') => self.end_tag(),
            Some(b'?') => self.instruction(),
            Some(b'!') if markup.starts_with("!--") => self.comment(),
            Some(b'!') if markup.starts_with("![CDATA[") => self.cdata(),
            Some(b'!') if markup.starts_with("!DOCTYPE") => Err(self.wrong("a document type is refused")),
            _ => self.start_tag(),
        }
    }

    fn characters(&mut self) -> Result<(), Malformed> {
        let length = memchr::memchr(b'<', self.rest().as_bytes()).unwrap_or(self.rest().len());
        let (text, start) = (&self.rest()[..length], self.at);
        if self.open.is_empty() {
            if let Some(at) = text.find(|c| !is_space(c)) {
                self.at += at;
                return Err(self.wrong("there is text outside of the root element"));
            }
        } else {
            if let Some(at) = text.find("]]>") {
                self.at += at;
                return Err(self.wrong("`]]>` is not allowed in text"));
            }
            self.references(start..start + length)?;
            self.push(Kind::Text, 0..0, start..start + length);
        }
        self.at = start + length;
        Ok(())
    }

    fn cdata(&mut self) -> Result<(), Malformed> {
        if self.open.is_empty() {
            return Err(self.wrong("there is text outside of the root element"));
        }
        let inside = self.enclosed("<![CDATA[", "]]>", "the CDATA section has no end")?;
        self.push(Kind::Cdata, 0..0, inside);
        Ok(())
    }

    fn comment(&mut self) -> Result<(), Malformed> {
        let inside = self.enclosed("<!--", "--", "the comment has no end")?;
        if !self.rest().starts_with('>') {
            self.at = inside.end;
            return Err(self.wrong("`--` is not allowed in a comment"));
        }
        self.at += 1;
        Ok(())
    }

    fn instruction(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        let inside = self.enclosed("<?", "?>", "the processing instruction has no end")?;
        let target = self.text[inside].split(is_space).next().unwrap_or_default();
        if !is_local_name(target) || target.eq_ignore_ascii_case("xml") {
            self.at = start;
            return Err(self.wrong("this processing instruction cannot be here"));
        }
        Ok(())
    }

    fn end_tag(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        self.at += 2;
        let name = self.name();
        self.space();
        let (Some(element), true) = (self.open.pop(), self.take('>')) else {
            self.at = start;
            return Err(self.wrong("this end tag closes nothing"));
        };
        let (from, to) = self.nodes[element].name;
        let opened = &self.text[from as usize..to as usize];
        if self.text[name] != *opened {
            self.at = start;
            return Err(self.wrong(format!("the end tag of `{}` is expected", short(opened))));
        }
        self.close(element);
        Ok(())
    }

    fn start_tag(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        if self.open.is_empty() && !self.nodes.is_empty() {
            return Err(self.wrong("there is a second root element"));
        }
        if self.open.len() == DEPTH {
            return Err(self.wrong(format!("the document is deeper than {DEPTH} elements")));
        }
        self.at += 1;
        let name = self.name();
        let element = &self.text[name.clone()];
        if !is_name(element) {
            self.at = start;
            return Err(self.wrong("this is not a tag"));
        }
        let index = self.nodes.len();
        self.push(Kind::Element, name, 0..0);
        let mut attributes: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        let empty = loop {
            let spaced = self.space();
            if self.take('>') {
                break false;
            }
            if self.rest().starts_with("/>") {
                self.at += 2;
                break true;
            }
            if !spaced {
                return Err(self.wrong("the tag is not well-formed"));
            }
            let (name, value) = self.attribute()?;
            attributes
                .push((Cow::Borrowed(&self.text[name.clone()]), decode(&self.text[value.clone()], Kind::Attribute)));
            self.push(Kind::Attribute, name, value);
        };
        self.scopes.enter(element, &attributes).map_err(|(attribute, what)| {
            let node = &self.nodes[attribute.map_or(index, |number| index + 1 + number)];
            Malformed::new(node.name.0.into(), what)
        })?;
        match empty {
            true => self.close(index),
            false => self.open.push(index),
        }
        Ok(())
    }

    fn attribute(&mut self) -> Result<(Range<usize>, Range<usize>), Malformed> {
        let name = self.name();
        if !is_name(&self.text[name.clone()]) {
            self.at = name.start;
            return Err(self.wrong("the tag is not well-formed"));
        }
        self.space();
        if !self.take('=') {
            return Err(self.wrong("the attribute has no value"));
        }
        self.space();
        let quote = self.rest().bytes().next().filter(|b| b"\"'".contains(b));
        let quote = quote.ok_or_else(|| self.wrong("the value of an attribute must be quoted"))?;
        let start = self.at + 1;
        let length = memchr::memchr2(quote, b'<', &self.text.as_bytes()[start..]);
        let value = start..start + length.ok_or_else(|| self.wrong("the value of the attribute has no end"))?;
        if self.text.as_bytes()[value.end] == b'<' {
            self.at = value.end;
            return Err(self.wrong("`<` is not allowed in the value of an attribute"));
        }
        self.references(value.clone())?;
        self.at = value.end + 1;
        Ok((name, value))
    }

    /// Checks the references in a text.
    fn references(&self, range: Range<usize>) -> Result<(), Malformed> {
        let mut rest = &self.text[range.clone()];
        while let Some(start) = memchr::memchr(b'&', rest.as_bytes()) {
            let (name, after) = rest[start + 1..].split_once(';').unwrap_or_default();
            if referenced(name).is_none() {
                let at = range.end - rest.len() + start;
                return Err(Malformed::new(
                    at as u64,
                    "this is not a reference that XML knows without a document type",
                ));
            }
            rest = after;
        }
        Ok(())
    }

    /// Goes past the end of what is enclosed.
    fn enclosed(&mut self, start: &str, end: &str, endless: &'static str) -> Result<Range<usize>, Malformed> {
        let from = self.at + start.len();
        let length = self.text[from..].find(end).ok_or_else(|| self.wrong(endless))?;
        self.at = from + length + end.len();
        Ok(from..from + length)
    }

    /// Goes past all that a name may have, colons too; it may be none.
    fn name(&mut self) -> Range<usize> {
        let start = self.at;
        let more = |c: char| c == ':' || continues_name(c);
        self.at += self.rest().find(|c| !more(c)).unwrap_or(self.rest().len());
        start..self.at
    }

    fn space(&mut self) -> bool {
        let start = self.at;
        self.at = self.text.len() - self.rest().trim_start_matches(is_space).len();
        self.at > start
    }

    fn take(&mut self, c: char) -> bool {
        let there = self.rest().starts_with(c);
        self.at += usize::from(there);
        there
    }

    fn push(&mut self, kind: Kind, name: Range<usize>, value: Range<usize>) {
        let range = |range: Range<usize>| (range.start as u32, range.end as u32);
        let after = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { kind, name: range(name), value: range(value), after });
    }

    fn close(&mut self, element: usize) {
        self.nodes[element].after = self.nodes.len() as u32;
        self.scopes.leave();
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn wrong(&self, what: impl Into<Cow<'static, str>>) -> Malformed {
        Malformed::new(self.at as u64, what)
    }
}
