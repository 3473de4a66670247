//! The cluster of a case: real nodes on the simulated broker, and clients on socket pairs.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use manifold_server::config::Config;
use manifold_server::{LocalNode, Node};
use manifold_strategies::faulty::{self, Fault};
use manifold_strategies::{Backplane, RoomId, Start};
use parking_lot::Mutex;
use tokio::task::yield_now;

use crate::backplane::{STRATEGY, set_broker};
use crate::broker::Broker;
use crate::client::Client;
use crate::lies::Lie;
use crate::link::Down;
use crate::oracle::{self, Verdict};
use crate::record::Tally;
use crate::steps::{Action, CLIENTS, NODES, ROOMS, Setup, Step};

/// Turns after which nothing moves any more without time passing.
const TURNS: usize = 12;
/// Time in which everything comes to rest once nothing goes wrong any more: nodes that are gone count as gone, what is missing is
/// noticed, clients have come back.
const REST_MS: u64 = 1_500;
/// How often clients read while time passes.
const SLICE_MS: u64 = 20;

/// How the system is made to misbehave, to see whether that is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The backplane is faulty.
    Backplane(Fault),
    /// Clients are lied to.
    Wire(Lie),
}

/// A node that runs.
struct Running {
    node: LocalNode,
    link: usize,
}

pub(crate) struct Cluster {
    setup: Setup,
    fault: Option<Fault>,
    broker: Arc<Mutex<Broker>>,
    nodes: [Option<Running>; NODES],
    clients: Vec<Client>,
    next_tag: u64,
}

impl Cluster {
    pub(crate) fn new(setup: Setup, wrong: Option<Wrong>) -> Self {
        let (fault, lie) = match wrong {
            Some(Wrong::Backplane(fault)) => (Some(fault), None),
            Some(Wrong::Wire(lie)) => (None, Some(lie)),
            None => (None, None),
        };
        Self {
            setup,
            fault,
            broker: Arc::new(Mutex::new(Broker::new(setup))),
            nodes: Default::default(),
            clients: (0..CLIENTS).map(|number| Client::new(number, lie)).collect(),
            next_tag: 0,
        }
    }

    /// Lets a history happen, and judges what came of it.
    pub(crate) async fn run(&mut self, steps: &[Step]) -> Verdict {
        set_broker(&self.broker);
        for node in 0..NODES {
            self.start(node).await;
        }
        for step in steps {
            self.act(step.action).await;
            self.pass(step.then_ms).await;
        }
        self.rest().await;
        if let Some(number) = self.clients.iter().position(|client| client.dropped) {
            return Err(format!("a connection of client {number} ended without a goodbye"));
        }
        oracle::judge(&self.broker.lock(), &self.clients)
    }

    /// What the clients saw.
    pub(crate) fn trace(&self) -> String {
        let seen = self.clients.iter().flat_map(|client| client.places.iter().map(|place| &place.seen));
        format!("{:?}", seen.collect::<Vec<_>>())
    }

    /// Counts what came about.
    pub(crate) fn count(&self, tally: &mut Tally) {
        for client in &self.clients {
            client.places.iter().flat_map(|place| &place.seen).for_each(|seen| tally.see(seen));
            let acknowledged = client.sent.iter().filter(|sent| sent.acknowledged).count();
            tally.acknowledged += acknowledged;
            tally.unacknowledged += client.sent.len() - acknowledged;
        }
    }

    /// Lets everything come to rest, and asks who is where.
    async fn rest(&mut self) {
        for node in 0..NODES {
            if self.nodes[node].is_none() {
                self.start(node).await;
            }
        }
        {
            let mut broker = self.broker.lock();
            broker.ack_ms = 0;
            broker.links.iter_mut().for_each(crate::link::Link::heal);
        }
        self.pass(1).await;
        for client in 0..CLIENTS {
            self.clients[client].break_off(false);
            self.connect(client, client % NODES);
        }
        self.pass(REST_MS).await;
        self.clients.iter_mut().for_each(Client::inquire);
        self.pass(5).await;
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Connect { client, node } => self.connect(client, node),
            Action::Disconnect { client, unread } => {
                if !unread {
                    self.settle().await;
                }
                self.clients[client].disconnect();
            }
            Action::BreakOff { client } => self.clients[client].break_off(true),
            Action::Subscribe { client, room, kind } => self.clients[client].subscribe(room, kind),
            Action::Unsubscribe { client, room } => self.clients[client].unsubscribe(room),
            Action::Publish { client, room, count } => {
                for _ in 0..count {
                    self.publish(client, room, false);
                }
            }
            Action::PublishKeyed { client, room } => self.publish(client, room, true),
            Action::Repeat { client } => self.clients[client].repeat(),
            Action::Start { node } if self.nodes[node].is_none() => self.start(node).await,
            Action::Start { .. } => {}
            Action::Crash { node } => self.crash(node),
            other => self.act_on_broker(other),
        }
    }

    fn act_on_broker(&mut self, action: Action) {
        let mut broker = self.broker.lock();
        match action {
            Action::AckDelay { ms } => return broker.ack_ms = ms,
            Action::Evict { room, keep } => return broker.evict(&RoomId::new(ROOMS[room]), keep),
            Action::Renumber { room } => return broker.renumber(&RoomId::new(ROOMS[room])),
            Action::Skip { room } => return broker.skip(&RoomId::new(ROOMS[room])),
            _ => {}
        }
        let mut on = |node: usize, act: &dyn Fn(&mut crate::link::Link)| {
            if let Some(running) = &self.nodes[node] {
                act(&mut broker.links[running.link]);
            }
        };
        match action {
            Action::LinkDown { node, lossy } => {
                on(node, &|link| link.break_off(if lossy { Down::Lossy } else { Down::Waiting }));
            }
            Action::LinkUp { node } => on(node, &|link| link.come_back()),
            Action::Lose { node, count, declared } => {
                on(node, &|link| (link.lose, link.lose_declared) = (count, declared));
            }
            Action::Duplicate { node, count } => on(node, &|link| link.duplicate = count),
            Action::Swap { node } => on(node, &|link| link.swap = true),
            Action::Delay { node, ms } => on(node, &|link| link.delay_ms = ms),
            Action::HistoryDelay { node, ms, late } => {
                on(node, &|link| (link.history_ms, link.history_late) = (ms, late));
            }
            Action::JoinDelay { node, ms } => on(node, &|link| link.join_ms = ms),
            Action::FailJoins { node, count } => on(node, &|link| link.fail_joins = count),
            Action::FailHistory { node, count } => on(node, &|link| link.fail_history = count),
            Action::FailPublishes { node, count, kept } => {
                on(node, &|link| (link.fail_publishes, link.fail_kept) = (count, kept));
            }
            Action::LoseHidden { node, count } => on(node, &|link| link.lose_hidden = count),
            _ => {}
        }
    }

    fn publish(&mut self, client: usize, room: usize, keyed: bool) {
        self.next_tag += 1;
        self.clients[client].publish(room, self.next_tag, keyed);
    }

    /// Connects a client, if it is not, to the node, or to the next one that runs.
    fn connect(&mut self, client: usize, node: usize) {
        let running = (node..node + NODES).find(|node| self.nodes[node % NODES].is_some());
        let Some(running) = running.and_then(|node| self.nodes[node % NODES].as_mut()) else { return };
        if self.clients[client].is_connected() {
            return;
        }
        let (own, other) = UnixStream::pair().expect("a socket pair");
        let name = self.clients[client].name_next();
        running.node.serve(OwnedFd::from(other), name).expect("a place on the node");
        self.clients[client].connect(own, running.link);
    }

    async fn start(&mut self, node: usize) {
        let node_name = format!("n{node}");
        let config = Config {
            node: node_name.clone(),
            giant_members_min: self.setup.giant_members_min,
            leave_linger_ms: self.setup.leave_linger_ms,
            recovery_hold_bytes_max: self.setup.hold_bytes_max,
            recovery_messages_max: self.setup.recovery_messages_max,
            position_check_ms: 100,
            presence_batch_ms: 10,
            presence_heartbeat_ms: 100,
            presence_silence_ms: 300,
            ping_interval_ms: 180_000,
            overload_ms: 0,
            ..Config::default()
        };
        let real = Node::new(config).expect("settings that hold");
        let link = self.broker.lock().links.len();
        let start = Start {
            node: node_name,
            namespace: "model".to_owned(),
            kafka: None,
            redis: None,
            settings: toml::Table::new(),
            connect_retry: None,
            entrance: real.entrance(),
        };
        let backplane: Arc<dyn Backplane> = match self.fault {
            None => (STRATEGY.connect)(start).await.expect("a broker"),
            Some(fault) => Arc::new(faulty::connect(&STRATEGY, start, fault).await.expect("a broker")),
        };
        real.set_backplane(backplane);
        self.nodes[node] = Some(Running { node: LocalNode::start(real), link });
    }

    fn crash(&mut self, node: usize) {
        if let Some(Running { node, link }) = self.nodes[node].take() {
            self.broker.lock().links[link].die();
            drop(node);
        }
    }

    /// Lets time pass, in which clients read what comes.
    async fn pass(&mut self, mut ms: u64) {
        self.settle().await;
        while ms > 0 {
            let slice = ms.min(SLICE_MS);
            tokio::time::sleep(Duration::from_millis(slice)).await;
            ms -= slice;
            self.settle().await;
        }
    }

    /// Lets everybody act who can without time passing.
    async fn settle(&mut self) {
        for _ in 0..2 {
            for _ in 0..TURNS {
                yield_now().await;
            }
            let stands = {
                let broker = self.broker.lock();
                ROOMS.map(|room| broker.rooms.get(room).map_or(0, |log| log.entries.len()))
            };
            for client in &mut self.clients {
                let link = client.link();
                let lives =
                    link.is_some_and(|link| self.nodes.iter().flatten().any(|node| node.link == link));
                client.pump(stands, lives);
            }
        }
    }
}
