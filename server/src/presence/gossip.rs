//! How the nodes keep their tables equal: batches of what changed, heartbeats, and snapshots for who missed something.
//! Without sockets, tasks or clocks: messages and times go in, messages come out.
//!
//! # How a loss is repaired
//! Every node numbers its batches, and says the number in its heartbeats. A node that sees a number jump has missed
//! something and asks for a snapshot. A snapshot is made of chunks; each holds *everything* that its node has in one range
//! of its entries, as of the batch before it, and batches go on between chunks. Whoever hears all chunks of a snapshot, and
//! all batches from the first chunk on, has for every entry the state of its chunk and all changes since: the truth. Who
//! misses one of them asks again. Nothing has to be kept back meanwhile, and chunks that nobody needs are passed over.
//!
//! # How a silent node is noticed
//! A node that is not heard for `silence_ms` is dropped with its entries. That time counts only while this node hears
//! *itself*: a broker that is away, or a node that was frozen itself, is no reason to believe that all others are gone.

use std::collections::HashMap;
use std::sync::Arc;

use manifold_strategies::RoomId;

use super::peer::{EchoClock, Peer};
use super::table::{Key, NodeId, Table};
use super::who::Who;
use super::wire::{Body, Chunk, Message, Op, Space, TARGETS_MAX};

/// Changes of this node that wait for a batch at most. Beyond, they are not told one by one: others ask for a snapshot.
const PENDING_MAX: usize = 256 * 1024;
/// Batches of one turn at most: half a MiB.
const BATCHES_PER_TURN: usize = 16;
/// Chunks of one turn at most: a quarter of a MiB.
const CHUNKS_PER_TURN: usize = 8;
/// Nodes that are followed at most.
const PEERS_MAX: usize = 4096;
/// Entries of a dropped node that are taken out at once.
const SHRINK_ENTRIES: usize = 1000;

/// When what is sent, and when who is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// Time in which changes are gathered, milliseconds.
    pub(crate) batch_ms: u64,
    /// Time between heartbeats, milliseconds.
    pub(crate) heartbeat_ms: u64,
    /// A node unheard for longer is dropped, milliseconds.
    pub(crate) silence_ms: u64,
}

/// One node's side of the conversation, and what it knows.
#[derive(Debug)]
pub(super) struct Gossip {
    me: NodeId,
    timing: Timing,
    pub(super) table: Table,
    /// Nobody else is told, and nobody else is heard.
    alone: bool,
    /// This node's changes that no batch holds yet.
    pending: Vec<Op>,
    /// This node's last batch.
    sequence: u64,
    peers: HashMap<NodeId, Peer>,
    /// Nodes that are gone and still have entries here.
    dropped: Vec<NodeId>,
    clock: EchoClock,
    flush_due_ms: u64,
    heartbeat_due_ms: u64,
    call_wanted: bool,
    snapshot_wanted: bool,
    snapshot: Option<Snapshot>,
    snapshots: u64,
    resyncs: u64,
}

/// A snapshot on its way out.
#[derive(Debug)]
struct Snapshot {
    index: u32,
    after: Option<Key>,
}

impl Gossip {
    pub(super) fn new(me: NodeId, timing: Timing) -> Self {
        Self {
            me,
            timing,
            table: Table::default(),
            alone: true,
            pending: Vec::new(),
            sequence: 0,
            peers: HashMap::new(),
            dropped: Vec::new(),
            clock: EchoClock::default(),
            flush_due_ms: 0,
            heartbeat_due_ms: 0,
            call_wanted: false,
            snapshot_wanted: false,
            snapshot: None,
            snapshots: 0,
            resyncs: 0,
        }
    }

    /// From now on others hear of this node, and it of them. What it has so far is theirs to ask for.
    pub(super) fn enter(&mut self) {
        self.alone = false;
        self.sequence += 1;
        self.heartbeat_due_ms = 0;
        self.call_wanted = true;
    }

    /// A client of this node is in a room.
    pub(super) fn join(&mut self, room: &RoomId, who: Who) {
        let who = Arc::new(who);
        if self.table.put(self.me, room, Arc::clone(&who)) {
            self.tell(Op::Join(room.clone(), who));
        }
    }

    /// A client of this node has left a room.
    pub(super) fn leave(&mut self, room: &RoomId, client: u128) {
        if self.table.remove(self.me, &Key { room: room.clone(), client }) {
            self.tell(Op::Leave(room.clone(), client));
        }
    }

    fn tell(&mut self, op: Op) {
        if self.alone {
            return;
        }
        if self.pending.len() >= PENDING_MAX {
            // A batch that never comes: everybody will ask for a snapshot instead.
            self.pending = Vec::new();
            self.sequence += 1;
        }
        self.pending.push(op);
    }

    /// This node's own message came back: what others send would come as well.
    pub(super) fn hear_echo(&mut self, now_ms: u64) {
        self.clock.advance(now_ms, 2 * self.timing.heartbeat_ms);
    }

    /// Messages were lost on the way here; whose, the next heartbeats tell.
    pub(super) fn hear_gap(&mut self) {
        self.call_wanted = !self.alone;
    }

    /// Takes a message of another node. False: there are too many nodes to follow this one as well.
    pub(super) fn take(&mut self, message: Message, now_ms: u64) -> bool {
        let Message { from, body } = message;
        if from == self.me || self.alone {
            return true;
        }
        if body == Body::Goodbye {
            self.drop_node(from);
            return true;
        }
        if !self.peers.contains_key(&from) && self.peers.len() >= PEERS_MAX {
            return false;
        }
        let heard_ms = self.clock.now_ms();
        let peer = self.peers.entry(from).or_insert_with(|| {
            // It may be back from a silence, with entries that are still being taken out.
            self.dropped.retain(|node| *node != from);
            Peer::default()
        });
        peer.heard_ms = heard_ms;
        match body {
            Body::Heartbeat { sequence, entries } => {
                let held = self.table.count(from);
                if peer.take_heartbeat(sequence, entries, held as u64) {
                    // It has nothing: that is a snapshot in itself.
                    self.table.replace(from, None, Vec::new(), true);
                }
            }
            Body::Batch { sequence, ops } => {
                if peer.take_batch(sequence) {
                    self.apply(from, ops);
                }
            }
            Body::Chunk(chunk) => {
                if peer.take_chunk(&chunk, now_ms) {
                    self.table.replace(from, chunk.after, chunk.entries, chunk.last);
                }
            }
            Body::Request { targets } => self.snapshot_wanted |= targets.contains(&self.me),
            Body::Call => self.heartbeat_due_ms = 0,
            Body::Goodbye => {}
        }
        true
    }

    fn apply(&mut self, node: NodeId, ops: Vec<Op>) {
        for op in ops {
            match op {
                Op::Join(room, who) => self.table.put(node, &room, who),
                Op::Leave(room, client) => self.table.remove(node, &Key { room, client }),
            };
        }
    }

    fn drop_node(&mut self, node: NodeId) {
        if self.peers.remove(&node).is_some() && self.table.count(node) > 0 {
            self.dropped.push(node);
        }
    }

    /// Drops the nodes that were silent for too long, and takes out some of what nodes that are gone had. True: there is more.
    pub(super) fn clear_out(&mut self) -> bool {
        let now_ms = self.clock.now_ms();
        let silence_ms = self.timing.silence_ms;
        let silent = self.peers.iter().filter(|(_, peer)| now_ms - peer.heard_ms > silence_ms);
        let silent: Vec<NodeId> = silent.map(|(node, _)| *node).collect();
        for node in silent {
            tracing::warn!(node = %format!("{node:016x}"), "a node is silent: its clients count as gone");
            self.drop_node(node);
        }
        if let Some(node) = self.dropped.last().copied()
            && !self.table.shrink(node, SHRINK_ENTRIES)
        {
            self.dropped.pop();
        }
        !self.dropped.is_empty()
    }

    /// Whether changes wait to be told or shown.
    pub(super) fn has_news(&self) -> bool {
        self.table.has_changes() || !self.pending.is_empty()
    }

    /// The earliest time of the next flush.
    pub(super) fn flush_due_ms(&self) -> u64 {
        self.flush_due_ms
    }

    /// When [`flush`](Self::flush) has something to do next; `u64::MAX`: when something happens.
    pub(super) fn due_ms(&self) -> u64 {
        let waits = self.has_news()
            || self.call_wanted
            || self.snapshot_wanted
            || self.snapshot.is_some()
            || self.peers.values().any(Peer::wants_to_ask);
        if waits {
            self.flush_due_ms
        } else if self.alone {
            u64::MAX
        } else {
            self.heartbeat_due_ms.max(self.flush_due_ms)
        }
    }

    /// What there is to send, in order. `None`: it is not time yet.
    pub(super) fn flush(&mut self, now_ms: u64) -> Option<Vec<Vec<u8>>> {
        if now_ms < self.flush_due_ms {
            return None;
        }
        self.flush_due_ms = now_ms + self.timing.batch_ms;
        let mut out = Vec::new();
        if self.alone {
            return Some(out);
        }
        self.append_batches(&mut out);
        // A heartbeat counts the entries as of the last batch.
        if now_ms >= self.heartbeat_due_ms && self.pending.is_empty() {
            self.heartbeat_due_ms = now_ms + self.timing.heartbeat_ms;
            let entries = self.table.count(self.me) as u64;
            out.push(self.encode(&Body::Heartbeat { sequence: self.sequence, entries }));
        }
        if std::mem::take(&mut self.call_wanted) {
            out.push(self.encode(&Body::Call));
        }
        self.append_request(&mut out, now_ms);
        self.append_snapshot(&mut out);
        Some(out)
    }

    /// The last words of a node that goes: its entries go with it.
    pub(super) fn goodbye(&mut self) -> Vec<Vec<u8>> {
        let said = if self.alone { Vec::new() } else { vec![self.encode(&Body::Goodbye)] };
        self.alone = true;
        said
    }

    fn encode(&self, body: &Body) -> Vec<u8> {
        Message::encode(self.me, body)
    }

    fn append_batches(&mut self, out: &mut Vec<Vec<u8>>) {
        let mut taken = 0;
        for _ in 0..BATCHES_PER_TURN {
            let mut space = Space::of_batch();
            let ops = self.pending[taken..].iter().take_while(|op| space.take(op));
            let ops: Vec<Op> = ops.cloned().collect();
            if ops.is_empty() {
                break;
            }
            taken += ops.len();
            self.sequence += 1;
            out.push(self.encode(&Body::Batch { sequence: self.sequence, ops }));
        }
        self.pending.drain(..taken);
    }

    fn append_request(&mut self, out: &mut Vec<Vec<u8>>, now_ms: u64) {
        let again_ms = 2 * self.timing.heartbeat_ms;
        let mut targets = Vec::new();
        for (node, peer) in &mut self.peers {
            if targets.len() < TARGETS_MAX && peer.asks(now_ms, again_ms) {
                targets.push(*node);
            }
        }
        if !targets.is_empty() {
            self.resyncs += targets.len() as u64;
            out.push(self.encode(&Body::Request { targets }));
        }
    }

    fn append_snapshot(&mut self, out: &mut Vec<Vec<u8>>) {
        if self.snapshot.is_none() && std::mem::take(&mut self.snapshot_wanted) {
            self.snapshots += 1;
            self.snapshot = Some(Snapshot { index: 0, after: None });
        }
        for _ in 0..CHUNKS_PER_TURN {
            let Some(Snapshot { index, after }) = self.snapshot.take() else { return };
            let mut space = Space::of_chunk(after.as_ref());
            let mut behind = self.table.entries_after(self.me, after.clone()).peekable();
            let mut entries = Vec::new();
            while let Some((key, who)) = behind.next_if(|(key, who)| space.take_entry(&key.room, who)) {
                entries.push((key.room.clone(), Arc::clone(who)));
            }
            let last = behind.peek().is_none();
            if !last {
                let end = entries.last().map(|(room, who)| Key { room: room.clone(), client: who.client });
                self.snapshot = Some(Snapshot { index: index + 1, after: end });
            }
            let (sequence, snapshot) = (self.sequence, self.snapshots);
            let chunk = Chunk { sequence, snapshot, index, after, last, entries };
            out.push(self.encode(&Body::Chunk(chunk)));
        }
    }

    /// Other nodes that are known to live.
    pub(super) fn peer_count(&self) -> usize {
        self.peers.len()
    }

    /// How often another node was asked for a snapshot.
    pub(super) fn resync_count(&self) -> u64 {
        self.resyncs
    }
}

#[cfg(test)]
mod tests;
