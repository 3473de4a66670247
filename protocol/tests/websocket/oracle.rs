//! tungstenite as the oracle: for valid and for broken streams it must see what we see.

use std::io::{Cursor, Read, Write};

use manifold_protocol::websocket::{
    Limits, Opcode, ProtocolError, Role, append_client_frame, append_server_frame,
};
use proptest::prelude::*;
use tungstenite::protocol::{self, WebSocketConfig, frame::coding::CloseCode};
use tungstenite::{Error, Message, WebSocket};

use super::{Owned, Raw, bytes_of, read, stream};

/// Received bytes to read; what is written is kept.
struct Wire {
    received: Cursor<Vec<u8>>,
    sent: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.received.read(buf)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.sent.write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Without a violation: the bytes were over, or a close frame came.
    Fine,
    Protocol,
    Utf8,
    TooBig,
}

fn oracle(role: protocol::Role, limits: Limits, bytes: &[u8]) -> (Vec<Owned>, Verdict) {
    let config = WebSocketConfig::default()
        .max_frame_size(Some(limits.frame_bytes_max as usize))
        .max_message_size(Some(limits.message_bytes_max as usize));
    let wire = Wire { received: Cursor::new(bytes.to_vec()), sent: Vec::new() };
    let mut socket = WebSocket::from_raw_socket(wire, role, Some(config));
    let mut events = Vec::new();
    loop {
        events.push(match socket.read() {
            Ok(Message::Text(text)) => Owned::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Owned::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Owned::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Owned::Pong(bytes.to_vec()),
            Ok(Message::Close(frame)) => {
                // It answers a code that may not be sent by replacing the frame that it shows.
                if frame
                    .as_ref()
                    .is_some_and(|f| f.code == CloseCode::Protocol && f.reason == "Protocol violation")
                {
                    return (events, Verdict::Protocol);
                }
                events.push(Owned::Close(frame.map(|f| (f.code.into(), f.reason.to_string()))));
                return (events, Verdict::Fine);
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
                return (events, Verdict::Fine);
            }
            Err(Error::Protocol(_)) => return (events, Verdict::Protocol),
            Err(Error::Utf8(_)) => return (events, Verdict::Utf8),
            Err(Error::Capacity(_)) => return (events, Verdict::TooBig),
            Err(other) => panic!("{other}"),
        });
    }
}

fn ours(role: Role, limits: Limits, bytes: &[u8]) -> (Vec<Owned>, Verdict) {
    let (events, violation) = read(role, limits, bytes, &[]);
    let verdict = match violation {
        None => Verdict::Fine,
        Some(ProtocolError::InvalidUtf8) => Verdict::Utf8,
        Some(ProtocolError::FrameTooBig | ProtocolError::MessageTooBig) => Verdict::TooBig,
        Some(_) => Verdict::Protocol,
    };
    (events, verdict)
}

/// Breaks one rule in one frame.
fn fault() -> impl Strategy<Value = fn(&mut Raw)> {
    let faults: [fn(&mut Raw); 9] = [
        |frame| frame.rsv = 1,
        |frame| frame.rsv = 4,
        |frame| frame.opcode = 3,
        |frame| frame.opcode = 15,
        |frame| frame.mask = None,
        |frame| frame.opcode = 0,
        |frame| frame.fin = !frame.fin,
        |frame| frame.payload = vec![0xff; 130],
        |frame| frame.payload.push(0xc3),
    ];
    prop::sample::select(faults.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn valid_streams_are_read_alike(frames in stream()) {
        let bytes = bytes_of(&frames);
        let limits = Limits::default();
        prop_assert_eq!(ours(Role::Server, limits, &bytes), oracle(protocol::Role::Server, limits, &bytes));
    }

    #[test]
    fn broken_streams_are_refused_alike(
        mut frames in stream(), at in any::<prop::sample::Index>(), fault in fault(),
    ) {
        prop_assume!(!frames.is_empty());
        let at = at.index(frames.len());
        fault(&mut frames[at]);
        let bytes = bytes_of(&frames);
        let limits = Limits::default();
        prop_assert_eq!(ours(Role::Server, limits, &bytes), oracle(protocol::Role::Server, limits, &bytes));
    }

    #[test]
    fn sizes_are_refused_alike(frames in stream(), frame_bytes_max in 1..200_u32, message_bytes_max in 1..200_u32) {
        // Control frames are outside our limits and inside the oracle's, so they are left out.
        let frames: Vec<Raw> = frames.into_iter().filter(|frame| frame.opcode < 8).collect();
        let limits = Limits { frame_bytes_max, message_bytes_max };
        let bytes = bytes_of(&frames);
        prop_assert_eq!(ours(Role::Server, limits, &bytes), oracle(protocol::Role::Server, limits, &bytes));
    }

    /// Of arbitrary bytes the oracle judges a frame only when it is whole, and takes lengths in more bytes than they
    /// need; beyond that the two agree on what was said and on whether it was right.
    #[test]
    fn arbitrary_bytes_are_judged_alike(
        frames in stream(), tail in prop::collection::vec(any::<u8>(), 0..300), client in any::<bool>(),
    ) {
        let bytes = [bytes_of(&frames), tail].concat();
        let limits = Limits::default();
        let (role, oracle_role) =
            if client { (Role::Client, protocol::Role::Client) } else { (Role::Server, protocol::Role::Server) };
        let (events, verdict) = ours(role, limits, &bytes);
        let (expected, oracle_verdict) = oracle(oracle_role, limits, &bytes);
        let stricter = verdict != Verdict::Fine && expected.starts_with(&events);
        prop_assert!(stricter || (&events, verdict) == (&expected, oracle_verdict),
            "ours {:?} {:?}, oracle {:?} {:?}", events, verdict, expected, oracle_verdict);
        if oracle_verdict != Verdict::Fine {
            prop_assert_ne!(verdict, Verdict::Fine);
        }
    }

    #[test]
    fn what_we_write_is_read_by_the_oracle(payload in prop::collection::vec(any::<u8>(), 0..70_000), key: [u8; 4]) {
        let limits = Limits { frame_bytes_max: 70_000, message_bytes_max: 70_000 };
        let expected = (vec![Owned::Binary(payload.clone())], Verdict::Fine);
        let mut client = Vec::new();
        append_client_frame(&mut client, Opcode::Binary, &payload, key);
        prop_assert_eq!(oracle(protocol::Role::Server, limits, &client), expected.clone());
        let mut server = Vec::new();
        append_server_frame(&mut server, Opcode::Binary, &payload);
        prop_assert_eq!(oracle(protocol::Role::Client, limits, &server), expected);
    }

    #[test]
    fn what_the_oracle_writes_is_read(payload in "\\PC{0,300}", client in any::<bool>()) {
        let (role, oracle_role) =
            if client { (Role::Server, protocol::Role::Client) } else { (Role::Client, protocol::Role::Server) };
        let wire = Wire { received: Cursor::new(Vec::new()), sent: Vec::new() };
        let mut socket = WebSocket::from_raw_socket(wire, oracle_role, None);
        socket.send(Message::text(payload.clone())).unwrap();
        socket.send(Message::Ping(b"p".to_vec().into())).unwrap();
        socket.close(Some(protocol::CloseFrame { code: 3008.into(), reason: "slow".into() })).unwrap();
        let expected = vec![
            Owned::Text(payload), Owned::Ping(b"p".to_vec()), Owned::Close(Some((3008, "slow".into()))),
        ];
        prop_assert_eq!(ours(role, Limits::default(), &socket.get_ref().sent), (expected, Verdict::Fine));
    }
}
