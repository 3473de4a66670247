//! Takes the threads' intervals, once a second or so, and makes one series of them.

use std::collections::HashMap;

use super::books::{Interval, Reached};
use super::plan::Plan;
use super::shared::Shared;
use crate::audit::{Example, OrderBook};
use crate::record::{Histogram, Overtaken, Point, Series};

/// Messages that reached the members of some threads and not yet of all; beyond this many they are given up and have
/// no slowest member.
const PARTLY_MAX: usize = 1 << 20;

/// The run's figures over time, all threads together.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    points: Vec<Collected>,
    partly: HashMap<(u32, u32), (u32, u32)>,
    pub(super) last_member: Histogram,
    pub(super) order: OrderBook,
    pub(super) reconnects: u64,
    /// By thread would be more than is shown: what was missing in the last interval that any thread reported.
    missing: HashMap<u32, u64>,
}

/// An interval under way.
#[derive(Debug, Default)]
struct Collected {
    point: Point,
    /// Until every thread has reported: a histogram takes over 100 KiB, and a long run has thousands of intervals.
    delivery: Option<Histogram>,
    threads: usize,
}

impl Collected {
    fn add(&mut self, delivery: &Histogram) {
        self.delivery
            .get_or_insert_default()
            .add(delivery)
            .expect("all histograms of a run have the same bounds");
    }

    /// Keeps of the histogram what the series shows.
    fn seal(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            self.point.delivery_us_p50 = delivery.quantile_us(0.5);
            self.point.delivery_us_p99 = delivery.quantile_us(0.99);
            self.point.delivery_us_max = delivery.max_us();
        }
    }
}

impl Recorder {
    /// Takes one thread's interval.
    pub(super) fn take(&mut self, interval: Interval, shared: &Shared) {
        let index = interval.index as usize;
        if self.points.len() <= index {
            self.points.resize_with(index + 1, Collected::default);
        }
        let collected = &mut self.points[index];
        collected.threads += 1;
        let point = &mut collected.point;
        point.scheduled += interval.scheduled;
        point.sent += interval.sent;
        point.failed += interval.failed;
        point.delivered += interval.delivered;
        point.gaps += interval.gaps;
        point.connections += interval.connections;
        collected.add(&interval.delivery);
        if collected.threads >= shared.plan.threads {
            collected.seal();
        }
        self.reconnects += interval.reconnects;
        *self.missing.entry(interval.index).or_default() += interval.missing;
        self.missing.retain(|&kept, _| kept + 2 > interval.index);
        interval.stretches.iter().for_each(|stretch| self.order.take(stretch));
        interval.reached.iter().for_each(|reached| self.reached(reached, shared));
    }

    fn reached(&mut self, reached: &Reached, shared: &Shared) {
        let stream = &shared.plan.streams[reached.stream as usize];
        let threads = shared.plan.rooms[stream.room as usize].threads;
        let partly = self.partly.entry((reached.stream, reached.sequence)).or_default();
        partly.0 += 1;
        partly.1 = partly.1.max(reached.longest_us);
        if partly.0 >= threads {
            let longest_us = partly.1;
            self.partly.remove(&(reached.stream, reached.sequence));
            if reached.counted {
                self.last_member.record_us(u64::from(longest_us));
            }
        } else if self.partly.len() > PARTLY_MAX {
            self.partly.clear();
        }
    }

    /// The last interval that every thread has reported: its index, point and 99th percentile.
    pub(super) fn latest(&self, threads: usize) -> Option<(usize, &Point, Option<u64>)> {
        let index = self.points.iter().rposition(|collected| collected.threads == threads)?;
        let collected = &self.points[index];
        Some((index, &collected.point, collected.point.delivery_us_p99))
    }

    /// Deliveries missing by now.
    pub(super) fn missing(&self) -> u64 {
        self.missing.values().copied().max().unwrap_or(0)
    }

    /// The series, with what the audit found lost in each interval.
    pub(super) fn series(self, interval_us: u64, lost: &[u64]) -> Series {
        let point = |(index, mut collected): (usize, Collected)| {
            collected.seal();
            Point { lost: lost.get(index).copied().unwrap_or(0), ..collected.point }
        };
        Series {
            interval_ms: interval_us / 1_000,
            points: self.points.into_iter().enumerate().map(point).collect(),
        }
    }
}

/// Messages that came out of their place, by the names of rooms.
pub(super) fn overtaken(examples: &[Example], plan: &Plan) -> Vec<Overtaken> {
    let overtaken = |example: &Example| {
        let room = &plan.rooms[plan.streams[example.stream as usize].room as usize];
        Overtaken {
            room: room.channel.clone(),
            sender: example.stream - room.first_stream,
            sequence: example.sequence,
            by: example.by,
            at_ms: example.at_us / 1_000,
            answer: example.answer,
            connection: example.turns.0,
            by_connection: example.turns.1,
            recovering: example.recovering,
            excused: example.is_excused(),
        }
    };
    examples.iter().map(overtaken).collect()
}
