//! The durable half: appending to the log, and knowing what has been appended.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::life::Life;
use super::settings::Settings;
use crate::backplane::{Envelope, Position, RoomId};
use crate::clients::kafka::{AckSink, Cluster, Connection, Consumer, Producer, ReadTo, Resume, Written};
use crate::envelope;
use crate::error::Result;
use crate::kafka_keyed::RoomPartitioner;
use crate::stats::Stats;
use crate::strategy::Start;

/// Pause between attempts while the cluster comes up.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// Bound for learning the topic's partitions.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is looked whether earlier records have their outcome.
const SETTLE_PAUSE: Duration = Duration::from_millis(2);

/// Called with a record's place, or why it has none.
pub(super) type Appended = Box<dyn FnOnce(Result<Written>) + Send + Sync>;

/// A record on its way: belongs to a wave until its outcome is known. It must not own anything that owns the producer:
/// it is dropped on the producer's own thread, which cannot end itself.
pub(super) struct Ack {
    ends: Arc<Ends>,
    appended: Appended,
    _wave: Arc<()>,
}

/// End of what this node is known to have written, per partition.
struct Ends(Vec<AtomicI64>);

impl AckSink for Ack {
    fn done(self, outcome: Result<Written>) {
        if let Ok(written) = &outcome
            && let Some(end) = self.ends.0.get(written.partition as usize)
        {
            end.fetch_max(written.offset + 1, SeqCst);
        }
        (self.appended)(outcome);
    }
}

/// The log of a namespace.
pub(super) struct Log {
    pub(super) cluster: Cluster,
    pub(super) topic: String,
    pub(super) life: Life,
    producer: Producer<Ack, RoomPartitioner>,
    partitioner: RoomPartitioner,
    ends: Arc<Ends>,
    /// What receivers must have read before they take a live message of this node, per partition.
    fences: Vec<AtomicI64>,
    /// The present wave of records, and earlier ones that may have records under way.
    waves: Mutex<Vec<Arc<()>>>,
    stats: Arc<Stats>,
}

thread_local! {
    /// Reused by every append of a thread: librdkafka copies the record.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Log {
    /// Reaches the cluster and makes sure of the topic.
    pub(super) async fn connect(start: &Start, settings: &Settings, stats: Arc<Stats>) -> Result<Self> {
        let connection = Connection::new(start, settings.client.clone())?;
        let until = start.connect_retry.map(|limit| Instant::now() + limit);
        let cluster = Cluster::connect(connection, start.connect_retry).await?;
        let topic = format!("{}.hybrid", start.namespace);
        let life = loop {
            // A broker that has just started may answer before it can create or lead anything.
            match Life::of(&cluster, &topic, settings).await {
                Err(error) if error.is_temporary() && until.is_some_and(|until| Instant::now() < until) => {
                    tracing::warn!(%error, "the log is not ready yet, trying again");
                    sleep(RETRY_PAUSE).await;
                }
                done => break done?,
            }
        };
        let partitioner = RoomPartitioner::new(settings.partitions, Default::default());
        let producer = Producer::new(cluster.connection(), &settings.producer(), Some(partitioner.clone()))?;
        let (name, writer) = (topic.clone(), producer.clone());
        cluster.run(move |_| writer.refresh_blocking(&name, LOOK_TIMEOUT)).await?;
        let per_partition = || (0..settings.partitions).map(|_| AtomicI64::new(0)).collect();
        Ok(Self {
            cluster,
            topic,
            life,
            producer,
            partitioner,
            ends: Arc::new(Ends(per_partition())),
            fences: per_partition(),
            waves: Mutex::new(vec![Arc::new(())]),
            stats,
        })
    }

    /// Every partition.
    pub(super) fn partitions(&self) -> Vec<i32> {
        (0..self.fences.len() as i32).collect()
    }

    /// Where every partition ends. One that was created a moment ago may have no leader yet.
    pub(super) async fn ends(&self) -> Result<Vec<(i32, i64)>> {
        let until = Instant::now() + LOOK_TIMEOUT;
        loop {
            let (topic, partitions) = (self.topic.clone(), self.partitions());
            match self.cluster.run(move |cluster| cluster.ends_blocking(&topic, &partitions)).await {
                Err(error) if error.is_temporary() && Instant::now() < until => sleep(RETRY_PAUSE).await,
                ends => return ends,
            }
        }
    }

    /// The partition of a room.
    pub(super) fn partition_of(&self, room: &RoomId) -> i32 {
        self.partitioner.partition_of(room.as_str().as_bytes())
    }

    /// Puts a message at the end of its partition. Its place is fixed when this returns.
    pub(super) fn append(&self, message: &Envelope, at: Option<Position>, appended: Appended) {
        let wave = self.waves.lock().last().map_or_else(Default::default, Arc::clone);
        let sink = Ack { ends: Arc::clone(&self.ends), appended, _wave: wave };
        self.stats.broker_writes.add(1);
        let sent = RECORD.with_borrow_mut(|record| {
            record.clear();
            envelope::encode(message, at, record);
            self.producer.send(&self.topic, None, Some(message.room.as_str().as_bytes()), record, sink)
        });
        if let Err((error, sink)) = sent {
            sink.done(Err(error));
        }
    }

    /// What receivers must have read before a live message of `room`.
    pub(super) fn fence(&self, room: &RoomId) -> i64 {
        let partition = self.partition_of(room) as usize;
        self.fences.get(partition).map_or(0, |fence| fence.load(SeqCst))
    }

    /// Makes the topic anew if it is gone, and every client of this node look at it. The mark of the topic if it is another one
    /// than is read.
    pub(super) async fn renew(&self, consumer: &Consumer) -> Result<Option<Option<u64>>> {
        let mark = self.life.renew(&self.cluster).await?;
        let (topic, writer, reader) = (self.topic.clone(), self.producer.clone(), consumer.clone());
        let looked = self.cluster.run(move |_| {
            writer.refresh_blocking(&topic, LOOK_TIMEOUT)?;
            reader.refresh_blocking(&topic, LOOK_TIMEOUT)
        });
        looked.await?;
        Ok(mark)
    }

    /// Where reading goes on after `read`; in `another` topic from its start, however long it is.
    pub(super) async fn resumes(&self, read: Vec<ReadTo>, another: bool) -> Result<Vec<Resume>> {
        let topic = self.topic.clone();
        let resumes = self.cluster.run(move |cluster| {
            if !another {
                return cluster.resume_blocking(&topic, &read);
            }
            let partitions: Vec<i32> = read.iter().map(|read| read.partition).collect();
            let starts = cluster.starts_blocking(&topic, &partitions)?;
            let resume = |(partition, offset)| Resume { partition, offset, renumbered: true };
            Ok(starts.into_iter().map(resume).collect())
        });
        let resumes = resumes.await?;
        let renumbered: Vec<i32> =
            resumes.iter().filter(|resume| resume.renumbered).map(|resume| resume.partition).collect();
        if !renumbered.is_empty() {
            self.renumber(renumbered).await?;
        }
        Ok(resumes)
    }

    /// Offsets of partitions count anew: what was known of them is void. What this node has written of late lies before their
    /// ends.
    async fn renumber(&self, partitions: Vec<i32>) -> Result<()> {
        for &partition in &partitions {
            if let Some(known) = self.ends.0.get(partition as usize) {
                known.store(0, SeqCst);
            }
        }
        let topic = self.topic.clone();
        let ends = self.cluster.run(move |cluster| cluster.ends_blocking(&topic, &partitions)).await?;
        for (partition, end) in ends {
            let known = self.ends.0.get(partition as usize).zip(self.fences.get(partition as usize));
            if let Some((known, fence)) = known {
                known.fetch_max(end, SeqCst);
                fence.fetch_min(end, SeqCst);
            }
        }
        Ok(())
    }

    /// Waits until every record appended so far has its outcome, then fences them: live messages from here on follow them.
    pub(super) async fn settle(&self, limit: Duration) {
        let until = Instant::now() + limit;
        self.waves.lock().push(Arc::new(()));
        loop {
            let earlier = {
                let mut waves = self.waves.lock();
                let present = waves.pop();
                waves.retain(|wave| Arc::strong_count(wave) > 1);
                let earlier = waves.len();
                waves.extend(present);
                earlier
            };
            if earlier == 0 || Instant::now() >= until {
                break;
            }
            sleep(SETTLE_PAUSE).await;
        }
        for (fence, end) in self.fences.iter().zip(&self.ends.0) {
            fence.fetch_max(end.load(SeqCst), SeqCst);
        }
    }

    /// Waits for every outcome.
    pub(super) async fn close(&self, limit: Duration) -> Result<()> {
        self.producer.close(limit).await
    }
}
