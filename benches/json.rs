//! Editing a JSON document as it passes by, next to parsing it into a `serde_json::Value`: `cargo bench --bench json`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use portcullis::body::json::{Edits, EditsConfig};
use serde_json::{Value, json};

/// A list of orders, of about so many bytes.
fn document(size: usize, pretty: bool) -> Vec<u8> {
    let order = |i: usize| {
        json!({
            "id": i,
            "name": format!("Customer number {i}"),
            "city": "Zürich",
            "internal": { "margin": 0.25, "notes": ["says \"no\"", null, true] },
            "cost": f64::from(i as u32) * 1.07,
            "tags": ["a", "long tag", "another one"],
            "description": "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor.",
        })
    };
    let mut items = Vec::new();
    let mut written = 0;
    while written < size {
        let item = order(items.len());
        written +=
            if pretty { serde_json::to_vec_pretty(&item) } else { serde_json::to_vec(&item) }.expect("it is").len();
        items.push(item);
    }
    let whole = json!({ "total": items.len(), "internal": "x", "items": items });
    if pretty { serde_json::to_vec_pretty(&whole) } else { serde_json::to_vec(&whole) }.expect("it is JSON")
}

fn edits(config: Value) -> Arc<Edits> {
    let config: EditsConfig = serde_json::from_value(config).expect("it is a configuration");
    Arc::new(Edits::compile(&config).expect("it is sound").expect("it is not empty"))
}

fn edit(c: &mut Criterion) {
    let verbs = [
        ("remove two", edits(json!({ "remove": ["internal", "total"] }))),
        ("remove in each", edits(json!({ "remove": ["items.*.internal", "items.*.cost"] }))),
        (
            "all verbs",
            edits(json!({
                "pick": ["items.*.id", "items.*.name", "items.*.city", "items.*.tags"],
                "remove": ["items.*.tags.1"],
                "rename": { "items.*.name": "customer" },
                "set": { "meta.source": "gateway", "items.*.flag": false },
            })),
        ),
    ];
    for (size, pretty) in [(4 << 10, false), (1 << 20, false), (1 << 20, true)] {
        let document = document(size, pretty);
        let mut group = c.benchmark_group(format!("{} KiB{}", size >> 10, if pretty { ", indented" } else { "" }));
        group.throughput(Throughput::Bytes(document.len() as u64));
        group.bench_function("serde_json::Value", |b| {
            b.iter(|| serde_json::from_slice::<Value>(black_box(&document)).expect("it is JSON"));
        });
        for (name, edits) in &verbs {
            group.bench_function(BenchmarkId::from_parameter(name), |b| b.iter(|| edits.apply(black_box(&document))));
        }
        group.finish();
    }
}

criterion_group!(benches, edit);
criterion_main!(benches);
