//! Redis carries the live message, Kafka holds the durable log, one sequence joins them (plan 4).
//!
//! # How a message travels
//! A script in Redis assigns the room's next position (epoch and offset) and publishes, in one step; as soon as the position
//! is known, the publisher's node appends the message, with it, to the room's partition of the log. The publisher is
//! acknowledged when the log has it. With `first = "durable"` the script only reserves the position, and the message is
//! published live when the log has it.
//!
//! Every node listens to its rooms in Redis **and** reads the whole log. Both go through one `merge`: per room the
//! lowest position not yet seen is delivered, from whichever path brings it first, and the other copy is dropped. A hole is
//! held until the log fills it, for `heal_timeout_ms` at most, and then declared as a gap. While Redis is healthy the log is
//! read seldom and in bulk, for safety only.
//!
//! When Redis is lost a publisher's node appends without a position, and members get the message from the log some
//! `log_wait_ms` later, in the log's order. It has no position then (offset 0), and neither has a join that finds Redis
//! away. No client is disconnected, and a new member joins by the log alone.
//!
//! # What positions tell
//! Messages that have a position are dense: the next one is one more, or a gap was declared, or the offset was
//! [skipped](crate::Event::Skipped) because another copy of its message had come before (a retry with the same id). A
//! message has none where none can be known in order: it travelled by the log alone, or it comes after its place was given
//! up, or after its epoch ended. Such messages are delivered in between, and are neither holes nor gaps, so an outage by itself
//! tells nobody of a loss. When only the link was away the numbering simply goes on. When Redis was restarted, or a
//! failover made a replica the master, a new epoch starts at 1, and is [announced](crate::Event::Renumbered): positions of the
//! old one are void, but nothing is lost by that, since what the old epoch lacked was filled from the log or declared
//! before the new one begins.
//!
//! # Why nothing acknowledged is lost, doubled, or reordered
//! Nodes notice the loss and the return of Redis at different times, so publishers and receivers are in all combinations of
//! states for a while. The argument does not depend on who notices what when:
//!
//! - *Not lost.* An acknowledged message is in the log, and every receiver reads all of the log from before its join on.
//!   A record is delivered, or recognised as delivered, or held behind something that is bounded in time. It is
//!   dropped for good only if it comes after its place was declared as a gap.
//! - *Not doubled.* One message may have up to three copies: live, in the log with its position, and in the log without one
//!   (its publisher lost the link after sending the script, and could not know). Copies with a position are recognised by
//!   the position; those without by the message id, within the node's window of ids. What came without a position before anybody
//!   here was in the room has a window of its own: a Redis that was frozen may carry it out live after the join.
//! - *Each publisher in order.* Let a publisher send `m` before `n` to one room, and consider a receiver.
//!   1. Both with a position of one epoch: positions rise in the order of sending, and the merge follows them.
//!   2. `m` and `n` both without one: both come from the log alone, in the order in which one task appended them.
//!   3. `m` with a position, `n` without: the log has `m` before `n`. When `n` is read `m` was delivered, or is held; `n`
//!      is queued behind everything that is held and was read from the log before it, and so behind `m`.
//!   4. `m` without a position (or of an earlier epoch), `n` with one. Before a node returns to the live path it
//!      waits, with its publishes queued, until all of its appends have an outcome; every live message of it then carries a
//!      *fence*: where its own writing to that partition ended. A receiver holds a live message until it has read the log up
//!      to the fence, and so has seen `m`. It waits as long as its reading of the log moves on, and five times `heal_timeout_ms`
//!      beyond, twenty times at most. A copy of `n` from the log lies behind `m` anyway.
//! - *Not seen again by who comes back.* A message that has a position in the log is never delivered without one to members who
//!   could then get it again: what the log brings of an epoch that the live path has not told of (its link is still with a
//!   server that is master no more) waits until it has, or its link is known to be broken, or for `heal_timeout_ms`; then the log
//!   decides. Positions of one epoch are never given out twice, since each life of a server begins an epoch of its own.
//! - *One order for all members of a room*, which [`GUARANTEES`] declares for healthy brokers, holds while Redis is healthy (its
//!   sequence), and while it is away for everybody (the log's order). In between, while some nodes have the link and others
//!   do not, and for what is delivered late, messages of *different* publishers may interleave differently on different
//!   nodes.
//!
//! # What is declared although it may have arrived
//! A publish that Redis executed and whose reply was lost has used up an offset that is in no record of the log. A
//! receiver that missed it live too gets the message without a position, and after `heal_timeout_ms` declares the offset as a gap:
//! a false alarm, never a silent loss. A message that is live but that the log then refuses reaches members although its
//! publisher is told that it failed (not with `first = "durable"`). With `first = "durable"` a node that dies, or is cut off,
//! between reserving a position and appending the message leaves a hole that holds the room up for `heal_timeout_ms`; if the
//! message is appended after all, it is still delivered.
//!
//! A hole that the log fills in time is counted as a gap repaired; with `first = "durable"` so is what the log brings ahead of an
//! announcement that another one has overtaken.
//!
//! # When the log's topic is deleted
//! Every node looks each 2 s whether the topic is still the one that it reads: it carries a mark, as those of `kafka-keyed` do. One that is
//! gone is created anew, one that is another is read from its start, and each room is declared to have lost something: what was in the log
//! alone, and not read yet, is gone for good. The live path goes on in between, in the same epoch; publishes are refused for the time
//! being, since nothing keeps them. The mark also says that the topic is not the first one, so that nobody takes its beginning for that
//! of all messages: who stands less than `publish_timeout_ms` and 10 s behind it is told of a loss. *Only a node that happens to start
//! between the deletion and the new topic cannot know*: if it is the one that creates it, nodes that start later take it for the first
//! one.
//!
//! # Who comes back
//! `history` looks in three places, each for more than the one before: in the rings of this node (rooms that have members here,
//! in the order of the merge, both epochs where one followed the other), in Redis's stream, and in the log, as far back as
//! a read may scan. An answer must hold all that was acknowledged, or delivered by this node, before the question. So first the
//! broker is asked where the partition ends, and then the node reads up to there, until the room holds nothing back.
//!
//! In the log, messages with a position are put in the order of their positions, epoch by epoch, wherever their records lie:
//! that is how members saw them. It must hold the record of the member's position itself, and from there on every offset, and
//! every further epoch from 1 on. What has none comes behind everything that was logged before it, where a member put it that
//! read the same log. A copy of a message that lies there already is dropped. If an offset is missing it is looked for again for
//! `heal_timeout_ms`, and then nothing is claimed.
//!
//! A position does not say whether its member has seen a message `x` that has none. Two things do:
//! - `x` lies behind a record with a later position of the same epoch: who saw `x` had seen that one before (rule 3 above), and would
//!   stand there. So `x` was not seen, and is in the answer.
//! - `x` was logged long before the record of the member's position: by `publish_timeout_ms` and 10 s. The position was
//!   assigned no earlier than `publish_timeout_ms` before its record, and a node that delivers live messages is taken to be
//!   less than 10 s behind the log. So `x` was seen. *This is the one assumption about time that an answer from the log rests on.*
//!   It is not made where this node itself could not read the log at the time, since others may have been cut off as long.
//!
//! Such an `x` may have had a position after all: Redis ran the script, and its publisher lost the link before it learned that. Members
//! who heard `x` live saw it there. So before `x` is given to anybody the log must have every position up to the member's, as far
//! back as one may have been assigned to `x`; or else the stream must tell where `x` stands. The stream also tells what belongs into holes
//! behind the member's position: a message that lies in the log without its position, or one that was shown and that the log did
//! not take. With Redis restarted, or the stream cut off before there, nothing is claimed.
//!
//! What the log refuses leaves no record, though members saw it; and if Redis came back empty no stream tells of it either: then the
//! log looks whole across the change of epoch. So a node remembers what it delivered live until it has read the record. An answer
//! from the log must have all of that; if it is not there in time, nothing is claimed.
//!
//! Everything else is unsure, and then the answer is incomplete: above all for members whose last position was the last one
//! before an outage, and who may or may not have heard what went by the log alone. For the same reason a ring begins 10 s after
//! the node joined the room, or after the last message without a position, or after the log could be read again, and ends with the
//! next message without a position. A change of epoch alone does not end it. Who has seen no message of an epoch yet (offset 0)
//! has no record to begin at, and is answered only while one read may scan all that its partition ever held.
//!
//! The stream by itself tells too little: while one publisher has lost its link to Redis, its messages pass the stream by, which
//! looks whole all the same. So it is believed only where this node, which reads the whole log, knows that nothing in the
//! partition went that way, and no link to Redis broke, in the last minute before the member's last message was published, or
//! since. That minute must cover those 10 s and the difference between the clocks of nodes. An outage of the log counts for
//! partitions that had not been calm for a minute and 10 s when it was noticed: of the others every node had read all before, and what
//! goes by the log alone meanwhile is read before anybody is answered. With `first = "durable"` the stream may have holes, which it
//! shows; then the log is asked.
//!
//! So nothing is claimed while the log is away, however whole the stream looks. Before it went, a publisher without Redis may have
//! appended something, and was told that it is safe. A node that had only just started begins to read behind the log's end of then:
//! it cannot know of what lies before, and will not deliver it either. One that was there for longer knows what it has read, and
//! delivers the rest once the log is back; but the member may have seen some of that rest already, on a node that was cut off a
//! moment later, and would then get it twice. Neither shows in Redis. Live messages do not wait for the log.
//!
//! Pages of history come from the same places, but from the stream only where the log cannot be read in time: then they lack
//! what went by the log alone.

mod history;
mod kept;
mod life;
mod line;
mod log;
mod merge;
mod node;
mod order;
mod paths;
pub mod settings;
mod under_way;
mod unlogged;

use tokio::sync::oneshot;

pub use settings::{First, Settings};

use crate::backplane::Position;
use crate::error::Result;
use crate::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use crate::strategy::{Needs, Strategy, Variant};

/// Tells a publisher.
type Outcome = oneshot::Sender<Result<Position>>;

/// What the strategy promises, whichever path comes first. The order is per room while both brokers are healthy; while one
/// fails or comes back it is per publisher. Positions are dense among the messages that have one.
pub const GUARANTEES: Guarantees = Guarantees {
    delivery: Delivery::AtLeastOnceDeduplicated,
    ordering: Ordering::PerRoomWhileHealthy,
    ack: Ack::Log,
    interest: Interest::Everything,
    replay: ReplayKind::Log,
    positions: Positions::Dense,
    idempotent_retry: true,
    spans_nodes: true,
    whole_rooms: true,
};

/// The registry line.
pub const STRATEGY: Strategy = Strategy {
    name: "hybrid",
    summary: "Redis for the live message, Kafka for the durable log, one sequence over both",
    needs: Needs { kafka: true, redis: true },
    counter_example: false,
    variants: &[Variant { name: "durable-first", settings: "first = \"durable\"" }],
    settings: |table| Settings::parse(table)?.effective(),
    guarantees: |table| Settings::parse(table).map(|_| GUARANTEES),
    connect: |start| {
        Box::pin(async move {
            let settings = Settings::parse(&start.settings)?;
            node::connect(start, settings).await
        })
    },
};
