//! Pages of a room's history out of a partition.

use std::sync::Arc;
use std::time::Instant;

use super::log::{Found, Keep, Log, Wanted};
use crate::backplane::RoomId;
use crate::clients::kafka::fault::timed_out;
use crate::error::{Error, Result};

/// Records before the place from which is read that are looked at in any case for first copies of what comes after.
pub(crate) const LOOK_BACK_RECORDS: i64 = 10_000;
/// What is found is looked at for first copies so long before it, in ms: a message may be written half a minute after its publisher
/// was told that the outcome is unknown, and the publisher's retry is as late.
const RETRIED_WITHIN_MS: i64 = 60_000;
/// Times that are asked for are multiples of this, so that many who come back at once share an answer.
const ASKED_MS: i64 = 10_000;
/// Records that are read first when the newest messages of a room are asked for; ten times as many at each further attempt.
const NEWEST_RECORDS: i64 = 1_000;

/// Where a room's messages lie: in `reach..end` of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) room: RoomId,
    pub(crate) partition: i32,
    pub(crate) reach: i64,
    pub(crate) end: i64,
}

impl Place {
    /// The messages from offset `from` on, none of which is a repetition of one before it, as far as the bounds of one read, its
    /// time included, allow to look back. `None` where they do not allow to read them at all.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    pub(crate) async fn since(&self, log: &Arc<Log>, from: i64, limit: usize) -> Result<Option<Found>> {
        let (begun, look) = (Instant::now(), (from - LOOK_BACK_RECORDS).max(self.reach));
        let read = |look| log.read(self.wanted(look, from, self.end, Keep::First(limit)));
        let Some(found) = read(look).await? else { return Ok(None) };
        let Some(first) = found.messages.front().filter(|_| look > self.reach) else {
            return Ok(Some(found));
        };
        let since_ms = (first.appended_ms - RETRIED_WITHIN_MS).div_euclid(ASKED_MS) * ASKED_MS;
        let further = async {
            let earlier = log.at_time(self.partition, since_ms).await?.max(self.reach);
            if earlier < look { read(earlier).await } else { Ok(None) }
        };
        // What was found is an answer: that it cannot be looked at further, or not in time, is no reason to refuse it.
        let left = log.limits().time.saturating_sub(begun.elapsed());
        Ok(match tokio::time::timeout(left, further).await {
            Ok(Ok(Some(further))) => Some(further),
            _ => Some(found),
        })
    }

    /// The first messages from offset `next` on, or from the oldest.
    ///
    /// # Errors
    /// When the log cannot be read in time, or was trimmed meanwhile.
    pub(crate) async fn oldest(&self, log: &Arc<Log>, next: Option<i64>, limit: usize) -> Result<Found> {
        let from = next.unwrap_or(self.reach).max(self.reach);
        let look = (from - LOOK_BACK_RECORDS).max(self.reach);
        log.read(self.wanted(look, from, self.end, Keep::First(limit))).await?.ok_or_else(late)
    }

    /// The last messages before the one that lies directly before offset `next`, or up to the newest: looked for in ever larger
    /// parts of the log. Oldest first.
    ///
    /// # Errors
    /// When the log cannot be read in time, or was trimmed meanwhile.
    pub(crate) async fn newest(&self, log: &Arc<Log>, next: Option<i64>, limit: usize) -> Result<Found> {
        let to = next.map_or(self.end, |next| next - 1).max(self.reach);
        let mut records = NEWEST_RECORDS;
        loop {
            let from = (to - records).max(self.reach);
            let found = log.read(self.wanted(from, from, to, Keep::Last(limit))).await?.ok_or_else(late)?;
            if from == self.reach || found.messages.len() >= limit {
                return Ok(found);
            }
            records = records.saturating_mul(10);
        }
    }

    fn wanted(&self, look: i64, from: i64, to: i64, keep: Keep) -> Wanted {
        Wanted { room: self.room.clone(), partition: self.partition, look, from, to, keep }
    }
}

fn late() -> Error {
    timed_out("history", "the log could not be read in time, or was trimmed meanwhile")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Start;
    use crate::backplane::{Entrance, Envelope, Event, MessageId};
    use crate::clients::kafka::{ClientProperties, Cluster, Connection};
    use crate::kafka_history::log::ScanLimits;
    use bytes::Bytes;
    use rdkafka::ClientConfig;
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use std::time::Duration;

    /// For one look at the log. The broker is asked where a time lies until it answers, or for some seconds.
    const TIME: Duration = Duration::from_secs(10);

    struct Nowhere;
    impl Entrance for Nowhere {
        fn deliver(&self, batch: &mut Vec<Event>) {
            batch.clear();
        }
    }

    async fn log(kafka: &str) -> Arc<Log> {
        let start = Start {
            node: "n".into(),
            namespace: "n".into(),
            kafka: Some(kafka.into()),
            redis: None,
            settings: toml::Table::new(),
            connect_retry: None,
            entrance: Arc::new(Nowhere),
        };
        let connection = Connection::new(&start, ClientProperties::default()).expect("an address");
        let cluster = Cluster::connect(connection, Some(TIME)).await.expect("a cluster");
        Arc::new(Log::new(cluster, "t".into(), ScanLimits { records: 100_000, time: TIME }))
    }

    #[tokio::test]
    async fn what_was_found_is_the_answer_where_nobody_says_what_lies_further_back() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("t", 1, 1).expect("a topic");
        let kafka = broker.bootstrap_servers();
        let envelope = Envelope {
            room: RoomId::new("r"),
            id: MessageId(7),
            published_at_us: 0,
            info: Bytes::new(),
            payload: Bytes::from_static(b"x"),
        };
        let mut message = Vec::new();
        crate::envelope::encode(&envelope, None, &mut message);
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &kafka).create().expect("a producer");
        let send = |payload: &[u8]| {
            let record = BaseRecord::<(), [u8]>::to("t").partition(0).payload(payload);
            producer.send(record).map_err(|(error, _)| error).expect("queued");
        };
        let from = LOOK_BACK_RECORDS + 1;
        (0..from).for_each(|_| send(b""));
        send(&message);
        producer.flush(TIME).expect("written");

        let log = log(&kafka).await;
        let place = Place { room: RoomId::new("r"), partition: 0, reach: 0, end: from + 1 };
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
        broker.request_errors(RDKafkaApiKey::ListOffsets, &[refused; 10_000]);
        let found = place.since(&log, from, 10).await.expect("an answer").expect("a complete one");
        let offsets: Vec<i64> = found.messages.iter().map(|message| message.offset).collect();
        assert_eq!(offsets, [from]);
        log.close().await;
    }
}
