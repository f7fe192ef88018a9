//! What becomes of the body of an answer on its way to the client.
//!
//! A [`Shaper`] is one step of that: the policies of a route give those that an answer goes through. An answer that is small
//! enough is held whole, so that what goes wrong is told instead of an answer that ends in the middle, and the length of
//! what comes out is known. A larger one goes through as it comes, where all steps can do that.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName,
    HeaderValue, VARY,
};
use pingora_http::ResponseHeader;

use super::Malformed;
use super::coding::{Decoder, Failed, codings};
use crate::reply::Reply;

/// One step in the shaping of an answer's body.
pub trait Shaper: Send {
    /// Bytes that are to be at hand before any of it goes on; `None` where all must be, as it is unless it says something
    /// else.
    fn needs(&self) -> Option<usize> {
        None
    }

    /// Whether it reads what the answer says, and so needs it without its content coding.
    fn reads(&self) -> bool {
        true
    }

    /// Whether an answer that cannot be read goes on as it came, instead of being refused.
    fn lets_pass(&self) -> bool {
        false
    }

    /// Whether it makes a body where there is none.
    fn fills(&self) -> bool {
        false
    }

    /// Changes the head to that of what it makes.
    fn head(&mut self, head: &mut ResponseHeader);

    /// The body is whole, with these trailers: changes the head and gives what is sent. What it lets pass it gives back
    /// with the head as it was.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    fn whole(&mut self, head: &mut ResponseHeader, body: Bytes, trailers: Option<&HeaderMap>) -> Result<Bytes, Reply>;

    /// Takes a part of a body whose head went on already, and appends what can go on.
    ///
    /// # Errors
    /// The answer ends here.
    fn push(&mut self, _part: &[u8], _out: &mut Vec<u8>) -> Result<(), Malformed> {
        Err(Malformed::new(0, "it has to be whole"))
    }

    /// No more of the body is at hand for now: appends what it held back, if that is of use.
    ///
    /// # Errors
    /// The answer ends here.
    fn flush(&mut self, _out: &mut Vec<u8>) -> Result<(), Malformed> {
        Ok(())
    }

    /// There is no more: appends what is left.
    ///
    /// # Errors
    /// It ended too early.
    fn end(&mut self, _trailers: Option<&HeaderMap>, _out: &mut Vec<u8>) -> Result<(), Malformed> {
        Err(Malformed::new(0, "it has to be whole"))
    }
}

/// All steps that an answer goes through.
#[derive(Default)]
pub struct Shaping {
    steps: Vec<Box<dyn Shaper>>,
    /// Bytes of an answer that are held at most.
    most: u64,
    decoder: Option<Decoder>,
    /// What comes out depends on what content codings the client can read.
    varies: bool,
}

/// Fields that say something of the very bytes of a body.
const OF_BYTES: [HeaderName; 6] = [
    ACCEPT_RANGES,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
];
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// The bytes of a body are others than the head was made for: what it says of them no longer holds, and that two of them
/// are the same byte by byte nobody knows (RFC 9110, section 8.8.1).
pub fn reshaped(head: &mut ResponseHeader) {
    OF_BYTES.iter().chain([&REPR_DIGEST]).for_each(|name| drop(head.remove_header(name)));
    let Some(tag) = head.headers.get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/")) else { return };
    let weak = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat());
    drop(weak.map(|weak| head.insert_header(ETAG, weak)));
}

/// The answer depends on what content codings the client can read.
pub fn varies(head: &mut ResponseHeader) {
    let name = ACCEPT_ENCODING.as_str().as_bytes();
    let mut said = head.headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    if !said.any(|said| matches!(said.trim_ascii(), said if said == b"*" || said.eq_ignore_ascii_case(name))) {
        let _ = head.append_header(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

impl Shaping {
    /// No steps yet; an answer may have so many bytes to be held.
    pub fn new(most: u64) -> Self {
        Self { most, ..Self::default() }
    }

    /// Adds a step after those before.
    pub fn add(&mut self, step: Box<dyn Shaper>) {
        self.steps.push(step);
    }

    /// What comes out depends on what content codings the client can read.
    pub fn varies(&mut self) {
        self.varies = true;
    }

    /// Whether an answer goes on as it is.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether a body is made where there is none.
    pub fn fills(&self) -> bool {
        self.steps.iter().any(|step| step.fills())
    }

    /// Bytes that are held at most.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// Bytes that are to be at hand before any of it goes on; `None` where all must be.
    pub fn needs(&self) -> Option<usize> {
        self.steps.iter().map(|step| step.needs()).try_fold(0, |most, needs| Some(most.max(needs?)))
    }

    /// Changes the head to that of what is made, where there is no body or it goes on as it comes.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    pub fn head(&mut self, head: &mut ResponseHeader) -> Result<(), Reply> {
        if self.reads()
            && let Some(codings) = codings(&head.headers)
        {
            match Decoder::of(codings.as_bytes(), self.most) {
                Some(decoder) => {
                    self.decoder = decoder;
                    decoded(head);
                }
                None if self.lets_pass() => self.without_readers(head),
                None => return Err(refusal("its content coding is not known here")),
            }
        }
        self.steps.iter_mut().for_each(|step| step.head(head));
        if self.varies {
            varies(head);
        }
        Ok(())
    }

    /// The body is whole: changes the head and gives what is sent. `None` where its content coding stands for more than is
    /// held, and it can go on in parts instead.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    pub fn whole(
        &mut self,
        head: &mut ResponseHeader,
        body: &Bytes,
        trailers: Option<&HeaderMap>,
    ) -> Result<Option<Bytes>, Reply> {
        let mut body = body.clone();
        if self.reads()
            && let Some(codings) = codings(&head.headers)
        {
            match Decoder::of(codings.as_bytes(), self.most).map(|decoder| decoder.map(|d| d.whole(&body))) {
                Some(None) => {}
                Some(Some(Ok(content))) => {
                    body = content;
                    decoded(head);
                }
                Some(Some(Err(Failed::TooLarge))) if self.needs().is_some() => return Ok(None),
                _ if self.lets_pass() => self.without_readers(head),
                None => return Err(refusal("its content coding is not known here")),
                Some(Some(Err(Failed::Malformed))) => return Err(refusal("its content coding is broken")),
                Some(Some(Err(Failed::TooLarge))) => return Err(self.too_large()),
            }
        }
        let body = self.steps.iter_mut().try_fold(body, |body, step| step.whole(head, body, trailers))?;
        if self.varies {
            varies(head);
        }
        Ok(Some(body))
    }

    /// The body is larger than what is held: only steps that do not read it are left, if it may pass.
    ///
    /// # Errors
    /// The answer that the client gets instead.
    pub fn outgrown(&mut self, head: &ResponseHeader) -> Result<(), Reply> {
        if !self.lets_pass() {
            return Err(self.too_large());
        }
        self.without_readers(head);
        Ok(())
    }

    /// It passes unread: what comes after the steps that would have read it has it as it came. What has a coding already
    /// gets no other.
    fn without_readers(&mut self, head: &ResponseHeader) {
        self.steps.retain(|step| step.needs().is_some() && !step.reads());
        if head.headers.contains_key(CONTENT_ENCODING) {
            self.varies |= !self.steps.is_empty();
            self.steps.clear();
        }
    }

    /// Bytes that are taken at once: few of a content coding may stand for much.
    pub fn at_once(&self) -> usize {
        if self.decoder.is_some() { 4 << 10 } else { usize::MAX }
    }

    /// Takes a part of a body whose head went on, and appends what can go on.
    ///
    /// # Errors
    /// The answer ends here.
    pub fn push(&mut self, part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        match &mut self.decoder {
            None => through(&mut self.steps, part, out),
            Some(decoder) => through(&mut self.steps, &decoder.push(part).map_err(broken)?, out),
        }
    }

    /// No more is at hand for now.
    ///
    /// # Errors
    /// The answer ends here.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        for i in 0..self.steps.len() {
            let mut held = Vec::new();
            self.steps[i].flush(&mut held)?;
            if !held.is_empty() {
                through(&mut self.steps[i + 1..], &held, out)?;
            }
        }
        Ok(())
    }

    /// There is no more.
    ///
    /// # Errors
    /// It ended too early.
    pub fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if let Some(decoder) = &mut self.decoder {
            let left = decoder.end().map_err(broken)?;
            through(&mut self.steps, &left, out)?;
        }
        for i in 0..self.steps.len() {
            let mut left = Vec::new();
            self.steps[i].end(trailers, &mut left)?;
            through(&mut self.steps[i + 1..], &left, out)?;
        }
        Ok(())
    }

    /// Whether a step reads what the answer says.
    fn reads(&self) -> bool {
        self.steps.iter().any(|step| step.reads())
    }

    fn lets_pass(&self) -> bool {
        self.steps.iter().filter(|step| step.reads()).all(|step| step.lets_pass())
    }

    fn too_large(&self) -> Reply {
        refusal(format!("it has more than {} bytes", self.most))
    }
}

/// Takes a part through steps.
fn through(steps: &mut [Box<dyn Shaper>], part: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match steps {
        [] => out.extend_from_slice(part),
        [step] => step.push(part, out)?,
        [step, rest @ ..] => {
            let mut between = Vec::new();
            step.push(part, &mut between)?;
            through(rest, &between, out)?;
        }
    }
    Ok(())
}

fn broken(failed: Failed) -> Malformed {
    Malformed::new(
        0,
        match failed {
            Failed::Malformed => "the content coding is broken",
            Failed::TooLarge => "the content coding stands for too much",
        },
    )
}

/// The content coding is undone.
fn decoded(head: &mut ResponseHeader) {
    reshaped(head);
    head.remove_header(&CONTENT_ENCODING);
    let vary = head.headers.get_all(VARY).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let rest: Vec<&[u8]> = vary
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(ACCEPT_ENCODING.as_str().as_bytes()))
        .collect();
    let rest = HeaderValue::from_bytes(&rest.join(&b", "[..]));
    head.remove_header(&VARY);
    if let Ok(rest) = rest
        && !rest.is_empty()
    {
        let _ = head.insert_header(VARY, rest);
    }
}

/// The answer in the place of one that cannot be shaped.
pub fn refusal(why: impl Into<std::borrow::Cow<'static, str>>) -> Reply {
    Reply::bad_answer("the upstream's answer is not one that can be passed on").because(why)
}
