//! The brokers of these tests: shared while any test uses them, gone with the last.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use manifold_compose::{Environment, KafkaTopology, Purpose, Request};

/// One plain broker, shared by the tests that do it no harm.
pub(crate) fn shared() -> Arc<Environment> {
    static SHARED: Mutex<Weak<Environment>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = shared.upgrade() {
        return environment;
    }
    let environment = Arc::new(own(KafkaTopology::Single));
    *shared = Arc::downgrade(&environment);
    environment
}

/// Brokers of a test's own, to be harmed.
pub(crate) fn own(topology: KafkaTopology) -> Environment {
    let request = Request {
        kafka: Some(topology),
        redis: None,
        purpose: Purpose::Tests,
        kafka_given: None,
        redis_given: None,
    };
    Environment::start(&request).expect("the brokers start")
}

/// The address of an environment's Kafka.
pub(crate) fn address(environment: &Environment) -> String {
    environment.kafka().expect("Kafka was requested").to_owned()
}
