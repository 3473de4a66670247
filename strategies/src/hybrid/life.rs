//! The lives of the log's topic: somebody may delete it while it is in use, and then it is created anew under the same name.

use parking_lot::Mutex;

use super::settings::Settings;
use crate::clients::kafka::{Cluster, Incarnations, TopicSpec, incarnation};
use crate::error::{Error, ErrorKind, Result};

/// What a topic's mark says of how it began.
const FIRST: u32 = 0;
const ANEW: u32 = 1;

/// The topic, and which life of it this node reads.
#[derive(Debug)]
pub(super) struct Life {
    topic: String,
    partitions: u32,
    replication: Option<u32>,
    retention_ms: u64,
    incarnations: Incarnations,
    read: Mutex<Read>,
}

/// The life that is read.
#[derive(Debug, Clone, Copy)]
struct Read {
    mark: Option<u64>,
    /// There may have been one before it.
    anew: bool,
}

impl Life {
    /// Makes sure of the topic.
    ///
    /// # Errors
    /// When the cluster refuses or is not ready, or the topic has another number of partitions.
    pub(super) async fn of(cluster: &Cluster, topic: &str, settings: &Settings) -> Result<Self> {
        let life = Self {
            topic: topic.to_owned(),
            partitions: settings.partitions,
            replication: settings.replication,
            retention_ms: u64::from(settings.retention_minutes) * 60_000,
            incarnations: Incarnations::new(cluster, topic)?,
            read: Mutex::new(Read { mark: None, anew: true }),
        };
        let found = cluster.ensure_topic(&life.spec(FIRST)?).await?;
        if found != life.partitions {
            return Err(life.mismatch(found));
        }
        let mark = life.incarnations.refreshed().await?;
        let anew = mark.is_none_or(|mark| incarnation::number_of(mark) != FIRST);
        *life.read.lock() = Read { mark, anew };
        Ok(life)
    }

    fn spec(&self, began: u32) -> Result<TopicSpec> {
        Ok(TopicSpec {
            name: self.topic.clone(),
            partitions: self.partitions,
            replication: self.replication,
            config: vec![
                ("retention.ms".into(), self.retention_ms.to_string()),
                // The broker's clock: a log that became shorter is found again by it.
                ("message.timestamp.type".into(), "LogAppendTime".into()),
                incarnation::mark(began)?,
            ],
        })
    }

    fn mismatch(&self, found: u32) -> Error {
        let problem = format!(
            "topic {} has {found} partitions, but `partitions` = {}; all nodes of a namespace need the same",
            self.topic, self.partitions
        );
        Error::new(ErrorKind::Config, "connect", problem)
    }

    /// Whether what is read now may be the rest of more: another topic of this name had come before.
    pub(super) fn is_anew(&self) -> bool {
        self.read.lock().anew
    }

    /// Whether the topic is the one that is read, as of a second ago.
    ///
    /// # Errors
    /// When the broker does not answer, or there is no such topic.
    pub(super) async fn is_same(&self) -> Result<bool> {
        Ok(self.incarnations.now().await? == self.read.lock().mark)
    }

    /// Whether the topic is known to be gone, or another one.
    pub(super) async fn is_over(&self) -> bool {
        let mark = self.read.lock().mark;
        // A broker that cannot be reached, or refuses for another reason, proves nothing.
        !self.incarnations.is_still(mark).await.unwrap_or(true)
    }

    /// Creates the topic anew where it is gone: whoever is here needs one. Its mark if it is another one than is read.
    ///
    /// # Errors
    /// When the cluster refuses or is not ready; trying again is safe.
    pub(super) async fn renew(&self, cluster: &Cluster) -> Result<Option<Option<u64>>> {
        let found = cluster.ensure_topic(&self.spec(ANEW)?).await?;
        if found < self.partitions {
            return Err(self.mismatch(found));
        }
        let mark = self.incarnations.refreshed().await?;
        Ok((mark != self.read.lock().mark).then_some(mark))
    }

    /// This life is read from now on.
    pub(super) fn follow(&self, mark: Option<u64>) {
        *self.read.lock() = Read { mark, anew: true };
    }
}
