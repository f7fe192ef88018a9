//! From a document to JSON, element by element.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::names::{declared, local};
use super::read::{Document, Kind};
use super::{Namespaces, Path, Xml};
use crate::body::json_text::is_number;
use crate::body::tokens::{short, write_string};
use crate::body::{DEPTH, Malformed};

const SCHEMA_INSTANCE: &str = "http://www.w3.org/2001/XMLSchema-instance";

/// What is written, and where in the document it is.
pub(super) struct Writer<'x, 'd> {
    xml: &'x Xml,
    document: &'d Document<'d>,
    /// The names of the elements around, and of the attribute.
    path: Vec<Cow<'d, str>>,
    /// The prefixes of the attributes of XML Schema, where these count.
    schema: HashSet<&'d str>,
    /// How many objects and arrays are around.
    depth: usize,
    out: Vec<u8>,
}

/// What is in an element.
#[derive(Default)]
struct Content<'d> {
    attributes: Vec<u32>,
    /// By name, in the order in which the names come first.
    groups: Vec<(&'d str, Vec<u32>)>,
    /// All but the attributes.
    nodes: Vec<u32>,
    /// Whether there is text that is more than layout.
    text: bool,
    /// Whether elements of one name have others between them.
    interleaved: bool,
}

impl<'x, 'd> Writer<'x, 'd> {
    /// Writes a document.
    pub(super) fn write(xml: &'x Xml, document: &'d Document<'d>) -> Result<Vec<u8>, Malformed> {
        let mut writer = Self::new(xml, document);
        match (&xml.root, &xml.item) {
            (Some(root), item) => {
                let name = writer.name(0);
                if name != &**root {
                    let what = format!("the root element is `{}`, where `{root}` is expected", short(name));
                    return Err(Malformed::new(document.at(0), what));
                }
                match item {
                    Some(item) => writer.list(item)?,
                    None => writer.element(0)?,
                }
            }
            (None, _) => writer.nested(b"{}", 0, |writer| {
                writer.key(writer.name(0));
                writer.element(0)
            })?,
        }
        Ok(writer.out)
    }

    /// Writes what is in one element of a document; paths begin with it.
    pub(super) fn write_element(xml: &'x Xml, document: &'d Document<'d>, element: u32) -> Result<Vec<u8>, Malformed> {
        let mut writer = Self::new(xml, document);
        writer.element(element)?;
        Ok(writer.out)
    }

    fn new(xml: &'x Xml, document: &'d Document<'d>) -> Self {
        let schema = if xml.typed { document.prefixes_of(SCHEMA_INSTANCE) } else { HashSet::new() };
        Self { xml, document, path: Vec::new(), schema, depth: 0, out: Vec::new() }
    }

    /// The root, as an array of what is in it.
    fn list(&mut self, item: &str) -> Result<(), Malformed> {
        let content = self.content(0)?;
        let others = content.groups.iter().find(|(name, _)| *name != item).map(|(_, nodes)| nodes[0]);
        let text =
            content.nodes.iter().find(|node| !is_element(self.document, **node) && !self.document.is_layout(**node));
        if let Some(other) = content.attributes.first().copied().or(others).or(text.copied()) {
            let what = format!("the root element may hold elements `{item}` only");
            return Err(Malformed::new(self.document.at(other), what));
        }
        let items = content.groups.into_iter().flat_map(|(_, nodes)| nodes).collect();
        self.path.push(Cow::Borrowed(self.name(0)));
        self.array(items)
    }

    /// The value of an element.
    fn element(&mut self, element: u32) -> Result<(), Malformed> {
        if self.is_nil(element) {
            self.out.extend_from_slice(b"null");
            return Ok(());
        }
        self.path.push(Cow::Borrowed(self.name(element)));
        let content = self.content(element)?;
        if content.attributes.is_empty() && content.groups.is_empty() {
            let text = self.text(&content.nodes);
            match text.is_empty() {
                true => self.out.extend_from_slice(b"null"),
                false => self.scalar(&text),
            }
        } else {
            self.nested(b"{}", element, |writer| writer.members(content))?;
        }
        self.path.pop();
        Ok(())
    }

    fn members(&mut self, content: Content<'d>) -> Result<(), Malformed> {
        for attribute in content.attributes {
            let name = format!("@{}", self.name(attribute));
            self.key(&name);
            self.path.push(Cow::Owned(name));
            self.scalar(&self.document.value(attribute));
            self.path.pop();
        }
        if content.groups.is_empty() {
            let text = self.text(&content.nodes);
            if !text.is_empty() {
                self.key("#text");
                self.scalar(&text);
            }
            return Ok(());
        }
        if content.text || content.interleaved && self.xml.ordered {
            self.key("#content");
            let first = content.nodes[0];
            return self.nested(b"[]", first, |writer| writer.sequence(&content.nodes, content.text));
        }
        for (name, elements) in content.groups {
            self.key(name);
            self.path.push(Cow::Borrowed(name));
            let array = elements.len() > 1 || self.xml.arrays.iter().any(|path| path.matches(&self.path));
            self.path.pop();
            match array {
                true => self.array(elements)?,
                false => self.element(elements[0])?,
            }
        }
        Ok(())
    }

    /// Elements and text in their order.
    fn sequence(&mut self, nodes: &[u32], text: bool) -> Result<(), Malformed> {
        let document = self.document;
        for run in nodes.chunk_by(|a, b| ![a, b].into_iter().any(|node| is_element(document, *node))) {
            if is_element(document, run[0]) {
                self.separate();
                self.nested(b"{}", run[0], |writer| {
                    writer.key(writer.name(run[0]));
                    writer.element(run[0])
                })?;
            } else if text {
                let text = self.text(run);
                if !text.is_empty() {
                    self.separate();
                    write_string(&text, &mut self.out);
                }
            }
        }
        Ok(())
    }

    fn array(&mut self, elements: Vec<u32>) -> Result<(), Malformed> {
        let first = elements.first().copied().unwrap_or_default();
        self.nested(b"[]", first, |writer| {
            elements.iter().try_for_each(|element| {
                writer.separate();
                writer.element(*element)
            })
        })
    }

    fn content(&self, element: u32) -> Result<Content<'d>, Malformed> {
        let mut content = Content::default();
        let mut groups: HashMap<&str, usize> = HashMap::new();
        for node in self.document.inner(element) {
            let name = self.name(node);
            match self.document.kind(node) {
                Kind::Attribute if self.is_of_schema(node) => continue,
                Kind::Attribute if self.drops() && declared(self.document.name(node)).is_some() => continue,
                Kind::Attribute if self.drops() && name == "xmlns" => {
                    let what = "the attribute would be a declaration without its prefix";
                    return Err(Malformed::new(self.document.at(node), what));
                }
                Kind::Attribute => {
                    content.attributes.push(node);
                    continue;
                }
                Kind::Text | Kind::Cdata => content.text |= !self.document.is_layout(node),
                Kind::Element => match content.groups.last_mut() {
                    Some((last, nodes)) if *last == name => nodes.push(node),
                    _ => match groups.get(name) {
                        Some(group) => {
                            content.interleaved = true;
                            content.groups[*group].1.push(node);
                        }
                        None => {
                            groups.insert(name, content.groups.len());
                            content.groups.push((name, vec![node]));
                        }
                    },
                },
            }
            content.nodes.push(node);
        }
        if self.drops() && content.attributes.len() > 1 {
            let mut seen = HashSet::new();
            if let Some(twice) = content.attributes.iter().find(|node| !seen.insert(self.name(**node))) {
                let what = format!("the attribute `{}` comes twice without its prefix", short(self.name(*twice)));
                return Err(Malformed::new(self.document.at(*twice), what));
            }
        }
        Ok(content)
    }

    /// Whether an attribute is one of XML Schema, and these count.
    fn is_of_schema(&self, attribute: u32) -> bool {
        let prefix = self.document.name(attribute).split_once(':').map_or("", |(prefix, _)| prefix);
        self.schema.contains(prefix)
    }

    fn is_nil(&self, element: u32) -> bool {
        let is_nil = |node: u32| {
            self.document.kind(node) == Kind::Attribute
                && self.is_of_schema(node)
                && local(self.document.name(node)) == "nil"
                && matches!(self.document.value(node).trim(), "true" | "1")
        };
        !self.schema.is_empty() && self.document.inner(element).any(is_nil)
    }

    /// The text of several nodes, without elements.
    fn text(&self, nodes: &[u32]) -> Cow<'d, str> {
        match nodes {
            [node] => self.document.value(*node),
            _ => Cow::Owned(nodes.iter().map(|node| self.document.value(*node)).collect()),
        }
    }

    fn scalar(&mut self, text: &str) {
        let named = |paths: &[Path]| paths.iter().any(|path| path.matches(&self.path));
        let plain = is_number(text) && named(&self.xml.numbers)
            || matches!(text, "true" | "false") && named(&self.xml.booleans);
        match plain {
            true => self.out.extend_from_slice(text.as_bytes()),
            false => write_string(text, &mut self.out),
        }
    }

    fn nested(
        &mut self,
        brackets: &[u8; 2],
        node: u32,
        write: impl FnOnce(&mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if self.depth == DEPTH {
            let what = format!("the JSON of this document is deeper than {DEPTH} levels");
            return Err(Malformed::new(self.document.at(node), what));
        }
        self.depth += 1;
        self.out.push(brackets[0]);
        write(self)?;
        self.out.push(brackets[1]);
        self.depth -= 1;
        Ok(())
    }

    fn key(&mut self, name: &str) {
        self.separate();
        write_string(name, &mut self.out);
        self.out.push(b':');
    }

    /// A comma, if it is not the first.
    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[')) {
            self.out.push(b',');
        }
    }

    fn name(&self, node: u32) -> &'d str {
        let name = self.document.name(node);
        if self.drops() { local(name) } else { name }
    }

    fn drops(&self) -> bool {
        self.xml.namespaces == Namespaces::Drop
    }
}

fn is_element(document: &Document<'_>, node: u32) -> bool {
    document.kind(node) == Kind::Element
}
