//! A generator thread: its own epoll, its share of the clients, its part of the schedule.
//!
//! The loop sends what is due, flushes each touched connection once, and waits for sockets until the next message is
//! due: the kernel's timer for most of the wait, polling for the last stretch.

use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use rustix::event::Timespec;
use rustix::event::epoll;

use super::abandoned::Abandoned;
use super::agenda::{Agenda, Timer};
use super::alarm::Alarm;
use super::books::{Books, Interval};
use super::client::Client;
use super::link::Link;
use super::process::{Occupied, ThreadTime};
use super::shared::Shared;
use super::voices::Voices;
use super::{RunError, system};
use crate::audit::Ledger;
use crate::latency::{Activity, Lull};
use crate::record::Latencies;
use crate::schedule::Random;

/// Bytes that one read takes at most. One buffer per thread.
pub(super) const READ_BYTES: usize = 128 << 10;
/// Longest wait for sockets, so that orders from other threads are seen.
const WAIT_MAX: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// The last stretch before a due message is polled, not slept.
const SPIN_US: u64 = 15;
/// Connections of one thread that may be on their way at once before the load starts.
const CONNECTING_MAX: u32 = 64;
/// Events taken from epoll at once.
const EVENTS_MAX: usize = 256;
/// Random streams of thread 0: keys and churn.
const STREAMS: (u64, u64) = (100, 200);
/// How often a draining thread looks at what is lacking.
const LACKING_US: u64 = 50_000;

/// A client and its connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) link: Link,
    pub(super) client: Client,
    /// Failed attempts in a row.
    pub(super) attempt: u32,
    /// Whether it has been live before.
    pub(super) was_live: bool,
    /// Whether this connection has been live.
    pub(super) is_joined: bool,
    pub(super) is_touched: bool,
    /// It sent garbage and waits to be thrown out.
    pub(super) garbled: bool,
}

/// What a thread leaves behind.
#[derive(Debug)]
pub(super) struct Harvest {
    pub(super) ledger: Ledger,
    pub(super) sent: Vec<crate::audit::Sent>,
    pub(super) latencies: Latencies,
    pub(super) activity: Activity,
    pub(super) lulls: Vec<Lull>,
    pub(super) sums: super::books::Sums,
    /// How the thread spent the counted window.
    pub(super) occupied: Occupied,
    /// Clients without a connection at the end.
    pub(super) failed: u64,
}

/// One thread.
pub(super) struct Worker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) thread: usize,
    epoll: OwnedFd,
    /// Wakes the thread shortly before something is due.
    pub(super) alarm: Alarm,
    /// What it is set for, on the engine's clock.
    alarm_us: u64,
    pub(super) connections: Vec<Connection>,
    pub(super) books: Books<'a>,
    pub(super) voices: Voices,
    pub(super) agenda: Agenda,
    pub(super) timers: BinaryHeap<Timer>,
    /// Connections with something to flush.
    touched: Vec<u32>,
    /// (intended, since when it could have been written) of messages in this turn's flush.
    unflushed: Vec<(u64, u64)>,
    pub(super) buffer: Box<[u8]>,
    /// Answers that come up while a frame is being read.
    pub(super) answers: Vec<u8>,
    /// The keys of frames and handshakes alone: how many are drawn depends on timing.
    pub(super) keys: Random,
    /// Who leaves its rooms for a while, and when.
    pub(super) churn: Random,
    abandoned: Abandoned,
    reports: Sender<Box<Interval>>,
    pub(super) connecting: u32,
    connect_next: u32,
    /// The thread's times and the run's clock when the counted window began, then what it spent in it.
    window_began: Option<(ThreadTime, u64)>,
    occupied: Option<Occupied>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        shared: &'a Shared,
        thread: usize,
        reports: Sender<Box<Interval>>,
    ) -> Result<Self, RunError> {
        let mut books = Books::new(shared, thread);
        let plan = &shared.plan;
        let nodes = shared.node_count();
        let connections = (thread..plan.clients.len())
            .step_by(plan.threads)
            .map(|index| Connection {
                link: Link::new(index % nodes),
                client: Client::new(index as u32, &mut books),
                attempt: 0,
                was_live: false,
                is_joined: false,
                is_touched: false,
                garbled: false,
            })
            .collect();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(system("epoll"))?;
        Ok(Self {
            alarm: Alarm::new(&epoll).map_err(system("timerfd"))?,
            alarm_us: 0,
            epoll,
            connections,
            books,
            voices: Voices::default(),
            agenda: Agenda::new(shared, thread),
            timers: BinaryHeap::new(),
            touched: Vec::new(),
            unflushed: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            answers: Vec::new(),
            keys: Random::new(shared.seed, STREAMS.0 + thread as u64),
            churn: Random::new(shared.seed, STREAMS.1 + thread as u64),
            abandoned: Abandoned::default(),
            reports,
            connecting: 0,
            connect_next: 0,
            window_began: None,
            occupied: None,
            shared,
            thread,
        })
    }

    /// The client that a local index stands for.
    pub(super) fn client_of(&self, local: u32) -> u32 {
        local * self.shared.plan.threads as u32 + self.thread as u32
    }

    /// The run's clock; 0 before its start.
    pub(super) fn run_us(&self, now_us: u64) -> u64 {
        self.agenda.start_us.map_or(0, |start_us| now_us.saturating_sub(start_us))
    }

    pub(super) fn key(&mut self) -> [u8; 4] {
        (self.keys.next_u64() as u32).to_ne_bytes()
    }

    /// Runs until told to stop.
    pub(super) fn run(mut self) -> Result<Harvest, RunError> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        let mut look_us = 0;
        while !self.shared.stop.load(Ordering::Acquire) {
            let now_us = self.shared.now_us();
            self.agenda.start_us = self.agenda.start_us.or_else(|| self.shared.start_us());
            self.connect_some(now_us);
            self.send_due(now_us);
            self.run_timers(now_us);
            self.run_agenda(now_us);
            self.flush_touched();
            self.close_interval(now_us);
            if self.agenda.is_over(now_us) && now_us >= look_us {
                look_us = now_us + LACKING_US;
                self.look_for_lacking();
            }
            self.wait(&mut events)?;
            for (at, event) in events.iter().enumerate() {
                self.handle(event);
                // Reading must not make sending late.
                if at % 8 == 7 {
                    let now_us = self.shared.now_us();
                    self.send_due(now_us);
                    self.flush_touched();
                }
            }
        }
        Ok(self.settle())
    }

    fn wait(&mut self, events: &mut Vec<epoll::Event>) -> Result<(), RunError> {
        events.clear();
        let timer_us = self.timers.peek().map_or(u64::MAX, |one| one.at_us);
        let due_us = self.agenda.due_us().unwrap_or(u64::MAX).min(timer_us);
        let wait_us = due_us.saturating_sub(self.shared.now_us()).saturating_sub(SPIN_US);
        let timeout = if wait_us == 0 { POLL } else { WAIT_MAX };
        if wait_us > 0 && due_us != self.alarm_us {
            self.alarm.set(wait_us).map_err(system("timerfd"))?;
            self.alarm_us = due_us;
        }
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(system("epoll")(error)),
        }
    }

    /// Opens connections at the start, some at a time.
    fn connect_some(&mut self, now_us: u64) {
        while self.connecting < CONNECTING_MAX && (self.connect_next as usize) < self.connections.len() {
            let local = self.connect_next;
            self.connect_next += 1;
            self.connecting += 1;
            self.connect(local, now_us);
        }
    }

    /// Starts to connect a client.
    pub(super) fn connect(&mut self, local: u32, now_us: u64) {
        let client = self.client_of(local);
        let nodes = self.shared.node_count();
        let connection = &mut self.connections[local as usize];
        connection.link.node %= nodes;
        let node = self.shared.node(connection.link.node);
        match connection.link.connect(&node, client, &self.epoll, local) {
            Ok(()) => {
                connection.is_joined = false;
                let generation = connection.link.generation;
                self.timers.push(Timer::timeout(now_us, local, generation));
            }
            Err(error) => self.lost(local, None, &format!("cannot connect to {}: {error}", node.host)),
        }
    }

    /// Sends what is due.
    fn send_due(&mut self, now_us: u64) {
        while let Some(intent) = self.agenda.take_due(now_us) {
            self.books.scheduled(intent.at_us);
            let stream = &self.shared.plan.streams[intent.stream as usize];
            let local = stream.client / self.shared.plan.threads as u32;
            let run_us = self.run_us(self.shared.now_us());
            let key = self.key();
            let connection = &mut self.connections[local as usize];
            let idle = connection.client.waiting.is_empty()
                && (connection.link.is_flushed() || connection.is_touched);
            if !(connection.was_live && connection.client.is_live() && connection.link.is_open() && idle) {
                connection.client.waiting.push_back(intent);
                continue;
            }
            connection.client.publish(&intent, run_us, &mut self.books, &mut connection.link.out, key);
            self.unflushed.push((intent.at_us, intent.at_us));
            self.touch(local);
        }
    }

    /// Sends what waited for a connection, now that there is one. Its lag counts from now: it was not the generator
    /// that was late. Its latencies count from when it was meant to be sent, like all.
    pub(super) fn send_waiting(&mut self, local: u32) {
        let run_us = self.run_us(self.shared.now_us());
        loop {
            let key = self.key();
            let connection = &mut self.connections[local as usize];
            if connection.link.out.len() > READ_BYTES || !connection.link.is_open() {
                break;
            }
            let Some(intent) = connection.client.waiting.pop_front() else { break };
            connection.client.publish(&intent, run_us, &mut self.books, &mut connection.link.out, key);
            self.unflushed.push((intent.at_us, run_us));
            self.touch(local);
        }
    }

    pub(super) fn touch(&mut self, local: u32) {
        let connection = &mut self.connections[local as usize];
        if !std::mem::replace(&mut connection.is_touched, true) {
            self.touched.push(local);
        }
    }

    fn flush_touched(&mut self) {
        // A flush may let messages out that waited, which touches the connection again.
        while !self.touched.is_empty() {
            let mut touched = std::mem::take(&mut self.touched);
            for local in touched.drain(..) {
                self.connections[local as usize].is_touched = false;
                self.flush(local);
            }
            if self.touched.is_empty() {
                self.touched = touched;
            }
        }
        if !self.unflushed.is_empty() {
            let run_us = self.run_us(self.shared.now_us());
            for (intended_us, since_us) in self.unflushed.drain(..) {
                self.books.written(intended_us, run_us.saturating_sub(since_us));
            }
        }
    }

    pub(super) fn flush(&mut self, local: u32) {
        let connection = &mut self.connections[local as usize];
        let flushed = connection.link.flush();
        let watched = connection.link.watch(&self.epoll, local);
        match flushed.and_then(|all| watched.map(|()| all)) {
            Ok(true) if !self.connections[local as usize].client.waiting.is_empty() => {
                if self.connections[local as usize].client.is_live() {
                    self.send_waiting(local);
                }
            }
            Ok(_) => {}
            Err(error) => self.lost(local, None, &format!("write: {error}")),
        }
    }

    /// Ends the thread: closes all windows and hands the books over.
    fn settle(mut self) -> Harvest {
        let mut failed = 0;
        let run_us = self.run_us(self.shared.now_us());
        for connection in &mut self.connections {
            failed += u64::from(!connection.client.is_live());
            connection.client.settle(run_us, &mut self.books);
        }
        self.report();
        let Books { ledger, sent, latencies, activity, lulls, sums, .. } = self.books;
        let occupied = self.occupied.unwrap_or_default();
        Harvest { ledger, sent, latencies, activity, lulls, sums, occupied, failed }
    }

    /// Reports the interval that is over.
    fn close_interval(&mut self, now_us: u64) {
        let Some(start_us) = self.agenda.start_us else { return };
        let run_us = now_us.saturating_sub(start_us);
        self.watch_window(run_us);
        while run_us / self.shared.interval_us > u64::from(self.books.interval.index) {
            self.report();
        }
    }

    fn report(&mut self) {
        self.abandoned.close_ended();
        let next = Interval { index: self.books.interval.index + 1, ..Interval::default() };
        self.books.interval.connections =
            self.connections.iter().filter(|one| one.client.is_live()).count() as u64;
        self.books.interval.missing = self.books.ledger.missing_so_far();
        let interval = std::mem::replace(&mut self.books.interval, next);
        // Whoever takes reports may have ended on an error of its own.
        let _ = self.reports.send(Box::new(interval));
    }

    fn watch_window(&mut self, run_us: u64) {
        let (from_us, to_us) = self.agenda.window_us;
        match self.window_began {
            None if run_us >= from_us => self.window_began = Some((ThreadTime::now(), run_us)),
            Some((began, began_us)) if run_us >= to_us && self.occupied.is_none() => {
                self.occupied = Some(ThreadTime::now().shares_since(&began, run_us - began_us));
            }
            _ => {}
        }
    }

    fn look_for_lacking(&self) {
        let (tails, holes) = self.connections.iter().fold((0, 0), |(tails, holes), connection| {
            let (tail, hole) = connection.client.lacking(&self.books);
            (tails + tail, holes + hole)
        });
        let lacking = &self.shared.lacking[self.thread];
        lacking.tails.store(tails, Ordering::Release);
        lacking.holes.store(holes, Ordering::Release);
    }

    /// Leaves a client's socket open, unread and unanswered.
    pub(super) fn abandon(&mut self, local: u32) {
        let socket = self.connections[local as usize].link.abandon(&self.epoll);
        socket.into_iter().for_each(|socket| self.abandoned.leave(socket));
    }

    pub(super) fn watch(&mut self, local: u32) {
        let watched = self.connections[local as usize].link.watch(&self.epoll, local);
        if let Err(error) = watched {
            self.lost(local, None, &format!("epoll: {error}"));
        }
    }
}
