//! What a node remembers for those who come back: the last messages of its rooms, and since when nothing went by the log
//! alone. No clock of its own but the one that is compared with the publishers'.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use crate::backplane::{Event, Message, Page, PageQuery, Position, Resumed, RoomId};
use crate::guarantees::Positions;
use crate::ring::{Feed, Limits, Rings};

/// How far the log may be behind what a node delivers live, at most. See the strategy's documentation for what rests on it.
pub(super) const LAG_MAX: Duration = Duration::from_secs(10);
/// How far the clocks of two nodes may be apart, at most, with [`LAG_MAX`] in it.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(60);

/// The rings of the rooms that have local members, in the order of the merge, and how calm the partitions are.
pub(super) struct Kept {
    rings: Option<Rings>,
    rooms: HashMap<RoomId, Watched>,
    /// By partition, when something went by the log alone for the last time, or may have; microseconds since the Unix epoch.
    unsettled_us: Vec<u64>,
    outage: Outage,
}

/// When the log could not be read, the last time; microseconds since the Unix epoch. Other nodes may have been cut off as long,
/// and have delivered live what came after messages of the log that their members had not seen.
#[derive(Debug, Default)]
struct Outage {
    from_us: u64,
    to_us: u64,
    /// When it was noticed, even if it counts as part of an earlier one.
    noticed_us: u64,
    /// It is not over.
    lasts: bool,
}

/// A room with local members.
struct Watched {
    partition: usize,
    /// From then on a position tells what its member has seen, on whichever node: all that went by the log alone before
    /// has reached every node.
    calm_at: Instant,
    /// Its ring has begun.
    begun: bool,
}

impl Kept {
    /// The node has only just begun to read the log.
    pub(super) fn new(limits: Option<Limits>, partitions: usize, now: Instant) -> Self {
        let rings = limits.map(|limits| Rings::new(Feed::Begun, Positions::Dense, limits, now));
        Self {
            rings,
            rooms: HashMap::new(),
            unsettled_us: vec![now_us(); partitions],
            outage: Outage::default(),
        }
    }

    /// The node wants a room from now on.
    pub(super) fn joined(&mut self, room: &RoomId, partition: usize, now: Instant) {
        self.left(room);
        self.rooms.insert(room.clone(), Watched { partition, calm_at: now + LAG_MAX, begun: false });
    }

    /// The node does not want it any more.
    pub(super) fn left(&mut self, room: &RoomId) {
        self.rooms.remove(room);
        if let Some(rings) = &mut self.rings {
            rings.end(room);
        }
    }

    /// Takes note of what the merge yields, before it is delivered.
    pub(super) fn note(&mut self, events: &[Event], now: Instant) {
        for event in events {
            if let Event::Message(message) = event {
                self.place(message, now);
            }
            if let Some(rings) = &mut self.rings {
                rings.note(std::slice::from_ref(event), now);
            }
        }
    }

    /// Begins a room's ring with its first message in calm, and ends it with the first one that has no place in the order.
    fn place(&mut self, message: &Message, now: Instant) {
        let (room, Position { epoch, offset }) = (&message.envelope.room, message.position);
        let Some(watched) = self.rooms.get_mut(room) else { return };
        if offset == 0 {
            (watched.begun, watched.calm_at) = (false, now + LAG_MAX);
            let partition = watched.partition;
            if let Some(rings) = &mut self.rings {
                rings.end(room);
            }
            self.unsettle(partition);
        } else if !watched.begun && now >= watched.calm_at && !self.outage.lasts {
            watched.begun = true;
            if let Some(rings) = &mut self.rings {
                // Who stands before this message may have missed something that has no place.
                rings.begin(room, Position { epoch, offset: offset - 1 }, offset);
            }
        }
    }

    /// The log can be read no more, or again.
    pub(super) fn log_link(&mut self, broken: bool, now: Instant) {
        let at_us = now_us();
        if broken && !self.outage.lasts {
            self.outage.noticed_us = at_us;
            // One that follows soon is the same one.
            if at_us > self.outage.to_us.saturating_add(micros(CLOCKS_APART_MAX)) {
                self.outage.from_us = at_us;
            }
        }
        self.unsettle_disturbed(at_us);
        self.outage.to_us = at_us;
        self.outage.lasts = broken;
        for watched in self.rooms.values_mut().filter(|watched| !watched.begun) {
            watched.calm_at = watched.calm_at.max(now + LAG_MAX);
        }
    }

    /// Unsettles what was not calm when the outage began: other nodes may have been cut off before they read that, and show live
    /// messages to members who lack it. Where it was calm every node had read all, and what goes by the log alone meanwhile
    /// unsettles its partition when it is read, before anybody is answered.
    fn unsettle_disturbed(&mut self, at_us: u64) {
        let margin_us = micros(CLOCKS_APART_MAX);
        // It may have begun long before it was noticed.
        let began_us = self.outage.noticed_us.saturating_sub(micros(LAG_MAX));
        for since in &mut self.unsettled_us {
            if began_us <= since.saturating_add(margin_us) {
                *since = at_us;
            }
        }
    }

    /// Records of a partition are gone that this node may not have read: no ring of its rooms is known to be whole.
    pub(super) fn lost(&mut self, partition: usize, now: Instant) {
        for (room, watched) in self.rooms.iter_mut().filter(|(_, watched)| watched.partition == partition) {
            (watched.begun, watched.calm_at) = (false, now + LAG_MAX);
            if let Some(rings) = &mut self.rings {
                rings.end(room);
            }
        }
    }

    /// What was logged before `before_ms` (milliseconds since the Unix epoch) was delivered by every node before a position of
    /// some time later, if the log could be read all that time. If not, the time before which that is true.
    pub(super) fn trusted_before_ms(&self, before_ms: i64) -> i64 {
        let Outage { from_us, to_us, lasts, .. } = self.outage;
        let margin_us = micros(CLOCKS_APART_MAX);
        let millis = |us: u64| i64::try_from(us / 1_000).unwrap_or(i64::MAX);
        let over = !lasts && before_ms > millis(to_us.saturating_add(margin_us));
        if over || to_us == 0 { before_ms } else { before_ms.min(millis(from_us.saturating_sub(margin_us))) }
    }

    /// Something in a partition goes by the log alone.
    pub(super) fn unsettle(&mut self, partition: usize) {
        if let Some(since) = self.unsettled_us.get_mut(partition) {
            *since = now_us();
        }
    }

    /// Something may, everywhere: a link to Redis broke, or the log lost something.
    pub(super) fn unsettle_all(&mut self) {
        self.unsettled_us.fill(now_us());
    }

    /// Whether a message was published (microseconds since the Unix epoch, by its publisher's clock) so long after everything
    /// that went by the log alone that whoever saw it had seen all of that.
    pub(super) fn is_settled(&self, partition: usize, published_at_us: u64) -> bool {
        let since = self.unsettled_us.get(partition).copied().unwrap_or(u64::MAX);
        published_at_us > since.saturating_add(micros(CLOCKS_APART_MAX))
    }

    /// Everything that a room carried after `since`, if its ring has that.
    pub(super) fn after(
        &mut self,
        room: &RoomId,
        since: Position,
        limit: usize,
        now: Instant,
    ) -> Option<Resumed> {
        let rings = self.rings.as_mut()?;
        let stands = rings.top(room)?;
        rings.after(room, since, stands, limit, now)
    }

    /// A page of what a room carried, if its ring has all of that.
    pub(super) fn page(&mut self, room: &RoomId, query: PageQuery, now: Instant) -> Option<Page> {
        let rings = self.rings.as_mut()?;
        let stands = rings.top(room)?;
        let held = rings.page(room, query, stands, now);
        held.whole.then_some(held.page)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Microseconds since the Unix epoch, by this node's clock.
pub(super) fn now_us() -> u64 {
    let elapsed = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backplane::{Envelope, MessageId};

    const LIMITS: Limits = Limits::new(10, Duration::from_secs(600));

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    fn message(id: u128, position: Position) -> Event {
        let envelope = Envelope {
            room: RoomId::new("room"),
            id: MessageId(id),
            published_at_us: 0,
            info: Bytes::new(),
            payload: Bytes::new(),
        };
        Event::Message(Message { envelope, position })
    }

    fn missed(kept: &mut Kept, since: Position, now: Instant) -> Option<Vec<u128>> {
        match kept.after(&RoomId::new("room"), since, 9, now)? {
            Resumed::Complete { messages, .. } => {
                Some(messages.iter().map(|message| message.envelope.id.0).collect())
            }
            Resumed::Incomplete { .. } => None,
        }
    }

    #[test]
    fn a_ring_begins_in_calm_and_spans_a_change_of_epoch() {
        let (start, room) = (Instant::now(), RoomId::new("room"));
        let mut kept = Kept::new(Some(LIMITS), 1, start);
        kept.joined(&room, 0, start);
        kept.note(&[message(1, at(7, 1))], start);
        assert_eq!(
            missed(&mut kept, at(7, 1), start),
            None,
            "others may have missed what was before the join"
        );
        let calm = start + LAG_MAX;
        kept.note(&[message(2, at(7, 2)), message(3, at(7, 3))], calm);
        kept.note(&[Event::Renumbered { room: room.clone(), epoch: 8 }, message(4, at(8, 1))], calm);
        assert_eq!(missed(&mut kept, at(7, 1), calm), None);
        assert_eq!(missed(&mut kept, at(7, 2), calm), Some(vec![3, 4]));
        assert_eq!(missed(&mut kept, at(8, 0), calm), Some(vec![4]));
        kept.left(&room);
        assert_eq!(missed(&mut kept, at(7, 2), calm), None);
    }

    #[test]
    fn what_goes_by_the_log_alone_ends_a_ring_for_a_while() {
        let (start, room) = (Instant::now(), RoomId::new("room"));
        let mut kept = Kept::new(Some(LIMITS), 1, start);
        kept.joined(&room, 0, start);
        let calm = start + LAG_MAX;
        kept.note(&[message(1, at(7, 1)), message(2, Position::default()), message(3, at(7, 2))], calm);
        assert_eq!(missed(&mut kept, at(7, 1), calm), None);
        assert_eq!(missed(&mut kept, at(7, 2), calm), None);
        kept.note(&[message(4, at(7, 3)), message(5, at(7, 4))], calm + LAG_MAX);
        assert_eq!(missed(&mut kept, at(7, 2), calm + LAG_MAX), None);
        assert_eq!(missed(&mut kept, at(7, 3), calm + LAG_MAX), Some(vec![5]));
    }

    #[test]
    fn what_the_log_lost_ends_the_rings_of_its_partition() {
        let (start, room) = (Instant::now(), RoomId::new("room"));
        let mut kept = Kept::new(Some(LIMITS), 2, start);
        kept.joined(&room, 1, start);
        let calm = start + LAG_MAX;
        kept.note(&[message(1, at(7, 1)), message(2, at(7, 2))], calm);
        kept.lost(0, calm);
        assert_eq!(missed(&mut kept, at(7, 1), calm), Some(vec![2]), "that was another partition");
        kept.lost(1, calm);
        kept.note(&[message(3, at(7, 3))], calm);
        assert_eq!(missed(&mut kept, at(7, 1), calm), None);
        assert_eq!(missed(&mut kept, at(7, 2), calm), None);
        kept.note(&[message(4, at(7, 4)), message(5, at(7, 5))], calm + LAG_MAX);
        assert_eq!(missed(&mut kept, at(7, 4), calm + LAG_MAX), Some(vec![5]));
    }

    #[test]
    fn while_the_log_is_away_nothing_is_calm() {
        let (start, room) = (Instant::now(), RoomId::new("room"));
        let mut kept = Kept::new(Some(LIMITS), 1, start);
        let (now_ms, hour_ms) = (now_us() as i64 / 1_000, 3_600_000);
        assert_eq!(kept.trusted_before_ms(now_ms), now_ms, "it was never away");
        kept.joined(&room, 0, start);
        kept.log_link(true, start);
        let thawed = start + 3 * LAG_MAX;
        kept.note(&[message(1, at(7, 1))], thawed);
        kept.log_link(false, thawed);
        kept.note(&[message(2, at(7, 2)), message(3, at(7, 3))], thawed + LAG_MAX / 2);
        assert_eq!(missed(&mut kept, at(7, 2), thawed + LAG_MAX / 2), None, "others may be behind as far");
        kept.note(&[message(4, at(7, 4)), message(5, at(7, 5))], thawed + LAG_MAX);
        assert_eq!(missed(&mut kept, at(7, 4), thawed + LAG_MAX), Some(vec![5]));
        assert!(kept.trusted_before_ms(now_ms) < now_ms);
        assert_eq!(kept.trusted_before_ms(now_ms + hour_ms), now_ms + hour_ms, "it was over long before");
        assert_eq!(kept.trusted_before_ms(now_ms - hour_ms), now_ms - hour_ms);
    }

    #[test]
    fn a_partition_settles_long_after_its_last_disturbance() {
        let mut kept = Kept::new(None, 2, Instant::now());
        let minutes = |minutes: u64| now_us() + minutes * 60_000_000;
        assert!(!kept.is_settled(0, now_us()) && kept.is_settled(0, minutes(2)));
        assert!(!kept.is_settled(2, minutes(2)), "there is no such partition");
        kept.unsettled_us[1] = minutes(5);
        assert!(kept.is_settled(0, minutes(2)) && !kept.is_settled(1, minutes(2)));
        kept.unsettle_all();
        assert!(kept.is_settled(1, minutes(2)));
    }

    /// The time so many seconds ago.
    fn ago(seconds: u64) -> u64 {
        now_us() - seconds * 1_000_000
    }

    #[test]
    fn an_outage_of_the_log_leaves_settled_what_was_calm_before() {
        let (start, noticed_us) = (Instant::now(), now_us());
        let mut kept = Kept::new(None, 3, start);
        // The second had been calm for long enough only if the outage did not begin before it was noticed.
        kept.unsettled_us = vec![ago(120), ago(65), ago(5)];
        kept.log_link(true, start);
        assert!(kept.is_settled(0, now_us()) && !kept.is_settled(1, now_us()));
        kept.unsettled_us[2] = ago(1);
        kept.log_link(false, start);
        assert!(kept.is_settled(0, now_us()) && !kept.is_settled(1, now_us()));
        assert!(kept.unsettled_us[2] >= noticed_us, "the minute counts from the return");
        // Something went by the log alone meanwhile, and is read now.
        kept.unsettle(0);
        assert!(!kept.is_settled(0, now_us()));
        kept.log_link(true, start);
        kept.log_link(false, start);
        assert!(!kept.is_settled(0, now_us()));
    }

    #[test]
    fn what_is_unsettled_during_an_outage_of_the_log_settles_after_it() {
        let start = Instant::now();
        let mut kept = Kept::new(None, 2, start);
        kept.unsettled_us = vec![ago(120); 2];
        kept.log_link(true, start);
        kept.unsettle(1);
        let during_us = now_us();
        kept.log_link(false, start);
        assert!(kept.is_settled(0, now_us()));
        assert!(kept.unsettled_us[1] >= during_us);
    }
}
