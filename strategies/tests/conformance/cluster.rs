//! The nodes of one case: started, driven and shut down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use manifold_strategies::faulty::{self, Fault};
use manifold_strategies::{
    Backplane, Envelope, Guarantees, History, MessageId, Page, PageQuery, Position, Resumed, RoomId, Start,
    Strategy,
};
use parking_lot::Mutex;
use tokio::time::timeout;

use crate::inbox::Inbox;

/// How long a case waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);
/// The same where a fault makes sure that it never comes, and no broker has to be waited for.
const DEADLINE_FAULTY: Duration = Duration::from_secs(3);

/// What a case is run against.
#[derive(Clone)]
pub struct Subject {
    pub strategy: &'static Strategy,
    pub settings: toml::Table,
    pub kafka: Option<String>,
    pub redis: Option<String>,
    pub fault: Option<Fault>,
}

/// Nodes that share a namespace which nobody else uses.
pub struct Cluster {
    pub subject: Subject,
    /// How long to wait for what must come.
    pub deadline: Duration,
    namespace: String,
    nodes: Mutex<Vec<Node>>,
    started: AtomicUsize,
}

/// One node: a backplane and what it delivered.
#[derive(Clone)]
pub struct Node {
    pub backplane: Arc<dyn Backplane>,
    pub inbox: Arc<Inbox>,
    deadline: Duration,
}

impl Cluster {
    pub fn new(subject: Subject) -> Self {
        let namespace = format!("conf-{:016x}", rand::random::<u64>());
        let deadline = if subject.fault.is_some() { DEADLINE_FAULTY } else { DEADLINE };
        Self { subject, deadline, namespace, nodes: Mutex::default(), started: AtomicUsize::new(0) }
    }

    /// What to start the next node with.
    pub fn start(&self) -> (Start, Arc<Inbox>) {
        let inbox = Arc::new(Inbox::new(self.deadline));
        let start = Start {
            node: format!("node-{}", self.started.fetch_add(1, Relaxed)),
            namespace: self.namespace.clone(),
            kafka: self.subject.kafka.clone(),
            redis: self.subject.redis.clone(),
            settings: self.subject.settings.clone(),
            connect_retry: Some(self.deadline),
            entrance: Arc::clone(&inbox) as Arc<_>,
        };
        (start, inbox)
    }

    /// Starts a node; a strategy that does not span nodes gets the one that it has.
    pub async fn node(&self) -> Result<Node> {
        let spans_nodes = self.nodes.lock().first().is_none_or(|node| node.guarantees().spans_nodes);
        if !spans_nodes {
            return Ok(self.nodes.lock()[0].clone());
        }
        let (start, inbox) = self.start();
        let node = timeout(self.deadline, self.connect(start)).await.context("connect took too long")??;
        let node = Node { backplane: node, inbox, deadline: self.deadline };
        self.nodes.lock().push(node.clone());
        Ok(node)
    }

    /// Starts one instance, with the subject's fault if it has one.
    pub async fn connect(&self, start: Start) -> manifold_strategies::Result<Arc<dyn Backplane>> {
        Ok(match self.subject.fault {
            Some(fault) => Arc::new(faulty::connect(self.subject.strategy, start, fault).await?),
            None => (self.subject.strategy.connect)(start).await?,
        })
    }

    /// A publisher's node and a member's node: different ones wherever the strategy spans nodes.
    pub async fn pair(&self) -> Result<(Node, Node)> {
        Ok((self.node().await?, self.node().await?))
    }

    /// Shuts every node down, within a bound.
    pub async fn shutdown(&self) -> Result<()> {
        let nodes = std::mem::take(&mut *self.nodes.lock());
        for node in nodes {
            timeout(self.deadline, node.backplane.shutdown()).await.context("shutdown did not end")??;
        }
        Ok(())
    }
}

impl Node {
    pub fn guarantees(&self) -> Guarantees {
        self.backplane.guarantees()
    }

    pub async fn join(&self, room: &str) -> Result<Position> {
        let joined = timeout(self.deadline, self.backplane.join(&RoomId::new(room)));
        Ok(joined.await.with_context(|| format!("join of {room:?} took too long"))??)
    }

    pub async fn leave(&self, room: &str) -> Result<()> {
        Ok(timeout(self.deadline, self.backplane.leave(&RoomId::new(room)))
            .await
            .context("leave took too long")??)
    }

    /// Publishes and waits for the acknowledgement.
    pub async fn publish(&self, room: &str, payload: impl Into<Vec<u8>>) -> Result<Position> {
        self.send(envelope(room, payload)).await
    }

    pub async fn send(&self, envelope: Envelope) -> Result<Position> {
        Ok(timeout(self.deadline, self.backplane.publish(envelope)).await.context("no acknowledgement")??)
    }

    /// The node's history, which its guarantees promise.
    pub fn history(&self) -> Result<&dyn History> {
        self.backplane.history().context("history is declared and there is none")
    }

    /// What a member that stands at `since` has missed.
    pub async fn resume(&self, room: &str, since: Position, limit: usize) -> Result<Resumed> {
        let resumed = self.history()?.resume(&RoomId::new(room), since, limit);
        Ok(timeout(self.deadline, resumed).await.context("resume took too long")??)
    }

    pub async fn page(&self, room: &str, query: PageQuery) -> Result<Page> {
        let page = self.history()?.page(&RoomId::new(room), query);
        Ok(timeout(self.deadline, page).await.context("a page took too long")??)
    }

    /// Publishes `{tag}:{0..count}` without waiting in between, then waits for all acknowledgements.
    pub async fn publish_numbered(&self, room: &str, tag: &str, count: usize) -> Result<()> {
        let sent: Vec<_> =
            (0..count).map(|i| self.backplane.publish(envelope(room, format!("{tag}:{i}")))).collect();
        for ack in sent {
            timeout(self.deadline, ack).await.context("no acknowledgement")??;
        }
        Ok(())
    }
}

/// A message with an id and a time of its own.
pub fn envelope(room: &str, payload: impl Into<Vec<u8>>) -> Envelope {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Envelope {
        room: RoomId::new(room),
        id: MessageId(rand::random()),
        published_at_us: now.as_micros() as u64,
        info: bytes::Bytes::from_static(br#"{"user":"","client":"c"}"#),
        payload: payload.into().into(),
    }
}

/// `{tag}:{0..count}`.
pub fn numbered(tag: &str, count: usize) -> Vec<String> {
    (0..count).map(|i| format!("{tag}:{i}")).collect()
}

/// Fails unless `got` is `expected`, and says how they differ rather than printing both.
pub fn same(what: &str, got: &[String], expected: &[String]) -> Result<()> {
    let missing: Vec<_> = expected.iter().filter(|item| !got.contains(item)).take(5).collect();
    ensure!(
        missing.is_empty(),
        "{what}: {} of {} arrived; missing e.g. {missing:?}",
        got.len(),
        expected.len()
    );
    ensure!(
        got.len() == expected.len(),
        "{what}: {} arrived instead of {}: duplicates",
        got.len(),
        expected.len()
    );
    let at = got.iter().zip(expected).position(|(got, expected)| got != expected);
    ensure!(at.is_none(), "{what}: out of order at {at:?}");
    Ok(())
}
