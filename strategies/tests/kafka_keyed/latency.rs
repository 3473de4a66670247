//! What the strategy adds to the broker's floor. A measurement, not a check: run it alone on a quiet machine.
//!
//! `cargo test --release -p manifold-strategies --test kafka_keyed -- --ignored --nocapture`

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_compose::{Environment, Purpose, Request};
use manifold_strategies::{Backplane, BoxFuture, Entrance, Event, MessageId, Position, RoomId, find};
use parking_lot::Mutex;

use crate::harness::{envelope, namespace, start};

const RATE_PER_S: u32 = 1000;
const MEASURED: u32 = 15_000;
const WARMING: u32 = 60_000;

/// Keeps the time from just before `publish` to the entrance, by message number.
struct Clock {
    begun: Instant,
    delays: Mutex<Vec<Duration>>,
}

impl Entrance for Clock {
    fn deliver(&self, batch: &mut Vec<Event>) {
        let now = self.begun.elapsed();
        let mut delays = self.delays.lock();
        for event in batch.drain(..) {
            if let Event::Message(message) = event {
                delays.push(now.saturating_sub(Duration::from_nanos(message.envelope.id.0 as u64)));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement: run it alone, in release mode, on a quiet machine"]
async fn publish_to_deliver() {
    let request = Request::kafka().with_purpose(Purpose::Figures);
    let broker = Environment::start(&request).expect("a Kafka broker");
    let kafka = broker.kafka().expect("an address").to_owned();
    let namespace = namespace();
    let clock = Arc::new(Clock { begun: Instant::now(), delays: Mutex::default() });
    let keyed = find("kafka-keyed").expect("registered");
    let (publisher, _) = start(&kafka, &namespace, "publisher", "");
    let publisher = (keyed.connect)(publisher).await.expect("connected");
    let (mut member, _) = start(&kafka, &namespace, "member", "");
    member.entrance = Arc::clone(&clock) as Arc<_>;
    let member = (keyed.connect)(member).await.expect("connected");
    let rooms: Vec<String> = (0..20).map(|number| format!("room {number}")).collect();
    for room in &rooms {
        member.join(&RoomId::new(room.as_str())).await.expect("joined");
    }
    for (what, count, rate) in [("warming", WARMING, 8 * RATE_PER_S), ("measured", MEASURED, RATE_PER_S)] {
        clock.delays.lock().clear();
        let (times, sender, rooms) = (Arc::clone(&clock), Arc::clone(&publisher), rooms.clone());
        let sending = tokio::task::spawn_blocking(move || send(&times, &*sender, &rooms, count, rate));
        sending.await.expect("sent").await.expect("acknowledged");
        let deadline = Instant::now() + crate::harness::DEADLINE;
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while clock.delays.lock().len() < count as usize {
            look.tick().await;
            assert!(Instant::now() < deadline, "messages are missing");
        }
        let mut delays = clock.delays.lock().clone();
        delays.sort_unstable();
        let at = |part: f64| delays[((delays.len() - 1) as f64 * part) as usize];
        println!(
            "{what}: {count} messages at {rate}/s, p50 {:.3?}, p99 {:.3?}, p99.9 {:.3?}, max {:.3?}",
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
    }
    publisher.shutdown().await.expect("a clean shutdown");
    member.shutdown().await.expect("a clean shutdown");
}

/// Sends at a steady pace, open loop; returns the acknowledgement of the last message.
fn send(
    clock: &Clock,
    publisher: &dyn Backplane,
    rooms: &[String],
    count: u32,
    rate: u32,
) -> BoxFuture<'static, manifold_strategies::Result<Position>> {
    let payload = "x".repeat(200);
    let start = Instant::now();
    let publish = |number: u32| {
        let due = start + Duration::from_secs(1) * number / rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let mut message = envelope(&rooms[number as usize % rooms.len()], &payload);
        // The time of the call travels in the lower half of the id; the upper half keeps ids apart.
        message.id = MessageId((u128::from(number) << 64) | clock.begun.elapsed().as_nanos());
        publisher.publish(message)
    };
    (1..count).fold(publish(0), |_, number| publish(number))
}
