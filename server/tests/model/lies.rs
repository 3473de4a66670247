//! Lies: what a server that is wrong would tell. Each is put between the server and a client's record, so that the oracle has to
//! find it there; one that it does not find would be a promise that nobody watches.

use crate::record::{Entered, Told};

/// A lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A live message is lost in silence.
    Lose,
    Repeat,
    Swap,
    /// A live message of another room, or of nobody.
    Stranger,
    /// A live message has the offset of the next one.
    Shift,
    /// A recovery lacks the message in its middle.
    RecoverWithout,
    /// It has its first message twice.
    RecoverTwice,
    RecoverSwapped,
    /// What could not be recovered is said to be.
    RecoverInVain,
    /// Nobody ever recovers.
    RecoverNever,
    /// Members are not told that they must subscribe again.
    Hush,
    /// A publish that failed is acknowledged.
    Acknowledge,
    /// Somebody is present who is not.
    Ghost,
    /// Somebody is not who is.
    Absent,
}

impl Lie {
    pub(crate) const ALL: [Self; 14] = [
        Self::Lose,
        Self::Repeat,
        Self::Swap,
        Self::Stranger,
        Self::Shift,
        Self::RecoverWithout,
        Self::RecoverTwice,
        Self::RecoverSwapped,
        Self::RecoverInVain,
        Self::RecoverNever,
        Self::Hush,
        Self::Acknowledge,
        Self::Ghost,
        Self::Absent,
    ];
    /// What the oracle has to say of it.
    pub(crate) fn shows(self) -> &'static str {
        match self {
            Self::Lose | Self::Swap | Self::RecoverWithout | Self::RecoverSwapped => "missing before",
            Self::Repeat | Self::RecoverTwice => "came twice",
            Self::RecoverInVain | Self::Hush => "not told",
            Self::Stranger => "nobody published here",
            Self::Shift => "does not stand at",
            Self::RecoverNever => "could not recover, and nothing was lost",
            Self::Acknowledge => "acknowledged and is nowhere",
            Self::Ghost | Self::Absent => "are there, and",
        }
    }

    /// Every how many messages a lie is told.
    const EVERY: u64 = 7;
}

/// Tells a client's lie, if there is one.
pub(crate) struct Liar {
    lie: Option<Lie>,
    messages: u64,
    held: Option<Told>,
}

impl Liar {
    pub(crate) fn new(lie: Option<Lie>) -> Self {
        Self { lie, messages: 0, held: None }
    }

    fn tells(&self, lie: Lie) -> bool {
        self.lie == Some(lie)
    }

    /// What becomes of a live message.
    pub(crate) fn live(&mut self, told: Told) -> Vec<Told> {
        if let Some(held) = self.held.take() {
            return vec![told, held];
        }
        self.messages += 1;
        if !self.messages.is_multiple_of(Lie::EVERY) {
            return vec![told];
        }
        match self.lie {
            Some(Lie::Lose) => vec![],
            Some(Lie::Repeat) => vec![told, told],
            Some(Lie::Swap) => {
                self.held = Some(told);
                vec![]
            }
            Some(Lie::Stranger) => vec![told, Told { tag: 1_000_000, ..told }],
            Some(Lie::Shift) if told.offset > 0 => vec![Told { offset: told.offset + 1, ..told }],
            _ => vec![told],
        }
    }

    pub(crate) fn recovery(&self, entered: &mut Entered) {
        let missed = &mut entered.missed;
        match self.lie {
            Some(Lie::RecoverWithout) if !missed.is_empty() => drop(missed.remove(missed.len() / 2)),
            Some(Lie::RecoverTwice) => missed.extend(missed.first().copied()),
            Some(Lie::RecoverSwapped) if missed.len() > 1 => missed.swap(0, 1),
            Some(Lie::RecoverInVain) => entered.recovered |= entered.came_back,
            Some(Lie::RecoverNever) => {
                entered.recovered = false;
                missed.clear();
            }
            _ => {}
        }
    }

    pub(crate) fn hushes(&self) -> bool {
        self.tells(Lie::Hush)
    }

    pub(crate) fn acknowledges(&self) -> bool {
        self.tells(Lie::Acknowledge)
    }

    pub(crate) fn presence(&self, mut clients: Vec<String>) -> Vec<String> {
        match self.lie {
            Some(Lie::Ghost) => clients.push("nobody".to_owned()),
            Some(Lie::Absent) => drop(clients.pop()),
            _ => {}
        }
        clients
    }
}
