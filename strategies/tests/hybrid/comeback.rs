//! Members that come back: whatever a member of one node has seen, and wherever it comes back, it gets the rest once and in
//! order, or is told that it does not.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_strategies::{Event, Message, Position, Resumed, RoomId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use crate::node::{Node, ROOM};

/// How often a member comes back while a fault lasts.
const PACE: Duration = Duration::from_millis(100);
/// Places of a node's past at which members come back.
const CUTS: usize = 60;
/// Twice as long as a server waits for an answer: reads of the log take longer here than they may by default.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// More than any test publishes.
const NO_LIMIT: usize = 100_000;

/// How members fared.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) complete: usize,
    pub(crate) incomplete: usize,
    /// Asked to try again.
    pub(crate) put_off: usize,
    /// The longest time that an answer took.
    pub(crate) slowest: Duration,
}

/// What a member had when it went.
#[derive(Debug, Default)]
struct Member {
    since: Position,
    seen: Vec<String>,
    /// What it was told that it may have missed: of which epoch, from where, up to where.
    told: Vec<(u64, u64, u64)>,
}

impl Member {
    /// A member that was there from the start and saw these events.
    fn of(events: &[Event]) -> Self {
        let mut member = Self::default();
        let mut epoch = 0;
        for event in events {
            match event {
                Event::Message(message) if message.envelope.room.as_str() == ROOM => {
                    // Clients know positions from messages alone.
                    if message.position.offset > 0 {
                        member.since = message.position;
                        epoch = message.position.epoch;
                    }
                    member.seen.push(text(message));
                }
                Event::Renumbered { room, epoch: next } if room.as_str() == ROOM => epoch = *next,
                Event::Gap { room, from, to } if room.as_str() == ROOM => {
                    member.told.push((epoch, *from, *to));
                    // Whoever is told subscribes again, and stands behind what it may have missed.
                    if member.since.epoch == epoch {
                        member.since.offset = member.since.offset.max(to.saturating_sub(1));
                    }
                }
                _ => {}
            }
        }
        member
    }

    /// What had reached a node, but for what this member was told of. Whether that is what came there without a position nobody
    /// can say.
    fn expects(&self, events: &[Event]) -> Vec<String> {
        let is_told = |at: Position| {
            let tells = |(epoch, from, to): &(u64, u64, u64)| {
                at.offset == 0 || *epoch == at.epoch && (*from..*to).contains(&at.offset)
            };
            self.told.iter().any(tells)
        };
        let expected = events.iter().filter_map(|event| match event {
            Event::Message(message) if message.envelope.room.as_str() == ROOM => Some(message),
            _ => None,
        });
        expected.filter(|message| !is_told(message.position)).map(text).collect()
    }

    /// Comes back to `node`; `expected` are messages that must not be missing then.
    async fn comes_back(&self, node: &Node, expected: &[String], tally: &mut Tally) -> Result<()> {
        let history = node.backplane.history().context("history")?;
        let asked = Instant::now();
        let answer = history.resume(&RoomId::new(ROOM), self.since, NO_LIMIT).await;
        tally.slowest = tally.slowest.max(asked.elapsed());
        ensure!(asked.elapsed() < ANSWER_MAX, "{}: an answer took {:?}", node.name, asked.elapsed());
        let messages = match answer {
            Ok(Resumed::Complete { messages, .. }) => messages,
            Ok(Resumed::Incomplete { .. }) => {
                tally.incomplete += 1;
                return Ok(());
            }
            Err(error) => {
                ensure!(error.is_temporary(), "{} at {:?}: {error}", node.name, self.since);
                tally.put_off += 1;
                return Ok(());
            }
        };
        tally.complete += 1;
        let at = |what: &str| {
            format!("{what}: back at node {} from {:?}, told of {:?}", node.name, self.since, self.told)
        };
        let mut all: Vec<&str> = self.seen.iter().map(String::as_str).collect();
        for message in &messages {
            all.push(std::str::from_utf8(&message.envelope.payload)?);
        }
        let known: HashSet<&str> = all.iter().copied().collect();
        let twice = || all[self.seen.len()..].iter().find(|text| self.seen.iter().any(|seen| seen == *text));
        ensure!(known.len() == all.len(), "{}: {:?}", at("twice"), twice());
        let missing = expected.iter().find(|text| !known.contains(text.as_str()));
        ensure!(missing.is_none(), "{}: {missing:?}", at("missing"));
        for stream in ["a:", "b:", "c:"] {
            let numbers: Vec<usize> =
                all.iter().filter_map(|text| text.strip_prefix(stream)?.parse().ok()).collect();
            let early = numbers.windows(2).find(|pair| pair[0] > pair[1]);
            ensure!(early.is_none(), "{}: {stream}{early:?}", at("out of order"));
        }
        Ok(())
    }
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.envelope.payload).into_owned()
}

/// A member of `from` that comes back to `to` again and again until told to stop: while whatever happens happens.
pub(crate) fn keep_coming_back(from: &Node, to: &Node) -> (watch::Sender<bool>, JoinHandle<Result<Tally>>) {
    let (stop, stopped) = watch::channel(false);
    let (from, to) = (from.clone(), to.clone());
    let coming_back = tokio::spawn(async move {
        let (mut tally, mut pace) = (Tally::default(), interval(PACE));
        while !*stopped.borrow() {
            pace.tick().await;
            let member = Member::of(&from.inbox.all());
            if member.since == Position::default() {
                continue;
            }
            let expected = member.expects(&to.inbox.all());
            member.comes_back(&to, &expected, &mut tally).await?;
        }
        Ok(tally)
    });
    (stop, coming_back)
}

/// Members of `from` that went at any time, and come back to `to` now that all is over.
pub(crate) async fn come_back(from: &Node, to: &Node) -> Result<Tally> {
    let (events, mut tally) = (from.inbox.all(), Tally::default());
    let all = Member::of(&events).seen;
    for cut in (1..=CUTS).map(|cut| cut * events.len() / CUTS) {
        let member = Member::of(&events[..cut]);
        if member.since != Position::default() {
            // What a gap hid from it is not among these.
            member.comes_back(to, &all, &mut tally).await?;
        }
    }
    Ok(tally)
}
