//! A backplane that a test holds in its hand: several nodes on one bus, whose messages arrive on a thread of the bus, in
//! batches, as those of a broker would; joins, acknowledgements and history wait, or fail, as the test says.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};

use manifold_strategies::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use manifold_strategies::{
    Backplane, BoxFuture, Entrance, Envelope, Error, ErrorKind, Event, History, Message, Position, Result,
    Resumed, RoomId, Stats,
};
use tokio::sync::watch;

use crate::test_history::TestHistory;

/// The epoch of all rooms: 25 in base 36.
pub(crate) const EPOCH: u64 = 77;

/// Where messages of the bus go.
struct Listener {
    entrance: Arc<dyn Entrance>,
    /// The node sends and hears nothing, as if it had crashed.
    cut: Arc<AtomicBool>,
}

/// What several nodes share.
pub(crate) struct Bus {
    sender: mpsc::Sender<Event>,
    nodes: Arc<Mutex<Vec<Listener>>>,
    pub(crate) offsets: Mutex<HashMap<RoomId, u64>>,
    positions: Positions,
    keeps_history: bool,
    /// What was published, hidden rooms left out.
    kept: Mutex<HashMap<RoomId, Vec<Message>>>,
    /// What those who come back are answered next, in place of what was kept.
    pub(crate) answers: Mutex<VecDeque<Result<Resumed>>>,
    /// Every join and leave, as it began and ended.
    pub(crate) calls: Mutex<Vec<String>>,
    /// While false, joins (and acknowledgements) wait.
    pub(crate) joins_open: watch::Sender<bool>,
    pub(crate) acks_open: watch::Sender<bool>,
    /// While false, history does.
    pub(crate) history_open: watch::Sender<bool>,
    /// Joins do not know where their room stands, and history does not either.
    pub(crate) joins_unaware: AtomicBool,
    pub(crate) history_unaware: AtomicBool,
    /// While false, hidden rooms cannot be joined.
    pub(crate) hidden_open: AtomicBool,
    /// So many joins (and publishes) fail from now on.
    pub(crate) joins_failing: AtomicUsize,
    pub(crate) publishes_failing: AtomicUsize,
    /// So many publishes are kept from now on, but do not arrive.
    pub(crate) publishes_silent: AtomicUsize,
    /// So many messages of hidden rooms, which the nodes use among themselves, are lost from now on. Nothing else that a test
    /// says concerns those rooms.
    pub(crate) hidden_lost: AtomicUsize,
    pub(crate) shut_down: AtomicBool,
    /// The bus can never work again.
    pub(crate) failed: AtomicBool,
}

fn is_hidden(room: &RoomId) -> bool {
    room.as_str().starts_with(char::is_control)
}

impl Bus {
    /// A bus that keeps nothing.
    pub(crate) fn new() -> Arc<Self> {
        Self::build(Positions::Dense, false)
    }

    /// A bus that keeps everything.
    pub(crate) fn with_history(positions: Positions) -> Arc<Self> {
        Self::build(positions, true)
    }

    fn build(positions: Positions, keeps_history: bool) -> Arc<Self> {
        let (sender, receiver) = mpsc::channel();
        let nodes: Arc<Mutex<Vec<Listener>>> = Arc::default();
        let listeners = Arc::clone(&nodes);
        std::thread::spawn(move || {
            while let Ok(first) = receiver.recv() {
                let batch: Vec<Event> = std::iter::once(first).chain(receiver.try_iter()).collect();
                for node in listeners.lock().unwrap().iter().filter(|node| !node.cut.load(SeqCst)) {
                    node.entrance.deliver(&mut batch.clone());
                }
            }
        });
        Arc::new(Self {
            sender,
            nodes,
            offsets: Mutex::default(),
            positions,
            keeps_history,
            kept: Mutex::default(),
            answers: Mutex::default(),
            calls: Mutex::default(),
            joins_open: watch::Sender::new(true),
            acks_open: watch::Sender::new(true),
            history_open: watch::Sender::new(true),
            joins_unaware: AtomicBool::new(false),
            history_unaware: AtomicBool::new(false),
            hidden_open: AtomicBool::new(true),
            joins_failing: AtomicUsize::new(0),
            publishes_failing: AtomicUsize::new(0),
            publishes_silent: AtomicUsize::new(0),
            hidden_lost: AtomicUsize::new(0),
            shut_down: AtomicBool::new(false),
            failed: AtomicBool::new(false),
        })
    }

    /// A node's end of the bus.
    pub(crate) fn backplane(self: &Arc<Self>, entrance: Arc<dyn Entrance>) -> Arc<dyn Backplane> {
        let cut = Arc::new(AtomicBool::new(false));
        self.nodes.lock().unwrap().push(Listener { entrance, cut: Arc::clone(&cut) });
        let history = self.keeps_history.then(|| TestHistory { bus: Arc::clone(self) });
        Arc::new(TestBackplane { bus: Arc::clone(self), history, cut, stats: Stats::default() })
    }

    /// Cuts a node off, by the order of their coming, or lets it back.
    pub(crate) fn cut(&self, node: usize, cut: bool) {
        self.nodes.lock().unwrap()[node].cut.store(cut, SeqCst);
    }

    /// Sends an event to every node.
    pub(crate) fn send(&self, event: Event) {
        self.sender.send(event).expect("the bus runs");
    }

    pub(crate) fn position(&self, room: &str) -> u64 {
        self.offsets.lock().unwrap().get(room).copied().unwrap_or(0)
    }

    /// Loses the next messages of a room before anybody sees them.
    pub(crate) fn lose(&self, room: &str, count: u64) {
        *self.offsets.lock().unwrap().entry(RoomId::new(room)).or_default() += count;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    /// What was kept of a room.
    pub(crate) fn kept(&self, room: &str) -> Vec<Message> {
        self.kept.lock().unwrap().get(room).cloned().unwrap_or_default()
    }

    pub(crate) fn is_dense(&self) -> bool {
        self.positions == Positions::Dense
    }

    pub(crate) fn note(&self, call: &str, room: &RoomId) {
        self.calls.lock().unwrap().push(format!("{call} {room}"));
    }

    fn fails(failing: &AtomicUsize) -> bool {
        failing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}

struct TestBackplane {
    bus: Arc<Bus>,
    history: Option<TestHistory>,
    cut: Arc<AtomicBool>,
    stats: Stats,
}

impl Backplane for TestBackplane {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            delivery: Delivery::AtMostOnce,
            ordering: Ordering::PerRoom,
            ack: Ack::Broker,
            interest: Interest::Everything,
            replay: if self.history.is_some() { ReplayKind::Memory } else { ReplayKind::None },
            positions: self.bus.positions,
            idempotent_retry: false,
            spans_nodes: true,
            whole_rooms: true,
        }
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        let hidden = is_hidden(&envelope.room);
        if self.cut.load(SeqCst) || (!hidden && Bus::fails(&self.bus.publishes_failing)) {
            return Box::pin(ready(Err(Error::new(ErrorKind::Timeout, "publish", "as the test wants"))));
        }
        if hidden && Bus::fails(&self.bus.hidden_lost) {
            return Box::pin(ready(Ok(Position::default())));
        }
        let mut offsets = self.bus.offsets.lock().unwrap();
        let offset = offsets.entry(envelope.room.clone()).or_default();
        *offset += 1;
        let position = Position { epoch: EPOCH, offset: *offset };
        let message = Message { envelope, position };
        if !hidden {
            let mut kept = self.bus.kept.lock().unwrap();
            kept.entry(message.envelope.room.clone()).or_default().push(message.clone());
        }
        if hidden || !Bus::fails(&self.bus.publishes_silent) {
            self.bus.send(Event::Message(message));
        }
        let mut open = self.bus.acks_open.subscribe();
        Box::pin(async move {
            let _ = open.wait_for(|open| *open).await;
            Ok(position)
        })
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        if is_hidden(room) {
            let open = self.bus.hidden_open.load(SeqCst);
            let closed = || Error::new(ErrorKind::Unreachable, "join", "as the test wants");
            return Box::pin(ready(open.then(Position::default).ok_or_else(closed)));
        }
        let (bus, room) = (Arc::clone(&self.bus), room.clone());
        bus.note("join", &room);
        Box::pin(async move {
            let _ = bus.joins_open.subscribe().wait_for(|open| *open).await;
            let failed = Bus::fails(&bus.joins_failing);
            bus.note(if failed { "failed" } else { "joined" }, &room);
            if failed {
                return Err(Error::new(ErrorKind::Unreachable, "join", "as the test wants"));
            }
            let unaware = bus.joins_unaware.load(SeqCst);
            Ok(if unaware { Position::default() } else { bus.top(&room) })
        })
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        let (bus, room) = (Arc::clone(&self.bus), room.clone());
        bus.note("leave", &room);
        Box::pin(async move {
            tokio::task::yield_now().await;
            bus.note("left", &room);
            Ok(())
        })
    }

    fn history(&self) -> Option<&dyn History> {
        self.history.as_ref().map(|history| history as &dyn History)
    }

    fn stats(&self) -> &Stats {
        self.stats.links_down.set(i64::from(self.cut.load(SeqCst)));
        &self.stats
    }

    fn failed(&self) -> Option<Error> {
        let error = || Error::new(ErrorKind::Closed, "run", "another process took its name");
        self.bus.failed.load(SeqCst).then(error)
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.bus.shut_down.store(true, SeqCst);
        Box::pin(ready(Ok(())))
    }
}

impl fmt::Debug for TestBackplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TestBackplane")
    }
}
