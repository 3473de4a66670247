//! Reading a bounded part of one partition, once: no group, no place of its own in the log, no thread that stays.
//!
//! A client takes some 10 ms to get to know the cluster, so a few are kept for the next reader. An idle one reads nothing
//! and asks nothing, but has about 8 descriptors: it is closed after a while.

use std::ops::ControlFlow;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::Connection;
use super::consumer::{Record, record};
use super::fault::{closed, from_kafka};
use super::health::Quiet;
use crate::error::Result;

/// Slices that are read at a time; more wait.
const READERS_MAX: usize = 2;
/// How long a look at the topic may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the next record before the clock is looked at.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
/// How long a client waits for work until it is closed, at least.
const IDLE_MAX: Duration = Duration::from_secs(60);
/// How often it is looked for those.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The first offset that is not read any more: at most where the partition ends.
    pub to: i64,
    /// How long reading may take.
    pub time_max: Duration,
}

/// How reading a slice ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceEnd {
    /// Every record was handed over.
    Whole,
    /// The sink had enough.
    Enough,
    /// The log no longer holds all of it.
    Missing,
    /// It took too long.
    OutOfTime,
}

/// Takes the records of a slice, in their order, on a thread that may be blocked.
pub trait SliceSink: Send + 'static {
    /// A record. `Break` ends reading.
    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()>;
}

/// Reads slices. Cheap to clone; all clones share their clients.
#[derive(Clone)]
pub struct Slices {
    pool: Arc<Pool>,
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for Slices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slices").field("connection", &self.pool.connection).finish_non_exhaustive()
    }
}

/// Clients that wait for work.
struct Pool {
    connection: Connection,
    idle: Mutex<Idle<BaseConsumer<Quiet>>>,
}

/// Those, and since when each of them waits.
struct Idle<C> {
    clients: Vec<(C, Instant)>,
    /// Somebody looks for those that have waited for too long.
    swept: bool,
}

impl<C> Default for Idle<C> {
    fn default() -> Self {
        Self { clients: Vec::new(), swept: false }
    }
}

impl<C> Idle<C> {
    /// The one that has waited for the shortest time: the others may become superfluous.
    fn take(&mut self) -> Option<C> {
        self.clients.pop().map(|(client, _)| client)
    }

    fn take_all(&mut self) -> Vec<(C, Instant)> {
        std::mem::take(&mut self.clients)
    }

    /// Lets a client wait, unless enough do: then it comes back.
    fn put(&mut self, client: C, now: Instant) -> Option<C> {
        if self.clients.len() >= READERS_MAX {
            return Some(client);
        }
        self.clients.push((client, now));
        None
    }

    /// Those that have waited for too long. Nobody needs to look again when none is left.
    fn take_old(&mut self, now: Instant) -> Vec<(C, Instant)> {
        let is_old = |(_, since): &(C, Instant)| now.duration_since(*since) >= IDLE_MAX;
        let (old, young) = self.take_all().into_iter().partition(is_old);
        self.clients = young;
        self.swept = !self.clients.is_empty();
        old
    }
}

/// The right to read one slice.
pub struct Turn {
    pool: Arc<Pool>,
    _slot: OwnedSemaphorePermit,
}

impl Slices {
    /// Clients are made when they are needed.
    pub fn new(connection: Connection) -> Self {
        let pool = Arc::new(Pool { connection, idle: Mutex::default() });
        Self { pool, slots: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// Waits until a slice may be read.
    ///
    /// # Errors
    /// `Closed` after [`close`](Self::close).
    pub async fn turn(&self) -> Result<Turn> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| closed("history"))?;
        Ok(Turn { pool: Arc::clone(&self.pool), _slot: slot })
    }

    /// Refuses further readers and ends the clients that wait for work. Those at work end within their time.
    pub async fn close(&self) {
        self.slots.close();
        let idle = self.pool.idle.lock().take_all();
        // A client that closes waits for its own threads.
        let _ = tokio::task::spawn_blocking(move || drop(idle)).await;
    }
}

impl Turn {
    /// Reads a slice; the sink comes back with how it ended, or with the error if the broker refuses or a client cannot be
    /// made.
    ///
    /// # Errors
    /// `Closed` when the runtime is shutting down: then the sink is gone.
    pub async fn read<S: SliceSink>(self, slice: Slice, mut sink: S) -> Result<(Result<SliceEnd>, S)> {
        let reading = tokio::task::spawn_blocking(move || {
            let end = self.pool.read_blocking(&slice, &mut sink);
            drop(self);
            (end, sink)
        });
        reading.await.map_err(|_| closed("history"))
    }
}

impl Pool {
    fn read_blocking(self: &Arc<Self>, slice: &Slice, sink: &mut impl SliceSink) -> Result<SliceEnd> {
        if slice.from >= slice.to {
            return Ok(SliceEnd::Whole);
        }
        let idle = self.idle.lock().take();
        let consumer = match idle {
            Some(consumer) => consumer,
            None => self
                .connection
                .slice_config()
                .create_with_context(Quiet)
                .map_err(|source| from_kafka("history", "Kafka consumer", source))?,
        };
        let end = read(&consumer, slice, sink)?;
        // One that failed is not used again.
        if consumer.unassign().is_ok() {
            // What was read ahead is not for the next reader.
            while consumer.poll(Duration::ZERO).is_some() {}
            self.keep(consumer);
        }
        Ok(end)
    }

    /// Keeps a client for the next reader.
    fn keep(self: &Arc<Self>, consumer: BaseConsumer<Quiet>) {
        let mut idle = self.idle.lock();
        let superfluous = idle.put(consumer, Instant::now());
        let is_first = !std::mem::replace(&mut idle.swept, true);
        drop(idle);
        if is_first {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
        // One that closes waits for its own threads, so nothing may be locked.
        drop(superfluous);
    }
}

/// Closes clients that have waited for too long, until none is left.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(pool) = pool.upgrade() else { return };
        let (old, goes_on) = {
            let mut idle = pool.idle.lock();
            (idle.take_old(Instant::now()), idle.swept)
        };
        drop(pool);
        if !old.is_empty() {
            let _ = tokio::task::spawn_blocking(move || drop(old)).await;
        }
        if !goes_on {
            return;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().take_all();
        if !idle.is_empty() {
            // Perhaps on an async worker, which must not wait for the clients' threads.
            drop(std::thread::Builder::new().name("kafka-close".into()).spawn(move || drop(idle)));
        }
    }
}

fn read(consumer: &BaseConsumer<Quiet>, slice: &Slice, sink: &mut impl SliceSink) -> Result<SliceEnd> {
    let about = || format!("{}[{}]", slice.topic, slice.partition);
    let deadline = Instant::now() + slice.time_max;
    // Otherwise it may take a second until a client asks for a topic that it does not know.
    consumer
        .fetch_metadata(Some(&slice.topic), LOOK_TIMEOUT)
        .map_err(|source| from_kafka("history", &about(), source))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&slice.topic, slice.partition, Offset::Offset(slice.from))
        .and_then(|()| consumer.assign(&list))
        .map_err(|source| from_kafka("history", &about(), source))?;
    let mut next = slice.from;
    while next < slice.to {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(SliceEnd::OutOfTime);
        }
        match consumer.poll(left.min(POLL_TIMEOUT)) {
            None => {}
            Some(Ok(message)) => {
                let record = record(&message);
                let is_ours = record.partition == slice.partition && record.topic == slice.topic;
                if !is_ours || record.offset < next {
                    continue;
                }
                if record.offset > next {
                    return Ok(SliceEnd::Missing);
                }
                next += 1;
                if sink.record(&record).is_break() {
                    return Ok(SliceEnd::Enough);
                }
            }
            Some(Err(error)) => match error.rdkafka_error_code() {
                Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => return Ok(SliceEnd::Missing),
                // The client tries again by itself, for as long as the slice may take.
                Some(Code::AllBrokersDown | Code::BrokerTransportFailure) => {
                    tracing::debug!(%error, "reading history");
                }
                _ => return Err(from_kafka("history", &about(), error)),
            },
        }
    }
    Ok(SliceEnd::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_wait_for_too_long_are_closed() {
        let (start, mut idle) = (Instant::now(), Idle::default());
        assert_eq!((idle.put('a', start), idle.put('b', start)), (None, None));
        assert_eq!(idle.put('c', start), Some('c'), "enough wait");
        idle.swept = true;
        // The one that is used stays; the other one is superfluous.
        let later = start + IDLE_MAX / 2;
        assert_eq!(idle.take(), Some('b'));
        assert_eq!(idle.put('b', later), None);
        assert!(idle.take_old(later).is_empty());
        assert_eq!((idle.take_old(start + IDLE_MAX), idle.swept), (vec![('a', start)], true));
        assert_eq!((idle.take_old(later + IDLE_MAX), idle.swept), (vec![('b', later)], false));
    }
}
