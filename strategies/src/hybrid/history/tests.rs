//! What is made of what the log tells, and of where the room stands.

use bytes::Bytes;

use super::*;
use crate::backplane::{Envelope, MessageId};
use crate::kafka_history::log::Located;

const SINCE: Position = Position { epoch: 7, offset: 2 };

fn at(epoch: u64, offset: u64) -> Position {
    Position { epoch, offset }
}

/// Records behind `since` with these positions; their log offsets count up from 0.
fn order(since: Position, positions: &[(u64, u64)]) -> Order {
    let located = |(offset, &(epoch, place)): (i64, &(u64, u64))| {
        let envelope = Envelope {
            room: RoomId::new("room"),
            id: MessageId(offset as u128),
            published_at_us: 0,
            info: Bytes::new(),
            payload: Bytes::new(),
        };
        let position = (place > 0).then_some(at(epoch, place));
        Located { offset, appended_ms: 0, position, envelope }
    };
    Order::new(Some(since), (0..).zip(positions).map(located))
}

fn asked(since: Position, end: i64, stands: Option<(Position, bool)>) -> Asked {
    let stands = stands.map(|(at, delivered)| Stands { at, delivered });
    Asked {
        room: RoomId::new("room"),
        partition: 0,
        since,
        limit: 9,
        end,
        unlogged: Some(Vec::new()),
        stands,
    }
}

/// How many messages, and the top; or whether it is worth looking again.
fn told(verdict: Verdict) -> std::result::Result<(usize, Position), bool> {
    match verdict {
        Verdict::Resumed(Resumed::Complete { messages, top }) => Ok((messages.len(), top)),
        Verdict::Resumed(Resumed::Incomplete { .. }) | Verdict::Never => Err(false),
        Verdict::NotYet => Err(true),
    }
}

#[test]
fn what_was_delivered_here_must_be_in_the_log() {
    let verdict = |stands| told(asked(SINCE, 2, stands).verdict(order(SINCE, &[(7, 3), (7, 4)]), false));
    assert_eq!(verdict(Some((at(7, 4), true))), Ok((2, at(7, 4))));
    assert_eq!(verdict(Some((at(7, 5), true))), Err(true), "it is on its way");
    assert_eq!(verdict(Some((at(7, 5), false))), Ok((2, at(7, 4))), "assigned, and acknowledged to nobody");
    assert_eq!(verdict(None), Ok((2, at(7, 4))), "nobody knows better");
}

#[test]
fn the_top_is_of_the_epoch_that_live_messages_have() {
    let verdict = |stands, other| told(asked(SINCE, 1, stands).verdict(order(SINCE, &[(7, 3)]), other));
    assert_eq!(verdict(Some((at(8, 0), true)), false), Ok((1, at(8, 0))));
    assert_eq!(verdict(Some((at(8, 1), true)), false), Err(true), "its first message is missing");
    assert_eq!(verdict(Some((at(8, 1), false)), false), Err(true));
    assert_eq!(verdict(None, true), Err(false), "another epoch may have followed already");
    let both = order(SINCE, &[(7, 3), (0, 0), (8, 1)]);
    assert_eq!(told(asked(SINCE, 3, Some((at(8, 1), true))).verdict(both, false)), Ok((3, at(8, 1))));
    let both = order(SINCE, &[(7, 3), (8, 1)]);
    assert_eq!(told(asked(SINCE, 2, Some((at(7, 3), true))).verdict(both, false)), Err(true));
}

#[test]
fn who_has_seen_nothing_must_find_the_epoch() {
    let since = at(7, 0);
    let verdict = |stands, positions: &[(u64, u64)]| {
        told(asked(since, 9, stands).verdict(order(since, positions), false))
    };
    assert_eq!(verdict(Some((since, true)), &[]), Ok((0, since)));
    assert_eq!(verdict(Some((at(8, 0), false)), &[]), Err(false));
    assert_eq!(verdict(None, &[]), Err(false));
    assert_eq!(verdict(Some((at(7, 1), true)), &[(7, 1)]), Ok((1, at(7, 1))));
}
