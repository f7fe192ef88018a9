//! Which of the usable servers takes a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Tried;
use super::backend::{Backend, Health};
use super::config::BalanceConfig;
use super::hash::mix;

/// The servers of a pool at one time, with what choosing among them needs.
pub(super) struct Set {
    pub backends: Vec<Arc<Backend>>,
    /// The smooth weighted order of round robin, by position.
    schedule: Vec<u16>,
    cursor: AtomicUsize,
}

/// A schedule longer than this would cost more than its smoothness is worth.
const LONGEST_SCHEDULE: usize = 4096;

impl Set {
    pub fn new(backends: Vec<Arc<Backend>>) -> Self {
        let weights: Vec<u16> = backends.iter().map(|backend| backend.weight).collect();
        Self { schedule: smooth(&weights), backends, cursor: AtomicUsize::new(0) }
    }

    /// A usable server that is not in `tried`, by the pool's algorithm; one in `tried` only where no other is
    /// usable. A server whose health is unknown counts only while none is known to be healthy, and one that is ejected
    /// only while no other is usable at all.
    pub fn choose(&self, balance: &BalanceConfig, key: Option<u64>, tried: &Tried) -> Option<Arc<Backend>> {
        for (ejected, allow_tried) in [(false, false), (false, true), (true, false), (true, true)] {
            for health in [Health::Healthy, Health::Unknown] {
                let usable = |backend: &Backend| {
                    backend.health() == health
                        && !backend.is_draining()
                        && backend.record().is_ejected() == ejected
                        && (allow_tried || !tried.ids.contains(&backend.id))
                };
                if let Some(position) = self.position(balance, key, tried.any, usable) {
                    return Some(self.backends[position].clone());
                }
            }
        }
        None
    }

    fn position(
        &self,
        balance: &BalanceConfig,
        key: Option<u64>,
        retry: bool,
        usable: impl Fn(&Backend) -> bool,
    ) -> Option<usize> {
        if !self.backends.iter().any(|backend| usable(backend)) {
            return None;
        }
        let warm = self.warm(&usable);
        let weight = |backend: &Backend| f64::from(backend.weight) * warm.part(backend);
        if let (BalanceConfig::Hash(_), Some(key)) = (balance, key) {
            return self.rendezvous(key, usable, weight);
        }
        match balance {
            // A retry is nobody's turn: if it took one, a dead server could be the first of every request.
            BalanceConfig::RoundRobin | BalanceConfig::Hash(_) if retry => self.random(usable, weight),
            // Who is not warm passes some of its turns over.
            BalanceConfig::RoundRobin | BalanceConfig::Hash(_) => {
                self.next(|backend| usable(backend) && warm.turn(backend)).or_else(|| self.next(&usable))
            }
            BalanceConfig::Random => self.random(usable, weight),
            // Idle servers share by weight, for the heavier one is not less busy than the other.
            BalanceConfig::LeastRequest => {
                self.better_of_two(usable, weight, |a, b| b.busy(1, weight(b)) <= a.busy(0, weight(a)))
            }
            // Of a server that comes back no latency may be known, and then nothing costs less.
            BalanceConfig::PeakEwma => {
                self.better_of_two(usable, weight, |a, b| b.cost(weight(b)) < a.cost(weight(a)) && warm.turn(b))
            }
        }
    }

    fn warm(&self, usable: impl Fn(&Backend) -> bool) -> Warm {
        // All servers of a pool go by one clock.
        let Some(now) = self.backends.first().and_then(|backend| backend.warming().now()) else {
            return Warm { now: None, most: 1.0 };
        };
        let usable = self.backends.iter().filter(|backend| usable(backend));
        let most = usable.map(|backend| backend.warming().warmth(now)).fold(0.0, f64::max);
        Warm { now: Some(now), most }
    }

    /// The next turn of a server that takes it.
    fn next(&self, takes: impl Fn(&Backend) -> bool) -> Option<usize> {
        let length = self.schedule.len();
        let start = self.cursor.fetch_add(1, Ordering::Relaxed);
        let at = |i| usize::from(self.schedule[start.wrapping_add(i) % length]);
        let passed = (0..length).find(|i| takes(&self.backends[at(*i)]))?;
        if passed > 0 {
            // The turns that were passed over are over, or whoever comes next would have them all.
            self.cursor.fetch_add(passed, Ordering::Relaxed);
        }
        Some(at(passed))
    }

    fn random(&self, usable: impl Fn(&Backend) -> bool, weight: impl Fn(&Backend) -> f64) -> Option<usize> {
        let total: f64 = self.backends.iter().filter(|backend| usable(backend)).map(|backend| weight(backend)).sum();
        let mut left = fastrand::f64() * total;
        let mut taken = None;
        for (position, backend) in self.backends.iter().enumerate().filter(|(_, backend)| usable(backend)) {
            // The last one, should rounding leave something over.
            taken = Some(position);
            left -= weight(backend);
            if left < 0.0 {
                break;
            }
        }
        taken
    }

    /// The power of two choices (Mitzenmacher, 2001): the first is taken unless the second is better.
    fn better_of_two(
        &self,
        usable: impl Fn(&Backend) -> bool,
        weight: impl Fn(&Backend) -> f64,
        better: impl Fn(&Backend, &Backend) -> bool,
    ) -> Option<usize> {
        let first = self.random(&usable, &weight)?;
        let second = self.random(|backend| usable(backend) && backend.id != self.backends[first].id, &weight);
        Some(match second {
            Some(second) if better(&self.backends[first], &self.backends[second]) => second,
            _ => first,
        })
    }

    /// Weighted rendezvous hashing: a server that comes or goes moves only its own share of the keys.
    fn rendezvous(
        &self,
        key: u64,
        usable: impl Fn(&Backend) -> bool,
        weight: impl Fn(&Backend) -> f64,
    ) -> Option<usize> {
        let score = |backend: &Backend| {
            let unit = (mix(key ^ backend.hash) >> 11) as f64 / (1u64 << 53) as f64;
            -weight(backend) / unit.max(f64::MIN_POSITIVE).ln()
        };
        self.backends
            .iter()
            .enumerate()
            .filter(|(_, backend)| usable(backend))
            .max_by(|(_, a), (_, b)| score(a).total_cmp(&score(b)))
            .map(|(position, _)| position)
    }
}

/// How warm servers are, as parts of what the warmest usable one is: see [`super::slow_start`].
struct Warm {
    now: Option<u64>,
    most: f64,
}

impl Warm {
    /// The part of its weight that a server has.
    fn part(&self, backend: &Backend) -> f64 {
        self.now.map_or(1.0, |now| backend.warming().warmth(now) / self.most)
    }

    /// Whether a server takes a turn.
    fn turn(&self, backend: &Backend) -> bool {
        let part = self.part(backend);
        part >= 1.0 || fastrand::f64() < part
    }
}

/// nginx's smooth weighted order: 5, 1, 1 gives a a b a c a a.
fn smooth(weights: &[u16]) -> Vec<u16> {
    let divisor = weights.iter().fold(0, |a, b| gcd(a, u32::from(*b))).max(1);
    let mut weights: Vec<i64> = weights.iter().map(|w| i64::from(u32::from(*w) / divisor)).collect();
    let total: i64 = weights.iter().sum();
    if total as usize > LONGEST_SCHEDULE {
        let shrink = total as f64 / LONGEST_SCHEDULE as f64;
        weights.iter_mut().for_each(|w| *w = ((*w as f64 / shrink) as i64).max(1));
    }
    let total: i64 = weights.iter().sum();
    let mut current = vec![0; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0;
            for i in 0..weights.len() {
                current[i] += weights[i];
                if current[i] > current[best] {
                    best = i;
                }
            }
            current[best] -= total;
            best as u16
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(weights: &[u16]) -> Set {
        let backend = |(i, weight): (usize, &u16)| Arc::new(Backend::test(i, *weight, Health::Healthy));
        Set::new(weights.iter().enumerate().map(backend).collect())
    }

    fn hash() -> BalanceConfig {
        BalanceConfig::Hash(crate::upstream::HashSource::Client)
    }

    fn tried(ids: &[usize]) -> Tried {
        Tried { ids: ids.into(), any: true }
    }

    fn none() -> Tried {
        Tried::default()
    }

    #[test]
    fn round_robin_is_smooth() {
        let set = set(&[5, 1, 1]);
        let order: Vec<usize> =
            (0..7).map(|_| set.choose(&BalanceConfig::RoundRobin, None, &none()).unwrap().id).collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn round_robin_passes_over_the_unusable_and_takes_no_turn_for_a_retry() {
        let set = set(&[1, 1, 1]);
        let turns = |retry: bool| -> Vec<usize> {
            let turn = |_| {
                let first = set.choose(&BalanceConfig::RoundRobin, None, &none()).unwrap().id;
                if retry {
                    let second = set.choose(&BalanceConfig::RoundRobin, None, &tried(&[first])).unwrap().id;
                    assert_ne!(first, second);
                }
                first
            };
            (0..6).map(turn).collect()
        };
        assert_eq!(turns(true), [0, 1, 2, 0, 1, 2]);
        set.backends[0].set_health(Health::Unhealthy);
        assert_eq!(turns(false), [1, 2, 1, 2, 1, 2]);
        // Nobody is healthy: those whose health is unknown take turns.
        set.backends.iter().for_each(|backend| backend.set_health(Health::Unknown));
        assert_eq!(turns(false), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn random_keeps_to_the_weights() {
        let set = set(&[3, 1]);
        let first = (0..10_000).filter(|_| set.choose(&BalanceConfig::Random, None, &none()).unwrap().id == 0).count();
        assert!((7_000..8_000).contains(&first), "{first}");
    }

    #[test]
    fn the_less_loaded_of_two_is_taken() {
        let set = set(&[1, 1]);
        set.backends[0].begin();
        for _ in 0..50 {
            assert_eq!(set.choose(&BalanceConfig::LeastRequest, None, &none()).unwrap().id, 1);
        }
    }

    #[test]
    fn the_least_loaded_for_its_weight_is_taken() {
        let set = set(&[3, 1]);
        let choose = || set.choose(&BalanceConfig::LeastRequest, None, &none()).unwrap().id;
        let heavier = (0..10_000).filter(|_| choose() == 0).count();
        assert!((7_000..8_000).contains(&heavier), "idle servers share by weight: {heavier}");
        (0..3).for_each(|_| set.backends[0].begin());
        assert!((0..50).all(|_| choose() == 1), "three of weight 3 are as many as one of weight 1");
        set.backends[1].begin();
        set.backends[1].begin();
        assert!((0..50).all(|_| choose() == 0));
    }

    #[test]
    fn a_new_server_takes_only_its_share_of_keys() {
        let (four, five) = (set(&[1; 4]), set(&[1; 5]));
        let moved = (0..10_000u64)
            .filter(|key| {
                let before = four.choose(&hash(), Some(mix(*key)), &none()).unwrap().id;
                let after = five.choose(&hash(), Some(mix(*key)), &none()).unwrap().id;
                assert!(before == after || after == 4);
                before != after
            })
            .count();
        assert!((1_700..2_300).contains(&moved), "{moved}");
    }

    #[test]
    fn what_is_unusable_or_tried_is_passed_over() {
        for balance in [BalanceConfig::RoundRobin, BalanceConfig::Random, BalanceConfig::PeakEwma, hash()] {
            let set = set(&[1, 1, 1]);
            set.backends[0].set_health(Health::Unhealthy);
            for key in 0..50 {
                assert_eq!(set.choose(&balance, Some(mix(key)), &tried(&[1])).unwrap().id, 2);
                assert_ne!(set.choose(&balance, Some(mix(key)), &tried(&[1, 2])).unwrap().id, 0);
            }
            set.backends[1].set_health(Health::Unknown);
            assert_eq!(set.choose(&balance, Some(1), &none()).unwrap().id, 2);
            set.backends[2].drain(true);
            assert_eq!(set.choose(&balance, Some(1), &none()).unwrap().id, 1);
            set.backends[1].set_health(Health::Unhealthy);
            assert!(set.choose(&balance, Some(1), &none()).is_none());
        }
    }
}
