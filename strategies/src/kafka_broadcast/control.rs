//! The control log as a Kafka topic of one partition: appending to it and reading it in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;

use super::membership::{Entry, View, view_of_tail};
use super::reader::Standstill;
use super::record::Record;
use super::settings::Settings;
use crate::clients::kafka::{
    Cluster, Consumer, ConsumerSettings, Link, Producer, RecordSink, consumer, fault, producer::NoAck,
};
use crate::error::Result;
use crate::stats::Stats;

/// Records read ahead of the keeper; beyond it the reading thread waits.
const READ_AHEAD_RECORDS: usize = 4_096;
/// Records from the end in which a starting node looks for an anchor first. With 64 members that is some 2.5 s.
const TAIL_RECORDS: i64 = 512;
/// How long reading the tail may take.
const TAIL_TIMEOUT: Duration = Duration::from_secs(10);
const PARTITION: i32 = 0;

/// Appends records.
#[derive(Debug, Clone)]
pub(super) struct Appender {
    topic: String,
    producer: Producer<NoAck>,
}

impl Appender {
    pub(super) fn new(cluster: &Cluster, settings: &Settings, topic: &str) -> Result<Self> {
        let producer = Producer::new(cluster.connection(), &settings.control_producer(), None)?;
        Ok(Self { topic: topic.to_owned(), producer })
    }

    /// Sends a record. Whether it arrived shows when it is read back.
    pub(super) fn append(&self, record: &Record) {
        if let Err((error, _)) =
            self.producer.send(&self.topic, Some(PARTITION), None, &record.encode(), NoAck)
        {
            tracing::warn!(%error, "a membership record could not be sent");
        }
    }

    /// Waits until everything appended is acknowledged.
    pub(super) async fn close(&self, deadline: Duration) -> Result<()> {
        self.producer.close(deadline).await
    }
}

/// Reads the log from its tail on.
#[derive(Debug)]
pub(super) struct Tail {
    consumer: Consumer,
    entries: mpsc::Receiver<Entry>,
    /// Raised when the log no longer holds the next record.
    pub(super) standstill: Arc<Standstill>,
}

impl Tail {
    /// Reads what is in the log (a topic, and which one of that name) and returns the view of it; [`next`](Self::next) goes on from there. `silent` says from then on
    /// whether the broker that leads it is connected and answers nothing.
    pub(super) async fn open(
        cluster: &Cluster,
        (topic, log): (&str, u64),
        stats: &Arc<Stats>,
        silent: &Arc<AtomicBool>,
    ) -> Result<(Self, View)> {
        let name = topic.to_owned();
        let (start, end) = cluster
            .run(move |cluster| {
                let first = |offsets: Vec<(i32, i64)>| offsets.first().map_or(0, |&(_, offset)| offset);
                let start = first(cluster.starts_blocking(&name, &[PARTITION])?);
                Ok((start, first(cluster.ends_blocking(&name, &[PARTITION])?)))
            })
            .await?;
        let recent = start.max(end - TAIL_RECORDS);
        let (tail, entries) = Self::read(cluster, topic, (stats, silent), recent, end).await?;
        if let Some(view) = view_of_tail(log, offset(recent), &entries) {
            return Ok((tail, view));
        }
        let (tail, entries) = if recent == start {
            (tail, entries)
        } else {
            Self::read(cluster, topic, (stats, silent), start, end).await?
        };
        let view = view_of_tail(log, offset(start), &entries).unwrap_or_else(|| {
            let mut view = View::vacant(log, offset(start));
            entries
                .iter()
                .for_each(|entry| view.apply(entry.offset, entry.appended_ms, entry.record.as_ref()));
            view
        });
        Ok((tail, view))
    }

    async fn read(
        cluster: &Cluster,
        topic: &str,
        (stats, silent): (&Arc<Stats>, &Arc<AtomicBool>),
        from: i64,
        end: i64,
    ) -> Result<(Self, Vec<Entry>)> {
        let (sender, receiver) = mpsc::channel(READ_AHEAD_RECORDS);
        let standstill = Arc::new(Standstill::default());
        silent.store(false, Relaxed);
        let sink = Sink {
            entries: sender,
            standstill: Arc::clone(&standstill),
            stats: Arc::clone(stats),
            silent: Arc::clone(silent),
            broken: false,
        };
        let consumer = Consumer::start(cluster, &ConsumerSettings::default(), sink)?;
        let (warm, name) = (consumer.clone(), topic.to_owned());
        cluster.run(move |_| warm.refresh_blocking(&name, TAIL_TIMEOUT)).await?;
        let mut tail = Self { consumer, entries: receiver, standstill };
        tail.consumer.assign_blocking(topic, &[(PARTITION, from)])?;
        let mut entries = Vec::new();
        let all = async {
            while entries.last().map_or(from, |last: &Entry| last.offset as i64 + 1) < end {
                let Some(entry) = tail.entries.recv().await else { break };
                entries.push(entry);
            }
        };
        if tokio::time::timeout(TAIL_TIMEOUT, all).await.is_err() {
            tail.close().await;
            let text = format!("{topic}: read {} of {} records in time", entries.len(), end - from);
            return Err(fault::timed_out("connect", text));
        }
        Ok((tail, entries))
    }

    /// The next record. Cancelling the future loses nothing.
    pub(super) async fn next(&mut self) -> Option<Entry> {
        self.entries.recv().await
    }

    /// The next record, if it was read already.
    pub(super) fn try_next(&mut self) -> Option<Entry> {
        self.entries.try_recv().ok()
    }

    /// Stops reading.
    pub(super) async fn close(&mut self) {
        // Closed first, so that the reading thread does not wait for room.
        self.entries.close();
        self.consumer.stop().await;
    }
}

fn offset(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

/// Hands records to the keeper.
struct Sink {
    entries: mpsc::Sender<Entry>,
    standstill: Arc<Standstill>,
    stats: Arc<Stats>,
    silent: Arc<AtomicBool>,
    broken: bool,
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.note_broken(false);
    }
}

impl Sink {
    fn note_broken(&mut self, broken: bool) {
        if broken != self.broken {
            self.broken = broken;
            self.stats.links_down.add(if broken { 1 } else { -1 });
        }
    }
}

impl RecordSink for Sink {
    fn record(&mut self, record: &consumer::Record<'_>) {
        let decoded = Record::decode(record.payload);
        if let Err(error) = &decoded {
            self.stats.corrupt.add(1);
            tracing::warn!(offset = record.offset, %error, "membership record skipped");
        }
        // A closed channel means that the keeper is gone: nobody wants the record.
        let _ = self.entries.blocking_send(Entry {
            offset: offset(record.offset),
            appended_ms: record.timestamp_ms.unwrap_or(0),
            record: decoded.ok(),
        });
    }

    fn batch_end(&mut self) {}

    fn link(&mut self, change: Link) {
        match change {
            Link::Broken => self.note_broken(true),
            Link::Restored => self.note_broken(false),
            Link::OutOfRange => self.standstill.raise(),
        }
    }

    fn lag(&mut self, _messages: i64) {}

    fn silent(&mut self, silent: bool) {
        self.silent.store(silent, Relaxed);
    }
}
