//! What no client would send: a server must end the connection that it comes on, and nothing else.

use manifold_protocol::websocket::{Header, Opcode, append_server_frame};

use super::wire;

/// Kinds of garbage.
pub(super) const KINDS: u64 = 6;

/// Appends garbage of a kind below [`KINDS`].
pub(super) fn append(out: &mut Vec<u8>, kind: u64, key: [u8; 4]) {
    let text =
        |out: &mut Vec<u8>, text: &[u8]| wire::append_frame(out, key, |out| out.extend_from_slice(text));
    match kind {
        // Reserved bits and an opcode that there is not.
        0 => out.extend(std::iter::repeat_n([0xFF, key[0], key[1]], 32).flatten()),
        // JSON that ends in the middle.
        1 => text(out, br#"{"id":1,"subscribe":{"channel":"#),
        // JSON deeper than any parser should follow.
        2 => text(out, &[b'['; 4_096]),
        // Bytes that are no UTF-8.
        3 => text(out, b"\xC3\x28\xA0\xFE"),
        // A client's frames must be masked.
        4 => append_server_frame(out, Opcode::Text, b"{}"),
        // A message without end.
        _ => {
            let mut header = [0; 14];
            let head = Header { fin: true, opcode: Opcode::Text, mask: Some(key), payload_len: 1 << 62 };
            let length = head.write(&mut header);
            out.extend_from_slice(&header[..length]);
        }
    }
}

#[cfg(test)]
mod tests {
    use manifold_protocol::json;
    use manifold_protocol::websocket::{Event, Limits, Reader};

    use super::*;

    /// Whether a server that reads it would have to object.
    fn is_refused(mut bytes: Vec<u8>) -> bool {
        let mut reader = Reader::server(Limits::default());
        let mut input = reader.feed(&mut bytes);
        match input.next() {
            Ok(Some(Event::Text(text))) => json::commands(text).any(|command| command.is_err()),
            Ok(_) => false,
            Err(_) => true,
        }
    }

    #[test]
    fn every_kind_is_garbage() {
        for kind in 0..KINDS {
            let mut bytes = Vec::new();
            append(&mut bytes, kind, [1, 2, 3, 4]);
            assert!(is_refused(bytes), "kind {kind}");
        }
    }
}
