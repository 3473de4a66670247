//! RFC 6455, with raw bytes on the client's side where tungstenite would not do such a thing.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use manifold_protocol::websocket::{CloseFrame, Event, Limits, Opcode, Reader, append_client_frame};
use manifold_server::config::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Client, config, serve, within};

const KEY: [u8; 4] = [1, 2, 3, 4];
const CONNECT: &[u8] = b"{\"id\":1,\"connect\":{}}";

/// A socket after the handshake.
async fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let request = format!(
        "GET /connection/websocket HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(within(stream.read_u8()).await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    assert!(answer.to_lowercase().contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    stream
}

fn frame(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_client_frame(&mut bytes, Opcode::Text, payload, KEY);
    bytes[0] = first_byte;
    bytes
}

/// What the server sends until it closes: texts, pongs as text, and the close code (0 for none).
async fn collect(stream: &mut TcpStream) -> (Vec<String>, u16) {
    let mut reader = Reader::client(Limits::default());
    let mut texts = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = within(stream.read(&mut buffer)).await.unwrap_or(0);
        if count == 0 {
            return (texts, 0);
        }
        let mut input = reader.feed(&mut buffer[..count]);
        while let Some(event) = input.next().expect("frames of the RFC") {
            match event {
                Event::Text(text) => texts.push(text.to_owned()),
                Event::Pong(payload) => texts.push(format!("pong {}", String::from_utf8_lossy(payload))),
                Event::Close(close) => {
                    return (texts, close.map_or(1005, |CloseFrame { code, .. }| code.0));
                }
                Event::Binary(_) | Event::Ping(_) => panic!("unexpected {event:?}"),
            }
        }
    }
}

async fn close_code_after(address: SocketAddr, bytes: &[u8]) -> u16 {
    let mut stream = raw(address).await;
    stream.write_all(&frame(0x81, CONNECT)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    collect(&mut stream).await.1
}

#[tokio::test]
async fn one_byte_at_a_time() {
    let server = serve(config()).await;
    let mut stream = raw(server.address()).await;
    let publish = b"{\"id\":3,\"publish\":{\"channel\":\"a\",\"data\":\"\xc3\xa9\"}}";
    let mut bytes = frame(0x81, CONNECT);
    bytes.extend(frame(0x81, b"{\"id\":2,\"subscribe\":{\"channel\":\"a\"}}"));
    bytes.extend(frame(0x89, b"mid"));
    bytes.extend(frame(0x81, publish));
    bytes.extend(frame(0x88, &1000_u16.to_be_bytes()));
    for byte in bytes {
        stream.write_all(&[byte]).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let (texts, code) = collect(&mut stream).await;
    assert_eq!(code, 1000);
    assert_eq!(texts.len(), 5, "{texts:?}");
    assert_eq!(texts[2], "pong mid");
    assert!(texts.iter().any(|text| text.contains("\"data\":\"é\"")), "{texts:?}");
    assert!(texts.iter().any(|text| text == "{\"id\":3,\"publish\":{}}"));
}

#[tokio::test]
async fn fragments_with_control_frames_in_between() {
    let server = serve(config()).await;
    let mut stream = raw(server.address()).await;
    let text = "{\"id\":1,\"connect\":{\"name\":\"é\"}}".as_bytes();
    let cut = text.iter().position(|byte| *byte == 0xc3).unwrap() + 1;
    let mut bytes = frame(0x01, &text[..cut]);
    bytes.extend(frame(0x89, b"1"));
    bytes.extend(frame(0x00, b""));
    bytes.extend(frame(0x8a, b"unasked"));
    bytes.extend(frame(0x80, &text[cut..]));
    bytes.extend(frame(0x88, b""));
    stream.write_all(&bytes).await.unwrap();
    let (texts, code) = collect(&mut stream).await;
    assert_eq!(texts[0], "pong 1");
    assert!(texts[1].contains("\"connect\""));
    assert_eq!(code, 1005, "an empty close frame is answered with an empty one");
}

#[tokio::test]
async fn every_frame_counts_towards_the_rate() {
    let limited = Config { inbound_rate_max: 1, inbound_burst_max: 5, ..config() };
    let server = serve(limited).await;
    let fragments = [frame(0x01, b""), frame(0x00, b"").repeat(100)].concat();
    for frames in [frame(0x89, b"").repeat(100), frame(0x8a, b"").repeat(100), fragments] {
        assert_eq!(close_code_after(server.address(), &frames).await, 3013);
    }
}

#[tokio::test]
async fn violations_of_the_rfc_are_closed_with_their_codes() {
    let server = serve(config()).await;
    let address = server.address();
    let mut unmasked = vec![0x81, 2];
    unmasked.extend_from_slice(b"{}");
    let mut oversize = vec![0x81, 0xff];
    oversize.extend_from_slice(&65_537_u64.to_be_bytes());
    oversize.extend_from_slice(&KEY);
    let half = frame(0x01, &[b'x'; 40_000]);
    let too_long_together = [half, frame(0x80, &[b'x'; 40_000])].concat();
    let cases: [(&str, Vec<u8>, u16); 12] = [
        ("invalid UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        ("text that ends inside a character", frame(0x81, b"\xc3"), 1007),
        ("a reserved bit", frame(0xc1, b"{}"), 1002),
        ("an unknown opcode", frame(0x83, b""), 1002),
        ("a fragmented ping", frame(0x09, b""), 1002),
        ("a continuation of nothing", frame(0x80, b""), 1002),
        ("a new message inside another", [frame(0x01, b"{"), frame(0x81, b"{}")].concat(), 1002),
        ("no mask", unmasked, 1002),
        ("a frame over the limit", oversize, 1009),
        ("a message over the limit", too_long_together, 1009),
        ("a close code that may not be sent", frame(0x88, &1005_u16.to_be_bytes()), 1002),
        ("a close frame of one byte", frame(0x88, &[3]), 1002),
    ];
    for (name, bytes, code) in cases {
        assert_eq!(close_code_after(address, &bytes).await, code, "{name}");
    }
    assert_eq!(
        close_code_after(address, &frame(0x82, b"\x05")).await,
        3506,
        "binary is the Protobuf framing"
    );
}

#[tokio::test]
async fn the_largest_message_passes() {
    let server = serve(config()).await;
    let mut member = Client::in_room(server.address(), "a").await;
    let mut publisher = Client::connect(server.address()).await;
    let envelope = json!({"id": 2, "publish": {"channel": "a", "data": ""}}).to_string().len();
    let data = "x".repeat(64 * 1024 - envelope);
    let reply = publisher.call(json!({"publish": {"channel": "a", "data": data}})).await;
    assert_eq!(reply["publish"], json!({}));
    assert_eq!(member.publication().await, data);
    publisher.send(json!({"publish": {"channel": "a", "data": format!("{data}x")}})).await;
    assert_eq!(publisher.close_code().await, 1009);
}

#[tokio::test]
async fn close_handshakes_in_both_directions() {
    let server = serve(config()).await;
    let mut client = Client::connect(server.address()).await;
    within(client.socket.close(None)).await.unwrap();
    assert!(matches!(within(client.socket.next()).await, Some(Ok(Message::Close(None))) | None));
    assert!(within(client.socket.next()).await.is_none(), "the server closes the socket");
    // The server begins: what the client sends after its own violation is ignored, its answer ends it.
    let mut client = Client::connect(server.address()).await;
    client.send_text("rubbish").await;
    client.send_text("more").await;
    assert_eq!(client.close_code().await, 3501);
    assert!(within(client.socket.next()).await.is_none_or(|end| end.is_err()));
    crate::support::until(|| server.node().connection_count() == 0).await;
}

#[tokio::test]
async fn a_client_that_ignores_the_close_is_cut() {
    let server = serve(config()).await;
    let mut stream = raw(server.address()).await;
    stream.write_all(&frame(0x81, b"rubbish")).await.unwrap();
    let (_, code) = collect(&mut stream).await;
    assert_eq!(code, 3501);
    let mut rest = Vec::new();
    within(stream.read_to_end(&mut rest)).await.ok();
    crate::support::until(|| server.node().connection_count() == 0).await;
}

#[tokio::test]
async fn bytes_that_come_with_the_handshake_are_not_lost() {
    let server = serve(config()).await;
    let mut stream = TcpStream::connect(server.address()).await.unwrap();
    let mut bytes = b"GET /connection/websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    bytes.extend(frame(0x81, CONNECT));
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.windows(9).any(|window| window == b"\"connect\"") {
        answer.push(within(stream.read_u8()).await.unwrap());
    }
}

#[tokio::test]
async fn pings_of_the_websocket_layer_are_answered() {
    let server = serve(config()).await;
    let mut client = Client::connect(server.address()).await;
    within(client.socket.send(Message::Ping("abc".into()))).await.unwrap();
    assert_eq!(within(client.socket.next()).await.unwrap().unwrap(), Message::Pong("abc".into()));
}
