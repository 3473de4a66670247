//! Lag and link state, read from librdkafka's own statistics: exact, and without a request to the broker.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use super::group::{self, GroupHook};

/// Forwards librdkafka's log lines and errors to `tracing`. A lost broker is a state of the world, not a failure of
/// this program, and librdkafka repeats it up to dozens of times: it is logged at debug level here and reported
/// once by whoever owns the client.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
            if facility != "FAIL" =>
        {
            tracing::warn!(target: "librdkafka", facility, "{text}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{text}"),
    }
}

/// Context of a client that only needs its log lines forwarded.
#[derive(Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log_line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

/// Context of a reading consumer: keeps the newest lag and link state, and passes rebalances on.
pub struct Health {
    lag_messages: AtomicI64,
    links_up: AtomicBool,
    links_lost: AtomicU64,
    /// Disconnects so far, by broker id.
    disconnects: Mutex<HashMap<i64, i64>>,
    /// A broker that owes an answer for so long is silent.
    silent_after: Duration,
    silence: Silence,
    hook: Option<Arc<dyn GroupHook>>,
    /// Set when the consumer is to stop.
    stop: Arc<AtomicBool>,
}

impl Health {
    /// A context; `hook` for a member of a consumer group, `stop` says that the consumer is to end.
    pub(super) fn new(
        silent_after: Duration,
        hook: Option<Arc<dyn GroupHook>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        Self {
            lag_messages: AtomicI64::new(-1),
            links_up: AtomicBool::new(true),
            links_lost: AtomicU64::new(0),
            disconnects: Mutex::default(),
            silent_after,
            silence: Silence::default(),
            hook,
            stop,
        }
    }

    /// Messages that the broker holds in assigned partitions and that were not read yet; -1 before the first figure.
    /// At most a quarter of a second old.
    pub fn lag_messages(&self) -> i64 {
        self.lag_messages.load(Relaxed)
    }

    /// Whether every broker that leads an assigned partition, and was connected before, is connected. At most
    /// a quarter of a second old.
    pub fn links_up(&self) -> bool {
        self.links_up.load(Relaxed)
    }

    /// How often such a link was seen to have been lost since the start, back by now or not.
    pub fn links_lost(&self) -> u64 {
        self.links_lost.load(Relaxed)
    }

    /// Brokers that are connected and do not answer. At most a quarter of a second old.
    pub fn silence(&self) -> &Silence {
        &self.silence
    }

    fn note(&self, statistics: &Statistics<'_>) {
        self.silence.note(statistics, self.silent_after);
        self.lag_messages.store(statistics.lag(), Relaxed);
        let mut known = self.disconnects.lock();
        let (mut lost, mut up) = (0, true);
        for broker in statistics.brokers.values().filter(|broker| broker.nodeid >= 0) {
            let before = known.insert(broker.nodeid, broker.disconnects).unwrap_or(0);
            // A link that nothing is read over may be closed for being idle.
            if !broker.toppars.is_empty() {
                lost += u64::from(broker.disconnects > before);
                up &= broker.state == "UP" || broker.disconnects == 0;
            }
        }
        self.links_up.store(up, Relaxed);
        self.links_lost.fetch_add(lost, Relaxed);
    }
}

/// Partitions whose broker keeps the connection and answers nothing: it stands still, or the way to it swallows everything.
/// The client itself would notice after a minute.
#[derive(Debug, Default)]
pub struct Silence {
    any: AtomicBool,
    all: AtomicBool,
    /// By silent broker, what it leads.
    brokers: Mutex<HashMap<i64, Vec<(String, i32)>>>,
    suspects: Mutex<Suspects>,
}

/// Brokers that seemed silent at the last look. A process that got no processor for a while finds every broker silent at first,
/// because it has not yet read what they answered: only a second look, soon after the first, tells.
#[derive(Debug, Default)]
struct Suspects {
    looked: Option<Instant>,
    brokers: HashSet<i64>,
}

/// Looks further apart than this (they are meant to be a quarter of a second apart) were made by a process that got no processor.
const LOOKS_APART_MAX: Duration = Duration::from_millis(600);

impl Suspects {
    /// Takes those that seem silent now, and says which of them did so at the last look, if that was not long ago.
    fn confirm(&mut self, seeming: HashSet<i64>, now: Instant) -> HashSet<i64> {
        let soon = self.looked.is_some_and(|looked| now.duration_since(looked) <= LOOKS_APART_MAX);
        let confirmed =
            seeming.iter().filter(|broker| soon && self.brokers.contains(broker)).copied().collect();
        *self = Self { looked: Some(now), brokers: seeming };
        confirmed
    }
}

impl Silence {
    /// Whether there are any.
    pub fn is_any(&self) -> bool {
        self.any.load(Relaxed)
    }

    /// Whether the broker that leads a partition is silent, or every broker is that anything is read from.
    pub fn covers(&self, topic: &str, partition: i32) -> bool {
        self.is_any()
            && (self.all.load(Relaxed)
                || self.brokers.lock().values().any(|led| leads(led, topic, partition)))
    }

    /// A record of this partition came: its broker speaks again.
    pub(super) fn heard(&self, topic: &str, partition: i32) {
        if self.is_any() {
            let mut brokers = self.brokers.lock();
            brokers.retain(|_, led| !leads(led, topic, partition));
            self.all.store(false, Relaxed);
            self.any.store(!brokers.is_empty(), Relaxed);
        }
    }

    fn note(&self, statistics: &Statistics<'_>, limit: Duration) {
        let limit_us = i64::try_from(limit.as_micros()).unwrap_or(i64::MAX);
        let mut silent = self.brokers.lock();
        let readers = || statistics.brokers.values().filter(|broker| !broker.toppars.is_empty());
        let mut suspects = self.suspects.lock();
        let seems_silent = |broker: &&Broker<'_>| {
            // What was only just asked cannot be answered yet; but one that was silent is, until it speaks.
            let seemed = silent.contains_key(&broker.nodeid) || suspects.brokers.contains(&broker.nodeid);
            let asked = broker.txidle > limit_us || seemed;
            let owes = broker.state == "UP" && broker.waitresp_cnt > 0;
            owes && asked && broker.rxidle > limit_us
        };
        let seeming = readers().filter(seems_silent).map(|broker| broker.nodeid).collect();
        let confirmed = suspects.confirm(seeming, Instant::now());
        drop(suspects);
        let mut all = true;
        for broker in readers() {
            if confirmed.contains(&broker.nodeid) {
                let led = broker.toppars.values().map(|part| (part.topic.to_owned(), part.partition));
                silent.insert(broker.nodeid, led.collect());
            } else {
                silent.remove(&broker.nodeid);
                all = false;
            }
        }
        // One that leads nothing any more is nobody's concern.
        let leads_some = |id: &i64| {
            statistics.brokers.values().any(|broker| broker.nodeid == *id && !broker.toppars.is_empty())
        };
        silent.retain(|id, _| leads_some(id));
        let any = !silent.is_empty();
        self.all.store(any && all, Relaxed);
        self.any.store(any, Relaxed);
    }
}

fn leads(led: &[(String, i32)], topic: &str, partition: i32) -> bool {
    led.iter().any(|(of, number)| of == topic && *number == partition)
}

impl ClientContext for Health {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log_line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics<'_>>(statistics) {
            Ok(statistics) => self.note(&statistics),
            Err(error) => tracing::warn!(%error, "librdkafka's statistics are not readable; lag is unknown"),
        }
    }
}

impl ConsumerContext for Health {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        // Without a hook nobody subscribed, and so nothing is ever rebalanced.
        if let Some(hook) = &self.hook {
            group::rebalance(&**hook, consumer, code, partitions, &self.stop);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed");
        }
    }
}

/// The part of librdkafka's statistics (STATISTICS.md there) that is used here.
#[derive(Deserialize)]
struct Statistics<'a> {
    #[serde(borrow)]
    brokers: HashMap<&'a str, Broker<'a>>,
    #[serde(borrow)]
    topics: HashMap<&'a str, Topic<'a>>,
}

#[derive(Deserialize)]
struct Broker<'a> {
    nodeid: i64,
    state: &'a str,
    disconnects: i64,
    /// Requests that wait for an answer.
    waitresp_cnt: i64,
    /// Time since something was sent, in µs.
    txidle: i64,
    /// Time since something was received, in µs.
    rxidle: i64,
    #[serde(borrow)]
    toppars: HashMap<&'a str, Led<'a>>,
}

/// A partition that a broker leads.
#[derive(Deserialize)]
struct Led<'a> {
    topic: &'a str,
    partition: i32,
}

#[derive(Deserialize)]
struct Topic<'a> {
    #[serde(borrow)]
    partitions: HashMap<&'a str, Partition<'a>>,
}

#[derive(Deserialize)]
struct Partition<'a> {
    fetch_state: &'a str,
    consumer_lag: i64,
}

impl Statistics<'_> {
    fn lag(&self) -> i64 {
        self.topics
            .values()
            .flat_map(|topic| topic.partitions.values())
            .filter(|partition| partition.fetch_state == "active")
            .map(|partition| partition.consumer_lag.max(0))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);
    const SAMPLE: &str = r#"{ "name": "x", "brokers": {
        "a:1/1": {"nodeid": 1, "state": "UP", "disconnects": 0,
            "waitresp_cnt": 1, "txidle": 400000, "rxidle": 400000, "toppars": {"t-0": {"topic": "t", "partition": 0}}, "rtt": {"min": 1}},
        "a:1/bootstrap": {"nodeid": -1, "state": "DOWN", "disconnects": 3,
            "waitresp_cnt": 0, "txidle": -1, "rxidle": -1, "toppars": {}},
        "b:1/2": {"nodeid": 2, "state": "DOWN", "disconnects": 5,
            "waitresp_cnt": 0, "txidle": -1, "rxidle": -1, "toppars": {}} },
        "topics": {"t": {"topic": "t", "partitions": {
            "0": {"partition": 0, "fetch_state": "active", "consumer_lag": 7},
            "1": {"partition": 1, "fetch_state": "none", "consumer_lag": 5},
            "2": {"partition": 2, "fetch_state": "active", "consumer_lag": -1} }}}}"#;

    fn see(health: &Health, state: &str, disconnects: u32) -> (bool, u64) {
        let disconnects = format!("\"disconnects\": {disconnects},\n");
        let sample = SAMPLE.replace("\"UP\"", state).replace("\"disconnects\": 0,\n", &disconnects);
        health.stats_raw(sample.as_bytes());
        (health.links_up(), health.links_lost())
    }

    #[test]
    fn lag_counts_active_partitions() {
        let health = Health::new(LIMIT, None, Arc::default());
        assert_eq!(health.lag_messages(), -1);
        health.stats_raw(SAMPLE.as_bytes());
        assert_eq!(health.lag_messages(), 7);
    }

    #[test]
    fn links_are_those_of_leaders_that_were_connected() {
        let health = Health::new(LIMIT, None, Arc::default());
        assert_eq!(see(&health, "\"CONNECT\"", 0), (true, 0), "not connected yet is not lost");
        assert_eq!(see(&health, "\"UP\"", 0), (true, 0));
        assert_eq!(see(&health, "\"CONNECT\"", 1), (false, 1));
        assert_eq!(see(&health, "\"TRY_CONNECT\"", 1), (false, 1));
        assert_eq!(see(&health, "\"UP\"", 1), (true, 1));
        assert_eq!(see(&health, "\"UP\"", 2), (true, 2), "lost and back between two looks");
    }

    /// Looks at a broker with a request under way, and says whether its partition is silent.
    fn idle(health: &Health, sent_ms: u32, received_ms: u32) -> bool {
        let sample = SAMPLE
            .replace("\"txidle\": 400000", &format!("\"txidle\": {}", sent_ms * 1_000))
            .replace("\"rxidle\": 400000", &format!("\"rxidle\": {}", received_ms * 1_000));
        health.stats_raw(sample.as_bytes());
        health.silence().covers("t", 0)
    }

    #[test]
    fn a_broker_is_silent_when_it_owes_an_answer_for_too_long() {
        let health = Health::new(LIMIT, None, Arc::default());
        assert!(!idle(&health, 500, 500), "the broker holds an empty fetch");
        assert!(!idle(&health, 10, 9_000), "only just asked again, after a pause of ours");
        assert!(!idle(&health, 1_100, 1_100), "one look is not enough");
        assert!(idle(&health, 10, 1_350), "asking more does not make it speak");
        assert!(idle(&health, 10, 1_600));
        assert!(health.silence().covers("another topic", 7), "it is the only one");
        assert!(!idle(&health, 10, 10));
        assert!(!health.silence().is_any());
        idle(&health, 1_100, 1_100);
        assert!(idle(&health, 1_350, 1_350));
        health.silence().heard("t", 0);
        assert!(!health.silence().covers("t", 0), "it spoke");
    }
    #[test]
    fn a_process_that_was_held_up_looks_again() {
        let (mut suspects, began) = (Suspects::default(), Instant::now());
        let at = |ms| began + Duration::from_millis(ms);
        let seeming = || HashSet::from([1]);
        assert!(suspects.confirm(seeming(), at(0)).is_empty());
        assert!(suspects.confirm(seeming(), at(2_000)).is_empty(), "it was held up in between");
        assert_eq!(suspects.confirm(seeming(), at(2_250)), seeming());
        assert!(suspects.confirm(HashSet::new(), at(2_500)).is_empty());
        assert!(suspects.confirm(seeming(), at(2_750)).is_empty());
    }
}
