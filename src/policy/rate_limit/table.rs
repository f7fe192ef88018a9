//! The keys of a limit, with when each is idle again: shared by all workers, bounded, without a task that cleans up.
//!
//! A key and its time are 16 bytes in one of 64 shards, each behind a lock that is held for some tens of nanoseconds. In
//! its shard a key has a place in one of two groups of eight, so that a look-up reads at most those, however many keys
//! there are. An idle key is as good as none: its place is free, without anybody having to clear it. A shard begins
//! without memory and doubles when both groups of a new key are taken, up to a bound; from then on the key of the two
//! groups that is the nearest to being idle gives way. It begins anew with a whole burst if it comes back.

use parking_lot::Mutex;

const SHARDS: usize = 64;
const GROUP: usize = 8;
/// Groups of a shard: 2 Mi keys in all, 32 MiB.
const MOST_GROUPS: usize = 4096;

/// Keys, each with the time at which it is idle.
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    most: usize,
}

#[derive(Default)]
struct Shard {
    groups: Vec<Group>,
}

/// Keys in one line of the processor's cache, their times in the next. A key whose time has come is as good as none.
#[derive(Clone, Copy, Default)]
#[repr(C, align(128))]
struct Group {
    keys: [u64; GROUP],
    until: [u64; GROUP],
}

impl Default for Table {
    fn default() -> Self {
        Self::with_groups(MOST_GROUPS)
    }
}

impl Table {
    fn with_groups(most: usize) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), most }
    }

    /// Decides on a key by when it is idle: `decide` gives its new time, if it is to have one. Nobody else decides on the
    /// key meanwhile.
    pub fn update<T>(&self, key: u64, now: u64, decide: impl FnOnce(u64) -> (Option<u64>, T)) -> T {
        // The hash is taken apart: the highest bits choose the shard, others the groups.
        let mut shard = self.shards[(key >> 58) as usize % SHARDS].lock();
        let found = shard.find(key);
        let (until, result) = decide(found.map_or(0, |(group, slot)| shard.groups[group].until[slot]));
        if let Some(until) = until {
            let at = found.unwrap_or_else(|| shard.place(key, now, self.most));
            shard.put(at, key, until);
        }
        result
    }

    /// How many keys are not idle.
    #[cfg(test)]
    fn busy(&self, now: u64) -> usize {
        let busy = |group: &Group| group.until.iter().filter(|until| **until > now).count();
        self.shards.iter().map(|shard| shard.lock().groups.iter().map(busy).sum::<usize>()).sum()
    }
}

impl Shard {
    fn put(&mut self, (group, slot): (usize, usize), key: u64, until: u64) {
        self.groups[group].keys[slot] = key;
        self.groups[group].until[slot] = until;
    }

    /// The two groups of a key. There is at least one.
    fn groups_of(&self, key: u64) -> [usize; 2] {
        // The number of groups is a power of two.
        let mask = self.groups.len() - 1;
        [key as usize & mask, (key >> 29) as usize & mask]
    }

    fn find(&self, key: u64) -> Option<(usize, usize)> {
        if self.groups.is_empty() {
            return None;
        }
        self.groups_of(key).into_iter().find_map(|group| {
            let slot = self.groups[group].keys.iter().position(|other| *other == key)?;
            Some((group, slot))
        })
    }

    /// A place for a key that has none.
    fn place(&mut self, key: u64, now: u64, most: usize) -> (usize, usize) {
        loop {
            if let Some(free) = self.free(key, now) {
                return free;
            }
            if self.groups.len() >= most {
                return self.nearest_to_idle(key);
            }
            self.grow(now);
        }
    }

    /// A free place in the emptier of the key's groups.
    fn free(&self, key: u64, now: u64) -> Option<(usize, usize)> {
        if self.groups.is_empty() {
            return None;
        }
        let free = |group: usize| self.groups[group].until.iter().filter(|until| **until <= now).count();
        let [first, second] = self.groups_of(key);
        let group = if free(second) > free(first) { second } else { first };
        self.groups[group].until.iter().position(|until| *until <= now).map(|slot| (group, slot))
    }

    fn nearest_to_idle(&self, key: u64) -> (usize, usize) {
        let slots = self.groups_of(key).into_iter().flat_map(|group| (0..GROUP).map(move |slot| (group, slot)));
        slots.min_by_key(|(group, slot)| self.groups[*group].until[*slot]).expect("a key has two groups")
    }

    /// Twice the groups, and again where a key finds no place in them, which is rare.
    fn grow(&mut self, now: u64) {
        let before = std::mem::take(&mut self.groups);
        let mut count = (before.len() * 2).max(1);
        'size: loop {
            self.groups = vec![Group::default(); count];
            let slots = before.iter().flat_map(|group| group.keys.into_iter().zip(group.until));
            for (key, until) in slots.filter(|(_, until)| *until > now) {
                let Some(free) = self.free(key, now) else {
                    count *= 2;
                    continue 'size;
                };
                self.put(free, key, until);
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spreads numbers as a hash does.
    fn key(number: u64) -> u64 {
        let mixed = (number ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb)
    }

    fn set(table: &Table, number: u64, now: u64, until: u64) {
        table.update(key(number), now, |_| (Some(until), ()));
    }

    fn idle_at(table: &Table, number: u64) -> u64 {
        table.update(key(number), 0, |until| (None, until))
    }

    #[test]
    fn every_key_is_found_again_however_many_there_are() {
        let table = Table::default();
        for number in 0..1_000_000 {
            set(&table, number, 1, number + 2);
        }
        for number in 0..1_000_000 {
            assert_eq!(idle_at(&table, number), number + 2);
        }
        assert_eq!(table.busy(1), 1_000_000);
    }

    #[test]
    fn idle_keys_cost_nothing() {
        let table = Table::with_groups(1);
        for number in 0..100_000 {
            set(&table, number, number, number + 1);
        }
        let groups: usize = table.shards.iter().map(|shard| shard.lock().groups.len()).sum();
        assert_eq!((table.busy(100_000), groups), (0, SHARDS));
    }

    #[test]
    fn a_full_table_lets_the_key_go_that_is_the_nearest_to_being_idle() {
        let table = Table::with_groups(1);
        // Each later key is idle earlier, but for the last.
        for number in 0..10_000 {
            set(&table, number, 0, 1_000_000 - number);
        }
        set(&table, 10_000, 0, 5);
        assert_eq!(table.busy(0), SHARDS * GROUP);
        assert_eq!(idle_at(&table, 10_000), 5, "who comes has a place");
        let kept = (0..400).filter(|number| idle_at(&table, *number) > 0).count();
        assert!(kept >= 350, "{kept}");
    }

    #[test]
    fn workers_share_it() {
        let table = Table::default();
        let admitted = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let more = table.update(7, 0, |used| ((used < 1500).then_some(used + 1), used < 1500));
                        admitted.fetch_add(u64::from(more), std::sync::atomic::Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1500);
    }
}
