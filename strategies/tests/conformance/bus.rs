//! A test strategy that spans nodes within this process, so that faults can be shown to cases that need several
//! nodes without a broker. It joins one `memory` backplane per node; it is in no registry.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::{Arc, LazyLock};

use manifold_strategies::memory::{self, Memory};
use manifold_strategies::{
    Backplane, BoxFuture, Envelope, Guarantees, Position, Result, RoomId, Start, Stats, Strategy,
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
    (memory::STRATEGY.settings)(&start.settings)?;
    Ok(Arc::new(Node::connect(start)))
}

type Members = Arc<Mutex<Vec<(String, Arc<Memory>)>>>;

static NAMESPACES: LazyLock<Mutex<HashMap<String, Members>>> = LazyLock::new(Mutex::default);

struct Node {
    name: String,
    own: Arc<Memory>,
    members: Members,
}

impl Node {
    fn connect(start: Start) -> Self {
        let members = Arc::clone(NAMESPACES.lock().entry(start.namespace).or_default());
        let own = Arc::new(Memory::new(start.entrance));
        members.lock().push((start.node.clone(), Arc::clone(&own)));
        Self { name: start.node, own, members }
    }
}

impl Backplane for Node {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        // One lock over all nodes: every node sees one order.
        let members = self.members.lock();
        for (_, other) in members.iter().filter(|(name, _)| *name != self.name) {
            drop(other.publish(envelope.clone()));
        }
        self.own.publish(envelope)
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        self.own.join(room)
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        self.own.leave(room)
    }

    fn stats(&self) -> &Stats {
        self.own.stats()
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.members.lock().retain(|(name, _)| *name != self.name);
        self.own.shutdown()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).finish_non_exhaustive()
    }
}
