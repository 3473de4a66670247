//! The one entrance: every message reaches local members here, whichever node and thread it comes from.
//!
//! What is delivered is appended to the members' outboxes first; [`cork`](super::cork) says when it is written. The last message
//! of a batch that touched nobody before is written straight to the sockets instead.

use std::sync::Arc;

use manifold_protocol::websocket::{FrameBuilder, Opcode};
use manifold_strategies::{Entrance, Event, Message, Position, RoomId};
use parking_lot::MutexGuard;

use super::cork::Scratch;
use super::members::Member;
use super::room::{Advance, Room, State};
use super::{Hub, Numbering};
use crate::clock::unix_us;

/// A thread's frame builder keeps this much memory between messages.
const FRAME_KEPT_BYTES: usize = 72 * 1024;

impl Entrance for Hub {
    fn deliver(&self, batch: &mut Vec<Event>) {
        Scratch::with(|scratch| {
            scratch.begin_batch();
            let count = batch.len();
            for (index, event) in batch.drain(..).enumerate() {
                let last = index + 1 == count;
                match event {
                    Event::Message(message) => self.deliver_message(scratch, &message, last),
                    Event::Gap { room, from, to } => self.declare_gap(&room, from, to),
                    Event::Skipped { room, position } => self.skip(&room, position),
                    Event::Renumbered { room, epoch } => self.renumber(&room, epoch),
                    Event::Reconnected => tracing::info!("the link to the broker is back"),
                }
            }
            scratch.end_batch();
        });
    }
}

impl Hub {
    fn deliver_message(&self, scratch: &mut Scratch, message: &Message, last: bool) {
        let envelope = &message.envelope;
        let Some(room) = self.find(envelope.room.as_str()) else { return self.take_hidden(message) };
        let Some((mut state, offset)) = self.place(&mut scratch.frame, &room, message) else { return };
        state.serial += 1;
        let members = state.members.len();
        if members == 0 && state.comebacks.is_none() {
            self.tend_if_unwanted(&room, state);
            return;
        }
        let alone = scratch.is_alone(last);
        let (frame, unplaced_frame, mut touched) = scratch.parts();
        let frame = frame_of(frame, &room, message, offset);
        let excluded = state.hold_back(message, frame, self.settings.recovery_hold_bytes_max);
        if members == 0 {
            self.tend_if_unwanted(&room, state);
            return;
        }
        self.metrics.count_deliveries(members - excluded.len());
        let mut unplaced = frame;
        if state.renumbered && offset > 0 {
            unplaced = frame_of(unplaced_frame, &room, message, 0);
            let some_are_void = state.members.iter().any(|member| member.void);
            state.renumbered = some_are_void;
        }
        if state.giant.is_some() || members >= self.settings.giant_members_min {
            if state.renumbered {
                // It has grown since, and a giant room has one frame for all.
                drop(state);
                let _turn = room.turn.lock();
                state = room.lock();
                state.renumbered = false;
                let members = state.dismiss_positioned(&room.id, unplaced);
                self.note_dismissed(&room, members, "the numbering started anew");
            }
            if self.enqueue(&room, state, frame, excluded, envelope.published_at_us) {
                // Helping takes long, and others wait for what this thread keeps back.
                scratch.flush();
                self.help(&room);
            }
            return;
        }
        let frame_for = |member: &Member| if member.void { unplaced } else { frame };
        let serial = state.serial;
        for slot in &excluded {
            if let Some(member) = state.members.get_mut(*slot) {
                member.joined_serial = serial;
            }
        }
        let is_due = |member: &&Member| excluded.is_empty() || member.joined_serial < serial;
        if alone {
            for member in state.members.iter().filter(is_due) {
                member.session.send(frame_for(member));
            }
        } else {
            for member in state.members.iter().filter(is_due) {
                touched.append(&member.session, frame_for(member));
            }
        }
        drop(state);
        self.metrics.observe_delivery(unix_us().saturating_sub(envelope.published_at_us), members);
        scratch.relieve();
    }

    /// Finds a message's place in its room, sends away the members that cannot follow there, and says which offset the others see
    /// (0 for none). `None`: it came before.
    fn place<'r>(
        &self,
        frame: &mut FrameBuilder,
        room: &'r Room,
        message: &Message,
    ) -> Option<(MutexGuard<'r, State>, u64)> {
        let (position, numbering) = (message.position, self.numbering());
        let mut state = room.lock();
        // A message without a position has no place in the order: it comes when it comes.
        if position.offset == 0 || numbering == Numbering::None {
            return Some((state, 0));
        }
        let mut turn = None;
        if state.sends_away(position, numbering) {
            // Members are sent away between two turns: a turn under way may have pushes for them in its hands.
            drop(state);
            turn = Some(room.turn.lock());
            state = room.lock();
        }
        match state.advance(position, numbering) {
            Advance::Next if turn.is_some() => {
                let members = state.dismiss_void(&room.id);
                self.note_dismissed(room, members, "the numbering started anew");
            }
            Advance::Next => {}
            Advance::Jump => {
                // What shows the loss still reaches those who are told of it; its offset would look like the next one.
                let parting = frame_of(frame, room, message, 0);
                self.dismiss(room, &mut state, parting, "a message is missing");
            }
            // It comes late, and has a place no more.
            Advance::Stale if numbering == Numbering::Rising => return Some((state, 0)),
            Advance::Stale => {
                self.metrics.count_error("stale_position");
                return None;
            }
        }
        drop(turn);
        Some((state, position.offset))
    }

    /// Hands a message to the room's own task. True: the queue is full.
    fn enqueue(
        &self,
        room: &Arc<Room>,
        mut state: MutexGuard<'_, State>,
        frame: &[u8],
        excluded: Vec<u32>,
        published_at_us: u64,
    ) -> bool {
        let serial = state.serial;
        let idle = state.giant.is_none();
        let giant = state.giant.get_or_insert_default();
        giant.push(serial, published_at_us, excluded, frame);
        let full = giant.queued_bytes() > self.settings.giant_queue_bytes_max;
        drop(state);
        if idle {
            self.runtime.spawn(Arc::clone(room).take_turns(Arc::clone(&self.metrics)));
        }
        full
    }

    /// Does the work of the room's own task until its queue has space again.
    fn help(&self, room: &Room) {
        self.metrics.count_error("giant_queue_full");
        while room.queued_bytes() > self.settings.giant_queue_bytes_max && room.take_turn(&self.metrics) {
            // As between the turns of the room's own task.
            std::thread::yield_now();
        }
    }

    /// A position was used up without a message of its own.
    fn skip(&self, room: &RoomId, position: Position) {
        let Some(room) = self.find(room.as_str()) else { return };
        let turn = room.turn.lock();
        let mut state = room.lock();
        if state.advance(position, Numbering::Dense) == Advance::Jump {
            self.dismiss(&room, &mut state, &[], "a message is missing");
        }
        drop(turn);
        self.tend_if_unwanted(&room, state);
    }

    /// The room's numbering starts anew, and nothing was lost by that. Who has a position of the old one stays, and gets what
    /// follows without offsets, which it would take for the old numbering's; who can recover, and would then recover what it
    /// has, is sent away by the first message, and gets that one by history. A giant room has one frame for all: there members
    /// with a position subscribe again at once.
    fn renumber(&self, room: &RoomId, epoch: u64) {
        let Some(room) = self.find(room.as_str()) else { return };
        let turn = room.turn.lock();
        let mut state = room.lock();
        state.renumber(epoch);
        if state.giant.is_some() || state.members.len() >= self.settings.giant_members_min {
            state.renumbered = false;
            let members = state.dismiss_positioned(&room.id, &[]);
            self.note_dismissed(&room, members, "the numbering started anew");
        }
        drop(turn);
        self.tend_if_unwanted(&room, state);
    }

    /// The backplane lost messages of a room on their way here.
    fn declare_gap(&self, room: &RoomId, from: u64, to: u64) {
        tracing::warn!(%room, from, to, "messages were lost on the way to this node");
        let Some(room) = self.find(room.as_str()) else { return self.take_hidden_gap(room) };
        let turn = room.turn.lock();
        let mut state = room.lock();
        self.dismiss(&room, &mut state, &[], "a gap was declared");
        if let Some(top) = &mut state.top {
            // What comes next is `to`, and no second reason to send anybody away.
            top.offset = top.offset.max(to.saturating_sub(1));
        }
        drop(turn);
        self.tend_if_unwanted(&room, state);
    }

    /// The room lost messages. The caller holds the room's turn. `parting` are whole frames that go before the goodbye.
    fn dismiss(&self, room: &Room, state: &mut State, parting: &[u8], reason: &'static str) {
        state.note_loss();
        let members = state.dismiss_positioned(&room.id, parting);
        self.note_dismissed(room, members, reason);
    }

    pub(super) fn note_dismissed(&self, room: &Room, members: usize, reason: &'static str) {
        if members > 0 {
            self.metrics.add_insufficient_state(members);
            tracing::debug!(room = %room.id, members, reason, "positioned members must subscribe again");
        }
    }

    pub(super) fn tend_if_unwanted(&self, room: &Arc<Room>, state: MutexGuard<'_, State>) {
        let unwanted = !state.wanted() && !state.driven;
        drop(state);
        if unwanted && let Some(hub) = self.handle.upgrade() {
            // Not here: the caller is the backplane, and a leave would call back into it.
            let room = Arc::clone(room);
            self.runtime.spawn(async move { hub.tend(&room) });
        }
    }
}

/// A message as its room's members get it; without a position if `offset` is 0.
pub(super) fn frame_of<'f>(
    frame: &'f mut FrameBuilder,
    room: &Room,
    message: &Message,
    offset: u64,
) -> &'f [u8] {
    frame.clear_within(FRAME_KEPT_BYTES);
    let envelope = &message.envelope;
    room.prefix.append(frame.payload_mut(), &envelope.payload, &envelope.info, offset, "");
    frame.finish(Opcode::Text)
}

impl Room {
    fn queued_bytes(&self) -> usize {
        self.lock().giant.as_ref().map_or(0, |giant| giant.queued_bytes())
    }
}
