//! Edits of JSON bodies that need no document: `pick`, `remove`, `rename` and `set`, in one pass over the bytes.
//!
//! ```toml
//! pick   = ["id", "name", "user", "items.*.id", "items.*.cost"]
//! remove = ["user.password", "items.*.cost"]
//! rename = { "user.mail" = "email" }
//! set    = { "meta.source" = "gateway", "flags.beta" = false }
//! ```
//!
//! # Paths
//!
//! Steps with dots between them. `*` is every member of an object and every element of an array. A number is that element
//! of an array, from 0, and the member of that name of an object. Anything else is the member of that name. A key that
//! has dots or other signs in it is written in quotes, as in JSON: `a."x.y".b`; in quotes, `*` and numbers are keys too.
//!
//! Only `*` and numbers lead into arrays: where `items` is an array, `items.cost` stands for nothing, `items.*.cost` for
//! the cost of each. Keys are compared as what their escapes stand for. Of keys that come twice in an object, both are
//! meant.
//!
//! # Verbs
//!
//! They apply in the order `pick`, `remove`, `rename`, `set`, whatever the order in the file.
//!
//! - `pick` keeps what is named, and the objects and arrays that it lies in. On the way to it, what is neither an object
//!   nor an array becomes `null`, for it has nothing of what is named.
//! - `remove` leaves out what is named.
//! - `rename` gives what is named another key in the same object; a key with a dot has quotes: `'"x.y"'`. All renames look
//!   at the keys that came in, so that two keys can change places. If an object has the new key already, the one that
//!   comes first stays and the other is left out.
//! - `set` puts a value there. It looks at the keys after `rename`. What is there is replaced in its place, else the value
//!   comes last in its object. Where the rest of the path is keys, objects that are missing on the way are made, also in
//!   the place of what is neither an object nor an array. Behind `*` and numbers, that is only so inside of what came in.
//!   Note that TOML's `set = { meta.source = 1 }`, without quotes, sets all of `meta`.
//!
//! Numbers of elements are those that came in, for all verbs.
//!
//! # What stays
//!
//! All that is not edited goes through byte by byte: the order of keys, the text of numbers, escapes, white space. Left
//! out with a member are the white space before it and one comma. In objects and arrays that paths lead into, white space
//! between two tokens is cut after 256 bytes.
//!
//! # What is refused
//!
//! Whatever RFC 8259 does not allow, also where it is left out: bytes that are no UTF-8, a byte order mark, anything after
//! the document, and nesting beyond [`DEPTH`](super::DEPTH). Escapes of single surrogates are allowed and stay.
//!
//! The memory that an [`Editor`] takes grows with the depth of the document and the longest key of the paths, not with
//! the document. The time is linear in it.

mod check;
mod compile;
mod editor;
mod path;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Filter, Malformed};
use compile::Program;
pub use editor::Editor;

/// The edits as they are written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EditsConfig {
    /// Paths of what is kept; without it, everything is.
    pub pick: Option<Vec<String>>,
    /// Paths of what is left out.
    pub remove: Vec<String>,
    /// Paths of what gets another key, and the key.
    pub rename: BTreeMap<String, String>,
    /// Paths of what gets a value, and the value.
    pub set: Map<String, Value>,
}

/// A mistake in the edits as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key that it stands under: `pick`, `remove`, `rename` or `set`.
    pub verb: &'static str,
    /// Which entry of it: the index in a list, the key in a table. `None` is all of it.
    pub entry: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What helps.
    pub help: String,
}

/// Edits that are ready to run.
#[derive(Debug)]
pub struct Edits {
    program: Program,
    /// The text of each value of `set`.
    values: Vec<Vec<u8>>,
}

impl Edits {
    /// Makes edits of what is written; `None` if nothing is.
    ///
    /// # Errors
    /// Every mistake.
    pub fn compile(config: &EditsConfig) -> Result<Option<Self>, Vec<Mistake>> {
        let plan = check::plan(config)?;
        if plan.is_empty() {
            return Ok(None);
        }
        Self::of(&plan, config).map(Some)
    }

    fn of(plan: &check::Plan, config: &EditsConfig) -> Result<Self, Vec<Mistake>> {
        let program = Program::compile(plan).map_err(|mistake| vec![mistake])?;
        Ok(Self { program, values: config.set.values().map(|value| value.to_string().into_bytes()).collect() })
    }

    /// Edits a document that comes in parts.
    pub fn filter(self: &Arc<Self>) -> Editor {
        self.filter_with(Vec::new())
    }

    /// Edits a document that comes in parts, with other values for `set`: each a JSON text, in the order of the
    /// [configuration](EditsConfig::set). They are not checked. Where one is missing, that of the configuration is set.
    pub fn filter_with(self: &Arc<Self>, values: Vec<Vec<u8>>) -> Editor {
        Editor::new(self.clone(), values)
    }

    /// Edits a whole document.
    ///
    /// # Errors
    /// It is not JSON.
    pub fn apply(self: &Arc<Self>, document: &[u8]) -> Result<Vec<u8>, Malformed> {
        let mut out = Vec::with_capacity(document.len() + 64);
        let mut editor = self.filter();
        editor.push(document, &mut out)?;
        editor.end(&mut out)?;
        Ok(out)
    }
}
