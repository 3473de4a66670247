//! What a server may do wrong on purpose.

use std::str::FromStr;
use std::time::Duration;

/// A fault that the null server commits. `every` counts deliveries (publishes for refusals), from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Misbehaviour {
    /// Doesn't send every nth delivery.
    Drop {
        /// n.
        every: u64,
    },
    /// Sends every nth delivery twice.
    Repeat {
        /// n.
        every: u64,
    },
    /// Sends every nth delivery after the member's next one.
    Swap {
        /// n.
        every: u64,
    },
    /// Sends every nth delivery also to somebody who is in another room.
    Stranger {
        /// n.
        every: u64,
    },
    /// Sends the nth delivery, and only that one, late.
    Late {
        /// n.
        nth: u64,
        /// By so much.
        by: Duration,
    },
    /// Sends the nth delivery, and only that one, a second time, late.
    Echo {
        /// n.
        nth: u64,
        /// By so much.
        by: Duration,
    },
    /// Damages every nth delivery's payload.
    Damage {
        /// n.
        every: u64,
    },
    /// Drops every nth delivery and tells the member so, with an unsubscribe push 2500.
    Gap {
        /// n.
        every: u64,
    },
    /// Says that a member which comes back got all that it missed, and leaves one message out: in every nth recovery that
    /// brings at least two.
    Forget {
        /// n.
        every: u64,
    },
    /// Gives one message twice in every nth of those.
    Recur {
        /// n.
        every: u64,
    },
    /// Gives two messages in the wrong order in every nth of those.
    Shuffle {
        /// n.
        every: u64,
    },
    /// Answers every nth of those as if nobody had asked for what was missed: neither given nor said to be lost.
    Ignore {
        /// n.
        every: u64,
    },
    /// Forgets one message in each of the first n of those, and says of all later ones that it could not recover them, as
    /// if that covered it.
    Cover {
        /// n.
        after: u64,
    },
    /// Says in each of those that it could not recover, and gives the newest n messages of the room once more: with the
    /// reply and right behind it by turns.
    Rerun {
        /// n.
        count: u64,
    },
    /// Answers every nth publish with an error, and delivers nothing.
    Refuse {
        /// n.
        every: u64,
    },
    /// Carries every nth publish out late and answers it then, also if its connection has ended meanwhile.
    Linger {
        /// n.
        every: u64,
        /// By so much.
        by: Duration,
    },
    /// Answers every nth publish at once, and carries it out late.
    Postpone {
        /// n.
        every: u64,
        /// By so much.
        by: Duration,
    },
    /// Does nothing at all for a while.
    Stall {
        /// After this many publishes.
        after: u64,
        /// For so long.
        lasting: Duration,
    },
    /// Closes everything, without a word.
    Die {
        /// After this many publishes.
        after: u64,
    },
}

impl FromStr for Misbehaviour {
    type Err = String;

    /// `drop:100`, `repeat:100`, `swap:100`, `stranger:100`, `damage:100`, `gap:100`, `refuse:100`, `forget:10`,
    /// `recur:10`, `shuffle:10`, `ignore:10`, `cover:10` and `rerun:10` (recoveries, messages), `late:100:900`, `echo:100:900`, `linger:100:900` and `postpone:100:900` (by milliseconds), `stall:5000:1000` (after publishes,
    /// for milliseconds), `die:5000`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{text}`: expected drop, repeat, swap, stranger, damage, gap, refuse, forget, recur, shuffle, ignore, \
                 cover, rerun or die with a count (drop:100), or late, echo, linger, postpone or stall with a count and milliseconds (stall:5000:1000)"
            )
        };
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let mut numbers = parts.map(|part| part.parse::<u64>().ok().filter(|number| *number > 0));
        let every = numbers.next().flatten().ok_or_else(wrong)?;
        let then = numbers.next();
        match (name, then) {
            ("drop", None) => Ok(Self::Drop { every }),
            ("repeat", None) => Ok(Self::Repeat { every }),
            ("swap", None) => Ok(Self::Swap { every }),
            ("stranger", None) => Ok(Self::Stranger { every }),
            ("damage", None) => Ok(Self::Damage { every }),
            ("gap", None) => Ok(Self::Gap { every }),
            ("refuse", None) => Ok(Self::Refuse { every }),
            ("forget", None) => Ok(Self::Forget { every }),
            ("recur", None) => Ok(Self::Recur { every }),
            ("shuffle", None) => Ok(Self::Shuffle { every }),
            ("ignore", None) => Ok(Self::Ignore { every }),
            ("cover", None) => Ok(Self::Cover { after: every }),
            ("rerun", None) => Ok(Self::Rerun { count: every }),
            ("die", None) => Ok(Self::Die { after: every }),
            ("late", Some(Some(ms))) => Ok(Self::Late { nth: every, by: Duration::from_millis(ms) }),
            ("echo", Some(Some(ms))) => Ok(Self::Echo { nth: every, by: Duration::from_millis(ms) }),
            ("linger", Some(Some(ms))) => Ok(Self::Linger { every, by: Duration::from_millis(ms) }),
            ("postpone", Some(Some(ms))) => Ok(Self::Postpone { every, by: Duration::from_millis(ms) }),
            ("stall", Some(Some(ms))) => Ok(Self::Stall { after: every, lasting: Duration::from_millis(ms) }),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_parsed_or_refused() {
        assert_eq!("drop:7".parse(), Ok(Misbehaviour::Drop { every: 7 }));
        assert_eq!("shuffle:3".parse(), Ok(Misbehaviour::Shuffle { every: 3 }));
        assert_eq!("ignore:3".parse(), Ok(Misbehaviour::Ignore { every: 3 }));
        assert_eq!("cover:3".parse(), Ok(Misbehaviour::Cover { after: 3 }));
        assert_eq!("rerun:3".parse(), Ok(Misbehaviour::Rerun { count: 3 }));
        let lasting = Duration::from_secs(1);
        assert_eq!("stall:50:1000".parse(), Ok(Misbehaviour::Stall { after: 50, lasting }));
        let by = Duration::from_millis(5);
        assert_eq!("late:9:5".parse(), Ok(Misbehaviour::Late { nth: 9, by }));
        assert_eq!("echo:9:5".parse(), Ok(Misbehaviour::Echo { nth: 9, by }));
        assert_eq!("linger:9:5".parse(), Ok(Misbehaviour::Linger { every: 9, by }));
        assert_eq!("postpone:9:5".parse(), Ok(Misbehaviour::Postpone { every: 9, by }));
        for wrong in ["", "drop", "drop:0", "drop:x", "drop:1:2", "stall:1", "stall:1:x", "explode:1"] {
            assert!(wrong.parse::<Misbehaviour>().is_err(), "{wrong}");
        }
    }
}
