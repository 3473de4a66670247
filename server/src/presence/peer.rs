//! What this node knows of another one: which of its batches came, and whether all did.

use super::wire::Chunk;

/// Another node.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Its last batch that is known of.
    sequence: u64,
    /// When it was heard last, by the [`EchoClock`].
    pub(super) heard_ms: u64,
    standing: Standing,
}

/// Whether all that a node told has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Everything has.
    Current,
    /// Something is missing. `asked_ms`: when a snapshot was asked for, or last came on.
    Behind { asked_ms: Option<u64>, progress: Option<Progress> },
}

impl Default for Standing {
    fn default() -> Self {
        Self::Behind { asked_ms: None, progress: None }
    }
}

/// A snapshot of which everything came so far, and every batch since it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Progress {
    snapshot: u64,
    next_index: u32,
}

impl Peer {
    /// Takes a heartbeat. True: the node has no entries, and all that is held of it goes.
    pub(super) fn take_heartbeat(&mut self, sequence: u64, entries: u64, held: u64) -> bool {
        if sequence < self.sequence {
            return false;
        }
        if entries == 0 {
            self.sequence = sequence;
            self.standing = Standing::Current;
            return held > 0;
        }
        if sequence > self.sequence || (self.standing == Standing::Current && entries != held) {
            self.fall_behind();
        }
        self.sequence = sequence;
        false
    }

    /// Takes a batch. False: it came before.
    pub(super) fn take_batch(&mut self, sequence: u64) -> bool {
        if sequence <= self.sequence {
            return false;
        }
        if sequence - self.sequence > 1 {
            self.fall_behind();
        }
        self.sequence = sequence;
        true
    }

    /// Takes a chunk. False: what it holds is known.
    pub(super) fn take_chunk(&mut self, chunk: &Chunk, now_ms: u64) -> bool {
        if chunk.sequence < self.sequence {
            return false;
        }
        if chunk.sequence > self.sequence {
            self.fall_behind();
            self.sequence = chunk.sequence;
        }
        let Standing::Behind { progress, .. } = self.standing else { return false };
        let progress = match progress {
            _ if chunk.index == 0 => Some(Progress { snapshot: chunk.snapshot, next_index: 1 }),
            Some(Progress { snapshot, next_index: index })
                if (snapshot, index) == (chunk.snapshot, chunk.index) =>
            {
                Some(Progress { snapshot, next_index: index.saturating_add(1) })
            }
            _ => None,
        };
        self.standing = match progress {
            Some(_) if chunk.last => Standing::Current,
            // Of no use any more: ask for another one.
            None if chunk.last => Standing::Behind { asked_ms: None, progress: None },
            _ => Standing::Behind { asked_ms: Some(now_ms), progress },
        };
        true
    }

    /// Whether it is time to ask for a snapshot; notes that it is asked for then.
    pub(super) fn asks(&mut self, now_ms: u64, again_ms: u64) -> bool {
        let Standing::Behind { asked_ms, .. } = &mut self.standing else { return false };
        if asked_ms.is_some_and(|asked_ms| now_ms < asked_ms + again_ms) {
            return false;
        }
        *asked_ms = Some(now_ms);
        true
    }

    /// Whether something is missing that was not asked for yet.
    pub(super) fn wants_to_ask(&self) -> bool {
        matches!(self.standing, Standing::Behind { asked_ms: None, .. })
    }

    /// Something is missing. A snapshot that was asked for before still comes, but does not count from here on.
    fn fall_behind(&mut self) {
        let asked_ms = match self.standing {
            Standing::Behind { asked_ms, .. } => asked_ms,
            Standing::Current => None,
        };
        self.standing = Standing::Behind { asked_ms, progress: None };
    }
}

/// Time that passed while this node heard itself, in milliseconds.
#[derive(Debug, Default)]
pub(super) struct EchoClock {
    now_ms: u64,
    echo_ms: Option<u64>,
}

impl EchoClock {
    /// An echo came at `at_ms`. What passed since the one before counts up to `step_ms_max`: in a longer pause nobody was heard.
    pub(super) fn advance(&mut self, at_ms: u64, step_ms_max: u64) {
        let since = self.echo_ms.replace(at_ms).map_or(0, |before| at_ms.saturating_sub(before));
        self.now_ms += since.min(step_ms_max);
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(sequence: u64, snapshot: u64, index: u32, last: bool) -> Chunk {
        Chunk { sequence, snapshot, index, after: None, last, entries: Vec::new() }
    }

    fn current(sequence: u64) -> Peer {
        Peer { sequence, heard_ms: 0, standing: Standing::Current }
    }

    #[test]
    fn a_jump_is_noticed_and_repaired() {
        let mut peer = current(4);
        assert!(peer.take_batch(5) && !peer.take_batch(5) && !peer.wants_to_ask());
        assert!(peer.take_batch(7) && peer.wants_to_ask(), "what came is news, and 6 is missing");
        assert!(peer.asks(100, 50) && !peer.asks(149, 50) && peer.asks(150, 50));
        assert!(peer.take_chunk(&chunk(7, 1, 0, false), 160) && peer.take_batch(8));
        assert!(!peer.asks(209, 50), "it is coming");
        assert!(peer.take_chunk(&chunk(8, 1, 1, true), 170));
        assert_eq!(peer.standing, Standing::Current);
        assert!(!peer.take_chunk(&chunk(8, 2, 0, false), 180), "for somebody else");
    }

    #[test]
    fn a_snapshot_with_a_hole_does_not_count() {
        for lost in 0..3 {
            let mut peer = current(4);
            peer.take_batch(6);
            peer.asks(0, 50);
            if lost != 0 {
                peer.take_chunk(&chunk(6, 1, 0, false), 1);
            }
            if lost != 1 {
                peer.take_batch(7);
            }
            if lost != 2 {
                peer.take_chunk(&chunk(7, 1, 1, false), 1);
            }
            peer.take_chunk(&chunk(7, 1, 2, true), 1);
            assert!(peer.wants_to_ask(), "without {lost}");
        }
    }

    #[test]
    fn heartbeats_show_what_is_missing() {
        let mut peer = current(4);
        assert!(!peer.take_heartbeat(4, 7, 7) && !peer.wants_to_ask());
        assert!(!peer.take_heartbeat(3, 9, 7) && !peer.wants_to_ask(), "it is old");
        assert!(!peer.take_heartbeat(4, 8, 7) && peer.wants_to_ask(), "another number of entries");
        let mut peer = current(4);
        assert!(!peer.take_heartbeat(5, 7, 7) && peer.wants_to_ask());
        assert!(peer.take_heartbeat(6, 0, 7) && !peer.wants_to_ask(), "nothing is easily told");
        assert!(!peer.take_chunk(&chunk(6, 1, 0, true), 1));
    }

    #[test]
    fn silence_of_all_is_no_time() {
        let mut clock = EchoClock::default();
        for (at_ms, expected_ms) in [(1_000, 0), (2_000, 1_000), (60_000, 3_000), (60_500, 3_500)] {
            clock.advance(at_ms, 2_000);
            assert_eq!(clock.now_ms(), expected_ms);
        }
    }
}
