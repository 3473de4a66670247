//! A room of blocking clients, one message at a time: what the server executes for it does not depend on who was sooner.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use manifold_protocol::websocket::{Opcode, append_client_frame, handshake, parse_header};

/// How long any answer may take; a server under an instrument is fifty times as slow.
const PATIENCE: Duration = Duration::from_secs(60);
const ROOM: &str = "bench";
/// The ping, and its answer.
const PING: &str = "{}";

/// A connection that reads whole frames.
struct Member {
    stream: TcpStream,
    /// Bytes that came and were not taken yet.
    inbox: Vec<u8>,
}

impl Member {
    /// Connects to `ws://host:port/path` without a name, and joins the room; with positions, where it would recover.
    fn join(url: &str, recovering: bool) -> Result<Self> {
        let rest = url.strip_prefix("ws://").context("the address must begin with ws://")?;
        let (host, path) = rest.split_once('/').context("the address has no path")?;
        let stream = TcpStream::connect(host).with_context(|| format!("cannot connect to {host}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut member = Self { stream, inbox: Vec::new() };
        let key = handshake::client_key([7; 16]);
        let mut request = Vec::new();
        handshake::append_request(&mut request, host, &format!("/{path}"), &key, &[]);
        member.stream.write_all(&request)?;
        while memchr::memmem::find(&member.inbox, b"\r\n\r\n").is_none() {
            member.read()?;
        }
        let end = memchr::memmem::find(&member.inbox, b"\r\n\r\n").unwrap_or_default() + 4;
        member.inbox.drain(..end);
        let flags = if recovering { ",\"positioned\":true,\"recoverable\":true" } else { "" };
        member.send(&format!(
            "{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{ROOM}\"{flags}}}}}"
        ))?;
        member.await_text("\"id\":2")?;
        Ok(member)
    }

    fn send(&mut self, commands: &str) -> Result<()> {
        let mut frame = Vec::new();
        append_client_frame(&mut frame, Opcode::Text, commands.as_bytes(), [1, 2, 3, 4]);
        Ok(self.stream.write_all(&frame)?)
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        let count = self.stream.read(&mut buffer).context("no answer")?;
        ensure!(count > 0, "the server closed the connection");
        self.inbox.extend_from_slice(&buffer[..count]);
        Ok(())
    }

    /// The next frame: its payload, and its length with the header. A ping is answered and is none.
    fn frame(&mut self) -> Result<(String, usize)> {
        loop {
            if let Some((header, start)) = parse_header(&self.inbox)? {
                let length = start + usize::try_from(header.payload_len)?;
                if self.inbox.len() >= length {
                    let payload = String::from_utf8_lossy(&self.inbox[start..length]).into_owned();
                    self.inbox.drain(..length);
                    ensure!(header.opcode != Opcode::Close, "the server says goodbye: {payload}");
                    if payload != PING {
                        return Ok((payload, length));
                    }
                    self.send(PING)?;
                    continue;
                }
            }
            self.read()?;
        }
    }

    /// Reads on until a frame holds a text.
    fn await_text(&mut self, text: &str) -> Result<String> {
        loop {
            let (payload, _) = self.frame()?;
            if payload.contains("\"error\"") {
                bail!("the server answers {payload}");
            }
            if payload.contains(text) {
                return Ok(payload);
            }
        }
    }

    /// Reads on until so many publications have come.
    fn await_publications(&mut self, count: usize) -> Result<()> {
        let mut seen = 0;
        while seen < count {
            let (payload, _) = self.frame()?;
            seen += publications(&payload);
        }
        ensure!(seen == count, "{seen} publications in place of {count}");
        Ok(())
    }
}

/// Publications in a frame; several pushes may share one.
fn publications(payload: &str) -> usize {
    payload.lines().filter(|line| line.contains("\"pub\":{")).count()
}

fn publish(id: usize, payload_bytes: usize) -> String {
    let data = "x".repeat(payload_bytes.saturating_sub(2));
    format!("{{\"id\":{id},\"publish\":{{\"channel\":\"{ROOM}\",\"data\":\"{data}\"}}}}")
}

/// Bytes of the frame in which a server delivers one message, header included.
///
/// # Errors
/// A server that does not answer as it should.
pub(super) fn frame_bytes(url: &str, payload_bytes: usize, recovering: bool) -> Result<usize> {
    let mut receiver = Member::join(url, recovering)?;
    let mut sender = Member::join(url, recovering)?;
    sender.send(&publish(3, payload_bytes))?;
    loop {
        let (payload, length) = receiver.frame()?;
        if publications(&payload) > 0 {
            return Ok(length);
        }
    }
}

/// Sends `messages` to a room of `members`, `batch` in each frame, each batch only when everybody has the one before it. One of
/// the members is the sender. They stay for at least as long as `lasting` says; how long they stayed is returned.
///
/// # Errors
/// A server that does not answer as it should.
pub(super) fn exchange(
    url: &str,
    members: usize,
    messages: usize,
    batch: usize,
    recovering: bool,
    lasting: Duration,
) -> Result<Duration> {
    let began = Instant::now();
    let mut room = (0..members).map(|_| Member::join(url, recovering)).collect::<Result<Vec<_>>>()?;
    let mut id = 3;
    for _ in 0..messages / batch.max(1) {
        let commands: Vec<String> = (id..id + batch).map(|id| publish(id, 200)).collect();
        id += batch;
        let Some((sender, others)) = room.split_first_mut() else { break };
        sender.send(&commands.join("\n"))?;
        for member in others {
            member.await_publications(batch)?;
        }
        acknowledged(sender, batch, id - 1)?;
    }
    std::thread::sleep(lasting.saturating_sub(began.elapsed()));
    Ok(began.elapsed())
}

/// The sender has its own copies, and the answer to its last command, in whichever order and frames.
fn acknowledged(sender: &mut Member, batch: usize, last: usize) -> Result<()> {
    let (mut seen, mut answered) = (0, false);
    let answer = format!("\"id\":{last},");
    while seen < batch || !answered {
        let (payload, _) = sender.frame()?;
        seen += publications(&payload);
        answered |= payload.contains(&answer);
        ensure!(!payload.contains("\"error\""), "the server answers {payload}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::null_server::{NullServer, NullSettings};

    #[test]
    fn everybody_gets_everything_and_the_sender_its_answers() {
        let server = NullServer::start(NullSettings::default()).unwrap();
        exchange(&server.url(), 4, 12, 1, false, Duration::ZERO).unwrap();
        let long = Duration::from_millis(300);
        assert!(exchange(&server.url(), 3, 32, 16, false, long).unwrap() >= long);
        assert!(exchange("ws://127.0.0.1:1/connection/websocket", 1, 1, 1, false, long).is_err());
    }

    #[test]
    fn a_frame_holds_its_payload_and_little_else() {
        let server = NullServer::start(NullSettings::default()).unwrap();
        let bytes = frame_bytes(&server.url(), 200, false).unwrap();
        assert!((200..400).contains(&bytes), "{bytes}");
    }

    #[test]
    fn a_publish_is_as_long_as_asked_for() {
        assert!(publish(7, 200).contains(&format!("\"{}\"", "x".repeat(198))));
        assert_eq!(publications("{\"push\":{\"channel\":\"a\",\"pub\":{\"data\":1}}}\n{}"), 1);
    }
}
