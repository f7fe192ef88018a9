//! From JSON to a document, value by value.

use std::borrow::Cow;

use super::Xml;
use super::names::{Scopes, is_blank, is_character, is_name};
use crate::body::Malformed;
use crate::body::tokens::{Json, Kind, Node, short};

const DECLARATION: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// What is written so far.
pub(super) struct Writer {
    out: Vec<u8>,
    limit: usize,
    scopes: Scopes,
}

/// Where a text stands.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Attribute,
    /// All that there is in an element.
    Alone,
    /// Beside elements, where space would be taken for layout.
    Beside,
}

impl Writer {
    /// Writes a value as a document of at most `limit` bytes.
    pub(super) fn write(xml: &Xml, json: &Json<'_>, limit: usize) -> Result<Vec<u8>, Malformed> {
        let mut writer = Self { out: DECLARATION.to_vec(), limit, scopes: Scopes::default() };
        let value = json.root();
        match (&xml.root, &xml.item) {
            (Some(root), Some(item)) if value.kind() == Kind::Array => writer.list(root, item, value)?,
            (Some(_), Some(_)) => return Err(value.wrong("an array is expected")),
            (Some(root), None) => writer.element(root, value)?,
            (None, _) => {
                let members: Vec<_> = match value.kind() {
                    Kind::Object => value.members().take(2).collect(),
                    _ => Vec::new(),
                };
                match &members[..] {
                    [(name, value)] => writer.element(name, *value)?,
                    _ => return Err(value.wrong("an object with one member, the root element, is expected")),
                }
            }
        }
        Ok(writer.out)
    }

    fn list(&mut self, root: &str, item: &str, array: Node<'_>) -> Result<(), Malformed> {
        self.scopes.enter::<&str>(root, &[]).map_err(|(_, what)| array.wrong(&what))?;
        self.out.push(b'<');
        self.out.extend_from_slice(root.as_bytes());
        self.filled(root, array, |writer| array.items().try_for_each(|value| writer.element(item, value)))
    }

    fn element(&mut self, name: &str, value: Node<'_>) -> Result<(), Malformed> {
        if !is_name(name) {
            return Err(value.wrong(&format!("`{}` is not a name that XML allows", short(name))));
        }
        let (mut attributes, mut values) = (Vec::new(), Vec::new());
        for (key, value) in value.members() {
            let Some(name) = key.strip_prefix('@') else { continue };
            if !is_name(name) {
                return Err(value.wrong(&format!("`{}` is not a name that XML allows", short(name))));
            }
            if value.kind() == Kind::Null {
                return Err(value.wrong("an attribute has a value"));
            }
            attributes.push((Cow::Owned(name.to_owned()), scalar(value)?));
            values.push(value);
        }
        self.scopes
            .enter(name, &attributes)
            .map_err(|(attribute, what)| attribute.map_or(value, |number| values[number]).wrong(&what))?;
        self.out.push(b'<');
        self.out.extend_from_slice(name.as_bytes());
        for ((name, text), value) in attributes.iter().zip(values) {
            self.out.push(b' ');
            self.out.extend_from_slice(name.as_bytes());
            self.out.extend_from_slice(b"=\"");
            self.text(text, Place::Attribute).map_err(|what| value.wrong(what))?;
            self.out.push(b'"');
        }
        self.filled(name, value, |writer| match value.kind() {
            Kind::Object => writer.content(value),
            Kind::Array => Err(value.wrong("an array in an array has no counterpart in XML")),
            _ => writer.text(&scalar(value)?, Place::Alone).map_err(|what| value.wrong(what)),
        })
    }

    /// The rest of an element, after its attributes.
    fn filled(
        &mut self,
        name: &str,
        value: Node<'_>,
        fill: impl FnOnce(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        self.out.push(b'>');
        let start = self.out.len();
        fill(self)?;
        if self.out.len() == start {
            self.out.pop();
            self.out.extend_from_slice(b"/>");
        } else {
            self.out.extend_from_slice(b"</");
            self.out.extend_from_slice(name.as_bytes());
            self.out.push(b'>');
        }
        self.scopes.leave();
        match self.out.len() > self.limit {
            true => Err(value.wrong(&format!("the XML is larger than {} bytes", self.limit))),
            false => Ok(()),
        }
    }

    /// All members of an object that are no attributes.
    fn content(&mut self, object: Node<'_>) -> Result<(), Malformed> {
        let inside = || object.members().filter(|(name, _)| !name.starts_with('@'));
        let alone = inside().take(2).count() == 1;
        for (name, value) in inside() {
            match &*name {
                "#content" if !alone => return Err(value.wrong("`#content` is all that an element holds")),
                "#content" if value.kind() != Kind::Array => return Err(value.wrong("an array is expected")),
                "#content" => value.items().try_for_each(|part| self.part(part))?,
                "#text" => {
                    let place = if alone { Place::Alone } else { Place::Beside };
                    self.text(&scalar(value)?, place).map_err(|what| value.wrong(what))?;
                }
                _ if value.kind() == Kind::Array => {
                    value.items().try_for_each(|value| self.element(&name, value))?;
                }
                _ => self.element(&name, value)?,
            }
        }
        Ok(())
    }

    /// One text or element of `#content`.
    fn part(&mut self, part: Node<'_>) -> Result<(), Malformed> {
        if part.kind() != Kind::Object {
            return self.text(&scalar(part)?, Place::Beside).map_err(|what| part.wrong(what));
        }
        let mut members = part.members();
        match (members.next(), members.next()) {
            (Some((name, value)), None) => self.element(&name, value),
            _ => Err(part.wrong("an object with one member, an element, is expected")),
        }
    }

    fn text(&mut self, text: &str, place: Place) -> Result<(), &'static str> {
        let guarded = place == Place::Beside && is_blank(text);
        for c in text.chars() {
            match c {
                '<' => self.out.extend_from_slice(b"&lt;"),
                '&' => self.out.extend_from_slice(b"&amp;"),
                '>' => self.out.extend_from_slice(b"&gt;"),
                '"' if place == Place::Attribute => self.out.extend_from_slice(b"&quot;"),
                // A reader makes other space of these.
                '\r' => self.out.extend_from_slice(b"&#13;"),
                '\n' if place == Place::Attribute || guarded => self.out.extend_from_slice(b"&#10;"),
                '\t' if place == Place::Attribute || guarded => self.out.extend_from_slice(b"&#9;"),
                ' ' if guarded => self.out.extend_from_slice(b"&#32;"),
                c if is_character(c) => self.out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                _ => return Err("XML does not allow one of the characters"),
            }
        }
        Ok(())
    }
}

/// The text of what is neither an object nor an array.
fn scalar(value: Node<'_>) -> Result<Cow<'_, str>, Malformed> {
    match value.kind() {
        Kind::Null => Ok(Cow::Borrowed("")),
        Kind::Boolean | Kind::Number | Kind::String => Ok(value.text()),
        Kind::Array | Kind::Object => Err(value.wrong("a text, a number, `true` or `false` is expected")),
    }
}
