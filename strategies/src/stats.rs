//! Counters that every strategy keeps, read by the server's metrics endpoint.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Counters of one backplane instance since it started. Written with relaxed atomics: each is exact by itself, a
/// snapshot of several is not a moment in time.
#[derive(Debug, Default)]
pub struct Stats {
    /// Envelopes decoded from the broker, wanted or not. ÷ `envelopes_wanted` = read amplification.
    pub envelopes_received: Counter,
    /// Envelopes of rooms that had local members (or, where the strategy does not know, all delivered).
    pub envelopes_wanted: Counter,
    /// Publishes accepted from this node.
    pub publishes: Counter,
    /// Records or commands written to a broker for them. ÷ `publishes` = write amplification.
    pub broker_writes: Counter,
    /// Envelopes dropped because their message id was seen before.
    pub duplicates_removed: Counter,
    /// Gaps declared.
    pub gaps: Counter,
    /// Messages known to be lost within those gaps.
    pub gap_messages: Counter,
    /// Losses on the way to this node that were noticed and made good from what the broker keeps, before members noticed.
    pub gaps_repaired: Counter,
    /// Messages that were delivered late in that way.
    pub gap_messages_repaired: Counter,
    /// Times that a broken broker link came back.
    pub reconnects: Counter,
    /// Broker links that are broken, or silent for too long, right now; where the strategy watches them.
    pub links_down: Gauge,
    /// Envelopes that could not be decoded.
    pub corrupt: Counter,
    /// Messages that the broker holds and this node has not read yet; negative = unknown.
    pub lag_messages: Gauge,
}

/// A monotone counter.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A value that goes both ways.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Replaces the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}
