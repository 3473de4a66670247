//! Starting again from the control log's tail: it was trimmed beyond this node's place in it, or is another one.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::Keeper;
use super::looking::log_of;
use crate::kafka_broadcast::control::Tail;
use crate::kafka_broadcast::membership::View;

/// How soon the control log is tried again when it cannot be opened.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);

impl Keeper {
    /// Opens the log anew, if that is called for. A topic that is gone is created anew: whoever is here needs one.
    pub(super) fn reopen(&self) -> Option<JoinHandle<Option<(Tail, View)>>> {
        if !self.tail.standstill.take() {
            return None;
        }
        let (cluster, topics) = (self.parts.cluster.clone(), self.parts.topics.clone());
        let incarnations = Arc::clone(&self.parts.control_log);
        let (stats, silent) = (Arc::clone(&self.parts.stats), self.parts.writer.silent());
        Some(tokio::spawn(async move {
            let opened = async {
                topics.ensure(&cluster).await?;
                let log = log_of(&incarnations).await?;
                Tail::open(&cluster, (&topics.control, log), &stats, &silent).await
            };
            match opened.await {
                Ok(opened) => Some(opened),
                Err(error) => {
                    tracing::warn!(%error, "the control log cannot be read; trying again");
                    tokio::time::sleep(REOPEN_PAUSE).await;
                    None
                }
            }
        }))
    }

    pub(super) async fn reopened(&mut self, opened: Option<(Tail, View)>) {
        let Some((tail, view)) = opened else { return self.tail.standstill.raise() };
        self.tail.close().await;
        let is_another = view.log() != self.view.log();
        (self.tail, self.view) = (tail, view);
        // Its `Join` may lie before the part of the log that was read.
        self.own.admitted |= self.view.member(self.own.incarnation).is_some();
        if self.own.admitted && self.view.member(self.own.incarnation).is_none() {
            self.loss = Some(match is_another {
                true => "the control log was deleted, so nobody knew who was a member",
                false => "it stood still for longer than the control log is kept",
            });
        }
    }
}
