//! Every topology starts, is usable, and leaves nothing behind.

use manifold_compose::{Environment, Request};

#[test]
fn kafka_and_redis() {
    let started = std::time::Instant::now();
    let environment = Environment::start(&Request::for_strategy("hybrid").unwrap()).unwrap();
    eprintln!("{:?} {environment:?}", started.elapsed());
}
