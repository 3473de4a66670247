//! The copies of a message come apart: a publisher's retry, or a partition that gets another leader. Nobody gets again what it
//! has.

use std::time::{Duration, Instant};

use manifold_strategies::envelope::encode;
use manifold_strategies::{Backplane, Envelope, PageQuery, Position, Resumed, RoomId};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::brokers::{address, shared};
use crate::node::{DEADLINE, Node, ROOM, envelope, namespace, run};

const TOP: PageQuery = PageQuery { since: None, limit: 0, reverse: false };

/// Where a client stands that has everything so far.
async fn place(node: &Node) -> Position {
    let history = node.backplane.history().expect("history");
    history.page(&RoomId::new(ROOM), TOP).await.expect("a page").top
}

/// A message as it travels.
fn record(number: u64) -> Vec<u8> {
    record_of(number, "")
}

/// The same of a sender.
fn record_of(number: u64, sender: &'static str) -> Vec<u8> {
    let mut record = Vec::new();
    encode(&Envelope { info: sender.into(), ..envelope(number) }, None, &mut record);
    record
}

/// Writes a message to one copy only.
fn write(producer: &BaseProducer, namespace: &str, copy: Position, record: &[u8]) {
    let topic = format!("{namespace}.broadcast");
    let partition = (copy.epoch & 0xffff) as i32;
    let sent = producer.send(BaseRecord::<(), [u8]>::to(&topic).partition(partition).payload(record));
    sent.map_err(|(error, _)| error).expect("sent");
    producer.flush(DEADLINE).expect("acknowledged");
}

#[test]
fn who_comes_before_the_own_copy_of_what_it_has_gets_it_no_second_time() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", "").await;
        let other = Node::start(&kafka, &namespace, "other", "").await;
        first.publish(0).await.expect("published");
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &kafka).create().expect("a producer");
        let late = record(1);
        write(&producer, &namespace, place(&first).await, &late);
        first.wait_for(1).await;
        let (since, before) = (place(&first).await, place(&other).await);
        let history = other.backplane.history().expect("history");
        let mut resumed = history.resume(&RoomId::new(ROOM), since, 300);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut resumed).await;
        assert!(early.is_err(), "it would come once more: {early:?}");
        write(&producer, &namespace, before, &late);
        let Resumed::Complete { messages, top } = resumed.await.expect("an answer") else {
            panic!("incomplete, though it is there");
        };
        assert!(messages.is_empty(), "{messages:?}");
        assert!(top.offset > before.offset, "what comes later lies behind it: {top:?}");

        // One that never comes is not waited for without end.
        write(&producer, &namespace, since, &record(2));
        first.wait_for(2).await;
        let since = place(&first).await;
        let resumed = history.resume(&RoomId::new(ROOM), since, 300).await.expect("an answer");
        assert!(matches!(resumed, Resumed::Incomplete { .. }), "{resumed:?}");
        first.shutdown().await;
        other.shutdown().await;
    });
}

/// What was missed, but for the 0s, if the answer is complete.
async fn missed(node: &Node, since: Position) -> Option<Vec<u64>> {
    let history = node.backplane.history().expect("history");
    let resumed = history.resume(&RoomId::new(ROOM), since, 300).await.expect("an answer");
    let Resumed::Complete { messages, .. } = resumed else { return None };
    let number = |payload: &[u8]| std::str::from_utf8(payload).ok()?.parse().ok();
    let numbers = messages.iter().map(|m| number(&m.envelope.payload).expect("a number"));
    Some(numbers.filter(|&number| number != 0).collect())
}

/// Asks until there is a complete answer.
async fn missed_in_the_end(node: &Node, since: Position) -> Vec<u64> {
    let deadline = Instant::now() + DEADLINE;
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    loop {
        pace.tick().await;
        if let Some(missed) = missed(node, since).await {
            return missed;
        }
        assert!(Instant::now() < deadline, "no complete answer");
    }
}

/// A write that fails in one copy alone leaves a hole there, between messages of the same sender.
#[test]
fn what_failed_in_one_copy_is_never_shown_behind_what_its_sender_published_later() {
    // The shorter the writes, the sooner what lacks in a copy is known to lack for good. The test writes by itself.
    const SETTINGS: &str = "publish_timeout_ms = 2500";
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", SETTINGS).await;
        let other = Node::start(&kafka, &namespace, "other", SETTINGS).await;
        let (in_first, in_other) = (place(&first).await, place(&other).await);
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &kafka).create().expect("a producer");
        let write = |copy: Position, record: &[u8]| write(&producer, &namespace, copy, record);
        // Until times say that what lacks in the first copy was to be written there.
        let (deadline, mut settled) = (Instant::now() + DEADLINE, false);
        let mut pace = tokio::time::interval(Duration::from_millis(200));
        while !settled {
            pace.tick().await;
            write(in_other, &record_of(0, "nobody"));
            settled = missed(&other, in_first).await.is_some();
            assert!(settled || Instant::now() < deadline, "nobody knows who wrote what");
        }

        let since = place(&first).await;
        write(in_other, &record_of(1, "ann"));
        let (second, of_another) = (record_of(2, "ann"), record_of(9, "bob"));
        // The senders' messages are interleaved differently in each copy.
        [&of_another, &second].into_iter().for_each(|record| write(in_first, record));
        [&second, &of_another].into_iter().for_each(|record| write(in_other, record));
        assert_eq!(missed_in_the_end(&other, since).await, [9, 1, 2]);

        // Who has the later one gets the earlier one no more.
        first.wait_for(2).await;
        let since = place(&first).await;
        let third = record_of(3, "ann");
        [in_first, in_other].into_iter().for_each(|copy| write(copy, &third));
        assert_eq!(missed_in_the_end(&other, since).await, [3]);
        first.shutdown().await;
        other.shutdown().await;
    });
}
