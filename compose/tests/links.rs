//! Links before brokers: clients come over them, and what is done to them is done to clients alone.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use manifold_compose::{Condition, Environment, Request};

use support::{drop_and_find_nothing, eventually, kafka_works, redis_ask, redis_hosts};

#[test]
fn redis_is_reached_over_its_link() {
    let environment = Environment::start_with_links(&Request::redis()).unwrap();
    let [link] = environment.links() else { panic!("{:?}", environment.links()) };
    let address = redis_hosts(environment.redis().unwrap()).remove(0);
    assert_eq!((link.name(), link.address()), ("link-redis", address.as_str()));
    assert_eq!(redis_ask::<String>(&address, &["PING"]).unwrap(), "PONG");
    for bad in [Condition::Cut, Condition::Stalled] {
        link.set(bad);
        assert!(redis_ask::<String>(&address, &["PING"]).is_err(), "{bad:?}");
        // The broker itself is none the worse for it.
        environment.process("redis").unwrap().restart().unwrap();
    }
    link.set(Condition::Slow { delay: Duration::from_millis(5), bytes_per_s: 1_000_000 });
    eventually("it answers, late", || redis_ask::<String>(&address, &["PING"]).is_ok());
    drop_and_find_nothing(environment);
}

#[test]
fn kafka_sends_clients_over_its_link_and_nobody_else() {
    let environment = Environment::start_with_links(&Request::kafka()).unwrap();
    let [link] = environment.links() else { panic!("{:?}", environment.links()) };
    let bootstrap = environment.kafka().unwrap();
    assert_eq!((link.name(), link.address()), ("link-kafka-1", bootstrap));
    eventually("it works over the link", || kafka_works(bootstrap).is_ok());
    link.set(Condition::Cut);
    assert!(kafka_works(bootstrap).is_err(), "clients must not find a way around the link");
    // Readiness is looked at directly: a broker can be restarted behind a broken link.
    environment.process("kafka-1").unwrap().restart().unwrap();
    link.set(Condition::Open);
    eventually("it works again", || kafka_works(bootstrap).is_ok());
    assert!(environment.kafka_leader().unwrap().is_none(), "no topic but the brokers' own");
    drop_and_find_nothing(environment);
}

#[test]
fn without_being_asked_for_there_are_no_links() {
    let environment = Environment::start(&Request::redis()).unwrap();
    assert!(environment.links().is_empty());
}
