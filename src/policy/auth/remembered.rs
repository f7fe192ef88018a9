//! Credentials that were found to be good, so that each is looked into once.
//!
//! A table of a fixed size without locks: a look-up hashes the credential once, with a seed that nobody outside knows,
//! and compares it whole. What does not find a free place takes that of another, which is then looked into again.

use std::hash::BuildHasher;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use foldhash::fast::RandomState;

use crate::facts::Consumer;

/// Places of the table, two for each value of the hash.
const PLACES: usize = 4096;
/// Longer credentials are looked into every time.
const LONGEST: usize = 4096;

pub(super) struct Remembered<T = Consumer> {
    hasher: RandomState,
    places: Box<[ArcSwapOption<Entry<T>>]>,
}

struct Entry<T> {
    credential: Box<[u8]>,
    /// Of the keys that it was checked with.
    generation: u64,
    /// Seconds since 1970: from then on it is not good any more.
    until: u64,
    found: Arc<T>,
}

impl<T> Remembered<T> {
    /// What was found of a credential, if it was checked with these keys and that still holds.
    pub(super) fn find(&self, credential: &[u8], generation: u64, now: u64) -> Option<Arc<T>> {
        let place = self.place(credential);
        [place, place ^ 1].into_iter().find_map(|place| {
            let entry = self.places[place].load();
            let entry = entry.as_ref().filter(|entry| *entry.credential == *credential)?;
            entry.is_good(generation, now).then(|| entry.found.clone())
        })
    }

    /// Remembers what was found of one, which holds `until` then.
    pub(super) fn put(&self, credential: &[u8], generation: u64, now: u64, until: u64, found: &Arc<T>) {
        if credential.len() > LONGEST {
            return;
        }
        let place = self.place(credential);
        let free = |place: &usize| {
            let entry = self.places[*place].load();
            entry.as_ref().is_none_or(|entry| *entry.credential == *credential || !entry.is_good(generation, now))
        };
        let place = [place, place ^ 1].into_iter().find(free).unwrap_or(place);
        let entry = Entry { credential: credential.into(), generation, until, found: found.clone() };
        self.places[place].store(Some(Arc::new(entry)));
    }

    fn place(&self, credential: &[u8]) -> usize {
        self.hasher.hash_one(credential) as usize % PLACES
    }
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { hasher: RandomState::default(), places: (0..PLACES).map(|_| ArcSwapOption::empty()).collect() }
    }
}

impl<T> Entry<T> {
    fn is_good(&self, generation: u64, now: u64) -> bool {
        self.generation == generation && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_remembered_until_it_or_its_key_is_gone() {
        let table = Remembered::<Consumer>::default();
        let alice = Arc::new(Consumer { name: "alice".into(), ..Consumer::default() });
        table.put(b"token", 1, 10, 20, &alice);
        assert!(table.find(b"token", 1, 19).is_some_and(|found| Arc::ptr_eq(&found, &alice)));
        assert!(table.find(b"token", 1, 20).is_none());
        assert!(table.find(b"token", 2, 15).is_none());
        assert!(table.find(b"tokem", 1, 15).is_none());
        table.put(&[b'x'; LONGEST + 1], 1, 10, 20, &alice);
        assert!(table.find(&[b'x'; LONGEST + 1], 1, 15).is_none());
    }

    #[test]
    fn memory_is_bounded() {
        let table = Remembered::<Consumer>::default();
        let alice = Arc::new(Consumer::default());
        for i in 0..3 * PLACES as u64 {
            table.put(&i.to_le_bytes(), 1, 0, 1, &alice);
            assert!(table.find(&i.to_le_bytes(), 1, 0).is_some());
        }
        assert!(Arc::strong_count(&alice) <= PLACES + 1);
    }
}
