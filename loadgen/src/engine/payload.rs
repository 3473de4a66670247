//! The stamp that every payload starts with: who sent which message, and when it was meant to leave.
//!
//! A payload is a JSON string of fixed layout, written and read without a JSON library: a mark, 37 characters of
//! 6 bits each, a checksum, then padding to the size that the scenario wants.

use crate::schedule::mix;

/// Bytes of the shortest payload: quotes, mark, fields, checksum.
pub const PAYLOAD_BYTES_MIN: usize = 2 + STAMP_BYTES;

/// Mark, fields, checksum.
const STAMP_BYTES: usize = MARK.len() + FIELDS_BYTES + 2;
const MARK: &[u8] = b"mf1";
const FIELDS_BYTES: usize = 6 + 4 + 4 + 6 + 8 + 5;
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
/// Marks a byte that is no digit: above all values that two digits together may have.
const NO_DIGIT: u8 = 0x80;
const VALUES: [u8; 256] = values();
/// Longest send lag that a stamp can carry, microseconds (about 18 minutes).
const LAG_US_MAX: u64 = (1 << 30) - 1;

const fn values() -> [u8; 256] {
    let mut values = [NO_DIGIT; 256];
    let mut index = 0;
    while index < 64 {
        values[DIGITS[index] as usize] = index as u8;
        index += 1;
    }
    values
}

/// What a payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Tag of the run: tells payloads of a neighbouring or an earlier run apart.
    pub run: u32,
    /// Room index, below 2^24.
    pub room: u32,
    /// Sender index within the room, below 2^24.
    pub sender: u32,
    /// Sequence of that sender in that room, from 0.
    pub sequence: u32,
    /// When it was meant to be sent, microseconds of the run's clock, below 2^48.
    pub intended_us: u64,
    /// How much later it was written.
    pub lag_us: u64,
}

impl Stamp {
    /// Appends a payload of `bytes` (at least [`PAYLOAD_BYTES_MIN`]) to `out`: a JSON string.
    #[inline]
    pub fn append(&self, bytes: usize, out: &mut Vec<u8>) {
        let mut text = [0_u8; STAMP_BYTES];
        text[..MARK.len()].copy_from_slice(MARK);
        let mut at = MARK.len();
        for (value, digits) in self.fields() {
            for place in (0..digits).rev() {
                text[at] = DIGITS[(value >> (6 * place)) as usize & 63];
                at += 1;
            }
        }
        let check = self.check();
        text[at] = DIGITS[check as usize >> 6 & 63];
        text[at + 1] = DIGITS[check as usize & 63];
        out.push(b'"');
        out.extend_from_slice(&text);
        out.resize(out.len() + bytes.saturating_sub(PAYLOAD_BYTES_MIN), b'.');
        out.push(b'"');
    }

    const fn fields(&self) -> [(u64, u32); 6] {
        let lag_us = if self.lag_us > LAG_US_MAX { LAG_US_MAX } else { self.lag_us };
        [
            (self.run as u64, 6),
            (self.room as u64, 4),
            (self.sender as u64, 4),
            (self.sequence as u64, 6),
            (self.intended_us, 8),
            (lag_us, 5),
        ]
    }

    #[inline]
    fn check(&self) -> u64 {
        let place = mix(u64::from(self.run) << 32 | u64::from(self.sequence));
        let source = mix(place ^ (u64::from(self.room) << 24 | u64::from(self.sender)));
        mix(source ^ self.intended_us ^ self.lag_us.rotate_right(24)) & 0xFFF
    }

    /// Reads the stamp of a payload given as raw JSON. `None`: not one of ours, or damaged.
    #[inline]
    pub fn read(data: &[u8]) -> Option<Self> {
        let text = data.get(1..1 + STAMP_BYTES)?;
        if data[0] != b'"' || !text.starts_with(MARK) {
            return None;
        }
        let mut seen = 0;
        let mut at = MARK.len();
        let mut number = |digits: usize| {
            let mut value = 0_u64;
            for &byte in &text[at..at + digits] {
                let digit = VALUES[byte as usize];
                seen |= digit;
                value = value << 6 | u64::from(digit);
            }
            at += digits;
            value
        };
        let run = number(6);
        let room = number(4) as u32;
        let sender = number(4) as u32;
        let sequence = number(6);
        let (intended_us, lag_us, check) = (number(8), number(5), number(2));
        let (Ok(run), Ok(sequence)) = (u32::try_from(run), u32::try_from(sequence)) else { return None };
        let stamp = Self { run, room, sender, sequence, intended_us, lag_us };
        (seen & NO_DIGIT == 0 && check == stamp.check()).then_some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn survives_a_round_trip(
            run: u32, room in 0_u32..1 << 24, sender in 0_u32..1 << 24, sequence: u32,
            intended_us in 0_u64..1 << 48, lag_us in 0_u64..1 << 30, padding in 0_usize..300,
        ) {
            let stamp = Stamp { run, room, sender, sequence, intended_us, lag_us };
            let mut payload = Vec::new();
            stamp.append(PAYLOAD_BYTES_MIN + padding, &mut payload);
            prop_assert_eq!(payload.len(), PAYLOAD_BYTES_MIN + padding);
            prop_assert!(serde_json::from_slice::<String>(&payload).is_ok());
            prop_assert_eq!(Stamp::read(&payload), Some(stamp));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes: Vec<u8>) {
            let _ = Stamp::read(&bytes);
        }

        #[test]
        fn damage_is_noticed(at in 4_usize..37, flip in 1_u8..64) {
            let stamp = Stamp { run: 7, room: 1, sender: 2, sequence: 3, intended_us: 4, lag_us: 5 };
            let mut payload = Vec::new();
            stamp.append(100, &mut payload);
            let digit = VALUES[payload[at] as usize] ^ flip;
            payload[at] = DIGITS[digit as usize];
            // 12 bits of checksum: one damage in 4,096 may pass, and none may pass as the same message.
            prop_assert_ne!(Stamp::read(&payload), Some(stamp));
        }
    }
}
