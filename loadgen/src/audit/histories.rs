//! Generated histories of a few members and senders, for the audit and its oracle.

use proptest::prelude::*;

pub(super) const MEMBERS: usize = 3;
pub(super) const STREAMS: usize = 2;

/// What happens to one member, in order.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Every sender sends `1` message in `stream`.
    Send { stream: u8, outcome: Outcome },
    /// A sender comes back over another connection.
    Reconnect { stream: u8 },
    /// A queued delivery arrives: the one at this place of the queue (0 = oldest).
    Deliver { member: u8, place: u8 },
    /// As `Deliver`, but the message stays queued: it will come again.
    Repeat { member: u8, place: u8 },
    /// A queued delivery is dropped.
    Drop { member: u8, place: u8 },
    /// Member asks to leave: what was sent by then may still come, and is owed if it was acknowledged in good time.
    Ask { member: u8 },
    /// Member goes, in one of three ways; queued deliveries are dropped.
    Leave { member: u8, how: u8 },
    /// Member comes. The server gives it the last messages from before, too: had, or not owed.
    Join { member: u8, again: u8 },
    /// Member's connection breaks, and it means to come back; what is queued meanwhile is the room's history.
    Lose { member: u8 },
    /// Member is back, and is said to have missed nothing. It gets its history: whole, or less one message, or one
    /// twice, or the last two swapped; less the newest ones, which come live.
    Recover { member: u8, how: u8, live: u8 },
    /// Member is back, and is told that what it missed is lost. It gets some of it all the same, and some of what was
    /// before once more.
    Restart { member: u8, given: u8, again: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Outcome {
    Acknowledged,
    /// Acknowledged so many milliseconds later.
    Late(u8),
    Refused,
    Unknown,
}

pub(super) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = prop_oneof![8 => Just(0_u8), 1 => 0_u8..100];
    let outcome = prop_oneof![
        20 => Just(Outcome::Acknowledged), 3 => (0_u8..60).prop_map(Outcome::Late),
        1 => Just(Outcome::Refused), 3 => Just(Outcome::Unknown)
    ];
    let member = 0..MEMBERS as u8;
    let step = prop_oneof![
        40 => (0..STREAMS as u8, outcome).prop_map(|(stream, outcome)| Step::Send { stream, outcome }),
        4 => (0..STREAMS as u8).prop_map(|stream| Step::Reconnect { stream }),
        90 => (member.clone(), place.clone()).prop_map(|(member, place)| Step::Deliver { member, place }),
        3 => (member.clone(), place.clone()).prop_map(|(member, place)| Step::Repeat { member, place }),
        10 => (member.clone(), place).prop_map(|(member, place)| Step::Drop { member, place }),
        1 => (member.clone(), 0_u8..3).prop_map(|(member, how)| Step::Leave { member, how }),
        1 => member.clone().prop_map(|member| Step::Ask { member }),
        1 => (member.clone(), 0_u8..9).prop_map(|(member, again)| Step::Join { member, again }),
        2 => member.clone().prop_map(|member| Step::Lose { member }),
        2 => (member.clone(), 0_u8..6, 0_u8..3)
            .prop_map(|(member, how, live)| Step::Recover { member, how, live }),
        1 => (member, 0_u8..4, 0_u8..9)
            .prop_map(|(member, given, again)| Step::Restart { member, given, again }),
    ];
    prop::collection::vec(step, 0..3_000)
}
