//! Who comes back: everything that was missed, in order and once, or word that it is not to be had.

use anyhow::{Context, Result, bail, ensure};
use manifold_strategies::guarantees::ReplayKind;
use manifold_strategies::{History, Message, Page, PageQuery, Position, Resumed, RoomId, find};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::node::{BOTH, Node, ROOM, brokers, envelope, shutdown};

/// As many as a server asks for.
const LIMIT: usize = 300;

impl Node {
    fn history(&self) -> Result<&dyn History> {
        self.backplane.history().context("history")
    }

    async fn resume(&self, since: Position, limit: usize) -> Result<Resumed> {
        Ok(self.history()?.resume(&RoomId::new(ROOM), since, limit).await?)
    }

    async fn page(&self, since: Option<Position>, limit: usize, reverse: bool) -> Result<Page> {
        Ok(self.history()?.page(&RoomId::new(ROOM), PageQuery { since, limit, reverse }).await?)
    }

    async fn join(&self) -> Result<Position> {
        Ok(self.backplane.join(&RoomId::new(ROOM)).await?)
    }

    /// Publishes numbers, one after the other. Their positions.
    async fn publish_all(&self, numbers: std::ops::Range<usize>) -> Result<Vec<Position>> {
        let mut positions = Vec::new();
        for number in numbers {
            positions.push(self.backplane.publish(envelope(ROOM, &number.to_string())).await?);
        }
        Ok(positions)
    }
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.envelope.payload).into_owned()).collect()
}

fn numbered(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// The messages and the top of a complete answer.
fn complete(resumed: Resumed) -> Result<(Vec<String>, Position)> {
    match resumed {
        Resumed::Complete { messages, top } => Ok((texts(&messages), top)),
        Resumed::Incomplete { top } => bail!("incomplete at {top:?}"),
    }
}

/// The top of an answer that is not complete.
fn incomplete(resumed: Resumed) -> Result<Position> {
    match resumed {
        Resumed::Incomplete { top } => Ok(top),
        Resumed::Complete { messages, top } => bail!("complete at {top:?} with {:?}", texts(&messages)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_goes_on_from_a_position() -> Result<()> {
    let brokers = brokers()?;
    for settings in BOTH {
        let (a, b) =
            (Node::start("a", &brokers, settings).await?, Node::start("b", &brokers, settings).await?);
        let first = a.join().await?;
        ensure!(complete(b.resume(first, LIMIT).await?)?.0.is_empty(), "{settings}: nothing was missed yet");
        let at = a.publish_all(0..110).await?;
        b.join().await?;
        let fresh = Node::start("fresh", &brokers, settings).await?;
        for node in [&a, &b, &fresh] {
            let name = format!("{settings}: {}", node.name);
            let (missed, top) = complete(node.resume(at[9], LIMIT).await?)?;
            ensure!(missed == numbered(10..110) && top == at[109], "{name}: {missed:?} at {top:?}");
            ensure!(
                complete(node.resume(first, LIMIT).await?)?.0 == numbered(0..110),
                "{name}: from the start"
            );
            ensure!(complete(node.resume(at[109], 0).await?)?.0.is_empty(), "{name}: nothing was missed");
            ensure!(incomplete(node.resume(at[9], 99).await?)? == at[109], "{name}: more than the limit");
            let ahead = Position { offset: 111, ..at[0] };
            ensure!(incomplete(node.resume(ahead, LIMIT).await?)? == at[109], "{name}: never was");
            let foreign = Position { epoch: 1, ..at[9] };
            ensure!(incomplete(node.resume(foreign, LIMIT).await?)? == at[109], "{name}: of no epoch");
        }
        // What its publisher announced or not: the log has it.
        drop(a);
        ensure!(complete(fresh.resume(at[9], LIMIT).await?)?.0 == numbered(10..110), "its publisher is gone");
        shutdown(vec![b, fresh.clone()]).await?;
        ensure!(fresh.resume(at[9], LIMIT).await.is_err(), "it was shut down");
    }
    Ok(())
}

/// Publishes to other rooms, many at once.
async fn publish_others(node: &Node, count: usize) -> Result<()> {
    let publish = |number: usize| node.backplane.publish(envelope(&format!("other {}", number % 9), "x"));
    let sent: Vec<_> = (0..count).map(publish).collect();
    for ack in sent {
        ack.await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_reaches_further_back_than_memory_and_stream() -> Result<()> {
    let brokers = brokers()?;
    for order in BOTH {
        let settings =
            format!("{order}\npartitions = 1\nhistory_messages = 10\nhistory_scan_messages_max = 2000");
        let a = Node::start("a", &brokers, &settings).await?;
        a.join().await?;
        let at = a.publish_all(0..200).await?;
        publish_others(&a, 1_500).await?;
        let b = Node::start("b", &brokers, &settings).await?;
        ensure!(
            complete(b.resume(at[0], LIMIT).await?)?.0 == numbered(1..200),
            "{order}: through 1,500 others"
        );
        publish_others(&a, 500).await?;
        ensure!(incomplete(b.resume(at[0], LIMIT).await?)? == at[199], "{order}: more than a read may scan");
        shutdown(vec![a, b]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_by_the_log_alone_is_resumed_across_an_outage_of_redis() -> Result<()> {
    let brokers = brokers()?;
    let redis = brokers.process("redis").expect("it runs").clone();
    for settings in BOTH {
        let (a, b) =
            (Node::start("a", &brokers, settings).await?, Node::start("b", &brokers, settings).await?);
        b.join().await?;
        let at = a.publish_all(0..15).await?;
        b.inbox.wait_for(ROOM, 15).await?;
        redis.kill()?;
        let alone = a.publish_all(15..25).await?;
        ensure!(alone.iter().all(|at| at.offset == 0), "{settings}: {alone:?}");
        // While Redis is away.
        let (missed, top) = complete(b.resume(at[4], LIMIT).await?)?;
        ensure!(missed == numbered(5..25), "{settings}: {missed:?}");
        ensure!(top == at[14], "{settings}: {top:?}");
        // Whether this one has heard the first of those that have no position, nobody knows.
        incomplete(b.resume(at[14], LIMIT).await?)?;

        let again = redis.clone();
        tokio::task::spawn_blocking(move || again.restart()).await??;
        b.inbox.wait_until("the live path", || b.reconnects() >= 1).await?;
        let mut count = 25;
        loop {
            let position = a.publish_all(count..count + 1).await?[0];
            count += 1;
            if position.offset > 0 {
                ensure!(position.epoch != at[0].epoch, "{settings}: another epoch");
                break;
            }
            ensure!(count < 10_000, "{settings}: the live path does not come back");
        }
        let later = a.publish_all(count..count + 10).await?;
        let fresh = Node::start("fresh", &brokers, settings).await?;
        for node in [&b, &fresh] {
            let (missed, top) = complete(node.resume(at[4], count + 5).await?)?;
            ensure!(missed == numbered(5..count + 10), "{settings}: {}: {missed:?}", node.name);
            ensure!(top == later[9], "{settings}: {}: {top:?}", node.name);
            incomplete(node.resume(at[14], LIMIT).await?)?;
        }
        shutdown(vec![a, b, fresh]).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_the_log_has_lost_is_incomplete() -> Result<()> {
    let brokers = brokers()?;
    let settings = "partitions = 1";
    let a = Node::start("a", &brokers, settings).await?;
    a.join().await?;
    let at = a.publish_all(0..20).await?;
    drop_before(brokers.kafka().context("it runs")?, "faults-fast.hybrid", 15).await?;
    let fresh = Node::start("fresh", &brokers, settings).await?;
    for node in [&a, &fresh] {
        ensure!(incomplete(node.resume(at[4], LIMIT).await?)? == at[19], "{}: its record is gone", node.name);
        let kept = node.page(None, LIMIT, false).await?;
        ensure!(texts(&kept.messages) == numbered(15..20), "{}: {kept:?}", node.name);
    }
    shutdown(vec![a, fresh]).await
}

/// Drops what a partition has before an offset, as retention does.
async fn drop_before(kafka: &str, topic: &str, offset: i64) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, 0, Offset::Offset(offset))?;
    admin.delete_records(&offsets, &AdminOptions::new()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_from_both_ends() -> Result<()> {
    let brokers = brokers()?;
    for settings in BOTH {
        let a = Node::start("a", &brokers, settings).await?;
        let strategy = find("hybrid").context("it is registered")?;
        ensure!((strategy.guarantees)(&settings.parse()?)?.replay == ReplayKind::Log, "{settings}");
        let at = a.publish_all(0..20).await?;
        let b = Node::start("b", &brokers, settings).await?;
        b.join().await?;
        for node in [&a, &b] {
            let name = format!("{settings}: {}", node.name);
            let top = node.page(None, 0, false).await?;
            ensure!(top == Page { top: at[19], ..Page::default() }, "{name}: {top:?}");
            ensure!(texts(&node.page(None, 2, false).await?.messages) == ["0", "1"], "{name}: the oldest");
            ensure!(texts(&node.page(None, 2, true).await?.messages) == ["19", "18"], "{name}: the newest");
            let next = node.page(Some(at[9]), 3, false).await?;
            ensure!(texts(&next.messages) == ["10", "11", "12"] && next.top == at[19], "{name}: {next:?}");
            ensure!(next.messages[0].position == at[10], "{name}: {next:?}");
            ensure!(texts(&node.page(Some(at[9]), 2, true).await?.messages) == ["8", "7"], "{name}: before");
            ensure!(node.page(Some(at[0]), 9, true).await?.messages.is_empty(), "{name}: before the first");
            let foreign = node.page(Some(Position { epoch: 1, offset: 1 }), 9, false).await?;
            ensure!(
                foreign.foreign && foreign.messages.is_empty() && foreign.top == at[19],
                "{name}: {foreign:?}"
            );
        }
        shutdown(vec![a, b]).await?;
    }
    Ok(())
}
