//! Which nodes speak, as one thread's clients hear them.
//!
//! A node that stands still delivers nothing, and others acknowledge publishes meanwhile. Who goes away from it then, or before it
//! has caught up, was not robbed of those; but who goes away from one that speaks was.

use super::conductor::EDGE_US;

/// What is heard of each node, by its index. Times are on the run's clock, microseconds.
#[derive(Debug, Default)]
pub(super) struct Voices(Vec<Voice>);

#[derive(Debug, Clone, Copy, Default)]
struct Voice {
    /// When it last said anything.
    heard_us: u64,
    /// The last time that it said nothing for long: from when until when.
    pause: Option<(u64, u64)>,
}

impl Voices {
    /// Something came from a node.
    #[inline]
    pub(super) fn heard(&mut self, node: usize, now_us: u64) {
        if node >= self.0.len() {
            self.0.resize(node + 1, Voice { heard_us: now_us, pause: None });
        }
        let voice = &mut self.0[node];
        if now_us > voice.heard_us + EDGE_US {
            voice.pause = Some((voice.heard_us, now_us));
        }
        voice.heard_us = now_us;
    }

    /// Until when a node is known to have had the chance to deliver, at `now_us`: until it last spoke, or until it fell silent if
    /// it has only just begun again.
    pub(super) fn spoke_until(&self, node: usize, now_us: u64) -> u64 {
        let Some(voice) = self.0.get(node) else { return now_us };
        match voice.pause {
            Some((from_us, to_us)) if now_us <= to_us + EDGE_US => from_us,
            _ => voice.heard_us.min(now_us),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_stood_still_gets_time_to_catch_up() {
        let mut voices = Voices::default();
        assert_eq!(voices.spoke_until(1, 7), 7, "nothing is known of it");
        for second in 0..5 {
            voices.heard(1, second * EDGE_US);
        }
        let stopped = 4 * EDGE_US;
        assert_eq!(voices.spoke_until(1, stopped + 10), stopped);
        let going = 13 * EDGE_US;
        assert_eq!(voices.spoke_until(1, going - 10), stopped, "it still stands still");
        voices.heard(1, going);
        voices.heard(1, going + 10);
        assert_eq!(voices.spoke_until(1, going + 20), stopped, "it has only just begun again");
        voices.heard(1, going + EDGE_US);
        assert_eq!(voices.spoke_until(1, going + EDGE_US + 1), going + EDGE_US);
        assert_eq!(voices.spoke_until(0, 3), 0, "of another one nothing was heard since it began");
    }
}
