//! Numbers that every thread adds to in memory of its own, so that to count never waits for another worker. They are
//! added up when somebody asks for them.
//!
//! A [`Group`] has one block of numbers for each set of labels, and what is in a block says itself how it is shown
//! ([`Counts`]).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::{Family, Series, Vector};

/// The label value of what found no room in the budget.
pub(super) const OTHER: &str = "other";

/// What is counted together.
pub trait Counts: Default + Send + Sync + 'static {
    /// How many series one block has at most.
    const SERIES: usize;
    /// The labels that tell blocks apart.
    const LABELS: &'static [&'static str];
    /// What is shown of a block.
    const SHOWN: &'static [Shown<Self>];
}

/// A metric made of blocks.
pub enum Shown<T: 'static> {
    /// Counters, told apart by one more label unless that is empty.
    Counters {
        /// Its name, without the gateway's.
        name: &'static str,
        /// What it means.
        help: &'static str,
        /// What tells the counters apart.
        label: &'static str,
        /// The values of that label.
        values: &'static [&'static str],
        /// The counters.
        of: fn(&T) -> &[AtomicU64],
    },
    /// What goes up and down; not shown of what is counted together.
    Gauge {
        /// Its name, without the gateway's.
        name: &'static str,
        /// What it means.
        help: &'static str,
        /// Its share in one thread's numbers.
        of: fn(&T) -> i64,
    },
    /// Times; not shown while there are none.
    Histogram {
        /// Its name, without the gateway's.
        name: &'static str,
        /// What it means.
        help: &'static str,
        /// The upper bounds, in microseconds.
        bounds: &'static [u64],
        /// How many are within each bound and in none, and their sum in nanoseconds.
        of: fn(&T) -> (&[AtomicU64], &AtomicU64),
    },
}

/// The blocks of one kind.
pub struct Group<T> {
    blocks: Mutex<BTreeMap<Vec<String>, Arc<Cells<T>>>>,
    /// The series of all groups.
    series: Arc<AtomicUsize>,
}

/// One block, once for every thread that adds to it.
pub struct Cells<T>(Box<[Apart<T>]>);

/// On cache lines of its own; processors fetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T: Counts> Group<T> {
    pub(super) fn new(series: Arc<AtomicUsize>) -> Self {
        Self { blocks: Mutex::default(), series }
    }

    /// Writes all of it in the text format.
    pub(super) fn write(&self, text: &mut String) {
        let blocks: Vec<_> = self.blocks.lock().iter().map(|(labels, cells)| (labels.clone(), cells.clone())).collect();
        for shown in T::SHOWN {
            let (name, help, kind) = match shown {
                Shown::Counters { name, help, .. } => (name, help, "counter"),
                Shown::Gauge { name, help, .. } => (name, help, "gauge"),
                Shown::Histogram { name, help, .. } => (name, help, "histogram"),
            };
            header(text, name, help, kind);
            for (values, cells) in &blocks {
                let mut labels = String::new();
                for (label, value) in T::LABELS.iter().zip(values) {
                    push_label(&mut labels, label, value);
                }
                let together = values.iter().all(|value| value == OTHER);
                cells.write(shown, &labels, together, text);
            }
        }
    }

    /// Whether one more block is within the budget.
    fn fits(&self, most: usize) -> bool {
        self.series.load(Ordering::Relaxed).saturating_add(T::SERIES) <= most
    }
}

impl<T: Counts> Vector for Group<T> {
    type Metric = Arc<Cells<T>>;

    fn metric(&self, labels: &[&str]) -> Arc<Cells<T>> {
        let mut blocks = self.blocks.lock();
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let make = || {
            self.series.fetch_add(T::SERIES, Ordering::Relaxed);
            Arc::default()
        };
        blocks.entry(labels).or_insert_with(make).clone()
    }

    fn forget(&self, labels: &[Box<str>]) {
        let labels: Vec<String> = labels.iter().map(|label| label.to_string()).collect();
        if self.blocks.lock().remove(&labels).is_some() {
            self.series.fetch_sub(T::SERIES, Ordering::Relaxed);
        }
    }
}

impl<T: Counts, const LABELS: usize> Family<Group<T>, LABELS> {
    /// The block of these labels, or the `other` one of what found no room within the budget.
    pub(super) fn within(
        &self,
        most: usize,
        labels: [&str; LABELS],
        other: [&str; LABELS],
    ) -> Series<Group<T>, LABELS> {
        match self.is_held(labels) || self.has_room(most) {
            true => self.series(labels),
            false => self.series(other),
        }
    }

    /// Whether one more block is within the budget.
    pub(super) fn has_room(&self, most: usize) -> bool {
        self.vector().fits(most)
    }
}

impl<T> Cells<T> {
    /// This thread's numbers.
    pub fn own(&self) -> &T {
        &self.0[thread() % self.0.len()].0
    }

    pub(super) fn first(&self) -> &T {
        &self.0[0].0
    }

    fn each(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Apart(counts)| counts)
    }

    fn write(&self, shown: &Shown<T>, labels: &str, together: bool, text: &mut String) {
        match shown {
            Shown::Counters { name, label, values, of, .. } => {
                for (i, value) in values.iter().enumerate() {
                    let sum: u64 = self.each().map(|counts| read(&of(counts)[i])).sum();
                    let mut labels = labels.to_owned();
                    if !label.is_empty() {
                        push_label(&mut labels, label, value);
                    }
                    line(text, name, &labels, sum);
                }
            }
            Shown::Gauge { .. } if together => {}
            Shown::Gauge { name, of, .. } => line(text, name, labels, self.each().map(of).sum::<i64>()),
            Shown::Histogram { name, bounds, of, .. } => {
                let sums = |i| self.each().map(|counts| read(&of(counts).0[i])).sum::<u64>();
                let counts: Vec<u64> = (0..=bounds.len()).map(sums).collect();
                let nanos: u64 = self.each().map(|counts| read(of(counts).1)).sum();
                let total: u64 = counts.iter().sum();
                if total == 0 {
                    return;
                }
                let mut below = 0;
                for (i, count) in counts.iter().enumerate() {
                    below += count;
                    let bound = bounds.get(i).map_or("+Inf".to_owned(), |bound| (*bound as f64 / 1e6).to_string());
                    let mut labels = labels.to_owned();
                    push_label(&mut labels, "le", &bound);
                    line(text, &format!("{name}_bucket"), &labels, below);
                }
                line(text, &format!("{name}_sum"), labels, nanos as f64 / 1e9);
                line(text, &format!("{name}_count"), labels, total);
            }
        }
    }
}

impl<T: Default> Default for Cells<T> {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        Self((0..threads).map(|_| Apart::default()).collect())
    }
}

/// Threads beyond share with others.
const MOST_THREADS: usize = 64;

/// Counts by a word that the code has, each of them found when it is first said.
pub struct Words {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    words: [OnceLock<&'static str>; MOST_WORDS],
    counts: Cells<[AtomicU64; MOST_WORDS + 1]>,
}

const MOST_WORDS: usize = 64;

impl Words {
    pub(super) fn new(name: &'static str, help: &'static str, label: &'static str) -> Self {
        let cells = (0..Cells::<u8>::default().0.len()).map(|_| Apart(std::array::from_fn(|_| AtomicU64::new(0))));
        Self { name, help, label, words: [const { OnceLock::new() }; MOST_WORDS], counts: Cells(cells.collect()) }
    }

    /// Counts a word once more.
    pub fn count(&self, word: &'static str) {
        // A free place may be taken by another thread, with this word or another.
        let is_word = |slot: &OnceLock<&'static str>| *slot.get_or_init(|| word) == word;
        let position = self.words.iter().position(is_word).unwrap_or(MOST_WORDS);
        add(&self.counts.own()[position], 1);
    }

    pub(super) fn write(&self, text: &mut String) {
        header(text, self.name, self.help, "counter");
        let words = self.words.iter().map_while(|slot| slot.get().copied()).enumerate();
        for (i, word) in words.chain([(MOST_WORDS, OTHER)]) {
            let sum: u64 = self.counts.each().map(|counts| read(&counts[i])).sum();
            if sum > 0 {
                let mut labels = String::new();
                push_label(&mut labels, self.label, word);
                line(text, self.name, &labels, sum);
            }
        }
    }
}

/// Times, by upper bounds; the last part is beyond all of them.
pub(super) struct Histogram<const PARTS: usize> {
    counts: [AtomicU64; PARTS],
    nanos: AtomicU64,
}

impl<const PARTS: usize> Histogram<PARTS> {
    pub fn observe(&self, bounds: &[u64], time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let position = bounds.iter().position(|bound| nanos <= bound * 1_000).unwrap_or(PARTS - 1);
        add(&self.counts[position], 1);
        add(&self.nanos, nanos);
    }

    pub fn parts(&self) -> (&[AtomicU64], &AtomicU64) {
        (&self.counts, &self.nanos)
    }
}

impl<const PARTS: usize> Default for Histogram<PARTS> {
    fn default() -> Self {
        Self { counts: std::array::from_fn(|_| AtomicU64::new(0)), nanos: AtomicU64::new(0) }
    }
}

/// The number of this thread among those that count.
pub fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| match own.get() {
        usize::MAX => {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed));
            own.get()
        }
        number => number,
    })
}

pub(super) fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

pub(super) fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP portcullis_{name} {help}\n# TYPE portcullis_{name} {kind}");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "portcullis_{name}{{{labels}}} {value}");
}

fn push_label(labels: &mut String, name: &str, value: &str) {
    if !labels.is_empty() {
        labels.push(',');
    }
    let _ = write!(labels, "{name}=\"");
    for c in value.chars() {
        match c {
            '\\' => labels.push_str("\\\\"),
            '"' => labels.push_str("\\\""),
            '\n' => labels.push_str("\\n"),
            c => labels.push(c),
        }
    }
    labels.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_when_they_are_said() {
        let words = Words::new("x_total", "X.", "by");
        std::thread::scope(|scope| {
            for order in [["a", "b"], ["b", "a"]] {
                let words = &words;
                scope.spawn(move || (0..100).for_each(|i| words.count(order[i % 2])));
            }
        });
        let mut text = String::new();
        words.write(&mut text);
        assert!(text.contains("{by=\"a\"} 100\n") && text.contains("{by=\"b\"} 100\n"), "{text}");
    }
}
