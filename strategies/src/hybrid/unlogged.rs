//! What a room was shown live before the log had it. Until its record is read nobody knows whether the log takes it at all: if it
//! does not, its publisher is told, but members have seen it, and no record will tell of it. Pure.

use crate::backplane::MessageId;
use crate::hash::HashMap;

/// Most of one room. A room in which more goes on until the log has it is not answered from the log.
const ROOM_MAX: usize = 8_192;

/// A line of the room by its generation, and an offset in it.
type Place = (u32, u64);

/// The messages of a room that were delivered live and whose records were not read yet.
#[derive(Debug, Default)]
pub(super) struct Unlogged {
    shown: HashMap<MessageId, Place>,
    /// Up to there some are not remembered.
    forgotten: Option<Place>,
}

impl Unlogged {
    /// How many are remembered.
    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    /// A message was delivered live, and its record was not read.
    pub(super) fn show(&mut self, id: MessageId, place: Place) {
        self.shown.insert(id, place);
        if self.shown.len() > ROOM_MAX {
            self.forget();
        }
    }

    /// The record of a message was read.
    pub(super) fn log(&mut self, id: MessageId) {
        self.shown.remove(&id);
    }

    /// Remembers only that there were some.
    pub(super) fn forget(&mut self) {
        self.forgotten = self.forgotten.max(self.shown.values().max().copied());
        self.shown = HashMap::default();
    }

    /// Those behind a place, or all where it is not known; `None` if not all of them are remembered.
    pub(super) fn behind(&self, since: Option<Place>) -> Option<Vec<MessageId>> {
        if self.forgotten.is_some_and(|forgotten| since.is_none_or(|since| since < forgotten)) {
            return None;
        }
        let behind = |place: &Place| since.is_none_or(|since| since < *place);
        Some(self.shown.iter().filter(|(_, place)| behind(place)).map(|(id, _)| *id).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_record_was_read_of_is_told_by_its_place() {
        let mut unlogged = Unlogged::default();
        for (id, place) in [(1, (1, 1)), (2, (1, 2)), (3, (2, 1))] {
            unlogged.show(MessageId(id), place);
        }
        unlogged.log(MessageId(3));
        unlogged.log(MessageId(9));
        assert_eq!(unlogged.behind(Some((1, 1))), Some(vec![MessageId(2)]));
        assert_eq!(unlogged.behind(Some((1, 2))), Some(Vec::new()));
        assert_eq!(unlogged.behind(None).map(|ids| ids.len()), Some(2));
    }

    #[test]
    fn what_is_forgotten_is_not_denied() {
        let mut unlogged = Unlogged::default();
        for offset in 0..=ROOM_MAX as u64 {
            unlogged.show(MessageId(offset.into()), (1, offset));
        }
        assert_eq!(unlogged.len(), 0);
        unlogged.show(MessageId(7), (2, 1));
        assert_eq!(unlogged.behind(Some((1, 9))), None);
        assert_eq!(unlogged.behind(None), None);
        assert_eq!(unlogged.behind(Some((1, ROOM_MAX as u64))), Some(vec![MessageId(7)]));
    }
}
