//! Which partition a room lies in: a pure function of the room's name and the settings, the same on every node and
//! after every restart.
//!
//! The hash is Kafka's own (`murmur2`, seed 0x9747b28c, sign bit cleared, modulo), so a producer in any language
//! that keys records by room with its default partitioner over the same range agrees with it. Rooms of the override
//! table get a partition of their own beyond the hashed range, where no other room can land.

use std::collections::BTreeMap;
use std::sync::Arc;

use rdkafka::producer::Partitioner;

/// The hook for librdkafka, and the same function for everybody else. Stateless after construction and cheap to
/// clone; librdkafka calls it from whichever thread sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPartitioner {
    hashed: u32,
    overrides: Arc<BTreeMap<String, u32>>,
}

impl RoomPartitioner {
    /// Hashes rooms over partitions `0..hashed` (at least 1); a room in `overrides` lies in partition
    /// `hashed + its number`.
    pub fn new(hashed: u32, overrides: BTreeMap<String, u32>) -> Self {
        Self { hashed: hashed.max(1), overrides: Arc::new(overrides) }
    }

    /// The partition of a room, by its name in bytes.
    pub fn partition_of(&self, room: &[u8]) -> i32 {
        let dedicated = if self.overrides.is_empty() {
            None
        } else {
            std::str::from_utf8(room).ok().and_then(|room| self.overrides.get(room))
        };
        let partition = match dedicated {
            Some(number) => self.hashed + number,
            None => (murmur2(room) & 0x7fff_ffff) % self.hashed,
        };
        // Settings keep partitions far below the sign bit.
        partition as i32
    }
}

impl Partitioner for RoomPartitioner {
    fn partition(
        &self,
        _topic: &str,
        key: Option<&[u8]>,
        _partitions: i32,
        _is_available: impl Fn(i32) -> bool,
    ) -> i32 {
        // Availability is ignored on purpose: a room that moves to a partition that happens to be up loses its
        // order and its readers. The number of partitions is ignored too: it is agreed on when a node connects.
        self.partition_of(key.unwrap_or_default())
    }
}

/// Kafka's murmur2 (32 bit), as in its Java client.
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (place, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * place);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The vectors of Kafka's own test of its murmur2.
    #[test]
    fn murmur2_agrees_with_kafka() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, expected) in vectors {
            assert_eq!(murmur2(text.as_bytes()) as i32, expected, "{text}");
        }
    }

    /// A room must never move: these values are frozen.
    #[test]
    fn rooms_stay_where_they_are() {
        let partitioner = RoomPartitioner::new(64, BTreeMap::new());
        let golden = [("general", 23), ("random", 61), ("방-1", 44), ("a", 60), ("whiteboard:42", 47)];
        let found = golden.map(|(room, _)| (room, partitioner.partition_of(room.as_bytes())));
        assert_eq!(found, golden);
    }

    #[test]
    fn overrides_lie_beyond_the_hashed_range() {
        let overrides = BTreeMap::from([("hot".to_owned(), 0), ("hotter".to_owned(), 2)]);
        let partitioner = RoomPartitioner::new(8, overrides);
        assert_eq!(partitioner.partition_of(b"hot"), 8);
        assert_eq!(partitioner.partition_of(b"hotter"), 10);
        assert!(partitioner.partition_of(b"cold") < 8);
    }

    #[test]
    fn rooms_spread_evenly() {
        let partitioner = RoomPartitioner::new(64, BTreeMap::new());
        let mut rooms = [0_u32; 64];
        for number in 0..64_000 {
            rooms[partitioner.partition_of(format!("room:{number}").as_bytes()) as usize] += 1;
        }
        let (least, most) = (rooms.iter().min().unwrap(), rooms.iter().max().unwrap());
        assert!(*least > 850 && *most < 1_150, "1,000 expected in each, found {least} to {most}");
    }

    proptest! {
        #[test]
        fn the_hook_is_the_function(room in proptest::collection::vec(any::<u8>(), 0..300), hashed in 1u32..2000) {
            let partitioner = RoomPartitioner::new(hashed, BTreeMap::new());
            let direct = partitioner.partition_of(&room);
            prop_assert!((0..hashed as i32).contains(&direct));
            // Neither the topic, nor its size, nor what is available changes the answer.
            for (topic, count, up) in [("a", hashed as i32, true), ("b", 1, false)] {
                prop_assert_eq!(partitioner.partition(topic, Some(&room), count, |_| up), direct);
            }
            prop_assert_eq!(partitioner.clone().partition_of(&room), direct);
        }

        #[test]
        fn only_overridden_rooms_are_dedicated(rooms in proptest::collection::btree_set("[a-z]{1,8}", 1..20), other in "[A-Z]{1,8}") {
            let table: BTreeMap<String, u32> = rooms.iter().cloned().zip(0..).collect();
            let partitioner = RoomPartitioner::new(16, table.clone());
            for (room, number) in &table {
                prop_assert_eq!(partitioner.partition_of(room.as_bytes()), 16 + *number as i32);
            }
            prop_assert!(partitioner.partition_of(other.as_bytes()) < 16);
        }
    }
}
