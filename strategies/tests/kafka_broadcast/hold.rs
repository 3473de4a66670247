//! The experiment of plan 1: a consumer that holds several partitions sees each message as often, unless it removes
//! the duplicates.

use manifold_strategies::Backplane;

use crate::brokers::{address, shared};
use crate::node::{Node, namespace, run};

const MESSAGES: u64 = 200;

#[test]
fn two_partitions_without_deduplication_show_every_message_twice() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", "").await;
        let member = Node::start(&kafka, &namespace, "member", "hold = 2\ndeduplicate = false").await;
        for number in 0..MESSAGES {
            publisher.publish(number).await.expect("published");
        }
        let all = |inbox: &crate::node::Inbox| inbox.numbers().len() as u64 == 2 * MESSAGES;
        member.inbox.wait_until("everything, twice", all).await;
        publisher.inbox.wait_for(MESSAGES - 1).await;
        publisher.inbox.assert_complete("the node with one partition", 0, MESSAGES - 1);
        assert_eq!(publisher.backplane.stats().broker_writes.get(), 3 * MESSAGES);
        publisher.shutdown().await;
        member.shutdown().await;
    });
}

#[test]
fn two_partitions_with_deduplication_show_every_message_once_and_count_the_rest() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", "").await;
        let member = Node::start(&kafka, &namespace, "member", "hold = 2").await;
        for number in 0..MESSAGES {
            publisher.publish(number).await.expect("published");
        }
        let stats = member.backplane.stats();
        let all = |_: &_| stats.envelopes_received.get() == 2 * MESSAGES;
        member.inbox.wait_until("everything, twice", all).await;
        member.inbox.assert_complete("the node with two partitions", 0, MESSAGES - 1);
        assert_eq!(stats.duplicates_removed.get(), MESSAGES);
        publisher.shutdown().await;
        member.shutdown().await;
    });
}
