//! Clients that do what no client should: their neighbours notice nothing, and the node forgets them.

use std::net::SocketAddr;

use manifold_server::config::Config;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Client, config, metric, serve, within};

/// A small generator: the same garbage on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(count).collect()
    }
}

async fn connections_left(address: SocketAddr, count: f64) {
    within(async {
        while metric(address, "manifold_connections").await > count {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// A masked frame with the first byte and the payload as they come.
fn frame(random: &mut Random, first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = random.next().to_le_bytes();
    let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).expect("a short one")];
    frame.extend_from_slice(&mask[..4]);
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    frame
}

/// Garbage at all three levels: no HTTP, no WebSocket, no command.
async fn send_garbage(address: SocketAddr, seed: u64) {
    let mut random = Random(seed | 1);
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let upgrade = "GET /connection/websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let garbage = match seed % 3 {
        0 => random.bytes(3_000),
        1 => [upgrade.as_bytes(), &random.bytes(3_000)].concat(),
        _ => {
            let length = usize::try_from(random.next() % 120).expect("small");
            let mut payload: Vec<u8> =
                random.bytes(length).iter().map(|byte| 32 + byte % 95).filter(|byte| *byte != b'}').collect();
            payload.push(b'{');
            [upgrade.as_bytes(), &frame(&mut random, 0x81, &payload)].concat()
        }
    };
    // The server may hang up in the middle.
    let _ = stream.write_all(&garbage).await;
    let mut answer = Vec::new();
    let _ = within(stream.read_to_end(&mut answer)).await;
    if seed % 3 == 2 {
        let close = &answer[answer.len().saturating_sub(64)..];
        let bad_request = 3501_u16.to_be_bytes();
        assert!(close.windows(2).any(|bytes| bytes == bad_request), "seed {seed}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_costs_its_sender_the_connection_and_nobody_else_anything() {
    let server = serve(Config { request_timeout_ms: 500, close_timeout_ms: 300, ..config() }).await;
    let address = server.address();
    let (mut ann, mut bob) = (Client::in_room(address, "a").await, Client::in_room(address, "a").await);
    let senders: Vec<_> = (1..=150).map(|seed| tokio::spawn(send_garbage(address, seed))).collect();
    let mut number = 0;
    for sender in senders {
        number += 1;
        ann.call(json!({"publish": {"channel": "a", "data": number}})).await;
        assert_eq!((ann.publication().await, bob.publication().await), (json!(number), json!(number)));
        sender.await.unwrap();
    }
    connections_left(address, 2.0).await;
}

/// From here a peer whose machine lost its power looks like one that says nothing any more.
#[tokio::test]
async fn half_open_connections_are_forgotten() {
    let deadlines = Config { ping_interval_ms: 300, pong_timeout_ms: 100, close_timeout_ms: 200, ..config() };
    let server = serve(Config { presence: true, ..deadlines }).await;
    let address = server.address();
    let mut gone = Vec::new();
    for _ in 0..20 {
        // Held, and never read or written again.
        gone.push(Client::in_room(address, "a").await);
    }
    connections_left(address, 0.0).await;
    assert_eq!(metric(address, "manifold_rooms").await, 0.0, "their rooms go with them");
    assert_eq!(metric(address, "manifold_presence_entries").await, 0.0, "and their presence");
    drop(gone);
}
