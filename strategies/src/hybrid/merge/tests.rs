//! The merge against everything that two unreliable paths can do to a room.

mod bounds;
mod older;
mod parked;
mod patience;

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::{Merge, Place};
use crate::backplane::{Envelope, Event, MessageId, Position, RoomId};
use crate::clients::kafka::{ReadTo, Resume};
use crate::dedup::DedupWindow;
use crate::envelope::{self, View};
use crate::stats::Stats;

const EPOCH: u64 = 7;
const PATIENCE: Duration = Duration::from_millis(100);

struct Fixture {
    merge: Merge,
    room: RoomId,
    start: Instant,
    stats: Arc<Stats>,
}

impl Fixture {
    /// A room joined at offset 0 of an empty log.
    fn new() -> Self {
        Self::with(false)
    }

    fn with(reserved: bool) -> Self {
        let stats = Arc::new(Stats::default());
        let merge = Merge::new(vec![0; 2], PATIENCE, reserved, DedupWindow::CAPACITY, Arc::clone(&stats));
        let mut fixture = Self { merge, room: RoomId::new("room"), start: Instant::now(), stats };
        fixture.merge.join(&fixture.room, 0);
        fixture.merge.top(&fixture.room, at(0), fixture.start);
        fixture
    }

    fn record(&self, id: u128, position: Option<Position>) -> Vec<u8> {
        let envelope = Envelope {
            room: self.room.clone(),
            id: MessageId(id),
            published_at_us: 0,
            info: bytes::Bytes::new(),
            payload: id.to_string().into_bytes().into(),
        };
        let mut record = Vec::new();
        envelope::encode(&envelope, position, &mut record);
        record
    }

    fn live(&mut self, id: u128, position: Position, fence: i64) {
        let record = self.record(id, None);
        let view = View::parse(&record).unwrap();
        self.merge.live(&self.room.clone(), position, fence, &view, self.start);
    }

    fn log(&mut self, id: u128, position: Option<Position>, offset: i64) {
        let record = self.record(id, position);
        let view = View::parse(&record).unwrap();
        self.merge.log(Place { partition: 0, offset, time_ms: Some(offset) }, &view, self.start);
        self.merge.look(self.start);
    }

    fn wait(&mut self) {
        self.merge.look(self.start + PATIENCE);
    }

    /// Ids and offsets of what was delivered, and of what was skipped (id 0).
    fn placed(&mut self) -> Vec<(u128, Position)> {
        let told = |event: &Event| match event {
            Event::Message(message) => Some((message.envelope.id.0, message.position)),
            Event::Skipped { position, .. } => Some((0, *position)),
            // A message has an id; this has none.
            Event::Renumbered { epoch, .. } => Some((0, Position { epoch: *epoch, offset: 0 })),
            Event::Gap { .. } | Event::Reconnected => None,
        };
        let out = self.merge.out().iter().filter_map(told).collect();
        self.merge.out().clear();
        out
    }

    /// Ids delivered, and gaps as negative lengths.
    fn out(&mut self) -> Vec<i64> {
        let told = |event: &Event| match event {
            Event::Message(message) => Some(message.envelope.id.0 as i64),
            Event::Gap { from, to, .. } => Some(-((to - from) as i64)),
            Event::Reconnected | Event::Skipped { .. } | Event::Renumbered { .. } => None,
        };
        let out = self.merge.out().iter().filter_map(told).collect();
        self.merge.out().clear();
        out
    }
}

fn at(offset: u64) -> Position {
    Position { epoch: EPOCH, offset }
}

#[test]
fn the_first_copy_counts_and_the_second_is_dropped() {
    let mut fixture = Fixture::new();
    fixture.live(1, at(1), 0);
    fixture.log(1, Some(at(1)), 0);
    fixture.log(2, Some(at(2)), 1);
    fixture.live(2, at(2), 0);
    assert_eq!(fixture.out(), [1, 2]);
    assert_eq!(fixture.stats.duplicates_removed.get(), 2);
}

#[test]
fn a_hole_is_healed_in_order_or_declared() {
    let mut fixture = Fixture::new();
    fixture.live(2, at(2), 0);
    fixture.live(3, at(3), 0);
    assert!(fixture.out().is_empty());
    fixture.log(1, Some(at(1)), 0);
    assert_eq!(fixture.out(), [1, 2, 3]);
    fixture.live(6, at(6), 0);
    fixture.wait();
    assert_eq!(fixture.out(), [-2, 6]);
    fixture.log(5, Some(at(5)), 1);
    assert!(fixture.out().is_empty(), "what was declared lost does not come");
}

#[test]
fn a_lost_last_message_comes_from_the_log_or_is_declared() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    fixture.merge.missing(&room, EPOCH, 1, 3, fixture.start);
    fixture.log(1, Some(at(1)), 0);
    fixture.wait();
    assert_eq!(fixture.out(), [1, -1]);
}

#[test]
fn what_was_reserved_early_may_come_late() {
    let mut fixture = Fixture::with(true);
    let room = fixture.room.clone();
    fixture.merge.missing(&room, EPOCH, 1, 4, fixture.start);
    fixture.wait();
    assert!(fixture.out().is_empty(), "a reserved position is no lost message");
    fixture.live(2, at(2), 0);
    fixture.wait();
    assert_eq!(fixture.out(), [-1, 2]);
    fixture.log(1, Some(at(1)), 0);
    fixture.live(1, at(1), 0);
    fixture.live(2, at(2), 0);
    assert_eq!(fixture.out(), [1]);
}

#[test]
fn what_comes_after_its_place_was_passed_has_no_position() {
    let mut fixture = Fixture::with(true);
    fixture.live(2, at(2), 0);
    fixture.wait();
    fixture.log(1, Some(at(1)), 0);
    fixture.live(3, at(3), 0);
    assert_eq!(fixture.placed(), [(2, at(2)), (1, Position::default()), (3, at(3))]);
    // The same for a record of an epoch that has ended.
    let next = Position { epoch: EPOCH + 1, offset: 1 };
    let room = fixture.room.clone();
    fixture.merge.missing(&room, EPOCH + 1, 1, 1, fixture.start);
    fixture.live(5, next, 0);
    fixture.log(4, Some(at(4)), 1);
    let announced = (0, Position { offset: 0, ..next });
    assert_eq!(fixture.placed(), [announced, (5, next), (4, Position::default())]);
}

#[test]
fn an_outage_of_the_live_path_leaves_no_hole_in_the_numbering() {
    let mut fixture = Fixture::new();
    fixture.live(1, at(1), 0);
    fixture.merge.interrupted(fixture.start);
    fixture.log(1, Some(at(1)), 0);
    fixture.log(2, None, 1);
    fixture.log(3, None, 7);
    fixture.merge.reconnected();
    fixture.live(4, at(2), 8);
    assert_eq!(
        fixture.placed(),
        [(1, at(1)), (2, Position::default()), (3, Position::default()), (4, at(2))]
    );
}

#[test]
fn a_removed_duplicate_is_no_hole_in_the_numbering() {
    let mut fixture = Fixture::new();
    fixture.live(1, at(1), 0);
    // A retry with the same id.
    fixture.live(1, at(2), 0);
    fixture.live(3, at(3), 0);
    fixture.log(1, Some(at(1)), 0);
    fixture.log(1, Some(at(2)), 1);
    assert_eq!(fixture.placed(), [(1, at(1)), (0, at(2)), (3, at(3))]);
    assert_eq!(fixture.stats.gaps.get(), 0);
}

#[test]
fn what_the_log_lost_does_not_move_the_numbering() {
    let mut fixture = Fixture::new();
    fixture.live(1, at(1), 0);
    fixture.merge.log_moved(Resume { partition: 0, offset: 1_000, renumbered: false });
    let gap = Event::Gap { room: fixture.room.clone(), from: 2, to: 2 };
    assert!(fixture.merge.out().contains(&gap), "{:?}", fixture.merge.out());
}

#[test]
fn a_log_that_became_shorter_is_read_on() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    fixture.log(1, Some(at(1)), 0);
    fixture.log(9, None, 99);
    // Joined at offset 100 of a log that then starts anew.
    fixture.merge.join(&room, 0);
    fixture.merge.top(&room, at(1), fixture.start);
    let read = ReadTo { partition: 0, next: 100, newest_ms: Some(99) };
    assert_eq!(fixture.merge.read_to()[0], read);
    fixture.out();
    fixture.merge.log_moved(Resume { partition: 0, offset: 0, renumbered: true });
    fixture.log(2, Some(at(2)), 0);
    fixture.log(3, None, 1);
    assert_eq!(fixture.placed(), [(2, at(2)), (3, Position::default())]);
}

#[test]
fn a_fenced_message_waits_for_the_log() {
    let mut fixture = Fixture::new();
    fixture.live(2, at(1), 5);
    assert!(fixture.out().is_empty());
    fixture.log(1, None, 4);
    assert_eq!(fixture.out(), [1, 2]);
}

#[test]
fn a_message_of_the_log_alone_stays_behind_its_publishers_earlier_ones() {
    let mut fixture = Fixture::new();
    // 2 was published live by the same publisher that then lost the link and wrote 3; 1 is somebody else's.
    fixture.log(2, Some(at(2)), 0);
    fixture.log(3, None, 1);
    fixture.live(4, at(3), 2);
    assert!(fixture.out().is_empty());
    fixture.log(1, Some(at(1)), 2);
    assert_eq!(fixture.out(), [1, 2, 3, 4]);
}

#[test]
fn an_unknown_outcome_is_seen_once() {
    let mut fixture = Fixture::new();
    fixture.live(1, at(1), 0);
    fixture.log(1, None, 0);
    fixture.log(2, None, 1);
    fixture.live(2, at(2), 0);
    fixture.live(3, at(3), 0);
    assert_eq!(fixture.out(), [1, 2, 3]);
}

#[test]
fn a_new_epoch_follows_the_old_one() {
    let mut fixture = Fixture::new();
    let (room, next) = (fixture.room.clone(), |offset| Position { epoch: EPOCH + 1, offset });
    fixture.live(2, at(2), 0);
    fixture.merge.missing(&room, EPOCH + 1, 1, 1, fixture.start);
    fixture.live(4, next(1), 0);
    assert!(fixture.out().is_empty());
    fixture.log(1, Some(at(1)), 0);
    assert_eq!(fixture.out(), [1, 2, 4]);
    fixture.log(3, Some(at(3)), 1);
    assert_eq!(fixture.out(), [3], "a late record of an ended epoch still arrives");
    fixture.log(4, Some(next(1)), 2);
    assert!(fixture.out().is_empty());
}

#[test]
fn a_room_joined_without_redis_follows_the_log() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    fixture.merge.interrupted(fixture.start);
    fixture.merge.join(&room, 0);
    fixture.merge.join_by_log(&room, 10);
    fixture.log(1, Some(at(40)), 9);
    fixture.log(2, Some(at(41)), 10);
    fixture.log(3, None, 11);
    assert_eq!(fixture.out(), [2, 3]);
    // The live path comes back at 43; 42 and 43 were published meanwhile, and are in the log.
    fixture.merge.top(&room, at(43), fixture.start);
    fixture.merge.reconnected();
    fixture.live(6, at(44), 0);
    assert!(fixture.out().is_empty());
    fixture.log(4, Some(at(42)), 12);
    fixture.log(5, Some(at(43)), 13);
    assert_eq!(fixture.out(), [4, 5, 6]);
}

#[test]
fn what_a_room_holds_is_bounded() {
    let mut fixture = Fixture::new();
    for offset in 2..=super::bounds::HELD_MAX as u64 + 3 {
        fixture.live(u128::from(offset), at(offset), 0);
    }
    let out = fixture.out();
    assert_eq!(out[..2], [-1, 2]);
    assert_eq!(out.len(), super::bounds::HELD_MAX + 3);
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// It reaches the node live.
    live: bool,
    /// Its publisher did not learn its position, and appended it without.
    unknown: bool,
    /// How many earlier records it overtakes in the log, at most.
    early: usize,
    /// How many messages later its record is read.
    late: usize,
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = (any::<bool>(), proptest::bool::weighted(0.1), 0usize..4, 0usize..6)
        .prop_map(|(live, unknown, early, late)| Fate { live: live || unknown, unknown, early, late });
    proptest::collection::vec(fate, 1..120)
}

proptest! {
    /// Whatever the live path loses, and however publishers overtake each other on the way into the log: everything
    /// arrives, once, in the order of the sequence, and nothing is declared lost.
    #[test]
    fn all_arrive_once_and_in_order(fates in fates()) {
        let mut fixture = Fixture::new();
        let mut log: Vec<u64> = Vec::new();
        for (index, fate) in fates.iter().enumerate() {
            let place = log.len().saturating_sub(fate.early);
            log.insert(place, index as u64 + 1);
        }
        let mut read = 0;
        for (index, fate) in fates.iter().enumerate() {
            let offset = index as u64 + 1;
            if fate.live {
                fixture.live(u128::from(offset), at(offset), 0);
            }
            // The log is read some messages behind; a record is there once its message was published.
            while read < log.len() && log[read] <= offset && read + fate.late < index {
                let unknown = fates[log[read] as usize - 1].unknown;
                fixture.log(u128::from(log[read]), (!unknown).then_some(at(log[read])), read as i64);
                read += 1;
            }
        }
        while read < log.len() {
            let unknown = fates[log[read] as usize - 1].unknown;
            fixture.log(u128::from(log[read]), (!unknown).then_some(at(log[read])), read as i64);
            read += 1;
        }
        let mut out = fixture.out();
        prop_assert!(out.iter().all(|id| *id > 0), "declared lost: {:?}", out);
        let known: Vec<i64> = out.iter().copied().filter(|id| !fates[*id as usize - 1].unknown).collect();
        prop_assert!(known.is_sorted(), "out of order: {:?}", out);
        out.sort_unstable();
        prop_assert_eq!(out, (1..=fates.len() as i64).collect::<Vec<_>>());
    }
}
