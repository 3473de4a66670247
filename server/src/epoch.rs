//! An epoch as clients see it: its number in base 36, lower case.

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

/// Reads an epoch. `None`: this server never wrote it.
pub(crate) fn decode(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 36).ok().filter(|epoch| encode(*epoch) == text)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn epochs_read_back() {
        for epoch in [0, 1, 35, 36, 1_234_567, u64::MAX] {
            assert_eq!(decode(&encode(epoch)), Some(epoch));
        }
        for text in ["", "+1", "-1", "01", "Z", "wwGy!", "zzzzzzzzzzzzzz"] {
            assert_eq!(decode(text), None, "{text}");
        }
        assert_eq!(encode(35), "z");
    }
}
