//! A fetch that is under way: one asks the upstream, and all who want the answer read it as it comes.
//!
//! As long as the answer may be stored, all of it is kept, and whoever comes late begins at its beginning. One that may
//! not be, or that grows too large, is passed on to those who read it already, no faster than the slowest of them reads:
//! only a window of it is held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use parking_lot::Mutex;
use pingora_http::ResponseHeader;
use tokio::sync::Notify;

use super::freshness::Life;
use super::key::Resource;
use super::store::Stored;
use crate::facts::Facts;
use crate::reply::Reply;

/// How much of what is only passed on may wait for its readers, in bytes.
const WINDOW: usize = 256 << 10;

/// A fetch that is under way.
pub struct Fill {
    /// What is fetched.
    pub resource: Resource,
    /// The fields of the request that it is for.
    pub asked: HeaderMap,
    /// Where others find it, if they do.
    pub slot: Option<Arc<[u8]>>,
    outdated: AtomicBool,
    underway: Arc<Underway>,
    /// Bytes of the body that count as under way: as long as anybody reads it from here.
    taken: AtomicU64,
    /// What was found out on the way, for the log of whoever asked.
    report: Mutex<Option<Box<Facts>>>,
    state: Mutex<State>,
    /// Something came, or it ended.
    came: Notify,
    /// Someone read, or left.
    read: Notify,
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    /// Those parts of the body that are still needed.
    parts: VecDeque<Bytes>,
    /// How many parts are not needed any more.
    dropped: usize,
    /// Bytes in `parts`.
    held: usize,
    /// Only who reads it already may read it.
    closed: bool,
    end: Option<End>,
    /// The next part that each reader takes, by its number.
    readers: Vec<Option<usize>>,
}

/// What became of the upstream's answer.
#[derive(Clone)]
pub enum Outcome {
    /// It has this head; the body follows.
    Answer(Arc<Answer>),
    /// What is stored still holds: this is it, with what the upstream said anew.
    Valid(Arc<Stored>),
    /// There is none, and the client is told this.
    Failed(Arc<Reply>),
    /// The fetch was lost with its worker: whoever waits may ask anew.
    Lost,
}

/// The head of an answer that is fetched.
pub struct Answer {
    /// As the upstream gave it.
    pub head: ResponseHeader,
    /// For others than who asked: without the fields that are not for them.
    pub shared: Option<ResponseHeader>,
    /// How long its body is, where that is known.
    pub length: Option<u64>,
    /// Why it is not stored.
    pub reason: Option<&'static str>,
    /// How long it may be used, where it is stored.
    pub life: Option<Life>,
}

/// How the body ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With its last byte.
    Whole,
    /// Before that.
    Broken,
}

/// Nobody reads any more what is only passed on.
#[derive(Debug, PartialEq, Eq)]
pub struct Unwanted;

impl Fill {
    /// One that has begun.
    pub fn new(resource: Resource, asked: HeaderMap, slot: Option<Arc<[u8]>>, underway: Arc<Underway>) -> Self {
        Self {
            resource,
            asked,
            slot,
            outdated: AtomicBool::new(false),
            underway,
            taken: AtomicU64::new(0),
            report: Mutex::default(),
            state: Mutex::default(),
            came: Notify::new(),
            read: Notify::new(),
        }
    }

    /// The resource was changed or purged: what is fetched here is not stored.
    pub fn outdate(&self) {
        self.outdated.store(true, Ordering::SeqCst);
    }

    /// Whether it was.
    pub fn is_outdated(&self) -> bool {
        self.outdated.load(Ordering::SeqCst)
    }

    /// Counts a part of the body that is kept, if it may have `most` bytes in all and there is room for it beside all else
    /// that is under way.
    pub fn take(&self, length: u64, most: u64) -> bool {
        let taken = self.taken.load(Ordering::Relaxed) + length <= most && self.underway.take(length);
        if taken {
            self.taken.fetch_add(length, Ordering::Relaxed);
        }
        taken
    }

    /// How many bytes of it count.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Leaves what was found out on the way.
    pub fn report(&self, facts: Box<Facts>) {
        *self.report.lock() = Some(facts);
    }

    /// Takes what was found out on the way.
    pub fn take_report(&self) -> Option<Box<Facts>> {
        self.report.lock().take()
    }

    /// What became of the answer, once that is known.
    pub async fn outcome(&self) -> Outcome {
        loop {
            let came = self.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if let Some(outcome) = &self.state.lock().outcome {
                return outcome.clone();
            }
            came.await;
        }
    }

    /// Reads the body from its beginning; `None` when that is no longer there for those who come now.
    pub fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        if state.closed {
            return None;
        }
        state.readers.push(Some(0));
        Some(Reader { fill: self.clone(), number: state.readers.len() - 1 })
    }

    /// Nobody else reads it from its beginning.
    pub fn close(&self) {
        self.state.lock().closed = true;
    }

    /// Makes known what became of the answer.
    pub fn decide(&self, outcome: Outcome) {
        let mut state = self.state.lock();
        if state.outcome.is_none() {
            state.outcome = Some(outcome);
        }
        drop(state);
        self.came.notify_waiters();
    }

    /// Whether it is known.
    pub fn is_decided(&self) -> bool {
        self.state.lock().outcome.is_some()
    }

    /// Passes a part of the body on; waits where it is only passed on and its readers are behind.
    ///
    /// # Errors
    /// Nobody reads it any more.
    pub async fn push(&self, part: Bytes) -> Result<(), Unwanted> {
        {
            let mut state = self.state.lock();
            state.held += part.len();
            state.parts.push_back(part);
        }
        self.came.notify_waiters();
        loop {
            let read = self.read.notified();
            tokio::pin!(read);
            read.as_mut().enable();
            {
                let mut state = self.state.lock();
                if !state.closed {
                    return Ok(());
                }
                if !state.trim() {
                    return Err(Unwanted);
                }
                if state.held <= WINDOW {
                    return Ok(());
                }
            }
            read.await;
        }
    }

    /// Ends the body.
    pub fn end(&self, end: End) {
        self.state.lock().end.get_or_insert(end);
        self.came.notify_waiters();
    }

    /// All of the body that came, unless some of it was let go of.
    pub fn whole(&self) -> Option<Bytes> {
        let state = self.state.lock();
        if state.closed {
            return None;
        }
        match state.parts.len() {
            1 => state.parts.front().cloned(),
            _ => {
                let mut whole = BytesMut::with_capacity(state.held);
                state.parts.iter().for_each(|part| whole.extend_from_slice(part));
                Some(whole.freeze())
            }
        }
    }

    /// Waits until nobody reads it and nobody can begin to.
    pub async fn unwanted(&self) {
        loop {
            let read = self.read.notified();
            tokio::pin!(read);
            read.as_mut().enable();
            if !self.state.lock().is_wanted() {
                return;
            }
            read.await;
        }
    }
}

impl State {
    /// Lets go of what all have read; gives whether somebody reads.
    fn trim(&mut self) -> bool {
        let Some(needed) = self.readers.iter().flatten().min().copied() else {
            self.parts.clear();
            self.held = 0;
            return false;
        };
        while self.dropped < needed {
            let Some(part) = self.parts.pop_front() else { break };
            self.held -= part.len();
            self.dropped += 1;
        }
        true
    }

    fn is_wanted(&self) -> bool {
        !self.closed || self.readers.iter().any(Option::is_some)
    }
}

/// One who reads a body that is being fetched.
pub struct Reader {
    fill: Arc<Fill>,
    number: usize,
}

impl Reader {
    /// The next part of the body; `Ok(None)` at its end.
    ///
    /// # Errors
    /// It ended before its last byte.
    pub async fn next(&mut self) -> Result<Option<Bytes>, End> {
        loop {
            let came = self.fill.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            {
                let mut state = self.fill.state.lock();
                let at = state.readers[self.number].unwrap_or_default();
                if let Some(part) = state.parts.get(at - state.dropped) {
                    let part = part.clone();
                    state.readers[self.number] = Some(at + 1);
                    drop(state);
                    self.fill.read.notify_waiters();
                    return Ok(Some(part));
                }
                match state.end {
                    Some(End::Whole) => return Ok(None),
                    Some(End::Broken) => return Err(End::Broken),
                    None => {}
                }
            }
            came.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.state.lock().readers[self.number] = None;
        self.fill.read.notify_waiters();
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.underway.give_back(*self.taken.get_mut());
    }
}

/// Bytes of answers that are being fetched and may be stored: together they have a bound.
#[derive(Debug)]
pub struct Underway {
    bytes: AtomicU64,
    most: u64,
}

impl Underway {
    /// None yet, of so many.
    pub fn new(most: u64) -> Self {
        Self { bytes: AtomicU64::new(0), most }
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.most;
        if !taken {
            self.give_back(bytes);
        }
        taken
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}
