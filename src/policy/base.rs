//! The base path of an API: its clients have it in their paths, and its upstreams do not.

use http::{HeaderValue, Uri};
use pingora_http::RequestHeader;

/// What is taken off the path of a request before an upstream is sent it.
#[derive(Clone)]
pub struct Base {
    path: Box<str>,
    header: HeaderValue,
}

impl Base {
    /// A path without a slash at its end; `None` where it is empty.
    pub fn new(path: &str) -> Option<Self> {
        let header = HeaderValue::from_str(path).ok().filter(|path| !path.is_empty())?;
        Some(Self { path: path.into(), header })
    }

    /// Takes it off, and tells the upstream of that (`X-Forwarded-Prefix`) unless its path is another anyway.
    pub(super) fn take_off(&self, head: &mut RequestHeader, tell: bool) {
        let Some(rest) = head.uri.path().strip_prefix(&*self.path) else { return };
        let slash = if rest.starts_with('/') { "" } else { "/" };
        let target = match head.uri.query() {
            Some(query) => format!("{slash}{rest}?{query}"),
            None => format!("{slash}{rest}"),
        };
        let mut parts = head.uri.clone().into_parts();
        parts.path_and_query = target.parse().ok();
        if let (true, Ok(uri)) = (parts.path_and_query.is_some(), Uri::from_parts(parts)) {
            head.set_uri(uri);
        }
        if tell {
            let _ = head.insert_header("X-Forwarded-Prefix", self.header.clone());
        }
    }
}
