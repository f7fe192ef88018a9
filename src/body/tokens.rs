//! JSON (RFC 8259) as a flat list of tokens, for what writes it in another format: numbers keep their text, members their
//! order, and a name that comes twice in an object is an error. A token takes 16 bytes, whatever it holds.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write;

use super::Malformed;
use super::json_text::{Text, Token};

/// How much of a pointer a message shows, in bytes, before it is cut at the next name.
const LONGEST: usize = 256;

/// A text of JSON that was read.
pub(super) struct Json<'a> {
    text: &'a str,
    slots: Vec<Slot>,
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

/// A value, or the name of a member, with where it is in the text and the slot that comes after all that is in it.
struct Slot {
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
        let (mut text, mut slots) = (Text::new(utf8(bytes)?.as_bytes())?, Vec::new());
        value(&mut text, &mut slots)?;
        text.end()?;
        Ok(Self { text: text.whole(), slots })
    }

    /// The whole.
    pub(super) fn root(&self) -> Node<'_> {
        Node { json: self, index: 0 }
    }
}

impl<'j> Node<'j> {
    /// What it is.
    pub(super) fn kind(self) -> Kind {
        self.slot().kind
    }

    /// A string without its escapes; everything else as it is written.
    pub(super) fn text(self) -> Cow<'j, str> {
        let slot = self.slot();
        let raw = &self.json.text[slot.start as usize..slot.end as usize];
        match slot.kind {
            Kind::String => unquoted(raw),
            _ => Cow::Borrowed(raw),
        }
    }

    /// What is right within an array or an object: here names are before their values.
    pub(super) fn items(self) -> impl Iterator<Item = Node<'j>> {
        let (end, mut index) = (self.slot().after, self.index + 1);
        std::iter::from_fn(move || {
            let item = (index < end).then_some(Node { index, ..self })?;
            index = item.slot().after;
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
        Malformed::new(self.slot().start.into(), format!("{at}: {what}"))
    }

    fn slot(self) -> &'j Slot {
        &self.json.slots[self.index as usize]
    }

    fn pointer(self) -> String {
        let mut pointer = String::new();
        let mut at = self.json.root();
        let holds = |node: &Node| self.index < node.slot().after;
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

/// A string of a text that was read.
fn unquoted(raw: &str) -> Cow<'_, str> {
    match Text::new(raw.as_bytes()).and_then(|mut text| text.value()) {
        Ok(Token::String(text)) => text,
        _ => Cow::Borrowed(raw),
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

/// Reads the next value, with all that is in it.
fn value(text: &mut Text<'_>, slots: &mut Vec<Slot>) -> Result<(), Malformed> {
    let (index, token) = (slots.len(), text.value()?);
    let kind = match token {
        Token::Null => Kind::Null,
        Token::Bool(_) => Kind::Boolean,
        Token::Number(_) => Kind::Number,
        Token::String(_) => Kind::String,
        Token::Array => Kind::Array,
        Token::Object => Kind::Object,
    };
    put(kind, text, slots);
    let mut first = true;
    match kind {
        Kind::Array => {
            while text.element(&mut first)? {
                value(text, slots)?;
            }
        }
        Kind::Object => {
            let mut names = HashSet::new();
            while let Some(name) = text.key(&mut first)? {
                if names.contains(&name) {
                    return Err(text.wrong_there(format!("an object has the member `{}` twice", short(&name))));
                }
                names.insert(name);
                put(Kind::String, text, slots);
                value(text, slots)?;
            }
        }
        _ => {}
    }
    let after = slots.len() as u32;
    (slots[index].end, slots[index].after) = (text.last().1 as u32, after);
    Ok(())
}

/// Appends what was read last.
fn put(kind: Kind, text: &Text<'_>, slots: &mut Vec<Slot>) {
    let (start, end) = text.last();
    slots.push(Slot { kind, start: start as u32, end: end as u32, after: slots.len() as u32 + 1 });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::body::DEPTH;

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
            ("\"\\", 1),
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
