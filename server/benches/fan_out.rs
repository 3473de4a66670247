//! What runs per message and per delivery, over real sockets: building the frame, fan-out from the entrance to 1, 10 and 1,000
//! members, and a publish's way through the server and back.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use manifold_protocol::PublicationPrefix;
use manifold_protocol::websocket::{FrameBuilder, Opcode, append_client_frame, handshake};
use manifold_server::config::Config;
use manifold_server::{Node, Server};
use manifold_strategies::{Entrance, Envelope, Event, Message, MessageId, Position, RoomId};
use tokio::io::AsyncReadExt;
use tokio::runtime::Runtime;

const PAYLOAD_BYTES: usize = 200;
const INFO: &[u8] = br#"{"user":"","client":"01234567-89ab-4def-8123-456789abcdef"}"#;

/// A JSON string of [`PAYLOAD_BYTES`].
fn payload() -> Bytes {
    format!("\"{}\"", "x".repeat(PAYLOAD_BYTES - 2)).into()
}

fn frame_building(c: &mut Criterion) {
    let prefix = PublicationPrefix::new("chat:room-1");
    let payload = payload();
    let mut builder = FrameBuilder::new();
    c.bench_function("frame", |b| {
        b.iter(|| {
            builder.clear();
            prefix.append(builder.payload_mut(), black_box(&payload), INFO, 12_345, "");
            black_box(builder.finish(Opcode::Text)).len()
        });
    });
}

/// A server on the memory backplane, in a runtime of two threads.
struct Bench {
    runtime: Runtime,
    server: Server,
}

impl Bench {
    fn new() -> Self {
        let runtime = manifold_server::runtime(2).expect("a runtime");
        let config = Config {
            listen: "127.0.0.1:0".to_owned(),
            giant_members_min: 1_000_000,
            inbound_rate_max: 0,
            ..Config::default()
        };
        let server = runtime.block_on(async {
            let listener = Server::bind(&config.listen).await.expect("a free port");
            let node = Node::new(config).expect("settings that hold");
            node.connect().await.expect("memory needs no broker");
            Server::start(node, listener).expect("a bound listener")
        });
        Self { runtime, server }
    }

    /// Connected clients in a room.
    fn members(&self, count: usize, room: &str) -> Vec<TcpStream> {
        (0..count).map(|_| member(self.server.address(), room)).collect()
    }

    /// Reads the clients' sockets in the background and counts the bytes.
    fn drain(&self, members: Vec<TcpStream>) -> Arc<AtomicU64> {
        let read = Arc::new(AtomicU64::new(0));
        for member in members {
            let read = Arc::clone(&read);
            self.runtime.spawn(async move {
                member.set_nonblocking(true).expect("a socket");
                let mut member = tokio::net::TcpStream::from_std(member).expect("a socket");
                let mut buffer = vec![0; 4096];
                while let Ok(count @ 1..) = member.read(&mut buffer).await {
                    read.fetch_add(count as u64, Relaxed);
                }
            });
        }
        read
    }
}

/// A client after handshake, connect and subscribe.
fn member(address: SocketAddr, room: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    let key = handshake::client_key([7; 16]);
    let mut request = Vec::new();
    handshake::append_request(&mut request, "bench", "/connection/websocket", &key, &[]);
    stream.write_all(&request).expect("the server reads");
    read_until(&mut stream, b"\r\n\r\n");
    let commands =
        format!("{{\"id\":1,\"connect\":{{}}}}\n{{\"id\":2,\"subscribe\":{{\"channel\":\"{room}\"}}}}");
    let mut frame = Vec::new();
    append_client_frame(&mut frame, Opcode::Text, commands.as_bytes(), [1, 2, 3, 4]);
    stream.write_all(&frame).expect("the server reads");
    read_until(&mut stream, b"\"subscribe\":{}}");
    stream
}

fn read_until(stream: &mut TcpStream, end: &[u8]) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        bytes.push(byte[0]);
    }
}

fn message(room: &RoomId, offset: u64) -> Event {
    let envelope = Envelope {
        room: room.clone(),
        id: MessageId(offset.into()),
        published_at_us: 0,
        info: Bytes::from_static(INFO),
        payload: payload(),
    };
    Event::Message(Message { envelope, position: Position { epoch: 99, offset } })
}

/// Time in `deliver`, per message. Readers keep up, outside of the measured time.
fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("fan_out");
    for (members, batch) in [(1, 1), (10, 1), (10, 16), (1000, 1)] {
        let bench = Bench::new();
        let room = RoomId::new("bench");
        let read = bench.drain(bench.members(members, room.as_str()));
        let entrance = bench.server.node().entrance();
        let mut offset = 0;
        deliver(&*entrance, &room, &mut offset, 1);
        let frame_bytes = settle(&read) / members as u64;
        let mut expected = read.load(Relaxed);
        group.throughput(Throughput::Elements(members as u64 * batch));
        group
            .sample_size(20)
            .measurement_time(Duration::from_secs(2))
            .warm_up_time(Duration::from_millis(500));
        group.bench_function(format!("{members}_members_batch_{batch}"), |b| {
            b.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                for _ in 0..iterations {
                    spent += deliver(&*entrance, &room, &mut offset, batch);
                    expected += frame_bytes * members as u64 * batch;
                    // Offsets grow by a digit now and then: the readers may be ahead of this.
                    while read.load(Relaxed) < expected {
                        std::thread::yield_now();
                    }
                }
                spent
            });
        });
    }
    group.finish();
}

fn deliver(entrance: &dyn Entrance, room: &RoomId, offset: &mut u64, count: u64) -> Duration {
    let mut batch: Vec<_> = (1..=count).map(|index| message(room, *offset + index)).collect();
    *offset += count;
    let start = Instant::now();
    entrance.deliver(&mut batch);
    start.elapsed()
}

/// Waits until nothing arrives any more, and says how much did.
fn settle(read: &AtomicU64) -> u64 {
    let mut before = 0;
    loop {
        std::thread::sleep(Duration::from_millis(100));
        let now = read.load(Relaxed);
        if now == before && now > 0 {
            return now;
        }
        before = now;
    }
}

/// From a publisher's write to its acknowledgement, into a room without members and into one with ten.
fn publish(c: &mut Criterion) {
    let bench = Bench::new();
    let mut publisher = member(bench.server.address(), "own");
    bench.drain(bench.members(10, "ten"));
    let mut group = c.benchmark_group("publish");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for room in ["empty", "ten"] {
        let command = format!(
            "{{\"id\":3,\"publish\":{{\"channel\":\"{room}\",\"data\":{}}}}}",
            String::from_utf8_lossy(&payload())
        );
        let mut frame = Vec::new();
        append_client_frame(&mut frame, Opcode::Text, command.as_bytes(), [1, 2, 3, 4]);
        group.bench_function(room, |b| {
            b.iter(|| {
                publisher.write_all(&frame).expect("the server reads");
                let mut reply = [0; 64];
                let count = publisher.read(&mut reply).expect("an answer");
                assert!(reply[..count].ends_with(b"\"publish\":{}}"));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frame_building, fan_out, publish);
criterion_main!(benches);
