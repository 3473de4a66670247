//! Masking, which is its own inverse.

/// XORs `bytes` with the repeated `key`, where `bytes` starts `offset` bytes into the payload.
///
/// Eight bytes at a time; the compiler widens that to the vector registers it has.
#[inline]
pub fn unmask(bytes: &mut [u8], key: [u8; 4], offset: usize) {
    let [a, b, c, d] = key;
    let [a, b, c, d] = match offset % 4 {
        0 => [a, b, c, d],
        1 => [b, c, d, a],
        2 => [c, d, a, b],
        _ => [d, a, b, c],
    };
    let word = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for chunk in words {
        *chunk = (u64::from_ne_bytes(*chunk) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(word.to_ne_bytes()) {
        *byte ^= key;
    }
}
