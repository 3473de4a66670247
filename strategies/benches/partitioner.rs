//! The partitioner runs once per published message.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use manifold_strategies::kafka_keyed::RoomPartitioner;

fn partitioner(c: &mut Criterion) {
    let mut group = c.benchmark_group("partitioner");
    let hot: BTreeMap<String, u32> = (0..32).map(|number| (format!("hot-room-{number}"), number)).collect();
    for (name, room) in
        [("8 bytes", "general1".to_owned()), ("64 bytes", "r".repeat(64)), ("255 bytes", "r".repeat(255))]
    {
        group.throughput(Throughput::Elements(1));
        let plain = RoomPartitioner::new(64, BTreeMap::new());
        group.bench_function(format!("hashed, {name}"), |b| {
            b.iter(|| plain.partition_of(black_box(room.as_bytes())));
        });
        let with_overrides = RoomPartitioner::new(64, hot.clone());
        group.bench_function(format!("hashed beside 32 overrides, {name}"), |b| {
            b.iter(|| with_overrides.partition_of(black_box(room.as_bytes())));
        });
    }
    let with_overrides = RoomPartitioner::new(64, hot);
    group.bench_function("overridden", |b| {
        b.iter(|| with_overrides.partition_of(black_box(b"hot-room-17")));
    });
    group.finish();
}

criterion_group!(benches, partitioner);
criterion_main!(benches);
