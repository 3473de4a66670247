//! What the threads of a run share: read often, written seldom.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Instant;

use super::RunError;
use super::plan::Plan;
use crate::latency::{LULL_MIN_US, Lull};
use crate::scenario::Scenario;
use crate::schedule::Shape;

/// The start has not been decided yet.
const UNDECIDED: u64 = u64::MAX;

/// A node's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    /// Where to connect to.
    pub(super) address: SocketAddr,
    /// `host:port`, for the handshake.
    pub(super) host: String,
    /// Path and query.
    pub(super) path: String,
}

impl Node {
    /// Parses `ws://host:port/path` and resolves the host.
    pub(super) fn parse(url: &str) -> Result<Self, RunError> {
        use std::net::ToSocketAddrs;
        let wrong = |problem: &str| RunError::Address { url: url.to_owned(), problem: problem.to_owned() };
        let rest = url.strip_prefix("ws://").ok_or_else(|| wrong("it must begin with ws://"))?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let host = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let resolved = host.to_socket_addrs().map_err(|error| wrong(&error.to_string()))?.next();
        let address = resolved.ok_or_else(|| wrong("the name has no address"))?;
        Ok(Self { address, host, path: path.to_owned() })
    }
}

/// State of a run.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) plan: Plan,
    pub(super) scenario: Scenario,
    pub(super) shape: Shape,
    pub(super) seed: u64,
    /// Length of a reporting interval.
    pub(super) interval_us: u64,
    /// Origin of the engine's clock.
    origin: Instant,
    /// When the schedule starts, on that clock.
    start_us: AtomicU64,
    /// By stream: the sequence that its next message will have. Written by the sender's thread alone.
    pub(super) next: Vec<AtomicU32>,
    /// Nodes, in the order in which they came. Grows.
    nodes: RwLock<Vec<Node>>,
    /// Of those, how many there were at the start.
    pub(super) nodes_at_start: usize,
    /// Clients that have joined all of their rooms at least once.
    pub(super) joined: AtomicU64,
    /// Clients that the server wants never again.
    pub(super) refused: AtomicU64,
    /// Set once the threads should settle and end.
    pub(super) stop: AtomicBool,
    /// By thread, while draining: memberships that still lack something.
    pub(super) lacking: Vec<Lacking>,
    /// By room, in runs with faults: when a delivery last came, on the run's clock.
    heard_us: Vec<AtomicU64>,
    last_failure: Mutex<String>,
}

/// What a thread still waits for while draining.
#[derive(Debug)]
pub(super) struct Lacking {
    /// Streams whose last messages some member hasn't got, plus publishes without an answer.
    pub(super) tails: AtomicU64,
    /// Messages missing in between.
    pub(super) holes: AtomicU64,
    /// When a delivery last came, on the run's clock.
    pub(super) heard_us: AtomicU64,
}

impl Shared {
    pub(super) fn new(plan: Plan, scenario: Scenario, seed: u64, interval_us: u64, nodes: Vec<Node>) -> Self {
        let unknown = || Lacking {
            tails: AtomicU64::new(u64::MAX),
            holes: AtomicU64::new(0),
            heard_us: AtomicU64::new(0),
        };
        Self {
            shape: plan.shape(&scenario, seed),
            next: plan.streams.iter().map(|_| AtomicU32::new(0)).collect(),
            lacking: (0..plan.threads).map(|_| unknown()).collect(),
            heard_us: match scenario.faults.is_empty() {
                true => Vec::new(),
                false => plan.rooms.iter().map(|_| AtomicU64::new(0)).collect(),
            },
            plan,
            scenario,
            seed,
            interval_us,
            origin: Instant::now(),
            start_us: AtomicU64::new(UNDECIDED),
            nodes_at_start: nodes.len(),
            nodes: RwLock::new(nodes),
            joined: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            last_failure: Mutex::default(),
        }
    }

    /// The engine's clock: microseconds from its origin.
    #[inline]
    pub(super) fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// When the schedule starts, once that is decided.
    pub(super) fn start_us(&self) -> Option<u64> {
        let start_us = self.start_us.load(Ordering::Acquire);
        (start_us != UNDECIDED).then_some(start_us)
    }

    pub(super) fn decide_start(&self, at_us: u64) {
        self.start_us.store(at_us, Ordering::Release);
    }

    /// Sequence that the stream's next message will have: all below were sent.
    pub(super) fn sent_of(&self, stream: u32) -> u32 {
        self.next[stream as usize].load(Ordering::Acquire)
    }

    pub(super) fn node_count(&self) -> usize {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The node at `index`, counted round.
    pub(super) fn node(&self, index: usize) -> Node {
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        nodes[index % nodes.len()].clone()
    }

    pub(super) fn add_node(&self, node: Node) {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner).push(node);
    }

    /// A delivery came in a room; the lull that it ended, if that was a long one.
    #[inline]
    pub(super) fn heard(&self, room: u32, now_us: u64) -> Option<Lull> {
        let heard_us = self.heard_us.get(room as usize)?;
        // A millisecond is fine enough, and spares the threads most of their writes to one word.
        if now_us < heard_us.load(Ordering::Relaxed) + 1_000 {
            return None;
        }
        let from_us = heard_us.fetch_max(now_us, Ordering::Relaxed);
        (now_us >= from_us + LULL_MIN_US).then_some(Lull { room, from_us, to_us: now_us })
    }

    /// The lulls that nothing has ended by `end_us`.
    pub(super) fn lulls_at_end(&self, end_us: u64) -> impl Iterator<Item = Lull> {
        (0..).zip(&self.heard_us).filter_map(move |(room, heard_us)| {
            let from_us = heard_us.load(Ordering::Relaxed);
            (end_us >= from_us + LULL_MIN_US).then_some(Lull { room, from_us, to_us: end_us })
        })
    }

    /// Remembers the last failure that a client saw, for error messages.
    pub(super) fn note_failure(&self, what: impl std::fmt::Display) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = what.to_string();
    }

    pub(super) fn last_failure(&self) -> String {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_parsed_or_refused_with_a_reason() {
        let node = Node::parse("ws://127.0.0.1:8000/connection/websocket?x=1").unwrap();
        assert_eq!((node.address.port(), node.path.as_str()), (8000, "/connection/websocket?x=1"));
        assert_eq!(Node::parse("ws://127.0.0.1").unwrap().host, "127.0.0.1:80");
        for (url, problem) in [("http://127.0.0.1:1/", "ws://"), ("ws://127.0.0.1:port/", "invalid port")] {
            let message = Node::parse(url).expect_err("refused").to_string();
            assert!(message.contains(problem), "{message}");
        }
    }
}
