//! The members of a room: slots that keep their index, so that leaving costs the same in a room of three and in one
//! of a hundred thousand, and a turn through a giant room can be interrupted.

use std::ops::Range;
use std::sync::Arc;

use crate::presence::Stay;
use crate::session::Session;

/// One subscription of one session.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) session: Arc<Session>,
    /// Serial number of the room's last message that is not for this member, as it came later, or had that message by
    /// history: later ones are for it.
    pub(super) joined_serial: u64,
    /// It wants to be told of losses.
    pub(super) positioned: bool,
    /// It comes back with a position when it is told, and gets by history what it missed.
    pub(super) recoverable: bool,
    /// Its position is of a numbering that has ended: it gets no offsets.
    pub(super) void: bool,
    /// It wishes to see who comes and goes.
    pub(super) join_leave: bool,
    /// Its presence in the room, which ends with the membership.
    pub(super) _stay: Option<Box<Stay>>,
}

/// Slots of members, some of them free.
#[derive(Debug, Default)]
pub(super) struct Members {
    slots: Vec<Option<Member>>,
    free: Vec<u32>,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every slot's index lies below this.
    pub(super) fn end(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Member> {
        self.slots.iter().flatten()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Member> {
        self.slots.iter_mut().flatten()
    }

    /// The members in a range of slots, clipped to what there is, with their slots.
    pub(super) fn slice(&self, slots: Range<usize>) -> impl Iterator<Item = (u32, &Member)> {
        let end = slots.end.min(self.slots.len());
        let start = slots.start.min(end);
        let first = u32::try_from(start).expect("fewer sessions than 2^32");
        let members = (first..).zip(&self.slots[start..end]);
        members.filter_map(|(slot, member)| member.as_ref().map(|member| (slot, member)))
    }

    /// Adds a member and names its slot.
    pub(super) fn insert(&mut self, member: Member) -> u32 {
        if let Some(slot) = self.free.pop() {
            self.slots[slot as usize] = Some(member);
            return slot;
        }
        self.slots.push(Some(member));
        u32::try_from(self.slots.len() - 1).expect("fewer sessions than 2^32")
    }

    /// Whether `slot` holds `session`.
    pub(super) fn holds(&self, slot: u32, session: &Arc<Session>) -> bool {
        matches!(self.slots.get(slot as usize), Some(Some(member)) if Arc::ptr_eq(&member.session, session))
    }

    /// The member in `slot`.
    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut Member> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// Takes `session` out of `slot`. False: somebody else, or nobody, is there.
    pub(super) fn remove(&mut self, slot: u32, session: &Arc<Session>) -> bool {
        if !self.holds(slot, session) {
            return false;
        }
        self.vacate(slot);
        true
    }

    /// Takes out all members that `unwanted` picks and hands each to `taken`.
    pub(super) fn extract(&mut self, unwanted: impl Fn(&Member) -> bool, mut taken: impl FnMut(Member)) {
        for index in 0..self.slots.len() {
            if self.slots.get(index).and_then(Option::as_ref).is_some_and(&unwanted) {
                let slot = u32::try_from(index).expect("fewer sessions than 2^32");
                taken(self.vacate(slot).expect("the slot was just seen to be taken"));
            }
        }
    }

    fn vacate(&mut self, slot: u32) -> Option<Member> {
        let member = self.slots[slot as usize].take();
        self.free.push(slot);
        if self.is_empty() {
            *self = Self::default();
        }
        member
    }
}
