//! Rings against naive histories, and their bounds.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::backplane::{Envelope, Event, RoomId};
use crate::guarantees::Positions;

const LIMITS: Limits = Limits::new(6, Duration::from_secs(10));

fn message(room: &str, id: u128, epoch: u64, offset: u64) -> Message {
    let envelope = Envelope {
        room: RoomId::new(room),
        id: MessageId(id),
        published_at_us: 0,
        info: Bytes::new(),
        payload: Bytes::from_static(b"0123456789"),
    };
    Message { envelope, position: Position { epoch: if offset == 0 { 0 } else { epoch }, offset } }
}

fn ids(messages: &[Message]) -> Vec<u128> {
    messages.iter().map(|message| message.envelope.id.0).collect()
}

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What happens to a room whose positions are dense.
#[derive(Debug, Clone, Copy)]
enum Step {
    Message,
    WithoutPosition,
    Skip,
    /// So many messages are lost; declared at once, or shown by the next message.
    Lose(u64, bool),
    Renumber,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Message),
        1 => Just(Step::WithoutPosition),
        1 => Just(Step::Skip),
        1 => (1u64..3, any::<bool>()).prop_map(|(n, declared)| Step::Lose(n, declared)),
        1 => Just(Step::Renumber),
        1 => (0u64..6).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..40)
}

/// A message of the naive history. Its place is its position, or the one that it came behind.
#[derive(Debug, Clone, Copy)]
struct Item {
    id: u128,
    place: (u64, u64),
    has_position: bool,
    lost: bool,
}

/// A ring beside everything that ever happened.
struct World {
    ring: Ring,
    history: Vec<Item>,
    top: (u64, u64),
    now: Instant,
}

impl World {
    fn new() -> Self {
        let ring = Ring::new(LIMITS, true, at(1, 0), 0);
        Self { ring, history: Vec::new(), top: (1, 0), now: Instant::now() }
    }

    fn add(&mut self, has_position: bool, lost: bool) {
        self.top.1 += u64::from(has_position);
        let id = self.history.len() as u128;
        self.history.push(Item { id, place: self.top, has_position, lost });
        if !lost {
            let offset = if has_position { self.top.1 } else { 0 };
            self.ring.push(&message("r", id, self.top.0, offset), self.now);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Message => self.add(true, false),
            Step::WithoutPosition => self.add(false, false),
            Step::Skip => {
                self.top.1 += 1;
                self.ring.skip(at(self.top.0, self.top.1));
            }
            Step::Lose(n, declared) => {
                (0..n).for_each(|_| self.add(true, true));
                if declared {
                    self.ring.lost(self.top.1 + 1);
                } else {
                    self.add(true, false);
                }
            }
            Step::Renumber => {
                self.top = (self.top.0 + 1, 0);
                self.ring.renumber(self.top.0);
            }
            Step::Wait(n) => {
                self.now += seconds(n);
                self.ring.trim(self.now);
            }
        }
    }

    /// What a member that stands at `since` has not seen for sure.
    fn tail(&self, since: (u64, u64)) -> Vec<Item> {
        let unseen = |item: &&Item| item.place > since || (item.place == since && !item.has_position);
        self.history.iter().filter(unseen).copied().collect()
    }

    /// Every place where a member may stand, and one beyond the end of each epoch.
    fn places(&self) -> Vec<(u64, u64)> {
        (1..=self.top.0)
            .flat_map(|epoch| (0..=self.history.len() as u64 + 9).map(move |o| (epoch, o)))
            .collect()
    }
}

proptest! {
    #[test]
    fn a_ring_never_guesses(steps in steps(), limit in 0usize..8) {
        let mut world = World::new();
        let gentle = steps.len() <= LIMITS.messages
            && steps.iter().all(|step| matches!(step, Step::Message | Step::Skip | Step::WithoutPosition));
        for step in steps { world.step(step); }
        let stands = world.ring.top();
        prop_assert_eq!((stands.epoch, stands.offset), world.top);
        for place in world.places() {
            let tail = world.tail(place);
            let behind_the_end = place.0 == world.top.0 && place.1 > world.top.1;
            let unsure = tail.first().is_some_and(|item| !item.has_position);
            match world.ring.after(at(place.0, place.1), stands, limit) {
                Some(Resumed::Complete { messages, top }) => {
                    prop_assert!(!behind_the_end && !unsure && tail.iter().all(|item| !item.lost), "{:?}", place);
                    prop_assert_eq!(ids(&messages), tail.iter().map(|item| item.id).collect::<Vec<_>>());
                    prop_assert_eq!(top, stands);
                }
                Some(Resumed::Incomplete { top }) => {
                    prop_assert!(unsure || tail.len() > limit, "{:?}", place);
                    prop_assert_eq!(top, stands);
                }
                None => prop_assert!(!gentle || behind_the_end, "{:?}", place),
            }
        }
    }

    #[test]
    fn pages_walk_through_all_that_is_held(steps in steps(), size in 1usize..4) {
        let mut world = World::new();
        for step in steps {
            // Pages are walked by position, within an epoch.
            if !matches!(step, Step::WithoutPosition | Step::Renumber) { world.step(step); }
        }
        let stands = world.ring.top();
        let page = |since, limit, reverse| world.ring.page(PageQuery { since, limit, reverse }, stands);
        let all = page(None, usize::MAX, false).page.messages;
        for reverse in [false, true] {
            let (mut walked, mut since) = (Vec::new(), None);
            loop {
                let held = page(since, size, reverse);
                prop_assert_eq!(held.page.top, stands);
                prop_assert!(!held.page.foreign);
                let Some(last) = held.page.messages.last() else { break };
                since = Some(last.position);
                walked.extend(held.page.messages);
            }
            if reverse { walked.reverse(); }
            prop_assert_eq!(&walked, &all);
        }
        let whole = page(None, usize::MAX, true).whole;
        let everything = ids(&all) == world.history.iter().map(|item| item.id).collect::<Vec<_>>();
        prop_assert!(!whole || everything, "a page claims to be whole and is not");
    }

    #[test]
    fn rings_of_everything_never_guess(
        steps in proptest::collection::vec((0u8..8, 0u64..4), 0..60), small: bool, limit in 0usize..8,
    ) {
        let mut now = Instant::now();
        let total_bytes = if small { 2_500 } else { Limits::TOTAL_BYTES };
        let limits = Limits { total_bytes, ..LIMITS };
        let mut rings = Rings::new(Feed::Everything, Positions::Rising, limits, now);
        rings.reads_from(7, 100);
        let (mut top, mut lost_up_to) = (100, 100);
        let mut history: Vec<(String, u64)> = Vec::new();
        let mut gentle = !small;
        for (what, n) in steps {
            match what {
                0 => { now += seconds(n * 2); gentle = false; }
                1 => { top += n + 1; lost_up_to = top; rings.reads_from(7, top); gentle = false; }
                _ => {
                    top += 1;
                    let room = format!("r{n}");
                    rings.push(&message(&room, u128::from(top), 7, top), now);
                    history.push((room, top));
                }
            }
            prop_assert!(rings.bytes() <= total_bytes);
        }
        for room in ["r0", "r1", "r2", "r3", "never"] {
            for since in 0..top + 3 {
                let tail: Vec<u128> = history.iter().filter(|(r, o)| r == room && *o > since).map(|(_, o)| u128::from(*o)).collect();
                match rings.after(&RoomId::new(room), at(7, since), at(7, top), limit, now) {
                    Some(Resumed::Complete { messages, top: stands }) => {
                        prop_assert!((lost_up_to..=top).contains(&since), "{} in {}", since, room);
                        prop_assert_eq!(ids(&messages), tail);
                        prop_assert_eq!(stands, at(7, top));
                    }
                    Some(Resumed::Incomplete { .. }) => prop_assert!(tail.len() > limit),
                    None => {
                        let reachable = gentle && (100..=top).contains(&since) && tail.len() <= limits.messages;
                        prop_assert!(!reachable, "{} in {}", since, room);
                    }
                }
            }
        }
    }
}

#[test]
fn the_room_that_was_written_least_recently_goes_first() {
    let began = Instant::now();
    // Four rings with a message each, or three and two messages more, cost more than this.
    let limits = Limits { total_bytes: 3_000, ..LIMITS };
    let mut rings = Rings::new(Feed::Begun, Positions::Dense, limits, began);
    let rooms = ["a", "b", "c", "d"].map(RoomId::new);
    for room in &rooms {
        rings.begin(room, at(1, 0), 0);
    }
    let mut push = |room: &RoomId, offset: u64, second: u64| {
        rings.push(&message(room.as_str(), u128::from(offset), 1, offset), began + seconds(second));
    };
    push(&rooms[0], 1, 0);
    push(&rooms[1], 1, 1);
    push(&rooms[2], 1, 2);
    push(&rooms[0], 2, 3);
    push(&rooms[3], 1, 4);
    let now = began + seconds(5);
    let mut after = |room: &RoomId, top: u64| rings.after(room, at(1, 0), at(1, top), 9, now);
    assert_eq!(after(&rooms[1], 1), None, "b was written least recently");
    assert!(matches!(after(&rooms[0], 2), Some(Resumed::Complete { messages, .. }) if messages.len() == 2));
    assert!(matches!(after(&rooms[3], 1), Some(Resumed::Complete { messages, .. }) if messages.len() == 1));
    assert_eq!(rings.sweep(now), [rooms[1].clone()]);
    let nothing = Some(Resumed::Complete { messages: Vec::new(), top: at(1, 1) });
    assert_eq!(
        rings.after(&rooms[1], at(1, 1), at(1, 1), 9, now),
        nothing,
        "who saw the last misses nothing"
    );
}

#[test]
fn what_is_old_goes_and_is_reported_once() {
    let began = Instant::now();
    let mut rings = Rings::new(Feed::Begun, Positions::Dense, LIMITS, began);
    let (written, joined) = (RoomId::new("written"), RoomId::new("joined"));
    for room in [&written, &joined] {
        rings.begin(room, at(1, 0), 0);
    }
    rings.push(&message("written", 1, 1, 1), began);
    rings.touch(&joined, began + seconds(5));
    assert!(rings.sweep(began + seconds(10)).is_empty(), "the second of the last write may not be over");
    assert_eq!(rings.after(&written, at(1, 0), at(1, 1), 9, began + seconds(10)), None, "too old to be read");
    assert_eq!(rings.sweep(began + seconds(11)), std::slice::from_ref(&written));
    assert!(rings.sweep(began + seconds(15)).is_empty());
    assert_eq!(rings.sweep(began + seconds(16)), [joined]);
    assert_eq!(rings.bytes(), 0);
    rings.end(&written);
    assert_eq!(rings.top(&written), None);
}

#[test]
fn events_are_noted_as_the_entrance_gets_them() {
    let now = Instant::now();
    let mut rings = Rings::new(Feed::Begun, Positions::Dense, LIMITS, now);
    let room = RoomId::new("r");
    rings.begin(&room, at(1, 4), 4);
    rings.note(
        &[
            Event::Message(message("r", 5, 1, 5)),
            Event::Message(message("stranger", 1, 1, 1)),
            Event::Skipped { room: room.clone(), position: at(1, 6) },
            Event::Message(message("r", 7, 1, 7)),
            Event::Reconnected,
            Event::Renumbered { room: room.clone(), epoch: 2 },
            Event::Message(message("r", 8, 2, 1)),
        ],
        now,
    );
    let mut after = |since| rings.after(&room, since, at(2, 1), 9, now);
    let complete = |answer: Option<Resumed>| match answer {
        Some(Resumed::Complete { messages, top }) if top == at(2, 1) => ids(&messages),
        other => panic!("{other:?}"),
    };
    assert_eq!(complete(after(at(1, 4))), [5, 7, 8]);
    assert_eq!(complete(after(at(1, 7))), [8]);
    assert_eq!(complete(after(at(2, 1))), [] as [u128; 0]);
    assert_eq!(after(at(1, 3)), None);
    assert_eq!(after(at(1, 8)), None, "that epoch ended before");
    assert_eq!(after(at(3, 1)), None);
    assert_eq!(rings.position_of(&room, MessageId(7)), Some(at(1, 7)));
    assert_eq!(rings.top(&RoomId::new("stranger")), None);
    rings.note(&[Event::Gap { room: room.clone(), from: 2, to: 4 }], now);
    assert_eq!(rings.after(&room, at(2, 1), at(2, 3), 9, now), None);
    rings.push(&message("r", 9, 2, 4), now);
    assert_eq!(rings.after(&room, at(2, 3), at(2, 4), 9, now), None, "what was lost may have stood behind 3");
    assert!(matches!(rings.after(&room, at(2, 4), at(2, 4), 9, now), Some(Resumed::Complete { .. })));
}

#[test]
fn a_cleared_room_keeps_its_place() {
    let now = Instant::now();
    let mut rings = Rings::new(Feed::Begun, Positions::Dense, LIMITS, now);
    let room = RoomId::new("r");
    rings.begin(&room, at(1, 0), 0);
    for offset in 1..=3 {
        rings.push(&message("r", u128::from(offset), 1, offset), now);
    }
    rings.clear(&room);
    let held = rings.page(&room, PageQuery { since: None, limit: 9, reverse: false }, at(1, 3), now);
    assert_eq!((held.page.messages.len(), held.page.top), (0, at(1, 3)));
    assert_eq!(rings.after(&room, at(1, 2), at(1, 3), 9, now), None);
    assert!(matches!(rings.after(&room, at(1, 3), at(1, 3), 9, now), Some(Resumed::Complete { .. })));
}

#[test]
fn rings_that_are_off_know_nothing() {
    let now = Instant::now();
    for feed in [Feed::Everything, Feed::Begun] {
        let limits = Limits { messages: 0, ..LIMITS };
        let mut rings = Rings::new(feed, Positions::Rising, limits, now);
        let room = RoomId::new("r");
        rings.reads_from(1, 0);
        rings.begin(&room, at(1, 0), 0);
        rings.push(&message("r", 1, 1, 1), now);
        assert_eq!(rings.after(&room, at(1, 1), at(1, 1), 9, now), None);
        assert_eq!(rings.bytes(), 0);
    }
}

#[test]
fn rooms_of_the_nodes_own_are_not_kept() {
    let (now, hidden) = (Instant::now(), RoomId::new("\u{1}hidden"));
    let mut begun = Rings::new(Feed::Begun, Positions::Dense, LIMITS, now);
    begun.begin(&hidden, at(7, 0), 0);
    let mut all = Rings::new(Feed::Everything, Positions::Rising, LIMITS, now);
    all.reads_from(7, 0);
    for rings in [&mut begun, &mut all] {
        rings.push(&message("\u{1}hidden", 1, 7, 1), now);
        assert_eq!(rings.bytes(), 0);
        assert_eq!(rings.after(&hidden, at(7, 0), at(7, 1), 9, now), None, "nothing is claimed");
        assert!(
            !rings.page(&hidden, PageQuery { since: None, limit: 9, reverse: false }, at(7, 1), now).whole
        );
    }
}
