//! Which rooms a lane is subscribed to, why, and until when. Pure bookkeeping.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::repair::Repair;
use super::sequence::Place;
use crate::backplane::{Position, RoomId};
use crate::error::Result;
use crate::hash::HashMap;

/// Told the room's top once the subscription is effective.
pub(crate) type Waiter = oneshot::Sender<Result<Position>>;

/// A subscribed room.
#[derive(Debug)]
pub(crate) struct Room {
    /// Its name.
    pub(crate) id: RoomId,
    /// How far its messages have come.
    pub(crate) place: Place,
    /// It has local members.
    pub(crate) wanted: bool,
    /// The server confirmed the subscription on the present connection.
    pub(crate) confirmed: bool,
    /// Whoever waits for the join, and until when.
    pub(crate) waiter: Option<(Waiter, Instant)>,
    /// What it stands still for.
    pub(crate) repair: Option<Repair>,
    /// When it is unsubscribed, if nobody joins again.
    leaves_at: Option<Instant>,
}

/// What a join finds.
#[derive(Debug)]
pub(crate) enum Joined {
    /// The room must be subscribed, or asked again for its top, which was refused.
    New,
    /// The subscription is on its way.
    Coming,
    /// The room is still subscribed, and stands here.
    Known(Position, Waiter),
}

/// The rooms of a lane.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    by_name: HashMap<RoomId, Room>,
    /// Rooms to unsubscribe, soonest first; an entry counts only if the room still leaves at that time.
    lingering: VecDeque<(Instant, RoomId)>,
    /// No waiter expires earlier.
    next_expiry: Option<Instant>,
    /// Rooms that were left here before another lane handed them over, and until when that may be.
    left_early: HashMap<RoomId, Instant>,
}

impl Rooms {
    /// The room has a local member from now on.
    pub(crate) fn join(&mut self, room: &RoomId, waiter: Waiter, until: Instant) -> Joined {
        self.left_early.remove(room);
        let new = !self.by_name.contains_key(room);
        let entry = self.by_name.entry(room.clone()).or_insert_with(|| Room {
            id: room.clone(),
            place: Place::default(),
            wanted: false,
            confirmed: false,
            waiter: None,
            repair: None,
            leaves_at: None,
        });
        entry.wanted = true;
        entry.leaves_at = None;
        match entry.place.shown() {
            Some(position) if entry.confirmed => Joined::Known(position, waiter),
            _ => {
                entry.waiter = Some((waiter, until));
                let refused = entry.confirmed && entry.place.get().is_none();
                self.expire_by(until);
                if new || refused { Joined::New } else { Joined::Coming }
            }
        }
    }

    /// The room has no local member any more; it is unsubscribed at `at`. A room that is still to be handed over is
    /// known by then if that happens until `adoptable`.
    pub(crate) fn leave(&mut self, room: &RoomId, at: Instant, adoptable: Option<Instant>) {
        match (self.by_name.get_mut(room), adoptable) {
            (Some(entry), _) => {
                entry.wanted = false;
                entry.leaves_at = Some(at);
                self.lingering.push_back((at, room.clone()));
            }
            (None, Some(until)) => drop(self.left_early.insert(room.clone(), until)),
            (None, None) => {}
        }
    }

    /// Takes out the rooms whose time is up.
    pub(crate) fn take_left(&mut self, now: Instant) -> Vec<RoomId> {
        self.left_early.retain(|_, until| *until > now);
        let mut left = Vec::new();
        while let Some((at, _)) = self.lingering.front()
            && *at <= now
            && let Some((at, room)) = self.lingering.pop_front()
        {
            if self.by_name.get(&room).is_some_and(|entry| entry.leaves_at == Some(at)) {
                self.by_name.remove(&room);
                left.push(room);
            }
        }
        left
    }

    /// Takes the waiters whose time is up, all of them if `all`; their rooms leave at once unless `keep`.
    pub(crate) fn take_expired(&mut self, now: Instant, all: bool, keep: bool) -> Vec<Waiter> {
        let mut expired = Vec::new();
        if !self.next_expiry.is_some_and(|next| all || next <= now) {
            return expired;
        }
        self.next_expiry = None;
        for (room, entry) in &mut self.by_name {
            if let Some((waiter, until)) = entry.waiter.take() {
                if !all && until > now {
                    entry.waiter = Some((waiter, until));
                    self.next_expiry = Some(self.next_expiry.map_or(until, |next| next.min(until)));
                    continue;
                }
                expired.push(waiter);
                if !keep {
                    entry.wanted = false;
                    entry.leaves_at = Some(now);
                    self.lingering.push_front((now, room.clone()));
                }
            }
        }
        expired
    }

    /// A room by the name in a channel.
    pub(crate) fn get_mut(&mut self, room: &str) -> Option<&mut Room> {
        self.by_name.get_mut(room)
    }

    /// Forgets a room.
    pub(crate) fn remove(&mut self, room: &RoomId) -> Option<Room> {
        self.by_name.remove(room)
    }

    /// Takes over a room as another lane had it when its slot moved. True if it must be subscribed. What was asked for
    /// here since then is newer and stands, so that only the other lane's waiter can still count.
    pub(crate) fn adopt(&mut self, mut room: Room, leaves_at: Instant) -> bool {
        if self.by_name.contains_key(&room.id) {
            if let Some((waiter, until)) = room.waiter {
                self.adopt_waiter(&room.id, waiter, until);
            }
            return false;
        }
        room.confirmed = false;
        if self.left_early.remove(&room.id).is_some() {
            room.wanted = false;
            room.leaves_at = Some(leaves_at);
        }
        if let Some(at) = room.leaves_at {
            self.lingering.push_back((at, room.id.clone()));
        }
        if let Some((_, until)) = &room.waiter {
            self.expire_by(*until);
        }
        self.by_name.insert(room.id.clone(), room);
        true
    }

    fn adopt_waiter(&mut self, room: &RoomId, waiter: Waiter, until: Instant) {
        let Some(entry) = self.by_name.get_mut(room) else { return };
        match entry.place.shown() {
            Some(position) if entry.confirmed => drop(waiter.send(Ok(position))),
            _ if entry.waiter.is_none() => {
                entry.waiter = Some((waiter, until));
                self.expire_by(until);
            }
            // Joins of one room follow each other, so the one that waits here is the only one left to be told.
            _ => {}
        }
    }

    fn expire_by(&mut self, until: Instant) {
        self.next_expiry = Some(self.next_expiry.map_or(until, |next| next.min(until)));
    }

    /// All of them.
    pub(crate) fn names(&self) -> impl Iterator<Item = &RoomId> {
        self.by_name.keys()
    }

    /// All of them, to change.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Room> {
        self.by_name.values_mut()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn join(
        rooms: &mut Rooms,
        room: &RoomId,
        until: Instant,
    ) -> (Joined, oneshot::Receiver<Result<Position>>) {
        let (waiter, told) = oneshot::channel();
        (rooms.join(room, waiter, until), told)
    }

    #[test]
    fn a_room_lingers_and_can_be_joined_again_meanwhile() {
        let (mut rooms, room, now) = (Rooms::default(), RoomId::new("r"), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        assert!(matches!(join(&mut rooms, &room, now).0, Joined::New));
        let entry = rooms.get_mut("r").unwrap();
        entry.confirmed = true;
        entry.place.compare(Position { epoch: 1, offset: 5 });
        rooms.leave(&room, later(10), None);
        assert!(rooms.take_left(later(9)).is_empty());
        let (joined, _) = join(&mut rooms, &room, now);
        assert!(matches!(joined, Joined::Known(Position { epoch: 1, offset: 5 }, _)));
        assert!(rooms.take_left(later(10)).is_empty(), "it is wanted again");
        rooms.leave(&room, later(20), None);
        assert_eq!(rooms.take_left(later(20)).len(), 1);
        assert!(matches!(join(&mut rooms, &room, now).0, Joined::New));
    }

    #[test]
    fn waiters_expire_and_their_rooms_go_unless_kept() {
        for keep in [false, true] {
            let (mut rooms, room, now) = (Rooms::default(), RoomId::new("r"), Instant::now());
            let until = now + Duration::from_secs(1);
            let _told = join(&mut rooms, &room, until);
            assert!(rooms.take_expired(now, false, keep).is_empty());
            assert_eq!(rooms.take_expired(until, false, keep).len(), 1);
            assert_eq!(rooms.take_left(until).len(), usize::from(!keep));
            assert_eq!(rooms.get_mut("r").is_some(), keep);
        }
    }

    /// The room of a lane that lost its slot.
    fn handed_over(room: &RoomId, wanted: bool) -> Room {
        let mut rooms = Rooms::default();
        let _told = join(&mut rooms, room, Instant::now());
        let entry = rooms.get_mut("r").unwrap();
        entry.waiter = None;
        entry.wanted = wanted;
        entry.place.compare(Position { epoch: 1, offset: 3 });
        rooms.remove(room).unwrap()
    }

    #[test]
    fn what_was_joined_meanwhile_outlives_what_is_handed_over() {
        let (mut rooms, room, now) = (Rooms::default(), RoomId::new("r"), Instant::now());
        let later = now + Duration::from_secs(10);
        let _told = join(&mut rooms, &room, later);
        let entry = rooms.get_mut("r").unwrap();
        entry.confirmed = true;
        entry.place.compare(Position { epoch: 1, offset: 5 });
        let mut lingering = handed_over(&room, false);
        lingering.leaves_at = Some(now);
        assert!(!rooms.adopt(lingering, now), "it is subscribed already");
        assert!(rooms.take_left(later).is_empty());
        let entry = rooms.get_mut("r").unwrap();
        assert!(entry.wanted && entry.confirmed && entry.waiter.is_some());
        assert_eq!(entry.place.get(), Some(Position { epoch: 1, offset: 5 }));
    }

    #[test]
    fn a_room_left_before_it_is_handed_over_stays_left() {
        let (mut rooms, room, now) = (Rooms::default(), RoomId::new("r"), Instant::now());
        let later = now + Duration::from_secs(10);
        rooms.leave(&room, now, Some(later));
        assert!(rooms.adopt(handed_over(&room, true), later));
        assert!(!rooms.get_mut("r").unwrap().wanted);
        assert_eq!(rooms.take_left(later).len(), 1);
        rooms.leave(&room, now, Some(later));
        let _told = join(&mut rooms, &room, later);
        rooms.remove(&room);
        assert!(rooms.adopt(handed_over(&room, true), later));
        assert!(rooms.get_mut("r").unwrap().wanted, "it was joined again");
    }
}
