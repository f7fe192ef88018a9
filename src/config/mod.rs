//! Loading: the main file and what it includes, as one tree.
//!
//! ```toml
//! include = ["apis/*.toml"]      # relative to this file; names sort the order
//! ```
//!
//! With `watch = true` beside it the gateway loads the configuration again when one of its files changes.
//!
//! `include` and `watch` stand above all tables: below a `[table]` line they would be keys of that table, which is a mistake.
//!
//! Tables with names (`[upstream.NAME]`) and lists (`[[route]]`) add up over the files. A name given twice, or
//! a single table (`[defaults]`) in two files, is a mistake: which one wins would depend on the order of files.
//!
//! The file of one API can be read again by itself ([`load_api`]): all others stay as they were read before, whatever they
//! say by now.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use crate::build::{Build, Diagnostic, Diagnostics, Entry, Node, Severity, Sources, Table, Value};
use crate::types::file::{read_text, unreadable};

/// A configuration's text as one tree.
pub struct Loaded {
    /// The texts, for diagnostics.
    pub sources: Sources,
    /// The tree over all files.
    pub root: Node,
    /// The file patterns that were included, and what they matched.
    patterns: BTreeMap<String, Vec<PathBuf>>,
    found: Vec<Diagnostic>,
}

/// Tables whose entries have names that add up over the files.
const NAMED: &[&str] = &["listen", "upstream", "auth", "consumer", "cache", "store", "api", "policy"];
/// Lists that add up over the files.
const LISTS: &[&str] = &["route", "test"];
/// Tables that stand once.
const SINGLE: &[&str] = &["server", "admin", "log", "trace", "metrics", "defaults"];
/// What is no table.
const PLAIN: &[&str] = &["include", "watch"];

const MOST_FILES: usize = 10_000;
const LARGEST_FILE: u64 = 256 << 20;

/// Reads a file and what it includes.
///
/// # Errors
/// The main file cannot be read. Every other mistake is kept for [`Loaded::build`].
pub fn load(path: &Path) -> Result<Loaded, Diagnostics> {
    Loader::default().load(path)
}

/// Reads the file of one API, and what that includes; takes all else as it was `before`.
///
/// # Errors
/// As [`load`]. Nothing of the name was there before: then only [`load`] can tell what it is.
pub fn load_api(path: &Path, name: &str, before: &Loaded) -> Result<Loaded, Diagnostics> {
    let apis = before.root.get("api").and_then(Node::table).into_iter().flatten();
    let Some((_, api)) = apis.clone().find(|(other, _)| *other == name) else {
        let known: Vec<&str> = apis.map(|(name, _)| name.as_str()).collect();
        let mut diagnostic = Diagnostic::new(Severity::Error, None, format!("no api `{name}` is at work"));
        diagnostic.help(crate::build::suggestion("api", name, &known));
        return Err(Diagnostics::new(&before.sources, vec![diagnostic], &[]));
    };
    let anew = PathBuf::from(before.sources.name(api.node.place.file));
    Loader { kept: Some(Kept { before, anew }), ..Loader::default() }.load(path)
}

impl Loaded {
    /// Takes a text as the whole configuration; for tests and tools.
    pub fn from_text(name: &str, text: &str) -> Self {
        let mut sources = Sources::default();
        let (mut root, mut found) = sources.parse(name, text);
        misplaced_includes(&mut root, &mut found);
        let mut loaded = Self { sources, root, patterns: BTreeMap::new(), found };
        loaded.check_tables();
        loaded
    }

    /// Starts building, with the mistakes of the loading already reported.
    pub fn build(&self) -> Build<'_> {
        let mut build = Build::new(&self.sources, &self.root);
        build.extend(self.found.iter().cloned());
        build
    }

    /// Whether its files are to be watched (`watch = true`).
    pub fn is_watched(&self) -> bool {
        self.root.get("watch").is_some_and(|watch| watch.value == Value::Boolean(true))
    }

    /// Names what the files say: the SHA-256 of their texts in the order in which they were read, in hexadecimal.
    pub fn digest(&self) -> String {
        let mut context = Context::new(&SHA256);
        for text in self.sources.texts() {
            context.update(&(text.len() as u64).to_le_bytes());
            context.update(text.as_bytes());
        }
        context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The files that it was read from, and those that would be read now.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let included = self.patterns.keys().filter_map(|pattern| glob::glob(pattern).ok()).flatten().flatten();
        self.sources.names().map(PathBuf::from).chain(included)
    }

    /// Top-level keys that are unknown, of the wrong type, or not there yet.
    fn check_tables(&mut self) {
        let Some(table) = self.root.table() else { return };
        let known: Vec<&str> = [NAMED, LISTS, SINGLE, PLAIN].concat();
        for (key, entry) in table {
            let mut say = |message: String, help: Option<String>| {
                let mut diagnostic = Diagnostic::new(Severity::Error, Some(entry.key), message);
                if let Some(help) = help {
                    diagnostic.help(help);
                }
                self.found.push(diagnostic);
            };
            let key = key.as_str();
            if !known.contains(&key) {
                say(format!("`{key}` is not known here"), Some(crate::build::suggestion("table", key, &known)));
            } else if LISTS.contains(&key) && entry.node.array().is_none() {
                say(format!("`{key}` is a list: write [[{key}]]"), None);
            } else if key == "watch" && !matches!(entry.node.value, Value::Boolean(_)) {
                say(format!("`watch` is true or false, found {}", entry.node.value), None);
            } else if (NAMED.contains(&key) || SINGLE.contains(&key)) && entry.node.table().is_none() {
                say(format!("`{key}` is a table, found {}", entry.node.value), Some(format!("write [{key}]")));
            }
        }
    }
}

#[derive(Default)]
struct Loader<'b> {
    sources: Sources,
    patterns: BTreeMap<String, Vec<PathBuf>>,
    found: Vec<Diagnostic>,
    /// The files that include the one at hand, to find a circle.
    open: Vec<PathBuf>,
    seen: HashSet<PathBuf>,
    kept: Option<Kept<'b>>,
}

/// What is not read again.
struct Kept<'b> {
    before: &'b Loaded,
    /// The one file that is, with what it includes.
    anew: PathBuf,
}

impl Loader<'_> {
    fn load(mut self, path: &Path) -> Result<Loaded, Diagnostics> {
        match self.file(path) {
            Ok(root) => {
                let mut loaded = Loaded { sources: self.sources, root, patterns: self.patterns, found: self.found };
                loaded.check_tables();
                Ok(loaded)
            }
            Err(message) => {
                let diagnostic = Diagnostic::new(Severity::Error, None, message);
                Err(Diagnostics::new(&self.sources, vec![diagnostic], &[]))
            }
        }
    }

    fn file(&mut self, path: &Path) -> Result<Node, String> {
        // Within the file that is read again, nothing is kept.
        let kept = self.kept.take_if(|kept| kept.anew == path);
        let root = self.tree(path);
        self.kept = kept.or_else(|| self.kept.take());
        root
    }

    fn tree(&mut self, path: &Path) -> Result<Node, String> {
        let shown = path.display();
        let kept = self.kept.as_ref().map(|kept| kept.before);
        let kept = kept.and_then(|before| before.sources.named(&shown.to_string()));
        let real = match (fs::canonicalize(path), kept) {
            (Ok(real), _) => real,
            // It may be gone by now.
            (Err(_), Some(_)) => path.to_owned(),
            (Err(error), None) => return Err(unreadable(path, &error)),
        };
        if self.open.contains(&real) {
            return Err(format!("{shown} includes itself"));
        }
        if self.seen.len() >= MOST_FILES {
            return Err(format!("more than {MOST_FILES} files are included"));
        }
        if !self.seen.insert(real.clone()) {
            return Err(format!("{shown} is included twice"));
        }
        let text = match kept {
            Some(text) => text.to_owned(),
            None => read(path)?,
        };
        let (mut root, found) = self.sources.parse(shown.to_string(), text);
        self.found.extend(found);
        misplaced_includes(&mut root, &mut self.found);
        self.open.push(real);
        self.includes(path, &mut root);
        self.open.pop();
        Ok(root)
    }

    fn includes(&mut self, path: &Path, root: &mut Node) {
        let Value::Table(table) = &mut root.value else { return };
        let Some(include) = table.remove("include") else { return };
        let Some(patterns) = include.node.array() else {
            self.mistake(&include.node, "`include` is a list of files, such as [\"apis/*.toml\"]".to_owned());
            return;
        };
        for pattern in patterns {
            let Some(text) = pattern.str() else {
                self.mistake(pattern, format!("expected a file name in quotes, found {}", pattern.value));
                continue;
            };
            let full = path.parent().unwrap_or(Path::new("")).join(text);
            let files = match self.files(&full.to_string_lossy()) {
                Ok(files) => files,
                Err(message) => {
                    self.mistake(pattern, message);
                    continue;
                }
            };
            if files.is_empty() {
                self.mistake(pattern, format!("no file matches {}", full.display()));
            }
            for file in &files {
                match self.file(file) {
                    Ok(included) => self.merge(table, included),
                    Err(message) => self.mistake(pattern, message),
                }
            }
            self.patterns.insert(full.to_string_lossy().into_owned(), files);
        }
    }

    fn merge(&mut self, table: &mut Table, included: Node) {
        let Value::Table(more) = included.value else { return };
        for (key, entry) in more {
            let Some(present) = table.get_mut(&key) else {
                table.insert(key, entry);
                continue;
            };
            match (&mut present.node.value, entry.node.value) {
                (Value::Array(items), Value::Array(more)) if LISTS.contains(&key.as_str()) => items.extend(more),
                (Value::Table(names), Value::Table(more)) if NAMED.contains(&key.as_str()) => {
                    for (name, entry) in more {
                        if let Some(first) = names.get(&name) {
                            let first = first.key;
                            self.twice(&entry, first, format!("`{key}.{name}` is given twice"));
                        } else {
                            names.insert(name, entry);
                        }
                    }
                }
                (_, value) => {
                    let first = present.key;
                    let entry = Entry { key: entry.key, node: Node { place: entry.node.place, value } };
                    self.twice(&entry, first, format!("`{key}` is given in two files"));
                }
            }
        }
    }

    /// The files that a pattern stands for, in the order of their names.
    fn files(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        if let Some(kept) = &self.kept {
            return Ok(kept.before.patterns.get(pattern).cloned().unwrap_or_default());
        }
        let files = glob::glob(pattern).map_err(|error| format!("not a file pattern: {error}"))?;
        files.collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    fn mistake(&mut self, node: &Node, message: String) {
        self.found.push(Diagnostic::new(Severity::Error, Some(node.place), message));
    }

    fn twice(&mut self, entry: &Entry, first: crate::build::Place, message: String) {
        let mut diagnostic = Diagnostic::new(Severity::Error, Some(entry.key), message);
        diagnostic.also(first, "first given here");
        self.found.push(diagnostic);
    }
}

fn read(path: &Path) -> Result<String, String> {
    let length = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if length > LARGEST_FILE {
        return Err(format!("{} has {length} bytes, and more than {LARGEST_FILE} are not read", path.display()));
    }
    read_text(path)
}

/// Takes every `include` out of the tables below the root, where it means nothing, and reports it.
fn misplaced_includes(root: &mut Node, found: &mut Vec<Diagnostic>) {
    let Value::Table(table) = &mut root.value else { return };
    for (key, entry) in table {
        if key != "include" {
            misplaced_below(&mut entry.node, found);
        }
    }
}

fn misplaced_below(node: &mut Node, found: &mut Vec<Diagnostic>) {
    let table = match &mut node.value {
        Value::Table(table) => table,
        Value::Array(items) => return items.iter_mut().for_each(|item| misplaced_below(item, found)),
        _ => return,
    };
    // An upstream may have that name; its servers are no files.
    let is_file = |node: &Node| node.str().is_some_and(|text| text.ends_with(".toml"));
    if table.get("include").is_some_and(|entry| entry.node.array().is_some_and(|items| items.iter().any(is_file)))
        && let Some(entry) = table.remove("include")
    {
        let message = "`include` stands in a table, where nothing is included";
        let mut diagnostic = Diagnostic::new(Severity::Error, Some(entry.key), message.to_owned());
        diagnostic.help("write it above the first [table] of the file: below it, it is a key of that table");
        found.push(diagnostic);
    }
    table.values_mut().for_each(|entry| misplaced_below(&mut entry.node, found));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostics(dir: &Path, main: &str) -> String {
        load(&dir.join(main)).unwrap().build().diagnostics().to_string()
    }

    #[test]
    fn files_add_up() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("apis")).unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("main.toml", "include = ['apis/*.toml']\n[upstream]\na = ['127.0.0.1:1']\n[[route]]\nmatch = '/a'\n");
        write("apis/b.toml", "[upstream]\nb = ['127.0.0.1:2']\n[[route]]\nmatch = '/b'\n");
        let loaded = load(&dir.path().join("main.toml")).unwrap();
        assert_eq!(loaded.root.get("upstream").unwrap().table().unwrap().len(), 2);
        assert_eq!(loaded.root.get("route").unwrap().array().unwrap().len(), 2);
        assert!(loaded.build().diagnostics().is_empty());
    }

    #[test]
    fn the_file_of_one_api_is_read_by_itself() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let main = dir.path().join("main.toml");
        write("main.toml", "include = ['x-*.toml']\n[log]\nlevel = 'info'\n");
        write("x-a.toml", "include = ['a/*.toml']\n[api.a]\nhosts = 'one'\n");
        fs::create_dir(dir.path().join("a")).unwrap();
        write("a/1.toml", "[[route]]\nmatch = '/1'\n");
        write("x-b.toml", "[api.b]\nhosts = 'one'\n");
        let before = load(&main).unwrap();

        write("main.toml", "mistake");
        write("x-a.toml", "include = ['a/*.toml']\n[api.a]\nhosts = 'two'\n");
        write("a/2.toml", "[[route]]\nmatch = '/2'\n");
        fs::remove_file(dir.path().join("x-b.toml")).unwrap();
        write("x-c.toml", "[api.c]\n");
        let after = load_api(&main, "a", &before).unwrap();
        assert_eq!(after.build().diagnostics().to_string(), "");
        let hosts = |api: &str| after.root.get("api").unwrap().get(api).unwrap().get("hosts").unwrap().str();
        assert_eq!((hosts("a"), hosts("b")), (Some("two"), Some("one")));
        assert!(after.root.get("api").unwrap().get("c").is_none());
        assert_eq!(after.root.get("route").unwrap().array().unwrap().len(), 2);

        let Err(said) = load_api(&main, "c", &after) else { panic!() };
        assert!(said.to_string().contains("no api `c` is at work"), "{said}");
        write("x-a.toml", "[api.a]\nhosts =");
        let said = load_api(&main, "a", &after).unwrap().build().diagnostics().to_string();
        assert!(said.contains("x-a.toml:2"), "{said}");
    }

    #[test]
    fn an_include_below_a_table_is_found() {
        let text = "[upstream]\ninclude = ['a:1']\n[[route]]\nmatch = '/'\ninclude = ['apis/*.toml']\n";
        let loaded = Loaded::from_text("x.toml", text);
        let said = loaded.build().diagnostics().to_string();
        assert!(said.contains("x.toml:5:1") && said.contains("above the first [table]"), "{said}");
        assert!(loaded.root.get("upstream").unwrap().get("include").is_some());
    }

    #[test]
    fn circles_doubles_and_missing_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("main.toml", "include = ['b.toml', 'none.toml', 'x[']\n[upstream]\na = ['127.0.0.1:1']\n[defaults]\n");
        write("b.toml", "include = ['main.toml']\n[upstream]\na = ['127.0.0.1:2']\n[defaults]\n");
        let text = diagnostics(dir.path(), "main.toml");
        assert!(text.contains("includes itself"), "{text}");
        assert!(text.contains("`upstream.a` is given twice"), "{text}");
        assert!(text.contains("`defaults` is given in two files"), "{text}");
        assert!(text.contains("no file matches"), "{text}");
        assert!(text.contains("not a file pattern"), "{text}");
        assert!(load(&dir.path().join("none.toml")).is_err());
    }
}
