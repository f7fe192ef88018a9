//! Places that requests take, and those who wait for one.
//!
//! A key is there only while a request with it is: what is remembered is bounded by what is under way. A place that
//! becomes free goes straight to who waits the longest, so that nobody overtakes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::facts::{Place, Taker};

const SHARDS: usize = 64;

/// The places of all keys.
pub(super) struct Places {
    max: u32,
    /// How many may wait for a place of a key.
    queue: usize,
    shards: Box<[Mutex<Shard>]>,
}

type Shard = HashMap<u64, Entry, foldhash::fast::FixedState>;

#[derive(Default)]
struct Entry {
    taken: u32,
    /// The first waits the longest; in the order of their tickets.
    waiting: VecDeque<Waiting>,
    next_ticket: u64,
}

struct Waiting {
    ticket: u64,
    place: oneshot::Sender<Place>,
}

/// What who comes gets.
pub(super) enum Taken {
    /// A place.
    Place(Place),
    /// A place when it is their turn.
    Turn(Turn),
    /// Nothing: places and queue are full.
    Nothing,
}

/// Somebody's turn to come. Who drops it leaves the queue.
pub(super) struct Turn {
    places: Arc<Places>,
    key: u64,
    ticket: u64,
    place: oneshot::Receiver<Place>,
}

impl Places {
    pub(super) fn new(max: u32, queue: u32) -> Self {
        Self { max, queue: queue as usize, shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn take(self: &Arc<Self>, key: u64) -> Taken {
        let mut shard = self.shard(key).lock();
        let entry = shard.entry(key).or_default();
        if entry.taken < self.max {
            entry.taken += 1;
            return Taken::Place(Place::new(self.clone(), key));
        }
        if entry.waiting.len() >= self.queue {
            return Taken::Nothing;
        }
        let (sender, receiver) = oneshot::channel();
        let ticket = entry.next_ticket;
        entry.next_ticket += 1;
        entry.waiting.push_back(Waiting { ticket, place: sender });
        Taken::Turn(Turn { places: self.clone(), key, ticket, place: receiver })
    }

    fn shard(&self, key: u64) -> &Mutex<Shard> {
        &self.shards[(key >> 58) as usize % SHARDS]
    }

    /// Frees a place, or gives who takes it over.
    fn free(&self, key: u64) -> Option<oneshot::Sender<Place>> {
        let mut shard = self.shard(key).lock();
        let entry = shard.get_mut(&key)?;
        while let Some(waiting) = entry.waiting.pop_front() {
            if !waiting.place.is_closed() {
                return Some(waiting.place);
            }
        }
        entry.taken -= 1;
        if entry.taken == 0 {
            shard.remove(&key);
        }
        None
    }

    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }
}

impl Taker for Places {
    fn give_back(self: Arc<Self>, key: u64) {
        if let Some(next) = self.free(key) {
            // Who has just left drops the place, which comes back here.
            let _ = next.send(Place::new(self, key));
        }
    }
}

impl Turn {
    /// Waits for it.
    pub(super) async fn comes(mut self) -> Option<Place> {
        (&mut self.place).await.ok()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut shard = self.places.shard(self.key).lock();
        if let Some(entry) = shard.get_mut(&self.key)
            && let Ok(at) = entry.waiting.binary_search_by_key(&self.ticket, |waiting| waiting.ticket)
        {
            entry.waiting.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(taken: Taken) -> Place {
        let Taken::Place(place) = taken else { panic!("no place") };
        place
    }

    fn turn(taken: Taken) -> Turn {
        let Taken::Turn(turn) = taken else { panic!("no turn") };
        turn
    }

    #[test]
    fn a_place_is_free_again_when_it_is_dropped() {
        let places = Arc::new(Places::new(2, 0));
        let (first, second) = (place(places.take(7)), place(places.take(7)));
        assert!(matches!(places.take(7), Taken::Nothing));
        drop(place(places.take(8)));
        drop(first);
        let third = place(places.take(7));
        drop((second, third));
        assert_eq!(places.keys(), 0, "what nobody uses is not remembered");
    }

    #[tokio::test]
    async fn places_go_to_who_waits_the_longest() {
        let places = Arc::new(Places::new(1, 3));
        let held = place(places.take(7));
        let (first, second, third) = (turn(places.take(7)), turn(places.take(7)), turn(places.take(7)));
        assert!(matches!(places.take(7), Taken::Nothing));
        drop(second);
        let fourth = turn(places.take(7));
        drop(held);
        assert!(!matches!(places.take(7), Taken::Place(_)), "nobody overtakes");
        let held = first.comes().await.unwrap();
        // A place may come just when its taker leaves.
        drop(held);
        drop(third);
        let held = fourth.comes().await.unwrap();
        drop(held);
        assert_eq!(places.keys(), 0);
    }

    #[test]
    fn many_come_and_go() {
        let places = Arc::new(Places::new(3, 2));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    for i in 0..2000 {
                        match places.take(7) {
                            Taken::Turn(turn) if i % 3 == 0 => drop(turn),
                            Taken::Turn(turn) => drop(runtime.block_on(turn.comes())),
                            _ => {}
                        }
                    }
                });
            }
        });
        assert_eq!(places.keys(), 0);
    }
}
