//! What outlives a reload because its part of the configuration did not change: pools with their connections and
//! their health, TLS settings with their tickets.

use std::sync::Arc;

/// A thing, and what it was made of.
#[derive(Clone)]
pub struct Kept<T> {
    made_of: Fingerprint,
    /// The thing.
    pub thing: Arc<T>,
}

/// A part of the configuration with the contents of the files that it names: equal ones make equal things.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// Adds a piece, of a kind that tells it from pieces of other types.
    pub fn add(&mut self, kind: u8, piece: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(&piece.len().to_le_bytes());
        self.0.extend_from_slice(piece);
    }
}

impl<T> Kept<T> {
    /// The previous thing, if it is made of the same; else a new one.
    pub fn or_make(previous: Option<&Self>, made_of: Fingerprint, make: impl FnOnce() -> Option<T>) -> Option<Self> {
        match previous.filter(|previous| previous.made_of == made_of) {
            Some(previous) => Some(Self { made_of, thing: previous.thing.clone() }),
            None => Some(Self { made_of, thing: Arc::new(make()?) }),
        }
    }

    /// Whether both are the same thing.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.thing, &other.thing)
    }
}
