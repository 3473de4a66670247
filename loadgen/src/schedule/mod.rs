//! When each message is meant to be sent, and by whom: an open-loop schedule, a pure function of scenario and seed.
//!
//! It is streamed, not stored. Every generator thread walks the whole schedule and keeps the messages of its own
//! connections, so the schedule does not depend on how many threads there are; walking costs some 30 ns a message.

mod random;

pub use random::{Random, Weighted, mix, zipf};

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How intended times are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arrival {
    /// One every 1/rate seconds.
    Constant,
    /// Independent senders: exponential gaps.
    Poisson,
    /// A sender starts at Poisson times and then sends `length` messages `spacing_us` apart: strokes on a whiteboard.
    Bursts {
        /// Messages per burst, at least 1.
        length: u32,
        /// Between the messages of a burst, microseconds.
        spacing_us: u64,
    },
}

/// A stretch in which the rate is multiplied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Surge {
    /// Start, microseconds from the first intended send.
    pub from_us: u64,
    /// End (exclusive), likewise.
    pub to_us: u64,
    /// Factor on the rate, above 0.
    pub factor: f64,
}

/// A message that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Intent {
    /// When, microseconds from the start of the schedule.
    pub at_us: u64,
    /// By which stream (a sender in a room).
    pub stream: u32,
    /// Which size of the scenario's mix.
    pub size: u32,
}

/// What a schedule is made from.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Mean messages per second, above 0.
    pub rate_per_s: f64,
    /// How they are spread.
    pub arrival: Arrival,
    /// End of the schedule, microseconds.
    pub until_us: u64,
    /// Stretches of another rate.
    pub surges: Vec<Surge>,
    /// Weight of each stream.
    pub weights: Vec<f64>,
    /// Weight of each payload size.
    pub sizes: Vec<f64>,
    /// Seed.
    pub seed: u64,
}

/// Walks a schedule in order of intended time.
#[derive(Debug)]
pub struct Schedule {
    shape: Shape,
    streams: Weighted,
    sizes: Weighted,
    random: Random,
    /// Next event of the arrival process, in microseconds with their fraction: rounding must not add up.
    next_us: f64,
    gap_us: f64,
    /// Messages of bursts that have begun: time, order of birth (ties keep it), stream, messages left.
    bursts: BinaryHeap<Reverse<(u64, u64, u32, u32)>>,
    births: u64,
}

impl Schedule {
    /// Starts at the beginning.
    pub fn new(shape: Shape) -> Self {
        let per_event = match shape.arrival {
            Arrival::Bursts { length, .. } => f64::from(length.max(1)),
            Arrival::Constant | Arrival::Poisson => 1.0,
        };
        let mut schedule = Self {
            streams: Weighted::new(&shape.weights),
            sizes: Weighted::new(&shape.sizes),
            random: Random::new(shape.seed, 1),
            next_us: 0.0,
            gap_us: 1e6 * per_event / shape.rate_per_s,
            bursts: BinaryHeap::new(),
            births: 0,
            shape,
        };
        // A Poisson process has no event at zero; a constant one starts half a gap in, so that ends are alike.
        schedule.next_us = match schedule.shape.arrival {
            Arrival::Constant => schedule.gap_us / 2.0,
            _ => schedule.advance_from(0.0),
        };
        schedule
    }

    fn advance_from(&mut self, now_us: f64) -> f64 {
        let factor = self
            .shape
            .surges
            .iter()
            .find(|surge| (surge.from_us as f64..surge.to_us as f64).contains(&now_us))
            .map_or(1.0, |surge| surge.factor);
        let unit = match self.shape.arrival {
            Arrival::Constant => 1.0,
            Arrival::Poisson | Arrival::Bursts { .. } => self.random.exponential(),
        };
        now_us + unit * self.gap_us / factor
    }

    /// Takes the next event of the arrival process itself: a message, or the first of a burst.
    fn arrive(&mut self) -> Option<(u64, u32)> {
        let at_us = self.next_us as u64;
        if at_us >= self.shape.until_us || self.shape.weights.is_empty() {
            return None;
        }
        self.next_us = self.advance_from(self.next_us);
        Some((at_us, self.streams.pick(&mut self.random) as u32))
    }

    fn with_size(&mut self, at_us: u64, stream: u32) -> Intent {
        let size = self.sizes.pick(&mut self.random) as u32;
        Intent { at_us, stream, size }
    }
}

impl Iterator for Schedule {
    type Item = Intent;

    fn next(&mut self) -> Option<Intent> {
        let Arrival::Bursts { length, spacing_us } = self.shape.arrival else {
            let (at_us, stream) = self.arrive()?;
            return Some(self.with_size(at_us, stream));
        };
        // Every burst that begins no later than the earliest queued message must be known before that one is given.
        while self.bursts.peek().is_none_or(|Reverse((at_us, ..))| self.next_us as u64 <= *at_us) {
            let Some((at_us, stream)) = self.arrive() else { break };
            self.births += 1;
            self.bursts.push(Reverse((at_us, self.births, stream, length.max(1))));
        }
        let Reverse((at_us, birth, stream, left)) = self.bursts.pop()?;
        let again_us = at_us + spacing_us;
        if left > 1 && again_us < self.shape.until_us {
            self.bursts.push(Reverse((again_us, birth, stream, left - 1)));
        }
        Some(self.with_size(at_us, stream))
    }
}

#[cfg(test)]
mod tests;
