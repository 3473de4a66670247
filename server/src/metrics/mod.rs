//! Counters of this node. Written on the hot path without locks, read at `/metrics`.
//!
//! Threads write to cells of their own and a scrape adds them up, so that two cores never fight over a line.

mod exposition;
mod histogram;
mod recoveries;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use manifold_protocol::{DisconnectCode, ErrorCode};
use manifold_strategies::ErrorKind;
use parking_lot::Mutex;

pub(crate) use exposition::{CONTENT_TYPE, Gauges, render};
use histogram::Histogram;
pub(crate) use recoveries::{Recoveries, RecoveryOutcome};

/// Cells that threads share out among themselves.
const CELLS: usize = 16;

/// One thread's counters, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Hot {
    publishes: AtomicU64,
    deliveries: AtomicU64,
    publish_latency: Histogram,
    delivery_latency: Histogram,
}

/// Everything that this node counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    hot: [Hot; CELLS],
    slow_consumer_closes: AtomicU64,
    insufficient_state: AtomicU64,
    accepted: AtomicU64,
    recoveries: Recoveries,
    /// Failures by kind; off the hot path of a healthy node.
    errors: Mutex<BTreeMap<String, u64>>,
    closes: Mutex<BTreeMap<u16, u64>>,
}

impl Metrics {
    /// A client's or the API's publish was acknowledged, `latency_us` after it was received.
    pub(crate) fn observe_publish(&self, latency_us: u64) {
        let hot = self.hot();
        hot.publishes.fetch_add(1, Relaxed);
        hot.publish_latency.observe(latency_us, 1);
    }

    /// A message is on its way to so many members.
    pub(crate) fn count_deliveries(&self, members: usize) {
        self.hot().deliveries.fetch_add(members as u64, Relaxed);
    }

    /// So many members have it in their sockets or outboxes, `latency_us` after its publish.
    pub(crate) fn observe_delivery(&self, latency_us: u64, members: usize) {
        self.hot().delivery_latency.observe(latency_us, members as u64);
    }

    pub(crate) fn count_slow_consumer(&self) {
        self.slow_consumer_closes.fetch_add(1, Relaxed);
    }

    /// So many members were told that they missed messages.
    pub(crate) fn add_insufficient_state(&self, members: usize) {
        self.insufficient_state.fetch_add(members as u64, Relaxed);
    }

    /// A recovery ended, with so many missed messages delivered by it.
    pub(crate) fn count_recovery(&self, outcome: RecoveryOutcome, publications: usize) {
        self.recoveries.count(outcome);
        self.recoveries.publications.fetch_add(publications as u64, Relaxed);
    }

    /// The backplane is asked what somebody who comes back has missed.
    pub(crate) fn count_recovery_read(&self) {
        self.recoveries.reads.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_history_read(&self) {
        self.recoveries.history_reads.fetch_add(1, Relaxed);
    }

    /// The position of a quiet room is compared with the backplane's.
    pub(crate) fn count_position_check(&self) {
        self.recoveries.position_checks.fetch_add(1, Relaxed);
    }

    /// A quiet room turned out to be behind the backplane.
    pub(crate) fn count_position_behind(&self) {
        self.recoveries.positions_behind.fetch_add(1, Relaxed);
    }

    pub(crate) fn recoveries(&self) -> &Recoveries {
        &self.recoveries
    }

    /// Subscriptions ended because messages were lost.
    pub(crate) fn insufficient_state(&self) -> u64 {
        self.insufficient_state.load(Relaxed)
    }

    pub(crate) fn count_accepted(&self) {
        self.accepted.fetch_add(1, Relaxed);
    }

    /// A command was answered with an error.
    pub(crate) fn count_reply_error(&self, code: ErrorCode) {
        self.count_error(&format!("reply_{}", code.0));
    }

    pub(crate) fn count_backplane_error(&self, kind: ErrorKind) {
        self.count_error(&format!("backplane_{}", kind.as_str()));
    }

    pub(crate) fn count_error(&self, kind: &str) {
        let mut errors = self.errors.lock();
        match errors.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(errors.insert(kind.to_owned(), 1)),
        }
    }

    /// The server closed a connection with `code`.
    pub(crate) fn count_close(&self, code: u16) {
        if u32::from(code) == DisconnectCode::SLOW.0 {
            self.count_slow_consumer();
        }
        *self.closes.lock().entry(code).or_default() += 1;
    }

    fn hot(&self) -> &Hot {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static CELL: Cell<usize> = Cell::new(NEXT.fetch_add(1, Relaxed) % CELLS);
        }
        &self.hot[CELL.get()]
    }

    fn sum(&self, of: impl Fn(&Hot) -> &AtomicU64) -> u64 {
        self.hot.iter().map(|hot| of(hot).load(Relaxed)).sum()
    }
}
