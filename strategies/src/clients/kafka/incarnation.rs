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
use super::fault::from_kafka;
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
    topic: String,
    admin: Arc<AdminClient<Quiet>>,
    /// The newest answer and when it was asked for. Held while the broker is asked, so that one question serves all.
    known: Mutex<Option<(Instant, Known)>>,
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
        f.debug_struct("Incarnations").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Incarnations {
    /// For this topic.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when the client library refuses the settings.
    pub fn new(cluster: &Cluster, topic: &str) -> Result<Self> {
        Ok(Self { topic: topic.to_owned(), admin: Arc::new(cluster.admin()?), known: Mutex::new(None) })
    }

    /// The topic's mark as it was at most a second ago; `None` where the topic was not created with one.
    ///
    /// # Errors
    /// When the broker does not answer, or there is no such topic.
    pub async fn now(&self) -> Result<Option<u64>> {
        Ok(self.known().await?.mark)
    }

    /// How long records are kept for sure; `None` where that depends on how many there are.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub async fn kept(&self) -> Result<Option<Duration>> {
        Ok(self.known().await?.kept)
    }

    async fn known(&self) -> Result<Known> {
        let mut known = self.known.lock().await;
        if let Some((_, known)) = known.filter(|(asked, _)| asked.elapsed() < FRESH) {
            return Ok(known);
        }
        let (asked, answer) = (Instant::now(), self.ask().await?);
        *known = Some((asked, answer));
        Ok(answer)
    }

    /// The topic's mark as of this call.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub async fn refreshed(&self) -> Result<Option<u64>> {
        *self.known.lock().await = None;
        self.now().await
    }

    /// Asks, and where nobody answers looks who is there and asks again: the client goes on asking the broker that it chose,
    /// also when that one is gone.
    async fn ask(&self) -> Result<Known> {
        let mut asked = 1;
        loop {
            match self.ask_once().await {
                Err(error) if error.kind() != ErrorKind::Broker && asked < ASKED_MAX => {
                    tracing::debug!(%error, topic = self.topic, "asking another broker");
                    let admin = Arc::clone(&self.admin);
                    let look =
                        tokio::task::spawn_blocking(move || admin.inner().fetch_metadata(None, ASK_TIMEOUT));
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
