//! Under what an answer is stored: what of a request it depends on.
//!
//! A key is a list of pieces, each with its kind and its length, so that two requests have the same key only if all
//! their pieces are the same. The route and the upstream are always among them: what two routes answer is never mixed,
//! nor what the two sides of a split do.

use std::sync::Arc;

use http::HeaderMap;

/// Under what an answer is stored.
#[derive(Debug, Clone)]
pub struct Key {
    /// The pieces.
    pub bytes: Arc<[u8]>,
}

/// What a key is made of, piece by piece.
#[derive(Debug, Default)]
pub struct KeyBuilder(Vec<u8>);

impl KeyBuilder {
    /// Adds a piece of a kind.
    pub fn add(&mut self, kind: u8, piece: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(&(piece.len() as u64).to_be_bytes());
        self.0.extend_from_slice(piece);
    }

    /// Adds all lines of a field of the request, which may be none.
    pub fn add_field(&mut self, kind: u8, headers: &HeaderMap, name: &http::HeaderName) {
        let lines = headers.get_all(name);
        self.add(kind, &(lines.iter().count() as u64).to_be_bytes());
        lines.iter().for_each(|line| self.add(kind, line.as_bytes()));
    }

    /// The pieces so far.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The key.
    pub fn finish(self) -> Key {
        Key { bytes: self.0.into() }
    }
}

impl From<Vec<u8>> for KeyBuilder {
    /// Goes on where another one was.
    fn from(pieces: Vec<u8>) -> Self {
        Self(pieces)
    }
}

/// What an answer is an answer to, as a purge or a change names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// In lower case, with its port where it is not the scheme's own.
    pub host: Box<str>,
    /// The normalized path.
    pub path: Box<str>,
    /// What of the query the answer depends on; empty where there is none.
    pub query: Box<str>,
}

impl Resource {
    /// What is at a path of a host, without a query.
    pub fn at(host: &str, path: &str) -> Self {
        Self { host: host.into(), path: path.into(), query: "".into() }
    }

    /// What a URL names, or a reference that starts from another resource: `https://host/path?query`, `host/path`,
    /// `/path`. `None` where it is none.
    pub fn parse(text: &str, from: Option<&Self>) -> Option<Self> {
        let text = text.split('#').next().unwrap_or("");
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest).trim_start_matches("//");
        let (authority, target) = match (text.starts_with('/') && !text.starts_with("//"), from) {
            (true, Some(from)) => (&*from.host, text),
            (true, None) => return None,
            (false, _) => rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() { "/" } else { path };
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => authority,
        };
        let path = crate::types::path::normalize(path).ok()?;
        let valid = !host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic() && !b"/?#@".contains(&b));
        valid.then(|| Self { host: host.to_ascii_lowercase().into(), path: path.into(), query: query.into() })
    }

    /// Whether it is the same but for the query.
    pub fn is_at(&self, other: &Self) -> bool {
        self.host == other.host && self.path == other.path
    }

    /// Whether it begins like another one, whose path and query are the beginnings.
    pub fn begins_with(&self, prefix: &Self) -> bool {
        self.host == prefix.host
            && match prefix.query.is_empty() {
                true => self.path.starts_with(&*prefix.path),
                false => self.path == prefix.path && self.query.starts_with(&*prefix.query),
            }
    }

    pub(super) fn size(&self) -> usize {
        self.host.len() + self.path.len() + self.query.len()
    }
}
