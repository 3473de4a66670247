//! From received bytes to a client's turn.

use manifold_protocol::websocket::{self, ClosePayload, Event, Opcode};

use super::books::Books;
use super::client::Effects;
use super::worker::Connection;

/// What came of some received bytes.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) effects: Effects,
    /// The connection is to be dropped.
    pub(super) ended: Option<Ended>,
    /// Something was delivered.
    pub(super) delivered: bool,
}

/// Why a connection ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The server's close code, if it sent one.
    pub(super) code: Option<u16>,
    pub(super) why: String,
}

/// Takes received bytes: frames, lines, publications. Answers are appended to `answers`.
#[inline]
pub(super) fn take(
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
