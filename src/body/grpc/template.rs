//! Path templates, as `google.api.http` has them, and the tree that finds the one for a path.
//!
//! ```text
//! Template  = "/" Segments [ ":" LITERAL ]
//! Segments  = Segment { "/" Segment }
//! Segment   = "*" | "**" | LITERAL | "{" FieldPath [ "=" Segments ] "}"
//! FieldPath = IDENT { "." IDENT }
//! ```

use std::borrow::Cow;
use std::collections::HashMap;

use percent_encoding::percent_decode_str;

/// A template that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    pub parts: Vec<Part>,
    /// What follows the colon.
    pub verb: Option<String>,
    pub variables: Vec<Variable>,
}

/// What stands between two slashes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    /// This, without percent encoding.
    Literal(String),
    /// One segment, which is not empty.
    Any,
    /// All that follows, or nothing.
    Rest,
}

/// A field that is bound to segments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Variable {
    /// The names of the fields, from the request's message on.
    pub path: Vec<String>,
    /// The first segment.
    pub from: usize,
    /// Behind the last one; none where it goes to the end.
    pub to: Option<usize>,
    /// Whether it is one segment, in which slashes are decoded too.
    pub single: bool,
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.strip_prefix('/').ok_or("it does not begin with a slash")?;
        let mut template = Self { parts: Vec::new(), verb: None, variables: Vec::new() };
        if rest.is_empty() {
            return Ok(template);
        }
        loop {
            rest = template.segment(rest)?;
            match rest.as_bytes().first() {
                None => break,
                Some(b'/') => rest = &rest[1..],
                Some(b':') => {
                    template.verb = Some(literal(&rest[1..])?);
                    break;
                }
                Some(_) => return Err(format!("`/` or `:` was expected before `{rest}`")),
            }
        }
        let rests = template.parts.iter().filter(|part| **part == Part::Rest).count();
        if rests > 1 || rests == 1 && template.parts.last() != Some(&Part::Rest) {
            return Err("`**` must be the last segment".into());
        }
        Ok(template)
    }

    /// Reads a segment, and says what follows it.
    fn segment<'t>(&mut self, text: &'t str) -> Result<&'t str, String> {
        let Some(inner) = text.strip_prefix('{') else { return self.plain(text, &['/', ':']) };
        let (variable, rest) = inner.split_once('}').ok_or("a `{` has no `}`")?;
        let (path, mut segments) = variable.split_once('=').unwrap_or((variable, "*"));
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if let Some(name) = path.iter().find(|name| !is_name(name)) {
            return Err(format!("`{name}` is not the name of a field"));
        }
        if self.variables.iter().any(|other| other.path == path) {
            return Err(format!("the field `{}` is bound twice", path.join(".")));
        }
        let from = self.parts.len();
        loop {
            segments = self.plain(segments, &['/'])?;
            match segments.strip_prefix('/') {
                Some(more) => segments = more,
                None if segments.is_empty() => break,
                None => return Err(format!("`/` was expected before `{segments}`")),
            }
        }
        let to_end = self.parts.last() == Some(&Part::Rest);
        let single = self.parts.len() == from + 1 && !to_end;
        let to = (!to_end).then_some(self.parts.len());
        self.variables.push(Variable { path, from, to, single });
        Ok(rest)
    }

    fn plain<'t>(&mut self, text: &'t str, ends: &[char]) -> Result<&'t str, String> {
        let (segment, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        self.parts.push(match segment {
            "*" => Part::Any,
            "**" => Part::Rest,
            other => Part::Literal(literal(other)?),
        });
        Ok(rest)
    }
}

/// Templates with the method and what they stand for, found by their paths.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, Node>,
    any: Option<Box<Node>>,
    /// Where the path ends here.
    here: Vec<Leaf>,
    /// However it goes on.
    rest: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    /// `*` is any.
    method: String,
    verb: Option<String>,
    index: usize,
}

/// Why nothing was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// No template has the path.
    Path,
    /// The path is known with other methods.
    Method(Vec<String>),
}

impl Tree {
    /// Adds a template.
    ///
    /// # Errors
    /// Another one has the same paths and method: which.
    pub fn insert(&mut self, template: &Template, method: &str, index: usize) -> Result<(), usize> {
        let mut node = &mut self.root;
        let mut rest = false;
        for part in &template.parts {
            match part {
                Part::Literal(text) => node = node.literals.entry(text.clone()).or_default(),
                Part::Any => node = node.any.get_or_insert_default(),
                Part::Rest => rest = true,
            }
        }
        let leaves = if rest { &mut node.rest } else { &mut node.here };
        match leaves.iter().find(|leaf| leaf.method == method && leaf.verb == template.verb) {
            Some(same) => Err(same.index),
            None => {
                leaves.push(Leaf { method: method.to_owned(), verb: template.verb.clone(), index });
                Ok(())
            }
        }
    }

    /// What stands for a path, as it came, and the path's segments. The leftmost segment that is a literal in one template
    /// and a wildcard in another decides: the literal comes first, `**` last. A verb comes before the lack of one.
    ///
    /// # Errors
    /// There is nothing for it.
    pub fn find<'p>(&self, method: &str, path: &'p str) -> Result<(usize, Vec<&'p str>), Missing> {
        let mut segments: Vec<&str> = match path.strip_prefix('/') {
            None => return Err(Missing::Path),
            Some("") => Vec::new(),
            Some(path) => path.split('/').collect(),
        };
        let decode = |segment: &&'p str| percent_decode_str(segment).decode_utf8().unwrap_or(Cow::Borrowed(segment));
        let mut decoded: Vec<Cow<'_, str>> = segments.iter().map(decode).collect();
        let mut search = Search { method, allowed: Vec::new() };
        let whole = segments.last().copied();
        if let Some((before, verb)) = whole.and_then(|last| last.rsplit_once(':')) {
            let verb = decode(&verb);
            let last = segments.len() - 1;
            (segments[last], decoded[last]) = (before, decode(&before));
            if let Some(index) = search.find(&self.root, &decoded, Some(&*verb)) {
                return Ok((index, segments));
            }
            (segments[last], decoded[last]) = (whole.unwrap_or_default(), decode(&whole.unwrap_or_default()));
        }
        match search.find(&self.root, &decoded, None) {
            Some(index) => Ok((index, segments)),
            None if search.allowed.is_empty() => Err(Missing::Path),
            None => Err(Missing::Method(search.allowed)),
        }
    }
}

struct Search<'a> {
    method: &'a str,
    /// The methods that the path has, where this one is none of them.
    allowed: Vec<String>,
}

impl Search<'_> {
    /// Visits each node at most once.
    fn find(&mut self, root: &Node, path: &[Cow<'_, str>], verb: Option<&str>) -> Option<usize> {
        // What is still to be tried, the next on top: a node with the segments before it, or what matches any rest.
        let mut open = vec![(root, 0, false)];
        while let Some((node, depth, rest)) = open.pop() {
            if rest {
                if let Some(index) = self.leaf(&node.rest, verb) {
                    return Some(index);
                }
                continue;
            }
            open.push((node, depth, true));
            let Some(segment) = path.get(depth) else {
                if let Some(index) = self.leaf(&node.here, verb) {
                    return Some(index);
                }
                continue;
            };
            if let Some(any) = node.any.as_deref().filter(|_| !segment.is_empty()) {
                open.push((any, depth + 1, false));
            }
            if let Some(literal) = node.literals.get(&**segment) {
                open.push((literal, depth + 1, false));
            }
        }
        None
    }

    fn leaf(&mut self, leaves: &[Leaf], verb: Option<&str>) -> Option<usize> {
        let of_verb = || leaves.iter().filter(|leaf| leaf.verb.as_deref() == verb);
        let found =
            of_verb().find(|leaf| leaf.method == self.method).or_else(|| of_verb().find(|leaf| leaf.method == "*"));
        if found.is_none() {
            for leaf in of_verb().filter(|leaf| !self.allowed.contains(&leaf.method)).collect::<Vec<_>>() {
                self.allowed.push(leaf.method.clone());
            }
        }
        found.map(|leaf| leaf.index)
    }
}

impl Variable {
    /// What the variable has in a path. Of several segments, `%2F` stays as it is.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn value(&self, segments: &[&str]) -> Result<String, &'static str> {
        let to = self.to.unwrap_or(segments.len()).min(segments.len());
        let segments = segments.get(self.from..to).unwrap_or_default();
        let mut value = String::new();
        for (i, segment) in segments.iter().enumerate() {
            if i > 0 {
                value.push('/');
            }
            let kept = match self.single {
                true => Cow::Borrowed(*segment),
                false => Cow::Owned(segment.replace("%2F", "%252F").replace("%2f", "%252f")),
            };
            value.push_str(&percent_decode_str(&kept).decode_utf8().map_err(|_| "it is not UTF-8")?);
        }
        Ok(value)
    }
}

fn literal(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a segment is empty".into());
    }
    if let Some(c) = text.chars().find(|c| "{}*=:?#/".contains(*c) || c.is_whitespace() || c.is_control()) {
        return Err(format!("`{c}` cannot stand in `{text}`"));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(format!("`{text}` is not UTF-8")),
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(path: &str, from: usize, to: Option<usize>, single: bool) -> Variable {
        Variable { path: path.split('.').map(str::to_owned).collect(), from, to, single }
    }

    #[test]
    fn templates_are_read() {
        let template = Template::parse("/v1/{a.b=shelves/*/books/**}:cancel").unwrap();
        let literal = |text: &str| Part::Literal(text.to_owned());
        let parts = [literal("v1"), literal("shelves"), Part::Any, literal("books"), Part::Rest];
        assert_eq!(template.parts, parts);
        assert_eq!(template.verb.as_deref(), Some("cancel"));
        assert_eq!(template.variables, [variable("a.b", 1, None, false)]);
        let template = Template::parse("/v1/{a}/x/{b=*}/{c=y/*}").unwrap();
        let all = [variable("a", 1, Some(2), true), variable("b", 3, Some(4), true), variable("c", 4, Some(6), false)];
        assert_eq!(template.variables, all);
        assert_eq!(Template::parse("/").unwrap().parts, []);
    }

    #[test]
    fn mistakes_are_told() {
        let wrong = [
            "",
            "v1",
            "/v1/",
            "/v1//a",
            "/v1/{a",
            "/v1/a}",
            "/v1/{}",
            "/v1/{a.}",
            "/v1/{1a}",
            "/v1/{a=}",
            "/v1/{a={b}}",
            "/**/a",
            "/{a=**}/b",
            "/{a}/{a}",
            "/v1:",
            "/v1:a:b",
            "/v1:a/b",
            "/v1?a=b",
            "/{a}b",
            "/a{b}",
            "/***",
            "/a b",
            "/{a=*:b}",
            "/%ff",
            "/a*",
        ];
        for text in wrong {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_most_specific_template_is_found() {
        let templates = [
            "/v1/shelves",
            "/v1/{s}",
            "/v1/{s}/books",
            "/v1/shelves/{x}",
            "/v1/{n=a/**}",
            "/{r=**}",
            "/v1/{s}:sort",
            "/v2/**",
            "/v1/shelves:sort",
            "/v3/{x}/y",
        ];
        let mut tree = Tree::default();
        for (i, text) in templates.iter().enumerate() {
            tree.insert(&Template::parse(text).unwrap(), "GET", i).unwrap();
        }
        let found = |path: &str| tree.find("GET", path).map(|(index, _)| templates[index]).ok();
        for (path, template) in [
            ("/v1/shelves", "/v1/shelves"),
            ("/v1/sh%65lves", "/v1/shelves"),
            ("/v1/x", "/v1/{s}"),
            ("/v1/shelves/books", "/v1/shelves/{x}"),
            ("/v1/x/books", "/v1/{s}/books"),
            ("/v1/a/b/c", "/v1/{n=a/**}"),
            ("/v1/a", "/v1/{n=a/**}"),
            ("/v1/x/y", "/{r=**}"),
            ("/", "/{r=**}"),
            ("/v1/x:sort", "/v1/{s}:sort"),
            ("/v1/x:other", "/v1/{s}"),
            ("/v2", "/v2/**"),
            ("/v2/", "/v2/**"),
            ("/v1/shelves:sort", "/v1/shelves:sort"),
            ("/v1/x%3Asort", "/v1/{s}"),
            ("/v1/", "/{r=**}"),
            ("/v3/a/z", "/{r=**}"),
            ("/v1/shelves/", "/{r=**}"),
            ("/v1/a%2Fb", "/v1/{s}"),
            ("/v1/shelves:sort:x", "/v1/{s}"),
        ] {
            assert_eq!(found(path), Some(template), "{path}");
        }
        assert_eq!(found("v1"), None);
    }

    #[test]
    fn methods_are_told_apart() {
        let mut tree = Tree::default();
        let mut add = |text: &str, method, index| tree.insert(&Template::parse(text).unwrap(), method, index);
        add("/a/{b}", "GET", 0).unwrap();
        add("/a/{b}", "PUT", 1).unwrap();
        add("/{c=a/*}", "POST", 2).unwrap();
        add("/b", "*", 3).unwrap();
        add("/b", "GET", 4).unwrap();
        assert_eq!(add("/{c=a/*}", "PUT", 5), Err(1));
        assert_eq!(add("/a/*", "GET", 5), Err(0));
        add("/a/*:v", "GET", 5).unwrap();
        assert_eq!(tree.find("POST", "/a/x").unwrap().0, 2);
        assert_eq!(tree.find("GET", "/b").unwrap().0, 4);
        assert_eq!(tree.find("QUERY", "/b").unwrap().0, 3);
        let allowed = ["GET", "PUT", "POST"].map(str::to_owned).to_vec();
        assert_eq!(tree.find("DELETE", "/a/x"), Err(Missing::Method(allowed)));
        assert_eq!(tree.find("GET", "/c"), Err(Missing::Path));
    }

    #[test]
    fn values_are_decoded() {
        let value = |text: &str, path: &str| {
            let template = Template::parse(text).unwrap();
            let mut tree = Tree::default();
            tree.insert(&template, "GET", 0).unwrap();
            let (_, segments) = tree.find("GET", path).unwrap();
            template.variables[0].value(&segments)
        };
        for (template, path, expected) in [
            ("/{a}", "/x%2Fy%20z", "x/y z"),
            ("/{a}", "/%252F", "%2F"),
            ("/{a=x/*}", "/x/y%2Fz%2f%20", "x/y%2Fz%2f "),
            ("/{a=**}", "/x/%C3%A9/%2", "x/é/%2"),
            ("/{a=**}", "/x%2", "x%2"),
            ("/{a=**}", "/x%2\u{e9}", "x%2\u{e9}"),
            ("/{a=**}", "/", ""),
            ("/{a=**}", "/b/", "b/"),
            ("/{a}:v", "/x%3Av:v", "x:v"),
            ("/{a}", "/a+b", "a+b"),
            ("/{a=**}", "/%2f%2F", "%2f%2F"),
            ("/{a=**}", "/%252F%20", "%2F "),
        ] {
            assert_eq!(value(template, path).as_deref(), Ok(expected), "{template} {path}");
        }
        assert!(value("/{a}", "/%ff").is_err());
        assert!(value("/{a=**}", "/x/%ff").is_err());
    }

    #[test]
    fn the_search_is_bounded() {
        let mut tree = Tree::default();
        for bits in 0..1024u32 {
            let segments: String = (0..10).map(|i| if bits >> i & 1 == 1 { "/a" } else { "/*" }).collect();
            tree.insert(&Template::parse(&segments).unwrap(), "GET", 0).unwrap();
        }
        assert_eq!(tree.find("GET", &"/a".repeat(20_000)), Err(Missing::Path));
    }
}
