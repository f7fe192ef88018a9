//! JSON (RFC 8259) as a flat list of tokens, for what writes it in another format: numbers keep their text, members their
//! order, and a name that comes twice in an object is an error. A token takes 16 bytes, whatever it holds.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;

use super::{DEPTH, Malformed};

/// How much of a pointer a message shows, in bytes, before it is cut at the next name.
const LONGEST: usize = 256;

/// A text of JSON that was read.
pub(super) struct Json<'a> {
    text: &'a str,
    tokens: Vec<Token>,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

/// A value, or the name of a member, with where it is in the text and the token that comes after all that is in it.
struct Token {
    kind: Kind,
    start: u32,
    end: u32,
    after: u32,
}

/// One value of a text.
#[derive(Clone, Copy)]
pub(super) struct Node<'j> {
    json: &'j Json<'j>,
    index: u32,
}

impl<'a> Json<'a> {
    /// Reads a text that is one value, and nothing more.
    ///
    /// # Errors
    /// It is not JSON in UTF-8, an object has a name twice, or it is deeper than [`DEPTH`].
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let text = utf8(bytes)?;
        let mut reader = Reader { text, at: 0, tokens: Vec::new() };
        reader.value(DEPTH)?;
        reader.space();
        match reader.at == text.len() {
            true => Ok(Self { text, tokens: reader.tokens }),
            false => Err(reader.wrong("there is something after the JSON value")),
        }
    }

    /// The whole.
    pub(super) fn root(&self) -> Node<'_> {
        Node { json: self, index: 0 }
    }
}

impl<'j> Node<'j> {
    /// What it is.
    pub(super) fn kind(self) -> Kind {
        self.token().kind
    }

    /// A string without its escapes; everything else as it is written.
    pub(super) fn text(self) -> Cow<'j, str> {
        let token = self.token();
        let raw = &self.json.text[token.start as usize..token.end as usize];
        match token.kind {
            // It was tried when it was read.
            Kind::String => unescape(raw).unwrap_or(Cow::Borrowed(raw)),
            _ => Cow::Borrowed(raw),
        }
    }

    /// What is right within an array or an object: here names are before their values.
    pub(super) fn items(self) -> impl Iterator<Item = Node<'j>> {
        let (end, mut index) = (self.token().after, self.index + 1);
        std::iter::from_fn(move || {
            let item = (index < end).then_some(Node { index, ..self })?;
            index = item.token().after;
            Some(item)
        })
    }

    /// The members of an object, by name and value; what is no object has none.
    pub(super) fn members(self) -> impl Iterator<Item = (Cow<'j, str>, Node<'j>)> {
        let is_object = self.kind() == Kind::Object;
        let mut items = self.items().filter(move |_| is_object);
        std::iter::from_fn(move || Some((items.next()?.text(), items.next()?)))
    }

    /// This is wrong with the value: the message begins with the JSON Pointer (RFC 6901) of it.
    pub(super) fn wrong(self, what: &str) -> Malformed {
        let pointer = self.pointer();
        let at = if pointer.is_empty() { "the whole JSON value" } else { &pointer };
        Malformed::new(self.token().start.into(), format!("{at}: {what}"))
    }

    fn token(self) -> &'j Token {
        &self.json.tokens[self.index as usize]
    }

    fn pointer(self) -> String {
        let mut pointer = String::new();
        let mut at = self.json.root();
        let holds = |node: &Node| self.index < node.token().after;
        while at.index != self.index {
            if pointer.len() > LONGEST {
                pointer.push_str("/…");
                break;
            }
            let inner = match at.kind() {
                Kind::Object => at.members().find(|(_, value)| holds(value)).map(|(name, value)| {
                    let _ = write!(pointer, "/{}", short(&name).replace('~', "~0").replace('/', "~1"));
                    value
                }),
                _ => at.items().enumerate().find(|(_, item)| holds(item)).map(|(number, item)| {
                    let _ = write!(pointer, "/{number}");
                    item
                }),
            };
            let Some(inner) = inner else { break };
            at = inner;
        }
        pointer
    }
}

/// Bytes as text.
pub(super) fn utf8(bytes: &[u8]) -> Result<&str, Malformed> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(Malformed::new(u32::MAX.into(), "more than 4 GiB are not read"));
    }
    std::str::from_utf8(bytes).map_err(|error| Malformed::new(error.valid_up_to() as u64, "this is not UTF-8"))
}

/// As much of a name as a message shows, without control characters.
pub(super) fn short(name: &str) -> String {
    let mut shown: String = name.chars().take(48).map(|c| if c.is_control() { '?' } else { c }).collect();
    if name.chars().nth(48).is_some() {
        shown.push('…');
    }
    shown
}

/// Appends a text as a string of JSON.
pub(super) fn write_string(text: &str, out: &mut Vec<u8>) {
    // Neither a text nor a vector fails.
    let _ = serde_json::to_writer(out, text);
}

/// Whether a text is a number of JSON.
pub(super) fn is_number(text: &str) -> bool {
    number(text.as_bytes()) == Some(text.len())
}

/// How long the number is with which a text begins (RFC 8259, section 6).
pub(super) fn number(bytes: &[u8]) -> Option<usize> {
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    at += match bytes.get(at) {
        Some(b'0') => 1,
        _ => Some(digits(at)).filter(|count| *count > 0)?,
    };
    if bytes.get(at) == Some(&b'.') {
        at += 1 + Some(digits(at + 1)).filter(|count| *count > 0)?;
    }
    if let Some(b'e' | b'E') = bytes.get(at) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at += Some(digits(at)).filter(|count| *count > 0)?;
    }
    Some(at)
}

/// What stands between the quotes of a string, without its escapes.
fn unescape(raw: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    match memchr::memchr(b'\\', raw.as_bytes()) {
        Some(_) => serde_json::from_str::<String>(&format!("\"{raw}\"")).map(Cow::Owned),
        None => Ok(Cow::Borrowed(raw)),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Result<(), Malformed> {
        self.space();
        match self.peek() {
            Some(b'{') if depth == 0 => Err(self.too_deep()),
            Some(b'[') if depth == 0 => Err(self.too_deep()),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.word("true", Kind::Boolean),
            Some(b'f') => self.word("false", Kind::Boolean),
            Some(b'n') => self.word("null", Kind::Null),
            Some(b'-' | b'0'..=b'9') => match number(&self.text.as_bytes()[self.at..]) {
                Some(length) => self.leaf(Kind::Number, length),
                None => Err(self.wrong("this is not a number of JSON")),
            },
            Some(_) => Err(self.wrong("a JSON value is expected")),
            None => Err(self.wrong("the JSON ends too early")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<(), Malformed> {
        let index = self.open(Kind::Object);
        let mut names: HashSet<Cow<'a, str>> = HashSet::new();
        if !self.take(b'}') {
            loop {
                self.space();
                let at = self.at;
                if self.peek() != Some(b'"') {
                    return Err(self.wrong("the name of a member is expected"));
                }
                let name = self.string()?;
                if names.contains(&name) {
                    let what = format!("an object has the member `{}` twice", short(&name));
                    return Err(Malformed::new(at as u64, what));
                }
                names.insert(name);
                if !self.take(b':') {
                    return Err(self.wrong("`:` is expected"));
                }
                self.value(depth - 1)?;
                if !self.take(b',') {
                    break;
                }
            }
            if !self.take(b'}') {
                return Err(self.wrong("`,` or `}` is expected"));
            }
        }
        self.close(index);
        Ok(())
    }

    fn array(&mut self, depth: usize) -> Result<(), Malformed> {
        let index = self.open(Kind::Array);
        if !self.take(b']') {
            loop {
                self.value(depth - 1)?;
                if !self.take(b',') {
                    break;
                }
            }
            if !self.take(b']') {
                return Err(self.wrong("`,` or `]` is expected"));
            }
        }
        self.close(index);
        Ok(())
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Malformed> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut end = start;
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(..b' ') => return Err(Malformed::new(end as u64, "a control character must be escaped")),
                Some(_) => end += 1,
                None => return Err(Malformed::new(bytes.len() as u64, "the JSON ends within a string")),
            }
        }
        let text = unescape(&self.text[start..end])
            .map_err(|_| Malformed::new(start as u64, "the string has an escape that is none"))?;
        self.at = start;
        self.leaf(Kind::String, end - start)?;
        self.at += 1;
        Ok(text)
    }

    fn word(&mut self, word: &str, kind: Kind) -> Result<(), Malformed> {
        match self.text[self.at..].starts_with(word) {
            true => self.leaf(kind, word.len()),
            false => Err(self.wrong("a JSON value is expected")),
        }
    }

    fn leaf(&mut self, kind: Kind, length: usize) -> Result<(), Malformed> {
        let index = self.tokens.len() as u32;
        let (start, end) = (self.at as u32, (self.at + length) as u32);
        self.tokens.push(Token { kind, start, end, after: index + 1 });
        self.at += length;
        Ok(())
    }

    fn open(&mut self, kind: Kind) -> usize {
        self.tokens.push(Token { kind, start: self.at as u32, end: 0, after: 0 });
        self.at += 1;
        self.tokens.len() - 1
    }

    fn close(&mut self, index: usize) {
        let after = self.tokens.len() as u32;
        let token = &mut self.tokens[index];
        (token.end, token.after) = (self.at as u32, after);
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, what: &'static str) -> Malformed {
        let ended = self.at == self.text.len();
        Malformed::new(self.at as u64, if ended { "the JSON ends too early" } else { what })
    }

    fn too_deep(&self) -> Malformed {
        Malformed::new(self.at as u64, format!("the JSON is deeper than {DEPTH} levels"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_not_json_is_refused() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("{\"a\":1,}", 7),
            ("{\"a\" 1}", 5),
            ("01", 1),
            ("1.", 0),
            ("-", 0),
            ("1e", 0),
            ("+1", 0),
            ("tru", 0),
            ("nul", 0),
            ("\"\\x\"", 1),
            ("\"\\ud800\"", 1),
            ("\"a\nb\"", 2),
            ("\"a", 2),
            ("\"\\", 2),
            ("1 2", 2),
            ("\u{feff}1", 0),
            ("{\"a\":1,\"\\u0061\":2}", 7),
        ] {
            assert_eq!(Json::read(text.as_bytes()).map(|_| ()).map_err(|wrong| wrong.at), Err(at), "{text}");
        }
        assert!(Json::read(b"\"\xff\"").is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(Json::read(nested(DEPTH).as_bytes()).is_ok());
        assert!(Json::read(nested(DEPTH + 1).as_bytes()).is_err());
        assert!(Json::read("[{\"a\":".repeat(100_000).as_bytes()).is_err());
    }

    #[test]
    fn a_value_knows_its_pointer() {
        let json = Json::read(br#"{"a":[1,{"b/c~":[true,"x"]}]}"#).unwrap();
        let a = json.root().members().next().unwrap().1;
        let b = a.items().nth(1).unwrap().members().next().unwrap().1;
        assert_eq!(b.items().nth(1).unwrap().wrong("no").what, "/a/1/b~1c~0/1: no");
        assert_eq!(json.root().wrong("no").what, "the whole JSON value: no");
        assert_eq!(short("a\r\nb"), "a??b");
        assert_eq!(short(&"é".repeat(50)), "é".repeat(48) + "…");
        let deep = format!("{}1{}", "{\"name\":".repeat(DEPTH), "}".repeat(DEPTH));
        let json = Json::read(deep.as_bytes()).unwrap();
        let mut inner = json.root();
        while let Some((_, value)) = inner.members().next() {
            inner = value;
        }
        let shown = inner.wrong("no").what;
        assert!(shown.starts_with("/name/name/") && shown.ends_with("/name/…: no") && shown.len() < 300, "{shown}");
    }

    /// Writes it again.
    fn written(node: Node<'_>) -> String {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        match node.kind() {
            Kind::Array => format!("[{}]", node.items().map(written).collect::<Vec<_>>().join(",")),
            Kind::Object => {
                let members = node.members().map(|(name, value)| format!("{}:{}", quoted(&name), written(value)));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }
            Kind::String => quoted(&node.text()),
            _ => node.text().into_owned(),
        }
    }

    proptest! {
        #[test]
        fn it_reads_what_another_reader_does(
            text in prop_oneof![".*", r#"[\[\]{}:,"\\0-9eE.+ a\-tru]{0,24}"#, r#"(\[|\{"[ab]":|-?[0-9]{1,2}|\]|\}|,){0,9}"#]
        ) {
            let other = serde_json::from_str::<serde_json::Value>(&text);
            match Json::read(text.as_bytes()) {
                Ok(json) => {
                    let again = written(json.root());
                    // A number of any size is read.
                    if let Ok(other) = other {
                        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&again).unwrap(), other);
                    }
                }
                Err(wrong) => prop_assert!(other.is_err() || wrong.what.contains("twice"), "{}: {}", text, wrong),
            }
        }
    }
}
