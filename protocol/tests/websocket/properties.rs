//! What holds for any stream.

use manifold_protocol::websocket::{Limits, Reader, Role};
use proptest::prelude::*;

use super::{bytes_of, read, stream};

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..2000_usize, 0..30).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_valid_stream_reads_the_same_however_it_is_split(frames in stream(), cuts in cuts()) {
        let bytes = bytes_of(&frames);
        let whole = read(Role::Server, Limits::default(), &bytes, &[]);
        prop_assert_eq!(whole.1, None);
        prop_assert_eq!(read(Role::Server, Limits::default(), &bytes, &cuts), whole);
    }

    #[test]
    fn any_bytes_read_the_same_however_they_are_split(
        bytes in prop::collection::vec(any::<u8>(), 0..600), cuts in cuts(), role in role(),
    ) {
        let limits = Limits { frame_bytes_max: 200, message_bytes_max: 300 };
        let whole = read(role, limits, &bytes, &[]);
        prop_assert_eq!(read(role, limits, &bytes, &cuts), whole);
    }

    #[test]
    fn a_valid_stream_with_one_wrong_byte_reads_the_same_however_it_is_split(
        frames in stream(), cuts in cuts(), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let mut bytes = bytes_of(&frames);
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
        }
        let whole = read(Role::Server, Limits::default(), &bytes, &[]);
        prop_assert_eq!(read(Role::Server, Limits::default(), &bytes, &cuts), whole);
    }

    #[test]
    fn what_is_held_back_is_bounded(bytes in prop::collection::vec(any::<u8>(), 0..2000), role in role()) {
        let limits = Limits { frame_bytes_max: 50, message_bytes_max: 100 };
        let mut reader = Reader::new(role, limits);
        for mut piece in bytes.chunks(7).map(<[u8]>::to_vec) {
            let mut input = reader.feed(&mut piece);
            while let Ok(Some(_)) = input.next() {}
            prop_assert!(reader.pending_bytes() <= 100 + 125 + 14);
        }
    }
}
