//! What happens to connections besides messages: they break, come back, leave, and are made slow.

use std::sync::atomic::Ordering;

use manifold_protocol::DisconnectCode;

use super::agenda::{Timer, What};
use super::books::Unacknowledged;
use super::garbage;
use super::link::{Reading, Stage};
use super::worker::Worker;
use crate::audit::Closing;
use crate::scenario::ClientDeed;
use crate::schedule::{Random, mix};

/// Clients that a balancer moves come over this long, spread evenly.
const MOVE_SPREAD_US: u64 = 1_000_000;

impl Worker<'_> {
    /// A connection is gone, or could not be made. `code` is the server's close code, if it sent one.
    pub(super) fn lost(&mut self, local: u32, code: Option<u16>, why: &str) {
        let run_us = self.run_us(self.shared.now_us());
        self.shared.note_failure(why);
        // These codes tell the client that it has missed messages.
        let told = matches!(
            code.map(|code| DisconnectCode(u32::from(code))),
            Some(
                DisconnectCode::SLOW | DisconnectCode::INSUFFICIENT_STATE | DisconnectCode::STATE_INVALIDATED
            )
        );
        let connection = &mut self.connections[local as usize];
        let garbled = std::mem::take(&mut connection.garbled);
        if garbled {
            // Thrown out, as it should be. What it sent behind the garbage nobody read.
            self.books.sums.garbled_closes += 1;
            connection.client.forget_pending(Unacknowledged::Abandoned, &mut self.books);
        }
        let again = garbled || code.is_none_or(|code| DisconnectCode(u32::from(code)).reconnect());
        let was_joined = self.connections[local as usize].client.is_live();
        let is_slow_close = code.is_some_and(|code| DisconnectCode(u32::from(code)) == DisconnectCode::SLOW);
        if is_slow_close && self.connections[local as usize].client.slow {
            self.books.sums.slow_closes += 1;
        }
        if told && was_joined {
            self.books.ledger.tally_mut().gaps += 1;
            self.books.interval.gaps += 1;
        }
        let spoke_us = self.spoke_us(local, run_us);
        let closing = if told { Closing::Told { at_us: run_us } } else { Closing::Cut { at_us: spoke_us } };
        let mut chance = self.chance(local);
        let wait_us = if again { self.backoff_us(local, &mut chance) } else { 0 };
        let nodes = self.shared.node_count();
        let node = chance.below(nodes as u64) as usize;
        let connection = &mut self.connections[local as usize];
        if again {
            // The closing frame's answer is worth one try; what it came to doesn't matter any more.
            let _ = connection.link.flush();
        }
        if code.is_some_and(|code| DisconnectCode(u32::from(code)) == DisconnectCode::STATE_INVALIDATED) {
            connection.client.forget_positions(&mut self.books);
        }
        connection.client.lost(closing, run_us, &mut self.books);
        connection.link.close(if again { Stage::Down } else { Stage::Gone });
        connection.link.generation = connection.link.generation.wrapping_add(1);
        connection.attempt += 1;
        if !again {
            self.shared.refused.fetch_add(1, Ordering::AcqRel);
        } else {
            // A balancer would choose any node; after a failure certainly another one.
            let failed = connection.link.node;
            connection.link.node = if node % nodes == failed % nodes { node + 1 } else { node };
            self.reconnect_in(local, wait_us);
        }
    }

    /// A client is live for the first time, or again.
    pub(super) fn live(&mut self, local: u32) {
        let connection = &mut self.connections[local as usize];
        connection.attempt = 0;
        let is_new = !std::mem::replace(&mut connection.is_joined, true);
        if !std::mem::replace(&mut connection.was_live, true) {
            self.connecting -= 1;
            self.shared.joined.fetch_add(1, Ordering::AcqRel);
        }
        self.send_waiting(local);
        if is_new {
            self.watch_silence(local);
        }
    }

    fn reconnect_in(&mut self, local: u32, wait_us: u64) {
        let at_us = self.shared.now_us() + wait_us;
        let generation = self.connections[local as usize].link.generation;
        self.timers.push(Timer { at_us, local, generation, what: What::Reconnect });
    }

    /// What a client's connection decides by chance. From the seed alone, whatever other clients do meanwhile.
    fn chance(&self, local: u32) -> Random {
        let connection = &self.connections[local as usize];
        let which = u64::from(self.client_of(local)) << 32 | u64::from(connection.link.generation);
        Random::new(self.shared.seed, mix(which))
    }

    /// Exponential backoff with full jitter, as the official SDKs do it.
    fn backoff_us(&self, local: u32, chance: &mut Random) -> u64 {
        let reconnect = &self.shared.scenario.reconnect;
        let attempt = self.connections[local as usize].attempt.min(20);
        let bound_ms = (reconnect.min_ms << attempt).min(reconnect.max_ms);
        let wait_ms = reconnect.min_ms + chance.below(bound_ms.max(1));
        // Before the load starts nobody gains from waiting long.
        let limit_ms = if self.agenda.start_us.is_some() { reconnect.max_ms } else { 1_000 };
        wait_ms.min(limit_ms) * 1_000
    }

    pub(super) fn join_later(&mut self, local: u32) {
        let mut chance = self.chance(local);
        let connection = &mut self.connections[local as usize];
        connection.attempt += 1;
        let generation = connection.link.generation;
        let at_us = self.shared.now_us() + self.backoff_us(local, &mut chance);
        self.timers.push(Timer { at_us, local, generation, what: What::Join });
    }

    pub(super) fn run_timers(&mut self, now_us: u64) {
        while let Some(timer) = self.timers.peek().copied().filter(|timer| timer.at_us <= now_us) {
            self.timers.pop();
            let local = timer.local;
            let connection = &mut self.connections[local as usize];
            let current = connection.link.generation == timer.generation;
            match timer.what {
                What::Reconnect if current && matches!(connection.link.stage, Stage::Down) => {
                    self.books.interval.reconnects += u64::from(connection.was_live);
                    self.connect(local, now_us);
                }
                What::Timeout if current && !connection.is_joined => {
                    self.lost(local, None, "not joined within 10 s");
                }
                What::SlowRead if current => self.read_slowly(local, now_us),
                What::Silence if current => self.watch_silence(local),
                What::Join if current => self.join(local),
                What::Return => {
                    connection.client.away = false;
                    self.join(local);
                }
                _ => {}
            }
        }
    }

    /// Leaves a server that has been silent for too long, or looks again when it may have been.
    pub(super) fn watch_silence(&mut self, local: u32) {
        let now_us = self.shared.now_us();
        let connection = &self.connections[local as usize];
        match connection.client.patience_us(self.run_us(now_us)) {
            None => {}
            Some(0) => self.lost(local, None, "the server is silent: it has missed its pings"),
            Some(left_us) => {
                let generation = connection.link.generation;
                self.timers.push(Timer::silence(now_us + left_us, local, generation));
            }
        }
    }

    fn join(&mut self, local: u32) {
        let key = self.key();
        let connection = &mut self.connections[local as usize];
        connection.client.join(&self.books, &mut connection.link.out, key);
        self.touch(local);
    }

    /// The scenario's steps and churn, as they fall due.
    pub(super) fn run_agenda(&mut self, now_us: u64) {
        if self.agenda.start_us.is_none() {
            return;
        }
        let run_us = self.run_us(now_us);
        while let Some(&(at_us, step)) = self.agenda.steps.last().filter(|(at_us, _)| *at_us <= run_us) {
            self.agenda.steps.pop();
            debug_assert!(at_us <= run_us);
            let deed = self.shared.scenario.clients[step];
            for local in 0..self.connections.len() as u32 {
                if self.is_struck(step, local, deed.share) {
                    self.strike(local, deed.deed);
                }
            }
        }
        self.churn(run_us);
    }

    /// Whether a step of the scenario strikes a client: a share of them, picked by the seed.
    fn is_struck(&self, step: usize, local: u32, share: f64) -> bool {
        let pick = mix(self.shared.seed ^ (step as u64 + 1) << 40 ^ u64::from(self.client_of(local)));
        (pick >> 11) as f64 / ((1_u64 << 53) as f64) < share
    }

    fn strike(&mut self, local: u32, deed: ClientDeed) {
        match deed {
            ClientDeed::Disconnect | ClientDeed::HalfOpen => {
                let connection = &mut self.connections[local as usize];
                if connection.link.is_open() {
                    connection.client.forget_pending(Unacknowledged::Abandoned, &mut self.books);
                    if deed == ClientDeed::HalfOpen {
                        self.abandon(local);
                    }
                    self.lost(local, None, "the scenario broke the connection");
                }
            }
            ClientDeed::Garbage => self.send_garbage(local),
            ClientDeed::Move => self.move_over(local),
            ClientDeed::ReadSlowly | ClientDeed::StopReading => {
                let slowly = deed == ClientDeed::ReadSlowly;
                let connection = &mut self.connections[local as usize];
                connection.client.slow_down(&mut self.books);
                connection.link.read_less(if slowly { Reading::Slowly } else { Reading::Stopped });
                self.watch(local);
                self.read_slowly(local, self.shared.now_us());
            }
            ClientDeed::Read => {
                self.connections[local as usize].link.reading = Reading::AtOnce;
                self.watch(local);
            }
        }
    }

    /// Sends what no client would, and waits to be thrown out. Whatever the server says then, it comes back: it stands for
    /// one that never meant to.
    fn send_garbage(&mut self, local: u32) {
        let (kind, key) = (self.chance(local).below(garbage::KINDS), self.key());
        let connection = &mut self.connections[local as usize];
        if !connection.link.is_open() || std::mem::replace(&mut connection.garbled, true) {
            return;
        }
        self.books.sums.garbled += 1;
        garbage::append(&mut connection.link.out, kind, key);
        self.touch(local);
    }

    /// Leaves the node for the one that was added last; without one, for the next.
    fn move_over(&mut self, local: u32) {
        if !self.connections[local as usize].link.is_open() {
            return;
        }
        let run_us = self.run_us(self.shared.now_us());
        let wait_us = self.chance(local).below(MOVE_SPREAD_US);
        let nodes = self.shared.node_count();
        let grown = nodes > self.shared.nodes_at_start;
        let spoke_us = self.spoke_us(local, run_us);
        let connection = &mut self.connections[local as usize];
        connection.client.forget_pending(Unacknowledged::Abandoned, &mut self.books);
        connection.client.lost(Closing::Cut { at_us: spoke_us }, run_us, &mut self.books);
        connection.link.close(Stage::Down);
        connection.link.generation = connection.link.generation.wrapping_add(1);
        connection.link.node = if grown { nodes - 1 } else { connection.link.node + 1 };
        self.reconnect_in(local, wait_us);
    }

    /// Until when a client's node is taken to have had the chance to deliver. Where nothing is done to servers, silence is what a
    /// loss looks like, and excuses nothing.
    fn spoke_us(&self, local: u32, run_us: u64) -> u64 {
        match self.shared.scenario.faults.is_empty() {
            true => run_us,
            false => self.voices.spoke_until(self.connections[local as usize].link.node, run_us),
        }
    }

    fn churn(&mut self, run_us: u64) {
        let churn = self.shared.scenario.churn;
        let clients = self.agenda.churners.len() as f64;
        let gap_us = 60e6 / (churn.share_per_min * clients).max(f64::MIN_POSITIVE);
        if churn.share_per_min <= 0.0 || clients == 0.0 {
            return;
        }
        if self.agenda.churn_us == 0.0 {
            self.agenda.churn_us = gap_us * self.churn.exponential();
        }
        while self.agenda.churn_us <= run_us as f64 && run_us < self.agenda.window_us.1 {
            self.agenda.churn_us += gap_us * self.churn.exponential();
            let pick = self.churn.below(self.agenda.churners.len() as u64) as usize;
            let local = self.agenda.churners[pick];
            let key = self.key();
            let spoke_us = self.spoke_us(local, run_us);
            let connection = &mut self.connections[local as usize];
            if !connection.client.is_live() || connection.client.away {
                continue;
            }
            connection.client.leave(&mut self.books, spoke_us, &mut connection.link.out, key);
            let generation = connection.link.generation;
            self.touch(local);
            let at_us = self.shared.now_us() + super::plan::seconds_us(churn.away_s);
            self.timers.push(Timer { at_us, local, generation, what: What::Return });
        }
    }
}
