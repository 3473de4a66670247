//! What runs per message or per delivery: decode a publish command, encode a publication push, frame and unmask.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use manifold_protocol::websocket::{
    Event, FrameBuilder, Limits, Opcode, Reader, append_client_frame, unmask,
};
use manifold_protocol::{PublicationPrefix, Reply, ReplyBody, json};

const PAYLOAD_BYTES: usize = 200;

fn payload() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 11))
}

fn publish_command() -> String {
    format!("{{\"id\":7,\"publish\":{{\"channel\":\"room:1234\",\"data\":{}}}}}", payload())
}

fn decode(c: &mut Criterion) {
    let command = publish_command();
    c.bench_function("decode/publish_200", |b| {
        b.iter(|| {
            for command in json::commands(black_box(&command)) {
                black_box(&command.expect("valid"));
            }
        });
    });
    let mut push = Vec::new();
    let info = br#"{"user":"","client":"0c8b21e5-7f0e-4f57-9f30-5a3c2b1f0d11"}"#;
    PublicationPrefix::new("room:1234").append(&mut push, payload().as_bytes(), info, 123_456, "");
    let push = String::from_utf8(push).expect("UTF-8");
    c.bench_function("decode/publication_push_200", |b| {
        b.iter(|| {
            for reply in json::replies(black_box(&push)) {
                black_box(&reply.expect("valid"));
            }
        });
    });
}

fn encode(c: &mut Criterion) {
    let prefix = PublicationPrefix::new("room:1234");
    let info = br#"{"user":"","client":"0c8b21e5-7f0e-4f57-9f30-5a3c2b1f0d11"}"#;
    let data = payload();
    let mut builder = FrameBuilder::new();
    c.bench_function("encode/publication_frame_200", |b| {
        b.iter(|| {
            builder.clear();
            prefix.append(builder.payload_mut(), black_box(data.as_bytes()), info, black_box(123_456), "");
            black_box(builder.finish(Opcode::Text));
        });
    });
    c.bench_function("encode/publish_ack", |b| {
        b.iter(|| {
            builder.clear();
            json::append_reply(
                builder.payload_mut(),
                &Reply { id: black_box(4711), body: ReplyBody::Publish },
            );
            black_box(builder.finish(Opcode::Text));
        });
    });
}

fn frames(c: &mut Criterion) {
    let mut frame = Vec::new();
    append_client_frame(&mut frame, Opcode::Text, publish_command().as_bytes(), [1, 2, 3, 4]);
    c.bench_function("websocket/read_frame_200", |b| {
        let mut reader = Reader::server(Limits::default());
        b.iter_batched_ref(
            || frame.clone(),
            |bytes| {
                let mut input = reader.feed(bytes);
                while let Some(event) = input.next().expect("valid") {
                    assert!(matches!(black_box(event), Event::Text(_)));
                }
            },
            BatchSize::SmallInput,
        );
    });
    let mut group = c.benchmark_group("websocket/unmask");
    for bytes in [200, 65_536] {
        let mut buffer = vec![0_u8; bytes];
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(bytes.to_string(), |b| {
            b.iter(|| unmask(black_box(&mut buffer), [1, 2, 3, 4], 0))
        });
    }
}

criterion_group!(benches, decode, encode, frames);
criterion_main!(benches);
