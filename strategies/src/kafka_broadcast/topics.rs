//! The topics of a namespace: what they are like, and that they are there.

use super::settings::Settings;
use crate::clients::kafka::{Cluster, TopicSpec, incarnation};
use crate::error::Result;

/// What the broker keeps of the control log, in ms. Only the last seconds matter; the rest is for people who investigate.
const CONTROL_RETENTION_MS: u64 = 600_000;

/// The control topic and the data topic of a namespace.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    pub(super) control: String,
    pub(super) data: String,
    partitions: u32,
    replication: Option<u32>,
    retention_ms: u64,
}

impl Topics {
    pub(super) fn of(namespace: &str, settings: &Settings) -> Self {
        Self {
            control: format!("{namespace}.members"),
            data: format!("{namespace}.broadcast"),
            partitions: settings.partitions.max(settings.hold),
            replication: settings.replication,
            retention_ms: u64::from(settings.retention_min) * 60_000,
        }
    }

    /// Creates what is not there, or no longer.
    ///
    /// # Errors
    /// When the cluster refuses or does not get it ready in time.
    pub(super) async fn ensure(&self, cluster: &Cluster) -> Result<()> {
        let control = TopicSpec {
            name: self.control.clone(),
            partitions: 1,
            replication: self.replication,
            config: vec![
                // The broker's clock, one for all: see `membership`.
                ("message.timestamp.type".into(), "LogAppendTime".into()),
                ("cleanup.policy".into(), "delete".into()),
                ("segment.ms".into(), CONTROL_RETENTION_MS.to_string()),
                ("retention.ms".into(), CONTROL_RETENTION_MS.to_string()),
                incarnation::mark(0)?,
            ],
        };
        let data = TopicSpec {
            name: self.data.clone(),
            partitions: self.partitions,
            replication: self.replication,
            config: vec![
                ("cleanup.policy".into(), "delete".into()),
                // The broker's clock, so that a node that was expelled finds what it missed.
                ("message.timestamp.type".into(), "LogAppendTime".into()),
                ("retention.ms".into(), self.retention_ms.to_string()),
                incarnation::mark(0)?,
            ],
        };
        tokio::try_join!(cluster.ensure_topic(&control), cluster.ensure_topic(&data)).map(drop)
    }
}
