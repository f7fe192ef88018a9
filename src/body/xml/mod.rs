//! XML and JSON, each made of the other by one mapping.
//!
//! ```toml
//! arrays     = ["catalog.item"]           # elements that are arrays, even if there is one
//! numbers    = ["catalog.item.price"]     # texts that are numbers of JSON
//! booleans   = ["catalog.item.@sold"]     # texts that are `true` or `false`
//! namespaces = "keep"                     # "drop": without prefixes and their declarations
//! ordered    = false                      # true: keeps the order of interleaved elements
//! root       = "catalog"                  # the JSON is what is in this element, whose name it lacks
//! item       = "item"                     # the JSON is an array of these elements in the root element
//! ```
//!
//! | XML | JSON |
//! | --- | --- |
//! | `<a/>` | `{"a":null}` |
//! | `<a>x</a>` | `{"a":"x"}` |
//! | `<a id="1">x</a>` | `{"a":{"@id":"1","#text":"x"}}` |
//! | `<a><b>1</b><c/></a>` | `{"a":{"b":"1","c":null}}` |
//! | `<a><b>1</b><b>2</b></a>` | `{"a":{"b":["1","2"]}}` |
//! | `<a>Dear <b>you</b>!</a>` | `{"a":{"#content":["Dear ",{"b":"you"},"!"]}}` |
//! | `<a><b/><c/><b/></a>`, `ordered` | `{"a":{"#content":[{"b":null},{"c":null},{"b":null}]}}` |
//!
//! JSON that came of XML becomes XML that is the same but for comments, processing instructions, the XML declaration, how
//! text is escaped, layout (space between elements that have no text beside them) and, unless it is `ordered`, the order
//! between sibling elements of different names where they interleave. That XML becomes the same JSON, by the same
//! configuration. What else JSON may have: `""` is an empty element, as `null` is; an empty array is no element; numbers and
//! booleans are their text; `#text` may stand between members that are elements.
//!
//! Paths begin with the root element, and stand for elements as they are in the JSON: without prefixes if these are dropped.
//! `*` is any one name, `**` in front is any place, `@name` in the end is an attribute. A name with a dot has no other path
//! than `*`. Paths that end in an element also say what its `#text` is. `arrays` do not apply in a `#content`.
//!
//! Document types are refused, so there are no entities but the five that XML brings. Only documents that are well-formed and
//! whose prefixes are declared (Namespaces in XML 1.0) are read or written. The tokenizer is our own, for this is the
//! smaller part of such checks, and readers that are widely used leave most of them to the caller.

mod from_json;
mod names;
mod read;
pub mod soap;
#[cfg(test)]
mod tests;
mod to_json;

use std::borrow::Cow;

use serde::Deserialize;

use super::tokens::Json;
use super::{Malformed, Mistake};

/// The mapping as it is written.
#[derive(Deserialize, Default, Debug, Clone)]
#[serde(deny_unknown_fields, default)]
pub struct XmlConfig {
    /// The root element, if the JSON is what is in it.
    pub root: Option<String>,
    /// The elements in the root element, if the JSON is an array of them.
    pub item: Option<String>,
    /// The paths of elements that are arrays, even if there is one.
    pub arrays: Vec<String>,
    /// The paths of texts that are numbers, where they are written as those of JSON; others stay texts.
    pub numbers: Vec<String>,
    /// The paths of texts that are booleans, where they are `true` or `false`; others stay texts.
    pub booleans: Vec<String>,
    /// What becomes of prefixes and their declarations when JSON is made.
    pub namespaces: Namespaces,
    /// Whether the order of interleaved elements is kept.
    pub ordered: bool,
    /// Whether attributes of XML Schema (`xsi:nil`, `xsi:type`) say what an element is, and are left out.
    #[serde(skip)]
    pub typed: bool,
}

/// What becomes of prefixes and their declarations.
#[derive(Deserialize, Default, Debug, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Namespaces {
    /// They stay as they are written.
    #[default]
    Keep,
    /// They are left out.
    Drop,
}

/// The mapping, ready for use.
#[derive(Debug, Clone)]
pub struct Xml {
    root: Option<Box<str>>,
    item: Option<Box<str>>,
    arrays: Box<[Path]>,
    numbers: Box<[Path]>,
    booleans: Box<[Path]>,
    namespaces: Namespaces,
    ordered: bool,
    typed: bool,
}

impl Xml {
    /// Makes JSON of a document, in at most four times its size and a few bytes. `charset` is what the content type says.
    ///
    /// # Errors
    /// The document is not well-formed XML 1.0 with namespaces, has a document type, is deeper than
    /// [`DEPTH`](super::DEPTH) or would be so as JSON, has another root than the configuration, or an encoding other than
    /// UTF-8, UTF-16, US-ASCII and ISO-8859-1. Positions are those in UTF-8.
    pub fn to_json(&self, document: &[u8], charset: Option<&str>) -> Result<Vec<u8>, Malformed> {
        let text = read::text(document, charset)?;
        to_json::Writer::write(self, &read::Document::read(&text)?)
    }

    /// Makes a document of JSON, in UTF-8 and with an XML declaration, of at most `limit` bytes: since each element of an array
    /// has a name, it may be much larger than the JSON.
    ///
    /// # Errors
    /// It is not JSON, is deeper than [`DEPTH`](super::DEPTH), has a name twice in an object, or says what a document cannot: a
    /// name or character that XML does not allow, a prefix that is not declared, an array in an array, no root element or
    /// several. The message begins with the JSON Pointer of the value.
    pub fn from_json(&self, json: &[u8], limit: usize) -> Result<Vec<u8>, Malformed> {
        from_json::Writer::write(self, &Json::read(json)?, limit)
    }
}

impl XmlConfig {
    /// Checks the configuration.
    ///
    /// # Errors
    /// Every mistake in it.
    pub fn compile(&self) -> Result<Xml, Vec<Mistake>> {
        let mut mistakes = Vec::new();
        for (key, name) in [("root", &self.root), ("item", &self.item)] {
            if let Some(name) = name.as_ref().filter(|name| !names::is_name(name)) {
                mistakes.push(Mistake::new(key, format!("`{name}` is not a name that XML allows")));
            } else if name.as_ref().is_some_and(|name| name.contains(':')) && self.namespaces == Namespaces::Drop {
                mistakes.push(Mistake::new(key, "a name with a prefix is never met where prefixes are dropped"));
            }
        }
        if self.item.is_some() && self.root.is_none() {
            mistakes.push(Mistake::new("item", "`item` needs a `root` to be in"));
        }
        let mut paths = |key: &str, texts: &[String]| -> Box<[Path]> {
            let path = |(number, text): (usize, &String)| match Path::parse(text, key == "arrays", self.namespaces) {
                Ok(path) => Some(path),
                Err(what) => {
                    mistakes.push(Mistake::new(format!("{key}[{number}]"), format!("`{text}`: {what}")));
                    None
                }
            };
            texts.iter().enumerate().filter_map(path).collect()
        };
        let (arrays, numbers) = (paths("arrays", &self.arrays), paths("numbers", &self.numbers));
        let booleans = paths("booleans", &self.booleans);
        for (number, text) in self.booleans.iter().enumerate() {
            if self.numbers.contains(text) {
                let what = format!("`{text}` is among the numbers as well");
                mistakes.push(Mistake::new(format!("booleans[{number}]"), what));
            }
        }
        match mistakes.is_empty() {
            true => Ok(Xml {
                root: self.root.as_deref().map(Box::from),
                item: self.item.as_deref().map(Box::from),
                arrays,
                numbers,
                booleans,
                namespaces: self.namespaces,
                ordered: self.ordered,
                typed: self.typed,
            }),
            false => Err(mistakes),
        }
    }
}

/// Where elements or attributes are, by the names from the root to them.
#[derive(Debug, Clone)]
struct Path {
    /// Whether only the last names count.
    anywhere: bool,
    /// `None` is any name.
    names: Box<[Option<Box<str>>]>,
}

impl Path {
    fn parse(text: &str, of_elements: bool, namespaces: Namespaces) -> Result<Self, &'static str> {
        let rest = text.strip_prefix("**.");
        let names: Vec<&str> = rest.unwrap_or(text).split('.').collect();
        for (number, name) in names.iter().enumerate() {
            let attribute = name.strip_prefix('@');
            if attribute.is_some() && (of_elements || number + 1 < names.len()) {
                return Err("an attribute holds no elements");
            }
            let bare = attribute.unwrap_or(name);
            if *name == "**" {
                return Err("`**` stands in front of other names only");
            }
            if *name != "*" && !names::is_name(bare) {
                return Err("a path has names that XML allows, or `*`, with dots between them");
            }
            if bare.contains(':') && namespaces == Namespaces::Drop {
                return Err("a name with a prefix is never met where prefixes are dropped");
            }
        }
        if of_elements && rest.is_none() && names.len() < 2 {
            return Err("the root element is never an array: a path to elements within it is expected");
        }
        let names = names.into_iter().map(|name| (name != "*").then(|| Box::from(name))).collect();
        Ok(Self { anywhere: rest.is_some(), names })
    }

    fn matches(&self, path: &[Cow<'_, str>]) -> bool {
        let Some(above) = path.len().checked_sub(self.names.len()) else { return false };
        let same = |(wanted, name): (&Option<Box<str>>, &Cow<'_, str>)| match wanted {
            Some(wanted) => **wanted == **name,
            None => !name.starts_with('@'),
        };
        (above == 0 || self.anywhere) && self.names.iter().zip(&path[above..]).all(same)
    }
}
