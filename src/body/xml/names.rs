//! The characters and names of XML 1.0 (fifth edition), and its namespaces (Namespaces in XML 1.0, third edition).

use std::collections::{HashMap, HashSet};

use crate::body::tokens::short;

const XML: &str = "http://www.w3.org/XML/1998/namespace";
const XMLNS: &str = "http://www.w3.org/2000/xmlns/";

/// Whether a document may have it, as it is or by reference.
pub(super) fn is_character(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// Whether it separates.
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Whether all of a text is space.
pub(super) fn is_blank(text: &str) -> bool {
    text.bytes().all(|b| is_space(b.into()))
}

/// Whether it may stand in a name; a colon is between two.
pub(super) fn continues_name(c: char) -> bool {
    starts_name(c) || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}' | '\u{2040}')
}

fn starts_name(c: char) -> bool {
    matches!(c, 'A'..='Z' | '_' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}' | '\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

/// Whether it is a name without a prefix (`NCName`).
pub(super) fn is_local_name(name: &str) -> bool {
    name.starts_with(starts_name) && name.chars().all(continues_name)
}

/// Whether it is a name, with a prefix or without (`QName`).
pub(super) fn is_name(name: &str) -> bool {
    match name.split_once(':') {
        Some((prefix, local)) => is_local_name(prefix) && is_local_name(local),
        None => is_local_name(name),
    }
}

/// A name without its prefix.
pub(super) fn local(name: &str) -> &str {
    name.split_once(':').map_or(name, |(_, local)| local)
}

/// The prefix that an attribute declares, empty for the default namespace.
pub(super) fn declared(attribute: &str) -> Option<&str> {
    match attribute {
        "xmlns" => Some(""),
        _ => attribute.strip_prefix("xmlns:"),
    }
}

/// What the prefixes mean, from the root to where one is in a document.
#[derive(Default)]
pub(super) struct Scopes {
    bound: HashMap<Box<str>, Vec<Box<str>>>,
    declared: Vec<Vec<Box<str>>>,
}

impl Scopes {
    /// Goes into an element, whose attributes are given by name and value.
    ///
    /// # Errors
    /// An attribute comes twice, a declaration is none, or a prefix is not declared: the attribute, if it is one, and what
    /// is wrong with it.
    pub(super) fn enter<T: AsRef<str>>(
        &mut self,
        element: &str,
        attributes: &[(T, T)],
    ) -> Result<(), (Option<usize>, String)> {
        let mut names = HashSet::new();
        let mut declarations = Vec::new();
        for (number, (name, value)) in attributes.iter().enumerate() {
            let (name, value) = (name.as_ref(), value.as_ref());
            if attributes.len() > 1 && !names.insert(name) {
                return Err((Some(number), format!("the attribute `{}` comes twice", short(name))));
            }
            if let Some(prefix) = declared(name) {
                check_declaration(prefix, value).map_err(|what| (Some(number), what.to_owned()))?;
                declarations.push(Box::from(prefix));
                self.bound.entry(prefix.into()).or_default().push(value.into());
            }
        }
        self.declared.push(declarations);
        self.meaning(element).map_err(|what| (None, what))?;
        let mut meanings = HashSet::new();
        for (number, (name, _)) in attributes.iter().enumerate() {
            let name = name.as_ref();
            if !name.contains(':') || declared(name).is_some() {
                continue;
            }
            let meaning = self.meaning(name).map_err(|what| (Some(number), what))?;
            if !meanings.insert((meaning, local(name))) {
                let what = format!("the attribute `{}` comes twice, by another prefix", short(name));
                return Err((Some(number), what));
            }
        }
        Ok(())
    }

    /// Leaves the innermost element.
    pub(super) fn leave(&mut self) {
        for prefix in self.declared.pop().unwrap_or_default() {
            if let Some(meanings) = self.bound.get_mut(&prefix) {
                meanings.pop();
            }
        }
    }

    /// The namespace of a name's prefix.
    fn meaning(&self, name: &str) -> Result<&str, String> {
        match name.split_once(':') {
            None => Ok(""),
            Some(("xml", _)) => Ok(XML),
            Some((prefix, _)) => match self.bound.get(prefix).and_then(|meanings| meanings.last()) {
                Some(meaning) => Ok(meaning),
                None => Err(format!("the prefix `{}` is not declared", short(prefix))),
            },
        }
    }
}

fn check_declaration(prefix: &str, namespace: &str) -> Result<(), &'static str> {
    match (prefix, namespace) {
        ("xml", XML) => Ok(()),
        ("xml", _) => Err("the prefix `xml` has another namespace"),
        ("xmlns", _) => Err("the prefix `xmlns` cannot be declared"),
        (_, XML | XMLNS) => Err("the namespaces of `xml` and `xmlns` have no other prefix"),
        ("", _) => Ok(()),
        (_, "") => Err("a prefix has no empty namespace"),
        _ => Ok(()),
    }
}
