//! A test strategy that spans nodes within this process, so that faults can be shown to cases that need several
//! nodes without a broker. All nodes of a namespace share one `memory` backplane; it is in no registry.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};

use manifold_strategies::memory::{self, Memory};
use manifold_strategies::{
    Backplane, BoxFuture, Entrance, Envelope, Error, ErrorKind, Event, Guarantees, History, Position, Result,
    RoomId, Start, Stats, Strategy,
};
use parking_lot::Mutex;

/// What it promises: memory's guarantees, on several nodes.
pub const GUARANTEES: Guarantees = Guarantees { spans_nodes: true, ..memory::GUARANTEES };

/// The bus, as a strategy.
pub static BUS: Strategy = Strategy {
    name: "bus",
    guarantees: |_| Ok(GUARANTEES),
    connect: |start| Box::pin(ready(connect(start))),
    ..memory::STRATEGY
};

fn connect(start: Start) -> Result<Arc<dyn Backplane>> {
    let settings = memory::Settings::parse(&start.settings)?;
    Ok(Arc::new(Node::connect(start, settings)?))
}

static NAMESPACES: LazyLock<Mutex<HashMap<String, Shared>>> = LazyLock::new(Mutex::default);

/// What the nodes of a namespace have in common.
#[derive(Clone)]
struct Shared {
    memory: Arc<Memory>,
    line: Arc<Line>,
}

/// Takes what memory delivers to every node that wants it. Memory calls it in each room's order.
#[derive(Default)]
struct Line(Mutex<Vec<Member>>);

struct Member {
    name: String,
    rooms: HashSet<RoomId>,
    entrance: Arc<dyn Entrance>,
}

impl Entrance for Line {
    fn deliver(&self, batch: &mut Vec<Event>) {
        for member in &*self.0.lock() {
            let wanted = |event: &&Event| match event {
                Event::Message(message) => member.rooms.contains(&message.envelope.room),
                _ => true,
            };
            let mut part: Vec<Event> = batch.iter().filter(wanted).cloned().collect();
            if !part.is_empty() {
                member.entrance.deliver(&mut part);
            }
        }
        batch.clear();
    }
}

struct Node {
    name: String,
    shared: Shared,
    closed: AtomicBool,
}

impl Node {
    fn connect(start: Start, settings: memory::Settings) -> Result<Self> {
        let mut namespaces = NAMESPACES.lock();
        let shared = match namespaces.get(&start.namespace) {
            Some(shared) => shared.clone(),
            None => {
                let line = Arc::new(Line::default());
                let memory = Arc::new(Memory::start(Arc::clone(&line) as Arc<_>, settings)?);
                namespaces.entry(start.namespace).or_insert(Shared { memory, line }).clone()
            }
        };
        let member = Member { name: start.node.clone(), rooms: HashSet::new(), entrance: start.entrance };
        shared.line.0.lock().push(member);
        Ok(Self { name: start.node, shared, closed: AtomicBool::new(false) })
    }

    /// Changes the rooms that this node wants; returns whether any node wants `room` then.
    fn want(&self, room: &RoomId, wanted: bool) -> bool {
        let mut members = self.shared.line.0.lock();
        if let Some(own) = members.iter_mut().find(|member| member.name == self.name) {
            if wanted {
                own.rooms.insert(room.clone());
            } else {
                own.rooms.remove(room);
            }
        }
        members.iter().any(|member| member.rooms.contains(room))
    }
}

impl Backplane for Node {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        if self.closed.load(SeqCst) {
            let closed = Error::new(ErrorKind::Closed, "publish", "the node was shut down");
            return Box::pin(ready(Err(closed)));
        }
        self.shared.memory.publish(envelope)
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        self.want(room, true);
        // Harmless for a room that another node joined: the answer is where it stands.
        self.shared.memory.join(room)
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        if self.want(room, false) {
            return Box::pin(ready(Ok(())));
        }
        self.shared.memory.leave(room)
    }

    fn history(&self) -> Option<&dyn History> {
        self.shared.memory.history()
    }

    fn stats(&self) -> &Stats {
        self.shared.memory.stats()
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.closed.store(true, SeqCst);
        self.shared.line.0.lock().retain(|member| member.name != self.name);
        Box::pin(ready(Ok(())))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}
