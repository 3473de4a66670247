//! What is asked about a partition, asked once for all who want to know the same.
//!
//! Thousands of clients that come back at once all ask where their partition ends. Whoever asks waits for a turn, and all who
//! wait by then share one answer: it was asked for after each of them called.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::clients::kafka::Cluster;
use crate::clients::kafka::fault::closed;
use crate::error::{Error, Result};

/// Questions that are asked at a time, each on a thread that may be blocked. One partition that nobody leads must not keep the
/// others waiting.
const ASKED_MAX: usize = 16;

/// About one partition, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// Its first offset.
    Start(i32),
    /// The offset of the next record.
    End(i32),
    /// The first record that was not appended before this time (ms since the Unix epoch), or the end.
    AtTime(i32, i64),
    /// Of the whole topic: 1 if all its replicas are on one broker, else 0.
    OneBroker,
}

/// Asks about the partitions of one topic.
#[derive(Debug)]
pub(super) struct Questions {
    cluster: Cluster,
    topic: String,
    turns: Semaphore,
    waiting: Mutex<HashMap<Question, Vec<oneshot::Sender<Result<i64>>>>>,
}

impl Questions {
    pub(super) fn new(cluster: Cluster, topic: String) -> Self {
        Self { cluster, topic, turns: Semaphore::new(ASKED_MAX), waiting: Mutex::default() }
    }

    /// The answer, asked for after this call.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(super) async fn ask(self: &Arc<Self>, question: Question) -> Result<i64> {
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting.lock();
            let who = waiting.entry(question).or_default();
            who.push(answer);
            who.len() == 1
        };
        if is_first {
            tokio::spawn(Arc::clone(self).answer(question));
        }
        answered.await.unwrap_or_else(|_| Err(closed("history")))
    }

    async fn answer(self: Arc<Self>, question: Question) {
        let turn = self.turns.acquire().await;
        // Who comes from here on asks anew.
        let who = self.waiting.lock().remove(&question).unwrap_or_default();
        if turn.is_err() {
            return;
        }
        let topic = self.topic.clone();
        let first = |offsets: Vec<(i32, i64)>| offsets.first().map_or(0, |&(_, offset)| offset);
        let asked = self.cluster.run(move |cluster| match question {
            Question::Start(partition) => cluster.starts_blocking(&topic, &[partition]).map(first),
            Question::End(partition) => cluster.ends_blocking(&topic, &[partition]).map(first),
            Question::AtTime(partition, time_ms) => {
                cluster.at_times_blocking(&topic, &[(partition, time_ms)]).map(first)
            }
            Question::OneBroker => cluster.is_of_one_broker_blocking(&topic).map(i64::from),
        });
        let found = asked.await;
        for waiting in who {
            // Whoever waits no longer needs no answer.
            let _ = waiting.send(found.as_ref().copied().map_err(again));
        }
    }

    /// Answers nobody any more.
    pub(super) fn close(&self) {
        self.turns.close();
    }
}

/// The same error for one more caller.
pub(super) fn again(error: &Error) -> Error {
    Error::new(error.kind(), "history", error.to_string()).with_temporary(error.is_temporary())
}
