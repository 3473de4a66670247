//! One case per rule of RFC 6455, each read whole and one byte at a time.

use manifold_protocol::DisconnectCode;
use manifold_protocol::websocket::{
    CloseCode, CloseFrame, ClosePayload, Event, FrameBuilder, Limits, Opcode, ProtocolError, Reader, Role,
    append_client_frame, append_server_frame, parse_header, unmask,
};

use super::{Owned, Raw, bytes_of, read};

/// Reads the bytes whole and one byte at a time; both must agree.
fn both_ways(role: Role, limits: Limits, bytes: &[u8]) -> (Vec<Owned>, Option<ProtocolError>) {
    let whole = read(role, limits, bytes, &[]);
    let cuts: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(read(role, limits, bytes, &cuts), whole);
    whole
}

fn server(frames: &[Raw]) -> (Vec<Owned>, Option<ProtocolError>) {
    both_ways(Role::Server, Limits::default(), &bytes_of(frames))
}

#[test]
fn lengths_at_every_boundary() {
    for length in [0, 1, 125, 126, 127, 65_535, 65_536] {
        let payload = vec![b'x'; length];
        let expected = (vec![Owned::Text("x".repeat(length))], None);
        let mut client = Vec::new();
        append_client_frame(&mut client, Opcode::Text, &payload, [1, 2, 3, 4]);
        assert_eq!(both_ways(Role::Server, Limits::default(), &client), expected);
        let mut server = Vec::new();
        append_server_frame(&mut server, Opcode::Text, &payload);
        assert_eq!(both_ways(Role::Client, Limits::default(), &server), expected);
        let mut builder = FrameBuilder::new();
        builder.payload_mut().extend_from_slice(&payload);
        assert_eq!(builder.payload(), payload);
        assert_eq!(builder.finish(Opcode::Text), server);
        assert_eq!(builder.finish_masked(Opcode::Text, [1, 2, 3, 4]), client);
        builder.clear_within(1024);
        assert!(builder.is_empty());
    }
}

#[test]
fn a_whole_message_is_borrowed_and_leaves_nothing_behind() {
    let mut bytes = bytes_of(&[Raw::new(true, Opcode::Text, b"hello")]);
    let range = bytes.as_ptr_range();
    let mut reader = Reader::server(Limits::default());
    let mut input = reader.feed(&mut bytes);
    let Some(Event::Text(text)) = input.next().unwrap() else { panic!("a text") };
    assert!(range.contains(&text.as_ptr()));
    assert_eq!(input.next(), Ok(None));
    assert_eq!(reader.pending_bytes(), 0);
}

#[test]
fn fragments_with_control_frames_between() {
    let frames = [
        Raw::new(false, Opcode::Text, "a€".as_bytes().split_at(2).0),
        Raw::new(true, Opcode::Ping, b"p"),
        Raw::new(false, Opcode::Continuation, b""),
        Raw::new(true, Opcode::Pong, b""),
        Raw::new(true, Opcode::Continuation, "a€".as_bytes().split_at(2).1),
        Raw::new(true, Opcode::Binary, b"\xff"),
    ];
    let expected = vec![
        Owned::Ping(b"p".to_vec()),
        Owned::Pong(vec![]),
        Owned::Text("a€".into()),
        Owned::Binary(vec![0xff]),
    ];
    assert_eq!(server(&frames), (expected, None));
}

#[test]
fn violations_of_the_header() {
    let text = Raw::new(true, Opcode::Text, b"x");
    let first = |frame: Raw| server(&[frame]).1;
    for rsv in [1, 2, 4] {
        assert_eq!(first(Raw { rsv, ..text.clone() }), Some(ProtocolError::ReservedBits));
    }
    for opcode in (3..8).chain(11..16) {
        assert_eq!(first(Raw { opcode, ..text.clone() }), Some(ProtocolError::UnknownOpcode(opcode)));
    }
    assert_eq!(first(Raw::new(false, Opcode::Ping, b"")), Some(ProtocolError::FragmentedControl));
    assert_eq!(first(Raw::new(true, Opcode::Ping, &[0; 126])), Some(ProtocolError::ControlTooLong));
    assert_eq!(first(Raw { mask: None, ..text.clone() }), Some(ProtocolError::Unmasked));
    let masked = both_ways(Role::Client, Limits::default(), &bytes_of(&[text]));
    assert_eq!(masked.1, Some(ProtocolError::Masked));
    for bytes in [
        &[0x81, 0xfe, 0, 125][..],
        &[0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
        &[0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0],
    ] {
        let read = both_ways(Role::Server, Limits::default(), &[bytes, &[1, 2, 3, 4]].concat());
        assert_eq!(read.1, Some(ProtocolError::BadLength));
    }
}

#[test]
fn violations_of_the_fragment_order() {
    let read = server(&[Raw::new(true, Opcode::Continuation, b"x")]);
    assert_eq!(read, (vec![], Some(ProtocolError::NothingToContinue)));
    let read = server(&[Raw::new(false, Opcode::Text, b"x"), Raw::new(true, Opcode::Text, b"y")]);
    assert_eq!(read, (vec![], Some(ProtocolError::ContinuationExpected)));
}

#[test]
fn invalid_utf8_fails_at_the_first_bad_byte() {
    assert_eq!(server(&[Raw::new(true, Opcode::Text, b"a\xff")]).1, Some(ProtocolError::InvalidUtf8));
    // The message is not over, the violation is certain.
    assert_eq!(server(&[Raw::new(false, Opcode::Text, b"\xed\xa0")]).1, Some(ProtocolError::InvalidUtf8));
    // A character that never ends.
    let cut = [Raw::new(false, Opcode::Text, b"\xe2"), Raw::new(true, Opcode::Continuation, b"\x82")];
    assert_eq!(server(&cut).1, Some(ProtocolError::InvalidUtf8));
    // Inside a frame that is still coming.
    let bytes = bytes_of(&[Raw::new(true, Opcode::Text, b"ab\xc0\x80cd")]);
    assert_eq!(
        read(Role::Server, Limits::default(), &bytes[..bytes.len() - 2], &[]).1,
        Some(ProtocolError::InvalidUtf8)
    );
}

#[test]
fn sizes_over_the_limit_fail_at_the_header() {
    let limits = Limits { frame_bytes_max: 10, message_bytes_max: 15 };
    let read = |frames: &[Raw]| both_ways(Role::Server, limits, &bytes_of(frames)).1;
    assert_eq!(read(&[Raw::new(true, Opcode::Text, &[b'x'; 10])]), None);
    assert_eq!(read(&[Raw::new(true, Opcode::Text, &[b'x'; 11])]), Some(ProtocolError::FrameTooBig));
    let start = Raw::new(false, Opcode::Text, &[b'x'; 10]);
    assert_eq!(read(&[start.clone(), Raw::new(true, Opcode::Continuation, &[b'x'; 5])]), None);
    let over = read(&[start, Raw::new(true, Opcode::Continuation, &[b'x'; 6])]);
    assert_eq!(over, Some(ProtocolError::MessageTooBig));
    assert_eq!(ProtocolError::MessageTooBig.close_code(), CloseCode::TOO_BIG);
    // A control frame is under a limit of its own.
    assert_eq!(read(&[Raw::new(true, Opcode::Ping, &[0; 125])]), None);
}

#[test]
fn close_frames() {
    let close = |payload: &[u8]| server(&[Raw::new(true, Opcode::Close, payload)]);
    assert_eq!(close(b""), (vec![Owned::Close(None)], None));
    let named = (vec![Owned::Close(Some((1000, "ok".into())))], None);
    assert_eq!(close(b"\x03\xe8ok"), named);
    assert_eq!(close(b"\x03").1, Some(ProtocolError::BadClosePayload));
    assert_eq!(close(b"\x03\xe8\xff").1, Some(ProtocolError::InvalidUtf8));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535_u16] {
        assert_eq!(close(&code.to_be_bytes()).1, Some(ProtocolError::BadCloseCode(code)));
    }
    // What follows a close frame is discarded, whatever it is.
    let mut bytes = bytes_of(&[Raw::new(true, Opcode::Close, b"\x03\xe8ok")]);
    bytes.extend_from_slice(b"\xff\xff\xff");
    assert_eq!(both_ways(Role::Server, Limits::default(), &bytes), named);
}

#[test]
fn close_payloads() {
    let long = format!("{}€", "x".repeat(122));
    let payload = ClosePayload::new(CloseCode::POLICY, &long);
    let parsed = CloseFrame::parse(payload.as_bytes()).unwrap().unwrap();
    assert_eq!((parsed.code, parsed.reason), (CloseCode::POLICY, &long[..122]));
    assert_eq!(ClosePayload::from(DisconnectCode::SLOW).as_bytes(), b"\x0b\xc0slow");
    assert_eq!(CloseCode::from(DisconnectCode(70_000)), CloseCode::INTERNAL);
    assert_eq!(ClosePayload::echo(None).as_bytes(), b"");
    assert_eq!(ClosePayload::echo(Some(parsed)).as_bytes(), 1008_u16.to_be_bytes());
}

#[test]
fn an_incomplete_header_is_waited_for() {
    let bytes = bytes_of(&[Raw::new(true, Opcode::Text, &[b'x'; 300])]);
    for length in 0..8 {
        assert_eq!(parse_header(&bytes[..length]), Ok(None));
    }
    assert!(matches!(parse_header(&bytes), Ok(Some((_, 8)))));
}

#[test]
fn unmasking_is_the_naive_xor() {
    for length in 0..70 {
        for offset in 0..9 {
            let mut bytes: Vec<u8> = (0..length).collect();
            let key = [1, 20, 100, 255];
            let expected: Vec<u8> =
                bytes.iter().enumerate().map(|(index, byte)| byte ^ key[(index + offset) % 4]).collect();
            unmask(&mut bytes, key, offset);
            assert_eq!(bytes, expected);
        }
    }
}
