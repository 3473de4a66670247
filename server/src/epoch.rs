//! An epoch as clients see it: its number in base 36, lower case.
//!
//! # Who is handed over to another numbering
//! A client that comes back may get what it missed in a numbering that is not its own. It takes the position in the reply for its
//! own *before* it looks at the messages that the reply holds, so that with the final position there a client that breaks off in
//! between would lose the rest and not know. So the reply says offset 0 of an epoch that is marked, and only its last message has
//! the offset at which the client stands then. Who comes back with offset 0 of such an epoch was interrupted.

/// Ends an epoch in which a client was handed over.
const HANDED_OVER: char = '~';

/// The offset of a last message after which the client stands where nothing has come yet. Beyond every real one, and the largest
/// number that is safe in JavaScript.
pub(crate) const OFFSET_AT_ZERO: u64 = (1 << 53) - 1;

/// Writes an epoch for a client that is handed over to it.
pub(crate) fn encode_handed_over(epoch: u64) -> String {
    let mut text = encode(epoch);
    text.push(HANDED_OVER);
    text
}

/// Reads an epoch, and whether the client was handed over to it. `None`: this server never wrote it.
pub(crate) fn read(text: &str) -> Option<(u64, bool)> {
    let plain = text.strip_suffix(HANDED_OVER);
    decode(plain.unwrap_or(text)).map(|epoch| (epoch, plain.is_some()))
}

/// Writes an epoch.
pub(crate) fn encode(mut epoch: u64) -> String {
    let mut digits = Vec::new();
    loop {
        let digit = u32::try_from(epoch % 36).expect("less than 36");
        digits.push(char::from_digit(digit, 36).expect("less than 36"));
        epoch /= 36;
        if epoch == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

fn decode(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 36).ok().filter(|epoch| encode(*epoch) == text)
}

#[cfg(test)]
mod tests {
    use super::{encode, encode_handed_over, read};

    #[test]
    fn epochs_read_back() {
        for epoch in [0, 1, 35, 36, 1_234_567, u64::MAX] {
            assert_eq!(read(&encode(epoch)), Some((epoch, false)));
            assert_eq!(read(&encode_handed_over(epoch)), Some((epoch, true)));
        }
        for text in ["", "+1", "-1", "01", "Z", "wwGy!", "zzzzzzzzzzzzzz", "~", "25~~"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(encode(35), "z");
    }
}
