//! Every message comes back as it was, and whatever else comes is refused.

use proptest::prelude::*;

use super::*;

fn who() -> impl Strategy<Value = Arc<Who>> {
    let info = prop_oneof![Just(""), Just("{\"name\":\"Ann\"}"), Just("[1,2]")];
    (any::<u128>(), "\\PC{0,12}", info.clone(), info).prop_map(|(client, user, conn_info, chan_info)| {
        let (conn_info, chan_info) = (conn_info.into(), chan_info.into());
        Arc::new(Who { client, user: user.into(), conn_info, chan_info })
    })
}

fn room() -> impl Strategy<Value = RoomId> {
    "[a-cé]{1,3}".prop_map(|name: String| RoomId::new(name))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (room(), who()).prop_map(|(room, who)| Op::Join(room, who)),
        (room(), any::<u128>()).prop_map(|(room, client)| Op::Leave(room, client)),
    ]
}

fn chunk() -> impl Strategy<Value = Chunk> {
    let entries = proptest::collection::btree_map((room(), any::<u128>()), who(), 1..20);
    (any::<u64>(), any::<u64>(), any::<u32>(), any::<bool>(), any::<bool>(), entries).prop_map(
        |(sequence, snapshot, index, last, from_start, entries)| {
            let with_client = |((room, client), who): ((RoomId, u128), Arc<Who>)| {
                (room, Arc::new(Who { client, ..(*who).clone() }))
            };
            let mut entries: Vec<_> = entries.into_iter().map(with_client).collect();
            let mut after = None;
            if !from_start && (last || entries.len() > 1) {
                let (room, who) = entries.remove(0);
                after = Some(Key { room, client: who.client });
            }
            Chunk { sequence, snapshot, index, after, last, entries }
        },
    )
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(sequence, entries)| Body::Heartbeat { sequence, entries }),
        (any::<u64>(), proptest::collection::vec(op(), 0..20))
            .prop_map(|(sequence, ops)| Body::Batch { sequence, ops }),
        proptest::collection::vec(any::<u64>(), 0..20).prop_map(|targets| Body::Request { targets }),
        chunk().prop_map(Body::Chunk),
        Just(Body::Call),
        Just(Body::Goodbye),
    ]
}

proptest! {
    #[test]
    fn a_message_comes_back_as_it_was(from: u64, body in body()) {
        let message = Message::encode(from, &body);
        prop_assert_eq!(sender(&message), Ok(from));
        prop_assert_eq!(Message::decode(&message), Ok(Message { from, body }));
    }

    #[test]
    fn any_bytes_are_read_or_refused(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::decode(&message);
    }

    #[test]
    fn any_body_is_read_or_refused(kind in 0_u8..7, body in proptest::collection::vec(0_u8..5, 0..200)) {
        let mut message = vec![VERSION, kind, 0, 0, 0, 0, 0, 0, 0, 1];
        message.extend(body);
        if let Ok(read) = Message::decode(&message) {
            // Rooms that are named twice are written once.
            prop_assert_eq!(Message::decode(&Message::encode(1, &read.body)), Ok(read));
        }
    }

    #[test]
    fn a_changed_or_cut_message_never_panics(body in body(), at in 0_usize..300, byte: u8, cut in 0_usize..300) {
        let mut message = Message::encode(7, &body);
        if let Some(place) = message.get_mut(at) {
            *place = byte;
        }
        message.truncate(message.len().saturating_sub(cut));
        let _ = Message::decode(&message);
    }

    #[test]
    fn what_has_space_fits(ops in proptest::collection::vec(op(), 0..40), shrunk in 0_usize..1000) {
        let mut space = Space(shrunk);
        let fitting: Vec<_> = ops.into_iter().take_while(|op| space.take(op)).collect();
        let message = Message::encode(1, &Body::Batch { sequence: 1, ops: fitting });
        prop_assert!(message.len() <= HEADER_BYTES + 8 + shrunk);
    }
}

#[test]
fn other_versions_are_refused() {
    let mut message = Message::encode(1, &Body::Call);
    message[0] = 2;
    assert_eq!(Message::decode(&message), Err(Refused::Version(2)));
    assert_eq!(sender(&message), Err(Refused::Version(2)));
    assert!(matches!(Message::decode(b""), Err(Refused::Malformed(_))));
}

#[test]
fn limits_are_checked() {
    let long = Arc::new(Who { user: "x".repeat(USER_BYTES_MAX).into(), ..Who::default() });
    let join = Op::Join(RoomId::new("r".repeat(RoomId::BYTES_MAX)), long);
    let body = Body::Batch { sequence: 1, ops: vec![join; 30] };
    let message = Message::encode(1, &body);
    assert_eq!(Message::decode(&message).map(|message| message.body), Ok(body));
    let ops = vec![Op::Leave(RoomId::new("a"), 1); 2_000];
    let longer = Message::encode(1, &Body::Batch { sequence: 1, ops });
    assert!(longer.len() > MESSAGE_BYTES_MAX && Message::decode(&longer).is_err());
    let number = Arc::new(Who { chan_info: "12".into(), ..Who::default() });
    let ops = vec![Op::Join(RoomId::new("a"), number)];
    let mut bad_json = Message::encode(1, &Body::Batch { sequence: 1, ops });
    *bad_json.last_mut().unwrap() = b',';
    assert_eq!(Message::decode(&bad_json), Err(Refused::Malformed("an info that is not JSON")));
}

#[test]
fn a_snapshot_out_of_order_is_refused() {
    let entry = |client| (RoomId::new("a"), Arc::new(Who { client, ..Who::default() }));
    let chunk = |after: Option<u128>, clients: &[u128], last| {
        let after = after.map(|client| Key { room: RoomId::new("a"), client });
        let entries = clients.iter().map(|client| entry(*client)).collect();
        Message::encode(1, &Body::Chunk(Chunk { sequence: 1, snapshot: 1, index: 0, after, last, entries }))
    };
    assert!(Message::decode(&chunk(Some(1), &[2, 3], false)).is_ok());
    assert!(Message::decode(&chunk(None, &[], true)).is_ok());
    for wrong in [chunk(Some(2), &[2], true), chunk(None, &[3, 2], true), chunk(None, &[], false)] {
        assert!(matches!(Message::decode(&wrong), Err(Refused::Malformed(_))));
    }
}
