//! What a local limit costs with 1 to 1,000,000 busy keys: `cargo bench --bench limit`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use portcullis::policy::{Decision, Gcra, Table};
use portcullis::types::{Pace, Rate};

fn decide(table: &Table, gcra: &Gcra, key: u64, now: u64) -> bool {
    table.update(key, now, |until| match gcra.decide(until, now) {
        Decision::Admit { until, .. } => (Some(until), true),
        Decision::Refuse { .. } => (None, false),
    })
}

/// Spreads numbers as a hash does.
fn key(number: u64) -> u64 {
    let mixed = (number ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Requests of all keys in turn, in an order that no cache foresees.
fn keys(c: &mut Criterion) {
    // Nobody is idle again while the measurement lasts, and nobody is refused.
    let rate = Rate { count: 1, per: Duration::from_secs(86400) };
    let gcra = Gcra::new(&Pace::new(rate, 200_000), Duration::ZERO);
    let mut group = c.benchmark_group("limit");
    for count in [1_u64, 100, 10_000, 100_000, 1_000_000] {
        let table = Table::default();
        (0..count).for_each(|number| assert!(decide(&table, &gcra, key(number), 1)));
        let mut at = 0;
        group.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                // A step that is prime to the count.
                at = (at + 7919) % count;
                decide(&table, &gcra, key(black_box(at)), 2)
            });
        });
    }
    group.finish();
}

/// A caller that is over its limit.
fn refused(c: &mut Criterion) {
    let table = Table::default();
    let rate = Rate { count: 1, per: Duration::from_secs(86400) };
    let gcra = Gcra::new(&Pace::new(rate, 1), Duration::ZERO);
    decide(&table, &gcra, 7, 1);
    c.bench_function("refused", |b| b.iter(|| decide(&table, &gcra, black_box(7), 2)));
}

criterion_group!(benches, keys, refused);
criterion_main!(benches);
