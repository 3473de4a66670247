//! Telling a topic from one that was created anew under its name.
//!
//! Offsets of both look alike, and whoever goes on at an old one in the new topic misses messages in silence. The broker has
//! an identity per topic, which the client library does not show. So a topic gets a mark of its own when it is created: a
//! random value of a setting that does nothing where records are deleted by age (`delete.retention.ms` concerns compacted
//! topics only). It is created and deleted with the topic, in one step, and every node reads the same.
//!
//! The mark also carries a number of the strategy's own, e.g. how it divides rooms among partitions: the topic's present number
//! of partitions does not tell, because anybody may add some.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, ResourceSpecifier};
use rdkafka::error::KafkaError;
use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::fault::{again, closed, from_kafka, says_gone, timed_out};
use super::health::Quiet;
use crate::error::{Error, ErrorKind, Result};

/// The setting that carries the mark.
const SETTING: &str = "delete.retention.ms";
/// Marks lie in `BASE..2 * BASE`: some thousand years of milliseconds, which nobody sets for any other reason.
const BASE: u64 = 1 << 58;
/// The lowest bits of a mark carry the strategy's own number.
const NUMBER_BITS: u32 = 20;
/// How long a broker may take to answer, and how often is asked.
const ASK_TIMEOUT: Duration = Duration::from_millis(1_500);
const ASKED_MAX: u32 = 3;
/// An answer of the broker is used for this long.
const FRESH: Duration = Duration::from_secs(1);
/// How long a broker may take to learn of a topic that another one made, and how often is asked meanwhile.
const KNOWN_TIMEOUT: Duration = Duration::from_secs(10);
const KNOWN_POLL: Duration = Duration::from_millis(50);

/// A line of topic settings that marks a topic which is created now. The mark carries `number`, below 2²⁰.
///
/// # Errors
/// When the system has no random numbers.
pub fn mark(number: u32) -> Result<(String, String)> {
    let random = getrandom::u64().map_err(|source| {
        Error::new(ErrorKind::Config, "create topic", "the system has no random numbers").with_source(source)
    })?;
    let numbers = (1 << NUMBER_BITS) - 1;
    Ok((
        SETTING.to_owned(),
        (BASE | ((random % BASE) & !numbers) | (u64::from(number) & numbers)).to_string(),
    ))
}

/// The number that a mark carries.
pub fn number_of(mark: u64) -> u32 {
    // As many bits as `NUMBER_BITS`.
    (mark & ((1 << NUMBER_BITS) - 1)) as u32
}

/// Reads the mark of one topic.
pub struct Incarnations {
    broker: Arc<Broker>,
    /// The newest answer. Held while the broker is asked, so that one question serves all.
    answer: Arc<Mutex<Option<Answer>>>,
}

/// Whom to ask about the topic.
struct Broker {
    topic: String,
    admin: AdminClient<Quiet>,
}

/// What became of a question.
struct Answer {
    asked: Instant,
    ended: Instant,
    found: Result<Known>,
}

/// What the broker says of the topic.
#[derive(Debug, Clone, Copy)]
struct Known {
    mark: Option<u64>,
    /// Nothing is deleted before it is so old; `None` where it may be, because the log's size is bounded too.
    kept: Option<Duration>,
}

impl std::fmt::Debug for Incarnations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incarnations").field("topic", &self.broker.topic).finish_non_exhaustive()
    }
}

impl Incarnations {
    /// For this topic.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the client library refuses the settings.
    pub fn new(cluster: &Cluster, topic: &str) -> Result<Self> {
        let broker = Broker { topic: topic.to_owned(), admin: cluster.admin()? };
        Ok(Self { broker: Arc::new(broker), answer: Arc::default() })
    }

    /// The topic's mark as it was at most a second ago; `None` where the topic was not created with one.
    ///
    /// # Errors
    /// When the broker does not answer, or there is no such topic.
    pub async fn now(&self) -> Result<Option<u64>> {
        Ok(self.known(FRESH).await?.mark)
    }

    /// The mark of a topic that may have been made a moment ago: not every broker has to know it yet.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub async fn made(&self) -> Result<Option<u64>> {
        let begun = Instant::now();
        loop {
            match self.refreshed().await {
                Err(error) if says_gone(&error) && begun.elapsed() < KNOWN_TIMEOUT => {
                    tokio::time::sleep(KNOWN_POLL).await;
                }
                known => return known,
            }
        }
    }

    /// How long records are kept for sure; `None` where that depends on how many there are.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub async fn kept(&self) -> Result<Option<Duration>> {
        Ok(self.known(FRESH).await?.kept)
    }

    /// An answer that was asked for at most `age` before this call. A failure is one for all who called before it was known: it
    /// takes seconds, and whoever waits would only ask the same.
    async fn known(&self, age: Duration) -> Result<Known> {
        let called = Instant::now();
        let mut answer = Arc::clone(&self.answer).lock_owned().await;
        if let Some(Answer { asked, ended, found }) = &*answer {
            let serves = match found {
                Ok(_) => called.saturating_duration_since(*asked) <= age,
                Err(_) => *ended >= called,
            };
            if serves {
                return found.as_ref().copied().map_err(again);
            }
        }
        let broker = Arc::clone(&self.broker);
        // Apart from the caller, who may not wait that long: what comes of it is there for the next one.
        let asking = tokio::spawn(async move {
            let asked = Instant::now();
            let found = broker.ask().await;
            let told = found.as_ref().copied().map_err(again);
            *answer = Some(Answer { asked, ended: Instant::now(), found });
            told
        });
        asking.await.unwrap_or_else(|_| Err(closed("describe topic")))
    }

    /// The topic's mark as of this call.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub async fn refreshed(&self) -> Result<Option<u64>> {
        Ok(self.known(Duration::ZERO).await?.mark)
    }

    /// The topic's mark as [`now`](Self::now), if the broker says it within `time_max`.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub async fn now_within(&self, time_max: Duration) -> Result<Option<u64>> {
        let late = || timed_out("describe topic", "the broker does not say which topic it is");
        tokio::time::timeout(time_max, self.now()).await.unwrap_or_else(|_| Err(late()))
    }

    /// Whether it is the topic with this mark, as of this call. It is not where there is none any more.
    ///
    /// # Errors
    /// When the broker does not answer, or refuses for another reason: that proves nothing.
    pub async fn is_still(&self, mark: Option<u64>) -> Result<bool> {
        match self.refreshed().await {
            Err(error) if says_gone(&error) => Ok(false),
            now => Ok(now? == mark),
        }
    }
}

impl Broker {
    /// Asks, and where nobody answers looks who is there and asks again: the client goes on asking the broker that it chose,
    /// also when that one is gone.
    async fn ask(self: &Arc<Self>) -> Result<Known> {
        let mut asked = 1;
        loop {
            match self.ask_once().await {
                Err(error) if error.kind() != ErrorKind::Broker && asked < ASKED_MAX => {
                    tracing::debug!(%error, topic = self.topic, "asking another broker");
                    let broker = Arc::clone(self);
                    let look = tokio::task::spawn_blocking(move || {
                        broker.admin.inner().fetch_metadata(None, ASK_TIMEOUT)
                    });
                    // If it fails, so does what is asked next.
                    drop(look.await);
                    asked += 1;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_once(&self) -> Result<Known> {
        let topic = ResourceSpecifier::Topic(&self.topic);
        let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
        let answers = self.admin.describe_configs([&topic], &options).await;
        let answers = answers.map_err(|source| from_kafka("describe topic", &self.topic, source))?;
        let Some(answer) = answers.into_iter().next() else {
            return Err(Error::new(ErrorKind::Broker, "describe topic", "the broker's answer is empty"));
        };
        let resource =
            answer.map_err(|code| from_kafka("describe topic", &self.topic, KafkaError::AdminOp(code)))?;
        let entry = resource.get(SETTING).filter(|entry| entry.source == ConfigSource::DynamicTopic);
        let mark = entry.and_then(|entry| entry.value.as_ref()?.parse::<u64>().ok());
        let value = |name| resource.get(name).and_then(|entry| entry.value.as_deref());
        let kept = match (value("retention.ms"), value("retention.bytes")) {
            // Forever, and whatever the size.
            (Some("-1"), Some("-1")) => Some(Duration::MAX),
            (Some(age_ms), Some("-1")) => age_ms.parse().ok().map(Duration::from_millis),
            _ => None,
        };
        Ok(Known { mark: mark.filter(|mark| (BASE..2 * BASE).contains(mark)), kept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_and_lie_where_they_are_looked_for() {
        let marks: Vec<u64> = (0..4).map(|_| mark(7).unwrap().1.parse().unwrap()).collect();
        assert!(marks.iter().all(|mark| (BASE..2 * BASE).contains(mark)), "{marks:?}");
        assert!(marks.windows(2).all(|pair| pair[0] != pair[1]), "{marks:?}");
        assert!(marks.iter().all(|&mark| number_of(mark) == 7), "{marks:?}");
    }
}
