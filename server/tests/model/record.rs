//! What clients write down.

use serde_json::Value;

/// A message as a client was told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) tag: u64,
    /// 0 for none.
    pub(crate) offset: u64,
}

/// An answer to a subscribe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entered {
    /// Of the node that it was sent to.
    pub(crate) link: usize,
    pub(crate) positioned: bool,
    /// It asked for what it missed.
    pub(crate) came_back: bool,
    pub(crate) recovered: bool,
    pub(crate) epoch: String,
    pub(crate) offset: u64,
    pub(crate) missed: Vec<Told>,
    /// Messages that the room had accepted when this was read.
    pub(crate) stands: usize,
}

/// What a client saw of a room, in the order in which it saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Entered(Entered),
    Got(Told),
    /// The server ended the subscription, with this code.
    SentAway(u64),
    Left,
    /// The connection ended.
    Cut,
}

/// A message that a client published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) tag: u64,
    pub(crate) room: usize,
    /// It may have been sent several times, under one key.
    pub(crate) keyed: bool,
    /// On which of the client's connections.
    pub(crate) connection: usize,
    pub(crate) acknowledged: bool,
}

impl Told {
    pub(crate) fn read(publication: &Value) -> Self {
        let tag = publication["data"].as_u64().unwrap_or(u64::MAX);
        Self { tag, offset: publication["offset"].as_u64().unwrap_or_default() }
    }

    pub(crate) fn read_all(publications: &Value) -> Vec<Self> {
        publications.as_array().map(|all| all.iter().map(Self::read).collect()).unwrap_or_default()
    }

    /// Moves a client's position on to this message, as the SDKs do.
    pub(crate) fn advance(self, position: &mut Option<(String, u64)>) {
        if let Some((_, offset)) = position
            && self.offset > 0
        {
            *offset = self.offset;
        }
    }
}

/// How often what the oracle judges came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) live: usize,
    /// Recoveries with nothing missed, with something, and in another numbering.
    pub(crate) recovered_nothing: usize,
    pub(crate) recovered: usize,
    pub(crate) handed_over: usize,
    pub(crate) not_recovered: usize,
    pub(crate) sent_away: usize,
    pub(crate) cut: usize,
    pub(crate) acknowledged: usize,
    pub(crate) unacknowledged: usize,
}

impl Tally {
    pub(crate) fn see(&mut self, seen: &Seen) {
        match seen {
            Seen::Entered(entered) if entered.came_back => {
                let count = match (entered.recovered, entered.missed.is_empty()) {
                    (false, _) => &mut self.not_recovered,
                    (true, true) => &mut self.recovered_nothing,
                    (true, false) if entered.epoch.ends_with('~') => &mut self.handed_over,
                    (true, false) => &mut self.recovered,
                };
                *count += 1;
            }
            Seen::Got(_) => self.live += 1,
            Seen::SentAway(_) => self.sent_away += 1,
            Seen::Cut => self.cut += 1,
            Seen::Entered(_) | Seen::Left => {}
        }
    }

    /// What came about least often, as a number.
    pub(crate) fn least(&self) -> usize {
        let Self { live, recovered_nothing, recovered, handed_over, not_recovered, .. } = *self;
        let Self { sent_away, cut, acknowledged, unacknowledged, .. } = *self;
        let entries = [live, recovered_nothing, recovered, handed_over, not_recovered];
        let rest = [sent_away, cut, acknowledged, unacknowledged];
        entries.into_iter().chain(rest).min().unwrap_or_default()
    }
}
