//! Histories: what happens to a cluster, step by step. A history follows from its seed alone, and each step makes sense (or
//! does nothing) whatever the steps before it did, so that any of them can be left out.

use crate::random::Random;

pub(crate) const NODES: usize = 3;
pub(crate) const CLIENTS: usize = 4;
pub(crate) const ROOMS: [&str; 2] = ["a", "b"];

/// How the simulated broker numbers messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbers {
    /// By one in each room, as Redis and hybrid do.
    Dense,
    /// One rising count for all rooms, as a keyed log does.
    Rising,
    /// Each node reads a copy with offsets and an epoch of its own, as broadcast does.
    Copies,
}

/// What a case is set up with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) numbers: Numbers,
    /// Nodes receive all rooms, not just those that they joined.
    pub(crate) everything: bool,
    /// Nodes look into memory of their own before they ask the broker for history.
    pub(crate) rings: bool,
    /// A join takes effect before it resolves.
    pub(crate) early_joins: bool,
    /// Nothing happens that may lose anything: then everybody who comes back has to recover.
    pub(crate) calm: bool,
    pub(crate) giant_members_min: u64,
    pub(crate) leave_linger_ms: u64,
    pub(crate) hold_bytes_max: u64,
    pub(crate) recovery_messages_max: u32,
}

/// What a subscriber wishes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Plain,
    Positioned,
    Recoverable,
}

/// One thing that happens. Numbers name clients, nodes and rooms; times are milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action {
    Connect {
        client: usize,
        node: usize,
    },
    /// The client is gone; with `unread`, before it has read what lies in its socket.
    Disconnect {
        client: usize,
        unread: bool,
    },
    /// The client goes down in the middle of what it gets when it next recovers.
    BreakOff {
        client: usize,
    },
    Subscribe {
        client: usize,
        room: usize,
        kind: Kind,
    },
    Unsubscribe {
        client: usize,
        room: usize,
    },
    Publish {
        client: usize,
        room: usize,
        count: usize,
    },
    /// With an idempotency key.
    PublishKeyed {
        client: usize,
        room: usize,
    },
    /// Whatever the client has published with a key and not heard of is published again.
    Repeat {
        client: usize,
    },
    Crash {
        node: usize,
    },
    Start {
        node: usize,
    },
    /// The node's link to the broker breaks. `lossy`: what was meant for it meanwhile is lost, and declared.
    LinkDown {
        node: usize,
        lossy: bool,
    },
    LinkUp {
        node: usize,
    },
    /// The node's next messages are lost on their way, `declared` as a gap or (where positions show it) not.
    Lose {
        node: usize,
        count: u32,
        declared: bool,
    },
    Duplicate {
        node: usize,
        count: u32,
    },
    /// The node's next message overtakes the one before it.
    Swap {
        node: usize,
    },
    Delay {
        node: usize,
        ms: u64,
    },
    /// History takes so long, and tells what it was at the beginning or (`late`) at the end of that time.
    HistoryDelay {
        node: usize,
        ms: u64,
        late: bool,
    },
    JoinDelay {
        node: usize,
        ms: u64,
    },
    FailJoins {
        node: usize,
        count: u32,
    },
    FailHistory {
        node: usize,
        count: u32,
    },
    /// The node's next publishes fail, with `kept` although the broker has them.
    FailPublishes {
        node: usize,
        count: u32,
        kept: bool,
    },
    AckDelay {
        ms: u64,
    },
    /// History keeps the newest messages alone.
    Evict {
        room: usize,
        keep: usize,
    },
    /// Positions start anew, and nothing is lost.
    Renumber {
        room: usize,
    },
    /// A position is used up without a message.
    Skip {
        room: usize,
    },
    /// Messages that nodes send each other are lost.
    LoseHidden {
        node: usize,
        count: u32,
    },
}

/// A step, and how long nothing else happens after it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) action: Action,
    pub(crate) then_ms: u64,
}

impl Setup {
    pub(crate) fn of(random: &mut Random) -> Self {
        Self {
            numbers: random.pick(&[Numbers::Dense, Numbers::Dense, Numbers::Rising, Numbers::Copies]),
            everything: random.percent(50),
            rings: random.percent(50),
            early_joins: random.percent(50),
            calm: random.percent(25),
            giant_members_min: random.pick(&[2, 512, 512]),
            leave_linger_ms: random.pick(&[0, 0, 20, 1_000]),
            hold_bytes_max: random.pick(&[1_024, 1 << 20]),
            recovery_messages_max: random.pick(&[2, 5, 300]),
        }
        .made_calm()
    }

    fn made_calm(self) -> Self {
        if self.calm { Self { hold_bytes_max: 1 << 20, recovery_messages_max: 300, ..self } } else { self }
    }
}

/// The history that belongs to a seed.
pub(crate) fn history(random: &mut Random, setup: &Setup) -> Vec<Step> {
    let mut steps = Vec::new();
    for client in 0..CLIENTS {
        steps.push(Step { action: Action::Connect { client, node: random.below(NODES) }, then_ms: 0 });
        let room = random.below(ROOMS.len());
        let kind = random.pick(&[Kind::Recoverable, Kind::Recoverable, Kind::Positioned, Kind::Plain]);
        steps.push(Step { action: Action::Subscribe { client, room, kind }, then_ms: 0 });
    }
    let count = 10 + random.below(50);
    while steps.len() < count {
        let action = action(random, setup);
        let then_ms = random.pick(&[0, 0, 1, 3, 10, 40, 200, 800]);
        steps.push(Step { action, then_ms });
    }
    steps
}

fn action(random: &mut Random, setup: &Setup) -> Action {
    let client = random.below(CLIENTS);
    let room = random.below(ROOMS.len());
    let node = random.below(NODES);
    let count = u32::try_from(1 + random.below(3)).expect("small");
    match random.below(100) {
        0..20 => Action::Publish { client, room, count: random.pick(&[1, 1, 2, 8]) },
        20..24 => Action::PublishKeyed { client, room },
        24..28 => Action::Repeat { client },
        28..41 => Action::Connect { client, node },
        41..43 if !setup.calm => Action::BreakOff { client },
        41..49 => Action::Disconnect { client, unread: random.percent(30) },
        49..58 => Action::Subscribe {
            client,
            room,
            kind: random.pick(&[Kind::Recoverable, Kind::Recoverable, Kind::Positioned, Kind::Plain]),
        },
        58..62 => Action::Unsubscribe { client, room },
        62..65 => Action::Crash { node },
        65..69 => Action::Start { node },
        69..72 => Action::Delay { node, ms: random.pick(&[0, 1, 5, 30, 300]) },
        72..76 => Action::HistoryDelay { node, ms: random.pick(&[0, 2, 20, 200]), late: random.percent(50) },
        76..78 => Action::JoinDelay { node, ms: random.pick(&[0, 2, 20, 200]) },
        78..79 => Action::AckDelay { ms: random.pick(&[0, 1, 20, 300]) },
        79..82 => Action::LinkUp { node },
        82..84 => Action::LinkDown { node, lossy: !setup.calm && random.percent(60) },
        84..85 => Action::FailPublishes { node, count, kept: random.percent(60) },
        _ if setup.calm => Action::Publish { client, room, count: 1 },
        85..88 => Action::Lose { node, count, declared: random.percent(50) },
        88..90 => Action::Duplicate { node, count },
        90..91 => Action::Swap { node },
        91..92 => Action::FailJoins { node, count },
        92..93 => Action::FailHistory { node, count },
        93..96 => Action::Evict { room, keep: random.below(4) },
        96..97 => Action::Renumber { room },
        97..98 => Action::Skip { room },
        _ => Action::LoseHidden { node, count },
    }
}
