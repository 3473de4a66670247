//! What clients say and hear, with short cuts for what runs per message.
//!
//! Publishing, its reply and the publication push are written and read without a JSON library. Whatever doesn't look
//! exactly like those goes through the protocol crate's decoder.

use manifold_protocol::json;
use manifold_protocol::websocket::{Header, Opcode, unmask};
use manifold_protocol::{Command, ConnectRequest, Request, SubscribeRequest};

use super::payload::Stamp;

/// A line of a received frame.
#[derive(Debug, PartialEq)]
pub(super) enum Line<'a> {
    /// A publication of ours.
    Publication {
        /// The channel that it was pushed on.
        channel: &'a [u8],
        /// What its payload says.
        stamp: Stamp,
    },
    /// A publish was accepted.
    Published(u32),
    /// The server's ping.
    Ping,
    /// Something else, to be decoded in full.
    Other(&'a str),
}

const PUSH: &[u8] = b"{\"push\":{\"channel\":\"";
const PUBLICATION: &[u8] = b"\",\"pub\":{\"data\":";
const REPLY: &[u8] = b"{\"id\":";
const PUBLISHED: &[u8] = b",\"publish\":{}}";

/// Reads a line, by short cut where it has the common form.
#[inline]
pub(super) fn line(text: &str) -> Line<'_> {
    let bytes = text.as_bytes();
    if let Some(rest) = bytes.strip_prefix(PUSH) {
        if let Some(end) = memchr::memchr(b'"', rest)
            && let Some(data) = rest[end..].strip_prefix(PUBLICATION)
            && let Some(stamp) = Stamp::read(data)
        {
            return Line::Publication { channel: &rest[..end], stamp };
        }
    } else if let Some(rest) = bytes.strip_prefix(REPLY) {
        if let Some(digits) = rest.strip_suffix(PUBLISHED)
            && let Some(id) = number(digits)
        {
            return Line::Published(id);
        }
    } else if bytes == b"{}" {
        return Line::Ping;
    }
    Line::Other(text)
}

/// The offset of a publication push, read off its end: `…,"offset":7}}}` or `…,"offset":7,"epoch":"…"}}}`. `None`:
/// it has none.
pub(super) fn offset(text: &str) -> Option<u64> {
    const OFFSET: &[u8] = b",\"offset\":";
    /// Bytes that may follow the offset: its digits and a short epoch.
    const TAIL_BYTES: usize = 120;
    let tail = &text.as_bytes()[text.len().saturating_sub(TAIL_BYTES)..];
    let start = memchr::memmem::rfind(tail, OFFSET)? + OFFSET.len();
    let digits = tail[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    // What follows belongs to the publication, not to something inside its data or info.
    let rest = &tail[start + digits..];
    let rest = match rest.strip_prefix(b",\"epoch\":\"") {
        Some(epoch) => epoch.get(memchr::memchr(b'"', epoch)? + 1..)?,
        None => rest,
    };
    let digits = std::str::from_utf8(&tail[start..start + digits]).ok()?;
    (rest == b"}}}").then(|| digits.parse().ok()).flatten()
}

fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let value = digits.iter().try_fold(0_u64, |value, &digit| {
        digit.is_ascii_digit().then(|| value * 10 + u64::from(digit - b'0'))
    })?;
    u32::try_from(value).ok()
}

/// Appends a masked text frame whose payload `write` appends.
#[inline]
pub(super) fn append_frame(out: &mut Vec<u8>, key: [u8; 4], write: impl FnOnce(&mut Vec<u8>)) {
    // The header's length depends on the payload's: room for the longest that occurs here, closed up afterwards.
    const HEADER_BYTES: usize = 8;
    let start = out.len();
    out.resize(start + HEADER_BYTES, 0);
    write(out);
    let mut payload = out.len() - start - HEADER_BYTES;
    let mut header = [0; 14];
    let head = Header { fin: true, opcode: Opcode::Text, mask: Some(key), payload_len: payload as u64 };
    let length = head.write(&mut header);
    if length > HEADER_BYTES {
        out.splice(start..start, std::iter::repeat_n(0, length - HEADER_BYTES));
        payload = out.len() - start - length;
    } else if length < HEADER_BYTES {
        out.drain(start..start + HEADER_BYTES - length);
    }
    out[start..start + length].copy_from_slice(&header[..length]);
    let body = start + length;
    unmask(&mut out[body..body + payload], key, 0);
}

/// Appends a publish command (no frame around it).
#[inline]
pub(super) fn append_publish(out: &mut Vec<u8>, id: u32, channel: &str, stamp: &Stamp, bytes: usize) {
    out.extend_from_slice(REPLY);
    json::append_u64(out, u64::from(id));
    out.extend_from_slice(b",\"publish\":{\"channel\":\"");
    out.extend_from_slice(channel.as_bytes());
    out.extend_from_slice(b"\",\"data\":");
    stamp.append(bytes, out);
    out.extend_from_slice(b"}}");
}

/// Appends the connect command.
pub(super) fn append_connect(out: &mut Vec<u8>, id: u32) {
    let connect = ConnectRequest { name: "manifold-loadgen".into(), ..ConnectRequest::default() };
    json::append_command(out, &Command { id, request: Request::Connect(connect) });
}

/// Appends a subscribe command.
pub(super) fn append_subscribe(out: &mut Vec<u8>, id: u32, request: SubscribeRequest<'_>) {
    json::append_command(out, &Command { id, request: Request::Subscribe(request) });
}

/// Appends an unsubscribe command.
pub(super) fn append_unsubscribe(out: &mut Vec<u8>, id: u32, channel: &str) {
    json::append_command(out, &Command { id, request: Request::Unsubscribe { channel: channel.into() } });
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifold_protocol::PublicationPrefix;
    use manifold_protocol::websocket::{Event, Limits, Reader};

    const STAMP: Stamp = Stamp { run: 1, room: 2, sender: 3, sequence: 4, intended_us: 5, lag_us: 6 };

    #[test]
    fn a_publish_is_what_the_decoder_expects_at_every_size() {
        for bytes in [40, 90, 100, 200, 65_000] {
            let mut out = Vec::from(*b"before");
            append_frame(&mut out, [1, 2, 3, 4], |out| append_publish(out, 77, "room-1", &STAMP, bytes));
            let limits = Limits { frame_bytes_max: 1 << 20, message_bytes_max: 1 << 20 };
            let mut reader = Reader::server(limits);
            let mut input = reader.feed(&mut out[6..]);
            let Ok(Some(Event::Text(text))) = input.next() else { panic!("no text at {bytes}") };
            let command = json::commands(text).next().unwrap().unwrap();
            let Request::Publish(publish) = command.request else { panic!("{command:?}") };
            assert_eq!((command.id, publish.channel.as_ref()), (77, "room-1"));
            let data = publish.data.unwrap().as_str();
            assert_eq!((data.len(), Stamp::read(data.as_bytes())), (bytes, Some(STAMP)));
        }
    }

    #[test]
    fn short_cuts_read_what_servers_write() {
        let mut push = Vec::new();
        let mut data = Vec::new();
        STAMP.append(200, &mut data);
        PublicationPrefix::new("room-1").append(&mut push, &data, br#"{"user":"","client":"c"}"#, 9, "");
        let text = std::str::from_utf8(&push).unwrap();
        assert_eq!(line(text), Line::Publication { channel: b"room-1", stamp: STAMP });
        assert_eq!(line(r#"{"id":12,"publish":{}}"#), Line::Published(12));
        assert_eq!(offset(text), Some(9));
        push.clear();
        PublicationPrefix::new("room-1").append(&mut push, &data, b"", 12, "a1b2");
        assert_eq!(offset(std::str::from_utf8(&push).unwrap()), Some(12));
        for none in [
            r#"{"push":{"channel":"a","pub":{"data":1}}}"#,
            r#"{"push":{"channel":"a","pub":{"data":{"a":1,"offset":7}}}}"#,
            r#"{"push":{"channel":"a","pub":{"data":1,"offset":}}}"#,
            "",
        ] {
            assert_eq!(offset(none), None, "{none}");
        }
        assert_eq!(line("{}"), Line::Ping);
        for other in [
            r#"{"id":99999999999,"publish":{}}"#,
            r#"{"id":,"publish":{}}"#,
            r#"{"id":1,"publish":{} }"#,
            r#"{"push":{"channel":"a","pub":{"data":1}}}"#,
            r#"{"push":{"channel":"a"#,
            "",
        ] {
            assert_eq!(line(other), Line::Other(other));
        }
    }
}
