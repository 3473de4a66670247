//! Properties of the control log: arbitrary logs, and a simulated cluster that checks the proof in the module docs.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

const LEASE_MS: u64 = 4_000;

fn join(node: u64, incarnation: u64, hold: u32, view: &View) -> Record {
    Record::Join {
        node: format!("n{node}"),
        incarnation: Incarnation(incarnation),
        hold,
        lease_ms: LEASE_MS,
        publish_timeout_ms: 5_000,
        view: view.clone(),
    }
}

fn beat(incarnation: u64, through: u64, view: Option<View>) -> Record {
    Record::Beat { incarnation: Incarnation(incarnation), sequence: 0, through, view }
}

/// What a log generator does next; `u64`s pick a node, a view or a lag.
#[derive(Debug, Clone)]
enum Step {
    Join { node: u64, incarnation: u64, hold: u32, lag: usize },
    Beat { incarnation: u64, lag: usize, anchor: bool },
    Leave { incarnation: u64 },
    Garbage,
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    let step = prop_oneof![
        2 => (0u64..6, 0u64..12, 0u32..4, 0usize..5)
            .prop_map(|(node, incarnation, hold, lag)| Step::Join { node, incarnation, hold, lag }),
        8 => (0u64..12, 0usize..5, any::<bool>())
            .prop_map(|(incarnation, lag, anchor)| Step::Beat { incarnation, lag, anchor }),
        1 => (0u64..12).prop_map(|incarnation| Step::Leave { incarnation }),
        1 => Just(Step::Garbage),
    ];
    proptest::collection::vec((step, prop_oneof![9 => 0u64..500, 1 => 0u64..60_000]), 0..120)
}

/// Every view of the log's prefixes, and the log.
fn play(steps: Vec<(Step, u64)>) -> (Vec<View>, Vec<Entry>) {
    let mut views = vec![View::vacant(0, 0)];
    let mut entries = Vec::new();
    let mut appended_ms = 1_000_000;
    for (step, pause_ms) in steps {
        appended_ms += pause_ms as i64;
        let earlier = |lag: usize| &views[(views.len() - 1).saturating_sub(lag)];
        let record = match step {
            Step::Join { node, incarnation, hold, lag } => Some(join(node, incarnation, hold, earlier(lag))),
            Step::Beat { incarnation, lag, anchor } => {
                let view = earlier(lag);
                Some(beat(incarnation, view.next, anchor.then(|| view.clone())))
            }
            Step::Leave { incarnation } => Some(Record::Leave { incarnation: Incarnation(incarnation) }),
            Step::Garbage => None,
        };
        // Through bytes and back, as in the broker.
        let record = record.map(|record| Record::decode(&record.encode()).unwrap());
        let offset = entries.len() as u64;
        let mut view = views[views.len() - 1].clone();
        view.apply(offset, appended_ms, record.as_ref());
        views.push(view);
        entries.push(Entry { offset, appended_ms, record });
    }
    (views, entries)
}

proptest! {
    #[test]
    fn no_partition_ever_has_two_owners(steps in steps()) {
        let (views, entries) = play(steps);
        for (before, after, entry) in views.iter().zip(&views[1..]).zip(&entries).map(|((a, b), c)| (a, b, c)) {
            let mut partitions = after.partitions();
            partitions.dedup();
            prop_assert_eq!(&partitions, &after.partitions());
            let fresh = after.members().iter().filter(|member| before.member(member.incarnation).is_none());
            for member in fresh {
                prop_assert_eq!(member.joined, entry.offset);
                // The lowest free ones: everything below its highest is taken by somebody.
                let highest = *member.partitions.last().unwrap();
                prop_assert!((0..highest).all(|partition| partitions.contains(&partition)));
            }
            let mut names: Vec<&str> = after.members().iter().map(|member| member.node.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len(), after.members().len());
        }
    }

    #[test]
    fn a_tail_with_an_anchor_gives_the_whole_logs_view(steps in steps(), from in 0usize..120) {
        let (views, entries) = play(steps);
        let from = from.min(entries.len());
        if let Some(view) = view_of_tail(0, from as u64, &entries[from..]) {
            prop_assert_eq!(&view, &views[views.len() - 1]);
        }
    }

    #[test]
    fn members_only_come_by_joining_and_stay_while_they_beat(steps in steps()) {
        let (views, entries) = play(steps);
        for (index, entry) in entries.iter().enumerate() {
            let (before, after) = (&views[index], &views[index + 1]);
            for member in after.members() {
                let joined_now = matches!(&entry.record, Some(Record::Join { incarnation, .. }) if *incarnation == member.incarnation);
                prop_assert!(joined_now || before.member(member.incarnation).is_some());
                prop_assert!(after.clock_ms - member.seen_ms <= LEASE_MS);
            }
        }
    }
}

#[test]
fn an_expelled_member_has_to_join_anew() {
    let mut view = View::vacant(0, 0);
    let vacant = view.clone();
    let mut at_ms = 1_000;
    let mut offset = 0;
    let mut apply = |view: &mut View, pause_ms: i64, record: &Record| {
        at_ms += pause_ms;
        view.apply(offset, at_ms, Some(record));
        offset += 1;
    };
    apply(&mut view, 0, &join(1, 1, 1, &vacant));
    apply(&mut view, 0, &join(2, 2, 1, &vacant));
    for _ in 0..9 {
        apply(&mut view, 500, &beat(1, 2, None));
    }
    assert!(view.member(Incarnation(2)).is_none(), "silent for 4.5 s: {view:?}");
    apply(&mut view, 0, &beat(2, 2, None));
    assert!(view.member(Incarnation(2)).is_none(), "a late beat does not bring it back");
    apply(&mut view, 0, &join(2, 3, 1, &vacant));
    assert_eq!(view.member(Incarnation(3)).unwrap().partitions, [1], "the free partition is used again");
}

#[test]
fn an_outage_of_the_broker_expels_nobody() {
    let mut view = View::vacant(0, 0);
    let vacant = view.clone();
    view.apply(0, 1_000, Some(&join(1, 1, 1, &vacant)));
    view.apply(1, 1_100, Some(&join(2, 2, 2, &vacant)));
    view.apply(2, 61_000, Some(&beat(1, 2, None)));
    view.apply(3, 61_300, Some(&beat(2, 2, None)));
    assert_eq!(view.members().len(), 2);
    assert_eq!(view.partitions(), [0, 1, 2]);
}

#[test]
fn a_join_is_effective_once_every_elder_wrote_through_it() {
    let mut view = View::vacant(0, 0);
    let vacant = view.clone();
    view.apply(0, 1, Some(&join(1, 1, 1, &vacant)));
    view.apply(1, 2, Some(&join(2, 2, 1, &vacant)));
    view.apply(2, 3, Some(&beat(1, 1, None)));
    let awaited = |view: &View| -> Vec<String> {
        view.awaited_by(view.member(Incarnation(2)).unwrap()).map(str::to_owned).collect()
    };
    assert_eq!(awaited(&view), ["n1"], "the beat did not include the join yet");
    view.apply(3, 4, Some(&beat(1, 2, None)));
    assert!(awaited(&view).is_empty());
}

#[test]
fn a_full_cluster_admits_nobody() {
    let mut view = View::vacant(0, 0);
    let vacant = view.clone();
    for node in 0..=MEMBERS_MAX as u64 {
        view.apply(node, 1, Some(&join(node, node, 1, &vacant)));
    }
    assert_eq!(view.members().len(), MEMBERS_MAX);
    assert!(view.member(Incarnation(MEMBERS_MAX as u64)).is_none());
}

/// What a simulated node does. Any node may be scheduled late, or never again: that is a stopped process.
#[derive(Debug, Clone, Copy)]
enum Act {
    Sleep(u64),
    Read(usize, usize),
    SendBeat(usize),
    Append(usize),
    Leave(usize),
    Publish(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let node = 0usize..5;
    let act = prop_oneof![
        4 => (1u64..900).prop_map(Act::Sleep),
        8 => (node.clone(), 1usize..6).prop_map(|(node, records)| Act::Read(node, records)),
        6 => node.clone().prop_map(Act::SendBeat),
        6 => node.clone().prop_map(Act::Append),
        1 => node.clone().prop_map(Act::Leave),
        6 => node.prop_map(Act::Publish),
    ];
    proptest::collection::vec(act, 0..400)
}

/// A node as `keeper` runs it, reduced to what the proof is about.
struct Node {
    name: u64,
    incarnation: u64,
    view: View,
    /// Sent and not yet appended, in order.
    in_flight: Vec<Record>,
    /// When each beat (by its `sequence`) was sent.
    sent_ms: HashMap<u64, u64>,
    trusted_until_ms: u64,
    written_partitions: Vec<i32>,
}

struct Cluster {
    now_ms: u64,
    log: Vec<Entry>,
    truth: View,
    nodes: Vec<Node>,
    next_name: u64,
}

impl Cluster {
    fn new() -> Self {
        let nodes = (0..5).map(|name| Node::new(name, View::vacant(0, 0))).collect();
        Self { now_ms: 10_000, log: Vec::new(), truth: View::vacant(0, 0), nodes, next_name: 100 }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Sleep(ms) => self.now_ms += ms,
            Act::Read(node, records) => self.read(node, records),
            Act::SendBeat(node) => self.send_beat(node),
            Act::Append(node) => self.append(node),
            Act::Leave(node) => {
                // It publishes no more from here on; a successor of its name starts from the log as it stands.
                let record = Record::Leave { incarnation: Incarnation(self.nodes[node].incarnation) };
                self.nodes[node].in_flight.push(record);
                while !self.nodes[node].in_flight.is_empty() {
                    self.append(node);
                }
                self.next_name += 1;
                self.nodes[node] = Node::new(self.next_name, self.truth.clone());
            }
            Act::Publish(node) => self.publish(node),
        }
    }

    fn read(&mut self, node: usize, records: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[node];
        for entry in self.log.iter().skip(node.view.next as usize).take(records) {
            node.view.apply(entry.offset, entry.appended_ms, entry.record.as_ref());
            let sequence = match &entry.record {
                Some(Record::Beat { incarnation, sequence, .. }) if incarnation.0 == node.incarnation => {
                    *sequence
                }
                Some(Record::Join { incarnation, .. }) if incarnation.0 == node.incarnation => 0,
                _ => continue,
            };
            node.trusted_until_ms = node.sent_ms[&sequence] + LEASE_MS;
        }
        let own = Incarnation(node.incarnation);
        let joined = node.view.member(own).is_some();
        if !joined && node.trusted_until_ms > 0 {
            // Expelled: rejoin as somebody new.
            let name = node.name;
            *node = Node::new(name, node.view.clone());
            node.incarnation += self.next_name * 1_000 + now_ms;
            self.next_name += 1;
        }
    }

    fn send_beat(&mut self, node: usize) {
        let now_ms = self.now_ms;
        let node = &mut self.nodes[node];
        let sequence = node.sent_ms.len() as u64;
        if sequence > 0 && node.view.member(Incarnation(node.incarnation)).is_none() {
            return;
        }
        node.sent_ms.insert(sequence, now_ms);
        let record = if sequence == 0 {
            join(node.name, node.incarnation, 1, &node.view)
        } else {
            node.written_partitions = node.view.partitions();
            Record::Beat {
                incarnation: Incarnation(node.incarnation),
                sequence,
                through: node.view.next,
                view: None,
            }
        };
        node.in_flight.push(record);
    }

    fn append(&mut self, node: usize) {
        if self.nodes[node].in_flight.is_empty() {
            return;
        }
        let record = self.nodes[node].in_flight.remove(0);
        let entry =
            Entry { offset: self.log.len() as u64, appended_ms: self.now_ms as i64, record: Some(record) };
        self.truth.apply(entry.offset, entry.appended_ms, entry.record.as_ref());
        self.log.push(entry);
    }

    /// The claim: whoever believes to be an effective member receives what anybody allowed to publish writes now.
    fn publish(&self, node: usize) {
        let publisher = &self.nodes[node];
        if !publisher.trusts_its_lease(self.now_ms) {
            return;
        }
        for other in self.nodes.iter().filter(|other| other.trusts_its_lease(self.now_ms)) {
            let own = self.truth.member(Incarnation(other.incarnation));
            let own = own.expect("a node that trusts its lease is a member by the whole log");
            let member = other.view.member(own.incarnation).expect("it applied its own join");
            if other.view.awaited_by(member).next().is_none() && !other.written_partitions.is_empty() {
                for partition in &member.partitions {
                    assert!(
                        publisher.written_partitions.contains(partition),
                        "{} misses {}",
                        publisher.name,
                        other.name
                    );
                }
            }
        }
    }
}

impl Node {
    fn new(name: u64, view: View) -> Self {
        Self {
            name,
            incarnation: name,
            view,
            in_flight: Vec::new(),
            sent_ms: HashMap::new(),
            trusted_until_ms: 0,
            written_partitions: Vec::new(),
        }
    }

    fn trusts_its_lease(&self, now_ms: u64) -> bool {
        now_ms < self.trusted_until_ms && !self.written_partitions.is_empty()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn no_message_misses_an_effective_member(acts in acts()) {
        let mut cluster = Cluster::new();
        for act in acts {
            cluster.act(act);
        }
    }
}

#[test]
fn a_detour_follows_only_those_who_have_everything() {
    let mut view = View::vacant(0, 0);
    let log =
        |view: &mut View, appended_ms, record: Record| view.apply(view.next, appended_ms, Some(&record));
    let blank = View::vacant(0, 0);
    log(&mut view, 10_000, join(1, 1, 1, &blank));
    log(&mut view, 10_100, join(2, 2, 1, &blank));
    log(&mut view, 10_200, beat(1, 2, None));
    // The third is reached by the first only, until the second acknowledges it or is gone.
    log(&mut view, 10_300, join(3, 3, 1, &blank));
    log(&mut view, 10_400, beat(1, 4, None));
    let reached = |view: &View, incarnation| view.member(Incarnation(incarnation)).unwrap().reached_ms;
    assert_eq!([1, 2].map(|one| reached(&view, one)), [Some(10_000), Some(10_200)]);
    assert_eq!(reached(&view, 3), None);
    let joined = view.member(Incarnation(2)).unwrap().joined;
    assert_eq!(view.publish_timeout_max(), Duration::from_secs(5));
    log(&mut view, 10_500, Record::Leave { incarnation: Incarnation(2) });
    assert_eq!(reached(&view, 3), Some(10_500));
    // What was under way to the second just before is in the first's partition; it need not be in the third's.
    assert_eq!(view.complete_since(joined, 10_500 - 7_000), [Incarnation(1)]);
    assert_eq!(view.complete_since(joined, 10_500), [Incarnation(1), Incarnation(3)]);
}

#[test]
fn a_member_that_does_not_tell_its_publish_timeout_may_have_the_longest() {
    let bytes = join(1, 1, 1, &View::vacant(0, 0)).encode();
    let mut record: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    record.as_object_mut().unwrap().remove("publish_timeout_ms").expect("it is told");
    let record = Record::decode(record.to_string().as_bytes()).unwrap();
    let mut view = View::vacant(0, 0);
    view.apply(0, 1, Some(&record));
    assert_eq!(view.publish_timeout_max(), Duration::from_secs(120));
}
