//! From a socket's events to a client's turn.

use std::io;
use std::sync::atomic::Ordering;

use manifold_protocol::websocket::{self, ClosePayload, Event, Opcode};
use rustix::event::epoll::{self, EventFlags};

use super::agenda::Timer;
use super::alarm::ALARM;
use super::books::Books;
use super::client::Effects;
use super::link::{Reading, Stage};
use super::worker::{Connection, READ_BYTES, Worker};

/// Bytes that a slow reader takes every [`SLOW_READ_US`]: 80 KB/s.
const SLOW_READ_BYTES: usize = 4 << 10;
const SLOW_READ_US: u64 = 50_000;

/// What came of some received bytes.
#[derive(Debug, Default)]
struct Outcome {
    effects: Effects,
    /// The connection is to be dropped.
    ended: Option<Ended>,
    /// Something was delivered.
    delivered: bool,
}

/// Why a connection ended.
#[derive(Debug)]
struct Ended {
    /// The server's close code, if it sent one.
    code: Option<u16>,
    why: String,
}

/// Takes received bytes: frames, lines, publications. Answers are appended to `answers`.
#[inline]
fn take(
    connection: &mut Connection,
    bytes: &mut [u8],
    run_us: u64,
    books: &mut Books<'_>,
    answers: &mut Vec<u8>,
    key: [u8; 4],
) -> Outcome {
    let mut outcome = Outcome::default();
    let before = books.interval.delivered;
    let Connection { link, client, .. } = connection;
    let mut input = link.reader.feed(bytes);
    loop {
        match input.next() {
            Ok(Some(Event::Text(text))) => {
                if let Err(refusal) = client.take(text, run_us, books, answers, key, &mut outcome.effects) {
                    outcome.ended = Some(Ended { code: None, why: refusal.0 });
                    break;
                }
            }
            Ok(Some(Event::Ping(payload))) => {
                websocket::append_client_frame(answers, Opcode::Pong, payload, key);
            }
            Ok(Some(Event::Close(frame))) => {
                let echo = ClosePayload::echo(frame);
                websocket::append_client_frame(answers, Opcode::Close, echo.as_bytes(), key);
                let (code, why) = match frame {
                    Some(frame) => {
                        (Some(frame.code.0), format!("the server closed: {} {}", frame.code.0, frame.reason))
                    }
                    None => (None, "the server closed the connection".to_owned()),
                };
                outcome.ended = Some(Ended { code, why });
                break;
            }
            Ok(Some(Event::Binary(_) | Event::Pong(_))) => {}
            Ok(None) => break,
            Err(error) => {
                outcome.ended =
                    Some(Ended { code: None, why: format!("the server broke RFC 6455: {error}") });
                break;
            }
        }
    }
    outcome.delivered = books.interval.delivered > before;
    outcome
}

impl Worker<'_> {
    pub(super) fn handle(&mut self, event: &epoll::Event) {
        let (data, flags) = (event.data.u64(), event.flags);
        if data == ALARM {
            return self.alarm.clear();
        }
        let local = data as u32;
        let connection = &mut self.connections[local as usize];
        if connection.link.generation != (data >> 32) as u32 {
            return;
        }
        if matches!(connection.link.stage, Stage::Connecting) {
            return self.connected(local);
        }
        if flags.contains(EventFlags::OUT) {
            self.flush(local);
        }
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        let link = &mut self.connections[local as usize].link;
        if ended && link.reading != Reading::AtOnce {
            // The server hung up on a client that doesn't read: now it reads, and finds out why.
            link.reading = Reading::AtOnce;
        }
        if link.reading == Reading::AtOnce && (ended || flags.contains(EventFlags::IN)) {
            self.read(local, READ_BYTES);
        }
    }

    fn connected(&mut self, local: u32) {
        let random = [self.keys.next_u64().to_ne_bytes(), self.keys.next_u64().to_ne_bytes()];
        let mut key = [0; 16];
        key.as_chunks_mut::<8>().0.copy_from_slice(&random);
        let connection = &mut self.connections[local as usize];
        let node = self.shared.node(connection.link.node);
        match connection.link.upgrade(&node, key) {
            Ok(()) => self.touch(local),
            Err(error) => self.lost(local, None, &format!("cannot connect to {}: {error}", node.host)),
        }
    }

    /// Reads once, and takes what came.
    pub(super) fn read(&mut self, local: u32, bytes_max: usize) {
        let connection = &mut self.connections[local as usize];
        let count = match connection.link.read(&mut self.buffer[..bytes_max]) {
            Ok(0) => return self.lost(local, None, "the server closed the connection"),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return;
            }
            Err(error) => return self.lost(local, None, &format!("read: {error}")),
        };
        match connection.link.stage {
            Stage::Open => self.take(local, count),
            Stage::Upgrading(_) => match connection.link.upgraded(&self.buffer[..count]) {
                Ok(None) => {}
                Ok(Some(rest)) => {
                    let key = self.key();
                    let connection = &mut self.connections[local as usize];
                    connection.client.greet(&self.books, &mut connection.link.out, key);
                    self.buffer[..rest.len()].copy_from_slice(&rest);
                    self.touch(local);
                    self.take(local, rest.len());
                }
                Err(error) => self.lost(local, None, &format!("handshake: {error}")),
            },
            _ => {}
        }
    }

    /// What is read from the buffer, frame by frame.
    fn take(&mut self, local: u32, count: usize) {
        let run_us = self.run_us(self.shared.now_us());
        let key = self.key();
        self.voices.heard(self.connections[local as usize].link.node, run_us);
        let outcome = take(
            &mut self.connections[local as usize],
            &mut self.buffer[..count],
            run_us,
            &mut self.books,
            &mut self.answers,
            key,
        );
        if self.agenda.start_us.is_some() && outcome.delivered {
            self.books.activity.mark(run_us);
            self.shared.lacking[self.thread].heard_us.store(run_us, Ordering::Release);
        }
        if !self.answers.is_empty() {
            self.connections[local as usize].link.out.append(&mut self.answers);
            self.touch(local);
        }
        if let Some(ended) = outcome.ended {
            return self.lost(local, ended.code, &ended.why);
        }
        if outcome.effects.join_later {
            self.join_later(local);
        }
        if outcome.effects.confirmed && self.connections[local as usize].client.is_live() {
            self.live(local);
        }
    }

    /// Slow readers read a little now and then.
    pub(super) fn read_slowly(&mut self, local: u32, now_us: u64) {
        let link = &self.connections[local as usize].link;
        if link.reading == Reading::Slowly && link.is_open() {
            let generation = link.generation;
            self.timers.push(Timer::slow_read(now_us + SLOW_READ_US, local, generation));
            self.read(local, SLOW_READ_BYTES);
        }
    }
}
