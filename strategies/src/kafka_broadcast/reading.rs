//! Which partitions this node's reader reads, and from where.
//!
//! Normally: its own, from where they ended when it became a member. After it was expelled, it takes a **detour**: every
//! partition carries every message, so a node that missed some reads them in the partition of a member that was
//! there all the time. It first reads its old partition to the end, then follows the other member's from before its
//! expulsion, and goes on with its own once messages have reached that again for a while. What it sees twice on the
//! way is removed by message id; order per publisher holds, because it changes from one partition to the next and never
//! mixes two that do not both have everything that was acknowledged. One thing escapes that: a publish that was not
//! acknowledged, because its write failed in the partition that was read first and in no other, and whose sender's next
//! ones did not fail there. It is shown when the other partition is read, behind these.
//!
//! The copies of one message may be appended as far apart as its publisher's timeout allows. So the other member's partition
//! is read from the longest timeout of any member *before* the expulsion (a copy for this node may have come after the end
//! of its old partition) until that long *after* this node is effective again. Where that cannot be had (the other leaves
//! meanwhile, the log is trimmed, nobody was there for so long), a loss cannot be excluded, and is declared.

mod standing;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::copies::Copies;
use super::membership::{Member, View};
use super::places::Places;
use super::reader::Standstill;
use super::record::Incarnation;
use super::topics::Topics;
use crate::clients::kafka::{Cluster, Consumer, Incarnations, fault};
use crate::error::{Error, Result};

/// What is added to the longest publish timeout: brokers' clocks may differ by that much.
pub(super) const CLOCK_SLACK: Duration = Duration::from_secs(2);

/// The most time that one step may keep the node from giving its next sign of life.
pub(super) const STEP_TIMEOUT: Duration = Duration::from_secs(1);

/// What became of a turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing left to do.
    Settled,
    /// Something is to be looked at again soon.
    Again,
    /// A detour ended: nothing was lost.
    Returned,
    /// Messages were lost.
    Lost(&'static str),
}

/// A detour on its way.
#[derive(Debug)]
struct Detour {
    /// Where it starts, ms since the Unix epoch by the broker's clock.
    since_ms: i64,
    /// Members whose partitions have everything from there on.
    peers: Vec<Incarnation>,
    /// How long it goes on after this node is an effective member again: writes that were on their way then, to the other
    /// member but not to this node, arrive meanwhile.
    linger: Duration,
    /// Why something may be lost all the same.
    doubt: Option<&'static str>,
    /// Where the partitions end that are read to their end before another member's is followed.
    drain_to: Option<Vec<(i32, i64)>>,
    /// Whom the reader follows.
    followed: Option<Incarnation>,
    /// The followed member was still one when this node had become one again: whatever that one's partition lacks from
    /// then on is in this node's own.
    met: bool,
    /// Where to go on in this node's new partitions, known once it is a member again.
    home: Vec<(i32, i64)>,
    /// This node's incarnation then.
    owner: Option<Incarnation>,
    effective_at: Option<Instant>,
}

/// Directs the reader.
pub(super) struct Reading {
    pub(super) cluster: Cluster,
    pub(super) topic: String,
    topics: Topics,
    pub(super) consumer: Consumer,
    pub(super) places: Arc<Places>,
    pub(super) standstill: Arc<Standstill>,
    pub(super) copies: Arc<Copies>,
    pub(super) incarnations: Arc<Incarnations>,
    /// Partitions that the reader reads.
    assigned: Vec<i32>,
    /// The highest partition that the consumer was told of.
    known: Option<i32>,
    /// The reader's place is no longer in the log.
    stale: bool,
    detour: Option<Detour>,
    /// The longest publish timeout of the members seen last, and of those seen during a detour.
    publish_timeout: Duration,
}

impl Reading {
    pub(super) fn new(
        cluster: Cluster,
        topics: Topics,
        consumer: Consumer,
        (places, standstill): (Arc<Places>, Arc<Standstill>),
        copies: Arc<Copies>,
        incarnations: Arc<Incarnations>,
    ) -> Self {
        Self {
            cluster,
            topic: topics.data.clone(),
            topics,
            consumer,
            places,
            standstill,
            copies,
            incarnations,
            assigned: Vec::new(),
            known: None,
            stale: false,
            detour: None,
            publish_timeout: Duration::ZERO,
        }
    }

    /// These are, or were, members.
    pub(super) fn saw(&mut self, view: &View) {
        let slowest = view.publish_timeout_max();
        self.publish_timeout = match &mut self.detour {
            None => slowest,
            Some(detour) => {
                let slowest = slowest.max(self.publish_timeout);
                detour.linger = slowest + CLOCK_SLACK;
                slowest
            }
        };
    }

    /// This node, a member since offset `joined`, was expelled by the record appended at `appended_ms` (ms since the Unix epoch
    /// by the broker's clock): from now on it takes a detour. An earlier one that is not finished goes on.
    pub(super) fn expelled(&mut self, view: &View, joined: u64, appended_ms: i64) {
        let linger = self.publish_timeout + CLOCK_SLACK;
        let since_ms = appended_ms - i64::try_from(linger.as_millis()).unwrap_or(i64::MAX);
        let detour = self.detour.get_or_insert_with(|| Detour {
            since_ms,
            peers: view.complete_since(joined, since_ms),
            linger,
            doubt: None,
            drain_to: None,
            followed: None,
            met: false,
            home: Vec::new(),
            owner: None,
            effective_at: None,
        });
        detour.home.clear();
        (detour.met, detour.effective_at) = (false, None);
        if detour.drain_to.is_some() {
            // What is read now has an end already: whoever is followed next is read from the start of the detour.
            detour.followed = None;
        }
    }

    /// Something was lost: the reader says so with the next record of the partitions that are returned.
    pub(super) fn lose(&self) -> &[i32] {
        self.places.note_loss();
        &self.assigned
    }

    /// Whether this node may ask to join anew: it must know before where its old partitions end, because they may become
    /// its own again, and what lies in between was not written for it.
    pub(super) fn may_rejoin(&self) -> bool {
        self.detour.as_ref().is_none_or(|detour| detour.drain_to.is_some() || detour.followed.is_some())
    }

    /// Whether everything written for `member`, this node, from when it is effective on will be read.
    pub(super) fn covers(&self, member: &Member) -> bool {
        match &self.detour {
            None => self.assigned == member.partitions,
            Some(detour) => detour.home.iter().map(|(partition, _)| partition).eq(&member.partitions),
        }
    }

    /// Brings the reader in line. `member` is this node, if it is one; `effective` whether every message reaches it.
    pub(super) async fn turn(
        &mut self,
        view: &View,
        member: Option<&Member>,
        effective: bool,
    ) -> Result<Turn> {
        self.copies.show(view);
        self.stale |= self.standstill.take();
        if self.stale {
            // The topic may be gone: whoever is here needs one.
            let made = tokio::time::timeout(STEP_TIMEOUT, self.topics.ensure(&self.cluster));
            made.await.unwrap_or_else(|_| Err(late()))?;
            if let Some(turn) = self.read_on().await? {
                self.stale = false;
                return Ok(turn);
            }
            self.detour = None;
            self.places.repair_until(i64::MIN);
        }
        if let Some(mut detour) = self.detour.take() {
            let turn = self.advance(&mut detour, view, member, effective).await;
            if matches!(turn, Ok(Turn::Settled | Turn::Again) | Err(_)) {
                self.detour = Some(detour);
            }
            return turn;
        }
        let Some(member) = member else { return Ok(Turn::Settled) };
        if self.assigned == member.partitions && !self.stale {
            return Ok(Turn::Settled);
        }
        let ends = self.ends(&member.partitions).await?;
        if self.stale {
            self.renumber(&ends).await?;
        }
        self.assign(&ends, member.incarnation).await?;
        Ok(match std::mem::take(&mut self.stale) {
            true => Turn::Lost("the log no longer held what this node was to read next"),
            false => Turn::Settled,
        })
    }

    /// One step of a detour.
    async fn advance(
        &mut self,
        detour: &mut Detour,
        view: &View,
        member: Option<&Member>,
        effective: bool,
    ) -> Result<Turn> {
        let present = detour.followed.is_some_and(|followed| view.member(followed).is_some());
        if let Some(member) = member {
            if detour.home.is_empty() {
                // Looked up before this node is effective: what comes after that comes after this.
                detour.home = self.ends(&member.partitions).await?;
                detour.owner = Some(member.incarnation);
            }
            detour.met |= present;
        }
        if !detour.met && !present {
            return self.follow(detour, view).await;
        }
        if !detour.met || !effective {
            return Ok(Turn::Again);
        }
        let since = *detour.effective_at.get_or_insert_with(Instant::now);
        if let Some(reached_ms) = member.and_then(|member| member.reached_ms) {
            // What was published later was written for this node again.
            self.places.repair_until(reached_ms);
        }
        if since.elapsed() < detour.linger && detour.drain_to.is_none() {
            if present {
                return Ok(Turn::Again);
            }
            // Its partition may get another owner, whose messages come out of order here: this goes no further.
            detour.doubt = Some("it was no member for a while, and whom it followed then left too early");
        }
        if !self.drained(detour).await? {
            return Ok(Turn::Again);
        }
        // Known since this node is a member again.
        let Some(owner) = detour.owner else { return Ok(Turn::Again) };
        self.places.repair_until(i64::MIN);
        self.assign(&detour.home, owner).await?;
        Ok(detour.doubt.map_or(Turn::Returned, Turn::Lost))
    }

    /// Whether the reader has read to the end, as it was when this was first asked, of what it reads. It goes no further.
    async fn drained(&self, detour: &mut Detour) -> Result<bool> {
        if let Some(ends) = &detour.drain_to {
            return Ok(self.places.reached(ends));
        }
        let ends = self.ends(&self.assigned).await?;
        self.places.bound(&ends);
        let reached = self.places.reached(&ends);
        detour.drain_to = Some(ends);
        Ok(reached)
    }

    /// Changes to another member's partition, once those at hand are read to their end.
    async fn follow(&mut self, detour: &mut Detour, view: &View) -> Result<Turn> {
        detour.followed = None;
        if !self.drained(detour).await? {
            return Ok(Turn::Again);
        }
        let peer = detour.peers.iter().find_map(|peer| view.member(*peer));
        let Some((peer, &partition)) = peer.and_then(|peer| Some((peer, peer.partitions.first()?))) else {
            self.release()?;
            return Ok(Turn::Lost("it was no member for a while, and nobody was all that time"));
        };
        let (topic, since_ms) = (self.topic.clone(), detour.since_ms);
        let found = self.ask(move |cluster| {
            let starts = cluster.at_times_blocking(&topic, &[(partition, since_ms)])?;
            Ok((starts, cluster.starts_blocking(&topic, &[partition])?))
        });
        let (starts, oldest) = found.await?;
        let offset = |found: &[(i32, i64)]| found.first().map_or(0, |&(_, offset)| offset);
        let (start, oldest) = (offset(&starts), offset(&oldest));
        detour.doubt = (oldest > 0 && start <= oldest)
            .then_some("it was no member for a while, and the log no longer held all of that time");
        tracing::info!(peer = peer.node, partition, offset = start, "reading what was missed");
        self.assign(&[(partition, start)], peer.incarnation).await?;
        self.places.repair_until(i64::MAX);
        detour.drain_to = None;
        detour.followed = Some(peer.incarnation);
        Ok(Turn::Again)
    }

    /// Where partitions end now; makes them first, if need be.
    async fn ends(&self, partitions: &[i32]) -> Result<Vec<(i32, i64)>> {
        let grown = self.cluster.grow_topic(&self.topic, partitions_needed(partitions));
        tokio::time::timeout(STEP_TIMEOUT, grown).await.unwrap_or_else(|_| Err(late()))?;
        let (topic, partitions) = (self.topic.clone(), partitions.to_vec());
        let mut ends = self.ask(move |cluster| cluster.ends_blocking(&topic, &partitions)).await?;
        ends.sort_unstable();
        Ok(ends)
    }

    /// Asks the cluster, but not for longer than this node can go without a sign of life.
    async fn ask<T, F>(&self, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Cluster) -> Result<T> + Send + 'static,
    {
        tokio::time::timeout(STEP_TIMEOUT, self.cluster.run(question)).await.unwrap_or_else(|_| Err(late()))
    }

    /// The log no longer held what was to be read: retention was faster, or it became shorter. Positions are called anew then.
    async fn renumber(&self, ends: &[(i32, i64)]) -> Result<()> {
        let asked = tokio::time::timeout(STEP_TIMEOUT, self.incarnations.refreshed());
        let mark = asked.await.unwrap_or_else(|_| Err(late()))?;
        let is_shorter = |&(partition, end): &(i32, i64)| {
            self.places.current().is_some_and(|(of, now)| {
                of == partition && i64::try_from(now.offset).is_ok_and(|next| next > end)
            })
        };
        self.copies.renumber(mark, ends.iter().any(is_shorter))
    }

    /// Makes the reader read nothing.
    fn release(&mut self) -> Result<()> {
        if !self.assigned.is_empty() {
            self.consumer.release_blocking(&self.topic, &self.assigned)?;
            self.assigned.clear();
        }
        Ok(())
    }

    /// Makes the reader read exactly these partitions of `owner` from these offsets.
    async fn assign(&mut self, places: &[(i32, i64)], owner: Incarnation) -> Result<()> {
        let highest = places.iter().map(|&(partition, _)| partition).max();
        if highest > self.known {
            // Otherwise it may take a second until the consumer asks of its own accord.
            let (consumer, topic) = (self.consumer.clone(), self.topic.clone());
            self.ask(move |_| consumer.refresh_blocking(&topic, STEP_TIMEOUT)).await?;
            self.known = highest;
        }
        self.release()?;
        for &(partition, next) in places {
            let epoch = self.copies.epoch(partition, owner);
            self.copies.reads_from(epoch, next);
            self.places.start(partition, next, epoch);
        }
        self.consumer.assign_blocking(&self.topic, places)?;
        self.assigned = places.iter().map(|&(partition, _)| partition).collect();
        Ok(())
    }
}

fn late() -> Error {
    fault::timed_out("read", "Kafka did not answer in time")
}

/// How many partitions a topic needs so that it has all of `partitions`.
pub(super) fn partitions_needed(partitions: &[i32]) -> u32 {
    partitions.iter().max().and_then(|&highest| u32::try_from(highest + 1).ok()).unwrap_or(1)
}
