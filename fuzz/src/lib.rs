//! What each fuzz target checks. The protocol crate's own tests include this file, and run it over the seeds and over
//! mutations of them, so the checks stay alive on machines without a fuzzer.

use manifold_protocol::json::{append_command, append_reply, commands, replies};
use manifold_protocol::websocket::{Event, Limits, ProtocolError, Reader, Role};

/// Whatever decodes as commands must encode to a text that decodes to the same.
pub fn client_frames(data: &[u8]) {
    let Ok(frame) = std::str::from_utf8(data) else { return };
    for command in commands(frame).flatten() {
        let mut out = Vec::new();
        append_command(&mut out, &command);
        assert!(!out.contains(&b'\n'), "a newline would split the command");
        let again = std::str::from_utf8(&out).expect("encoded text is UTF-8");
        assert_eq!(commands(again).next().expect("one command").expect("valid"), command);
    }
}

/// Whatever decodes as replies must encode to a text that decodes to the same.
pub fn replies_of(data: &[u8]) {
    let Ok(frame) = std::str::from_utf8(data) else { return };
    for reply in replies(frame).flatten() {
        let mut out = Vec::new();
        append_reply(&mut out, &reply);
        assert!(!out.contains(&b'\n'), "a newline would split the reply");
        let again = std::str::from_utf8(&out).expect("encoded text is UTF-8");
        assert_eq!(replies(again).next().expect("one reply").expect("valid"), reply);
    }
}

/// Any bytes must read the same whole and split, and keep within the limits. The first byte chooses the role, the
/// second the size of the pieces.
pub fn websocket_reader(data: &[u8]) {
    let [role, size, bytes @ ..] = data else { return };
    let role = if role & 1 == 0 { Role::Server } else { Role::Client };
    let limits = Limits { frame_bytes_max: 300, message_bytes_max: 400 };
    let whole = read(role, limits, bytes, bytes.len().max(1));
    assert_eq!(read(role, limits, bytes, 1), whole);
    assert_eq!(read(role, limits, bytes, usize::from(*size).max(1)), whole);
}

/// Events as text, and the violation.
fn read(role: Role, limits: Limits, bytes: &[u8], size: usize) -> (Vec<String>, Option<ProtocolError>) {
    let mut reader = Reader::new(role, limits);
    let mut events = Vec::new();
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let mut input = reader.feed(&mut piece);
        loop {
            match input.next() {
                Ok(Some(event)) => {
                    if let Event::Text(text) = event {
                        assert!(text.len() <= limits.message_bytes_max as usize);
                    }
                    events.push(format!("{event:?}"));
                }
                Ok(None) => break,
                Err(error) => return (events, Some(error)),
            }
        }
        assert!(reader.pending_bytes() <= limits.message_bytes_max as usize + 125 + 14);
    }
    (events, None)
}
