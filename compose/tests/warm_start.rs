//! How soon brokers serve from a warm cache. The figures are printed; the limits here are generous, because other
//! programs may be busy beside this one.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use manifold_compose::{Environment, Purpose, Request, Topology};

fn starts(what: &str, request: &Request, count: usize, limit: Duration) {
    // The first start may have to fill the cache.
    drop(Environment::start(request).unwrap());
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let started = Instant::now();
            let environment = Environment::start(request).unwrap();
            let took = started.elapsed();
            drop(environment);
            took
        })
        .collect();
    times.sort();
    let seconds: Vec<String> = times.iter().map(|time| format!("{:.2}", time.as_secs_f64())).collect();
    println!("{what}: ready after {} s (sorted)", seconds.join(", "));
    assert!(times[0] < limit, "{what}: {:?} at best", times[0]);
}

#[test]
fn brokers_serve_soon() {
    let count = std::env::var("MANIFOLD_STARTS").map_or(1, |count| count.parse().unwrap());
    for purpose in [Purpose::Tests, Purpose::Figures] {
        let hybrid = Request::for_strategy("hybrid").unwrap().with_purpose(purpose);
        starts(&format!("Kafka and Redis for {purpose:?}"), &hybrid, count, Duration::from_secs(10));
        let three = Request::kafka().with_topology(Topology::Kafka3).unwrap().with_purpose(purpose);
        starts(&format!("three Kafka brokers for {purpose:?}"), &three, count, Duration::from_secs(20));
    }
}
