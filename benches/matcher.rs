//! Finding a route among 1 to 100,000, and building the matcher: `cargo bench --bench matcher`.

use std::hint::black_box;
use std::net::IpAddr;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use portcullis::gateway::matcher::{Matcher, MethodSet, PathPattern, RequestView, RouteSpec};

fn routes(count: usize) -> Vec<RouteSpec> {
    let route = |i: usize| RouteSpec {
        hosts: Vec::new(),
        path: PathPattern::parse(&format!("/api/v{}/service{}/{{id}}", i % 10, i / 10)).expect("it is sound"),
        methods: Some(MethodSet::parse(["GET"]).expect("it is a method")),
        conditions: Vec::new(),
    };
    (0..count).map(route).collect()
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("find");
    let headers = HeaderMap::new();
    for count in [1, 100, 10_000, 100_000] {
        let matcher = Matcher::build(routes(count)).expect("no two are ambiguous");
        let path = format!("/api/v{}/service{}/4711", (count - 1) % 10, (count - 1) / 10);
        let view = RequestView {
            method: &Method::GET,
            host: "api.example.com",
            path: &path,
            query: None,
            headers: &headers,
            scheme: "https",
            client: IpAddr::from([127, 0, 0, 1]),
            listener: "",
        };
        group.bench_function(BenchmarkId::from_parameter(count), |b| b.iter(|| matcher.find(black_box(&view))));
    }
    group.finish();
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("build");
    group.sample_size(10);
    let routes = routes(100_000);
    group.bench_function("100000", |b| {
        b.iter_with_setup(|| routes.clone(), |routes| Matcher::build(routes).map(drop).expect("no two are ambiguous"));
    });
    group.finish();
}

criterion_group!(benches, find, build);
criterion_main!(benches);
