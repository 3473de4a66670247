//! Noticing that a consumer reads a partition no more although its log goes on.
//!
//! librdkafka fetches, backs off and validates epochs on its own, and says nothing when it gets stuck at that: it can stay so
//! for as long as it lives, its connections up and its statistics in order. Only the log's end tells. So it is compared with
//! what was read, every few seconds; where reading stands still behind it, the sink is told as if the log did not hold the
//! offset, and has the partition assigned anew.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::consumer::Consumer as _;
use rdkafka::topic_partition_list::Offset;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::cluster::Cluster;
use super::consumer::Shared;
use super::fault::from_kafka;
use crate::error::Result;

/// Time between two looks. Each asks every leader of partitions that are read for their ends, once per topic.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long reading may stand still behind the end of the log, beside the time for which a broker may hold a fetch. Longer than
/// librdkafka's own pauses between attempts.
const PATIENCE: Duration = Duration::from_secs(4);
/// The longest patience. It doubles with each time that reading anew did not help: what is only slow must not be begun anew for
/// ever.
const PATIENCE_MAX: Duration = Duration::from_secs(60);

/// A partition of a topic.
type Part = (String, i32);

/// A partition as it was seen last.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The next offset to be read; none before the first record.
    next: Option<i64>,
    /// Where the log ended when `next` was seen first.
    end: i64,
    /// When reading was last seen not to be behind the log's end, or to get on.
    at: Instant,
    /// The reading thread's [turns](Shared::turns) by then.
    turns: u64,
    /// Where it stood still before it was assigned anew, until it is read again.
    stood: Option<i64>,
    patience: Duration,
}

/// What was seen of all partitions that are read.
#[derive(Debug)]
struct Progress {
    seen: HashMap<Part, Seen>,
    patience: Duration,
}

impl Progress {
    /// `fetch_wait`: how long a broker may hold a fetch.
    fn new(fetch_wait: Duration) -> Self {
        Self { seen: HashMap::new(), patience: PATIENCE + 2 * fetch_wait }
    }

    /// Takes what was read, and then where the logs ended, and says which partitions stand still. The reading thread must have
    /// asked for more meanwhile, and got nothing: one that is held up by its sink stands still for another reason.
    fn compare(
        &mut self,
        read: &[(Part, Option<i64>)],
        ends: &HashMap<Part, i64>,
        turns: u64,
        now: Instant,
    ) -> Vec<Part> {
        let before = std::mem::take(&mut self.seen);
        let mut standing = Vec::new();
        for (part, next) in read {
            let Some(&end) = ends.get(part) else { continue };
            let before = before.get(part);
            // Assigned anew, and not read since: it goes on standing where it stood.
            let stood = before.filter(|seen| next.is_none() && seen.stood.is_some_and(|at| at <= end));
            let fresh = Seen {
                next: *next,
                end,
                at: now,
                turns,
                stood: stood.and_then(|seen| seen.stood),
                patience: stood.map_or(self.patience, |seen| seen.patience),
            };
            let same = |seen: &&Seen| seen.next == *next || stood.is_some();
            let seen = before.filter(same).copied().unwrap_or(fresh);
            // Where reading began is not known before the first record; but what came since the first look lies behind that.
            let behind = end > next.or(fresh.stood).unwrap_or(seen.end);
            let waited = now.duration_since(seen.at) >= seen.patience && turns > seen.turns + 1;
            let kept = match (behind, waited) {
                (false, _) => Seen { end: seen.end, ..fresh },
                (true, false) => seen,
                (true, true) => {
                    standing.push(part.clone());
                    let patience = (seen.patience * 2).min(PATIENCE_MAX);
                    Seen { stood: next.or(fresh.stood), patience, ..fresh }
                }
            };
            self.seen.insert(part.clone(), kept);
        }
        standing
    }
}

/// Minds a consumer until it stops; its own thread tells the sink. `fetch_wait`: how long a broker may hold its fetches.
pub(super) async fn mind(consumer: Weak<Shared>, cluster: Cluster, fetch_wait: Duration) {
    let progress = Arc::new(Mutex::new(Progress::new(fetch_wait)));
    let mut pace = interval(LOOK_EVERY);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        pace.tick().await;
        let Some(shared) = consumer.upgrade().filter(|shared| !shared.stop.load(Relaxed)) else { return };
        let progress = Arc::clone(&progress);
        // What may be the last hold on the client ends where it may block.
        let looked = cluster.run(move |cluster| {
            let turns = shared.turns.load(Relaxed);
            let (read, ends) = look(cluster, &shared)?;
            for (topic, partition) in progress.lock().compare(&read, &ends, turns, Instant::now()) {
                tracing::warn!(topic, partition, "the log goes on, and reading stands still; reading anew");
                shared.stands_still.store(true, Relaxed);
            }
            Ok(())
        });
        // A broker that does not answer is noticed elsewhere, and proves nothing here.
        if let Err(error) = looked.await {
            tracing::debug!(%error, "where the logs end is not known");
        }
    }
}

/// The offset that is read next, by partition.
type Read = Vec<(Part, Option<i64>)>;

/// What is read next, and, asked after that, where the logs end.
fn look(cluster: &Cluster, shared: &Shared) -> Result<(Read, HashMap<Part, i64>)> {
    let positions =
        shared.consumer.position().map_err(|source| from_kafka("position", "consumer", source))?;
    let mut read = Vec::new();
    let mut partitions: HashMap<&str, Vec<i32>> = HashMap::new();
    let elements = positions.elements();
    for element in &elements {
        let next = match element.offset() {
            Offset::Offset(next) => Some(next),
            _ => None,
        };
        read.push(((element.topic().to_owned(), element.partition()), next));
        partitions.entry(element.topic()).or_default().push(element.partition());
    }
    let mut ends = HashMap::new();
    for (topic, partitions) in partitions {
        let asked = cluster.ends_blocking(topic, &partitions)?;
        ends.extend(asked.into_iter().map(|(partition, end)| ((topic.to_owned(), partition), end)));
    }
    Ok((read, ends))
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::clients::kafka::producer::NoAck;
    use crate::clients::kafka::{Connection, Consumer, ConsumerSettings, Link, Producer};
    use crate::clients::kafka::{ProducerSettings, Record, RecordSink};

    const DEADLINE: Duration = Duration::from_secs(60);

    /// Compares at a second with what is read next and where the log ends, in turn number `turns`; whether that stands still.
    fn stands(
        progress: &mut Progress,
        start: Instant,
        second: u64,
        next: Option<i64>,
        end: i64,
        turns: u64,
    ) -> bool {
        let part = ("t".to_owned(), 0);
        let ends = HashMap::from([(part.clone(), end)]);
        let now = start + Duration::from_secs(second);
        progress.compare(&[(part.clone(), next)], &ends, turns, now) == [part]
    }

    #[test]
    fn reading_stands_still_when_the_log_goes_on_without_it() {
        let (start, mut progress) = (Instant::now(), Progress::new(Duration::ZERO));
        assert!(!stands(&mut progress, start, 0, Some(10), 10, 0));
        assert!(!stands(&mut progress, start, 60, Some(10), 10, 600), "so does the log");
        assert!(!stands(&mut progress, start, 62, Some(10), 11, 620));
        assert!(stands(&mut progress, start, 64, Some(10), 12, 640));
        assert!(!stands(&mut progress, start, 70, None, 12, 700), "twice the time to begin anew");
        assert!(stands(&mut progress, start, 72, None, 12, 720), "nothing new came, but the old is due");
        assert!(!stands(&mut progress, start, 80, None, 12, 800));
        assert!(!stands(&mut progress, start, 82, Some(11), 15, 820), "it gets on, if slowly");
        assert!(!stands(&mut progress, start, 84, Some(12), 19, 840));
        assert!(!stands(&mut progress, start, 88, Some(12), 19, 841), "its thread is busy with what it got");
        assert!(stands(&mut progress, start, 90, Some(12), 19, 843));
    }

    #[test]
    fn a_fetch_that_the_broker_holds_is_waited_for() {
        let (start, mut progress) = (Instant::now(), Progress::new(Duration::from_secs(5)));
        for second in [0, 2, 4, 8, 12] {
            assert!(!stands(&mut progress, start, second, Some(10), 11, second * 10), "after {second} s");
        }
        assert!(stands(&mut progress, start, 14, Some(10), 11, 140));
    }

    #[test]
    fn before_the_first_record_what_came_since_the_first_look_counts() {
        let (start, mut progress) = (Instant::now(), Progress::new(Duration::ZERO));
        assert!(!stands(&mut progress, start, 0, None, 7, 0));
        assert!(!stands(&mut progress, start, 60, None, 7, 600));
        assert!(!stands(&mut progress, start, 62, None, 8, 620));
        assert!(stands(&mut progress, start, 64, None, 8, 640));
    }

    /// Tells of offsets, and of partitions that stand still.
    struct Told(mpsc::UnboundedSender<Option<i64>>);

    impl RecordSink for Told {
        fn record(&mut self, record: &Record<'_>) {
            let _ = self.0.send(Some(record.offset));
        }
        fn batch_end(&mut self) {}
        fn link(&mut self, change: Link) {
            if change == Link::OutOfRange {
                let _ = self.0.send(None);
            }
        }
        fn lag(&mut self, _messages: i64) {}
    }

    #[tokio::test]
    async fn a_reader_that_stands_still_is_told_and_reads_on_once_it_is_assigned_anew() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("t", 1, 1).expect("a topic");
        let connection = Connection::to(&broker.bootstrap_servers());
        let producer: Producer<NoAck> =
            Producer::new(&connection, &ProducerSettings::default(), None).expect("a producer");
        let write = || assert!(producer.send("t", Some(0), None, b"x", NoAck).is_ok());
        let cluster = Cluster::connect(connection, Some(DEADLINE)).await.expect("a cluster");
        let (told, mut hears) = mpsc::unbounded_channel();
        let consumer =
            Consumer::start(&cluster, &ConsumerSettings::default(), Told(told)).expect("a consumer");
        consumer.assign_blocking("t", &[(0, 0)]).expect("assigned");
        write();
        assert_eq!(timeout(DEADLINE, hears.recv()).await, Ok(Some(Some(0))));
        // As silent as being stuck: tried again for ever, and never told.
        broker.request_errors(
            RDKafkaApiKey::Fetch,
            &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_KAFKA_STORAGE_ERROR; 5_000],
        );
        write();
        assert_eq!(timeout(DEADLINE, hears.recv()).await, Ok(Some(None)));
        broker.clear_request_errors(RDKafkaApiKey::Fetch);
        consumer.read_anew_blocking("t", &[(0, 1)]).expect("assigned anew");
        while timeout(DEADLINE, hears.recv()).await.expect("in time") != Some(Some(1)) {}
        consumer.stop().await;
    }
}
