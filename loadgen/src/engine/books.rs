//! What one thread writes down: the audit's ledger, latencies, and the figures of the current interval.

#[cfg(test)]
mod tests;

use std::sync::atomic::Ordering;

use super::payload::Stamp;
use super::shared::Shared;
use crate::audit::{Arrived, Closing, Ledger, OrderTrack, Sent, Stretch};
use crate::latency::{Activity, LastMember, Lull};
use crate::record::{Histogram, Latencies, Recoveries};
use crate::schedule::Intent;

/// A message that was sent and not yet answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    pub(super) id: u32,
    pub(super) stream: u32,
    pub(super) sequence: u32,
    pub(super) intended_us: u64,
    /// When it was given to the connection.
    pub(super) sent_us: u64,
}

/// An acknowledgement that takes longer is noted: until it came, the message may have waited in front of a node.
const LATE_ACK_US: u64 = 250_000;

/// How a publish that was not acknowledged ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unacknowledged {
    Refused,
    Unknown,
    /// Unknown, by the scenario's own doing.
    Abandoned,
}

/// The figures of one interval of one thread.
#[derive(Debug, Default)]
pub(super) struct Interval {
    pub(super) index: u32,
    pub(super) scheduled: u64,
    pub(super) sent: u64,
    pub(super) failed: u64,
    pub(super) delivered: u64,
    pub(super) gaps: u64,
    pub(super) reconnects: u64,
    pub(super) connections: u64,
    /// Missing by now, all intervals together.
    pub(super) missing: u64,
    pub(super) delivery: Histogram,
    /// Messages that reached all members of this thread, while other threads have members too.
    pub(super) reached: Vec<Reached>,
    pub(super) stretches: Vec<Stretch>,
}

/// A message reached all members of one thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached {
    pub(super) stream: u32,
    pub(super) sequence: u32,
    pub(super) longest_us: u32,
    /// Whether its intended time lies in the counted window.
    pub(super) counted: bool,
}

/// Sums of the counted window.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sums {
    pub(super) scheduled: u64,
    pub(super) sent: u64,
    pub(super) unsent: u64,
    pub(super) payload_bytes: u64,
    pub(super) delivered: u64,
    /// When the last message was sent, on the run's clock, less the time that it waited for a connection.
    pub(super) last_sent_us: u64,
    /// Clients made slow, and those of them that the server disconnected for it.
    pub(super) slowed: u64,
    pub(super) slow_closes: u64,
    /// Times that a client sent garbage, and that it was thrown out for it.
    pub(super) garbled: u64,
    pub(super) garbled_closes: u64,
    /// Publishes of the whole run whose outcome the scenario itself made unknown.
    pub(super) abandoned: u64,
    /// Of the whole run.
    pub(super) recoveries: Recoveries,
}

/// One thread's books. Times are on the run's clock: microseconds from the first intended send.
#[derive(Debug)]
pub(super) struct Books<'a> {
    pub(super) shared: &'a Shared,
    pub(super) ledger: Ledger,
    /// By the thread's own streams.
    pub(super) sent: Vec<Sent>,
    /// By the thread's own streams: the connection over which the last message went, 0 before the first.
    connection_of: Vec<u32>,
    /// By all streams.
    last_member: Vec<LastMember>,
    /// By room: members of this thread that have joined and read at full speed.
    pub(super) readers: Vec<u32>,
    pub(super) latencies: Latencies,
    pub(super) activity: Activity,
    /// Long lulls of rooms that a delivery to this thread ended.
    pub(super) lulls: Vec<Lull>,
    pub(super) interval: Interval,
    pub(super) sums: Sums,
    warm_up_us: u64,
    deadline_us: u64,
}

impl<'a> Books<'a> {
    pub(super) fn new(shared: &'a Shared, thread: usize) -> Self {
        let plan = &shared.plan;
        Self {
            ledger: Ledger::default(),
            sent: vec![Sent::default(); plan.streams_by_thread[thread] as usize],
            connection_of: vec![0; plan.streams_by_thread[thread] as usize],
            last_member: plan.streams.iter().map(|_| LastMember::default()).collect(),
            readers: vec![0; plan.rooms.len()],
            latencies: Latencies {
                recovered: shared.scenario.recover.then(Histogram::new),
                ..Latencies::default()
            },
            activity: Activity::default(),
            lulls: Vec::new(),
            interval: Interval::default(),
            sums: Sums::default(),
            warm_up_us: super::plan::seconds_us(shared.scenario.warm_up_s),
            deadline_us: shared.scenario.deadline_ms * 1_000,
            shared,
        }
    }

    fn is_counted(&self, intended_us: u64) -> bool {
        intended_us >= self.warm_up_us
    }

    /// A message of the schedule fell due.
    pub(super) fn scheduled(&mut self, intended_us: u64) {
        self.interval.scheduled += 1;
        self.sums.scheduled += u64::from(self.is_counted(intended_us));
    }

    /// A message gets its sequence and is about to be written to its client's `connection`: a number, not 0, that no other
    /// connection of the client has.
    #[inline]
    pub(super) fn send(&mut self, intent: &Intent, connection: u32, now_us: u64, bytes: usize) -> u32 {
        let stream = intent.stream;
        // One writer: a plain load and a store that publishes it to the members' threads.
        let next = &self.shared.next[stream as usize];
        let sequence = next.load(Ordering::Relaxed);
        next.store(sequence + 1, Ordering::Release);
        let interval = (now_us / self.shared.interval_us) as u32;
        let local = self.shared.plan.streams[stream as usize].local as usize;
        let sent = &mut self.sent[local];
        sent.count = sequence + 1;
        if std::mem::replace(&mut self.connection_of[local], connection) != connection {
            sent.turns.push(sequence);
        }
        if sent.marks.last().is_none_or(|mark| mark.0 < interval) {
            sent.marks.push((interval, sequence));
        }
        self.interval.sent += 1;
        if self.is_counted(intent.at_us) {
            self.sums.sent += 1;
            self.sums.payload_bytes += bytes as u64;
        }
        sequence
    }

    /// A message was written `lag_us` after it could have been.
    pub(super) fn written(&mut self, intended_us: u64, lag_us: u64) {
        self.sums.last_sent_us = self.sums.last_sent_us.max(intended_us + lag_us);
        if self.is_counted(intended_us) {
            self.latencies.send_lag.record_us(lag_us);
        }
    }

    /// A publish was accepted. A client that is slow on purpose reads its replies late, which says nothing.
    pub(super) fn acknowledged(&mut self, pending: &Pending, slow: bool, now_us: u64) {
        if !slow && self.is_counted(pending.intended_us) {
            self.latencies.ack.record_us(now_us.saturating_sub(pending.intended_us));
        }
        if now_us > pending.sent_us + LATE_ACK_US {
            let local = self.shared.plan.streams[pending.stream as usize].local;
            self.sent[local as usize].late_acks.insert(pending.sequence, now_us);
        }
    }

    pub(super) fn not_acknowledged(&mut self, pending: &Pending, how: Unacknowledged) {
        self.interval.failed += 1;
        let sent = &mut self.sent[self.shared.plan.streams[pending.stream as usize].local as usize];
        match how {
            Unacknowledged::Refused => sent.refused.insert(pending.sequence),
            Unacknowledged::Unknown => sent.unknown.insert(pending.sequence),
            Unacknowledged::Abandoned => {
                self.sums.abandoned += 1;
                sent.unknown.insert(pending.sequence);
            }
        }
    }

    /// A message was never sent: until the end, at `now_us`, no connection took it. Nobody has it, and everybody who
    /// was to get it has waited that long.
    pub(super) fn never_sent(&mut self, intent: &Intent, now_us: u64) {
        if !self.is_counted(intent.at_us) {
            return;
        }
        self.sums.unsent += 1;
        let age_us = now_us.saturating_sub(intent.at_us);
        let room = self.shared.plan.streams[intent.stream as usize].room;
        self.latencies.ack.record_us(age_us);
        self.latencies.last_member.record_us(age_us);
        for _ in 0..self.shared.plan.rooms[room as usize].members {
            self.latencies.delivery.record_us(age_us);
            self.latencies.delivery_raw.record_us(age_us);
        }
    }

    /// A message arrived at a member. `windows` is the membership's first audit window.
    #[inline]
    pub(super) fn delivered(
        &mut self,
        stamp: &Stamp,
        windows: u32,
        order: &mut OrderTrack,
        slow: bool,
        now_us: u64,
    ) {
        let Some((stream, arrived)) = self.arrived(stamp, windows, order, false, now_us) else { return };
        // Live, and for the first time, if only just after a join: history and copies do not end a silence.
        if arrived != Arrived::Duplicate {
            self.lulls.extend(self.shared.heard(stamp.room, now_us));
        }
        // It is slow because the scenario makes it so: audited, but no measure of the server's latency.
        if !arrived.is_owed() || slow {
            return;
        }
        let latency_us = self.timed(stamp, now_us);
        let counted = self.is_counted(stamp.intended_us);
        let readers = self.readers[stamp.room as usize];
        let latency_us = latency_us.min(u64::from(u32::MAX)) as u32;
        let reached = self.last_member[stream as usize].reached(stamp.sequence, latency_us, readers);
        let Some(longest_us) = reached else { return };
        if self.shared.plan.rooms[stamp.room as usize].threads > 1 {
            self.interval.reached.push(Reached { stream, sequence: stamp.sequence, longest_us, counted });
        } else if counted {
            self.latencies.last_member.record_us(u64::from(longest_us));
        }
    }

    /// Writes down how long a first copy took that came live, and returns it in microseconds.
    pub(super) fn timed(&mut self, stamp: &Stamp, now_us: u64) -> u64 {
        let latency_us = now_us.saturating_sub(stamp.intended_us);
        if latency_us > self.deadline_us {
            self.ledger.tally_mut().late += 1;
        }
        self.interval.delivery.record_us(latency_us);
        if self.is_counted(stamp.intended_us) {
            self.latencies.delivery.record_us(latency_us);
            self.latencies.delivery_raw.record_us(latency_us.saturating_sub(stamp.lag_us));
        }
        latency_us
    }

    /// Enters a copy into the audit: its stream, and what it was. `None`: its stamp is wrong.
    #[inline]
    fn arrived(
        &mut self,
        stamp: &Stamp,
        windows: u32,
        order: &mut OrderTrack,
        recovering: bool,
        now_us: u64,
    ) -> Option<(u32, Arrived)> {
        self.interval.delivered += 1;
        let room = &self.shared.plan.rooms[stamp.room as usize];
        if stamp.sender >= room.streams {
            self.ledger.tally_mut().corrupt += 1;
            return None;
        }
        let stream = room.first_stream + stamp.sender;
        let arrived = self.ledger.observe(windows + stamp.sender, stamp.sequence, recovering, now_us);
        if matches!(arrived, Arrived::First | Arrived::Reordered)
            && let Some(stretch) = order.take(stamp.room, stream, stamp.sequence)
        {
            self.interval.stretches.push(stretch);
        }
        if arrived.is_owed() {
            self.sums.delivered += u64::from(self.is_counted(stamp.intended_us));
        }
        Some((stream, arrived))
    }

    /// A message came with a member's recovery: a delivery like others, but how late it is says how long the member was
    /// away.
    pub(super) fn recovered(&mut self, stamp: &Stamp, windows: u32, order: &mut OrderTrack, now_us: u64) {
        let Some((_, arrived)) = self.arrived(stamp, windows, order, true, now_us) else { return };
        let recoveries = &mut self.sums.recoveries;
        match arrived {
            Arrived::First | Arrived::Reordered | Arrived::Belated => {
                recoveries.publications += 1;
                self.timed_recovery(stamp, now_us);
            }
            Arrived::Duplicate => recoveries.repeated += 1,
            Arrived::Edge => {}
        }
    }

    /// Writes down how long a first copy took that came with a reply.
    pub(super) fn timed_recovery(&mut self, stamp: &Stamp, now_us: u64) {
        let counted = self.is_counted(stamp.intended_us);
        if let Some(recovered) = self.latencies.recovered.as_mut().filter(|_| counted) {
            recovered.record_us(now_us.saturating_sub(stamp.intended_us));
        }
    }

    /// A member's join was confirmed: what is sent from now on is owed to it.
    pub(super) fn opened(&mut self, room: u32, windows: u32, slow: bool) {
        let place = &self.shared.plan.rooms[room as usize];
        for sender in 0..place.streams {
            self.ledger.open(windows + sender, self.shared.sent_of(place.first_stream + sender));
        }
        self.readers[room as usize] += u32::from(!slow);
    }

    /// A member's time in its room is over.
    pub(super) fn closed(&mut self, room: u32, windows: u32, slow: bool, closing: Closing) {
        let place = &self.shared.plan.rooms[room as usize];
        for sender in 0..place.streams {
            let stream = place.first_stream + sender;
            self.ledger.close(windows + sender, stream, self.shared.sent_of(stream), closing);
        }
        self.readers[room as usize] -= u32::from(!slow);
    }

    /// A member is cut off and means to come back, or asks to leave: what each sender has sent by now.
    pub(super) fn suspended(&mut self, room: u32, slow: bool) -> Box<[u32]> {
        self.readers[room as usize] -= u32::from(!slow);
        let place = &self.shared.plan.rooms[room as usize];
        (0..place.streams).map(|sender| self.shared.sent_of(place.first_stream + sender)).collect()
    }

    /// It is back, and is said to have missed nothing.
    pub(super) fn resumed(&mut self, room: u32, windows: u32, now_us: u64) {
        self.sums.recoveries.complete += 1;
        let place = &self.shared.plan.rooms[room as usize];
        for sender in 0..place.streams {
            let end = self.shared.sent_of(place.first_stream + sender);
            self.ledger.resume(windows + sender, end, now_us);
        }
    }

    /// It is back, and is told that what it missed since `at_us` is lost.
    pub(super) fn unrecovered(&mut self, room: u32, windows: u32, at_us: u64) {
        self.sums.recoveries.incomplete += 1;
        let place = &self.shared.plan.rooms[room as usize];
        for sender in 0..place.streams {
            let stream = place.first_stream + sender;
            let end = self.shared.sent_of(stream);
            self.ledger.close(windows + sender, stream, end, Closing::Told { at_us });
        }
    }

    /// It left, or never came back: it was a member until its senders had sent what `ends` says.
    pub(super) fn ended(&mut self, room: u32, windows: u32, ends: &[u32], closing: Closing) {
        let place = &self.shared.plan.rooms[room as usize];
        for (sender, &end) in (0..).zip(ends) {
            self.ledger.close(windows + sender, place.first_stream + sender, end, closing);
        }
    }

    /// A message that this membership is not owed: between asking and being told, either may be true. Whether an earlier one
    /// ended without it, so that it counts as delivered.
    pub(super) fn early(&mut self, stamp: &Stamp, windows: u32) -> bool {
        if stamp.sender >= self.shared.plan.rooms[stamp.room as usize].streams {
            self.ledger.tally_mut().corrupt += 1;
            return false;
        }
        let belated = self.ledger.early(windows + stamp.sender, stamp.sequence).is_owed();
        self.interval.delivered += u64::from(belated);
        self.sums.delivered += u64::from(belated && self.is_counted(stamp.intended_us));
        belated
    }

    /// What a member lacks: streams whose last message has not come, and messages missing before those.
    pub(super) fn lacking(&self, room: u32, windows: u32) -> (u64, u64) {
        let place = &self.shared.plan.rooms[room as usize];
        (0..place.streams).fold((0, 0), |(tails, holes), sender| {
            let sent = self.shared.sent_of(place.first_stream + sender);
            let (tail, missing) = self.ledger.lacking(windows + sender, sent);
            (tails + u64::from(tail), holes + missing)
        })
    }
}
