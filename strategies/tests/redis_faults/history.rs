//! What is kept of a room, who gets it back, and who is told that it is gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::clients::redis::resp::Value;
use manifold_strategies::guarantees::ReplayKind;
use manifold_strategies::{Event, History, Message, Page, PageQuery, Position, Resumed, RoomId, find};
use tokio::time::{Instant, sleep};

use crate::node::{DEADLINE, Node, ROOM, admin, ask, envelope, servers, stream};
use crate::pauses::Pauses;

impl Node {
    fn history(&self) -> &dyn History {
        self.backplane.history().expect("it is kept")
    }

    pub(crate) async fn resume(&self, room: &str, since: Position, limit: usize) -> Result<Resumed> {
        Ok(self.history().resume(&RoomId::new(room), since, limit).await?)
    }

    async fn page(&self, room: &str, since: Option<Position>, limit: usize, reverse: bool) -> Result<Page> {
        Ok(self.history().page(&RoomId::new(room), PageQuery { since, limit, reverse }).await?)
    }

    /// Publishes numbers; the positions that were acknowledged.
    pub(crate) async fn publish_all(
        &self,
        room: &str,
        numbers: std::ops::Range<usize>,
    ) -> Result<Vec<Position>> {
        let sent: Vec<_> =
            numbers.map(|number| self.backplane.publish(envelope(room, &number.to_string()))).collect();
        let mut positions = Vec::new();
        for ack in sent {
            positions.push(ack.await?);
        }
        Ok(positions)
    }
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|message| String::from_utf8_lossy(&message.envelope.payload).into_owned()).collect()
}

fn numbered(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|number| number.to_string()).collect()
}

/// The messages of a complete answer.
pub(crate) fn complete(resumed: Resumed) -> Result<Vec<String>> {
    match resumed {
        Resumed::Complete { messages, .. } => Ok(texts(&messages)),
        Resumed::Incomplete { top } => anyhow::bail!("incomplete at {top:?}"),
    }
}

/// The top of an answer that is not complete.
pub(crate) fn incomplete(resumed: Resumed) -> Result<Position> {
    match resumed {
        Resumed::Incomplete { top } => Ok(top),
        Resumed::Complete { messages, top } => {
            anyhow::bail!("complete at {top:?} with {:?}", texts(&messages))
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_node_answers_for_any_room() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let a = Node::start("a", redis, "").await?;
    let empty = a.page(ROOM, None, 10, false).await?;
    ensure!(empty.messages.is_empty() && empty.top.epoch != 0 && empty.top.offset == 0, "{empty:?}");
    let at = a.publish_all(ROOM, 0..100).await?;
    ensure!(at[0] == Position { offset: 1, ..empty.top }, "numbering began with the question: {:?}", at[0]);

    let b = Node::start("b", redis, "").await?;
    ensure!(complete(b.resume(ROOM, at[9], 90).await?)? == numbered(10..100), "the missed ones, in order");
    ensure!(complete(b.resume(ROOM, at[99], 0).await?)?.is_empty(), "nothing was missed");
    ensure!(incomplete(b.resume(ROOM, at[9], 89).await?)? == at[99], "more than the limit");
    ensure!(incomplete(b.resume(ROOM, Position { offset: 101, ..at[0] }, 90).await?)? == at[99], "ahead");
    ensure!(incomplete(b.resume(ROOM, Position { epoch: 1, offset: 100 }, 90).await?)? == at[99], "foreign");

    let page = b.page(ROOM, Some(at[9]), 3, false).await?;
    ensure!(texts(&page.messages) == ["10", "11", "12"] && page.top == at[99], "{page:?}");
    ensure!(page.messages[0].position == at[10], "{:?}", page.messages[0].position);
    ensure!(texts(&b.page(ROOM, None, 2, false).await?.messages) == ["0", "1"], "the oldest");
    ensure!(texts(&b.page(ROOM, None, 2, true).await?.messages) == ["99", "98"], "the newest");
    ensure!(texts(&b.page(ROOM, Some(at[1]), 9, true).await?.messages) == ["0"], "what was before");
    ensure!(b.page(ROOM, Some(at[0]), 9, true).await?.messages.is_empty(), "nothing was before the first");
    ensure!(b.page(ROOM, None, 0, false).await? == Page { top: at[99], ..Page::default() }, "the top alone");
    let foreign = b.page(ROOM, Some(Position { epoch: 1, offset: 1 }), 9, false).await?;
    ensure!(foreign.foreign && foreign.messages.is_empty() && foreign.top == at[99], "{foreign:?}");
    let far = Position { offset: u64::MAX, ..at[0] };
    ensure!(b.page(ROOM, Some(far), 9, false).await?.messages.is_empty(), "nothing is behind everything");
    b.backplane.shutdown().await?;
    ensure!(b.resume(ROOM, at[0], 1).await.is_err(), "it was shut down");
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_trimmed_or_expired_is_told() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let a = Node::start("a", redis, "history_messages = 10\nhistory_minutes = 1").await?;
    let started = Instant::now();
    let at = a.publish_all(ROOM, 0..1_000).await?;
    ensure!(complete(a.resume(ROOM, at[989], 300).await?)? == numbered(990..1_000), "as many as were set");
    // Redis drops whole blocks of entries, of some 100 at most.
    let kept = a.page(ROOM, None, 1_000, false).await?.messages.len();
    ensure!((10..=120).contains(&kept), "{kept} are kept");
    let first_kept = 1_000 - kept;
    ensure!(complete(a.resume(ROOM, at[first_kept - 1], 300).await?)?.len() == kept, "all that is kept");
    ensure!(incomplete(a.resume(ROOM, at[first_kept - 2], 300).await?)? == at[999], "one was trimmed");

    let mut admin = admin(redis).await?;
    let key = format!("faults!{ROOM}");
    let Value::Integer(lives) = ask(&mut admin, &["TTL", &key]).await? else { anyhow::bail!("no TTL") };
    let least = 60 - started.elapsed().as_secs() as i64;
    ensure!((least..=68).contains(&lives), "a minute and up to an eighth, not {lives} s");
    ask(&mut admin, &["PEXPIRE", &key, "1"]).await?;
    let deadline = Instant::now() + DEADLINE;
    while !a.page(ROOM, None, 1, false).await?.messages.is_empty() {
        ensure!(Instant::now() < deadline, "it does not expire");
    }
    ensure!(incomplete(a.resume(ROOM, at[998], 300).await?)? == at[999], "the last one expired");
    ensure!(complete(a.resume(ROOM, at[999], 300).await?)?.is_empty(), "nothing was missed");
    let next = a.publish(ROOM, "next").await?;
    ensure!(next == Position { offset: 1_001, ..at[0] }, "numbering went on: {next:?}");
    ensure!(complete(a.resume(ROOM, at[999], 300).await?)? == ["next"], "what came since is kept");
    ensure!(incomplete(a.resume(ROOM, at[998], 300).await?)? == next, "there is a hole before it");
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_and_live_messages_meet_without_a_seam() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let b = Node::start("b", redis, "history_messages = 10000").await?;
    let first = b.join(ROOM).await?;
    let c = Node::start("c", redis, "history_messages = 10000").await?;
    let stream = stream(&c, ROOM, 2_000);
    loop {
        let delivered = b.inbox.of(ROOM).len();
        let got = complete(b.resume(ROOM, first, 2_000).await?)?;
        ensure!(got.len() >= delivered, "{} in history, {delivered} were delivered before", got.len());
        ensure!(got == numbered(0..got.len()), "in order, without a hole");
        if got.len() == 2_000 {
            break;
        }
    }
    ensure!(stream.await?.len() == 2_000, "every publish was acknowledged");
    c.backplane.shutdown().await?;
    Ok(b.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_histories_come_in_bounded_pieces() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let first = a.page(ROOM, None, 0, false).await?.top;
    let text = |number: usize| format!("{number:0>60000}");
    for number in 0..100 {
        a.publish(ROOM, &text(number)).await?;
    }
    ask(&mut admin(redis).await?, &["CONFIG", "RESETSTAT"]).await?;
    let got = complete(b.resume(ROOM, first, 300).await?)?;
    ensure!(got == (0..100).map(text).collect::<Vec<_>>(), "{} messages", got.len());
    let calls = format!("{:?}", ask(&mut admin(redis).await?, &["INFO", "commandstats"]).await?);
    let calls = calls.split("cmdstat_evalsha:calls=").nth(1).and_then(|rest| rest.split(',').next());
    let calls: usize = calls.context("the scripts are counted")?.parse()?;
    ensure!(calls >= 3, "6 MB came in {calls} answers");
    let newest = b.page(ROOM, None, 100, true).await?;
    ensure!(texts(&newest.messages) == (0..100).rev().map(text).collect::<Vec<_>>(), "backwards as well");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_gets_the_first_position_and_creates_nothing() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    b.join(ROOM).await?;
    let message = envelope(ROOM, "once");
    let first = a.backplane.publish(message.clone()).await?;
    let second = a.publish(ROOM, "between").await?;
    for node in [&a, &b] {
        ensure!(node.backplane.publish(message.clone()).await? == first, "the first one's position");
    }
    let last = b.publish(ROOM, "last").await?;
    ensure!(last.offset == second.offset + 1, "a repeat takes no position: {last:?}");
    b.inbox.wait_for(ROOM, 3).await?;
    ensure!(b.inbox.texts(ROOM) == ["once", "between", "last"], "{:?}", b.inbox.texts(ROOM));
    ensure!(
        texts(&a.page(ROOM, None, 9, false).await?.messages) == ["once", "between", "last"],
        "and once here"
    );
    // The same id in another room is another message.
    let elsewhere = manifold_strategies::Envelope { room: RoomId::new("elsewhere"), ..message };
    ensure!(a.backplane.publish(elsewhere).await?.offset == 1, "rooms do not meet");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_history_nothing_is_kept() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let off = "history_messages = 0";
    let a = Node::start("a", redis, off).await?;
    ensure!(a.backplane.history().is_none(), "none is offered");
    let strategy = find("redis-pubsub").context("it is registered")?;
    ensure!((strategy.guarantees)(&off.parse()?)?.replay == ReplayKind::None, "none is promised");
    ensure!((strategy.guarantees)(&toml::Table::new())?.replay == ReplayKind::Memory, "it is the default");
    let at = a.publish_all(ROOM, 0..10).await?;
    let mut admin = admin(redis).await?;
    let keys = format!("{:?}", ask(&mut admin, &["DBSIZE"]).await?);
    ensure!(keys == "Integer(1)", "the head alone, not {keys}");
    // What a node without history published is a hole for one that has it.
    let b = Node::start("b", redis, "").await?;
    ensure!(incomplete(b.resume(ROOM, at[8], 300).await?)? == at[9], "one is not there");
    let next = b.publish(ROOM, "10").await?;
    ensure!(incomplete(b.resume(ROOM, at[8], 300).await?)? == next, "it still is not");
    ensure!(complete(b.resume(ROOM, at[9], 300).await?)? == ["10"], "and then it is");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_knows_no_position_of_before() -> Result<()> {
    for saved in [false, true] {
        let servers = servers(RedisTopology::Single)?;
        let redis = servers.redis().unwrap_or_default();
        let (a, b) = Node::pair(redis).await?;
        b.join(ROOM).await?;
        let at = a.publish_all(ROOM, 0..5).await?;
        if saved {
            ask(&mut admin(redis).await?, &["SAVE"]).await?;
        }
        // Acknowledged, and in no file.
        a.publish_all(ROOM, 5..10).await?;
        b.inbox.wait_for(ROOM, 10).await?;
        let server = servers.process("redis").expect("it runs").clone();
        tokio::task::spawn_blocking(move || server.restart()).await??;
        b.wait_for_event("the link to be back", |event| *event == Event::Reconnected).await?;
        for since in &at {
            let top = incomplete(b.resume(ROOM, *since, 300).await?)?;
            ensure!(top.epoch != since.epoch && top.offset == 0, "saved: {saved}: {top:?} after {since:?}");
        }
        let top = b.page(ROOM, None, 10, false).await?;
        ensure!(top.messages.is_empty(), "saved: {saved}: {top:?}");
        let later = a.publish_all(ROOM, 10..15).await?;
        ensure!(later[0] == Position { offset: 1, ..top.top }, "{:?} after {:?}", later[0], top.top);
        ensure!(complete(b.resume(ROOM, later[0], 300).await?)? == numbered(11..15), "what is new is kept");
        ensure!(incomplete(b.resume(ROOM, at[4], 300).await?)? == later[4], "what is old is not");
        b.backplane.shutdown().await?;
        a.backplane.shutdown().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_ends_every_position() -> Result<()> {
    let servers = servers(RedisTopology::Sentinel)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    b.join(ROOM).await?;
    let at = a.publish_all(ROOM, 0..10).await?;
    // A room without members: nobody compares its top when the links are back.
    let quiet = a.publish_all("quiet", 0..10).await?;
    servers.process("redis").expect("it runs").kill()?;
    b.wait_for_event("the link to be back", |event| *event == Event::Reconnected).await?;
    // The replica may have all of it, or all but the last: nobody can tell, so nobody is told that it is complete.
    for (room, since) in [(ROOM, at[9]), ("quiet", quiet[9]), ("quiet", quiet[4])] {
        let top = incomplete(b.resume(room, since, 300).await?)?;
        ensure!(top.epoch != since.epoch, "{room}: {top:?} after {since:?}");
    }
    let later = a.publish_all("quiet", 10..20).await?;
    ensure!(later[0].epoch != quiet[0].epoch && later[0].offset == 1, "{:?}", later[0]);
    ensure!(complete(b.resume("quiet", later[0], 300).await?)? == numbered(11..20), "what is new is kept");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_that_comes_back_is_answered_and_holds_nobody_up() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let at = a.publish_all(ROOM, 0..100).await?;
    let room = RoomId::new(ROOM);
    let crowd: Vec<_> = (0..1_000).map(|_| tokio::spawn(b.history().resume(&room, at[49], 300))).collect();
    let (started, pauses) = (Instant::now(), Pauses::watch());
    b.publish("another room", "0").await?;
    let (took, allowed) = (started.elapsed(), pauses.allow(Duration::from_secs(1)));
    ensure!(took < allowed, "a publish took {took:?}, {allowed:?} are allowed");
    for member in crowd {
        ensure!(complete(member.await??)?.len() == 50, "everybody gets everything");
    }
    // Connections that broke while they were idle cost an attempt, not the answer.
    ask(&mut admin(redis).await?, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    ensure!(complete(b.resume(ROOM, at[49], 300).await?)?.len() == 50, "over a new connection");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_away_is_told_in_time() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let a = Node::start("a", redis, "publish_timeout_ms = 500").await?;
    let at = a.publish(ROOM, "0").await?;
    let server = servers.process("redis").expect("it runs").clone();
    server.kill()?;
    let (started, pauses) = (Instant::now(), Pauses::watch());
    let error = a.history().resume(&RoomId::new(ROOM), at, 300).await.unwrap_err();
    ensure!(error.is_temporary(), "it may be asked again: {error}");
    let (told, allowed) = (started.elapsed(), pauses.allow(Duration::from_secs(5)));
    ensure!(told < allowed, "only after {told:?}, {allowed:?} are allowed");
    tokio::task::spawn_blocking(move || server.restart()).await??;
    let deadline = Instant::now() + DEADLINE;
    let top = loop {
        match a.resume(ROOM, at, 300).await {
            Ok(resumed) => break incomplete(resumed)?,
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    };
    ensure!(top.epoch != at.epoch, "it came back empty");
    Ok(a.backplane.shutdown().await?)
}
