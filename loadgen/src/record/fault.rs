//! Faults: what a scenario does to the system, to whom, and what came of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::cost::ComponentKind;

/// A step of a scenario's fault timeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When, in seconds after the warm-up (the start of the counted window).
    pub at_s: f64,
    /// What is done.
    #[serde(rename = "do")]
    pub deed: Deed,
    /// To whom.
    pub to: Target,
}

/// What a fault does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// SIGKILL.
    Kill,
    /// SIGSTOP.
    Stop,
    /// SIGCONT.
    Continue,
    /// Starts it again on the same data and port; kills it first if it runs.
    Restart,
    /// Adds a node.
    Add,
    /// SIGTERM: a node sends its clients away, finishes what it has begun, and is gone.
    Drain,
    /// One after the other is drained and started again, as a new version is rolled out.
    Roll,
    /// A link passes nothing any more, and nobody is told.
    Stall,
    /// A link resets its connections, and new ones too.
    Cut,
    /// A link delays everything by 25 ms each way and passes at most 1 MB/s per connection.
    Slow,
    /// A link is as it was.
    Mend,
    /// Starts it again without waiting for it to serve: what it needs may be missing.
    Launch,
    /// Waits until what was launched serves.
    Await,
    /// Doubles the partitions of topics.
    Grow,
    /// Deletes topics.
    Delete,
    /// Uses a resource up: nothing more of it is to be had.
    Exhaust,
    /// The resource is there again.
    Relieve,
    /// Moves hash slots, with their keys, to another server.
    Migrate,
}

/// What a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// The last of the server nodes that were there at the start (or, with [`Deed::Add`], a new one).
    Node,
    /// Every Kafka broker.
    Kafka,
    /// Every Redis server.
    Redis,
    /// Every server node.
    Nodes,
    /// The Kafka broker that leads most partitions at that time; what follows strikes the same one.
    KafkaLeader,
    /// That broker and as many others as make a majority.
    KafkaMajority,
    /// The Redis server that was the master at the start.
    RedisMaster,
    /// The links between the nodes and every Kafka broker.
    KafkaLink,
    /// The link between the nodes and Redis.
    RedisLink,
    /// The Kafka topics of the run.
    KafkaTopics,
    /// Every Kafka broker's disk: no file can be written to any more.
    KafkaDisk,
    /// The file descriptors of that node.
    NodeFiles,
    /// The memory that Redis may use, with a policy that evicts nothing.
    RedisMemory,
    /// The output buffers that Redis grants a subscriber: whatever does not fit its fixed 16 KiB ends the connection.
    RedisBuffers,
    /// Hash slots of a Redis cluster.
    RedisSlots,
}

impl Target {
    /// The kind of broker that it strikes, or cuts off; none where it strikes nodes.
    pub fn broker(self) -> Option<ComponentKind> {
        match self {
            Self::Node | Self::Nodes | Self::NodeFiles => None,
            Self::Kafka
            | Self::KafkaLeader
            | Self::KafkaMajority
            | Self::KafkaLink
            | Self::KafkaTopics
            | Self::KafkaDisk => Some(ComponentKind::Kafka),
            Self::Redis
            | Self::RedisMaster
            | Self::RedisLink
            | Self::RedisMemory
            | Self::RedisBuffers
            | Self::RedisSlots => Some(ComponentKind::Redis),
        }
    }

    /// Whether it is a link, and no process.
    pub fn is_link(self) -> bool {
        matches!(self, Self::KafkaLink | Self::RedisLink)
    }

    /// Whether it is something that runs out.
    pub fn is_resource(self) -> bool {
        matches!(self, Self::KafkaDisk | Self::NodeFiles | Self::RedisMemory | Self::RedisBuffers)
    }

    /// Whether it is one process or several.
    pub fn is_process(self) -> bool {
        !self.is_link() && !self.is_resource() && !matches!(self, Self::KafkaTopics | Self::RedisSlots)
    }
}

impl Deed {
    /// Whether it can be done to such a target.
    pub fn suits(self, target: Target) -> bool {
        match self {
            Self::Stall | Self::Cut | Self::Slow | Self::Mend => target.is_link(),
            Self::Add => target == Target::Node,
            Self::Drain | Self::Roll => matches!(target, Target::Node | Target::Nodes),
            Self::Kill | Self::Stop | Self::Continue | Self::Restart | Self::Launch | Self::Await => {
                target.is_process()
            }
            Self::Grow | Self::Delete => target == Target::KafkaTopics,
            Self::Exhaust | Self::Relieve => target.is_resource(),
            Self::Migrate => target == Target::RedisSlots,
        }
    }
}

/// What came of a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultOutcome {
    /// It was done to these processes, e.g. `n2` or `redis`.
    Done {
        /// Names of the processes.
        whom: String,
        /// Address of a node that was added: `ws://…`.
        added_url: Option<String>,
    },
    /// The strategy uses no such component: the run goes on undisturbed.
    NotApplicable,
}

/// A fault as it happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FaultMark {
    /// What was asked for.
    pub fault: Fault,
    /// When it began, seconds from the first intended send (the series' clock).
    pub began_s: f64,
    /// When the deed was finished (a restart: the process answers again), same clock.
    pub ended_s: f64,
    /// The processes; empty when the strategy uses no such component.
    pub whom: String,
    /// Longest stretch without any delivery that began between this fault and the next one (or the end), in
    /// milliseconds, all rooms together. Finer than the series.
    pub silence_ms: f64,
    /// The longest silence of any one room in the same stretch: from a message being due there until one arrives. Sees
    /// the outage of one node's or one partition's rooms, which `silence_ms` does not.
    #[serde(default)]
    pub room_silence_ms_max: Option<f64>,
    /// 99th percentile over rooms of the same, for rooms in which something was due.
    #[serde(default)]
    pub room_silence_ms_p99: Option<f64>,
}

impl FaultMark {
    /// The longest silence of any one room; of all together in records that don't tell rooms apart.
    pub fn longest_silence_ms(&self) -> f64 {
        self.room_silence_ms_max.unwrap_or(self.silence_ms)
    }
}
