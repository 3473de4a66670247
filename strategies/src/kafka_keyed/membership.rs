//! Reading through a consumer group: where a member starts, and when it is ready.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::rooms::Rooms;
use crate::clients::kafka::fault::timed_out;
use crate::clients::kafka::{Cluster, GroupHook};
use crate::error::Result;

/// One node's membership.
pub(super) struct Membership {
    cluster: Cluster,
    topic: String,
    rooms: Arc<Rooms>,
    /// Whether other nodes are in the same group: then a partition goes on where its last reader stopped.
    shared: bool,
    /// Partitions held; `None` before the group's first word.
    held: watch::Sender<Option<usize>>,
}

impl Membership {
    pub(super) fn new(cluster: Cluster, topic: String, rooms: Arc<Rooms>, shared: bool) -> Self {
        Self { cluster, topic, rooms, shared, held: watch::channel(None).0 }
    }

    /// Waits until the group has given its first word: all partitions (and those that somebody added) for a group of one, any
    /// for a shared one.
    pub(super) async fn ready(&self, deadline: Duration) -> Result<()> {
        let all = self.rooms.partitions().count();
        let mut held = self.held.subscribe();
        let enough = held.wait_for(|held| held.is_some_and(|held| self.shared || held >= all));
        match tokio::time::timeout(deadline, enough).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(timed_out("connect", "the consumer group did not assign partitions in time")),
        }
    }

    fn start(&self, partition: i32, committed: Option<i64>) -> Option<i64> {
        // A group of one knows best itself how far it read; offsets committed by an earlier process are history that
        // no client of this one waits for.
        let known = self.rooms.known_next(partition);
        if self.shared { committed.or(known) } else { known }
    }
}

impl GroupHook for Membership {
    fn assigned(&self, committed: &[(i32, Option<i64>)]) -> Result<Vec<(i32, i64)>> {
        let starts: Vec<_> =
            committed.iter().map(|&(partition, offset)| (partition, self.start(partition, offset))).collect();
        let fresh: Vec<i32> =
            starts.iter().filter(|(_, start)| start.is_none()).map(|&(partition, _)| partition).collect();
        let mut offsets = self.cluster.ends_blocking(&self.topic, &fresh)?;
        offsets.extend(starts.iter().filter_map(|&(partition, start)| Some((partition, start?))));
        self.rooms.place(&offsets);
        self.held.send_replace(Some(offsets.len()));
        Ok(offsets)
    }

    fn revoked(&self, partitions: &[i32]) -> Vec<(i32, i64)> {
        self.held.send_replace(None);
        partitions
            .iter()
            .filter_map(|&partition| Some((partition, self.rooms.known_next(partition)?)))
            .collect()
    }
}
