//! What the null server reads by hand: the opening request, and publish commands.

use std::io;

use manifold_protocol::websocket::handshake;

use super::session::Session;

const INFO: &str = concat!(
    r#"{"node":"null","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#"","commit":"","strategy":"null","summary":"copies ready frames; no backplane","counter_example":false,"#,
    r#""guarantees":{"delivery":"at-most-once","ordering":"per-room","ack":"node","interest":"rooms","replay":"none","#,
    r#""positions":"none","idempotent-retry":false,"spans-nodes":false,"whole-rooms":true},"settings":{},"#,
    r#""namespace":"","started_at_ms":0}"#
);

/// Answers the HTTP request once it is whole: an upgrade, or `/info` for the record. `Some`: frames follow.
pub(super) fn greet(session: &mut Session) -> io::Result<Option<Vec<u8>>> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let Some(mut request) = session.request.take() else { return Ok(None) };
    let Some(end) = memchr::memmem::find(&request, b"\r\n\r\n") else {
        session.request = Some(request);
        return Ok(None);
    };
    let rest = request.split_off(end + 4);
    let head = std::str::from_utf8(&request[..end]).map_err(|_| malformed())?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.as_bytes()));
    let mut out = Vec::new();
    let upgraded = match handshake::check_request("GET", headers) {
        Ok(upgrade) => {
            handshake::append_response(&mut out, upgrade.key, None);
            Some(rest)
        }
        Err(_) => {
            let (status, body) = match line.split(' ').nth(1) {
                Some("/info") => ("200 OK", INFO),
                Some("/health") => ("200 OK", "{}"),
                _ => ("404 Not Found", ""),
            };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n");
            out = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
            session.ends = true;
            None
        }
    };
    session.append(&out)?;
    Ok(upgraded)
}

/// A publish command as the generator writes it: id, channel, data.
pub(super) fn publish(line: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let rest = line.strip_prefix(b"{\"id\":")?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit())?;
    let id = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
    let rest = rest[digits..].strip_prefix(b",\"publish\":{\"channel\":\"")?;
    let end = memchr::memchr(b'"', rest)?;
    let data = rest[end..].strip_prefix(b"\",\"data\":")?.strip_suffix(b"}}")?;
    Some((id, &rest[..end], data))
}
