//! Who is a member and which partitions each consumes: a pure function of the control log.
//!
//! [`View::apply`] takes the records one by one. It reads no clock and no settings: time is the *log time*, computed
//! from the append times that the broker stamps into the log, and each member's lease travels in its own `Join`. So any
//! two nodes that applied the same prefix hold equal views, whenever they read it and however slowly.
//!
//! **Log time** advances with the append times, but by [`STEP_MS_MAX`] at most from one record to the next. While anybody
//! is alive there is a record every few hundred milliseconds, so that log time follows the wall clock and a silent
//! member is expelled one lease after its last record. While *nobody* could append (the broker was down) it stands
//! still, so an outage does not cost everybody's membership at once. A broker clock that jumps is harmless likewise.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Incarnation, Record, publish_timeout_ms_max};

/// The most that log time advances from one record to the next.
pub(super) const STEP_MS_MAX: u64 = 1_000;
/// The most members of one cluster. A `Join` beyond it has no effect.
pub(super) const MEMBERS_MAX: usize = 256;
/// The most partitions that one member may hold.
pub(super) const HOLD_MAX: u32 = 8;
/// The most former members that are remembered. Their partitions still hold what they read.
const DEPARTED_MAX: usize = 16;

/// A member as the log describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// The node's name.
    pub(super) node: String,
    /// This life of it.
    pub(super) incarnation: Incarnation,
    /// The partitions that it consumes, ascending.
    pub(super) partitions: Vec<i32>,
    /// Offset of its `Join`.
    pub(super) joined: u64,
    /// Its publishes reach everybody who joined before this offset.
    pub(super) through: u64,
    /// Silence after which it is out, in ms of log time.
    pub(super) lease_ms: u64,
    /// Log time of its last record.
    pub(super) seen_ms: u64,
    /// How long its writes may be under way, in ms.
    #[serde(default = "publish_timeout_ms_max")]
    pub(super) publish_timeout_ms: u64,
    /// When it asked: append time of its `Join`, by the broker's clock.
    #[serde(default)]
    pub(super) joined_ms: i64,
    /// When everybody's publishes came to reach it: append time of the record that completed this, by the broker's clock.
    #[serde(default)]
    pub(super) reached_ms: Option<i64>,
    /// Offset of that record.
    #[serde(default)]
    pub(super) reached: Option<u64>,
}

/// A member that left or was expelled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Departed {
    /// As it was at its end.
    pub(super) member: Member,
    /// Offset of the record that ended it.
    pub(super) ended: u64,
    /// Append time of that record.
    pub(super) ended_ms: i64,
}

/// The cluster after a prefix of the control log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct View {
    /// Which log: a topic that was created anew under its name counts anew. 0 where that cannot be told.
    #[serde(default)]
    log: u64,
    /// Offset of the first record that is not applied.
    pub(super) next: u64,
    /// Log time in ms.
    clock_ms: u64,
    /// Append time of the last applied record, ms since the Unix epoch by the broker's clock; 0 before the first.
    appended_ms: i64,
    /// Members, in the order in which they joined.
    members: Vec<Member>,
    /// Former members, the latest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    departed: Vec<Departed>,
}

impl View {
    /// A cluster without members, whose log starts at `next`.
    pub(super) fn vacant(log: u64, next: u64) -> Self {
        Self { log, next, clock_ms: 0, appended_ms: 0, members: Vec::new(), departed: Vec::new() }
    }

    /// Applies the record at `offset`, appended at `appended_ms` by the broker's clock. `None` is a record that could not
    /// be read: time passes, nothing else. Records that are already applied are skipped.
    pub(super) fn apply(&mut self, offset: u64, appended_ms: i64, record: Option<&Record>) {
        if offset < self.next {
            return;
        }
        self.next = offset + 1;
        self.advance_clock(appended_ms);
        let clock_ms = self.clock_ms;
        self.remove(|member| clock_ms.saturating_sub(member.seen_ms) > member.lease_ms);
        match record {
            Some(Record::Join { node, incarnation, hold, lease_ms, publish_timeout_ms, .. }) => {
                let member = Member {
                    node: node.clone(),
                    incarnation: *incarnation,
                    partitions: Vec::new(),
                    joined: offset,
                    through: 0,
                    lease_ms: *lease_ms,
                    seen_ms: clock_ms,
                    publish_timeout_ms: *publish_timeout_ms,
                    joined_ms: appended_ms,
                    reached_ms: None,
                    reached: None,
                };
                self.admit(member, *hold);
            }
            Some(Record::Beat { incarnation, through, .. }) => self.refresh(*incarnation, *through),
            Some(Record::Leave { incarnation }) => {
                self.remove(|member| member.incarnation == *incarnation);
            }
            None => {}
        }
        self.note_reached();
    }

    fn advance_clock(&mut self, appended_ms: i64) {
        if self.appended_ms != 0 {
            let step_ms = u64::try_from(appended_ms.saturating_sub(self.appended_ms)).unwrap_or(0);
            self.clock_ms += step_ms.min(STEP_MS_MAX);
        }
        self.appended_ms = appended_ms;
    }

    fn admit(&mut self, newcomer: Member, hold: u32) {
        if self.member(newcomer.incarnation).is_some() {
            return;
        }
        self.remove(|member| member.node == newcomer.node);
        if self.members.len() >= MEMBERS_MAX {
            return;
        }
        let partitions = self.lowest_free(hold.clamp(1, HOLD_MAX) as usize);
        self.members.push(Member { partitions, ..newcomer });
    }

    /// Ends memberships, by the record that is being applied.
    fn remove(&mut self, is_gone: impl Fn(&Member) -> bool) {
        let (ended, ended_ms) = (self.next - 1, self.appended_ms);
        for member in self.members.extract_if(.., |member| is_gone(member)) {
            self.departed.push(Departed { member, ended, ended_ms });
        }
        let superfluous = self.departed.len().saturating_sub(DEPARTED_MAX);
        self.departed.drain(..superfluous);
    }

    /// Takes note of members that nobody's publishes miss from here on.
    fn note_reached(&mut self) {
        let reached = |member: &&Member| self.awaited_by(member).next().is_none();
        let waiting = self.members.iter().filter(|member| member.reached_ms.is_none());
        let reached: Vec<Incarnation> = waiting.filter(reached).map(|member| member.incarnation).collect();
        for member in self.members.iter_mut().filter(|member| reached.contains(&member.incarnation)) {
            member.reached_ms = Some(self.appended_ms);
            member.reached = Some(self.next - 1);
        }
    }

    /// A record of somebody who is not a member (any more) has no effect: once out, a node must join anew.
    fn refresh(&mut self, incarnation: Incarnation, through: u64) {
        let clock_ms = self.clock_ms;
        if let Some(member) = self.members.iter_mut().find(|member| member.incarnation == incarnation) {
            member.seen_ms = clock_ms;
            member.through = member.through.max(through);
        }
    }

    /// The `count` lowest partitions that no member holds, ascending.
    pub(super) fn lowest_free(&self, count: usize) -> Vec<i32> {
        let taken = self.partitions();
        (0..).filter(|partition| taken.binary_search(partition).is_err()).take(count).collect()
    }

    /// All partitions that have an owner, ascending.
    pub(super) fn partitions(&self) -> Vec<i32> {
        let mut partitions: Vec<i32> =
            self.members.iter().flat_map(|member| member.partitions.iter().copied()).collect();
        partitions.sort_unstable();
        partitions
    }

    /// Which log it is about.
    pub(super) fn log(&self) -> u64 {
        self.log
    }

    /// The members, in the order in which they joined.
    pub(super) fn members(&self) -> &[Member] {
        &self.members
    }

    /// The last former members, the latest last.
    pub(super) fn departed(&self) -> &[Departed] {
        &self.departed
    }

    /// Append time of the last applied record, ms since the Unix epoch by the broker's clock; 0 before the first.
    pub(super) fn appended_ms(&self) -> i64 {
        self.appended_ms
    }

    /// The member with this incarnation.
    pub(super) fn member(&self, incarnation: Incarnation) -> Option<&Member> {
        self.members.iter().find(|member| member.incarnation == incarnation)
    }

    /// Names of the members whose publishes may not reach `member` yet. Empty: its membership is effective.
    ///
    /// Whoever joined later has applied this member's `Join` before its own, and so writes to it from its first publish.
    pub(super) fn awaited_by<'a>(&'a self, member: &'a Member) -> impl Iterator<Item = &'a str> {
        self.members
            .iter()
            .filter(|other| other.joined < member.joined && other.through <= member.joined)
            .map(|other| other.node.as_str())
    }

    /// Members who have everything that was written for a member who joined at offset `joined`, or is written to anybody
    /// from `since_ms` (ms since the Unix epoch by the broker's clock) on; the longest-standing first.
    ///
    /// Who wrote to a member knew all who had joined before it. Who joined later may miss what was published before it was
    /// reached.
    pub(super) fn complete_since(&self, joined: u64, since_ms: i64) -> Vec<Incarnation> {
        let complete = |member: &&Member| {
            member.reached_ms.is_some_and(|reached_ms| member.joined < joined || reached_ms <= since_ms)
        };
        self.members.iter().filter(complete).map(|member| member.incarnation).collect()
    }

    /// The longest time that a message may be under way to some of its partitions when it is in others already.
    pub(super) fn publish_timeout_max(&self) -> Duration {
        let slowest = self.members.iter().map(|member| member.publish_timeout_ms).max();
        Duration::from_millis(slowest.unwrap_or(0))
    }

    /// Whether `incarnation` has stood longest: it writes the anchors.
    pub(super) fn is_eldest(&self, incarnation: Incarnation) -> bool {
        self.members.first().is_some_and(|member| member.incarnation == incarnation)
    }
}

/// A record as it stands in the log.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// Its offset.
    pub(super) offset: u64,
    /// When the broker appended it, ms since the Unix epoch.
    pub(super) appended_ms: i64,
    /// The record, unless it could not be read.
    pub(super) record: Option<Record>,
}

/// The view after a tail of `log`, `entries` without holes from offset `first` on: starts from the newest anchor (a view
/// that some record carries) that the tail continues. `None` if there is no such anchor: read from further back.
///
/// An anchor is exact however old it is, because a view depends on nothing but the prefix that it stands for. But it must stand
/// for a prefix of this log: a node that has not noticed that the topic was created anew writes views of the old one.
pub(super) fn view_of_tail(log: u64, first: u64, entries: &[Entry]) -> Option<View> {
    let anchors = entries.iter().filter_map(|entry| entry.record.as_ref()?.view());
    let mut view =
        anchors.filter(|view| view.log == log && view.next >= first).max_by_key(|view| view.next)?.clone();
    for entry in entries {
        view.apply(entry.offset, entry.appended_ms, entry.record.as_ref());
    }
    Some(view)
}

#[cfg(test)]
#[path = "membership_tests.rs"]
mod tests;
