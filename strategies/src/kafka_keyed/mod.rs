//! Plan 2: every room has one partition, every message is written once.
//!
//! A custom [`partitioner`] maps the room id to a partition, so Kafka's order within a partition is the
//! room's order, and the same for everybody. What differs is how a node reads, by the setting `consume`:
//!
//! | `consume` | reads | join |
//! |---|---|---|
//! | `all` | every partition, from explicit offsets, without a group | at once |
//! | `demand` | only partitions in which it has rooms | when the partition is assigned at its present end |
//! | `group` | every partition, through a consumer group of its own | at once |
//! | `shared-group` | what a group shared by all nodes leaves to it: the counter-example | never whole |
//!
//! # Promises and how they are kept
//! - *Effective join*: a partition is read from an offset that was asked for before the join resolves, so whatever
//!   is published afterwards lies behind it, however long the first fetch takes.
//! - *No loss while the log keeps it*: the consumer goes on at its own offset after any outage. An offset that the
//!   log no longer holds is found by its jump and declared as a gap.
//! - *No duplicates*: the producer is idempotent for its own retries; a publisher's retry with the same message id
//!   writes a second record, which every node removes within its window.
//! - *History*: a position is a place in the room's partition of one incarnation of the topic, so any node can go on from
//!   it: from the last messages that it keeps in memory, else from the log (`history`).
//!
//! What does not live here: broker administration and threads, see [`clients::kafka`](crate::clients::kafka).

mod bell;
mod connect;
mod history;
mod keeper;
mod membership;
mod node;
pub mod partitioner;
mod plan;
mod publish;
mod reader;
mod rooms;
pub mod settings;

pub use partitioner::RoomPartitioner;
pub use settings::{Consume, Settings};

use crate::error::{Error, ErrorKind, Result};
use crate::strategy::{Needs, Strategy, Variant};

/// The registry line of the strategy.
pub const STRATEGY: Strategy = Strategy {
    name: "kafka-keyed",
    summary: "Kafka, one write per message: a room is a partition, nodes read all partitions or those they need",
    needs: Needs { kafka: true, redis: false },
    counter_example: false,
    variants: &[
        Variant { name: "demand", settings: "consume = \"demand\"" },
        Variant { name: "group", settings: "consume = \"group\"" },
    ],
    settings: |table| sound(table)?.effective(),
    guarantees: |table| Ok(sound(table)?.guarantees()),
    connect: |start| {
        Box::pin(async move {
            let settings = sound(&start.settings)?;
            connect::connect(start, settings).await
        })
    },
};

/// The registry line of the counter-example: the same strategy with one consumer group for all nodes.
pub const SHARED_GROUP: Strategy = Strategy {
    name: "kafka-shared-group",
    summary: "Counter-example: all nodes in one consumer group, so each sees only fragments of its rooms",
    needs: Needs { kafka: true, redis: false },
    counter_example: true,
    variants: &[],
    settings: |table| shared(table)?.effective(),
    guarantees: |table| Ok(shared(table)?.guarantees()),
    connect: |start| {
        Box::pin(async move {
            let settings = shared(&start.settings)?;
            connect::connect(start, settings).await
        })
    },
};

/// The mistake must be asked for by name, not by a setting that looks like any other.
fn sound(table: &toml::Table) -> Result<Settings> {
    let settings = Settings::parse(table)?;
    if settings.consume == Consume::SharedGroup {
        let text = "`consume` = \"shared-group\" splits rooms among nodes; to see it, use --strategy kafka-shared-group";
        return Err(Error::new(ErrorKind::Config, "settings", text));
    }
    Ok(settings)
}

fn shared(table: &toml::Table) -> Result<Settings> {
    let mut table = table.clone();
    let pinned = table.insert("consume".into(), "shared-group".into());
    if pinned.is_some_and(|value| value.as_str() != Some("shared-group")) {
        let text = "`consume` is always \"shared-group\" here; for other ways use --strategy kafka-keyed";
        return Err(Error::new(ErrorKind::Config, "settings", text));
    }
    Settings::parse(&table)
}
