//! The data topic's log, as history needs it.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::copies::Copies;
use super::history::RoomHistory;
use super::places::Places;
use super::reader::Standstill;
use super::settings::Settings;
use super::status::Status;
use crate::clients::kafka::{Cluster, Incarnations};
use crate::error::Result;
use crate::guarantees::Positions;
use crate::kafka_history::log::Log;
use crate::ring::{Feed, Rings};

/// The log, and what names places in it.
pub(super) struct Logs {
    pub(super) log: Arc<Log>,
    pub(super) incarnations: Arc<Incarnations>,
    pub(super) copies: Arc<Copies>,
}

impl Logs {
    pub(super) async fn look_at(cluster: &Cluster, topic: &str, settings: &Settings) -> Result<Self> {
        let incarnations = Incarnations::new(cluster, topic)?;
        let mark = incarnations.made().await?;
        if mark.is_none() && settings.has_positions() {
            tracing::warn!(
                topic,
                "the topic was not created by this strategy and has no mark: clients can resume on the node only that they \
                 were on"
            );
        }
        let rings = settings
            .rings()
            .map(|limits| Rings::new(Feed::Everything, Positions::Rising, limits, Instant::now()));
        Ok(Self {
            log: Arc::new(Log::new(cluster.clone(), topic.to_owned(), settings.scan())),
            incarnations: Arc::new(incarnations),
            copies: Arc::new(Copies::new(topic, mark, rings)?),
        })
    }

    pub(super) fn history(
        &self,
        settings: &Settings,
        (places, standstill): &(Arc<Places>, Arc<Standstill>),
        status: &watch::Receiver<Status>,
    ) -> Option<RoomHistory> {
        settings.has_positions().then(|| RoomHistory {
            log: Arc::clone(&self.log),
            incarnations: Arc::clone(&self.incarnations),
            copies: Arc::clone(&self.copies),
            places: Arc::clone(places),
            standstill: Arc::clone(standstill),
            status: status.clone(),
            join_timeout: settings.join_timeout(),
        })
    }
}
