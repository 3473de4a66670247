//! What was missed, and what was there before: resume and history.

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use manifold_strategies::{Message, PageQuery, Position, Resumed, RoomId};
use tokio::time::timeout;

use crate::cluster::{Cluster, Node, envelope, numbered, same};

/// More than any case publishes.
const NO_LIMIT: usize = 100_000;

pub async fn resumes_with_all_that_was_missed(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 10).await?;
    let seen = last_of(&member, "room", 10).await?;
    let nothing = complete(member.resume("room", seen, 300).await?)?;
    same("a member that missed nothing", &texts(&nothing.messages), &[])?;
    member.leave("room").await?;
    publisher.publish_numbered("room", "n", 100).await?;
    let missed = complete(member.resume("room", seen, 300).await?)?;
    same("a member that was away", &texts(&missed.messages), &numbered("n", 100))?;
    rises(seen, &missed)?;
    // Whoever goes on from the top misses nothing and hears nothing twice.
    member.join("room").await?;
    publisher.publish_numbered("room", "o", 5).await?;
    last_of(&member, "room", 15).await?;
    let since_then = complete(member.resume("room", missed.top, 300).await?)?;
    same("a member that went on from the top", &texts(&since_then.messages), &numbered("o", 5))
}

pub async fn resumes_on_another_node(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let other = cluster.node().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 20).await?;
    last_of(&member, "room", 20).await?;
    // It saw the first ten, and comes back elsewhere.
    let seen = member.inbox.of("room")[9].position;
    publisher.publish_numbered("room", "n", 10).await?;
    other.join("room").await?;
    let missed = complete(other.resume("room", seen, 300).await?)?;
    let expected = [&numbered("m", 20)[10..], &numbered("n", 10)[..]].concat();
    same("a member that came back elsewhere", &texts(&missed.messages), &expected)?;
    rises(seen, &missed)?;
    // And once more from there, with what the answer gave it, back to the node that it left.
    publisher.publish_numbered("room", "o", 10).await?;
    let missed = complete(member.resume("room", missed.top, 300).await?)?;
    same("a member that came back again", &texts(&missed.messages), &numbered("o", 10))
}

/// What is published while a member comes back reaches it once: in the answer, or live after its join.
pub async fn a_resume_races_with_publishing(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let other = cluster.node().await?;
    for room in numbered("room", 5) {
        member.join(&room).await?;
        publisher.publish_numbered(&room, "m", 10).await?;
        let seen = last_of(&member, &room, 10).await?;
        member.leave(&room).await?;
        publisher.publish_numbered(&room, "n", 40).await?;
        let stream = tokio::spawn({
            let (publisher, room) = (publisher.clone(), room.clone());
            async move {
                for text in numbered("o", 20) {
                    publisher.publish(&room, text).await?;
                }
                anyhow::Ok(())
            }
        });
        // What the node heard for others before this member came is nothing to it.
        let before = other.inbox.of(&room).len();
        other.join(&room).await?;
        let already_there = other.inbox.of(&room).len() - before;
        let missed = complete(other.resume(&room, seen, 300).await?)?;
        stream.await??;
        publisher.publish(&room, "last").await?;
        let last = || other.inbox.texts(&room).last().is_some_and(|text| text == "last");
        other.inbox.wait_until("the last message live", last).await?;
        let live = other.inbox.of(&room).split_off(before);
        let known: HashSet<_> = missed.messages.iter().map(|message| message.envelope.id).collect();
        // A node that reads behind hears now what the answer goes beyond.
        let top = missed.top;
        let is_behind = |at: Position| at.epoch == top.epoch && (1..=top.offset).contains(&at.offset);
        let is_new = |m: &&Message| !known.contains(&m.envelope.id) && !is_behind(m.position);
        let held = live.iter().filter(is_new).cloned();
        let all: Vec<Message> = missed.messages.iter().cloned().chain(held).collect();
        let expected = [numbered("n", 40), numbered("o", 20), vec!["last".to_owned()]].concat();
        same(&format!("{room}, with {already_there} live at the resume"), &texts(&all), &expected)?;
    }
    Ok(())
}

pub async fn a_node_that_has_just_started_answers(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 20).await?;
    last_of(&member, "room", 20).await?;
    let seen = member.inbox.of("room")[4].position;
    let newcomer = cluster.node().await?;
    let missed = complete(newcomer.resume("room", seen, 300).await?)?;
    same("a resume on a new node", &texts(&missed.messages), &numbered("m", 20)[5..])?;
    let newest = cluster.node().await?;
    let page = newest.page("room", forwards(None, NO_LIMIT)).await?;
    same("history on a new node", &texts(&page.messages), &numbered("m", 20))
}

pub async fn too_much_is_incomplete(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 31).await?;
    let newest = last_of(&member, "room", 31).await?;
    let seen = member.inbox.of("room")[0].position;
    let exact = complete(member.resume("room", seen, 30).await?)?;
    same("as many as may be", &texts(&exact.messages), &numbered("m", 31)[1..])?;
    for node in [&member, &cluster.node().await?] {
        match node.resume("room", seen, 29).await? {
            Resumed::Incomplete { top } => {
                let known = top.epoch != newest.epoch || top.offset >= newest.offset;
                ensure!(top.offset > 0 && known, "the room stands at {newest:?}, not at {top:?}");
            }
            Resumed::Complete { messages, .. } => bail!("{} messages, more than 29", messages.len()),
        }
    }
    Ok(())
}

/// However much a strategy keeps: it gives all of it, or says that it cannot.
pub async fn a_part_is_never_passed_off_as_all(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 900).await?;
    last_of(&member, "room", 900).await?;
    for first in [0, 300, 597, 598, 599, 600, 601, 700, 898, 899] {
        let seen = member.inbox.of("room")[first].position;
        if let Resumed::Complete { messages, .. } = member.resume("room", seen, NO_LIMIT).await? {
            let expected = &numbered("m", 900)[first + 1..];
            same("a part is passed off as all", &texts(&messages), expected)?;
        }
    }
    let seen = member.inbox.of("room")[850].position;
    let missed = complete(member.resume("room", seen, NO_LIMIT).await?)?;
    same("the newest", &texts(&missed.messages), &numbered("m", 900)[851..])
}

pub async fn a_position_that_never_was_is_incomplete(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 10).await?;
    let newest = last_of(&member, "room", 10).await?;
    let foreign = Position { epoch: newest.epoch ^ 0x5a5a_5a5a_5a5a_5a5a, ..newest };
    let future = Position { offset: newest.offset + 1_000, ..newest };
    for node in [&member, &cluster.node().await?] {
        for since in [foreign, Position { offset: 1, ..foreign }, future] {
            let answer = node.resume("room", since, 300).await?;
            let honest = matches!(answer, Resumed::Incomplete { .. });
            ensure!(honest, "{since:?} never was, and the answer is complete: {answer:?}");
        }
        for query in [forwards(Some(foreign), 10), backwards(Some(foreign), 10), forwards(Some(foreign), 0)] {
            let page = node.page("room", query).await?;
            ensure!(page.foreign && page.messages.is_empty(), "{query:?} is of no epoch that was: {page:?}");
        }
    }
    Ok(())
}

pub async fn pages_are_as_asked(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 25).await?;
    let newest = last_of(&member, "room", 25).await?;
    let all = numbered("m", 25);
    for limit in [10, 25, NO_LIMIT] {
        let first = all.iter().take(limit).cloned().collect::<Vec<_>>();
        let page = member.page("room", forwards(None, limit)).await?;
        same(&format!("the first {limit}"), &texts(&page.messages), &first)?;
        let last = all.iter().rev().take(limit).cloned().collect::<Vec<_>>();
        let page = member.page("room", backwards(None, limit)).await?;
        same(&format!("the last {limit}"), &texts(&page.messages), &last)?;
        ensure!(is_top(page.top, newest), "the room stands at {newest:?}, the page says {:?}", page.top);
    }
    let top_alone = member.page("room", forwards(None, 0)).await?;
    ensure!(top_alone.messages.is_empty(), "{} messages, more than none", top_alone.messages.len());
    ensure!(is_top(top_alone.top, newest), "the room stands at {newest:?}, not at {:?}", top_alone.top);
    for reverse in [false, true] {
        let (mut walked, mut since) = (Vec::new(), None);
        loop {
            let page = member.page("room", PageQuery { since, limit: 7, reverse }).await?;
            ensure!(page.messages.len() <= 7, "{} messages, more than 7", page.messages.len());
            let Some(last) = page.messages.last() else { break };
            since = Some(last.position);
            walked.extend(texts(&page.messages));
            ensure!(walked.len() <= 100, "a walk through pages does not end: duplicates");
        }
        let expected: Vec<_> = if reverse { all.iter().rev().cloned().collect() } else { all.clone() };
        same(&format!("page by page, reverse {reverse}"), &walked, &expected)?;
    }
    Ok(())
}

pub async fn a_room_that_nobody_is_in_has_history(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, reader) = cluster.pair().await?;
    publisher.publish_numbered("deserted", "m", 20).await?;
    let page = reader.page("deserted", forwards(None, NO_LIMIT)).await?;
    same("a deserted room", &texts(&page.messages), &numbered("m", 20))?;
    let seen = page.messages[4].position;
    let missed = complete(reader.resume("deserted", seen, 300).await?)?;
    same("what was missed in a deserted room", &texts(&missed.messages), &numbered("m", 20)[5..])?;
    let silent = reader.page("silent", forwards(None, NO_LIMIT)).await?;
    ensure!(silent.messages.is_empty(), "a room without messages has {}", silent.messages.len());
    Ok(())
}

/// A publisher that repeats a message after a lost reply left one message behind.
pub async fn a_retry_is_kept_once(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish("room", "m:0").await?;
    let seen = last_of(&member, "room", 1).await?;
    for text in &numbered("m", 10)[1..] {
        let message = envelope("room", text.clone());
        publisher.send(message.clone()).await?;
        // Through this node or the other: the client may have reconnected.
        publisher.send(message.clone()).await?;
        member.send(message).await?;
    }
    let missed = complete(member.resume("room", seen, 300).await?)?;
    same("a resume after retries", &texts(&missed.messages), &numbered("m", 10)[1..])?;
    let page = member.page("room", forwards(None, NO_LIMIT)).await?;
    same("history after retries", &texts(&page.messages), &numbered("m", 10))
}

/// Where a strategy can remove history.
pub async fn removed_history_is_gone(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    publisher.publish_numbered("room", "m", 10).await?;
    let newest = last_of(&member, "room", 10).await?;
    let seen = member.inbox.of("room")[4].position;
    let Some(removed) = publisher.history()?.remove(&RoomId::new("room")) else { return Ok(()) };
    timeout(cluster.deadline, removed).await.context("a removal took too long")??;
    for node in [&publisher, &member] {
        let page = node.page("room", forwards(None, NO_LIMIT)).await?;
        ensure!(page.messages.is_empty(), "{} messages are still there", page.messages.len());
        let answer = node.resume("room", seen, 300).await?;
        ensure!(matches!(answer, Resumed::Incomplete { .. }), "what was missed is still there: {answer:?}");
    }
    let nothing = complete(member.resume("room", newest, 300).await?)?;
    same("a member that had seen all", &texts(&nothing.messages), &[])?;
    publisher.publish("room", "after").await?;
    let missed = complete(member.resume("room", newest, 300).await?)?;
    same("what came after the removal", &texts(&missed.messages), &["after".to_owned()])
}

/// A complete answer.
struct Missed {
    messages: Vec<Message>,
    top: Position,
}

fn complete(answer: Resumed) -> Result<Missed> {
    match answer {
        Resumed::Complete { messages, top } => Ok(Missed { messages, top }),
        Resumed::Incomplete { top } => {
            bail!("incomplete, though nothing is missing; the room stands at {top:?}")
        }
    }
}

fn texts(messages: &[Message]) -> Vec<String> {
    messages.iter().map(|m| String::from_utf8_lossy(&m.envelope.payload).into_owned()).collect()
}

fn forwards(since: Option<Position>, limit: usize) -> PageQuery {
    PageQuery { since, limit, reverse: false }
}

fn backwards(since: Option<Position>, limit: usize) -> PageQuery {
    PageQuery { since, limit, reverse: true }
}

/// Waits for so many messages of a room; the position of the last of them.
async fn last_of(node: &Node, room: &str, count: usize) -> Result<Position> {
    node.inbox.wait_for(room, count).await?;
    let position = node.inbox.of(room)[count - 1].position;
    ensure!(position.offset > 0, "message {count} has no position: nobody can come back to it");
    Ok(position)
}

/// Where positions of the answer can be compared with `since`, they rise from there to the top.
fn rises(since: Position, missed: &Missed) -> Result<()> {
    if missed.top.epoch != since.epoch {
        return Ok(());
    }
    let positions: Vec<_> = missed.messages.iter().map(|message| message.position).collect();
    let steps = std::iter::once(since).chain(positions.iter().copied()).zip(positions.iter().copied());
    let mut steps = steps.filter(|(a, b)| a.epoch != b.epoch || a.offset >= b.offset);
    ensure!(steps.next().is_none(), "positions do not rise from {since:?}: {positions:?}");
    let last = positions.last().copied().unwrap_or(since);
    ensure!(missed.top.offset >= last.offset, "the top {:?} is below {last:?}", missed.top);
    Ok(())
}

/// Whether a room can stand at `top` when its newest message is at `newest`.
fn is_top(top: Position, newest: Position) -> bool {
    top.epoch == newest.epoch && top.offset >= newest.offset
}
