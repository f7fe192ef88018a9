//! The body of a request that is held whole, on its way to the upstream.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderName, HeaderValue};
use pingora_http::RequestHeader;

use super::{Malformed, coding};
use crate::reply::Reply;

/// A body that is held whole. Who only reads it leaves it as it came, coding and all.
pub struct Held {
    raw: Bytes,
    most: u64,
    /// Without its content coding, once somebody has asked for it.
    content: Option<Bytes>,
    coding: Option<HeaderValue>,
    content_type: Option<HeaderValue>,
    changed: bool,
}

/// What the upstream is told of a body that is not the client's.
#[derive(Debug, Clone)]
pub struct Sends {
    /// What it is.
    pub content_type: Option<HeaderValue>,
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
    }
}

impl Held {
    /// What came with this request: at most so many bytes, also when its content coding is undone.
    pub fn new(raw: Bytes, request: &RequestHeader, most: u64) -> Self {
        Self {
            raw,
            most,
            content: None,
            coding: request.headers.get(CONTENT_ENCODING).cloned(),
            content_type: request.headers.get(CONTENT_TYPE).cloned(),
            changed: false,
        }
    }

    /// What it is said to be.
    pub fn content_type(&self) -> Option<&HeaderValue> {
        self.content_type.as_ref()
    }

    /// Its content, without content coding.
    ///
    /// # Errors
    /// The answer, where the coding is not known or is broken, or the content is larger than allowed.
    pub fn content(&mut self) -> Result<Bytes, Reply> {
        if let Some(content) = &self.content {
            return Ok(content.clone());
        }
        let content = match &self.coding {
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

    /// Puts another body in its place; `None` leaves what it is said to be.
    pub fn replace(&mut self, content: Bytes, content_type: Option<HeaderValue>) {
        self.content = Some(content);
        self.coding = None;
        self.changed = true;
        if content_type.is_some() {
            self.content_type = content_type;
        }
    }

    /// What is sent, and what the upstream is told of it where it is not what came.
    pub fn into_sent(self) -> (Bytes, Option<Box<Sends>>) {
        match (self.changed, self.content) {
            (true, Some(content)) => (content, Some(Box::new(Sends { content_type: self.content_type }))),
            _ => (self.raw, None),
        }
    }
}

/// The answer to a body that cannot be read.
impl From<Malformed> for Reply {
    fn from(malformed: Malformed) -> Self {
        Self::bad_request(format!("the body cannot be read: {malformed}"))
    }
}
