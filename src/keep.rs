//! What outlives a reload because its part of the configuration did not change: pools with their connections and
//! their health, TLS settings with their tickets, certificates that are obtained.
//!
//! What has state is made by `Build::keep`, which gives the thing of the configuration before where that was made of the
//! same.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The things of one configuration, by type and name.
#[derive(Default)]
pub struct Keep(HashMap<(TypeId, Box<str>), Kept>);

#[derive(Clone)]
struct Kept {
    made_of: Fingerprint,
    thing: Arc<dyn Any + Send + Sync>,
}

/// A part of the configuration with the contents of the files that it names: equal ones make equal things.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// In short.
    pub fn short(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// Adds a piece, of a kind that tells it from pieces of other types.
    pub fn add(&mut self, kind: u8, piece: &[u8]) {
        self.0.push(kind);
        self.0.extend_from_slice(&piece.len().to_le_bytes());
        self.0.extend_from_slice(piece);
    }
}

impl Keep {
    /// The thing of a name, if it was made of this.
    pub fn find<T: Any + Send + Sync>(&self, name: &str, made_of: &Fingerprint) -> Option<Arc<T>> {
        let kept = self.0.get(&(TypeId::of::<T>(), name.into()))?;
        kept.thing.clone().downcast().ok().filter(|_| kept.made_of == *made_of)
    }

    /// Keeps a thing.
    pub fn put<T: Any + Send + Sync>(&mut self, name: &str, made_of: Fingerprint, thing: Arc<T>) {
        self.0.insert((TypeId::of::<T>(), name.into()), Kept { made_of, thing });
    }

    /// Takes over what another has.
    pub fn append(&mut self, other: &mut Self) {
        self.0.extend(other.0.drain());
    }
}

/// What is not as it was before among things with names, in words: `upstream users changed`.
pub fn changes<N: Ord + Display, V: PartialEq>(
    kind: &str,
    before: &BTreeMap<N, V>,
    now: &BTreeMap<N, V>,
) -> Vec<String> {
    let new = now.iter().filter_map(|(name, thing)| match before.get(name) {
        None => Some(format!("{kind} {name} added")),
        Some(before) if before != thing => Some(format!("{kind} {name} changed")),
        Some(_) => None,
    });
    let gone = before.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{kind} {name} removed"));
    new.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thing_is_found_by_its_type_its_name_and_what_it_is_made_of() {
        let print = |text: &str| {
            let mut print = Fingerprint::default();
            print.add(b's', text.as_bytes());
            print
        };
        let mut keep = Keep::default();
        let thing = Arc::new(7_u32);
        keep.put("a", print("x"), thing.clone());
        assert!(Arc::ptr_eq(&keep.find::<u32>("a", &print("x")).unwrap(), &thing));
        assert!(keep.find::<u32>("a", &print("y")).is_none());
        assert!(keep.find::<u32>("b", &print("x")).is_none());
        assert!(keep.find::<u64>("a", &print("x")).is_none());
    }
}
