//! The fuzz targets' checks over their seeds and mutations of them: bounded, and on any machine.
#![allow(clippy::unwrap_used)]

#[allow(unreachable_pub, reason = "there it is a library")]
#[path = "../../fuzz/src/lib.rs"]
mod checks;

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::TestRunner;

/// A change that fuzzers make.
#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Remove(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let interesting = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..4),
        prop::sample::select(vec!["{", "}", "\"", "\n", "null", "[", "0", "\\u0000", "é", "\"id\":"])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (any::<Index>(), 1..20_u8).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (any::<Index>(), interesting).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), 1..100_u8).prop_map(|(at, count)| Mutation::Repeat(at, count)),
    ]
}

fn mutate(mut bytes: Vec<u8>, mutations: &[Mutation]) -> Vec<u8> {
    for mutation in mutations {
        match mutation {
            _ if bytes.is_empty() => break,
            Mutation::Flip(at, bits) => {
                let at = at.index(bytes.len());
                bytes[at] ^= bits;
            }
            Mutation::Remove(at, count) => {
                let at = at.index(bytes.len());
                let end = (at + usize::from(*count)).min(bytes.len());
                bytes.drain(at..end);
            }
            Mutation::Insert(at, insert) => {
                let at = at.index(bytes.len());
                bytes.splice(at..at, insert.iter().copied());
            }
            Mutation::Repeat(at, count) => {
                let at = at.index(bytes.len());
                let end = (at + usize::from(*count)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
    seeds.iter().for_each(|seed| check(seed));
    let inputs = (prop::sample::select(seeds), prop::collection::vec(mutation(), 1..6));
    TestRunner::new(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })
        .run(&inputs, |(seed, mutations)| {
            check(&mutate(seed, &mutations));
            Ok(())
        })
        .unwrap();
}

#[test]
fn client_frames() {
    run("client_frames", checks::client_frames);
}

#[test]
fn replies() {
    run("replies", checks::replies_of);
}

#[test]
fn websocket_reader() {
    run("websocket_reader", checks::websocket_reader);
}
