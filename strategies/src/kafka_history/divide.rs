//! Which of a room's messages a read of the log keeps: by their number, or by which side of a position they lie on.

use super::log::Located;
use crate::backplane::Position;

/// Which messages to keep of those that are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// So many at most; reading ends at the next one.
    First(usize),
    /// The last so many.
    Last(usize),
    /// Those behind the one that has this position from its publisher; so many at most, as with `First`.
    #[cfg_attr(not(feature = "hybrid"), allow(dead_code))]
    Behind(Position, usize),
    /// The last so many of those before it.
    #[cfg_attr(not(feature = "hybrid"), allow(dead_code))]
    Before(Position, usize),
}

impl Keep {
    /// The position that divides what is kept from what is not.
    pub(super) fn place(self) -> Option<Position> {
        match self {
            Self::First(_) | Self::Last(_) => None,
            Self::Behind(place, _) | Self::Before(place, _) => Some(place),
        }
    }

    pub(super) fn is_last(self) -> bool {
        matches!(self, Self::Last(_) | Self::Before(..))
    }

    pub(super) fn most(self) -> usize {
        match self {
            Self::First(most) | Self::Last(most) | Self::Behind(_, most) | Self::Before(_, most) => most,
        }
    }
}

/// What was seen on both sides of a position.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Divide {
    /// When the record that has the position was appended.
    pub(crate) anchor_ms: Option<i64>,
    /// A later position of the same epoch was read.
    pub(super) passed: bool,
    /// When the last record without a position was appended before any record with a later position.
    #[cfg_attr(not(feature = "hybrid"), allow(dead_code))]
    pub(crate) unsure_ms: Option<i64>,
    /// When the last record of another epoch was appended before the position was read.
    #[cfg_attr(not(feature = "hybrid"), allow(dead_code))]
    pub(crate) other_ms: Option<i64>,
}

impl Divide {
    /// Whether a message lies on the side of `place` that is kept.
    pub(super) fn keeps(&mut self, keep: Keep, place: Position, message: &Located) -> bool {
        let behind = matches!(keep, Keep::Behind(..));
        match message.position {
            Some(at) if at.epoch == place.epoch => {
                self.passed |= at.offset > place.offset;
                if behind { at.offset > place.offset } else { at.offset < place.offset }
            }
            Some(_) if self.anchor_ms.is_none() && !self.passed => {
                self.other_ms = self.other_ms.max(Some(message.appended_ms));
                !behind
            }
            None if !self.passed => {
                self.unsure_ms = self.unsure_ms.max(Some(message.appended_ms));
                self.anchor_ms.is_some() == behind
            }
            _ => behind,
        }
    }
}
