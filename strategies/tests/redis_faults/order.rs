//! The order of a publisher, across connections.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::RoomId;
use manifold_strategies::clients::redis::resp::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use crate::node::{DEADLINE, FREEZES, Node, ROOM, admin, ask, audit, envelope, servers, until_acknowledged};

/// A network in front of a server that can hold back what was sent on the connections so far.
struct Network {
    address: String,
    /// Connections with a lower number are held.
    held_below: Arc<watch::Sender<usize>>,
    accepted: watch::Receiver<usize>,
    /// How many connections have brought all that was sent, or were cut off.
    ended: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Network {
    async fn start(server: String) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let held_below = Arc::new(watch::Sender::new(0));
        let (count, accepted) = watch::channel(0);
        let (end, ended) = watch::channel(0);
        let (held, end) = (Arc::clone(&held_below), Arc::new(end));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = *count.borrow();
                count.send_modify(|count| *count += 1);
                let (held, end, server) = (held.subscribe(), Arc::clone(&end), server.clone());
                tokio::spawn(async move {
                    let _ = carry(client, &server, number, held).await;
                    end.send_modify(|ended| *ended += 1);
                });
            }
        });
        Ok(Self { address, held_below, accepted, ended, task })
    }

    /// Holds back what is sent on the connections that there are.
    fn hold(&self) {
        self.held_below.send_replace(*self.accepted.borrow());
    }

    /// Lets everything through, and waits until a connection that its client gave up is through.
    async fn release(&mut self) -> Result<()> {
        let before = *self.ended.borrow();
        self.held_below.send_replace(0);
        timeout(DEADLINE, self.ended.wait_for(|ended| *ended > before)).await??;
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries bytes both ways; those to the server only while the connection is not held. A client that goes is no reason for the
/// server to hear of it before the bytes have arrived.
async fn carry(
    client: TcpStream,
    server: &str,
    number: usize,
    mut held: watch::Receiver<usize>,
) -> Result<()> {
    let server = TcpStream::connect(server).await?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let back = tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from_client.read(&mut bytes).await?;
        held.wait_for(|held_below| number >= *held_below).await?;
        if read == 0 {
            break;
        }
        to_server.write_all(&bytes[..read]).await?;
    }
    to_server.shutdown().await?;
    back.await??;
    Ok(())
}

/// What was written to a connection that was given up is carried out before what its successor brings, or never.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_given_up_is_never_behind_its_successor() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let mut network = Network::start(redis.trim_start_matches("redis://").to_owned()).await?;
    // What is unanswered has timed out when there is a connection again.
    let settings = "publish_timeout_ms = 1000\nresponse_timeout_ms = 1000\nresume_delay_ms = 200";
    let a = Node::start("a", &format!("redis://{}", network.address), settings).await?;
    let b = Node::start("b", redis, "").await?;
    let first = b.join(ROOM).await?;
    for number in 0..10 {
        a.publish(ROOM, &number.to_string()).await?;
    }
    network.hold();
    let unknown: Vec<_> =
        (10..60).map(|number| a.backplane.publish(envelope(ROOM, &number.to_string()))).collect();
    for ack in unknown {
        ensure!(ack.await.is_err(), "it can not have reached the server");
    }
    // The first of them wait for the new connection, and may wait in vain where the machine is slow.
    let mut taken: BTreeSet<usize> = (0..10).collect();
    let mut next = 60;
    for _ in 0..10 {
        let (number, _) = until_acknowledged(&a, ROOM, next).await?;
        taken.insert(number);
        next = number + 1;
    }
    network.release().await?;
    let (number, last) = until_acknowledged(&a, ROOM, next).await?;
    taken.insert(number);
    let arrived = || b.inbox.of(ROOM).last().is_some_and(|message| message.position == last);
    b.inbox.wait_until("the last message", arrived).await?;
    let seen = audit(&b, ROOM, first)?;
    let arrived: BTreeSet<usize> = seen.numbers.iter().copied().collect();
    ensure!(arrived.is_superset(&taken) && arrived.range(10..60).next().is_none(), "{seen:?}, not {taken:?}");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_not_end_connections_is_refused_at_the_start() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let user = ["ACL", "SETUSER", "narrow", "on", ">secret", "~*", "&*", "+@all", "-client|kill"];
    ask(&mut admin(redis).await?, &user).await?;
    let address = redis.replace("redis://", "redis://narrow:secret@");
    let error = Node::start("a", &address, "").await.err().context("it started")?;
    ensure!(format!("{error:#}").contains("allow its user CLIENT KILL"), "it says what helps: {error:#}");
    Ok(())
}

/// What the strategy's documentation lists.
const ALLOWED: &str = "~faults* &faults:* -@all +hello +auth +select +ping +info +script|load +evalsha +client|kill +get +mget \
                       +set +setrange +exists +expire +del +xadd +xrange +xrevrange +publish +subscribe +unsubscribe";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_needs_no_more_than_is_documented() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let mut admin = admin(redis).await?;
    let user: Vec<&str> =
        ["ACL", "SETUSER", "narrow", "on", ">secret"].into_iter().chain(ALLOWED.split_whitespace()).collect();
    ask(&mut admin, &user).await?;
    let address = redis.replace("redis://", "redis://narrow:secret@");
    let (a, b) = Node::pair(&address).await?;
    let first = b.join(ROOM).await?;
    for kind in ["normal", "pubsub"] {
        a.publish(ROOM, "0").await?;
        ask(&mut admin, &["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await?;
    }
    let last = a.publish(ROOM, "1").await?;
    let arrived = || b.inbox.of(ROOM).last().is_some_and(|message| message.position == last);
    b.inbox.wait_until("the last message", arrived).await?;
    ensure!(b.resume(ROOM, first, 300).await.is_ok(), "history is read");
    let history = b.backplane.history().context("it keeps history")?;
    history.remove(&RoomId::new(ROOM)).context("it can be removed")?.await?;
    let Value::Array(denied) = ask(&mut admin, &["ACL", "LOG"]).await? else { anyhow::bail!("no log") };
    ensure!(denied.is_empty(), "{denied:?}");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_frozen_server_finds_in_its_socket_is_never_behind_what_came_later() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let server = servers.process("redis").expect("it runs");
    // The stream has room for what is missed while links come back, however long that takes here.
    let settings =
        format!("publish_timeout_ms = 1200\nresume_delay_ms = 0\nhistory_messages = 10000\n{FREEZES}");
    let (a, b) = Node::pair_with(redis, &settings).await?;
    let first = b.join(ROOM).await?;
    let mut pace = interval(Duration::from_millis(1));
    let mut acks = Vec::new();
    for number in 0..4_000 {
        match number {
            500 => server.stop()?,
            3_000 => server.cont()?,
            _ => {}
        }
        pace.tick().await;
        // Long ones, so that the server takes many turns for what lies in its socket.
        acks.push(a.backplane.publish(envelope(ROOM, &format!("{number:04000}"))));
    }
    let mut refused = 0;
    for ack in acks {
        refused += usize::from(ack.await.is_err());
    }
    ensure!(refused > 0, "nothing timed out, this proves nothing");
    let (_, last) = until_acknowledged(&a, ROOM, 4_000).await?;
    let arrived = || b.inbox.of(ROOM).last().is_some_and(|message| message.position == last);
    b.inbox.wait_until("the last message", arrived).await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(seen.numbers.len() > 4_000 - refused, "{refused} refused: {} delivered", seen.numbers.len());
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}
