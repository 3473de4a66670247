//! Where a node stands, and why it may have to stop for good.

use std::time::Instant;

use tokio::task::JoinHandle;

/// Where this node stands, for those who wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Not yet, or not any more, a member whom every message reaches. `awaits` counts members that did not acknowledge.
    Joining { awaits: usize },
    /// Every message whose publish is called until then reaches this node; renewed with every confirmed sign of life.
    Effective { until: Instant },
    /// For good.
    Ended { reason: &'static str },
}

/// Why a node may have to stop for good.
pub(super) const SUPERSEDED: &str =
    "another process joined the cluster under this node's name; give every node a name of its own";
pub(super) const FULL: &str = "the cluster has as many members as it can have";
pub(super) const SHUT_DOWN: &str = "this node's backplane was shut down";

/// Resolves with what a task found, if there is one.
pub(super) async fn finished<T>(task: &mut Option<JoinHandle<Option<T>>>) -> Option<T> {
    match task {
        // A task that panicked found nothing.
        Some(task) => task.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}
