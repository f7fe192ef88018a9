//! The body of a request that is held whole, on its way to the upstream.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::{
    CONTENT_ENCODING, CONTENT_TYPE, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderName, HeaderValue, Method};
use pingora_http::RequestHeader;

use super::tokens::Json;
use super::{Malformed, coding, is_json};
use crate::reply::Reply;

/// A body that is held whole. Who only reads it leaves it as it came, coding and all.
pub struct Held {
    raw: Bytes,
    most: u64,
    /// Without its content coding, once somebody has asked for it.
    content: Option<Bytes>,
    codings: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
    method: Option<Method>,
    target: Option<PathAndQuery>,
    changed: bool,
}

/// What the upstream is told of a body that is not the client's.
#[derive(Debug, Clone, Default)]
pub struct Sends {
    /// What it is.
    pub content_type: Option<HeaderValue>,
    /// The method, where it is not the client's.
    pub method: Option<Method>,
    /// The path with its query, where it is not the client's. Policies may change it further.
    pub target: Option<PathAndQuery>,
}

impl Sends {
    /// Changes the head of a request to that of what is sent.
    pub fn tell(&self, head: &mut RequestHeader) {
        [CONTENT_ENCODING, HeaderName::from_static("content-md5")]
            .iter()
            .for_each(|name| drop(head.remove_header(name)));
        ["content-digest", "digest", "repr-digest"].iter().for_each(|name| drop(head.remove_header(*name)));
        match &self.content_type {
            Some(content_type) => drop(head.insert_header(CONTENT_TYPE, content_type.clone())),
            None => drop(head.remove_header(&CONTENT_TYPE)),
        }
        if let Some(method) = &self.method {
            head.set_method(method.clone());
            // They are about what the client asks for.
            [IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE]
                .iter()
                .for_each(|name| drop(head.remove_header(name)));
        }
        if let Some(target) = &self.target {
            let mut parts = head.uri.clone().into_parts();
            parts.path_and_query = Some(target.clone());
            if let Ok(uri) = Uri::from_parts(parts) {
                head.set_uri(uri);
            }
        }
    }
}

impl Held {
    /// What came with this request: at most so many bytes, also when its content coding is undone.
    ///
    /// # Errors
    /// The answer, where it is said to be several things: what is looked at here may be another than what the upstream
    /// takes it for.
    pub fn new(raw: Bytes, request: &RequestHeader, most: u64) -> Result<Self, Reply> {
        if request.headers.get_all(CONTENT_TYPE).iter().nth(1).is_some() {
            return Err(Reply::bad_request("the request has more than one Content-Type"));
        }
        Ok(Self {
            raw,
            most,
            content: None,
            codings: coding::codings(&request.headers),
            content_type: request.headers.get(CONTENT_TYPE).cloned(),
            method: None,
            target: None,
            changed: false,
        })
    }

    /// What it is said to be.
    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.content_type.as_ref()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Its content, without content coding.
    ///
    /// # Errors
    /// The answer, where the coding is not known or is broken, or the content is larger than allowed.
    pub fn content(&mut self) -> Result<Bytes, Reply> {
        if let Some(content) = &self.content {
            return Ok(content.clone());
        }
        let content = match &self.codings {
            None => self.raw.clone(),
            Some(codings) => {
                let decoder = coding::Decoder::of(codings.as_bytes(), self.most)
                    .ok_or_else(|| Reply::unsupported_media_type("the content coding of the body is not known here"))?;
                let decoded = decoder.map_or_else(|| Ok(self.raw.clone()), |decoder| decoder.whole(&self.raw));
                decoded.map_err(|error| match error {
                    coding::Failed::TooLarge => {
                        Reply::body_too_large(format!("the body has more than {} bytes", self.most)).closing()
                    }
                    coding::Failed::Malformed => Reply::bad_request("the content coding of the body is broken"),
                })?
            }
        };
        self.content = Some(content.clone());
        Ok(content)
    }

    /// Its content, which is to be JSON; `null` where there is none.
    ///
    /// # Errors
    /// The answer, where it is something else, or as [`content`](Self::content).
    pub fn json(&mut self) -> Result<Bytes, Reply> {
        if self.content()?.is_empty() {
            return Ok(Bytes::from_static(b"null"));
        }
        if !self.content_type.as_ref().is_some_and(|media| is_json(media.as_bytes())) {
            return Err(Reply::unsupported_media_type("the body is to be application/json"));
        }
        let content = self.content()?;
        Json::read(&content)?;
        Ok(content)
    }

    /// Puts another body in its place; `None` leaves what it is said to be.
    pub fn replace(&mut self, content: Bytes, content_type: Option<HeaderValue>) {
        self.content = Some(content);
        self.codings = None;
        self.changed = true;
        if content_type.is_some() {
            self.content_type = content_type;
        }
    }

    /// Puts another body in its place, which goes elsewhere or is of another kind.
    pub fn becomes(&mut self, content: Bytes, sends: Sends) {
        self.content_type = None;
        self.replace(content, sends.content_type);
        self.method = sends.method;
        self.target = sends.target;
    }

    /// What is sent, and what the upstream is told of it where it is not what came.
    pub fn into_sent(self) -> (Bytes, Option<Box<Sends>>) {
        match (self.changed, self.content) {
            (true, Some(content)) => {
                let Self { content_type, method, target, .. } = self;
                (content, Some(Box::new(Sends { content_type, method, target })))
            }
            _ => (self.raw, None),
        }
    }
}

/// The room that a body takes among all that are held, given back when it is dropped.
#[derive(Debug, Default)]
pub struct Room(u64);

/// Bytes of bodies that the process holds at most, whoever sends them.
const ALL: u64 = 512 << 20;
/// Bytes of bodies that it holds.
static TAKEN: AtomicU64 = AtomicU64::new(0);

impl Room {
    /// Takes room for `bytes` in all, or gives back what is more; gives whether there is so much.
    pub fn fit(&mut self, bytes: u64) -> bool {
        let less = self.0.saturating_sub(bytes);
        TAKEN.fetch_sub(less, Ordering::Relaxed);
        self.0 -= less;
        self.grow(bytes)
    }

    /// Takes room for `bytes` in all; gives whether there is so much.
    pub fn grow(&mut self, bytes: u64) -> bool {
        let more = bytes.saturating_sub(self.0);
        let there = TAKEN.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= ALL;
        if there {
            self.0 += more;
        } else {
            TAKEN.fetch_sub(more, Ordering::Relaxed);
        }
        there
    }
}

/// What is said where there is none.
pub const NO_ROOM: &str = "there is no room for another body";

/// The answer where there is none.
pub fn no_room() -> Reply {
    Reply::busy(NO_ROOM).retry_after(1).closing()
}

impl Drop for Room {
    fn drop(&mut self) {
        TAKEN.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// The answer to a body that cannot be read.
impl From<Malformed> for Reply {
    fn from(malformed: Malformed) -> Self {
        Self::bad_request(format!("the body cannot be read: {malformed}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_for_bodies_has_an_end() {
        let (mut first, mut second) = (Room::default(), Room::default());
        assert!(first.grow(ALL / 4) && first.grow(ALL / 2) && first.grow(1));
        assert!(!second.grow(ALL));
        assert!(first.fit(ALL / 8) && second.fit(ALL / 2) && !first.fit(ALL) && first.fit(ALL / 4));
        drop(first);
        assert!(second.grow(ALL / 2));
    }
}
