//! `join` and `leave` pushes: what came and went, made into frames for those who want to see it.
//!
//! Changes of one turn leave together, a frame per room. Where there are more than a frame takes (a node with a giant room
//! crashed), the rest waits for the next turn, so that this alone makes nobody slow.

use std::collections::{HashMap, VecDeque};

use manifold_protocol::{Push, PushBody, json};
use manifold_strategies::RoomId;

use super::table::Change;
use crate::frame;

/// Bytes of one room's frame after which no change is added. A fraction of the smallest outbox.
const FRAME_BYTES: usize = 32 * 1024;
/// Changes that wait to be shown at most.
const WAITING_MAX: usize = 64 * 1024;

/// What is still to be shown, by room.
#[derive(Debug, Default)]
pub(super) struct Pushes {
    rooms: HashMap<RoomId, VecDeque<Change>>,
    waiting: usize,
}

impl Pushes {
    /// Takes changes of the rooms that somebody `watches`. Says how many were too many.
    pub(super) fn add(&mut self, changes: Vec<Change>, mut watches: impl FnMut(&RoomId) -> bool) -> u64 {
        let mut lost = 0;
        let mut watched: HashMap<RoomId, bool> = HashMap::new();
        for change in changes {
            let wanted = match watched.get(&change.room) {
                Some(wanted) => *wanted,
                None => *watched.entry(change.room.clone()).or_insert_with_key(&mut watches),
            };
            if !wanted {
                continue;
            }
            if self.waiting >= WAITING_MAX {
                lost += 1;
                continue;
            }
            self.waiting += 1;
            self.rooms.entry(change.room.clone()).or_default().push_back(change);
        }
        lost
    }

    /// The next frame of every room that has something to show.
    pub(super) fn next_frames(&mut self) -> Vec<(RoomId, Vec<u8>)> {
        let mut frames = Vec::with_capacity(self.rooms.len());
        let waiting = &mut self.waiting;
        self.rooms.retain(|room, changes| {
            let frame = frame::text(|out| {
                let start = out.len();
                while out.len() < FRAME_BYTES
                    && let Some(change) = changes.pop_front()
                {
                    *waiting -= 1;
                    if out.len() > start {
                        out.push(b'\n');
                    }
                    append(out, &change);
                }
            });
            frames.push((room.clone(), frame));
            !changes.is_empty()
        });
        frames
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }
}

fn append(out: &mut Vec<u8>, change: &Change) {
    let id = change.who.client_id();
    let info = change.who.info(&id);
    let body = if change.joined { PushBody::Join(info) } else { PushBody::Leave(info) };
    json::append_push(out, &Push { id: 0, channel: change.room.as_str().into(), body });
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::presence::who::Who;

    fn change(room: &str, client: u128, joined: bool) -> Change {
        Change { room: RoomId::new(room), who: Arc::new(Who { client, ..Who::default() }), joined }
    }

    /// The objects in a frame of up to 64 KiB.
    fn lines(frame: &[u8]) -> Vec<String> {
        let header = if frame[1] < 126 { 2 } else { 4 };
        std::str::from_utf8(&frame[header..]).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn changes_of_a_room_share_a_frame_in_order() {
        let mut pushes = Pushes::default();
        let changes =
            vec![change("a", 1, true), change("b", 2, true), change("a", 1, false), change("c", 3, true)];
        assert_eq!(pushes.add(changes, |room| room.as_str() != "c"), 0);
        let mut frames = pushes.next_frames();
        frames.sort();
        assert_eq!(frames.len(), 2);
        let first = lines(&frames[0].1);
        let id = Who { client: 1, ..Who::default() }.client_id();
        let info = format!("{{\"info\":{{\"user\":\"\",\"client\":\"{id}\"}}}}");
        assert_eq!(first[0], format!("{{\"push\":{{\"channel\":\"a\",\"join\":{info}}}}}"));
        assert_eq!(first[1], format!("{{\"push\":{{\"channel\":\"a\",\"leave\":{info}}}}}"));
        assert_eq!((first.len(), lines(&frames[1].1).len()), (2, 1));
        assert!(pushes.is_empty() && pushes.waiting == 0);
    }

    #[test]
    fn what_is_too_much_for_a_frame_waits_and_what_is_too_much_for_memory_is_counted() {
        let mut pushes = Pushes::default();
        let many = (0..WAITING_MAX as u128 + 5).map(|client| change("a", client, false)).collect();
        assert_eq!(pushes.add(many, |_| true), 5);
        let mut shown = 0;
        while !pushes.is_empty() {
            let frames = pushes.next_frames();
            assert!(frames[0].1.len() < FRAME_BYTES + 1024);
            shown += lines(&frames[0].1).len();
        }
        assert_eq!((shown, pushes.waiting), (WAITING_MAX, 0));
    }
}
