//! What a run may still spend. One program runs on a thread at a time, so the budget is the thread's.
//!
//! When a bound is reached the steps are taken away: from then on every check fails, and the run ends.

use std::cell::Cell;

use super::{Bound, Bounds};

/// How much of the stack a run may take, in bytes, from where it begins. The threads of the gateway have 2 MiB, and what
/// is freed at the end of a run takes less than half as much again.
const STACK: usize = 1 << 20;

/// How many parts a path may gather that go nowhere: the parts of null, and slices.
const PATH: u32 = 1000;

/// How many bytes are made, copied or looked at in a step.
const STEP: u64 = 64;

struct Meter {
    steps: Cell<u64>,
    value: Cell<u64>,
    floor: Cell<usize>,
    over: Cell<Option<Bound>>,
    path: Cell<Option<u32>>,
}

thread_local! {
    static METER: Meter = const {
        Meter {
            steps: Cell::new(0),
            value: Cell::new(0),
            floor: Cell::new(0),
            over: Cell::new(None),
            path: Cell::new(None),
        }
    };
}

/// Gives the thread a budget, from here on the stack.
pub fn start(bounds: &Bounds) {
    METER.with(|meter| {
        meter.steps.set(bounds.steps);
        meter.value.set(bounds.value as u64);
        meter.floor.set(here().saturating_sub(STACK));
        meter.over.set(None);
        meter.path.set(None);
    });
}

/// The bound that was reached, if one was.
pub fn over() -> Option<Bound> {
    METER.with(|meter| meter.over.get())
}

/// A bound is reached: the run has nothing left.
#[cold]
pub fn exceed(bound: Bound) {
    METER.with(|meter| {
        meter.steps.set(0);
        if meter.over.get().is_none() {
            meter.over.set(Some(bound));
        }
    });
}

/// Takes a step, and looks at the stack. Whether the run may go on.
#[inline]
pub fn step() -> bool {
    let floor = METER.with(|meter| meter.floor.get());
    if here() < floor {
        exceed(Bound::Stack);
    }
    spend(1)
}

/// Takes steps. Whether the run may go on.
#[inline]
pub fn spend(steps: u64) -> bool {
    let enough = METER.with(|meter| {
        let left = meter.steps.get();
        meter.steps.set(left.saturating_sub(steps));
        left > steps
    });
    if !enough {
        exceed(Bound::Steps);
    }
    enough
}

/// Takes the steps for bytes that are made, copied or looked at.
#[inline]
pub fn bytes(bytes: u64) -> bool {
    spend(bytes / STEP + 1)
}

/// Whether a value of this weight may be.
#[inline]
pub fn fits(weight: u64) -> bool {
    let fits = METER.with(|meter| weight <= meter.value.get());
    if !fits {
        exceed(Bound::Value);
    }
    fits
}

/// Runs what gathers paths. `parts` is what the path has gathered so far, here and in `path_part`.
pub fn in_path<T>(parts: &mut u32, run: impl FnOnce() -> T) -> T {
    let outer = METER.with(|meter| meter.path.replace(Some(*parts)));
    let done = run();
    *parts = METER.with(|meter| meter.path.replace(outer)).unwrap_or_default();
    done
}

/// A path may get longer without getting anywhere.
pub fn path_part() {
    let long = METER.with(|meter| {
        let parts = meter.path.get().map(|parts| parts + 1);
        meter.path.set(parts);
        parts.is_some_and(|parts| parts > PATH)
    });
    if long {
        exceed(Bound::Stack);
    }
}

/// Where on the stack this is. It grows downwards on everything that the gateway runs on.
#[inline]
fn here() -> usize {
    let mark = 0u8;
    std::hint::black_box(&raw const mark) as usize
}
