//! Who is where in the cluster, as far as this node knows: its own clients, and a replica of every other node's.
//!
//! Two indexes over the same entries. By node, in the order of room and client: what snapshots are made of and compared
//! with, and what goes when the node goes. By room, with the users counted: what is asked for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use manifold_strategies::RoomId;

use super::who::Who;

/// One life of one node: random, so that a node that restarts is another one.
pub(super) type NodeId = u64;

/// An entry's place among those of its node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) room: RoomId,
    pub(super) client: u128,
}

/// An entry's place among those of its room.
pub(super) type Place = (u128, NodeId);

/// An entry that came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) room: RoomId,
    pub(super) who: Arc<Who>,
    pub(super) joined: bool,
}

/// Changes kept for whoever shows them to clients, at most.
const CHANGES_MAX: usize = 256 * 1024;

/// All entries.
#[derive(Debug, Default)]
pub(super) struct Table {
    nodes: HashMap<NodeId, BTreeMap<Key, Arc<Who>>>,
    rooms: HashMap<RoomId, Attendance>,
    entries: usize,
    changes: Vec<Change>,
    changes_lost: u64,
}

/// The entries of one room.
#[derive(Debug, Default)]
struct Attendance {
    present: BTreeMap<Place, Arc<Who>>,
    /// How often each user is there.
    users: HashMap<Box<str>, u32>,
}

impl Table {
    /// Adds an entry. False: it was there, with the same infos.
    pub(super) fn put(&mut self, node: NodeId, room: &RoomId, who: Arc<Who>) -> bool {
        let key = Key { room: self.shared_name(room), client: who.client };
        let held = self.nodes.get(&node).and_then(|entries| entries.get(&key));
        if let Some(same) = held.map(|held| **held == *who) {
            if same {
                return false;
            }
            // The same client left and came back while this node was not told.
            self.remove(node, &key);
        }
        let attendance = self.rooms.entry(key.room.clone()).or_default();
        attendance.present.insert((key.client, node), Arc::clone(&who));
        *attendance.users.entry(who.user.clone()).or_default() += 1;
        self.entries += 1;
        self.note(Change { room: key.room.clone(), who: Arc::clone(&who), joined: true });
        self.nodes.entry(node).or_default().insert(key, who);
        true
    }

    /// Takes an entry out. False: there was none.
    pub(super) fn remove(&mut self, node: NodeId, key: &Key) -> bool {
        let Some(entries) = self.nodes.get_mut(&node) else { return false };
        let Some(who) = entries.remove(key) else { return false };
        if entries.is_empty() {
            self.nodes.remove(&node);
        }
        self.entries -= 1;
        if let Some(attendance) = self.rooms.get_mut(key.room.as_str()) {
            attendance.present.remove(&(key.client, node));
            if let Some(count) = attendance.users.get_mut(&who.user) {
                *count -= 1;
                if *count == 0 {
                    attendance.users.remove(&who.user);
                }
            }
            if attendance.present.is_empty() {
                self.rooms.remove(key.room.as_str());
            }
        }
        self.note(Change { room: key.room.clone(), who, joined: false });
        true
    }

    /// Makes `entries` all that `node` has after the key `after` (exclusive) and up to the last of them, or to the end of all
    /// if `last`. They are in ascending order, and behind `after`.
    pub(super) fn replace(
        &mut self,
        node: NodeId,
        after: Option<Key>,
        entries: Vec<(RoomId, Arc<Who>)>,
        last: bool,
    ) {
        let wanted: HashSet<Key> = entries.iter().map(|(room, who)| key_of(room, who)).collect();
        let to = match entries.last() {
            _ if last => Bound::Unbounded,
            Some((room, who)) => Bound::Included(key_of(room, who)),
            None => return,
        };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let gone: Vec<Key> = match self.nodes.get(&node) {
            Some(held) => {
                let held = held.range::<Key, _>((from, to)).map(|(key, _)| key);
                held.filter(|key| !wanted.contains(*key)).cloned().collect()
            }
            None => Vec::new(),
        };
        for key in gone {
            self.remove(node, &key);
        }
        for (room, who) in entries {
            self.put(node, &room, who);
        }
    }

    /// Takes out up to `count` entries of a node that is gone. True: there are more.
    pub(super) fn shrink(&mut self, node: NodeId, count: usize) -> bool {
        let Some(entries) = self.nodes.get(&node) else { return false };
        let keys: Vec<Key> = entries.keys().take(count).cloned().collect();
        for key in &keys {
            self.remove(node, key);
        }
        self.nodes.contains_key(&node)
    }

    /// Entries of `node`.
    pub(super) fn count(&self, node: NodeId) -> usize {
        self.nodes.get(&node).map_or(0, BTreeMap::len)
    }

    /// All entries.
    pub(super) fn len(&self) -> usize {
        self.entries
    }

    /// A node's entries behind `after`, in ascending order.
    pub(super) fn entries_after(
        &self,
        node: NodeId,
        after: Option<Key>,
    ) -> impl Iterator<Item = (&Key, &Arc<Who>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = self.nodes.get(&node).into_iter();
        entries.flat_map(move |entries| entries.range::<Key, _>((from.clone(), Bound::Unbounded)))
    }

    /// Clients and users in a room.
    pub(super) fn stats(&self, room: &str) -> (usize, usize) {
        self.rooms.get(room).map_or((0, 0), |attendance| (attendance.present.len(), attendance.users.len()))
    }

    /// Up to `count` entries of a room behind `after`.
    pub(super) fn present(&self, room: &str, after: Option<Place>, count: usize) -> Vec<(Place, Arc<Who>)> {
        let Some(attendance) = self.rooms.get(room) else { return Vec::new() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let present = attendance.present.range::<Place, _>((from, Bound::Unbounded)).take(count);
        present.map(|(place, who)| (*place, Arc::clone(who))).collect()
    }

    /// What came and went since the last call, in order, and how many changes were too many to be kept.
    pub(super) fn take_changes(&mut self) -> (Vec<Change>, u64) {
        (std::mem::take(&mut self.changes), std::mem::take(&mut self.changes_lost))
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    fn note(&mut self, change: Change) {
        if self.changes.len() < CHANGES_MAX {
            self.changes.push(change);
        } else {
            self.changes_lost += 1;
        }
    }

    /// The room's name as it is held already, so that it is in memory once.
    fn shared_name(&self, room: &RoomId) -> RoomId {
        self.rooms.get_key_value(room.as_str()).map_or(room, |(held, _)| held).clone()
    }
}

fn key_of(room: &RoomId, who: &Who) -> Key {
    Key { room: room.clone(), client: who.client }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(client: u128, user: &str) -> Arc<Who> {
        Arc::new(Who { client, user: user.into(), ..Who::default() })
    }

    fn room(name: &str) -> RoomId {
        RoomId::new(name)
    }

    fn clients(table: &Table, room: &str) -> Vec<u128> {
        table.present(room, None, usize::MAX).iter().map(|((client, _), _)| *client).collect()
    }

    #[test]
    fn users_are_counted_once() {
        let mut table = Table::default();
        for (client, user) in [(1, "ann"), (2, "ann"), (3, ""), (4, "")] {
            assert!(table.put(7, &room("a"), who(client, user)));
            assert!(!table.put(7, &room("a"), who(client, user)), "it is there");
        }
        assert_eq!((table.stats("a"), table.stats("b")), ((4, 2), (0, 0)));
        assert!(table.remove(7, &Key { room: room("a"), client: 1 }));
        assert!(!table.remove(7, &Key { room: room("a"), client: 1 }));
        assert_eq!(table.stats("a"), (3, 2));
        table.remove(7, &Key { room: room("a"), client: 2 });
        assert_eq!(table.stats("a"), (2, 1));
        assert_eq!((table.len(), table.count(7)), (2, 2));
    }

    #[test]
    fn other_infos_are_another_stay() {
        let mut table = Table::default();
        table.put(7, &room("a"), who(1, "ann"));
        table.take_changes();
        assert!(table.put(7, &room("a"), who(1, "bob")));
        let (changes, lost) = table.take_changes();
        let seen: Vec<_> = changes.iter().map(|change| (&*change.who.user, change.joined)).collect();
        assert_eq!((seen, lost), (vec![("ann", false), ("bob", true)], 0));
        assert_eq!(table.stats("a"), (1, 1));
    }

    #[test]
    fn a_range_is_replaced_and_the_rest_stays() {
        let mut table = Table::default();
        for client in 1..=6 {
            table.put(7, &room("b"), who(client, ""));
        }
        table.put(7, &room("a"), who(1, ""));
        table.put(8, &room("b"), who(9, ""));
        table.take_changes();
        let after = Key { room: room("b"), client: 1 };
        table.replace(7, Some(after), vec![(room("b"), who(3, "")), (room("b"), who(4, ""))], false);
        assert_eq!(clients(&table, "b"), [1, 3, 4, 5, 6, 9]);
        let (changes, _) = table.take_changes();
        assert_eq!(changes, [Change { room: room("b"), who: who(2, ""), joined: false }]);
        table.replace(7, None, vec![(room("b"), who(4, ""))], true);
        assert_eq!((clients(&table, "a"), clients(&table, "b")), (vec![], vec![4, 9]));
        table.replace(7, None, Vec::new(), true);
        assert_eq!(clients(&table, "b"), [9]);
        assert_eq!((table.count(7), table.len()), (0, 1));
    }

    #[test]
    fn a_node_goes_in_steps() {
        let mut table = Table::default();
        for client in 0..10 {
            table.put(7, &room("a"), who(client, ""));
        }
        assert!(table.shrink(7, 4) && table.shrink(7, 4) && !table.shrink(7, 4) && !table.shrink(7, 4));
        assert_eq!((table.len(), table.stats("a")), (0, (0, 0)));
    }

    #[test]
    fn a_room_is_read_page_by_page() {
        let mut table = Table::default();
        for client in 0..10 {
            table.put(u64::try_from(client % 3).unwrap(), &room("a"), who(client, ""));
        }
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = table.present("a", after, 4);
            let Some((place, _)) = page.last() else { break };
            after = Some(*place);
            read.extend(page.iter().map(|((client, _), _)| *client));
        }
        assert_eq!(read, (0..10).collect::<Vec<_>>());
    }
}
