//! The rooms that have members on this node.

use std::collections::HashSet;

use parking_lot::{RwLock, RwLockReadGuard};

use crate::backplane::RoomId;

/// A set that is read per record and changed per join.
#[derive(Debug, Default)]
pub(super) struct Rooms(RwLock<HashSet<RoomId>>);

impl Rooms {
    pub(super) fn add(&self, room: RoomId) {
        self.0.write().insert(room);
    }

    pub(super) fn remove(&self, room: &RoomId) {
        self.0.write().remove(room);
    }

    /// The set as it is now. Hold it for one record only.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, HashSet<RoomId>> {
        self.0.read()
    }
}
