//! A room's history in Kafka's log: shared by the strategies whose rooms lie in partitions that carry other rooms too.
//!
//! - [`log`]: reads the messages of rooms out of a slice of a partition; those who want the same partition share a scan.
//! - [`divide`]: which of them are kept.
//! - [`page`]: pages of history out of it.
//! - `questions`: where partitions begin and end, asked once for all who want to know it.
//! - [`numbering`]: the upper bits of epochs, by the incarnation of the topic.
//!
//! What does not live here: which partition to read and from where, and what that means for a client's position.

pub(crate) mod divide;
pub(crate) mod log;
pub(crate) mod page;
mod questions;

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::ring::Limits;

/// What a node keeps in memory by these settings; `None` where that is nothing.
pub(crate) fn ring_limits(messages: usize, minutes: u32) -> Option<Limits> {
    (messages > 0).then(|| Limits::new(messages, Duration::from_secs(u64::from(minutes) * 60)))
}

/// The upper 48 bits of epochs of a topic; the lowest 16, for the partition, are 0. The same on every node for a topic with
/// this mark. Without a mark a value that nobody else has: positions then mean something to this node alone.
///
/// # Errors
/// When a value of this node's own is needed and the system has no random numbers.
pub(crate) fn numbering(topic: &str, mark: Option<u64>) -> Result<u64> {
    match mark {
        Some(mark) => Ok(spread(mark ^ spread_text(topic)) & !0xffff),
        None => private_numbering(),
    }
}

/// A numbering that nobody else has.
///
/// # Errors
/// When the system has no random numbers.
pub(crate) fn private_numbering() -> Result<u64> {
    let random = getrandom::u64().map_err(|source| {
        Error::new(ErrorKind::Config, "number messages", "the system has no random numbers")
            .with_source(source)
    })?;
    Ok(spread(random) & !0xffff)
}

/// A bijection in which every bit of the value changes every bit of the result (the finalizer of SplitMix64).
pub(crate) fn spread(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn spread_text(text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| spread(hash ^ u64::from(byte).wrapping_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_numbering_is_the_same_for_all_or_for_nobody_else() {
        assert_eq!(numbering("a", Some(1)).unwrap(), numbering("a", Some(1)).unwrap());
        assert_ne!(numbering("a", Some(1)).unwrap(), numbering("a", Some(2)).unwrap());
        assert_ne!(numbering("a", Some(1)).unwrap(), numbering("b", Some(1)).unwrap());
        assert_ne!(numbering("a", None).unwrap(), numbering("a", None).unwrap());
        assert_eq!(numbering("a", None).unwrap() & 0xffff, 0);
    }
}
