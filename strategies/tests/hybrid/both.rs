//! Both brokers are away at once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::comeback::{come_back, keep_coming_back};
use crate::node::{BOTH, Node, ROOM, audit, brokers, shutdown, stream_until, until_acknowledged};
use crate::pauses::Pauses;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_take_is_refused_and_the_rest_arrives() -> Result<()> {
    for settings in BOTH {
        let brokers = brokers()?;
        let (redis, kafka) = (brokers.process("redis"), brokers.process("kafka-1"));
        let (redis, kafka) = (redis.context("it runs")?.clone(), kafka.context("it runs")?.clone());
        // One partition: with more, librdkafka 2.12 may crash while a broker comes back (its issue 5280).
        let nodes =
            Node::three(&brokers, &format!("{settings}\npartitions = 1\npublish_timeout_ms = 1000")).await?;
        let (stop_streams, stopped) = watch::channel(false);
        let (stop, coming_back) = keep_coming_back(&nodes[1], &nodes[2]);
        let streams = [stream_until(&nodes[0], stopped.clone()), stream_until(&nodes[2], stopped)];
        nodes[1].inbox.wait_for(ROOM, 300).await?;
        redis.kill()?;
        kafka.kill()?;
        // Refused in time, with an error that a retry may help.
        let (asked, pauses) = (Instant::now(), Pauses::watch());
        let error =
            nodes[1].publish("another", "nobody takes it").await.err().context("nobody could take it")?;
        let told = asked.elapsed();
        let error = error.downcast::<manifold_strategies::Error>()?;
        ensure!(error.is_temporary(), "{error}");
        let allowed = pauses.allow(Duration::from_secs(4));
        ensure!(told < allowed, "told after {told:?}, {allowed:?} are allowed");
        // Part of the fault: longer than any publish may wait.
        sleep(Duration::from_millis(1_500)).await;
        tokio::task::spawn_blocking(move || kafka.restart().and_then(|()| redis.restart())).await??;
        until_acknowledged(&nodes[0], "another").await?;
        for node in &nodes {
            node.inbox.wait_until("the live path", || node.reconnects() >= 1).await?;
        }
        sleep(Duration::from_millis(500)).await;
        stop_streams.send_replace(true);
        let [a, c] = streams;
        let ((a, refused_a), (c, refused_c)) = (a.await??, c.await??);
        let last =
            |name: &str, numbers: &[usize]| format!("{name}:{}", numbers.last().copied().unwrap_or_default());
        let (last_a, last_c) = (last("a", &a), last("c", &c));
        for node in &nodes {
            let arrived = || {
                let texts = node.inbox.texts(ROOM);
                texts.contains(&last_a) && texts.contains(&last_c)
            };
            node.inbox.wait_until("the last messages", arrived).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
        }
        stop.send_replace(true);
        let (meanwhile, other) = (coming_back.await??, come_back(&nodes[1], &nodes[2]).await?);
        eprintln!(
            "{settings}: {} and {} acknowledged, {refused_a} and {refused_c} refused, meanwhile {meanwhile:?}, then {other:?}",
            a.len(),
            c.len()
        );
        ensure!(refused_a > 0 && refused_c > 0, "somebody claims to have taken it");
        // Who may be missing something that was shown and then refused, or shown without a position, is told so, or put off while
        // nobody can know: here that is everybody, but before it began.
        ensure!(meanwhile.put_off + meanwhile.incomplete > 0, "everybody claims to know: {meanwhile:?}");
        shutdown(nodes).await?;
    }
    Ok(())
}
