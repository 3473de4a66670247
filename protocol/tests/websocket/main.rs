//! The frame codec: single cases, properties, and tungstenite as the oracle.
#![allow(clippy::unwrap_used)]

mod cases;
mod handshake;
mod oracle;
mod properties;

use manifold_protocol::websocket::{Event, Header, Limits, Opcode, ProtocolError, Reader, Role, unmask};
use proptest::prelude::*;

/// An event that owns its bytes, so that sequences can be kept and compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owned {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Self::Text(text.to_owned()),
            Event::Binary(bytes) => Self::Binary(bytes.to_vec()),
            Event::Ping(bytes) => Self::Ping(bytes.to_vec()),
            Event::Pong(bytes) => Self::Pong(bytes.to_vec()),
            Event::Close(frame) => Self::Close(frame.map(|frame| (frame.code.0, frame.reason.to_owned()))),
        }
    }
}

/// Reads `bytes` in pieces that end at `cuts` (ascending) and returns the events and the violation, if any.
pub(crate) fn read(
    role: Role,
    limits: Limits,
    bytes: &[u8],
    cuts: &[usize],
) -> (Vec<Owned>, Option<ProtocolError>) {
    let mut reader = Reader::new(role, limits);
    let mut events = Vec::new();
    let mut start = 0;
    for end in cuts.iter().copied().chain([bytes.len()]) {
        let end = end.clamp(start, bytes.len());
        let mut piece = bytes[start..end].to_vec();
        start = end;
        let mut input = reader.feed(&mut piece);
        loop {
            match input.next() {
                Ok(Some(event)) => events.push(event.into()),
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(input.next(), Err(error), "a violation stays");
                    return (events, Some(error));
                }
            }
        }
    }
    (events, None)
}

/// A frame as the tests build it: any bits may be wrong.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) fin: bool,
    pub(crate) rsv: u8,
    pub(crate) opcode: u8,
    pub(crate) mask: Option<[u8; 4]>,
    pub(crate) payload: Vec<u8>,
}

impl Raw {
    pub(crate) fn new(fin: bool, opcode: Opcode, payload: &[u8]) -> Self {
        Self { fin, rsv: 0, opcode: opcode as u8, mask: Some([7, 8, 9, 10]), payload: payload.to_vec() }
    }

    pub(crate) fn append(&self, out: &mut Vec<u8>) {
        let mut header = [0; 14];
        let valid = Header {
            fin: self.fin,
            opcode: Opcode::Text,
            mask: self.mask,
            payload_len: self.payload.len() as u64,
        };
        let length = valid.write(&mut header);
        header[0] = u8::from(self.fin) << 7 | self.rsv << 4 | self.opcode;
        out.extend_from_slice(&header[..length]);
        let start = out.len();
        out.extend_from_slice(&self.payload);
        if let Some(key) = self.mask {
            unmask(&mut out[start..], key, 0);
        }
    }
}

pub(crate) fn bytes_of(frames: &[Raw]) -> Vec<u8> {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| frame.append(&mut bytes));
    bytes
}

/// A message in fragments with control frames between them, as valid frames of a client.
fn message() -> impl Strategy<Value = Vec<Raw>> {
    let payload = prop_oneof![
        // Characters of one to four bytes, so that fragments break inside them.
        "[a-zäöü€🦀\u{0}]{0,40}".prop_map(|text| (Opcode::Text, text.into_bytes())),
        prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (Opcode::Binary, bytes)),
    ];
    let control = (
        prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)],
        prop_oneof![prop::collection::vec(any::<u8>(), 0..5), prop::collection::vec(any::<u8>(), 120..126)],
    );
    let pieces = prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(control)), 0..4);
    (payload, pieces, any::<[u8; 4]>()).prop_map(|((opcode, payload), pieces, key)| {
        let mut cuts: Vec<_> =
            pieces.into_iter().map(|(at, control)| (at.index(payload.len() + 1), control)).collect();
        cuts.sort_by_key(|(at, _)| *at);
        let mut frames = Vec::new();
        let mut start = 0;
        for (end, control) in cuts {
            let opcode = if frames.is_empty() { opcode } else { Opcode::Continuation };
            frames.push(Raw::new(false, opcode, &payload[start..end]));
            start = end;
            frames.extend(control.map(|(opcode, payload)| Raw::new(true, opcode, &payload)));
        }
        let opcode = if frames.is_empty() { opcode } else { Opcode::Continuation };
        frames.push(Raw::new(true, opcode, &payload[start..]));
        frames.iter_mut().for_each(|frame| frame.mask = Some(key));
        frames
    })
}

/// A valid stream of a client's frames, which may end with a close frame.
pub(crate) fn stream() -> impl Strategy<Value = Vec<Raw>> {
    let code = prop_oneof![Just(1000_u16), Just(1001), Just(1009), 3000..5000_u16];
    let close = prop::option::of(prop::option::of((code, "[a-zé]{0,60}"))).prop_map(|close| {
        close.map(|frame| {
            let payload = frame
                .map(|(code, reason)| [&code.to_be_bytes()[..], reason.as_bytes()].concat())
                .unwrap_or_default();
            Raw::new(true, Opcode::Close, &payload)
        })
    });
    (prop::collection::vec(message(), 0..6), close)
        .prop_map(|(messages, close)| messages.into_iter().flatten().chain(close).collect())
}
