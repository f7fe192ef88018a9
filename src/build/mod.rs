//! From the configuration's text to what runs: the tree of the files, the deserializer over it and the place
//! where mistakes are collected.
//!
//! Each feature deserializes its own configuration type and compiles it with a [`Build`], which knows where in
//! the files the feature is at work. A mistake never ends the work: it is reported with its place, and the
//! whole configuration is refused at the end with every mistake at once.
//!
//! ```
//! # use portcullis::build::{Build, Sources};
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     attempts: u32,
//! }
//!
//! let mut sources = Sources::default();
//! let (tree, _) = sources.parse("portcullis.toml", "retry = { attempts = 0 }");
//! let mut build = Build::new(&sources, &tree);
//! build.within("retry", |build| {
//!     let config: Config = build.deserialize().unwrap();
//!     if config.attempts == 0 {
//!         build.error("attempts", "a request needs at least one attempt");
//!     }
//! });
//! assert!(build.diagnostics().to_string().contains("portcullis.toml:1:22"));
//! ```

mod de;
mod diagnostic;
mod pem;
mod tree;

use std::any::Any;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use crate::keep::{Fingerprint, Keep};
use crate::types::{Secret, SecretText, file};

pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use tree::{Entry, Node, Place, Sources, Table, Value};

/// The work of building from one configuration: where in the file it is, and what was found wrong so far.
pub struct Build<'t> {
    sources: &'t Sources,
    at: Vec<&'t Node>,
    found: Vec<Diagnostic>,
    hidden: Vec<Place>,
    files: Vec<PathBuf>,
    previous: Option<&'t Keep>,
    kept: Keep,
    shared: HashMap<String, Arc<dyn Any + Send + Sync>>,
}

impl<'t> Build<'t> {
    /// Starts at the root of a tree.
    pub fn new(sources: &'t Sources, root: &'t Node) -> Self {
        let (found, hidden, files) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            sources,
            at: vec![root],
            found,
            hidden,
            files,
            previous: None,
            kept: Keep::default(),
            shared: HashMap::new(),
        }
    }

    /// Takes over what can be kept of the configuration before.
    pub fn over(self, previous: Option<&'t Keep>) -> Self {
        Self { previous, ..self }
    }

    /// Works on what stands under `key` (a dotted path; `name[3]` is an element). Where the file has no such
    /// key, the work goes on at the nearest table above it.
    pub fn within<T>(&mut self, key: &str, work: impl FnOnce(&mut Self) -> T) -> T {
        let node = self.nearest(key);
        self.within_node(node, work)
    }

    /// Works on a node of the tree.
    pub fn within_node<T>(&mut self, node: &'t Node, work: impl FnOnce(&mut Self) -> T) -> T {
        self.at.push(node);
        let result = work(self);
        self.at.pop();
        result
    }

    /// Works on a node that is not part of the tree, such as one merged from several tables.
    pub fn within_detached<T>(&mut self, node: &Node, work: impl FnOnce(&mut Build<'_>) -> T) -> T {
        let mut inner = Build::new(self.sources, node).over(self.previous);
        inner.kept = std::mem::take(&mut self.kept);
        inner.shared = std::mem::take(&mut self.shared);
        let result = work(&mut inner);
        self.found.append(&mut inner.found);
        self.hidden.append(&mut inner.hidden);
        self.files.append(&mut inner.files);
        self.kept = inner.kept;
        self.shared = inner.shared;
        result
    }

    /// The node at which the work is.
    pub fn node(&self) -> &'t Node {
        self.at.last().expect("the root is never popped")
    }

    /// The current node as `T`; `None` after every mistake in it was reported.
    pub fn deserialize<T: DeserializeOwned>(&mut self) -> Option<T> {
        let node = self.node();
        let (value, mistakes) = de::deserialize(node);
        self.found.extend(mistakes);
        value
    }

    /// Reports a mistake at `key` below the current node; `""` is the node itself.
    pub fn error(&mut self, key: &str, message: impl Into<String>) -> &mut Diagnostic {
        self.report(Severity::Error, key, message.into())
    }

    /// Reports what works but is likely not meant.
    pub fn warning(&mut self, key: &str, message: impl Into<String>) -> &mut Diagnostic {
        self.report(Severity::Warning, key, message.into())
    }

    /// Reports a name that nothing has, with the nearest that something does.
    pub fn unknown<'n>(&mut self, key: &str, kind: &str, name: &str, known: impl IntoIterator<Item = &'n str>) {
        let known: Vec<&str> = known.into_iter().collect();
        let help = suggestion(kind, name, &known);
        self.error(key, format!("there is no {kind} `{name}`")).help(help);
    }

    /// Reports what cannot be the name of `what` (`an upstream`), for names go into logs, metrics and files.
    pub fn check_name(&mut self, what: &str, name: &str) -> Option<()> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if (1..=64).contains(&name.len()) && name.bytes().all(fine) {
            return Some(());
        }
        self.error("", format!("`{name}` cannot be the name of {what}"))
            .help("a name has at most 64 letters, digits, `-`, `_` and `.`");
        None
    }

    /// Shows stars for what stands at `key` below the current node, whatever is reported of its line.
    pub fn hide(&mut self, key: &str) {
        self.hidden.push(self.place(key));
    }

    /// Whether stars are to be shown for what stands at a place.
    pub fn hides(&self, place: Place) -> bool {
        let apart =
            |hidden: &Place| hidden.file != place.file || hidden.end <= place.start || place.end <= hidden.start;
        !self.hidden.iter().all(apart)
    }

    /// Reads a secret; reports one that cannot be had, and warns of one that is written in the file.
    pub fn secret(&mut self, key: &str, secret: &Secret) -> Option<SecretText> {
        let secret = match secret {
            Secret::Literal(_) => {
                self.hide(key);
                self.warning(key, "the secret is written in the file")
                    .help("use { env = \"NAME\" }, { file = \"path\" } or { credential = \"name\" }");
                secret.clone()
            }
            Secret::File(path) => Secret::File(self.path(path)),
            other => other.clone(),
        };
        match secret.read() {
            Ok(text) => Some(text),
            Err(error) => {
                self.error(key, error.to_string());
                None
            }
        }
    }

    /// A path that the configuration names: a relative one is meant from the folder of the file that it is in.
    pub fn path(&self, path: &Path) -> PathBuf {
        self.path_at(self.node(), path)
    }

    fn path_at(&self, node: &Node, path: &Path) -> PathBuf {
        let file = Path::new(self.sources.name(node.place.file));
        file.parent().unwrap_or(Path::new("")).join(path)
    }

    /// What a part of the configuration says, with the contents of the files that the keys `files` name in it.
    pub fn fingerprint(&mut self, node: &Node, files: &[&str]) -> Fingerprint {
        let mut print = Fingerprint::default();
        self.print(node, "", files, &mut print);
        print
    }

    fn print(&mut self, node: &Node, key: &str, files: &[&str], print: &mut Fingerprint) {
        match &node.value {
            Value::String(text) => {
                print.add(b's', text.as_bytes());
                if files.contains(&key) {
                    let path = self.path_at(node, Path::new(text));
                    print.add(b'f', &std::fs::read(&path).unwrap_or_default());
                    self.files.push(path);
                }
            }
            Value::Integer(number) => print.add(b'i', &number.to_le_bytes()),
            Value::Float(number) => print.add(b'd', &number.to_le_bytes()),
            Value::Boolean(value) => print.add(b'b', &[u8::from(*value)]),
            Value::Datetime(text) => print.add(b't', text.as_bytes()),
            Value::Array(items) => {
                print.add(b'[', &items.len().to_le_bytes());
                items.iter().for_each(|item| self.print(item, key, files, print));
            }
            Value::Table(table) => {
                print.add(b'{', &table.len().to_le_bytes());
                for (name, entry) in table {
                    print.add(b'k', name.as_bytes());
                    self.print(&entry.node, name, files, print);
                }
            }
        }
    }

    /// A thing that has state: the one of this name in this configuration or in the one before, if it was made of the
    /// same, else a new one. `None` after a report of why it cannot be made.
    pub fn keep<T: Any + Send + Sync>(
        &mut self,
        name: &str,
        made_of: Fingerprint,
        make: impl FnOnce(&mut Self) -> Option<T>,
    ) -> Option<Arc<T>> {
        if let Some(shared) = self.kept.find(name, &made_of) {
            return Some(shared);
        }
        let thing = match self.previous.and_then(|previous| previous.find(name, &made_of)) {
            Some(thing) => thing,
            None => Arc::new(make(self)?),
        };
        self.kept.put(name, made_of, thing.clone());
        Some(thing)
    }

    /// A thing that several parts of one configuration use: made once, by whichever comes first.
    pub fn once<T: Any + Send + Sync>(&mut self, name: &str, make: impl FnOnce(&mut Self) -> T) -> Arc<T> {
        if let Some(Ok(thing)) = self.shared.get(name).map(|thing| thing.clone().downcast()) {
            return thing;
        }
        let thing = Arc::new(make(self));
        self.shared.insert(name.to_owned(), thing.clone());
        thing
    }

    /// What the next configuration can keep.
    pub fn kept(&mut self) -> Keep {
        std::mem::take(&mut self.kept)
    }

    /// What these files say is part of the configuration.
    pub fn watch(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        self.files.extend(files);
    }

    /// The files whose contents are part of the configuration.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads a text file that the configuration names; reports one that cannot be read.
    pub fn read(&mut self, key: &str, path: &Path) -> Option<String> {
        let read = file::read_text(&self.path(path));
        self.or_report(key, read)
    }

    /// How many errors were reported so far, to tell whether a step added one.
    pub fn errors(&self) -> usize {
        self.found.iter().filter(|d| d.severity == Severity::Error).count()
    }

    /// The file that a node is in.
    pub fn file(&self, node: &Node) -> &'t str {
        self.sources.name(node.place.file)
    }

    /// Where a place is, for people: `portcullis.toml:7`.
    pub fn shown(&self, place: Place) -> String {
        format!("{}:{}", self.sources.name(place.file), self.sources.line_column(place).0)
    }

    /// Adds what was found elsewhere.
    pub fn extend(&mut self, found: impl IntoIterator<Item = Diagnostic>) {
        self.found.extend(found);
    }

    /// The place of `key` below the current node, or of the nearest table above it.
    pub fn place(&self, key: &str) -> Place {
        self.nearest(key).place
    }

    /// Every mistake, in the order of the text.
    pub fn diagnostics(self) -> Diagnostics {
        Diagnostics::new(self.sources, self.found, &self.hidden)
    }

    fn report(&mut self, severity: Severity, key: &str, message: String) -> &mut Diagnostic {
        let place = self.place(key);
        self.found.push(Diagnostic::new(severity, Some(place), message));
        self.found.last_mut().expect("just pushed")
    }

    fn nearest(&self, key: &str) -> &'t Node {
        let mut node = self.node();
        for step in key.split(['.', '[']).map(|step| step.trim_end_matches(']')).filter(|step| !step.is_empty()) {
            let next = match &node.value {
                Value::Table(table) => table.get(step).map(|entry| &entry.node),
                Value::Array(items) => step.parse().ok().and_then(|i: usize| items.get(i)),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

/// The help for a name that is not known: the nearest known name, or what there is.
pub fn suggestion(kind: &str, name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 3);
    match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None if known.is_empty() => format!("no {kind} is defined"),
        None if known.len() <= 40 => format!("expected one of {}", list(known)),
        None => format!("{} are defined, none with a similar name", known.len()),
    }
}

/// `` `a`, `b`, `c` ``
fn list(names: &[&str]) -> String {
    let mut names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.sort();
    names.join(", ")
}
