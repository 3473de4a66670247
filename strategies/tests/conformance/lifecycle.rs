//! Starting without a broker, and ending well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use manifold_strategies::{ErrorKind, Start};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::cluster::{Cluster, envelope, numbered, same};

pub async fn shutdown_flushes_and_closes(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    let acks: Vec<_> =
        (0..200).map(|i| publisher.backplane.publish(envelope("room", format!("m:{i}")))).collect();
    timeout(cluster.deadline, publisher.backplane.shutdown()).await.context("shutdown did not end")??;
    for ack in acks {
        timeout(cluster.deadline, ack)
            .await
            .context("a publish from before the shutdown was never answered")??;
    }
    member.inbox.wait_for("room", 200).await?;
    member.inbox.quiet().await?;
    same("the member", &member.inbox.texts("room"), &numbered("m", 200))?;
    let error = timeout(cluster.deadline, publisher.backplane.publish(envelope("room", "late"))).await?.err();
    let kind = error.as_ref().map(manifold_strategies::Error::kind);
    ensure!(kind == Some(ErrorKind::Closed), "publish after shutdown was answered with {error:?}");
    timeout(cluster.deadline, publisher.backplane.shutdown())
        .await
        .context("a second shutdown did not end")?
        .ok();
    Ok(())
}

pub async fn a_node_that_leaves_does_not_disturb(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let leaver = cluster.node().await?;
    for node in [&member, &leaver] {
        node.join("room").await?;
    }
    for i in 0..300 {
        if i == 100 {
            leaver.backplane.shutdown().await?;
        }
        publisher.publish("room", format!("m:{i}")).await?;
    }
    member.inbox.wait_for("room", 300).await?;
    member.inbox.quiet().await?;
    same("the member that stayed", &member.inbox.texts("room"), &numbered("m", 300))
}

/// Each broker in turn is absent, the others are there.
pub async fn an_absent_broker_is_refused(cluster: Arc<Cluster>) -> Result<()> {
    for broker in Broker::of(&cluster.start().0)? {
        let (mut start, _) = cluster.start();
        let nowhere = unused_port().await?;
        broker.replace(&mut start, &nowhere);
        start.connect_retry = None;
        let connect = timeout(cluster.deadline, cluster.connect(start)).await;
        let Err(error) = connect.with_context(|| format!("connect without {broker:?} did not end"))? else {
            bail!("an absent broker went unnoticed: {broker:?}");
        };
        ensure!(error.kind() == ErrorKind::Unreachable, "an absent {broker:?} is reported as {error}");
        let port = nowhere.rsplit(':').next().unwrap_or_default();
        ensure!(error.to_string().contains(port), "the error does not name the address {nowhere}: {error}");
    }
    Ok(())
}

/// Each broker in turn comes late.
pub async fn an_absent_broker_is_retried(cluster: Arc<Cluster>) -> Result<()> {
    for broker in Broker::of(&cluster.start().0)? {
        let (mut start, _) = cluster.start();
        let late = unused_port().await?;
        let real = broker.replace(&mut start, &late).context("no broker")?;
        start.connect_retry = Some(cluster.deadline);
        let began = Instant::now();
        let connect = tokio::spawn({
            let cluster = Arc::clone(&cluster);
            async move { cluster.connect(start).await }
        });
        let opens_after = Duration::from_millis(1500);
        let forwarder = tokio::spawn(async move {
            tokio::time::sleep(opens_after).await;
            forward(&late, real).await
        });
        let connected = timeout(cluster.deadline, connect).await.context("connect did not end")?;
        forwarder.abort();
        let backplane = connected?.with_context(|| format!("{broker:?} came late"))?;
        ensure!(began.elapsed() >= opens_after, "connected before there was a broker: {broker:?}");
        timeout(cluster.deadline, backplane.shutdown()).await.context("shutdown did not end")?.ok();
    }
    Ok(())
}

pub async fn unknown_settings_are_refused(cluster: Arc<Cluster>) -> Result<()> {
    let (mut start, _) = cluster.start();
    start.settings.insert("no_such_setting".to_owned(), toml::Value::Integer(1));
    let checked = (cluster.subject.strategy.settings)(&start.settings);
    let message = checked.err().context("a misspelt setting was accepted")?.to_string();
    ensure!(message.contains("no_such_setting"), "the error does not name the setting: {message}");
    let error = cluster.connect(start).await.err().context("connect took a misspelt setting")?;
    ensure!(error.kind() == ErrorKind::Config, "a misspelt setting is reported as {error}");
    Ok(())
}

/// A kind of broker that a strategy needs.
#[derive(Debug, Clone, Copy)]
enum Broker {
    Kafka,
    Redis,
}

impl Broker {
    /// Those that a node is started with.
    fn of(start: &Start) -> Result<Vec<Self>> {
        let kafka = start.kafka.as_ref().map(|_| Self::Kafka);
        let brokers: Vec<Self> = kafka.into_iter().chain(start.redis.as_ref().map(|_| Self::Redis)).collect();
        ensure!(!brokers.is_empty(), "no broker");
        Ok(brokers)
    }

    /// Puts another host into the broker's address; returns the one that stood there first.
    fn replace(self, start: &mut Start, host: &str) -> Option<String> {
        let address = match self {
            Self::Kafka => &mut start.kafka,
            Self::Redis => &mut start.redis,
        };
        let real = address.as_deref().map(first_host);
        *address = address.take().map(|old| match self {
            Self::Kafka => host.to_owned(),
            Self::Redis => replace_hosts(&old, host),
        });
        real
    }
}

/// An address on which nothing listens.
async fn unused_port() -> Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?.to_string())
}

/// The same URL with every `host:port` replaced by one.
fn replace_hosts(url: &str, host: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
    let path = rest.find('/').map_or("", |at| &rest[at..]);
    format!("{scheme}://{host}{path}")
}

/// The first `host:port` of a URL or list.
fn first_host(addresses: &str) -> String {
    let rest = addresses.split_once("://").map_or(addresses, |(_, rest)| rest);
    rest.split(['/', ',']).next().unwrap_or_default().to_owned()
}

/// Passes connections on, both ways.
async fn forward(listen: &str, to: String) -> Result<()> {
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (mut inbound, _) = listener.accept().await?;
        let mut outbound = TcpStream::connect(&to).await?;
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await });
    }
}
