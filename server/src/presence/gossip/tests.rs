//! Clusters in a test's hand: whatever is lost on the way and whoever crashes, once it is quiet all nodes know the truth.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::wire;
use super::*;

const TIMING: Timing = Timing { batch_ms: 10, heartbeat_ms: 100, silence_ms: 500 };
const ROOMS: [&str; 3] = ["a", "b", "c"];
/// Long enough for silence to be noticed, and for a snapshot to be asked for twice.
const QUIET_MS: u64 = 3_000;

type Entries = BTreeSet<(RoomId, u128)>;

/// A node, what it should know of its own clients, and what its changes add up to.
struct Node {
    gossip: Gossip,
    own: Entries,
    shown: Entries,
    /// So many messages do not reach it.
    loses: u32,
    /// It does nothing, and hears nothing.
    frozen: bool,
}

#[derive(Default)]
struct Cluster {
    nodes: Vec<Node>,
    now_ms: u64,
    started: u64,
    sent: usize,
}

impl Node {
    fn toggle(&mut self, room: &str, client: u128) {
        let entry = (RoomId::new(room), u128::from(self.gossip.me) << 64 | client);
        if self.own.remove(&entry) {
            self.gossip.leave(&entry.0, entry.1);
        } else {
            self.gossip.join(&entry.0, Who { client: entry.1, ..Who::default() });
            self.own.insert(entry);
        }
    }

    fn hear(&mut self, message: &[u8], now_ms: u64) {
        if self.frozen {
            return;
        }
        if self.loses > 0 {
            self.loses -= 1;
            return;
        }
        if wire::sender(message) == Ok(self.gossip.me) {
            self.gossip.hear_echo(now_ms);
        } else {
            assert!(self.gossip.take(Message::decode(message).expect("a node wrote it"), now_ms));
        }
    }

    fn show(&mut self) {
        let (changes, lost) = self.gossip.table.take_changes();
        assert_eq!(lost, 0);
        for change in changes {
            let entry = (change.room, change.who.client);
            let news = if change.joined { self.shown.insert(entry) } else { self.shown.remove(&entry) };
            assert!(news, "nobody comes or goes twice");
        }
    }

    fn held(&self) -> Entries {
        let of_room = |room: &&str| {
            let present = self.gossip.table.present(room, None, usize::MAX).into_iter();
            let room = RoomId::new(*room);
            present.map(move |((client, _), _)| (room.clone(), client))
        };
        ROOMS.iter().flat_map(of_room).collect()
    }
}

impl Cluster {
    fn of(count: usize) -> Self {
        let mut cluster = Self::default();
        (0..count).for_each(|_| cluster.start());
        cluster
    }

    fn start(&mut self) {
        self.started += 1;
        let mut gossip = Gossip::new(self.started, TIMING);
        gossip.enter();
        let (own, shown) = Default::default();
        self.nodes.push(Node { gossip, own, shown, loses: 0, frozen: false });
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms / TIMING.batch_ms {
            self.now_ms += TIMING.batch_ms;
            self.turn();
        }
    }

    fn turn(&mut self) {
        let mut bus = Vec::new();
        for node in self.nodes.iter_mut().filter(|node| !node.frozen) {
            while node.gossip.clear_out() {}
            bus.extend(node.gossip.flush(self.now_ms).into_iter().flatten());
            node.show();
        }
        self.sent += bus.len();
        for message in &bus {
            self.nodes.iter_mut().for_each(|node| node.hear(message, self.now_ms));
        }
    }

    /// Nothing goes wrong for a while.
    fn calm(&mut self) {
        for node in &mut self.nodes {
            node.loses = 0;
            node.frozen = false;
        }
        self.pass(QUIET_MS);
    }

    fn assert_truth(&self) {
        let truth: Entries = self.nodes.iter().flat_map(|node| node.own.iter().cloned()).collect();
        for node in &self.nodes {
            assert_eq!(node.held(), truth, "node {}", node.gossip.me);
            assert_eq!(node.shown, truth, "what was shown at node {}", node.gossip.me);
            assert_eq!(node.gossip.table.len(), truth.len());
            assert_eq!(node.gossip.peer_count(), self.nodes.len() - 1);
        }
    }
}

/// What may happen to a cluster.
#[derive(Debug, Clone)]
enum Step {
    Toggle { node: usize, room: usize, client: u8 },
    Lose { node: usize, messages: u32 },
    Freeze { node: usize },
    Thaw { node: usize },
    Crash { node: usize },
    Leave { node: usize },
    Start,
    Pass { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..6_usize;
    prop_oneof![
        12 => (node.clone(), 0..3_usize, 0..20_u8).prop_map(|(node, room, client)| Step::Toggle { node, room, client }),
        3 => (node.clone(), 1..5_u32).prop_map(|(node, messages)| Step::Lose { node, messages }),
        1 => node.clone().prop_map(|node| Step::Freeze { node }),
        2 => node.clone().prop_map(|node| Step::Thaw { node }),
        1 => node.clone().prop_map(|node| Step::Crash { node }),
        1 => node.prop_map(|node| Step::Leave { node }),
        2 => Just(Step::Start),
        8 => (1..30_u64).prop_map(|turns| Step::Pass { ms: turns * 10 }),
    ]
}

proptest! {
    #[test]
    fn once_it_is_quiet_all_know_the_truth(steps in proptest::collection::vec(step(), 0..150)) {
        let mut cluster = Cluster::of(2);
        for step in steps {
            let count = cluster.nodes.len();
            match step {
                Step::Toggle { node, room, client } => {
                    cluster.nodes[node % count].toggle(ROOMS[room], client.into());
                }
                Step::Lose { node, messages } => cluster.nodes[node % count].loses = messages,
                Step::Freeze { node } => cluster.nodes[node % count].frozen = true,
                Step::Thaw { node } => cluster.nodes[node % count].frozen = false,
                Step::Crash { node } if count > 1 => drop(cluster.nodes.remove(node % count)),
                Step::Leave { node } if count > 1 => {
                    let mut node = cluster.nodes.remove(node % count);
                    for message in node.gossip.goodbye() {
                        cluster.nodes.iter_mut().for_each(|other| other.hear(&message, cluster.now_ms));
                    }
                }
                Step::Start if count < 6 => cluster.start(),
                Step::Pass { ms } => cluster.pass(ms),
                Step::Crash { .. } | Step::Leave { .. } | Step::Start => {}
            }
        }
        cluster.calm();
        cluster.assert_truth();
    }
}

#[test]
fn a_crashed_node_goes_within_its_time_and_not_before() {
    let mut cluster = Cluster::of(3);
    cluster.nodes.iter_mut().for_each(|node| node.toggle("a", 1));
    cluster.calm();
    cluster.assert_truth();
    cluster.nodes.remove(1);
    cluster.pass(TIMING.silence_ms - TIMING.heartbeat_ms - 10);
    assert_eq!(cluster.nodes[0].held().len(), 3);
    cluster.pass(2 * TIMING.heartbeat_ms + 20);
    cluster.assert_truth();
}

#[test]
fn a_node_that_says_goodbye_goes_at_once() {
    let mut cluster = Cluster::of(2);
    cluster.nodes[1].toggle("a", 1);
    cluster.calm();
    let mut going = cluster.nodes.remove(1);
    let words = going.gossip.goodbye();
    words.iter().for_each(|message| cluster.nodes[0].hear(message, cluster.now_ms));
    cluster.turn();
    cluster.assert_truth();
    assert!(going.gossip.goodbye().is_empty(), "once");
}

#[test]
fn nobody_is_dropped_while_nothing_is_heard() {
    let mut cluster = Cluster::of(3);
    cluster.nodes.iter_mut().for_each(|node| node.toggle("b", 1));
    cluster.calm();
    cluster.nodes.iter_mut().for_each(|node| node.loses = u32::MAX);
    cluster.pass(20 * TIMING.silence_ms);
    assert!(cluster.nodes.iter().all(|node| node.held().len() == 3));
    // The first to be heard again does not find the others gone.
    cluster.nodes.iter_mut().for_each(|node| node.loses = 0);
    for _ in 0..50 {
        cluster.turn();
        assert!(cluster.nodes.iter().all(|node| node.held().len() == 3));
        cluster.now_ms += TIMING.batch_ms;
    }
}

#[test]
fn a_lost_batch_is_repaired_within_a_heartbeat_or_two() {
    let mut cluster = Cluster::of(2);
    cluster.nodes[0].toggle("a", 1);
    cluster.calm();
    let resyncs = cluster.nodes[1].gossip.resync_count();
    cluster.nodes[0].toggle("a", 1);
    cluster.nodes[0].toggle("a", 2);
    cluster.nodes[1].loses = 1;
    cluster.pass(TIMING.batch_ms);
    assert_eq!(cluster.nodes[1].held().len(), 1);
    cluster.pass(2 * TIMING.heartbeat_ms);
    cluster.assert_truth();
    assert!(cluster.nodes[1].gossip.resync_count() > resyncs);
}

#[test]
fn a_late_node_learns_of_many_while_they_come_and_go() {
    let mut cluster = Cluster::of(2);
    for client in 0..10_000 {
        cluster.nodes[0].toggle(ROOMS[usize::from(client % 10 == 0)], client);
    }
    cluster.pass(100);
    cluster.start();
    for client in 0..1_000 {
        cluster.nodes[0].toggle("a", client * 7);
        if client % 100 == 0 {
            cluster.pass(10);
        }
    }
    cluster.calm();
    cluster.assert_truth();
    assert_eq!(cluster.nodes[2].gossip.table.stats("a").1, 1, "all are anonymous");
}

#[test]
fn too_many_changes_at_once_become_a_snapshot() {
    let mut cluster = Cluster::of(2);
    cluster.calm();
    for client in 0..100 {
        cluster.nodes[0].toggle("a", client);
    }
    let node = &mut cluster.nodes[0];
    for _ in 0..PENDING_MAX / 2 {
        node.toggle("b", 1);
        node.toggle("b", 1);
    }
    assert!(node.gossip.pending.len() < PENDING_MAX);
    node.gossip.table.take_changes();
    node.shown = node.own.clone();
    cluster.calm();
    cluster.assert_truth();
}

#[test]
fn quiet_nodes_say_little() {
    let mut cluster = Cluster::of(3);
    cluster.nodes[0].toggle("a", 1);
    cluster.calm();
    cluster.sent = 0;
    cluster.pass(10 * TIMING.heartbeat_ms);
    assert_eq!(cluster.sent, 30, "a heartbeat each");
    let gossip = &cluster.nodes[0].gossip;
    assert!(gossip.due_ms() > cluster.now_ms, "nothing to do until then");
}

#[test]
fn a_node_alone_counts_its_own_and_tells_nobody() {
    let mut gossip = Gossip::new(1, TIMING);
    gossip.join(&RoomId::new("a"), Who::default());
    gossip.hear_gap();
    assert_eq!(gossip.table.stats("a"), (1, 1));
    assert_eq!(gossip.due_ms(), 0, "changes are shown");
    gossip.table.take_changes();
    assert_eq!((gossip.flush(0), gossip.due_ms()), (Some(Vec::new()), u64::MAX));
    assert!(gossip.pending.is_empty());
}
