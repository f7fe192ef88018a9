//! The folder of a schema: where the files may be that it refers to. Nothing is ever fetched.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jsonschema::{Retrieve, Uri};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{json, yaml};

/// Bytes that a file may have.
const MOST_BYTES: u64 = 16 << 20;
/// Files that may be read for one schema.
const MOST_FILES: usize = 256;
/// The name of what is held and is no file.
const INLINE: &str = ".inline";
/// What the names of the files in the folder begin with, as URIs.
const SCHEME: &str = "folder:///";

/// A folder, with what was read in it so far. Clones share that.
#[derive(Clone)]
pub struct Folder(Arc<Inner>);

struct Inner {
    path: PathBuf,
    /// Changes what a file says before it is used.
    adapt: fn(&mut Value),
    read: Mutex<BTreeMap<String, Arc<Value>>>,
    /// What a schema calls the folder by its `$id`.
    alias: Mutex<Option<String>>,
}

impl Folder {
    /// The folder at `path`; what is read in it goes through `adapt` first.
    pub fn new(path: &Path, adapt: fn(&mut Value)) -> Self {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Self(Arc::new(Inner { path: path.into(), adapt, read: Mutex::default(), alias: Mutex::default() }))
    }

    /// The URI of a file, given by its path in the folder.
    pub fn uri(name: &str) -> String {
        let escaped = percent_encoding::utf8_percent_encode(name, NAME);
        format!("{SCHEME}{escaped}")
    }

    /// The document in a file, given by its path in the folder.
    ///
    /// # Errors
    /// It cannot be read, is outside of the folder, or is neither JSON nor YAML.
    pub fn document(&self, name: &str) -> Result<Arc<Value>, String> {
        let mut read = self.0.read.lock();
        if let Some(document) = read.get(name) {
            return Ok(document.clone());
        }
        if read.len() == MOST_FILES {
            return Err(format!("more than {MOST_FILES} files are referred to"));
        }
        let path = self.0.path.join(name);
        let unreadable = |error: std::io::Error| crate::types::file::unreadable(&path, &error);
        let (folder, file) =
            (self.0.path.canonicalize().map_err(unreadable)?, path.canonicalize().map_err(unreadable)?);
        if !file.starts_with(&folder) {
            return Err(format!("{} is not in the folder of the schema, {}", path.display(), self.0.path.display()));
        }
        if file.metadata().map_err(unreadable)?.len() > MOST_BYTES {
            return Err(format!("{} has more than {MOST_BYTES} bytes", path.display()));
        }
        let text = crate::types::file::read_text(&path)?;
        let mut document = parse(&text, &path)?;
        (self.0.adapt)(&mut document);
        let document = Arc::new(document);
        read.insert(name.to_owned(), document.clone());
        Ok(document)
    }

    /// Holds a document that is no file, which others of the folder may refer to by the name that this gives.
    pub fn hold(&self, document: Value) -> &'static str {
        self.0.read.lock().insert(INLINE.to_owned(), Arc::new(document));
        INLINE
    }

    /// The file, and the JSON pointer in it, that a reference in another file of the folder means.
    ///
    /// # Errors
    /// It is elsewhere, or no JSON pointer.
    pub fn target(&self, file: &str, reference: &str) -> Result<(String, String), String> {
        let (uri, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let decode =
            |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).unwrap_or_default();
        let pointer = decode(fragment);
        if !(pointer.is_empty() || pointer.starts_with('/')) {
            return Err(format!("`{reference}` has no JSON pointer behind its `#`"));
        }
        let name = match uri {
            "" => file.to_owned(),
            uri if uri.contains("://") => {
                self.name(uri).ok_or_else(|| format!("`{uri}` is not in the folder, and nothing is fetched"))?
            }
            path => {
                let mut segments: Vec<&str> = file.split('/').collect();
                segments.pop();
                let path = decode(path);
                for segment in path.split('/') {
                    match segment {
                        "." => {}
                        ".." if segments.pop().is_some() => {}
                        ".." => return Err(format!("`{uri}` is not in the folder")),
                        segment => segments.push(segment),
                    }
                }
                segments.join("/")
            }
        };
        Ok((name, pointer))
    }

    /// The files that were read so far.
    pub fn files(&self) -> Vec<PathBuf> {
        let read = self.0.read.lock();
        read.keys().filter(|name| *name != INLINE).map(|name| self.0.path.join(name)).collect()
    }

    /// The document that has this absolute `$id` is in the folder: what it refers to by URIs beside its own is too.
    pub(super) fn call(&self, id: &str) {
        let beside = id.split(['#', '?']).next().and_then(|id| id.rfind('/').map(|end| id[..=end].to_owned()));
        *self.0.alias.lock() = beside.filter(|beside| beside.contains("://") && !beside.starts_with(SCHEME));
    }

    /// The path in the folder that a URI means.
    pub fn name(&self, uri: &str) -> Option<String> {
        let uri = uri.split(['#', '?']).next()?;
        let alias = self.0.alias.lock();
        let name = uri.strip_prefix(SCHEME).or_else(|| uri.strip_prefix(alias.as_deref()?))?;
        percent_decode_str(name).decode_utf8().ok().map(|name| name.into_owned()).filter(|name| !name.is_empty())
    }
}

impl Retrieve for Folder {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let name = self.name(uri.as_str()).ok_or("it is not in the folder of the schema, and nothing is fetched")?;
        Ok(Value::clone(&*self.document(&name)?))
    }
}

/// Reads JSON or, in a file that is called so, YAML.
fn parse(text: &str, path: &Path) -> Result<Value, String> {
    let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    let parsed = match is_yaml {
        true => yaml::parse(text),
        false => json::parse(text.as_bytes()).map_err(|malformed| malformed.to_string()),
    };
    parsed.map_err(|error| format!("{}: {error}", path.display()))
}

/// What is escaped in the path of a URI (RFC 3986, section 3.3).
const NAME: &percent_encoding::AsciiSet =
    &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
