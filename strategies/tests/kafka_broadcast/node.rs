//! A node under test: a backplane, what arrived at it and when.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use manifold_strategies::kafka_broadcast::KafkaBroadcast;
use manifold_strategies::{Backplane, Entrance, Envelope, Event, MessageId, Position, Result, RoomId, Start};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long a test waits for what must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// How often a condition that no arrival announces is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
pub(crate) const ROOM: &str = "room";

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

/// A namespace that nobody else uses.
pub(crate) fn namespace() -> String {
    format!("kb-{:016x}", rand::random::<u64>())
}

/// Keeps what arrives, with the time.
#[derive(Default)]
pub(crate) struct Inbox {
    messages: Mutex<Vec<(Instant, u64)>>,
    gaps: AtomicU64,
    reconnects: AtomicU64,
    arrived: Notify,
}

impl Entrance for Inbox {
    fn deliver(&self, batch: &mut Vec<Event>) {
        let now = Instant::now();
        for event in batch.drain(..) {
            match event {
                Event::Message(message) => {
                    self.messages.lock().push((now, number(&message.envelope.payload)))
                }
                Event::Gap { .. } => drop(self.gaps.fetch_add(1, SeqCst)),
                Event::Reconnected => drop(self.reconnects.fetch_add(1, SeqCst)),
                Event::Skipped { .. } | Event::Renumbered { .. } => {}
            }
        }
        self.arrived.notify_waiters();
    }
}

fn number(payload: &Bytes) -> u64 {
    std::str::from_utf8(payload).ok().and_then(|text| text.parse().ok()).expect("tests send numbers")
}

impl Inbox {
    pub(crate) fn numbers(&self) -> Vec<u64> {
        self.messages.lock().iter().map(|&(_, number)| number).collect()
    }

    fn has(&self, number: u64) -> bool {
        self.messages.lock().iter().rev().any(|&(_, arrived)| arrived == number)
    }

    /// Gaps that were declared.
    pub(crate) fn gaps(&self) -> u64 {
        self.gaps.load(SeqCst)
    }

    /// Times that the link came back.
    pub(crate) fn reconnects(&self) -> u64 {
        self.reconnects.load(SeqCst)
    }

    /// The longest time between two arrivals.
    pub(crate) fn longest_pause(&self) -> Duration {
        let messages = self.messages.lock();
        messages.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default()
    }

    /// Waits until `done` holds; it is asked again after each arrival, and a few times per second.
    pub(crate) async fn wait_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let waited = self.wait(done).await;
        assert!(waited, "waited {DEADLINE:?} for {what}; got {} messages", self.numbers().len());
    }

    async fn wait(&self, done: impl Fn(&Self) -> bool) -> bool {
        let wait = async {
            loop {
                let arrived = self.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                if done(self) {
                    return;
                }
                let _ = tokio::time::timeout(LOOK_AGAIN, arrived).await;
            }
        };
        tokio::time::timeout(DEADLINE, wait).await.is_ok()
    }

    pub(crate) async fn wait_for(&self, number: u64) {
        self.wait_until(&format!("message {number}"), |inbox| inbox.has(number)).await;
    }

    /// Asserts that everything from `first` to `last` arrived once and in order.
    pub(crate) fn assert_complete(&self, who: &str, first: u64, last: u64) {
        let got: Vec<u64> = self.numbers().into_iter().filter(|number| *number >= first).collect();
        let expected: Vec<u64> = (first..=last).collect();
        let missing: Vec<&u64> = expected.iter().filter(|number| !got.contains(number)).take(5).collect();
        assert!(missing.is_empty(), "{who}: {} of {}, missing {missing:?}", got.len(), expected.len());
        assert_eq!(got.len(), expected.len(), "{who} has duplicates");
        assert!(got == expected, "{who}: out of order");
    }
}

/// A node.
pub(crate) struct Node {
    pub(crate) backplane: Arc<KafkaBroadcast>,
    pub(crate) inbox: Arc<Inbox>,
}

/// What to start a node with.
pub(crate) fn start(kafka: &str, namespace: &str, name: &str, settings: &str) -> (Start, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let start = Start {
        node: name.to_owned(),
        namespace: namespace.to_owned(),
        kafka: Some(kafka.to_owned()),
        redis: None,
        settings: toml::from_str(settings).expect("settings are TOML"),
        connect_retry: None,
        entrance: Arc::clone(&inbox) as Arc<dyn Entrance>,
    };
    (start, inbox)
}

impl Node {
    /// Starts a node that is in the room.
    pub(crate) async fn start(kafka: &str, namespace: &str, name: &str, settings: &str) -> Self {
        let deadline = Instant::now() + DEADLINE;
        let (backplane, inbox) = loop {
            let (start, inbox) = start(kafka, namespace, name, settings);
            match KafkaBroadcast::connect(start).await {
                Ok(backplane) => break (Arc::new(backplane), inbox),
                // A slow machine's broker may need longer than one attempt lasts.
                Err(error) => assert!(error.is_temporary() && Instant::now() < deadline, "{name}: {error}"),
            }
        };
        backplane.join(&RoomId::new(ROOM)).await.expect("the room is joined");
        Self { backplane, inbox }
    }

    pub(crate) async fn publish(&self, number: u64) -> Result<Position> {
        self.backplane.publish(envelope(number)).await
    }

    /// Waits for a message, and says how the node stands if it does not come.
    pub(crate) async fn wait_for(&self, number: u64) {
        let came = self.inbox.wait(|inbox| inbox.has(number)).await;
        assert!(
            came,
            "waited {DEADLINE:?} for message {number}: {:?} {:?}",
            self.backplane,
            self.backplane.stats()
        );
    }

    pub(crate) async fn shutdown(self) {
        self.backplane.shutdown().await.expect("the node shuts down");
    }
}

pub(crate) fn envelope(number: u64) -> Envelope {
    Envelope {
        room: RoomId::new(ROOM),
        id: MessageId(rand::random()),
        published_at_us: 0,
        info: Bytes::new(),
        payload: number.to_string().into(),
    }
}

/// Publishes 0, 1, 2… on a node, every 2 ms, until it is finished. Any failure fails the test.
pub(crate) struct Stream {
    next: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Stream {
    pub(crate) fn start(node: &Node) -> Self {
        let (next, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (backplane, next, stop) = (Arc::clone(&node.backplane), Arc::clone(&next), Arc::clone(&stop));
            async move {
                let mut pace = tokio::time::interval(Duration::from_millis(2));
                let mut outcomes = Vec::new();
                while !stop.load(SeqCst) {
                    pace.tick().await;
                    // Numbered before the call: whoever reads `next` knows which messages are still to be published.
                    outcomes.push(backplane.publish(envelope(next.fetch_add(1, SeqCst))));
                }
                for (number, outcome) in outcomes.into_iter().enumerate() {
                    let outcome = outcome.await;
                    assert!(outcome.is_ok(), "publish {number}: {outcome:?}");
                }
            }
        });
        Self { next, stop, task }
    }

    /// The number of the next message: its publish was not called yet.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(SeqCst)
    }

    /// Stops, waits for all acknowledgements, and returns the last number.
    pub(crate) async fn finish(self) -> u64 {
        self.stop.store(true, SeqCst);
        self.task.await.expect("every publish is acknowledged");
        self.next.load(SeqCst) - 1
    }
}
