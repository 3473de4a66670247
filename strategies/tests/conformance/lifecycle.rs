//! Starting without a broker, and ending well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use manifold_strategies::ErrorKind;
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

pub async fn an_absent_broker_is_refused(cluster: Arc<Cluster>) -> Result<()> {
    let (mut start, _) = cluster.start();
    let nowhere = unused_port().await?;
    start.kafka = start.kafka.map(|_| nowhere.clone());
    start.redis = start.redis.map(|url| replace_hosts(&url, &nowhere));
    let connect = cluster.connect(start);
    match timeout(cluster.deadline, connect).await.context("connect to an absent broker did not end")? {
        Ok(_) => bail!("an absent broker went unnoticed"),
        Err(error) => {
            ensure!(error.kind() == ErrorKind::Unreachable, "an absent broker is reported as {error}");
            let port = nowhere.rsplit(':').next().unwrap_or_default();
            ensure!(
                error.to_string().contains(port),
                "the error does not name the address {nowhere}: {error}"
            );
            Ok(())
        }
    }
}

pub async fn an_absent_broker_is_retried(cluster: Arc<Cluster>) -> Result<()> {
    let (mut start, _) = cluster.start();
    let late = unused_port().await?;
    let real = start.kafka.clone().or_else(|| start.redis.as_deref().map(first_host)).context("no broker")?;
    if start.kafka.is_some() {
        start.kafka = Some(late.clone());
    } else {
        start.redis = start.redis.map(|url| replace_hosts(&url, &late));
    }
    start.connect_retry = Some(cluster.deadline);
    let began = Instant::now();
    let connect = tokio::spawn({
        let cluster = Arc::clone(&cluster);
        async move { cluster.connect(start).await }
    });
    let opens_after = Duration::from_millis(1500);
    let forwarder = tokio::spawn(async move {
        tokio::time::sleep(opens_after).await;
        forward(&late, first_host(&real)).await
    });
    let connected = timeout(cluster.deadline, connect).await.context("connect did not end")?;
    forwarder.abort();
    let backplane = connected??;
    ensure!(began.elapsed() >= opens_after, "connected before there was a broker");
    timeout(cluster.deadline, backplane.shutdown()).await.context("shutdown did not end")?.ok();
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
